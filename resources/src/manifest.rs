//! A document of a file into the resource that it declares: the head that all manifests share, then the block of the kind.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use crate::kind::{KINDS, Kind, Meta, one_of, only, unknown_keys};
use crate::name;
use crate::node::{Node, Value};
use crate::problem::{Location, Problem};
use crate::set::Builder;
use crate::suggest;

/// Reads the manifests in a document: one, or a list of them.
pub(crate) fn read(document: &Node, file: &Arc<Path>, set: &mut Builder) -> Vec<Problem> {
    match &document.value {
        Value::Map(_) => read_one(document, file, set),
        Value::List(nodes) => nodes.iter().flat_map(|node| read_one(node, file, set)).collect(),
        value => vec![not_a_manifest(value, document.line, file)],
    }
}

fn not_a_manifest(value: &Value, line: usize, file: &Arc<Path>) -> Problem {
    let message = format!("expected a manifest, found {}", value.kind());
    Problem::new(Location::new(Arc::clone(file), line), message)
        .help("a manifest is a map with `name`, `version` and `type`")
}

/// The keys that every manifest may have beside its block.
pub(crate) const HEAD: [&str; 8] = [
    "name",
    "version",
    "type",
    "tags",
    "description",
    "owner",
    "layer",
    "workspace",
];

#[derive(Deserialize)]
struct Head {
    name: String,
    version: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    description: Option<String>,
    owner: Option<String>,
    layer: Option<String>,
    workspace: Option<String>,
}

fn read_one(node: &Node, file: &Arc<Path>, set: &mut Builder) -> Vec<Problem> {
    if node.as_map().is_none() {
        return vec![not_a_manifest(&node.value, node.line, file)];
    }
    // Expectations may stand beside the manifests without a head of their own.
    if let [(key, tests)] = node.as_map().unwrap_or_default()
        && key.text == "tests"
    {
        return crate::kind::policy_test::read_tests(tests, file, set);
    }
    let written = node.get("type").and_then(Node::as_text);
    let kind = written.and_then(find_kind);
    let mut problems = match (written, kind) {
        (Some(written), Some(_)) => {
            let mut known = HEAD.to_vec();
            known.push(written);
            unknown_keys(node, &known, file)
        }
        (Some(written), None) => {
            let line = crate::kind::line_of(node, &["type"]);
            let mut problem = Problem::new(
                Location::new(Arc::clone(file), line),
                format!("there is no resource type `{written}`"),
            );
            problem.help = suggest::instead(written, type_names());
            vec![problem]
        }
        (None, _) => Vec::new(),
    };
    problems.extend(check_name(node, kind, file, set));
    let head = only(node, &HEAD).read::<Head>(file);
    let owner = match (&head, node.get("name").and_then(Node::plain_text)) {
        (Ok(head), _) => Some(format!("{} `{}`", head.kind, head.name)),
        (Err(_), Some(name)) => Some(format!("{} `{name}`", written.unwrap_or("resource"))),
        (Err(_), None) => None,
    };
    match (head, kind) {
        (Ok(head), Some(kind)) => problems.extend(read_kind(head, kind, node, file, set)),
        (Ok(_), None) => {}
        (Err(more), _) => problems.extend(more),
    }
    match owner {
        Some(owner) => problems.into_iter().map(|problem| problem.of(&owner)).collect(),
        None => problems,
    }
}

/// Checks the name and notes that it is taken, even if the rest of the manifest is not in order: who refers to it is then right.
fn check_name(node: &Node, kind: Option<&'static dyn Kind>, file: &Arc<Path>, set: &mut Builder) -> Option<Problem> {
    let (kind, name) = (kind?, node.get("name").and_then(Node::plain_text)?);
    let location = Location::new(Arc::clone(file), crate::kind::line_of(node, &["name"]));
    if let Err(message) = name::check(&name, kind.has_narrow_names()) {
        Some(Problem::new(location, message))
    } else if kind.name() == "depot" && name::RESERVED_DEPOTS.contains(&name.as_str()) {
        Some(
            Problem::new(
                location,
                format!("the name `{name}` belongs to a catalog of Minerva itself"),
            )
            .help("choose another"),
        )
    } else if let Err(first) = set.declare(kind.name(), &name, location.clone()) {
        Some(Problem::new(location, format!("the name is taken: the first is at {first}")).help("rename one of them"))
    } else {
        None
    }
}

fn read_kind(head: Head, kind: &'static dyn Kind, node: &Node, file: &Arc<Path>, set: &mut Builder) -> Vec<Problem> {
    let at = |path: &[&str]| Location::new(Arc::clone(file), crate::kind::line_of(node, path));
    let mut problems = Vec::new();
    problems.extend(one_of(&head.version, kind.versions(), "version", at(&["version"])));
    let layer = head.layer.unwrap_or_else(|| "user".to_string());
    problems.extend(one_of(&layer, &["user", "system"], "layer", at(&["layer"])));
    let Some(body) = node.get(&head.kind) else {
        problems.push(Problem::new(at(&[]), format!("the block `{}` is missing", head.kind)));
        return problems;
    };
    if body.as_map().is_none() && !body.is_null() {
        let message = format!("`{}` is {}; expected a map", head.kind, body.value.kind());
        problems.push(Problem::new(at(&[&head.kind]), message));
        return problems;
    }
    let meta = Meta {
        name: head.name,
        version: head.version,
        kind: head.kind,
        tags: head.tags,
        description: head.description.unwrap_or_default(),
        owner: head.owner,
        layer,
        workspace: head.workspace,
        location: at(&[]),
    };
    let empty = Node {
        value: Value::Map(Vec::new()),
        line: body.line,
    };
    let body = if body.is_null() { &empty } else { body };
    problems.extend(kind.read(meta, body, set));
    problems
}

fn find_kind(written: &str) -> Option<&'static dyn Kind> {
    KINDS
        .iter()
        .copied()
        .find(|kind| kind.name() == written || kind.aliases().contains(&written))
}

fn type_names() -> impl Iterator<Item = &'static str> + Clone {
    KINDS
        .iter()
        .flat_map(|kind| std::iter::once(kind.name()).chain(kind.aliases().iter().copied()))
}

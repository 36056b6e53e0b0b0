//! The kinds of resources: one file each, one line each in [`KINDS`].
//!
//! In: a manifest's head and the block named after its type. Out: the resource, handed to a [`Builder`], or every problem.

pub(crate) mod access;
pub(crate) mod cluster;
pub(crate) mod data;
pub(crate) mod dataset;
pub(crate) mod depot;
pub(crate) mod identity_provider;
mod policy;
pub(crate) mod policy_test;
pub(crate) mod secret;
pub(crate) mod user;

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::glob::{Glob, TagRule};
use crate::node::Node;
use crate::problem::{Location, Problem};
use crate::set::Builder;
use crate::suggest;

/// Every kind there is, in the order of the alphabet.
pub const KINDS: &[&dyn Kind] = &[
    &cluster::ClusterKind,
    &dataset::DatasetKind,
    &depot::DepotKind,
    &identity_provider::IdentityProviderKind,
    &policy::PolicyKind,
    &policy_test::PolicyTestKind,
    &secret::SecretKind,
    &user::UserKind,
];

/// What every manifest says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Meta {
    /// What the resource is called.
    pub name: String,
    /// The version of the kind's form.
    pub version: String,
    /// The `type`, as it was written.
    pub kind: String,
    /// Free tags of the resource itself.
    pub tags: Vec<String>,
    /// A sentence for people; empty if there is none.
    pub description: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// `user` or `system`.
    pub layer: String,
    /// The workspace, for what lives in one.
    pub workspace: Option<String>,
    /// Where the manifest begins.
    pub location: Location,
}

impl Meta {
    /// Another line of the same file.
    pub(crate) fn at(&self, line: usize) -> Location {
        Location::new(Arc::clone(&self.location.file), line)
    }

    /// "depot `sales`".
    pub(crate) fn owner_of_problems(&self) -> String {
        format!("{} `{}`", self.kind, self.name)
    }
}

/// A line of a kind's reference: one key.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The path of the key, such as `user.apikeys[].name`.
    pub path: &'static str,
    /// What stands behind it.
    pub value: &'static str,
    /// Whether it must be there.
    pub required: bool,
    /// What it says, in whole sentences.
    pub description: &'static str,
}

/// A key that must be there.
pub(crate) const fn required(path: &'static str, value: &'static str, description: &'static str) -> Field {
    Field {
        path,
        value,
        required: true,
        description,
    }
}

/// A key that may be there.
pub(crate) const fn optional(path: &'static str, value: &'static str, description: &'static str) -> Field {
    Field {
        path,
        value,
        required: false,
        description,
    }
}

/// A kind of resource.
pub trait Kind: Sync {
    /// Its `type`, which is also the name of its block.
    fn name(&self) -> &'static str;

    /// Other spellings of its `type`; the block is named alike.
    fn aliases(&self) -> &'static [&'static str] {
        &[]
    }

    /// The values of `version` that it knows.
    fn versions(&self) -> &'static [&'static str] {
        &["v1"]
    }

    /// Whether its names are only letters and digits, because SQL uses them.
    fn has_narrow_names(&self) -> bool {
        false
    }

    /// What it is for, in whole sentences.
    fn description(&self) -> &'static str;

    /// Manifests that load as they stand.
    fn example(&self) -> &'static str;

    /// The keys of its block.
    fn fields(&self) -> &'static [Field];

    /// Reads the block of a manifest and hands what it says to the set.
    fn read(&self, meta: Meta, body: &Node, set: &mut Builder) -> Vec<Problem>;
}

/// Notes the keys of a map that are not known.
pub(crate) fn unknown_keys(node: &Node, known: &[&str], file: &Arc<Path>) -> Vec<Problem> {
    let unknown = node
        .as_map()
        .unwrap_or_default()
        .iter()
        .filter(|(key, _)| !known.contains(&key.text.as_str()));
    unknown
        .map(|(key, _)| {
            let mut problem = Problem::new(
                Location::new(Arc::clone(file), key.line),
                format!("unknown key `{}`", key.text),
            );
            problem.help = suggest::instead(&key.text, known.iter().copied());
            problem
        })
        .collect()
}

/// The map with these keys only.
pub(crate) fn only(node: &Node, keys: &[&str]) -> Node {
    let entries = node
        .as_map()
        .unwrap_or_default()
        .iter()
        .filter(|(key, _)| keys.contains(&key.text.as_str()));
    Node {
        value: crate::node::Value::Map(entries.cloned().collect()),
        line: node.line,
    }
}

/// One of some words, or what is wrong with it.
pub(crate) fn one_of(word: &str, words: &[&str], key: &str, location: Location) -> Option<Problem> {
    if words.contains(&word) {
        return None;
    }
    let message = format!(
        "`{key}` is `{word}`; expected one of {}",
        suggest::quoted(words.iter().copied())
    );
    let mut problem = Problem::new(location, message);
    problem.help = suggest::closest(word, words.iter().copied()).map(|near| format!("did you mean `{near}`?"));
    Some(problem)
}

/// The line of the value behind a path of keys, or of the nearest value above it.
pub(crate) fn line_of(node: &Node, path: &[&str]) -> usize {
    let mut node = node;
    for key in path {
        match node.get(key) {
            Some(inner) => node = inner,
            None => break,
        }
    }
    node.line
}

/// A pattern; what is wrong with it is noted.
pub(crate) fn glob(text: &str, location: Location, problems: &mut Vec<Problem>) -> Option<Glob> {
    Glob::new(text)
        .map_err(|message| problems.push(Problem::new(location, message)))
        .ok()
}

/// A list of patterns; a key that is absent is an empty list, one that is there must name something.
pub(crate) fn globs(node: Option<&Node>, key: &str, meta: &Meta, problems: &mut Vec<Problem>) -> Vec<Glob> {
    let Some(node) = node else {
        return Vec::new();
    };
    let Some(nodes) = node.as_list().filter(|nodes| !nodes.is_empty()) else {
        problems.push(Problem::new(
            meta.at(node.line),
            format!("`{key}` is not a list with something in it"),
        ));
        return Vec::new();
    };
    let mut globs = Vec::with_capacity(nodes.len());
    for node in nodes {
        match node.as_text() {
            Some(text) => globs.extend(glob(text, meta.at(node.line), problems)),
            None => problems.push(Problem::new(
                meta.at(node.line),
                format!("`{key}` holds {}; expected text", node.value.kind()),
            )),
        }
    }
    globs
}

/// A rule of tags: a list of which each element is a tag, or a list of tags that must all be there.
pub(crate) fn tag_rule(node: Option<&Node>, key: &str, meta: &Meta, problems: &mut Vec<Problem>) -> TagRule {
    let Some(node) = node else {
        return TagRule::default();
    };
    let Some(nodes) = node.as_list().filter(|nodes| !nodes.is_empty()) else {
        let message = format!("`{key}` is not a list with something in it");
        problems.push(
            Problem::new(meta.at(node.line), message).help("expected such as `[[roles:id:user, roles:id:analyst]]`"),
        );
        return TagRule::default();
    };
    let mut lists = Vec::with_capacity(nodes.len());
    for node in nodes {
        if let Some(text) = node.as_text() {
            lists.extend(glob(text, meta.at(node.line), problems).map(|glob| vec![glob]));
        } else {
            let all = globs(Some(node), key, meta, problems);
            if !all.is_empty() {
                lists.push(all);
            }
        }
    }
    TagRule(lists)
}

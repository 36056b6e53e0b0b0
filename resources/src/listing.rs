//! The resources that files declare, as they may be shown: for `minerva get`.
//!
//! In: folders and files. Out: each resource with its kind, its name, where it stands, and its manifest without the values of secrets and the hashes
//! of keys. Deliberately absent: whether the resources are in order.

use std::path::{Path, PathBuf};

use crate::files;
use crate::kind::{KINDS, Kind};
use crate::node::{self, Node, Value};
use crate::problem::{Location, Problem, Problems};
use crate::shown::{KnownSettings, shown};
use crate::suggest;

/// A resource as its file declares it.
#[derive(Debug, Clone)]
pub struct Declared {
    /// The name of its kind: a secret, however it is spelt, is a `secret`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub location: Location,
    /// Its manifest; of credentials only the keys are there, and so of whatever nobody knows in a manifest that may hold some.
    pub manifest: Node,
}

/// Every resource in these folders and files, in the order of files and lines. Of the settings of depots those are shown that `settings` knows.
///
/// # Errors
/// Every file that cannot be read.
pub fn declared(paths: &[PathBuf], settings: KnownSettings) -> Result<Vec<Declared>, Problems> {
    let mut problems = vec![];
    let mut found = vec![];
    for file in files::find(paths, &mut problems) {
        let nodes = match files::read(&file) {
            Ok(text) => node::parse(&text, &file),
            Err((line, message)) => Err(vec![Problem::new(Location::new(&*file, line), message)]),
        };
        match nodes {
            Ok(nodes) => nodes.iter().for_each(|node| gather(node, &file, settings, &mut found)),
            Err(more) => problems.extend(more),
        }
    }
    match problems.is_empty() {
        true => Ok(found),
        false => Err(Problems::sorted(problems)),
    }
}

fn gather(node: &Node, file: &Path, settings: KnownSettings, found: &mut Vec<Declared>) {
    match &node.value {
        Value::List(nodes) => nodes.iter().for_each(|node| gather(node, file, settings, found)),
        Value::Map(_) => {
            if let Some((kind, name)) = id_of(node) {
                found.push(Declared {
                    kind: kind.name(),
                    name,
                    location: Location::new(file, node.line),
                    manifest: shown(node, kind, settings),
                });
            }
        }
        _ => {}
    }
}

/// The kind and name that a manifest gives itself.
pub(crate) fn id_of(node: &Node) -> Option<(&'static dyn Kind, String)> {
    let written = node.get("type").and_then(Node::as_text)?;
    let known = |kind: &&&dyn Kind| kind.name() == written || kind.aliases().contains(&written);
    let kind = KINDS.iter().find(known)?;
    Some((*kind, node.get("name").and_then(Node::plain_text)?))
}

/// The kind that somebody means: `user`, `users`, `instance-secret`.
///
/// # Errors
/// A sentence that names the kinds.
pub fn kind_named(written: &str) -> Result<&'static str, String> {
    let plural = |name: &str| match name.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{name}s"),
    };
    let is = |name: &str| name.eq_ignore_ascii_case(written) || plural(name).eq_ignore_ascii_case(written);
    let found = KINDS
        .iter()
        .find(|kind| is(kind.name()) || kind.aliases().iter().any(|alias| is(alias)));
    found.map(|kind| kind.name()).ok_or_else(|| {
        let instead = suggest::instead(written, KINDS.iter().map(|kind| kind.name()));
        let instead = instead.map_or_else(String::new, |instead| format!("; {instead}"));
        format!("there is no resource type `{written}`{instead}")
    })
}

/// A sentence that says that there is no such resource, and which may be meant.
pub fn no_such<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a Declared>) -> String {
    let names = known
        .into_iter()
        .filter(|one| one.kind == kind)
        .map(|one| one.name.as_str());
    let near = suggest::closest(name, names).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    format!("there is no {kind} `{name}`{near}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_not_shown() {
        let text = "
name: s
version: v1
type: instance-secret
instance-secret: {acl: r, data: {username: HIDDEN, password: HIDDEN}, dta: {key: HIDDEN}, files: {pem: ./a.pem}}
---
- name: d
  version: v1
  type: depot
  depot: {type: POSTGRESQL, spec: {host: h}, connectionSecret: [{acl: rw, data: {password: HIDDEN}}]}
- name: jane
  version: v1
  type: user
  user: {tags: [a], apikeys: [{name: k, sha256: HIDDEN}]}
---
tests: []
";
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, text).unwrap();
        let found = declared(std::slice::from_ref(&file), |_| &[]).unwrap();
        let ids: Vec<_> = found
            .iter()
            .map(|one| (one.kind, one.name.as_str(), one.location.line))
            .collect();
        assert_eq!(ids, [("secret", "s", 2), ("depot", "d", 7), ("user", "jane", 11)]);
        let shown: Vec<String> = found.iter().map(|one| one.manifest.to_yaml()).collect();
        let all = shown.join("---\n");
        assert!(!all.contains("HIDDEN"), "{all}");
        for kept in ["- password", "- username", "./a.pem", "acl: rw", "name: k", "- key"] {
            assert!(all.contains(kept), "{kept}: {all}");
        }
        assert_eq!(
            no_such("user", "jan", &found),
            "there is no user `jan`; did you mean `jane`?"
        );
    }

    #[test]
    fn kinds_go_by_one_and_by_many() {
        for (written, expected) in [
            ("user", "user"),
            ("Users", "user"),
            ("policies", "policy"),
            ("instance-secret", "secret"),
        ] {
            assert_eq!(kind_named(written), Ok(expected));
        }
        assert!(kind_named("usr").unwrap_err().contains("`usr`; did you mean `user`?"));
    }
}

//! The `access` block of a policy: who may do what to what. Deciding is left to those who enforce it.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Meta, globs, tag_rule};
use crate::glob::{Glob, TagRule};
use crate::node::Node;
use crate::problem::Problem;
use crate::set::Builder;

/// Who may, or may not, do what to what.
#[derive(Debug, Clone)]
pub struct AccessPolicy {
    /// The head of the manifest.
    pub meta: Meta,
    /// What people call it; else the name of the manifest.
    pub name: String,
    /// Whom it is about.
    pub subjects: TagRule,
    /// What they want to do.
    pub predicates: Vec<Glob>,
    /// To things with these paths.
    pub paths: Vec<Glob>,
    /// To things with these tags.
    pub tags: TagRule,
    /// Whether it allows; else it denies.
    pub allow: bool,
}

#[derive(Deserialize)]
struct Written {
    name: Option<String>,
    description: Option<String>,
    #[serde(rename = "collection")]
    _collection: Option<String>,
    #[serde(rename = "subjects")]
    _subjects: Subjects,
    #[serde(rename = "predicates")]
    _predicates: IgnoredAny,
    #[serde(rename = "objects")]
    _objects: Objects,
    #[serde(default)]
    allow: bool,
}

#[derive(Deserialize)]
struct Subjects {
    #[serde(rename = "tags")]
    _tags: IgnoredAny,
}

#[derive(Deserialize)]
struct Objects {
    #[serde(rename = "paths")]
    _paths: Option<IgnoredAny>,
    #[serde(rename = "tags")]
    _tags: Option<IgnoredAny>,
}

pub(super) fn read(mut meta: Meta, node: &Node, set: &mut Builder) -> Vec<Problem> {
    let mut problems = Vec::new();
    let written = node
        .read::<Written>(&Arc::clone(&meta.location.file))
        .map_err(|more| problems.extend(more))
        .ok();
    let collection = node.get("collection").and_then(Node::as_text);
    if collection.is_some_and(|collection| collection != "default") {
        let line = super::line_of(node, &["collection"]);
        problems.push(Problem::new(meta.at(line), "the only `collection` is `default`"));
    }
    let at = |keys: [&str; 2]| node.get(keys[0]).and_then(|inner| inner.get(keys[1]));
    let subjects = tag_rule(at(["subjects", "tags"]), "subjects.tags", &meta, &mut problems);
    let predicates = globs(node.get("predicates"), "predicates", &meta, &mut problems);
    if node
        .get("objects")
        .is_some_and(|objects| objects.as_map().is_some_and(<[_]>::is_empty))
    {
        let line = super::line_of(node, &["objects"]);
        problems.push(Problem::new(
            meta.at(line),
            "`objects` names nothing; expected `paths` or `tags`",
        ));
    }
    let paths = globs(at(["objects", "paths"]), "objects.paths", &meta, &mut problems);
    let tags = tag_rule(at(["objects", "tags"]), "objects.tags", &meta, &mut problems);
    if let (true, Some(written)) = (problems.is_empty(), written) {
        if let (true, Some(description)) = (meta.description.is_empty(), written.description) {
            meta.description = description;
        }
        let name = written.name.unwrap_or_else(|| meta.name.clone());
        set.add_access_policy(AccessPolicy {
            meta,
            name,
            subjects,
            predicates,
            paths,
            tags,
            allow: written.allow,
        });
    }
    problems
}

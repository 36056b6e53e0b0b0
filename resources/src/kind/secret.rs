//! `secret`, `instance-secret`: credentials, kept apart from what uses them.
//!
//! The values are seen by nobody but those who open a source or key a mask: `Debug` hides them, and no problem repeats one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Field, Kind, Meta, one_of, optional, required};
use crate::node::Node;
use crate::problem::Problem;
use crate::set::Builder;

/// Credentials.
#[derive(Clone, Serialize, Deserialize)]
pub struct Secret {
    /// The head of the manifest.
    pub meta: Meta,
    /// What they allow: `r` or `rw`.
    pub acl: String,
    /// The credentials, files among them under their keys.
    pub data: BTreeMap<String, String>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> = self.data.keys().collect();
        f.debug_struct("Secret")
            .field("meta", &self.meta)
            .field("acl", &self.acl)
            .field("data", &keys)
            .finish()
    }
}

/// Credentials as a manifest writes them.
#[derive(Deserialize)]
pub(super) struct Written {
    #[serde(rename = "type", default = "properties")]
    form: String,
    #[serde(default = "read_only")]
    pub(super) acl: String,
    #[serde(default)]
    data: BTreeMap<String, String>,
    #[serde(default)]
    files: BTreeMap<String, String>,
}

fn properties() -> String {
    "key-value-properties".to_string()
}

fn read_only() -> String {
    "r".to_string()
}

impl Written {
    /// The credentials, with the files read.
    pub(super) fn take(
        self,
        node: &Node,
        meta: &Meta,
        set: &mut Builder,
        problems: &mut Vec<Problem>,
    ) -> BTreeMap<String, String> {
        const FORMS: [&str; 5] = [
            "key-value",
            "key-value-properties",
            "certificates",
            "cloud-kernel",
            "cloud-kernel-image-pull",
        ];
        let line = |path: &[&str]| meta.at(super::line_of(node, path));
        problems.extend(one_of(&self.form, &FORMS, "type", line(&["type"])));
        problems.extend(one_of(&self.acl, &["r", "rw"], "acl", line(&["acl"])));
        let mut data = self.data;
        let base = meta.location.file.parent().unwrap_or(Path::new(""));
        for (key, path) in self.files {
            let place = line(&["files", &key]);
            match set.read_file(&base.join(&path)) {
                Ok(text) => {
                    if data.insert(key.clone(), text).is_some() {
                        problems.push(Problem::new(
                            place,
                            format!("the key `{key}` is in both `data` and `files`"),
                        ));
                    }
                }
                Err(message) => problems.push(Problem::new(place, format!("`files.{key}`: {message}"))),
            }
        }
        if data.is_empty() && problems.is_empty() {
            problems.push(
                Problem::new(meta.at(node.line), "there are no credentials in it").help("fill `data` or `files`"),
            );
        }
        data
    }
}

#[derive(Debug)]
pub(crate) struct SecretKind;

impl Kind for SecretKind {
    fn name(&self) -> &'static str {
        "secret"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["instance-secret"]
    }

    fn description(&self) -> &'static str {
        "A secret holds credentials: those of a depot, or the key of a mask. Depots and policies name it and never repeat what is in \
         it; nothing prints it, logs it, sends it in a plan or returns it. `instance-secret` is the same for the whole instance: the \
         block is named like the `type`. Write `${NAME}` to keep a value out of the file altogether."
    }

    fn example(&self) -> &'static str {
        "name: crm-r
version: v1
type: instance-secret
description: reads the customer database
instance-secret:
  type: key-value-properties
  acl: r
  data:
    username: reader
    password: \"correct horse\"
---
name: tokens
version: v1
type: secret
workspace: public
secret:
  acl: r
  data: {key: 6f1d5c2f0b}
"
    }

    fn fields(&self) -> &'static [Field] {
        const FIELDS: &[Field] = &[
            optional(
                "type",
                "`key-value`, `key-value-properties`, `certificates`, `cloud-kernel`, `cloud-kernel-image-pull`",
                "How the values are meant; all are read alike. `key-value-properties` when absent.",
            ),
            optional("acl", "`r`, `rw`", "What the credentials allow. `r` when absent."),
            required(
                "data",
                "map of texts",
                "The credentials by key. Numbers with a fraction and true or false need quotes. May be absent if there are `files`.",
            ),
            optional(
                "files",
                "map of paths",
                "Files whose text becomes a credential, relative to the manifest. They are watched like manifests.",
            ),
        ];
        FIELDS
    }

    fn read(&self, meta: Meta, body: &Node, set: &mut Builder) -> Vec<Problem> {
        let written: Written = match body.read(&meta.location.file) {
            Ok(written) => written,
            Err(problems) => return problems,
        };
        let mut problems = Vec::new();
        let acl = written.acl.clone();
        let data = written.take(body, &meta, set, &mut problems);
        if problems.is_empty() {
            set.add_secret(Secret { meta, acl, data });
        }
        problems
    }
}

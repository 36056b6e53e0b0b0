//! `user`: who may ask, with tags for access, attributes for row filters and the hashes of API keys.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Field, Kind, Meta, optional, required};
use crate::certificate_name::{CertificateName, Subject};
use crate::node::Node;
use crate::problem::Problem;
use crate::set::Builder;
use crate::time;

/// Somebody who may ask.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct User {
    /// The head of the manifest.
    pub meta: Meta,
    /// The name of the manifest.
    pub id: String,
    /// The tags, `users:id:<id>` among them.
    pub tags: Vec<String>,
    /// What row filters may compare with.
    pub attributes: BTreeMap<String, String>,
    /// The keys that prove who asks.
    pub apikeys: Vec<ApiKey>,
    /// The certificates that prove who asks, by what they say of their holder.
    #[serde(default)]
    pub certificates: Vec<CertificateName>,
}

/// What is kept of an API key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// What its owner calls it.
    pub name: String,
    /// The SHA-256 of the key: 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// When it ceases to hold, in seconds since 1970; never if absent.
    pub expires: Option<i64>,
}

impl User {
    /// The API key with this hash, expired or not.
    pub fn apikey(&self, sha256: &str) -> Option<&ApiKey> {
        self.apikeys.iter().find(|apikey| apikey.sha256 == sha256)
    }
}

#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    apikeys: Vec<WrittenKey>,
    #[serde(default)]
    certificates: Vec<WrittenCertificate>,
}

#[derive(Deserialize)]
struct WrittenCertificate {
    subject: Option<String>,
    uri: Option<String>,
}

#[derive(Deserialize)]
struct WrittenKey {
    name: String,
    sha256: String,
    expires: Option<String>,
}

#[derive(Debug)]
pub(crate) struct UserKind;

impl Kind for UserKind {
    fn name(&self) -> &'static str {
        "user"
    }

    fn description(&self) -> &'static str {
        "A user is somebody who may connect. Policies select users by tag; every user has the tag `users:id:<name>` without writing it. \
         Row filters may compare with the attributes. Only the hash of an API key is kept; `minerva user apikey create` makes one."
    }

    fn example(&self) -> &'static str {
        "name: jane
version: v1
type: user
user:
  tags: [roles:id:user, roles:id:analyst]
  attributes: {region: EU, tenant: A}
  apikeys:
    - name: laptop
      sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
      expires: 2027-01-01T00:00:00Z
  certificates:
    - subject: CN=jane,O=Acme
    - uri: spiffe://acme.example/jane
"
    }

    fn fields(&self) -> &'static [Field] {
        const FIELDS: &[Field] = &[
            optional(
                "tags",
                "list of texts",
                "What the user is: `roles:id:analyst`. The tag of another user is refused.",
            ),
            optional(
                "attributes",
                "map of texts",
                "Values for row filters, where `${user.attributes.region}` stands for one.",
            ),
            optional("apikeys", "list", "The keys with which the user connects."),
            required("apikeys[].name", "text", "What the user calls the key; each name once."),
            required(
                "apikeys[].sha256",
                "64 hexadecimal digits",
                "The SHA-256 of the key. No two users share a key.",
            ),
            optional(
                "apikeys[].expires",
                "`2027-01-01` or `2027-01-01T12:00:00Z`",
                "When the key ceases to hold; a day means its first second in UTC. Never when absent.",
            ),
            optional(
                "certificates",
                "list",
                "Client certificates with which the user connects, if `--tls-ca` names their authority. No two users share one.",
            ),
            optional(
                "certificates[].subject",
                "text",
                "The subject as RFC 4514 writes it, all of it, letter by letter: `openssl x509 -noout -subject -nameopt RFC2253` prints it. \
                 Each certificate has either this or `uri`.",
            ),
            optional(
                "certificates[].uri",
                "text",
                "A URI among the subject's alternative names, letter by letter.",
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
        let own = format!("users:id:{}", meta.name);
        let tag_nodes = body.get("tags").and_then(Node::as_list).unwrap_or_default();
        let mut tags = vec![own.clone()];
        let mut seen = BTreeSet::from([own.clone()]);
        for (tag, node) in written.tags.into_iter().zip(tag_nodes) {
            if tag.is_empty() {
                problems.push(Problem::new(meta.at(node.line), "a tag is empty"));
            } else if tag.starts_with("users:id:") && tag != own {
                let message = format!("the tag `{tag}` belongs to another user");
                problems.push(
                    Problem::new(meta.at(node.line), message).help("give both a role, such as `roles:id:analyst`"),
                );
            } else if seen.insert(tag.clone()) {
                tags.push(tag);
            }
        }
        let mut names = BTreeSet::new();
        let mut apikeys = Vec::new();
        let key_nodes = body.get("apikeys").and_then(Node::as_list).unwrap_or_default();
        for (apikey, node) in written.apikeys.into_iter().zip(key_nodes) {
            let line = |key| meta.at(super::line_of(node, &[key]));
            if !names.insert(apikey.name.clone()) {
                problems.push(Problem::new(
                    line("name"),
                    format!("two API keys are called `{}`", apikey.name),
                ));
            }
            let sha256 = apikey.sha256.to_ascii_lowercase();
            if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                let message = "`sha256` is not 64 hexadecimal digits".to_string();
                problems.push(Problem::new(line("sha256"), message).help("`minerva user apikey create` writes it"));
            }
            let expires = apikey.expires.as_deref().map(time::instant);
            if expires == Some(None) {
                let message = "`expires` is not a time; expected such as `2027-01-01` or `2027-01-01T12:00:00Z`";
                problems.push(Problem::new(line("expires"), message));
            }
            apikeys.push(ApiKey {
                name: apikey.name,
                sha256,
                expires: expires.flatten(),
            });
        }
        let certificates = certificates(written.certificates, body, &meta, &mut problems);
        if problems.is_empty() {
            let id = meta.name.clone();
            set.add_user(User {
                meta,
                id,
                tags,
                attributes: written.attributes,
                apikeys,
                certificates,
            });
        }
        problems
    }
}

fn certificates(
    written: Vec<WrittenCertificate>,
    body: &Node,
    meta: &Meta,
    problems: &mut Vec<Problem>,
) -> Vec<CertificateName> {
    let nodes = body.get("certificates").and_then(Node::as_list).unwrap_or_default();
    let mut names = Vec::new();
    for (certificate, node) in written.into_iter().zip(nodes) {
        let name = match (certificate.subject, certificate.uri) {
            (Some(subject), None) => Subject::parse(&subject)
                .map(CertificateName::Subject)
                .map_err(|why| format!("`subject` is no subject: {why}")),
            (None, Some(uri)) if uri.contains(':') => Ok(CertificateName::Uri(uri)),
            (None, Some(_)) => Err("`uri` is no URI".to_owned()),
            _ => Err("a certificate has either `subject` or `uri`".to_owned()),
        };
        match name {
            Ok(name) if names.contains(&name) => {
                problems.push(Problem::new(
                    meta.at(node.line),
                    format!("the certificate of `{name}` is there twice"),
                ));
            }
            Ok(name) => names.push(name),
            Err(message) => problems
                .push(Problem::new(meta.at(node.line), message).help("expected such as `subject: CN=jane,O=Acme`")),
        }
    }
    names
}

//! `depot`: a source of data that stays where it is.
//!
//! In: the v1 form (`spec`, `connectionSecret`) or the v2alpha form (a block named after the type, `secrets`). Out: a [`Depot`] with its
//! credentials beside it. What the settings mean is known to connectors, who check them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Field, Kind, Meta, only, optional, required, secret, unknown_keys};
use crate::digest;
use crate::node::{Node, Value};
use crate::parameter::{Parameter, Settings};
use crate::problem::{Location, Problem};
use crate::set::Builder;
use crate::{suggest, time};

/// A source of data.
#[derive(Clone, Serialize, Deserialize)]
pub struct Depot {
    /// The head of the manifest.
    pub meta: Meta,
    /// The type in lower case: `postgresql`.
    pub depot_type: String,
    /// What the connector was told.
    pub settings: Settings,
    /// The folder of the manifest, from which relative paths start.
    pub base: PathBuf,
    /// The credentials out of all its secrets; where a key is in several, that of a secret for reading.
    pub credentials: BTreeMap<String, String>,
    /// The same, but where a key is in several, that of a secret for writing. Only the coordinator writes, so no worker is given them.
    #[serde(skip)]
    pub write_credentials: BTreeMap<String, String>,
    /// Whether statements may write to it (`acl: rw`).
    #[serde(default)]
    pub writable: bool,
    /// Whether columns with tags may be written to it.
    #[serde(default)]
    pub accepts_tags: bool,
    /// How long what is known of its collections, datasets and columns may be shown in listings; zero means that it is asked each time. Without
    /// it the type of the depot says.
    #[serde(default)]
    pub metadata_ttl: Option<Duration>,
    /// How long it is waited for.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Changes when anything of the depot changes.
    pub fingerprint: String,
}

/// How long a depot is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// Until it is open, all of its addresses tried.
    pub connect: Duration,
    /// For an answer to a question about its datasets, and for the next rows of one that is read.
    pub idle: Duration,
    /// For all rows of a dataset that is read; without it as long as the query may run.
    pub query: Option<Duration>,
    /// By a listing of several depots, which goes on without it then.
    pub listing: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(30),
            idle: Duration::from_secs(1800),
            query: None,
            listing: Duration::from_secs(5),
        }
    }
}

/// The longest times that a manifest may say.
const MOST_TTL: Duration = Duration::from_secs(24 * 3600);
const MOST_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

impl Depot {
    /// The depot's name, which is the name of its SQL catalog.
    pub fn name(&self) -> &str {
        &self.meta.name
    }

    /// A setting that is a path, relative to the manifest.
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        self.settings.path(key, &self.base)
    }

    /// What is wrong with the settings and credentials in the eyes of a connector that knows `parameters`.
    pub fn check(&self, parameters: &[Parameter]) -> Vec<Problem> {
        let mut problems = self.settings.check(parameters, &self.meta.name);
        for parameter in parameters
            .iter()
            .filter(|parameter| parameter.secret && parameter.required)
        {
            if !self.credentials.contains_key(parameter.name) {
                let message = format!("depot `{}`: no secret has the key `{}`", self.meta.name, parameter.name);
                let near = suggest::closest(parameter.name, self.credentials.keys().map(String::as_str));
                let help = near.map_or_else(
                    || "put it in the `data` of a secret and name the secret under `secrets`".to_string(),
                    |near| format!("there is `{near}`"),
                );
                problems.push(Problem::new(self.meta.location.clone(), message).help(help));
            }
        }
        problems
    }
}

impl fmt::Debug for Depot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> = self.credentials.keys().collect();
        f.debug_struct("Depot")
            .field("meta", &self.meta)
            .field("depot_type", &self.depot_type)
            .field("settings", &self.settings)
            .field("base", &self.base)
            .field("credentials", &keys)
            .field("writable", &self.writable)
            .field("accepts_tags", &self.accepts_tags)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// A depot whose secrets are still to be found.
#[derive(Debug)]
pub(crate) struct Draft {
    depot: Depot,
    secrets: Vec<Reference>,
    /// Credentials that the manifest holds itself, by what they allow.
    own: Vec<(String, BTreeMap<String, String>)>,
}

/// A secret that is named, and which of its keys are wanted; all if none is named.
#[derive(Debug)]
struct Reference {
    name: String,
    workspace: Option<String>,
    keys: Vec<String>,
    location: Location,
}

impl Draft {
    pub(crate) fn meta(&self) -> &Meta {
        &self.depot.meta
    }

    /// The depot with the credentials of its secrets. Where a key is in several, that of a secret for reading is taken.
    pub(crate) fn resolve(mut self, set: &Builder) -> Result<Depot, Vec<Problem>> {
        let owner = self.depot.meta.owner_of_problems();
        let mut problems = Vec::new();
        let mut found = self.own;
        for reference in self.secrets {
            let name = &reference.name;
            let Some(secret) = set.secret(name) else {
                if !set.is_declared("secret", name) {
                    let mut problem = Problem::new(reference.location, format!("{owner}: there is no secret `{name}`"));
                    problem.help =
                        suggest::closest(name, set.secret_names()).map(|near| format!("did you mean `{near}`?"));
                    problems.push(problem);
                }
                continue;
            };
            let of = |meta: &Meta| meta.workspace.clone().unwrap_or_else(|| "public".to_string());
            if let Some(workspace) = &reference.workspace
                && secret.meta.kind == "secret"
                && *workspace != of(&secret.meta)
            {
                let message = format!(
                    "{owner}: the secret `{name}` lies in the workspace `{}`",
                    of(&secret.meta)
                );
                problems.push(Problem::new(reference.location.clone(), message));
            }
            let mut data = secret.data.clone();
            for key in &reference.keys {
                if !data.contains_key(key) {
                    let message = format!("{owner}: the secret `{name}` has no key `{key}`");
                    let mut problem = Problem::new(reference.location.clone(), message);
                    problem.help = suggest::instead(key, data.keys().map(String::as_str));
                    problems.push(problem);
                }
            }
            if !reference.keys.is_empty() {
                data.retain(|key, _| reference.keys.contains(key));
            }
            found.push((secret.acl.clone(), data));
        }
        // The last one that is put in stays.
        found.sort_by_key(|(acl, _)| acl == "rw");
        self.depot.write_credentials = found.iter().flat_map(|(_, data)| data.clone()).collect();
        found.sort_by_key(|(acl, _)| acl != "rw");
        self.depot.credentials = found.into_iter().flat_map(|(_, data)| data).collect();
        self.depot.fingerprint = fingerprint(&self.depot);
        if problems.is_empty() {
            Ok(self.depot)
        } else {
            Err(problems)
        }
    }
}

fn fingerprint(depot: &Depot) -> String {
    let Meta {
        name,
        version,
        kind,
        tags,
        description,
        owner,
        layer,
        workspace,
        location: _,
    } = &depot.meta;
    let meta = serde_json::json!([name, version, kind, tags, description, owner, layer, workspace]);
    let writing = serde_json::json!([depot.write_credentials, depot.writable, depot.accepts_tags]);
    let waiting = serde_json::json!([depot.metadata_ttl, depot.timeouts]);
    let all = serde_json::json!([
        meta,
        depot.depot_type,
        depot.settings.to_json(),
        depot.credentials,
        writing,
        waiting
    ]);
    digest::fingerprint([all.to_string().as_bytes(), depot.base.as_os_str().as_encoded_bytes()])
}

/// Keys that DataOS knows and that mean nothing to a program that needs neither Kubernetes nor a metadata server.
pub(crate) const WITHOUT_EFFECT: [&str; 6] = ["external", "source", "compute", "owner", "runAsUser", "hiveSync"];

#[derive(Deserialize)]
struct Written {
    #[serde(rename = "type")]
    depot_type: String,
    description: Option<String>,
    acl: Option<Acl>,
    #[serde(default, rename = "acceptsTags")]
    accepts_tags: bool,
    #[serde(rename = "metadataTtl")]
    metadata_ttl: Option<String>,
    #[serde(default)]
    timeouts: WrittenTimeouts,
    #[serde(default)]
    secrets: Vec<WrittenReference>,
    #[serde(default, rename = "connectionSecret")]
    connection_secret: Vec<secret::Written>,
}

#[derive(Default, Deserialize)]
struct WrittenTimeouts {
    connect: Option<String>,
    idle: Option<String>,
    query: Option<String>,
    listing: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Acl {
    R,
    Rw,
}

#[derive(Deserialize)]
struct WrittenReference {
    name: String,
    workspace: Option<String>,
    key: Option<String>,
    #[serde(default)]
    keys: Vec<String>,
    #[serde(alias = "allKeys")]
    allkeys: Option<bool>,
    #[serde(default, rename = "consumptionType")]
    _consumption_type: Option<String>,
}

#[derive(Debug)]
pub(crate) struct DepotKind;

impl Kind for DepotKind {
    fn name(&self) -> &'static str {
        "depot"
    }

    fn versions(&self) -> &'static [&'static str] {
        &["v1", "v2alpha"]
    }

    fn has_narrow_names(&self) -> bool {
        true
    }

    fn description(&self) -> &'static str {
        "A depot is a source of data that stays where it is: a database, a folder of files, an object store. Its name is the SQL \
         catalog: `crm.public.customer` is `dataos://crm:public/customer`. In version `v2alpha` the settings stand in a block named \
         after the type, in lower case, and credentials in secrets; in version `v1` the settings stand in `spec` and credentials in \
         `connectionSecret`. The keys of the block are those of the type."
    }

    fn example(&self) -> &'static str {
        "name: sales
version: v2alpha
type: depot
description: a folder of Parquet files
depot:
  type: FILE
  external: true
  file:
    path: ./sales
    format: PARQUET
---
name: crm
version: v1
type: depot
depot:
  type: SQLITE
  spec: {path: ./crm.db}
"
    }

    fn fields(&self) -> &'static [Field] {
        const FIELDS: &[Field] = &[
            required(
                "type",
                "text",
                "The type of source, in upper or lower case: `POSTGRESQL`, `file`.",
            ),
            optional(
                "description",
                "text",
                "A sentence for people; the head of the manifest is the better place.",
            ),
            optional(
                "acl",
                "`r` or `rw`",
                "Whether statements may write to it: `r` (the default; of `memory` it is `rw`) or `rw`. Whoever writes needs an access policy as well.",
            ),
            optional(
                "acceptsTags",
                "true or false",
                "Whether columns with tags may be written to it. The tags go with them; without this a statement that writes such a column is refused.",
            ),
            optional(
                "metadataTtl",
                "duration",
                "How long listings (`information_schema`, `SHOW`, the lists of drivers) may show what was found before instead of asking again: `60s` when absent, but of types that lie on the coordinator's own machine, which are asked each time, as with `0s`. A query always looks at the table itself.",
            ),
            optional("timeouts", "map", "How long the depot is waited for."),
            optional(
                "timeouts.connect",
                "duration",
                "Until it is open, whatever its type waits for by itself: `30s` when absent.",
            ),
            optional(
                "timeouts.idle",
                "duration",
                "For the next rows of a database, which may compute before the first, and for an answer about datasets, there at most `5m`: `30m` when absent.",
            ),
            optional(
                "timeouts.query",
                "duration",
                "For all rows of one read of a database; when absent a read lasts as long as its query may.",
            ),
            optional(
                "timeouts.listing",
                "duration",
                "By a listing of several depots, which then shows what it knew before or goes on without it: `5s` when absent.",
            ),
            optional(
                "<type>",
                "map",
                "Version `v2alpha`: the settings, in a block named after the type in lower case (`postgresql`).",
            ),
            optional(
                "secrets",
                "list",
                "Version `v2alpha`: the secrets with the credentials. Where two have the same key, reading takes that of a secret with `acl: r`, writing that of one with `acl: rw`.",
            ),
            required("secrets[].name", "text", "The secret."),
            optional(
                "secrets[].workspace",
                "text",
                "The workspace of the secret, checked when given.",
            ),
            optional(
                "secrets[].allkeys",
                "true or false",
                "All keys of the secret; this is so when no key is named. `allKeys` is the same.",
            ),
            optional("secrets[].key", "text", "One key of the secret."),
            optional("secrets[].keys", "list of texts", "Some keys of the secret."),
            optional("secrets[].consumptionType", "text", "Accepted, without effect."),
            optional("spec", "map", "Version `v1`: the settings."),
            optional(
                "connectionSecret",
                "list",
                "Version `v1`: credentials; each entry is like the block of a secret.",
            ),
            optional(
                "external",
                "true or false",
                "Accepted, without effect; so are `source`, `compute`, `owner`, `runAsUser` and `hiveSync`.",
            ),
        ];
        FIELDS
    }

    fn read(&self, mut meta: Meta, body: &Node, set: &mut Builder) -> Vec<Problem> {
        let file = Arc::clone(&meta.location.file);
        let old = meta.version == "v1";
        let depot_type = body
            .get("type")
            .and_then(Node::as_text)
            .unwrap_or_default()
            .to_lowercase();
        let block = if old || depot_type.is_empty() {
            "spec"
        } else {
            depot_type.as_str()
        };
        let (credentials, foreign) = if old {
            ("connectionSecret", "secrets")
        } else {
            ("secrets", "connectionSecret")
        };
        let own = ["type", "description", "acl", "acceptsTags", "metadataTtl", "timeouts"];
        let mut known = own.to_vec();
        known.extend([credentials, block]);
        known.extend(WITHOUT_EFFECT);
        let mut problems = unknown_keys(body, &known, &file);
        for problem in &mut problems {
            explain_form(problem, old, foreign, &depot_type);
        }
        let keys: Vec<&str> = own.into_iter().chain([credentials]).collect();
        let written: Written = match only(body, &keys).read(&file) {
            Ok(written) => written,
            Err(more) => {
                problems.extend(more);
                return problems;
            }
        };
        if !depot_type.starts_with(|c: char| c.is_ascii_lowercase()) || WITHOUT_EFFECT.contains(&block) {
            let message = format!("`{}` is not a type of depot", written.depot_type);
            problems.push(Problem::new(meta.at(super::line_of(body, &["type"])), message));
        }
        let nothing = Node {
            value: Value::Null,
            line: body.line,
        };
        let settings = body.get(block).unwrap_or(&nothing);
        let Some(settings) = Settings::of(settings, &file) else {
            let message = format!("`{block}` is {}; expected a map of settings", settings.value.kind());
            problems.push(Problem::new(meta.at(settings.line), message));
            return problems;
        };
        let (metadata_ttl, timeouts) = waiting(&written, body, &meta, &mut problems);
        let mut own = Vec::new();
        let nodes = body.get("connectionSecret").and_then(Node::as_list).unwrap_or_default();
        for (written, node) in written.connection_secret.into_iter().zip(nodes) {
            own.push((written.acl.clone(), written.take(node, &meta, set, &mut problems)));
        }
        let nodes = body.get("secrets").and_then(Node::as_list).unwrap_or_default();
        let mut secrets = Vec::new();
        for (written, node) in written.secrets.into_iter().zip(nodes) {
            let mut keys = written.keys;
            keys.extend(written.key);
            let location = meta.at(node.line);
            match (written.allkeys, keys.is_empty()) {
                (Some(true), false) => {
                    problems.push(Problem::new(
                        location.clone(),
                        "`allkeys: true` and single keys exclude each other",
                    ));
                }
                (Some(false), true) => {
                    let message = "no key of this secret is wanted";
                    problems
                        .push(Problem::new(location.clone(), message).help("name some in `keys`, or remove `allkeys`"));
                }
                _ => {}
            }
            secrets.push(Reference {
                name: written.name,
                workspace: written.workspace,
                keys,
                location,
            });
        }
        if problems.is_empty() {
            if let (true, Some(description)) = (meta.description.is_empty(), written.description) {
                meta.description = description;
            }
            let base = file.parent().unwrap_or(Path::new("")).to_path_buf();
            let writable = match written.acl {
                Some(acl) => matches!(acl, Acl::Rw),
                // Nothing is in it but what statements write.
                None => depot_type == "memory",
            };
            let (credentials, fingerprint) = (BTreeMap::new(), String::new());
            let depot = Depot {
                meta,
                depot_type,
                settings,
                base,
                credentials,
                write_credentials: BTreeMap::new(),
                writable,
                accepts_tags: written.accepts_tags,
                metadata_ttl,
                timeouts,
                fingerprint,
            };
            set.add_depot(Draft { depot, secrets, own });
        }
        problems
    }
}

/// How long listings may be behind, and how long the depot is waited for.
fn waiting(written: &Written, body: &Node, meta: &Meta, problems: &mut Vec<Problem>) -> (Option<Duration>, Timeouts) {
    let mut duration = |path: &[&str], text: &Option<String>, least: Duration, most: Duration| {
        let text = text.as_ref()?;
        // A zero needs no unit.
        let found = if text == "0" {
            Some(Duration::ZERO)
        } else {
            time::duration(text)
        };
        let found = found.filter(|found| (least..=most).contains(found));
        if found.is_none() {
            let (key, most) = (path.join("."), time::duration_text(most));
            let least = match least.is_zero() {
                true => "0s".to_owned(),
                false => time::duration_text(least),
            };
            let message = format!("`{key}` is `{text}`");
            let help = format!("expected a duration such as `90s`, from {least} to {most}");
            problems.push(Problem::new(meta.at(super::line_of(body, path)), message).help(help));
        }
        found
    };
    let asked = &written.timeouts;
    let (default, least) = (Timeouts::default(), Duration::from_millis(100));
    let mut timeout = |key: &str, text| duration(&["timeouts", key], text, least, MOST_TIMEOUT);
    let timeouts = Timeouts {
        connect: timeout("connect", &asked.connect).unwrap_or(default.connect),
        idle: timeout("idle", &asked.idle).unwrap_or(default.idle),
        query: timeout("query", &asked.query),
        listing: timeout("listing", &asked.listing).unwrap_or(default.listing),
    };
    let ttl = duration(&["metadataTtl"], &written.metadata_ttl, Duration::ZERO, MOST_TTL);
    (ttl, timeouts)
}

/// Says of a key that belongs to the other version's form what to write in this one.
fn explain_form(problem: &mut Problem, old: bool, foreign: &str, depot_type: &str) {
    let is = |key: &str| problem.message == format!("unknown key `{key}`");
    let (settings, other, instead) = if old {
        (depot_type, "v2alpha", "spec")
    } else {
        ("spec", "v1", depot_type)
    };
    if is(settings) && !settings.is_empty() {
        problem.help = Some(format!(
            "that is the form of version `{other}`; in this version the settings stand in `{instead}`"
        ));
    } else if is(foreign) {
        let instead = if old { "connectionSecret" } else { "secrets" };
        problem.help = Some(format!(
            "that is the form of version `{other}`; in this version credentials stand in `{instead}`"
        ));
    }
}

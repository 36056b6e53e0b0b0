//! `cluster`: how many workers answer, within which limits, and which queries are sent there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Field, Kind, Meta, globs, one_of, optional, required, tag_rule};
use crate::address::Address;
use crate::glob::{Glob, TagRule};
use crate::node::Node;
use crate::problem::{Location, Problem};
use crate::set::Builder;
use crate::suggest;
use crate::time;

/// A pool of workers.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The head of the manifest.
    pub meta: Meta,
    /// How many workers there are to be.
    pub replicas: usize,
    /// What a query may use.
    pub limits: Limits,
    /// Which queries are sent here; without it only those that name the cluster.
    pub selector: Option<Selector>,
    /// The depots that can be queried here; all if none is named.
    pub depots: Vec<Address>,
}

/// What a query may use; nothing set is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// From its arrival to its end.
    pub max_run_time: Option<Duration>,
    /// From the start of its execution to its end.
    pub max_execution_time: Option<Duration>,
    /// Bytes, over all nodes.
    pub max_memory: Option<u64>,
    /// Bytes, on each node.
    pub max_memory_per_node: Option<u64>,
    /// How many queries run at a time.
    pub max_concurrent: Option<usize>,
    /// How many queries wait at a time.
    pub max_queued: Option<usize>,
    /// How many rows an answer may have.
    pub max_rows: Option<u64>,
}

/// Which queries are sent to a cluster.
#[derive(Debug, Clone)]
pub struct Selector {
    /// Patterns for the user's id or one of the user's tags.
    pub users: Vec<Glob>,
    /// Tags of the user.
    pub tags: TagRule,
    /// Patterns for what the client calls itself.
    pub sources: Vec<Glob>,
    /// Whether all that is given must match; else one is enough.
    pub match_all: bool,
    /// 1 to 5000; the cluster with the lowest number is preferred.
    pub priority: u32,
}

const LIMITS: [&str; 7] = [
    "query.max-run-time",
    "query.max-execution-time",
    "query.max-memory",
    "query.max-memory-per-node",
    "query.max-concurrent",
    "query.max-queued",
    "query.max-rows",
];
const PREFIX: &str = "CONF__config__";
/// Variables that set up another program and mean nothing to this one.
const WITHOUT_EFFECT: [&str; 2] = ["JVM__opts", "VERBOSE_CONFIG"];
const LEAST_PREFERRED: u32 = 5000;

impl Limits {
    /// Sets a limit by name; the error says what was expected.
    /// Sets a limit by its name (`query.max-run-time`).
    ///
    /// # Errors
    /// What was expected, when the text does not fit or the name is unknown.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), &'static str> {
        const DURATION: &str = "a duration such as `10m` or `1.5h`";
        const SIZE: &str = "a size such as `2GB`";
        const COUNT: &str = "a whole number";
        match name {
            "query.max-run-time" => self.max_run_time = Some(time::duration(text).ok_or(DURATION)?),
            "query.max-execution-time" => self.max_execution_time = Some(time::duration(text).ok_or(DURATION)?),
            "query.max-memory" => self.max_memory = Some(time::size(text).ok_or(SIZE)?),
            "query.max-memory-per-node" => self.max_memory_per_node = Some(time::size(text).ok_or(SIZE)?),
            "query.max-concurrent" => {
                self.max_concurrent = Some(
                    text.parse()
                        .ok()
                        .filter(|count| *count > 0)
                        .ok_or("a whole number from 1 on")?,
                );
            }
            "query.max-queued" => self.max_queued = Some(text.parse().map_err(|_| COUNT)?),
            "query.max-rows" => self.max_rows = Some(text.parse().map_err(|_| COUNT)?),
            _ => return Err("a known limit"),
        }
        Ok(())
    }

    /// The text of a limit by its name, as [`Limits::set`] reads it; `None` when it is not set.
    pub fn text(&self, name: &str) -> Option<String> {
        match name {
            "query.max-run-time" => self.max_run_time.map(time::duration_text),
            "query.max-execution-time" => self.max_execution_time.map(time::duration_text),
            "query.max-memory" => self.max_memory.map(time::size_text),
            "query.max-memory-per-node" => self.max_memory_per_node.map(time::size_text),
            "query.max-concurrent" => self.max_concurrent.map(|count| count.to_string()),
            "query.max-queued" => self.max_queued.map(|count| count.to_string()),
            "query.max-rows" => self.max_rows.map(|count| count.to_string()),
            _ => None,
        }
    }

    /// Of each limit the lower one; a limit that is not set is above all.
    pub fn lowest(&self, other: &Limits) -> Limits {
        fn lower<T: Ord + Copy>(one: Option<T>, other: Option<T>) -> Option<T> {
            one.into_iter().chain(other).min()
        }
        Limits {
            max_run_time: lower(self.max_run_time, other.max_run_time),
            max_execution_time: lower(self.max_execution_time, other.max_execution_time),
            max_memory: lower(self.max_memory, other.max_memory),
            max_memory_per_node: lower(self.max_memory_per_node, other.max_memory_per_node),
            max_concurrent: lower(self.max_concurrent, other.max_concurrent),
            max_queued: lower(self.max_queued, other.max_queued),
            max_rows: lower(self.max_rows, other.max_rows),
        }
    }
}

#[derive(Deserialize)]
struct Written {
    #[serde(rename = "type")]
    engine: String,
    minerva: WrittenMinerva,
    #[serde(rename = "compute")]
    _compute: Option<IgnoredAny>,
    #[serde(rename = "runAsUser")]
    _run_as_user: Option<IgnoredAny>,
    #[serde(rename = "runAsApiKey")]
    _run_as_api_key: Option<IgnoredAny>,
    #[serde(rename = "dataosSecrets")]
    _dataos_secrets: Option<IgnoredAny>,
    #[serde(rename = "nodeSelector")]
    _node_selector: Option<IgnoredAny>,
    #[serde(rename = "toleration")]
    _toleration: Option<IgnoredAny>,
    #[serde(rename = "maintenance")]
    maintenance: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct WrittenMinerva {
    replicas: Option<u32>,
    #[serde(default, rename = "limits")]
    _limits: BTreeMap<String, IgnoredAny>,
    #[serde(default, rename = "coordinatorEnvs")]
    _coordinator_envs: BTreeMap<String, IgnoredAny>,
    #[serde(default, rename = "workerEnvs")]
    _worker_envs: BTreeMap<String, IgnoredAny>,
    selector: Option<WrittenSelector>,
    #[serde(default)]
    depots: Vec<WrittenDepot>,
    catalogs: Option<IgnoredAny>,
    #[serde(rename = "spillOverVolume")]
    spill_over_volume: Option<IgnoredAny>,
    #[serde(rename = "resources")]
    _resources: Option<IgnoredAny>,
    #[serde(rename = "secrets")]
    _secrets: Option<IgnoredAny>,
    #[serde(rename = "debug")]
    _debug: Option<IgnoredAny>,
    #[serde(rename = "overrideDefaultEnvs")]
    _override_default_envs: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct WrittenSelector {
    #[serde(rename = "users")]
    _users: Option<IgnoredAny>,
    #[serde(rename = "tags")]
    _tags: Option<IgnoredAny>,
    #[serde(rename = "sources")]
    _sources: Option<IgnoredAny>,
    #[serde(rename = "match")]
    how: Option<String>,
    priority: Option<u32>,
}

#[derive(Deserialize)]
struct WrittenDepot {
    address: String,
    properties: Option<IgnoredAny>,
    #[serde(rename = "secrets")]
    _secrets: Option<IgnoredAny>,
}

#[derive(Debug)]
pub(crate) struct ClusterKind;

impl Kind for ClusterKind {
    fn name(&self) -> &'static str {
        "cluster"
    }

    fn has_narrow_names(&self) -> bool {
        true
    }

    fn description(&self) -> &'static str {
        "A cluster is a pool of workers: how many there are, what a query may use, which depots it can reach, and which queries are sent \
         to it when the client names no cluster. Running on a cluster needs an access policy that allows `read` on \
         `dataos:resource:cluster:<name>`."
    }

    fn example(&self) -> &'static str {
        "name: analytics
version: v1
type: cluster
cluster:
  type: minerva
  minerva:
    replicas: 2
    limits:
      query.max-run-time: 10m
      query.max-memory-per-node: 2GB
      query.max-concurrent: 20
    selector:
      users: [\"**\"]
      sources: [\"**\"]
      match: any
      priority: 10
    depots:
      - address: dataos://crm
---
name: crm
version: v2alpha
type: depot
depot:
  type: SQLITE
  sqlite: {path: crm.db}
"
    }

    fn fields(&self) -> &'static [Field] {
        const FIELDS: &[Field] = &[
            required("type", "`minerva`", "The engine."),
            required("minerva", "map", "What the engine is told."),
            optional(
                "minerva.replicas",
                "whole number",
                "How many workers there are; 1 when absent.",
            ),
            optional(
                "minerva.limits",
                "map",
                "What a query may use; what is absent is not limited.",
            ),
            optional(
                "minerva.limits.query.max-run-time",
                "duration",
                "From the arrival of a query to its end: `10m`, `1.5h`.",
            ),
            optional(
                "minerva.limits.query.max-execution-time",
                "duration",
                "From the start of its execution to its end.",
            ),
            optional(
                "minerva.limits.query.max-memory",
                "size",
                "Over all nodes: `20GB`. A kilobyte has 1024 bytes.",
            ),
            optional("minerva.limits.query.max-memory-per-node", "size", "On each node."),
            optional(
                "minerva.limits.query.max-concurrent",
                "whole number",
                "How many queries run at a time.",
            ),
            optional(
                "minerva.limits.query.max-queued",
                "whole number",
                "How many queries wait at a time.",
            ),
            optional(
                "minerva.limits.query.max-rows",
                "whole number",
                "How many rows an answer may have.",
            ),
            optional(
                "minerva.coordinatorEnvs",
                "map",
                "The limits as DataOS writes them: `CONF__config__query.max-run-time: 10m`. `JVM__opts` and `VERBOSE_CONFIG` are accepted, without effect.",
            ),
            optional(
                "minerva.workerEnvs",
                "map",
                "The same; a limit must not be set to two values.",
            ),
            optional(
                "minerva.selector",
                "map",
                "Which queries are sent here; without it, those that name the cluster. It must have `users`, `tags` or `sources`.",
            ),
            optional(
                "minerva.selector.users",
                "list of patterns",
                "The id or a tag of the user.",
            ),
            optional(
                "minerva.selector.tags",
                "list of tags or of lists of tags",
                "Tags of the user: one element must match, and of a list all.",
            ),
            optional(
                "minerva.selector.sources",
                "list of patterns",
                "What the client calls itself.",
            ),
            optional(
                "minerva.selector.match",
                "`any`, `all`",
                "Whether one of the three must match or all that are given; `any` when absent.",
            ),
            optional(
                "minerva.selector.priority",
                "1 to 5000",
                "The lowest number is preferred; 5000 when absent.",
            ),
            optional(
                "minerva.depots",
                "list",
                "The depots that can be queried here; all when absent.",
            ),
            required("minerva.depots[].address", "address", "The depot: `dataos://crm`."),
            optional("minerva.catalogs", "list", "Refused: declare depots instead."),
            optional("minerva.spillOverVolume", "text", "Refused: not supported yet."),
            optional("maintenance", "map", "Refused: not supported yet."),
            optional(
                "minerva.resources",
                "map",
                "Accepted, without effect; so are `secrets`, `debug` and `overrideDefaultEnvs`, and beside `minerva` `compute`, `runAsUser`, `runAsApiKey`, `dataosSecrets`, `nodeSelector` and `toleration`.",
            ),
        ];
        FIELDS
    }

    fn read(&self, meta: Meta, body: &Node, set: &mut Builder) -> Vec<Problem> {
        let mut problems = Vec::new();
        let nothing = Node {
            value: crate::node::Value::Null,
            line: body.line,
        };
        let minerva = body.get("minerva").unwrap_or(&nothing);
        let limits = limits(minerva, &meta, &mut problems);
        let written: Written = match body.read(&Arc::clone(&meta.location.file)) {
            Ok(written) => written,
            Err(more) => {
                problems.extend(more);
                return problems;
            }
        };
        let not_built = |path: [&str; 2], help: &str, problems: &mut Vec<Problem>| {
            let key = if path[1].is_empty() { path[0] } else { path[1] };
            let message = format!("`{key}` is not supported yet");
            problems.push(Problem::new(meta.at(super::line_of(body, &path)), message).help(help));
        };
        problems.extend(one_of(
            &written.engine,
            &["minerva"],
            "type",
            meta.at(super::line_of(body, &["type"])),
        ));
        if written.maintenance.is_some() {
            not_built(["maintenance", ""], "remove it", &mut problems);
        }
        if written.minerva.catalogs.is_some() {
            not_built(["minerva", "catalogs"], "declare a depot instead", &mut problems);
        }
        if written.minerva.spill_over_volume.is_some() {
            not_built(["minerva", "spillOverVolume"], "remove it", &mut problems);
        }
        let selector = written.minerva.selector.map(|selector| {
            let node = minerva.get("selector").unwrap_or(&nothing);
            read_selector(selector, node, &meta, &mut problems)
        });
        let mut depots = Vec::new();
        let nodes = minerva.get("depots").and_then(Node::as_list).unwrap_or_default();
        for (depot, node) in written.minerva.depots.into_iter().zip(nodes) {
            let location = meta.at(super::line_of(node, &["address"]));
            if depot.properties.is_some() {
                let place = meta.at(super::line_of(node, &["properties"]));
                let problem = Problem::new(place, "`properties` of a depot are not supported here");
                problems.push(problem.help("settings belong in the depot's own block"));
            }
            match depot.address.parse::<Address>() {
                Ok(address) if address.is_dataset() => {
                    problems.push(Problem::new(
                        location,
                        format!("`{address}` is a dataset; expected a depot: `dataos://depot`"),
                    ));
                }
                Ok(address) => {
                    set.refer_to_depot(&meta, &address.depot, location);
                    depots.push(address);
                }
                Err(message) => problems.push(Problem::new(location, message)),
            }
        }
        if problems.is_empty() {
            let replicas = written.minerva.replicas.map_or(1, |replicas| replicas as usize);
            set.add_cluster(Cluster {
                meta,
                replicas,
                limits,
                selector,
                depots,
            });
        }
        problems
    }
}

/// The limits out of the three places where they may be written.
fn limits(minerva: &Node, meta: &Meta, problems: &mut Vec<Problem>) -> Limits {
    let mut limits = Limits::default();
    let mut given: BTreeMap<&str, String> = BTreeMap::new();
    let mut said: BTreeSet<&str> = BTreeSet::new();
    for (block, prefix) in [("limits", ""), ("coordinatorEnvs", PREFIX), ("workerEnvs", PREFIX)] {
        for (key, node) in minerva.get(block).and_then(Node::as_map).unwrap_or_default() {
            let location: Location = meta.at(key.line);
            if !prefix.is_empty() && WITHOUT_EFFECT.contains(&key.text.as_str()) {
                continue;
            }
            let Some(name) = key.text.strip_prefix(prefix).filter(|name| LIMITS.contains(name)) else {
                let wanted = key.text.strip_prefix(prefix).unwrap_or(&key.text);
                let near = LIMITS
                    .into_iter()
                    .find(|limit| *limit == wanted)
                    .or_else(|| suggest::closest(wanted, LIMITS));
                let mut problem = Problem::new(location, format!("unknown key `{}`", key.text));
                problem.help = Some(match near {
                    Some(near) => format!("did you mean `{prefix}{near}`?"),
                    None => format!("expected one of {}", suggest::quoted(LIMITS)),
                });
                problems.push(problem);
                continue;
            };
            let Some(text) = node.plain_text() else {
                problems.push(Problem::new(
                    location,
                    format!("`{}` is {}; expected text", key.text, node.value.kind()),
                ));
                continue;
            };
            match given.get(name) {
                Some(other) if *other != text && said.insert(name) => {
                    problems.push(Problem::new(
                        location.clone(),
                        format!("`{name}` is set to `{other}` and to `{text}`"),
                    ));
                }
                Some(_) => {}
                None => {
                    given.insert(name, text.clone());
                }
            }
            if let Err(expected) = limits.set(name, &text) {
                problems.push(Problem::new(
                    location,
                    format!("`{}` is `{text}`; expected {expected}", key.text),
                ));
            }
        }
    }
    limits
}

fn read_selector(written: WrittenSelector, node: &Node, meta: &Meta, problems: &mut Vec<Problem>) -> Selector {
    let users = globs(node.get("users"), "selector.users", meta, problems);
    let tags = tag_rule(node.get("tags"), "selector.tags", meta, problems);
    let sources = globs(node.get("sources"), "selector.sources", meta, problems);
    if ["users", "tags", "sources"].iter().all(|key| node.get(key).is_none()) {
        let message = "the selector selects nothing; expected `users`, `tags` or `sources`";
        problems.push(Problem::new(meta.at(node.line), message));
    }
    let how = written.how.unwrap_or_else(|| "any".to_string());
    problems.extend(one_of(
        &how,
        &["any", "all"],
        "match",
        meta.at(super::line_of(node, &["match"])),
    ));
    let priority = written.priority.unwrap_or(LEAST_PREFERRED);
    if !(1..=LEAST_PREFERRED).contains(&priority) {
        let line = super::line_of(node, &["priority"]);
        problems.push(Problem::new(
            meta.at(line),
            format!("`priority` is not a number from 1 to {LEAST_PREFERRED}"),
        ));
    }
    Selector {
        users,
        tags,
        sources,
        match_all: how == "all",
        priority,
    }
}

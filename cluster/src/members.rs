//! Who is in the cluster: the coordinator, the workers inside its process, and those that joined.
//!
//! In: joins, heartbeats and leaves. Out: the addresses that new stages may be sent to, and the rows of
//! `system.runtime.nodes`. It does no IO and has no thread of its own: what is lost is noticed when somebody looks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use datafusion::common::Result;
use datafusion_distributed::WorkerResolver;
use tokio::sync::watch;
use url::Url;

use crate::VERSION;
use crate::messages::{Join, Leave};

/// How often a worker shows that it is there.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// After how long a silence a worker counts as lost.
pub const LOST_AFTER: Duration = Duration::from_secs(5);
/// How long a lost worker stays in the listing.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// Takes work.
    Active,
    /// Finishes what it has and takes nothing new.
    Draining,
    /// Has not been heard of for [`LOST_AFTER`], or a query could not reach it.
    Lost,
}

impl NodeState {
    /// The spelling of `system.runtime.nodes`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A row of `system.runtime.nodes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The node's name, new at every start.
    pub node_id: String,
    /// Where it answers; `inproc://<n>` for a worker inside the coordinator's process.
    pub url: Url,
    /// Its version of Minerva.
    pub version: String,
    /// Whether it is the coordinator.
    pub coordinator: bool,
    /// What it does.
    pub state: NodeState,
    /// How many threads it computes with.
    pub cores: usize,
    /// How much memory its queries may use.
    pub memory_bytes: u64,
}

#[derive(Debug)]
struct Member {
    node: Node,
    /// `None` for those inside this process, which cannot be silent.
    heard: Option<Instant>,
    /// Whether it said that it takes nothing new.
    leaving: bool,
    /// Whether what it had was given to others. It must join again.
    disowned: bool,
}

/// The live list of nodes. Clones share it.
#[derive(Debug, Clone)]
pub struct Members(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lost_after: Duration,
    members: Mutex<BTreeMap<String, Member>>,
    changed: watch::Sender<u64>,
}

impl Members {
    /// A cluster of one: the coordinator, answering for workers at `url`.
    pub fn new(node_id: &str, url: Url) -> Self {
        Self::with_lost_after(node_id, url, LOST_AFTER)
    }

    /// As [`Members::new`], with another patience.
    pub fn with_lost_after(node_id: &str, url: Url, lost_after: Duration) -> Self {
        let coordinator = Member {
            node: Node {
                node_id: node_id.to_owned(),
                url,
                version: VERSION.to_owned(),
                coordinator: true,
                state: NodeState::Active,
                cores: cores(),
                memory_bytes: 0,
            },
            heard: None,
            leaving: false,
            disowned: false,
        };
        Self(Arc::new(Inner {
            lost_after,
            members: Mutex::new(BTreeMap::from([(node_id.to_owned(), coordinator)])),
            changed: watch::Sender::new(0),
        }))
    }

    /// Adds a worker inside this process and says at which address its stages are reached: `inproc://<n>`.
    pub fn add_in_process(&self, number: usize, memory_bytes: u64) -> Result<Url, crate::Error> {
        let url = in_process_url(number)?;
        let node = Node {
            node_id: format!("inproc-{number}"),
            url: url.clone(),
            version: VERSION.to_owned(),
            coordinator: false,
            state: NodeState::Active,
            cores: cores(),
            memory_bytes,
        };
        self.lock().insert(
            node.node_id.clone(),
            Member {
                node,
                heard: None,
                leaving: false,
                disowned: false,
            },
        );
        self.tell();
        Ok(url)
    }

    /// Takes in a worker that answers at `url`. One that was known by the same name or address is replaced.
    pub(crate) fn join(&self, join: &Join, url: Url) {
        let node = Node {
            node_id: join.node_id.clone(),
            url,
            version: join.version.clone(),
            coordinator: false,
            state: NodeState::Active,
            cores: join.cores,
            memory_bytes: join.memory_bytes,
        };
        tracing::info!(node = %node.node_id, url = %node.url, "worker joined");
        let mut members = self.lock();
        members.retain(|_, member| member.heard.is_none() || member.node.url != node.url);
        members.insert(
            node.node_id.clone(),
            Member {
                node,
                heard: Some(Instant::now()),
                leaving: false,
                disowned: false,
            },
        );
        drop(members);
        self.tell();
    }

    /// Notes that a worker is alive; false when it is not known and must join again.
    pub(crate) fn heartbeat(&self, node_id: &str) -> bool {
        let mut members = self.lock();
        let Some(member) = members.get_mut(node_id).filter(|member| !member.disowned) else {
            return false;
        };
        if member.heard.is_some() {
            member.heard = Some(Instant::now());
        }
        let back = member.node.state == NodeState::Lost;
        if back {
            tracing::info!(node = %node_id, url = %member.node.url, "worker is back");
            member.node.state = if member.leaving {
                NodeState::Draining
            } else {
                NodeState::Active
            };
        }
        drop(members);
        if back {
            self.tell();
        }
        true
    }

    /// For how long a worker was not heard of; `None` when it is not known, or must join again.
    pub(crate) fn silence(&self, node_id: &str) -> Option<Duration> {
        let members = self.lock();
        let member = members.get(node_id).filter(|member| !member.disowned);
        member.map(Member::silence)
    }

    /// Has a worker that is heard of again join again, since what it had was given to others. It gives that up then.
    pub(crate) fn disown(&self, node_id: &str) {
        if let Some(member) = self.lock().get_mut(node_id) {
            member.disowned = true;
        }
    }

    /// Notes that a worker takes no new work, or is gone; then its address is answered.
    pub(crate) fn leave(&self, leave: &Leave) -> Option<Url> {
        let mut members = self.lock();
        let mut gone = None;
        if leave.drained {
            gone = members.remove(&leave.node_id).map(|member| member.node.url);
        } else if let Some(member) = members.get_mut(&leave.node_id) {
            member.node.state = NodeState::Draining;
            member.leaving = true;
        }
        drop(members);
        tracing::info!(node = %leave.node_id, drained = leave.drained, "worker leaves");
        self.tell();
        gone
    }

    /// Takes a worker that a query could not reach out of the list until it is heard of again.
    pub fn suspect(&self, url: &str) {
        let mut members = self.lock();
        for member in members.values_mut() {
            if member.node.url.as_str() == url && member.heard.is_some() && member.node.state == NodeState::Active {
                tracing::warn!(node = %member.node.node_id, url, "worker lost: a query could not reach it");
                member.node.state = NodeState::Lost;
            }
        }
        drop(members);
        self.tell();
    }

    /// The addresses that take new work, in a fixed order.
    pub fn active(&self) -> Vec<Url> {
        let mut urls: Vec<Url> = self
            .nodes()
            .into_iter()
            .filter(|node| !node.coordinator && node.state == NodeState::Active)
            .map(|node| node.url)
            .collect();
        urls.sort();
        urls
    }

    /// Every node that is known, the lost ones for a while too; the coordinator first.
    pub fn nodes(&self) -> Vec<Node> {
        let mut members = self.lock();
        members.retain(|_, member| member.silence() < FORGET_AFTER);
        for (node_id, member) in members.iter_mut() {
            let silence = member.silence();
            if member.node.state != NodeState::Lost && silence > self.0.lost_after {
                tracing::warn!(node = %node_id, url = %member.node.url, "worker lost: silent for {silence:?}");
                member.node.state = NodeState::Lost;
            }
        }
        let mut nodes: Vec<Node> = members.values().map(|member| member.node.clone()).collect();
        nodes.sort_by_key(|node| !node.coordinator);
        nodes
    }

    /// Changes whenever somebody joins, leaves or comes back, or is found lost by a query.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Waits until as many workers take work.
    pub async fn wait_for_active(&self, workers: usize) {
        let mut changed = self.changes();
        while self.active().len() < workers {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn tell(&self) {
        self.0.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Member>> {
        self.0.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WorkerResolver for Members {
    fn get_urls(&self) -> Result<Vec<Url>> {
        Ok(self.active())
    }
}

impl Member {
    fn silence(&self) -> Duration {
        self.heard.map_or(Duration::ZERO, |heard| heard.elapsed())
    }
}

/// The address of a worker inside the coordinator's process.
fn in_process_url(number: usize) -> Result<Url, crate::Error> {
    Url::parse(&format!("{IN_PROCESS}://{number}"))
        .map_err(|error| crate::Error::Address(format!("in-process worker {number}: {error}")))
}

/// The scheme of workers inside the coordinator's process.
pub(crate) const IN_PROCESS: &str = "inproc";

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn join(node_id: &str) -> Join {
        Join {
            node_id: node_id.to_owned(),
            url: url("http://10.0.0.1:1"),
            version: VERSION.to_owned(),
            cores: 2,
            memory_bytes: 1,
        }
    }

    fn states(members: &Members) -> Vec<String> {
        members
            .nodes()
            .iter()
            .map(|node| format!("{} {}", node.node_id, node.state))
            .collect()
    }

    #[test]
    fn a_worker_joins_drains_and_is_gone() {
        let members = Members::new("coordinator", url("http://127.0.0.1:7435"));
        assert!(members.active().is_empty());
        members.join(&join("b"), url("http://10.0.0.2:1"));
        members.join(&join("a"), url("http://10.0.0.9:1"));
        members.add_in_process(0, 0).unwrap();
        let order: Vec<String> = members.get_urls().unwrap().iter().map(Url::to_string).collect();
        assert_eq!(order, ["http://10.0.0.2:1/", "http://10.0.0.9:1/", "inproc://0"]);
        members.leave(&Leave {
            node_id: "b".to_owned(),
            drained: false,
        });
        assert_eq!(
            states(&members),
            ["coordinator active", "a active", "b draining", "inproc-0 active"]
        );
        members.leave(&Leave {
            node_id: "b".to_owned(),
            drained: true,
        });
        assert_eq!(states(&members), ["coordinator active", "a active", "inproc-0 active"]);
        assert!(!members.heartbeat("b"), "one that left must join again");
    }

    #[test]
    fn a_silent_worker_is_lost_and_a_restarted_one_replaces_it() {
        let members = Members::with_lost_after("coordinator", url("http://127.0.0.1:7435"), Duration::ZERO);
        members.join(&join("a"), url("http://10.0.0.2:1"));
        while members.active() == [url("http://10.0.0.2:1")] {}
        assert_eq!(states(&members), ["coordinator active", "a lost"]);
        members.join(&join("b"), url("http://10.0.0.2:1"));
        assert_eq!(members.nodes().len(), 2, "the same address is the same worker");
    }

    #[test]
    fn a_worker_that_a_query_could_not_reach_gets_no_work_until_it_is_heard_of() {
        let members = Members::new("coordinator", url("http://127.0.0.1:7435"));
        members.join(&join("a"), url("http://10.0.0.2:1"));
        members.suspect("http://10.0.0.2:1/");
        assert!(members.active().is_empty());
        assert!(members.heartbeat("a"));
        assert_eq!(members.active().len(), 1);
    }

    #[test]
    fn a_worker_whose_things_were_given_to_others_joins_again() {
        let members = Members::new("coordinator", url("http://127.0.0.1:7435"));
        members.join(&join("a"), url("http://10.0.0.2:1"));
        members.disown("a");
        assert!(!members.heartbeat("a"));
        assert_eq!(members.silence("a"), None, "nothing is lent to it");
        members.join(&join("a"), url("http://10.0.0.2:1"));
        assert!(members.heartbeat("a"));
        assert!(members.silence("a").is_some());
    }
}

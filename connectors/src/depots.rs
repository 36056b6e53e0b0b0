//! The depots of one process, opened by name on first use.
//!
//! In: the current resource set. Out: open sources, one for each manifest version. Those who ask while a depot is being
//! opened wait for the same attempt; a failed attempt is told to all who waited and is not kept. Nothing here decides
//! who may use a depot.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::execution::TaskContext;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared as SharedFuture};
use minerva_resources::{Depot, ResourceSet};

use crate::health::Health;
use crate::ledger::{Ledger, Own};
use crate::remote::WaysOut;
use crate::slots::Lender;
use crate::watched::{self, Watch};
use crate::{Around, Connector, DepotHealth, Error, ErrorKind, Result, Source, Stores, connector};

type Opening = SharedFuture<BoxFuture<'static, Result<Arc<dyn Source>>>>;

/// The depots of a resource set, shared by all sessions of a process.
pub struct Depots {
    shared: Arc<Shared>,
    ledger: Arc<Ledger>,
    ways_out: WaysOut,
}

/// The same, for those who look after depots that failed.
pub(crate) struct Shared {
    state: Mutex<State>,
    around: Around,
}

struct State {
    resources: Arc<ResourceSet>,
    open: HashMap<String, Entry>,
    /// By name, with the fingerprint of the manifest that it is about.
    health: HashMap<String, (String, Arc<Health>)>,
    next_attempt: u64,
}

struct Entry {
    fingerprint: String,
    attempt: u64,
    opening: Opening,
}

impl Depots {
    /// The depots of a resource set, none of them open yet. How many connections are open is counted here.
    pub fn new(resources: Arc<ResourceSet>) -> Depots {
        let ledger = Arc::new(Ledger::default());
        let lender = Arc::new(Own(Arc::clone(&ledger)));
        Depots {
            ledger,
            ..Depots::with_lender(resources, lender)
        }
    }

    /// The depots of a process that has the right to open connections from elsewhere.
    pub fn with_lender(resources: Arc<ResourceSet>, lender: Arc<dyn Lender>) -> Depots {
        Depots {
            ledger: Arc::default(),
            ways_out: WaysOut::default(),
            shared: Arc::new(Shared {
                around: Around {
                    stores: Arc::new(Stores::new(Arc::clone(&resources))),
                    lender,
                },
                state: Mutex::new(State {
                    resources,
                    open: HashMap::new(),
                    health: HashMap::new(),
                    next_attempt: 0,
                }),
            }),
        }
    }

    /// Takes a new resource set. Depots whose manifest did not change stay open; the others are closed once the queries
    /// that read them are done.
    pub fn update(&self, resources: Arc<ResourceSet>) {
        let mut state = self.shared.state();
        let is_same = |name: &str, fingerprint: &str| {
            let depot = resources.depot(name);
            depot.is_some_and(|depot| depot.fingerprint == fingerprint)
        };
        state.open.retain(|name, entry| is_same(name, &entry.fingerprint));
        state.health.retain(|name, (fingerprint, _)| is_same(name, fingerprint));
        state.resources = Arc::clone(&resources);
        self.shared.around.stores.update(resources);
    }

    /// The object stores of these depots, which the runtime of every session over them must have.
    pub fn stores(&self) -> &Arc<Stores> {
        &self.shared.around.stores
    }

    /// The rights to have connections open, where they are counted in this process.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// What runs here in the place of statements of depots.
    pub(crate) fn ways_out(&self) -> &WaysOut {
        &self.ways_out
    }

    /// The resource set that names are looked up in.
    pub fn resources(&self) -> Arc<ResourceSet> {
        Arc::clone(&self.shared.state().resources)
    }

    /// The source of a depot, opened if it is not open yet. While the depot is left alone after failures this fails at once, or the source's calls do.
    pub async fn open(&self, name: &str) -> Result<Arc<dyn Source>> {
        self.shared.open(name).await
    }

    /// Whether a depot can be reached, as far as this process knows; `None` when there is none of this name. Asks nobody.
    pub fn health(&self, name: &str) -> Option<DepotHealth> {
        let mut state = self.shared.state();
        let depot = state.resources.depot(name).cloned()?;
        Some(state.health_of(&depot).report())
    }
}

impl Shared {
    async fn open(self: &Arc<Self>, name: &str) -> Result<Arc<dyn Source>> {
        let opening = self.opening(name, false)?;
        opening.await
    }

    /// The same for who looks after the depot in the background: that it fails counts for nobody else.
    pub(crate) async fn look(self: &Arc<Self>, name: &str) -> Result<Arc<dyn Source>> {
        let opening = self.opening(name, true)?;
        opening.await
    }

    /// Whether this is the health of a depot as its manifest is now.
    pub(crate) fn has(&self, name: &str, health: &Arc<Health>) -> bool {
        let known = self.state().health.get(name).map(|(_, known)| Arc::clone(known));
        known.is_some_and(|known| Arc::ptr_eq(&known, health))
    }

    fn opening(self: &Arc<Self>, name: &str, is_probe: bool) -> Result<Opening> {
        let mut state = self.state();
        let Some(depot) = state.resources.depot(name).cloned() else {
            return Err(unknown_depot(name));
        };
        if let Some(entry) = state
            .open
            .get(name)
            .filter(|entry| entry.fingerprint == depot.fingerprint)
        {
            return Ok(entry.opening.clone());
        }
        let connector = connector_of(&depot)?;
        let health = state.health_of(&depot);
        let admitted = health.admit()?;
        let watch = Watch {
            depot: name.to_owned(),
            health,
            timeouts: depot.timeouts,
            depots: Arc::downgrade(self),
            as_a_whole: connector.fails_as_a_whole(),
        };
        let fingerprint = depot.fingerprint.clone();
        let around = self.around.clone();
        let opening = async move { connector.open(&depot, &around).await };
        Ok(state.begin(fingerprint, watch, |watch, attempt| {
            watched::open(opening, watch, admitted, attempt, is_probe)
        }))
    }

    /// Does not keep an attempt that failed.
    pub(crate) fn forget(&self, name: &str, attempt: u64) {
        let mut state = self.state();
        if state.open.get(name).is_some_and(|entry| entry.attempt == attempt) {
            state.open.remove(name);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the maps half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Keeps an attempt to open a depot, for those who ask meanwhile and, if it succeeds, for all.
    fn begin<F>(&mut self, fingerprint: String, watch: Watch, open: impl FnOnce(Watch, u64) -> F) -> Opening
    where
        F: Future<Output = Result<Arc<dyn Source>>> + Send + 'static,
    {
        let (name, attempt) = (watch.depot.clone(), self.next_attempt);
        self.next_attempt += 1;
        let opening: Opening = open(watch, attempt).boxed().shared();
        let entry = Entry {
            fingerprint,
            attempt,
            opening: opening.clone(),
        };
        self.open.insert(name, entry);
        opening
    }

    fn health_of(&mut self, depot: &Depot) -> Arc<Health> {
        let name = depot.name();
        if let Some((fingerprint, health)) = self.health.get(name)
            && *fingerprint == depot.fingerprint
        {
            return Arc::clone(health);
        }
        let is_remote = connector(&depot.depot_type).is_some_and(Connector::is_remote);
        let health = Health::new(name, is_remote);
        self.health
            .insert(name.to_owned(), (depot.fingerprint.clone(), Arc::clone(&health)));
        health
    }
}

impl fmt::Debug for Depots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state();
        let mut open: Vec<&String> = state.open.keys().collect();
        open.sort();
        f.debug_struct("Depots").field("open", &open).finish_non_exhaustive()
    }
}

fn connector_of(depot: &Depot) -> Result<&'static dyn Connector> {
    connector(&depot.depot_type).ok_or_else(|| {
        let message = format!("unknown depot type `{}`", depot.depot_type);
        Error::new(&depot.meta.name, ErrorKind::Unsupported, message)
    })
}

fn unknown_depot(name: &str) -> Error {
    // No suggestion: who asks may not be allowed to know the other names.
    Error::new(name, ErrorKind::NotFound, "there is no depot of this name")
}

/// The depots that a session was set up with, by `SessionConfig::with_extension`.
pub fn depots_of(context: &TaskContext) -> datafusion::error::Result<Arc<Depots>> {
    context.session_config().get_extension::<Depots>().ok_or_else(|| {
        datafusion::error::DataFusionError::Internal("the session was set up without its depots".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn manifest(name: &str, depot_type: &str, block: &str) -> String {
        format!(
            "---\nname: {name}\nversion: v2alpha\ntype: depot\ndepot:\n  type: {depot_type}\n  {depot_type}: {block}\n"
        )
    }

    #[tokio::test]
    async fn a_depot_is_opened_once_and_again_when_its_manifest_changes() {
        let folder = tempfile::tempdir().unwrap();
        let both = manifest("left", "memory", "{}") + &manifest("right", "tpch", "{scale: 1}");
        let depots = testing::depots(folder.path(), &both);
        let (first, second) = futures::join!(depots.open("left"), depots.open("left"));
        let (left, right) = (first.unwrap(), depots.open("right").await.unwrap());
        assert!(Arc::ptr_eq(&left, &second.unwrap()));

        let changed = manifest("left", "memory", "{}") + &manifest("right", "tpch", "{scale: 2}");
        let file = folder.path().join("depots.yaml");
        std::fs::write(&file, changed).unwrap();
        depots.update(Arc::new(testing::resources(&file).unwrap()));
        assert!(Arc::ptr_eq(&left, &depots.open("left").await.unwrap()));
        assert!(!Arc::ptr_eq(&right, &depots.open("right").await.unwrap()));

        std::fs::write(&file, manifest("left", "memory", "{}")).unwrap();
        depots.update(Arc::new(testing::resources(&file).unwrap()));
        let gone = depots.open("right").await.unwrap_err();
        assert_eq!(
            (gone.kind, gone.to_string().as_str()),
            (ErrorKind::NotFound, "depot `right`: there is no depot of this name")
        );
    }

    fn watch(depots: &Depots, name: &str) -> (String, Watch) {
        let mut state = depots.shared.state();
        let depot = state.resources.depot(name).cloned().unwrap();
        let watch = Watch {
            depot: name.to_owned(),
            health: state.health_of(&depot),
            timeouts: depot.timeouts,
            depots: Arc::downgrade(&depots.shared),
            as_a_whole: true,
        };
        (depot.fingerprint.clone(), watch)
    }

    #[tokio::test]
    async fn a_panic_while_a_depot_is_opened_is_an_error_and_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let depots = testing::depots(folder.path(), &manifest("left", "memory", "{}"));
        let (fingerprint, watch) = watch(&depots, "left");
        let admitted = watch.health.admit().unwrap();
        let opening = depots.shared.state().begin(fingerprint, watch, |watch, attempt| {
            watched::open(async { panic!("of a driver") }, watch, admitted, attempt, false)
        });
        let error = opening.await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Internal);
        assert!(
            error.to_string().starts_with("depot `left`: opening it failed"),
            "{error}"
        );
        assert!(depots.open("left").await.is_ok());
    }

    /// Others may use all its connections for longer than it may take to reach it.
    #[tokio::test]
    async fn who_waits_for_a_connection_says_nothing_against_the_depot() {
        let folder = tempfile::tempdir().unwrap();
        let gone = "{host: 127.0.0.1, port: 1, database: d, params: {sslmode: disable}}\n  connectionSecret: [{acl: r, data: {username: u}}]";
        let text = format!("---\nname: crm\nversion: v1\ntype: depot\ndepot:\n  type: POSTGRESQL\n  spec: {gone}\n");
        let depots = testing::depots(folder.path(), &text);
        for _ in 0..4 {
            let (fingerprint, mut watch) = watch(&depots, "crm");
            watch.timeouts.connect = std::time::Duration::from_millis(20);
            let admitted = watch.health.admit().unwrap();
            let opening = async {
                let _waiting = crate::waits::begin();
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                Err(Error::new("crm", ErrorKind::Busy, "all connections were in use"))
            };
            let opening = depots.shared.state().begin(fingerprint, watch, |watch, attempt| {
                watched::open(opening, watch, admitted, attempt, false)
            });
            assert_eq!(opening.await.unwrap_err().kind, ErrorKind::Busy);
        }
        let health = depots.health("crm").unwrap();
        assert_eq!((health.failures, health.retry_at), (0, None), "{health:?}");
    }

    /// What fails in the background is noted, and does not make anybody's statement fail at once.
    #[tokio::test]
    async fn failures_of_who_looks_after_a_depot_do_not_break_the_circuit() {
        let folder = tempfile::tempdir().unwrap();
        // Nobody listens at this port.
        let gone = "{host: 127.0.0.1, port: 1, database: d, params: {sslmode: disable}}\n  connectionSecret: [{acl: r, data: {username: u}}]";
        let text = format!("---\nname: crm\nversion: v1\ntype: depot\ndepot:\n  type: POSTGRESQL\n  spec: {gone}\n");
        let depots = testing::depots(folder.path(), &text);
        for _ in 0..5 {
            assert_eq!(
                depots.shared.look("crm").await.unwrap_err().kind,
                ErrorKind::Unreachable
            );
        }
        let health = depots.health("crm").unwrap();
        assert_eq!((health.failures, health.retry_at), (0, None), "{health:?}");
        assert_eq!(health.state, crate::DepotState::Unreachable);
        let error = depots.open("crm").await.unwrap_err();
        assert!(!error.to_string().contains("since"), "{error}");
        assert_eq!(depots.health("crm").unwrap().failures, 1);
    }

    #[tokio::test]
    async fn a_failed_opening_is_told_to_all_who_wait_and_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let depots = testing::depots(folder.path(), &manifest("crm", "sqlite", "{path: crm.db}"));
        let (first, second) = futures::join!(depots.open("crm"), depots.open("crm"));
        assert_eq!(first.unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(second.unwrap_err().kind, ErrorKind::NotFound);
        std::fs::write(folder.path().join("crm.db"), "").unwrap();
        assert!(depots.open("crm").await.is_ok());
    }
}

//! Queries running and past: who asked what, how it went, and how to stop it.
//!
//! In: the life of each query. Out: rows of `system.runtime.queries` and a way to cancel. The newest 10,000 queries are kept.
//! Deliberately absent: results and any value of a row.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use datafusion::physical_plan::ExecutionPlan;
use minerva_cluster::{Reading, Watch};
use minerva_policy::Principal;
use rand::Rng;
use tokio::sync::watch;

use crate::{
    audit::{Owner, may_see},
    error::{Code, QueryError, Result},
    progress::{self, Progress},
};

const KEPT: usize = 10_000;

/// Where a query stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It waits for its turn.
    Queued,
    /// It is being planned.
    Planning,
    /// Its rows are being made.
    Running,
    /// It ended well.
    Finished,
    /// It ended with an error.
    Failed,
    /// Somebody stopped it.
    Canceled,
}

impl State {
    /// The state as clients see it.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "QUEUED",
            State::Planning => "PLANNING",
            State::Running => "RUNNING",
            State::Finished => "FINISHED",
            State::Failed => "FAILED",
            State::Canceled => "CANCELED",
        }
    }

    fn is_final(self) -> bool {
        matches!(self, State::Finished | State::Failed | State::Canceled)
    }
}

/// What is kept of one query.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) user: String,
    /// Who acted as that user, if it was somebody else.
    pub(crate) impersonator: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) door: &'static str,
    pub(crate) address: String,
    pub(crate) sql: String,
    pub(crate) state: State,
    pub(crate) created: DateTime<Utc>,
    pub(crate) ended: Option<DateTime<Utc>>,
    pub(crate) queued: Duration,
    pub(crate) planning: Duration,
    pub(crate) elapsed: Duration,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) tables: Vec<String>,
    pub(crate) error: Option<QueryError>,
    /// What runs, while it runs.
    running: Option<RunningPlan>,
}

/// A plan that runs, and what its stages read.
#[derive(Debug, Clone)]
struct RunningPlan {
    plan: Arc<dyn ExecutionPlan>,
    watch: Arc<Watch>,
}

/// One query while it lives; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Tracked {
    record: Arc<Mutex<Record>>,
    started: Instant,
    stop: watch::Receiver<Option<String>>,
}

/// All queries of this coordinator.
#[derive(Debug)]
pub(crate) struct Queries {
    inner: Mutex<Inner>,
    counter: AtomicU64,
    suffix: String,
}

#[derive(Debug, Default)]
struct Inner {
    newest_last: VecDeque<Arc<Mutex<Record>>>,
    /// Who asked each query that runs, and how to stop it.
    running: HashMap<String, (Principal, watch::Sender<Option<String>>)>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who sends a statement, and how.
#[derive(Debug, Clone)]
pub struct Client {
    /// The front door.
    pub door: &'static str,
    /// The client's network address.
    pub address: String,
    /// What the client calls itself.
    pub source: Option<String>,
}

impl Queries {
    pub(crate) fn new() -> Self {
        const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
        let mut random = rand::rng();
        let letter = |_| {
            LETTERS
                .get(random.random_range(0..LETTERS.len()))
                .map_or('a', |byte| char::from(*byte))
        };
        Self {
            inner: Mutex::default(),
            counter: AtomicU64::new(0),
            suffix: (0..5).map(letter).collect(),
        }
    }

    /// A name that nothing else has that is recorded.
    pub(crate) fn new_id(&self, now: DateTime<Utc>) -> String {
        let number = self.counter.fetch_add(1, Ordering::Relaxed) % 100_000;
        format!("{}_{number:05}_{}", now.format("%Y%m%d_%H%M%S"), self.suffix)
    }

    /// Begins a query, in state QUEUED.
    pub(crate) fn begin(&self, principal: &Principal, client: &Client, sql: &str) -> Tracked {
        let created = Utc::now();
        let id = self.new_id(created);
        let record = Arc::new(Mutex::new(Record {
            id: id.clone(),
            user: principal.id.clone(),
            impersonator: principal.impersonator.clone(),
            source: client.source.clone(),
            door: client.door,
            address: client.address.clone(),
            sql: sql.to_owned(),
            state: State::Queued,
            created,
            ended: None,
            queued: Duration::ZERO,
            planning: Duration::ZERO,
            elapsed: Duration::ZERO,
            rows: 0,
            bytes: 0,
            tables: Vec::new(),
            error: None,
            running: None,
        }));
        let (sender, stop) = watch::channel(None);
        let mut inner = locked(&self.inner);
        inner.running.insert(id, (principal.clone(), sender));
        inner.newest_last.push_back(Arc::clone(&record));
        while inner.newest_last.len() > KEPT {
            inner.newest_last.pop_front();
        }
        Tracked {
            record,
            started: Instant::now(),
            stop,
        }
    }

    /// What somebody may see: the owner's queries, or all.
    pub(crate) fn list(&self, owner: Option<&Owner>) -> Vec<Record> {
        let records: Vec<_> = locked(&self.inner).newest_last.iter().map(Arc::clone).collect();
        records
            .iter()
            .map(|record| locked(record).clone())
            .filter(|record| may_see(owner, &record.user, record.impersonator.as_deref()))
            .collect()
    }

    /// How far a query is; `None` when it is not known or is none of the owner's.
    pub(crate) fn progress(&self, owner: Option<&Owner>, id: &str) -> Option<Progress> {
        let newest_first = locked(&self.inner)
            .newest_last
            .iter()
            .rev()
            .map(Arc::clone)
            .collect::<Vec<_>>();
        let record = newest_first.iter().find(|record| locked(record).id == id)?;
        let record = locked(record).clone();
        if !may_see(owner, &record.user, record.impersonator.as_deref()) {
            return None;
        }
        let (stages, input) = match &record.running {
            Some(running) => (
                progress::stages(&running.plan),
                [Reading::of(&running.plan), running.watch.read()].into_iter().sum(),
            ),
            None => (0, Reading::default()),
        };
        let elapsed = match record.ended {
            Some(_) => record.elapsed,
            None => (Utc::now() - record.created).to_std().unwrap_or_default(),
        };
        Some(Progress {
            state: record.state,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            stages,
            input_rows: input.rows,
            input_bytes: input.bytes,
            output_rows: record.rows,
            output_bytes: record.bytes,
        })
    }

    /// Asks a query to stop; false when it has ended or is none of the owner's.
    pub(crate) fn cancel(&self, owner: Option<&Owner>, id: &str, message: &str) -> bool {
        let inner = locked(&self.inner);
        match inner.running.get(id) {
            Some((asked, sender)) if may_see(owner, &asked.id, asked.impersonator.as_deref()) => {
                sender.send(Some(message.to_owned())).is_ok()
            }
            _ => false,
        }
    }

    /// Asks every query to stop.
    pub(crate) fn stop_all(&self, message: &str) {
        for (_, sender) in locked(&self.inner).running.values() {
            // One that has ended meanwhile does not listen any more.
            let _ = sender.send(Some(message.to_owned()));
        }
    }

    /// Whether some query has not ended yet.
    pub(crate) fn is_busy(&self) -> bool {
        !locked(&self.inner).running.is_empty()
    }

    /// Ends a query and returns its record; `None` when it had ended before.
    pub(crate) fn end(&self, tracked: &Tracked, outcome: Result<(), QueryError>) -> Option<Record> {
        let mut record = locked(&tracked.record);
        if record.state.is_final() {
            return None;
        }
        record.state = match &outcome {
            Ok(()) => State::Finished,
            Err(error) if error.code == Code::QueryCanceled => State::Canceled,
            Err(_) => State::Failed,
        };
        record.error = outcome.err();
        record.running = None;
        record.elapsed = tracked.started.elapsed();
        record.ended = Some(Utc::now());
        let last = record.clone();
        drop(record);
        locked(&self.inner).running.remove(&last.id);
        Some(last)
    }
}

impl Tracked {
    /// The query's id.
    pub(crate) fn id(&self) -> String {
        locked(&self.record).id.clone()
    }

    /// Its record as it is now.
    pub(crate) fn record(&self) -> Record {
        locked(&self.record).clone()
    }

    /// It waited, and is planned now.
    pub(crate) fn planning(&self) {
        let mut record = locked(&self.record);
        record.state = State::Planning;
        record.queued = self.started.elapsed();
    }

    /// It is planned and ready to run over these tables.
    pub(crate) fn planned(&self, tables: Vec<String>, plan: &Arc<dyn ExecutionPlan>, watch: Watch) {
        let mut record = locked(&self.record);
        record.planning = self.started.elapsed().saturating_sub(record.queued);
        record.tables = tables;
        record.running = Some(RunningPlan {
            plan: Arc::clone(plan),
            watch: Arc::new(watch),
        });
    }

    /// Somebody reads its rows.
    pub(crate) fn running(&self) {
        locked(&self.record).state = State::Running;
    }

    /// It made a batch.
    pub(crate) fn produced(&self, rows: usize, bytes: usize) -> u64 {
        let mut record = locked(&self.record);
        record.rows += rows as u64;
        record.bytes += bytes as u64;
        record.elapsed = self.started.elapsed();
        record.rows
    }

    /// When it was begun.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Resolves when somebody asks it to stop.
    pub(crate) fn stop_signal(&self) -> watch::Receiver<Option<String>> {
        self.stop.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jane() -> Principal {
        Principal::new("jane", [], Default::default())
    }

    fn client() -> Client {
        Client {
            door: "test",
            address: "here".into(),
            source: None,
        }
    }

    #[test]
    fn a_query_is_cancelled_by_its_owner_or_an_operator_only() {
        let queries = Queries::new();
        let tracked = queries.begin(&jane(), &client(), "SELECT 1");
        let id = tracked.id();
        let mut acting = jane();
        acting.impersonator = Some("desk".to_owned());
        let acting = Owner::of(&acting);
        let (john, jane) = (
            Owner::of(&Principal::new("john", [], Default::default())),
            Owner::of(&jane()),
        );
        for other in [&john, &acting] {
            assert!(!queries.cancel(other.as_ref(), &id, "no"), "another's query");
            assert_eq!(queries.progress(other.as_ref(), &id), None, "another's query");
        }
        let progress = |user: Option<&Owner>| {
            queries
                .progress(user, &id)
                .map(|progress| (progress.state, progress.output_rows))
        };
        tracked.running();
        tracked.produced(3, 100);
        assert_eq!(progress(jane.as_ref()), Some((State::Running, 3)));
        assert_eq!(progress(None), progress(jane.as_ref()), "an operator's view");
        assert!(queries.cancel(jane.as_ref(), &id, "stop"));
        assert_eq!(tracked.stop_signal().borrow().as_deref(), Some("stop"));
        assert!(queries.is_busy());
        let last = queries.end(&tracked, Err(QueryError::new(Code::QueryCanceled, "stop")));
        assert_eq!(last.map(|record| record.state), Some(State::Canceled));
        assert!(queries.end(&tracked, Ok(())).is_none() && !queries.is_busy());
        assert!(!queries.cancel(None, &id, "late"), "it has ended");
        assert_eq!(
            queries.list(jane.as_ref()).first().map(|record| record.state),
            Some(State::Canceled)
        );
        assert!(queries.list(john.as_ref()).is_empty() && queries.list(acting.as_ref()).is_empty());
    }

    #[test]
    fn ids_have_trinos_form() {
        let queries = Queries::new();
        let id = queries.begin(&jane(), &client(), "SELECT 1").id();
        let parts: Vec<_> = id.split('_').map(str::len).collect();
        assert_eq!(parts, [8, 6, 5, 5], "{id}");
    }
}

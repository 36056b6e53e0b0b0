//! The audit: one durable record of each query, whatever became of it, and of attempts to log in that failed.
//!
//! In: queries as they begin and end. Out: rows of `DATA/audit.db`, for operators and for those whose queries they were. A thread of its own writes,
//! off the path of the queries; a query is recorded when it begins and again when it ends, so that a crash leaves its first record. What was handed
//! over is on disk after some ten milliseconds, and a query that has begun and ended meanwhile is written once; when the power fails, what the system
//! had not yet written may be lost. A record is never dropped: while the file cannot be written, no statement runs. Deliberately absent: values of rows
//! and parameters, keys and tokens.

mod calls;
mod file;
mod owner;
mod reads;
mod record;
mod redact;
pub(crate) mod trace;

use std::{
    collections::{BTreeMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use chrono::Utc;
use minerva_policy::Principal;
use rusqlite::Connection;
use tokio::sync::watch;

use crate::{
    error::{Code, QueryError, Result},
    queries::{Client, Record, State},
};

use calls::Calls;
pub(crate) use calls::Stage;
pub(crate) use file::Wanted;
pub(crate) use owner::{Owner, may_see};
pub(crate) use record::{Attempt, QueryRecord, moment};
pub(crate) use redact::redacted;
use trace::{Traced, shortened};

/// How many records may wait for the disk before no more statements are taken.
const MOST_WAITING: usize = 20_000;
/// How long records are gathered before they are written, unless somebody waits for them: a small statement has begun and ended by then, and is written once.
const GATHER: Duration = Duration::from_millis(10);
/// How many records are not waited with.
const MOST_GATHERED: usize = 1_000;
/// How many different attempts to log in may wait; more are counted under no name.
const MOST_ATTEMPTS_WAITING: usize = 1_000;
/// How long to wait after the file could not be written.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How often old records are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(600);
/// How long a reader waits for what was handed over before it reads what is there.
const CATCH_UP: Duration = Duration::from_secs(5);
/// The longest name of a user that is kept of an attempt to log in.
const LONGEST_CLAIM: usize = 128;
/// The longest text of an error that is kept of an attempt to log in, and of a call.
const LONGEST_REASON: usize = 500;
/// How many characters are kept of what a call was about.
const LONGEST_CALL: usize = 2_000;
/// What kind of statement a call of a door is that is none. Its text holds names and no values.
const CALL: &str = "API";

/// How records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keeping {
    /// For how long.
    pub(crate) retention: Duration,
    /// Whether literals are left out of statements, and texts of errors, which may quote them.
    pub(crate) redact: bool,
}

/// The audit of one coordinator.
#[derive(Debug)]
pub(crate) struct Audit {
    path: PathBuf,
    keeping: Keeping,
    shared: Arc<Shared>,
    written: watch::Receiver<u64>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

/// What waits for the disk.
#[derive(Debug, Default)]
struct Waiting {
    queries: Vec<Unwritten>,
    attempts: BTreeMap<Attempt, i64>,
    /// Who has called what in this minute.
    calls: Calls,
    /// How many things were ever handed over.
    handed: u64,
    /// Whether somebody waits until what was handed over can be read.
    hurried: bool,
    failure: Option<String>,
    closing: bool,
    /// Whether the thread has ended, and nothing is written any more.
    ended: bool,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.queries.is_empty() && self.attempts.is_empty()
    }

    fn failure(&self) -> Option<&str> {
        match self.ended {
            true => Some("the thread that writes it has failed; restart the coordinator"),
            false => self.failure.as_deref(),
        }
    }
}

/// A call of a door that is no statement, to be recorded because the caller was refused something, or changes something.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) id: String,
    pub(crate) principal: &'a Principal,
    pub(crate) client: &'a Client,
    pub(crate) cluster: &'a str,
    /// What was called, with the names that it was about.
    pub(crate) what: String,
    /// How it ended, if it was not answered like any other.
    pub(crate) error: Option<&'a QueryError>,
    pub(crate) traced: Traced,
    pub(crate) stage: Stage,
}

/// A record whose tables are not written out yet.
#[derive(Debug, Clone)]
struct Unwritten {
    record: QueryRecord,
    traced: Traced,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Audit {
    /// Opens the file in the data folder and begins to write.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub(crate) fn open(data: &Path, keeping: Keeping) -> Result<Self, String> {
        let path = data.join("audit.db");
        let connection = file::open(&path).map_err(|error| {
            format!(
                "the audit file `{}` cannot be used: {}",
                path.display(),
                file::why(&error)
            )
        })?;
        let shared = Arc::new(Shared::default());
        let (sender, written) = watch::channel(0);
        let writer = Writer {
            connection,
            shared: Arc::clone(&shared),
            written: sender,
            keeping,
        };
        let thread = std::thread::Builder::new()
            .name("audit".to_owned())
            // Plans may be deep.
            .stack_size(32 << 20)
            .spawn(move || {
                let _end = End(Arc::clone(&writer.shared));
                writer.run();
            })
            .map_err(|error| format!("the audit's thread cannot be started: {error}"))?;
        Ok(Self {
            path,
            keeping,
            shared,
            written,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Whether literals are left out of what others than the user see.
    pub(crate) fn redacts(&self) -> bool {
        self.keeping.redact
    }

    /// Why nothing can be recorded at the moment.
    pub(crate) fn failure(&self) -> Option<String> {
        locked(&self.shared.waiting).failure().map(str::to_owned)
    }

    /// Whether a statement may run: what cannot be recorded does not run.
    ///
    /// # Errors
    /// While the file cannot be written.
    pub(crate) fn expect_writable(&self) -> Result<()> {
        let waiting = locked(&self.shared.waiting);
        let refused = |why: &str| {
            QueryError::new(Code::InsufficientDisk, format!("the audit cannot be written: {why}"))
                .with_hint("no statement runs without its record; an operator finds the reason in the server's log")
        };
        match waiting.failure() {
            Some(_) if waiting.ended => Err(refused("the thread that writes it has failed")),
            Some(_) => Err(refused("its file does not take records")),
            None if waiting.queries.len() >= MOST_WAITING => Err(refused("too many records wait for the disk")),
            None => Ok(()),
        }
    }

    /// Records a query as it is now: when it begins, and when it has ended.
    pub(crate) fn query(&self, record: &Record, cluster: &str, traced: Traced) {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let record = QueryRecord {
            query_id: record.id.clone(),
            user: record.user.clone(),
            impersonator: record.impersonator.clone(),
            door: record.door.to_owned(),
            client_address: record.address.clone(),
            source: record.source.clone(),
            cluster: cluster.to_owned(),
            statement_kind: traced.kind.map(str::to_owned),
            query: record.sql.clone(),
            tables: String::new(),
            resources_version: traced.resources.clone(),
            state: record.state.as_str().to_owned(),
            error_code: record.error.as_ref().map(|error| error.code.as_str().to_owned()),
            error_message: record.error.as_ref().map(|error| error.message.clone()),
            queued: millis(record.queued),
            planning: millis(record.planning),
            elapsed: millis(record.elapsed),
            created: record.created.timestamp_millis(),
            ended: record.ended.map(|ended| ended.timestamp_millis()),
            rows: i64::try_from(record.rows).unwrap_or(i64::MAX),
            bytes: i64::try_from(record.bytes).unwrap_or(i64::MAX),
        };
        self.hand_over(|waiting| waiting.queries.push(Unwritten { record, traced }));
    }

    /// Records a call that is no statement. Beyond a number within a minute, those of one user are counted together.
    ///
    /// # Errors
    /// When a change is to begin and there were too many of this user within the minute.
    pub(crate) fn call(&self, call: Call<'_>) -> Result<()> {
        let now = Utc::now().timestamp_millis();
        let mut waiting = locked(&self.shared.waiting);
        let counted = waiting.calls.count(now, call.principal, call.stage, &call.id)?;
        let state = match (call.stage, call.error) {
            (Stage::Begins, _) => State::Running,
            (_, Some(_)) => State::Failed,
            (_, None) => State::Finished,
        };
        let (traced, several) = match counted {
            None => (call.traced, None),
            Some(several) => (Traced::default(), Some(several)),
        };
        let record = QueryRecord {
            query_id: call.id,
            user: call.principal.id.clone(),
            impersonator: call.principal.impersonator.clone(),
            door: call.client.door.to_owned(),
            client_address: call.client.address.clone(),
            source: call.client.source.clone(),
            cluster: call.cluster.to_owned(),
            statement_kind: Some(CALL.to_owned()),
            query: shortened(&call.what, LONGEST_CALL).into_owned(),
            resources_version: traced.resources.clone(),
            state: state.as_str().to_owned(),
            error_code: call.error.map(|error| error.code.as_str().to_owned()),
            error_message: call
                .error
                .map(|error| shortened(&error.message, LONGEST_REASON).into_owned()),
            created: now,
            ended: (call.stage != Stage::Begins).then_some(now),
            ..QueryRecord::default()
        };
        let record = match several {
            None => record,
            Some(several) => several.record(record),
        };
        self.hand_over_to(waiting, |waiting| waiting.queries.push(Unwritten { record, traced }));
        Ok(())
    }

    /// Records that somebody could not prove who they are.
    pub(crate) fn attempt(&self, client: &Client, claimed: Option<&str>, error: &QueryError) {
        let minute = Utc::now().timestamp_millis().div_euclid(60_000) * 60_000;
        let host = client.address.parse::<std::net::SocketAddr>();
        let attempt = Attempt {
            minute,
            door: client.door.to_owned(),
            client_address: host.map_or_else(|_| client.address.clone(), |address| address.ip().to_string()),
            user: claimed.map(|claimed| claimed.chars().take(LONGEST_CLAIM).collect()),
            error_code: error.code.as_str().to_owned(),
            error_message: error.message.chars().take(LONGEST_REASON).collect(),
        };
        self.hand_over(|waiting| {
            let known = waiting.attempts.contains_key(&attempt);
            let attempt = match known || waiting.attempts.len() < MOST_ATTEMPTS_WAITING {
                true => attempt,
                false => attempt.of_several(),
            };
            *waiting.attempts.entry(attempt).or_default() += 1;
        });
    }

    fn hand_over(&self, add: impl FnOnce(&mut Waiting)) {
        self.hand_over_to(locked(&self.shared.waiting), add);
    }

    fn hand_over_to(&self, mut waiting: MutexGuard<'_, Waiting>, add: impl FnOnce(&mut Waiting)) {
        let slept = waiting.is_empty();
        add(&mut waiting);
        waiting.handed += 1;
        let wakes = slept || waiting.queries.len() == MOST_GATHERED;
        drop(waiting);
        if wakes {
            self.shared.wake.notify_one();
        }
    }

    /// Waits until what was handed over so far can be read.
    async fn caught_up(&self) {
        let mut written = self.written.clone();
        let handed = {
            let mut waiting = locked(&self.shared.waiting);
            waiting.hurried |= *written.borrow() < waiting.handed;
            waiting.handed
        };
        self.shared.wake.notify_one();
        let caught_up = async { written.wait_for(|written| *written >= handed).await.map(|_| ()) };
        if tokio::time::timeout(CATCH_UP, caught_up).await.is_err() {
            tracing::warn!("the audit is read without its latest records, which wait for the disk");
        }
    }

    /// One record, if this reader may see it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) async fn find(&self, owner: Option<Owner>, id: &str) -> Result<Option<QueryRecord>> {
        let wanted = Wanted {
            owner,
            query_id: Some(id.to_owned()),
            limit: Some(1),
            ..Wanted::default()
        };
        Ok(self.list(wanted).await?.pop())
    }

    /// Some records, newest first; `wanted` must have a limit.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) async fn list(&self, wanted: Wanted) -> Result<Vec<QueryRecord>> {
        let mut found = Vec::new();
        self.read(move |path| {
            file::read(path, &wanted, |record| {
                found.push(record);
                true
            })?;
            Ok(found)
        })
        .await
    }

    /// Attempts to log in that failed, newest first, with how often each was made.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) async fn attempts(&self) -> Result<Vec<(Attempt, i64)>> {
        self.read(file::attempts).await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Path) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.caught_up().await;
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read(&path).map_err(|error| unreadable(&error)));
        read.await.map_err(|error| {
            QueryError::new(Code::GenericInternalError, format!("reading the audit failed: {error}"))
        })?
    }

    /// What reads records one after the other, for those that may be many.
    pub(crate) async fn reader(&self) -> Reader {
        self.caught_up().await;
        Reader(self.path.clone())
    }

    /// Writes what waits and ends. Nothing that comes later is recorded.
    pub(crate) fn close(&self) {
        locked(&self.shared.waiting).closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = locked(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the audit's thread failed");
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.close();
    }
}

fn unreadable(error: &rusqlite::Error) -> QueryError {
    let message = format!("the audit cannot be read: {}", file::why(error));
    QueryError::new(Code::GenericInternalError, message)
}

/// Reads records one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Reader(PathBuf);

impl Reader {
    /// Hands over each record until `each` has had enough. Blocks.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn read(&self, wanted: &Wanted, each: impl FnMut(QueryRecord) -> bool) -> Result<()> {
        file::read(&self.0, wanted, each).map_err(|error| unreadable(&error))
    }
}

/// Says that the thread has ended, however it did.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        let mut waiting = locked(&self.0.waiting);
        waiting.ended = true;
        if !waiting.closing {
            tracing::error!("the audit's thread has failed; no statement runs until the coordinator is started again");
        }
    }
}

/// The thread that writes.
struct Writer {
    connection: Connection,
    shared: Arc<Shared>,
    written: watch::Sender<u64>,
    keeping: Keeping,
}

impl Writer {
    fn run(mut self) {
        let mut forget_at = Instant::now();
        loop {
            let (queries, attempts, handed, closing) = self.next(forget_at);
            let queries = self.finished(queries);
            self.write(&queries, &attempts, closing);
            self.written.send_replace(handed);
            if closing {
                break;
            }
            if forget_at <= Instant::now() {
                forget_at = match self.forget() {
                    true => Instant::now() + FORGET_EVERY,
                    false => Instant::now(),
                };
            }
        }
        if let Err(error) = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            tracing::warn!(%error, "the audit's journal was not put away");
        }
    }

    /// Waits for something to write, or for the time to look for old records.
    fn next(&self, until: Instant) -> (Vec<Unwritten>, Vec<(Attempt, i64)>, u64, bool) {
        let waiting = locked(&self.shared.waiting);
        let mut waiting = self.wait(waiting, until, |waiting| waiting.is_empty() && !waiting.closing);
        if !waiting.is_empty() {
            waiting = self.wait(waiting, Instant::now() + GATHER, |waiting| {
                waiting.queries.len() < MOST_GATHERED && !waiting.hurried && !waiting.closing
            });
        }
        waiting.hurried = false;
        let queries = std::mem::take(&mut waiting.queries);
        let attempts = std::mem::take(&mut waiting.attempts).into_iter().collect();
        (queries, attempts, waiting.handed, waiting.closing)
    }

    /// Waits while something holds, and no longer than until a time.
    fn wait<'w>(
        &self,
        waiting: MutexGuard<'w, Waiting>,
        until: Instant,
        holds: impl Fn(&Waiting) -> bool,
    ) -> MutexGuard<'w, Waiting> {
        let left = until.saturating_duration_since(Instant::now());
        let waited = (self.shared.wake).wait_timeout_while(waiting, left, |waiting| holds(waiting));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// The rows to write: the last of each query, with its tables written out and, when told to, without values.
    fn finished(&self, queries: Vec<Unwritten>) -> Vec<QueryRecord> {
        let mut seen = HashSet::new();
        let mut rows = Vec::with_capacity(queries.len());
        for Unwritten { mut record, traced } in queries.into_iter().rev() {
            if !seen.insert(record.query_id.clone()) {
                continue;
            }
            // One plan that cannot be looked through must not keep the others from their records.
            let tables = catch_unwind(AssertUnwindSafe(|| traced.tables().to_string()));
            record.tables = tables.unwrap_or_else(|_| {
                tracing::error!(query_id = %record.query_id, "the columns that a statement reads could not be found; its record says so");
                traced.tables_unread().to_string()
            });
            if self.keeping.redact {
                if record.statement_kind.as_deref() != Some(CALL) {
                    record.query = redacted(&record.query);
                }
                // The text of an error may quote a value of the statement.
                record.error_message = record.error_message.map(|_| "(redacted)".to_owned());
            }
            rows.push(record);
        }
        rows.reverse();
        rows
    }

    /// Writes, and tries again until it is written. When the process is about to end it tries a few times only.
    fn write(&mut self, queries: &[QueryRecord], attempts: &[(Attempt, i64)], closing: bool) {
        if queries.is_empty() && attempts.is_empty() {
            return;
        }
        let mut tries = 0;
        while let Err(error) = file::write(&mut self.connection, queries, attempts) {
            let why = file::why(&error);
            tracing::error!(error = %why, records = queries.len(), "the audit cannot be written; no statement runs until it can");
            let mut waiting = locked(&self.shared.waiting);
            waiting.failure = Some(why);
            tries += 1;
            if (closing || waiting.closing) && tries >= 3 {
                return;
            }
            drop(waiting);
            std::thread::sleep(TRY_AGAIN);
        }
        locked(&self.shared.waiting).failure = None;
    }

    /// Forgets old records; true when there is nothing left to forget.
    fn forget(&self) -> bool {
        let kept = i64::try_from(self.keeping.retention.as_millis()).unwrap_or(i64::MAX);
        let before = Utc::now().timestamp_millis().saturating_sub(kept);
        match file::forget(&self.connection, before) {
            Ok(all) => all,
            Err(error) => {
                tracing::warn!(error = %file::why(&error), "old records of the audit were not forgotten");
                true
            }
        }
    }
}

#[cfg(test)]
mod tests;

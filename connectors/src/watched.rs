//! A source whose depot is watched: what its calls meet is noted, and none of them waits without end.
//!
//! In: a source. Out: the same source. Calls fail at once while the depot is left alone (see [`crate::health`]). That somebody waits for a connection that others
//! use tells nothing of the depot, and counts in no limit of an answer (see [`crate::waits`]); in those of rows it does, which leave no depot alone. Every method of [`Source`] must be
//! handed on here, also one that has a default; a test below looks for that. Deliberately absent: writing, which is neither timed nor noted.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::runtime::SpawnedTask;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use minerva_resources::Timeouts;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use crate::depots::Shared;
use crate::health::{Admitted, Health, Outcome, Probe};
use crate::waits::within;
use crate::{Error, ErrorKind, Result, Scan, ScanFilter, Seen, Source, Split, Writer};

/// What is asked about datasets is answered in milliseconds, or in seconds where files are looked into.
const LONGEST_ANSWER: Duration = Duration::from_secs(300);

/// Who notes how calls to one depot end, and has somebody look after it when they fail.
#[derive(Clone)]
pub(crate) struct Watch {
    pub(crate) depot: String,
    pub(crate) health: Arc<Health>,
    pub(crate) timeouts: Timeouts,
    pub(crate) depots: Weak<Shared>,
    /// Whether a dataset that cannot be reached means that none can.
    pub(crate) as_a_whole: bool,
}

tokio::task_local! {
    /// Set where a depot is looked after in the background.
    static LOOKING_AFTER: ();
}

impl Watch {
    pub(crate) fn note(&self, outcome: Outcome<'_>, admitted: Option<&mut Admitted>) {
        let tries = admitted.as_ref().is_some_and(|admitted| admitted.tries());
        let outcome = match outcome {
            // Only failures that somebody met make others fail at once.
            Outcome::Failed(error) if !tries && LOOKING_AFTER.try_with(|()| ()).is_ok() => Outcome::Again(error),
            outcome => outcome,
        };
        // Where nothing runs nobody can look after it; the next call does.
        let Ok(runtime) = Handle::try_current() else {
            self.health.note(outcome, admitted);
            return;
        };
        if self.health.note(outcome, admitted) {
            runtime.spawn(look_after(self.clone()));
        }
    }

    /// The error of a depot that took too long.
    pub(crate) fn too_slow(&self, kind: ErrorKind, what: &str, limit: Duration) -> Error {
        let message = format!("{what} within {} seconds", limit.as_secs_f64());
        Error::new(&self.depot, kind, message)
    }

    fn of_part<'a, T>(&self, result: &'a Result<T>) -> Outcome<'a> {
        match Outcome::of_part(result) {
            Outcome::Failed(error) if !self.as_a_whole => Outcome::Interrupted(error),
            outcome => outcome,
        }
    }

    /// Asks the depot something about its datasets.
    async fn ask<T>(&self, asking: impl Future<Output = Result<T>>, about_whole: bool) -> Result<T> {
        let mut admitted = self.health.admit()?;
        let limit = self.timeouts.idle.min(LONGEST_ANSWER);
        let result = within(limit, asking)
            .await
            .unwrap_or_else(|| Err(self.too_slow(ErrorKind::Unreachable, "it did not answer", limit)));
        let outcome = match about_whole {
            true => Outcome::of_whole(&result),
            false => self.of_part(&result),
        };
        self.note(outcome, Some(&mut admitted));
        result
    }
}

/// Asks a depot now and then until it answers, its manifest changes, or only a change of its manifest helps.
async fn look_after(watch: Watch) {
    for times in 0.. {
        let Probe::After(pause) = watch.health.next_probe(times) else {
            return;
        };
        tokio::time::sleep(pause).await;
        let Some(depots) = watch.depots.upgrade() else { return };
        if !depots.has(&watch.depot, &watch.health) {
            watch.health.unprobed();
            return;
        }
        // What comes of it is noted where it is met.
        if let Ok(source) = depots.look(&watch.depot).await {
            let _ = LOOKING_AFTER.scope((), source.collections()).await;
        }
    }
}

/// A source and who watches it.
pub(crate) struct Watched {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) watch: Watch,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

#[async_trait]
impl Source for Watched {
    async fn collections(&self) -> Result<Vec<String>> {
        self.watch.ask(self.source.collections(), true).await
    }

    async fn datasets(&self, collection: &str) -> Result<Vec<String>> {
        self.watch.ask(self.source.datasets(collection), false).await
    }

    async fn listing(&self) -> Result<Option<Vec<(String, Vec<String>)>>> {
        self.watch.ask(self.source.listing(), true).await
    }

    async fn dataset(
        &self,
        collection: &str,
        dataset: &str,
        session: &dyn Session,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        self.watch
            .ask(self.source.dataset(collection, dataset, session), false)
            .await
    }

    fn seen(&self, collection: &str, dataset: &str) -> Option<(Arc<dyn TableProvider>, String)> {
        self.source.seen(collection, dataset)
    }

    async fn are_as_seen(&self, seen: &[Seen]) -> Result<bool> {
        self.watch.ask(self.source.are_as_seen(seen), false).await
    }

    async fn columns(
        &self,
        collection: &str,
        datasets: &[String],
        session: &dyn Session,
    ) -> Result<Vec<Result<Option<SchemaRef>>>> {
        let mut admitted = self.watch.health.admit()?;
        // Of thousands of files this takes a while.
        let limit = self.watch.timeouts.idle;
        let found = within(limit, self.source.columns(collection, datasets, session)).await;
        let too_slow = || self.watch.too_slow(ErrorKind::Unreachable, "it did not answer", limit);
        let found = found.unwrap_or_else(|| Err(too_slow()));
        self.watch.note(self.watch.of_part(&found), Some(&mut admitted));
        found
    }

    fn read(&self, scan: &Scan, split: &Split, context: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let admitted = self.watch.health.admit()?;
        let rows = self.source.read(scan, split, context)?;
        Ok(watched(rows, scan, self.watch.clone(), admitted))
    }

    async fn narrowed(&self, scan: &Scan, filters: &[ScanFilter]) -> Option<Scan> {
        self.source.narrowed(scan, filters).await
    }

    fn most_keys(&self) -> usize {
        self.source.most_keys()
    }

    fn distributable(&self) -> bool {
        self.source.distributable()
    }

    fn writer(&self) -> Option<&dyn Writer> {
        self.source.writer()
    }

    fn depot(&self) -> &str {
        self.source.depot()
    }

    fn depot_type(&self) -> &'static str {
        self.source.depot_type()
    }

    fn refusal(&self, statement: &str) -> Error {
        self.source.refusal(statement)
    }
}

struct Rows {
    rows: SendableRecordBatchStream,
    watch: Watch,
    admitted: Admitted,
    /// Whether some came already.
    came: bool,
    /// When all rows must be there.
    until: Option<Instant>,
    /// The dataset, for messages.
    object: String,
}

/// Rows that do not keep their reader waiting without end. How long the reader takes does not count, but for the whole.
fn watched(
    rows: SendableRecordBatchStream,
    scan: &Scan,
    watch: Watch,
    admitted: Admitted,
) -> SendableRecordBatchStream {
    let schema = rows.schema();
    let reading = Rows {
        rows,
        until: watch.timeouts.query.map(|limit| Instant::now() + limit),
        watch,
        admitted,
        came: false,
        object: format!("{}.{}", scan.address.collection, scan.address.dataset),
    };
    let rows = stream::unfold(Some(reading), |reading| async move {
        let mut reading = reading?;
        let next = reading.next().await?;
        let goes_on = next.is_ok();
        Some((next, goes_on.then_some(reading)))
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

impl Rows {
    async fn next(&mut self) -> Option<datafusion::error::Result<arrow::array::RecordBatch>> {
        let Timeouts { idle, query, .. } = self.watch.timeouts;
        let idle_until = Instant::now() + idle;
        let until = self.until.map_or(idle_until, |until| until.min(idle_until));
        let next = match timeout_at(until, self.rows.next()).await {
            Ok(next) => next,
            Err(_) => {
                // It works, but not fast enough: that is no reason to leave it alone.
                let error = match query.filter(|_| self.until == Some(until)) {
                    Some(limit) => self
                        .watch
                        .too_slow(ErrorKind::Busy, "not all rows came (`timeouts.query`)", limit),
                    None => self
                        .watch
                        .too_slow(ErrorKind::Busy, "no rows came (`timeouts.idle`)", idle),
                };
                Some(Err(error.about(self.object.clone()).into()))
            }
        };
        match &next {
            Some(Err(failure)) => {
                if let Some(error) = Error::find(failure) {
                    let outcome = match Outcome::of_error(error) {
                        // One connection was lost, which does not mean that no other can be had.
                        Outcome::Failed(error) if self.came => Outcome::Interrupted(error),
                        outcome => outcome,
                    };
                    self.watch.note(outcome, Some(&mut self.admitted));
                }
            }
            // That an old connection still sends rows does not mean that a new one can be had: only the end of a trial is noted.
            Some(Ok(_)) | None if self.admitted.tries() => {
                self.watch.note(Outcome::Answered, Some(&mut self.admitted));
            }
            Some(Ok(_)) | None => {}
        }
        self.came |= matches!(next, Some(Ok(_)));
        next
    }
}

/// Opens a depot, in a task of its own: whoever waits may leave.
pub(crate) async fn open(
    opening: impl Future<Output = Result<Arc<dyn Source>>> + Send + 'static,
    watch: Watch,
    mut admitted: Admitted,
    attempt: u64,
    is_probe: bool,
) -> Result<Arc<dyn Source>> {
    let limit = watch.timeouts.connect;
    let watching = watch.clone();
    let task = SpawnedTask::spawn(async move {
        let too_slow = || {
            let what = "it could not be opened (`timeouts.connect`)";
            watching.too_slow(ErrorKind::Unreachable, what, limit)
        };
        let result = within(limit, opening).await.unwrap_or_else(|| Err(too_slow()));
        let mut note = || watching.note(Outcome::of_whole(&result), Some(&mut admitted));
        match is_probe {
            true => LOOKING_AFTER.sync_scope((), note),
            false => note(),
        }
        // Whoever asks later tries again, also when nobody waits for this answer any more.
        if let (Err(_), Some(depots)) = (&result, watching.depots.upgrade()) {
            depots.forget(&watching.depot, attempt);
        }
        result
    });
    let source = match task.join().await {
        Ok(result) => result?,
        Err(failure) => {
            if let Some(depots) = watch.depots.upgrade() {
                depots.forget(&watch.depot, attempt);
            }
            let message = format!("opening it failed: {failure}");
            return Err(Error::new(&watch.depot, ErrorKind::Internal, message));
        }
    };
    Ok(Arc::new(Watched { source, watch }))
}

#[cfg(test)]
mod tests {
    /// What is not handed on would silently be the default.
    #[test]
    fn every_method_of_a_source_is_handed_on() {
        let methods = |text: &str, from: &str| {
            let block = text.split_once(from).unwrap().1.split_once("\n}\n").unwrap().0;
            let mut names: Vec<String> = block
                .lines()
                .filter_map(|line| {
                    let line = line.strip_prefix("    ")?;
                    let line = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
                    Some(line.split(['(', '<']).next()?.to_owned())
                })
                .collect();
            names.sort();
            names
        };
        let declared = methods(include_str!("lib.rs"), "pub trait Source: ");
        let handed_on = methods(include_str!("watched.rs"), "impl Source for Watched {");
        assert!(declared.len() > 8);
        assert_eq!(declared, handed_on);
    }
}

//! Several connections that see a file as it is at one moment, so that a table can be read in ranges of its rowids.
//!
//! SQLite hands no snapshot from one connection to another. But a connection that sits in no transaction can tell, by `PRAGMA data_version`, whether anybody committed
//! between two questions of it. In: a database, and how many readers there are. Out: as many connections in transactions that began between two such
//! questions with the same answer, each for one range. Whoever comes later asks again: the state may be gone, which is an error.
//!
//! Source: <https://www.sqlite.org/pragma.html#pragma_data_version>

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::common::runtime::SpawnedTask;
use rusqlite::Connection;

use super::connection::{BUSY_TIMEOUT, Database, FileId};
use crate::remote_table::{Snapshot, Snapshots};
use crate::scan_exec::Held;
use crate::{Error, ErrorKind, Result, Split};

/// A range is worth a reader of its own from so many rowids on.
const FEWEST_ROWS: u64 = 50_000;
/// More readers find a disk or a memory bus busy.
const MOST_READERS: usize = 8;
/// How often it is tried while others commit all the time.
const TRIES: usize = 3;
/// How long each connection waits for who has the file locked; one reader that waits as usual does, too.
const PATIENCE: Duration = Duration::from_millis(200);

/// Between the name of a moment and that of the rowid.
const SEPARATOR: char = '/';

/// The moments of a database that plans hold.
#[derive(Default)]
pub(super) struct Moments {
    kept: Mutex<(u64, HashMap<u64, Arc<Moment>>)>,
}

impl Moments {
    fn kept(&self) -> MutexGuard<'_, (u64, HashMap<u64, Arc<Moment>>)> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A state of the file.
struct Moment {
    file: FileId,
    /// In no transaction, so that it notices what others commit; and what it answered.
    watch: Mutex<Connection>,
    version: i64,
    /// In transactions that began then, and not taken yet.
    free: Mutex<Vec<Connection>>,
}

/// What the readers of a range need to know, as a scan's snapshot says it.
pub(super) struct Piece {
    number: u64,
    rowid: String,
    low: Option<i64>,
    high: Option<i64>,
}

impl Piece {
    /// The piece that a split is; `None` when it is no range, or there is no snapshot of these.
    pub(super) fn of(split: &Split, snapshot: Option<&str>) -> Option<Piece> {
        let Split::Range { from, to } = *split else {
            return None;
        };
        let (number, rowid) = snapshot?.split_once(SEPARATOR)?;
        Some(Piece {
            number: number.parse().ok()?,
            rowid: rowid.to_owned(),
            // What was added before the first and after the last since they were looked at is part of the outer ranges.
            low: (from > 0).then(|| signed(from)),
            high: (to < u64::MAX).then(|| signed(to)),
        })
    }

    /// The condition on the rows of the table, which the statement calls by this alias.
    pub(super) fn condition(&self, alias: &str) -> String {
        let bound = |operator: &str, bound: Option<i64>| {
            bound.map(|bound| format!("{alias}.{} {operator} {bound}", self.rowid))
        };
        let bounds: Vec<String> = bound(">=", self.low).into_iter().chain(bound("<", self.high)).collect();
        match bounds.is_empty() {
            true => "1".to_owned(),
            false => bounds.join(" AND "),
        }
    }
}

/// Rowids in the order of unsigned numbers.
fn unsigned(rowid: i64) -> u64 {
    (rowid as u64) ^ (1 << 63)
}

fn signed(number: u64) -> i64 {
    (number ^ (1 << 63)) as i64
}

/// Ranges that together have every rowid once, of a table whose rowids are between these.
pub(super) fn splits(first: i64, last: i64) -> Vec<Split> {
    let readers = std::thread::available_parallelism()
        .map_or(1, std::num::NonZero::get)
        .min(MOST_READERS);
    divided(first, last, readers)
}

fn divided(first: i64, last: i64, readers: usize) -> Vec<Split> {
    let span = last.abs_diff(first);
    let ranges = (span / FEWEST_ROWS).min(readers as u64);
    if ranges < 2 || last < first {
        return vec![Split::Whole];
    }
    let begin = |range: u64| match range {
        0 => 0,
        range if range == ranges => u64::MAX,
        range => unsigned(first).saturating_add((u128::from(span) * u128::from(range) / u128::from(ranges)) as u64),
    };
    let ranges = (0..ranges).map(|range| Split::Range {
        from: begin(range),
        to: begin(range + 1),
    });
    ranges.collect()
}

/// Makes moments for the readers of one table.
pub(super) struct Readers {
    pub(super) database: Arc<Database>,
    pub(super) readers: usize,
    pub(super) rowid: &'static str,
}

#[async_trait]
impl Snapshots for Readers {
    async fn take(&self) -> Result<Option<Snapshot>> {
        let (database, readers) = (Arc::clone(&self.database), self.readers);
        let made = SpawnedTask::spawn_blocking(move || database.moment(readers))
            .join()
            .await;
        let made = made.map_err(|failure| self.database.failure(ErrorKind::Internal, failure.to_string()))?;
        let moment = match made {
            Ok(Some(moment)) => moment,
            // Others commit or keep it locked.
            Ok(None) => return Ok(None),
            Err(error) if error.kind == ErrorKind::Unreachable => return Ok(None),
            Err(error) => return Err(error),
        };
        let number = {
            let mut kept = self.database.moments.kept();
            kept.0 += 1;
            let number = kept.0;
            kept.1.insert(number, Arc::new(moment));
            number
        };
        Ok(Some(Snapshot {
            name: format!("{number}{SEPARATOR}{}", self.rowid),
            held: Arc::new(Kept {
                database: Arc::clone(&self.database),
                number,
            }),
        }))
    }

    /// A moment is connections of this process, and a transaction that reads keeps another from committing where the file has no write-ahead log.
    fn is_shared(&self) -> bool {
        false
    }
}

/// Keeps a moment as long as the plan is there.
#[derive(Debug)]
struct Kept {
    database: Arc<Database>,
    number: u64,
}

impl Held for Kept {}

impl Drop for Kept {
    fn drop(&mut self) {
        let moment = self.database.moments.kept().1.remove(&self.number);
        drop(moment);
    }
}

impl Database {
    /// Connections in transactions that see the same; `None` when others commit all the time.
    fn moment(&self, readers: usize) -> Result<Option<Moment>> {
        for _ in 0..TRIES {
            let file = self.file_id()?;
            let watch = self.connection(&file)?;
            self.waits(&watch, PATIENCE)?;
            let version = self.version(&watch)?;
            let begun = (0..readers).map(|_| self.begun(&file, PATIENCE));
            let free: Vec<Connection> = begun.collect::<Result<_>>()?;
            // A connection knows nothing of another file that took the place of its own.
            if self.version(&watch)? == version && self.file_id()? == file {
                return Ok(Some(Moment {
                    file,
                    watch: Mutex::new(watch),
                    version,
                    free: Mutex::new(free),
                }));
            }
        }
        Ok(None)
    }

    /// A connection that sees the moment of a piece.
    pub(super) fn connection_of(&self, piece: &Piece) -> Result<(FileId, Connection)> {
        let moment = self.moments.kept().1.get(&piece.number).map(Arc::clone);
        let gone = || {
            let message = "the state that its readers share is gone; run the query again";
            self.failure(ErrorKind::Changed, message)
        };
        let moment = moment.ok_or_else(gone)?;
        let free = moment.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(connection) = free {
            return Ok((moment.file.clone(), connection));
        }
        // The plan is run once more, as that of a recursive query is.
        let connection = self.begun(&moment.file, BUSY_TIMEOUT)?;
        let watch = moment.watch.lock().unwrap_or_else(PoisonError::into_inner);
        match self.version(&watch)? == moment.version && self.file_id()? == moment.file {
            true => Ok((moment.file.clone(), connection)),
            false => Err(gone()),
        }
    }

    /// A connection in a transaction that has begun to read.
    fn begun(&self, file: &FileId, patience: Duration) -> Result<Connection> {
        let connection = self.connection(file)?;
        self.waits(&connection, patience)?;
        let begun = connection.execute_batch("BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1");
        begun.map_err(|failure| self.error(failure))?;
        self.waits(&connection, BUSY_TIMEOUT)?;
        Ok(connection)
    }

    /// Sets how long a connection waits for locks.
    fn waits(&self, connection: &Connection, patience: Duration) -> Result<()> {
        connection.busy_timeout(patience).map_err(|failure| self.error(failure))
    }

    fn version(&self, watch: &Connection) -> Result<i64, Error> {
        let version = watch.query_row("PRAGMA data_version", [], |row| row.get(0));
        version.map_err(|failure| self.error(failure))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, collect};
    use rusqlite::params;

    use super::*;
    use crate::testing::{depots, session, table};
    use crate::{Depots, ErrorKind};

    const ROWS: i64 = 240_000;

    fn large(folder: &Path, journal: &str) -> (Arc<Depots>, Connection) {
        let connection = Connection::open(folder.join("crm.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(20)).unwrap();
        connection
            .execute_batch(&format!(
                "PRAGMA journal_mode = {journal}; PRAGMA synchronous = OFF; CREATE TABLE t (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL, note TEXT); \
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) INSERT INTO t SELECT i, i % 1000, 'note' FROM n"
            ))
            .unwrap();
        let manifest =
            "name: crm\nversion: v2alpha\ntype: depot\ndepot:\n  type: sqlite\n  sqlite:\n    path: crm.db\n";
        (depots(folder, manifest), connection)
    }

    async fn plan(depots: &Arc<Depots>) -> Arc<dyn ExecutionPlan> {
        let table = table(depots, "crm", "main", "t").await;
        table.scan(&session(depots), None, &[], None).await.unwrap()
    }

    /// How many rows there are, and the sum of their amounts.
    async fn sums(depots: &Arc<Depots>, plan: &Arc<dyn ExecutionPlan>) -> datafusion::error::Result<(usize, i64)> {
        let mut found = (0, 0);
        for batch in collect(Arc::clone(plan), session(depots).task_ctx()).await? {
            let amounts = batch.column_by_name("amount").unwrap().as_primitive::<Int64Type>();
            found.0 += batch.num_rows();
            found.1 += amounts.iter().flatten().sum::<i64>();
        }
        Ok(found)
    }

    /// Somebody moves amounts between the ends of the table all the time.
    #[tokio::test(flavor = "multi_thread")]
    async fn readers_of_a_table_see_one_moment() {
        for journal in ["WAL", "DELETE"] {
            let folder = tempfile::tempdir().unwrap();
            let (depots, mut connection) = large(folder.path(), journal);
            let ended = Arc::new(AtomicBool::new(false));
            let over = Arc::clone(&ended);
            let moving = std::thread::spawn(move || {
                let mut moved = 0;
                while !over.load(Ordering::Relaxed) {
                    let transaction = connection.transaction().unwrap();
                    for (id, more) in [(1 + moved % 1000, -7), (ROWS - moved % 1000, 7)] {
                        let sql = "UPDATE t SET amount = amount + ?2 WHERE id = ?1";
                        transaction.execute(sql, params![id, more]).unwrap();
                    }
                    transaction.commit().unwrap();
                    moved += 1;
                    // Without a write-ahead log nobody would ever read otherwise.
                    std::thread::sleep(Duration::from_millis(2));
                }
                moved
            });
            for _ in 0..5 {
                let plan = plan(&depots).await;
                let found = sums(&depots, &plan).await.unwrap();
                assert_eq!(found, (ROWS as usize, ROWS / 1000 * 499_500), "{journal}");
            }
            ended.store(true, Ordering::Relaxed);
            assert!(moving.join().unwrap() > 0, "{journal}");
        }
    }

    /// A plan that is run again reads the same state, or says that it is gone.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_state_that_is_gone_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (depots, connection) = large(folder.path(), "WAL");
        let plan = plan(&depots).await;
        let all = (ROWS as usize, ROWS / 1000 * 499_500);
        assert_eq!(sums(&depots, &plan).await.unwrap(), all);
        assert_eq!(sums(&depots, &plan).await.unwrap(), all);
        connection.execute("UPDATE t SET amount = 0 WHERE id = 5", []).unwrap();
        let partitions = plan.output_partitioning().partition_count();
        let again = sums(&depots, &plan).await;
        // One connection reads what there is now.
        if partitions == 1 {
            assert_eq!(again.unwrap(), (all.0, all.1 - 5));
            return;
        }
        let failure = again.unwrap_err();
        let error = Error::find(&failure).unwrap_or_else(|| panic!("{failure}"));
        assert_eq!(error.kind, ErrorKind::Changed, "{error}");
    }

    /// Nobody waits for a plan that has been read, or is there no more.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_read_keeps_nobody_from_writing() {
        let folder = tempfile::tempdir().unwrap();
        let (depots, connection) = large(folder.path(), "DELETE");
        connection.busy_timeout(Duration::ZERO).unwrap();
        let write = || connection.execute("UPDATE t SET note = 'x' WHERE id = 5", []);
        let read = plan(&depots).await;
        sums(&depots, &read).await.unwrap();
        assert_eq!(write(), Ok(1));
        drop(read);
        let unread = plan(&depots).await;
        if unread.output_partitioning().partition_count() > 1 {
            assert!(write().is_err(), "its readers have begun");
        }
        drop(unread);
        assert_eq!(write(), Ok(1));
    }

    #[test]
    fn ranges_have_every_rowid_once() {
        for (first, last) in [(1, 99_999), (0, 0), (5, 4), (-1, 1), (i64::MAX - 5, i64::MAX)] {
            assert_eq!(divided(first, last, 8), [Split::Whole], "{first} {last}");
        }
        assert_eq!(divided(1, 1_000_000, 1), [Split::Whole]);
        for (first, last, readers, expected) in [
            (1, 100_001, 8, 2),
            (1, 1_000_000, 3, 3),
            (-500_000, 500_000, 4, 4),
            (i64::MIN, i64::MAX, 5, 5),
        ] {
            let ranges = divided(first, last, readers);
            assert_eq!(ranges.len(), expected);
            let whole = Split::Range { from: 0, to: u64::MAX };
            assert_eq!(crate::scan::joined(&ranges), [whole], "{ranges:?}");
            let conditions: Vec<String> = (ranges.iter())
                .map(|range| Piece::of(range, Some("7/oid")).unwrap().condition("t"))
                .collect();
            assert!(conditions[0].starts_with("t.oid < "), "{conditions:?}");
            assert!(conditions[expected - 1].starts_with("t.oid >= ") && !conditions[expected - 1].contains('<'));
        }
        let first = Piece::of(&divided(1, 100_001, 2)[0], Some("1/rowid")).unwrap();
        assert_eq!(first.condition("t"), "t.rowid < 50001");
    }
}

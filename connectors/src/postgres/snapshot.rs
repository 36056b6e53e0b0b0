//! A state of the database that several connections read at the same time.
//!
//! In: a table. Out: the name of an exported snapshot, and the open transaction that keeps it: others import it while that transaction lasts. The
//! transaction locks the table as a reader does, so that nobody empties it between two of them, which a snapshot would not hide. Nor would it hide that a
//! table becomes a partition of it meanwhile, so that the name also says which tables its rows lie in.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use super::catalog::Locked;
use super::connection::Database;
use super::failure::is_lost;
use super::read::Running;
use super::session::Mode;
use super::sql;
use crate::Result;
use crate::remote_table::{Snapshot, Snapshots};
use crate::scan_exec::Held;

/// The transaction does nothing while others read.
const KEEP: &str = "SET LOCAL idle_in_transaction_session_timeout = 0";

/// The table is locked already, as readers lock it. Who has to wait all the same stands behind somebody who waits for that lock to go, to change the table:
/// they would wait for each other.
const HURRY: &str = "SET LOCAL lock_timeout = '10ms'";
const EXPORT: &str = "SELECT pg_catalog.pg_export_snapshot()";

/// Whether somebody may see which transactions last. Without that no reader knows that the lock on its table is still there.
const SEES_KEEPERS: &str = " WHERE EXISTS (SELECT FROM pg_catalog.pg_locks AS l WHERE l.locktype OPERATOR(pg_catalog.=) 'virtualxid' AND l.granted \
     AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())";

/// The name of a snapshot as it stands in a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named<'a> {
    snapshot: &'a str,
    /// The transaction that keeps it: the number of its process and its own, as the name begins.
    keeper: (u32, u32),
    /// The numbers of the tables that the rows lie in, where these are more than the table itself.
    pub(super) parts: Option<&'a str>,
}

impl<'a> Named<'a> {
    /// `None` when it is no name.
    pub(super) fn of(name: &'a str) -> Option<Named<'a>> {
        let (snapshot, parts) = match name.split_once('/') {
            Some((snapshot, parts)) => (snapshot, Some(parts)),
            None => (name, None),
        };
        let made_of = |text: &str, also: char| {
            !text.is_empty()
                && text
                    .chars()
                    .all(|letter| letter.is_ascii_alphanumeric() || letter == also)
        };
        let is_number = |number: &str| number.parse::<u32>().is_ok();
        let is_name = made_of(snapshot, '-') && parts.is_none_or(|parts| parts.split(',').all(is_number));
        let mut numbers = snapshot.split('-').map(|number| u32::from_str_radix(number, 16));
        let keeper = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        is_name.then_some(Named {
            snapshot,
            keeper,
            parts,
        })
    }

    /// The text that begins a transaction which sees what the snapshot sees.
    pub(super) fn begin(self, database: &Database) -> String {
        let import = format!("SET TRANSACTION SNAPSHOT '{}'", self.snapshot);
        format!("{}; {HURRY}", database.session().begin(Mode::ReadShared, &import))
    }

    /// Asks for a row that is there as long as the transaction lasts which keeps the snapshot and the lock on the table. A transaction gives
    /// this up before any other lock.
    pub(super) fn is_kept(self) -> String {
        let (process, number) = self.keeper;
        format!(
            "SELECT FROM pg_catalog.pg_locks AS l WHERE l.locktype OPERATOR(pg_catalog.=) 'virtualxid' AND l.granted \
             AND l.virtualxid OPERATOR(pg_catalog.=) '{process}/{number}' LIMIT 1"
        )
    }
}

/// Makes snapshots for the readers of one table.
pub(super) struct Exporter {
    database: Arc<Database>,
    /// Locks the table. This comes before the snapshot, which else might be of a moment before a TRUNCATE whose end the lock waits for.
    lock: String,
    export: String,
}

impl Exporter {
    pub(super) fn new(database: &Arc<Database>, collection: &str, dataset: &str, locked: Locked) -> Option<Exporter> {
        let (schema, table) = (sql::identifier(collection)?, sql::identifier(dataset)?);
        let name = format!("{schema}.{table}");
        let lock = match locked {
            Locked::Alone => format!("LOCK TABLE ONLY {name} IN ACCESS SHARE MODE"),
            Locked::WithParts => format!("LOCK TABLE {name} IN ACCESS SHARE MODE"),
            Locked::ByReading => format!("SELECT FROM ONLY {name} LIMIT 0"),
        };
        let export = match locked {
            Locked::ByReading => format!("{EXPORT}{SEES_KEEPERS}"),
            // A table that has no parts may get some meanwhile.
            Locked::Alone | Locked::WithParts => format!(
                "{EXPORT} OPERATOR(pg_catalog.||) '/' OPERATOR(pg_catalog.||) ({}){SEES_KEEPERS}",
                parts(&name)?
            ),
        };
        Some(Exporter {
            database: Arc::clone(database),
            lock,
            export,
        })
    }
}

/// Asks for the numbers of the tables that the rows of a table lie in, as the snapshot sees them.
fn parts(table: &str) -> Option<String> {
    let table = sql::quoted(table)?;
    Some(format!(
        "WITH RECURSIVE part AS (SELECT {table}::pg_catalog.regclass::pg_catalog.oid AS o UNION \
         SELECT i.inhrelid FROM part AS p JOIN pg_catalog.pg_inherits AS i ON i.inhparent OPERATOR(pg_catalog.=) p.o) \
         SELECT pg_catalog.string_agg(o::pg_catalog.text, ',') FROM part"
    ))
}

#[async_trait]
impl Snapshots for Exporter {
    async fn take(&self) -> Result<Option<Snapshot>> {
        loop {
            // Who waits here for a connection might wait for readers that wait for it.
            let Some(connection) = self.database.spare_connection().await else {
                return Ok(None);
            };
            let is_used = connection.is_used;
            let mut running = Running::new(&self.database, connection);
            let Some(client) = running.client() else {
                return Ok(None);
            };
            let begin = self.database.session().begin(Mode::ReadShared, KEEP);
            let begin = format!("{begin}; {}", self.lock);
            let sending = async { futures::join!(client.batch_execute(&begin), client.simple_query(&self.export)) };
            let (begun, exported) = running.drive(sending).await;
            match begun.and(exported) {
                Ok(messages) => {
                    let name = messages.iter().find_map(|message| match message {
                        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                        _ => None,
                    });
                    // What is no name that readers understand is of no use to them.
                    let name = name.filter(|name| Named::of(name).is_some());
                    let held = Arc::new(Transaction(Mutex::new(Some(running))));
                    return Ok(name.map(|name| Snapshot { name, held }));
                }
                Err(failure) if is_lost(&failure) => {
                    drop(running);
                    if !is_used {
                        return Err(self.database.error(&failure));
                    }
                }
                Err(failure) if failure.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                    running.end();
                    return Err(self.database.error(&failure));
                }
                // Something in between does not let transactions share what they see: the table is read by one reader, which says what is wrong
                // with it, if anything is.
                Err(failure) => {
                    running.end();
                    tracing::debug!(depot = self.database.depot(), code = ?failure.code(), "no snapshot can be exported");
                    return Ok(None);
                }
            }
        }
    }
}

/// A transaction that stays open as long as somebody holds this.
struct Transaction(Mutex<Option<Running>>);

impl Held for Transaction {}

impl Drop for Transaction {
    fn drop(&mut self) {
        let running = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            running.end();
        }
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transaction")
    }
}

/// Whether an answer has a row.
pub(super) fn has_row(answer: &[SimpleQueryMessage]) -> bool {
    (answer.iter()).any(|message| matches!(message, SimpleQueryMessage::Row(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_snapshots_get_into_a_statement() {
        let named = Named::of("00000003-0000001B-1").unwrap();
        assert_eq!((named.snapshot, named.parts), ("00000003-0000001B-1", None));
        assert!(named.is_kept().contains("'3/27'"), "{}", named.is_kept());
        let named = Named::of("00000003-0000001B-1/16384,4294967295").unwrap();
        assert_eq!(
            (named.snapshot, named.parts),
            ("00000003-0000001B-1", Some("16384,4294967295"))
        );
        for other in [
            "", "1", "1-", "g-1", "a'b", "a b", "a;b", "a\\", "/1", "a/", "a/1,", "a/x", "a/1}'", "a/1/2",
        ] {
            assert_eq!(Named::of(other), None, "{other}");
        }
    }
}

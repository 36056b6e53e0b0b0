//! A state of the database that several connections read at the same time.
//!
//! In: a table. Out: the name of an exported snapshot, and the open transaction that keeps it: others import it while that transaction lasts. The
//! transaction locks the table as a reader does, so that nobody empties it between two of them, which a snapshot would not hide.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use super::connection::{Database, is_lost};
use super::read::Running;
use super::sql;
use crate::Result;
use crate::remote_table::{Snapshot, Snapshots};
use crate::scan_exec::Held;

const BEGIN: &str = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The transaction does nothing while others read.
const KEEP: &str = "SET LOCAL idle_in_transaction_session_timeout = 0";

/// The table is locked already, as readers lock it. Who has to wait all the same stands behind somebody who waits for that lock to go, to change the table:
/// they would wait for each other.
const HURRY: &str = "SET LOCAL lock_timeout = '1s'";
const EXPORT: &str = "SELECT pg_catalog.pg_export_snapshot()";

/// The text that begins a transaction which sees what the snapshot sees; `None` when that is no name of one.
pub(super) fn begin_with(snapshot: &str) -> Option<String> {
    let is_name = !snapshot.is_empty()
        && snapshot
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
    is_name.then(|| format!("{BEGIN}; SET TRANSACTION SNAPSHOT '{snapshot}'; {HURRY}"))
}

/// Makes snapshots for the readers of one table.
pub(super) struct Exporter {
    database: Arc<Database>,
    /// What begins the transaction. The lock comes before the snapshot, which else might be of a moment before a TRUNCATE whose end the lock waits for.
    begin: String,
}

impl Exporter {
    pub(super) fn new(database: &Arc<Database>, collection: &str, dataset: &str) -> Option<Exporter> {
        let (schema, table) = (sql::identifier(collection)?, sql::identifier(dataset)?);
        Some(Exporter {
            database: Arc::clone(database),
            begin: format!("{BEGIN}; {KEEP}; LOCK TABLE ONLY {schema}.{table} IN ACCESS SHARE MODE"),
        })
    }
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
            let sending = async { futures::join!(client.batch_execute(&self.begin), client.simple_query(EXPORT)) };
            let (begun, exported) = running.drive(sending).await;
            match begun.and(exported) {
                Ok(messages) => {
                    let name = messages.iter().find_map(|message| match message {
                        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                        _ => None,
                    });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_snapshots_get_into_a_statement() {
        assert!(
            begin_with("00000003-0000001B-1")
                .unwrap()
                .contains("SET TRANSACTION SNAPSHOT '00000003-0000001B-1';")
        );
        for other in ["", "a'b", "a b", "a;b", "a\\"] {
            assert_eq!(begin_with(other), None, "{other}");
        }
    }
}

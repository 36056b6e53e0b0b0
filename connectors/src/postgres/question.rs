//! Questions to the catalogue of one PostgreSQL server, and what is kept of its tables.
//!
//! In: a question. Out: its answer, which nobody has to wait for: who leaves early has the server stop. What is kept of a table is used as long as its state is
//! the same, which every question about it asks for first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::catalog::{self, Table};
use super::connection::{Connection, Database};
use super::failure::is_lost;
use super::session::Again;
use crate::slots::{Purpose, given_up};
use crate::{ErrorKind, Result};

/// How long the catalogue may take to answer, which is milliseconds unless the server is gone.
const CATALOG_TIMEOUT: Duration = Duration::from_secs(60);

/// Tables that are remembered.
const MOST_TABLES: usize = 4096;

/// How old what is remembered of a table's values may be: that there are newer figures is not seen in its state.
const MOST_AGE: Duration = Duration::from_secs(300);

/// The tables of a database, as they were last seen.
#[derive(Default)]
pub(super) struct Tables(Mutex<HashMap<(String, String), Known>>);

impl Tables {
    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A table as it was last seen.
struct Known {
    table: Arc<Table>,
    /// What the catalogue said of its state just before, if that says it all.
    state: Option<String>,
    at: Instant,
}

/// What stands for a parameter of a question.
pub(super) type Value<'a> = (&'a (dyn ToSql + Sync), Type);

/// A question to the catalogue.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) sql: &'a str,
    /// Whether it is asked so often that connections keep it. Only one is.
    pub(super) is_kept: bool,
}

/// Somebody who waits for an answer. When nobody does any more, the server is told to stop.
struct Asking<'a> {
    database: &'a Database,
    connection: Option<Connection>,
}

impl Asking<'_> {
    /// Asks with some values, and others: all are on their way before the first is answered.
    async fn ask(
        &mut self,
        question: Question<'_>,
        values: &[&[Value<'_>]],
    ) -> Result<Vec<Vec<Row>>, tokio_postgres::Error> {
        let Some(Connection {
            client, driver, asked, ..
        }) = &mut self.connection
        else {
            return Ok(Vec::new());
        };
        if !question.is_kept {
            let answers = values.iter().map(|values| client.query_typed(question.sql, values));
            return driver.drive(try_join_all(answers)).await;
        }
        let asked = match asked {
            Some(asked) => asked,
            None => {
                let types = values.iter().take(1).flat_map(|values| values.iter());
                let types: Vec<Type> = types.map(|(_, of)| of.clone()).collect();
                asked.insert(driver.drive(client.prepare_typed(question.sql, &types)).await?)
            }
        };
        let values: Vec<Vec<&(dyn ToSql + Sync)>> = (values.iter())
            .map(|values| values.iter().map(|(value, _)| *value).collect())
            .collect();
        let answers = values.iter().map(|values| client.query(&*asked, values));
        driver.drive(try_join_all(answers)).await
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.database.cancel(connection);
        }
    }
}

impl Database {
    /// Asks the catalogue. Each question is a transaction of its own, which depends on nothing that a session is set to.
    pub(super) async fn query(self: &Arc<Self>, object: &str, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>> {
        let question = Question { sql, is_kept: false };
        let mut answers = self.ask(object, question, &[values]).await?;
        Ok(answers.pop().unwrap_or_default())
    }

    /// The same, with a question that may be kept, for some values and others. There is an answer for each of them.
    pub(super) async fn ask(
        self: &Arc<Self>,
        object: &str,
        question: Question<'_>,
        values: &[&[Value<'_>]],
    ) -> Result<Vec<Vec<Row>>> {
        let mut again = Again::default();
        // What one session keeps, another does not know.
        let is_kept = question.is_kept && !self.session().is_shared();
        let question = Question { is_kept, ..question };
        loop {
            let connection = self.connection_for(Purpose::Ask).await?;
            let is_used = connection.is_used;
            let mut asking = Asking {
                database: self,
                connection: Some(connection),
            };
            let answer = tokio::select! {
                answer = timeout(CATALOG_TIMEOUT, asking.ask(question, values)) => Some(answer),
                () = self.given_up() => None,
            };
            let Some(answer) = answer else {
                return Err(given_up(self.depot()).about(object));
            };
            match answer {
                Ok(Ok(answers)) => {
                    if let Some(connection) = asking.connection.take() {
                        self.park(connection, false);
                    }
                    return Ok(answers);
                }
                Ok(Err(failure)) => {
                    // It was answered, and nobody waits with a connection for the next one.
                    if let Some(connection) = asking.connection.take() {
                        connection.close().await;
                    }
                    let was_closed = is_used && is_lost(&failure);
                    if !was_closed && !again.tries(&failure).await {
                        return Err(self.error(&failure).about(object));
                    }
                }
                Err(_) => {
                    let message = format!("the server did not answer within {} seconds", CATALOG_TIMEOUT.as_secs());
                    return Err(self.failure(ErrorKind::Unreachable, message).about(object));
                }
            }
        }
    }

    /// A table as the catalogue has it now. It is asked for everything only when something may have changed.
    pub(super) async fn table(self: &Arc<Self>, schema: &str, name: &str) -> Result<Option<Arc<Table>>> {
        let key = (schema.to_owned(), name.to_owned());
        // Asked first, so that it is never newer than what is kept with it.
        let state = catalog::state(self, schema, name).await?;
        if let Some((table, seen)) = self.seen_table(schema, name)
            && Some(seen) == state
        {
            return Ok(Some(table));
        }
        let found = catalog::table(self, schema, name).await?.map(Arc::new);
        let mut tables = self.tables.lock();
        match &found {
            Some(table) => {
                if tables.len() >= MOST_TABLES {
                    tables.clear();
                }
                let seen = Known {
                    table: Arc::clone(table),
                    state,
                    at: Instant::now(),
                };
                tables.insert(key, seen);
            }
            None => {
                tables.remove(&key);
            }
        }
        Ok(found)
    }

    /// A table as it was last seen, and the state it had then; `None` where that is long ago, or its state says too little.
    pub(super) fn seen_table(&self, schema: &str, name: &str) -> Option<(Arc<Table>, String)> {
        let key = (schema.to_owned(), name.to_owned());
        let tables = self.tables.lock();
        let seen = tables.get(&key).filter(|seen| seen.at.elapsed() < MOST_AGE)?;
        Some((Arc::clone(&seen.table), seen.state.clone()?))
    }

    /// A table as it was last seen here.
    pub(super) fn known_table(&self, schema: &str, name: &str) -> Option<Arc<Table>> {
        let key = (schema.to_owned(), name.to_owned());
        self.tables.lock().get(&key).map(|seen| Arc::clone(&seen.table))
    }
}

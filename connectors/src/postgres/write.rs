//! Writing to PostgreSQL.
//!
//! In: batches, or rows of a table that are to be changed. Out: one transaction each, by `COPY`. What is dropped before its end is
//! cancelled and its connection closed, which rolls it back. Changed rows are found by their place (`tableoid` and `ctid`), which stays
//! theirs because the table is locked against other writers, not against readers, from the beginning of the transaction on.

use std::pin::pin;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use futures::{SinkExt, StreamExt};
use minerva_resources::Address;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use super::connection::Database;
use super::failure::is_lost;
use super::read::Running;
use super::session::Mode;
use super::{PostgresSource, encode, sql};
use crate::writer::{named_twice, stored_as};
use crate::{Change, Error, ErrorKind, ROW_ID, RemoteTable, Result, Source, Writer};

/// What is said of a server on which no transaction may write.
const READ_ONLY: &str = "the server takes no writes: it is a standby, or set to be read-only";

/// Where the rows that change lie meanwhile.
const ROWS: &str = "pg_temp.minerva_rows";

#[async_trait]
impl Writer for PostgresSource {
    fn stored(&self, columns: &Schema) -> Result<SchemaRef> {
        let error = |message: String| Error::new(self.depot(), ErrorKind::Unsupported, message);
        if let Some(name) = named_twice(columns, |left, right| left == right) {
            return Err(error(format!(
                "column `{name}` is named twice; give one of them another name"
            )));
        }
        // A longer name is cut by PostgreSQL, and would not be found again.
        let is_name = |name: &str| !name.is_empty() && name.len() <= 63 && !name.contains('\0');
        if let Some(field) = columns.fields().iter().find(|field| !is_name(field.name())) {
            let name = field.name().escape_debug();
            return Err(error(format!(
                "PostgreSQL has no columns of the name `{name}`: names have 1 to 63 bytes and no NUL"
            )));
        }
        let refused = |field: &Field| {
            let (name, found) = (field.name(), field.data_type());
            error(format!(
                "column `{name}` has type {found}, which PostgreSQL cannot hold; cast it to a type of the table in \
                 docs/depots/postgresql.md, such as VARCHAR"
            ))
        };
        stored_as(columns, refused, encode::stored)
    }

    async fn create(
        &self,
        collection: &str,
        dataset: &str,
        rows: SendableRecordBatchStream,
    ) -> datafusion::error::Result<u64> {
        let about = format!("{collection}.{dataset}");
        let schema = rows.schema();
        let create = || {
            let column = |field: &Arc<Field>| {
                let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
                let (name, declared) = (sql::identifier(field.name())?, encode::declared(field.data_type())?);
                Some(format!("{name} {declared}{not_null}"))
            };
            let columns: Option<Vec<String>> = schema.fields().iter().map(column).collect();
            let table = table_name(collection, dataset).filter(|_| dataset.len() <= 63 && !dataset.is_empty())?;
            Some(format!("CREATE TABLE {table} ({})", columns?.join(", ")))
        };
        let error = |message: &str| self.writing.failure(ErrorKind::Unsupported, message).about(&about);
        let create = create().ok_or_else(|| error("PostgreSQL has no tables of such a name"))?;
        let mut transaction = Transaction::begin(&self.writing, &about).await?;
        transaction.run(&create).await?;
        let count = transaction.copy(&copy(collection, dataset, &schema), rows).await?;
        transaction.commit().await?;
        Ok(count)
    }

    async fn append(
        &self,
        collection: &str,
        dataset: &str,
        rows: SendableRecordBatchStream,
    ) -> datafusion::error::Result<u64> {
        let about = format!("{collection}.{dataset}");
        // Asked before any of the rows is asked for: with few connections it is the same one that reads them.
        if self.database.table(collection, dataset).await?.is_none() {
            let message = "there is no table of this name";
            return Err(self.writing.failure(ErrorKind::NotFound, message).about(about).into());
        }
        let mut transaction = Transaction::begin(&self.writing, &about).await?;
        let copy = copy(collection, dataset, &rows.schema());
        let count = transaction.copy(&copy, rows).await?;
        transaction.commit().await?;
        Ok(count)
    }

    fn expect_room_to_read(&self) -> Result<()> {
        if self.writing.settings().max_connections > 1 {
            return Ok(());
        }
        let message = "`maxConnections` is 1, and to read rows of the depot that are written to it another connection is needed; set it to 2 or more";
        Err(self.writing.failure(ErrorKind::Unsupported, message))
    }

    async fn remove(&self, collection: &str, dataset: &str) -> Result<bool> {
        let about = format!("{collection}.{dataset}");
        let Some(table) = self.database.table(collection, dataset).await? else {
            return Ok(false);
        };
        if !table.has_rows_of_its_own {
            let message = "it is a view or a foreign table, which is not removed";
            return Err(self.writing.failure(ErrorKind::Unsupported, message).about(about));
        }
        let Some(name) = table_name(collection, dataset) else {
            return Ok(false);
        };
        let mut transaction = Transaction::begin(&self.writing, &about).await?;
        transaction.run(&format!("DROP TABLE {name}")).await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn change(&self, collection: &str, dataset: &str) -> Result<Box<dyn Change>> {
        let about = format!("{collection}.{dataset}");
        let error = |kind, message: &str| self.writing.failure(kind, message).about(&about);
        let name = table_name(collection, dataset);
        let missing = || error(ErrorKind::NotFound, "there is no table of this name");
        let name = name.ok_or_else(missing)?;
        // Before it is locked: who may not read it at all is told so, and a view cannot be locked.
        let found = self.database.table(collection, dataset).await?.ok_or_else(missing)?;
        if !found.has_rows_of_its_own {
            let message = "its rows have no identity: views, materialised views and foreign tables are not changed";
            return Err(error(ErrorKind::Unsupported, message));
        }
        if self.writing.settings().max_connections == 1 {
            let message = "`maxConnections` is 1, and to find the rows that change another connection is needed; set it to 2 or more";
            return Err(error(ErrorKind::Unsupported, message));
        }
        let mut transaction = Transaction::begin(&self.writing, &about).await?;
        transaction
            .run(&format!("LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE"))
            .await?;
        let found = self.database.table(collection, dataset).await?.ok_or_else(missing)?;
        let mut fields: Vec<Field> = found
            .schema
            .fields()
            .iter()
            .map(|field| field.as_ref().clone())
            .collect();
        fields.push(Field::new(ROW_ID, DataType::Utf8View, false));
        let address = Address::new(self.depot(), collection, dataset);
        let table = RemoteTable::new(address, Arc::new(Schema::new(fields)))
            .with_filters(move |filter| sql::accepts(filter, &found));
        Ok(Box::new(PostgresChange {
            table: Arc::new(table),
            name,
            transaction,
        }))
    }
}

/// A transaction that has a table for itself.
#[derive(Debug)]
struct PostgresChange {
    table: Arc<RemoteTable>,
    name: String,
    transaction: Transaction,
}

#[async_trait]
impl Change for PostgresChange {
    fn table(&self) -> Arc<dyn TableProvider> {
        Arc::clone(&self.table) as Arc<dyn TableProvider>
    }

    async fn delete(self: Box<Self>, rows: Vec<RecordBatch>) -> Result<u64> {
        let PostgresChange {
            name, mut transaction, ..
        } = *self;
        transaction
            .run("CREATE TEMPORARY TABLE minerva_rows (o pg_catalog.oid, c pg_catalog.tid) ON COMMIT DROP")
            .await?;
        transaction.copy_places(&rows).await?;
        let delete = format!("DELETE FROM {name} AS t USING {ROWS} AS r WHERE t.tableoid = r.o AND t.ctid = r.c");
        transaction.apply(&delete, &rows).await
    }

    async fn update(self: Box<Self>, rows: Vec<RecordBatch>) -> Result<u64> {
        let PostgresChange {
            name, mut transaction, ..
        } = *self;
        let Some(first) = rows.first() else { return Ok(0) };
        let schema = first.schema();
        let columns = schema.fields().iter().filter(|field| field.name() != ROW_ID);
        let columns: Option<Vec<String>> = columns.map(|field| sql::identifier(field.name())).collect();
        let columns =
            columns.ok_or_else(|| transaction.error(ErrorKind::Internal, "a column has no name for PostgreSQL"))?;
        let numbered = |form: &dyn Fn(usize, &String) -> String| {
            let all: Vec<String> = columns
                .iter()
                .enumerate()
                .map(|(at, column)| form(at, column))
                .collect();
            all.join(", ")
        };
        // Its columns have the very types of the table's, whatever these are.
        let types = numbered(&|at, column| format!("t.{column} AS v{at}"));
        transaction
            .run(&format!(
                "CREATE TEMPORARY TABLE minerva_rows ON COMMIT DROP AS \
                 SELECT t.tableoid AS o, t.ctid AS c, {types} FROM {name} AS t WHERE false"
            ))
            .await?;
        transaction.copy_places(&rows).await?;
        let set = numbered(&|at, column| format!("{column} = r.v{at}"));
        let update = format!("UPDATE {name} AS t SET {set} FROM {ROWS} AS r WHERE t.tableoid = r.o AND t.ctid = r.c");
        transaction.apply(&update, &rows).await
    }
}

/// A transaction that is open. Dropped before its end, it is cancelled, and its connection is closed.
struct Transaction {
    database: Arc<Database>,
    about: String,
    running: Running,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("database", &self.database)
            .field("about", &self.about)
            .finish_non_exhaustive()
    }
}

impl Transaction {
    async fn begin(database: &Arc<Database>, about: &str) -> Result<Transaction> {
        loop {
            let connection = database.writing_connection().await?;
            let is_used = connection.is_used;
            let mut transaction = Transaction {
                database: Arc::clone(database),
                about: about.to_owned(),
                running: Running::new(database, connection),
            };
            match transaction.ask(&database.session().begin(Mode::Write, "")).await {
                Ok(_) => return Ok(transaction),
                // Nothing was written yet, and the next one may be alive.
                Err(failure) if is_used && is_lost(&failure) => {}
                Err(failure) if failure.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED) => {
                    let message = format!("{READ_ONLY}; nothing was written (0A000)");
                    return Err(transaction.error(ErrorKind::Unsupported, &message));
                }
                Err(failure) => return Err(transaction.failed(&failure)),
            }
        }
    }

    async fn ask(&mut self, sql: &str) -> Result<u64, tokio_postgres::Error> {
        let Some(client) = self.running.client() else {
            return Ok(0);
        };
        let asked = async move { client.simple_query(sql).await };
        let messages = self.running.drive(asked).await?;
        let count = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::CommandComplete(count) => Some(*count),
            _ => None,
        });
        Ok(count.unwrap_or_default())
    }

    async fn run(&mut self, sql: &str) -> Result<u64> {
        match self.ask(sql).await {
            Ok(count) => Ok(count),
            Err(failure) => Err(self.failed(&failure)),
        }
    }

    /// Sends rows, while they are made, and returns how many were taken.
    async fn copy(
        &mut self,
        copy: &Option<String>,
        mut rows: SendableRecordBatchStream,
    ) -> datafusion::error::Result<u64> {
        let copy = copy
            .as_deref()
            .ok_or_else(|| self.error(ErrorKind::Unsupported, "PostgreSQL has no such names"))?;
        let client = self.running.client();
        let client = client.ok_or_else(|| self.error(ErrorKind::Internal, "the connection was given away"))?;
        let begun = async { client.copy_in::<_, Bytes>(copy).await };
        let begun = self.running.drive(begun).await;
        let mut sink = pin!(begun.map_err(|failure| self.failed(&failure))?);
        while let Some(batch) = rows.next().await {
            let lines = self.lines(&batch?)?;
            let sent = self.running.drive(sink.send(Bytes::from(lines))).await;
            sent.map_err(|failure| self.failed(&failure))?;
        }
        let finished = self.running.drive(sink.finish()).await;
        Ok(finished.map_err(|failure| self.failed(&failure))?)
    }

    /// Sends where rows lie, and what they become, into the table of rows.
    async fn copy_places(&mut self, rows: &[RecordBatch]) -> Result<()> {
        let copy = format!("COPY {ROWS} FROM STDIN");
        let client = self.running.client();
        let client = client.ok_or_else(|| self.error(ErrorKind::Internal, "the connection was given away"))?;
        let begun = async { client.copy_in::<_, Bytes>(copy.as_str()).await };
        let begun = self.running.drive(begun).await;
        let mut sink = pin!(begun.map_err(|failure| self.failed(&failure))?);
        for batch in rows {
            let lines = self.places(batch)?;
            let sent = self.running.drive(sink.send(Bytes::from(lines))).await;
            sent.map_err(|failure| self.failed(&failure))?;
        }
        let finished = self.running.drive(sink.finish()).await;
        finished.map(drop).map_err(|failure| self.failed(&failure))
    }

    /// Lines of place and values. A place is what `sql.rs` makes of a row: its table, then where it lies there.
    fn places(&self, batch: &RecordBatch) -> Result<String> {
        let broken = || self.error(ErrorKind::Internal, "a row has no place");
        let places = batch.column_by_name(ROW_ID).ok_or_else(broken)?;
        let places = places.as_string_view_opt().ok_or_else(broken)?;
        let others: Vec<usize> = (batch.schema().fields().iter().enumerate())
            .filter(|(_, field)| field.name() != ROW_ID)
            .map(|(at, _)| at)
            .collect();
        let values = batch
            .project(&others)
            .map_err(|failure| self.error(ErrorKind::Internal, &failure.to_string()))?;
        let values = if others.is_empty() {
            String::new()
        } else {
            self.lines(&values)?
        };
        let mut values = values.split('\n');
        let mut lines = String::new();
        for place in places.iter() {
            let (table, row) = place.and_then(|place| place.split_once('(')).ok_or_else(broken)?;
            lines.push_str(&format!("{table}\t({row}"));
            if !others.is_empty() {
                lines.push('\t');
                lines.push_str(values.next().unwrap_or_default());
            }
            lines.push('\n');
        }
        Ok(lines)
    }

    fn lines(&self, batch: &RecordBatch) -> Result<String> {
        encode::lines(batch).map_err(|column| {
            let message =
                format!("a value of column `{column}` is outside what PostgreSQL can hold; nothing was written");
            self.error(ErrorKind::BadValue, &message)
        })
    }

    /// Changes the rows and ends the transaction, if PostgreSQL changed all of them.
    async fn apply(mut self, sql: &str, rows: &[RecordBatch]) -> Result<u64> {
        let changed = self.run(sql).await?;
        let wanted: usize = rows.iter().map(RecordBatch::num_rows).sum();
        if changed != wanted as u64 {
            let message = "a trigger or a row policy of PostgreSQL keeps some of the rows from being changed; nothing was written";
            return Err(self.error(ErrorKind::Constraint, message));
        }
        self.commit().await?;
        Ok(changed)
    }

    async fn commit(mut self) -> Result<()> {
        self.ask("COMMIT").await.map_err(|failure| {
            if !is_lost(&failure) {
                return self.failed(&failure);
            }
            let message = "PostgreSQL's answer to COMMIT was lost, so that the rows may be written or not; look before you write them again";
            self.error(ErrorKind::Uncertain, message)
        })?;
        self.running.end();
        Ok(())
    }

    fn error(&self, kind: ErrorKind, message: &str) -> Error {
        self.database.failure(kind, message).about(&self.about)
    }

    fn failed(&self, failure: &tokio_postgres::Error) -> Error {
        self.database.write_error(failure).about(&self.about)
    }
}

impl Database {
    /// What PostgreSQL reports of a statement that writes. Names of constraints and columns are repeated, its words are not.
    fn write_error(&self, failure: &tokio_postgres::Error) -> Error {
        let Some(found) = failure.as_db_error() else {
            return self.error(failure);
        };
        let code = found.code().code();
        let constraint = found.constraint().map(|name| format!(" `{name}`")).unwrap_or_default();
        let (kind, message) = match (code.get(..2).unwrap_or_default(), code) {
            (_, "23505") => (
                ErrorKind::Constraint,
                format!("the UNIQUE constraint{constraint} does not allow it"),
            ),
            (_, "23503") => (
                ErrorKind::Constraint,
                format!("the FOREIGN KEY constraint{constraint} does not allow it"),
            ),
            (_, "23514") => (
                ErrorKind::Constraint,
                format!("the CHECK constraint{constraint} does not allow it"),
            ),
            (_, "23502") => {
                let column = found.column().unwrap_or_default();
                (ErrorKind::Constraint, format!("column `{column}` does not take NULL"))
            }
            ("23", _) => (
                ErrorKind::Constraint,
                format!("the constraint{constraint} does not allow it"),
            ),
            ("22", _) => (
                ErrorKind::BadValue,
                "a value is none of the type of its column".to_owned(),
            ),
            ("P0", _) => (
                ErrorKind::Constraint,
                "a trigger or function of the database does not allow it".to_owned(),
            ),
            (_, "428C9") => (
                ErrorKind::Unsupported,
                "PostgreSQL generates a column of it by itself".to_owned(),
            ),
            (_, "42501") => (
                ErrorKind::Denied,
                "PostgreSQL does not let the depot's user write it; GRANT the user of the secret with `acl: rw` what the statement needs"
                    .to_owned(),
            ),
            (_, "42P07") => (
                ErrorKind::AlreadyExists,
                "there is a table of this name already".to_owned(),
            ),
            (_, "3F000") => (
                ErrorKind::NotFound,
                "there is no collection, in PostgreSQL a schema, of this name; CREATE SCHEMA makes it there".to_owned(),
            ),
            (_, "2BP01") => (
                ErrorKind::Constraint,
                "other things of the database depend on it".to_owned(),
            ),
            (_, "42809" | "0A000") => (ErrorKind::Unsupported, "it cannot be written to".to_owned()),
            (_, "25006") => (
                ErrorKind::Unsupported,
                READ_ONLY.to_owned(),
            ),
            _ => return self.error(failure),
        };
        self.failure(kind, format!("{message}; nothing was written ({code})"))
    }
}

fn table_name(collection: &str, dataset: &str) -> Option<String> {
    Some(format!(
        "{}.{}",
        sql::identifier(collection)?,
        sql::identifier(dataset)?
    ))
}

fn copy(collection: &str, dataset: &str, schema: &Schema) -> Option<String> {
    let columns: Option<Vec<String>> = schema
        .fields()
        .iter()
        .map(|field| sql::identifier(field.name()))
        .collect();
    let table = table_name(collection, dataset)?;
    Some(format!("COPY {table} ({}) FROM STDIN", columns?.join(", ")))
}

//! Rows of one `COPY` as a stream of batches.
//!
//! In: a piece of a scan. Out: batches, made by a task that stays at most two batches ahead of who reads them, while the server
//! stays at most some socket buffers ahead of the task. Dropping the stream cancels the statement.
//!
//! A binary `COPY` does not say what types it sends. So the statement is described first, in the same transaction: that locks
//! the table, and what is then copied has the types that were described.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::Result as StreamResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use futures::TryStreamExt;
use minerva_resources::Address;
use tokio::sync::mpsc::Sender;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, CopyOutStream, Statement};

use super::catalog::Table;
use super::connection::{Connection, Database};
use super::decode::{Decoder, Fault, LONGEST_ROW};
use super::failure::{is_lost, may_begin_again};
use super::kind::Kind;
use super::session::{Again, Mode};
use super::snapshot::{Named, has_row};
use super::sql;
use crate::slots::given_up;
use crate::{Error, ErrorKind, ROW_ID, RemoteQuery, Result, Scan, Split};

/// Batches that wait for their reader.
const BATCHES_AHEAD: usize = 2;

/// Starts reading a scan.
pub(super) fn read(
    database: &Arc<Database>,
    scan: &Scan,
    split: Split,
    batch_rows: usize,
) -> SendableRecordBatchStream {
    let reader = Reader {
        database: Arc::clone(database),
        scan: scan.clone(),
        split,
        batch_rows,
    };
    let mut batches = RecordBatchReceiverStreamBuilder::new(SchemaRef::clone(&scan.schema), BATCHES_AHEAD);
    let output = batches.tx();
    batches.spawn(async move {
        let ended = tokio::select! {
            ended = reader.run(&output) => ended,
            // Others may have its connection's place soon.
            () = reader.database.given_up() => Err(reader.given_up()),
        };
        match ended {
            Err(error) if !output.is_closed() => Err(error.into()),
            _ => Ok(()),
        }
    });
    batches.build()
}

struct Reader {
    database: Arc<Database>,
    scan: Scan,
    split: Split,
    batch_rows: usize,
}

/// A statement that runs. Dropped before its end, it is cancelled.
pub(super) struct Running {
    database: Arc<Database>,
    connection: Option<Connection>,
}

impl Running {
    pub(super) fn new(database: &Arc<Database>, connection: Connection) -> Running {
        Running {
            database: Arc::clone(database),
            connection: Some(connection),
        }
    }

    /// Whom to ask.
    pub(super) fn client(&self) -> Option<Arc<Client>> {
        self.connection
            .as_ref()
            .map(|connection| Arc::clone(&connection.client))
    }

    /// Waits for what the server sends.
    pub(super) async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        match &mut self.connection {
            Some(connection) => connection.driver.drive(work).await,
            None => work.await,
        }
    }

    pub(super) fn end(mut self) {
        if let Some(connection) = self.connection.take() {
            self.database.keep(connection);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.database.cancel(connection);
        }
    }
}

/// Why a statement did not start.
enum Refusal {
    /// The table is not what it was thought to be.
    Outdated,
    Failed(Stopped),
}

/// Why reading ended before its end.
struct Stopped {
    error: Error,
    /// What trying again may help against.
    failure: Option<tokio_postgres::Error>,
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Stopped {
        Stopped { error, failure: None }
    }
}

/// A statement, and what its columns are read as.
struct Asked {
    select: String,
    kinds: Vec<Kind>,
}

/// What a reader sends before the first row comes.
struct Statements {
    begin: String,
    copy: String,
    /// Asks whether the transaction that keeps the snapshot still lasts.
    is_kept: Option<String>,
}

const MOMENT_LOST: &str = "the transaction that keeps its readers at one moment has ended; run the query again, or set `maxConnections: 4` for the depot, so that \
     one connection reads a table: behind an address that several servers answer to no other way works";

impl Reader {
    async fn run(&self, output: &Sender<StreamResult<RecordBatch>>) -> Result<()> {
        let (mut has_sent, mut again) = (false, Again::default());
        loop {
            let Err(stopped) = self.attempt(output, &mut has_sent).await else {
                return Ok(());
            };
            // Where nobody has seen a row of it nobody sees one twice.
            match stopped.failure.filter(|_| !has_sent) {
                Some(failure) if again.tries(&failure).await => {}
                _ => return Err(stopped.error),
            }
        }
    }

    fn given_up(&self) -> Error {
        self.about(given_up(self.database.depot()))
    }

    async fn attempt(&self, output: &Sender<StreamResult<RecordBatch>>, has_sent: &mut bool) -> Result<(), Stopped> {
        let (kinds, mut running, mut rows) = self.start().await?;
        let begun = Instant::now();
        let mut decoder = Decoder::new(SchemaRef::clone(&self.scan.schema), &kinds, self.batch_rows);
        loop {
            let bytes = match running.drive(rows.try_next()).await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break,
                Err(failure) => {
                    return Err(Stopped {
                        error: self.interrupted(&failure, decoder.rows()),
                        failure: Some(failure).filter(|failure| may_begin_again(failure, begun.elapsed())),
                    });
                }
            };
            decoder.push(&bytes).map_err(|fault| self.fault(fault, &kinds))?;
            drop(bytes);
            while decoder.is_full() {
                *has_sent = true;
                if !self.send(&mut decoder, output).await? {
                    return Ok(());
                }
                decoder.push(&[]).map_err(|fault| self.fault(fault, &kinds))?;
            }
        }
        if !decoder.is_at_end() {
            let message = format!(
                "what PostgreSQL sent ends after {} rows, without an end mark",
                decoder.rows()
            );
            return Err(self.error(ErrorKind::Corrupt, message).into());
        }
        // Whoever reads the last batch may ask for a connection at once.
        running.end();
        *has_sent = true;
        self.send(&mut decoder, output).await?;
        Ok(())
    }

    /// Sends a batch; false when nobody reads any more.
    async fn send(&self, decoder: &mut Decoder, output: &Sender<StreamResult<RecordBatch>>) -> Result<bool> {
        let batch = decoder
            .batch()
            .map_err(|failure| self.error(ErrorKind::Internal, failure.to_string()))?;
        match batch {
            Some(batch) => Ok(output.send(Ok(batch)).await.is_ok()),
            None => Ok(true),
        }
    }

    /// Starts the statement by what is known of the table; if that is not true any more, once again by what is true now.
    async fn start(&self) -> Result<(Vec<Kind>, Running, Pin<Box<CopyOutStream>>), Stopped> {
        if let Some(query) = &self.scan.query {
            let asked = self.asked_by(query)?;
            return match self.begin(&asked).await {
                Ok((running, rows)) => Ok((asked.kinds, running, rows)),
                Err(Refusal::Outdated) => Err(self.changed().into()),
                Err(Refusal::Failed(stopped)) => Err(stopped),
            };
        }
        let Address {
            collection, dataset, ..
        } = &self.scan.address;
        if let Some(table) = self.database.known_table(collection, dataset) {
            match self.begin_with(&table).await {
                Ok(started) => return Ok(started),
                Err(Refusal::Outdated) => {}
                Err(Refusal::Failed(stopped)) => return Err(stopped),
            }
        }
        let table = self.database.table(collection, dataset).await?;
        let table = table.ok_or_else(|| self.changed())?;
        match self.begin_with(&table).await {
            Ok(started) => Ok(started),
            Err(Refusal::Outdated) => Err(self.changed().into()),
            Err(Refusal::Failed(stopped)) => Err(stopped),
        }
    }

    /// What the statement of a pushed-down part of a plan asks for.
    fn asked_by(&self, query: &RemoteQuery) -> Result<Asked> {
        let kinds: Option<Vec<Kind>> = (self.scan.schema.fields().iter())
            .map(|field| Kind::of(field.data_type()))
            .collect();
        let kinds = kinds.ok_or_else(|| {
            self.error(
                ErrorKind::Internal,
                "a statement of it has a column of no type of its own",
            )
        })?;
        let piece = sql::piece(&self.split, self.parts());
        Ok(Asked {
            select: query.text(piece.as_deref(), self.scan.limit),
            kinds,
        })
    }

    /// What the scan asks for of a table.
    fn asked_of(&self, table: &Table) -> Result<Asked, Refusal> {
        let fits = self.scan.schema.fields().iter().all(|field| {
            let found = table.schema.column_with_name(field.name());
            field.name() == ROW_ID
                || found.is_some_and(|(_, found)| {
                    found.data_type() == field.data_type() && (field.is_nullable() || !found.is_nullable())
                })
        });
        let select = sql::select(&self.scan, table, &self.split, self.parts())
            .filter(|_| fits)
            .ok_or(Refusal::Outdated)?;
        for column in sql::columns(&self.scan) {
            if table.columns.get(column).is_some_and(|column| !column.readable) {
                let message = format!("PostgreSQL does not let the depot's user read column `{column}`");
                return Err(self.error(ErrorKind::Denied, message).into());
            }
        }
        let kinds = self.kinds(table)?;
        Ok(Asked { select, kinds })
    }

    async fn begin_with(&self, table: &Table) -> Result<(Vec<Kind>, Running, Pin<Box<CopyOutStream>>), Refusal> {
        let asked = self.asked_of(table)?;
        let (running, rows) = self.begin(&asked).await?;
        Ok((asked.kinds, running, rows))
    }

    async fn begin(&self, asked: &Asked) -> Result<(Running, Pin<Box<CopyOutStream>>), Refusal> {
        let copy = sql::copy(&asked.select);
        let named = match &self.scan.snapshot {
            None => None,
            Some(name) => {
                let named = Named::of(name);
                Some(named.ok_or_else(|| self.error(ErrorKind::Internal, "its snapshot has no name"))?)
            }
        };
        let begin = match named {
            None => self.database.session().begin(Mode::Read, ""),
            Some(named) => named.begin(&self.database),
        };
        let statements = Statements {
            begin,
            copy,
            is_kept: named.map(Named::is_kept),
        };
        loop {
            let connection = self.database.connection().await?;
            let is_used = connection.is_used;
            let mut running = Running::new(&self.database, connection);
            match self.execute(&mut running, &statements, asked).await {
                Ok(rows) => return Ok((running, rows)),
                Err(Start::Failed(failure)) if is_used && is_lost(&failure) => {
                    // Nothing was read yet, and the next one may be alive.
                }
                Err(Start::Failed(failure)) => {
                    if let Some(error) = self.lost_moment(&failure) {
                        running.end();
                        return Err(error.into());
                    }
                    let error = self.about(self.database.error(&failure));
                    let is_outdated = error.kind == ErrorKind::Changed;
                    if !is_lost(&failure) {
                        running.end();
                    }
                    return Err(if is_outdated {
                        Refusal::Outdated
                    } else {
                        Refusal::Failed(Stopped {
                            error,
                            failure: Some(failure),
                        })
                    });
                }
                // To know the new types the client has left a statement in the session, which behind a pooler somebody else gets: it is closed with it.
                Err(Start::OtherTypes) => return Err(Refusal::Outdated),
                Err(Start::MomentLost) => {
                    running.end();
                    return Err(self.error(ErrorKind::Changed, MOMENT_LOST).into());
                }
            }
        }
    }

    async fn execute(
        &self,
        running: &mut Running,
        statements: &Statements,
        asked: &Asked,
    ) -> Result<Pin<Box<CopyOutStream>>, Start> {
        let Some(Connection { client, driver, .. }) = &mut running.connection else {
            return Err(Start::OtherTypes);
        };
        // All are on their way before the first is answered. Whether the snapshot is still kept is asked when the table is locked.
        let kept = async {
            match &statements.is_kept {
                Some(question) => client.simple_query(question).await.map(|answer| has_row(&answer)),
                None => Ok(true),
            }
        };
        let sending = async {
            futures::join!(
                client.batch_execute(&statements.begin),
                client.prepare(&asked.select),
                client.prepare(&statements.copy),
                kept
            )
        };
        let (begun, described, prepared, kept) = driver.drive(sending).await;
        begun?;
        let described: Statement = described?;
        let prepared: Statement = prepared?;
        if !kept? {
            return Err(Start::MomentLost);
        }
        let sent = described.columns();
        let same = sent.len() == asked.kinds.len()
            && sent
                .iter()
                .zip(&asked.kinds)
                .all(|(sent, kind)| kind.is_sent_as(sent.type_()));
        if !same {
            return Err(Start::OtherTypes);
        }
        Ok(Box::pin(driver.drive(client.copy_out(&prepared)).await?))
    }

    /// What it means to a reader of a shared moment that its transaction does not begin.
    fn lost_moment(&self, failure: &tokio_postgres::Error) -> Option<Error> {
        self.scan.snapshot.as_ref()?;
        let code = failure.code()?;
        // Nothing else in what begins the transaction has a parameter, or names an object but the table.
        if *code == SqlState::INVALID_PARAMETER_VALUE || *code == SqlState::UNDEFINED_OBJECT {
            return Some(self.error(ErrorKind::Changed, MOMENT_LOST));
        }
        (*code == SqlState::LOCK_NOT_AVAILABLE).then(|| {
            let message = "somebody waits to change it, and its readers would wait for them; run the query again";
            self.error(ErrorKind::Changed, message)
        })
    }

    /// The tables that the rows lie in, by the snapshot.
    fn parts(&self) -> Option<&str> {
        Named::of(self.scan.snapshot.as_deref()?)?.parts
    }

    fn kinds(&self, table: &Table) -> Result<Vec<Kind>> {
        let kind = |name: &String| table.columns.get(name).map(|column| column.kind);
        let kinds: Option<Vec<Kind>> = self
            .scan
            .schema
            .fields()
            .iter()
            .map(|field| kind(field.name()))
            .collect();
        kinds.ok_or_else(|| self.changed())
    }

    fn interrupted(&self, failure: &tokio_postgres::Error, rows: u64) -> Error {
        let error = self.database.error(failure);
        let message = format!("{}, after {rows} rows", error.message);
        self.error(error.kind, message)
    }

    fn fault(&self, fault: Fault, kinds: &[Kind]) -> Error {
        let name = |column: usize| {
            let field = self.scan.schema.fields().get(column);
            field.map(|field| field.name().clone()).unwrap_or_default()
        };
        let (column, row, misfit) = match fault {
            Fault::Malformed(why) => {
                return self.error(
                    ErrorKind::Corrupt,
                    format!("what PostgreSQL sent cannot be read: {why}"),
                );
            }
            Fault::TooLong { column, row } => {
                let message = format!(
                    "row {row} of the rows read has more than the {} MiB that are read of one, most of them in column `{}`; leave the column out, \
                     or read the table through a view of the database that cuts it",
                    LONGEST_ROW >> 20,
                    name(column)
                );
                return self.error(ErrorKind::BadValue, message);
            }
            Fault::Value { column, row, misfit } => (column, row, misfit),
        };
        let expected = match kinds.get(column) {
            Some(Kind::One(scalar)) => scalar.describe(),
            Some(Kind::List(scalar)) => format!("a list, each element of it {}", scalar.describe()),
            Some(Kind::Json) | None => "JSON".to_owned(),
        };
        let message = format!(
            "column `{}` holds {} in row {row} of the rows read, where {expected} is expected; correct the value, or read \
             the table through a view of the database that casts it",
            name(column),
            misfit.describe(),
        );
        self.error(ErrorKind::BadValue, message)
    }

    fn changed(&self) -> Error {
        let message = "it changed since the query was planned; run the query again";
        self.error(ErrorKind::Changed, message)
    }

    fn error(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        self.about(self.database.failure(kind, message))
    }

    fn about(&self, error: Error) -> Error {
        if let Some(query) = self.scan.query.as_ref().filter(|query| query.datasets().count() > 1) {
            let names = (query.datasets()).map(|address| format!("{}.{}", address.collection, address.dataset));
            return error.about(names.collect::<Vec<_>>().join("`, `"));
        }
        error.about_dataset(&self.scan.address.collection, &self.scan.address.dataset)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Failed(error.into())
    }
}

/// Why a statement is not running.
enum Start {
    /// It would send other types than were planned with.
    OtherTypes,
    /// The transaction that keeps its snapshot has ended, and with it the lock on the table that hides what others do to it.
    MomentLost,
    Failed(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for Start {
    fn from(failure: tokio_postgres::Error) -> Start {
        Start::Failed(failure)
    }
}

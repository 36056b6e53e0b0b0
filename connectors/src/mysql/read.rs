//! Rows of one statement as a stream of batches.
//!
//! In: a scan. Out: batches, made by a task that stays at most two batches ahead of who reads them, while the server stays at most some socket buffers
//! ahead of the task. Dropping the stream ends the statement.
//!
//! One statement sees one state of an InnoDB table, whoever writes meanwhile. The server describes the columns once more in front of the rows, so what was
//! planned is compared with what is sent.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::Result as StreamResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use minerva_resources::Address;
use tokio::sync::mpsc::Sender;

use super::catalog::Table;
use super::connection::{Connection, Database};
use super::decode::{Decoder, Fault};
use super::failure;
use super::kind::Kind;
use super::sql;
use super::wire::{Client, Failure, Statement};
use crate::slots::given_up;
use crate::{Error, ErrorKind, Result, Scan};

/// Batches that wait for their reader.
const BATCHES_AHEAD: usize = 2;

/// Starts reading a scan.
pub(super) fn read(database: &Arc<Database>, scan: &Scan, batch_rows: usize) -> SendableRecordBatchStream {
    let reader = Reader {
        database: Arc::clone(database),
        scan: scan.clone(),
        batch_rows,
    };
    let mut batches = RecordBatchReceiverStreamBuilder::new(SchemaRef::clone(&scan.schema), BATCHES_AHEAD);
    let output = batches.tx();
    batches.spawn(async move {
        let ended = tokio::select! {
            ended = reader.run(&output) => ended,
            // Others may have its connection's place soon.
            () = reader.database.given_up() => Err(reader.about(given_up(reader.database.depot()))),
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
    batch_rows: usize,
}

/// A statement that runs. Dropped before its end, it is ended.
struct Running {
    database: Arc<Database>,
    connection: Option<Connection>,
}

impl Running {
    fn client(&mut self) -> Result<&mut Client, Failure> {
        let connection = self
            .connection
            .as_mut()
            .ok_or(Failure::Protocol("the connection is given back"))?;
        Ok(&mut connection.client)
    }

    /// Gives the connection back.
    async fn end(mut self, statement: Option<&Statement>) {
        if let (Some(statement), Some(connection)) = (statement, &mut self.connection)
            && connection.client.close(statement).await.is_err()
        {
            self.connection = None;
        }
        if let Some(connection) = self.connection.take() {
            self.database.keep(connection);
        }
    }

    /// Closes a connection on which nothing runs any more.
    fn abandon(mut self) {
        self.connection = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.database.cancel(connection);
        }
    }
}

/// Why a statement did not start, or did not come to its end.
enum Refusal {
    /// The table is not what it was thought to be.
    Outdated,
    /// The connection broke.
    Lost(Error),
    Failed(Error),
}

/// A statement whose rows come.
struct Started {
    running: Running,
    statement: Statement,
    kinds: Vec<Kind>,
}

impl Reader {
    async fn run(&self, output: &Sender<StreamResult<RecordBatch>>) -> Result<()> {
        // Whoever reads has seen nothing of an attempt whose connection breaks before its first batch.
        let mut is_second = false;
        loop {
            let mut is_seen = false;
            match self.attempt(output, &mut is_seen).await {
                Ok(()) => return Ok(()),
                Err(Refusal::Lost(_)) if !is_seen && !is_second => is_second = true,
                Err(Refusal::Lost(error) | Refusal::Failed(error)) => return Err(error),
                Err(Refusal::Outdated) => return Err(self.changed()),
            }
        }
    }

    async fn attempt(&self, output: &Sender<StreamResult<RecordBatch>>, is_seen: &mut bool) -> Result<(), Refusal> {
        let Started {
            mut running,
            statement,
            kinds,
        } = self.start().await?;
        let zero_dates_are_null = self.database.zero_dates_are_null();
        let mut decoder = Decoder::new(
            SchemaRef::clone(&self.scan.schema),
            &kinds,
            self.batch_rows,
            zero_dates_are_null,
        );
        let client = running.client().map_err(|failure| Refusal::Failed(self.of(&failure)))?;
        loop {
            match client.next_row().await {
                Ok(Some(row)) => decoder
                    .push(row)
                    .map_err(|fault| Refusal::Failed(self.fault(fault, &kinds)))?,
                Ok(None) => break,
                Err(failure) => {
                    let (is_lost, error) = (failure.is_lost(), self.interrupted(&failure, decoder.rows()));
                    if failure.code().is_some() || is_lost {
                        running.abandon();
                    }
                    return Err(if is_lost {
                        Refusal::Lost(error)
                    } else {
                        Refusal::Failed(error)
                    });
                }
            }
            if decoder.is_full() {
                *is_seen = true;
                if !self.send(&mut decoder, output).await? {
                    return Ok(());
                }
            }
        }
        // Whoever reads the last batch may ask for a connection at once.
        running.end(Some(&statement)).await;
        self.send(&mut decoder, output).await.map(drop)
    }

    /// Sends a batch; false when nobody reads any more.
    async fn send(&self, decoder: &mut Decoder, output: &Sender<StreamResult<RecordBatch>>) -> Result<bool, Refusal> {
        let batch = decoder
            .batch()
            .map_err(|failure| Refusal::Failed(self.error(ErrorKind::Internal, failure.to_string())))?;
        match batch {
            Some(batch) => Ok(output.send(Ok(batch)).await.is_ok()),
            None => Ok(true),
        }
    }

    /// Starts the statement by what is known of the table; if that is not true any more, once again by what is true now.
    async fn start(&self) -> Result<Started, Refusal> {
        if let Some(query) = &self.scan.query {
            return self.carry_out(&query.text(None, self.scan.limit), None).await;
        }
        let Address {
            collection, dataset, ..
        } = &self.scan.address;
        if let Some(table) = self.database.known_table(collection, dataset) {
            match self.begin(&table).await {
                Err(Refusal::Outdated) => {}
                found => return found,
            }
        }
        let table = self
            .database
            .table(collection, dataset)
            .await
            .map_err(Refusal::Failed)?;
        let table = table.ok_or(Refusal::Outdated)?;
        self.begin(&table).await
    }

    async fn begin(&self, table: &Table) -> Result<Started, Refusal> {
        let fits = self.scan.schema.fields().iter().all(|field| {
            let found = table.schema.column_with_name(field.name());
            found.is_some_and(|(_, found)| {
                found.data_type() == field.data_type() && (field.is_nullable() || !found.is_nullable())
            })
        });
        let select = sql::select(&self.scan, table)
            .filter(|_| fits)
            .ok_or(Refusal::Outdated)?;
        for name in sql::columns(&self.scan) {
            let Some(column) = table.columns.get(name) else {
                continue;
            };
            if !column.is_readable {
                let message = format!("the server does not let the depot's user read column `{name}`");
                return Err(Refusal::Failed(self.error(ErrorKind::Denied, message)));
            }
            if let Kind::Unknown(type_name) = &column.kind {
                let message = format!(
                    "column `{name}` has the type `{type_name}`, which is not read; leave the column out, or read the table through a view \
                     that casts it"
                );
                return Err(Refusal::Failed(self.error(ErrorKind::Unsupported, message)));
            }
        }
        let kinds: Option<Vec<Kind>> = (self.scan.schema.fields().iter())
            .map(|field| table.columns.get(field.name()).map(|column| column.kind.clone()))
            .collect();
        let kinds = kinds.ok_or(Refusal::Outdated)?;
        self.carry_out(&select, Some(kinds)).await
    }

    /// Starts a statement. Without `kinds` it is one that the server computes, whose values are read as the types of the scan.
    async fn carry_out(&self, select: &str, kinds: Option<Vec<Kind>>) -> Result<Started, Refusal> {
        let connection = self.database.connection().await.map_err(Refusal::Failed)?;
        let mut running = Running {
            database: Arc::clone(&self.database),
            connection: Some(connection),
        };
        match execute(&mut running, select, kinds, &self.scan.schema).await {
            Ok(Found::Started(statement, kinds)) => Ok(Started {
                running,
                statement,
                kinds,
            }),
            // Its rows are on their way: the connection is of no use.
            Ok(Found::Changed) => Err(Refusal::Outdated),
            Ok(Found::Otherwise(column)) => Err(Refusal::Failed(self.otherwise(column))),
            Err(failure) => {
                let error = self.of(&failure);
                if failure.is_lost() {
                    running.abandon();
                    return Err(Refusal::Lost(error));
                }
                if failure.code().is_some() {
                    running.end(None).await;
                }
                Err(if error.kind == ErrorKind::Changed {
                    Refusal::Outdated
                } else {
                    Refusal::Failed(error)
                })
            }
        }
    }

    fn of(&self, failure: &Failure) -> Error {
        self.about(failure::of(self.database.depot(), failure))
    }

    fn interrupted(&self, failure: &Failure, rows: u64) -> Error {
        let error = self.of(failure);
        let message = format!("{}, after {rows} rows", error.message);
        Error { message, ..error }
    }

    fn fault(&self, fault: Fault, kinds: &[Kind]) -> Error {
        let Fault { column, row, misfit } = fault;
        let name = self.scan.schema.fields().get(column).map(|field| field.name().clone());
        let kind = kinds.get(column);
        let expected = kind.map_or_else(|| "nothing".to_owned(), Kind::describe);
        let remedy = if kind.is_some_and(Kind::is_date) {
            "correct the value, or set `zeroDates: as-null` for the depot"
        } else {
            "correct the value, or read the table through a view of the database that casts it"
        };
        let message = format!(
            "column `{}` holds {} in row {row} of the rows read, where {expected} is expected; {remedy}",
            name.unwrap_or_default(),
            misfit.describe(),
        );
        self.error(ErrorKind::BadValue, message)
    }

    /// The server computed a column of another type than was planned with.
    fn otherwise(&self, column: usize) -> Error {
        let Some(field) = self.scan.schema.fields().get(column) else {
            return self.error(
                ErrorKind::Internal,
                "the server sends other columns than were asked for",
            );
        };
        let message = format!(
            "the server sends column `{}` as another type than {}, which was expected; run the query again if a table was changed meanwhile, otherwise with \
             `SET SESSION {}.pushdown = false`",
            field.name(),
            field.data_type(),
            self.scan.address.depot
        );
        self.error(ErrorKind::Unsupported, message)
    }

    fn changed(&self) -> Error {
        let message = "it changed since the query was planned; run the query again";
        self.error(ErrorKind::Changed, message)
    }

    fn error(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        self.about(self.database.failure(kind, message))
    }

    fn about(&self, error: Error) -> Error {
        error.about_dataset(&self.scan.address.collection, &self.scan.address.dataset)
    }
}

/// What came of a statement.
enum Found {
    Started(Statement, Vec<Kind>),
    /// The table has other types than were planned with.
    Changed,
    /// What the server computed has, in a column.
    Otherwise(usize),
}

/// Has a statement carried out.
async fn execute(
    running: &mut Running,
    select: &str,
    kinds: Option<Vec<Kind>>,
    schema: &SchemaRef,
) -> Result<Found, Failure> {
    let client = running.client()?;
    let statement = client.prepare(select).await?;
    let described = client.run(&statement).await?;
    // Without columns there is one that nobody reads.
    if described.len() != schema.fields().len().max(1) {
        return Ok(Found::Changed);
    }
    match kinds {
        Some(kinds) => {
            let same = described.iter().zip(&kinds).all(|(sent, kind)| kind.is_sent_as(sent));
            Ok(if same {
                Found::Started(statement, kinds)
            } else {
                Found::Changed
            })
        }
        None => {
            let fields = schema.fields().iter().zip(&described).enumerate();
            let kinds: Result<Vec<Kind>, usize> = fields
                .map(|(at, (field, sent))| Kind::computed(field.data_type(), sent).ok_or(at))
                .collect();
            Ok(match kinds {
                Ok(kinds) => Found::Started(statement, kinds),
                Err(column) => Found::Otherwise(column),
            })
        }
    }
}

//! Rows of one statement as a stream of batches.
//!
//! In: a scan. Out: batches, made on a blocking thread that stays at most two batches ahead of who reads them. Dropping
//! the stream interrupts the statement, even one that has not found its first row.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use futures::Stream;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params_from_iter};
use tokio::sync::mpsc::Sender;

use super::connection::{Database, Running, Stop};
use super::decode::{ColumnBuilder, storage_class};
use super::kind::Kind;
use super::moment::Piece;
use super::sql::{self, Statement};
use crate::{Error, ErrorKind, Scan, Split};

/// Batches that wait for their reader.
const BATCHES_AHEAD: usize = 2;

/// A batch ends when its texts and blobs reach this size, so that long ones do not pile up.
const BATCH_BYTES: usize = 8 << 20;

/// Starts reading a scan, or a range of it.
pub(super) fn read(
    database: &Arc<Database>,
    scan: &Scan,
    split: &Split,
    batch_rows: usize,
) -> Result<SendableRecordBatchStream, Error> {
    let piece = Piece::of(split, scan.snapshot.as_deref());
    if piece.is_none() && *split != Split::Whole {
        let message = "its pieces have no state in common";
        let failure = database.failure(ErrorKind::Internal, message);
        return Err(failure.about_dataset(&scan.address.collection, &scan.address.dataset));
    }
    let range = piece.as_ref().map(|piece| piece.condition(sql::ALIAS));
    let statement = match &scan.query {
        Some(query) => Statement {
            sql: query.text(range.as_deref(), scan.limit),
            values: Vec::new(),
        },
        None => sql::statement(scan, range.as_deref())?,
    };
    let rows = RowReader {
        range,
        ..RowReader::new(database, scan, batch_rows)?
    };
    let stop = Stop::default();
    let running = stop.running();
    let database = Arc::clone(database);
    let mut batches = RecordBatchReceiverStreamBuilder::new(Arc::clone(&scan.schema), BATCHES_AHEAD);
    let output = batches.tx();
    batches.spawn_blocking(move || {
        let read = |connection: &Connection| rows.run(connection, &statement, &running, &output);
        let result = match piece {
            Some(piece) => database
                .connection_of(&piece)
                .map_err(|error| rows.about(error))
                .and_then(|(file, connection)| database.with(&running, file, connection, read)),
            None => database.with_connection(&running, read),
        };
        match result {
            Err(error) if !output.is_closed() => Err(error.into()),
            _ => Ok(()),
        }
    });
    Ok(Box::pin(Reading {
        batches: batches.build(),
        _stop: stop,
    }))
}

/// A stream that stops its statement when it is dropped.
struct Reading {
    batches: SendableRecordBatchStream,
    _stop: Stop,
}

impl Stream for Reading {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.as_mut().poll_next(context)
    }
}

impl RecordBatchStream for Reading {
    fn schema(&self) -> SchemaRef {
        self.batches.schema()
    }
}

/// Turns rows into batches.
struct RowReader {
    database: Arc<Database>,
    collection: String,
    dataset: String,
    schema: SchemaRef,
    kinds: Vec<Kind>,
    batch_rows: usize,
    /// The condition on the rows of a range.
    range: Option<String>,
}

impl RowReader {
    fn new(database: &Arc<Database>, scan: &Scan, batch_rows: usize) -> Result<RowReader, Error> {
        let kinds: Option<Vec<Kind>> = scan
            .schema
            .fields()
            .iter()
            .map(|field| Kind::of_arrow(field.data_type()))
            .collect();
        let kinds = kinds.ok_or_else(|| {
            database.failure(
                ErrorKind::Internal,
                "the plan asks for a type that SQLite columns are not read as",
            )
        })?;
        Ok(RowReader {
            database: Arc::clone(database),
            collection: scan.address.collection.clone(),
            dataset: scan.address.dataset.clone(),
            schema: Arc::clone(&scan.schema),
            kinds,
            batch_rows: batch_rows.max(1),
            range: None,
        })
    }

    fn run(
        &self,
        connection: &Connection,
        statement: &Statement,
        running: &Running,
        output: &Sender<Result<RecordBatch>>,
    ) -> Result<(), Error> {
        let mut prepared = connection
            .prepare(&statement.sql)
            .map_err(|failure| self.error(failure))?;
        if running.is_over() {
            return Ok(());
        }
        let mut rows = prepared
            .query(params_from_iter(&statement.values))
            .map_err(|failure| self.error(failure))?;
        let mut columns: Vec<ColumnBuilder> = self.kinds.iter().map(|kind| ColumnBuilder::new(*kind)).collect();
        let (mut position, mut in_batch, mut bytes) = (0_u64, 0, 0);
        while let Some(row) = rows.next().map_err(|failure| self.error(failure))? {
            position += 1;
            in_batch += 1;
            bytes += self.append(row, &mut columns, position)?;
            if in_batch == self.batch_rows || bytes >= BATCH_BYTES {
                let batch = self.batch(&mut columns, in_batch)?;
                (in_batch, bytes) = (0, 0);
                if output.blocking_send(Ok(batch)).is_err() {
                    return Ok(());
                }
            }
        }
        if in_batch > 0 {
            // An error means that nobody reads any more, which is no failure.
            let _ = output.blocking_send(Ok(self.batch(&mut columns, in_batch)?));
        }
        Ok(())
    }

    fn append(&self, row: &Row<'_>, columns: &mut [ColumnBuilder], position: u64) -> Result<usize, Error> {
        let mut bytes = 0;
        for (index, column) in columns.iter_mut().enumerate() {
            let value = row.get_ref(index).map_err(|failure| self.error(failure))?;
            let field = self.schema.field(index);
            let allowed = field.is_nullable() || value != ValueRef::Null;
            match column.append(value).filter(|_| allowed) {
                Some(size) => bytes += size,
                None => return Err(self.bad_value(index, value, position)),
            }
        }
        Ok(bytes)
    }

    fn batch(&self, columns: &mut [ColumnBuilder], rows: usize) -> Result<RecordBatch, Error> {
        let arrays = columns.iter_mut().map(ColumnBuilder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .map_err(|failure| self.about(self.database.failure(ErrorKind::Internal, failure.to_string())))
    }

    fn bad_value(&self, index: usize, value: ValueRef<'_>, position: u64) -> Error {
        let field = self.schema.field(index);
        let expected = Kind::of_arrow(field.data_type())
            .map(Kind::describe)
            .unwrap_or_default();
        let found = storage_class(value);
        let hint = match value {
            ValueRef::Null => "correct the value",
            _ => "correct the value, or read the table through a view of the database that casts it",
        };
        let range = self.range.as_ref().map(|range| format!(" with {range}"));
        let message = format!(
            "column `{}` holds {found} in row {position} of the rows read{}, where {expected} is expected; {hint}",
            field.name(),
            range.unwrap_or_default()
        );
        self.about(self.database.failure(ErrorKind::BadValue, message))
    }

    fn error(&self, failure: rusqlite::Error) -> Error {
        // The statement was right when it was planned. A connection may notice only while it runs that it is not any more.
        let text = failure.to_string();
        if text.contains("no such table") || text.contains("no such column") {
            let message = format!("it changed since the query was planned ({text}); run the query again");
            return self.about(self.database.failure(ErrorKind::Changed, message));
        }
        self.about(self.database.error(failure))
    }

    fn about(&self, error: Error) -> Error {
        error.about_dataset(&self.collection, &self.dataset)
    }
}

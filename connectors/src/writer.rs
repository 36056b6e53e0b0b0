//! How depots are written to.
//!
//! In: rows that a governed query makes, or the rows of a table that are to be changed. Out: how many were written. Each call is one
//! transaction: what fails, is cancelled or dropped half-way leaves nothing. Whoever may write is decided before any of this is called.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use tokio::sync::mpsc;

use crate::Result;

/// The name of the column that says which row of its table a row is, in the tables of a [`Change`]. No column of a user has it.
pub const ROW_ID: &str = "\u{0}row";

/// What a depot does that can be written to.
#[async_trait]
pub trait Writer: Debug + Send + Sync {
    /// The columns that a new dataset of these columns has when it is read again. The rows that are written must have these types.
    ///
    /// # Errors
    /// Names the first column whose type the depot cannot hold.
    fn stored(&self, columns: &Schema) -> Result<SchemaRef>;

    /// Makes a dataset of rows that have the types that [`Writer::stored`] says, and returns how many there are.
    async fn create(
        &self,
        collection: &str,
        dataset: &str,
        rows: SendableRecordBatchStream,
    ) -> datafusion::error::Result<u64>;

    /// Adds rows to a dataset and returns how many. They have the names and types of columns of it; a column that they have not got
    /// takes what the depot has for it, else NULL.
    async fn append(
        &self,
        collection: &str,
        dataset: &str,
        rows: SendableRecordBatchStream,
    ) -> datafusion::error::Result<u64>;

    /// Removes a dataset; false when there is none.
    async fn remove(&self, collection: &str, dataset: &str) -> Result<bool>;

    /// Begins to change or delete rows of a dataset.
    ///
    /// # Errors
    /// When the depot cannot do that, or the dataset's rows have no identity.
    async fn change(&self, collection: &str, dataset: &str) -> Result<Box<dyn Change>>;

    /// Whether a column that rows have not got may take something else than NULL. Otherwise rows come with all columns.
    fn has_defaults(&self) -> bool {
        true
    }

    /// Whether the depot's own rows must be read to their end before the first of them is written.
    fn reads_before_it_writes(&self) -> bool {
        false
    }

    /// Makes sure that rows of the depot can be read while others are written.
    ///
    /// # Errors
    /// When they cannot, and how they could.
    fn expect_room_to_read(&self) -> Result<()> {
        Ok(())
    }
}

/// A transaction that changes rows of one dataset. From its beginning nobody else changes them. Dropping it undoes everything.
#[async_trait]
pub trait Change: Debug + Send {
    /// The dataset as it is in the transaction, with the column [`ROW_ID`] at the end.
    fn table(&self) -> Arc<dyn TableProvider>;

    /// Deletes rows, of which the batches have the column [`ROW_ID`], and ends the transaction. Returns how many were deleted: all.
    async fn delete(self: Box<Self>, rows: Vec<RecordBatch>) -> Result<u64>;

    /// Changes rows, and ends the transaction. The batches have the column [`ROW_ID`] and the new values under their columns' names.
    /// Returns how many were changed: all.
    async fn update(self: Box<Self>, rows: Vec<RecordBatch>) -> Result<u64>;
}

/// The columns as a depot stores them, where `stored` says as what it does; columns can be NULL unless it is said that they cannot.
pub(crate) fn stored_as(
    columns: &Schema,
    refused: impl Fn(&Field) -> crate::Error,
    stored: impl Fn(&DataType) -> Option<DataType>,
) -> Result<SchemaRef> {
    let field = |field: &Arc<Field>| match stored(field.data_type()) {
        Some(data_type) => Ok(Field::new(field.name(), data_type, field.is_nullable())),
        None => Err(refused(field)),
    };
    let fields: Result<Vec<Field>> = columns.fields().iter().map(field).collect();
    Ok(Arc::new(Schema::new(fields?)))
}

/// The first name that two columns have, as `same` compares them.
pub(crate) fn named_twice<'a>(columns: &'a Schema, same: impl Fn(&str, &str) -> bool) -> Option<&'a str> {
    let names: Vec<&str> = columns.fields().iter().map(|field| field.name().as_str()).collect();
    let twice = |(at, name): (usize, &&'a str)| {
        names
            .iter()
            .skip(at + 1)
            .any(|other| same(name, other))
            .then_some(*name)
    };
    names.iter().enumerate().find_map(twice)
}

/// Batches that wait to be written.
const BATCHES_AHEAD: usize = 2;

/// What a thread that writes is given, batch by batch.
pub(crate) enum Next {
    /// Rows to write.
    Rows(RecordBatch),
    /// There are no more, and none was lost.
    End,
    /// Whoever made the rows failed or went away: nothing may stay.
    Stopped,
}

/// The end at which a thread that writes takes batches.
pub(crate) struct Feed(mpsc::Receiver<Option<RecordBatch>>);

impl Feed {
    /// Waits for the next batch.
    pub(crate) fn next(&mut self) -> Next {
        match self.0.blocking_recv() {
            Some(Some(batch)) => Next::Rows(batch),
            Some(None) => Next::End,
            None => Next::Stopped,
        }
    }
}

/// Hands rows to a thread that writes them while they are made. Its own failure counts only if the rows did not fail.
pub(crate) async fn feed<T>(
    mut rows: SendableRecordBatchStream,
    start: impl FnOnce(Feed) -> futures::future::BoxFuture<'static, Result<T>>,
) -> datafusion::error::Result<T> {
    let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
    let writing = start(Feed(receiver));
    let sending = async move {
        while let Some(batch) = rows.next().await {
            // Who writes may have failed already, which it says itself.
            if sender.send(Some(batch?)).await.is_err() {
                return Ok(());
            }
        }
        // A reader that is done has let go of what it reads before the end is written.
        drop(rows);
        let _ = sender.send(None).await;
        Ok::<(), datafusion::error::DataFusionError>(())
    };
    let (sent, written) = futures::join!(sending, writing);
    sent?;
    Ok(written?)
}

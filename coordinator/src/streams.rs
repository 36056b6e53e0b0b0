//! Streams of rows on their way out of a plan.
//!
//! In: rows as a plan makes them. Out: the same rows under the names that their reader knows, with nothing else in their buffers.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use datafusion::{
    arrow::{
        array::{RecordBatch, RecordBatchOptions, StringArray},
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    error::DataFusionError,
    execution::{RecordBatchStream, SendableRecordBatchStream},
};
use futures::{Stream, StreamExt, stream};

use crate::{columns, error::Result};

/// Leaves in each batch's buffers only what its rows show: a filtered or masked array may still carry hidden values, unseen but sent.
pub(crate) fn scrubbed(rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
    let schema = rows.schema();
    let inner = rows
        .map(|batch| batch.and_then(|batch| Ok(minerva_policy::scrub(&batch)?)))
        .boxed();
    Box::pin(Guarded { schema, inner })
}

/// Gives the columns the names that their reader knows them by.
pub(crate) fn named(rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
    let schema = columns::without_marks(&rows.schema());
    if Arc::ptr_eq(&schema, &rows.schema()) {
        return rows;
    }
    let renamed = Arc::clone(&schema);
    let inner = rows
        .map(move |batch| batch.and_then(|batch| renamed_to(&renamed, batch)))
        .boxed();
    Box::pin(Guarded { schema, inner })
}

fn renamed_to(schema: &SchemaRef, batch: RecordBatch) -> Result<RecordBatch, DataFusionError> {
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let columns = batch.columns().to_vec();
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &rows)?)
}

/// One batch as a stream.
pub(crate) fn once(batch: RecordBatch) -> SendableRecordBatchStream {
    let schema = batch.schema();
    Box::pin(Guarded {
        schema,
        inner: stream::once(async move { Ok(batch) }).boxed(),
    })
}

/// One column of text, one row for each line.
pub(crate) fn text_table(column: &str, lines: &[String]) -> Result<RecordBatch> {
    let schema = Arc::new(Schema::new(vec![Field::new(column, DataType::Utf8, false)]));
    Ok(RecordBatch::try_new(
        schema,
        vec![Arc::new(StringArray::from_iter_values(lines))],
    )?)
}

/// A stream with its schema.
pub(crate) struct Guarded {
    pub(crate) schema: SchemaRef,
    pub(crate) inner: stream::BoxStream<'static, Result<RecordBatch, DataFusionError>>,
}

impl Stream for Guarded {
    type Item = Result<RecordBatch, DataFusionError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.poll_next_unpin(cx)
    }
}

impl RecordBatchStream for Guarded {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

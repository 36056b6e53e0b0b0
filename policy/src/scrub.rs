//! Leaves in a batch's buffers only what its rows show.
//!
//! In goes a batch that is about to leave the server, out comes the same batch in fresh memory where it matters. A
//! filtered array of string views still points into buffers with the strings of hidden rows, a masked substring into
//! those with the raw value, a dictionary keeps values that no row has; Arrow's IPC writer would send them all. Plain
//! arrays are passed on as they are. It is applied to results, not to every batch of a plan.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Scalar, UInt64Array, make_array, new_null_array};
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::compute::kernels::zip::zip;
use datafusion::arrow::compute::{cast, is_not_null, take};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};

/// `batch` without a byte that does not belong to one of its visible values.
pub fn scrub(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(scrub_array).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options)
}

/// Buffers of views up to this size are spilled as they are; larger ones DataFusion compacts itself.
const SMALL_BYTES: usize = 16 << 10;

/// `batch` whose small columns of views have no bytes of hidden values: a spill file would keep them. It costs next to nothing.
pub(crate) fn without_leftovers(batch: RecordBatch) -> RecordBatch {
    let columns: Vec<ArrayRef> = batch.columns().iter().map(compact_views).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    // The types and lengths are the same.
    RecordBatch::try_new_with_options(batch.schema(), columns, &options).unwrap_or(batch)
}

fn compact_views(array: &ArrayRef) -> ArrayRef {
    let is_small = |buffers: &[Buffer]| {
        let bytes: usize = buffers.iter().map(Buffer::capacity).sum();
        (1..=SMALL_BYTES).contains(&bytes)
    };
    match array.data_type() {
        DataType::Utf8View if is_small(array.as_string_view().data_buffers()) => Arc::new(array.as_string_view().gc()),
        DataType::BinaryView if is_small(array.as_binary_view().data_buffers()) => {
            Arc::new(array.as_binary_view().gc())
        }
        _ => Arc::clone(array),
    }
}

fn scrub_array(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let array = &without_hidden_nulls(array)?;
    match array.data_type() {
        DataType::Utf8View => Ok(Arc::new(array.as_string_view().gc())),
        DataType::BinaryView => Ok(Arc::new(array.as_binary_view().gc())),
        DataType::Dictionary(_, values) => cast(&scrub_array(&cast(array, values)?)?, array.data_type()),
        data_type if data_type.is_nested() => scrub_children(&compact(array)?),
        _ => Ok(Arc::clone(array)),
    }
}

/// The array with nothing where it is NULL: a mask that hides a value may have left it there, unseen but sent.
fn without_hidden_nulls(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if array.null_count() == 0 || matches!(array.data_type(), DataType::Null | DataType::Union(..)) {
        return Ok(Arc::clone(array));
    }
    let nothing = Scalar::new(new_null_array(array.data_type(), 1));
    zip(&is_not_null(array)?, array, &nothing)
}

/// A copy whose children hold exactly the elements that are in the array.
fn compact(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let all = UInt64Array::from_iter_values(0..array.len() as u64);
    take(array, &all, None)
}

fn scrub_children(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let data = array.to_data();
    let children = data.child_data().iter().map(|child| {
        let child = make_array(child.clone());
        scrub_array(&child).map(|child| child.to_data())
    });
    let children = children.collect::<Result<Vec<_>, _>>()?;
    Ok(make_array(data.into_builder().child_data(children).build()?))
}

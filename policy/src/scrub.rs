//! Leaves in a batch's buffers only what its rows show.
//!
//! In goes a batch that is about to leave the server, out comes the same batch in fresh memory where it matters. A
//! filtered array of string views still points into buffers with the strings of hidden rows, a masked substring into
//! those with the raw value, a dictionary keeps values that no row has; Arrow's IPC writer would send them all. Plain
//! arrays are passed on as they are. It is applied to results, not to every batch of a plan.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, UInt64Array, make_array};
use datafusion::arrow::compute::{cast, take};
use datafusion::arrow::datatypes::{BinaryViewType, DataType, StringViewType};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};

/// `batch` without a byte that does not belong to one of its visible values.
pub fn scrub(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(scrub_array).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options)
}

fn scrub_array(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Utf8View => Ok(Arc::new(array.as_byte_view::<StringViewType>().gc())),
        DataType::BinaryView => Ok(Arc::new(array.as_byte_view::<BinaryViewType>().gc())),
        DataType::Dictionary(_, values) => cast(&scrub_array(&cast(array, values)?)?, array.data_type()),
        data_type if shares_buffers(data_type) => scrub_children(&compact(array)?),
        _ => Ok(Arc::clone(array)),
    }
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

fn shares_buffers(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8View | DataType::BinaryView | DataType::Dictionary(..) => true,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => shares_buffers(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| shares_buffers(field.data_type())),
        DataType::RunEndEncoded(_, values) => shares_buffers(values.data_type()),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| shares_buffers(field.data_type())),
        _ => false,
    }
}

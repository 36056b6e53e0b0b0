//! Leaves in a batch's buffers only what its rows show.
//!
//! In goes a batch that is about to leave the server, out comes the same batch in fresh memory where it matters. A
//! filtered array of string views still points into buffers with the strings of hidden rows, a masked substring into
//! those with the raw value, a dictionary keeps values that no row has; Arrow's IPC writer would send them all. Plain
//! arrays are passed on as they are. It is applied to results, not to every batch of a plan.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, ByteView, GenericByteViewArray, MAX_INLINE_VIEW_LEN, Scalar,
    StringViewArray, UInt64Array, make_array, new_null_array,
};
use datafusion::arrow::buffer::{Buffer, ScalarBuffer};
use datafusion::arrow::compute::kernels::zip::zip;
use datafusion::arrow::compute::{cast, is_not_null, take};
use datafusion::arrow::datatypes::{ByteViewType, DataType};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::barrier::BarrierColumn;

/// `batch` without a byte that does not belong to one of its visible values.
pub fn scrub(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(scrub_array).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options)
}

/// Buffers of views up to this size are spilled as they are; larger ones DataFusion compacts itself.
const SMALL_BYTES: usize = 16 << 10;

/// `batch` without bytes of hidden values where a spill file would keep them: between the values of small columns of views, and in masked columns where
/// they are NULL. Other memory is shared with `batch`.
pub(crate) fn without_leftovers(batch: RecordBatch, columns: &[BarrierColumn]) -> Result<RecordBatch, ArrowError> {
    let is_masked = |index: usize| columns.get(index).is_none_or(|column| column.masked);
    let columns = batch.columns().iter().enumerate().map(|(index, array)| {
        let array = match is_masked(index) {
            true => without_hidden_nulls(array)?,
            false => Arc::clone(array),
        };
        without_gaps(array)
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options)
}

fn without_gaps(array: ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(match array.data_type() {
        // Short values lie in their views, and no view looks into a buffer: compacting leaves the buffers away.
        DataType::Utf8View if is_short(array.as_string_view()) => Arc::new(array.as_string_view().gc()),
        DataType::BinaryView if is_short(array.as_binary_view()) => Arc::new(array.as_binary_view().gc()),
        DataType::Utf8View => match only_seen(array.as_string_view()) {
            Some((views, buffers)) => Arc::new(StringViewArray::try_new(views, buffers, array.nulls().cloned())?),
            None => array,
        },
        DataType::BinaryView => match only_seen(array.as_binary_view()) {
            Some((views, buffers)) => Arc::new(BinaryViewArray::try_new(views, buffers, array.nulls().cloned())?),
            None => array,
        },
        _ => array,
    })
}

fn is_short<T: ByteViewType>(array: &GenericByteViewArray<T>) -> bool {
    has_small_buffers(array) && array.total_buffer_bytes_used() == 0
}

fn has_small_buffers<T: ByteViewType>(array: &GenericByteViewArray<T>) -> bool {
    let bytes: usize = array.data_buffers().iter().map(Buffer::capacity).sum();
    (1..=SMALL_BYTES).contains(&bytes)
}

/// The views and the buffers of an array of small buffers, with zeros wherever no valid value lies. The bytes stay where they are: many views may share them.
fn only_seen<T: ByteViewType>(array: &GenericByteViewArray<T>) -> Option<(ScalarBuffer<u128>, Vec<Buffer>)> {
    if !has_small_buffers(array) {
        return None;
    }
    let buffers = array.data_buffers();
    let mut seen: Vec<Vec<u8>> = buffers.iter().map(|buffer| vec![0; buffer.len()]).collect();
    // How long the longest value is that was copied from each place.
    let mut copied: Vec<Vec<u32>> = buffers.iter().map(|buffer| vec![0; buffer.len()]).collect();
    let mut views = array.views().to_vec();
    for (row, view) in views.iter_mut().enumerate() {
        if array.is_null(row) {
            *view = 0;
            continue;
        }
        let ByteView {
            length,
            buffer_index,
            offset,
            ..
        } = ByteView::from(*view);
        if length <= MAX_INLINE_VIEW_LEN {
            continue;
        }
        let (buffer, start) = (buffer_index as usize, offset as usize);
        let known = copied.get_mut(buffer)?.get_mut(start)?;
        if *known < length {
            *known = length;
            let place = start..start + length as usize;
            let value = buffers.get(buffer)?.get(place.clone())?;
            seen.get_mut(buffer)?.get_mut(place)?.copy_from_slice(value);
        }
    }
    Some((views.into(), seen.into_iter().map(Buffer::from_vec).collect()))
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

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::Int64Array;
    use datafusion::arrow::buffer::NullBuffer;
    use datafusion::arrow::compute::filter;
    use datafusion::arrow::datatypes::{Field, Schema};

    use super::*;

    const HIDDEN: &str = "kanari that nobody may see";

    fn column(name: &str, masked: bool) -> BarrierColumn {
        BarrierColumn {
            name: name.to_owned(),
            masked,
        }
    }

    fn holds_hidden(array: &ArrayRef) -> bool {
        let buffers = array.as_string_view().data_buffers();
        buffers
            .iter()
            .any(|buffer| buffer.windows(6).any(|bytes| bytes == b"kanari"))
    }

    #[test]
    fn small_views_keep_their_values_and_no_others() {
        let shown = "a value that is long enough";
        let values = [
            "short",
            shown,
            HIDDEN,
            &shown[2..],
            shown,
            HIDDEN,
            "and another long one, once",
        ];
        let array: ArrayRef = Arc::new(StringViewArray::from_iter_values(values));
        // The fifth is NULL, and its view is left.
        let nulls = NullBuffer::from(vec![true, true, true, true, false, true, true]);
        let array: ArrayRef = Arc::new(
            StringViewArray::try_new(
                array.as_string_view().views().clone(),
                array.as_string_view().data_buffers().to_vec(),
                Some(nulls),
            )
            .unwrap(),
        );
        let kept = [true, true, false, true, true, false, true]
            .into_iter()
            .map(Some)
            .collect();
        let filtered = filter(&array, &kept).unwrap();
        assert!(holds_hidden(&filtered), "else this test shows nothing");
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8View, true)]));
        let batch = RecordBatch::try_new(schema, vec![Arc::clone(&filtered)]).unwrap();
        let clean = without_leftovers(batch.clone(), &[column("a", false)]).unwrap();
        assert_eq!(clean, batch);
        assert!(!holds_hidden(clean.column(0)));
    }

    #[test]
    fn short_values_leave_the_buffers_behind() {
        let array: ArrayRef = Arc::new(StringViewArray::from_iter_values(["short", HIDDEN, "also short"]));
        let kept = [true, false, true].into_iter().map(Some).collect();
        let filtered = filter(&array, &kept).unwrap();
        assert!(holds_hidden(&filtered), "else this test shows nothing");
        let clean = without_gaps(Arc::clone(&filtered)).unwrap();
        assert_eq!(&clean, &filtered);
        assert!(clean.as_string_view().data_buffers().is_empty());
    }

    #[test]
    fn many_views_of_one_value_do_not_grow() {
        let value = "x".repeat(2_000);
        let one = StringViewArray::from_iter_values([value.as_str()]);
        let views: Vec<u128> = vec![one.views()[0]; 8_192];
        let array: ArrayRef =
            Arc::new(StringViewArray::try_new(views.into(), one.data_buffers().to_vec(), None).unwrap());
        let clean = without_gaps(Arc::clone(&array)).unwrap();
        assert_eq!(&clean, &array);
        assert!(
            clean.get_array_memory_size() < 512 << 10,
            "{}",
            clean.get_array_memory_size()
        );
    }

    #[test]
    fn what_a_mask_made_null_is_gone() {
        let hidden = Int64Array::new(
            vec![1, 700_123, 3].into(),
            Some(NullBuffer::from(vec![true, false, true])),
        );
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let batch = RecordBatch::try_new(schema, vec![Arc::new(hidden)]).unwrap();
        let clean = without_leftovers(batch.clone(), &[column("a", true)]).unwrap();
        assert_eq!(clean, batch);
        let values = |batch: &RecordBatch| {
            batch
                .column(0)
                .as_primitive::<datafusion::arrow::datatypes::Int64Type>()
                .values()
                .to_vec()
        };
        assert!(values(&batch).contains(&700_123) && !values(&clean).contains(&700_123));
    }
}

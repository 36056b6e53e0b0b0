//! Helpers of the masks over text: one pass over an array, no allocation per row.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, GenericStringArray, GenericStringBuilder, OffsetSizeTrait, StringViewBuilder,
};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

use super::Failed;

/// What masks over text say they expected.
pub(super) const TEXT: &str = "expected a column of text";

/// Whether values of this type are text.
pub(crate) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// A literal argument.
pub(super) fn literal(text: &str) -> ScalarValue {
    ScalarValue::Utf8(Some(text.to_owned()))
}

/// The text of a literal argument.
pub(super) fn text_argument(arguments: &[ScalarValue], index: usize) -> Result<&str, String> {
    arguments
        .get(index)
        .and_then(|argument| argument.try_as_str().flatten())
        .ok_or_else(|| format!("argument {index} must be a text"))
}

/// The count in a literal argument.
pub(super) fn count_argument(arguments: &[ScalarValue], index: usize) -> Result<usize, String> {
    match arguments.get(index) {
        Some(ScalarValue::Int64(Some(count))) => usize::try_from(*count).map_err(|error| error.to_string()),
        _ => Err(format!("argument {index} must be a whole number")),
    }
}

/// Maps each text through `write`, which appends the masked text to an empty buffer.
pub(super) fn map_text(
    values: &ArrayRef,
    write: impl FnMut(&str, &mut String) -> Result<(), Failed>,
) -> Result<ArrayRef, Failed> {
    match values.data_type() {
        DataType::Utf8 => map_offsets(values.as_string::<i32>(), i32::MAX as usize, write),
        DataType::LargeUtf8 => map_offsets(values.as_string::<i64>(), usize::MAX, write),
        DataType::Utf8View => map_view(values, write),
        _ => Err(Failed),
    }
}

fn map_offsets<O: OffsetSizeTrait>(
    values: &GenericStringArray<O>,
    room: usize,
    mut write: impl FnMut(&str, &mut String) -> Result<(), Failed>,
) -> Result<ArrayRef, Failed> {
    let mut builder = GenericStringBuilder::<O>::with_capacity(values.len(), values.value_data().len());
    let mut buffer = String::new();
    let mut total = 0_usize;
    for value in values {
        match value {
            None => builder.append_null(),
            Some(value) => {
                buffer.clear();
                write(value, &mut buffer)?;
                total = total.saturating_add(buffer.len());
                if total > room {
                    return Err(Failed);
                }
                builder.append_value(&buffer);
            }
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn map_view(
    values: &ArrayRef,
    mut write: impl FnMut(&str, &mut String) -> Result<(), Failed>,
) -> Result<ArrayRef, Failed> {
    let values = values.as_string_view();
    let mut builder = StringViewBuilder::with_capacity(values.len());
    let mut buffer = String::new();
    for value in values {
        match value {
            None => builder.append_null(),
            Some(value) => {
                buffer.clear();
                write(value, &mut buffer)?;
                builder.try_append_value(&buffer)?;
            }
        }
    }
    Ok(Arc::new(builder.finish()))
}

const DIGITS: [char; 16] = [
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
];

/// Appends bytes as lower-case hexadecimal digits.
pub(crate) fn push_lower_hex(bytes: &[u8], text: &mut String) {
    text.reserve(bytes.len() * 2);
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.extend(DIGITS.get(usize::from(digit)));
        }
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn lower_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    push_lower_hex(bytes, &mut text);
    text
}

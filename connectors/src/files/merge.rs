//! One schema for all files of a dataset.
//!
//! Columns are matched by name, in the order in which files, sorted by path, first have them. A column that a file lacks
//! is NULL there. Types that hold the same values are widened to the larger one; any other difference is an error that
//! names both files, the column and both types. Text files carry no types: where guesses differ, the column is text. In:
//! the schemas of the files. Out: the schema of the table.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};

use super::fault::Fault;
use crate::ErrorKind;

/// The schema of one file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) file: &'a str,
    pub(super) schema: &'a Schema,
}

struct Column<'a> {
    name: &'a str,
    data_type: DataType,
    nullable: bool,
    /// The file that gave the type.
    file: &'a str,
    /// In how many files it is.
    files: usize,
}

/// Merges the schemas of files; `hidden` columns are left out, since partition folders give them.
pub(super) fn merge(parts: &[Part<'_>], is_text: bool, hidden: &[FieldRef]) -> Result<Schema, Fault> {
    let mut columns: Vec<Column<'_>> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for part in parts {
        for field in part.schema.fields() {
            if hidden.iter().any(|hidden| hidden.name() == field.name()) {
                continue;
            }
            let known = places
                .get(field.name().as_str())
                .copied()
                .and_then(|place| columns.get_mut(place));
            let Some(column) = known else {
                places.insert(field.name(), columns.len());
                columns.push(Column {
                    name: field.name(),
                    data_type: field.data_type().clone(),
                    nullable: field.is_nullable(),
                    file: part.file,
                    files: 1,
                });
                continue;
            };
            column.files += 1;
            column.nullable |= field.is_nullable();
            let common = widen(&column.data_type, field.data_type(), is_text);
            let common = common.ok_or_else(|| conflict(column, part.file, field.data_type()))?;
            if common != column.data_type {
                column.data_type = common;
                column.file = part.file;
            }
        }
    }
    let fields = columns.into_iter().map(|column| {
        let nullable = column.nullable || column.files < parts.len();
        let data_type = if column.data_type == DataType::Null {
            DataType::Utf8
        } else {
            column.data_type
        };
        Field::new(column.name, data_type, nullable)
    });
    Ok(Schema::new(fields.collect::<Vec<_>>()))
}

fn conflict(column: &Column<'_>, file: &str, data_type: &DataType) -> Fault {
    let message = format!(
        "column `{}` is {} in file `{}` and {} in file `{file}`; give it one type, or make two datasets of the files",
        column.name, column.data_type, column.file, data_type
    );
    Fault::new(ErrorKind::Unsupported, message)
}

/// The type that holds all values of both.
fn widen(one: &DataType, other: &DataType, is_text: bool) -> Option<DataType> {
    if one == other {
        return Some(one.clone());
    }
    let common = match (one, other) {
        (DataType::Null, known) | (known, DataType::Null) => Some(known.clone()),
        (DataType::Struct(one), DataType::Struct(other)) => fields(one, other, is_text).map(DataType::Struct),
        (DataType::List(one), DataType::List(other)) => element(one, other, is_text).map(DataType::List),
        (DataType::LargeList(one), DataType::LargeList(other)) => element(one, other, is_text).map(DataType::LargeList),
        (DataType::Map(one, sorted), DataType::Map(other, other_sorted)) => {
            element(one, other, is_text).map(|entries| DataType::Map(entries, *sorted && *other_sorted))
        }
        (DataType::Timestamp(one, zone), DataType::Timestamp(other, other_zone)) if zone == other_zone => {
            Some(DataType::Timestamp(finer(*one, *other), zone.clone()))
        }
        (DataType::Decimal128(precision, scale), DataType::Decimal128(other, other_scale)) => {
            decimal(*precision, *scale, *other, *other_scale)
        }
        (one, other) if is_string(one) && is_string(other) => Some(DataType::Utf8View),
        (one, other) if is_binary(one) && is_binary(other) => Some(DataType::BinaryView),
        (one, other) => number(one, other),
    };
    if common.is_some() || !is_text {
        return common;
    }
    match (one, other) {
        (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => Some(DataType::Float64),
        (DataType::Date32, DataType::Timestamp(..)) => Some(other.clone()),
        (DataType::Timestamp(..), DataType::Date32) => Some(one.clone()),
        _ if one.is_nested() || other.is_nested() => None,
        _ => Some(DataType::Utf8),
    }
}

fn fields(one: &Fields, other: &Fields, is_text: bool) -> Option<Fields> {
    let mut merged = Vec::with_capacity(one.len());
    for field in one {
        merged.push(match other.find(field.name()) {
            Some((_, same)) => element(field, same, is_text)?,
            None => Arc::new(field.as_ref().clone().with_nullable(true)),
        });
    }
    let added = other.iter().filter(|field| one.find(field.name()).is_none());
    merged.extend(added.map(|field| Arc::new(field.as_ref().clone().with_nullable(true))));
    Some(merged.into())
}

fn element(one: &FieldRef, other: &FieldRef, is_text: bool) -> Option<FieldRef> {
    let data_type = widen(one.data_type(), other.data_type(), is_text)?;
    let nullable = one.is_nullable() || other.is_nullable();
    Some(Arc::new(
        one.as_ref().clone().with_data_type(data_type).with_nullable(nullable),
    ))
}

fn is_string(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_string(values),
        _ => false,
    }
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView
    )
}

fn finer(one: TimeUnit, other: TimeUnit) -> TimeUnit {
    let rank = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    };
    if rank(&one) < rank(&other) { other } else { one }
}

fn decimal(precision: u8, scale: i8, other: u8, other_scale: i8) -> Option<DataType> {
    let whole = |precision: u8, scale: i8| i16::from(precision) - i16::from(scale);
    let digits = whole(precision, scale).max(whole(other, other_scale));
    let scale = scale.max(other_scale);
    let precision = u8::try_from(digits + i16::from(scale))
        .ok()
        .filter(|precision| *precision <= 38)?;
    Some(DataType::Decimal128(precision, scale))
}

fn number(one: &DataType, other: &DataType) -> Option<DataType> {
    if one.is_floating() && other.is_floating() {
        let is_double = |data_type: &DataType| *data_type == DataType::Float64;
        return Some(if is_double(one) || is_double(other) {
            DataType::Float64
        } else {
            DataType::Float32
        });
    }
    if !one.is_integer() || !other.is_integer() {
        return None;
    }
    let bits = |data_type: &DataType| data_type.primitive_width().unwrap_or(8) * 8;
    // A signed type needs one bit more to hold an unsigned one.
    let needed = match (one.is_signed_integer(), other.is_signed_integer()) {
        (true, true) | (false, false) => bits(one).max(bits(other)),
        (true, false) => bits(one).max(bits(other) * 2),
        (false, true) => bits(other).max(bits(one) * 2),
    };
    let is_signed = one.is_signed_integer() || other.is_signed_integer();
    match (needed, is_signed) {
        (16, true) => Some(DataType::Int16),
        (32, true) => Some(DataType::Int32),
        (64, true) => Some(DataType::Int64),
        (16, false) => Some(DataType::UInt16),
        (32, false) => Some(DataType::UInt32),
        (64, false) => Some(DataType::UInt64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(one: DataType, other: DataType, is_text: bool, expected: Option<DataType>) {
        assert_eq!(widen(&one, &other, is_text), expected, "{one} and {other}");
        assert_eq!(widen(&other, &one, is_text), expected, "{other} and {one}");
    }

    #[test]
    fn only_what_loses_nothing_is_widened() {
        use DataType::*;
        check(Int32, Int64, false, Some(Int64));
        check(Int32, UInt32, false, Some(Int64));
        check(Int64, UInt64, false, None);
        check(Float32, Float64, false, Some(Float64));
        check(Int64, Float64, false, None);
        check(Int64, Utf8View, false, None);
        check(Utf8, Utf8View, false, Some(Utf8View));
        check(Decimal128(10, 2), Decimal128(12, 4), false, Some(Decimal128(12, 4)));
        check(Decimal128(38, 0), Decimal128(38, 10), false, None);
        check(Date32, Timestamp(TimeUnit::Second, None), false, None);
    }

    #[test]
    fn guesses_fall_back_to_text() {
        use DataType::*;
        check(Int64, Float64, true, Some(Float64));
        check(Int64, Utf8, true, Some(Utf8));
        check(Boolean, Int64, true, Some(Utf8));
        check(Null, Int64, true, Some(Int64));
        check(Int64, DataType::new_list(Int64, true), true, None);
    }
}

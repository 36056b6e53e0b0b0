//! Arrow values as the text that `COPY FROM STDIN` reads.
//!
//! In: batches of the types that [`stored`] makes of others. Out: lines. Text, and not the binary format, because PostgreSQL then makes
//! each value itself of whatever type its column has: an enumeration, a domain, an address.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, DecimalType, Field, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};

use super::sql;

/// What a column of this type is stored as, which is what it is then read as.
pub(super) fn stored(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Boolean => DataType::Boolean,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => DataType::Int16,
        DataType::Int32 | DataType::UInt16 => DataType::Int32,
        DataType::Int64 | DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 | DataType::Float32 => DataType::Float32,
        DataType::Float64 => DataType::Float64,
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale)
            if *precision <= 38 && *scale >= 0 =>
        {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Date32 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Dictionary(_, value) => return stored(value),
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            let element = stored(field.data_type()).filter(|element| !matches!(element, DataType::List(_)))?;
            DataType::List(Arc::new(Field::new_list_field(element, true)))
        }
        _ => return None,
    })
}

/// The type that a column is declared with. `None` for types that [`stored`] does not make.
pub(super) fn declared(data_type: &DataType) -> Option<String> {
    Some(match data_type {
        DataType::Boolean => "pg_catalog.bool".to_owned(),
        DataType::Int16 => "pg_catalog.int2".to_owned(),
        DataType::Int32 => "pg_catalog.int4".to_owned(),
        DataType::Int64 => "pg_catalog.int8".to_owned(),
        DataType::Float32 => "pg_catalog.float4".to_owned(),
        DataType::Float64 => "pg_catalog.float8".to_owned(),
        DataType::Decimal128(precision, scale) => format!("pg_catalog.numeric({precision}, {scale})"),
        DataType::Utf8View => "pg_catalog.text".to_owned(),
        DataType::Binary => "pg_catalog.bytea".to_owned(),
        DataType::Date32 => "pg_catalog.date".to_owned(),
        DataType::Time64(_) => "pg_catalog.time".to_owned(),
        DataType::Timestamp(_, None) => "pg_catalog.timestamp".to_owned(),
        DataType::Timestamp(_, Some(_)) => "pg_catalog.timestamptz".to_owned(),
        DataType::Interval(_) => "pg_catalog.interval".to_owned(),
        DataType::List(field) => format!("{}[]", declared(field.data_type())?),
        _ => return None,
    })
}

/// The lines of a batch; an error names the column of a value that PostgreSQL does not have.
pub(super) fn lines(batch: &RecordBatch) -> Result<String, String> {
    let mut lines = String::new();
    let mut text = String::new();
    let schema = batch.schema();
    for row in 0..batch.num_rows() {
        for (position, (field, column)) in schema.fields().iter().zip(batch.columns()).enumerate() {
            if position > 0 {
                lines.push('\t');
            }
            if column.is_null(row) {
                lines.push_str("\\N");
                continue;
            }
            text.clear();
            print(&mut text, column.as_ref(), row).ok_or_else(|| field.name().clone())?;
            escape(&mut lines, &text);
        }
        lines.push('\n');
    }
    Ok(lines)
}

/// What separates values and lines is written otherwise.
fn escape(line: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '\\' => line.push_str("\\\\"),
            '\t' => line.push_str("\\t"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            other => line.push(other),
        }
    }
}

/// A value as PostgreSQL reads it; `None` for one that it does not have.
fn print(text: &mut String, column: &dyn Array, row: usize) -> Option<()> {
    match column.data_type() {
        DataType::Boolean => text.push(if column.as_boolean().value(row) { 't' } else { 'f' }),
        DataType::Int16 => show(text, column.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => show(text, column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => show(text, column.as_primitive::<Int64Type>().value(row)),
        // The shortest digits that read back as the same number.
        DataType::Float32 => float(text, f64::from(column.as_primitive::<Float32Type>().value(row)), || {
            format!("{:?}", column.as_primitive::<Float32Type>().value(row))
        }),
        DataType::Float64 => {
            let value = column.as_primitive::<Float64Type>().value(row);
            float(text, value, || format!("{value:?}"));
        }
        DataType::Decimal128(precision, scale) => {
            let value = column.as_primitive::<Decimal128Type>().value(row);
            text.push_str(&Decimal128Type::format_decimal(value, *precision, *scale));
        }
        DataType::Utf8View => {
            let value = column.as_string_view().value(row);
            if value.contains('\0') {
                return None;
            }
            text.push_str(value);
        }
        DataType::Binary => text.push_str(&sql::hexadecimal(column.as_binary::<i32>().value(row))),
        DataType::Date32 => text.push_str(&sql::date(column.as_primitive::<Date32Type>().value(row))?),
        DataType::Time64(_) => text.push_str(&sql::time(column.as_primitive::<Time64MicrosecondType>().value(row))?),
        DataType::Timestamp(_, zone) => {
            text.push_str(&sql::timestamp(
                column.as_primitive::<TimestampMicrosecondType>().value(row),
            )?);
            text.push_str(if zone.is_some() { "+00" } else { "" });
        }
        DataType::Interval(_) => {
            let value = column.as_primitive::<IntervalMonthDayNanoType>().value(row);
            let (months, days, microseconds) = (value.months, value.days, value.nanoseconds / 1000);
            show(
                text,
                format_args!("{months} mons {days} days {microseconds} microseconds"),
            );
        }
        DataType::List(_) => {
            let elements = column.as_list::<i32>().value(row);
            text.push('{');
            let mut element = String::new();
            for at in 0..elements.len() {
                text.push_str(if at == 0 { "" } else { "," });
                if elements.is_null(at) {
                    text.push_str("NULL");
                    continue;
                }
                element.clear();
                print(&mut element, elements.as_ref(), at)?;
                let escaped = element.replace('\\', "\\\\").replace('"', "\\\"");
                show(text, format_args!("\"{escaped}\""));
            }
            text.push('}');
        }
        _ => return None,
    }
    Some(())
}

fn float(text: &mut String, value: f64, shortest: impl FnOnce() -> String) {
    match value {
        value if value.is_nan() => text.push_str("NaN"),
        f64::INFINITY => text.push_str("Infinity"),
        f64::NEG_INFINITY => text.push_str("-Infinity"),
        _ => text.push_str(&shortest()),
    }
}

fn show(text: &mut String, value: impl std::fmt::Display) {
    // Writing to a string cannot fail.
    let _ = write!(text, "{value}");
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, BinaryArray, Float64Array, ListArray, StringViewArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn check(column: ArrayRef, expected: &[&str]) {
        let batch = RecordBatch::try_from_iter([("x", column)]).unwrap();
        assert_eq!(lines(&batch).unwrap().lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_separates_is_escaped() {
        let texts = [Some("a\tb\nc\\d\r\"'"), Some("\\N"), Some("\\."), None, Some("")];
        check(
            Arc::new(StringViewArray::from_iter(texts)),
            &["a\\tb\\nc\\\\d\\r\"'", "\\\\N", "\\\\.", "\\N", ""],
        );
        check(Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..]])), &["\\\\x00ff"]);
        let numbers = vec![f64::NAN, f64::NEG_INFINITY, 0.1, 1e300, -0.0];
        check(
            Arc::new(Float64Array::from(numbers)),
            &["NaN", "-Infinity", "0.1", "1e300", "-0.0"],
        );
        let lists = [Some(vec![Some(1), None]), None, Some(vec![])];
        check(
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)),
            &["{\"1\",NULL}", "\\N", "{}"],
        );
    }

    #[test]
    fn a_text_with_nul_is_refused_by_column() {
        let column: ArrayRef = Arc::new(StringViewArray::from(vec!["a\0b"]));
        let batch = RecordBatch::try_from_iter([("name", column)]).unwrap();
        assert_eq!(lines(&batch).unwrap_err(), "name");
    }
}

//! One value of an Arrow array as text or as JSON.
//!
//! In: an array of any type and a row. Out: text as a user of psql or Trino expects it: decimals exact, floats with the fewest digits that read
//! back the same, dates and times in ISO order, binary as `\x` and hexadecimal digits, everything nested as JSON. Deliberately absent: what
//! stands for NULL, and quoting; both are the format's.

use std::fmt::Write;

use arrow::{
    array::{Array, ArrayRef, AsArray, timezone::Tz},
    datatypes::{
        ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type,
        Decimal256Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType,
        Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalDayTimeType,
        IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType, Time32MillisecondType, Time32SecondType,
        Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
        TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
    temporal_conversions::as_datetime,
};
use chrono::{NaiveDateTime, NaiveTime, Offset, TimeDelta, TimeZone, Timelike};

use super::OutputError;

type Result<T> = std::result::Result<T, OutputError>;

/// Appends a value as text; answers whether there was one, since NULL appends nothing.
pub(super) fn write_text(array: &dyn Array, row: usize, out: &mut String) -> Result<bool> {
    let Some((array, row)) = resolve(array, row)? else {
        return Ok(false);
    };
    if array.data_type().is_nested() {
        write_nested(array, row, out)?;
    } else {
        write_plain(array, row, ' ', out)?;
    }
    Ok(true)
}

/// Appends a value as JSON.
pub(super) fn write_json(array: &dyn Array, row: usize, out: &mut String) -> Result<()> {
    let Some((array, row)) = resolve(array, row)? else {
        out.push_str("null");
        return Ok(());
    };
    let data_type = array.data_type();
    if data_type.is_nested() {
        return write_nested(array, row, out);
    }
    let begin = out.len();
    write_plain(array, row, 'T', out)?;
    let is_bare = data_type.is_numeric() || *data_type == DataType::Boolean;
    // JSON has no words for these.
    let is_beyond = data_type.is_floating() && out.ends_with(['y', 'N']);
    if !is_bare || is_beyond {
        let text = out.split_off(begin);
        write_json_string(&text, out);
    }
    Ok(())
}

/// Appends a JSON string.
pub(super) fn write_json_string(text: &str, out: &mut String) {
    // Displaying a JSON value cannot fail, unlike serialising any type.
    let _ = write!(out, "{}", serde_json::Value::from(text));
}

/// Whether values of a type stand to the right in a table.
pub(super) fn is_number(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_number(values),
        DataType::RunEndEncoded(_, values) => is_number(values.data_type()),
        other => other.is_numeric(),
    }
}

/// Goes through dictionaries, runs and unions to the array that holds the value; `None` for NULL.
fn resolve(mut array: &dyn Array, mut row: usize) -> Result<Option<(&dyn Array, usize)>> {
    loop {
        if array.is_null(row) {
            return Ok(None);
        }
        match array.data_type() {
            DataType::Null => return Ok(None),
            DataType::Dictionary(_, _) => {
                let dictionary = array.as_any_dictionary();
                let key = integer(dictionary.keys(), row).and_then(|key| usize::try_from(key).ok());
                row = key
                    .filter(|key| *key < dictionary.values().len())
                    .ok_or_else(|| out_of_range("a dictionary's key"))?;
                array = dictionary.values().as_ref();
            }
            DataType::RunEndEncoded(ends, _) => {
                row = match ends.data_type() {
                    DataType::Int16 => array.as_run::<Int16Type>().get_physical_index(row),
                    DataType::Int32 => array.as_run::<Int32Type>().get_physical_index(row),
                    _ => array.as_run::<Int64Type>().get_physical_index(row),
                };
                array = array.as_any_ree().values().as_ref();
            }
            DataType::Union(_, _) => {
                let union = array.as_union();
                let child = union.child(union.type_id(row));
                row = union.value_offset(row);
                array = child.as_ref();
            }
            _ => return Ok(Some((array, row))),
        }
    }
}

/// Appends a value that is neither nested nor NULL; `separator` stands between date and time.
fn write_plain(array: &dyn Array, row: usize, separator: char, out: &mut String) -> Result<()> {
    if let Some(number) = integer(array, row) {
        let _ = write!(out, "{number}");
        return Ok(());
    }
    match array.data_type() {
        DataType::Boolean => out.push_str(if array.as_boolean().value(row) { "true" } else { "false" }),
        DataType::Float16 => write_float(
            &format!("{:?}", array.as_primitive::<Float16Type>().value(row).to_f32()),
            out,
        ),
        DataType::Float32 => write_float(&format!("{:?}", array.as_primitive::<Float32Type>().value(row)), out),
        DataType::Float64 => write_float(&format!("{:?}", array.as_primitive::<Float64Type>().value(row)), out),
        DataType::Decimal32(_, _) => out.push_str(&array.as_primitive::<Decimal32Type>().value_as_string(row)),
        DataType::Decimal64(_, _) => out.push_str(&array.as_primitive::<Decimal64Type>().value_as_string(row)),
        DataType::Decimal128(_, _) => out.push_str(&array.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Decimal256(_, _) => out.push_str(&array.as_primitive::<Decimal256Type>().value_as_string(row)),
        DataType::Utf8 => out.push_str(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => out.push_str(array.as_string::<i64>().value(row)),
        DataType::Utf8View => out.push_str(array.as_string_view().value(row)),
        DataType::Binary => write_hexadecimal(array.as_binary::<i32>().value(row), out),
        DataType::LargeBinary => write_hexadecimal(array.as_binary::<i64>().value(row), out),
        DataType::BinaryView => write_hexadecimal(array.as_binary_view().value(row), out),
        DataType::FixedSizeBinary(_) => write_hexadecimal(array.as_fixed_size_binary().value(row), out),
        DataType::Date32 => {
            let date = array
                .as_primitive::<Date32Type>()
                .value_as_date(row)
                .ok_or_else(|| out_of_range("a date"))?;
            let _ = write!(out, "{date}");
        }
        DataType::Date64 => {
            let value = array
                .as_primitive::<Date64Type>()
                .value_as_datetime(row)
                .ok_or_else(|| out_of_range("a date"))?;
            if value.time() == NaiveTime::MIN {
                let _ = write!(out, "{}", value.date());
            } else {
                write_datetime(value, separator, out);
            }
        }
        DataType::Time32(_) | DataType::Time64(_) => {
            write_time(time(array, row).ok_or_else(|| out_of_range("a time"))?, out)
        }
        DataType::Timestamp(_, None) => {
            write_datetime(
                datetime(array, row).ok_or_else(|| out_of_range("a timestamp"))?,
                separator,
                out,
            );
        }
        DataType::Timestamp(_, Some(zone)) => {
            let moment = datetime(array, row).ok_or_else(|| out_of_range("a timestamp"))?;
            write_zoned(moment, zone, separator, out)?;
        }
        DataType::Duration(_) => write_interval(0, 0, duration_nanoseconds(array, row), out),
        DataType::Interval(IntervalUnit::YearMonth) => {
            write_interval(array.as_primitive::<IntervalYearMonthType>().value(row), 0, 0, out);
        }
        DataType::Interval(IntervalUnit::DayTime) => {
            let value = array.as_primitive::<IntervalDayTimeType>().value(row);
            write_interval(0, value.days, i128::from(value.milliseconds) * 1_000_000, out);
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            write_interval(value.months, value.days, i128::from(value.nanoseconds), out);
        }
        other => return Err(OutputError::Value(format!("values of type `{other}` cannot be shown"))),
    }
    Ok(())
}

/// Appends a list, struct or map as JSON.
fn write_nested(array: &dyn Array, row: usize, out: &mut String) -> Result<()> {
    match array.data_type() {
        DataType::List(_) => write_list(&array.as_list::<i32>().value(row), out),
        DataType::LargeList(_) => write_list(&array.as_list::<i64>().value(row), out),
        DataType::ListView(_) => write_list(&array.as_list_view::<i32>().value(row), out),
        DataType::LargeListView(_) => write_list(&array.as_list_view::<i64>().value(row), out),
        DataType::FixedSizeList(_, _) => write_list(&array.as_fixed_size_list().value(row), out),
        DataType::Struct(fields) => {
            out.push('{');
            for (index, (field, column)) in fields.iter().zip(array.as_struct().columns()).enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_json_string(field.name(), out);
                out.push(':');
                write_json(column, row, out)?;
            }
            out.push('}');
            Ok(())
        }
        DataType::Map(_, _) => {
            let entries = array.as_map().value(row);
            let [keys, values] = entries.columns() else {
                return Err(OutputError::Value(
                    "a map has keys and values, and this one has not".to_owned(),
                ));
            };
            out.push('{');
            for entry in 0..entries.len() {
                if entry > 0 {
                    out.push(',');
                }
                let mut key = String::new();
                write_text(keys, entry, &mut key)?;
                write_json_string(&key, out);
                out.push(':');
                write_json(values, entry, out)?;
            }
            out.push('}');
            Ok(())
        }
        other => Err(OutputError::Value(format!("values of type `{other}` cannot be shown"))),
    }
}

fn write_list(values: &ArrayRef, out: &mut String) -> Result<()> {
    out.push('[');
    for index in 0..values.len() {
        if index > 0 {
            out.push(',');
        }
        write_json(values, index, out)?;
    }
    out.push(']');
    Ok(())
}

/// The value of an array of integers; `None` for other types.
fn integer(array: &dyn Array, row: usize) -> Option<i128> {
    Some(match array.data_type() {
        DataType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        _ => return None,
    })
}

fn write_float(shortest: &str, out: &mut String) {
    // The standard library writes `inf`; SQL reads and writes the whole word.
    match shortest.strip_suffix("inf") {
        Some(sign) => {
            out.push_str(sign);
            out.push_str("Infinity");
        }
        None => out.push_str(shortest),
    }
}

fn write_hexadecimal(bytes: &[u8], out: &mut String) {
    out.push_str("\\x");
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

fn datetime(array: &dyn Array, row: usize) -> Option<NaiveDateTime> {
    fn of<T: ArrowPrimitiveType<Native = i64>>(array: &dyn Array, row: usize) -> Option<NaiveDateTime> {
        as_datetime::<T>(array.as_primitive::<T>().value(row))
    }
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => of::<TimestampSecondType>(array, row),
        DataType::Timestamp(TimeUnit::Millisecond, _) => of::<TimestampMillisecondType>(array, row),
        DataType::Timestamp(TimeUnit::Microsecond, _) => of::<TimestampMicrosecondType>(array, row),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => of::<TimestampNanosecondType>(array, row),
        _ => None,
    }
}

fn time(array: &dyn Array, row: usize) -> Option<NaiveTime> {
    match array.data_type() {
        DataType::Time32(TimeUnit::Second) => array.as_primitive::<Time32SecondType>().value_as_time(row),
        DataType::Time32(_) => array.as_primitive::<Time32MillisecondType>().value_as_time(row),
        DataType::Time64(TimeUnit::Microsecond) => array.as_primitive::<Time64MicrosecondType>().value_as_time(row),
        DataType::Time64(_) => array.as_primitive::<Time64NanosecondType>().value_as_time(row),
        _ => None,
    }
}

fn duration_nanoseconds(array: &dyn Array, row: usize) -> i128 {
    match array.data_type() {
        DataType::Duration(TimeUnit::Second) => {
            i128::from(array.as_primitive::<DurationSecondType>().value(row)) * 1_000_000_000
        }
        DataType::Duration(TimeUnit::Millisecond) => {
            i128::from(array.as_primitive::<DurationMillisecondType>().value(row)) * 1_000_000
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            i128::from(array.as_primitive::<DurationMicrosecondType>().value(row)) * 1_000
        }
        _ => i128::from(array.as_primitive::<DurationNanosecondType>().value(row)),
    }
}

fn write_datetime(value: NaiveDateTime, separator: char, out: &mut String) {
    let _ = write!(out, "{}{separator}", value.date());
    write_time(value.time(), out);
}

/// Appends a moment as the clock of its zone shows it, with that zone's distance from UTC.
fn write_zoned(moment: NaiveDateTime, zone: &str, separator: char, out: &mut String) -> Result<()> {
    let zone: Tz = zone.parse()?;
    let offset = zone.offset_from_utc_datetime(&moment).fix().local_minus_utc();
    let local = moment
        .checked_add_signed(TimeDelta::seconds(offset.into()))
        .ok_or_else(|| out_of_range("a timestamp"))?;
    write_datetime(local, separator, out);
    let distance = offset.unsigned_abs();
    let (hours, minutes, seconds) = (distance / 3600, distance / 60 % 60, distance % 60);
    let _ = write!(out, "{}{hours:02}:{minutes:02}", if offset < 0 { '-' } else { '+' });
    if seconds > 0 {
        let _ = write!(out, ":{seconds:02}");
    }
    Ok(())
}

fn write_time(value: NaiveTime, out: &mut String) {
    let _ = write!(out, "{:02}:{:02}:{:02}", value.hour(), value.minute(), value.second());
    write_fraction(value.nanosecond(), out);
}

/// Appends the digits of a second's fraction that matter.
fn write_fraction(nanoseconds: u32, out: &mut String) {
    if nanoseconds > 0 {
        let digits = format!("{nanoseconds:09}");
        let _ = write!(out, ".{}", digits.trim_end_matches('0'));
    }
}

/// Appends an interval as PostgreSQL writes it: `1 year 2 mons 3 days 04:05:06.7`.
fn write_interval(months: i32, days: i32, nanoseconds: i128, out: &mut String) {
    let begin = out.len();
    for (count, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if count != 0 {
            let space = if out.len() > begin { " " } else { "" };
            let plural = if count == 1 { "" } else { "s" };
            let _ = write!(out, "{space}{count} {unit}{plural}");
        }
    }
    if nanoseconds != 0 || out.len() == begin {
        let space = if out.len() > begin { " " } else { "" };
        let sign = if nanoseconds < 0 { "-" } else { "" };
        let distance = nanoseconds.unsigned_abs();
        let seconds = distance / 1_000_000_000;
        let _ = write!(
            out,
            "{space}{sign}{:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        );
        write_fraction(u32::try_from(distance % 1_000_000_000).unwrap_or_default(), out);
    }
}

fn out_of_range(what: &str) -> OutputError {
    OutputError::Value(format!("{what} in the result is out of range"))
}

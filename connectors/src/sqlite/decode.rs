//! SQLite values to Arrow arrays.
//!
//! In: values as SQLite stores them. Out: arrays of the column's type. A value that does not fit is refused; nothing is
//! rounded, cut or guessed, and what is said about a refused value names its storage class, never the value.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int32Builder,
    Int64Builder, StringViewBuilder, TimestampMicrosecondBuilder,
};
use chrono::{Datelike, NaiveDate};
use rusqlite::types::ValueRef;

use super::kind::Kind;

/// Days from 0001-01-01 to 1970-01-01, in chrono's count from the common era.
const EPOCH_DAYS: i32 = 719_163;
const MICROSECONDS: i64 = 1_000_000;

/// The array of one column, while it grows.
pub(super) enum ColumnBuilder {
    Boolean(BooleanBuilder),
    Integer(Int64Builder),
    Short(Int32Builder),
    Real(Float64Builder),
    Text(StringViewBuilder),
    Blob(BinaryBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Decimal {
        builder: Decimal128Builder,
        precision: u8,
        scale: i8,
        digits: String,
    },
}

impl ColumnBuilder {
    pub(super) fn new(kind: Kind) -> ColumnBuilder {
        match kind {
            Kind::Boolean => ColumnBuilder::Boolean(BooleanBuilder::new()),
            Kind::Integer => ColumnBuilder::Integer(Int64Builder::new()),
            Kind::Short => ColumnBuilder::Short(Int32Builder::new()),
            Kind::Real => ColumnBuilder::Real(Float64Builder::new()),
            Kind::Text => ColumnBuilder::Text(StringViewBuilder::new()),
            Kind::Blob => ColumnBuilder::Blob(BinaryBuilder::new()),
            Kind::Date => ColumnBuilder::Date(Date32Builder::new()),
            Kind::Timestamp => ColumnBuilder::Timestamp(TimestampMicrosecondBuilder::new()),
            Kind::Decimal(precision, scale) => ColumnBuilder::Decimal {
                builder: Decimal128Builder::new().with_data_type(kind.arrow()),
                precision,
                scale,
                digits: String::new(),
            },
        }
    }

    /// Adds a value and returns how many bytes it takes beyond a fixed width; `None` when it does not fit the type.
    pub(super) fn append(&mut self, value: ValueRef<'_>) -> Option<usize> {
        match (self, value) {
            (column, ValueRef::Null) => column.append_null(),
            (ColumnBuilder::Boolean(builder), ValueRef::Integer(value @ (0 | 1))) => builder.append_value(value == 1),
            (ColumnBuilder::Integer(builder), ValueRef::Integer(value)) => builder.append_value(value),
            (ColumnBuilder::Short(builder), ValueRef::Integer(value)) => {
                builder.append_value(i32::try_from(value).ok()?)
            }
            (ColumnBuilder::Real(builder), ValueRef::Real(value)) => builder.append_value(value),
            (ColumnBuilder::Real(builder), ValueRef::Integer(value)) => builder.append_value(exact_float(value)?),
            (ColumnBuilder::Text(builder), ValueRef::Text(bytes)) => {
                builder.append_value(std::str::from_utf8(bytes).ok()?);
                return Some(bytes.len());
            }
            (ColumnBuilder::Blob(builder), ValueRef::Blob(bytes)) => {
                builder.append_value(bytes);
                return Some(bytes.len());
            }
            (ColumnBuilder::Date(builder), ValueRef::Text(bytes)) => builder.append_value(date(bytes)?),
            (ColumnBuilder::Timestamp(builder), ValueRef::Text(bytes)) => builder.append_value(timestamp(bytes)?),
            (
                ColumnBuilder::Decimal {
                    builder,
                    precision,
                    scale,
                    digits,
                },
                value,
            ) => {
                builder.append_value(decimal(value, *precision, *scale, digits)?);
            }
            _ => return None,
        }
        Some(0)
    }

    fn append_null(&mut self) {
        match self {
            ColumnBuilder::Boolean(builder) => builder.append_null(),
            ColumnBuilder::Integer(builder) => builder.append_null(),
            ColumnBuilder::Short(builder) => builder.append_null(),
            ColumnBuilder::Real(builder) => builder.append_null(),
            ColumnBuilder::Text(builder) => builder.append_null(),
            ColumnBuilder::Blob(builder) => builder.append_null(),
            ColumnBuilder::Date(builder) => builder.append_null(),
            ColumnBuilder::Timestamp(builder) => builder.append_null(),
            ColumnBuilder::Decimal { builder, .. } => builder.append_null(),
        }
    }

    /// The array of the values since the last call.
    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            ColumnBuilder::Boolean(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Integer(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Short(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Real(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Text(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Blob(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Date(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Timestamp(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Decimal { builder, .. } => Arc::new(builder.finish()),
        }
    }
}

/// Whether a value would be taken by a column of this kind.
pub(super) fn fits(kind: Kind, value: ValueRef<'_>) -> bool {
    match (kind, value) {
        (_, ValueRef::Null)
        | (Kind::Boolean, ValueRef::Integer(0 | 1))
        | (Kind::Integer, ValueRef::Integer(_))
        | (Kind::Real, ValueRef::Real(_))
        | (Kind::Blob, ValueRef::Blob(_)) => true,
        (Kind::Short, ValueRef::Integer(value)) => i32::try_from(value).is_ok(),
        (Kind::Real, ValueRef::Integer(value)) => exact_float(value).is_some(),
        (Kind::Text, ValueRef::Text(bytes)) => std::str::from_utf8(bytes).is_ok(),
        (Kind::Date, ValueRef::Text(bytes)) => date(bytes).is_some(),
        (Kind::Timestamp, ValueRef::Text(bytes)) => timestamp(bytes).is_some(),
        (Kind::Decimal(precision, scale), value) => decimal(value, precision, scale, &mut String::new()).is_some(),
        _ => false,
    }
}

/// How SQLite stores a value, for messages.
pub(super) fn storage_class(value: ValueRef<'_>) -> &'static str {
    match value {
        ValueRef::Null => "NULL",
        ValueRef::Integer(_) => "an integer",
        ValueRef::Real(_) => "a floating point number",
        ValueRef::Text(_) => "text",
        ValueRef::Blob(_) => "a blob",
    }
}

/// The integer as floating point, when that loses nothing.
fn exact_float(value: i64) -> Option<f64> {
    let float = value as f64;
    // 2^63 is no i64, and `as` would quietly make it one.
    (float < i64::MAX as f64 && float as i64 == value).then_some(float)
}

/// Days since 1970 of `YYYY-MM-DD`.
fn date(text: &[u8]) -> Option<i32> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *text else {
        return None;
    };
    let year = number(&[y1, y2, y3, y4])?;
    let date = NaiveDate::from_ymd_opt(year as i32, number(&[m1, m2])?, number(&[d1, d2])?)?;
    Some(date.num_days_from_ce() - EPOCH_DAYS)
}

/// Microseconds since 1970 of `YYYY-MM-DD HH:MM[:SS[.ffffff]]`, with a space or `T` between and perhaps a `Z` behind.
fn timestamp(text: &[u8]) -> Option<i64> {
    let text = text.strip_suffix(b"Z").unwrap_or(text);
    let (day, time) = text.split_at_checked(10)?;
    let midnight = i64::from(date(day)?) * 86_400;
    let (clock, fraction) = match time {
        [] => return Some(midnight * MICROSECONDS),
        [b' ' | b'T', clock @ ..] => match clock.iter().position(|byte| *byte == b'.') {
            Some(point) => (clock.get(..point)?, Some(clock.get(point + 1..)?)),
            None => (clock, None),
        },
        _ => return None,
    };
    let (hours, minutes, seconds) = match *clock {
        [h1, h2, b':', m1, m2] if fraction.is_none() => (number(&[h1, h2])?, number(&[m1, m2])?, 0),
        [h1, h2, b':', m1, m2, b':', s1, s2] => (number(&[h1, h2])?, number(&[m1, m2])?, number(&[s1, s2])?),
        _ => return None,
    };
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let seconds = midnight + i64::from(hours * 3600 + minutes * 60 + seconds);
    Some(seconds * MICROSECONDS + microseconds(fraction)?)
}

fn microseconds(fraction: Option<&[u8]>) -> Option<i64> {
    let Some(fraction) = fraction else { return Some(0) };
    let (kept, rest) = fraction.split_at(fraction.len().min(6));
    if kept.is_empty() || rest.iter().any(|digit| *digit != b'0') {
        return None;
    }
    let scale = 10_i64.pow(6 - kept.len() as u32);
    Some(i64::from(number(kept)?) * scale)
}

/// The number that some digits, at most nine, are.
fn number(digits: &[u8]) -> Option<u32> {
    digits
        .iter()
        .try_fold(0, |number, digit| Some(number * 10 + u32::from(decimal_digit(*digit)?)))
}

fn decimal_digit(byte: u8) -> Option<u8> {
    byte.is_ascii_digit().then(|| byte - b'0')
}

/// A number as `DECIMAL(precision, scale)`. A floating point number counts as the shortest decimal that reads back as it.
fn decimal(value: ValueRef<'_>, precision: u8, scale: i8, digits: &mut String) -> Option<i128> {
    digits.clear();
    match value {
        ValueRef::Integer(value) => write!(digits, "{value}").ok()?,
        ValueRef::Real(value) if value.is_finite() => write!(digits, "{value}").ok()?,
        ValueRef::Text(text) => digits.push_str(std::str::from_utf8(text).ok()?),
        _ => return None,
    }
    let (negative, magnitude) = match digits.strip_prefix('-') {
        Some(magnitude) => (true, magnitude),
        None => (false, digits.as_str()),
    };
    let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    let (kept, rest) = fraction
        .as_bytes()
        .split_at(fraction.len().min(usize::try_from(scale).ok()?));
    if (whole.is_empty() && fraction.is_empty()) || rest.iter().any(|digit| *digit != b'0') {
        return None;
    }
    let zeros = usize::try_from(scale).ok()? - kept.len();
    let all = whole
        .bytes()
        .chain(kept.iter().copied())
        .chain(std::iter::repeat_n(b'0', zeros));
    let unscaled = all.into_iter().try_fold(0_i128, |number, digit| {
        number.checked_mul(10)?.checked_add(i128::from(decimal_digit(digit)?))
    })?;
    let fits = unscaled < 10_i128.pow(u32::from(precision));
    fits.then_some(if negative { -unscaled } else { unscaled })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_timestamps_are_read_exactly_or_not_at_all() {
        assert_eq!(date(b"1970-01-02"), Some(1));
        assert_eq!(date(b"0001-01-01"), Some(-719_162));
        for bad in [
            "2023-02-29",
            "2023-1-01",
            "2023-01-01 ",
            "20230101",
            "2023-01-01T00:00:00",
            "",
            "\u{661}970-01-0",
        ] {
            assert_eq!(date(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(timestamp(b"1970-01-01 00:00:01"), Some(1_000_000));
        assert_eq!(timestamp(b"1970-01-01T00:00:00.5Z"), Some(500_000));
        assert_eq!(timestamp(b"1969-12-31 23:59:59.999999000"), Some(-1));
        assert_eq!(timestamp(b"1970-01-02"), Some(86_400_000_000));
        assert_eq!(timestamp(b"1970-01-01 01:02"), Some(3_720_000_000));
        for bad in [
            "1970-01-01 24:00:00",
            "1970-01-01 00:00:60",
            "1970-01-01 1:00:00",
            "1970-01-01 00:00.5",
            "now",
            "1970-01-01 00:00:00.",
            "1970-01-01 00:00:00.1234567",
            "1970-01-01 00:00:00+01:00",
        ] {
            assert_eq!(timestamp(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn decimals_are_never_rounded() {
        let check = |value: ValueRef<'_>, expected: Option<i128>| {
            assert_eq!(decimal(value, 6, 2, &mut String::new()), expected, "{value:?}");
        };
        check(ValueRef::Integer(12), Some(1200));
        check(ValueRef::Integer(-9999), Some(-999_900));
        check(ValueRef::Integer(10_000), None);
        check(ValueRef::Real(12.34), Some(1234));
        check(ValueRef::Real(-0.1), Some(-10));
        check(ValueRef::Real(0.1 + 0.2), None);
        check(ValueRef::Real(12.345), None);
        check(ValueRef::Real(f64::INFINITY), None);
        check(ValueRef::Real(1e300), None);
        check(ValueRef::Text(b"12.50"), Some(1250));
        check(ValueRef::Text(b"12.500"), Some(1250));
        check(ValueRef::Text(b"1e2"), None);
        check(ValueRef::Text(b"--1"), None);
        check(ValueRef::Text(b""), None);
        check(ValueRef::Blob(b"1"), None);
    }

    #[test]
    fn what_fits_is_what_is_taken() {
        let kinds = [
            Kind::Boolean,
            Kind::Integer,
            Kind::Short,
            Kind::Real,
            Kind::Text,
            Kind::Blob,
            Kind::Date,
            Kind::Timestamp,
            Kind::Decimal(6, 2),
        ];
        let texts = ["2024-02-29", "2024-02-29 01:02:03", "12.5", "", "abc", "2023-02-29"];
        let numbers = [0, 1, 2, -1, i64::from(i32::MAX) + 1, (1 << 53) + 1, i64::MAX];
        let reals = [0.0, -0.0, 1.5, 1e300, f64::INFINITY, 0.1 + 0.2];
        let values = std::iter::once(ValueRef::Null)
            .chain(texts.into_iter().map(|text| ValueRef::Text(text.as_bytes())))
            .chain([ValueRef::Text(b"\xff"), ValueRef::Blob(b"\xff"), ValueRef::Blob(b"")])
            .chain(numbers.into_iter().map(ValueRef::Integer))
            .chain(reals.into_iter().map(ValueRef::Real));
        for value in values {
            for kind in kinds {
                let taken = ColumnBuilder::new(kind).append(value).is_some();
                assert_eq!(fits(kind, value), taken, "{kind:?} {value:?}");
            }
        }
    }

    #[test]
    fn integers_become_floats_only_when_nothing_is_lost() {
        assert_eq!(exact_float(1 << 53), Some(9_007_199_254_740_992.0));
        assert_eq!(exact_float((1 << 53) + 1), None);
        assert_eq!(exact_float(i64::MAX), None);
        assert_eq!(exact_float(i64::MIN), Some(-9_223_372_036_854_775_808.0));
    }
}

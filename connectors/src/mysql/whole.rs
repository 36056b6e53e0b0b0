//! Whole numbers that the server computed.
//!
//! In: numbers of the size that the server found fit: it makes `bigint` of much, and a decimal of what has a sign and what has none. Out: an array of the type that the plan has. A number that this type has no
//! room for is a [`Misfit`].

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Decimal128Builder, Int8Builder, Int16Builder, Int32Builder, Int64Builder, UInt8Builder,
    UInt16Builder, UInt32Builder, UInt64Builder,
};
use arrow::datatypes::DataType;

use super::value::{self, Misfit};

/// How whole numbers are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// In 1, 2, 4 or 8 bytes.
    Number { bytes: u8, is_signed: bool },
    /// As a decimal.
    Digits,
}

/// More digits than any whole number has.
const MOST_DIGITS: u8 = 38;

impl Sent {
    fn take(self, row: &[u8]) -> Result<(i128, &[u8]), Misfit> {
        let Sent::Number { bytes, is_signed } = self else {
            return value::decimal(row, MOST_DIGITS, 0);
        };
        /// A number of a few bytes, the lowest first.
        macro_rules! number {
            ($signed:ty, $unsigned:ty) => {{
                let (bytes, rest) = value::fixed(row)?;
                let number = match is_signed {
                    true => i128::from(<$signed>::from_le_bytes(bytes)),
                    false => i128::from(<$unsigned>::from_le_bytes(bytes)),
                };
                (number, rest)
            }};
        }
        Ok(match bytes {
            1 => number!(i8, u8),
            2 => number!(i16, u16),
            4 => number!(i32, u32),
            8 => number!(i64, u64),
            _ => return Err(Misfit::Malformed),
        })
    }
}

/// The array of such numbers, while it grows.
pub(super) struct WholeColumn {
    sent: Sent,
    values: Values,
}

enum Values {
    Boolean(BooleanBuilder),
    Int8(Int8Builder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    UInt8(UInt8Builder),
    UInt16(UInt16Builder),
    UInt32(UInt32Builder),
    UInt64(UInt64Builder),
    Decimal {
        builder: Decimal128Builder,
        precision: u8,
        scale: u8,
    },
}

/// Whether whole numbers are read as this type.
pub(super) fn is_whole(data_type: &DataType) -> bool {
    Values::new(data_type).is_some()
}

impl Values {
    fn new(data_type: &DataType) -> Option<Values> {
        Some(match data_type {
            DataType::Boolean => Values::Boolean(BooleanBuilder::new()),
            DataType::Int8 => Values::Int8(Int8Builder::new()),
            DataType::Int16 => Values::Int16(Int16Builder::new()),
            DataType::Int32 => Values::Int32(Int32Builder::new()),
            DataType::Int64 => Values::Int64(Int64Builder::new()),
            DataType::UInt8 => Values::UInt8(UInt8Builder::new()),
            DataType::UInt16 => Values::UInt16(UInt16Builder::new()),
            DataType::UInt32 => Values::UInt32(UInt32Builder::new()),
            DataType::UInt64 => Values::UInt64(UInt64Builder::new()),
            DataType::Decimal128(precision, scale) => Values::Decimal {
                builder: Decimal128Builder::new().with_data_type(data_type.clone()),
                precision: *precision,
                scale: u8::try_from(*scale).ok()?,
            },
            _ => return None,
        })
    }
}

/// Does the same with every builder.
macro_rules! each {
    ($values:expr, $builder:ident => $done:expr) => {
        match $values {
            Values::Boolean($builder) => $done,
            Values::Int8($builder) => $done,
            Values::Int16($builder) => $done,
            Values::Int32($builder) => $done,
            Values::Int64($builder) => $done,
            Values::UInt8($builder) => $done,
            Values::UInt16($builder) => $done,
            Values::UInt32($builder) => $done,
            Values::UInt64($builder) => $done,
            Values::Decimal { builder: $builder, .. } => $done,
        }
    };
}

impl WholeColumn {
    pub(super) fn new(sent: Sent, data_type: &DataType) -> WholeColumn {
        let values = Values::new(data_type).unwrap_or_else(|| Values::Int64(Int64Builder::new()));
        WholeColumn { sent, values }
    }

    /// Adds the number at the front of some bytes, and returns what is behind it.
    pub(super) fn append<'a>(&mut self, row: &'a [u8]) -> Result<&'a [u8], Misfit> {
        let (number, rest) = self.sent.take(row)?;
        let many = |_| Misfit::TooManyDigits;
        match &mut self.values {
            Values::Boolean(builder) => match number {
                0 | 1 => builder.append_value(number == 1),
                _ => return Err(Misfit::TooManyDigits),
            },
            Values::Int8(builder) => builder.append_value(number.try_into().map_err(many)?),
            Values::Int16(builder) => builder.append_value(number.try_into().map_err(many)?),
            Values::Int32(builder) => builder.append_value(number.try_into().map_err(many)?),
            Values::Int64(builder) => builder.append_value(number.try_into().map_err(many)?),
            Values::UInt8(builder) => builder.append_value(number.try_into().map_err(many)?),
            Values::UInt16(builder) => builder.append_value(number.try_into().map_err(many)?),
            Values::UInt32(builder) => builder.append_value(number.try_into().map_err(many)?),
            Values::UInt64(builder) => builder.append_value(number.try_into().map_err(many)?),
            Values::Decimal {
                builder,
                precision,
                scale,
            } => {
                let units = 10_i128
                    .checked_pow(u32::from(*scale))
                    .and_then(|unit| number.checked_mul(unit));
                let most = 10_u128.checked_pow(u32::from(*precision));
                let fits = |units: &i128| most.is_some_and(|most| units.unsigned_abs() < most);
                builder.append_value(units.filter(fits).ok_or(Misfit::TooManyDigits)?);
            }
        }
        Ok(rest)
    }

    pub(super) fn append_null(&mut self) {
        each!(&mut self.values, builder => builder.append_null());
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        each!(&mut self.values, builder => Arc::new(builder.finish()))
    }
}

#[cfg(test)]
mod tests {
    use arrow::util::display::{ArrayFormatter, FormatOptions};

    use super::*;

    #[test]
    fn numbers_of_every_size_are_taken_where_they_fit() {
        let check = |bytes: &[u8], is_signed: bool, to: DataType, expected: Option<&str>| {
            let sent = Sent::Number {
                bytes: u8::try_from(bytes.len()).unwrap(),
                is_signed,
            };
            let mut column = WholeColumn::new(sent, &to);
            let row = [bytes, &[7]].concat();
            let found = column.append(&row).map(|rest| assert_eq!(rest, [7])).ok().map(|()| {
                let array = column.finish();
                ArrayFormatter::try_new(&array, &FormatOptions::default())
                    .unwrap()
                    .value(0)
                    .to_string()
            });
            assert_eq!(found.as_deref(), expected, "{bytes:?} {to}");
        };
        check(&[0xff], true, DataType::Int64, Some("-1"));
        check(&[0xff], false, DataType::Int64, Some("255"));
        check(&[0xff, 0xff], true, DataType::UInt8, None);
        check(&[1, 0, 0, 0], true, DataType::Boolean, Some("true"));
        check(&[2, 0, 0, 0], true, DataType::Boolean, None);
        check(&[0xff; 8], false, DataType::UInt64, Some("18446744073709551615"));
        check(&[0xff; 8], false, DataType::Int64, None);
        check(&[0, 1, 0, 0, 0, 0, 0, 0], true, DataType::Int8, None);
        check(&[5], true, DataType::Decimal128(4, 2), Some("5.00"));
        check(&[100], true, DataType::Decimal128(4, 2), None);
        assert!(!is_whole(&DataType::Float64));
        let short = Sent::Number {
            bytes: 8,
            is_signed: true,
        };
        assert!(WholeColumn::new(short, &DataType::Int64).append(&[1]).is_err());
        for (digits, fits) in [
            ("0", true),
            ("-9223372036854775808", true),
            ("9223372036854775808", false),
            ("1.5", false),
        ] {
            let row = [&[u8::try_from(digits.len()).unwrap()], digits.as_bytes()].concat();
            let found = WholeColumn::new(Sent::Digits, &DataType::Int64)
                .append(&row)
                .map(<[u8]>::len);
            assert_eq!(found.ok(), fits.then_some(0), "{digits}");
        }
    }
}

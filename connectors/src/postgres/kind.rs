//! The types of PostgreSQL columns.
//!
//! In: types as the catalogue of the database has them. Out: what a column is read as: its Arrow type, what stands for it
//! in a statement, and the type that its values then have on the wire. No column is left out: what has no type of its own
//! here is read as the text that PostgreSQL prints. `docs/depots/postgresql.md` has the table of this file.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use tokio_postgres::types::Type;

/// The most digits of a decimal.
const MOST_DIGITS: u8 = 38;

/// What single values are read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Boolean,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Numeric {
        precision: u8,
        scale: u8,
    },
    Text,
    /// `char(n)`, whose blanks at the end mean nothing.
    Padded,
    Bytea,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    Uuid,
    /// A label of an enumeration, printed by PostgreSQL.
    Label,
    /// Anything else, printed by PostgreSQL.
    Printed,
}

/// What a column is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    One(Scalar),
    List(Scalar),
    /// A row, or a list of rows or lists: JSON, printed by PostgreSQL.
    Json,
}

/// How a column is written in a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// As it is.
    Plain,
    /// Converted to the type of this name.
    As(&'static str),
    /// By the output function of `inet`, whose conversion to text adds a mask that is not printed.
    AsInet,
    /// As JSON text.
    AsJson,
    /// Not a column: the table that a row is in, and where in it.
    Place,
}

/// A type as the catalogue has it, domains resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    /// The type, or the type of the elements.
    pub(super) oid: u32,
    /// Its modifier, -1 when there is none.
    pub(super) modifier: i32,
    /// How many arrays stand around it.
    pub(super) arrays: i32,
    /// Whether the elements are of a domain.
    pub(super) domain_inside: bool,
    /// `b` for a base type, `e` for an enumeration, `c` for a row, and others.
    pub(super) form: char,
}

impl Declared {
    /// What a column of this type is read as, and how it is written. `decimals` is for `numeric` without precision.
    pub(super) fn read_as(&self, decimals: u8) -> (Kind, Written) {
        if self.arrays > 1 || self.form == 'c' {
            return (Kind::Json, Written::AsJson);
        }
        let scalar = self.scalar(decimals);
        let is_inet = self.oid == Type::INET.oid();
        if self.arrays == 1 {
            let written = match scalar {
                // Printed whole, and read as a list of texts.
                _ if is_inet => Written::As("text::pg_catalog.text[]"),
                Scalar::Label | Scalar::Printed => Written::As("text[]"),
                _ if self.domain_inside => Written::As(scalar.array_name()),
                _ => Written::Plain,
            };
            return (Kind::List(scalar), written);
        }
        let written = match scalar {
            _ if is_inet => Written::AsInet,
            Scalar::Label | Scalar::Printed => Written::As("text"),
            _ => Written::Plain,
        };
        (Kind::One(scalar), written)
    }

    fn scalar(&self, decimals: u8) -> Scalar {
        if self.form == 'e' {
            return Scalar::Label;
        }
        match Type::from_oid(self.oid) {
            Some(Type::BOOL) => Scalar::Boolean,
            Some(Type::INT2) => Scalar::Int2,
            Some(Type::INT4) => Scalar::Int4,
            Some(Type::INT8) => Scalar::Int8,
            Some(Type::OID) => Scalar::Oid,
            Some(Type::FLOAT4) => Scalar::Float4,
            Some(Type::FLOAT8) => Scalar::Float8,
            Some(Type::NUMERIC) => numeric(self.modifier, decimals),
            Some(Type::TEXT | Type::VARCHAR) => Scalar::Text,
            Some(Type::BPCHAR) => Scalar::Padded,
            Some(Type::BYTEA) => Scalar::Bytea,
            Some(Type::DATE) => Scalar::Date,
            Some(Type::TIME) => Scalar::Time,
            Some(Type::TIMESTAMP) => Scalar::Timestamp,
            Some(Type::TIMESTAMPTZ) => Scalar::TimestampTz,
            Some(Type::INTERVAL) => Scalar::Interval,
            Some(Type::UUID) => Scalar::Uuid,
            _ => Scalar::Printed,
        }
    }
}

/// `numeric(p, s)` keeps its digits. PostgreSQL allows more digits than a decimal has, a scale beyond the precision and a
/// negative one; what then does not fit is refused value by value.
fn numeric(modifier: i32, decimals: u8) -> Scalar {
    if modifier < 4 {
        return Scalar::Numeric {
            precision: MOST_DIGITS,
            scale: decimals,
        };
    }
    let modifier = modifier - 4;
    let precision = (modifier >> 16) & 0xffff;
    // Eleven bits with a sign.
    let scale = ((modifier & 0x7ff) ^ 1024) - 1024;
    let most = i32::from(MOST_DIGITS);
    let (precision, scale) = if scale < 0 {
        (precision - scale, 0)
    } else {
        (precision.max(scale), scale.min(most))
    };
    let byte = |number: i32| u8::try_from(number).unwrap_or(MOST_DIGITS);
    Scalar::Numeric {
        precision: byte(precision.clamp(1, most)),
        scale: byte(scale),
    }
}

impl Kind {
    /// What a computed value of an Arrow type is sent as.
    pub(super) fn of(data_type: &DataType) -> Option<Kind> {
        if let DataType::List(element) = data_type {
            return match Kind::of(element.data_type())? {
                Kind::One(scalar) => Some(Kind::List(scalar)),
                Kind::List(_) | Kind::Json => None,
            };
        }
        let scalar = match data_type {
            DataType::Boolean => Scalar::Boolean,
            DataType::Int16 => Scalar::Int2,
            DataType::Int32 => Scalar::Int4,
            DataType::Int64 => Scalar::Int8,
            DataType::Float32 => Scalar::Float4,
            DataType::Float64 => Scalar::Float8,
            DataType::Decimal128(precision, scale) => Scalar::Numeric {
                precision: *precision,
                scale: u8::try_from(*scale).ok()?,
            },
            DataType::Utf8View => Scalar::Text,
            DataType::Binary => Scalar::Bytea,
            DataType::Date32 => Scalar::Date,
            DataType::Time64(TimeUnit::Microsecond) => Scalar::Time,
            DataType::Timestamp(TimeUnit::Microsecond, None) => Scalar::Timestamp,
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => Scalar::TimestampTz,
            DataType::Interval(IntervalUnit::MonthDayNano) => Scalar::Interval,
            _ => return None,
        };
        Some(Kind::One(scalar))
    }

    /// The Arrow type.
    pub(super) fn arrow(self) -> DataType {
        match self {
            Kind::One(scalar) => scalar.arrow(),
            Kind::List(scalar) => DataType::List(Arc::new(Field::new_list_field(scalar.arrow(), true))),
            Kind::Json => DataType::Utf8View,
        }
    }

    /// Whether values of this type on the wire are what is expected.
    pub(super) fn is_sent_as(self, sent: &Type) -> bool {
        match self {
            Kind::One(scalar) => scalar.is_sent_as(sent),
            Kind::List(scalar) => match sent.kind() {
                tokio_postgres::types::Kind::Array(element) => scalar.is_sent_as(element),
                _ => false,
            },
            Kind::Json => *sent == Type::TEXT,
        }
    }
}

impl Scalar {
    pub(super) fn arrow(self) -> DataType {
        match self {
            Scalar::Boolean => DataType::Boolean,
            Scalar::Int2 => DataType::Int16,
            Scalar::Int4 => DataType::Int32,
            Scalar::Int8 | Scalar::Oid => DataType::Int64,
            Scalar::Float4 => DataType::Float32,
            Scalar::Float8 => DataType::Float64,
            // At most 38, so it fits.
            Scalar::Numeric { precision, scale } => DataType::Decimal128(precision, scale as i8),
            Scalar::Text | Scalar::Padded | Scalar::Uuid | Scalar::Label | Scalar::Printed => DataType::Utf8View,
            Scalar::Bytea => DataType::Binary,
            Scalar::Date => DataType::Date32,
            Scalar::Time => DataType::Time64(TimeUnit::Microsecond),
            Scalar::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Scalar::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Scalar::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
        }
    }

    fn is_sent_as(self, sent: &Type) -> bool {
        match self {
            Scalar::Text => *sent == Type::TEXT || *sent == Type::VARCHAR,
            Scalar::Boolean => *sent == Type::BOOL,
            Scalar::Int2 => *sent == Type::INT2,
            Scalar::Int4 => *sent == Type::INT4,
            Scalar::Int8 => *sent == Type::INT8,
            Scalar::Oid => *sent == Type::OID,
            Scalar::Float4 => *sent == Type::FLOAT4,
            Scalar::Float8 => *sent == Type::FLOAT8,
            Scalar::Numeric { .. } => *sent == Type::NUMERIC,
            Scalar::Padded => *sent == Type::BPCHAR,
            Scalar::Bytea => *sent == Type::BYTEA,
            Scalar::Date => *sent == Type::DATE,
            Scalar::Time => *sent == Type::TIME,
            Scalar::Timestamp => *sent == Type::TIMESTAMP,
            Scalar::TimestampTz => *sent == Type::TIMESTAMPTZ,
            Scalar::Interval => *sent == Type::INTERVAL,
            Scalar::Uuid => *sent == Type::UUID,
            Scalar::Label | Scalar::Printed => *sent == Type::TEXT,
        }
    }

    /// The name of the type that constants are written with.
    pub(super) fn name(self) -> &'static str {
        self.array_name().trim_end_matches("[]")
    }

    fn array_name(self) -> &'static str {
        match self {
            Scalar::Boolean => "bool[]",
            Scalar::Int2 => "int2[]",
            Scalar::Int4 => "int4[]",
            Scalar::Int8 => "int8[]",
            Scalar::Oid => "oid[]",
            Scalar::Float4 => "float4[]",
            Scalar::Float8 => "float8[]",
            Scalar::Numeric { .. } => "numeric[]",
            Scalar::Text | Scalar::Label | Scalar::Printed => "text[]",
            Scalar::Padded => "bpchar[]",
            Scalar::Bytea => "bytea[]",
            Scalar::Date => "date[]",
            Scalar::Time => "time[]",
            Scalar::Timestamp => "timestamp[]",
            Scalar::TimestampTz => "timestamptz[]",
            Scalar::Interval => "interval[]",
            Scalar::Uuid => "uuid[]",
        }
    }

    /// What is expected of a value, for messages.
    pub(super) fn describe(self) -> String {
        match self {
            Scalar::Boolean => "a boolean".to_owned(),
            Scalar::Int2 | Scalar::Int4 | Scalar::Int8 | Scalar::Oid => "an integer".to_owned(),
            Scalar::Float4 | Scalar::Float8 => "a floating point number".to_owned(),
            Scalar::Numeric { precision, scale } => {
                format!("a number of at most {precision} digits with at most {scale} after the point")
            }
            Scalar::Text | Scalar::Padded | Scalar::Uuid | Scalar::Label | Scalar::Printed => {
                "text in UTF-8".to_owned()
            }
            Scalar::Bytea => "bytes".to_owned(),
            Scalar::Date => "a date".to_owned(),
            Scalar::Time => "a time before 24:00".to_owned(),
            Scalar::Timestamp | Scalar::TimestampTz => "a timestamp of the years -290307 to 294246".to_owned(),
            Scalar::Interval => "an interval whose time is below 2562047 hours".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The modifier of `numeric(precision, scale)`.
    fn modifier(precision: i32, scale: i32) -> i32 {
        ((precision << 16) | (scale & 0x7ff)) + 4
    }

    #[test]
    fn numerics_keep_their_digits_as_far_as_there_are_digits() {
        let check = |modifier: i32, expected: (u8, u8)| {
            let (precision, scale) = expected;
            assert_eq!(numeric(modifier, 7), Scalar::Numeric { precision, scale }, "{modifier}");
        };
        check(-1, (38, 7));
        check(modifier(15, 2), (15, 2));
        check(modifier(38, 38), (38, 38));
        check(modifier(1, 0), (1, 0));
        check(modifier(50, 10), (38, 10));
        check(modifier(1000, 1000), (38, 38));
        check(modifier(3, 5), (5, 5));
        check(modifier(5, -2), (7, 0));
        check(modifier(1000, -1000), (38, 0));
    }

    #[test]
    fn every_type_has_a_kind_and_is_written_so_that_it_arrives_as_expected() {
        let check = |declared: Declared, expected: (Kind, Written)| {
            assert_eq!(declared.read_as(10), expected, "{declared:?}");
        };
        let base = |of: Type, arrays: i32, form: char| Declared {
            oid: of.oid(),
            modifier: -1,
            arrays,
            domain_inside: false,
            form,
        };
        check(base(Type::INT4, 0, 'b'), (Kind::One(Scalar::Int4), Written::Plain));
        check(base(Type::INT4, 1, 'b'), (Kind::List(Scalar::Int4), Written::Plain));
        check(base(Type::INT4, 2, 'b'), (Kind::Json, Written::AsJson));
        let of_domain = Declared {
            domain_inside: true,
            ..base(Type::INT4, 1, 'b')
        };
        check(of_domain, (Kind::List(Scalar::Int4), Written::As("int4[]")));
        check(base(Type::INET, 0, 'b'), (Kind::One(Scalar::Printed), Written::AsInet));
        check(
            base(Type::CIDR, 0, 'b'),
            (Kind::One(Scalar::Printed), Written::As("text")),
        );
        check(
            base(Type::CIDR, 1, 'b'),
            (Kind::List(Scalar::Printed), Written::As("text[]")),
        );
        let unknown = |form: char| Declared {
            oid: 99_999,
            ..base(Type::TEXT, 0, form)
        };
        check(unknown('e'), (Kind::One(Scalar::Label), Written::As("text")));
        check(unknown('c'), (Kind::Json, Written::AsJson));
        check(unknown('b'), (Kind::One(Scalar::Printed), Written::As("text")));
        assert!(Kind::List(Scalar::Text).is_sent_as(&Type::VARCHAR_ARRAY));
        assert!(!Kind::List(Scalar::Text).is_sent_as(&Type::TEXT));
        assert!(!Kind::One(Scalar::Int8).is_sent_as(&Type::FLOAT8));
    }
}

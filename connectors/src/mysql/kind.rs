//! Types of columns: as the catalogue declares them, as the server sends them, and as Arrow has them.
//!
//! In: the catalogue's words. Out: a kind, which says how a value is read.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, IntervalUnit, TimeUnit};

use super::whole::{Sent, is_whole};
use super::wire::Described;

/// How values of a column are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Int8,
    UInt8,
    Int16,
    UInt16,
    /// Of three bytes and of four.
    Int32,
    UInt32,
    Int64,
    UInt64,
    Float32,
    Float64,
    Decimal {
        precision: u8,
        scale: u8,
    },
    /// `bit(1)`
    Boolean,
    /// `bit(n)`
    Bits,
    Year,
    Date,
    /// A duration with a sign, which is often used as a time of day.
    Time,
    DateTime,
    /// A moment.
    Timestamp,
    Text,
    /// One of the labels of an `enum`, or several of a `set`.
    Label,
    /// What the server prints of other types: JSON, UUIDs, addresses.
    Printed,
    Binary,
    /// Four bytes for the reference system, and WKB.
    Geometry,
    /// Whole numbers of one size that are read as another type: what the server computes.
    Whole(Sent, DataType),
    /// A type that is not known here, by its name.
    Unknown(String),
}

/// What the catalogue says of a column's type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Declared<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// All of it.
    pub(super) full: &'a str,
    pub(super) precision: Option<u64>,
    pub(super) scale: Option<u64>,
}

impl Declared<'_> {
    pub(super) fn kind(&self) -> Kind {
        let name = self.name.to_ascii_lowercase();
        let full = self.full.to_ascii_lowercase();
        let unsigned = full.contains("unsigned") || full.contains("zerofill");
        let whole = |signed: Kind, plain: Kind| if unsigned { plain } else { signed };
        match name.as_str() {
            "tinyint" => whole(Kind::Int8, Kind::UInt8),
            "smallint" => whole(Kind::Int16, Kind::UInt16),
            "mediumint" | "int" => whole(Kind::Int32, Kind::UInt32),
            "bigint" => whole(Kind::Int64, Kind::UInt64),
            "float" => Kind::Float32,
            "double" => Kind::Float64,
            "decimal" => self.decimal().unwrap_or(Kind::Unknown(full)),
            "bit" if self.precision == Some(1) || full == "bit(1)" => Kind::Boolean,
            "bit" => Kind::Bits,
            "year" => Kind::Year,
            "date" => Kind::Date,
            "time" => Kind::Time,
            "datetime" => Kind::DateTime,
            "timestamp" => Kind::Timestamp,
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => Kind::Text,
            "enum" | "set" => Kind::Label,
            "json" | "uuid" | "inet4" | "inet6" => Kind::Printed,
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Kind::Binary,
            "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
            | "geomcollection" | "geometrycollection" => Kind::Geometry,
            _ => Kind::Unknown(full),
        }
    }

    fn decimal(&self) -> Option<Kind> {
        let precision = u8::try_from(self.precision?)
            .ok()
            .filter(|precision| (1..=65).contains(precision))?;
        let scale = u8::try_from(self.scale?).ok().filter(|scale| *scale <= precision)?;
        Some(Kind::Decimal { precision, scale })
    }
}

/// Numbers of types on the wire.
mod sent {
    pub(super) const DECIMAL: u8 = 0x00;
    pub(super) const TINY: u8 = 0x01;
    pub(super) const SHORT: u8 = 0x02;
    pub(super) const LONG: u8 = 0x03;
    pub(super) const FLOAT: u8 = 0x04;
    pub(super) const DOUBLE: u8 = 0x05;
    pub(super) const NULL: u8 = 0x06;
    pub(super) const TIMESTAMP: u8 = 0x07;
    pub(super) const LONGLONG: u8 = 0x08;
    pub(super) const INT24: u8 = 0x09;
    pub(super) const DATE: u8 = 0x0a;
    pub(super) const TIME: u8 = 0x0b;
    pub(super) const DATETIME: u8 = 0x0c;
    pub(super) const YEAR: u8 = 0x0d;
    pub(super) const VARCHAR: u8 = 0x0f;
    pub(super) const BIT: u8 = 0x10;
    pub(super) const JSON: u8 = 0xf5;
    pub(super) const NEWDECIMAL: u8 = 0xf6;
    pub(super) const ENUM: u8 = 0xf7;
    pub(super) const STRING: u8 = 0xfe;
    pub(super) const GEOMETRY: u8 = 0xff;
}

const UNSIGNED: u16 = 0x20;

/// The collation of what is no text.
const BINARY: u16 = 63;

impl Kind {
    /// The type of its column.
    pub(super) fn arrow(&self) -> DataType {
        match self {
            Kind::Int8 => DataType::Int8,
            Kind::UInt8 => DataType::UInt8,
            Kind::Int16 | Kind::Year => DataType::Int16,
            Kind::UInt16 => DataType::UInt16,
            Kind::Int32 => DataType::Int32,
            Kind::UInt32 => DataType::UInt32,
            Kind::Int64 => DataType::Int64,
            Kind::UInt64 | Kind::Bits => DataType::UInt64,
            Kind::Float32 => DataType::Float32,
            Kind::Float64 => DataType::Float64,
            Kind::Decimal { precision, scale } => {
                let digits = i8::try_from(*scale).unwrap_or(i8::MAX);
                if *precision <= DECIMAL128_MAX_PRECISION {
                    DataType::Decimal128(*precision, digits)
                } else {
                    DataType::Decimal256(*precision, digits)
                }
            }
            Kind::Boolean => DataType::Boolean,
            Kind::Whole(_, data_type) => data_type.clone(),
            Kind::Date => DataType::Date32,
            Kind::Time => DataType::Interval(IntervalUnit::MonthDayNano),
            Kind::DateTime => DataType::Timestamp(TimeUnit::Microsecond, None),
            Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Kind::Text | Kind::Label | Kind::Printed | Kind::Unknown(_) => DataType::Utf8View,
            Kind::Binary | Kind::Geometry => DataType::Binary,
        }
    }

    /// Whether it can have values that no calendar has.
    pub(super) fn is_date(&self) -> bool {
        matches!(self, Kind::Date | Kind::DateTime | Kind::Timestamp)
    }

    /// Whether values that are sent like this can be read as this kind.
    pub(super) fn is_sent_as(&self, column: &Described) -> bool {
        let unsigned = column.flags & UNSIGNED != 0;
        let is_string = matches!(column.sent_as, sent::VARCHAR | sent::ENUM..=sent::STRING);
        match self {
            Kind::Int8 => column.sent_as == sent::TINY && !unsigned,
            Kind::UInt8 => column.sent_as == sent::TINY && unsigned,
            Kind::Int16 => column.sent_as == sent::SHORT && !unsigned,
            Kind::UInt16 => column.sent_as == sent::SHORT && unsigned,
            Kind::Int32 => matches!(column.sent_as, sent::LONG | sent::INT24) && !unsigned,
            Kind::UInt32 => matches!(column.sent_as, sent::LONG | sent::INT24) && unsigned,
            Kind::Int64 => column.sent_as == sent::LONGLONG && !unsigned,
            Kind::UInt64 => column.sent_as == sent::LONGLONG && unsigned,
            Kind::Float32 => column.sent_as == sent::FLOAT,
            Kind::Float64 => column.sent_as == sent::DOUBLE,
            Kind::Decimal { .. } => matches!(column.sent_as, sent::NEWDECIMAL | sent::DECIMAL),
            Kind::Boolean | Kind::Bits => column.sent_as == sent::BIT,
            Kind::Year => column.sent_as == sent::YEAR,
            Kind::Date => column.sent_as == sent::DATE,
            Kind::Time => column.sent_as == sent::TIME,
            Kind::DateTime => column.sent_as == sent::DATETIME,
            Kind::Timestamp => column.sent_as == sent::TIMESTAMP,
            Kind::Text | Kind::Label => is_string && column.collation != BINARY,
            Kind::Printed => is_string || column.sent_as == sent::JSON,
            Kind::Binary => is_string && column.collation == BINARY,
            Kind::Geometry => column.sent_as == sent::GEOMETRY,
            Kind::Whole(Sent::Digits, _) => column.sent_as == sent::NEWDECIMAL,
            Kind::Whole(sent, _) => Some(*sent) == whole_as_sent(column),
            Kind::Unknown(_) => false,
        }
    }

    /// How values that the server computed, and sends like this, are read as a type; `None` when they are of another sort.
    pub(super) fn computed(data_type: &DataType, column: &Described) -> Option<Kind> {
        let kinds = match data_type {
            whole if is_whole(whole) && whole_as_sent(column).is_some() => {
                return Some(Kind::Whole(whole_as_sent(column)?, whole.clone()));
            }
            DataType::Boolean => vec![Kind::Boolean, Kind::Whole(Sent::Digits, data_type.clone())],
            DataType::UInt64 => vec![Kind::Bits, Kind::Whole(Sent::Digits, data_type.clone())],
            whole if whole.is_integer() => vec![Kind::Whole(Sent::Digits, whole.clone())],
            DataType::Float32 => vec![Kind::Float32],
            DataType::Float64 => vec![Kind::Float64],
            DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => vec![Kind::Decimal {
                precision: *precision,
                scale: u8::try_from(*scale).ok()?,
            }],
            DataType::Date32 => vec![Kind::Date],
            DataType::Timestamp(TimeUnit::Microsecond, None) => vec![Kind::DateTime],
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => vec![Kind::Timestamp],
            DataType::Interval(IntervalUnit::MonthDayNano) => vec![Kind::Time],
            DataType::Utf8View => vec![Kind::Text, Kind::Printed],
            DataType::Binary => vec![Kind::Binary, Kind::Geometry],
            _ => Vec::new(),
        };
        // What is nothing but NULL has no type.
        let is_null = column.sent_as == sent::NULL;
        kinds.into_iter().find(|kind| is_null || kind.is_sent_as(column))
    }

    /// What a value of it must be, for messages.
    pub(super) fn describe(&self) -> String {
        match self {
            Kind::Date | Kind::DateTime | Kind::Timestamp => "a date of the calendar".to_owned(),
            Kind::Decimal { precision, scale } => {
                format!("a number of at most {precision} digits with at most {scale} after the point")
            }
            Kind::Text | Kind::Label | Kind::Printed => "text".to_owned(),
            Kind::Geometry => "a geometry".to_owned(),
            other => format!("a value of type {}", other.arrow()),
        }
    }
}

/// How whole numbers are sent; `None` when the column has none.
fn whole_as_sent(column: &Described) -> Option<Sent> {
    let bytes = match column.sent_as {
        sent::TINY => 1,
        sent::SHORT | sent::YEAR => 2,
        sent::LONG | sent::INT24 => 4,
        sent::LONGLONG => 8,
        _ => return None,
    };
    let is_signed = column.flags & UNSIGNED == 0;
    Some(Sent::Number { bytes, is_signed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(full: &str, precision: Option<u64>, scale: Option<u64>, expected: Kind) {
        let name = full.split(['(', ' ']).next().unwrap();
        let declared = Declared {
            name,
            full,
            precision,
            scale,
        };
        assert_eq!(declared.kind(), expected, "{full}");
    }

    #[test]
    fn declared_types_are_told_apart() {
        check("tinyint(1)", Some(3), Some(0), Kind::Int8);
        check("int(10) unsigned zerofill", Some(10), Some(0), Kind::UInt32);
        check("enum('unsigned')", None, None, Kind::Label);
        check("bit(1)", Some(1), None, Kind::Boolean);
        check("bit(64)", Some(64), None, Kind::Bits);
        let decimal = |precision, scale| Kind::Decimal { precision, scale };
        check("decimal(65,30)", Some(65), Some(30), decimal(65, 30));
        assert_eq!(decimal(38, 0).arrow(), DataType::Decimal128(38, 0));
        assert_eq!(decimal(39, 30).arrow(), DataType::Decimal256(39, 30));
        // What is not known is a column that cannot be read, not a table that cannot.
        check("vector(3)", None, None, Kind::Unknown("vector(3)".to_owned()));
        check("decimal", None, None, Kind::Unknown("decimal".to_owned()));
        for sent_as in 0..=u8::MAX {
            let column = Described {
                sent_as,
                flags: 0,
                collation: 45,
            };
            assert!(!Kind::Unknown("vector(3)".to_owned()).is_sent_as(&column));
        }
    }

    #[test]
    fn the_sign_and_the_collation_are_part_of_what_is_sent() {
        let described = |sent_as, flags, collation| Described {
            sent_as,
            flags,
            collation,
        };
        assert!(Kind::UInt64.is_sent_as(&described(sent::LONGLONG, UNSIGNED, BINARY)));
        assert!(!Kind::Int64.is_sent_as(&described(sent::LONGLONG, UNSIGNED, BINARY)));
        assert!(Kind::Text.is_sent_as(&described(0xfc, 0, 45)));
        assert!(!Kind::Text.is_sent_as(&described(0xfc, 0, BINARY)));
        assert!(Kind::Binary.is_sent_as(&described(0xfd, 0, BINARY)));
        assert!(!Kind::Geometry.is_sent_as(&described(0xfc, 0, BINARY)));
    }
}

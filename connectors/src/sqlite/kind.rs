//! The types of SQLite columns.
//!
//! In: declared types. Out: the Arrow types that columns are read as. A declared type is a promise that SQLite does not
//! enforce, so every value is checked when it is read (`decode.rs`). `docs/depots/sqlite.md` has the table of this file.

use arrow::datatypes::{DataType, TimeUnit};

/// What the values of a column are read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean,
    Integer,
    /// What some functions make; no column is declared so.
    Short,
    Real,
    Text,
    Blob,
    Date,
    Timestamp,
    Decimal(u8, i8),
}

impl Kind {
    /// The kind of a declared type; `None` when nothing is declared, or when anything is allowed.
    pub(super) fn of_declared(declared: &str) -> Option<Kind> {
        let declared = declared.trim().to_ascii_uppercase();
        let (name, arguments) = match declared.split_once('(') {
            Some((name, arguments)) => (name.trim(), arguments.trim_end().strip_suffix(')')),
            None => (declared.as_str(), None),
        };
        match name {
            "" | "ANY" => None,
            "BOOL" | "BOOLEAN" => Some(Kind::Boolean),
            "DATE" => Some(Kind::Date),
            "DATETIME" | "TIMESTAMP" => Some(Kind::Timestamp),
            "DEC" | "DECIMAL" | "NUMERIC" => Some(arguments.and_then(decimal).unwrap_or(Kind::Real)),
            _ => Some(Kind::of_affinity(&declared)),
        }
    }

    /// SQLite's own rules, in its order.
    fn of_affinity(declared: &str) -> Kind {
        let has = |part: &str| declared.contains(part);
        if has("INT") {
            Kind::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Kind::Text
        } else if has("BLOB") {
            Kind::Blob
        } else {
            // REAL, and NUMERIC: numbers of either sort.
            Kind::Real
        }
    }

    /// The kind that reads as this Arrow type.
    pub(super) fn of_arrow(data_type: &DataType) -> Option<Kind> {
        match data_type {
            DataType::Boolean => Some(Kind::Boolean),
            DataType::Int64 => Some(Kind::Integer),
            DataType::Int32 => Some(Kind::Short),
            DataType::Float64 => Some(Kind::Real),
            DataType::Utf8View => Some(Kind::Text),
            DataType::Binary => Some(Kind::Blob),
            DataType::Date32 => Some(Kind::Date),
            DataType::Timestamp(TimeUnit::Microsecond, None) => Some(Kind::Timestamp),
            DataType::Decimal128(precision, scale) => Some(Kind::Decimal(*precision, *scale)),
            _ => None,
        }
    }

    /// The Arrow type.
    pub(super) fn arrow(self) -> DataType {
        match self {
            Kind::Boolean => DataType::Boolean,
            Kind::Integer => DataType::Int64,
            Kind::Short => DataType::Int32,
            Kind::Real => DataType::Float64,
            Kind::Text => DataType::Utf8View,
            Kind::Blob => DataType::Binary,
            Kind::Date => DataType::Date32,
            Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Kind::Decimal(precision, scale) => DataType::Decimal128(precision, scale),
        }
    }

    /// The type that a column is declared with, so that it is read as this kind; without a blank. `None` for what no column is.
    pub(super) fn declared(self) -> Option<String> {
        Some(match self {
            Kind::Boolean => "BOOLEAN".to_owned(),
            Kind::Integer => "INTEGER".to_owned(),
            Kind::Short => return None,
            Kind::Real => "REAL".to_owned(),
            Kind::Text => "TEXT".to_owned(),
            Kind::Blob => "BLOB".to_owned(),
            Kind::Date => "DATE".to_owned(),
            Kind::Timestamp => "TIMESTAMP".to_owned(),
            Kind::Decimal(precision, scale) => format!("DECIMAL({precision},{scale})"),
        })
    }

    /// What is expected of a value, for messages.
    pub(super) fn describe(self) -> String {
        match self {
            Kind::Boolean => "a boolean (the integer 0 or 1)".to_owned(),
            Kind::Integer => "an integer".to_owned(),
            Kind::Short => "an integer of 32 bits".to_owned(),
            Kind::Real => "a number that fits 64-bit floating point".to_owned(),
            Kind::Text => "text in UTF-8".to_owned(),
            Kind::Blob => "a blob".to_owned(),
            Kind::Date => "a date as text like `2024-12-31`".to_owned(),
            Kind::Timestamp => "a timestamp as text like `2024-12-31 23:59:59.999999`".to_owned(),
            Kind::Decimal(precision, scale) => {
                format!("a number of at most {precision} digits with at most {scale} after the point")
            }
        }
    }
}

/// The kind of `DECIMAL(precision, scale)`, when Arrow has it.
fn decimal(arguments: &str) -> Option<Kind> {
    let (precision, scale) = arguments.split_once(',').unwrap_or((arguments, "0"));
    let precision: u8 = precision.trim().parse().ok()?;
    let scale: i8 = scale.trim().parse().ok()?;
    let fits = (1..=38).contains(&precision) && scale >= 0 && u8::try_from(scale).is_ok_and(|scale| scale <= precision);
    fits.then_some(Kind::Decimal(precision, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_follow_the_documented_table() {
        let check =
            |declared: &str, expected: Option<Kind>| assert_eq!(Kind::of_declared(declared), expected, "{declared}");
        check("integer", Some(Kind::Integer));
        check("UNSIGNED BIG INT", Some(Kind::Integer));
        check("FLOATING POINT", Some(Kind::Integer)); // SQLite finds INT in POINT.
        check("VARCHAR(20)", Some(Kind::Text));
        check("character varying (20)", Some(Kind::Text));
        check("Blob", Some(Kind::Blob));
        check("double precision", Some(Kind::Real));
        check("boolean", Some(Kind::Boolean));
        check("DATE", Some(Kind::Date));
        check("datetime", Some(Kind::Timestamp));
        check("Timestamp(6)", Some(Kind::Timestamp));
        check("DECIMAL(10, 2)", Some(Kind::Decimal(10, 2)));
        check("numeric(5)", Some(Kind::Decimal(5, 0)));
        check("NUMERIC", Some(Kind::Real));
        check("DECIMAL(60,2)", Some(Kind::Real));
        check("MONEY", Some(Kind::Real));
        check("", None);
        check("ANY", None);
    }

    #[test]
    fn what_a_kind_is_declared_as_is_read_as_it() {
        let kinds = [
            Kind::Boolean,
            Kind::Integer,
            Kind::Real,
            Kind::Text,
            Kind::Blob,
            Kind::Date,
            Kind::Timestamp,
            Kind::Decimal(38, 10),
        ];
        for kind in kinds {
            let declared = kind.declared().unwrap();
            assert_eq!(Kind::of_declared(&declared), Some(kind));
            assert!(!declared.contains(' '));
        }
    }
}

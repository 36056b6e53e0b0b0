//! The one statement that a scan becomes.
//!
//! In: a scan and the table as the catalogue has it. Out: SQL text. Names and values are part of the text, quoted here and nowhere else, in forms that
//! mean the same under every `sql_mode`. [`accepts`] says which filters mean the same to the server as to DataFusion; what it refuses is never written.

use std::fmt::Write;

use arrow::datatypes::{Decimal128Type, Decimal256Type, DecimalType};
use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::common::ScalarValue;

use super::catalog::{Column, Table};
use super::kind::Kind;
use crate::{Comparison, Scan, ScanFilter};

/// The name that the table has inside the statement.
const ALIAS: &str = "t";

/// Days from 0001-01-01 to 1970-01-01, in chrono's count from the common era.
const EPOCH_DAYS: i32 = 719_163;

/// What every server can store as a `timestamp`: from the second second of 1970 on, for 31 bits.
const MOMENTS: std::ops::RangeInclusive<i64> = 1_000_000..=2_147_483_647_000_000;

/// The most digits of a decimal constant.
const MOST_DIGITS: usize = 65;

/// Whether the server decides a comparison or NULL test exactly as DataFusion does.
pub(super) fn accepts(filter: &ScanFilter, table: &Table) -> bool {
    let mut nowhere = String::new();
    match filter {
        ScanFilter::All(_) | ScanFilter::Any(_) => false,
        leaf => condition(&mut nowhere, leaf, table).is_some(),
    }
}

/// The `SELECT` for a scan; `None` when the table has not got what is asked for, or not any more.
pub(super) fn select(scan: &Scan, table: &Table) -> Option<String> {
    let mut sql = "SELECT ".to_owned();
    for (position, field) in scan.schema.fields().iter().enumerate() {
        sql.push_str(if position == 0 { "" } else { ", " });
        table.columns.get(field.name())?;
        sql.push_str(&column_name(field.name())?);
    }
    if scan.schema.fields().is_empty() {
        // Rows must have something in them.
        sql.push_str("NULL");
    }
    push(
        &mut sql,
        format_args!(
            " FROM {} AS {ALIAS}",
            table_name(&scan.address.collection, &scan.address.dataset)?
        ),
    );
    let mut between = " WHERE ";
    for filter in &scan.filters {
        sql.push_str(between);
        condition(&mut sql, filter, table)?;
        between = " AND ";
    }
    if let Some(limit) = scan.limit {
        push(&mut sql, format_args!(" LIMIT {limit}"));
    }
    Some(sql)
}

/// A filter that [`accepts`] lets through in all its parts, over a table that is called as in a scan.
pub(super) fn filter(filter: &ScanFilter, table: &Table) -> Option<String> {
    let mut sql = "(".to_owned();
    condition(&mut sql, filter, table)?;
    sql.push(')');
    Some(sql)
}

/// The table in a FROM clause, with the name that its columns are written with.
pub(super) fn source(collection: &str, dataset: &str) -> Option<String> {
    Some(format!("{} AS {ALIAS}", table_name(collection, dataset)?))
}

/// The columns that a scan reads or compares.
pub(super) fn columns(scan: &Scan) -> Vec<&str> {
    let mut found: Vec<&str> = scan.schema.fields().iter().map(|field| field.name().as_str()).collect();
    let filters = scan.filters.iter();
    filters.for_each(|filter| filter.columns(&mut |column| found.push(column)));
    found
}

fn condition(sql: &mut String, filter: &ScanFilter, table: &Table) -> Option<()> {
    match filter {
        ScanFilter::Compare {
            column,
            comparison,
            value,
        } => compare(sql, column, *comparison, std::slice::from_ref(value), table)?,
        ScanFilter::OneOf { values, .. } if values.is_empty() => sql.push_str("FALSE"),
        ScanFilter::OneOf { column, values } => compare(sql, column, Comparison::Equal, values, table)?,
        ScanFilter::IsNull(column) => push(sql, format_args!("{} IS NULL", null_tested(column, table)?)),
        ScanFilter::IsNotNull(column) => push(sql, format_args!("{} IS NOT NULL", null_tested(column, table)?)),
        ScanFilter::All(filters) => branches(sql, filters, table, " AND ", "TRUE")?,
        ScanFilter::Any(filters) => branches(sql, filters, table, " OR ", "FALSE")?,
    }
    Some(())
}

fn branches(sql: &mut String, filters: &[ScanFilter], table: &Table, between: &str, none: &str) -> Option<()> {
    sql.push('(');
    for (position, filter) in filters.iter().enumerate() {
        sql.push_str(if position == 0 { "" } else { between });
        condition(sql, filter, table)?;
    }
    sql.push_str(if filters.is_empty() { none } else { "" });
    sql.push(')');
    Some(())
}

/// Writes that a column compares so with a value, or is one of several.
fn compare(sql: &mut String, name: &str, comparison: Comparison, values: &[ScalarValue], table: &Table) -> Option<()> {
    let column = table.columns.get(name)?;
    let plain = column_name(name)?;
    let is_equality = comparison == Comparison::Equal;
    // A date that no calendar has is before every other to the server, or between two, and is NULL here.
    if column.kind.is_date() && table.zero_dates_are_null && !is_equality {
        return None;
    }
    if !matches!(column.kind, Kind::Text | Kind::Label) {
        let constants: Option<Vec<String>> = values.iter().map(|value| literal(&column.kind, value)).collect();
        side_by_side(sql, &plain, comparison, &constants?);
        return Some(());
    }
    let texts: Option<Vec<&str>> = values.iter().map(text_of).collect();
    let texts = texts?;
    // Equal byte by byte is equal in every collation, so this is true wherever the exact comparison is. It finds rows in an index.
    // A text that a view makes may have no collation to be compared by.
    if is_equality
        && column.kind == Kind::Text
        && !table.is_view
        && texts.iter().all(|text| is_in_character_set(text, column))
    {
        let constants: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
        side_by_side(sql, &plain, comparison, &constants);
        sql.push_str(" AND ");
    }
    // What the column holds, in the bytes that are read. Bytes are compared without a collation, and without ignoring blanks at the end.
    let exact = format!("CAST(CONVERT({plain} USING utf8mb4) AS BINARY)");
    let constants: Vec<String> = texts.iter().map(|text| hexadecimal(text.as_bytes())).collect();
    side_by_side(sql, &exact, comparison, &constants);
    Some(())
}

fn side_by_side(sql: &mut String, left: &str, comparison: Comparison, constants: &[String]) {
    match constants {
        [one] => push(sql, format_args!("{left} {} {one}", comparison.sql())),
        many => push(sql, format_args!("{left} IN ({})", many.join(", "))),
    }
}

/// Whether the server compares the constant in the column's character set, without an error for a letter that has no form in it.
fn is_in_character_set(text: &str, column: &Column) -> bool {
    match column.character_set.as_deref() {
        Some("utf8mb4") => true,
        Some("utf8" | "utf8mb3") => text.chars().all(|letter| u32::from(letter) <= 0xffff),
        // ASCII and those that extend it.
        Some(
            "ascii" | "latin1" | "latin2" | "latin5" | "latin7" | "cp1250" | "cp1251" | "cp1256" | "cp1257" | "koi8r",
        ) => text.is_ascii(),
        _ => false,
    }
}

fn text_of(value: &ScalarValue) -> Option<&str> {
    match value {
        ScalarValue::Utf8View(Some(text)) => Some(text),
        _ => None,
    }
}

/// A column in a NULL test.
fn null_tested(name: &str, table: &Table) -> Option<String> {
    let column = table.columns.get(name)?;
    // To the server `0000-00-00` is NULL in a column that has no NULLs, and is not in others.
    let is_certain = !column.kind.is_date() || (!column.is_not_null && !table.zero_dates_are_null);
    (is_certain && !matches!(column.kind, Kind::Unknown(_))).then(|| column_name(name))?
}

/// A constant of the column's type; `None` when the server has no such value, or would compare it differently.
fn literal(kind: &Kind, value: &ScalarValue) -> Option<String> {
    Some(match (kind, value) {
        (Kind::Int8, ScalarValue::Int8(Some(value))) => value.to_string(),
        (Kind::UInt8, ScalarValue::UInt8(Some(value))) => value.to_string(),
        (Kind::Int16, ScalarValue::Int16(Some(value))) => value.to_string(),
        (Kind::UInt16, ScalarValue::UInt16(Some(value))) => value.to_string(),
        (Kind::Int32, ScalarValue::Int32(Some(value))) => value.to_string(),
        (Kind::UInt32, ScalarValue::UInt32(Some(value))) => value.to_string(),
        (Kind::Int64, ScalarValue::Int64(Some(value))) => value.to_string(),
        (Kind::UInt64 | Kind::Bits, ScalarValue::UInt64(Some(value))) => value.to_string(),
        (Kind::Boolean, ScalarValue::Boolean(Some(value))) => u8::from(*value).to_string(),
        // To the server the years 1 to 99 are others.
        (Kind::Year, ScalarValue::Int16(Some(year @ 1901..=2155))) => year.to_string(),
        // DataFusion tells -0.0 from 0.0 and one NaN from another; the server does not. A constant is a double, and so is the column when they are compared.
        (Kind::Float32, ScalarValue::Float32(Some(value))) if *value != 0.0 && value.is_finite() => {
            format!("{:e}", f64::from(*value))
        }
        (Kind::Float64, ScalarValue::Float64(Some(value))) if *value != 0.0 && value.is_finite() => {
            format!("{value:e}")
        }
        (Kind::Decimal { .. }, ScalarValue::Decimal128(Some(value), precision, scale)) => {
            Decimal128Type::format_decimal(*value, *precision, *scale)
        }
        (Kind::Decimal { .. }, ScalarValue::Decimal256(Some(value), precision, scale)) => {
            let text = Decimal256Type::format_decimal(*value, *precision, *scale);
            let digits = text.bytes().filter(u8::is_ascii_digit).count();
            (digits <= MOST_DIGITS).then_some(text)?
        }
        (Kind::Binary, ScalarValue::Binary(Some(value))) => hexadecimal(value),
        (Kind::Date, ScalarValue::Date32(Some(days))) => format!("DATE'{}'", date(*days)?),
        (Kind::DateTime, ScalarValue::TimestampMicrosecond(Some(value), None)) => {
            format!("TIMESTAMP'{}'", timestamp(*value)?)
        }
        // The session's time zone is UTC.
        (Kind::Timestamp, ScalarValue::TimestampMicrosecond(Some(value), Some(zone)))
            if zone.as_ref() == "UTC" && MOMENTS.contains(value) =>
        {
            format!("TIMESTAMP'{}'", timestamp(*value)?)
        }
        _ => return None,
    })
}

/// Years beyond these are written in ways that are not worth a mistake.
fn is_plain_year(date: NaiveDate) -> bool {
    (1..=9999).contains(&date.year())
}

fn date(days: i32) -> Option<String> {
    let date = NaiveDate::from_num_days_from_ce_opt(days.checked_add(EPOCH_DAYS)?)?;
    is_plain_year(date).then(|| date.format("%Y-%m-%d").to_string())
}

fn timestamp(microseconds: i64) -> Option<String> {
    let timestamp = DateTime::from_timestamp_micros(microseconds)?.naive_utc();
    is_plain_year(timestamp.date()).then(|| timestamp.format("%Y-%m-%d %H:%M:%S%.6f").to_string())
}

pub(super) fn column_name(name: &str) -> Option<String> {
    Some(format!("{ALIAS}.{}", identifier(name)?))
}

/// A table with its database.
fn table_name(collection: &str, dataset: &str) -> Option<String> {
    Some(format!("{}.{}", identifier(collection)?, identifier(dataset)?))
}

/// Whether something may have this name: none has a NUL character, or one beyond the first 65,536.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|letter| letter != '\0' && u32::from(letter) <= 0xffff)
}

/// A name in backticks, which quote names under every `sql_mode`.
pub(super) fn identifier(name: &str) -> Option<String> {
    is_name(name).then(|| format!("`{}`", name.replace('`', "``")))
}

/// A text in single quotes, which quote texts under every `sql_mode`. What a backslash means depends on it, so a text with one is written in digits.
pub(super) fn quoted(text: &str) -> String {
    if text.chars().any(|letter| letter == '\\' || letter.is_control()) {
        return format!("_utf8mb4 {}", hexadecimal(text.as_bytes()));
    }
    format!("'{}'", text.replace('\'', "''"))
}

/// Bytes in digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len() + 3);
    text.push_str("X'");
    for byte in bytes {
        push(&mut text, format_args!("{byte:02X}"));
    }
    text.push('\'');
    text
}

fn push(sql: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = sql.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Field, Schema};
    use minerva_resources::Address;

    use super::*;

    fn table(columns: &[(&str, Kind, bool)], zero_dates_are_null: bool) -> Table {
        let column = |kind: &Kind, is_not_null| Column {
            kind: kind.clone(),
            character_set: Some("utf8mb4".to_owned()),
            characters: None,
            leads_index: false,
            is_not_null,
            is_readable: true,
        };
        Table {
            schema: Arc::new(Schema::empty()),
            columns: columns
                .iter()
                .map(|(name, kind, not_null)| ((*name).to_owned(), column(kind, *not_null)))
                .collect(),
            is_view: false,
            computes: true,
            rows: None,
            zero_dates_are_null,
        }
    }

    fn compare(column: &str, comparison: Comparison, value: ScalarValue) -> ScanFilter {
        ScanFilter::Compare {
            column: column.to_owned(),
            comparison,
            value,
        }
    }

    fn text(value: &str) -> ScalarValue {
        ScalarValue::Utf8View(Some(value.to_owned()))
    }

    #[test]
    fn names_and_values_are_quoted() {
        let table = table(
            &[("id", Kind::Int64, true), ("n`; DROP TABLE x", Kind::Text, false)],
            false,
        );
        let fields: Vec<Field> = ["id", "n`; DROP TABLE x"]
            .into_iter()
            .map(|name| Field::new(name, table.columns[name].kind.arrow(), true))
            .collect();
        let scan = Scan {
            address: Address {
                depot: "d".to_owned(),
                collection: "Da`ta".to_owned(),
                dataset: "a \"b\"; --".to_owned(),
            },
            schema: Arc::new(Schema::new(fields)),
            filters: vec![
                compare("n`; DROP TABLE x", Comparison::Equal, text("\\' OR 1=1 --")),
                ScanFilter::Any(vec![
                    ScanFilter::IsNull("id".to_owned()),
                    ScanFilter::OneOf {
                        column: "id".to_owned(),
                        values: vec![1_i64.into(), (-2_i64).into()],
                    },
                ]),
            ],
            limit: Some(3),
            snapshot: None,
            query: None,
        };
        assert_eq!(
            select(&scan, &table).unwrap(),
            "SELECT t.`id`, t.`n``; DROP TABLE x` FROM `Da``ta`.`a \"b\"; --` AS t \
             WHERE t.`n``; DROP TABLE x` = _utf8mb4 X'5C27204F5220313D31202D2D' \
             AND CAST(CONVERT(t.`n``; DROP TABLE x` USING utf8mb4) AS BINARY) = X'5C27204F5220313D31202D2D' \
             AND (t.`id` IS NULL OR t.`id` IN (1, -2)) LIMIT 3"
        );
        let nothing = Scan {
            schema: Arc::new(Schema::empty()),
            filters: Vec::new(),
            ..scan
        };
        assert_eq!(
            select(&nothing, &table).unwrap(),
            "SELECT NULL FROM `Da``ta`.`a \"b\"; --` AS t LIMIT 3"
        );
    }

    #[test]
    fn texts_and_names_mean_the_same_in_every_mode() {
        for (value, expected) in [
            ("", "''"),
            ("it's", "'it''s'"),
            ("a\"b`c", "'a\"b`c'"),
            ("é😀", "'é😀'"),
            ("\\", "_utf8mb4 X'5C'"),
            ("a\0b", "_utf8mb4 X'610062'"),
            ("\n", "_utf8mb4 X'0A'"),
            ("' OR 1=1 -- ", "''' OR 1=1 -- '"),
        ] {
            assert_eq!(quoted(value), expected);
        }
        for (name, expected) in [
            ("a", Some("`a`")),
            ("a`b", Some("`a``b`")),
            ("a\"b\\'", Some("`a\"b\\'`")),
            ("é", Some("`é`")),
            ("a\0", None),
            ("😀", None),
            ("", None),
        ] {
            assert_eq!(identifier(name).as_deref(), expected);
        }
        assert_eq!(hexadecimal(b"\x00\xff'"), "X'00FF27'");
    }

    #[test]
    fn what_the_server_would_decide_otherwise_is_refused() {
        let columns = [
            ("f", Kind::Float64, false),
            ("f4", Kind::Float32, false),
            ("y", Kind::Year, false),
            ("d", Kind::Date, false),
            ("dn", Kind::Date, true),
            ("ts", Kind::Timestamp, false),
            ("t", Kind::Time, false),
            ("j", Kind::Printed, false),
            ("u", Kind::Unknown("vector".to_owned()), false),
        ];
        let (plain, zero) = (table(&columns, false), table(&columns, true));
        let check = |filter: ScanFilter, expected: (bool, bool)| {
            assert_eq!(
                (accepts(&filter, &plain), accepts(&filter, &zero)),
                expected,
                "{filter}"
            );
        };
        let equal = |column: &str, value| compare(column, Comparison::Equal, value);
        check(equal("f", 1.5_f64.into()), (true, true));
        for value in [0.0, -0.0, f64::NAN, f64::INFINITY] {
            check(equal("f", value.into()), (false, false));
        }
        check(equal("y", ScalarValue::Int16(Some(2020))), (true, true));
        check(equal("y", ScalarValue::Int16(Some(20))), (false, false));
        check(equal("d", ScalarValue::Date32(Some(0))), (true, true));
        check(
            compare("d", Comparison::Less, ScalarValue::Date32(Some(0))),
            (true, false),
        );
        check(equal("d", ScalarValue::Date32(Some(i32::MAX))), (false, false));
        let moment = |micros| ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()));
        check(equal("ts", moment(5_000_000)), (true, true));
        check(equal("ts", moment(0)), (false, false));
        check(ScanFilter::IsNull("d".to_owned()), (true, false));
        check(ScanFilter::IsNull("dn".to_owned()), (false, false));
        check(ScanFilter::IsNull("f".to_owned()), (true, true));
        check(ScanFilter::IsNull("t".to_owned()), (true, true));
        check(ScanFilter::IsNull("u".to_owned()), (false, false));
        check(equal("j", text("a")), (false, false));
        check(equal("u", text("a")), (false, false));
        assert_eq!(
            literal(&Kind::Float32, &ScalarValue::Float32(Some(1.1))).unwrap(),
            "1.100000023841858e0"
        );
        assert_eq!(
            literal(&Kind::Float64, &ScalarValue::Float64(Some(1e300))).unwrap(),
            "1e300"
        );
    }
}

//! The one statement that a scan becomes.
//!
//! In: a scan and the table as the catalogue has it. Out: SQL text. `COPY` takes no parameters, so names and values are part of
//! the text, quoted here and nowhere else. [`accepts`] says which filters mean the same to PostgreSQL as to DataFusion;
//! what it refuses is never written.

use std::fmt::Write;

use arrow::datatypes::{Decimal128Type, DecimalType};
use chrono::{DateTime, Datelike, NaiveDate, NaiveTime};
use datafusion::common::ScalarValue;
use minerva_resources::Address;

use super::catalog::{Column, Compared, Table};
use super::kind::{Kind, Scalar, Written};
use crate::{Comparison, Scan, ScanFilter, Split};

/// The name that the table has inside the statement.
const ALIAS: &str = "t";

/// The end of the range that has no end: a table may have grown since its pages were counted.
pub(super) const LAST_PAGE: u64 = u64::MAX;

/// Days from 0001-01-01 to 1970-01-01, in chrono's count from the common era.
const EPOCH_DAYS: i32 = 719_163;

/// Whether PostgreSQL decides a comparison or NULL test exactly as DataFusion does.
pub(super) fn accepts(filter: &ScanFilter, table: &Table) -> bool {
    let mut nowhere = String::new();
    match filter {
        ScanFilter::All(_) | ScanFilter::Any(_) => false,
        leaf => condition(&mut nowhere, leaf, table).is_some(),
    }
}

/// The `SELECT` for one piece of a scan; `None` when the table has not got what is asked for, or not any more.
pub(super) fn select(scan: &Scan, table: &Table, split: &Split, parts: Option<&str>) -> Option<String> {
    let mut sql = "SELECT ".to_owned();
    for (position, field) in scan.schema.fields().iter().enumerate() {
        sql.push_str(if position == 0 { "" } else { ", " });
        let column = table.columns.get(field.name())?;
        sql.push_str(&value_of(field.name(), column)?);
    }
    push(&mut sql, format_args!(" FROM {}", source(&scan.address)?));
    let mut between = " WHERE ";
    if let Some(piece) = piece(split, parts) {
        push(&mut sql, format_args!(" WHERE {piece}"));
        between = " AND ";
    }
    for filter in &scan.filters {
        sql.push_str(between);
        condition(&mut sql, filter, table)?;
        between = " AND ";
    }
    if let Some(limit) = scan.limit {
        // PostgreSQL counts in 64 bits with a sign.
        push(&mut sql, format_args!(" LIMIT {}", limit.min(i64::MAX as usize)));
    }
    Some(sql)
}

/// A table in a FROM clause.
pub(super) fn source(address: &Address) -> Option<String> {
    let (schema, name) = (identifier(&address.collection)?, identifier(&address.dataset)?);
    Some(format!("{schema}.{name} AS {ALIAS}"))
}

/// The condition on rows of a piece of a table: a range of pages of each table that its rows lie in, and which tables these are, as a list of numbers.
pub(super) fn piece(split: &Split, parts: Option<&str>) -> Option<String> {
    let among = |parts: &str| match parts.contains(',') {
        true => format!("{ALIAS}.tableoid OPERATOR(pg_catalog.=) ANY ('{{{parts}}}'::pg_catalog.oid[])"),
        false => format!("{ALIAS}.tableoid OPERATOR(pg_catalog.=) '{parts}'::pg_catalog.oid"),
    };
    let conditions: Vec<String> = pages(split).into_iter().chain(parts.map(among)).collect();
    (!conditions.is_empty()).then(|| conditions.join(" AND "))
}

fn pages(split: &Split) -> Option<String> {
    let Split::Range { from, to } = split else { return None };
    let bound = |operator: &str, page: u64| {
        format!("{ALIAS}.ctid OPERATOR(pg_catalog.{operator}) '({page},0)'::pg_catalog.tid")
    };
    let begin = bound(">=", *from);
    Some(match *to {
        LAST_PAGE => begin,
        to => format!("{begin} AND {}", bound("<", to)),
    })
}

/// A filter as a condition; `None` when it is none that [`accepts`] knows.
pub(super) fn filter(filter: &ScanFilter, table: &Table) -> Option<String> {
    let mut sql = String::new();
    condition(&mut sql, filter, table)?;
    Some(sql)
}

/// The statement that sends what a `SELECT` finds.
pub(super) fn copy(select: &str) -> String {
    format!("COPY ({select}) TO STDOUT (FORMAT BINARY)")
}

/// The columns that a scan reads or compares.
pub(super) fn columns(scan: &Scan) -> Vec<&str> {
    let mut found: Vec<&str> = scan.schema.fields().iter().map(|field| field.name().as_str()).collect();
    scan.filters
        .iter()
        .for_each(|filter| filter.columns(&mut |column| found.push(column)));
    found
}

pub(super) fn value_of(name: &str, column: &Column) -> Option<String> {
    if column.written == Written::Place {
        return Some(format!(
            "({ALIAS}.tableoid::pg_catalog.int8::pg_catalog.text OPERATOR(pg_catalog.||) {ALIAS}.ctid::pg_catalog.text)"
        ));
    }
    let name = column_name(name)?;
    Some(match column.written {
        Written::Plain => name,
        Written::As(type_name) => format!("{name}::pg_catalog.{type_name}"),
        Written::AsInet => format!("pg_catalog.textin(pg_catalog.inet_out({name}))"),
        // Handled above, because it has no name.
        Written::Place => return None,
        Written::AsJson => format!("pg_catalog.to_jsonb({name})::pg_catalog.text"),
    })
}

fn condition(sql: &mut String, filter: &ScanFilter, table: &Table) -> Option<()> {
    match filter {
        ScanFilter::Compare {
            column,
            comparison,
            value,
        } => {
            let scalar = compared_scalar(column, table)?;
            let constant = literal(scalar, value)?;
            let left = compared(column, table, *comparison)?;
            let operator = comparison.sql();
            push(sql, format_args!("{left} OPERATOR(pg_catalog.{operator}) {constant}"));
        }
        ScanFilter::OneOf { values, .. } if values.is_empty() => sql.push_str("false"),
        ScanFilter::OneOf { column, values } => {
            let scalar = compared_scalar(column, table)?;
            let left = compared(column, table, Comparison::Equal)?;
            let list = whole_numbers(scalar, values).or_else(|| {
                let constants: Option<Vec<String>> = values.iter().map(|value| literal(scalar, value)).collect();
                constants.map(|constants| array(&constants))
            })?;
            push(sql, format_args!("{left} OPERATOR(pg_catalog.=) ANY ({list})"));
        }
        ScanFilter::IsNull(column) => push(sql, format_args!("{} IS NULL", null_tested(column, table)?)),
        ScanFilter::IsNotNull(column) => push(sql, format_args!("{} IS NOT NULL", null_tested(column, table)?)),
        ScanFilter::All(filters) => branches(sql, filters, table, " AND ", "true")?,
        ScanFilter::Any(filters) => branches(sql, filters, table, " OR ", "false")?,
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

fn compared_scalar(name: &str, table: &Table) -> Option<Scalar> {
    match table.columns.get(name)?.kind {
        Kind::One(scalar) => Some(scalar),
        Kind::List(_) | Kind::Json => None,
    }
}

/// A column on the left of a comparison.
fn compared(name: &str, table: &Table, comparison: Comparison) -> Option<String> {
    let column = table.columns.get(name)?;
    let plain = column_name(name)?;
    let is_equality = matches!(comparison, Comparison::Equal | Comparison::NotEqual);
    match column.compared {
        Compared::Not => None,
        Compared::AsItIs => Some(plain),
        Compared::AsText { own_collation } => {
            let label = column.kind == Kind::One(Scalar::Label);
            Some(if is_equality && own_collation && !label {
                plain
            } else {
                // The conversion also takes the blanks at the end of a `char(n)`.
                format!("{plain}::pg_catalog.text COLLATE pg_catalog.\"C\"")
            })
        }
    }
}

/// A column in a NULL test. A row whose fields are all NULL counts as NULL in PostgreSQL, and is a text here.
fn null_tested(name: &str, table: &Table) -> Option<String> {
    match table.columns.get(name)?.kind {
        Kind::Json => None,
        Kind::One(_) | Kind::List(_) => column_name(name),
    }
}

/// A constant of the column's type; `None` when PostgreSQL has no such value, or would compare it differently.
pub(super) fn literal(scalar: Scalar, value: &ScalarValue) -> Option<String> {
    let text = match (scalar, value) {
        (Scalar::Boolean, ScalarValue::Boolean(Some(value))) => value.to_string(),
        (Scalar::Int2, ScalarValue::Int16(Some(value))) => value.to_string(),
        (Scalar::Int4, ScalarValue::Int32(Some(value))) => value.to_string(),
        (Scalar::Int8, ScalarValue::Int64(Some(value))) => value.to_string(),
        (Scalar::Oid, ScalarValue::Int64(Some(value))) => u32::try_from(*value).ok()?.to_string(),
        // DataFusion tells -0.0 from 0.0 and one NaN from another; PostgreSQL does not.
        (Scalar::Float4, ScalarValue::Float32(Some(value))) if *value != 0.0 && !value.is_nan() => value.to_string(),
        (Scalar::Float8, ScalarValue::Float64(Some(value))) if *value != 0.0 && !value.is_nan() => value.to_string(),
        (Scalar::Numeric { .. }, ScalarValue::Decimal128(Some(value), precision, scale)) => {
            Decimal128Type::format_decimal(*value, *precision, *scale)
        }
        (Scalar::Text | Scalar::Label, ScalarValue::Utf8View(Some(value))) => value.clone(),
        // With blanks at the end it is no value that is ever read, and yet PostgreSQL would find it.
        (Scalar::Padded, ScalarValue::Utf8View(Some(value))) if !value.ends_with(' ') => value.clone(),
        (Scalar::Uuid, ScalarValue::Utf8View(Some(value))) if is_uuid(value) => value.clone(),
        (Scalar::Bytea, ScalarValue::Binary(Some(value))) => hexadecimal(value),
        (Scalar::Date, ScalarValue::Date32(Some(days))) => date(*days)?,
        (Scalar::Time, ScalarValue::Time64Microsecond(Some(value))) => time(*value)?,
        (Scalar::Timestamp, ScalarValue::TimestampMicrosecond(Some(value), None)) => timestamp(*value)?,
        (Scalar::TimestampTz, ScalarValue::TimestampMicrosecond(Some(value), Some(zone))) if zone.as_ref() == "UTC" => {
            timestamp(*value)? + "+00"
        }
        _ => return None,
    };
    Some(format!("{}::pg_catalog.{}", quoted(&text)?, scalar.name()))
}

/// Lists of so many numbers are written as one constant, which is read in a fraction of the time.
const LONG_LIST: usize = 16;

/// An array of constants of one type, each as [`literal`] writes it.
pub(super) fn array(constants: &[impl AsRef<str>]) -> String {
    let separate = || {
        let constants: Vec<&str> = constants.iter().map(AsRef::as_ref).collect();
        format!("ARRAY[{}]", constants.join(", "))
    };
    if constants.len() < LONG_LIST {
        return separate();
    }
    let numbers: Option<Vec<(&str, &str)>> = constants.iter().map(|constant| number(constant.as_ref())).collect();
    match numbers.as_deref() {
        Some([(_, type_name), others @ ..]) if others.iter().all(|(_, other)| other == type_name) => {
            let texts: Vec<&str> = numbers.iter().flatten().map(|(text, _)| *text).collect();
            format!("'{{{}}}'::{type_name}[]", texts.join(","))
        }
        _ => separate(),
    }
}

/// The text and the type of a constant whose text needs no quotes in an array.
fn number(constant: &str) -> Option<(&str, &str)> {
    let (text, type_name) = constant.strip_prefix('\'')?.split_once("'::")?;
    let is_number = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    let is_plain = !text.is_empty() && text.bytes().all(is_number) && !type_name.contains('\'');
    is_plain.then_some((text, type_name))
}

/// The same array of whole numbers, of which joins tell ten thousands; `None` of few values, and of others.
fn whole_numbers(scalar: Scalar, values: &[ScalarValue]) -> Option<String> {
    if values.len() < LONG_LIST {
        return None;
    }
    let mut list = String::with_capacity(values.len() * 8);
    for value in values {
        list.push_str(if list.is_empty() { "'{" } else { "," });
        match (scalar, value) {
            (Scalar::Int2, ScalarValue::Int16(Some(value))) => push(&mut list, format_args!("{value}")),
            (Scalar::Int4, ScalarValue::Int32(Some(value))) => push(&mut list, format_args!("{value}")),
            (Scalar::Int8, ScalarValue::Int64(Some(value))) => push(&mut list, format_args!("{value}")),
            _ => return None,
        }
    }
    push(&mut list, format_args!("}}'::pg_catalog.{}[]", scalar.name()));
    Some(list)
}

/// Whether it is how a UUID is printed, so that the order of such texts is that of UUIDs.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(position, byte)| match position {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = "\\x".to_owned();
    for byte in bytes {
        push(&mut text, format_args!("{byte:02x}"));
    }
    text
}

/// Years beyond these four digits are written in ways that are not worth a mistake.
fn is_plain_year(date: NaiveDate) -> bool {
    (1..=9999).contains(&date.year())
}

pub(super) fn date(days: i32) -> Option<String> {
    let date = NaiveDate::from_num_days_from_ce_opt(days.checked_add(EPOCH_DAYS)?)?;
    is_plain_year(date).then(|| date.format("%Y-%m-%d").to_string())
}

pub(super) fn time(microseconds: i64) -> Option<String> {
    let seconds = u32::try_from(microseconds.div_euclid(1_000_000)).ok()?;
    let nanoseconds = u32::try_from(microseconds.rem_euclid(1_000_000) * 1000).ok()?;
    let time = NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanoseconds)?;
    Some(time.format("%H:%M:%S%.6f").to_string())
}

pub(super) fn timestamp(microseconds: i64) -> Option<String> {
    let timestamp = DateTime::from_timestamp_micros(microseconds)?.naive_utc();
    is_plain_year(timestamp.date()).then(|| timestamp.format("%Y-%m-%d %H:%M:%S%.6f").to_string())
}

pub(super) fn column_name(name: &str) -> Option<String> {
    Some(format!("{ALIAS}.{}", identifier(name)?))
}

/// A name in quotes. PostgreSQL has none with a NUL character.
pub(super) fn identifier(name: &str) -> Option<String> {
    (!name.contains('\0')).then(|| format!("\"{}\"", name.replace('"', "\"\"")))
}

/// A text in quotes, which means the same whatever the server thinks of backslashes. It has none with a NUL character.
pub(super) fn quoted(text: &str) -> Option<String> {
    if text.contains('\0') {
        return None;
    }
    let doubled = text.replace('\'', "''");
    Some(if text.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    })
}

fn push(sql: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = sql.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::super::catalog::Locked;
    use super::*;
    use arrow::datatypes::{Field, Schema};

    fn table(columns: &[(&str, Scalar)]) -> Table {
        let column = |scalar: Scalar| {
            let is_text = matches!(scalar, Scalar::Text | Scalar::Padded | Scalar::Label);
            let printed = matches!(scalar, Scalar::Label | Scalar::Printed);
            Column {
                kind: Kind::One(scalar),
                written: if printed { Written::As("text") } else { Written::Plain },
                compared: if is_text {
                    Compared::AsText { own_collation: true }
                } else {
                    Compared::AsItIs
                },
                readable: true,
                leads_index: false,
            }
        };
        Table {
            schema: Arc::new(Schema::empty()),
            columns: columns
                .iter()
                .map(|(name, scalar)| ((*name).to_owned(), column(*scalar)))
                .collect::<HashMap<_, _>>(),
            is_view: false,
            rows: None,
            statistics: Arc::default(),
            pages: Vec::new(),
            locked: Locked::Alone,
            has_rows_of_its_own: true,
            computes: true,
        }
    }

    fn scan(table: &Table, columns: &[&str], filters: Vec<ScanFilter>) -> Scan {
        let fields: Vec<Field> = columns
            .iter()
            .map(|name| Field::new(*name, table.columns[*name].kind.arrow(), true))
            .collect();
        Scan {
            address: Address {
                depot: "d".to_owned(),
                collection: "Sche\"ma".to_owned(),
                dataset: "a \"b\"; --".to_owned(),
            },
            schema: Arc::new(Schema::new(fields)),
            filters,
            limit: Some(3),
            snapshot: None,
            query: None,
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
    fn a_long_list_of_numbers_is_one_constant() {
        let of = |scalar: Scalar, values: Vec<ScalarValue>| {
            let constants: Vec<String> = values.iter().map(|value| literal(scalar, value).unwrap()).collect();
            array(&constants)
        };
        let numbers = |count: i32| (0..count).map(|value| ScalarValue::Int32(Some(-value))).collect();
        for (scalar, values) in [
            (
                Scalar::Int2,
                (0..20).map(|value| ScalarValue::Int16(Some(value * -9))).collect(),
            ),
            (Scalar::Int4, numbers(20)),
            (
                Scalar::Int8,
                (0..20)
                    .map(|value| ScalarValue::Int64(Some(i64::MIN + value)))
                    .collect::<Vec<_>>(),
            ),
        ] {
            assert_eq!(whole_numbers(scalar, &values).unwrap(), of(scalar, values));
        }
        assert_eq!(whole_numbers(Scalar::Int4, &numbers(LONG_LIST as i32 - 1)), None);
        assert_eq!(
            of(Scalar::Int4, numbers(2)),
            "ARRAY['0'::pg_catalog.int4, '-1'::pg_catalog.int4]"
        );
        let long = of(Scalar::Int4, numbers(20));
        assert!(
            long.starts_with("'{0,-1,-2,") && long.ends_with(",-19}'::pg_catalog.int4[]"),
            "{long}"
        );
        let days = (0..20).map(|day| ScalarValue::Date32(Some(day))).collect();
        let days = of(Scalar::Date, days);
        assert!(days.starts_with("'{1970-01-01,1970-01-02,"), "{days}");
        // What could be read as something else there stays as it is.
        let texts = (0..20)
            .map(|at| ScalarValue::Utf8View(Some(format!("{at}, NULL"))))
            .collect();
        assert!(of(Scalar::Text, texts).starts_with("ARRAY['0, NULL'::"));
        let digits = (0..20).map(|at| ScalarValue::Utf8View(Some(at.to_string()))).collect();
        assert!(of(Scalar::Text, digits).starts_with("'{0,1,"));
        let times = (0..20)
            .map(|time| ScalarValue::TimestampMicrosecond(Some(time), None))
            .collect();
        assert!(of(Scalar::Timestamp, times).starts_with("ARRAY["));
    }

    #[test]
    fn names_and_values_are_quoted() {
        let table = table(&[
            ("id", Scalar::Int8),
            ("n\"; DROP TABLE x", Scalar::Text),
            ("e", Scalar::Label),
        ]);
        let filters = vec![
            compare("n\"; DROP TABLE x", Comparison::NotEqual, text("\\' OR 1=1 --")),
            compare("n\"; DROP TABLE x", Comparison::Less, text("a''b")),
            ScanFilter::Any(vec![
                ScanFilter::IsNull("id".to_owned()),
                ScanFilter::OneOf {
                    column: "id".to_owned(),
                    values: vec![1_i64.into(), (-2_i64).into()],
                },
                compare("e", Comparison::Equal, text("on")),
            ]),
        ];
        let scan = scan(&table, &["id", "n\"; DROP TABLE x", "e"], filters);
        assert_eq!(
            select(&scan, &table, &Split::Whole, None).unwrap(),
            "SELECT t.\"id\", t.\"n\"\"; DROP TABLE x\", t.\"e\"::pg_catalog.text \
             FROM \"Sche\"\"ma\".\"a \"\"b\"\"; --\" AS t \
             WHERE t.\"n\"\"; DROP TABLE x\" OPERATOR(pg_catalog.<>) E'\\\\'' OR 1=1 --'::pg_catalog.text \
             AND t.\"n\"\"; DROP TABLE x\"::pg_catalog.text COLLATE pg_catalog.\"C\" OPERATOR(pg_catalog.<) \
             'a''''b'::pg_catalog.text \
             AND (t.\"id\" IS NULL OR t.\"id\" OPERATOR(pg_catalog.=) \
             ANY (ARRAY['1'::pg_catalog.int8, '-2'::pg_catalog.int8]) \
             OR t.\"e\"::pg_catalog.text COLLATE pg_catalog.\"C\" OPERATOR(pg_catalog.=) 'on'::pg_catalog.text) LIMIT 3"
        );
    }

    #[test]
    fn a_range_of_pages_comes_before_the_filters() {
        let table = table(&[("id", Scalar::Int8)]);
        let scan = scan(&table, &["id"], vec![ScanFilter::IsNotNull("id".to_owned())]);
        let of = |from, to| select(&scan, &table, &Split::Range { from, to }, None).unwrap();
        let begin = "SELECT t.\"id\" FROM \"Sche\"\"ma\".\"a \"\"b\"\"; --\" AS t WHERE \
                     t.ctid OPERATOR(pg_catalog.>=) '(5,0)'::pg_catalog.tid";
        assert_eq!(
            of(5, 9),
            format!(
                "{begin} AND t.ctid OPERATOR(pg_catalog.<) '(9,0)'::pg_catalog.tid AND t.\"id\" IS NOT NULL LIMIT 3"
            )
        );
        assert_eq!(of(5, LAST_PAGE), format!("{begin} AND t.\"id\" IS NOT NULL LIMIT 3"));
        for (parts, condition) in [
            ("7,19", "ANY ('{7,19}'::pg_catalog.oid[])"),
            ("7", "'7'::pg_catalog.oid"),
        ] {
            let select = select(&scan, &table, &Split::Whole, Some(parts)).unwrap();
            let expected = format!("WHERE t.tableoid OPERATOR(pg_catalog.=) {condition} AND t.\"id\" IS NOT NULL");
            assert!(select.contains(&expected), "{select}");
        }
    }

    #[test]
    fn no_columns_still_give_rows() {
        let table = table(&[]);
        let scan = scan(&table, &[], Vec::new());
        assert_eq!(
            copy(&select(&scan, &table, &Split::Whole, None).unwrap()),
            "COPY (SELECT  FROM \"Sche\"\"ma\".\"a \"\"b\"\"; --\" AS t LIMIT 3) TO STDOUT (FORMAT BINARY)"
        );
    }

    #[test]
    fn only_comparisons_with_one_meaning_are_accepted() {
        let numeric = Scalar::Numeric {
            precision: 10,
            scale: 2,
        };
        let table = table(&[
            ("i", Scalar::Int4),
            ("f", Scalar::Float8),
            ("s", Scalar::Text),
            ("c", Scalar::Padded),
            ("n", numeric),
            ("d", Scalar::Date),
            ("u", Scalar::Uuid),
            ("ts", Scalar::TimestampTz),
        ]);
        let check = |column: &str, value: ScalarValue, expected: bool| {
            let filter = compare(column, Comparison::Less, value.clone());
            assert_eq!(accepts(&filter, &table), expected, "{column} {value}");
        };
        check("i", 1_i32.into(), true);
        check("i", 1_i64.into(), false);
        check("f", 1.5_f64.into(), true);
        check("f", f64::INFINITY.into(), true);
        check("f", 0.0_f64.into(), false);
        check("f", (-0.0_f64).into(), false);
        check("f", f64::NAN.into(), false);
        check("s", text("a"), true);
        check("s", text("a\0b"), false);
        check("c", text("a"), true);
        check("c", text("a "), false);
        check("n", ScalarValue::Decimal128(Some(-5), 10, 2), true);
        check("d", ScalarValue::Date32(Some(1)), true);
        check("d", ScalarValue::Date32(Some(i32::MAX)), false);
        check("u", text("0b0e7e0a-0000-4000-8000-00000000000f"), true);
        check("u", text("0B0E7E0A-0000-4000-8000-00000000000F"), false);
        let moment = |zone: &str| ScalarValue::TimestampMicrosecond(Some(-1), Some(zone.into()));
        check("ts", moment("UTC"), true);
        check("ts", moment("+01:00"), false);
        check("gone", 1_i64.into(), false);
        assert!(accepts(&ScanFilter::IsNull("f".to_owned()), &table));
        assert!(!accepts(&ScanFilter::IsNull("gone".to_owned()), &table));
    }

    #[test]
    fn constants_are_written_exactly() {
        let check = |scalar: Scalar, value: ScalarValue, expected: &str| {
            assert_eq!(literal(scalar, &value).unwrap(), expected);
        };
        let numeric = Scalar::Numeric {
            precision: 10,
            scale: 2,
        };
        check(
            numeric,
            ScalarValue::Decimal128(Some(-5), 10, 2),
            "'-0.05'::pg_catalog.numeric",
        );
        check(
            Scalar::Float8,
            f64::MIN_POSITIVE.into(),
            &format!("'{}'::pg_catalog.float8", f64::MIN_POSITIVE),
        );
        check(Scalar::Float8, f64::NEG_INFINITY.into(), "'-inf'::pg_catalog.float8");
        check(
            Scalar::Date,
            ScalarValue::Date32(Some(-719_162)),
            "'0001-01-01'::pg_catalog.date",
        );
        check(
            Scalar::Timestamp,
            ScalarValue::TimestampMicrosecond(Some(-1), None),
            "'1969-12-31 23:59:59.999999'::pg_catalog.timestamp",
        );
        check(
            Scalar::Time,
            ScalarValue::Time64Microsecond(Some(86_399_999_999)),
            "'23:59:59.999999'::pg_catalog.time",
        );
        check(
            Scalar::Bytea,
            ScalarValue::Binary(Some(vec![0, 255])),
            "E'\\\\x00ff'::pg_catalog.bytea",
        );
    }
}

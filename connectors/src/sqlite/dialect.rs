//! What SQLite computes exactly as DataFusion does.
//!
//! In: values in SQLite's SQL, of the types that columns are read as. Out: text for what means the same on both sides.
//!
//! **Values that do not fit.** SQLite keeps any value in any column, and would compare, sort and count what a scan refuses: the text `abc` in a column
//! declared INTEGER is larger than every number, and 2 is a third boolean. So the WHERE of every SELECT of a table has, after the conditions of the scan,
//! [`functions::FITS`] over the columns that the statement uses. It decides about a value with the code that reads values, and a value that does not fit
//! ends the statement with the error of a scan. SQLite may evaluate other conditions before it, and an index may leave rows out: of
//! rows that are left out nothing is said, as in scans. No value that does not fit is ever taken for another one: what stands behind WHERE (expressions, groups,
//! aggregates, orders) sees rows that were checked, and a row that a condition leaves out for such a value is in no answer. Where SQLite itself
//! keeps to the declaration there is nothing to check: the INTEGER PRIMARY KEY, which is the row's number, and numbers and blobs of STRICT tables. Neither is there where
//! nothing is done with a value but to send it: whoever reads it looks at it.
//!
//! **Comparisons.** What was checked has the storage class of its type, so that numbers are compared with numbers and texts with texts; affinities change
//! nothing then, because only columns with a declared type are compared: no text that a DATE column may hold looks like a number. Texts are compared with
//! `COLLATE BINARY`, in a database in UTF-8, which is the order of bytes. Dates are compared as their texts, which have four digits for the year. NULLs
//! are put where they belong by NULLS FIRST and NULLS LAST.
//!
//! **Numbers.** `+`, `-` and `*` of whole numbers go on as floating point where 64 bits are too few, so they are functions of ours. `sum` fails then.
//!
//! Deliberately absent: floating point numbers but for comparisons with a constant other than zero, decimals (SQLite has none), timestamps (which have many
//! spellings), division, `avg` (whose exact sum may have more than 64 bits), views and virtual tables (whose columns have affinities that nobody knows), and letters beyond ASCII.

use std::collections::HashMap;

use arrow::datatypes::DataType;
use arrow::temporal_conversions::date32_to_datetime;
use chrono::Datelike;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;

use super::functions::{self, MOST_CHECKED};
use super::kind::Kind;
use super::sql::ALIAS;
use crate::remote::{Aggregation, Dialect, Form, Meeting, Relation, Value, Windowed, met_by_list, plain};
use crate::{Comparison, ScanFilter};

/// The version that is part of this program.
#[derive(Debug)]
pub(super) struct SqliteDialect;

/// How a column may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) kind: Kind,
    /// Whether its type is declared, and not only seen in its first rows.
    pub(super) is_declared: bool,
    /// Whether SQLite sees to it that all its values fit.
    pub(super) is_certain: bool,
}

/// A table of SQLite in statements of [`SqliteDialect`].
#[derive(Debug)]
pub(super) struct SqliteRelation {
    dataset: String,
    columns: HashMap<String, Use>,
}

impl SqliteRelation {
    pub(super) fn new(dataset: &str, columns: HashMap<String, Use>) -> SqliteRelation {
        SqliteRelation {
            dataset: dataset.to_owned(),
            columns,
        }
    }
}

impl Relation for SqliteRelation {
    fn dialect(&self) -> &'static dyn Dialect {
        &SqliteDialect
    }

    fn source(&self) -> Option<String> {
        Some(format!("main.{} AS {ALIAS}", quoted(&self.dataset)?))
    }

    fn column(&self, name: &str) -> Option<Value> {
        let column = self.columns.get(name)?;
        let form = match column.kind {
            _ if !column.is_declared => Form::Opaque { tested: true },
            Kind::Boolean | Kind::Integer | Kind::Short | Kind::Blob | Kind::Date => Form::Exact,
            Kind::Text => Form::Text { own: false },
            Kind::Real => Form::Opaque { tested: true },
            Kind::Timestamp | Kind::Decimal(..) => Form::Opaque { tested: false },
        };
        Some(Value::new(column_name(name)?, column.kind.arrow(), form))
    }

    fn filter(&self, filter: &ScanFilter) -> Option<String> {
        let tested = |name: &String, test: &str| {
            self.columns.get(name)?;
            Some(format!("({} {test})", column_name(name)?))
        };
        match filter {
            ScanFilter::IsNull(name) => tested(name, "IS NULL"),
            ScanFilter::IsNotNull(name) => tested(name, "IS NOT NULL"),
            // An index serves what the dialect makes of the others.
            _ => None,
        }
    }

    fn fits(&self, columns: &[&str]) -> Option<Vec<String>> {
        let mut checks = Vec::new();
        let known: Option<Vec<(&str, Use)>> = columns
            .iter()
            .map(|name| Some((*name, *self.columns.get(*name)?)))
            .collect();
        // Nothing is done with these but to send them, and who reads them looks at them.
        let is_only_sent = |column: &Use| matches!(column.kind, Kind::Timestamp | Kind::Decimal(..));
        let uncertain: Vec<(&str, Use)> = (known?.into_iter())
            .filter(|(_, column)| !column.is_certain && !is_only_sent(column))
            .collect();
        for some in uncertain.chunks(MOST_CHECKED) {
            let kinds: Option<Vec<String>> = some.iter().map(|(_, column)| column.kind.declared()).collect();
            let mut arguments = vec![text(&self.dataset), text(&kinds?.join(" "))];
            for (name, _) in some {
                arguments.extend([text(name), column_name(name)?]);
            }
            checks.push(format!("{}({})", functions::FITS, arguments.join(", ")));
        }
        Some(checks)
    }
}

fn column_name(name: &str) -> Option<String> {
    Some(format!("{ALIAS}.{}", quoted(name)?))
}

fn quoted(name: &str) -> Option<String> {
    (!name.contains('\0')).then(|| format!("\"{}\"", name.replace('"', "\"\"")))
}

/// A text as a constant. SQL ends at a NUL character, so a text with one is written in digits.
fn text(value: &str) -> String {
    if !value.contains('\0') {
        return format!("'{}'", value.replace('\'', "''"));
    }
    format!("CAST({} AS TEXT)", blob(value.as_bytes()))
}

fn blob(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    format!("X'{}'", digits.concat())
}

fn date(days: i32) -> Option<String> {
    let date = date32_to_datetime(days)?.date();
    (0..=9999)
        .contains(&date.year())
        .then(|| format!("'{}'", date.format("%Y-%m-%d")))
}

/// A floating point number by whole numbers and powers of two, which are read and multiplied exactly; `None` for zero, which has two signs, and what has fewer
/// digits than others.
fn real(value: f64) -> Option<String> {
    const MANTISSA_BITS: u32 = 52;
    /// The largest power of two that is a whole number.
    const LARGEST: u32 = 62;
    if !value.is_normal() {
        return None;
    }
    let bits = value.to_bits();
    let exponent = i32::try_from((bits >> MANTISSA_BITS) & 0x7ff).ok()? - 1023 - MANTISSA_BITS as i32;
    let mantissa = i64::try_from(bits & ((1 << MANTISSA_BITS) - 1) | (1 << MANTISSA_BITS)).ok()?;
    let zeros = mantissa.trailing_zeros();
    let (mantissa, exponent) = (mantissa >> zeros, exponent + zeros as i32);
    let sign = if value < 0.0 { "-" } else { "" };
    let mut sql = format!("CAST({sign}{mantissa} AS REAL)");
    let mut rest = exponent.unsigned_abs();
    while rest > 0 {
        let step = rest.min(LARGEST);
        let operator = if exponent > 0 { "*" } else { "/" };
        sql = format!("({sql} {operator} {})", 1_i64 << step);
        rest -= step;
    }
    Some(sql)
}

/// A text whose equality and order are those of its bytes.
fn bytewise(value: &Value) -> Option<String> {
    value.is_text().then(|| format!("({} COLLATE BINARY)", value.sql))
}

/// The value as it is compared.
fn compared(value: &Value) -> Option<String> {
    match value.form {
        Form::Exact => Some(value.sql.clone()),
        Form::Text { .. } => bytewise(value),
        Form::Opaque { .. } => None,
    }
}

/// Two values as they are compared with one another.
fn compared_with(left: &Value, right: &Value) -> Option<(String, String)> {
    if left.data_type != right.data_type {
        return None;
    }
    let has_constant = left.literal.is_some() != right.literal.is_some();
    match left.data_type {
        // Any constant but zero, which is all that can be written.
        DataType::Float64 if has_constant => Some((left.sql.clone(), right.sql.clone())),
        _ => Some((compared(left)?, compared(right)?)),
    }
}

/// A whole number that is a constant, and no less than another.
fn at_least(value: &Value, least: i64) -> Option<i64> {
    value.constant_number().filter(|number| *number >= least)
}

fn counted(sql: String, to: &DataType) -> Option<Value> {
    let counts = matches!(to, DataType::Int32 | DataType::Int64);
    counts.then(|| Value::new(sql, to.clone(), Form::Exact))
}

impl Dialect for SqliteDialect {
    fn literal(&self, value: &ScalarValue) -> Option<Value> {
        let data_type = plain(&value.data_type());
        let form = match &data_type {
            DataType::Boolean
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt64
            | DataType::Binary
            | DataType::Date32 => Form::Exact,
            DataType::Utf8View => Form::Text { own: false },
            DataType::Float64 => Form::Opaque { tested: true },
            _ => return None,
        };
        let sql = match value {
            value if value.is_null() => "NULL".to_owned(),
            ScalarValue::Boolean(Some(value)) => u8::from(*value).to_string(),
            ScalarValue::Int32(Some(value)) => value.to_string(),
            ScalarValue::Int64(Some(value)) => value.to_string(),
            ScalarValue::UInt64(Some(value)) => i64::try_from(*value).ok()?.to_string(),
            ScalarValue::Float64(Some(value)) => real(*value)?,
            ScalarValue::Binary(Some(value)) => blob(value),
            ScalarValue::Date32(Some(days)) => date(*days)?,
            value => text(value.try_as_str().flatten()?),
        };
        // A minus sign is an operator.
        let sql = if sql.starts_with('-') { format!("({sql})") } else { sql };
        Some(Value {
            literal: Some(value.clone()),
            ..Value::new(sql, data_type, form)
        })
    }

    fn compare(&self, op: Operator, left: &Value, right: &Value) -> Option<Value> {
        let symbol = Comparison::from_operator(op)?.sql();
        let (left, right) = compared_with(left, right)?;
        Some(Value::condition(format!("({left} {symbol} {right})")))
    }

    fn same(&self, left: &Value, right: &Value) -> Option<Value> {
        let (left, right) = compared_with(left, right)?;
        Some(Value::condition(format!("({left} IS {right})")))
    }

    fn one_of(&self, value: &Value, list: &[Value]) -> Option<Value> {
        let same = list.iter().all(|one| one.data_type == value.data_type);
        let left = match value.data_type {
            DataType::Float64 if value.literal.is_none() => value.sql.clone(),
            _ => compared(value)?,
        };
        let texts: Vec<&str> = list.iter().map(|value| value.sql.as_str()).collect();
        same.then(|| Value::condition(format!("({left} IN ({}))", texts.join(", "))))
    }

    fn arithmetic(&self, op: Operator, left: &Value, right: &Value, to: &DataType) -> Option<Value> {
        // Two constants are computed before anybody knows whether their result is needed.
        let are_constants = left.literal.is_some() && right.literal.is_some();
        let is_whole = [&left.data_type, &right.data_type, to]
            .iter()
            .all(|one| **one == DataType::Int64);
        if are_constants || !is_whole || !left.is_exact() || !right.is_exact() {
            return None;
        }
        let function = match op {
            Operator::Plus => functions::ADD,
            Operator::Minus => functions::SUBTRACT,
            Operator::Multiply => functions::MULTIPLY,
            _ => return None,
        };
        let sql = format!("{function}({}, {})", left.sql, right.sql);
        Some(Value::new(sql, DataType::Int64, Form::Exact))
    }

    fn cast(&self, value: Value, to: &DataType) -> Option<Value> {
        let to = plain(to);
        if value.data_type == to {
            return Some(value);
        }
        // What counts rows has none that do not fit.
        let is_wider = matches!(value.data_type, DataType::Int32 | DataType::UInt64) && to == DataType::Int64;
        (is_wider && value.is_exact()).then(|| Value::new(value.sql, to, Form::Exact))
    }

    fn like(&self, value: &Value, pattern: &str) -> Option<Value> {
        // What a backslash at the end, or before a letter, means is not agreed on.
        if pattern.contains('\\') || !value.is_text() {
            return None;
        }
        let sql = format!("{}({}, {})", functions::LIKE, value.sql, text(pattern));
        Some(Value::condition(sql))
    }

    fn letters(&self, value: &Value, are_small: bool) -> Option<(Value, String)> {
        if !value.is_text() {
            return None;
        }
        let function = if are_small { "lower" } else { "upper" };
        // `length` ends at a NUL character, so that texts with one are others as well.
        let others = format!("(octet_length({}) <> length({}))", value.sql, value.sql);
        let sql = format!("{function}({})", value.sql);
        Some((Value::new(sql, DataType::Utf8View, Form::Text { own: false }), others))
    }

    fn call(&self, name: &str, arguments: &[Value], to: &DataType) -> Option<Value> {
        let made = |sql: String| {
            let is_wanted = plain(to) == DataType::Utf8View;
            is_wanted.then(|| Value::new(sql, DataType::Utf8View, Form::Text { own: false }))
        };
        match (name, arguments) {
            ("||", [left, right]) if left.is_text() && right.is_text() => {
                made(format!("({} || {})", left.sql, right.sql))
            }
            ("character_length" | "char_length" | "length", [value]) if value.is_text() => {
                counted(format!("{}({})", functions::LENGTH, value.sql), to)
            }
            ("octet_length", [value]) if value.is_text() => counted(format!("octet_length({})", value.sql), to),
            ("substr" | "substring", [value, from]) if value.is_text() => {
                made(format!("{}({}, {})", functions::SUBSTR, value.sql, at_least(from, 1)?))
            }
            ("substr" | "substring", [value, from, count]) if value.is_text() => {
                let (from, count) = (at_least(from, 1)?, at_least(count, 0)?);
                made(format!("{}({}, {from}, {count})", functions::SUBSTR, value.sql))
            }
            ("starts_with", [value, prefix]) if value.is_text() && prefix.is_text() => Some(Value::condition(format!(
                "{}({}, {})",
                functions::STARTS_WITH,
                value.sql,
                prefix.sql
            ))),
            ("strpos" | "position" | "instr", [value, part]) if value.is_text() => {
                let part = part.constant_text().filter(|part| !part.is_empty())?;
                counted(format!("instr({}, {})", value.sql, text(part)), to)
            }
            ("btrim" | "trim", [value]) if value.is_text() => made(format!("trim({})", value.sql)),
            ("ltrim", [value]) if value.is_text() => made(format!("ltrim({})", value.sql)),
            ("rtrim", [value]) if value.is_text() => made(format!("rtrim({})", value.sql)),
            ("date_part", [part, date]) if date.data_type == DataType::Date32 && date.is_exact() => {
                let (from, digits) = match part.constant_text()?.to_ascii_lowercase().as_str() {
                    "year" => (1, 4),
                    "month" => (6, 2),
                    "day" => (9, 2),
                    _ => return None,
                };
                let sql = format!("CAST(substr({}, {from}, {digits}) AS INTEGER)", date.sql);
                (*to == DataType::Int32).then(|| Value::new(sql, DataType::Int32, Form::Exact))
            }
            _ => None,
        }
    }

    fn aggregate(&self, call: &Aggregation<'_>) -> Option<Value> {
        let filter = match call.filter {
            Some(condition) => format!(" FILTER (WHERE {}){}", condition.sql, call.over),
            None => call.over.to_owned(),
        };
        let distinct = if call.distinct { "DISTINCT " } else { "" };
        let Some(argument) = call.argument else {
            let counts = call.name == "count" && *call.to == DataType::Int64;
            return counts.then(|| Value::new(format!("count(*){filter}"), DataType::Int64, Form::Exact));
        };
        match (call.name, &argument.data_type, call.to) {
            ("count", _, DataType::Int64) => {
                let counted = match call.distinct {
                    true => compared(argument)?,
                    false if argument.is_tested() => argument.sql.clone(),
                    false => return None,
                };
                let sql = format!("count({distinct}{counted}){filter}");
                Some(Value::new(sql, DataType::Int64, Form::Exact))
            }
            ("sum", DataType::Int64, DataType::Int64) if argument.is_exact() => {
                let sql = format!("sum({distinct}{}){filter}", argument.sql);
                Some(Value::new(sql, DataType::Int64, Form::Exact))
            }
            ("min" | "max", from, to) if *from == plain(to) => {
                let sql = format!("{}({}){filter}", call.name, compared(argument)?);
                Some(Value::new(sql, from.clone(), argument.form))
            }
            ("bool_and" | "bool_or", DataType::Boolean, DataType::Boolean) if argument.is_exact() => {
                let function = if call.name == "bool_and" { "min" } else { "max" };
                Some(Value::condition(format!("{function}({}){filter}", argument.sql)))
            }
            _ => None,
        }
    }

    fn window(&self, call: &Windowed<'_>) -> Option<Value> {
        let (sql, value) = call.text()?;
        let form = value.map_or(Form::Exact, |value| value.form);
        Some(Value::new(sql, plain(call.to), form))
    }

    fn null_safe_key(&self, left: &Value, right: &Value) -> Option<Value> {
        self.same(left, right)
    }

    fn sent(&self, data_type: &DataType) -> DataType {
        match data_type {
            // It has no numbers without a sign, and counts rows in what it has.
            DataType::UInt64 => DataType::Int64,
            other => other.clone(),
        }
    }

    fn group_key(&self, value: &Value) -> Option<Value> {
        Some(value.called(compared(value)?))
    }

    fn sort_key(&self, value: &Value, ascending: bool, nulls_first: bool) -> Option<String> {
        let direction = if ascending { "ASC" } else { "DESC" };
        let nulls = if nulls_first { "FIRST" } else { "LAST" };
        Some(format!("{} {direction} NULLS {nulls}", compared(value)?))
    }

    fn meets(&self, meeting: &Meeting<'_>) -> Option<String> {
        met_by_list(meeting, &compared)
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn constants_are_what_they_are() {
        let connection = Connection::open_in_memory().unwrap();
        let check = |value: ScalarValue, expected: rusqlite::types::Value| {
            let sql = SqliteDialect.literal(&value).unwrap().sql;
            let found: rusqlite::types::Value = connection
                .query_row(&format!("SELECT {sql}"), [], |row| row.get(0))
                .unwrap();
            assert_eq!(found, expected, "{sql}");
        };
        for number in [0, 1, -1, i64::MAX, i64::MIN] {
            check(number.into(), number.into());
        }
        for number in [
            1.5,
            -1.5,
            0.1,
            1.0 / 3.0,
            1e15,
            123_456.789,
            -9e18,
            2_f64.powi(60),
            1e-5,
            1e-40,
            f64::MAX,
            f64::MIN_POSITIVE,
        ] {
            check(number.into(), number.into());
        }
        for text in ["", "it's", "a\0b", "\0", "\\'; --", "é\u{1f600}", "\n", "?1 :a @b"] {
            check(text.into(), text.to_owned().into());
        }
        check(ScalarValue::Binary(Some(vec![0, 255])), vec![0_u8, 255].into());
        check(ScalarValue::Date32(Some(0)), "1970-01-01".to_owned().into());
        check(ScalarValue::Date32(Some(-719_528)), "0000-01-01".to_owned().into());
        check(true.into(), 1.into());
        check(ScalarValue::Utf8(None), rusqlite::types::Value::Null);
        for value in [0.0, -0.0, f64::NAN, f64::INFINITY, 5e-324] {
            assert!(SqliteDialect.literal(&value.into()).is_none(), "{value}");
        }
        for days in [i32::MAX, i32::MIN, 2_932_897, -719_529] {
            assert!(
                SqliteDialect.literal(&ScalarValue::Date32(Some(days))).is_none(),
                "{days}"
            );
        }
    }

    #[test]
    fn columns_that_sqlite_vouches_for_are_not_checked() {
        let column = |kind, is_certain| Use {
            kind,
            is_declared: true,
            is_certain,
        };
        let columns = HashMap::from([
            ("id".to_owned(), column(Kind::Integer, true)),
            ("n".to_owned(), column(Kind::Integer, false)),
            ("it's \"d\"".to_owned(), column(Kind::Text, false)),
            ("d".to_owned(), column(Kind::Decimal(4, 2), false)),
        ]);
        let relation = SqliteRelation::new("t", columns);
        assert_eq!(relation.fits(&["id"]), Some(Vec::new()));
        assert_eq!(
            relation.fits(&["id", "n", "d", "it's \"d\""]).unwrap(),
            ["minerva_fits('t', 'INTEGER TEXT', 'n', t.\"n\", 'it''s \"d\"', t.\"it's \"\"d\"\"\")"]
        );
        assert_eq!(relation.fits(&["gone"]), None);
        let many: HashMap<String, Use> = (0..100)
            .map(|at| (format!("c{at}"), column(Kind::Text, false)))
            .collect();
        let names: Vec<String> = many.keys().cloned().collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(SqliteRelation::new("t", many).fits(&names).unwrap().len(), 3);
    }
}

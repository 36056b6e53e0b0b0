//! What MariaDB computes exactly as DataFusion does.
//!
//! In: values in MariaDB's SQL, of the types that columns are read as. Out: text for what means the same on both sides, under the `sql_mode` of the session.
//!
//! **Texts** are taken in UTF-8 and given the collation `utf8mb4_nopad_bin` where they leave their column: by the bytes, blanks at the end among them, and the
//! same for all, so that the server never has two collations to choose from. It sorts by no more than the first 1024 bytes of a text, and groups
//! by sorting; so only what is declared shorter is sorted and grouped there. Nor does it sort by NUL characters at the end of a text, so the number of letters is
//! a second key of each. Joins stay here where no index begins with a key that is a number: the server is slow then.
//!
//! **Numbers.** Only whole numbers with a sign and of 64 bits are added and multiplied, since smaller ones are computed in 64 bits by the server. What
//! leaves these is an error of the server; a sum is a decimal there, which `DIV 1` makes a whole number, or an error (`CAST` would make it the largest one).
//!
//! **NULLs** are put where they belong by a sort key of their own, and an aggregate with FILTER is one of a CASE. `IS TRUE` and its like are written as COALESCE: the server
//! takes a condition such as `NOT (x IS TRUE)` for one that no NULL meets, and makes an inner join of the outer join below it.
//!
//! Deliberately absent: dates, which may be ones that no calendar has, but in a scan's own conditions; floating point numbers, likewise; division, means of decimals, `||` (whose
//! result is NULL where it is too long), letters beyond ASCII; and MySQL, which no test of this crate speaks to.

use std::sync::Arc;

use arrow::datatypes::{DataType, Decimal128Type, DecimalType};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use minerva_resources::Address;

use super::catalog::{Column, Table};
use super::kind::Kind;
use super::sql;
use crate::remote::{Aggregation, Dialect, Form, Meeting, Relation, Value, Windowed, met_by_list, plain};
use crate::{Comparison, ScanFilter};

const COLLATION: &str = "COLLATE utf8mb4_nopad_bin";

/// Texts of at most so many letters are sorted by all of them: 1024 bytes, of which a letter may have four.
const SHORT: u64 = 255;

/// MariaDB, from version 10.3 on.
#[derive(Debug)]
pub(super) struct MariadbDialect;

/// A table of MariaDB in statements of [`MariadbDialect`].
#[derive(Debug)]
pub(super) struct MariadbRelation {
    address: Address,
    table: Arc<Table>,
}

impl MariadbRelation {
    pub(super) fn of(address: &Address, table: &Arc<Table>) -> Option<MariadbRelation> {
        table.computes.then(|| MariadbRelation {
            address: address.clone(),
            table: Arc::clone(table),
        })
    }
}

impl Relation for MariadbRelation {
    fn dialect(&self) -> &'static dyn Dialect {
        &MariadbDialect
    }

    fn source(&self) -> Option<String> {
        sql::source(&self.address.collection, &self.address.dataset)
    }

    fn column(&self, name: &str) -> Option<Value> {
        let column = self.table.columns.get(name).filter(|column| column.is_readable)?;
        let plain = sql::column_name(name)?;
        let (sql, form) = match &column.kind {
            Kind::Int8
            | Kind::UInt8
            | Kind::Int16
            | Kind::UInt16
            | Kind::Int32
            | Kind::UInt32
            | Kind::Int64
            | Kind::UInt64
            | Kind::Binary => (plain, Form::Exact),
            Kind::Decimal { .. } if matches!(column.kind.arrow(), DataType::Decimal128(..)) => (plain, Form::Exact),
            // As numbers: bits are not compared with constants as numbers are, and two digits are a year of a century that one must guess.
            Kind::Boolean | Kind::Year => (format!("CAST({plain} AS SIGNED)"), Form::Exact),
            Kind::Bits => (format!("CAST({plain} AS UNSIGNED)"), Form::Exact),
            Kind::Text => (collated(&plain, column), text_form(column)),
            Kind::Label => (
                format!("(CONVERT(CAST({plain} AS CHAR) USING utf8mb4) {COLLATION})"),
                text_form(column),
            ),
            Kind::Float32 | Kind::Float64 | Kind::Decimal { .. } | Kind::Time | Kind::Printed | Kind::Geometry => {
                (plain, Form::Opaque { tested: true })
            }
            Kind::Date | Kind::DateTime | Kind::Timestamp => (plain, Form::Opaque { tested: false }),
            Kind::Whole(..) | Kind::Unknown(_) => return None,
        };
        Some(Value::new(sql, column.kind.arrow(), form))
    }

    fn filter(&self, filter: &ScanFilter) -> Option<String> {
        filter
            .all_leaves(&|leaf| sql::accepts(leaf, &self.table))
            .then(|| sql::filter(filter, &self.table))
            .flatten()
    }
}

fn collated(plain: &str, column: &Column) -> String {
    match column.character_set.as_deref() {
        Some("utf8mb4") => format!("({plain} {COLLATION})"),
        _ => format!("(CONVERT({plain} USING utf8mb4) {COLLATION})"),
    }
}

/// Whether the server groups and sorts a text by all of it.
fn text_form(column: &Column) -> Form {
    Form::Text {
        own: column.characters.is_some_and(|letters| letters <= SHORT),
    }
}

/// What tells texts apart that differ by NUL characters at their ends only, which the server sorts alike.
fn length_of(value: &Value) -> Option<String> {
    value.is_text().then(|| format!("CHAR_LENGTH({})", value.sql))
}

fn is_compared(value: &Value) -> bool {
    value.is_exact() || value.is_text()
}

/// How many bits a whole number has, and whether it has a sign.
fn whole(data_type: &DataType) -> Option<(u8, bool)> {
    Some(match data_type {
        DataType::Int8 => (8, true),
        DataType::Int16 => (16, true),
        DataType::Int32 => (32, true),
        DataType::Int64 => (64, true),
        DataType::UInt8 => (8, false),
        DataType::UInt16 => (16, false),
        DataType::UInt32 => (32, false),
        DataType::UInt64 => (64, false),
        _ => return None,
    })
}

/// A whole number that is a constant, no less than another and within what functions of the server take.
fn at_least(value: &Value, least: i64) -> Option<i64> {
    let number = value.constant_number()?;
    (least..=i64::from(i32::MAX)).contains(&number).then_some(number)
}

fn counted(sql: String, to: &DataType) -> Option<Value> {
    let counts = matches!(to, DataType::Int32 | DataType::Int64);
    counts.then(|| Value::new(sql, to.clone(), Form::Exact))
}

/// NULL with a type, which a NULL by itself does not have there: the largest one of a few is a text.
fn null_of(data_type: &DataType) -> Option<String> {
    Some(match data_type {
        DataType::Boolean => "CAST(NULL AS SIGNED)".to_owned(),
        DataType::Binary => "CAST(NULL AS BINARY)".to_owned(),
        DataType::Utf8View => format!("(CAST(NULL AS CHAR CHARACTER SET utf8mb4) {COLLATION})"),
        DataType::Decimal128(precision, scale) if *scale >= 0 => format!("CAST(NULL AS DECIMAL({precision},{scale}))"),
        whole_number => match whole(whole_number)? {
            (_, true) => "CAST(NULL AS SIGNED)".to_owned(),
            (_, false) => "CAST(NULL AS UNSIGNED)".to_owned(),
        },
    })
}

impl Dialect for MariadbDialect {
    fn literal(&self, value: &ScalarValue) -> Option<Value> {
        let data_type = plain(&value.data_type());
        let form = match &data_type {
            DataType::Boolean | DataType::Binary | DataType::Decimal128(..) => Form::Exact,
            whole_number if whole(whole_number).is_some() => Form::Exact,
            DataType::Utf8View => {
                let letters = value.try_as_str().flatten().map_or(0, |text| text.chars().count());
                Form::Text {
                    own: u64::try_from(letters).is_ok_and(|letters| letters <= SHORT),
                }
            }
            _ => return None,
        };
        let sql = match value {
            value if value.is_null() => null_of(&data_type)?,
            ScalarValue::Boolean(Some(value)) => u8::from(*value).to_string(),
            ScalarValue::Binary(Some(value)) => sql::hexadecimal(value),
            ScalarValue::Decimal128(Some(value), precision, scale) if *scale >= 0 => {
                Decimal128Type::format_decimal(*value, *precision, *scale)
            }
            value => match value.try_as_str().flatten() {
                Some(text) => format!("({} {COLLATION})", sql::quoted(text)),
                None if whole(&data_type).is_some() => value.to_string(),
                None => return None,
            },
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
        let same = left.data_type == right.data_type && is_compared(left) && is_compared(right);
        same.then(|| Value::condition(format!("({} {symbol} {})", left.sql, right.sql)))
    }

    fn same(&self, left: &Value, right: &Value) -> Option<Value> {
        self.compare(Operator::Eq, left, right)?;
        let same = format!("({} <=> {})", left.sql, right.sql);
        // Hash tables of MariaDB's joins have no NULLs: they are kept from what is no constant.
        let is_constant = left.literal.is_some() || right.literal.is_some();
        Some(Value::condition(if is_constant {
            same
        } else {
            format!("COALESCE({same}, 0)")
        }))
    }

    fn truth(&self, condition: &str, test: &str) -> String {
        match test {
            "IS TRUE" => format!("COALESCE({condition}, 0)"),
            "IS NOT TRUE" => format!("(NOT COALESCE({condition}, 0))"),
            "IS FALSE" => format!("(NOT COALESCE({condition}, 1))"),
            "IS NOT FALSE" => format!("COALESCE({condition}, 1)"),
            _ => format!("({condition} {test})"),
        }
    }

    fn one_of(&self, value: &Value, list: &[Value]) -> Option<Value> {
        let same = is_compared(value)
            && list
                .iter()
                .all(|one| is_compared(one) && one.data_type == value.data_type);
        let texts: Vec<&str> = list.iter().map(|value| value.sql.as_str()).collect();
        same.then(|| Value::condition(format!("({} IN ({}))", value.sql, texts.join(", "))))
    }

    fn arithmetic(&self, op: Operator, left: &Value, right: &Value, to: &DataType) -> Option<Value> {
        // Two constants are computed before anybody knows whether their result is needed.
        if !left.is_exact() || !right.is_exact() || left.literal.is_some() && right.literal.is_some() {
            return None;
        }
        let fits = match (&left.data_type, &right.data_type, to) {
            (DataType::Decimal128(_, left), DataType::Decimal128(_, right), DataType::Decimal128(_, scale)) => match op
            {
                Operator::Plus | Operator::Minus => scale == left.max(right),
                // More digits after the point are cut off there.
                Operator::Multiply => i16::from(*scale) == i16::from(*left) + i16::from(*right) && *scale <= 30,
                _ => false,
            },
            (left, right, to) => [left, right, to].iter().all(|one| **one == DataType::Int64),
        };
        let symbol = match op {
            Operator::Plus => "+",
            Operator::Minus => "-",
            Operator::Multiply => "*",
            _ => return None,
        };
        fits.then(|| {
            Value::new(
                format!("({} {symbol} {})", left.sql, right.sql),
                to.clone(),
                Form::Exact,
            )
        })
    }

    fn cast(&self, value: Value, to: &DataType) -> Option<Value> {
        let to = plain(to);
        if value.data_type == to {
            return Some(value);
        }
        if !value.is_exact() {
            return None;
        }
        let sql = match (&value.data_type, &to) {
            (from, DataType::Decimal128(precision, scale)) if whole(from).is_some() => {
                let digits = match whole(from)? {
                    (8, _) => 3,
                    (16, _) => 5,
                    (32, _) => 10,
                    _ => 20,
                };
                let room = i16::from(*precision) - i16::from(*scale);
                (room >= digits && *scale >= 0)
                    .then(|| format!("CAST({} AS DECIMAL({precision},{scale}))", value.sql))?
            }
            (DataType::Decimal128(precision, scale), DataType::Decimal128(to_precision, to_scale)) => {
                let digits = i16::from(*precision) - i16::from(*scale);
                let room = i16::from(*to_precision) - i16::from(*to_scale);
                (to_scale >= scale && room >= digits).then(|| value.sql.clone())?
            }
            (from, to) => {
                let ((bits, is_signed), (room, to_signed)) = (whole(from)?, whole(to)?);
                let is_wider = if is_signed == to_signed {
                    bits <= room
                } else {
                    to_signed && bits < room
                };
                // From 64 bits on the server computes as it is computed here.
                match (is_wider, room, to_signed) {
                    (true, 64, true) => format!("CAST({} AS SIGNED)", value.sql),
                    (true, 64, false) => format!("CAST({} AS UNSIGNED)", value.sql),
                    (true, ..) => value.sql.clone(),
                    _ => return None,
                }
            }
        };
        Some(Value::new(sql, to, Form::Exact))
    }

    fn like(&self, value: &Value, pattern: &str) -> Option<Value> {
        // What a backslash at the end, or before a letter, means is not agreed on.
        if pattern.contains('\\') || !value.is_text() {
            return None;
        }
        Some(Value::condition(format!(
            "({} LIKE {})",
            value.sql,
            sql::quoted(pattern)
        )))
    }

    fn letters(&self, value: &Value, are_small: bool) -> Option<(Value, String)> {
        if !value.is_text() {
            return None;
        }
        let function = if are_small { "LOWER" } else { "UPPER" };
        let others = format!("(OCTET_LENGTH({}) <> CHAR_LENGTH({}))", value.sql, value.sql);
        Some((value.called(format!("{function}({})", value.sql)), others))
    }

    fn call(&self, name: &str, arguments: &[Value], to: &DataType) -> Option<Value> {
        let made = |of: &Value, sql: String| (plain(to) == DataType::Utf8View).then(|| of.called(sql));
        match (name, arguments) {
            ("character_length" | "char_length" | "length", [value]) if value.is_text() => {
                counted(format!("CHAR_LENGTH({})", value.sql), to)
            }
            ("octet_length", [value]) if value.is_text() => counted(format!("OCTET_LENGTH({})", value.sql), to),
            ("substr" | "substring", [value, from]) if value.is_text() => {
                made(value, format!("SUBSTR({}, {})", value.sql, at_least(from, 1)?))
            }
            ("substr" | "substring", [value, from, count]) if value.is_text() => {
                let (from, count) = (at_least(from, 1)?, at_least(count, 0)?);
                made(value, format!("SUBSTR({}, {from}, {count})", value.sql))
            }
            ("starts_with", [value, prefix]) if value.is_text() && prefix.is_text() => Some(Value::condition(format!(
                "(LEFT({}, CHAR_LENGTH({})) = {})",
                value.sql, prefix.sql, prefix.sql
            ))),
            ("strpos" | "position" | "instr", [value, part]) if value.is_text() => {
                let part = part.constant_text().filter(|part| !part.is_empty())?;
                counted(format!("LOCATE({}, {})", sql::quoted(part), value.sql), to)
            }
            ("btrim" | "trim", [value]) if value.is_text() => made(value, format!("TRIM({})", value.sql)),
            ("ltrim", [value]) if value.is_text() => made(value, format!("LTRIM({})", value.sql)),
            ("rtrim", [value]) if value.is_text() => made(value, format!("RTRIM({})", value.sql)),
            _ => None,
        }
    }

    fn aggregate(&self, call: &Aggregation<'_>) -> Option<Value> {
        let (distinct, over) = (if call.distinct { "DISTINCT " } else { "" }, call.over);
        let picked = |sql: &str| match call.filter {
            Some(condition) => format!("CASE WHEN {} THEN {sql} END", condition.sql),
            None => sql.to_owned(),
        };
        let Some(argument) = call.argument else {
            let sql = match call.filter {
                Some(_) => format!("COUNT({}){over}", picked("1")),
                None => format!("COUNT(*){over}"),
            };
            let counts = call.name == "count" && *call.to == DataType::Int64;
            return counts.then(|| Value::new(sql, DataType::Int64, Form::Exact));
        };
        let value = picked(&argument.sql);
        match (call.name, &argument.data_type, call.to) {
            ("count", _, DataType::Int64) => {
                let counts = if call.distinct {
                    self.group_key(argument).is_some()
                } else {
                    argument.is_tested()
                };
                counts.then(|| Value::new(format!("COUNT({distinct}{value}){over}"), DataType::Int64, Form::Exact))
            }
            ("sum", DataType::Int64, DataType::Int64) if argument.is_exact() => {
                let sql = format!("(SUM({distinct}{value}){over} DIV 1)");
                Some(Value::new(sql, DataType::Int64, Form::Exact))
            }
            ("sum", DataType::Decimal128(_, scale), DataType::Decimal128(_, to))
                if argument.is_exact() && scale == to =>
            {
                Some(Value::new(
                    format!("SUM({distinct}{value}){over}"),
                    call.to.clone(),
                    Form::Exact,
                ))
            }
            // The sum is a decimal with all its digits, and becomes the double that is nearest to it.
            ("avg", from, DataType::Float64) if argument.is_exact() && whole(from).is_some() => {
                let sql = format!("((SUM({distinct}{value}){over} + 0e0) / COUNT({distinct}{value}){over})");
                Some(Value::new(sql, DataType::Float64, Form::Opaque { tested: true }))
            }
            // Over a window it would look through the whole frame again for each row.
            ("min" | "max", from, to) if *from == plain(to) && is_compared(argument) && over.is_empty() => {
                let sql = format!("{}({value}){over}", if call.name == "min" { "MIN" } else { "MAX" });
                Some(argument.called(sql))
            }
            ("bool_and" | "bool_or", DataType::Boolean, DataType::Boolean) if argument.is_exact() => {
                let function = if call.name == "bool_and" { "MIN" } else { "MAX" };
                Some(Value::condition(format!("{function}({value}){over}")))
            }
            _ => None,
        }
    }

    fn window(&self, call: &Windowed<'_>) -> Option<Value> {
        let needs_order = matches!(call.name, "rank" | "dense_rank" | "lag" | "lead");
        let (sql, value) = call.text().filter(|_| call.is_ordered || !needs_order)?;
        Some(match value {
            Some(value) => Value::new(sql, plain(call.to), value.form),
            // It counts rows in numbers with a sign.
            None => Value::new(format!("CAST({sql} AS UNSIGNED)"), DataType::UInt64, Form::Exact),
        })
    }

    fn has_windows_of_many_orders(&self) -> bool {
        // It takes one order for another: of two windows, over PARTITION BY f ORDER BY p and over ORDER BY p, 10.11 computes one wrongly.
        false
    }

    fn group_key(&self, value: &Value) -> Option<Value> {
        let is_short = match value.form {
            Form::Exact => value.data_type != DataType::Binary,
            Form::Text { own } => own,
            Form::Opaque { .. } => false,
        };
        is_short.then(|| value.called(value.sql.clone()))
    }

    fn group_by(&self, key: &Value) -> String {
        match length_of(key) {
            Some(length) => format!("{}, {length}", key.sql),
            None => key.sql.clone(),
        }
    }

    fn has_keys_in_having(&self) -> bool {
        false
    }

    fn sort_key(&self, value: &Value, ascending: bool, nulls_first: bool) -> Option<String> {
        let value = self.group_key(value)?;
        let (key, length) = (&value.sql, length_of(&value));
        let direction = if ascending { "ASC" } else { "DESC" };
        let nulls = if nulls_first { "DESC" } else { "ASC" };
        let length = length
            .map(|length| format!(", {length} {direction}"))
            .unwrap_or_default();
        Some(format!("({key} IS NULL) {nulls}, {key} {direction}{length}"))
    }

    fn join_key(&self, left: &Value, right: &Value) -> Option<Value> {
        // Without an index the server looks through one side for each row of the other, or for each few.
        let is_found = left.is_exact() && right.is_exact() && (left.found_by_index || right.found_by_index);
        is_found.then(|| self.compare(Operator::Eq, left, right)).flatten()
    }

    fn null_safe(&self, _left: &Value, _right: &Value) -> Option<[(Value, Value); 2]> {
        // No index finds what is computed, nor what hash tables are kept from.
        None
    }

    fn meets(&self, meeting: &Meeting<'_>) -> Option<String> {
        met_by_list(meeting, &|value| value.is_exact().then(|| value.sql.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_become_wider_only() {
        let check = |from: DataType, to: DataType, expected: Option<&str>| {
            let value = Value::new("x".to_owned(), from.clone(), Form::Exact);
            let found = MariadbDialect.cast(value, &to).map(|value| value.sql);
            assert_eq!(found.as_deref(), expected, "{from} {to}");
        };
        check(DataType::Int8, DataType::Int16, Some("x"));
        check(DataType::UInt8, DataType::Int16, Some("x"));
        check(DataType::UInt16, DataType::Int16, None);
        check(DataType::Int8, DataType::UInt16, None);
        check(DataType::Int32, DataType::Int64, Some("CAST(x AS SIGNED)"));
        check(DataType::UInt32, DataType::Int64, Some("CAST(x AS SIGNED)"));
        check(DataType::UInt32, DataType::UInt64, Some("CAST(x AS UNSIGNED)"));
        check(DataType::UInt64, DataType::Int64, None);
        check(DataType::Int64, DataType::Int32, None);
        check(
            DataType::Int64,
            DataType::Decimal128(20, 0),
            Some("CAST(x AS DECIMAL(20,0))"),
        );
        check(DataType::Int64, DataType::Decimal128(20, 2), None);
        check(DataType::Decimal128(12, 2), DataType::Decimal128(14, 4), Some("x"));
        check(DataType::Decimal128(12, 2), DataType::Decimal128(12, 4), None);
        check(DataType::Int64, DataType::Float64, None);
    }

    #[test]
    fn only_short_constants_are_keys() {
        for (letters, is_short) in [(1, true), (255, true), (256, false)] {
            let value = MariadbDialect.literal(&"é".repeat(letters).into()).unwrap();
            assert_eq!(value.form, Form::Text { own: is_short }, "{letters}");
        }
    }

    #[test]
    fn constants_are_written_so_that_no_mode_reads_them_otherwise() {
        let check = |value: ScalarValue, expected: Option<&str>| {
            let found = MariadbDialect.literal(&value).map(|value| value.sql);
            assert_eq!(found.as_deref(), expected, "{value}");
        };
        check(i64::MIN.into(), Some("(-9223372036854775808)"));
        check(u64::MAX.into(), Some("18446744073709551615"));
        check(ScalarValue::Decimal128(Some(-150), 12, 2), Some("(-1.50)"));
        check(true.into(), Some("1"));
        check("it's".into(), Some("('it''s' COLLATE utf8mb4_nopad_bin)"));
        check("a\\".into(), Some("(_utf8mb4 X'615C' COLLATE utf8mb4_nopad_bin)"));
        check(ScalarValue::Binary(Some(vec![0])), Some("X'00'"));
        check(ScalarValue::Int64(None), Some("CAST(NULL AS SIGNED)"));
        check(ScalarValue::UInt8(None), Some("CAST(NULL AS UNSIGNED)"));
        check(
            ScalarValue::Decimal128(None, 12, 2),
            Some("CAST(NULL AS DECIMAL(12,2))"),
        );
        for value in [ScalarValue::Date32(Some(0)), 1.5_f64.into(), ScalarValue::Null] {
            check(value, None);
        }
    }
}

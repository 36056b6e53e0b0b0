//! What PostgreSQL computes exactly as DataFusion does.
//!
//! In: values in PostgreSQL's SQL, of the types that columns are read as. Out: text for what means the same on both sides. Operators and functions are
//! named with their schema, so that nothing on a search path takes their place. Texts are compared in the collation `C`, which is the order of bytes;
//! where a column's own collation finds the same texts equal it is left alone, so that its indexes are of use.
//!
//! Deliberately absent: floating point numbers (NaN, -0.0 and the order of additions), division, functions that know letters, and whatever depends on a
//! setting of the server.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use minerva_resources::Address;

use super::catalog::{Column, Compared, Table};
use super::kind::{Kind, Scalar, Written};
use super::sql;
use crate::remote::{Aggregation, Dialect, Form, Relation, Value, Windowed, plain};
use crate::{Comparison, ScanFilter};

/// PostgreSQL, from version 12 on.
#[derive(Debug)]
pub(crate) struct PostgresDialect;

/// A table of PostgreSQL in statements of [`PostgresDialect`].
#[derive(Debug)]
pub(super) struct PostgresRelation {
    address: Address,
    table: Arc<Table>,
}

impl PostgresRelation {
    /// How a table is written; `None` for those whose values a foreign server computes with, and where texts are not in UTF-8.
    pub(super) fn of(address: &Address, table: &Arc<Table>) -> Option<PostgresRelation> {
        table.computes.then(|| PostgresRelation {
            address: address.clone(),
            table: Arc::clone(table),
        })
    }
}

impl Relation for PostgresRelation {
    fn dialect(&self) -> &'static dyn Dialect {
        &PostgresDialect
    }

    fn source(&self) -> Option<String> {
        sql::source(&self.address)
    }

    fn column(&self, name: &str) -> Option<Value> {
        let column = self.table.columns.get(name).filter(|column| column.readable)?;
        let Some(form) = form(column) else {
            // It has no comparison there that is the one here, but a value that can be sent.
            let tested = column.kind != Kind::Json;
            return sent_as_planned(column.kind)
                .then(|| sql::value_of(name, column))
                .flatten()
                .map(|value| Value::new(value, column.kind.arrow(), Form::Opaque { tested }));
        };
        let sql = match column.kind {
            Kind::One(Scalar::Padded | Scalar::Uuid | Scalar::Label) => {
                format!("{}::pg_catalog.text", sql::column_name(name)?)
            }
            Kind::One(Scalar::Oid) => format!("{}::pg_catalog.int8", sql::column_name(name)?),
            _ => sql::value_of(name, column)?,
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

/// Whether what the plan is told a column is sent as is what PostgreSQL sends it as.
fn sent_as_planned(kind: Kind) -> bool {
    match kind {
        Kind::One(scalar) => !matches!(scalar, Scalar::Padded | Scalar::Uuid | Scalar::Oid),
        Kind::List(scalar) => !matches!(scalar, Scalar::Padded | Scalar::Uuid | Scalar::Oid),
        Kind::Json => true,
    }
}

/// What may be done with a column beyond sending it.
fn form(column: &Column) -> Option<Form> {
    let Kind::One(scalar) = column.kind else { return None };
    match (scalar, column.compared) {
        // As many digits as there are at most: what was declared without an end, whose values may have more.
        (Scalar::Numeric { precision: 38, .. }, _) => None,
        (Scalar::Text | Scalar::Padded, Compared::AsText { own_collation }) => {
            let own = own_collation && scalar == Scalar::Text && column.written == Written::Plain;
            Some(Form::Text { own })
        }
        (Scalar::Label, Compared::AsText { .. }) | (Scalar::Uuid, Compared::AsItIs) => Some(Form::Text { own: true }),
        (
            Scalar::Boolean
            | Scalar::Int2
            | Scalar::Int4
            | Scalar::Int8
            | Scalar::Oid
            | Scalar::Numeric { .. }
            | Scalar::Bytea
            | Scalar::Date
            | Scalar::Time
            | Scalar::Timestamp
            | Scalar::TimestampTz,
            Compared::AsItIs,
        ) => Some(Form::Exact),
        _ => None,
    }
}

const C: &str = "COLLATE pg_catalog.\"C\"";

/// A text whose equality, order and patterns are those of its bytes.
fn bytewise(value: &Value) -> Option<String> {
    value.is_text().then(|| format!("({} {C})", value.sql))
}

fn operator(left: &str, operator: &str, right: &str) -> String {
    format!("({left} OPERATOR(pg_catalog.{operator}) {right})")
}

fn integer(data_type: &DataType) -> Option<(&'static str, u8)> {
    match data_type {
        DataType::Int16 => Some(("int2", 5)),
        DataType::Int32 => Some(("int4", 10)),
        DataType::Int64 => Some(("int8", 19)),
        _ => None,
    }
}

/// The whole number that a constant is, within what functions of PostgreSQL take.
fn small(value: &Value) -> Option<i32> {
    value.constant_number().and_then(|number| number.try_into().ok())
}

/// A whole number of PostgreSQL's `int4` as one of the type that is wanted.
fn counted(sql: String, to: &DataType) -> Option<Value> {
    let sql = match to {
        DataType::Int32 => sql,
        DataType::Int64 => format!("{sql}::pg_catalog.int8"),
        _ => return None,
    };
    Some(Value::new(sql, to.clone(), Form::Exact))
}

impl Dialect for PostgresDialect {
    fn literal(&self, value: &ScalarValue) -> Option<Value> {
        let data_type = plain(&value.data_type());
        let (scalar, form) = match &data_type {
            DataType::Boolean => (Scalar::Boolean, Form::Exact),
            DataType::Int16 => (Scalar::Int2, Form::Exact),
            DataType::Int32 => (Scalar::Int4, Form::Exact),
            DataType::Int64 | DataType::UInt64 => (Scalar::Int8, Form::Exact),
            DataType::Decimal128(precision, scale) => {
                let scale = u8::try_from(*scale).ok()?;
                let precision = *precision;
                (Scalar::Numeric { precision, scale }, Form::Exact)
            }
            DataType::Utf8View => (Scalar::Text, Form::Text { own: true }),
            DataType::Binary => (Scalar::Bytea, Form::Exact),
            DataType::Date32 => (Scalar::Date, Form::Exact),
            DataType::Time64(TimeUnit::Microsecond) => (Scalar::Time, Form::Exact),
            DataType::Timestamp(TimeUnit::Microsecond, None) => (Scalar::Timestamp, Form::Exact),
            DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if zone.as_ref() == "UTC" => {
                (Scalar::TimestampTz, Form::Exact)
            }
            _ => return None,
        };
        let sql = match value.is_null() {
            true => format!("NULL::pg_catalog.{}", scalar.name()),
            false => {
                let text = value
                    .try_as_str()
                    .flatten()
                    .map(|text| ScalarValue::Utf8View(Some(text.to_owned())));
                let value = match value {
                    ScalarValue::UInt64(Some(number)) => &ScalarValue::Int64(Some(i64::try_from(*number).ok()?)),
                    value => text.as_ref().unwrap_or(value),
                };
                sql::literal(scalar, value)?
            }
        };
        Some(Value {
            literal: Some(value.clone()),
            ..Value::new(sql, data_type, form)
        })
    }

    fn compare(&self, op: Operator, left: &Value, right: &Value) -> Option<Value> {
        let symbol = Comparison::from_operator(op)?.sql();
        if let (Form::Text { own: own_left }, Form::Text { own: own_right }) = (left.form, right.form) {
            let is_equality = matches!(op, Operator::Eq | Operator::NotEq);
            let has_constant = left.literal.is_some() || right.literal.is_some();
            let (left, right) = match is_equality && has_constant && own_left && own_right {
                true => (left.sql.clone(), right.sql.clone()),
                // On both sides: PostgreSQL makes the inside of an EXISTS unique by its own collation, whatever the comparison's is.
                false => (bytewise(left)?, bytewise(right)?),
            };
            return Some(Value::condition(operator(&left, symbol, &right)));
        }
        let both = left.is_exact() && right.is_exact() && left.data_type == right.data_type;
        both.then(|| Value::condition(operator(&left.sql, symbol, &right.sql)))
    }

    fn one_of(&self, value: &Value, list: &[Value]) -> Option<Value> {
        let texts: Vec<&str> = list.iter().map(|value| value.sql.as_str()).collect();
        let left = match value.form {
            Form::Exact
                if list
                    .iter()
                    .all(|one| one.is_exact() && one.data_type == value.data_type) =>
            {
                value.sql.clone()
            }
            Form::Text { own } if list.iter().all(|one| matches!(one.form, Form::Text { .. })) => match own {
                true => value.sql.clone(),
                false => bytewise(value)?,
            },
            _ => return None,
        };
        Some(Value::condition(format!(
            "({left} OPERATOR(pg_catalog.=) ANY ({}))",
            sql::array(&texts)
        )))
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
                Operator::Multiply => i16::from(*scale) == i16::from(*left) + i16::from(*right),
                _ => false,
            },
            (left, right, to) => left == right && left == to && integer(to).is_some(),
        };
        let symbol = match op {
            Operator::Plus => "+",
            Operator::Minus => "-",
            Operator::Multiply => "*",
            _ => return None,
        };
        fits.then(|| Value::new(operator(&left.sql, symbol, &right.sql), to.clone(), Form::Exact))
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
            // What counts rows has none that do not fit.
            (DataType::UInt64, DataType::Int64) => value.sql.clone(),
            (from, DataType::Decimal128(precision, scale)) if *from == DataType::UInt64 || integer(from).is_some() => {
                let digits = integer(from).map_or(20, |(_, digits)| digits);
                let room = i16::from(*precision) - i16::from(*scale);
                (room >= i16::from(digits)).then(|| format!("{}::pg_catalog.numeric", value.sql))?
            }
            (DataType::Decimal128(precision, scale), DataType::Decimal128(to_precision, to_scale)) => {
                let digits = i16::from(*precision) - i16::from(*scale);
                let room = i16::from(*to_precision) - i16::from(*to_scale);
                (to_scale >= scale && room >= digits).then(|| value.sql.clone())?
            }
            (from, to) => {
                let ((_, digits), (name, room)) = (integer(from)?, integer(to)?);
                (digits <= room).then(|| format!("{}::pg_catalog.{name}", value.sql))?
            }
        };
        Some(Value::new(sql, to, Form::Exact))
    }

    fn like(&self, value: &Value, pattern: &str) -> Option<Value> {
        // What a backslash at the end, or before a letter, means is not agreed on.
        if pattern.contains('\\') {
            return None;
        }
        let pattern = self.literal(&ScalarValue::Utf8View(Some(pattern.to_owned())))?;
        Some(Value::condition(operator(&bytewise(value)?, "~~", &pattern.sql)))
    }

    fn letters(&self, value: &Value, are_small: bool) -> Option<(Value, String)> {
        let function = if are_small { "lower" } else { "upper" };
        let sql = format!("pg_catalog.{function}({})", bytewise(value)?);
        let others = format!(
            "(pg_catalog.octet_length({}) OPERATOR(pg_catalog.<>) pg_catalog.length({}))",
            value.sql, value.sql
        );
        Some((Value::new(sql, DataType::Utf8View, Form::Text { own: false }), others))
    }

    fn call(&self, name: &str, arguments: &[Value], to: &DataType) -> Option<Value> {
        let text = |sql: String| {
            let is_text = plain(to) == DataType::Utf8View;
            is_text.then(|| Value::new(sql, DataType::Utf8View, Form::Text { own: false }))
        };
        match (name, arguments) {
            ("||", [left, right]) if left.is_text() && right.is_text() => text(operator(&left.sql, "||", &right.sql)),
            ("character_length" | "char_length" | "length", [value]) if value.is_text() => {
                counted(format!("pg_catalog.length({})", value.sql), to)
            }
            ("octet_length", [value]) if value.is_text() => {
                counted(format!("pg_catalog.octet_length({})", value.sql), to)
            }
            ("substr" | "substring", [value, from]) if value.is_text() => {
                text(format!("pg_catalog.substr({}, {})", value.sql, small(from)?))
            }
            ("substr" | "substring", [value, from, count]) if value.is_text() => {
                let (from, count) = (small(from)?, small(count).filter(|count| *count >= 0)?);
                text(format!("pg_catalog.substr({}, {from}, {count})", value.sql))
            }
            ("starts_with", [value, prefix]) if prefix.is_text() => Some(Value::condition(format!(
                "pg_catalog.starts_with({}, {})",
                bytewise(value)?,
                prefix.sql
            ))),
            ("strpos" | "position" | "instr", [value, part])
                if part.constant_text().is_some_and(|part| !part.is_empty()) =>
            {
                counted(format!("pg_catalog.strpos({}, {})", bytewise(value)?, part.sql), to)
            }
            ("right", [value, count]) if value.is_text() => {
                let count = small(count).filter(|count| *count >= 0)?;
                text(format!("pg_catalog.\"right\"({}, {count})", value.sql))
            }
            ("repeat", [value, count]) if value.is_text() && count.data_type == DataType::Int32 && count.is_exact() => {
                text(format!("pg_catalog.repeat({}, {})", value.sql, count.sql))
            }
            ("sha256", [value]) if value.is_text() && *to == DataType::Binary => Some(Value::new(
                format!("pg_catalog.sha256(pg_catalog.convert_to({}, 'UTF8'))", value.sql),
                DataType::Binary,
                Form::Exact,
            )),
            ("encode", [value, kind]) if value.data_type == DataType::Binary && kind.constant_text() == Some("hex") => {
                value
                    .is_exact()
                    .then(|| text(format!("pg_catalog.encode({}, 'hex')", value.sql)))
                    .flatten()
            }
            ("btrim" | "trim", [value]) if value.is_text() => text(format!("pg_catalog.btrim({})", value.sql)),
            ("ltrim", [value]) if value.is_text() => text(format!("pg_catalog.ltrim({})", value.sql)),
            ("rtrim", [value]) if value.is_text() => text(format!("pg_catalog.rtrim({})", value.sql)),
            ("date_part", [part, date]) if date.data_type == DataType::Date32 && date.is_exact() => {
                let part = part.constant_text()?.to_ascii_lowercase();
                if *to != DataType::Int32 {
                    return None;
                }
                let found = format!("(pg_catalog.date_part('{part}', {}))::pg_catalog.int4", date.sql);
                let sql = match part.as_str() {
                    "month" | "day" => found,
                    // There is a year 0 here, and none there.
                    "year" => format!(
                        "({found} OPERATOR(pg_catalog.+) (CASE WHEN {} OPERATOR(pg_catalog.<) '0001-01-01'::pg_catalog.date THEN 1 ELSE 0 END))",
                        date.sql
                    ),
                    _ => return None,
                };
                Some(Value::new(sql, DataType::Int32, Form::Exact))
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
            return counts.then(|| Value::new(format!("pg_catalog.count(*){filter}"), DataType::Int64, Form::Exact));
        };
        let result = |sql: String, data_type: &DataType| Some(Value::new(sql, data_type.clone(), Form::Exact));
        match (call.name, &argument.data_type, call.to) {
            ("count", _, DataType::Int64) => {
                let counted = match call.distinct {
                    true => self.group_key(argument)?.sql,
                    false if argument.is_tested() => argument.sql.clone(),
                    false => return None,
                };
                result(format!("pg_catalog.count({distinct}{counted}){filter}"), call.to)
            }
            ("sum", DataType::Int64, DataType::Int64) if argument.is_exact() => result(
                format!("(pg_catalog.sum({distinct}{}){filter})::pg_catalog.int8", argument.sql),
                call.to,
            ),
            ("sum", DataType::Decimal128(_, scale), DataType::Decimal128(_, to))
                if argument.is_exact() && scale == to =>
            {
                result(format!("pg_catalog.sum({distinct}{}){filter}", argument.sql), call.to)
            }
            // The mean of decimals is cut off here after its last digit, so its digits are found as a whole number.
            ("avg", DataType::Decimal128(_, scale), DataType::Decimal128(_, to))
                if argument.is_exact() && to >= scale =>
            {
                let digits = usize::try_from(*to).ok()?;
                let (many, few) = ("0".repeat(digits), "0".repeat(digits.saturating_sub(1)));
                let unit = if digits == 0 {
                    "1".to_owned()
                } else {
                    format!("0.{few}1")
                };
                let sum = format!("pg_catalog.sum({distinct}{}){filter}", argument.sql);
                let count = format!("pg_catalog.count({distinct}{}){filter}", argument.sql);
                let whole = format!(
                    "pg_catalog.div({sum} OPERATOR(pg_catalog.*) '1{many}'::pg_catalog.numeric, ({count})::pg_catalog.numeric)"
                );
                result(operator(&whole, "*", &format!("'{unit}'::pg_catalog.numeric")), call.to)
            }
            ("avg", from, DataType::Float64) if argument.is_exact() && from.is_integer() => {
                let sum = format!(
                    "(pg_catalog.sum({distinct}{}){filter})::pg_catalog.float8",
                    argument.sql
                );
                let count = format!(
                    "(pg_catalog.count({distinct}{}){filter})::pg_catalog.float8",
                    argument.sql
                );
                let form = Form::Opaque { tested: true };
                Some(Value::new(operator(&sum, "/", &count), DataType::Float64, form))
            }
            ("min" | "max", from, to) if *from == plain(to) => {
                let argument = match (argument.form, from) {
                    (Form::Text { .. }, _) => bytewise(argument)?,
                    (Form::Exact, DataType::Boolean | DataType::Binary) | (Form::Opaque { .. }, _) => return None,
                    (Form::Exact, _) => argument.sql.clone(),
                };
                let form = match from {
                    DataType::Utf8View => Form::Text { own: false },
                    _ => Form::Exact,
                };
                let sql = format!("pg_catalog.{}({argument}){filter}", call.name);
                Some(Value::new(sql, from.clone(), form))
            }
            ("bool_and" | "bool_or", DataType::Boolean, DataType::Boolean) if argument.is_exact() => {
                result(format!("pg_catalog.{}({}){filter}", call.name, argument.sql), call.to)
            }
            _ => None,
        }
    }

    /// Conditions are not pushed into it and its columns are not computed elsewhere, because it is said to be MATERIALIZED.
    fn fence(&self, name: &str) -> Option<(String, String)> {
        Some((format!("{name} AS MATERIALIZED ("), ")".to_owned()))
    }

    fn window(&self, call: &Windowed<'_>) -> Option<Value> {
        let (sql, value) = call.text()?;
        let form = match value.map(|value| value.form) {
            Some(Form::Text { .. }) => Form::Text { own: false },
            Some(form) => form,
            None => Form::Exact,
        };
        Some(Value::new(format!("pg_catalog.{sql}"), plain(call.to), form))
    }

    fn full_join(&self) -> Option<&'static str> {
        // Put into the other SELECT, a constant column would leave no key that it can sort or hash by, which is an error.
        Some(" OFFSET 0")
    }

    fn sent(&self, data_type: &DataType) -> DataType {
        match data_type {
            // It has no numbers without a sign, and counts rows in what it has.
            DataType::UInt64 => DataType::Int64,
            other => other.clone(),
        }
    }

    fn group_key(&self, value: &Value) -> Option<Value> {
        let sql = match value.form {
            Form::Exact | Form::Text { own: true } => value.sql.clone(),
            Form::Text { own: false } => bytewise(value)?,
            Form::Opaque { .. } => return None,
        };
        Some(value.called(sql))
    }

    fn sort_key(&self, value: &Value, ascending: bool, nulls_first: bool) -> Option<String> {
        let key = match value.form {
            Form::Exact => value.sql.clone(),
            Form::Text { .. } => bytewise(value)?,
            Form::Opaque { .. } => return None,
        };
        let direction = if ascending { "ASC" } else { "DESC" };
        let nulls = if nulls_first { "FIRST" } else { "LAST" };
        Some(format!("{key} {direction} NULLS {nulls}"))
    }
}

//! The one statement that a scan becomes.
//!
//! In: a scan. Out: SQL text with quoted names and numbered parameters, and the values to bind; no value is ever part of
//! the text. [`accepts`] says which filters mean the same to SQLite as to DataFusion; what it refuses never gets here.

use std::collections::HashMap;
use std::fmt::Write;

use arrow::datatypes::Field;
use datafusion::common::ScalarValue;
use rusqlite::types::Value;

use super::kind::Kind;
use super::write::ROW_ID_NAME;
use crate::{Error, ErrorKind, ROW_ID, Scan, ScanFilter};

/// The name that the dataset has inside the statement. Every column is written with it, because SQLite takes a quoted
/// name that it does not find for a text.
pub(super) const ALIAS: &str = "t";

/// A statement and the values of its parameters.
#[derive(Debug, PartialEq)]
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
}

/// Whether SQLite decides a comparison or NULL test exactly as DataFusion does. `comparable` has the columns whose
/// declared affinity SQLite enforces for comparisons, with their kinds.
pub(super) fn accepts(filter: &ScanFilter, comparable: &HashMap<String, Kind>) -> bool {
    let same = |column: &String, value: &ScalarValue| {
        comparable
            .get(column)
            .is_some_and(|kind| bind(value).is_some_and(|bound| same_order(*kind, &bound)))
    };
    match filter {
        ScanFilter::Compare { column, value, .. } => same(column, value),
        ScanFilter::OneOf { column, values } => values.iter().all(|value| same(column, value)),
        ScanFilter::IsNull(_) | ScanFilter::IsNotNull(_) => true,
        ScanFilter::All(_) | ScanFilter::Any(_) => false,
    }
}

/// Whether comparing with this value gives the same answer for everything a column of this kind may hold.
fn same_order(kind: Kind, value: &Value) -> bool {
    match (kind, value) {
        (Kind::Integer, Value::Integer(_)) | (Kind::Text, Value::Text(_)) => true,
        // DataFusion tells -0.0 from 0.0 and orders NaN; SQLite does neither. Against any other number they agree.
        (Kind::Real, Value::Real(value)) => value.is_finite() && *value != 0.0,
        _ => false,
    }
}

fn bind(value: &ScalarValue) -> Option<Value> {
    match value {
        ScalarValue::Int64(Some(value)) => Some(Value::Integer(*value)),
        ScalarValue::Float64(Some(value)) => Some(Value::Real(*value)),
        ScalarValue::Utf8View(Some(value)) => Some(Value::Text(value.clone())),
        _ => None,
    }
}

/// The statement for a scan, or for the rows of it for which one more condition holds.
pub(super) fn statement(scan: &Scan, piece: Option<&str>) -> Result<Statement, Error> {
    let mut statement = Statement {
        sql: "SELECT ".to_owned(),
        values: Vec::new(),
    };
    match scan.schema.fields().as_ref() {
        [] => statement.sql.push('1'),
        fields => {
            let columns: Result<Vec<String>, Error> = fields.iter().map(|field| selected(scan, field)).collect();
            statement.sql.push_str(&columns?.join(", "));
        }
    }
    let table = quoted(scan, &scan.address.dataset)?;
    statement.push(format_args!(" FROM main.{table} AS {ALIAS}"));
    let mut between = " WHERE ";
    if let Some(piece) = piece {
        statement.push(format_args!("{between}{piece}"));
        between = " AND ";
    }
    for filter in &scan.filters {
        statement.sql.push_str(between);
        between = " AND ";
        condition(&mut statement, scan, filter)?;
    }
    if let Some(limit) = scan.limit {
        statement.push(format_args!(" LIMIT {limit}"));
    }
    Ok(statement)
}

impl Statement {
    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.sql.write_fmt(text);
    }

    fn parameter(&mut self, scan: &Scan, value: &ScalarValue) -> Result<(), Error> {
        let value = bind(value).ok_or_else(|| refused(scan, "a filter was not meant for this depot"))?;
        self.values.push(value);
        let number = self.values.len();
        self.push(format_args!("?{number}"));
        Ok(())
    }
}

fn condition(statement: &mut Statement, scan: &Scan, filter: &ScanFilter) -> Result<(), Error> {
    match filter {
        ScanFilter::Compare {
            column,
            comparison,
            value,
        } => {
            let column = compared(scan, column, value)?;
            statement.push(format_args!("{column} {} ", comparison.sql()));
            statement.parameter(scan, value)
        }
        ScanFilter::OneOf { column, values } => {
            let Some(first) = values.first() else {
                statement.sql.push('0');
                return Ok(());
            };
            let column = compared(scan, column, first)?;
            statement.push(format_args!("{column} IN ("));
            for (position, value) in values.iter().enumerate() {
                statement.sql.push_str(if position == 0 { "" } else { ", " });
                statement.parameter(scan, value)?;
            }
            statement.sql.push(')');
            Ok(())
        }
        ScanFilter::IsNull(column) => {
            let column = column_name(scan, column)?;
            statement.push(format_args!("{column} IS NULL"));
            Ok(())
        }
        ScanFilter::IsNotNull(column) => {
            let column = column_name(scan, column)?;
            statement.push(format_args!("{column} IS NOT NULL"));
            Ok(())
        }
        ScanFilter::All(filters) => branches(statement, scan, filters, " AND ", "1"),
        ScanFilter::Any(filters) => branches(statement, scan, filters, " OR ", "0"),
    }
}

fn branches(
    statement: &mut Statement,
    scan: &Scan,
    filters: &[ScanFilter],
    between: &str,
    none: &str,
) -> Result<(), Error> {
    statement.sql.push('(');
    for (position, filter) in filters.iter().enumerate() {
        statement.sql.push_str(if position == 0 { "" } else { between });
        condition(statement, scan, filter)?;
    }
    statement.sql.push_str(if filters.is_empty() { none } else { "" });
    statement.sql.push(')');
    Ok(())
}

/// A column in a comparison: text is compared byte by byte whatever collation the column declares.
fn compared(scan: &Scan, column: &str, value: &ScalarValue) -> Result<String, Error> {
    let column = column_name(scan, column)?;
    Ok(if matches!(value, ScalarValue::Utf8View(_)) {
        format!("{column} COLLATE BINARY")
    } else {
        column
    })
}

/// A column that is read: one of the table, or the identity of its rows, whose expression comes with it.
fn selected(scan: &Scan, field: &Field) -> Result<String, Error> {
    match field.metadata().get(ROW_ID_NAME) {
        Some(expression) if field.name() == ROW_ID => Ok(expression.clone()),
        _ => column_name(scan, field.name()),
    }
}

fn column_name(scan: &Scan, name: &str) -> Result<String, Error> {
    Ok(format!("{ALIAS}.{}", quoted(scan, name)?))
}

fn quoted(scan: &Scan, name: &str) -> Result<String, Error> {
    if name.contains('\0') {
        return Err(refused(scan, "a name with a NUL character cannot be written in SQL"));
    }
    Ok(format!("\"{}\"", name.replace('"', "\"\"")))
}

fn refused(scan: &Scan, message: &str) -> Error {
    Error::new(&scan.address.depot, ErrorKind::Internal, message)
        .about_dataset(&scan.address.collection, &scan.address.dataset)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Schema};
    use minerva_resources::Address;

    use super::*;
    use crate::Comparison;

    fn scan(columns: &[&str], filters: Vec<ScanFilter>) -> Scan {
        let fields: Vec<Field> = columns
            .iter()
            .map(|name| Field::new(*name, DataType::Int64, true))
            .collect();
        let address = Address {
            depot: "d".to_owned(),
            collection: "main".to_owned(),
            dataset: "a \"b\"".to_owned(),
        };
        Scan {
            address,
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

    #[test]
    fn names_are_quoted_and_values_are_bound() {
        let hostile = ScalarValue::Utf8View(Some("x' OR 1=1 --".to_owned()));
        let filters = vec![
            compare("n\"; DROP TABLE x", Comparison::NotEqual, hostile),
            ScanFilter::Any(vec![
                ScanFilter::IsNull("id".to_owned()),
                ScanFilter::OneOf {
                    column: "id".to_owned(),
                    values: vec![1_i64.into(), 2_i64.into()],
                },
            ]),
        ];
        let statement = statement(&scan(&["id", "x\"y"], filters), None).unwrap();
        assert_eq!(
            statement.sql,
            "SELECT t.\"id\", t.\"x\"\"y\" FROM main.\"a \"\"b\"\"\" AS t \
             WHERE t.\"n\"\"; DROP TABLE x\" COLLATE BINARY <> ?1 AND (t.\"id\" IS NULL OR t.\"id\" IN (?2, ?3)) LIMIT 3"
        );
        assert_eq!(
            statement.values,
            [
                Value::Text("x' OR 1=1 --".to_owned()),
                Value::Integer(1),
                Value::Integer(2)
            ]
        );
    }

    #[test]
    fn no_columns_still_give_rows() {
        assert_eq!(
            statement(&scan(&[], Vec::new()), None).unwrap().sql,
            "SELECT 1 FROM main.\"a \"\"b\"\"\" AS t LIMIT 3"
        );
        assert!(statement(&scan(&["a\0b"], Vec::new()), None).is_err());
    }

    #[test]
    fn only_comparisons_with_one_meaning_are_accepted() {
        let comparable = HashMap::from([
            ("i".to_owned(), Kind::Integer),
            ("r".to_owned(), Kind::Real),
            ("s".to_owned(), Kind::Text),
            ("d".to_owned(), Kind::Date),
        ]);
        let check = |column: &str, value: ScalarValue, expected: bool| {
            let filter = compare(column, Comparison::Less, value.clone());
            assert_eq!(accepts(&filter, &comparable), expected, "{column} {value}");
        };
        check("i", 1_i64.into(), true);
        check("s", ScalarValue::Utf8View(Some("a".to_owned())), true);
        check("r", 1.5_f64.into(), true);
        check("r", 0.0_f64.into(), false);
        check("r", (-0.0_f64).into(), false);
        check("r", f64::NAN.into(), false);
        check("r", f64::INFINITY.into(), false);
        check("d", ScalarValue::Date32(Some(1)), false);
        check("i", ScalarValue::Utf8View(Some("1".to_owned())), false);
        check("undeclared", 1_i64.into(), false);
        assert!(accepts(&ScanFilter::IsNull("undeclared".to_owned()), &comparable));
    }
}

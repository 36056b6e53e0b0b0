//! A statement that leaves out rows for which conditions on its columns are not true.
//!
//! In: a statement, its columns, and conditions that are found while the query runs. Out: a statement around it, with the conditions that its dialect decides
//! as they are decided here.

use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::common::ScalarValue;

use super::dialect::{Dialect, Form, Value, plain};
use super::select::RemoteQuery;
use crate::ScanFilter;

/// What the statement inside is called.
const INSIDE: &str = "n";

/// The narrower statement; `None` when no condition can be said.
pub(crate) fn narrowed(
    query: &RemoteQuery,
    schema: &SchemaRef,
    filters: &[ScanFilter],
    dialect: &'static dyn Dialect,
) -> Option<RemoteQuery> {
    if query.limited || query.around.is_some() {
        return None;
    }
    let column = |(place, field): (usize, &std::sync::Arc<Field>)| {
        let data_type = plain(field.data_type());
        let form = match data_type {
            DataType::Utf8View => Form::Text { own: false },
            _ => Form::Exact,
        };
        Value::new(format!("{INSIDE}.c{place}"), data_type, form)
    };
    let columns: Vec<Value> = schema.fields().iter().enumerate().map(column).collect();
    let outputs: Vec<&str> = columns.iter().map(|value| value.sql.as_str()).collect();
    let before = format!("SELECT {} FROM (", outputs.join(", "));
    let narrowing = Narrowing {
        columns,
        compared: &query.compared,
        dialect,
    };
    let conditions: Vec<String> = filters
        .iter()
        .filter_map(|filter| narrowing.condition(filter))
        .collect();
    if conditions.is_empty() {
        return None;
    }
    // Pieces of its table are still conditions of the statement inside.
    Some(RemoteQuery {
        around: Some((before, format!(") AS {INSIDE} WHERE {}", conditions.join(" AND ")))),
        ..query.clone()
    })
}

struct Narrowing<'a> {
    columns: Vec<Value>,
    compared: &'a [bool],
    dialect: &'static dyn Dialect,
}

impl Narrowing<'_> {
    fn column(&self, name: &str) -> Option<&Value> {
        let place = name.strip_prefix('c')?.parse::<usize>().ok()?;
        self.columns
            .get(place)
            .filter(|_| self.compared.get(place) == Some(&true))
    }

    fn condition(&self, filter: &ScanFilter) -> Option<String> {
        let joined = |filters: &[ScanFilter], between: &str, none: &str| {
            let parts: Option<Vec<String>> = filters.iter().map(|filter| self.condition(filter)).collect();
            let parts = parts?;
            Some(match parts.is_empty() {
                true => none.to_owned(),
                false => format!("({})", parts.join(between)),
            })
        };
        let constant = |value: &ScalarValue| self.dialect.literal(value);
        match filter {
            ScanFilter::Compare {
                column,
                comparison,
                value,
            } => {
                let compared = self
                    .dialect
                    .compare(comparison.operator(), self.column(column)?, &constant(value)?)?;
                Some(compared.sql)
            }
            ScanFilter::OneOf { values, .. } if values.is_empty() => Some("(1 = 0)".to_owned()),
            ScanFilter::OneOf { column, values } => {
                let values: Option<Vec<Value>> = values.iter().map(constant).collect();
                Some(self.dialect.one_of(self.column(column)?, &values?)?.sql)
            }
            ScanFilter::IsNull(column) => Some(format!("({} IS NULL)", self.column(column)?.sql)),
            ScanFilter::IsNotNull(column) => Some(format!("({} IS NOT NULL)", self.column(column)?.sql)),
            ScanFilter::All(filters) => joined(filters, " AND ", "(1 = 1)"),
            ScanFilter::Any(filters) => joined(filters, " OR ", "(1 = 0)"),
        }
    }
}

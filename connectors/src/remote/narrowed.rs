//! A statement that leaves out rows for which conditions on its columns are not true.
//!
//! In: a statement, its columns, and conditions that are found while the query runs. Out: a statement around it, with the conditions that its dialect decides
//! as they are decided here.

use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::common::ScalarValue;

use super::dialect::{Dialect, Form, Value, plain};
use super::fence::Shown;
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
    let outside = Narrowing {
        columns: columns.into_iter().map(Some).collect(),
        compared: &query.compared,
        dialect,
    };
    // What the policy of a governed table lets through is said inside its fence, where an index may find it.
    let inside = Narrowing {
        columns: query
            .inside
            .iter()
            .map(|shown| shown.as_ref().map(Shown::value))
            .collect(),
        compared: &query.compared,
        dialect,
    };
    let mut narrower = query.clone();
    let (mut conditions, mut is_narrower) = (Vec::new(), false);
    for filter in filters {
        match (inside.condition(filter), narrower.fences.as_mut_slice()) {
            (Some(condition), [fence]) => {
                fence.conditions.push(condition);
                is_narrower = true;
            }
            _ => conditions.extend(outside.condition(filter)),
        }
    }
    if !conditions.is_empty() {
        // Pieces of its table are still conditions of the statement inside.
        narrower.around = Some((before, format!(") AS {INSIDE} WHERE {}", conditions.join(" AND "))));
    }
    (is_narrower || narrower.around.is_some()).then_some(narrower)
}

struct Narrowing<'a> {
    columns: Vec<Option<Value>>,
    compared: &'a [bool],
    dialect: &'static dyn Dialect,
}

impl Narrowing<'_> {
    fn column(&self, name: &str) -> Option<&Value> {
        let place = name.strip_prefix('c')?.parse::<usize>().ok()?;
        let column = self.columns.get(place)?.as_ref();
        column.filter(|_| self.compared.get(place) == Some(&true))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;
    use minerva_resources::Address;

    use super::*;
    use crate::Comparison;
    use crate::postgres::PostgresDialect;
    use crate::remote::fence::Fence;

    /// The second column is one whose raw values are shown, the first is under a mask.
    #[test]
    fn keys_of_shown_columns_go_into_a_fence_and_others_stay_outside() {
        let shown = Shown {
            sql: "t.\"id\"".to_owned(),
            data_type: DataType::Int32,
            form: Form::Exact,
        };
        let query = RemoteQuery {
            addresses: Vec::new(),
            fences: vec![Fence {
                number: 0,
                address: Address::new("pg", "public", "people"),
                fingerprint: "mine".to_owned(),
                before: "f0 AS MATERIALIZED (SELECT 0 AS c0, t.\"id\" AS c1 FROM people AS t".to_owned(),
                conditions: vec!["visible".to_owned()],
                after: ")".to_owned(),
            }],
            select: "SELECT f0.c0 AS c0, f0.c1 AS c1 FROM f0".to_owned(),
            conditions: vec!["users".to_owned()],
            rest: String::new(),
            divisible: false,
            limited: false,
            compared: vec![true, true],
            inside: vec![None, Some(shown)],
            around: None,
        };
        let schema = Arc::new(Schema::new(vec![
            Field::new("pay", DataType::Int32, true),
            Field::new("id", DataType::Int32, true),
        ]));
        let less = |column: &str| ScanFilter::Compare {
            column: column.to_owned(),
            comparison: Comparison::Less,
            value: ScalarValue::Int32(Some(7)),
        };
        let text = |filters: &[ScanFilter]| {
            narrowed(&query, &schema, filters, &PostgresDialect)
                .unwrap()
                .text(None, None)
        };
        let fence = "WITH f0 AS MATERIALIZED (SELECT 0 AS c0, t.\"id\" AS c1 FROM people AS t WHERE visible";
        let statement = "SELECT f0.c0 AS c0, f0.c1 AS c1 FROM f0 WHERE users";
        let key = "OPERATOR(pg_catalog.<) '7'::pg_catalog.int4)";
        assert_eq!(text(&[less("c1")]), format!("{fence} AND (t.\"id\" {key}) {statement}"));
        let outside = format!("SELECT n.c0, n.c1 FROM ({statement}) AS n WHERE (n.c0 {key}");
        assert_eq!(text(&[less("c0")]), format!("{fence}) {outside}"));
        assert_eq!(
            text(&[less("c0"), less("c1")]),
            format!("{fence} AND (t.\"id\" {key}) {outside}")
        );
        // What is about both stays outside as a whole.
        let either = ScanFilter::Any(vec![less("c0"), less("c1")]);
        assert!(text(&[either]).starts_with(&format!("{fence}) SELECT n.c0")));
    }
}

//! What PostgreSQL knows of the values of columns: what `ANALYZE` has put into `pg_statistic`.
//!
//! In: a table. Out: [`ColumnStatistics`]. Nobody needs them: where they may not be read, plans are made without.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::connection::Database;
pub(super) use crate::figures::{Figures, Known};
use crate::statistics::{ColumnStatistics, written};

/// One row for each column. Values are asked for of numbers and times, in tables that are not very wide, if they are not very many.
const STATISTICS: &str = "\
    SELECT s.attname::text, s.n_distinct::float8, s.null_frac::float8, s.avg_width::float8, \
        CASE WHEN v.are_few THEN s.most_common_vals::text END AS common_values, \
        CASE WHEN v.are_few THEN s.most_common_freqs::float8[] END AS common_shares, \
        CASE WHEN v.are_few THEN s.histogram_bounds::text END AS bounds \
    FROM pg_catalog.pg_stats s \
    JOIN pg_catalog.pg_namespace n ON n.nspname = s.schemaname \
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = s.tablename \
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = s.attname \
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
    CROSS JOIN LATERAL (SELECT t.typcategory IN ('N', 'D') AND c.relnatts <= 200 \
        AND coalesce(pg_catalog.length(s.most_common_vals::text), 0) + coalesce(pg_catalog.length(s.histogram_bounds::text), 0) < 20000 AS are_few) v \
    WHERE s.schemaname = $1 AND s.tablename = $2 AND s.inherited = (c.relkind = 'p' OR c.relhassubclass)";

/// What is known of a table with these columns and about so many rows.
pub(super) async fn of(
    database: &Arc<Database>,
    (schema, name): (&str, &str),
    columns: &SchemaRef,
    rows: usize,
) -> Figures {
    let table = (schema.to_owned(), name.to_owned());
    if let Some(figures) = database.figures().get(&table, rows) {
        return figures;
    }
    // Nothing is known, too, where they may not be read: that is not asked again and again.
    let figures = Arc::new(asked(database, (schema, name), columns, rows).await);
    database.figures().put(table, rows, &figures);
    figures
}

async fn asked(
    database: &Arc<Database>,
    (schema, name): (&str, &str),
    columns: &SchemaRef,
    rows: usize,
) -> HashMap<String, Arc<ColumnStatistics>> {
    let object = format!("{schema}.{name}");
    let found = database
        .query(&object, STATISTICS, &[(&schema, Type::TEXT), (&name, Type::TEXT)])
        .await
        .unwrap_or_default();
    let read = |row: &Row| {
        let name: String = row.try_get("attname").ok()?;
        let field = columns.field_with_name(&name).ok()?;
        Some((name, Arc::new(column(row, field.data_type(), rows as f64).ok()?)))
    };
    found.iter().filter_map(read).collect()
}

/// The figures of a column of a table with so many rows.
fn column(row: &Row, data_type: &DataType, rows: f64) -> Result<ColumnStatistics, tokio_postgres::Error> {
    let distinct: Option<f64> = row.try_get("n_distinct")?;
    let shares: Vec<f64> = row.try_get::<_, Option<_>>("common_shares")?.unwrap_or_default();
    let values = |name: &str| -> Result<Vec<Option<f64>>, tokio_postgres::Error> {
        let text: Option<&str> = row.try_get(name)?;
        Ok(text.map(|text| elements(text, data_type)).unwrap_or_default())
    };
    let common = values("common_values")?.into_iter().zip(shares);
    let mut bounds: Vec<f64> = values("bounds")?.into_iter().flatten().collect();
    bounds.sort_by(f64::total_cmp);
    Ok(ColumnStatistics {
        distinct: distinct.and_then(|figure| distinct_of(figure, rows)),
        nulls: row.try_get::<_, Option<f64>>("null_frac")?.unwrap_or_default(),
        width: row.try_get("avg_width")?,
        common: common.filter_map(|(value, share)| Some((value?, share))).collect(),
        bounds,
        ..ColumnStatistics::default()
    })
}

/// `n_distinct`: a number of values, or a share of the rows when it is negative; 0 when nothing is known.
fn distinct_of(figure: f64, rows: f64) -> Option<f64> {
    if figure > 0.0 {
        Some(figure)
    } else if figure < 0.0 {
        Some((-figure * rows).max(1.0))
    } else {
        None
    }
}

/// The elements of an array of numbers or times as PostgreSQL prints it.
fn elements(text: &str, data_type: &DataType) -> Vec<Option<f64>> {
    let inner = text.trim_start_matches('{').trim_end_matches('}');
    if inner.is_empty() {
        return Vec::new();
    }
    inner
        .split(',')
        .map(|element| written(element.trim_matches('"'), data_type))
        .collect()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn elements_are_those_of_the_array() {
        assert_eq!(
            elements("{1,2.5,NaN}", &DataType::Float64),
            [Some(1.0), Some(2.5), None]
        );
        assert_eq!(elements("{}", &DataType::Int32), []);
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let found = elements("{\"1970-01-01 00:00:01\",-infinity,\"0044-03-15 00:00:00 BC\"}", &time);
        assert_eq!(found, [Some(1.0), None, None]);
    }

    #[test]
    fn how_many_values_there_are_may_be_a_share() {
        assert_eq!(distinct_of(7.0, 100.0), Some(7.0));
        assert_eq!(distinct_of(-0.5, 100.0), Some(50.0));
        assert_eq!(distinct_of(0.0, 100.0), None);
    }
}

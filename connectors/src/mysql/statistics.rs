//! What a server knows of the values of columns: how many different values its indexes have, and what `ANALYZE TABLE ... PERSISTENT` gathered.
//!
//! In: a table. Out: [`ColumnStatistics`]. Nobody needs them: where they may not be read, plans are made without.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::catalog::Table;
use super::connection::Database;
use super::sql::{is_name, quoted};
use crate::figures::{Figures, Known};
use crate::statistics::{ColumnStatistics, NULLS_GUESSED, written};

/// Plans do not wait longer for what they can do without.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is known of a table with about so many rows.
pub(super) async fn of(
    database: &Arc<Database>,
    known: &Known,
    (schema, name): (&str, &str),
    table: &Table,
) -> Figures {
    let Some(rows) = table
        .rows
        .filter(|_| !table.is_view && is_name(schema) && is_name(name))
    else {
        return Figures::default();
    };
    let key = (schema.to_owned(), name.to_owned());
    // The number of rows is guessed anew each time it is asked for: only its size says that there are other rows.
    let about = rows.ilog2() as usize;
    if let Some(figures) = known.get(&key, about) {
        return figures;
    }
    let mut figures = types(table);
    let asked = timeout(PATIENCE, async {
        let object = format!("{schema}.{name}");
        let indexes = database.query(&object, &indexes(schema, name)).await;
        (indexes, database.query(&object, &gathered(schema, name)).await)
    });
    // Nothing is known, too, where they may not be read, or not soon: that is not asked again and again.
    if let Ok((indexes, gathered)) = asked.await {
        for row in indexes.unwrap_or_default() {
            counted(&mut figures, row, rows as f64);
        }
        for row in gathered.unwrap_or_default() {
            measured(&mut figures, table, row, rows as f64);
        }
    }
    let figures: Figures = Arc::new(
        figures
            .into_iter()
            .map(|(name, known)| (name, Arc::new(known)))
            .collect(),
    );
    known.put(key, about, &figures);
    figures
}

/// How many different values the first column of each index has, and whether the index is of this column alone and has each value once.
fn indexes(schema: &str, name: &str) -> String {
    let (schema, name) = (quoted(schema), quoted(name));
    format!(
        "SELECT s.COLUMN_NAME, s.CARDINALITY, s.NON_UNIQUE = 0 AND s.NULLABLE <> 'YES' AND (SELECT count(*) FROM information_schema.STATISTICS o \
         WHERE o.TABLE_SCHEMA = {schema} AND o.TABLE_NAME = {name} AND o.INDEX_NAME = s.INDEX_NAME) = 1 \
         FROM information_schema.STATISTICS s \
         WHERE s.TABLE_SCHEMA = {schema} AND s.TABLE_NAME = {name} AND s.SEQ_IN_INDEX = 1 AND s.SUB_PART IS NULL"
    )
}

/// What was gathered of columns. Few users may read this; MySQL has no such table.
fn gathered(schema: &str, name: &str) -> String {
    format!(
        "SELECT column_name, CONVERT(min_value USING utf8mb4), CONVERT(max_value USING utf8mb4), nulls_ratio, avg_length, avg_frequency FROM mysql.column_stats WHERE db_name = {} AND table_name = {}",
        quoted(schema),
        quoted(name)
    )
}

/// What the types of columns say.
fn types(table: &Table) -> HashMap<String, ColumnStatistics> {
    let fields = table.schema.fields().iter();
    let known = fields.map(|field| {
        let statistics = ColumnStatistics {
            width: field.data_type().primitive_width().map(|width| width as f64),
            nulls: if field.is_nullable() { NULLS_GUESSED } else { 0.0 },
            ..ColumnStatistics::default()
        };
        (field.name().clone(), statistics)
    });
    known.collect()
}

fn number(text: Option<String>) -> Option<f64> {
    text?.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Adds what an index says of its first column. Of several indexes the one with most values counts: it was looked at last.
fn counted(figures: &mut HashMap<String, ColumnStatistics>, row: Vec<Option<String>>, rows: f64) {
    let Ok([Some(column), cardinality, is_key]) = <[_; 3]>::try_from(row) else {
        return;
    };
    let Some(known) = figures.get_mut(&column) else {
        return;
    };
    let is_key = is_key.is_some_and(|word| word == "1");
    let distinct = match is_key {
        true => Some(rows),
        false => number(cardinality).filter(|values| *values > 0.0),
    };
    let most = known.distinct.into_iter().chain(distinct).reduce(f64::max);
    known.distinct = most.map(|distinct| distinct.clamp(1.0, rows.max(1.0)));
}

/// Adds what was gathered of a column.
fn measured(figures: &mut HashMap<String, ColumnStatistics>, table: &Table, row: Vec<Option<String>>, rows: f64) {
    let Ok([Some(column), least, greatest, nulls, width, frequency]) = <[_; 6]>::try_from(row) else {
        return;
    };
    let (Some(known), Ok(field)) = (figures.get_mut(&column), table.schema.field_with_name(&column)) else {
        return;
    };
    let end = |text: Option<String>| written(&text?, field.data_type());
    if let (Some(low), Some(high)) = (end(least), end(greatest))
        && low <= high
    {
        known.bounds = vec![low, high];
    }
    if let Some(nulls) = number(nulls) {
        known.nulls = nulls.clamp(0.0, 1.0);
    }
    known.width = number(width).or(known.width);
    let values = number(frequency).filter(|frequency| *frequency >= 1.0);
    let values = values.map(|frequency| (rows * (1.0 - known.nulls) / frequency).max(1.0));
    known.distinct = values.or(known.distinct);
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn table() -> Table {
        let fields = vec![
            Field::new("id", DataType::Int32, false),
            Field::new("kind", DataType::Utf8View, true),
        ];
        Table {
            schema: Arc::new(Schema::new(fields)),
            columns: HashMap::new(),
            is_view: false,
            computes: true,
            rows: Some(1000),
            zero_dates_are_null: false,
        }
    }

    fn row<const N: usize>(values: [Option<&str>; N]) -> Vec<Option<String>> {
        values.iter().map(|value| value.map(str::to_owned)).collect()
    }

    #[test]
    fn a_key_has_as_many_values_as_rows_and_an_index_what_it_says() {
        let mut figures = types(&table());
        counted(&mut figures, row([Some("id"), Some("880"), Some("1")]), 1000.0);
        counted(&mut figures, row([Some("kind"), Some("7"), Some("0")]), 1000.0);
        counted(&mut figures, row([Some("kind"), Some("5000"), Some("0")]), 1000.0);
        counted(&mut figures, row([Some("gone"), Some("5"), Some("0")]), 1000.0);
        assert_eq!(figures["id"].distinct, Some(1000.0));
        assert_eq!(figures["id"].width, Some(4.0));
        assert_eq!(figures["kind"].distinct, Some(1000.0), "no more than there are rows");
        assert_eq!((figures["id"].nulls, figures["kind"].nulls), (0.0, NULLS_GUESSED));
        assert_eq!(figures.len(), 2);
    }

    #[test]
    fn an_index_that_was_never_looked_at_says_nothing() {
        let mut figures = types(&table());
        for cardinality in [None, Some("0"), Some("-1"), Some("many"), Some("NaN")] {
            counted(&mut figures, row([Some("kind"), cardinality, Some("0")]), 1000.0);
            assert_eq!(figures["kind"].distinct, None, "{cardinality:?}");
        }
        counted(&mut figures, row([Some("kind"), Some("7")]), 1000.0);
        assert_eq!(figures["kind"].distinct, None);
    }

    #[test]
    fn what_was_gathered_counts_more() {
        let mut figures = types(&table());
        counted(&mut figures, row([Some("id"), Some("10"), Some("0")]), 1000.0);
        let gathered = row([
            Some("id"),
            Some("1"),
            Some("500"),
            Some("0.5"),
            Some("4.0"),
            Some("2.0"),
        ]);
        measured(&mut figures, &table(), gathered, 1000.0);
        let id = &figures["id"];
        assert_eq!((id.distinct, id.nulls), (Some(250.0), 0.5));
        assert_eq!(id.bounds, [1.0, 500.0]);
        let odd = row([Some("id"), Some("9"), Some("1"), Some("nan"), None, Some("0")]);
        measured(&mut figures, &table(), odd, 1000.0);
        assert_eq!(figures["id"].bounds, [1.0, 500.0], "what cannot be is not taken");
    }
}

//! What SQLite knows of the values of columns: what its indexes are, and what ANALYZE has counted in them.
//!
//! In: a table. Out: [`ColumnStatistics`]. No rows are looked at.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use rusqlite::Connection;

use crate::figures::Figures;
use crate::statistics::{ColumnStatistics, NULLS_GUESSED};

/// Of each index that ANALYZE has counted how many rows it has, and how many of these have one value of its first column. What was counted without an index is under no name.
pub(super) type Analyzed = HashMap<Option<String>, (u64, Option<f64>)>;

/// What ANALYZE has counted of a table, if it ever did.
pub(super) fn first_numbers(connection: &Connection, table: &str) -> rusqlite::Result<Analyzed> {
    let sql = "SELECT count(*) FROM pragma_table_list WHERE schema = 'main' AND name = 'sqlite_stat1'";
    if connection.query_row(sql, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(HashMap::new());
    }
    let mut statement = connection.prepare("SELECT idx, stat FROM main.sqlite_stat1 WHERE tbl = ?1")?;
    let mut rows = statement.query([table])?;
    let mut found = HashMap::new();
    while let Some(row) = rows.next()? {
        // Anybody may write into this table.
        let (Ok(index), Ok(Some(numbers))) = (row.get(0), row.get::<_, Option<String>>(1)) else {
            continue;
        };
        let mut numbers = numbers.split(' ');
        let rows = numbers.next().and_then(|rows| rows.parse().ok());
        let each = numbers.next().and_then(|each| each.parse().ok());
        found.extend(rows.map(|rows| (index, (rows, each.filter(|each: &f64| *each >= 1.0)))));
    }
    Ok(found)
}

/// What is known of a table with so many rows.
pub(super) fn figures(
    connection: &Connection,
    table: &str,
    schema: &SchemaRef,
    analyzed: &Analyzed,
    rows: f64,
) -> rusqlite::Result<Figures> {
    let mut distinct: HashMap<String, f64> = HashMap::new();
    let mut note = |column: String, values: f64| {
        let known = distinct.entry(column).or_insert(values);
        *known = known.max(values).clamp(1.0, rows.max(1.0));
    };
    // A row's number has no index; nor has it NULLs.
    let sql = "SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE pk = 1 \
               AND NOT EXISTS (SELECT 1 FROM pragma_table_xinfo(?1, 'main') WHERE pk > 1)";
    let mut statement = connection.prepare(sql)?;
    for key in statement.query_map([table], |row| row.get::<_, String>(0))? {
        note(key?, rows);
    }
    // Neither expressions, which have no name, nor indexes of some rows only.
    let sql = "SELECT l.name, i.name, l.\"unique\" AND NOT EXISTS (SELECT 1 FROM pragma_index_info(l.name, 'main') WHERE seqno > 0), l.origin = 'pk' \
               FROM pragma_index_list(?1, 'main') AS l JOIN pragma_index_info(l.name, 'main') AS i \
               WHERE i.seqno = 0 AND i.name IS NOT NULL AND NOT l.partial";
    let mut statement = connection.prepare(sql)?;
    let mut found = statement.query([table])?;
    while let Some(row) = found.next()? {
        let (index, column, is_key): (String, String, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
        // Of a table without rowids the primary key is counted under the table's name.
        let index = match row.get(3)? {
            true if !analyzed.contains_key(&Some(index.clone())) => table.to_owned(),
            _ => index,
        };
        let counted = analyzed.get(&Some(index)).and_then(|(_, each)| *each);
        match (is_key, counted) {
            (true, _) => note(column, rows),
            (false, Some(each)) => note(column, rows / each),
            (false, None) => {}
        }
    }
    let fields = schema.fields().iter();
    let known = fields.map(|field| {
        let statistics = ColumnStatistics {
            distinct: distinct.get(field.name()).copied(),
            nulls: if field.is_nullable() { NULLS_GUESSED } else { 0.0 },
            width: field.data_type().primitive_width().map(|width| width as f64),
            ..ColumnStatistics::default()
        };
        (field.name().clone(), Arc::new(statistics))
    });
    Ok(Arc::new(known.collect()))
}

#[cfg(test)]
mod tests {
    use super::super::table::find;
    use super::*;

    fn distinct(script: &str) -> HashMap<String, Option<f64>> {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(script).unwrap();
        let info = find(&connection, "t").unwrap().unwrap();
        let figures = info.figures.iter();
        figures.map(|(name, known)| (name.clone(), known.distinct)).collect()
    }

    const ROWS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
                        INSERT INTO t SELECT i, i % 7, i % 50, i FROM n;";

    #[test]
    fn keys_have_as_many_values_as_rows() {
        let found = distinct(&format!(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, kind INT, part INT, code TEXT UNIQUE); {ROWS}"
        ));
        assert_eq!(found["id"], Some(1000.0));
        assert_eq!(found["code"], Some(1000.0));
        assert_eq!((found["kind"], found["part"]), (None, None));
    }

    #[test]
    fn what_analyze_has_counted_is_known_of_the_first_column_of_an_index() {
        let found = distinct(&format!(
            "CREATE TABLE t (id INT, kind INT, part INT, code INT); {ROWS} \
             CREATE INDEX one ON t (kind, id); CREATE INDEX two ON t (part) WHERE part < 3; CREATE INDEX three ON t (code + 1); \
             CREATE UNIQUE INDEX four ON t (id, code); ANALYZE;"
        ));
        let kind = found["kind"].unwrap();
        assert!((6.9..7.1).contains(&kind), "{kind}");
        assert_eq!(found["part"], None, "an index of some rows says nothing of all");
        assert_eq!(found["code"], None, "nor one of an expression");
        assert_eq!(found["id"], Some(1000.0));
    }

    #[test]
    fn tables_without_a_rowid_have_keys_as_well() {
        let found = distinct(&format!(
            "CREATE TABLE t (id INT, kind INT, part INT, code INT, PRIMARY KEY (kind, id)) WITHOUT ROWID; {ROWS} ANALYZE;"
        ));
        let kind = found["kind"].unwrap();
        assert!((6.9..7.1).contains(&kind), "{kind}");
        assert_eq!(found["id"], None);
    }

    #[test]
    fn figures_that_somebody_wrote_do_no_harm() {
        for stat in [
            "",
            "x",
            "0",
            "0 0",
            "1000 0",
            "1000 x",
            "1000 NaN",
            "-5 3",
            "99999999999999999999 1",
        ] {
            let found = distinct(&format!(
                "CREATE TABLE t (id INTEGER PRIMARY KEY, kind INT, part INT, code INT); {ROWS} CREATE INDEX one ON t (kind); ANALYZE; \
                 UPDATE sqlite_stat1 SET stat = '{stat}' WHERE idx = 'one';"
            ));
            let kind = found["kind"].unwrap_or(1.0);
            assert!(kind.is_finite() && kind >= 1.0, "{stat}: {kind}");
        }
    }
}

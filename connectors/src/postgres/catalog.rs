//! What PostgreSQL's catalogue knows of schemas and tables.
//!
//! Every question is one statement and one round trip. Whoever may not read a table is not told of it in lists; asked for
//! by name it is there, and cannot be read.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::connection::Database;
use super::kind::{Declared, Kind, Scalar, Written};
use super::question::{Question, Value};
use super::statistics::{self, Figures};
use crate::{ErrorKind, ROW_ID, Result, Seen};

/// A table, view, materialised view, partitioned or foreign table.
#[derive(Debug, PartialEq)]
pub(super) struct Table {
    pub(super) schema: SchemaRef,
    pub(super) columns: HashMap<String, Column>,
    pub(super) is_view: bool,
    /// Whether its values are computed with in this database, and texts are in UTF-8.
    pub(super) computes: bool,
    pub(super) rows: Option<usize>,
    /// What is known of the values of columns.
    pub(super) statistics: Figures,
    /// How many pages there were when it was last analysed, of the table itself and of each that its rows lie in, too; empty where a range of pages cannot be
    /// read by itself. To ask for today's would wait for whoever has it locked.
    pub(super) pages: Vec<u64>,
    /// What keeps its pages from being emptied while they are read.
    pub(super) locked: Locked,
    /// Whether its rows lie in this database and in nothing else, so that they have a place.
    pub(super) has_rows_of_its_own: bool,
}

/// How one column is asked for and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) kind: Kind,
    pub(super) written: Written,
    pub(super) compared: Compared,
    /// Whether the depot's user may read it.
    pub(super) readable: bool,
    /// Whether an index begins with it.
    pub(super) leads_index: bool,
}

/// How a table is locked as readers lock it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Locked {
    /// By itself.
    Alone,
    /// With those that its rows lie in: its partitions, or the tables that inherit from it.
    WithParts,
    /// By reading no rows of it, as there is no statement for it.
    ByReading,
}

/// Which comparisons PostgreSQL decides exactly as they are decided here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compared {
    /// None.
    Not,
    /// Those of its type, in the order of its type.
    AsItIs,
    /// As text. Equal is equal byte by byte; the order is that of bytes only under the collation `C`.
    AsText {
        /// Whether the column's own collation may decide what is equal, which lets an index be used.
        own_collation: bool,
    },
}

const SCHEMAS: &str = "\
    SELECT nspname::text FROM pg_catalog.pg_namespace \
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND pg_catalog.has_schema_privilege(oid, 'USAGE')";

const TABLES: &str = "\
    SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname = $1 AND nspname !~ '^pg_' AND nspname <> 'information_schema' \
    AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
    AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
    AND pg_catalog.has_any_column_privilege(c.oid, 'SELECT')";

/// One row for each column, or one without a column. Domains are followed to what they are made of, and so are the
/// elements of arrays; the last step is the row without a successor.
const TABLE: &str = "\
    WITH RECURSIVE relation AS ( \
        SELECT c.oid, c.relkind, c.reltuples, c.relhassubclass, \
            pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS reachable \
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
        AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
    ), part AS ( \
        SELECT oid FROM relation WHERE relkind IN ('r', 'p', 'm') \
        UNION \
        SELECT i.inhrelid FROM part p JOIN pg_catalog.pg_inherits i ON i.inhparent = p.oid \
    ), heap AS ( \
        SELECT CASE WHEN pg_catalog.bool_and(c.relkind IN ('r', 'm') AND m.amname = 'heap') \
                AND pg_catalog.current_setting('server_version_num')::int4 >= 140000 \
            THEN pg_catalog.array_agg(c.relpages::int8) END AS pages, \
            CASE WHEN pg_catalog.bool_and(c.reltuples >= 0) THEN pg_catalog.sum(c.reltuples::float8) END AS rows \
        FROM part p JOIN pg_catalog.pg_class c ON c.oid = p.oid LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam \
        WHERE c.relkind <> 'p' \
    ), attribute AS ( \
        SELECT a.* FROM relation r JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid \
        WHERE a.attnum > 0 AND NOT a.attisdropped \
    ), step AS ( \
        SELECT attnum, 0 AS depth, atttypid AS type, atttypmod AS modifier, 0 AS arrays, false AS inside FROM attribute \
        UNION ALL \
        SELECT s.attnum, s.depth + 1, next.type, next.modifier, s.arrays + next.arrays, \
            s.inside OR (next.arrays = 0 AND s.arrays > 0) \
        FROM step s CROSS JOIN LATERAL ( \
            SELECT t.typbasetype AS type, t.typtypmod AS modifier, 0 AS arrays \
            FROM pg_catalog.pg_type t WHERE t.oid = s.type AND t.typtype = 'd' \
            UNION ALL \
            SELECT e.oid, s.modifier, 1 FROM pg_catalog.pg_type e WHERE e.typarray = s.type \
        ) next \
    ), last AS ( \
        SELECT DISTINCT ON (attnum) * FROM step ORDER BY attnum, depth DESC \
    ) \
    SELECT r.relkind::text, r.reltuples::float8, r.relhassubclass, r.reachable, \
        CASE WHEN a.attnum IS NULL OR a.attnum = (SELECT pg_catalog.min(attnum) FROM attribute) THEN h.pages END AS pages, h.rows, \
        pg_catalog.current_setting('server_encoding') = 'UTF8' AS utf8, \
        a.attname::text, a.attnotnull, l.type, l.modifier, l.arrays, l.inside, t.typtype::text, \
        coalesce(o.collisdeterministic, true) AS deterministic, \
        pg_catalog.has_column_privilege(r.oid, a.attnum, 'SELECT') AS readable, \
        EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = r.oid AND i.indisvalid AND i.indkey[0] = a.attnum) AS leads_index \
    FROM relation r CROSS JOIN heap h \
    LEFT JOIN attribute a ON true \
    LEFT JOIN last l ON l.attnum = a.attnum \
    LEFT JOIN pg_catalog.pg_type t ON t.oid = l.type \
    LEFT JOIN pg_catalog.pg_collation o ON o.oid = a.attcollation \
    ORDER BY a.attnum";

/// What changes whenever what [`TABLE`] says of a table does: its rows of the catalogue, and what the depot's user may do. Nothing for what has parts, which
/// say something of their own.
const STATE: &str = "\
    SELECT pg_catalog.concat_ws(' ', c.oid, c.xmin, c.relkind, c.reltuples, c.relpages, n.xmin, pg_catalog.has_schema_privilege(n.oid, 'USAGE'), \
        (SELECT pg_catalog.string_agg(pg_catalog.concat(a.attnum, '/', a.xmin, '/', pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')), ' ' \
            ORDER BY a.attnum) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), \
        (SELECT pg_catalog.string_agg(pg_catalog.concat(i.indexrelid, '/', i.xmin), ' ' ORDER BY i.indexrelid) \
            FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid)) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'v', 'm', 'f') AND NOT c.relhassubclass";

/// The schemas that the depot's user may use.
pub(super) async fn schemas(database: &Arc<Database>) -> Result<Vec<String>> {
    names(database, "schemas", SCHEMAS, &[]).await
}

/// The tables and views of a schema that the depot's user may read something of.
pub(super) async fn tables(database: &Arc<Database>, schema: &str) -> Result<Vec<String>> {
    if schema.contains('\0') {
        return Ok(Vec::new());
    }
    names(database, schema, TABLES, &[(&schema, Type::TEXT)]).await
}

async fn names(
    database: &Arc<Database>,
    object: &str,
    sql: &str,
    values: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<String>> {
    let rows = database.query(object, sql, values).await?;
    let names: Result<Vec<String>, tokio_postgres::Error> = rows.iter().map(|row| row.try_get(0)).collect();
    let mut names = names.map_err(|failure| database.error(&failure).about(object))?;
    names.sort();
    Ok(names)
}

/// What tells whether a table has changed.
pub(super) async fn state(database: &Arc<Database>, schema: &str, name: &str) -> Result<Option<String>> {
    if schema.contains('\0') || name.contains('\0') {
        return Ok(None);
    }
    let mut states = states(database, &[(schema, name)]).await?;
    Ok(states.pop().flatten())
}

/// Whether tables have the states in which they were seen.
pub(super) async fn have_states(database: &Arc<Database>, seen: &[Seen]) -> Result<bool> {
    let names: Vec<(&str, &str)> = (seen.iter())
        .map(|seen| (seen.collection.as_str(), seen.dataset.as_str()))
        .collect();
    let states = states(database, &names).await?;
    let expected = seen.iter().map(|seen| Some(seen.state.as_str()));
    Ok(states.iter().map(Option::as_deref).eq(expected))
}

/// The states of some tables, which are all asked for before the first is told.
async fn states(database: &Arc<Database>, names: &[(&str, &str)]) -> Result<Vec<Option<String>>> {
    let full_names: Vec<String> = names.iter().map(|(schema, name)| format!("{schema}.{name}")).collect();
    let object = full_names.join("`, `");
    let question = Question {
        sql: STATE,
        is_kept: true,
    };
    let values: Vec<[Value<'_>; 2]> = (names.iter())
        .map(|(schema, name)| [(schema as &(dyn ToSql + Sync), Type::TEXT), (name, Type::TEXT)])
        .collect();
    let values: Vec<&[Value<'_>]> = values.iter().map(<[Value<'_>; 2]>::as_slice).collect();
    let answers = database.ask(&object, question, &values).await?;
    let state = |rows: &Vec<Row>| rows.first().map(|row| row.try_get(0)).transpose();
    let states: Result<_, tokio_postgres::Error> = answers.iter().map(state).collect();
    states.map_err(|failure| database.error(&failure).about(object))
}

/// The table of exactly this name. One that nothing can be read of is an error.
pub(super) async fn table(database: &Arc<Database>, schema: &str, name: &str) -> Result<Option<Table>> {
    if schema.contains('\0') || name.contains('\0') {
        return Ok(None);
    }
    let object = format!("{schema}.{name}");
    let rows = database
        .query(&object, TABLE, &[(&schema, Type::TEXT), (&name, Type::TEXT)])
        .await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let read = || -> Result<(Table, bool), tokio_postgres::Error> {
        Ok((
            describe(&rows, first, database.decimals())?,
            first.try_get("reachable")?,
        ))
    };
    let (mut table, reachable) = read().map_err(|failure| database.error(&failure).about(&object))?;
    let mut columns = (table.columns.iter()).filter(|(name, _)| name.as_str() != ROW_ID);
    let none_readable = !table.schema.fields().is_empty() && columns.all(|(_, column)| !column.readable);
    if !reachable || none_readable {
        let message = "PostgreSQL does not let the depot's user read it; grant SELECT on it, and USAGE on its schema";
        return Err(database.failure(ErrorKind::Denied, message).about(object));
    }
    if let Some(rows) = table.rows {
        table.statistics = statistics::of(database, (schema, name), &table.schema, rows).await;
    }
    Ok(Some(table))
}

fn describe(rows: &[Row], first: &Row, decimals: u8) -> Result<Table, tokio_postgres::Error> {
    let relation: String = first.try_get("relkind")?;
    let estimate: f64 = first.try_get("reltuples")?;
    let utf8: bool = first.try_get("utf8")?;
    let foreign = relation == "f";
    let mut fields = Vec::with_capacity(rows.len());
    let mut columns = HashMap::with_capacity(rows.len());
    for row in rows {
        let Some(name) = row.try_get::<_, Option<String>>("attname")? else {
            continue;
        };
        let form: String = row.try_get("typtype")?;
        let declared = Declared {
            oid: row.try_get("type")?,
            modifier: row.try_get("modifier")?,
            arrays: row.try_get("arrays")?,
            domain_inside: row.try_get("inside")?,
            form: form.chars().next().unwrap_or('b'),
        };
        let (kind, written) = declared.read_as(decimals);
        // Nobody sees to it that a foreign server keeps what is declared here.
        let not_null: bool = row.try_get("attnotnull")?;
        fields.push(Field::new(&name, kind.arrow(), !not_null || foreign));
        let column = Column {
            kind,
            written,
            compared: compared(kind, utf8, row.try_get("deterministic")?, foreign),
            readable: row.try_get("readable")?,
            leads_index: row.try_get("leads_index")?,
        };
        columns.insert(name, column);
    }
    let place = Column {
        kind: Kind::One(Scalar::Printed),
        written: Written::Place,
        compared: Compared::Not,
        readable: true,
        leads_index: false,
    };
    columns.insert(ROW_ID.to_owned(), place);
    let has_parts: bool = first.try_get("relhassubclass")?;
    let of_parts: Option<f64> = first.try_get("rows")?;
    let estimate = of_parts.filter(|_| has_parts).unwrap_or(estimate);
    // What was never analysed counts as -1, and what was analysed when it was empty says nothing about today.
    let rows = (estimate > 0.0 && !matches!(relation.as_str(), "v" | "f")).then_some(estimate as usize);
    let pages: Vec<i64> = first.try_get::<_, Option<_>>("pages")?.unwrap_or_default();
    Ok(Table {
        schema: Arc::new(Schema::new(fields)),
        columns,
        is_view: relation == "v",
        rows,
        statistics: Figures::default(),
        // What was never analysed has -1 there.
        pages: pages
            .into_iter()
            .map(|pages| u64::try_from(pages).unwrap_or_default())
            .collect(),
        locked: match relation.as_str() {
            "m" => Locked::ByReading,
            "p" => Locked::WithParts,
            _ if has_parts => Locked::WithParts,
            _ => Locked::Alone,
        },
        computes: !foreign && utf8,
        has_rows_of_its_own: matches!(relation.as_str(), "r" | "p"),
    })
}

fn compared(kind: Kind, utf8: bool, deterministic: bool, foreign: bool) -> Compared {
    let Kind::One(scalar) = kind else {
        return Compared::Not;
    };
    match scalar {
        // A foreign server compares text in ways of its own, and in other encodings a text may have no form at all.
        Scalar::Text | Scalar::Padded | Scalar::Label if foreign || !utf8 => Compared::Not,
        Scalar::Text | Scalar::Padded | Scalar::Label => Compared::AsText {
            own_collation: deterministic,
        },
        Scalar::Interval | Scalar::Printed => Compared::Not,
        Scalar::Boolean
        | Scalar::Int2
        | Scalar::Int4
        | Scalar::Int8
        | Scalar::Oid
        | Scalar::Float4
        | Scalar::Float8
        | Scalar::Numeric { .. }
        | Scalar::Bytea
        | Scalar::Date
        | Scalar::Time
        | Scalar::Timestamp
        | Scalar::TimestampTz
        | Scalar::Uuid => Compared::AsItIs,
    }
}

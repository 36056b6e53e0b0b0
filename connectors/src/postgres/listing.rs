//! The columns of all tables of a schema at once.
//!
//! In: a schema and the tables that somebody wants to see listed. Out: their columns, as [`super::catalog`] finds them for one table. One statement
//! for the tables, and one for each step from the types of their columns to what those are made of: most types take no step.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::connection::Database;
use super::kind::Declared;
use crate::Result;

/// So few tables are asked for by name; more are picked from all of them.
const FEW: usize = 50;

/// One row for each table. A table that nothing can be read of is left out.
const COLUMNS: &str = "\
    SELECT c.relname::text, c.relkind::text, a.names, a.not_nulls, a.types, a.modifiers \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    LEFT JOIN ( \
        SELECT attrelid, \
            pg_catalog.array_agg(attname::text ORDER BY attnum) AS names, \
            pg_catalog.array_agg(attnotnull ORDER BY attnum) AS not_nulls, \
            pg_catalog.array_agg(atttypid ORDER BY attnum) AS types, \
            pg_catalog.array_agg(atttypmod ORDER BY attnum) AS modifiers \
        FROM pg_catalog.pg_attribute WHERE attnum > 0 AND NOT attisdropped GROUP BY attrelid \
    ) a ON a.attrelid = c.oid \
    WHERE n.nspname = $1 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
    AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND ($2::text[] IS NULL OR c.relname::text = ANY ($2)) \
    AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
    AND pg_catalog.has_any_column_privilege(c.oid, 'SELECT')";

/// One row for each schema that may be used, with its tables.
const LISTING: &str = "\
    SELECT n.nspname::text, pg_catalog.array_agg(c.relname::text) FILTER (WHERE c.oid IS NOT NULL) AS tables \
    FROM pg_catalog.pg_namespace n \
    LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
        AND pg_catalog.has_any_column_privilege(c.oid, 'SELECT') \
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
    GROUP BY n.nspname";

/// What types are made of: a domain of another type, an array of its elements.
const TYPES: &str = "\
    SELECT t.oid, t.typtype::text, t.typbasetype, t.typtypmod, e.oid AS element \
    FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND e.typarray = t.oid \
    WHERE t.oid = ANY ($1)";

struct Made {
    form: char,
    /// Of a domain, the type and modifier of what it is a domain of.
    base: Option<(u32, i32)>,
    element: Option<u32>,
}

/// All schemas with their tables, sorted as everything here sorts names.
pub(super) async fn listing(database: &Arc<Database>) -> Result<Vec<(String, Vec<String>)>> {
    let rows = database.query("tables", LISTING, &[]).await?;
    let listed = |row: &Row| {
        let mut tables: Vec<String> = row.try_get::<_, Option<_>>("tables")?.unwrap_or_default();
        tables.sort();
        Ok((row.try_get("nspname")?, tables))
    };
    let listed: Result<Vec<(String, Vec<String>)>, tokio_postgres::Error> = rows.iter().map(listed).collect();
    let mut listed = listed.map_err(|failure| database.error(&failure).about("tables"))?;
    listed.sort();
    Ok(listed)
}

/// The columns of these tables, or of all and more.
pub(super) async fn columns(
    database: &Arc<Database>,
    schema: &str,
    tables: &[String],
) -> Result<HashMap<String, SchemaRef>> {
    if schema.contains('\0') {
        return Ok(HashMap::new());
    }
    let few: Option<Vec<&str>> = (tables.len() <= FEW).then(|| {
        let possible = tables.iter().filter(|name| !name.contains('\0'));
        possible.map(String::as_str).collect()
    });
    let rows = database
        .query(schema, COLUMNS, &[(&schema, Type::TEXT), (&few, Type::TEXT_ARRAY)])
        .await?;
    let fail = |failure: tokio_postgres::Error| database.error(&failure).about(schema);
    let listed: Result<Vec<Listed>, _> = rows.iter().map(Listed::of).collect();
    let listed = listed.map_err(fail)?;
    let mut types = HashMap::new();
    let mut wanted: BTreeSet<u32> = listed.iter().flat_map(|table| table.types.iter().copied()).collect();
    while !wanted.is_empty() {
        let asked: Vec<u32> = std::mem::take(&mut wanted).into_iter().collect();
        for row in database.query(schema, TYPES, &[(&asked, Type::OID_ARRAY)]).await? {
            let (oid, made) = made(&row).map_err(fail)?;
            wanted.extend(made.base.map(|(base, _)| base).into_iter().chain(made.element));
            types.insert(oid, made);
        }
        wanted.retain(|oid| !types.contains_key(oid));
    }
    let decimals = database.decimals();
    Ok(listed
        .into_iter()
        .map(|table| (table.name.clone(), table.schema(&types, decimals)))
        .collect())
}

fn made(row: &Row) -> Result<(u32, Made), tokio_postgres::Error> {
    let form = row.try_get::<_, String>("typtype")?.chars().next().unwrap_or('b');
    let base = (row.try_get("typbasetype")?, row.try_get("typtypmod")?);
    let made = Made {
        form,
        base: (form == 'd').then_some(base),
        element: row.try_get("element")?,
    };
    Ok((row.try_get("oid")?, made))
}

struct Listed {
    name: String,
    is_foreign: bool,
    columns: Vec<(String, bool, i32)>,
    types: Vec<u32>,
}

impl Listed {
    fn of(row: &Row) -> Result<Listed, tokio_postgres::Error> {
        let names: Vec<String> = row.try_get::<_, Option<_>>("names")?.unwrap_or_default();
        let not_nulls: Vec<bool> = row.try_get::<_, Option<_>>("not_nulls")?.unwrap_or_default();
        let modifiers: Vec<i32> = row.try_get::<_, Option<_>>("modifiers")?.unwrap_or_default();
        let columns = names.into_iter().zip(not_nulls).zip(modifiers);
        Ok(Listed {
            name: row.try_get("relname")?,
            is_foreign: row.try_get::<_, String>("relkind")? == "f",
            columns: columns
                .map(|((name, not_null), modifier)| (name, not_null, modifier))
                .collect(),
            types: row.try_get::<_, Option<_>>("types")?.unwrap_or_default(),
        })
    }

    fn schema(self, types: &HashMap<u32, Made>, decimals: u8) -> SchemaRef {
        let fields = self
            .columns
            .into_iter()
            .zip(self.types)
            .map(|((name, not_null, modifier), oid)| {
                let (kind, _) = declared(oid, modifier, types).read_as(decimals);
                // Nobody sees to it that a foreign server keeps what is declared here.
                Field::new(name, kind.arrow(), !not_null || self.is_foreign)
            });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// Follows domains to what they are made of, and arrays to their elements.
fn declared(oid: u32, modifier: i32, types: &HashMap<u32, Made>) -> Declared {
    let mut declared = Declared {
        oid,
        modifier,
        arrays: 0,
        domain_inside: false,
        form: 'b',
    };
    while let Some(made) = types.get(&declared.oid) {
        declared.form = made.form;
        if let Some((base, modifier)) = made.base {
            declared.domain_inside |= declared.arrays > 0;
            (declared.oid, declared.modifier) = (base, modifier);
        } else if let Some(element) = made.element {
            declared.arrays += 1;
            declared.oid = element;
        } else {
            break;
        }
    }
    declared
}

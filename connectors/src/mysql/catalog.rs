//! What the server's catalogue knows of databases, tables and columns.
//!
//! In: names. Out: what a table looks like. Names are compared here, byte by byte: the catalogue ignores case and blanks where the server does.
//! Whoever may read nothing of a table is not told of it in lists.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

use super::connection::Database;
use super::kind::{Declared, Kind};
use super::sql::{is_name, quoted};
use crate::{Error, ErrorKind, Result};

/// A table or view.
#[derive(Debug, PartialEq)]
pub(super) struct Table {
    pub(super) schema: SchemaRef,
    pub(super) columns: HashMap<String, Column>,
    pub(super) is_view: bool,
    /// Whether more than scans may be asked of it.
    pub(super) computes: bool,
    /// How many rows it has about.
    pub(super) rows: Option<usize>,
    pub(super) zero_dates_are_null: bool,
}

/// How one column is asked for and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) kind: Kind,
    /// Of text.
    pub(super) character_set: Option<String>,
    /// Whether an index begins with it.
    pub(super) leads_index: bool,
    /// How many letters it has at most.
    pub(super) characters: Option<u64>,
    /// Whether it is declared to have no NULLs, which also changes what the server calls NULL.
    pub(super) is_not_null: bool,
    /// Whether the depot's user may read it.
    pub(super) is_readable: bool,
}

/// The databases of the server itself.
const SYSTEM: [&str; 4] = ["information_schema", "mysql", "performance_schema", "sys"];

/// So few tables are asked for by name; more are picked from all of them.
const FEW: usize = 50;

/// What can be read like a table. Sequences, which are in the same list, are not.
const SORTS: &str = "TABLE_TYPE IN ('BASE TABLE', 'VIEW', 'SYSTEM VERSIONED')";

/// Engines that keep their rows themselves, and so keep to what is declared. Others fetch them from somewhere else.
const OWN_ENGINES: [&str; 5] = ["InnoDB", "MyISAM", "Aria", "MEMORY", "RocksDB"];

const COLUMNS: &str = "SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, NUMERIC_PRECISION, NUMERIC_SCALE, \
     CHARACTER_SET_NAME, CHARACTER_MAXIMUM_LENGTH, COLUMN_KEY, IS_NULLABLE, PRIVILEGES FROM information_schema.COLUMNS";

/// How the lists of rights write the user. Whose name has an `@` is not found there, which costs time and nothing else.
const GRANTEE: &str = "CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')";

/// The databases that the depot's user sees.
pub(super) async fn databases(database: &Arc<Database>) -> Result<Vec<String>> {
    let sql = "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA";
    let rows = database.query("databases", sql).await?;
    let names = rows.into_iter().filter_map(|row| row.into_iter().next().flatten());
    Ok(sorted(names.filter(|name| !is_of_system(name))))
}

/// The tables and views of a database that the depot's user may read something of.
pub(super) async fn tables(database: &Arc<Database>, collection: &str) -> Result<Vec<String>> {
    if is_of_system(collection) || !is_name(collection) {
        return Ok(Vec::new());
    }
    let own = quoted(collection);
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {own} AND {SORTS}"
    );
    let rows = database.query(collection, &sql).await?;
    let names: Vec<String> = rows
        .into_iter()
        .filter_map(|row| match <[_; 2]>::try_from(row) {
            Ok([Some(schema), Some(name)]) if schema == collection => Some(name),
            _ => None,
        })
        .collect();
    // Whoever may read all of a database is let in to each table of it; to ask about each makes the server open all of them.
    let sql = format!(
        "SELECT 1 FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE = 'SELECT' AND GRANTEE = {GRANTEE} UNION ALL \
         SELECT 1 FROM information_schema.SCHEMA_PRIVILEGES WHERE PRIVILEGE_TYPE = 'SELECT' AND GRANTEE = {GRANTEE} AND TABLE_SCHEMA = {own}"
    );
    if !database.query(collection, &sql).await?.is_empty() {
        return Ok(sorted(names.into_iter()));
    }
    // What nothing can be read of may still be listed by the server, for other rights.
    let sql = format!(
        "SELECT DISTINCT TABLE_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {own} AND PRIVILEGES <> '' \
         AND PRIVILEGES NOT LIKE '%select%'"
    );
    let partly: Vec<String> = first_of(database.query(collection, &sql).await?);
    if partly.is_empty() {
        return Ok(sorted(names.into_iter()));
    }
    let found = columns(database, collection, &partly).await?;
    let hidden = |name: &String| {
        let columns = found.get(name).map(|listed| &listed.columns);
        columns.is_some_and(|columns| columns.iter().all(|(_, column)| !column.is_readable))
    };
    Ok(sorted(names.into_iter().filter(|name| !hidden(name))))
}

fn first_of(rows: Vec<Vec<Option<String>>>) -> Vec<String> {
    rows.into_iter()
        .filter_map(|row| row.into_iter().next().flatten())
        .collect()
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names
}

fn is_of_system(name: &str) -> bool {
    SYSTEM.iter().any(|system| system.eq_ignore_ascii_case(name))
}

/// A table as a list has it.
pub(super) struct Listed {
    pub(super) columns: Vec<(String, Column)>,
    pub(super) is_view: bool,
    keeps_to_declaration: bool,
    is_mariadb: bool,
    rows: Option<usize>,
}

impl Listed {
    /// Its columns for the engine. A view without columns is one that the server cannot make sense of.
    pub(super) fn schema(&self, database: &Database, collection: &str, name: &str) -> Result<SchemaRef> {
        if self.columns.is_empty() {
            return Err(without_columns(database, self.is_view).about_dataset(collection, name));
        }
        let zero_is_null = database.zero_dates_are_null();
        let fields = self.columns.iter().map(|(name, column)| {
            let may_be_null =
                !column.is_not_null || !self.keeps_to_declaration || (column.kind.is_date() && zero_is_null);
            Field::new(name, column.kind.arrow(), may_be_null)
        });
        Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
    }
}

fn without_columns(database: &Database, is_view: bool) -> Error {
    let message = if is_view {
        "the view refers to tables, columns or functions that are not there, that its definer may not use, or that write something"
    } else {
        "the server does not say what its columns are; it may be damaged"
    };
    database.failure(ErrorKind::Corrupt, message)
}

/// The condition that picks these tables of a database, or all; `None` when it can have none of them.
fn within(collection: &str, names: &[String]) -> Option<String> {
    let possible: Vec<String> = names
        .iter()
        .filter(|name| is_name(name))
        .map(|name| quoted(name))
        .collect();
    if is_of_system(collection) || !is_name(collection) || possible.is_empty() {
        return None;
    }
    let own = format!("TABLE_SCHEMA = {}", quoted(collection));
    Some(match possible.as_slice() {
        [one] => format!("{own} AND TABLE_NAME = {one}"),
        few if few.len() <= FEW => format!("{own} AND TABLE_NAME IN ({})", few.join(", ")),
        _ => own,
    })
}

/// The columns of these tables of a database, or of all and more.
pub(super) async fn columns(
    database: &Arc<Database>,
    collection: &str,
    names: &[String],
) -> Result<HashMap<String, Listed>> {
    let Some(within) = within(collection, names) else {
        return Ok(HashMap::new());
    };
    // The number of rows makes the server look into each table: only one at a time is worth it.
    let rows = if names.len() == 1 { "TABLE_ROWS" } else { "NULL" };
    let tables = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, {rows}, VERSION() FROM information_schema.TABLES WHERE {within} AND {SORTS}"
    );
    let mut found = HashMap::new();
    for row in database.query(collection, &tables).await? {
        let Ok([Some(schema), Some(name), Some(sort), engine, rows, version]) = <[_; 6]>::try_from(row) else {
            continue;
        };
        if schema != collection {
            continue;
        }
        let is_view = sort == "VIEW";
        let is_own = engine.is_some_and(|engine| OWN_ENGINES.contains(&engine.as_str()));
        let listed = Listed {
            columns: Vec::new(),
            is_view,
            keeps_to_declaration: is_own && !is_view,
            is_mariadb: version.is_some_and(|version| version.contains("MariaDB")),
            rows: rows.and_then(|rows| rows.parse().ok()),
        };
        found.insert(name, listed);
    }
    if found.is_empty() {
        return Ok(found);
    }
    let sql = format!("{COLUMNS} WHERE {within} ORDER BY TABLE_NAME, ORDINAL_POSITION");
    for row in database.query(collection, &sql).await? {
        let Ok(
            [
                Some(table),
                Some(name),
                Some(data_type),
                Some(full),
                precision,
                scale,
                set,
                characters,
                key,
                nullable,
                privileges,
            ],
        ) = <[_; 11]>::try_from(row)
        else {
            continue;
        };
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
        let declared = Declared {
            name: &data_type,
            full: &full,
            precision: number(precision),
            scale: number(scale),
        };
        let column = Column {
            kind: declared.kind(),
            character_set: set,
            characters: number(characters),
            // `PRI` is said of every column of the primary key, of which there is one mostly.
            leads_index: key.is_some_and(|key| !key.is_empty()),
            is_not_null: nullable.is_some_and(|word| word == "NO"),
            is_readable: privileges
                .is_none_or(|rights| rights.is_empty() || rights.split(',').any(|right| right == "select")),
        };
        if let Some(listed) = found.get_mut(&table) {
            listed.columns.push((name, column));
        }
    }
    Ok(found)
}

/// The table of exactly this name. One that nothing can be read of is an error.
pub(super) async fn table(database: &Arc<Database>, collection: &str, name: &str) -> Result<Option<Table>> {
    let mut found = columns(database, collection, &[name.to_owned()]).await?;
    let Some(listed) = found.remove(name) else {
        return Ok(None);
    };
    let schema = listed.schema(database, collection, name)?;
    if listed.columns.iter().all(|(_, column)| !column.is_readable) {
        let message = "the server does not let the depot's user read it; grant SELECT on it";
        let error = database.failure(ErrorKind::Denied, message);
        return Err(error.about_dataset(collection, name));
    }
    Ok(Some(Table {
        schema,
        columns: listed.columns.into_iter().collect(),
        is_view: listed.is_view,
        computes: listed.is_mariadb && (listed.is_view || listed.keeps_to_declaration),
        rows: listed.rows.filter(|rows| *rows > 0),
        zero_dates_are_null: database.zero_dates_are_null(),
    }))
}

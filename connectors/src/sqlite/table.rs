//! What SQLite knows of a table or view.
//!
//! In: a connection and a name. Out: columns with their kinds, which of them may be compared by SQLite, and a guess at
//! the number of rows that costs next to nothing. Columns without a declared type are looked at: their first rows decide.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, OptionalExtension};

use super::dialect::Use;
use super::kind::Kind;
use super::statistics::{Analyzed, figures, first_numbers};
use crate::figures::Figures;

/// How many rows of a column without a declared type are looked at.
pub(super) const SAMPLED_ROWS: usize = 1000;

/// No row of a table takes less than this in the file, so a larger guess than the file allows is no guess.
const LEAST_BYTES_PER_ROW: u64 = 4;

/// What holds users' data, in `pragma_table_list`.
const DATA: &str = "schema = 'main' AND type IN ('table', 'view', 'virtual') AND name NOT GLOB 'sqlite_*'";

/// A table or view.
#[derive(Debug)]
pub(super) struct TableInfo {
    pub(super) schema: SchemaRef,
    pub(super) is_view: bool,
    pub(super) comparable: HashMap<String, Kind>,
    /// How statements may use its columns, where they may.
    pub(super) uses: Option<HashMap<String, Use>>,
    pub(super) rows: Option<u64>,
    /// What its indexes tell of its columns.
    pub(super) figures: Figures,
    pub(super) row_id: Option<RowId>,
    /// The least and the largest rowid of a table that has some.
    pub(super) ends: Option<(i64, i64)>,
}

/// What tells the rows of a table from each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RowId {
    /// The rowid, by a name that no column has.
    Rowid(&'static str),
    /// The columns of the primary key of a table that has no rowid.
    Key(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A table with a rowid.
    Table,
    WithoutRowid,
    View,
    Virtual,
}

struct ColumnInfo {
    name: String,
    declared: Option<Kind>,
    not_null: bool,
    is_generated: bool,
}

/// The names of all tables and views that hold users' data.
pub(super) fn names(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql = format!("SELECT name FROM pragma_table_list WHERE {DATA} ORDER BY name");
    let mut statement = connection.prepare(&sql)?;
    let names = statement.query_map([], |row| row.get(0))?;
    names.collect()
}

/// The table or view of exactly this name.
pub(super) fn find(connection: &Connection, name: &str) -> rusqlite::Result<Option<TableInfo>> {
    if name.contains('\0') {
        return Ok(None);
    }
    let Some(form) = form(connection, name)? else {
        return Ok(None);
    };
    let (schema, columns) = schema(connection, name, form)?;
    let row_id = match form {
        Form::Table => rowid(&columns).map(RowId::Rowid),
        Form::WithoutRowid => Some(RowId::Key(key(connection, name)?)),
        Form::View | Form::Virtual => None,
    };
    let ends = match &row_id {
        Some(RowId::Rowid(rowid)) => ends(connection, name, rowid)?,
        Some(RowId::Key(_)) | None => None,
    };
    let is_utf8 = is_utf8(connection)?;
    let analyzed = first_numbers(connection, name)?;
    let (comparable, uses, rows) = match form {
        Form::Table | Form::WithoutRowid => (
            comparable(&columns, is_utf8),
            match is_utf8 {
                true => Some(uses(connection, name, form, &columns, &schema)?),
                false => None,
            },
            rows(connection, name, &columns, form == Form::Table, &analyzed)?,
        ),
        // The columns of a view may have any affinity, and a virtual table compares as its module likes.
        Form::View | Form::Virtual => (HashMap::new(), None, None),
    };
    let figures = match (form, rows) {
        (Form::Table | Form::WithoutRowid, Some(rows)) => figures(connection, name, &schema, &analyzed, rows as f64)?,
        _ => Figures::default(),
    };
    Ok(Some(TableInfo {
        schema,
        figures,
        is_view: form == Form::View,
        comparable,
        uses,
        rows,
        row_id,
        ends,
    }))
}

/// The columns of many tables and views, each with its own failure; `None` for what is not there.
pub(super) fn schemas(
    connection: &Connection,
    names: &[String],
) -> rusqlite::Result<Vec<rusqlite::Result<Option<SchemaRef>>>> {
    let sql = format!("SELECT type, wr, name FROM pragma_table_list WHERE {DATA}");
    let mut statement = connection.prepare(&sql)?;
    let forms = statement.query_map([], |row| Ok((row.get(2)?, form_of(row)?)))?;
    let forms: HashMap<String, Form> = forms.collect::<rusqlite::Result<_>>()?;
    let look = |name: &String| match forms.get(name) {
        Some(form) => schema(connection, name, *form).map(|(schema, _)| Some(schema)),
        None => Ok(None),
    };
    Ok(names.iter().map(look).collect())
}

fn schema(connection: &Connection, name: &str, form: Form) -> rusqlite::Result<(SchemaRef, Vec<ColumnInfo>)> {
    let columns = columns(connection, name, form)?;
    let undeclared: Vec<&str> = columns
        .iter()
        .filter(|column| column.declared.is_none())
        .map(|column| column.name.as_str())
        .collect();
    let sampled = sample(connection, name, &undeclared)?;
    let kind = |column: &ColumnInfo| {
        column
            .declared
            .or(sampled.get(&column.name).copied())
            .unwrap_or(Kind::Text)
    };
    let fields: Vec<Field> = columns
        .iter()
        .map(|column| Field::new(&column.name, kind(column).arrow(), !column.not_null))
        .collect();
    Ok((Arc::new(Schema::new(fields)), columns))
}

fn form(connection: &Connection, name: &str) -> rusqlite::Result<Option<Form>> {
    let sql = format!("SELECT type, wr FROM pragma_table_list WHERE {DATA} AND name = ?1");
    connection.query_row(&sql, [name], form_of).optional()
}

fn form_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Form> {
    let form = match row.get_ref(0)?.as_str()? {
        "view" => Form::View,
        "virtual" => Form::Virtual,
        _ if row.get::<_, bool>(1)? => Form::WithoutRowid,
        _ => Form::Table,
    };
    Ok(form)
}

fn columns(connection: &Connection, name: &str, form: Form) -> rusqlite::Result<Vec<ColumnInfo>> {
    // `hidden` is 1 for the hidden columns of virtual tables; 2 and 3 are generated columns, which are columns to users.
    let sql =
        "SELECT name, type, \"notnull\", hidden FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 1 ORDER BY cid";
    let mut statement = connection.prepare(sql)?;
    let columns = statement.query_map([name], |row| {
        let declared: Option<String> = row.get(1)?;
        let kind = declared.as_deref().and_then(Kind::of_declared);
        // SQLite says BLOB of a view's column about which it knows nothing.
        let declared = kind.filter(|kind| form != Form::View || *kind != Kind::Blob);
        Ok(ColumnInfo {
            name: row.get(0)?,
            declared,
            not_null: row.get(2)?,
            is_generated: row.get::<_, i64>(3)? > 0,
        })
    })?;
    columns.collect()
}

/// Whether texts are kept in UTF-8. In a UTF-16 database their bytes are in another order.
fn is_utf8(connection: &Connection) -> rusqlite::Result<bool> {
    let encoding: String = connection.query_row("PRAGMA encoding", [], |row| row.get(0))?;
    Ok(encoding == "UTF-8")
}

/// The columns whose values SQLite compares as DataFusion does once it has applied their affinity.
fn comparable(columns: &[ColumnInfo], is_utf8: bool) -> HashMap<String, Kind> {
    let comparable = |kind: Kind| matches!(kind, Kind::Integer | Kind::Real) || (kind == Kind::Text && is_utf8);
    let declared = columns
        .iter()
        .filter_map(|column| Some((column.name.clone(), column.declared?)));
    declared.filter(|(_, kind)| comparable(*kind)).collect()
}

/// How statements may use the columns of a table.
fn uses(
    connection: &Connection,
    name: &str,
    form: Form,
    columns: &[ColumnInfo],
    schema: &SchemaRef,
) -> rusqlite::Result<HashMap<String, Use>> {
    let sql = format!("SELECT strict FROM pragma_table_list WHERE {DATA} AND name = ?1");
    let is_strict: bool = connection.query_row(&sql, [name], |row| row.get(0))?;
    let number = match form {
        Form::Table => row_number(connection, name)?,
        _ => None,
    };
    let found = columns.iter().zip(schema.fields()).filter_map(|(column, field)| {
        let kind = Kind::of_arrow(field.data_type())?;
        // STRICT keeps to storage classes, but not to the letters of texts, and not where a value is computed when it is read.
        let is_stored = column.declared.is_some() && !column.is_generated;
        let is_kept = is_strict && is_stored && matches!(kind, Kind::Integer | Kind::Blob);
        let column_use = Use {
            kind,
            is_declared: column.declared.is_some(),
            is_certain: is_kept || number.as_ref() == Some(&column.name),
        };
        Some((column.name.clone(), column_use))
    });
    Ok(found.collect())
}

/// The column that is another name for the row's number, if there is one.
fn row_number(connection: &Connection, table: &str) -> rusqlite::Result<Option<String>> {
    // A primary key that is something else has an index.
    let sql = "SELECT count(*) FROM pragma_index_list(?1, 'main') WHERE origin = 'pk'";
    if connection.query_row(sql, [table], |row| row.get::<_, i64>(0))? > 0 {
        return Ok(None);
    }
    let sql = "SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE pk > 0";
    connection.query_row(sql, [table], |row| row.get(0)).optional()
}

/// The kinds of columns without a declared type, by the storage classes in their first rows.
fn sample(connection: &Connection, table: &str, columns: &[&str]) -> rusqlite::Result<HashMap<String, Kind>> {
    let mut kinds: Vec<Option<Kind>> = vec![None; columns.len()];
    if columns.is_empty() {
        return Ok(HashMap::new());
    }
    let list: Vec<String> = columns.iter().map(|column| format!("t.{}", quoted(column))).collect();
    let sql = format!(
        "SELECT {} FROM main.{} AS t LIMIT {SAMPLED_ROWS}",
        list.join(", "),
        quoted(table)
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        for (position, kind) in kinds.iter_mut().enumerate() {
            *kind = widen(*kind, row.get_ref(position)?);
        }
    }
    let found = columns
        .iter()
        .zip(kinds)
        .filter_map(|(column, kind)| Some(((*column).to_owned(), kind?)));
    Ok(found.collect())
}

/// The kind for what was seen so far and one more value. A mixture stays what it was first: the value that does not fit
/// is refused when it is read.
fn widen(seen: Option<Kind>, value: ValueRef<'_>) -> Option<Kind> {
    match (seen, value.data_type()) {
        (seen, Type::Null) => seen,
        (None | Some(Kind::Integer), Type::Integer) => Some(Kind::Integer),
        (None | Some(Kind::Integer), Type::Real) => Some(Kind::Real),
        (None, Type::Text) => Some(Kind::Text),
        (None, Type::Blob) => Some(Kind::Blob),
        (seen, _) => seen,
    }
}

/// How many rows a table has, as the last ANALYZE counted or as its rowids span.
fn rows(
    connection: &Connection,
    table: &str,
    columns: &[ColumnInfo],
    has_rowid: bool,
    analyzed: &Analyzed,
) -> rusqlite::Result<Option<u64>> {
    // A partial index has fewer rows than the table.
    if let Some(rows) = analyzed.values().map(|(rows, _)| *rows).max() {
        return Ok(Some(rows));
    }
    let Some(rowid) = rowid(columns).filter(|_| has_rowid) else {
        return Ok(None);
    };
    let Some((first, last)) = ends(connection, table, rowid)? else {
        return Ok(Some(0));
    };
    let span = last.abs_diff(first).saturating_add(1);
    let pages: u64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    let page_size: u64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    Ok((span <= pages.saturating_mul(page_size) / LEAST_BYTES_PER_ROW).then_some(span))
}

/// The least and the largest rowid; `None` when there are no rows.
fn ends(connection: &Connection, table: &str, rowid: &str) -> rusqlite::Result<Option<(i64, i64)>> {
    // Two statements, because SQLite walks to an end of the tree only when asked for one end at a time.
    let end = |function: &str| -> rusqlite::Result<Option<i64>> {
        let sql = format!("SELECT {function}(t.{rowid}) FROM main.{} AS t", quoted(table));
        connection.query_row(&sql, [], |row| row.get(0))
    };
    Ok(end("min")?.zip(end("max")?))
}

/// A name of the rowid that no column has.
fn rowid(columns: &[ColumnInfo]) -> Option<&'static str> {
    let is_column = |name: &&str| columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    ["rowid", "_rowid_", "oid"].into_iter().find(|name| !is_column(name))
}

/// The columns of the primary key, in its order.
fn key(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement =
        connection.prepare("SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE pk > 0 ORDER BY pk")?;
    let names = statement.query_map([table], |row| row.get(0))?;
    names.collect()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

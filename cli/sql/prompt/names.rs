//! The names that a user can write: catalogs, schemas, tables, columns.
//!
//! In: the server's answer to GetTables, which lists what the user may see. Out: a [`Catalogue`] to complete from. It is fetched beside the
//! prompt, first without columns. Deliberately absent: asking while somebody types.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::Schema,
};
use arrow_flight::IpcMessage;

use crate::{client::Connection, failure::Failure};

/// Beyond so many tables their columns are not asked for.
const TABLES_WITH_COLUMNS: usize = 1_000;

/// A table and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) catalog: String,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) columns: Vec<String>,
}

/// Everything there is, as it was when it was asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Catalogue {
    pub(super) tables: Vec<Table>,
    /// Where names are looked up: the catalog and the schema.
    pub(super) current: (Option<String>, Option<String>),
}

/// The names that are known so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(Arc<Mutex<Arc<Catalogue>>>);

impl Names {
    pub(super) fn new(catalog: Option<&str>, schema: Option<&str>) -> Self {
        let names = Self::default();
        names.change(|catalogue| catalogue.current = (catalog.map(str::to_owned), schema.map(str::to_owned)));
        names
    }

    pub(super) fn get(&self) -> Arc<Catalogue> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut Catalogue)) {
        change(Arc::make_mut(
            &mut self.0.lock().unwrap_or_else(PoisonError::into_inner),
        ));
    }

    /// Takes note of a statement that succeeded; answers whether there may be other names now.
    pub(super) fn learn(&self, sql: &str) -> bool {
        let mut words = sql.split_whitespace();
        let first = words.next().unwrap_or_default();
        if first.eq_ignore_ascii_case("use") {
            let mut path: Vec<String> = words.next().unwrap_or_default().split('.').map(unquoted).collect();
            self.change(|catalogue| {
                let schema = path.pop();
                catalogue.current = (path.pop().or_else(|| catalogue.current.0.take()), schema);
            });
        }
        ["create", "drop"].iter().any(|word| first.eq_ignore_ascii_case(word))
    }

    /// Asks the server. A failure leaves what was known: completion is a help, and the next statement says what is wrong.
    pub(super) async fn fetch(&self, mut connection: Connection) {
        let _ = self.try_fetch(&mut connection).await;
    }

    async fn try_fetch(&self, connection: &mut Connection) -> Result<(), Failure> {
        let tables = tables_of(&connection.tables(false).await?);
        let few = tables.len() <= TABLES_WITH_COLUMNS;
        self.change(|catalogue| catalogue.tables = tables);
        if few {
            let tables = tables_of(&connection.tables(true).await?);
            self.change(|catalogue| catalogue.tables = tables);
        }
        Ok(())
    }
}

fn tables_of(batches: &[RecordBatch]) -> Vec<Table> {
    let mut tables = Vec::new();
    for batch in batches {
        let text = |name: &str, row: usize| {
            let column = batch.column_by_name(name)?.as_string_opt::<i32>()?;
            column
                .is_valid(row)
                .then(|| column.value(row).to_owned())
                .filter(|name| is_printable(name))
        };
        for row in 0..batch.num_rows() {
            let place = (
                text("catalog_name", row),
                text("db_schema_name", row),
                text("table_name", row),
            );
            if let (Some(catalog), Some(schema), Some(name)) = place {
                tables.push(Table {
                    catalog,
                    schema,
                    name,
                    columns: columns_of(batch, row).unwrap_or_default(),
                });
            }
        }
    }
    tables
}

fn columns_of(batch: &RecordBatch, row: usize) -> Option<Vec<String>> {
    let schemas = batch.column_by_name("table_schema")?.as_binary_opt::<i32>()?;
    let schema = Schema::try_from(IpcMessage(schemas.value(row).to_vec().into())).ok()?;
    Some(
        schema
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .filter(|name| is_printable(name))
            .collect(),
    )
}

/// Names are shown on a terminal, which they must not command.
fn is_printable(name: &str) -> bool {
    !name.chars().any(char::is_control)
}

/// A name as it is, from how it is written.
pub(super) fn unquoted(written: &str) -> String {
    match written.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').unwrap_or(rest).replace("\"\"", "\""),
        None => written.to_lowercase(),
    }
}

/// How a name is written: in quotes when it would be read as another one without.
pub(super) fn quoted(name: &str) -> String {
    let mut characters = name.chars();
    let plain = characters
        .next()
        .is_some_and(|first| first.is_ascii_lowercase() || first == '_')
        && characters.all(|character| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_')
        && !super::words::is_keyword(name);
    if plain {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_they_must_be() {
        for (name, written) in [
            ("flights", "flights"),
            ("_x1", "_x1"),
            ("Customer", "\"Customer\""),
            ("two words", "\"two words\""),
            ("select", "\"select\""),
            ("1st", "\"1st\""),
            ("a\"b", "\"a\"\"b\""),
            ("ü", "\"ü\""),
        ] {
            assert_eq!(quoted(name), written);
            assert_eq!(unquoted(written), name);
        }
    }

    #[test]
    fn use_moves_where_names_are_looked_up() {
        let names = Names::new(Some("air"), None);
        let current = |sql: &str| {
            let more = names.learn(sql);
            (names.get().current.clone(), more)
        };
        let place = |catalog: &str, schema: &str| (Some(catalog.to_owned()), Some(schema.to_owned()));
        assert_eq!(current("SELECT 1"), ((Some("air".to_owned()), None), false));
        assert_eq!(current("use NYC"), (place("air", "nyc"), false));
        assert_eq!(current("USE fleet.\"Main\""), (place("fleet", "Main"), false));
        assert_eq!(current("CREATE VIEW v AS SELECT 1"), (place("fleet", "Main"), true));
    }
}

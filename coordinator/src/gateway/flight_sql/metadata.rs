//! What there is: catalogs, schemas, tables, kinds of tables, keys.
//!
//! In: the filters of a driver. Out: record batches with the schemas that the protocol fixes. Only what the caller may see is listed, since
//! everything comes from the caller's session. No source declares keys yet, so that the answers about keys are empty.

use std::sync::{Arc, LazyLock};

use arrow::{
    array::{ArrayRef, BinaryArray, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use arrow_flight::{
    error::FlightError,
    sql::{
        CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables,
        metadata::{GetCatalogsBuilder, GetDbSchemasBuilder},
    },
};
use bytes::Bytes;
use minerva_resources::Address;
use tonic::Status;

use super::{
    status::{internal, status_of},
    table_schemas::TableSchemas,
};
use crate::{audit::trace::Traced, catalog::TableRequest, session::Session};

/// The kinds of tables, as drivers call them (left) and as `information_schema` does (right).
const KINDS: &[(&str, &str)] = &[
    ("SYSTEM TABLE", "SYSTEM TABLE"),
    ("TABLE", "BASE TABLE"),
    ("VIEW", "VIEW"),
];

pub(super) fn catalogs_schema() -> SchemaRef {
    GetCatalogsBuilder::new().schema()
}

pub(super) async fn catalogs(session: &Session) -> Result<RecordBatch, Status> {
    let mut builder = GetCatalogsBuilder::new();
    for catalog in session.catalogs().await.map_err(status_of)? {
        builder.append(catalog);
    }
    builder.build().map_err(unbuildable)
}

pub(super) fn schemas_schema(command: CommandGetDbSchemas) -> SchemaRef {
    command.into_builder().schema()
}

pub(super) async fn schemas(session: &Session, command: CommandGetDbSchemas) -> Result<RecordBatch, Status> {
    let found = match command.catalog.as_deref() {
        // An empty name asks for what has no catalog; here everything has one.
        Some("") => Vec::new(),
        catalog => session.schemas(catalog).await.map_err(status_of)?,
    };
    list_schemas(command, &found)
}

fn list_schemas(command: CommandGetDbSchemas, found: &[(String, String)]) -> Result<RecordBatch, Status> {
    let mut builder: GetDbSchemasBuilder = command.into_builder();
    for (catalog, schema) in found {
        builder.append(catalog, schema);
    }
    builder.build().map_err(unbuildable)
}

pub(super) fn tables_schema(command: CommandGetTables) -> SchemaRef {
    command.into_builder().schema()
}

pub(super) async fn tables(
    session: &Session,
    command: CommandGetTables,
    schemas: &TableSchemas,
) -> Result<RecordBatch, Status> {
    let kinds = kinds_of(&command.table_types);
    let nothing_matches =
        command.catalog.as_deref() == Some("") || (kinds.is_empty() && !command.table_types.is_empty());
    let found = if nothing_matches {
        Vec::new()
    } else {
        let request = TableRequest {
            catalog: command.catalog.clone(),
            schema_pattern: command.db_schema_filter_pattern.clone(),
            table_pattern: command.table_name_filter_pattern.clone(),
            kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            with_schema: command.include_schema,
        };
        session.tables(&request).await.map_err(status_of)?
    };
    let kinds = found.iter().map(|table| {
        let known = KINDS.iter().find(|(_, ours)| *ours == table.kind);
        known.map_or(table.kind, |(drivers, _)| drivers)
    });
    // The session has matched and sorted what it lists.
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(found.iter().map(|table| &table.catalog))),
        Arc::new(StringArray::from_iter_values(found.iter().map(|table| &table.schema))),
        Arc::new(StringArray::from_iter_values(found.iter().map(|table| &table.name))),
        Arc::new(StringArray::from_iter_values(kinds)),
    ];
    if command.include_schema {
        let messages: Result<Vec<Bytes>, ArrowError> = found.iter().map(|table| schemas.message(table)).collect();
        let messages = messages.map_err(|error| unbuildable(error.into()))?;
        columns.push(Arc::new(BinaryArray::from_iter_values(messages)));
    }
    RecordBatch::try_new(tables_schema(command), columns).map_err(|error| unbuildable(error.into()))
}

/// The kinds that a driver asks for, in our spelling; either spelling is understood, and unknown kinds match nothing.
fn kinds_of(asked: &[String]) -> Vec<&'static str> {
    let matches = |names: &(&str, &str)| asked.iter().any(|asked| asked == names.0 || asked == names.1);
    KINDS
        .iter()
        .filter(|names| matches(names))
        .map(|(_, ours)| *ours)
        .collect()
}

pub(super) fn table_types_schema() -> SchemaRef {
    CommandGetTableTypes {}.into_builder().schema()
}

pub(super) fn table_types() -> Result<RecordBatch, Status> {
    let mut builder = CommandGetTableTypes {}.into_builder();
    for (drivers, _) in KINDS {
        builder.append(drivers);
    }
    builder.build().map_err(unbuildable)
}

/// A table that a command names.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) catalog: Option<String>,
    pub(super) schema: Option<String>,
    pub(super) table: String,
}

/// Records a command that names tables. The answer is the same for every table, since no source declares keys, and so is the record as its user sees
/// it: whether a table is denied, missing or there is told to operators only.
pub(super) fn asked_after(session: &Session, command: &str, tables: &[Named]) -> Result<(), Status> {
    let engine = session.engine();
    let rules = &engine.snapshot().rules;
    let (mut traced, mut what) = (Traced::default(), command.to_owned());
    for named in tables {
        let catalog = named.catalog.clone().or_else(|| session.catalog_name());
        let schema = named.schema.clone().or_else(|| session.schema_name());
        let address = Address::new(
            catalog.unwrap_or_default(),
            schema.unwrap_or_default(),
            named.table.clone(),
        );
        what.push_str(&format!(
            " {}.{}.{}",
            address.depot, address.collection, address.dataset
        ));
        let access = rules.may_select(session.principal(), &address);
        // Nothing was read of a table that is allowed, which may not exist; its user would see the note.
        if !access.allowed {
            traced.named(&address, &access);
        }
    }
    engine
        .called(session.principal(), session.client(), what, None, traced)
        .map_err(status_of)
}

/// The columns of the answer about primary keys.
pub(super) static PRIMARY_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("key_name", DataType::Utf8, true),
    ]))
});

/// The columns of the answers about foreign keys, in whichever direction they are asked for.
pub(super) static FOREIGN_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
});

pub(super) fn unbuildable(error: FlightError) -> Status {
    internal("an answer about the catalogue cannot be built", &error)
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;

    use super::*;

    fn matching(pattern: Option<&str>) -> Vec<String> {
        let found =
            ["sales", "sales_eu", "salesXeu", "100%", "a\\b", "Sales"].map(|name| ("crm".to_owned(), name.to_owned()));
        let command = CommandGetDbSchemas {
            catalog: None,
            db_schema_filter_pattern: pattern.map(str::to_owned),
        };
        let batch = list_schemas(command, &found).unwrap();
        batch
            .column(1)
            .as_string::<i32>()
            .iter()
            .flatten()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn patterns_are_those_of_sql() {
        assert_eq!(matching(None).len(), 6);
        assert_eq!(matching(Some("%")).len(), 6);
        assert_eq!(matching(Some("sales")), ["sales"]);
        assert_eq!(matching(Some("sales%")), ["sales", "salesXeu", "sales_eu"]);
        assert_eq!(matching(Some("sales_eu")), ["salesXeu", "sales_eu"]);
        assert_eq!(matching(Some("sales\\_eu")), ["sales_eu"]);
        assert_eq!(matching(Some("100\\%")), ["100%"]);
        assert_eq!(matching(Some("a\\\\b")), ["a\\b"]);
        assert_eq!(matching(Some("")), Vec::<String>::new());
    }

    #[test]
    fn kinds_are_understood_in_both_spellings() {
        let asked = |kinds: &[&str]| kinds_of(&kinds.iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>());
        assert_eq!(asked(&["TABLE", "VIEW"]), ["BASE TABLE", "VIEW"]);
        assert_eq!(asked(&["BASE TABLE"]), ["BASE TABLE"]);
        assert_eq!(asked(&["MATERIALIZED VIEW"]), Vec::<&str>::new());
        let all = table_types().unwrap();
        assert_eq!(
            all.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(),
            ["SYSTEM TABLE", "TABLE", "VIEW"]
        );
    }
}

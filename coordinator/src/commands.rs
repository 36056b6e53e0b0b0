//! Statements that are neither queries nor writing: SHOW, USE, CALL.
//!
//! In: a parsed request. Out: a small table or a count. What is shown is what the catalogue's door lets the user see.

use std::sync::Arc;

use crate::{
    audit::Owner,
    catalog::{Catalog, TableRequest, exactly, like},
    engine::Snapshot,
    error::{Code, QueryError, Result},
    parse::Request,
    query::Answer,
    session::{Description, Session},
    system::sql_type,
};
use datafusion::arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};

/// Runs a command.
pub(crate) async fn run(session: &Session, snapshot: &Snapshot, request: Request) -> Result<Answer> {
    let catalog = Catalog::of(session, snapshot);
    match request {
        Request::ShowCatalogs { like: pattern } => column("Catalog", matching(catalog.catalogs(), pattern.as_deref())),
        Request::ShowSchemas {
            catalog: name,
            like: pattern,
        } => {
            let name = current_catalog(session, name)?;
            catalog.expect_catalog(&name).await?;
            let schemas = catalog
                .schemas(Some(&name))
                .await?
                .into_iter()
                .map(|(_, schema)| schema)
                .collect();
            column("Schema", matching(schemas, pattern.as_deref()))
        }
        Request::ShowTables { schema, like: pattern } => {
            let (name, schema) = current_schema(session, schema)?;
            catalog.expect_schema(Some(&name), &schema).await?;
            let request = TableRequest {
                catalog: Some(name),
                schema_pattern: Some(exactly(&schema)),
                ..TableRequest::default()
            };
            let tables = catalog
                .tables(&request)
                .await?
                .into_iter()
                .filter(|table| table.schema == schema)
                .map(|table| table.name)
                .collect();
            column("Table", matching(tables, pattern.as_deref()))
        }
        Request::ShowColumns { table } => show_columns(session, snapshot, table).await,
        Request::ShowFunctions { like: pattern } => {
            let state = session.state(snapshot, false);
            let mut names: Vec<String> = state
                .scalar_functions()
                .keys()
                .chain(state.aggregate_functions().keys())
                .chain(state.window_functions().keys())
                .cloned()
                .collect();
            names.sort();
            names.dedup();
            column("Function", matching(names, pattern.as_deref()))
        }
        Request::ShowSession { like: pattern } => {
            let mut shown = session.properties(snapshot);
            shown.retain(|[name, ..]| pattern.as_deref().is_none_or(|pattern| like(pattern, name)));
            texts(&PROPERTY, shown)
        }
        Request::SetSession { name, value } => {
            session.set_property(&name, Some(&value)).await?;
            Ok(Answer::Count(0))
        }
        Request::ResetSession { name } => {
            session.set_property(&name, None).await?;
            Ok(Answer::Count(0))
        }
        Request::Use { catalog: name, schema } => {
            let name = current_catalog(session, name)?;
            catalog.expect_schema(Some(&name), &schema).await?;
            session.set_catalog(Some(&name)).await?;
            session.set_schema(Some(&schema)).await?;
            Ok(Answer::Count(0))
        }
        Request::Refresh { depot, collection } => {
            catalog.refresh(depot.as_deref(), collection.as_deref()).await?;
            Ok(Answer::Count(0))
        }
        Request::KillQuery { query_id, message } => {
            let principal = session.principal();
            let owner = Owner::of(principal);
            let message = message.unwrap_or_else(|| format!("killed by `{}`", principal.full_name()));
            match session.engine().queries.cancel(owner.as_ref(), &query_id, &message) {
                true => Ok(Answer::Count(0)),
                false => Err(
                    QueryError::new(Code::NotFound, format!("query `{query_id}` is not running"))
                        .with_hint("SELECT query_id, state FROM system.runtime.queries"),
                ),
            }
        }
        Request::Query(_)
        | Request::Explain { .. }
        | Request::CreateTableAs { .. }
        | Request::CreateView { .. }
        | Request::Delete(_)
        | Request::DropTable { .. }
        | Request::DropView { .. }
        | Request::Insert { .. }
        | Request::Update { .. } => Err(QueryError::new(
            Code::GenericInternalError,
            "a query or a statement that writes came to the commands",
        )),
    }
}

/// What a command yields.
pub(crate) fn describe(request: &Request) -> Description {
    let text = |names: &[&str]| {
        Arc::new(Schema::new(
            names
                .iter()
                .map(|name| Field::new(*name, DataType::Utf8, false))
                .collect::<Vec<_>>(),
        ))
    };
    let schema: SchemaRef = match request {
        Request::ShowCatalogs { .. } => text(&["Catalog"]),
        Request::ShowSchemas { .. } => text(&["Schema"]),
        Request::ShowTables { .. } => text(&["Table"]),
        Request::ShowFunctions { .. } => text(&["Function"]),
        Request::ShowColumns { .. } => text(&COLUMNS),
        Request::ShowSession { .. } => text(&PROPERTY),
        _ => Arc::new(Schema::empty()),
    };
    Description {
        is_update: schema.fields().is_empty(),
        schema,
        parameters: Vec::new(),
    }
}

/// The columns of SHOW COLUMNS.
const COLUMNS: [&str; 4] = ["Column", "Type", "Extra", "Comment"];

/// The columns of SHOW SESSION.
const PROPERTY: [&str; 5] = ["Name", "Value", "Default", "Type", "Description"];

/// A table of texts.
fn texts<const N: usize>(names: &[&str; N], rows: Vec<[String; N]>) -> Result<Answer> {
    let fields: Vec<Field> = names
        .iter()
        .map(|name| Field::new(*name, DataType::Utf8, false))
        .collect();
    let mut columns: [Vec<String>; N] = std::array::from_fn(|_| Vec::with_capacity(rows.len()));
    for row in rows {
        for (values, value) in columns.iter_mut().zip(row) {
            values.push(value);
        }
    }
    let arrays = columns
        .into_iter()
        .map(|values| Arc::new(StringArray::from(values)) as ArrayRef);
    Ok(Answer::Table(RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        arrays.collect(),
    )?))
}

fn matching(names: Vec<String>, pattern: Option<&str>) -> Vec<String> {
    names
        .into_iter()
        .filter(|name| pattern.is_none_or(|pattern| like(pattern, name)))
        .collect()
}

fn column(name: &str, values: Vec<String>) -> Result<Answer> {
    Ok(Answer::Table(crate::streams::text_table(name, &values)?))
}

fn current_catalog(session: &Session, named: Option<String>) -> Result<String> {
    named.or_else(|| session.catalog_name()).ok_or_else(|| {
        QueryError::new(
            Code::MissingCatalogName,
            "the statement names no catalog, and the session has none",
        )
        .with_hint("USE catalog.schema first")
    })
}

fn current_schema(session: &Session, mut named: Vec<String>) -> Result<(String, String)> {
    let schema = named.pop().or_else(|| session.schema_name()).ok_or_else(|| {
        QueryError::new(
            Code::MissingCatalogName,
            "the statement names no schema, and the session has none",
        )
        .with_hint("SHOW TABLES FROM catalog.schema")
    })?;
    Ok((current_catalog(session, named.pop())?, schema))
}

async fn show_columns(session: &Session, snapshot: &Snapshot, table: Vec<String>) -> Result<Answer> {
    let name: Vec<String> = table
        .iter()
        .map(|part| format!("\"{}\"", part.replace('"', "\"\"")))
        .collect();
    let sql = format!("SELECT * FROM {}", name.join("."));
    let Request::Query(query) = crate::parse::one_statement(&sql)? else {
        return Err(QueryError::new(Code::GenericInternalError, "a query was expected"));
    };
    let (_, names, plan) = crate::query::logical(session, snapshot, *query).await?;
    let declared = names
        .addresses
        .iter()
        .next()
        .and_then(|address| snapshot.set.dataset(address));
    let row = |field: &Field| {
        let comment = declared.and_then(|dataset| dataset.columns.iter().find(|column| column.name == *field.name()));
        [
            field.name().clone(),
            sql_type(field.data_type()),
            String::new(),
            comment.map(|column| column.description.clone()).unwrap_or_default(),
        ]
    };
    texts(
        &COLUMNS,
        plan.schema().fields().iter().map(|field| row(field)).collect(),
    )
}

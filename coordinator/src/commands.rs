//! Statements that are no queries: SHOW, USE, views, and writing whole datasets.
//!
//! In: a parsed request. Out: a small table or a count. What is shown is what the catalogue's door lets the user see.
//! Deliberately absent: DELETE, UPDATE and MERGE, whose filters DataFusion 55 may drop.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, RecordBatch, StringArray},
        compute::cast,
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    sql::sqlparser::ast::Query as QueryAst,
};
use futures::TryStreamExt;
use minerva_connectors::Source;

use crate::{
    catalog::{Catalog, TableRequest, like},
    engine::Snapshot,
    error::{Code, QueryError, Result},
    parse::Request,
    queries::Tracked,
    query::{Answer, rows},
    session::{Description, MAX_VIEWS, Session, View},
    system::sql_type,
};

/// Runs a command.
pub(crate) async fn run(session: &Session, snapshot: &Snapshot, request: Request, tracked: &Tracked) -> Result<Answer> {
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
        Request::Use { catalog: name, schema } => {
            let name = current_catalog(session, name)?;
            catalog.expect_schema(Some(&name), &schema).await?;
            session.set_catalog(Some(&name)).await?;
            session.set_schema(Some(&schema)).await?;
            Ok(Answer::Count(0))
        }
        Request::CreateView {
            name,
            columns,
            query,
            or_replace,
        } => create_view(session, snapshot, &name, columns, query, or_replace).await,
        Request::DropView { name, if_exists } => {
            let name = view_name(&name)?;
            match session.forget_view(name) || if_exists {
                true => Ok(Answer::Count(0)),
                false => Err(QueryError::new(
                    Code::TableNotFound,
                    format!("view `{name}` does not exist"),
                )),
            }
        }
        Request::CreateTableAs {
            name,
            query,
            if_not_exists,
        } => {
            let (address, source) = catalog.writable(&name).await?;
            if source
                .datasets(&address.collection)
                .await
                .map_err(from_depot)?
                .contains(&address.dataset)
            {
                if if_not_exists {
                    return Ok(Answer::Count(0));
                }
                return Err(QueryError::new(
                    Code::TableAlreadyExists,
                    format!("table `{}` exists already", name.join(".")),
                ));
            }
            expect_writable(source.as_ref(), "CREATE TABLE")?;
            let (schema, batches) = collect(session, snapshot, *query, tracked).await?;
            let count = source
                .create(&address.collection, &address.dataset, schema, batches)
                .await
                .map_err(from_depot)?;
            Ok(Answer::Count(count))
        }
        Request::Insert { name, columns, query } => {
            let (address, source) = catalog.writable(&name).await?;
            let target = catalog.existing(&address).await?.schema();
            expect_writable(source.as_ref(), "INSERT")?;
            let (_, batches) = collect(session, snapshot, *query, tracked).await?;
            let batches = batches
                .iter()
                .map(|batch| fit(batch, &target, &columns))
                .collect::<Result<Vec<_>>>()?;
            Ok(Answer::Count(
                source
                    .append(&address.collection, &address.dataset, batches)
                    .await
                    .map_err(from_depot)?,
            ))
        }
        Request::DropTable { name, if_exists } => {
            let (address, source) = catalog.writable(&name).await?;
            match source
                .remove(&address.collection, &address.dataset)
                .await
                .map_err(from_depot)?
                || if_exists
            {
                true => Ok(Answer::Count(0)),
                false => Err(QueryError::new(
                    Code::TableNotFound,
                    format!("table `{}` does not exist", name.join(".")),
                )),
            }
        }
        Request::KillQuery { query_id, message } => {
            let principal = session.principal();
            let owner = (!principal.is_operator()).then_some(principal.id.as_str());
            let message = message.unwrap_or_else(|| format!("killed by `{}`", principal.full_name()));
            match session.engine().queries.cancel(owner, &query_id, &message) {
                true => Ok(Answer::Count(0)),
                false => Err(
                    QueryError::new(Code::NotFound, format!("query `{query_id}` is not running"))
                        .with_hint("SELECT query_id, state FROM system.runtime.queries"),
                ),
            }
        }
        Request::Query(_) | Request::Explain { .. } => Err(QueryError::new(
            Code::GenericInternalError,
            "a query came to the commands",
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

/// Before the rows are made: a query that cannot be kept is not run.
fn expect_writable(source: &dyn Source, statement: &str) -> Result<()> {
    match source.is_writable() {
        true => Ok(()),
        false => Err(from_depot(source.refusal(statement))),
    }
}

fn from_depot(error: minerva_connectors::Error) -> QueryError {
    QueryError::from(datafusion::error::DataFusionError::from(error))
}

fn matching(names: Vec<String>, pattern: Option<&str>) -> Vec<String> {
    names
        .into_iter()
        .filter(|name| pattern.is_none_or(|pattern| like(pattern, name)))
        .collect()
}

fn column(name: &str, values: Vec<String>) -> Result<Answer> {
    Ok(Answer::Table(crate::query::text_table(name, &values)?))
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
    let mut columns: [Vec<String>; 4] = Default::default();
    for field in plan.schema().fields() {
        let comment = declared.and_then(|dataset| dataset.columns.iter().find(|column| column.name == *field.name()));
        let row = [
            field.name().clone(),
            sql_type(field.data_type()),
            String::new(),
            comment.map(|column| column.description.clone()).unwrap_or_default(),
        ];
        for (values, value) in columns.iter_mut().zip(row) {
            values.push(value);
        }
    }
    let schema = Arc::new(Schema::new(
        COLUMNS
            .iter()
            .map(|name| Field::new(*name, DataType::Utf8, false))
            .collect::<Vec<_>>(),
    ));
    let arrays = columns
        .into_iter()
        .map(|values| Arc::new(StringArray::from(values)) as ArrayRef)
        .collect();
    Ok(Answer::Table(RecordBatch::try_new(schema, arrays)?))
}

fn view_name(name: &[String]) -> Result<&str> {
    match name {
        [name] => Ok(name),
        _ => Err(QueryError::new(
            Code::NotSupported,
            format!("view `{}` cannot be kept in a catalog", name.join(".")),
        )
        .with_hint("a view belongs to its session: give it a name without catalog and schema")),
    }
}

async fn create_view(
    session: &Session,
    snapshot: &Snapshot,
    name: &[String],
    columns: Vec<String>,
    query: Box<QueryAst>,
    or_replace: bool,
) -> Result<Answer> {
    let name = view_name(name)?;
    if session.view(name).is_some() && !or_replace {
        return Err(
            QueryError::new(Code::TableAlreadyExists, format!("view `{name}` exists already"))
                .with_hint("use CREATE OR REPLACE VIEW"),
        );
    }
    crate::query::logical(session, snapshot, query.as_ref().clone()).await?;
    let view = View {
        query,
        columns,
        catalog: session.catalog_name(),
        schema: session.schema_name(),
    };
    match session.keep_view(name, view) {
        true => Ok(Answer::Count(0)),
        false => Err(
            QueryError::new(Code::NotSupported, format!("a session keeps at most {MAX_VIEWS} views"))
                .with_hint("DROP VIEW what is not needed"),
        ),
    }
}

async fn collect(
    session: &Session,
    snapshot: &Snapshot,
    query: QueryAst,
    tracked: &Tracked,
) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let stream = rows(session, snapshot, query, Vec::new(), tracked).await?;
    let schema = stream.schema();
    tracked.running();
    Ok((schema, stream.try_collect().await?))
}

/// Gives a batch the columns and types of the table that it is added to.
fn fit(batch: &RecordBatch, target: &SchemaRef, names: &[String]) -> Result<RecordBatch> {
    let expected = if names.is_empty() {
        target.fields().len()
    } else {
        names.len()
    };
    if batch.num_columns() != expected {
        return Err(QueryError::new(
            Code::TypeMismatch,
            format!(
                "{expected} columns were expected, the rows have {}",
                batch.num_columns()
            ),
        ));
    }
    for name in names {
        if target.index_of(name).is_err() {
            let error = QueryError::new(Code::ColumnNotFound, format!("column `{name}` does not exist"));
            return Err(error.suggest(name, target.fields().iter().map(|field| field.name().as_str())));
        }
    }
    let mut arrays = Vec::with_capacity(target.fields().len());
    for (index, field) in target.fields().iter().enumerate() {
        let position = if names.is_empty() {
            Some(index)
        } else {
            names.iter().position(|name| name == field.name())
        };
        let array = match position.and_then(|position| batch.columns().get(position)) {
            Some(array) => cast(array, field.data_type())?,
            None => datafusion::arrow::array::new_null_array(field.data_type(), batch.num_rows()),
        };
        arrays.push(array);
    }
    Ok(RecordBatch::try_new(Arc::clone(target), arrays)?)
}

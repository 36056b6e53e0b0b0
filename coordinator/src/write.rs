//! Statements that write: what the writer sees is what is written, and nothing is written past a policy.
//!
//! In: a parsed request. Out: how many rows were written. The rows come out of a governed query, which may run on workers; the writing is done
//! here, once and in one transaction of the depot. It is never tried again: whoever is told of a failure decides that.
//! Deliberately absent: DataFusion's own planning of DELETE and UPDATE, which may drop filters.

mod change;
mod check;
mod fit;
mod insert;
mod tags;
mod view;

use datafusion::{arrow::datatypes::DataType, common::ScalarValue, error::DataFusionError};
use futures::{FutureExt, future::BoxFuture};

use crate::{
    engine::Snapshot,
    error::{Code, QueryError, Result},
    parse::Request,
    queries::Tracked,
    query::{self, Answer},
    session::Session,
};

/// Whether a request is one of these.
pub(crate) fn writes(request: &Request) -> bool {
    matches!(
        request,
        Request::CreateTableAs { .. }
            | Request::CreateView { .. }
            | Request::Delete(_)
            | Request::DropTable { .. }
            | Request::DropView { .. }
            | Request::Insert { .. }
            | Request::Update { .. }
    )
}

/// Runs a statement that writes.
pub(crate) fn run<'a>(
    session: &'a Session,
    snapshot: &'a Snapshot,
    request: Request,
    parameters: Vec<ScalarValue>,
    tracked: &'a Tracked,
) -> BoxFuture<'a, Result<Answer>> {
    // Boxed, because the many waits inside would make every caller's future as large, and slow to compile.
    run_statement(session, snapshot, request, parameters, tracked).boxed()
}

async fn run_statement(
    session: &Session,
    snapshot: &Snapshot,
    request: Request,
    parameters: Vec<ScalarValue>,
    tracked: &Tracked,
) -> Result<Answer> {
    let statement = Writing {
        session,
        snapshot,
        tracked,
    };
    let count = match request {
        Request::CreateTableAs {
            name,
            query,
            not_null,
            if_not_exists,
        } => {
            let new = insert::New {
                name: &name,
                not_null: &not_null,
                if_not_exists,
            };
            statement.create_table(new, *query, parameters).boxed().await?
        }
        Request::Insert { name, columns, query } => {
            statement.insert(&name, columns, *query, parameters).boxed().await?
        }
        Request::DropTable { name, if_exists } => statement.drop_table(&name, if_exists).boxed().await?,
        Request::Delete(table) => statement.delete(&table, parameters).boxed().await?,
        Request::Update { table, columns, values } => {
            statement.update(&table, columns, values, parameters).boxed().await?
        }
        Request::CreateView {
            name,
            columns,
            query,
            or_replace,
            if_not_exists,
        } => {
            let new = view::New {
                name: &name,
                columns,
                or_replace,
                if_not_exists,
            };
            statement.create_view(new, query).boxed().await?
        }
        Request::DropView { name, if_exists } => statement.drop_view(&name, if_exists).boxed().await?,
        _ => {
            let message = "a statement that does not write came to those that do";
            return Err(QueryError::new(Code::GenericInternalError, message));
        }
    };
    Ok(Answer::Count(count))
}

/// The parameters of a statement that writes; other commands have none.
pub(crate) fn parameters<'a>(
    session: &'a Session,
    snapshot: &'a Snapshot,
    request: &'a Request,
) -> BoxFuture<'a, Result<Vec<(String, DataType)>>> {
    find_parameters(session, snapshot, request).boxed()
}

async fn find_parameters(session: &Session, snapshot: &Snapshot, request: &Request) -> Result<Vec<(String, DataType)>> {
    let query = match request {
        Request::CreateTableAs { query, .. } | Request::Insert { query, .. } => query.as_ref().clone(),
        Request::Delete(table) => return change::parameters(session, snapshot, table, &[]).await,
        Request::Update { table, values, .. } => return change::parameters(session, snapshot, table, values).await,
        _ => return Ok(Vec::new()),
    };
    let (_, _, plan) = query::logical(session, snapshot, query).await?;
    query::parameters_of(&plan)
}

/// One statement that writes.
struct Writing<'a> {
    session: &'a Session,
    snapshot: &'a Snapshot,
    tracked: &'a Tracked,
}

fn from_depot(error: minerva_connectors::Error) -> QueryError {
    QueryError::from(DataFusionError::from(error))
}

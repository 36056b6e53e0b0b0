//! The straight line of a statement: text, permit, governed names, plan, verified plan, rows.
//!
//! In: a session and SQL text. Out: a [`Query`] whose stream runs it. Read [`run`] aloud; every step is one call, its detail one file away.
//! Nothing that is planned here is kept: the next statement is planned anew, for its principal and under the policies of its moment.

use std::{sync::Arc, time::Duration};

use datafusion::{
    arrow::{
        array::RecordBatch,
        datatypes::{DataType, Schema, SchemaRef},
    },
    common::ScalarValue,
    error::DataFusionError,
    execution::{SendableRecordBatchStream, SessionState},
    logical_expr::LogicalPlan,
    physical_plan::{ExecutionPlan, common::spawn_buffered, execute_stream},
    sql::{
        parser::Statement as ParsedStatement,
        sqlparser::ast::{Query as QueryAst, Statement},
    },
};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use minerva_cluster::{QueryGrants, WorkerLost};
use minerva_connectors::{Decision, SharedSnapshotsOnly};
use minerva_policy::Grant;
use tokio::runtime::Handle;

use crate::{
    admission::Permit,
    audit::trace::{self, Trace, Traced},
    casts_apart,
    catalog::{Catalog, Names, SeenTables},
    columns, commands,
    engine::{Engine, Snapshot},
    error::{Code, QueryError, Result},
    escape, explain, optimizer, parameters, parse,
    parse::Request,
    queries::Tracked,
    session::{Description, Session},
    streams::{Guarded, named, once, scrubbed},
    write,
};

/// How many batches are made before somebody asks for them.
const ROWS_AHEAD: usize = 2;

/// A statement that is planned and admitted. Its rows are made while they are read.
pub struct Query {
    id: String,
    schema: SchemaRef,
    update_count: Option<u64>,
    stream: SendableRecordBatchStream,
}

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query")
            .field("id", &self.id)
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

impl Query {
    /// The query's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The columns of its rows.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Whether it returns no rows but a count.
    pub fn is_update(&self) -> bool {
        self.update_count.is_some()
    }

    /// How many rows it wrote.
    pub fn update_count(&self) -> Option<u64> {
        self.update_count
    }

    /// Its rows. Dropping the stream cancels the query everywhere. Errors inside are `DataFusionError::External(QueryError)`.
    pub fn into_stream(self) -> SendableRecordBatchStream {
        self.stream
    }
}

/// What a statement answers with, before it is tracked.
pub(crate) enum Answer {
    /// Rows, made while they are read.
    Rows(SendableRecordBatchStream),
    /// A few rows that are known already.
    Table(RecordBatch),
    /// How many rows were written.
    Count(u64),
}

/// Plans and admits a statement of a session, and begins its record.
pub(crate) async fn start(session: &Session, sql: &str, parameters: Vec<ScalarValue>) -> Result<Query> {
    let engine = session.engine();
    let tracked = engine.queries.begin(session.principal(), session.client(), sql);
    let mut running = Running::new(tracked, Arc::clone(engine));
    let id = running.tracked.id();
    let mut stop = running.tracked.stop_signal();
    let work = trace::gathering(
        Arc::clone(&running.trace),
        run(session, sql, parameters, &running.tracked),
    );
    let started = tokio::select! {
        started = work => started,
        message = stopped(&mut stop) => Err(canceled(message)),
    };
    let (answer, permit) = match started {
        Ok(started) => started,
        Err(error) => return Err(running.fail(error)),
    };
    let update_count = match &answer {
        Answer::Count(count) => Some(*count),
        _ => None,
    };
    let rows = match answer {
        Answer::Rows(rows) => rows,
        Answer::Table(batch) => once(batch),
        Answer::Count(_) => once(RecordBatch::new_empty(Arc::new(Schema::empty()))),
    };
    let schema = rows.schema();
    running.begin_running(permit);
    let stream = Box::pin(Guarded {
        schema: Arc::clone(&schema),
        inner: guarded(rows, running).boxed(),
    });
    Ok(Query {
        id,
        schema,
        update_count,
        stream,
    })
}

/// The straight line.
async fn run(
    session: &Session,
    sql: &str,
    parameters: Vec<ScalarValue>,
    tracked: &Tracked,
) -> Result<(Answer, Permit)> {
    session.engine().audit.expect_writable()?;
    let snapshot = session.engine().snapshot();
    trace::note(|traced| traced.resources = Some(snapshot.version().0.clone()));
    let request = parse::one_statement(sql)?;
    trace::note(|traced| traced.kind = Some(request.kind()));
    let permit = session
        .engine()
        .admission
        .admit(
            &snapshot.set,
            &snapshot.rules,
            session.principal(),
            &session.engine().config.cluster,
            session.limits(&snapshot),
        )
        .await?;
    tracked.planning();
    let work = answer(session, &snapshot, request, parameters, tracked);
    let answer = within_limit(&permit, tracked, work).await?;
    Ok((answer, permit))
}

/// Does what a request asks for, as far as it is done before its first row.
async fn answer(
    session: &Session,
    snapshot: &Snapshot,
    request: Request,
    parameters: Vec<ScalarValue>,
    tracked: &Tracked,
) -> Result<Answer> {
    match request {
        Request::Query(query) => Ok(Answer::Rows(
            rows(session, snapshot, *query, parameters, tracked).await?,
        )),
        Request::Explain { query, options } => {
            explain::run(session, snapshot, *query, options, parameters, tracked).await
        }
        command if write::writes(&command) => write::run(session, snapshot, command, parameters, tracked).await,
        command => commands::run(session, snapshot, command).await,
    }
}

/// The rows of a query: names, plan, verified plan, stream.
pub(crate) async fn rows(
    session: &Session,
    snapshot: &Snapshot,
    query: QueryAst,
    parameters: Vec<ScalarValue>,
    tracked: &Tracked,
) -> Result<SendableRecordBatchStream> {
    plan(session, snapshot, query, parameters)
        .await?
        .execute(session, snapshot, tracked)
}

/// Begins to run a plan.
type Begin = Box<dyn FnOnce() -> datafusion::error::Result<SendableRecordBatchStream> + Send>;

/// A plan that was verified.
pub(crate) struct Planned {
    pub(crate) state: SessionState,
    pub(crate) names: Names,
    pub(crate) logical: LogicalPlan,
    pub(crate) physical: Arc<dyn ExecutionPlan>,
    /// What might have been pushed down, and why it was not.
    pub(crate) stayed: Vec<Decision>,
}

impl Planned {
    /// Begins to run the plan; workers are told what was granted to it.
    pub(crate) fn execute(
        &self,
        session: &Session,
        snapshot: &Snapshot,
        tracked: &Tracked,
    ) -> Result<SendableRecordBatchStream> {
        Ok(self.shown(self.beginning(session, snapshot, tracked)()?))
    }

    /// The same, but it begins only when its rows are asked for: until then it has no connection to a depot.
    pub(crate) fn execute_when_asked(
        &self,
        session: &Session,
        snapshot: &Snapshot,
        tracked: &Tracked,
    ) -> SendableRecordBatchStream {
        let begin = self.beginning(session, snapshot, tracked);
        let inner = stream::once(async move { begin() }).try_flatten().boxed();
        let schema = self.physical.schema();
        self.shown(Box::pin(Guarded { schema, inner }))
    }

    fn beginning(&self, session: &Session, snapshot: &Snapshot, tracked: &Tracked) -> Begin {
        let addresses = self.names.addresses.iter().map(ToString::to_string);
        let engine = session.engine();
        let watch = engine.wire().readings().watch(&tracked.id());
        tracked.planned(addresses.collect(), &self.physical, watch);
        let limit = max_memory(snapshot, session);
        let told = QueryGrants::new(&tracked.id(), snapshot.version(), &self.names.grants).with_max_memory(limit);
        let runtime = match limit {
            Some(limit) => engine.wire().share(&tracked.id(), limit, self.state.runtime_env()),
            None => Arc::clone(self.state.runtime_env()),
        };
        let plan = Arc::clone(&self.physical);
        let context = told.into_context(&self.state, runtime, &plan);
        let compute_on = engine.config.compute_on.clone();
        Box::new(move || {
            // What computes runs on threads of its own: the doors stay open while all of those are busy.
            let _computing = compute_on.as_ref().map(Handle::enter);
            let rows = execute_stream(plan, context)?;
            // In a task of its own, so that a deadline and a cancelling client are heard while an operator computes.
            Ok(spawn_buffered(rows, ROWS_AHEAD))
        })
    }

    fn shown(&self, rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
        let rows = named(rows);
        let mut grants = self.names.grants.iter();
        let is_governed = grants.any(|(_, grant)| matches!(grant, Grant::Governed(_)));
        if is_governed { scrubbed(rows) } else { rows }
    }
}

/// How many bytes a query may have in this process.
fn max_memory(snapshot: &Snapshot, session: &Session) -> Option<u64> {
    let limits = session.limits(snapshot);
    limits.max_memory.into_iter().chain(limits.max_memory_per_node).min()
}

/// Plans a query for the session's principal under one snapshot of the policies: with tables as they were last seen, while their depots are asked whether they
/// still are, and once more where they are not.
pub(crate) async fn plan(
    session: &Session,
    snapshot: &Snapshot,
    query: QueryAst,
    parameters: Vec<ScalarValue>,
) -> Result<Planned> {
    let seen = SeenTables::default();
    let as_seen = name_tables(session, snapshot, query.clone(), Some(&seen)).await;
    let planning = async { planned(session, snapshot, as_seen?, parameters.clone()).await };
    let (are_as_seen, planned_so) = futures::join!(seen.are_as_seen(), planning);
    if are_as_seen? {
        return planned_so;
    }
    trace::note(Traced::begin_again);
    let named = name_tables(session, snapshot, query, None).await?;
    planned(session, snapshot, named, parameters).await
}

/// Makes a verified plan of a query with its names, with ways out of its statements.
async fn planned(
    session: &Session,
    snapshot: &Snapshot,
    named: Named,
    parameters: Vec<ScalarValue>,
) -> Result<Planned> {
    let (state, names, logical) = bound(session, snapshot, named).await?;
    let planned = verified(session, state, names, logical, parameters).await?;
    let grants = &planned.names.grants;
    let physical = escape::open(planned.physical, &planned.state, grants, session.engine())?;
    Ok(Planned { physical, ..planned })
}

/// Makes a verified plan of a logical one, whose rows are written somewhere. No statement of it has a way out: it would need one connection more while it has one
/// to write with.
pub(crate) async fn verified_to_write(
    session: &Session,
    mut state: SessionState,
    names: Names,
    logical: LogicalPlan,
    parameters: Vec<ScalarValue>,
) -> Result<Planned> {
    state.config_mut().set_extension(Arc::new(SharedSnapshotsOnly));
    verified(session, state, names, logical, parameters).await
}

/// Makes a verified plan of a logical one.
async fn verified(
    session: &Session,
    mut state: SessionState,
    names: Names,
    logical: LogicalPlan,
    parameters: Vec<ScalarValue>,
) -> Result<Planned> {
    trace::note(|traced| traced.planned(&logical));
    let naming = parameters::naming(&parameters);
    let logical = parameters::bind(logical, parameters).map_err(&naming)?;
    let logical = state.optimize(&logical).map_err(|error| naming(error.into()))?;
    let (logical, stayed) = optimizer::push_down(logical, session)?;
    let physical = state.query_planner().create_physical_plan(&logical, &state).await?;
    optimizer::limit_key_lists(&physical, state.config_mut())?;
    escape::verify(&physical, &names.grants, &session.engine().depots)?;
    Ok(Planned {
        state,
        names,
        logical,
        physical,
        stayed,
    })
}

/// A query with its names.
struct Named {
    state: SessionState,
    names: Names,
    query: QueryAst,
    is_alone: bool,
}

/// The names and the logical plan of a query, not optimised yet.
pub(crate) async fn logical(
    session: &Session,
    snapshot: &Snapshot,
    query: QueryAst,
) -> Result<(SessionState, Names, LogicalPlan)> {
    let named = name_tables(session, snapshot, query, None).await?;
    bound(session, snapshot, named).await
}

/// The names of a query, of tables as they are, or as they were seen.
async fn name_tables(
    session: &Session,
    snapshot: &Snapshot,
    mut query: QueryAst,
    seen: Option<&SeenTables>,
) -> Result<Named> {
    columns::name(&mut query);
    casts_apart::tell(&mut query);
    // A plan of one process keeps its subqueries apart, and so can tell sources what they found.
    let is_alone = session.engine().members.active().len() < 2;
    let mut state = session.state(snapshot, !is_alone);
    let catalog = Catalog::of(session, snapshot).opening_as_seen(seen);
    let names = catalog.resolve(&query, &mut state).await?;
    Ok(Named {
        state,
        names,
        query,
        is_alone,
    })
}

/// The logical plan of a query with its names, not optimised yet.
async fn bound(session: &Session, snapshot: &Snapshot, named: Named) -> Result<(SessionState, Names, LogicalPlan)> {
    let Named {
        mut state,
        names,
        query,
        is_alone,
    } = named;
    let statement = ParsedStatement::Statement(Box::new(Statement::Query(Box::new(query))));
    let plan = state.statement_to_plan(statement).await?;
    let stays = is_alone || (names.distributable && is_distributable(&plan));
    if !stays {
        state = session.state(snapshot, false);
    }
    Ok((state, names, plan))
}

/// A recursive query reads its own result; its stages cannot be cut.
fn is_distributable(plan: &LogicalPlan) -> bool {
    use datafusion::common::tree_node::TreeNodeRecursion;
    let mut recursive = false;
    let walked = plan.apply_with_subqueries(|node| {
        recursive |= matches!(node, LogicalPlan::RecursiveQuery(_));
        Ok(if recursive {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    });
    walked.is_ok() && !recursive
}

/// Finds what a statement yields and takes, without running it. One that fails here is recorded as one that ran: asking is a way to try, too.
pub(crate) async fn describe(session: &Session, sql: &str) -> Result<Description> {
    let engine = session.engine();
    engine.audit.expect_writable()?;
    let trace = Arc::new(Trace::default());
    let described = trace::gathering(Arc::clone(&trace), described(session, sql)).await;
    described.map_err(|error| {
        let tracked = engine.queries.begin(session.principal(), session.client(), sql);
        let mut running = Running::new(tracked, Arc::clone(engine));
        running.trace = trace;
        running.fail(error)
    })
}

async fn described(session: &Session, sql: &str) -> Result<Description> {
    let snapshot = session.engine().snapshot();
    trace::note(|traced| traced.resources = Some(snapshot.version().0.clone()));
    let request = parse::one_statement(sql)?;
    trace::note(|traced| traced.kind = Some(request.kind()));
    let (query, explained) = match request {
        Request::Query(query) => (*query, false),
        Request::Explain { query, .. } => (*query, true),
        command => {
            let parameters = write::parameters(session, &snapshot, &command).await?;
            return Ok(Description {
                parameters,
                ..commands::describe(&command)
            });
        }
    };
    let (_, _, plan) = logical(session, &snapshot, query).await?;
    let parameters = parameters_of(&plan)?;
    let schema = match explained {
        true => explain::schema(),
        false => columns::without_marks(&Arc::new(plan.schema().as_arrow().clone())),
    };
    Ok(Description {
        schema,
        parameters,
        is_update: false,
    })
}

/// The parameters of a plan, in their order.
pub(crate) fn parameters_of(plan: &LogicalPlan) -> Result<Vec<(String, DataType)>> {
    let mut parameters: Vec<(String, DataType)> = plan
        .get_parameter_types()?
        .into_iter()
        .map(|(name, data_type)| (name, data_type.unwrap_or(DataType::Utf8)))
        .collect();
    parameters.sort_by_key(|(name, _)| name.trim_start_matches('$').parse::<u32>().unwrap_or(u32::MAX));
    Ok(parameters)
}

/// A query's record while it runs; dropping it ends the query.
struct Running {
    tracked: Tracked,
    trace: Arc<Trace>,
    engine: Arc<Engine>,
    permit: Option<Permit>,
    deadline: Option<tokio::time::Instant>,
    ended: bool,
}

impl Running {
    fn new(tracked: Tracked, engine: Arc<Engine>) -> Self {
        let trace = Arc::new(Trace::default());
        engine
            .audit
            .query(&tracked.record(), &engine.config.cluster, trace.so_far());
        Self {
            tracked,
            trace,
            engine,
            permit: None,
            deadline: None,
            ended: false,
        }
    }

    /// The error as it leaves the engine; a worker that was lost gets no more work until it is heard of again.
    fn understand(&self, error: DataFusionError) -> QueryError {
        if let Some(lost) = WorkerLost::find(&error) {
            self.engine.members.suspect(&lost.url);
        }
        QueryError::from(error)
    }

    fn begin_running(&mut self, permit: Permit) {
        let begun = tokio::time::Instant::from_std(self.tracked.started());
        self.deadline = permit.max_run_time().map(|limit| begun + limit);
        self.permit = Some(permit);
        self.tracked.running();
    }

    fn fail(&mut self, error: QueryError) -> QueryError {
        let error = error.with_query_id(&self.tracked.id());
        self.end(Err(error.clone()));
        error
    }

    fn end(&mut self, outcome: Result<()>) {
        self.ended = true;
        self.permit = None;
        if let Some(record) = self.engine.queries.end(&self.tracked, outcome) {
            let cluster = &self.engine.config.cluster;
            self.engine.audit.query(&record, cluster, self.trace.take());
        }
    }

    fn check_rows(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = self.tracked.produced(batch.num_rows(), batch.get_array_memory_size());
        match self.permit.as_ref().and_then(|permit| permit.limits.max_rows) {
            Some(limit) if rows > limit => Err(QueryError::new(
                Code::ExceededRowLimit,
                format!("the query returned more than {limit} rows"),
            )
            .with_hint("add a LIMIT, or raise `query.max-rows` of the cluster and `query_max_rows` of the session")),
            _ => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Err(canceled("the client went away".to_owned())));
        }
    }
}

fn canceled(message: String) -> QueryError {
    QueryError::new(Code::QueryCanceled, format!("the query was canceled: {message}"))
}

async fn stopped(stop: &mut tokio::sync::watch::Receiver<Option<String>>) -> String {
    loop {
        if let Some(message) = stop.borrow_and_update().clone() {
            return message;
        }
        if stop.changed().await.is_err() {
            // The record is gone, so nobody can stop the query any more.
            return std::future::pending().await;
        }
    }
}

async fn expired(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Counts rows, holds the limits, and ends the record with the last row, the first error, or when the client goes away.
fn guarded(
    rows: SendableRecordBatchStream,
    running: Running,
) -> impl Stream<Item = Result<RecordBatch, DataFusionError>> + Send {
    stream::unfold(Some((rows, running)), |both| async move {
        let (mut rows, mut running) = both?;
        let mut stop = running.tracked.stop_signal();
        let next: Option<Result<RecordBatch>> = tokio::select! {
            biased;
            message = stopped(&mut stop) => Some(Err(canceled(message))),
            () = expired(running.deadline) => Some(Err(too_slow(running.permit.as_ref()))),
            next = rows.next() => next.map(|batch| batch.map_err(|error| running.understand(error))),
        };
        match next.map(|batch| batch.and_then(|batch| running.check_rows(&batch).map(|()| batch))) {
            None => {
                running.end(Ok(()));
                None
            }
            Some(Ok(batch)) => Some((Ok(batch), Some((rows, running)))),
            Some(Err(error)) => Some((Err(DataFusionError::from(running.fail(error))), None)),
        }
    })
}

fn too_slow(permit: Option<&Permit>) -> QueryError {
    let limit = permit.and_then(Permit::max_run_time).unwrap_or(Duration::ZERO);
    QueryError::new(
        Code::ExceededTimeLimit,
        format!("the query ran longer than {} seconds", limit.as_secs_f64()),
    )
    .with_hint("ask for less, or raise `query.max-run-time` of the cluster")
}

/// Holds the time limit over planning, and over the statements that do all their work there: commands and EXPLAIN ANALYZE.
async fn within_limit<T>(permit: &Permit, tracked: &Tracked, work: impl Future<Output = Result<T>>) -> Result<T> {
    let begun = tokio::time::Instant::from_std(tracked.started());
    tokio::select! {
        done = work => done,
        () = expired(permit.max_run_time().map(|limit| begun + limit)) => Err(too_slow(Some(permit))),
    }
}

//! A user's session: the current catalog and schema, temporary views, and the state that a statement is planned with.
//!
//! In: a principal, made by the authenticator. Out: descriptions and queries. Deliberately absent: how a query runs (`query.rs`) and how
//! a name becomes a table (`catalog.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::{DataType, SchemaRef},
    common::ScalarValue,
    execution::{
        SessionState, SessionStateBuilder, SessionStateDefaults, context::QueryPlanner, runtime_env::RuntimeEnv,
    },
    logical_expr::{AggregateUDF, LogicalPlan},
    physical_plan::ExecutionPlan,
    physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner},
    prelude::SessionConfig,
};
use datafusion_distributed::DistributedExt;
use minerva_cluster::{Members, PaceJoins, Wire};
use minerva_connectors::{Connector, RemotePlanner, connector};
use minerva_policy::{BarrierPlanner, Explanation, FencePlanner, Principal};
use minerva_resources::{Address, Limits};

use crate::{
    catalog::{Catalog, TableEntry, TableRequest},
    engine::{Engine, Snapshot},
    error::{Code, QueryError, Result},
    gateway::auth,
    optimizer, parse,
    parse::Request,
    properties::{Properties, Shown},
    queries::Client,
    query::{self, Query},
};

pub(crate) use crate::catalog::ClosedTables;

/// The name of a catalog and schema that hold nothing: where names without a current schema are looked for.
pub(crate) const NOWHERE: &str = "";
/// How many views a session may keep.
pub(crate) const MAX_VIEWS: usize = 1_000;

/// A user's session. Cheap to make; everything heavy is shared.
#[derive(Debug)]
pub struct Session {
    engine: Arc<Engine>,
    principal: Arc<Principal>,
    client: Client,
    current: Mutex<Current>,
}

#[derive(Debug, Clone, Default)]
struct Current {
    catalog: Option<String>,
    schema: Option<String>,
    views: BTreeMap<String, View>,
    properties: Properties,
}

/// A temporary view: its text, which is planned anew for whoever uses it.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) query: Box<datafusion::sql::sqlparser::ast::Query>,
    pub(crate) columns: Vec<String>,
    pub(crate) catalog: Option<String>,
    pub(crate) schema: Option<String>,
}

/// What policies are explained for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicySubject {
    /// Every table.
    Everything,
    /// One table: `catalog.schema.table` or `dataos://depot:collection/dataset`.
    Table(String),
    /// The tables of a query.
    Query(String),
}

/// A query that names a table; an address is one quoted name.
fn table_query(name: &str) -> String {
    match name.starts_with("dataos://") {
        true => format!("SELECT * FROM \"{}\"", name.replace('"', "\"\"")),
        false => format!("SELECT * FROM {name}"),
    }
}

/// What a statement yields and takes, found without running it.
#[derive(Debug, Clone)]
pub struct Description {
    /// The columns of its result; empty for a statement that returns none.
    pub schema: SchemaRef,
    /// Its parameters in order (`$1`, ...) with their types.
    pub parameters: Vec<(String, DataType)>,
    /// Whether it returns a count instead of rows.
    pub is_update: bool,
}

impl Session {
    pub(crate) fn new(engine: Arc<Engine>, principal: Arc<Principal>, client: Client) -> Self {
        Self {
            engine,
            principal,
            client,
            current: Mutex::default(),
        }
    }

    /// A session of the same user that is as this one is now, and goes its own way then.
    pub(crate) fn twin(&self) -> Arc<Session> {
        let current = self.current().clone();
        let mut twin = Session::new(
            Arc::clone(&self.engine),
            Arc::clone(&self.principal),
            self.client.clone(),
        );
        twin.current = Mutex::new(current);
        Arc::new(twin)
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose session it is.
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The current catalog.
    pub fn catalog_name(&self) -> Option<String> {
        self.current().catalog.clone()
    }

    /// The current schema.
    pub fn schema_name(&self) -> Option<String> {
        self.current().schema.clone()
    }

    /// Sets or forgets the current catalog; the current schema is forgotten with it.
    ///
    /// # Errors
    /// `CATALOG_NOT_FOUND` when there is none that the user may see.
    pub async fn set_catalog(&self, name: Option<&str>) -> Result<()> {
        if let Some(name) = name {
            Catalog::of(self, &self.engine.snapshot()).expect_catalog(name).await?;
        }
        let mut current = self.current();
        current.catalog = name.map(str::to_owned);
        current.schema = None;
        Ok(())
    }

    /// Sets or forgets the current schema of the current catalog.
    ///
    /// # Errors
    /// `SCHEMA_NOT_FOUND` when there is none that the user may see; `MISSING_CATALOG_NAME` without a current catalog.
    pub async fn set_schema(&self, name: Option<&str>) -> Result<()> {
        if let Some(name) = name {
            let catalog = self.catalog_name();
            Catalog::of(self, &self.engine.snapshot())
                .expect_schema(catalog.as_deref(), name)
                .await?;
        }
        self.current().schema = name.map(str::to_owned);
        Ok(())
    }

    /// Sets a session property, or with no value gives it its default again.
    ///
    /// # Errors
    /// `NOT_FOUND` and `CATALOG_NOT_FOUND` for names that there are not, `INVALID_ARGUMENT` for a value that does not fit.
    pub async fn set_property(&self, name: &[String], value: Option<&str>) -> Result<()> {
        let snapshot = self.engine.snapshot();
        if let [catalog, property] = name {
            Catalog::of(self, &snapshot).expect_catalog(catalog).await?;
            Properties::expect_of(name, property, computes(&snapshot, catalog))?;
        }
        let cluster = self.engine.limits(&snapshot);
        let properties = &mut self.current().properties;
        match value {
            Some(value) => properties.set(name, value, &cluster),
            None => properties.reset(name),
        }
    }

    /// Every session property, with those of the depots that the user may see.
    pub(crate) fn properties(&self, snapshot: &Snapshot) -> Vec<Shown> {
        let mut catalogs = Catalog::of(self, snapshot).catalogs();
        catalogs.retain(|catalog| snapshot.set.depot(catalog).is_some());
        let depots: Vec<(String, bool)> = catalogs
            .into_iter()
            .map(|catalog| {
                let computes = computes(snapshot, &catalog);
                (catalog, computes)
            })
            .collect();
        self.current().properties.shown(&self.engine.limits(snapshot), &depots)
    }

    /// The limits of a statement of this session.
    pub(crate) fn limits(&self, snapshot: &Snapshot) -> Limits {
        self.current().properties.lower(self.engine.limits(snapshot))
    }

    /// Whether a depot may be asked to filter and to limit for this session.
    pub(crate) fn pushes_down(&self, depot: &str) -> bool {
        self.current().properties.pushes_down(depot)
    }

    /// Whether a depot does all that it can for this session, also where that is thought to cost more.
    pub(crate) fn is_eager(&self, depot: &str) -> bool {
        self.current().properties.is_eager(depot)
    }

    /// Whether joins may be done in another order than they are written in.
    pub(crate) fn orders_joins(&self) -> bool {
        self.current().properties.orders_joins()
    }

    /// Takes over the properties of a session of the same user.
    pub(crate) fn take_over_properties(&self, of: &Session) {
        let properties = of.current().properties.clone();
        self.current().properties = properties;
    }

    pub(crate) fn view(&self, name: &str) -> Option<View> {
        self.current().views.get(name).cloned()
    }

    /// Keeps a view; false when there are too many.
    pub(crate) fn keep_view(&self, name: &str, view: View) -> bool {
        let mut current = self.current();
        if current.views.len() >= MAX_VIEWS && !current.views.contains_key(name) {
            return false;
        }
        current.views.insert(name.to_owned(), view);
        true
    }

    pub(crate) fn forget_view(&self, name: &str) -> bool {
        self.current().views.remove(name).is_some()
    }

    /// Plans a statement without running it.
    ///
    /// # Errors
    /// Whatever planning finds.
    pub async fn describe(&self, sql: &str) -> Result<Description> {
        query::describe(self, sql).await
    }

    /// Plans and admits a statement; it runs when its rows are asked for.
    ///
    /// # Errors
    /// Whatever parsing, admission, planning and policies find.
    pub async fn start(&self, sql: &str, parameters: Vec<ScalarValue>) -> Result<Query> {
        query::start(self, sql, parameters).await
    }

    /// The catalogs that the user may see.
    ///
    /// # Errors
    /// None today.
    pub async fn catalogs(&self) -> Result<Vec<String>> {
        Ok(Catalog::of(self, &self.engine.snapshot()).catalogs())
    }

    /// The schemas that the user may see, of one catalog or of all.
    ///
    /// # Errors
    /// When a depot that is named cannot be reached.
    pub async fn schemas(&self, catalog: Option<&str>) -> Result<Vec<(String, String)>> {
        Catalog::of(self, &self.engine.snapshot()).schemas(catalog).await
    }

    /// The tables that the user may see.
    ///
    /// # Errors
    /// When a depot that is named cannot be reached.
    pub async fn tables(&self, request: &TableRequest) -> Result<Vec<TableEntry>> {
        Catalog::of(self, &self.engine.snapshot()).tables(request).await
    }

    /// Explains to an operator who sees what of the named tables and why, as text.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for others, since the text holds policies; not-found codes for unknown users and tables.
    pub async fn explain_policy(&self, user: &str, subject: &PolicySubject) -> Result<String> {
        if !self.principal.is_operator() {
            return Err(
                QueryError::new(Code::PermissionDenied, "only operators may have policies explained")
                    .with_hint("ask an operator"),
            );
        }
        let snapshot = self.engine.snapshot();
        let declared = snapshot.set.user(user).ok_or_else(|| {
            let error = QueryError::new(Code::NotFound, format!("user `{user}` is not declared"));
            error.suggest(user, snapshot.set.users().map(|user| user.id.as_str()))
        })?;
        let catalog = Catalog::of(self, &snapshot);
        let addresses: BTreeSet<Address> = match subject {
            PolicySubject::Query(sql) => match parse::one_statement(sql)? {
                Request::Query(query) | Request::Explain { query, .. } => catalog.addresses_of(&query)?,
                _ => return Err(QueryError::new(Code::NotSupported, "only queries can be explained")),
            },
            PolicySubject::Table(name) => match parse::one_statement(&table_query(name))? {
                Request::Query(query) => catalog.addresses_of(&query)?,
                _ => BTreeSet::new(),
            },
            PolicySubject::Everything => {
                let tables = catalog
                    .tables(&TableRequest {
                        kinds: vec!["BASE TABLE".to_owned()],
                        ..TableRequest::default()
                    })
                    .await?;
                tables
                    .into_iter()
                    .map(|table| Address::new(table.catalog, table.schema, table.name))
                    .collect()
            }
        };
        let principal = auth::principal(declared);
        let mut text = String::new();
        for address in &addresses {
            text.push_str(&catalog.explain(&principal, address).await?.to_string());
            text.push('\n');
        }
        Ok(text)
    }

    /// Puts manifests, by the names of their files, into the coordinator's resources, or says for a dry run what that would alter. The
    /// answer is that of [`crate::applied_json`] or [`crate::refused_json`].
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for all but operators; `GENERIC_INTERNAL_ERROR` when the files cannot be written.
    pub async fn apply(&self, manifests: &BTreeMap<String, String>, dry_run: bool) -> Result<serde_json::Value> {
        crate::apply::apply(self, manifests, dry_run).await
    }

    /// Takes resources, by kind and name, away, or says for a dry run what that would alter. The answer is like that of [`Session::apply`].
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for all but operators; `NOT_FOUND` for what is not declared; `GENERIC_INTERNAL_ERROR` when the files cannot be written.
    pub async fn delete_resources(&self, unwanted: &[(String, String)], dry_run: bool) -> Result<serde_json::Value> {
        crate::apply::delete(self, unwanted, dry_run).await
    }

    /// The resources of a kind, or of all kinds, and of a name: `resources`, and why those that lie there are not in force, `refused`.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for all but operators; `NOT_FOUND` when the one that is named is not declared.
    pub fn get_resources(&self, kind: Option<&str>, name: Option<&str>) -> Result<serde_json::Value> {
        crate::apply::get(self, kind, name)
    }

    /// What the user sees of a table and why; what they may not select does not exist.
    pub(crate) async fn own_decision(&self, address: &Address) -> Result<Explanation> {
        let snapshot = self.engine.snapshot();
        Catalog::of(self, &snapshot).own_decision(address).await
    }

    /// The tables that are closed to some declared user, as far as they are found within a while. For operators.
    pub(crate) async fn closed_tables(&self, within: Duration) -> ClosedTables {
        let snapshot = self.engine.snapshot();
        Catalog::of(self, &snapshot).closed_tables(within).await
    }

    /// The state that one statement of this session is planned with: no table is in it yet.
    pub(crate) fn state(&self, snapshot: &Snapshot, distributed: bool) -> SessionState {
        let mut state = snapshot.templates.state(distributed);
        // `now()` is the moment of the statement, not that of the template.
        state.mark_start_execution();
        let options = state.config_mut().options_mut();
        options.catalog.default_catalog = self.catalog_name().unwrap_or_else(|| NOWHERE.to_owned());
        options.catalog.default_schema = self.schema_name().unwrap_or_else(|| NOWHERE.to_owned());
        state
    }
}

/// Whether a depot can be asked for more than scans.
fn computes(snapshot: &Snapshot, depot: &str) -> bool {
    let declared = snapshot.set.depot(depot);
    declared
        .and_then(|depot| connector(&depot.depot_type))
        .is_some_and(Connector::computes)
}

/// The states that sessions' states are copies of, made once for each set of resources.
#[derive(Debug)]
pub(crate) struct Templates {
    local: SessionState,
    distributed: SessionState,
}

impl Templates {
    pub(crate) fn new(
        config: SessionConfig,
        bytes_per_task: usize,
        wire: &Wire,
        members: &Members,
        runtime: &Arc<RuntimeEnv>,
    ) -> datafusion::error::Result<Self> {
        let builder = || {
            SessionStateBuilder::new()
                .with_config(settings(config.clone(), wire))
                .with_runtime_env(Arc::clone(runtime))
                .with_default_features()
                .with_aggregate_functions(aggregates())
                .with_analyzer_rules(optimizer::analyzer_rules())
                .with_optimizer_rules(optimizer::rules())
                .with_physical_optimizer_rules(optimizer::physical_rules())
                .with_physical_optimizer_rule(Arc::new(PaceJoins))
                .with_query_planner(Arc::new(Planner))
        };
        let distributed = minerva_cluster::coordinator_session(builder(), wire, members)
            .with_distributed_file_scan_config_bytes_per_partition(bytes_per_task)?
            .build();
        Ok(Self {
            local: builder().build(),
            distributed,
        })
    }

    fn state(&self, distributed: bool) -> SessionState {
        match distributed {
            true => self.distributed.clone(),
            false => self.local.clone(),
        }
    }

    /// A state of no statement, for asking depots what they have. It is not copied: a state has hundreds of functions.
    pub(crate) fn unnamed(&self) -> &SessionState {
        &self.local
    }
}

/// DataFusion's aggregate functions, those that give wrong answers replaced.
fn aggregates() -> Vec<Arc<AggregateUDF>> {
    let mut functions = SessionStateDefaults::default_aggregate_functions();
    functions.extend(minerva_cluster::aggregates());
    functions
}

/// DataFusion's physical planner, which also knows barriers.
#[derive(Debug)]
struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn datafusion::catalog::Session,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        DefaultPhysicalPlanner::with_extension_planners(vec![
            Arc::new(BarrierPlanner),
            Arc::new(FencePlanner),
            Arc::new(RemotePlanner),
        ])
        .create_physical_plan(plan, session)
        .await
    }
}

/// The most bytes of keys that one side of a join tells the other as a list.
const MOST_KEY_BYTES: usize = 4 << 20;

/// The planner's and executor's settings; users cannot change them.
fn settings(config: SessionConfig, wire: &Wire) -> SessionConfig {
    let depots = Arc::clone(wire.depots());
    let mut config = config
        .with_extension(depots)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false);
    let options = config.options_mut();
    // How many keys a list may have is decided for each plan: see `optimizer::limit_key_lists`.
    options.optimizer.hash_join_inlist_pushdown_max_size = MOST_KEY_BYTES;
    options.sql_parser.collect_spans = true;
    options.execution.collect_statistics = true;
    // It refuses right plans, such as those of `SELECT DISTINCT a IS TRUE`: that is planned as `a IS NOT DISTINCT FROM true`, which says of itself that it
    // may be NULL.
    options.execution.skip_physical_aggregate_schema_check = true;
    config
}

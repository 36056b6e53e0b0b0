//! The one door: a name becomes a depot, a verdict, a governed table. Nothing else in this crate opens a depot.
//!
//! In: names of a statement, the principal, the resources of the moment. Out: governed tables and what the verifier must find in the plan.
//! What a user may not select does not exist for them: the same text and code as for a name that nobody has.

mod absent;
mod closed;
mod listing;
mod metadata;
mod patience;
mod seen;
mod writing;

use std::{collections::BTreeSet, sync::Arc};

use datafusion::{
    arrow::datatypes::SchemaRef,
    catalog::{
        CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
        SchemaProvider, TableProvider, view::ViewTable,
    },
    common::TableReference,
    execution::SessionState,
    logical_expr::{LogicalPlan, LogicalPlanBuilder, col},
    sql::{
        parser::Statement as ParsedStatement,
        sqlparser::ast::{Query as QueryAst, Statement},
    },
};
use futures::future::BoxFuture;
use minerva_connectors::Source;
use minerva_policy::{Explanation, Governance, Grant, Grants, Principal, Verdict, decide, protect};
use minerva_resources::{Address, Depot};

pub(crate) use closed::ClosedTables;
pub(crate) use listing::{exactly, like};
pub(crate) use metadata::Metadata;
pub(crate) use seen::SeenTables;
pub(crate) use writing::Deed;

use crate::{
    audit::trace,
    casts_apart, columns,
    engine::{Engine, Snapshot},
    error::{Code, QueryError, Result},
    session::{NOWHERE, Session, View},
    system, tables_apart,
};

/// How deep views may be built on views.
const MAX_VIEW_DEPTH: usize = 16;
/// The schema that describes each catalog.
pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";
/// The catalog of the engine itself.
pub(crate) const SYSTEM: &str = "system";
/// The catalog of what the gateway keeps: the audit.
pub(crate) const GATEWAY: &str = "gateway";

/// Which tables are asked for in a listing.
#[derive(Debug, Clone, Default)]
pub struct TableRequest {
    /// One catalog, or all.
    pub catalog: Option<String>,
    /// A LIKE pattern of schemas, or all.
    pub schema_pattern: Option<String>,
    /// A LIKE pattern of tables, or all.
    pub table_pattern: Option<String>,
    /// Kinds such as `BASE TABLE`; empty means all.
    pub kinds: Vec<String>,
    /// Whether the columns are wanted as well.
    pub with_schema: bool,
}

/// One table of a listing.
#[derive(Debug, Clone)]
pub struct TableEntry {
    /// The catalog: a depot's name, or `system`.
    pub catalog: String,
    /// The schema: a collection's name.
    pub schema: String,
    /// The table: a dataset's name.
    pub name: String,
    /// `BASE TABLE`, `VIEW` or `SYSTEM TABLE`.
    pub kind: &'static str,
    /// The columns as the user sees them, where they were asked for and could be read.
    pub arrow: Option<SchemaRef>,
    /// What its `dataset` manifest says of it.
    pub description: String,
}

/// The governed tables of one statement.
#[derive(Debug)]
pub(crate) struct Names {
    list: Arc<MemoryCatalogProviderList>,
    /// What the verifier must find in the physical plan.
    pub(crate) grants: Grants,
    /// Each dataset that is read, for the records.
    pub(crate) addresses: BTreeSet<Address>,
    /// Whether every table can be read by a worker.
    pub(crate) distributable: bool,
}

/// The door, for one statement of one principal.
#[derive(Debug, Clone)]
pub(crate) struct Catalog<'a> {
    session: &'a Session,
    /// The catalog and schema of names that say none: the session's, or inside a view those it was made under.
    current: (Option<String>, Option<String>),
    engine: &'a Arc<Engine>,
    snapshot: &'a Snapshot,
    principal: &'a Principal,
    /// The table that a statement changes, under the name that stands for it in its query.
    changed: Option<&'a Changed>,
    /// Where the tables are told that are opened as they were last seen; without it none is.
    seen: Option<&'a SeenTables>,
}

/// The table that a statement changes.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) name: &'static str,
    pub(crate) table: Arc<dyn TableProvider>,
    pub(crate) address: Address,
    pub(crate) fingerprint: String,
}

/// The depot that a dataset is to be written into.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) address: Address,
    pub(crate) depot: Arc<Depot>,
    pub(crate) source: Arc<dyn Source>,
}

/// A dataset that rows are written to or removed from, and what of it the user may see.
#[derive(Debug)]
pub(crate) struct Target {
    /// The columns that exist for the user; no other may be named, or told of in an error.
    pub(crate) schema: SchemaRef,
    /// All columns.
    pub(crate) raw: SchemaRef,
    pub(crate) governance: Governance,
}

/// A view that a name means.
struct NamedView {
    name: String,
    /// Where it is kept, if it is not the session's.
    address: Option<Address>,
    view: View,
}

/// A governed table, and the fingerprint of what governs it, if anything does.
type Governed = (Arc<dyn TableProvider>, Option<String>);

/// A governed table and where it came from.
struct Opened {
    table: Arc<dyn TableProvider>,
    distributable: bool,
    granted: Option<(Address, Option<String>)>,
}

impl<'a> Catalog<'a> {
    pub(crate) fn of(session: &'a Session, snapshot: &'a Snapshot) -> Self {
        let current = (session.catalog_name(), session.schema_name());
        Self {
            session,
            current,
            engine: session.engine(),
            snapshot,
            principal: session.principal(),
            changed: None,
            seen: None,
        }
    }

    /// The same door, which opens tables as they were last seen. Whether they still are is asked afterwards, of `seen`.
    pub(crate) fn opening_as_seen(self, seen: Option<&'a SeenTables>) -> Self {
        Self { seen, ..self }
    }

    /// The same door, for a statement that changes a table.
    pub(crate) fn changing(self, changed: &'a Changed) -> Self {
        Self {
            changed: Some(changed),
            ..self
        }
    }

    /// Turns every name of a query into a governed table, and puts these, and no others, into the state.
    pub(crate) async fn resolve(&self, query: &QueryAst, state: &mut SessionState) -> Result<Names> {
        let mut names = Names::new();
        self.resolve_into(query.clone(), state, &mut names, 0).await?;
        state.register_catalog_list(Arc::clone(&names.list) as Arc<dyn CatalogProviderList>);
        Ok(names)
    }

    fn resolve_into<'b>(
        &'b self,
        query: QueryAst,
        state: &'b SessionState,
        names: &'b mut Names,
        depth: usize,
    ) -> BoxFuture<'b, Result<()>> {
        Box::pin(async move {
            tables_apart::check(&query)?;
            let statement = ParsedStatement::Statement(Box::new(Statement::Query(Box::new(query))));
            for reference in state.resolve_table_references(&statement)? {
                let opened = match (self.changed_of(&reference), self.view_of(&reference)?) {
                    (Some(changed), _) => Opened {
                        table: Arc::clone(&changed.table),
                        distributable: false,
                        granted: Some((changed.address.clone(), Some(changed.fingerprint.clone()))),
                    },
                    (None, Some(named)) => self.open_view(named, state, names, depth).await?,
                    (None, None) => self.open_name(&reference).await?,
                };
                names.add(&reference, state, opened)?;
            }
            Ok(())
        })
    }

    fn changed_of(&self, reference: &TableReference) -> Option<&'a Changed> {
        let TableReference::Bare { table } = reference else {
            return None;
        };
        self.changed.filter(|changed| changed.name == table.as_ref())
    }

    /// The view that a name means: one of the session, or one of a depot that the user may select.
    fn view_of(&self, reference: &TableReference) -> Result<Option<NamedView>> {
        if let TableReference::Bare { table } = reference
            && let Some(view) = self.session.view(table)
        {
            return Ok(Some(NamedView {
                name: table.to_string(),
                address: None,
                view,
            }));
        }
        let views = self.engine.views();
        if views.is_empty() {
            return Ok(None);
        }
        // What no table can be called, no view is called either; the error is for who opens the table.
        let Ok((catalog, schema, table)) = self.complete(reference) else {
            return Ok(None);
        };
        let address = Address::new(catalog, schema, table);
        if self.snapshot.set.depot(&address.depot).is_none()
            || !self.snapshot.rules.may_select(self.principal, &address).allowed
        {
            return Ok(None);
        }
        match views.get(&address) {
            Some(view) => Ok(Some(NamedView {
                name: address.to_string(),
                view: view.read()?,
                address: Some(address),
            })),
            None => Ok(None),
        }
    }

    /// Plans a view's text for the one who uses it, each time: nothing of its creator is kept.
    async fn open_view(
        &self,
        named: NamedView,
        state: &SessionState,
        names: &mut Names,
        depth: usize,
    ) -> Result<Opened> {
        let NamedView { name, address, view } = named;
        if depth >= MAX_VIEW_DEPTH {
            let message = format!("view `{name}` is built on more than {MAX_VIEW_DEPTH} views, or on itself");
            return Err(QueryError::new(Code::NotSupported, message));
        }
        let mut own_state = state.clone();
        let options = own_state.config_mut().options_mut();
        options.catalog.default_catalog = view.catalog.clone().unwrap_or_else(|| NOWHERE.to_owned());
        options.catalog.default_schema = view.schema.clone().unwrap_or_else(|| NOWHERE.to_owned());
        let inside = Self {
            current: (view.catalog.clone(), view.schema.clone()),
            // The table that a statement changes is for its own text alone.
            changed: None,
            ..self.clone()
        };
        let mut own = Names::new();
        inside
            .resolve_into(view.query.as_ref().clone(), &own_state, &mut own, depth + 1)
            .await?;
        own_state.register_catalog_list(Arc::clone(&own.list) as Arc<dyn CatalogProviderList>);
        let mut query = view.query;
        columns::name(&mut query);
        casts_apart::tell(&mut query);
        let statement = ParsedStatement::Statement(Box::new(Statement::Query(query)));
        let mut plan = own_state.statement_to_plan(statement).await?;
        if !view.columns.is_empty() {
            let fields = plan.schema().columns();
            if fields.len() != view.columns.len() {
                let message = format!(
                    "view `{name}` names {} columns, its query has {}",
                    view.columns.len(),
                    fields.len()
                );
                return Err(QueryError::new(Code::TypeMismatch, message));
            }
            let renamed = fields
                .into_iter()
                .zip(&view.columns)
                .map(|(column, alias)| col(column).alias(alias));
            plan = LogicalPlanBuilder::from(plan).project(renamed)?.build()?;
        }
        names.absorb(own);
        if let Some(address) = &address {
            self.expect_ungoverned_view(address, &plan)?;
        }
        Ok(Opened {
            table: Arc::new(ViewTable::new(plan, None)),
            distributable: true,
            granted: None,
        })
    }

    /// The columns of a view of a depot, as the user sees them.
    pub(crate) async fn view_columns(&self, address: &Address) -> Result<Option<SchemaRef>> {
        let reference = TableReference::full(
            address.depot.as_str(),
            address.collection.as_str(),
            address.dataset.as_str(),
        );
        let Some(named) = self.view_of(&reference)? else {
            return Ok(None);
        };
        let state = self.session.state(self.snapshot, false);
        let opened = self.open_view(named, &state, &mut Names::new(), 0).await?;
        Ok(Some(columns::without_marks(&opened.table.schema())))
    }

    /// A view shows what its tables show to whoever asks. Policies about the view itself would have to hold on top of that, which they do not:
    /// it is closed to those whom they are about.
    fn expect_ungoverned_view(&self, address: &Address, plan: &LogicalPlan) -> Result<()> {
        match decide(&self.snapshot.rules, self.principal, address, plan.schema().as_arrow()) {
            Verdict::Allow(governance) if governance.is_open() => Ok(()),
            Verdict::Allow(_) | Verdict::Deny(_) => {
                let message =
                    format!("view `{address}` is closed: a data policy is about it, and not about its tables");
                Err(QueryError::new(Code::PolicyError, message).with_hint(
                    "policies hold for the tables that a view reads; make the policy's selector leave out the view",
                ))
            }
            Verdict::Closed(closed) => Err(self.closed(address, &closed)),
        }
    }

    async fn open_name(&self, reference: &TableReference) -> Result<Opened> {
        let (catalog, schema, table) = self.complete(reference)?;
        match self.open(&catalog, &schema, &table).await? {
            Some(opened) => Ok(opened),
            None => Err(self.not_found(&catalog, &schema, &table).await),
        }
    }

    /// Fills in the session's catalog and schema; an address (`dataos://d:c/t`) is a whole name.
    fn complete(&self, reference: &TableReference) -> Result<(String, String, String)> {
        let no_catalog = || {
            QueryError::new(
                Code::MissingCatalogName,
                format!("table `{reference}` names no catalog and schema, and the session has none"),
            )
            .with_hint("write catalog.schema.table, or USE catalog.schema first")
        };
        match reference {
            TableReference::Bare { table } => match table.starts_with("dataos://").then(|| table.parse::<Address>()) {
                Some(Ok(address)) => Ok((address.depot, address.collection, address.dataset)),
                Some(Err(reason)) => Err(QueryError::new(
                    Code::TableNotFound,
                    format!("`{table}` is no address of a dataset: {reason}"),
                )),
                None => {
                    let (catalog, schema) = self
                        .current
                        .0
                        .clone()
                        .zip(self.current.1.clone())
                        .ok_or_else(no_catalog)?;
                    Ok((catalog, schema, table.to_string()))
                }
            },
            TableReference::Partial { schema, table } => {
                let catalog = match self.current.0.clone() {
                    Some(catalog) => catalog,
                    // `information_schema.tables` without a catalog describes the engine's own.
                    None if schema.as_ref() == INFORMATION_SCHEMA => SYSTEM.to_owned(),
                    None => return Err(no_catalog()),
                };
                Ok((catalog, schema.to_string(), table.to_string()))
            }
            TableReference::Full { catalog, schema, table } => {
                Ok((catalog.to_string(), schema.to_string(), table.to_string()))
            }
        }
    }

    async fn open(&self, catalog: &str, schema: &str, table: &str) -> Result<Option<Opened>> {
        if system::owns(catalog) || schema == INFORMATION_SCHEMA {
            if schema == INFORMATION_SCHEMA && !self.catalogs().iter().any(|known| known == catalog) {
                return Ok(None);
            }
            let found = system::open(self, catalog, schema, table).await?;
            return Ok(found.map(|table| Opened {
                table,
                distributable: false,
                granted: None,
            }));
        }
        let address = Address::new(catalog, schema, table);
        Ok(self.governed(&address).await?.map(|(opened, _)| opened))
    }

    /// The governed table of an address, and its depot; `None` when there is none or the user may not know of it.
    async fn governed(&self, address: &Address) -> Result<Option<(Opened, Arc<dyn Source>)>> {
        let access = self.snapshot.rules.may_select(self.principal, address);
        if self.snapshot.set.depot(&address.depot).is_none() || !access.allowed {
            trace::decided(address, &access, None);
            self.look_for_nothing(address).await?;
            return Ok(None);
        }
        let source = self
            .engine
            .depots
            .open(&address.depot)
            .await
            .map_err(datafusion::error::DataFusionError::from)?;
        let Some(raw) = self.raw(&source, address).await? else {
            std::hint::black_box(self.sees_place(address));
            return Ok(None);
        };
        let raw = match self.session.pushes_down(&address.depot) {
            true => raw,
            false => minerva_connectors::unpushed(raw),
        };
        self.expect_same_tags(address)?;
        let verdict = decide(&self.snapshot.rules, self.principal, address, &raw.schema());
        trace::decided(address, &access, Some(&verdict));
        let governed = self.apply(address, raw, verdict)?;
        Ok(governed.map(|(table, fingerprint)| {
            let opened = Opened {
                table,
                distributable: source.distributable(),
                granted: Some((address.clone(), fingerprint)),
            };
            (opened, source)
        }))
    }

    async fn raw(&self, source: &Arc<dyn Source>, address: &Address) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(table) = self.seen.and_then(|seen| seen.open(source, address)) {
            return Ok(Some(table));
        }
        let state = self.snapshot.templates.unnamed();
        let found = source.dataset(&address.collection, &address.dataset, state).await;
        Ok(found.map_err(datafusion::error::DataFusionError::from)?)
    }

    /// A table that was made since the statement began may have brought tags that the statement's policies do not know.
    fn expect_same_tags(&self, address: &Address) -> Result<()> {
        match self.engine.snapshot().derived.get(address) == self.snapshot.derived.get(address) {
            true => Ok(()),
            false => Err(QueryError::new(
                Code::TableChanged,
                format!("the tags of `{address}` changed while the statement was planned"),
            )
            .with_hint("run it again")),
        }
    }

    /// What the principal may see of a raw table; `None` when it may not be seen.
    fn govern(&self, address: &Address, raw: Arc<dyn TableProvider>) -> Result<Option<Governed>> {
        let verdict = decide(&self.snapshot.rules, self.principal, address, &raw.schema());
        self.apply(address, raw, verdict)
    }

    fn apply(&self, address: &Address, raw: Arc<dyn TableProvider>, verdict: Verdict) -> Result<Option<Governed>> {
        match verdict {
            Verdict::Deny(_) => Ok(None),
            Verdict::Closed(closed) => Err(self.closed(address, &closed)),
            Verdict::Allow(governance) => {
                let fingerprint = (!governance.is_open()).then(|| governance.fingerprint.clone());
                let raw = match governance.is_open() {
                    true => minerva_connectors::estimated(raw),
                    // The figures of its source count hidden rows, and plans can be looked at.
                    false => raw,
                };
                Ok(Some((protect(address, &governance, raw)?, fingerprint)))
            }
        }
    }

    pub(crate) fn session(&self) -> &'a Session {
        self.session
    }

    pub(crate) fn snapshot(&self) -> &'a Snapshot {
        self.snapshot
    }

    /// Who sees what of a table and why, for operators: the raw table's columns are needed, and they are found nowhere else.
    pub(crate) async fn explain(&self, user: &Principal, address: &Address) -> Result<Explanation> {
        let schema = self.raw_schema(address).await?;
        Ok(minerva_policy::explain(&self.snapshot.rules, user, address, &schema))
    }

    /// The columns of a table as its depot has them, for what is told to operators.
    pub(crate) async fn raw_schema(&self, address: &Address) -> Result<SchemaRef> {
        let unknown = || QueryError::new(Code::TableNotFound, format!("dataset `{address}` does not exist"));
        if self.snapshot.set.depot(&address.depot).is_none() {
            return Err(unknown());
        }
        let source = self
            .engine
            .depots
            .open(&address.depot)
            .await
            .map_err(datafusion::error::DataFusionError::from)?;
        let state = self.snapshot.templates.unnamed();
        let found = source
            .dataset(&address.collection, &address.dataset, state)
            .await
            .map_err(datafusion::error::DataFusionError::from)?;
        Ok(found.ok_or_else(unknown)?.schema())
    }

    /// A view of the session that a query names, which nobody else has.
    pub(crate) fn session_view_in(&self, query: &QueryAst) -> Result<Option<String>> {
        let statement = ParsedStatement::Statement(Box::new(Statement::Query(Box::new(query.clone()))));
        let state = self.snapshot.templates.unnamed();
        let named = state.resolve_table_references(&statement)?;
        Ok(named.into_iter().find_map(|reference| match reference {
            TableReference::Bare { table } => self.session.view(&table).map(|_| table.to_string()),
            _ => None,
        }))
    }

    /// The datasets that a query names; the engine's own tables and the session's views are left out.
    pub(crate) fn addresses_of(&self, query: &QueryAst) -> Result<BTreeSet<Address>> {
        let statement = ParsedStatement::Statement(Box::new(Statement::Query(Box::new(query.clone()))));
        let mut found = BTreeSet::new();
        for reference in self.snapshot.templates.unnamed().resolve_table_references(&statement)? {
            if self.view_of(&reference)?.is_some() {
                continue;
            }
            let (catalog, schema, table) = self.complete(&reference)?;
            if !system::owns(&catalog) && schema != INFORMATION_SCHEMA {
                found.insert(Address::new(catalog, schema, table));
            }
        }
        Ok(found)
    }
}

impl Names {
    fn new() -> Self {
        Self {
            list: Arc::new(MemoryCatalogProviderList::new()),
            grants: Grants::default(),
            addresses: BTreeSet::new(),
            distributable: true,
        }
    }

    /// Puts a table where the planner looks for this reference.
    fn add(&mut self, reference: &TableReference, state: &SessionState, opened: Opened) -> Result<()> {
        let defaults = &state.config_options().catalog;
        let resolved = reference
            .clone()
            .resolve(&defaults.default_catalog, &defaults.default_schema);
        let catalog = match self.list.catalog(&resolved.catalog) {
            Some(catalog) => catalog,
            None => {
                let catalog: Arc<dyn CatalogProvider> = Arc::new(MemoryCatalogProvider::new());
                self.list
                    .register_catalog(resolved.catalog.to_string(), Arc::clone(&catalog));
                catalog
            }
        };
        let schema = match catalog.schema(&resolved.schema) {
            Some(schema) => schema,
            None => {
                let schema: Arc<dyn SchemaProvider> = Arc::new(MemorySchemaProvider::new());
                catalog.register_schema(&resolved.schema, Arc::clone(&schema))?;
                schema
            }
        };
        self.distributable &= opened.distributable;
        if let Some((address, fingerprint)) = opened.granted {
            self.grants
                .add(address.clone(), fingerprint.as_deref().unwrap_or_default());
            self.addresses.insert(address);
        }
        if !schema.table_exist(&resolved.table) {
            schema.register_table(resolved.table.to_string(), opened.table)?;
        }
        Ok(())
    }

    /// Takes over what a view reads.
    fn absorb(&mut self, view: Names) {
        for (address, grant) in view.grants.iter() {
            let fingerprint = match grant {
                Grant::Open => "",
                Grant::Governed(fingerprint) => fingerprint,
            };
            self.grants.add(address.clone(), fingerprint);
        }
        self.addresses.extend(view.addresses);
        self.distributable &= view.distributable;
    }
}

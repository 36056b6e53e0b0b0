//! Puts a governed table in the place of the raw one.
//!
//! In go a raw table and what governs it, out comes a table that shows only masked cells of visible rows, however it
//! is reached: inlined as a logical plan or scanned. Hidden columns are not among its columns. It shows no definition, default, constraint or statistics of the
//! raw table and refuses every write. Deciding what governs the table is [`crate::decide`]'s work.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{ScanArgs, ScanResult, Session, TableProvider};
use datafusion::common::{
    Column, Constraints, DFSchemaRef, Result, Statistics, TableReference, not_impl_err, plan_err,
};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::dml::{InsertOp, MergeIntoClause};
use datafusion::logical_expr::expr_rewriter::unnormalize_cols;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, TableType,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use minerva_resources::Address;

use crate::barrier::{BarrierColumn, PolicyBarrier, Seal};
use crate::barrier_planner::BarrierPlanner;
use crate::verdict::Governance;

/// The table that a principal under `governance` may read in the place of `raw`.
///
/// Fails when a mask or a filter does not fit the table; the table must then not be shown at all.
pub fn protect(
    address: &Address,
    governance: &Governance,
    raw: Arc<dyn TableProvider>,
) -> Result<Arc<dyn TableProvider>> {
    let address = address.clone();
    let table_type = raw.table_type();
    if governance.is_open() {
        return Ok(Arc::new(ProtectedTable {
            address,
            table_type,
            schema: raw.schema(),
            body: Body::Open(raw),
        }));
    }
    let plan = governed_plan(&address, governance, raw)?;
    let schema = Arc::new(plan.schema().as_arrow().clone());
    Ok(Arc::new(ProtectedTable {
        address,
        table_type,
        schema,
        body: Body::Governed(plan),
    }))
}

/// What stands before the name of a column whose raw values are seen by the check of an UPDATE and by nobody else. No user can name it.
pub const RAW_PREFIX: &str = "\u{0}raw ";

/// The same for a table whose rows are to be changed: besides what the principal may read it has, under [`RAW_PREFIX`], the raw values of
/// the columns that row filters are about, so that changed rows can be checked. Statements of users must not be able to name these.
pub fn protect_to_change(
    address: &Address,
    governance: &Governance,
    raw: Arc<dyn TableProvider>,
) -> Result<Arc<dyn TableProvider>> {
    if governance.is_open() {
        return protect(address, governance, raw);
    }
    let table_type = raw.table_type();
    let checked = governance.filtered_columns();
    let plan = plan_with_raw(address, governance, raw, &checked)?;
    Ok(Arc::new(ProtectedTable {
        address: address.clone(),
        table_type,
        schema: Arc::new(plan.schema().as_arrow().clone()),
        body: Body::Governed(plan),
    }))
}

/// The dataset that a table of [`protect`] is; `None` for other tables.
pub fn address_of(table: &dyn TableProvider) -> Option<Address> {
    table
        .downcast_ref::<ProtectedTable>()
        .map(|protected| protected.address.clone())
}

/// The raw table inside a table of [`protect`] that nothing governs; `None` for those that something does, and for other tables.
pub fn open_table(table: &dyn TableProvider) -> Option<Arc<dyn TableProvider>> {
    match &table.downcast_ref::<ProtectedTable>()?.body {
        Body::Open(raw) => Some(Arc::clone(raw)),
        Body::Governed(_) => None,
    }
}

/// Barrier over masks over row filters over the raw scan.
fn governed_plan(address: &Address, governance: &Governance, raw: Arc<dyn TableProvider>) -> Result<LogicalPlan> {
    plan_with_raw(address, governance, raw, &BTreeSet::new())
}

fn plan_with_raw(
    address: &Address,
    governance: &Governance,
    raw: Arc<dyn TableProvider>,
    checked: &BTreeSet<String>,
) -> Result<LogicalPlan> {
    let table = TableReference::full(
        address.depot.as_str(),
        address.collection.as_str(),
        address.dataset.as_str(),
    );
    let mut scan = LogicalPlanBuilder::scan(table.clone(), provider_as_source(raw), None)?;
    let raw_schema = Arc::clone(scan.schema());
    for mask in &governance.masks {
        if !raw_schema.has_column_with_unqualified_name(mask.column()) {
            return plan_err!("`{address}` has no column `{}` to mask", mask.column());
        }
    }
    if let Some(predicate) = governance.predicate() {
        scan = scan.filter(predicate)?;
    }
    let mut expressions = Vec::with_capacity(raw_schema.fields().len());
    let mut columns = Vec::with_capacity(raw_schema.fields().len());
    for (qualifier, field) in raw_schema.iter() {
        let name = field.name();
        if governance.hides(name) {
            continue;
        }
        let column = Expr::Column(Column::new(qualifier.cloned(), name));
        let masked = governance.masked(name, column.clone());
        columns.push(BarrierColumn {
            name: name.clone(),
            masked: masked.is_some(),
        });
        expressions.push(match masked {
            None => column,
            Some(masked) => {
                let (to, from) = (masked.get_type(&raw_schema)?, field.data_type());
                if to != *from {
                    return plan_err!("the mask of column `{name}` of `{address}` makes `{to}` of `{from}`");
                }
                masked.alias_qualified(qualifier.cloned(), name)
            }
        });
    }
    for (qualifier, field) in raw_schema.iter().filter(|(_, field)| checked.contains(field.name())) {
        let name = format!("{RAW_PREFIX}{}", field.name());
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        expressions.push(column.alias_qualified(qualifier.cloned(), &name));
        columns.push(BarrierColumn { name, masked: false });
    }
    let seal = Seal {
        address: address.clone(),
        fingerprint: governance.fingerprint.clone(),
    };
    let barrier = PolicyBarrier::try_new(Arc::new(seal), columns, scan.project(expressions)?.build()?)?;
    Ok(LogicalPlan::Extension(Extension {
        node: Arc::new(barrier),
    }))
}

/// A table that can be read, never written, and whose definition is not shown.
#[derive(Debug)]
struct ProtectedTable {
    address: Address,
    table_type: TableType,
    schema: SchemaRef,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// Everything may be read: no barrier and no cost.
    Open(Arc<dyn TableProvider>),
    /// The plan behind its barrier.
    Governed(LogicalPlan),
}

#[async_trait]
impl TableProvider for ProtectedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn constraints(&self) -> Option<&Constraints> {
        match &self.body {
            Body::Open(raw) => raw.constraints(),
            Body::Governed(_) => None,
        }
    }

    fn table_type(&self) -> TableType {
        self.table_type
    }

    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        match &self.body {
            Body::Open(raw) => raw.get_logical_plan(),
            Body::Governed(plan) => Some(Cow::Borrowed(plan)),
        }
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        match &self.body {
            Body::Open(raw) => raw.supports_filters_pushdown(filters),
            Body::Governed(_) => Ok(vec![TableProviderFilterPushDown::Exact; filters.len()]),
        }
    }

    fn statistics(&self) -> Option<Statistics> {
        match &self.body {
            Body::Open(raw) => raw.statistics(),
            Body::Governed(_) => None,
        }
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match &self.body {
            Body::Open(raw) => raw.scan(session, projection, filters, limit).await,
            Body::Governed(plan) => scan_governed(plan, session, projection, filters, limit).await,
        }
    }

    async fn scan_with_args<'a>(&self, session: &dyn Session, args: ScanArgs<'a>) -> Result<ScanResult> {
        match &self.body {
            Body::Open(raw) => raw.scan_with_args(session, args).await,
            Body::Governed(plan) => {
                let projection = args.projection().map(<[usize]>::to_vec);
                let filters = args.filters().unwrap_or_default();
                Ok(scan_governed(plan, session, projection.as_ref(), filters, args.limit())
                    .await?
                    .into())
            }
        }
    }

    async fn insert_into(
        &self,
        _session: &dyn Session,
        _input: Arc<dyn ExecutionPlan>,
        _op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        read_only(&self.address)
    }

    async fn delete_from(&self, _session: &dyn Session, _filters: Vec<Expr>) -> Result<Arc<dyn ExecutionPlan>> {
        read_only(&self.address)
    }

    async fn update(
        &self,
        _session: &dyn Session,
        _assignments: Vec<(String, Expr)>,
        _filters: Vec<Expr>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        read_only(&self.address)
    }

    async fn truncate(&self, _session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        read_only(&self.address)
    }

    async fn merge_into(
        &self,
        _session: &dyn Session,
        _source: Arc<dyn ExecutionPlan>,
        _schema: DFSchemaRef,
        _on: Expr,
        _clauses: Vec<MergeIntoClause>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        read_only(&self.address)
    }
}

/// Plans a governed plan where it was not inlined, with every filter above the barrier.
///
/// The barrier is planned here whatever query planner the session has, and nothing is distributed twice.
async fn scan_governed(
    governed: &LogicalPlan,
    session: &dyn Session,
    projection: Option<&Vec<usize>>,
    filters: &[Expr],
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let mut plan = LogicalPlanBuilder::from(governed.clone());
    // A filter names the columns of the scan that it was given to; here they are the barrier's.
    let filters = unnormalize_cols(filters.iter().cloned());
    if let Some(predicate) = conjunction(filters) {
        plan = plan.filter(predicate)?;
    }
    if let Some(projection) = projection {
        let columns = projection.iter().map(|index| governed.schema().qualified_field(*index));
        plan = plan.project(
            columns
                .map(|field| Expr::Column(Column::from(field)))
                .collect::<Vec<_>>(),
        )?;
    }
    if limit.is_some() {
        plan = plan.limit(0, limit)?;
    }
    let plan = session.optimize(&plan.build()?)?;
    let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(BarrierPlanner)]);
    planner.create_physical_plan(&plan, session).await
}

fn read_only<T>(address: &Address) -> Result<T> {
    not_impl_err!("`{address}` is read-only: statements that write are not supported")
}

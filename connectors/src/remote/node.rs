//! What stands in a plan for a statement that a source runs.
//!
//! In: the statement and the columns that come back. Out: a logical leaf, and of it the physical one, a [`crate::ScanExec`] that carries the statement.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchemaRef, Result};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};

use super::escape::Escape;
use super::select::RemoteQuery;
use crate::remote_table::{ReadyScan, Snapshots};
use crate::{Scan, Split};

/// A leaf of a logical plan: a statement for one source.
#[derive(Clone)]
pub(super) struct RemoteRead {
    pub(super) query: Arc<RemoteQuery>,
    pub(super) schema: DFSchemaRef,
    /// The pieces of its table, if it can be read in pieces.
    pub(super) splits: Vec<Split>,
    pub(super) snapshots: Option<Arc<dyn Snapshots>>,
    pub(super) rows: usize,
    /// What may be run instead.
    pub(super) escape: Option<Arc<Escape>>,
}

impl RemoteRead {
    pub(super) fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }
}

impl fmt::Debug for RemoteRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteRead")
            .field("query", &self.query)
            .finish_non_exhaustive()
    }
}

impl PartialEq for RemoteRead {
    fn eq(&self, other: &RemoteRead) -> bool {
        self.query == other.query && self.schema == other.schema
    }
}

impl Eq for RemoteRead {}

impl Hash for RemoteRead {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.query.hash(state);
    }
}

impl PartialOrd for RemoteRead {
    fn partial_cmp(&self, other: &RemoteRead) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for RemoteRead {
    fn name(&self) -> &str {
        "RemoteRead"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let depot = self.query.datasets().next().map(|address| address.depot.as_str());
        write!(
            f,
            "RemoteRead: depot={}, sql={}",
            depot.unwrap_or_default(),
            self.query.text(None, None)
        )
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, _inputs: Vec<LogicalPlan>) -> Result<RemoteRead> {
        Ok(self.clone())
    }
}

/// Plans the statements that [`super::PushDown`] made; a query planner that runs such plans needs it.
#[derive(Debug, Default)]
pub struct RemotePlanner;

#[async_trait]
impl ExtensionPlanner for RemotePlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        _physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(read) = node.as_any().downcast_ref::<RemoteRead>() else {
            return Ok(None);
        };
        let Some(address) = read.query.datasets().next() else {
            return Ok(None);
        };
        let scan = Scan {
            address: address.clone(),
            schema: Arc::new(read.schema.as_arrow().clone()),
            filters: Vec::new(),
            limit: None,
            snapshot: None,
            query: Some(Arc::clone(&read.query)),
        };
        let ready = ReadyScan::of(session, scan, &read.splits, read.snapshots.as_ref(), false).await?;
        let leaf = ready.into_exec(session, Precision::Inexact(read.rows));
        Ok(Some(Arc::new(leaf.with_escape(read.escape.clone()))))
    }
}

//! What a user may see of a plan: a governed table is one line, with nothing below it.
//!
//! In go a logical or a physical plan, out comes one that prints the same down to each barrier and there prints
//! `GovernedScan: dataos://depot:collection/table`; a statement that holds governed tables behind fences is one line without the insides of the fences. Metrics above the barriers stay, those below go. The result is
//! for printing only and does not run.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DFSchemaRef, Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::{MetricCategory, MetricsSet};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion_distributed::{DistributedExec, NetworkBoundaryExt};

use crate::barrier::{PolicyBarrier, Seal, write_filters};
use crate::barrier_exec::PolicyBarrierExec;
use crate::fence::PolicyFence;
use crate::fence_exec::PolicyFenceExec;

/// `plan` as a user may see it, subqueries included.
pub fn redact_logical_plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    let redacted = plan.transform_down_with_subqueries(|node| {
        let LogicalPlan::Extension(extension) = &node else {
            return Ok(Transformed::no(node));
        };
        if let Some(fence) = extension.node.as_any().downcast_ref::<PolicyFence>() {
            let statement = GovernedStatement {
                shown: fence.shown(),
                schema: Arc::clone(UserDefinedLogicalNodeCore::schema(fence)),
            };
            return Ok(Transformed::yes(LogicalPlan::Extension(Extension {
                node: Arc::new(statement),
            })));
        }
        let Some(barrier) = extension.node.as_any().downcast_ref::<PolicyBarrier>() else {
            return Ok(Transformed::no(node));
        };
        let scan = GovernedScan {
            seal: Arc::clone(barrier.seal()),
            columns: barrier.columns().iter().map(|column| column.name.clone()).collect(),
            filters: barrier.filters(),
            schema: Arc::clone(UserDefinedLogicalNodeCore::schema(barrier)),
        };
        Ok(Transformed::yes(LogicalPlan::Extension(Extension {
            node: Arc::new(scan),
        })))
    })?;
    Ok(redacted.data)
}

/// `plan` as a user may see it, with the metrics that it has gathered so far.
///
/// Of a distributed plan the stages stay what they are, so that `datafusion-distributed` can draw them.
pub fn redact_plan(plan: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    Ok(redacted(plan)?.unwrap_or_else(|| Arc::clone(plan)))
}

/// The redacted plan, or `None` when there is nothing to hide in it.
fn redacted(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(barrier) = plan.downcast_ref::<PolicyBarrierExec>() {
        let columns = barrier.columns().iter().map(|column| column.name.clone()).collect();
        return Ok(Some(Arc::new(GovernedScanExec {
            seal: Arc::clone(barrier.seal()),
            columns,
            filters: barrier.filters().to_vec(),
            barrier: Arc::clone(plan),
        })));
    }
    if let Some(fence) = plan.downcast_ref::<PolicyFenceExec>() {
        return Ok(Some(Arc::new(GovernedStatementExec {
            shown: fence.shown().to_owned(),
            fence: Arc::clone(plan),
        })));
    }
    let mut changed = false;
    let mut children = Vec::new();
    for child in plan.children() {
        let child_redacted = redacted(child)?;
        changed |= child_redacted.is_some();
        children.push(child_redacted.unwrap_or_else(|| Arc::clone(child)));
    }
    if !changed {
        return Ok(None);
    }
    if plan.is::<DistributedExec>() || plan.is_network_boundary() {
        #[expect(deprecated, reason = "these nodes implement only the older method")]
        return Ok(Some(Arc::clone(plan).with_new_children(children)?));
    }
    Ok(Some(Arc::new(Printed {
        node: Arc::clone(plan),
        children,
    })))
}

/// Leaves out what measures memory: batches above a barrier may still share buffers with hidden rows.
fn without_sizes(metrics: MetricsSet) -> MetricsSet {
    let mut kept = MetricsSet::new();
    for metric in metrics.iter() {
        let name = metric.value().name();
        let is_size = name.contains("bytes") || name.contains("mem") || name == "output_batches";
        if !is_size && metric.metric_category() != Some(MetricCategory::Bytes) {
            kept.push(Arc::clone(metric));
        }
    }
    kept
}

fn write_scan(formatter: &mut fmt::Formatter<'_>, seal: &Seal, columns: &[String], filters: &[String]) -> fmt::Result {
    write!(
        formatter,
        "GovernedScan: {}, columns=[{}]",
        seal.address,
        columns.join(", ")
    )?;
    write_filters(formatter, filters)
}

/// What is left of a logical barrier.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct GovernedScan {
    seal: Arc<Seal>,
    columns: Vec<String>,
    filters: Vec<String>,
    schema: DFSchemaRef,
}

impl PartialOrd for GovernedScan {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        let ordering =
            (&self.seal, &self.columns, &self.filters).partial_cmp(&(&other.seal, &other.columns, &other.filters));
        ordering.filter(|ordering| ordering.is_ne() || self == other)
    }
}

impl UserDefinedLogicalNodeCore for GovernedScan {
    fn name(&self) -> &str {
        "GovernedScan"
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

    fn fmt_for_explain(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scan(formatter, &self.seal, &self.columns, &self.filters)
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, _inputs: Vec<LogicalPlan>) -> Result<Self> {
        Ok(self.clone())
    }
}

/// What is left of a physical barrier: its name and how many rows came out.
#[derive(Debug)]
struct GovernedScanExec {
    seal: Arc<Seal>,
    columns: Vec<String>,
    filters: Vec<String>,
    barrier: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for GovernedScanExec {
    fn fmt_as(&self, format: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write_scan(formatter, &self.seal, &self.columns, &self.filters)
            }
            DisplayFormatType::TreeRender => write!(formatter, "{}", self.seal.address),
        }
    }
}

impl ExecutionPlan for GovernedScanExec {
    fn name(&self) -> &str {
        "GovernedScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.barrier.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        internal_err!("a plan made for printing does not run")
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.barrier.metrics().map(without_sizes)
    }
}

/// What is left of a statement with fences.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct GovernedStatement {
    shown: String,
    schema: DFSchemaRef,
}

impl PartialOrd for GovernedStatement {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        let ordering = self.shown.cmp(&other.shown);
        (ordering.is_ne() || self == other).then_some(ordering)
    }
}

impl UserDefinedLogicalNodeCore for GovernedStatement {
    fn name(&self) -> &str {
        "GovernedStatement"
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

    fn fmt_for_explain(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "GovernedStatement: {}", self.shown)
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, _inputs: Vec<LogicalPlan>) -> Result<Self> {
        Ok(self.clone())
    }
}

/// What is left of a physical statement with fences: its text outside of them and how many rows came out.
#[derive(Debug)]
struct GovernedStatementExec {
    shown: String,
    fence: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for GovernedStatementExec {
    fn fmt_as(&self, format: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(formatter, "GovernedStatement: {}", self.shown)
            }
            DisplayFormatType::TreeRender => formatter.write_str(&self.shown),
        }
    }
}

impl ExecutionPlan for GovernedStatementExec {
    fn name(&self) -> &str {
        "GovernedStatement"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.fence.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        internal_err!("a plan made for printing does not run")
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.fence.metrics().map(without_sizes)
    }
}

/// A node printed as it is, over redacted children.
#[derive(Debug)]
struct Printed {
    node: Arc<dyn ExecutionPlan>,
    children: Vec<Arc<dyn ExecutionPlan>>,
}

impl DisplayAs for Printed {
    fn fmt_as(&self, format: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.node.fmt_as(format, formatter)
    }
}

impl ExecutionPlan for Printed {
    fn name(&self) -> &str {
        self.node.name()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.node.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.children.iter().collect()
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.node.apply_expressions(visit)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self {
            node: Arc::clone(&self.node),
            children,
        }))
    }

    fn execute(&self, _partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        internal_err!("a plan made for printing does not run")
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.node.metrics().map(without_sizes)
    }
}

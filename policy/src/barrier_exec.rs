//! The policy barrier as a physical node: it passes batches on and hides what lies below.
//!
//! In go the batches of a governed plan, out come the same batches. Below it no expression of a user is evaluated but
//! leakproof predicates and the comparisons of dynamic filters over unmasked columns. From below it come statistics
//! that are only estimates and say nothing of masked columns, and errors whose text says nothing of the data.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};

use datafusion::arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, DataFusionError, Result, Statistics, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::object_store;
use datafusion::parquet::errors::ParquetError;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter_pushdown::{ChildFilterDescription, FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::projection::{ProjectionExec, make_with_child};
use datafusion::physical_plan::sort_pushdown::SortOrderPushdownResult;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use futures::{Stream, StreamExt};
use minerva_resources::Address;

use crate::barrier::{BarrierColumn, Seal};
use crate::leakproof::is_leakproof_physical;
use crate::no_disk::without_disk;
use crate::scrub::without_leftovers;

/// The physical barrier round one governed table.
#[derive(Debug, Clone)]
pub struct PolicyBarrierExec {
    seal: Arc<Seal>,
    columns: Arc<[BarrierColumn]>,
    /// A user's predicates that are evaluated below or at the barrier, for printing only.
    filters: Arc<[String]>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    /// What the plan below runs in, made by the first partition, and what it was made of.
    below: Arc<OnceLock<(Weak<TaskContext>, Arc<TaskContext>)>>,
}

impl PolicyBarrierExec {
    /// Puts a barrier over `input`, whose output columns must be `columns` in the same order.
    pub fn try_new(
        seal: Arc<Seal>,
        columns: impl Into<Arc<[BarrierColumn]>>,
        input: Arc<dyn ExecutionPlan>,
    ) -> Result<Self> {
        let columns = columns.into();
        let schema = input.schema();
        let names = schema.fields().iter().map(|field| field.name());
        if names.len() != columns.len() || !names.zip(columns.iter()).all(|(name, column)| *name == column.name) {
            return internal_err!(
                "the policy barrier of `{}` does not know the columns of its input",
                seal.address
            );
        }
        let properties = known_outside(input.properties());
        let filters = Arc::from([]);
        Ok(Self {
            seal,
            columns,
            filters,
            input,
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
            below: Arc::default(),
        })
    }

    /// The context for the plan below: one for all partitions of a run.
    fn below(&self, context: &Arc<TaskContext>) -> Result<Arc<TaskContext>> {
        if let Some((of, below)) = self.below.get()
            && Weak::as_ptr(of) == Arc::as_ptr(context)
        {
            return Ok(Arc::clone(below));
        }
        let below = without_disk(context)?;
        // Another run of the same plan makes its own each time.
        let _ = self.below.set((Arc::downgrade(context), Arc::clone(&below)));
        Ok(below)
    }

    /// Remembers which predicates of a user the scan answers for.
    pub(crate) fn with_filters(self, filters: impl Into<Arc<[String]>>) -> Self {
        Self {
            filters: filters.into(),
            ..self
        }
    }

    pub(crate) fn filters(&self) -> &[String] {
        &self.filters
    }

    /// Whose barrier it is.
    pub fn seal(&self) -> &Arc<Seal> {
        &self.seal
    }

    /// The columns that leave the barrier, in the order of its schema.
    pub fn columns(&self) -> &[BarrierColumn] {
        &self.columns
    }

    /// The plan below.
    pub fn input(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }

    fn is_open(&self, index: usize) -> bool {
        self.columns.get(index).is_some_and(|column| !column.masked)
    }

    fn over(&self, input: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let barrier = Self::try_new(Arc::clone(&self.seal), Arc::clone(&self.columns), input)?;
        Ok(Arc::new(barrier.with_filters(Arc::clone(&self.filters))))
    }

    fn is_leakproof(&self, predicate: &Arc<dyn PhysicalExpr>) -> bool {
        let schema = self.input.schema();
        let types = |index: usize| schema.fields().get(index).map(|field| field.data_type().clone());
        is_leakproof_physical(predicate, &types, &|index| self.is_open(index))
    }
}

/// What is known of the rows besides their order stays below. A key of the raw table says nothing about its masked values and may be
/// secret itself; that a column is constant, as a filtered or masked one is, would be told by plans, and sorts that rely on it do not
/// survive a join.
fn known_outside(properties: &Arc<PlanProperties>) -> Arc<PlanProperties> {
    let inside = properties.equivalence_properties();
    let orderings = inside.oeq_class().iter().cloned();
    let outside = EquivalenceProperties::new_with_orderings(Arc::clone(inside.schema()), orderings);
    Arc::new(PlanProperties::clone(properties).with_eq_properties(outside))
}

impl DisplayAs for PolicyBarrierExec {
    fn fmt_as(&self, format: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(formatter, "PolicyBarrierExec: {}", self.seal.address)
            }
            DisplayFormatType::TreeRender => write!(formatter, "{}", self.seal.address),
        }
    }
}

impl ExecutionPlan for PolicyBarrierExec {
    fn name(&self) -> &str {
        "PolicyBarrierExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    /// The order is kept, but saying so would let `EnsureRequirements` push a user's sort expressions below the barrier.
    /// What the input is sorted by is known from its properties all the same.
    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([input]) = <[Arc<dyn ExecutionPlan>; 1]>::try_from(children) else {
            return internal_err!("the policy barrier of `{}` has one input", self.seal.address);
        };
        match options.children_properties {
            ChildrenPropertiesMode::Keep => Ok(Arc::new(Self {
                input,
                metrics: ExecutionPlanMetricsSet::new(),
                ..Self::clone(&self)
            })),
            ChildrenPropertiesMode::Recompute => self.over(input),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn with_new_children_and_same_properties(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))
    }

    fn repartitioned(&self, partitions: usize, config: &ConfigOptions) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        self.input
            .repartitioned(partitions, config)?
            .map(|input| self.over(input))
            .transpose()
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self
            .below(&context)
            .and_then(|context| self.input.execute(partition, context))
            .map_err(|error| GovernedError::hide(&self.seal.address, error))?;
        Ok(Box::pin(BarrierStream {
            input,
            seal: Arc::clone(&self.seal),
            columns: Arc::clone(&self.columns),
            metrics: BaselineMetrics::new(&self.metrics, partition),
        }))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let Some(input) = inputs.first() else {
            return Ok(Arc::new(Statistics::new_unknown(&self.schema())));
        };
        let column_statistics = input
            .column_statistics
            .iter()
            .enumerate()
            .map(|(index, column)| {
                if self.is_open(index) {
                    estimate(column)
                } else {
                    ColumnStatistics::new_unknown()
                }
            })
            .collect();
        let num_rows = rounded(input.num_rows);
        Ok(Arc::new(Statistics {
            num_rows,
            total_byte_size: num_rows.multiply(&Precision::Inexact(row_bytes(&self.schema()))),
            column_statistics,
        }))
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    /// Lets a projection through that only leaves columns out.
    fn try_swapping_with_projection(&self, projection: &ProjectionExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if projection.expr().len() >= self.columns.len() {
            return Ok(None);
        }
        let kept: Option<Vec<BarrierColumn>> = projection
            .expr()
            .iter()
            .map(|kept| {
                let known = self.columns.get(kept.expr.downcast_ref::<Column>()?.index())?;
                Some(BarrierColumn {
                    name: kept.alias.clone(),
                    masked: known.masked,
                })
            })
            .collect();
        let Some(columns) = kept else {
            return Ok(None);
        };
        let input = make_with_child(projection, &self.input)?;
        let barrier = Self::try_new(Arc::clone(&self.seal), columns, input)?;
        Ok(Some(Arc::new(barrier.with_filters(Arc::clone(&self.filters)))))
    }

    fn gather_filters_for_pushdown(
        &self,
        _phase: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        _config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        // A filter over a column that does not exist is what a description marks as unsupported, in its place.
        let refused: Arc<dyn PhysicalExpr> = Arc::new(Column::new("", usize::MAX));
        let offered: Vec<_> = parent_filters
            .iter()
            .map(|filter| Arc::clone(if self.is_leakproof(filter) { filter } else { &refused }))
            .collect();
        let open = (0..self.columns.len()).filter(|index| self.is_open(*index)).collect();
        let child = ChildFilterDescription::from_child_with_allowed_indices(&offered, open, &self.input)?;
        Ok(FilterDescription::new().with_child(child))
    }

    fn try_pushdown_sort(&self, order: &[PhysicalSortExpr]) -> Result<SortOrderPushdownResult<Arc<dyn ExecutionPlan>>> {
        let is_open = |sort: &PhysicalSortExpr| {
            sort.expr
                .downcast_ref::<Column>()
                .is_some_and(|column| self.is_open(column.index()))
        };
        if !order.iter().all(is_open) {
            return Ok(SortOrderPushdownResult::Unsupported);
        }
        Ok(match self.input.try_pushdown_sort(order)? {
            SortOrderPushdownResult::Exact { inner } => SortOrderPushdownResult::Exact {
                inner: self.over(inner)?,
            },
            SortOrderPushdownResult::Inexact { inner } => SortOrderPushdownResult::Inexact {
                inner: self.over(inner)?,
            },
            SortOrderPushdownResult::Unsupported => SortOrderPushdownResult::Unsupported,
        })
    }

    fn with_preserve_order(&self, preserve_order: bool) -> Option<Arc<dyn ExecutionPlan>> {
        self.over(self.input.with_preserve_order(preserve_order)?).ok()
    }
}

/// An estimate is enough to order joins, and no aggregate is ever answered from one.
fn estimate(column: &ColumnStatistics) -> ColumnStatistics {
    ColumnStatistics {
        null_count: rounded(column.null_count),
        max_value: column.max_value.clone().to_inexact(),
        min_value: column.min_value.clone().to_inexact(),
        sum_value: Precision::Absent,
        distinct_count: rounded(column.distinct_count),
        byte_size: Precision::Absent,
    }
}

/// About how wide a row is, told from its types alone: how long hidden values are must not choose between plans.
fn row_bytes(schema: &Schema) -> usize {
    const WIDE: usize = 32;
    let width = |field: &FieldRef| field.data_type().primitive_width().unwrap_or(WIDE);
    schema.fields().iter().map(width).sum()
}

/// Rounds up to a power of two, so that a few hidden rows more or less do not change a plan.
fn rounded(count: Precision<usize>) -> Precision<usize> {
    match count.get_value() {
        None => Precision::Absent,
        Some(0) => Precision::Inexact(0),
        Some(count) => Precision::Inexact(count.checked_next_power_of_two().unwrap_or(usize::MAX)),
    }
}

struct BarrierStream {
    input: SendableRecordBatchStream,
    seal: Arc<Seal>,
    columns: Arc<[BarrierColumn]>,
    metrics: BaselineMetrics,
}

impl Stream for BarrierStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.input.poll_next_unpin(context);
        let polled = polled
            .map(|next| next.map(|batch| Ok(without_leftovers(batch?, &self.columns)?)))
            .map_err(|error| GovernedError::hide(&self.seal.address, error));
        self.metrics.record_poll(polled)
    }
}

impl RecordBatchStream for BarrierStream {
    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }
}

/// An error from below a barrier. Its text says which table, never why: the cause may carry hidden values.
#[derive(Debug)]
pub struct GovernedError {
    address: Address,
    cause: Box<DataFusionError>,
    is_of_statement: bool,
}

impl GovernedError {
    /// The governed table.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What went wrong, for the operator's log only.
    pub fn cause(&self) -> &DataFusionError {
        &self.cause
    }

    /// Whether a statement failed that holds the table behind a fence. What a policy has inside cannot fail to be computed; what a user computes outside of it can.
    pub fn is_of_statement(&self) -> bool {
        self.is_of_statement
    }

    /// Finds the error from below a barrier inside `error`.
    pub fn of(error: &DataFusionError) -> Option<&Self> {
        match error.find_root() {
            DataFusionError::External(inner) => inner.downcast_ref(),
            _ => None,
        }
    }

    /// Hides the text of `error` unless it cannot carry a value of the table.
    pub(crate) fn hide(address: &Address, error: DataFusionError) -> DataFusionError {
        Self::hidden(address, error, false)
    }

    /// The same for what a statement fails with that holds the table behind a fence.
    pub(crate) fn hide_statement(address: &Address, error: DataFusionError) -> DataFusionError {
        Self::hidden(address, error, true)
    }

    fn hidden(address: &Address, error: DataFusionError, is_of_statement: bool) -> DataFusionError {
        if says_nothing_of_values(error.find_root()) || Self::of(&error).is_some() {
            return error;
        }
        DataFusionError::External(Box::new(Self {
            address: address.clone(),
            cause: Box::new(error),
            is_of_statement,
        }))
    }
}

impl fmt::Display for GovernedError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "table `{}` could not be read under its policies; the cause is in the operator's log",
            self.address
        )
    }
}

// No `source`: whoever prints the chain of causes must not print this one.
impl std::error::Error for GovernedError {}

/// Errors of files, networks and memory. What evaluating an expression raises is not among them, wherever it is
/// wrapped: Parquet's reader evaluates pushed predicates and passes on what they raise.
fn says_nothing_of_values(error: &DataFusionError) -> bool {
    match error {
        DataFusionError::ResourcesExhausted(_) | DataFusionError::ObjectStore(_) => true,
        DataFusionError::IoError(error) => error.get_ref().is_none(),
        DataFusionError::ParquetError(error) => match error.as_ref() {
            ParquetError::External(inner) => inner.is::<object_store::Error>() || inner.is::<std::io::Error>(),
            ParquetError::ArrowError(_) => false,
            _ => true,
        },
        DataFusionError::ArrowError(error, _) => {
            matches!(
                error.as_ref(),
                ArrowError::IoError(..) | ArrowError::IpcError(_) | ArrowError::MemoryError(_)
            )
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_that_carry_no_value_keep_their_text() {
        let hidden = |error: DataFusionError| {
            GovernedError::of(&GovernedError::hide(&Address::new("d", "c", "t"), error)).is_some()
        };
        let cast = || ArrowError::CastError("Cannot cast string 'x' to value of Int32 type".to_owned());
        assert!(hidden(cast().into()));
        assert!(hidden(ParquetError::from(cast()).into()));
        assert!(hidden(DataFusionError::from(cast()).context("while reading")));
        assert!(hidden(DataFusionError::Execution("x".to_owned())));
        assert!(hidden(std::io::Error::other(cast()).into()));
        assert!(!hidden(ParquetError::EOF("the file ends too early".to_owned()).into()));
        assert!(!hidden(std::io::Error::from(std::io::ErrorKind::NotFound).into()));
        assert!(!hidden(DataFusionError::ResourcesExhausted("no memory".to_owned())));
    }
}

//! Long joins that let others run.
//!
//! A nested loop join compares every row of one side with a whole batch of the other before it looks up: with a long side and a filter that
//! nothing passes it holds its thread for hours, and neither a cancelled query nor a deadline is heard. In: a finished physical plan. Out: the
//! plan with a [`PacedExec`] under the probe side of such joins, which cuts batches as small as their work is long, and with cross joins
//! that give way between batches. Rows and their order stay as they are.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, Statistics, internal_datafusion_err};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::joins::{CrossJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use futures::{Stream, StreamExt};

/// The work between two looks is meant to be about this long.
const PACE: Duration = Duration::from_millis(20);

/// Gives long joins points at which they can be stopped.
#[derive(Debug, Default)]
pub struct PaceJoins;

impl PhysicalOptimizerRule for PaceJoins {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            if node.is::<CrossJoinExec>() {
                return Ok(Transformed::yes(
                    Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>
                ));
            }
            let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() else {
                return Ok(Transformed::no(node));
            };
            let sides = vec![
                Arc::clone(join.left()),
                Arc::new(PacedExec::new(Arc::clone(join.right()))) as Arc<dyn ExecutionPlan>,
            ];
            let keep = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
            Ok(Transformed::yes(node.replace_children(sides, keep)?))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "pace_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Cuts its input's batches so that whoever reads them comes back within a moment, and gives way to other tasks when that took long.
#[derive(Debug)]
pub(crate) struct PacedExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl PacedExec {
    /// Paces the reader of `input`.
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = Arc::clone(input.properties());
        Self { input, properties }
    }
}

impl DisplayAs for PacedExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacedExec")
    }
}

impl ExecutionPlan for PacedExec {
    fn name(&self) -> &'static str {
        "PacedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children
            .pop()
            .ok_or_else(|| internal_datafusion_err!("`PacedExec` has one child"))?;
        Ok(Arc::new(Self::new(input)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        Ok(Box::pin(Paced::new(self.input.execute(partition, context)?)))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let input = inputs.first();
        Ok(Arc::clone(input.ok_or_else(|| {
            internal_datafusion_err!("`PacedExec` has one child")
        })?))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}

/// The rows of one partition, a few at a time.
struct Paced {
    input: SendableRecordBatchStream,
    rest: Option<RecordBatch>,
    rows: usize,
    given: Option<Instant>,
    /// How long the reader has worked since it last gave way.
    worked: Duration,
}

impl Paced {
    fn new(input: SendableRecordBatchStream) -> Self {
        Self {
            input,
            rest: None,
            rows: 1,
            given: None,
            worked: Duration::ZERO,
        }
    }

    /// Learns from how long the reader worked on what it was given; true when it is to give way.
    fn learn(&mut self) -> bool {
        let Some(taken) = self.given.take().map(|given| given.elapsed()) else {
            return false;
        };
        match taken {
            taken if taken * 2 < PACE => self.rows = self.rows.saturating_mul(2),
            taken if taken > PACE * 2 => self.rows = (self.rows / 2).max(1),
            _ => {}
        }
        self.worked += taken;
        if self.worked < PACE {
            return false;
        }
        self.worked = Duration::ZERO;
        true
    }

    fn give(&mut self, batch: RecordBatch) -> RecordBatch {
        self.given = Some(Instant::now());
        if batch.num_rows() <= self.rows {
            return batch;
        }
        self.rest = Some(batch.slice(self.rows, batch.num_rows() - self.rows));
        batch.slice(0, self.rows)
    }
}

impl Stream for Paced {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.learn() {
            // The task comes back at once, after the others that wait for this thread; a cancelled one does not.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(rest) = self.rest.take() {
            return Poll::Ready(Some(Ok(self.give(rest))));
        }
        match self.input.poll_next_unpin(context) {
            Poll::Ready(Some(Ok(batch))) => Poll::Ready(Some(Ok(self.give(batch)))),
            other => other,
        }
    }
}

impl RecordBatchStream for Paced {
    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }
}

//! Metrics of a distributed query, with an end to the waiting.
//!
//! Workers send their metrics after the last batch, and a task that was lost never does; `datafusion-distributed` waits
//! for every one of them without a limit. In: a plan that was run. Out: the plan with its metrics, or the news that they
//! did not all arrive in time.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{RecordBatch, StringArray};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_datafusion_err, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
    displayable,
};
use datafusion_distributed::{
    DistributedExec, DistributedMetricsFormat, display_plan_ascii, explain_analyze,
    rewrite_distributed_plan_with_metrics,
};
use futures::{StreamExt, stream};

/// The plan with the metrics of all its tasks; `None` when they did not all arrive in time. A plan that was not
/// distributed is returned as it is.
pub async fn metrics_within(
    plan: &Arc<dyn ExecutionPlan>,
    format: DistributedMetricsFormat,
    within: Duration,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    match tokio::time::timeout(within, rewrite_distributed_plan_with_metrics(Arc::clone(plan), format)).await {
        Ok(plan) => plan.map(Some),
        Err(_) => Ok(None),
    }
}

/// Puts an end to the waiting of `EXPLAIN ANALYZE`: the plan of any other statement is returned as it is.
pub fn analyze_within(plan: Arc<dyn ExecutionPlan>, within: Duration) -> Arc<dyn ExecutionPlan> {
    let distributed = match plan.children().as_slice() {
        [input] if plan.name() == "DistributedAnalyzeExec" && input.is::<DistributedExec>() => Arc::clone(input),
        _ => return plan,
    };
    // The node is private; its one line says what was asked for.
    let verbose = displayable(plan.as_ref())
        .one_line()
        .to_string()
        .contains("verbose=true");
    Arc::new(AnalyzeWithin {
        input: distributed,
        properties: Arc::clone(plan.properties()),
        verbose,
        within,
    })
}

/// Runs a distributed query for its metrics.
#[derive(Debug)]
struct AnalyzeWithin {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    verbose: bool,
    within: Duration,
}

impl AnalyzeWithin {
    async fn explain(
        plan: Arc<dyn ExecutionPlan>,
        format: DistributedMetricsFormat,
        within: Duration,
    ) -> Result<String> {
        match tokio::time::timeout(within, explain_analyze(Arc::clone(&plan), format)).await {
            Ok(text) => text,
            Err(_) => Ok(format!(
                "metrics of some tasks did not arrive within {within:?}\n{}",
                display_plan_ascii(plan.as_ref(), false)
            )),
        }
    }
}

impl DisplayAs for AnalyzeWithin {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnalyzeWithin: verbose={}, within={:?}", self.verbose, self.within)
    }
}

impl ExecutionPlan for AnalyzeWithin {
    fn name(&self) -> &'static str {
        "AnalyzeWithin"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
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
            .ok_or_else(|| internal_datafusion_err!("`AnalyzeWithin` has one child"))?;
        let properties = Arc::clone(&self.properties);
        Ok(Arc::new(Self {
            input,
            properties,
            verbose: self.verbose,
            within: self.within,
        }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("`AnalyzeWithin` has no partition {partition}");
        }
        let mut batches = self.input.execute(0, context)?;
        let (input, schema, verbose, within) = (Arc::clone(&self.input), self.schema(), self.verbose, self.within);
        let answer = async move {
            let start = Instant::now();
            let mut rows = 0;
            while let Some(batch) = batches.next().await.transpose()? {
                rows += batch.num_rows();
            }
            let elapsed = start.elapsed();
            let plan = Self::explain(Arc::clone(&input), DistributedMetricsFormat::Aggregated, within).await?;
            let mut lines = vec![("Plan with Metrics", plan)];
            if verbose {
                let plan = Self::explain(input, DistributedMetricsFormat::PerTask, within).await?;
                lines.push(("Plan with Full Metrics", plan));
                lines.push(("Output Rows", rows.to_string()));
                lines.push(("Duration", format!("{elapsed:?}")));
            }
            batch_of(schema, lines)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            self.schema(),
            stream::once(answer),
        )))
    }
}

fn batch_of(schema: SchemaRef, lines: Vec<(&str, String)>) -> Result<RecordBatch> {
    let (types, plans): (Vec<&str>, Vec<String>) = lines.into_iter().unzip();
    Ok(RecordBatch::try_new(
        schema,
        vec![Arc::new(StringArray::from(types)), Arc::new(StringArray::from(plans))],
    )?)
}

//! Metrics of a distributed query, with an end to the waiting.
//!
//! Workers send their metrics after the last batch, and a task that was lost never does; `datafusion-distributed` waits
//! for every one of them without a limit. In: a plan that was run. Out: the plan with its metrics, or the news that they
//! did not all arrive in time.

use std::sync::Arc;
use std::time::Duration;

use datafusion::common::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::{DistributedMetricsFormat, rewrite_distributed_plan_with_metrics};

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

//! The first few rows of an order, kept from two wrong answers.
//!
//! 1. Where each partition has one value of a column, as the parts of a `UNION ALL` with a constant have, partitions are sorted without that
//!    column. The partitions of a sort that keeps the first rows tell each other how small the last of them is, and drop what is larger: without the
//!    column the rows of one partition push out those of another that come before them. Such a sort gets the whole order back.
//! 2. An aggregation that keeps the first few groups compares its keys with `==`, so that each NaN is a group of its own, or none is found
//!    and it panics. Keys that are floats are grouped as always.
//!
//! In and out: a physical plan.

use std::sync::Arc;

use datafusion::{
    common::{
        Result,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    physical_expr::{LexOrdering, equivalence::AcrossPartitions},
    physical_optimizer::{PhysicalOptimizerRule, topk_aggregation::TopKAggregation},
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties,
        aggregates::AggregateExec,
        execution_plan::replace_children_if_necessary,
        sorts::{sort::SortExec, sort_preserving_merge::SortPreservingMergeExec},
    },
};

/// Gives sorts that keep the first rows of all partitions the whole order of the rows.
#[derive(Debug, Default)]
pub(crate) struct OrderTopRows;

impl PhysicalOptimizerRule for OrderTopRows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        ordered(plan, None)
    }

    fn name(&self) -> &'static str {
        "order_top_rows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn ordered(plan: Arc<dyn ExecutionPlan>, merged_by: Option<&LexOrdering>) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = match plan.downcast_ref::<SortExec>() {
        Some(sort) if sort.fetch().is_some() && sort.preserve_partitioning() => with_whole_order(sort, merged_by),
        _ => plan,
    };
    let below = (plan.downcast_ref::<SortPreservingMergeExec>()).map(|merge| merge.expr().clone());
    let children = (plan.children().into_iter())
        .map(|child| ordered(Arc::clone(child), below.as_ref()))
        .collect::<Result<Vec<_>>>()?;
    replace_children_if_necessary(plan, children)
}

/// The order of the merge above, which knows the direction of what was left out. Where there is none, and something may have been left out, all rows
/// are sorted: the limit is above as well, since this one is of each partition.
fn with_whole_order(sort: &SortExec, merged_by: Option<&LexOrdering>) -> Arc<dyn ExecutionPlan> {
    let constants = sort.input().equivalence_properties().constants();
    let differ = (constants.iter()).any(|constant| constant.across_partitions == AcrossPartitions::Heterogeneous);
    let (order, fetch) = match merged_by {
        _ if !differ => (sort.expr().clone(), sort.fetch()),
        Some(order) => (order.clone(), sort.fetch()),
        None => (sort.expr().clone(), None),
    };
    Arc::new(
        SortExec::new(order, Arc::clone(sort.input()))
            .with_fetch(fetch)
            .with_preserve_partitioning(true),
    )
}

/// DataFusion's `TopKAggregation`, without keys that are floats.
#[derive(Debug, Default)]
pub(crate) struct GuardedTopGroups(TopKAggregation);

impl PhysicalOptimizerRule for GuardedTopGroups {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = self.0.optimize(plan, config)?;
        plan.transform_up(|node| {
            Ok(match node.downcast_ref::<AggregateExec>() {
                Some(aggregate) if is_ordered_by_floats(aggregate)? => {
                    Transformed::yes(Arc::new(aggregate.with_new_limit_options(None)))
                }
                _ => Transformed::no(node),
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

fn is_ordered_by_floats(aggregate: &AggregateExec) -> Result<bool> {
    if (aggregate.limit_options()).is_none_or(|limit| limit.descending.is_none()) {
        return Ok(false);
    }
    let schema = aggregate.input().schema();
    for (key, _) in aggregate.group_expr().expr() {
        if key.data_type(&schema)?.is_floating() {
            return Ok(true);
        }
    }
    Ok(false)
}

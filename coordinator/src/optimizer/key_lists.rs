//! Whether joins list the keys that they tell.
//!
//! To a depot a list of tens of thousands of keys is worth its making: it sends the rows of those only. To everything else it is work for nothing, and joins make
//! their lists before they know who listens. In: a finished plan. Out: how many keys a list of its joins may have.

use std::sync::Arc;

use datafusion::{
    common::{
        Result,
        config::OptimizerOptions,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    execution::config::SessionConfig,
    physical_plan::{
        ExecutionPlan,
        joins::HashJoinExec,
        statistics::{StatisticsArgs, StatisticsContext},
    },
};
use minerva_connectors::{MOST_KEYS, ScanExec};

/// So many keys are listed where a depot is told those of a join that is expected to have few: expectations are wrong, and lists of so many are cheap.
const SOME_KEYS: usize = 5_000;
/// What few are.
const FEW_ROWS: usize = 50;

/// Sets how many keys a list of the plan's joins may have, for the time when it runs.
pub(crate) fn limit_key_lists(plan: &Arc<dyn ExecutionPlan>, config: &mut SessionConfig) -> Result<()> {
    config
        .options_mut()
        .optimizer
        .hash_join_inlist_pushdown_max_distinct_values = most_keys(plan)?;
    Ok(())
}

/// The most keys that such a list may have: many where a depot is told keys of a join that may have many.
fn most_keys(plan: &Arc<dyn ExecutionPlan>) -> Result<usize> {
    let few = OptimizerOptions::default().hash_join_inlist_pushdown_max_distinct_values;
    let mut told = Vec::new();
    plan.apply(|node| {
        if node.is::<ScanExec>() {
            node.apply_expressions(&mut |filter| {
                told.extend(filter.expression_id());
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if told.is_empty() {
        return Ok(few);
    }
    let statistics = StatisticsContext::new();
    let mut most = SOME_KEYS;
    plan.apply(|node| {
        let Some(join) = node.downcast_ref::<HashJoinExec>() else {
            return Ok(TreeNodeRecursion::Continue);
        };
        let tells = node.dynamic_expressions_produced();
        let is_told = tells
            .iter()
            .any(|filter| filter.expression_id().is_some_and(|filter| told.contains(&filter)));
        // Of several keys a depot is told the ranges.
        if join.on().len() > 1 || !is_told {
            return Ok(TreeNodeRecursion::Continue);
        }
        let built = statistics
            .compute(join.left().as_ref(), &StatisticsArgs::new())?
            .num_rows;
        if built.get_value().is_some_and(|rows| *rows <= FEW_ROWS) {
            return Ok(TreeNodeRecursion::Continue);
        }
        most = MOST_KEYS;
        Ok(TreeNodeRecursion::Stop)
    })?;
    Ok(most)
}

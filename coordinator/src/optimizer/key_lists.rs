//! Whether joins list the keys that they tell.
//!
//! To a depot a list of tens of thousands of keys is worth its making: it sends the rows of those only. To a large file one of some thousands is: the other columns of its other rows
//! are not decoded. To everything else it is work for nothing, and joins make their lists before they know who listens. In: a finished plan. Out: how many keys a list of its joins may
//! have.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    common::{
        Result,
        config::OptimizerOptions,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    datasource::source::DataSourceExec,
    execution::config::SessionConfig,
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties,
        joins::{HashJoinExec, PartitionMode},
        statistics::{StatisticsArgs, StatisticsContext},
    },
};
use minerva_connectors::{FILE_ROWS_FOR_A_KEY, ScanExec};

/// So many keys are listed for files, and for a depot that is told those of a join which is expected to have few or too many: expectations are wrong, and lists of so
/// many are cheap.
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
    let statistics = StatisticsContext::new();
    let rows_of = |node: &dyn ExecutionPlan| -> Result<Option<usize>> {
        let found = statistics.compute(node, &StatisticsArgs::new())?;
        Ok(found.num_rows.get_value().copied())
    };
    let mut most = OptimizerOptions::default().hash_join_inlist_pushdown_max_distinct_values;
    // Who listens to which filter, and how many keys they can do with.
    let mut told: HashMap<u64, usize> = HashMap::new();
    plan.apply(|node| {
        let most_told = match node.downcast_ref::<ScanExec>() {
            Some(scan) => scan.most_told(),
            None if node.is::<DataSourceExec>() => {
                let rows = rows_of(node.as_ref())?.unwrap_or_default();
                (rows / FILE_ROWS_FOR_A_KEY).min(SOME_KEYS)
            }
            None => return Ok(TreeNodeRecursion::Continue),
        };
        node.apply_expressions(&mut |filter| {
            filter.apply(|part| {
                if let Some(part) = part.expression_id() {
                    let known = told.entry(part).or_default();
                    *known = most_told.max(*known);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    if told.is_empty() {
        return Ok(most);
    }
    plan.apply(|node| {
        // Of several keys only the ranges are told.
        let Some(join) = node.downcast_ref::<HashJoinExec>().filter(|join| join.on().len() == 1) else {
            return Ok(TreeNodeRecursion::Continue);
        };
        let tells = node.dynamic_expressions_produced();
        let tells = tells.iter().filter_map(|filter| told.get(&filter.expression_id()?));
        if let Some(most_told) = tells.max().copied() {
            let built = rows_of(join.left().as_ref())?;
            // Rows have keys in common, and are expected wrongly: twice as many as can be listed may still be few enough.
            let is_likely = built.is_none_or(|rows| rows > FEW_ROWS && rows / 2 <= most_told);
            let listed = if is_likely { most_told } else { SOME_KEYS.min(most_told) };
            // Each partition has a part of the keys, in a list of its own.
            let lists = match join.partition_mode() {
                PartitionMode::Partitioned => join.left().output_partitioning().partition_count(),
                PartitionMode::CollectLeft | PartitionMode::Auto => 1,
            };
            most = most.max(listed / lists.max(1));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(most)
}

//! Whether joins list the keys that they tell.
//!
//! To a depot a list of tens of thousands of keys is worth its making: it sends the rows of those only. To a large Parquet file one of some thousands is: the other columns of its other rows
//! are not decoded. To everything else it is work for nothing, and joins make their lists before they know who listens. In: a finished plan. Out: how many keys a list of its joins may
//! have.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    common::{
        Result,
        config::OptimizerOptions,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    datasource::{physical_plan::FileScanConfig, source::DataSourceExec},
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
    let mut most = OptimizerOptions::default().hash_join_inlist_pushdown_max_distinct_values;
    // Joins by what they tell. Of several keys only the ranges are told.
    let mut telling: HashMap<u64, &HashJoinExec> = HashMap::new();
    plan.apply(|node| {
        if let Some(join) = node.downcast_ref::<HashJoinExec>().filter(|join| join.on().len() == 1) {
            let tells = join.dynamic_expressions_produced();
            telling.extend(tells.iter().filter_map(|filter| Some((filter.expression_id()?, join))));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if telling.is_empty() {
        return Ok(most);
    }
    // How many keys who listens to each can do with.
    let mut told: HashMap<u64, usize> = HashMap::new();
    plan.apply(|node| {
        hear(node.as_ref(), &telling, &mut told)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    for (filter, most_told) in told {
        let Some(join) = telling.get(&filter) else { continue };
        // Rows have keys in common, and are expected wrongly: twice as many as can be listed may still be few enough.
        let is_likely = rows_of(join.left().as_ref()).is_none_or(|rows| rows > FEW_ROWS && rows / 2 <= most_told);
        let listed = if is_likely { most_told } else { SOME_KEYS.min(most_told) };
        // Each partition has a part of the keys, in a list of its own.
        let lists = match join.partition_mode() {
            PartitionMode::Partitioned => join.left().output_partitioning().partition_count(),
            PartitionMode::CollectLeft | PartitionMode::Auto => 1,
        };
        most = most.max(listed / lists.max(1));
    }
    Ok(most)
}

/// Notes how many keys a node can do with of what joins tell it.
fn hear(node: &dyn ExecutionPlan, telling: &HashMap<u64, &HashJoinExec>, told: &mut HashMap<u64, usize>) -> Result<()> {
    if !node.is::<ScanExec>() && !reads_parquet(node) {
        return Ok(());
    }
    let mut heard = Vec::new();
    node.apply_expressions(&mut |filter| {
        filter.apply(|part| {
            heard.extend(part.expression_id().filter(|part| telling.contains_key(part)));
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    if heard.is_empty() {
        return Ok(());
    }
    let most_told = match node.downcast_ref::<ScanExec>() {
        Some(scan) => scan.most_told(),
        None => (rows_of(node).unwrap_or_default() / FILE_ROWS_FOR_A_KEY).min(SOME_KEYS),
    };
    for filter in heard {
        let known = told.entry(filter).or_default();
        *known = most_told.max(*known);
    }
    Ok(())
}

fn reads_parquet(node: &dyn ExecutionPlan) -> bool {
    let source = node.downcast_ref::<DataSourceExec>().map(DataSourceExec::data_source);
    let files = source.and_then(|source| source.downcast_ref::<FileScanConfig>());
    files.is_some_and(|files| files.file_source().file_type() == "parquet")
}

/// How many rows a node is expected to have, if that is known.
fn rows_of(node: &dyn ExecutionPlan) -> Option<usize> {
    let found = StatisticsContext::new().compute(node, &StatisticsArgs::new()).ok()?;
    found.num_rows.get_value().copied()
}

//! The optimizer: DataFusion's rules, some of them guarded against wrong answers, a rule that keeps whole numbers from wrapping around, and the rule
//! that lets leakproof predicates through a policy's barrier.
//!
//! Out: the rules in their order. Deliberately absent: anything that enforces a policy; every rule here may be skipped without harm.

mod checked;
mod constant_filters;
mod decimal_places;
mod distinct_sums;
mod fences;
mod filters_by_place;
mod growth;
mod in_lists;
mod join_order;
mod key_lists;
mod multisets;
mod null_keys;
mod outer_types;
mod single_rows;
mod sound;
mod top_rows;

use std::sync::Arc;

use datafusion::{
    common::Result,
    logical_expr::LogicalPlan,
    optimizer::{Analyzer, AnalyzerRule, Optimizer, OptimizerRule},
    physical_optimizer::{PhysicalOptimizerRule, optimizer::PhysicalOptimizer},
};
use minerva_connectors::{Decision, PushDown};
use minerva_policy::PushLeakproofThroughBarrier;

use crate::session::Session;

use checked::CheckArithmetic;
use constant_filters::GuardedFilters;
use decimal_places::KnowDecimalPlaces;
use distinct_sums::GuardedDistinct;
use fences::Barriers;
use filters_by_place::PushFiltersByPlace;
use in_lists::GuardedSimplify;
use join_order::order_joins;
pub(crate) use key_lists::limit_key_lists;
use multisets::CountMultisets;
use null_keys::{GuardedCrossJoins, GuardedJoinKeys};
use outer_types::RefreshOuterTypes;
use single_rows::ExpectOneRow;
use sound::GuardedSoundness;
use top_rows::{GuardedTopGroups, OrderTopRows};

/// Rules that see the plan as SQL means it, before any other has changed it, and one that makes types fit again.
pub(crate) fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![
        Arc::new(CountMultisets),
        Arc::new(ExpectOneRow),
        Arc::new(KnowDecimalPlaces),
    ];
    rules.extend(Analyzer::new().rules);
    rules.push(Arc::new(RefreshOuterTypes::default()));
    rules
}

/// The logical optimizer's rules.
pub(crate) fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![Arc::new(CheckArithmetic)];
    for rule in Optimizer::new().rules {
        match rule.name() {
            "simplify_expressions" => rules.push(Arc::new(GuardedSimplify::default())),
            "eliminate_cross_join" => rules.push(Arc::new(GuardedCrossJoins::default())),
            "single_distinct_aggregation_to_group_by" => rules.push(Arc::new(GuardedDistinct::default())),
            "extract_equijoin_predicate" => rules.push(Arc::new(GuardedJoinKeys::default())),
            "push_down_filter" => {
                rules.push(Arc::new(GuardedFilters::default()));
                rules.push(Arc::new(PushLeakproofThroughBarrier));
            }
            _ => rules.push(rule),
        }
    }
    rules
}

/// The last rule: what a depot computes by itself, with governed tables behind fences; and what stayed here, and why.
pub(crate) fn push_down(plan: LogicalPlan, session: &Session) -> Result<(LogicalPlan, Vec<Decision>)> {
    // Barriers that are only weighed are none of the statement.
    let (weighed, barriers) = (Barriers::default(), Barriers::default());
    let rule = PushDown {
        table_of: &minerva_policy::open_table,
        fences: Some(&barriers),
        is_eager: &|depot| session.is_eager(depot),
        reads_only: false,
    };
    let plan = match session.orders_joins() {
        true => order_joins(
            plan,
            &PushDown {
                fences: Some(&weighed),
                ..rule
            },
        )?,
        false => plan,
    };
    rule.push(plan)
}

/// The physical optimizer's rules.
pub(crate) fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> = Vec::new();
    for rule in PhysicalOptimizer::new().rules {
        match rule.name() {
            "FilterPushdown" => rules.push(Arc::new(PushFiltersByPlace::of_plans())),
            "LimitAggregation" => rules.push(Arc::new(GuardedTopGroups::default())),
            "SanityCheckPlan" => rules.push(Arc::new(GuardedSoundness::default())),
            "FilterPushdown(Post)" => {
                // Sorts get the filters that they tell others while they run, and so must have their order before.
                rules.push(Arc::new(OrderTopRows));
                rules.push(Arc::new(PushFiltersByPlace::of_running_plans()));
            }
            _ => rules.push(rule),
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule that DataFusion has renamed would go unguarded.
    #[test]
    fn every_guard_has_found_its_rule() {
        let logical = |guard: &str| rules().iter().any(|rule| format!("{rule:?}").starts_with(guard));
        for guard in [
            "GuardedSimplify",
            "GuardedDistinct",
            "GuardedCrossJoins",
            "GuardedJoinKeys",
            "GuardedFilters",
            "PushLeakproofThroughBarrier",
        ] {
            assert!(logical(guard), "{guard}");
        }
        let physical: Vec<String> = physical_rules().iter().map(|rule| format!("{rule:?}")).collect();
        for guard in [
            "PushFiltersByPlace",
            "GuardedTopGroups",
            "OrderTopRows",
            "GuardedSoundness",
        ] {
            assert!(
                physical.iter().any(|rule| rule.starts_with(guard)),
                "{guard} in {physical:?}"
            );
        }
        assert_eq!(
            physical
                .iter()
                .filter(|rule| rule.starts_with("PushFiltersByPlace"))
                .count(),
            2
        );
    }
}

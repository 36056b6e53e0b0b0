//! The optimizer: DataFusion's rules, one of them guarded, a rule that keeps whole numbers from wrapping around, and the rule that lets
//! leakproof predicates through a policy's barrier.
//!
//! Out: the rules in their order. Deliberately absent: anything that enforces a policy; every rule here may be skipped without harm.

mod checked;
mod in_lists;
mod multisets;
mod single_rows;

use std::sync::Arc;

use datafusion::optimizer::{Analyzer, AnalyzerRule, Optimizer, OptimizerRule};
use minerva_policy::PushLeakproofThroughBarrier;

use checked::CheckArithmetic;
use in_lists::GuardedSimplify;
use multisets::CountMultisets;
use single_rows::ExpectOneRow;

/// Rules that see the plan as SQL means it, before any other has changed it.
pub(crate) fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![Arc::new(CountMultisets), Arc::new(ExpectOneRow)];
    rules.extend(Analyzer::new().rules);
    rules
}

/// The logical optimizer's rules.
pub(crate) fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![Arc::new(CheckArithmetic)];
    for rule in Optimizer::new().rules {
        match rule.name() {
            "simplify_expressions" => rules.push(Arc::new(GuardedSimplify::default())),
            "push_down_filter" => {
                rules.push(rule);
                rules.push(Arc::new(PushLeakproofThroughBarrier));
            }
            _ => rules.push(rule),
        }
    }
    rules
}

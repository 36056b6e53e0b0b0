//! The optimizer: DataFusion's rules, one of them guarded, a rule that keeps whole numbers from wrapping around, and the rule that lets
//! leakproof predicates through a policy's barrier.
//!
//! Out: the rules in their order. Deliberately absent: anything that enforces a policy; every rule here may be skipped without harm.

mod checked;
mod in_lists;

use std::sync::Arc;

use datafusion::optimizer::{Optimizer, OptimizerRule};
use minerva_policy::PushLeakproofThroughBarrier;

use checked::CheckArithmetic;
use in_lists::GuardedSimplify;

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

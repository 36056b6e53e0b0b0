//! Plans whose rows have the order that is needed.
//!
//! Where two columns of a union are one of its inputs, as in `SELECT a, a FROM t UNION ALL SELECT b, b FROM u ORDER BY 1, 2 DESC`, the inputs are sorted by that one, and the union
//! is not known to be in the order of both: DataFusion finds its own plan unsound. In and out: a physical plan; one that is unsound so is sorted once more.

use std::sync::Arc;

use datafusion::{
    common::{
        Result,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    physical_expr::LexOrdering,
    physical_optimizer::{PhysicalOptimizerRule, sanity_checker::SanityCheckPlan},
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties, execution_plan::replace_children_if_necessary, sorts::sort::SortExec,
    },
};

/// DataFusion's rule, which gets a second plan to look at.
#[derive(Debug, Default)]
pub(crate) struct GuardedSoundness(SanityCheckPlan);

impl PhysicalOptimizerRule for GuardedSoundness {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        match self.0.optimize(Arc::clone(&plan), config) {
            Err(_) => self.0.optimize(sorted_where_needed(plan)?, config),
            sound => sound,
        }
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn sorted_where_needed(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        let needed = node.required_input_ordering();
        let mut children = Vec::with_capacity(needed.len());
        for (child, needed) in node.children().into_iter().zip(needed) {
            let mut child = Arc::clone(child);
            if let Some(needed) = needed {
                let needed = needed.into_single();
                if !child
                    .equivalence_properties()
                    .ordering_satisfy_requirement(needed.clone())?
                {
                    let sort = SortExec::new(LexOrdering::from(needed), child).with_preserve_partitioning(true);
                    child = Arc::new(sort);
                }
            }
            children.push(child);
        }
        replace_children_if_necessary(node, children).map(Transformed::yes)
    })
    .data()
}

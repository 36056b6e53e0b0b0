//! Conditions that no column is part of, above an aggregate.
//!
//! An aggregate without groups has a row where its input has none, and so has one with an empty grouping set. DataFusion moves a condition below an aggregate where all
//! of its columns are groups: of a condition without columns, as `HAVING (SELECT max(a) FROM t) < 0`, that is always so, and the row that it should leave out is there.
//! What is true of a row by chance is not true of its group either. In and out: one plan node; such a condition stays where it is.

use std::sync::Arc;

use datafusion::{
    common::{Result, tree_node::Transformed},
    logical_expr::{
        Expr, Filter, LogicalPlan,
        utils::{conjunction, split_conjunction},
    },
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule, push_down_filter::PushDownFilter},
};

/// DataFusion's rule, which is kept from conditions that aggregates have rows in spite of.
#[derive(Debug, Default)]
pub(crate) struct GuardedFilters(PushDownFilter);

impl OptimizerRule for GuardedFilters {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let Some((kept, others, aggregate)) = apart(&plan) else {
            return self.0.rewrite(plan, config);
        };
        let (Some(kept), Some(others)) = (conjunction(kept), conjunction(others)) else {
            return Ok(Transformed::no(plan));
        };
        let below = Filter::try_new(others, aggregate)?;
        let pushed = self.0.rewrite(LogicalPlan::Filter(below), config)?;
        match pushed.transformed {
            true => pushed.map_data(|below| Ok(LogicalPlan::Filter(Filter::try_new(kept, Arc::new(below))?))),
            false => Ok(Transformed::no(plan)),
        }
    }
}

/// The conditions that stay above an aggregate, the others, and the aggregate; nothing where none has to stay.
fn apart(plan: &LogicalPlan) -> Option<(Vec<Expr>, Vec<Expr>, Arc<LogicalPlan>)> {
    let LogicalPlan::Filter(filter) = plan else {
        return None;
    };
    let (mut filter, mut predicates) = (filter, vec![&filter.predicate]);
    // DataFusion's rule takes filters on filters together.
    while let LogicalPlan::Filter(below) = filter.input.as_ref() {
        filter = below;
        predicates.push(&filter.predicate);
    }
    if !matches!(filter.input.as_ref(), LogicalPlan::Aggregate(_)) {
        return None;
    }
    let parts = predicates.into_iter().flat_map(split_conjunction).cloned();
    let stays = |part: &Expr| part.column_refs().is_empty() || part.is_volatile();
    let (kept, others): (Vec<Expr>, Vec<Expr>) = parts.partition(stays);
    (!kept.is_empty()).then(|| (kept, others, Arc::clone(&filter.input)))
}

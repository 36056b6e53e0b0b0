//! Joins in which NULL equals NULL, kept to themselves.
//!
//! A join says once for all its keys whether NULL equals NULL. DataFusion joins the inputs of neighbouring inner joins anew, with what the topmost
//! of them says; and it gives a join on `IS NOT DISTINCT FROM` further keys that are compared with `=`. In both, NULL equals NULL where it must not.
//! In and out: one plan node. Deliberately absent: any joining of our own.

use datafusion::{
    common::{
        JoinType, NullEquality, Result,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{Join, LogicalPlan},
    optimizer::{
        ApplyOrder, OptimizerConfig, OptimizerRule, eliminate_cross_join::EliminateCrossJoin,
        extract_equijoin_predicate::ExtractEquijoinPredicate,
    },
};

/// DataFusion's rule, which leaves joins alone in which NULL equals NULL: it takes such a join for an outer one.
#[derive(Debug, Default)]
pub(crate) struct GuardedCrossJoins(EliminateCrossJoin);

impl OptimizerRule for GuardedCrossJoins {
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
        let hidden = plan.transform_up_with_subqueries(|node| {
            Ok(match node {
                LogicalPlan::Join(join) if is_inner_with_nulls(&join) => Transformed::yes(hide(join)),
                node => Transformed::no(node),
            })
        })?;
        let is_hidden = hidden.transformed;
        let rewritten = self.0.rewrite(hidden.data, config)?;
        if !is_hidden {
            return Ok(rewritten);
        }
        rewritten.transform_data(unhide)
    }
}

fn is_inner_with_nulls(join: &Join) -> bool {
    join.join_type == JoinType::Inner && join.null_equality == NullEquality::NullEqualsNull
}

/// The mark of a hidden join: no other is both.
fn is_mark(join: &Join) -> bool {
    join.join_type == JoinType::Full && join.null_aware
}

fn hide(join: Join) -> LogicalPlan {
    LogicalPlan::Join(Join {
        join_type: JoinType::Full,
        null_aware: true,
        ..join
    })
}

/// Nodes above may have learned from the outer join that columns may be NULL.
fn unhide(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let plan = plan
        .map_subqueries(unhide)?
        .transform_sibling(|plan| plan.map_children(unhide))?;
    let plan = match plan.transformed {
        true => plan.map_data(LogicalPlan::recompute_schema)?,
        false => plan,
    };
    plan.transform_data(|node| match node {
        LogicalPlan::Join(join) if is_mark(&join) => Join::try_new(
            join.left,
            join.right,
            join.on,
            join.filter,
            JoinType::Inner,
            join.join_constraint,
            NullEquality::NullEqualsNull,
            false,
        )
        .map(|join| Transformed::yes(LogicalPlan::Join(join))),
        node => Ok(Transformed::no(node)),
    })
}

/// DataFusion's rule, which gives no further keys to a join in which NULL equals NULL: what is compared with `=` stays a filter of the join.
#[derive(Debug, Default)]
pub(crate) struct GuardedJoinKeys(ExtractEquijoinPredicate);

impl OptimizerRule for GuardedJoinKeys {
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
        match plan {
            LogicalPlan::Join(join) if join.null_equality == NullEquality::NullEqualsNull => {
                Ok(Transformed::no(LogicalPlan::Join(join)))
            }
            plan => self.0.rewrite(plan, config),
        }
    }
}

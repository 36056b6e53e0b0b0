//! Whole numbers that do not wrap around.
//!
//! DataFusion computes `+`, `-` and `*` of whole numbers modulo their width. In: one plan node. Out: the same node, where those operators are
//! functions that report what does not fit. It runs before every other rule, so that constants are folded with them too. What a policy put
//! below its barrier is left alone: an error there would tell of hidden values.

use datafusion::{
    arrow::datatypes::DataType,
    common::{
        Result,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, expr_rewriter::NamePreserver, utils::merge_schema},
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
};
use minerva_cluster::checked;
use minerva_policy::PolicyBarrier;

/// Replaces arithmetic that wraps around.
#[derive(Debug, Default)]
pub(crate) struct CheckArithmetic;

impl OptimizerRule for CheckArithmetic {
    fn name(&self) -> &str {
        "check_arithmetic"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        above_barriers(plan)
    }
}

fn above_barriers(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    plan.transform_down_with_subqueries(|node| {
        let is_barrier =
            matches!(&node, LogicalPlan::Extension(extension) if extension.node.as_any().is::<PolicyBarrier>());
        match is_barrier {
            true => Ok(Transformed::new(node, false, TreeNodeRecursion::Jump)),
            false => check(node),
        }
    })
}

fn check(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = match node.inputs().as_slice() {
        [] => std::sync::Arc::clone(node.schema()),
        inputs => std::sync::Arc::new(merge_schema(inputs)),
    };
    let names = NamePreserver::new(&node);
    node.map_expressions(|expr| {
        let name = names.save(&expr);
        let checked = expr.transform_up(|expr| {
            let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else {
                return Ok(Transformed::no(expr));
            };
            let whole = |expr: &Expr| expr.get_type(schema.as_ref()).ok().filter(DataType::is_integer);
            match checked(op) {
                Some(function) if whole(&left).is_some() && whole(&left) == whole(&right) => {
                    Ok(Transformed::yes(function.call(vec![*left, *right])))
                }
                _ => Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
            }
        })?;
        Ok(checked.update_data(|expr| name.restore(expr)))
    })
}

//! `EXCEPT ALL` and `INTERSECT ALL` that count.
//!
//! DataFusion plans them as the joins of their distinct forms: a row that is twice on the left and once on the right is lost by `EXCEPT ALL`, where
//! SQL keeps one of the two. In: the plan as it comes from SQL. Out: the same joins over rows that are numbered among their equals, so that the
//! second of two equal rows meets the second on the other side or none. A plan that was changed already is left alone.

use std::sync::Arc;

use datafusion::{
    common::{
        Column, JoinType, NullEquality, Result,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult},
    },
    functions_window::expr_fn::row_number,
    logical_expr::{Expr, ExprFunctionExt, Join, LogicalPlan, LogicalPlanBuilder},
    optimizer::AnalyzerRule,
};

/// How the numbers of rows are called.
const LEFT: &str = "__minerva_number_on_the_left";
const RIGHT: &str = "__minerva_number_on_the_right";

/// Numbers equal rows on both sides of `EXCEPT ALL` and `INTERSECT ALL`.
#[derive(Debug, Default)]
pub(crate) struct CountMultisets;

impl AnalyzerRule for CountMultisets {
    fn name(&self) -> &str {
        "count_multisets"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Join(join) if is_multiset(&join) => counted(join).map(Transformed::yes),
            node => Ok(Transformed::no(node)),
        })
        .data()
    }
}

/// Whether a join came from such a set operation: no other compares whole rows in this way. On the left of a distinct one no row has an equal.
fn is_multiset(join: &Join) -> bool {
    let columns = join.left.schema().fields();
    matches!(join.join_type, JoinType::LeftAnti | JoinType::LeftSemi)
        && join.null_equality == NullEquality::NullEqualsNull
        && join.filter.is_none()
        && join.on.len() == columns.len()
        && !matches!(join.left.as_ref(), LogicalPlan::Distinct(_))
        && !columns.iter().any(|field| field.name() == LEFT)
}

fn counted(join: Join) -> Result<LogicalPlan> {
    let shown: Vec<Expr> = join.left.schema().columns().into_iter().map(Expr::Column).collect();
    let (left_keys, right_keys): (Vec<Expr>, Vec<Expr>) = join.on.iter().cloned().unzip();
    let left = numbered(&join.left, left_keys, LEFT)?;
    let right = numbered(&join.right, right_keys, RIGHT)?;
    let number = |name: &str| Expr::Column(Column::from_name(name));
    let on = join.on.into_iter().chain([(number(LEFT), number(RIGHT))]).collect();
    let join = Join::try_new(
        Arc::new(left),
        Arc::new(right),
        on,
        None,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    LogicalPlanBuilder::from(LogicalPlan::Join(join))
        .project(shown)?
        .build()
}

/// The rows of a plan, each with its number among those that are equal to it.
fn numbered(plan: &Arc<LogicalPlan>, keys: Vec<Expr>, name: &str) -> Result<LogicalPlan> {
    let number = row_number().partition_by(keys).build()?;
    let called = Column::from_name(number.schema_name().to_string());
    let columns = plan.schema().columns().into_iter().map(Expr::Column);
    let columns: Vec<Expr> = columns.chain([Expr::Column(called).alias(name)]).collect();
    LogicalPlanBuilder::from(plan.as_ref().clone())
        .window(vec![number])?
        .project(columns)?
        .build()
}

//! Subqueries as values have one row at most.
//!
//! A plan that is cut into stages has such subqueries as joins, in which a second row would be a second row of the result instead of an error. In: the
//! plan as it comes from SQL. Out: the same, where a subquery that may have several rows counts them and says so. Those that refer to what is outside
//! are left to DataFusion, which takes them only where they have one row.

use std::sync::Arc;

use datafusion::{
    common::{
        Result,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    functions_aggregate::{expr_fn::count, first_last::first_value},
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Subquery, col, lit},
    optimizer::AnalyzerRule,
};
use minerva_cluster::only_row;

const ROWS: &str = "__minerva_rows";
const FIRST: &str = "__minerva_first";

/// Guards subqueries that are used as values.
#[derive(Debug, Default)]
pub(crate) struct ExpectOneRow;

impl AnalyzerRule for ExpectOneRow {
    fn name(&self) -> &str {
        "expect_one_row"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            node.map_expressions(|expr| {
                expr.transform_up(|expr| match expr {
                    Expr::ScalarSubquery(subquery) if may_have_several(&subquery) => {
                        guarded(subquery).map(Transformed::yes)
                    }
                    expr => Ok(Transformed::no(expr)),
                })
            })
        })
        .data()
    }
}

fn may_have_several(subquery: &Subquery) -> bool {
    subquery.outer_ref_columns.is_empty()
        && subquery.subquery.schema().fields().len() == 1
        && subquery.subquery.max_rows().is_none_or(|rows| rows > 1)
}

fn guarded(subquery: Subquery) -> Result<Expr> {
    let plan = subquery.subquery.as_ref();
    let Some(column) = plan.schema().columns().into_iter().next() else {
        return Ok(Expr::ScalarSubquery(subquery));
    };
    let name = column.name.clone();
    let counted = LogicalPlanBuilder::from(plan.clone())
        .aggregate(
            Vec::<Expr>::new(),
            vec![
                count(lit(1)).alias(ROWS),
                first_value(Expr::Column(column), vec![]).alias(FIRST),
            ],
        )?
        .project(vec![only_row().call(vec![col(ROWS), col(FIRST)]).alias(name)])?
        .build()?;
    Ok(Expr::ScalarSubquery(Subquery {
        subquery: Arc::new(counted),
        ..subquery
    }))
}

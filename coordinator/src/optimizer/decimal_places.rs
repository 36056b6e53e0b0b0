//! Numbers of decimal places that are known while types are found.
//!
//! `round(d, 1)` of a decimal has as many places as its literal says. DataFusion casts that literal to `Int32` and finds the types of comparisons while
//! the cast hides it: `round(d, 1) < 0.26` compares decimals of two scales, which fails when it runs. In: the plan as it comes from SQL. Out: the
//! same with literals of the type that the function wants, called as before.

use datafusion::{
    common::{
        Result, ScalarValue,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    logical_expr::{Expr, LogicalPlan, expr_rewriter::NamePreserver},
    optimizer::AnalyzerRule,
};

/// Writes the places of `round` as the function wants them.
#[derive(Debug, Default)]
pub(crate) struct KnowDecimalPlaces;

impl AnalyzerRule for KnowDecimalPlaces {
    fn name(&self) -> &str {
        "know_decimal_places"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let known = expr.transform_up(known)?;
                Ok(known.update_data(|expr| name.restore(expr)))
            })
        })
        .data()
    }
}

fn known(expr: Expr) -> Result<Transformed<Expr>> {
    let Expr::ScalarFunction(mut function) = expr else {
        return Ok(Transformed::no(expr));
    };
    let places = match (function.func.name(), function.args.get(1)) {
        ("round", Some(places)) => whole(places).and_then(|places| i32::try_from(places).ok()),
        _ => None,
    };
    match (places, function.args.get_mut(1)) {
        (Some(places), Some(written)) => {
            *written = Expr::Literal(ScalarValue::Int32(Some(places)), None);
            Ok(Transformed::yes(Expr::ScalarFunction(function)))
        }
        _ => Ok(Transformed::no(Expr::ScalarFunction(function))),
    }
}

/// The whole number that is written, with its sign.
fn whole(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::Int64(number), _) => *number,
        Expr::Negative(number) => whole(number).and_then(i64::checked_neg),
        _ => None,
    }
}

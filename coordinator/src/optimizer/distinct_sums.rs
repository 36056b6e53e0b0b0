//! Sums of decimals beside an aggregate of distinct values.
//!
//! DataFusion computes `sum(DISTINCT a)` over groups of `a`, and `sum(d)` beside it as a sum of those groups' sums. The sum of decimals has ten more digits than
//! they have, and so its sum has twenty more: not the type that the rest of the plan was made for, which fails when it compares. In and out: one plan node;
//! with such a sum it is computed as it stands.

use datafusion::{
    arrow::datatypes::DataType,
    common::{Result, tree_node::Transformed},
    logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan},
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule, single_distinct_to_groupby::SingleDistinctToGroupBy},
};

/// DataFusion's rule, which is kept from sums of decimals.
#[derive(Debug, Default)]
pub(crate) struct GuardedDistinct(SingleDistinctToGroupBy);

impl OptimizerRule for GuardedDistinct {
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
            LogicalPlan::Aggregate(aggregate) if sums_decimals(&aggregate) => {
                Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)))
            }
            plan => self.0.rewrite(plan, config),
        }
    }
}

fn sums_decimals(aggregate: &Aggregate) -> bool {
    let is_decimal = |expr: &Expr| {
        (expr.get_type(aggregate.input.schema().as_ref())).is_ok_and(|data_type: DataType| data_type.is_decimal())
    };
    (aggregate.aggr_expr.iter()).any(|expr| match expr {
        Expr::AggregateFunction(function) => {
            function.func.name() == "sum" && !function.params.distinct && function.params.args.iter().any(is_decimal)
        }
        _ => false,
    })
}

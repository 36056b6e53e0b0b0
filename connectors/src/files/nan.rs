//! Filters that a footer cannot decide because of NaN.
//!
//! Parquet's smallest and largest values leave NaN out, while queries count it as the largest number: a row group with the
//! numbers from 1 to 3 may hold a row for which `x > 5` is true. In: a filter. Out: whether it may be true of NaN; such a
//! filter must not choose what is read.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, Literal};

/// Whether `filter`, over the columns of `schema`, may be true of a row because of a NaN in it.
pub(super) fn may_be_true_of_nan(filter: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    if !reads_floats(filter, schema) {
        return false;
    }
    if let Some(binary) = filter.downcast_ref::<BinaryExpr>() {
        return match binary.op() {
            Operator::And | Operator::Or => {
                may_be_true_of_nan(binary.left(), schema) || may_be_true_of_nan(binary.right(), schema)
            }
            Operator::Lt | Operator::LtEq => !(is_column(binary.left()) && is_number(binary.right())),
            Operator::Gt | Operator::GtEq => !(is_number(binary.left()) && is_column(binary.right())),
            Operator::Eq => {
                let one_way = is_column(binary.left()) && is_number(binary.right());
                let other_way = is_number(binary.left()) && is_column(binary.right());
                !(one_way || other_way)
            }
            _ => true,
        };
    }
    if let Some(list) = filter.downcast_ref::<InListExpr>() {
        return list.negated() || !is_column(list.expr()) || !list.list().iter().all(is_number);
    }
    if let Some(test) = filter.downcast_ref::<IsNullExpr>() {
        return !is_column(test.arg());
    }
    if let Some(test) = filter.downcast_ref::<IsNotNullExpr>() {
        // NaN is not NULL; the count of NULLs, which decides it, counts it right.
        return !is_column(test.arg());
    }
    true
}

fn reads_floats(filter: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    let mut found = false;
    let walked = filter.apply(|expr| {
        if let Some(column) = expr.downcast_ref::<Column>() {
            found |= schema
                .fields()
                .get(column.index())
                .is_none_or(|field| holds_floats(field.data_type()));
        }
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    });
    walked.is_err() || found
}

/// Whether there is a floating point number in a value of this type.
pub(super) fn holds_floats(data_type: &DataType) -> bool {
    match data_type {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => true,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => holds_floats(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| holds_floats(field.data_type())),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| holds_floats(field.data_type())),
        DataType::Dictionary(_, values) => holds_floats(values),
        DataType::RunEndEncoded(_, values) => holds_floats(values.data_type()),
        _ => false,
    }
}

fn is_column(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.is::<Column>()
}

fn is_number(expr: &Arc<dyn PhysicalExpr>) -> bool {
    match expr.downcast_ref::<Literal>().map(Literal::value) {
        Some(ScalarValue::Float64(Some(value))) => !value.is_nan(),
        Some(ScalarValue::Float32(Some(value))) => !value.is_nan(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use datafusion::common::DFSchema;
    use datafusion::logical_expr::Expr;
    use datafusion::logical_expr::execution_props::ExecutionProps;
    use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
    use datafusion::physical_expr::create_physical_expr;
    use datafusion::prelude::{col, lit};

    use super::*;

    #[test]
    fn only_what_is_false_of_nan_may_choose() {
        let fields = vec![
            Field::new("x", DataType::Float64, true),
            Field::new("n", DataType::Int64, true),
        ];
        let schema = Schema::new(fields);
        let check = |filter: Expr, expected: bool| {
            let described = DFSchema::try_from(schema.clone()).unwrap();
            let (properties, context) = (ExecutionProps::new(), PhysicalPlanningContext::default());
            let physical = create_physical_expr(&filter, &described, &properties, &context).unwrap();
            assert_eq!(may_be_true_of_nan(&physical, &schema), expected, "{filter}");
        };
        check(col("x").lt(lit(5.0)), false);
        check(lit(5.0).gt_eq(col("x")), false);
        check(col("x").eq(lit(5.0)), false);
        check(col("x").is_null(), false);
        check(col("x").lt(lit(5.0)).and(col("n").gt(lit(1_i64))), false);
        check(col("n").gt(lit(5_i64)), false);
        check(col("x").gt(lit(5.0)), true);
        check(lit(5.0).lt(col("x")), true);
        check(col("x").not_eq(lit(5.0)), true);
        check(col("x").eq(lit(f64::NAN)), true);
        check(col("x").lt(lit(f64::NAN)), true);
        check(col("x").lt(lit(5.0)).or(col("x").gt(lit(7.0))), true);
        check((col("x") + lit(1.0)).lt(lit(5.0)), true);
        check(col("x").in_list(vec![lit(1.0), lit(2.0)], false), false);
        check(col("x").in_list(vec![lit(1.0), lit(2.0)], true), true);
    }
}

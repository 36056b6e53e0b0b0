//! DataFusion's expression simplifier, kept from three wrong answers.
//!
//! 1. `a NOT IN (3, -1) OR a NOT IN (5, 1)` is merged into `TRUE` and `a IN (3) AND a IN (5)` into `FALSE`, although both are NULL where
//!    `a` is NULL. Lists over the same value are therefore hidden from each other while the simplifier runs: the value is wrapped in a
//!    function that it does not know, one for each different list, and unwrapped afterwards.
//! 2. An IN list of floats is looked up by bits, so that `0.0` does not match `-0.0`. A list with one zero gets the other too.
//! 3. A comparison of a year with a number becomes one of the moment with that year's first, which is NULL where a timestamp of nanoseconds has not that
//!    year: `date_part('year', t) > 1600` is never true. The part of a date is hidden in the same way where the year is so far away.
//!
//! In and out: one plan node. Deliberately absent: any simplification of our own.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    arrow::datatypes::{DataType, FieldRef},
    common::{
        Result, ScalarValue,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{
        BinaryExpr, Cast, ColumnarValue, Expr, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
        ScalarUDFImpl, Signature, Volatility,
        expr::{InList, ScalarFunction},
        lit,
    },
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule, simplify_expressions::SimplifyExpressions},
};

/// Simplifies expressions as DataFusion does, without the wrong answers.
#[derive(Debug, Default)]
pub(crate) struct GuardedSimplify(SimplifyExpressions);

impl OptimizerRule for GuardedSimplify {
    fn name(&self) -> &str {
        "simplify_expressions"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let guarded = plan.map_expressions(|expr| {
            hide_lists_from_each_other(expr)?
                .transform_data(hide_parts_from_far_years)?
                .transform_data(with_both_zeros)
        })?;
        let hidden = guarded.transformed;
        let simplified = self.0.rewrite(guarded.data, config)?;
        if !hidden {
            return Ok(simplified);
        }
        simplified.transform_data(|plan| plan.map_expressions(unhide))
    }
}

/// Which lists a value is compared with, by the text of the list.
type Lists = HashMap<Expr, Vec<Expr>>;

fn hide_lists_from_each_other(expr: Expr) -> Result<Transformed<Expr>> {
    let mut lists = Lists::new();
    collect(&expr, &mut lists)?;
    lists.retain(|_, groups| groups.len() > 1);
    if lists.is_empty() {
        return Ok(Transformed::no(expr));
    }
    expr.transform_down(|node| {
        let Some((value, group)) = group_of(&node) else {
            return Ok(Transformed::no(node));
        };
        let Some(id) = lists
            .get(&value)
            .and_then(|groups| groups.iter().position(|known| *known == group))
        else {
            return Ok(Transformed::no(node));
        };
        let hidden = hide_value(node, &value, id)?;
        Ok(Transformed::new(hidden, true, TreeNodeRecursion::Jump))
    })
}

fn collect(expr: &Expr, lists: &mut Lists) -> Result<()> {
    expr.apply(|node| {
        let Some((value, group)) = group_of(node) else {
            return Ok(TreeNodeRecursion::Continue);
        };
        let groups = lists.entry(value).or_default();
        if !groups.contains(&group) {
            groups.push(group);
        }
        Ok(TreeNodeRecursion::Jump)
    })?;
    Ok(())
}

/// A node that is an IN list, or that the simplifier makes one of, with the value that is looked up.
fn group_of(node: &Expr) -> Option<(Expr, Expr)> {
    match node {
        Expr::InList(InList { expr, .. }) if !is_hidden(expr) => Some((expr.as_ref().clone(), node.clone())),
        Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) => {
            chain_value(node, Operator::Or, Operator::Eq).map(|value| (value, node.clone()))
        }
        Expr::BinaryExpr(BinaryExpr { op: Operator::And, .. }) => {
            chain_value(node, Operator::And, Operator::NotEq).map(|value| (value, node.clone()))
        }
        _ => None,
    }
}

/// The one column that a chain of comparisons with literals (`a = 1 OR a = 2`) is about.
fn chain_value(node: &Expr, link: Operator, comparison: Operator) -> Option<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = node else {
        return None;
    };
    if *op == link {
        let (left, right) = (
            chain_value(left, link, comparison)?,
            chain_value(right, link, comparison)?,
        );
        return (left == right).then_some(left);
    }
    match (left.as_ref(), right.as_ref()) {
        (column @ Expr::Column(_), Expr::Literal(..)) | (Expr::Literal(..), column @ Expr::Column(_))
            if *op == comparison =>
        {
            Some(column.clone())
        }
        _ => None,
    }
}

fn hide_value(node: Expr, value: &Expr, id: usize) -> Result<Expr> {
    let hidden = hidden(value.clone(), id);
    let replaced = node.transform_down(|part| match part == *value {
        true => Ok(Transformed::new(hidden.clone(), true, TreeNodeRecursion::Jump)),
        false => Ok(Transformed::no(part)),
    })?;
    Ok(replaced.data)
}

fn hidden(value: Expr, id: usize) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(
        Arc::new(ScalarUDF::from(Hidden::default())),
        vec![value, lit(u64::try_from(id).unwrap_or(u64::MAX))],
    ))
}

fn is_hidden(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(function) if function.func.inner().downcast_ref::<Hidden>().is_some())
}

fn unhide(expr: Expr) -> Result<Transformed<Expr>> {
    expr.transform_up(|node| match node {
        Expr::ScalarFunction(mut function) if function.func.inner().downcast_ref::<Hidden>().is_some() => {
            Ok(Transformed::yes(function.args.swap_remove(0)))
        }
        other => Ok(Transformed::no(other)),
    })
}

/// The years whose beginnings and ends all timestamps have.
const NEAR_YEARS: std::ops::RangeInclusive<i32> = 1678..=2261;

fn hide_parts_from_far_years(expr: Expr) -> Result<Transformed<Expr>> {
    expr.transform_up(|node| match node {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if (is_part(&left) && !is_near(&right)) || (is_part(&right) && !is_near(&left)) =>
        {
            let (left, right) = (Box::new(hide_part(*left)), Box::new(hide_part(*right)));
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right })))
        }
        Expr::InList(list) if is_part(&list.expr) && !list.list.iter().all(is_near) => {
            let expr = Box::new(hide_part(*list.expr));
            Ok(Transformed::yes(Expr::InList(InList { expr, ..list })))
        }
        node => Ok(Transformed::no(node)),
    })
}

/// The part of a date, as it is or as another type of number.
fn is_part(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(function) => function.func.name() == "date_part",
        Expr::Cast(cast) => is_part(&cast.expr),
        _ => false,
    }
}

fn hide_part(expr: Expr) -> Expr {
    match expr {
        Expr::Cast(cast) => Expr::Cast(Cast {
            expr: Box::new(hide_part(*cast.expr)),
            ..cast
        }),
        part if is_part(&part) => hidden(part, 0),
        other => other,
    }
}

fn is_near(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(number, _) if number.data_type().is_integer() => {
            matches!(number.cast_to(&DataType::Int32), Ok(ScalarValue::Int32(Some(year))) if NEAR_YEARS.contains(&year))
        }
        Expr::Cast(cast) => is_near(&cast.expr),
        _ => false,
    }
}

fn with_both_zeros(expr: Expr) -> Result<Transformed<Expr>> {
    expr.transform_up(|node| {
        let Expr::InList(mut list) = node else {
            return Ok(Transformed::no(node));
        };
        let missing: Vec<Expr> = list
            .list
            .iter()
            .filter_map(other_zero)
            .filter(|zero| !list.list.contains(zero))
            .collect();
        match missing.into_iter().next() {
            Some(zero) => {
                list.list.push(zero);
                Ok(Transformed::yes(Expr::InList(list)))
            }
            None => Ok(Transformed::no(Expr::InList(list))),
        }
    })
}

/// `-0.0` for `0.0` and the other way round.
fn other_zero(expr: &Expr) -> Option<Expr> {
    let Expr::Literal(value, metadata) = expr else {
        return None;
    };
    let zero = match value {
        ScalarValue::Float16(Some(number)) if number.to_f32() == 0.0 => ScalarValue::Float16(Some(-*number)),
        ScalarValue::Float32(Some(number)) if *number == 0.0 => ScalarValue::Float32(Some(-number)),
        ScalarValue::Float64(Some(number)) if *number == 0.0 => ScalarValue::Float64(Some(-number)),
        _ => return None,
    };
    Some(Expr::Literal(zero, metadata.clone()))
}

/// The identity, named like its argument; it lives only while the simplifier runs.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Hidden {
    signature: Signature,
}

impl Default for Hidden {
    fn default() -> Self {
        Self {
            signature: Signature::any(2, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Hidden {
    fn name(&self) -> &str {
        "minerva_hidden"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args
            .first()
            .map(|value| value.schema_name().to_string())
            .unwrap_or_default())
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map(ToString::to_string).unwrap_or_default())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match args.arg_fields.first() {
            Some(field) => Ok(Arc::clone(field)),
            None => datafusion::common::internal_err!("`minerva_hidden` needs a value"),
        }
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(args.args.swap_remove(0))
    }
}

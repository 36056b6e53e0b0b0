//! DataFusion's expression simplifier, kept from three wrong answers.
//!
//! 1. `a NOT IN (3, -1) OR a NOT IN (5, 1)` is merged into `TRUE` and `a IN (3) AND a IN (5)` into `FALSE`, although both are NULL where
//!    `a` is NULL. Lists over the same value are therefore hidden from each other while the simplifier runs: the value is wrapped in a
//!    function that it does not know, one for each different list, and unwrapped afterwards.
//! 2. An IN list of floats is looked up by bits, so that `0.0` does not match `-0.0`. A list with one zero gets the other too.
//! 3. A comparison of a year with a number becomes one of the moment with that year's first, which is NULL where a timestamp of nanoseconds has not that
//!    year: `date_part('year', t) > 1600` is never true. The part of a date is hidden in the same way where the year is so far away.
//!
//! What would grow too far in it is refused before ([`super::growth`]).
//!
//! In and out: one plan node. Deliberately absent: any simplification of our own.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    arrow::datatypes::{DataType, FieldRef},
    common::{
        Result, ScalarValue,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion, TreeNodeVisitor},
    },
    logical_expr::{
        BinaryExpr, Cast, ColumnarValue, Expr, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
        ScalarUDFImpl, Signature, Volatility,
        expr::{InList, ScalarFunction},
        lit,
    },
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule, simplify_expressions::SimplifyExpressions},
};

use super::growth::refuse_growth;

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
        plan.apply_expressions(|expr| {
            refuse_growth(expr)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
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

fn hide_lists_from_each_other(expr: Expr) -> Result<Transformed<Expr>> {
    let hidden = lists_to_hide(&expr)?;
    if hidden.iter().all(|met| met.list.is_none()) {
        return Ok(Transformed::no(expr));
    }
    let mut hidden = hidden.into_iter().peekable();
    let mut next = 0;
    expr.transform_down(|node| {
        let Some(Met { nodes, list, .. }) = hidden.next_if(|met| met.at == next) else {
            next += 1;
            return Ok(Transformed::no(node));
        };
        next += nodes;
        match list {
            Some((value, id)) => {
                let node = hide_value(node, &value, id)?;
                Ok(Transformed::new(node, true, TreeNodeRecursion::Jump))
            }
            None => Ok(Transformed::new(node, false, TreeNodeRecursion::Jump)),
        }
    })
}

/// Where a group is met in an expression.
struct Met {
    at: usize,
    nodes: usize,
    /// Where its value is in another list as well, the value and the number of its list.
    list: Option<(Expr, usize)>,
}

fn lists_to_hide(expr: &Expr) -> Result<Vec<Met>> {
    let mut found = Found::default();
    expr.visit(&mut found)?;
    let mut lists: HashMap<&Expr, HashMap<&Expr, usize>> = HashMap::new();
    for group in &found.groups {
        let known = lists.entry(group.value).or_default();
        let id = known.len();
        known.entry(group.node).or_insert(id);
    }
    let list = |group: &Group<'_>| {
        let known = lists.get(group.value).filter(|known| known.len() > 1)?;
        Some((group.value.clone(), *known.get(group.node)?))
    };
    let met = |group: &Group<'_>| Met {
        at: group.at,
        nodes: group.nodes,
        list: list(group),
    };
    Ok(found.groups.iter().map(met).collect())
}

/// A node that is an IN list, or that the simplifier makes one of.
struct Group<'n> {
    /// How many nodes come before it, parents before children.
    at: usize,
    /// How many nodes it has, with itself.
    nodes: usize,
    /// The value that is looked up.
    value: &'n Expr,
    node: &'n Expr,
}

/// The groups of an expression, none of them inside another, in the order in which they are met. Chains are as long as somebody writes them: each node is
/// looked at once, after its children.
#[derive(Default)]
struct Found<'n> {
    nodes: usize,
    /// Of each node that is not at its end: its number, and what its children are.
    open: Vec<(usize, Vec<Option<Compared<'n>>>)>,
    groups: Vec<Group<'n>>,
}

/// One or several comparisons of one column with literals.
#[derive(Clone, Copy, PartialEq)]
struct Compared<'n> {
    column: &'n Expr,
    /// How several are joined.
    link: Operator,
}

impl<'n> TreeNodeVisitor<'n> for Found<'n> {
    type Node = Expr;

    fn f_down(&mut self, _node: &'n Expr) -> Result<TreeNodeRecursion> {
        self.open.push((self.nodes, Vec::new()));
        self.nodes += 1;
        Ok(TreeNodeRecursion::Continue)
    }

    fn f_up(&mut self, node: &'n Expr) -> Result<TreeNodeRecursion> {
        let Some((at, children)) = self.open.pop() else {
            return Ok(TreeNodeRecursion::Continue);
        };
        let mut compared = None;
        let mut value = None;
        match node {
            Expr::InList(InList { expr, .. }) if !is_hidden(expr) => value = Some(expr.as_ref()),
            Expr::BinaryExpr(BinaryExpr { op, .. }) if matches!(op, Operator::And | Operator::Or) => {
                if let [Some(left), Some(right)] = children.as_slice()
                    && left == right
                    && left.link == *op
                {
                    compared = Some(*left);
                    value = Some(left.column);
                }
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => compared = comparison(left, *op, right),
            _ => {}
        }
        if let Some(value) = value {
            // Those inside it are part of it.
            while self.groups.last().is_some_and(|inside| inside.at > at) {
                self.groups.pop();
            }
            self.groups.push(Group {
                at,
                nodes: self.nodes - at,
                value,
                node,
            });
        }
        if let Some((_, siblings)) = self.open.last_mut() {
            siblings.push(compared);
        }
        Ok(TreeNodeRecursion::Continue)
    }
}

/// A comparison that several of make a list, joined so.
fn comparison<'n>(left: &'n Expr, op: Operator, right: &'n Expr) -> Option<Compared<'n>> {
    let link = match op {
        Operator::Eq => Operator::Or,
        Operator::NotEq => Operator::And,
        _ => return None,
    };
    match (left, right) {
        (column @ Expr::Column(_), Expr::Literal(..)) | (Expr::Literal(..), column @ Expr::Column(_)) => {
            Some(Compared { column, link })
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

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, in_list, or};

    use super::*;

    #[test]
    fn lists_over_one_value_are_told_apart() {
        let list = |column: &str, numbers: &[i64]| {
            in_list(col(column), numbers.iter().map(|number| lit(*number)).collect(), false)
        };
        let equal = |column: &str, number: i64| col(column).eq(lit(number));
        let hidden = |expr: &Expr| -> Vec<Option<usize>> {
            let lists = lists_to_hide(expr).unwrap();
            lists.into_iter().map(|met| met.list.map(|(_, id)| id)).collect()
        };
        assert_eq!(hidden(&or(list("a", &[1]), list("b", &[1]))), [None, None]);
        assert_eq!(hidden(&or(list("a", &[1]), list("a", &[1]))), [None, None]);
        assert_eq!(hidden(&or(list("a", &[1]), list("a", &[2]))), [Some(0), Some(1)]);
        // A chain is one list, however long, and what it is in is none where another column is.
        let chain = or(or(equal("a", 1), equal("a", 2)), equal("a", 3));
        assert_eq!(hidden(&chain), [None]);
        assert_eq!(hidden(&or(chain.clone(), list("a", &[7]))), [Some(0), Some(1)]);
        assert_eq!(hidden(&or(chain.clone(), equal("b", 1))), [None]);
        let both = or(chain, list("a", &[7])).and(list("a", &[7]));
        assert_eq!(hidden(&both), [Some(0), Some(1), Some(1)]);
        let written = hide_lists_from_each_other(both).unwrap();
        assert!(written.transformed);
        assert_eq!(written.data.to_string().matches("minerva_hidden").count(), 3 + 1 + 1);
    }

    /// Each node of a chain is looked at once.
    #[test]
    fn long_chains_take_no_time() {
        let chain = || {
            let mut expr = col("other").eq(lit(0_i64));
            for number in 0..50_000_i64 {
                expr = or(expr, col("a").eq(lit(number)));
            }
            expr
        };
        let run = move || {
            let (mixed, same) = (chain(), or(col("a").eq(lit(-1_i64)), col("a").eq(lit(-2_i64))));
            let begun = std::time::Instant::now();
            assert!(!hide_lists_from_each_other(mixed).unwrap().transformed);
            assert!(!hide_lists_from_each_other(same).unwrap().transformed);
            begun.elapsed()
        };
        // Expressions are dropped and compared by recursion, which is not what is tried here.
        let thread = std::thread::Builder::new().stack_size(512 << 20);
        let took = thread.spawn(run).unwrap().join().unwrap();
        assert!(took < std::time::Duration::from_secs(5), "{took:?}");
    }
}

//! Expressions that the simplifier would make too large.
//!
//! In: an expression as it is written. Out: nothing, or the error that refuses it. The simplifier writes the operands of some functions twice (`coalesce(a, b)`
//! becomes `CASE WHEN a IS NOT NULL THEN a ELSE b END`), which doubles an expression with each that is inside another.

use datafusion::{
    common::{
        Result, plan_err,
        tree_node::{TreeNode, TreeNodeRecursion, TreeNodeVisitor},
    },
    logical_expr::Expr,
};

/// An expression may get so many nodes, or so many times as many as it is written with. Each rule looks at all of them.
const LARGEST_GROWN: u64 = 16_384;
const MOST_GROWTH: u64 = 16;

/// The simplifier writes their operands twice, but the last.
const WRITTEN_TWICE: [&str; 4] = ["coalesce", "nvl", "ifnull", "nvl2"];

/// Refuses an expression that would grow too far.
pub(super) fn refuse_growth(expr: &Expr) -> Result<()> {
    let mut growth = Growth::default();
    expr.visit(&mut growth)?;
    let sizes = growth.open.first().map(Vec::as_slice).unwrap_or_default();
    let size = sizes.iter().copied().fold(0, u64::saturating_add);
    if size > LARGEST_GROWN && size / MOST_GROWTH > growth.nodes {
        return plan_err!(
            "`coalesce`, `nvl`, `ifnull`, `nvl2` and `BETWEEN` are nested too deeply in one expression, which doubles with each of them; write one `coalesce` with \
             several arguments instead of one inside another"
        );
    }
    Ok(())
}

/// How many nodes an expression has, and how many it will have.
struct Growth {
    nodes: u64,
    /// Of each node that is not at its end, the sizes of its children; the first is above all.
    open: Vec<Vec<u64>>,
}

impl Default for Growth {
    fn default() -> Self {
        Self {
            nodes: 0,
            open: vec![Vec::new()],
        }
    }
}

impl<'n> TreeNodeVisitor<'n> for Growth {
    type Node = Expr;

    fn f_down(&mut self, _node: &'n Expr) -> Result<TreeNodeRecursion> {
        self.nodes += 1;
        self.open.push(Vec::new());
        Ok(TreeNodeRecursion::Continue)
    }

    fn f_up(&mut self, node: &'n Expr) -> Result<TreeNodeRecursion> {
        let sizes = self.open.pop().unwrap_or_default();
        let twice = match node {
            Expr::ScalarFunction(function) if WRITTEN_TWICE.contains(&function.func.name()) => {
                sizes.len().saturating_sub(1)
            }
            Expr::Between(_) => 1,
            _ => 0,
        };
        let of_child = |(at, size): (usize, u64)| match at < twice {
            true => size.saturating_mul(2),
            false => size,
        };
        let size = sizes
            .into_iter()
            .enumerate()
            .map(of_child)
            .fold(1_u64, u64::saturating_add);
        if let Some(siblings) = self.open.last_mut() {
            siblings.push(size);
        }
        Ok(TreeNodeRecursion::Continue)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, in_list, lit};

    use super::*;

    #[test]
    fn what_doubles_with_each_level_is_refused() {
        use datafusion::functions::core::expr_fn::{coalesce, nvl};
        let nested = |levels: usize, outer: &dyn Fn(Expr) -> Expr| (0..levels).fold(col("a"), |inner, _| outer(inner));
        let in_coalesce = |inner: Expr| coalesce(vec![inner, lit(1_i64)]);
        let in_nvl = |inner: Expr| nvl(inner + lit(1_i64), lit(1_i64));
        let in_between = |inner: Expr| inner.between(lit(false), lit(true));
        let last = |inner: Expr| coalesce(vec![lit(1_i64), col("b"), inner]);
        for (outer, most) in [
            (&in_coalesce as &dyn Fn(Expr) -> Expr, 10),
            (&in_nvl, 10),
            (&in_between, 10),
            (&last, 100),
        ] {
            assert!(refuse_growth(&nested(most, outer)).is_ok());
        }
        for outer in [&in_coalesce as &dyn Fn(Expr) -> Expr, &in_nvl, &in_between] {
            let error = refuse_growth(&nested(100, outer)).unwrap_err();
            assert!(error.to_string().contains("nested too deeply"), "{error}");
        }
        // What is long and does not double is none of this.
        let numbers = (0..100_000_i64).map(lit).collect();
        assert!(refuse_growth(&in_coalesce(in_list(col("a"), numbers, false))).is_ok());
        let numbers = (0..100_000_i64).map(lit).collect();
        assert!(refuse_growth(&in_list(in_coalesce(col("a")), numbers, false)).is_ok());
    }
}

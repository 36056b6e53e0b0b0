//! Which predicates may pass a policy barrier, and the optimizer rule that lets them.
//!
//! A predicate is leakproof when evaluating it on a hidden row can neither fail nor be observed: comparisons, `IN`,
//! `BETWEEN`, `IS [NOT] NULL`, `IS [NOT] DISTINCT FROM`, `LIKE` with a literal pattern and `AND`, `OR`, `NOT` of
//! these, over unmasked columns and literals of the same type. Arithmetic, functions, narrowing casts and everything
//! unknown are not. The rule only makes queries faster: without it every predicate stays above.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr::{Between, BinaryExpr, InList, Like};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, Extension, Filter, LogicalPlan, Operator};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions as physical;
use datafusion::scalar::ScalarValue;
use std::sync::Arc;

use crate::barrier::PolicyBarrier;

/// A pattern longer than this stays above: compiling it could fail, which would tell that there are rows.
const MAX_PATTERN_BYTES: usize = 1024;

/// Moves leakproof predicates from above a policy barrier to below it.
///
/// It stands directly after `push_down_filter`, which brings the predicates to the barrier and, in the optimizer's
/// next pass, takes them on from below it into the scan.
#[derive(Debug, Default)]
pub struct PushLeakproofThroughBarrier;

impl OptimizerRule for PushLeakproofThroughBarrier {
    fn name(&self) -> &str {
        "push_leakproof_through_barrier"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = plan else {
            return Ok(Transformed::no(plan));
        };
        let LogicalPlan::Extension(extension) = filter.input.as_ref() else {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        };
        let Some(barrier) = extension.node.as_any().downcast_ref::<PolicyBarrier>() else {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        };
        let open = |column: &Column| barrier.is_open(column);
        let (below, above): (Vec<Expr>, Vec<Expr>) = split_conjunction_owned(filter.predicate.clone())
            .into_iter()
            .partition(|predicate| is_leakproof(predicate, barrier.input().schema(), &open));
        if below.is_empty() {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        }
        let node = Arc::new(barrier.pass(below)?);
        let plan = LogicalPlan::Extension(Extension { node });
        Ok(Transformed::yes(match conjunction(above) {
            Some(above) => LogicalPlan::Filter(Filter::try_new(above, Arc::new(plan))?),
            None => plan,
        }))
    }
}

/// Whether `predicate` may be evaluated on rows that the user must not know of.
///
/// `open` tells which columns of `schema` are unmasked. A predicate without a column is not leakproof: it says
/// nothing about the rows, so there is nothing to gain.
pub fn is_leakproof(predicate: &Expr, schema: &DFSchema, open: &dyn Fn(&Column) -> bool) -> bool {
    let logical = Logical { schema, open };
    !predicate.column_refs().is_empty() && logical.safe(predicate)
}

struct Logical<'a> {
    schema: &'a DFSchema,
    open: &'a dyn Fn(&Column) -> bool,
}

impl Logical<'_> {
    fn safe(&self, predicate: &Expr) -> bool {
        match predicate {
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: Operator::And | Operator::Or,
                right,
            }) => self.safe(left) && self.safe(right),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => is_comparison(*op) && self.comparable(left, right),
            Expr::Not(inner)
            | Expr::IsTrue(inner)
            | Expr::IsFalse(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsNotUnknown(inner) => self.safe(inner),
            Expr::IsNull(inner) | Expr::IsNotNull(inner) => self.is_open_column(inner) || self.safe(inner),
            Expr::Between(Between { expr, low, high, .. }) => self.comparable(expr, low) && self.comparable(expr, high),
            Expr::InList(InList { expr, list, .. }) => {
                self.comparable(expr, expr)
                    && list
                        .iter()
                        .all(|item| matches!(item, Expr::Literal(..)) && self.comparable(expr, item))
            }
            Expr::Like(Like {
                expr,
                pattern,
                escape_char: None,
                case_insensitive: false,
                ..
            }) => {
                matches!(pattern.as_ref(), Expr::Literal(value, _) if is_short_pattern(value))
                    && self.operand(expr).is_some_and(|of| is_text(&of))
                    && self.comparable(expr, pattern)
            }
            Expr::Column(_) => self.operand(predicate) == Some(DataType::Boolean),
            Expr::Literal(ScalarValue::Boolean(_), _) => true,
            _ => false,
        }
    }

    fn comparable(&self, left: &Expr, right: &Expr) -> bool {
        match (self.operand(left), self.operand(right)) {
            (Some(left), Some(right)) => left == right && is_plain(&left),
            _ => false,
        }
    }

    /// The type of an operand that cannot fail.
    fn operand(&self, operand: &Expr) -> Option<DataType> {
        match operand {
            Expr::Literal(value, _) => Some(value.data_type()),
            Expr::Cast(Cast { expr, field }) if self.is_open_column(expr) => {
                let from = expr.get_type(self.schema).ok()?;
                is_lossless_cast(&from, field.data_type()).then(|| field.data_type().clone())
            }
            _ if self.is_open_column(operand) => operand.get_type(self.schema).ok(),
            _ => None,
        }
    }

    fn is_open_column(&self, operand: &Expr) -> bool {
        matches!(operand, Expr::Column(column) if self.schema.has_column(column) && (self.open)(column))
    }
}

/// The same question for a physical predicate; `open` tells which column indices are unmasked.
pub(crate) fn is_leakproof_physical(
    predicate: &Arc<dyn PhysicalExpr>,
    types: &dyn Fn(usize) -> Option<DataType>,
    open: &dyn Fn(usize) -> bool,
) -> bool {
    Physical { types, open }.safe(predicate)
}

struct Physical<'a> {
    types: &'a dyn Fn(usize) -> Option<DataType>,
    open: &'a dyn Fn(usize) -> bool,
}

impl Physical<'_> {
    fn safe(&self, predicate: &Arc<dyn PhysicalExpr>) -> bool {
        if let Some(binary) = predicate.downcast_ref::<physical::BinaryExpr>() {
            return match binary.op() {
                Operator::And | Operator::Or => self.safe(binary.left()) && self.safe(binary.right()),
                op => is_comparison(*op) && self.comparable(binary.left(), binary.right()),
            };
        }
        if let Some(not) = predicate.downcast_ref::<physical::NotExpr>() {
            return self.safe(not.arg());
        }
        if let Some(is_null) = predicate.downcast_ref::<physical::IsNullExpr>() {
            return self.open_column(is_null.arg()).is_some();
        }
        if let Some(is_not_null) = predicate.downcast_ref::<physical::IsNotNullExpr>() {
            return self.open_column(is_not_null.arg()).is_some();
        }
        if let Some(list) = predicate.downcast_ref::<physical::InListExpr>() {
            return self.comparable(list.expr(), list.expr())
                && list
                    .list()
                    .iter()
                    .all(|item| item.is::<physical::Literal>() && self.comparable(list.expr(), item));
        }
        if let Some(like) = predicate.downcast_ref::<physical::LikeExpr>() {
            let pattern = like.pattern().downcast_ref::<physical::Literal>();
            return !like.case_insensitive()
                && pattern.is_some_and(|pattern| is_short_pattern(pattern.value()))
                && self.operand(like.expr()).is_some_and(|of| is_text(&of))
                && self.comparable(like.expr(), like.pattern());
        }
        if predicate.is::<physical::DynamicFilterPhysicalExpr>() {
            // What a join or a top-k puts in later compares these children and looks them up; it computes nothing.
            let children = predicate.children();
            return !children.is_empty() && children.iter().all(|child| self.open_column(child).is_some());
        }
        false
    }

    fn comparable(&self, left: &Arc<dyn PhysicalExpr>, right: &Arc<dyn PhysicalExpr>) -> bool {
        match (self.operand(left), self.operand(right)) {
            (Some(left), Some(right)) => left == right && is_plain(&left),
            _ => false,
        }
    }

    fn operand(&self, operand: &Arc<dyn PhysicalExpr>) -> Option<DataType> {
        match operand.downcast_ref::<physical::Literal>() {
            Some(literal) => Some(literal.value().data_type()),
            None => self.open_column(operand),
        }
    }

    fn open_column(&self, operand: &Arc<dyn PhysicalExpr>) -> Option<DataType> {
        let index = operand.downcast_ref::<physical::Column>()?.index();
        if (self.open)(index) { (self.types)(index) } else { None }
    }
}

fn is_comparison(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

/// Types whose comparison is total.
fn is_plain(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => is_plain(value),
        DataType::Null | DataType::Interval(_) => false,
        other => !other.is_nested() && !matches!(other, DataType::RunEndEncoded(..)),
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_short_pattern(pattern: &ScalarValue) -> bool {
    pattern
        .try_as_str()
        .flatten()
        .is_some_and(|text| text.len() <= MAX_PATTERN_BYTES)
}

/// Casts that succeed for every value and keep its order.
fn is_lossless_cast(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Float32, Float64, Int8, Int16, Int32, Int64, LargeUtf8, UInt8, UInt16, UInt32, UInt64, Utf8, Utf8View,
    };
    matches!(
        (from, to),
        (Int8, Int16 | Int32 | Int64 | Float32 | Float64)
            | (Int16, Int32 | Int64 | Float32 | Float64)
            | (Int32, Int64 | Float64)
            | (
                UInt8,
                UInt16 | UInt32 | UInt64 | Int16 | Int32 | Int64 | Float32 | Float64
            )
            | (UInt16, UInt32 | UInt64 | Int32 | Int64 | Float32 | Float64)
            | (UInt32, UInt64 | Int64 | Float64)
            | (Float32, Float64)
            | (Utf8, LargeUtf8 | Utf8View)
            | (LargeUtf8, Utf8View)
    )
}

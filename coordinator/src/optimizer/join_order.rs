//! The order in which tables are joined.
//!
//! In: an optimised plan. Out: the same rows and columns, where inner joins of three inputs and more are done in the order that is expected to cost least. Tables
//! of one depot come together where their join can be computed there, however they were written. What is expected is what push-down expects
//! (`connectors/src/remote/weigh.rs`): of governed tables nothing but their number, so that no order tells of rows that a policy hides.
//!
//! The written order stays where something is not known, and where another one is not expected to be much better. No rows are joined that share no key, and
//! nothing is moved over a join that is no inner one, over conditions that may be different each time or may fail, or over a barrier.

mod graph;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, FieldRef},
    common::{
        Column, DFSchema, JoinConstraint, JoinType, NullEquality, Result, TableReference,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{
        Expr, ExprSchemable, Join, LogicalPlan, Projection,
        utils::{conjunction, split_conjunction},
    },
};
use minerva_connectors::PushDown;
use minerva_policy::cannot_fail;

use graph::{Graph, Order, Relations};

/// Another order has to be so many times better than the written one, and by so many microseconds.
const BETTER: f64 = 2.0;
const GAIN: f64 = 2_000.0;
/// Trees of more inputs stay as they are.
const MOST_INPUTS: usize = 64;

/// How much better an order has to be.
#[derive(Debug, Clone, Copy)]
struct Threshold {
    better: f64,
    gain: f64,
}

/// The plan with its joins in the order that is expected to cost least.
pub(super) fn order_joins(plan: LogicalPlan, weighing: &PushDown<'_>) -> Result<LogicalPlan> {
    let threshold = Threshold {
        better: BETTER,
        gain: GAIN,
    };
    match joins_in(&plan)? {
        0 | 1 => Ok(plan),
        _ => ordered(plan, weighing, threshold),
    }
}

/// How many inner joins there are.
fn joins_in(plan: &LogicalPlan) -> Result<usize> {
    let mut joins = 0;
    plan.apply_with_subqueries(|node| {
        joins += usize::from(matches!(node, LogicalPlan::Join(join) if is_free(join)));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(joins)
}

fn ordered(plan: LogicalPlan, weighing: &PushDown<'_>, threshold: Threshold) -> Result<LogicalPlan> {
    let ordered = plan.transform_down_with_subqueries(|node| {
        if !is_within(&node) {
            return Ok(Transformed::no(node));
        }
        // What is joined may have joins of its own.
        let node = node.transform_down(|node| {
            Ok(match is_within(&node) {
                true => Transformed::no(node),
                false => Transformed::new(ordered(node, weighing, threshold)?, true, TreeNodeRecursion::Jump),
            })
        });
        let node = node.data()?;
        let better = better(&node, weighing, threshold)?;
        Ok(Transformed::new(better.unwrap_or(node), true, TreeNodeRecursion::Jump))
    });
    ordered.data()
}

/// Whether the inputs of a join may be joined in any order.
fn is_free(join: &Join) -> bool {
    let keys = join.on.iter().flat_map(|(left, right)| [left, right]);
    join.join_type == JoinType::Inner
        && join.null_equality == NullEquality::NullEqualsNothing
        && !join.null_aware
        && !join.on.is_empty()
        && keys.chain(&join.filter).all(|expr| is_steady(expr, &join.schema))
}

/// Whether an expression says the same of the same row wherever it stands, and fails for none: what was to be joined first may have kept from it what it fails for.
fn is_steady(expr: &Expr, schema: &DFSchema) -> bool {
    let mut is_steady = true;
    // Errors do not occur.
    let _ = expr.apply(|part| {
        is_steady &= match part {
            Expr::Cast(cast) => cast
                .expr
                .get_type(schema)
                .is_ok_and(|from| from == *cast.field.data_type() || is_wider(&from, cast.field.data_type())),
            Expr::Case(_) => true,
            part => cannot_fail(part),
        };
        Ok(match is_steady {
            true => TreeNodeRecursion::Continue,
            false => TreeNodeRecursion::Stop,
        })
    });
    is_steady
}

/// Whether one type has every value of another.
fn is_wider(from: &DataType, to: &DataType) -> bool {
    let text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match (from, to) {
        (DataType::Decimal128(digits, scale), DataType::Decimal128(more, finer)) => {
            finer >= scale && i16::from(*more) - i16::from(*finer) >= i16::from(*digits) - i16::from(*scale)
        }
        (from, to) if from.is_signed_integer() && to.is_signed_integer() => {
            from.primitive_width() <= to.primitive_width()
        }
        (from, to) => text(from) && text(to),
    }
}

/// Whether a node is one of a tree of joins: a join, or what leaves columns or rows of one out.
fn is_within(node: &LogicalPlan) -> bool {
    match node {
        LogicalPlan::Join(join) => is_free(join),
        LogicalPlan::Projection(node) => {
            node.expr.iter().all(|expr| matches!(expr, Expr::Column(_))) && is_within(&node.input)
        }
        LogicalPlan::Filter(node) => is_steady(&node.predicate, node.input.schema()) && is_within(&node.input),
        _ => false,
    }
}

/// A tree of joins, taken apart.
#[derive(Default)]
struct Parts {
    inputs: Vec<LogicalPlan>,
    keys: Vec<(Expr, Expr)>,
    conditions: Vec<Expr>,
}

impl Parts {
    fn take(&mut self, plan: &LogicalPlan) -> Order {
        match plan {
            LogicalPlan::Join(join) if is_free(join) => {
                let (left, right) = (self.take(&join.left), self.take(&join.right));
                self.keys.extend(join.on.iter().cloned());
                let conditions = join.filter.iter().flat_map(split_conjunction);
                self.conditions.extend(conditions.cloned());
                Order::of(left, right)
            }
            LogicalPlan::Projection(node) if is_within(plan) => self.take(&node.input),
            LogicalPlan::Filter(node) if is_within(plan) => {
                let order = self.take(&node.input);
                self.conditions
                    .extend(split_conjunction(&node.predicate).into_iter().cloned());
                order
            }
            input => {
                self.inputs.push(input.clone());
                Order::Input(self.inputs.len() - 1)
            }
        }
    }
}

/// How many inputs a tree of joins has.
fn inputs_of(plan: &LogicalPlan) -> usize {
    match plan {
        LogicalPlan::Join(join) if is_within(plan) => inputs_of(&join.left) + inputs_of(&join.right),
        LogicalPlan::Projection(node) if is_within(plan) => inputs_of(&node.input),
        LogicalPlan::Filter(node) if is_within(plan) => inputs_of(&node.input),
        _ => 1,
    }
}

/// The tree in a better order, if there is one.
fn better(plan: &LogicalPlan, weighing: &PushDown<'_>, threshold: Threshold) -> Result<Option<LogicalPlan>> {
    if !(3..=MOST_INPUTS).contains(&inputs_of(plan)) {
        return Ok(None);
    }
    let mut parts = Parts::default();
    let written = parts.take(plan);
    let Some(schema) = all_columns(&parts.inputs) else {
        return Ok(None);
    };
    let weighed: Option<Vec<_>> = parts.inputs.iter().map(|input| weighing.weigh(input)).collect();
    let Some(weighed) = weighed else {
        return Ok(None);
    };
    let Some(graph) = Graph::of(&parts, &schema, weighed) else {
        return Ok(None);
    };
    let Some((before, written)) = graph.weigh(&written) else {
        return Ok(None);
    };
    // In one statement the order is the source's to find.
    if before.depot().is_some() || before.cost() < threshold.gain {
        return Ok(None);
    }
    let Some((order, after)) = graph.cheapest(&written) else {
        return Ok(None);
    };
    // Figures are guesses, and may be none at all.
    let is_better = after.cost().is_finite()
        && after.cost() * threshold.better <= before.cost()
        && after.cost() + threshold.gain <= before.cost();
    // Where a depot joins more of its own tables it sends fewer rows, however the figures err.
    let is_joined_there =
        after.cost().is_finite() && after.cost() <= before.cost() && after.statements() < before.statements();
    if !is_better && !is_joined_there {
        return Ok(None);
    }
    let wanted = plan.schema().iter().map(Column::from);
    let builder = Builder {
        graph: &graph,
        inputs: &parts.inputs,
        wanted: wanted.collect(),
    };
    let built = builder.build(&order)?;
    Ok(Some(match built.schema() == plan.schema() {
        true => built,
        false => LogicalPlan::Projection(Projection::new_from_schema(Arc::new(built), Arc::clone(plan.schema()))),
    }))
}

/// The columns of all inputs; `None` when the name of one finds another. Names are looked up by as much of their qualifiers as both have: `orders.k` is found by
/// `pg.sales.orders.k`, too.
fn all_columns(inputs: &[LogicalPlan]) -> Option<DFSchema> {
    let (first, others) = inputs.split_first()?;
    let mut schema = first.schema().as_ref().clone();
    for input in others {
        schema = schema.join(input.schema()).ok()?;
    }
    let is_found = |at: usize| {
        let own = schema.qualified_field(at);
        let mut found = schema.iter().enumerate().filter(|(_, field)| finds(own, *field));
        found.next().is_some_and(|(first, _)| first == at) && found.next().is_none()
    };
    (0..schema.fields().len()).all(is_found).then_some(schema)
}

/// Whether the name of one column may be taken for the name of another.
fn finds(
    (one, field): (Option<&TableReference>, &FieldRef),
    (other, other_field): (Option<&TableReference>, &FieldRef),
) -> bool {
    let same = match (one, other) {
        (Some(one), Some(other)) => one.resolved_eq(other),
        (Some(_), None) => false,
        (None, _) => true,
    };
    same && field.name() == other_field.name()
}

/// Makes the plan of an order.
struct Builder<'a> {
    graph: &'a Graph,
    inputs: &'a [LogicalPlan],
    /// The columns that are wanted in the end.
    wanted: BTreeSet<Column>,
}

impl Builder<'_> {
    fn build(&self, order: &Order) -> Result<LogicalPlan> {
        let (left, right) = match order {
            Order::Input(input) => {
                return match self.inputs.get(*input) {
                    Some(input) => Ok(input.clone()),
                    None => datafusion::common::internal_err!("an order of joins has an input that is none"),
                };
            }
            Order::Join { left, right, .. } => (left, right),
        };
        let joint = self.graph.joint(left.relations(), right.relations());
        let join = Join::try_new(
            Arc::new(self.build(left)?),
            Arc::new(self.build(right)?),
            joint.keys(),
            conjunction(joint.conditions()),
            JoinType::Inner,
            JoinConstraint::On,
            NullEquality::NullEqualsNothing,
            false,
        )?;
        self.narrowed(LogicalPlan::Join(join), order.relations())
    }

    /// The columns of a join that are used above it.
    fn narrowed(&self, join: LogicalPlan, relations: Relations) -> Result<LogicalPlan> {
        let mut used = self.wanted.clone();
        used.extend(self.graph.used_above(relations));
        let columns: Vec<Column> = join.schema().iter().map(Column::from).collect();
        let kept: Vec<Expr> = columns
            .iter()
            .filter(|column| used.contains(column))
            .cloned()
            .map(Expr::Column)
            .collect();
        if kept.len() == columns.len() {
            return Ok(join);
        }
        Ok(LogicalPlan::Projection(Projection::try_new(kept, Arc::new(join))?))
    }
}

//! Statements that grow together: joins and unions of one depot.
//!
//! In: a node with several inputs, and the statement that each of these has become. Out: one statement, or nothing.

use std::collections::BTreeSet;

use datafusion::common::{JoinType, NullEquality};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{ExprSchemable, Join};
use minerva_resources::Address;

use super::cost::{Estimate, joined_here};
use super::dialect::{Form, Meeting, Value};
use super::grow::Grown;
use super::select::{DERIVED, From, LEFT, RIGHT, RIGHT_JOIN, Select};
use super::translate::Scope;

/// The rows of two sides that meet.
pub(super) fn join(node: &Join, left: &Grown, right: &Grown) -> Option<Grown> {
    if left.depot() != right.depot() || node.null_aware || node.on.is_empty() {
        return None;
    }
    let dialect = left.dialect;
    let (outputs_left, outputs_right) = (left.select.outputs_of(LEFT), right.select.outputs_of(RIGHT));
    let (schema_left, schema_right) = (node.left.schema(), node.right.schema());
    let side = |schema, columns| Scope {
        dialect,
        schema,
        columns,
        unless: None,
    };
    let (scope_left, scope_right) = (side(schema_left, &outputs_left), side(schema_right, &outputs_right));
    // `pairs` are equal where rows meet, and NULL is equal to none.
    let (mut conditions, mut keys, mut pairs, mut others) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let is_met = is_met(node.join_type);
    for (key_left, key_right) in &node.on {
        // Where only one side has NULLs, these meet nothing.
        let is_null_safe = node.null_equality == NullEquality::NullEqualsNull
            && key_left.nullable(schema_left.as_ref()).ok()?
            && key_right.nullable(schema_right.as_ref()).ok()?;
        let is_constant = key_left.column_refs().is_empty() || key_right.column_refs().is_empty();
        if is_constant && node.join_type == JoinType::Full {
            return None;
        }
        let (key_left, key_right) = (scope_left.value(key_left)?, scope_right.value(key_right)?);
        match (is_null_safe, is_met) {
            (false, _) => {
                conditions.push(dialect.join_key(&key_left, &key_right)?.sql);
                pairs.push((key_left.clone(), key_right.clone()));
            }
            (true, false) => conditions.push(dialect.null_safe_key(&key_left, &key_right)?.sql),
            (true, true) => {
                for (left, right) in dialect.null_safe(&key_left, &key_right)? {
                    conditions.push(dialect.join_key(&left, &right)?.sql);
                    pairs.push((left, right));
                }
            }
        }
        keys.push((key_left, key_right));
    }
    let both: Vec<Value> = outputs_left.iter().chain(&outputs_right).cloned().collect();
    if let Some(filter) = &node.filter {
        let schema = schema_left.join(schema_right).ok()?;
        let scope = side(&schema, &both);
        for predicate in split_conjunction(filter) {
            let condition = scope.condition(predicate)?;
            others.push(condition.clone());
            conditions.push(condition);
        }
    }
    let on = conditions.join(" AND ");
    let (estimate_left, estimate_right) = (left.select.estimate, right.select.estimate);
    let joined = estimate_left.joined(estimate_right, &keys);
    let addresses = addresses(&[left, right]);
    let joining = |word: &'static str, estimate: Estimate, fence: &'static str| {
        let from = From::Join {
            left: Box::new(left.select.clone()),
            word,
            fence,
            right: Box::new(right.select.clone()),
            on: on.clone(),
        };
        Select::over(from, addresses.clone(), both.clone(), estimate)
    };
    // A row of one side for which the other has one.
    let meeting = |kept: &Select, other: &Select, is_negated: bool| {
        let is_left = std::ptr::eq(kept, &left.select);
        let (kept_as, other_as) = if is_left { (LEFT, RIGHT) } else { (RIGHT, LEFT) };
        let oriented = |(left, right): &(Value, Value)| match is_left {
            true => (left.clone(), right.clone()),
            false => (right.clone(), left.clone()),
        };
        let keys: Vec<(Value, Value)> = keys.iter().map(oriented).collect();
        let pairs: Vec<(Value, Value)> = pairs.iter().map(oriented).collect();
        let condition = dialect.meets(&Meeting {
            from: &other.named(other_as),
            keys: &pairs,
            others: &others,
            on: &on,
            is_negated,
        })?;
        let met = kept.estimate.met(other.estimate, &keys);
        let estimate = if is_negated {
            Estimate {
                rows: (kept.estimate.rows - met.rows).max(kept.estimate.rows * 0.1),
                ..met
            }
        } else {
            met
        };
        let outputs = kept.outputs_of(kept_as);
        let from = From::Derived(Box::new(kept.clone()), kept_as);
        let mut select = Select::over(from, addresses.clone(), outputs, estimate);
        select.filter_with(condition, other);
        Some(select)
    };
    let at_least = |rows: f64| Estimate {
        rows: joined.rows.max(rows),
        ..joined
    };
    let select = match node.join_type {
        JoinType::Inner => joining("JOIN", joined, ""),
        JoinType::Left => joining("LEFT JOIN", at_least(estimate_left.rows), ""),
        JoinType::Right => joining(RIGHT_JOIN, at_least(estimate_right.rows), ""),
        JoinType::Full => {
            let most = at_least(estimate_left.rows.max(estimate_right.rows));
            joining("FULL JOIN", most, dialect.full_join()?)
        }
        JoinType::LeftSemi => meeting(&left.select, &right.select, false)?,
        JoinType::LeftAnti => meeting(&left.select, &right.select, true)?,
        JoinType::RightSemi => meeting(&right.select, &left.select, false)?,
        JoinType::RightAnti => meeting(&right.select, &left.select, true)?,
        JoinType::LeftMark | JoinType::RightMark => return None,
    };
    Some(Grown::whole(select, dialect))
}

/// Whether rows of one side are kept for those of the other, which is not joined to them.
fn is_met(join: JoinType) -> bool {
    use JoinType::{LeftAnti, LeftSemi, RightAnti, RightSemi};
    matches!(join, LeftSemi | LeftAnti | RightSemi | RightAnti)
}

/// What it costs to have the rows of both sides sent and joined here, and how many there are then. What each side costs by itself is known.
pub(super) fn pulled(node: &Join, (left, cost_left): (&Grown, f64), (right, cost_right): (&Grown, f64)) -> f64 {
    let side = |grown: &Grown, schema, expr| {
        let scope = Scope {
            dialect: grown.dialect,
            schema,
            columns: &grown.select.outputs,
            unless: None,
        };
        scope.value(expr)
    };
    let keys = node.on.iter().map(|(key_left, key_right)| {
        let key_left = side(left, node.left.schema().as_ref(), key_left)?;
        Some((key_left, side(right, node.right.schema().as_ref(), key_right)?))
    });
    let keys: Option<Vec<(Value, Value)>> = keys.collect();
    let tells = matches!(
        node.join_type,
        JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi
    );
    let sides = [(left, cost_left), (right, cost_right)].map(|(grown, cost)| Side {
        estimate: grown.select.estimate,
        cost,
        columns: grown.select.outputs.len(),
        is_in_pieces: grown.is_in_pieces(),
        is_told: true,
    });
    let [left, right] = &sides;
    pulled_sides(left, right, keys.filter(|_| tells).as_deref())
}

/// A side of a join here.
pub(super) struct Side {
    pub(super) estimate: Estimate,
    /// What its rows cost.
    pub(super) cost: f64,
    pub(super) columns: usize,
    pub(super) is_in_pieces: bool,
    /// Whether it is a statement that is told the keys of the other side, if that is the smaller one.
    pub(super) is_told: bool,
}

/// What it costs to have the rows of both sides and to join them here; `keys` are those that the smaller side tells the other.
pub(super) fn pulled_sides(left: &Side, right: &Side, keys: Option<&[(Value, Value)]>) -> f64 {
    let rows = |side: &Side| side.estimate.rows;
    let (smaller, larger, is_turned) = match rows(left) <= rows(right) {
        true => (left, right, true),
        false => (right, left, false),
    };
    let Some(keys) = keys.filter(|_| larger.is_told) else {
        return left.cost + right.cost + joined_here(rows(left) + rows(right));
    };
    // The side that is read first tells the other which keys count.
    let turned = keys.iter().cloned().map(|(left, right)| match is_turned {
        true => (right, left),
        false => (left, right),
    });
    let told = larger.estimate.narrowed(smaller.estimate, &turned.collect::<Vec<_>>());
    let cost = told.cost(larger.columns, larger.is_in_pieces).min(larger.cost);
    smaller.cost + cost + joined_here(rows(smaller) + told.rows)
}

/// So many SELECTs can be one after another: SQLite takes no more.
const MOST_PARTS: usize = 500;

/// The rows of all inputs.
pub(super) fn union(parts: &[&Grown]) -> Option<Grown> {
    let (first, others) = parts.split_first().filter(|_| parts.len() <= MOST_PARTS)?;
    let mut outputs = first.select.outputs_of(DERIVED);
    for other in others {
        if other.depot() != first.depot() || other.select.outputs.len() != outputs.len() {
            return None;
        }
        for (output, value) in outputs.iter_mut().zip(&other.select.outputs) {
            output.form = match (output.form, value.form) {
                (Form::Exact, Form::Exact) => Form::Exact,
                // Texts of two collations have none.
                (Form::Text { .. }, Form::Text { .. }) => Form::Text { own: false },
                _ => return None,
            };
            if output.data_type != value.data_type {
                return None;
            }
        }
    }
    let estimates: Vec<Estimate> = parts.iter().map(|part| part.select.estimate).collect();
    let from = From::Union(parts.iter().map(|part| part.select.clone()).collect());
    let select = Select::over(from, addresses(parts), outputs, Estimate::together(&estimates));
    Some(Grown::whole(select, first.dialect))
}

/// Every dataset that any of them reads.
fn addresses(parts: &[&Grown]) -> Vec<Address> {
    let all: BTreeSet<&Address> = parts.iter().flat_map(|part| &part.select.addresses).collect();
    all.into_iter().cloned().collect()
}

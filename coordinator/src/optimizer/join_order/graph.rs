//! What is joined, by which keys, and the cheapest order of it.
//!
//! In: the inputs of a tree of inner joins with what is expected of each, its keys and its conditions. Out: an order. Columns that are equal to each other, directly or by way
//! of others, are one class: two parts of a tree need one pair of keys of each class, and inputs may meet by a key that was written for others. Small trees are looked through
//! completely, in larger ones the cheapest pair is joined first.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::{
    common::{Column, DFSchema},
    logical_expr::{Expr, ExprSchemable},
};
use minerva_connectors::{Conditions, Key, Weighed, WeighedLeaf};

use super::Parts;

/// So many inputs are looked through completely.
const MOST_COMPLETE: usize = 10;
/// What a row of a join costs where it is used next, in microseconds.
const ROW_USED: f64 = 0.08;

/// Some of the inputs: a bit for each.
pub(super) type Relations = u64;

/// An order of joins. The left side of each is the smaller one.
#[derive(Debug, Clone)]
pub(super) enum Order {
    Input(usize),
    Join {
        left: Arc<Order>,
        right: Arc<Order>,
        relations: Relations,
    },
}

impl Order {
    pub(super) fn of(left: Order, right: Order) -> Order {
        Order::Join {
            relations: left.relations() | right.relations(),
            left: Arc::new(left),
            right: Arc::new(right),
        }
    }

    pub(super) fn relations(&self) -> Relations {
        match self {
            Order::Input(input) => 1 << input,
            Order::Join { relations, .. } => *relations,
        }
    }
}

/// One side of a key.
#[derive(Debug, Clone)]
struct End {
    relations: Relations,
    expr: Expr,
    key: Key,
}

/// Two values that are equal, and the same as a condition, for where one of them is over both sides.
#[derive(Debug)]
struct Pair {
    ends: [End; 2],
    equal: Condition,
}

/// A condition over several inputs.
#[derive(Debug)]
struct Condition {
    relations: Relations,
    expr: Expr,
    expected: Conditions,
}

/// Inputs, and how rows of them meet.
#[derive(Debug)]
pub(super) struct Graph {
    leaves: Vec<WeighedLeaf>,
    /// Columns that are all equal, at most one of each input.
    classes: Vec<Vec<End>>,
    pairs: Vec<Pair>,
    conditions: Vec<Condition>,
}

/// How two parts of a tree meet.
pub(super) struct Joint<'a> {
    on: Vec<(&'a End, &'a End)>,
    conditions: Vec<&'a Condition>,
}

impl Joint<'_> {
    /// The keys of both sides.
    pub(super) fn keys(&self) -> Vec<(Expr, Expr)> {
        let keys = self.on.iter();
        keys.map(|(left, right)| (left.expr.clone(), right.expr.clone()))
            .collect()
    }

    /// What must hold besides.
    pub(super) fn conditions(&self) -> impl Iterator<Item = Expr> {
        self.conditions.iter().map(|condition| condition.expr.clone())
    }
}

/// An order of some inputs, and what is expected of it.
#[derive(Debug, Clone)]
struct Best {
    order: Order,
    weighed: Weighed,
}

fn is_in(some: Relations, all: Relations) -> bool {
    some & !all == 0
}

/// The one input, if it is one.
fn only(relations: Relations) -> Option<usize> {
    (relations.count_ones() == 1).then(|| relations.trailing_zeros() as usize)
}

/// Whether columns that are equal to one of these are equal to the other as well. Floating point numbers are equal in more than one way.
fn is_transitive(left: &Expr, right: &Expr, schema: &DFSchema) -> bool {
    match (left, right, left.get_type(schema), right.get_type(schema)) {
        (Expr::Column(_), Expr::Column(_), Ok(left), Ok(right)) => {
            left == right && !left.is_floating() && !left.is_nested()
        }
        _ => false,
    }
}

impl Graph {
    /// The graph of a tree; `None` when a key or a condition is not about several of its inputs.
    pub(super) fn of(parts: &Parts, schema: &DFSchema, leaves: Vec<WeighedLeaf>) -> Option<Graph> {
        let owners: Vec<usize> = (parts.inputs.iter().enumerate())
            .flat_map(|(input, plan)| vec![input; plan.schema().fields().len()])
            .collect();
        let relations = |expr: &Expr| -> Option<Relations> {
            let mut all = 0;
            for column in expr.column_refs() {
                all |= 1 << owners.get(schema.maybe_index_of_column(column)?)?;
            }
            Some(all)
        };
        let condition = |expr: &Expr| {
            let relations = relations(expr).filter(|relations| relations.count_ones() > 1)?;
            Some(Condition {
                relations,
                expr: expr.clone(),
                expected: Conditions::of(&leaves, schema, expr),
            })
        };
        let end = |expr: &Expr| {
            let relations = relations(expr).filter(|relations| *relations != 0)?;
            let key = match only(relations) {
                Some(input) => leaves.get(input)?.key(expr, parts.inputs.get(input)?.schema()),
                None => Key::unknown(),
            };
            Some(End {
                relations,
                expr: expr.clone(),
                key,
            })
        };
        let conditions: Option<Vec<Condition>> = parts.conditions.iter().map(condition).collect();
        let (mut classes, mut pairs) = (Vec::new(), Vec::new());
        for (left, right) in &parts.keys {
            let ends = [end(left)?, end(right)?];
            let [one, other] = &ends;
            let is_classed = is_transitive(left, right, schema) && met(&mut classes, one, other);
            if !is_classed {
                let equal = condition(&left.clone().eq(right.clone()))?;
                pairs.push(Pair { ends, equal });
            }
        }
        for class in &mut classes {
            class.sort_by_key(|end: &End| end.relations);
        }
        Some(Graph {
            leaves,
            classes,
            pairs,
            conditions: conditions?,
        })
    }

    /// How two parts meet. Nothing that is said of one of them alone is said again.
    pub(super) fn joint(&self, left: Relations, right: Relations) -> Joint<'_> {
        let mut joint = Joint {
            on: Vec::new(),
            conditions: Vec::new(),
        };
        let first = |class: &'_ [End], side: Relations| class.iter().position(|end| is_in(end.relations, side));
        for class in &self.classes {
            let ends = (first(class, left), first(class, right));
            if let (Some(at_left), Some(at_right)) = ends
                && let (Some(at_left), Some(at_right)) = (class.get(at_left), class.get(at_right))
            {
                joint.on.push((at_left, at_right));
            }
        }
        let is_new = |relations| is_in(relations, left | right) && !is_in(relations, left) && !is_in(relations, right);
        for pair in &self.pairs {
            let [one, other] = &pair.ends;
            if is_in(one.relations, left) && is_in(other.relations, right) {
                joint.on.push((one, other));
            } else if is_in(one.relations, right) && is_in(other.relations, left) {
                joint.on.push((other, one));
            } else if is_new(pair.equal.relations) {
                joint.conditions.push(&pair.equal);
            }
        }
        let new = self.conditions.iter().filter(|condition| is_new(condition.relations));
        joint.conditions.extend(new);
        joint
    }

    /// The columns of a part that are needed to join others to it.
    pub(super) fn used_above(&self, part: Relations) -> Vec<Column> {
        let mut used: Vec<&Expr> = Vec::new();
        for class in &self.classes {
            let is_met = class.iter().any(|end| !is_in(end.relations, part));
            let end = class.iter().find(|end| is_in(end.relations, part)).filter(|_| is_met);
            used.extend(end.map(|end| &end.expr));
        }
        let pairs = self.pairs.iter().map(|pair| &pair.equal);
        let later = pairs
            .chain(&self.conditions)
            .filter(|condition| !is_in(condition.relations, part));
        used.extend(later.map(|condition| &condition.expr));
        used.into_iter().flat_map(Expr::column_refs).cloned().collect()
    }

    /// What is expected of an order, and of each part of it.
    pub(super) fn weigh(&self, order: &Order) -> Option<(Weighed, HashMap<Relations, Weighed>)> {
        let mut parts = HashMap::new();
        let whole = self.weigh_parts(order, &mut parts)?;
        Some((whole, parts))
    }

    fn weigh_parts(&self, order: &Order, parts: &mut HashMap<Relations, Weighed>) -> Option<Weighed> {
        let (left, right, relations) = match order {
            Order::Input(input) => return Some(self.leaves.get(*input)?.weighed().clone()),
            Order::Join { left, right, relations } => (left, right, relations),
        };
        let (in_left, in_right) = (self.weigh_parts(left, parts)?, self.weigh_parts(right, parts)?);
        let weighed = self.joined((left.relations(), &in_left), (right.relations(), &in_right))?;
        parts.insert(*relations, weighed.clone());
        Some(weighed)
    }

    /// What is expected of two parts together; `None` where they share no key.
    fn joined(&self, left: (Relations, &Weighed), right: (Relations, &Weighed)) -> Option<Weighed> {
        let joint = self.joint(left.0, right.0);
        if joint.on.is_empty() {
            return None;
        }
        let keys: Vec<(&Key, &Key)> = joint.on.iter().map(|(left, right)| (&left.key, &right.key)).collect();
        let expected = joint.conditions.iter().map(|condition| condition.expected);
        let expected = expected.fold(Conditions::NONE, Conditions::and);
        Some(left.1.joined(right.1, &keys, expected))
    }

    /// The cheapest order. How many rows a part has does not depend on its order: the written one, whose parts are given, says it first.
    pub(super) fn cheapest(&self, written: &HashMap<Relations, Weighed>) -> Option<(Order, Weighed)> {
        let inputs = self.leaves.iter().enumerate().map(|(input, leaf)| Best {
            order: Order::Input(input),
            weighed: leaf.weighed().clone(),
        });
        let best = match self.leaves.len() <= MOST_COMPLETE {
            true => self.cheapest_of_all(inputs.collect(), written),
            false => self.cheapest_by_pairs(inputs.collect(), written),
        };
        best.map(|best| (best.order, best.weighed))
    }

    /// Two parts as one.
    fn together(&self, left: &Best, right: &Best) -> Option<Best> {
        let (left, right) = match left.weighed.rows() <= right.weighed.rows() {
            true => (left, right),
            false => (right, left),
        };
        let weighed = self.joined(
            (left.order.relations(), &left.weighed),
            (right.order.relations(), &right.weighed),
        )?;
        Some(Best {
            order: Order::of(left.order.clone(), right.order.clone()),
            weighed,
        })
    }

    /// The cheapest order of each set of inputs, from those of smaller sets.
    fn cheapest_of_all(&self, inputs: Vec<Best>, written: &HashMap<Relations, Weighed>) -> Option<Best> {
        let all: Relations = (1 << inputs.len()) - 1;
        let mut known: HashMap<Relations, Best> = (inputs.into_iter())
            .map(|input| (input.order.relations(), input))
            .collect();
        for set in 1..=all {
            if set.count_ones() < 2 {
                continue;
            }
            let mut rows = written.get(&set).cloned();
            let mut best: Option<Best> = None;
            let lowest = set & set.wrapping_neg();
            let mut part = (set - 1) & set;
            while part != 0 {
                // Each pair once.
                if part & lowest != 0
                    && let (Some(left), Some(right)) = (known.get(&part), known.get(&(set & !part)))
                {
                    // It is no cheaper than its parts, unless a depot joins them.
                    let is_there = left.weighed.depot().is_some() || right.weighed.depot().is_some();
                    let least = left.weighed.cost() + right.weighed.cost();
                    let is_hopeless = best.as_ref().is_some_and(|best| best.weighed.cost() <= least);
                    if (is_there || !is_hopeless)
                        && let Some(mut found) = self.together(left, right)
                    {
                        let rows = rows.get_or_insert_with(|| found.weighed.clone());
                        found.weighed = found.weighed.with_rows_of(rows);
                        let cost = found.weighed.cost();
                        if best.as_ref().is_none_or(|best| cost < best.weighed.cost()) {
                            best = Some(found);
                        }
                    }
                }
                part = (part - 1) & set;
            }
            known.extend(best.map(|best| (set, best)));
        }
        known.remove(&all)
    }

    /// Joins the cheapest pair, and goes on with it in the place of both.
    fn cheapest_by_pairs(&self, mut parts: Vec<Best>, written: &HashMap<Relations, Weighed>) -> Option<Best> {
        let mut tried: HashMap<(Relations, Relations), Option<Best>> = HashMap::new();
        while parts.len() > 1 {
            let mut cheapest: Option<(f64, usize, usize, Best)> = None;
            for (at, left) in parts.iter().enumerate() {
                for (other, right) in parts.iter().enumerate().skip(at + 1) {
                    let pair = (left.order.relations(), right.order.relations());
                    let found = tried.entry(pair).or_insert_with(|| {
                        let mut found = self.together(left, right)?;
                        if let Some(rows) = written.get(&found.order.relations()) {
                            found.weighed = found.weighed.with_rows_of(rows);
                        }
                        Some(found)
                    });
                    let Some(found) = found else { continue };
                    let added = found.weighed.cost() - left.weighed.cost() - right.weighed.cost();
                    let cost = added + found.weighed.rows() * ROW_USED;
                    if cheapest.as_ref().is_none_or(|(least, ..)| cost < *least) {
                        cheapest = Some((cost, at, other, found.clone()));
                    }
                }
            }
            let (_, at, other, found) = cheapest?;
            parts.swap_remove(other);
            if let Some(part) = parts.get_mut(at) {
                *part = found;
            }
        }
        parts.pop()
    }
}

/// Puts two columns that are equal into one class; false when that had two columns of one input, which are not equal before it is joined.
fn met(classes: &mut Vec<Vec<End>>, left: &End, right: &End) -> bool {
    let mut class_of = |end: &End| {
        let known = classes
            .iter()
            .position(|class| class.iter().any(|other| other.expr == end.expr));
        known.unwrap_or_else(|| {
            classes.push(vec![end.clone()]);
            classes.len() - 1
        })
    };
    let (one, other) = (class_of(left), class_of(right));
    if one == other {
        return true;
    }
    let all = |at: usize| {
        let class = classes.get(at).into_iter().flatten();
        class.fold(0, |all, end| all | end.relations)
    };
    if all(one) & all(other) != 0 {
        return false;
    }
    let moved = classes.swap_remove(one.max(other));
    if let Some(class) = classes.get_mut(one.min(other)) {
        class.extend(moved);
    }
    true
}

//! What stayed here, and why: what EXPLAIN says about push-down.
//!
//! In: a node over statements of a source that none of them takes in. Out: the reason, in words, and apart from it the estimates, which are not for everybody.

use std::fmt::{self, Write};
use std::time::Duration;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan};

use super::grow::Grown;
use super::translate::Scope;

/// Longer texts are cut.
const LONGEST: usize = 160;

/// A part of a plan that stayed here although what it works on comes from a source that computes.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The part.
    node: String,
    /// Why it stayed.
    reason: String,
    /// What it was estimated to cost in the depot and here, if that was the reason.
    costs: Option<(Duration, Duration)>,
}

impl Decision {
    /// The decision in words. Estimates tell of data, so only operators see them.
    pub fn text(&self, with_estimates: bool) -> String {
        let mut text = format!("{}: stays here, {}", self.node, self.reason);
        if let Some((there, here)) = self.costs.filter(|_| with_estimates) {
            let (there, here) = (there.as_secs_f64() * 1e3, here.as_secs_f64() * 1e3);
            // Writing to a string cannot fail.
            let _ = write!(text, " (about {there:.1} ms there, {here:.1} ms here)");
        }
        text
    }

    /// Whether it stayed for what it costs.
    pub(super) fn is_for_cost(&self) -> bool {
        self.costs.is_some()
    }

    /// A node that is cheaper here.
    pub(super) fn cheaper(node: &LogicalPlan, depot: &str, there: f64, here: f64) -> Decision {
        let time = |micros: f64| Duration::from_micros(micros.clamp(0.0, 1e15) as u64);
        Decision {
            node: short(&node.display()),
            reason: format!("where it is estimated to be cheaper than in depot `{depot}`"),
            costs: Some((time(there), time(here))),
        }
    }

    /// What a source does not compute as it is computed here.
    fn other(node: &LogicalPlan, reason: String) -> Decision {
        Decision {
            node: short(&node.display()),
            reason,
            costs: None,
        }
    }
}

/// Why no statement takes in a node over these inputs; `None` where there is nothing to say.
pub(super) fn why(plan: &LogicalPlan, inputs: &[Option<&Grown>]) -> Option<Decision> {
    let first = inputs.iter().flatten().next()?;
    let depot = first.depot()?;
    let said = |reason: String| Some(Decision::other(plan, reason));
    let schemas = plan.inputs();
    let scope = |at: usize| {
        let (input, schema) = (inputs.get(at).copied().flatten()?, schemas.get(at)?.schema());
        Some(Scope {
            dialect: input.dialect,
            schema,
            columns: &input.select.outputs,
            unless: None,
        })
    };
    let not_the_same = |expr: &Expr| {
        let expr = short(expr);
        said(format!(
            "since depot `{depot}` does not compute `{expr}` as it is computed here"
        ))
    };
    let first_unknown = |expressions: &[&Expr]| {
        let scope = scope(0)?;
        let unknown = expressions.iter().find_map(|expr| unknown(&scope, expr));
        not_the_same(unknown?)
    };
    match plan {
        LogicalPlan::Filter(node) => first_unknown(&split_conjunction(&node.predicate)),
        LogicalPlan::Projection(node) => first_unknown(&node.expr.iter().collect::<Vec<_>>()),
        LogicalPlan::Aggregate(node) => {
            let scope = scope(0)?;
            let mut kinds = node.schema.fields().iter().skip(node.group_expr.len());
            let aggregate = node.aggr_expr.iter().find(|expr| {
                let kind = kinds.next().map(|field| field.data_type());
                kind.is_none_or(|kind| scope.aggregate(expr, kind).is_none())
            });
            let key = || first_unknown(&node.group_expr.iter().collect::<Vec<_>>());
            key().or_else(|| not_the_same(aggregate.or(node.group_expr.first())?))
        }
        LogicalPlan::Sort(node) if node.fetch.is_some() => {
            first_unknown(&node.expr.iter().map(|by| &by.expr).collect::<Vec<_>>())
                .or_else(|| not_the_same(&node.expr.first()?.expr))
        }
        LogicalPlan::Join(node) => {
            let depots: Vec<Option<&str>> = inputs.iter().map(|input| input.and_then(Grown::depot)).collect();
            match depots.as_slice() {
                [Some(left), Some(right)] if left != right => said(format!(
                    "since one side is in depot `{left}` and the other in depot `{right}`"
                )),
                [Some(_), Some(_)] if node.null_aware => said("since `NOT IN` is not sent to a depot".to_owned()),
                [Some(_), Some(_)] if node.on.is_empty() => said("since no columns of its sides are equal".to_owned()),
                [Some(_), Some(_)]
                    if matches!(node.join_type, JoinType::LeftMark | JoinType::RightMark)
                        || node.join_type == JoinType::Full && first.dialect.full_join().is_none() =>
                {
                    said(format!("since a {} join is not sent to a depot", node.join_type))
                }
                [Some(_), Some(_)] => {
                    let keys = node.on.iter().find_map(|(left, right)| {
                        let left = unknown(&scope(0)?, left);
                        left.or_else(|| unknown(&scope(1)?, right))
                    });
                    match keys {
                        Some(key) => not_the_same(key),
                        None => said(format!(
                            "since depot `{depot}` does not compute its conditions as they are computed here"
                        )),
                    }
                }
                _ => said(format!("since one of its sides is not computed by depot `{depot}`")),
            }
        }
        LogicalPlan::Window(node) => {
            let scope = scope(0)?;
            let mut kinds = node.schema.fields().iter().skip(scope.columns.len());
            let window = node.window_expr.iter().find(|expr| {
                let kind = kinds.next().map(|field| field.data_type());
                kind.is_none_or(|kind| scope.window(expr, kind).is_none())
            });
            not_the_same(window.or(node.window_expr.first())?)
        }
        _ => None,
    }
}

/// So many parts of an expression are looked at: enough to find what is meant.
const MOST_PARTS: usize = 200;

/// The smallest part of an expression that a source does not know.
fn unknown<'a>(scope: &Scope<'_>, expr: &'a Expr) -> Option<&'a Expr> {
    let (mut found, mut looked_at) = (None, 0);
    // Errors do not occur; a walk that stops early has found nothing.
    let _ = expr.apply(|part| {
        looked_at += 1;
        if looked_at > MOST_PARTS {
            return Ok(TreeNodeRecursion::Stop);
        }
        if matches!(part, Expr::AggregateFunction(_)) {
            return Ok(TreeNodeRecursion::Continue);
        }
        Ok(match scope.value(part) {
            Some(_) => TreeNodeRecursion::Jump,
            None => {
                found = Some(part);
                TreeNodeRecursion::Continue
            }
        })
    });
    found
}

/// A text that is cut where it gets long, without its end being made.
fn short(shown: &dyn fmt::Display) -> String {
    struct Cut(String);
    impl Write for Cut {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let left = LONGEST.saturating_sub(self.0.len());
            let end = text.floor_char_boundary(left);
            self.0.push_str(text.get(..end).unwrap_or_default());
            if end < text.len() { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut cut = Cut(String::new());
    if write!(cut, "{shown}").is_err() {
        cut.0.push_str("...");
    }
    cut.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(short(&"short"), "short");
        let long = "é".repeat(LONGEST);
        let found = short(&long);
        assert!(found.ends_with("é...") && found.len() <= LONGEST + 3, "{found}");
    }

    #[test]
    fn estimates_are_said_only_when_they_may_be() {
        let decision = Decision {
            node: "Join".to_owned(),
            reason: "why".to_owned(),
            costs: Some((Duration::from_millis(5), Duration::from_micros(1500))),
        };
        assert_eq!(decision.text(false), "Join: stays here, why");
        assert_eq!(
            decision.text(true),
            "Join: stays here, why (about 5.0 ms there, 1.5 ms here)"
        );
    }
}

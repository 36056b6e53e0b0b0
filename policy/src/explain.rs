//! Says who sees what of a table and why: for `minerva policy explain` and for people who write policies.
//!
//! In: the rules, a principal, a table. Out: the same decision as `decide` makes, with the policies that lost. It
//! reads no data. What it says contains policies' texts, so it is for those who may read policies.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema};
use minerva_resources::Address;

use crate::access::AccessDecision;
use crate::decide::{Choice, Decider};
use crate::filter::Condition;
use crate::principal::Principal;
use crate::rules::{DataRule, Effect, PolicyRef, Rules};
use crate::table::ColumnNode;
use crate::verdict::ClosedTable;

/// What a principal sees of a table, and why.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// Who.
    pub principal: String,
    /// Of what.
    pub address: Address,
    /// Whether the principal may read the table.
    pub access: AccessDecision,
    /// Every column, and the parts of columns that are shown otherwise than the whole.
    pub columns: Vec<ColumnExplanation>,
    /// The filters that decide which rows are visible; all of them must hold.
    pub filters: Vec<FilterExplanation>,
    /// Why the table is closed, if it is.
    pub closed: Option<ClosedTable>,
}

/// How a column is shown.
#[derive(Debug, Clone)]
pub struct ColumnExplanation {
    /// The column, or with dots a part of it.
    pub path: String,
    /// Its type.
    pub data_type: DataType,
    /// The mask that wins and its policy; none when no policy matches.
    pub winner: Option<(String, Arc<PolicyRef>)>,
    /// The masks that match and lose, best first.
    pub outranked: Vec<(String, Arc<PolicyRef>)>,
}

/// A filter that holds.
#[derive(Debug, Clone)]
pub struct FilterExplanation {
    /// What must hold, as its author wrote it.
    pub condition: String,
    /// Its policy.
    pub because: Arc<PolicyRef>,
}

/// Explains what [`crate::decide`] would decide.
pub fn explain(rules: &Rules, principal: &Principal, address: &Address, schema: &Schema) -> Explanation {
    let access = rules.may_select(principal, address);
    let decider = Decider::new(rules, principal, address, schema);
    let mut columns = vec![];
    for field in schema.fields() {
        let node = decider
            .table
            .columns
            .iter()
            .find(|node| node.path.first() == Some(field.name()));
        match node {
            Some(node) => explain_column(&decider, node, decider.choose(node).ok(), &mut columns),
            None => columns.push(ColumnExplanation {
                path: field.name().clone(),
                data_type: field.data_type().clone(),
                winner: None,
                outranked: vec![],
            }),
        }
    }
    let filters = decider.filters().map(|rule| FilterExplanation {
        condition: match &rule.effect {
            Effect::Filter(conditions) => conditions
                .iter()
                .map(Condition::describe)
                .collect::<Vec<_>>()
                .join(" and "),
            Effect::Mask(_) => String::new(),
        },
        because: Arc::clone(&rule.because),
    });
    Explanation {
        principal: principal.id.clone(),
        address: address.clone(),
        access,
        columns,
        filters: filters.collect(),
        closed: decider.governance().err(),
    }
}

fn explain_column(
    decider: &Decider<'_>,
    node: &ColumnNode,
    choice: Option<Choice>,
    columns: &mut Vec<ColumnExplanation>,
) {
    match choice {
        Some(Choice::Parts(choices)) => {
            for (part, choice) in node.parts.iter().zip(choices) {
                explain_column(decider, part, Some(choice), columns);
            }
        }
        whole => {
            let winner = match whole {
                Some(Choice::Whole(winner)) => winner,
                _ => None,
            };
            // What matches only inside the column is not in its own list: ask the deepest part.
            let mut deepest = node;
            while let Some(part) = deepest.parts.first() {
                deepest = part;
            }
            let said = |rule: &DataRule| {
                let mask = rule.mask().map_or_else(String::new, |mask| mask.describe());
                (mask, Arc::clone(&rule.because))
            };
            columns.push(ColumnExplanation {
                path: node.path.join("."),
                data_type: node.data_type.clone(),
                winner: winner.and_then(|index| decider.policy(index)).map(said),
                outranked: decider
                    .matching(deepest)
                    .filter(|index| Some(*index) != winner)
                    .filter_map(|index| decider.policy(index))
                    .map(said)
                    .collect(),
            });
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |policies: &[Arc<PolicyRef>]| {
            policies
                .iter()
                .map(|policy| policy.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        };
        write!(f, "user `{}` ", self.principal)?;
        match (self.access.allowed, self.access.because.as_slice()) {
            (true, []) => writeln!(f, "may read `{}` as an operator", self.address)?,
            (true, policies) => writeln!(f, "may read `{}` because of {}", self.address, named(policies))?,
            (false, []) => writeln!(f, "may not read `{}`: no policy allows it", self.address)?,
            (false, policies) => writeln!(f, "may not read `{}` because of {}", self.address, named(policies))?,
        }
        if let Some(closed) = &self.closed {
            writeln!(f, "the table is closed to them: {}", closed.message)?;
        }
        if self.filters.is_empty() {
            writeln!(f, "rows: all")?;
        }
        for filter in &self.filters {
            writeln!(f, "rows: only where {} -- {}", filter.condition, filter.because)?;
        }
        for column in &self.columns {
            let priority = |policy: &PolicyRef| policy.priority.unwrap_or_default();
            match &column.winner {
                None if column.outranked.is_empty() => writeln!(f, "column `{}`: as it is", column.path)?,
                None => writeln!(f, "column `{}`: undecided", column.path)?,
                Some((mask, policy)) => {
                    writeln!(
                        f,
                        "column `{}`: {mask} -- {policy}, priority {}",
                        column.path,
                        priority(policy)
                    )?;
                }
            }
            for (mask, policy) in &column.outranked {
                writeln!(f, "    outranked: {mask} -- {policy}, priority {}", priority(policy))?;
            }
        }
        Ok(())
    }
}

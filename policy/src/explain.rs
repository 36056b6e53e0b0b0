//! Says who sees what of a table and why: for `minerva policy explain` and for people who write policies.
//!
//! In: the rules, a principal, a table. Out: the same decision as `decide` makes, with the policies that lost. It
//! reads no data. What it says contains policies' texts, so it is for those who may read policies.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema};
use minerva_resources::Address;

use crate::access::AccessDecision;
use crate::decide::{Choice, Decider, is_all};
use crate::filter::Condition;
use crate::principal::Principal;
use crate::rules::{DataRule, Effect, PolicyRef, Rules};
use crate::table::ColumnNode;
use crate::verdict::ClosedTable;

/// How the exemption describes itself.
const PASS_THROUGH: &str = "pass_through";

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
    /// The masks that match and lose, best first, and why each lost.
    pub outranked: Vec<Outranked>,
    /// Why the column does not exist for the principal, if it does not.
    pub hidden: Option<String>,
}

/// A mask that matches a column and is not the one that is applied.
#[derive(Debug, Clone)]
pub struct Outranked {
    /// The mask.
    pub mask: String,
    /// Its policy.
    pub because: Arc<PolicyRef>,
    /// Why it lost, in a few words.
    pub why: String,
}

/// How a column is shown, in one word and what it takes to say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// As it is.
    AsItIs,
    /// By a mask, which says what it does and whose it is.
    Masked {
        /// The mask with its parameters.
        mask: String,
        /// The name of its policy.
        policy: String,
    },
    /// It does not exist for the principal.
    Hidden,
    /// Masks contradict each other, and the table is closed.
    Undecided,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsItIs => f.write_str("as it is"),
            Self::Masked { mask, policy } => write!(f, "{mask} by `{policy}`"),
            Self::Hidden => f.write_str("hidden"),
            Self::Undecided => f.write_str("undecided"),
        }
    }
}

impl ColumnExplanation {
    /// How the column is shown.
    pub fn shown(&self) -> Shown {
        match &self.winner {
            _ if self.hidden.is_some() => Shown::Hidden,
            Some((mask, _)) if mask == PASS_THROUGH => Shown::AsItIs,
            Some((mask, policy)) => Shown::Masked {
                mask: mask.clone(),
                policy: policy.name.clone(),
            },
            None if self.outranked.is_empty() => Shown::AsItIs,
            None => Shown::Undecided,
        }
    }
}

/// A filter that holds.
#[derive(Debug, Clone)]
pub struct FilterExplanation {
    /// What must hold, as its author wrote it.
    pub condition: String,
    /// What must hold as SQL with the principal's own values in it; nothing when it cannot be applied.
    pub sql: Option<String>,
    /// Its policy.
    pub because: Arc<PolicyRef>,
}

impl Explanation {
    /// Whether nothing of the table is left.
    fn hides_every_column(&self) -> bool {
        !self.columns.is_empty() && self.columns.iter().all(|column| column.hidden.is_some())
    }
}

/// Explains what [`crate::decide`] would decide.
pub fn explain(rules: &Rules, principal: &Principal, address: &Address, schema: &Schema) -> Explanation {
    explain_as(rules, principal, address, schema, true)
}

/// Explains what would be decided of a table that could not be looked at: its columns are known by name only, in a
/// schema whose types mean nothing. Whether masks and filters fit the columns is not said.
pub fn explain_names(rules: &Rules, principal: &Principal, address: &Address, schema: &Schema) -> Explanation {
    explain_as(rules, principal, address, schema, false)
}

fn explain_as(
    rules: &Rules,
    principal: &Principal,
    address: &Address,
    schema: &Schema,
    has_types: bool,
) -> Explanation {
    let mut access = rules.may_select(principal, address);
    let decider = Decider::new(rules, principal, address, schema);
    let hidden = decider.hidden();
    let mut columns = vec![];
    for field in schema.fields() {
        if let Some(hidden) = hidden.iter().find(|hidden| hidden.name == *field.name()) {
            columns.push(ColumnExplanation {
                path: field.name().clone(),
                data_type: field.data_type().clone(),
                winner: None,
                outranked: vec![],
                hidden: Some(hidden.because.clone()),
            });
            continue;
        }
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
                hidden: None,
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
        sql: decider.filter_sql(rule).ok().filter(|_| has_types),
        because: Arc::clone(&rule.because),
    });
    let is_hidden = |column: &&ColumnNode| hidden.iter().any(|hidden| column.path.first() == Some(&hidden.name));
    let undecided = || {
        (decider.table.columns.iter())
            .filter(|column| !is_hidden(column))
            .find_map(|column| decider.choose(column).err())
    };
    let filters = filters.collect();
    let closed = if has_types {
        decider.governance().err()
    } else {
        undecided()
    };
    if closed.is_none() && is_all(&hidden, schema) {
        access = AccessDecision::default();
    }
    Explanation {
        principal: principal.id.clone(),
        address: address.clone(),
        access,
        columns,
        filters,
        closed,
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
            let describe = |rule: &DataRule| rule.mask().map_or_else(String::new, |mask| mask.describe());
            let first = winner.and_then(|index| decider.policy(index));
            let lost = |rule: &DataRule| Outranked {
                mask: describe(rule),
                because: Arc::clone(&rule.because),
                why: match first {
                    None => "it contradicts another of its priority".to_owned(),
                    Some(first) if first.priority != rule.priority => {
                        format!("priority {} is weaker than {}", rule.priority, first.priority)
                    }
                    Some(first) if describe(first) == describe(rule) => "it is the same mask".to_owned(),
                    Some(_) => "a mask beats an exemption of the same priority".to_owned(),
                },
            };
            columns.push(ColumnExplanation {
                path: node.path.join("."),
                data_type: node.data_type.clone(),
                winner: first.map(|rule| (describe(rule), Arc::clone(&rule.because))),
                outranked: decider
                    .matching(deepest)
                    .filter(|index| Some(*index) != winner)
                    .filter_map(|index| decider.policy(index))
                    .map(lost)
                    .collect(),
                hidden: None,
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
            (false, []) if self.hides_every_column() => {
                writeln!(f, "may not read `{}`: every column of it is denied", self.address)?;
            }
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
            let condition = filter.sql.as_ref().unwrap_or(&filter.condition);
            writeln!(f, "rows: only where {condition} -- {}", filter.because)?;
        }
        for column in &self.columns {
            let priority = |policy: &PolicyRef| policy.priority.unwrap_or_default();
            if let Some(because) = &column.hidden {
                writeln!(f, "column `{}`: does not exist -- {because}", column.path)?;
            }
            match &column.winner {
                _ if column.hidden.is_some() => {}
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
            for lost in &column.outranked {
                let Outranked { mask, because, why } = lost;
                writeln!(
                    f,
                    "    outranked: {mask} -- {because}, priority {}: {why}",
                    priority(because)
                )?;
            }
        }
        Ok(())
    }
}

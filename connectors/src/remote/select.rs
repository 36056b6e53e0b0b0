//! One statement for one source: a small relational tree.
//!
//! Each level is a SELECT, whose clauses are filled in the order in which SQL evaluates them. What comes earlier in that order than what is there already
//! goes round it: the level becomes a derived table. Columns of derived tables are called `c0`, `c1` and so on, so that no name of a user's is part of it.

use std::fmt::Write;

use minerva_resources::Address;

use super::cost::Estimate;
use super::dialect::{Form, Value};
use super::fence::{Fence, Fenced, Shown, fences_of};

/// The statement that a source runs for part of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RemoteQuery {
    /// Every dataset that it reads outside of its fences.
    pub addresses: Vec<Address>,
    /// The governed tables that it reads, each behind its fence.
    pub fences: Vec<Fence>,
    /// From SELECT to the end of the FROM clause.
    pub select: String,
    /// The conditions of WHERE.
    pub conditions: Vec<String>,
    /// What follows WHERE, with a blank before it.
    pub rest: String,
    /// Whether it reads one table row by row, so that pieces of the table can be read apart.
    pub divisible: bool,
    /// Whether no LIMIT can be put at its end.
    pub limited: bool,
    /// Whether each of its columns means the same there as here when it is compared.
    pub compared: Vec<bool>,
    /// For each of its columns, the one inside its only fence that it is, where conditions on that may be said inside.
    pub(crate) inside: Vec<Option<Shown>>,
    /// What stands before and after all that, when a condition was found later.
    pub around: Option<(String, String)>,
}

impl RemoteQuery {
    /// The statement, with one condition more and with a limit.
    pub fn text(&self, condition: Option<&str>, limit: Option<usize>) -> String {
        let outside = self.outside(condition, limit);
        match self.fences.is_empty() {
            true => outside,
            false => {
                let fences: Vec<String> = self.fences.iter().map(Fence::sql).collect();
                format!("WITH {} {outside}", fences.join(", "))
            }
        }
    }

    /// Every dataset that it reads.
    pub fn datasets(&self) -> impl Iterator<Item = &Address> {
        self.addresses
            .iter()
            .chain(self.fences.iter().map(|fence| &fence.address))
    }

    /// The statement without the insides of its fences.
    pub fn outside(&self, condition: Option<&str>, limit: Option<usize>) -> String {
        let mut sql = self.select.clone();
        let conditions = condition.into_iter().chain(self.conditions.iter().map(String::as_str));
        for (position, condition) in conditions.enumerate() {
            sql.push_str(if position == 0 { " WHERE " } else { " AND " });
            sql.push_str(condition);
        }
        sql.push_str(&self.rest);
        if let Some((before, after)) = &self.around {
            sql = format!("{before}{sql}{after}");
        }
        if let Some(limit) = limit {
            push_limit(&mut sql, limit);
        }
        sql
    }
}

/// Where a SELECT has its rows from.
#[derive(Debug, Clone)]
pub(super) enum From {
    /// A table, as its dialect writes it.
    Table(String),
    /// A governed table.
    Fence(Fenced),
    /// Another SELECT, and what it is called.
    Derived(Box<Select>, &'static str),
    /// The rows of several others, one after another.
    Union(Vec<Select>),
    /// Two others. `word` is the kind of join, and `fence` ends each of them.
    Join {
        left: Box<Select>,
        word: &'static str,
        fence: &'static str,
        right: Box<Select>,
        on: String,
    },
}

/// The names of derived tables. Each level has its own, and none sees those inside another.
pub(super) const DERIVED: &str = "d";
pub(super) const LEFT: &str = "l";
pub(super) const RIGHT: &str = "r";

/// A SELECT while it grows.
#[derive(Debug, Clone)]
pub(super) struct Select {
    /// What it reads outside of its fences.
    pub(super) addresses: Vec<Address>,
    pub(super) fences: Vec<Fence>,
    pub(super) from: From,
    pub(super) filters: Vec<String>,
    /// What it is grouped by; no keys is one group.
    pub(super) groups: Option<Vec<String>>,
    pub(super) having: Vec<String>,
    pub(super) outputs: Vec<Value>,
    pub(super) order: Vec<String>,
    /// What has a limit does not grow any more.
    pub(super) limit: Option<usize>,
    /// How many rows it leaves out before those.
    pub(super) skip: usize,
    pub(super) estimate: Estimate,
    /// How many SELECTs are inside one another, and how long those inside are.
    pub(super) depth: usize,
    pub(super) inside: usize,
}

/// Beyond these a database or its client may refuse a statement: SELECTs inside one another, bytes, columns.
const DEEPEST: usize = 32;
const LONGEST: usize = 4 << 20;
const MOST_COLUMNS: usize = 1600;

impl Select {
    pub(super) fn over(from: From, addresses: Vec<Address>, outputs: Vec<Value>, estimate: Estimate) -> Select {
        let inside = from.selects();
        let depth = inside.iter().map(|select| select.depth + 1).max().unwrap_or_default();
        let fences = match &from {
            From::Fence(fenced) => vec![fenced.fence().clone()],
            _ => fences_of(inside.iter().copied()),
        };
        let inside = inside.into_iter().map(Select::length).sum();
        Select {
            depth,
            inside,
            addresses,
            fences,
            from,
            filters: Vec::new(),
            groups: None,
            having: Vec::new(),
            outputs,
            order: Vec::new(),
            limit: None,
            skip: 0,
            estimate,
        }
    }

    /// About how many bytes the statement has.
    fn length(&self) -> usize {
        let texts = self
            .filters
            .iter()
            .chain(&self.having)
            .chain(&self.order)
            .chain(self.groups.iter().flatten());
        let values = self.outputs.iter().map(|value| &value.sql);
        self.inside + texts.chain(values).map(String::len).sum::<usize>()
    }

    /// Whether it is one that databases take.
    pub(super) fn is_fit(&self) -> bool {
        self.depth <= DEEPEST && self.outputs.len() <= MOST_COLUMNS && self.length() <= LONGEST
    }

    /// A condition with another SELECT in it.
    pub(super) fn filter_with(&mut self, condition: String, other: &Select) {
        self.depth = self.depth.max(other.depth + 1);
        self.fences = fences_of([&*self, other]);
        self.filters.push(condition);
    }

    /// A SELECT of the rows of this one.
    pub(super) fn derived(self) -> Select {
        let outputs = self.outputs_of(DERIVED);
        let (addresses, estimate) = (self.addresses.clone(), self.estimate);
        Select::over(From::Derived(Box::new(self), DERIVED), addresses, outputs, estimate)
    }

    /// Its columns as they are called outside of it.
    pub(super) fn outputs_of(&self, alias: &str) -> Vec<Value> {
        let called = |(at, value): (usize, &Value)| Value {
            found_by_index: value.found_by_index && self.is_flat(),
            ..value.called(format!("{alias}.c{at}"))
        };
        self.outputs.iter().enumerate().map(called).collect()
    }

    /// This one, or one around it, that can be grouped.
    pub(super) fn ungrouped(self) -> Select {
        match self.groups.is_some() {
            true => self.derived(),
            false => self,
        }
    }

    /// Keeps the rows for which a condition over its columns is true.
    pub(super) fn keep(&mut self, condition: String) {
        match self.groups {
            Some(_) => self.having.push(condition),
            None => self.filters.push(condition),
        }
    }

    /// Whether it reads one table row by row.
    pub(super) fn is_flat(&self) -> bool {
        matches!(self.from, From::Table(_)) && self.groups.is_none() && self.limit.is_none()
    }

    /// The statement.
    pub(super) fn query(&self) -> RemoteQuery {
        let mut rest = String::new();
        if let Some(groups) = self.groups.as_ref().filter(|groups| !groups.is_empty()) {
            push(&mut rest, format_args!(" GROUP BY {}", groups.join(", ")));
        }
        if !self.having.is_empty() {
            push(&mut rest, format_args!(" HAVING {}", self.having.join(" AND ")));
        }
        if !self.order.is_empty() {
            push(&mut rest, format_args!(" ORDER BY {}", self.order.join(", ")));
        }
        if let Some(limit) = self.limit {
            push_limit(&mut rest, limit);
        }
        if self.skip > 0 {
            push(&mut rest, format_args!(" OFFSET {}", self.skip.min(i64::MAX as usize)));
        }
        RemoteQuery {
            addresses: self.addresses.clone(),
            fences: self.fences.clone(),
            select: format!("SELECT {} FROM {}", self.columns(), self.from.text()),
            conditions: self.filters.clone(),
            rest,
            divisible: self.is_flat(),
            limited: self.limit.is_some(),
            compared: self
                .outputs
                .iter()
                .map(|value| !matches!(value.form, Form::Opaque { .. }))
                .collect(),
            inside: match &self.from {
                From::Fence(fenced) if self.groups.is_none() && self.limit.is_none() => {
                    self.outputs.iter().map(|value| fenced.shown(value)).collect()
                }
                _ => Vec::new(),
            },
            around: None,
        }
    }

    fn columns(&self) -> String {
        let column = |(at, value): (usize, &Value)| format!("{} AS c{at}", value.sql);
        let columns: Vec<String> = self.outputs.iter().enumerate().map(column).collect();
        match columns.is_empty() {
            // Not every database knows rows without a column.
            true => "1 AS c0".to_owned(),
            false => columns.join(", "),
        }
    }

    /// It without its fences, which stand before the whole statement.
    pub(super) fn text(&self) -> String {
        self.query().outside(None, None)
    }

    /// It as part of a FROM clause.
    pub(super) fn named(&self, alias: &str) -> String {
        format!("({}) AS {alias}", self.text())
    }
}

impl From {
    fn selects(&self) -> Vec<&Select> {
        match self {
            From::Table(_) => Vec::new(),
            From::Derived(select, _) => vec![select],
            From::Fence(fenced) => vec![&fenced.inside],
            From::Union(parts) => parts.iter().collect(),
            From::Join { left, right, .. } => vec![left, right],
        }
    }

    fn text(&self) -> String {
        match self {
            From::Table(table) => table.clone(),
            From::Fence(fenced) => fenced.name(),
            From::Derived(select, alias) => select.named(alias),
            From::Union(parts) => {
                // None has a limit, and not every database takes parentheses here.
                let parts: Vec<String> = parts.iter().map(Select::text).collect();
                format!("({}) AS {DERIVED}", parts.join(" UNION ALL "))
            }
            From::Join {
                left,
                word,
                fence,
                right,
                on,
            } => {
                let (left, right) = (left.text(), right.text());
                if *word == RIGHT_JOIN {
                    // SQLite looks through all rows of what stands right of a RIGHT JOIN, for each row.
                    return format!("({right}{fence}) AS {RIGHT} LEFT JOIN ({left}{fence}) AS {LEFT} ON {on}");
                }
                format!("({left}{fence}) AS {LEFT} {word} ({right}{fence}) AS {RIGHT} ON {on}")
            }
        }
    }
}

/// How a join of all rows of the right side is told apart; it is written from that side.
pub(super) const RIGHT_JOIN: &str = "RIGHT JOIN";

fn push_limit(sql: &mut String, limit: usize) {
    // Databases count in 64 bits with a sign.
    push(sql, format_args!(" LIMIT {}", limit.min(i64::MAX as usize)));
}

fn push(sql: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = sql.write_fmt(text);
}

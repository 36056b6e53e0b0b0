//! Governed tables inside statements: a fence, round which a statement may grow.
//!
//! In: what lies below a policy's barrier, which is the scan of one table, its row filter, the conditions that the policy lets through, and masks. Out: a SELECT of
//! its own that holds all of it, which the source computes by itself before anything outside of it is looked at; or nothing, and then the barrier stays here. What
//! stands above the barrier only ever sees the columns of the fence.
//!
//! This crate knows no policy: what is a barrier, and what must stand over a leaf that has taken one in, is told by who governs ([`Fences`]). Nothing is left out
//! and nothing is added inside, and nothing is computed there that the source does not compute as it is computed here.

use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{LogicalPlan, TableType};
use minerva_resources::Address;

use super::cost::UNKNOWN_ROWS;
use super::dialect::{Form, Value};
use super::grow::{Grown, PushDown, Taken, Visited, grow};
use super::select::{From, Select};
use crate::{RemoteTable, Split};

/// A governed table in a statement.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fence {
    /// Which of the statement's fences it is; no other fence of the plan has this number.
    pub number: usize,
    /// The table.
    pub address: Address,
    /// Which masks and filters it holds.
    pub fingerprint: String,
    /// Its beginning, to the end of its FROM clause.
    pub before: String,
    /// The conditions of its WHERE.
    pub conditions: Vec<String>,
    /// Its end.
    pub after: String,
}

impl Fence {
    /// It, as it stands before the statement.
    pub fn sql(&self) -> String {
        let mut sql = self.before.clone();
        for (at, condition) in self.conditions.iter().enumerate() {
            sql.push_str(if at == 0 { " WHERE " } else { " AND " });
            sql.push_str(condition);
        }
        sql.push_str(&self.after);
        sql
    }
}

/// A column inside a fence whose raw values are shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Shown {
    pub(crate) sql: String,
    pub(crate) data_type: DataType,
    pub(crate) form: Form,
}

impl Shown {
    /// It as a value inside of the fence.
    pub(super) fn value(&self) -> Value {
        Value::new(self.sql.clone(), self.data_type.clone(), self.form)
    }
}

/// A barrier that a statement may take in.
#[derive(Debug)]
pub struct Opened {
    /// A number that no other barrier of the plan has.
    pub number: usize,
    /// The table.
    pub address: Address,
    /// Which masks and filters govern it.
    pub fingerprint: String,
    /// For each column, whether its raw values are shown, so that what joins tell of it while they run may be said below the barrier.
    pub shown: Vec<bool>,
    /// What lies below the barrier. All of it is in the fence, or the barrier stays.
    pub inside: LogicalPlan,
}

/// Who governs tables, as far as push-down has to ask.
pub trait Fences: Sync {
    /// What lies below a node that is a barrier; `None` for other nodes, and for barriers that must stay.
    fn open(&self, node: &LogicalPlan) -> Option<Opened>;

    /// Puts what governs its fences over a leaf. `outside` is the leaf's statement without the insides of its fences.
    ///
    /// # Errors
    /// When a fence is none of those that were opened.
    fn close(&self, leaf: LogicalPlan, fences: &[Fence], outside: String) -> Result<LogicalPlan>;
}

/// What a statement calls a fence.
fn name_of(number: usize) -> String {
    format!("f{number}")
}

/// A SELECT behind a fence.
#[derive(Debug, Clone)]
pub(super) struct Fenced {
    pub(super) inside: Box<Select>,
    fence: Fence,
    shown: Vec<bool>,
}

impl Fenced {
    /// What the statement calls it.
    pub(super) fn name(&self) -> String {
        name_of(self.fence.number)
    }

    /// The column inside that a value outside is, if it is one whose raw values are shown.
    pub(super) fn shown(&self, outside: &Value) -> Option<Shown> {
        let place = outside.sql.strip_prefix(&self.name())?.strip_prefix(".c")?;
        let place = place.parse::<usize>().ok()?;
        let inside = self.inside.outputs.get(place)?;
        (self.shown.get(place) == Some(&true)).then(|| Shown {
            sql: inside.sql.clone(),
            data_type: inside.data_type.clone(),
            form: inside.form,
        })
    }

    /// It, as it travels with the statement.
    pub(super) fn fence(&self) -> &Fence {
        &self.fence
    }
}

impl PushDown<'_> {
    /// What a node that is none of DataFusion's becomes: a barrier may be the beginning of a statement; of other nodes nothing is known.
    pub(super) fn extension(&self, plan: LogicalPlan) -> Visited {
        let found = self.fences.and_then(|fences| fences.open(&plan));
        match found.and_then(|opened| self.fence(opened)) {
            Some((grown, cost)) => Visited {
                plan,
                cost,
                rows: grown.select.estimate.rows,
                grown: Some(grown),
                first: None,
                stayed: Vec::new(),
            },
            None => Visited::whole(plan),
        }
    }

    /// The statement that a barrier is, and what it costs to leave the barrier where it is.
    fn fence(&self, opened: Opened) -> Option<(Grown, f64)> {
        let inside = self.inside(&opened.inside)?;
        let (select, dialect) = (inside.select, inside.dialect);
        // Whose barrier it is, and what is read below it, must be the same.
        if select.addresses != [opened.address.clone()] {
            return None;
        }
        let columns = select.outputs.len();
        let name = name_of(opened.number);
        let query = select.query();
        if opened.shown.len() != columns || !query.divisible || !query.rest.is_empty() {
            return None;
        }
        let (before, after) = dialect.fence(&name)?;
        let fence = Fence {
            number: opened.number,
            before: before + &query.select,
            conditions: query.conditions,
            after,
            address: opened.address,
            fingerprint: opened.fingerprint,
        };
        // No more is known of a column than its type: nothing of the values behind the fence, hidden ones among them. Where the barrier stays, rows are found by
        // an index as before; outside of a fence nothing is.
        let outside = |(at, value): (usize, &Value)| Value {
            found_by_index: value.found_by_index && opened.shown.get(at) == Some(&true),
            ..Value::new(format!("{name}.c{at}"), value.data_type.clone(), value.form)
        };
        let outputs: Vec<Value> = select.outputs.iter().enumerate().map(outside).collect();
        let (estimate, there) = (select.estimate, select.estimate.fenced(columns));
        let from = From::Fence(Fenced {
            inside: Box::new(select),
            fence,
            shown: opened.shown,
        });
        let grown = Grown {
            is_scan: true,
            ..Grown::whole(Select::over(from, Vec::new(), outputs, there), dialect)
        };
        // A table of so many rows is read by one connection. How large this one is, with its hidden rows, must not matter.
        Some((grown, estimate.cost(columns, false)))
    }

    /// The SELECT of all that lies below a barrier.
    fn inside(&self, plan: &LogicalPlan) -> Option<Grown> {
        match plan {
            LogicalPlan::TableScan(scan) if scan.fetch.is_none() => {
                let provider = source_as_provider(&scan.source).ok()?;
                let table = provider.downcast_ref::<RemoteTable>()?;
                // What a view computes may fail, and say so by the values of hidden rows.
                if table.table_type() != TableType::Base {
                    return None;
                }
                let mut grown = self.scan_of(scan, table, false)?;
                grown.splits = vec![Split::Whole];
                grown.snapshots = None;
                Some(grown)
            }
            LogicalPlan::Filter(_) | LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
                let inputs: Vec<LogicalPlan> = plan.inputs().into_iter().cloned().collect();
                let [input] = <[LogicalPlan; 1]>::try_from(inputs).ok()?;
                let grown = self.inside(&input)?;
                let below = Visited {
                    plan: input,
                    cost: 0.0,
                    rows: UNKNOWN_ROWS,
                    grown: Some(grown),
                    first: None,
                    stayed: Vec::new(),
                };
                match grow(plan, &[below]).ok()? {
                    Taken::Whole(grown) => Some(grown),
                    Taken::Part { .. } | Taken::Skipped(_) | Taken::Nothing => None,
                }
            }
            _ => None,
        }
    }

    /// Puts what governs its fences over a leaf whose statement has some.
    pub(super) fn closed(
        &self,
        leaf: LogicalPlan,
        fences: &[Fence],
        outside: impl FnOnce() -> String,
    ) -> Result<LogicalPlan> {
        match self.fences {
            _ if fences.is_empty() => Ok(leaf),
            Some(who) => who.close(leaf, fences, outside()),
            None => datafusion::common::internal_err!("a statement has a fence that nobody opened"),
        }
    }
}

/// Every fence of several statements.
pub(super) fn fences_of<'a>(selects: impl IntoIterator<Item = &'a Select>) -> Vec<Fence> {
    let mut all: Vec<Fence> = Vec::new();
    for fence in selects.into_iter().flat_map(|select| &select.fences) {
        if !all.contains(fence) {
            all.push(fence.clone());
        }
    }
    all
}

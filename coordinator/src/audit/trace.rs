//! What is decided while a statement is planned: its kind, its tables with the policies that were applied, its plan.
//!
//! In: notes from where the decisions are made. Out: a [`Traced`] for the statement's record. The notes find their statement by the task that
//! plans it, so that the steps of planning need not hand a record on to each other; outside of a statement they go nowhere.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use datafusion::logical_expr::LogicalPlan;
use minerva_policy::{AccessDecision, Opaque, PolicyRef, Verdict};
use minerva_resources::Address;
use serde_json::{Value, json};

use super::reads;

/// How many tables of one statement are recorded; a statement that names more is recorded without the rest, and says so.
const MOST_TABLES: usize = 500;
/// How many characters of a name are kept. Somebody who asks after names of any length must not fill the disk.
const LONGEST_NAME: usize = 500;

tokio::task_local! {
    static CURRENT: Arc<Trace>;
}

/// The notes of one statement.
#[derive(Debug, Default)]
pub(crate) struct Trace(Mutex<Traced>);

/// What was noted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traced {
    /// What kind of statement it is, once it was understood.
    pub(crate) kind: Option<&'static str>,
    /// The version of the resources that it was decided under.
    pub(crate) resources: Option<String>,
    tables: Vec<TableDecision>,
    left_out: usize,
    /// The plans of its queries, before anything was moved in them.
    plans: Vec<Opaque<LogicalPlan>>,
}

/// What was decided about one table.
#[derive(Debug, Clone)]
struct TableDecision {
    address: Address,
    predicate: Cow<'static, str>,
    decision: &'static str,
    access: Vec<String>,
    filters: Vec<String>,
    masks: Vec<Mask>,
    hidden: Vec<String>,
}

#[derive(Debug, Clone)]
struct Mask {
    path: String,
    operator: &'static str,
    policy: Arc<PolicyRef>,
}

/// Does the work of a statement, with its notes gathered in `trace`.
pub(crate) async fn gathering<F: Future>(trace: Arc<Trace>, work: F) -> F::Output {
    CURRENT.scope(trace, work).await
}

/// Notes something of the statement that this task plans.
pub(crate) fn note(what: impl FnOnce(&mut Traced)) {
    // Outside of a statement, as when a driver lists tables, there is nothing to note.
    let _ = CURRENT.try_with(|trace| what(&mut trace.0.lock().unwrap_or_else(PoisonError::into_inner)));
}

/// Notes what was decided about a table that the statement reads.
pub(crate) fn decided(address: &Address, access: &AccessDecision, verdict: Option<&Verdict>) {
    note(|traced| {
        let mut table = TableDecision::new(address, "select", access);
        match verdict {
            None | Some(Verdict::Deny(_)) => table.decision = "DENIED",
            Some(Verdict::Closed(closed)) => {
                table.decision = "CLOSED";
                table.filters = names(&closed.because);
            }
            Some(Verdict::Allow(governance)) => {
                let filters = governance.filters.iter().map(|filter| filter.because.name.clone());
                table.filters = filters.collect();
                let masks = governance.masks.iter().map(|mask| Mask {
                    path: mask.path.join("."),
                    operator: mask.mask.name(),
                    policy: Arc::clone(&mask.because),
                });
                table.masks = masks.collect();
                table.hidden = governance.hidden.iter().map(|hidden| hidden.name.clone()).collect();
            }
        }
        traced.add(table);
    });
}

/// Notes what was decided about a table for another deed than selecting.
pub(crate) fn written(address: &Address, predicate: impl Into<Cow<'static, str>>, access: &AccessDecision) {
    note(|traced| {
        let mut table = TableDecision::new(address, predicate, access);
        if !access.allowed {
            table.decision = "DENIED";
        }
        traced.add(table);
    });
}

/// The beginning of a text that is too long to be kept, with a mark at its end.
pub(crate) fn shortened(text: &str, longest: usize) -> Cow<'_, str> {
    match text.char_indices().nth(longest) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}...", text.get(..end).unwrap_or_default())),
    }
}

/// Notes that a table was not there.
pub(crate) fn absent(address: &Address) {
    note(|traced| traced.absent(address));
}

fn names(policies: &[Arc<PolicyRef>]) -> Vec<String> {
    policies.iter().map(|policy| policy.name.clone()).collect()
}

impl TableDecision {
    fn new(address: &Address, predicate: impl Into<Cow<'static, str>>, access: &AccessDecision) -> Self {
        Self {
            address: address.clone(),
            predicate: predicate.into(),
            decision: "ALLOWED",
            access: names(&access.because),
            filters: Vec::new(),
            masks: Vec::new(),
            hidden: Vec::new(),
        }
    }

    /// The table as records have it. `read` names the columns that the statement reads of it.
    fn to_json(&self, read: &[String]) -> Value {
        let inside = |mask: &&Mask, column: &String| {
            let rest = mask.path.strip_prefix(column.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let mut columns = Vec::new();
        for column in read {
            let masks: Vec<&Mask> = self.masks.iter().filter(|mask| inside(mask, column)).collect();
            if !masks.iter().any(|mask| mask.path == *column) {
                columns.push(json!({ "name": column, "policyname": null, "mask": null }));
            }
            for mask in masks {
                columns.push(json!({
                    "name": mask.path,
                    "policyname": mask.policy.name,
                    "mask": mask.operator,
                    "priority": mask.policy.priority,
                }));
            }
        }
        let policies = (!self.filters.is_empty()).then(|| self.filters.join(", "));
        json!({
            "catalog": shortened(&self.address.depot, LONGEST_NAME),
            "schema": shortened(&self.address.collection, LONGEST_NAME),
            "table": shortened(&self.address.dataset, LONGEST_NAME),
            "predicate": shortened(&self.predicate, LONGEST_NAME),
            "decision": self.decision,
            "access": self.access,
            "policyname": policies,
            "hidden": self.hidden,
            "columns": columns,
        })
    }
}

impl Traced {
    /// Notes that a table is named, and whether it may be selected.
    pub(crate) fn named(&mut self, address: &Address, access: &AccessDecision) {
        let mut table = TableDecision::new(address, "select", access);
        if !access.allowed {
            table.decision = "DENIED";
        }
        self.add(table);
    }

    /// Forgets what was allowed of a table that its user was told does not exist. They read what is noted, and a denied table leaves nothing that
    /// they see.
    fn absent(&mut self, address: &Address) {
        self.tables
            .retain(|table| table.decision == "DENIED" || table.address != *address);
    }

    fn add(&mut self, table: TableDecision) {
        let same = |known: &TableDecision| known.address == table.address && known.predicate == table.predicate;
        if let Some(known) = self.tables.iter_mut().find(|known| same(known)) {
            // What was allowed as a whole may be denied for a column.
            if table.decision == "DENIED" {
                *known = table;
            }
            return;
        }
        match self.tables.len() < MOST_TABLES {
            true => self.tables.push(table),
            false => self.left_out += 1,
        }
    }

    /// Forgets what was decided of tables that have changed meanwhile: it is decided again.
    pub(crate) fn begin_again(&mut self) {
        self.tables.clear();
        self.left_out = 0;
        self.plans.clear();
    }

    /// Notes the plan of a query, before any of it was moved.
    pub(crate) fn planned(&mut self, plan: &LogicalPlan) {
        self.plans.push(Opaque::new(plan.clone()));
    }

    /// The tables without their columns, for when the plans cannot be looked through.
    pub(crate) fn tables_unread(&self) -> Value {
        let tables = self.tables.iter().map(|table| table.to_json(&[]));
        tables.chain([json!({ "unreadable": "columns" })]).collect()
    }

    /// The tables as records have them. Finding the columns takes a while: it is done by the thread that writes.
    pub(crate) fn tables(&self) -> Value {
        let mut read: BTreeMap<Address, Vec<String>> = BTreeMap::new();
        for plan in &self.plans {
            reads::gather(plan, &mut read);
        }
        let none = Vec::new();
        let mut tables: Vec<Value> = self
            .tables
            .iter()
            .map(|table| match table.predicate.as_ref() {
                "select" => table.to_json(read.get(&table.address).unwrap_or(&none)),
                _ => table.to_json(&none),
            })
            .collect();
        if self.left_out > 0 {
            tables.push(json!({ "left_out": self.left_out }));
        }
        Value::Array(tables)
    }
}

impl Trace {
    /// Takes what was noted.
    pub(crate) fn take(&self) -> Traced {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was noted so far.
    pub(crate) fn so_far(&self) -> Traced {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

//! What a decision says: a table is denied, closed, or governed by masks and row filters, always with the policy
//! that decided it.
//!
//! The masks and predicates here are compiled for one table and one principal. Putting them round the table is
//! `protect.rs`'s work; nothing here reads data.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, ScalarUDF};
use minerva_resources::Address;
use sha2::{Digest, Sha256};

use crate::access::AccessDecision;
use crate::mask::Mask;
use crate::opaque::Opaque;
use crate::rules::PolicyRef;

/// The answer to "may this principal read this table, and what of it".
#[derive(Debug, Clone)]
pub enum Verdict {
    /// The principal may not select from the table; to them it does not exist.
    Deny(AccessDecision),
    /// The principal may select, but a policy could not be applied: nothing of the table may be shown.
    Closed(ClosedTable),
    /// The principal may select what the masks and filters leave.
    Allow(Governance),
}

/// Why a table fails closed.
#[derive(Debug, Clone)]
pub struct ClosedTable {
    /// The table that is closed.
    pub address: Address,
    /// What is wrong and what to do; names every policy involved, never a value of the table.
    pub message: String,
    /// The policies that could not be applied; two when they contradict each other.
    pub because: Vec<Arc<PolicyRef>>,
}

impl fmt::Display for ClosedTable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "table `{}` is closed: {}", self.address, self.message)
    }
}

impl std::error::Error for ClosedTable {}

/// A mask compiled for one column (or a field inside it) of one table.
#[derive(Debug, Clone)]
pub struct ColumnMask {
    /// The column's name, then the way down to a nested field: field names, `element`, `key`, `value`.
    pub path: Vec<String>,
    /// The mask.
    pub mask: Arc<dyn Mask>,
    /// The policy it comes from.
    pub because: Arc<PolicyRef>,
    pub(crate) compiled: Compiled,
}

/// How a mask is written as an expression over its column.
#[derive(Debug, Clone)]
pub(crate) enum Compiled {
    /// A literal in the place of the column.
    Literal(ScalarValue),
    /// A function of the column and literals.
    Call {
        /// One of the functions that [`crate::mask_functions`] lists.
        function: Arc<ScalarUDF>,
        /// Its arguments after the column.
        arguments: Arc<[ScalarValue]>,
    },
}

impl ColumnMask {
    /// The name of the top-level column that is masked.
    pub fn column(&self) -> &str {
        self.path.first().map_or("", String::as_str)
    }

    /// The masked value of `column`, which is the top-level column or that column with other of its fields masked.
    ///
    /// The result has the column's type. It may be NULL even where the column is declared not to be.
    pub fn expr(&self, column: Expr) -> Expr {
        match &self.compiled {
            Compiled::Literal(value) => Expr::Literal(value.clone(), None),
            Compiled::Call { function, arguments } => {
                let literals = arguments.iter().map(|value| Expr::Literal(value.clone(), None));
                function.call(std::iter::once(column).chain(literals).collect())
            }
        }
    }
}

/// A predicate that a row must satisfy to be visible.
#[derive(Debug, Clone)]
pub struct RowFilter {
    /// A boolean expression over the table's unqualified columns, typed, with the principal's attributes filled in.
    /// NULL hides the row; an error that evaluating it raises carries no value.
    pub predicate: Opaque<Expr>,
    /// The policy it comes from.
    pub because: Arc<PolicyRef>,
}

/// A column that does not exist for a principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HiddenColumn {
    /// The column.
    pub name: String,
    /// Why it is hidden, for those who may read policies.
    pub because: String,
}

/// What governs one table for one principal.
#[derive(Debug, Clone, Default)]
pub struct Governance {
    /// The masks, in the order of the table's columns; no two overlap. Fields of one column may each have one.
    pub masks: Vec<ColumnMask>,
    /// The row filters; all of them must hold.
    pub filters: Vec<RowFilter>,
    /// The columns that do not exist for the principal; filters may still read them.
    pub hidden: Vec<HiddenColumn>,
    /// Differs whenever masks, filters or hidden columns differ, the principal's attributes in them included: empty for an open table,
    /// else 32 hexadecimal digits.
    pub fingerprint: String,
}

impl Governance {
    /// Puts masks and filters together; no column is hidden.
    pub fn new(masks: Vec<ColumnMask>, filters: Vec<RowFilter>) -> Self {
        Self::hiding(vec![], masks, filters)
    }

    /// Puts masks and filters together, and leaves columns out.
    pub fn hiding(hidden: Vec<HiddenColumn>, masks: Vec<ColumnMask>, filters: Vec<RowFilter>) -> Self {
        let fingerprint = fingerprint(&hidden, &masks, &filters);
        Self {
            masks,
            filters,
            hidden,
            fingerprint,
        }
    }

    /// True when nothing is masked and no row or column is hidden.
    pub fn is_open(&self) -> bool {
        self.masks.is_empty() && self.filters.is_empty() && self.hidden.is_empty()
    }

    /// Whether the column does not exist for the principal.
    pub fn hides(&self, column: &str) -> bool {
        self.hidden.iter().any(|hidden| hidden.name == column)
    }

    /// The masked value of the top-level column `name`, or `None` when nothing of it is masked.
    pub fn masked(&self, name: &str, column: Expr) -> Option<Expr> {
        let mut masks = self.masks.iter().filter(|mask| mask.column() == name).peekable();
        masks.peek()?;
        Some(masks.fold(column, |inner, mask| mask.expr(inner)))
    }

    /// The columns that row filters are about.
    pub fn filtered_columns(&self) -> BTreeSet<String> {
        let columns = self.filters.iter().flat_map(|filter| filter.predicate.column_refs());
        columns.map(|column| column.name.clone()).collect()
    }

    /// The top-level columns of which something is masked.
    pub fn masked_columns(&self) -> BTreeSet<String> {
        self.masks.iter().map(|mask| mask.column().to_owned()).collect()
    }

    /// The conjunction of all row filters, or `None` when every row is visible.
    pub fn predicate(&self) -> Option<Expr> {
        self.filters
            .iter()
            .map(|filter| Expr::clone(&filter.predicate))
            .reduce(Expr::and)
    }
}

fn fingerprint(hidden: &[HiddenColumn], masks: &[ColumnMask], filters: &[RowFilter]) -> String {
    if masks.is_empty() && filters.is_empty() && hidden.is_empty() {
        return String::new();
    }
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    for column in hidden {
        add("hidden");
        add(&column.name);
    }
    for mask in masks {
        add("mask");
        mask.path.iter().for_each(|segment| add(segment));
        add(&mask.mask.describe());
    }
    for filter in filters {
        add("filter");
        add(&filter.predicate.to_string());
    }
    let digest = hash.finalize();
    crate::mask::text::lower_hex(digest.get(..16).unwrap_or_default())
}

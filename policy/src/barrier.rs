//! The policy barrier as a logical node: what no optimizer rule of DataFusion knows how to cross.
//!
//! In goes the plan of a governed table (masks over row filters over the raw scan), out come the same rows and
//! columns. Above it stand a user's expressions, below it only the policy's and what [`crate::leakproof`] lets
//! through. The node itself changes no row; it decides nothing and is never removed.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::common::{Column, DFSchema, DFSchemaRef, Result, internal_err};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Filter, InvariantLevel, LogicalPlan, UserDefinedLogicalNodeCore};
use minerva_resources::Address;

/// Whose barrier it is: one table under the policies compiled for one principal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seal {
    /// The governed table.
    pub address: Address,
    /// The fingerprint of its [`crate::Governance`].
    pub fingerprint: String,
}

/// What a barrier knows of one column that leaves it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BarrierColumn {
    /// The column's name.
    pub name: String,
    /// True when a mask stands in place of the raw values, wholly or in part.
    pub masked: bool,
}

/// The logical barrier round one governed table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyBarrier {
    seal: Arc<Seal>,
    columns: Vec<BarrierColumn>,
    /// Predicates without a column that an optimizer rule wanted below; they are evaluated above.
    guards: Vec<Expr>,
    /// Leakproof predicates that were moved below.
    passed: Vec<Expr>,
    input: Arc<LogicalPlan>,
    schema: DFSchemaRef,
}

impl PolicyBarrier {
    /// Puts a barrier over `input`, whose output columns must be `columns` in the same order.
    pub fn try_new(seal: Arc<Seal>, columns: Vec<BarrierColumn>, input: LogicalPlan) -> Result<Self> {
        let schema = Arc::new(bare_schema(input.schema())?);
        let barrier = Self {
            seal,
            columns,
            guards: Vec::new(),
            passed: Vec::new(),
            input: Arc::new(input),
            schema,
        };
        barrier.check_columns()?;
        Ok(barrier)
    }

    /// Whose barrier it is.
    pub fn seal(&self) -> &Arc<Seal> {
        &self.seal
    }

    /// The columns that leave the barrier, in the order of its schema.
    pub fn columns(&self) -> &[BarrierColumn] {
        &self.columns
    }

    /// The plan below.
    pub fn input(&self) -> &Arc<LogicalPlan> {
        &self.input
    }

    /// The predicates of a user that are evaluated at the barrier, just above it.
    pub(crate) fn guards(&self) -> &[Expr] {
        &self.guards
    }

    /// All predicates of a user that belong to the scan, as texts.
    pub(crate) fn filters(&self) -> Vec<String> {
        self.passed
            .iter()
            .chain(&self.guards)
            .map(ToString::to_string)
            .collect()
    }

    /// The same barrier with `predicates` evaluated below it. They must be leakproof.
    ///
    /// A predicate is moved once: `push_down_filter` derives some from a join anew in each pass.
    pub(crate) fn pass(&self, predicates: Vec<Expr>) -> Result<Self> {
        let mut barrier = self.clone();
        let fresh: Vec<Expr> = predicates
            .into_iter()
            .filter(|predicate| !self.passed.contains(predicate))
            .collect();
        if let Some(predicate) = conjunction(fresh.iter().cloned()) {
            barrier.input = Arc::new(LogicalPlan::Filter(Filter::try_new(
                predicate,
                Arc::clone(&self.input),
            )?));
            barrier.passed.extend(fresh);
        }
        Ok(barrier)
    }

    pub(crate) fn is_open(&self, column: &Column) -> bool {
        self.columns
            .iter()
            .any(|known| known.name == column.name && !known.masked)
    }

    fn check_columns(&self) -> Result<()> {
        let names = self.schema.fields().iter().map(|field| field.name());
        if self.columns.len() != names.len() || !names.zip(&self.columns).all(|(name, column)| *name == column.name) {
            return internal_err!(
                "the policy barrier of `{}` does not know the columns of its input",
                self.seal.address
            );
        }
        Ok(())
    }

    /// The known columns in the order of `input`, or `None` when `input` computes something of its own.
    fn columns_of(&self, input: &LogicalPlan) -> Option<Vec<BarrierColumn>> {
        let known: HashMap<&str, &BarrierColumn> = self
            .columns
            .iter()
            .map(|column| (column.name.as_str(), column))
            .collect();
        let fields = input.schema().fields();
        fields
            .iter()
            .map(|field| known.get(field.name().as_str()).map(|column| (*column).clone()))
            .collect()
    }
}

/// The schema without metadata and functional dependencies: neither a file's notes nor a key of the raw table is
/// known above the barrier.
fn bare_schema(schema: &DFSchema) -> Result<DFSchema> {
    let fields = schema
        .iter()
        .map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)))
        .collect();
    DFSchema::new_with_metadata(fields, HashMap::new())
}

impl Hash for PolicyBarrier {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.seal.hash(state);
        self.columns.hash(state);
        self.guards.hash(state);
        self.passed.hash(state);
        self.input.hash(state);
    }
}

impl PartialOrd for PolicyBarrier {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let this = (&self.seal, &self.columns, &self.guards, &self.passed, &self.input);
        let that = (&other.seal, &other.columns, &other.guards, &other.passed, &other.input);
        this.partial_cmp(&that)
            .filter(|ordering| *ordering != Ordering::Equal || self == other)
    }
}

impl UserDefinedLogicalNodeCore for PolicyBarrier {
    fn name(&self) -> &str {
        "PolicyBarrier"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn check_invariants(&self, _check: InvariantLevel) -> Result<()> {
        self.check_columns()
    }

    fn expressions(&self) -> Vec<Expr> {
        self.guards.clone()
    }

    fn fmt_for_explain(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PolicyBarrier: {}", self.seal.address)?;
        write_filters(formatter, &self.filters())
    }

    /// Rebuilds the barrier over what an optimizer rule made of its input.
    ///
    /// A rule may only rewrite what is below or leave columns out. Two rules try more: `push_down_filter` pushes
    /// predicates that touch no column, which then would be evaluated for hidden rows (`CAST(random() || 'x' AS INT) > 0`
    /// fails if there is any row); they are kept and evaluated above. `push_down_leaf_projections` pushes field
    /// accesses as new columns; it gives up when the column does not come out again, so the old input is kept.
    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let Ok([input]) = <[LogicalPlan; 1]>::try_from(inputs) else {
            return internal_err!("the policy barrier of `{}` has one input", self.seal.address);
        };
        let mut barrier = Self {
            guards: exprs,
            ..self.clone()
        };
        if let LogicalPlan::Filter(filter) = &input
            && filter.predicate.column_refs().is_empty()
            && filter.input == self.input
        {
            barrier.guards.push(filter.predicate.clone());
            return Ok(barrier);
        }
        if let Some(columns) = self.columns_of(&input) {
            barrier.columns = columns;
            barrier.schema = Arc::new(bare_schema(input.schema())?);
            barrier.input = Arc::new(input);
        }
        Ok(barrier)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![output_columns.to_vec()])
    }

    /// A logical limit below the barrier would gather the partitions there, and distribution would then cut a stage
    /// between the scan and its barrier. The physical plan pushes the limit instead, one partition at a time.
    fn supports_limit_pushdown(&self) -> bool {
        false
    }
}

/// Writes predicates at the end of a scan's line.
pub(crate) fn write_filters(formatter: &mut fmt::Formatter<'_>, filters: &[String]) -> fmt::Result {
    if filters.is_empty() {
        Ok(())
    } else {
        write!(formatter, ", filters=[{}]", filters.join(", "))
    }
}

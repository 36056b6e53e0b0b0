//! A barrier that has become part of a statement of its source.
//!
//! In goes a [`PolicyBarrier`], out comes what lies below it in expressions that any source may know ([`OpenedBarrier`]), for a statement to hold as a fence of its
//! own: the same row filter, the same conditions that were let through, the same masks. Over the leaf that runs such a statement stands a [`PolicyFence`], which can
//! be made of opened barriers only. As the barrier does, it changes no row, hides what fails below it and is where printed plans end.
//!
//! A barrier stays what it is when anything below it is more than comparisons of columns with constants and masks that have an expression: then nothing inside can
//! fail, whatever hidden rows hold.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, Result, internal_err};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, Like, LogicalPlan, Operator, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use sha2::{Digest, Sha256};

use crate::barrier::{PolicyBarrier, Seal, write_filters};
use crate::fence_exec::PolicyFenceExec;
use crate::mask::MASKS;
use crate::protect::RAW_PREFIX;

/// A barrier that a statement may take in. Nothing but a barrier makes one.
#[derive(Debug, Clone)]
pub struct OpenedBarrier {
    seal: Arc<Seal>,
    columns: Vec<String>,
    shown: Vec<bool>,
    filters: Vec<String>,
    inside: LogicalPlan,
}

impl OpenedBarrier {
    /// The barrier that a node is, if a statement may take it in.
    pub fn of(node: &LogicalPlan) -> Option<Self> {
        let LogicalPlan::Extension(extension) = node else {
            return None;
        };
        let barrier = extension.node.as_any().downcast_ref::<PolicyBarrier>()?;
        let columns: Vec<String> = barrier.columns().iter().map(|column| column.name.clone()).collect();
        // Raw values are for the check of an UPDATE, which reads its rows in a transaction of its own.
        let has_raw = columns.iter().any(|name| name.starts_with(RAW_PREFIX));
        if !barrier.guards().is_empty() || has_raw {
            return None;
        }
        Some(Self {
            seal: Arc::clone(barrier.seal()),
            columns,
            shown: barrier.columns().iter().map(|column| !column.masked).collect(),
            filters: barrier.filters(),
            inside: plain_plan(barrier.input())?,
        })
    }

    /// Whose barrier it was.
    pub fn seal(&self) -> &Arc<Seal> {
        &self.seal
    }

    /// For each column, whether its raw values are shown: of others nothing that a user's join knows goes inside.
    pub fn shown(&self) -> Vec<bool> {
        self.shown.clone()
    }

    /// What lay below it: one scan with row filters, conditions that were let through, and masks.
    pub fn inside(&self) -> &LogicalPlan {
        &self.inside
    }

    /// The fence whose text this is, which was made of the inside.
    pub fn rendered(self, name: String, sql: &str) -> RenderedFence {
        RenderedFence {
            seal: FenceSeal {
                seal: Seal::clone(&self.seal),
                digest: fence_digest(sql),
            },
            name,
            columns: self.columns,
            filters: self.filters,
        }
    }
}

/// Which text a fence has: the same for the same text, and for no other.
pub fn fence_digest(sql: &str) -> String {
    crate::mask::text::lower_hex(&Sha256::digest(sql.as_bytes()))
}

/// Whose barrier a fence was, and its text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FenceSeal {
    /// The table, and what governs it.
    pub seal: Seal,
    /// The [`fence_digest`] of its text.
    pub digest: String,
}

/// A fence of a statement, as far as users may see it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RenderedFence {
    pub(crate) seal: FenceSeal,
    name: String,
    columns: Vec<String>,
    filters: Vec<String>,
}

impl fmt::Display for RenderedFence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.columns.join(", ");
        write!(
            formatter,
            "{}=[{}, columns=[{columns}]",
            self.name, self.seal.seal.address
        )?;
        write_filters(formatter, &self.filters)?;
        formatter.write_str("]")
    }
}

/// What lies below a barrier, with masks as expressions of SQL; `None` when it holds anything that could fail on a hidden row, or that has no such expression.
fn plain_plan(plan: &LogicalPlan) -> Option<LogicalPlan> {
    let mut fits = true;
    let plain = plan.clone().transform_down(|node| {
        fits &= matches!(
            node,
            LogicalPlan::Projection(_)
                | LogicalPlan::Filter(_)
                | LogicalPlan::SubqueryAlias(_)
                | LogicalPlan::TableScan(_)
        );
        if !fits {
            return Ok(Transformed::new(node, false, TreeNodeRecursion::Stop));
        }
        let schema = match node.inputs().as_slice() {
            [] => Arc::clone(node.schema()),
            inputs => Arc::new(merge_schema(inputs)),
        };
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let plain = plain_expr(expr, &schema, &mut fits)?;
            Ok(plain.update_data(|expr| name.restore(expr)))
        })
    });
    plain.ok().map(|plain| plain.data).filter(|_| fits)
}

fn plain_expr(expr: Expr, schema: &DFSchema, fits: &mut bool) -> Result<Transformed<Expr>> {
    expr.transform_down(|part| {
        if let Some(mask) = plain_mask(&part, schema) {
            return Ok(Transformed::new(mask, true, TreeNodeRecursion::Jump));
        }
        *fits &= cannot_fail(&part);
        let next = match *fits {
            true => TreeNodeRecursion::Continue,
            false => TreeNodeRecursion::Stop,
        };
        Ok(Transformed::new(part, false, next))
    })
}

/// The expression that a call of a mask is.
pub(crate) fn plain_mask(expr: &Expr, schema: &DFSchema) -> Option<Expr> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let mask = MASKS.iter().find(|mask| mask.function() == call.func.name())?;
    let (column, literals) = call.args.split_first()?;
    if !matches!(column, Expr::Column(_)) {
        return None;
    }
    let literals = literals.iter().map(|literal| match literal {
        Expr::Literal(value, _) => Some(value.clone()),
        _ => None,
    });
    let literals: Option<Vec<_>> = literals.collect();
    let data_type = column.get_type(schema).ok()?;
    let plain = mask.plain(column, &literals?, &data_type)?;
    (plain.get_type(schema).ok()? == data_type).then_some(plain)
}

/// Whether a part of an expression can be evaluated for every row, as long as its own parts can. Whether a cast can is for who asks to know.
pub fn cannot_fail(part: &Expr) -> bool {
    match part {
        Expr::BinaryExpr(binary) => matches!(
            binary.op,
            Operator::And
                | Operator::Or
                | Operator::Eq
                | Operator::NotEq
                | Operator::Lt
                | Operator::LtEq
                | Operator::Gt
                | Operator::GtEq
                | Operator::IsDistinctFrom
                | Operator::IsNotDistinctFrom
        ),
        Expr::Like(Like {
            case_insensitive: false,
            pattern,
            ..
        }) => matches!(pattern.as_ref(), Expr::Literal(..)),
        // A source is asked for conversions only that cannot fail there; row filters and what is let through have no others.
        Expr::Cast(_) => true,
        Expr::Column(_)
        | Expr::Literal(..)
        | Expr::Alias(_)
        | Expr::Not(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotUnknown(_)
        | Expr::Between(_)
        | Expr::InList(_) => true,
        _ => false,
    }
}

/// What stands over a leaf whose statement holds governed tables behind fences.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PolicyFence {
    fences: Vec<RenderedFence>,
    /// The statement without the insides of its fences.
    outside: String,
    leaf: Arc<LogicalPlan>,
}

impl PolicyFence {
    /// Stands over `leaf`, whose statement has these fences and, without their insides, this text.
    ///
    /// # Errors
    /// When there is no fence, or `leaf` is none.
    pub fn over(leaf: LogicalPlan, fences: Vec<RenderedFence>, outside: String) -> Result<LogicalPlan> {
        if fences.is_empty() || !leaf.inputs().is_empty() {
            return internal_err!("a policy's fence stands over a leaf that reads something governed");
        }
        let node = Arc::new(Self {
            fences,
            outside,
            leaf: Arc::new(leaf),
        });
        Ok(LogicalPlan::Extension(Extension { node }))
    }

    /// The statement as users may see it.
    pub(crate) fn shown(&self) -> String {
        let fences: Vec<String> = self.fences.iter().map(ToString::to_string).collect();
        format!("{}, sql={}", fences.join(", "), self.outside)
    }
}

impl PartialOrd for PolicyFence {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let ordering =
            (&self.fences, &self.outside, &self.leaf).partial_cmp(&(&other.fences, &other.outside, &other.leaf));
        ordering.filter(|ordering| *ordering != Ordering::Equal || self == other)
    }
}

impl UserDefinedLogicalNodeCore for PolicyFence {
    fn name(&self) -> &str {
        "PolicyFence"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.leaf]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.leaf.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables: Vec<String> = self
            .fences
            .iter()
            .map(|fence| fence.seal.seal.address.to_string())
            .collect();
        write!(formatter, "PolicyFence: {}", tables.join(", "))
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        // What the leaf asks for is what was checked; no rule has anything to change about it.
        match inputs.as_slice() {
            [leaf] if *leaf == *self.leaf => Ok(self.clone()),
            _ => internal_err!("a statement with a fence cannot be exchanged"),
        }
    }
}

/// Plans what stands over statements with fences; a query planner that runs such plans needs it.
#[derive(Debug, Default)]
pub struct FencePlanner;

#[async_trait]
impl ExtensionPlanner for FencePlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(fence) = node.as_any().downcast_ref::<PolicyFence>() else {
            return Ok(None);
        };
        let [leaf] = physical_inputs else {
            return internal_err!("a policy's fence stands over one leaf");
        };
        let seals = fence.fences.iter().map(|fence| fence.seal.clone()).collect();
        let exec = PolicyFenceExec::try_new(seals, Arc::clone(leaf))?;
        Ok(Some(Arc::new(exec.shown_as(fence.shown()))))
    }
}

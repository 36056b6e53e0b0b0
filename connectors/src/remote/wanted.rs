//! Columns that nobody above reads.
//!
//! In: a node and the columns that are wanted of it. Out: those that are wanted of its input, and a statement that sends no others. DataFusion leaves such
//! columns out of scans; what only a condition reads that a source decides is not known before the statement has grown.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};

use super::escape::Escape;
use super::grow::Grown;
use super::select::Select;

/// The columns that are read of a node; `None` for all that it has.
pub(super) type Wanted = Option<BTreeSet<Column>>;

/// What is wanted of the input of a node.
pub(super) fn wanted_below(plan: &LogicalPlan, wanted: &Wanted) -> Wanted {
    let beside = |exprs: &[&Expr]| {
        let mut all = wanted.clone()?;
        for expr in exprs {
            all.extend(read_by(expr)?);
        }
        Some(all)
    };
    match plan {
        LogicalPlan::Projection(node) => {
            let read: Option<Vec<BTreeSet<Column>>> = node.expr.iter().map(read_by).collect();
            Some(read?.into_iter().flatten().collect())
        }
        LogicalPlan::Filter(node) => beside(&[&node.predicate]),
        LogicalPlan::Sort(node) => beside(&node.expr.iter().map(|sort| &sort.expr).collect::<Vec<_>>()),
        LogicalPlan::Limit(_) => wanted.clone(),
        _ => None,
    }
}

/// The columns that an expression reads; `None` where a subquery in it may read others.
fn read_by(expr: &Expr) -> Wanted {
    let has_subquery = expr.exists(|part| {
        Ok(matches!(
            part,
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_)
        ))
    });
    let is_plain = has_subquery.is_ok_and(|has_subquery| !has_subquery);
    is_plain.then(|| expr.column_refs().into_iter().cloned().collect())
}

/// A statement for a node, and its way out, with the columns that are wanted of it.
pub(super) fn only_wanted(
    grown: &Grown,
    schema: &DFSchemaRef,
    escape: Option<Arc<Escape>>,
    wanted: &Wanted,
) -> Result<(Grown, DFSchemaRef, Option<Arc<Escape>>)> {
    let outputs = &grown.select.outputs;
    let whole = (grown.clone(), Arc::clone(schema), escape.clone());
    let is_group = grown.select.groups.as_ref().is_some_and(Vec::is_empty);
    // Without any of its values a group of everything would be no group.
    let Some(wanted) = wanted
        .as_ref()
        .filter(|_| !is_group && outputs.len() == schema.fields().len())
    else {
        return Ok(whole);
    };
    let is_wanted = |at: &usize| wanted.contains(&Column::from(schema.qualified_field(*at)));
    let mut kept: Vec<usize> = (0..outputs.len()).filter(is_wanted).collect();
    if kept.is_empty() && !outputs.is_empty() {
        // Its rows are counted by a column of them.
        kept.push(0);
    }
    if kept.len() == outputs.len() {
        return Ok(whole);
    }
    let fields = kept.iter().map(|at| schema.qualified_field(*at));
    let fields = fields.map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)));
    let schema = DFSchema::new_with_metadata(fields.collect(), schema.metadata().clone())?;
    let narrower = Grown {
        select: Select {
            outputs: kept.iter().filter_map(|at| outputs.get(*at).cloned()).collect(),
            ..grown.select.clone()
        },
        ..grown.clone()
    };
    let escape = match escape {
        None => None,
        Some(escape) => {
            let columns = schema.columns().into_iter().map(Expr::Column).collect();
            let instead = Projection::try_new(columns, Arc::new(escape.instead.clone()))?;
            Some(Arc::new(Escape {
                instead: LogicalPlan::Projection(instead),
                expected: escape.expected,
            }))
        }
    };
    Ok((narrower, Arc::new(schema), escape))
}

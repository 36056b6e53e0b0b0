//! Which columns of which tables a query reads.
//!
//! In: its plan as it was bound, before anything was moved. Out: the columns that its expressions need of each table. What a policy reads for
//! itself is not counted. Where that cannot be told, all columns of the table count as read.

use std::{collections::BTreeMap, panic::AssertUnwindSafe};

use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    datasource::source_as_provider,
    logical_expr::{Expr, LogicalPlan},
    optimizer::{OptimizerContext, OptimizerRule, optimize_projections::OptimizeProjections},
};
use minerva_policy::{PolicyBarrier, address_of};
use minerva_resources::Address;

/// Adds what a plan reads.
pub(super) fn gather(plan: &LogicalPlan, read: &mut BTreeMap<Address, Vec<String>>) {
    let pruned = std::panic::catch_unwind(AssertUnwindSafe(|| {
        OptimizeProjections::new().rewrite(plan.clone(), &OptimizerContext::new())
    }));
    let pruned = match pruned {
        Ok(Ok(pruned)) => pruned.data,
        _ => plan.clone(),
    };
    let walked = pruned.apply(|node| {
        add_node(node, read);
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                let subquery = match part {
                    Expr::ScalarSubquery(subquery) => Some(subquery),
                    Expr::InSubquery(within) => Some(&within.subquery),
                    Expr::Exists(exists) => Some(&exists.subquery),
                    _ => None,
                };
                if let Some(subquery) = subquery {
                    gather(&subquery.subquery, read);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        // What lies below a barrier, its policy reads.
        Ok(match node {
            LogicalPlan::Extension(extension) if extension.node.as_any().is::<PolicyBarrier>() => {
                TreeNodeRecursion::Jump
            }
            _ => TreeNodeRecursion::Continue,
        })
    });
    if walked.is_err() {
        // The text of the error may quote the plan.
        tracing::warn!("not all columns that a statement reads are recorded");
    }
}

fn add_node(node: &LogicalPlan, read: &mut BTreeMap<Address, Vec<String>>) {
    match node {
        LogicalPlan::Extension(extension) => {
            if let Some(barrier) = extension.node.as_any().downcast_ref::<PolicyBarrier>() {
                let names = barrier.columns().iter().map(|column| column.name.clone());
                add(read, &barrier.seal().address, names);
            }
        }
        LogicalPlan::TableScan(scan) => {
            if let Ok(table) = source_as_provider(&scan.source)
                && let Some(address) = address_of(table.as_ref())
            {
                let names = scan.projected_schema.fields().iter().map(|field| field.name().clone());
                add(read, &address, names);
            }
        }
        _ => {}
    }
}

fn add(read: &mut BTreeMap<Address, Vec<String>>, address: &Address, names: impl Iterator<Item = String>) {
    let columns = read.entry(address.clone()).or_default();
    for name in names {
        if !columns.contains(&name) {
            columns.push(name);
        }
    }
}

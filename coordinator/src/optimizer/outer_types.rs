//! The types of what subqueries read of the outside.
//!
//! A subquery knows the type of an outer column as it was when the statement was read. Where that is computed of several types, as by `CASE WHEN a THEN m ELSE n END` of microseconds
//! and nanoseconds, it gets its type when all types are made to fit, and what the subquery compares with it does not fit any more: joins made of that fail when they compare.
//! In and out: the plan after DataFusion has made its types fit; where an outer column has another type now, they are made to fit again.

use std::sync::Arc;

use datafusion::{
    common::{
        DFSchema, DFSchemaRef, ExprSchema, Result,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Expr, LogicalPlan, Subquery, utils::merge_schema},
    optimizer::{AnalyzerRule, analyzer::type_coercion::TypeCoercion},
};

/// Tells subqueries the types that outer columns have.
#[derive(Debug, Default)]
pub(crate) struct RefreshOuterTypes(TypeCoercion);

impl AnalyzerRule for RefreshOuterTypes {
    fn name(&self) -> &str {
        "refresh_outer_types"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        if !has_subqueries(&plan)? {
            return Ok(plan);
        }
        let refreshed = refresh(plan, &[])?;
        match refreshed.transformed {
            true => self.0.analyze(refreshed.data, config),
            false => Ok(refreshed.data),
        }
    }
}

fn has_subqueries(plan: &LogicalPlan) -> Result<bool> {
    let is_one = |expr: &Expr| {
        Ok(matches!(
            expr,
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_)
        ))
    };
    plan.exists(|node| {
        let mut found = false;
        node.apply_expressions(|expr| {
            found |= expr.exists(is_one)?;
            Ok(if found {
                TreeNodeRecursion::Stop
            } else {
                TreeNodeRecursion::Continue
            })
        })?;
        Ok(found)
    })
}

/// `outside` are the schemas around a subquery, the nearest last.
fn refresh(plan: LogicalPlan, outside: &[DFSchemaRef]) -> Result<Transformed<LogicalPlan>> {
    plan.transform_up(|node| {
        let inside: DFSchemaRef = match node.inputs().as_slice() {
            [] => Arc::clone(node.schema()),
            [input] => Arc::clone(input.schema()),
            inputs => Arc::new(merge_schema(inputs)),
        };
        let node = node.map_expressions(|expr| refresh_expr(expr, &inside, outside))?;
        match node.transformed {
            true => node.map_data(LogicalPlan::recompute_schema),
            false => Ok(node),
        }
    })
}

fn refresh_expr(expr: Expr, inside: &DFSchemaRef, outside: &[DFSchemaRef]) -> Result<Transformed<Expr>> {
    let within = |subquery: &mut Subquery| refresh_subquery(subquery, inside, outside);
    expr.transform_up(|mut expr| {
        let is_new = match &mut expr {
            Expr::OuterReferenceColumn(field, column) => {
                let mut around = outside.iter().rev();
                let found = around.find_map(|schema: &Arc<DFSchema>| schema.field_from_column(column).ok());
                match found.filter(|found| found.data_type() != field.data_type()) {
                    Some(found) => {
                        *field = Arc::clone(found);
                        true
                    }
                    None => false,
                }
            }
            Expr::ScalarSubquery(subquery) => within(subquery)?,
            Expr::Exists(exists) => within(&mut exists.subquery)?,
            Expr::InSubquery(list) => within(&mut list.subquery)?,
            Expr::SetComparison(compared) => within(&mut compared.subquery)?,
            _ => false,
        };
        Ok(Transformed::new_transformed(expr, is_new))
    })
}

fn refresh_subquery(subquery: &mut Subquery, inside: &DFSchemaRef, outside: &[DFSchemaRef]) -> Result<bool> {
    let mut around = outside.to_vec();
    around.push(Arc::clone(inside));
    let refreshed = refresh(subquery.subquery.as_ref().clone(), &around)?;
    if refreshed.transformed {
        subquery.subquery = Arc::new(refreshed.data);
        for column in &mut subquery.outer_ref_columns {
            *column = refresh_expr(column.clone(), inside, &around)?.data;
        }
    }
    Ok(refreshed.transformed)
}

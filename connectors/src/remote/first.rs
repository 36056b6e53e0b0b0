//! The first rows of a statement, and those after the first ones.
//!
//! In: sorts and limits over a statement. Out: the statement with an ORDER BY, a LIMIT and an OFFSET.
//!
//! DataFusion asks for the rows that it skips and drops them: a scan or a sort below an OFFSET has a limit of both together. So what is below such a node
//! is kept as [`First`] for the OFFSET above it. What skips rows has a limit, so neither pieces of a table nor the keys of a join change which rows these are.

use std::sync::Arc;

use datafusion::common::{DFSchemaRef, Result};
use datafusion::logical_expr::{FetchType, Limit, LogicalPlan, SkipType, Sort, SortExpr, TableScan, lit};

use super::cost::Estimate;
use super::grow::{Grown, PushDown};
use super::translate::Scope;

/// A statement for the first rows that a node needs, and the nodes that stand over it.
#[derive(Clone)]
pub(super) struct First {
    pub(super) grown: Grown,
    /// The columns of the statement.
    schema: DFSchemaRef,
    /// Which are the first rows.
    sort: Option<Sort>,
    /// Nodes that take each row for itself, the lowest first.
    above: Vec<LogicalPlan>,
}

impl First {
    /// The first rows of a table.
    pub(super) fn of_scan(scan: &TableScan, grown: Grown) -> Option<First> {
        let fetch = scan.fetch?;
        let estimate = grown.select.estimate;
        // It reads until it has them.
        let read = (fetch as f64 / estimate.rows).min(1.0);
        let mut grown = limited(&grown, 0, fetch);
        grown.select.estimate.work = estimate.work * read;
        Some(First {
            grown,
            schema: Arc::clone(&scan.projected_schema),
            sort: None,
            above: Vec::new(),
        })
    }

    /// The first rows in an order.
    pub(super) fn of_sort(node: &Sort, grown: Grown) -> First {
        First {
            grown,
            schema: Arc::clone(node.input.schema()),
            sort: Some(node.clone()),
            above: Vec::new(),
        }
    }

    /// The same below one node more.
    pub(super) fn below(mut self, node: &LogicalPlan) -> Option<First> {
        let is_for_each = matches!(node, LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_));
        self.above.push(node.clone());
        is_for_each.then_some(self)
    }

    /// The statement that skips the rows that a limit would, if they are what it has first.
    pub(super) fn skipped(&self, node: &Limit) -> Result<Option<First>> {
        let (SkipType::Literal(skip), FetchType::Literal(Some(fetch))) =
            (node.get_skip_type()?, node.get_fetch_type()?)
        else {
            return Ok(None);
        };
        if skip == 0 || self.grown.select.limit != skip.checked_add(fetch) {
            return Ok(None);
        }
        let mut skipped = self.clone();
        skipped.grown = limited(&self.grown, skip, fetch);
        Ok(Some(skipped))
    }

    /// The plan of it; `None` when its columns are of other types than they are there.
    pub(super) fn plan(&self, rule: &PushDown<'_>) -> Result<Option<LogicalPlan>> {
        // What runs here would have to skip the rows that the source skips.
        let Some(read) = rule.realised(&self.grown, &self.schema, None, &None)? else {
            return Ok(None);
        };
        let mut plan = match (&self.sort, self.grown.select.limit) {
            (Some(sort), limit) => LogicalPlan::Sort(Sort {
                expr: sort.expr.clone(),
                input: Arc::new(read),
                fetch: limit,
            }),
            (None, Some(limit)) => limit_of(read, limit),
            (None, None) => read,
        };
        for node in &self.above {
            plan = node.with_new_exprs(node.expressions(), vec![plan])?;
        }
        Ok(Some(plan))
    }
}

/// The first rows of a plan.
fn limit_of(plan: LogicalPlan, rows: usize) -> LogicalPlan {
    LogicalPlan::Limit(Limit {
        skip: None,
        fetch: Some(Box::new(lit(i64::try_from(rows).unwrap_or(i64::MAX)))),
        input: Arc::new(plan),
    })
}

/// What a limit asks of the statement below it, and the limit that stays over that.
pub(super) fn limit(node: &Limit, input: &Grown) -> Result<Option<(Grown, LogicalPlan)>> {
    Ok(match (node.get_skip_type()?, node.get_fetch_type()?) {
        (SkipType::Literal(skip), FetchType::Literal(Some(fetch))) if !input.is_scan => Some((
            limited(input, skip, fetch),
            limit_of(LogicalPlan::clone(&node.input), fetch),
        )),
        _ => None,
    })
}

/// The first rows in an order.
pub(super) fn top(node: &Sort, input: &Grown) -> Option<Grown> {
    let fetch = node.fetch?;
    let mut grown = limited(input, 0, fetch);
    let scope = Scope {
        dialect: grown.dialect,
        schema: node.input.schema(),
        columns: &grown.select.outputs,
        unless: None,
    };
    let key = |by: &SortExpr| {
        let value = scope.value(&by.expr)?;
        if value.literal.is_some() {
            return None;
        }
        grown.dialect.sort_key(&value, by.asc, by.nulls_first)
    };
    let order: Option<Vec<String>> = node.expr.iter().map(key).collect();
    grown.select.order = order?;
    Some(grown)
}

fn limited(input: &Grown, skip: usize, rows: usize) -> Grown {
    let mut select = input.select.clone();
    (select.skip, select.limit) = (skip, Some(rows));
    select.estimate = Estimate::limited(select.estimate, rows);
    Grown::whole(select, input.dialect)
}

//! The rule that grows statements, last of all rules.
//!
//! In: an optimised plan. For each node, beginning with the leaves: can the statement that its inputs have become take this node in as well? And is it
//! cheaper to have it run there, or here over what its inputs send? A statement may grow through nodes at which stopping would cost too much, as long as a
//! node above makes it worth it. Out: the cheapest plan.
//!
//! Sorts and limits stay in the plan even where their statement sorts and limits too: it sends few rows then, and who relies on their order needs nothing
//! of the source.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::{TableProvider, default_table_source::source_as_provider};
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Aggregate, Expr, Filter, LogicalPlan, Projection, TableScan};

use super::cost::{Estimate, UNKNOWN_ROWS, grouped_here, here, joined_here, windowed_here};
use super::decision::{Decision, why};
use super::dialect::{Dialect, Form, Value};
use super::escape::is_read;
use super::fence::Fences;
use super::first::{First, limit, top};
use super::joins::{join, pulled, union};
use super::select::{From, Select};
use super::translate::{Scope, scope};
use super::wanted::{Wanted, wanted_below};
use super::windows::windows;
use crate::remote_table::Snapshots;
use crate::statistics::{computed, share};
use crate::{RemoteTable, ScanFilter, Split};

/// Costs that are no further apart are not told apart: the source does what it can then, since it may be asked for more rows than were expected.
const UNTOLD: f64 = 50.0;
/// The same in proportion: costs are guessed, and of the network that rows would be sent over nothing is known.
const GUESSED: f64 = 1.1;

/// Finds a table inside a table.
pub type TableOf<'a> = &'a (dyn Fn(&dyn TableProvider) -> Option<Arc<dyn TableProvider>> + Sync);

/// The rule, and what it is told of a statement.
#[derive(Clone, Copy)]
pub struct PushDown<'a> {
    /// Finds the table of a source that nothing governs inside the table that a plan reads, if it is one.
    pub table_of: TableOf<'a>,
    /// Who governs the others, where statements may grow round what is governed.
    pub fences: Option<&'a dyn Fences>,
    /// Whether a depot is to do all that it can, whatever it costs.
    pub is_eager: &'a (dyn Fn(&str) -> bool + Sync),
    /// Whether sources are asked for rows of single tables only.
    pub reads_only: bool,
}

impl std::fmt::Debug for PushDown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushDown").finish_non_exhaustive()
    }
}

/// A statement that stands for a node.
#[derive(Clone)]
pub(super) struct Grown {
    pub(super) select: Select,
    pub(super) dialect: &'static dyn Dialect,
    pub(super) splits: Vec<Split>,
    pub(super) snapshots: Option<Arc<dyn Snapshots>>,
    /// Whether it says no more than a scan of its table does anyway.
    pub(super) is_scan: bool,
}

/// A node, as it is best done as far as this is known, and the statement that could stand for it.
pub(super) struct Visited {
    pub(super) plan: LogicalPlan,
    pub(super) cost: f64,
    pub(super) rows: f64,
    pub(super) grown: Option<Grown>,
    /// The statement below it that has a limit, which an OFFSET above may change.
    pub(super) first: Option<First>,
    /// What stayed here below it and at it, and might not have.
    pub(super) stayed: Vec<Decision>,
}

impl PushDown<'_> {
    /// The plan with everything pushed into its sources that they compute as it would be computed here, and that is worth it; and what stayed, and why.
    ///
    /// # Errors
    /// When a plan cannot be put together again, which is a defect.
    pub fn push(&self, plan: LogicalPlan) -> Result<(LogicalPlan, Vec<Decision>)> {
        let visited = self.visit(plan)?;
        Ok((visited.plan, visited.stayed))
    }

    /// Whether a source should do what it can.
    fn is_worth(&self, grown: &Grown, cost_there: f64, cost_here: f64) -> bool {
        is_cheaper(cost_there, cost_here) || self.does_all(grown)
    }

    /// Whether its source is to do what it can, whatever that costs.
    pub(super) fn does_all(&self, grown: &Grown) -> bool {
        grown.depot().is_some_and(self.is_eager)
    }

    pub(super) fn visit(&self, plan: LogicalPlan) -> Result<Visited> {
        self.visit_for(plan, &None)
    }

    #[recursive::recursive]
    fn visit_for(&self, plan: LogicalPlan, wanted: &Wanted) -> Result<Visited> {
        let (plan, mut stayed) = self.visit_subqueries(plan)?;
        if let LogicalPlan::TableScan(scan) = &plan {
            let grown = self.scan(scan);
            let first = grown.clone().and_then(|grown| First::of_scan(scan, grown));
            let known = first.as_ref().map(|first| &first.grown).or(grown.as_ref());
            return Ok(Visited {
                cost: known.map_or(0.0, Grown::cost),
                rows: known.map_or(UNKNOWN_ROWS, |grown| grown.select.estimate.rows),
                grown: grown.filter(|_| scan.fetch.is_none()),
                first,
                plan,
                stayed,
            });
        }
        // What other nodes hold is theirs, and of a policy's barrier what lies below it is looked at as a whole.
        if matches!(plan, LogicalPlan::Extension(_)) {
            return Ok(self.extension(plan));
        }
        let inputs: Vec<LogicalPlan> = plan.inputs().into_iter().cloned().collect();
        let schema_in = inputs.first().map(|input| Arc::clone(input.schema()));
        let wanted_in = wanted_below(&plan, wanted);
        let mut inputs: Vec<Visited> = inputs
            .into_iter()
            .map(|input| self.visit_for(input, &wanted_in))
            .collect::<Result<_>>()?;
        let taken = match self.reads_only && !is_read(&plan) {
            true => Taken::Nothing,
            false => grow(&plan, &inputs)?,
        };
        let mut first = inputs.first().and_then(|input| input.first.clone());
        let rows_in: f64 = inputs.iter().map(|input| input.rows).sum();
        let cost_here = cost_here(&plan, &inputs, &taken);
        let below: Vec<Decision> = inputs.iter_mut().flat_map(|input| input.stayed.drain(..)).collect();
        let over = |plan: &LogicalPlan, plans: Vec<LogicalPlan>| match plans.is_empty() {
            true => Ok(plan.clone()),
            false => plan.with_new_exprs(plan.expressions(), plans),
        };
        // A statement is written where it is worth it only.
        let (there, cost, rows, grown) = match taken {
            Taken::Skipped(skipped) => {
                first = None;
                let rows = skipped.grown.select.estimate.rows;
                let cost = skipped.grown.cost() + here(rows);
                let there = match self.is_worth(&skipped.grown, cost, cost_here) {
                    true => skipped.plan(self)?,
                    false => None,
                };
                if there.is_none() {
                    stayed.extend(below);
                }
                (there, cost, rows, None)
            }
            Taken::Nothing => {
                first = first.and_then(|first| first.below(&plan));
                let grown: Vec<Option<&Grown>> = inputs.iter().map(|input| input.grown.as_ref()).collect();
                stayed.extend(below.into_iter().chain(why(&plan, &grown)));
                (None, cost_here, rows_in, None)
            }
            Taken::Whole(grown) => {
                first = None;
                let (cost, rows) = (grown.cost(), grown.select.estimate.rows);
                let there = match !grown.is_scan && self.is_worth(&grown, cost, cost_here) {
                    true => self.realised(&grown, plan.schema(), self.escape(&grown, &plan), wanted)?,
                    false => None,
                };
                if there.is_none() {
                    let depot = grown.depot().unwrap_or_default();
                    let is_named = matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_));
                    let is_said_below = is_named && below.iter().any(Decision::is_for_cost);
                    let is_said = !grown.is_scan && !is_said_below && !self.is_worth(&grown, cost, cost_here);
                    // The last one says it for those below.
                    let own = is_said.then(|| Decision::cheaper(&plan, depot, cost, cost_here));
                    let others = below.into_iter().filter(|below| !is_said || !below.is_for_cost());
                    stayed.extend(others.chain(own));
                }
                (there, cost, rows, Some(grown))
            }
            // The node stays, over an input that does part of its work.
            Taken::Part { input, node } => {
                first = match &plan {
                    LogicalPlan::Sort(node) => Some(First::of_sort(node, input.clone())),
                    _ => None,
                };
                let rows = input.select.estimate.rows;
                let cost = input.cost() + here(rows);
                let there = match schema_in.filter(|_| self.is_worth(&input, cost, cost_here)) {
                    Some(schema) => {
                        let escape = self.escape_of_part(&input, &plan, node.as_ref());
                        let wanted_of_it = wanted_below(node.as_ref().unwrap_or(&plan), wanted);
                        self.realised(&input, &schema, escape, &wanted_of_it)?
                    }
                    None => None,
                };
                if there.is_none() {
                    stayed.extend(below);
                }
                if let Some(node @ LogicalPlan::Filter(_)) = &node {
                    let grown: Vec<Option<&Grown>> = inputs.iter().map(|input| input.grown.as_ref()).collect();
                    stayed.extend(why(node, &grown));
                }
                let there = there.map(|below| over(node.as_ref().unwrap_or(&plan), vec![below]));
                (there.transpose()?, cost, rows, None)
            }
        };
        Ok(match there {
            Some(there) => Visited {
                plan: there,
                // What is above it weighs it as what it would be at best, else each of many parts could cost more than it has to.
                cost: cost.min(cost_here),
                rows,
                grown,
                first,
                stayed,
            },
            None => Visited {
                plan: over(&plan, inputs.into_iter().map(|input| input.plan).collect())?,
                cost: cost_here,
                rows: if grown.is_some() { rows } else { rows_in },
                grown,
                first,
                stayed,
            },
        })
    }

    fn visit_subqueries(&self, plan: LogicalPlan) -> Result<(LogicalPlan, Vec<Decision>)> {
        let mut stayed = Vec::new();
        let visited = plan.map_subqueries(|subquery| {
            let LogicalPlan::Subquery(mut subquery) = subquery else {
                return Ok(Transformed::no(subquery));
            };
            let visited = self.visit(Arc::unwrap_or_clone(subquery.subquery))?;
            stayed.extend(visited.stayed);
            subquery.subquery = Arc::new(visited.plan);
            Ok(Transformed::new(
                LogicalPlan::Subquery(subquery),
                true,
                TreeNodeRecursion::Jump,
            ))
        })?;
        Ok((visited.data, stayed))
    }

    /// The statement that reads what a scan reads.
    fn scan(&self, scan: &TableScan) -> Option<Grown> {
        let provider = source_as_provider(&scan.source).ok()?;
        let raw = (self.table_of)(provider.as_ref())?;
        self.scan_of(scan, raw.downcast_ref()?, true)
    }

    /// The statement that reads what a scan reads of a table, but for its limit; `is_estimated` says whether it is weighed by what is known of the table.
    pub(super) fn scan_of(&self, scan: &TableScan, table: &RemoteTable, is_estimated: bool) -> Option<Grown> {
        let relation = table.relation()?;
        let dialect = relation.dialect();
        let schema = table.schema();
        let statistics_of = |name: &str| table.statistics_of(name).filter(|_| is_estimated);
        let projection = scan
            .projection
            .clone()
            .unwrap_or_else(|| (0..schema.fields().len()).collect());
        let column = |index: usize| {
            let name = schema.fields().get(index)?.name();
            let is_null = ScanFilter::IsNull(name.clone());
            let value = relation.column(name)?;
            Some(Value {
                known: statistics_of(name),
                // Texts are compared in an order that no index has.
                found_by_index: value.form == Form::Exact && table.finds(&is_null),
                ..value
            })
        };
        let outputs: Option<Vec<Value>> = projection.iter().copied().map(column).collect();
        let rows = table
            .known_rows()
            .filter(|_| is_estimated)
            .map_or(UNKNOWN_ROWS, |rows| rows as f64);
        let used = projection.iter().filter_map(|index| schema.fields().get(*index));
        let mut used: BTreeSet<&str> = used.map(|field| field.name().as_str()).collect();
        let filtered = scan.filters.iter().flat_map(Expr::column_refs);
        used.extend(filtered.map(|column| column.name.as_str()));
        let used: Vec<&str> = used.into_iter().collect();
        let from = From::Table(relation.source()?);
        let estimate = Estimate::table(rows);
        let mut select = Select::over(from, vec![table.address().clone()], outputs?, estimate);
        let mut splits = table.splits().to_vec();
        let mut found = Vec::new();
        let columns: Vec<Value> = if scan.filters.is_empty() {
            Vec::new()
        } else {
            // Only those that the filters name must be known; the others stand for themselves.
            let unknown = || Value::new(String::new(), DataType::Null, Form::Opaque { tested: false });
            (0..schema.fields().len())
                .map(|index| column(index).unwrap_or_else(unknown))
                .collect()
        };
        let whole = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &schema).ok()?;
        let scope = Scope {
            dialect,
            schema: &whole,
            columns: &columns,
            unless: None,
        };
        for filter in scan.filters.iter().flat_map(split_conjunction) {
            let known = ScanFilter::from_expr(filter, &schema);
            found.extend(known.clone().map(|known| (filter, known)));
            let condition = known
                .and_then(|known| relation.filter(&known))
                .or_else(|| scope.condition(filter))?;
            select.filters.push(condition);
        }
        // After the scan's own conditions: a row that these leave out is not looked at by a scan either.
        select.filters.extend(relation.fits(&used)?);
        let known = |column: &Column| statistics_of(&column.name);
        select.estimate = select.estimate.filtered(share(&scan.filters, &known));
        if let Some(share) = table.found_share(&found, &known) {
            select.estimate = select.estimate.found(share);
            splits = vec![Split::Whole];
        }
        Some(Grown {
            select,
            dialect,
            splits,
            snapshots: table.snapshots(),
            is_scan: true,
        })
    }
}

/// Whether something is to be done there, by what it costs there and here.
pub(super) fn is_cheaper(there: f64, here: f64) -> bool {
    there < here * GUESSED + UNTOLD
}

impl Visited {
    /// A plan of which nothing is known.
    pub(super) fn whole(plan: LogicalPlan) -> Visited {
        Visited {
            plan,
            cost: 0.0,
            rows: UNKNOWN_ROWS,
            grown: None,
            first: None,
            stayed: Vec::new(),
        }
    }
}

impl Grown {
    /// A statement that one connection runs.
    pub(super) fn whole(select: Select, dialect: &'static dyn Dialect) -> Grown {
        Grown {
            select,
            dialect,
            splits: vec![Split::Whole],
            snapshots: None,
            is_scan: false,
        }
    }

    pub(super) fn cost(&self) -> f64 {
        self.select
            .estimate
            .cost(self.select.outputs.len(), self.is_in_pieces())
    }

    /// Whether several connections send its rows.
    pub(super) fn is_in_pieces(&self) -> bool {
        self.splits.len() > 1 && self.select.is_flat()
    }

    pub(super) fn depot(&self) -> Option<&str> {
        let fenced = self.select.fences.iter().map(|fence| &fence.address);
        let mut addresses = self.select.addresses.iter().chain(fenced);
        addresses.next().map(|address| address.depot.as_str())
    }
}

/// How much of a node a statement takes in.
pub(super) enum Taken {
    Nothing,
    Whole(Grown),
    /// The node stays, over a statement that has grown for it; with `node`, a smaller one in its place.
    Part {
        input: Grown,
        node: Option<LogicalPlan>,
    },
    /// The node goes: what is below it skips rows itself.
    Skipped(First),
}

/// What a node costs when it is done here.
fn cost_here(plan: &LogicalPlan, inputs: &[Visited], taken: &Taken) -> f64 {
    let rows_in: f64 = inputs.iter().map(|input| input.rows).sum();
    let before = inputs.iter().map(|input| input.cost).sum::<f64>();
    match (plan, inputs, taken) {
        (LogicalPlan::Join(node), [left, right], _) => match (&left.grown, &right.grown) {
            (Some(there), Some(other)) => pulled(node, (there, left.cost), (other, right.cost)),
            _ => before + joined_here(rows_in),
        },
        (LogicalPlan::Aggregate(_), _, Taken::Whole(grown)) => {
            before + grouped_here(rows_in, grown.select.estimate.rows)
        }
        (LogicalPlan::Window(_), ..) => before + windowed_here(rows_in),
        _ => before + here(rows_in),
    }
}

pub(super) fn grow(plan: &LogicalPlan, inputs: &[Visited]) -> Result<Taken> {
    let taken = take(plan, inputs)?;
    Ok(match &taken {
        Taken::Whole(grown) | Taken::Part { input: grown, .. } | Taken::Skipped(First { grown, .. })
            if !grown.select.is_fit() =>
        {
            Taken::Nothing
        }
        _ => taken,
    })
}

fn take(plan: &LogicalPlan, inputs: &[Visited]) -> Result<Taken> {
    let grown: Option<Vec<&Grown>> = inputs.iter().map(|input| input.grown.as_ref()).collect();
    let whole = |grown: Option<Grown>| grown.map_or(Taken::Nothing, Taken::Whole);
    Ok(match (plan, grown.as_deref()) {
        (LogicalPlan::SubqueryAlias(_), Some([input])) => Taken::Whole((*input).clone()),
        (LogicalPlan::Filter(node), Some([input])) => filter(node, input)?,
        (LogicalPlan::Projection(node), Some([input])) => whole(projection(node, input)),
        (LogicalPlan::Aggregate(node), Some([input])) => whole(aggregate(node, input)),
        (LogicalPlan::Window(node), Some([input])) => whole(windows(node, input)),
        (LogicalPlan::Join(node), Some([left, right])) => whole(join(node, left, right)),
        (LogicalPlan::Union(_), Some(parts @ [_, _, ..])) => whole(union(parts)),
        (LogicalPlan::Sort(node), Some([input])) => match top(node, input) {
            Some(input) => Taken::Part { input, node: None },
            None => Taken::Nothing,
        },
        (LogicalPlan::Limit(node), Some([input])) => match limit(node, input)? {
            Some((input, node)) => Taken::Part {
                input,
                node: Some(node),
            },
            None => Taken::Nothing,
        },
        (LogicalPlan::Limit(node), None) => {
            let first = inputs.first().and_then(|input| input.first.as_ref());
            let skipped = first.map(|first| first.skipped(node)).transpose()?;
            skipped.flatten().map_or(Taken::Nothing, Taken::Skipped)
        }
        _ => Taken::Nothing,
    })
}

fn filter(node: &Filter, input: &Grown) -> Result<Taken> {
    let select = input.select.clone();
    let mut grown = Grown {
        select: match input.dialect.has_keys_in_having() {
            true => select,
            // The condition becomes one over the columns of a derived table.
            false => select.ungrouped(),
        },
        is_scan: false,
        ..input.clone()
    };
    let (mut here, mut there) = (Vec::new(), Vec::new());
    let share = {
        let scope = scope(&grown, node.input.schema());
        let mut decided = Vec::new();
        for predicate in split_conjunction(&node.predicate) {
            let condition = scope.condition(predicate);
            if condition.is_none() {
                here.push(predicate.clone());
            }
            if let Some(condition) = condition.or_else(|| scope.weaker(predicate)) {
                there.push(condition);
                decided.push(predicate);
            }
        }
        share(decided, &|column| scope.known(column))
    };
    if there.is_empty() {
        return Ok(Taken::Nothing);
    }
    for condition in there {
        grown.select.keep(condition);
    }
    grown.select.estimate = grown.select.estimate.filtered(share);
    Ok(match conjunction(here) {
        None => Taken::Whole(grown),
        Some(predicate) => Taken::Part {
            input: grown,
            node: Some(LogicalPlan::Filter(Filter::try_new(
                predicate,
                Arc::clone(&node.input),
            )?)),
        },
    })
}

/// Values of more bytes are written once: what uses them twice is computed here.
const LONG_VALUE: usize = 200;

fn projection(node: &Projection, input: &Grown) -> Option<Grown> {
    let schema = node.input.schema();
    let mut used = vec![0_usize; input.select.outputs.len()];
    for column in node.expr.iter().flat_map(|expr| expr.column_refs_counts()) {
        if let Some(used) = schema
            .maybe_index_of_column(column.0)
            .and_then(|index| used.get_mut(index))
        {
            *used += column.1;
        }
    }
    // Without any of its values a group of everything would be no group.
    if input.select.groups.as_ref().is_some_and(Vec::is_empty) && used.iter().all(|used| *used == 0) {
        return None;
    }
    let is_repeated = |(value, used): (&Value, &usize)| *used > 1 && value.sql.len() > LONG_VALUE;
    // A SELECT of its own would not help: databases put the values of one into the other again.
    if input.select.outputs.iter().zip(&used).any(is_repeated) {
        return None;
    }
    let scope = scope(input, schema);
    let outputs: Option<Vec<Value>> = node.expr.iter().map(|expr| scope.value(expr)).collect();
    let outputs = outputs?;
    // To leave columns out is what scans do as well.
    let is_choice = outputs
        .iter()
        .all(|output| input.select.outputs.iter().any(|known| known.sql == output.sql));
    Some(Grown {
        select: Select {
            outputs,
            ..input.select.clone()
        },
        is_scan: input.is_scan && is_choice,
        ..input.clone()
    })
}

fn aggregate(node: &Aggregate, input: &Grown) -> Option<Grown> {
    let grown = Grown {
        select: input.select.clone().ungrouped(),
        ..input.clone()
    };
    let scope = scope(&grown, node.input.schema());
    let key = |expr: &Expr| {
        let value = scope.value(expr).filter(|value| value.literal.is_none())?;
        let known = value
            .known
            .clone()
            .or_else(|| computed(expr, &|column| scope.known(column)));
        Some(Value {
            known,
            ..grown.dialect.group_key(&value)?
        })
    };
    let keys: Option<Vec<Value>> = node.group_expr.iter().map(key).collect();
    let keys = keys?;
    let aggregates = node.aggr_expr.iter().enumerate().map(|(at, expr)| {
        let field = node.schema.fields().get(keys.len() + at)?;
        scope.aggregate(expr, field.data_type())
    });
    let aggregates: Option<Vec<Value>> = aggregates.collect();
    let groups = keys.iter().map(|key| grown.dialect.group_by(key)).collect();
    let estimate = grown.select.estimate.grouped(&keys);
    let outputs: Vec<Value> = keys.into_iter().chain(aggregates?).collect();
    if outputs.len() != node.schema.fields().len() {
        return None;
    }
    let select = Select {
        groups: Some(groups),
        outputs,
        estimate,
        ..grown.select
    };
    Some(Grown::whole(select, input.dialect))
}

//! What is expected of a part of a plan: how many rows it has, and what it costs to have them here.
//!
//! In: plans, and pairs of them that meet on keys. Out: figures by which joins are put in an order, the same that decide what a source is sent. Of a table that is
//! governed nothing is known but a number of rows that all such tables have. Nothing is written and nothing is pushed here.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::{Column, ColumnStatistics as Planned, DFSchema, JoinType, ScalarValue};
use datafusion::logical_expr::{Expr, FetchType, Join, LogicalPlan, TableScan};

use super::cost::{Estimate, here};
use super::dialect::{Dialect, Form, Value};
use super::grow::{PushDown, is_cheaper};
use super::joins::{Side, pulled_sides};
use super::translate::Scope;
use crate::RemoteTable;
use crate::statistics::{ColumnStatistics, computed, number, share};

/// What a part of a plan is expected to have and to cost.
#[derive(Debug, Clone)]
pub struct Weighed {
    estimate: Estimate,
    cost: f64,
    columns: usize,
    statement: Option<Statement>,
    /// How many statements of depots it is.
    statements: usize,
}

/// The statement of a depot that a part could be.
#[derive(Debug, Clone)]
struct Statement {
    depot: Arc<str>,
    dialect: &'static dyn Dialect,
    is_in_pieces: bool,
    /// Whether the depot does what it can, whatever that costs.
    is_eager: bool,
}

/// A part of a plan that others are joined to.
#[derive(Debug, Clone)]
pub struct WeighedLeaf {
    weighed: Weighed,
    values: Vec<Value>,
}

/// What is known of a value that rows meet by.
#[derive(Debug, Clone)]
pub struct Key(Value);

/// Conditions over columns of several leaves.
#[derive(Debug, Clone, Copy)]
pub struct Conditions {
    /// The share of rows that they leave.
    pub share: f64,
    /// Whether the depot computes them, where all that they are about is in one.
    pub are_there: bool,
}

impl Conditions {
    /// None at all.
    pub const NONE: Conditions = Conditions {
        share: 1.0,
        are_there: true,
    };

    /// These and others.
    #[must_use]
    pub fn and(self, other: Conditions) -> Conditions {
        Conditions {
            share: self.share * other.share,
            are_there: self.are_there && other.are_there,
        }
    }

    /// What is expected of a condition over columns of these leaves, whose columns a schema has in their order.
    pub fn of(leaves: &[WeighedLeaf], schema: &DFSchema, predicate: &Expr) -> Conditions {
        let columns: Vec<Value> = leaves.iter().flat_map(|leaf| leaf.values.iter().cloned()).collect();
        let known = |column: &Column| columns.get(schema.maybe_index_of_column(column)?)?.known.clone();
        let statements = leaves
            .iter()
            .flat_map(|leaf| leaf.values.iter().map(|_| leaf.weighed.statement.as_ref()));
        let statements: Vec<Option<&Statement>> = statements.collect();
        let used = predicate.column_refs().into_iter();
        let used = used.map(|column| *statements.get(schema.maybe_index_of_column(column)?)?);
        let used: Option<Vec<&Statement>> = used.collect();
        let dialect = match used.as_deref() {
            Some([first, others @ ..]) if others.iter().all(|other| other.depot == first.depot) => Some(first.dialect),
            _ => None,
        };
        let are_there = dialect.is_some_and(|dialect| {
            let scope = Scope {
                dialect,
                schema,
                columns: &columns,
                unless: None,
            };
            scope.condition(predicate).is_some()
        });
        Conditions {
            share: share([predicate], &known),
            are_there,
        }
    }
}

impl WeighedLeaf {
    /// What is expected of it.
    pub fn weighed(&self) -> &Weighed {
        &self.weighed
    }

    /// What is known of a value over its columns.
    pub fn key(&self, expr: &Expr, schema: &DFSchema) -> Key {
        let known = |column: &Column| self.values.get(schema.maybe_index_of_column(column)?)?.known.clone();
        if let (Some(statement), true) = (&self.weighed.statement, !matches!(expr, Expr::Column(_))) {
            let scope = Scope {
                dialect: statement.dialect,
                schema,
                columns: &self.values,
                unless: None,
            };
            return Key(scope
                .value(expr)
                .unwrap_or_else(|| unknown_value(computed(expr, &known))));
        }
        let column = match expr {
            Expr::Column(column) => schema.maybe_index_of_column(column),
            _ => None,
        };
        let value = column.and_then(|index| self.values.get(index)).cloned();
        Key(value.unwrap_or_else(|| unknown_value(computed(expr, &known))))
    }
}

impl Key {
    /// A value of which nothing is known.
    pub fn unknown() -> Key {
        Key(unknown_value(None))
    }
}

impl Weighed {
    /// How many rows it has.
    pub fn rows(&self) -> f64 {
        self.estimate.rows
    }

    /// Microseconds, about, until its rows are here.
    pub fn cost(&self) -> f64 {
        self.cost
    }

    /// The depot that could have all of it in one statement.
    pub fn depot(&self) -> Option<&str> {
        self.statement.as_ref().map(|statement| statement.depot.as_ref())
    }

    /// How many statements depots are sent for it.
    pub fn statements(&self) -> usize {
        self.statements
    }

    /// The same with as many rows as another estimate says.
    #[must_use]
    pub fn with_rows_of(self, other: &Weighed) -> Weighed {
        let Estimate { rows, unfiltered, .. } = other.estimate;
        Weighed {
            estimate: Estimate {
                rows,
                unfiltered,
                ..self.estimate
            },
            ..self
        }
    }

    /// The rows of this part and another that meet on keys, and for which conditions hold.
    #[must_use]
    pub fn joined(&self, other: &Weighed, on: &[(&Key, &Key)], conditions: Conditions) -> Weighed {
        let keys: Vec<(Value, Value)> = (on.iter())
            .map(|(left, right)| (left.0.clone(), right.0.clone()))
            .collect();
        let estimate = self.estimate.joined(other.estimate, &keys).filtered(conditions.share);
        let columns = self.columns + other.columns;
        let here = pulled_sides(&self.side(), &other.side(), Some(&keys));
        let statement = match (&self.statement, &other.statement) {
            (Some(left), Some(right)) if left.depot == right.depot && conditions.are_there => {
                let is_met =
                    |(left_key, right_key): &(Value, Value)| left.dialect.join_key(left_key, right_key).is_some();
                keys.iter().all(is_met).then(|| Statement {
                    is_in_pieces: false,
                    ..left.clone()
                })
            }
            _ => None,
        };
        let there = estimate.cost(columns, false);
        let (cost, statements) = match &statement {
            Some(statement) if statement.is_eager || is_cheaper(there, here) => (there, 1),
            _ => (here, self.statements + other.statements),
        };
        Weighed {
            estimate,
            cost,
            columns,
            statement,
            statements,
        }
    }

    fn side(&self) -> Side {
        Side {
            estimate: self.estimate,
            cost: self.cost,
            columns: self.columns,
            is_in_pieces: self.statement.as_ref().is_some_and(|statement| statement.is_in_pieces),
            is_told: self.statement.is_some(),
        }
    }
}

/// A part of a plan without what it costs.
struct Part {
    estimate: Estimate,
    columns: Vec<Value>,
}

impl PushDown<'_> {
    /// What is expected of a plan that others are joined to; `None` when it is not known.
    pub fn weigh(&self, plan: &LogicalPlan) -> Option<WeighedLeaf> {
        let visited = self.visit(plan.clone()).ok()?;
        // Of a statement, too, something has to be known of each of its tables.
        let part = self.part(plan)?;
        if let Some(grown) = visited.grown {
            let statement = Statement {
                depot: grown.depot()?.into(),
                dialect: grown.dialect,
                is_in_pieces: grown.is_in_pieces(),
                is_eager: self.does_all(&grown),
            };
            return Some(WeighedLeaf {
                weighed: Weighed {
                    estimate: grown.select.estimate,
                    cost: visited.cost,
                    columns: grown.select.outputs.len(),
                    statement: Some(statement),
                    statements: 1,
                },
                values: grown.select.outputs,
            });
        }
        Some(WeighedLeaf {
            weighed: Weighed {
                estimate: part.estimate,
                // It is read once in any order.
                cost: here(part.estimate.unfiltered),
                columns: part.columns.len(),
                statement: None,
                statements: 0,
            },
            values: part.columns,
        })
    }

    /// What is expected of a node and all below it.
    #[recursive::recursive]
    fn part(&self, plan: &LogicalPlan) -> Option<Part> {
        let input = || self.part(plan.inputs().first()?);
        match plan {
            LogicalPlan::TableScan(scan) => {
                let part = self.scanned(scan)?;
                Some(limited(part, scan.fetch))
            }
            LogicalPlan::SubqueryAlias(_) => input(),
            LogicalPlan::Projection(node) => {
                let part = input()?;
                let schema = node.input.schema();
                let columns = node.expr.iter().map(|expr| part.value(expr, schema)).collect();
                Some(Part { columns, ..part })
            }
            LogicalPlan::Filter(node) => {
                let part = input()?;
                let share = share([&node.predicate], &|column| part.known(column, node.input.schema()));
                Some(Part {
                    estimate: part.estimate.filtered(share),
                    ..part
                })
            }
            LogicalPlan::Aggregate(node) => {
                let part = input()?;
                let schema = node.input.schema();
                let mut columns: Vec<Value> = node.group_expr.iter().map(|expr| part.value(expr, schema)).collect();
                let estimate = part.estimate.grouped(&columns);
                columns.resize_with(node.schema.fields().len(), || unknown_value(None));
                Some(Part { estimate, columns })
            }
            LogicalPlan::Distinct(_) => {
                let part = input()?;
                Some(Part {
                    estimate: part.estimate.grouped(&part.columns),
                    ..part
                })
            }
            LogicalPlan::Window(node) => {
                let mut part = input()?;
                part.columns
                    .resize_with(node.schema.fields().len(), || unknown_value(None));
                Some(part)
            }
            LogicalPlan::Join(node) => Some(joined(node, self.part(&node.left)?, self.part(&node.right)?)),
            LogicalPlan::Sort(node) => Some(limited(input()?, node.fetch)),
            LogicalPlan::Limit(node) => {
                let fetch = match node.get_fetch_type().ok()? {
                    FetchType::Literal(fetch) => fetch,
                    FetchType::UnsupportedExpr => None,
                };
                Some(limited(input()?, fetch))
            }
            LogicalPlan::Union(node) => {
                let parts: Option<Vec<Part>> = node.inputs.iter().map(|input| self.part(input)).collect();
                let estimates: Vec<Estimate> = parts?.iter().map(|part| part.estimate).collect();
                Some(Part::of_unknown(Estimate::together(&estimates), plan))
            }
            LogicalPlan::EmptyRelation(_) => Some(Part::of_unknown(Estimate::table(1.0), plan)),
            LogicalPlan::Values(node) => Some(Part::of_unknown(Estimate::table(node.values.len() as f64), plan)),
            // A policy's barrier: how many rows are below it must not matter, whether they are known or not.
            LogicalPlan::Extension(_) => {
                let visited = self.extension(plan.clone());
                let estimate = Estimate::table(visited.rows).fenced(0);
                Some(Part::of_unknown(estimate, plan))
            }
            _ => None,
        }
    }

    /// What is expected of a scan, by what its source or its files say of it.
    fn scanned(&self, scan: &TableScan) -> Option<Part> {
        let provider = source_as_provider(&scan.source).ok()?;
        let schema = provider.schema();
        let opened = (self.table_of)(provider.as_ref());
        let remote = opened.as_ref().and_then(|table| table.downcast_ref::<RemoteTable>());
        let statistics = match remote {
            Some(_) => None,
            None => provider.statistics(),
        };
        let rows = match (remote, &statistics) {
            (Some(table), _) => table.known_rows()?,
            (None, statistics) => *statistics.as_ref()?.num_rows.get_value()?,
        } as f64;
        let known = |name: &str| match (remote, &statistics) {
            (Some(table), _) => table.statistics_of(name),
            (None, statistics) => {
                let index = schema.index_of(name).ok()?;
                let planned = statistics.as_ref()?.column_statistics.get(index)?;
                Some(Arc::new(of_planned(planned, rows)))
            }
        };
        let columns = scan.projected_schema.fields().iter();
        let columns = columns.map(|field| unknown_value(known(field.name()))).collect();
        let share = share(&scan.filters, &|column| known(&column.name));
        Some(Part {
            estimate: Estimate::table(rows).filtered(share),
            columns,
        })
    }
}

impl Part {
    /// Rows of whose values nothing is known.
    fn of_unknown(estimate: Estimate, plan: &LogicalPlan) -> Part {
        let columns = plan.schema().fields().iter();
        Part {
            estimate,
            columns: columns.map(|_| unknown_value(None)).collect(),
        }
    }

    fn known(&self, column: &Column, schema: &DFSchema) -> Option<Arc<ColumnStatistics>> {
        self.columns.get(schema.maybe_index_of_column(column)?)?.known.clone()
    }

    /// A value over its columns.
    fn value(&self, expr: &Expr, schema: &DFSchema) -> Value {
        let known = |column: &Column| self.known(column, schema);
        match expr {
            Expr::Column(column) => unknown_value(known(column)),
            Expr::Alias(alias) => self.value(&alias.expr, schema),
            other => unknown_value(computed(other, &known)),
        }
    }
}

fn limited(part: Part, fetch: Option<usize>) -> Part {
    Part {
        estimate: fetch.map_or(part.estimate, |fetch| part.estimate.limited(fetch)),
        ..part
    }
}

fn joined(node: &Join, left: Part, right: Part) -> Part {
    let (schema_left, schema_right) = (node.left.schema(), node.right.schema());
    let keys: Vec<(Value, Value)> = (node.on.iter())
        .map(|(key_left, key_right)| (left.value(key_left, schema_left), right.value(key_right, schema_right)))
        .collect();
    let turned = || -> Vec<(Value, Value)> {
        let turn = |(left, right): &(Value, Value)| (right.clone(), left.clone());
        keys.iter().map(turn).collect()
    };
    let both = match keys.is_empty() {
        false => left.estimate.joined(right.estimate, &keys),
        true => Estimate {
            rows: left.estimate.rows * right.estimate.rows,
            unfiltered: left.estimate.unfiltered * right.estimate.unfiltered,
            ..left.estimate
        },
    };
    let all: Vec<Value> = left.columns.iter().chain(&right.columns).cloned().collect();
    let both = match (&node.filter, schema_left.join(schema_right)) {
        (Some(filter), Ok(schema)) => {
            let known = |column: &Column| all.get(schema.maybe_index_of_column(column)?)?.known.clone();
            both.filtered(share([filter], &known))
        }
        _ => both,
    };
    let at_least = |rows: f64| Estimate {
        rows: both.rows.max(rows),
        ..both
    };
    let without = |kept: Estimate, met: Estimate| Estimate {
        rows: (kept.rows - met.rows).max(kept.rows * 0.1),
        ..met
    };
    let met_left = || left.estimate.met(right.estimate, &keys);
    let met_right = || right.estimate.met(left.estimate, &turned());
    let (estimate, columns) = match node.join_type {
        JoinType::Inner => (both, all),
        JoinType::Left => (at_least(left.estimate.rows), all),
        JoinType::Right => (at_least(right.estimate.rows), all),
        JoinType::Full => (at_least(left.estimate.rows.max(right.estimate.rows)), all),
        JoinType::LeftSemi => (met_left(), left.columns),
        JoinType::LeftAnti => (without(left.estimate, met_left()), left.columns),
        JoinType::RightSemi => (met_right(), right.columns),
        JoinType::RightAnti => (without(right.estimate, met_right()), right.columns),
        JoinType::LeftMark => (left.estimate, [left.columns, vec![unknown_value(None)]].concat()),
        JoinType::RightMark => (right.estimate, [right.columns, vec![unknown_value(None)]].concat()),
    };
    Part { estimate, columns }
}

/// A value that no source is asked for.
fn unknown_value(known: Option<Arc<ColumnStatistics>>) -> Value {
    Value {
        known,
        ..Value::new(String::new(), DataType::Null, Form::Opaque { tested: false })
    }
}

/// What the engine's own figures say of a column of a table with so many rows.
fn of_planned(planned: &Planned, rows: f64) -> ColumnStatistics {
    let end = |value: Option<&ScalarValue>| value.and_then(number);
    let (least, greatest) = (planned.min_value.get_value(), planned.max_value.get_value());
    let bounds: Vec<f64> = match (end(least), end(greatest)) {
        (Some(low), Some(high)) if low <= high => vec![low, high],
        _ => Vec::new(),
    };
    let steps = match (least.map(ScalarValue::data_type), bounds.as_slice()) {
        (Some(data_type), [low, high]) if data_type.is_integer() => Some(high - low + 1.0),
        (Some(DataType::Date32), [low, high]) => Some((high - low) / 86_400.0 + 1.0),
        _ => None,
    };
    let nulls = planned.null_count.get_value().map_or(0.0, |nulls| *nulls as f64);
    ColumnStatistics {
        distinct: planned.distinct_count.get_value().map(|distinct| *distinct as f64),
        most: steps.map(|steps| steps.min(rows).max(1.0)),
        nulls: (nulls / rows.max(1.0)).clamp(0.0, 1.0),
        bounds,
        ..ColumnStatistics::default()
    }
}

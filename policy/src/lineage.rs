//! Which columns of which tables a query's columns come from, and so which tags a copy of its rows must have.
//!
//! In: the logical plan of a query, as it was bound and before it was optimised. Out: for each of its columns the columns that
//! its values are computed from: through projections, aliases, joins, aggregates, windows, set operations, views, CTEs and subqueries.
//! A condition (WHERE, ON, HAVING, EXISTS) decides which rows there are and not what they hold: it carries no tags. What this file
//! does not understand depends on everything below it.

use std::collections::BTreeSet;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, internal_err};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, ExprSchemable, Join, JoinType, LogicalPlan};
use minerva_resources::Address;

use crate::barrier::PolicyBarrier;
use crate::protect::address_of;
use crate::rules::Rules;

/// A column of a table, or a field inside it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The table.
    pub address: Address,
    /// The column's name, then the way down.
    pub path: Vec<String>,
}

/// Where the values of one column come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    /// Everything that they are computed from.
    pub from: BTreeSet<Origin>,
    /// The one thing that they are, unchanged.
    pub is: Option<Origin>,
}

/// The tags that a copy of a column must have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CarriedTags {
    /// The column's position among the query's.
    pub column: usize,
    /// The way down inside the column; empty for the column itself.
    pub inside: Vec<String>,
    /// The tags.
    pub tags: BTreeSet<String>,
}

impl Lineage {
    fn of(origin: Origin) -> Lineage {
        Lineage {
            from: BTreeSet::from([origin.clone()]),
            is: Some(origin),
        }
    }

    fn computed(from: BTreeSet<Origin>) -> Lineage {
        Lineage { from, is: None }
    }

    /// Either of two.
    fn or(mut self, other: &Lineage) -> Lineage {
        self.is = self.is.filter(|is| Some(is) == other.is.as_ref());
        self.from.extend(other.from.iter().cloned());
        self
    }
}

/// The lineage of each column of a plan.
///
/// # Errors
/// When the plan is not as DataFusion makes plans; nothing may be written of it then.
pub fn lineage(plan: &LogicalPlan) -> Result<Vec<Lineage>> {
    of_plan(plan, None)
}

impl Rules {
    /// The tags that copies of columns with these lineages must have: own and inherited ones, and those of fields inside. What has none is left out.
    pub fn carried_tags(&self, columns: &[Lineage]) -> Vec<CarriedTags> {
        let mut carried = Vec::new();
        for (column, lineage) in columns.iter().enumerate() {
            let mut whole = BTreeSet::new();
            for origin in &lineage.from {
                whole.extend(self.tags_of(&origin.address, &origin.path));
                // A field inside of something that is copied as it is keeps its tags for itself.
                if lineage.is.is_none() {
                    whole.extend(
                        self.tags_inside(&origin.address, &origin.path)
                            .into_iter()
                            .flat_map(|(_, tags)| tags),
                    );
                }
            }
            if !whole.is_empty() {
                carried.push(CarriedTags {
                    column,
                    inside: Vec::new(),
                    tags: whole,
                });
            }
            if let Some(origin) = &lineage.is {
                let inside = self.tags_inside(&origin.address, &origin.path);
                carried.extend(
                    inside
                        .into_iter()
                        .map(|(inside, tags)| CarriedTags { column, inside, tags }),
                );
            }
        }
        carried
    }

    /// The tags of a column or field: its own, and what it inherits.
    pub fn tags_of(&self, address: &Address, path: &[String]) -> BTreeSet<String> {
        let mut tags: BTreeSet<String> = self.tags().of_table(address).into_iter().map(str::to_owned).collect();
        for end in 1..=path.len() {
            let dotted = path.get(..end).unwrap_or_default().join(".");
            tags.extend(self.tags().of_path(address, &dotted).into_iter().map(str::to_owned));
        }
        tags
    }

    /// The fields inside a column that have tags of their own, by the way down to them.
    fn tags_inside(&self, address: &Address, path: &[String]) -> Vec<(Vec<String>, BTreeSet<String>)> {
        let dotted = path.join(".");
        let mut found = Vec::new();
        for (name, tags) in self.tags().columns_of(address) {
            let inside = name
                .get(..dotted.len())
                .filter(|start| start.eq_ignore_ascii_case(&dotted))
                .and_then(|_| name.get(dotted.len()..))
                .and_then(|rest| rest.strip_prefix('.'));
            if let (Some(inside), false) = (inside, tags.is_empty()) {
                found.push((
                    inside.split('.').map(str::to_owned).collect(),
                    tags.iter().cloned().collect(),
                ));
            }
        }
        found
    }
}

/// What names mean: the columns of the plan below, and outside of a subquery those of the plans around it.
#[derive(Clone, Copy)]
struct Scope<'a> {
    schema: &'a DFSchema,
    columns: &'a [Lineage],
    around: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    /// Everything that can be named here.
    fn everything(&self) -> BTreeSet<Origin> {
        let own = all(self.columns);
        let around = self.around.map(Scope::everything).unwrap_or_default();
        own.union(&around).cloned().collect()
    }

    fn find(&self, column: &datafusion::common::Column) -> Lineage {
        match self
            .schema
            .maybe_index_of_column(column)
            .and_then(|at| self.columns.get(at))
        {
            Some(found) => found.clone(),
            None => match self.around {
                Some(around) => around.find(column),
                None => Lineage::computed(self.everything()),
            },
        }
    }
}

fn all<'a>(columns: impl IntoIterator<Item = &'a Lineage>) -> BTreeSet<Origin> {
    columns
        .into_iter()
        .flat_map(|column| column.from.iter().cloned())
        .collect()
}

/// The columns of a plan; `around` is where the plan is a subquery.
fn of_plan(plan: &LogicalPlan, around: Option<&Scope<'_>>) -> Result<Vec<Lineage>> {
    let found = stacker::maybe_grow(128 << 10, 4 << 20, || of_node(plan, around))?;
    if found.len() != plan.schema().fields().len() {
        return internal_err!(
            "the lineage of a plan has {} columns, the plan {}",
            found.len(),
            plan.schema().fields().len()
        );
    }
    Ok(found)
}

fn of_node(plan: &LogicalPlan, around: Option<&Scope<'_>>) -> Result<Vec<Lineage>> {
    let over = |input: &LogicalPlan, expressions: &mut dyn Iterator<Item = &Expr>| -> Result<Vec<Lineage>> {
        let columns = of_plan(input, around)?;
        let scope = Scope {
            schema: input.schema(),
            columns: &columns,
            around,
        };
        expressions.map(|expr| of_expr(expr, &scope)).collect()
    };
    match plan {
        LogicalPlan::Projection(node) => over(&node.input, &mut node.expr.iter()),
        LogicalPlan::Filter(node) => of_plan(&node.input, around),
        LogicalPlan::Sort(node) => of_plan(&node.input, around),
        LogicalPlan::Limit(node) => of_plan(&node.input, around),
        LogicalPlan::Repartition(node) => of_plan(&node.input, around),
        LogicalPlan::SubqueryAlias(node) => of_plan(&node.input, around),
        LogicalPlan::Distinct(Distinct::All(input)) => of_plan(input, around),
        LogicalPlan::Distinct(Distinct::On(node)) => over(&node.input, &mut node.select_expr.iter()),
        LogicalPlan::Subquery(node) => of_plan(&node.subquery, around),
        LogicalPlan::Window(node) => {
            let mut columns = of_plan(&node.input, around)?;
            columns.extend(over(&node.input, &mut node.window_expr.iter())?);
            Ok(columns)
        }
        LogicalPlan::Aggregate(node) => {
            let columns = of_plan(&node.input, around)?;
            let scope = Scope {
                schema: node.input.schema(),
                columns: &columns,
                around,
            };
            of_aggregate(node, &scope)
        }
        LogicalPlan::Join(node) => of_join(node, around),
        LogicalPlan::Union(node) => {
            let mut united: Option<Vec<Lineage>> = None;
            for input in &node.inputs {
                let columns = of_plan(input, around)?;
                united = Some(match united {
                    None => columns,
                    Some(united) => united
                        .into_iter()
                        .zip(&columns)
                        .map(|(one, other)| one.or(other))
                        .collect(),
                });
            }
            Ok(united.unwrap_or_default())
        }
        LogicalPlan::RecursiveQuery(node) => {
            // The recursive part reads the result itself, so each column may come to depend on every other one.
            let mut from = all(&of_plan(&node.static_term, around)?);
            from.extend(all(&of_plan(&node.recursive_term, around)?));
            Ok(vec![Lineage::computed(from); node.schema.fields().len()])
        }
        LogicalPlan::Values(node) => {
            let scope = Scope {
                schema: DFSchema::empty_ref(),
                columns: &[],
                around,
            };
            let mut columns = vec![Lineage::default(); node.schema.fields().len()];
            for row in &node.values {
                for (column, expr) in columns.iter_mut().zip(row) {
                    column.from.extend(of_expr(expr, &scope)?.from);
                }
            }
            Ok(columns)
        }
        LogicalPlan::TableScan(node) => {
            let address = source_as_provider(&node.source)
                .ok()
                .and_then(|table| address_of(table.as_ref()));
            let fields = node.projected_schema.fields().iter();
            Ok(fields
                .map(|field| match &address {
                    Some(address) => Lineage::of(Origin {
                        address: address.clone(),
                        path: vec![field.name().clone()],
                    }),
                    // A table of the engine itself, or the result of a recursive query so far.
                    None => Lineage::default(),
                })
                .collect())
        }
        LogicalPlan::Unnest(node) => {
            let columns = of_plan(&node.input, around)?;
            let outputs = node.dependency_indices.iter();
            let taken_apart = |at: usize| {
                node.struct_type_columns.contains(&at) || node.list_type_columns.iter().any(|(list, _)| *list == at)
            };
            Ok(outputs
                .map(|at| match columns.get(*at) {
                    Some(column) if !taken_apart(*at) => column.clone(),
                    Some(column) => Lineage::computed(column.from.clone()),
                    None => Lineage::computed(all(&columns)),
                })
                .collect())
        }
        LogicalPlan::Extension(node) => {
            let any: &dyn std::any::Any = node.node.as_any();
            if let Some(barrier) = any.downcast_ref::<PolicyBarrier>() {
                let origin = |name: &String| {
                    Lineage::of(Origin {
                        address: barrier.seal().address.clone(),
                        path: vec![name.clone()],
                    })
                };
                return Ok(barrier.columns().iter().map(|column| origin(&column.name)).collect());
            }
            everything_below(plan, around)
        }
        LogicalPlan::EmptyRelation(node) => Ok(vec![Lineage::default(); node.schema.fields().len()]),
        _ => everything_below(plan, around),
    }
}

/// For what is not understood: each column depends on every column of every input.
fn everything_below(plan: &LogicalPlan, around: Option<&Scope<'_>>) -> Result<Vec<Lineage>> {
    let mut from = BTreeSet::new();
    for input in plan.inputs() {
        from.extend(all(&of_plan(input, around)?));
    }
    Ok(vec![Lineage::computed(from); plan.schema().fields().len()])
}

fn of_aggregate(node: &Aggregate, scope: &Scope<'_>) -> Result<Vec<Lineage>> {
    let groups = node.schema.fields().len().saturating_sub(node.aggr_expr.len());
    let mut columns: Vec<Lineage> = if node.group_expr.len() == groups
        && !node.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_)))
    {
        let exprs = node.group_expr.iter();
        exprs.map(|expr| of_expr(expr, scope)).collect::<Result<_>>()?
    } else {
        // Grouping sets leave out columns in turn, and one column says which.
        let mut from = BTreeSet::new();
        for expr in &node.group_expr {
            from.extend(of_expr(expr, scope)?.from);
        }
        vec![Lineage::computed(from); groups]
    };
    for expr in &node.aggr_expr {
        columns.push(Lineage::computed(of_expr(expr, scope)?.from));
    }
    Ok(columns)
}

fn of_join(node: &Join, around: Option<&Scope<'_>>) -> Result<Vec<Lineage>> {
    let left = of_plan(&node.left, around)?;
    // A lateral subquery on the right names columns of the left.
    let inside = Scope {
        schema: node.left.schema(),
        columns: &left,
        around,
    };
    let right = of_plan(&node.right, Some(&inside))?;
    Ok(match node.join_type {
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => [left, right].concat(),
        JoinType::LeftSemi | JoinType::LeftAnti => left,
        JoinType::RightSemi | JoinType::RightAnti => right,
        JoinType::LeftMark => [left, vec![Lineage::computed(all(&right))]].concat(),
        JoinType::RightMark => {
            let mark = Lineage::computed(all(&left));
            [right, vec![mark]].concat()
        }
    })
}

fn of_expr(expr: &Expr, scope: &Scope<'_>) -> Result<Lineage> {
    match unchanged(expr, scope) {
        Some(origin) => Ok(Lineage::of(origin)),
        None => Ok(Lineage::computed(dependencies(expr, scope)?)),
    }
}

/// The column or field that an expression is.
fn unchanged(expr: &Expr, scope: &Scope<'_>) -> Option<Origin> {
    match expr {
        Expr::Alias(alias) => unchanged(&alias.expr, scope),
        Expr::Column(column) => scope.find(column).is,
        Expr::OuterReferenceColumn(_, column) => scope.around?.find(column).is,
        Expr::ScalarFunction(function) if function.func.name() == "get_field" => {
            let (whole, names) = function.args.split_first()?;
            let mut origin = unchanged(whole, scope)?;
            let mut data_type = whole.get_type(scope.schema).ok()?;
            for name in names {
                let Expr::Literal(value, _) = name else { return None };
                // It takes keys of maps as well, which are no fields.
                let DataType::Struct(fields) = data_type else {
                    return None;
                };
                let (_, field) = fields.find(value.try_as_str()??)?;
                data_type = field.data_type().clone();
                origin.path.push(field.name().clone());
            }
            Some(origin)
        }
        _ => None,
    }
}

/// Everything that an expression's value depends on.
fn dependencies(expr: &Expr, scope: &Scope<'_>) -> Result<BTreeSet<Origin>> {
    let mut found = BTreeSet::new();
    expr.apply(|part| {
        let subquery = match part {
            Expr::Column(column) => {
                found.extend(scope.find(column).from);
                None
            }
            Expr::OuterReferenceColumn(_, column) => {
                let outer = scope.around.map(|around| around.find(column).from);
                found.extend(outer.unwrap_or_else(|| scope.everything()));
                None
            }
            Expr::ScalarSubquery(subquery) => Some(subquery),
            Expr::InSubquery(part) => Some(&part.subquery),
            Expr::SetComparison(part) => Some(&part.subquery),
            _ => None,
        };
        if let Some(subquery) = subquery {
            found.extend(all(&of_plan(&subquery.subquery, Some(scope))?));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

//! Filters of physical plans, pushed down by a column's place.
//!
//! DataFusion's rule finds a filter's columns again by their names. Where a node has two columns of one name, as above most joins, the filter of
//! one is applied to the other: `WHERE a.at IS NOT NULL` above an outer join drops rows by `b.at`. In: a physical plan. Out: the plan of
//! DataFusion's rule, whose way through the nodes this is, but a node is not shown a filter that it would misread; the filter stays above it.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::Schema,
    common::{
        JoinType, Result,
        config::ConfigOptions,
        internal_err,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    physical_expr::{PhysicalExpr, expressions::Column, utils::collect_columns},
    physical_expr_common::physical_expr::is_volatile,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan,
        aggregates::AggregateExec,
        execution_plan::replace_children_if_necessary,
        filter::FilterExec,
        filter_pushdown::{
            ChildFilterPushdownResult, ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
        },
        joins::HashJoinExec,
        projection::ProjectionExec,
    },
};

/// DataFusion's `FilterPushdown` of one phase, with columns found by their places.
#[derive(Debug)]
pub(crate) struct PushFiltersByPlace {
    phase: FilterPushdownPhase,
    name: &'static str,
}

impl PushFiltersByPlace {
    /// The rule that pushes the plan's own filters.
    pub(crate) fn of_plans() -> Self {
        Self {
            phase: FilterPushdownPhase::Pre,
            name: "FilterPushdown",
        }
    }

    /// The rule that pushes filters which are known only while the plan runs.
    pub(crate) fn of_running_plans() -> Self {
        Self {
            phase: FilterPushdownPhase::Post,
            name: "FilterPushdown(Post)",
        }
    }
}

impl PhysicalOptimizerRule for PushFiltersByPlace {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let pushed = push(&plan, Vec::new(), config, self.phase)?;
        Ok(pushed.updated_node.unwrap_or(plan))
    }

    fn name(&self) -> &str {
        self.name
    }

    fn schema_check(&self) -> bool {
        true
    }
}

type Filter = Arc<dyn PhysicalExpr>;

fn push(
    node: &Arc<dyn ExecutionPlan>,
    filters: Vec<Filter>,
    config: &ConfigOptions,
    phase: FilterPushdownPhase,
) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
    let shown: Vec<bool> = (filters.iter().map(|filter| is_read_rightly(node, filter))).collect();
    let mut offered = filters;
    let mut is_shown = shown.iter();
    offered.retain(|_| is_shown.next() == Some(&true));

    let described = node.gather_filters_for_pushdown(phase, offered.clone(), config)?;
    let (passed, own) = (described.parent_filters(), described.self_filters());
    let children = node.children();
    if passed.len() != children.len() || own.len() != children.len() {
        return internal_err!("{} describes filters for other children than it has", node.name());
    }
    let mut results = vec![Vec::with_capacity(children.len()); offered.len()];
    let mut own_results = Vec::with_capacity(children.len());
    let mut new_children = Vec::with_capacity(children.len());
    for ((child, passed), own) in children.into_iter().zip(passed).zip(own) {
        if passed.len() != offered.len() {
            return internal_err!("{} describes other filters than it was given", node.name());
        }
        let accepted = |passed: &PushedDown| matches!(passed, PushedDown::Yes);
        let own_filters = own.iter().filter(|filter| !is_unstable(filter)).map(Arc::clone);
        let passed_filters =
            (passed.iter().filter(|filter| accepted(&filter.discriminant))).map(|filter| Arc::clone(&filter.predicate));
        let given: Vec<Filter> = own_filters.chain(passed_filters).collect();
        let count = given.len();
        let told = push(child, given, config, phase)?;
        if told.filters.len() != count {
            return internal_err!("{} answers for other filters than it was given", child.name());
        }
        let mut answers = told.filters.into_iter();
        let mut answer = |given: bool| match given {
            true => answers.next().unwrap_or(PushedDown::No),
            false => PushedDown::No,
        };
        own_results.push(
            (own.into_iter())
                .map(|filter| answer(!is_unstable(&filter)).wrap_expression(filter))
                .collect(),
        );
        for (result, filter) in results.iter_mut().zip(&passed) {
            result.push(answer(accepted(&filter.discriminant)));
        }
        new_children.push(told.updated_node.unwrap_or_else(|| Arc::clone(child)));
    }

    let updated = replace_children_if_necessary(Arc::clone(node), new_children)?;
    let parent_filters = (offered.into_iter().zip(results))
        .map(|(filter, child_results)| ChildFilterPushdownResult { filter, child_results })
        .collect();
    let result = ChildPushdownResult {
        parent_filters,
        self_filters: own_results,
    };
    let mut told = updated.handle_child_pushdown_result(phase, result, config)?;
    if told.updated_node.is_none() && !Arc::ptr_eq(&updated, node) {
        told.updated_node = Some(updated);
    }
    // What the node was not shown stays with its parent.
    let mut answers = told.filters.into_iter();
    told.filters = (shown.into_iter())
        .map(|shown| match shown {
            true => answers.next().unwrap_or(PushedDown::No),
            false => PushedDown::No,
        })
        .collect();
    Ok(told)
}

/// Whether a filter may say otherwise for the same row, and so must be asked once, where it is.
fn is_unstable(filter: &Filter) -> bool {
    let mut unstable = false;
    let walked = filter.apply(|part| {
        unstable = unstable || is_volatile(part);
        Ok(match unstable {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    });
    unstable || walked.is_err()
}

/// Whether the node, which goes by names, takes each column of the filter for the one that stands at its place.
fn is_read_rightly(node: &Arc<dyn ExecutionPlan>, filter: &Filter) -> bool {
    (collect_columns(filter).iter()).all(|column| finds(node, column))
}

fn finds(node: &Arc<dyn ExecutionPlan>, column: &Column) -> bool {
    let (name, place) = (column.name(), column.index());
    if node.is::<ProjectionExec>() {
        // It keeps the last column of a name, under the place of the first.
        return is_once(&node.schema(), name) && stands_at(&node.schema(), name, place);
    }
    if let Some(filter) = node.downcast_ref::<FilterExec>() {
        let below = match filter.projection() {
            Some(shown) => shown.get(place).copied(),
            None => Some(place),
        };
        return below.is_some_and(|below| stands_at(&filter.input().schema(), name, below));
    }
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        let schema = aggregate.input().schema();
        let key = aggregate.group_expr().expr().get(place);
        let below = key.and_then(|(key, _)| key.downcast_ref::<Column>().map(Column::index));
        return match below {
            Some(below) => stands_at(&schema, name, below),
            None => schema.index_of(name).is_err(),
        };
    }
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        return finds_in_join(join, column);
    }
    (node.children().iter()).all(|child| stands_at(&child.schema(), name, place))
}

/// A hash join knows a column's side by its place, and then goes by the name. It shows a semi join's keys to the other side too.
fn finds_in_join(join: &HashJoinExec, column: &Column) -> bool {
    let sides = [join.left().schema(), join.right().schema()];
    if !sides.iter().all(|schema| is_once(schema, column.name())) {
        return false;
    }
    let is_semi = matches!(join.join_type(), JoinType::LeftSemi | JoinType::RightSemi);
    let named = |key: &Filter| (key.downcast_ref::<Column>()).is_some_and(|key| key.name() == column.name());
    !is_semi
        || !sides.iter().all(|schema| schema.index_of(column.name()).is_ok())
        || join.on().iter().any(|(left, right)| named(left) && named(right))
}

/// Whether the name leads to the place, or nowhere.
fn stands_at(schema: &Schema, name: &str, place: usize) -> bool {
    schema.index_of(name).map_or(true, |found| found == place)
}

fn is_once(schema: &Schema, name: &str) -> bool {
    schema.fields().iter().filter(|field| field.name() == name).count() <= 1
}

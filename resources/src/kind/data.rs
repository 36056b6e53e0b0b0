//! The `data` block of a policy: what of a table is shown to whom. Which masks there are, and whether a filter fits a table, is known to
//! those who enforce it.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Meta, globs, one_of, only, unknown_keys};
use crate::glob::Glob;
use crate::node::{Node, Value};
use crate::problem::{Location, Problem};
use crate::set::Builder;
use crate::suggest;

/// What of a table is shown to whom.
#[derive(Debug, Clone)]
pub struct DataPolicy {
    /// The head of the manifest.
    pub meta: Meta,
    /// What people call it; else the name of the manifest.
    pub name: String,
    /// 1 to 100; the mask with the lowest number wins.
    pub priority: u32,
    /// Of which tables.
    pub scope: Scope,
    /// To whom.
    pub users: UserSelector,
    /// Of which columns; nothing for a filter.
    pub columns: ColumnSelector,
    /// What happens.
    pub rule: Rule,
}

/// Patterns for the three parts of a table's name.
#[derive(Debug, Clone)]
pub struct Scope {
    /// For the depot.
    pub depot: Glob,
    /// For the collection.
    pub collection: Glob,
    /// For the dataset.
    pub dataset: Glob,
    /// Patterns for the tags that the dataset has or inherits; one must match, if there are any.
    pub tags: Vec<Glob>,
}

/// Users by tag.
#[derive(Debug, Clone)]
pub struct UserSelector {
    /// Whether every pattern must match a tag of the user; else one is enough.
    pub all: bool,
    /// The patterns; at least one.
    pub tags: Vec<Glob>,
}

impl UserSelector {
    /// Whether a user with these tags is meant.
    pub fn matches<'a>(&self, tags: impl IntoIterator<Item = &'a str> + Clone) -> bool {
        let has = |glob: &Glob| tags.clone().into_iter().any(|tag| glob.matches(tag));
        if self.all {
            !self.tags.is_empty() && self.tags.iter().all(has)
        } else {
            self.tags.iter().any(has)
        }
    }
}

/// Columns by tag or by name; either is enough.
#[derive(Debug, Clone, Default)]
pub struct ColumnSelector {
    /// Patterns for tags.
    pub tags: Vec<Glob>,
    /// Names; dotted for a field inside a struct.
    pub names: Vec<String>,
}

/// What a data policy does.
#[derive(Debug, Clone)]
pub enum Rule {
    /// Changes the values of columns.
    Mask(MaskSpec),
    /// Says which rows stay visible: those for which all of this is true.
    Filter(Vec<FilterSpec>),
}

/// How values are changed.
#[derive(Debug, Clone)]
pub struct MaskSpec {
    /// The operator's name.
    pub operator: String,
    /// The block named after the operator; null if there is none.
    pub parameters: Node,
    /// Where the operator stands.
    pub location: Location,
}

/// A condition on rows.
#[derive(Debug, Clone)]
pub struct FilterSpec {
    /// The column that is compared; absent if there is an expression.
    pub column: Option<String>,
    /// One of [`FilterSpec::OPERATORS`].
    pub operator: String,
    /// What it is compared with: a scalar, a list for `in` and `not_in`, nothing for `is_null` and `is_not_null`.
    pub value: Option<Node>,
    /// A predicate in SQL, instead of the above.
    pub expression: Option<String>,
    /// Where the condition stands.
    pub location: Location,
}

impl FilterSpec {
    /// The names of the comparisons.
    pub const OPERATORS: [&'static str; 11] = [
        "equals",
        "not_equals",
        "in",
        "not_in",
        "less_than",
        "less_than_equals",
        "greater_than",
        "greater_than_equals",
        "like",
        "is_null",
        "is_not_null",
    ];
}

const STRONGEST: u32 = 1;
const WEAKEST: u32 = 100;

#[derive(Deserialize)]
struct Written {
    #[serde(rename = "type")]
    form: String,
    name: Option<String>,
    description: Option<String>,
    priority: Option<u32>,
    depot: Option<String>,
    collection: Option<String>,
    dataset: Option<String>,
    dataset_id: Option<String>,
    selector: WrittenSelector,
    mask: Option<IgnoredAny>,
    filters: Option<Vec<WrittenFilter>>,
}

#[derive(Deserialize)]
struct WrittenSelector {
    user: WrittenUsers,
    column: Option<WrittenColumns>,
    #[serde(rename = "dataset")]
    _dataset: Option<WrittenDatasets>,
}

#[derive(Deserialize)]
struct WrittenDatasets {
    #[serde(rename = "tags")]
    _tags: IgnoredAny,
}

#[derive(Deserialize)]
struct WrittenUsers {
    #[serde(rename = "match")]
    how: Option<String>,
    #[serde(rename = "tags")]
    _tags: IgnoredAny,
}

#[derive(Deserialize)]
struct WrittenColumns {
    #[serde(rename = "tags")]
    _tags: Option<IgnoredAny>,
    #[serde(default)]
    names: Vec<String>,
}

#[derive(Deserialize)]
struct WrittenFilter {
    column: Option<String>,
    operator: Option<String>,
    #[serde(rename = "value")]
    _value: Option<IgnoredAny>,
    expression: Option<String>,
}

pub(super) fn read(mut meta: Meta, node: &Node, set: &mut Builder) -> Vec<Problem> {
    let mut written: Written = match node.read(&Arc::clone(&meta.location.file)) {
        Ok(written) => written,
        Err(mut problems) => {
            if node.get("mask").is_some() {
                mask(node, &meta, &mut problems);
            }
            return problems;
        }
    };
    let mut problems = Vec::new();
    let scope = scope(&written, node, &meta, &mut problems);
    let datasets = node.get("selector").and_then(|selector| selector.get("dataset"));
    let dataset_tags = globs(
        datasets.and_then(|datasets| datasets.get("tags")),
        "selector.dataset.tags",
        &meta,
        &mut problems,
    );
    let scope = scope.map(|scope| Scope {
        tags: dataset_tags,
        ..scope
    });
    let users = node.get("selector").and_then(|selector| selector.get("user"));
    let tags = globs(
        users.and_then(|users| users.get("tags")),
        "selector.user.tags",
        &meta,
        &mut problems,
    );
    let how = written.selector.user.how.take().unwrap_or_else(|| "any".to_string());
    let line = super::line_of(node, &["selector", "user", "match"]);
    problems.extend(one_of(&how, &["any", "all"], "match", meta.at(line)));
    let users = UserSelector {
        all: how == "all",
        tags,
    };
    let priority = written.priority.unwrap_or(WEAKEST);
    if !(STRONGEST..=WEAKEST).contains(&priority) {
        let line = super::line_of(node, &["priority"]);
        problems.push(Problem::new(
            meta.at(line),
            format!("`priority` is not a number from {STRONGEST} to {WEAKEST}"),
        ));
    }
    let refuse = |key: &str, form: &str, problems: &mut Vec<Problem>| {
        let line = super::line_of(node, &key.split('.').collect::<Vec<_>>());
        problems
            .push(Problem::new(meta.at(line), format!("`{key}` means nothing in a {form} policy")).help("remove it"));
    };
    let mut columns = ColumnSelector::default();
    let rule = match written.form.as_str() {
        "mask" => {
            if written.filters.is_some() {
                refuse("filters", "mask", &mut problems);
            }
            if written.priority.is_none() {
                let message = "the key `priority` is missing: among masks the lowest number wins";
                problems
                    .push(Problem::new(meta.at(node.line), message).help(format!("expected {STRONGEST} to {WEAKEST}")));
            }
            columns = column_selector(&mut written, node, &meta, &mut problems);
            mask(node, &meta, &mut problems).map(Rule::Mask)
        }
        "filter" => {
            if written.mask.is_some() {
                refuse("mask", "filter", &mut problems);
            }
            if written.selector.column.is_some() {
                refuse("selector.column", "filter", &mut problems);
            }
            filters(written.filters.take().unwrap_or_default(), node, &meta, &mut problems).map(Rule::Filter)
        }
        form => {
            let line = super::line_of(node, &["type"]);
            problems.extend(one_of(form, &["mask", "filter"], "type", meta.at(line)));
            None
        }
    };
    if let (true, Some(scope), Some(rule)) = (problems.is_empty(), scope, rule) {
        if let (true, Some(description)) = (meta.description.is_empty(), written.description) {
            meta.description = description;
        }
        let name = written.name.unwrap_or_else(|| meta.name.clone());
        set.add_data_policy(DataPolicy {
            meta,
            name,
            priority,
            scope,
            users,
            columns,
            rule,
        });
    }
    problems
}

fn scope(written: &Written, node: &Node, meta: &Meta, problems: &mut Vec<Problem>) -> Option<Scope> {
    let parts = [
        ("depot", &written.depot),
        ("collection", &written.collection),
        ("dataset", &written.dataset),
    ];
    if let Some(id) = &written.dataset_id {
        let location = meta.at(super::line_of(node, &["dataset_id"]));
        if parts.iter().any(|(_, part)| part.is_some()) {
            let message = "`dataset_id` and `depot`, `collection` or `dataset` exclude each other";
            problems.push(Problem::new(location, message));
            return None;
        }
        let names: Vec<&str> = id.split('.').collect();
        let [depot, collection, dataset] = names.as_slice() else {
            let message = format!("`dataset_id` is `{id}`; expected `depot.collection.dataset`");
            let problem = Problem::new(location, message);
            problems.push(problem.help("a name with a dot in it goes into `depot`, `collection` and `dataset`"));
            return None;
        };
        if names.contains(&"") {
            problems.push(Problem::new(
                location,
                format!("`dataset_id` is `{id}`; a part of it is empty"),
            ));
            return None;
        }
        return Some(Scope {
            depot: Glob::exactly(depot),
            collection: Glob::exactly(collection),
            dataset: Glob::exactly(dataset),
            tags: Vec::new(),
        });
    }
    let mut read = |(key, text): (&str, &Option<String>)| match text {
        None => Some(Glob::everything()),
        Some(text) => super::glob(text, meta.at(super::line_of(node, &[key])), problems),
    };
    let [depot, collection, dataset] = parts.map(&mut read);
    Some(Scope {
        depot: depot?,
        collection: collection?,
        dataset: dataset?,
        tags: Vec::new(),
    })
}

fn column_selector(written: &mut Written, node: &Node, meta: &Meta, problems: &mut Vec<Problem>) -> ColumnSelector {
    let line = super::line_of(node, &["selector", "column"]);
    let selected = node.get("selector").and_then(|selector| selector.get("column"));
    let tags = globs(
        selected.and_then(|columns| columns.get("tags")),
        "selector.column.tags",
        meta,
        problems,
    );
    let names = written
        .selector
        .column
        .take()
        .map(|columns| columns.names)
        .unwrap_or_default();
    if names
        .iter()
        .any(|name| name.is_empty() || name.split('.').any(str::is_empty))
    {
        problems.push(Problem::new(
            meta.at(line),
            "`selector.column.names` holds what is not the name of a column",
        ));
    }
    if names.is_empty() && selected.and_then(|columns| columns.get("tags")).is_none() {
        let problem = Problem::new(meta.at(line), "a mask policy selects no column");
        problems.push(problem.help("expected `selector.column.tags` or `selector.column.names`"));
    }
    ColumnSelector { tags, names }
}

fn mask(node: &Node, meta: &Meta, problems: &mut Vec<Problem>) -> Option<MaskSpec> {
    #[derive(Deserialize)]
    struct WrittenMask {
        operator: String,
    }
    let Some(mask) = node.get("mask") else {
        problems.push(Problem::new(meta.at(node.line), "the key `mask` is missing"));
        return None;
    };
    let operator = match only(mask, &["operator"]).read::<WrittenMask>(&meta.location.file) {
        Ok(written) => written.operator,
        Err(more) => {
            problems.extend(more);
            return None;
        }
    };
    problems.extend(unknown_keys(mask, &["operator", &operator], &meta.location.file));
    let line = super::line_of(mask, &["operator"]);
    let nothing = Node {
        value: Value::Null,
        line,
    };
    let parameters = if operator == "operator" {
        nothing
    } else {
        mask.get(&operator).cloned().unwrap_or(nothing)
    };
    Some(MaskSpec {
        operator,
        parameters,
        location: meta.at(line),
    })
}

fn filters(
    written: Vec<WrittenFilter>,
    node: &Node,
    meta: &Meta,
    problems: &mut Vec<Problem>,
) -> Option<Vec<FilterSpec>> {
    let nodes = node.get("filters").and_then(Node::as_list).unwrap_or_default();
    if nodes.is_empty() {
        let line = super::line_of(node, &["filters"]);
        problems.push(Problem::new(
            meta.at(line),
            "a filter policy has no `filters`; expected a list of conditions",
        ));
        return None;
    }
    let mut filters = Vec::with_capacity(nodes.len());
    for (written, node) in written.into_iter().zip(nodes) {
        let location = meta.at(node.line);
        let operator = written.operator.clone().unwrap_or_else(|| "equals".to_string());
        let value = node.get("value").cloned();
        if let Some((message, help)) = wrong_filter(&written, &operator, value.as_ref()) {
            let mut problem = Problem::new(location, message);
            problem.help = help;
            problems.push(problem);
            continue;
        }
        filters.push(FilterSpec {
            column: written.column,
            operator,
            value,
            expression: written.expression,
            location,
        });
    }
    Some(filters)
}

/// What is wrong with a condition, and what may help.
fn wrong_filter(written: &WrittenFilter, operator: &str, value: Option<&Node>) -> Option<(String, Option<String>)> {
    let wrong = |message: String| Some((message, None));
    if let Some(expression) = &written.expression {
        if written.column.is_some() || written.operator.is_some() || value.is_some() {
            return wrong("`expression` and `column`, `operator` or `value` exclude each other".to_string());
        }
        if expression.trim().is_empty() {
            return wrong("`expression` is empty".to_string());
        }
        return None;
    }
    if written.column.as_deref().is_none_or(str::is_empty) {
        return wrong("a condition names no `column`".to_string());
    }
    if !FilterSpec::OPERATORS.contains(&operator) {
        let help = suggest::instead(operator, FilterSpec::OPERATORS);
        return Some((format!("`{operator}` is not an operator of filters"), help));
    }
    let expected = match (operator, value.map(|node| &node.value)) {
        ("is_null" | "is_not_null", None) => return None,
        ("is_null" | "is_not_null", Some(_)) => return wrong(format!("`{operator}` compares with no `value`")),
        ("in" | "not_in", Some(Value::List(nodes))) if !nodes.is_empty() => {
            let scalar = |node: &Node| !matches!(node.value, Value::List(_) | Value::Map(_) | Value::Null);
            if nodes.iter().all(scalar) {
                return None;
            }
            "a list of scalars as its `value`"
        }
        ("in" | "not_in", _) => "a list with something in it as its `value`",
        ("like", Some(Value::Text(_))) => return None,
        ("like", _) => "text as its `value`",
        (_, Some(Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_))) => return None,
        (_, Some(Value::Null)) => {
            return Some((
                format!("`{operator}` expects a `value`"),
                Some("for rows without a value there is `is_null`".to_string()),
            ));
        }
        (_, None | Some(Value::List(_) | Value::Map(_))) => "a scalar as its `value`",
    };
    let help = matches!(
        (operator, value.map(|node| &node.value)),
        ("equals", Some(Value::List(_)))
    )
    .then(|| "there is `in`".to_string());
    Some((format!("`{operator}` expects {expected}"), help))
}

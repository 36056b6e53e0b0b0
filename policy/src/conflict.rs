//! Finds masks that contradict each other before any query does: two different masks of one priority that some user
//! would meet on one column.
//!
//! Only what can be seen is found: policies whose selectors meet by what they say, declared columns and declared
//! users. What shows only with a real table and a real user closes that table when it is asked for.

use minerva_resources::{Address, Glob, Problem, ResourceSet};

use crate::rules::DataRule;
use crate::tags::TagIndex;

/// Every pair of policies that contradict each other.
pub(crate) fn conflicts(rules: &[DataRule], tags: &TagIndex, set: &ResourceSet) -> Vec<Problem> {
    let masks: Vec<_> = rules
        .iter()
        .filter(|rule| rule.mask().is_some_and(|mask| !mask.is_pass_through()))
        .collect();
    let columns: Vec<Declared<'_>> = tags
        .columns()
        .map(|(address, path, column_tags)| Declared {
            address,
            path,
            tags: column_tags,
            table_tags: tags.of_table(address),
        })
        .collect();
    let matches: Vec<Vec<bool>> = masks
        .iter()
        .map(|rule| columns.iter().map(|column| column.is_selected_by(rule)).collect())
        .collect();
    let mut problems = vec![];
    for (index, (left, left_columns)) in masks.iter().zip(&matches).enumerate() {
        for (right, right_columns) in masks.iter().zip(&matches).skip(index + 1) {
            if left.priority != right.priority || !differ(left, right) {
                continue;
            }
            let declared = left_columns
                .iter()
                .zip(right_columns)
                .position(|(left, right)| *left && *right);
            let meet = declared.is_some() || scopes_meet(left, right) && columns_meet(left, right);
            if !meet || !(users_meet(left, right) || users_meet(right, left) || some_user(left, right, set)) {
                continue;
            }
            let on = match declared.and_then(|index| columns.get(index)) {
                Some(column) => format!(" on column `{}` of `{}`", column.path, column.address),
                None => String::new(),
            };
            let message = format!(
                "policies `{}` and `{}` have priority {} and give different masks{on}",
                left.because.name, right.because.name, left.priority
            );
            problems.push(Problem::new(right.because.location.clone(), message).help(format!(
                "give one of them another priority; the other is at {}",
                left.because.location
            )));
        }
    }
    problems
}

/// A column that a dataset manifest names.
struct Declared<'a> {
    address: &'a Address,
    path: &'a str,
    tags: Vec<&'a str>,
    table_tags: Vec<&'a str>,
}

impl Declared<'_> {
    fn is_selected_by(&self, rule: &DataRule) -> bool {
        self.address.is_dataset()
            && rule.covers(self.address, &self.table_tags)
            && (rule
                .columns
                .tags
                .iter()
                .any(|glob| self.tags.iter().any(|tag| glob.matches(tag)))
                || rule
                    .columns
                    .names
                    .iter()
                    .any(|name| name.eq_ignore_ascii_case(self.path)))
    }
}

fn differ(left: &DataRule, right: &DataRule) -> bool {
    match (left.mask(), right.mask()) {
        (Some(left), Some(right)) => left.describe() != right.describe(),
        _ => false,
    }
}

/// Whether one pattern matches what the other says, taken as a text.
fn meet(left: &Glob, right: &Glob) -> bool {
    left.as_str() == right.as_str() || left.matches(right.as_str()) || right.matches(left.as_str())
}

fn scopes_meet(left: &DataRule, right: &DataRule) -> bool {
    meet(&left.scope.depot, &right.scope.depot)
        && meet(&left.scope.collection, &right.scope.collection)
        && meet(&left.scope.dataset, &right.scope.dataset)
        && (left.scope.tags.is_empty()
            || right.scope.tags.is_empty()
            || (left.scope.tags.iter()).any(|glob| right.scope.tags.iter().any(|other| meet(glob, other))))
}

fn columns_meet(left: &DataRule, right: &DataRule) -> bool {
    let tags = left
        .columns
        .tags
        .iter()
        .any(|glob| right.columns.tags.iter().any(|other| meet(glob, other)));
    let same = |name: &String| right.columns.names.iter().any(|other| other.eq_ignore_ascii_case(name));
    tags || left.columns.names.iter().any(same)
}

/// Whether a user with just the tags that one policy asks for meets the other too.
fn users_meet(left: &DataRule, right: &DataRule) -> bool {
    let tags = || left.users.tags.iter().map(Glob::as_str);
    if left.users.all {
        right.users.matches(tags().collect::<Vec<_>>())
    } else {
        tags().any(|tag| right.users.matches([tag]))
    }
}

fn some_user(left: &DataRule, right: &DataRule, set: &ResourceSet) -> bool {
    set.users().any(|user| {
        let tags = user.tags.iter().map(String::as_str);
        left.users.matches(tags.clone()) && right.users.matches(tags)
    })
}

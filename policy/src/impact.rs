//! What a change of policies would alter: for `minerva apply --dry-run`.
//!
//! In: two explanations of the same table for the same principal, before and after. Out: what differs, in words. It
//! decides nothing and reads no data.

use crate::explain::{Explanation, Shown};

/// One thing that a principal would see otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alteration {
    /// `access`, `rows`, or a column.
    pub subject: String,
    /// What is decided now.
    pub before: String,
    /// What would be decided.
    pub after: String,
}

/// What differs between two explanations. Either may be absent: the user or the table is not there.
pub fn alterations(before: Option<&Explanation>, after: Option<&Explanation>) -> Vec<Alteration> {
    let mut found = vec![];
    let mut note = |subject: &str, before: String, after: String| {
        if before != after {
            found.push(Alteration {
                subject: subject.to_owned(),
                before,
                after,
            });
        }
    };
    note("access", access(before), access(after));
    // Of a table that cannot be read, no more is to be said.
    let readable = |explanation: Option<&Explanation>| {
        explanation.is_some_and(|explanation| explanation.access.allowed && explanation.closed.is_none())
    };
    if !readable(before) && !readable(after) {
        return found;
    }
    let nothing = || "nothing".to_owned();
    let rows_of = |explanation: Option<&Explanation>| match explanation {
        Some(explanation) if readable(Some(explanation)) => rows(explanation),
        _ => nothing(),
    };
    note("rows", rows_of(before), rows_of(after));
    let mut paths: Vec<&str> = vec![];
    for explanation in [before, after].into_iter().flatten() {
        for column in &explanation.columns {
            if !paths.contains(&column.path.as_str()) {
                paths.push(&column.path);
            }
        }
    }
    let shown = |explanation: Option<&Explanation>, path: &str| {
        let Some(explanation) = explanation.filter(|explanation| readable(Some(explanation))) else {
            return nothing();
        };
        let column = explanation.columns.iter().find(|column| column.path == path);
        match column {
            Some(column) => column.shown().to_string(),
            // Only one of the two says something of this part: what it lies in says it for the other.
            None => (explanation.columns.iter())
                .filter(|column| {
                    path.strip_prefix(&column.path)
                        .is_some_and(|rest| rest.starts_with('.'))
                })
                .map(|column| column.shown())
                .next()
                .unwrap_or(Shown::AsItIs)
                .to_string(),
        }
    };
    let is_whole = |explanation: Option<&Explanation>, path: &str| {
        explanation.is_none_or(|explanation| {
            !(explanation.columns.iter())
                .any(|column| column.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
        })
    };
    for path in paths {
        // A column whose parts differ is told part by part.
        if is_whole(before, path) && is_whole(after, path) {
            note(&format!("column `{path}`"), shown(before, path), shown(after, path));
        }
    }
    found
}

fn access(explanation: Option<&Explanation>) -> String {
    match explanation {
        None => "none: the user or the table is not there".to_owned(),
        Some(explanation) if !explanation.access.allowed => "denied".to_owned(),
        Some(explanation) => match &explanation.closed {
            Some(closed) => format!("closed: {}", closed.message),
            None => "allowed".to_owned(),
        },
    }
}

fn rows(explanation: &Explanation) -> String {
    if explanation.filters.is_empty() {
        return "all".to_owned();
    }
    let filters: Vec<_> = explanation
        .filters
        .iter()
        .map(|filter| {
            let condition = filter.sql.as_ref().unwrap_or(&filter.condition);
            format!("{condition} by `{}`", filter.because.name)
        })
        .collect();
    filters.join(" and ")
}

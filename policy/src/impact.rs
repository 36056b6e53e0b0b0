//! What a change of policies would alter: for `minerva apply --dry-run`.
//!
//! In: two explanations of the same table for the same principal, before and after. Out: what differs, in words. It
//! decides nothing and reads no data.

use std::collections::{BTreeMap, BTreeSet};

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

/// Whose view of what a change of policies alters, gathered over users and tables.
#[derive(Debug, Clone, Default)]
pub struct Impact {
    /// For whom and of what; then what of it.
    pub altered: BTreeMap<(String, String), Vec<Alteration>>,
    /// Tables that the change would close to somebody to whom they are not closed now, and why.
    pub closed: Vec<String>,
    /// Masks that fit no column that they are about, be they met by a declared user or not.
    pub misfits: BTreeSet<String>,
    /// What could not be looked at.
    pub unreached: BTreeSet<String>,
}

impl Impact {
    /// Takes in what one user sees of one table before and after.
    pub fn note(&mut self, user: &str, object: &str, before: Option<&Explanation>, after: Option<&Explanation>) {
        let closed = |explanation: Option<&Explanation>| {
            explanation
                .filter(|explanation| explanation.access.allowed)
                .and_then(|explanation| explanation.closed.as_ref())
                .map(ToString::to_string)
        };
        if let (Some(why), None) = (closed(after), closed(before)) {
            self.closed.push(format!("for user `{user}`, {why}"));
        }
        let altered = alterations(before, after);
        if !altered.is_empty() {
            self.altered.insert((user.to_owned(), object.to_owned()), altered);
        }
    }

    /// Takes in whether one user may use a cluster before and after.
    pub fn note_cluster(&mut self, user: &str, cluster: &str, before: bool, after: bool) {
        let word = |allowed| if allowed { "allowed" } else { "denied" };
        if before != after {
            let altered = Alteration {
                subject: "access".to_owned(),
                before: word(before).to_owned(),
                after: word(after).to_owned(),
            };
            self.altered
                .insert((user.to_owned(), format!("cluster {cluster}")), vec![altered]);
        }
    }
}

//! Checks what somebody is expected to see against what would be decided: for `minerva policy test`.
//!
//! In: a written expectation, an explanation, the table's columns. Out: one outcome for each thing that is expected.
//! It reads no data and knows of no file.

use datafusion::arrow::datatypes::Schema;
use minerva_resources::{PolicyTest, TestAccess, closest};

use crate::explain::{ColumnExplanation, Explanation, Shown};
use crate::expression::SqlExpression;
use crate::mask::MASKS;

/// Whether one expectation holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What it is about: `access`, `rows`, or a column.
    pub subject: String,
    /// What was expected.
    pub expected: String,
    /// What would be decided.
    pub got: String,
    /// Whether it is as expected.
    pub holds: bool,
}

/// Compares a test with the explanation of the same table for the same principal.
pub fn compare(test: &PolicyTest, explanation: &Explanation, schema: &Schema) -> Vec<Outcome> {
    let access = if !explanation.access.allowed {
        TestAccess::Denied
    } else if explanation.closed.is_some() {
        TestAccess::Closed
    } else {
        TestAccess::Allowed
    };
    let mut outcomes = vec![];
    if let Some(expected) = test.access {
        outcomes.push(Outcome {
            subject: "access".to_owned(),
            expected: word(expected).to_owned(),
            got: word(access).to_owned(),
            holds: access == expected,
        });
    }
    if let Some(expected) = &test.rows {
        let (got, holds) = rows(expected, explanation, schema, access);
        outcomes.push(Outcome {
            subject: "rows".to_owned(),
            expected: expected.clone(),
            got,
            holds,
        });
    }
    for (column, expected, _) in &test.columns {
        let (got, holds) = match access {
            TestAccess::Allowed => shown(column, expected, explanation),
            TestAccess::Denied => (
                "denied: the table does not exist for them".to_owned(),
                expected == DENIED,
            ),
            TestAccess::Closed => ("closed: a policy cannot be applied to the table".to_owned(), false),
        };
        outcomes.push(Outcome {
            subject: format!("column `{column}`"),
            expected: expected.clone(),
            got,
            holds,
        });
    }
    outcomes
}

const DENIED: &str = "denied";
const VISIBLE: &str = "visible";
const MASKED: &str = "masked";

fn word(access: TestAccess) -> &'static str {
    TestAccess::WORDS
        .iter()
        .find(|(_, known)| *known == access)
        .map_or("", |(word, _)| word)
}

fn rows(expected: &str, explanation: &Explanation, schema: &Schema, access: TestAccess) -> (String, bool) {
    if access != TestAccess::Allowed {
        return (format!("none: the table is {}", word(access)), expected == "none");
    }
    let texts: Vec<&str> = explanation
        .filters
        .iter()
        .map(|filter| filter.sql.as_deref().unwrap_or(&filter.condition))
        .collect();
    let got = match texts.as_slice() {
        [] => return ("all".to_owned(), expected == "all"),
        [one] => (*one).to_owned(),
        several => several
            .iter()
            .map(|text| format!("({text})"))
            .collect::<Vec<_>>()
            .join(" AND "),
    };
    if expected == "all" {
        return (got, false);
    }
    let planned = |text: &str| SqlExpression::parse(text)?.conjuncts(schema, &|_| None);
    let found = match planned(&got) {
        Ok(found) => found,
        Err(why) => return (format!("{got}, which cannot be compared: {why}"), false),
    };
    if expected == "none" {
        return (got, found.iter().any(|conjunct| conjunct == "Boolean(false)"));
    }
    match planned(expected) {
        Ok(expected) => {
            let holds = expected == found;
            (got, holds)
        }
        Err(why) => (format!("{got}; what is expected cannot be read: {why}"), false),
    }
}

fn shown(column: &str, expected: &str, explanation: &Explanation) -> (String, bool) {
    let parts = parts_of(column, explanation);
    if parts.is_empty() {
        let names = explanation.columns.iter().map(|known| known.path.as_str());
        let near = closest(column, names).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        return (format!("there is no column `{column}`{near}"), false);
    }
    let mut got: Vec<String> = parts.iter().map(|part| part.shown().to_string()).collect();
    got.dedup();
    let got = match got.as_slice() {
        [one] => one.clone(),
        // Which part is which must be told where they differ.
        _ => (parts.iter())
            .map(|part| format!("`{}` {}", part.path, part.shown()))
            .collect::<Vec<_>>()
            .join("; "),
    };
    let masks = || {
        parts.iter().filter_map(|part| match part.shown() {
            Shown::Masked { mask, .. } => Some(mask),
            _ => None,
        })
    };
    let holds = match expected {
        VISIBLE => parts.iter().all(|part| part.shown() == Shown::AsItIs),
        DENIED => parts.iter().all(|part| part.shown() == Shown::Hidden),
        MASKED => masks().count() == parts.len(),
        mask => {
            let name = mask.split('(').next().unwrap_or(mask);
            if !MASKS.iter().any(|known| known.name() == name) {
                let words = [VISIBLE, MASKED, DENIED].into_iter();
                let words = words.chain(MASKS.iter().map(|known| known.name()));
                let near = closest(name, words).map_or_else(String::new, |near| format!(", did you mean `{near}`"));
                return (
                    format!("{got}; `{mask}` is neither `visible`, `masked` nor `denied`, nor a mask{near}"),
                    false,
                );
            }
            let is =
                |found: &String| found == mask || found.strip_prefix(mask).is_some_and(|rest| rest.starts_with('('));
            // The exemption shows a column as it is.
            let exempt = name == "pass_through" && parts.iter().all(|part| part.shown() == Shown::AsItIs);
            exempt || masks().count() == parts.len() && masks().all(|found| is(&found))
        }
    };
    (got, holds)
}

/// What is said of a column: by itself, of the parts of it, or of what it lies in.
fn parts_of<'a>(column: &str, explanation: &'a Explanation) -> Vec<&'a ColumnExplanation> {
    let lies_in = |inner: &str, outer: &str| {
        inner == outer || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'))
    };
    let inside: Vec<_> = (explanation.columns.iter())
        .filter(|known| lies_in(&known.path, column))
        .collect();
    if !inside.is_empty() {
        return inside;
    }
    explanation
        .columns
        .iter()
        .filter(|known| lies_in(column, &known.path))
        .collect()
}

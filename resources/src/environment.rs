//! `${NAME}` and `$NAME` in manifests, filled in from the environment.
//!
//! It happens after YAML is read, so a value can neither change the shape of a manifest nor lose a character to YAML. What is filled in
//! is text; where a number or a flag is expected, text that says one will do.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::node::{Node, Value};
use crate::problem::{Location, Problem};

/// Where variables are looked up.
pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Fills in every text under a node; notes each variable that is not set, and remembers those that are.
pub(crate) fn fill(
    node: &mut Node,
    file: &Arc<Path>,
    variables: Variables<'_>,
    used: &mut BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) {
    match &mut node.value {
        Value::Text(text) if text.contains('$') => match filled(text, variables, used) {
            Ok(new) => *text = new,
            Err(wrong) => {
                for (message, help) in wrong {
                    problems.push(Problem::new(Location::new(Arc::clone(file), node.line), message).help(help));
                }
            }
        },
        Value::List(nodes) => nodes
            .iter_mut()
            .for_each(|node| fill(node, file, variables, used, problems)),
        Value::Map(entries) => entries
            .iter_mut()
            .for_each(|(_, node)| fill(node, file, variables, used, problems)),
        Value::Text(_) | Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {}
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.chars().all(is_name_part)
}

fn is_name_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Values that belong to the user who asks, not to the environment: they are left for the policies.
fn is_of_user(text: &str) -> bool {
    text == "user.id" || text.starts_with("user.attributes.")
}

fn filled(
    text: &str,
    variables: Variables<'_>,
    used: &mut BTreeMap<String, String>,
) -> Result<String, Vec<(String, String)>> {
    let mut new = String::with_capacity(text.len());
    let mut wrong = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        new.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            new.push('$');
            rest = after;
            continue;
        }
        let name = if let Some(inside) = rest.strip_prefix('{') {
            let Some((name, after)) = inside.split_once('}') else {
                wrong.push((
                    "`${` is not closed".to_string(),
                    "write `$$` for the character `$`".to_string(),
                ));
                break;
            };
            rest = after;
            if is_of_user(name) || name.starts_with(|c: char| c.is_ascii_digit()) {
                new.push_str("${");
                new.push_str(name);
                new.push('}');
                continue;
            }
            name
        } else {
            let end = rest.find(|c| !is_name_part(c)).unwrap_or(rest.len());
            let (name, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
            if !is_name(name) {
                new.push('$');
                continue;
            }
            rest = after;
            name
        };
        if !is_name(name) {
            let help = "expected `${NAME}` for the environment, `${user.id}` or `${user.attributes.NAME}` for the user, `$$` for the \
                        character `$`";
            wrong.push((format!("`${{{name}}}` is not a variable"), help.to_string()));
        } else if let Some(value) = variables(name) {
            new.push_str(&value);
            used.insert(name.to_string(), value);
        } else {
            let help = "set it, or write `$$` for the character `$`".to_string();
            wrong.push((format!("the environment variable `{name}` is not set"), help));
        }
    }
    new.push_str(rest);
    if wrong.is_empty() { Ok(new) } else { Err(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let variables = |name: &str| match name {
            "HOST" => Some("db.example".to_string()),
            "ODD" => Some("a: ${HOST} # '".to_string()),
            _ => None,
        };
        let result = filled(text, &variables, &mut BTreeMap::new());
        let shown = result.unwrap_or_else(|wrong| {
            wrong
                .into_iter()
                .map(|(message, _)| message)
                .collect::<Vec<_>>()
                .join(" / ")
        });
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn variables_are_filled_in_and_nothing_else_is_touched() {
        check("${HOST}:5432", "db.example:5432");
        check("$HOST/$HOST", "db.example/db.example");
        check("${ODD}", "a: ${HOST} # '");
        check(
            "${user.id} ${user.attributes.region}",
            "${user.id} ${user.attributes.region}",
        );
        check("costs 5$, .{5}$ $1 ${1} $$HOST", "costs 5$, .{5}$ $1 ${1} $HOST");
        check(
            "${HOST} ${MISSING} $GONE",
            "the environment variable `MISSING` is not set / the environment variable `GONE` is not set",
        );
        check("${HOST", "`${` is not closed");
        check("${user.name}", "`${user.name}` is not a variable");
        check("${HOST:-x}", "`${HOST:-x}` is not a variable");
        check("ü$ü", "ü$ü");
    }
}

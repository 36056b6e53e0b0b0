//! Reads the parameter block of a mask: known keys, right kinds, every problem told at once.
//!
//! The values a policy's author wrote may stand in a problem; a secret is only ever named, never read here.

use std::sync::Arc;

use minerva_resources::{Location, MaskSpec, Node, Problem, Value, closest};

use super::Mask;

/// The longest text a parameter may be, so that no mask can make a value grow without bound.
const LONGEST_TEXT: usize = 4096;

/// A parameter block being read.
#[derive(Debug)]
pub(super) struct Parameters<'a> {
    spec: &'a MaskSpec,
    problems: Vec<Problem>,
}

impl<'a> Parameters<'a> {
    /// Starts reading; every key that is not in `known` is a problem.
    pub(super) fn new(spec: &'a MaskSpec, known: &[&str]) -> Self {
        let mut parameters = Self { spec, problems: vec![] };
        match &spec.parameters.value {
            Value::Null => {}
            Value::Map(entries) => {
                for (key, node) in entries {
                    if !known.contains(&key.text.as_str()) {
                        let problem = parameters.problem(
                            node,
                            format!("mask `{}`: unknown parameter `{}`", spec.operator, key.text),
                        );
                        let problem = match closest(&key.text, known.iter().copied()) {
                            Some(name) => problem.help(format!("did you mean `{name}`?")),
                            None if known.is_empty() => problem.help("this mask has no parameters"),
                            None => problem.help(format!("expected one of `{}`", known.join("`, `"))),
                        };
                        parameters.problems.push(problem);
                    }
                }
            }
            _ => {
                let problem = parameters.problem(
                    &spec.parameters,
                    format!("mask `{0}`: `{0}:` must be a block of parameters", spec.operator),
                );
                parameters.problems.push(problem);
            }
        }
        parameters
    }

    /// A problem at the line of `node`.
    pub(super) fn problem(&self, node: &Node, message: String) -> Problem {
        let line = if node.line == 0 {
            self.spec.location.line
        } else {
            node.line
        };
        Problem::new(
            Location {
                line,
                ..self.spec.location.clone()
            },
            message,
        )
    }

    /// Remembers that a key holds something else than it must.
    pub(super) fn wrong(&mut self, key: &str, expected: &str) {
        let node = self.spec.parameters.get(key).unwrap_or(&self.spec.parameters);
        let message = format!("mask `{}`: `{key}` must be {expected}", self.spec.operator);
        let problem = self.problem(node, message);
        self.problems.push(problem);
    }

    /// Remembers that a key is missing.
    fn missing(&mut self, key: &str, expected: &str) {
        let message = format!("mask `{}` needs `{key}`: {expected}", self.spec.operator);
        let problem = self.problem(&self.spec.parameters, message);
        self.problems.push(problem);
    }

    /// What stands at `key`.
    pub(super) fn node(&self, key: &str) -> Option<&'a Node> {
        self.spec
            .parameters
            .get(key)
            .filter(|node| !matches!(node.value, Value::Null))
    }

    /// What stands at `key`, which must be there.
    pub(super) fn required(&mut self, key: &str, expected: &str) -> Option<&'a Node> {
        let node = self.node(key);
        if node.is_none() {
            self.missing(key, expected);
        }
        node
    }

    /// The text at `key`.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        let node = self.node(key)?;
        match &node.value {
            Value::Text(text) if text.len() <= LONGEST_TEXT => Some(text.clone()),
            Value::Text(_) => {
                self.wrong(key, "at most 4096 bytes long");
                None
            }
            _ => {
                self.wrong(key, "a text; write it in quotes");
                None
            }
        }
    }

    /// The text at `key`, which must be there.
    pub(super) fn required_text(&mut self, key: &str, expected: &str) -> Option<String> {
        self.required(key, expected)?;
        self.text(key)
    }

    /// The count at `key`.
    pub(super) fn count(&mut self, key: &str) -> Option<usize> {
        let node = self.node(key)?;
        match &node.value {
            Value::Integer(count) if (0..=1_000_000).contains(count) => usize::try_from(*count).ok(),
            _ => {
                self.wrong(key, "a whole number from 0 to 1000000");
                None
            }
        }
    }

    /// The mask that was read, or every problem.
    pub(super) fn finish<M: Mask + 'static>(self, mask: Option<M>) -> Result<Arc<dyn Mask>, Vec<Problem>> {
        match mask {
            Some(mask) if self.problems.is_empty() => Ok(Arc::new(mask)),
            _ if self.problems.is_empty() => Err(vec![self.problem(
                &self.spec.parameters,
                format!("mask `{}` could not be read", self.spec.operator),
            )]),
            _ => Err(self.problems),
        }
    }
}

//! The keys that a connector understands, and the block of a depot in which they stand.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;

use crate::node::{Node, Value};
use crate::problem::{Location, Problem};
use crate::suggest;

/// What may stand behind a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterKind {
    /// Text.
    Text,
    /// The path of a file or folder; relative to the manifest.
    Path,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Flag,
    /// A list of texts.
    List,
    /// A map of texts with these keys.
    Map(&'static [&'static str]),
    /// One of these words, in upper or lower case.
    Choice(&'static [&'static str]),
}

impl ParameterKind {
    /// What a person calls it.
    pub fn describe(&self) -> String {
        match self {
            ParameterKind::Text => "text".to_string(),
            ParameterKind::Path => "a path".to_string(),
            ParameterKind::Integer => "a whole number".to_string(),
            ParameterKind::Number => "a number".to_string(),
            ParameterKind::Flag => "true or false".to_string(),
            ParameterKind::List => "a list of texts".to_string(),
            ParameterKind::Map(_) => "a map of texts".to_string(),
            ParameterKind::Choice(words) => format!("one of {}", suggest::quoted(words.iter().copied())),
        }
    }

    /// Whether the value is of this kind.
    pub(crate) fn fits(&self, node: &Node) -> bool {
        match self {
            ParameterKind::Text => node.plain_text().is_some(),
            ParameterKind::Path => node.as_text().is_some_and(|text| !text.is_empty()),
            ParameterKind::Integer => node.as_integer().is_some(),
            ParameterKind::Number => node.as_float().is_some(),
            ParameterKind::Flag => node.as_bool().is_some(),
            ParameterKind::List => node
                .as_list()
                .is_some_and(|nodes| nodes.iter().all(|node| node.plain_text().is_some())),
            ParameterKind::Map(_) => node
                .as_map()
                .is_some_and(|entries| entries.iter().all(|(_, node)| node.plain_text().is_some())),
            ParameterKind::Choice(words) => node
                .as_text()
                .is_some_and(|text| words.iter().any(|word| word.eq_ignore_ascii_case(text))),
        }
    }
}

/// A key of a connector's block.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// The key.
    pub name: &'static str,
    /// What may stand behind it.
    pub kind: ParameterKind,
    /// Whether it must be there.
    pub required: bool,
    /// What holds when it is absent, for the documentation.
    pub default: Option<&'static str>,
    /// Whether it is a credential: it then belongs in a secret and is refused in the block.
    pub secret: bool,
    /// One sentence about it.
    pub description: &'static str,
}

/// The block of a depot: what its connector was told.
#[derive(Debug, Clone)]
pub struct Settings {
    location: Location,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    key: String,
    key_line: usize,
    node: Node,
    /// The scalar as text, whole numbers included.
    text: Option<String>,
}

impl Settings {
    /// The settings in a block; `None` if it is neither a map nor empty.
    pub(crate) fn of(block: &Node, file: &Arc<Path>) -> Option<Self> {
        let location = Location::new(Arc::clone(file), block.line);
        let entries = match &block.value {
            Value::Null => Vec::new(),
            Value::Map(entries) => entries
                .iter()
                .map(|(key, node)| Entry::new(key.text.clone(), key.line, node.clone()))
                .collect(),
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) | Value::List(_) => return None,
        };
        Some(Self { location, entries })
    }

    /// What is wrong with them in the eyes of a connector that knows `parameters`.
    pub fn check(&self, parameters: &[Parameter], depot: &str) -> Vec<Problem> {
        let owner = format!("depot `{depot}`");
        let at = |line| Location::new(Arc::clone(&self.location.file), line);
        let mut problems = Vec::new();
        for entry in &self.entries {
            let Some(parameter) = parameters.iter().find(|parameter| parameter.name == entry.key) else {
                let known = parameters
                    .iter()
                    .filter(|parameter| !parameter.secret)
                    .map(|parameter| parameter.name);
                let mut problem = Problem::new(at(entry.key_line), format!("{owner}: unknown key `{}`", entry.key));
                problem.help =
                    suggest::instead(&entry.key, known).or_else(|| Some("this type of depot has no keys".to_string()));
                problems.push(problem);
                continue;
            };
            if parameter.secret {
                let message = format!("{owner}: `{}` is a credential and does not belong here", entry.key);
                problems.push(
                    Problem::new(at(entry.key_line), message).help("put it in the `data` of a secret of the depot"),
                );
            } else if !entry.node.is_null() && !parameter.kind.fits(&entry.node) {
                let expected = parameter.kind.describe();
                let message = match (&entry.node.value, parameter.kind) {
                    (Value::Text(text), ParameterKind::Choice(_)) => {
                        format!("{owner}: `{}` is `{text}`; expected {expected}", entry.key)
                    }
                    (value, _) => format!("{owner}: `{}` is {}; expected {expected}", entry.key, value.kind()),
                };
                let mut problem = Problem::new(at(entry.node.line), message);
                if let (Some(text), ParameterKind::Choice(words)) = (entry.node.as_text(), parameter.kind) {
                    problem.help =
                        suggest::closest(text, words.iter().copied()).map(|word| format!("did you mean `{word}`?"));
                } else if parameter.kind == ParameterKind::Text
                    && entry.node.as_list().is_none()
                    && entry.node.as_map().is_none()
                {
                    problem.help = Some("put it in quotes".to_string());
                }
                problems.push(problem);
            }
        }
        for parameter in parameters {
            if parameter.required && !parameter.secret && self.get(parameter.name).is_none() {
                let message = format!("{owner}: the key `{}` is missing", parameter.name);
                problems.push(
                    Problem::new(self.location.clone(), message)
                        .help(format!("expected {}", parameter.kind.describe())),
                );
            }
        }
        problems
    }

    /// Where the block stands.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Where a key stands; the block if it is absent.
    pub fn location_of(&self, key: &str) -> Location {
        let line = self.entry(key).map_or(self.location.line, |entry| entry.key_line);
        Location::new(Arc::clone(&self.location.file), line)
    }

    /// The keys, in the order of the manifest.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.key.as_str())
    }

    /// The value behind a key; a key with nothing behind it counts as absent.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// The text behind a key; a whole number is given as text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.entry(key)?.text.as_deref()
    }

    /// The whole number behind a key.
    pub fn integer(&self, key: &str) -> Option<i64> {
        self.get(key)?.as_integer()
    }

    /// The number behind a key.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.get(key)?.as_float()
    }

    /// The flag behind a key.
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// The texts behind a key; none if it is absent.
    pub fn list(&self, key: &str) -> Vec<String> {
        let nodes = self.get(key).and_then(Node::as_list).unwrap_or_default();
        nodes.iter().filter_map(Node::plain_text).collect()
    }

    /// The texts behind a key by their own keys, each with its line; none if it is absent.
    pub fn map(&self, key: &str) -> Vec<(String, String, Location)> {
        let entries = self.get(key).and_then(Node::as_map).unwrap_or_default();
        entries
            .iter()
            .filter_map(|(key, node)| {
                let location = Location::new(Arc::clone(&self.location.file), key.line);
                Some((key.text.clone(), node.plain_text()?, location))
            })
            .collect()
    }

    /// The path behind a key, relative to `base` unless it is absolute.
    pub fn path(&self, key: &str, base: &Path) -> Option<PathBuf> {
        self.text(key).map(|path| base.join(path))
    }

    /// The settings without lines, which makes them comparable.
    pub(crate) fn to_json(&self) -> Json {
        Json::Object(
            self.entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.node.to_json()))
                .collect(),
        )
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.key == key && !entry.node.is_null())
    }
}

impl Entry {
    fn new(key: String, key_line: usize, node: Node) -> Self {
        let text = node.plain_text();
        Self {
            key,
            key_line,
            node,
            text,
        }
    }
}

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries: Vec<_> = self
            .entries
            .iter()
            .map(|entry| (&entry.key, entry.key_line, entry.node.line, entry.node.to_json()))
            .collect();
        (&self.location, entries).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (location, entries) = <(Location, Vec<(String, usize, usize, Json)>)>::deserialize(deserializer)?;
        let entries = entries
            .into_iter()
            .map(|(key, key_line, line, json)| Entry::new(key, key_line, Node::from_json(&json, line)))
            .collect();
        Ok(Self { location, entries })
    }
}

//! `policy-test`: what somebody is expected to see of a table, written beside the policies and checked by `minerva policy test`.
//!
//! In: a list of expectations, in a manifest of its own, under `tests` of a policy, or as a document that has only `tests`. Out: the
//! expectations, with their lines. Deliberately absent: whether they hold, which is known to those who decide.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::{Field, Kind, Meta, optional, required, unknown_keys};
use crate::address::Address;
use crate::node::{Node, Value};
use crate::problem::{Location, Problem};
use crate::set::Builder;

/// What somebody is expected to see of a table.
#[derive(Debug, Clone)]
pub struct PolicyTest {
    /// Whose view it is.
    pub subject: TestSubject,
    /// Of which table.
    pub table: Address,
    /// Whether the table can be read at all; nothing is said if absent.
    pub access: Option<TestAccess>,
    /// Which rows are visible: `all`, `none`, or the filter as SQL.
    pub rows: Option<String>,
    /// How columns are shown: the column, what is expected, and the line.
    pub columns: Vec<(String, String, usize)>,
    /// Where it is written.
    pub location: Location,
}

/// Whether a table can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TestAccess {
    /// It can.
    Allowed,
    /// It does not exist for them.
    Denied,
    /// A policy cannot be applied, so that nothing of it is shown.
    Closed,
}

impl TestAccess {
    /// The words for it.
    pub const WORDS: [(&'static str, Self); 3] = [
        ("allowed", Self::Allowed),
        ("denied", Self::Denied),
        ("closed", Self::Closed),
    ];
}

/// Whose view is tested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestSubject {
    /// A declared user.
    User(String),
    /// Somebody who is made up for the test.
    Somebody {
        /// What to call them.
        id: String,
        /// Their tags.
        tags: Vec<String>,
        /// Their attributes.
        attributes: BTreeMap<String, String>,
    },
}

impl TestSubject {
    /// What to call them.
    pub fn id(&self) -> &str {
        match self {
            Self::User(id) | Self::Somebody { id, .. } => id,
        }
    }
}

#[derive(Debug)]
pub(crate) struct PolicyTestKind;

impl Kind for PolicyTestKind {
    fn name(&self) -> &'static str {
        "policy-test"
    }

    fn description(&self) -> &'static str {
        "A policy test says what somebody is expected to see of a table. `minerva policy test` decides as a coordinator would and says which \
         expectations do not hold, and why. The list may also stand under `tests` of a policy, or in a document that has only `tests`. \
         Tests change nothing for anybody."
    }

    fn example(&self) -> &'static str {
        "name: analysts-see-hashes
version: v1
type: policy-test
policy-test:
  tests:
    - as: jane
      table: dataos://crm:public/customer
      expect: {email: hash, name: visible, rows: \"region = 'EU'\"}
    - as: {tags: [roles:id:guest]}
      table: crm.public.customer
      expect: {access: denied}
---
name: jane
version: v1
type: user
user:
  tags: [roles:id:user, roles:id:analyst]
---
name: crm
version: v2alpha
type: depot
depot:
  type: SQLITE
  sqlite: {path: crm.db}
"
    }

    fn fields(&self) -> &'static [Field] {
        const FIELDS: &[Field] = &[
            required("tests", "list", "What is expected."),
            required(
                "tests[].as",
                "text or map",
                "Whose view it is: a declared user, or somebody made up, as `{tags: [..], attributes: {..}}`.",
            ),
            required(
                "tests[].table",
                "address",
                "Of which table: `dataos://crm:public/customer` or `crm.public.customer`.",
            ),
            required(
                "tests[].expect",
                "map",
                "What is seen. A column's name with `visible`, `masked`, `denied`, or the name of a mask such as `hash`; the keys `rows` \
                 and `access` are below, and a column of that name stands under `columns`.",
            ),
            optional(
                "tests[].expect.rows",
                "`all`, `none`, or SQL",
                "The rows that are visible: the condition with the user's own values in it, such as `region = 'EU'`.",
            ),
            optional(
                "tests[].expect.access",
                "`allowed`, `denied`, `closed`",
                "Whether the table can be read at all; `closed` when a policy cannot be applied to it.",
            ),
            optional("tests[].expect.columns", "map", "Columns, as in `expect` itself."),
        ];
        FIELDS
    }

    fn read(&self, meta: Meta, body: &Node, set: &mut Builder) -> Vec<Problem> {
        let mut problems = unknown_keys(body, &["tests"], &meta.location.file);
        match body.get("tests") {
            Some(tests) => problems.extend(read_tests(tests, &meta.location.file, set)),
            None => problems.push(Problem::new(meta.location.clone(), "the key `tests` is missing")),
        }
        problems
    }
}

/// Reads a list of expectations.
pub(crate) fn read_tests(node: &Node, file: &Arc<Path>, set: &mut Builder) -> Vec<Problem> {
    let at = |line: usize| Location::new(Arc::clone(file), line);
    let Some(nodes) = node.as_list().filter(|nodes| !nodes.is_empty()) else {
        return vec![Problem::new(
            at(node.line),
            "`tests` is not a list with something in it",
        )];
    };
    let mut problems = vec![];
    for node in nodes {
        let mut reading = Reading {
            file,
            problems: unknown_keys(node, &["as", "table", "expect"], file),
        };
        let test = reading.test(node);
        match test {
            Some(test) if reading.problems.is_empty() => set.add_policy_test(test),
            _ => {}
        }
        problems.extend(reading.problems);
    }
    problems
}

struct Reading<'a> {
    file: &'a Arc<Path>,
    problems: Vec<Problem>,
}

impl Reading<'_> {
    fn wrong(&mut self, line: usize, message: impl Into<String>) {
        let location = Location::new(Arc::clone(self.file), line);
        self.problems.push(Problem::new(location, message));
    }

    fn test(&mut self, node: &Node) -> Option<PolicyTest> {
        if node.as_map().is_none() {
            self.wrong(node.line, format!("a test is {}; expected a map", node.value.kind()));
            return None;
        }
        let subject = self.subject(node);
        let table = match node.get("table").map(|table| (table.line, table.as_text())) {
            Some((line, Some(text))) => {
                let table = table(text);
                if table.is_none() {
                    let message = format!(
                        "`table` is `{text}`; expected `dataos://depot:collection/dataset` or `depot.collection.dataset`"
                    );
                    self.wrong(line, message);
                }
                table
            }
            _ => {
                self.wrong(node.line, "a test has no `table`");
                None
            }
        };
        let mut test = PolicyTest {
            subject: subject?,
            table: table?,
            access: None,
            rows: None,
            columns: vec![],
            location: Location::new(Arc::clone(self.file), node.line),
        };
        let expect = node.get("expect");
        match expect.and_then(Node::as_map) {
            Some(entries) if !entries.is_empty() => {
                for (key, value) in entries {
                    self.expectation(&key.text, value, &mut test);
                }
            }
            _ => self.wrong(
                node.line,
                "a test expects nothing: `expect` is not a map with something in it",
            ),
        }
        Some(test)
    }

    fn subject(&mut self, node: &Node) -> Option<TestSubject> {
        let Some(subject) = node.get("as") else {
            self.wrong(node.line, "a test has no `as`: whose view it is");
            return None;
        };
        if let Some(id) = subject.plain_text() {
            return Some(TestSubject::User(id));
        }
        if subject.as_map().is_none() {
            self.wrong(subject.line, "`as` is neither a user nor a map with `tags`");
            return None;
        }
        self.problems
            .extend(unknown_keys(subject, &["id", "tags", "attributes"], self.file));
        let mut tags = vec![];
        if let Some(node) = subject.get("tags") {
            match node.as_list() {
                Some(nodes) => {
                    for node in nodes {
                        match node.as_text() {
                            Some(tag) => tags.push(tag.to_owned()),
                            None => self.wrong(node.line, "`as.tags` holds what is not text"),
                        }
                    }
                }
                None => self.wrong(node.line, "`as.tags` is not a list"),
            }
        }
        let mut attributes = BTreeMap::new();
        for (key, value) in subject.get("attributes").and_then(Node::as_map).unwrap_or_default() {
            match value.plain_text() {
                Some(value) => {
                    attributes.insert(key.text.clone(), value);
                }
                None => self.wrong(value.line, format!("the attribute `{}` is not a scalar", key.text)),
            }
        }
        let id = subject.get("id").and_then(Node::plain_text);
        Some(TestSubject::Somebody {
            id: id.unwrap_or_else(|| "somebody".to_owned()),
            tags,
            attributes,
        })
    }

    fn expectation(&mut self, key: &str, value: &Node, test: &mut PolicyTest) {
        if key == "columns"
            && let Value::Map(entries) = &value.value
        {
            for (name, value) in entries {
                self.column(&name.text, value, test);
            }
            return;
        }
        let Some(text) = value.plain_text() else {
            let message = format!("`expect.{key}` is {}; expected text", value.value.kind());
            self.wrong(value.line, message);
            return;
        };
        match key {
            "access" => match TestAccess::WORDS.iter().find(|(word, _)| *word == text) {
                Some((_, access)) => test.access = Some(*access),
                None => self.wrong(
                    value.line,
                    format!("`expect.access` is `{text}`; expected `allowed`, `denied` or `closed`"),
                ),
            },
            "rows" => test.rows = Some(text),
            column => self.column(column, value, test),
        }
    }

    fn column(&mut self, name: &str, value: &Node, test: &mut PolicyTest) {
        match value.plain_text() {
            Some(text) => test.columns.push((name.to_owned(), text, value.line)),
            None => self.wrong(value.line, format!("what is expected of column `{name}` is not text")),
        }
    }
}

/// A table by its address or by its name in SQL.
fn table(text: &str) -> Option<Address> {
    if text.starts_with("dataos://") {
        return text.parse().ok().filter(Address::is_dataset);
    }
    let parts: Vec<&str> = text.split('.').collect();
    match parts.as_slice() {
        [depot, collection, dataset] if !parts.contains(&"") => Some(Address::new(*depot, *collection, *dataset)),
        _ => None,
    }
}

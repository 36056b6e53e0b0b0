//! YAML text into nodes, within bounds: no text, however made, makes the reader run long, deep or large.
//!
//! Numbers and booleans are read as JSON writes them (and `True`, `TRUE`); everything else that is not in quotes is text, so `0123`,
//! `0x1F`, `yes` and `1_000` keep their spelling. Tags other than YAML's own, merge keys and keys that are not scalars are refused.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use super::{Key, Node, Value};
use crate::problem::{Location, Problem};

/// How deep values may lie in each other.
const DEEPEST: usize = 64;
/// How many values one file may hold.
const MOST_VALUES: usize = 1_000_000;
/// How many values, and how many bytes of text, anchors and aliases may copy in one file.
const MOST_COPIES: usize = 100_000;
const MOST_COPIED_BYTES: usize = 16 * 1024 * 1024;

/// The documents of a YAML text, those that hold nothing left out.
pub(crate) fn parse(text: &str, file: &Arc<Path>) -> Result<Vec<Node>, Vec<Problem>> {
    let mut composer = Composer::new(file);
    if let Some(before) = text.split('\0').next().filter(|before| before.len() < text.len()) {
        let line = before.split('\n').count();
        return Err(vec![
            composer
                .problem(line, "the file contains a NUL character")
                .help("is it a text file?"),
        ]);
    }
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let step = match event {
            Ok((Event::StreamEnd, _)) => break,
            Ok((event, span)) => composer.take(event, span.start.line().max(1)),
            Err(error) => Err(composer.problem(
                error.marker().line().max(1),
                format!("this is not YAML: {}", error.info()),
            )),
        };
        if let Err(problem) = step {
            composer.problems.push(problem);
            break;
        }
    }
    if composer.problems.is_empty() {
        Ok(composer.documents)
    } else {
        Err(composer.problems)
    }
}

/// A list or map that is still open.
struct Frame {
    line: usize,
    anchor: usize,
    parts: Parts,
}

enum Parts {
    List(Vec<Node>),
    Map {
        entries: Vec<(Key, Node)>,
        names: HashSet<String>,
        key: Option<Key>,
    },
}

/// What an anchor stands for, and how large it is.
struct Anchored {
    node: Node,
    size: Size,
}

#[derive(Clone, Copy, Default)]
struct Size {
    values: usize,
    bytes: usize,
    depth: usize,
}

struct Composer<'a> {
    file: &'a Arc<Path>,
    frames: Vec<Frame>,
    anchors: HashMap<usize, Anchored>,
    documents: Vec<Node>,
    problems: Vec<Problem>,
    values: usize,
    copies: usize,
    copied_bytes: usize,
}

impl<'a> Composer<'a> {
    fn new(file: &'a Arc<Path>) -> Self {
        Self {
            file,
            frames: Vec::new(),
            anchors: HashMap::new(),
            documents: Vec::new(),
            problems: Vec::new(),
            values: 0,
            copies: 0,
            copied_bytes: 0,
        }
    }

    fn problem(&self, line: usize, message: impl Into<String>) -> Problem {
        Problem::new(Location::new(Arc::clone(self.file), line), message)
    }

    /// Takes one event; an error ends the reading, while what can be passed over is only noted.
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), Problem> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let tagged = self.tag(tag.as_deref(), line)?;
                let value = scalar(&text, style, tagged.as_deref())
                    .map_err(|expected| self.problem(line, format!("this value is not {expected}, as its tag says")))?;
                self.add(Node { value, line }, anchor, Some(&text))
            }
            Event::SequenceStart(anchor, tag) => {
                self.tag(tag.as_deref(), line)?;
                self.open(line, anchor, Parts::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.tag(tag.as_deref(), line)?;
                self.open(
                    line,
                    anchor,
                    Parts::Map {
                        entries: Vec::new(),
                        names: HashSet::new(),
                        key: None,
                    },
                )
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => {
                let Some(Anchored { node, size }) = self.anchors.get(&anchor) else {
                    return Err(self.problem(
                        line,
                        "this alias names a value that is not complete or lies in another document",
                    ));
                };
                let (mut node, size) = (node.clone(), *size);
                node.line = line;
                self.copy(size, line)?;
                self.deep_enough(size.depth, line)?;
                let text = node.as_text().map(str::to_string);
                self.add(node, 0, text.as_deref())
            }
        }
    }

    /// The suffix of one of YAML's own tags; any other is refused.
    fn tag(&self, tag: Option<&Tag>, line: usize) -> Result<Option<String>, Problem> {
        match tag {
            None => Ok(None),
            Some(tag) if tag.is_yaml_core_schema() => Ok(Some(tag.suffix.clone())),
            Some(tag) if tag.handle == "!" && tag.suffix.is_empty() => Ok(Some("str".to_string())),
            Some(tag) => Err(self
                .problem(line, format!("the tag `{tag}` means nothing here"))
                .help("remove it")),
        }
    }

    fn open(&mut self, line: usize, anchor: usize, parts: Parts) -> Result<(), Problem> {
        if let Some(Frame {
            parts: Parts::Map { key: None, .. },
            ..
        }) = self.frames.last()
        {
            return Err(self.problem(line, "a key is a list or a map; expected text"));
        }
        self.count(line)?;
        self.deep_enough(1, line)?;
        self.frames.push(Frame { line, anchor, parts });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Problem> {
        let Some(Frame { line, anchor, parts }) = self.frames.pop() else {
            return Ok(());
        };
        let value = match parts {
            Parts::List(nodes) => Value::List(nodes),
            Parts::Map { entries, .. } => Value::Map(entries),
        };
        self.add(Node { value, line }, anchor, None)
    }

    /// Puts a complete value where it belongs; `text` is what it says if it is a scalar, in case it is a key.
    fn add(&mut self, node: Node, anchor: usize, text: Option<&str>) -> Result<(), Problem> {
        self.count(node.line)?;
        let line = node.line;
        if anchor > 0 {
            let size = size(&node);
            self.copy(size, line)?;
            self.anchors.insert(
                anchor,
                Anchored {
                    node: node.clone(),
                    size,
                },
            );
        }
        match self.frames.last_mut() {
            None if node.is_null() => {}
            None => self.documents.push(node),
            Some(Frame {
                parts: Parts::List(nodes),
                ..
            }) => nodes.push(node),
            Some(Frame {
                parts: Parts::Map { entries, names, key },
                ..
            }) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    let Some(text) = text else {
                        return Err(self.problem(line, "a key is a list or a map; expected text"));
                    };
                    *key = Some(Key {
                        text: text.to_string(),
                        line,
                    });
                    if !names.insert(text.to_string()) {
                        self.problems
                            .push(self.problem(line, format!("the key `{text}` occurs twice")));
                    } else if text == "<<" {
                        self.problems.push(
                            self.problem(line, "merge keys (`<<`) are not part of YAML 1.2 and not read")
                                .help("repeat the keys"),
                        );
                    }
                }
            },
        }
        Ok(())
    }

    fn count(&mut self, line: usize) -> Result<(), Problem> {
        self.values += 1;
        if self.values > MOST_VALUES {
            return Err(self
                .problem(line, format!("the file holds more than {MOST_VALUES} values"))
                .help("split it"));
        }
        Ok(())
    }

    fn copy(&mut self, size: Size, line: usize) -> Result<(), Problem> {
        self.copies += size.values;
        self.copied_bytes += size.bytes;
        if self.copies > MOST_COPIES || self.copied_bytes > MOST_COPIED_BYTES {
            let message =
                format!("anchors and aliases copy more than {MOST_COPIES} values or {MOST_COPIED_BYTES} bytes");
            return Err(self.problem(line, message).help("write the values out"));
        }
        Ok(())
    }

    fn deep_enough(&self, more: usize, line: usize) -> Result<(), Problem> {
        if self.frames.len() + more > DEEPEST {
            return Err(self.problem(
                line,
                format!("values lie more than {DEEPEST} levels deep in each other"),
            ));
        }
        Ok(())
    }
}

fn size(node: &Node) -> Size {
    let around = |inner: Size, more: Size| Size {
        values: inner.values + more.values,
        bytes: inner.bytes + more.bytes,
        depth: inner.depth.max(more.depth + 1),
    };
    match &node.value {
        Value::Text(text) => Size {
            values: 1,
            bytes: text.len(),
            depth: 0,
        },
        Value::List(nodes) => nodes.iter().fold(
            Size {
                values: 1,
                bytes: 0,
                depth: 1,
            },
            |total, inner| around(total, size(inner)),
        ),
        Value::Map(entries) => entries.iter().fold(
            Size {
                values: 1,
                bytes: 0,
                depth: 1,
            },
            |total, (key, inner)| {
                let mut total = around(total, size(inner));
                total.bytes += key.text.len();
                total
            },
        ),
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) => Size {
            values: 1,
            bytes: 0,
            depth: 0,
        },
    }
}

/// What a scalar means; the error names what its tag made one expect.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&str>) -> Result<Value, &'static str> {
    let plain = plain(text);
    match tag {
        None if style == ScalarStyle::Plain => Ok(plain),
        None | Some("str") => Ok(Value::Text(text.to_string())),
        Some("null") if plain == Value::Null => Ok(plain),
        Some("bool") if matches!(plain, Value::Bool(_)) => Ok(plain),
        Some("int") if matches!(plain, Value::Integer(_)) => Ok(plain),
        Some("float") if matches!(plain, Value::Integer(_) | Value::Float(_)) => Ok(plain),
        Some("null") => Err("null"),
        Some("bool") => Err("true or false"),
        Some("int" | "float") => Err("a number"),
        Some(_) => Err("of a kind that is known here"),
    }
}

fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    // JSON's numbers: every digit is kept or none is.
    let digits = text.strip_prefix('-').unwrap_or(text);
    let whole = digits.split(['.', 'e', 'E']).next().unwrap_or_default();
    let counts =
        !whole.is_empty() && whole.bytes().all(|b| b.is_ascii_digit()) && (whole == "0" || !whole.starts_with('0'));
    if !counts {
        return Value::Text(text.to_string());
    }
    if let Ok(number) = text.parse::<i64>()
        && text != "-0"
    {
        return Value::Integer(number);
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && whole.len() < digits.len() => Value::Float(number),
        _ => Value::Text(text.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Node>, String> {
        parse(text, &Arc::from(Path::new("f.yaml")))
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    fn one(text: &str) -> serde_json::Value {
        read(text).unwrap().first().unwrap().to_json()
    }

    #[test]
    fn scalars_keep_their_spelling_unless_json_would_read_them() {
        let json = one(
            "[1, -7, 0, 0123, 0x1F, 1.50, 1e3, 1e999, .5, 5., +1, .inf, true, yes, null, ~, '1', \"a\\tb\", -0, 99999999999999999999, !!str 3]",
        );
        let expected = serde_json::json!([
            1,
            -7,
            0,
            "0123",
            "0x1F",
            1.5,
            1000.0,
            "1e999",
            ".5",
            5.0,
            "+1",
            ".inf",
            true,
            "yes",
            null,
            null,
            "1",
            "a\tb",
            "-0",
            "99999999999999999999",
            "3"
        ]);
        assert_eq!(json, expected);
    }

    #[test]
    fn lines_are_known_and_empty_documents_are_left_out() {
        let documents = read("---\n# nothing\n---\na: 1\nb:\n  - c\n  - d: |\n      text\n---\n- x\n").unwrap();
        assert_eq!(documents.len(), 2);
        let first = documents.first().unwrap();
        assert_eq!(first.get("b").unwrap().as_list().unwrap()[1].line, 7);
        assert_eq!(first.as_map().unwrap()[1].0.line, 5);
    }

    #[test]
    fn aliases_are_followed_within_bounds() {
        assert_eq!(
            one("a: &x [1, 2]\nb: *x"),
            serde_json::json!({"a": [1, 2], "b": [1, 2]})
        );
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_string();
        for level in 1..12 {
            let previous = format!("*a{}", level - 1);
            laughs += &format!("a{level}: &a{level} [{}]\n", vec![previous; 10].join(", "));
        }
        assert!(
            read(&laughs)
                .unwrap_err()
                .contains("anchors and aliases copy more than")
        );
        assert!(read("a: &a [*a]").unwrap_err().contains("not complete"));
        assert!(read("a: &a 1\n---\nb: *a").unwrap_err().contains("f.yaml:3"));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_line() {
        let deep = "[".repeat(70) + &"]".repeat(70);
        let block: String = (0..70).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        for (text, expected) in [
            (deep.as_str(), "more than 64 levels deep"),
            (block.as_str(), "more than 64 levels deep"),
            ("a: 1\nb: 2\na: 3", "the key `a` occurs twice (f.yaml:3)"),
            ("a: b: c", "this is not YAML"),
            ("a: [1", "this is not YAML"),
            ("? [a]\n: b", "a key is a list or a map"),
            ("a: !secret b", "means nothing here"),
            ("a: !!int b", "is not a number"),
            ("<<: {a: 1}", "merge keys"),
            ("a: 1\nb: \0", "NUL character; is it a text file? (f.yaml:2)"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text:?} gave {error}");
        }
    }
}

//! A tree as YAML again, for people to read: blocks, in the order of the file, without its comments.

use std::fmt::Write;
use std::path::Path;

use super::{Node, Value, parse};

impl Node {
    /// The value as a YAML document, which reads as the same value.
    pub fn to_yaml(&self) -> String {
        let mut out = String::new();
        match &self.value {
            Value::Map(entries) if !entries.is_empty() => map(self, 0, &mut out),
            Value::List(nodes) if !nodes.is_empty() => list(self, 0, &mut out),
            _ => {
                let _ = writeln!(out, "{}", scalar(self));
            }
        }
        out
    }
}

/// What stands behind a key or a dash: on the same line, or as a block below it.
fn value(node: &Node, indent: usize, out: &mut String) {
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            out.push('\n');
            map(node, indent, out);
        }
        Value::List(nodes) if !nodes.is_empty() => {
            out.push('\n');
            list(node, indent, out);
        }
        _ => {
            let _ = writeln!(out, " {}", scalar(node));
        }
    }
}

fn map(node: &Node, indent: usize, out: &mut String) {
    for (key, inside) in node.as_map().unwrap_or_default() {
        let _ = write!(out, "{}{}:", " ".repeat(indent), text(&key.text));
        value(inside, indent + 2, out);
    }
}

fn list(node: &Node, indent: usize, out: &mut String) {
    for inside in node.as_list().unwrap_or_default() {
        let mut block = String::new();
        match &inside.value {
            Value::Map(entries) if !entries.is_empty() => map(inside, indent + 2, &mut block),
            Value::List(nodes) if !nodes.is_empty() => list(inside, indent + 2, &mut block),
            _ => {
                let _ = writeln!(block, "{}{}", " ".repeat(indent + 2), scalar(inside));
            }
        }
        // The dash takes the place of the first two blanks.
        let rest = block.get(indent + 2..).unwrap_or_default();
        let _ = write!(out, "{}- {rest}", " ".repeat(indent));
    }
}

fn scalar(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Text(written) => text(written),
        Value::List(_) => "[]".to_owned(),
        Value::Map(_) => "{}".to_owned(),
        Value::Bool(_) | Value::Integer(_) | Value::Float(_) => node.to_json().to_string(),
    }
}

/// A text plainly where that reads as the same text, else in quotes.
fn text(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./ ".contains(c))
        && !text.ends_with(' ')
        && parse(text, &Path::new("").into())
            .is_ok_and(|nodes| matches!(nodes.as_slice(), [node] if node.as_text() == Some(text)));
    match is_plain {
        true => text.to_owned(),
        // A JSON text is a YAML text.
        false => serde_json::Value::from(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::KINDS;

    #[test]
    fn what_is_written_reads_as_the_same() {
        let odd = "a: {b: [], c: {}, d: [[1, 2], [{e: ~}]], 'true': 'yes', f: '007', g: \"a\\nb: c\", h: '- x', i: -1.5, j: '', k: 'x #y', l: 'é\u{7f}', m: '2027-01-01'}";
        let examples = KINDS.iter().map(|kind| kind.example());
        for example in examples.chain([odd, "[]", "- a\n- [b, {c: d}]", "text"]) {
            for node in parse(example, &Path::new("a.yaml").into()).unwrap() {
                let written = node.to_yaml();
                let again =
                    parse(&written, &Path::new("b.yaml").into()).unwrap_or_else(|why| panic!("{why:?}\n{written}"));
                assert_eq!(again.len(), 1, "{written}");
                assert_eq!(again[0].to_json(), node.to_json(), "{written}");
            }
        }
    }

    #[test]
    fn it_reads_as_people_write() {
        let text = "name: jane\nuser: {tags: [roles:id:a, b], keys: [{name: x, days: 3}]}";
        let node = parse(text, &Path::new("a.yaml").into()).unwrap().remove(0);
        assert_eq!(
            node.to_yaml(),
            "name: jane\nuser:\n  tags:\n    - \"roles:id:a\"\n    - b\n  keys:\n    - name: x\n      days: 3\n"
        );
    }
}

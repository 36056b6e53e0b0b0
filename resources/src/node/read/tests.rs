//! What is read, and that everything that is wrong is said at once.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::node::{Node, parse};
use std::path::Path;
use std::sync::Arc;

#[derive(Debug, Deserialize, PartialEq)]
struct Host {
    name: String,
    port: u16,
    #[serde(default)]
    tags: Vec<String>,
    mode: Option<Mode>,
    ratio: Option<f64>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Fast,
    Slow { delay: u8 },
}

#[derive(Debug, Deserialize, PartialEq)]
struct All {
    hosts: Vec<Host>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

fn node(text: &str) -> Node {
    parse(text, &Arc::from(Path::new("f.yaml"))).unwrap().remove(0)
}

#[test]
fn a_type_is_read() {
    let text = "hosts: [{name: a, port: 1, mode: fast, ratio: 2}, {name: 7, port: '80', mode: {slow: {delay: 3}}, tags: [x]}]\nlabels: {n: 1}";
    let all: All = node(text).read(Path::new("f.yaml")).unwrap();
    let second = all.hosts.get(1).unwrap();
    assert_eq!(
        (second.name.as_str(), second.port, &second.mode),
        ("7", 80, &Some(Mode::Slow { delay: 3 }))
    );
    assert_eq!(all.labels.get("n").map(String::as_str), Some("1"));
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text = "\
hosts:
  - {nam: a, port: 80}
  - {name: b, port: 70000, prot: 1}
  - {name: true, port: x}
  - name: c
    port: 1
    mode: fats
  - name: d
    port: 1
    mode: {slow: {delay: 3, dely: 4}}
  - 5
labels: {a: [1], b: 1.5, c: ok}
lables: 1
";
    let problems = node(text).read::<All>(Path::new("f.yaml")).unwrap_err();
    let mut said: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.location.line, p)).collect();
    said.sort_by_key(|line| line.split(':').next().unwrap().parse::<usize>().unwrap());
    let expected = "\
2: unknown key `nam`; did you mean `name`? (f.yaml:2)
3: `port`: expected a whole number from 0 to 65535, found a number (f.yaml:3)
3: unknown key `prot`; did you mean `port`? (f.yaml:3)
4: `name`: expected text, found true or false; put it in quotes (f.yaml:4)
4: `port`: expected a whole number from 0 to 65535, found text (f.yaml:4)
7: `mode`: `fats` is not known here; did you mean `fast`? (f.yaml:7)
10: unknown key `dely`; did you mean `delay`? (f.yaml:10)
11: `hosts`: expected a map, found a number (f.yaml:11)
12: `a`: expected text, found a list (f.yaml:12)
12: `b`: expected text, found a number; put it in quotes (f.yaml:12)
13: unknown key `lables`; did you mean `labels`? (f.yaml:13)";
    assert_eq!(said.join("\n"), expected);
}

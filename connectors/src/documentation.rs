//! The pages under `docs/depots` have the settings and the example that the code has.
//!
//! Between the marks of a page stands what is generated here; `MINERVA_WRITE_DOCS=1` writes it. The words around it
//! are written by hand.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use minerva_resources::ParameterKind;

use crate::{CONNECTORS, Connector};

const BEGIN: &str = "<!-- generated from the code: begin -->\n";
const END: &str = "<!-- generated from the code: end -->\n";

#[test]
fn pages_agree_with_the_code() {
    for connector in CONNECTORS {
        let path = page(*connector);
        let name = connector.depot_type();
        let expected = generated(*connector);
        let text = fs::read_to_string(&path).unwrap_or_else(|_| format!("# Depots of type `{name}`\n\n{BEGIN}{END}"));
        let (before, rest) = text
            .split_once(BEGIN)
            .unwrap_or_else(|| panic!("{path:?} has no begin mark"));
        let (found, after) = rest
            .split_once(END)
            .unwrap_or_else(|| panic!("{path:?} has no end mark"));
        if found == expected && path.exists() {
            continue;
        }
        assert!(
            std::env::var_os("MINERVA_WRITE_DOCS").is_some(),
            "{path:?} does not say what the code says; set MINERVA_WRITE_DOCS=1 and run the test again"
        );
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
    }
}

#[test]
fn connectors_are_in_order_and_their_examples_load() {
    let names: Vec<&str> = CONNECTORS.iter().map(|connector| connector.depot_type()).collect();
    assert!(names.is_sorted_by(|left, right| left < right), "{names:?}");
    for connector in CONNECTORS {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("example.yaml");
        fs::write(&file, connector.example()).unwrap();
        let set = crate::testing::resources(&file).unwrap_or_else(|problems| panic!("{problems}"));
        let types: Vec<String> = set.depots().map(|depot| depot.depot_type.clone()).collect();
        assert_eq!(types, [connector.depot_type()]);
    }
}

fn page(connector: &dyn Connector) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    root.join("docs")
        .join("depots")
        .join(format!("{}.md", connector.depot_type()))
}

fn generated(connector: &dyn Connector) -> String {
    let mut text = format!("```yaml\n{}```\n\n", connector.example());
    if connector.parameters().is_empty() {
        text.push_str("It has no settings.\n");
        return text;
    }
    text.push_str("| setting | value | default | meaning |\n| --- | --- | --- | --- |\n");
    for parameter in connector.parameters() {
        let default = match parameter.default {
            Some(default) => format!("`{default}`"),
            None if parameter.required => "required".to_owned(),
            None => "none".to_owned(),
        };
        let place = if parameter.secret { " (in a secret)" } else { "" };
        let kind = kind(parameter.kind);
        writeln!(
            text,
            "| `{}`{place} | {kind} | {default} | {} |",
            parameter.name, parameter.description
        )
        .unwrap();
    }
    text
}

fn kind(kind: ParameterKind) -> String {
    match kind {
        ParameterKind::Text => "text".to_owned(),
        ParameterKind::Path => "path, relative to the manifest".to_owned(),
        ParameterKind::Integer => "whole number".to_owned(),
        ParameterKind::Number => "number".to_owned(),
        ParameterKind::Flag => "`true` or `false`".to_owned(),
        ParameterKind::List => "list of texts".to_owned(),
        ParameterKind::Map(_) => "map of texts".to_owned(),
        ParameterKind::Choice(words) => format!("`{}`", words.join("`, `")),
    }
}

//! The house rules that a compiler does not check: who may depend on whom, how long a file may be, where side doors may be opened.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in [
        "cli",
        "cluster",
        "connectors",
        "coordinator",
        "policy",
        "resources",
        "worker",
        "tests",
        "benches",
    ] {
        sources(&root().join(folder), &mut found);
    }
    found
}

#[test]
fn crates_depend_downward_only() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("resources", &[][..]),
        ("connectors", &["resources"][..]),
        ("policy", &["resources"][..]),
        ("cluster", &["connectors", "policy", "resources"][..]),
        ("worker", &["cluster", "connectors", "policy", "resources"][..]),
        ("coordinator", &["cluster", "connectors", "policy", "resources"][..]),
    ]);
    for (name, may) in allowed {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        let (normal, _dev) = manifest.split_once("[dev-dependencies]").unwrap();
        for line in normal.lines().filter_map(|line| line.strip_prefix("minerva-")) {
            let dependency = line.split(['.', ' ']).next().unwrap();
            assert!(may.contains(&dependency), "`{name}` must not depend on `{dependency}`");
        }
    }
}

#[test]
fn resources_know_no_datafusion() {
    let manifest = fs::read_to_string(root().join("resources/Cargo.toml")).unwrap();
    assert!(
        !manifest.contains("datafusion") && !manifest.contains("arrow"),
        "resources must build in seconds"
    );
}

#[test]
fn every_file_says_what_it_is_for_and_is_not_long() {
    for path in all_sources() {
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("//!"),
            "{} does not open with what it is for",
            path.display()
        );
        // Tests below the code do not count: they are read one at a time.
        let only_tests = path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests");
        let code = if only_tests {
            0
        } else {
            text.split("#[cfg(test)]").next().unwrap().lines().count()
        };
        assert!(
            code <= 620,
            "{} has {code} lines of code; give a part of it a file of its own",
            path.display()
        );
    }
}

#[test]
fn a_name_becomes_a_table_in_one_file_only() {
    for path in all_sources() {
        let relative = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        if !relative.starts_with("coordinator/src") || relative.starts_with("coordinator/src/catalog") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for door in ["depots.open(", ".dataset(&address", "protect(&"] {
            assert!(
                !text.contains(door),
                "{relative} opens a depot's table with `{door}`; that is for catalog.rs"
            );
        }
    }
}

#[test]
fn protocols_stay_in_their_folders() {
    for path in all_sources() {
        let relative = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        if relative.starts_with("coordinator/src") && !relative.starts_with("coordinator/src/gateway") {
            assert!(
                !code.contains("arrow_flight::"),
                "{relative} knows Flight, which is the gateway's"
            );
            assert!(
                !code.contains("axum::") && !code.contains("hyper::"),
                "{relative} knows HTTP, which is the gateway's"
            );
        }
        if relative.starts_with("policy/src") || relative.starts_with("connectors/src") {
            assert!(
                !code.contains("tonic::") && !code.contains("arrow_flight::"),
                "{relative} knows a wire"
            );
        }
    }
}

#[test]
fn no_file_holds_a_path_of_a_machine_or_a_registry() {
    let mut files = all_sources();
    files.extend(
        [
            "README.md",
            "ARCHITECTURE.md",
            "CONTRIBUTING.md",
            "Cargo.toml",
            "Makefile",
        ]
        .map(|name| root().join(name)),
    );
    for path in files.iter().filter(|path| !path.ends_with("tests/it/tidy.rs")) {
        let text = fs::read_to_string(path).unwrap();
        for word in ["/work/", "/root/", ".cargo/registry"] {
            assert!(!text.contains(word), "{} names `{word}`", path.display());
        }
    }
}

/// `docs/ways-round.md` names what holds against each known way round a policy, and the tests that show it, which must exist.
#[test]
fn every_way_round_has_its_test() {
    let text = fs::read_to_string(root().join("docs/ways-round.md")).unwrap();
    let mut tests = String::new();
    for path in all_sources() {
        tests += &fs::read_to_string(path).unwrap();
    }
    for entry in fs::read_dir(root().join("tests/python")).unwrap() {
        tests += &fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
    }
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells.get(1).is_some_and(|number| number.parse::<u32>().is_ok()))
        .collect();
    let numbers: Vec<u32> = rows.iter().map(|cells| cells[1].parse().unwrap()).collect();
    assert_eq!(numbers, (1..=39).collect::<Vec<_>>());
    for cells in rows {
        let named: Vec<&str> = cells[4].split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "row {} names no test", cells[1]);
        for test in named {
            let defined = [format!("fn {test}("), format!("def {test}(")];
            assert!(
                defined.iter().any(|text| tests.contains(text)),
                "row {}: there is no test `{test}`",
                cells[1]
            );
        }
    }
}

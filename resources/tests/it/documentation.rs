//! What the kinds say of themselves is true, and the documentation says the same.

use std::fs;

use minerva_resources::{KINDS, reference};

use crate::{load_text, project};

#[test]
fn kinds_are_in_order_and_their_examples_load() {
    assert!(KINDS.windows(2).all(|two| two[0].name() < two[1].name()));
    for kind in KINDS {
        let set = load_text(kind.example()).unwrap_or_else(|problems| panic!("{}: {problems}", kind.name()));
        assert!(!set.fingerprint().is_empty());
    }
}

/// The keys that a kind documents directly in its block are exactly those that it takes.
#[test]
fn an_unknown_key_is_refused_and_the_known_ones_are_those_of_the_reference() {
    for kind in KINDS {
        let name = kind.name();
        let example = kind.example();
        let (before, block) = example
            .split_once(&format!("\n{name}:\n"))
            .or_else(|| example.split_once("\ninstance-secret:\n"))
            .unwrap();
        let block_name = if example.contains(&format!("\n{name}:\n")) {
            name
        } else {
            "instance-secret"
        };
        let wrong = format!("{before}\n{block_name}:\n  zzzzzzzzzzzzzzzzzzzz: 1\n{block}");
        let error = load_text(&wrong).unwrap_err();
        let said = error
            .lines()
            .find(|line| line.contains("unknown key `zzzzzzzzzzzzzzzzzzzz`"))
            .unwrap();
        for field in kind
            .fields()
            .iter()
            .filter(|field| !field.path.contains(['.', '[', '<']))
        {
            let other_form = name == "depot" && ["spec", "connectionSecret"].contains(&field.path);
            assert!(
                other_form || said.contains(&format!("`{}`", field.path)),
                "{name} does not take `{}`: {said}",
                field.path
            );
        }
        // A kind with a single key says so without "one of".
        let listed = said.split_once("; expected ").unwrap().1;
        for known in listed.split('`').skip(1).step_by(2) {
            let page = reference(*kind);
            assert!(
                page.contains(&format!("`{known}`")),
                "the page about {name} says nothing of `{known}`"
            );
        }
        let misspelt = format!("{before}\n{block_name}s:\n{block}");
        let error = load_text(&misspelt).unwrap_err();
        assert!(
            error.contains(&format!("did you mean `{block_name}`?")),
            "{name}: {error}"
        );
    }
}

/// Each kind that speaks of something refuses what does not exist. (Secrets and users speak of nothing.)
#[test]
fn a_missing_reference_is_refused() {
    for (kind, missing) in [
        ("cluster", "depot `crm`"),
        ("dataset", "depot `crm`"),
        ("policy", "depot `crm`"),
    ] {
        let kind = KINDS.iter().find(|known| known.name() == kind).unwrap();
        let example = kind.example();
        let without: Vec<&str> = example
            .split("---\n")
            .filter(|document| !document.contains("type: depot\n"))
            .collect();
        let error = load_text(&without.join("---\n")).unwrap_err();
        assert!(
            error.contains(&format!("there is no {missing}")),
            "{}: {error}",
            kind.name()
        );
    }
    let depot = "name: d\nversion: v2alpha\ntype: depot\ndepot: {type: memory, secrets: [{name: gone}]}";
    assert!(
        load_text(depot)
            .unwrap_err()
            .contains("depot `d`: there is no secret `gone`")
    );
}

/// MINERVA_WRITE_DOCS=1 writes the pages anew.
#[test]
fn the_pages_of_the_documentation_are_up_to_date() {
    let folder = project("docs/resources");
    for kind in KINDS {
        let path = folder.join(format!("{}.md", kind.name()));
        let page = reference(*kind);
        if std::env::var_os("MINERVA_WRITE_DOCS").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &page).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == page,
            "{} is out of date; MINERVA_WRITE_DOCS=1 writes it",
            path.display()
        );
    }
    let pages = fs::read_dir(&folder)
        .unwrap()
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name() != "README.md"));
    assert_eq!(pages.count(), KINDS.len(), "a page is about no kind");
}

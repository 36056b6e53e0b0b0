//! Whatever a file holds, the loader answers: it neither panics nor runs away.

use std::path::Path;

use minerva_resources::{KINDS, load_bytes};
use proptest::prelude::*;

use crate::load_text;

fn examples() -> Vec<&'static str> {
    KINDS.iter().map(|kind| kind.example()).collect()
}

/// Pieces of YAML and of manifests, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let words = [
        "name: a",
        "version: v1",
        "type: ",
        "user",
        "depot",
        "policy",
        "{",
        "}",
        "[",
        "]",
        ": ",
        "- ",
        "\n",
        "  ",
        "    ",
        "\t",
        "&a ",
        "*a",
        "!!str ",
        "!x ",
        "? ",
        "| \n",
        ">-\n",
        "'",
        "\"",
        "#",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "<<: ",
        "${A",
        "${user.id}",
        "$$",
        "\\x41",
        "ü",
        "\u{feff}",
        "\u{85}",
        "\u{2028}",
        "tags",
        "spec",
        ",",
        "~",
        "0x",
        "1e9",
        "\r",
        "\r\n",
        "@",
        "`",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = load_bytes(Path::new("f.yaml"), bytes, &[]);
    }

    #[test]
    fn any_text_is_answered(text in "\\PC{0,200}", pieces in pieces()) {
        let _ = load_text(&text);
        let _ = load_text(&pieces);
    }

    #[test]
    fn a_damaged_manifest_is_answered(
        which in any::<prop::sample::Index>(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..30, pieces()), 1..4),
    ) {
        let mut text: Vec<char> = which.get(&examples()).chars().collect();
        for (place, length, piece) in damages {
            let start = place.index(text.len().max(1)).min(text.len());
            let end = (start + length).min(text.len());
            text.splice(start..end, piece.chars());
        }
        let _ = load_text(&text.into_iter().collect::<String>());
    }
}

#[test]
fn sizes_are_bounded() {
    let large = format!("# {}\n", "x".repeat(17 * 1024 * 1024));
    assert!(load_text(&large).unwrap_err().contains("larger than 16 MiB"));
    let many = "- a\n".repeat(1_100_000);
    assert!(load_text(&many).unwrap_err().contains("more than 1000000 values"));
    let nested = "&a [".repeat(60) + &"x, ".repeat(20_000) + &"]".repeat(60);
    assert!(
        load_text(&nested)
            .unwrap_err()
            .contains("anchors and aliases copy more than")
    );
}

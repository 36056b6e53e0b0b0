//! `minerva demo`: the main job in one command, offline.

use crate::minerva::program;

#[test]
fn two_users_get_two_answers_from_one_statement() {
    let folder = tempfile::tempdir().unwrap();
    let output = program()
        .args([
            "demo",
            "--once",
            "--http-port",
            "0",
            "--flight-port",
            "0",
            "--cluster-port",
            "0",
            "--data",
        ])
        .arg(folder.path().join("data"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("\nready\n"), "{text}");

    let rows: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_once("  |  "))
        .collect();
    assert!(
        rows.iter()
            .any(|(left, right)| left.starts_with("analyst:") && right.starts_with("steward:")),
        "{text}"
    );
    // Airline, plane, model, origin, flights, delay: the eight rows below the two lines of the header.
    let data: Vec<_> = rows
        .iter()
        .skip(4)
        .filter(|(left, _)| !left.trim().is_empty())
        .collect();
    assert_eq!(data.len(), 8, "{text}");
    for (analyst, steward) in data {
        assert!(
            analyst.contains(" JFK "),
            "the analyst sees flights from JFK only: {analyst}"
        );
        assert!(analyst.contains('…'), "a hash is long: {analyst}");
        assert!(
            !analyst.split_whitespace().any(is_tail_number),
            "a tail number is not hashed: {analyst}"
        );
        assert!(
            steward.split_whitespace().any(is_tail_number),
            "the steward sees tail numbers: {steward}"
        );
        let delay: i64 = analyst.split_whitespace().next_back().unwrap().parse().unwrap();
        assert!(
            [-120, 0, 15, 30, 60, 120, 240, 480].contains(&delay),
            "a delay is no bucket's edge: {analyst}"
        );
    }
    assert!(text.contains("Stage 1"), "the plan runs on workers: {text}");
    assert!(text.contains("GovernedScan: dataos://air:nyc/flights"), "{text}");
    assert!(
        !text.contains("origin@") || !text.contains("= JFK"),
        "the plan shows the filter: {text}"
    );
    assert!(
        text.contains("minerva sql --server") && text.contains("adbc_driver_flightsql"),
        "{text}"
    );
}

/// `N` and a digit, as American registrations begin.
fn is_tail_number(word: &str) -> bool {
    let mut letters = word.chars();
    letters.next() == Some('N') && letters.next().is_some_and(|letter| letter.is_ascii_digit())
}

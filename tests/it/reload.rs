//! Manifests are watched: a good change is in force for the next query within two seconds, a bad one changes nothing.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::minerva::Minerva;

const TPCH: &str = "name: small\nversion: v2alpha\ntype: depot\ndepot:\n  type: TPCH\n  tpch: {scale: 0.01}\n";
const FILTER: &str = "\
name: visible-regions
version: v1
type: policy
policy:
  data:
    type: filter
    priority: 10
    dataset_id: small.tpch.region
    selector: {user: {match: any, tags: ['users:**']}}
    filters: [{column: r_regionkey, operator: less_than, value: 2}]
";

fn wait_for(minerva: &Minerva, sql: &str, expected: &str) -> Duration {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(20) {
        if minerva.rows(None, sql) == [expected] {
            return begin.elapsed();
        }
    }
    panic!("`{sql}` did not become `{expected}`: {:?}", minerva.rows(None, sql));
}

#[test]
fn a_good_change_is_in_force_and_a_bad_one_changes_nothing() {
    let minerva = Minerva::start(&[("depots.yaml", TPCH)], 1);
    let count = "SELECT count(*) FROM small.tpch.region";
    assert_eq!(minerva.rows(None, count), ["5"]);

    fs::write(minerva.resources().join("filter.yaml"), FILTER).unwrap();
    let taken = wait_for(&minerva, count, "2");
    assert!(
        taken < Duration::from_secs(10),
        "a busy machine may be slow, but not this slow: {taken:?}"
    );

    // Bad: an operator that nobody knows. The old rules stay, and the reason is told.
    fs::write(
        minerva.resources().join("filter.yaml"),
        FILTER.replace("less_than", "less_then"),
    )
    .unwrap();
    fs::write(minerva.resources().join("more.yaml"), TPCH.replace("small", "other")).unwrap();
    let before = Instant::now();
    while before.elapsed() < Duration::from_secs(2) {
        assert_eq!(minerva.rows(None, count), ["2"]);
    }
    assert!(
        minerva
            .error(None, "SELECT * FROM other.tpch.region")
            .contains("CATALOG_NOT_FOUND")
    );

    // Mended: both changes come in.
    fs::write(
        minerva.resources().join("filter.yaml"),
        FILTER.replace("value: 2", "value: 1"),
    )
    .unwrap();
    wait_for(&minerva, count, "1");
    assert_eq!(minerva.rows(None, "SELECT count(*) FROM other.tpch.region"), ["5"]);
    let (orderly, log) = minerva.server.leave();
    assert!(orderly);
    assert!(log.contains("did you mean `less_than`"), "{log}");
}

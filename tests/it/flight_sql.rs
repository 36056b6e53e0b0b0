//! The Flight SQL door with the drivers that people use, and what a session can do behind it.

use crate::{
    governed_data::{run, script},
    minerva::{Minerva, python},
};

const DEPOTS: &str = "\
name: small
version: v2alpha
type: depot
depot: {type: TPCH, tpch: {scale: 0.01}}
---
name: scratch
version: v2alpha
type: depot
depot: {type: MEMORY, memory: {}}
";

const LIMITS: &str = "\
name: minerva
version: v1
type: cluster
cluster:
  compute: query-default
  type: minerva
  minerva:
    replicas: 1
    limits: {query.max-run-time: 1s, query.max-rows: 1000}
";

#[test]
fn adbc_and_pyarrow_flight_work() {
    let minerva = Minerva::start(&[("depots.yaml", DEPOTS)], 1);
    let key = std::fs::read_to_string(minerva.data().join("admin-key")).unwrap();
    let (host, port) = minerva.flight().rsplit_once(':').unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/flight_sql.py");
    let output = python()
        .args([script, host, port, "admin", key.trim()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        said.lines().filter(|line| line.starts_with("ok ")).count() >= 30,
        "{said}"
    );
}

const BIG: &str = "\
name: big
version: v2alpha
type: depot
depot: {type: TPCH, tpch: {scale: 1}}
";

/// Runs the script of large results against a server with these workers inside and beside it.
fn large_results(workers: usize, processes: usize) {
    let mut minerva = Minerva::start(&[("depots.yaml", BIG)], workers);
    for _ in 0..processes {
        minerva.add_worker();
    }
    let key = std::fs::read_to_string(minerva.data().join("admin-key")).unwrap();
    let (host, port) = minerva.flight().rsplit_once(':').unwrap();
    let pid = minerva.server.pid().to_string();
    run(script("large_results.py").args([host, port, "admin", key.trim(), &pid]));
}

#[test]
fn large_results_and_cells_reach_ordinary_clients() {
    large_results(1, 0);
}

#[test]
fn large_results_and_cells_come_from_worker_processes() {
    large_results(0, 2);
}

#[test]
fn a_memory_depot_keeps_what_is_written() {
    let minerva = Minerva::start(&[("depots.yaml", DEPOTS)], 2);
    minerva.rows(None, "CREATE TABLE scratch.public.n AS SELECT n_nationkey AS id, n_name AS name FROM small.tpch.nation WHERE n_regionkey = 3");
    assert_eq!(
        minerva.rows(None, "SELECT count(*), min(name) FROM scratch.public.n"),
        ["5,FRANCE"]
    );
    minerva.rows(None, "INSERT INTO scratch.public.n (name, id) VALUES ('ATLANTIS', 99)");
    assert_eq!(
        minerva.rows(None, "SELECT id FROM scratch.public.n WHERE name = 'ATLANTIS'"),
        ["99"]
    );
    assert!(
        minerva
            .error(None, "CREATE TABLE scratch.public.n AS SELECT 1 AS x")
            .contains("TABLE_ALREADY_EXISTS")
    );
    // Joined with a table that workers read.
    assert_eq!(
        minerva.rows(
            None,
            "SELECT count(*) FROM scratch.public.n s JOIN small.tpch.nation n ON n.n_nationkey = s.id"
        ),
        ["5"]
    );
    minerva.rows(None, "DROP TABLE scratch.public.n");
    assert!(
        minerva
            .error(None, "SELECT * FROM scratch.public.n")
            .contains("TABLE_NOT_FOUND")
    );
    assert!(
        minerva
            .error(None, "INSERT INTO small.tpch.nation VALUES (1)")
            .contains("NOT_SUPPORTED")
    );
}

#[test]
fn a_session_has_a_current_schema_and_views() {
    let minerva = Minerva::start(&[("depots.yaml", DEPOTS)], 1);
    let text = "USE small.tpch; CREATE VIEW europe AS SELECT * FROM nation WHERE n_regionkey = 3; \
                CREATE VIEW names (name) AS SELECT n_name FROM europe; SELECT min(name) FROM names";
    let output = minerva.run(None, text, "CSV");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("FRANCE"));
    // Another session knows nothing of them.
    assert!(
        minerva
            .error(None, "SELECT * FROM europe")
            .contains("MISSING_CATALOG_NAME")
    );
    assert!(
        minerva
            .error(None, "CREATE VIEW v AS SELECT 1 AS a; CREATE VIEW v AS SELECT 2 AS a")
            .contains("TABLE_ALREADY_EXISTS")
    );
    assert!(
        minerva
            .error(
                None,
                "CREATE VIEW a AS SELECT 1 AS x; CREATE OR REPLACE VIEW a AS SELECT * FROM a; SELECT * FROM a"
            )
            .contains("built on")
    );
}

#[test]
fn now_is_the_moment_of_the_statement() {
    let minerva = Minerva::start(&[], 1);
    let first = minerva.rows(None, "SELECT now() AS moment, current_date AS today");
    let second = minerva.rows(None, "SELECT now() AS moment, current_date AS today");
    assert_ne!(first, second);
}

#[test]
fn limits_of_the_cluster_hold() {
    let minerva = Minerva::start(&[("depots.yaml", DEPOTS), ("cluster.yaml", LIMITS)], 1);
    let slow = "SELECT count(*) FROM small.tpch.lineitem a JOIN small.tpch.lineitem b ON a.l_partkey + b.l_partkey = a.l_suppkey * b.l_suppkey + 1";
    let error = minerva.error(None, slow);
    assert!(
        error.contains("EXCEEDED_TIME_LIMIT") && error.contains("query.max-run-time"),
        "{error}"
    );
    // Statements that do all their work before their first row are no exception.
    for slow in [
        format!("EXPLAIN ANALYZE {slow}"),
        format!("CREATE TABLE scratch.public.t AS {slow}"),
    ] {
        assert!(minerva.error(None, &slow).contains("EXCEEDED_TIME_LIMIT"), "{slow}");
    }
    assert!(
        minerva
            .error(None, "SELECT * FROM scratch.public.t")
            .contains("TABLE_NOT_FOUND")
    );
    let error = minerva.error(None, "SELECT l_orderkey FROM small.tpch.lineitem");
    assert!(error.contains("EXCEEDED_ROW_LIMIT"), "{error}");
    let failed = minerva.rows(
        None,
        "SELECT error_code, count(*) FROM system.runtime.queries WHERE error_code LIKE 'EXCEEDED%' GROUP BY 1 ORDER BY 1",
    );
    assert_eq!(failed, ["EXCEEDED_ROW_LIMIT,1", "EXCEEDED_TIME_LIMIT,3"]);
}

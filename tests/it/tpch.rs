//! TPC-H: the 22 queries give the same answers wherever they run and wherever the tables lie.
//!
//! In: data at a scale from `MINERVA_TEST_TPCH_SCALE` (0.05 by default), written as Parquet and partly into SQLite. The oracle is DuckDB on the same
//! Parquet files; every configuration is compared with it, value by value.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    minerva::{Minerva, python},
    tpch_data,
};

/// The tables that go into the database in the mixed set-up.
const SMALL: [&str; 4] = ["nation", "region", "supplier", "customer"];
/// What stands between the answers of two queries.
const MARK: &str = "==== query";

fn scale() -> f64 {
    std::env::var("MINERVA_TEST_TPCH_SCALE")
        .map_or(0.05, |text| text.parse().expect("MINERVA_TEST_TPCH_SCALE is a number"))
}

fn query(number: usize) -> String {
    let path = format!("{}/tests/tpch/q{number}.sql", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(path).unwrap()
}

/// Where each table is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Parquet,
    Generated,
    Mixed,
}

impl Place {
    fn table(self, table: &str) -> String {
        match self {
            Place::Parquet => format!("lake.tpch.{table}"),
            Place::Generated => format!("gen.tpch.{table}"),
            Place::Mixed if SMALL.contains(&table) => format!("small.main.{table}"),
            Place::Mixed => format!("lake.tpch.{table}"),
        }
    }

    fn answers(self, minerva: &Minerva) -> Vec<Vec<Vec<String>>> {
        answers(minerva, &format!("{self:?}"), &|table| self.table(table))
    }
}

/// All 22 queries in one session, with the bare names bound by views.
fn script(place: &dyn Fn(&str) -> String) -> String {
    let views: String = tpch_data::TABLES
        .iter()
        .map(|table| format!("CREATE VIEW {table} AS SELECT * FROM {};\n", place(table)))
        .collect();
    let queries: String = (1..=22)
        .map(|number| {
            format!(
                "SELECT '{MARK}' AS mark;\n{};\n",
                query(number).trim().trim_end_matches(';')
            )
        })
        .collect();
    views + &queries
}

fn manifests(folder: &Path) -> String {
    format!(
        "name: lake\nversion: v2alpha\ntype: depot\ndepot: {{type: FILE, file: {{path: {0}/lake, format: PARQUET}}}}\n---\n\
         name: gen\nversion: v2alpha\ntype: depot\ndepot: {{type: TPCH, tpch: {{scale: {1}}}}}\n---\n\
         name: small\nversion: v2alpha\ntype: depot\ndepot: {{type: SQLITE, sqlite: {{path: {0}/small.db}}}}\n",
        folder.display(),
        scale()
    )
}

/// The answers as sorted rows of fields, with each table read from its place.
pub(crate) fn answers(minerva: &Minerva, name: &str, place: &dyn Fn(&str) -> String) -> Vec<Vec<Vec<String>>> {
    let file = minerva.folder.path().join(format!("{name}.sql"));
    fs::write(&file, script(place)).unwrap();
    let output = minerva
        .client(&["sql", "--output-format", "CSV"])
        .arg("-f")
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    split(&String::from_utf8(output.stdout).unwrap())
}

/// Cuts the output at the marks and leaves the headers out.
fn split(text: &str) -> Vec<Vec<Vec<String>>> {
    text.split(&format!("mark\n{MARK}\n"))
        .skip(1)
        .map(|answer| rows(answer.lines().filter(|line| !line.is_empty()).skip(1)))
        .collect()
}

fn rows<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = lines.map(fields).collect();
    rows.sort();
    rows
}

fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    for letter in line.chars() {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => fields.last_mut().unwrap().push(other),
        }
    }
    fields
}

fn same(left: &str, right: &str) -> bool {
    left == right
        || match (left.parse::<f64>(), right.parse::<f64>()) {
            // Decimals are exact; averages may differ in how many digits are kept.
            (Ok(left), Ok(right)) => (left - right).abs() <= 1e-6 * left.abs().max(right.abs()).max(1.0),
            _ => false,
        }
}

pub(crate) fn compare(what: &str, found: &[Vec<Vec<String>>], expected: &[Vec<Vec<String>>]) {
    assert_eq!(found.len(), 22, "{what}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let number = index + 1;
        assert_eq!(found.len(), expected.len(), "{what}, query {number}: number of rows");
        for (left, right) in found.iter().zip(expected) {
            let equal = left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right));
            assert!(equal, "{what}, query {number}:\n{left:?}\n{right:?}");
        }
    }
}

/// A name, and where each table is.
pub(crate) type Named<'a> = (&'a str, &'a dyn Fn(&str) -> String);

/// Compares the answers of one process and of two worker processes, with the tables in each of these places. Returns the second, which still runs.
pub(crate) fn agree(manifests: &[(&str, &str)], places: &[Named<'_>], expected: &[Vec<Vec<String>>]) -> Minerva {
    let mut apart = Minerva::start(manifests, 0);
    apart.add_worker();
    apart.add_worker();
    for (set_up, minerva) in [
        ("one process", &Minerva::start(manifests, 1)),
        ("two worker processes", &apart),
    ] {
        for (name, place) in places {
            compare(&format!("{set_up}, {name}"), &answers(minerva, name, place), expected);
        }
    }
    apart
}

pub(crate) fn oracle(lake: &Path) -> Vec<Vec<Vec<String>>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/tpch_duckdb.py");
    let queries = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tpch");
    let output = python().arg(script).arg(lake).arg(queries).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    split(&String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n"))
}

#[test]
fn the_22_queries_agree_with_duckdb_from_every_place_in_every_set_up() {
    let folder = tempfile::tempdir().unwrap();
    let lake: PathBuf = folder.path().join("lake/tpch");
    tpch_data::write_parquet(&lake, scale());
    tpch_data::write_sqlite(&folder.path().join("small.db"), scale(), &SMALL);
    let expected = oracle(&lake);
    let text = manifests(folder.path());

    let one = Minerva::start(&[("depots.yaml", &text)], 1);
    for place in [Place::Parquet, Place::Generated, Place::Mixed] {
        compare(&format!("one process, {place:?}"), &place.answers(&one), &expected);
    }
    drop(one);
    let two = Minerva::start(&[("depots.yaml", &text)], 2);
    for place in [Place::Parquet, Place::Generated, Place::Mixed] {
        compare(
            &format!("two workers of one process, {place:?}"),
            &place.answers(&two),
            &expected,
        );
    }
    drop(two);
    let mut apart = Minerva::start(&[("depots.yaml", &text)], 0);
    apart.add_worker();
    apart.add_worker();
    let nodes = apart.rows(
        None,
        "SELECT count(*) FROM system.runtime.nodes WHERE NOT coordinator AND state = 'active'",
    );
    assert_eq!(nodes, ["2"]);
    for place in [Place::Parquet, Place::Generated, Place::Mixed] {
        compare(
            &format!("two worker processes, {place:?}"),
            &place.answers(&apart),
            &expected,
        );
    }
    let past = apart.rows(
        None,
        "SELECT count(*) FROM system.runtime.queries WHERE state = 'FINISHED' AND query LIKE '%lineitem%'",
    );
    assert!(past.concat().parse::<u64>().unwrap() >= 40, "{past:?}");
}

#[test]
fn explain_shows_stages_and_what_the_workers_did() {
    let text = "name: gen\nversion: v2alpha\ntype: depot\ndepot: {type: TPCH, tpch: {scale: 0.1}}\n";
    let mut minerva = Minerva::start(&[("depots.yaml", text)], 0);
    minerva.add_worker();
    minerva.add_worker();
    let sql = "SELECT l_returnflag, count(*) FROM gen.tpch.lineitem GROUP BY 1";
    let plan = minerva.rows(None, &format!("EXPLAIN {sql}")).join("\n");
    assert!(
        plan.contains("Stage 2") && plan.contains("Stage 1") && plan.contains("tasks=2"),
        "{plan}"
    );
    let analysed = minerva.rows(None, &format!("EXPLAIN ANALYZE {sql}")).join("\n");
    assert!(
        analysed.contains("output_rows=600.6 K") || analysed.contains("output_rows=600572"),
        "{analysed}"
    );
}

/// What keeps readers of SQLite at one moment is known to one process only.
#[test]
fn a_large_table_of_sqlite_is_read_on_workers_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.db");
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch(
            "CREATE TABLE facts (id INTEGER PRIMARY KEY, kind INTEGER NOT NULL); \
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 250000) INSERT INTO facts SELECT i, i % 7 FROM n",
        )
        .unwrap();
    let text = format!(
        "name: gen\nversion: v2alpha\ntype: depot\ndepot: {{type: TPCH, tpch: {{scale: 0.1}}}}\n---\n\
         name: lite\nversion: v2alpha\ntype: depot\ndepot: {{type: SQLITE, sqlite: {{path: {}}}}}\n",
        path.display()
    );
    let mut apart = Minerva::start(&[("depots.yaml", &text)], 0);
    let sql = "SELECT f.kind, count(*), sum(l_linenumber) FROM lite.main.facts f JOIN gen.tpch.lineitem l ON f.id = l.l_orderkey GROUP BY f.kind ORDER BY f.kind";
    let alone = apart.rows(None, sql);
    apart.add_worker();
    apart.add_worker();
    let plan = apart.rows(None, &format!("EXPLAIN {sql}")).join("\n");
    let (_, stages) = plan.split_once("Stage 1").unwrap_or_else(|| panic!("{plan}"));
    assert!(stages.contains("dataos://lite:main/facts"), "{plan}");
    assert_eq!(apart.rows(None, sql), alone);
}

#[test]
fn a_lost_worker_is_an_error_and_the_next_query_works() {
    let text = "name: gen\nversion: v2alpha\ntype: depot\ndepot: {type: TPCH, tpch: {scale: 10}}\n";
    let mut minerva = Minerva::start(&[("depots.yaml", text)], 0);
    minerva.add_worker();
    minerva.add_worker();
    // Takes minutes when nothing happens to it.
    let long =
        "SELECT l_partkey, count(*), min(l_comment) FROM gen.tpch.lineitem GROUP BY l_partkey ORDER BY 2 DESC LIMIT 1";
    let running = minerva
        .client(&["sql", "-e", long])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let begun = "SELECT count(*) FROM system.runtime.queries WHERE state = 'RUNNING' AND query LIKE '%l_partkey%' AND query NOT LIKE '%system%'";
    while minerva.rows(None, begun) != ["1"] {}
    minerva.workers[1].kill();
    let output = running.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("WORKER_LOST"), "{error}");
    let alive = "SELECT count(*) FROM system.runtime.nodes WHERE NOT coordinator AND state = 'active'";
    while minerva.rows(None, alive) != ["1"] {}
    assert_eq!(minerva.rows(None, "SELECT count(*) FROM gen.tpch.nation"), ["25"]);
}

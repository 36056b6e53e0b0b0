//! Bad input: each gives one clear error that names the thing, never a panic, a hang, or a wrong or short answer.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use crate::minerva::{Minerva, program};

fn files(folder: &Path) -> String {
    format!(
        "name: lake\nversion: v2alpha\ntype: depot\ndepot:\n  type: FILE\n  file: {{path: {}}}\n",
        folder.display()
    )
}

fn said(output: &Output) -> String {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!text.contains("panicked"), "{text}");
    text
}

fn serve(folder: &Path) -> Command {
    let mut command = program();
    command.args(["serve", "--http-port", "0", "--flight-port", "0", "--cluster-port", "0"]);
    command
        .arg("--resources")
        .arg(folder.join("resources"))
        .arg("--data")
        .arg(folder.join("data"));
    command
}

#[test]
fn manifests_that_cannot_be_used_stop_the_start() {
    for (text, expected) in [
        ("name: [", "d.yaml:"),
        (
            "name: d\nversion: v2alpha\ntype: depot\ndepot: {type: TPCH, tpch: {scael: 1}}\n",
            "did you mean `scale`",
        ),
        ("name: d\nversion: v2alpha\ntype: depto\n", "did you mean `depot`"),
        (
            "name: d\nversion: v2alpha\ntype: depot\ndepot: {type: SQLITE, sqlite: {path: x.db}, secrets: [{name: nothere}]}\n",
            "nothere",
        ),
        (
            "name: d\nversion: v2alpha\ntype: depot\ndepot: {type: TPCH, tpch: {scale: \"${MINERVA_TEST_IS_NOT_SET}\"}}\n",
            "MINERVA_TEST_IS_NOT_SET",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("resources")).unwrap();
        fs::write(folder.path().join("resources/d.yaml"), text).unwrap();
        let output = serve(folder.path()).output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(expected), "expected `{expected}` in:\n{text}");
    }
}

#[test]
fn a_port_in_use_and_a_data_folder_in_use_are_named() {
    let minerva = Minerva::start(&[], 1);
    let second = serve(minerva.folder.path()).output().unwrap();
    assert!(
        said(&second).contains("in use by another coordinator"),
        "{}",
        said(&second)
    );
    assert_eq!(second.status.code(), Some(1));

    let folder = tempfile::tempdir().unwrap();
    let port = minerva.flight().rsplit_once(':').unwrap().1;
    let mut command = program();
    command
        .args([
            "serve",
            "--http-port",
            "0",
            "--flight-port",
            port,
            "--cluster-port",
            "0",
        ])
        .arg("--data")
        .arg(folder.path());
    let third = command.output().unwrap();
    assert!(said(&third).contains(port), "{}", said(&third));
    assert_eq!(third.status.code(), Some(1));
}

#[test]
fn sql_that_is_wrong_says_where_and_what_was_meant() {
    let depot = "name: small\nversion: v2alpha\ntype: depot\ndepot: {type: TPCH, tpch: {scale: 0.01}}\n";
    let minerva = Minerva::start(&[("d.yaml", depot)], 1);
    for (sql, code, text) in [
        ("SELECT 1 +", "SYNTAX_ERROR", "line 1"),
        (
            "SELECT\n  n_nam FROM small.tpch.nation",
            "COLUMN_NOT_FOUND",
            "did you mean `n_name`? (line 2, column 3)",
        ),
        (
            "SELECT * FROM small.tpch.natoin",
            "TABLE_NOT_FOUND",
            "did you mean `nation`",
        ),
        (
            "SELECT * FROM smal.tpch.nation",
            "CATALOG_NOT_FOUND",
            "did you mean `small`",
        ),
        ("SELECT * FROM nation", "MISSING_CATALOG_NAME", "USE catalog.schema"),
        (
            "SELECT uper(n_name) FROM small.tpch.nation",
            "FUNCTION_NOT_FOUND",
            "upper",
        ),
        (
            "SELECT n_nationkey FROM small.tpch.nation a, small.tpch.nation b",
            "AMBIGUOUS_NAME",
            "n_nationkey",
        ),
        ("SELECT CAST('x' AS INT)", "INVALID_CAST_ARGUMENT", "'x'"),
        ("SELECT 1/0", "DIVISION_BY_ZERO", "division by zero"),
        ("DELETE FROM small.tpch.nation", "NOT_SUPPORTED", "DELETE"),
        ("SELECT $1", "INVALID_PARAMETER", "1 parameters"),
        ("SELECT * FROM '/etc/passwd'", "", ""),
        ("SELECT * FROM \"/etc/passwd\"", "MISSING_CATALOG_NAME", ""),
        ("SELECT * FROM read_parquet('x')", "", "read_parquet"),
    ] {
        let error = minerva.error(None, sql);
        assert!(
            error.contains(code) && error.contains(text),
            "{sql}: expected {code} `{text}` in {error}"
        );
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("lake/s");
    fs::create_dir_all(data.join("mixed")).unwrap();
    fs::write(
        data.join("corrupt.parquet"),
        b"PAR1 this is no Parquet file at all PAR1",
    )
    .unwrap();
    fs::write(data.join("empty.parquet"), b"").unwrap();
    fs::write(data.join("short.csv"), "a,b,c\n1,2,3\n4,5\n").unwrap();
    fs::write(data.join("vanishing.csv"), "a\n1\n").unwrap();
    fs::write(data.join("mixed/1.json"), "{\"a\": 1}\n").unwrap();
    fs::write(data.join("mixed/2.json"), "{\"a\": {\"b\": 1}}\n").unwrap();
    fs::write(data.join("good.csv"), "a\n1\n2\n").unwrap();
    let minerva = Minerva::start(&[("d.yaml", &files(&folder.path().join("lake")))], 1);
    for (table, named) in [
        ("corrupt", "corrupt.parquet"),
        ("empty", "empty.parquet"),
        ("short", "short.csv"),
        ("mixed", "1.json"),
    ] {
        let error = minerva.error(None, &format!("SELECT * FROM lake.s.{table}"));
        assert!(error.contains(named) && !error.contains("panicked"), "{table}: {error}");
    }
    assert_eq!(minerva.rows(None, "SELECT count(*) FROM lake.s.vanishing"), ["1"]);
    fs::remove_file(data.join("vanishing.csv")).unwrap();
    assert!(
        minerva
            .error(None, "SELECT * FROM lake.s.vanishing")
            .contains("TABLE_NOT_FOUND")
    );
    // A broken file does not hide the others.
    assert_eq!(minerva.rows(None, "SELECT sum(a) FROM lake.s.good"), ["3"]);
    assert!(
        minerva
            .rows(
                None,
                "SELECT table_name FROM lake.information_schema.tables WHERE table_schema = 's'"
            )
            .contains(&"good".to_owned())
    );
}

/// What is nested so that reading or planning it would double with each level is an error at once; what is merely deep is not.
#[test]
fn nested_statements_end_soon() {
    let minerva = Minerva::start(&[], 1);
    let nested = |before: &str, inside: &str, after: &str, depth: usize| {
        format!("SELECT {}{inside}{}", before.repeat(depth), after.repeat(depth))
    };
    let begun = std::time::Instant::now();
    for (before, after) in [("coalesce(", ", 1)"), ("nvl(", ", 1)"), ("nvl2(", ", 1, 2)")] {
        let error = minerva.error(None, &(nested(before, "x", after, 40) + " FROM (VALUES (1)) AS t (x)"));
        assert!(
            error.contains("nested too deeply") && error.contains("`coalesce`"),
            "{error}"
        );
    }
    let between = nested("(", "x = 1", " BETWEEN false AND true)", 40) + " FROM (VALUES (1)) AS t (x)";
    assert!(minerva.error(None, &between).contains("nested too deeply"));
    // Views inside views are one expression, too.
    let views = (0..30).fold("SELECT 1 AS x".to_owned(), |inner, _| {
        format!("SELECT coalesce(x, 1) AS x FROM ({inner}) AS t")
    });
    assert_eq!(minerva.rows(None, &views), ["1"]);
    for (before, inside) in [
        ("CAST(", "1"),
        ("POSITION(", "a"),
        ("SUBSTRING(", "a"),
        ("ARRAY[", "1"),
        ("CAST(POSITION(", "1"),
    ] {
        let error = minerva.error(None, &nested(before, inside, "", 40));
        assert!(error.contains("SYNTAX_ERROR"), "{error}");
    }
    for (before, inside, after) in [("abs(", "-1", ")"), ("CAST(", "1", " AS INT)"), ("(", "1", ")")] {
        assert_eq!(
            minerva.rows(None, &nested(before, inside, after, 40)),
            ["1"],
            "{before}"
        );
    }
    assert_eq!(
        minerva.rows(
            None,
            &(nested("coalesce(", "x", ", 1)", 8) + " FROM (VALUES (1)) AS t (x)")
        ),
        ["1"]
    );
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(60),
        "{:?}",
        begun.elapsed()
    );
}

//! What SQLite is asked to do beyond scans, and what it is not.
//!
//! That the answers are the same is compared here for each statement, and for thousands by `tests/python/pushdown.py`.

use std::path::Path;
use std::time::Duration;

use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use rusqlite::Connection;

use crate::pushed::Pushed;
use crate::testing::depots;
use crate::{Error, ErrorKind};

const MANIFEST: &str =
    "name: crm\nversion: v2alpha\ntype: depot\ndepot:\n  type: sqlite\n  sqlite:\n    path: crm.db\n";

const TABLES: &str = "
    CREATE TABLE a (id INTEGER PRIMARY KEY, n INT, f DOUBLE, d DECIMAL(10, 2), s TEXT, odd TEXT COLLATE NOCASE, v VARCHAR(20) COLLATE RTRIM, day DATE, at TIMESTAMP,
        yes BOOLEAN, raw BLOB, any_value);
    WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 100)
    INSERT INTO a SELECT i, CASE WHEN i % 7 > 0 THEN i % 5 END, CASE WHEN i % 4 > 0 THEN i / 3.0 END, i * 1.25 - 20,
        CASE i % 10 WHEN 0 THEN 'a' WHEN 1 THEN 'B' WHEN 2 THEN 'ab' WHEN 3 THEN 'Ab' WHEN 4 THEN 'é' WHEN 5 THEN 'É' WHEN 6 THEN '' WHEN 8 THEN CAST(X'610062' AS TEXT) WHEN 9 THEN '\u{212a}' END,
        CASE i % 4 WHEN 0 THEN 'one' WHEN 1 THEN 'ONE' WHEN 2 THEN 'two' END, CASE i % 3 WHEN 0 THEN 'x' WHEN 1 THEN 'x  ' ELSE 'y' END, date('2023-12-30', i || ' days'),
        datetime('2023-12-30', i || ' days'), i % 3 = 0, unhex(printf('%02x', i)), i FROM i;
    CREATE TABLE b (a_id INTEGER, w INTEGER, t TEXT, day DATE);
    WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 200)
    INSERT INTO b SELECT nullif(i % 40, 7), i * 3, CASE i % 4 WHEN 0 THEN 'a' WHEN 1 THEN 'ab' WHEN 2 THEN 'É' END, date('2024-01-01', (i % 30) || ' days') FROM i;
    CREATE TABLE c (odd TEXT COLLATE NOCASE); INSERT INTO c VALUES ('A'), ('a'), ('AB'), ('ab'), ('A'), (NULL);
    CREATE TABLE kept (id INT, raw BLOB, s TEXT) STRICT; INSERT INTO kept VALUES (1, X'00', 'a'), (2, NULL, NULL);
    CREATE TABLE keyed (k TEXT PRIMARY KEY, n INTEGER) WITHOUT ROWID; INSERT INTO keyed VALUES ('a', 1), ('A', 2);
    CREATE TABLE empty (id INTEGER, s TEXT);";

async fn pushed(folder: &Path, statements: &str) -> Pushed {
    Connection::open(folder.join("crm.db"))
        .unwrap()
        .execute_batch(statements)
        .unwrap();
    Pushed::new(&depots(folder, MANIFEST), "crm", "main").await
}

#[tokio::test]
async fn what_means_the_same_is_done_by_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let pushed = pushed(folder.path(), TABLES).await;
    for (sql, parts) in [
        (
            "SELECT count(*) FROM a",
            &["SELECT count(*) AS c0 FROM main.\"a\" AS t"][..],
        ),
        (
            "SELECT count(*), count(n), count(DISTINCT n), count(f), count(any_value) FROM a WHERE id > 3 AND d IS NOT NULL",
            &["count(DISTINCT t.\"n\")", " AND minerva_fits("],
        ),
        (
            "SELECT n, sum(id), min(day), max(day), min(s), max(odd), min(yes), max(raw) FROM a GROUP BY n",
            &["GROUP BY", "COLLATE BINARY"],
        ),
        (
            "SELECT s, count(*) FROM a GROUP BY s HAVING count(*) > 2 AND min(n) IS NOT NULL",
            &["HAVING"],
        ),
        (
            "SELECT odd, count(*), count(DISTINCT odd), count(DISTINCT v) FROM a GROUP BY odd",
            &["GROUP BY (t.\"odd\" COLLATE BINARY)"],
        ),
        ("SELECT DISTINCT n, yes FROM a", &["GROUP BY"]),
        ("SELECT DISTINCT v, raw FROM a", &["GROUP BY"]),
        (
            "SELECT sum(id) FILTER (WHERE yes), count(*) FILTER (WHERE s = 'a'), sum(DISTINCT n), bool_and(yes), bool_or(yes) FROM a",
            &["FILTER"],
        ),
        ("SELECT sum(id), max(s), count(*), count(s) FROM empty", &["sum"]),
        (
            "SELECT id, s FROM a ORDER BY s DESC NULLS LAST, id LIMIT 5",
            &["ORDER BY", "DESC NULLS LAST", "LIMIT 5"],
        ),
        (
            "SELECT id, odd FROM a ORDER BY odd, day DESC LIMIT 7 OFFSET 2",
            &["COLLATE BINARY) ASC NULLS LAST", "LIMIT 7 OFFSET 2"],
        ),
        (
            "SELECT count(*) FROM a WHERE length(s) > 1 OR s LIKE '%b' OR v = 'x'",
            &["minerva_length", "minerva_like"],
        ),
        (
            "SELECT count(*) FROM a WHERE odd IN ('one', 'TWO', 'x', 'y') OR v NOT IN ('x', 'y') OR f > 10.5 OR f = 1.0",
            &["COLLATE BINARY) IN ('one'", "(CAST(21 AS REAL) / 2)"],
        ),
        (
            "SELECT id, n + 1, id * n - 3, CASE WHEN n > 2 THEN s ELSE v END, coalesce(n, id), nullif(n, 3) FROM a WHERE id < n * 30",
            &["CASE", "minerva_add", "minerva_multiply"],
        ),
        (
            "SELECT count(*) FROM a WHERE (n IS DISTINCT FROM id) AND (s || v) <> 'ax' AND NOT yes AND (yes IS NOT TRUE)",
            &["(NOT (t.\"n\" IS t.\"id\"))", "||"],
        ),
        (
            "SELECT date_part('year', day), date_part('month', day), date_part('day', day), count(*) FROM a GROUP BY 1, 2, 3",
            &["substr"],
        ),
        (
            "SELECT count(*) FROM a WHERE day BETWEEN DATE '2024-01-15' AND DATE '2024-02-20' AND day <> DATE '2024-02-01'",
            &["'2024-01-15'"],
        ),
        (
            "SELECT substr(s, 1, 1), substr(s, 2), trim(v), strpos(v, '1'), starts_with(s, 'A'), octet_length(s) FROM a WHERE octet_length(s) = 2",
            &["minerva_substr"],
        ),
        (
            "SELECT a.id, b.w FROM a JOIN b ON a.id = b.a_id WHERE a.yes AND b.w > 20",
            &["JOIN"],
        ),
        (
            "SELECT a.id, b.w FROM a LEFT JOIN b ON a.id = b.a_id AND b.w > 90 AND a.n = 1",
            &["LEFT JOIN"],
        ),
        (
            "SELECT a.id, b.w FROM a RIGHT JOIN b ON a.day = b.day WHERE b.w < 30",
            &["AS r LEFT JOIN"],
        ),
        (
            "SELECT a.s, sum(b.w) FROM a JOIN b ON a.s = b.t GROUP BY a.s",
            &["COLLATE BINARY) = "],
        ),
        (
            "SELECT a.id FROM a JOIN c ON a.odd = c.odd AND a.id < 50",
            &["COLLATE BINARY) = "],
        ),
        ("SELECT id FROM a WHERE s IN (SELECT odd FROM c)", &[" IN (SELECT "]),
        (
            "SELECT id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.a_id = a.id AND b.w > 50)",
            &[" IN (SELECT "],
        ),
        (
            "SELECT id FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.a_id = a.n AND b.t = a.s)",
            &[" IN (SELECT ", "NOT COALESCE"],
        ),
        (
            "SELECT s, count(*) FROM (SELECT s, id FROM a UNION ALL SELECT t, a_id FROM b WHERE w > 5 UNION ALL SELECT odd, 3 FROM a) AS u GROUP BY s",
            &["UNION ALL"],
        ),
        (
            "SELECT t, count(*) FROM (SELECT t, a_id, sum(w) AS w FROM b GROUP BY t, a_id) AS x WHERE w > 10 GROUP BY t",
            &["FROM (SELECT"],
        ),
        (
            "SELECT max(raw), min(id), count(s) FROM kept",
            &["minerva_fits('kept', 'TEXT', 's', t.\"s\")"],
        ),
        ("SELECT k, sum(n) FROM keyed GROUP BY k", &["GROUP BY"]),
        (
            "SELECT id, row_number() OVER (PARTITION BY yes ORDER BY s NULLS FIRST, id DESC), rank() OVER (ORDER BY n), dense_rank() OVER (ORDER BY odd DESC) FROM a",
            &["row_number() OVER (PARTITION BY", "dense_rank() OVER"],
        ),
        (
            "SELECT id, s FROM (SELECT id, s, row_number() OVER (PARTITION BY n ORDER BY id) AS place FROM a) AS w WHERE place <= 2",
            &["row_number", "WHERE", "<= 2"],
        ),
        (
            "SELECT place, count(*), max(place) FROM (SELECT rank() OVER (ORDER BY odd) AS place FROM a) AS w WHERE place BETWEEN 2 AND 60 GROUP BY place",
            &["rank", "GROUP BY"],
        ),
        (
            "SELECT id, count(s) OVER (ORDER BY yes), sum(id) OVER (PARTITION BY s ORDER BY id ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING), min(s) OVER (PARTITION BY n),
                max(odd) OVER (ORDER BY id ROWS BETWEEN 3 PRECEDING AND CURRENT ROW), count(*) FILTER (WHERE s = 'a') OVER (ORDER BY n) FROM a",
            &["ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING"],
        ),
        (
            "SELECT id, lag(s) OVER (ORDER BY id), lead(n, 3) OVER (PARTITION BY s ORDER BY id), first_value(odd) OVER (ORDER BY id DESC), last_value(s) OVER (ORDER BY id) FROM a",
            &["lead"],
        ),
        (
            "SELECT n, total, rank() OVER (ORDER BY total DESC, n) FROM (SELECT n, sum(id) AS total FROM a GROUP BY n) AS g",
            &["GROUP BY", "OVER"],
        ),
        (
            "SELECT id, CAST(row_number() OVER (ORDER BY id) AS BIGINT) + id FROM (SELECT id, lag(n) OVER (ORDER BY id) AS n FROM a) AS w WHERE n > 1",
            &["lag"],
        ),
        (
            "SELECT s FROM a INTERSECT SELECT t FROM b",
            &["COALESCE"],
        ),
        (
            "SELECT s, id FROM a EXCEPT SELECT t, a_id FROM b",
            &["COALESCE"],
        ),
        ("SELECT s FROM a UNION SELECT t FROM b", &["UNION ALL", "GROUP BY"]),
        (
            "SELECT s, odd FROM a INTERSECT ALL SELECT t, t AS u FROM b",
            &["COALESCE"],
        ),
        (
            "SELECT odd FROM a EXCEPT ALL SELECT t FROM b",
            &["NOT COALESCE"],
        ),
        (
            "SELECT s FROM a ORDER BY s, odd, id LIMIT 5 OFFSET 50",
            &["LIMIT 5 OFFSET 50"],
        ),
        (
            "SELECT s, count(*) FROM a GROUP BY s ORDER BY s LIMIT 3 OFFSET 2",
            &["GROUP BY", "LIMIT 3 OFFSET 2"],
        ),
    ] {
        pushed.whole(sql, parts).await;
    }
}

#[tokio::test]
async fn what_may_mean_something_else_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let views = "CREATE VIEW seen AS SELECT id, s FROM a; CREATE VIRTUAL TABLE words USING fts5(word);";
    let pushed = pushed(folder.path(), &format!("{TABLES}{views}")).await;
    for sql in [
        "SELECT id FROM a WHERE f > 1.5 + n",
        "SELECT max(f), sum(f), avg(f), avg(n), avg(id) FROM a",
        "SELECT f, count(*) FROM a GROUP BY f",
        "SELECT id FROM a WHERE f = 0.0 OR f < 'NaN'::double",
        "SELECT d, count(*) FROM a GROUP BY d",
        "SELECT sum(d), max(d), count(d) FROM a",
        "SELECT max(at) FROM a",
        "SELECT max(any_value) FROM a",
        "SELECT id / 2, id % 7 FROM a",
        "SELECT id FROM a WHERE s SIMILAR TO 'a%'",
        "SELECT id FROM a WHERE s LIKE 'a\\%'",
        "SELECT reverse(s) FROM a",
        "SELECT id FROM a ORDER BY f, id LIMIT 3",
        "SELECT max(id) FROM seen",
        "SELECT count(*) FROM words",
        // It would look through all of `b` for each row of `a`.
        "SELECT id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.a_id = a.id AND b.w > a.n)",
    ] {
        pushed.nothing(sql).await;
    }
}

/// Letters are not the same everywhere: SQLite leaves out most rows, and what stays is decided here.
#[tokio::test]
async fn conditions_on_letters_leave_out_most_rows() {
    let folder = tempfile::tempdir().unwrap();
    let pushed = pushed(folder.path(), TABLES).await;
    for sql in [
        "SELECT id FROM a WHERE lower(s) = 'ab'",
        "SELECT id FROM a WHERE lower(s) = 'k'",
        "SELECT id FROM a WHERE upper(s) <> 'AB' AND id < 50",
        "SELECT id FROM a WHERE s ILIKE 'a%'",
        "SELECT id FROM a WHERE NOT (lower(s) = 'é')",
    ] {
        let with = pushed.same(sql).await;
        assert!(
            with.statements.concat().contains("octet_length"),
            "{:?}",
            with.statements
        );
    }
}

/// SQLite keeps any value in any column. What does not fit is never computed with.
#[tokio::test]
async fn values_that_do_not_fit_are_errors_there_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let pushed = pushed(
        folder.path(),
        "CREATE TABLE words (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO words VALUES (1, 5), (2, 'abc'), (3, 7);
         CREATE TABLE halves (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO halves VALUES (1, 5), (2, 7.5);
         CREATE TABLE large (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO large VALUES (1, 5), (2, 9223372036854775808);
         CREATE TABLE flags (id INTEGER PRIMARY KEY, n BOOLEAN); INSERT INTO flags VALUES (1, 1), (2, 2);
         CREATE TABLE days (id INTEGER PRIMARY KEY, n DATE); INSERT INTO days VALUES (1, '2024-01-01'), (2, '2024-02-30');
         CREATE TABLE numbers (id INTEGER PRIMARY KEY, n DATE); INSERT INTO numbers VALUES (1, '2024-01-01'), (2, 20240101);
         CREATE TABLE blobs (id INTEGER PRIMARY KEY, n TEXT); INSERT INTO blobs VALUES (1, 'a'), (2, X'61');
         CREATE TABLE broken (id INTEGER PRIMARY KEY, n TEXT); INSERT INTO broken VALUES (1, 'a'), (2, CAST(X'ff' AS TEXT));
         CREATE TABLE reals (id INTEGER PRIMARY KEY, n DOUBLE); INSERT INTO reals VALUES (1, 1.5), (2, 'x');
         CREATE TABLE money (id INTEGER PRIMARY KEY, n DECIMAL(4, 2)); INSERT INTO money VALUES (1, 1.5), (2, 1.005);
         CREATE TABLE times (id INTEGER PRIMARY KEY, n TIMESTAMP); INSERT INTO times VALUES (1, '2024-01-01'), (2, 'now');
         CREATE TABLE strict (id INTEGER PRIMARY KEY, n TEXT) STRICT; INSERT INTO strict VALUES (1, 'a'), (2, CAST(X'ff' AS TEXT));",
    )
    .await;
    let tables = [
        "words", "halves", "large", "flags", "days", "numbers", "blobs", "broken", "reals", "money", "times", "strict",
    ];
    for table in tables {
        let mut statements = vec![format!("SELECT n FROM {table} WHERE id + 1 > 0")];
        if !["money", "times"].contains(&table) {
            statements.push(format!("SELECT count(n) FROM {table}"));
        }
        if !["reals", "money", "times"].contains(&table) {
            statements.extend([
                format!("SELECT min(n), max(n) FROM {table}"),
                format!("SELECT n, count(*) FROM {table} GROUP BY n"),
                format!("SELECT count(DISTINCT n) FROM {table}"),
                format!("SELECT id FROM {table} ORDER BY n LIMIT 1"),
                format!("SELECT x.id FROM {table} AS x JOIN {table} AS y ON x.n = y.n"),
                format!("SELECT id FROM {table} WHERE n IN (SELECT n FROM {table})"),
                format!(
                    "SELECT n, count(*) FROM (SELECT n FROM {table} UNION ALL SELECT n FROM {table}) AS u GROUP BY n"
                ),
                format!("SELECT count(*) FROM {table} WHERE coalesce(n, n) = n"),
            ]);
        }
        for sql in statements {
            let (with, without) = (pushed.run(&sql, true).await, pushed.run(&sql, false).await);
            assert!(!with.statements.is_empty(), "{sql}");
            assert_eq!(without.rows.unwrap_err().kind, ErrorKind::BadValue, "{sql}");
            let error = with.rows.unwrap_err();
            assert_eq!(error.kind, ErrorKind::BadValue, "{sql}: {error}");
            assert!(error.message.starts_with("column `n`"), "{error}");
        }
        // What is not looked at is not told of.
        pushed
            .whole(&format!("SELECT count(*), max(id) FROM {table}"), &[])
            .await;
    }
}

/// Of a row that a scan leaves out nothing is said, whoever computes.
#[tokio::test]
async fn values_that_do_not_fit_in_rows_that_are_left_out_are_no_errors() {
    let folder = tempfile::tempdir().unwrap();
    let pushed = pushed(
        folder.path(),
        "CREATE TABLE t (n INTEGER, kind TEXT, s TEXT); INSERT INTO t VALUES (3, 'good', 'abc'), ('abc', 'bad', X'61');
         CREATE TABLE found (n INTEGER, kind TEXT, s TEXT); INSERT INTO found SELECT * FROM t; CREATE INDEX by_all ON found (s, n);",
    )
    .await;
    for table in ["t", "found"] {
        for sql in [
            "SELECT count(n) FROM {t} WHERE kind = 'good'",
            "SELECT kind, sum(n + 1) FROM {t} WHERE kind = 'good' AND n * 2 < 100 GROUP BY kind",
            "SELECT sum(n) FROM {t} WHERE kind = 'good' AND length(s) = 3 AND s LIKE 'a%'",
        ] {
            pushed
                .whole(&sql.replace("{t}", table), &["'good'", "minerva_fits("])
                .await;
        }
        for sql in [
            "SELECT count(n) FROM {t}",
            "SELECT count(*) FROM {t} WHERE length(s) = 3",
            "SELECT count(*) FROM {t} WHERE n + 1 > 0",
        ] {
            let ran = pushed.run(&sql.replace("{t}", table), true).await;
            assert!(!ran.statements.is_empty(), "{sql}");
            assert_eq!(ran.rows.unwrap_err().kind, ErrorKind::BadValue, "{sql}");
        }
    }
}

/// SQLite does not look at what it computes itself, not even in a STRICT table.
#[tokio::test]
async fn generated_columns_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let pushed = pushed(
        folder.path(),
        "CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT, n INTEGER AS (s) VIRTUAL) STRICT; INSERT INTO t (id, s) VALUES (1, '5'), (2, 'abc');",
    )
    .await;
    for sql in ["SELECT max(n) FROM t", "SELECT n, count(*) FROM t GROUP BY n"] {
        let ran = pushed.run(sql, true).await;
        assert!(!ran.statements.is_empty(), "{sql}");
        assert_eq!(ran.rows.unwrap_err().kind, ErrorKind::BadValue, "{sql}");
    }
}

#[tokio::test]
async fn numbers_that_leave_their_range_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let numbers = "CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (9223372036854775807), (9223372036854775806), (1);";
    let pushed = pushed(folder.path(), numbers).await;
    for sql in [
        "SELECT sum(n) FROM t",
        "SELECT count(*) FROM t WHERE n + n > 0",
        "SELECT n * 3 FROM t",
        "SELECT max(-5 - n) FROM t",
    ] {
        let ran = pushed.run(sql, true).await;
        assert!(!ran.statements.is_empty(), "{sql}");
        assert_eq!(ran.rows.unwrap_err().kind, ErrorKind::OutOfRange, "{sql}");
    }
}

/// Names and constants stay what they are, whatever is in them.
#[tokio::test]
async fn names_and_constants_cannot_leave_their_quotes() {
    let folder = tempfile::tempdir().unwrap();
    let names = "CREATE TABLE \"t\"\" AS (SELECT 1) --\" (\"c\"\"; DROP TABLE x --\" TEXT, id INTEGER);
        INSERT INTO \"t\"\" AS (SELECT 1) --\" VALUES ('\\'' OR 1=1 --', 1), ('a''''b', 2), ('new\nline', 3), ('', 4), (NULL, 5), ('?1 :a @a', 6);";
    let pushed = pushed(folder.path(), names).await;
    let column = "\"c\"\"; DROP TABLE x --\"";
    let table = "\"t\"\" AS (SELECT 1) --\"";
    for value in [
        "\\'' OR 1=1 --",
        "a''''b",
        "new\nline",
        "",
        "é''",
        "\\",
        "x\\''y",
        "?1 :a @a",
        "a\0b",
    ] {
        let sql = format!(
            "SELECT {column}, count(*), max({column} || '{value}') FROM {table} WHERE {column} || '' = '{value}' OR {column} IN ('{value}', 'z') GROUP BY {column}"
        );
        pushed.whole(&sql, &["GROUP BY"]).await;
    }
}

/// What one side of a join knows reaches the statement of the other side before it is read.
#[tokio::test]
async fn keys_of_joins_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let pushed = pushed(
        folder.path(),
        "CREATE TABLE many (k INTEGER PRIMARY KEY, t TEXT, day DATE, n INT);
         WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 50000)
         INSERT INTO many SELECT i, 'k' || i, date('2000-01-01', i || ' days'), i % 10 FROM i;",
    )
    .await;
    let values = "SELECT * FROM (VALUES (7, 'k7', DATE '2000-01-11'), (8, NULL, NULL), (60000, 'k9', NULL), (NULL, 'k10', NULL)) AS v(k, t, day)";
    pushed.here(values).await;
    for (sql, at_most) in [
        ("SELECT many.n FROM here JOIN many ON here.k = many.k", 2),
        ("SELECT many.n FROM here JOIN many ON here.t = many.t", 3),
        ("SELECT n FROM many WHERE k IN (SELECT k FROM here)", 2),
        (
            "SELECT n FROM many WHERE k > (SELECT max(k) - 20000 FROM here) AND length(t) > 2",
            10_000,
        ),
        (
            "SELECT x.c FROM here JOIN (SELECT n, count(*) AS c FROM many GROUP BY n) AS x ON here.k = x.n",
            2,
        ),
        (
            "SELECT x.c FROM here JOIN (SELECT day, count(*) AS c FROM many GROUP BY day) AS x ON here.day = x.day",
            1,
        ),
        (
            "SELECT x.c FROM here JOIN (SELECT t, count(*) AS c FROM many GROUP BY t) AS x ON here.t = x.t",
            3,
        ),
    ] {
        let with = pushed.same(sql).await;
        assert!(with.sent <= at_most, "{sql} has {} rows sent", with.sent);
    }
}

/// More values than a statement has parameters are left to the join.
#[tokio::test]
async fn more_keys_than_a_statement_takes_are_left_to_the_join() {
    let folder = tempfile::tempdir().unwrap();
    let columns: Vec<String> = (0..4).map(|at| format!("c{at} INTEGER")).collect();
    let pushed = pushed(
        folder.path(),
        &format!(
            "CREATE TABLE wide ({}); WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 9000)
             INSERT INTO wide SELECT i * 10, i * 10, i * 10, i * 10 FROM i;",
            columns.join(", ")
        ),
    )
    .await;
    pushed
        .here("SELECT value * 10 AS k FROM generate_series(1, 9000) AS s(value)")
        .await;
    let joins: Vec<String> = (0..4)
        .map(|at| format!("JOIN here AS h{at} ON wide.c{at} = h{at}.k"))
        .collect();
    pushed
        .same(&format!(
            "SELECT wide.c0 FROM wide {} WHERE wide.c1 > 5",
            joins.join(" ")
        ))
        .await;
}

/// A statement that computes for long without a row ends when nobody waits for it any more.
#[test]
fn leaving_early_stops_what_is_computed() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let pushed = pushed(
            folder.path(),
            "CREATE TABLE t (g INTEGER, n INTEGER);
             WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 20000) INSERT INTO t SELECT 1, i FROM i;",
        )
        .await;
        // Eight billions of pairs, each of them with two more.
        let sql = "SELECT count(*), sum(x.n) FROM t AS x JOIN t AS y ON x.g = y.g JOIN t AS z ON y.g = z.g";
        let plan = pushed.plan(sql, true).await;
        let mut stream = execute_stream(plan, pushed.context.task_ctx()).unwrap();
        let nothing = tokio::time::timeout(Duration::from_millis(200), stream.next()).await;
        assert!(nothing.is_err(), "it was to take longer");
    });
    // Waits for blocking threads: it returns only when the statement was stopped.
    drop(runtime);
}

#[tokio::test]
async fn a_table_that_changed_since_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let pushed = pushed(
        folder.path(),
        "CREATE TABLE t (id INTEGER, n INTEGER); INSERT INTO t VALUES (1, 2);",
    )
    .await;
    let plan = pushed.plan("SELECT n, count(*) FROM t GROUP BY n", true).await;
    let connection = Connection::open(folder.path().join("crm.db")).unwrap();
    connection.execute_batch("ALTER TABLE t RENAME COLUMN n TO m").unwrap();
    let failure = datafusion::physical_plan::collect(plan, pushed.context.task_ctx())
        .await
        .unwrap_err();
    assert_eq!(Error::find(&failure).unwrap().kind, ErrorKind::Changed, "{failure}");
}

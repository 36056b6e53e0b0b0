//! What MariaDB is asked to do beyond scans, and what it is not.
//!
//! That the answers are the same is compared here for each statement, and for thousands by `tests/python/pushdown.py`.

use std::time::Duration;

use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use minerva_connectors::ErrorKind;

use crate::pushed::Pushed;
use crate::server::shared;

const TABLES: &str = "
    CREATE TABLE a (id bigint PRIMARY KEY, n int, small smallint, tiny tinyint unsigned, u bigint unsigned, f double, r float, d decimal(10, 2), big decimal(50, 2),
        s varchar(20) COLLATE utf8mb4_unicode_ci, l varchar(20) CHARACTER SET latin1, c char(4), odd varchar(20) COLLATE utf8mb4_general_ci, long_text text, e enum('b', 'A', 'é'),
        day date, at datetime(6), moment timestamp NULL, clock time, yes bit(1), bits bit(20), y year, u_id uuid, raw varbinary(20));
    INSERT INTO a SELECT seq, IF(seq % 7 > 0, seq % 5, NULL), seq % 3, seq % 4, seq * 2, IF(seq % 4 > 0, seq / 3.0, NULL), seq / 4, seq * 1.37 - 20, seq / 8,
        ELT(seq % 10 + 1, 'a', 'B', 'ab', 'Ab', 'é', 'É', '', NULL, 'k', '\u{212a}'), ELT(seq % 3 + 1, 'é', 'e', NULL), ELT(seq % 3 + 1, 'x', 'y ', NULL),
        ELT(seq % 5 + 1, 'one', 'ONE', 'one ', 'two', NULL), concat(repeat('x', 2000), seq % 3), seq % 3 + 1, date '2023-12-30' + INTERVAL seq DAY, '1999-12-31 23:59:59.5' + INTERVAL seq DAY,
        '2024-05-01 12:00' + INTERVAL seq HOUR, sec_to_time(seq * 100), seq % 3 = 0, seq, 1990 + seq % 20, concat('00000000-0000-4000-8000-00000000000', seq % 10), unhex(lpad(hex(seq), 2, '0'))
        FROM seq_1_to_100;
    CREATE TABLE b (a_id bigint, w decimal(10, 2), t varchar(20), n int, day date, KEY (a_id), KEY (n));
    INSERT INTO b SELECT nullif(seq % 40, 7), seq * 0.5, ELT(seq % 4 + 1, 'a', 'ab', 'É', NULL), seq % 6, date '2024-01-01' + INTERVAL seq % 30 DAY FROM seq_1_to_200;
    CREATE TABLE c (odd varchar(20) COLLATE utf8mb4_general_ci); INSERT INTO c VALUES ('A'), ('a'), ('AB'), ('ab'), (NULL);
    CREATE TABLE empty (id bigint, d decimal(10, 2), s varchar(20));
    CREATE VIEW seen AS SELECT id, s FROM a;";

async fn pushed(name: &str, statements: &str) -> Pushed {
    let place = shared().database(name, statements);
    Pushed::new(&place.depots, "db", name).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_means_the_same_is_done_by_mariadb() {
    let pushed = pushed("pushed", TABLES).await;
    for (sql, parts) in [
        ("SELECT count(*) FROM a", &["COUNT(*)"][..]),
        (
            "SELECT count(*), count(n), count(DISTINCT n), count(f), count(clock), count(big), count(u_id) FROM a WHERE id > 3",
            &["COUNT(DISTINCT t.`n`)"],
        ),
        (
            "SELECT n, sum(id), sum(d), min(u), max(tiny), min(s), max(e), max(y), min(yes), max(bits), max(raw) FROM a GROUP BY n",
            &["GROUP BY", "COLLATE", "DIV 1"],
        ),
        (
            "SELECT sum(n), sum(small), avg(n), avg(tiny), avg(small), avg(id), avg(u) FROM a",
            &["CAST(t.`n` AS SIGNED)", "0e0"],
        ),
        ("SELECT avg(CAST(small AS DOUBLE)) FROM a", &["0e0"]),
        (
            "SELECT s, avg(DISTINCT id) FILTER (WHERE n > 1), avg(u) FILTER (WHERE yes), avg(DISTINCT small) FROM a GROUP BY s",
            &["SUM(DISTINCT CASE WHEN", "SUM(DISTINCT t.`small`)"],
        ),
        (
            "SELECT id, avg(id) OVER (PARTITION BY s ORDER BY id ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING), avg(u) FILTER (WHERE s = 'a') OVER (PARTITION BY s ORDER BY id) FROM a",
            &["ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING"],
        ),
        (
            "SELECT s, count(*) FROM a GROUP BY s HAVING count(*) > 2 AND min(n) IS NOT NULL",
            &["GROUP BY", " WHERE "],
        ),
        // HAVING knows no key that is an expression.
        (
            "SELECT s, count(*) FROM a GROUP BY s HAVING count(*) > 2 OR s = 'a'",
            &["GROUP BY", " WHERE "],
        ),
        (
            "SELECT CAST(n AS BIGINT) AS k, yes, count(*) FROM a GROUP BY 1, 2 HAVING count(*) > 5 OR CAST(n AS BIGINT) = 1 OR yes",
            &["GROUP BY", " WHERE "],
        ),
        (
            "SELECT odd, count(*), count(DISTINCT odd), count(DISTINCT e) FROM a GROUP BY odd",
            &["GROUP BY (t.`odd` COLLATE utf8mb4_nopad_bin)"],
        ),
        ("SELECT DISTINCT small, yes, y, c, l FROM a", &["GROUP BY"]),
        (
            "SELECT sum(d) FILTER (WHERE yes), count(*) FILTER (WHERE s = 'a'), sum(DISTINCT n), bool_and(yes), bool_or(yes), min(id) FILTER (WHERE small = 1) FROM a",
            &["CASE WHEN"],
        ),
        (
            "SELECT sum(id), sum(d), max(s), count(*), avg(CAST(id AS INT)) FROM empty WHERE id > 0",
            &["SUM"][..1],
        ),
        (
            "SELECT id, s FROM a ORDER BY s DESC NULLS LAST, id LIMIT 5",
            &["ORDER BY", "IS NULL) ASC", "DESC", "LIMIT 5"],
        ),
        (
            "SELECT id, odd FROM a ORDER BY odd NULLS FIRST, id LIMIT 7 OFFSET 2",
            &["IS NULL) DESC", "LIMIT 7 OFFSET 2"],
        ),
        (
            "SELECT count(*) FROM a WHERE length(s) > 1 OR s LIKE '%b' OR c = 'y' OR e = 'é'",
            &["CHAR_LENGTH", "LIKE"],
        ),
        (
            "SELECT count(*) FROM a WHERE odd IN ('one', 'TWO', 'x', 'y') OR l NOT IN ('é') OR octet_length(long_text) > 9",
            &[" IN ("],
        ),
        (
            "SELECT id, id + 1, id * id - 3, d * d - d, CASE WHEN n > 2 THEN s ELSE odd END, coalesce(n, 7), nullif(small, 1), yes FROM a WHERE id < n * 30",
            &["CASE"],
        ),
        (
            "SELECT count(*) FROM a WHERE (n IS DISTINCT FROM small) AND NOT yes AND (yes IS NOT TRUE) AND f > 1.5",
            &["<=>", "COALESCE"],
        ),
        (
            "SELECT substr(s, 1, 1), substr(s, 2), trim(odd), strpos(s, 'b'), starts_with(s, 'A') FROM a WHERE octet_length(s) = 2",
            &["SUBSTR"],
        ),
        (
            "SELECT count(*) FROM a WHERE day < DATE '2024-02-01' AND at > TIMESTAMP '2000-01-20 00:00:00'",
            &["DATE'2024-02-01'"],
        ),
        (
            "SELECT id, day, at, moment, clock, u_id, big, f, r FROM a JOIN (SELECT max(a_id) AS m FROM b) AS x ON a.id = x.m",
            &["JOIN"],
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
            "SELECT a.id, b.w FROM a RIGHT JOIN b ON a.n = b.n WHERE b.w < 3",
            &["JOIN"],
        ),
        (
            "SELECT a.id, b.n FROM a JOIN b ON a.n = b.a_id AND a.s <> b.t",
            &["CAST("],
        ),
        (
            "SELECT id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.a_id = a.id AND b.w > 50)",
            &[" IN (SELECT "],
        ),
        (
            "SELECT id FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.a_id = a.id AND b.n = a.n)",
            &[" IN (SELECT ", "NOT COALESCE"],
        ),
        (
            "SELECT s, count(*) FROM (SELECT s, id FROM a UNION ALL SELECT odd, a.n FROM a) AS u WHERE id > 3 GROUP BY s",
            &["UNION ALL"],
        ),
        (
            "SELECT n, count(*) FROM (SELECT n, a_id, sum(w) AS w FROM b GROUP BY n, a_id) AS x WHERE w > 10 GROUP BY n",
            &["FROM (SELECT"],
        ),
        (
            "SELECT id, row_number() OVER (PARTITION BY small ORDER BY s NULLS FIRST, id DESC), rank() OVER (ORDER BY n), dense_rank() OVER (ORDER BY odd DESC) FROM a",
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
            "SELECT id, count(s) OVER (ORDER BY small), sum(id) OVER (PARTITION BY s ORDER BY id ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING),
                count(*) FILTER (WHERE s = 'a') OVER (ORDER BY n) FROM a",
            &["ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING"],
        ),
        (
            "SELECT id, lag(s) OVER (ORDER BY id), lead(n, 3) OVER (PARTITION BY s ORDER BY id), first_value(odd) OVER (ORDER BY id DESC), last_value(s) OVER (ORDER BY id) FROM a",
            &["lead"],
        ),
        // It computes only one of several orders right, so each has a SELECT of its own.
        (
            "SELECT id, rank() OVER (PARTITION BY n ORDER BY small), rank() OVER (ORDER BY n, small) FROM a",
            &["FROM (SELECT d.c0 AS c0"],
        ),
        (
            "SELECT n, total, rank() OVER (ORDER BY total DESC, n) FROM (SELECT n, sum(id) AS total FROM a GROUP BY n) AS g",
            &["GROUP BY", "OVER"],
        ),
        (
            "SELECT id, row_number() OVER (ORDER BY id) FROM (SELECT id, lag(n) OVER (ORDER BY id) AS n FROM a) AS w WHERE n > 1",
            &["lag"],
        ),
        (
            "SELECT s FROM a ORDER BY s, odd, id LIMIT 5 OFFSET 50",
            &["LIMIT 5 OFFSET 50"],
        ),
        (
            "SELECT s, count(*) FROM a GROUP BY s ORDER BY s LIMIT 3 OFFSET 2",
            &["GROUP BY", "LIMIT 3 OFFSET 2"],
        ),
        // The server would make inner joins of these by the conditions that are their opposite.
        (
            "SELECT a.id, b.n FROM b LEFT JOIN a ON b.a_id = a.id AND a.small = 1 WHERE a.n IS DISTINCT FROM 3",
            &["LEFT JOIN", "<=>"],
        ),
        (
            "SELECT a.id, b.n FROM b LEFT JOIN a ON b.a_id = a.id AND a.small = 1 WHERE NOT ((a.n = 3) IS TRUE)",
            &["LEFT JOIN"],
        ),
        (
            "SELECT a.id, b.n FROM b LEFT JOIN a ON b.a_id = a.id AND a.small = 1 WHERE NOT ((a.n = 3) IS FALSE)",
            &["LEFT JOIN"],
        ),
        // Where it makes a join by hashing, NULL is equal to no NULL, whatever is asked for.
        (
            "SELECT a.id, b.n FROM b JOIN a ON b.a_id = a.id AND b.n IS NOT DISTINCT FROM a.n",
            &["JOIN", "COALESCE(("],
        ),
        ("SELECT max(id), count(s) FROM seen", &["MAX"]),
    ] {
        if sql.contains("UNION") {
            // Texts of several tables are not known to be short.
            let with = pushed.same(sql).await;
            assert!(with.statements.concat().contains(parts[0]), "{:?}", with.statements);
        } else if sql.contains("empty") {
            pushed.same(sql).await;
        } else {
            pushed.whole(sql, parts).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_mean_something_else_is_not() {
    let pushed = pushed("unpushed", TABLES).await;
    for sql in [
        // It wants an order for these.
        "SELECT id, rank() OVER (PARTITION BY n ORDER BY 1.5) FROM a",
        "SELECT id FROM a WHERE f > 1.5 + n",
        "SELECT max(f), sum(f), avg(f), avg(d) FROM a",
        "SELECT avg(CAST(id AS DOUBLE)) FROM a",
        "SELECT f, count(*) FROM a GROUP BY f",
        "SELECT id / 2, d / 3, id % 7, n + small FROM a",
        "SELECT id FROM a WHERE s SIMILAR TO 'a%'",
        "SELECT id FROM a WHERE s LIKE 'a\\%'",
        "SELECT reverse(s), s || 'a' FROM a",
        // They may be such as no calendar has.
        "SELECT max(day), count(at) FROM a",
        "SELECT day, count(*) FROM a GROUP BY day",
        // It sorts by their beginning.
        "SELECT long_text, count(*) FROM a GROUP BY long_text",
        "SELECT count(DISTINCT long_text) FROM a",
        "SELECT id FROM a ORDER BY long_text, id LIMIT 3",
        "SELECT raw, count(*) FROM a GROUP BY raw",
        "SELECT sum(big) FROM a",
        "SELECT sum(u) FROM a",
        "SELECT max(u_id) FROM a",
        // What makes one value of a label and a UUID makes a UUID of the label.
        "SELECT id FROM a WHERE coalesce(e, u_id) IS NULL",
        "SELECT id, CASE WHEN id > 7 THEN s ELSE u_id END FROM a",
        // Its hash tables have no NULLs.
        "SELECT a.id FROM b LEFT JOIN a ON b.n IS NOT DISTINCT FROM a.n",
        // Nothing finds texts by their bytes, nor numbers without an index.
        "SELECT a.id FROM a JOIN b ON a.d = b.w",
        "SELECT a.id FROM a JOIN b ON a.s = b.t",
        "SELECT id FROM a WHERE s IN (SELECT odd FROM c)",
        "SELECT id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.a_id = a.id AND b.w > a.d)",
    ] {
        pushed.nothing(sql).await;
    }
}

/// Sums of more digits than a double has are rounded there as they are here.
#[tokio::test(flavor = "multi_thread")]
async fn means_of_large_whole_numbers_are_the_same_to_the_last_bit() {
    let tables = "
        CREATE TABLE wide (id bigint PRIMARY KEY, g int, any_size bigint, beyond bigint, near bigint, u bigint unsigned, KEY (g));
        INSERT INTO wide SELECT seq, seq % 700, CAST(CONV(SUBSTR(MD5(seq), 1, 16), 16, -10) AS SIGNED) DIV CAST(1 << (seq % 60) AS SIGNED), 9007199254740992 + IF(seq % 2 = 0, 1, -1) * CAST(seq AS SIGNED),
            IF(seq % 2 = 0, 9223372036854775807, -9223372036854775808), CAST(CONV(SUBSTR(MD5(seq), 1, 16), 16, 10) AS UNSIGNED) FROM seq_1_to_5000;
        INSERT INTO wide VALUES (0, NULL, 9007199254740993, 9007199254740993, 9223372036854775807, 18446744073709551615), (-1, NULL, 1, NULL, 9223372036854775807, 18446744073709551614),
            (-2, NULL, NULL, 1, 9223372036854775806, 9007199254740993);";
    let pushed = pushed("wide", tables).await;
    for sql in [
        "SELECT g, avg(any_size), avg(beyond), avg(near), avg(u) FROM wide GROUP BY g",
        "SELECT avg(any_size), avg(beyond), avg(near), avg(u), avg(DISTINCT any_size), avg(DISTINCT near), avg(DISTINCT u) FROM wide",
        "SELECT id, avg(any_size), avg(u) FROM wide GROUP BY id",
        "SELECT id, avg(any_size) OVER (ORDER BY id ROWS BETWEEN 3 PRECEDING AND 2 FOLLOWING), avg(near) OVER (ORDER BY id), avg(u) OVER (ORDER BY id) FROM wide",
    ] {
        pushed.whole(sql, &["0e0"]).await;
    }
}

/// A sort of the server's takes such texts for equal, and groups are made by sorting.
#[tokio::test(flavor = "multi_thread")]
async fn texts_that_end_in_nul_are_others() {
    let texts = "CREATE TABLE t (id int, s varchar(20), n int);
        INSERT INTO t SELECT seq, CONCAT(ELT(seq % 3 + 1, 'a', 'b', ''), REPEAT(CHAR(0), seq % 2)), seq % 7 FROM seq_1_to_200;";
    let pushed = pushed("nul", texts).await;
    for sql in [
        "SELECT s, count(*), count(DISTINCT n) FROM t GROUP BY s",
        "SELECT s, n, sum(DISTINCT id) FROM t GROUP BY n, s",
        "SELECT DISTINCT s FROM t",
        "SELECT count(DISTINCT s), min(s), max(s) FROM t",
        "SELECT n, count(DISTINCT s) FROM t GROUP BY n",
        "SELECT s, id FROM t ORDER BY s, id LIMIT 50",
        "SELECT s, id FROM t ORDER BY s DESC, id LIMIT 50",
        "SELECT s, count(*) FROM t GROUP BY s ORDER BY s DESC LIMIT 4",
    ] {
        pushed.whole(sql, &[]).await;
    }
}

/// The server sorts by the beginning of a text, however it came by the text.
#[tokio::test(flavor = "multi_thread")]
async fn long_constants_are_no_keys() {
    let pushed = pushed("constants", TABLES).await;
    let long = "x".repeat(1100);
    let text = format!("CASE WHEN n > 2 THEN '{long}a' ELSE '{long}b' END");
    for sql in [
        format!("SELECT {text} AS k, count(*) FROM a GROUP BY 1"),
        format!("SELECT count(DISTINCT {text}) FROM a"),
        format!("SELECT id FROM a ORDER BY {text} DESC, id LIMIT 50"),
    ] {
        pushed.same(&sql).await;
    }
}

/// A NULL is of the type of its column.
#[tokio::test(flavor = "multi_thread")]
async fn nulls_have_types() {
    let pushed = pushed("nulls", TABLES).await;
    for null in [
        "CAST(NULL AS BIGINT)",
        "CAST(NULL AS SMALLINT)",
        "CAST(NULL AS INT UNSIGNED)",
        "CAST(NULL AS BIGINT UNSIGNED)",
        "CAST(NULL AS DECIMAL(12, 2))",
        "CAST(NULL AS VARCHAR)",
        "CAST(NULL AS BYTEA)",
        "CAST(NULL AS BOOLEAN)",
    ] {
        for sql in [
            format!("SELECT n, max({null}) AS m FROM a GROUP BY n"),
            format!("SELECT n, count(*), {null} AS m FROM a GROUP BY n"),
        ] {
            let with = pushed.same(&sql).await;
            assert!(!with.statements.is_empty(), "{sql}");
        }
    }
}

/// Letters are not the same everywhere: the server leaves out most rows, and what stays is decided here.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_on_letters_leave_out_most_rows() {
    let pushed = pushed("letters", TABLES).await;
    for sql in [
        "SELECT id FROM a WHERE lower(s) = 'ab'",
        "SELECT id FROM a WHERE lower(s) = 'k'",
        "SELECT id FROM a WHERE upper(odd) <> 'ONE' AND id < 50",
        "SELECT id FROM a WHERE s ILIKE 'a%'",
        "SELECT id FROM a WHERE NOT (lower(s) = 'é')",
    ] {
        let with = pushed.same(sql).await;
        assert!(
            with.statements.concat().contains("OCTET_LENGTH"),
            "{:?}",
            with.statements
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_leave_their_range_are_errors() {
    let numbers = "CREATE TABLE t (n bigint, u bigint unsigned); INSERT INTO t VALUES (9223372036854775807, 18446744073709551615), (9223372036854775806, 1), (1, 0);";
    let pushed = pushed("ranges", numbers).await;
    for sql in [
        "SELECT sum(n) FROM t",
        "SELECT count(*) FROM (SELECT sum(n) AS s FROM t) AS x WHERE s > 5",
        "SELECT count(*) FROM t WHERE n + n > 0",
        "SELECT n * 3 FROM t",
        "SELECT max(-5 - n) FROM t",
    ] {
        let ran = pushed.run(sql, true).await;
        assert!(!ran.statements.is_empty(), "{sql}");
        assert_eq!(ran.rows.unwrap_err().kind, ErrorKind::OutOfRange, "{sql}");
    }
    pushed
        .whole("SELECT u, n, count(*) FROM t WHERE u >= 1 GROUP BY u, n", &["GROUP BY"])
        .await;
}

/// Names and constants stay what they are, whatever is in them.
#[tokio::test(flavor = "multi_thread")]
async fn names_and_constants_cannot_leave_their_quotes() {
    let names = "SET sql_mode = 'NO_BACKSLASH_ESCAPES'; CREATE TABLE `t`` AS (SELECT 1) -- x` (`c``; DROP TABLE x -- y` varchar(50), id int);
        INSERT INTO `t`` AS (SELECT 1) -- x` VALUES ('\\'' OR 1=1 --', 1), ('a''''b', 2), ('new\nline', 3), ('', 4), (NULL, 5);";
    let pushed = pushed("quoting", names).await;
    let column = "\"c`; DROP TABLE x -- y\"";
    let table = "\"t` AS (SELECT 1) -- x\"";
    for value in [
        "\\'' OR 1=1 --",
        "a''''b",
        "new\nline",
        "",
        "é''",
        "\\",
        "x\\''y",
        "a\0b",
        "%_",
    ] {
        let sql = format!(
            "SELECT {column}, count(*), max({column}) FROM {table} WHERE substr({column}, 1) = '{value}' OR {column} IN ('{value}', 'z') OR {column} LIKE '%{}%' GROUP BY {column}",
            value.replace('\\', "")
        );
        pushed.whole(&sql, &["GROUP BY"]).await;
    }
}

/// What one side of a join knows reaches the statement of the other side before it is read.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_joins_are_asked_for() {
    let pushed = pushed(
        "keys",
        "CREATE TABLE many (k bigint PRIMARY KEY, t varchar(20), n int); INSERT INTO many SELECT seq, concat('k', seq), seq % 10 FROM seq_1_to_50000;",
    )
    .await;
    let values = "SELECT * FROM (VALUES (7, 'k7'), (8, NULL), (60000, 'k9'), (NULL, 'k10')) AS v(k, t)";
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
            "SELECT x.c FROM here JOIN (SELECT t, count(*) AS c FROM many GROUP BY t) AS x ON here.t = x.t",
            3,
        ),
    ] {
        let with = pushed.same(sql).await;
        assert!(with.sent <= at_most, "{sql} has {} rows sent", with.sent);
    }
}

/// A statement that computes for long without a row ends when nobody waits for it any more.
#[tokio::test(flavor = "multi_thread")]
async fn leaving_early_stops_what_is_computed() {
    let place = shared().database(
        "pushed_leaving",
        "CREATE TABLE t (g bigint, n bigint, KEY (g)); INSERT INTO t SELECT 1, seq FROM seq_1_to_20000;",
    );
    let pushed = Pushed::new(&place.depots, "db", &place.name).await;
    let sql = "SELECT count(*), sum(x.n) FROM t AS x JOIN t AS y ON x.g = y.g JOIN t AS z ON y.g = z.g";
    let plan = pushed.plan(sql, true).await;
    let mut stream = execute_stream(plan, pushed.context.task_ctx()).unwrap();
    let nothing = tokio::time::timeout(Duration::from_millis(300), stream.next()).await;
    assert!(nothing.is_err(), "it was to take longer");
    let running = "SELECT count(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE '%pushed\\_leaving%JOIN%' AND INFO NOT LIKE '%PROCESSLIST%'";
    place.until(running).await;
    drop(stream);
    place.until(&format!("SELECT ({running}) = 0")).await;
}

/// The server would lose all rows of a join that it makes by hashing where another index filters them.
#[tokio::test(flavor = "multi_thread")]
async fn joins_keep_their_rows_where_two_indexes_find_them() {
    let tables = "CREATE TABLE lots (k bigint, price int, KEY (k), KEY (price)); INSERT INTO lots SELECT seq % 9, IF(seq % 5 = 0, NULL, seq) FROM seq_1_to_45;
        CREATE TABLE many (k bigint, price int, KEY (k), KEY (price)); INSERT INTO many SELECT seq % 9, IF(seq % 5 = 0, NULL, seq) FROM seq_1_to_300;
        CREATE TABLE few (id bigint NOT NULL, KEY (id)); INSERT INTO few SELECT seq FROM seq_1_to_15;";
    let pushed = pushed("rowids", tables).await;
    for sql in [
        "SELECT count(*) FROM lots JOIN few ON lots.k = few.id WHERE lots.price IS NOT NULL",
        "SELECT count(*), min(k) FROM many JOIN few ON many.k = few.id WHERE many.price > 200",
    ] {
        pushed.whole(sql, &["JOIN"]).await;
    }
}

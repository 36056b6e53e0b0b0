//! What is not allowed, not there or not possible, in typed errors that say so.

use minerva_connectors::ErrorKind;

use crate::server::{PASSWORD, Place, context, row_count, shared};

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_let_in_is_told_why_and_no_password() {
    let server = shared();
    for (user, password, kind, words) in [
        (
            "reader",
            "wrong",
            ErrorKind::Refused,
            "refuses the user or the password",
        ),
        (
            "nobody",
            PASSWORD,
            ErrorKind::Refused,
            "refuses the user or the password",
        ),
        ("reader", "", ErrorKind::Refused, "refuses the user or the password"),
    ] {
        let depots = server.depots("127.0.0.1", "", "sslmode: disable", user, password);
        let error = depots.open("db").await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        let text = error.to_string();
        assert!(
            text.contains(words) && text.starts_with("depot `db`: `127.0.0.1:"),
            "{text}"
        );
        assert!(!text.contains(PASSWORD) && !text.contains("wrong"), "{text}");
        let shown = format!("{error:?} {depots:?}");
        assert!(!shown.contains(PASSWORD) && !shown.contains("wrong"), "{shown}");
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let settings = format!("host: 127.0.0.1, port: {nobody}, params: {{sslmode: disable}}");
    let error = crate::server::depots(&settings, "reader", PASSWORD)
        .open("db")
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    // Somebody who answers nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let settings = format!("host: 127.0.0.1, port: {port}, params: {{sslmode: disable, connect_timeout: 1}}");
    let error = crate::server::depots(&settings, "reader", PASSWORD)
        .open("db")
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    assert!(error.to_string().contains("did not answer within 1 seconds"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_user_may_not_read_is_denied_and_not_listed() {
    let server = shared();
    server.sql(
        "mysql",
        "CREATE DATABASE rights; CREATE TABLE rights.open AS SELECT 1 AS id; CREATE TABLE rights.closed AS SELECT 1 AS id;
         CREATE TABLE rights.part AS SELECT 1 AS id, 2 AS secret; CREATE TABLE rights.written AS SELECT 1 AS id; CREATE VIEW rights.v AS SELECT * FROM rights.closed;
         GRANT SELECT ON rights.open TO reader@'%'; GRANT SELECT (id), INSERT (secret) ON rights.part TO reader@'%'; GRANT INSERT ON rights.written TO reader@'%';
         GRANT SELECT ON rights.v TO reader@'%'",
    );
    let place = Place {
        depots: server.depots("127.0.0.1", "", "sslmode: disable", "reader", PASSWORD),
        server,
        name: "rights".to_owned(),
    };
    assert_eq!(
        place.source().await.datasets("rights").await.unwrap(),
        ["open", "part", "v"]
    );
    assert!(
        place.find("rights", "closed").await.unwrap().is_none(),
        "the server does not even say that it is there"
    );
    let written = place.find("rights", "written").await.unwrap_err();
    assert_eq!(written.kind, ErrorKind::Denied, "{written}");
    assert!(
        written.to_string().starts_with("depot `db`: `rights.written`: "),
        "{written}"
    );
    // A view is read by the rights of its definer.
    assert_eq!(row_count(&place.rows("v").await.unwrap()), 1);

    // No column is left out silently.
    let part = place.failure("part").await;
    assert_eq!(part.kind, ErrorKind::Denied);
    assert!(part.to_string().contains("column `secret`"), "{part}");
    let frame = place.frame("part").await.select_columns(&["id"]).unwrap();
    assert_eq!(row_count(&frame.collect().await.unwrap()), 1);

    // Taken away between planning and reading.
    let planned = place.frame("open").await.create_physical_plan().await.unwrap();
    place.sql("REVOKE SELECT ON rights.open FROM reader@'%'; GRANT INSERT ON rights.open TO reader@'%'");
    let failure = datafusion::physical_plan::collect(planned, context(&place.depots).task_ctx())
        .await
        .unwrap_err();
    let error = minerva_connectors::Error::find(&failure).unwrap();
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
}

/// One that is broken is an error of its own, and its neighbours are read.
#[tokio::test(flavor = "multi_thread")]
async fn views_that_fail_say_so_themselves() {
    let place = shared().database(
        "failing",
        "CREATE TABLE base (id int, s varchar(9)); INSERT INTO base VALUES (1, 'secret');
         CREATE VIEW good AS SELECT id FROM base; CREATE TABLE gone (id int); CREATE VIEW broken AS SELECT id FROM gone; DROP TABLE gone;
         CREATE VIEW overflows AS SELECT 9223372036854775807 + id AS n FROM base;
         CREATE VIEW many AS SELECT (SELECT id FROM base UNION ALL SELECT 2) AS n;
         DELIMITER //
         CREATE FUNCTION shout() RETURNS int BEGIN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'a secret of the server'; RETURN 1; END //
         CREATE FUNCTION scribble() RETURNS int SQL SECURITY INVOKER BEGIN INSERT INTO base VALUES (2, 'x'); RETURN 1; END //
         DELIMITER ;
         GRANT EXECUTE, INSERT ON failing.* TO reader@'%';
         CREATE VIEW shouts AS SELECT shout() AS n; CREATE VIEW scribbles AS SELECT scribble() AS n;",
    );
    assert_eq!(row_count(&place.rows("good").await.unwrap()), 1);
    let broken = place.find("failing", "broken").await.unwrap_err();
    assert_eq!(broken.kind, ErrorKind::Corrupt);
    assert!(
        broken
            .to_string()
            .starts_with("depot `db`: `failing.broken`: the view refers to"),
        "{broken}"
    );
    for (table, kind) in [
        ("overflows", ErrorKind::OutOfRange),
        ("many", ErrorKind::BadValue),
        ("shouts", ErrorKind::BadValue),
    ] {
        let error = place.failure(table).await;
        assert_eq!(error.kind, kind, "{table}: {error}");
        assert!(
            error
                .to_string()
                .starts_with(&format!("depot `db`: `failing.{table}`: ")),
            "{error}"
        );
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    // Reading writes nothing, whatever a function would like: in a session that is read only the server does not even say what columns there are.
    let scribbles = place.find("failing", "scribbles").await.unwrap_err();
    assert_eq!(scribbles.kind, ErrorKind::Corrupt, "{scribbles}");
    assert!(scribbles.to_string().contains("or that write"), "{scribbles}");
    assert_eq!(place.sql("SELECT count(*) FROM base").trim(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_texts_are_values_and_nothing_else() {
    let place = shared().database(
        "hostile",
        "CREATE TABLE t (id int, s varchar(99)); INSERT INTO t VALUES (1, 'x')",
    );
    for text in [
        "'",
        "''",
        "\\",
        "\\'",
        "' OR '1'='1",
        "'; DROP TABLE t; --",
        "\0",
        "a\0' OR 1=1 -- ",
        "\"",
        "`",
        "%",
        "_",
        "é' OR 1=1 #",
        "/*",
        "--",
        "\u{bf}' OR 1=1 -- ",
        "\\' OR 1=1 -- ",
        "${x}",
        "?",
        ":a",
        "\u{1a}",
        "\r\n",
        "😀'",
    ] {
        use datafusion::logical_expr::lit;
        use datafusion::prelude::col;
        for filter in [
            col("s").eq(lit(text)),
            col("s").in_list(vec![lit(text), lit("y")], false),
            col("s").lt(lit(text)).and(col("s").gt(lit(text))),
        ] {
            let frame = place.frame("t").await.filter(filter.clone()).unwrap();
            assert_eq!(row_count(&frame.collect().await.unwrap()), 0, "{filter}");
        }
    }
    assert_eq!(place.sql("SELECT count(*) FROM t").trim(), "1");
}

/// A row that is too large to be streamed is refused and not kept in memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_too_large_is_refused() {
    let place = shared().database(
        "large",
        "CREATE TABLE t (id int, v longblob); INSERT INTO t VALUES (1, REPEAT('x', 100 << 20)); UPDATE t SET v = concat(v, v, v)",
    );
    let error = place.failure("t").await;
    assert_eq!(error.kind, ErrorKind::BadValue, "{error}");
    assert!(error.to_string().contains("more than 256 MiB"), "{error}");
    let frame = place.frame("t").await.select_columns(&["id"]).unwrap();
    assert_eq!(row_count(&frame.collect().await.unwrap()), 1);
    place.sql("DROP TABLE t");
}

/// Settings that make no sense are refused before anything is connected to.
#[test]
fn wrong_settings_are_found_offline() {
    let check = |settings: &str, expected: &str| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("db.yaml");
        let manifest = format!(
            "name: db\nversion: v1\ntype: depot\ndepot:\n  type: MYSQL\n  spec: {{{settings}}}\n  \
             connectionSecret: [{{acl: r, data: {{username: u, password: p}}}}]\n"
        );
        std::fs::write(&file, manifest).unwrap();
        let problems = match minerva_resources::load(&[file], &[minerva_connectors::check]) {
            Ok(_) => String::new(),
            Err(problems) => problems.to_string(),
        };
        assert!(
            problems.contains(expected) && problems.is_empty() == expected.is_empty(),
            "{settings}: {problems}"
        );
    };
    check("host: h", "");
    check("host: h, subprotocol: mysql, params: {tls: skip-verify}", "");
    check(
        "host: h, port: 3307, subprotocol: MariaDB, zeroDates: error, params: {sslmode: require, connect_timeout: 5}",
        "",
    );
    check("port: 3306", "the key `host` is missing");
    check("host: h, subprotocol: oracle", "`subprotocol`");
    check("host: h, zeroDates: zero", "`zeroDates`");
    check("host: h, zeroDates: as-null", "");
    check("host: h, port: 70000", "expected a number from 1 to 65535");
    check("host: h, maxConnections: 2", "expected a number from 3 to 1000");
    check("host: h, params: {sslmode: prefer}", "nothing falls back");
    check("host: h, params: {tls: preferred}", "nothing falls back");
    check(
        "host: h, params: {tls: maybe}",
        "expected `true`, `skip-verify` or `false`",
    );
    check(
        "host: h, params: {tls: skip-verify, sslmode: require}",
        "say one of them",
    );
    check("host: h, params: {sslmod: require}", "did you mean `sslmode`?");
    check("host: h, params: {connect_timeout: 0}", "expected seconds");
    check("host: h, password: x", "is a credential and does not belong here");
    check("host: h, database: d", "unknown key `database`");
}

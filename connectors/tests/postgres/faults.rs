//! What goes wrong: each one error that names depot and object, no hang, and never a short or a made-up answer.

use std::sync::Arc;
use std::time::Duration;

use datafusion::physical_plan::{ExecutionPlan, collect, execute_stream};
use futures::{StreamExt, TryStreamExt};
use minerva_connectors::{DepotState, Error, ErrorKind};

use crate::server::{PASSWORD, Place, Server, context, depots, row_count, shared};

async fn plan(place: &Place, table: &str) -> Arc<dyn ExecutionPlan> {
    place.frame(table).await.create_physical_plan().await.unwrap()
}

async fn failure_of(place: &Place, plan: Arc<dyn ExecutionPlan>) -> Error {
    let failure = collect(plan, context(&place.depots).task_ctx()).await.unwrap_err();
    Error::find(&failure).unwrap_or_else(|| panic!("{failure}")).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_connected_to_is_said_and_no_credential_is() {
    let server = shared();
    let _place = server.database("connect", "").await;
    let at = |host: &str, port: u16, database: &str, timeout: u32| {
        format!(
            "host: {host}, port: {port}, database: {database}, params: {{sslmode: disable, connect_timeout: {timeout}}}"
        )
    };
    let open = async |settings: String, user: &str, password: &str| {
        let depots = depots(&settings, user, password);
        let error = depots.open("db").await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains(password), "{text}");
        assert!(text.starts_with("depot `db`: `"), "{text}");
        error
    };
    let wrong = open(at("127.0.0.1", server.port, "connect", 10), "reader", "wrong-word").await;
    assert_eq!(wrong.kind, ErrorKind::Refused, "{wrong}");
    let unknown = open(at("127.0.0.1", server.port, "connect", 10), "nobody", "wrong-word").await;
    assert_eq!(unknown.kind, ErrorKind::Refused, "{unknown}");
    let missing = open(at("127.0.0.1", server.port, "gone", 10), "reader", PASSWORD).await;
    assert_eq!(missing.kind, ErrorKind::NotFound, "{missing}");
    assert!(missing.to_string().contains("`gone`"), "{missing}");

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = open(at("127.0.0.1", port, "d", 1), "reader", PASSWORD).await;
    assert_eq!(silent.kind, ErrorKind::Unreachable, "{silent}");
    assert!(silent.to_string().contains("within 1 seconds"), "{silent}");
    drop(listener);
    let refused = open(at("127.0.0.1", port, "d", 10), "reader", PASSWORD).await;
    assert_eq!(refused.kind, ErrorKind::Unreachable, "{refused}");
    assert!(
        refused.to_string().contains(&format!("`127.0.0.1:{port}`")),
        "{refused}"
    );
    let nowhere = open(at("no-such-host.invalid", 5432, "d", 10), "reader", PASSWORD).await;
    assert_eq!(nowhere.kind, ErrorKind::Unreachable, "{nowhere}");
}

/// A server that is none, or that is cut off in the middle of its first words.
#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_speak_postgresql_is_said() {
    for answer in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"",
        b"R\0\0\0",
        b"E\xff\xff\xff\xff",
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 8];
            socket.read_exact(&mut request).await.unwrap();
            socket.write_all(answer).await.unwrap();
        });
        let settings =
            format!("host: 127.0.0.1, port: {port}, database: d, params: {{sslmode: disable, connect_timeout: 3}}");
        let error = depots(&settings, "u", "p").open("db").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unreachable, "{answer:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_read_is_not_listed_and_is_denied() {
    let place = shared()
        .database(
            "denied",
            "CREATE TABLE open (id int4, secret int4); INSERT INTO open VALUES (1, 2);
             CREATE TABLE part (id int4, secret int4); INSERT INTO part VALUES (1, 2);
             CREATE TABLE closed (id int4);",
        )
        .await;
    place
        .admin
        .batch_execute("REVOKE ALL ON closed, part FROM reader; GRANT SELECT (id) ON part TO reader")
        .await
        .unwrap();
    assert_eq!(place.source().await.datasets("public").await.unwrap(), ["open", "part"]);
    let closed = place.find("public", "closed").await.unwrap_err();
    assert_eq!(closed.kind, ErrorKind::Denied);
    assert!(
        closed.to_string().starts_with("depot `db`: `public.closed`: "),
        "{closed}"
    );

    // No column is left out silently.
    let part = place.failure("part").await;
    assert_eq!(part.kind, ErrorKind::Denied);
    assert!(part.to_string().contains("column `secret`"), "{part}");
    let frame = place.frame("part").await.select_columns(&["id"]).unwrap();
    assert_eq!(row_count(&frame.collect().await.unwrap()), 1);

    // Taken away between planning and reading.
    let planned = plan(&place, "open").await;
    place
        .admin
        .batch_execute("REVOKE ALL ON open FROM reader")
        .await
        .unwrap();
    assert_eq!(failure_of(&place, planned).await.kind, ErrorKind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_altered_since_it_was_planned_is_read_as_planned_or_not_at_all() {
    let place = shared()
        .database(
            "altered",
            "CREATE TABLE t (id int8, name text); INSERT INTO t VALUES (1, 'a')",
        )
        .await;
    let alter = async |statements: &str| place.admin.batch_execute(statements).await.unwrap();
    // Eight bytes either way: without a look at the types this would be read as a number that nobody stored.
    for change in [
        "ALTER TABLE t ALTER id TYPE float8",
        "ALTER TABLE t ALTER id TYPE timestamp USING 'now'",
        "ALTER TABLE t RENAME id TO other",
        "ALTER TABLE t DROP id",
        "DROP TABLE t",
    ] {
        alter("DROP TABLE IF EXISTS t; CREATE TABLE t (id int8, name text); INSERT INTO t VALUES (1, 'a')").await;
        alter("GRANT SELECT ON t TO reader").await;
        let planned = plan(&place, "t").await;
        assert_eq!(row_count(&place.rows("t").await.unwrap()), 1);
        alter(change).await;
        let error = failure_of(&place, planned).await;
        assert_eq!(error.kind, ErrorKind::Changed, "{change}: {error}");
        assert!(error.to_string().starts_with("depot `db`: `public.t`: "), "{error}");
    }
    // What does not touch the columns that were planned does not matter.
    alter("CREATE TABLE t (id int8, name text); INSERT INTO t VALUES (1, 'a'); GRANT SELECT ON t TO reader").await;
    let planned = plan(&place, "t").await;
    alter("ALTER TABLE t ADD more int4 DEFAULT 5").await;
    let rows = collect(planned, context(&place.depots).task_ctx()).await.unwrap();
    assert_eq!((row_count(&rows), rows[0].num_columns()), (1, 2));
    // An enumeration that became a text is still what was planned.
    alter("CREATE TYPE e AS ENUM ('x'); CREATE TABLE u (v e); INSERT INTO u VALUES ('x'); GRANT SELECT ON u TO reader")
        .await;
    let planned = plan(&place, "u").await;
    alter("ALTER TABLE u ALTER v TYPE text").await;
    assert_eq!(
        row_count(&collect(planned, context(&place.depots).task_ctx()).await.unwrap()),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_does_not_fit_is_named_by_place_and_not_shown() {
    let place = shared()
        .database(
            "values",
            "CREATE TABLE free (id int4, n numeric); INSERT INTO free VALUES (1, 1.5), (2, 123.45678901234);
             CREATE TABLE nan (n numeric(10, 2)); INSERT INTO nan VALUES ('NaN');
             CREATE TABLE inf (n numeric); INSERT INTO inf VALUES ('-Infinity');
             CREATE TABLE huge (n numeric(60, 2)); INSERT INTO huge VALUES (1e50);
             CREATE TABLE days (d date); INSERT INTO days VALUES ('2024-01-01'), ('infinity');
             CREATE TABLE moments (t timestamptz); INSERT INTO moments VALUES ('-infinity');
             CREATE TABLE late (t timestamp); INSERT INTO late VALUES ('294276-12-31 23:59:59');
             CREATE TABLE midnight (t time); INSERT INTO midnight VALUES ('24:00');
             CREATE TABLE long (i interval); INSERT INTO long VALUES ('9000000000 seconds'), ('2562048 hours');
             CREATE TABLE grid (a int4[]); INSERT INTO grid VALUES ('{{1,2},{3,4}}');
             CREATE TABLE nans (a numeric[]); INSERT INTO nans VALUES ('{1,NaN}');
             CREATE TABLE broken (s text); INSERT INTO broken VALUES ('1'), ('secret');
             CREATE VIEW casts AS SELECT s::int4 AS n FROM broken;
             CREATE VIEW divides AS SELECT 1 / (n - n) AS n FROM nans, LATERAL (SELECT 1 AS n) AS x;",
        )
        .await;
    let error = place.failure("free").await;
    assert_eq!(error.kind, ErrorKind::BadValue);
    assert_eq!(
        error.to_string(),
        "depot `db`: `public.free`: column `n` holds a number with more digits in row 2 of the rows read, where a number \
         of at most 38 digits with at most 10 after the point is expected; correct the value, or read the table through a \
         view of the database that casts it"
    );
    for (table, words) in [
        ("nan", "column `n` holds NaN in row 1"),
        ("inf", "column `n` holds an infinite value in row 1"),
        ("huge", "column `n` holds a number with more digits in row 1"),
        ("days", "column `d` holds an infinite value in row 2"),
        ("moments", "column `t` holds an infinite value in row 1"),
        ("late", "column `t` holds a value out of range in row 1"),
        ("midnight", "column `t` holds a value out of range in row 1"),
        ("long", "column `i` holds a value out of range in row 2"),
        ("grid", "column `a` holds an array of more than one dimension in row 1"),
        ("nans", "column `a` holds NaN in row 1"),
        ("casts", "PostgreSQL fails to compute a value of it"),
        ("divides", "PostgreSQL fails to compute a value of it"),
    ] {
        let error = place.failure(table).await;
        assert_eq!(error.kind, ErrorKind::BadValue, "{table}: {error}");
        assert!(error.to_string().contains(words), "{table}: {error}");
        assert!(error.to_string().contains(&format!("`public.{table}`")), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    // The row is counted over all batches, and a setting makes room.
    let wide = depots(
        &format!(
            "host: 127.0.0.1, port: {}, database: values, decimals: 11, params: {{sslmode: disable}}",
            shared().port
        ),
        "reader",
        PASSWORD,
    );
    let wide = Place {
        depots: wide,
        admin: shared().admin("values").await,
    };
    assert_eq!(row_count(&wide.rows("free").await.unwrap()), 2);
    place
        .admin
        .batch_execute(
            "INSERT INTO nan SELECT 1 FROM generate_series(1, 20000); DELETE FROM nan WHERE n = 'NaN'; \
             INSERT INTO nan VALUES ('NaN')",
        )
        .await
        .unwrap();
    let error = place.failure("nan").await;
    assert!(error.to_string().contains("in row 20001 of the rows read"), "{error}");
}

const ENDLESS: &str = "CREATE VIEW endless AS SELECT generate_series(1, 2000000000) AS id, repeat('x', 1000) AS s;
     CREATE VIEW never AS SELECT 1 AS id FROM pg_sleep(1000);";

fn running(database: &str) -> String {
    format!(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = '{database}' AND usename = 'reader' \
         AND state = 'active' AND query LIKE 'COPY%'"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_early_cancels_the_statement() {
    let place = shared().database("leaving", ENDLESS).await;
    let session = context(&place.depots);
    for table in ["endless", "never"] {
        let mut stream = execute_stream(plan(&place, table).await, session.task_ctx()).unwrap();
        if table == "endless" {
            assert!(stream.next().await.unwrap().unwrap().num_rows() > 0);
        } else {
            let nothing = tokio::time::timeout(Duration::from_millis(100), stream.next()).await;
            assert!(nothing.is_err());
        }
        place.until(&running("leaving")).await;
        drop(stream);
        place.until(&format!("SELECT NOT ({})", running("leaving"))).await;
    }
    let few = place.frame("endless").await.limit(0, Some(5)).unwrap();
    assert_eq!(row_count(&few.collect().await.unwrap()), 5);
    place.until(&format!("SELECT NOT ({})", running("leaving"))).await;
}

/// Whoever stops reading keeps the server waiting, and the memory small.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_the_server_back() {
    let place = shared()
        .database(
            "slow",
            "CREATE VIEW big AS SELECT generate_series(1, 1000) AS id, repeat('x', 1000000) AS s",
        )
        .await;
    let session = context(&place.depots);
    let mut stream = execute_stream(plan(&place, "big").await, session.task_ctx()).unwrap();
    let first = stream.next().await.unwrap().unwrap();
    assert!(first.num_rows() < 20, "{}", first.num_rows());
    place
        .until(
            "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = 'slow' AND usename = 'reader' \
             AND wait_event = 'ClientWrite'",
        )
        .await;
    let mut rows = first.num_rows();
    drop(first);
    let before = resident();
    while let Some(batch) = stream.next().await {
        rows += batch.unwrap().num_rows();
    }
    assert_eq!(rows, 1000);
    let grown = resident().saturating_sub(before);
    assert!(grown < 200 << 20, "{grown} bytes more for a table of a gigabyte");
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lost_in_the_middle_is_an_error_and_not_the_end() {
    let place = shared().database("lost", ENDLESS).await;
    for (action, kind) in [
        ("pg_terminate_backend", ErrorKind::Unreachable),
        ("pg_cancel_backend", ErrorKind::Busy),
    ] {
        let session = context(&place.depots);
        let mut stream = execute_stream(plan(&place, "endless").await, session.task_ctx()).unwrap();
        assert!(stream.next().await.unwrap().unwrap().num_rows() > 0);
        let end = format!(
            "SELECT {action}(pid) FROM pg_stat_activity WHERE datname = 'lost' AND usename = 'reader' AND query LIKE 'COPY%'"
        );
        assert!(place.ask::<bool>(&end).await);
        let error = loop {
            match stream.next().await {
                Some(Ok(_)) => {}
                Some(Err(failure)) => break Error::find(&failure).unwrap().clone(),
                None => panic!("a short answer"),
            }
        };
        assert_eq!(error.kind, kind, "{error}");
        assert_eq!(place.depots.health("db").unwrap().state, DepotState::Degraded);
        assert!(
            error.to_string().starts_with("depot `db`: `public.endless`: "),
            "{error}"
        );
        assert!(error.to_string().ends_with("rows"), "{error}");
    }
    assert_eq!(
        row_count(
            &place
                .frame("endless")
                .await
                .limit(0, Some(5))
                .unwrap()
                .collect()
                .await
                .unwrap()
        ),
        5
    );
}

/// Who terminates a statement wants it to end, not to begin again.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_is_terminated_does_not_begin_again() {
    let slow = "CREATE VIEW slow AS SELECT i AS id FROM generate_series(1, 3) AS i, pg_sleep(60) AS nothing";
    let place = shared().database("terminated", slow).await;
    let plan = plan(&place, "slow").await;
    let session = context(&place.depots);
    let reading = tokio::spawn(async move { collect(plan, session.task_ctx()).await });
    let running = "FROM pg_stat_activity WHERE datname = 'terminated' AND usename = 'reader' AND query LIKE 'COPY%' AND wait_event = 'PgSleep'";
    place.until(&format!("SELECT count(*) = 1 {running}")).await;
    assert!(
        place
            .ask::<bool>(&format!("SELECT pg_terminate_backend(pid) {running}"))
            .await
    );
    let ended = tokio::time::timeout(Duration::from_secs(20), reading).await;
    let failure = ended.expect("it began again").unwrap().unwrap_err();
    let error = Error::find(&failure).unwrap();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    assert!(error.to_string().contains("57P01"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_connections_are_replaced_before_anything_was_read() {
    let mut server = Server::start();
    let place = server
        .database("restart", "CREATE TABLE t AS SELECT generate_series(1, 10) AS id")
        .await;
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'reader'";
    let planned = plan(&place, "t").await;
    futures::future::join_all((0..4).map(|_| place.rows("t"))).await;
    assert!(place.ask::<i64>(kill).await > 0);
    assert_eq!(row_count(&place.rows("t").await.unwrap()), 10);
    assert!(place.ask::<i64>(kill).await > 0);
    let session = context(&place.depots);
    assert_eq!(
        row_count(&collect(Arc::clone(&planned), session.task_ctx()).await.unwrap()),
        10
    );

    server.restart();
    assert_eq!(row_count(&collect(planned, session.task_ctx()).await.unwrap()), 10);
    assert_eq!(row_count(&place.rows("t").await.unwrap()), 10);

    server.stop();
    let error = place.find("public", "t").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    assert_eq!(place.depots.health("db").unwrap().state, DepotState::Unreachable);
}

/// Who has a right to a connection that the server refuses takes one that another reader has kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_a_full_server_takes_what_another_one_has_kept() {
    let server = Server::start();
    let place = server
        .database(
            "narrow",
            "CREATE VIEW large AS SELECT i AS id, repeat('x', 1000) AS s FROM generate_series(1, 50000) i",
        )
        .await;
    let limit = "ALTER ROLE reader CONNECTION LIMIT 2";
    place.admin.batch_execute(limit).await.unwrap();
    let planned = plan(&place, "large").await;
    let session = context(&place.depots);
    let read = || execute_stream(Arc::clone(&planned), session.task_ctx()).unwrap();
    let mut first = [read(), read()];
    let mut rows = 0;
    for stream in &mut first {
        rows += stream.next().await.unwrap().unwrap().num_rows();
    }
    let mut third = read();
    let nothing = tokio::time::timeout(Duration::from_millis(500), third.next()).await;
    assert!(nothing.is_err(), "the role has two connections");
    let last = tokio::spawn(third.try_collect::<Vec<_>>());
    for stream in first {
        rows += row_count(&stream.try_collect::<Vec<_>>().await.unwrap());
    }
    assert_eq!(rows, 100_000);
    assert_eq!(row_count(&last.await.unwrap().unwrap()), 50_000);
}

/// A role with one connection asks and reads over it, and is not refused another one for each statement.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_have_one_connection_is_seldom_refused_another() {
    let server = Server::start();
    let place = server
        .database("single", "CREATE TABLE t AS SELECT generate_series(1, 10) AS id")
        .await;
    let limit = "ALTER ROLE reader CONNECTION LIMIT 1";
    place.admin.batch_execute(limit).await.unwrap();
    let refusals = || server.log().matches("too many connections for role").count();
    assert_eq!(row_count(&place.rows("t").await.unwrap()), 10);
    let before = refusals();
    assert!(before > 0, "else this test shows nothing");
    for _ in 0..10 {
        assert_eq!(row_count(&place.rows("t").await.unwrap()), 10);
    }
    assert_eq!(refusals(), before);
}

/// A table that somebody has locked is waited for, and leaving does not leave the wait behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_waited_for_and_left() {
    let place = shared().database("locked", "CREATE TABLE t AS SELECT 1 AS id").await;
    let planned = plan(&place, "t").await;
    place
        .admin
        .batch_execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let session = context(&place.depots);
    let mut stream = execute_stream(Arc::clone(&planned), session.task_ctx()).unwrap();
    let waiting = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 't'::regclass";
    let nothing = tokio::time::timeout(Duration::from_millis(100), stream.next()).await;
    assert!(nothing.is_err());
    place.until(waiting).await;
    drop(stream);
    place.until(&format!("SELECT NOT ({waiting})")).await;
    let reading = tokio::spawn(collect(planned, session.task_ctx()));
    place.until(waiting).await;
    place.admin.batch_execute("COMMIT").await.unwrap();
    assert_eq!(row_count(&reading.await.unwrap().unwrap()), 1);
}

/// Settings that make no sense are refused before anything is connected to.
#[test]
fn wrong_settings_are_found_offline() {
    let check = |settings: &str, expected: &str| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("db.yaml");
        let manifest = format!(
            "name: db\nversion: v1\ntype: depot\ndepot:\n  type: POSTGRESQL\n  spec: {{{settings}}}\n  \
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
    check("host: h, database: d", "");
    check(
        "host: h, port: 5433, database: d, params: {sslmode: require, connect_timeout: 5}",
        "",
    );
    check("host: h", "the key `database` is missing");
    check("host: h, database: d, port: 70000", "expected a number from 1 to 65535");
    check("host: h, database: d, decimals: 39", "expected a number from 0 to 38");
    check("host: h, database: d, params: {sslmode: prefer}", "nothing falls back");
    check(
        "host: h, database: d, params: {sslmode: verify}",
        "`sslmode` is `verify`",
    );
    check(
        "host: h, database: d, params: {sslmod: require}",
        "did you mean `sslmode`?",
    );
    check("host: h, database: d, params: {connect_timeout: 0}", "expected seconds");
    check("host: h, database: d, params: require", "expected a map of texts");
    check(
        "host: h, database: d, password: x",
        "is a credential and does not belong here",
    );
}

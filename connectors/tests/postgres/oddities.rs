//! Tables, values, roles and limits of a server that are allowed and yet unusual: each is read as it is, or is an error that names what it is about.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::ident;
use futures::StreamExt;
use minerva_connectors::conformance::stream_of;
use minerva_connectors::{Error, ErrorKind};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::server::{PASSWORD, Place, context, depots, depots_with, quoted, row_count, shared};

fn text(batches: &[arrow::array::RecordBatch], column: &str) -> String {
    let batch = batches.iter().find(|batch| batch.num_rows() > 0).unwrap();
    let column = batch.column_by_name(column).unwrap();
    column.as_string_view().value(0).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_columns_as_there_can_be() {
    let columns: Vec<String> = (1..=1600).map(|at| format!("\"column {at}\" int4")).collect();
    let values: Vec<String> = (1..=1600).map(|at| at.to_string()).collect();
    let statements = format!(
        "CREATE TABLE wide ({}); INSERT INTO wide VALUES ({}); INSERT INTO wide DEFAULT VALUES",
        columns.join(", "),
        values.join(", ")
    );
    let place = shared().database("wide", &statements).await;
    let batches = place.rows("wide").await.unwrap();
    assert_eq!((row_count(&batches), batches[0].num_columns()), (2, 1600));
    for at in [0, 799, 1599] {
        let column = batches[0].column(at).as_primitive::<Int32Type>();
        assert_eq!((column.value(0), column.is_valid(1)), (at as i32 + 1, false));
    }
    let last = place.frame("wide").await.select(vec![ident("column 1600")]).unwrap();
    assert_eq!(row_count(&last.collect().await.unwrap()), 2);
    let session = context(&place.depots).state();
    let listed = place
        .source()
        .await
        .columns("public", &["wide".to_owned()], &session)
        .await
        .unwrap();
    assert_eq!(listed[0].as_ref().unwrap().as_ref().unwrap().fields().len(), 1600);
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// A value that is longer than what is read of a row is refused with the limit, and leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_hundreds_of_megabytes_is_refused() {
    let place = shared()
        .database(
            "long",
            "CREATE VIEW long AS SELECT 7 AS id, repeat('x', 1000) AS little, repeat('y', 300000000) AS much;
             CREATE VIEW fits AS SELECT 7 AS id, repeat('y', 100000000) AS much",
        )
        .await;
    let before = resident();
    let error = place.failure("long").await;
    assert_eq!(error.kind, ErrorKind::BadValue, "{error}");
    for part in ["depot `db`: `public.long`: row 1 ", "256 MiB", "column `much`"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let kept = resident().saturating_sub(before);
    assert!(kept < 400 << 20, "{kept} bytes are kept");
    let few = place.frame("long").await.select_columns(&["id", "little"]).unwrap();
    assert_eq!(row_count(&few.collect().await.unwrap()), 1);
    let batches = place.rows("fits").await.unwrap();
    assert_eq!(text(&batches, "much").len(), 100_000_000);
}

/// Reserved words, quotes, letters of all sorts, and as many bytes as a name can have.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_every_sort() {
    let names = [
        "select",
        "table",
        "user",
        "order",
        "ctid?",
        "a\"b",
        "it's",
        "back\\slash",
        "%s$1?",
        "tab\tnew\nline",
        "ünïcödé",
        "名前",
        " ",
        "--",
        "/*",
    ];
    let long: String = "é".repeat(31) + "x";
    assert_eq!(long.len(), 63);
    let names: Vec<&str> = names.into_iter().chain([long.as_str()]).collect();
    let columns: Vec<String> = names.iter().map(|name| format!("{} int4", quoted(name))).collect();
    let values: Vec<String> = (0..names.len()).map(|at| at.to_string()).collect();
    let tables = names.iter().map(|name| {
        format!(
            "CREATE TABLE {0} ({1}); INSERT INTO {0} VALUES ({2});",
            quoted(name),
            columns.join(", "),
            values.join(", ")
        )
    });
    let place = shared().database("named", &tables.collect::<String>()).await;
    let mut sorted: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    sorted.sort();
    assert_eq!(place.source().await.datasets("public").await.unwrap(), sorted);
    for table in &names {
        for (at, column) in names.iter().enumerate() {
            let frame = place.frame(table).await;
            let wanted = ident(*column).eq(datafusion::prelude::lit(at as i32));
            let frame = frame.filter(wanted).unwrap().select(vec![ident(*column)]).unwrap();
            let batches = frame.collect().await.unwrap();
            assert_eq!(row_count(&batches), 1, "{table:?} {column:?}");
            assert_eq!(batches[0].schema().field(0).name(), column);
        }
    }
    // What cuts a longer name finds a table that nobody asked for.
    assert!(place.find("public", &format!("{long}yz")).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_columns_are_read_and_not_written() {
    let place = shared()
        .database(
            "generated",
            "CREATE TABLE g (id int4 GENERATED ALWAYS AS IDENTITY, a int4, twice int4 GENERATED ALWAYS AS (a * 2) STORED);
             INSERT INTO g (a) VALUES (21); GRANT ALL ON g TO reader",
        )
        .await;
    let batches = place.rows("g").await.unwrap();
    assert_eq!(batches[0].column(2).as_primitive::<Int32Type>().value(0), 42);
    let source = place.source().await;
    for column in ["twice", "a"] {
        let schema = Arc::new(Schema::new(vec![Field::new(column, DataType::Int32, true)]));
        let one: Arc<dyn Array> = Arc::new(arrow::array::Int32Array::from(vec![1]));
        let rows = arrow::array::RecordBatch::try_new(Arc::clone(&schema), vec![one]).unwrap();
        let written = source
            .writer()
            .unwrap()
            .append("public", "g", stream_of(&schema, vec![rows]))
            .await;
        if column == "a" {
            assert_eq!(written.unwrap(), 1);
            continue;
        }
        let failure = written.unwrap_err();
        let error = Error::find(&failure).unwrap();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().starts_with("depot `db`: `public.g`: "), "{error}");
    }
    assert_eq!(place.ask::<i64>("SELECT sum(twice) FROM g").await, 44);
}

/// What a role may not do, and what a view does, is said of the table.
#[tokio::test(flavor = "multi_thread")]
async fn roles_and_views_that_refuse() {
    let place = shared()
        .database(
            "refusing",
            "CREATE TABLE t (id int4, secret int4); INSERT INTO t VALUES (1, 2); CREATE TABLE log (id int4);
             CREATE FUNCTION note() RETURNS int4 LANGUAGE sql VOLATILE SECURITY DEFINER AS 'INSERT INTO log VALUES (1) RETURNING id';
             CREATE VIEW notes AS SELECT note() AS id; CREATE VIEW broken AS SELECT 1 / (id - 1) AS id FROM t;
             CREATE VIEW foreign_owner AS SELECT secret FROM t; GRANT ALL ON SCHEMA public TO reader;
             CREATE FUNCTION refuse() RETURNS int4 LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hidden words'; END $$;
             CREATE VIEW refuses AS SELECT refuse() AS id;",
        )
        .await;
    place
        .admin
        .batch_execute("ALTER ROLE reader IN DATABASE refusing SET default_transaction_read_only = on; GRANT INSERT ON t TO reader")
        .await
        .unwrap();
    for (view, kind) in [
        ("notes", ErrorKind::Unsupported),
        ("broken", ErrorKind::BadValue),
        ("refuses", ErrorKind::BadValue),
    ] {
        let error = place.failure(view).await;
        assert_eq!(error.kind, kind, "{view}: {error}");
        assert!(
            error.to_string().starts_with(&format!("depot `db`: `public.{view}`: ")),
            "{error}"
        );
        assert!(!error.to_string().contains("hidden words"), "{error}");
    }
    assert_eq!(place.ask::<i64>("SELECT count(*) FROM log").await, 0);
    // Its default is for those who say nothing.
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int32, true)]));
    let one: Arc<dyn Array> = Arc::new(arrow::array::Int32Array::from(vec![5]));
    let rows = arrow::array::RecordBatch::try_new(Arc::clone(&schema), vec![one]).unwrap();
    let source = place.source().await;
    let written = source
        .writer()
        .unwrap()
        .append("public", "t", stream_of(&schema, vec![rows]))
        .await;
    assert_eq!(written.unwrap(), 1);
    place
        .admin
        .batch_execute("REVOKE ALL ON t FROM reader; GRANT SELECT (id) ON t TO reader")
        .await
        .unwrap();
    let error = place.failure("t").await;
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    assert!(
        error.to_string().starts_with("depot `db`: `public.t`: ") && error.to_string().contains("column `secret`"),
        "{error}"
    );
}

/// The depot's limit is the server's too, unless the server has a shorter one of its own.
#[tokio::test(flavor = "multi_thread")]
async fn limits_of_time_hold_in_the_server() {
    let server = shared();
    let place = server
        .database(
            "limited",
            "CREATE VIEW shown AS SELECT current_setting('statement_timeout') AS t, current_setting('client_connection_check_interval') AS c;
             CREATE VIEW never AS SELECT 1 AS id FROM pg_sleep(1000)",
        )
        .await;
    let settings = format!(
        "host: 127.0.0.1, port: {}, database: limited, params: {{sslmode: disable}}",
        server.port
    );
    let with = async |lines: &str| Place {
        depots: depots_with(&settings, "reader", PASSWORD, lines),
        admin: server.admin("limited").await,
    };
    let shown = place.rows("shown").await.unwrap();
    assert_eq!(
        (text(&shown, "t"), text(&shown, "c")),
        ("0".to_owned(), "5s".to_owned())
    );
    let limited = with("  timeouts: {query: 2s}\n").await;
    assert_eq!(text(&limited.rows("shown").await.unwrap(), "t"), "3s");
    place
        .admin
        .batch_execute("ALTER ROLE reader IN DATABASE limited SET statement_timeout = '400ms'")
        .await
        .unwrap();
    let begun = Instant::now();
    for lines in ["", "  timeouts: {query: 30s}\n"] {
        let slow = with(lines).await;
        assert_eq!(text(&slow.rows("shown").await.unwrap(), "t"), "400ms");
        let error = slow.failure("never").await;
        assert_eq!(error.kind, ErrorKind::Busy, "{error}");
        assert!(error.to_string().starts_with("depot `db`: `public.never`: "), "{error}");
        assert!(error.to_string().contains("`statement_timeout`"), "{error}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// Who dies cannot tell the server to stop; it looks by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_stops_computing_for_who_is_gone() {
    let server = shared();
    let place = server
        .database("orphaned", "CREATE VIEW never AS SELECT 1 AS id FROM pg_sleep(1000)")
        .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (between, port) = (listener.local_addr().unwrap().port(), server.port);
    let (cut, is_cut) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let mut is_cut = is_cut.clone();
            tokio::spawn(async move {
                if *is_cut.borrow() {
                    return;
                }
                let mut to = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                tokio::select! {
                    _ = copy_bidirectional(&mut from, &mut to) => {}
                    _ = is_cut.wait_for(|cut| *cut) => {}
                }
            });
        }
    });
    let settings = format!("host: 127.0.0.1, port: {between}, database: orphaned, params: {{sslmode: disable}}");
    let through = Place {
        depots: depots(&settings, "reader", PASSWORD),
        admin: server.admin("orphaned").await,
    };
    let plan = through.frame("never").await.create_physical_plan().await.unwrap();
    let mut stream = execute_stream(plan, context(&through.depots).task_ctx()).unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(200), stream.next())
            .await
            .is_err()
    );
    let running = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = 'orphaned' AND usename = 'reader' AND state = 'active'";
    place.until(running).await;
    cut.send(true).unwrap();
    place.until(&format!("SELECT NOT ({running})")).await;
    let failure = stream.next().await.unwrap().unwrap_err();
    assert_eq!(Error::find(&failure).unwrap().kind, ErrorKind::Unreachable, "{failure}");
}

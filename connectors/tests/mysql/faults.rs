//! What breaks while rows are read, and who leaves early.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::physical_plan::{ExecutionPlan, collect, execute_stream};
use futures::StreamExt;
use minerva_connectors::{Error, ErrorKind, ScanExec, decode_scan, encode_scan};

use crate::server::{PASSWORD, Place, Server, context, row_count, shared};

async fn plan(place: &Place<'_>, table: &str) -> Arc<dyn ExecutionPlan> {
    place.frame(table).await.create_physical_plan().await.unwrap()
}

async fn failure_of(place: &Place<'_>, plan: Arc<dyn ExecutionPlan>) -> Error {
    let failure = collect(plan, context(&place.depots).task_ctx()).await.unwrap_err();
    Error::find(&failure).unwrap_or_else(|| panic!("{failure}")).clone()
}

/// A table that takes long to read, and one that does not begin.
const ENDLESS: &str = "CREATE VIEW endless AS SELECT seq AS id, repeat('x', 1000) AS s FROM seq_1_to_2000000000;
     CREATE VIEW never AS SELECT sleep(1000) AS id;";

/// Whether a statement of the depot's runs in a database.
fn running(name: &str) -> String {
    format!(
        "SELECT count(*) > 0 FROM information_schema.processlist WHERE user = 'reader' AND command = 'Execute' AND info LIKE '%`{name}`%'"
    )
}

/// How long a statement goes on after its reader has left.
async fn goes_on_for(place: &Place<'_>, table: &str) -> Duration {
    let session = context(&place.depots);
    let mut stream = execute_stream(plan(place, table).await, session.task_ctx()).unwrap();
    if table == "endless" {
        assert!(stream.next().await.unwrap().unwrap().num_rows() > 0);
    } else {
        let nothing = tokio::time::timeout(Duration::from_millis(100), stream.next()).await;
        assert!(nothing.is_err());
    }
    place.until(&running("leaving")).await;
    let begun = Instant::now();
    drop(stream);
    while place.sql(&running("leaving")).trim() == "1" {
        assert!(begun.elapsed() < Duration::from_secs(20), "{table} goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_early_ends_the_statement() {
    let place = shared().database("leaving", ENDLESS);
    for table in ["endless", "never"] {
        // On a machine that does other things besides, the client that looks takes long, too: the best of some counts.
        let mut best = Duration::MAX;
        for _ in 0..5 {
            best = best.min(goes_on_for(&place, table).await);
            if best < Duration::from_millis(500) {
                break;
            }
        }
        assert!(best < Duration::from_millis(500), "{table}: {best:?}");
    }
    let few = place.frame("endless").await.limit(0, Some(5)).unwrap();
    assert_eq!(row_count(&few.collect().await.unwrap()), 5);
    place.until(&format!("SELECT NOT ({})", running("leaving"))).await;
}

/// Whoever stops reading keeps the server waiting, and the memory small.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_the_server_back() {
    let place = shared().database(
        "slow",
        "CREATE VIEW big AS SELECT seq AS id, repeat('x', 1000000) AS s FROM seq_1_to_1000",
    );
    let session = context(&place.depots);
    let mut stream = execute_stream(plan(&place, "big").await, session.task_ctx()).unwrap();
    let first = stream.next().await.unwrap().unwrap();
    assert!(first.num_rows() < 20, "{}", first.num_rows());
    place
        .until("SELECT count(*) = 1 FROM information_schema.processlist WHERE user = 'reader' AND state = 'Writing to net' AND info LIKE '%`slow`%'")
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

/// Ends what the depot's connections do in a database, in a way.
fn end(place: &Place<'_>, how: &str, name: &str) -> usize {
    let threads = place.sql(&format!(
        "SELECT id FROM information_schema.processlist WHERE user = 'reader' AND info LIKE '%`{name}`%'"
    ));
    let threads: Vec<&str> = threads.split_whitespace().collect();
    for thread in &threads {
        place.sql(&format!("KILL {how} {thread}"));
    }
    threads.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lost_in_the_middle_is_an_error_and_not_the_end() {
    let place = shared().database("lost", ENDLESS);
    for (how, kind) in [("CONNECTION", ErrorKind::Unreachable), ("QUERY", ErrorKind::Busy)] {
        let session = context(&place.depots);
        let mut stream = execute_stream(plan(&place, "endless").await, session.task_ctx()).unwrap();
        assert!(stream.next().await.unwrap().unwrap().num_rows() > 0);
        assert_eq!(end(&place, how, "lost"), 1);
        let error = loop {
            match stream.next().await {
                Some(Ok(_)) => {}
                Some(Err(failure)) => break Error::find(&failure).unwrap().clone(),
                None => panic!("a short answer"),
            }
        };
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.to_string().starts_with("depot `db`: `lost.endless`: "), "{error}");
        assert!(error.to_string().ends_with("rows"), "{error}");
    }
    let few = place.frame("endless").await.limit(0, Some(5)).unwrap();
    assert_eq!(row_count(&few.collect().await.unwrap()), 5);
}

/// What nobody has seen a row of is read once more, and only once.
#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_before_its_first_row_is_tried_once_more() {
    let place = shared().database(
        "again",
        "CREATE VIEW late AS SELECT sleep(1) AS id UNION ALL SELECT 7; CREATE VIEW never AS SELECT sleep(1000) AS id;",
    );
    let session = context(&place.depots);
    for (table, kills) in [("late", 1), ("never", 2)] {
        let reading = tokio::spawn(collect(plan(&place, table).await, session.task_ctx()));
        for _ in 0..kills {
            place.until(&running("again")).await;
            assert_eq!(end(&place, "CONNECTION", "again"), 1);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        match reading.await.unwrap() {
            Ok(rows) => assert_eq!((table, row_count(&rows)), ("late", 2)),
            Err(failure) => {
                let error = Error::find(&failure).unwrap();
                assert_eq!((table, error.kind), ("never", ErrorKind::Unreachable), "{error}");
            }
        }
    }
    place.until(&format!("SELECT NOT ({})", running("again"))).await;
    // Who ends the statement means it.
    let reading = tokio::spawn(collect(plan(&place, "never").await, session.task_ctx()));
    place.until(&running("again")).await;
    assert_eq!(end(&place, "QUERY", "again"), 1);
    // `sleep` ends with a row then; anything but a wait is right.
    let _ = tokio::time::timeout(Duration::from_secs(10), reading).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_connections_are_replaced_before_anything_was_read() {
    let mut server = Server::start();
    let port = server.port;
    let depots = {
        let place = server.database("restarted", "CREATE TABLE t AS SELECT seq AS id FROM seq_1_to_10");
        let planned = plan(&place, "t").await;
        futures::future::join_all((0..4).map(|_| place.rows("t"))).await;
        for thread in place
            .sql("SELECT id FROM information_schema.processlist WHERE user = 'reader'")
            .split_whitespace()
        {
            place.sql(&format!("KILL CONNECTION {thread}"));
        }
        assert_eq!(
            row_count(&collect(planned, context(&place.depots).task_ctx()).await.unwrap()),
            10
        );
        place.depots
    };
    server.restart();
    assert_eq!(server.port, port);
    let place = Place {
        depots,
        server: &server,
        name: "restarted".to_owned(),
    };
    assert_eq!(row_count(&place.rows("t").await.unwrap()), 10);
    let depots = place.depots;
    server.stop();
    let place = Place {
        depots,
        server: &server,
        name: "restarted".to_owned(),
    };
    let error = place.find("restarted", "t").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    assert!(!error.to_string().contains(PASSWORD), "{error}");
}

/// A statement sees one moment, although somebody moves amounts all the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_read_as_it_is_at_one_moment() {
    let place = shared().database(
        "moved",
        "CREATE TABLE t (id int PRIMARY KEY, amount bigint, filler char(200)); INSERT INTO t SELECT seq, 100, 'x' FROM seq_1_to_60000;
         DELIMITER //
         CREATE PROCEDURE move() BEGIN
             DECLARE i int DEFAULT 1;
             WHILE TRUE DO
                 START TRANSACTION; UPDATE t SET amount = amount - 5 WHERE id = i; UPDATE t SET amount = amount + 5 WHERE id = 60001 - i; COMMIT;
                 SET i = i % 1000 + 1;
             END WHILE;
         END //
         DELIMITER ;",
    );
    let mover = shared().session("moved", "SELECT 1");
    mover.say("CALL move();");
    place.until("SELECT count(*) > 0 FROM t WHERE amount <> 100").await;
    for _ in 0..5 {
        let batches = place.rows("t").await.unwrap();
        let sum: i64 = batches
            .iter()
            .map(|batch| {
                let amounts = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(batch.column(1));
                arrow::compute::sum(amounts).unwrap()
            })
            .sum();
        assert_eq!((row_count(&batches), sum), (60_000, 6_000_000));
    }
    drop(mover);
    // The server goes on without its client until it is told.
    let threads =
        place.sql("SELECT id FROM information_schema.processlist WHERE db = 'moved' AND id <> connection_id()");
    for thread in threads.split_whitespace() {
        place.sql(&format!("KILL CONNECTION {thread}"));
    }
}

/// A table that somebody has locked is waited for, and leaving does not leave the wait behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_waited_for_and_left() {
    let place = shared().database("locked", "CREATE TABLE t AS SELECT 1 AS id");
    let planned = plan(&place, "t").await;
    let locker = shared().session("locked", "LOCK TABLES t WRITE");
    let session = context(&place.depots);
    let mut stream = execute_stream(Arc::clone(&planned), session.task_ctx()).unwrap();
    let waiting = "SELECT count(*) > 0 FROM information_schema.processlist WHERE user = 'reader' AND state LIKE 'Waiting for table metadata lock'";
    let nothing = tokio::time::timeout(Duration::from_millis(100), stream.next()).await;
    assert!(nothing.is_err());
    place.until(waiting).await;
    drop(stream);
    place.until(&format!("SELECT NOT ({waiting})")).await;
    let reading = tokio::spawn(collect(planned, session.task_ctx()));
    place.until(waiting).await;
    drop(locker);
    assert_eq!(row_count(&reading.await.unwrap().unwrap()), 1);
}

/// No more connections are open than the depot may have, and all who wait get one.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded() {
    let server = Server::start();
    let place = server.database_with(
        "bounded",
        "maxConnections: 4,",
        "CREATE VIEW slow AS SELECT seq AS id, sleep(0.02) AS s FROM seq_1_to_3",
    );
    let table = place.table("slow").await;
    let session = context(&place.depots);
    let reads: Vec<_> = (0..12)
        .map(|_| {
            let frame = session.read_table(Arc::clone(&table)).unwrap();
            tokio::spawn(frame.collect())
        })
        .collect();
    let mut most = 0;
    while !reads.iter().all(tokio::task::JoinHandle::is_finished) {
        let open = place.sql("SELECT count(*) FROM information_schema.processlist WHERE user = 'reader'");
        most = most.max(open.trim().parse::<usize>().unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for read in reads {
        assert_eq!(row_count(&read.await.unwrap().unwrap()), 3);
    }
    assert!((1..=4).contains(&most), "{most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_altered_since_it_was_planned_is_read_as_planned_or_not_at_all() {
    const MADE: &str = "DROP TABLE IF EXISTS t; CREATE TABLE t (id bigint, name text); INSERT INTO t VALUES (1, 'a')";
    let place = shared().database("altered", MADE);
    for change in [
        "ALTER TABLE t MODIFY id double",
        "ALTER TABLE t MODIFY id bigint unsigned",
        "ALTER TABLE t MODIFY name blob",
        "ALTER TABLE t RENAME COLUMN id TO other",
        "ALTER TABLE t DROP id",
        "DROP TABLE t",
    ] {
        place.sql(MADE);
        let planned = plan(&place, "t").await;
        assert_eq!(row_count(&place.rows("t").await.unwrap()), 1);
        place.sql(change);
        let error = failure_of(&place, planned).await;
        assert_eq!(error.kind, ErrorKind::Changed, "{change}: {error}");
        assert!(error.to_string().starts_with("depot `db`: `altered.t`: "), "{error}");
    }
    // What does not touch the columns that were planned does not matter.
    place.sql(MADE);
    let planned = plan(&place, "t").await;
    place.sql("ALTER TABLE t ADD more int DEFAULT 5 FIRST");
    let rows = collect(planned, context(&place.depots).task_ctx()).await.unwrap();
    assert_eq!((row_count(&rows), rows[0].num_columns()), (1, 2));
}

/// What is planned here may be read somewhere else, by a process that knows the depot by its name.
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_travels_without_a_credential() {
    let place = shared().database("travels", "CREATE TABLE t AS SELECT 1 AS id");
    let table = place.table("t").await;
    let session = context(&place.depots);
    let planned = table.scan(&session.state(), None, &[], Some(5)).await.unwrap();
    let bytes = encode_scan(planned.downcast_ref::<ScanExec>().unwrap()).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(
        !text.contains(PASSWORD) && !text.contains("reader") && !text.contains("127.0.0.1"),
        "{text}"
    );
    let elsewhere = shared().depots("127.0.0.1", "", "sslmode: disable", "reader", PASSWORD);
    let arrived: Arc<dyn ExecutionPlan> = Arc::new(decode_scan(&bytes).unwrap());
    let rows = collect(arrived, context(&elsewhere).task_ctx()).await.unwrap();
    assert_eq!(row_count(&rows), 1);
}

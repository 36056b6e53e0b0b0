//! A real standby, which replays what its primary does: reading from it is right, what its replay ends is tried again or said, and it takes no writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::physical_plan::{collect, execute_stream};
use futures::StreamExt;
use minerva_connectors::conformance::stream_of;
use minerva_connectors::{Error, ErrorKind, ScanExec};

use crate::server::{Place, Server, context, row_count};

const TABLES: &str = "CREATE TABLE large AS SELECT i::int4 AS id, (i % 1000)::int8 AS amount, repeat('x', 200) AS filler FROM generate_series(1, 200000) i;
     CREATE INDEX ON large (id); CREATE TABLE few AS SELECT generate_series(1, 100) AS id; ANALYZE;
     CREATE VIEW late AS SELECT few.id FROM few, pg_sleep(2) AS nothing;
     CREATE VIEW many AS SELECT generate_series(1, 2000000000) AS n, few.id, repeat('x', 1000) AS filler FROM few;";

const READING: &str =
    "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'reader' AND state = 'active' AND query LIKE 'COPY%'";

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_read_and_not_written() {
    let primary = Server::start();
    let source = primary.database("stood", TABLES).await;
    let standby = primary.standby("max_standby_streaming_delay = 60s");
    let place = Place {
        depots: standby.reader("stood"),
        admin: standby.admin("stood").await,
    };
    assert!(place.ask::<bool>("SELECT pg_is_in_recovery()").await);

    // Several readers see one moment, whatever is replayed between their beginnings.
    let total: i64 = source.ask("SELECT sum(amount)::int8 FROM large").await;
    let writer = primary.admin("stood").await;
    let ends = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&ends);
    let moving = tokio::spawn(async move {
        let mut moved = 0;
        while !stop.load(Ordering::Relaxed) {
            let by = 7 * (moved % 1_000);
            let change = format!(
                "BEGIN; UPDATE large SET amount = amount - 5 WHERE id = {}; UPDATE large SET amount = amount + 5 WHERE id = {}; COMMIT;",
                1 + by,
                190_001 + by
            );
            writer.batch_execute(&change).await.unwrap();
            moved += 1;
        }
        moved
    });
    for _ in 0..4 {
        let plan = place.frame("large").await.create_physical_plan().await.unwrap();
        let scan = plan.downcast_ref::<ScanExec>().unwrap();
        assert!(scan.partitions().iter().flatten().count() > 1, "one reader");
        let batches = place.rows("large").await.unwrap();
        let amounts = batches.iter().map(|batch| batch.column_by_name("amount").unwrap());
        let sum: i64 = amounts
            .flat_map(|column| column.as_primitive::<Int64Type>().values().iter().copied())
            .sum();
        assert_eq!((row_count(&batches), sum), (200_000, total));
    }
    ends.store(true, Ordering::Relaxed);
    assert!(moving.await.unwrap() > 0);

    let writer = place.source().await;
    let writer = writer.writer().unwrap();
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int32, true)]));
    let one: Arc<dyn arrow::array::Array> = Arc::new(arrow::array::Int32Array::from(vec![1]));
    let rows = || RecordBatch::try_new(Arc::clone(&schema), vec![Arc::clone(&one)]).unwrap();
    let refused = writer
        .append("public", "few", stream_of(&schema, vec![rows()]))
        .await
        .unwrap_err();
    let refused = Error::find(&refused).unwrap();
    assert_eq!(refused.kind, ErrorKind::Unsupported, "{refused}");
    assert!(
        refused
            .to_string()
            .contains("`public.few`: the server takes no writes: it is a standby"),
        "{refused}"
    );

    for sooner in [
        "ALTER SYSTEM SET max_standby_streaming_delay = '200ms'",
        "SELECT pg_reload_conf()",
    ] {
        place.admin.batch_execute(sooner).await.unwrap();
    }
    // What its replay ends is tried once more, as long as nobody has seen a row.
    let plan = place.frame("late").await.create_physical_plan().await.unwrap();
    let depots = Arc::clone(&place.depots);
    let reading = tokio::spawn(async move { collect(plan, context(&depots).task_ctx()).await });
    place.until(READING).await;
    source
        .admin
        .batch_execute("DELETE FROM few WHERE id <= 40")
        .await
        .unwrap();
    source.admin.batch_execute("VACUUM (TRUNCATE false) few").await.unwrap();
    assert_eq!(
        row_count(&reading.await.unwrap().unwrap()),
        60,
        "it was read again, after what was replayed"
    );
    let conflicts = "SELECT confl_snapshot > 0 FROM pg_stat_database_conflicts WHERE datname = 'stood'";
    place.until(conflicts).await;

    // After that it is an error, and never a part.
    let plan = place.frame("many").await.create_physical_plan().await.unwrap();
    let mut stream = execute_stream(plan, context(&place.depots).task_ctx()).unwrap();
    assert!(stream.next().await.unwrap().unwrap().num_rows() > 0);
    source
        .admin
        .batch_execute("DELETE FROM few WHERE id <= 80")
        .await
        .unwrap();
    source.admin.batch_execute("VACUUM (TRUNCATE false) few").await.unwrap();
    let error = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            Some(Err(failure)) => break Error::find(&failure).unwrap().clone(),
            None => panic!("a short answer"),
        }
    };
    assert_eq!(error.kind, ErrorKind::Busy, "{error}");
    assert!(error.to_string().starts_with("depot `db`: `public.many`: "), "{error}");
    assert!(error.to_string().contains("max_standby_streaming_delay"), "{error}");

    // A standby that becomes the primary takes writes.
    assert!(place.ask::<bool>("SELECT pg_promote(true, 30)").await);
    place
        .admin
        .batch_execute("GRANT INSERT ON few TO reader")
        .await
        .unwrap();
    assert_eq!(
        writer
            .append("public", "few", stream_of(&schema, vec![rows()]))
            .await
            .unwrap(),
        1
    );
    assert_eq!(row_count(&place.rows("few").await.unwrap()), 21);
}

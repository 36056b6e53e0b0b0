//! One table read by several connections: all of it, once, and as it was at one moment.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use datafusion::physical_plan::{ExecutionPlan, collect, execute_stream_partitioned};
use datafusion::prelude::{col, lit};
use futures::{StreamExt, TryStreamExt};
use minerva_connectors::{Error, ErrorKind, ScanExec, Split};

use crate::server::{PASSWORD, Place, Server, context, depots, row_count, shared};

/// About 70 MiB, so that it is worth four readers; some pages have holes.
const LARGE: &str = "CREATE TABLE large AS SELECT i::int4 AS id, (i % 1000)::int8 AS amount, repeat('x', 200) AS filler FROM generate_series(1, 300000) i;
     DELETE FROM large WHERE id % 7 = 0; ANALYZE large;";
const ROWS: usize = 300_000 - 300_000 / 7;

async fn large(server: &Server, name: &str) -> Place {
    server.database(name, LARGE).await
}

fn scan_of(plan: &Arc<dyn ExecutionPlan>) -> ScanExec {
    match plan.downcast_ref::<ScanExec>() {
        Some(scan) => scan.clone(),
        None => scan_of(plan.children()[0]),
    }
}

/// How many connections of the depot keep a transaction open.
const KEPT: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader' AND state LIKE 'idle in transaction%'";

#[tokio::test(flavor = "multi_thread")]
async fn every_row_is_read_once_by_several_readers() {
    let place = large(shared(), "par_once").await;
    let frame = place.frame("large").await.select_columns(&["id"]).unwrap();
    let plan = frame.create_physical_plan().await.unwrap();
    let scan = scan_of(&plan);
    assert_eq!(scan.partitions().len(), 3, "one for each core");
    assert!(scan.partitions().iter().flatten().count() >= 3);
    drop(scan);
    let partitions = execute_stream_partitioned(plan, context(&place.depots).task_ctx()).unwrap();
    let read = partitions
        .into_iter()
        .map(|partition| tokio::spawn(async move { partition.try_collect::<Vec<_>>().await.unwrap() }));
    let batches = futures::future::join_all(read).await;
    let mut seen = BTreeSet::new();
    let mut rows = 0;
    for partition in batches {
        let partition = partition.unwrap();
        assert!(row_count(&partition) > 0, "each partition has a share");
        for batch in partition {
            rows += batch.num_rows();
            seen.extend(batch.column(0).as_primitive::<Int32Type>().values().iter().copied());
        }
    }
    assert_eq!((rows, seen.len()), (ROWS, ROWS));
    place
        .until(&format!("SELECT ({KEPT} AND datname = 'par_once') = 0"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_tables_limits_indexes_views_and_few_connections_have_one_reader() {
    let server = shared();
    let place = large(server, "par_one").await;
    let more = "CREATE TABLE small AS SELECT 1 AS id; CREATE VIEW seen AS SELECT * FROM large; ANALYZE;
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader";
    place.admin.batch_execute(more).await.unwrap();
    let splits = async |frame: datafusion::prelude::DataFrame| {
        let plan = frame.create_physical_plan().await.unwrap();
        scan_of(&plan).partitions().iter().flatten().count()
    };
    let frame = || place.frame("large");
    assert!(splits(frame().await).await > 1);
    assert_eq!(splits(frame().await.limit(0, Some(10)).unwrap()).await, 1);
    let wanted = || col("id").eq(lit(77_i32));
    assert!(
        splits(frame().await.filter(wanted()).unwrap()).await > 1,
        "all pages are read without an index"
    );
    place.admin.batch_execute("CREATE INDEX ON large (id)").await.unwrap();
    assert_eq!(
        splits(frame().await.filter(wanted()).unwrap()).await,
        1,
        "an index finds the row"
    );
    for table in ["small", "seen"] {
        assert_eq!(splits(place.frame(table).await).await, 1, "{table}");
    }
    let settings = format!(
        "host: 127.0.0.1, port: {}, database: par_one, maxConnections: 4, params: {{sslmode: disable}}",
        server.port
    );
    let few = Place {
        depots: depots(&settings, "reader", PASSWORD),
        admin: server.admin("par_one").await,
    };
    assert_eq!(splits(few.frame("large").await).await, 1);
    assert_eq!(row_count(&few.rows("large").await.unwrap()), ROWS);
}

/// Partitions of very different sizes, one of them divided again, and one whose columns lie in another order.
const PARTITIONED: &str = "CREATE TABLE parted (id int4 NOT NULL, amount int8, filler text) PARTITION BY RANGE (id);
     CREATE TABLE few PARTITION OF parted FOR VALUES FROM (0) TO (20000);
     CREATE TABLE most PARTITION OF parted FOR VALUES FROM (20000) TO (200000);
     CREATE TABLE again PARTITION OF parted FOR VALUES FROM (200000) TO (280000) PARTITION BY HASH (id);
     CREATE TABLE again_0 PARTITION OF again FOR VALUES WITH (MODULUS 2, REMAINDER 0);
     CREATE TABLE again_1 PARTITION OF again FOR VALUES WITH (MODULUS 2, REMAINDER 1);
     CREATE TABLE odd (filler text, gone int4, id int4 NOT NULL, amount int8); ALTER TABLE odd DROP gone;
     ALTER TABLE parted ATTACH PARTITION odd FOR VALUES FROM (280000) TO (300000);
     CREATE TABLE none PARTITION OF parted FOR VALUES FROM (300000) TO (400000);
     INSERT INTO parted SELECT i - 1, (i % 1000)::int8, repeat('x', 200) FROM generate_series(1, 300000) i; ANALYZE;";

fn ids(batches: &[arrow::array::RecordBatch]) -> BTreeSet<i32> {
    let ids = |batch: &arrow::array::RecordBatch| {
        let column = batch.column_by_name("id").unwrap().as_primitive::<Int32Type>();
        column.values().to_vec()
    };
    batches.iter().flat_map(ids).collect()
}

/// Partitioned tables, parents of other tables and materialised views are divided, too.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_made_of_others_have_several_readers() {
    let statements = format!(
        "{PARTITIONED} CREATE MATERIALIZED VIEW kept AS SELECT * FROM parted;
         CREATE TABLE parent (id int4, filler text); CREATE TABLE child (more int4) INHERITS (parent);
         CREATE TABLE twins () INHERITS (child, parent);
         INSERT INTO child SELECT id, filler, 1 FROM parted; INSERT INTO parent SELECT -id - 1, filler FROM parted;
         INSERT INTO twins VALUES (1000000, 'b', 1); ANALYZE;"
    );
    let place = shared().database("par_parts", &statements).await;
    // What the parent allows is enough.
    place
        .admin
        .batch_execute("REVOKE ALL ON few, most, again, again_0, again_1, odd, none, child, twins FROM reader")
        .await
        .unwrap();
    for (table, rows) in [("parted", 300_000), ("kept", 300_000), ("parent", 600_001)] {
        let frame = place.frame(table).await;
        let plan = frame.clone().create_physical_plan().await.unwrap();
        let scan = scan_of(&plan);
        assert!(scan.partitions().iter().flatten().count() >= 3, "{table}: {scan:?}");
        assert_eq!(scan.rows().get_value(), Some(&rows), "{table}");
        drop((plan, scan));
        let batches = frame.collect().await.unwrap();
        assert_eq!((row_count(&batches), ids(&batches).len()), (rows, rows), "{table}");
        let some = place.frame(table).await.filter(col("id").lt(lit(25_000_i32))).unwrap();
        let some = some.filter(col("id").gt_eq(lit(0_i32))).unwrap();
        let batches = some.select_columns(&["filler", "id"]).unwrap().collect().await.unwrap();
        assert_eq!((row_count(&batches), ids(&batches).len()), (25_000, 25_000), "{table}");
    }
}

/// Somebody moves rows from one partition to another, and back, all the time.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_move_between_partitions_are_seen_once() {
    let place = shared()
        .database("par_moves", &format!("{PARTITIONED} CREATE INDEX ON parted (id)"))
        .await;
    let total: i64 = place.ask("SELECT sum(amount)::int8 FROM parted").await;
    let writer = shared().admin("par_moves").await;
    let ends = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&ends);
    let moving = tokio::spawn(async move {
        let mut moved = 0;
        while !stop.load(Ordering::Relaxed) {
            let by = 7 * (moved % 1_000);
            for (from, to) in [(by, 300_000 + by), (300_000 + by, by)] {
                let update = format!("UPDATE parted SET id = {to} WHERE id = {from}");
                assert_eq!(writer.execute(&update, &[]).await.unwrap(), 1);
            }
            moved += 1;
        }
        moved
    });
    for _ in 0..6 {
        let batches = place.rows("parted").await.unwrap();
        let amounts = batches.iter().map(|batch| batch.column_by_name("amount").unwrap());
        let sum: i64 = amounts
            .flat_map(|column| column.as_primitive::<Int64Type>().values().iter().copied())
            .sum();
        assert_eq!((row_count(&batches), sum), (300_000, total));
    }
    ends.store(true, Ordering::Relaxed);
    assert!(moving.await.unwrap() > 0, "rows moved meanwhile");
}

/// A table that becomes a partition, or is emptied, while another is read: none of its rows count, or all.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_come_and_go_are_seen_whole_or_not() {
    let place = shared().database("par_attach", PARTITIONED).await;
    let come = "CREATE TABLE come (LIKE parted); INSERT INTO come SELECT i, 1, repeat('y', 200) FROM generate_series(400000, 459999) i; ANALYZE come";
    place.admin.batch_execute(come).await.unwrap();
    let plan = place.frame("parted").await.create_physical_plan().await.unwrap();
    place
        .admin
        .batch_execute("ALTER TABLE parted ATTACH PARTITION come FOR VALUES FROM (400000) TO (500000)")
        .await
        .unwrap();
    let emptying = shared().admin("par_attach").await;
    let emptying = tokio::spawn(async move { emptying.batch_execute("TRUNCATE most").await });
    place
        .until("SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = 'par_attach' AND query LIKE 'TRUNCATE%' AND wait_event_type = 'Lock'")
        .await;
    // Who waits for the readers is told that they are waited for, or they are done before.
    match collect(Arc::clone(&plan), context(&place.depots).task_ctx()).await {
        Ok(batches) => assert_eq!(row_count(&batches), 300_000),
        Err(failure) => assert_eq!(Error::find(&failure).unwrap().kind, ErrorKind::Changed, "{failure}"),
    }
    drop(plan);
    emptying.await.unwrap().unwrap();
    assert_eq!(
        row_count(&place.rows("parted").await.unwrap()),
        300_000 - 180_000 + 60_000
    );

    let plan = place.frame("parted").await.create_physical_plan().await.unwrap();
    place
        .admin
        .batch_execute("CREATE TABLE more (LIKE parted); INSERT INTO more SELECT i, 1, repeat('z', 200) FROM generate_series(500000, 559999) i;
             ALTER TABLE parted ATTACH PARTITION more FOR VALUES FROM (500000) TO (600000)")
        .await
        .unwrap();
    let batches = collect(plan, context(&place.depots).task_ctx()).await.unwrap();
    assert_eq!(row_count(&batches), 180_000, "it came after the moment that is read");
    assert_eq!(row_count(&place.rows("parted").await.unwrap()), 240_000);
}

/// A table that inherits from a plain one meanwhile is read by no reader of it, or by all.
#[tokio::test(flavor = "multi_thread")]
async fn what_inherits_meanwhile_is_seen_whole_or_not() {
    let place = large(shared(), "par_inherit").await;
    let come = "CREATE TABLE filled (LIKE large); INSERT INTO filled SELECT * FROM large; ANALYZE filled";
    place.admin.batch_execute(come).await.unwrap();
    // The snapshot is taken here, and its readers begin when the child is there.
    let plan = place.frame("large").await.create_physical_plan().await.unwrap();
    assert!(scan_of(&plan).partitions().iter().flatten().count() > 1, "one reader");
    place
        .admin
        .batch_execute("ALTER TABLE filled INHERIT large")
        .await
        .unwrap();
    let batches = collect(plan, context(&place.depots).task_ctx()).await.unwrap();
    assert_eq!(row_count(&batches), ROWS, "it came after the moment that is read");
    assert_eq!(row_count(&place.rows("large").await.unwrap()), 2 * ROWS);
}

/// A TRUNCATE is not hidden by a snapshot but by the lock of who keeps it: where that is gone the table is not read.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_emptied_when_its_snapshot_is_lost_is_not_read_as_empty() {
    let place = large(shared(), "par_unkept").await;
    let plan = place.frame("large").await.create_physical_plan().await.unwrap();
    let kill = format!(
        "SELECT pg_terminate_backend(pid) FROM ({}) AS kept",
        KEPT.replace("count(*)", "pid") + " AND datname = 'par_unkept'"
    );
    assert!(place.ask::<bool>(&kill).await);
    place.admin.batch_execute("TRUNCATE large").await.unwrap();
    let failure = collect(plan, context(&place.depots).task_ctx()).await.unwrap_err();
    assert_eq!(Error::find(&failure).unwrap().kind, ErrorKind::Changed, "{failure}");
}

/// A materialised view that is made anew is read as it was before, or after.
#[tokio::test(flavor = "multi_thread")]
async fn a_materialised_view_is_never_read_half_made_anew() {
    let statements = format!("{LARGE} CREATE MATERIALIZED VIEW kept AS SELECT *, 1 AS made FROM large; ANALYZE kept");
    let place = shared().database("par_kept_view", &statements).await;
    let plan = place.frame("kept").await.create_physical_plan().await.unwrap();
    place
        .admin
        .batch_execute("DELETE FROM large WHERE id > 1000")
        .await
        .unwrap();
    let maker = shared().admin("par_kept_view").await;
    let making = tokio::spawn(async move { maker.batch_execute("REFRESH MATERIALIZED VIEW kept").await });
    place
        .until("SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = 'par_kept_view' AND query LIKE 'REFRESH%' AND wait_event_type = 'Lock'")
        .await;
    let read = collect(Arc::clone(&plan), context(&place.depots).task_ctx()).await;
    match read {
        Ok(batches) => assert_eq!(row_count(&batches), ROWS),
        Err(failure) => assert_eq!(Error::find(&failure).unwrap().kind, ErrorKind::Changed, "{failure}"),
    }
    drop(plan);
    making.await.unwrap().unwrap();
    assert_eq!(row_count(&place.rows("kept").await.unwrap()), 1000 - 1000 / 7);
}

/// Somebody moves amounts from rows at one end of the table to rows at the other, and rows to other pages, all the time.
#[tokio::test(flavor = "multi_thread")]
async fn all_readers_see_the_same_moment() {
    let place = large(shared(), "par_moment").await;
    place.admin.batch_execute("CREATE INDEX ON large (id)").await.unwrap();
    let total: i64 = place.ask("SELECT sum(amount)::int8 FROM large").await;
    let writer = shared().admin("par_moment").await;
    let ends = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&ends);
    let moving = tokio::spawn(async move {
        let mut moved = 0_u32;
        while !stop.load(Ordering::Relaxed) {
            // Short transactions: many of them end between the beginnings of two readers.
            let by = 7 * (moved % 1_000);
            writer
                .batch_execute(&format!(
                    "BEGIN; UPDATE large SET amount = amount - 5 WHERE id = {};
                     UPDATE large SET amount = amount + 5 WHERE id = {}; COMMIT;",
                    1 + by,
                    280_001 + by
                ))
                .await
                .unwrap();
            moved += 1;
        }
        moved
    });
    for _ in 0..8 {
        let batches = place.rows("large").await.unwrap();
        let sum: i64 = batches
            .iter()
            .flat_map(|batch| batch.column(1).as_primitive::<Int64Type>().values().iter().copied())
            .sum();
        assert_eq!((row_count(&batches), sum), (ROWS, total));
    }
    ends.store(true, Ordering::Relaxed);
    assert!(moving.await.unwrap() > 0, "rows moved meanwhile");
}

/// A reader that is killed makes an error of the whole, or the whole is right: never a part.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_killed_is_an_error_and_no_shorter_answer() {
    let place = large(shared(), "par_killed").await;
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity
         WHERE datname = 'par_killed' AND usename = 'reader' AND query LIKE 'COPY%' LIMIT 1) AS one";
    let mut errors = 0;
    for after in 0..6 {
        let plan = place.frame("large").await.create_physical_plan().await.unwrap();
        let partitions = execute_stream_partitioned(plan, context(&place.depots).task_ctx()).unwrap();
        let mut merged = futures::stream::select_all(partitions);
        let (mut rows, mut failed, mut batches, mut killed) = (0, None, 0, 0_i64);
        while let Some(batch) = merged.next().await {
            match batch {
                Ok(batch) => rows += batch.num_rows(),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
            batches += 1;
            if batches == 1 + after {
                killed = place.ask(kill).await;
            }
        }
        match failed {
            Some(error) => {
                let error = Error::find(&error).unwrap_or_else(|| panic!("{error}")).clone();
                assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
                assert!(error.to_string().contains("`public.large`"), "{error}");
                errors += 1;
            }
            None => assert_eq!(rows, ROWS, "{killed} readers were killed"),
        }
        drop(merged);
    }
    assert!(errors > 0, "no reader was ever killed while it read");
    place.until("SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'par_killed' AND query LIKE 'COPY%' AND state = 'active'").await;
    assert_eq!(
        row_count(&place.rows("large").await.unwrap()),
        ROWS,
        "the next query is not concerned"
    );
}

/// The transaction that keeps the snapshot ends with the plan, whether it ran or not.
#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_kept_as_long_as_their_plan() {
    let place = large(shared(), "par_kept").await;
    let open = format!("{KEPT} AND datname = 'par_kept'");
    let plan = place.frame("large").await.create_physical_plan().await.unwrap();
    assert_eq!(place.ask::<i64>(&open).await, 1);
    drop(plan);
    place.until(&format!("SELECT ({open}) = 0")).await;

    // What is dropped in the middle is cancelled, every reader of it.
    let plan = place.frame("large").await.create_physical_plan().await.unwrap();
    let partitions = execute_stream_partitioned(plan, context(&place.depots).task_ctx()).unwrap();
    let mut merged = futures::stream::select_all(partitions);
    merged.next().await.unwrap().unwrap();
    drop(merged);
    place
        .until(&format!(
            "SELECT ({open}) = 0 AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'par_kept' AND usename = 'reader' AND state = 'active')"
        ))
        .await;

    // Without its snapshot a plan cannot be run by halves.
    let scan = scan_of(&place.frame("large").await.create_physical_plan().await.unwrap());
    let bytes = minerva_connectors::encode_scan(&scan).unwrap();
    drop(scan);
    place.until(&format!("SELECT ({open}) = 0")).await;
    let stale = minerva_connectors::decode_scan(&bytes).unwrap();
    assert!(
        stale
            .partitions()
            .iter()
            .flatten()
            .all(|split| matches!(split, Split::Range { .. }))
    );
    let failure = collect(Arc::new(stale), context(&place.depots).task_ctx())
        .await
        .unwrap_err();
    let error = Error::find(&failure).unwrap_or_else(|| panic!("{failure}")).clone();
    assert_eq!(error.kind, ErrorKind::Changed, "{error}");
    assert!(error.to_string().contains("`maxConnections: 4`"), "{error}");
}

/// Who waits to change the table while a query reads it is not waited for by its later readers, which they would in turn wait for.
#[tokio::test(flavor = "multi_thread")]
async fn readers_do_not_wait_for_who_waits_for_them() {
    let place = large(shared(), "par_ddl").await;
    let plan = place.frame("large").await.create_physical_plan().await.unwrap();
    let changer = shared().admin("par_ddl").await;
    let changing = tokio::spawn(async move { changer.batch_execute("ALTER TABLE large ADD COLUMN more int4").await });
    place
        .until("SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = 'par_ddl' AND query LIKE 'ALTER%' AND wait_event_type = 'Lock'")
        .await;
    let begun = std::time::Instant::now();
    let failure = collect(plan, context(&place.depots).task_ctx()).await.unwrap_err();
    let error = Error::find(&failure).unwrap_or_else(|| panic!("{failure}")).clone();
    assert_eq!(error.kind, ErrorKind::Changed, "{error}");
    assert!(error.to_string().contains("waits to change it"), "{error}");
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    changing.await.unwrap().unwrap();
    assert_eq!(
        row_count(&place.rows("large").await.unwrap()),
        ROWS,
        "it goes on afterwards"
    );
}

/// A load that empties the table first is seen before or after, and not in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_filled_anew_is_never_seen_empty() {
    let place = large(shared(), "par_load").await;
    let loader = shared().admin("par_load").await;
    loader
        .batch_execute("BEGIN; CREATE TEMP TABLE kept AS SELECT * FROM large; TRUNCATE large; INSERT INTO large SELECT * FROM kept")
        .await
        .unwrap();
    let depots = Arc::clone(&place.depots);
    let reading = tokio::spawn(async move {
        let source = depots.open("db").await.unwrap();
        let session = context(&depots).state();
        let table = source.dataset("public", "large", &session).await.unwrap().unwrap();
        context(&depots).read_table(table).unwrap().collect().await
    });
    place
        .until("SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = 'par_load' AND usename = 'reader' AND wait_event_type = 'Lock'")
        .await;
    loader.batch_execute("COMMIT").await.unwrap();
    assert_eq!(row_count(&reading.await.unwrap().unwrap()), ROWS);
}

/// More readers than there are connections wait for each other, and none of them waits for ever.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_never_more_than_allowed() {
    let server = shared();
    large(server, "par_most").await;
    let settings = format!(
        "host: 127.0.0.1, port: {}, database: par_most, maxConnections: 8, params: {{sslmode: disable}}",
        server.port
    );
    let place = Arc::new(Place {
        depots: depots(&settings, "reader", PASSWORD),
        admin: server.admin("par_most").await,
    });
    let ends = Arc::new(AtomicBool::new(false));
    let (stop, watcher) = (Arc::clone(&ends), server.admin("par_most").await);
    let watching = tokio::spawn(async move {
        let mut most = 0_i64;
        while !stop.load(Ordering::Relaxed) {
            let count = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'par_most' AND usename = 'reader'";
            most = most.max(watcher.query_one(count, &[]).await.unwrap().get(0));
        }
        most
    });
    let reading = (0..12).map(|_| {
        let place = Arc::clone(&place);
        tokio::spawn(async move { row_count(&place.rows("large").await.unwrap()) })
    });
    for read in futures::future::join_all(reading).await {
        assert_eq!(read.unwrap(), ROWS);
    }
    ends.store(true, Ordering::Relaxed);
    let most = watching.await.unwrap();
    assert!((3..=8).contains(&most), "{most} connections");
}

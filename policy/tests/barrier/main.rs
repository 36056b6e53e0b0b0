//! The policy barrier against real Parquet files: what a statement learns, what still reaches the scan, and what the
//! verifier refuses.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "the tests make sessions as the coordinator does"
)]

mod distributed;
mod fence;
mod world;

use std::sync::Arc;

use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{col, lit};
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};
use minerva_policy::{
    GovernedError, Grants, Leaf, PolicyBarrierExec, decode_barrier, encode_barrier, redact_logical_plan, redact_plan,
    scrub, verify,
};
use minerva_resources::Address;

use world::{CANARY, HIDDEN, Hidden, World, address};

/// Statements of every shape that reaches for what is hidden.
const STATEMENTS: &[&str] = &[
    "SELECT * FROM people WHERE id < 20",
    "SELECT count(*), min(id), max(amount), count(DISTINCT name) FROM people",
    "SELECT count(*) FROM people WHERE CAST(code AS INT) >= 0",
    "SELECT count(*) FROM people WHERE CAST(name AS INT) > 0",
    "SELECT count(*) FROM people WHERE 10 / (key - 3) > 0",
    "SELECT count(*) FROM people WHERE region = 'US' OR 10 / (key - 3) > 100",
    "SELECT id FROM people ORDER BY 10 / (key - 3), id LIMIT 3",
    "SELECT id, 10 / (key - 3) AS x FROM people ORDER BY x DESC, id LIMIT 3",
    "SELECT count(*) FROM people WHERE name LIKE 'canary%' OR letter LIKE 'canary%'",
    "SELECT count(*) FROM people WHERE remark LIKE '%hidden%'",
    "SELECT name, letter, count(*) FROM people GROUP BY name, letter HAVING count(*) > 10",
    "SELECT id FROM people ORDER BY name, letter, id LIMIT 5",
    "SELECT CASE WHEN key = 3 THEN 1 / 0 ELSE key END AS k, count(*) FROM people GROUP BY 1",
    "SELECT sum(amount) FILTER (WHERE CAST(code AS INT) % 2 = 0) FROM people",
    "SELECT id, lag(amount) OVER (ORDER BY CAST(code AS INT)) AS l FROM people ORDER BY id LIMIT 4",
    "SELECT o.id, p.amount FROM orders o LEFT JOIN people p ON p.id = o.id AND CAST(p.code AS INT) > 100",
    "SELECT count(*) FROM orders o JOIN people p ON CAST(p.code AS BIGINT) = o.id",
    "SELECT count(*) FROM orders o WHERE EXISTS (SELECT 1 FROM people p WHERE p.id = o.id AND CAST(p.code AS INT) > 5)",
    "SELECT count(*) FROM orders o WHERE o.id NOT IN (SELECT CAST(code AS BIGINT) FROM people)",
    "SELECT count(*) FROM orders WHERE number < (SELECT max(CAST(code AS INT)) FROM people)",
    "SELECT (SELECT max(p.amount) FROM people p WHERE p.key = o.number % 10) AS m FROM orders o WHERE o.id < 500",
    "WITH c AS (SELECT code FROM people UNION ALL SELECT name FROM people WHERE key = 3) SELECT max(CAST(code AS INT)) FROM c",
    "SELECT code FROM people EXCEPT SELECT code FROM people WHERE 1 / (key - 3) < 0 ORDER BY 1 LIMIT 3",
    "SELECT a.id FROM people a, people b WHERE a.name = b.name AND a.id + 1 = b.id AND a.id < 6",
    "SELECT arrow_typeof(name), name IS NULL, length(letter) FROM people LIMIT 1",
    "SELECT id FROM people WHERE key IN (1, 3) AND id BETWEEN 1 AND 60 AND NOT (amount <> id)",
    "SELECT id FROM people WHERE key = 3",
    "SELECT count(*) FROM people WHERE (SELECT max(number) FROM orders) > 5",
    "SELECT count(*) FROM people WHERE 10 / (SELECT min(number) FROM orders) > 1",
    "SELECT * FROM (SELECT id, code FROM people LIMIT 100000) WHERE CAST(code AS INT) > 9990",
];

/// What the governed table shows, put in a table of its own: nothing hidden is in its memory.
async fn replacement(world: &World) -> SessionContext {
    let session = SessionContext::new_with_state(world::state(SessionConfig::new().with_target_partitions(2)).build());
    for name in ["people", "orders", "shops"] {
        let frame = world.session.sql(&format!("SELECT * FROM {name}")).await.unwrap();
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let table = MemTable::try_new(schema, frame.collect_partitioned().await.unwrap()).unwrap();
        session.register_table(name, Arc::new(table)).unwrap();
    }
    session
}

#[tokio::test]
async fn a_governed_table_answers_like_one_that_was_physically_replaced() {
    for push_into_scan in [false, true] {
        let mut config = SessionConfig::new().with_target_partitions(2);
        config.options_mut().execution.parquet.pushdown_filters = push_into_scan;
        let world = World::with(HIDDEN, config).await;
        let replaced = replacement(&world).await;
        for sql in STATEMENTS {
            let governed = world.answer(sql).await;
            let expected = match replaced.sql(sql).await.unwrap().collect().await {
                Ok(batches) => world::rows(&batches),
                Err(error) => Err(error.to_string()),
            };
            assert_eq!(governed, expected, "{sql}");
            assert!(!format!("{governed:?}").contains(CANARY), "{sql}: {governed:?}");
        }
    }
}

#[tokio::test]
async fn two_worlds_that_differ_only_in_what_is_hidden_look_the_same() {
    let config = || SessionConfig::new().with_target_partitions(2);
    let one = World::with(HIDDEN, config()).await;
    let other = World::with(Hidden { salt: 7, copies: 3 }, config()).await;
    for sql in STATEMENTS {
        assert_eq!(one.answer(sql).await, other.answer(sql).await, "{sql}");
        assert_eq!(one.shown(sql).await, other.shown(sql).await, "{sql}");
        let logical = [&one, &other].map(|world| async {
            let plan = world.session.sql(sql).await.unwrap().into_optimized_plan().unwrap();
            redact_logical_plan(plan).unwrap().display_indent_schema().to_string()
        });
        let [left, right] = logical;
        let (left, right) = (left.await, right.await);
        assert_eq!(left, right, "{sql}");
        assert!(!left.contains("EU") && !left.contains("TableScan: lake"), "{left}");
    }
}

#[tokio::test]
async fn leakproof_predicates_prune_files_and_others_stay_above() {
    let world = World::new().await;
    let text = world
        .text("SELECT id FROM people WHERE id > 9500 AND key IN (1, 2) AND remark LIKE 'what%'")
        .await;
    let (above, below) = text.split_once("PolicyBarrierExec").unwrap();
    assert!(!above.contains("FilterExec"), "{text}");
    let pruning = below.split_once("pruning_predicate").unwrap().1;
    for pushed in ["id_max", "key_min", "remark_min"] {
        assert!(pruning.contains(pushed), "{pushed}: {text}");
    }
    let joined = "SELECT count(*) FROM people p JOIN orders o ON p.id = o.id \
                  WHERE (p.key = 1 AND o.number < 9) OR (p.key = 2 AND o.number > 9)";
    let text = world.text(joined).await;
    assert_eq!(
        text.matches("FilterExec: region@2 = EU AND (key@1 = 1 OR key@1 = 2), ")
            .count(),
        1,
        "{text}"
    );
    let plan = world.plan("SELECT id FROM people WHERE id > 9500").await;
    collect(Arc::clone(&plan), world.session.task_ctx()).await.unwrap();
    let metrics = leaf(&plan).metrics().unwrap().aggregate_by_name().to_string();
    assert!(
        metrics.contains("row_groups_pruned_statistics=5 total → 1 matched"),
        "{metrics}"
    );

    for kept in [
        "name = 'x'",
        "letter IS NULL",
        "amount + 1 = 2",
        "CAST(code AS INT) = 1",
        "upper(code) = 'A'",
        "code ILIKE 'a%'",
    ] {
        let text = world
            .text(&format!("SELECT id FROM people WHERE {kept} OR id = 4"))
            .await;
        let (above, below) = text.split_once("PolicyBarrierExec").unwrap();
        assert!(
            above.contains("FilterExec") && !below.contains("id@0 = 4"),
            "{kept}: {text}"
        );
    }
}

#[tokio::test]
async fn columns_masks_and_limits_are_pruned_below_the_barrier() {
    let world = World::new().await;
    let text = world.text("SELECT id FROM people LIMIT 5").await;
    assert!(
        text.contains("projection=[id, region]") && !text.contains("minerva"),
        "{text}"
    );
    assert!(
        text.contains("fetch=5") && text.split_once("PolicyBarrierExec").unwrap().1.contains("fetch=5"),
        "{text}"
    );
    let text = world.text("SELECT count(*) FROM people").await;
    assert!(
        text.contains("projection=[region]") && text.contains("AggregateExec"),
        "{text}"
    );
    let text = world
        .text("SELECT a.id FROM people a JOIN people b ON a.id = b.id WHERE a.amount + 1 > b.amount")
        .await;
    assert!(!text.contains("name") && !text.contains("remark"), "{text}");
}

#[tokio::test]
async fn joins_use_estimates_and_their_dynamic_filters_reach_the_scan() {
    let world = World::new().await;
    for sql in [
        "SELECT count(*) FROM people p JOIN orders o ON p.id = o.id",
        "SELECT count(*) FROM orders o JOIN people p ON p.id = o.id",
    ] {
        let text = world.text(sql).await;
        let build = text.split_once("HashJoinExec").unwrap().1;
        assert!(
            build.find("/orders/") < build.find("/people/"),
            "the smaller side is built: {text}"
        );
        assert!(
            build.split_once("/people/").unwrap().1.contains("DynamicFilter"),
            "{text}"
        );
    }
    let text = world
        .text("SELECT count(*) FROM shops s JOIN people p ON p.id = s.id")
        .await;
    let build = text.split_once("HashJoinExec").unwrap().1;
    assert!(build.find("/people/") < build.find("/shops/"), "{text}");

    let plan = world
        .plan("SELECT count(*) FROM people p JOIN orders o ON p.id = o.id WHERE o.number < 2")
        .await;
    collect(Arc::clone(&plan), world.session.task_ctx()).await.unwrap();
    let text = displayable(plan.as_ref()).indent(true).to_string();
    assert!(text.contains("id@0 >= 0 AND id@0 <= 50"), "{text}");

    for sql in [
        "SELECT count(*) FROM orders o JOIN people p ON p.name = CAST(o.id AS VARCHAR)",
        "SELECT id, 10 / (key - 3) AS x FROM people ORDER BY x LIMIT 3",
        "SELECT id FROM people ORDER BY letter LIMIT 3",
    ] {
        let text = world.text(sql).await;
        let below = text.split_once("PolicyBarrierExec").unwrap().1;
        assert!(
            !below.contains("DynamicFilter") && !below.contains("SortExec"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn statistics_answer_no_aggregate() {
    let world = World::new().await;
    let raw = SessionContext::new();
    raw.register_table("people", world.raw("people").await).unwrap();
    let sql = "SELECT count(*), max(id), min(amount), max(name), count(DISTINCT key) FROM people";
    let plan = raw
        .sql("SELECT count(*), max(id) FROM people")
        .await
        .unwrap()
        .create_physical_plan()
        .await
        .unwrap();
    assert!(
        displayable(plan.as_ref())
            .indent(true)
            .to_string()
            .contains("PlaceholderRowExec"),
        "the raw table would"
    );
    assert!(!world.text(sql).await.contains("PlaceholderRowExec"));
    assert!(
        world
            .answer(sql)
            .await
            .unwrap()
            .iter()
            .any(|row| row.contains("9000") && row.contains("REDACTED"))
    );
}

#[tokio::test]
async fn a_table_that_is_scanned_and_not_inlined_is_governed_all_the_same() {
    let world = World::new().await;
    let people: Arc<dyn TableProvider> = world.session.table_provider("people").await.unwrap();
    let state = world.session.state();
    let fails_on_hidden =
        datafusion::logical_expr::cast(col("people.code"), datafusion::arrow::datatypes::DataType::Int64);
    let filters = [fails_on_hidden.lt(lit(50_i64)), col("name").eq(lit("REDACTED"))];
    let plan = people.scan(&state, Some(&vec![3, 0]), &filters, Some(7)).await.unwrap();
    verify(&plan, &world.grants, &World::leaf).unwrap();
    let batches = collect(plan, state.task_ctx()).await.unwrap();
    assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 7);
    assert_eq!(batches.first().unwrap().schema().field(0).name(), "name");
    assert!(people.constraints().is_none() && people.statistics().is_none() && people.get_table_definition().is_none());
    for table in ["people", "orders"] {
        let table = world.session.table_provider(table).await.unwrap();
        for refused in [table.truncate(&state).await, table.delete_from(&state, vec![]).await] {
            assert!(refused.unwrap_err().to_string().contains("is read-only"));
        }
    }
}

#[tokio::test]
async fn an_explained_plan_stops_at_the_barrier() {
    let world = World::new().await;
    let sql = "SELECT name, count(*) FROM people WHERE upper(code) <> 'A' AND id > 5 GROUP BY name";
    let plan = world.plan(sql).await;
    collect(Arc::clone(&plan), world.session.task_ctx()).await.unwrap();
    let redacted = redact_plan(&plan).unwrap();
    let text = datafusion::physical_plan::display::DisplayableExecutionPlan::with_metrics(redacted.as_ref())
        .set_show_statistics(true)
        .indent(true)
        .to_string();
    let scan =
        "GovernedScan: dataos://lake:main/people, columns=[name, code], filters=[lake.main.people.id > Int64(5)]";
    assert!(text.contains(scan), "{text}");
    assert!(
        text.contains("FilterExec: upper(code@1) != A") && text.contains("output_rows="),
        "{text}"
    );
    for secret in [
        "EU",
        "region",
        "parquet",
        "minerva",
        "bytes",
        "DataSourceExec",
        "10000",
        "REDACTED",
    ] {
        assert!(!text.contains(secret), "`{secret}`: {text}");
    }
}

#[tokio::test]
async fn the_verifier_refuses_what_is_not_granted_or_not_behind_its_barrier() {
    let world = World::new().await;
    let plan = world
        .plan("SELECT count(*) FROM people p JOIN orders o ON p.id = o.id WHERE o.id > (SELECT min(id) FROM people)")
        .await;
    verify(&plan, &world.grants, &World::leaf).unwrap();
    let refused =
        |plan: &Arc<dyn ExecutionPlan>, grants: &Grants, leaf: &dyn Fn(&dyn ExecutionPlan) -> Leaf, why: &str| {
            let error = verify(plan, grants, leaf).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
    let people = world.plan("SELECT id FROM people").await;
    refused(&people, &Grants::default(), &World::leaf, "is not granted");
    refused(
        &plan,
        &world.grants,
        &|node| Leaf::Unknown(node.name().to_owned()),
        "nobody knows what `DataSourceExec` reads",
    );
    refused(
        &plan,
        &world.grants,
        &|_| Leaf::Dataset(vec![]),
        "a dataset without an address",
    );
    refused(
        &plan,
        &world.grants,
        &|_| Leaf::Dataset(vec![address("orders")]),
        "is read behind the barrier of",
    );
    // A statement that reads several tables needs every one of them, and none behind a barrier of another.
    let orders = world.plan("SELECT id FROM orders").await;
    verify(&orders, &world.grants, &|_| Leaf::Datasets(vec![address("orders")])).unwrap();
    for (plan, read, why) in [
        (&orders, vec!["orders", "people"], "is read outside a barrier"),
        (&orders, vec!["orders", "nothing"], "is read outside a barrier"),
        (&orders, vec![], "nobody knows what"),
        (&people, vec!["people", "orders"], "is read behind the barrier of"),
    ] {
        let read: Vec<Address> = read.into_iter().map(address).collect();
        refused(plan, &world.grants, &|_| Leaf::Datasets(read.clone()), why);
    }
    let mut others = Grants::default();
    others.add(address("orders"), "");
    others.add(address("people"), "00112233445566778899aabbccddeeff");
    refused(
        &plan,
        &others,
        &World::leaf,
        "was made for other policies or another user",
    );

    let barrier = find(&people).unwrap();
    refused(
        barrier.downcast_ref::<PolicyBarrierExec>().unwrap().input(),
        &world.grants,
        &World::leaf,
        "outside a barrier",
    );
    let twice = decode_barrier(&encode_barrier(barrier.as_ref()).unwrap(), &[Arc::clone(&barrier)]).unwrap();
    refused(&twice, &world.grants, &World::leaf, "a barrier lies behind the barrier");
    let mut open = world.grants.clone();
    open.add(address("people"), "");
    refused(&people, &open, &World::leaf, "is open and has a barrier");
}

#[tokio::test]
async fn a_predicate_without_a_column_is_not_evaluated_on_hidden_rows() {
    let world = World::new().await;
    let sql = "SELECT count(*) FROM people WHERE CAST(random() || 'x' AS INT) > 0";
    let text = world.text(sql).await;
    let (above, below) = text.split_once("PolicyBarrierExec").unwrap();
    assert!(above.contains("random()") && !below.contains("random()"), "{text}");
    assert!(
        world.answer(sql).await.unwrap_err().contains("Cannot cast"),
        "it is evaluated on visible rows"
    );
    let shown = world.session.sql(sql).await.unwrap().into_optimized_plan().unwrap();
    assert!(
        redact_logical_plan(shown)
            .unwrap()
            .display_indent()
            .to_string()
            .contains("filters=[CAST(CAST(random()")
    );
}

#[tokio::test]
async fn errors_from_below_a_barrier_say_nothing_of_the_data() {
    let world = World::new().await;
    let raw = SessionContext::new();
    raw.register_table("people", world.raw("people").await).unwrap();
    let failing = raw
        .sql("SELECT id, region, CAST(name AS INT) AS code FROM people")
        .await
        .unwrap()
        .into_view();
    let (failing, _) = world::govern("people", failing);
    world.session.register_table("failing", failing).unwrap();
    let error = world.run("SELECT sum(code) FROM failing").await.unwrap_err();
    assert!(
        !error.to_string().contains(CANARY) && !format!("{error:?}").contains("EU"),
        "{error}"
    );
    let hidden = GovernedError::of(&error).unwrap();
    assert!(
        hidden
            .to_string()
            .starts_with("table `dataos://lake:main/people` could not be read"),
        "{hidden}"
    );
    assert!(
        hidden.cause().to_string().contains(CANARY),
        "the operator's log has the cause"
    );

    let plan = world.plan("SELECT name FROM people").await;
    std::fs::remove_file(world.folder.path().join("people/1.parquet")).unwrap();
    let error = collect(plan, world.session.task_ctx()).await.unwrap_err();
    assert!(
        error.to_string().contains("not found"),
        "what says nothing of the data is told: {error}"
    );
}

#[tokio::test]
async fn bytes_that_leave_hold_no_hidden_value() {
    let world = World::new().await;
    let mut raw = Vec::new();
    let mut scrubbed = Vec::new();
    for batch in world
        .run("SELECT id, remark, letter, name FROM people WHERE id < 2000")
        .await
        .unwrap()
    {
        for (bytes, batch) in [(&mut raw, batch.clone()), (&mut scrubbed, scrub(&batch).unwrap())] {
            let mut writer = StreamWriter::try_new(&mut *bytes, &batch.schema()).unwrap();
            writer.write(&batch).unwrap();
            writer.finish().unwrap();
        }
        assert_eq!(scrub(&batch).unwrap(), batch);
    }
    let holds = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds(&raw, CANARY), "without scrubbing, buffers are sent as they are");
    assert!(!holds(&scrubbed, CANARY) && holds(&scrubbed, "what everybody may read of 7"));
}

fn find(plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    if plan.is::<PolicyBarrierExec>() {
        return Some(Arc::clone(plan));
    }
    plan.children().into_iter().find_map(find)
}

fn leaf(plan: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    match plan.children().first() {
        Some(child) => leaf(child),
        None => Arc::clone(plan),
    }
}

//! What is known of the values of columns, and what follows from it.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::physical_plan::ExecutionPlan;
use minerva_connectors::{ScanExec, estimated};

use crate::server::{Place, context, row_count, shared};

const FIGURES: &str = "CREATE TABLE figures AS SELECT i AS id, CASE WHEN i % 10 = 0 THEN 2 ELSE 1 END AS kind, date '2000-01-01' + i / 10 AS day,
        i::numeric(12, 2) / 4 AS amount, timestamp '2000-01-01' + i * interval '1 minute' AS at, CASE WHEN i % 4 > 0 THEN 'n' || i % 100 END AS note
        FROM generate_series(0, 19999) i;
    ANALYZE figures";

/// How many rows a scan expects.
async fn expected(place: &Place, condition: &str) -> usize {
    planned(place, estimated(place.table("figures").await), condition).await
}

async fn planned(place: &Place, table: Arc<dyn TableProvider>, condition: &str) -> usize {
    let context = context(&place.depots);
    context.register_table("figures", table).unwrap();
    let frame = context
        .sql(&format!("SELECT * FROM figures WHERE {condition}"))
        .await
        .unwrap();
    let plan = frame.create_physical_plan().await.unwrap();
    rows(&plan).unwrap_or_else(|| panic!("{condition}: nothing is expected"))
}

fn rows(plan: &Arc<dyn ExecutionPlan>) -> Option<usize> {
    match plan.downcast_ref::<ScanExec>() {
        Some(leaf) => leaf.rows().get_value().copied(),
        None => plan.children().into_iter().find_map(rows),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn estimates_come_from_what_the_database_knows() {
    let place = shared().database("figures", FIGURES).await;
    for (condition, actual) in [
        ("kind = 1", 18_000.0),
        ("kind = 2", 2_000.0),
        ("id = 77", 1.0),
        ("id >= 1000 AND id < 3000", 2_000.0),
        ("id BETWEEN 1000 AND 2999", 2_000.0),
        ("id < 5000 OR id > 15000", 10_000.0),
        ("amount < 1000", 4_000.0),
        ("day >= date '2000-04-10' AND day < date '2000-05-10'", 300.0),
        ("day < date '2002-09-27'", 10_000.0),
        ("at < timestamp '2000-01-02'", 1_440.0),
        ("note = 'n1'", 200.0),
        ("note IN ('n1', 'n2', 'n3')", 600.0),
        ("note IS NULL", 5_000.0),
        ("note IS NOT NULL", 15_000.0),
        ("kind = 2 AND id < 10000", 1_000.0),
    ] {
        let found = expected(&place, condition).await as f64;
        let near = (found + 20.0) / (actual + 20.0);
        assert!(
            (0.6..1.6).contains(&near),
            "{condition}: {found} rows are expected, there are {actual}"
        );
    }
}

/// The figures count rows that a policy hides: without being told that nothing governs a table nothing is planned by them.
#[tokio::test(flavor = "multi_thread")]
async fn no_plan_follows_from_figures_unless_the_table_is_open() {
    let place = shared().database("unfigured", FIGURES).await;
    for condition in ["kind = 1", "kind = 2", "id < 10", "id < 19000", "note IS NULL"] {
        let table = place.table("figures").await;
        assert_eq!(planned(&place, table, condition).await, 20_000, "{condition}");
    }
}

/// Some take the statistics away from everybody; that costs plans and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_tell_is_read_all_the_same() {
    let place = shared().database("untold", FIGURES).await;
    place
        .admin
        .batch_execute("REVOKE SELECT ON pg_catalog.pg_stats FROM public")
        .await
        .unwrap();
    assert_eq!(expected(&place, "kind = 1").await, 2_000);
    assert_eq!(row_count(&place.rows("figures").await.unwrap()), 20_000);
}

//! What is known of the values of columns, and what follows from it.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::physical_plan::ExecutionPlan;
use minerva_connectors::{ScanExec, estimated};

use crate::server::{Place, Server, context, row_count, shared};

const FIGURES: &str = "
    CREATE TABLE figures (id int PRIMARY KEY, code int NOT NULL UNIQUE, kind int NOT NULL, part int, size int, KEY (kind, size), KEY (part));
    INSERT INTO figures SELECT seq, seq + 5, seq % 50, nullif(seq % 200, 0), seq % 3 FROM seq_1_to_20000;
    ANALYZE TABLE figures;";

/// How many rows a scan expects.
async fn expected(place: &Place<'_>, condition: &str) -> usize {
    planned(place, estimated(place.table("figures").await), condition).await
}

async fn planned(place: &Place<'_>, table: Arc<dyn TableProvider>, condition: &str) -> usize {
    let context = context(&place.depots);
    context.register_table("figures", table).unwrap();
    let sql = format!("SELECT * FROM figures WHERE {condition}");
    let plan = context.sql(&sql).await.unwrap().create_physical_plan().await.unwrap();
    rows(&plan).unwrap_or_else(|| panic!("{condition}: nothing is expected"))
}

fn rows(plan: &Arc<dyn ExecutionPlan>) -> Option<usize> {
    match plan.downcast_ref::<ScanExec>() {
        Some(leaf) => leaf.rows().get_value().copied(),
        None => plan.children().into_iter().find_map(rows),
    }
}

#[track_caller]
fn near(found: usize, actual: f64, condition: &str) {
    let ratio = (found as f64 + 5.0) / (actual + 5.0);
    assert!(
        (0.33..3.0).contains(&ratio),
        "{condition}: {found} rows are expected, there are {actual}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_tell_how_many_values_there_are() {
    let place = shared().database("figures", FIGURES);
    for (condition, actual) in [
        ("id = 77", 1.0),
        ("code = 77", 1.0),
        ("kind = 7", 400.0),
        ("kind IN (7, 8)", 800.0),
        ("part = 7", 100.0),
    ] {
        near(expected(&place, condition).await, actual, condition);
    }
    // No index begins with it, and nothing was gathered.
    assert!(expected(&place, "size = 1").await > 500);
}

/// The figures count rows that a policy hides: without being told that nothing governs a table nothing is planned by them.
#[tokio::test(flavor = "multi_thread")]
async fn no_plan_follows_from_figures_unless_the_table_is_open() {
    let place = shared().database("unfigured", FIGURES);
    for condition in ["id = 1", "kind = 1", "part = 1"] {
        let table = place.table("figures").await;
        assert!(planned(&place, table, condition).await > 15_000, "{condition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_gathered_is_known_where_it_may_be_read() {
    let server = Server::start();
    let gathered = "ANALYZE TABLE figures PERSISTENT FOR ALL;";
    let place = server.database("gathered", &format!("{FIGURES} {gathered}"));
    assert!(
        expected(&place, "size < 1").await < 10_000,
        "as if nothing was gathered"
    );
    server.sql("mysql", "GRANT SELECT ON mysql.column_stats TO reader@'%'");
    // Another depot, which has not asked yet.
    let place = Place {
        depots: server.depots("127.0.0.1", "", "sslmode: disable", "reader", crate::server::PASSWORD),
        ..place
    };
    for (condition, actual) in [("size = 1", 6_667.0), ("id < 5000", 5_000.0), ("part IS NULL", 100.0)] {
        near(expected(&place, condition).await, actual, condition);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_which_nothing_may_be_known_is_read_all_the_same() {
    let place = shared().database("untold", FIGURES);
    // A right on one column only, and none on what was gathered.
    let reader = "CREATE USER untold@'%' IDENTIFIED BY 'untold'; GRANT SELECT (id) ON untold.figures TO untold@'%'";
    place.server.sql("mysql", reader);
    let place = Place {
        depots: place
            .server
            .depots("127.0.0.1", "", "sslmode: disable", "untold", "untold"),
        ..place
    };
    let frame = place.frame("figures").await.select_columns(&["id"]).unwrap();
    assert_eq!(row_count(&frame.collect().await.unwrap()), 20_000);
}

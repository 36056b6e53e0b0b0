//! Tables that change behind the depot's back: what was kept of them is never older than the question.

use arrow::util::pretty::pretty_format_batches;
use minerva_connectors::{ScanExec, Seen, Source, estimated};

use crate::server::{PASSWORD, Place, context, shared};

/// What a depot says of a table: its columns, how many rows it expects, and its rows; or why not.
async fn told(place: &Place) -> String {
    match place.find("public", "things").await {
        Err(error) => error.to_string(),
        Ok(None) => "nothing".to_owned(),
        Ok(Some(table)) => {
            let schema = table.schema();
            let context = context(&place.depots);
            let plan = estimated(table).scan(&context.state(), None, &[], None).await.unwrap();
            let expected = plan.downcast_ref::<ScanExec>().unwrap().rows();
            let rows = match place.rows("things").await {
                Ok(rows) => pretty_format_batches(&rows).unwrap().to_string(),
                Err(error) => error.to_string(),
            };
            format!("{:?}\n{expected:?}\n{rows}", schema.fields())
        }
    }
}

/// The columns of a table as it was last seen, and whether the depot says that it still is so; nothing where it is not remembered.
async fn remembered(source: &dyn Source) -> Option<(String, bool)> {
    let (table, state) = source.seen("public", "things")?;
    let seen = Seen {
        collection: "public".to_owned(),
        dataset: "things".to_owned(),
        state,
    };
    // Twice, as several tables are asked about.
    let is_so = source.are_as_seen(&[seen.clone(), seen]).await.unwrap();
    Some((format!("{:?}", table.schema().fields()), is_so))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_of_a_table_is_never_old() {
    let place = shared()
        .database(
            "changes",
            "CREATE ROLE changing NOLOGIN; CREATE TABLE things (id int4, name text, at date); INSERT INTO things VALUES (1, 'a', '2020-01-01');
             ANALYZE things",
        )
        .await;
    let before = told(&place).await;
    assert!(before.contains("2020-01-01"), "{before}");
    let mut last = before.clone();
    let source = place.source().await;
    let (mut were_old, mut were_new) = (0, 0);
    for (change, is_seen) in [
        (
            "INSERT INTO things SELECT 1, 'a', '2020-01-01' FROM generate_series(1, 99); ANALYZE things",
            true,
        ),
        (
            "DELETE FROM things WHERE ctid <> '(0,1)'; VACUUM FULL things; ANALYZE things",
            true,
        ),
        ("ALTER TABLE things ADD extra int8 NOT NULL DEFAULT 5", true),
        ("ALTER TABLE things ALTER extra DROP NOT NULL", true),
        ("ALTER TABLE things ALTER id TYPE int8", true),
        ("ALTER TABLE things RENAME name TO title", true),
        ("ALTER TABLE things DROP extra", true),
        ("ALTER TABLE things DROP title, ADD title numeric(7, 2) DEFAULT 3", true),
        ("ALTER TABLE things ALTER title TYPE numeric(9, 3)", true),
        (
            "REVOKE SELECT ON things FROM reader; GRANT SELECT (id) ON things TO reader",
            true,
        ),
        ("REVOKE SELECT (id) ON things FROM reader", true),
        ("GRANT SELECT ON things TO changing; GRANT changing TO reader", true),
        ("REVOKE changing FROM reader", true),
        ("GRANT SELECT ON things TO reader", true),
        ("REVOKE USAGE ON SCHEMA public FROM reader, public", true),
        ("GRANT USAGE ON SCHEMA public TO reader", true),
        ("ALTER TABLE things RENAME TO others", true),
        (
            "CREATE VIEW things AS SELECT id FROM others; GRANT SELECT ON things TO reader",
            true,
        ),
        ("CREATE OR REPLACE VIEW things AS SELECT id, at FROM others", true),
        (
            "CREATE OR REPLACE VIEW things AS SELECT id + 1 AS id, at FROM others",
            true,
        ),
        ("DROP VIEW things; ALTER TABLE others RENAME TO things", true),
        ("CREATE INDEX ON things (id)", false),
        (
            "CREATE TABLE part () INHERITS (things); INSERT INTO part (id) VALUES (77)",
            true,
        ),
        ("DROP TABLE part; DROP TABLE things", true),
        (
            "CREATE TABLE things (name text COLLATE \"C\"); GRANT SELECT ON things TO reader",
            true,
        ),
    ] {
        for statement in change.split("; ") {
            place.admin.batch_execute(statement).await.unwrap();
        }
        let kept = remembered(source.as_ref()).await;
        let now = told(&place).await;
        match kept {
            Some((columns, true)) => assert!(now.starts_with(&columns), "after {change}: {columns}"),
            Some((_, false)) => were_old += 1,
            None => {}
        }
        if let Some((columns, true)) = remembered(source.as_ref()).await {
            assert!(now.starts_with(&columns), "after {change}: {columns}");
            were_new += 1;
        }
        let anew = Place {
            depots: shared().depots("changes", "127.0.0.1", "sslmode: disable", "reader", PASSWORD),
            admin: shared().admin("changes").await,
        };
        assert_eq!(now, told(&anew).await, "after {change}");
        assert!(now != last || !is_seen, "after {change}: {now}");
        assert_eq!(now, told(&place).await, "after {change}, once more");
        last = now;
    }
    // Of the others nothing is remembered, or it was so once more.
    assert!(were_old >= 18 && were_new >= 18, "{were_old}, {were_new}");
}

/// A question costs the server no transaction of its own, which it would warn of.
#[tokio::test(flavor = "multi_thread")]
async fn questions_end_nothing_that_was_not_begun() {
    let place = shared().database("unbegun", "CREATE TABLE things (id int4)").await;
    for _ in 0..3 {
        place.table("things").await;
    }
    let last = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'unbegun' AND usename = 'reader' AND query LIKE '%ROLLBACK%'";
    assert_eq!(place.ask::<i64>(last).await, 0);
}

//! Files that come, go and change.

use std::fs;

use arrow::array::StringArray;
use datafusion::physical_plan::ExecutionPlanProperties;

use crate::support::{Lake, column, numbered, parquet, replace};

const SUMMARY: &str = "SELECT count(*), coalesce(sum(id), 0) FROM t WHERE id >= 0";

#[tokio::test]
async fn the_next_query_sees_every_change() {
    for extension in ["parquet", "csv"] {
        let lake = Lake::new();
        let write = |name: &str, from: i64, rows: i64| {
            let rows = numbered(from, rows);
            let bytes = if extension == "csv" {
                crate::support::csv(&rows)
            } else {
                parquet(&rows, 10)
            };
            lake.write(&format!("c/t/{name}.{extension}"), bytes);
        };
        write("1", 1, 1);
        assert_eq!(lake.ask(SUMMARY).await, ["1|1"]);
        assert_eq!(lake.ask(SUMMARY).await, ["1|1"]);
        write("2", 2, 1);
        assert_eq!(lake.ask(SUMMARY).await, ["2|3"], "a new file");
        // The same size, in the same instant, and more than once: no clock tells these apart.
        for id in 3..9 {
            write("2", id, 1);
            assert_eq!(lake.ask(SUMMARY).await, [format!("2|{}", 1 + id)], "a rewritten file");
        }
        fs::remove_file(lake.path(&format!("c/t/1.{extension}"))).unwrap();
        assert_eq!(lake.ask(SUMMARY).await, ["1|8"], "a removed file");
        fs::remove_dir_all(lake.path("c/t")).unwrap();
        assert!(lake.find("c", "t").await.unwrap().is_none(), "a removed dataset");
        write("1", 5, 2);
        assert_eq!(lake.ask(SUMMARY).await, ["2|11"], "a dataset that came back");
    }
}

#[tokio::test]
async fn an_older_file_in_place_of_another_is_a_change() {
    let lake = Lake::new();
    lake.parquet("aside/x.parquet", &numbered(7, 1));
    lake.parquet("c/t.parquet", &numbered(1, 1));
    let times = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    for file in ["aside/x.parquet", "c/t.parquet"] {
        fs::File::options()
            .write(true)
            .open(lake.path(file))
            .unwrap()
            .set_times(times)
            .unwrap();
    }
    assert_eq!(lake.ask(SUMMARY).await, ["1|1"]);
    fs::rename(lake.path("aside/x.parquet"), lake.path("c/t.parquet")).unwrap();
    assert_eq!(lake.ask(SUMMARY).await, ["1|7"]);
}

#[tokio::test]
async fn new_columns_and_types_are_seen() {
    let lake = Lake::new();
    lake.parquet("c/t/1.parquet", &numbered(1, 1));
    assert_eq!(lake.ask("SELECT * FROM t").await, ["1|row 1"]);
    lake.parquet("c/t/2.parquet", &column("more", StringArray::from(vec!["x"])));
    assert_eq!(
        lake.ask("SELECT * FROM t ORDER BY id").await,
        ["1|row 1|NULL", "NULL|NULL|x"]
    );
    lake.parquet("c/t/2.parquet", &column("id", StringArray::from(vec!["x"])));
    let error = lake.find("c", "t").await.unwrap_err().to_string();
    assert_eq!(
        error,
        "depot `lake`: `c.t`: column `id` is Int64 in file `c/t/1.parquet` and Utf8View in file `c/t/2.parquet`; \
         give it one type, or make two datasets of the files"
    );
    fs::remove_file(lake.path("c/t/2.parquet")).unwrap();
    assert_eq!(lake.ask("SELECT * FROM t").await, ["1|row 1"]);
}

#[tokio::test]
async fn nothing_is_made_anew_when_nothing_changed() {
    let lake = Lake::new();
    lake.parquet("c/t/1.parquet", &numbered(1, 1));
    let past = std::time::SystemTime::now();
    // What changed this very moment is not trusted; wait for a table that is.
    loop {
        let (one, other) = (lake.table("c", "t").await, lake.table("c", "t").await);
        if std::sync::Arc::ptr_eq(&one, &other) {
            break;
        }
        assert!(
            past.elapsed().unwrap().as_secs() < 10,
            "the table is made anew each time"
        );
    }
}

#[tokio::test]
async fn a_file_that_changes_under_a_query_is_an_error() {
    let changed = "depot `lake`: `c.t`: file `c/t.parquet` changed while the query ran; run it again";
    let lake = Lake::new();
    lake.parquet("c/t.parquet", &numbered(0, 100));
    let plan = lake.plan("SELECT * FROM t").await;
    replace(&lake.path("c/t.parquet"), parquet(&numbered(0, 100), 50));
    let error = lake.run(plan).await.unwrap_err();
    assert_eq!(minerva_connectors::Error::find(&error).unwrap().to_string(), changed);
    // In the midst of it: the first rows are read, the rest is another file's.
    lake.write("c/t.parquet", parquet(&numbered(0, 100_000), 1000));
    let plan = lake.plan("SELECT * FROM t").await;
    assert!(plan.output_partitioning().partition_count() >= 1);
    let mut rows = datafusion::physical_plan::execute_stream(plan, lake.context.task_ctx()).unwrap();
    futures::StreamExt::next(&mut rows).await.unwrap().unwrap();
    replace(&lake.path("c/t.parquet"), parquet(&numbered(7, 100_000), 1000));
    let rest: Result<Vec<_>, _> = futures::TryStreamExt::try_collect(rows).await;
    assert_eq!(
        minerva_connectors::Error::find(&rest.unwrap_err()).unwrap().to_string(),
        changed
    );
    let plan = lake.plan("SELECT * FROM t").await;
    fs::remove_file(lake.path("c/t.parquet")).unwrap();
    let error = lake.run(plan).await.unwrap_err();
    let expected = "depot `lake`: `c.t`: file `c/t.parquet` is gone; run the query again";
    assert_eq!(minerva_connectors::Error::find(&error).unwrap().to_string(), expected);
}

//! Where datasets are found, and where they are not.

use minerva_connectors::{LeafSource, leaf_addresses};
use minerva_resources::Address;

use crate::support::{Lake, numbered, parquet, scanned};

#[tokio::test]
async fn folders_are_collections_and_datasets() {
    let lake = Lake::new();
    for file in [
        "loose.csv",
        "retail/city.csv.gz",
        "retail/orders/2024/1.csv",
        "retail/orders/2.csv",
        "retail/readme.md",
        "retail/.hidden.csv",
        "retail/_hidden/1.csv",
        "empty/x.md",
        ".git/x.csv",
        "notes.md",
    ] {
        lake.write(file, "a\n1\n");
    }
    let source = lake.source().await;
    assert_eq!(source.collections().await.unwrap(), ["empty", "none", "retail"]);
    assert_eq!(source.datasets("none").await.unwrap(), ["loose"]);
    assert_eq!(source.datasets("retail").await.unwrap(), ["city", "orders"]);
    assert!(source.datasets("empty").await.unwrap().is_empty());
    assert!(source.datasets("loose").await.unwrap().is_empty());
    for (collection, dataset) in [
        ("retail", "_hidden"),
        ("retail", ".hidden"),
        ("retail", "CITY"),
        ("retail", "readme"),
    ] {
        assert!(
            lake.find(collection, dataset).await.unwrap().is_none(),
            "{collection}.{dataset}"
        );
    }
    let plan = lake
        .table("retail", "orders")
        .await
        .scan(&lake.context.state(), None, &[], None)
        .await
        .unwrap();
    assert_eq!(scanned(&plan), ["1.csv", "2.csv"]);
    let traced = leaf_addresses(plan.as_ref(), &lake.depots);
    assert_eq!(
        traced,
        LeafSource::Dataset(vec![Address::new("lake", "retail", "orders")])
    );
}

#[tokio::test]
async fn with_a_format_every_file_counts() {
    let lake = Lake::with("format: CSV");
    lake.write("c/t/part-0000", "a\n1\n");
    lake.write("c/t/part-0001.dat", "a\n2\n");
    lake.write("c/t/_SUCCESS", "");
    lake.write("c/u.tbl", "a\n3\n");
    assert_eq!(lake.ask("SELECT sum(a) FROM t").await, ["3"]);
    assert_eq!(lake.source().await.datasets("c").await.unwrap(), ["t", "u"]);
}

#[tokio::test]
async fn names_lead_nowhere_else() {
    let lake = Lake::new();
    lake.write("c/t.csv", "a\n1\n");
    lake.write("../secret/t.csv", "a\n1\n");
    for (collection, dataset) in [
        ("..", "secret"),
        ("../secret", "t"),
        ("c", "../c/t"),
        ("c", "../../secret/t"),
        ("", "c"),
        (".", "c"),
        ("c", ""),
        ("c", "t.csv"),
    ] {
        assert!(
            lake.find(collection, dataset).await.unwrap().is_none(),
            "{collection:?}.{dataset:?}"
        );
    }
}

#[cfg(unix)]
#[tokio::test]
async fn links_lead_nowhere_else() {
    use std::os::unix::fs::symlink;
    let lake = Lake::new();
    lake.write("c/t.csv", "a\n1\n");
    lake.write("c/d/1.csv", "a\n1\n");
    lake.write("../secret/t.csv", "a\n1\n");
    symlink("../../secret/t.csv", lake.path("c/out.csv")).unwrap();
    symlink("../../secret", lake.path("c/folder")).unwrap();
    symlink("../../../secret/t.csv", lake.path("c/d/2.csv")).unwrap();
    symlink("t.csv", lake.path("c/inside.csv")).unwrap();
    symlink("../secret", lake.path("outside")).unwrap();
    assert_eq!(lake.source().await.datasets("c").await.unwrap(), ["d", "inside", "t"]);
    assert_eq!(lake.source().await.collections().await.unwrap(), ["c"]);
    assert!(lake.find("c", "inside").await.unwrap().is_some());
    for (collection, dataset) in [("c", "out"), ("c", "folder"), ("c", "d"), ("outside", "t")] {
        let error = lake.find(collection, dataset).await.unwrap_err().to_string();
        assert!(
            error.contains("leads out of the depot's folder"),
            "{collection}.{dataset}: {error}"
        );
    }
    for target in [".", "..", "../../..", "1.csv"] {
        let lake = Lake::new();
        lake.write("c/d/1.csv", "a\n1\n");
        lake.write("c/d/x/2.csv", "a\n1\n");
        symlink(target, lake.path("c/d/x/again")).unwrap();
        symlink("1.csv", lake.path("c/d/copy.csv")).unwrap();
        let error = lake.find("c", "d").await.unwrap_err().to_string();
        assert!(error.contains("is a symbolic link "), "{target}: {error}");
        std::fs::remove_file(lake.path("c/d/copy.csv")).unwrap();
        if target != "1.csv" {
            let error = lake.find("c", "d").await.unwrap_err().to_string();
            assert!(
                error.contains("`c/d/x/again` is a symbolic link to what is in the dataset anyway"),
                "{target}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn what_cannot_be_one_table_is_refused() {
    let check = async |files: &[&str], expected: &str| {
        let lake = Lake::new();
        for file in files {
            lake.write(file, parquet(&numbered(0, 1), 1));
        }
        let error = lake.find("c", "t").await.unwrap_err().to_string();
        assert_eq!(error, format!("depot `lake`: `c.t`: {expected}"));
    };
    check(
        &["c/t.parquet", "c/t.csv"],
        "both `t.csv` and `t.parquet` are called that; rename one of them",
    )
    .await;
    check(
        &["c/t.parquet", "c/t/1.parquet"],
        "both `t` and `t.parquet` are called that; rename one of them",
    )
    .await;
    check(
        &["c/t/1.parquet", "c/t/2.csv"],
        "file `c/t/1.parquet` is PARQUET and file `c/t/2.csv` is CSV; the files of one dataset have one format",
    )
    .await;
    check(
        &["c/t/1.parquet", "c/t/n=1/2.parquet"],
        "file `c/t/1.parquet` lies in the partition folders [] and file `c/t/n=1/2.parquet` in [n]; all files need the same ones",
    )
    .await;
    let lake = Lake::new();
    lake.write("c/t/_delta_log/0.json", "{}");
    lake.parquet("c/t/1.parquet", &numbered(0, 1));
    assert!(
        lake.find("c", "t")
            .await
            .unwrap_err()
            .to_string()
            .contains("is a Delta Lake table")
    );
    lake.write("c/u/notes.md", "");
    assert!(
        lake.find("c", "u")
            .await
            .unwrap_err()
            .to_string()
            .contains("has no data files")
    );
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_named() {
    let lake = Lake::new();
    std::fs::remove_dir(lake.path("")).unwrap();
    let error = lake.depots.open("lake").await.unwrap_err().to_string();
    assert!(
        error.starts_with("depot `lake`: the folder `") && error.ends_with("` does not exist"),
        "{error}"
    );
}

#[tokio::test]
async fn partition_folders_are_columns_and_decide_what_is_read() {
    let lake = Lake::new();
    for (folder, from) in [
        ("year=2023/city=Oslo", 0),
        ("year=2024/city=Bern", 10),
        ("year=2024/city=__HIVE_DEFAULT_PARTITION__", 20),
    ] {
        lake.parquet(&format!("c/t/{folder}/{from}.parquet"), &numbered(from, 10));
    }
    assert_eq!(
        lake.ask("SELECT year, city, count(*), min(id) FROM t GROUP BY year, city ORDER BY 4")
            .await,
        ["2023|Oslo|10|0", "2024|Bern|10|10", "2024|NULL|10|20"]
    );
    let check = async |filter: &str, files: &[&str], rows: &str| {
        let plan = lake.plan(&format!("SELECT id FROM t WHERE {filter}")).await;
        assert_eq!(scanned(&plan), files, "{filter}");
        assert_eq!(
            lake.ask(&format!("SELECT count(*) FROM t WHERE {filter}")).await,
            [rows],
            "{filter}"
        );
    };
    check("year = 2024", &["10.parquet", "20.parquet"], "20").await;
    check("year = '2023'", &["0.parquet"], "10").await;
    check("city IS NULL", &["20.parquet"], "10").await;
    check("city <> 'Oslo'", &["10.parquet"], "10").await;
    check("year IN (2022, 2023) AND id < 3", &["0.parquet"], "3").await;
    check("upper(city) LIKE 'B%'", &["10.parquet"], "10").await;
    check(
        "year = 2024 OR id = 1",
        &["0.parquet", "10.parquet", "20.parquet"],
        "21",
    )
    .await;
    assert_eq!(lake.ask("SELECT count(*) FROM t WHERE year = 1999").await, ["0"]);
    assert_eq!(
        lake.ask("SELECT count(city), max(city), max(year) FROM t").await,
        ["20|Oslo|2024"]
    );
}

#[tokio::test]
async fn pruned_files_are_not_opened() {
    let lake = Lake::new();
    let rows = numbered(0, 10_000);
    lake.write("c/t/day=2024-01-01/1.parquet", parquet(&rows, 10_000));
    let mut damaged = parquet(&rows, 10_000);
    damaged[4..2000].fill(0xFF);
    lake.write("c/t/day=2024-01-02/2.parquet", damaged);
    assert_eq!(
        lake.ask("SELECT count(name) FROM t WHERE day < DATE '2024-01-02' AND name <> ''")
            .await,
        ["10000"]
    );
    assert!(
        lake.fails("SELECT count(name) FROM t WHERE name <> '' AND id >= 0")
            .await
            .contains("2.parquet")
    );
}

#[tokio::test]
async fn a_partition_column_hides_the_column_of_the_files() {
    for format in ["csv", "json", "parquet"] {
        let lake = Lake::new();
        match format {
            "csv" => lake.write("c/t/id=7/1.csv", "id,name\n1,x\n"),
            "json" => lake.write("c/t/id=7/1.json", "{\"id\":1,\"name\":\"x\"}\n"),
            _ => lake.parquet("c/t/id=7/1.parquet", &numbered(1, 1)),
        }
        assert_eq!(
            lake.ask("SELECT id, count(name) FROM t GROUP BY id").await,
            ["7|1"],
            "{format}"
        );
    }
}

#[tokio::test]
async fn odd_names_are_names() {
    let lake = Lake::new();
    for name in [
        "a b",
        "100%",
        "%41",
        "q?x=1",
        "#",
        "\u{e4}\u{1f600}",
        "a'b\"c",
        "[x]",
        "a\\b",
        "~",
        "CASE",
    ] {
        lake.write(&format!("{name}/{name}/{name}.csv"), "a\n1\n");
        let table = lake.table(name, name).await;
        let plan = table.scan(&lake.context.state(), None, &[], None).await.unwrap();
        let traced = leaf_addresses(plan.as_ref(), &lake.depots);
        assert_eq!(traced, LeafSource::Dataset(vec![Address::new("lake", name, name)]));
        assert_eq!(
            lake.run(plan)
                .await
                .unwrap()
                .iter()
                .map(|rows| rows.num_rows())
                .sum::<usize>(),
            1,
            "{name}"
        );
    }
    lake.write("c/t/x#1", "");
    lake.write("c/u/x#1.csv", "a\n1\n");
    assert!(lake.find("c", "u").await.unwrap().is_some());
}

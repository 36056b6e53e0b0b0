//! Damaged files: a clear error with names and without values, never a panic and never a short answer.

use crate::support::{Lake, arrow_file, arrow_stream, avro, compressed, csv, json, numbered, parquet, truncated};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;

const ALL: &str = "SELECT count(id), count(name) FROM t WHERE id >= 0 OR name <> ''";

async fn check(name: &str, bytes: impl AsRef<[u8]>, expected: &str) {
    let lake = Lake::new();
    lake.write(&format!("c/t/{name}"), bytes);
    let error = lake.fails(ALL).await;
    assert_eq!(error, format!("depot `lake`: `c.t`: file `c/t/{name}` {expected}"));
}

#[tokio::test]
async fn truncated_files_are_named() {
    let rows = numbered(0, 20_000);
    let lake = Lake::new();
    lake.write("c/t/x.parquet", truncated(&parquet(&rows, 5000)));
    let error = lake.fails(ALL).await;
    assert!(
        error.starts_with("depot `lake`: `c.t`: file `c/t/x.parquet` is damaged or is not Parquet: "),
        "{error}"
    );
    check(
        "x.arrow",
        truncated(&arrow_file(&rows)),
        "is damaged or is not an Arrow file",
    )
    .await;
    check(
        "x.ipc",
        truncated(&arrow_stream(&rows)),
        "is damaged or is not an Arrow file",
    )
    .await;
    check("x.avro", truncated(&avro(&rows)), "is damaged or is not an Avro file").await;
    let packed = compressed(csv(&rows), FileCompressionType::GZIP).await;
    check(
        "x.csv.gz",
        truncated(&packed),
        "is damaged: it cannot be decompressed to its end",
    )
    .await;
    let packed = compressed(json(&rows), FileCompressionType::ZSTD).await;
    check(
        "x.json.zst",
        truncated(&packed),
        "is damaged: it cannot be decompressed to its end",
    )
    .await;
    check("x.parquet", b"", "is empty and is not Parquet").await;
    check("x.csv", "id,name\n1,\"x\n2,y\n", "ends inside a quoted value").await;
}

#[tokio::test]
async fn files_that_are_something_else_are_named() {
    let text = "id,name\n1,x\n".repeat(100);
    check("x.arrow", &text, "is damaged or is not an Arrow file").await;
    check("x.avro", &text, "is damaged or is not an Avro file").await;
    check("x.json", &text, "is not JSON with one object a line").await;
    let lake = Lake::new();
    lake.write("c/t/x.parquet", &text);
    assert!(
        lake.fails(ALL)
            .await
            .contains("file `c/t/x.parquet` is damaged or is not Parquet")
    );
}

#[tokio::test]
async fn damaged_pages_are_named_and_never_panic() {
    type Write = fn(&arrow::array::RecordBatch) -> Vec<u8>;
    let writers: [(&str, Write); 3] = [
        ("parquet", |rows| parquet(rows, 5000)),
        ("arrow", arrow_file),
        ("avro", avro),
    ];
    let rows = numbered(0, 20_000);
    for (extension, write) in writers {
        let good = write(&rows);
        for part in 1..16 {
            let mut bytes = good.clone();
            let at = bytes.len() * part / 16;
            bytes[at..at + 64]
                .iter_mut()
                .enumerate()
                .for_each(|(at, byte)| *byte = byte.wrapping_mul(31).wrapping_add(at as u8));
            let lake = Lake::new();
            lake.write(&format!("c/t.{extension}"), bytes);
            // Without checksums a changed value may pass for another one; the number of rows may not change unnoticed.
            let table = match lake.find("c", "t").await {
                Ok(table) => table.unwrap(),
                Err(error) => {
                    assert!(
                        error.to_string().contains(&format!("file `c/t.{extension}`")),
                        "{error}"
                    );
                    continue;
                }
            };
            let plan = table.scan(&lake.context.state(), None, &[], None).await.unwrap();
            match lake.run(plan).await {
                Ok(rows) => assert_eq!(
                    rows.iter().map(|rows| rows.num_rows()).sum::<usize>(),
                    20_000,
                    "{extension} {part}"
                ),
                Err(error) => {
                    let named = minerva_connectors::Error::find(&error)
                        .map(ToString::to_string)
                        .unwrap_or_default();
                    assert!(
                        named.contains(&format!("file `c/t.{extension}`")),
                        "{extension} {part}: {error}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn bad_lines_and_values_are_located_but_not_shown() {
    check("x.csv", "id,name\n1,x\n2\n", "has 1 value in line 3; expected 2").await;
    check("x.csv", "id,id\n1,2\n", "has two columns `id` in its header").await;
    check(
        "x.csv",
        "id,\n1,2\n",
        "has no name for column 2 in its header; set `header: false` if it has none",
    )
    .await;
    let rows = "1,x\n".repeat(5000);
    check(
        "x.csv",
        format!("id,name\n{rows}3,y,z\n"),
        "has 3 values in line 5002; expected 2",
    )
    .await;
    check(
        "x.csv",
        format!("id,name\n{rows}secret,y\n"),
        "has a value in column `id` (line 5002) that is not of the column's type; the type was guessed from the first \
         rows, see `sample` and `null`",
    )
    .await;
    let mut bytes = format!("id,name\n{rows}").into_bytes();
    bytes.extend(b"1,\xff\n");
    check("x.csv", bytes, "has bytes that are not UTF-8 (line 5002)").await;
    let rows = "{\"id\":1,\"name\":\"x\"}\n".repeat(5000);
    check(
        "x.json",
        format!("{rows}{{\"id\":\"secret\"}}\n"),
        "has a value in column `id` (after row 0) that is not of the column's type; the type was found from the first \
         rows, see `sample`",
    )
    .await;
    check(
        "x.json",
        format!("{rows}{{\"id\":1,\n"),
        "is not JSON with one object a line (after row 0)",
    )
    .await;
    check(
        "x.json",
        "[{\"id\":1},{\"id\":2}]\n",
        "is not JSON with one object a line",
    )
    .await;
}

#[tokio::test]
async fn the_users_own_errors_stay_theirs() {
    for (extension, bytes) in [
        ("parquet", parquet(&numbered(0, 10), 10)),
        ("csv", csv(&numbered(0, 10))),
    ] {
        let lake = Lake::new();
        lake.write(&format!("c/t.{extension}"), bytes);
        for pushed in [false, true] {
            lake.context
                .state_ref()
                .write()
                .config_mut()
                .options_mut()
                .execution
                .parquet
                .pushdown_filters = pushed;
            let plan = lake.plan("SELECT id FROM t WHERE 10 / (id - 5) > 0").await;
            let error = lake.run(plan).await.unwrap_err();
            assert!(minerva_connectors::Error::find(&error).is_none(), "{error}");
            assert!(
                ["Divide by zero", "DivideByZero"]
                    .iter()
                    .any(|text| error.to_string().contains(text)),
                "{error}"
            );
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn files_that_may_not_be_read_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let lake = Lake::new();
    lake.write("c/t.csv", "a\n1\n");
    std::fs::set_permissions(lake.path("c/t.csv"), std::fs::Permissions::from_mode(0o0)).unwrap();
    // The superuser may read everything.
    if std::fs::File::open(lake.path("c/t.csv")).is_err() {
        assert!(
            lake.fails("SELECT * FROM t")
                .await
                .contains("file `c/t.csv` cannot be read: the operating system denies it")
        );
    }
}

//! What is in a file: every format, compression and setting.

use arrow::array::{Float64Array, Int32Array, Int64Array, StringArray};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use minerva_connectors::conformance::{Failure, Sample, Subject, check, check_server, samples};

use crate::support::{Lake, arrow_file, arrow_stream, avro, column, compressed, csv, json, numbered, parquet};

const SUMMARY: &str = "SELECT count(*), count(id), sum(id), min(name), max(name) FROM t";
const EXPECTED: &str = "5000|5000|12497500|row 0|row 999";

#[tokio::test]
async fn every_format_is_read() {
    let rows = numbered(0, 5000);
    let files = [
        ("t.parquet", parquet(&rows, 1000)),
        ("t.arrow", arrow_file(&rows)),
        ("t.feather", arrow_stream(&rows)),
        ("t.avro", avro(&rows)),
        ("t.csv", csv(&rows)),
        ("t.json", json(&rows)),
        ("t.ndjson", json(&rows)),
    ];
    for (name, bytes) in files {
        let lake = Lake::new();
        lake.write(&format!("c/{name}"), bytes);
        assert_eq!(lake.ask(SUMMARY).await, [EXPECTED], "{name}");
        assert_eq!(lake.ask("SELECT count(*) FROM t").await, ["5000"], "{name}");
        assert_eq!(
            lake.ask("SELECT name, id + 1 FROM t WHERE id = 4999").await,
            ["row 4999|5000"],
            "{name}"
        );
        assert_eq!(
            lake.ask("SELECT id FROM t ORDER BY id LIMIT 2").await,
            ["0", "1"],
            "{name}"
        );
    }
}

#[tokio::test]
async fn every_compression_is_read() {
    let compressions = [
        ("gz", FileCompressionType::GZIP),
        ("bz2", FileCompressionType::BZIP2),
        ("xz", FileCompressionType::XZ),
        ("zst", FileCompressionType::ZSTD),
    ];
    for (extension, by) in compressions {
        for (format, bytes) in [("csv", csv(&numbered(0, 5000))), ("json", json(&numbered(0, 5000)))] {
            let bytes = compressed(bytes, by).await;
            let lake = Lake::new();
            lake.write(&format!("c/t.{format}.{extension}"), &bytes);
            assert_eq!(lake.ask(SUMMARY).await, [EXPECTED], "{format}.{extension}");
        }
    }
    let lake = Lake::with("format: CSV, compression: gzip");
    lake.write(
        "c/t/part-0",
        compressed(csv(&numbered(0, 5000)), FileCompressionType::GZIP).await,
    );
    assert_eq!(lake.ask(SUMMARY).await, [EXPECTED]);
    // Several compressed files in one, as `cat` makes them.
    let lake = Lake::with("header: false");
    let mut twice = compressed(b"1\n2\n".to_vec(), FileCompressionType::GZIP).await;
    twice.extend(compressed(b"3\n".to_vec(), FileCompressionType::GZIP).await);
    lake.write("c/t.csv.gz", twice);
    assert_eq!(lake.ask("SELECT sum(column_1) FROM t").await, ["6"]);
}

#[tokio::test]
async fn csv_settings_are_followed() {
    let check = async |settings: &str, name: &str, text: &str, sql: &str, expected: &[&str]| {
        let lake = Lake::with(settings);
        lake.write(&format!("c/{name}"), text);
        assert_eq!(lake.ask(sql).await, expected, "{settings}: {text:?}");
    };
    let all = "SELECT * FROM t";
    check("", "t.csv", "\u{feff}a,b\r\n1,x\r\n", all, &["1|x"]).await;
    check("", "t.tsv", "a\tb\n1\tx,y\n", all, &["1|x,y"]).await;
    check(
        "header: false",
        "t.csv",
        "1,x\n2,y\n",
        "SELECT column_2, column_1 FROM t",
        &["x|1", "y|2"],
    )
    .await;
    check("delimiter: '|'", "t.csv", "a|b\n1|x\n", all, &["1|x"]).await;
    check("delimiter: '\\t'", "t.csv", "a\tb\n1\tx\n", all, &["1|x"]).await;
    check("quote: \"'\"", "t.csv", "a,b\n1,'x,''y'\n", all, &["1|x,'y"]).await;
    check("escape: '\\'", "t.csv", "a,b\n1,\"x\\\"y\"\n", all, &["1|x\"y"]).await;
    check(
        "null: NA",
        "t.csv",
        "a,b\n1,NA\nNA,NAN\n,z\n",
        all,
        &["1|NULL", "NULL|NAN", "NULL|z"],
    )
    .await;
    check("null: '\\N'", "t.csv", "a,b\n1,\\N\n", all, &["1|NULL"]).await;
    check(
        "",
        "t.csv",
        "a,b\n1,\"x\ny\"\n2,z\n",
        "SELECT count(*), sum(a) FROM t",
        &["2|3"],
    )
    .await;
    // Types are those of the sample; with all rows looked at there is nothing to be surprised by.
    let late = format!("a\n{}x\n", "1\n".repeat(5000));
    check("sample: 0", "t.csv", &late, "SELECT max(a) FROM t", &["x"]).await;
}

#[tokio::test]
async fn text_columns_have_one_type_over_all_files() {
    let lake = Lake::new();
    lake.write("c/t/1.csv", "a,b,c\n1,2,true\n");
    lake.write("c/t/2.csv", "c,b,d\nfalse,x,2024-01-01\n");
    lake.write("c/t/3.csv", "");
    lake.write("c/t/4.csv", "a,b\n2.5,3\n");
    assert_eq!(
        lake.ask("SELECT a, b, c, d FROM t ORDER BY b").await,
        ["1.0|2|true|NULL", "2.5|3|NULL|NULL", "NULL|x|false|2024-01-01"]
    );
    let lake = Lake::new();
    lake.write("c/t/1.json", "{\"a\":1,\"b\":{\"x\":1}}\n");
    lake.write(
        "c/t/2.json",
        "{\"b\":{\"x\":2.5,\"y\":[1,2]},\"a\":\"one\"}\n{\"a\":true}\n",
    );
    assert_eq!(
        lake.ask("SELECT a, b['x'], b['y'] FROM t ORDER BY a").await,
        ["1|1.0|NULL", "one|2.5|[1, 2]", "true|NULL|NULL"]
    );
}

#[tokio::test]
async fn typed_columns_are_matched_by_name_and_widened() {
    type Write = fn(&arrow::array::RecordBatch) -> Vec<u8>;
    let writers: [(&str, Write); 4] = [
        ("parquet", |rows| parquet(rows, 100)),
        ("arrow", arrow_file),
        ("ipc", arrow_stream),
        ("avro", avro),
    ];
    for (extension, write) in writers {
        let lake = Lake::new();
        lake.write(
            &format!("c/t/1.{extension}"),
            write(&column("a", Int32Array::from(vec![1, 2]))),
        );
        lake.write(
            &format!("c/t/2.{extension}"),
            write(&column("b", StringArray::from(vec!["x"]))),
        );
        lake.write(
            &format!("c/t/3.{extension}"),
            write(&column("a", Int64Array::from(vec![1 << 40]))),
        );
        assert_eq!(
            lake.ask("SELECT b, a FROM t ORDER BY a NULLS LAST").await,
            ["NULL|1", "NULL|2", "NULL|1099511627776", "x|NULL"],
            "{extension}"
        );
        assert_eq!(
            lake.ask("SELECT max(a), count(a), count(*) FROM t").await,
            ["1099511627776|3|4"],
            "{extension}"
        );
        assert_eq!(lake.ask("SELECT a FROM t WHERE a = 2").await, ["2"], "{extension}");
    }
}

#[tokio::test]
async fn a_struct_may_lack_fields() {
    let lake = Lake::new();
    let row = |json: &str| {
        let fields = arrow::json::reader::infer_json_schema(json.as_bytes(), None).unwrap().0;
        let reader = arrow::json::ReaderBuilder::new(fields.into())
            .build(json.as_bytes())
            .unwrap();
        reader.map(Result::unwrap).next().unwrap()
    };
    lake.parquet("c/t/1.parquet", &row("{\"s\":{\"x\":1}}"));
    lake.parquet("c/t/2.parquet", &row("{\"s\":{\"y\":\"b\",\"x\":2}}"));
    assert_eq!(
        lake.ask("SELECT s['x'], s['y'] FROM t ORDER BY 1").await,
        ["1|NULL", "2|b"]
    );
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused() {
    let check = |settings: &str, expected: &str| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lake.yaml");
        let manifest =
            format!("name: lake\nversion: v2alpha\ntype: depot\ndepot: {{type: file, file: {{{settings}}}}}\n");
        std::fs::write(&file, manifest).unwrap();
        let problems = minerva_resources::load(&[file], &[minerva_connectors::check])
            .unwrap_err()
            .to_string();
        assert!(problems.contains(expected), "{settings}: {problems}");
    };
    check("format: CSV", "the key `path` is missing");
    check("path: ., format: XML", "`format` is `XML`; expected one of");
    check("path: ., delimitter: ';'", "did you mean `delimiter`?");
    check("path: ., delimiter: '||'", "`delimiter` is not one ASCII character");
    check(
        "path: ., format: PARQUET, header: false",
        "`header` has no meaning with format PARQUET",
    );
    check(
        "path: ., format: AVRO, compression: gzip",
        "`compression` has no meaning with format AVRO",
    );
    check("path: ., sample: -1", "`sample` is less than 0");
    check("path: ., quote: ','", "`quote` is the same character as `delimiter`");
}

#[tokio::test]
async fn parquet_conforms() {
    let lake = Lake::new();
    let samples = samples().unwrap();
    for sample in &samples {
        lake.parquet(&format!("c/{}.parquet", sample.name), &sample.rows);
    }
    conforms(&lake, samples).await;
}

#[tokio::test]
async fn arrow_conforms() {
    let lake = Lake::new();
    let samples = samples().unwrap();
    for sample in &samples {
        lake.write(&format!("c/{}.arrow", sample.name), arrow_file(&sample.rows));
    }
    conforms(&lake, samples).await;
}

#[tokio::test]
async fn csv_conforms_as_far_as_it_can() {
    let lake = Lake::new();
    // CSV has no types and no difference between NULL and an empty text.
    let samples: Vec<Sample> = samples()
        .unwrap()
        .iter()
        .filter(|sample| sample.name != "empty")
        .map(|sample| {
            sample
                .without(&["name", "bytes", "amount", "day", "moment", "nothing"])
                .unwrap()
        })
        .collect();
    for sample in &samples {
        lake.write(&format!("c/{}.csv", sample.name), csv(&sample.rows));
    }
    conforms(&lake, samples).await;
}

async fn conforms(lake: &Lake, samples: Vec<Sample>) {
    let depots = std::sync::Arc::clone(&lake.depots);
    let subject = Subject {
        depots,
        depot: "lake".into(),
        collection: "c".into(),
        samples,
        writes: false,
    };
    let mut failures = check(&subject).await;
    failures.extend(check_server(&subject, None).await);
    assert!(failures.is_empty(), "{}", Failure::all(&failures));
}

#[tokio::test]
async fn statistics_are_exact_where_the_footer_is() {
    let lake = Lake::new();
    lake.parquet("c/t/1.parquet", &numbered(0, 5000));
    lake.parquet("c/t/2.parquet", &numbered(5000, 10));
    lake.parquet("c/t/3.parquet", &column("id", Int64Array::from(vec![None, Some(-7)])));
    let plan = lake
        .plan("SELECT count(*), count(id), min(id), max(id), count(name) FROM t")
        .await;
    // Answered without a scan.
    let shown = datafusion::physical_plan::displayable(plan.as_ref())
        .indent(false)
        .to_string();
    assert!(!shown.contains("DataSourceExec"), "{shown}");
    assert_eq!(
        crate::support::lines(&lake.run(plan).await.unwrap()),
        ["5012|5011|-7|5009|5010"]
    );
    // A footer says nothing about NaN, the largest number there is.
    let lake = Lake::new();
    lake.parquet(
        "c/t.parquet",
        &column("x", Float64Array::from(vec![1.0, f64::NAN, 2.0])),
    );
    assert_eq!(lake.ask("SELECT max(x), min(x) FROM t").await, ["NaN|1.0"]);
}

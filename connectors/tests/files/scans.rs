//! Scans that are split, sent away and filtered.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::catalog::memory::DataSourceExec;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::physical_plan::{FileGroupPartitioner, FileScanConfig};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use datafusion_proto::bytes::{
    physical_plan_from_bytes_with_proto_converter, physical_plan_to_bytes_with_proto_converter,
};
use datafusion_proto::physical_plan::{
    DeduplicatingProtoConverter, PhysicalExtensionCodec, PhysicalProtoConverterExtension,
};
use minerva_connectors::{decode_file_scan, encode_file_scan};

use crate::support::{
    Lake, arrow_file, arrow_stream, avro, column, compressed, csv, json, lines, numbered, parquet, scan_of,
};

#[derive(Debug)]
struct Codec;

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        bytes: &[u8],
        _inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        decode_file_scan(bytes, context, self, converter)
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let encoded = encode_file_scan(node.as_ref(), self, converter)?;
        bytes.extend(encoded.ok_or_else(|| datafusion::error::DataFusionError::Internal(node.name().to_owned()))?);
        Ok(())
    }
}

fn sent(lake: &Lake, plan: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    let converter = DeduplicatingProtoConverter {};
    let bytes = physical_plan_to_bytes_with_proto_converter(Arc::clone(plan), &Codec, &converter).unwrap();
    let received =
        physical_plan_from_bytes_with_proto_converter(&bytes, &lake.context.task_ctx(), &Codec, &converter).unwrap();
    assert_eq!(received.schema(), plan.schema());
    received
}

/// Splits a scan as the distributed planner does, whatever the file source says, and sends every part.
async fn in_parts(lake: &Lake, scan: &FileScanConfig, parts: usize) -> Result<Vec<RecordBatch>> {
    let groups = FileGroupPartitioner::new()
        .with_target_partitions(parts)
        .with_repartition_file_min_size(0)
        .repartition_file_groups(&scan.file_groups)
        .unwrap_or_else(|| scan.file_groups.clone());
    let mut rows = Vec::new();
    for group in groups {
        let mut part = scan.clone();
        part.file_groups = vec![group];
        let part: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(part);
        rows.extend(lake.run(sent(lake, &part)).await?);
    }
    Ok(rows)
}

#[tokio::test]
async fn every_row_is_in_one_part() {
    let rows = numbered(0, 5000);
    let files = [
        ("t.parquet", parquet(&rows, 500)),
        ("t.arrow", arrow_file(&rows)),
        ("t.ipc", arrow_stream(&rows)),
        ("t.avro", avro(&rows)),
        ("t.csv", csv(&rows)),
        ("t.csv.gz", compressed(csv(&rows), FileCompressionType::GZIP).await),
        ("t.json", json(&rows)),
        ("t.json.zst", compressed(json(&rows), FileCompressionType::ZSTD).await),
    ];
    for (name, bytes) in files {
        let lake = Lake::new();
        lake.write(&format!("c/{name}"), bytes);
        let scan = scan_of(&lake.plan("SELECT id FROM t").await);
        for parts in [1, 2, 7, 64] {
            let mut found = lines(&in_parts(&lake, &scan, parts).await.unwrap());
            found.sort_by_key(|line| line.parse::<i64>().unwrap());
            let expected: Vec<String> = (0..5000).map(|id| id.to_string()).collect();
            assert_eq!(found, expected, "{name} in {parts} parts");
        }
    }
}

#[tokio::test]
async fn settings_and_partitions_travel() {
    let lake = Lake::with("delimiter: ';', null: NA, header: false, compression: gzip, format: CSV");
    for (folder, text) in [
        ("day=2024-01-01", "1;NA\n2;x\n"),
        ("day=__HIVE_DEFAULT_PARTITION__", "NA;y\n"),
    ] {
        let bytes = compressed(text.as_bytes().to_vec(), FileCompressionType::GZIP).await;
        lake.write(&format!("c/t/{folder}/0"), bytes);
    }
    let plan = lake
        .plan("SELECT day, column_1 + 1, column_2 FROM t WHERE column_1 > 0 OR column_2 = 'y'")
        .await;
    let mut found = lines(&lake.run(sent(&lake, &plan)).await.unwrap());
    found.sort();
    assert_eq!(found, ["2024-01-01|2|NULL", "2024-01-01|3|x", "NULL|NULL|y"]);
}

#[tokio::test]
async fn line_breaks_in_values_are_never_cut_silently() {
    // Beyond the sample, so that nothing warns of it.
    let text = format!(
        "id,name\n{}5000,\"a\nb\"\n{}",
        "1,x\n".repeat(200_000),
        "2,y\n".repeat(5000)
    );
    let lake = Lake::new();
    lake.write("c/t.csv", &text);
    assert_eq!(lake.ask("SELECT count(*), count(name) FROM t").await, ["205001|205001"]);
    let scan = scan_of(&lake.plan("SELECT id FROM t").await);
    for parts in [2, 3, 7, 20, 39] {
        let error = in_parts(&lake, &scan, parts).await.unwrap_err();
        let error = minerva_connectors::Error::find(&error).unwrap().to_string();
        assert!(error.contains("file `c/t.csv` "), "{error}");
        assert!(error.contains("set `multiline: true`"), "{error}");
    }
    let lake = Lake::with("multiline: true");
    lake.write("c/t.csv", &text);
    let scan = scan_of(&lake.plan("SELECT id FROM t").await);
    for parts in [2, 5, 39] {
        let rows = in_parts(&lake, &scan, parts).await.unwrap();
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 205_001);
    }
}

#[tokio::test]
async fn no_row_with_nan_is_pruned() {
    use arrow::array::Float64Array;
    let lake = Lake::new();
    let rows = column(
        "x",
        Float64Array::from(vec![Some(1.0), Some(f64::NAN), None, Some(9.0), Some(7.0), Some(8.0)]),
    );
    lake.write("c/t.parquet", parquet(&rows, 3));
    for pushed in [false, true] {
        lake.context
            .state_ref()
            .write()
            .config_mut()
            .options_mut()
            .execution
            .parquet
            .pushdown_filters = pushed;
        let check = async |sql: &str, expected: &[&str]| assert_eq!(lake.ask(sql).await, expected, "{sql}");
        check("SELECT x FROM t WHERE x > 5 ORDER BY x", &["7.0", "8.0", "9.0", "NaN"]).await;
        check("SELECT x FROM t WHERE x <> 1 ORDER BY x", &["7.0", "8.0", "9.0", "NaN"]).await;
        check("SELECT x FROM t WHERE x = 'NaN'::double", &["NaN"]).await;
        check("SELECT x FROM t WHERE x < 5", &["1.0"]).await;
        check("SELECT x FROM t ORDER BY x DESC NULLS LAST LIMIT 2", &["NaN", "9.0"]).await;
        check("SELECT max(x), min(x) FROM t", &["NaN|1.0"]).await;
    }
}

#[tokio::test]
async fn errors_have_names_on_a_worker_too() {
    let lake = Lake::new();
    let mut bytes = parquet(&numbered(0, 10_000), 10_000);
    bytes[4..2000].fill(0xFF);
    lake.write("c/t.parquet", bytes);
    for sql in [
        "SELECT name, id FROM t",
        // The key is decoded before the rest.
        "SELECT r.name FROM (VALUES (1), (5000)) AS l (id) JOIN t AS r ON l.id = r.id",
    ] {
        let plan = lake.plan(sql).await;
        let error = lake.run(sent(&lake, &plan)).await.unwrap_err();
        let error = minerva_connectors::Error::find(&error).unwrap().to_string();
        assert!(
            error.starts_with("depot `lake`: `c.t`: file `c/t.parquet` is damaged"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn filters_reach_parquet_and_stay_shared_with_joins() {
    let lake = Lake::new();
    lake.write("c/t.parquet", parquet(&numbered(0, 100_000), 1000));
    let sql = "SELECT count(*) FROM t AS l JOIN t AS r ON l.id = r.id WHERE l.name = 'row 77777'";
    let plan = lake.plan(sql).await;
    for plan in [Arc::clone(&plan), sent(&lake, &plan)] {
        assert_eq!(lines(&lake.run(Arc::clone(&plan)).await.unwrap()), ["1"]);
        let shown = displayable(plan.as_ref()).indent(false).to_string();
        assert!(
            shown.contains("pruning_predicate=") && shown.contains("DynamicFilter"),
            "{shown}"
        );
    }
    let received = sent(&lake, &lake.plan("SELECT count(*) FROM t WHERE id = 77777").await);
    assert_eq!(lines(&lake.run(Arc::clone(&received)).await.unwrap()), ["1"]);
    let mut leaf = &received;
    while let Some(child) = leaf.children().first().copied() {
        leaf = child;
    }
    let metrics = leaf.metrics().unwrap();
    let pruned = metrics.sum_by_name("row_groups_pruned_statistics").unwrap();
    assert!(pruned.to_string().contains("100 total \u{2192} 1 matched"), "{pruned}");
    let output = metrics.output_rows().unwrap();
    assert!(output <= 1000, "{output} rows are counted");
}

/// How many rows were left out while files were decoded, in all leaves of a plan that ran.
fn rows_left_out(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let here = plan
        .metrics()
        .and_then(|metrics| metrics.sum_by_name("pushdown_rows_pruned"));
    let below = plan.children().into_iter().map(rows_left_out);
    here.map_or(0, |found| found.as_usize()) + below.sum::<usize>()
}

#[tokio::test]
async fn few_keys_of_a_join_leave_out_rows_while_files_are_decoded() {
    let lake = Lake::new();
    lake.write("c/t.parquet", parquet(&numbered(0, 100_000), 30_000));
    {
        let state = lake.context.state_ref();
        let mut state = state.write();
        let options = &mut state.config_mut().options_mut().optimizer;
        options.hash_join_inlist_pushdown_max_distinct_values = 50_000;
        options.hash_join_inlist_pushdown_max_size = 4 << 20;
    }
    // A filter of the scan stays above it.
    for (keys, filter, expected, leaves_out) in [
        ("id % 9973 = 1", "r.id <> 9974", "10", true),
        ("id % 9973 = 1", "r.name NOT LIKE '%9'", "10", true),
        ("id % 2 = 1 AND id < 60000", "r.id <> 5", "29999", false),
        ("id < 0", "r.id <> 5", "0", false),
    ] {
        let sql = format!(
            "SELECT count(r.name) FROM (SELECT id + 0 AS id FROM t WHERE {keys}) AS l JOIN t AS r ON l.id = r.id WHERE {filter}"
        );
        let plan = lake.plan(&sql).await;
        for plan in [Arc::clone(&plan), sent(&lake, &plan)] {
            assert_eq!(lines(&lake.run(Arc::clone(&plan)).await.unwrap()), [expected], "{sql}");
            let left_out = rows_left_out(&plan);
            assert_eq!(left_out > 90_000, leaves_out, "{left_out} rows of {sql}");
            assert!(leaves_out || left_out == 0, "{left_out} rows of {sql}");
        }
    }
    // Where the scan decides about its filters by itself, they are not forgotten.
    let state = lake.context.state_ref();
    state
        .write()
        .config_mut()
        .options_mut()
        .execution
        .parquet
        .pushdown_filters = true;
    let sql = "SELECT count(r.name) FROM (SELECT id + 0 AS id FROM t WHERE id % 9973 = 1) AS l JOIN t AS r ON l.id = r.id WHERE r.name NOT LIKE '%9'";
    assert_eq!(lines(&lake.run(lake.plan(sql).await).await.unwrap()), ["10"]);
}

//! TPC-H on DataFusion alone, with the settings that Minerva plans with: what Minerva's own cost is measured against.
//!
//! In: a folder of Parquet files, a folder of queries, and on standard input the numbers of the queries to run, a line each. Out: for each line the
//! seconds that it took. Run by `run.py`, which asks the engines in turn, so that the machine's noise falls on all of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark may fail loudly"
)]

use std::{path::Path, time::Instant};

use datafusion::{
    execution::runtime_env::RuntimeEnvBuilder,
    prelude::{ParquetReadOptions, SessionConfig, SessionContext},
};
use futures::StreamExt;

const TABLES: [&str; 8] = [
    "customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier",
];

#[tokio::main]
#[expect(clippy::disallowed_methods, reason = "plain DataFusion is what is measured here")]
async fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let [folder, queries] = arguments.as_slice() else {
        // `cargo test --all-targets` runs benchmarks without arguments.
        println!("usage: plain_datafusion FOLDER QUERIES");
        return;
    };
    let cores = std::thread::available_parallelism().unwrap().get();
    let config = SessionConfig::new()
        .with_target_partitions(cores)
        .with_collect_statistics(true);
    let runtime = RuntimeEnvBuilder::new().build_arc().unwrap();
    let context = SessionContext::new_with_config_rt(config, runtime);
    for table in TABLES {
        let path = Path::new(folder).join(format!("{table}.parquet"));
        context
            .register_parquet(table, path.to_str().unwrap(), ParquetReadOptions::default())
            .await
            .unwrap();
    }
    for number in std::io::stdin().lines() {
        let path = Path::new(queries).join(format!("q{}.sql", number.unwrap()));
        let sql = std::fs::read_to_string(path).unwrap();
        let begin = Instant::now();
        let mut rows = context
            .sql(sql.trim().trim_end_matches(';'))
            .await
            .unwrap()
            .execute_stream()
            .await
            .unwrap();
        while let Some(batch) = rows.next().await {
            batch.unwrap();
        }
        println!("{}", begin.elapsed().as_secs_f64());
    }
}

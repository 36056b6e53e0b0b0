//! Reads a table of PostgreSQL into Arrow, and loads TPC-H's `lineitem` to read: `postgres load PORT DATABASE SCALE`, `postgres read PORT DATABASE [COLUMNS]`.
//! Run by `postgres.py`, which knows the server and asks others in turn.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark may fail loudly"
)]

use std::fmt::Write as _;
use std::io::Cursor;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionConfig;
use futures::{SinkExt, StreamExt};
use minerva_connectors::Depots;
use tpchgen::generators::LineItemGenerator;

const TABLE: &str = "CREATE TABLE lineitem (l_orderkey int8 NOT NULL, l_partkey int8 NOT NULL, l_suppkey int8 NOT NULL, \
     l_linenumber int4 NOT NULL, l_quantity numeric(15, 2) NOT NULL, l_extendedprice numeric(15, 2) NOT NULL, \
     l_discount numeric(15, 2) NOT NULL, l_tax numeric(15, 2) NOT NULL, l_returnflag char(1) NOT NULL, \
     l_linestatus char(1) NOT NULL, l_shipdate date NOT NULL, l_commitdate date NOT NULL, l_receiptdate date NOT NULL, \
     l_shipinstruct char(25) NOT NULL, l_shipmode char(10) NOT NULL, l_comment varchar(44) NOT NULL)";

/// The allocator of the program (`cli/allocator.rs`), so that what is measured is what it does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().filter(|argument| argument != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
        ["load", port, database, scale] => runtime.block_on(load(port, database, scale.parse().unwrap())),
        ["read", port, database] => runtime.block_on(read(port, database, "*")),
        ["read", port, database, columns] => runtime.block_on(read(port, database, columns)),
        _ => println!("usage: postgres load PORT DATABASE SCALE | postgres read PORT DATABASE [COLUMNS]"),
    }
}

async fn load(port: &str, database: &str, scale: f64) {
    let settings = format!("host=127.0.0.1 port={port} user=admin dbname={database}");
    let (client, connection) = tokio_postgres::connect(&settings, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("BEGIN; {TABLE}")).await.unwrap();
    let sink = client
        .copy_in("COPY lineitem FROM STDIN WITH (DELIMITER '|', FREEZE)")
        .await
        .unwrap();
    let mut sink = pin!(sink);
    let mut text = String::new();
    for row in LineItemGenerator::new(scale, 1, 1).iter() {
        write!(text, "{row}").unwrap();
        // Every field ends with a bar, the last one too.
        text.pop();
        text.push('\n');
        if text.len() > 1 << 20 {
            sink.send(Cursor::new(std::mem::take(&mut text).into_bytes()))
                .await
                .unwrap();
        }
    }
    sink.send(Cursor::new(text.into_bytes())).await.unwrap();
    sink.close().await.unwrap();
    client
        .batch_execute("COMMIT; VACUUM ANALYZE lineitem")
        .await
        .unwrap_or(());
    println!("loaded");
}

/// Prints seconds, rows, and the most memory that it took, in MiB.
async fn read(port: &str, database: &str, columns: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db.yaml");
    let manifest = format!(
        "name: db\nversion: v1\ntype: depot\ndepot:\n  type: POSTGRESQL\n  \
         spec: {{host: 127.0.0.1, port: {port}, database: {database}, params: {{sslmode: disable}}}}\n  \
         connectionSecret: [{{acl: r, data: {{username: admin}}}}]\n"
    );
    std::fs::write(&file, manifest).unwrap();
    let resources = minerva_resources::load(&[file], &[minerva_connectors::check]).unwrap();
    let depots = Arc::new(Depots::new(Arc::new(resources)));
    let config = SessionConfig::new().with_extension(Arc::clone(&depots));
    let session = SessionStateBuilder::new()
        .with_default_features()
        .with_config(config)
        .build();
    let begun = Instant::now();
    let source = depots.open("db").await.unwrap();
    let table = source.dataset("public", "lineitem", &session).await.unwrap().unwrap();
    let projection: Option<Vec<usize>> = (columns != "*").then(|| {
        let columns = columns.split(',');
        columns.map(|column| table.schema().index_of(column).unwrap()).collect()
    });
    let plan = table.scan(&session, projection.as_ref(), &[], None).await.unwrap();
    let mut batches = execute_stream(plan, session.task_ctx()).unwrap();
    let mut rows = 0;
    while let Some(batch) = batches.next().await {
        rows += batch.unwrap().num_rows();
    }
    let seconds = begun.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap_or_default();
    let memory: u64 = memory.split_whitespace().nth(1).unwrap_or("0").parse().unwrap();
    println!("{seconds:.3} {rows} {}", memory >> 10);
}

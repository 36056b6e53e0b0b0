//! Reads a table of MySQL or MariaDB into Arrow, and writes TPC-H's `lineitem` to load into it: `mysql write FILE SCALE`, `mysql read SOCKET [COLUMNS]`.
//! Run by `mysql.py`, which knows the server and asks others in turn.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark may fail loudly"
)]

use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionConfig;
use futures::StreamExt;
use minerva_connectors::Depots;
use tpchgen::generators::LineItemGenerator;

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
        ["write", file, scale] => write(file, scale.parse().unwrap()),
        ["read", socket] => runtime.block_on(read(socket, "*")),
        ["read", socket, columns] => runtime.block_on(read(socket, columns)),
        _ => println!("usage: mysql write FILE SCALE | mysql read SOCKET [COLUMNS]"),
    }
}

/// Fields that end with a bar, and rows with a line.
fn write(file: &str, scale: f64) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(file).unwrap());
    for row in LineItemGenerator::new(scale, 1, 1).iter() {
        writeln!(file, "{row}").unwrap();
    }
    file.flush().unwrap();
}

/// Prints seconds, rows, and the most memory that it took, in MiB.
async fn read(socket: &str, columns: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db.yaml");
    let manifest = format!(
        "name: db\nversion: v1\ntype: depot\ndepot:\n  type: MYSQL\n  spec: {{host: {socket}}}\n  \
         connectionSecret: [{{acl: r, data: {{username: root}}}}]\n"
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
    let table = source.dataset("bench", "lineitem", &session).await.unwrap().unwrap();
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

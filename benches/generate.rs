//! Writes TPC-H as Parquet: `generate FOLDER SCALE`. Run by `run.py`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    dead_code,
    reason = "a benchmark may fail loudly; the tests use more of the shared file"
)]

#[path = "../tests/it/tpch_data.rs"]
mod tpch_data;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    match arguments.as_slice() {
        [folder, scale] => tpch_data::write_parquet(std::path::Path::new(folder), scale.parse().unwrap()),
        _ => println!("usage: generate FOLDER SCALE"),
    }
}

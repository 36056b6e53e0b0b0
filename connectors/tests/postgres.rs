//! Depots of type `postgresql`, at their public face, over a private PostgreSQL that the tests start and stop.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests stop at the first surprise, and run SQL over what they test"
)]

#[path = "postgres/changes.rs"]
mod changes;
#[path = "postgres/decoder.rs"]
mod decoder;
#[path = "postgres/faults.rs"]
mod faults;
#[path = "postgres/health.rs"]
mod health;
#[path = "postgres/oddities.rs"]
mod oddities;
#[path = "postgres/parallel.rs"]
mod parallel;
#[path = "postgres/pooler.rs"]
mod pooler;
#[path = "postgres/pushdown.rs"]
mod pushdown;
#[path = "postgres/scans.rs"]
mod scans;
#[path = "postgres/server.rs"]
mod server;
#[path = "postgres/standby.rs"]
mod standby;
#[path = "postgres/statistics.rs"]
mod statistics;
#[path = "postgres/tls.rs"]
mod tls;
#[path = "postgres/types.rs"]
mod types;
#[path = "postgres/writes.rs"]
mod writes;

//! Depots of type `mysql`, at their public face, over a private MariaDB that the tests start and stop.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests stop at the first surprise, and run SQL over what they test"
)]

#[path = "mysql/faults.rs"]
mod faults;
#[path = "mysql/filters.rs"]
mod filters;
#[path = "mysql/pushdown.rs"]
mod pushdown;
#[path = "support/pushed.rs"]
mod pushed;
#[path = "mysql/refusals.rs"]
mod refusals;
#[path = "mysql/scans.rs"]
mod scans;
#[path = "mysql/server.rs"]
mod server;
#[path = "mysql/statistics.rs"]
mod statistics;
#[path = "mysql/tls.rs"]
mod tls;
#[path = "mysql/types.rs"]
mod types;

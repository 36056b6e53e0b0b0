//! Depots of type `file`, at their public face: folders in, rows or errors out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests stop at the first surprise, and run SQL over what they test"
)]

#[path = "files/changes.rs"]
mod changes;
#[path = "files/faults.rs"]
mod faults;
#[path = "files/formats.rs"]
mod formats;
#[path = "files/layout.rs"]
mod layout;
#[path = "files/scans.rs"]
mod scans;
#[path = "files/support.rs"]
mod support;

//! The tests of the whole: the real program, real ports, real clients.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod bad_input;
mod cli;
mod connections;
mod demo;
mod denied_columns;
mod depots;
mod escape;
mod fences;
mod flight_sql;
mod governance;
mod governed_data;
mod http_door;
mod identity;
mod join_order;
mod minerva;
mod mysql;
mod object_faults;
mod object_requests;
mod object_s3;
mod object_server;
mod object_stores;
mod policies;
mod postgres;
mod private_mariadb;
mod private_postgres;
mod prompt;
mod pushdown;
mod reload;
mod resources;
mod spill;
mod stopped_writes;
mod tidy;
mod tpch;
mod tpch_data;
mod writes;
mod wrong_answers;

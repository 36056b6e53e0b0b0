//! Tests of decisions at the public face: access, masks and their order, filters, what closes a table.

mod access;
mod authorize;
mod decide;
mod explain;
mod filter;
mod lineage;

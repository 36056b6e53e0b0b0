//! The coordinator: the gateway's front doors and the query pipeline.
//!
//! In: statements of authenticated users. Out: governed rows. `query.rs` is the straight line; `catalog.rs` is the one place where a name
//! becomes a table. Deliberately absent: how a depot is read, what a policy means, how a worker runs its stage.

mod admission;
mod apply;
mod audit;
mod casts_apart;
mod catalog;
mod cluster;
mod columns;
mod commands;
mod config;
mod dialect;
mod engine;
mod error;
mod escape;
mod explain;
pub mod gateway;
mod optimizer;
mod parameters;
mod parse;
mod progress;
mod properties;
mod queries;
mod query;
mod session;
mod store;
mod streams;
mod system;
mod tables_apart;
mod views;
mod write;

pub use apply::{MOST_COMPARED, applied_json, declared_json, refused_json, too_many};
pub use catalog::{TableEntry, TableRequest};
pub use cluster::{Bound, bind};
pub use config::{Config, TlsFiles};
pub use engine::{CreateKey, CreatedKey, Engine, FirstStart, admin_key_file};
pub use error::{Code, QueryError, Result};
pub use gateway::{
    Shutdown,
    auth::{ClientCertificate, Credentials, Presented, hash_key},
    shutdown_when,
};
pub use progress::Progress;
pub use queries::{Client, State};
pub use query::Query;
pub use session::{Description, PolicySubject, Session};
pub use store::StoredKey;
pub use system::sql_type;

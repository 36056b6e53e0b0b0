//! The wire between a coordinator and its workers.
//!
//! Coordinator and worker never depend on each other; both depend on this crate. In: the members' addresses and one
//! secret. Out: who is in the cluster, channels to them, sessions that cut plans into stages on one side and run them on
//! the other, and what travels with a stage so that the worker can verify it again.
//!
//! It plans no SQL, decides no policy and opens no depot itself.

mod aggregates;
mod analyze;
mod arithmetic;
mod channels;
mod client;
mod codec;
mod different;
mod error;
mod folded;
mod grants;
mod leaves;
mod lending;
mod mean;
mod members;
mod memory;
mod messages;
mod paced;
mod reading;
mod server;
mod session;
mod single_row;
mod tls;
mod token;

pub use aggregates::aggregates;
pub use analyze::metrics_within;
pub use arithmetic::checked;
pub use channels::{Channels, server};
pub use client::CoordinatorClient;
pub use codec::Codec;
pub use error::{Error, WorkerLost, reason_of};
pub use grants::{QueryGrants, is_distributed, leaf_of, planned_under};
pub use lending::Borrower;
pub use members::{HEARTBEAT, LOST_AFTER, Members, Node, NodeState};
pub use memory::{SpillFolder, default_memory_bytes, runtime};
pub use messages::{Heard, Join, Joined, Resources, ResourcesVersion};
pub use paced::PaceJoins;
pub use reading::{Reading, Readings, Watch};
pub use server::{ClusterPort, Membership};
pub use session::{Wire, coordinator_session, worker_session};
pub use single_row::only_row;
pub use tls::{Tls, TlsFiles};
pub use token::{CheckToken, TOKEN_FILE, Token};

/// The version of Minerva; members of a cluster run the same one.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

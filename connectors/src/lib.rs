//! Depots: names in, tables out.
//!
//! A [`Connector`] is one type of depot: it says which settings its manifests have and opens a depot as a [`Source`]. A
//! source lists collections and datasets and makes one table provider for a dataset. Every connector is one file (or
//! folder) and one line in [`CONNECTORS`].
//!
//! In: a depot as `resources` read it. Out: table providers, and leaves of physical plans that name a dataset by its
//! address, so that they can be checked against policies and sent to workers without a credential in them.
//!
//! This crate decides nothing about who may see what, and keeps no catalogue: both are the coordinator's.

mod depots;
mod error;
mod figures;
mod files;
mod health;
mod leaf;
mod ledger;
mod memory;
mod mysql;
mod narrow;
mod postgres;
mod remote;
mod remote_table;
mod scan;
mod scan_codec;
mod scan_exec;
mod slots;
mod sqlite;
mod statistics;
mod stores;
mod tpch;
mod unpushed;
mod waits;
mod watched;
mod writer;

pub mod conformance;
#[cfg(test)]
mod documentation;
#[cfg(test)]
#[path = "../tests/support/pushed.rs"]
mod pushed;
#[cfg(test)]
mod testing;

// What the tests share with those of the public face is written as there.
#[cfg(test)]
extern crate self as minerva_connectors;

use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use futures::StreamExt;
use minerva_resources::{Address, Depot, Parameter, Problem, ResourceSet, closest};
use object_store::path::Path;

pub use depots::{Depots, depots_of};
pub use error::{Error, ErrorKind};
pub use files::{DepotStore, FILE_ROWS_FOR_A_KEY, decode_file_scan, encode_file_scan};
pub use health::{DepotHealth, DepotState};
pub use leaf::{LeafSource, leaf_addresses};
pub use ledger::Ledger;
pub use postgres::CopyDecoder;
pub use remote::{
    Conditions, Decision, Fence, Fences, Key, Opened, PlanHere, PushDown, RemotePlanner, RemoteQuery, TableOf, Weighed,
    WeighedLeaf, with_escapes,
};
pub use remote_table::{RemoteTable, SharedSnapshotsOnly, estimated};
pub use scan::{Comparison, Scan, ScanFilter, Split};
pub use scan_codec::{decode_scan, decode_told_scan, encode_scan, encode_told_scan};
pub use scan_exec::{ScanExec, split, splits_of};
pub use slots::{Lender, Loan, Purpose, SlotHolder, SlotKind, Waiting};
pub use stores::Stores;
pub use unpushed::unpushed;
pub use writer::{Change, ROW_ID, Writer};

/// What a function of this crate returns when nothing else is said.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How many datasets are looked at at the same time where each is asked for by itself.
const LOOKS_AT_ONCE: usize = 16;

/// What the depots of one process share.
#[derive(Debug, Clone)]
pub struct Around {
    /// Their object stores.
    pub stores: Arc<Stores>,
    /// Where they have the right to open connections from.
    pub lender: Arc<dyn Lender>,
}

/// A dataset that [`Source::seen`] told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its collection.
    pub collection: String,
    /// Its name.
    pub dataset: String,
    /// The state it had; what that is only its source knows.
    pub state: String,
}

/// One type of depot.
#[async_trait]
pub trait Connector: Debug + Send + Sync {
    /// The name of the type in manifests, lower case.
    fn depot_type(&self) -> &'static str;

    /// The keys that the block of a depot of this type may have.
    fn parameters(&self) -> &'static [Parameter];

    /// A manifest that loads, shown in the documentation.
    fn example(&self) -> &'static str;

    /// Reaches the depot. Called on first use; the source is then shared by all queries.
    async fn open(&self, depot: &Arc<Depot>, around: &Around) -> Result<Arc<dyn Source>>;

    /// The object store of a depot whose files are in one. Reaches nothing; [`Around::stores`] keeps it.
    fn store(&self, _depot: &Depot) -> Result<Option<Arc<DepotStore>>> {
        Ok(None)
    }

    /// Whether it is reached over a network, so that failing to reach it costs time: it is left alone for a while then.
    fn is_remote(&self) -> bool {
        true
    }

    /// Whether a dataset that cannot be reached means that none can. In object stores each file is asked for by itself, and may fail by itself.
    fn fails_as_a_whole(&self) -> bool {
        true
    }

    /// Whether depots of this type compute more than scans: only for these may a session say how much.
    fn computes(&self) -> bool {
        false
    }

    /// What is wrong with a depot's settings beyond what [`Connector::parameters`] says. Does no IO.
    fn check(&self, _depot: &Depot) -> Vec<Problem> {
        Vec::new()
    }

    /// The datasets of `depot` that hold every one of `files`, for depots whose plans read files: it traces a file scan
    /// back to an address. It must not depend on the depot being open, since workers ask as well.
    fn trace(&self, _depot: &Depot, _store: &ObjectStoreUrl, _files: &[&Path]) -> Vec<Address> {
        Vec::new()
    }
}

/// An open depot.
#[async_trait]
pub trait Source: Debug + Send + Sync {
    /// The names of the collections, sorted.
    async fn collections(&self) -> Result<Vec<String>>;

    /// The names of the datasets of a collection, sorted; none when there is no such collection.
    async fn datasets(&self, collection: &str) -> Result<Vec<String>>;

    /// All collections with their datasets, sorted, where the source can tell at once; `None` where each collection is asked for by itself.
    async fn listing(&self) -> Result<Option<Vec<(String, Vec<String>)>>> {
        Ok(None)
    }

    /// The table of that name, or `None` when there is none. An error means that it is there but cannot be read.
    async fn dataset(
        &self,
        collection: &str,
        dataset: &str,
        session: &dyn Session,
    ) -> Result<Option<Arc<dyn TableProvider>>>;

    /// The table of that name as it was last seen, and the state it had in the source, where both are remembered. Nothing is asked: whoever uses the table asks
    /// [`Source::are_as_seen`], too.
    fn seen(&self, _collection: &str, _dataset: &str) -> Option<(Arc<dyn TableProvider>, String)> {
        None
    }

    /// Whether datasets have the state in which they were seen, so that [`Source::dataset`] would find the same tables now. All are asked about together.
    async fn are_as_seen(&self, _seen: &[Seen]) -> Result<bool> {
        Ok(false)
    }

    /// The columns of some datasets of a collection, in the order of their names, as [`Source::dataset`] would find them; for listings. `None` for
    /// what is not there. A source whose catalogue can be asked about many at once does so.
    async fn columns(
        &self,
        collection: &str,
        datasets: &[String],
        session: &dyn Session,
    ) -> Result<Vec<Result<Option<SchemaRef>>>> {
        let looks: Vec<_> = datasets
            .iter()
            .map(|dataset| async move {
                let found = self.dataset(collection, dataset, session).await?;
                Ok(found.map(|table| table.schema()))
            })
            .collect();
        Ok(futures::stream::iter(looks).buffered(LOOKS_AT_ONCE).collect().await)
    }

    /// Reads one split of a scan whose leaf is a [`ScanExec`]. Sources that make other leaves need not say anything.
    fn read(&self, scan: &Scan, _split: &Split, _context: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        Err(Error::new(
            &scan.address.depot,
            ErrorKind::Internal,
            "this depot is not read through `ScanExec`",
        )
        .about_dataset(&scan.address.collection, &scan.address.dataset))
    }

    /// The scan that asks for the rows of `scan` for which all of `filters` are true besides, as far as the source decides that as it is decided here. What
    /// it leaves out is decided again. `None` when that is nothing. The filters of a scan with a statement call its columns `c0`, `c1` and so on. A worker that has
    /// not read the table before asks what it is.
    async fn narrowed(&self, _scan: &Scan, _filters: &[ScanFilter]) -> Option<Scan> {
        None
    }

    /// The most keys of a join that [`Source::narrowed`] should be asked for at once: what a list costs there grows with it.
    fn most_keys(&self) -> usize {
        narrow::MOST_KEYS_ANYWHERE
    }

    /// Whether workers can read it. When false, a query that touches it runs on the coordinator alone.
    fn distributable(&self) -> bool {
        true
    }

    /// How it is written to, if it can be.
    fn writer(&self) -> Option<&dyn Writer> {
        None
    }

    /// The name of the depot, for messages.
    fn depot(&self) -> &str;

    /// The type of the depot, for messages.
    fn depot_type(&self) -> &'static str;

    /// The error for a statement that this type of depot does not run.
    fn refusal(&self, statement: &str) -> Error {
        let message = format!("{statement} is not supported by depot type `{}`", self.depot_type());
        Error::new(self.depot(), ErrorKind::Unsupported, message)
    }
}

/// Every type of depot, in alphabetical order.
pub const CONNECTORS: &[&dyn Connector] = &[
    &files::ABFSS,
    &files::FileConnector,
    &files::GCS,
    &files::HTTP,
    &memory::MemoryConnector,
    &mysql::MysqlConnector,
    &postgres::PostgresConnector,
    &files::S3,
    &sqlite::SqliteConnector,
    &tpch::TpchConnector,
];

/// The connector for a type of depot.
pub fn connector(depot_type: &str) -> Option<&'static dyn Connector> {
    CONNECTORS
        .iter()
        .copied()
        .find(|connector| connector.depot_type() == depot_type)
}

/// The settings that a type of depot knows; none if there is no such type.
pub fn parameters(depot_type: &str) -> &'static [Parameter] {
    connector(depot_type).map_or(&[], Connector::parameters)
}

/// Checks the depots of a resource set: known types, known and well-formed settings.
pub fn check(set: &ResourceSet) -> Vec<Problem> {
    set.depots().flat_map(|depot| check_depot(depot)).collect()
}

fn check_depot(depot: &Depot) -> Vec<Problem> {
    let Some(connector) = connector(&depot.depot_type) else {
        return vec![unknown_type(depot)];
    };
    let mut problems = depot.check(connector.parameters());
    if problems.is_empty() {
        problems.extend(connector.check(depot));
    }
    problems
}

fn unknown_type(depot: &Depot) -> Problem {
    let names: Vec<&str> = CONNECTORS.iter().map(|connector| connector.depot_type()).collect();
    let help = match closest(&depot.depot_type, names.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("expected one of `{}`", names.join("`, `")),
    };
    Problem {
        location: depot.meta.location.clone(),
        message: format!("depot `{}`: unknown depot type `{}`", depot.meta.name, depot.depot_type),
        help: Some(help),
    }
}

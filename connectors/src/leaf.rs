//! Which dataset a leaf of a physical plan reads.
//!
//! In: a leaf. Out: the addresses of the datasets that it may be reading, so that a finished plan can be checked
//! against policies. What is not known here is said to be unknown, never assumed harmless.

use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::explain::ExplainExec;
use datafusion::physical_plan::memory::LazyMemoryExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::work_table::WorkTableExec;
use minerva_resources::Address;
use object_store::path::Path;

use crate::{Depots, Fence, ScanExec, connector};

/// What a leaf reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeafSource {
    /// Nothing that is stored: no rows, literals, a series.
    NoData,
    /// One dataset, which is one of these: several depots may hold the same files.
    Dataset(Vec<Address>),
    /// All of these datasets.
    Datasets(Vec<Address>),
    /// All of these datasets as they are, and governed ones behind fences of its statement.
    Fenced {
        /// What is read outside of the fences.
        open: Vec<Address>,
        /// The fences.
        fences: Vec<Fence>,
    },
    /// Something that cannot be traced to a dataset; the text names it.
    Unknown(String),
}

/// What `leaf`, a node without children, reads.
pub fn leaf_addresses(leaf: &dyn ExecutionPlan, depots: &Depots) -> LeafSource {
    if let Some(scan) = leaf.downcast_ref::<ScanExec>() {
        if let Some(query) = &scan.scan().query {
            if !query.fences.is_empty() {
                return LeafSource::Fenced {
                    open: query.addresses.clone(),
                    fences: query.fences.clone(),
                };
            }
            return LeafSource::Datasets(query.addresses.clone());
        }
        return LeafSource::Dataset(vec![scan.scan().address.clone()]);
    }
    if let Some(source) = leaf.downcast_ref::<DataSourceExec>() {
        return data_source(source, depots);
    }
    let makes_its_rows = leaf.is::<EmptyExec>()
        || leaf.is::<PlaceholderRowExec>()
        || leaf.is::<ExplainExec>()
        || leaf.is::<LazyMemoryExec>()
        || leaf.is::<WorkTableExec>();
    if makes_its_rows {
        LeafSource::NoData
    } else {
        LeafSource::Unknown(leaf.name().to_owned())
    }
}

fn data_source(leaf: &DataSourceExec, depots: &Depots) -> LeafSource {
    let source = leaf.data_source();
    if source.downcast_ref::<MemorySourceConfig>().is_some() {
        return LeafSource::NoData;
    }
    match source.downcast_ref::<FileScanConfig>() {
        Some(files) => file_scan(files, depots),
        None => LeafSource::Unknown("DataSourceExec that reads no files".to_owned()),
    }
}

fn file_scan(scan: &FileScanConfig, depots: &Depots) -> LeafSource {
    let files: Vec<&Path> = scan
        .file_groups
        .iter()
        .flat_map(|group| group.iter())
        .map(|file| &file.object_meta.location)
        .collect();
    let Some(first) = files.first() else {
        return LeafSource::NoData;
    };
    let resources = depots.resources();
    let addresses: Vec<Address> = resources
        .depots()
        .filter_map(|depot| Some((connector(&depot.depot_type)?, depot)))
        .flat_map(|(connector, depot)| connector.trace(depot, &scan.object_store_url, &files))
        .collect();
    if addresses.is_empty() {
        return LeafSource::Unknown(format!("files like `{}{first}`", scan.object_store_url.as_str()));
    }
    LeafSource::Dataset(addresses)
}

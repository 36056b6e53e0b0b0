//! The tables of a depot, kept until their files change.
//!
//! In: the listing of a dataset as it is now. Out: its table. When no file changed the table of last time is returned
//! and no file is opened; when some did only those are looked into again. Failures are not kept. A file that changed
//! so lately that its next change may leave the same time stamp is looked into again in any case.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::Statistics;
use datafusion::common::config::ParquetOptions;
use datafusion::common::stats::Precision;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::DataFusionError;
use futures::{StreamExt, TryStreamExt};

use super::fault::{Fault, Origin};
use super::formats::Format;
use super::infer::{Facts, Footers, look_into, with_partitions};
use super::listing::{At, DataFile, Listing, Stamp, now};
use super::merge::{Part, merge};
use super::partitions::Partitions;
use super::remote::RemoteFile;
use super::rows::{Input, RowFormat};
use super::settings::TextSettings;
use super::table::{FileTable, Reading};
use crate::{Error, ErrorKind, Result};

/// How many files are looked into at the same time.
const AT_ONCE: usize = 16;

/// The tables of one depot.
#[derive(Debug, Default)]
pub(super) struct SchemaCache {
    entries: Mutex<HashMap<(String, String), Arc<Slot>>>,
}

#[derive(Debug, Default)]
struct Slot {
    known: Mutex<Option<Arc<Known>>>,
    /// Held by the one who makes the table; others wait and find it made.
    making: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Known {
    listing: Listing,
    reading: ParquetOptions,
    /// False when a change could go unseen.
    is_settled: bool,
    files: HashMap<String, FileKnown>,
    columns: SchemaRef,
    table: Arc<FileTable>,
}

#[derive(Debug, Clone)]
struct FileKnown {
    at: At,
    stamp: Stamp,
    is_settled: bool,
    facts: Facts,
    statistics: Option<Arc<Statistics>>,
}

impl Known {
    fn holds(&self, listing: &Listing, reading: &ParquetOptions) -> bool {
        self.is_settled && self.listing == *listing && self.reading == *reading
    }
}

impl SchemaCache {
    /// The table of a dataset whose files are listed.
    pub(super) async fn table(
        &self,
        origin: Origin,
        listing: Listing,
        text: &TextSettings,
        session: &dyn Session,
    ) -> Result<Arc<FileTable>> {
        let slot = self.slot(&origin);
        let reading = &session.config_options().execution.parquet;
        if let Some(known) = slot.known().filter(|known| known.holds(&listing, reading)) {
            return Ok(Arc::clone(&known.table));
        }
        let _making = slot.making.lock().await;
        let before = slot.known();
        if let Some(known) = before.as_ref().filter(|known| known.holds(&listing, reading)) {
            return Ok(Arc::clone(&known.table));
        }
        let making = Making {
            origin: Arc::new(origin),
            listing,
            text,
            session,
            before,
        };
        let known = Arc::new(making.make().await?);
        let table = Arc::clone(&known.table);
        *slot.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok(table)
    }

    /// Forgets a dataset that is gone.
    pub(super) fn forget(&self, collection: &str, dataset: &str) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.remove(&(collection.to_owned(), dataset.to_owned()));
    }

    fn slot(&self, origin: &Origin) -> Arc<Slot> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            entries
                .entry((origin.collection.clone(), origin.dataset.clone()))
                .or_default(),
        )
    }
}

impl Slot {
    fn known(&self) -> Option<Arc<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Making<'a> {
    origin: Arc<Origin>,
    listing: Listing,
    text: &'a TextSettings,
    session: &'a dyn Session,
    before: Option<Arc<Known>>,
}

impl Making<'_> {
    async fn make(self) -> Result<Known> {
        // Taken before the files are looked into: a change from now on leaves a later stamp, or an unsettled one.
        let started = now();
        let reading = self.session.config_options().execution.parquet.clone();
        let facts = self.facts(&reading).await?;
        let partitions = self.partitions()?;
        let parts: Vec<Part<'_>> = self
            .listing
            .files
            .iter()
            .zip(&facts)
            .map(|(file, facts)| Part {
                file: &file.relative,
                schema: &facts.schema,
            })
            .collect();
        let columns =
            merge(&parts, self.listing.format.is_text(), &partitions.fields).map_err(|fault| self.fault(fault))?;
        if columns.fields().is_empty() && partitions.fields.is_empty() {
            let message = "has no columns: its files are empty";
            return Err(self.origin.dataset_error(ErrorKind::Unsupported, message));
        }
        let columns = Arc::new(columns);
        let statistics = self.statistics(&facts, &columns, &reading).await?;
        let table = self
            .table(&facts, &statistics, partitions, &columns)
            .map_err(|error| self.internal(&error))?;
        let files = self
            .listing
            .files
            .iter()
            .zip(facts)
            .zip(statistics)
            .map(|((file, facts), statistics)| {
                let is_settled = !file.is_fresh(started);
                (
                    file.relative.clone(),
                    FileKnown {
                        at: file.at.clone(),
                        stamp: file.stamp,
                        is_settled,
                        facts,
                        statistics,
                    },
                )
            });
        let files: HashMap<String, FileKnown> = files.collect();
        let is_settled = files.values().all(|file| file.is_settled);
        Ok(Known {
            listing: self.listing,
            reading,
            is_settled,
            files,
            columns,
            table: Arc::new(table),
        })
    }

    /// What is still known of a file.
    fn known(&self, file: &DataFile, reading: &ParquetOptions) -> Option<&FileKnown> {
        let before = self.before.as_ref().filter(|before| before.reading == *reading)?;
        let is_same_place = before.listing.root == self.listing.root && before.listing.format == self.listing.format;
        let known = before.files.get(&file.relative)?;
        let is_same = is_same_place && known.stamp == file.stamp && known.at == file.at;
        Some(known).filter(|known| is_same && known.is_settled)
    }

    async fn facts(&self, reading: &ParquetOptions) -> Result<Vec<Facts>> {
        let footers = Footers::new(self.session, &self.origin).map_err(|error| self.internal(&error))?;
        let rows = Arc::new(RowFormat {
            format: self.listing.format,
            text: self.text.clone(),
        });
        let looks: Vec<_> = self
            .listing
            .files
            .iter()
            .map(|file| self.facts_of(file, reading, &footers, Arc::clone(&rows)))
            .collect();
        futures::stream::iter(looks).buffered(AT_ONCE).try_collect().await
    }

    async fn facts_of(
        &self,
        file: &DataFile,
        reading: &ParquetOptions,
        footers: &Footers<'_>,
        rows: Arc<RowFormat>,
    ) -> Result<Facts> {
        if let Some(known) = self.known(file, reading) {
            return Ok(known.facts.clone());
        }
        let facts = match self.listing.format {
            Format::Parquet => {
                footers.forget(file);
                footers.facts(file).await
            }
            Format::Arrow | Format::Avro | Format::Csv | Format::Json => {
                let input = match self.input(file) {
                    Ok(input) => input,
                    Err(error) => return Err(self.internal(&error)),
                };
                let file = file.clone();
                match tokio::task::spawn_blocking(move || look_into(&file, &input, &rows)).await {
                    Ok(facts) => facts,
                    Err(_) => Err(Fault::new(ErrorKind::Internal, "could not be looked into")),
                }
            }
        };
        facts.map_err(|fault| self.origin.error_in(&file.relative, fault))
    }

    /// The bytes of a file, for decoders that block.
    fn input(&self, file: &DataFile) -> datafusion::error::Result<Input> {
        Ok(match &file.at {
            At::Disk(path) => Input::Local(path.clone()),
            At::Store { location, .. } => {
                let store = self.session.runtime_env().object_store(self.origin.store_url()?)?;
                Input::Remote(RemoteFile::new(store, location.clone(), file.stamp.size))
            }
        })
    }

    fn partitions(&self) -> Result<Partitions> {
        let keys: Vec<&[_]> = self
            .listing
            .files
            .iter()
            .map(|file| file.partitions.as_slice())
            .collect();
        Partitions::of(&keys).map_err(|error| self.internal(&error))
    }

    async fn statistics(
        &self,
        facts: &[Facts],
        columns: &SchemaRef,
        reading: &ParquetOptions,
    ) -> Result<Vec<Option<Arc<Statistics>>>> {
        if self.listing.format != Format::Parquet {
            return Ok(vec![None; facts.len()]);
        }
        let footers = Footers::new(self.session, &self.origin).map_err(|error| self.internal(&error))?;
        let looks: Vec<_> = self
            .listing
            .files
            .iter()
            .zip(facts)
            .map(|(file, facts)| self.statistics_of(file, facts, columns, reading, &footers))
            .collect();
        futures::stream::iter(looks)
            .buffered(AT_ONCE)
            .map_ok(Some)
            .try_collect()
            .await
    }

    async fn statistics_of(
        &self,
        file: &DataFile,
        facts: &Facts,
        columns: &SchemaRef,
        reading: &ParquetOptions,
        footers: &Footers<'_>,
    ) -> Result<Arc<Statistics>> {
        let same_columns = self.before.as_ref().is_some_and(|before| before.columns == *columns);
        let known = self.known(file, reading).filter(|_| same_columns);
        if let Some(statistics) = known.and_then(|known| known.statistics.clone()) {
            return Ok(statistics);
        }
        let found = footers.statistics(facts, columns).await;
        found
            .map(Arc::new)
            .map_err(|fault| self.origin.error_in(&file.relative, fault))
    }

    fn table(
        &self,
        facts: &[Facts],
        statistics: &[Option<Arc<Statistics>>],
        partitions: Partitions,
        columns: &SchemaRef,
    ) -> datafusion::error::Result<FileTable> {
        let mut files = Vec::with_capacity(facts.len());
        for (at, (facts, statistics)) in facts.iter().zip(statistics).enumerate() {
            let mut file = PartitionedFile::new_from_meta(facts.meta.clone());
            file.partition_values = partitions.values_of(at)?;
            let known = match statistics {
                Some(statistics) => statistics.as_ref().clone(),
                // Enough to tell a small table from a large one when a join is planned.
                None => Statistics {
                    total_byte_size: Precision::Inexact(usize::try_from(facts.meta.size).unwrap_or(usize::MAX)),
                    ..Statistics::new_unknown(columns)
                },
            };
            file.statistics = Some(Arc::new(with_partitions(known, &file.partition_values)));
            files.push(file);
        }
        let table_schema = TableSchema::builder(Arc::clone(columns))
            .with_table_partition_cols(partitions.fields.clone())
            .build();
        let reading = match self.listing.format {
            Format::Parquet => Reading::Parquet,
            format => {
                let mut text = self.text.clone();
                text.multiline = text.multiline.or(Some(facts.iter().any(|facts| facts.multiline)));
                Reading::Rows(Arc::new(RowFormat { format, text }))
            }
        };
        FileTable::new(Arc::clone(&self.origin), table_schema, reading, files, partitions)
    }

    fn fault(&self, fault: Fault) -> Error {
        self.origin.dataset_error(fault.kind, fault.message)
    }

    fn internal(&self, error: &DataFusionError) -> Error {
        self.origin.dataset_error(ErrorKind::Internal, error.strip_backtrace())
    }
}

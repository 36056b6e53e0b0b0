//! One dataset as a table.
//!
//! In: the files of a dataset with their schema and statistics, and a query's projection, filters and limit. Out: a
//! `DataSourceExec` over a `FileScanConfig`, which DataFusion and the distributed planner split, prune and push filters
//! into. Planning touches no file: all that it needs was found when the table was made.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::memory::DataSourceExec;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{Result, Statistics, project_schema};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, FileSource, ParquetSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

use super::fault::Origin;
use super::infer::parquet_options;
use super::named::NamedSource;
use super::partitions::Partitions;
use super::rows::{RowFormat, RowSource};

/// How the files of a table are read.
#[derive(Debug, Clone)]
pub(super) enum Reading {
    Parquet,
    Rows(Arc<RowFormat>),
}

/// The table of one dataset, as its files were when it was made.
pub(super) struct FileTable {
    pub(super) origin: Arc<Origin>,
    pub(super) table_schema: TableSchema,
    pub(super) reading: Reading,
    /// Sorted by path, with statistics.
    pub(super) files: Vec<PartitionedFile>,
    pub(super) partitions: Partitions,
    /// Of all files together.
    pub(super) statistics: Statistics,
    /// All files in groups, for each number of groups that was asked for.
    groups: Mutex<HashMap<usize, Arc<Vec<FileGroup>>>>,
}

impl FileTable {
    pub(super) fn new(
        origin: Arc<Origin>,
        table_schema: TableSchema,
        reading: Reading,
        files: Vec<PartitionedFile>,
        partitions: Partitions,
    ) -> Result<FileTable> {
        let statistics = together(&files, table_schema.table_schema())?;
        Ok(FileTable {
            origin,
            table_schema,
            reading,
            files,
            partitions,
            statistics,
            groups: Mutex::default(),
        })
    }

    /// The source that reads the files in this session.
    fn source(&self, session: &dyn Session) -> Result<Arc<dyn FileSource>> {
        let inner: Arc<dyn FileSource> = match &self.reading {
            Reading::Parquet => {
                let store = session.runtime_env().object_store(self.origin.store_url()?)?;
                let footers = session.runtime_env().cache_manager.get_file_metadata_cache();
                let reader = Arc::new(CachedParquetFileReaderFactory::new(store, footers));
                let source = ParquetSource::new(self.table_schema.clone())
                    .with_table_parquet_options(parquet_options(session))
                    .with_parquet_file_reader_factory(reader);
                Arc::new(source)
            }
            Reading::Rows(format) => Arc::new(RowSource::new(
                Arc::clone(format),
                Arc::clone(&self.origin),
                self.table_schema.clone(),
            )),
        };
        Ok(Arc::new(NamedSource::new(inner, Arc::clone(&self.origin))))
    }

    /// The files that a query has to read, in groups, and their statistics.
    fn chosen(&self, filters: &[Expr], limit: Option<usize>, groups: usize) -> Result<(Vec<FileGroup>, Statistics)> {
        let (deciding, others): (Vec<Expr>, Vec<Expr>) = filters
            .iter()
            .cloned()
            .partition(|filter| self.partitions.decides(filter));
        let selected = self.partitions.select(&deciding)?;
        let enough = limit.filter(|_| others.is_empty());
        if selected.is_none() && enough.is_none() {
            return Ok((self.all_groups(groups)?.as_ref().clone(), self.statistics.clone()));
        }
        let mut files: Vec<PartitionedFile> = match selected {
            None => self.files.clone(),
            Some(selected) => selected.iter().filter_map(|at| self.files.get(*at)).cloned().collect(),
        };
        let all = files.len();
        if let Some(enough) = enough {
            files.truncate(files_with_rows(&files, enough));
        }
        let schema = self.table_schema.table_schema();
        let statistics = together(&files, schema)?;
        // With other files the same query could have other rows.
        let statistics = if files.len() < all {
            statistics.to_inexact()
        } else {
            statistics
        };
        Ok((grouped(files, groups, schema)?, statistics))
    }

    fn all_groups(&self, count: usize) -> Result<Arc<Vec<FileGroup>>> {
        let mut known = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(groups) = known.get(&count) {
            return Ok(Arc::clone(groups));
        }
        let groups = Arc::new(grouped(self.files.clone(), count, self.table_schema.table_schema())?);
        known.insert(count, Arc::clone(&groups));
        Ok(groups)
    }
}

/// How many of the first files hold `enough` rows for certain.
fn files_with_rows(files: &[PartitionedFile], enough: usize) -> usize {
    let mut rows = 0_usize;
    for (at, file) in files.iter().enumerate() {
        match file.statistics.as_ref().map(|statistics| statistics.num_rows) {
            Some(Precision::Exact(more)) => rows = rows.saturating_add(more),
            _ => return files.len(),
        }
        if rows >= enough {
            return at + 1;
        }
    }
    files.len()
}

fn together(files: &[PartitionedFile], schema: &SchemaRef) -> Result<Statistics> {
    Statistics::try_merge_iter(files.iter().filter_map(|file| file.statistics.as_deref()), schema)
}

fn grouped(files: Vec<PartitionedFile>, count: usize, schema: &SchemaRef) -> Result<Vec<FileGroup>> {
    let groups = FileGroup::new(files).split_files(count.max(1)).into_iter();
    groups
        .map(|group| {
            let statistics = together(group.files(), schema)?;
            Ok(group.with_statistics(Arc::new(statistics)))
        })
        .collect()
}

#[async_trait]
impl TableProvider for FileTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.table_schema.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(self.statistics.clone())
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match self.partitions.decides(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (groups, statistics) = self.chosen(filters, limit, session.config().target_partitions())?;
        if groups.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(&self.schema(), projection)?)));
        }
        let scan = FileScanConfigBuilder::new(self.origin.store_url()?, self.source(session)?)
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }
}

impl fmt::Debug for FileTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileTable")
            .field("origin", &self.origin)
            .field("files", &self.files.len())
            .finish_non_exhaustive()
    }
}

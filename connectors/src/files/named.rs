//! A file source that watches over another one.
//!
//! In: a file source, and where its files come from. Out: the same rows, but errors name depot, dataset and file, a
//! decoder that panics becomes an error, and a file that changes while it is read is an error instead of a mixture of
//! two versions. Filters that NaN may pass are not offered to it. Everything else is the inner source's: pruning, other
//! filters, projections, metrics.

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::catalog::memory::DataSourceExec;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileGroup, FileOpenFuture, FileOpener, FileScanConfig, FileSource, FileStreamBuilder,
};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, PhysicalExpr};
use datafusion::physical_expr_common::sort_expr::PhysicalSortExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter_pushdown::{FilterPushdownPropagation, PushedDown};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::ObjectStore;
use object_store::path::Path;

use super::fault::{Fault, Home, Origin};
use super::listing::Stamp;
use super::nan::may_be_true_of_nan;
use super::row_lists::with_row_lists;
use super::short_lists::with_short_lists;
use crate::ErrorKind;

/// A file source whose errors have names.
#[derive(Clone)]
pub(super) struct NamedSource {
    pub(super) inner: Arc<dyn FileSource>,
    pub(super) origin: Arc<Origin>,
    /// Whether filters are offered to the inner source.
    pub(super) takes_filters: bool,
}

impl NamedSource {
    pub(super) fn new(inner: Arc<dyn FileSource>, origin: Arc<Origin>) -> NamedSource {
        NamedSource {
            inner,
            origin,
            takes_filters: true,
        }
    }

    fn around(&self, inner: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        Arc::new(NamedSource { inner, ..self.clone() })
    }
}

/// The same leaf, if it scans files of a depot, which prunes by no filter and applies none. `None` for any other node.
pub(crate) fn without_filters(node: &dyn ExecutionPlan) -> Option<Arc<dyn ExecutionPlan>> {
    let leaf = node.downcast_ref::<DataSourceExec>()?;
    let scan = leaf.data_source().downcast_ref::<FileScanConfig>()?;
    let named = scan.file_source().downcast_ref::<NamedSource>()?;
    let mut scan = scan.clone();
    scan.file_source = Arc::new(NamedSource {
        takes_filters: false,
        ..named.clone()
    });
    Some(DataSourceExec::from_data_source(scan))
}

impl FileSource for NamedSource {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        scan: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        let inner = with_short_lists(&self.inner);
        let mut template = scan.clone();
        template.file_source = Arc::clone(&inner);
        template.file_groups = Vec::new();
        template.output_partitioning = None;
        Ok(Arc::new(NamedOpener {
            inner,
            origin: Arc::clone(&self.origin),
            store,
            template,
            partition,
        }))
    }

    fn table_schema(&self) -> &TableSchema {
        self.inner.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        self.around(self.inner.with_batch_size(batch_size))
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.inner.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.inner.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.inner.metrics()
    }

    fn file_type(&self) -> &str {
        self.inner.file_type()
    }

    fn fmt_extra(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        with_short_lists(&self.inner).fmt_extra(kind, f)
    }

    fn supports_repartitioning(&self) -> bool {
        self.inner.supports_repartitioning()
    }

    fn repartitioned(
        &self,
        target_partitions: usize,
        smallest_file: usize,
        output_ordering: Option<LexOrdering>,
        scan: &FileScanConfig,
    ) -> Result<Option<FileScanConfig>> {
        // The inner source returns a copy of the scan, whose source is this one.
        self.inner
            .repartitioned(target_partitions, smallest_file, output_ordering, scan)
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let schema = self.table_schema().table_schema();
        let kept_back: Vec<bool> = filters
            .iter()
            .map(|filter| !self.takes_filters || may_be_true_of_nan(filter, schema))
            .collect();
        let offered = filters
            .into_iter()
            .zip(&kept_back)
            .filter(|(_, kept_back)| !**kept_back);
        let pushed = self
            .inner
            .try_pushdown_filters(offered.map(|(filter, _)| filter).collect(), config)?;
        let mut answers = pushed.filters.into_iter();
        let answer = |kept_back| {
            if kept_back {
                PushedDown::No
            } else {
                answers.next().unwrap_or(PushedDown::No)
            }
        };
        Ok(FilterPushdownPropagation {
            filters: kept_back.into_iter().map(answer).collect(),
            updated_node: pushed.updated_node.map(|inner| self.around(inner)),
        })
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
        properties: &EquivalenceProperties,
    ) -> Result<SortOrderPushdownResult<Arc<dyn FileSource>>> {
        Ok(match self.inner.try_pushdown_sort(order, properties)? {
            SortOrderPushdownResult::Exact { inner } => SortOrderPushdownResult::Exact {
                inner: self.around(inner),
            },
            SortOrderPushdownResult::Inexact { inner } => SortOrderPushdownResult::Inexact {
                inner: self.around(inner),
            },
            SortOrderPushdownResult::Unsupported => SortOrderPushdownResult::Unsupported,
        })
    }

    fn reorder_files(&self, files: Vec<PartitionedFile>) -> Vec<PartitionedFile> {
        self.inner.reorder_files(files)
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        Ok(self
            .inner
            .try_pushdown_projection(projection)?
            .map(|inner| self.around(inner)))
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.inner.apply_expressions(visit)
    }
}

struct NamedOpener {
    inner: Arc<dyn FileSource>,
    origin: Arc<Origin>,
    store: Arc<dyn ObjectStore>,
    /// The scan without its files.
    template: FileScanConfig,
    partition: usize,
}

impl FileOpener for NamedOpener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let watch = Watch::over(&file, self);
        let inner = with_row_lists(&self.inner, &file).unwrap_or_else(|| Arc::clone(&self.inner));
        let mut scan = self.template.clone();
        scan.file_source = Arc::clone(&inner);
        scan.file_groups = vec![FileGroup::new(vec![file])];
        // The stream of the one file; what it counts goes to the inner source's metrics, except what the stream around
        // it counts as well.
        let reader = inner.create_morselizer(Arc::clone(&self.store), &scan, self.partition)?;
        let uncounted = ExecutionPlanMetricsSet::new();
        let rows = FileStreamBuilder::new(&scan)
            .with_partition(0)
            .with_morselizer(reader)
            .with_metrics(&uncounted)
            .build()?;
        Ok(async move {
            watch.check()?;
            Ok(watch.rows(rows.boxed()))
        }
        .boxed())
    }
}

/// Watches one file while it is read.
struct Watch {
    origin: Arc<Origin>,
    location: Path,
    planned: Stamp,
}

impl Watch {
    fn over(file: &PartitionedFile, opener: &NamedOpener) -> Watch {
        let changed = file.object_meta.last_modified.timestamp_nanos_opt().unwrap_or_default();
        let planned = Stamp {
            size: file.object_meta.size,
            changed,
        };
        Watch {
            origin: Arc::clone(&opener.origin),
            location: file.object_meta.location.clone(),
            planned,
        }
    }

    /// An error if the file is not the one that the query was planned with. The store of a depot sees to that itself, at
    /// every answer.
    fn check(&self) -> Result<()> {
        match self.origin.home {
            Home::Store => return Ok(()),
            Home::Disk => {}
        }
        let path = std::path::Path::new("/").join(self.location.as_ref());
        let metadata = std::fs::metadata(path).map_err(|error| self.error(Fault::io(&error)))?;
        if Stamp::of(&metadata) == self.planned {
            return Ok(());
        }
        Err(self.error(Fault::new(
            ErrorKind::Changed,
            "changed while the query ran; run it again",
        )))
    }

    /// The rows, and at the end an error if the file changed meanwhile.
    fn rows(self, rows: BoxStream<'static, Result<RecordBatch>>) -> BoxStream<'static, Result<RecordBatch>> {
        let watch = Arc::new(self);
        let after = Arc::clone(&watch);
        let named = AssertUnwindSafe(rows).catch_unwind().then(move |batch| {
            let watch = Arc::clone(&watch);
            async move {
                let error = match batch {
                    Ok(Ok(batch)) => return Ok(batch),
                    Ok(Err(error)) => watch.named(error),
                    Err(panic) => watch.error(panicked(panic.as_ref())),
                };
                // A file that was overwritten looks damaged.
                watch.check().and(Err(error))
            }
        });
        let check = futures::stream::once(async move { after.check().err() });
        named
            .chain(check.filter_map(|error| async move { error.map(Err) }))
            .boxed()
    }

    fn named(&self, error: DataFusionError) -> DataFusionError {
        self.origin.name(&self.location, error)
    }

    fn error(&self, fault: Fault) -> DataFusionError {
        self.origin.error(&self.location, fault).into()
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Fault {
    tracing::error!(
        panic = panic
            .downcast_ref::<&str>()
            .copied()
            .or(panic.downcast_ref::<String>().map(String::as_str)),
        "a file decoder panicked"
    );
    Fault::corrupt("is damaged: it cannot be decoded")
}

impl fmt::Debug for NamedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedSource")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

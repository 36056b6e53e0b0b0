//! The file source for every format but Parquet.
//!
//! It reads a file from its beginning to its end, or a part of it where the format allows, with columns matched by name:
//! a column that a file lacks is NULL, a column that has a narrower type there is widened. In: a file scan. Out: batches,
//! or errors that name depot, dataset and file.

use std::fmt;
use std::io::{Read, Seek};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpenFuture, FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::projection::{ProjectionOpener, SplitProjection};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr_adapter::{BatchAdapter, BatchAdapterFactory};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, PhysicalExpr};
use futures::{FutureExt, Stream, StreamExt};
use object_store::{GetResultPayload, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use super::fault::{Fault, Home, Origin, fault_of};
use super::formats::{Compression, Format};
use super::remote::RemoteFile;
use super::settings::TextSettings;
use super::{avro, csv, ipc, json};
use crate::ErrorKind;

/// Batches of one file.
pub(super) type Batches = Box<dyn Iterator<Item = Result<RecordBatch, Fault>> + Send>;

/// Something that can be read from any place.
pub(super) trait ReadSeek: Read + Seek + Send {}

impl<T: Read + Seek + Send> ReadSeek for T {}

/// The bytes of a file, which can be opened more than once.
#[derive(Debug, Clone)]
pub(super) enum Input {
    Local(PathBuf),
    Remote(RemoteFile),
}

impl Input {
    pub(super) fn open(&self) -> Result<Box<dyn ReadSeek>, Fault> {
        match self {
            Input::Local(path) => match std::fs::File::open(path) {
                Ok(file) => Ok(Box::new(file)),
                Err(error) => Err(Fault::io(&error)),
            },
            Input::Remote(file) => Ok(Box::new(file.open())),
        }
    }

    /// Decoders of other people may panic on damaged files, and may not pass on what an object store said.
    pub(super) fn guarded<T>(&self, read: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        let read = catch_unwind(AssertUnwindSafe(read));
        let read = read.unwrap_or_else(|_| Err(Fault::corrupt("is damaged: it cannot be decoded")));
        read.map_err(|fault| match self {
            Input::Local(_) => fault,
            Input::Remote(file) => file.failure().unwrap_or(fault),
        })
    }
}

/// What is wanted of a file.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// The columns, with the types of the table.
    pub(super) wanted: SchemaRef,
    pub(super) batch_size: usize,
    /// The part of the file; `None` for all of it.
    pub(super) range: Option<Range<u64>>,
}

/// How the files of a scan are read. Workers receive it with the scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RowFormat {
    pub(super) format: Format,
    pub(super) text: TextSettings,
}

impl RowFormat {
    /// Whether a file of this name can be read in parts.
    pub(super) fn is_splittable(&self, name: &str) -> bool {
        match self.format {
            Format::Arrow => true,
            Format::Csv => self.text.compression_of(name) == Compression::None && !self.text.multiline.unwrap_or(false),
            Format::Json => self.text.compression_of(name) == Compression::None,
            Format::Avro | Format::Parquet => false,
        }
    }

    fn open(&self, input: &Input, name: &str, request: &Request) -> Result<Batches, Fault> {
        let batches = match self.format {
            Format::Csv => return csv::open(input, request, &csv::Dialect::of(&self.text, name)),
            Format::Json => return json::open(input, request, self.text.compression_of(name)),
            Format::Arrow => ipc::open(input, request)?,
            Format::Avro => avro::open(input, request)?,
            Format::Parquet => return Err(Fault::new(ErrorKind::Internal, "is Parquet and is not read in rows")),
        };
        let mut fitting = Fitting {
            wanted: Arc::clone(&request.wanted),
            adapter: None,
        };
        Ok(Box::new(batches.map(move |batch| fitting.fit(&batch?))))
    }
}

/// Gives the batches of one file the wanted columns and types.
struct Fitting {
    wanted: SchemaRef,
    adapter: Option<BatchAdapter>,
}

impl Fitting {
    fn fit(&mut self, batch: &RecordBatch) -> Result<RecordBatch, Fault> {
        let other_columns = || Fault::new(ErrorKind::Changed, "has other columns than when the query was planned");
        if self.wanted.fields().is_empty() {
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            return RecordBatch::try_new_with_options(Arc::clone(&self.wanted), vec![], &options)
                .map_err(|_| other_columns());
        }
        let adapted = match &self.adapter {
            Some(adapter) => adapter.adapt_batch(batch),
            None => {
                let made = BatchAdapterFactory::new(Arc::clone(&self.wanted)).make_adapter(&batch.schema());
                made.and_then(|adapter| self.adapter.insert(adapter).adapt_batch(batch))
            }
        };
        adapted.map_err(|error| fault_of(&error).unwrap_or_else(other_columns))
    }
}

/// Reads files that are not Parquet.
#[derive(Clone)]
pub(super) struct RowSource {
    pub(super) format: Arc<RowFormat>,
    pub(super) origin: Arc<Origin>,
    table_schema: TableSchema,
    projection: SplitProjection,
    batch_size: usize,
    metrics: ExecutionPlanMetricsSet,
}

impl RowSource {
    pub(super) fn new(format: Arc<RowFormat>, origin: Arc<Origin>, table_schema: TableSchema) -> RowSource {
        RowSource {
            format,
            origin,
            projection: SplitProjection::unprojected(&table_schema),
            table_schema,
            batch_size: 8192,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl FileSource for RowSource {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        _scan: &FileScanConfig,
        _partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        let file_schema = self.table_schema.file_schema();
        let wanted = Arc::new(file_schema.project(&self.projection.file_indices)?);
        let opener = RowOpener {
            format: Arc::clone(&self.format),
            origin: Arc::clone(&self.origin),
            store,
            wanted: Arc::new(Schema::new(wanted.fields().clone())),
            batch_size: self.batch_size,
        };
        ProjectionOpener::try_new(self.projection.clone(), Arc::new(opener), file_schema)
    }

    fn table_schema(&self) -> &TableSchema {
        &self.table_schema
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Arc::new(RowSource {
            batch_size,
            ..self.clone()
        })
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        Some(&self.projection.source)
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        let merged = self.projection.source.try_merge(projection)?;
        let projection = SplitProjection::new(self.table_schema.file_schema(), &merged);
        Ok(Some(Arc::new(RowSource {
            projection,
            ..self.clone()
        })))
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        &self.metrics
    }

    fn file_type(&self) -> &str {
        match self.format.format {
            Format::Arrow => "arrow",
            Format::Avro => "avro",
            Format::Csv => "csv",
            Format::Json => "json",
            Format::Parquet => "parquet",
        }
    }

    fn fmt_extra(&self, _kind: DisplayFormatType, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }

    fn repartitioned(
        &self,
        target_partitions: usize,
        smallest_file: usize,
        output_ordering: Option<datafusion::physical_expr::LexOrdering>,
        scan: &FileScanConfig,
    ) -> Result<Option<FileScanConfig>> {
        let mut files = scan.file_groups.iter().flat_map(|group| group.iter());
        if files.any(|file| {
            !self
                .format
                .is_splittable(file.object_meta.location.filename().unwrap_or_default())
        }) {
            return Ok(None);
        }
        let groups = datafusion::datasource::physical_plan::FileGroupPartitioner::new()
            .with_target_partitions(target_partitions)
            .with_repartition_file_min_size(smallest_file)
            .with_preserve_order_within_groups(output_ordering.is_some())
            .repartition_file_groups(&scan.file_groups);
        Ok(groups.map(|file_groups| {
            let mut scan = scan.clone();
            scan.file_groups = file_groups;
            scan
        }))
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        datafusion::physical_plan::apply_expression_roots(
            self.projection.source.iter().map(|column| &column.expr),
            visit,
        )
    }
}

struct RowOpener {
    format: Arc<RowFormat>,
    origin: Arc<Origin>,
    store: Arc<dyn ObjectStore>,
    wanted: SchemaRef,
    batch_size: usize,
}

impl FileOpener for RowOpener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let location = file.object_meta.location.clone();
        let name = location.filename().unwrap_or_default().to_owned();
        let range = match part_of(&file, self.format.is_splittable(&name)) {
            Part::Nothing => return Ok(Box::pin(async { Ok(futures::stream::empty().boxed()) })),
            Part::All => None,
            Part::Range(range) => Some(range),
        };
        let request = Request {
            wanted: Arc::clone(&self.wanted),
            batch_size: self.batch_size,
            range,
        };
        let (format, origin, store) = (
            Arc::clone(&self.format),
            Arc::clone(&self.origin),
            Arc::clone(&self.store),
        );
        let size = file.object_meta.size;
        Ok(Box::pin(async move {
            let input = match origin.home {
                Home::Store => {
                    let until = request.range.as_ref().map_or(size, |range| range.end);
                    Input::Remote(RemoteFile::new(store, location.clone(), size).until(until))
                }
                Home::Disk => {
                    let found = store.get(&location).await;
                    let found =
                        found.map_err(|error| origin.name(&location, DataFusionError::ObjectStore(Box::new(error))))?;
                    match found.payload {
                        GetResultPayload::File(_, path) => Input::Local(path),
                        GetResultPayload::Stream(_) => {
                            return Err(internal_datafusion_err!("a file on a disk that is not a file"));
                        }
                    }
                }
            };
            let name_it = move |fault: Fault| DataFusionError::from(origin.error(&location, fault));
            Ok(match &input {
                Input::Local(_) => {
                    let batches = Decoded::open(&format, input, &name, &request).map_err(&name_it)?;
                    futures::stream::iter(batches.map(move |batch| batch.map_err(&name_it))).boxed()
                }
                // Its decoder waits for the store, which a thread that computes must not.
                Input::Remote(_) => aside(move || Decoded::open(&format, input, &name, &request))
                    .map(move |batch| batch.map_err(&name_it))
                    .boxed(),
            })
        }))
    }
}

/// The batches of one file up to the first failure.
struct Decoded {
    input: Input,
    batches: Batches,
    failed: bool,
}

impl Decoded {
    fn open(format: &RowFormat, input: Input, name: &str, request: &Request) -> Result<Decoded, Fault> {
        let batches = input.guarded(|| format.open(&input, name, request))?;
        Ok(Decoded {
            input,
            batches,
            failed: false,
        })
    }
}

impl Iterator for Decoded {
    type Item = Result<RecordBatch, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let batches = &mut self.batches;
        let batch = self.input.guarded(|| batches.next().transpose()).transpose()?;
        self.failed = batch.is_err();
        Some(batch)
    }
}

/// Decodes on a thread that may wait. It is at most two batches ahead, and ends when nobody takes them any more.
fn aside(
    open: impl FnOnce() -> Result<Decoded, Fault> + Send + 'static,
) -> impl Stream<Item = Result<RecordBatch, Fault>> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let decoding = SpawnedTask::spawn_blocking(move || {
        match open() {
            Ok(mut batches) => {
                while let Some(batch) = batches.next()
                    && sender.blocking_send(batch).is_ok()
                {}
            }
            Err(fault) => drop(sender.blocking_send(Err(fault))),
        };
    });
    let mut decoding = Some(decoding);
    futures::stream::poll_fn(move |context| {
        if let Some(batch) = std::task::ready!(receiver.poll_recv(context)) {
            return Poll::Ready(Some(batch));
        }
        // An end is one only if the thread came to it: a thread that died has more rows.
        let Some(ended) = decoding.as_mut() else {
            return Poll::Ready(None);
        };
        let ended = std::task::ready!(ended.poll_unpin(context));
        decoding = None;
        Poll::Ready(match ended {
            Ok(()) => None,
            Err(_) => Some(Err(Fault::new(ErrorKind::Internal, "could not be decoded to its end"))),
        })
    })
}

/// What a reader of one part of a file has to read.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    All,
    Nothing,
    Range(Range<u64>),
}

/// Whoever splits files may not know that some cannot be split: the part with the first byte then stands for all.
fn part_of(file: &PartitionedFile, is_splittable: bool) -> Part {
    let Some(range) = &file.range else {
        return Part::All;
    };
    let start = u64::try_from(range.start).unwrap_or(0);
    let end = u64::try_from(range.end).unwrap_or(0);
    if start == 0 && end >= file.object_meta.size {
        Part::All
    } else if is_splittable {
        Part::Range(start..end)
    } else if start == 0 && end > 0 {
        Part::All
    } else {
        Part::Nothing
    }
}

impl fmt::Debug for RowSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowSource")
            .field("format", &self.format.format)
            .finish_non_exhaustive()
    }
}

//! A folder with a depot in it, and a way to ask it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::TableProvider;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use minerva_connectors::{Depots, Error, Source};
use tempfile::TempDir;

/// A depot `lake` over the folder `data`.
pub(crate) struct Lake {
    folder: TempDir,
    pub(crate) depots: Arc<Depots>,
    pub(crate) context: SessionContext,
}

impl Lake {
    /// A depot with no settings but its path.
    pub(crate) fn new() -> Lake {
        Lake::with("")
    }

    /// A depot with more settings, as YAML flow.
    pub(crate) fn with(settings: &str) -> Lake {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        let manifest = format!(
            "name: lake\nversion: v2alpha\ntype: depot\ndepot:\n  type: file\n  file: {{path: ./data{}{settings}}}\n",
            if settings.is_empty() { "" } else { ", " }
        );
        let file = folder.path().join("lake.yaml");
        fs::write(&file, manifest).unwrap();
        let resources = minerva_resources::load(&[file], &[minerva_connectors::check]).unwrap();
        let depots = Arc::new(Depots::new(Arc::new(resources)));
        let config = SessionConfig::new()
            .with_target_partitions(3)
            .with_extension(Arc::clone(&depots));
        let state = SessionStateBuilder::new()
            .with_default_features()
            .with_config(config)
            .build();
        Lake {
            folder,
            depots,
            context: SessionContext::new_with_state(state),
        }
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join("data").join(relative)
    }

    /// Writes a file and the folders on the way to it.
    pub(crate) fn write(&self, relative: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn parquet(&self, relative: &str, rows: &RecordBatch) {
        self.write(relative, parquet(rows, 1024));
    }

    pub(crate) async fn source(&self) -> Arc<dyn Source> {
        self.depots.open("lake").await.unwrap()
    }

    pub(crate) async fn find(&self, collection: &str, dataset: &str) -> Result<Option<Arc<dyn TableProvider>>, Error> {
        self.source()
            .await
            .dataset(collection, dataset, &self.context.state())
            .await
    }

    pub(crate) async fn table(&self, collection: &str, dataset: &str) -> Arc<dyn TableProvider> {
        self.find(collection, dataset).await.unwrap().unwrap()
    }

    /// The dataset `c.t` as it is now, as table `t`.
    async fn frame(&self, sql: &str) -> datafusion::error::Result<DataFrame> {
        let table = self.find("c", "t").await?.unwrap();
        self.context.deregister_table("t")?;
        self.context.register_table("t", table)?;
        self.context.sql(sql).await
    }

    /// The physical plan of a query on the dataset `c.t`.
    pub(crate) async fn plan(&self, sql: &str) -> Arc<dyn ExecutionPlan> {
        self.frame(sql).await.unwrap().create_physical_plan().await.unwrap()
    }

    pub(crate) async fn run(&self, plan: Arc<dyn ExecutionPlan>) -> datafusion::error::Result<Vec<RecordBatch>> {
        collect(plan, self.context.task_ctx()).await
    }

    /// The rows of a query on the dataset `c.t`, one line each, values joined by `|`.
    pub(crate) async fn ask(&self, sql: &str) -> Vec<String> {
        lines(&self.frame(sql).await.unwrap().collect().await.unwrap())
    }

    /// The error of a query on the dataset `c.t`.
    pub(crate) async fn fails(&self, sql: &str) -> String {
        let error = match self.frame(sql).await {
            Err(error) => error,
            Ok(frame) => match frame.collect().await {
                Err(error) => error,
                Ok(rows) => panic!("no error but {}", pretty_format_batches(&rows).unwrap()),
            },
        };
        Error::find(&error)
            .unwrap_or_else(|| panic!("the error has no name: {error}"))
            .to_string()
    }
}

pub(crate) fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let value = |column: &ArrayRef| {
                let options = arrow::util::display::FormatOptions::default().with_null("NULL");
                arrow::util::display::ArrayFormatter::try_new(column, &options)
                    .unwrap()
                    .value(row)
                    .to_string()
            };
            lines.push(batch.columns().iter().map(value).collect::<Vec<_>>().join("|"));
        }
    }
    lines
}

/// `id` counts from `from`, `name` is `row <id>`.
pub(crate) fn numbered(from: i64, rows: i64) -> RecordBatch {
    let ids: Int64Array = (from..from + rows).map(Some).collect();
    let names: StringArray = (from..from + rows).map(|id| Some(format!("row {id}"))).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(ids) as ArrayRef, true),
        ("name", Arc::new(names) as ArrayRef, true),
    ])
    .unwrap()
}

pub(crate) fn column(name: &str, values: impl Array + 'static) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([(name, Arc::new(values) as ArrayRef, true)]).unwrap()
}

pub(crate) fn parquet(rows: &RecordBatch, rows_in_group: usize) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(rows_in_group))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.into_inner().unwrap()
}

pub(crate) fn arrow_file(rows: &RecordBatch) -> Vec<u8> {
    let mut writer = arrow::ipc::writer::FileWriter::try_new(Vec::new(), &rows.schema()).unwrap();
    for start in (0..rows.num_rows()).step_by(1000) {
        writer
            .write(&rows.slice(start, (rows.num_rows() - start).min(1000)))
            .unwrap();
    }
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

pub(crate) fn arrow_stream(rows: &RecordBatch) -> Vec<u8> {
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &rows.schema()).unwrap();
    writer.write(rows).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

pub(crate) fn avro(rows: &RecordBatch) -> Vec<u8> {
    let schema = rows.schema().as_ref().clone();
    let mut writer = datafusion::arrow_avro::writer::AvroWriter::new(Vec::new(), schema).unwrap();
    writer.write(rows).unwrap();
    writer.finish().unwrap();
    writer.into_inner()
}

pub(crate) fn csv(rows: &RecordBatch) -> Vec<u8> {
    let mut writer = arrow::csv::Writer::new(Vec::new());
    writer.write(rows).unwrap();
    writer.into_inner()
}

pub(crate) fn json(rows: &RecordBatch) -> Vec<u8> {
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    writer.write(rows).unwrap();
    writer.finish().unwrap();
    writer.into_inner()
}

pub(crate) async fn compressed(bytes: Vec<u8>, by: FileCompressionType) -> Vec<u8> {
    let plain = futures::stream::once(async move { Ok(bytes.into()) });
    let parts: Vec<_> = by
        .convert_to_compress_stream(Box::pin(plain))
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    parts.concat()
}

pub(crate) fn truncated(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len() / 2]
}

/// The files of the only scan of a plan.
pub(crate) fn scanned(plan: &Arc<dyn ExecutionPlan>) -> Vec<String> {
    let mut files: Vec<String> = scan_of(plan)
        .file_groups
        .iter()
        .flat_map(|group| group.iter())
        .map(|file| file.object_meta.location.filename().unwrap().to_owned())
        .collect();
    files.sort();
    files.dedup();
    files
}

pub(crate) fn scan_of(plan: &Arc<dyn ExecutionPlan>) -> datafusion::datasource::physical_plan::FileScanConfig {
    let mut plan = plan;
    while let Some(child) = plan.children().first().copied() {
        plan = child;
    }
    let leaf = plan
        .downcast_ref::<datafusion::catalog::memory::DataSourceExec>()
        .unwrap();
    leaf.data_source()
        .downcast_ref::<datafusion::datasource::physical_plan::FileScanConfig>()
        .unwrap()
        .clone()
}

pub(crate) fn replace(path: &Path, bytes: impl AsRef<[u8]>) {
    let aside = path.with_extension("aside");
    fs::write(&aside, bytes).unwrap();
    fs::rename(aside, path).unwrap();
}

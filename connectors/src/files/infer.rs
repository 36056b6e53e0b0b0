//! What one file says about itself: its columns and, for Parquet, its statistics.
//!
//! In: a file. Out: [`Facts`], which hold until the file changes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use chrono::{TimeZone, Utc};
use datafusion::catalog::Session;
use datafusion::common::config::TableParquetOptions;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use futures::FutureExt;
use object_store::{ObjectMeta, ObjectStore};

use super::fault::{Fault, Origin, fault_of};
use super::formats::Format;
use super::listing::DataFile;
use super::nan::holds_floats;
use super::rows::{Input, RowFormat};
use super::{avro, csv, ipc, json};
use crate::ErrorKind;

/// What is known about a file.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) meta: ObjectMeta,
    pub(super) schema: Arc<Schema>,
    /// Whether a CSV file has line breaks inside values, as far as it was looked at.
    pub(super) multiline: bool,
}

/// What the object store would say about a file.
pub(super) fn meta_of(file: &DataFile) -> Result<ObjectMeta, Fault> {
    Ok(ObjectMeta {
        location: file.location()?,
        last_modified: Utc.timestamp_nanos(file.stamp.changed),
        size: file.stamp.size,
        e_tag: None,
        version: None,
    })
}

/// Looks into a file that is not Parquet. Blocks.
pub(super) fn look_into(file: &DataFile, input: &Input, format: &RowFormat) -> Result<Facts, Fault> {
    let meta = meta_of(file)?;
    let name = meta.location.filename().unwrap_or_default();
    let mut multiline = false;
    let schema = input.guarded(|| {
        Ok(match format.format {
            // An empty text file has no rows and says nothing about columns.
            Format::Csv | Format::Json if file.stamp.size == 0 => Schema::empty(),
            Format::Csv => {
                let found = csv::infer(input, &csv::Dialect::of(&format.text, name))?;
                multiline = found.multiline;
                found.schema
            }
            Format::Json => json::infer(input, format.text.compression_of(name), format.text.sample)?,
            Format::Arrow => ipc::schema(input)?,
            Format::Avro => avro::schema(input)?,
            Format::Parquet => return Err(Fault::new(ErrorKind::Internal, "is Parquet and is not read in rows")),
        })
    })?;
    Ok(Facts {
        meta,
        schema: Arc::new(schema),
        multiline,
    })
}

/// Reads the footers of Parquet files.
pub(super) struct Footers<'a> {
    format: ParquetFormat,
    store: Arc<dyn ObjectStore>,
    session: &'a dyn Session,
}

impl<'a> Footers<'a> {
    pub(super) fn new(session: &'a dyn Session, origin: &Origin) -> datafusion::error::Result<Footers<'a>> {
        let store = session.runtime_env().object_store(origin.store_url()?)?;
        let format = ParquetFormat::default().with_options(parquet_options(session));
        Ok(Footers { format, store, session })
    }

    /// The columns of a file.
    pub(super) async fn facts(&self, file: &DataFile) -> Result<Facts, Fault> {
        if file.stamp.size == 0 {
            return Err(Fault::corrupt("is empty and is not Parquet"));
        }
        let meta = meta_of(file)?;
        let files = std::slice::from_ref(&meta);
        let schema = self.format.infer_schema(self.session, &self.store, files);
        let schema = sound(schema).await?.map_err(|error| parquet_fault(&error))?;
        Ok(Facts {
            meta,
            schema,
            multiline: false,
        })
    }

    /// Drops what is remembered of a file, whose time stamp did not change with it.
    pub(super) fn forget(&self, file: &DataFile) {
        if let Ok(location) = file.location() {
            self.session
                .runtime_env()
                .cache_manager
                .get_file_metadata_cache()
                .remove(&location);
        }
    }

    /// The statistics of a file for the columns of the table.
    pub(super) async fn statistics(&self, facts: &Facts, columns: &SchemaRef) -> Result<Statistics, Fault> {
        let found = self
            .format
            .infer_stats(self.session, &self.store, Arc::clone(columns), &facts.meta);
        let mut statistics = sound(found).await?.map_err(|error| parquet_fault(&error))?;
        for (column, field) in statistics.column_statistics.iter_mut().zip(columns.fields()) {
            let in_file = facts.schema.field_with_name(field.name()).ok();
            // Bounds of another type are not comparable. The decoder's order of strings and numbers is that of the
            // footer, but a footer says nothing about NaN, which queries count as the largest number.
            if in_file.is_some_and(|in_file| in_file.data_type() != field.data_type()) {
                column.min_value = Precision::Absent;
                column.max_value = Precision::Absent;
                column.distinct_count = Precision::Absent;
            } else if holds_floats(field.data_type()) {
                column.min_value = column.min_value.clone().to_inexact();
                column.max_value = column.max_value.clone().to_inexact();
            }
        }
        Ok(statistics)
    }
}

/// How Parquet files are read in this session.
pub(super) fn parquet_options(session: &dyn Session) -> TableParquetOptions {
    TableParquetOptions {
        global: session.config_options().execution.parquet.clone(),
        ..TableParquetOptions::default()
    }
}

/// Waits for a footer; the decoder panics on some damaged ones, such as one whose length is larger than the file.
async fn sound<T>(reading: impl Future<Output = T>) -> Result<T, Fault> {
    let read = AssertUnwindSafe(reading).catch_unwind().await;
    read.map_err(|_| Fault::corrupt("is damaged or is not Parquet"))
}

fn parquet_fault(error: &datafusion::error::DataFusionError) -> Fault {
    fault_of(error).unwrap_or_else(|| Fault::corrupt("is damaged or is not Parquet"))
}

/// The statistics of a file with those of its partition columns behind.
pub(super) fn with_partitions(mut statistics: Statistics, values: &[ScalarValue]) -> Statistics {
    for value in values {
        let width = value.data_type().primitive_width();
        let byte_size = match width {
            Some(width) => statistics.num_rows.multiply(&Precision::Exact(width)),
            None => Precision::Absent,
        };
        statistics.column_statistics.push(if value.is_null() {
            ColumnStatistics {
                null_count: statistics.num_rows,
                byte_size,
                ..ColumnStatistics::new_unknown()
            }
        } else {
            ColumnStatistics {
                null_count: Precision::Exact(0),
                max_value: Precision::Exact(value.clone()),
                min_value: Precision::Exact(value.clone()),
                distinct_count: Precision::Exact(1),
                byte_size,
                ..ColumnStatistics::new_unknown()
            }
        });
    }
    statistics
}

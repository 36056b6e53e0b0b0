//! ARROW and PARQUET: result sets for programs, types and all.

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, SchemaRef},
    ipc::writer::StreamWriter,
};
use datafusion::parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

use super::{Output, OutputError, Sink};

/// How much of a row group is held before it is written.
const ROW_GROUP_BYTES: usize = 128 << 20;

/// An Arrow IPC stream being written.
pub(super) struct Arrow<'a>(StreamWriter<&'a mut Sink>);

impl<'a> Arrow<'a> {
    pub(super) fn begin(schema: &SchemaRef, sink: &'a mut Sink) -> Result<Self, OutputError> {
        Ok(Self(StreamWriter::try_new(sink, schema)?))
    }
}

impl Output for Arrow<'_> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), OutputError> {
        self.0.write(batch)?;
        Ok(self.0.flush()?)
    }

    fn finish(mut self: Box<Self>) -> Result<(), OutputError> {
        Ok(self.0.finish()?)
    }
}

/// A Parquet file being written.
pub(super) struct Parquet<'a>(ArrowWriter<&'a mut Sink>);

impl<'a> Parquet<'a> {
    pub(super) fn begin(schema: &SchemaRef, sink: &'a mut Sink) -> Result<Self, OutputError> {
        // The writer would give up the whole program on a union.
        if let Some(field) = schema
            .flattened_fields()
            .into_iter()
            .find(|field| matches!(field.data_type(), DataType::Union(_, _)))
        {
            return Err(OutputError::Value(format!(
                "`{}` is of a union type, which PARQUET does not have; use ARROW or JSON",
                field.name()
            )));
        }
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .build();
        Ok(Self(ArrowWriter::try_new(
            sink,
            SchemaRef::clone(schema),
            Some(properties),
        )?))
    }
}

impl Output for Parquet<'_> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), OutputError> {
        Ok(self.0.write(batch)?)
    }

    fn finish(self: Box<Self>) -> Result<(), OutputError> {
        self.0.close()?;
        Ok(())
    }
}

//! Result sets as text or files, in every format that `minerva sql` knows.
//!
//! In: a schema and its batches, one after the other. Out: bytes in a sink. Rows are written as they arrive; ALIGNED alone looks at the first
//! rows before it writes, since it needs widths. Deliberately absent: any knowledge of servers or of where the bytes go.

mod aligned;
mod columnar;
mod delimited;
mod json;
mod markdown;
mod value;
mod vertical;
mod width;

use std::{
    error::Error,
    fmt,
    io::{self, ErrorKind, Write},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef, error::ArrowError};
use clap::ValueEnum;
use datafusion::parquet::errors::ParquetError;

pub(crate) use self::width::width;

/// How a result set is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum Format {
    /// A table for people; NULL is the word NULL
    Aligned,
    /// One line a value, for wide rows
    Vertical,
    /// With a header; NULL is empty, an empty string is ""
    Csv,
    /// With a header; NULL is \N, and tabs, line breaks and backslashes are escaped
    Tsv,
    /// One object a line
    Json,
    /// A table for documents
    Markdown,
    /// An Arrow IPC stream
    Arrow,
    /// A Parquet file
    Parquet,
}

impl Format {
    /// Whether the format is a file of one result set rather than text that can follow other text.
    pub(crate) fn is_binary(self) -> bool {
        match self {
            Self::Arrow | Self::Parquet => true,
            Self::Aligned | Self::Vertical | Self::Csv | Self::Tsv | Self::Json | Self::Markdown => false,
        }
    }

    /// Whether people read it, so that an empty line sets two result sets apart.
    pub(crate) fn is_for_people(self) -> bool {
        match self {
            Self::Aligned | Self::Vertical | Self::Markdown => true,
            Self::Csv | Self::Tsv | Self::Json | Self::Arrow | Self::Parquet => false,
        }
    }

    /// The name as it is typed.
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Begins a table that says the types of its columns.
    pub(crate) fn begin_with_types<'a>(schema: &SchemaRef, sink: &'a mut Sink) -> Box<dyn Output + 'a> {
        Box::new(aligned::Aligned::begin(schema, sink).with_types(schema))
    }

    /// Begins a result set.
    pub(crate) fn begin<'a>(self, schema: &SchemaRef, sink: &'a mut Sink) -> Result<Box<dyn Output + 'a>, OutputError> {
        Ok(match self {
            Self::Aligned => Box::new(aligned::Aligned::begin(schema, sink)),
            Self::Vertical => Box::new(vertical::Vertical::begin(schema, sink)),
            Self::Csv => Box::new(delimited::Delimited::begin(delimited::CSV, schema, sink)?),
            Self::Tsv => Box::new(delimited::Delimited::begin(delimited::TSV, schema, sink)?),
            Self::Json => Box::new(json::Json::begin(schema, sink)),
            Self::Markdown => Box::new(markdown::Markdown::begin(schema, sink)?),
            Self::Arrow => Box::new(columnar::Arrow::begin(schema, sink)?),
            Self::Parquet => Box::new(columnar::Parquet::begin(schema, sink)?),
        })
    }
}

/// Where the bytes go.
pub(crate) type Sink = dyn Write + Send;

/// A result set being written.
pub(crate) trait Output {
    /// Writes some rows.
    fn write(&mut self, batch: &RecordBatch) -> Result<(), OutputError>;
    /// Writes what belongs behind the last row.
    fn finish(self: Box<Self>) -> Result<(), OutputError>;
}

/// Why a result set could not be written.
#[derive(Debug)]
pub(crate) enum OutputError {
    /// The sink failed.
    Sink(io::Error),
    /// The format cannot hold the value.
    Value(String),
}

impl OutputError {
    /// Whether the reader has gone, as `head` does when it has enough.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Sink(error) if error.kind() == ErrorKind::BrokenPipe)
    }
}

impl fmt::Display for OutputError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sink(error) => error.fmt(formatter),
            Self::Value(message) => message.fmt(formatter),
        }
    }
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        Self::Sink(error)
    }
}

impl From<ArrowError> for OutputError {
    fn from(error: ArrowError) -> Self {
        match error {
            ArrowError::IoError(_, error) => Self::Sink(error),
            other => Self::Value(other.to_string()),
        }
    }
}

impl From<ParquetError> for OutputError {
    fn from(error: ParquetError) -> Self {
        match error {
            ParquetError::External(cause) => match cause.downcast::<io::Error>() {
                Ok(error) => Self::Sink(*error),
                Err(other) => Self::Value(innermost(other.as_ref())),
            },
            other => Self::Value(other.to_string()),
        }
    }
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

#[cfg(test)]
mod tests;

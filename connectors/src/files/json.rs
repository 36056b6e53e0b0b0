//! JSON files with one object a line.
//!
//! In: a file and the columns that are wanted. Out: batches. A column that a line lacks is NULL. Numbers and booleans in
//! a text column become text. Values that do not fit are reported by column and row, never quoted.

use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::infer_json_schema;

use super::fault::Fault;
use super::formats::Compression;
use super::lines::{BUFFER, LineRange, without_mark};
use super::rows::{Batches, Input, Request};
use crate::ErrorKind;

fn text(input: &Input, compression: Compression, part: Option<&Range<u64>>) -> Result<Box<dyn BufRead + Send>, Fault> {
    let file = input.open()?;
    let text: Box<dyn Read + Send> = match part {
        Some(part) if part.start > 0 => Box::new(LineRange::open(file, part).map_err(|error| Fault::io(&error))?),
        Some(part) => {
            let lines = LineRange::open(file, part).map_err(|error| Fault::io(&error))?;
            Box::new(without_mark(lines).map_err(|error| Fault::io(&error))?)
        }
        None => {
            let text = compression.decompress(BufReader::with_capacity(BUFFER, file))?;
            Box::new(without_mark(text).map_err(|error| unreadable(&error, compression))?)
        }
    };
    Ok(Box::new(BufReader::with_capacity(BUFFER, text)))
}

/// Finds names and types from the first rows.
pub(super) fn infer(input: &Input, compression: Compression, sample: Option<usize>) -> Result<Schema, Fault> {
    let text = text(input, compression, None)?;
    let (schema, _) = infer_json_schema(text, sample).map_err(|error| match &error {
        ArrowError::IoError(_, error) => unreadable(error, compression),
        _ => not_json(None),
    })?;
    Ok(schema)
}

/// Reads the wanted columns of a file, or of a part of it.
pub(super) fn open(input: &Input, request: &Request, compression: Compression) -> Result<Batches, Fault> {
    let part = request.range.as_ref();
    let from = part.map_or(0, |part| part.start);
    let reader = ReaderBuilder::new(Arc::clone(&request.wanted))
        .with_batch_size(request.batch_size)
        .with_coerce_primitive(true)
        .build(text(input, compression, part)?)
        .map_err(|_| {
            Fault::new(
                ErrorKind::Unsupported,
                "has columns of a type that cannot be read from JSON",
            )
        })?;
    let wanted = Arc::clone(&request.wanted);
    let mut rows = 0;
    Ok(Box::new(reader.map(move |batch| match batch {
        Ok(batch) => {
            rows += batch.num_rows();
            Ok(batch)
        }
        Err(error) => Err(fault(&error, &wanted, rows, from, compression)),
    })))
}

fn fault(error: &ArrowError, wanted: &Schema, rows: usize, from: u64, compression: Compression) -> Fault {
    let place = match from {
        0 => format!("after row {rows}"),
        from => format!("after row {rows} from byte {from} on"),
    };
    match error {
        ArrowError::IoError(_, error) => unreadable(error, compression),
        ArrowError::JsonError(text) | ArrowError::ParseError(text) => match column(text, wanted) {
            Some(column) => {
                let message = format!(
                    "has a value in column `{column}` ({place}) that is not of the column's type; the type was found from \
                     the first rows, see `sample`"
                );
                Fault::new(ErrorKind::BadValue, message)
            }
            None => not_json(Some(&place)),
        },
        _ => not_json(Some(&place)),
    }
}

fn not_json(place: Option<&str>) -> Fault {
    let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
    Fault::corrupt(format!("is not JSON with one object a line{place}"))
}

fn unreadable(error: &std::io::Error, compression: Compression) -> Fault {
    match compression {
        Compression::None => Fault::io(error),
        _ => Fault::corrupt("is damaged: it cannot be decompressed to its end"),
    }
}

/// The column that the decoder's text begins with. Only names of the schema are taken from it.
fn column(text: &str, schema: &Schema) -> Option<String> {
    let mut rest = text;
    let mut fields = schema.fields().clone();
    let mut path = Vec::new();
    while let Some(found) = fields.iter().find_map(|field| {
        let tail = rest
            .strip_prefix("whilst decoding field '")?
            .strip_prefix(field.name().as_str())?;
        Some((Arc::clone(field), tail.strip_prefix("': ")?))
    }) {
        path.push(found.0.name().clone());
        rest = found.1;
        fields = match inner(found.0.data_type()) {
            DataType::Struct(fields) => fields.clone(),
            _ => break,
        };
    }
    if path.is_empty() { None } else { Some(path.join(".")) }
}

fn inner(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::List(field) | DataType::LargeList(field) => inner(field.data_type()),
        other => other,
    }
}

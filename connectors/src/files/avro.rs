//! Avro files.
//!
//! In: a file and the columns that are wanted. Out: batches with those of them that the file has. The decoder takes the
//! end of a file for the end of the data wherever it is; so the blocks of a file are counted first, and an answer that is
//! too short is an error.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use datafusion::arrow_avro::reader::{ReaderBuilder, read_header_info};

use super::fault::Fault;
use super::ipc::columns_of;
use super::lines::BUFFER;
use super::rows::{Batches, Input, ReadSeek, Request};
use crate::ErrorKind;

/// The schema that a file begins with.
pub(super) fn schema(input: &Input) -> Result<Schema, Fault> {
    let file = BufReader::with_capacity(BUFFER, input.open()?);
    let reader = ReaderBuilder::new().build(file).map_err(|error| fault(&error))?;
    Ok(reader.schema().as_ref().clone())
}

/// Reads a file.
pub(super) fn open(input: &Input, request: &Request) -> Result<Batches, Fault> {
    let mut missing = count_rows(input)?;
    let mut columns = columns_of(&schema(input)?, &request.wanted);
    if columns.is_empty() {
        // Without a column the decoder would not count rows.
        columns.push(0);
    }
    let mut reader = ReaderBuilder::new()
        .with_batch_size(request.batch_size)
        .with_projection(columns)
        .build(BufReader::with_capacity(BUFFER, input.open()?))
        .map_err(|error| fault(&error))?;
    Ok(Box::new(std::iter::from_fn(move || match reader.next() {
        Some(Ok(batch)) => {
            missing = missing.saturating_sub(batch.num_rows() as u64);
            Some(Ok(batch))
        }
        Some(Err(error)) => Some(Err(fault(&error))),
        None if missing > 0 => {
            missing = 0;
            Some(Err(damaged()))
        }
        None => None,
    })))
}

/// How many rows the blocks of a file claim to hold; an error unless they follow each other up to its very end.
fn count_rows(input: &Input) -> Result<u64, Fault> {
    let header = read_header_info(BufReader::new(input.open()?)).map_err(|_| damaged())?;
    let mut file: BufReader<Box<dyn ReadSeek>> = BufReader::new(input.open()?);
    file.seek(SeekFrom::Start(header.header_len()))
        .map_err(|error| Fault::io(&error))?;
    let mut rows = 0_u64;
    while !file.fill_buf().map_err(|error| Fault::io(&error))?.is_empty() {
        let count = u64::try_from(number(&mut file)?).map_err(|_| damaged())?;
        let size = number(&mut file)?;
        if size < 0 {
            return Err(damaged());
        }
        file.seek_relative(size).map_err(|_| damaged())?;
        let mut mark = [0; 16];
        file.read_exact(&mut mark).map_err(|_| damaged())?;
        if mark != header.sync() {
            return Err(damaged());
        }
        rows = rows.saturating_add(count);
    }
    Ok(rows)
}

/// A number as Avro writes it: seven bits a byte, the lowest first, the sign in the lowest bit.
fn number(file: &mut impl Read) -> Result<i64, Fault> {
    let mut bits = 0_u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        file.read_exact(&mut byte).map_err(|_| damaged())?;
        bits |= u64::from(byte[0] & 0x7F) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed());
        }
    }
    Err(damaged())
}

fn damaged() -> Fault {
    Fault::corrupt("is damaged or is not an Avro file")
}

fn fault(error: &ArrowError) -> Fault {
    match error {
        ArrowError::IoError(_, error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Fault::io(error),
        ArrowError::NotYetImplemented(_) => {
            Fault::new(ErrorKind::Unsupported, "has a type that cannot be read from Avro")
        }
        _ => damaged(),
    }
}

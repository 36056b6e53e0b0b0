//! Avro files.
//!
//! In: a file and the columns that are wanted. Out: batches with those of them that the file has. The decoder takes the
//! end of a file for the end of the data wherever it is; so the blocks are watched on their way to it, and an answer that
//! is too short is an error.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use datafusion::arrow_avro::reader::{ReaderBuilder, read_header_info};

use super::fault::Fault;
use super::ipc::columns_of;
use super::lines::BUFFER;
use super::rows::{Batches, Input, Request};
use crate::ErrorKind;

/// The schema that a file begins with.
pub(super) fn schema(input: &Input) -> Result<Schema, Fault> {
    let file = BufReader::with_capacity(BUFFER, input.open()?);
    let reader = ReaderBuilder::new().build(file).map_err(|error| fault(&error))?;
    Ok(reader.schema().as_ref().clone())
}

/// Reads a file.
pub(super) fn open(input: &Input, request: &Request) -> Result<Batches, Fault> {
    let header = read_header_info(BufReader::new(input.open()?)).map_err(|_| damaged())?;
    let mut columns = columns_of(&schema(input)?, &request.wanted);
    if columns.is_empty() {
        // Without a column the decoder would not count rows.
        columns.push(0);
    }
    let blocks = Blocks::new(input.open()?, header.header_len(), header.sync());
    let claimed = Arc::clone(&blocks.rows);
    let mut reader = ReaderBuilder::new()
        .with_batch_size(request.batch_size)
        .with_projection(columns)
        .build(BufReader::with_capacity(BUFFER, blocks))
        .map_err(|error| fault(&error))?;
    let mut read = 0;
    Ok(Box::new(std::iter::from_fn(move || match reader.next() {
        Some(Ok(batch)) => {
            read += batch.num_rows() as u64;
            Some(Ok(batch))
        }
        Some(Err(error)) => Some(Err(fault(&error))),
        None if read < claimed.load(Ordering::Relaxed) => {
            read = u64::MAX;
            Some(Err(damaged()))
        }
        None => None,
    })))
}

/// Passes a file on and watches its blocks: they must follow each other up to the file's very end.
struct Blocks<R> {
    inner: R,
    at: At,
    sync: [u8; 16],
    /// How many rows the blocks so far claim to hold.
    rows: Arc<AtomicU64>,
}

/// What comes next in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// So many bytes of the header.
    Header(u64),
    /// The number of a block's rows, of which some bits are known.
    Rows(Number),
    /// The number of its bytes.
    Size(Number),
    /// So many of its bytes.
    Data(u64),
    /// The mark behind it, from this byte on.
    Mark(usize),
}

/// A number as Avro writes it: seven bits a byte, the lowest first, the sign in the lowest bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Number {
    bits: u64,
    shift: u32,
}

impl Number {
    /// With one more byte: the number, if that was its last.
    fn next(&mut self, byte: u8) -> io::Result<Option<u64>> {
        if self.shift > 63 {
            return Err(unsound());
        }
        self.bits |= u64::from(byte & 0x7F) << self.shift;
        self.shift += 7;
        if byte & 0x80 != 0 {
            return Ok(None);
        }
        let number = (self.bits >> 1).cast_signed() ^ -(self.bits & 1).cast_signed();
        u64::try_from(number).map(Some).map_err(|_| unsound())
    }
}

impl<R> Blocks<R> {
    fn new(inner: R, header: u64, sync: [u8; 16]) -> Blocks<R> {
        Blocks {
            inner,
            at: At::Header(header),
            sync,
            rows: Arc::default(),
        }
    }

    fn watch(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some((first, rest)) = bytes.split_first() {
            match &mut self.at {
                At::Header(0) => self.at = At::Rows(Number::default()),
                At::Data(0) => self.at = At::Mark(0),
                At::Header(left) | At::Data(left) => {
                    let skipped = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= skipped as u64;
                    bytes = bytes.get(skipped..).unwrap_or_default();
                }
                At::Rows(number) => {
                    if let Some(rows) = number.next(*first)? {
                        self.rows.fetch_add(rows, Ordering::Relaxed);
                        self.at = At::Size(Number::default());
                    }
                    bytes = rest;
                }
                At::Size(number) => {
                    if let Some(size) = number.next(*first)? {
                        self.at = At::Data(size);
                    }
                    bytes = rest;
                }
                At::Mark(at) => {
                    if self.sync.get(*at) != Some(first) {
                        return Err(unsound());
                    }
                    *at += 1;
                    if *at == self.sync.len() {
                        self.at = At::Rows(Number::default());
                    }
                    bytes = rest;
                }
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Blocks<R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(target)?;
        let is_whole = matches!(self.at, At::Header(0)) || self.at == At::Rows(Number::default());
        if count == 0 && !target.is_empty() && !is_whole {
            return Err(unsound());
        }
        self.watch(target.get(..count).unwrap_or_default())?;
        Ok(count)
    }
}

fn unsound() -> io::Error {
    io::Error::other(damaged())
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

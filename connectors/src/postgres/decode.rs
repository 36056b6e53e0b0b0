//! PostgreSQL's binary COPY format to record batches.
//!
//! In: the bytes of `COPY ... TO STDOUT (FORMAT BINARY)`, cut anywhere. Out: batches, bounded by rows and by bytes. A row is
//! taken when all of it is there. What ends before its end mark is not taken for the end.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::column::ColumnBuilder;
use super::kind::{Kind, Scalar};
use super::value::Misfit;

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// A batch ends when its values reach this size, so that long ones do not pile up.
const BATCH_BYTES: usize = 8 << 20;

/// A row may have so many bytes. PostgreSQL's may have 1 GiB, which is nothing that one reader of many should take.
pub(super) const LONGEST_ROW: usize = 256 << 20;

/// Reads rows out of bytes.
pub(super) struct Decoder {
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    batch_rows: usize,
    /// Bytes that do not make a whole row yet.
    pending: Vec<u8>,
    place: Place,
    rows_in_batch: usize,
    bytes_in_batch: usize,
    rows_before: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Rows,
    End,
}

/// Why bytes cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not the format.
    Malformed(&'static str),
    /// A row has more than [`LONGEST_ROW`].
    TooLong {
        /// The column that most of it is in.
        column: usize,
        /// Counted from one.
        row: u64,
    },
    /// A value does not fit its column.
    Value {
        column: usize,
        /// Counted from one.
        row: u64,
        misfit: Misfit,
    },
}

/// What stands at the front of some bytes.
enum Front {
    /// Less than a whole header or row.
    Part,
    /// A whole one of so many bytes.
    Whole(usize),
    /// The end mark.
    EndMark,
}

impl Decoder {
    /// For rows of these columns.
    pub(super) fn new(schema: SchemaRef, kinds: &[Kind], batch_rows: usize) -> Decoder {
        let batch_rows = batch_rows.max(1);
        Decoder {
            schema,
            columns: kinds.iter().map(|kind| ColumnBuilder::new(*kind, batch_rows)).collect(),
            batch_rows,
            pending: Vec::new(),
            place: Place::Start,
            rows_in_batch: 0,
            bytes_in_batch: 0,
            rows_before: 0,
        }
    }

    /// Takes more bytes, and rows out of them until a batch is full. Then [`Decoder::batch`] must be called, and this with no
    /// bytes, until it is not full any more.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if self.pending.is_empty() {
            let taken = self.take(bytes)?;
            self.pending.extend_from_slice(bytes.get(taken..).unwrap_or_default());
        } else {
            let mut pending = std::mem::take(&mut self.pending);
            pending.extend_from_slice(bytes);
            let taken = self.take(&pending)?;
            pending.drain(..taken);
            self.pending = pending;
        }
        // More than a row is there while a full batch waits to be taken.
        match self.pending.len() > LONGEST_ROW && !self.is_full() {
            true => Err(self.too_long(self.pending.get(2..).unwrap_or_default())),
            false => Ok(()),
        }
    }

    /// Whether the batch must be taken before more is read.
    pub(super) fn is_full(&self) -> bool {
        self.rows_in_batch >= self.batch_rows || self.bytes_in_batch >= BATCH_BYTES
    }

    /// Whether nothing may follow.
    pub(super) fn is_at_end(&self) -> bool {
        self.place == Place::End
    }

    /// How many rows were read.
    pub(super) fn rows(&self) -> u64 {
        self.rows_before + self.rows_in_batch as u64
    }

    /// The rows since the last batch, when there are any.
    pub(super) fn batch(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        if self.rows_in_batch == 0 {
            return Ok(None);
        }
        let rows = std::mem::take(&mut self.rows_in_batch);
        self.bytes_in_batch = 0;
        self.rows_before += rows as u64;
        let arrays = self
            .columns
            .iter_mut()
            .map(ColumnBuilder::finish)
            .collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(SchemaRef::clone(&self.schema), arrays, &options).map(Some)
    }

    /// Reads what is whole and returns how many bytes that was.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_full() {
            let front = match self.place {
                Place::Start => header(rest)?,
                Place::Rows => self.row(rest)?,
                Place::End => return Err(Fault::Malformed("there is something behind its end mark")),
            };
            match front {
                Front::Part => break,
                Front::Whole(length) => {
                    rest = rest.get(length..).unwrap_or_default();
                    self.place = Place::Rows;
                }
                Front::EndMark => {
                    rest = rest.get(2..).unwrap_or_default();
                    self.place = Place::End;
                }
            }
        }
        Ok(bytes.len() - rest.len())
    }

    fn row(&mut self, bytes: &[u8]) -> Result<Front, Fault> {
        let Some((count, fields)) = bytes.split_first_chunk::<2>() else {
            return Ok(Front::Part);
        };
        let count = i16::from_be_bytes(*count);
        if count == -1 {
            return Ok(Front::EndMark);
        }
        if usize::try_from(count) != Ok(self.columns.len()) {
            return Err(Fault::Malformed(
                "a row has another number of columns than were asked for",
            ));
        }
        let mut rest = fields;
        for _ in 0..count {
            match field(rest)? {
                Some((_, after)) => rest = after,
                None => return Ok(Front::Part),
            }
        }
        let length = bytes.len() - rest.len();
        if length > LONGEST_ROW {
            return Err(self.too_long(fields));
        }
        self.append(fields)?;
        self.rows_in_batch += 1;
        self.bytes_in_batch += length;
        Ok(Front::Whole(length))
    }

    /// What is wrong with a row of these fields, the last of which may be there in part.
    fn too_long(&self, fields: &[u8]) -> Fault {
        let (mut rest, mut widest) = (fields, (0, 0));
        for position in 0..self.columns.len() {
            let Some((length, after)) = rest.split_first_chunk::<4>() else {
                break;
            };
            let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or_default();
            if length > widest.1 {
                widest = (position, length);
            }
            rest = after.get(length..).unwrap_or_default();
        }
        Fault::TooLong {
            column: widest.0,
            row: self.rows() + 1,
        }
    }

    /// Adds the fields of a row that is whole.
    fn append(&mut self, fields: &[u8]) -> Result<(), Fault> {
        let mut rest = fields;
        for (position, column) in self.columns.iter_mut().enumerate() {
            let Some((value, after)) = field(rest)? else {
                return Err(Fault::Malformed("a row ends before its end"));
            };
            rest = after;
            let appended = match value {
                Some(value) => column.append(value),
                None if self.schema.field(position).is_nullable() => {
                    column.append_null();
                    Ok(())
                }
                None => Err(Misfit::Null),
            };
            if let Err(misfit) = appended {
                return Err(Fault::Value {
                    column: position,
                    row: self.rows_before + self.rows_in_batch as u64 + 1,
                    misfit,
                });
            }
        }
        Ok(())
    }
}

/// The signature, flags, and an extension that is skipped.
fn header(bytes: &[u8]) -> Result<Front, Fault> {
    let seen = bytes.len().min(SIGNATURE.len());
    if bytes.get(..seen) != SIGNATURE.get(..seen) {
        return Err(Fault::Malformed("it does not begin with the mark of the format"));
    }
    let number = |from: usize| -> Option<u32> {
        let (bytes, _) = bytes.get(from..)?.split_first_chunk::<4>()?;
        Some(u32::from_be_bytes(*bytes))
    };
    let (Some(flags), Some(extension)) = (number(11), number(15)) else {
        return Ok(Front::Part);
    };
    // The upper half is for what a reader must know.
    if flags >> 16 != 0 {
        return Err(Fault::Malformed("it has a form that is not known here"));
    }
    let Ok(extension) = usize::try_from(extension) else {
        return Err(Fault::Malformed("its header is too long"));
    };
    if extension > BATCH_BYTES {
        return Err(Fault::Malformed("its header is too long"));
    }
    let length = 19 + extension;
    Ok(if bytes.len() < length {
        Front::Part
    } else {
        Front::Whole(length)
    })
}

type Read<'a> = (Option<&'a [u8]>, &'a [u8]);

/// The value at the front of some bytes and what is behind it; `None` when it is not whole.
#[inline]
fn field(bytes: &[u8]) -> Result<Option<Read<'_>>, Fault> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        return Ok(None);
    };
    match i32::from_be_bytes(*length) {
        -1 => Ok(Some((None, rest))),
        length => match usize::try_from(length) {
            Ok(length) => Ok(rest.split_at_checked(length).map(|(value, rest)| (Some(value), rest))),
            Err(_) => Err(Fault::Malformed("a value has a negative length")),
        },
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("place", &self.place)
            .field("rows", &self.rows())
            .finish_non_exhaustive()
    }
}

/// The reader of PostgreSQL's binary COPY format by itself, without a server: for those who try it with any bytes.
#[derive(Debug)]
pub struct CopyDecoder {
    decoder: Decoder,
    batches: Vec<RecordBatch>,
}

impl CopyDecoder {
    /// For rows with one column of each type that has a form of its own.
    pub fn of_every_type() -> CopyDecoder {
        let numeric = Scalar::Numeric {
            precision: 20,
            scale: 5,
        };
        let scalars = [
            Scalar::Boolean,
            Scalar::Int2,
            Scalar::Int4,
            Scalar::Int8,
            Scalar::Oid,
            Scalar::Float4,
            Scalar::Float8,
            numeric,
            Scalar::Text,
            Scalar::Padded,
            Scalar::Bytea,
            Scalar::Date,
            Scalar::Time,
            Scalar::Timestamp,
            Scalar::TimestampTz,
            Scalar::Interval,
            Scalar::Uuid,
        ];
        let kinds: Vec<Kind> = scalars
            .iter()
            .flat_map(|scalar| [Kind::One(*scalar), Kind::List(*scalar)])
            .collect();
        let fields: Vec<Field> = kinds
            .iter()
            .enumerate()
            .map(|(position, kind)| Field::new(format!("c{position}"), kind.arrow(), true))
            .collect();
        CopyDecoder {
            decoder: Decoder::new(Arc::new(Schema::new(fields)), &kinds, 3),
            batches: Vec::new(),
        }
    }

    /// Takes more bytes; an error says what is wrong with them.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        let text = |fault: Fault| format!("{fault:?}");
        self.decoder.push(bytes).map_err(text)?;
        while self.decoder.is_full() {
            self.batches
                .extend(self.decoder.batch().map_err(|failure| failure.to_string())?);
            self.decoder.push(&[]).map_err(text)?;
        }
        Ok(())
    }

    /// The rows, when the end mark was there.
    pub fn finish(mut self) -> Result<Vec<RecordBatch>, String> {
        self.batches
            .extend(self.decoder.batch().map_err(|failure| failure.to_string())?);
        if self.decoder.is_at_end() {
            Ok(self.batches)
        } else {
            Err("the end mark is missing".to_owned())
        }
    }
}

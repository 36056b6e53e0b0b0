//! PostgreSQL's binary COPY format to record batches.
//!
//! In: the bytes of `COPY ... TO STDOUT (FORMAT BINARY)`, cut anywhere. Out: batches, bounded by rows and by bytes. A value is
//! taken when all of it is there, and a row counts when all of its values are. What ends before its end mark is not taken for
//! the end.

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
    /// Bytes that do not make a whole value yet.
    pending: Vec<u8>,
    place: Place,
    row: Begun,
    rows_in_batch: usize,
    bytes_in_batch: usize,
    rows_before: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    /// Between two rows.
    Rows,
    /// Inside a row, before the field of this column.
    Field(usize),
    End,
}

/// What there is of a row.
#[derive(Debug, Clone, Copy, Default)]
struct Begun {
    bytes: usize,
    /// The column that most of it is in, and how many bytes that is.
    widest: (usize, usize),
}

/// Why bytes cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not the format.
    Malformed(&'static str),
    /// A row has more than [`LONGEST_ROW`].
    TooLong {
        /// The column that most of it is in, as far as it was read.
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
            row: Begun::default(),
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
        Ok(())
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
            rest = match self.place {
                Place::Start => match header(rest)? {
                    Some(after) => {
                        self.place = Place::Rows;
                        after
                    }
                    None => break,
                },
                Place::Rows => match self.begin(rest)? {
                    Some(after) => after,
                    None => break,
                },
                Place::Field(from) => self.fields(from, rest)?,
                Place::End => return Err(Fault::Malformed("there is something behind its end mark")),
            };
            if matches!(self.place, Place::Field(_)) {
                break;
            }
        }
        Ok(bytes.len() - rest.len())
    }

    /// Begins a row, or takes the end mark, and returns what is behind what could be taken; `None` when it is not known which of them it is.
    fn begin<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, Fault> {
        let Some((count, fields)) = bytes.split_first_chunk::<2>() else {
            return Ok(None);
        };
        match i16::from_be_bytes(*count) {
            -1 => {
                self.place = Place::End;
                Ok(Some(fields))
            }
            count if usize::try_from(count) == Ok(self.columns.len()) => {
                self.row = Begun {
                    bytes: 2,
                    widest: (0, 0),
                };
                self.fields(0, fields).map(Some)
            }
            _ => Err(Fault::Malformed(
                "a row has another number of columns than were asked for",
            )),
        }
    }

    /// Adds the fields of a row, from this column on, as far as they are there, and returns what is behind them.
    fn fields<'a>(&mut self, from: usize, bytes: &'a [u8]) -> Result<&'a [u8], Fault> {
        let mut rest = bytes;
        let mut row = self.row;
        let at_row = self.rows() + 1;
        for (position, column) in self.columns.iter_mut().enumerate().skip(from) {
            let Some((length, after)) = rest.split_first_chunk::<4>() else {
                (self.place, self.row) = (Place::Field(position), row);
                return Ok(rest);
            };
            let length = i32::from_be_bytes(*length);
            let size = usize::try_from(length).unwrap_or_default();
            if size > row.widest.1 {
                row.widest = (position, size);
            }
            if row.bytes + size + 4 > LONGEST_ROW {
                return Err(Fault::TooLong {
                    column: row.widest.0,
                    row: at_row,
                });
            }
            let appended = match length {
                0.. => {
                    let Some((value, after)) = after.split_at_checked(size) else {
                        (self.place, self.row) = (Place::Field(position), row);
                        return Ok(rest);
                    };
                    rest = after;
                    column.append(value)
                }
                -1 => {
                    rest = after;
                    match self.schema.field(position).is_nullable() {
                        true => {
                            column.append_null();
                            Ok(())
                        }
                        false => Err(Misfit::Null),
                    }
                }
                _ => return Err(Fault::Malformed("a value has a negative length")),
            };
            if let Err(misfit) = appended {
                return Err(Fault::Value {
                    column: position,
                    row: at_row,
                    misfit,
                });
            }
            row.bytes += size + 4;
        }
        self.place = Place::Rows;
        self.rows_in_batch += 1;
        self.bytes_in_batch += row.bytes;
        Ok(rest)
    }
}

/// What is behind the signature, flags, and an extension that is skipped; `None` when not all of it is there.
fn header(bytes: &[u8]) -> Result<Option<&[u8]>, Fault> {
    let seen = bytes.len().min(SIGNATURE.len());
    if bytes.get(..seen) != SIGNATURE.get(..seen) {
        return Err(Fault::Malformed("it does not begin with the mark of the format"));
    }
    let number = |from: usize| -> Option<u32> {
        let (bytes, _) = bytes.get(from..)?.split_first_chunk::<4>()?;
        Some(u32::from_be_bytes(*bytes))
    };
    let (Some(flags), Some(extension)) = (number(11), number(15)) else {
        return Ok(None);
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
    Ok(bytes.get(19 + extension..))
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
        if !self.decoder.is_at_end() {
            return Err("the end mark is missing".to_owned());
        }
        self.batches
            .extend(self.decoder.batch().map_err(|failure| failure.to_string())?);
        Ok(self.batches)
    }
}

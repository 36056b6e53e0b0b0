//! Rows in the binary form of the protocol to record batches.
//!
//! In: the bytes of rows. Out: batches, bounded by rows and by bytes.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Decimal256Builder, Float32Builder,
    Float64Builder, Int8Builder, Int16Builder, Int32Builder, Int64Builder, IntervalMonthDayNanoBuilder, RecordBatch,
    RecordBatchOptions, StringViewBuilder, TimestampMicrosecondBuilder, UInt8Builder, UInt16Builder, UInt32Builder,
    UInt64Builder,
};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, SchemaRef};
use arrow::error::ArrowError;

use super::kind::Kind;
use super::value::{self, Misfit};
use super::whole::WholeColumn;

/// A batch ends when its values reach this size, so that long ones do not pile up.
const BATCH_BYTES: usize = 8 << 20;

/// Makes batches of rows.
pub(super) struct Decoder {
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    batch_rows: usize,
    rows_in_batch: usize,
    bytes_in_batch: usize,
    rows_before: u64,
}

/// Why a row cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) column: usize,
    /// Counted from one.
    pub(super) row: u64,
    pub(super) misfit: Misfit,
}

impl Decoder {
    /// For rows of these columns.
    pub(super) fn new(schema: SchemaRef, kinds: &[Kind], batch_rows: usize, zero_dates_are_null: bool) -> Decoder {
        let batch_rows = batch_rows.max(1);
        let columns = kinds.iter();
        Decoder {
            schema,
            columns: columns
                .map(|kind| ColumnBuilder::new(kind, batch_rows, zero_dates_are_null))
                .collect(),
            batch_rows,
            rows_in_batch: 0,
            bytes_in_batch: 0,
            rows_before: 0,
        }
    }

    /// Takes a row: a bit for each NULL, then the other values.
    pub(super) fn push(&mut self, row: &[u8]) -> Result<(), Fault> {
        let fault = |column, misfit| Fault {
            column,
            row: self.rows_before + self.rows_in_batch as u64 + 1,
            misfit,
        };
        // The first two bits are not used.
        let bits = (self.columns.len() + 2).div_ceil(8);
        let (nulls, mut rest) = row.split_at_checked(bits).ok_or(fault(0, Misfit::Malformed))?;
        for (position, column) in self.columns.iter_mut().enumerate() {
            let bit = position + 2;
            let byte = nulls.get(bit / 8).copied().unwrap_or_default();
            if byte >> (bit % 8) & 1 == 0 {
                rest = column.append(rest).map_err(|misfit| fault(position, misfit))?;
            } else if self.schema.field(position).is_nullable() {
                column.append_null();
            } else {
                return Err(fault(position, Misfit::Null));
            }
        }
        if !rest.is_empty() {
            return Err(fault(self.columns.len().saturating_sub(1), Misfit::Malformed));
        }
        self.rows_in_batch += 1;
        self.bytes_in_batch += row.len();
        Ok(())
    }

    /// Whether the batch should be taken before more is read.
    pub(super) fn is_full(&self) -> bool {
        self.rows_in_batch >= self.batch_rows || self.bytes_in_batch >= BATCH_BYTES
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
        let arrays = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(SchemaRef::clone(&self.schema), arrays, &options).map(Some)
    }
}

/// The array of one column, while it grows.
enum ColumnBuilder {
    Int8(Int8Builder),
    UInt8(UInt8Builder),
    Int16(Int16Builder),
    UInt16(UInt16Builder),
    Int32(Int32Builder),
    UInt32(UInt32Builder),
    Int64(Int64Builder),
    UInt64(UInt64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal {
        builder: Decimal128Builder,
        precision: u8,
        scale: u8,
    },
    LargeDecimal {
        builder: Decimal256Builder,
        precision: u8,
        scale: u8,
    },
    Boolean(BooleanBuilder),
    Bits(UInt64Builder),
    Date {
        builder: Date32Builder,
        zero_is_null: bool,
    },
    Timestamp {
        builder: TimestampMicrosecondBuilder,
        zero_is_null: bool,
    },
    Time(IntervalMonthDayNanoBuilder),
    Text(StringViewBuilder),
    Binary(BinaryBuilder),
    Geometry(BinaryBuilder),
    Whole(WholeColumn),
}

impl ColumnBuilder {
    /// A column with room for so many values.
    fn new(kind: &Kind, rows: usize, zero_is_null: bool) -> ColumnBuilder {
        match kind {
            Kind::Int8 => ColumnBuilder::Int8(Int8Builder::with_capacity(rows)),
            Kind::UInt8 => ColumnBuilder::UInt8(UInt8Builder::with_capacity(rows)),
            Kind::Int16 | Kind::Year => ColumnBuilder::Int16(Int16Builder::with_capacity(rows)),
            Kind::UInt16 => ColumnBuilder::UInt16(UInt16Builder::with_capacity(rows)),
            Kind::Int32 => ColumnBuilder::Int32(Int32Builder::with_capacity(rows)),
            Kind::UInt32 => ColumnBuilder::UInt32(UInt32Builder::with_capacity(rows)),
            Kind::Int64 => ColumnBuilder::Int64(Int64Builder::with_capacity(rows)),
            Kind::UInt64 => ColumnBuilder::UInt64(UInt64Builder::with_capacity(rows)),
            Kind::Float32 => ColumnBuilder::Float32(Float32Builder::with_capacity(rows)),
            Kind::Float64 => ColumnBuilder::Float64(Float64Builder::with_capacity(rows)),
            Kind::Decimal { precision, scale } if *precision <= DECIMAL128_MAX_PRECISION => ColumnBuilder::Decimal {
                builder: Decimal128Builder::with_capacity(rows).with_data_type(kind.arrow()),
                precision: *precision,
                scale: *scale,
            },
            Kind::Decimal { precision, scale } => ColumnBuilder::LargeDecimal {
                builder: Decimal256Builder::with_capacity(rows).with_data_type(kind.arrow()),
                precision: *precision,
                scale: *scale,
            },
            Kind::Boolean => ColumnBuilder::Boolean(BooleanBuilder::with_capacity(rows)),
            Kind::Bits => ColumnBuilder::Bits(UInt64Builder::with_capacity(rows)),
            Kind::Date => ColumnBuilder::Date {
                builder: Date32Builder::with_capacity(rows),
                zero_is_null,
            },
            Kind::DateTime | Kind::Timestamp => ColumnBuilder::Timestamp {
                builder: TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(kind.arrow()),
                zero_is_null,
            },
            Kind::Time => ColumnBuilder::Time(IntervalMonthDayNanoBuilder::with_capacity(rows)),
            // No value of an unknown type is ever read.
            Kind::Text | Kind::Label | Kind::Printed | Kind::Unknown(_) => {
                ColumnBuilder::Text(StringViewBuilder::with_capacity(rows))
            }
            Kind::Binary => ColumnBuilder::Binary(BinaryBuilder::new()),
            Kind::Geometry => ColumnBuilder::Geometry(BinaryBuilder::new()),
            Kind::Whole(sent, data_type) => ColumnBuilder::Whole(WholeColumn::new(*sent, data_type)),
        }
    }

    /// Adds the value at the front of some bytes, and returns what is behind it.
    #[inline]
    fn append<'a>(&mut self, row: &'a [u8]) -> Result<&'a [u8], Misfit> {
        /// A number of a few bytes, the lowest first.
        macro_rules! number {
            ($builder:expr, $type:ty) => {{
                let (bytes, rest) = value::fixed(row)?;
                $builder.append_value(<$type>::from_le_bytes(bytes));
                rest
            }};
        }
        Ok(match self {
            ColumnBuilder::Int8(builder) => number!(builder, i8),
            ColumnBuilder::UInt8(builder) => number!(builder, u8),
            ColumnBuilder::Int16(builder) => number!(builder, i16),
            ColumnBuilder::UInt16(builder) => number!(builder, u16),
            ColumnBuilder::Int32(builder) => number!(builder, i32),
            ColumnBuilder::UInt32(builder) => number!(builder, u32),
            ColumnBuilder::Int64(builder) => number!(builder, i64),
            ColumnBuilder::UInt64(builder) => number!(builder, u64),
            ColumnBuilder::Float32(builder) => number!(builder, f32),
            ColumnBuilder::Float64(builder) => number!(builder, f64),
            ColumnBuilder::Decimal {
                builder,
                precision,
                scale,
            } => {
                let (value, rest) = value::decimal(row, *precision, *scale)?;
                builder.append_value(value);
                rest
            }
            ColumnBuilder::LargeDecimal {
                builder,
                precision,
                scale,
            } => {
                let (value, rest) = value::large_decimal(row, *precision, *scale)?;
                builder.append_value(value);
                rest
            }
            ColumnBuilder::Boolean(builder) => {
                let (value, rest) = value::bits(row)?;
                builder.append_value(value != 0);
                rest
            }
            ColumnBuilder::Bits(builder) => {
                let (value, rest) = value::bits(row)?;
                builder.append_value(value);
                rest
            }
            ColumnBuilder::Date { builder, zero_is_null } => {
                let (value, rest) = value::date(row)?;
                match value {
                    Err(Misfit::NoDate) if *zero_is_null => builder.append_null(),
                    value => builder.append_value(value?),
                }
                rest
            }
            ColumnBuilder::Timestamp { builder, zero_is_null } => {
                let (value, rest) = value::timestamp(row)?;
                match value {
                    Err(Misfit::NoDate) if *zero_is_null => builder.append_null(),
                    value => builder.append_value(value?),
                }
                rest
            }
            ColumnBuilder::Time(builder) => {
                let (value, rest) = value::time(row)?;
                builder.append_value(value);
                rest
            }
            ColumnBuilder::Text(builder) => {
                let (value, rest) = value::text(row)?;
                builder.append_value(value);
                rest
            }
            ColumnBuilder::Binary(builder) => {
                let (value, rest) = value::bytes(row)?;
                builder.append_value(value);
                rest
            }
            ColumnBuilder::Geometry(builder) => {
                let (value, rest) = value::wkb(row)?;
                builder.append_value(value);
                rest
            }
            ColumnBuilder::Whole(column) => column.append(row)?,
        })
    }

    fn append_null(&mut self) {
        match self {
            ColumnBuilder::Int8(builder) => builder.append_null(),
            ColumnBuilder::UInt8(builder) => builder.append_null(),
            ColumnBuilder::Int16(builder) => builder.append_null(),
            ColumnBuilder::UInt16(builder) => builder.append_null(),
            ColumnBuilder::Int32(builder) => builder.append_null(),
            ColumnBuilder::UInt32(builder) => builder.append_null(),
            ColumnBuilder::Int64(builder) => builder.append_null(),
            ColumnBuilder::UInt64(builder) | ColumnBuilder::Bits(builder) => builder.append_null(),
            ColumnBuilder::Float32(builder) => builder.append_null(),
            ColumnBuilder::Float64(builder) => builder.append_null(),
            ColumnBuilder::Decimal { builder, .. } => builder.append_null(),
            ColumnBuilder::LargeDecimal { builder, .. } => builder.append_null(),
            ColumnBuilder::Boolean(builder) => builder.append_null(),
            ColumnBuilder::Date { builder, .. } => builder.append_null(),
            ColumnBuilder::Timestamp { builder, .. } => builder.append_null(),
            ColumnBuilder::Time(builder) => builder.append_null(),
            ColumnBuilder::Text(builder) => builder.append_null(),
            ColumnBuilder::Binary(builder) | ColumnBuilder::Geometry(builder) => builder.append_null(),
            ColumnBuilder::Whole(column) => column.append_null(),
        }
    }

    /// The array of the values since the last call.
    fn finish(&mut self) -> ArrayRef {
        match self {
            ColumnBuilder::Int8(builder) => Arc::new(builder.finish()),
            ColumnBuilder::UInt8(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Int16(builder) => Arc::new(builder.finish()),
            ColumnBuilder::UInt16(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Int32(builder) => Arc::new(builder.finish()),
            ColumnBuilder::UInt32(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Int64(builder) => Arc::new(builder.finish()),
            ColumnBuilder::UInt64(builder) | ColumnBuilder::Bits(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Float32(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Float64(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Decimal { builder, .. } => Arc::new(builder.finish()),
            ColumnBuilder::LargeDecimal { builder, .. } => Arc::new(builder.finish()),
            ColumnBuilder::Boolean(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Date { builder, .. } => Arc::new(builder.finish()),
            ColumnBuilder::Timestamp { builder, .. } => Arc::new(builder.finish()),
            ColumnBuilder::Time(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Text(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Binary(builder) | ColumnBuilder::Geometry(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Whole(column) => column.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};
    use proptest::prelude::*;

    use super::*;

    fn kinds() -> Vec<Kind> {
        let decimal = |precision, scale| Kind::Decimal { precision, scale };
        vec![
            Kind::Int8,
            Kind::UInt16,
            Kind::Int32,
            Kind::UInt64,
            Kind::Float32,
            Kind::Float64,
            decimal(10, 2),
            decimal(65, 30),
            Kind::Boolean,
            Kind::Bits,
            Kind::Year,
            Kind::Date,
            Kind::Time,
            Kind::DateTime,
            Kind::Timestamp,
            Kind::Text,
            Kind::Label,
            Kind::Printed,
            Kind::Binary,
            Kind::Geometry,
        ]
    }

    fn decoder(kinds: &[Kind], nullable: bool) -> Decoder {
        let fields = kinds.iter().map(|kind| Field::new("c", kind.arrow(), nullable));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Decoder::new(schema, kinds, 3, false)
    }

    #[test]
    fn nulls_are_taken_from_their_bits() {
        let mut found = decoder(&kinds(), true);
        // Twenty bits behind the two that are not used.
        found.push(&[0xff, 0xff, 0xff]).unwrap();
        let batch = found.batch().unwrap().unwrap();
        assert!(batch.columns().iter().all(|column| column.null_count() == 1));
        let refused = decoder(&kinds(), false).push(&[0xff, 0xff, 0xff]).unwrap_err();
        assert_eq!((refused.row, refused.misfit), (1, Misfit::Null));
        // Rows without columns have one that nobody asked for.
        let mut nothing = decoder(&[], true);
        nothing.push(&[0x04]).unwrap();
        assert_eq!(nothing.batch().unwrap().unwrap().num_rows(), 1);
    }

    proptest! {
        /// Whatever a server sends is rows or a fault.
        #[test]
        fn any_bytes_are_rows_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..60), position in 0..20_usize) {
            let kinds = kinds();
            let mut all = decoder(&kinds, true);
            let _ = all.push(&bytes);
            let mut one = decoder(&kinds[position..=position], true);
            let row = [&[0], bytes.as_slice()].concat();
            if one.push(&row).is_ok() {
                prop_assert_eq!(one.batch().unwrap().unwrap().num_rows(), 1);
            }
        }
    }
}

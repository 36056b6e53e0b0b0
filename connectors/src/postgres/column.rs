//! Columns of Arrow arrays while they grow.
//!
//! In: the bytes of values. Out: an array for each batch.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder,
    Int16Builder, Int32Builder, Int64Builder, IntervalMonthDayNanoBuilder, ListArray, NullBufferBuilder,
    StringViewBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{Field, FieldRef};

use super::kind::{Kind, Scalar};
use super::value::{self, Misfit};

/// The array of one column, while it grows.
pub(super) enum ColumnBuilder {
    Boolean(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Oid(Int64Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Numeric {
        builder: Decimal128Builder,
        precision: u8,
        scale: u8,
    },
    Text(StringViewBuilder),
    Padded(StringViewBuilder),
    Uuid(StringViewBuilder),
    Bytea(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Interval(IntervalMonthDayNanoBuilder),
    List(Box<ListBuilder>),
}

/// Lists and, in one builder, the elements of all of them.
pub(super) struct ListBuilder {
    field: FieldRef,
    elements: ColumnBuilder,
    element_count: i32,
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl ColumnBuilder {
    /// A column with room for so many values.
    pub(super) fn new(kind: Kind, rows: usize) -> ColumnBuilder {
        match kind {
            Kind::One(scalar) => ColumnBuilder::of_scalar(scalar, rows),
            Kind::Json => ColumnBuilder::of_scalar(Scalar::Printed, rows),
            Kind::List(scalar) => ColumnBuilder::List(Box::new(ListBuilder {
                field: Arc::new(Field::new_list_field(scalar.arrow(), true)),
                elements: ColumnBuilder::of_scalar(scalar, rows),
                element_count: 0,
                offsets: vec![0],
                nulls: NullBufferBuilder::new(rows),
            })),
        }
    }

    fn of_scalar(scalar: Scalar, rows: usize) -> ColumnBuilder {
        match scalar {
            Scalar::Boolean => ColumnBuilder::Boolean(BooleanBuilder::with_capacity(rows)),
            Scalar::Int2 => ColumnBuilder::Int2(Int16Builder::with_capacity(rows)),
            Scalar::Int4 => ColumnBuilder::Int4(Int32Builder::with_capacity(rows)),
            Scalar::Int8 => ColumnBuilder::Int8(Int64Builder::with_capacity(rows)),
            Scalar::Oid => ColumnBuilder::Oid(Int64Builder::with_capacity(rows)),
            Scalar::Float4 => ColumnBuilder::Float4(Float32Builder::with_capacity(rows)),
            Scalar::Float8 => ColumnBuilder::Float8(Float64Builder::with_capacity(rows)),
            Scalar::Numeric { precision, scale } => ColumnBuilder::Numeric {
                builder: Decimal128Builder::with_capacity(rows).with_data_type(scalar.arrow()),
                precision,
                scale,
            },
            Scalar::Text | Scalar::Label | Scalar::Printed => {
                ColumnBuilder::Text(StringViewBuilder::with_capacity(rows))
            }
            Scalar::Padded => ColumnBuilder::Padded(StringViewBuilder::with_capacity(rows)),
            Scalar::Uuid => ColumnBuilder::Uuid(StringViewBuilder::with_capacity(rows)),
            Scalar::Bytea => ColumnBuilder::Bytea(BinaryBuilder::new()),
            Scalar::Date => ColumnBuilder::Date(Date32Builder::with_capacity(rows)),
            Scalar::Time => ColumnBuilder::Time(Time64MicrosecondBuilder::with_capacity(rows)),
            Scalar::Timestamp | Scalar::TimestampTz => ColumnBuilder::Timestamp(
                TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(scalar.arrow()),
            ),
            Scalar::Interval => ColumnBuilder::Interval(IntervalMonthDayNanoBuilder::with_capacity(rows)),
        }
    }

    /// Adds a value.
    #[inline]
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), Misfit> {
        match self {
            ColumnBuilder::Boolean(builder) => builder.append_value(value::boolean(bytes)?),
            ColumnBuilder::Int2(builder) => builder.append_value(value::int2(bytes)?),
            ColumnBuilder::Int4(builder) => builder.append_value(value::int4(bytes)?),
            ColumnBuilder::Int8(builder) => builder.append_value(value::int8(bytes)?),
            ColumnBuilder::Oid(builder) => builder.append_value(value::oid(bytes)?),
            ColumnBuilder::Float4(builder) => builder.append_value(value::float4(bytes)?),
            ColumnBuilder::Float8(builder) => builder.append_value(value::float8(bytes)?),
            ColumnBuilder::Numeric {
                builder,
                precision,
                scale,
            } => builder.append_value(value::numeric(bytes, *precision, *scale)?),
            ColumnBuilder::Text(builder) => builder.append_value(value::text(bytes)?),
            ColumnBuilder::Padded(builder) => builder.append_value(value::padded(bytes)?),
            ColumnBuilder::Uuid(builder) => {
                let text = value::uuid(bytes)?;
                builder.append_value(value::text(&text)?);
            }
            ColumnBuilder::Bytea(builder) => builder.append_value(bytes),
            ColumnBuilder::Date(builder) => builder.append_value(value::date(bytes)?),
            ColumnBuilder::Time(builder) => builder.append_value(value::time(bytes)?),
            ColumnBuilder::Timestamp(builder) => builder.append_value(value::timestamp(bytes)?),
            ColumnBuilder::Interval(builder) => builder.append_value(value::interval(bytes)?),
            ColumnBuilder::List(builder) => builder.append(bytes)?,
        }
        Ok(())
    }

    pub(super) fn append_null(&mut self) {
        match self {
            ColumnBuilder::Boolean(builder) => builder.append_null(),
            ColumnBuilder::Int2(builder) => builder.append_null(),
            ColumnBuilder::Int4(builder) => builder.append_null(),
            ColumnBuilder::Int8(builder) | ColumnBuilder::Oid(builder) => builder.append_null(),
            ColumnBuilder::Float4(builder) => builder.append_null(),
            ColumnBuilder::Float8(builder) => builder.append_null(),
            ColumnBuilder::Numeric { builder, .. } => builder.append_null(),
            ColumnBuilder::Text(builder) | ColumnBuilder::Padded(builder) | ColumnBuilder::Uuid(builder) => {
                builder.append_null();
            }
            ColumnBuilder::Bytea(builder) => builder.append_null(),
            ColumnBuilder::Date(builder) => builder.append_null(),
            ColumnBuilder::Time(builder) => builder.append_null(),
            ColumnBuilder::Timestamp(builder) => builder.append_null(),
            ColumnBuilder::Interval(builder) => builder.append_null(),
            ColumnBuilder::List(builder) => {
                builder.offsets.push(builder.element_count);
                builder.nulls.append_null();
            }
        }
    }

    /// The array of the values since the last call.
    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            ColumnBuilder::Boolean(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Int2(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Int4(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Int8(builder) | ColumnBuilder::Oid(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Float4(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Float8(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Numeric { builder, .. } => Arc::new(builder.finish()),
            ColumnBuilder::Text(builder) | ColumnBuilder::Padded(builder) | ColumnBuilder::Uuid(builder) => {
                Arc::new(builder.finish())
            }
            ColumnBuilder::Bytea(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Date(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Time(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Timestamp(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Interval(builder) => Arc::new(builder.finish()),
            ColumnBuilder::List(builder) => builder.finish(),
        }
    }
}

impl ListBuilder {
    /// Adds the elements of an array: dimensions, a flag, the type of the elements, for each dimension its length and
    /// first index, then the elements like the fields of a row. The first index is not kept.
    fn append(&mut self, bytes: &[u8]) -> Result<(), Misfit> {
        let (dimensions, rest) = number(bytes)?;
        let (_has_nulls, rest) = number(rest)?;
        let (_element_type, rest) = number(rest)?;
        let (count, mut rest) = match dimensions {
            0 => (0, rest),
            1 => {
                let (count, rest) = number(rest)?;
                let (_first_index, rest) = number(rest)?;
                (count, rest)
            }
            2.. => return Err(Misfit::ManyDimensions),
            _ => return Err(Misfit::Malformed),
        };
        for _ in 0..count {
            let (length, after) = number(rest)?;
            if length == -1 {
                self.elements.append_null();
                rest = after;
                continue;
            }
            let length = usize::try_from(length).map_err(|_| Misfit::Malformed)?;
            let (element, after) = after.split_at_checked(length).ok_or(Misfit::Malformed)?;
            self.elements.append(element)?;
            rest = after;
        }
        if count < 0 || !rest.is_empty() {
            return Err(Misfit::Malformed);
        }
        self.element_count = self.element_count.checked_add(count).ok_or(Misfit::OutOfRange)?;
        self.offsets.push(self.element_count);
        self.nulls.append_non_null();
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        self.element_count = 0;
        let nulls = self.nulls.finish();
        Arc::new(ListArray::new(
            Arc::clone(&self.field),
            OffsetBuffer::new(ScalarBuffer::from(offsets)),
            self.elements.finish(),
            nulls,
        ))
    }
}

fn number(bytes: &[u8]) -> Result<(i32, &[u8]), Misfit> {
    let (number, rest) = bytes.split_first_chunk::<4>().ok_or(Misfit::Malformed)?;
    Ok((i32::from_be_bytes(*number), rest))
}

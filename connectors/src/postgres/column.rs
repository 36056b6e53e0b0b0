//! Columns of Arrow arrays while they grow.
//!
//! In: the bytes of values. Out: an array for each batch.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, ListArray, NullBufferBuilder, PrimitiveArray, StringArray,
    StringViewArray, StringViewBuilder,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowNativeType, ArrowPrimitiveType, Date32Type, Decimal128Type, Field, FieldRef, Float32Type, Float64Type,
    Int16Type, Int32Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use arrow::error::ArrowError;

use super::kind::{Kind, Scalar};
use super::value::{self, Misfit};

/// Values of one width, while they grow. Less is done for each than arrow's own builders do.
pub(super) struct Fixed<T> {
    values: Vec<T>,
    nulls: NullBufferBuilder,
    rows: usize,
}

impl<T: ArrowNativeType> Fixed<T> {
    fn new(rows: usize) -> Fixed<T> {
        Fixed {
            values: Vec::with_capacity(rows),
            nulls: NullBufferBuilder::new(rows),
            rows,
        }
    }

    #[inline]
    fn push(&mut self, value: T) {
        self.values.push(value);
        self.nulls.append_non_null();
    }

    fn push_null(&mut self) {
        self.values.push(T::default());
        self.nulls.append_null();
    }

    fn finish<A: ArrowPrimitiveType<Native = T>>(&mut self) -> PrimitiveArray<A> {
        let values = std::mem::replace(&mut self.values, Vec::with_capacity(self.rows));
        PrimitiveArray::new(ScalarBuffer::from(values), self.nulls.finish())
    }
}

/// What a view has room for.
const SHORT: usize = 12;
/// Room that is made for texts before the first of them.
const MOST_AHEAD: usize = 1 << 20;

/// Texts, one behind the other.
pub(super) struct Texts {
    bytes: Vec<u8>,
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
    longest: usize,
    rows: usize,
}

impl Texts {
    fn new(rows: usize) -> Texts {
        Texts {
            bytes: Vec::new(),
            offsets: no_offsets(rows),
            nulls: NullBufferBuilder::new(rows),
            longest: 0,
            rows,
        }
    }

    #[inline]
    fn push(&mut self, text: &[u8]) -> Result<(), Misfit> {
        if !text.is_ascii() {
            value::text(text)?;
        }
        let end = self.bytes.len() + text.len();
        self.offsets.push(i32::try_from(end).map_err(|_| Misfit::OutOfRange)?);
        self.bytes.extend_from_slice(text);
        self.longest = self.longest.max(text.len());
        self.nulls.append_non_null();
        Ok(())
    }

    fn push_null(&mut self) {
        self.offsets.push(self.offsets.last().copied().unwrap_or_default());
        self.nulls.append_null();
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        // The next ones will be about as long.
        let ahead = (self.bytes.len() + self.bytes.len() / 8).min(MOST_AHEAD);
        let bytes = std::mem::replace(&mut self.bytes, Vec::with_capacity(ahead));
        let offsets = std::mem::replace(&mut self.offsets, no_offsets(self.rows));
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        // All of them are looked at once more, which is quick.
        let texts = StringArray::try_new(offsets, Buffer::from(bytes), self.nulls.finish())?;
        let views = StringViewArray::from(&texts);
        Ok(Arc::new(match std::mem::take(&mut self.longest) {
            // The views have all of it, and the bytes are let go.
            ..=SHORT => views.gc(),
            _ => views,
        }))
    }
}

fn no_offsets(rows: usize) -> Vec<i32> {
    let mut offsets = Vec::with_capacity(rows + 1);
    offsets.push(0);
    offsets
}

/// The array of one column, while it grows.
pub(super) enum ColumnBuilder {
    Boolean(BooleanBuilder),
    Int2(Fixed<i16>),
    Int4(Fixed<i32>),
    Int8(Fixed<i64>),
    Oid(Fixed<i64>),
    Float4(Fixed<f32>),
    Float8(Fixed<f64>),
    Numeric {
        builder: Fixed<i128>,
        precision: u8,
        scale: u8,
    },
    Text(Box<Texts>),
    Padded(Box<Texts>),
    Uuid(StringViewBuilder),
    Bytea(BinaryBuilder),
    Date(Fixed<i32>),
    Time(Fixed<i64>),
    Timestamp(Fixed<i64>, Scalar),
    Interval(Fixed<IntervalMonthDayNano>),
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
            Scalar::Int2 => ColumnBuilder::Int2(Fixed::new(rows)),
            Scalar::Int4 => ColumnBuilder::Int4(Fixed::new(rows)),
            Scalar::Int8 => ColumnBuilder::Int8(Fixed::new(rows)),
            Scalar::Oid => ColumnBuilder::Oid(Fixed::new(rows)),
            Scalar::Float4 => ColumnBuilder::Float4(Fixed::new(rows)),
            Scalar::Float8 => ColumnBuilder::Float8(Fixed::new(rows)),
            Scalar::Numeric { precision, scale } => ColumnBuilder::Numeric {
                builder: Fixed::new(rows),
                precision,
                scale,
            },
            Scalar::Text | Scalar::Label | Scalar::Printed => ColumnBuilder::Text(Box::new(Texts::new(rows))),
            Scalar::Padded => ColumnBuilder::Padded(Box::new(Texts::new(rows))),
            Scalar::Uuid => ColumnBuilder::Uuid(StringViewBuilder::with_capacity(rows)),
            Scalar::Bytea => ColumnBuilder::Bytea(BinaryBuilder::new()),
            Scalar::Date => ColumnBuilder::Date(Fixed::new(rows)),
            Scalar::Time => ColumnBuilder::Time(Fixed::new(rows)),
            Scalar::Timestamp | Scalar::TimestampTz => ColumnBuilder::Timestamp(Fixed::new(rows), scalar),
            Scalar::Interval => ColumnBuilder::Interval(Fixed::new(rows)),
        }
    }

    /// Adds a value.
    #[inline]
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), Misfit> {
        match self {
            ColumnBuilder::Boolean(builder) => builder.append_value(value::boolean(bytes)?),
            ColumnBuilder::Int2(builder) => builder.push(value::int2(bytes)?),
            ColumnBuilder::Int4(builder) => builder.push(value::int4(bytes)?),
            ColumnBuilder::Int8(builder) => builder.push(value::int8(bytes)?),
            ColumnBuilder::Oid(builder) => builder.push(value::oid(bytes)?),
            ColumnBuilder::Float4(builder) => builder.push(value::float4(bytes)?),
            ColumnBuilder::Float8(builder) => builder.push(value::float8(bytes)?),
            ColumnBuilder::Numeric {
                builder,
                precision,
                scale,
            } => builder.push(value::numeric(bytes, *precision, *scale)?),
            ColumnBuilder::Text(builder) => builder.push(bytes)?,
            ColumnBuilder::Padded(builder) => builder.push(value::padded(bytes))?,
            ColumnBuilder::Uuid(builder) => {
                let text = value::uuid(bytes)?;
                builder.append_value(value::text(&text)?);
            }
            ColumnBuilder::Bytea(builder) => builder.append_value(bytes),
            ColumnBuilder::Date(builder) => builder.push(value::date(bytes)?),
            ColumnBuilder::Time(builder) => builder.push(value::time(bytes)?),
            ColumnBuilder::Timestamp(builder, _) => builder.push(value::timestamp(bytes)?),
            ColumnBuilder::Interval(builder) => builder.push(value::interval(bytes)?),
            ColumnBuilder::List(builder) => builder.append(bytes)?,
        }
        Ok(())
    }

    pub(super) fn append_null(&mut self) {
        match self {
            ColumnBuilder::Boolean(builder) => builder.append_null(),
            ColumnBuilder::Int2(builder) => builder.push_null(),
            ColumnBuilder::Int4(builder) | ColumnBuilder::Date(builder) => builder.push_null(),
            ColumnBuilder::Int8(builder)
            | ColumnBuilder::Oid(builder)
            | ColumnBuilder::Time(builder)
            | ColumnBuilder::Timestamp(builder, _) => builder.push_null(),
            ColumnBuilder::Float4(builder) => builder.push_null(),
            ColumnBuilder::Float8(builder) => builder.push_null(),
            ColumnBuilder::Numeric { builder, .. } => builder.push_null(),
            ColumnBuilder::Text(builder) | ColumnBuilder::Padded(builder) => builder.push_null(),
            ColumnBuilder::Uuid(builder) => {
                builder.append_null();
            }
            ColumnBuilder::Bytea(builder) => builder.append_null(),
            ColumnBuilder::Interval(builder) => builder.push_null(),
            ColumnBuilder::List(builder) => {
                builder.offsets.push(builder.element_count);
                builder.nulls.append_null();
            }
        }
    }

    /// The array of the values since the last call.
    ///
    /// # Errors
    /// When arrow does not take what was checked before, which is a defect.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            ColumnBuilder::Boolean(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Int2(builder) => Arc::new(builder.finish::<Int16Type>()),
            ColumnBuilder::Int4(builder) => Arc::new(builder.finish::<Int32Type>()),
            ColumnBuilder::Int8(builder) | ColumnBuilder::Oid(builder) => Arc::new(builder.finish::<Int64Type>()),
            ColumnBuilder::Float4(builder) => Arc::new(builder.finish::<Float32Type>()),
            ColumnBuilder::Float8(builder) => Arc::new(builder.finish::<Float64Type>()),
            ColumnBuilder::Numeric {
                builder,
                precision,
                scale,
            } => {
                let (precision, scale) = (*precision, *scale);
                let data_type = Scalar::Numeric { precision, scale }.arrow();
                Arc::new(builder.finish::<Decimal128Type>().with_data_type(data_type))
            }
            ColumnBuilder::Text(builder) | ColumnBuilder::Padded(builder) => builder.finish()?,
            ColumnBuilder::Uuid(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Bytea(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Date(builder) => Arc::new(builder.finish::<Date32Type>()),
            ColumnBuilder::Time(builder) => Arc::new(builder.finish::<Time64MicrosecondType>()),
            ColumnBuilder::Timestamp(builder, scalar) => {
                let array = builder.finish::<TimestampMicrosecondType>();
                Arc::new(array.with_data_type(scalar.arrow()))
            }
            ColumnBuilder::Interval(builder) => Arc::new(builder.finish::<IntervalMonthDayNanoType>()),
            ColumnBuilder::List(builder) => builder.finish()?,
        })
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

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        self.element_count = 0;
        let nulls = self.nulls.finish();
        Ok(Arc::new(ListArray::try_new(
            Arc::clone(&self.field),
            OffsetBuffer::new(ScalarBuffer::from(offsets)),
            self.elements.finish()?,
            nulls,
        )?))
    }
}

fn number(bytes: &[u8]) -> Result<(i32, &[u8]), Misfit> {
    let (number, rest) = bytes.split_first_chunk::<4>().ok_or(Misfit::Malformed)?;
    Ok((i32::from_be_bytes(*number), rest))
}

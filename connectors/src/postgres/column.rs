//! Columns of Arrow arrays while they grow.
//!
//! In: where the values of some rows lie. Out: an array for each batch. A column takes its values of all these rows before the next one does: what is done
//! for each value is then one short loop.

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

/// Where a value lies in some bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    from: u32,
    /// -1 for NULL.
    length: i32,
}

impl Span {
    /// A value of a length as it is sent.
    #[inline]
    pub(super) fn new(from: usize, length: i32) -> Span {
        let from = u32::try_from(from).unwrap_or(u32::MAX);
        Span { from, length }
    }
}

/// The values of one column, of some rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    bytes: &'a [u8],
    /// The first is that of the first row.
    spans: &'a [Span],
    /// How many columns there are: the next row's value is so far behind.
    step: usize,
    /// Whether NULL may be among them.
    pub(super) nullable: bool,
}

impl<'a> Values<'a> {
    /// The values of a column of so many rows.
    pub(super) fn new(
        bytes: &'a [u8],
        spans: &'a [Span],
        (column, columns): (usize, usize),
        rows: usize,
    ) -> Values<'a> {
        let spans = spans.get(column..rows * columns).unwrap_or_default();
        Values {
            bytes,
            spans,
            step: columns,
            nullable: true,
        }
    }

    #[inline]
    fn iter(self) -> impl Iterator<Item = Option<&'a [u8]>> {
        self.spans.iter().step_by(self.step).map(move |span| {
            let length = usize::try_from(span.length).ok()?;
            let from = span.from as usize;
            Some(self.bytes.get(from..from + length).unwrap_or_default())
        })
    }
}

/// The first row, counted from zero, whose value cannot be taken, and why.
pub(super) type Taken = Result<(), (usize, Misfit)>;

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
    Text(Box<TextBuilder>),
    Uuid(StringViewBuilder),
    Bytea(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Interval(IntervalMonthDayNanoBuilder),
    List(Box<ListBuilder>),
}

/// Texts of rows with more bytes are looked at one by one: nothing is gained, and long ones would be copied once more.
const MOST_TOGETHER: usize = 1 << 20;
/// More is not kept from one list to the next.
const MOST_SPANS: usize = 1 << 16;

/// Texts, whose bytes are looked at together.
pub(super) struct TextBuilder {
    texts: StringViewBuilder,
    /// Whether blanks at the end mean nothing.
    padded: bool,
    bytes: Vec<u8>,
    /// Where each text ends in the bytes; `None` for NULL.
    ends: Vec<Option<u32>>,
}

/// Lists and, in one builder, the elements of all of them.
pub(super) struct ListBuilder {
    field: FieldRef,
    elements: ColumnBuilder,
    element_count: i32,
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
    spans: Vec<Span>,
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
                spans: Vec::new(),
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
            Scalar::Text | Scalar::Label | Scalar::Printed | Scalar::Padded => {
                ColumnBuilder::Text(Box::new(TextBuilder {
                    texts: StringViewBuilder::with_capacity(rows),
                    padded: scalar == Scalar::Padded,
                    bytes: Vec::new(),
                    ends: Vec::new(),
                }))
            }
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

    /// Adds the values of some rows.
    pub(super) fn extend(&mut self, values: Values<'_>) -> Taken {
        macro_rules! each {
            ($builder:expr, $read:expr) => {
                each(
                    values,
                    $builder,
                    |builder, bytes| {
                        builder.append_value($read(bytes)?);
                        Ok(())
                    },
                    |builder| builder.append_null(),
                )
            };
        }
        match self {
            ColumnBuilder::Boolean(builder) => each!(builder, value::boolean),
            ColumnBuilder::Int2(builder) => each!(builder, value::int2),
            ColumnBuilder::Int4(builder) => each!(builder, value::int4),
            ColumnBuilder::Int8(builder) => each!(builder, value::int8),
            ColumnBuilder::Oid(builder) => each!(builder, value::oid),
            ColumnBuilder::Float4(builder) => each!(builder, value::float4),
            ColumnBuilder::Float8(builder) => each!(builder, value::float8),
            ColumnBuilder::Numeric {
                builder,
                precision,
                scale,
            } => {
                let (precision, scale) = (*precision, *scale);
                each!(builder, |bytes| value::numeric(bytes, precision, scale))
            }
            ColumnBuilder::Text(builder) => builder.extend(values),
            ColumnBuilder::Uuid(builder) => each(
                values,
                builder,
                |builder, bytes| {
                    let text = value::uuid(bytes)?;
                    builder.append_value(value::text(&text)?);
                    Ok(())
                },
                StringViewBuilder::append_null,
            ),
            ColumnBuilder::Bytea(builder) => each!(builder, Ok::<&[u8], Misfit>),
            ColumnBuilder::Date(builder) => each!(builder, value::date),
            ColumnBuilder::Time(builder) => each!(builder, value::time),
            ColumnBuilder::Timestamp(builder) => each!(builder, value::timestamp),
            ColumnBuilder::Interval(builder) => each!(builder, value::interval),
            ColumnBuilder::List(builder) => {
                each(values, builder.as_mut(), ListBuilder::append, ListBuilder::append_null)
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
            ColumnBuilder::Text(builder) => Arc::new(builder.texts.finish()),
            ColumnBuilder::Uuid(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Bytea(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Date(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Time(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Timestamp(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Interval(builder) => Arc::new(builder.finish()),
            ColumnBuilder::List(builder) => builder.finish(),
        }
    }
}

/// Adds each value, or NULL where there may be any.
#[inline]
fn each<'a, B>(
    values: Values<'a>,
    builder: &mut B,
    append: impl Fn(&mut B, &'a [u8]) -> Result<(), Misfit>,
    append_null: impl Fn(&mut B),
) -> Taken {
    for (row, value) in values.iter().enumerate() {
        match value {
            Some(bytes) => append(builder, bytes).map_err(|misfit| (row, misfit))?,
            None if values.nullable => append_null(builder),
            None => return Err((row, Misfit::Null)),
        }
    }
    Ok(())
}

impl TextBuilder {
    /// All texts are looked at at once, which is much faster than one after another, and then cut where each ends.
    fn extend(&mut self, values: Values<'_>) -> Taken {
        if values.bytes.len() > MOST_TOGETHER {
            let padded = self.padded;
            let append = |texts: &mut StringViewBuilder, bytes| {
                let bytes = if padded { value::unpadded(bytes) } else { bytes };
                texts.append_value(value::text(bytes)?);
                Ok(())
            };
            return each(values, &mut self.texts, append, StringViewBuilder::append_null);
        }
        self.bytes.clear();
        self.ends.clear();
        for (row, value) in values.iter().enumerate() {
            match value {
                Some(bytes) => {
                    let bytes = if self.padded { value::unpadded(bytes) } else { bytes };
                    self.bytes.extend_from_slice(bytes);
                    self.ends
                        .push(Some(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)));
                }
                None if values.nullable => self.ends.push(None),
                // What is wrong before it is said first.
                None => {
                    self.append()?;
                    return Err((row, Misfit::Null));
                }
            }
        }
        self.append()
    }

    fn append(&mut self) -> Taken {
        // Where it ends may be inside a character, also when all of it is well.
        let all = std::str::from_utf8(&self.bytes);
        let mut from = 0;
        for (row, end) in self.ends.iter().enumerate() {
            let Some(end) = end else {
                self.texts.append_null();
                continue;
            };
            let range = from..*end as usize;
            from = range.end;
            let text = match &all {
                Ok(all) => all.get(range),
                Err(_) => self.bytes.get(range).and_then(|bytes| std::str::from_utf8(bytes).ok()),
            };
            self.texts.append_value(text.ok_or((row, Misfit::NotUtf8))?);
        }
        Ok(())
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
        let elements = rest;
        self.spans.clear();
        for _ in 0..count {
            let (length, after) = number(rest)?;
            self.spans.push(Span::new(elements.len() - after.len(), length));
            rest = match length {
                -1 => after,
                length => {
                    let length = usize::try_from(length).map_err(|_| Misfit::Malformed)?;
                    after.get(length..).ok_or(Misfit::Malformed)?
                }
            };
        }
        if count < 0 || !rest.is_empty() {
            return Err(Misfit::Malformed);
        }
        let values = Values::new(elements, &self.spans, (0, 1), self.spans.len());
        self.elements.extend(values).map_err(|(_, misfit)| misfit)?;
        self.spans.clear();
        self.spans.shrink_to(MOST_SPANS);
        self.element_count = self.element_count.checked_add(count).ok_or(Misfit::OutOfRange)?;
        self.offsets.push(self.element_count);
        self.nulls.append_non_null();
        Ok(())
    }

    fn append_null(&mut self) {
        self.offsets.push(self.element_count);
        self.nulls.append_null();
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

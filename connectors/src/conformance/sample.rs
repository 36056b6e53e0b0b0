//! The tables that the suite reads.
//!
//! Every table has a column of different values, here always `id`, so that rows can be put in order. A depot that cannot
//! hold a column leaves it out with [`Sample::without`].

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::Failure;

/// A table that a depot under test holds.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The name of the dataset.
    pub name: String,
    /// The column whose values tell all rows apart.
    pub key: String,
    /// Its rows.
    pub rows: RecordBatch,
}

impl Sample {
    /// The same table without the columns of these names.
    pub fn without(&self, columns: &[&str]) -> Result<Sample, Failure> {
        let schema = self.rows.schema();
        let kept: Vec<usize> = (0..schema.fields().len())
            .filter(|position| !columns.contains(&schema.field(*position).name().as_str()))
            .collect();
        Ok(Sample {
            name: self.name.clone(),
            key: self.key.clone(),
            rows: self.rows.project(&kept)?,
        })
    }
}

/// The tables.
pub fn samples() -> Result<Vec<Sample>, Failure> {
    let sample = |name: &str, rows: RecordBatch| Sample {
        name: name.to_owned(),
        key: "id".to_owned(),
        rows,
    };
    let types = types()?;
    Ok(vec![
        sample("empty", types.slice(0, 0)),
        sample("types", types),
        sample("many", many()?),
        sample("Odd N\u{e4}me \"q\" 'p' 100%", odd()?),
        sample("wide", wide()?),
        sample("long", long()?),
    ])
}

fn table(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch, Failure> {
    Ok(RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )?)
}

/// One column of each type, with NULLs and the ends of what it can hold.
fn types() -> Result<RecordBatch, Failure> {
    let text = [
        "",
        "a",
        "A",
        "a ",
        "z' OR 1=1 --",
        "\u{e4}\u{1f600}",
        "line\nbreak, \"quoted\"",
        "NULL",
    ];
    table(vec![
        ("id", Arc::new(Int64Array::from_iter_values(0..10))),
        (
            "flag",
            Arc::new(BooleanArray::from_iter(
                (0..10).map(|row| [Some(true), Some(false), None].get(row % 3).copied().flatten()),
            )),
        ),
        (
            "number",
            Arc::new(Int64Array::from(vec![
                Some(i64::MIN),
                Some(i64::MAX),
                None,
                Some(0),
                Some(-1),
                Some(1),
                Some(7),
                Some(1 << 53),
                Some((1 << 53) + 1),
                None,
            ])),
        ),
        (
            "price",
            Arc::new(Float64Array::from(vec![
                Some(0.1),
                Some(-1.5),
                None,
                Some(f64::MAX),
                Some(f64::MIN_POSITIVE),
                Some(1.0),
                Some(0.0),
                Some(1e15),
                Some(-7.25),
                None,
            ])),
        ),
        (
            "amount",
            Arc::new(
                Decimal128Array::from(vec![
                    Some(0),
                    Some(1),
                    Some(-1),
                    None,
                    Some(12_345),
                    Some(9_999_999_999),
                    Some(-9_999_999_999),
                    Some(50),
                    Some(100),
                    None,
                ])
                .with_precision_and_scale(10, 2)?,
            ),
        ),
        (
            "name",
            Arc::new(StringArray::from_iter((0..10).map(|row| text.get(row).copied()))),
        ),
        (
            "day",
            Arc::new(Date32Array::from(vec![
                Some(0),
                Some(-1),
                None,
                Some(-719_162),
                Some(2_932_896),
                Some(19_782),
                Some(1),
                Some(2),
                Some(3),
                None,
            ])),
        ),
        (
            "moment",
            Arc::new(TimestampMicrosecondArray::from(vec![
                Some(0),
                Some(-1),
                None,
                Some(1_700_000_000_123_456),
                Some(-62_135_596_800_000_000),
                Some(1),
                Some(1_000_000),
                Some(60_000_000),
                Some(253_402_300_799_999_999),
                None,
            ])),
        ),
        (
            "bytes",
            Arc::new(BinaryArray::from(vec![
                Some(b"".as_slice()),
                Some(b"\x00\xff"),
                None,
                Some(b"abc"),
                Some(b"'"),
                Some(b"\n"),
                Some(b"1"),
                Some(b"2"),
                Some(b"3"),
                None,
            ])),
        ),
        ("nothing", Arc::new(StringArray::new_null(10))),
    ])
}

/// Enough rows for several batches and parts.
fn many() -> Result<RecordBatch, Failure> {
    let rows = 0..30_000_i64;
    table(vec![
        ("id", Arc::new(Int64Array::from_iter_values(rows.clone()))),
        (
            "name",
            Arc::new(StringArray::from_iter_values(
                rows.clone().map(|row| format!("row {row}")),
            )),
        ),
        (
            "share",
            Arc::new(Float64Array::from_iter(
                rows.map(|row| (row % 7 != 0).then_some(row as f64 / 10.0 - 1.5)),
            )),
        ),
    ])
}

/// Names that must be quoted.
fn odd() -> Result<RecordBatch, Failure> {
    let numbers = || -> ArrayRef { Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])) };
    table(vec![
        ("id", Arc::new(Int64Array::from_iter_values(0..3))),
        ("Capital", numbers()),
        ("with space", numbers()),
        ("quo\"te", numbers()),
        ("apo'strophe", numbers()),
        ("\u{fc}n\u{ef}", numbers()),
        ("select", numbers()),
        ("semi;colon -- ?1", numbers()),
    ])
}

/// Many columns.
fn wide() -> Result<RecordBatch, Failure> {
    let fields: Vec<Field> = std::iter::once("id".to_owned())
        .chain((1..60).map(|column| format!("column {column}")))
        .map(|name| Field::new(name, DataType::Int64, true))
        .collect();
    let columns = (0..fields.len() as i64)
        .map(|column| Arc::new(Int64Array::from_iter_values((0..3).map(|row| row + 1000 * column))) as ArrayRef)
        .collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Long texts.
fn long() -> Result<RecordBatch, Failure> {
    table(vec![
        ("id", Arc::new(Int64Array::from_iter_values(0..20))),
        (
            "name",
            Arc::new(StringArray::from_iter_values(
                (0..20).map(|row| format!("{row}").repeat(300_000)),
            )),
        ),
    ])
}

/// The numbers from zero, as the only column of a table.
pub(super) fn numbers(schema: &SchemaRef, rows: i64) -> Result<RecordBatch, Failure> {
    Ok(RecordBatch::try_new(
        Arc::clone(schema),
        vec![Arc::new(Int64Array::from_iter_values(0..rows))],
    )?)
}

/// The same numbers twice.
pub(super) fn repeated(schema: &SchemaRef, rows: i64) -> Result<RecordBatch, Failure> {
    let once = numbers(schema, rows)?;
    Ok(concat_batches(schema, [&once, &once])?)
}

//! Every mask over every type of Arrow: it keeps the type and NULL, or is refused with the reason; nothing panics and no
//! error tells a value.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, DurationNanosecondArray, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array,
    IntervalDayTimeArray, IntervalMonthDayNanoArray, IntervalYearMonthArray, ListArray, MapBuilder, NullArray,
    RunArray, StringArray, StringBuilder, StructArray, UnionArray,
};
use datafusion::arrow::buffer::ScalarBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Field, Int32Type, IntervalDayTime, IntervalMonthDayNano, TimeUnit, UnionFields,
};

use super::*;
use crate::testing::table;
use crate::{Rules, Verdict, decide};

/// What no error may hold: it is in every array whose type can hold it.
const CANARY: &str = "kanari";

/// The masks, each with parameters that some types can hold.
const EVERY_MASK: [&str; 22] = [
    "{operator: bucket_date, bucket_date: {precision: month}}",
    "{operator: bucket_date, bucket_date: {precision: hour}}",
    "{operator: bucket_number, bucket_number: {buckets: [0, 10, 100]}}",
    "{operator: constant, constant: {value: x}}",
    "{operator: constant, constant: {value: 7}}",
    "{operator: constant, constant: {value: true}}",
    "{operator: constant, constant: {value: '2020-01-01'}}",
    "{operator: expression, expression: {sql: value}}",
    "{operator: expression, expression: {sql: \"'x'\"}}",
    "{operator: expression, expression: {sql: 'cast(cast(value as varchar) as bigint)'}}",
    "{operator: hash}",
    "{operator: hash, hash: {keySecret: masking}}",
    "{operator: nullify}",
    "{operator: partial, partial: {keep_first: 1, keep_last: 1, with: '*'}}",
    "{operator: pass_through}",
    "{operator: rand_pattern, rand_pattern: {pattern: '##'}}",
    "{operator: redact}",
    "{operator: redact, redact: {replacement: hidden}}",
    "{operator: redact, redact: {replacement: 1}}",
    "{operator: regex_replace, regex_replace: {pattern: '[a-z]', replacement: x}}",
    "{operator: tokenize, tokenize: {keySecret: masking}}",
    "{operator: expression, expression: {sql: 'null'}}",
];

fn list_of(values: ArrayRef) -> ArrayRef {
    let field = Arc::new(Field::new("item", values.data_type().clone(), true));
    let offsets = datafusion::arrow::buffer::OffsetBuffer::new(ScalarBuffer::from(vec![0, 2, 2, 4]));
    let nulls = vec![true, false, true].into();
    Arc::new(ListArray::new(field, offsets, values, Some(nulls)))
}

/// An array of three rows of every type, the second of which is NULL where the type can be.
fn every_type() -> Vec<ArrayRef> {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(100)]));
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(-0.0), None, Some(f64::NAN)]));
    let infinite: ArrayRef = Arc::new(Float64Array::from(vec![
        Some(f64::INFINITY),
        None,
        Some(f64::NEG_INFINITY),
    ]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some(CANARY), None, Some("")]));
    let cast_to = |array: &ArrayRef, data_type: DataType| cast(array, &data_type).unwrap();
    let mut arrays: Vec<ArrayRef> = vec![];
    for data_type in [
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Decimal32(5, 0),
        DataType::Decimal64(10, 2),
        DataType::Decimal128(20, 5),
        DataType::Decimal128(20, -1),
        DataType::Decimal256(40, 3),
        DataType::Timestamp(TimeUnit::Second, None),
        DataType::Timestamp(TimeUnit::Millisecond, Some("Europe/Berlin".into())),
        DataType::Timestamp(TimeUnit::Microsecond, Some("+02:00".into())),
        DataType::Timestamp(TimeUnit::Nanosecond, None),
        DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
        DataType::Date64,
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Time64(TimeUnit::Nanosecond),
        DataType::Duration(TimeUnit::Second),
        DataType::Duration(TimeUnit::Millisecond),
        DataType::Duration(TimeUnit::Microsecond),
    ] {
        arrays.push(cast_to(&numbers, data_type));
    }
    let whole = cast_to(&numbers, DataType::Int32);
    for data_type in [
        DataType::Date32,
        DataType::Time32(TimeUnit::Second),
        DataType::Time32(TimeUnit::Millisecond),
    ] {
        arrays.push(cast_to(&whole, data_type));
    }
    for data_type in [DataType::Float16, DataType::Float32, DataType::Float64] {
        arrays.push(cast_to(&floats, data_type.clone()));
        arrays.push(cast_to(&infinite, data_type));
    }
    for data_type in [
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Binary,
        DataType::LargeBinary,
        DataType::BinaryView,
        dictionary(DataType::Utf8),
    ] {
        arrays.push(cast_to(&texts, data_type));
    }
    arrays.push(cast_to(&numbers, dictionary(DataType::Int64)));
    arrays.push(Arc::new(DurationNanosecondArray::from(vec![Some(1), None, Some(2)])));
    let fixed = [Some(b"kan"), None, Some(b"abc")].into_iter();
    arrays.push(Arc::new(
        FixedSizeBinaryArray::try_from_sparse_iter_with_size(fixed, 3).unwrap(),
    ));
    arrays.push(Arc::new(IntervalYearMonthArray::from(vec![Some(1), None, Some(2)])));
    arrays.push(Arc::new(IntervalDayTimeArray::from(vec![
        Some(IntervalDayTime::new(1, 2)),
        None,
        Some(IntervalDayTime::ZERO),
    ])));
    arrays.push(Arc::new(IntervalMonthDayNanoArray::from(vec![
        Some(IntervalMonthDayNano::new(1, 2, 3)),
        None,
        Some(IntervalMonthDayNano::ZERO),
    ])));
    arrays.push(Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])));
    arrays.push(Arc::new(NullArray::new(3)));
    let four: ArrayRef = Arc::new(StringArray::from(vec![Some(CANARY), None, Some("a"), Some("b")]));
    let list = list_of(Arc::clone(&four));
    let field = Arc::new(Field::new("item", DataType::Utf8, true));
    arrays.push(cast_to(&list, DataType::LargeList(Arc::clone(&field))));
    arrays.push(cast_to(&list, DataType::FixedSizeList(Arc::clone(&field), 2)));
    arrays.push(cast_to(&list, DataType::ListView(Arc::clone(&field))));
    arrays.push(cast_to(&list, DataType::LargeListView(Arc::clone(&field))));
    arrays.push(list);
    arrays.push(list_of(list_of_structs()));
    arrays.push(structs());
    arrays.push(map());
    let types = UnionFields::try_new(
        [0_i8, 1],
        [
            Field::new("n", DataType::Int64, true),
            Field::new("t", DataType::Utf8, true),
        ],
    )
    .unwrap();
    let sparse = UnionArray::try_new(
        types.clone(),
        ScalarBuffer::from(vec![0_i8, 1, 1]),
        None,
        vec![Arc::clone(&numbers), Arc::clone(&texts)],
    );
    arrays.push(Arc::new(sparse.unwrap()));
    let dense = UnionArray::try_new(
        types,
        ScalarBuffer::from(vec![0_i8, 1, 1]),
        Some(ScalarBuffer::from(vec![0, 1, 0])),
        vec![numbers, Arc::clone(&texts)],
    );
    arrays.push(Arc::new(dense.unwrap()));
    let ends = Int32Array::from(vec![1, 2, 3]);
    arrays.push(Arc::new(RunArray::<Int32Type>::try_new(&ends, &texts).unwrap()));
    arrays
}

fn structs() -> ArrayRef {
    let city: ArrayRef = Arc::new(StringArray::from(vec![Some(CANARY), None, Some("b")]));
    let zip: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
    let fields = vec![
        Field::new("city", DataType::Utf8, true),
        Field::new("zip", DataType::Int32, false),
    ];
    let nulls = Some(vec![true, false, true].into());
    Arc::new(StructArray::new(fields.into(), vec![city, zip], nulls))
}

fn list_of_structs() -> ArrayRef {
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some(CANARY), None, Some("a"), Some("b")]));
    let fields = vec![Field::new("text", DataType::Utf8, true)];
    Arc::new(StructArray::new(fields.into(), vec![text], None))
}

fn map() -> ArrayRef {
    let mut builder = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    builder.keys().append_value("k");
    builder.values().append_value(CANARY);
    builder.append(true).unwrap();
    builder.append(false).unwrap();
    builder.append(true).unwrap();
    Arc::new(builder.finish())
}

/// The masked column, or why there is none: the table is closed, or the query fails.
async fn outcome(rules: &Rules, array: &ArrayRef) -> Result<ArrayRef, String> {
    let batch = RecordBatch::try_from_iter_with_nullable([("c", Arc::clone(array), true)]).unwrap();
    let governance = match decide(rules, &person("tom", &[]), &table(), &batch.schema()) {
        Verdict::Allow(governance) => governance,
        Verdict::Closed(closed) => return Err(closed.to_string()),
        Verdict::Deny(_) => panic!("denied"),
    };
    let masked = run(rules, &governance, &batch)
        .await
        .map_err(|error| error.strip_backtrace())?;
    let masked = Arc::clone(masked.column(0));
    masked.to_data().validate_full().map_err(|error| error.to_string())?;
    Ok(masked)
}

/// Whether each row is NULL, as a reader sees it.
fn nulls(array: &ArrayRef) -> Vec<bool> {
    let nulls = array.logical_nulls();
    (0..array.len())
        .map(|row| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)))
        .collect()
}

#[tokio::test]
async fn every_mask_keeps_every_type_and_null_or_is_refused_with_the_reason() {
    let (mut kept, mut refused, mut wrong) = (0, 0, vec![]);
    let arrays = every_type();
    for mask in EVERY_MASK {
        let rules = rules(&policy(mask));
        for array in &arrays {
            let of = format!("{mask} over {}", array.data_type());
            match outcome(&rules, array).await {
                Ok(masked) => {
                    kept += 1;
                    if masked.data_type() != array.data_type() || masked.len() != array.len() {
                        wrong.push(format!("{of}: makes {}", masked.data_type()));
                    }
                    let lost = nulls(array).iter().zip(nulls(&masked)).any(|(was, is)| *was && !is);
                    if lost {
                        wrong.push(format!("{of}: NULL became a value"));
                    }
                }
                Err(error) => {
                    refused += 1;
                    let reasoned = error.contains("does not fit column") && error.contains("expected");
                    let failed = error.contains("a mask could not be applied") || error.contains("mask of this table");
                    if error.contains(CANARY) || !(reasoned || failed) {
                        wrong.push(format!("{of}: {error}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(kept > 300 && refused > 300, "{kept} masked, {refused} refused");
}

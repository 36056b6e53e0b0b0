//! One array of each Arrow type, with what its values look like.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, Date32Array, Date64Array, Decimal32Array,
        Decimal64Array, Decimal128Array, Decimal256Array, DictionaryArray, DurationMicrosecondArray,
        DurationMillisecondArray, DurationNanosecondArray, DurationSecondArray, FixedSizeBinaryArray,
        FixedSizeListArray, Float16Array, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array,
        Int64Builder, IntervalDayTimeArray, IntervalMonthDayNanoArray, IntervalYearMonthArray, LargeBinaryArray,
        LargeListArray, LargeListViewArray, LargeStringArray, ListArray, ListViewArray, MapBuilder, NullArray,
        RunArray, StringArray, StringBuilder, StringViewArray, StructArray, Time32MillisecondArray, Time32SecondArray,
        Time64MicrosecondArray, Time64NanosecondArray, TimestampMicrosecondArray, TimestampMillisecondArray,
        TimestampNanosecondArray, TimestampSecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array, UnionArray,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{
        ArrowPrimitiveType, DataType, Field, Float16Type, Int8Type, Int32Type, Int64Type, IntervalDayTime,
        IntervalMonthDayNano, UnionFields, i256,
    },
};

/// A name, an array, and what is expected of each of its values in text and in JSON.
pub(super) type Case = (&'static str, ArrayRef, Vec<&'static str>, Vec<String>);

/// One array of each type: a value, NULL, and what else is worth a look.
pub(super) fn every_type() -> Vec<Case> {
    const NULL: &str = "NULL";
    fn same_in_json(texts: &[&'static str]) -> Vec<String> {
        texts
            .iter()
            .map(|text| if *text == NULL { "null" } else { text }.to_owned())
            .collect()
    }
    let mut cases: Vec<Case> = Vec::new();
    let mut same =
        |name, array: ArrayRef, texts: &[&'static str]| cases.push((name, array, texts.to_vec(), same_in_json(texts)));

    same(
        "boolean",
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        &["true", NULL, "false"],
    );
    same(
        "int8",
        Arc::new(Int8Array::from(vec![Some(i8::MIN), None])),
        &["-128", NULL],
    );
    same(
        "int16",
        Arc::new(Int16Array::from(vec![Some(i16::MIN), None])),
        &["-32768", NULL],
    );
    same(
        "int32",
        Arc::new(Int32Array::from(vec![Some(i32::MIN), None])),
        &["-2147483648", NULL],
    );
    same(
        "int64",
        Arc::new(Int64Array::from(vec![Some(i64::MIN), None])),
        &["-9223372036854775808", NULL],
    );
    same(
        "uint8",
        Arc::new(UInt8Array::from(vec![Some(u8::MAX), None])),
        &["255", NULL],
    );
    same(
        "uint16",
        Arc::new(UInt16Array::from(vec![Some(u16::MAX), None])),
        &["65535", NULL],
    );
    same(
        "uint32",
        Arc::new(UInt32Array::from(vec![Some(u32::MAX), None])),
        &["4294967295", NULL],
    );
    same(
        "uint64",
        Arc::new(UInt64Array::from(vec![Some(u64::MAX), None])),
        &["18446744073709551615", NULL],
    );
    let half = |value: f32| <Float16Type as ArrowPrimitiveType>::Native::from_f32(value);
    same(
        "float16",
        Arc::new(Float16Array::from(vec![Some(half(1.5)), None])),
        &["1.5", NULL],
    );
    same(
        "float32",
        Arc::new(Float32Array::from(vec![Some(0.1), None, Some(1e10)])),
        &["0.1", NULL, "10000000000.0"],
    );
    same(
        "float64",
        Arc::new(Float64Array::from(vec![
            Some(0.1 + 0.2),
            None,
            Some(1e300),
            Some(-0.0),
            Some(5e-324),
        ])),
        &["0.30000000000000004", NULL, "1e300", "-0.0", "5e-324"],
    );
    let decimal = Decimal32Array::from(vec![Some(-1_50), None])
        .with_precision_and_scale(9, 2)
        .unwrap();
    same("decimal32", Arc::new(decimal), &["-1.50", NULL]);
    let decimal = Decimal64Array::from(vec![Some(5), None])
        .with_precision_and_scale(18, 3)
        .unwrap();
    same("decimal64", Arc::new(decimal), &["0.005", NULL]);
    let decimal = Decimal128Array::from(vec![Some(12_345_678_901_234_567_890_123_456_789_012_345_678), None])
        .with_precision_and_scale(38, 10)
        .unwrap();
    same(
        "decimal128",
        Arc::new(decimal),
        &["1234567890123456789012345678.9012345678", NULL],
    );
    let decimal = Decimal256Array::from(vec![Some(i256::MAX / i256::from_i128(10)), None])
        .with_precision_and_scale(76, 0)
        .unwrap();
    same(
        "decimal256",
        Arc::new(decimal),
        &[
            "5789604461865809771178549250434395392663499233282028201972879200395656481996",
            NULL,
        ],
    );

    let mut quoted = |name, array: ArrayRef, texts: &[&'static str], jsons: &[&'static str]| {
        cases.push((
            name,
            array,
            texts.to_vec(),
            jsons.iter().map(|json| (*json).to_owned()).collect(),
        ));
    };
    quoted(
        "not numbers",
        Arc::new(Float64Array::from(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY])),
        &["NaN", "Infinity", "-Infinity"],
        &["\"NaN\"", "\"Infinity\"", "\"-Infinity\""],
    );
    let words = || vec![Some("a\"b"), None, Some("")];
    let (texts, jsons) = (&["a\"b", NULL, ""], &["\"a\\\"b\"", "null", "\"\""]);
    quoted("utf8", Arc::new(StringArray::from(words())), texts, jsons);
    quoted("large_utf8", Arc::new(LargeStringArray::from(words())), texts, jsons);
    quoted("utf8_view", Arc::new(StringViewArray::from(words())), texts, jsons);
    quoted(
        "dictionary",
        Arc::new(words().into_iter().collect::<DictionaryArray<Int8Type>>()),
        texts,
        jsons,
    );
    let bytes = || vec![Some(&[0_u8, 0xff][..]), None];
    let (texts, jsons) = (&["\\x00ff", NULL], &["\"\\\\x00ff\"", "null"]);
    quoted("binary", Arc::new(BinaryArray::from(bytes())), texts, jsons);
    quoted("large_binary", Arc::new(LargeBinaryArray::from(bytes())), texts, jsons);
    quoted("binary_view", Arc::new(BinaryViewArray::from(bytes())), texts, jsons);
    let fixed = FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes().into_iter(), 2).unwrap();
    quoted("fixed_size_binary", Arc::new(fixed), texts, jsons);
    quoted(
        "date32",
        Arc::new(Date32Array::from(vec![Some(19_000), None, Some(-1)])),
        &["2022-01-08", NULL, "1969-12-31"],
        &["\"2022-01-08\"", "null", "\"1969-12-31\""],
    );
    quoted(
        "date64",
        Arc::new(Date64Array::from(vec![Some(86_400_000), None, Some(1)])),
        &["1970-01-02", NULL, "1970-01-01 00:00:00.001"],
        &["\"1970-01-02\"", "null", "\"1970-01-01T00:00:00.001\""],
    );
    let (texts, jsons) = (&["01:02:03", NULL], &["\"01:02:03\"", "null"]);
    quoted(
        "time32 s",
        Arc::new(Time32SecondArray::from(vec![Some(3723), None])),
        texts,
        jsons,
    );
    quoted(
        "time32 ms",
        Arc::new(Time32MillisecondArray::from(vec![Some(3_723_000), None])),
        texts,
        jsons,
    );
    quoted(
        "time64 us",
        Arc::new(Time64MicrosecondArray::from(vec![Some(3_723_000_000), None])),
        texts,
        jsons,
    );
    quoted(
        "time64 ns",
        Arc::new(Time64NanosecondArray::from(vec![Some(1), None])),
        &["00:00:00.000000001", NULL],
        &["\"00:00:00.000000001\"", "null"],
    );
    let (texts, jsons) = (&["1970-01-01 00:00:01", NULL], &["\"1970-01-01T00:00:01\"", "null"]);
    quoted(
        "timestamp s",
        Arc::new(TimestampSecondArray::from(vec![Some(1), None])),
        texts,
        jsons,
    );
    quoted(
        "timestamp ms",
        Arc::new(TimestampMillisecondArray::from(vec![Some(1000), None])),
        texts,
        jsons,
    );
    quoted(
        "timestamp us",
        Arc::new(TimestampMicrosecondArray::from(vec![Some(1_000_000), None])),
        texts,
        jsons,
    );
    quoted(
        "timestamp ns",
        Arc::new(TimestampNanosecondArray::from(vec![Some(-1_500_000_000), None])),
        &["1969-12-31 23:59:58.5", NULL],
        &["\"1969-12-31T23:59:58.5\"", "null"],
    );
    quoted(
        "timestamp with a zone",
        Arc::new(TimestampSecondArray::from(vec![Some(0), None, Some(1_783_000_000)]).with_timezone("Europe/Berlin")),
        &["1970-01-01 01:00:00+01:00", NULL, "2026-07-02 15:46:40+02:00"],
        &["\"1970-01-01T01:00:00+01:00\"", "null", "\"2026-07-02T15:46:40+02:00\""],
    );
    quoted(
        "timestamp with an offset",
        Arc::new(TimestampSecondArray::from(vec![Some(0), None]).with_timezone("-03:30")),
        &["1969-12-31 20:30:00-03:30", NULL],
        &["\"1969-12-31T20:30:00-03:30\"", "null"],
    );
    let (texts, jsons) = (&["49:00:01", NULL], &["\"49:00:01\"", "null"]);
    quoted(
        "duration s",
        Arc::new(DurationSecondArray::from(vec![Some(176_401), None])),
        texts,
        jsons,
    );
    quoted(
        "duration ms",
        Arc::new(DurationMillisecondArray::from(vec![Some(176_401_000), None])),
        texts,
        jsons,
    );
    quoted(
        "duration us",
        Arc::new(DurationMicrosecondArray::from(vec![Some(176_401_000_000), None])),
        texts,
        jsons,
    );
    quoted(
        "duration ns",
        Arc::new(DurationNanosecondArray::from(vec![
            Some(-500_000_000),
            None,
            Some(i64::MIN),
        ])),
        &["-00:00:00.5", NULL, "-2562047:47:16.854775808"],
        &["\"-00:00:00.5\"", "null", "\"-2562047:47:16.854775808\""],
    );
    quoted(
        "interval in months",
        Arc::new(IntervalYearMonthArray::from(vec![Some(14), None, Some(-1)])),
        &["1 year 2 mons", NULL, "-1 mons"],
        &["\"1 year 2 mons\"", "null", "\"-1 mons\""],
    );
    quoted(
        "interval in days",
        Arc::new(IntervalDayTimeArray::from(vec![
            Some(IntervalDayTime::new(1, 1500)),
            None,
            Some(IntervalDayTime::ZERO),
        ])),
        &["1 day 00:00:01.5", NULL, "00:00:00"],
        &["\"1 day 00:00:01.5\"", "null", "\"00:00:00\""],
    );
    quoted(
        "interval in all",
        Arc::new(IntervalMonthDayNanoArray::from(vec![
            Some(IntervalMonthDayNano::new(24, -2, 3_600_000_000_000)),
            None,
        ])),
        &["2 years -2 days 01:00:00", NULL],
        &["\"2 years -2 days 01:00:00\"", "null"],
    );

    let mut same =
        |name, array: ArrayRef, texts: &[&'static str]| cases.push((name, array, texts.to_vec(), same_in_json(texts)));
    same("null", Arc::new(NullArray::new(2)), &[NULL, NULL]);
    let runs: RunArray<Int32Type> =
        RunArray::try_new(&Int32Array::from(vec![2, 3]), &Int64Array::from(vec![Some(7), None])).unwrap();
    same("run ends", Arc::new(runs), &["7", "7", NULL]);
    let fields: UnionFields = [
        (0, Arc::new(Field::new("n", DataType::Int64, true))),
        (1, Arc::new(Field::new("b", DataType::Boolean, true))),
    ]
    .into_iter()
    .collect();
    let children: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![Some(1), None])),
        Arc::new(BooleanArray::from(vec![Some(true)])),
    ];
    let union = UnionArray::try_new(fields, vec![0, 1, 0].into(), Some(vec![0, 0, 1].into()), children).unwrap();
    same("union", Arc::new(union), &["1", "true", NULL]);

    let lists = || vec![Some(vec![Some(1), None]), None, Some(vec![])];
    let texts = &["[1,null]", NULL, "[]"];
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>(lists());
    same("list", Arc::new(list.clone()), texts);
    same(
        "large_list",
        Arc::new(LargeListArray::from_iter_primitive::<Int64Type, _, _>(lists())),
        texts,
    );
    same("list_view", Arc::new(ListViewArray::from(list)), texts);
    same(
        "large_list_view",
        Arc::new(LargeListViewArray::from(LargeListArray::from_iter_primitive::<
            Int64Type,
            _,
            _,
        >(lists()))),
        texts,
    );
    let fixed = FixedSizeListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1), Some(2)]), None], 2);
    same("fixed_size_list", Arc::new(fixed), &["[1,2]", NULL]);
    let inner: ArrayRef = Arc::new(StringArray::from(vec![Some("Köln \"am Rhein\""), None, None]));
    let days: ArrayRef = Arc::new(TimestampSecondArray::from(vec![Some(0), None, None]));
    let structure = StructArray::new(
        vec![
            Field::new("city", DataType::Utf8, true),
            Field::new("since", days.data_type().clone(), true),
        ]
        .into(),
        vec![inner, days],
        Some(NullBuffer::from(vec![true, true, false])),
    );
    same(
        "struct",
        Arc::new(structure),
        &[
            "{\"city\":\"Köln \\\"am Rhein\\\"\",\"since\":\"1970-01-01T00:00:00\"}",
            "{\"city\":null,\"since\":null}",
            NULL,
        ],
    );
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    map.keys().append_value("k");
    map.values().append_value(1);
    map.append(true).unwrap();
    map.append(false).unwrap();
    same("map", Arc::new(map.finish()), &["{\"k\":1}", NULL]);
    let inner = ListArray::from_iter_primitive::<Int64Type, _, _>(lists());
    let nested = ListArray::new(
        Arc::new(Field::new_list_field(inner.data_type().clone(), true)),
        OffsetBuffer::from_lengths([3, 0]),
        Arc::new(inner),
        None,
    );
    same("list of lists", Arc::new(nested), &["[[1,null],null,[]]", "[]"]);

    cases
}

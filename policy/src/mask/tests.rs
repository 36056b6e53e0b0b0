//! Every mask on every kind of type: what it shows, that the type and NULL are kept, and what it refuses. The masks
//! run as in a query: chosen by a policy, encoded, decoded, optimised, evaluated.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, ListArray, MapArray, RecordBatch, StringArray, StructArray, new_null_array,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Fields, Int8Type, TimeUnit};

use super::MASKS;
use crate::testing::{EVERYTHING, SECRET, allowed, closed, documents, mask_policy, person, rules, run, schema, shown};

const TEXT: [DataType; 3] = [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View];

fn dictionary(values: DataType) -> DataType {
    DataType::Dictionary(Box::new(DataType::Int8), Box::new(values))
}

/// An array of a type from texts.
fn array(data_type: &DataType, values: &[Option<&str>]) -> ArrayRef {
    let text: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
    match data_type {
        DataType::Dictionary(_, inner) => cast(&array(inner, values), data_type).unwrap(),
        _ => cast(&text, data_type).unwrap_or_else(|error| panic!("{data_type}: {error}")),
    }
}

fn policy(mask: &str) -> String {
    documents(&[EVERYTHING, SECRET, &mask_policy("p", 5, "users:id:**", "{names: [c]}", mask)])
}

/// The masked column; its type must be the same.
async fn try_mask(mask: &str, column: ArrayRef) -> Result<ArrayRef, String> {
    let rules = rules(&policy(mask));
    let batch = RecordBatch::try_from_iter_with_nullable([("c", Arc::clone(&column), true)]).unwrap();
    let governance = allowed(&rules, &person("tom", &[]), &batch.schema());
    let masked = run(&rules, &governance, &batch).await.map_err(|error| error.strip_backtrace())?;
    let masked = Arc::clone(masked.column(0));
    assert_eq!(masked.data_type(), column.data_type(), "{mask}");
    masked.to_data().validate_full().unwrap();
    Ok(masked)
}

async fn mask(operator: &str, column: ArrayRef) -> Vec<String> {
    shown(&try_mask(operator, column).await.unwrap())
}

fn refused(operator: &str, data_type: DataType) -> String {
    closed(&rules(&policy(operator)), &person("tom", &[]), &schema(&[("c", data_type)]))
}

#[tokio::test]
async fn masks_of_text_keep_every_kind_of_text() {
    let values = [Some("jane@example.com"), None, Some(""), Some("ünï"), Some("jane@example.com"), Some("00012")];
    let cases: [(&str, [&str; 6]); 7] = [
        ("{operator: partial, partial: {keep_first: 1, keep_last: 2}}", ["j*************om", "NULL", "", "***", "j*************om", "0**12"]),
        ("{operator: partial, partial: {keep_last: 1, with: xy}}", ["xyxyxyxyxyxyxyxyxyxyxyxyxyxyxym", "NULL", "", "xyxyï", "xyxyxyxyxyxyxyxyxyxyxyxyxyxyxym", "xyxyxyxy2"]),
        ("{operator: redact}", ["REDACTED", "NULL", "REDACTED", "REDACTED", "REDACTED", "REDACTED"]),
        ("{operator: constant, constant: {value: '-'}}", ["-", "NULL", "-", "-", "-", "-"]),
        ("{operator: regex_replace, regex_replace: {pattern: '[a-z](?=.*@)', replacement: '#'}}", ["####@example.com", "NULL", "", "ünï", "####@example.com", "00012"]),
        ("{operator: regex_replace, regex_replace: {pattern: '(.)@(.)', replacement: '${1}at$2'}}", ["janeatexample.com", "NULL", "", "ünï", "janeatexample.com", "00012"]),
        ("{operator: expression, expression: \"concat(upper(left(value, 1)), '.')\"}", ["J.", "NULL", ".", "Ü.", "J.", "0."]),
    ];
    for (operator, expected) in cases {
        for data_type in TEXT.into_iter().chain(TEXT.map(dictionary)) {
            assert_eq!(mask(operator, array(&data_type, &values)).await, expected, "{operator} on {data_type}");
        }
    }
}

#[tokio::test]
async fn hashes_are_the_known_ones() {
    let plain = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    for data_type in TEXT.into_iter().chain(TEXT.map(dictionary)) {
        let values = array(&data_type, &[Some("abc"), None, Some("abc")]);
        assert_eq!(mask("{operator: hash}", Arc::clone(&values)).await, [plain, "NULL", plain], "{data_type}");
        let keyed = mask("{operator: hash, hash: {keySecret: masking}}", values).await;
        // HMAC-SHA256 of `abc` under `a key of sixteen bytes`.
        assert_eq!(keyed[0].len(), 64);
        assert_ne!(keyed[0], plain);
        assert_eq!((keyed[0].as_str(), keyed[1].as_str()), (keyed[2].as_str(), "NULL"));
    }
    let known = super::hash::keyed("k", &[("k".to_owned(), vec![0x0b; 20])].into_iter().collect()).unwrap();
    let digest = hmac::Mac::finalize(hmac::Mac::chain_update(known, b"Hi There")).into_bytes();
    assert_eq!(super::text::lower_hex(&digest), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
}

#[tokio::test]
async fn tokens_are_equal_where_values_are_and_nowhere_else() {
    let operator = "{operator: tokenize, tokenize: {keySecret: masking}}";
    let text = mask(operator, array(&DataType::Utf8, &[Some("1"), Some("2"), None, Some("1")])).await;
    assert_eq!((text[0].len(), text[0] == text[3], text[0] == text[1], text[2].as_str()), (32, true, false, "NULL"));
    assert_eq!(mask(operator, array(&DataType::Utf8View, &[Some("1")])).await[0], text[0]);
    let whole: Vec<String> = (0..256).map(|number| (number - 128).to_string()).collect();
    let whole: Vec<Option<&str>> = whole.iter().map(|text| Some(text.as_str())).collect();
    let mut tokens = mask(operator, array(&DataType::Int8, &whole)).await;
    assert_ne!(tokens, whole.iter().flatten().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 256, "a permutation of all numbers of the type");
    for data_type in [DataType::Int16, DataType::Int32, DataType::Int64, DataType::UInt8, DataType::UInt16, DataType::UInt32, DataType::UInt64] {
        let tokens = mask(operator, array(&data_type, &[Some("7"), None, Some("8"), Some("7")])).await;
        assert!(tokens[0] == tokens[3] && tokens[0] != tokens[2] && tokens[1] == "NULL", "{data_type}: {tokens:?}");
    }
}

#[tokio::test]
async fn patterns_of_chance_keep_their_shape_and_nothing_of_the_value() {
    let operator = "{operator: rand_pattern, rand_pattern: {pattern: '##-#x'}}";
    for data_type in TEXT.into_iter().chain(TEXT.map(dictionary)) {
        let values: Vec<_> = (0..100).map(|row| (row % 10 != 0).then_some("secret")).collect();
        let masked = mask(operator, array(&data_type, &values)).await;
        assert_eq!(masked.iter().filter(|value| *value == "NULL").count(), 10);
        for value in masked.iter().filter(|value| *value != "NULL") {
            let digits: Vec<bool> = value.chars().map(|character| character.is_ascii_digit()).collect();
            assert_eq!(digits, [true, true, false, true, false], "{value}");
        }
    }
}

#[tokio::test]
async fn numbers_fall_into_buckets() {
    let operator = "{operator: bucket_number, bucket_number: {buckets: [100, 0, 10]}}";
    let decimal = DataType::Decimal128(9, 2);
    for data_type in [DataType::Int8, DataType::Int16, DataType::Int32, DataType::Int64, DataType::UInt8, DataType::UInt64, dictionary(DataType::Int32)] {
        let found = mask(operator, array(&data_type, &[Some("0"), Some("9"), None, Some("10"), Some("100"), Some("101")])).await;
        assert_eq!(found, ["0", "0", "NULL", "10", "100", "100"], "{data_type}");
    }
    for data_type in [DataType::Float32, DataType::Float64] {
        let found = mask(operator, array(&data_type, &[Some("-0.0"), Some("9.9"), None, Some("-1"), Some("NaN"), Some("inf")])).await;
        assert_eq!(found, ["0.0", "0.0", "NULL", "NULL", "NULL", "100.0"], "{data_type}");
    }
    let found = mask(operator, array(&decimal, &[Some("9.99"), Some("-0.01"), Some("10.00")])).await;
    assert_eq!(found, ["0.00", "NULL", "10.00"]);
    for data_type in [DataType::Decimal32(9, 2), DataType::Decimal64(9, 2), DataType::Decimal256(9, 2)] {
        assert_eq!(mask(operator, array(&data_type, &[Some("11.5"), None])).await, ["10.00", "NULL"]);
    }
    let halves = "{operator: bucket_number, bucket_number: {buckets: [0.5]}}";
    assert_eq!(mask(halves, array(&DataType::Float64, &[Some("0.4"), Some("0.6")])).await, ["NULL", "0.5"]);
    assert!(refused(halves, DataType::Int64).contains("expected a value of type `Int64`, not `0.5`"));
    assert!(refused(operator, DataType::Utf8).contains("expected a column of numbers"));
}

#[tokio::test]
async fn dates_are_cut_to_their_bucket_in_their_own_zone() {
    let cut = |precision: &str| format!("{{operator: bucket_date, bucket_date: {{precision: {precision}}}}}");
    let values = [Some("2024-02-29T13:45:10"), None, Some("1969-12-31T23:59:59")];
    for (precision, first, last) in [
        ("hour", "2024-02-29T13:00:00", "1969-12-31T23:00:00"),
        ("day", "2024-02-29T00:00:00", "1969-12-31T00:00:00"),
        ("week", "2024-02-26T00:00:00", "1969-12-29T00:00:00"),
        ("month", "2024-02-01T00:00:00", "1969-12-01T00:00:00"),
        ("quarter", "2024-01-01T00:00:00", "1969-10-01T00:00:00"),
        ("year", "2024-01-01T00:00:00", "1969-01-01T00:00:00"),
    ] {
        for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
            let found = mask(&cut(precision), array(&DataType::Timestamp(unit, None), &values)).await;
            assert_eq!(found, [first, "NULL", last], "{precision} {unit:?}");
        }
        let days = [Some("2024-02-29"), None, Some("1969-12-31")];
        for data_type in [DataType::Date32, DataType::Date64, dictionary(DataType::Date32)] {
            let found = mask(&cut(precision), array(&data_type, &days)).await;
            assert!(found[0].starts_with(&first[..10]) && found[2].starts_with(&last[..10]), "{precision} {found:?}");
        }
    }
    let berlin = DataType::Timestamp(TimeUnit::Second, Some("Europe/Berlin".into()));
    // In Berlin 23:30 UTC on the last of March is April, and clocks went forward on that very day.
    let found = mask(&cut("month"), array(&berlin, &[Some("2024-03-31T23:30:00Z"), Some("2024-03-31T20:30:00Z")])).await;
    assert_eq!(found, ["2024-04-01T00:00:00+02:00", "2024-03-01T00:00:00+01:00"]);
    assert!(refused(&cut("day"), DataType::Int64).contains("expected a column of dates or timestamps"));
}

#[tokio::test]
async fn redact_nullify_constant_and_pass_through_fit_every_type() {
    let struct_type = DataType::Struct(Fields::from(vec![Field::new("a", DataType::Utf8, true)]));
    let list_type = DataType::new_list(DataType::Utf8, true);
    let cases = [
        (array(&DataType::Int16, &[Some("5"), None]), "0"),
        (array(&DataType::UInt64, &[Some("5"), None]), "0"),
        (array(&DataType::Float32, &[Some("5"), None]), "0.0"),
        (array(&DataType::Float16, &[Some("5"), None]), "0"),
        (array(&DataType::Decimal128(5, 2), &[Some("5"), None]), "0.00"),
        (array(&DataType::Boolean, &[Some("true"), None]), "false"),
        (array(&DataType::Date32, &[Some("2024-01-01"), None]), "1970-01-01"),
        (array(&DataType::Date64, &[Some("2024-01-01"), None]), "1970-01-01T00:00:00"),
        (array(&DataType::Timestamp(TimeUnit::Nanosecond, None), &[Some("2024-01-01"), None]), "1970-01-01T00:00:00"),
        (array(&DataType::Timestamp(TimeUnit::Second, Some("UTC".into())), &[Some("2024-01-01"), None]), "1970-01-01T00:00:00Z"),
        (array(&dictionary(DataType::Utf8), &[Some("x"), None]), "REDACTED"),
        (array(&dictionary(DataType::Int64), &[Some("5"), None]), "0"),
        (array(&DataType::Binary, &[Some("x"), None]), "NULL"),
        (array(&DataType::Time64(TimeUnit::Microsecond), &[Some("10:00:00"), None]), "NULL"),
        (new_null_array(&struct_type, 2), "NULL"),
        (new_null_array(&list_type, 2), "NULL"),
        (new_null_array(&DataType::Null, 2), "NULL"),
    ];
    for (column, redacted) in cases {
        let data_type = column.data_type().clone();
        assert_eq!(mask("{operator: redact}", Arc::clone(&column)).await, [redacted, "NULL"], "{data_type}");
        assert_eq!(mask("{operator: nullify}", Arc::clone(&column)).await, ["NULL", "NULL"], "{data_type}");
        let same = try_mask("{operator: pass_through}", Arc::clone(&column)).await.unwrap();
        assert_eq!(same.to_data(), column.to_data(), "{data_type}");
    }
    for (value, data_type, expected) in [
        ("7", DataType::Int32, "7"),
        ("7.50", DataType::Decimal128(5, 2), "7.50"),
        ("'2020-02-02'", DataType::Date32, "2020-02-02"),
        ("true", DataType::Boolean, "true"),
        ("1.5", DataType::Float32, "1.5"),
    ] {
        let text = if data_type == DataType::Boolean { "false" } else if data_type == DataType::Date32 { "2024-01-01" } else { "1" };
        let column = array(&data_type, &[Some(text), None]);
        assert_eq!(mask(&format!("{{operator: constant, constant: {{value: {value}}}}}"), Arc::clone(&column)).await, [expected, "NULL"]);
        assert_eq!(mask(&format!("{{operator: redact, redact: {{replacement: {value}}}}}"), column).await, [expected, "NULL"]);
    }
    for (value, data_type) in [("300", DataType::Int8), ("1.234", DataType::Decimal128(5, 2)), ("x", DataType::Date32), ("5", DataType::Utf8), ("1", DataType::Boolean)] {
        let message = refused(&format!("{{operator: constant, constant: {{value: {value}}}}}"), data_type.clone());
        assert!(message.contains(&format!("of type `{data_type}`: expected ")), "{message}");
    }
}

#[tokio::test]
async fn masks_reach_inside_structs_lists_and_maps() {
    let text = |values: &[Option<&str>]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let fields = Fields::from(vec![Field::new("a.b", DataType::Utf8, true), Field::new("n", DataType::Int32, false)]);
    let inner = StructArray::new(fields.clone(), vec![text(&[Some("x"), None, Some("y")]), Arc::new(Int32Array::from(vec![1, 2, 3]))], None);
    let field = Arc::new(Field::new("item", DataType::Struct(fields), true));
    let list = ListArray::new(field, OffsetBuffer::new(vec![0, 2, 2, 3].into()), Arc::new(inner), Some(vec![true, false, true].into()));
    // Sliced, so that a value which no row shows lies before the first offset.
    let list: ArrayRef = Arc::new(list.slice(1, 2));
    let policy = |columns: &str, operator: &str| {
        documents(&[EVERYTHING, SECRET, &mask_policy("p", 5, "users:id:**", columns, operator)])
    };
    let masked = async |columns: &str, operator: &str, column: &ArrayRef| {
        let rules = rules(&policy(columns, operator));
        let batch = RecordBatch::try_from_iter_with_nullable([("c", Arc::clone(column), true)]).unwrap();
        let governance = allowed(&rules, &person("tom", &[]), &batch.schema());
        let masked = run(&rules, &governance, &batch).await.unwrap();
        masked.column(0).to_data().validate_full().unwrap();
        assert_eq!(masked.column(0).data_type(), column.data_type());
        shown(masked.column(0))
    };
    let redact = "{operator: redact}";
    assert_eq!(masked("{names: [c.element.a.b]}", redact, &list).await, ["NULL", "[{a.b: REDACTED, n: 3}]"]);
    assert_eq!(masked("{names: [c.element.n]}", redact, &list).await, ["NULL", "[{a.b: y, n: 0}]"]);
    assert_eq!(masked("{names: [c.element]}", redact, &list).await, ["NULL", "[NULL]"]);
    assert_eq!(masked("{names: [c]}", redact, &list).await, ["NULL", "NULL"]);
    let constant = "{operator: constant, constant: {value: '7'}}";
    assert_eq!(masked("{names: [c]}", constant, &list).await, ["NULL", "[{a.b: 7, n: 7}]"]);
    let nullify = "{operator: nullify}";
    let batch = RecordBatch::try_from_iter_with_nullable([("c", Arc::clone(&list), true)]).unwrap();
    let message = closed(&rules(&policy("{names: [c.element.n]}", nullify)), &person("tom", &[]), &batch.schema());
    assert!(message.contains("column `c.element.n` of type `Int32`: expected a part that can be NULL"), "{message}");

    let entries = StructArray::new(
        Fields::from(vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Utf8, true)]),
        vec![text(&[Some("k"), Some("l")]), text(&[Some("v"), None])],
        None,
    );
    let entries_field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
    let map: ArrayRef = Arc::new(MapArray::new(entries_field, OffsetBuffer::new(vec![0, 2, 2].into()), entries, Some(vec![true, false].into()), false));
    assert_eq!(masked("{names: [c.value]}", redact, &map).await, ["{k: REDACTED, l: NULL}", "NULL"]);
    assert_eq!(masked("{names: [c.key]}", "{operator: partial, partial: {keep_first: 0}}", &map).await, ["{*: v, *: NULL}", "NULL"]);
    let chance = masked("{names: [c.value]}", "{operator: rand_pattern, rand_pattern: {pattern: '#'}}", &map).await;
    assert!(chance[0].starts_with("{k: ") && chance[0].ends_with(", l: NULL}") && chance[0].len() == "{k: 1, l: NULL}".len(), "{chance:?}");
}

#[tokio::test]
async fn a_dictionary_tells_nothing_by_its_keys_or_unused_values() {
    let values = array(&dictionary(DataType::Utf8), &[Some("hidden"), Some("b"), Some("c"), None, Some("b")]);
    let masked = try_mask("{operator: redact}", values.slice(1, 4)).await.unwrap();
    let masked = masked.as_dictionary::<Int8Type>();
    assert_eq!(masked.values().len(), 1, "one value for every row");
    assert!(masked.keys().iter().flatten().all(|key| key == 0));
    // The value that no row shows would make the pattern fail.
    let trap = "a".repeat(40) + "!";
    let values = array(&dictionary(DataType::Utf8), &[Some(&trap), Some("b")]);
    let evil = "{operator: regex_replace, regex_replace: {pattern: '(?:a|aa)+(?<=b)x', replacement: x}}";
    assert_eq!(mask(evil, values.slice(1, 1)).await, ["b"]);
}

#[tokio::test]
async fn a_mask_that_fails_tells_no_value() {
    let secret = "a".repeat(40) + "!";
    let column = array(&DataType::Utf8, &[Some(&secret), Some("x")]);
    for operator in [
        "{operator: regex_replace, regex_replace: {pattern: '(?:a|aa)+(?<=b)x', replacement: x}}",
        "{operator: expression, expression: \"cast(cast(value as int) as varchar)\"}",
    ] {
        let error = try_mask(operator, Arc::clone(&column)).await.unwrap_err();
        assert!(error.ends_with("a mask of this table could not be applied to one of its values"), "{error}");
        assert!(!error.contains("aaa"), "{error}");
    }
}

#[tokio::test]
async fn an_expression_keeps_the_type_or_closes_the_table() {
    let round = "{operator: expression, expression: {sql: 'value / 10 * 10'}}";
    assert_eq!(mask(round, array(&DataType::Int32, &[Some("57"), None])).await, ["50", "NULL"]);
    let found = mask("{operator: expression, expression: \"coalesce(value, 'x')\"}", array(&DataType::Utf8View, &[None, Some("y")])).await;
    assert_eq!(found, ["NULL", "y"]);
    for (sql, data_type, expected) in [
        ("random()", DataType::Float64, "answers differently each time"),
        ("now()", DataType::Utf8, "answers differently each time"),
        ("other", DataType::Utf8, "other"),
        ("sum(value)", DataType::Int64, "sum"),
        ("minerva_mask_hash(value)", DataType::Utf8, "minerva_mask_hash"),
        ("make_array(value)", DataType::Date32, "expected an expression of type `Date32`"),
        ("value * 2", DataType::Utf8, ""),
    ] {
        let message = refused(&format!("{{operator: expression, expression: {{sql: '{sql}'}}}}"), data_type);
        assert!(message.contains(expected) && message.contains("policy `p`"), "{message}");
    }
}

#[test]
fn every_mask_is_documented_and_its_example_is_read() {
    let names: Vec<_> = MASKS.iter().map(|kind| kind.name()).collect();
    assert!(names.is_sorted(), "{names:?}");
    let mut page = String::from(include_str!("masks.md"));
    for kind in MASKS {
        assert!(kind.function().starts_with("minerva_mask_"));
        let example = kind.example().trim();
        let indented = example.replace('\n', "\n    ");
        let policy = mask_policy("p", 5, "users:id:**", "{names: [c]}", "PLACE").replace("mask: PLACE", &indented);
        rules(&documents(&[SECRET, &policy]));
        page.push_str(&format!(
            "\n## `{}`\n\n{}\n\nFits: {}.\n\n```yaml\n{example}\n```\n",
            kind.name(),
            kind.description(),
            kind.types(),
        ));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/masks.md");
    if std::env::var_os("MINERVA_WRITE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(written, page, "docs/masks.md is old: run the tests with MINERVA_WRITE_DOCS=1");
}

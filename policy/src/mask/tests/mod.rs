//! Every mask on every kind of type: what it shows, that the type and NULL are kept, and what it refuses. The masks
//! run as in a query: chosen by a policy, encoded, decoded, optimised, evaluated.

mod nested;
mod plain;
mod text;
mod types;
mod values;

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, ListArray, MapArray, RecordBatch, StringArray, StructArray, new_null_array,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Fields, Int8Type, TimeUnit};

use crate::MASKS;
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
    documents(&[
        EVERYTHING,
        SECRET,
        &mask_policy("p", 5, "users:id:**", "{names: [c]}", mask),
    ])
}

/// The masked column; its type must be the same.
async fn try_mask(mask: &str, column: ArrayRef) -> Result<ArrayRef, String> {
    let rules = rules(&policy(mask));
    let batch = RecordBatch::try_from_iter_with_nullable([("c", Arc::clone(&column), true)]).unwrap();
    let governance = allowed(&rules, &person("tom", &[]), &batch.schema());
    let masked = run(&rules, &governance, &batch)
        .await
        .map_err(|error| error.strip_backtrace())?;
    let masked = Arc::clone(masked.column(0));
    assert_eq!(masked.data_type(), column.data_type(), "{mask}");
    masked.to_data().validate_full().unwrap();
    Ok(masked)
}

async fn mask(operator: &str, column: ArrayRef) -> Vec<String> {
    let data_type = column.data_type().clone();
    shown(
        &try_mask(operator, column)
            .await
            .unwrap_or_else(|error| panic!("{operator} on {data_type}: {error}")),
    )
}

fn refused(operator: &str, data_type: DataType) -> String {
    closed(
        &rules(&policy(operator)),
        &person("tom", &[]),
        &schema(&[("c", data_type)]),
    )
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
        assert!(
            error.ends_with("a mask of this table could not be applied to one of its values"),
            "{error}"
        );
        assert!(!error.contains("aaa"), "{error}");
    }
}

#[tokio::test]
async fn an_expression_keeps_the_type_or_closes_the_table() {
    let round = "{operator: expression, expression: {sql: 'value / 10 * 10'}}";
    assert_eq!(
        mask(round, array(&DataType::Int32, &[Some("57"), None])).await,
        ["50", "NULL"]
    );
    let found = mask(
        "{operator: expression, expression: \"coalesce(value, 'x')\"}",
        array(&DataType::Utf8View, &[None, Some("y")]),
    )
    .await;
    assert_eq!(found, ["NULL", "y"]);
    for (sql, data_type, expected) in [
        ("random()", DataType::Float64, "answers differently each time"),
        ("now()", DataType::Utf8, "answers differently each time"),
        ("other", DataType::Utf8, "other"),
        ("sum(value)", DataType::Int64, "sum"),
        ("minerva_mask_hash(value)", DataType::Utf8, "minerva_mask_hash"),
        (
            "make_array(value)",
            DataType::Date32,
            "expected an expression of type `Date32`",
        ),
        ("value * 2", DataType::Utf8, ""),
    ] {
        let message = refused(
            &format!("{{operator: expression, expression: {{sql: '{sql}'}}}}"),
            data_type,
        );
        assert!(
            message.contains(expected) && message.contains("policy `p`"),
            "{message}"
        );
    }
}

#[test]
fn every_mask_is_documented_and_its_example_is_read() {
    let names: Vec<_> = MASKS.iter().map(|kind| kind.name()).collect();
    assert!(names.is_sorted(), "{names:?}");
    let mut page = String::from(include_str!("../masks.md"));
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
    assert_eq!(
        written, page,
        "docs/masks.md is old: run the tests with MINERVA_WRITE_DOCS=1"
    );
}

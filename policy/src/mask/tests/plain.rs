//! Masks as expressions of SQL: where a mask has one, it is what the mask does.

use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::Expr;

use super::*;
use crate::fence::plain_mask;
use crate::testing::context;

/// What the expression of a mask makes of a column; `None` when it has none.
async fn plain(operator: &str, column: &ArrayRef) -> Option<Vec<String>> {
    let rules = rules(&policy(operator));
    let batch = RecordBatch::try_from_iter_with_nullable([("c", Arc::clone(column), true)]).unwrap();
    let governance = allowed(&rules, &person("tom", &[]), &batch.schema());
    let call = governance
        .masked("c", Expr::Column(Column::new_unqualified("c")))
        .unwrap();
    let schema = DFSchema::try_from(batch.schema()).unwrap();
    let plain = match call {
        literal @ Expr::Literal(..) => literal,
        call => plain_mask(&call, &schema)?,
    };
    let frame = context(&rules).read_batch(batch).unwrap();
    let masked = frame.select([plain.alias("c")]).unwrap().collect().await.unwrap();
    let masked = masked[0].column(0);
    assert_eq!(masked.data_type(), column.data_type(), "{operator}");
    Some(shown(masked))
}

#[tokio::test]
async fn a_plain_expression_is_what_the_mask_does() {
    let texts = [
        Some("jane@example.com"),
        None,
        Some(""),
        Some("ünï"),
        Some("e\u{301}\u{1f600}x"),
        Some("ab"),
        Some("abc"),
        Some("REDACTED"),
        Some("%_\\"),
    ];
    let numbers = [
        Some("57"),
        None,
        Some("-1"),
        Some("0"),
        Some("10"),
        Some("9"),
        Some("100"),
    ];
    let text = [DataType::Utf8, DataType::Utf8View];
    let number = [
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Decimal128(12, 2),
    ];
    let whole = [DataType::Int16, DataType::Int32, DataType::Int64];
    let dates = [Some("2024-02-29"), None];
    let mut count = 0;
    for (operator, types, values) in [
        ("{operator: redact}", text.as_slice(), texts.as_slice()),
        ("{operator: redact, redact: {replacement: hidden}}", &text, &texts),
        ("{operator: constant, constant: {value: \"it's\"}}", &text, &texts),
        ("{operator: nullify}", &text, &texts),
        ("{operator: partial, partial: {keep_first: 1}}", &text, &texts),
        ("{operator: partial, partial: {keep_last: 2, with: '#'}}", &text, &texts),
        (
            "{operator: partial, partial: {keep_first: 2, keep_last: 1, with: 'xy'}}",
            &text,
            &texts,
        ),
        (
            "{operator: partial, partial: {keep_first: 0, with: '*'}}",
            &text,
            &texts,
        ),
        ("{operator: hash, hash: {keyed: false}}", &text, &texts),
        (
            "{operator: bucket_number, bucket_number: {buckets: [0, 10, 50]}}",
            &whole,
            &numbers,
        ),
        (
            "{operator: bucket_number, bucket_number: {buckets: [10]}}",
            &whole,
            &numbers,
        ),
        ("{operator: constant, constant: {value: 7}}", &number, &numbers),
        ("{operator: redact}", &number, &numbers),
        ("{operator: nullify}", &number, &numbers),
        ("{operator: redact}", &[DataType::Date32], &dates),
        (
            "{operator: constant, constant: {value: '2000-01-01'}}",
            &[DataType::Date32],
            &dates,
        ),
    ] {
        for data_type in types {
            let column = array(data_type, values);
            let expected = mask(operator, Arc::clone(&column)).await;
            assert_eq!(
                plain(operator, &column).await,
                Some(expected),
                "{operator} on {data_type}"
            );
            count += 1;
        }
    }
    assert!(count > 30);
}

#[tokio::test]
async fn masks_with_a_key_by_chance_or_that_may_fail_have_none() {
    let text = array(&DataType::Utf8View, &[Some("x")]);
    for operator in [
        "{operator: hash, hash: {keySecret: masking}}",
        "{operator: tokenize, tokenize: {keySecret: masking}}",
        "{operator: rand_pattern, rand_pattern: {pattern: '###'}}",
        "{operator: regex_replace, regex_replace: {pattern: 'x', replacement: y}}",
        "{operator: expression, expression: \"upper(value)\"}",
    ] {
        assert_eq!(plain(operator, &text).await, None, "{operator}");
    }
    // A float has two zeros, and numbers that are none; decimals have such a number in PostgreSQL.
    let bucket = "{operator: bucket_number, bucket_number: {buckets: [0]}}";
    for data_type in [DataType::Float64, DataType::Decimal128(12, 2)] {
        assert_eq!(plain(bucket, &array(&data_type, &[Some("1.5")])).await, None);
    }
}

//! Which rows row filters leave: every operator, NULL, zeros, attributes, expressions that fail.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int8Type, TimeUnit};

use crate::Principal;
use crate::testing::{EVERYTHING, allowed, documents, filter_policy, person, rules, run, shown};

/// Rows numbered from 0; a name, a number, a float, a date, a moment and a dictionary of each.
fn batch() -> RecordBatch {
    let names = StringArray::from(vec![Some("EU"), Some("US"), None, Some("a%b"), Some("axb"), Some("12")]);
    let numbers = Int32Array::from(vec![Some(1), Some(2), None, Some(-3), Some(5), Some(7)]);
    let floats = Float64Array::from(vec![Some(0.0), Some(-0.0), None, Some(1.5), Some(f64::NAN), Some(2.5)]);
    let dates = StringArray::from(vec![
        Some("2024-01-01"),
        Some("2024-02-29"),
        None,
        Some("1969-12-31"),
        None,
        None,
    ]);
    let dates: ArrayRef = Arc::new(dates);
    let dictionary: DictionaryArray<Int8Type> = [Some("x"), Some("y"), None, Some("x"), Some("z"), None]
        .into_iter()
        .collect();
    RecordBatch::try_from_iter_with_nullable([
        ("row", Arc::new(Int64Array::from_iter_values(0..6)) as ArrayRef, false),
        ("name", Arc::new(names), true),
        ("number", Arc::new(numbers), true),
        ("float", Arc::new(floats), true),
        ("day", cast(&dates, &DataType::Date32).unwrap(), true),
        (
            "moment",
            cast(
                &dates,
                &DataType::Timestamp(TimeUnit::Microsecond, Some("+02:00".into())),
            )
            .unwrap(),
            true,
        ),
        ("code", Arc::new(dictionary), true),
    ])
    .unwrap()
}

async fn rows(filters: &str, principal: &Principal) -> String {
    let rules = rules(&documents(&[EVERYTHING, &filter_policy("p", filters)]));
    let batch = batch();
    let governance = allowed(&rules, principal, &batch.schema());
    shown(run(&rules, &governance, &batch).await.unwrap().column(0)).join(" ")
}

#[tokio::test]
async fn every_operator_hides_what_it_must() {
    for (filter, expected) in [
        ("{column: name, value: EU}", "0"),
        ("{column: name, operator: not_equals, value: EU}", "1 3 4 5"),
        ("{column: name, operator: in, value: [EU, '12', nobody]}", "0 5"),
        ("{column: name, operator: not_in, value: [EU, '12', nobody]}", "1 3 4"),
        ("{column: name, operator: like, value: 'a%b'}", "3 4"),
        ("{column: name, operator: like, value: 'a\\%b'}", "3"),
        ("{column: name, operator: is_null}", "2"),
        ("{column: name, operator: is_not_null}", "0 1 3 4 5"),
        ("{column: number, operator: less_than, value: 2}", "0 3"),
        ("{column: number, operator: less_than_equals, value: '2'}", "0 1 3"),
        ("{column: number, operator: greater_than, value: 2.0}", "4 5"),
        ("{column: number, operator: greater_than_equals, value: 2}", "1 4 5"),
        ("{column: number, operator: in, value: [1, 2, 3, 4, 5]}", "0 1 4"),
        ("{column: number, operator: not_in, value: [1, 2, 3, 4, 5]}", "3 5"),
        ("{column: float, value: 0}", "0 1"),
        ("{column: float, operator: in, value: [0, 1.5]}", "0 1 3"),
        (
            "{column: float, operator: in, value: [0.0, 1.5, -1e-3, 1e10, 9]}",
            "0 1 3",
        ),
        (
            "{column: float, operator: not_in, value: [0.0, 1.5, -1e-3, 1e10, 9]}",
            "4 5",
        ),
        ("{column: day, operator: less_than, value: '2024-02-01'}", "0 3"),
        (
            "{column: moment, operator: greater_than, value: '2024-01-01T00:00:00+02:00'}",
            "1",
        ),
        ("{column: code, value: x}", "0 3"),
        ("{column: code, operator: in, value: [x, y, u, v, w]}", "0 1 3"),
        ("{column: code, operator: not_in, value: [x, y, u, v, w]}", "4"),
        ("{column: code, operator: like, value: '%'}", "0 1 3 4"),
    ] {
        assert_eq!(
            rows(&format!("[{filter}]"), &person("tom", &[])).await,
            expected,
            "{filter}"
        );
    }
}

#[tokio::test]
async fn conditions_and_policies_are_all_required() {
    let both = "[{column: number, operator: greater_than, value: 0}, {column: name, operator: not_equals, value: US}]";
    assert_eq!(rows(both, &person("tom", &[])).await, "0 4 5");
    let more = filter_policy("q", "[{column: number, operator: not_in, value: [5]}]");
    let rules = rules(&documents(&[EVERYTHING, &filter_policy("p", both), &more]));
    let batch = batch();
    let governance = allowed(&rules, &person("tom", &[]), &batch.schema());
    assert_eq!(governance.filters.len(), 2);
    assert_eq!(
        shown(run(&rules, &governance, &batch).await.unwrap().column(0)).join(" "),
        "0 5"
    );
}

#[tokio::test]
async fn attributes_are_values_and_never_patterns_or_sql() {
    let evil = "' OR 1=1 --";
    for (filter, attribute, expected) in [
        ("{column: name, value: '${user.id}'}", "x", "1"),
        ("{column: name, value: '${user.attributes.a}'}", "EU", "0"),
        (
            "{column: number, operator: in, value: ['${user.attributes.a}', 7]}",
            "2",
            "1 5",
        ),
        (
            "{column: name, operator: like, value: '${user.attributes.a}%'}",
            "a%",
            "3",
        ),
        ("{column: name, operator: like, value: '${user.attributes.a}'}", "%", ""),
        ("{expression: \"name = ${user.attributes.a}\"}", "US", "1"),
        ("{expression: \"name = '${user.attributes.a}'\"}", "US", "1"),
        ("{expression: \"name = ${user.attributes.a}\"}", evil, ""),
        ("{expression: \"name = '${user.attributes.a}'\"}", evil, ""),
        ("{expression: \"upper(name) = '${user.attributes.a}'\"}", evil, ""),
        ("{expression: \"upper(name) = ${user.attributes.a}\"}", "A%B", "3"),
    ] {
        let principal = person("US", &[&format!("a={attribute}")]);
        assert_eq!(
            rows(&format!("[{filter}]"), &principal).await,
            expected,
            "{filter} {attribute}"
        );
    }
}

#[tokio::test]
async fn expressions_are_right_and_the_left_side_guards_the_right() {
    for (expression, expected) in [
        ("number > 1 and name <> 'US'", "4 5"),
        ("number between 1 and 5", "0 1 4"),
        ("number not in (3, -1) or number not in (5, 1)", "0 1 3 4 5"),
        ("not (number in (1, 2, 3, 4, 5))", "3 5"),
        ("float in (0.0, 1.5, -1e-3, 1e10)", "0 1 3"),
        ("float = 0 or float = 1.5 or float = 7 or float = 9", "0 1 3"),
        ("try_cast(name as int) = 12", "5"),
        ("number = 1 or try_cast(name as int) = 12", "0 5"),
        ("name = '12' and cast(name as int) = 12", "5"),
        ("number <> 1 and 10 / (number - 1) > 1", "1 4"),
        ("number is null or number = 1 or 10 / (number - 1) > 1", "0 1 2 4"),
        ("coalesce(number, 100) = 100", "2"),
        ("code in ('x', 'y') and row < 3", "0 1"),
        ("lower(code) = 'x'", "0 3"),
        ("day >= '2024-01-01'", "0 1"),
        ("day is null", "2 4 5"),
        ("name is distinct from 'EU'", "1 2 3 4 5"),
        ("name similar to 'a.b'", "3 4"),
        ("extract(year from day) = 2024", "0 1"),
        ("case when number is null then true else number = 5 end", "2 4"),
        ("true", "0 1 2 3 4 5"),
        ("null::boolean", ""),
    ] {
        assert_eq!(
            rows(&format!("[{{expression: \"{expression}\"}}]"), &person("tom", &[])).await,
            expected,
            "{expression}"
        );
    }
}

#[tokio::test]
async fn an_expression_that_fails_for_a_row_fails_the_statement_in_a_fixed_text() {
    for expression in [
        "cast(name as int) = 12",
        "cast(name as int) = 12 or number = 1",
        "10 / (number - 1) > 1",
    ] {
        let rules = rules(&documents(&[
            EVERYTHING,
            &filter_policy("p", &format!("[{{expression: \"{expression}\"}}]")),
        ]));
        let batch = batch();
        let governance = allowed(&rules, &person("tom", &[]), &batch.schema());
        let error = run(&rules, &governance, &batch).await.unwrap_err().strip_backtrace();
        assert_eq!(
            error, "Execution error: a row filter of this table could not be evaluated",
            "{expression}"
        );
    }
}

#[test]
fn what_cannot_fail_stays_open_to_the_optimizer() {
    let yaml = filter_policy("p", "[{expression: \"number > 1 and cast(name as int) = 12\"}]");
    let rules = rules(&documents(&[EVERYTHING, &yaml]));
    let governance = allowed(&rules, &person("tom", &[]), &batch().schema());
    let predicate = governance.filters[0].predicate.to_string();
    assert!(
        predicate.starts_with("CAST(number AS Int64) > Int64(1) AND minerva_row_filter("),
        "{predicate}"
    );
}

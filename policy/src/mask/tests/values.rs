//! The masks of numbers, dates and everything else: what they show, type by type.

use super::*;

#[tokio::test]
async fn numbers_fall_into_buckets() {
    let operator = "{operator: bucket_number, bucket_number: {buckets: [100, 0, 10]}}";
    let decimal = DataType::Decimal128(9, 2);
    for data_type in [
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt64,
        dictionary(DataType::Int32),
    ] {
        let found = mask(
            operator,
            array(
                &data_type,
                &[Some("0"), Some("9"), None, Some("10"), Some("100"), Some("101")],
            ),
        )
        .await;
        assert_eq!(found, ["0", "0", "NULL", "10", "100", "100"], "{data_type}");
    }
    for data_type in [DataType::Float32, DataType::Float64] {
        let found = mask(
            operator,
            array(
                &data_type,
                &[Some("-0.0"), Some("9.9"), None, Some("-1"), Some("NaN"), Some("inf")],
            ),
        )
        .await;
        assert_eq!(found, ["0.0", "0.0", "NULL", "NULL", "NULL", "100.0"], "{data_type}");
    }
    let found = mask(operator, array(&decimal, &[Some("9.99"), Some("-0.01"), Some("10.00")])).await;
    assert_eq!(found, ["0.00", "NULL", "10.00"]);
    for data_type in [
        DataType::Decimal32(9, 2),
        DataType::Decimal64(9, 2),
        DataType::Decimal256(9, 2),
    ] {
        assert_eq!(
            mask(operator, array(&data_type, &[Some("11.5"), None])).await,
            ["10.00", "NULL"]
        );
    }
    let halves = "{operator: bucket_number, bucket_number: {buckets: [0.5]}}";
    assert_eq!(
        mask(halves, array(&DataType::Float64, &[Some("0.4"), Some("0.6")])).await,
        ["NULL", "0.5"]
    );
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
        for unit in [
            TimeUnit::Second,
            TimeUnit::Millisecond,
            TimeUnit::Microsecond,
            TimeUnit::Nanosecond,
        ] {
            let found = mask(&cut(precision), array(&DataType::Timestamp(unit, None), &values)).await;
            assert_eq!(found, [first, "NULL", last], "{precision} {unit:?}");
        }
        let days = [Some("2024-02-29"), None, Some("1969-12-31")];
        for data_type in [DataType::Date32, DataType::Date64, dictionary(DataType::Date32)] {
            let found = mask(&cut(precision), array(&data_type, &days)).await;
            assert!(
                found[0].starts_with(&first[..10]) && found[2].starts_with(&last[..10]),
                "{precision} {found:?}"
            );
        }
    }
    let berlin = DataType::Timestamp(TimeUnit::Second, Some("Europe/Berlin".into()));
    // In Berlin 23:30 UTC on the last of March is April, and clocks went forward on that very day.
    let found = mask(
        &cut("month"),
        array(&berlin, &[Some("2024-03-31T23:30:00Z"), Some("2024-03-31T20:30:00Z")]),
    )
    .await;
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
        (
            array(&DataType::Date64, &[Some("2024-01-01"), None]),
            "1970-01-01T00:00:00",
        ),
        (
            array(
                &DataType::Timestamp(TimeUnit::Nanosecond, None),
                &[Some("2024-01-01"), None],
            ),
            "1970-01-01T00:00:00",
        ),
        (
            array(
                &DataType::Timestamp(TimeUnit::Second, Some("UTC".into())),
                &[Some("2024-01-01"), None],
            ),
            "1970-01-01T00:00:00Z",
        ),
        (array(&dictionary(DataType::Utf8), &[Some("x"), None]), "REDACTED"),
        (array(&dictionary(DataType::Int64), &[Some("5"), None]), "0"),
        (array(&DataType::Binary, &[Some("x"), None]), "NULL"),
        (
            array(&DataType::Time64(TimeUnit::Microsecond), &[Some("10:00:00"), None]),
            "NULL",
        ),
        (new_null_array(&struct_type, 2), "NULL"),
        (new_null_array(&list_type, 2), "NULL"),
        (new_null_array(&DataType::Null, 2), "NULL"),
    ];
    for (column, redacted) in cases {
        let data_type = column.data_type().clone();
        assert_eq!(
            mask("{operator: redact}", Arc::clone(&column)).await,
            [redacted, "NULL"],
            "{data_type}"
        );
        assert_eq!(
            mask("{operator: nullify}", Arc::clone(&column)).await,
            ["NULL", "NULL"],
            "{data_type}"
        );
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
        let text = if data_type == DataType::Boolean {
            "false"
        } else if data_type == DataType::Date32 {
            "2024-01-01"
        } else {
            "1"
        };
        let column = array(&data_type, &[Some(text), None]);
        assert_eq!(
            mask(
                &format!("{{operator: constant, constant: {{value: {value}}}}}"),
                Arc::clone(&column)
            )
            .await,
            [expected, "NULL"]
        );
        assert_eq!(
            mask(
                &format!("{{operator: redact, redact: {{replacement: {value}}}}}"),
                column
            )
            .await,
            [expected, "NULL"]
        );
    }
    for (value, data_type) in [
        ("300", DataType::Int8),
        ("1.234", DataType::Decimal128(5, 2)),
        ("x", DataType::Date32),
        ("5", DataType::Utf8),
        ("1", DataType::Boolean),
    ] {
        let message = refused(
            &format!("{{operator: constant, constant: {{value: {value}}}}}"),
            data_type.clone(),
        );
        assert!(
            message.contains(&format!("of type `{data_type}`: expected ")),
            "{message}"
        );
    }
}

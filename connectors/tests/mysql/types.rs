//! Every type, value by value, against what the server's own client prints.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Decimal256Type, DecimalType, Int32Type, IntervalMonthDayNanoType,
    TimestampMicrosecondType,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, Days, NaiveDate};
use minerva_connectors::ErrorKind;

use crate::server::{Place, shared};

/// A declared type, what is read, how the client is asked for it, and values as SQL.
type Tried = (&'static str, &'static str, &'static str, &'static [&'static str]);

const TRIED: &[Tried] = &[
    ("tinyint", "Int8", "v", &["-128", "0", "127"]),
    ("tinyint(1)", "Int8", "v", &["-128", "1", "127"]),
    ("boolean", "Int8", "v", &["TRUE", "FALSE"]),
    ("tinyint unsigned", "UInt8", "v", &["0", "255"]),
    ("smallint", "Int16", "v", &["-32768", "32767"]),
    ("smallint unsigned", "UInt16", "v", &["65535"]),
    ("mediumint", "Int32", "v", &["-8388608", "8388607"]),
    ("mediumint unsigned", "UInt32", "v", &["16777215"]),
    ("int", "Int32", "v", &["-2147483648", "2147483647"]),
    ("int unsigned", "UInt32", "v", &["4294967295"]),
    ("int(8) zerofill", "UInt32", "CAST(v AS unsigned)", &["0", "42"]),
    ("bigint", "Int64", "v", &["-9223372036854775808", "9223372036854775807"]),
    ("bigint unsigned", "UInt64", "v", &["0", "18446744073709551615"]),
    // The client prints six digits of what has seven.
    (
        "float",
        "Float32",
        "CAST(v AS double)",
        &["0", "1.5", "-0.1", "3.4028234e38", "1.17549435e-38", "16777216", "-0e0"],
    ),
    ("float(7,3)", "Float32", "CAST(v AS double)", &["1234.567"]),
    (
        "double",
        "Float64",
        "v",
        &[
            "0",
            "0.1",
            "-1.7976931348623157e308",
            "2.2250738585072014e-308",
            "1e22",
            "123456789012345.67",
            "5e-324",
        ],
    ),
    ("double unsigned", "Float64", "v", &["1.25"]),
    (
        "decimal(5,2)",
        "Decimal128(5, 2)",
        "v",
        &["-999.99", "0", "0.01", "12.3"],
    ),
    (
        "decimal(8,2) zerofill",
        "Decimal128(8, 2)",
        "CAST(v AS decimal(8,2))",
        &["0", "1.5"],
    ),
    (
        "decimal(38,0)",
        "Decimal128(38, 0)",
        "v",
        &["99999999999999999999999999999999999999", "-1"],
    ),
    (
        "decimal(38,38)",
        "Decimal128(38, 38)",
        "v",
        &[
            "0.99999999999999999999999999999999999999",
            "-0.00000000000000000000000000000000000001",
        ],
    ),
    (
        "decimal(39,5)",
        "Decimal256(39, 5)",
        "v",
        &["-9999999999999999999999999999999999.99999", "0.00001", "0"],
    ),
    (
        "decimal(65,30)",
        "Decimal256(65, 30)",
        "v",
        &[
            "99999999999999999999999999999999999.999999999999999999999999999999",
            "-0.000000000000000000000000000001",
            "1",
        ],
    ),
    ("decimal", "Decimal128(10, 0)", "v", &["42"]),
    ("bit", "Boolean", "IF(v, 'true', 'false')", &["0", "1"]),
    ("bit(1)", "Boolean", "IF(v, 'true', 'false')", &["b'1'"]),
    ("bit(9)", "UInt64", "CAST(v AS unsigned)", &["0", "511", "256"]),
    (
        "bit(64)",
        "UInt64",
        "CAST(v AS unsigned)",
        &[
            "b'1000000000000000000000000000000000000000000000000000000000000001'",
            "~0",
        ],
    ),
    ("year", "Int16", "CAST(v AS signed)", &["1901", "2155", "0", "2024"]),
    (
        "date",
        "Date32",
        "v",
        &[
            "'0001-01-01'",
            "'1000-01-01'",
            "'1969-12-31'",
            "'1970-01-01'",
            "'2024-02-29'",
            "'9999-12-31'",
        ],
    ),
    (
        "datetime",
        "Timestamp(µs)",
        "v",
        &[
            "'1000-01-01 00:00:00'",
            "'1969-12-31 23:59:59'",
            "'9999-12-31 23:59:59'",
            "'2024-02-29'",
        ],
    ),
    ("datetime(1)", "Timestamp(µs)", "v", &["'2024-01-01 10:11:12.3'"]),
    (
        "datetime(6)",
        "Timestamp(µs)",
        "v",
        &[
            "'1969-12-31 23:59:59.999999'",
            "'0001-01-01 00:00:00.000001'",
            "'9999-12-31 23:59:59.999999'",
        ],
    ),
    (
        "timestamp NULL",
        "Timestamp(µs, \"UTC\")",
        "v",
        &["'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'"],
    ),
    (
        "timestamp(6) NULL",
        "Timestamp(µs, \"UTC\")",
        "v",
        &["'2024-07-01 12:00:00.123456'"],
    ),
    (
        "time",
        "Interval(MonthDayNano)",
        "TIME_TO_SEC(v)",
        &[
            "'00:00:00'",
            "'23:59:59'",
            "'838:59:59'",
            "'-838:59:59'",
            "'-00:00:01'",
            "'24:00:00'",
        ],
    ),
    (
        "time(6)",
        "Interval(MonthDayNano)",
        "TIME_TO_SEC(v)",
        &["'12:34:56.000001'", "'-100:00:00.999999'"],
    ),
    ("char(5)", "Utf8View", "v", &["''", "'a'", "'a  '", "'é😀'"]),
    (
        "varchar(20)",
        "Utf8View",
        "v",
        &["''", "'a  '", "'twelve chars'", "'thirteen char'", "'it''s \"q\"'"],
    ),
    (
        "varchar(20) CHARACTER SET latin1",
        "Utf8View",
        "CONVERT(v USING utf8mb4)",
        &["'é'", "'ÿ€'", "'plain'"],
    ),
    (
        "text CHARACTER SET cp1251",
        "Utf8View",
        "CONVERT(v USING utf8mb4)",
        &["'Привет'"],
    ),
    (
        "text CHARACTER SET sjis",
        "Utf8View",
        "CONVERT(v USING utf8mb4)",
        &["'日本語'"],
    ),
    (
        "varchar(20) CHARACTER SET ucs2",
        "Utf8View",
        "CONVERT(v USING utf8mb4)",
        &["'aé日'"],
    ),
    ("varchar(20) CHARACTER SET utf8mb3", "Utf8View", "v", &["'é日'"]),
    ("varchar(20) COLLATE utf8mb4_bin", "Utf8View", "v", &["'A '"]),
    ("tinytext", "Utf8View", "v", &["'x'"]),
    ("text", "Utf8View", "v", &["'x'", "REPEAT('é', 30000)"]),
    ("mediumtext", "Utf8View", "v", &["REPEAT('x', 300000)"]),
    ("longtext", "Utf8View", "MD5(v)", &["REPEAT('0123456789', 1700000)"]),
    (
        "enum('sad','ok','Happy day','')",
        "Utf8View",
        "v",
        &["'sad'", "'Happy day'", "''"],
    ),
    (
        "enum('é','ü') CHARACTER SET latin1",
        "Utf8View",
        "CONVERT(v USING utf8mb4)",
        &["'ü'"],
    ),
    ("set('a','b','c')", "Utf8View", "v", &["''", "'a,c'", "'c,b'"]),
    (
        "json",
        "Utf8View",
        "v",
        &["'{\"b\": 1,  \"a\": [null, \"é\"]}'", "'null'"],
    ),
    ("uuid", "Utf8View", "v", &["'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"]),
    ("inet6", "Utf8View", "v", &["'::1'", "'2001:db8::ff00:42:8329'"]),
    ("inet4", "Utf8View", "v", &["'10.0.0.1'"]),
    ("binary(3)", "Binary", "HEX(v)", &["X''", "X'00FF5C'", "'a'"]),
    ("varbinary(9)", "Binary", "HEX(v)", &["X''", "X'00FF5C27'"]),
    ("tinyblob", "Binary", "HEX(v)", &["X'00'"]),
    ("blob", "Binary", "HEX(v)", &["X'C3'"]),
    ("mediumblob", "Binary", "HEX(v)", &["REPEAT(X'FE', 70000)"]),
    (
        "longblob",
        "Binary",
        "MD5(v)",
        &[
            "REPEAT(X'FF', 17000000)",
            "REPEAT('x', 16777210)",
            "REPEAT('x', 16777205)",
        ],
    ),
    (
        "point",
        "Binary",
        "HEX(ST_AsWKB(v))",
        &[
            "ST_GeomFromText('POINT(1.5 -2)')",
            "ST_GeomFromText('POINT(7 8)', 4326)",
        ],
    ),
    (
        "geometry",
        "Binary",
        "HEX(ST_AsWKB(v))",
        &["ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 2))')"],
    ),
    (
        "polygon",
        "Binary",
        "HEX(ST_AsWKB(v))",
        &["ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))')"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn values_are_what_the_client_prints() {
    let place = shared().database("printed", "");
    for (position, (declared, expected_type, asked, values)) in TRIED.iter().enumerate() {
        let table = format!("t{position}");
        let many = values.len();
        let inserted: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(id, value)| format!("({id}, {value})"))
            .collect();
        place.sql(&format!(
            "SET time_zone = '+00:00'; SET sql_mode = 'NO_BACKSLASH_ESCAPES,ALLOW_INVALID_DATES'; \
             CREATE TABLE {table} (id int, v {declared}); INSERT INTO {table} VALUES {}, ({many}, NULL)",
            inserted.join(", ")
        ));
        let printed = place.sql(&format!(
            "SET time_zone = '+00:00'; SELECT id, {asked} FROM {table} WHERE v IS NOT NULL ORDER BY id"
        ));
        let printed: Vec<String> = printed
            .split_terminator('\n')
            .map(|line| line.split_once('\t').unwrap().1.to_owned())
            .collect();
        let rows = ordered(&place, &table).await;
        assert_eq!(rows.num_rows(), many + 1, "{declared}");
        let column = rows.column(1);
        assert_eq!(column.data_type().to_string(), *expected_type, "{declared}");
        assert!(column.is_null(many), "{declared}");
        let is_digest = asked.starts_with("MD5");
        let found: Vec<String> = (0..many)
            .map(|row| shown(column.as_ref(), row, is_digest, declared))
            .collect();
        assert_eq!(found, printed, "{declared}");
    }
}

async fn ordered(place: &Place<'_>, table: &str) -> RecordBatch {
    let batches = place.rows(table).await.unwrap();
    let all = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    let ids = all.column(0).as_primitive::<Int32Type>();
    assert!(ids.values().is_sorted());
    all
}

/// A value as the client prints it.
fn shown(column: &dyn Array, row: usize, is_digest: bool, declared: &str) -> String {
    if is_digest {
        let bytes = match column.data_type() {
            DataType::Binary => column.as_binary::<i32>().value(row),
            _ => column.as_string_view().value(row).as_bytes(),
        };
        return digest(bytes);
    }
    match column.data_type() {
        DataType::Binary => {
            let bytes = column.as_binary::<i32>().value(row);
            bytes.iter().map(|byte| format!("{byte:02X}")).collect()
        }
        DataType::Utf8View => column.as_string_view().value(row).to_owned(),
        DataType::Float32 => number(f64::from(
            column.as_primitive::<arrow::datatypes::Float32Type>().value(row),
        )),
        DataType::Float64 => number(column.as_primitive::<arrow::datatypes::Float64Type>().value(row)),
        DataType::Decimal128(precision, scale) => {
            Decimal128Type::format_decimal(column.as_primitive::<Decimal128Type>().value(row), *precision, *scale)
        }
        DataType::Decimal256(precision, scale) => {
            Decimal256Type::format_decimal(column.as_primitive::<Decimal256Type>().value(row), *precision, *scale)
        }
        DataType::Date32 => {
            let days = column.as_primitive::<Date32Type>().value(row);
            let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
            let date = match u64::try_from(days) {
                Ok(days) => epoch + Days::new(days),
                Err(_) => epoch - Days::new(u64::from(days.unsigned_abs())),
            };
            date.format("%Y-%m-%d").to_string()
        }
        DataType::Timestamp(_, _) => {
            let value = column.as_primitive::<TimestampMicrosecondType>().value(row);
            let text = DateTime::from_timestamp_micros(value).unwrap();
            let digits = match declared {
                declared if declared.contains("(6)") => 6,
                declared if declared.contains("(1)") => 1,
                _ => 0,
            };
            let text = text.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
            let cut = if digits == 0 { 19 } else { 20 + digits };
            assert!(text[cut..].bytes().all(|byte| matches!(byte, b'0' | b'.')), "{text}");
            text[..cut].to_owned()
        }
        DataType::Interval(_) => {
            let value = column.as_primitive::<IntervalMonthDayNanoType>().value(row);
            assert_eq!((value.months, value.days, value.nanoseconds % 1000), (0, 0, 0));
            let (sign, micros) = (
                if value.nanoseconds < 0 { "-" } else { "" },
                (value.nanoseconds / 1000).abs(),
            );
            let seconds = format!("{sign}{}", micros / 1_000_000);
            if declared.contains("(6)") {
                format!("{seconds}.{:06}", micros % 1_000_000)
            } else {
                seconds
            }
        }
        _ => {
            let formatter = ArrayFormatter::try_new(column, &FormatOptions::default()).unwrap();
            formatter.value(row).to_string()
        }
    }
}

/// A double as the server prints it: the shortest digits, and an exponent for large and small ones.
fn number(value: f64) -> String {
    if value == 0.0 {
        return if value.is_sign_negative() {
            "-0".to_owned()
        } else {
            "0".to_owned()
        };
    }
    let plain = value.to_string();
    if (1e-15..1e15).contains(&value.abs()) {
        return plain;
    }
    format!("{value:e}")
}

/// MD5, which is no crate of ours; the server computes it too.
fn digest(bytes: &[u8]) -> String {
    let place = shared();
    let text = format!("SELECT MD5({})", crate::server::hexadecimal(bytes));
    place.sql("mysql", &text).trim().to_owned()
}

/// What no calendar has is an error by default, and NULL if that is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn dates_of_no_calendar_are_errors_or_nothing() {
    let statements = "SET sql_mode = 'ALLOW_INVALID_DATES';
         CREATE TABLE days (id int, v date NOT NULL); INSERT INTO days VALUES (1, '2024-01-01'), (2, '0000-00-00');
         CREATE TABLE parts (id int, v date); INSERT INTO parts VALUES (1, '2020-00-10'), (2, NULL), (3, '2020-01-10');
         CREATE TABLE past (id int, v datetime(3)); INSERT INTO past VALUES (1, '2021-02-31 10:00:00'), (2, '2021-02-28');
         CREATE TABLE stamps (id int, v timestamp NOT NULL DEFAULT 0); INSERT INTO stamps (id) VALUES (1);
         CREATE TABLE moments (id int, v datetime NOT NULL); INSERT INTO moments VALUES (1, '0000-00-00 00:00:00'), (2, '2021-02-28');";
    let strict = shared().database("zero_strict", statements);
    for (table, row) in [("days", 2), ("parts", 1), ("past", 1), ("stamps", 1), ("moments", 1)] {
        let error = strict.failure(table).await;
        assert_eq!(error.kind, ErrorKind::BadValue);
        assert_eq!(
            error.to_string(),
            format!(
                "depot `db`: `zero_strict.{table}`: column `v` holds a date that no calendar has, such as `0000-00-00`, in row {row} of the rows read, \
                 where a date of the calendar is expected; correct the value, or set `zeroDates: as-null` for the depot"
            )
        );
        // Who does not read the column does not mind.
        let frame = strict.frame(table).await.select_columns(&["id"]).unwrap();
        assert!(crate::server::row_count(&frame.collect().await.unwrap()) > 0);
    }
    let lenient = shared().database_with("zero_null", "zeroDates: as-null,", statements);
    for (table, nulls) in [("days", 1), ("parts", 2), ("past", 1), ("stamps", 1), ("moments", 1)] {
        let rows = ordered(&lenient, table).await;
        assert_eq!(rows.column(1).null_count(), nulls, "{table}");
        assert!(rows.schema().field(1).is_nullable(), "{table}");
        for (filter, expected) in [
            (datafusion::prelude::col("v").is_null(), nulls),
            (datafusion::prelude::col("v").is_not_null(), rows.num_rows() - nulls),
        ] {
            let frame = lenient.frame(table).await.filter(filter.clone()).unwrap();
            assert_eq!(
                crate::server::row_count(&frame.collect().await.unwrap()),
                expected,
                "{table} {filter}"
            );
        }
    }
}

/// Columns of views are those of what they compute.
#[tokio::test(flavor = "multi_thread")]
async fn views_have_types_of_their_own() {
    let place = shared().database(
        "computed",
        "CREATE TABLE t (a int, b bigint unsigned, s varchar(9), d date, j json); INSERT INTO t VALUES (1, 2, 'x', '2024-01-01', '{}');
         CREATE VIEW v AS SELECT a + 1 AS sum, a / 3 AS quotient, b * 2 AS twice, count(*) AS many, avg(a) AS mean, concat(s, a) AS text, CAST(s AS BINARY) AS raw,
             d + INTERVAL 1 DAY AS later, now(6) AS today, NULL AS nothing, TRUE AS yes, 1.5e0 AS real_number, a = 1 AS equal, CASE a WHEN 1 THEN b END AS chosen,
             timediff(now(), now()) AS passed, ifnull(a, b) AS either, group_concat(s) AS many_texts, j, 'lit' AS literal, hex(a) AS h, b'101' AS bits, inet6_aton('::1') AS address,
             CURRENT_USER() AS who, rand(1) AS r, cast(a AS decimal(50, 3)) AS wide, ST_GeomFromText('POINT(1 1)') AS p, year(d) AS y FROM t;",
    );
    let rows = place.rows("v").await.unwrap();
    assert_eq!(crate::server::row_count(&rows), 1);
    let shown = arrow::util::pretty::pretty_format_columns("x", &[std::sync::Arc::clone(rows[0].column(0))]).unwrap();
    assert!(shown.to_string().contains("| 2 |"), "{shown}");
}

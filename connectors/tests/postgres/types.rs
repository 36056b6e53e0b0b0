//! Every type: what the manual says it is read as, and values that are what the server itself prints.

use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::server::{Place, context, quoted, shared};

/// The types that tests and the manual's table name besides PostgreSQL's own.
const TYPES: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'Happy day');
     CREATE TYPE address AS (street text, number int4, \"Zip code\" numeric);
     CREATE DOMAIN positive AS int4 CHECK (VALUE > 0);
     CREATE DOMAIN price AS numeric(10, 2);
     CREATE DOMAIN dear AS price;
     CREATE DOMAIN numbers AS int4[];
     CREATE DOMAIN home AS address;
     CREATE TYPE span AS RANGE (subtype = float8);
     CREATE EXTENSION hstore; CREATE EXTENSION citext;";

#[tokio::test(flavor = "multi_thread")]
async fn the_manual_says_what_every_type_is_read_as() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/depots/postgresql.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, table) = page.split_once("## Types\n").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() > 20);
    let mut declared = Vec::new();
    let mut expected = Vec::new();
    for row in rows {
        for name in row[1].split('`').skip(1).step_by(2) {
            expected.push(format!("{name}: {}", row[2].trim_matches('`')));
            declared.push(name);
        }
    }
    let columns: Vec<String> = declared
        .iter()
        .enumerate()
        .map(|(position, name)| format!("c{position} {name}"))
        .collect();
    let place = shared()
        .database("manual", &format!("{TYPES} CREATE TABLE t ({})", columns.join(", ")))
        .await;
    let schema = place.table("t").await.schema();
    let found: Vec<String> = schema
        .fields()
        .iter()
        .zip(&declared)
        .map(|(field, name)| format!("{name}: {}", field.data_type()))
        .collect();
    assert_eq!(found, expected);
    assert!(place.rows("t").await.unwrap().is_empty());
}

/// Types, and values of them.
const VALUES: &[(&str, &[&str])] = &[
    ("bool", &["true", "false"]),
    ("int2", &["-32768", "32767", "0"]),
    ("int4", &["-2147483648", "2147483647"]),
    ("int8", &["-9223372036854775808", "9223372036854775807"]),
    ("oid", &["0", "4294967295"]),
    (
        "float4",
        &["1.5", "-0", "3.4028235e38", "1e-45", "NaN", "Infinity", "-Infinity"],
    ),
    (
        "float8",
        &[
            "0.1",
            "-0",
            "1.7976931348623157e308",
            "5e-324",
            "NaN",
            "Infinity",
            "-Infinity",
        ],
    ),
    (
        "numeric(38, 10)",
        &[
            "0",
            "-0.0000000001",
            "9999999999999999999999999999.9999999999",
            "10000",
            "0.0001",
            "12345.67890",
        ],
    ),
    (
        "numeric(38, 0)",
        &["99999999999999999999999999999999999999", "-1", "100000000"],
    ),
    (
        "numeric(38, 38)",
        &[
            "0.00000000000000000000000000000000000001",
            "-0.99999999999999999999999999999999999999",
        ],
    ),
    ("numeric(3, 5)", &["0.00999", "-0.00001"]),
    ("numeric(3, -2)", &["99900", "-100"]),
    ("numeric(1000, 5)", &["123456789012345678901234567890123.45678"]),
    (
        "numeric",
        &["1.5", "1e20", "0.0000000001", "-1234567890123456789012345678.0"],
    ),
    (
        "text",
        &[
            "",
            "a",
            "it''s \\ \"q\"",
            "é😀",
            "twelve chars",
            "thirteen char",
            "line\nbreak\ttab",
        ],
    ),
    ("varchar(5)", &["a ", "abcde"]),
    ("name", &["Name"]),
    ("\"char\"", &["x", ""]),
    ("bytea", &["", "\\x00ff5c27"]),
    (
        "date",
        &[
            "1970-01-01",
            "2000-01-01",
            "1969-12-31",
            "4713-01-01 BC",
            "5874897-12-31",
            "0001-01-01",
        ],
    ),
    ("time", &["00:00", "23:59:59.999999", "12:34:56.000001"]),
    ("timetz", &["12:00+02", "23:59:59.999999-11:30"]),
    (
        "timestamp",
        &[
            "1970-01-01",
            "1969-12-31 23:59:59.999999",
            "2000-01-01 00:00:00.000001",
            "4713-01-01 BC",
            "294246-12-31",
        ],
    ),
    (
        "timestamptz",
        &[
            "1970-01-01 00:00+00",
            "1969-12-31 23:59:59.999999+00",
            "2024-07-01 12:00+02",
            "0001-01-01 00:00+00",
        ],
    ),
    (
        "interval",
        &[
            "1 year 2 mons 3 days 04:05:06.789",
            "-1 day +00:00:00.000001",
            "0",
            "-178956970 years",
            "2562047 hours",
        ],
    ),
    (
        "uuid",
        &[
            "00000000-0000-0000-0000-000000000000",
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        ],
    ),
    ("json", &["{\"b\": 1,  \"a\": [null, \"é\"]}", "null"]),
    ("jsonb", &["{\"b\": 1,  \"a\": [null, \"é\"]}", "null"]),
    ("inet", &["10.0.0.1", "10.0.0.0/8", "::1"]),
    ("cidr", &["10.0.0.0/8"]),
    ("macaddr", &["08:00:2b:01:02:03"]),
    ("bit(5)", &["10101"]),
    ("varbit", &["1", ""]),
    ("money", &["-1234.56"]),
    ("xml", &["<a>b</a>"]),
    ("tsvector", &["a fat cat"]),
    ("point", &["(1.5,2)"]),
    ("int4range", &["[1,5)", "empty"]),
    ("tstzrange", &["[2024-01-01 00:00+02,)"]),
    ("int4multirange", &["{[1,3),[5,7)}"]),
    ("span", &["[1.5,2.5]"]),
    ("mood", &["sad", "Happy day"]),
    ("hstore", &["a=>1, b=>NULL"]),
    ("citext", &["MiXed"]),
    ("regclass", &["pg_class"]),
    ("pg_lsn", &["16/B374D848"]),
    ("positive", &["5"]),
    ("dear", &["12.34"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn values_are_what_the_server_prints() {
    let place = shared().database("printed", TYPES).await;
    for (position, (type_name, values)) in VALUES.iter().enumerate() {
        let table = format!("t{position}");
        let list: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(id, value)| {
                format!(
                    "({id}, '{}')",
                    if value.contains("''") {
                        (*value).to_owned()
                    } else {
                        value.replace('\'', "''")
                    }
                )
            })
            .collect();
        let many = values.len();
        let statements = format!(
            "CREATE TABLE {table} (id int4, v {type_name}); INSERT INTO {table} VALUES {}, ({many}, NULL); \
             GRANT SELECT ON {table} TO reader",
            list.join(", ")
        );
        place.admin.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
        place.admin.batch_execute(&statements).await.unwrap();
        let batches = place.rows(&table).await.unwrap();
        let rows = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
        assert_eq!(rows.num_rows(), many + 1, "{type_name}");
        let column = rows.column(1);
        for row in 0..rows.num_rows() {
            let id = rows.column(0).as_primitive::<arrow::datatypes::Int32Type>().value(row);
            let of_row = format!("FROM {table} WHERE id = {id}");
            if column.is_null(row) {
                assert_eq!(usize::try_from(id).unwrap(), many, "{type_name}");
                continue;
            }
            let same = compared(column.as_ref(), row, type_name);
            let is_same = place.ask::<Option<bool>>(&format!("SELECT {same} {of_row}")).await;
            assert_eq!(is_same, Some(true), "{type_name} {id}: {same}");
        }
    }
}

/// A question to the server: whether `v` is the value that was read.
fn compared(column: &dyn Array, row: usize, type_name: &str) -> String {
    let formatter = ArrayFormatter::try_new(column, &FormatOptions::default()).unwrap();
    let text = || formatter.value(row).to_string().replace('\'', "''");
    match column.data_type() {
        DataType::Utf8View => {
            let text = column.as_string_view().value(row).replace('\'', "''");
            // What is printed is the output of the type, which for `inet` is not what a conversion to text gives.
            format!("format('%s', v) COLLATE \"C\" = '{text}'")
        }
        DataType::Binary => format!("v = decode('{}', 'hex')", text()),
        DataType::Date32 => format!(
            "v - '1970-01-01'::date = {}",
            column.as_primitive::<Date32Type>().value(row)
        ),
        DataType::Time64(_) => {
            let value = column.as_primitive::<Time64MicrosecondType>().value(row);
            format!("extract(epoch FROM v) * 1000000 = {value}")
        }
        DataType::Timestamp(_, _) => {
            let value = column.as_primitive::<TimestampMicrosecondType>().value(row);
            format!("extract(epoch FROM v) * 1000000 = {value}")
        }
        DataType::Interval(_) => {
            let value = column.as_primitive::<IntervalMonthDayNanoType>().value(row);
            assert_eq!(value.nanoseconds % 1000, 0);
            let (seconds, microseconds) = (
                value.nanoseconds / 1_000_000_000,
                value.nanoseconds % 1_000_000_000 / 1000,
            );
            format!(
                "v::text = '{} months {} days {seconds} seconds {microseconds} microseconds'::interval::text",
                value.months, value.days
            )
        }
        DataType::Decimal128(_, _) => format!("'{}'::numeric = v", text()),
        // Equal numbers, and the same sign of zero.
        _ => format!("'{0}'::{type_name} = v AND '{0}'::{type_name}::text = v::text", text()),
    }
}

async fn shown(place: &Place, table: &str, column: usize) -> Vec<String> {
    let batches = place.rows(table).await.unwrap();
    let options = FormatOptions::default().with_null("NULL");
    batches
        .iter()
        .flat_map(|batch| {
            let formatter = ArrayFormatter::try_new(batch.column(column).as_ref(), &options).unwrap();
            (0..batch.num_rows())
                .map(|row| formatter.value(row).to_string())
                .collect::<Vec<_>>()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_rows_and_what_is_in_them_are_read() {
    let place = shared().database("lists", TYPES).await;
    for (position, (type_name, value, expected)) in [
        ("int4[]", "'{1,NULL,-3}'", "[1, NULL, -3]"),
        ("int4[]", "'{}'", "[]"),
        ("int4[]", "'[5:6]={7,8}'", "[7, 8]"),
        ("int4[]", "NULL", "NULL"),
        (
            "text[]",
            "ARRAY['a', '', NULL, 'it''s', 'more than twelve']",
            "[a, , NULL, it's, more than twelve]",
        ),
        ("numeric(5, 2)[]", "'{1.5,-0.01}'", "[1.50, -0.01]"),
        ("bytea[]", "ARRAY['\\x00ff'::bytea]", "[00ff]"),
        (
            "timestamptz[]",
            "ARRAY['1969-12-31 23:59:59.5+00'::timestamptz]",
            "[1969-12-31T23:59:59.500Z]",
        ),
        ("char(4)[]", "'{a,bc}'", "[a, bc]"),
        ("mood[]", "'{sad,\"Happy day\"}'", "[sad, Happy day]"),
        ("inet[]", "'{10.0.0.1}'", "[10.0.0.1]"),
        ("positive[]", "'{1,2}'", "[1, 2]"),
        ("numbers", "'{1,2}'", "[1, 2]"),
        ("numbers[]", "ARRAY['{1,2}'::numbers]", "[[1, 2]]"),
        (
            "address",
            "ROW('Main ''St''', 5, 1.50)",
            r#"{"number": 5, "street": "Main 'St'", "Zip code": 1.50}"#,
        ),
        (
            "address",
            "ROW(NULL, NULL, NULL)",
            r#"{"number": null, "street": null, "Zip code": null}"#,
        ),
        ("address", "NULL", "NULL"),
        (
            "home",
            "ROW('a', 1, 'NaN')",
            r#"{"number": 1, "street": "a", "Zip code": "NaN"}"#,
        ),
        (
            "address[]",
            "ARRAY[ROW('a', 1, 2)::address, NULL]",
            r#"[{"number": 1, "street": "a", "Zip code": 2}, null]"#,
        ),
        ("char(6)", "'a b'", "a b"),
        ("char(6)", "''", ""),
        ("bpchar", "'a  '", "a"),
    ]
    .into_iter()
    .enumerate()
    {
        let table = format!("t{position}");
        place
            .admin
            .batch_execute(&format!(
                "CREATE TABLE {table} (v {type_name}); INSERT INTO {table} VALUES ({value}); \
                 GRANT SELECT ON {table} TO reader"
            ))
            .await
            .unwrap();
        assert_eq!(shown(&place, &table, 0).await, [expected], "{type_name} {value}");
    }
}

/// What a server, a database or a user is set to makes no difference to what is read.
#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_server_make_no_difference() {
    let place = shared()
        .database(
            "settings",
            "CREATE TABLE t AS SELECT '2024-07-01 12:00+02'::timestamptz AS tz, '[2024-02-01 00:00+00,)'::tstzrange AS r,
                 '1 mon'::interval AS i, 0.1::float8 AS f, '\\x00'::bytea AS b, jsonb_build_object('t', '1 mon'::interval) AS j,
                 'a\\b' AS s, daterange('2024-02-01', NULL) AS d;
             ALTER DATABASE settings SET TimeZone = 'Asia/Tokyo';
             ALTER DATABASE settings SET DateStyle = 'German';
             ALTER DATABASE settings SET IntervalStyle = 'iso_8601';
             ALTER DATABASE settings SET extra_float_digits = -5;
             ALTER DATABASE settings SET bytea_output = 'escape';
             ALTER DATABASE settings SET standard_conforming_strings = off;
             ALTER DATABASE settings SET client_encoding = 'LATIN1';",
        )
        .await;
    let mut found = Vec::new();
    for column in 0..8 {
        found.extend(shown(&place, "t", column).await);
    }
    assert_eq!(
        found,
        [
            "2024-07-01T10:00:00Z",
            "[\"2024-02-01 00:00:00+00\",)",
            "1 mons",
            "0.1",
            "00",
            "{\"t\": \"1 mon\"}",
            "a\\b",
            "[2024-02-01,)"
        ]
    );
    let filter = datafusion::prelude::col("s").eq(datafusion::logical_expr::lit("a\\b"));
    let frame = place.frame("t").await.filter(filter).unwrap();
    assert_eq!(crate::server::row_count(&frame.collect().await.unwrap()), 1);
}

/// Texts of databases in other encodings arrive as they are meant.
#[tokio::test(flavor = "multi_thread")]
async fn other_encodings_are_read() {
    let place = shared()
        .database_with(
            "latin",
            "TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'",
            "CREATE TABLE t (id int4, s text); INSERT INTO t VALUES (1, chr(233)), (2, 'a')",
        )
        .await;
    assert_eq!(shown(&place, "t", 1).await, ["é", "a"]);
    // A text that has no form there is not sent there.
    for text in ["é", "😀"] {
        let filter = datafusion::prelude::col("s").eq(datafusion::logical_expr::lit(text));
        let frame = place.frame("t").await.filter(filter).unwrap();
        assert_eq!(
            crate::server::row_count(&frame.collect().await.unwrap()),
            usize::from(text == "é")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_columns_are_kept() {
    let names = [
        "Capital",
        "with space",
        "quo\"te",
        "apo'strophe",
        "ünï",
        "select",
        "t",
        "a.b",
        "semi;colon -- $1",
    ];
    let columns: Vec<String> = names.iter().map(|name| format!("{} int4", quoted(name))).collect();
    let place = shared()
        .database(
            "names",
            &format!("CREATE TABLE t ({}); INSERT INTO t DEFAULT VALUES", columns.join(", ")),
        )
        .await;
    let rows = place.rows("t").await.unwrap();
    let found: Vec<String> = rows[0]
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    assert_eq!(found, names);
}

/// Many tables are asked for in another way than one, and a few in another way than many.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_says_of_all_tables_what_each_says_of_itself() {
    let kinds = "a int8 NOT NULL, b numeric(9, 3), c numeric, d varchar(5), e char(4)[], f dear, g dear[], h numbers, i numbers[], j home, k mood, \
                 l positive NOT NULL, m address[], n span, o hstore, p citext, q timestamptz(3), r interval, s inet, t name, u \"char\", v int4[][]";
    let many: String = (0..60)
        .map(|n| format!("CREATE TABLE many{n} (n{n} int4, f dear);"))
        .collect();
    let place = shared()
        .database(
            "listing",
            &format!(
                "{TYPES} CREATE TABLE kinds ({kinds}); CREATE VIEW seen AS SELECT * FROM kinds; CREATE TABLE nothing (); \
                 CREATE TABLE \"quo\"\"te, {{}} \\\" (x int4, gone text, y text); ALTER TABLE \"quo\"\"te, {{}} \\\" DROP COLUMN gone; \
                 CREATE TABLE parent (id int4 NOT NULL, day date) PARTITION BY LIST (id); {many}"
            ),
        )
        .await;
    place.admin.batch_execute("CREATE TABLE closed (a int4)").await.unwrap();
    let source = place.source().await;
    let all = source.datasets("public").await.unwrap();
    assert!(all.len() > 60 && !all.contains(&"closed".to_owned()), "{all:?}");
    let session = context(&place.depots).state();
    for asked in [
        all.clone(),
        vec!["kinds".to_owned(), "no such table".to_owned()],
        Vec::new(),
    ] {
        let found = source.columns("public", &asked, &session).await.unwrap();
        assert_eq!(found.len(), asked.len());
        for (name, columns) in asked.iter().zip(found) {
            let table = place.find("public", name).await.unwrap();
            assert_eq!(columns.unwrap(), table.map(|table| table.schema()), "{name}");
        }
    }
    let nowhere = source.columns("no such schema", &all, &session).await.unwrap();
    assert!(nowhere.into_iter().all(|columns| columns.unwrap().is_none()));
}

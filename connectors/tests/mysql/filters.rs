//! What the server is asked to decide, and that it decides it as it is decided here.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int32Type;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{Expr, lit};
use datafusion::physical_plan::displayable;
use datafusion::prelude::{col, ident};

use crate::server::{Place, context, row_count, shared};

/// What a filter over a table keeps, when the server may decide it and when it may not, and whether it did.
async fn both_ways(
    place: &Place<'_>,
    there: &Arc<dyn TableProvider>,
    memory: &Arc<dyn TableProvider>,
    filter: &Expr,
) -> (Vec<i32>, Vec<i32>, bool) {
    let pushed = context(&place.depots)
        .read_table(Arc::clone(there))
        .unwrap()
        .filter(filter.clone())
        .unwrap();
    let plan = pushed.clone().create_physical_plan().await.unwrap();
    let was_pushed = !displayable(plan.as_ref())
        .indent(false)
        .to_string()
        .contains("FilterExec");
    let here = context(&place.depots).read_table(Arc::clone(memory)).unwrap();
    let here = here.filter(filter.clone()).unwrap();
    (ids(pushed).await, ids(here).await, was_pushed)
}

/// The table, and its rows in memory.
async fn twins(place: &Place<'_>, table: &str) -> (Arc<dyn TableProvider>, Arc<dyn TableProvider>, RecordBatch) {
    let there = place.table(table).await;
    let batches = place.rows(table).await.unwrap();
    let rows = arrow::compute::concat_batches(&there.schema(), &batches).unwrap();
    let memory = MemTable::try_new(there.schema(), vec![batches]).unwrap();
    (there, Arc::new(memory), rows)
}

async fn ids(frame: datafusion::dataframe::DataFrame) -> Vec<i32> {
    let batches = frame.select(vec![col("id")]).unwrap().collect().await.unwrap();
    let mut ids: Vec<i32> = batches
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<Int32Type>().values().to_vec())
        .collect();
    ids.sort_unstable();
    ids
}

/// Every comparison of every column with every value that is stored in it finds the same rows, whoever decides it.
async fn compare(place: &Place<'_>, table: &str, more: &[(&str, ScalarValue)]) -> (String, String) {
    let (remote, memory, rows) = twins(place, table).await;
    let (mut pushed, mut kept) = (Vec::new(), Vec::new());
    for (position, field) in rows.schema().fields().iter().enumerate() {
        let column = || ident(field.name());
        let mut constants: Vec<ScalarValue> = (0..rows.num_rows())
            .map(|row| ScalarValue::try_from_array(rows.column(position), row).unwrap())
            .filter(|value| !value.is_null())
            .collect();
        constants.extend(
            more.iter()
                .filter(|(name, _)| name == field.name())
                .map(|(_, value)| value.clone()),
        );
        let mut tried = vec![column().is_null(), column().is_not_null()];
        for constant in &constants {
            let constant = || lit(constant.clone());
            tried.extend([column().eq(constant()), column().not_eq(constant())]);
            tried.extend([column().lt(constant()), column().lt_eq(constant())]);
            tried.extend([column().gt(constant()), column().gt_eq(constant())]);
        }
        let list: Vec<Expr> = constants.iter().skip(1).map(|value| lit(value.clone())).collect();
        tried.push(column().in_list(list, false));
        for filter in tried {
            let (there, here, was_pushed) = both_ways(place, &remote, &memory, &filter).await;
            assert_eq!(there, here, "{filter}");
            if matches!(filter, Expr::IsNull(_) | Expr::IsNotNull(_)) {
                continue;
            }
            if was_pushed { &mut pushed } else { &mut kept }.push(field.name().clone());
        }
    }
    let names = |mut names: Vec<String>| {
        names.dedup();
        names.join(" ")
    };
    (names(pushed), names(kept))
}

#[tokio::test(flavor = "multi_thread")]
async fn pushed_filters_find_what_filters_here_find() {
    let place = shared().database(
        "filters",
        "SET time_zone = '+00:00';
         CREATE TABLE t (id int, i1 tinyint, u1 tinyint unsigned, i8 bigint, u8 bigint unsigned, f4 float, f8 double, n decimal(12, 3), big decimal(60, 20),
             b bit(1), bits bit(20), y year, d date, dn datetime(6) NOT NULL, dt datetime(3), ts timestamp(6) NULL, ti time(3), by_ varbinary(9), bi binary(3),
             e enum('sad', 'OK', 'Happy', 'ok2'), se set('b', 'a'), j json, u uuid, g point);
         INSERT INTO t VALUES
         (1, 1, 1, 1, 1, 1.5, 1.5, 1.5, 1.5, 1, 1, 2024, '2024-01-01', '2024-01-01', '2024-01-01', '2024-01-01', '12:00', 'a', 'a', 'sad', 'a', '1',
             '0b0e7e0a-0000-4000-8000-00000000000f', ST_GeomFromText('POINT(1 1)')),
         (2, -1, 0, -1, 0, -1.5, -0.001, -0.001, -0.001, 0, 0, 1901, '1969-12-31', '1969-12-31 23:59:59.999999', '1969-12-31 23:59:59.999',
             '1970-01-01 00:00:01.5', '-12:00', '', '', 'OK', 'b', '{}', '00000000-0000-0000-0000-000000000000', NULL),
         (3, 127, 255, 9223372036854775807, 18446744073709551615, 3.4028234e38, 1.7976931348623157e308, 999999999.999,
             9999999999999999999999999999999999999999.99999999999999999999, NULL, 1048575, 2155, '9999-12-31', '9999-12-31 23:59:59.999999',
             '9999-12-31 23:59:59.999', '2038-01-19 03:14:07.999999', '838:59:59', X'FF00', X'FF00FF', 'Happy', 'a,b', 'null', NULL, NULL),
         (4, -128, 7, -9223372036854775808, 9223372036854775808, 1.17549435e-38, 5e-324, 0, 0, 1, 524288, 0, '0001-01-01', '0001-01-01', '0001-01-01',
             '2000-02-29 12:00:00', '-838:59:59.999', X'00', X'000000', 'ok2', '', '[]', NULL, NULL),
         (5, 0, 5, 0, 5, 0, 0, 1.000, 1.000, 0, 5, 1970, '2000-02-29', '2000-02-29', '2000-02-29 12:00', '2000-02-29', '00:00:00.5', X'6100', X'6100', NULL, '',
             NULL, NULL, NULL),
         (6, 5, 9, 5, 9007199254740993, -0e0, -0e0, 2, 2, 1, 6, 2000, '2024-12-31', '2024-12-31', '2024-12-31', '2024-12-31', '24:00:00', 'a ', 'a ', NULL, NULL,
             NULL, NULL, NULL),
         (7, 7, 10, 9007199254740993, 9007199254740992, 0.1, 0.1, 3, 3, 1, 7, 2001, '2024-12-30', '2024-12-30', '2024-12-30', '2024-12-30', '24:00:01', 'A', 'A', NULL,
             NULL, NULL, NULL, NULL),
         (8, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2024-12-30', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);",
    );
    let moment = |micros| ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()));
    let more = [
        ("ts", moment(-5)),
        ("ts", moment(4_000_000_000_000_000)),
        ("y", ScalarValue::Int16(Some(24))),
        ("y", ScalarValue::Int16(Some(3000))),
        ("dt", ScalarValue::TimestampMicrosecond(Some(-1), None)),
        ("f4", ScalarValue::Float32(Some(f32::INFINITY))),
        ("f8", ScalarValue::Float64(Some(f64::NAN))),
        ("f8", ScalarValue::Float64(Some(f64::NEG_INFINITY))),
        ("e", ScalarValue::Utf8View(Some("ok".to_owned()))),
        ("by_", ScalarValue::Binary(Some(b"a  ".to_vec()))),
        ("bi", ScalarValue::Binary(Some(b"a".to_vec()))),
    ];
    let (pushed, kept) = compare(&place, "t", &more).await;
    // JSON is a text to MariaDB. `g IN ()` is nothing to ask anybody.
    assert_eq!(pushed, "id i1 u1 i8 u8 f4 f8 n big b bits y d dn dt ts by_ bi e se j g");
    // `b = true` is planned as `b`, which is no comparison.
    assert_eq!(kept, "f4 f8 b y ts ti u g");
}

/// Whatever a collation takes for equal, and in whatever order it has it, text is compared byte by byte.
#[tokio::test(flavor = "multi_thread")]
async fn collations_make_no_difference() {
    let columns = [
        ("ci", "varchar(30)", ""),
        ("general", "varchar(30)", "COLLATE utf8mb4_general_ci"),
        ("uca", "varchar(30)", "COLLATE utf8mb4_unicode_520_ci"),
        ("nopad", "varchar(30)", "COLLATE utf8mb4_nopad_bin"),
        ("bin", "varchar(30)", "COLLATE utf8mb4_bin"),
        (
            "german",
            "varchar(30)",
            "CHARACTER SET latin1 COLLATE latin1_german2_ci",
        ),
        (
            "three",
            "varchar(30)",
            "CHARACTER SET utf8mb3 COLLATE utf8mb3_swedish_ci",
        ),
        ("wide", "varchar(30)", "CHARACTER SET ucs2"),
        ("fixed", "char(30)", ""),
        ("fixed_bin", "char(30)", "COLLATE utf8mb4_bin"),
        ("long_", "text", ""),
    ];
    let declared: Vec<String> = columns
        .iter()
        .map(|(name, sort, collation)| format!("{name} {sort} {collation}"))
        .collect();
    let texts = [
        "",
        "a",
        "A",
        "a ",
        "a  ",
        "á",
        "ae",
        "ä",
        "ß",
        "ss",
        "b",
        "Z",
        "_",
        "z' OR 1=1 --",
        "\\",
        "a\\'b",
        "%",
        "a\tb",
        "€",
    ];
    let rows: Vec<String> = texts
        .iter()
        .enumerate()
        .map(|(id, text)| {
            let value = format!("CONVERT({} USING utf8mb4)", crate::server::hexadecimal(text.as_bytes()));
            format!("({id}, {})", vec![value; columns.len()].join(", "))
        })
        .collect();
    let place = shared().database(
        "collations",
        &format!(
            "SET NAMES utf8mb4; CREATE TABLE t (id int, {}, KEY (ci), KEY (german), KEY (three)); INSERT INTO t VALUES {}, (100{})",
            declared.join(", "),
            rows.join(", "),
            ", NULL".repeat(columns.len())
        ),
    );
    let mut more = Vec::new();
    for (name, _, _) in columns {
        for text in ["a\0", "😀", "Ä", "AE", "a   "] {
            more.push((name, ScalarValue::Utf8View(Some(text.to_owned()))));
        }
    }
    let (pushed, kept) = compare(&place, "t", &more).await;
    assert_eq!(
        pushed,
        "id ci general uca nopad bin german three wide fixed fixed_bin long_"
    );
    assert_eq!(kept, "");
}

/// An index finds what is asked for by its text.
#[tokio::test(flavor = "multi_thread")]
async fn equal_texts_are_found_by_an_index() {
    let place = shared().database(
        "indexed",
        "CREATE TABLE t (id int, name varchar(30), KEY (name)); INSERT INTO t SELECT seq, concat('name ', seq) FROM seq_1_to_20000; ANALYZE TABLE t;",
    );
    place.sql("FLUSH STATUS");
    let before =
        place.sql("SELECT sum(rows_read) FROM information_schema.table_statistics WHERE table_schema = 'indexed'");
    assert_eq!(before.trim(), "NULL");
    place.server.sql("mysql", "SET GLOBAL userstat = 1");
    for text in ["name 777", "NAME 777", "name 777 "] {
        let frame = place.frame("t").await.filter(col("name").eq(lit(text))).unwrap();
        let found = row_count(&frame.collect().await.unwrap());
        assert_eq!(found, usize::from(text == "name 777"), "{text}");
    }
    let read = place.sql(
        "SELECT coalesce(sum(rows_read), 0) FROM information_schema.table_statistics WHERE table_schema = 'indexed'",
    );
    place.server.sql("mysql", "SET GLOBAL userstat = 0");
    assert!(read.trim().parse::<u64>().unwrap() < 20, "{read}");
}

/// Parts that are together true, or of which one is.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_joined_as_they_are_here() {
    let place = shared().database(
        "joined",
        "CREATE TABLE t (id int, a int, s varchar(9)); INSERT INTO t VALUES (1, 1, 'x'), (2, 2, 'X'), (3, NULL, 'y'), (4, 4, NULL), (5, NULL, NULL)",
    );
    let (remote, memory, _) = twins(&place, "t").await;
    let (a, s) = (|| col("a"), || col("s"));
    for filter in [
        a().eq(lit(1)).or(s().eq(lit("X"))),
        a().eq(lit(1)).or(s().eq(lit("X"))).and(s().is_not_null()),
        s().eq(lit("X"))
            .and(a().gt(lit(1)))
            .or(a().is_null().and(s().eq(lit("y")))),
        a().between(lit(1), lit(3)).and(s().not_eq(lit("x"))),
        s().in_list(vec![lit("x"), lit("y")], false).or(a().lt(lit(0))),
    ] {
        let (there, here, was_pushed) = both_ways(&place, &remote, &memory, &filter).await;
        assert_eq!(there, here, "{filter}");
        assert!(was_pushed, "{filter}");
    }
}

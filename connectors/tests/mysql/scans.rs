//! Tables in, rows out.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int32Type, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::stats::Precision;
use datafusion::logical_expr::{TableType, lit};
use datafusion::prelude::ident;
use minerva_connectors::conformance::{self, Failure, Subject, TestServer};
use minerva_connectors::{Depots, ErrorKind};

use crate::server::{PASSWORD, Place, Server, context, depots_with, hexadecimal, quoted, row_count, shared};

/// A server of its own, and who watches it.
struct Private {
    server: Server,
}

#[async_trait::async_trait]
impl TestServer for Private {
    fn depots(&self, timeouts: &str) -> Arc<Depots> {
        let settings = format!(
            "host: 127.0.0.1, port: {}, params: {{sslmode: disable}}",
            self.server.port
        );
        depots_with(&settings, "reader", PASSWORD, &format!("  timeouts: {{{timeouts}}}\n"))
    }

    fn endless(&self) -> &str {
        "endless"
    }

    fn silent(&self) -> &str {
        "silent"
    }

    async fn is_working(&self) -> bool {
        let working = "SELECT count(*) FROM information_schema.processlist WHERE user = 'reader' AND command IN ('Execute', 'Query')";
        self.server.sql("mysql", working).trim() != "0"
    }

    fn stop(&mut self) {
        self.server.stop();
    }

    fn start(&mut self) {
        self.server.start_again();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_when_its_server_is_slow_or_gone() {
    let server = Server::start();
    let views = "CREATE VIEW endless AS SELECT seq AS id, repeat('x', 1000) AS s FROM seq_1_to_2000000000;
         CREATE VIEW silent AS SELECT sleep(1000) AS id;";
    let place = server.database("unsteady", views);
    let subject = subject(&place);
    drop(place);
    let failures = conformance::check_server(&subject, Some(&mut Private { server })).await;
    assert!(failures.is_empty(), "{}", Failure::all(&failures));
}

/// A database that is filled with the samples of the suite.
fn subject(place: &Place<'_>) -> Subject {
    let samples = conformance::samples().unwrap_or_else(|Failure(message)| panic!("{message}"));
    for sample in &samples {
        insert(place, &sample.name, &sample.rows);
    }
    Subject {
        depots: Arc::clone(&place.depots),
        depot: "db".to_owned(),
        collection: place.name.clone(),
        samples,
        writes: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let place = shared().database("conforms", "");
    let subject = subject(&place);
    let failures = conformance::check(&subject).await;
    assert!(failures.is_empty(), "{}", Failure::all(&failures));
    // What is not done is refused in so many words.
    let source = place.source().await;
    assert_eq!(
        source.refusal("INSERT").to_string(),
        "depot `db`: INSERT is not supported by depot type `mysql`"
    );
}

fn insert(place: &Place<'_>, table: &str, rows: &RecordBatch) {
    let schema = rows.schema();
    let declared = |data_type: &DataType| match data_type {
        DataType::Boolean => "bit(1)".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision}, {scale})"),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "datetime(6)".to_owned(),
        DataType::Binary => "blob".to_owned(),
        DataType::Utf8 => "longtext".to_owned(),
        other => panic!("{other}"),
    };
    let columns: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| format!("{} {}", quoted(field.name()), declared(field.data_type())))
        .collect();
    let mut sql = format!(
        "SET NAMES utf8mb4; CREATE TABLE {} ({});\n",
        quoted(table),
        columns.join(", ")
    );
    let mut rows_of_statement = 0;
    for row in 0..rows.num_rows() {
        let values: Vec<String> = rows
            .columns()
            .iter()
            .map(|column| value(column.as_ref(), row))
            .collect();
        let begin = match rows_of_statement {
            0 => format!("INSERT INTO {} VALUES ", quoted(table)),
            _ => ", ".to_owned(),
        };
        sql.push_str(&format!("{begin}({})", values.join(", ")));
        rows_of_statement += 1;
        if rows_of_statement == 1000 || row + 1 == rows.num_rows() {
            sql.push_str(";\n");
            rows_of_statement = 0;
        }
    }
    place.sql(&sql);
}

fn value(column: &dyn Array, row: usize) -> String {
    let any = column.as_any();
    if column.is_null(row) {
        "NULL".to_owned()
    } else if let Some(column) = any.downcast_ref::<BooleanArray>() {
        u8::from(column.value(row)).to_string()
    } else if let Some(column) = any.downcast_ref::<StringArray>() {
        format!("CONVERT({} USING utf8mb4)", hexadecimal(column.value(row).as_bytes()))
    } else if let Some(column) = any.downcast_ref::<BinaryArray>() {
        hexadecimal(column.value(row))
    } else {
        let formatter = ArrayFormatter::try_new(column, &FormatOptions::default()).unwrap();
        format!("'{}'", formatter.value(row).to_string().replace('T', " "))
    }
}

/// Databases and everything that can be read like a table, under whatever names.
#[tokio::test(flavor = "multi_thread")]
async fn every_sort_of_table_is_found_and_nothing_of_the_system() {
    let place = shared().database(
        "sorts",
        "CREATE TABLE plain (id int NOT NULL PRIMARY KEY); INSERT INTO plain VALUES (1), (2);
         CREATE VIEW `A View` AS SELECT id, id * 2 AS twice FROM plain;
         CREATE TABLE parted (id int, day date) PARTITION BY RANGE (year(day)) (PARTITION a VALUES LESS THAN (2025), PARTITION b VALUES LESS THAN MAXVALUE);
         INSERT INTO parted VALUES (1, '2024-05-01'), (2, '2025-05-01');
         CREATE TABLE isam (id int NOT NULL) ENGINE = MyISAM; INSERT INTO isam VALUES (1);
         CREATE TABLE aria (id int NOT NULL) ENGINE = Aria; INSERT INTO aria VALUES (1);
         CREATE TABLE comma (id int NOT NULL) ENGINE = CSV; INSERT INTO comma VALUES (1);
         CREATE TABLE versioned (id int) WITH SYSTEM VERSIONING; INSERT INTO versioned VALUES (1); UPDATE versioned SET id = 2;
         CREATE TABLE unseen (id int, secret int INVISIBLE DEFAULT 7, twice int AS (id * 2)); INSERT INTO unseen (id) VALUES (1);
         CREATE SEQUENCE numbers;
         CREATE TABLE `Tab.le 'x\" ä``b` (`Sp ace` int, `q``uo\"te` int, `ü` int, `select` int, `semi;colon -- ?` int);
         INSERT INTO `Tab.le 'x\" ä``b` VALUES (1, 2, 3, 4, 5);
         CREATE DATABASE `Sché``ma 1`; GRANT SELECT ON `Sché``ma 1`.* TO reader@'%'; CREATE TABLE `Sché``ma 1`.t AS SELECT 1 AS id;
         CREATE DATABASE unreachable; CREATE TABLE unreachable.t AS SELECT 1 AS id;",
    );
    let source = place.source().await;
    let collections = source.collections().await.unwrap();
    assert!(collections.contains(&"Sché`ma 1".to_owned()) && collections.contains(&"sorts".to_owned()));
    for hidden in [
        "mysql",
        "information_schema",
        "performance_schema",
        "sys",
        "unreachable",
    ] {
        assert!(!collections.contains(&hidden.to_owned()), "{collections:?}");
        assert!(source.datasets(hidden).await.unwrap().is_empty(), "{hidden}");
    }
    assert_eq!(
        source.datasets("sorts").await.unwrap(),
        [
            "A View",
            "Tab.le 'x\" ä`b",
            "aria",
            "comma",
            "isam",
            "parted",
            "plain",
            "unseen",
            "versioned"
        ]
    );
    for (table, rows) in [
        ("A View", 2),
        ("aria", 1),
        ("comma", 1),
        ("isam", 1),
        ("parted", 2),
        ("plain", 2),
        ("unseen", 1),
        ("versioned", 1),
    ] {
        assert_eq!(row_count(&place.rows(table).await.unwrap()), rows, "{table}");
    }
    assert_eq!(place.table("A View").await.table_type(), TableType::View);
    assert_eq!(place.table("plain").await.table_type(), TableType::Base);
    // Nobody sees to it that others keep what is declared here.
    for (table, nullable) in [("plain", false), ("isam", false), ("A View", true), ("comma", true)] {
        assert_eq!(
            place.table(table).await.schema().field(0).is_nullable(),
            nullable,
            "{table}"
        );
    }
    assert_eq!(place.table("unseen").await.schema().fields().len(), 3);

    let odd = place.find("sorts", "Tab.le 'x\" ä`b").await.unwrap().unwrap();
    let frame = context(&place.depots).read_table(odd).unwrap();
    let frame = frame.filter(ident("q`uo\"te").eq(lit(2_i32))).unwrap();
    let batches = frame.select(vec![ident("ü"), ident("semi;colon -- ?")]).unwrap();
    let batches = batches.collect().await.unwrap();
    assert_eq!(batches[0].column(0).as_primitive::<Int32Type>().value(0), 3);
    assert_eq!(batches[0].column(1).as_primitive::<Int32Type>().value(0), 5);

    for (database, table) in [
        ("sorts", "PLAIN"),
        ("sorts", "plain "),
        ("SORTS", "plain"),
        ("mysql", "user"),
        ("MySQL", "user"),
        ("information_schema", "TABLES"),
        ("sorts", "numbers"),
        ("sorts", "no\0name"),
        ("sorts", "😀"),
        ("sorts", ""),
        ("sorts", "pl%"),
        ("sorts", "' OR 1=1 -- \\"),
        ("unreachable", "t"),
        ("sorts", &"x".repeat(100)),
    ] {
        assert!(
            place.find(database, table).await.unwrap().is_none(),
            "{database} {table}"
        );
    }
}

/// Many tables are asked for in another way than one, and a few in another way than many.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_says_of_all_tables_what_each_says_of_itself() {
    let many: String = (0..60)
        .map(|n| format!("CREATE TABLE many{n} (n{n} int, f decimal(5, 2));"))
        .collect();
    let place = shared().database(
        "listing",
        &format!(
            "{many} CREATE TABLE kinds (a bigint unsigned NOT NULL, b decimal(65, 30), c date NOT NULL, d enum('x'), e point, f bit(3), g json);
             CREATE VIEW seen AS SELECT * FROM kinds; CREATE TABLE `quo``te ' \\\\` (x int);
             CREATE TABLE base (id int); CREATE VIEW broken AS SELECT id FROM base; DROP TABLE base;"
        ),
    );
    let source = place.source().await;
    let all = source.datasets("listing").await.unwrap();
    assert!(all.len() > 60 && all.contains(&"broken".to_owned()), "{all:?}");
    let session = context(&place.depots).state();
    for asked in [
        all.clone(),
        vec!["kinds".to_owned(), "no such table".to_owned(), "\0".to_owned()],
        vec!["broken".to_owned(), "many1".to_owned()],
        Vec::new(),
    ] {
        let found = source.columns("listing", &asked, &session).await.unwrap();
        assert_eq!(found.len(), asked.len());
        for (name, columns) in asked.iter().zip(found) {
            match place.find("listing", name).await {
                Ok(table) => assert_eq!(columns.unwrap(), table.map(|table| table.schema()), "{name}"),
                // One that is broken says so, and only of itself.
                Err(error) => {
                    assert_eq!((name.as_str(), error.kind), ("broken", ErrorKind::Corrupt), "{error}");
                    assert_eq!(columns.unwrap_err(), error);
                }
            }
        }
    }
    let nowhere = source.columns("no such database", &all, &session).await.unwrap();
    assert!(nowhere.into_iter().all(|columns| columns.unwrap().is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_guessed() {
    let place = shared().database(
        "guesses",
        "CREATE TABLE known (id int) ENGINE = MyISAM; INSERT INTO known VALUES (1), (2), (3);
         CREATE TABLE none (id int); CREATE VIEW v AS SELECT * FROM known;",
    );
    for (table, expected) in [
        ("known", Precision::Inexact(3)),
        ("none", Precision::Absent),
        ("v", Precision::Absent),
    ] {
        let found = place.table(table).await.statistics().unwrap().num_rows;
        assert_eq!(found, expected, "{table}");
    }
}

/// What a server or a session is set to makes no difference to what is read, and neither does what a function of a view has set.
#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_server_make_no_difference() {
    let place = shared().database(
        "settings",
        "CREATE TABLE t (id int NOT NULL AUTO_INCREMENT PRIMARY KEY, s varchar(20), ts timestamp NULL);
         SET time_zone = '+00:00'; SET sql_mode = 'NO_BACKSLASH_ESCAPES';
         INSERT INTO t (s, ts) VALUES ('a\\b', '2024-07-01 10:00:00'), ('', '2024-07-01 10:00:00');
         DELIMITER //
         CREATE FUNCTION meddle() RETURNS int SQL SECURITY INVOKER BEGIN
             SET SESSION time_zone = '+09:00'; SET SESSION sql_mode = 'EMPTY_STRING_IS_NULL,PAD_CHAR_TO_FULL_LENGTH';
             SET SESSION sql_select_limit = 1; SET SESSION character_set_results = latin1; RETURN 1;
         END //
         DELIMITER ;
         CREATE VIEW meddling AS SELECT meddle() AS m;
         GRANT EXECUTE ON FUNCTION meddle TO reader@'%';",
    );
    let shown = async || {
        let batches = place.rows("t").await.unwrap();
        arrow::util::pretty::pretty_format_batches(&batches)
            .unwrap()
            .to_string()
    };
    let before = shown().await;
    assert!(
        before.contains("2024-07-01T10:00:00Z") && before.contains("a\\b"),
        "{before}"
    );
    for _ in 0..3 {
        assert_eq!(row_count(&place.rows("meddling").await.unwrap()), 1);
        assert_eq!(shown().await, before);
    }
    let filter = ident("s").eq(lit("a\\b"));
    let frame = place.frame("t").await.filter(filter).unwrap();
    assert_eq!(row_count(&frame.collect().await.unwrap()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_a_way_too() {
    let place = shared().database("socket", "CREATE TABLE t AS SELECT 1 AS id");
    let settings = format!("host: {}", shared().socket());
    let depots = crate::server::depots(&settings, "reader", PASSWORD);
    let source = depots.open("db").await.unwrap();
    assert_eq!(source.datasets("socket").await.unwrap(), ["t"]);
    assert_eq!(row_count(&place.rows("t").await.unwrap()), 1);
}

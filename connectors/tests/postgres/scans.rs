//! Tables in, rows out; what PostgreSQL is asked to do by itself, and what not.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int32Type, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::ScalarValue;
use datafusion::common::stats::Precision;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{Expr, TableType, lit};
use datafusion::physical_plan::{displayable, execute_stream};
use datafusion::prelude::{col, ident};
use futures::StreamExt;
use minerva_connectors::conformance::{self, Failure, Subject, TestServer};
use minerva_connectors::{Depots, ErrorKind, ScanExec, decode_scan, encode_scan};

use crate::server::{PASSWORD, Place, Server, context, depots_with, quoted, row_count, shared};

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let place = shared().database("conforms", "").await;
    let subject = subject(&place).await;
    let failures = conformance::check(&subject).await;
    assert!(failures.is_empty(), "{}", Failure::all(&failures));
}

/// A server of its own, and who watches it.
struct Private {
    server: Server,
}

#[async_trait::async_trait]
impl TestServer for Private {
    fn depots(&self, timeouts: &str) -> Arc<Depots> {
        let settings = format!(
            "host: 127.0.0.1, port: {}, database: unsteady, params: {{sslmode: disable}}",
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
        let admin = self.server.admin("unsteady").await;
        let working = "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'reader' AND state = 'active'";
        admin.query_one(working, &[]).await.unwrap().get(0)
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
    let views = "CREATE VIEW endless AS SELECT generate_series(1, 2000000000) AS id, repeat('x', 1000) AS s;
         CREATE VIEW silent AS SELECT 1 AS id FROM pg_sleep(1000)";
    let place = server.database("unsteady", views).await;
    let subject = subject(&place).await;
    let failures = conformance::check_server(&subject, Some(&mut Private { server })).await;
    assert!(failures.is_empty(), "{}", Failure::all(&failures));
}

/// A database that is filled with the samples of the suite.
pub(crate) async fn subject(place: &Place) -> Subject {
    let samples = conformance::samples().unwrap_or_else(|Failure(message)| panic!("{message}"));
    for sample in &samples {
        insert(place, &sample.name, &sample.rows).await;
    }
    place
        .admin
        .batch_execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader; GRANT CREATE ON SCHEMA public TO reader")
        .await
        .unwrap();
    Subject {
        depots: Arc::clone(&place.depots),
        depot: "db".to_owned(),
        collection: "public".to_owned(),
        samples,
        writes: true,
    }
}

async fn insert(place: &Place, table: &str, rows: &RecordBatch) {
    let schema = rows.schema();
    let declared = |data_type: &DataType| match data_type {
        DataType::Boolean => "bool".to_owned(),
        DataType::Int64 => "int8".to_owned(),
        DataType::Float64 => "float8".to_owned(),
        DataType::Decimal128(precision, scale) => format!("numeric({precision}, {scale})"),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp".to_owned(),
        DataType::Binary => "bytea".to_owned(),
        DataType::Utf8 => "text".to_owned(),
        other => panic!("{other}"),
    };
    let columns: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| format!("{} {}", quoted(field.name()), declared(field.data_type())))
        .collect();
    let create = format!("CREATE TABLE {} ({})", quoted(table), columns.join(", "));
    place.admin.batch_execute(&create).await.unwrap();
    let mut text = String::new();
    for row in 0..rows.num_rows() {
        let values: Vec<String> = rows
            .columns()
            .iter()
            .map(|column| value(column.as_ref(), row))
            .collect();
        text.push_str(&values.join("\t"));
        text.push('\n');
    }
    place.fill(&quoted(table), text).await;
}

fn value(column: &dyn Array, row: usize) -> String {
    let any = column.as_any();
    if column.is_null(row) {
        "\\N".to_owned()
    } else if let Some(column) = any.downcast_ref::<BooleanArray>() {
        column.value(row).to_string()
    } else if let Some(column) = any.downcast_ref::<StringArray>() {
        let text = column.value(row).replace('\\', "\\\\");
        text.replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r")
    } else if let Some(column) = any.downcast_ref::<BinaryArray>() {
        let digits: Vec<String> = column.value(row).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("\\\\x{}", digits.concat())
    } else {
        let formatter = ArrayFormatter::try_new(column, &FormatOptions::default()).unwrap();
        formatter.value(row).to_string()
    }
}

/// Schemas and everything that can be read like a table, under whatever names.
#[tokio::test(flavor = "multi_thread")]
async fn every_sort_of_table_is_found_and_nothing_of_the_system() {
    let place = shared()
        .database(
            "sorts",
            "CREATE TABLE plain (id int4); INSERT INTO plain VALUES (1), (2);
             CREATE VIEW \"A View\" AS SELECT id, id * 2 AS twice FROM plain;
             CREATE MATERIALIZED VIEW kept AS SELECT * FROM plain;
             CREATE TABLE parted (id int4, day date) PARTITION BY RANGE (day);
             CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
             CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
             INSERT INTO parted VALUES (1, '2024-05-01'), (2, '2025-05-01');
             CREATE TABLE parent (id int4); CREATE TABLE child (more int4) INHERITS (parent);
             INSERT INTO child VALUES (5, 6);
             CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES;
             CREATE INDEX by_id ON plain (id); CREATE SEQUENCE numbers;
             CREATE SCHEMA \"Sché\"\"ma 1\"; GRANT USAGE ON SCHEMA \"Sché\"\"ma 1\" TO reader;
             CREATE TABLE \"Sché\"\"ma 1\".\"Tab.le 'x'\" (\"Sp ace\" int4, \"q\"\"uote\" int4, \"ü\" int4);
             INSERT INTO \"Sché\"\"ma 1\".\"Tab.le 'x'\" VALUES (1, 2, 3);
             GRANT SELECT ON ALL TABLES IN SCHEMA \"Sché\"\"ma 1\" TO reader;
             CREATE SCHEMA hidden; CREATE TABLE hidden.t (id int4);
             CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;",
        )
        .await;
    let csv = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(csv.path(), "7,seven\n8,eight\n").unwrap();
    std::fs::set_permissions(csv.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    place
        .admin
        .batch_execute(&format!(
            "CREATE FOREIGN TABLE foreign_one (id int4 NOT NULL, name text) SERVER files \
             OPTIONS (filename '{}', format 'csv'); GRANT SELECT ON foreign_one TO reader",
            csv.path().display()
        ))
        .await
        .unwrap();
    let source = place.source().await;
    assert_eq!(source.collections().await.unwrap(), ["Sché\"ma 1", "public"]);
    assert_eq!(
        source.datasets("public").await.unwrap(),
        [
            "A View",
            "child",
            "foreign_one",
            "kept",
            "nothing",
            "parent",
            "parted",
            "parted_1",
            "parted_2",
            "plain"
        ]
    );
    assert_eq!(source.datasets("Sché\"ma 1").await.unwrap(), ["Tab.le 'x'"]);
    assert!(source.datasets("pg_catalog").await.unwrap().is_empty());
    assert!(source.datasets("information_schema").await.unwrap().is_empty());

    for (table, rows) in [
        ("A View", 2),
        ("child", 1),
        ("foreign_one", 2),
        ("kept", 2),
        ("nothing", 1),
        ("parent", 1),
        ("parted", 2),
        ("parted_2", 1),
        ("plain", 2),
    ] {
        assert_eq!(row_count(&place.rows(table).await.unwrap()), rows, "{table}");
    }
    assert_eq!(place.table("A View").await.table_type(), TableType::View);
    assert_eq!(place.table("kept").await.table_type(), TableType::Base);
    assert!(place.table("foreign_one").await.schema().field(0).is_nullable());

    let odd = place.find("Sché\"ma 1", "Tab.le 'x'").await.unwrap().unwrap();
    let frame = context(&place.depots).read_table(odd).unwrap();
    let frame = frame.filter(ident("q\"uote").eq(lit(2_i32))).unwrap();
    let batches = frame.select(vec![ident("ü")]).unwrap().collect().await.unwrap();
    assert_eq!(batches[0].column(0).as_primitive::<Int32Type>().value(0), 3);

    for (schema, table) in [
        ("public", "PLAIN"),
        ("pg_catalog", "pg_class"),
        ("public", "by_id"),
        ("public", "numbers"),
        ("public", "no\0name"),
        ("public", &"x".repeat(100)),
    ] {
        assert!(place.find(schema, table).await.unwrap().is_none(), "{table}");
    }
    assert_eq!(place.find("hidden", "t").await.unwrap_err().kind, ErrorKind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_guessed_from_what_was_analyzed() {
    let place = shared()
        .database(
            "guesses",
            "CREATE TABLE known AS SELECT generate_series(1, 1000) AS id; ANALYZE known;
             CREATE TABLE unknown AS SELECT 1 AS id; CREATE VIEW v AS SELECT * FROM known;",
        )
        .await;
    for (table, expected) in [
        ("known", Precision::Inexact(1000)),
        ("unknown", Precision::Absent),
        ("v", Precision::Absent),
    ] {
        let found = place.table(table).await.statistics().unwrap().num_rows;
        assert_eq!(found, expected, "{table}");
    }
}

/// What a filter over a table keeps, when PostgreSQL may decide it and when it may not, and whether it did.
async fn both_ways(place: &Place, table: &str, filter: &Expr) -> (Vec<String>, Vec<String>, bool) {
    let pushed = place.frame(table).await.filter(filter.clone()).unwrap();
    let plan = pushed.clone().create_physical_plan().await.unwrap();
    let was_pushed = !displayable(plan.as_ref())
        .indent(false)
        .to_string()
        .contains("FilterExec");
    let batches = place.rows(table).await.unwrap();
    let schema = place.table(table).await.schema();
    let memory = MemTable::try_new(schema, vec![batches]).unwrap();
    let here = context(&place.depots).read_table(Arc::new(memory)).unwrap();
    let here = here.filter(filter.clone()).unwrap();
    (ids(pushed).await, ids(here).await, was_pushed)
}

async fn ids(frame: datafusion::dataframe::DataFrame) -> Vec<String> {
    let batches = frame.select(vec![col("id")]).unwrap().collect().await.unwrap();
    let mut ids: Vec<String> = batches
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<Int32Type>().values().to_vec())
        .map(|id| id.to_string())
        .collect();
    ids.sort();
    ids
}

/// Every comparison of every column with every value that is stored in it finds the same rows, whoever decides it.
#[tokio::test(flavor = "multi_thread")]
async fn pushed_filters_find_what_filters_here_find() {
    let place = shared()
        .database_with(
            "filters",
            "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C.UTF-8'",
            "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
             CREATE TYPE mood AS ENUM ('sad', 'ok', 'Happy', 'back\\slash');
             CREATE DOMAIN positive AS int4 CHECK (VALUE > 0);
             CREATE TABLE t (id int4, b bool, i2 int2, i4 int4, i8 int8, o oid, f4 float4, f8 float8, n numeric(12, 3),
                 free numeric, s text, v varchar(20), c char(6), ci text COLLATE blind, by bytea, d date, ti time,
                 ts timestamp, tz timestamptz, u uuid, m mood, p positive, j jsonb, a int4[], iv interval);
             INSERT INTO t VALUES
             (1, true, 1, 1, 1, 1, 1.5, 1.5, 1.5, 1.5, 'a', 'a', 'a', 'a', '\\x61', '2024-01-01', '12:00', '2024-01-01',
                 '2024-01-01', '0b0e7e0a-0000-4000-8000-00000000000f', 'sad', 1, '1', '{1}', '1 day'),
             (2, false, -1, -1, -1, 4294967295, -1.5, -1.5, -0.001, -0.001, 'A', 'A', 'A', 'A', '\\x', '1969-12-31',
                 '00:00', '1969-12-31 23:59:59.999999', '1969-12-31 23:59:59.999999+00',
                 '00000000-0000-0000-0000-000000000000', 'ok', 2, '{}', '{}', '24 hours'),
             (3, NULL, 32767, 2147483647, 9223372036854775807, 7, 'NaN', 'NaN', 999999999.999, 1234567890.0123456789,
                 'é', 'é', 'é', 'É', '\\xff00', '9999-12-31', '23:59:59.999999', '9999-12-31 23:59:59.999999',
                 '9999-12-31 23:59:59.999999+00', 'ffffffff-ffff-ffff-ffff-ffffffffffff', 'Happy', 3, 'null', '{2,3}',
                 '1 mon'),
             (4, true, -32768, -2147483648, -9223372036854775808, 0, 'Infinity', '-Infinity', 0, 0,
                 'b \\'' OR 1=1 --', 'b \\'' OR', 'b ''', 'B', '\\x00', '0001-01-01', '01:02:03.000004', '0001-01-01',
                 '0001-01-01 00:00+00', 'ffffffff-0000-4000-8000-000000000000', 'back\\slash', 4, '[]', NULL, '30 days'),
             (5, false, 0, 0, 0, 5, 0, 0, 1.000, 1.000, '', '', '', '', '\\x6100', '2000-02-29', '12:00:00.5',
                 '2000-02-29', '2000-02-29', NULL, NULL, NULL, NULL, NULL, NULL),
             (6, true, 5, 5, 5, 6, '-0', '-0', 2, 2, 'a ', 'a ', 'b', 'a ', '\\x7a', '2024-12-31', '12:01', '2024-12-31',
                 '2024-12-31', NULL, NULL, 6, NULL, NULL, NULL),
             (7, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                 NULL, NULL, NULL, NULL, NULL, NULL, NULL);",
        )
        .await;
    let batches = place.rows("t").await.unwrap();
    let rows = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    assert_eq!(rows.num_rows(), 7);
    let (mut pushed, mut kept) = (Vec::new(), Vec::new());
    for (position, field) in rows.schema().fields().iter().enumerate() {
        let column = || ident(field.name());
        let constants: Vec<ScalarValue> = (0..rows.num_rows())
            .map(|row| ScalarValue::try_from_array(rows.column(position), row).unwrap())
            .filter(|value| !value.is_null())
            .collect();
        let mut filters = vec![column().is_null(), column().is_not_null()];
        for constant in &constants {
            let constant = || lit(constant.clone());
            filters.extend([column().eq(constant()), column().not_eq(constant())]);
            filters.extend([column().lt(constant()), column().lt_eq(constant())]);
            filters.extend([column().gt(constant()), column().gt_eq(constant())]);
        }
        let list: Vec<Expr> = constants.iter().skip(1).map(|value| lit(value.clone())).collect();
        filters.push(column().in_list(list, false));
        for filter in filters {
            let (there, here, was_pushed) = both_ways(&place, "t", &filter).await;
            assert_eq!(there, here, "{filter}");
            if was_pushed { &mut pushed } else { &mut kept }.push((field.name().clone(), filter));
        }
    }
    let names = |filters: &[(String, Expr)], of: &dyn Fn(&Expr) -> bool| {
        let mut names: Vec<String> = filters
            .iter()
            .filter(|(_, filter)| of(filter))
            .map(|(name, _)| name.clone())
            .collect();
        names.dedup();
        names.join(" ")
    };
    let is_null_test = |filter: &Expr| matches!(filter, Expr::IsNull(_) | Expr::IsNotNull(_));
    assert_eq!(
        names(&pushed, &|filter| !is_null_test(filter)),
        "id b i2 i4 i8 o f4 f8 n free s v c ci by d ti ts tz u m p"
    );
    // `b = true` is planned as `b`, which is no comparison.
    assert_eq!(names(&kept, &|filter| !is_null_test(filter)), "b f4 f8 j a iv");
    assert_eq!(names(&kept, &is_null_test), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_texts_are_values_and_nothing_else() {
    let place = shared()
        .database(
            "hostile",
            "CREATE TABLE t (id int4, s text, c char(20), m bytea); INSERT INTO t VALUES (1, 'x', 'x', 'x')",
        )
        .await;
    for text in [
        "'",
        "''",
        "\\",
        "\\'",
        "\\' OR 1=1 --",
        "x'; DROP TABLE t; --",
        "$$",
        "E'\\''",
        "\u{0}",
        "\u{ffff}\u{1f600}",
        "%_",
        "/*",
    ] {
        for column in ["s", "c"] {
            let filter = ident(column)
                .eq(lit(text))
                .or(ident(column).gt(lit(text)).and(lit(false)));
            let (there, here, _) = both_ways(&place, "t", &filter).await;
            assert_eq!((there.len(), here.len()), (0, 0), "{text:?}");
        }
        place
            .admin
            .execute(
                "INSERT INTO t VALUES (2, $1::text, $1::text, NULL)",
                &[&text.replace('\0', "")],
            )
            .await
            .unwrap();
        let filter = ident("s").eq(lit(text.replace('\0', "")));
        let (there, here, was_pushed) = both_ways(&place, "t", &filter).await;
        assert_eq!((there.len(), here.len(), was_pushed), (1, 1, true), "{text:?}");
        place.admin.batch_execute("DELETE FROM t WHERE id = 2").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_filters_and_limit_are_asked_of_the_server() {
    let place = shared()
        .database(
            "asked",
            "CREATE TABLE t AS SELECT i AS id, 'row ' || i AS name FROM generate_series(1, 50000) i;
             CREATE VIEW seen AS SELECT query FROM pg_stat_activity WHERE query LIKE 'COPY%';",
        )
        .await;
    let frame = place.frame("t").await;
    let frame = frame.filter(col("id").gt(lit(10_i32)).and(col("name").not_eq(lit("row 12"))));
    let frame = frame
        .unwrap()
        .select(vec![col("name")])
        .unwrap()
        .limit(0, Some(3))
        .unwrap();
    let plan = frame.create_physical_plan().await.unwrap();
    let text = displayable(plan.as_ref()).indent(false).to_string();
    assert_eq!(
        text.trim(),
        "ScanExec: address=dataos://db:public/t, columns=[name], filters=[id > 10, name <> row 12], limit=3"
    );
    // It travels without a word about the server, and reads the same on the other side.
    let scan = plan.downcast_ref::<ScanExec>().unwrap();
    let bytes = encode_scan(scan).unwrap();
    let sent = String::from_utf8_lossy(&bytes);
    assert!(!sent.contains("127.0.0.1") && !sent.contains("reader"), "{sent}");
    let session = context(&place.depots);
    let received = Arc::new(decode_scan(&bytes).unwrap());
    let batches = datafusion::physical_plan::collect(received, session.task_ctx())
        .await
        .unwrap();
    assert_eq!(row_count(&batches), 3);
    // Somewhere else the depot is opened anew.
    let elsewhere = shared().depots(
        "asked",
        "127.0.0.1",
        "sslmode: disable",
        "reader",
        crate::server::PASSWORD,
    );
    let received = Arc::new(decode_scan(&bytes).unwrap());
    let batches = datafusion::physical_plan::collect(received, context(&elsewhere).task_ctx())
        .await
        .unwrap();
    assert_eq!(row_count(&batches), 3);
}

/// A connection serves one query after another, and a whole result leaves it ready. Questions to the catalogue have one of their own.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_used_again() {
    let place = shared()
        .database("again", "CREATE TABLE t AS SELECT generate_series(1, 20000) AS id")
        .await;
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'again' AND usename = 'reader'";
    for _ in 0..20 {
        assert_eq!(row_count(&place.rows("t").await.unwrap()), 20_000);
        let few = place
            .frame("t")
            .await
            .limit(0, Some(7))
            .unwrap()
            .collect()
            .await
            .unwrap();
        assert_eq!(row_count(&few), 7);
    }
    assert_eq!(place.ask::<i64>(connections).await, 2);
    // Nothing is left open that would keep old rows or locks.
    place
        .until("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'again' AND state LIKE 'idle in%')")
        .await;
    // Many at a time, and then few are kept.
    let reading = (0..20).map(|_| place.rows("t"));
    for rows in futures::future::join_all(reading).await {
        assert_eq!(row_count(&rows.unwrap()), 20_000);
    }
    place.until(&format!("SELECT ({connections}) <= 8")).await;
}

/// Several results of one depot, read in turns, do not wait for each other.
#[tokio::test(flavor = "multi_thread")]
async fn results_are_read_side_by_side() {
    let place = shared()
        .database("beside", "CREATE TABLE t AS SELECT generate_series(1, 300000) AS id")
        .await;
    let session = context(&place.depots);
    let plan = place.frame("t").await.create_physical_plan().await.unwrap();
    let mut streams: Vec<_> = (0..4)
        .map(|_| execute_stream(Arc::clone(&plan), session.task_ctx()).unwrap())
        .collect();
    let mut rows = [0; 4];
    loop {
        let mut ended = true;
        for (stream, rows) in streams.iter_mut().zip(&mut rows) {
            if let Some(batch) = stream.next().await {
                *rows += batch.unwrap().num_rows();
                ended = false;
            }
        }
        if ended {
            break;
        }
    }
    assert_eq!(rows, [300_000; 4]);
}

//! The `sqlite` depot through its public face, on databases that the tests make.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::logical_expr::{col, lit};
use datafusion::physical_plan::{ExecutionPlan, displayable, execute_stream};
use futures::StreamExt;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use crate::conformance::{self, Failure, Subject};
use crate::testing::{depots, rows, session, table};
use crate::{Depots, Error, ErrorKind};

const MANIFEST: &str =
    "name: crm\nversion: v2alpha\ntype: depot\ndepot:\n  type: sqlite\n  sqlite:\n    path: crm.db\n";

/// A depot over a database that these statements make.
fn depot(folder: &Path, statements: &str) -> Arc<Depots> {
    Connection::open(folder.join("crm.db"))
        .unwrap()
        .execute_batch(statements)
        .unwrap();
    depots(folder, MANIFEST)
}

async fn failure(depots: &Arc<Depots>, dataset: &str) -> Error {
    let error = rows(depots, "crm", "main", dataset).await.unwrap_err();
    Error::find(&error).unwrap_or_else(|| panic!("{error}")).clone()
}

#[tokio::test]
async fn conforms() {
    let folder = tempfile::tempdir().unwrap();
    let samples = conformance::samples().unwrap_or_else(|Failure(message)| panic!("{message}"));
    let connection = Connection::open(folder.path().join("crm.db")).unwrap();
    for sample in &samples {
        insert(&connection, &sample.name, &sample.rows);
    }
    let subject = Subject {
        depots: depots(folder.path(), MANIFEST),
        depot: "crm".to_owned(),
        collection: "main".to_owned(),
        samples,
        writes: true,
    };
    let mut failures = conformance::check(&subject).await;
    failures.extend(conformance::check_server(&subject, None).await);
    assert!(failures.is_empty(), "{}", Failure::all(&failures));
}

fn insert(connection: &Connection, table: &str, rows: &RecordBatch) {
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let schema = rows.schema();
    let columns: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| format!("{} {}", quote(field.name()), declared(field.data_type())))
        .collect();
    connection
        .execute_batch(&format!(
            "CREATE TABLE {} ({}); BEGIN",
            quote(table),
            columns.join(", ")
        ))
        .unwrap();
    let places = vec!["?"; columns.len()].join(", ");
    let mut statement = connection
        .prepare(&format!("INSERT INTO {} VALUES ({places})", quote(table)))
        .unwrap();
    for row in 0..rows.num_rows() {
        statement
            .execute(params_from_iter(
                rows.columns().iter().map(|column| value(column.as_ref(), row)),
            ))
            .unwrap();
    }
    connection.execute_batch("COMMIT").unwrap();
}

fn declared(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int64 => "INTEGER".to_owned(),
        DataType::Float64 => "REAL".to_owned(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "TIMESTAMP".to_owned(),
        DataType::Binary => "BLOB".to_owned(),
        _ => "TEXT".to_owned(),
    }
}

fn value(column: &dyn Array, row: usize) -> Value {
    let any = column.as_any();
    if column.is_null(row) {
        Value::Null
    } else if let Some(column) = any.downcast_ref::<BooleanArray>() {
        Value::Integer(i64::from(column.value(row)))
    } else if let Some(column) = any.downcast_ref::<Int64Array>() {
        Value::Integer(column.value(row))
    } else if let Some(column) = any.downcast_ref::<Float64Array>() {
        Value::Real(column.value(row))
    } else if let Some(column) = any.downcast_ref::<StringArray>() {
        Value::Text(column.value(row).to_owned())
    } else if let Some(column) = any.downcast_ref::<BinaryArray>() {
        Value::Blob(column.value(row).to_vec())
    } else {
        let known = any.is::<Decimal128Array>() || any.is::<Date32Array>() || any.is::<TimestampMicrosecondArray>();
        assert!(known, "{}", column.data_type());
        let formatter = ArrayFormatter::try_new(column, &FormatOptions::default()).unwrap();
        Value::Text(formatter.value(row).to_string())
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_said_so_and_none_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let depots = depots(folder.path(), MANIFEST);
    let missing = depots.open("crm").await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NotFound);
    assert!(missing.to_string().starts_with("depot `crm`: "), "{missing}");
    assert!(missing.to_string().contains("crm.db"), "{missing}");
    assert!(!folder.path().join("crm.db").exists());

    std::fs::write(folder.path().join("crm.db"), "id,name\n".repeat(1000)).unwrap();
    assert_eq!(depots.open("crm").await.unwrap_err().kind, ErrorKind::Corrupt);

    std::fs::remove_file(folder.path().join("crm.db")).unwrap();
    Connection::open(folder.path().join("crm.db"))
        .unwrap()
        .execute_batch("CREATE TABLE t (id INTEGER)")
        .unwrap();
    assert_eq!(depots.open("crm").await.unwrap().datasets("main").await.unwrap(), ["t"]);
}

#[tokio::test]
async fn damage_and_change_are_errors_and_never_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crm.db");
    let depots = depot(
        folder.path(),
        "CREATE TABLE big (id INTEGER, name TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
         INSERT INTO big SELECT i, 'row ' || i FROM n;",
    );
    let session = session(&depots);
    let plan = table(&depots, "crm", "main", "big")
        .await
        .scan(&session, None, &[], None)
        .await
        .unwrap();

    // A column that is gone must not become a text.
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("ALTER TABLE big RENAME COLUMN name TO label")
        .unwrap();
    let error = datafusion::physical_plan::collect(plan, session.task_ctx())
        .await
        .unwrap_err();
    assert_eq!(Error::find(&error).unwrap().kind, ErrorKind::Changed, "{error}");

    // A file put in the place of the old one is the depot from then on.
    drop(connection);
    let other = folder.path().join("other.db");
    Connection::open(&other)
        .unwrap()
        .execute_batch("CREATE TABLE big (id INTEGER); INSERT INTO big VALUES (7)")
        .unwrap();
    std::fs::rename(&other, &path).unwrap();
    let found = rows(&depots, "crm", "main", "big").await.unwrap();
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);

    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..4196].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    // Clocks of file systems are coarse, tests are quick.
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(10);
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(later)
        .unwrap();
    assert_eq!(failure(&depots, "big").await.kind, ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_named_by_place_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let depots = depot(
        folder.path(),
        "CREATE TABLE numbers (id INTEGER, amount INTEGER); INSERT INTO numbers VALUES (1, 5), (2, 'secret');
         CREATE TABLE days (day DATE); INSERT INTO days VALUES ('2024-02-30');
         CREATE TABLE flags (flag BOOLEAN NOT NULL); INSERT INTO flags VALUES (1), (2);
         CREATE TABLE texts (name TEXT); INSERT INTO texts VALUES (CAST(x'ff' AS TEXT));
         CREATE TABLE money (amount DECIMAL(4, 2)); INSERT INTO money VALUES (1.005);
         CREATE TABLE mixed (value); INSERT INTO mixed VALUES (1), ('secret');",
    );
    let error = failure(&depots, "numbers").await;
    assert_eq!(error.kind, ErrorKind::BadValue);
    assert_eq!(
        error.to_string(),
        "depot `crm`: `main.numbers`: column `amount` holds text in row 2 of the rows read, where an integer is \
         expected; correct the value, or read the table through a view of the database that casts it"
    );
    for dataset in ["days", "flags", "texts", "money", "mixed"] {
        let error = failure(&depots, dataset).await;
        assert_eq!(error.kind, ErrorKind::BadValue, "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn columns_have_the_types_they_declare_or_show() {
    let folder = tempfile::tempdir().unwrap();
    let depots = depot(
        folder.path(),
        "CREATE TABLE t (id INTEGER PRIMARY KEY, b BOOLEAN NOT NULL, d DECIMAL(12, 3), x, y, doubled AS (id * 2));
         INSERT INTO t (b, d, x) VALUES (1, 1.5, 7), (0, 2, 7.5);
         CREATE VIEW v AS SELECT count(*) AS n, max(x) AS most, 'a' AS letter FROM t;
         CREATE VIEW broken AS SELECT gone FROM t;
         CREATE VIRTUAL TABLE words USING fts5(word);",
    );
    let types = |schema: arrow::datatypes::SchemaRef| -> Vec<String> {
        schema
            .fields()
            .iter()
            .map(|field| format!("{} {}", field.name(), field.data_type()))
            .collect()
    };
    let t = table(&depots, "crm", "main", "t").await;
    assert_eq!(
        types(t.schema()),
        [
            "id Int64",
            "b Boolean",
            "d Decimal128(12, 3)",
            "x Float64",
            "y Utf8View",
            "doubled Int64"
        ]
    );
    assert!(!t.schema().field(1).is_nullable());
    assert_eq!(
        types(table(&depots, "crm", "main", "v").await.schema()),
        ["n Int64", "most Float64", "letter Utf8View"]
    );

    let source = depots.open("crm").await.unwrap();
    assert_eq!(source.datasets("main").await.unwrap(), ["broken", "t", "v", "words"]);
    let broken = source.dataset("main", "broken", &session(&depots)).await.unwrap_err();
    assert!(broken.to_string().contains("`main.broken`"), "{broken}");
    assert!(source.dataset("main", "T", &session(&depots)).await.unwrap().is_none());
    assert!(
        source
            .dataset("main", "sqlite_schema", &session(&depots))
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn what_sqlite_decides_alike_is_asked_of_sqlite_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let depots = depot(
        folder.path(),
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE, day DATE, any_value);
         INSERT INTO t VALUES (1, 'a', '2024-01-01', 1), (2, 'A', '2024-01-02', 1), (3, NULL, NULL, NULL);
         CREATE VIEW v AS SELECT * FROM t;",
    );
    let session = session(&depots);
    let plan = async |dataset: &str, filter: datafusion::logical_expr::Expr| {
        let source = datafusion::datasource::provider_as_source(table(&depots, "crm", "main", dataset).await);
        let plan = datafusion::logical_expr::LogicalPlanBuilder::scan("t", source, None).unwrap();
        let plan = plan.filter(filter).unwrap().build().unwrap();
        session.create_physical_plan(&plan).await.unwrap()
    };
    let shown = |plan: &Arc<dyn ExecutionPlan>| displayable(plan.as_ref()).indent(false).to_string();

    let pushed = plan("t", col("name").eq(lit("a")).and(col("id").lt(lit(3_i64)))).await;
    let text = shown(&pushed);
    assert!(
        !text.contains("FilterExec") && text.contains("filters=[name = a, id < 3]"),
        "{text}"
    );
    let batches = datafusion::physical_plan::collect(pushed, session.task_ctx())
        .await
        .unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);

    for (dataset, filter) in [
        (
            "t",
            col("day").eq(lit(datafusion::common::ScalarValue::Date32(Some(19_723)))),
        ),
        ("t", col("any_value").eq(lit(1_i64))),
        ("v", col("name").eq(lit("a"))),
    ] {
        let kept = plan(dataset, filter).await;
        assert!(shown(&kept).contains("FilterExec"), "{}", shown(&kept));
        let batches = datafusion::physical_plan::collect(kept, session.task_ctx())
            .await
            .unwrap();
        assert!(batches.iter().map(RecordBatch::num_rows).sum::<usize>() > 0);
    }
    let nulls = plan("v", col("any_value").is_null()).await;
    assert!(!shown(&nulls).contains("FilterExec"), "{}", shown(&nulls));
}

#[tokio::test]
async fn rows_are_guessed_from_what_is_cheap_to_know() {
    let folder = tempfile::tempdir().unwrap();
    let depots = depot(
        folder.path(),
        "CREATE TABLE few (id INTEGER PRIMARY KEY); INSERT INTO few VALUES (10), (11), (12);
         CREATE TABLE sparse (id INTEGER PRIMARY KEY); INSERT INTO sparse VALUES (1), (9000000000000000000);
         CREATE TABLE analyzed (id INTEGER PRIMARY KEY, k INTEGER);
         CREATE INDEX by_k ON analyzed (k);
         INSERT INTO analyzed VALUES (1, 1), (500, 2);
         ANALYZE analyzed;
         CREATE VIEW v AS SELECT * FROM few;",
    );
    use datafusion::common::stats::Precision;
    for (dataset, expected) in [
        ("few", Precision::Inexact(3)),
        ("sparse", Precision::Absent),
        ("analyzed", Precision::Inexact(2)),
        ("v", Precision::Absent),
    ] {
        let found = table(&depots, "crm", "main", dataset)
            .await
            .statistics()
            .unwrap()
            .num_rows;
        assert_eq!(found, expected, "{dataset}");
    }
}

#[test]
fn leaving_early_stops_the_statement() {
    let folder = tempfile::tempdir().unwrap();
    let depots = depot(
        folder.path(),
        "CREATE VIEW endless AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
             SELECT CAST(i AS INTEGER) AS id FROM n;
         CREATE VIEW never AS SELECT CAST(id AS INTEGER) AS id FROM endless WHERE id < 0;",
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let session = session(&depots);
        for dataset in ["endless", "never"] {
            let plan = table(&depots, "crm", "main", dataset)
                .await
                .scan(&session, None, &[], None)
                .await
                .unwrap();
            let mut stream = execute_stream(plan, session.task_ctx()).unwrap();
            if dataset == "endless" {
                let batch = stream.next().await.unwrap().unwrap();
                assert_eq!(
                    batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0),
                    1
                );
            } else {
                // Started, and without a row for ever.
                let nothing = tokio::time::timeout(std::time::Duration::from_millis(200), stream.next()).await;
                assert!(nothing.is_err());
            }
        }
    });
    // Waits for blocking threads: it returns only when both statements were stopped.
    drop(runtime);
}

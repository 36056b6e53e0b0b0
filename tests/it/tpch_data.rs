//! TPC-H data for tests and benchmarks: the same rows as Parquet files and as tables of a SQLite database.

use std::{fs, path::Path, sync::Arc};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{DataType, Date32Type, Decimal128Type, Int32Type, Int64Type},
};
use datafusion::parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RecordBatchIterator, RegionArrow,
    SupplierArrow,
};

/// Every table's name.
pub(crate) const TABLES: [&str; 8] = [
    "customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier",
];

fn generate(table: &str, scale: f64) -> Box<dyn RecordBatchIterator> {
    match table {
        "customer" => Box::new(CustomerArrow::new(CustomerGenerator::new(scale, 1, 1))),
        "lineitem" => Box::new(LineItemArrow::new(LineItemGenerator::new(scale, 1, 1))),
        "nation" => Box::new(NationArrow::new(NationGenerator::new(scale, 1, 1))),
        "orders" => Box::new(OrderArrow::new(OrderGenerator::new(scale, 1, 1))),
        "part" => Box::new(PartArrow::new(PartGenerator::new(scale, 1, 1))),
        "partsupp" => Box::new(PartSuppArrow::new(PartSuppGenerator::new(scale, 1, 1))),
        "region" => Box::new(RegionArrow::new(RegionGenerator::new(scale, 1, 1))),
        "supplier" => Box::new(SupplierArrow::new(SupplierGenerator::new(scale, 1, 1))),
        other => panic!("`{other}` is no table of TPC-H"),
    }
}

/// Writes each table as `FOLDER/<table>.parquet`, one row group for 100,000 rows.
pub(crate) fn write_parquet(folder: &Path, scale: f64) {
    fs::create_dir_all(folder).unwrap();
    for table in TABLES {
        let rows = generate(table, scale);
        let file = fs::File::create(folder.join(format!("{table}.parquet"))).unwrap();
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(100_000))
            .build();
        let mut writer = ArrowWriter::try_new(file, Arc::clone(rows.schema()), Some(properties)).unwrap();
        for batch in rows {
            writer.write(&batch).unwrap();
        }
        writer.close().unwrap();
    }
}

/// Writes some tables into a SQLite database.
pub(crate) fn write_sqlite(file: &Path, scale: f64, tables: &[&str]) {
    let mut connection = rusqlite::Connection::open(file).unwrap();
    for table in tables {
        let rows = generate(table, scale);
        let columns: Vec<String> = rows
            .schema()
            .fields()
            .iter()
            .map(|field| format!("{} {} NOT NULL", field.name(), sqlite_type(field.data_type())))
            .collect();
        let places = vec!["?"; columns.len()].join(", ");
        let transaction = connection.transaction().unwrap();
        transaction
            .execute(&format!("CREATE TABLE {table} ({})", columns.join(", ")), ())
            .unwrap();
        let mut insert = transaction
            .prepare(&format!("INSERT INTO {table} VALUES ({places})"))
            .unwrap();
        for batch in rows {
            for row in 0..batch.num_rows() {
                insert.execute(rusqlite::params_from_iter(values(&batch, row))).unwrap();
            }
        }
        drop(insert);
        transaction.commit().unwrap();
    }
}

/// A table as the statement that creates it in PostgreSQL, and its rows as CSV.
pub(crate) fn as_csv(table: &str, scale: f64) -> (String, String) {
    let rows = generate(table, scale);
    let columns: Vec<String> = rows
        .schema()
        .fields()
        .iter()
        .map(|field| format!("{} {} NOT NULL", field.name(), postgres_type(field.data_type())))
        .collect();
    let create = format!("CREATE TABLE {table} ({})", columns.join(", "));
    let mut csv = String::new();
    for batch in rows {
        for row in 0..batch.num_rows() {
            let fields: Vec<String> = values(&batch, row).into_iter().map(csv_field).collect();
            csv.push_str(&fields.join(","));
            csv.push('\n');
        }
    }
    (create, csv)
}

fn csv_field(value: rusqlite::types::Value) -> String {
    match value {
        rusqlite::types::Value::Integer(value) => value.to_string(),
        rusqlite::types::Value::Text(text) => format!("\"{}\"", text.replace('"', "\"\"")),
        other => panic!("no TPC-H table has a value {other:?}"),
    }
}

fn postgres_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Decimal128(digits, scale) => format!("numeric({digits},{scale})"),
        DataType::Date32 => "date".to_owned(),
        _ => "text".to_owned(),
    }
}

fn sqlite_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Int32 | DataType::Int64 => "BIGINT".to_owned(),
        DataType::Decimal128(digits, scale) => format!("DECIMAL({digits},{scale})"),
        DataType::Date32 => "DATE".to_owned(),
        _ => "TEXT".to_owned(),
    }
}

fn values(batch: &RecordBatch, row: usize) -> Vec<rusqlite::types::Value> {
    use rusqlite::types::Value;
    let value = |column: &Arc<dyn Array>| match column.data_type() {
        DataType::Int32 => Value::Integer(column.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Value::Integer(column.as_primitive::<Int64Type>().value(row)),
        DataType::Decimal128(..) => Value::Text(column.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Date32 => Value::Text(
            column
                .as_primitive::<Date32Type>()
                .value_as_date(row)
                .unwrap()
                .to_string(),
        ),
        DataType::Utf8View => Value::Text(column.as_string_view().value(row).to_owned()),
        DataType::Utf8 => Value::Text(column.as_string::<i32>().value(row).to_owned()),
        other => panic!("no TPC-H table has a column of type {other}"),
    };
    batch.columns().iter().map(value).collect()
}

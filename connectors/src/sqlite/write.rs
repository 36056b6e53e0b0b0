//! Writing to a SQLite file.
//!
//! In: batches, or rows of a table that are to be changed. Out: one transaction each, on a connection of its own that is closed after
//! it: what is dropped before its end is rolled back. From `BEGIN IMMEDIATE` on nobody else changes the file, and readers go on.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, DecimalType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit,
    TimestampMicrosecondType,
};
use async_trait::async_trait;
use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::catalog::TableProvider;
use datafusion::common::runtime::SpawnedTask;
use datafusion::execution::SendableRecordBatchStream;
use futures::FutureExt;
use minerva_resources::Address;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::connection::{Database, Stop};
use super::kind::Kind;
use super::sql::ALIAS;
use super::table::{self, RowId, TableInfo};
use super::{COLLECTION, SqliteSource, sql};
use crate::writer::{Feed, Next, feed, named_twice, stored_as};
use crate::{Change, Error, ErrorKind, ROW_ID, RemoteTable, Result, Source, Writer};

/// Days from 0001-01-01 to 1970-01-01, in chrono's count from the common era.
const EPOCH_DAYS: i32 = 719_163;

/// SQLite keeps so many digits of a decimal that is no whole number, and so many of one that is.
const MOST_DIGITS: u8 = 15;
const MOST_WHOLE_DIGITS: u8 = 18;

/// Where in the metadata of the column [`ROW_ID`] stands what SQLite is asked for.
pub(super) const ROW_ID_NAME: &str = "name";

#[async_trait]
impl Writer for SqliteSource {
    fn stored(&self, columns: &Schema) -> Result<SchemaRef> {
        let error = |message: String| Error::new(self.depot(), ErrorKind::Unsupported, message);
        if let Some(name) = named_twice(columns, str::eq_ignore_ascii_case) {
            return Err(error(format!(
                "column `{name}` is named twice, and SQLite does not tell capitals; give one of them another name"
            )));
        }
        if let Some(field) = columns.fields().iter().find(|field| field.name().contains('\0')) {
            return Err(error(format!(
                "column `{}` has a NUL character in its name",
                field.name().escape_debug()
            )));
        }
        let refused = |field: &Field| {
            let (name, found) = (field.name(), field.data_type());
            let hint = match found {
                DataType::Decimal128(..) | DataType::Decimal256(..) => {
                    "SQLite keeps 15 digits of a number, or 18 without a fraction; cast it to a shorter DECIMAL, DOUBLE or VARCHAR"
                }
                _ => "cast it to a type of the table in docs/depots/sqlite.md, such as VARCHAR",
            };
            error(format!(
                "column `{name}` has type {found}, which SQLite cannot hold; {hint}"
            ))
        };
        stored_as(columns, refused, |data_type| Some(stored_kind(data_type)?.arrow()))
    }

    async fn create(
        &self,
        collection: &str,
        dataset: &str,
        rows: SendableRecordBatchStream,
    ) -> datafusion::error::Result<u64> {
        let error = |kind, message: &str| Error::new(self.depot(), kind, message).about_dataset(collection, dataset);
        if collection != COLLECTION {
            let message = "a depot of type `sqlite` has the collection `main` only";
            return Err(error(ErrorKind::NotFound, message).into());
        }
        let is_reserved = dataset
            .get(..7)
            .is_some_and(|start| start.eq_ignore_ascii_case("sqlite_"));
        if dataset.is_empty() || dataset.contains('\0') || is_reserved {
            return Err(error(ErrorKind::Unsupported, "SQLite has no tables of such a name").into());
        }
        let schema = rows.schema();
        let create = create_table(dataset, &schema)
            .ok_or_else(|| error(ErrorKind::Internal, "its types were not made to fit"))?;
        let insert = insert(dataset, &schema);
        let (name, about) = (dataset.to_owned(), format!("{collection}.{dataset}"));
        let exists = error(ErrorKind::AlreadyExists, "there is a table of this name already");
        let prepare = move |connection: &Connection| {
            let sql = "SELECT count(*) FROM main.sqlite_schema WHERE name = ?1 COLLATE NOCASE";
            let found: i64 = connection
                .query_row(sql, [&name], |row| row.get(0))
                .map_err(Failed::Sqlite)?;
            if found > 0 {
                return Err(Failed::Because(exists));
            }
            connection.execute_batch(&create).map_err(Failed::Sqlite)
        };
        self.write(&about, insert, rows, prepare).await
    }

    async fn append(
        &self,
        collection: &str,
        dataset: &str,
        rows: SendableRecordBatchStream,
    ) -> datafusion::error::Result<u64> {
        let about = format!("{collection}.{dataset}");
        let missing = Error::new(self.depot(), ErrorKind::NotFound, "there is no table of this name").about(&about);
        if collection != COLLECTION {
            return Err(missing.into());
        }
        let name = dataset.to_owned();
        let prepare = move |connection: &Connection| match table::find(connection, &name).map_err(Failed::Sqlite)? {
            Some(_) => Ok(()),
            None => Err(Failed::Because(missing)),
        };
        let insert = insert(dataset, &rows.schema());
        self.write(&about, insert, rows, prepare).await
    }

    async fn remove(&self, collection: &str, dataset: &str) -> Result<bool> {
        if collection != COLLECTION {
            return Ok(false);
        }
        let about = format!("{collection}.{dataset}");
        let (name, object) = (dataset.to_owned(), about.clone());
        let not_a_table = Error::new(
            self.depot(),
            ErrorKind::Unsupported,
            "it is a view, which is not removed",
        )
        .about(&about);
        in_transaction(&self.database, &object, move |connection| {
            match table::find(connection, &name).map_err(Failed::Sqlite)? {
                None => return Ok(false),
                Some(info) if info.is_view => return Err(Failed::Because(not_a_table)),
                Some(_) => {}
            }
            let drop = format!("DROP TABLE main.{}", quoted(&name));
            connection.execute_batch(&drop).map_err(Failed::Sqlite)?;
            Ok(true)
        })
        .await
    }

    async fn change(&self, collection: &str, dataset: &str) -> Result<Box<dyn Change>> {
        let about = format!("{collection}.{dataset}");
        let error = |kind, message: &str| Error::new(self.depot(), kind, message).about(&about);
        let missing = error(ErrorKind::NotFound, "there is no table of this name");
        let no_identity = error(
            ErrorKind::Unsupported,
            "its rows have no identity: views, virtual tables, and tables with columns called rowid, _rowid_ and oid are not changed; \
             change the table under a view, or rename one of the columns",
        );
        if collection != COLLECTION {
            return Err(missing);
        }
        let (database, name) = (Arc::clone(&self.database), dataset.to_owned());
        let begun = blocking(&self.database, &about, move |stop| {
            let connection = database.connect_to_write()?;
            stop.start(&connection);
            let begin = || {
                connection.execute_batch("BEGIN IMMEDIATE")?;
                table::find(&connection, &name)
            };
            let found = begin().map_err(|failure| database.write_error(failure))?;
            Ok((connection, found))
        });
        let (connection, found) = begun.await?;
        let info = found.ok_or(missing)?;
        let row_id = info.row_id.clone().ok_or(no_identity)?;
        let address = Address::new(self.depot(), collection, dataset);
        Ok(Box::new(SqliteChange {
            table: Arc::new(provider(address, &info, &row_id)),
            database: Arc::clone(&self.database),
            dataset: dataset.to_owned(),
            about,
            row_id,
            connection,
        }))
    }

    // Once the file is being written, a reader of it would keep the transaction from its end.
    fn reads_before_it_writes(&self) -> bool {
        true
    }
}

impl SqliteSource {
    /// One transaction that inserts rows while they are made.
    async fn write(
        &self,
        about: &str,
        insert: String,
        rows: SendableRecordBatchStream,
        prepare: impl FnOnce(&Connection) -> Result<(), Failed> + Send + 'static,
    ) -> datafusion::error::Result<u64> {
        let schema = rows.schema();
        let work = |mut feed: Feed| {
            move |connection: &Connection| {
                prepare(connection)?;
                let mut statement = connection.prepare(&insert).map_err(Failed::Sqlite)?;
                let mut count = 0_u64;
                let mut values = Vec::with_capacity(schema.fields().len());
                loop {
                    let batch = match feed.next() {
                        Next::Rows(batch) => batch,
                        Next::End => return Ok(count),
                        Next::Stopped => return Err(Failed::Stopped),
                    };
                    for row in 0..batch.num_rows() {
                        values.clear();
                        for (field, column) in schema.fields().iter().zip(batch.columns()) {
                            let value = value(column.as_ref(), row);
                            values.push(value.ok_or_else(|| Failed::Value(field.name().clone()))?);
                        }
                        statement.execute(params_from_iter(&values)).map_err(Failed::Sqlite)?;
                    }
                    count += batch.num_rows() as u64;
                }
            }
        };
        let (database, about) = (Arc::clone(&self.database), about.to_owned());
        feed(rows, |feed| {
            let work = work(feed);
            async move { in_transaction(&database, &about, work).await }.boxed()
        })
        .await
    }
}

/// Does something in one transaction, on a thread that may wait. Dropping the future undoes it.
async fn in_transaction<T: Send + 'static>(
    database: &Arc<Database>,
    about: &str,
    work: impl FnOnce(&Connection) -> Result<T, Failed> + Send + 'static,
) -> Result<T> {
    let (writing, object) = (Arc::clone(database), about.to_owned());
    blocking(database, about, move |stop| {
        let connection = writing.connect_to_write()?;
        let run = || {
            expect(stop.start(&connection))?;
            connection.execute_batch("BEGIN IMMEDIATE").map_err(Failed::Sqlite)?;
            let done = work(&connection)?;
            // An interruption between two statements reaches neither.
            expect(!stop.is_over())?;
            connection.execute_batch("COMMIT").map_err(Failed::Sqlite)?;
            Ok(done)
        };
        run().map_err(|failed| writing.failed(failed).about(object))
    })
    .await
}

/// Why nothing was written.
enum Failed {
    Sqlite(rusqlite::Error),
    Because(Error),
    /// A value of this column is none that SQLite can hold.
    Value(String),
    /// The rows ended before their end.
    Stopped,
}

/// That nobody has stopped the writing.
fn expect(goes_on: bool) -> Result<(), Failed> {
    goes_on.then_some(()).ok_or(Failed::Stopped)
}

fn no_place(database: &Database) -> Failed {
    Failed::Because(database.failure(ErrorKind::Internal, "a row that is to be changed has no place"))
}

impl Database {
    fn failed(&self, failed: Failed) -> Error {
        match failed {
            Failed::Sqlite(failure) => self.write_error(failure),
            Failed::Because(error) => error,
            Failed::Value(column) => self.failure(
                ErrorKind::BadValue,
                format!("a value of column `{column}` is outside what SQLite can hold; nothing was written"),
            ),
            Failed::Stopped => self.failure(ErrorKind::Internal, "the writing was stopped"),
        }
    }

    /// What SQLite reports of a statement that writes. Its words about keys name columns and never values; those of triggers might.
    fn write_error(&self, failure: rusqlite::Error) -> Error {
        use rusqlite::ffi;
        let rusqlite::Error::SqliteFailure(code, text) = &failure else {
            return self.error(failure);
        };
        let text = text.as_deref().unwrap_or_default();
        let message = match code.extended_code {
            ffi::SQLITE_CONSTRAINT_UNIQUE
            | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
            | ffi::SQLITE_CONSTRAINT_NOTNULL
            | ffi::SQLITE_CONSTRAINT_CHECK => format!("{text}; nothing was written"),
            ffi::SQLITE_CONSTRAINT_ROWID => "a row has the rowid of another; nothing was written".to_owned(),
            ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "a FOREIGN KEY constraint failed; nothing was written".to_owned(),
            ffi::SQLITE_CONSTRAINT_TRIGGER => {
                "a trigger of the table does not allow it; nothing was written".to_owned()
            }
            ffi::SQLITE_CONSTRAINT_DATATYPE => {
                "a value has not the type that the STRICT table asks for; nothing was written".to_owned()
            }
            _ if failure.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
                "a constraint of the table does not allow it; nothing was written".to_owned()
            }
            _ if failure.sqlite_error_code() == Some(rusqlite::ErrorCode::ReadOnly) => {
                return self.failure(
                    ErrorKind::Denied,
                    "the file, or the folder it lies in, may not be written to",
                );
            }
            _ => return self.error(failure),
        };
        self.failure(ErrorKind::Constraint, message)
    }
}

/// Runs `work` on a thread that may wait. Dropping the future interrupts it.
async fn blocking<T: Send + 'static>(
    database: &Arc<Database>,
    about: &str,
    work: impl FnOnce(&super::connection::Running) -> Result<T> + Send + 'static,
) -> Result<T> {
    let stop = Stop::default();
    let running = stop.running();
    let task = SpawnedTask::spawn_blocking(move || {
        let done = work(&running);
        running.finish();
        done
    });
    match task.join().await {
        Ok(done) => done,
        Err(failure) => Err(database.failure(ErrorKind::Internal, failure.to_string()).about(about)),
    }
}

/// A transaction that has the file for itself.
#[derive(Debug)]
struct SqliteChange {
    database: Arc<Database>,
    table: Arc<RemoteTable>,
    dataset: String,
    about: String,
    row_id: RowId,
    connection: Connection,
}

#[async_trait]
impl Change for SqliteChange {
    fn table(&self) -> Arc<dyn TableProvider> {
        Arc::clone(&self.table) as Arc<dyn TableProvider>
    }

    async fn delete(self: Box<Self>, rows: Vec<RecordBatch>) -> Result<u64> {
        let sql = format!("DELETE FROM main.{}", quoted(&self.dataset));
        self.apply(sql, rows).await
    }

    async fn update(self: Box<Self>, rows: Vec<RecordBatch>) -> Result<u64> {
        let Some(first) = rows.first() else { return Ok(0) };
        let schema = first.schema();
        let columns = schema.fields().iter().filter(|field| field.name() != ROW_ID);
        let set: Vec<String> = (2..)
            .zip(columns)
            .map(|(number, field)| format!("{} = ?{number}", quoted(field.name())))
            .collect();
        let (table, set) = (quoted(&self.dataset), set.join(", "));
        self.apply(format!("UPDATE main.{table} SET {set}"), rows).await
    }
}

impl SqliteChange {
    /// Runs a statement for each row, whose values are its parameters from the second on. Every row is there: nobody else could remove it.
    async fn apply(self, sql: String, rows: Vec<RecordBatch>) -> Result<u64> {
        let SqliteChange {
            database,
            about,
            connection,
            row_id,
            ..
        } = self;
        let (working, object) = (Arc::clone(&database), about.clone());
        blocking(&database, &about, move |stop| {
            let run = || {
                expect(stop.start(&connection))?;
                let mut changed = 0_u64;
                let mut statement = match &row_id {
                    RowId::Rowid(name) => prepared(&connection, format!("{sql} WHERE {name} = ?1"))?,
                    // Each row has a statement of its own.
                    RowId::Key(_) => prepared(&connection, "SELECT 1".to_owned())?,
                };
                for batch in &rows {
                    let id = batch.column_by_name(ROW_ID).ok_or_else(|| no_place(&working))?;
                    let schema = batch.schema();
                    let columns: Vec<_> = (schema.fields().iter().zip(batch.columns()))
                        .filter(|(field, _)| field.name() != ROW_ID)
                        .collect();
                    for row in 0..batch.num_rows() {
                        expect(!stop.is_over())?;
                        let mut values = vec![value(id.as_ref(), row).ok_or_else(|| no_place(&working))?];
                        if let (RowId::Key(columns), [Value::Text(key)]) = (&row_id, values.as_slice()) {
                            statement = prepared(&connection, format!("{sql} WHERE {}", has_key(columns, key)))?;
                        }
                        for (field, column) in &columns {
                            let value = value(column.as_ref(), row);
                            values.push(value.ok_or_else(|| Failed::Value(field.name().clone()))?);
                        }
                        if statement.execute(params_from_iter(&values)).map_err(Failed::Sqlite)? != 1 {
                            let message =
                                "a trigger or the collation of the table's key changed other rows than were to be changed; nothing was written";
                            return Err(Failed::Because(working.failure(ErrorKind::Changed, message)));
                        }
                        changed += 1;
                    }
                }
                drop(statement);
                expect(!stop.is_over())?;
                connection.execute_batch("COMMIT").map_err(Failed::Sqlite)?;
                Ok(changed)
            };
            run().map_err(|failed| working.failed(failed).about(object))
        })
        .await
    }
}

fn prepared(connection: &Connection, sql: String) -> Result<rusqlite::Statement<'_>, Failed> {
    connection.prepare(&sql).map_err(Failed::Sqlite)
}

/// The condition that a row has this key, which SQLite has written itself as literals. The first parameter stands there to keep its number.
fn has_key(columns: &[String], key: &str) -> String {
    let columns: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
    format!("({}) = ({key}) AND ?1 IS NOT NULL", columns.join(", "))
}

/// The table with the identity of its rows.
fn provider(address: Address, info: &TableInfo, row_id: &RowId) -> RemoteTable {
    let mut fields: Vec<Field> = info
        .schema
        .fields()
        .iter()
        .map(|field| field.as_ref().clone())
        .collect();
    let (selected, data_type) = match row_id {
        RowId::Rowid(name) => (format!("{ALIAS}.{name}"), DataType::Int64),
        // `quote` writes every value as the literal that it is.
        RowId::Key(columns) => {
            let literals = columns
                .iter()
                .map(|column| format!("quote({ALIAS}.{})", quoted(column)));
            (literals.collect::<Vec<_>>().join(" || ', ' || "), DataType::Utf8View)
        }
    };
    let name = std::iter::once((ROW_ID_NAME.to_owned(), selected)).collect();
    fields.push(Field::new(ROW_ID, data_type, false).with_metadata(name));
    let comparable = info.comparable.clone();
    RemoteTable::new(address, Arc::new(Schema::new(fields)))
        .with_filters(move |filter| sql::accepts(filter, &comparable))
}

/// What a column of this type is stored as.
fn stored_kind(data_type: &DataType) -> Option<Kind> {
    Some(match data_type {
        DataType::Boolean => Kind::Boolean,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Kind::Integer,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => Kind::Integer,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => Kind::Real,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Kind::Blob,
        DataType::Date32 => Kind::Date,
        DataType::Timestamp(_, None) => Kind::Timestamp,
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => {
            let most = if *scale == 0 { MOST_WHOLE_DIGITS } else { MOST_DIGITS };
            if *scale < 0 || *precision > most {
                return None;
            }
            Kind::Decimal(*precision, *scale)
        }
        DataType::Dictionary(_, value) => return stored_kind(value),
        _ => return None,
    })
}

fn create_table(name: &str, schema: &Schema) -> Option<String> {
    let column = |field: &Arc<Field>| {
        let kind = Kind::of_arrow(field.data_type())?;
        let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
        Some(format!("{} {}{not_null}", quoted(field.name()), kind.declared()?))
    };
    let columns: Option<Vec<String>> = schema.fields().iter().map(column).collect();
    Some(format!("CREATE TABLE main.{} ({})", quoted(name), columns?.join(", ")))
}

fn insert(name: &str, schema: &Schema) -> String {
    let columns: Vec<String> = schema.fields().iter().map(|field| quoted(field.name())).collect();
    let places: Vec<String> = (1..=columns.len()).map(|number| format!("?{number}")).collect();
    format!(
        "INSERT INTO main.{} ({}) VALUES ({})",
        quoted(name),
        columns.join(", "),
        places.join(", ")
    )
}

/// A value as SQLite stores it, which is what `decode.rs` reads; `None` when it is outside what that reads.
fn value(column: &dyn Array, row: usize) -> Option<Value> {
    if column.is_null(row) {
        return Some(Value::Null);
    }
    Some(match column.data_type() {
        DataType::Boolean => Value::Integer(i64::from(column.as_boolean().value(row))),
        DataType::Int64 => Value::Integer(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => {
            let value = column.as_primitive::<Float64Type>().value(row);
            // SQLite makes NULL of it.
            if value.is_nan() {
                return None;
            }
            Value::Real(value)
        }
        DataType::Utf8View => Value::Text(column.as_string_view().value(row).to_owned()),
        DataType::Binary => Value::Blob(column.as_binary::<i32>().value(row).to_vec()),
        DataType::Date32 => {
            let days = column.as_primitive::<Date32Type>().value(row).checked_add(EPOCH_DAYS)?;
            let date = NaiveDate::from_num_days_from_ce_opt(days).filter(|date| is_plain_year(*date))?;
            Value::Text(date.format("%Y-%m-%d").to_string())
        }
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            let microseconds = column.as_primitive::<TimestampMicrosecondType>().value(row);
            let time = DateTime::from_timestamp_micros(microseconds)?.naive_utc();
            if !is_plain_year(time.date()) {
                return None;
            }
            Value::Text(time.format("%Y-%m-%d %H:%M:%S%.6f").to_string())
        }
        DataType::Decimal128(precision, scale) => {
            let value = column.as_primitive::<Decimal128Type>().value(row);
            Value::Text(Decimal128Type::format_decimal(value, *precision, *scale))
        }
        _ => return None,
    })
}

fn is_plain_year(date: NaiveDate) -> bool {
    (0..=9999).contains(&date.year())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_cancel_between_two_statements_undoes_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("crm.db");
        let count = || -> i64 {
            let connection = Connection::open(&path).unwrap();
            connection
                .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
                .unwrap()
        };
        Connection::open(&path)
            .unwrap()
            .execute_batch("CREATE TABLE t (x int)")
            .unwrap();
        let database = Arc::new(Database::new("crm", path.clone()));
        let (inserted, has_inserted) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel::<()>();
        let (ended, has_ended) = mpsc::channel::<()>();
        let writing = Arc::clone(&database);
        let task = tokio::spawn(async move {
            in_transaction(&writing, "main.t", move |connection| {
                // Gone when the transaction is.
                let _ended = ended;
                connection
                    .execute_batch("INSERT INTO t VALUES (1)")
                    .map_err(Failed::Sqlite)?;
                inserted.send(()).unwrap();
                // While it waits here no statement runs that could be interrupted.
                goes_on.recv().unwrap();
                Ok(())
            })
            .await
        });
        tokio::task::spawn_blocking(move || has_inserted.recv().unwrap())
            .await
            .unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        go_on.send(()).unwrap();
        tokio::task::spawn_blocking(move || has_ended.recv().unwrap_err())
            .await
            .unwrap();
        // The next transaction waits for the end of this one.
        let next = in_transaction(&database, "main.t", |connection| {
            connection
                .execute_batch("INSERT INTO t VALUES (2)")
                .map_err(Failed::Sqlite)
        });
        next.await.unwrap();
        assert_eq!(count(), 1);
    }
}

//! The `sqlite` depot: the tables and views of one SQLite file.
//!
//! In: the path of a file. Out: the datasets of collection `main`, read in a stream of batches by one statement each, with columns,
//! comparisons and limit applied by SQLite where that gives the same rows, and written in one transaction each. Statements of several
//! tables are computed by SQLite as far as `dialect.rs` knows how.

mod connection;
mod decode;
mod dialect;
mod functions;
mod kind;
mod moment;
#[cfg(test)]
mod pushdown_tests;
mod read;
mod sql;
mod statistics;
mod table;
#[cfg(test)]
mod tests;
mod write;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::TableType;
use minerva_resources::{Address, Depot, Parameter, ParameterKind};

use self::connection::{Database, absolute};
use self::dialect::{SqliteDialect, SqliteRelation};
use self::kind::Kind;
use self::moment::Readers;
use self::table::RowId;
use crate::remote::narrowed;
use crate::{Around, Connector, Error, ErrorKind, RemoteTable, Result, Scan, ScanFilter, Source, Split, Writer};

/// The one collection: the name that SQLite itself gives a database.
const COLLECTION: &str = "main";

/// Opens depots of type `sqlite`.
#[derive(Debug)]
pub(crate) struct SqliteConnector;

#[async_trait]
impl Connector for SqliteConnector {
    fn depot_type(&self) -> &'static str {
        "sqlite"
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[Parameter {
            name: "path",
            kind: ParameterKind::Path,
            required: true,
            default: None,
            secret: false,
            description: "The database file. It is never created, and opened to write only by statements that write (`acl: rw`).",
        }]
    }

    fn is_remote(&self) -> bool {
        false
    }

    fn computes(&self) -> bool {
        true
    }

    fn example(&self) -> &'static str {
        "name: crm\nversion: v2alpha\ntype: depot\ndepot:\n  type: sqlite\n  sqlite:\n    path: ./crm.db\n"
    }

    async fn open(&self, depot: &Arc<Depot>, _around: &Around) -> Result<Arc<dyn Source>> {
        let name = &depot.meta.name;
        let path = depot.settings.path("path", &depot.base);
        let path = path.ok_or_else(|| Error::new(name, ErrorKind::Settings, "the setting `path` is missing"))?;
        let database = Arc::new(Database::new(name, absolute(&path)));
        // The first statement is what tells a database from any other file.
        database
            .run(COLLECTION, |connection| table::names(connection).map(drop))
            .await?;
        Ok(Arc::new(SqliteSource {
            database,
            comparable: Mutex::default(),
        }))
    }
}

#[derive(Debug)]
struct SqliteSource {
    database: Arc<Database>,
    /// Columns that SQLite compares as they are compared here, by the names of the datasets that were looked at.
    comparable: Mutex<HashMap<String, Comparable>>,
}

type Comparable = Arc<HashMap<String, Kind>>;

/// Datasets that are remembered.
const MOST_TABLES: usize = 4096;

/// Values of conditions that are found while a query runs; a statement has no more parameters.
const MOST_VALUES: usize = 30_000;

impl SqliteSource {
    fn known(&self) -> MutexGuard<'_, HashMap<String, Comparable>> {
        self.comparable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a table is and how its columns compare, which is kept.
    async fn look_up(&self, collection: &str, dataset: &str) -> Result<Option<(table::TableInfo, Comparable)>> {
        let name = dataset.to_owned();
        let object = format!("{collection}.{dataset}");
        let found = self
            .database
            .run(&object, move |connection| table::find(connection, &name))
            .await?;
        let Some(mut info) = found else { return Ok(None) };
        let comparable = Arc::new(std::mem::take(&mut info.comparable));
        let mut known = self.known();
        if known.len() >= MOST_TABLES {
            known.clear();
        }
        known.insert(dataset.to_owned(), Arc::clone(&comparable));
        drop(known);
        Ok(Some((info, comparable)))
    }
}

/// How many values a condition has.
fn values(filter: &ScanFilter) -> usize {
    match filter {
        ScanFilter::Compare { .. } => 1,
        ScanFilter::OneOf { values, .. } => values.len(),
        ScanFilter::IsNull(_) | ScanFilter::IsNotNull(_) => 0,
        ScanFilter::All(filters) | ScanFilter::Any(filters) => filters.iter().map(values).sum(),
    }
}

#[async_trait]
impl Source for SqliteSource {
    fn depot(&self) -> &str {
        &self.database.depot
    }

    fn depot_type(&self) -> &'static str {
        "sqlite"
    }

    async fn collections(&self) -> Result<Vec<String>> {
        Ok(vec![COLLECTION.to_owned()])
    }

    async fn datasets(&self, collection: &str) -> Result<Vec<String>> {
        if collection != COLLECTION {
            return Ok(Vec::new());
        }
        self.database.run(COLLECTION, table::names).await
    }

    async fn dataset(
        &self,
        collection: &str,
        dataset: &str,
        _session: &dyn Session,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        if collection != COLLECTION {
            return Ok(None);
        }
        let Some((info, comparable)) = self.look_up(collection, dataset).await? else {
            return Ok(None);
        };
        let address = Address {
            depot: self.database.depot.clone(),
            collection: collection.to_owned(),
            dataset: dataset.to_owned(),
        };
        let rows = info
            .rows
            .and_then(|rows| usize::try_from(rows).ok())
            .map_or(Precision::Absent, Precision::Inexact);
        let mut provider = RemoteTable::new(address, info.schema)
            .with_rows(rows)
            .with_statistics(info.figures)
            .with_table_type(if info.is_view { TableType::View } else { TableType::Base })
            .with_filters(move |filter| sql::accepts(filter, &comparable));
        if let (Some(RowId::Rowid(rowid)), Some((first, last))) = (info.row_id, info.ends) {
            let splits = moment::splits(first, last);
            let readers = Readers {
                database: Arc::clone(&self.database),
                readers: splits.len(),
                rowid,
            };
            provider = provider.with_splits(splits).with_snapshots(Some(Arc::new(readers)));
        }
        if let Some(uses) = info.uses {
            provider = provider.with_relation(Arc::new(SqliteRelation::new(dataset, uses)));
        }
        Ok(Some(Arc::new(provider)))
    }

    async fn columns(
        &self,
        collection: &str,
        datasets: &[String],
        _session: &dyn Session,
    ) -> Result<Vec<Result<Option<SchemaRef>>>> {
        if collection != COLLECTION {
            return Ok(datasets.iter().map(|_| Ok(None)).collect());
        }
        let names = datasets.to_vec();
        let found = self
            .database
            .run(COLLECTION, move |connection| table::schemas(connection, &names))
            .await?;
        let found = found.into_iter().zip(datasets).map(|(schema, dataset)| {
            schema.map_err(|failure| self.database.error(failure).about(format!("{collection}.{dataset}")))
        });
        Ok(found.collect())
    }

    async fn narrowed(&self, scan: &Scan, filters: &[ScanFilter]) -> Option<Scan> {
        if let Some(query) = &scan.query {
            let query = narrowed(query, &scan.schema, filters, &SqliteDialect)?;
            return Some(Scan {
                query: Some(Arc::new(query)),
                ..scan.clone()
            });
        }
        let dataset = &scan.address.dataset;
        let known = self.known().get(dataset).cloned();
        let comparable = match known {
            Some(comparable) => comparable,
            // What is wrong with it is said where it is read.
            None => self.look_up(COLLECTION, dataset).await.ok().flatten()?.1,
        };
        let mut room = MOST_VALUES.saturating_sub(scan.filters.iter().map(values).sum());
        let mut is_known = |filter: &&ScanFilter| {
            let (is_known, needed) = (
                filter.all_leaves(&|leaf| sql::accepts(leaf, &comparable)),
                values(filter),
            );
            let is_taken = is_known && needed <= room;
            room -= if is_taken { needed } else { 0 };
            is_taken
        };
        let known: Vec<ScanFilter> = filters.iter().filter(|filter| is_known(filter)).cloned().collect();
        (!known.is_empty()).then(|| Scan {
            filters: scan.filters.iter().cloned().chain(known).collect(),
            ..scan.clone()
        })
    }

    fn writer(&self) -> Option<&dyn Writer> {
        Some(self)
    }

    fn read(&self, scan: &Scan, split: &Split, context: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        read::read(&self.database, scan, split, context.session_config().batch_size())
    }
}

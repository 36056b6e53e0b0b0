//! The `sqlite` depot: the tables and views of one SQLite file.
//!
//! In: the path of a file. Out: the datasets of collection `main`, read in a stream of batches by one statement each, with columns,
//! comparisons and limit applied by SQLite where that gives the same rows, and written in one transaction each.

mod connection;
mod decode;
mod kind;
mod read;
mod sql;
mod table;
#[cfg(test)]
mod tests;
mod write;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::TableType;
use minerva_resources::{Address, Depot, Parameter, ParameterKind};

use self::connection::{Database, absolute};
use crate::{Connector, Error, ErrorKind, RemoteTable, Result, Scan, Source, Split, Stores, Writer};

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

    fn example(&self) -> &'static str {
        "name: crm\nversion: v2alpha\ntype: depot\ndepot:\n  type: sqlite\n  sqlite:\n    path: ./crm.db\n"
    }

    async fn open(&self, depot: &Arc<Depot>, _stores: &Stores) -> Result<Arc<dyn Source>> {
        let name = &depot.meta.name;
        let path = depot.settings.path("path", &depot.base);
        let path = path.ok_or_else(|| Error::new(name, ErrorKind::Settings, "the setting `path` is missing"))?;
        let database = Arc::new(Database::new(name, absolute(&path)));
        // The first statement is what tells a database from any other file.
        database
            .run(COLLECTION, |connection| table::names(connection).map(drop))
            .await?;
        Ok(Arc::new(SqliteSource { database }))
    }
}

#[derive(Debug)]
struct SqliteSource {
    database: Arc<Database>,
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
        let name = dataset.to_owned();
        let object = format!("{collection}.{dataset}");
        let found = self
            .database
            .run(&object, move |connection| table::find(connection, &name))
            .await?;
        let Some(info) = found else { return Ok(None) };
        let address = Address {
            depot: self.database.depot.clone(),
            collection: collection.to_owned(),
            dataset: dataset.to_owned(),
        };
        let rows = info
            .rows
            .and_then(|rows| usize::try_from(rows).ok())
            .map_or(Precision::Absent, Precision::Inexact);
        let comparable = info.comparable;
        let provider = RemoteTable::new(address, info.schema)
            .with_rows(rows)
            .with_table_type(if info.is_view { TableType::View } else { TableType::Base })
            .with_filters(move |filter| sql::accepts(filter, &comparable));
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

    fn writer(&self) -> Option<&dyn Writer> {
        Some(self)
    }

    fn read(&self, scan: &Scan, split: &Split, context: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        match split {
            Split::Whole => read::read(&self.database, scan, context.session_config().batch_size()),
            Split::Part { .. } | Split::Range { .. } => {
                Err(Error::new(self.depot(), ErrorKind::Internal, "it is read whole only")
                    .about_dataset(&scan.address.collection, &scan.address.dataset))
            }
        }
    }
}

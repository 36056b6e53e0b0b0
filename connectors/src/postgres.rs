//! The `postgresql` depot: the schemas of one database, and their tables and views.
//!
//! In: where a server is, and the credentials of a secret. Out: datasets, each read by one `COPY` in the binary format, in a
//! stream of batches, with columns, comparisons and limit applied by PostgreSQL where that gives the same rows.

mod catalog;
mod column;
mod connection;
mod decode;
mod encode;
mod kind;
mod listing;
mod read;
mod settings;
mod sql;
mod tls;
mod value;
mod write;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::TableType;
use minerva_resources::{Address, Depot, Parameter, Problem};

use self::connection::Database;
use self::settings::Settings;
use crate::{Connector, Error, ErrorKind, RemoteTable, Result, Scan, Source, Split, Stores, Writer};

pub use self::decode::CopyDecoder;

/// Opens depots of type `postgresql`.
#[derive(Debug)]
pub(crate) struct PostgresConnector;

#[async_trait]
impl Connector for PostgresConnector {
    fn depot_type(&self) -> &'static str {
        "postgresql"
    }

    fn parameters(&self) -> &'static [Parameter] {
        settings::PARAMETERS
    }

    fn example(&self) -> &'static str {
        "name: sales
version: v2alpha
type: depot
depot:
  type: POSTGRESQL
  postgresql:
    host: db.example.com
    database: sales
    params: {sslmode: verify-full, sslrootcert: ./ca.pem}
  secrets:
    - name: sales-r
---
name: sales-r
version: v1
type: instance-secret
instance-secret:
  type: key-value-properties
  acl: r
  data: {username: reader, password: correct horse}
"
    }

    fn check(&self, depot: &Depot) -> Vec<Problem> {
        Settings::of(depot).err().unwrap_or_default()
    }

    async fn open(&self, depot: &Arc<Depot>, _stores: &Stores) -> Result<Arc<dyn Source>> {
        let database = database(depot)?;
        database.reach().await?;
        let writing = match depot.write_credentials == depot.credentials || !depot.writable {
            true => Arc::clone(&database),
            false => self::database(&Depot {
                credentials: depot.write_credentials.clone(),
                ..depot.as_ref().clone()
            })?,
        };
        Ok(Arc::new(PostgresSource { database, writing }))
    }
}

fn database(depot: &Depot) -> Result<Arc<Database>> {
    let settings = Settings::of(depot).map_err(|problems| {
        let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
        Error::new(&depot.meta.name, ErrorKind::Settings, messages.join("; "))
    })?;
    Ok(Arc::new(Database::new(settings)?))
}

#[derive(Debug)]
struct PostgresSource {
    database: Arc<Database>,
    /// The same database, as the user that writes: often the same one.
    writing: Arc<Database>,
}

#[async_trait]
impl Source for PostgresSource {
    fn depot(&self) -> &str {
        self.database.depot()
    }

    fn depot_type(&self) -> &'static str {
        "postgresql"
    }

    async fn collections(&self) -> Result<Vec<String>> {
        catalog::schemas(&self.database).await
    }

    async fn datasets(&self, collection: &str) -> Result<Vec<String>> {
        catalog::tables(&self.database, collection).await
    }

    async fn dataset(
        &self,
        collection: &str,
        dataset: &str,
        _session: &dyn Session,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(table) = self.database.table(collection, dataset).await? else {
            return Ok(None);
        };
        let address = Address::new(self.depot(), collection, dataset);
        let provider = RemoteTable::new(address, Arc::clone(&table.schema))
            .with_rows(table.rows.map_or(Precision::Absent, Precision::Inexact))
            .with_table_type(if table.is_view {
                TableType::View
            } else {
                TableType::Base
            })
            .with_filters(move |filter| sql::accepts(filter, &table));
        Ok(Some(Arc::new(provider)))
    }

    async fn columns(
        &self,
        collection: &str,
        datasets: &[String],
        _session: &dyn Session,
    ) -> Result<Vec<Result<Option<SchemaRef>>>> {
        let mut found = listing::columns(&self.database, collection, datasets).await?;
        Ok(datasets.iter().map(|dataset| Ok(found.remove(dataset))).collect())
    }

    fn writer(&self) -> Option<&dyn Writer> {
        Some(self)
    }

    fn read(&self, scan: &Scan, split: &Split, context: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        match split {
            Split::Whole => Ok(read::read(&self.database, scan, context.session_config().batch_size())),
            Split::Part { .. } | Split::Range { .. } => {
                Err(Error::new(self.depot(), ErrorKind::Internal, "it is read whole only")
                    .about_dataset(&scan.address.collection, &scan.address.dataset))
            }
        }
    }
}

//! The `mysql` depot: the databases of one MySQL or MariaDB server, and their tables and views.
//!
//! In: where a server is, and the credentials of a secret. Out: datasets, each read by one statement, in a stream of batches, with columns, comparisons and
//! limit applied by the server where that gives the same rows. Statements of several tables are computed by a MariaDB as far as `dialect.rs` knows how. It is
//! read only.

mod catalog;
mod connection;
mod decode;
mod dialect;
mod failure;
mod kind;
mod read;
mod settings;
mod sql;
mod statistics;
mod value;
mod whole;
mod wire;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::TableType;
use minerva_resources::{Address, Depot, Parameter, Problem};

use self::connection::Database;
use self::dialect::{MariadbDialect, MariadbRelation};
use self::settings::Settings;
use crate::figures::Known;
use crate::remote::narrowed;
use crate::{Around, Connector, Error, ErrorKind, RemoteTable, Result, Scan, ScanFilter, Source, Split};

/// Opens depots of type `mysql`.
#[derive(Debug)]
pub(crate) struct MysqlConnector;

#[async_trait]
impl Connector for MysqlConnector {
    fn depot_type(&self) -> &'static str {
        "mysql"
    }

    fn parameters(&self) -> &'static [Parameter] {
        settings::PARAMETERS
    }

    fn example(&self) -> &'static str {
        "name: shop
version: v2alpha
type: depot
depot:
  type: MYSQL
  mysql:
    subprotocol: mariadb
    host: db.example.com
    params: {sslmode: verify-full, sslrootcert: ./ca.pem}
  secrets:
    - name: shop-r
---
name: shop-r
version: v1
type: instance-secret
instance-secret:
  type: key-value-properties
  acl: r
  data: {username: reader, password: correct horse}
"
    }

    fn computes(&self) -> bool {
        true
    }

    fn check(&self, depot: &Depot) -> Vec<Problem> {
        Settings::of(depot).err().unwrap_or_default()
    }

    async fn open(&self, depot: &Arc<Depot>, around: &Around) -> Result<Arc<dyn Source>> {
        let settings = Settings::of(depot).map_err(|problems| {
            let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
            Error::new(&depot.meta.name, ErrorKind::Settings, messages.join("; "))
        })?;
        let database = Arc::new(Database::new(settings, &around.lender)?);
        database.reach().await?;
        Ok(Arc::new(MysqlSource {
            database,
            figures: Known::default(),
        }))
    }
}

#[derive(Debug)]
struct MysqlSource {
    database: Arc<Database>,
    figures: Known,
}

#[async_trait]
impl Source for MysqlSource {
    fn depot(&self) -> &str {
        self.database.depot()
    }

    fn depot_type(&self) -> &'static str {
        "mysql"
    }

    async fn collections(&self) -> Result<Vec<String>> {
        catalog::databases(&self.database).await
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
        let relation = MariadbRelation::of(&address, &table);
        let figures = statistics::of(&self.database, &self.figures, (collection, dataset), &table).await;
        let indexed = Arc::clone(&table);
        let mut provider = RemoteTable::new(address, Arc::clone(&table.schema))
            .with_rows(table.rows.map_or(Precision::Absent, Precision::Inexact))
            .with_statistics(figures)
            .with_table_type(if table.is_view {
                TableType::View
            } else {
                TableType::Base
            })
            .with_indexes(move |filter| {
                let mut found = false;
                filter.columns(&mut |name| found |= indexed.columns.get(name).is_some_and(|column| column.leads_index));
                found
            })
            .with_filters(move |filter| sql::accepts(filter, &table));
        if let Some(relation) = relation {
            provider = provider.with_relation(Arc::new(relation));
        }
        Ok(Some(Arc::new(provider)))
    }

    async fn columns(
        &self,
        collection: &str,
        datasets: &[String],
        _session: &dyn Session,
    ) -> Result<Vec<Result<Option<SchemaRef>>>> {
        let found = catalog::columns(&self.database, collection, datasets).await?;
        let schema = |name: &String| {
            let listed = found.get(name);
            listed
                .map(|listed| listed.schema(&self.database, collection, name))
                .transpose()
        };
        Ok(datasets.iter().map(schema).collect())
    }

    async fn narrowed(&self, scan: &Scan, filters: &[ScanFilter]) -> Option<Scan> {
        if let Some(query) = &scan.query {
            let query = narrowed(query, &scan.schema, filters, &MariadbDialect)?;
            return Some(Scan {
                query: Some(Arc::new(query)),
                ..scan.clone()
            });
        }
        let Address {
            collection, dataset, ..
        } = &scan.address;
        let table = match self.database.known_table(collection, dataset) {
            Some(table) => table,
            // What is wrong with it is said where it is read.
            None => self.database.table(collection, dataset).await.ok().flatten()?,
        };
        let known = |filter: &&ScanFilter| filter.all_leaves(&|leaf| sql::accepts(leaf, &table));
        let known: Vec<ScanFilter> = filters.iter().filter(known).cloned().collect();
        (!known.is_empty()).then(|| Scan {
            filters: scan.filters.iter().cloned().chain(known).collect(),
            ..scan.clone()
        })
    }

    fn read(&self, scan: &Scan, split: &Split, context: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        match split {
            Split::Whole => Ok(read::read(&self.database, scan, context.session_config().batch_size())),
            Split::Range { .. } | Split::Part { .. } => {
                Err(
                    Error::new(self.depot(), ErrorKind::Internal, "it is read by one statement")
                        .about_dataset(&scan.address.collection, &scan.address.dataset),
                )
            }
        }
    }
}

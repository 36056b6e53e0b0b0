//! The `postgresql` depot: the schemas of one database, and their tables and views.
//!
//! In: where a server is, and the credentials of a secret. Out: datasets, each read by one `COPY` in the binary format, in a
//! stream of batches, with columns, comparisons and limit applied by PostgreSQL where that gives the same rows.

mod allowed;
mod catalog;
mod column;
mod connection;
mod decode;
mod dialect;
mod encode;
mod failure;
#[cfg(test)]
mod fences;
mod kind;
mod listing;
mod parked;
mod place;
mod question;
mod read;
mod session;
mod settings;
mod snapshot;
mod sql;
mod statistics;
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
use crate::narrow::MOST_KEYS;
use crate::remote::narrowed;
use crate::slots::Lender;
use crate::{Around, Connector, Error, ErrorKind, RemoteTable, Result, Scan, ScanFilter, Seen, Source, Split, Writer};

pub use self::decode::CopyDecoder;
#[cfg(test)]
pub(crate) use self::dialect::PostgresDialect;
pub(crate) use self::settings::{TlsMode, expected_modes as expected_tls_modes};
pub(crate) use self::tls::Tls;

/// A reader has about so many pages, 16 MiB as PostgreSQL is usually built.
const FEWEST_PAGES: u64 = 2048;

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

    fn computes(&self) -> bool {
        true
    }

    fn check(&self, depot: &Depot) -> Vec<Problem> {
        Settings::of(depot).err().unwrap_or_default()
    }

    async fn open(&self, depot: &Arc<Depot>, around: &Around) -> Result<Arc<dyn Source>> {
        let database = database(depot, &around.lender)?;
        database.reach().await?;
        let writing = match depot.write_credentials == depot.credentials || !depot.writable {
            true => Arc::clone(&database),
            false => {
                let writer = Depot {
                    credentials: depot.write_credentials.clone(),
                    ..depot.as_ref().clone()
                };
                self::database(&writer, &around.lender)?
            }
        };
        Ok(Arc::new(PostgresSource { database, writing }))
    }
}

/// Each reader opens and locks all tables that the rows lie in. So many together leave the server's table of locks to others.
const MOST_OPENED: usize = 1024;

/// Ranges of pages that together are the whole table, however it has grown meanwhile. Rows that lie in several tables are divided by the pages of all of
/// them: a range is the same in each.
fn splits(tables: &[u64], readers: usize) -> Vec<Split> {
    let readers = readers.min(MOST_OPENED / tables.len().max(1));
    let up_to = |page: u64| tables.iter().map(|pages| u128::from(page.min(*pages))).sum::<u128>();
    let pages = up_to(u64::MAX);
    let few = u128::from(FEWEST_PAGES);
    let ranges = ((pages + few / 2) / few).min(readers as u128);
    let last = tables.iter().copied().max().unwrap_or_default();
    let mut bounds = vec![0];
    for range in 1..ranges {
        let wanted = pages * range / ranges;
        // The first page up to which there are so many.
        let (mut low, mut high) = (0, last);
        while low < high {
            let middle = low + (high - low) / 2;
            match up_to(middle) < wanted {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        if bounds.last() != Some(&low) && low < last {
            bounds.push(low);
        }
    }
    if bounds.len() < 2 {
        return vec![Split::Whole];
    }
    let ends = bounds.iter().skip(1).copied().chain([sql::LAST_PAGE]);
    bounds
        .iter()
        .zip(ends)
        .map(|(from, to)| Split::Range { from: *from, to })
        .collect()
}

fn database(depot: &Depot, lender: &Arc<dyn Lender>) -> Result<Arc<Database>> {
    let settings = Settings::of(depot).map_err(|problems| {
        let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
        Error::new(&depot.meta.name, ErrorKind::Settings, messages.join("; "))
    })?;
    Ok(Arc::new(Database::new(settings, lender)?))
}

#[derive(Debug)]
struct PostgresSource {
    database: Arc<Database>,
    /// The same database, as the user that writes: often the same one.
    writing: Arc<Database>,
}

impl PostgresSource {
    fn provider(&self, collection: &str, dataset: &str, table: Arc<catalog::Table>) -> Arc<dyn TableProvider> {
        let address = Address::new(self.depot(), collection, dataset);
        // Behind a pooler one reader reads it: a transaction that keeps a snapshot for others might wait for them to have a session.
        let splits = match self.database.session().is_shared() {
            true => vec![Split::Whole],
            false => splits(&table.pages, self.database.readers()),
        };
        let exporter = snapshot::Exporter::new(&self.database, collection, dataset, table.locked);
        let indexed = Arc::clone(&table);
        let relation = dialect::PostgresRelation::of(&address, &table);
        let mut provider = RemoteTable::new(address, Arc::clone(&table.schema))
            .with_rows(table.rows.map_or(Precision::Absent, Precision::Inexact))
            .with_statistics(table.statistics.clone())
            .with_table_type(if table.is_view {
                TableType::View
            } else {
                TableType::Base
            })
            .with_splits(splits)
            .with_snapshots(exporter.map(|exporter| Arc::new(exporter) as Arc<_>))
            .with_indexes(move |filter| {
                let mut found = false;
                filter.columns(&mut |name| found |= indexed.columns.get(name).is_some_and(|column| column.leads_index));
                found
            })
            .with_filters(move |filter| sql::accepts(filter, &table));
        if let Some(relation) = relation {
            provider = provider.with_relation(Arc::new(relation));
        }
        Arc::new(provider)
    }
}

/// So many keys are told to a server that compares each row with one after another.
const MOST_KEYS_SEARCHED: usize = 1_000;

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

    async fn listing(&self) -> Result<Option<Vec<(String, Vec<String>)>>> {
        listing::listing(&self.database).await.map(Some)
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
        Ok(Some(self.provider(collection, dataset, table)))
    }

    fn seen(&self, collection: &str, dataset: &str) -> Option<(Arc<dyn TableProvider>, String)> {
        let (table, state) = self.database.seen_table(collection, dataset)?;
        Some((self.provider(collection, dataset, table), state))
    }

    async fn are_as_seen(&self, seen: &[Seen]) -> Result<bool> {
        catalog::have_states(&self.database, seen).await
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

    async fn narrowed(&self, scan: &Scan, filters: &[ScanFilter]) -> Option<Scan> {
        if let Some(query) = &scan.query {
            let query = narrowed(query, &scan.schema, filters, &dialect::PostgresDialect)?;
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

    fn most_keys(&self) -> usize {
        match self.database.session().hashes_lists() {
            true => MOST_KEYS,
            false => MOST_KEYS_SEARCHED,
        }
    }

    fn writer(&self) -> Option<&dyn Writer> {
        Some(self)
    }

    fn read(&self, scan: &Scan, split: &Split, context: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        match split {
            Split::Whole | Split::Range { .. } => {
                let batch_rows = context.session_config().batch_size();
                Ok(read::read(&self.database, scan, *split, batch_rows))
            }
            Split::Part { .. } => Err(
                Error::new(self.depot(), ErrorKind::Internal, "it is read by ranges of pages")
                    .about_dataset(&scan.address.collection, &scan.address.dataset),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_pages_cover_a_table_once() {
        for pages in [0, FEWEST_PAGES, FEWEST_PAGES + FEWEST_PAGES / 2 - 1] {
            assert_eq!(splits(&[pages], 6), [Split::Whole]);
        }
        assert_eq!(splits(&[], 6), [Split::Whole]);
        assert_eq!(splits(&[1 << 30], 1), [Split::Whole]);
        let cases: [(&[u64], usize, usize); 6] = [
            (&[FEWEST_PAGES + FEWEST_PAGES / 2], 6, 2),
            (&[1 << 30], 6, 6),
            (&[u64::MAX - 1], 7, 7),
            (&[1 << 20, 0, 1 << 10], 4, 4),
            // So many tables that not every reader may open them, and so small that there is not much to divide.
            (&[1 << 10; 300], 8, 3),
            (&[2; 500], 8, 1),
        ];
        for (tables, readers, expected) in cases {
            let found = splits(tables, readers);
            assert_eq!(found.len(), expected, "{found:?}");
            if expected == 1 {
                assert_eq!(found, [Split::Whole]);
                continue;
            }
            let whole = Split::Range {
                from: 0,
                to: sql::LAST_PAGE,
            };
            assert_eq!(crate::scan::joined(&found), [whole]);
            assert!(
                found
                    .iter()
                    .all(|split| matches!(split, Split::Range { from, to } if from < to))
            );
        }
    }

    #[test]
    fn ranges_of_several_tables_have_as_many_pages() {
        let tables = [10_000, 40_000, 200_000, 0];
        let found = splits(&tables, 5);
        assert_eq!(found.len(), 5);
        for split in found {
            let Split::Range { from, to } = split else {
                panic!("{split:?}")
            };
            let pages: u64 = tables.iter().map(|pages| to.min(*pages) - from.min(*pages)).sum();
            assert!((49_990..=50_010).contains(&pages), "{split:?}: {pages}");
        }
    }
}

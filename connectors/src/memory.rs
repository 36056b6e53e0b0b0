//! The `memory` depot: tables that live in the coordinator's memory.
//!
//! In: batches that `CREATE TABLE AS` and `INSERT` hand over. Out: a table whose scan reads exactly the batches that
//! were there when the query was planned. Nothing is written to disk and nothing is sent to workers; a restart, or a
//! change of the depot's manifest, empties it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::memory::MemoryStream;
use futures::TryStreamExt;
use minerva_resources::{Address, Depot, Parameter};

use crate::writer::named_twice;
use crate::{Around, Change, Connector, Error, ErrorKind, RemoteTable, Result, Scan, Source, Split, Writer};

/// The collection that is there before any table is.
const DEFAULT_COLLECTION: &str = "public";

/// No table is cut in more pieces than this.
const MOST_SPLITS: usize = 64;

/// Opens depots of type `memory`.
#[derive(Debug)]
pub(crate) struct MemoryConnector;

#[async_trait]
impl Connector for MemoryConnector {
    fn depot_type(&self) -> &'static str {
        "memory"
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[]
    }

    fn is_remote(&self) -> bool {
        false
    }

    fn example(&self) -> &'static str {
        "name: scratch\nversion: v2alpha\ntype: depot\ndepot:\n  type: memory\n  memory: {}\n"
    }

    async fn open(&self, depot: &Arc<Depot>, _around: &Around) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(MemorySource {
            depot: depot.meta.name.clone(),
            tables: RwLock::default(),
        }))
    }
}

#[derive(Debug)]
struct MemorySource {
    depot: String,
    tables: RwLock<Tables>,
}

/// Tables by collection and dataset.
type Tables = BTreeMap<(String, String), Table>;

#[derive(Debug)]
struct Table {
    schema: SchemaRef,
    /// Only ever grows, so that a range of it means the same as long as the table lives.
    batches: Vec<RecordBatch>,
}

impl MemorySource {
    // Each change of the map is one call that cannot fail half way, so a poisoned lock holds whole tables.
    fn read_tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_tables(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, collection: &str, dataset: &str, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(&self.depot, kind, message).about_dataset(collection, dataset)
    }

    /// The rows as rows of a table of this schema.
    fn conform(
        &self,
        (collection, dataset): (&str, &str),
        schema: &SchemaRef,
        rows: Vec<RecordBatch>,
    ) -> Result<Vec<RecordBatch>> {
        let error = |kind, message: String| self.error(collection, dataset, kind, message);
        let mut conformed = Vec::with_capacity(rows.len());
        for batch in rows.into_iter().filter(|batch| batch.num_rows() > 0) {
            if batch.num_columns() != schema.fields().len() {
                let message = format!(
                    "expected {} columns, found {}",
                    schema.fields().len(),
                    batch.num_columns()
                );
                return Err(error(ErrorKind::Unsupported, message));
            }
            for (field, column) in schema.fields().iter().zip(batch.columns()) {
                if field.data_type() != column.data_type() {
                    let (name, expected, found) = (field.name(), field.data_type(), column.data_type());
                    let message = format!("column `{name}` has type {expected}, but the rows have {found}");
                    return Err(error(ErrorKind::Unsupported, message));
                }
                if !field.is_nullable() && column.null_count() > 0 {
                    let message = format!("column `{}` does not take NULL", field.name());
                    return Err(error(ErrorKind::BadValue, message));
                }
            }
            let batch = RecordBatch::try_new(Arc::clone(schema), batch.columns().to_vec())
                .map_err(|failure| error(ErrorKind::Internal, failure.to_string()))?;
            conformed.push(batch);
        }
        Ok(conformed)
    }
}

#[async_trait]
impl Source for MemorySource {
    fn depot(&self) -> &str {
        &self.depot
    }

    fn depot_type(&self) -> &'static str {
        "memory"
    }

    async fn collections(&self) -> Result<Vec<String>> {
        let tables = self.read_tables();
        let mut names: Vec<String> = tables.keys().map(|(collection, _)| collection.clone()).collect();
        names.push(DEFAULT_COLLECTION.to_owned());
        names.sort();
        names.dedup();
        Ok(names)
    }

    async fn datasets(&self, collection: &str) -> Result<Vec<String>> {
        let tables = self.read_tables();
        Ok(tables
            .keys()
            .filter(|(name, _)| name == collection)
            .map(|(_, dataset)| dataset.clone())
            .collect())
    }

    async fn dataset(
        &self,
        collection: &str,
        dataset: &str,
        _session: &dyn Session,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        let tables = self.read_tables();
        let Some(table) = tables.get(&(collection.to_owned(), dataset.to_owned())) else {
            return Ok(None);
        };
        let address = Address {
            depot: self.depot.clone(),
            collection: collection.to_owned(),
            dataset: dataset.to_owned(),
        };
        let rows = table.batches.iter().map(RecordBatch::num_rows).sum();
        let provider = RemoteTable::new(address, Arc::clone(&table.schema))
            .with_rows(Precision::Exact(rows))
            .with_splits(splits(table.batches.len()));
        Ok(Some(Arc::new(provider)))
    }

    fn read(&self, scan: &Scan, split: &Split, _context: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Address {
            collection, dataset, ..
        } = &scan.address;
        let changed = || {
            self.error(
                collection,
                dataset,
                ErrorKind::Changed,
                "it was replaced while the query ran; run it again",
            )
        };
        let tables = self.read_tables();
        let table = tables.get(&(collection.clone(), dataset.clone())).ok_or_else(changed)?;
        let Split::Range { from, to } = *split else {
            return Err(self.error(collection, dataset, ErrorKind::Internal, "it is read by ranges only"));
        };
        let range = usize::try_from(from).unwrap_or(usize::MAX)..usize::try_from(to).unwrap_or(usize::MAX);
        let batches = table.batches.get(range).ok_or_else(changed)?.to_vec();
        let columns: Option<Vec<usize>> = scan
            .schema
            .fields()
            .iter()
            .map(|wanted| {
                table
                    .schema
                    .column_with_name(wanted.name())
                    .filter(|(_, found)| *found == wanted.as_ref())
            })
            .map(|found| found.map(|(position, _)| position))
            .collect();
        let columns = columns.ok_or_else(changed)?;
        let stream = MemoryStream::try_new(batches, Arc::clone(&scan.schema), Some(columns))
            .map_err(|failure| self.error(collection, dataset, ErrorKind::Internal, failure.to_string()))?;
        Ok(Box::pin(stream))
    }

    fn distributable(&self) -> bool {
        false
    }

    fn writer(&self) -> Option<&dyn Writer> {
        Some(self)
    }
}

#[async_trait]
impl Writer for MemorySource {
    fn stored(&self, columns: &Schema) -> Result<SchemaRef> {
        if let Some(name) = named_twice(columns, |left, right| left == right) {
            let message = format!("column `{name}` is named twice; give one of them another name");
            return Err(Error::new(&self.depot, ErrorKind::Unsupported, message));
        }
        Ok(Arc::new(columns.clone()))
    }

    async fn create(
        &self,
        collection: &str,
        dataset: &str,
        rows: SendableRecordBatchStream,
    ) -> datafusion::error::Result<u64> {
        let schema = self.stored(&rows.schema())?;
        let batches = self.conform((collection, dataset), &schema, rows.try_collect().await?)?;
        let count = count(&batches);
        let mut tables = self.write_tables();
        let key = (collection.to_owned(), dataset.to_owned());
        if tables.contains_key(&key) {
            let message = "there is a table of this name already";
            return Err(self
                .error(collection, dataset, ErrorKind::AlreadyExists, message)
                .into());
        }
        tables.insert(key, Table { schema, batches });
        Ok(count)
    }

    async fn append(
        &self,
        collection: &str,
        dataset: &str,
        rows: SendableRecordBatchStream,
    ) -> datafusion::error::Result<u64> {
        let batches: Vec<RecordBatch> = rows.try_collect().await?;
        let mut tables = self.write_tables();
        let Some(table) = tables.get_mut(&(collection.to_owned(), dataset.to_owned())) else {
            let message = "there is no table of this name";
            return Err(self.error(collection, dataset, ErrorKind::NotFound, message).into());
        };
        let batches = self.conform((collection, dataset), &table.schema, batches)?;
        let count = count(&batches);
        table.batches.extend(batches);
        Ok(count)
    }

    async fn remove(&self, collection: &str, dataset: &str) -> Result<bool> {
        Ok(self
            .write_tables()
            .remove(&(collection.to_owned(), dataset.to_owned()))
            .is_some())
    }

    fn has_defaults(&self) -> bool {
        false
    }

    async fn change(&self, collection: &str, dataset: &str) -> Result<Box<dyn Change>> {
        let message = "the rows of depots of type `memory` cannot be changed; make a new table with CREATE TABLE AS";
        Err(self.error(collection, dataset, ErrorKind::Unsupported, message))
    }
}

fn count(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|batch| batch.num_rows() as u64).sum()
}

/// Ranges that cover so many batches; one empty range when there are none.
fn splits(batches: usize) -> Vec<Split> {
    let pieces = batches.clamp(1, MOST_SPLITS);
    let edge = |piece: usize| (batches * piece / pieces) as u64;
    (0..pieces)
        .map(|piece| Split::Range {
            from: edge(piece),
            to: edge(piece + 1),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::conformance::{self, Failure, Subject, stream_of};
    use crate::testing::{depots, session, table};

    const MANIFEST: &str = "name: scratch\nversion: v2alpha\ntype: depot\ndepot:\n  type: memory\n  memory: {}\n";

    #[tokio::test]
    async fn conforms() {
        let folder = tempfile::tempdir().unwrap();
        let depots = depots(folder.path(), MANIFEST);
        let samples = conformance::samples().unwrap_or_else(|Failure(message)| panic!("{message}"));
        let source = depots.open("scratch").await.unwrap();
        for sample in &samples {
            let half = sample.rows.num_rows() / 2;
            let (schema, rest) = (sample.rows.schema(), sample.rows.num_rows() - half);
            let writer = source.writer().unwrap();
            let rows = |from, rows| stream_of(&schema, vec![sample.rows.slice(from, rows)]);
            writer.create("public", &sample.name, rows(0, half)).await.unwrap();
            writer.append("public", &sample.name, rows(half, rest)).await.unwrap();
        }
        let (depot, collection) = ("scratch".to_owned(), "public".to_owned());
        let subject = Subject {
            depots,
            depot,
            collection,
            samples,
            writes: true,
        };
        let mut failures = conformance::check(&subject).await;
        failures.extend(conformance::check_server(&subject, None).await);
        assert!(failures.is_empty(), "{}", Failure::all(&failures));
    }

    #[tokio::test]
    async fn a_query_sees_the_rows_of_its_planning_and_new_tables_only_fit_rows() {
        let folder = tempfile::tempdir().unwrap();
        let depots = depots(folder.path(), MANIFEST);
        let source = depots.open("scratch").await.unwrap();
        let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
        let rows = |values: Vec<Option<i64>>| {
            let nullable = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
            let batch = RecordBatch::try_new(Arc::clone(&nullable), vec![Arc::new(Int64Array::from(values))]).unwrap();
            stream_of(&nullable, vec![batch])
        };
        let first = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from(vec![1, 2]))]).unwrap();
        let writer = source.writer().unwrap();
        writer
            .create("new", "t", stream_of(&schema, vec![first]))
            .await
            .unwrap();
        assert_eq!(source.collections().await.unwrap(), ["new", "public"]);
        assert!(!source.distributable());

        let session = session(&depots);
        let plan = table(&depots, "scratch", "new", "t")
            .await
            .scan(&session, None, &[], None)
            .await
            .unwrap();
        writer.append("new", "t", rows(vec![Some(3)])).await.unwrap();
        let found = datafusion::physical_plan::collect(Arc::clone(&plan), session.task_ctx())
            .await
            .unwrap();
        assert_eq!(count(&found), 2);

        let refused = writer.append("new", "t", rows(vec![Some(4), None])).await.unwrap_err();
        assert_eq!(
            Error::find(&refused).unwrap().to_string(),
            "depot `scratch`: `new.t`: column `id` does not take NULL"
        );
        assert!(writer.remove("new", "t").await.unwrap());
        let gone = datafusion::physical_plan::collect(plan, session.task_ctx())
            .await
            .unwrap_err();
        assert_eq!(Error::find(&gone).unwrap().kind, ErrorKind::Changed);
    }
}

//! The table provider of sources that are read through [`ScanExec`].
//!
//! In: a dataset's address, schema, splits and row count, and which filters its source applies exactly. Out: a leaf with
//! the projection, filters and limit that the query allows. It reads nothing itself.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{Column, DFSchema, Statistics};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExecBuilder;
use minerva_resources::Address;

use crate::remote::Relation;
use crate::scan_exec::{Held, deal};
use crate::statistics::{ColumnStatistics, Known, share};
use crate::{Scan, ScanExec, ScanFilter, Split};

/// A larger share of a table's rows is not found by an index: the table is read.
const LARGEST_FOUND: f64 = 0.2;

type Accepts = Arc<dyn Fn(&ScanFilter) -> bool + Send + Sync>;

/// Makes states of a source that several readers can read at the same time, although others write meanwhile.
#[async_trait]
pub(crate) trait Snapshots: Send + Sync {
    /// A snapshot of now; `None` when the source cannot make one.
    async fn take(&self) -> crate::Result<Option<Snapshot>>;

    /// Whether other processes can read by a snapshot, and others write while it is held.
    fn is_shared(&self) -> bool {
        true
    }
}

/// What a session's configuration has as an extension when its plans are for several processes, or their rows are written somewhere: by a snapshot that is not shared
/// nothing is read then.
#[derive(Debug)]
pub struct SharedSnapshotsOnly;

/// A state of a source.
pub(crate) struct Snapshot {
    /// How the source calls it.
    pub(crate) name: String,
    /// What keeps it alive.
    pub(crate) held: Arc<dyn Held>,
}

/// The same table, planned by what its source knows of the values of its columns. Plans can be looked at: it is for tables that nothing governs.
pub fn estimated(table: Arc<dyn TableProvider>) -> Arc<dyn TableProvider> {
    match table.downcast_ref::<RemoteTable>() {
        Some(remote) => Arc::new(RemoteTable {
            is_estimated: true,
            ..remote.clone()
        }),
        None => table,
    }
}

/// A dataset that is read through [`ScanExec`].
#[derive(Clone)]
pub struct RemoteTable {
    address: Address,
    schema: SchemaRef,
    splits: Vec<Split>,
    rows: Precision<usize>,
    statistics: Arc<HashMap<String, Arc<ColumnStatistics>>>,
    /// Whether leaves are planned by the statistics. They count rows that a policy hides, too.
    is_estimated: bool,
    table_type: TableType,
    accepts: Accepts,
    /// Whether a source finds the rows of a filter without reading all of them.
    finds: Accepts,
    snapshots: Option<Arc<dyn Snapshots>>,
    relation: Option<Arc<dyn Relation>>,
}

impl RemoteTable {
    /// A dataset that is read whole, whose source applies no filters.
    pub fn new(address: Address, schema: SchemaRef) -> RemoteTable {
        RemoteTable {
            address,
            schema,
            splits: vec![Split::Whole],
            rows: Precision::Absent,
            statistics: Arc::default(),
            is_estimated: false,
            table_type: TableType::Base,
            accepts: Arc::new(|_| false),
            finds: Arc::new(|_| false),
            snapshots: None,
            relation: None,
        }
    }

    /// How its source writes it, when more than scans may be pushed down to it.
    pub(crate) fn with_relation(self, relation: Arc<dyn Relation>) -> RemoteTable {
        RemoteTable {
            relation: Some(relation),
            ..self
        }
    }

    pub(crate) fn relation(&self) -> Option<&Arc<dyn Relation>> {
        self.relation.as_ref()
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn splits(&self) -> &[Split] {
        &self.splits
    }

    pub(crate) fn snapshots(&self) -> Option<Arc<dyn Snapshots>> {
        self.snapshots.clone()
    }

    /// How many rows it has, as far as this is known.
    pub(crate) fn known_rows(&self) -> Option<usize> {
        self.rows.get_value().copied()
    }

    /// Whether the source finds the rows of a filter without reading all of them.
    pub(crate) fn finds(&self, filter: &ScanFilter) -> bool {
        (self.finds)(filter)
    }

    /// The share of its rows that the source finds by an index, and reads no others, when some of these filters have it do so and they are not many.
    pub(crate) fn found_share(&self, filters: &[(&Expr, ScanFilter)], known: Known<'_>) -> Option<f64> {
        let found: Vec<&Expr> = (filters.iter())
            .filter(|(_, filter)| self.is_found(filter))
            .map(|(expr, _)| *expr)
            .collect();
        let columns = found.iter().flat_map(|expr| expr.column_refs());
        let is_known = columns.into_iter().any(|column| known(column).is_some());
        let share = share(found.iter().copied(), known);
        (!found.is_empty() && (!is_known || share <= LARGEST_FOUND)).then_some(share)
    }

    fn is_found(&self, filter: &ScanFilter) -> bool {
        match filter {
            ScanFilter::All(filters) => filters.iter().any(|filter| self.is_found(filter)),
            ScanFilter::Any(filters) => !filters.is_empty() && filters.iter().all(|filter| self.is_found(filter)),
            leaf => (self.finds)(leaf),
        }
    }

    /// The pieces it can be read in.
    pub fn with_splits(self, splits: Vec<Split>) -> RemoteTable {
        RemoteTable { splits, ..self }
    }

    /// Where the pieces get the same state of the source from, if it can be had.
    pub(crate) fn with_snapshots(self, snapshots: Option<Arc<dyn Snapshots>>) -> RemoteTable {
        RemoteTable { snapshots, ..self }
    }

    /// Which filters the source answers from an index: with one of them it is not read in pieces.
    pub(crate) fn with_indexes(self, finds: impl Fn(&ScanFilter) -> bool + Send + Sync + 'static) -> RemoteTable {
        RemoteTable {
            finds: Arc::new(finds),
            ..self
        }
    }

    /// How many rows it has.
    pub fn with_rows(self, rows: Precision<usize>) -> RemoteTable {
        RemoteTable { rows, ..self }
    }

    /// What its source knows of the values of its columns.
    pub(crate) fn with_statistics(self, statistics: Arc<HashMap<String, Arc<ColumnStatistics>>>) -> RemoteTable {
        RemoteTable { statistics, ..self }
    }

    /// What is known of the values of a column.
    pub(crate) fn statistics_of(&self, column: &str) -> Option<Arc<ColumnStatistics>> {
        self.statistics.get(column).cloned()
    }

    /// Whether it is a table or a view of its source.
    pub fn with_table_type(self, table_type: TableType) -> RemoteTable {
        RemoteTable { table_type, ..self }
    }

    /// Which comparisons and NULL tests the source decides exactly as DataFusion would.
    pub fn with_filters(self, accepts: impl Fn(&ScanFilter) -> bool + Send + Sync + 'static) -> RemoteTable {
        RemoteTable {
            accepts: Arc::new(accepts),
            ..self
        }
    }

    /// The leaf that reads some columns of the rows for which filters hold.
    async fn leaf(
        &self,
        session: &dyn Session,
        schema: SchemaRef,
        filters: Vec<(&Expr, ScanFilter)>,
        limit: Option<usize>,
    ) -> Result<ScanExec> {
        let known = |column: &Column| match self.is_estimated {
            true => self.statistics_of(&column.name),
            false => None,
        };
        // What an index or a limit makes short is not worth several readers.
        let is_short = limit.is_some() || self.found_share(&filters, &known).is_some();
        let rows = match (filters.is_empty(), self.is_estimated) {
            (true, _) => self.rows,
            (false, false) => self.rows.to_inexact(),
            (false, true) => {
                let share = share(filters.iter().map(|(expr, _)| *expr), &known);
                let left = |rows: usize| ((rows as f64 * share) as usize).max(1);
                self.rows.map(left).to_inexact()
            }
        };
        let filters = filters.into_iter().map(|(_, filter)| filter).collect();
        let scan = Scan {
            address: self.address.clone(),
            schema,
            filters,
            limit,
            snapshot: None,
            query: None,
        };
        let columns = scan.schema.fields().iter().map(|field| {
            let known = known(&Column::new_unqualified(field.name()))?;
            Some(known.planned(*rows.get_value()? as f64))
        });
        let columns = columns.map(Option::unwrap_or_default).collect();
        let ready = ReadyScan::of(session, scan, &self.splits, self.snapshots.as_ref(), is_short).await?;
        Ok(ready.into_exec(session, rows).with_column_statistics(columns))
    }

    fn filter(&self, expr: &Expr) -> Option<ScanFilter> {
        ScanFilter::from_expr(expr, &self.schema).filter(|filter| filter.all_leaves(self.accepts.as_ref()))
    }
}

impl fmt::Debug for RemoteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteTable")
            .field("address", &self.address.to_string())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for RemoteTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        self.table_type
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |expr: &&Expr| match self.filter(expr) {
            Some(_) => TableProviderFilterPushDown::Exact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(Statistics::new_unknown(&self.schema).with_num_rows(self.rows))
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let mut columns = projection.unwrap_or(&all).clone();
        let shown = columns.len();
        let (mut accepted, mut others) = (Vec::new(), Vec::new());
        for expr in filters {
            match self.filter(expr) {
                Some(filter) => accepted.push((expr, filter)),
                None => others.push(unnormalize_col(expr.clone())),
            }
        }
        // A filter that was promised may have been simplified into one that never was; nobody above applies it.
        let Some(others) = conjunction(others) else {
            let schema = Arc::new(self.schema.project(&columns)?);
            return Ok(Arc::new(self.leaf(session, schema, accepted, limit).await?));
        };
        for column in others.column_refs() {
            let index = self.schema.index_of(&column.name)?;
            if !columns.contains(&index) {
                columns.push(index);
            }
        }
        let schema = Arc::new(self.schema.project(&columns)?);
        let predicate = session.create_physical_expr(others, &DFSchema::try_from(Arc::clone(&schema))?)?;
        let leaf = Arc::new(self.leaf(session, schema, accepted, None).await?);
        let filtered = FilterExecBuilder::new(predicate, leaf).apply_projection(Some((0..shown).collect()))?;
        Ok(Arc::new(filtered.build()?))
    }
}

/// A scan that is ready to be read, in pieces if these can be had at one moment.
pub(crate) struct ReadyScan {
    scan: Scan,
    splits: Vec<Split>,
    held: Option<Arc<dyn Held>>,
}

impl ReadyScan {
    pub(crate) async fn of(
        session: &dyn Session,
        mut scan: Scan,
        splits: &[Split],
        snapshots: Option<&Arc<dyn Snapshots>>,
        is_short: bool,
    ) -> Result<ReadyScan> {
        let mut splits = splits.to_vec();
        let mut held = None;
        if let Some(snapshots) = snapshots.filter(|_| splits.len() > 1) {
            let shared_only = session.config().get_extension::<SharedSnapshotsOnly>().is_some();
            let is_whole = is_short || (shared_only && !snapshots.is_shared());
            match if is_whole { None } else { snapshots.take().await? } {
                Some(snapshot) => {
                    scan.snapshot = Some(snapshot.name);
                    held = Some(snapshot.held);
                }
                None => splits = vec![Split::Whole],
            }
        }
        Ok(ReadyScan { scan, splits, held })
    }

    /// The leaf of a session's plan that reads it.
    pub(crate) fn into_exec(self, session: &dyn Session, rows: Precision<usize>) -> ScanExec {
        let partitions = session.config().target_partitions().min(self.splits.len()).max(1);
        ScanExec::new(self.scan, deal(&self.splits, partitions), rows).holding(self.held)
    }
}

//! The table provider of sources that are read through [`ScanExec`].
//!
//! In: a dataset's address, schema, splits and row count, and which filters its source applies exactly. Out: a leaf with
//! the projection, filters and limit that the query allows. It reads nothing itself.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use minerva_resources::Address;

use crate::scan_exec::deal;
use crate::{Scan, ScanExec, ScanFilter, Split};

type Accepts = Box<dyn Fn(&ScanFilter) -> bool + Send + Sync>;

/// A dataset that is read through [`ScanExec`].
pub struct RemoteTable {
    address: Address,
    schema: SchemaRef,
    splits: Vec<Split>,
    rows: Precision<usize>,
    table_type: TableType,
    accepts: Accepts,
}

impl RemoteTable {
    /// A dataset that is read whole, whose source applies no filters.
    pub fn new(address: Address, schema: SchemaRef) -> RemoteTable {
        RemoteTable {
            address,
            schema,
            splits: vec![Split::Whole],
            rows: Precision::Absent,
            table_type: TableType::Base,
            accepts: Box::new(|_| false),
        }
    }

    /// The pieces it can be read in.
    pub fn with_splits(self, splits: Vec<Split>) -> RemoteTable {
        RemoteTable { splits, ..self }
    }

    /// How many rows it has.
    pub fn with_rows(self, rows: Precision<usize>) -> RemoteTable {
        RemoteTable { rows, ..self }
    }

    /// Whether it is a table or a view of its source.
    pub fn with_table_type(self, table_type: TableType) -> RemoteTable {
        RemoteTable { table_type, ..self }
    }

    /// Which comparisons and NULL tests the source decides exactly as DataFusion would.
    pub fn with_filters(self, accepts: impl Fn(&ScanFilter) -> bool + Send + Sync + 'static) -> RemoteTable {
        RemoteTable {
            accepts: Box::new(accepts),
            ..self
        }
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
        let accepted: Vec<ScanFilter> = filters.iter().filter_map(|expr| self.filter(expr)).collect();
        // A filter that was not promised is applied above this leaf, so rows that it drops must not count.
        let limit = limit.filter(|_| accepted.len() == filters.len());
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let scan = Scan {
            address: self.address.clone(),
            schema,
            filters: accepted,
            limit,
        };
        let partitions = session.config().target_partitions().min(self.splits.len()).max(1);
        Ok(Arc::new(ScanExec::new(scan, deal(&self.splits, partitions), self.rows)))
    }
}

//! A table whose source is asked for whole rows only: push-down switched off.
//!
//! In: a table. Out: a table with the same rows, all of whose filters and limits stay with the engine. The columns are still chosen by the
//! source, which decides about no row. It is how a wrong answer of a source is told from one of the engine.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Statistics;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::ScanExec;
use crate::files;

/// The same table, whose source applies no filter and no limit.
pub fn unpushed(table: Arc<dyn TableProvider>) -> Arc<dyn TableProvider> {
    Arc::new(Unpushed(table))
}

#[derive(Debug)]
struct Unpushed(Arc<dyn TableProvider>);

#[async_trait]
impl TableProvider for Unpushed {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        self.0.table_type()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Unsupported; filters.len()])
    }

    fn statistics(&self) -> Option<Statistics> {
        self.0.statistics()
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = self.0.scan(session, projection, &[], None).await?;
        // Physical rules offer filters and limits to leaves once more.
        let closed = plan.transform_up(|node| {
            Ok(match closed(node.as_ref()) {
                Some(closed) => Transformed::yes(closed),
                None => Transformed::no(node),
            })
        });
        closed.data()
    }
}

/// The leaf that takes no more filters and limits.
fn closed(node: &dyn ExecutionPlan) -> Option<Arc<dyn ExecutionPlan>> {
    match node.downcast_ref::<ScanExec>() {
        Some(scan) => Some(Arc::new(scan.clone().without_limits())),
        None => files::without_filters(node),
    }
}

//! Rows of Parquet files that are left out by the keys of a join while the file is decoded.
//!
//! A join that has read one side tells the other which keys it needs. Where these are few of those that a file has, the other columns need not be decoded for most rows: the key
//! is decoded first, and the rest for rows with such a key only. In: the source of a scan, and one of its files. Out: the source that reads this file so, if that is worth it.
//! The join looks at each row anyway. Conditions that are no such list stay where they are, above the scan: here they may prune, but no row is asked for them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::{Result, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileSource, ParquetSource};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::expressions::{Column, DynamicFilterPhysicalExpr, InListExpr, Literal, lit};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, conjunction, split_conjunction};

use super::keys::{Keys, whole};
use super::short_lists::told;

/// A list is worth asking each row for where so many times as many keys are possible.
const FEW: u64 = 10;
/// Preparing a file for a list of keys looks at each of them several times: there have to be so many rows for each.
pub const FILE_ROWS_FOR_A_KEY: usize = 50;

/// The source that reads one file and leaves out rows by a list of keys; `None` where there is no list or it leaves too many.
pub(super) fn with_row_lists(source: &Arc<dyn FileSource>, file: &PartitionedFile) -> Option<Arc<dyn FileSource>> {
    let parquet = source.downcast_ref::<ParquetSource>()?;
    // Where the scan decides about its filters, nothing above it does.
    if parquet.table_parquet_options().global.pushdown_filters {
        return None;
    }
    let statistics = file.statistics.as_deref()?;
    let filter = parquet.filter()?;
    // Lists first: for the rows that they leave the columns of the others are decoded.
    let (mut lists, mut others) = (Vec::new(), Vec::new());
    for part in split_conjunction(&filter) {
        let list = told(part).and_then(|filter| list_of(filter, statistics));
        let parts = if list.is_some() { &mut lists } else { &mut others };
        let part: Arc<dyn PhysicalExpr> = Arc::new(Rows {
            prunes: Arc::clone(part),
            keeps: list.unwrap_or_else(|| lit(true)),
        });
        parts.push(part);
    }
    if lists.is_empty() {
        return None;
    }
    lists.append(&mut others);
    let mut options = parquet.table_parquet_options().clone();
    options.global.pushdown_filters = true;
    // What is looked at is kept for the rows that are read, so that it is not decoded again. Of another column whole batches would be decoded to keep a row of each.
    if collect_columns(&filter).len() > 1 {
        options.global.max_predicate_cache_size = Some(0);
    }
    let source = parquet
        .with_predicate(conjunction(lists))
        .with_table_parquet_options(options);
    Some(Arc::new(source))
}

/// The list that is part of what a join tells, if the file has many more keys.
fn list_of(told: &DynamicFilterPhysicalExpr, statistics: &Statistics) -> Option<Arc<dyn PhysicalExpr>> {
    let now = told.current().ok()?;
    let parts = split_conjunction(&now);
    let mut lists = parts
        .into_iter()
        .filter(|part| is_few(part, statistics).unwrap_or(false));
    lists
        .next()
        .map(|list| Keys::of(list).unwrap_or_else(|| Arc::clone(list)))
}

/// Whether a condition is a list of few of the whole numbers that a column may have.
fn is_few(condition: &Arc<dyn PhysicalExpr>, statistics: &Statistics) -> Option<bool> {
    let list = condition.downcast_ref::<InListExpr>().filter(|list| !list.negated())?;
    let column = list.expr().downcast_ref::<Column>()?;
    let known = statistics.column_statistics.get(column.index())?;
    let least = whole(known.min_value.get_value()?)?;
    let greatest = whole(known.max_value.get_value()?)?;
    let rows = *statistics.num_rows.get_value()?;
    let keys = u64::try_from(list.len()).ok()?;
    Some(list.len() <= rows / FILE_ROWS_FOR_A_KEY && keys.saturating_mul(FEW) <= greatest.abs_diff(least))
}

/// A condition by which a file is pruned, and the one that its rows are asked for.
#[derive(Debug)]
struct Rows {
    prunes: Arc<dyn PhysicalExpr>,
    keeps: Arc<dyn PhysicalExpr>,
}

impl PartialEq for Rows {
    fn eq(&self, other: &Self) -> bool {
        self.prunes.eq(&other.prunes) && self.keeps.eq(&other.keeps)
    }
}

impl Eq for Rows {}

impl Hash for Rows {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.prunes.hash(state);
        self.keeps.hash(state);
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.prunes.fmt(f)
    }
}

impl PhysicalExpr for Rows {
    fn data_type(&self, _schema: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.keeps.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.keeps.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.keeps.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.prunes, &self.keeps]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        match <[Arc<dyn PhysicalExpr>; 2]>::try_from(children) {
            // What a file has no column for is decided for all of its rows.
            Ok([prunes, keeps]) if prunes.is::<Literal>() && keeps.is::<Literal>() => Ok(prunes),
            Ok([prunes, keeps]) => Ok(Arc::new(Rows { prunes, keeps })),
            Err(_) => Ok(self),
        }
    }

    /// What prunes by a condition takes it apart, and asks for what it is now first.
    fn snapshot(&self) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        Ok(Some(Arc::clone(&self.prunes)))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.prunes.fmt_sql(f)
    }
}

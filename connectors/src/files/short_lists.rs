//! What files are told of the keys of a join: their range, and a list where it is short.
//!
//! A join that has read one side tells the other which keys it needs, as a list of up to [`crate::narrow::MOST_KEYS`], which a database can look up. A Parquet file's
//! statistics can answer for a few values at most; to plan with a long list takes longer than to read the rows. In: the source of a scan. Out: the same, whose
//! filters of running operators have no long lists. It finds no fewer rows, and the join looks at each of them anyway.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::{FileSource, ParquetSource};
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, DynamicFilterPhysicalExpr, DynamicFilterTracking, InListExpr, lit,
};
use datafusion::physical_expr_common::physical_expr::snapshot_physical_expr;

/// As many values as DataFusion has in such lists when it is not told otherwise.
const MOST_VALUES: usize = 150;

/// The source that opens the files.
pub(super) fn with_short_lists(source: &Arc<dyn FileSource>) -> Arc<dyn FileSource> {
    let shorter = || {
        let parquet = source.downcast_ref::<ParquetSource>()?;
        let shown = shown(parquet.filter()?).ok()?;
        let source: Arc<dyn FileSource> = Arc::new(parquet.with_predicate(shown.transformed.then_some(shown.data)?));
        Some(source)
    };
    shorter().unwrap_or_else(|| Arc::clone(source))
}

fn shown(predicate: Arc<dyn PhysicalExpr>) -> Result<Transformed<Arc<dyn PhysicalExpr>>> {
    predicate.transform_down(|part| {
        Ok(match part.is::<DynamicFilterPhysicalExpr>() {
            true => Transformed::new(Arc::new(ShortLists(part)), true, TreeNodeRecursion::Jump),
            false => Transformed::no(part),
        })
    })
}

/// A filter that is known while a plan runs; what is asked for its value of the moment sees it without long lists.
#[derive(Debug)]
struct ShortLists(Arc<dyn PhysicalExpr>);

/// What a join tells, where a condition is that.
pub(super) fn told(condition: &Arc<dyn PhysicalExpr>) -> Option<&DynamicFilterPhysicalExpr> {
    let shown = condition.downcast_ref::<ShortLists>();
    shown
        .map_or(condition, |shown| &shown.0)
        .downcast_ref::<DynamicFilterPhysicalExpr>()
}

impl PartialEq for ShortLists {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq(&other.0)
    }
}

impl Eq for ShortLists {}

impl Hash for ShortLists {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for ShortLists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match snapshot_physical_expr(Arc::clone(&self.0)).and_then(shortened) {
            // Before it is known it says so.
            Ok(now) if !now.eq(&lit(true)) => write!(f, "DynamicFilter [ {now} ]"),
            _ => self.0.fmt(f),
        }
    }
}

impl PhysicalExpr for ShortLists {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.0.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.0.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.0.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.0.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.0]
    }

    /// Where the filter has been replaced by its value of the moment, that value without long lists.
    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let Some(filter) = children.into_iter().next() else {
            return Ok(self);
        };
        match DynamicFilterTracking::classify(&filter).contains_dynamic_filter() {
            true => Ok(Arc::new(ShortLists(filter))),
            false => shortened(filter),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}

/// The condition with TRUE in place of long lists that are conditions themselves. Whatever has met the condition meets this one.
fn shortened(condition: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    if let Some(list) = condition.downcast_ref::<InListExpr>() {
        let is_long = !list.negated() && list.len() > MOST_VALUES;
        return Ok(if is_long { lit(true) } else { condition });
    }
    if let Some(both) = condition.downcast_ref::<BinaryExpr>()
        && matches!(both.op(), Operator::And | Operator::Or)
    {
        let (left, right) = (
            shortened(Arc::clone(both.left()))?,
            shortened(Arc::clone(both.right()))?,
        );
        return Ok(Arc::new(BinaryExpr::new(left, *both.op(), right)));
    }
    if let Some(case) = condition.downcast_ref::<CaseExpr>() {
        let branches: Result<Vec<_>> = (case.when_then_expr().iter())
            .map(|(when, then)| Ok((Arc::clone(when), shortened(Arc::clone(then))?)))
            .collect();
        let otherwise = case.else_expr().map(|last| shortened(Arc::clone(last))).transpose()?;
        return Ok(Arc::new(CaseExpr::try_new(case.expr().cloned(), branches?, otherwise)?));
    }
    Ok(condition)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use datafusion::common::ScalarValue;
    use datafusion::common::tree_node::TransformedResult;
    use datafusion::physical_expr::expressions::{col, in_list};

    use super::*;

    fn filter(values: i64) -> Arc<dyn PhysicalExpr> {
        let schema = Schema::new(vec![Field::new("k", DataType::Int64, true)]);
        let key = col("k", &schema).unwrap();
        let list = (0..values).map(|value| lit(ScalarValue::from(value))).collect();
        let listed = in_list(Arc::clone(&key), list, &false, &schema).unwrap();
        let above: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(key, Operator::GtEq, lit(0_i64)));
        let both: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(above, Operator::And, listed));
        both
    }

    #[test]
    fn long_lists_are_not_shown_and_short_ones_are() {
        let running = Arc::new(DynamicFilterPhysicalExpr::new(
            filter(1).children().into_iter().cloned().collect(),
            lit(true),
        ));
        let shown = shown(Arc::clone(&running) as Arc<dyn PhysicalExpr>).data().unwrap();
        let before = shown.to_string();
        assert!(before.contains("empty"), "{before}");
        running.update(filter(3)).unwrap();
        let now = snapshot_physical_expr(Arc::clone(&shown)).unwrap().to_string();
        assert!(now.contains("IN") && now.contains(">="), "{now}");
        running.update(filter(1 << 10)).unwrap();
        let now = snapshot_physical_expr(Arc::clone(&shown)).unwrap().to_string();
        assert!(!now.contains("IN") && now.contains(">="), "{now}");
        assert!(shown.to_string().len() < 200, "{shown}");
        // It is still known to change.
        assert!(DynamicFilterTracking::classify(&shown).contains_dynamic_filter());
    }
}

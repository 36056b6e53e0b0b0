//! `gateway.public.query_audit`: the record of each query, kept over restarts; one's own with what others did in one's name, and for operators
//! everybody's.
//!
//! Conditions on `query_id`, `user`, `state` and `created` are looked up in the file; its rows are read while they are asked for.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt64Array},
        datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    },
    catalog::{Session, TableProvider},
    common::{ScalarValue, project_schema, tree_node::TreeNodeRecursion},
    error::{DataFusionError, Result as DataFusionResult},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType},
    physical_expr::EquivalenceProperties,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchReceiverStreamBuilder,
    },
};

use super::SystemTable;
use crate::{
    audit::{Owner, QueryRecord, Reader, Wanted},
    catalog::{Catalog, GATEWAY},
    error::Result,
};

/// How many rows are read at a time.
const BATCH: usize = 512;

/// The records of queries.
pub(super) struct QueryAudit;

#[async_trait]
impl SystemTable for QueryAudit {
    fn catalog_name(&self) -> &'static str {
        GATEWAY
    }

    fn schema_name(&self) -> &'static str {
        "public"
    }

    fn name(&self) -> &'static str {
        "query_audit"
    }

    fn columns(&self) -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        let number = |name: &str| Field::new(name, DataType::Int64, false);
        let count = |name: &str| Field::new(name, DataType::UInt64, false);
        let moment = |name: &str| {
            let data_type = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
            Field::new(name, data_type, true)
        };
        Arc::new(Schema::new(vec![
            text("query_id"),
            text("user"),
            text("impersonator"),
            text("door"),
            text("client_address"),
            text("source"),
            text("cluster"),
            text("statement_kind"),
            text("query"),
            text("tables"),
            text("resources_version"),
            text("state"),
            text("error_code"),
            text("error_message"),
            number("queued_time_ms"),
            number("analysis_time_ms"),
            number("elapsed_time_ms"),
            moment("created"),
            moment("end"),
            count("output_rows"),
            count("output_bytes"),
        ]))
    }

    async fn table(&self, door: &Catalog<'_>, _catalog: &str) -> Result<Arc<dyn TableProvider>> {
        let principal = door.session().principal();
        Ok(Arc::new(Records {
            schema: self.columns(),
            reader: door.session().engine().audit.reader().await,
            owner: Owner::of(principal),
        }))
    }
}

/// The records that one user may see.
#[derive(Debug)]
struct Records {
    schema: SchemaRef,
    reader: Reader,
    owner: Option<Owner>,
}

#[async_trait]
impl TableProvider for Records {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let known = |filter: &&Expr| match narrow(&mut Wanted::default(), filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(known).collect())
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let mut wanted = Wanted {
            owner: self.owner.clone(),
            ..Wanted::default()
        };
        for filter in filters {
            narrow(&mut wanted, filter);
        }
        // What was looked up is looked at again above, so that only without conditions a limit is a limit of rows read.
        wanted.limit = limit.filter(|_| filters.is_empty());
        let schema = project_schema(&self.schema, projection)?;
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Arc::new(AuditExec {
            reader: self.reader.clone(),
            wanted,
            full: Arc::clone(&self.schema),
            projection: projection.cloned(),
            properties: Arc::new(properties),
        }))
    }
}

/// Takes a condition into account; false when it is none that the file can be asked for.
fn narrow(wanted: &mut Wanted, filter: &Expr) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else {
        return false;
    };
    let (column, op, value) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(value, _)) => (column, Some(*op), value),
        (Expr::Literal(value, _), Expr::Column(column)) => (column, op.swap(), value),
        _ => return false,
    };
    if op == Some(Operator::Eq)
        && let Some(Some(text)) = value.try_as_str()
    {
        let place = match column.name.as_str() {
            "query_id" => &mut wanted.query_id,
            "user" => &mut wanted.user,
            "state" => &mut wanted.state,
            _ => return false,
        };
        // A second condition on the same column is looked at above.
        place.get_or_insert_with(|| text.to_owned());
        return true;
    }
    let Some(moment) = millis(value).filter(|_| column.name == "created") else {
        return false;
    };
    let (from, to) = match op {
        Some(Operator::Eq) => (Some(moment), Some(moment)),
        Some(Operator::Gt | Operator::GtEq) => (Some(moment), None),
        Some(Operator::Lt | Operator::LtEq) => (None, Some(moment)),
        _ => return false,
    };
    wanted.from = wanted.from.max(from);
    wanted.to = match (wanted.to, to) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    true
}

/// A moment in milliseconds, rounded so that a comparison with it errs on the side of yes only by what is looked at above.
fn millis(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::TimestampMillisecond(Some(moment), _) => Some(*moment),
        _ => None,
    }
}

/// Reads the file, a few rows at a time.
pub(crate) struct AuditExec {
    reader: Reader,
    wanted: Wanted,
    full: SchemaRef,
    projection: Option<Vec<usize>>,
    properties: Arc<PlanProperties>,
}

impl fmt::Debug for AuditExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditExec")
    }
}

impl DisplayAs for AuditExec {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditExec")
    }
}

impl ExecutionPlan for AuditExec {
    fn name(&self) -> &'static str {
        "AuditExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _partition: usize, _context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let mut builder = RecordBatchReceiverStreamBuilder::new(self.properties.eq_properties.schema().clone(), 2);
        let sender = builder.tx();
        let (reader, wanted) = (self.reader.clone(), self.wanted.clone());
        let (full, projection) = (Arc::clone(&self.full), self.projection.clone());
        builder.spawn_blocking(move || {
            let sees_all = wanted.owner.is_none();
            let mut rows = Vec::with_capacity(BATCH);
            let mut failed = None;
            // False when nobody reads any more.
            let send = |rows: &mut Vec<QueryRecord>, failed: &mut Option<DataFusionError>| {
                let batch = batch(&full, projection.as_deref(), rows, sees_all);
                rows.clear();
                match batch {
                    Ok(batch) => sender.blocking_send(Ok(batch)).is_ok(),
                    Err(error) => {
                        *failed = Some(error);
                        false
                    }
                }
            };
            reader.read(&wanted, |record| {
                rows.push(record);
                rows.len() < BATCH || send(&mut rows, &mut failed)
            })?;
            if !rows.is_empty() {
                send(&mut rows, &mut failed);
            }
            failed.map_or(Ok(()), Err)
        });
        Ok(builder.build())
    }
}

/// Rows as a batch, in the order of the table's columns.
fn batch(
    full: &SchemaRef,
    projection: Option<&[usize]>,
    rows: &[QueryRecord],
    sees_all: bool,
) -> DataFusionResult<RecordBatch> {
    type Text = fn(&QueryRecord) -> Option<&str>;
    let text = |value: Text| Arc::new(StringArray::from_iter(rows.iter().map(value))) as ArrayRef;
    let number =
        |value: fn(&QueryRecord) -> i64| Arc::new(Int64Array::from_iter_values(rows.iter().map(value))) as ArrayRef;
    let count = |value: fn(&QueryRecord) -> i64| {
        let counts = rows.iter().map(|row| u64::try_from(value(row)).unwrap_or_default());
        Arc::new(UInt64Array::from_iter_values(counts)) as ArrayRef
    };
    let moment = |value: fn(&QueryRecord) -> Option<i64>| {
        Arc::new(TimestampMillisecondArray::from_iter(rows.iter().map(value)).with_timezone("UTC")) as ArrayRef
    };
    let tables = || StringArray::from_iter_values(rows.iter().map(|row| row.tables_for(sees_all)));
    let column = |index: usize| match index {
        0 => text(|row| Some(&row.query_id)),
        1 => text(|row| Some(&row.user)),
        2 => text(|row| row.impersonator.as_deref()),
        3 => text(|row| Some(&row.door)),
        4 => text(|row| Some(&row.client_address)),
        5 => text(|row| row.source.as_deref()),
        6 => text(|row| Some(&row.cluster)),
        7 => text(|row| row.statement_kind.as_deref()),
        8 => text(|row| Some(&row.query)),
        9 => Arc::new(tables()),
        10 => text(|row| row.resources_version.as_deref()),
        11 => text(|row| Some(&row.state)),
        12 => text(|row| row.error_code.as_deref()),
        13 => text(|row| row.error_message.as_deref()),
        14 => number(|row| row.queued),
        15 => number(|row| row.planning),
        16 => number(|row| row.elapsed),
        17 => moment(|row| Some(row.created)),
        18 => moment(|row| row.ended),
        19 => count(|row| row.rows),
        _ => count(|row| row.bytes),
    };
    let all: Vec<usize> = (0..full.fields().len()).collect();
    let indices = projection.unwrap_or(&all);
    let columns: Vec<ArrayRef> = indices.iter().map(|index| column(*index)).collect();
    let schema = Arc::new(full.project(indices)?);
    let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
    debug_assert!(columns.iter().all(|column| column.len() == rows.len()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    #[test]
    fn conditions_narrow_what_is_read_and_never_too_far() {
        let moment = |millis: i64| lit(ScalarValue::TimestampMillisecond(Some(millis), Some("UTC".into())));
        let narrowed = |filters: &[Expr]| {
            let mut wanted = Wanted::default();
            let known: Vec<bool> = filters.iter().map(|filter| narrow(&mut wanted, filter)).collect();
            (wanted, known)
        };
        let (wanted, known) = narrowed(&[
            col("query_id").eq(lit("q")),
            lit("jane").eq(col("user")),
            col("created").gt(moment(5)),
            moment(9).gt_eq(col("created")),
            col("created").lt(moment(20)),
        ]);
        assert_eq!(known, [true; 5]);
        assert_eq!(
            (wanted.query_id.as_deref(), wanted.user.as_deref()),
            (Some("q"), Some("jane"))
        );
        assert_eq!((wanted.from, wanted.to), (Some(5), Some(9)));
        // Two users at once are nobody; the first is looked up, the second is looked at above.
        assert_eq!(
            narrowed(&[col("user").eq(lit("a")), col("user").eq(lit("b"))])
                .0
                .user
                .as_deref(),
            Some("a")
        );
        let (wanted, known) = narrowed(&[
            col("query").eq(lit("x")),
            col("user").not_eq(lit("x")),
            col("created").not_eq(moment(1)),
            col("user").eq(lit("a")).or(col("user").eq(lit("b"))),
        ]);
        assert_eq!((wanted, known), (Wanted::default(), vec![false; 4]));
    }
}

//! A way out of a statement that a source does not come to an end with.
//!
//! In: a leaf whose source computes more than a scan, how long that was expected to take, and the part of the plan that the statement stands for. Out: a node
//! that reads the leaf, and when no row has come long after it should have, runs that part here as well. Whichever has something to say first is heard, and
//! the other one is dropped, so that an answer is never made of both. The part is planned only when it is needed, by whoever planned the query, who also
//! verifies what comes of it.
//!
//! Only plans of one process have ways out: what runs here is read with several tables' scans, which a stage on a worker was not dealt.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::SchemaRef;
use arrow::util::display::FormatOptions;
use async_trait::async_trait;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, Statistics, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Filter, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
    StatisticsArgs, execute_stream,
};
use futures::future::Either;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::time::timeout;

use super::grow::{Grown, PushDown};
use crate::{Ledger, ScanExec, depots_of};

/// No statement is left earlier.
const SOONEST: Duration = Duration::from_secs(2);
/// For how long others wait for a connection before what runs here lets go of its own. A scan of it may have to wait for another one of it, too.
const BUSY: Duration = Duration::from_millis(500);
/// How many times longer than expected a statement may take.
const TIMES_EXPECTED: u32 = 8;

/// The way out of one statement.
#[derive(Debug)]
pub(crate) struct Escape {
    /// What the statement stands for.
    pub(super) instead: LogicalPlan,
    /// How long the source was expected to take.
    pub(super) expected: Duration,
}

impl Escape {
    /// The way out of a statement for a part of a plan; `None` where the source does no more than a scan does.
    pub(super) fn from(instead: LogicalPlan, expected: f64) -> Option<Arc<Escape>> {
        let does_more = instead.exists(|node| {
            Ok(matches!(
                node,
                LogicalPlan::Join(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) | LogicalPlan::Window(_)
            ))
        });
        does_more.is_ok_and(|does_more| does_more).then(|| {
            let expected = Duration::try_from_secs_f64(expected / 1e6).unwrap_or(Duration::MAX);
            Arc::new(Escape { instead, expected })
        })
    }

    /// How long the statement may take.
    fn patience(&self) -> Duration {
        self.expected.saturating_mul(TIMES_EXPECTED).max(SOONEST)
    }
}

impl PushDown<'_> {
    /// The way out of a statement for a node, unless its source is to do it whatever that costs.
    pub(super) fn escape(&self, grown: &Grown, instead: &LogicalPlan) -> Option<Arc<Escape>> {
        let may = !grown.is_scan && !self.does_all(grown);
        may.then(|| Escape::from(instead.clone(), grown.cost())).flatten()
    }

    /// The way out of a statement for what a node reads. Where only part of a node stays, what the statement does of it is done here, too.
    pub(super) fn escape_of_part(
        &self,
        grown: &Grown,
        plan: &LogicalPlan,
        stays: Option<&LogicalPlan>,
    ) -> Option<Arc<Escape>> {
        self.escape(grown, &done_there(plan, stays)?)
    }
}

/// What a statement does of a node and what it reads, where the node, or a smaller one in its place, stays over the statement.
fn done_there(plan: &LogicalPlan, stays: Option<&LogicalPlan>) -> Option<LogicalPlan> {
    let below = plan.inputs().into_iter().next()?;
    match (plan, stays) {
        (_, None) => Some(below.clone()),
        // What stays is not done twice: it may be by chance, ask for rows of its own, or fail.
        (LogicalPlan::Filter(whole), Some(LogicalPlan::Filter(stays))) => {
            let stays = split_conjunction(&stays.predicate);
            let there = split_conjunction(&whole.predicate).into_iter();
            let there = there.filter(|predicate| !stays.contains(predicate)).cloned();
            match conjunction(there) {
                Some(there) => Some(LogicalPlan::Filter(
                    Filter::try_new(there, Arc::clone(&whole.input)).ok()?,
                )),
                None => Some(below.clone()),
            }
        }
        (_, Some(_)) => Some(plan.clone()),
    }
}

/// Whether a node can be part of reading a table.
pub(super) fn is_read(plan: &LogicalPlan) -> bool {
    matches!(
        plan,
        LogicalPlan::SubqueryAlias(_) | LogicalPlan::Filter(_) | LogicalPlan::Projection(_)
    )
}

/// Plans a part of a query here, as the query was planned, and verifies it.
#[async_trait]
pub trait PlanHere: fmt::Debug + Send + Sync {
    /// The verified plan of a part whose tables are read, and nothing else is asked of their sources.
    async fn plan(&self, part: LogicalPlan) -> Result<Arc<dyn ExecutionPlan>>;
}

/// The plan of one process in which what has a way out may take it.
///
/// # Errors
/// When a plan cannot be put together again, which is a defect.
pub fn with_escapes(
    plan: Arc<dyn ExecutionPlan>,
    planner: &dyn Fn() -> Arc<dyn PlanHere>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let escaping = |node: Arc<dyn ExecutionPlan>| {
        let Some(leaf) = node.downcast_ref::<ScanExec>() else {
            return Ok(Transformed::no(node));
        };
        // Of a part of its rows, and of what several connections send, nothing else can be the whole.
        let is_whole = leaf.fetch().is_none() && leaf.partitions().len() == 1;
        // What joins above tell the source, nothing that runs here would be told.
        let Some(escape) = leaf.escape().filter(|_| is_whole && !leaf.is_told()) else {
            return Ok(Transformed::no(node));
        };
        let escape = EscapeExec {
            escape: Arc::clone(escape),
            planner: planner(),
            properties: Arc::clone(node.properties()),
            depot: leaf.scan().address.depot.clone(),
            there: Arc::clone(&node),
            here: Arc::default(),
            ran: Arc::default(),
        };
        Ok(Transformed::yes(Arc::new(escape) as Arc<dyn ExecutionPlan>))
    };
    plan.transform_up(escaping).map(|plan| plan.data)
}

/// Reads a statement's rows, or has them computed here.
#[derive(Debug, Clone)]
struct EscapeExec {
    escape: Arc<Escape>,
    planner: Arc<dyn PlanHere>,
    properties: Arc<PlanProperties>,
    there: Arc<dyn ExecutionPlan>,
    /// Whose statement it is.
    depot: String,
    /// The plan of what the statement stands for, once that has answered. Until then nobody else has it: nodes keep what they read for as long as they live.
    here: Arc<OnceLock<Arc<dyn ExecutionPlan>>>,
    ran: Arc<AtomicU8>,
}

/// What has answered, once something has.
const THERE: u8 = 1;
const HERE: u8 = 2;

impl DisplayAs for EscapeExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.ran.load(Ordering::Relaxed) {
            THERE => "answered by the statement",
            HERE => "answered here, since the statement took too long",
            _ => "computed here when the statement takes too long",
        };
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => write!(f, "EscapeExec: {text}"),
            DisplayFormatType::TreeRender => writeln!(f, "{text}"),
        }
    }
}

impl ExecutionPlan for EscapeExec {
    fn name(&self) -> &'static str {
        "EscapeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        [&self.there].into_iter().chain(self.here.get()).collect()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut children = children.into_iter();
        let Some(there) = children.next() else {
            return internal_err!("`EscapeExec` has an input");
        };
        let here = match children.next() {
            Some(here) => Arc::new(OnceLock::from(here)),
            None => Arc::clone(&self.here),
        };
        Ok(Arc::new(EscapeExec {
            there,
            here,
            ..self.as_ref().clone()
        }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let there = self.there.execute(partition, Arc::clone(&context))?;
        let schema = there.schema();
        let node = self.clone();
        let rows = async move { node.rows(there, context).await };
        let rows = stream::once(rows).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    fn statistics_from_inputs(
        &self,
        input_statistics: &[Arc<Statistics>],
        _args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        match input_statistics.first() {
            Some(there) => Ok(Arc::clone(there)),
            None => Ok(Arc::new(Statistics::new_unknown(&self.there.schema()))),
        }
    }
}

/// The depots whose statements' parts run here just now.
#[derive(Debug, Clone, Default)]
pub(crate) struct WaysOut(Arc<Mutex<BTreeSet<String>>>);

impl WaysOut {
    /// The only one of a depot, until it is dropped; `None` when there is one already.
    fn begin(&self, depot: &str) -> Option<WayOut> {
        let is_first = self.depots().insert(depot.to_owned());
        is_first.then(|| WayOut {
            all: self.clone(),
            depot: depot.to_owned(),
        })
    }

    fn depots(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way out of one statement, as long as it is taken.
struct WayOut {
    all: WaysOut,
    depot: String,
}

impl Drop for WayOut {
    fn drop(&mut self) {
        self.all.depots().remove(&self.depot);
    }
}

/// Waits until connections to a depot have been waited for without a break for longer than [`BUSY`].
async fn is_busy(ledger: &Ledger, depot: &str) {
    let mut changes = ledger.changes();
    let mut until = async |is_waited_for: bool| {
        while ledger.is_waited_for(depot) != is_waited_for {
            if changes.changed().await.is_err() {
                // Nobody can.
                std::future::pending::<()>().await;
            }
        }
    };
    loop {
        until(true).await;
        if timeout(BUSY, until(false)).await.is_err() {
            return;
        }
    }
}

/// What came first, and what follows.
type Begun = (Option<Result<RecordBatch>>, SendableRecordBatchStream);

impl EscapeExec {
    /// The rows of whichever begins first.
    async fn rows(
        self,
        mut there: SendableRecordBatchStream,
        context: Arc<TaskContext>,
    ) -> Result<impl Stream<Item = Result<RecordBatch>> + Send + use<>> {
        let schema = there.schema();
        let depots = depots_of(&context)?;
        let (ran, (first, rest)) = loop {
            match timeout(self.escape.patience(), there.next()).await {
                Ok(first) => break (THERE, (first, there)),
                // It may not have been sent yet, and what runs here would wait as well.
                Err(_) if depots.ledger().is_waited_for(&self.depot) => {}
                Err(_) => {
                    // What holds one statement up may hold up all: they must not take all connections to wait for the same.
                    let Some(way) = depots.ways_out().begin(&self.depot) else {
                        continue;
                    };
                    match self.race(there, &context, depots.ledger(), way).await {
                        Either::Left(ended) => break ended,
                        Either::Right(waiting) => there = waiting,
                    }
                }
            }
        };
        self.ran.store(ran, Ordering::Relaxed);
        let rows = stream::iter(first).chain(rest);
        Ok(rows.map(move |batch| batch.and_then(|batch| as_columns_of(&schema, batch))))
    }

    /// The first that has something to say: a failure of one is none of the other. When somebody else waits for the depot meanwhile, nothing runs here any
    /// longer, and the statement is given back.
    async fn race(
        &self,
        mut there: SendableRecordBatchStream,
        context: &Arc<TaskContext>,
        ledger: &Ledger,
        way: WayOut,
    ) -> Either<(u8, Begun), SendableRecordBatchStream> {
        tracing::debug!(patience = ?self.escape.patience(), "a source takes too long for a statement: what it stands for is run here, too");
        let mut here = Box::pin(self.begin_here(Arc::clone(context)));
        let ended = tokio::select! {
            biased;
            first = there.next() => match first {
                Some(Err(failure)) => match here.await {
                    Ok((plan, begun)) => self.answered_here(plan, begun, way),
                    Err(_) => (THERE, (Some(Err(failure)), there)),
                },
                first => (THERE, (first, there)),
            },
            begun = &mut here => match begun {
                Ok((plan, begun)) => self.answered_here(plan, begun, way),
                Err(_) => {
                    tracing::debug!("what a statement stands for cannot be run here");
                    drop(way);
                    (THERE, (there.next().await, there))
                }
            },
            () = is_busy(ledger, &self.depot) => {
                tracing::debug!("others wait for the source: what a statement stands for is run here no longer");
                return Either::Right(there);
            }
        };
        Either::Left(ended)
    }

    fn answered_here(&self, plan: Arc<dyn ExecutionPlan>, (first, rest): Begun, way: WayOut) -> (u8, Begun) {
        // It runs only once, but for a node that is executed twice.
        let _ = self.here.set(plan);
        let schema = rest.schema();
        // The way is taken until the last row.
        let rest = rest.inspect(move |_| _ = &way);
        (HERE, (first, Box::pin(RecordBatchStreamAdapter::new(schema, rest))))
    }

    async fn begin_here(&self, context: Arc<TaskContext>) -> Result<(Arc<dyn ExecutionPlan>, Begun)> {
        let plan = self.planner.plan(self.escape.instead.clone()).await?;
        let mut rows = execute_stream(Arc::clone(&plan), context)?;
        let first = rows.next().await.transpose()?;
        Ok((plan, (first.map(Ok), rows)))
    }
}

/// A value that is none of the other type is an error, and no NULL.
const EXACTLY: CastOptions<'_> = CastOptions {
    safe: false,
    format_options: FormatOptions::new(),
};

/// The same rows in columns of the types that the statement's have.
fn as_columns_of(schema: &SchemaRef, batch: RecordBatch) -> Result<RecordBatch> {
    if batch.schema() == *schema {
        return Ok(batch);
    }
    if batch.num_columns() != schema.fields().len() {
        return internal_err!("what runs here has other columns than the statement");
    }
    let columns = batch.columns().iter().zip(schema.fields());
    let columns: Vec<_> = columns
        .map(|(column, field)| cast_with_options(column, field.data_type(), &EXACTLY))
        .collect::<Result<_, _>>()?;
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &rows)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::config::ConfigOptions;
    use datafusion::common::stats::Precision;
    use datafusion::functions::expr_fn::random;
    use datafusion::logical_expr::{Expr, LogicalPlanBuilder, col, lit, table_scan};
    use datafusion::physical_expr::expressions::{DynamicFilterPhysicalExpr, lit as literal};
    use datafusion::physical_plan::filter_pushdown::{
        ChildFilterPushdownResult, ChildPushdownResult, FilterPushdownPhase,
    };
    use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
    use tokio::sync::Notify;

    use super::*;
    use crate::{Scan, Split, testing};

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]))
    }

    /// Sends one row, or fails, when it is told to, and says when somebody waits for that.
    #[derive(Debug)]
    struct OneRow {
        value: Option<i64>,
        schema: SchemaRef,
        asked: Arc<Notify>,
        goes: Arc<Notify>,
        /// As long as somebody reads it.
        reading: Arc<()>,
    }

    impl OneRow {
        fn new(value: impl Into<Option<i64>>) -> Arc<OneRow> {
            Arc::new(OneRow {
                value: value.into(),
                schema: schema(),
                asked: Arc::default(),
                goes: Arc::default(),
                reading: Arc::default(),
            })
        }

        fn plan(self: &Arc<Self>) -> Arc<dyn ExecutionPlan> {
            let parts = vec![Arc::clone(self) as Arc<dyn PartitionStream>];
            Arc::new(StreamingTableExec::try_new(schema(), parts, None, [], false, None).unwrap())
        }
    }

    impl PartitionStream for OneRow {
        fn schema(&self) -> &SchemaRef {
            &self.schema
        }

        fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
            let (asked, goes, reading) = (
                Arc::clone(&self.asked),
                Arc::clone(&self.goes),
                Arc::clone(&self.reading),
            );
            let value = self.value;
            let row = async move {
                let _reading = reading;
                asked.notify_one();
                goes.notified().await;
                let Some(value) = value else {
                    return internal_err!("it fails");
                };
                Ok(RecordBatch::try_new(
                    schema(),
                    vec![Arc::new(Int64Array::from(vec![value]))],
                )?)
            };
            Box::pin(RecordBatchStreamAdapter::new(schema(), stream::once(row)))
        }
    }

    /// Gives the plan away; the test keeps none.
    #[derive(Debug)]
    struct Once(std::sync::Mutex<Option<Arc<dyn ExecutionPlan>>>);

    #[async_trait]
    impl PlanHere for Once {
        async fn plan(&self, _part: LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
            Ok(self.0.lock().unwrap().take().unwrap())
        }
    }

    fn node(there: &Arc<OneRow>, here: &Arc<OneRow>) -> EscapeExec {
        let there = there.plan();
        EscapeExec {
            escape: Arc::new(Escape {
                instead: LogicalPlanBuilder::empty(false).build().unwrap(),
                expected: Duration::ZERO,
            }),
            planner: Arc::new(Once(std::sync::Mutex::new(Some(here.plan())))),
            properties: Arc::clone(there.properties()),
            there,
            depot: "crm".to_owned(),
            here: Arc::default(),
            ran: Arc::default(),
        }
    }

    #[test]
    fn what_joins_tell_their_keys_has_no_way_out() {
        let address = minerva_resources::Address::new("crm", "public", "t");
        let scan = Scan {
            address,
            schema: schema(),
            filters: Vec::new(),
            limit: None,
            snapshot: None,
            query: None,
        };
        let escape = Arc::new(Escape {
            instead: LogicalPlanBuilder::empty(false).build().unwrap(),
            expected: Duration::ZERO,
        });
        let leaf = ScanExec::new(scan, vec![vec![Split::Whole]], Precision::Absent).with_escape(Some(escape));
        let planner: Arc<dyn PlanHere> = Arc::new(Once(std::sync::Mutex::default()));
        let offered = ChildPushdownResult {
            parent_filters: vec![ChildFilterPushdownResult {
                filter: Arc::new(DynamicFilterPhysicalExpr::new(Vec::new(), literal(true))),
                child_results: Vec::new(),
            }],
            self_filters: Vec::new(),
        };
        let told = leaf.handle_child_pushdown_result(FilterPushdownPhase::Post, offered, &ConfigOptions::new());
        let told = told.unwrap().updated_node.unwrap();
        let leaf: Arc<dyn ExecutionPlan> = Arc::new(leaf);
        let planner = || Arc::clone(&planner);
        assert!(with_escapes(leaf, &planner).unwrap().is::<EscapeExec>());
        assert!(!with_escapes(told, &planner).unwrap().is::<EscapeExec>());
    }

    #[test]
    fn what_stays_of_a_filter_is_not_done_twice() {
        let scan = table_scan(Some("t"), &schema(), None).unwrap().build().unwrap();
        let filter = |predicate: Expr| {
            let filtered = LogicalPlanBuilder::from(scan.clone()).filter(predicate).unwrap();
            filtered.build().unwrap()
        };
        let (told, chance) = (col("t.id").gt(lit(1_i64)), random().lt(lit(0.5)));
        let whole = filter(told.clone().and(chance.clone()));
        assert_eq!(done_there(&whole, Some(&filter(chance.clone()))), Some(filter(told)));
        // Only something weaker than the condition is told.
        assert_eq!(
            done_there(&filter(chance.clone()), Some(&filter(chance))),
            Some(scan.clone())
        );
        // Of what stays as it is all is done above.
        assert_eq!(done_there(&whole, None), Some(scan));
    }

    /// Whichever fails first, the other one is waited for.
    #[tokio::test]
    async fn a_failure_of_one_hides_no_row_of_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let depots = testing::depots(folder.path(), "");
        let context = testing::session(&depots).task_ctx();
        for (there, here) in [(None, Some(2)), (Some(1), None), (None, None)] {
            let expected = there.or(here);
            let (there, here) = (OneRow::new(there), OneRow::new(here));
            let node = node(&there, &here);
            let mut rows = node.execute(0, Arc::clone(&context)).unwrap();
            let first = rows.next();
            let going = async {
                there.asked.notified().await;
                here.asked.notified().await;
                let (fails, other) = match there.value {
                    None => (&there, &here),
                    Some(_) => (&here, &there),
                };
                fails.goes.notify_one();
                while Arc::strong_count(&fails.reading) > 1 {
                    tokio::task::yield_now().await;
                }
                other.goes.notify_one();
            };
            let (first, ()) = futures::join!(first, going);
            assert_eq!(first.unwrap().ok().as_ref().map(value), expected);
            assert!(rows.next().await.is_none());
        }
    }

    fn value(batch: &RecordBatch) -> i64 {
        let column = batch.column(0).as_any().downcast_ref::<Int64Array>();
        column.unwrap().value(0)
    }

    /// Whoever waits for a connection goes before what runs in the place of a statement.
    #[tokio::test]
    async fn what_runs_here_is_left_when_others_wait_and_is_the_only_one() {
        let folder = tempfile::tempdir().unwrap();
        let depots = testing::depots(folder.path(), "");
        let context = testing::session(&depots).task_ctx();
        let (there, here, other) = (OneRow::new(1), OneRow::new(2), OneRow::new(3));
        let (node, second) = (node(&there, &here), node(&other, &other));
        let mut rows = node.execute(0, Arc::clone(&context)).unwrap();
        let kind = crate::SlotKind {
            depot: "crm".to_owned(),
            purpose: crate::Purpose::Read,
        };
        let holder = crate::SlotHolder {
            node_id: "a".to_owned(),
            pool: 0,
        };
        let going = async {
            there.asked.notified().await;
            here.asked.notified().await;
            // Another one finds the way taken; the statement is all it has.
            assert!(depots.ways_out().begin("crm").is_none());
            let mut waiting = second.execute(0, Arc::clone(&context)).unwrap();
            assert!(
                timeout(SOONEST + Duration::from_millis(500), waiting.next())
                    .await
                    .is_err()
            );
            assert_eq!(Arc::strong_count(&other.reading), 2, "it is read once");
            drop(waiting);
            let _held = depots.ledger().lend(&kind, &holder, 1).await;
            let others = depots.ledger().lend(&kind, &holder, 1);
            let answered = async {
                while Arc::strong_count(&here.reading) > 1 {
                    tokio::task::yield_now().await;
                }
                assert!(depots.ways_out().begin("crm").is_some(), "it is free again");
                there.goes.notify_one();
            };
            tokio::select! {
                _ = others => unreachable!("it is lent"),
                () = answered => {}
            }
        };
        let (first, ()) = futures::join!(rows.next(), going);
        assert_eq!(value(&first.unwrap().unwrap()), 1);
    }

    /// What a node has built is gone only with the node, and a connection with that.
    #[tokio::test]
    async fn the_plan_that_loses_is_gone_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let depots = testing::depots(folder.path(), "");
        let context = testing::session(&depots).task_ctx();
        for here_wins in [false, true] {
            let (there, here) = (OneRow::new(1), OneRow::new(2));
            let node = node(&there, &here);
            let mut rows = node.execute(0, Arc::clone(&context)).unwrap();
            let first = rows.next();
            let going = async {
                there.asked.notified().await;
                here.asked.notified().await;
                let winner = if here_wins { &here } else { &there };
                winner.goes.notify_one();
            };
            let (first, ()) = futures::join!(first, going);
            let first = value(&first.unwrap().unwrap());
            assert_eq!(first, if here_wins { 2 } else { 1 });
            let (winner, loser) = if here_wins { (&here, &there) } else { (&there, &here) };
            assert_eq!(Arc::strong_count(&loser.reading), 1, "nobody reads it any more");
            assert!(Arc::strong_count(winner) > 1);
            // The statement's leaf is a part of the query's plan; the other plan is one only when it has answered.
            assert_eq!(Arc::strong_count(&here) > 1, here_wins);
            assert_eq!(node.children().len(), if here_wins { 2 } else { 1 });
            assert!(rows.next().await.is_none());
        }
    }
}

//! The leaf of a physical plan that reads a dataset through its source.
//!
//! It knows the dataset by its address only. When it runs it asks the session's depots for the source, so the same
//! leaf runs on the coordinator and on any worker, and no credential is ever part of a plan.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, Statistics, internal_err};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::filter_pushdown::{ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    ReplaceChildrenOptions, StatisticsArgs,
};
use futures::{Stream, StreamExt, TryStreamExt, stream};

use crate::narrow::{self, most_listed};
use crate::remote::Escape;
use crate::scan::joined;
use crate::{Depots, Scan, Split, depots_of};

/// Something that is given back when it is dropped.
pub(crate) trait Held: fmt::Debug + Send + Sync {}

/// Reads one dataset. Each partition reads its splits one after another.
#[derive(Debug, Clone)]
pub struct ScanExec {
    scan: Arc<Scan>,
    partitions: Vec<Vec<Split>>,
    rows: Precision<usize>,
    /// What is known of its columns; empty when nothing is. It does not travel.
    columns: Vec<ColumnStatistics>,
    /// Whether a limit that is found later may be given to the source.
    takes_limits: bool,
    /// What keeps the scan's snapshot alive in its source. It does not travel: whoever planned the query keeps the plan until the query ends.
    held: Option<Arc<dyn Held>>,
    /// What joins above will have learnt of their keys when this is read. What subqueries find does not travel.
    dynamic: Vec<Arc<dyn PhysicalExpr>>,
    /// What may be run instead of its statement. It does not travel.
    escape: Option<Arc<Escape>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ScanExec {
    /// A leaf for a scan. `rows` is how many rows its filters leave, before its limit.
    pub fn new(scan: Scan, partitions: Vec<Vec<Split>>, rows: Precision<usize>) -> ScanExec {
        let properties = Arc::new(
            PlanProperties::new(
                EquivalenceProperties::new(Arc::clone(&scan.schema)),
                Partitioning::UnknownPartitioning(partitions.len()),
                EmissionType::Incremental,
                Boundedness::Bounded,
            )
            .with_scheduling_type(SchedulingType::Cooperative),
        );
        ScanExec {
            scan: Arc::new(scan),
            partitions,
            rows,
            columns: Vec::new(),
            takes_limits: true,
            held: None,
            dynamic: Vec::new(),
            escape: None,
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// The same leaf, whose source is asked for all rows even if the plan needs only some.
    pub(crate) fn without_limits(self) -> ScanExec {
        ScanExec {
            takes_limits: false,
            ..self
        }
    }

    /// The same leaf, which holds something until nobody needs the leaf any more.
    pub(crate) fn holding(self, held: Option<Arc<dyn Held>>) -> ScanExec {
        ScanExec { held, ..self }
    }

    /// The same leaf, with what is known of its columns.
    pub(crate) fn with_column_statistics(self, columns: Vec<ColumnStatistics>) -> ScanExec {
        ScanExec { columns, ..self }
    }

    /// The same leaf, with what may be run instead of its statement.
    pub(crate) fn with_escape(self, escape: Option<Arc<Escape>>) -> ScanExec {
        ScanExec { escape, ..self }
    }

    /// What may be run instead of its statement.
    pub(crate) fn escape(&self) -> Option<&Arc<Escape>> {
        self.escape.as_ref()
    }

    /// Whether joins above tell its source what they learn.
    pub(crate) fn is_told(&self) -> bool {
        !self.dynamic.is_empty()
    }

    /// How many keys of joins above its source is told: fewer of fewer rows, for each statement is told them all.
    pub fn most_told(&self) -> usize {
        let statements: usize = self.partitions.iter().map(|splits| joined(splits).len()).sum();
        most_listed(self.rows.get_value().map(|rows| rows / statements.max(1)))
    }

    /// What is read.
    pub fn scan(&self) -> &Scan {
        &self.scan
    }

    /// The splits of each partition.
    pub fn partitions(&self) -> &[Vec<Split>] {
        &self.partitions
    }

    /// How many rows its filters leave, before its limit.
    pub fn rows(&self) -> Precision<usize> {
        self.rows
    }

    /// What joins above tell it.
    pub(crate) fn told_by_joins(&self) -> impl Iterator<Item = &Arc<dyn PhysicalExpr>> {
        self.dynamic.iter().filter(|filter| !narrow::has_subquery(filter))
    }

    /// The same leaf, which is told this.
    pub(crate) fn told(self, dynamic: Vec<Arc<dyn PhysicalExpr>>) -> ScanExec {
        ScanExec { dynamic, ..self }
    }

    fn statistics(&self, partition: Option<usize>) -> Result<Statistics> {
        let mut unknown = Statistics::new_unknown(&self.scan.schema);
        if self.columns.len() == unknown.column_statistics.len() {
            unknown.column_statistics.clone_from(&self.columns);
        }
        if partition.is_some() && self.partitions.len() != 1 {
            return Ok(unknown);
        }
        let rows = if self.scan.filters.is_empty() {
            self.rows
        } else {
            self.rows.to_inexact()
        };
        unknown
            .with_num_rows(rows)
            .with_fetch(self.scan.limit, 0, self.partitions.len())
    }
}

/// How many pieces a scan can be dealt in.
pub fn splits_of(scan: &ScanExec) -> usize {
    scan.partitions.iter().map(Vec::len).sum()
}

/// Deals a scan to `tasks` workers: variants with the same schema and the same number of partitions that together read
/// every split once. Variants beyond the number of splits read nothing.
pub fn split(scan: &ScanExec, tasks: usize) -> Vec<ScanExec> {
    let tasks = tasks.max(1);
    let splits: Vec<Split> = scan.partitions.iter().flatten().copied().collect();
    let partitions = splits.len().div_ceil(tasks).clamp(1, scan.partitions.len().max(1));
    deal(&splits, tasks)
        .into_iter()
        .map(|share| {
            let rows = portion(scan.rows, share.len(), splits.len());
            let share = ScanExec::new(Scan::clone(&scan.scan), deal(&share, partitions), rows);
            ScanExec {
                columns: scan.columns.clone(),
                dynamic: scan.dynamic.clone(),
                ..share.holding(scan.held.clone())
            }
        })
        .collect()
}

/// Puts neighbours together in `hands` groups whose sizes differ by one at most.
pub(crate) fn deal(splits: &[Split], hands: usize) -> Vec<Vec<Split>> {
    let mut rest = splits;
    (0..hands)
        .map(|hand| {
            let (share, others) = rest.split_at(rest.len().div_ceil(hands - hand));
            rest = others;
            share.to_vec()
        })
        .collect()
}

fn portion(rows: Precision<usize>, share: usize, whole: usize) -> Precision<usize> {
    match rows {
        Precision::Exact(rows) | Precision::Inexact(rows) if whole > 0 => {
            Precision::Inexact((rows as u128 * share as u128 / whole as u128) as usize)
        }
        _ => Precision::Absent,
    }
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                f.write_str("ScanExec: ")?;
                ", "
            }
            DisplayFormatType::TreeRender => "\n",
        };
        let columns: Vec<&str> = self
            .scan
            .schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        if let Some(query) = &self.scan.query {
            write!(
                f,
                "depot={}{separator}sql={}",
                self.scan.address.depot,
                query.text(None, self.scan.limit)
            )?;
            if !self.dynamic.is_empty() {
                write!(f, "{separator}dynamic filters={}", self.dynamic.len())?;
            }
            if format == DisplayFormatType::TreeRender {
                writeln!(f)?;
            }
            return Ok(());
        }
        write!(
            f,
            "address={}{separator}columns=[{}]",
            self.scan.address,
            columns.join(", ")
        )?;
        if !self.dynamic.is_empty() {
            write!(f, "{separator}dynamic filters={}", self.dynamic.len())?;
        }
        if !self.scan.filters.is_empty() {
            let filters: Vec<String> = self.scan.filters.iter().map(ToString::to_string).collect();
            write!(f, "{separator}filters=[{}]", filters.join(", "))?;
        }
        if let Some(limit) = self.scan.limit {
            write!(f, "{separator}limit={limit}")?;
        }
        if format == DisplayFormatType::TreeRender {
            writeln!(f)?;
        }
        Ok(())
    }
}

impl ExecutionPlan for ScanExec {
    fn name(&self) -> &'static str {
        "ScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        // Joins tell their keys only to leaves that say here that they listen.
        for filter in &self.dynamic {
            if f(filter)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() {
            Ok(self)
        } else {
            internal_err!("`ScanExec` is a leaf")
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(splits) = self.partitions.get(partition) else {
            return internal_err!("`ScanExec` of {} has no partition {partition}", self.scan.address);
        };
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let depots = depots_of(&context)?;
        let batches = read(
            depots,
            Arc::clone(&self.scan),
            joined(splits),
            context,
            self.held.clone(),
            Told {
                dynamic: self.dynamic.clone(),
                most: self.most_told(),
            },
        );
        let batches = batches.inspect_ok(move |batch| {
            batch.record_output(&metrics);
        });
        let schema = Arc::clone(&self.scan.schema);
        Ok(make_cooperative(Box::pin(RecordBatchStreamAdapter::new(
            schema, batches,
        ))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _input_statistics: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        self.statistics(args.partition()).map(Arc::new)
    }

    fn handle_child_pushdown_result(
        &self,
        _phase: FilterPushdownPhase,
        found: ChildPushdownResult,
        _config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let offered = found.parent_filters.iter().map(|offered| &offered.filter);
        let dynamic: Vec<_> = offered.filter(|filter| narrow::is_dynamic(filter)).cloned().collect();
        // None is promised: whoever offers them applies them, too.
        let mut answer: FilterPushdownPropagation<Arc<dyn ExecutionPlan>> =
            FilterPushdownPropagation::all_unsupported(found);
        let is_limited = self.fetch().is_some() || self.scan.query.as_ref().is_some_and(|query| query.limited);
        if self.takes_limits && !is_limited && !dynamic.is_empty() {
            let mut leaf = self.clone();
            leaf.dynamic.extend(dynamic);
            answer.updated_node = Some(Arc::new(leaf) as Arc<dyn ExecutionPlan>);
        }
        Ok(answer)
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        // Rows that a join would leave out must not count.
        if !self.takes_limits || !self.dynamic.is_empty() || self.scan.query.as_ref().is_some_and(|query| query.limited)
        {
            return None;
        }
        let scan = Scan {
            limit,
            ..Scan::clone(&self.scan)
        };
        let limited = ScanExec::new(scan, self.partitions.clone(), self.rows);
        let limited = limited.with_column_statistics(self.columns.clone());
        Some(Arc::new(limited.holding(self.held.clone())))
    }

    fn fetch(&self) -> Option<usize> {
        self.scan.limit
    }
}

/// Reads splits one after another, and no more rows than the limit.
fn read(
    depots: Arc<Depots>,
    scan: Arc<Scan>,
    splits: Vec<Split>,
    context: Arc<TaskContext>,
    held: Option<Arc<dyn Held>>,
    told: Told,
) -> impl Stream<Item = Result<RecordBatch>> + Send {
    let rows_left = scan.limit.unwrap_or(usize::MAX);
    let reading = Reading {
        depots,
        scan,
        context,
        splits: splits.into_iter(),
        current: None,
        rows_left,
        told,
        _held: held,
    };
    stream::try_unfold(reading, |mut reading| async move {
        Ok(reading.next().await?.map(|batch| (batch, reading)))
    })
}

struct Reading {
    depots: Arc<Depots>,
    scan: Arc<Scan>,
    context: Arc<TaskContext>,
    splits: std::vec::IntoIter<Split>,
    current: Option<SendableRecordBatchStream>,
    rows_left: usize,
    /// What is not asked of the source yet.
    told: Told,
    _held: Option<Arc<dyn Held>>,
}

/// What joins above have learnt, and how many keys of it are told.
struct Told {
    dynamic: Vec<Arc<dyn PhysicalExpr>>,
    most: usize,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        if !self.told.dynamic.is_empty() {
            self.narrow().await?;
        }
        while self.rows_left > 0 {
            let Some(current) = &mut self.current else {
                let Some(split) = self.splits.next() else {
                    return Ok(None);
                };
                let opened = open(
                    Arc::clone(&self.depots),
                    Arc::clone(&self.scan),
                    Arc::clone(&self.context),
                    split,
                );
                self.current = Some(opened.await?);
                continue;
            };
            match current.next().await.transpose()? {
                Some(batch) => return Ok(Some(self.take(batch))),
                None => self.current = None,
            }
        }
        Ok(None)
    }

    /// Has the source leave out what joins above would.
    async fn narrow(&mut self) -> Result<()> {
        let dynamic = std::mem::take(&mut self.told.dynamic);
        let source = self.depots.open(&self.scan.address.depot).await?;
        let most = self.told.most.min(source.most_keys());
        let schema = &self.scan.schema;
        let filters = match &self.scan.query {
            Some(_) => narrow::conditions(&dynamic, schema, most, &|place| format!("c{place}")),
            None => narrow::conditions(&dynamic, schema, most, &|place| {
                schema
                    .fields()
                    .get(place)
                    .map(|field| field.name().clone())
                    .unwrap_or_default()
            }),
        };
        if !filters.is_empty()
            && let Some(narrowed) = source.narrowed(&self.scan, &filters).await
        {
            self.scan = Arc::new(narrowed);
        }
        Ok(())
    }

    fn take(&mut self, batch: RecordBatch) -> RecordBatch {
        let taken = batch.num_rows().min(self.rows_left);
        self.rows_left -= taken;
        if self.rows_left == 0 {
            // The source may stop now, not only when the consumer asks again.
            self.current = None;
        }
        batch.slice(0, taken)
    }
}

async fn open(
    depots: Arc<Depots>,
    scan: Arc<Scan>,
    context: Arc<TaskContext>,
    split: Split,
) -> Result<SendableRecordBatchStream> {
    let source = depots.open(&scan.address.depot).await?;
    let batches = source.read(&scan, &split, &context)?;
    if batches.schema() != scan.schema {
        return internal_err!(
            "the source of {} returns other columns than were asked for",
            scan.address
        );
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use minerva_resources::Address;

    use super::*;

    #[test]
    fn the_fewer_statements_read_a_table_the_more_keys_each_is_told() {
        let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
        let scan = Scan {
            address: Address::new("d", "c", "t"),
            schema,
            filters: Vec::new(),
            limit: None,
            snapshot: None,
            query: None,
        };
        let pieces = |from: u64| Split::Range { from, to: from + 1 };
        let most_told = |partitions: Vec<Vec<Split>>, rows| ScanExec::new(scan.clone(), partitions, rows).most_told();
        let rows = Precision::Inexact(800_000);
        // Ranges beside each other are one statement.
        for (partitions, expected) in [
            (vec![vec![Split::Whole]], 100_000),
            (vec![(0..6).map(pieces).collect()], 100_000),
            (vec![(0..3).map(pieces).collect(), (3..6).map(pieces).collect()], 50_000),
            (vec![vec![pieces(0), pieces(2)], vec![pieces(1), pieces(3)]], 25_000),
        ] {
            assert_eq!(most_told(partitions, rows), expected);
        }
        assert_eq!(most_told(Vec::new(), rows), 100_000);
        assert_eq!(most_told(vec![vec![Split::Whole]], Precision::Absent), 50_000);
    }
}

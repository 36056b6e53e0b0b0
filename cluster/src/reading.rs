//! What the stages of a query have read so far, while it runs.
//!
//! In: each stage that is about to run in this process, and what the workers say of theirs with each heartbeat. Out: rows and bytes of a query.
//! Below a policy's barrier nothing is counted: how many rows a filter hides is for nobody to know. A stage that begins and ends between two
//! looks is not counted: the sums say how far a query is, not what it did.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use datafusion::common::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion_distributed::{
    NetworkBoundaryExt, WorkerPlanRewriteEvent, WorkerPlanRewriteEventResponse, WorkerPlanRewriteHandler,
};
use minerva_policy::{PolicyBarrierExec, PolicyFenceExec};
use serde::{Deserialize, Serialize};

use crate::grants::QueryGrants;

/// Metrics that say how many bytes came in.
const BYTES_READ: &[&str] = &["bytes_scanned", "bytes_transferred"];

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// Rows, behind the policies.
    pub rows: u64,
    /// Bytes of them, where the source counts them.
    pub bytes: u64,
}

impl Reading {
    /// What a plan has read so far in this process. What stages elsewhere read is not in it.
    pub fn of(plan: &Arc<dyn ExecutionPlan>) -> Self {
        sources(plan).iter().map(Self::counted).sum()
    }

    fn counted(metrics: &MetricsSet) -> Self {
        let bytes = BYTES_READ.iter().filter_map(|name| metrics.sum_by_name(name));
        Self {
            rows: metrics.output_rows().unwrap_or_default() as u64,
            bytes: bytes.map(|value| value.as_usize() as u64).sum(),
        }
    }
}

impl std::iter::Sum for Reading {
    fn sum<I: Iterator<Item = Self>>(readings: I) -> Self {
        readings.fold(Self::default(), |sum, more| Self {
            rows: sum.rows + more.rows,
            bytes: sum.bytes + more.bytes,
        })
    }
}

/// The metrics of whatever brings rows into a plan; they go on counting while it runs.
fn sources(plan: &Arc<dyn ExecutionPlan>) -> Vec<MetricsSet> {
    fn add(node: &Arc<dyn ExecutionPlan>, found: &mut Vec<MetricsSet>) {
        let children = node.children();
        let is_barrier = node.is::<PolicyBarrierExec>() || node.is::<PolicyFenceExec>();
        if is_barrier || (children.is_empty() && !node.is_network_boundary()) {
            found.extend(node.metrics());
        }
        if !is_barrier {
            children.into_iter().for_each(|child| add(child, found));
        }
    }
    let mut found = Vec::new();
    add(plan, &mut found);
    found
}

/// The queries of this process. Clones share them.
#[derive(Clone)]
pub struct Readings(Arc<Inner>);

struct Inner {
    /// A worker tells what its stages read; a coordinator listens, and cares only for the queries that it watches.
    is_worker: bool,
    queries: Mutex<HashMap<String, Query>>,
}

#[derive(Default)]
struct Query {
    stages: Vec<Stage>,
    /// What each worker said last.
    elsewhere: HashMap<String, Reading>,
    told: Reading,
}

/// A stage is not kept alive to be counted, but its counters are.
struct Stage {
    plan: Weak<dyn ExecutionPlan>,
    counters: Vec<MetricsSet>,
}

impl Query {
    /// What the stages here have read, and whether one of them still runs.
    fn look(&mut self) -> (Reading, bool) {
        let (mut sum, mut runs) = (Reading::default(), false);
        for stage in &mut self.stages {
            if let Some(plan) = stage.plan.upgrade() {
                runs = true;
                stage.counters = sources(&plan);
            }
            sum = [sum, stage.counters.iter().map(Reading::counted).sum()]
                .into_iter()
                .sum();
        }
        (sum, runs)
    }
}

impl Readings {
    pub(crate) fn of_coordinator() -> Self {
        Self::new(false)
    }

    pub(crate) fn of_worker() -> Self {
        Self::new(true)
    }

    fn new(is_worker: bool) -> Self {
        Self(Arc::new(Inner {
            is_worker,
            queries: Mutex::default(),
        }))
    }

    fn queries(&self) -> MutexGuard<'_, HashMap<String, Query>> {
        self.0.queries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a query until the answer is dropped.
    pub fn watch(&self, query_id: &str) -> Watch {
        self.queries().entry(query_id.to_owned()).or_default();
        Watch {
            readings: self.clone(),
            query_id: query_id.to_owned(),
        }
    }

    /// What all stages of a query have read, here and on workers.
    pub fn read(&self, query_id: &str) -> Reading {
        let mut queries = self.queries();
        let Some(query) = queries.get_mut(query_id) else {
            return Reading::default();
        };
        let (here, _) = query.look();
        query.elsewhere.values().copied().chain([here]).sum()
    }

    /// A stage of a query is about to run here.
    fn begin(&self, query_id: &str, plan: &Arc<dyn ExecutionPlan>) {
        let mut queries = self.queries();
        let query = match self.0.is_worker {
            true => Some(queries.entry(query_id.to_owned()).or_default()),
            false => queries.get_mut(query_id),
        };
        if let Some(query) = query {
            query.stages.push(Stage {
                plan: Arc::downgrade(plan),
                counters: Vec::new(),
            });
        }
    }

    /// What a worker has to tell: the queries of which more was read since the last time. Those that have ended are told of once more.
    pub fn news(&self) -> BTreeMap<String, Reading> {
        let mut news = BTreeMap::new();
        self.queries().retain(|query_id, query| {
            let (reading, runs) = query.look();
            if reading != query.told {
                query.told = reading;
                news.insert(query_id.clone(), reading);
            }
            runs
        });
        news
    }

    /// A worker told its news.
    pub(crate) fn hear(&self, node_id: &str, news: BTreeMap<String, Reading>) {
        let mut queries = self.queries();
        for (query_id, reading) in news {
            if let Some(query) = queries.get_mut(&query_id) {
                query.elsewhere.insert(node_id.to_owned(), reading);
            }
        }
    }
}

impl fmt::Debug for Readings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readings")
            .field("queries", &self.queries().len())
            .finish_non_exhaustive()
    }
}

/// A query that is watched.
#[derive(Debug)]
pub struct Watch {
    readings: Readings,
    query_id: String,
}

impl Watch {
    /// What its stages have read, here and on workers.
    pub fn read(&self) -> Reading {
        self.readings.read(&self.query_id)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.readings.queries().remove(&self.query_id);
    }
}

/// Notes each stage of a worker.
pub(crate) struct NoteStage(pub(crate) Readings);

impl WorkerPlanRewriteHandler for NoteStage {
    fn rewrite_worker_plan(&self, event: WorkerPlanRewriteEvent<'_>) -> Result<WorkerPlanRewriteEventResponse> {
        let granted = event.session_config.options().extensions.get::<QueryGrants>();
        if let Some(granted) = granted {
            self.0.begin(&granted.query_id, &event.plan);
        }
        Ok(WorkerPlanRewriteEventResponse::new(event.plan))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::{SessionStateBuilder, TaskContext};
    use datafusion::physical_plan::collect;

    use super::*;

    async fn plan(rows: u64) -> Arc<dyn ExecutionPlan> {
        let state = SessionStateBuilder::new_with_default_features().build();
        let sql = format!("SELECT count(value) FROM generate_series(1, {rows})");
        let logical = state.create_logical_plan(&sql).await.unwrap();
        state.create_physical_plan(&logical).await.unwrap()
    }

    async fn run(plan: &Arc<dyn ExecutionPlan>) {
        let rows = collect(Arc::clone(plan), Arc::new(TaskContext::default()))
            .await
            .unwrap();
        assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 1);
    }

    #[tokio::test]
    async fn what_workers_read_reaches_whoever_watches() {
        let (worker, coordinator) = (Readings::of_worker(), Readings::of_coordinator());
        let watch = coordinator.watch("q");
        let (first, second) = (plan(100).await, plan(20).await);
        worker.begin("q", &first);
        coordinator.begin("q", &second);
        run(&first).await;
        coordinator.hear("one", worker.news());
        assert_eq!(watch.read().rows, 100);
        run(&second).await;
        assert_eq!(watch.read().rows, 120);
        // What was counted stays when the stage is gone.
        drop((first, second));
        coordinator.hear("one", worker.news());
        coordinator.hear("two", BTreeMap::from([("q".to_owned(), Reading { rows: 7, bytes: 1 })]));
        assert_eq!(watch.read(), Reading { rows: 127, bytes: 1 });
    }

    #[tokio::test]
    async fn news_are_told_once_and_forgotten_with_the_stage() {
        let worker = Readings::of_worker();
        let plan = plan(5).await;
        worker.begin("q", &plan);
        assert!(worker.news().is_empty());
        run(&plan).await;
        assert_eq!(worker.news().len(), 1);
        assert!(worker.news().is_empty());
        drop(plan);
        worker.news();
        assert!(worker.queries().is_empty());
    }

    #[tokio::test]
    async fn a_query_that_nobody_watches_is_not_kept() {
        let coordinator = Readings::of_coordinator();
        coordinator.begin("q", &plan(1).await);
        coordinator.hear("one", BTreeMap::from([("q".to_owned(), Reading::default())]));
        assert!(coordinator.queries().is_empty());
        drop(coordinator.watch("q"));
        assert!(coordinator.queries().is_empty());
    }
}

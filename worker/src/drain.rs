//! How a worker stops without failing the queries it takes part in.
//!
//! In: the wish to stop. Out: no new work, then the end of what runs, or of the patience for it. The port stays open
//! until then, since others still fetch the results of its tasks.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::{Result, internal_err};
use datafusion_distributed::grpc::{GetTaskProgressRequest, ObservabilityServiceClient};
use datafusion_distributed::{Worker, WorkerResolver};
use minerva_cluster::HEARTBEAT;
use tokio::time::{Instant, sleep};
use url::Url;

use crate::session::State;

/// How long connections may stay open once nothing runs any more.
pub(crate) const CLOSE_WITHIN: Duration = Duration::from_millis(500);
/// How long its connections to depots may take to be closed before the coordinator lends them to others.
const DEPOTS_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Tells the coordinator, waits for the tasks, closes what is open to depots, tells it again.
pub(crate) async fn drain(state: &State, worker: &Worker, within: Duration) {
    leave(state, false).await;
    let left = tokio::select! {
        left = wait(worker, within) => left,
        never = keep_alive(state) => match never {},
    };
    if left > 0 {
        tracing::warn!(tasks = left, waited = ?within, "stops with tasks that did not finish");
    }
    state.borrower.close(DEPOTS_WITHIN).await;
    leave(state, true).await;
}

/// Waits until nothing has run for two looks: a query that was planned before may still be on its way here. Answers how
/// many tasks are left when the patience ends.
async fn wait(worker: &Worker, within: Duration) -> usize {
    let deadline = Instant::now() + within;
    let mut quiet = 0;
    loop {
        let left = running(worker).await;
        quiet = if left == 0 { quiet + 1 } else { 0 };
        if quiet == 2 || Instant::now() >= deadline {
            return left;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Goes on showing that the worker is there, so that it is not taken for lost.
async fn keep_alive(state: &State) -> Infallible {
    loop {
        sleep(HEARTBEAT).await;
        if let Err(error) = state.heartbeat().await {
            tracing::debug!(%error, "no heartbeat while draining");
        }
    }
}

async fn leave(state: &State, drained: bool) {
    if let Err(error) = state.client.leave(&state.node_id, drained).await {
        tracing::warn!(%error, "cannot tell the coordinator that this worker leaves");
    }
}

/// How many tasks the worker holds.
async fn running(worker: &Worker) -> usize {
    let service = worker.with_observability_service(Arc::new(Nobody));
    let progress = ObservabilityServiceClient::new(service)
        .get_task_progress(GetTaskProgressRequest {})
        .await;
    progress.map_or(0, |progress| progress.into_inner().tasks.len())
}

/// The service wants a list of workers; it is not asked for it here.
struct Nobody;

impl WorkerResolver for Nobody {
    fn get_urls(&self) -> Result<Vec<Url>> {
        internal_err!("a worker keeps no list of workers")
    }
}

//! The session of a stage, and what a worker process keeps between stages.
//!
//! In: the headers of a stage and the resources of the coordinator. Out: a session in which the stage is decoded,
//! verified and run. A stage that was planned under other resources than the worker has makes it fetch them first.

use std::fmt;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion_distributed::{Worker, WorkerQueryContext};
use minerva_cluster::{
    Borrower, Channels, CoordinatorClient, Error, Heard, ResourcesVersion, VERSION, Wire, planned_under, worker_session,
};
use rand::TryRngCore;
use rand::rngs::OsRng;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// What a worker process keeps between stages.
pub(crate) struct State {
    pub(crate) node_id: String,
    pub(crate) client: CoordinatorClient,
    pub(crate) borrower: Arc<Borrower>,
    wire: Wire,
    version: Mutex<Option<ResourcesVersion>>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("node_id", &self.node_id)
            .finish_non_exhaustive()
    }
}

impl State {
    pub(crate) fn new(node_id: &str, client: CoordinatorClient, channels: Channels) -> Self {
        let borrower = Borrower::new(node_id, client.clone());
        Self {
            node_id: node_id.to_owned(),
            client,
            wire: Wire::without_resources(channels, &borrower),
            borrower,
            version: Mutex::new(None),
        }
    }

    /// The memory, the spill files and the object stores of its queries.
    pub(crate) fn runtime(&self, memory_bytes: u64) -> Result<Arc<RuntimeEnv>, Error> {
        minerva_cluster::runtime(Some(memory_bytes), self.wire.depots())
            .map_err(|error| Error::Runtime(format!("the query runtime cannot be made: {error}")))
    }

    /// Says that the worker lives, which connections it may have, and what its stages have read.
    pub(crate) async fn heartbeat(&self) -> Result<Heard, Error> {
        let (sent, slots) = (Instant::now(), self.borrower.held());
        let news = self.wire.readings().news();
        let heard = self.client.heartbeat(&self.node_id, slots, news).await?;
        match heard.known {
            true => self.borrower.heard(sent),
            // What this worker has may be lent to others already.
            false => self.borrower.forget(),
        }
        Ok(heard)
    }

    /// Makes sure that the worker's resources are those that hold, if `wanted` says that they changed.
    pub(crate) async fn refresh(&self, wanted: &ResourcesVersion) -> Result<(), Error> {
        let mut version = self.version.lock().await;
        if version.as_ref() == Some(wanted) {
            return Ok(());
        }
        let resources = self.client.resources(&self.node_id).await?;
        if version.as_ref() != Some(&resources.version) {
            self.wire.take(&resources)?;
            tracing::info!(version = %resources.version.0, "took the coordinator's resources");
            *version = Some(resources.version);
        }
        Ok(())
    }

    async fn session(&self, context: WorkerQueryContext) -> Result<SessionState, DataFusionError> {
        if let Some(wanted) = planned_under(&context.headers) {
            self.refresh(&wanted)
                .await
                .map_err(|error| DataFusionError::External(Box::new(error)))?;
        }
        worker_session(context, &self.wire)
    }
}

/// The worker of a process of its own.
pub(crate) fn worker(state: &Arc<State>, runtime: &Arc<RuntimeEnv>) -> Worker {
    let state = Arc::clone(state);
    let build = move |context: WorkerQueryContext| {
        let state = Arc::clone(&state);
        async move { state.session(context).await }
    };
    Worker::from_session_builder(build)
        .with_runtime_env(Arc::clone(runtime))
        .with_version(VERSION)
}

/// The worker inside a coordinator's process.
pub(crate) fn local(wire: Wire, runtime: Arc<RuntimeEnv>) -> Worker {
    let build = move |context: WorkerQueryContext| {
        let session = worker_session(context, &wire);
        async move { session }
    };
    Worker::from_session_builder(build)
        .with_runtime_env(runtime)
        .with_version(VERSION)
}

/// A name that no other worker has.
pub(crate) fn node_id() -> Result<String, Error> {
    let number = OsRng
        .try_next_u64()
        .map_err(|error| Error::Token(format!("cannot name this worker: no random source: {error}")))?;
    Ok(format!("worker-{number:016x}"))
}

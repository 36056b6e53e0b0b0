//! The set-up that the sessions of a coordinator and of its workers share, in the order that it has to be done in.
//!
//! In: a builder, and the [`Wire`]: depots, mask functions, channels. Out: on the coordinator a session whose plans are
//! cut into stages, on a worker the session in which a stage is decoded, verified and run. Everything here lives in the
//! session's config, so a config or a query planner of the caller's own must be in the builder before.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use datafusion::common::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::ScalarUDF;
use datafusion_distributed::{DistributedExt, SessionStateBuilderExt, WorkerQueryContext};
use minerva_connectors::{Depots, Lender, SharedSnapshotsOnly};
use minerva_policy::{KeyRing, mask_functions};

use crate::aggregates::aggregates;
use crate::arithmetic;
use crate::codec::Codec;
use crate::grants::{QueryGrants, VerifyStage, take_options};
use crate::leaves::{CountTasks, DealSplits};
use crate::memory::Shares;
use crate::reading::{NoteStage, Readings};
use crate::single_row;
use crate::{Borrower, Channels, Error, Members, Resources};

/// What plans need beyond themselves on either side of the wire. Clones share it, also when the resources change.
#[derive(Clone)]
pub struct Wire {
    depots: Arc<Depots>,
    functions: Arc<RwLock<Arc<[Arc<ScalarUDF>]>>>,
    channels: Channels,
    shares: Arc<Shares>,
    readings: Readings,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("depots", &self.depots)
            .field("channels", &self.channels)
            .finish_non_exhaustive()
    }
}

impl Wire {
    /// The depots to open, the keys of masks, and the channels to workers.
    pub fn new(depots: Arc<Depots>, keys: &KeyRing, channels: Channels) -> Self {
        Self {
            depots,
            functions: Arc::new(RwLock::new(functions_with(keys))),
            channels,
            shares: Arc::default(),
            readings: Readings::of_coordinator(),
        }
    }

    /// What a worker has before its coordinator gave it anything.
    pub fn without_resources(channels: Channels, borrower: &Arc<Borrower>) -> Self {
        let lender = Arc::clone(borrower) as Arc<dyn Lender>;
        Self {
            readings: Readings::of_worker(),
            ..Self::new(
                Arc::new(Depots::with_lender(Arc::default(), lender)),
                &KeyRing::default(),
                channels,
            )
        }
    }

    /// Takes what the coordinator gave. Sessions that exist keep the keys they have.
    pub fn take(&self, resources: &Resources) -> Result<(), Error> {
        let (set, keys) = (resources.set()?, resources.keys()?);
        self.depots.update(Arc::new(set));
        self.set_keys(&keys);
        Ok(())
    }

    /// Takes new keys of masks.
    pub fn set_keys(&self, keys: &KeyRing) {
        *self.functions.write().unwrap_or_else(PoisonError::into_inner) = functions_with(keys);
    }

    /// The depots.
    pub fn depots(&self) -> &Arc<Depots> {
        &self.depots
    }

    /// The channels.
    pub fn channels(&self) -> &Channels {
        &self.channels
    }

    /// What queries have read so far.
    pub fn readings(&self) -> &Readings {
        &self.readings
    }

    /// The memory of one query in this process, of at most so many bytes.
    pub fn share(&self, query_id: &str, limit_bytes: u64, runtime: &Arc<RuntimeEnv>) -> Arc<RuntimeEnv> {
        self.shares.of(query_id, limit_bytes, runtime)
    }

    fn functions(&self) -> Arc<[Arc<ScalarUDF>]> {
        Arc::clone(&self.functions.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn apply(&self, mut builder: SessionStateBuilder) -> SessionStateBuilder {
        builder
            .config()
            .get_or_insert_default()
            .set_extension(Arc::clone(&self.depots));
        builder
            .with_distributed_user_codec(Codec)
            .with_distributed_channel_resolver(self.channels.clone())
    }
}

fn functions_with(keys: &KeyRing) -> Arc<[Arc<ScalarUDF>]> {
    mask_functions(&Arc::new(keys.clone())).into()
}

/// Makes the session of a query on the coordinator distribute its plans over `members`. The builder must already have
/// its config and its query planner. When there is no active worker, or one, plans stay whole.
pub fn coordinator_session(builder: SessionStateBuilder, wire: &Wire, members: &Members) -> SessionStateBuilder {
    let mut builder = wire.apply(builder);
    let config = builder.config().get_or_insert_default();
    config.set_extension(Arc::new(SharedSnapshotsOnly));
    builder
        .with_distributed_planner()
        .with_distributed_worker_resolver(members.clone())
        .with_distributed_option_extension(QueryGrants::default())
        .with_distributed_desired_task_count_handler(CountTasks)
        .with_distributed_scale_up_leaf_node_handler(DealSplits)
}

/// Makes the session of a stage on a worker.
pub fn worker_session(context: WorkerQueryContext, wire: &Wire) -> Result<SessionState> {
    let WorkerQueryContext { builder, headers } = context;
    let mut builder = wire
        .apply(builder)
        .with_distributed_option_extension_from_headers::<QueryGrants>(&headers)?
        .with_distributed_worker_plan_rewrite_handler(VerifyStage)
        .with_distributed_worker_plan_rewrite_handler(NoteStage(wire.readings.clone()));
    // Only here, where plans are decoded: no SQL text is ever planned in this session.
    builder.scalar_functions().get_or_insert_default().extend(
        (wire.functions().iter())
            .chain(arithmetic::functions())
            .chain(single_row::functions())
            .map(Arc::clone),
    );
    builder
        .aggregate_functions()
        .get_or_insert_default()
        .extend(aggregates());
    let config = builder.config().get_or_insert_default();
    take_options(config)?;
    let told = config.options().extensions.get::<QueryGrants>();
    if let Some((query_id, limit)) = told.and_then(|told| Some((told.query_id.clone(), told.max_memory?)))
        && let Some(runtime) = builder.runtime_env()
    {
        *runtime = wire.share(&query_id, limit, runtime);
    }
    Ok(builder.build())
}

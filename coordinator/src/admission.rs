//! Who may run now: the cluster's limits, a queue, and the deadline of each query.
//!
//! In: a principal and the limits of the cluster. Out: a [`Permit`] that is given back when dropped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use minerva_policy::{Principal, Rules};
use minerva_resources::{Limits, ResourceSet};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Code, QueryError, Result};

/// The queue of one coordinator.
#[derive(Debug)]
pub(crate) struct Admission {
    slots: Arc<Semaphore>,
    concurrent: usize,
    waiting: AtomicUsize,
    max_waiting: usize,
}

/// The right to run one query.
#[derive(Debug)]
pub(crate) struct Permit {
    _slot: OwnedSemaphorePermit,
    /// The limits that hold for this query.
    pub(crate) limits: Limits,
}

impl Permit {
    /// How long the query may take from its beginning.
    pub(crate) fn max_run_time(&self) -> Option<Duration> {
        match (self.limits.max_run_time, self.limits.max_execution_time) {
            (Some(run), Some(execution)) => Some(run.min(execution)),
            (run, execution) => run.or(execution),
        }
    }
}

/// Counts one query that waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Admission {
    /// The queue for these limits; without limits 100 queries run and 1,000 wait.
    pub(crate) fn new(limits: &Limits) -> Self {
        let concurrent = limits.max_concurrent.unwrap_or(100).max(1);
        Self {
            slots: Arc::new(Semaphore::new(concurrent)),
            concurrent,
            waiting: AtomicUsize::new(0),
            max_waiting: limits.max_queued.unwrap_or(1_000),
        }
    }

    /// Waits for a slot of the cluster, for a query under these limits.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when the user may not use the cluster; `QUERY_QUEUE_FULL` when too many wait already.
    pub(crate) async fn admit(
        &self,
        set: &ResourceSet,
        rules: &Rules,
        principal: &Principal,
        cluster: &str,
        limits: Limits,
    ) -> Result<Permit> {
        let declared = set.cluster(cluster);
        if declared.is_some() && !rules.may_use_cluster(principal, cluster).allowed {
            let message = format!("user `{}` may not run queries on cluster `{cluster}`", principal.id);
            return Err(QueryError::new(Code::PermissionDenied, message).with_hint(format!(
                "an access policy must allow `read` on `dataos:resource:cluster:{cluster}`"
            )));
        }
        let slot = match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => self.wait().await?,
        };
        Ok(Permit { _slot: slot, limits })
    }

    async fn wait(&self) -> Result<OwnedSemaphorePermit> {
        let ahead = self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        if ahead >= self.max_waiting {
            let message = format!("{} queries run and {ahead} wait already", self.concurrent);
            return Err(QueryError::new(Code::QueryQueueFull, message)
                .with_hint("try again later, or raise `query.max-queued` of the cluster"));
        }
        Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .map_err(|_| QueryError::new(Code::GenericInternalError, "the coordinator is shutting down"))
    }
}

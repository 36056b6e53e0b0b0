//! What the engine hands to the audit besides its queries: attempts to log in, and the last records at the end.

use std::{sync::Arc, time::Duration};

use super::Engine;
use crate::{
    error::QueryError,
    gateway::auth::{Credentials, Presented, UNGUESSABLE},
    queries::Client,
};

/// How long queries may take to notice that they were stopped, at the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

impl Engine {
    /// Records that somebody could not prove who they are. Every door says so when [`Engine::admit`] refuses.
    pub(crate) fn attempted(&self, client: &Client, presented: &Presented, error: &QueryError) {
        let claimed = match &presented.credentials {
            // A key that was typed in the wrong place is not kept.
            Some(Credentials::Basic { user, .. })
                if user.len() < UNGUESSABLE || self.snapshot().set.user(user).is_some() =>
            {
                Some(user.as_str())
            }
            Some(Credentials::Basic { .. }) => None,
            Some(Credentials::Bearer(_)) | None => None,
        };
        self.audit.attempt(client, claimed, error);
    }

    /// Stops what still runs and writes the last records. The doors must be closed already.
    pub(crate) async fn close(self: &Arc<Self>) {
        self.queries.stop_all("the coordinator was stopped");
        let idle = async {
            while self.queries.is_busy() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(CLOSE_WITHIN, idle).await.is_err() {
            tracing::warn!("queries were still running at the end; their records say so at the next start");
        }
        let engine = Arc::clone(self);
        let _ = tokio::task::spawn_blocking(move || engine.audit.close()).await;
    }
}

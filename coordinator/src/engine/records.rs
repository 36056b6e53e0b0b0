//! What the engine hands to the audit besides its queries: attempts to log in, and the last records at the end.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use minerva_cluster::SpillFolder;
use minerva_policy::Principal;

use super::Engine;
use crate::{
    audit::{Call, trace::Traced},
    error::{QueryError, Result},
    gateway::auth::{Credentials, Presented, UNGUESSABLE},
    queries::Client,
};

/// How long queries may take to notice that they were stopped, at the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

/// How much is kept of what a call was about.
const LONGEST_CALL: usize = 4_000;

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

    /// Records a call of a door that is no statement, for who was refused something.
    ///
    /// # Errors
    /// When it cannot be recorded: then nothing is answered but that.
    pub(crate) fn called(
        &self,
        principal: &Principal,
        client: &Client,
        what: String,
        error: Option<&QueryError>,
        mut traced: Traced,
    ) -> Result<()> {
        self.audit.expect_writable()?;
        traced
            .resources
            .get_or_insert_with(|| self.snapshot().version().0.clone());
        self.audit.call(Call {
            id: self.queries.new_id(Utc::now()),
            principal,
            client,
            cluster: &self.config.cluster,
            what: what.chars().take(LONGEST_CALL).collect(),
            error,
            traced,
        });
        Ok(())
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
        drop(SpillFolder::of(&self.runtime));
        let engine = Arc::clone(self);
        let _ = tokio::task::spawn_blocking(move || engine.audit.close()).await;
    }
}

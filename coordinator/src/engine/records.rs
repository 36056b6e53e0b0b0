//! What the engine hands to the audit besides its queries: attempts to log in, and the last records at the end.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use minerva_cluster::SpillFolder;
use minerva_policy::Principal;

use super::Engine;
use crate::{
    audit::{Call, Stage, trace::Traced},
    error::{QueryError, Result},
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
        traced: Traced,
    ) -> Result<()> {
        self.audit.expect_writable()?;
        let id = self.queries.new_id(Utc::now());
        self.call(id, (principal, client), what, error, traced, Stage::Asked)
    }

    /// Records that somebody is about to change something; the id is that of the record, for [`Engine::changed`].
    ///
    /// # Errors
    /// When it cannot be recorded, or there are too many: then nothing is changed.
    pub(crate) fn changes(&self, principal: &Principal, client: &Client, what: String) -> Result<String> {
        self.audit.expect_writable()?;
        let id = self.queries.new_id(Utc::now());
        self.call(
            id.clone(),
            (principal, client),
            what,
            None,
            Traced::default(),
            Stage::Begins,
        )?;
        Ok(id)
    }

    /// Records what became of a change. It is kept until it can be written.
    ///
    /// # Errors
    /// None today.
    pub(crate) fn changed(
        &self,
        id: String,
        principal: &Principal,
        client: &Client,
        what: String,
        error: Option<&QueryError>,
    ) -> Result<()> {
        self.call(id, (principal, client), what, error, Traced::default(), Stage::Ended)
    }

    fn call(
        &self,
        id: String,
        (principal, client): (&Principal, &Client),
        what: String,
        error: Option<&QueryError>,
        mut traced: Traced,
        stage: Stage,
    ) -> Result<()> {
        traced
            .resources
            .get_or_insert_with(|| self.snapshot().version().0.clone());
        self.audit.call(Call {
            id,
            principal,
            client,
            cluster: &self.config.cluster,
            what,
            error,
            traced,
            stage,
        })
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

//! The HTTP door: health, access decisions, and what the gateway knows of queries and policies.
//!
//! In: a bound listener and the engine. Out: HTTP/1.1 until shutdown.
//! The path of a call: `connections` (limits of size and time, TLS) -> `routes` (which path is whose) -> `caller` (who asks; never anonymous but
//! for health) -> one file for each group of paths -> `answer` (JSON, and each error code as a status) -> `record` (refusals go to the audit).
//! Every HTTP type stays inside this folder. Deliberately absent: statements; Trino's protocol is not served yet, and says so.

mod answer;
mod authorize;
mod caller;
mod clusters;
mod connections;
mod decision;
mod health;
mod patient;
mod queries;
mod record;
mod routes;

use std::sync::Arc;

use async_trait::async_trait;

use super::{Door, Endpoint, GatewayError, Shutdown};
use crate::engine::Engine;

/// The HTTP door.
#[derive(Debug)]
pub(super) struct Http;

#[async_trait]
impl Endpoint for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    async fn serve(&self, door: Door, engine: Arc<Engine>, shutdown: Shutdown) -> Result<(), GatewayError> {
        let tls = match &door.tls {
            Some(tls) => Some(tls.acceptor().map_err(|message| GatewayError::Serve {
                door: self.name(),
                message,
            })?),
            None => None,
        };
        connections::serve(door.listener, tls, routes::all(engine), shutdown).await;
        Ok(())
    }
}

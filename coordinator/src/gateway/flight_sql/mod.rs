//! The Flight SQL door: what ADBC, JDBC, ODBC and Arrow programs talk to.
//!
//! In: a bound listener and the engine. Out: a gRPC server until shutdown.
//! The path of a call: `connection` (who is at the other end) -> `front` (authenticates every call, catches panics, adds what arrow-flight
//! leaves out) -> `service` (one method for each command) -> `statements`, `metadata`, `actions` -> `stream` (record batches as messages).
//! Every protocol type stays inside this folder.

mod actions;
mod connection;
mod front;
mod handles;
mod metadata;
mod own_actions;
mod parameters;
mod prepared;
mod service;
mod session_messages;
mod sessions;
mod sql_info;
mod statements;
mod status;
mod stream;
mod table_schemas;
mod types;
mod xdbc;

use std::{sync::Arc, time::Duration};

use arrow_flight::flight_service_server::FlightServiceServer;
use async_trait::async_trait;
use tonic::transport::Server;

use self::{front::Front, service::Service};
use super::{Door, Endpoint, GatewayError, Shutdown};
use crate::engine::Engine;

/// The largest message a client may send: SQL text, or a batch of parameters.
const REQUEST_LIMIT_BYTES: usize = 16 << 20;

/// How often a silent connection is asked whether it is still there, and how long it may take to answer.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How often forgotten results and sessions are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);

/// How long running answers may take after shutdown was asked for.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// The Flight SQL door.
#[derive(Debug)]
pub(super) struct FlightSql;

#[async_trait]
impl Endpoint for FlightSql {
    fn name(&self) -> &'static str {
        "flight"
    }

    async fn serve(&self, door: Door, engine: Arc<Engine>, shutdown: Shutdown) -> Result<(), GatewayError> {
        let failed = |message: String| GatewayError::Serve {
            door: self.name(),
            message,
        };
        let service = Arc::new(Service::new(engine).map_err(|error| failed(error.to_string()))?);

        let mut server = Server::builder()
            .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT));
        if let Some(tls) = &door.tls {
            server = server
                .tls_config(tls.config())
                .map_err(|error| failed(error.to_string()))?;
        }
        let flight =
            FlightServiceServer::new(Front::new(Arc::clone(&service))).max_decoding_message_size(REQUEST_LIMIT_BYTES);

        let serving = server
            .add_service(flight)
            .serve_with_incoming_shutdown(connection::accept(door.listener), shutdown.clone());
        let too_late = async {
            shutdown.await;
            tokio::time::sleep(SHUTDOWN_GRACE).await;
        };
        tokio::select! {
            result = serving => result.map_err(|error| failed(error.to_string())),
            () = too_late => {
                tracing::warn!("answers were still running when the Flight SQL door closed");
                Ok(())
            }
            () = sweep(&service) => Ok(()),
        }
    }
}

/// Drops what clients have forgotten, for ever.
async fn sweep(service: &Service) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        service.sweep();
    }
}

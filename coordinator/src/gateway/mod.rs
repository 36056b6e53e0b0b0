//! The front doors: one wire protocol each, the same sessions, catalogue, policies and errors behind all of them.
//!
//! In: where to listen, TLS files, the engine. Out: bound addresses first, then service until shutdown.
//! Every listener is bound before anything is served, so that a port in use stops the start and no client meets half a server.
//! Deliberately absent: anything about SQL. A door reads, calls the engine, and encodes.

pub mod auth;
mod flight_sql;
mod http;
mod tls;

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use async_trait::async_trait;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared, try_join_all},
};
use tokio::net::TcpListener;

use crate::engine::Engine;

pub use tls::Tls;

/// Every front door, in the order in which their addresses are printed.
pub const ENDPOINTS: &[&dyn Endpoint] = &[&http::Http, &flight_sql::FlightSql];

/// Completes when the process is asked to leave; every door holds a clone.
pub type Shutdown = Shared<BoxFuture<'static, ()>>;

/// Makes a [`Shutdown`] of any future.
pub fn shutdown_when(signal: impl Future<Output = ()> + Send + 'static) -> Shutdown {
    signal.boxed().shared()
}

/// One wire protocol: what each door must say for itself.
#[async_trait]
pub trait Endpoint: Send + Sync {
    /// The name of the door, as it is printed and as its port is looked up: `flight`.
    fn name(&self) -> &'static str;

    /// Serves connections until `shutdown`, then lets running answers finish for a short while.
    async fn serve(&self, door: Door, engine: Arc<Engine>, shutdown: Shutdown) -> Result<(), GatewayError>;
}

impl fmt::Debug for dyn Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A bound listener with what belongs to it.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
}

/// Where the doors listen. Whether plain text may leave the machine was decided when the configuration was checked.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The address of this machine.
    pub host: IpAddr,
    /// The port of each door by [`Endpoint::name`]; 0 takes a free one. A door without a port stays shut.
    pub ports: BTreeMap<&'static str, u16>,
    /// The certificate and key of every door, checked; `None` for plain text.
    pub tls: Option<Arc<Tls>>,
}

/// Why a door could not be opened or kept open.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The port is taken or forbidden.
    #[error("door `{door}` cannot listen on `{address}`: {source}; choose another port, or 0 for a free one")]
    Listen {
        /// The door's name.
        door: &'static str,
        /// The address wanted.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A TLS file cannot be read.
    #[error("TLS file `{}` cannot be read: {source}", path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The TLS files hold no usable certificate and key.
    #[error("TLS files `{}` and `{}` cannot be used: {message}; expected a PEM certificate chain and its private key", certificate.display(), key.display())]
    TlsContent {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The file of authorities holds none.
    #[error("TLS file `{}` holds no authority that clients' certificates could be checked by; expected PEM certificates", path.display())]
    TlsAuthorities {
        /// The file.
        path: PathBuf,
    },
    /// A door that was open failed.
    #[error("door `{door}` failed: {message}")]
    Serve {
        /// The door's name.
        door: &'static str,
        /// What happened.
        message: String,
    },
}

/// The doors that are bound and not yet served.
#[derive(Debug)]
pub struct Gateway {
    doors: Vec<(&'static dyn Endpoint, SocketAddr, Door)>,
}

/// Binds a listener for every door that has a port.
pub async fn bind(listen: &Listen) -> Result<Gateway, GatewayError> {
    let mut doors = Vec::new();
    for endpoint in ENDPOINTS {
        let Some(port) = listen.ports.get(endpoint.name()) else {
            continue;
        };
        let address = SocketAddr::new(listen.host, *port);
        let failed = |source| GatewayError::Listen {
            door: endpoint.name(),
            address,
            source,
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        doors.push((
            *endpoint,
            bound,
            Door {
                listener,
                tls: listen.tls.clone(),
            },
        ));
    }
    Ok(Gateway { doors })
}

impl Gateway {
    /// The name and address of each bound door.
    pub fn addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        self.doors
            .iter()
            .map(|(endpoint, address, _)| (endpoint.name(), *address))
    }

    /// Serves every door until shutdown; the failure of one ends all.
    pub async fn serve(self, engine: Arc<Engine>, shutdown: Shutdown) -> Result<(), GatewayError> {
        let doors = self.doors.into_iter();
        try_join_all(doors.map(|(endpoint, _, door)| endpoint.serve(door, Arc::clone(&engine), shutdown.clone())))
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(port: u16) -> Listen {
        Listen {
            host: IpAddr::from([127, 0, 0, 1]),
            ports: BTreeMap::from([("flight", port)]),
            tls: None,
        }
    }

    #[tokio::test]
    async fn every_door_with_a_port_is_bound_and_says_where_and_a_port_in_use_is_named() {
        let gateway = bind(&listen(0)).await.unwrap();
        let addresses: Vec<_> = gateway.addresses().collect();
        assert_eq!(addresses.len(), 1);
        assert_eq!(addresses[0].0, "flight");

        let port = addresses[0].1.port();
        let refused = bind(&listen(port)).await.unwrap_err().to_string();
        assert!(refused.contains(&format!("127.0.0.1:{port}")), "{refused}");
    }

    #[test]
    fn doors_have_distinct_names() {
        let mut names: Vec<_> = ENDPOINTS.iter().map(|endpoint| endpoint.name()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}

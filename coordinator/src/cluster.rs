//! A coordinator as a whole: every port bound first, then served until shutdown.
//!
//! In: a [`Config`]. Out: the bound addresses, a place to add workers of this process, and service. Deliberately absent: the worker's own
//! code, which this crate never sees: workers are handed in, or join over the cluster port.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc};

use datafusion_distributed::Worker;
use minerva_cluster::{Channels, ClusterPort, Members, Membership, Readings, Tls, TlsFiles, Token, Wire};
use minerva_connectors::{Depots, Ledger};
use minerva_policy::{KeyRing, Rules};
use minerva_resources::Problems;
use tokio::net::TcpListener;
use url::Url;

use crate::{
    config::Config,
    engine::{Engine, FirstStart, prepare},
    gateway::{self, Gateway, Listen, Shutdown},
};

/// A coordinator whose ports are bound and that does not serve yet.
pub struct Bound {
    engine: Arc<Engine>,
    first: FirstStart,
    gateway: Gateway,
    cluster: TcpListener,
    cluster_addr: SocketAddr,
    channels: Channels,
    token: Token,
    tls: Option<Tls>,
    worker: Option<Worker>,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound")
            .field("addresses", &self.addresses())
            .finish_non_exhaustive()
    }
}

/// Reads everything, binds every port, serves nothing yet.
///
/// # Errors
/// A sentence that names the setting, the manifest, the folder or the port, and says what to do.
pub async fn bind(config: Config) -> Result<Bound, String> {
    let prepared = prepare(&config)?;
    let tls = cluster_tls(&config)?;
    let token = match &config.join_token_file {
        Some(file) => Token::read(file),
        None => Token::open(&config.data),
    };
    let token = token.map_err(|error| error.to_string())?;
    let door_tls = match &config.tls {
        Some(files) => Some(Arc::new(
            gateway::Tls::read(&files.cert, &files.key, files.ca.as_deref()).map_err(|error| error.to_string())?,
        )),
        None => None,
    };
    let listen = Listen {
        host: config.host,
        ports: BTreeMap::from([("http", config.http_port), ("flight", config.flight_port)]),
        tls: door_tls,
    };
    let gateway = gateway::bind(&listen).await.map_err(|error| error.to_string())?;
    let address = SocketAddr::new(config.host, config.cluster_port);
    let failed = |error| {
        format!(
            "door `cluster` cannot listen on `{address}`: {error}; choose another port with --cluster-port, or 0 for a free one"
        )
    };
    let cluster = TcpListener::bind(address).await.map_err(failed)?;
    let cluster_addr = cluster.local_addr().map_err(failed)?;
    let channels = Channels::new(token.clone(), tls.clone());
    let members = Members::new("coordinator", cluster_url(cluster_addr, tls.is_some())?);
    let set = prepared.resources.current();
    let keys: Arc<KeyRing> = Arc::clone(
        Rules::compile(&set)
            .map_err(|problems| Problems(problems).to_string())?
            .keys(),
    );
    let wire = Wire::new(Arc::new(Depots::new(set)), &keys, channels.clone());
    let first = prepared.first.clone();
    let engine = Engine::new(config, prepared, members, wire)?;
    Ok(Bound {
        engine,
        first,
        gateway,
        cluster,
        cluster_addr,
        channels,
        token,
        tls,
        worker: None,
    })
}

fn cluster_tls(config: &Config) -> Result<Option<Tls>, String> {
    let Some(files) = &config.tls else { return Ok(None) };
    let files = TlsFiles {
        cert: Some(files.cert.clone()),
        key: Some(files.key.clone()),
        ca: files.ca.clone(),
    };
    Tls::read(&files).map_err(|error| error.to_string())
}

fn cluster_url(address: SocketAddr, tls: bool) -> Result<Url, String> {
    let scheme = if tls { "https" } else { "http" };
    Url::parse(&format!("{scheme}://{address}"))
        .map_err(|error| format!("`{address}` is no address of a coordinator: {error}"))
}

impl Bound {
    /// The engine behind the doors.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// What a first start made.
    pub fn first_start(&self) -> &FirstStart {
        &self.first
    }

    /// The name and address of each bound port.
    pub fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        self.gateway
            .addresses()
            .chain([("cluster", self.cluster_addr)])
            .collect()
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.engine.config.data
    }

    /// Adds workers of this process; `worker` runs the stages of all of them.
    ///
    /// # Errors
    /// None for any number that fits a URL.
    pub fn add_workers(&mut self, count: usize, worker: &Worker) -> Result<(), String> {
        for number in 0..count {
            let url = self
                .engine
                .members
                .add_in_process(number, 0)
                .map_err(|error| error.to_string())?;
            self.channels.add_in_process(url, worker.clone());
        }
        self.worker = (count > 0).then(|| worker.clone());
        Ok(())
    }

    /// Serves every port and watches the manifests, until shutdown.
    ///
    /// # Errors
    /// When a port fails for good.
    pub async fn serve(self, shutdown: Shutdown) -> Result<(), String> {
        let membership = Arc::new(Coordinator {
            engine: Arc::clone(&self.engine),
            channels: self.channels,
        });
        let port = ClusterPort {
            membership,
            worker: self.worker,
            token: self.token,
            tls: self.tls,
        };
        let doors = self.gateway.serve(Arc::clone(&self.engine), shutdown.clone());
        let cluster = port.serve(self.cluster, shutdown.clone());
        let serving = async {
            let (doors, cluster) = tokio::join!(doors, cluster);
            doors
                .map_err(|error| error.to_string())
                .and(cluster.map_err(|error| error.to_string()))
        };
        let served = tokio::select! {
            served = serving => served,
            () = Arc::clone(&self.engine).watch() => Err("the manifests are no longer watched".to_owned()),
            () = Arc::clone(&self.engine).fetch_keys() => Err("the keys of identity providers are no longer fetched".to_owned()),
        };
        self.engine.close().await;
        served
    }
}

/// The coordinator as workers see it.
struct Coordinator {
    engine: Arc<Engine>,
    channels: Channels,
}

impl Membership for Coordinator {
    fn members(&self) -> &Members {
        &self.engine.members
    }

    fn channels(&self) -> &Channels {
        &self.channels
    }

    fn readings(&self) -> &Readings {
        self.engine.wire().readings()
    }

    fn ledger(&self) -> &Arc<Ledger> {
        self.engine.wire().depots().ledger()
    }

    fn resources(&self) -> Arc<minerva_cluster::Resources> {
        Arc::clone(&self.engine.snapshot().for_workers)
    }
}

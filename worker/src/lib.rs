//! A worker: runs the stages of queries that a coordinator sends it.
//!
//! In: stages over the cluster's gRPC, from members that hold the join token; depots and keys from the coordinator.
//! Out: batches, to the coordinator and to other workers. It plans nothing, knows no user and keeps nothing on disk but
//! what a query spills. Every stage is verified here again before it runs.
//!
//! [`bind`] takes the port, [`Bound::serve`] joins the coordinator and serves until it is told to stop, and then drains.
//! [`in_process`] is the same worker inside a coordinator's process.

mod drain;
mod member;
mod session;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion_distributed::Worker;
use minerva_cluster::{
    Channels, CheckToken, CoordinatorClient, Error, Join, SpillFolder, Tls, Token, VERSION, Wire, reason_of, server,
};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;
use url::Url;

use crate::session::State;

/// How a worker is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// The coordinator's cluster port.
    pub coordinator: Url,
    /// The host to listen on, which is also where the others call it. `0.0.0.0` listens everywhere and is called where
    /// the coordinator sees it.
    pub host: String,
    /// The port to listen on; 0 takes a free one.
    pub port: u16,
    /// The cluster's secret.
    pub token: Token,
    /// Certificates, or `None` for plain text.
    pub tls: Option<Tls>,
    /// How much memory its queries may have.
    pub memory_bytes: u64,
    /// The threads that stages run on, so that the coordinator hears of the worker while they are busy.
    pub compute_on: Handle,
    /// How many threads it computes with, for the listing of nodes.
    pub cores: usize,
    /// How long it may take to finish what it has once it is told to stop.
    pub drain_within: Duration,
}

/// A worker whose port is taken, not serving yet.
pub struct Bound {
    addr: SocketAddr,
    listener: TcpListener,
    config: Config,
    join: Join,
    state: Arc<State>,
    joined: watch::Sender<bool>,
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound")
            .field("addr", &self.addr)
            .field("join", &self.join)
            .finish_non_exhaustive()
    }
}

/// Takes the worker's port. Does not call the coordinator yet.
pub async fn bind(config: Config) -> Result<Bound, Error> {
    if config.tls.as_ref().is_some_and(|tls| !tls.is_server()) {
        return Err(Error::Tls(
            "a worker with TLS needs `--tls-cert` and `--tls-key`".to_owned(),
        ));
    }
    let cannot_listen =
        |error: std::io::Error| Error::Address(format!("cannot listen on `{}:{}`: {error}", config.host, config.port));
    let listener = TcpListener::bind((config.host.as_str(), config.port))
        .await
        .map_err(cannot_listen)?;
    let addr = listener.local_addr().map_err(cannot_listen)?;
    let join = Join {
        node_id: session::node_id()?,
        url: url_of(&config, addr)?,
        version: VERSION.to_owned(),
        cores: config.cores,
        memory_bytes: config.memory_bytes,
    };
    let channels = Channels::of_worker(config.token.clone(), config.tls.clone(), config.coordinator.clone());
    let client = CoordinatorClient::new(config.coordinator.clone(), channels.clone());
    let state = Arc::new(State::new(&join.node_id, client, channels));
    Ok(Bound {
        addr,
        listener,
        config,
        join,
        state,
        joined: watch::Sender::new(false),
    })
}

fn url_of(config: &Config, addr: SocketAddr) -> Result<Url, Error> {
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let host = match config.host.parse::<std::net::IpAddr>() {
        Ok(_) => addr.to_string(),
        Err(_) => format!("{}:{}", config.host, addr.port()),
    };
    Url::parse(&format!("{scheme}://{host}"))
        .map_err(|error| Error::Address(format!("cannot be called at `{scheme}://{host}`: {error}")))
}

impl Bound {
    /// The address that was taken.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where the others call it, unless it listens everywhere.
    pub fn url(&self) -> &Url {
        &self.join.url
    }

    /// The name under which the worker joins.
    pub fn node_id(&self) -> &str {
        &self.join.node_id
    }

    /// Becomes true when the coordinator has taken the worker in, and false again while it is away.
    pub fn joined(&self) -> watch::Receiver<bool> {
        self.joined.subscribe()
    }

    /// Joins the coordinator and runs what it sends, until `shutdown` is done; then takes nothing new, finishes what it
    /// has, and leaves. While the coordinator is away it goes on trying. An error means that it was refused.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let runtime = self.state.runtime(self.config.memory_bytes)?;
        let _spilled = SpillFolder::of(&runtime);
        let worker = session::worker(&self.state, &runtime);
        let (stop, stopped) = oneshot::channel::<()>();
        let guarded = InterceptedService::new(
            worker.clone().into_worker_server(),
            CheckToken(self.config.token.clone()),
        );
        let serving = server(self.config.tls.as_ref())?
            .add_service(guarded)
            .serve_with_incoming_shutdown(TcpIncoming::from(self.listener).with_nodelay(Some(true)), async {
                // Told to stop, or nobody is left to tell.
                let _ = stopped.await;
            });
        let mut port = JoinSet::new();
        port.spawn_on(serving, &self.config.compute_on);
        let _borrowing = self.state.borrower.run();
        let membership = member::stay(&self.state, &self.join, &self.joined);
        let end = tokio::select! {
            served = closed(&mut port) => return served,
            refusal = membership => Err(refusal),
            () = shutdown => Ok(()),
        };
        if end.is_ok() {
            // The port stays open while tasks run: other workers still fetch from them.
            tokio::select! {
                served = closed(&mut port) => return served,
                () = drain::drain(&self.state, &worker, self.config.drain_within) => {}
            }
        }
        drop(stop);
        // Whoever still holds a connection has had its time.
        let _ = tokio::time::timeout(drain::CLOSE_WITHIN, closed(&mut port)).await;
        end
    }
}

/// Completes when the port serves no more.
async fn closed(port: &mut JoinSet<Result<(), tonic::transport::Error>>) -> Result<(), Error> {
    let stopped = |reason: String| Err(Error::Address(format!("the worker's port stopped: {reason}")));
    match port.join_next().await {
        None | Some(Ok(Ok(()))) => Ok(()),
        Some(Ok(Err(error))) => stopped(reason_of(&error)),
        Some(Err(error)) => stopped(error.to_string()),
    }
}

/// A worker inside a coordinator's process, on the coordinator's own depots and keys. One serves any number of
/// `inproc://<n>` addresses: tasks never share anything but memory and threads.
pub fn in_process(wire: Wire, runtime: Arc<RuntimeEnv>) -> Worker {
    session::local(wire, runtime)
}

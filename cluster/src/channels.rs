//! How the members of a cluster reach each other's workers.
//!
//! In: a worker's address. Out: a channel to it: a call into this process for a worker that lives here, else one shared
//! HTTP/2 connection per address, with the join token on every call, TLS when configured, and limits after which a
//! silent peer counts as lost. It keeps no list of who is alive; that is [`crate::Members`]' business.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_distributed::grpc::{BoxCloneSyncChannel, create_worker_client};
use datafusion_distributed::{
    ChannelResolver, CoordinatorToWorkerMsg, ExecuteTaskRequest, GetWorkerInfoRequest, GetWorkerInfoResponse,
    MaybeEncoded, SetPlanRequest, Worker, WorkerChannel, WorkerToCoordinatorMsg,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{HeaderMap, HeaderValue};
use tokio::sync::OnceCell;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint, Server};
use tower::Service;
use url::Url;

use crate::error::reason_of;
use crate::members::IN_PROCESS;
use crate::{Error, Tls, Token, WorkerLost};

/// How long a connection may take to come up.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// After how much silence a peer is asked whether it is there, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Policies and grants travel in headers; HTTP/2's usual limit is 16 KiB.
const HEADER_LIST_BYTES: u32 = 1024 * 1024;
/// A stream that nobody reads holds back at most this much of a connection ...
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// ... whose own window is the largest there is, so that streams never wait for each other.
const CONNECTION_WINDOW_BYTES: u32 = i32::MAX as u32;

/// The channels of one process. Clones share the connections.
#[derive(Clone)]
pub struct Channels(Arc<Inner>);

struct Inner {
    token: Token,
    tls: Option<Tls>,
    /// Where the workers inside the coordinator's process are reached from elsewhere.
    coordinator: Option<Url>,
    local: Mutex<HashMap<Url, Worker>>,
    remote: Mutex<HashMap<Url, Arc<OnceCell<Channel>>>>,
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels")
            .field("tls", &self.0.tls)
            .field("coordinator", &self.0.coordinator)
            .finish_non_exhaustive()
    }
}

impl Channels {
    /// The channels of a coordinator's process.
    pub fn new(token: Token, tls: Option<Tls>) -> Self {
        Self::build(token, tls, None)
    }

    /// The channels of a worker's process: `inproc://<n>` means a worker inside the process of `coordinator`.
    pub fn of_worker(token: Token, tls: Option<Tls>, coordinator: Url) -> Self {
        Self::build(token, tls, Some(coordinator))
    }

    fn build(token: Token, tls: Option<Tls>, coordinator: Option<Url>) -> Self {
        Self(Arc::new(Inner {
            token,
            tls,
            coordinator,
            local: Mutex::default(),
            remote: Mutex::default(),
        }))
    }

    /// Makes `url` mean `worker`, called directly.
    pub fn add_in_process(&self, url: Url, worker: Worker) {
        lock(&self.0.local).insert(url, worker);
    }

    /// Drops the connection to a worker that left.
    pub fn forget(&self, url: &Url) {
        lock(&self.0.remote).remove(url);
    }

    /// Asks a worker for its version: whether it can be reached from here, and is a worker.
    pub async fn probe(&self, url: &Url) -> Result<String> {
        let mut channel = self.get_worker_client_for_url(url).await?;
        match tokio::time::timeout(CONNECT_WITHIN, channel.get_worker_info(GetWorkerInfoRequest {})).await {
            Ok(info) => Ok(info?.version),
            Err(_) => Err(WorkerLost {
                url: url.to_string(),
                reason: format!("no answer within {CONNECT_WITHIN:?}"),
            }
            .into()),
        }
    }

    /// The connection to `url`, made if there is none. A broken one repairs itself at its next call.
    pub(crate) async fn connection(&self, url: &Url) -> Result<Channel, Error> {
        let cell = Arc::clone(lock(&self.0.remote).entry(url.clone()).or_default());
        let channel = cell.get_or_try_init(|| async {
            self.endpoint(url)?.connect().await.map_err(|error| Error::Unreachable {
                url: url.to_string(),
                reason: reason_of(&error),
            })
        });
        channel.await.cloned()
    }

    fn endpoint(&self, url: &Url) -> Result<Endpoint, Error> {
        let endpoint = Endpoint::from_shared(url.to_string())
            .map_err(|error| Error::Address(format!("cannot call `{url}`: {}", reason_of(&error))))?
            .connect_timeout(CONNECT_WITHIN)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .http2_max_header_list_size(HEADER_LIST_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        match (url.scheme(), &self.0.tls) {
            ("http", None) => Ok(endpoint),
            ("https", Some(tls)) => endpoint
                .tls_config(tls.client())
                .map_err(|error| Error::Tls(format!("cannot call `{url}`: {}", reason_of(&error)))),
            ("https", None) => Err(Error::Tls(format!(
                "cannot call `{url}`: give `--tls-ca`, the certificate it is to be trusted by"
            ))),
            ("http", Some(_)) => Err(Error::Tls(format!(
                "`{url}` is plain text, but this process was given TLS files; use `https://`"
            ))),
            (scheme, _) => Err(Error::Address(format!(
                "cannot call `{url}`: unknown scheme `{scheme}`; expected `http` or `https`"
            ))),
        }
    }

    /// The connection with the join token on every call.
    pub(crate) fn with_token(&self, connection: Channel) -> WithToken {
        WithToken {
            inner: connection,
            token: self.0.token.header().clone(),
        }
    }

    /// The address that a call to `url` really goes to.
    fn target<'a>(&'a self, url: &'a Url) -> Result<&'a Url> {
        if url.scheme() != IN_PROCESS {
            return Ok(url);
        }
        self.0.coordinator.as_ref().ok_or_else(|| {
            WorkerLost {
                url: url.to_string(),
                reason: "no such worker in this process".to_owned(),
            }
            .into()
        })
    }
}

#[async_trait]
impl ChannelResolver for Channels {
    async fn get_worker_client_for_url(&self, url: &Url) -> Result<Box<dyn WorkerChannel>> {
        let local = lock(&self.0.local).get(url).cloned();
        if let Some(worker) = local {
            return Ok(Box::new(InProcess(worker)));
        }
        let connection = self.connection(self.target(url)?).await.map_err(|error| match error {
            Error::Unreachable { reason, .. } => WorkerLost {
                url: url.to_string(),
                reason,
            }
            .into(),
            other => DataFusionError::External(Box::new(other)),
        })?;
        let channel = self.with_token(connection);
        Ok(Box::new(Named {
            url: url.clone(),
            inner: create_worker_client(BoxCloneSyncChannel::new(channel)),
        }))
    }
}

/// Adds the token to every request.
#[derive(Clone)]
pub(crate) struct WithToken {
    inner: Channel,
    token: HeaderValue,
}

impl Service<http::Request<Body>> for WithToken {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = <Channel as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::poll_ready(&mut self.inner, context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        request
            .headers_mut()
            .insert(http::header::AUTHORIZATION, self.token.clone());
        Service::call(&mut self.inner, request)
    }
}

/// A worker of this process. Plans are written and read again, so that two tasks never share a node and its state;
/// batches are handed over as they are.
struct InProcess(Worker);

#[async_trait]
impl WorkerChannel for InProcess {
    async fn coordinator_channel(
        &mut self,
        headers: HeaderMap,
        mut request: SetPlanRequest,
        messages: BoxStream<'static, CoordinatorToWorkerMsg>,
        _metrics: ExecutionPlanMetricsSet,
        context: &Arc<TaskContext>,
    ) -> Result<BoxStream<'static, Result<WorkerToCoordinatorMsg>>> {
        request.plan = MaybeEncoded::Encoded(request.plan.encode(context)?);
        self.0
            .coordinator_channel(headers, request, messages.map(Ok).boxed())
            .await
    }

    async fn execute_task(
        &mut self,
        _headers: HeaderMap,
        request: ExecuteTaskRequest,
        _metrics: ExecutionPlanMetricsSet,
        _context: &Arc<TaskContext>,
    ) -> Result<Vec<BoxStream<'static, Result<RecordBatch>>>> {
        let (streams, _) = self.0.execute_task(request).await?;
        Ok(streams.into_iter().map(StreamExt::boxed).collect())
    }

    async fn get_worker_info(&mut self, _request: GetWorkerInfoRequest) -> Result<GetWorkerInfoResponse> {
        Ok(GetWorkerInfoResponse {
            version: self.0.version().to_owned(),
        })
    }
}

/// A remote worker, whose name goes into the errors of its connection.
struct Named {
    url: Url,
    inner: Box<dyn WorkerChannel>,
}

#[async_trait]
impl WorkerChannel for Named {
    async fn coordinator_channel(
        &mut self,
        headers: HeaderMap,
        request: SetPlanRequest,
        messages: BoxStream<'static, CoordinatorToWorkerMsg>,
        metrics: ExecutionPlanMetricsSet,
        context: &Arc<TaskContext>,
    ) -> Result<BoxStream<'static, Result<WorkerToCoordinatorMsg>>> {
        let answers = self
            .inner
            .coordinator_channel(headers, request, messages, metrics, context)
            .await;
        let url = self.url.clone();
        let answers = answers.map_err(|error| WorkerLost::name(&url, error))?;
        Ok(answers
            .map(move |answer| answer.map_err(|error| WorkerLost::name(&url, error)))
            .boxed())
    }

    async fn execute_task(
        &mut self,
        headers: HeaderMap,
        request: ExecuteTaskRequest,
        metrics: ExecutionPlanMetricsSet,
        context: &Arc<TaskContext>,
    ) -> Result<Vec<BoxStream<'static, Result<RecordBatch>>>> {
        let streams = self.inner.execute_task(headers, request, metrics, context).await;
        let streams = streams.map_err(|error| WorkerLost::name(&self.url, error))?;
        let named = streams.into_iter().map(|stream| {
            let url = self.url.clone();
            stream
                .map(move |batch| batch.map_err(|error| WorkerLost::name(&url, error)))
                .boxed()
        });
        Ok(named.collect())
    }

    async fn get_worker_info(&mut self, request: GetWorkerInfoRequest) -> Result<GetWorkerInfoResponse> {
        let info = self.inner.get_worker_info(request).await;
        info.map_err(|error| WorkerLost::name(&self.url, error))
    }
}

/// A server of the cluster with the limits its clients rely on: as many streams at once as a query has tasks, large
/// headers, and an end to connections whose other side is gone.
pub fn server(tls: Option<&Tls>) -> Result<Server, Error> {
    let server = Server::builder()
        .max_concurrent_streams(u32::MAX)
        .http2_max_header_list_size(HEADER_LIST_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .tcp_nodelay(true);
    match tls {
        None => Ok(server),
        Some(tls) => server
            .tls_config(tls.server()?)
            .map_err(|error| Error::Tls(format!("cannot serve with the TLS files: {}", reason_of(&error)))),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

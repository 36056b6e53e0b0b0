//! Connections: how many, how long, how much.
//!
//! In: a listener and what answers. Out: service until shutdown. A connection that is slow to say what it wants, says too much, or does not
//! read what it is told, is closed; none of them keeps others waiting. Deliberately absent: what a path means.

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::Service;

use super::{super::Shutdown, patient::Patient};
use crate::gateway::auth::ClientCertificate;

/// How many connections are open at once; more wait to be accepted.
const MOST_CONNECTIONS: usize = 2048;
/// How long a client may take for its handshake, for the head of a request, and between two requests.
const HEAD_WITHIN: Duration = Duration::from_secs(15);
/// How long a client may take before it reads more of an answer.
const READS_WITHIN: Duration = Duration::from_secs(30);
/// The largest head of a request: its line and all its headers.
const HEAD_BYTES: usize = 64 << 10;
/// How many headers a request may have.
const MOST_HEADERS: usize = 128;
/// How long running answers may take after shutdown was asked for.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// How long to wait after the system refused to accept, which it does when it is out of file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a request came from.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// The certificate that the client has shown and the handshake has checked.
    pub(super) certificate: Option<Arc<ClientCertificate>>,
}

/// Accepts and answers until shutdown, then lets running answers finish for a short while.
pub(super) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, routes: Router, shutdown: Shutdown) {
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        let slot = tokio::select! {
            () = shutdown.clone() => break,
            slot = Arc::clone(&slots).acquire_owned() => slot,
        };
        let accepted = tokio::select! {
            () = shutdown.clone() => break,
            accepted = listener.accept() => accepted,
        };
        while open.try_join_next().is_some() {}
        match accepted {
            Ok((stream, address)) => {
                let (tls, routes, shutdown) = (tls.clone(), routes.clone(), shutdown.clone());
                open.spawn(async move {
                    let _slot = slot;
                    connection(stream, address, tls, routes, shutdown).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let finished = async { while open.join_next().await.is_some() {} };
    if timeout(SHUTDOWN_GRACE, finished).await.is_err() {
        tracing::warn!("answers were still running when the HTTP door closed");
    }
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    routes: Router,
    shutdown: Shutdown,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%address, %error, "small packets of this connection may be delayed");
    }
    let stream = Patient::new(stream, READS_WITHIN);
    match tls {
        None => {
            let certificate = None;
            requests(stream, Peer { address, certificate }, routes, shutdown).await;
        }
        Some(tls) => match timeout(HEAD_WITHIN, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let certificate = shown.and_then(|shown| ClientCertificate::read(shown)).map(Arc::new);
                requests(stream, Peer { address, certificate }, routes, shutdown).await;
            }
            Ok(Err(error)) => tracing::debug!(%address, %error, "a TLS handshake failed"),
            Err(_) => tracing::debug!(%address, "a TLS handshake took too long"),
        },
    }
}

/// Answers the requests of one connection, one after the other.
async fn requests<S>(stream: S, peer: Peer, routes: Router, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let address = peer.address;
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        answer(routes.clone(), request.map(Body::new))
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES)
        .max_headers(MOST_HEADERS);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = shutdown => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%address, %error, "a connection ended early");
    }
}

async fn answer(mut routes: Router, request: Request<Body>) -> Result<Response<Body>, Infallible> {
    routes.call(request).await
}

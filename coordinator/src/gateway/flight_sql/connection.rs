//! TCP connections that know which client they belong to.
//!
//! In: a listener. Out: a stream of [`Connection`]s; each call on one carries its [`Peer`], which keeps the sessions of clients without cookies.
//! A peer is gone when its connection is closed, and its sessions with it.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tonic::{
    Extensions,
    transport::server::{Connected, TlsConnectInfo},
};

use super::{handles::locked, sessions::ClientSession};
use crate::gateway::auth::ClientCertificate;

/// How long to wait after the system refused to accept, which it does when it is out of file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many unknown cookies are remembered for one connection.
const MOST_LOST_COOKIES: usize = 16;

/// The other end of one connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// The certificate that its client has shown, read once.
    certificate: OnceLock<Option<Arc<ClientCertificate>>>,
    /// The session of each principal that has called on this connection without a cookie.
    pub(super) sessions: Mutex<HashMap<String, Arc<ClientSession>>>,
    /// Cookies that name no session any more and whose client has been told so once.
    lost_cookies: Mutex<HashSet<String>>,
}

impl Peer {
    pub(super) fn new(address: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            address,
            certificate: OnceLock::new(),
            sessions: Mutex::default(),
            lost_cookies: Mutex::default(),
        })
    }

    /// The certificate that the client has shown and the handshake has checked.
    pub(super) fn certificate(&self, extensions: &Extensions) -> Option<Arc<ClientCertificate>> {
        let read = || {
            let shown = extensions.get::<TlsConnectInfo<Arc<Self>>>()?.peer_certs()?;
            ClientCertificate::read(shown.first()?).map(Arc::new)
        };
        self.certificate.get_or_init(read).clone()
    }

    /// Whether this cookie, which names no session, is seen for the first time. Few are remembered: honest clients have one.
    pub(super) fn loses(&self, cookie: &str) -> bool {
        let mut lost = locked(&self.lost_cookies);
        if lost.len() >= MOST_LOST_COOKIES {
            lost.clear();
        }
        lost.insert(cookie.to_owned())
    }

    /// The peer that a call came from.
    pub(super) fn of(extensions: &Extensions) -> Option<Arc<Self>> {
        let plain = extensions.get::<Arc<Self>>();
        plain
            .or_else(|| {
                extensions
                    .get::<TlsConnectInfo<Arc<Self>>>()
                    .map(TlsConnectInfo::get_ref)
            })
            .cloned()
    }
}

/// A stream of bytes and the peer at its end.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    peer: Arc<Peer>,
}

impl Connected for Connection {
    type ConnectInfo = Arc<Peer>;

    fn connect_info(&self) -> Arc<Peer> {
        Arc::clone(&self.peer)
    }
}

/// Accepts connections for ever; a failure to accept is logged and never ends the server.
pub(super) fn accept(listener: TcpListener) -> impl Stream<Item = io::Result<Connection>> {
    futures::stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%address, %error, "small packets of this connection may be delayed");
                    }
                    return Some((
                        Ok(Connection {
                            stream,
                            peer: Peer::new(address),
                        }),
                        listener,
                    ));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

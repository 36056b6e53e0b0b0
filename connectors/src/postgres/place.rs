//! Where one connection's server is: connecting to it, and telling it to stop what it does for that connection.
//!
//! A server, or a pooler in front of it, closes a connection when it has done with it: one that was taken leave of, and one over which it was told to stop.
//! That is waited for. Who leaves earlier does not know whether the server counts it still, or what will be stopped, and brings pgbouncer 1.18 down.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, Client, Config, NoTls};

use super::connection::{Driver, Unconnected};
use super::settings::Settings;
use super::tls::Tls;

/// A host that does not answer for about a minute is gone.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// Where a connection leads. One name may have several addresses, and another server at each.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Address(SocketAddr),
    /// The file of a Unix socket.
    File(String),
}

impl Place {
    /// All that the settings name.
    pub(super) async fn of(settings: &Settings) -> io::Result<Vec<Place>> {
        if settings.host.starts_with('/') {
            return Ok(vec![Place::File(format!(
                "{}/.s.PGSQL.{}",
                settings.host, settings.port
            ))]);
        }
        let addresses = lookup_host((settings.host.as_str(), settings.port)).await?;
        Ok(addresses.map(Place::Address).collect())
    }

    /// Connects and logs in.
    pub(super) async fn connect(
        &self,
        config: &Config,
        host: &str,
        mut tls: Tls,
    ) -> Result<(Client, Driver), Unconnected> {
        match self {
            Place::Address(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let keepalive = TcpKeepalive::new()
                    .with_time(KEEPALIVE_IDLE)
                    .with_interval(KEEPALIVE_INTERVAL)
                    .with_retries(KEEPALIVE_RETRIES);
                let socket = SockRef::from(&stream);
                socket.set_tcp_keepalive(&keepalive)?;
                #[cfg(target_os = "linux")]
                socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
                let handshake = MakeTlsConnect::<Patient<TcpStream>>::make_tls_connect(&mut tls, host)?;
                let (client, connection) = config.connect_raw(Patient(stream), handshake).await?;
                Ok((client, Driver::of(connection)))
            }
            Place::File(path) => {
                let stream = UnixStream::connect(path).await?;
                let (client, connection) = config.connect_raw(Patient(stream), NoTls).await?;
                Ok((client, Driver::of(connection)))
            }
        }
    }

    /// Has the server stop what it does for the connection of a token, and waits until it has.
    pub(super) async fn cancel(&self, token: &CancelToken, host: &str, mut tls: Tls) -> io::Result<()> {
        let asked = match self {
            Place::Address(address) => {
                let stream = Patient(TcpStream::connect(address).await?);
                let handshake = MakeTlsConnect::<Patient<TcpStream>>::make_tls_connect(&mut tls, host)?;
                token.cancel_query_raw(stream, handshake).await
            }
            Place::File(path) => {
                let stream = Patient(UnixStream::connect(path).await?);
                token.cancel_query_raw(stream, NoTls).await
            }
        };
        asked.map_err(io::Error::other)
    }
}

/// A stream that is shut down when the other side has closed it.
struct Patient<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut bytes = [0; 1024];
            let mut into = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.0).poll_read(context, &mut into));
            if read.is_err() || into.filled().is_empty() {
                break;
            }
        }
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

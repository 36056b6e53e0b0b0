//! One connection: statements in, rows out.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::Failure;
use super::handshake::{Answer, Greeting, SSL, Secrecy, error_of};
use super::packet::{Fields, Packets, Transport};

const QUIT: u8 = 0x01;
const QUERY: u8 = 0x03;
const PREPARE: u8 = 0x16;
const EXECUTE: u8 = 0x17;
const CLOSE: u8 = 0x19;
const RESET: u8 = 0x1f;

/// A host that does not answer for about a minute is gone.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// Where to connect to, and as whom.
pub(in super::super) struct Target<'a> {
    pub(in super::super) host: &'a str,
    pub(in super::super) port: u16,
    pub(in super::super) is_socket: bool,
    pub(in super::super) user: &'a str,
    pub(in super::super) password: &'a str,
    /// What wraps the socket, and whether it looks at the certificate.
    pub(in super::super) tls: Option<(&'a TlsConnector, bool)>,
}

/// A connection to a server.
pub(in super::super) struct Client {
    packets: Packets,
    thread: u32,
}

/// A column as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Described {
    /// The number of the type.
    pub(in super::super) sent_as: u8,
    pub(in super::super) flags: u16,
    pub(in super::super) collation: u16,
}

/// A statement that the server has parsed.
pub(in super::super) struct Statement(u32);

impl Client {
    /// Connects and logs in.
    pub(in super::super) async fn connect(target: Target<'_>) -> Result<Client, Failure> {
        let (transport, mut secrecy): (Box<dyn Transport>, Secrecy) = if target.is_socket {
            (Box::new(UnixStream::connect(target.host).await?), Secrecy::Verified)
        } else {
            let stream = TcpStream::connect((target.host, target.port)).await?;
            stream.set_nodelay(true)?;
            let keepalive = TcpKeepalive::new()
                .with_time(KEEPALIVE_IDLE)
                .with_interval(KEEPALIVE_INTERVAL)
                .with_retries(KEEPALIVE_RETRIES);
            let socket = SockRef::from(&stream);
            socket.set_tcp_keepalive(&keepalive)?;
            #[cfg(target_os = "linux")]
            socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
            (Box::new(stream), Secrecy::None)
        };
        let mut packets = Packets::new(transport);
        let mut greeting = Greeting::of(packets.receive().await?)?;
        if let Some((connector, verifies)) = target.tls.filter(|_| !target.is_socket) {
            if greeting.capabilities & SSL == 0 {
                return Err(Failure::NoTls);
            }
            packets.send(&greeting.tls_request()).await?;
            let name = ServerName::try_from(target.host.to_owned()).map_err(std::io::Error::other)?;
            let wrapped = connector.connect(name, packets.take_transport()?).await?;
            packets.put_transport(Box::new(wrapped));
            secrecy = if verifies {
                Secrecy::Verified
            } else {
                Secrecy::Encrypted
            };
        }
        let wraps = target.tls.is_some() && !target.is_socket;
        let response = greeting.response(target.user, target.password, secrecy, wraps);
        packets.send(&response).await?;
        loop {
            let answer = greeting.answer(packets.receive().await?, target.password, secrecy)?;
            match answer {
                None => break,
                Some(Answer::Send(bytes)) => packets.send(&bytes).await?,
                Some(Answer::Wait) => {}
            }
        }
        Ok(Client {
            packets,
            thread: greeting.thread,
        })
    }

    /// By which number the server knows the connection.
    pub(in super::super) fn thread(&self) -> u32 {
        self.thread
    }

    async fn command(&mut self, command: u8, payload: &[&[u8]]) -> Result<(), Failure> {
        self.packets.restart();
        let mut bytes = vec![command];
        payload.iter().for_each(|part| bytes.extend_from_slice(part));
        self.packets.send(&bytes).await
    }

    /// Carries out a statement that has no rows.
    pub(in super::super) async fn execute(&mut self, sql: &str) -> Result<(), Failure> {
        self.command(QUERY, &[sql.as_bytes()]).await?;
        self.done().await
    }

    /// Makes the session what a new one is.
    pub(in super::super) async fn reset(&mut self) -> Result<(), Failure> {
        self.command(RESET, &[]).await?;
        self.done().await
    }

    async fn done(&mut self) -> Result<(), Failure> {
        match self.packets.receive().await? {
            [0x00, ..] => Ok(()),
            payload @ [0xff, ..] => Err(error_of(payload)),
            _ => Err(Failure::Protocol("it sends rows where there are none")),
        }
    }

    /// The rows of a small query, as text.
    pub(in super::super) async fn query(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Failure> {
        self.command(QUERY, &[sql.as_bytes()]).await?;
        let count = self.described().await?.len();
        let mut rows = Vec::new();
        loop {
            let payload = self.packets.receive().await?;
            match payload {
                [0xfe, ..] if payload.len() < 9 => return Ok(rows),
                [0xff, ..] => return Err(error_of(payload)),
                _ => rows.push(text_row(payload, count).ok_or(Failure::Protocol("a row cannot be read"))?),
            }
        }
    }

    /// Has a statement parsed, and learns what its columns are.
    pub(in super::super) async fn prepare(&mut self, sql: &str) -> Result<Statement, Failure> {
        self.command(PREPARE, &[sql.as_bytes()]).await?;
        let payload = self.packets.receive().await?;
        if payload.first() == Some(&0xff) {
            return Err(error_of(payload));
        }
        let mut fields = Fields(payload);
        let mut read = || Some((fields.u8()?, fields.u32()?, fields.u16()?, fields.u16()?));
        let Some((0, statement, columns, 0)) = read() else {
            return Err(Failure::Protocol("it does not say what it has prepared"));
        };
        if columns > 0 {
            // They are described again when the statement is carried out, by which time they may be others.
            self.columns(usize::from(columns)).await?;
        }
        Ok(Statement(statement))
    }

    /// Carries out a statement; its rows are what [`Client::next_row`] gives.
    pub(in super::super) async fn run(&mut self, statement: &Statement) -> Result<Vec<Described>, Failure> {
        let once = 1_u32.to_le_bytes();
        self.command(EXECUTE, &[&statement.0.to_le_bytes(), &[0], &once])
            .await?;
        self.described().await
    }

    /// The next row in binary form, without the mark in front of it.
    #[inline]
    pub(in super::super) async fn next_row(&mut self) -> Result<Option<&[u8]>, Failure> {
        let payload = self.packets.receive().await?;
        match payload {
            [0x00, row @ ..] => Ok(Some(row)),
            [0xfe, ..] if payload.len() < 9 => Ok(None),
            [0xff, ..] => Err(error_of(payload)),
            _ => Err(Failure::Protocol("a row cannot be read")),
        }
    }

    /// Forgets a statement.
    pub(in super::super) async fn close(&mut self, statement: &Statement) -> Result<(), Failure> {
        // There is no answer.
        self.command(CLOSE, &[&statement.0.to_le_bytes()]).await
    }

    /// Takes leave, and waits until the server has closed the connection.
    pub(in super::super) async fn quit(mut self) {
        if self.command(QUIT, &[]).await.is_ok() {
            // There is no answer, but the end.
            while self.packets.receive().await.is_ok() {}
        }
    }

    /// The columns of the rows that follow.
    async fn described(&mut self) -> Result<Vec<Described>, Failure> {
        let payload = self.packets.receive().await?;
        let count = match payload {
            [0xff, ..] => return Err(error_of(payload)),
            [0x00, ..] => return Err(Failure::Protocol("it sends no rows where there should be some")),
            [0xfb, ..] => return Err(Failure::Protocol("it asks for a file of this machine")),
            _ => Fields(payload).lenenc(),
        };
        // No table has more columns than a few thousand.
        let count = count.and_then(|count| u16::try_from(count).ok());
        let count = count.ok_or(Failure::Protocol("it does not say how many columns there are"))?;
        self.columns(usize::from(count)).await
    }

    async fn columns(&mut self, count: usize) -> Result<Vec<Described>, Failure> {
        let mut columns = Vec::with_capacity(count);
        for _ in 0..count {
            let payload = self.packets.receive().await?;
            columns.push(Described::of(payload).ok_or(Failure::Protocol("a column cannot be read"))?);
        }
        match self.packets.receive().await? {
            [0xfe, ..] => Ok(columns),
            payload @ [0xff, ..] => Err(error_of(payload)),
            _ => Err(Failure::Protocol("there is no end to its columns")),
        }
    }
}

impl Described {
    fn of(payload: &[u8]) -> Option<Described> {
        let mut fields = Fields(payload);
        for _ in 0..6 {
            // Catalog, schema, table, its original name, name, its original name.
            fields.lenenc_bytes()?;
        }
        let mut fixed = Fields(fields.lenenc_bytes()?);
        let collation = fixed.u16()?;
        let _length = fixed.u32()?;
        Some(Described {
            collation,
            sent_as: fixed.u8()?,
            flags: fixed.u16()?,
        })
    }
}

fn text_row(payload: &[u8], count: usize) -> Option<Vec<Option<String>>> {
    let mut fields = Fields(payload);
    let mut row = Vec::with_capacity(count);
    for _ in 0..count {
        if fields.0.first() == Some(&0xfb) {
            let _ = fields.u8();
            row.push(None);
        } else {
            row.push(Some(std::str::from_utf8(fields.lenenc_bytes()?).ok()?.to_owned()));
        }
    }
    fields.0.is_empty().then_some(row)
}

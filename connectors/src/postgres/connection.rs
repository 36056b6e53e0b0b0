//! Connections to one PostgreSQL server, and what its errors mean.
//!
//! In: settings. Out: connections, each used by one reader at a time and kept for the next one for a while. A kept connection
//! that turns out to be dead is replaced before anything was read. Whoever leaves early has the server's work cancelled.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use datafusion::common::runtime::SpawnedTask;
use futures::FutureExt;
use futures::future::{Either, select};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Row};
use tokio_rustls::rustls;

use super::allowed::Allowed;
use super::catalog::{self, Table};
use super::settings::{Settings, TlsMode};
use super::tls::Tls;
use crate::{Error, ErrorKind, Result};

/// Connections that are kept when nobody uses them, and for how long.
const MOST_IDLE: usize = 8;
const IDLE_TIME: Duration = Duration::from_secs(60);

/// How long the catalogue may take to answer, which is milliseconds unless the server is gone.
const CATALOG_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a server may take to be told to stop.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// A host that does not answer for about a minute is gone.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// What every session has the same, whatever the server, the database or the user is set to: how values are printed,
/// that nothing is written, and that a locked table is not waited for without end.
const SESSION: &str = "SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; \
     SET extra_float_digits = 1; SET bytea_output = 'hex'; SET standard_conforming_strings = on; \
     SET default_transaction_read_only = on; SET lock_timeout = '60s'";

/// How long somebody waits for a connection that others use.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a server that has no connection left is asked again, and how often.
const FULL_TIMEOUT: Duration = Duration::from_secs(10);
const FULL_PAUSE: Duration = Duration::from_millis(100);

/// Tables that are remembered.
const MOST_TABLES: usize = 4096;

/// A database, the connections to it that nobody uses just now, and what its tables looked like last.
pub(super) struct Database {
    settings: Settings,
    config: Config,
    tls: Tls,
    idle: Mutex<Idle>,
    allowed: Allowed,
    tables: Mutex<std::collections::HashMap<(String, String), Arc<Table>>>,
}

#[derive(Default)]
struct Idle {
    connections: Vec<Parked>,
    /// Whether somebody sees to it that old ones are closed.
    is_watched: bool,
}

/// A connection that somebody uses. Dropping it closes it, whatever the server is doing.
pub(super) struct Connection {
    pub(super) client: Arc<Client>,
    pub(super) driver: Driver,
    /// Whether it was used before, so that the server may have closed it since.
    pub(super) is_used: bool,
    /// The right to use one.
    permit: Option<OwnedSemaphorePermit>,
}

/// Why there is no connection.
struct Refused {
    /// Whether the server has none left for the user, or for anybody.
    is_full: bool,
    error: Error,
}

/// Moves bytes between a socket and its client, whenever somebody waits for the client. It runs in the task of who waits:
/// a task of its own would be woken for every eight kilobytes.
pub(super) struct Driver(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Driver {
    /// Does what the client has to do.
    pub(super) async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            self.advance(context);
            work.as_mut().poll(context)
        })
        .await
    }

    /// Moves what can be moved now.
    fn advance(&mut self, context: &mut Context<'_>) {
        let ended = self
            .0
            .as_mut()
            .is_some_and(|running| running.as_mut().poll(context).is_ready());
        if ended {
            // Whoever waits for an answer is told that none will come.
            self.0 = None;
        }
    }
}

/// A connection that nobody uses. A task waits with it for the server to close it, or for its next user.
struct Parked {
    client: Arc<Client>,
    since: Instant,
    task: SpawnedTask<Option<Driver>>,
    wanted: oneshot::Sender<()>,
}

impl Parked {
    fn new(connection: Connection) -> Parked {
        let (wanted, signal) = oneshot::channel();
        let Connection { client, driver, .. } = connection;
        let task = SpawnedTask::spawn(async move {
            match select(driver.0?, signal).await {
                Either::Left(_) => None,
                Either::Right((_, running)) => Some(Driver(Some(running))),
            }
        });
        Parked {
            client,
            since: Instant::now(),
            task,
            wanted,
        }
    }

    /// The connection, unless it was closed meanwhile.
    async fn wake(self) -> Option<Connection> {
        // If nobody waits for the signal, the connection is closed, which the task says.
        let _ = self.wanted.send(());
        let driver = self.task.join().await.ok()??;
        Some(Connection {
            client: self.client,
            driver,
            is_used: true,
            permit: None,
        })
    }
}

impl Database {
    pub(super) fn new(settings: Settings) -> Result<Database> {
        let tls = Tls::new(settings.tls, settings.root_certificates.as_deref())
            .map_err(|message| Error::new(&settings.depot, ErrorKind::Settings, message))?;
        Ok(Database {
            config: config(&settings),
            allowed: Allowed::new(settings.max_connections),
            settings,
            tls,
            idle: Mutex::default(),
            tables: Mutex::default(),
        })
    }

    pub(super) fn depot(&self) -> &str {
        &self.settings.depot
    }

    /// The digits after the point of `numeric` without precision.
    pub(super) fn decimals(&self) -> u8 {
        self.settings.decimals
    }

    /// Makes sure that the server can be reached.
    pub(super) async fn reach(self: &Arc<Self>) -> Result<()> {
        let connection = self.connect().await.map_err(|refused| refused.error)?;
        self.keep(connection);
        Ok(())
    }

    /// How many connections one scan may read with: some are left for others, however long it takes.
    pub(super) fn readers(&self) -> usize {
        self.allowed.readers_of_one_scan
    }

    /// A connection to read rows with: one that was kept, or a new one.
    pub(super) async fn connection(&self) -> Result<Connection> {
        self.allowed(&self.allowed.readers).await
    }

    /// A connection to write rows with.
    pub(super) async fn writing_connection(&self) -> Result<Connection> {
        self.allowed(&self.allowed.writers).await
    }

    /// A connection to keep a snapshot with; `None` when all that are for this are in use, or the server has none left.
    pub(super) async fn spare_connection(&self) -> Option<Connection> {
        let permit = Arc::clone(&self.allowed.snapshots).try_acquire_owned().ok()?;
        let connection = self.kept_or_new().await.ok()?;
        Some(Connection {
            permit: Some(permit),
            ..connection
        })
    }

    async fn allowed(&self, by: &Arc<Semaphore>) -> Result<Connection> {
        match timeout(PERMIT_TIMEOUT, Arc::clone(by).acquire_owned()).await {
            Ok(Ok(permit)) => self.with_permit(permit).await,
            Ok(Err(_)) | Err(_) => {
                let message = format!(
                    "all connections that `maxConnections: {}` allows were in use for {} seconds; try again later or raise it",
                    self.settings.max_connections,
                    PERMIT_TIMEOUT.as_secs()
                );
                Err(self.failure(ErrorKind::Busy, message))
            }
        }
    }

    async fn with_permit(&self, permit: OwnedSemaphorePermit) -> Result<Connection> {
        let begun = Instant::now();
        loop {
            match self.kept_or_new().await {
                Ok(connection) => {
                    return Ok(Connection {
                        permit: Some(permit),
                        ..connection
                    });
                }
                // The role or the server has fewer than the depot may use: another reader gives one back soon.
                Err(refused) if refused.is_full && begun.elapsed() < FULL_TIMEOUT => {
                    tokio::time::sleep(FULL_PAUSE).await;
                }
                Err(refused) => return Err(refused.error),
            }
        }
    }

    async fn kept_or_new(&self) -> Result<Connection, Refused> {
        while let Some(parked) = self.take_idle() {
            if let Some(connection) = parked.wake().await {
                return Ok(connection);
            }
        }
        self.connect().await
    }

    fn take_idle(&self) -> Option<Parked> {
        let mut idle = self.idle();
        idle.connections.retain(|parked| !parked.client.is_closed());
        idle.connections.pop()
    }

    async fn connect(&self) -> Result<Connection, Refused> {
        let limit = self.settings.connect_timeout;
        let connecting = async {
            let (client, connection) = self.config.connect(self.tls.clone()).await?;
            let mut driver = Driver(Some(Box::pin(async move {
                // Whoever uses the client is told of the failure.
                let _ = connection.await;
            })));
            driver.drive(client.batch_execute(SESSION)).await?;
            Ok::<_, tokio_postgres::Error>((client, driver))
        };
        match timeout(limit, connecting).await {
            Ok(Ok((client, driver))) => Ok(Connection {
                client: Arc::new(client),
                driver,
                is_used: false,
                permit: None,
            }),
            Ok(Err(failure)) => Err(Refused {
                is_full: failure.code() == Some(&SqlState::TOO_MANY_CONNECTIONS),
                error: self.connect_error(&failure).about(self.settings.address()),
            }),
            Err(_) => {
                let message = format!("the server did not answer within {} seconds", limit.as_secs());
                Err(Refused {
                    is_full: false,
                    error: self
                        .failure(ErrorKind::Unreachable, message)
                        .about(self.settings.address()),
                })
            }
        }
    }

    /// Gives a connection back, on which every statement is done. A transaction that is open is ended.
    pub(super) fn keep(self: &Arc<Self>, connection: Connection) {
        // The message is on its way before anybody else's; nobody needs to wait for the answer.
        let _ = connection.client.batch_execute("ROLLBACK").now_or_never();
        // Where nothing runs, nobody waits with it.
        let Ok(runtime) = Handle::try_current() else { return };
        let mut idle = self.idle();
        if idle.connections.len() >= MOST_IDLE || connection.client.is_closed() {
            return;
        }
        idle.connections.push(Parked::new(connection));
        if !idle.is_watched {
            idle.is_watched = true;
            runtime.spawn(close_old_connections(Arc::downgrade(self)));
        }
    }

    /// Has the server stop what it does for a connection, and closes it. Returns at once.
    pub(super) fn cancel(&self, connection: Connection) {
        let (token, tls) = (connection.client.cancel_token(), self.tls.clone());
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                // If the server cannot be told, it finds the connection closed.
                let _ = timeout(CANCEL_TIMEOUT, token.cancel_query(tls)).await;
                drop(connection);
            });
        }
    }

    /// Asks the catalogue.
    pub(super) async fn query(
        self: &Arc<Self>,
        object: &str,
        sql: &str,
        values: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>> {
        loop {
            let Connection {
                client,
                mut driver,
                is_used,
                permit,
            } = self.allowed(&self.allowed.catalog).await?;
            match timeout(CATALOG_TIMEOUT, driver.drive(client.query_typed(sql, values))).await {
                Ok(Ok(rows)) => {
                    self.keep(Connection {
                        client,
                        driver,
                        is_used,
                        permit,
                    });
                    return Ok(rows);
                }
                Ok(Err(failure)) if is_used && is_lost(&failure) => {}
                Ok(Err(failure)) => return Err(self.error(&failure).about(object)),
                Err(_) => {
                    let message = format!("the server did not answer within {} seconds", CATALOG_TIMEOUT.as_secs());
                    return Err(self.failure(ErrorKind::Unreachable, message).about(object));
                }
            }
        }
    }

    /// A table as the catalogue has it now.
    pub(super) async fn table(self: &Arc<Self>, schema: &str, name: &str) -> Result<Option<Arc<Table>>> {
        let found = catalog::table(self, schema, name).await?.map(Arc::new);
        let key = (schema.to_owned(), name.to_owned());
        let mut tables = self.tables();
        match &found {
            Some(table) => {
                if tables.len() >= MOST_TABLES {
                    tables.clear();
                }
                tables.insert(key, Arc::clone(table));
            }
            None => {
                tables.remove(&key);
            }
        }
        Ok(found)
    }

    /// A table as it was last seen here.
    pub(super) fn known_table(&self, schema: &str, name: &str) -> Option<Arc<Table>> {
        let key = (schema.to_owned(), name.to_owned());
        self.tables().get(&key).cloned()
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tables(&self) -> MutexGuard<'_, std::collections::HashMap<(String, String), Arc<Table>>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn failure(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(&self.settings.depot, kind, message)
    }

    /// What went wrong while connecting, in this crate's terms.
    fn connect_error(&self, failure: &tokio_postgres::Error) -> Error {
        if let Some(code) = failure.code() {
            let code_text = code.code();
            let (kind, message) = match *code {
                SqlState::INVALID_PASSWORD => (
                    ErrorKind::Refused,
                    "PostgreSQL refuses the user or the password of the depot's secret".to_owned(),
                ),
                SqlState::INVALID_AUTHORIZATION_SPECIFICATION => (
                    ErrorKind::Refused,
                    "PostgreSQL refuses the connection: the user is unknown, or `pg_hba.conf` has no entry for this \
                     user, database, host and `sslmode`"
                        .to_owned(),
                ),
                SqlState::INVALID_CATALOG_NAME => (
                    ErrorKind::NotFound,
                    format!("there is no database `{}` on the server", self.settings.database),
                ),
                SqlState::INSUFFICIENT_PRIVILEGE => (
                    ErrorKind::Denied,
                    format!("the user may not connect to the database `{}`", self.settings.database),
                ),
                _ => return self.error(failure),
            };
            return self.failure(kind, format!("{message} ({code_text})"));
        }
        let text = innermost(failure);
        if text.contains("does not support TLS") {
            let message = "the server does not speak TLS; set `sslmode: disable` in `params` to go without";
            return self.failure(ErrorKind::Settings, message);
        }
        if let Some(failure) = tls_error(failure) {
            let message = format!(
                "the server's TLS is not what `sslmode: {}` asks for: {failure}",
                self.tls_mode()
            );
            return self.failure(ErrorKind::Refused, message);
        }
        if failure.to_string().starts_with("authentication error") || text.contains("password missing") {
            return self.failure(
                ErrorKind::Refused,
                format!("the server and the depot's secret cannot agree on how to authenticate: {text}"),
            );
        }
        self.failure(ErrorKind::Unreachable, format!("the server cannot be reached: {text}"))
    }

    fn tls_mode(&self) -> &'static str {
        match self.settings.tls {
            TlsMode::Disable => "disable",
            TlsMode::Require => "require",
            TlsMode::VerifyCa => "verify-ca",
            TlsMode::VerifyFull => "verify-full",
        }
    }

    /// What PostgreSQL reports, in this crate's terms. Its own words may hold stored values and are never repeated.
    pub(super) fn error(&self, failure: &tokio_postgres::Error) -> Error {
        let Some(code) = failure.code() else {
            return self.failure(
                ErrorKind::Unreachable,
                format!("the connection was lost: {}", innermost(failure)),
            );
        };
        let code = code.code();
        let class = code.get(..2).unwrap_or_default();
        let (kind, message) = match (class, code) {
            (_, "42501") => (ErrorKind::Denied, "PostgreSQL does not let the depot's user read it"),
            (_, "42P01" | "42703" | "42704" | "42883" | "42804" | "3F000") => (
                ErrorKind::Changed,
                "it, or what it is made of, is not there any more; run the query again",
            ),
            (_, "57014") => (
                ErrorKind::Busy,
                "PostgreSQL ended the statement, at its `statement_timeout` or because somebody cancelled it",
            ),
            (_, "57P03") => (
                ErrorKind::Unreachable,
                "PostgreSQL is starting or stopping; try again later",
            ),
            (_, "55P03") => (
                ErrorKind::Busy,
                "somebody else kept it locked for too long; try again later",
            ),
            (_, "53300") => (
                ErrorKind::Busy,
                "PostgreSQL has no connection left; raise its `max_connections` or try again later",
            ),
            (_, "25006") => (
                ErrorKind::Unsupported,
                "to read it PostgreSQL would have to write something, and reading writes nothing",
            ),
            (_, "XX001" | "XX002") => (ErrorKind::Corrupt, "PostgreSQL finds its files damaged"),
            ("08" | "57", _) => (ErrorKind::Unreachable, "PostgreSQL ended the connection"),
            ("40", _) => (
                ErrorKind::Busy,
                "PostgreSQL ended the statement because of what others do; try again",
            ),
            ("53" | "58", _) => (ErrorKind::Busy, "PostgreSQL lacks memory, disk or another resource"),
            ("HV", _) => (ErrorKind::Busy, "PostgreSQL cannot read what is foreign to it"),
            (_, "22003") => (
                ErrorKind::OutOfRange,
                "a number that PostgreSQL computes leaves the range of its type",
            ),
            ("22" | "23" | "P0", _) => (
                ErrorKind::BadValue,
                "PostgreSQL fails to compute a value of it; the log of the server says which",
            ),
            _ => (
                ErrorKind::Unsupported,
                "PostgreSQL does not carry out the statement; the log of the server says why",
            ),
        };
        self.failure(kind, format!("{message} ({code})"))
    }
}

/// Closes kept connections that are old, until there is none left.
async fn close_old_connections(database: Weak<Database>) {
    loop {
        tokio::time::sleep(IDLE_TIME / 4).await;
        let Some(database) = database.upgrade() else { return };
        let mut idle = database.idle();
        idle.connections
            .retain(|parked| parked.since.elapsed() < IDLE_TIME && !parked.client.is_closed());
        if idle.connections.is_empty() {
            idle.is_watched = false;
            return;
        }
    }
}

fn config(settings: &Settings) -> Config {
    let mut config = Config::new();
    config
        .host(&settings.host)
        .port(settings.port)
        .dbname(&settings.database)
        .user(&settings.user)
        .application_name(&settings.application_name)
        .connect_timeout(settings.connect_timeout)
        .channel_binding(ChannelBinding::Disable)
        .ssl_mode(match settings.tls {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        })
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .tcp_user_timeout(UNACKNOWLEDGED);
    if let Some(password) = &settings.password {
        config.password(password);
    }
    config
}

/// Whether it is the connection that failed, and not what was asked.
pub(super) fn is_lost(failure: &tokio_postgres::Error) -> bool {
    match failure.code() {
        Some(code) => {
            let code = code.code();
            code.starts_with("08") || code.starts_with("57P")
        }
        None => failure.is_closed() || source_of::<std::io::Error>(failure).is_some(),
    }
}

fn source_of<E: std::error::Error + 'static>(failure: &tokio_postgres::Error) -> Option<&E> {
    let mut next = std::error::Error::source(failure);
    while let Some(source) = next {
        if let Some(found) = source.downcast_ref::<E>() {
            return Some(found);
        }
        next = source.source();
    }
    None
}

fn tls_error(failure: &tokio_postgres::Error) -> Option<&rustls::Error> {
    source_of::<rustls::Error>(failure).or_else(|| {
        let io = source_of::<std::io::Error>(failure)?;
        io.get_ref()?.downcast_ref::<rustls::Error>()
    })
}

/// The text of the first cause.
fn innermost(failure: &tokio_postgres::Error) -> String {
    let mut cause: &dyn std::error::Error = failure;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

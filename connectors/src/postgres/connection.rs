//! Connections to one PostgreSQL server.
//!
//! In: settings. Out: connections, each used by one reader at a time and kept for the next one for a while. A kept connection
//! that turns out to be dead is replaced before anything was read. Whoever leaves early has the server's work cancelled.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::future::{Either, join_all};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Statement};

use super::allowed::{readers_of_one_scan, shares};
use super::failure::refuses_user;
use super::parked::Parked;
use super::place::Place;
use super::question::Tables;
use super::session::{PROBE, Session};
use super::settings::{Settings, TlsMode};
use super::statistics::Known;
use super::tls::Tls;
use crate::slots::{Lender, Purpose, Slot, Slots, given_up, noticed};
use crate::{Error, ErrorKind, Result};

/// Connections that are kept when nobody uses them, and for how long.
const MOST_IDLE: usize = 8;
const IDLE_TIME: Duration = Duration::from_secs(60);

/// How long a server may take to close a connection that was taken leave of.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a server may take to be told to stop.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long somebody waits for a connection that others use.
const SLOT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a server that has no connection left is asked again, and how often.
const FULL_TIMEOUT: Duration = Duration::from_secs(10);
const FULL_PAUSE: Duration = Duration::from_millis(100);

/// A database, the connections to it that nobody uses just now, and what its tables looked like last.
pub(super) struct Database {
    settings: Settings,
    config: Config,
    tls: Tls,
    session: Session,
    idle: Mutex<Idle>,
    slots: Slots,
    pub(super) tables: Tables,
    figures: Known,
}

#[derive(Default)]
struct Idle {
    connections: Vec<Parked>,
    /// Whether somebody sees to it that old ones are closed.
    is_watched: bool,
    /// When the server last had none left for another one.
    refused: Option<Instant>,
}

/// A connection that somebody uses. Dropping it closes it, whatever the server is doing.
pub(super) struct Connection {
    pub(super) client: Arc<Client>,
    pub(super) driver: Driver,
    pub(super) place: Place,
    /// The question that is asked most often, if it was asked here.
    pub(super) asked: Option<Statement>,
    /// Whether it was used before, so that the server may have closed it since.
    pub(super) is_used: bool,
    /// The right to have it open. It is the last to go.
    pub(super) slot: Slot,
}

/// Why there is no connection.
struct Refused {
    /// Whether the server has none left for the user, or for anybody.
    is_full: bool,
    error: Error,
    slot: Slot,
}

/// Why there is no connection to an address.
pub(super) enum Unconnected {
    /// There is none, or nobody at it.
    Nowhere(io::Error),
    By(tokio_postgres::Error),
}

impl From<io::Error> for Unconnected {
    fn from(failure: io::Error) -> Unconnected {
        Unconnected::Nowhere(failure)
    }
}

impl From<tokio_postgres::Error> for Unconnected {
    fn from(failure: tokio_postgres::Error) -> Unconnected {
        Unconnected::By(failure)
    }
}

/// Moves bytes between a socket and its client, whenever somebody waits for the client. It runs in the task of who waits:
/// a task of its own would be woken for every eight kilobytes. It ends with whether the server has closed what was taken leave of.
pub(super) struct Driver(pub(super) Option<Pin<Box<dyn Future<Output = bool> + Send>>>);

impl Driver {
    /// Whoever uses the client is told of failures.
    pub(super) fn of<S, T>(connection: tokio_postgres::Connection<S, T>) -> Driver
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Driver(Some(Box::pin(async move { connection.await.is_ok() })))
    }

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

    /// Does what is left to do when the client is gone, and says whether the server has closed the connection.
    async fn finish(self) -> bool {
        match self.0 {
            Some(running) => running.await,
            None => false,
        }
    }

    /// Whether the server has closed the connection, as far as that has come here.
    pub(super) fn has_ended(&mut self) -> bool {
        self.advance(&mut Context::from_waker(Waker::noop()));
        self.0.is_none()
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

impl Connection {
    /// Closes it, and gives its slot back when the server has noticed.
    pub(super) async fn close(self) {
        let Connection {
            client, driver, slot, ..
        } = self;
        drop(client);
        match timeout(CLOSE_TIMEOUT, driver.finish()).await {
            Ok(true) => slot.end(),
            // The server may not listen any more.
            Ok(false) | Err(_) => drop(slot),
        }
    }
}

impl Database {
    pub(super) fn new(settings: Settings, lender: &Arc<dyn Lender>) -> Result<Database> {
        let tls = Tls::new(settings.tls, settings.root_certificates.as_deref())
            .map_err(|message| Error::new(&settings.depot, ErrorKind::Settings, message))?;
        Ok(Database {
            config: config(&settings),
            slots: Slots::new(&settings.depot, lender, shares(settings.max_connections)),
            session: Session::new(settings.query_limit),
            settings,
            tls,
            idle: Mutex::default(),
            tables: Tables::default(),
            figures: Known::default(),
        })
    }

    pub(super) fn depot(&self) -> &str {
        &self.settings.depot
    }

    /// What was found out of the values of tables.
    pub(super) fn figures(&self) -> &Known {
        &self.figures
    }

    /// The digits after the point of `numeric` without precision.
    pub(super) fn decimals(&self) -> u8 {
        self.settings.decimals
    }

    /// Makes sure that the server can be reached.
    pub(super) async fn reach(self: &Arc<Self>) -> Result<()> {
        let connection = self.connection_for(Purpose::Ask).await?;
        self.keep(connection);
        Ok(())
    }

    /// How many connections one scan may read with: some are left for others, however long it takes.
    pub(super) fn readers(&self) -> usize {
        readers_of_one_scan(self.slots.most(Purpose::Read))
    }

    /// A connection to read rows with: one that was kept, or a new one.
    pub(super) async fn connection(&self) -> Result<Connection> {
        self.connection_for(Purpose::Read).await
    }

    /// A connection to write rows with.
    pub(super) async fn writing_connection(&self) -> Result<Connection> {
        self.connection_for(Purpose::Write).await
    }

    /// A connection to keep a snapshot with; `None` when all that are for this are in use, or the server has none left.
    pub(super) async fn spare_connection(&self) -> Option<Connection> {
        let found = self
            .slots
            .kept_or_slot_now(Purpose::Keep, |purpose| self.take_idle(purpose))?;
        let slot = match woken(found).await {
            Ok(connection) => return Some(connection),
            Err(slot) => slot,
        };
        self.connect(slot).await.ok()
    }

    /// Waits until no connection of this process is its own any more.
    pub(super) async fn given_up(&self) {
        self.slots.given_up().await;
    }

    pub(super) async fn connection_for(&self, purpose: Purpose) -> Result<Connection> {
        let found = self.slots.kept_or_slot(purpose, |purpose| self.take_idle(purpose));
        match timeout(SLOT_TIMEOUT, found).await {
            Ok(found) => self.woken_or_new(found).await,
            Err(_) => {
                let message = format!(
                    "all connections that `maxConnections: {}` allows were in use for {} seconds; try again later or raise it",
                    self.settings.max_connections,
                    SLOT_TIMEOUT.as_secs()
                );
                Err(self.failure(ErrorKind::Busy, message))
            }
        }
    }

    async fn woken_or_new(&self, mut found: Either<Parked, Slot>) -> Result<Connection> {
        let begun = Instant::now();
        loop {
            let slot = match woken(found).await {
                // All was given up while it was woken.
                Ok(connection) if connection.slot.is_over() => {
                    connection.close().await;
                    return Err(given_up(self.depot()));
                }
                Ok(connection) => return Ok(connection),
                Err(slot) => slot,
            };
            match self.connect(slot).await {
                Ok(connection) if connection.slot.is_over() => {
                    return Err(given_up(self.depot()));
                }
                Ok(connection) => return Ok(connection),
                // The role or the server has fewer than the depot may use: another reader gives one back soon, or keeps it.
                Err(refused) if refused.is_full && begun.elapsed() < FULL_TIMEOUT => {
                    self.idle().refused = Some(Instant::now());
                    found = self.any_idle(refused.slot);
                    if let Either::Right(slot) = found {
                        tokio::time::sleep(FULL_PAUSE).await;
                        found = self.any_idle(slot);
                    }
                }
                Err(refused) => return Err(refused.error),
            }
        }
    }

    /// A connection that was kept, for whatever that was, for who has a slot and cannot open another one; without one, the slot.
    fn any_idle(&self, slot: Slot) -> Either<Parked, Slot> {
        let mut idle = self.idle();
        let is_there = |parked: &mut Parked| !parked.is_closed() && !parked.slot.is_over();
        let Some(last) = idle.connections.iter_mut().rposition(is_there) else {
            return Either::Right(slot);
        };
        let mut parked = idle.connections.remove(last);
        parked.slot.become_other(slot);
        Either::Left(parked)
    }

    /// A connection that was kept for a purpose.
    fn take_idle(&self, purpose: Purpose) -> Option<Parked> {
        let mut idle = self.idle();
        idle.connections.retain_mut(|parked| !parked.is_closed());
        // Those may be another's; without a runtime they are closed here.
        let over = idle.connections.extract_if(.., |parked| parked.slot.is_over());
        let over: Vec<Parked> = over.collect();
        if let Ok(runtime) = Handle::try_current() {
            for parked in over {
                runtime.spawn(parked.close());
            }
        }
        let is_for = |parked: &Parked| parked.slot.purpose() == purpose;
        let last = idle.connections.iter().rposition(is_for);
        // One that was for something else will do, if there is another right for what it is for now. Not so between questions and rows while the server has connections
        // left: questions are asked on other threads than rows are read on, and a connection answers where it was made.
        let is_scarce = idle.refused.is_some_and(|refused| refused.elapsed() < IDLE_TIME);
        let last = last.or_else(|| {
            let asks = |parked: &Parked| [parked.slot.purpose(), purpose].contains(&Purpose::Ask);
            let is_like = |parked: &Parked| is_scarce || !asks(parked);
            let last = idle.connections.iter().rposition(is_like)?;
            let parked = idle.connections.get_mut(last)?;
            self.slots.exchange(&mut parked.slot, purpose).then_some(last)
        });
        Some(idle.connections.remove(last?))
    }

    async fn connect(&self, slot: Slot) -> Result<Connection, Refused> {
        let limit = self.settings.connect_timeout;
        match timeout(limit, self.connect_somewhere()).await {
            Ok(Ok((client, driver, place))) => Ok(Connection {
                client: Arc::new(client),
                driver,
                place,
                asked: None,
                is_used: false,
                slot,
            }),
            Ok(Err(Unconnected::Nowhere(failure))) => {
                let message = format!("the server cannot be reached: {failure}");
                Err(Refused {
                    is_full: false,
                    slot,
                    error: self
                        .failure(ErrorKind::Unreachable, message)
                        .about(self.settings.address()),
                })
            }
            Ok(Err(Unconnected::By(failure))) => Err(Refused {
                is_full: failure.code() == Some(&SqlState::TOO_MANY_CONNECTIONS),
                slot,
                error: self.connect_error(&failure).about(self.settings.address()),
            }),
            Err(_) => {
                let message = format!("the server did not answer within {} seconds", limit.as_secs());
                Err(Refused {
                    is_full: false,
                    slot,
                    error: self
                        .failure(ErrorKind::Unreachable, message)
                        .about(self.settings.address()),
                })
            }
        }
    }

    /// Connects to the first address that answers.
    async fn connect_somewhere(&self) -> Result<(Client, Driver, Place), Unconnected> {
        let mut told: Option<Unconnected> = None;
        for place in Place::of(&self.settings).await? {
            match self.connect_to(&place).await {
                Ok((client, driver)) => return Ok((client, driver, place)),
                // Another server of this name would say it, too.
                Err(Unconnected::By(failure)) if refuses_user(&failure) => return Err(failure.into()),
                // One that is full may have room soon, and what one says of itself is more than that another does not answer.
                Err(failure) => {
                    if told.as_ref().is_none_or(|told| weight(told) <= weight(&failure)) {
                        told = Some(failure);
                    }
                }
            }
        }
        Err(told.unwrap_or_else(|| io::Error::other("its name has no address").into()))
    }

    async fn connect_to(&self, place: &Place) -> Result<(Client, Driver), Unconnected> {
        if let Some(token) = self.session.token() {
            let mut config = self.config.clone();
            config.options(Session::options(&token));
            match self.connect_by(place, &config, Some(&token)).await {
                Err(Unconnected::By(failure)) if Session::refuses_options(&failure) => {}
                connected => return connected,
            }
        }
        self.connect_by(place, &self.config, None).await
    }

    async fn connect_by(
        &self,
        place: &Place,
        config: &Config,
        token: Option<&str>,
    ) -> Result<(Client, Driver), Unconnected> {
        let (client, mut driver) = place.connect(config, &self.settings.host, self.tls.clone()).await?;
        let answer = driver.drive(client.simple_query(PROBE)).await?;
        self.session.learn(&answer, token);
        Ok((client, driver))
    }

    /// Gives a connection back, on which every statement is done. A transaction that is open is ended.
    pub(super) fn keep(self: &Arc<Self>, connection: Connection) {
        self.park(connection, true);
    }

    /// The same, of one that may have no transaction.
    pub(super) fn park(self: &Arc<Self>, connection: Connection, in_transaction: bool) {
        // Where nothing runs, nobody waits with it.
        let Ok(runtime) = Handle::try_current() else { return };
        if connection.client.is_closed() {
            return;
        }
        let purpose = connection.slot.purpose();
        let mut idle = self.idle();
        if idle.connections.len() >= MOST_IDLE || connection.slot.is_due() {
            runtime.spawn(connection.close());
            return;
        }
        idle.connections.push(Parked::new(connection, in_transaction));
        if !idle.is_watched {
            idle.is_watched = true;
            runtime.spawn(close_old_connections(Arc::downgrade(self), self.slots.changes()));
        }
        drop(idle);
        self.slots.has_kept(purpose);
    }

    /// Has the server stop what it does for a connection, and closes it. Returns at once.
    pub(super) fn cancel(&self, connection: Connection) {
        let (token, tls, host) = (
            connection.client.cancel_token(),
            self.tls.clone(),
            self.settings.host.clone(),
        );
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                // If the server cannot be told, it finds the connection closed.
                let _ = timeout(CANCEL_TIMEOUT, connection.place.cancel(&token, &host, tls)).await;
                connection.close().await;
            });
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn failure(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(&self.settings.depot, kind, message)
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What sessions of this server are like.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }
}

/// The connection that was kept; without one, the slot for a new one.
async fn woken(found: Either<Parked, Slot>) -> Result<Connection, Slot> {
    match found {
        Either::Left(parked) => match parked.wake().await {
            Ok(connection) => Ok(connection),
            Err(slot) => {
                // It was left, maybe before the server had noticed.
                noticed().await;
                Err(slot)
            }
        },
        Either::Right(slot) => Err(slot),
    }
}

/// Closes kept connections that are old or wanted elsewhere, until there is none left.
async fn close_old_connections(database: Weak<Database>, mut changes: watch::Receiver<u64>) {
    loop {
        let Some(database) = database.upgrade() else { return };
        let over: Vec<Parked> = {
            let mut idle = database.idle();
            let is_over =
                |parked: &mut Parked| parked.since.elapsed() >= IDLE_TIME || parked.is_closed() || parked.slot.is_due();
            let over: Vec<Parked> = idle.connections.extract_if(.., is_over).collect();
            idle.is_watched = !idle.connections.is_empty();
            if !idle.is_watched && over.is_empty() {
                return;
            }
            over
        };
        join_all(over.into_iter().map(Parked::close)).await;
        if !database.idle().is_watched {
            return;
        }
        drop(database);
        // Whoever lends slots is there as long as the database.
        let _ = timeout(IDLE_TIME / 4, changes.changed()).await;
    }
}

/// How much it tells of a name with several addresses that one of them failed so.
fn weight(failure: &Unconnected) -> u8 {
    let Unconnected::By(failure) = failure else { return 0 };
    match failure.code() {
        Some(code) if *code == SqlState::TOO_MANY_CONNECTIONS => 2,
        Some(_) => 1,
        None => 0,
    }
}

fn config(settings: &Settings) -> Config {
    let mut config = Config::new();
    config
        .dbname(&settings.database)
        .user(&settings.user)
        .application_name(&settings.application_name)
        .channel_binding(ChannelBinding::Disable)
        .ssl_mode(match settings.tls {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        });
    if let Some(password) = &settings.password {
        config.password(password);
    }
    config
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

//! Connections to one server, and how they are shared out.
//!
//! In: settings. Out: connections, each used by one reader at a time and kept for the next one for a while. A kept connection is made new before it is
//! used, which also shows whether it is still there. Whoever leaves early has the server's work ended.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures::future::{Either, join_all};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::catalog::{self, Table};
use super::failure;
use super::settings::Settings;
use super::wire::{Client, Failure, Target};
use crate::postgres::{Tls, TlsMode};
use crate::slots::{Lender, Purpose, Shares, Slot, Slots, given_up, noticed};
use crate::{Error, ErrorKind, Result};

/// Connections that are kept when nobody uses them, and for how long.
const MOST_IDLE: usize = 8;
const IDLE_TIME: Duration = Duration::from_secs(60);

/// How long the catalogue may take to answer, which is milliseconds unless the server is gone.
const CATALOG_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a server may take to be told to stop.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long somebody waits for a connection that others use.
const SLOT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a server that has no connection left is asked again, and how often.
const FULL_TIMEOUT: Duration = Duration::from_secs(10);
const FULL_PAUSE: Duration = Duration::from_millis(100);

/// Tables that are remembered.
const MOST_TABLES: usize = 4096;

/// What every session has the same, whatever the server or the user is set to: how statements are read, in which letters and which time zone values
/// come, that no row is left out, and that a locked table is not waited for without end. The server would close a connection whose reader takes a minute
/// for what it has; here readers may wait for each other for hours. MariaDB 10.11 loses rows of joins where it filters the rows of one index by those of another.
const SESSION: [&str; 2] = [
    "SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', \
     time_zone = '+00:00', character_set_client = utf8mb4, character_set_results = utf8mb4, \
     character_set_connection = utf8mb4, collation_connection = utf8mb4_bin, sql_auto_is_null = 0, \
     sql_select_limit = 18446744073709551615, sql_big_selects = 1, autocommit = 1, lock_wait_timeout = 60, net_write_timeout = 86400, max_sort_length = 1024 \
     /*M! , join_cache_level = 4 */ /*M!100403 , optimizer_switch = 'rowid_filter=off' */",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
];

/// What tells one server from another that answers at the same address.
const IDENTITY: &str = "SELECT @@hostname, @@port, @@server_id, CONNECTION_ID()";

/// A server, the connections to it that nobody uses just now, and what its tables looked like last.
pub(super) struct Database {
    settings: Settings,
    tls: Option<(TlsConnector, bool)>,
    idle: Mutex<Idle>,
    slots: Slots,
    tables: Mutex<HashMap<(String, String), Arc<Table>>>,
}

#[derive(Default)]
struct Idle {
    connections: Vec<Parked>,
    /// Whether somebody sees to it that old ones are closed.
    is_watched: bool,
}

struct Parked {
    client: Client,
    thread: u64,
    server: Arc<Identity>,
    since: Instant,
    slot: Slot,
}

impl Parked {
    /// Closes it, and gives its slot back when the server has noticed.
    async fn close(self) {
        let Parked { client, slot, .. } = self;
        let _ = timeout(CANCEL_TIMEOUT, client.quit()).await;
        drop(slot);
    }
}

/// Deals connections out: an eighth for each purpose but reading. What ends the work of others waits for nothing else.
fn shares(connections: usize) -> Shares {
    let some = (connections / 8).max(1);
    Shares::new([
        (Purpose::Read, connections.saturating_sub(2 * some).max(1)),
        (Purpose::Ask, some),
        (Purpose::Stop, some),
    ])
}

/// What a server says of itself.
#[derive(Debug, PartialEq, Eq)]
struct Identity(Vec<Option<String>>);

/// A connection that somebody uses. Dropping it closes it, whatever the server is doing.
pub(super) struct Connection {
    pub(super) client: Client,
    server: Arc<Identity>,
    /// By which number the server knows it.
    thread: u64,
    /// The right to have it open. It is the last to go.
    slot: Slot,
}

/// Somebody who waits for an answer of the catalogue. When nobody does any more, the server is told to stop.
struct Asking<'a> {
    database: &'a Arc<Database>,
    connection: Option<Connection>,
}

impl Asking<'_> {
    async fn ask(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Failure> {
        match &mut self.connection {
            Some(connection) => connection.client.query(sql).await,
            None => Err(Failure::Protocol("its connection was given back before it was asked")),
        }
    }

    /// It was answered; another question can be asked if the connection is a good one still.
    fn end(mut self, is_good: bool) {
        if let Some(connection) = self.connection.take().filter(|_| is_good) {
            self.database.keep(connection);
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.database.cancel(connection);
        }
    }
}

/// Why there is no connection.
struct Refused {
    /// Whether the server has none left for the user, or for anybody.
    is_full: bool,
    error: Error,
    slot: Slot,
}

impl Database {
    pub(super) fn new(settings: Settings, lender: &Arc<dyn Lender>) -> Result<Database> {
        let tls = match settings.tls {
            TlsMode::Disable => None,
            // Nobody listens in on a socket of this machine.
            _ if settings.is_socket() => None,
            mode => {
                let tls = Tls::new(mode, settings.root_certificates.as_deref())
                    .map_err(|message| Error::new(&settings.depot, ErrorKind::Settings, message))?;
                let verifies = mode != TlsMode::Require || settings.root_certificates.is_some();
                Some((tls.connector(), verifies))
            }
        };
        Ok(Database {
            slots: Slots::new(&settings.depot, lender, shares(settings.max_connections)),
            settings,
            tls,
            idle: Mutex::default(),
            tables: Mutex::default(),
        })
    }

    pub(super) fn depot(&self) -> &str {
        &self.settings.depot
    }

    pub(super) fn zero_dates_are_null(&self) -> bool {
        self.settings.zero_dates_are_null
    }

    /// Makes sure that the server can be reached.
    pub(super) async fn reach(self: &Arc<Self>) -> Result<()> {
        let connection = self.connection_for(Purpose::Ask).await?;
        self.keep(connection);
        Ok(())
    }

    /// A connection to read rows with: one that was kept, or a new one.
    pub(super) async fn connection(&self) -> Result<Connection> {
        self.connection_for(Purpose::Read).await
    }

    /// Waits until no connection of this process is its own any more.
    pub(super) async fn given_up(&self) {
        self.slots.given_up().await;
    }

    async fn connection_for(&self, purpose: Purpose) -> Result<Connection> {
        let found = self.slots.kept_or_slot(purpose, |purpose| self.take_idle(purpose));
        match timeout(SLOT_TIMEOUT, found).await {
            Ok(found) => self.renewed_or_new(found).await,
            Err(_) => {
                let message = format!(
                    "all connections that the depot may use were in use for {} seconds; try again later, or raise `maxConnections`",
                    SLOT_TIMEOUT.as_secs()
                );
                Err(self.failure(ErrorKind::Busy, message))
            }
        }
    }

    async fn renewed_or_new(&self, mut found: Either<Parked, Slot>) -> Result<Connection> {
        let begun = Instant::now();
        loop {
            let slot = match found {
                Either::Left(parked) => match self.renewed(parked).await {
                    // All was given up while it was renewed.
                    Ok(connection) if connection.slot.is_over() => return Err(given_up(self.depot())),
                    Ok(connection) => return Ok(connection),
                    Err(slot) => slot,
                },
                Either::Right(slot) => slot,
            };
            match self.connect(slot).await {
                Ok(connection) if connection.slot.is_over() => {
                    return Err(given_up(self.depot()));
                }
                Ok(connection) => return Ok(connection),
                // The user or the server has fewer than the depot may use: another reader gives one back soon, or keeps it.
                Err(refused) if refused.is_full && begun.elapsed() < FULL_TIMEOUT => {
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
        let is_there = |parked: &Parked| !parked.slot.is_over();
        let Some(last) = idle.connections.iter().rposition(is_there) else {
            return Either::Right(slot);
        };
        let mut parked = idle.connections.remove(last);
        parked.slot.become_other(slot);
        Either::Left(parked)
    }

    /// A kept connection as a new one; its slot, if it was closed meanwhile.
    async fn renewed(&self, parked: Parked) -> Result<Connection, Slot> {
        let Parked {
            mut client,
            thread,
            server,
            slot,
            ..
        } = parked;
        // What a function of somebody's view has set for the session is gone after this.
        let renewing = async {
            client.reset().await?;
            begin_session(&mut client).await
        };
        match timeout(self.settings.connect_timeout, renewing).await {
            Ok(Ok(())) => Ok(Connection {
                client,
                server,
                thread,
                slot,
            }),
            Ok(Err(_)) | Err(_) => {
                // The server may have it for a moment longer.
                drop(client);
                noticed().await;
                Err(slot)
            }
        }
    }

    /// A connection that was kept for a purpose.
    fn take_idle(&self, purpose: Purpose) -> Option<Parked> {
        let mut idle = self.idle();
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
        // One that was for something else will do, if there is another right for what it is for now.
        let last = last.or_else(|| {
            let last = idle.connections.len().checked_sub(1)?;
            let parked = idle.connections.get_mut(last)?;
            self.slots.exchange(&mut parked.slot, purpose).then_some(last)
        });
        Some(idle.connections.remove(last?))
    }

    /// A new connection, by which number the server knows it, and what the server says of itself.
    async fn begin(&self) -> Result<(Client, u64, Identity), Failure> {
        let target = Target {
            host: &self.settings.host,
            port: self.settings.port,
            is_socket: self.settings.is_socket(),
            user: &self.settings.user,
            password: &self.settings.password,
            tls: self.tls.as_ref().map(|(connector, verifies)| (connector, *verifies)),
        };
        let mut client = Client::connect(target).await?;
        begin_session(&mut client).await?;
        let mut identity = client.query(IDENTITY).await?.into_iter().next().unwrap_or_default();
        // The greeting has room for the lower half of it only.
        let thread = identity.pop().flatten().and_then(|thread| thread.parse().ok());
        let thread = thread.unwrap_or_else(|| u64::from(client.thread()));
        Ok((client, thread, Identity(identity)))
    }

    async fn connect(&self, slot: Slot) -> Result<Connection, Refused> {
        let limit = self.settings.connect_timeout;
        match timeout(limit, self.begin()).await {
            Ok(Ok((client, thread, identity))) => Ok(Connection {
                client,
                thread,
                server: Arc::new(identity),
                slot,
            }),
            Ok(Err(refusal)) => Err(Refused {
                is_full: refusal.code().is_some_and(failure::is_full),
                slot,
                error: failure::of_connecting(&self.settings, &refusal).about(self.settings.address()),
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

    /// Gives a connection back, on which every statement is done.
    pub(super) fn keep(self: &Arc<Self>, connection: Connection) {
        let Ok(runtime) = Handle::try_current() else { return };
        let Connection {
            client,
            thread,
            server,
            slot,
        } = connection;
        let purpose = slot.purpose();
        let parked = Parked {
            client,
            thread,
            server,
            since: Instant::now(),
            slot,
        };
        let mut idle = self.idle();
        if parked.slot.is_due() || idle.connections.len() >= MOST_IDLE {
            // Another one may be opened when this one is closed.
            runtime.spawn(parked.close());
            return;
        }
        idle.connections.push(parked);
        if !idle.is_watched {
            idle.is_watched = true;
            runtime.spawn(close_old_connections(Arc::downgrade(self), self.slots.changes()));
        }
        drop(idle);
        self.slots.has_kept(purpose);
    }

    /// Has the server end what it does for a connection, and closes it. Returns at once.
    pub(super) fn cancel(self: &Arc<Self>, connection: Connection) {
        let database = Arc::clone(self);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                // If the server cannot be told, it finds the connection closed.
                let _ = timeout(CANCEL_TIMEOUT, database.kill(&connection)).await;
                drop(connection);
            });
        }
    }

    /// Has the server end a connection. Several servers may answer to one address, and have other connections by its number.
    async fn kill(self: &Arc<Self>, connection: &Connection) {
        let statement = format!("KILL CONNECTION {}", connection.thread);
        if !connection.slot.is_over() {
            let killer = tokio::select! {
                killer = self.connection_for(Purpose::Stop) => killer.ok(),
                () = self.given_up() => None,
            };
            if let Some(mut killer) = killer {
                if killer.server == connection.server {
                    let done = killer.client.execute(&statement).await;
                    if done.is_ok() || done.is_err_and(|failure| failure.code().is_some()) {
                        self.keep(killer);
                    }
                }
                return;
            }
        }
        // Nobody is there to be asked for a slot, and the connection must go now: the one that ends it lives for milliseconds.
        if connection.slot.is_over()
            && let Ok((mut client, _, server)) = self.begin().await
            && server == *connection.server
            && client.execute(&statement).await.is_ok()
        {
            let _ = client.quit().await;
        }
    }

    /// Asks the catalogue.
    pub(super) async fn query(self: &Arc<Self>, object: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let mut again = true;
        loop {
            let mut asking = Asking {
                database: self,
                connection: Some(self.connection_for(Purpose::Ask).await?),
            };
            let answer = tokio::select! {
                answer = timeout(CATALOG_TIMEOUT, asking.ask(sql)) => Some(answer),
                () = self.given_up() => None,
            };
            let Some(answer) = answer else {
                return Err(given_up(self.depot()).about(object));
            };
            match answer {
                Ok(Ok(rows)) => {
                    asking.end(true);
                    return Ok(rows);
                }
                Ok(Err(failure)) if failure.is_lost() && again => {
                    asking.end(false);
                    again = false;
                }
                Ok(Err(failure)) => {
                    asking.end(failure.code().is_some() && !failure.is_lost());
                    return Err(failure::of(&self.settings.depot, &failure).about(object));
                }
                Err(_) => {
                    let message = format!("the server did not answer within {} seconds", CATALOG_TIMEOUT.as_secs());
                    return Err(self.failure(ErrorKind::Unreachable, message).about(object));
                }
            }
        }
    }

    /// A table as the catalogue has it now.
    pub(super) async fn table(self: &Arc<Self>, collection: &str, name: &str) -> Result<Option<Arc<Table>>> {
        let found = catalog::table(self, collection, name).await?.map(Arc::new);
        let key = (collection.to_owned(), name.to_owned());
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
    pub(super) fn known_table(&self, collection: &str, name: &str) -> Option<Arc<Table>> {
        let key = (collection.to_owned(), name.to_owned());
        self.tables().get(&key).cloned()
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tables(&self) -> MutexGuard<'_, HashMap<(String, String), Arc<Table>>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn failure(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(&self.settings.depot, kind, message)
    }
}

async fn begin_session(client: &mut Client) -> Result<(), Failure> {
    for statement in SESSION {
        client.execute(statement).await?;
    }
    Ok(())
}

/// Closes kept connections that are old or wanted elsewhere, until there is none left.
async fn close_old_connections(database: Weak<Database>, mut changes: watch::Receiver<u64>) {
    loop {
        let Some(database) = database.upgrade() else { return };
        let over: Vec<Parked> = {
            let mut idle = database.idle();
            let all = std::mem::take(&mut idle.connections);
            let is_over = |parked: &Parked| parked.since.elapsed() >= IDLE_TIME || parked.slot.is_due();
            let (over, young) = all.into_iter().partition(is_over);
            idle.connections = young;
            idle.is_watched = !idle.connections.is_empty();
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

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_together_are_no_more_than_allowed() {
        for connections in 3..200 {
            let shares = shares(connections);
            assert_eq!(shares.all(), connections);
            assert!(shares.most(Purpose::Read) > 0);
        }
    }
}

//! Connections to one SQLite file, and how work on them is stopped.
//!
//! In: a path. Out: read-only connections, reused while the file stays the same one. Work runs on blocking threads; who
//! drops its [`Stop`] interrupts it.

use std::fmt;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use datafusion::common::runtime::SpawnedTask;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, InterruptHandle, OpenFlags};

use super::functions;
use super::moment::Moments;
use crate::{Error, ErrorKind, Result};

/// How long a statement waits for a writer of another program.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that are kept when nobody uses them.
const MOST_IDLE: usize = 8;

/// A SQLite file and the connections to it that nobody uses just now.
pub(super) struct Database {
    pub(super) depot: String,
    path: PathBuf,
    idle: Mutex<Vec<(FileId, Connection)>>,
    pub(super) moments: Moments,
}

impl Database {
    pub(super) fn new(depot: &str, path: PathBuf) -> Database {
        Database {
            depot: depot.to_owned(),
            path,
            idle: Mutex::default(),
            moments: Moments::default(),
        }
    }

    /// Runs `work` with a connection, on a blocking thread. Dropping the future interrupts it.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        object: &str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (database, name) = (Arc::clone(self), object.to_owned());
        let stop = Stop::default();
        let running = stop.running();
        let task = SpawnedTask::spawn_blocking(move || {
            database.with_connection(&running, |connection| {
                work(connection).map_err(|failure| database.error(failure).about(name))
            })
        });
        match task.join().await {
            Ok(result) => result,
            Err(failure) => Err(self.failure(ErrorKind::Internal, failure.to_string()).about(object)),
        }
    }

    /// Runs `work` with a connection, on this thread, until it is done or stopped.
    pub(super) fn with_connection<T>(
        &self,
        running: &Running,
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        let file = self.file_id()?;
        let connection = self.connection(&file)?;
        self.with(running, file, connection, work)
    }

    /// Runs `work` with this connection; a transaction that it is in ends with it.
    pub(super) fn with<T>(
        &self,
        running: &Running,
        file: FileId,
        connection: Connection,
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        if !running.start(&connection) {
            return Err(self.failure(ErrorKind::Internal, "the reading was stopped"));
        }
        let result = work(&connection);
        // From here on the connection may serve somebody else, whom a late stop must not hit.
        running.finish();
        let is_free = connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok();
        if result.is_ok() && is_free {
            self.keep(file, connection);
        }
        result
    }

    /// A connection to the file, one that nobody uses or a new one.
    pub(super) fn connection(&self, file: &FileId) -> Result<Connection> {
        self.take_idle(file).map_or_else(|| self.connect(), Ok)
    }

    /// What is at the path must be the file that a kept connection was opened on.
    pub(super) fn file_id(&self) -> Result<FileId> {
        let metadata = match std::fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(failure) => {
                let kind = match failure.kind() {
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => ErrorKind::NotFound,
                    std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                    _ => ErrorKind::Unreachable,
                };
                return Err(self
                    .failure(kind, format!("the file cannot be read: {failure}"))
                    .about(self.path_text()));
            }
        };
        if !metadata.is_file() {
            let message = "expected a SQLite database file, found something else";
            return Err(self.failure(ErrorKind::Settings, message).about(self.path_text()));
        }
        Ok(FileId::of(&metadata))
    }

    fn connect(&self) -> Result<Connection> {
        self.open(OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    /// A connection for one transaction that writes. The file must be there.
    pub(super) fn connect_to_write(&self) -> Result<Connection> {
        self.file_id()?;
        let connection = self.open(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // What is declared holds, whoever writes.
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true)
            .map_err(|failure| self.error(failure).about(self.path_text()))?;
        Ok(connection)
    }

    fn open(&self, access: OpenFlags) -> Result<Connection> {
        let open = || -> rusqlite::Result<Connection> {
            let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&self.path, flags)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            // A name that is not found must not become a text, and a view of a foreign file may not do harm.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
            functions::register(&connection)?;
            Ok(connection)
        };
        open().map_err(|failure| self.error(failure).about(self.path_text()))
    }

    fn take_idle(&self, file: &FileId) -> Option<Connection> {
        let mut idle = self.idle();
        idle.retain(|(known, _)| known == file);
        idle.pop().map(|(_, connection)| connection)
    }

    fn keep(&self, file: FileId, connection: Connection) {
        let mut idle = self.idle();
        if idle.len() < MOST_IDLE {
            idle.push((file, connection));
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(FileId, Connection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path_text(&self) -> String {
        self.path.display().to_string()
    }

    pub(super) fn failure(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(&self.depot, kind, message)
    }

    /// What SQLite reports, in this crate's terms.
    pub(super) fn error(&self, failure: rusqlite::Error) -> Error {
        if let rusqlite::Error::SqliteFailure(_, Some(text)) = &failure
            && let Some((kind, message)) = functions::reported(text)
        {
            return self.failure(kind, message);
        }
        let kind = match failure.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
                let waited = BUSY_TIMEOUT.as_secs();
                let message = format!("another program kept the database locked for {waited} seconds; try again later");
                return self.failure(ErrorKind::Unreachable, message);
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Corrupt,
            Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure) => ErrorKind::Unreachable,
            Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => ErrorKind::Denied,
            Some(ErrorCode::SchemaChanged) => ErrorKind::Changed,
            Some(ErrorCode::TooBig | ErrorCode::Unknown) => ErrorKind::Unsupported,
            _ => ErrorKind::Internal,
        };
        self.failure(kind, format!("SQLite reports: {failure}"))
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("depot", &self.depot)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Which file it is, and in which state. A connection trusts what it remembers of a file as long as a counter in it is
/// the same, which another database copied over it may have too; so it is kept only while the file is untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileId {
    inode: (u64, u64),
    length: u64,
    modified: Option<SystemTime>,
}

impl FileId {
    fn of(metadata: &Metadata) -> FileId {
        FileId {
            inode: inode(metadata),
            length: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn inode(_metadata: &Metadata) -> (u64, u64) {
    (0, 0)
}

/// Interrupts the work that was started with it when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Stop(Running);

impl Stop {
    /// What the working thread holds.
    pub(super) fn running(&self) -> Running {
        self.0.clone()
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if let State::Running(handle) = &*state {
            handle.interrupt();
        }
        *state = State::Over;
    }
}

/// Whether work on a connection is going on.
#[derive(Clone, Default)]
pub(super) struct Running(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    #[default]
    Waiting,
    Running(InterruptHandle),
    Over,
}

impl Running {
    /// False when it was stopped before it began.
    pub(super) fn start(&self, connection: &Connection) -> bool {
        let mut state = self.state();
        let starts = matches!(*state, State::Waiting);
        if starts {
            *state = State::Running(connection.get_interrupt_handle());
        }
        starts
    }

    pub(super) fn finish(&self) {
        *self.state() = State::Over;
    }

    /// Whether it was stopped.
    pub(super) fn is_over(&self) -> bool {
        matches!(*self.state(), State::Over)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

/// The absolute form of a path, so that it keeps its meaning and is never taken for a `file:` URL.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

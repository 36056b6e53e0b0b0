//! What sessions of a server are like, and what each transaction begins with.
//!
//! In: what a new connection is answered. Out: the text that begins a transaction. Nothing is set but inside a transaction: behind a pooler the next one
//! may have another session, and somebody else the one that this had.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use super::failure::is_lost;

/// What every transaction has the same, whatever the server, the database or the user is set to: how values are printed, and that a locked table is not
/// waited for without end.
const LOCAL: &str = "SET LOCAL DateStyle = 'ISO, MDY'; SET LOCAL IntervalStyle = 'postgres'; SET LOCAL TimeZone = 'UTC'; \
     SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; SET LOCAL standard_conforming_strings = on; \
     SET LOCAL lock_timeout = '60s'";

/// Whether the connection has a session of its own, for how long the server lets a statement run, and what it is.
pub(super) const PROBE: &str = "SELECT pg_catalog.current_setting('minerva.connection', true), \
     s.setting, pg_catalog.current_setting('server_version_num'), pg_catalog.version() \
     FROM pg_catalog.pg_settings AS s WHERE s.name OPERATOR(pg_catalog.=) 'statement_timeout'";

/// How much longer than the depot's `timeouts.query` the server goes on: it is for when nobody is left to tell it to stop.
const GRACE: Duration = Duration::from_secs(1);

/// The longest that `statement_timeout` can be.
const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

/// A server that computes for long looks so often whether its client is still there.
const WATCHED: &str = "SET LOCAL client_connection_check_interval = '5s'";
const WATCHED_FROM: u64 = 140_000;
/// From here on a server looks for a value in a hash table of a long list; before that it compares it with one after another.
const HASHED_FROM: u64 = 140_000;

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// A table is read as it is when its lock is had, and nothing is written.
    Read,
    /// All that it reads is of one moment.
    ReadShared,
    /// Rows are written.
    Write,
}

/// The sessions of one server. What is known of them is what the last new connection found.
#[derive(Debug)]
pub(super) struct Session {
    /// The depot's `timeouts.query`.
    limit: Option<Duration>,
    /// Whether the server takes no options when a connection begins.
    takes_no_options: AtomicBool,
    /// Whether a connection may have another session in each transaction.
    is_shared: AtomicBool,
    /// The server's own `statement_timeout` for the user, in milliseconds; 0 is none.
    statement_timeout: AtomicI64,
    /// Whether the server can look whether its client is still there.
    watches: AtomicBool,
    /// Whether the server makes hash tables of long lists.
    hashes: AtomicBool,
    next: AtomicU64,
}

impl Session {
    pub(super) fn new(limit: Option<Duration>) -> Session {
        Session {
            limit,
            takes_no_options: AtomicBool::new(false),
            is_shared: AtomicBool::new(false),
            statement_timeout: AtomicI64::new(0),
            watches: AtomicBool::new(false),
            hashes: AtomicBool::new(true),
            next: AtomicU64::new(0),
        }
    }

    /// Whether something between here and the server gives each transaction a session of its choice. Then transactions that wait for each other might
    /// wait for ever, for nobody here knows how many there may be.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared.load(Ordering::Relaxed)
    }

    /// A word that only one connection has, for its options; `None` when the server takes none.
    pub(super) fn token(&self) -> Option<String> {
        if self.takes_no_options.load(Ordering::Relaxed) {
            return None;
        }
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        // A hasher has a new random key each time, which is chance enough.
        Some(format!("c{:016x}", RandomState::new().hash_one(count)))
    }

    /// The options of a connection with this word.
    pub(super) fn options(token: &str) -> String {
        format!("-c minerva.connection={token}")
    }

    /// Whether a connection may have failed for its options only. Poolers refuse what they cannot keep for each of their clients.
    pub(super) fn refuses_options(failure: &tokio_postgres::Error) -> bool {
        let refusals = ["08P01", "0A000", "22023", "42602", "42704"];
        failure.code().is_some_and(|code| refusals.contains(&code.code()))
    }

    /// Takes note of what a new connection was answered to [`PROBE`].
    pub(super) fn learn(&self, answer: &[SimpleQueryMessage], token: Option<&str>) {
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let text = |at: usize| row.and_then(|row| row.try_get(at).ok().flatten());
        let is_own = token.is_some() && text(0) == token;
        let version: u64 = text(2).and_then(|number| number.parse().ok()).unwrap_or_default();
        let watches = version >= WATCHED_FROM && text(3).is_some_and(|version| version.contains("linux"));
        let own_limit = text(1).and_then(|number| number.parse().ok()).unwrap_or_default();
        self.takes_no_options.store(token.is_none(), Ordering::Relaxed);
        self.is_shared.store(!is_own, Ordering::Relaxed);
        self.statement_timeout.store(own_limit, Ordering::Relaxed);
        self.watches.store(watches, Ordering::Relaxed);
        self.hashes.store(version >= HASHED_FROM, Ordering::Relaxed);
    }

    /// Whether the server makes hash tables of long lists.
    pub(super) fn hashes_lists(&self) -> bool {
        self.hashes.load(Ordering::Relaxed)
    }

    /// The text that begins a transaction. `first` comes before everything else in it.
    pub(super) fn begin(&self, mode: Mode, first: &str) -> String {
        let mode_text = match mode {
            Mode::Read => "READ COMMITTED READ ONLY",
            Mode::ReadShared => "REPEATABLE READ READ ONLY",
            Mode::Write => "READ COMMITTED READ WRITE",
        };
        let mut text = format!("BEGIN TRANSACTION ISOLATION LEVEL {mode_text}; ");
        if !first.is_empty() {
            text.push_str(first);
            text.push_str("; ");
        }
        text.push_str(LOCAL);
        if mode == Mode::Write {
            return text;
        }
        if let Some(limit) = self.limit {
            let limit = limit.saturating_add(GRACE).min(LONGEST).as_millis();
            let own = self.statement_timeout.load(Ordering::Relaxed);
            // The server's own is kept where it is the shorter one.
            if own == 0 || u128::try_from(own).is_ok_and(|own| limit < own) {
                text.push_str(&format!("; SET LOCAL statement_timeout = {limit}"));
            }
        }
        if self.watches.load(Ordering::Relaxed) {
            text.push_str("; ");
            text.push_str(WATCHED);
        }
        text
    }
}

/// Why a statement that read nothing yet may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passing {
    /// Its connection was lost.
    Lost,
    /// A standby had to end it to go on with what its primary did. When it has caught up there is less that it has to end.
    Replayed,
}

/// How long a standby is left to go on, each time.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_millis(1500),
];

/// How often one statement was tried again.
#[derive(Debug, Default)]
pub(super) struct Again {
    lost: bool,
    pauses: usize,
}

impl Again {
    /// Whether a statement that nobody has seen a row of is to be tried once more. If so this returns when it is time.
    pub(super) async fn tries(&mut self, failure: &tokio_postgres::Error) -> bool {
        match passing(failure) {
            Some(Passing::Lost) => !std::mem::replace(&mut self.lost, true),
            Some(Passing::Replayed) => match PAUSES.get(self.pauses) {
                Some(pause) => {
                    self.pauses += 1;
                    tokio::time::sleep(*pause).await;
                    true
                }
                None => false,
            },
            None => false,
        }
    }
}

fn passing(failure: &tokio_postgres::Error) -> Option<Passing> {
    if is_lost(failure) {
        return Some(Passing::Lost);
    }
    (failure.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE)).then_some(Passing::Replayed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_limit_holds() {
        let text = |limit: Option<u64>, own: i64| {
            let session = Session::new(limit.map(Duration::from_secs));
            session.statement_timeout.store(own, Ordering::Relaxed);
            session.begin(Mode::Read, "")
        };
        assert!(!text(None, 0).contains("statement_timeout"));
        assert!(!text(None, 500).contains("statement_timeout"));
        assert!(text(Some(2), 0).ends_with("SET LOCAL statement_timeout = 3000"));
        assert!(text(Some(2), 3_001).contains("statement_timeout"));
        assert!(!text(Some(2), 2_000).contains("statement_timeout"));
        assert!(text(Some(u64::MAX), 0).ends_with("SET LOCAL statement_timeout = 2147483647"));
    }

    #[test]
    fn a_snapshot_is_taken_over_before_anything_else() {
        let text = Session::new(None).begin(Mode::ReadShared, "SET TRANSACTION SNAPSHOT 'x'");
        assert!(
            text.starts_with(
                "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT 'x'; SET LOCAL"
            ),
            "{text}"
        );
        assert!(!text.contains("SET S"), "nothing outlives the transaction");
    }
}

//! What PostgreSQL's errors mean, in this crate's terms.
//!
//! In: a failure of the client. Out: an error of a kind, in words of our own: PostgreSQL's may hold stored values and are never repeated.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_rustls::rustls;

use super::connection::Database;
use super::settings::TlsMode;
use crate::{Error, ErrorKind};

impl Database {
    /// What went wrong while connecting, in this crate's terms.
    pub(super) fn connect_error(&self, failure: &tokio_postgres::Error) -> Error {
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
                    format!("there is no database `{}` on the server", self.settings().database),
                ),
                SqlState::INSUFFICIENT_PRIVILEGE => (
                    ErrorKind::Denied,
                    format!(
                        "the user may not connect to the database `{}`",
                        self.settings().database
                    ),
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
        match self.settings().tls {
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
            (_, "08P01") if self.session().is_shared() => (
                ErrorKind::Busy,
                "the pooler in front of PostgreSQL ended the connection: it may have none left; raise its pool or try again later",
            ),
            ("08" | "57", _) => (ErrorKind::Unreachable, "PostgreSQL ended the connection"),
            (_, "40001") => (
                ErrorKind::Busy,
                "PostgreSQL ended the statement so that a standby can go on with what its primary did; try again, or raise the standby's \
                 `max_standby_streaming_delay`",
            ),
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

/// Whether it is the user or the database that a server refuses, and not that it cannot serve just now.
pub(super) fn refuses_user(failure: &tokio_postgres::Error) -> bool {
    failure.code().is_some_and(|code| {
        code.code().starts_with("28")
            || *code == SqlState::INVALID_CATALOG_NAME
            || *code == SqlState::INSUFFICIENT_PRIVILEGE
    })
}

/// A connection that is lost so soon after its statement began was likely lost before.
const SOON: Duration = Duration::from_secs(5);

/// Whether a statement that began some time ago may begin again. Who terminated it, or what the server crashed of, does not want it
/// again; and one that ran for long does not begin from the start without anybody knowing.
pub(super) fn may_begin_again(failure: &tokio_postgres::Error, ran: Duration) -> bool {
    let code = failure.code();
    if code == Some(&SqlState::ADMIN_SHUTDOWN) || code == Some(&SqlState::CRASH_SHUTDOWN) {
        return false;
    }
    !is_lost(failure) || ran < SOON
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

//! The client side of the protocol that MySQL and MariaDB speak.
//!
//! In: an address, a user, SQL text. Out: packets with rows, lent out of the buffer they arrived in, so that a value is copied once, into its column.
//! It does what a reader needs and no more: one statement at a time, no files of this machine for the server, no compression. Nothing here repeats what a server
//! says in words, which may hold stored values.

mod client;
mod handshake;
mod packet;

use std::fmt;
use std::io;

pub(super) use self::client::{Client, Described, Statement, Target};
pub(super) use self::packet::lenenc_bytes;

/// Why the server did not do what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// The socket failed or was closed.
    Io(io::Error),
    /// The server reports an error by its number.
    Server { code: u16, state: [u8; 5] },
    /// The server does not speak TLS, and must.
    NoTls,
    /// What it says is not the protocol, or not what is known of it here.
    Protocol(&'static str),
    /// It asks for a proof of the password that is not given.
    Authentication(String),
    /// A row is larger than what is taken.
    TooLarge,
}

impl Failure {
    /// Whether it is the connection that failed, and not what was asked.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            Failure::Io(_) => true,
            // It shuts down, or somebody killed the connection; the others are about packets that were cut.
            Failure::Server { code, .. } => matches!(code, 1053 | 1077 | 1079 | 1152 | 1158..=1161 | 1184 | 1927),
            Failure::NoTls | Failure::Protocol(_) | Failure::Authentication(_) | Failure::TooLarge => false,
        }
    }

    /// The number of the server's error.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Failure::Server { code, .. } => Some(*code),
            _ => None,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Io(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Io(error) => error.fmt(f),
            Failure::Server { code, state } => write!(f, "{code}, {}", String::from_utf8_lossy(state)),
            Failure::NoTls => f.write_str("the server does not speak TLS"),
            Failure::Protocol(what) => f.write_str(what),
            Failure::Authentication(what) => f.write_str(what),
            Failure::TooLarge => f.write_str("a row is too large"),
        }
    }
}

//! Why a value could not be read, in words that never repeat the value: it may be a secret.

use std::fmt::{self, Display};

use serde::de::{self, Unexpected};

/// Why a value could not be read.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It has been noted already, and what was wrong has been set aside.
    Known,
    /// A part without which it cannot be had has been set aside.
    Spoiled,
    /// A key is missing in the struct that is being read.
    Missing(&'static str),
    /// Something is wrong; whoever knows the line adds it.
    Somewhere(String),
    /// Something is wrong on this line.
    At {
        line: usize,
        message: String,
        help: Option<String>,
    },
}

impl Refusal {
    pub(super) fn named(self, key: &str) -> Self {
        match self {
            Refusal::At { line, message, help } => Refusal::At {
                line,
                message: format!("`{key}`: {message}"),
                help,
            },
            other => other,
        }
    }

    pub(super) fn at(self, line: usize) -> Self {
        match self {
            Refusal::Missing(key) => Refusal::At {
                line,
                message: format!("the key `{key}` is missing"),
                help: None,
            },
            Refusal::Somewhere(message) => Refusal::At {
                line,
                message,
                help: None,
            },
            placed => placed,
        }
    }
}

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Known | Refusal::Spoiled => f.write_str("already noted"),
            Refusal::Missing(key) => write!(f, "the key `{key}` is missing"),
            Refusal::Somewhere(message) | Refusal::At { message, .. } => f.write_str(message),
        }
    }
}

impl std::error::Error for Refusal {}

impl de::Error for Refusal {
    fn custom<T: Display>(message: T) -> Self {
        Refusal::Somewhere(message.to_string())
    }

    // What was found may be a secret, so it is never repeated.
    fn invalid_type(_found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Refusal::Somewhere(format!("expected {expected}"))
    }

    fn invalid_value(_found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Refusal::Somewhere(format!("expected {expected}"))
    }

    fn invalid_length(_length: usize, expected: &dyn de::Expected) -> Self {
        Refusal::Somewhere(format!("expected {expected}"))
    }

    fn missing_field(field: &'static str) -> Self {
        Refusal::Missing(field)
    }
}

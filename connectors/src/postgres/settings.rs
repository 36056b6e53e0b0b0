//! What a depot's manifest says about a PostgreSQL server.
//!
//! In: a depot. Out: its settings, checked, with the credentials of its secrets. Nothing here prints a credential.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use minerva_resources::{Depot, Parameter, ParameterKind, Problem, closest};

/// The keys of the manifest.
pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "host",
        kind: ParameterKind::Text,
        required: true,
        default: None,
        secret: false,
        description: "The name or the address of the server, or the folder of its Unix socket.",
    },
    Parameter {
        name: "port",
        kind: ParameterKind::Integer,
        required: false,
        default: Some("5432"),
        secret: false,
        description: "The port of the server.",
    },
    Parameter {
        name: "database",
        kind: ParameterKind::Text,
        required: true,
        default: None,
        secret: false,
        description: "The database. Its schemas are the collections of the depot.",
    },
    Parameter {
        name: "decimals",
        kind: ParameterKind::Integer,
        required: false,
        default: Some("10"),
        secret: false,
        description: "How many digits after the point a column declared as plain `numeric` is read with, from 0 to 38.",
    },
    Parameter {
        name: "maxConnections",
        kind: ParameterKind::Integer,
        required: false,
        default: Some("32"),
        secret: false,
        description: "How many connections are open at most, in the whole cluster, from 1 to 1000. From 7 on a large table is read by several at \
                      the same time, all of which see the same state of it. A statement that writes what it reads from the same depot, and \
                      UPDATE and DELETE, need 2, and are refused with 1.",
    },
    Parameter {
        name: "params",
        kind: ParameterKind::Map(&PARAMS),
        required: false,
        default: None,
        secret: false,
        description: "How to connect: `sslmode` (`disable`, `require`, `verify-ca` or `verify-full`, which holds when it \
                      is absent), `sslrootcert` (a file of PEM certificates, relative to the manifest), \
                      `connect_timeout` (seconds, 10 when absent), `application_name` (`minerva` when absent).",
    },
    Parameter {
        name: "username",
        kind: ParameterKind::Text,
        required: true,
        default: None,
        secret: true,
        description: "The user of the database.",
    },
    Parameter {
        name: "password",
        kind: ParameterKind::Text,
        required: false,
        default: None,
        secret: true,
        description: "Its password.",
    },
];

/// The keys inside `params`.
const PARAMS: [&str; 4] = ["application_name", "connect_timeout", "sslmode", "sslrootcert"];

/// How much of TLS is asked for. There is no mode that tries TLS and goes on without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsMode {
    /// Without TLS.
    Disable,
    /// Encrypted, whoever the server is.
    Require,
    /// The server's certificate leads to a root that is trusted.
    VerifyCa,
    /// It also bears the name of the host.
    VerifyFull,
}

impl TlsMode {
    const ALL: [(&'static str, TlsMode); 4] = [
        ("disable", TlsMode::Disable),
        ("require", TlsMode::Require),
        ("verify-ca", TlsMode::VerifyCa),
        ("verify-full", TlsMode::VerifyFull),
    ];

    pub(crate) fn of(word: &str) -> Option<TlsMode> {
        TlsMode::ALL
            .iter()
            .find(|(name, _)| *name == word)
            .map(|(_, mode)| *mode)
    }
}

/// Where a server is and how it is spoken to.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) depot: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: String,
    pub(super) user: String,
    pub(super) password: Option<String>,
    pub(super) tls: TlsMode,
    pub(super) root_certificates: Option<PathBuf>,
    pub(super) connect_timeout: Duration,
    pub(super) application_name: String,
    pub(super) decimals: u8,
    pub(super) max_connections: usize,
    /// How long all rows of one read may take, by the depot's `timeouts.query`.
    pub(super) query_limit: Option<Duration>,
}

impl Settings {
    /// The settings of a depot, or all that is wrong with them.
    pub(super) fn of(depot: &Depot) -> Result<Settings, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut problem = |key: &str, message: String, help: &str| {
            let message = format!("depot `{}`: {message}", depot.meta.name);
            problems.push(Problem::new(depot.settings.location_of(key), message).help(help));
        };
        let text = |key: &str| depot.settings.text(key).unwrap_or_default().to_owned();
        let mut settings = Settings {
            depot: depot.meta.name.clone(),
            host: text("host"),
            port: 5432,
            database: text("database"),
            user: depot.credentials.get("username").cloned().unwrap_or_default(),
            password: depot.credentials.get("password").cloned(),
            tls: TlsMode::VerifyFull,
            root_certificates: None,
            connect_timeout: Duration::from_secs(10),
            application_name: "minerva".to_owned(),
            decimals: 10,
            max_connections: 32,
            query_limit: depot.timeouts.query,
        };
        for (key, value) in [("host", &settings.host), ("database", &settings.database)] {
            if value.is_empty() || value.contains('\0') {
                problem(key, format!("`{key}` is empty"), "expected a name");
            }
        }
        if let Some(port) = depot.settings.integer("port") {
            match u16::try_from(port).ok().filter(|port| *port > 0) {
                Some(port) => settings.port = port,
                None => problem("port", format!("`port` is {port}"), "expected a number from 1 to 65535"),
            }
        }
        if let Some(decimals) = depot.settings.integer("decimals") {
            match u8::try_from(decimals).ok().filter(|decimals| *decimals <= 38) {
                Some(decimals) => settings.decimals = decimals,
                None => problem(
                    "decimals",
                    format!("`decimals` is {decimals}"),
                    "expected a number from 0 to 38",
                ),
            }
        }
        if let Some(most) = depot.settings.integer("maxConnections") {
            match usize::try_from(most).ok().filter(|most| (1..=1000).contains(most)) {
                Some(most) => settings.max_connections = most,
                None => problem(
                    "maxConnections",
                    format!("`maxConnections` is {most}"),
                    "expected a number from 1 to 1000",
                ),
            }
        }
        for (key, value, location) in depot.settings.map("params") {
            let mut problem = |message: String, help: String| {
                let message = format!("depot `{}`: {message}", depot.meta.name);
                problems.push(Problem::new(location.clone(), message).help(help));
            };
            match key.as_str() {
                "application_name" => settings.application_name = value,
                "connect_timeout" => match value.parse::<u64>() {
                    Ok(seconds @ 1..=3600) => settings.connect_timeout = Duration::from_secs(seconds),
                    _ => problem(
                        format!("`connect_timeout` is `{value}`"),
                        "expected seconds, from 1 to 3600".to_owned(),
                    ),
                },
                "sslmode" => match TlsMode::of(&value) {
                    Some(mode) => settings.tls = mode,
                    None => problem(format!("`sslmode` is `{value}`"), expected_modes(&value)),
                },
                "sslrootcert" => settings.root_certificates = Some(depot.base.join(value)),
                _ => problem(format!("unknown key `{key}` in `params`"), expected_params(&key)),
            }
        }
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(problems)
        }
    }

    /// The server's address, for messages.
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// What should stand there instead of a word that is no mode.
pub(crate) fn expected_modes(word: &str) -> String {
    if word == "prefer" || word == "allow" {
        return "nothing falls back to a connection without TLS; say `require` or `disable`".to_owned();
    }
    let names = TlsMode::ALL.map(|(name, _)| name);
    match closest(word, names) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("expected one of `{}`", names.join("`, `")),
    }
}

fn expected_params(key: &str) -> String {
    match closest(key, PARAMS) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("expected one of `{}`", PARAMS.join("`, `")),
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("depot", &self.depot)
            .field("address", &self.address())
            .field("database", &self.database)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

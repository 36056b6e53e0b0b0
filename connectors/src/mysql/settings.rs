//! What a depot's manifest says about a MySQL or MariaDB server.
//!
//! In: a depot. Out: its settings, checked, with the credentials of its secrets. Nothing here prints a credential.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use minerva_resources::{Depot, Parameter, ParameterKind, Problem, closest};

use crate::postgres::{TlsMode, expected_tls_modes};

/// The keys of the manifest.
pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "host",
        kind: ParameterKind::Text,
        required: true,
        default: None,
        secret: false,
        description: "The name or the address of the server, or the path of its Unix socket.",
    },
    Parameter {
        name: "port",
        kind: ParameterKind::Integer,
        required: false,
        default: Some("3306"),
        secret: false,
        description: "The port of the server.",
    },
    Parameter {
        name: "subprotocol",
        kind: ParameterKind::Choice(&["mysql", "mariadb"]),
        required: false,
        default: None,
        secret: false,
        description: "What the server is. It makes no difference: the server says so itself.",
    },
    Parameter {
        name: "zeroDates",
        kind: ParameterKind::Choice(&["error", "as-null"]),
        required: false,
        default: Some("error"),
        secret: false,
        description: "What a date that no calendar has is read as (`0000-00-00`, `2020-00-10`, `2021-02-31`): an error that names the column, or NULL.",
    },
    Parameter {
        name: "maxConnections",
        kind: ParameterKind::Integer,
        required: false,
        default: Some("16"),
        secret: false,
        description: "How many connections are open at most, in the whole cluster, from 3 to 1000.",
    },
    Parameter {
        name: "params",
        kind: ParameterKind::Map(&PARAMS),
        required: false,
        default: None,
        secret: false,
        description: "How to connect: `sslmode` (`disable`, `require`, `verify-ca` or `verify-full`, which holds when it \
                      is absent), `sslrootcert` (a file of PEM certificates, relative to the manifest), `tls` (instead of `sslmode`: `true` for \
                      `verify-full`, `skip-verify` for `require`, `false` for `disable`), `connect_timeout` (seconds, 10 when absent).",
    },
    Parameter {
        name: "username",
        kind: ParameterKind::Text,
        required: true,
        default: None,
        secret: true,
        description: "The user of the server.",
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
const PARAMS: [&str; 4] = ["connect_timeout", "sslmode", "sslrootcert", "tls"];

/// Where a server is and how it is spoken to.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) depot: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) tls: TlsMode,
    pub(super) root_certificates: Option<PathBuf>,
    pub(super) connect_timeout: Duration,
    pub(super) zero_dates_are_null: bool,
    pub(super) max_connections: usize,
}

impl Settings {
    /// The settings of a depot, or all that is wrong with them.
    pub(super) fn of(depot: &Depot) -> Result<Settings, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut problem = |key: &str, message: String, help: &str| {
            let message = format!("depot `{}`: {message}", depot.meta.name);
            problems.push(Problem::new(depot.settings.location_of(key), message).help(help));
        };
        let credential = |key: &str| depot.credentials.get(key).cloned().unwrap_or_default();
        let mut settings = Settings {
            depot: depot.meta.name.clone(),
            host: depot.settings.text("host").unwrap_or_default().to_owned(),
            port: 3306,
            user: credential("username"),
            password: credential("password"),
            tls: TlsMode::VerifyFull,
            root_certificates: None,
            connect_timeout: Duration::from_secs(10),
            zero_dates_are_null: depot
                .settings
                .text("zeroDates")
                .is_some_and(|word| word.eq_ignore_ascii_case("as-null")),
            max_connections: 16,
        };
        if settings.host.is_empty() || settings.host.contains('\0') {
            problem("host", "`host` is empty".to_owned(), "expected a name");
        }
        // The protocol ends both with a NUL character.
        for key in ["username", "password"] {
            if depot.credentials.get(key).is_some_and(|value| value.contains('\0')) {
                let message = format!("`{key}` of its secret has a NUL character");
                problem(key, message, "expected what the server knows");
            }
        }
        if let Some(port) = depot.settings.integer("port") {
            match u16::try_from(port).ok().filter(|port| *port > 0) {
                Some(port) => settings.port = port,
                None => problem("port", format!("`port` is {port}"), "expected a number from 1 to 65535"),
            }
        }
        if let Some(most) = depot.settings.integer("maxConnections") {
            match usize::try_from(most).ok().filter(|most| (3..=1000).contains(most)) {
                Some(most) => settings.max_connections = most,
                None => problem(
                    "maxConnections",
                    format!("`maxConnections` is {most}"),
                    "expected a number from 3 to 1000",
                ),
            }
        }
        let mut tls_key: Option<String> = None;
        for (key, value, location) in depot.settings.map("params") {
            let mut problem = |message: String, help: String| {
                let message = format!("depot `{}`: {message}", depot.meta.name);
                problems.push(Problem::new(location.clone(), message).help(help));
            };
            if key == "sslmode" || key == "tls" {
                match &tls_key {
                    Some(other) => problem(
                        format!("`params` has `{key}` and `{other}`"),
                        "say one of them".to_owned(),
                    ),
                    None => tls_key = Some(key.clone()),
                }
            }
            match key.as_str() {
                "connect_timeout" => match value.parse::<u64>() {
                    Ok(seconds @ 1..=3600) => settings.connect_timeout = Duration::from_secs(seconds),
                    _ => problem(
                        format!("`connect_timeout` is `{value}`"),
                        "expected seconds, from 1 to 3600".to_owned(),
                    ),
                },
                "sslmode" => match TlsMode::of(&value) {
                    Some(mode) => settings.tls = mode,
                    None => problem(format!("`sslmode` is `{value}`"), expected_tls_modes(&value)),
                },
                "tls" => match value.as_str() {
                    "true" => settings.tls = TlsMode::VerifyFull,
                    "skip-verify" => settings.tls = TlsMode::Require,
                    "false" => settings.tls = TlsMode::Disable,
                    "preferred" => problem(
                        "`tls` is `preferred`".to_owned(),
                        "nothing falls back to a connection without TLS; say `true`, `skip-verify` or `false`"
                            .to_owned(),
                    ),
                    _ => problem(
                        format!("`tls` is `{value}`"),
                        "expected `true`, `skip-verify` or `false`".to_owned(),
                    ),
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
        if self.is_socket() {
            return self.host.clone();
        }
        format!("{}:{}", self.host, self.port)
    }

    /// Whether the host is the path of a Unix socket.
    pub(super) fn is_socket(&self) -> bool {
        self.host.starts_with('/')
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
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

//! What the manifests of all object stores have in common, read once.
//!
//! In: a depot. Out: a [`Remote`], or what is wrong. Nothing here reaches a store.

use std::time::Duration;

use minerva_resources::{Depot, Parameter, ParameterKind, closest};
use object_store::path::Path;
use object_store::{BackoffConfig, HeaderMap, RetryConfig};
use reqwest::Certificate;

use super::client::Client;
use crate::files::formats::Format;
use crate::files::settings::{Reader, TextSettings};

/// The keys of every type of object store but those that say where it is.
pub(super) const COMMON: [Parameter; 5] = [
    Parameter {
        name: "authentication",
        kind: ParameterKind::Choice(&["secret", "anonymous", "environment"]),
        required: false,
        default: Some("secret"),
        secret: false,
        description: "who asks: whoever the depot's secret says, nobody in particular, or what the machine's environment and the \
                      cloud around it say",
    },
    Parameter {
        name: "listing",
        kind: ParameterKind::Integer,
        required: false,
        default: Some("10"),
        secret: false,
        description: "for how many seconds a list of objects is kept; 0 asks the store each time",
    },
    Parameter {
        name: "cache",
        kind: ParameterKind::Integer,
        required: false,
        default: Some("256"),
        secret: false,
        description: "how many MiB of the parts of Parquet objects that were read each process keeps in memory; 0 for none",
    },
    Parameter {
        name: "rootCertificates",
        kind: ParameterKind::Path,
        required: false,
        default: None,
        secret: false,
        description: "a file of PEM certificates that are trusted besides those of the system",
    },
    Parameter {
        name: "params",
        kind: ParameterKind::Map(&PARAMS),
        required: false,
        default: None,
        secret: false,
        description: "how requests are made: `connect_timeout` (seconds, 5 when absent), `request_timeout` (seconds for one \
                      request with its answer, 30 when absent), `retries` (how often one is made again that the server \
                      could not answer, 5 when absent)",
    },
];

/// The key of a bucket.
pub(super) const BUCKET: Parameter = Parameter {
    name: "bucket",
    kind: ParameterKind::Text,
    required: true,
    default: None,
    secret: false,
    description: "the name of the bucket",
};

/// The key of the folder inside a store.
pub(super) const RELATIVE_PATH: Parameter = Parameter {
    name: "relativePath",
    kind: ParameterKind::Text,
    required: false,
    default: None,
    secret: false,
    description: "the folder whose folders are the collections; without it the top",
};

/// The key of another address.
pub(super) const ENDPOINT: Parameter = Parameter {
    name: "endpoint",
    kind: ParameterKind::Text,
    required: false,
    default: None,
    secret: false,
    description: "the URL of a server that is not the cloud's own; one that begins with `http:` is spoken to without TLS",
};

/// A key of a secret.
pub(super) const fn secret(name: &'static str, description: &'static str) -> Parameter {
    Parameter {
        name,
        kind: ParameterKind::Text,
        required: false,
        default: None,
        secret: true,
        description,
    }
}

const PARAMS: [&str; 3] = ["connect_timeout", "request_timeout", "retries"];

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Authentication {
    Secret,
    Anonymous,
    Environment,
}

/// What a manifest says about an object store, apart from where it is.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    pub(super) format: Option<Format>,
    pub(super) text: TextSettings,
    pub(super) root: Path,
    pub(super) authentication: Authentication,
    pub(super) listing: Duration,
    /// In bytes.
    pub(super) cache: usize,
    pub(super) client: Client,
    pub(super) retry: RetryConfig,
}

impl Remote {
    /// Reads the common keys.
    pub(super) fn read(reader: &mut Reader<'_>, default: Authentication) -> Remote {
        let (format, text) = reader.reading();
        let mut remote = Remote {
            format,
            text,
            root: root(reader),
            authentication: authentication(reader, default),
            listing: listing(reader),
            cache: cache(reader),
            client: Client {
                connect_timeout: Duration::from_secs(5),
                request_timeout: Duration::from_secs(30),
                allow_plain: false,
                certificates: Vec::new(),
                headers: HeaderMap::new(),
            },
            retry: RetryConfig {
                backoff: BackoffConfig {
                    init_backoff: Duration::from_millis(100),
                    max_backoff: Duration::from_secs(5),
                    base: 2.0,
                },
                max_retries: 5,
                retry_timeout: Duration::from_secs(180),
            },
        };
        remote.params(reader);
        remote
    }

    /// Allows a server to be spoken to without TLS.
    pub(super) fn allow_plain(&mut self) {
        self.client.allow_plain = true;
    }

    fn params(&mut self, reader: &mut Reader<'_>) {
        for (key, value, location) in reader.settings.map("params") {
            let seconds = || value.parse().ok().filter(|seconds| (1..=3600).contains(seconds));
            let wrong = format!("`{key}` is `{value}`");
            match key.as_str() {
                "connect_timeout" | "request_timeout" => match seconds() {
                    Some(seconds) if key == "connect_timeout" => {
                        self.client.connect_timeout = Duration::from_secs(seconds)
                    }
                    Some(seconds) => self.client.request_timeout = Duration::from_secs(seconds),
                    None => reader.problem_at(location, &wrong, "expected seconds, from 1 to 3600"),
                },
                "retries" => match value.parse() {
                    Ok(retries @ 0..=100) => self.retry.max_retries = retries,
                    _ => reader.problem_at(location, &wrong, "expected a number from 0 to 100"),
                },
                _ => {
                    let help = match closest(&key, PARAMS) {
                        Some(name) => format!("did you mean `{name}`?"),
                        None => format!("expected one of `{}`", PARAMS.join("`, `")),
                    };
                    reader.problem_at(location, &format!("unknown key `{key}` in `params`"), help);
                }
            }
        }
        // A server that answers nothing is not asked all the times that one is which answers that it is busy.
        self.retry.retry_timeout = self.client.request_timeout * 2;
    }
}

/// The certificates that the manifest names. Reads a file, so it is done when the store is opened.
pub(super) fn certificates(depot: &Depot) -> Result<Vec<Certificate>, String> {
    let Some(path) = depot.settings.path("rootCertificates", &depot.base) else {
        return Ok(Vec::new());
    };
    let shown = path.display();
    let pem = std::fs::read(&path).map_err(|error| format!("the file `{shown}` cannot be read: {error}"))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(format!("the file `{shown}` does not hold PEM certificates")),
    }
}

fn root(reader: &mut Reader<'_>) -> Path {
    let written = reader.settings.text("relativePath").unwrap_or_default();
    match Path::parse(written.trim_matches('/')) {
        Ok(path) => path,
        Err(_) => {
            reader.problem(
                "relativePath",
                "is not a folder",
                "expected names with `/` between them, none of them `.` or `..`",
            );
            Path::default()
        }
    }
}

fn authentication(reader: &Reader<'_>, default: Authentication) -> Authentication {
    match reader
        .settings
        .text("authentication")
        .map(str::to_ascii_lowercase)
        .as_deref()
    {
        Some("secret") => Authentication::Secret,
        Some("anonymous") => Authentication::Anonymous,
        Some("environment") => Authentication::Environment,
        _ => default,
    }
}

fn listing(reader: &mut Reader<'_>) -> Duration {
    match reader.settings.integer("listing").map(u64::try_from) {
        None => Duration::from_secs(10),
        Some(Ok(seconds)) => Duration::from_secs(seconds),
        Some(Err(_)) => {
            reader.problem(
                "listing",
                "is less than 0",
                "give a number of seconds, or 0 to ask the store each time",
            );
            Duration::ZERO
        }
    }
}

fn cache(reader: &mut Reader<'_>) -> usize {
    let mebibytes = reader.settings.integer("cache").unwrap_or(256);
    match usize::try_from(mebibytes)
        .ok()
        .and_then(|mebibytes| mebibytes.checked_mul(1 << 20))
    {
        Some(bytes) => bytes,
        None => {
            reader.problem("cache", "is not a size", "give a number of MiB, or 0 to keep nothing");
            0
        }
    }
}

/// The bucket that a depot is in.
pub(super) fn bucket(reader: &mut Reader<'_>) -> String {
    let bucket = reader.settings.text("bucket").unwrap_or_default().to_owned();
    if bucket.is_empty() || bucket.contains(['/', '?', '#', ' ']) {
        reader.problem(
            "bucket",
            "is not the name of a bucket",
            "expected a name, without a scheme and without a path",
        );
    }
    bucket
}

/// The URL behind a key, and whether it is spoken to without TLS.
pub(super) fn url(reader: &mut Reader<'_>, key: &str) -> Option<(String, bool)> {
    let written = reader.settings.text(key)?.to_owned();
    let rest = written
        .strip_prefix("https://")
        .or_else(|| written.strip_prefix("http://"));
    let host = rest
        .and_then(|rest| rest.split(['/', '?', '#']).next())
        .unwrap_or_default();
    if host.is_empty() || written.contains(['?', '#', ' ']) {
        reader.problem(
            key,
            "is not the URL of a server",
            "expected one like `https://storage.example.com`",
        );
        return None;
    }
    if host.contains('@') {
        reader.problem(
            key,
            "holds credentials",
            "put them in the `data` of a secret of the depot",
        );
        return None;
    }
    let is_plain = written.starts_with("http://");
    Some((written.trim_end_matches('/').to_owned(), is_plain))
}

/// The first of these keys that the depot's secrets have; those that mean the same have several names.
pub(super) fn credential(reader: &Reader<'_>, names: &[&str]) -> Option<String> {
    let found = names.iter().find_map(|name| reader.depot.credentials.get(*name));
    found.filter(|value| !value.is_empty()).cloned()
}

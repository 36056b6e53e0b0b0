//! Depots of type `http`: files on a web server.
//!
//! Plain HTTP has no listings. A server that speaks WebDAV lists its folders; for any other one the manifest names the files, or
//! its `url` is that of the only one.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use minerva_resources::{Depot, Parameter, ParameterKind, Problem};
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{HeaderValue, ObjectStore};

use super::bucket::Lister;
use super::settings::{Authentication, COMMON, Remote, credential, secret, url};
use super::{Described, StoreConnector, location};
use crate::files::formats::format_of;
use crate::files::settings::{READING, Reader, joined};

const WHERE: [Parameter; 2] = [
    Parameter {
        name: "url",
        kind: ParameterKind::Text,
        required: true,
        default: None,
        secret: false,
        description: "the folder whose folders are the collections, or one file; one that begins with `http:` is spoken to without TLS",
    },
    Parameter {
        name: "files",
        kind: ParameterKind::List,
        required: false,
        default: None,
        secret: false,
        description: "the files, relative to `url`, for servers that do not list folders by WebDAV: `nyc/flights.parquet`",
    },
];

const SECRET: [Parameter; 3] = [
    secret("username", "the user, for Basic authentication"),
    secret("password", "the user's password"),
    secret("token", "a bearer token, instead of user and password"),
];

const PARAMETERS: &[Parameter] =
    &joined::<11, 8, 19>(joined::<2, 9, 11>(WHERE, READING), joined::<5, 3, 8>(COMMON, SECRET));

/// Depots of type `http`.
pub(crate) const HTTP: StoreConnector = StoreConnector {
    depot_type: "http",
    parameters: PARAMETERS,
    example: "name: opendata
version: v2alpha
type: depot
depot:
  type: HTTP
  http:
    url: https://data.example.org/open
    files: [nyc/flights.parquet, nyc/planes.csv]
    authentication: anonymous
",
    describe,
};

fn describe(depot: &Depot) -> Result<Described, Vec<Problem>> {
    let mut reader = Reader::new(depot);
    let is_known = !depot.credentials.is_empty();
    let default = if is_known {
        Authentication::Secret
    } else {
        Authentication::Anonymous
    };
    let mut remote = Remote::read(&mut reader, default);
    let (url, is_plain) = url(&mut reader, "url").unwrap_or_default();
    if is_plain {
        remote.allow_plain();
    }
    // The client lists and reads by whole paths, so the URL's path is the folder inside the store that is the server.
    let (host, path) = split(&url);
    remote.root = Path::from_url_path(path).unwrap_or_default();
    let mut names = names(&mut reader, &remote.root);
    let file = remote.root.clone();
    if names.is_empty() && file.filename().and_then(format_of).is_some() {
        let folder = file.as_ref().rsplit_once('/').map_or("", |(folder, _)| folder);
        remote.root = Path::parse(folder).unwrap_or_default();
        names.push(file);
    }
    if let Some(authorization) = authorization(&mut reader, remote.authentication) {
        remote.client.headers.insert("authorization", authorization);
    }
    let identity = location::digest(["http", host]);
    let place = format!("the folder `{url}`");
    let host = host.to_owned();
    let build = move |remote: &Remote| {
        let store = HttpBuilder::new()
            .with_url(&host)
            .with_retry(remote.retry.clone())
            .with_client_options(remote.client.options())
            .with_http_connector(remote.client.clone());
        Ok(Arc::new(store.build()?) as Arc<dyn ObjectStore>)
    };
    let lister = if names.is_empty() {
        Lister::Folders
    } else {
        Lister::Named(names)
    };
    reader.end(Described {
        remote,
        place,
        identity,
        lister,
        build: Box::new(build),
    })
}

/// The server of a URL, and the path there.
fn split(url: &str) -> (&str, &str) {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let rest = url.get(after_scheme..).unwrap_or_default();
    let host = rest.find('/').map_or(url.len(), |at| after_scheme + at);
    url.split_at_checked(host).unwrap_or((url, ""))
}

fn names(reader: &mut Reader<'_>, root: &Path) -> Vec<Path> {
    let mut names = Vec::new();
    for name in reader.settings.list("files") {
        let whole = format!("{root}/{name}");
        match Path::parse(whole.trim_start_matches('/')) {
            Ok(path) if !name.is_empty() && !names.contains(&path) => names.push(path),
            Ok(_) => reader.problem(
                "files",
                &format!("names `{name}` twice, or nothing"),
                "name each file once",
            ),
            Err(_) => {
                let help = "expected a path relative to `url`, without `.`, `..` and empty parts";
                reader.problem("files", &format!("names `{name}`, which is not a path"), help);
            }
        }
    }
    names
}

fn authorization(reader: &mut Reader<'_>, authentication: Authentication) -> Option<HeaderValue> {
    match authentication {
        Authentication::Anonymous => return None,
        Authentication::Environment => {
            let help = "say `secret` or `anonymous`; a web server has no environment";
            reader.problem("authentication", "is `environment`", help);
            return None;
        }
        Authentication::Secret => {}
    }
    let (user, token) = (credential(reader, &["username"]), credential(reader, &["token"]));
    let text = match (user, token) {
        (Some(user), None) => {
            let password = credential(reader, &["password"]).unwrap_or_default();
            format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
        }
        (None, Some(token)) => format!("Bearer {token}"),
        (Some(_), Some(_)) | (None, None) => {
            let help = "name a secret whose `data` has either `username` and `password` or `token`, or say `anonymous`";
            reader.problem(
                "authentication",
                "is by secret, and the depot's secrets do not say which",
                help,
            );
            return None;
        }
    };
    match HeaderValue::from_str(&text) {
        Ok(mut value) => {
            value.set_sensitive(true);
            Some(value)
        }
        Err(_) => {
            let help = "a token has visible ASCII characters only";
            reader.problem("authentication", "is by a token that cannot be sent", help);
            None
        }
    }
}

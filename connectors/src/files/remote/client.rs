//! The HTTP client of a depot's store.
//!
//! It is our own for one reason: an answer that leads elsewhere is not followed. A client that follows takes headers along, and
//! among those of signed requests are some (a session token) that it does not know for credentials. Where to go is for the
//! manifest to say.

use std::fmt;
use std::time::Duration;

use object_store::client::{HttpClient, HttpConnector};
use object_store::{ClientConfigKey, ClientOptions, HeaderMap};
use reqwest::redirect::Policy;
use reqwest::{Certificate, ClientBuilder};

/// How requests are made.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
    /// Whether the manifest says `http:`.
    pub(super) allow_plain: bool,
    /// Trusted besides those of the system.
    pub(super) certificates: Vec<Certificate>,
    /// Sent with every request.
    pub(super) headers: HeaderMap,
}

impl Client {
    /// The same as the options of a store, which looks at some of them itself.
    pub(super) fn options(&self) -> ClientOptions {
        ClientOptions::new()
            .with_allow_http(self.allow_plain)
            .with_connect_timeout(self.connect_timeout)
            .with_timeout(self.request_timeout)
    }
}

impl HttpConnector for Client {
    /// The client for the store, or for whoever gives it credentials: a cloud's service for its machines is plain HTTP.
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allows = options.get_config_value(&ClientConfigKey::AllowHttp);
        let allows_plain = allows.is_some_and(|allows| allows == "true");
        let mut builder = ClientBuilder::new()
            .user_agent(concat!("minerva/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .connect_timeout(self.connect_timeout)
            .timeout(self.request_timeout)
            .http1_only()
            .https_only(!allows_plain)
            .default_headers(self.headers.clone());
        for certificate in &self.certificates {
            builder = builder.add_root_certificate(certificate.clone());
        }
        let client = builder.build().map_err(|source| object_store::Error::Generic {
            store: "HTTP client",
            source: Box::new(source),
        })?;
        Ok(HttpClient::new(client))
    }
}

/// Without the headers, which are credentials.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("connect_timeout", &self.connect_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("allow_plain", &self.allow_plain)
            .finish_non_exhaustive()
    }
}

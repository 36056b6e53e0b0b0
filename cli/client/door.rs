//! The channel to the server with what every request of a session carries.
//!
//! In: requests of the generated Flight client. Out: the same requests with the session's headers (bearer token, cluster) and cookies; cookies
//! that the server sets are kept. Deliberately absent: cookie paths and expiry; a door talks to one server for one run of the program.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tonic::{
    body::Body,
    codegen::{
        Service,
        http::{self, HeaderMap, HeaderValue, header},
    },
    metadata::AsciiMetadataValue,
    transport::{Channel, Error},
};

/// A channel that remembers a session.
#[derive(Clone)]
pub(super) struct Door {
    channel: Channel,
    session: Arc<Mutex<Session>>,
}

#[derive(Default)]
struct Session {
    headers: HeaderMap,
    cookies: BTreeMap<String, String>,
}

impl Door {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            channel,
            session: Arc::default(),
        }
    }

    /// Sends a header with every request from now on.
    pub(super) fn set_header(&self, name: &'static str, value: AsciiMetadataValue) {
        if let Ok(mut header) = HeaderValue::from_bytes(value.as_bytes()) {
            header.set_sensitive(true);
            self.with_session(|session| session.headers.insert(name, header));
        }
    }

    /// Whether the server has given this client a cookie.
    pub(super) fn has_session(&self) -> bool {
        self.with_session(|session| !session.cookies.is_empty())
    }

    fn with_session<T>(&self, work: impl FnOnce(&mut Session) -> T) -> T {
        work(&mut self.session.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers and cookies hold credentials.
        formatter
            .debug_struct("Door")
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}

impl Session {
    fn complete(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        if self.cookies.is_empty() {
            return;
        }
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if let Ok(mut value) = HeaderValue::try_from(cookies.join("; ")) {
            value.set_sensitive(true);
            headers.insert(header::COOKIE, value);
        }
    }

    fn learn(&mut self, headers: &HeaderMap) {
        for value in headers.get_all(header::SET_COOKIE) {
            let Some((name, rest)) = value.to_str().ok().and_then(|text| text.split_once('=')) else {
                continue;
            };
            let value = rest.split(';').next().unwrap_or_default().trim();
            if value.is_empty() {
                self.cookies.remove(name.trim());
            } else {
                self.cookies.insert(name.trim().to_owned(), value.to_owned());
            }
        }
    }
}

impl Service<http::Request<Body>> for Door {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        self.with_session(|session| session.complete(request.headers_mut()));
        let response = self.channel.call(request);
        let door = self.clone();
        Box::pin(async move {
            let response = response.await?;
            door.with_session(|session| session.learn(response.headers()));
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_sends_its_headers_and_the_cookies_it_learnt() {
        let mut session = Session::default();
        session
            .headers
            .insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer t"));
        let mut answer = HeaderMap::new();
        answer.append(
            header::SET_COOKIE,
            HeaderValue::from_static("session=abc; HttpOnly; Path=/"),
        );
        answer.append(header::SET_COOKIE, HeaderValue::from_static("route=7"));
        session.learn(&answer);
        let mut request = HeaderMap::new();
        session.complete(&mut request);
        assert_eq!(request[header::AUTHORIZATION], "Bearer t");
        assert_eq!(request[header::COOKIE], "route=7; session=abc");

        let mut explicit = HeaderMap::new();
        explicit.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic b"));
        session.complete(&mut explicit);
        assert_eq!(
            explicit[header::AUTHORIZATION],
            "Basic b",
            "what a request says itself stays"
        );

        answer.clear();
        answer.append(header::SET_COOKIE, HeaderValue::from_static("session=; Max-Age=0"));
        session.learn(&answer);
        assert_eq!(session.cookies.keys().collect::<Vec<_>>(), ["route"]);
    }
}

//! Who is asking, and what with.
//!
//! In: the head and the body of a request. Out: a principal, a read body, the parameters of the query string; or a refusal.
//! What is not understood is refused, never left out of account.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{body::Body, extract::FromRequestParts};
use bytes::Bytes;
use http::{HeaderMap, header, request::Parts};
use http_body_util::{BodyExt, Limited};
use minerva_policy::Principal;

use super::{answer::Refusal, connections::Peer, record::made_by};
use crate::{
    engine::Engine,
    error::Code,
    gateway::auth::{Credentials, Presented},
    queries::Client,
    session::Session,
};

/// The largest body of a request.
const BODY_BYTES: usize = 1 << 20;
/// How long a client may take to send its body.
const BODY_WITHIN: Duration = Duration::from_secs(15);
/// The header that names the user to act as.
const ACT_AS: &str = "x-minerva-user";

/// An authenticated user and the session in which the request is answered.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) principal: Arc<Principal>,
    pub(super) session: Arc<Session>,
}

impl FromRequestParts<Arc<Engine>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, engine: &Arc<Engine>) -> Result<Self, Refusal> {
        let client = client(parts);
        let shown = presented(parts)?.ok_or_else(|| {
            Refusal::new(Code::InvalidCredentials, "the request carries no credentials").with_hint(
                "send `Authorization: Basic` with user and API key, or `Authorization: Bearer` with a key or token",
            )
        })?;
        let principal = identify(engine, &shown, &client).await?;
        made_by(&parts.extensions, &principal);
        if let Some(wanted) = parts.headers.get("cluster-name") {
            engine.serves(&String::from_utf8_lossy(wanted.as_bytes()))?;
        }
        let session = engine.session(Arc::clone(&principal), client);
        Ok(Self { principal, session })
    }
}

/// The one place where this door asks who somebody is.
pub(super) async fn identify(
    engine: &Engine,
    presented: &Presented,
    client: &Client,
) -> Result<Arc<Principal>, Refusal> {
    let admitted = engine.admit(presented).await;
    admitted
        .inspect_err(|error| engine.attempted(client, presented, error))
        .map_err(Refusal::from)
}

/// Where the request came from.
pub(super) fn client(parts: &Parts) -> Client {
    let source = parts.headers.get(header::USER_AGENT);
    let peer = parts.extensions.get::<Peer>();
    Client {
        door: "http",
        address: peer.map_or_else(String::new, |peer| peer.address.to_string()),
        source: source.map(|source| String::from_utf8_lossy(source.as_bytes()).into_owned()),
    }
}

/// Everything that a request shows of who makes it; `None` when it shows nothing.
///
/// # Errors
/// When a header cannot be read, or stands there twice.
pub(super) fn presented(parts: &Parts) -> Result<Option<Presented>, Refusal> {
    let peer = parts.extensions.get::<Peer>();
    let credentials = match once(&parts.headers, header::AUTHORIZATION.as_str())? {
        Some(header) => Some(Credentials::from_header(header)?),
        None => None,
    };
    let certificate = peer.and_then(|peer| peer.certificate.clone());
    if credentials.is_none() && certificate.is_none() {
        return Ok(None);
    }
    Ok(Some(Presented {
        credentials,
        address: peer.map(|peer| peer.address.ip()),
        certificate,
        act_as: once(&parts.headers, ACT_AS)?.map(str::to_owned),
    }))
}

/// What the holder of a token shows with it, wherever the request comes from: nothing else of the request is theirs.
pub(super) fn holder_of(token: String, parts: &Parts) -> Presented {
    Presented {
        credentials: Some(Credentials::Bearer(token)),
        address: parts.extensions.get::<Peer>().map(|peer| peer.address.ip()),
        ..Presented::default()
    }
}

/// A header that may be there once.
fn once<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let wrong = |why: &str| Refusal::new(Code::InvalidCredentials, format!("the header `{name}` {why}"));
    let mut all = headers.get_all(name).iter();
    let Some(header) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(wrong("is there more than once"));
    }
    header.to_str().map(Some).map_err(|_| wrong("is no plain text"))
}

/// The whole body of a request, if it is not too long and comes in time.
pub(super) async fn body(body: Body) -> Result<Bytes, Refusal> {
    let read = tokio::time::timeout(BODY_WITHIN, Limited::new(body, BODY_BYTES).collect()).await;
    let invalid = |message: String| Refusal::new(Code::InvalidArgument, message);
    match read {
        Ok(Ok(read)) => Ok(read.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(invalid(format!("the body is longer than {BODY_BYTES} bytes")))
        }
        Ok(Err(_)) => Err(invalid("the body cannot be read".to_owned())),
        Err(_) => Err(invalid(format!(
            "the body did not come within {} s",
            BODY_WITHIN.as_secs()
        ))),
    }
}

/// The parameters of a query string; each may be there once, and only those that the path knows.
pub(super) fn parameters(query: Option<&str>, known: &[&str]) -> Result<BTreeMap<String, String>, Refusal> {
    let mut found = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if !known.contains(&name.as_ref()) {
            let expected = match known {
                [] => "none is known here".to_owned(),
                known => format!("expected {}", known.join(", ")),
            };
            return Err(Refusal::new(
                Code::InvalidArgument,
                format!("unknown parameter `{name}`; {expected}"),
            ));
        }
        if found.insert(name.to_string(), value.into_owned()).is_some() {
            return Err(Refusal::new(
                Code::InvalidArgument,
                format!("parameter `{name}` is there more than once"),
            ));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    fn read(headers: &[(&str, &str)]) -> Result<Option<Presented>, String> {
        let (mut parts, ()) = Request::new(()).into_parts();
        for (name, value) in headers {
            let name = header::HeaderName::from_bytes(name.as_bytes()).unwrap();
            parts
                .headers
                .append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        presented(&parts).map_err(|refusal| refusal.0.message)
    }

    #[test]
    fn headers_of_identity_are_read_once() {
        assert!(read(&[]).unwrap().is_none());
        let shown = read(&[("authorization", "Basic amFuZTprOmV5"), ("x-minerva-user", "tom")])
            .unwrap()
            .unwrap();
        let Some(Credentials::Basic { user, password }) = shown.credentials else {
            panic!("Basic was sent");
        };
        assert_eq!((user.as_str(), password.as_str()), ("jane", "k:ey"));
        assert_eq!(shown.act_as.as_deref(), Some("tom"));
        for wrong in [
            vec![("authorization", "Negotiate x")],
            vec![("authorization", "Bearer a"), ("authorization", "Bearer b")],
            vec![
                ("authorization", "Bearer a"),
                ("x-minerva-user", "a"),
                ("x-minerva-user", "b"),
            ],
            vec![("authorization", "Bearer \u{e9}")],
        ] {
            assert!(read(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn unknown_and_repeated_parameters_are_refused() {
        assert_eq!(
            parameters(Some("limit=5&user=a%20b"), &["limit", "user"]).unwrap()["user"],
            "a b"
        );
        assert!(parameters(None, &[]).unwrap().is_empty());
        for wrong in ["limits=5", "limit=1&limit=2"] {
            assert!(parameters(Some(wrong), &["limit"]).is_err(), "{wrong}");
        }
    }
}

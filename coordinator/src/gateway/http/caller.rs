//! Who is asking, and what with.
//!
//! In: the head and the body of a request. Out: a principal, a read body, the parameters of the query string; or a refusal.
//! What is not understood is refused, never left out of account.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{body::Body, extract::FromRequestParts};
use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use http::{HeaderMap, header, request::Parts};
use http_body_util::{BodyExt, Limited};
use minerva_policy::Principal;

use super::{answer::Refusal, connections::Peer};
use crate::{engine::Engine, error::Code, gateway::auth::Credentials, queries::Client, session::Session};

/// The largest body of a request.
const BODY_BYTES: usize = 1 << 20;
/// How long a client may take to send its body.
const BODY_WITHIN: Duration = Duration::from_secs(15);

/// Both spellings of base64 are in use: with padding and without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

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
        let credentials = credentials(&parts.headers)?.ok_or_else(|| {
            Refusal::new(Code::InvalidCredentials, "the request carries no credentials").with_hint(
                "send `Authorization: Basic` with user and API key, or `Authorization: Bearer` with a key or token",
            )
        })?;
        let principal = identify(engine, &credentials, &client)?;
        if let Some(wanted) = parts.headers.get("cluster-name") {
            engine.serves(&String::from_utf8_lossy(wanted.as_bytes()))?;
        }
        let session = engine.session(Arc::clone(&principal), client);
        Ok(Self { principal, session })
    }
}

/// The one place where this door asks who somebody is.
pub(super) fn identify(engine: &Engine, credentials: &Credentials, client: &Client) -> Result<Arc<Principal>, Refusal> {
    engine
        .authenticate(credentials)
        .inspect_err(|error| engine.attempted(client, credentials, error))
        .map_err(Refusal::from)
}

/// Where the request came from.
pub(super) fn client(parts: &Parts) -> Client {
    let address = parts.extensions.get::<Peer>();
    let text = |name: header::HeaderName| {
        let value = parts.headers.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Client {
        door: "http",
        address: address.map_or_else(String::new, |Peer(address)| address.to_string()),
        source: text(header::USER_AGENT),
    }
}

/// The credentials that a request carries, if it carries any.
///
/// # Errors
/// When there are several, or they cannot be read.
pub(super) fn credentials(headers: &HeaderMap) -> Result<Option<Credentials>, Refusal> {
    let wrong = |why: &str| Refusal::new(Code::InvalidCredentials, format!("the header `authorization` {why}"));
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let Some(header) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(wrong("is there more than once"));
    }
    let text = header.to_str().map_err(|_| wrong("is no text"))?;
    let (scheme, value) = text
        .split_once(' ')
        .ok_or_else(|| wrong("names no scheme; expected Basic or Bearer"))?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(Credentials::Bearer(value.to_owned())));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(wrong("has an unknown scheme; expected Basic or Bearer"));
    }
    let pair = BASE64
        .decode(value)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let (user, password) = pair
        .as_deref()
        .and_then(|pair| pair.split_once(':'))
        .ok_or_else(|| wrong("is not base64 of `user:key`"))?;
    Ok(Some(Credentials::Basic {
        user: user.to_owned(),
        password: password.to_owned(),
    }))
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
    use http::HeaderValue;

    use super::*;

    fn read(values: &[&str]) -> Result<Option<Credentials>, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                header::AUTHORIZATION,
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        credentials(&headers).map_err(|refusal| refusal.0.message)
    }

    #[test]
    fn both_schemes_are_read_and_the_rest_is_refused() {
        assert!(read(&[]).unwrap().is_none());
        for padded in ["Basic amFuZTprOmV5", "basic amFuZTprOmV5", "BASIC  amFuZTprOmV5"] {
            let Some(Credentials::Basic { user, password }) = read(&[padded]).unwrap() else {
                panic!("{padded}");
            };
            assert_eq!((user.as_str(), password.as_str()), ("jane", "k:ey"));
        }
        assert!(matches!(read(&["bearer abc"]).unwrap(), Some(Credentials::Bearer(key)) if key == "abc"));
        for wrong in [
            "Basic",
            "Basic !!!",
            "Basic amFuZQ==",
            "Negotiate x",
            "",
            "Basic /w==",
            "Bearer",
            "Digest a=b",
        ] {
            assert!(read(&[wrong]).is_err(), "{wrong}");
        }
        assert!(read(&["Bearer a", "Bearer b"]).is_err());
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

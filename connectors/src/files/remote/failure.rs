//! What the failures of an object store mean.
//!
//! In: an error of a client of a store. Out: a [`Fault`] in words that are our own. The client's text is not passed on: it holds
//! URLs, which may hold signatures, and whatever the server wrote. Of an answer only the status and the code are told.

use std::error::Error as StdError;
use std::fmt;

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

use crate::ErrorKind;
use crate::files::fault::Fault;

/// What became of a request for an object.
pub(super) fn of_object(error: &Error) -> Fault {
    match (error, status_of(error)) {
        (Error::NotFound { .. }, _) | (_, Some(404)) => Fault::new(ErrorKind::Changed, "is gone; run the query again"),
        // A part beyond the end is asked for when the object became shorter.
        (Error::Precondition { .. }, _) | (_, Some(416)) => changed(),
        (Error::InvalidPath { .. }, _) => {
            Fault::new(ErrorKind::Unsupported, "has a name that cannot be read; rename it")
        }
        _ => other(error, "cannot be read"),
    }
}

/// What became of a request for a list of what is in `place`, such as "the bucket `lake`".
pub(super) fn of_listing(error: &Error, place: &str) -> Fault {
    match (error, status_of(error)) {
        (Error::NotFound { .. }, _) | (_, Some(404)) => {
            let code = code_of(error);
            Fault::new(ErrorKind::NotFound, format!("{place} does not exist{code}"))
        }
        (Error::InvalidPath { .. }, _) => {
            let message = format!(
                "{place} has an object whose key cannot be a path: one with an empty part, with `.` or with `..`; rename it, or \
                 name a folder without it in `relativePath`"
            );
            Fault::new(ErrorKind::Unsupported, message)
        }
        _ => other(error, &format!("{place} cannot be listed")),
    }
}

/// A fault inside an error of a store. Decoders pass some on as text only, so the text tells the kind.
#[derive(Debug)]
struct Told(Fault);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.kind.into_text(&self.0.message))
    }
}

impl StdError for Told {}

/// A fault as an error of a store.
pub(super) fn as_error(fault: Fault) -> Error {
    Error::Generic {
        store: "depot",
        source: Box::new(Told(fault)),
    }
}

/// The fault that became an error of a store.
pub(in crate::files) fn in_error(error: &Error) -> Option<Fault> {
    chain(error)
        .find_map(|error| error.downcast_ref::<Told>())
        .map(|told| told.0.clone())
}

/// The fault whose error became a part of a decoder's text.
pub(in crate::files) fn in_text(text: &str) -> Option<Fault> {
    let (_, text) = text.split_once("Generic depot error: ")?;
    let (kind, message) = ErrorKind::in_text(text)?;
    Some(Fault::new(kind, message))
}

/// The fault of an object that is not the one that was listed.
pub(super) fn changed() -> Fault {
    Fault::new(ErrorKind::Changed, "changed while the query ran; run it again")
}

fn other(error: &Error, what: &str) -> Fault {
    if let Some(fault) = in_error(error) {
        return fault;
    }
    let text = error.to_string();
    let tried = tried(&text);
    if let Some(error) = chain(error).find_map(|error| error.downcast_ref::<HttpError>()) {
        let message = format!("{what}: {}{tried}", transport(error));
        return Fault::new(ErrorKind::Unreachable, message);
    }
    let code = code_of(error);
    let status = match error {
        Error::PermissionDenied { .. } => Some(403),
        Error::Unauthenticated { .. } => Some(401),
        _ => status_of(error),
    };
    let (kind, reason) = match status {
        Some(401 | 403) => (ErrorKind::Denied, format!("access is denied{code}")),
        // What S3 says of temporary keys.
        Some(400) if matches!(code.as_str(), " (ExpiredToken)" | " (InvalidToken)") => {
            (ErrorKind::Denied, format!("access is denied{code}"))
        }
        Some(status @ 300..=399) => (
            ErrorKind::Settings,
            format!("the server answers {status}, which leads elsewhere; name the other address in the manifest"),
        ),
        Some(status @ 400..=499) => (ErrorKind::Settings, format!("the server answers {status}{code}")),
        Some(status) => (
            ErrorKind::Unreachable,
            format!("the server answers {status}{code}{tried}"),
        ),
        None if text.contains("redirect without LOCATION") => (
            ErrorKind::Settings,
            "the server sends elsewhere without saying where; check `region` and `endpoint`".to_owned(),
        ),
        None if matches!(error, Error::NotSupported { .. }) || text.contains("Received non-partial response") => (
            ErrorKind::Unsupported,
            "the server does not send parts of files (HTTP range requests), which reading needs".to_owned(),
        ),
        None => (ErrorKind::Unreachable, "the answer makes no sense".to_owned()),
    };
    Fault::new(kind, format!("{what}: {reason}"))
}

/// An error and what is inside it.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}

fn transport(error: &HttpError) -> String {
    let reason = match error.kind() {
        HttpErrorKind::Connect => "the server cannot be reached",
        HttpErrorKind::Timeout => "the server does not answer in time",
        HttpErrorKind::Interrupted => "the connection was closed amid an answer",
        HttpErrorKind::Decode => "the answer cannot be decoded",
        HttpErrorKind::Request | HttpErrorKind::Unknown | _ => "the connection failed",
    };
    format!("{reason}{}", os_reason(error))
}

/// What the operating system or TLS said at the bottom of an error.
fn os_reason(error: &HttpError) -> String {
    for error in chain(error) {
        let text = error.to_string();
        let is_os = error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.get_ref().is_none());
        // Of TLS and of names that are not known; neither text holds a URL.
        if is_os || text.starts_with("invalid peer certificate") || text.starts_with("failed to lookup address") {
            return format!(": {text}");
        }
    }
    String::new()
}

/// The status that a client's text tells. A URL holds no blank, so that nothing in front of it can look like one.
fn status_of(error: &Error) -> Option<u16> {
    let text = error.to_string();
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// How often a client's text says that it tried again.
fn tried(text: &str) -> String {
    let retries = text
        .split_once(", after ")
        .and_then(|(_, rest)| rest.split_once(" retries"))
        .and_then(|(count, _)| count.parse::<u32>().ok());
    match retries {
        Some(1) => ", after 1 retry".to_owned(),
        Some(count) => format!(", after {count} retries"),
        None => String::new(),
    }
}

fn code_of(error: &Error) -> String {
    let mut codes = chain(error).map(|error| code_in(&error.to_string()));
    codes.find(|code| !code.is_empty()).unwrap_or_default()
}

/// The code in the XML that stores answer errors with: ` (NoSuchBucket)`.
fn code_in(text: &str) -> String {
    let code = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"))
        .map(|(code, _)| code.trim());
    match code {
        Some(code) if !code.is_empty() && code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            format!(" ({code})")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Error {
        Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        }
    }

    #[test]
    fn status_and_code_are_told_and_nothing_else() {
        let url = "http://host/lake?sig=SECRET&status=404";
        let check = |answer: &str, kind: ErrorKind, message: &str| {
            let text = format!("Error performing GET {url} in 2s{answer}");
            let fault = of_listing(&generic(&text), "the bucket `lake`");
            assert_eq!((fault.kind, fault.message.as_str()), (kind, message), "{text}");
        };
        check(
            " - Server returned non-2xx status code: 403 Forbidden: <Error><Code>AccessDenied</Code><Message>SECRET</Message></Error>",
            ErrorKind::Denied,
            "the bucket `lake` cannot be listed: access is denied (AccessDenied)",
        );
        check(
            ", after 5 retries, max_retries: 5, retry_timeout: 60s  - Server returned non-2xx status code: 503 Service Unavailable: ",
            ErrorKind::Unreachable,
            "the bucket `lake` cannot be listed: the server answers 503, after 5 retries",
        );
        check(
            " - Server returned non-2xx status code: 404 Not Found: <Code>NoSuchBucket</Code>",
            ErrorKind::NotFound,
            "the bucket `lake` does not exist (NoSuchBucket)",
        );
        check(
            " - Server returned non-2xx status code: 400 Bad Request: <Code>SECRET in <b>a text</b></Code>",
            ErrorKind::Settings,
            "the bucket `lake` cannot be listed: the server answers 400",
        );
        check(
            "",
            ErrorKind::Unreachable,
            "the bucket `lake` cannot be listed: the answer makes no sense",
        );
    }

    #[test]
    fn a_fault_is_found_again_in_a_decoders_text() {
        for kind in [ErrorKind::Changed, ErrorKind::Denied, ErrorKind::Unreachable] {
            let fault = Fault::new(kind, "is: what it is");
            let error = as_error(fault.clone());
            assert_eq!(crate::files::fault::store_fault(&error), fault);
            let text = format!("Failed to fetch metadata for file x: Object Store error: {error}");
            assert_eq!(in_text(&text), Some(fault));
        }
        assert_eq!(in_text("Generic S3 error: x"), None);
    }

    #[test]
    fn an_object_that_is_gone_or_shorter_has_changed() {
        for status in ["404 Not Found", "416 Range Not Satisfiable"] {
            let text = format!("GET http://host/x - Server returned non-2xx status code: {status}: ");
            assert_eq!(of_object(&generic(&text)).kind, ErrorKind::Changed);
        }
        assert_eq!(
            of_object(&generic("no")).message,
            "cannot be read: the answer makes no sense"
        );
    }
}

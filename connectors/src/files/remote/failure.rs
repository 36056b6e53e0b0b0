//! What the failures of an object store mean.
//!
//! In: an error of a client of a store. Out: a [`Fault`] in words that are our own. The client's text is not passed on: it holds
//! URLs, which may hold signatures, and whatever the server wrote. Of an answer only the status and the code are told.

use std::error::Error as StdError;

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

use crate::ErrorKind;
use crate::files::fault::Fault;

/// What became of a request for an object.
pub(super) fn of_object(error: &Error) -> Fault {
    match error {
        Error::NotFound { .. } => Fault::new(ErrorKind::Changed, "is gone; run the query again"),
        Error::Precondition { .. } => changed(),
        Error::PermissionDenied { source, .. } | Error::Unauthenticated { source, .. } => {
            let code = code_of(source.as_ref());
            Fault::new(ErrorKind::Denied, format!("cannot be read: access is denied{code}"))
        }
        Error::InvalidPath { .. } => Fault::new(ErrorKind::Unsupported, "has a name that cannot be read; rename it"),
        // A part beyond the end is asked for when the object became shorter.
        Error::Generic { source, .. } if status_of(&source.to_string()) == Some(416) => changed(),
        Error::Generic { source, .. } => generic(source.as_ref(), "cannot be read"),
        _ => Fault::new(ErrorKind::Unreachable, "cannot be read"),
    }
}

/// What became of a request for a list of what is in `place`, such as "the bucket `lake`".
pub(super) fn of_listing(error: &Error, place: &str) -> Fault {
    match error {
        Error::NotFound { source, .. } => {
            let code = code_of(source.as_ref());
            Fault::new(ErrorKind::NotFound, format!("{place} does not exist{code}"))
        }
        Error::PermissionDenied { source, .. } | Error::Unauthenticated { source, .. } => {
            let code = code_of(source.as_ref());
            Fault::new(
                ErrorKind::Denied,
                format!("{place} cannot be listed: access is denied{code}"),
            )
        }
        Error::InvalidPath { .. } => {
            let message = format!(
                "{place} has an object whose key cannot be a path: one with an empty part, with `.` or with `..`; rename it, or \
                 name a folder without it in `relativePath`"
            );
            Fault::new(ErrorKind::Unsupported, message)
        }
        Error::Generic { source, .. } => generic(source.as_ref(), &format!("{place} cannot be listed")),
        _ => Fault::new(ErrorKind::Unreachable, format!("{place} cannot be listed")),
    }
}

/// The fault of an object that is not the one that was listed.
pub(super) fn changed() -> Fault {
    Fault::new(ErrorKind::Changed, "changed while the query ran; run it again")
}

fn generic(source: &(dyn StdError + 'static), what: &str) -> Fault {
    let mut found: Option<&(dyn StdError + 'static)> = Some(source);
    while let Some(error) = found {
        if let Some(fault) = error.downcast_ref::<Fault>() {
            return fault.clone();
        }
        if let Some(error) = error.downcast_ref::<HttpError>() {
            let fault = transport(error, what);
            return Fault::new(fault.kind, format!("{}{}", fault.message, tried(&source.to_string())));
        }
        found = error.source();
    }
    let text = source.to_string();
    if text.contains("Received non-partial response") {
        let message =
            format!("{what}: the server does not send parts of files (HTTP range requests), which reading needs");
        return Fault::new(ErrorKind::Unsupported, message);
    }
    if text.contains("redirect without LOCATION") {
        let message = format!("{what}: the server sends elsewhere without saying where; check `region` and `endpoint`");
        return Fault::new(ErrorKind::Settings, message);
    }
    match status_of(&text) {
        Some(status @ 300..=399) => {
            let message = format!(
                "{what}: the server answers {status}, which leads elsewhere; name the other address in the manifest"
            );
            Fault::new(ErrorKind::Settings, message)
        }
        Some(status @ 400..=499) => {
            let message = format!("{what}: the server answers {status}{}", code_in(&text));
            Fault::new(ErrorKind::Settings, message)
        }
        Some(status) => {
            let message = format!("{what}: the server answers {status}{}{}", code_in(&text), tried(&text));
            Fault::new(ErrorKind::Unreachable, message)
        }
        None => Fault::new(ErrorKind::Unreachable, format!("{what}: the answer makes no sense")),
    }
}

fn transport(error: &HttpError, what: &str) -> Fault {
    let reason = match error.kind() {
        HttpErrorKind::Connect => "the server cannot be reached",
        HttpErrorKind::Timeout => "the server does not answer in time",
        HttpErrorKind::Interrupted => "the connection was closed amid an answer",
        HttpErrorKind::Decode => "the answer cannot be decoded",
        HttpErrorKind::Request | HttpErrorKind::Unknown | _ => "the connection failed",
    };
    Fault::new(ErrorKind::Unreachable, format!("{what}: {reason}{}", os_reason(error)))
}

/// What the operating system or TLS said at the bottom of an error.
fn os_reason(error: &(dyn StdError + 'static)) -> String {
    let mut found: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = found {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.get_ref().is_none()
        {
            return format!(": {error}");
        }
        let text = error.to_string();
        // Of TLS and of names that are not known; neither text holds a URL.
        if text.starts_with("invalid peer certificate") || text.starts_with("failed to lookup address") {
            return format!(": {text}");
        }
        found = error.source();
    }
    String::new()
}

/// The status that a client's text tells. A URL holds no blank, so that nothing in front of it can look like one.
fn status_of(text: &str) -> Option<u16> {
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

fn code_of(error: &(dyn StdError + 'static)) -> String {
    let mut found: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = found {
        let code = code_in(&error.to_string());
        if !code.is_empty() {
            return code;
        }
        found = error.source();
    }
    String::new()
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

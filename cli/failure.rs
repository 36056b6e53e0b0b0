//! How a command fails: what is said on standard error, and the exit code.
//!
//! In: gRPC statuses with Minerva's headers, errors of files and pipes. Out: `error: CODE: message (line 1, column 15)`, a hint, the query's
//! id, and one of the documented exit codes. Deliberately absent: retries; a failure is final.

use std::{
    error::Error,
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use arrow_flight::error::FlightError;
use tonic::{Code, Status, metadata::MetadataMap};

use crate::output::OutputError;

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was typed cannot be done.
    Usage(String),
    /// The server cannot be reached, or does not accept who asks.
    Connect(String),
    /// The server refused or failed.
    Server(Box<ServerError>),
    /// Something failed on this side.
    Failed(String),
    /// The result could not be written.
    Output(OutputError),
    /// The user pressed Ctrl-C.
    Interrupted,
}

/// An error as the server tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerError {
    /// The stable code, `TABLE_NOT_FOUND`.
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// Line and column in the statement, from 1.
    pub(crate) position: Option<(u64, u64)>,
    pub(crate) query_id: Option<String>,
    /// The server does not accept who asks.
    pub(crate) unauthenticated: bool,
}

impl Failure {
    /// Says what went wrong on standard error; answers with the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if let Self::Output(error) = self
            && error.is_broken_pipe()
        {
            return ExitCode::SUCCESS;
        }
        // Nobody is left to tell when standard error is closed too.
        let _ = writeln!(io::stderr().lock(), "{self}");
        ExitCode::from(self.exit_code())
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Output(_) => 1,
            Self::Usage(_) => 2,
            Self::Connect(_) => 3,
            Self::Server(error) => {
                if error.unauthenticated {
                    3
                } else {
                    1
                }
            }
            Self::Interrupted => 130,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::Connect(message) | Self::Failed(message) => {
                write!(formatter, "error: {message}")
            }
            Self::Server(error) => write!(formatter, "error: {error}"),
            Self::Output(error) => write!(formatter, "error: cannot write the result: {error}"),
            Self::Interrupted => write!(formatter, "canceled"),
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code, self.message)?;
        if let Some((line, column)) = self.position {
            write!(formatter, " (line {line}, column {column})")?;
        }
        if let Some(hint) = &self.hint {
            write!(formatter, "\nhint: {hint}")?;
        }
        if let Some(query_id) = &self.query_id {
            write!(formatter, "\nquery id: {query_id}")?;
        }
        Ok(())
    }
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        Self::Output(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(OutputError::from(error))
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Server(Box::new(ServerError::from(&status)))
    }
}

impl From<FlightError> for Failure {
    fn from(error: FlightError) -> Self {
        match error {
            FlightError::Tonic(status) => Self::from(*status),
            other => Self::Failed(format!("the server's answer cannot be read: {other}")),
        }
    }
}

impl From<&Status> for ServerError {
    fn from(status: &Status) -> Self {
        let headers = status.metadata();
        let mut error = Self {
            code: header(headers, "minerva-error-code").unwrap_or_else(|| grpc_name(status.code())),
            message: message_of(status),
            hint: header(headers, "minerva-hint"),
            position: header(headers, "minerva-error-position")
                .as_deref()
                .and_then(parse_position),
            query_id: header(headers, "minerva-query-id"),
            unauthenticated: status.code() == Code::Unauthenticated,
        };
        error.say_nothing_twice();
        error
    }
}

impl ServerError {
    /// The server's message ends with hint, position and query for clients that show nothing else: `..; hint (line 1, column 15, query ID)`.
    fn say_nothing_twice(&mut self) {
        let position = self
            .position
            .map(|(line, column)| format!("line {line}, column {column}"));
        let query = self.query_id.as_ref().map(|query_id| format!("query {query_id}"));
        let places: Vec<String> = position.into_iter().chain(query).collect();
        if let Some(shorter) = self.message.strip_suffix(&format!(" ({})", places.join(", "))) {
            self.message.truncate(shorter.len());
        }
        if let Some(hint) = &self.hint
            && let Some(shorter) = self.message.strip_suffix(&format!("; {hint}"))
        {
            self.message.truncate(shorter.len());
        }
    }
}

/// The status' own message; a broken connection says why only in what caused it.
fn message_of(status: &Status) -> String {
    let mut message = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            if !message.is_empty() {
                message.push_str(": ");
            }
            message.push_str(&text);
        }
        cause = error.source();
    }
    if message.is_empty() {
        "the server gave no reason".to_owned()
    } else {
        message
    }
}

/// A header's text: plain, or as UTF-8 in its `-bin` twin where it is not ASCII.
fn header(headers: &MetadataMap, name: &str) -> Option<String> {
    if let Some(value) = headers.get(name) {
        return Some(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    let bytes = headers.get_bin(format!("{name}-bin"))?.to_bytes().ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads `LINE:COLUMN`.
fn parse_position(text: &str) -> Option<(u64, u64)> {
    let (line, column) = text.split_once([':', ','])?;
    Some((line.trim().parse().ok()?, column.trim().parse().ok()?))
}

/// `FailedPrecondition` as `FAILED_PRECONDITION`.
fn grpc_name(code: Code) -> String {
    let mut name = String::new();
    for character in format!("{code:?}").chars() {
        if character.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(character.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataValue;

    use super::*;

    #[test]
    fn a_server_error_tells_code_position_hint_and_query() {
        let message = "table `flights.none.fligts` does not exist; did you mean `flüge`? (line 1, column 15, query 20260705_091622_00074_jxce3)";
        let mut status = Status::not_found(message);
        let headers = status.metadata_mut();
        headers.insert("minerva-error-code", MetadataValue::from_static("TABLE_NOT_FOUND"));
        headers.insert("minerva-error-position", MetadataValue::from_static("1:15"));
        headers.insert_bin(
            "minerva-hint-bin",
            MetadataValue::from_bytes("did you mean `flüge`?".as_bytes()),
        );
        headers.insert(
            "minerva-query-id",
            MetadataValue::from_static("20260705_091622_00074_jxce3"),
        );
        let failure = Failure::from(status);
        assert_eq!(failure.exit_code(), 1);
        assert_eq!(
            failure.to_string(),
            "error: TABLE_NOT_FOUND: table `flights.none.fligts` does not exist (line 1, column 15)\n\
             hint: did you mean `flüge`?\nquery id: 20260705_091622_00074_jxce3"
        );
    }

    #[test]
    fn a_plain_status_tells_its_own_code() {
        assert_eq!(
            Failure::from(Status::failed_precondition("no")).to_string(),
            "error: FAILED_PRECONDITION: no"
        );
        let refused = Failure::from(Status::unauthenticated("wrong key"));
        assert_eq!(
            (refused.exit_code(), refused.to_string()),
            (3, "error: UNAUTHENTICATED: wrong key".to_owned())
        );
        assert_eq!(
            Failure::from(Status::ok("")).to_string(),
            "error: OK: the server gave no reason"
        );
    }
}

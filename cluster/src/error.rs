//! What can go wrong on the wire, in words a person can act on, and how a lost worker is recognised afterwards.
//!
//! In: errors of files, TLS, gRPC and of the stages a query runs. Out: [`Error`], and [`WorkerLost`] out of any
//! [`DataFusionError`] that carries one. It decides nothing: whether to retry is the coordinator's choice.

use std::error::Error as StdError;
use std::fmt;

use datafusion::error::DataFusionError;
use tonic::{Code, Status};
use url::Url;

/// An error of the wire itself: its secrets, its addresses, its refusals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The join token is missing, unreadable or malformed.
    Token(String),
    /// A certificate or key is missing, unreadable or malformed.
    Tls(String),
    /// An address cannot be used.
    Address(String),
    /// Memory or room for spill files cannot be had.
    Runtime(String),
    /// The other side did not answer.
    Unreachable {
        /// Who was called.
        url: String,
        /// Why no answer came.
        reason: String,
    },
    /// The other side answered and said no.
    Refused(String),
    /// The other side answered something that this version does not understand.
    Answer(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(message)
            | Self::Tls(message)
            | Self::Address(message)
            | Self::Runtime(message)
            | Self::Refused(message)
            | Self::Answer(message) => f.write_str(message),
            Self::Unreachable { url, reason } => write!(f, "no answer from `{url}`: {reason}"),
        }
    }
}

impl StdError for Error {}

impl Error {
    /// Whether trying again later may help: nobody answered, as opposed to somebody who said no.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Reads a gRPC status that came from (or on the way to) `url`.
    pub(crate) fn from_status(url: &Url, status: &Status) -> Self {
        match status.code() {
            Code::Unauthenticated => Self::Refused(format!("`{url}` refused the join token: {}", status.message())),
            Code::FailedPrecondition | Code::InvalidArgument | Code::PermissionDenied => {
                Self::Refused(status.message().to_owned())
            }
            Code::Unimplemented => Self::Refused(format!(
                "`{url}` is not the cluster port of a Minerva coordinator; use the address that its `cluster` line shows"
            )),
            _ => Self::Unreachable {
                url: url.to_string(),
                reason: reason_of(status),
            },
        }
    }
}

/// A worker that a running query needed and that could not be reached, or whose connection broke.
///
/// It travels as [`DataFusionError::External`]; over further hops only its text survives, which
/// [`WorkerLost::find`] also reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerLost {
    /// The worker's address as the members know it.
    pub url: String,
    /// What happened to the connection.
    pub reason: String,
}

const LOST: &str = "worker lost: `";

impl fmt::Display for WorkerLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LOST}{}`: {}", self.url, self.reason)
    }
}

impl StdError for WorkerLost {}

impl From<WorkerLost> for DataFusionError {
    fn from(lost: WorkerLost) -> Self {
        Self::External(Box::new(lost))
    }
}

impl WorkerLost {
    /// The lost worker inside `error`, however deeply it is wrapped and over however many workers it came.
    pub fn find(error: &DataFusionError) -> Option<Self> {
        let mut next: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(current) = next {
            if let Some(lost) = current.downcast_ref::<Self>() {
                return Some(lost.clone());
            }
            next = current.source();
        }
        Self::read(&error.to_string())
    }

    fn read(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once(LOST)?;
        let (url, reason) = rest.split_once("`: ")?;
        Some(Self {
            url: url.to_owned(),
            reason: reason.to_owned(),
        })
    }

    /// Names the worker in an error of its channel: a broken connection becomes [`WorkerLost`], the worker's own
    /// errors stay what they are.
    pub(crate) fn name(url: &Url, error: DataFusionError) -> DataFusionError {
        let DataFusionError::External(inner) = &error else {
            return match error {
                DataFusionError::Execution(text) if text.contains(NO_PLAN) => Self {
                    url: url.to_string(),
                    reason: "it never received its part of the plan".to_owned(),
                }
                .into(),
                other => other,
            };
        };
        let status = match inner.downcast_ref::<Status>() {
            Some(status) => status,
            None => return error,
        };
        match status.code() {
            Code::Unauthenticated => DataFusionError::External(Box::new(Error::from_status(url, status))),
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Aborted => Self {
                url: url.to_string(),
                reason: reason_of(status),
            }
            .into(),
            Code::Internal if status.source().is_some() || status.message().starts_with("h2 ") => Self {
                url: url.to_string(),
                reason: reason_of(status),
            }
            .into(),
            _ => DataFusionError::External(format!("worker `{url}`: {}", status.message()).into()),
        }
    }
}

/// What `datafusion-distributed` says when a task is asked for before its plan came (for ten seconds).
const NO_PLAN: &str = "while waiting for the plan";

/// The innermost reason of a transport failure, which tonic hides behind "transport error".
pub fn reason_of(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = match error.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => error.to_string(),
    };
    let mut next = error.source();
    while let Some(current) = next {
        innermost = current.to_string();
        next = current.source();
    }
    innermost
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn lost() -> WorkerLost {
        WorkerLost {
            url: "http://10.0.0.1:7440/".to_owned(),
            reason: "connection refused".to_owned(),
        }
    }

    #[test]
    fn a_lost_worker_is_found_under_every_wrapping_and_in_text() {
        let typed = DataFusionError::from(lost());
        assert_eq!(WorkerLost::find(&typed), Some(lost()));
        let shared = DataFusionError::Shared(Arc::new(typed)).context("stage 3");
        assert_eq!(WorkerLost::find(&shared), Some(lost()));
        let flattened = DataFusionError::Execution(lost().to_string());
        assert_eq!(WorkerLost::find(&flattened), Some(lost()));
        assert_eq!(
            WorkerLost::find(&DataFusionError::Execution("division by zero".to_owned())),
            None
        );
    }

    #[test]
    fn a_workers_own_error_keeps_its_kind() {
        let url = Url::parse("http://10.0.0.1:7440").unwrap();
        let own = WorkerLost::name(&url, DataFusionError::ResourcesExhausted("out of memory".to_owned()));
        assert!(matches!(own, DataFusionError::ResourcesExhausted(_)));
        let broken = WorkerLost::name(&url, DataFusionError::External(Box::new(Status::unavailable("gone"))));
        assert_eq!(WorkerLost::find(&broken).unwrap().url, "http://10.0.0.1:7440/");
        let refused = WorkerLost::name(&url, DataFusionError::External(Box::new(Status::unauthenticated("no"))));
        assert_eq!(WorkerLost::find(&refused), None);
    }
}

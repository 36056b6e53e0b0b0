//! Errors of the engine as gRPC statuses.
//!
//! In: a [`QueryError`], or a panic. Out: a [`Status`] with a gRPC code, a message that reads by itself, and the code, the query's id and
//! the position as metadata, for programs. Deliberately absent: the text of any error that the engine has not turned into its own.

use std::{any::Any, panic::AssertUnwindSafe};

use datafusion::error::DataFusionError;
use futures::{FutureExt, Stream, StreamExt};
use tonic::{
    Code as GrpcCode, Status,
    metadata::{MetadataMap, MetadataValue},
};

use crate::error::{Code, QueryError};

/// The metadata keys of an error.
pub(super) const CODE_KEY: &str = "minerva-error-code";
pub(super) const QUERY_ID_KEY: &str = "minerva-query-id";
pub(super) const POSITION_KEY: &str = "minerva-error-position";

/// The status that tells a client about an error.
pub(super) fn status_of(error: QueryError) -> Status {
    let mut metadata = MetadataMap::new();
    let mut put = |key: &'static str, value: &str| {
        if let Ok(value) = MetadataValue::try_from(value) {
            metadata.insert(key, value);
        }
    };
    put(CODE_KEY, error.code.as_str());
    if let Some(query_id) = &error.query_id {
        put(QUERY_ID_KEY, query_id);
    }
    if let Some((line, column)) = error.position {
        put(POSITION_KEY, &format!("{line}:{column}"));
    }
    Status::with_metadata(grpc_code(error.code), sentence(&error), metadata)
}

/// The status of an error inside a stream of batches.
pub(super) fn status_of_stream(error: DataFusionError) -> Status {
    status_of(QueryError::from(error))
}

/// A refusal of what the client asked for.
pub(super) fn invalid(message: impl Into<String>) -> Status {
    status_of(QueryError::new(Code::InvalidArgument, message))
}

/// A refusal of a feature.
pub(super) fn unsupported(message: impl Into<String>) -> Status {
    status_of(QueryError::new(Code::NotSupported, message))
}

/// A refusal of a handle that is unknown to the caller.
pub(super) fn unknown(message: impl Into<String>) -> Status {
    status_of(QueryError::new(Code::NotFound, message))
}

/// A refusal of a caller that has not proved who it is.
pub(super) fn unauthenticated(message: impl Into<String>) -> Status {
    status_of(QueryError::new(Code::InvalidCredentials, message))
}

/// A fault of Minerva: the detail goes to the log, the client learns only that it happened.
pub(super) fn internal(what: &str, detail: &dyn std::fmt::Display) -> Status {
    status_of(fault(what, detail))
}

/// The same as an error of the engine.
pub(super) fn fault(what: &str, detail: &dyn std::fmt::Display) -> QueryError {
    tracing::error!(%detail, "{what}");
    QueryError::new(
        Code::GenericInternalError,
        format!("{what}; the server's log says more"),
    )
}

/// Message, hint, position and query id in one line: many drivers show nothing else.
fn sentence(error: &QueryError) -> String {
    let mut text = error.message.clone();
    if let Some(hint) = &error.hint {
        text.push_str("; ");
        text.push_str(hint);
    }
    let position = error
        .position
        .map(|(line, column)| format!("line {line}, column {column}"));
    let query_id = error.query_id.as_ref().map(|id| format!("query {id}"));
    let place: Vec<String> = position.into_iter().chain(query_id).collect();
    if place.is_empty() {
        text
    } else {
        format!("{text} ({})", place.join(", "))
    }
}

/// The gRPC code of each of ours. Drivers act on some of them: only `Unavailable` may be tried again.
fn grpc_code(code: Code) -> GrpcCode {
    match code {
        Code::InvalidCredentials => GrpcCode::Unauthenticated,
        Code::PermissionDenied => GrpcCode::PermissionDenied,
        Code::CatalogNotFound | Code::SchemaNotFound | Code::TableNotFound | Code::NotFound => GrpcCode::NotFound,
        Code::TableAlreadyExists => GrpcCode::AlreadyExists,
        Code::NotSupported => GrpcCode::Unimplemented,
        Code::QueryCanceled => GrpcCode::Cancelled,
        Code::ExceededTimeLimit => GrpcCode::DeadlineExceeded,
        Code::ExceededMemoryLimit | Code::ExceededRowLimit | Code::InsufficientDisk | Code::QueryQueueFull => {
            GrpcCode::ResourceExhausted
        }
        Code::DepotUnreachable | Code::WorkerLost => GrpcCode::Unavailable,
        Code::TableChanged => GrpcCode::Aborted,
        Code::TransactionResolutionUnknown => GrpcCode::Unknown,
        Code::CorruptData => GrpcCode::DataLoss,
        Code::ConstraintViolation | Code::PolicyError => GrpcCode::FailedPrecondition,
        Code::GenericInternalError => GrpcCode::Internal,
        Code::DivisionByZero | Code::NumericValueOutOfRange => GrpcCode::OutOfRange,
        Code::AmbiguousName
        | Code::MissingCatalogName
        | Code::ColumnNotFound
        | Code::FunctionNotFound
        | Code::InvalidArgument
        | Code::InvalidCastArgument
        | Code::InvalidParameter
        | Code::SyntaxError
        | Code::TypeMismatch => GrpcCode::InvalidArgument,
    }
}

/// Runs a call; a panic becomes an error of this call alone.
pub(super) async fn guarded<T>(work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => Err(panicked(panic)),
    }
}

/// Passes a stream on; a panic becomes its last item.
pub(super) fn guarded_stream<T>(
    stream: impl Stream<Item = Result<T, Status>>,
) -> impl Stream<Item = Result<T, Status>> {
    AssertUnwindSafe(stream).catch_unwind().map(|item| match item {
        Ok(item) => item,
        Err(panic) => Err(panicked(panic)),
    })
}

fn panicked(panic: Box<dyn Any + Send>) -> Status {
    let text = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned());
    internal(
        "a Flight SQL call failed inside Minerva",
        &text.unwrap_or_else(|| "a panic without a message".to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    #[test]
    fn a_status_reads_by_itself_and_can_be_read_by_programs() {
        let error = QueryError::new(Code::TableNotFound, "table `flihts` does not exist")
            .with_hint("did you mean `flights`?")
            .with_position(Some((1, 15)))
            .with_query_id("20260705_091622_00074_jxce3");
        let status = status_of(error);
        assert_eq!(status.code(), GrpcCode::NotFound);
        assert_eq!(
            status.message(),
            "table `flihts` does not exist; did you mean `flights`? (line 1, column 15, query 20260705_091622_00074_jxce3)"
        );
        assert_eq!(status.metadata().get(CODE_KEY).unwrap(), "TABLE_NOT_FOUND");
        assert_eq!(
            status.metadata().get(QUERY_ID_KEY).unwrap(),
            "20260705_091622_00074_jxce3"
        );
        assert_eq!(status.metadata().get(POSITION_KEY).unwrap(), "1:15");
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error_that_tells_nothing() {
        let call = guarded::<()>(async { panic!("row 7 holds a secret") })
            .await
            .unwrap_err();
        assert_eq!(call.code(), GrpcCode::Internal);
        assert!(!call.message().contains("secret"));

        let items = futures::stream::iter([1, 2]).map(|item| if item == 2 { panic!("secret") } else { Ok(item) });
        let stream = std::pin::pin!(guarded_stream(items));
        let failed = stream.try_collect::<Vec<i32>>().await.unwrap_err();
        assert_eq!(failed.code(), GrpcCode::Internal);
    }
}

//! Answers: JSON, and the engine's errors as HTTP statuses.
//!
//! In: a document, or a [`QueryError`]. Out: a response that no cache keeps and no browser takes for a page.

use axum::{body::Body, response::IntoResponse};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::error::{Code, QueryError};

/// A response of this door.
pub(super) type Response = http::Response<Body>;

/// What a handler returns.
pub(super) type Answer = Result<Response, Refusal>;

/// An error on its way to the client.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) QueryError);

impl Refusal {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self(QueryError::new(code, message))
    }

    pub(super) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self(self.0.with_hint(hint))
    }
}

/// What a response that refuses something says of it to the audit.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) error: QueryError,
    /// The names that it was about, beyond those in the path.
    pub(super) about: String,
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let mut said = json!({ "code": error.code.as_str(), "message": error.message });
        if let (Some(said), Some(hint)) = (said.as_object_mut(), &error.hint) {
            said.insert("hint".to_owned(), Value::String(hint.clone()));
        }
        let mut response = json_with(status(error.code), &json!({ "error": said }));
        if error.code == Code::InvalidCredentials {
            let scheme = HeaderValue::from_static("Basic realm=\"Minerva\", charset=\"UTF-8\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        let about = String::new();
        response.extensions_mut().insert(Refused { error, about });
        response
    }
}

/// A document as a good answer.
pub(super) fn json_of(document: &Value) -> Response {
    json_with(StatusCode::OK, document)
}

/// A document with a status.
pub(super) fn json_with(status: StatusCode, document: &Value) -> Response {
    let mut response = Response::new(Body::from(format!("{document}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The status of each of our codes.
fn status(code: Code) -> StatusCode {
    match code {
        Code::InvalidCredentials => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::CatalogNotFound | Code::SchemaNotFound | Code::TableNotFound | Code::ColumnNotFound | Code::NotFound => {
            StatusCode::NOT_FOUND
        }
        Code::ConstraintViolation | Code::TableAlreadyExists | Code::TableChanged | Code::PolicyError => {
            StatusCode::CONFLICT
        }
        Code::NotSupported => StatusCode::NOT_IMPLEMENTED,
        Code::QueryQueueFull => StatusCode::TOO_MANY_REQUESTS,
        Code::DepotUnreachable | Code::WorkerLost | Code::InsufficientDisk => StatusCode::SERVICE_UNAVAILABLE,
        Code::TransactionResolutionUnknown => StatusCode::BAD_GATEWAY,
        Code::ExceededTimeLimit => StatusCode::GATEWAY_TIMEOUT,
        Code::GenericInternalError | Code::CorruptData => StatusCode::INTERNAL_SERVER_ERROR,
        Code::AmbiguousName
        | Code::MissingCatalogName
        | Code::DivisionByZero
        | Code::ExceededMemoryLimit
        | Code::ExceededRowLimit
        | Code::FunctionNotFound
        | Code::InvalidArgument
        | Code::InvalidCastArgument
        | Code::InvalidParameter
        | Code::NumericValueOutOfRange
        | Code::QueryCanceled
        | Code::SyntaxError
        | Code::TypeMismatch => StatusCode::BAD_REQUEST,
    }
}

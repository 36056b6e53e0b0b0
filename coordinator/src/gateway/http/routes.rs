//! Which path is answered by whom. A new group of paths is one file and its lines here.

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    middleware::from_fn_with_state,
    routing::{any, get, post},
};

use super::{
    answer::{Answer, Refusal},
    authorize, clusters, decision, health, queries, record,
};
use crate::{engine::Engine, error::Code};

/// Every path of this door.
pub(super) fn all(engine: Arc<Engine>) -> Router {
    Router::new()
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/heimdall/api/v1/authorize", post(authorize::authorize))
        .route("/gateway/api/v1/clusters", get(clusters::list))
        .route("/gateway/api/v1/query/audit", get(queries::audit))
        .route("/gateway/api/v1/query/{id}", get(queries::one))
        .route(
            "/gateway/api/v1/datapolicy/decision/{depot}/{collection}/{dataset}",
            get(decision::decide),
        )
        // Of those above, refusals are recorded.
        .route_layer(from_fn_with_state(Arc::clone(&engine), record::refusals))
        .route("/v1/statement", any(statement))
        .route("/v1/statement/{*rest}", any(statement))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(engine)
}

/// Trino's clients come here.
async fn statement() -> Answer {
    Err(Refusal::new(
        Code::NotSupported,
        "statements are not taken over HTTP: Trino's protocol is not served yet",
    )
    .with_hint("connect over Arrow Flight SQL, by default at port 7433"))
}

async fn unknown(request: Request) -> Answer {
    let path: String = request.uri().path().chars().take(200).collect();
    Err(Refusal::new(Code::NotFound, format!("there is nothing at `{path}`")))
}

async fn wrong_method(request: Request) -> Answer {
    let message = format!("`{}` is not possible here", request.method());
    Ok(super::answer::json_with(
        http::StatusCode::METHOD_NOT_ALLOWED,
        &serde_json::json!({ "error": { "code": Code::NotSupported.as_str(), "message": message } }),
    ))
}

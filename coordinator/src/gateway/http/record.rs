//! What callers were refused is recorded.
//!
//! In: a request on its way to its answer. Out: the answer, and a record in the audit when who asked is known and got a refusal. Who could not
//! prove who they are is recorded where that is found out.

use std::sync::{Arc, OnceLock};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::IntoResponse,
};
use http::Extensions;
use minerva_policy::Principal;

use super::{
    answer::{Refusal, Refused, Response},
    caller::client,
};
use crate::{
    audit::trace::{Trace, gathering},
    engine::Engine,
};

/// Where the one who asks is written down once that is known.
#[derive(Debug, Clone, Default)]
struct Asker(Arc<OnceLock<Arc<Principal>>>);

/// Says who makes a request.
pub(super) fn made_by(extensions: &Extensions, principal: &Arc<Principal>) {
    if let Some(Asker(asker)) = extensions.get() {
        // A request is made by one.
        let _ = asker.set(Arc::clone(principal));
    }
}

/// Answers a request and records a refusal.
pub(super) async fn refusals(State(engine): State<Arc<Engine>>, mut request: Request, next: Next) -> Response {
    let asker = Asker::default();
    request.extensions_mut().insert(asker.clone());
    let called = format!("{} {}", request.method(), request.uri().path());
    let (parts, body) = request.into_parts();
    let client = client(&parts);
    let trace = Arc::new(Trace::default());
    let answered = gathering(Arc::clone(&trace), next.run(Request::from_parts(parts, body))).await;
    let (Some(principal), Some(refused)) = (asker.0.get(), answered.extensions().get::<Refused>()) else {
        return answered;
    };
    let what = match refused.about.as_str() {
        "" => called,
        about => format!("{called} {about}"),
    };
    match engine.called(principal, &client, what, Some(&refused.error), trace.take()) {
        Ok(()) => answered,
        Err(error) => Refusal(error).into_response(),
    }
}

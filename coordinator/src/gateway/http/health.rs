//! `/health/live` and `/health/ready`: whether the process answers, and whether it can do its work.
//!
//! Anybody may ask; only operators are told numbers and reasons, and which tables are closed to whom and why.

use std::{sync::Arc, time::Duration};

use axum::extract::{FromRequestParts, Request, State};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    answer::{Answer, json_of, json_with},
    caller::{Caller, presented},
};
use crate::{engine::Engine, session::ClosedTables};

/// How long tables are looked at for one answer.
const LOOK_WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn live() -> Answer {
    Ok(json_of(&json!({ "status": "live" })))
}

/// 200 when statements can run, else 503.
pub(super) async fn ready(State(engine): State<Arc<Engine>>, request: Request) -> Answer {
    let (mut parts, _) = request.into_parts();
    let caller = match presented(&parts)? {
        Some(_) => Some(Caller::from_request_parts(&mut parts, &engine).await?),
        None => None,
    };
    let workers = engine.members.active().len();
    let audit = engine.audit.failure();
    let is_ready = workers > 0 && audit.is_none();
    let mut said = json!({
        "status": if is_ready { "ready" } else { "not ready" },
        "resources": "in force",
        "workers": if workers > 0 { "alive" } else { "none alive" },
        "audit": if audit.is_none() { "written" } else { "not written" },
    });
    let operator = caller.filter(|caller| caller.principal.is_operator());
    if let (Some(caller), Some(said)) = (operator, said.as_object_mut()) {
        let looked = caller.session.closed_tables(LOOK_WITHIN).await;
        let details = json!({
            "workers": workers,
            "resources_version": engine.snapshot().version().0,
            "refused_resources": engine.refused_resources(),
            "audit_failure": audit,
            "closed_tables": closed(&looked),
            "unreadable": looked
                .unreadable
                .iter()
                .map(|(name, why)| json!({ "name": name, "reason": why }))
                .collect::<Vec<_>>(),
            "looked_at_all_tables": looked.complete,
            "depots": depots(&engine),
        });
        said.insert("details".to_owned(), details);
    }
    Ok(match is_ready {
        true => json_of(&said),
        false => json_with(StatusCode::SERVICE_UNAVAILABLE, &said),
    })
}

/// Whether each depot can be reached, as far as it is known.
fn depots(engine: &Engine) -> Vec<Value> {
    let snapshot = engine.snapshot();
    let each = snapshot.set.depots().filter_map(|depot| {
        let health = engine.depots.health(depot.name())?;
        Some(json!({
            "name": depot.name(),
            "state": health.state.as_str(),
            "reason": health.failure.map(|failure| failure.to_string()),
        }))
    });
    each.collect()
}

fn closed(looked: &ClosedTables) -> Vec<Value> {
    let each = looked.closed.iter().map(|closed| {
        json!({
            "table": closed.address.to_string(),
            "users": closed.users,
            "reason": closed.reason,
            "policies": closed.policies,
        })
    });
    each.collect()
}

//! `POST /heimdall/api/v1/authorize`: may the holder of a token do this to that.
//!
//! In: `{"token", "predicate", "object": {"paths", "tags"}}`; predicate and object may stand inside `context`. Out: 200 when it is allowed, 403 when it
//! is not, 401 when the token is not valid. The token is its own proof: whoever holds it could do what is asked about, so that no other
//! credentials are needed to ask; without a token in the body the request's own credentials are asked about. A token alone asks who it is.

use std::sync::Arc;

use axum::{body::Body, extract::State};
use http::{Request, StatusCode};
use minerva_policy::Object;
use serde::Deserialize;
use serde_json::json;

use super::{
    answer::{Answer, Refusal, Refused, json_of, json_with},
    caller::{body, client, holder_of, identify, presented},
    record::made_by,
};
use crate::{
    engine::Engine,
    error::{Code, QueryError},
};

/// How many names an object may have.
const MOST_NAMES: usize = 1_000;
/// The longest predicate, path or tag.
const LONGEST_NAME: usize = 4_096;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    token: Option<String>,
    predicate: Option<String>,
    object: Option<Named>,
    context: Option<Context>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Context {
    predicate: String,
    object: Named,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    tags: Vec<String>,
}

/// What is asked about, if anything is.
fn asked(question: Question) -> Result<Option<(String, Object)>, Refusal> {
    let wrong = |why: &str| {
        Refusal::new(Code::InvalidArgument, why)
            .with_hint(r#"expected {"token": "..", "predicate": "select", "object": {"paths": [..], "tags": [..]}}"#)
    };
    let (predicate, object) = match (question.predicate, question.object, question.context) {
        (None, None, None) => return Ok(None),
        (Some(predicate), Some(object), None) => (predicate, object),
        (None, None, Some(context)) => (context.predicate, context.object),
        (Some(_), None, None) => return Err(wrong("there is a predicate and no object")),
        (None, Some(_), None) => return Err(wrong("there is an object and no predicate")),
        (_, _, Some(_)) => return Err(wrong("predicate and object stand either in `context` or beside it")),
    };
    let Named { paths, tags } = object;
    if paths.is_empty() && tags.is_empty() {
        return Err(wrong("the object has neither paths nor tags"));
    }
    if paths.len() + tags.len() > MOST_NAMES {
        return Err(wrong(&format!("the object has more than {MOST_NAMES} paths and tags")));
    }
    let is_no_name = |name: &String| name.is_empty() || name.len() > LONGEST_NAME;
    if paths.iter().chain(&tags).any(is_no_name) || is_no_name(&predicate) {
        return Err(wrong(&format!(
            "a predicate, path or tag is empty or longer than {LONGEST_NAME} bytes"
        )));
    }
    Ok(Some((predicate, Object { paths, tags })))
}

pub(super) async fn authorize(State(engine): State<Arc<Engine>>, request: Request<Body>) -> Answer {
    let (parts, sent) = request.into_parts();
    let sent = body(sent).await?;
    let question: Question = serde_json::from_slice(&sent).map_err(|error| {
        // The error may quote the body, which holds a token: only the place is told.
        let message = format!(
            "the body is not the JSON that was expected (line {}, column {})",
            error.line(),
            error.column()
        );
        Refusal::new(Code::InvalidArgument, message)
            .with_hint(r#"expected {"token": "..", "predicate": "select", "object": {"paths": [..], "tags": [..]}}"#)
    })?;
    let token = question.token.clone();
    let asked = asked(question)?;
    let shown = match token {
        Some(token) => Some(holder_of(token, &parts)),
        None => presented(&parts)?,
    };
    let shown = shown.ok_or_else(|| {
        Refusal::new(Code::InvalidArgument, "there is no `token`").with_hint("put the API key or token into the body")
    })?;
    let principal = match identify(&engine, &shown, &client(&parts)).await {
        Ok(principal) => principal,
        Err(Refusal(error)) if error.code == Code::InvalidCredentials => {
            let said = json!({ "allow": false, "valid": false, "error": error.message });
            return Ok(json_with(StatusCode::UNAUTHORIZED, &said));
        }
        Err(other) => return Err(other),
    };
    made_by(&parts.extensions, &principal);
    let rules = &engine.snapshot().rules;
    let denied = asked.filter(|(predicate, object)| !rules.decide_access(&principal, predicate, object).allowed);
    Ok(match denied {
        None => json_of(&json!({
            "allow": true,
            "result": { "id": principal.id, "tags": principal.tags },
            "valid": true,
        })),
        Some((predicate, object)) => {
            let mut response = json_with(
                StatusCode::FORBIDDEN,
                &json!({ "allow": false, "result": { "id": principal.id }, "valid": true }),
            );
            response
                .extensions_mut()
                .insert(refused(&principal.id, &predicate, &object));
            response
        }
    })
}

/// What the audit keeps of a denial.
fn refused(user: &str, predicate: &str, object: &Object) -> Refused {
    let names: Vec<&str> = object.paths.iter().chain(&object.tags).map(String::as_str).collect();
    let message = format!("user `{user}` may not do what was asked about");
    Refused {
        error: QueryError::new(Code::PermissionDenied, message),
        about: format!("{predicate} {}", names.join(" ")),
    }
}

//! `GET /gateway/api/v1/datapolicy/decision/{depot}/{collection}/{dataset}`: what the caller sees of a table.
//!
//! Which columns are masked by which kind of mask and policy, and which policies filter rows. What masks and filters hold (constants,
//! patterns, conditions), which policies lost and where they are written, is told to operators only. What the caller may not select does not exist.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use minerva_policy::{Explanation, Object, PolicyRef};
use minerva_resources::Address;
use serde_json::{Value, json};

use super::{
    answer::{Answer, Refusal, Refused, json_of},
    caller::{Caller, parameters},
};
use crate::{
    audit::{Owner, trace},
    engine::Engine,
    error::{Code, QueryError},
    system::sql_type,
};

pub(super) async fn decide(
    State(engine): State<Arc<Engine>>,
    Path((depot, collection, dataset)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    caller: Caller,
) -> Answer {
    let asked = parameters(query.as_deref(), &["predicate", "queryId"])?;
    let address = Address::new(depot, collection, dataset);
    let sees_all = caller.principal.is_operator();
    let query_id = asked.get("queryId");
    if let Some(id) = query_id {
        let owner = Owner::of(&caller.principal);
        if engine.audit.find(owner, id).await?.is_none() {
            return Err(Refusal::new(Code::NotFound, format!("query `{id}` is not known")));
        }
    }
    let explained = caller.session.own_decision(&address).await?;
    let predicate = asked.get("predicate").map_or("select", String::as_str);
    let allow = match predicate {
        "select" => explained.access.allowed,
        other => {
            let object = Object {
                paths: vec![address.to_string()],
                tags: Vec::new(),
            };
            let rules = &engine.snapshot().rules;
            let access = rules.decide_access(&caller.principal, other, &object);
            if !access.allowed {
                trace::written(&address, other.to_owned(), &access);
            }
            access.allowed
        }
    };
    let mut answer = json_of(&json!({
        "depot": address.depot,
        "collection": address.collection,
        "dataset": address.dataset,
        "user": caller.principal.id,
        "predicate": predicate,
        "queryId": query_id,
        "allow": allow,
        "closed": closed(&explained, sees_all),
        "columns": columns(&explained, sees_all),
        "filters": filters(&explained, sees_all),
    }));
    if !allow {
        let message = format!("user `{}` may not do what was asked about", caller.principal.id);
        answer.extensions_mut().insert(Refused {
            error: QueryError::new(Code::PermissionDenied, message),
            about: predicate.to_owned(),
        });
    }
    Ok(answer)
}

fn policy(because: &PolicyRef, definition: &str, sees_all: bool) -> Value {
    let mut said = json!({ "policyname": because.name, "priority": because.priority });
    if let (true, Some(said)) = (sees_all, said.as_object_mut()) {
        said.insert("definition".to_owned(), definition.into());
        said.insert("location".to_owned(), because.location.to_string().into());
    }
    said
}

/// The columns; those that do not exist for the caller are told to operators only, with the reason.
fn columns(explained: &Explanation, sees_all: bool) -> Vec<Value> {
    let known = explained
        .columns
        .iter()
        .filter(|column| sees_all || column.hidden.is_none());
    let each = known.map(|column| {
        let mask = column.winner.as_ref().map(|(definition, because)| {
            let mut said = policy(because, definition, sees_all);
            if let Some(said) = said.as_object_mut() {
                said.insert("operator".to_owned(), operator(definition).into());
            }
            said
        });
        let mut said = json!({ "name": column.path, "type": sql_type(&column.data_type), "mask": mask });
        if let (true, Some(said)) = (sees_all, said.as_object_mut()) {
            let outranked = column.outranked.iter().map(|lost| {
                let mut one = policy(&lost.because, &lost.mask, true);
                if let Some(one) = one.as_object_mut() {
                    one.insert("why".to_owned(), lost.why.clone().into());
                }
                one
            });
            said.insert("outranked".to_owned(), outranked.collect());
            said.insert("hidden".to_owned(), column.hidden.clone().into());
        }
        said
    });
    each.collect()
}

/// The kind of a mask: its description up to its parameters.
fn operator(definition: &str) -> &str {
    let end = definition.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    definition.get(..end.unwrap_or(definition.len())).unwrap_or_default()
}

fn filters(explained: &Explanation, sees_all: bool) -> Vec<Value> {
    let each = explained.filters.iter().map(|filter| {
        let definition = filter.sql.as_ref().unwrap_or(&filter.condition);
        policy(&filter.because, definition, sees_all)
    });
    each.collect()
}

fn closed(explained: &Explanation, sees_all: bool) -> Value {
    let Some(closed) = &explained.closed else {
        return Value::Null;
    };
    let policies: Vec<_> = closed.because.iter().map(|policy| policy.name.as_str()).collect();
    let reason = sees_all.then_some(closed.message.as_str());
    json!({ "policies": policies, "reason": reason })
}

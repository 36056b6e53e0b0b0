//! `GET /gateway/api/v1/query/audit` and `/gateway/api/v1/query/{id}`: the records of queries; one's own with what others
//! did in one's name, and for operators everybody's.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use serde_json::{Value, json};

use super::{
    answer::{Answer, Refusal, json_of},
    caller::{Caller, parameters},
};
use crate::{
    audit::{Owner, Wanted, moment},
    engine::Engine,
    error::Code,
};

/// How many records one answer has when nothing is said, and at most.
const USUAL: usize = 100;
const MOST: usize = 1_000;

/// One query: its record, and while it runs how far it is.
pub(super) async fn one(
    State(engine): State<Arc<Engine>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    caller: Caller,
) -> Answer {
    parameters(query.as_deref(), &[])?;
    let sees_all = caller.principal.is_operator();
    let record = engine.audit.find(Owner::of(&caller.principal), &id).await?;
    let record = record.ok_or_else(|| Refusal::new(Code::NotFound, format!("query `{id}` is not known")))?;
    let mut said = record.to_json(sees_all);
    if let (None, Some(progress), Some(said)) = (
        record.ended,
        engine.progress(&caller.principal, &id),
        said.as_object_mut(),
    ) {
        said.insert("state".to_owned(), progress.state.as_str().into());
        said.insert("elapsed_time_ms".to_owned(), progress.elapsed_ms.into());
        said.insert("output_rows".to_owned(), progress.output_rows.into());
        said.insert("output_bytes".to_owned(), progress.output_bytes.into());
    }
    Ok(json_of(&said))
}

/// Records, newest first. `next` of an answer leads to those that did not fit into it.
pub(super) async fn audit(State(engine): State<Arc<Engine>>, RawQuery(query): RawQuery, caller: Caller) -> Answer {
    let known = ["limit", "user", "state", "query_id", "after", "before", "next"];
    let mut asked = parameters(query.as_deref(), &known)?;
    let sees_all = caller.principal.is_operator();
    let limit = match asked.remove("limit") {
        None => USUAL,
        Some(text) => {
            let limit = text.parse().ok().filter(|limit| (1..=MOST).contains(limit));
            limit.ok_or_else(|| {
                Refusal::new(
                    Code::InvalidArgument,
                    format!("parameter `limit` is a whole number from 1 to {MOST}"),
                )
            })?
        }
    };
    let mut time = |name: &str| match asked.remove(name) {
        None => Ok(None),
        Some(text) => moment(&text).map(Some).ok_or_else(|| {
            Refusal::new(
                Code::InvalidArgument,
                format!("parameter `{name}` is no moment; expected one like `2026-07-05T09:16:22Z`"),
            )
        }),
    };
    let (after, before) = (time("after")?, time("before")?);
    let older_than = asked.remove("next");
    if let Some(cursor) = &older_than
        && engine.audit.find(Owner::of(&caller.principal), cursor).await?.is_none()
    {
        let message = format!(
            "parameter `next` is `{cursor}`, which leads nowhere: no answer gave it, or its record is not kept any more"
        );
        let refusal = Refusal::new(Code::InvalidArgument, message);
        return Err(refusal.with_hint("give the `next` of the answer before as it is, or leave it out to begin anew"));
    }
    let wanted = Wanted {
        owner: Owner::of(&caller.principal),
        user: asked.remove("user"),
        state: asked.remove("state"),
        query_id: asked.remove("query_id"),
        from: after.map(|after| after.saturating_add(1)),
        to: before.map(|before| before.saturating_sub(1)),
        older_than,
        limit: Some(limit),
    };
    let records = engine.audit.list(wanted).await?;
    let next = records.get(limit - 1).map(|last| last.query_id.clone());
    let records: Vec<Value> = records.iter().map(|record| record.to_json(sees_all)).collect();
    Ok(json_of(&json!({ "queries": records, "next": next })))
}

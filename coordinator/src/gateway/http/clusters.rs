//! `GET /gateway/api/v1/clusters`: the clusters that the caller may run queries on.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use minerva_resources::Limits;
use serde_json::{Value, json};

use super::{
    answer::{Answer, json_of},
    caller::{Caller, parameters},
};
use crate::engine::Engine;

pub(super) async fn list(State(engine): State<Arc<Engine>>, RawQuery(query): RawQuery, caller: Caller) -> Answer {
    parameters(query.as_deref(), &[])?;
    let snapshot = engine.snapshot();
    let served = &engine.config.cluster;
    let workers = engine.members.active().len();
    let mut clusters: Vec<Value> = snapshot
        .set
        .clusters()
        .filter(|cluster| {
            snapshot
                .rules
                .may_use_cluster(&caller.principal, &cluster.meta.name)
                .allowed
        })
        .map(|cluster| {
            let is_served = cluster.meta.name == *served;
            json!({
                "name": cluster.meta.name,
                "type": "minerva",
                "description": cluster.meta.description,
                "served_here": is_served,
                "workers": is_served.then_some(workers),
                "priority": cluster.selector.as_ref().map(|selector| selector.priority),
                "limits": limits(&cluster.limits),
            })
        })
        .collect();
    // A cluster without a manifest has no limits, and everybody may use it.
    if snapshot.set.cluster(served).is_none() {
        clusters.push(json!({
            "name": served, "type": "minerva", "description": "", "served_here": true, "workers": workers, "priority": null, "limits": {},
        }));
    }
    Ok(json_of(&json!({ "clusters": clusters })))
}

/// The limits that are set, under the names that manifests have for them.
fn limits(limits: &Limits) -> Value {
    let seconds = |limit: std::time::Duration| json!(limit.as_secs_f64());
    let all = [
        ("query.max-run-time", limits.max_run_time.map(seconds)),
        ("query.max-execution-time", limits.max_execution_time.map(seconds)),
        ("query.max-memory", limits.max_memory.map(|limit| json!(limit))),
        (
            "query.max-memory-per-node",
            limits.max_memory_per_node.map(|limit| json!(limit)),
        ),
        ("query.max-concurrent", limits.max_concurrent.map(|limit| json!(limit))),
        ("query.max-queued", limits.max_queued.map(|limit| json!(limit))),
        ("query.max-rows", limits.max_rows.map(|limit| json!(limit))),
    ];
    let set = all
        .into_iter()
        .filter_map(|(name, limit)| Some((name.to_owned(), limit?)));
    Value::Object(set.collect())
}

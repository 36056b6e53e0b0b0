//! EXPLAIN: the plan that would run, in its stages, and what each part did.
//!
//! In: a query and options. Out: one column `Query Plan`. What lies below a policy's barrier is shown to operators only: the rest sees
//! `GovernedScan` and the dataset's address, without filters, constants, counters or bounds.

use std::{sync::Arc, time::Duration};

use datafusion::{
    arrow::datatypes::{DataType, Field, Schema, SchemaRef},
    common::ScalarValue,
    physical_plan::{ExecutionPlan, display::DisplayableExecutionPlan},
    sql::sqlparser::ast::Query as QueryAst,
};
use datafusion_distributed::{DistributedMetricsFormat, display_plan_ascii};
use futures::TryStreamExt;
use minerva_cluster::{is_distributed, metrics_within};
use minerva_connectors::ScanExec;

use crate::{
    engine::Snapshot,
    error::{Code, QueryError, Result},
    parse::{ExplainFormat, ExplainKind, ExplainOptions},
    queries::Tracked,
    query::{Answer, Planned, plan},
    session::Session,
    streams::text_table,
};

const COLUMN: &str = "Query Plan";
/// How long EXPLAIN ANALYZE waits for the workers' counters.
const METRICS_WITHIN: Duration = Duration::from_secs(5);
const MISSING: &str = "the counters of some workers did not arrive within 5 s and are not shown";

/// The columns of an EXPLAIN.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(COLUMN, DataType::Utf8, false)]))
}

/// Plans, runs if asked to, and writes the plan.
pub(crate) async fn run(
    session: &Session,
    snapshot: &Snapshot,
    query: QueryAst,
    options: ExplainOptions,
    parameters: Vec<ScalarValue>,
    tracked: &Tracked,
) -> Result<Answer> {
    let planned = plan(session, snapshot, query, parameters).await?;
    let sees_all = session.principal().is_operator();
    let notes = notes(&planned, sees_all);
    let mut missing = None;
    let text = match options.kind {
        ExplainKind::Validate => "valid".to_owned(),
        ExplainKind::Logical => {
            let logical = if sees_all {
                planned.logical.clone()
            } else {
                minerva_policy::redact_logical_plan(planned.logical.clone())?
            };
            match options.format {
                ExplainFormat::Text => format!("{}\n{}", logical.display_indent(), section(&notes)),
                ExplainFormat::Graphviz => logical.display_graphviz().to_string(),
                ExplainFormat::Json => logical.display_pg_json().to_string(),
            }
        }
        ExplainKind::Distributed => {
            let physical = match options.analyze {
                true => {
                    let mut rows = planned.execute(session, snapshot, tracked)?;
                    tracked.running();
                    while let Some(batch) = rows.try_next().await? {
                        tracked.produced(batch.num_rows(), batch.get_array_memory_size());
                    }
                    let counted =
                        metrics_within(&planned.physical, DistributedMetricsFormat::Aggregated, METRICS_WITHIN).await?;
                    missing = counted.is_none().then_some(MISSING);
                    counted.unwrap_or(planned.physical)
                }
                false => planned.physical,
            };
            let physical = if sees_all {
                physical
            } else {
                minerva_policy::redact_plan(&physical)?
            };
            physical_text(&physical, options, missing, &notes)?
        }
    };
    let lines: Vec<String> = text.trim().lines().map(str::to_owned).collect();
    Ok(Answer::Table(text_table(COLUMN, &lines)?))
}

/// What is said about push-down beside the plan: what sources are expected to send, for operators, and what stayed here, and why.
fn notes(planned: &Planned, sees_all: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if sees_all {
        expected(&planned.physical, &mut notes);
    }
    notes.extend(planned.stayed.iter().map(|decision| decision.text(sees_all)));
    notes
}

/// How many rows each source is expected to send.
fn expected(plan: &Arc<dyn ExecutionPlan>, notes: &mut Vec<String>) {
    if let Some(leaf) = plan.downcast_ref::<ScanExec>() {
        let what = match &leaf.scan().query {
            Some(query) => format!("depot {}: {}", leaf.scan().address.depot, query.text(None, None)),
            None => leaf.scan().address.to_string(),
        };
        notes.extend(
            leaf.rows()
                .get_value()
                .map(|rows| format!("about {rows} rows from {what}")),
        );
    }
    plan.children().into_iter().for_each(|child| expected(child, notes));
}

/// The notes as lines below a plan.
fn section(notes: &[String]) -> String {
    if notes.is_empty() {
        return String::new();
    }
    let lines: Vec<String> = notes.iter().map(|note| format!("  {note}\n")).collect();
    format!("Push-down:\n{}", lines.concat())
}

/// The plan in the wanted format, with what is missing from it.
fn physical_text(
    plan: &Arc<dyn ExecutionPlan>,
    options: ExplainOptions,
    missing: Option<&'static str>,
    notes: &[String],
) -> Result<String> {
    let note = |mark: &str| missing.map_or_else(String::new, |missing| format!("{mark}{missing}\n"));
    match options.format {
        ExplainFormat::Text => Ok(note("") + text(plan, options.analyze).trim_end() + "\n" + &section(notes)),
        ExplainFormat::Graphviz => {
            Ok(note("// ") + &DisplayableExecutionPlan::new(plan.as_ref()).graphviz().to_string())
        }
        ExplainFormat::Json => {
            let mut document = match missing {
                Some(missing) => serde_json::json!({ "missing": missing, "plan": json(plan, options.analyze) }),
                None => json(plan, options.analyze),
            };
            if let (Some(document), false) = (document.as_object_mut(), notes.is_empty()) {
                document.insert("pushdown".to_owned(), notes.into());
            }
            serde_json::to_string_pretty(&document).map_err(|error| {
                QueryError::new(
                    Code::GenericInternalError,
                    format!("the plan cannot be written as JSON: {error}"),
                )
            })
        }
    }
}

/// A plan as indented text: in its stages when it has any.
fn text(plan: &Arc<dyn ExecutionPlan>, with_metrics: bool) -> String {
    if is_distributed(plan) {
        return display_plan_ascii(plan.as_ref(), with_metrics);
    }
    match with_metrics {
        true => DisplayableExecutionPlan::with_metrics(plan.as_ref())
            .indent(true)
            .to_string(),
        false => DisplayableExecutionPlan::new(plan.as_ref()).indent(true).to_string(),
    }
}

/// A plan as a document: what each part is, what it did, and its inputs.
fn json(plan: &Arc<dyn ExecutionPlan>, with_metrics: bool) -> serde_json::Value {
    let one_line = DisplayableExecutionPlan::new(plan.as_ref()).one_line().to_string();
    let children: Vec<serde_json::Value> = plan
        .children()
        .into_iter()
        .map(|child| json(child, with_metrics))
        .collect();
    let mut node = serde_json::json!({ "name": plan.name(), "details": one_line.trim(), "children": children });
    if let (true, Some(metrics), Some(map)) = (with_metrics, plan.metrics(), node.as_object_mut()) {
        let values: serde_json::Map<_, _> = metrics
            .aggregate_by_name()
            .iter()
            .map(|metric| (metric.value().name().to_owned(), metric.value().to_string().into()))
            .collect();
        map.insert("metrics".to_owned(), values.into());
    }
    node
}

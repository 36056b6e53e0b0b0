//! What the tests of this crate share: rules from YAML, principals, and running masks and filters over batches the
//! way a query does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_proto::bytes::Serializeable;
use minerva_resources::{Address, Problem, ResourceSet, load_bytes};

use crate::{Governance, Principal, Rules, Verdict, decide, mask_functions};

/// Allows everybody to read everything.
pub(crate) const EVERYTHING: &str = "
name: everything
version: v1
type: policy
policy:
  access:
    subjects: {tags: ['users:id:**']}
    predicates: [select]
    objects: {paths: ['dataos://**']}
    allow: true
";

/// A secret with a key.
pub(crate) const SECRET: &str = "
name: masking
version: v1
type: instance-secret
instance-secret:
  type: key-value-properties
  acl: r
  data: {key: a key of sixteen bytes}
";

pub(crate) fn resources(yaml: &str) -> ResourceSet {
    let loaded = load_bytes(Path::new("test.yaml"), yaml.as_bytes().to_vec(), &[]);
    loaded.unwrap_or_else(|problems| panic!("{problems}\n{yaml}"))
}

pub(crate) fn rules(yaml: &str) -> Rules {
    let compiled = Rules::compile(&resources(yaml));
    compiled.unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// What is wrong, be it found on reading or on compiling.
pub(crate) fn problems(yaml: &str) -> Vec<String> {
    let loaded = load_bytes(Path::new("test.yaml"), yaml.as_bytes().to_vec(), &[crate::check]);
    loaded
        .err()
        .map_or_else(Vec::new, |problems| problems.0.iter().map(Problem::to_string).collect())
}

/// Documents joined to one file.
pub(crate) fn documents(documents: &[&str]) -> String {
    documents.join("\n---\n")
}

/// A data policy of type mask: everybody unless `users` says otherwise.
pub(crate) fn mask_policy(name: &str, priority: u32, users: &str, columns: &str, mask: &str) -> String {
    format!(
        "
name: {name}
version: v1
type: policy
policy:
  data:
    type: mask
    priority: {priority}
    selector:
      user: {{tags: ['{users}']}}
      column: {columns}
    mask: {mask}
"
    )
}

/// A data policy of type filter for everybody.
pub(crate) fn filter_policy(name: &str, filters: &str) -> String {
    format!(
        "
name: {name}
version: v1
type: policy
policy:
  data:
    type: filter
    selector: {{user: {{tags: ['users:id:**']}}}}
    filters: {filters}
"
    )
}

/// A principal; `about` is its tags, and attributes as `name=value`.
pub(crate) fn person(id: &str, about: &[&str]) -> Principal {
    let (attributes, tags): (Vec<&str>, Vec<&str>) = about.iter().partition(|text| text.contains('='));
    let attributes: BTreeMap<_, _> = attributes
        .iter()
        .filter_map(|text| text.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Principal::new(id, tags.into_iter().map(str::to_owned), attributes)
}

pub(crate) fn table() -> Address {
    Address::new("crm", "public", "customer")
}

pub(crate) fn schema(columns: &[(&str, DataType)]) -> Schema {
    Schema::new(
        columns
            .iter()
            .map(|(name, data_type)| Field::new(*name, data_type.clone(), true))
            .collect::<Vec<_>>(),
    )
}

pub(crate) fn allowed(rules: &Rules, principal: &Principal, schema: &Schema) -> Governance {
    match decide(rules, principal, &table(), schema) {
        Verdict::Allow(governance) => governance,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn closed(rules: &Rules, principal: &Principal, schema: &Schema) -> String {
    match decide(rules, principal, &table(), schema) {
        Verdict::Closed(closed) => closed.to_string(),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn context(rules: &Rules) -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    for function in mask_functions(rules.keys()) {
        context.register_udf(function.as_ref().clone());
    }
    context
}

/// Runs what the governance says over a batch, through the optimizer; expressions make the journey to a worker.
pub(crate) async fn run(rules: &Rules, governance: &Governance, batch: &RecordBatch) -> Result<RecordBatch> {
    let context = context(rules);
    let travelled = |expr: Expr| Expr::from_bytes_with_ctx(&expr.to_bytes()?, &context.task_ctx());
    let mut frame = context.read_batch(batch.clone())?;
    if let Some(predicate) = governance.predicate() {
        frame = frame.filter(travelled(predicate)?)?;
    }
    let mut columns = vec![];
    for field in batch.schema().fields() {
        let column = Expr::Column(datafusion::common::Column::new_unqualified(field.name()));
        columns.push(match governance.masked(field.name(), column.clone()) {
            Some(masked) => travelled(masked)?.alias(field.name()),
            None => column,
        });
    }
    let frame = frame.select(columns)?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    Ok(concat_batches(&schema, &frame.collect().await?)?)
}

/// The values of an array as people read them.
pub(crate) fn shown(array: &ArrayRef) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let formatter = ArrayFormatter::try_new(array, &options).unwrap();
    (0..array.len()).map(|row| formatter.value(row).to_string()).collect()
}

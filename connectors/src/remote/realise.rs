//! Statements as leaves of plans.
//!
//! In: a statement that has grown. Out: the leaf that reads what it finds, below what governs its fences.

use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result, TableReference};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, cast};

use super::dialect::{Value, plain};
use super::escape::Escape;
use super::grow::{Grown, PushDown};
use super::node::RemoteRead;
use super::wanted::{Wanted, only_wanted};
use crate::Split;

impl PushDown<'_> {
    /// The leaf that reads what a statement finds, as those columns of a node's schema that are wanted; `None` when they are of other types.
    ///
    /// A statement with a fence has no way out: what runs here would need its barriers.
    pub(super) fn realised(
        &self,
        grown: &Grown,
        schema: &DFSchemaRef,
        escape: Option<Arc<Escape>>,
        wanted: &Wanted,
    ) -> Result<Option<LogicalPlan>> {
        let (grown, schema, escape) = only_wanted(grown, schema, escape, wanted)?;
        let outputs = &grown.select.outputs;
        let fields: Vec<(Option<TableReference>, Arc<Field>)> = schema
            .iter()
            .map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)))
            .collect();
        let fits = outputs.len() == fields.len()
            && !outputs.is_empty()
            && outputs
                .iter()
                .zip(&fields)
                .all(|(output, (_, field))| output.data_type == plain(field.data_type()));
        if !fits {
            return Ok(None);
        }
        let query = grown.select.query();
        let escape = escape.filter(|_| query.fences.is_empty());
        let read = |schema: DFSchemaRef| {
            let leaf = RemoteRead {
                splits: if query.divisible {
                    grown.splits.clone()
                } else {
                    vec![Split::Whole]
                },
                snapshots: grown.snapshots.clone().filter(|_| query.divisible),
                query: Arc::new(query.clone()),
                schema,
                rows: grown.select.estimate.rows as usize,
                escape: escape.clone(),
            };
            self.closed(leaf.into_plan(), &query.fences, || query.outside(None, None))
        };
        let sent_as = |output: &Value| grown.dialect.sent(&output.data_type);
        let same = outputs
            .iter()
            .zip(&fields)
            .all(|(output, (_, field))| sent_as(output) == *field.data_type());
        if same {
            return Ok(Some(read(schema)?));
        }
        // All texts come as one type, and numbers without a sign perhaps as others; the plan may want another.
        let sent = fields.iter().zip(outputs).map(|((qualifier, field), output)| {
            let field = Field::clone(field).with_data_type(sent_as(output));
            (qualifier.clone(), Arc::new(field))
        });
        let sent = DFSchema::new_with_metadata(sent.collect(), schema.metadata().clone())?;
        let columns = fields.iter().map(|(qualifier, field)| {
            let column = Expr::Column(Column::new(qualifier.clone(), field.name()));
            cast(column, field.data_type().clone()).alias_qualified(qualifier.clone(), field.name())
        });
        let columns = columns.collect();
        let projection = Projection::try_new(columns, Arc::new(read(Arc::new(sent))?))?;
        Ok(Some(LogicalPlan::Projection(projection)))
    }
}

//! The row filter as a check: nobody writes a row that they could not see afterwards.
//!
//! In: rows as they would be in the table, and what governs it for the writer. Out: nothing, or an error that says neither which row nor why.

use datafusion::{
    arrow::array::{Array, AsArray, RecordBatch},
    common::DFSchema,
    execution::SessionState,
    physical_plan::PhysicalExpr,
};
use minerva_policy::Governance;
use minerva_resources::Address;
use std::sync::Arc;

use crate::error::{Code, QueryError, Result};

/// The filters that rows of one table must pass.
#[derive(Debug, Clone)]
pub(super) struct Check {
    address: Address,
    predicate: Arc<dyn PhysicalExpr>,
}

impl Check {
    /// The check of a table whose rows have the schema of `rows`; `None` when the writer sees every row.
    pub(super) fn of(
        address: &Address,
        governance: &Governance,
        rows: &datafusion::arrow::datatypes::Schema,
        state: &SessionState,
    ) -> Result<Option<Self>> {
        let Some(predicate) = governance.predicate() else {
            return Ok(None);
        };
        let schema = DFSchema::try_from(rows.clone())?;
        let predicate = state.create_physical_expr(predicate, &schema)?;
        Ok(Some(Self {
            address: address.clone(),
            predicate,
        }))
    }

    /// Refuses a batch with a row that the writer would not see. What cannot be told counts as not seen.
    pub(super) fn expect_visible(&self, rows: &RecordBatch) -> Result<()> {
        let refused = || {
            let message = format!(
                "a row would be outside of what the row filter of `{}` lets you see; nothing was written",
                self.address
            );
            QueryError::new(Code::PermissionDenied, message)
        };
        let visible = self
            .predicate
            .evaluate(rows)
            .and_then(|value| value.into_array(rows.num_rows()));
        let visible = visible.map_err(|_| refused())?;
        let visible = visible.as_boolean_opt().ok_or_else(refused)?;
        match visible.true_count() == rows.num_rows() && visible.null_count() == 0 {
            true => Ok(()),
            false => Err(refused()),
        }
    }
}

//! `gateway.public.authentication_audit`: attempts to log in that failed, for operators. The same attempt within a minute is one row.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{Int64Array, RecordBatch, StringArray, TimestampMillisecondArray},
        datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    },
    catalog::TableProvider,
};

use super::{SystemTable, in_memory};
use crate::{
    catalog::{Catalog, GATEWAY},
    error::Result,
};

/// Attempts to log in that failed.
pub(super) struct AuthenticationAudit;

#[async_trait]
impl SystemTable for AuthenticationAudit {
    fn catalog_name(&self) -> &'static str {
        GATEWAY
    }

    fn schema_name(&self) -> &'static str {
        "public"
    }

    fn name(&self) -> &'static str {
        "authentication_audit"
    }

    fn columns(&self) -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        Arc::new(Schema::new(vec![
            Field::new(
                "minute",
                DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
                false,
            ),
            text("door"),
            text("client_address"),
            text("claimed_user"),
            text("error_code"),
            text("error_message"),
            Field::new("attempts", DataType::Int64, false),
        ]))
    }

    async fn table(&self, door: &Catalog<'_>, _catalog: &str) -> Result<Arc<dyn TableProvider>> {
        let session = door.session();
        // To others the table is empty: nobody has proved that the attempts were theirs.
        let attempts = match session.principal().is_operator() {
            true => session.engine().audit.attempts().await?,
            false => Vec::new(),
        };
        let minutes = attempts.iter().map(|(attempt, _)| attempt.minute);
        in_memory(RecordBatch::try_new(
            self.columns(),
            vec![
                Arc::new(TimestampMillisecondArray::from_iter_values(minutes).with_timezone("UTC")),
                Arc::new(StringArray::from_iter_values(
                    attempts.iter().map(|(attempt, _)| &attempt.door),
                )),
                Arc::new(StringArray::from_iter_values(
                    attempts.iter().map(|(attempt, _)| &attempt.client_address),
                )),
                Arc::new(StringArray::from_iter(
                    attempts.iter().map(|(attempt, _)| attempt.user.as_ref()),
                )),
                Arc::new(StringArray::from_iter_values(
                    attempts.iter().map(|(attempt, _)| &attempt.error_code),
                )),
                Arc::new(StringArray::from_iter_values(
                    attempts.iter().map(|(attempt, _)| &attempt.error_message),
                )),
                Arc::new(Int64Array::from_iter_values(attempts.iter().map(|(_, times)| *times))),
            ],
        )?)
    }
}

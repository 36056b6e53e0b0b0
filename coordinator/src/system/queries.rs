//! `system.runtime.queries`: queries running and past; one's own with what others did in one's name, and for operators everybody's.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::{
    arrow::{
        array::{Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt64Array},
        datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    },
    catalog::TableProvider,
};

use super::{SystemTable, in_memory};
use crate::{
    audit::{Owner, redacted},
    catalog::Catalog,
    error::Result,
    queries::Record,
};

/// The queries of this coordinator.
pub(super) struct Queries;

#[async_trait]
impl SystemTable for Queries {
    fn schema_name(&self) -> &'static str {
        "runtime"
    }

    fn name(&self) -> &'static str {
        "queries"
    }

    fn columns(&self) -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        let number = |name: &str| Field::new(name, DataType::Int64, false);
        let moment = |name: &str| {
            Field::new(
                name,
                DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
                true,
            )
        };
        let count = |name: &str| Field::new(name, DataType::UInt64, false);
        Arc::new(Schema::new(vec![
            text("query_id"),
            text("state"),
            text("user"),
            text("source"),
            text("door"),
            text("client_address"),
            text("query"),
            text("tables"),
            number("queued_time_ms"),
            number("analysis_time_ms"),
            number("elapsed_time_ms"),
            moment("created"),
            moment("end"),
            count("output_rows"),
            count("output_bytes"),
            text("error_code"),
            text("error_message"),
            text("impersonator"),
        ]))
    }

    async fn table(&self, door: &Catalog<'_>, _catalog: &str) -> Result<Arc<dyn TableProvider>> {
        let principal = door.session().principal();
        let records = door.session().engine().queries.list(Owner::of(principal).as_ref());
        let reader = Owner::themselves(principal);
        let is_own = |record: &Record| reader.owns(&record.user, record.impersonator.as_deref());
        let redacts = door.session().engine().audit.redacts();
        let text =
            |value: &dyn Fn(&Record) -> Option<String>| Arc::new(StringArray::from_iter(records.iter().map(value)));
        let moment = |value: &dyn Fn(&Record) -> Option<DateTime<Utc>>| {
            let millis = records
                .iter()
                .map(|record| value(record).map(|moment| moment.timestamp_millis()));
            Arc::new(TimestampMillisecondArray::from_iter(millis).with_timezone("UTC"))
        };
        let millis = |value: &dyn Fn(&Record) -> Duration| {
            Arc::new(Int64Array::from_iter_values(
                records
                    .iter()
                    .map(|record| i64::try_from(value(record).as_millis()).unwrap_or(i64::MAX)),
            ))
        };
        in_memory(RecordBatch::try_new(
            self.columns(),
            vec![
                text(&|record| Some(record.id.clone())),
                text(&|record| Some(record.state.as_str().to_owned())),
                text(&|record| Some(record.user.clone())),
                text(&|record| record.source.clone()),
                text(&|record| Some(record.door.to_owned())),
                text(&|record| Some(record.address.clone())),
                text(&|record| Some(query_text(record, redacts && !is_own(record)))),
                text(&|record| Some(record.tables.join(", "))),
                millis(&|record| record.queued),
                millis(&|record| record.planning),
                millis(&|record| record.elapsed),
                moment(&|record| Some(record.created)),
                moment(&|record| record.ended),
                Arc::new(UInt64Array::from_iter_values(records.iter().map(|record| record.rows))),
                Arc::new(UInt64Array::from_iter_values(records.iter().map(|record| record.bytes))),
                text(&|record| record.error.as_ref().map(|error| error.code.as_str().to_owned())),
                text(&|record| {
                    let error = record.error.as_ref()?;
                    Some(match redacts && !is_own(record) {
                        true => "(redacted)".to_owned(),
                        false => error.message.clone(),
                    })
                }),
                text(&|record| record.impersonator.clone()),
            ],
        )?)
    }
}

/// The statement as it may be shown: its values are its owner's, where the audit was told to leave them out.
fn query_text(record: &Record, redacts: bool) -> String {
    match redacts {
        true => redacted(&record.sql),
        false => record.sql.clone(),
    }
}

//! `system.metadata.depots`: the depots that the user may see, and whether they can be reached.
//!
//! A failure may name a dataset of somebody else's query, and a number of datasets tells of those that one may not see: both are for operators. Others
//! are told a fixed sentence for each kind of failure.

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{RecordBatch, StringArray, TimestampMillisecondArray, UInt32Array, UInt64Array},
        datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    },
    catalog::TableProvider,
};
use minerva_connectors::DepotHealth;

use super::{SystemTable, in_memory};
use crate::{catalog::Catalog, error::Result};

/// The depots of this coordinator.
pub(super) struct DepotStates;

/// What is shown of one depot.
struct Row {
    name: String,
    depot_type: String,
    health: Option<DepotHealth>,
    listed: Option<(SystemTime, u64)>,
}

#[async_trait]
impl SystemTable for DepotStates {
    fn schema_name(&self) -> &'static str {
        "metadata"
    }

    fn name(&self) -> &'static str {
        "depots"
    }

    fn columns(&self) -> SchemaRef {
        let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
        let moment = |name: &str| {
            Field::new(
                name,
                DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
                true,
            )
        };
        Arc::new(Schema::new(vec![
            text("depot", false),
            text("type", false),
            text("state", false),
            text("reason", true),
            moment("since"),
            moment("last_checked"),
            Field::new("failures", DataType::UInt32, false),
            moment("retry_at"),
            moment("listed_at"),
            Field::new("listed_datasets", DataType::UInt64, true),
        ]))
    }

    async fn table(&self, door: &Catalog<'_>, _catalog: &str) -> Result<Arc<dyn TableProvider>> {
        let engine = door.session().engine();
        let is_operator = door.session().principal().is_operator();
        let rows: Vec<Row> = door
            .depots()
            .map(|depot| Row {
                name: depot.name().to_owned(),
                depot_type: depot.depot_type.clone(),
                health: engine.depots.health(depot.name()),
                listed: engine.metadata.listed(depot.name()),
            })
            .collect();
        let moments = |of: &dyn Fn(&Row) -> Option<SystemTime>| {
            let millis = rows.iter().map(|row| {
                let since_1970 = of(row)?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
                i64::try_from(since_1970.as_millis()).ok()
            });
            Arc::new(TimestampMillisecondArray::from_iter(millis).with_timezone("UTC"))
        };
        let reason = |row: &Row| {
            let health = row.health.as_ref()?;
            match (&health.failure, is_operator) {
                (Some(failure), true) => Some(failure.to_string()),
                _ => health.reason.map(str::to_owned),
            }
        };
        let state = |row: &Row| row.health.as_ref().map_or("Unknown", |health| health.state.as_str());
        let failures = |row: &Row| row.health.as_ref().map_or(0, |health| health.failures);
        let datasets = |row: &Row| row.listed.map(|(_, datasets)| datasets).filter(|_| is_operator);
        in_memory(RecordBatch::try_new(
            self.columns(),
            vec![
                Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.name))),
                Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.depot_type))),
                Arc::new(StringArray::from_iter_values(rows.iter().map(state))),
                Arc::new(StringArray::from_iter(rows.iter().map(reason))),
                moments(&|row| row.health.as_ref().map(|health| health.since)),
                moments(&|row| row.health.as_ref()?.last_checked),
                Arc::new(UInt32Array::from_iter_values(rows.iter().map(failures))),
                moments(&|row| row.health.as_ref()?.retry_at),
                moments(&|row| row.listed.map(|(at, _)| at)),
                Arc::new(UInt64Array::from_iter(rows.iter().map(datasets))),
            ],
        )?)
    }
}

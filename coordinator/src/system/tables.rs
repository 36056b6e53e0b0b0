//! `information_schema.tables`: the tables of a catalog.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{RecordBatch, StringArray},
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    catalog::TableProvider,
};

use super::{
    SystemTable,
    filtered::{self, Listing},
};
use crate::{
    catalog::{Catalog, INFORMATION_SCHEMA, TableRequest},
    error::Result,
};

/// The tables that the user may see.
pub(super) struct Tables;

#[async_trait]
impl SystemTable for Tables {
    fn schema_name(&self) -> &'static str {
        INFORMATION_SCHEMA
    }

    fn name(&self) -> &'static str {
        "tables"
    }

    fn columns(&self) -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, false);
        Arc::new(Schema::new(vec![
            text("table_catalog"),
            text("table_schema"),
            text("table_name"),
            text("table_type"),
        ]))
    }

    async fn table(&self, door: &Catalog<'_>, catalog: &str) -> Result<Arc<dyn TableProvider>> {
        filtered::table(&Tables, door, catalog).await
    }
}

#[async_trait]
impl Listing for Tables {
    async fn rows(&self, door: &Catalog<'_>, request: &TableRequest) -> Result<RecordBatch> {
        let tables = door.tables(request).await?;
        // The standard knows base tables and views; the engine's own tables are base tables there, as in Trino.
        let kinds = tables
            .iter()
            .map(|table| if table.kind == "VIEW" { "VIEW" } else { "BASE TABLE" });
        Ok(RecordBatch::try_new(
            self.columns(),
            vec![
                Arc::new(StringArray::from_iter_values(tables.iter().map(|table| &table.catalog))),
                Arc::new(StringArray::from_iter_values(tables.iter().map(|table| &table.schema))),
                Arc::new(StringArray::from_iter_values(tables.iter().map(|table| &table.name))),
                Arc::new(StringArray::from_iter_values(kinds)),
            ],
        )?)
    }
}

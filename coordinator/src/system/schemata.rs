//! `information_schema.schemata`: the schemas of a catalog.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{RecordBatch, StringArray},
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    catalog::TableProvider,
};

use super::{SystemTable, in_memory};
use crate::{
    catalog::{Catalog, INFORMATION_SCHEMA},
    error::Result,
};

/// The schemas that the user may see.
pub(super) struct Schemata;

#[async_trait]
impl SystemTable for Schemata {
    fn schema_name(&self) -> &'static str {
        INFORMATION_SCHEMA
    }

    fn name(&self) -> &'static str {
        "schemata"
    }

    fn columns(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("catalog_name", DataType::Utf8, false),
            Field::new("schema_name", DataType::Utf8, false),
        ]))
    }

    async fn table(&self, door: &Catalog<'_>, catalog: &str) -> Result<Arc<dyn TableProvider>> {
        let schemas = door.schemas(Some(catalog)).await?;
        in_memory(RecordBatch::try_new(
            self.columns(),
            vec![
                Arc::new(StringArray::from_iter_values(
                    schemas.iter().map(|(catalog, _)| catalog),
                )),
                Arc::new(StringArray::from_iter_values(schemas.iter().map(|(_, schema)| schema))),
            ],
        )?)
    }
}

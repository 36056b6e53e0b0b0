//! `information_schema.columns`: the columns of a catalog's tables.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{Int64Array, RecordBatch, StringArray},
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    catalog::TableProvider,
};

use super::{
    SystemTable,
    filtered::{self, Listing},
    sql_type,
};
use crate::{
    catalog::{Catalog, INFORMATION_SCHEMA, TableRequest},
    error::Result,
};

/// The columns that the user may see.
pub(super) struct Columns;

#[async_trait]
impl SystemTable for Columns {
    fn schema_name(&self) -> &'static str {
        INFORMATION_SCHEMA
    }

    fn name(&self) -> &'static str {
        "columns"
    }

    fn columns(&self) -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, false);
        Arc::new(Schema::new(vec![
            text("table_catalog"),
            text("table_schema"),
            text("table_name"),
            text("column_name"),
            Field::new("ordinal_position", DataType::Int64, false),
            text("is_nullable"),
            text("data_type"),
        ]))
    }

    async fn table(&self, door: &Catalog<'_>, catalog: &str) -> Result<Arc<dyn TableProvider>> {
        filtered::table(&Columns, door, catalog).await
    }
}

#[async_trait]
impl Listing for Columns {
    async fn rows(&self, door: &Catalog<'_>, request: &TableRequest) -> Result<RecordBatch> {
        let request = TableRequest {
            with_schema: true,
            ..request.clone()
        };
        let (mut names, mut positions): ([Vec<String>; 6], Vec<i64>) = Default::default();
        for table in door.tables(&request).await? {
            let Some(columns) = &table.arrow else { continue };
            for (position, field) in (1..).zip(columns.fields()) {
                let nullable = if field.is_nullable() { "YES" } else { "NO" };
                let row = [&table.catalog, &table.schema, &table.name, field.name()].map(Clone::clone);
                let row = row
                    .into_iter()
                    .chain([nullable.to_owned(), sql_type(field.data_type())]);
                names.iter_mut().zip(row).for_each(|(values, value)| values.push(value));
                positions.push(position);
            }
        }
        let [catalogs, schemas, tables, columns, nullables, types] =
            names.map(|values| Arc::new(StringArray::from(values)));
        Ok(RecordBatch::try_new(
            self.columns(),
            vec![
                catalogs,
                schemas,
                tables,
                columns,
                Arc::new(Int64Array::from(positions)),
                nullables,
                types,
            ],
        )?)
    }
}

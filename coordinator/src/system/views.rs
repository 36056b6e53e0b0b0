//! `information_schema.views`: the views of a catalog, whose they are, and to their owner and to operators what they say.
//!
//! A view's text names tables that its reader may not know of, so that others are not shown it.

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

/// The views that the user may see.
pub(super) struct Views;

#[async_trait]
impl SystemTable for Views {
    fn schema_name(&self) -> &'static str {
        INFORMATION_SCHEMA
    }

    fn name(&self) -> &'static str {
        "views"
    }

    fn columns(&self) -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, false);
        Arc::new(Schema::new(vec![
            text("table_catalog"),
            text("table_schema"),
            text("table_name"),
            Field::new("view_definition", DataType::Utf8, true),
            text("view_owner"),
        ]))
    }

    async fn table(&self, door: &Catalog<'_>, catalog: &str) -> Result<Arc<dyn TableProvider>> {
        let principal = door.session().principal();
        let views = door.session().engine().views();
        let visible = door.visible_views(catalog);
        let owner = |address| views.owner(address).unwrap_or_default();
        let definitions = visible.iter().map(|address| {
            let is_shown = principal.is_operator() || owner(address) == principal.id;
            let definition = views.get(address).filter(|_| is_shown);
            definition.map(|definition| definition.query.clone())
        });
        in_memory(RecordBatch::try_new(
            self.columns(),
            vec![
                Arc::new(StringArray::from_iter_values(
                    visible.iter().map(|address| &address.depot),
                )),
                Arc::new(StringArray::from_iter_values(
                    visible.iter().map(|address| &address.collection),
                )),
                Arc::new(StringArray::from_iter_values(
                    visible.iter().map(|address| &address.dataset),
                )),
                Arc::new(StringArray::from_iter(definitions)),
                Arc::new(StringArray::from_iter_values(visible.iter().map(owner))),
            ],
        )?)
    }
}

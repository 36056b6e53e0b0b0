//! `system.runtime.nodes`: the coordinator and its workers.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{BooleanArray, RecordBatch, StringArray},
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    catalog::TableProvider,
};

use super::{SystemTable, in_memory};
use crate::{catalog::Catalog, error::Result};

/// The nodes of this cluster.
pub(super) struct Nodes;

#[async_trait]
impl SystemTable for Nodes {
    fn schema_name(&self) -> &'static str {
        "runtime"
    }

    fn name(&self) -> &'static str {
        "nodes"
    }

    fn columns(&self) -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, false);
        Arc::new(Schema::new(vec![
            text("node_id"),
            text("http_uri"),
            text("node_version"),
            Field::new("coordinator", DataType::Boolean, false),
            text("state"),
        ]))
    }

    async fn table(&self, door: &Catalog<'_>, _catalog: &str) -> Result<Arc<dyn TableProvider>> {
        let nodes = door.session().engine().members.nodes();
        in_memory(RecordBatch::try_new(
            self.columns(),
            vec![
                Arc::new(StringArray::from_iter_values(nodes.iter().map(|node| &node.node_id))),
                Arc::new(StringArray::from_iter_values(
                    nodes.iter().map(|node| node.url.as_str()),
                )),
                Arc::new(StringArray::from_iter_values(nodes.iter().map(|node| &node.version))),
                Arc::new(BooleanArray::from_iter(nodes.iter().map(|node| Some(node.coordinator)))),
                Arc::new(StringArray::from_iter_values(
                    nodes.iter().map(|node| node.state.as_str()),
                )),
            ],
        )?)
    }
}

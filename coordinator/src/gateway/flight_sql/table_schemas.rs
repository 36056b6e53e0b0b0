//! The schemas of tables as messages, written once.
//!
//! In: a table's name and columns as its reader may see them. Out: the bytes of the schema message with the metadata that drivers ask for. Writing
//! them is most of the work of listing thousands of tables, and what is written depends on nothing but the name and the columns: what was written
//! for the same is given again.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use arrow::{
    datatypes::{Schema, SchemaRef},
    error::ArrowError,
    ipc::writer::IpcWriteOptions,
};
use arrow_flight::{IpcMessage, SchemaAsIpc};
use bytes::Bytes;

use super::types::described;
use crate::catalog::TableEntry;

/// How many bytes of messages are kept.
const KEPT_BYTES: usize = 64 << 20;

/// The messages that were written.
#[derive(Debug, Default)]
pub(super) struct TableSchemas(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    size: usize,
    messages: HashMap<[String; 3], (SchemaRef, Bytes)>,
}

impl TableSchemas {
    /// The message of a table; one without columns when they are not known.
    pub(super) fn message(&self, table: &TableEntry) -> Result<Bytes, ArrowError> {
        let Some(columns) = &table.arrow else {
            return written(&Schema::empty());
        };
        let key = [&table.catalog, &table.schema, &table.name].map(Clone::clone);
        if let Some((_, message)) = self.kept().messages.get(&key).filter(|(known, _)| known == columns) {
            return Ok(message.clone());
        }
        let message = written(&described(columns, &table.catalog, &table.schema, &table.name))?;
        let mut kept = self.kept();
        if kept.size + message.len() > KEPT_BYTES {
            *kept = Kept::default();
        }
        kept.size += message.len();
        let before = kept.messages.insert(key, (SchemaRef::clone(columns), message.clone()));
        kept.size -= before.map_or(0, |(_, message)| message.len());
        Ok(message)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn written(schema: &Schema) -> Result<Bytes, ArrowError> {
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        datatypes::{DataType, Field},
        ipc::convert::try_schema_from_ipc_buffer,
    };

    use super::*;

    fn table(name: &str, columns: &[&str]) -> TableEntry {
        let fields: Vec<Field> = columns
            .iter()
            .map(|name| Field::new(*name, DataType::Int64, true))
            .collect();
        TableEntry {
            catalog: "crm".to_owned(),
            schema: "public".to_owned(),
            name: name.to_owned(),
            kind: "BASE TABLE",
            arrow: Some(Arc::new(Schema::new(fields))),
            description: String::new(),
        }
    }

    #[test]
    fn a_message_is_that_of_the_columns_of_now() {
        let schemas = TableSchemas::default();
        let read = |table: &TableEntry| {
            let schema = try_schema_from_ipc_buffer(&schemas.message(table).unwrap()).unwrap();
            assert!(
                schema
                    .fields()
                    .iter()
                    .all(|field| field.metadata()["ARROW:FLIGHT:SQL:TABLE_NAME"] == table.name)
            );
            schema
                .fields()
                .iter()
                .map(|field| field.name().clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(read(&table("t", &["a"])), ["a"]);
        assert_eq!(read(&table("t", &["a"])), ["a"]);
        assert_eq!(read(&table("u", &["a"])), ["a"]);
        assert_eq!(read(&table("t", &["a", "b"])), ["a", "b"]);
        let kept = schemas.kept();
        assert_eq!(kept.messages.len(), 2);
        assert_eq!(
            kept.size,
            kept.messages.values().map(|(_, message)| message.len()).sum::<usize>()
        );
    }
}

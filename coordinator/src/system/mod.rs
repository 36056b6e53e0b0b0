//! The tables of the engine itself: `system.runtime.*`, `gateway.public.*`, and each catalog's `information_schema`.
//!
//! In: a name and who asks. Out: a table made of what that user may see, at the moment of asking. A new table is one file and one line in
//! [`SYSTEM_TABLES`]. Deliberately absent: anything of a depot's data.

mod authentication_audit;
mod columns;
mod depots;
mod filtered;
mod nodes;
mod queries;
mod query_audit;
mod schemata;
mod tables;
mod types;
mod views;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    catalog::TableProvider,
    datasource::MemTable,
    physical_plan::ExecutionPlan,
};

use crate::{
    catalog::{Catalog, GATEWAY, INFORMATION_SCHEMA, SYSTEM},
    error::Result,
};

pub use types::sql_type;

/// One table of the engine.
#[async_trait]
pub(crate) trait SystemTable: Send + Sync {
    /// The schema it is in; `information_schema` means the one of every catalog.
    fn schema_name(&self) -> &'static str;

    /// Its name.
    fn name(&self) -> &'static str;

    /// Its columns.
    fn columns(&self) -> SchemaRef;

    /// The catalog it is in; one of the information schema is in every catalog.
    fn catalog_name(&self) -> &'static str {
        SYSTEM
    }

    /// The table with what may be seen by who asks. `catalog` is the catalog whose information schema is read.
    async fn table(&self, door: &Catalog<'_>, catalog: &str) -> Result<Arc<dyn TableProvider>>;
}

/// A table of a few rows that are known already.
fn in_memory(rows: RecordBatch) -> Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]])?))
}

/// Whether a leaf of a plan reads what the engine itself keeps, for who asked.
pub(crate) fn is_own_leaf(leaf: &dyn ExecutionPlan) -> bool {
    leaf.is::<query_audit::AuditExec>()
}

/// Every table of the engine, by schema and name.
const SYSTEM_TABLES: &[&dyn SystemTable] = &[
    &columns::Columns,
    &schemata::Schemata,
    &tables::Tables,
    &views::Views,
    &depots::DepotStates,
    &nodes::Nodes,
    &queries::Queries,
    &query_audit::QueryAudit,
    &authentication_audit::AuthenticationAudit,
];

/// The catalogs of the engine itself.
pub(crate) fn catalogs() -> impl Iterator<Item = &'static str> {
    [GATEWAY, SYSTEM].into_iter()
}

/// Whether a catalog is the engine's own.
pub(crate) fn owns(catalog: &str) -> bool {
    catalogs().any(|own| own == catalog)
}

/// The schemas of a catalog of the engine's own, besides its information schema.
pub(crate) fn schemas(catalog: &str) -> Vec<&'static str> {
    let mut names: Vec<_> = SYSTEM_TABLES
        .iter()
        .filter(|table| table.catalog_name() == catalog)
        .map(|table| table.schema_name())
        .filter(|name| *name != INFORMATION_SCHEMA)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn is_in(table: &dyn SystemTable, catalog: &str) -> bool {
    catalog == table.catalog_name() || table.schema_name() == INFORMATION_SCHEMA
}

/// The engine's tables in a catalog: schema, name, columns.
pub(crate) fn tables_of(catalog: &str) -> Vec<(&'static str, &'static str, SchemaRef)> {
    let inside = SYSTEM_TABLES.iter().filter(|table| is_in(**table, catalog));
    inside
        .map(|table| (table.schema_name(), table.name(), table.columns()))
        .collect()
}

/// A table of the engine with the rows that the asking user may see.
pub(crate) async fn open(
    door: &Catalog<'_>,
    catalog: &str,
    schema: &str,
    name: &str,
) -> Result<Option<Arc<dyn TableProvider>>> {
    let found = SYSTEM_TABLES
        .iter()
        .find(|table| is_in(**table, catalog) && table.schema_name() == schema && table.name() == name);
    let Some(table) = found else { return Ok(None) };
    Ok(Some(table.table(door, catalog).await?))
}

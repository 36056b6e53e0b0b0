//! What may not be selected is as what is not there: the same text, the same code, the same work.
//!
//! In: a name. Out: what is told of it, which for a denied table is what is told of a missing one. A depot is never asked about a table that may not be selected.

use std::collections::BTreeSet;

use datafusion::error::DataFusionError;
use minerva_policy::{AccessDecision, Explanation};
use minerva_resources::Address;

use super::{Catalog, TableRequest};
use crate::{
    audit::trace,
    error::{Code, QueryError, Result},
};

/// A name that nobody gives to a dataset or collection.
const NO_SUCH_NAME: &str = "no-such-name-90f1c4";

impl Catalog<'_> {
    /// Does for a table that may not be selected what is done for one that is not there: the same work, and the same failures. What a depot says
    /// of the table itself is never asked for.
    pub(super) async fn look_for_nothing(&self, address: &Address) -> Result<()> {
        let depot = &address.depot;
        let Some(sees_collection) = self.sees_place(address) else {
            return Ok(());
        };
        let collection = match sees_collection {
            true => address.collection.as_str(),
            false => NO_SUCH_NAME,
        };
        let failed = DataFusionError::from;
        let source = self.engine.depots.open(depot).await.map_err(failed)?;
        let state = self.snapshot.templates.unnamed();
        source.dataset(collection, NO_SUCH_NAME, state).await.map_err(failed)?;
        Ok(())
    }

    /// Whether the user may know of the collection, if they may know of its depot. It is asked about what is denied to find where to look for nothing, and
    /// about what is missing so that it takes as long.
    pub(super) fn sees_place(&self, address: &Address) -> Option<bool> {
        let rules = &self.snapshot.rules;
        let depot = &address.depot;
        let sees_depot = self.snapshot.set.depot(depot).is_some() && rules.may_see_depot(self.principal, depot);
        sees_depot.then(|| rules.may_see_collection(self.principal, depot, &address.collection))
    }

    /// What the principal sees of a table and why; what they may not select is answered as what does not exist.
    pub(crate) async fn own_decision(&self, address: &Address) -> Result<Explanation> {
        let is_there = self.snapshot.set.depot(&address.depot).is_some();
        let access = self.snapshot.rules.may_select(self.principal, address);
        // What is allowed is noted once it is found: the user reads the note, and must not tell a missing table from a denied one by it.
        let note = |access: &AccessDecision| trace::note(|traced| traced.named(address, access));
        if !access.allowed {
            note(&access);
        }
        match is_there && access.allowed {
            true => match self.explain(self.principal, address).await {
                Err(error) if error.code == Code::TableNotFound => {}
                // Every column of it is denied.
                Ok(explained) if !explained.access.allowed => note(&explained.access),
                explained => {
                    explained.iter().for_each(|explained| note(&explained.access));
                    return explained;
                }
            },
            false => self.look_for_nothing(address).await?,
        }
        Err(self
            .not_found(&address.depot, &address.collection, &address.dataset)
            .await)
    }

    /// "Not found", with the nearest name that the user may see.
    pub(super) async fn not_found(&self, catalog: &str, schema: &str, table: &str) -> QueryError {
        trace::absent(&Address::new(catalog, schema, table));
        let catalogs = self.catalogs();
        if !catalogs.iter().any(|known| known == catalog) {
            return QueryError::new(Code::CatalogNotFound, format!("catalog `{catalog}` does not exist"))
                .suggest(catalog, catalogs.iter().map(String::as_str));
        }
        let error = QueryError::new(
            Code::TableNotFound,
            format!("table `{catalog}.{schema}.{table}` does not exist"),
        );
        let request = TableRequest {
            catalog: Some(catalog.to_owned()),
            ..TableRequest::default()
        };
        let Ok(tables) = self.tables(&request).await else {
            return error;
        };
        let same_schema: Vec<&str> = tables
            .iter()
            .filter(|entry| entry.schema == schema)
            .map(|entry| entry.name.as_str())
            .collect();
        if same_schema.is_empty() {
            let schemas: BTreeSet<&str> = tables.iter().map(|entry| entry.schema.as_str()).collect();
            return error.suggest(schema, schemas);
        }
        error.suggest(table, same_schema)
    }
}

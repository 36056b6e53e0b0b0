//! What a user may see of the catalogue: catalogs, schemas, tables, and whether a name is among them.
//!
//! In: a request. Out: names that the user may select, and nothing of others. Deliberately absent: opening a table, which only the door does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use datafusion::{arrow::datatypes::SchemaRef, datasource::empty::EmptyTable, error::DataFusionError};
use minerva_resources::Address;

use super::{Catalog, INFORMATION_SCHEMA, TableEntry, TableRequest};
use crate::{
    error::{Code, QueryError, Result},
    system,
};

impl Catalog<'_> {
    pub(crate) async fn expect_catalog(&self, name: &str) -> Result<()> {
        let catalogs = self.catalogs();
        match catalogs.iter().any(|known| known == name) {
            true => Ok(()),
            false => {
                let error = QueryError::new(Code::CatalogNotFound, format!("catalog `{name}` does not exist"));
                Err(error.suggest(name, catalogs.iter().map(String::as_str)))
            }
        }
    }

    pub(crate) async fn expect_schema(&self, catalog: Option<&str>, name: &str) -> Result<()> {
        let Some(catalog) = catalog else {
            return Err(QueryError::new(
                Code::MissingCatalogName,
                format!("schema `{name}` needs a catalog, and the session has none"),
            )
            .with_hint("USE catalog.schema"));
        };
        let schemas = self.schemas(Some(catalog)).await?;
        match schemas.iter().any(|(_, schema)| schema == name) {
            true => Ok(()),
            false => {
                let error = QueryError::new(
                    Code::SchemaNotFound,
                    format!("schema `{catalog}.{name}` does not exist"),
                );
                Err(error.suggest(name, schemas.iter().map(|(_, schema)| schema.as_str())))
            }
        }
    }

    /// The catalogs that the user may see, `system` among them.
    pub(crate) fn catalogs(&self) -> Vec<String> {
        let visible = self
            .snapshot
            .set
            .depots()
            .filter(|depot| self.snapshot.rules.may_see_depot(self.principal, &depot.meta.name));
        let mut names: Vec<String> = visible.map(|depot| depot.meta.name.clone()).collect();
        names.extend(system::catalogs().map(str::to_owned));
        names.sort();
        names
    }

    /// The schemas of one catalog or of all. A depot that cannot be reached is an error only when it is named.
    pub(crate) async fn schemas(&self, catalog: Option<&str>) -> Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        for name in self
            .catalogs()
            .into_iter()
            .filter(|name| catalog.is_none_or(|wanted| wanted == name))
        {
            found.push((name.clone(), INFORMATION_SCHEMA.to_owned()));
            if system::owns(&name) {
                found.extend(
                    system::schemas(&name)
                        .into_iter()
                        .map(|schema| (name.clone(), schema.to_owned())),
                );
                continue;
            }
            match self.visible_tables(&name).await {
                Ok(tables) => {
                    let views = self.visible_views(&name).into_iter();
                    let tables = tables.into_iter().chain(views);
                    let schemas: BTreeSet<String> = tables.map(|address| address.collection).collect();
                    found.extend(schemas.into_iter().map(|schema| (name.clone(), schema)));
                }
                Err(error) if catalog.is_some() => return Err(error),
                Err(error) => tracing::warn!(depot = name, %error, "left out of a listing"),
            }
        }
        found.sort();
        Ok(found)
    }

    /// The views of a depot that the user may select.
    pub(crate) fn visible_views(&self, depot: &str) -> Vec<Address> {
        let views = self.engine.views();
        let may_select = |address: &&Address| self.snapshot.rules.may_select(self.principal, address).allowed;
        views.of_depot(depot).filter(may_select).cloned().collect()
    }

    /// The datasets of a depot that the user may select.
    async fn visible_tables(&self, depot: &str) -> Result<Vec<Address>> {
        let source = self
            .engine
            .depots
            .open(depot)
            .await
            .map_err(datafusion::error::DataFusionError::from)?;
        let mut found = Vec::new();
        for collection in source
            .collections()
            .await
            .map_err(datafusion::error::DataFusionError::from)?
        {
            if !self
                .snapshot
                .rules
                .may_see_collection(self.principal, depot, &collection)
            {
                continue;
            }
            for dataset in source
                .datasets(&collection)
                .await
                .map_err(datafusion::error::DataFusionError::from)?
            {
                let address = Address::new(depot, &collection, dataset);
                if self.snapshot.rules.may_select(self.principal, &address).allowed {
                    found.push(address);
                }
            }
        }
        Ok(found)
    }

    /// The tables that the user may see.
    pub(crate) async fn tables(&self, request: &TableRequest) -> Result<Vec<TableEntry>> {
        let wanted = |kind: &str| {
            request.kinds.is_empty()
                || request
                    .kinds
                    .iter()
                    .any(|known| known == kind || (known == "TABLE" && kind == "BASE TABLE"))
        };
        let schema_matches = |schema: &str| {
            request
                .schema_pattern
                .as_deref()
                .is_none_or(|pattern| like(pattern, schema))
        };
        let table_matches = |table: &str| {
            request
                .table_pattern
                .as_deref()
                .is_none_or(|pattern| like(pattern, table))
        };
        let mut found = Vec::new();
        for catalog in self
            .catalogs()
            .into_iter()
            .filter(|name| request.catalog.as_ref().is_none_or(|wanted| wanted == name))
        {
            if wanted("SYSTEM TABLE") {
                for (schema, name, arrow) in system::tables_of(&catalog) {
                    if schema_matches(schema) && table_matches(name) {
                        let arrow = request.with_schema.then_some(arrow);
                        let description = String::new();
                        let (schema, name) = (schema.to_owned(), name.to_owned());
                        found.push(TableEntry {
                            catalog: catalog.clone(),
                            schema,
                            name,
                            kind: "SYSTEM TABLE",
                            arrow,
                            description,
                        });
                    }
                }
            }
            if system::owns(&catalog) {
                continue;
            }
            let views = self.visible_views(&catalog);
            if wanted("VIEW") {
                let matching =
                    |address: &&Address| schema_matches(&address.collection) && table_matches(&address.dataset);
                for address in views.iter().filter(matching) {
                    found.push(self.view_entry(address, request.with_schema).await);
                }
            }
            if !wanted("BASE TABLE") {
                continue;
            }
            let visible = match self.visible_tables(&catalog).await {
                Ok(visible) => visible,
                Err(error) if request.catalog.is_some() => return Err(error),
                Err(error) => {
                    tracing::warn!(depot = catalog, %error, "left out of a listing");
                    continue;
                }
            };
            let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
            // A name that both have means the view.
            for address in visible.into_iter().filter(|address| !views.contains(address)) {
                if schema_matches(&address.collection) && table_matches(&address.dataset) {
                    named.entry(address.collection).or_default().push(address.dataset);
                }
            }
            for (schema, names) in named {
                found.extend(self.entries(&catalog, &schema, names, request.with_schema).await);
            }
        }
        found.sort_by(|a, b| (&a.catalog, &a.schema, &a.name).cmp(&(&b.catalog, &b.schema, &b.name)));
        Ok(found)
    }

    async fn view_entry(&self, address: &Address, with_schema: bool) -> TableEntry {
        let arrow = match with_schema {
            false => None,
            true => self.view_columns(address).await.unwrap_or_else(|error| {
                tracing::warn!(%address, %error, "listed without columns");
                None
            }),
        };
        let described = self.snapshot.set.dataset(address);
        TableEntry {
            catalog: address.depot.clone(),
            schema: address.collection.clone(),
            name: address.dataset.clone(),
            kind: "VIEW",
            arrow,
            description: described.map(|dataset| dataset.description.clone()).unwrap_or_default(),
        }
    }

    /// The lines of a collection. A table that cannot be read is listed without columns, so that one broken file does not hide the others.
    async fn entries(&self, depot: &str, collection: &str, names: Vec<String>, with_schema: bool) -> Vec<TableEntry> {
        let mut columns = match with_schema {
            true => self.columns(depot, collection, &names).await,
            false => Vec::new(),
        }
        .into_iter();
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            let address = Address::new(depot, collection, &name);
            let arrow = match columns.next() {
                None => None,
                Some(Ok(Some(arrow))) => Some(arrow),
                Some(Ok(None)) => continue,
                Some(Err(error)) => {
                    tracing::warn!(%address, %error, "listed without columns");
                    None
                }
            };
            let described = self.snapshot.set.dataset(&address);
            found.push(TableEntry {
                catalog: address.depot,
                schema: address.collection,
                name,
                kind: "BASE TABLE",
                arrow,
                description: described.map(|dataset| dataset.description.clone()).unwrap_or_default(),
            });
        }
        found
    }

    /// The columns of some tables as the user sees them; `None` for what is not there or may not be known. Each is decided by itself, and the
    /// depot is asked for all of them at once.
    async fn columns(&self, depot: &str, collection: &str, names: &[String]) -> Vec<Result<Option<SchemaRef>>> {
        let failed = |error: minerva_connectors::Error| {
            let each = names.iter().map(|_| Err(DataFusionError::from(error.clone()).into()));
            each.collect()
        };
        let state = self.session.state(self.snapshot, false);
        let source = match self.engine.depots.open(depot).await {
            Ok(source) => source,
            Err(error) => return failed(error),
        };
        let found = match source.columns(collection, names, &state).await {
            Ok(found) => found,
            Err(error) => return failed(error),
        };
        let governed = names.iter().zip(found).map(|(name, raw)| {
            let Some(raw) = raw.map_err(DataFusionError::from)? else {
                return Ok(None);
            };
            let table = self.govern(&Address::new(depot, collection, name), Arc::new(EmptyTable::new(raw)))?;
            Ok(table.map(|(table, _)| table.schema()))
        });
        governed.collect()
    }
}

/// SQL's LIKE with `%`, `_` and the escape `\`, as drivers use it for names.
pub(crate) fn like(pattern: &str, text: &str) -> bool {
    fn go(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            (['%', rest @ ..], _) => {
                (0..=text.len()).any(|skipped| text.get(skipped..).is_some_and(|tail| go(rest, tail)))
            }
            (['\\', escaped, rest @ ..], [first, tail @ ..]) => escaped == first && go(rest, tail),
            (['_', rest @ ..], [_, tail @ ..]) => go(rest, tail),
            ([wanted, rest @ ..], [first, tail @ ..]) => wanted == first && go(rest, tail),
            _ => false,
        }
    }
    // A run of `%` means the same as one; without it the search stays short for every pattern that a person writes.
    let mut letters: Vec<char> = Vec::with_capacity(pattern.len());
    for letter in pattern.chars() {
        if !(letter == '%' && letters.last() == Some(&'%')) {
            letters.push(letter);
        }
    }
    go(&letters, &text.chars().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn like_is_sqls() {
        for (pattern, text, expected) in [
            ("%", "", true),
            ("fl%", "flights", true),
            ("_lights", "flights", true),
            ("flight", "flights", false),
            (r"a\_b", "a_b", true),
            (r"a\_b", "axb", false),
            ("%%%%%%%%%%%%%%%%x", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(like(pattern, text), expected, "{pattern} {text}");
        }
    }
}

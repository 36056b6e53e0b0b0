//! What a user may see of the catalogue: catalogs, schemas, tables, and whether a name is among them.
//!
//! In: a request. Out: names that the user may select, and nothing of others. Deliberately absent: opening a table, which only the door does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use datafusion::{arrow::datatypes::SchemaRef, datasource::empty::EmptyTable, error::DataFusionError};
use futures::{StreamExt, future::join_all, stream};
use minerva_resources::{Address, Depot};

use super::{Catalog, INFORMATION_SCHEMA, TableEntry, TableRequest, patience::Patience};
use crate::{
    error::{Code, QueryError, Result},
    system,
};

/// How many questions of one listing a depot is asked at the same time.
const QUESTIONS: usize = 8;

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
        let is_known = |schemas: &[(String, String)]| schemas.iter().any(|(_, schema)| schema == name);
        let mut schemas = self.schemas(Some(catalog)).await?;
        if !is_known(&schemas) && !system::owns(catalog) {
            // It may be newer than what is kept.
            self.engine.metadata.expire_names(catalog);
            schemas = self.schemas(Some(catalog)).await?;
        }
        match is_known(&schemas) {
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

    /// The depots that the user may see.
    pub(crate) fn depots(&self) -> impl Iterator<Item = &Arc<Depot>> {
        let depots = self.snapshot.set.depots();
        depots.filter(|depot| self.snapshot.rules.may_see_depot(self.principal, &depot.meta.name))
    }

    /// The catalogs that the user may see, `system` among them.
    pub(crate) fn catalogs(&self) -> Vec<String> {
        let mut names: Vec<String> = self.depots().map(|depot| depot.meta.name.clone()).collect();
        names.extend(system::catalogs().map(str::to_owned));
        names.sort();
        names
    }

    /// The schemas of one catalog or of all. A depot that cannot be reached is an error only when it is named; all are asked at the same time.
    pub(crate) async fn schemas(&self, catalog: Option<&str>) -> Result<Vec<(String, String)>> {
        let patience = patience(catalog.is_some());
        let catalogs = self.catalogs().into_iter();
        let wanted = catalogs.filter(|name| catalog.is_none_or(|wanted| wanted == name));
        let asked = wanted.map(|name| async move {
            let found = self.schemas_of(&name, patience).await;
            (name, found)
        });
        let mut found = Vec::new();
        for (name, schemas) in join_all(asked).await {
            found.push((name.clone(), INFORMATION_SCHEMA.to_owned()));
            match schemas {
                Ok(schemas) => found.extend(schemas.into_iter().map(|schema| (name.clone(), schema))),
                Err(error) if catalog.is_some() => return Err(error),
                Err(error) => tracing::warn!(depot = name, %error, "left out of a listing"),
            }
        }
        found.sort();
        Ok(found)
    }

    async fn schemas_of(&self, catalog: &str, patience: Patience) -> Result<BTreeSet<String>> {
        if system::owns(catalog) {
            return Ok(system::schemas(catalog).into_iter().map(str::to_owned).collect());
        }
        let tables = self.visible_tables(catalog, &|_| true, patience).await?;
        let views = self.visible_views(catalog).into_iter();
        Ok(tables
            .into_iter()
            .chain(views)
            .map(|address| address.collection)
            .collect())
    }

    /// The views of a depot that the user may select.
    pub(crate) fn visible_views(&self, depot: &str) -> Vec<Address> {
        let views = self.engine.views();
        let may_select = |address: &&Address| self.snapshot.rules.may_select(self.principal, address).allowed;
        views.of_depot(depot).filter(may_select).cloned().collect()
    }

    /// The datasets of a depot that the user may select, in collections that are wanted. Nothing else is asked for.
    async fn visible_tables(
        &self,
        depot: &str,
        wanted: &(dyn Fn(&str) -> bool + Sync),
        patience: Patience,
    ) -> Result<Vec<Address>> {
        let Some(depot) = self.snapshot.set.depot(depot) else {
            return Ok(Vec::new());
        };
        let (name, depots, metadata) = (depot.name(), &self.engine.depots, &self.engine.metadata);
        let rules = &self.snapshot.rules;
        let collections = metadata.collections(depots, depot, patience).await;
        let mut collections = collections.map_err(DataFusionError::from)?;
        // In this order: how long a pattern takes tells something of the name.
        collections
            .retain(|collection| rules.may_see_collection(self.principal, name, collection) && wanted(collection));
        let asked = collections.into_iter().map(|collection| async move {
            let datasets = metadata.datasets(depots, depot, &collection, patience).await;
            (collection, datasets)
        });
        let answers: Vec<_> = stream::iter(asked).buffered(QUESTIONS).collect().await;
        let mut found = Vec::new();
        for (collection, datasets) in answers {
            for dataset in datasets.map_err(DataFusionError::from)?.iter() {
                let address = Address::new(name, &collection, dataset);
                if rules.may_select(self.principal, &address).allowed {
                    found.push(address);
                }
            }
        }
        Ok(found)
    }

    /// Asks depots anew, all at the same time: the one that is named, or all that the user may see.
    pub(crate) async fn refresh(&self, catalog: Option<&str>, collection: Option<&str>) -> Result<()> {
        if let Some(catalog) = catalog {
            self.expect_catalog(catalog).await?;
        }
        let metadata = &self.engine.metadata;
        let catalogs = self.catalogs().into_iter();
        for name in catalogs.filter(|name| catalog.is_none_or(|wanted| wanted == name)) {
            let sees = |collection| {
                let rules = &self.snapshot.rules;
                rules.may_see_collection(self.principal, &name, collection)
            };
            if collection.is_none_or(sees) {
                metadata.expire(&name, collection);
            }
        }
        let Some(catalog) = catalog else {
            return self.schemas(None).await.map(drop);
        };
        // What was known before is no answer to who asks for what is there now.
        let wanted = |name: &str| collection.is_none_or(|collection| collection == name);
        self.visible_tables(catalog, &wanted, Patience::fresh()).await?;
        match collection {
            Some(collection) => self.expect_schema(Some(catalog), collection).await,
            None => Ok(()),
        }
    }

    /// The tables that the user may see. All depots are asked at the same time.
    pub(crate) async fn tables(&self, request: &TableRequest) -> Result<Vec<TableEntry>> {
        let catalogs = self.catalogs().into_iter();
        let wanted = catalogs.filter(|name| request.catalog.as_ref().is_none_or(|wanted| wanted == name));
        let asked = wanted.map(|name| async move {
            let found = self.tables_of(&name, request).await;
            (name, found)
        });
        let mut found = Vec::new();
        for (name, tables) in join_all(asked).await {
            let Listed { tables, failure } = tables;
            found.extend(tables);
            match failure {
                None => {}
                Some(error) if request.catalog.is_some() => return Err(error),
                Some(error) => tracing::warn!(depot = name, %error, "left out of a listing"),
            }
        }
        found.sort_by(|a, b| (&a.catalog, &a.schema, &a.name).cmp(&(&b.catalog, &b.schema, &b.name)));
        Ok(found)
    }

    async fn tables_of(&self, catalog: &str, request: &TableRequest) -> Listed {
        let wanted = |kind: &str| {
            request.kinds.is_empty()
                || request
                    .kinds
                    .iter()
                    .any(|known| known == kind || (known == "TABLE" && kind == "BASE TABLE"))
        };
        let matches =
            |pattern: &Option<String>, name: &str| pattern.as_deref().is_none_or(|pattern| like(pattern, name));
        let schema_matches = |schema: &str| matches(&request.schema_pattern, schema);
        let table_matches = |table: &str| matches(&request.table_pattern, table);
        let mut tables = Vec::new();
        if wanted("SYSTEM TABLE") {
            for (schema, name, arrow) in system::tables_of(catalog) {
                if schema_matches(schema) && table_matches(name) {
                    tables.push(TableEntry {
                        catalog: catalog.to_owned(),
                        schema: schema.to_owned(),
                        name: name.to_owned(),
                        kind: "SYSTEM TABLE",
                        arrow: request.with_schema.then_some(arrow),
                        description: String::new(),
                    });
                }
            }
        }
        let mut failure = None;
        if system::owns(catalog) {
            return Listed { tables, failure };
        }
        let views = self.visible_views(catalog);
        if wanted("VIEW") {
            let matching = |address: &&Address| schema_matches(&address.collection) && table_matches(&address.dataset);
            for address in views.iter().filter(matching) {
                tables.push(self.view_entry(address, request.with_schema).await);
            }
        }
        if !wanted("BASE TABLE") {
            return Listed { tables, failure };
        }
        let patience = patience(request.catalog.is_some());
        match self.visible_tables(catalog, &schema_matches, patience).await {
            Ok(visible) => {
                let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
                // A name that both have means the view.
                for address in visible.into_iter().filter(|address| !views.contains(address)) {
                    if table_matches(&address.dataset) {
                        named.entry(address.collection).or_default().push(address.dataset);
                    }
                }
                let asked = named.into_iter().map(|(schema, names)| async move {
                    let entries = self.entries(catalog, &schema, names, request.with_schema, patience);
                    entries.await
                });
                let answers: Vec<_> = stream::iter(asked).buffered(QUESTIONS).collect().await;
                tables.extend(answers.into_iter().flatten());
            }
            Err(error) => failure = Some(error),
        }
        Listed { tables, failure }
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
    async fn entries(
        &self,
        depot: &str,
        collection: &str,
        names: Vec<String>,
        with_schema: bool,
        patience: Patience,
    ) -> Vec<TableEntry> {
        let mut columns = match with_schema {
            true => self.columns(depot, collection, &names, patience).await,
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
    async fn columns(
        &self,
        depot: &str,
        collection: &str,
        names: &[String],
        patience: Patience,
    ) -> Vec<Result<Option<SchemaRef>>> {
        let Some(depot) = self.snapshot.set.depot(depot) else {
            return names.iter().map(|_| Ok(None)).collect();
        };
        let state = self.session.state(self.snapshot, false);
        let metadata = &self.engine.metadata;
        let found = metadata
            .columns(&self.engine.depots, (depot, collection), names, state, patience)
            .await;
        let depot = depot.name();
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

/// What was found in a catalog, and why that is not all.
struct Listed {
    tables: Vec<TableEntry>,
    failure: Option<QueryError>,
}

fn patience(is_named: bool) -> Patience {
    match is_named {
        true => Patience::named(),
        false => Patience::one_of_many(),
    }
}

/// The pattern of LIKE that only this name matches.
pub(crate) fn exactly(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for letter in name.chars() {
        if matches!(letter, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

/// SQL's LIKE with `%`, `_` and the escape `\`, as drivers use it for names.
pub(crate) fn like(pattern: &str, text: &str) -> bool {
    /// A letter of a pattern.
    #[derive(Clone, Copy)]
    enum Letter {
        Itself(char),
        Any,
        Many,
    }
    let mut letters = Vec::with_capacity(pattern.len());
    let mut written = pattern.chars();
    while let Some(letter) = written.next() {
        letters.push(match letter {
            '%' => Letter::Many,
            '_' => Letter::Any,
            '\\' => Letter::Itself(written.next().unwrap_or(letter)),
            letter => Letter::Itself(letter),
        });
    }
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut read) = (0, 0);
    // Where the last `%` is, and how far it reaches. To let an earlier one reach further finds nothing more, so that this takes no longer than both
    // lengths multiplied.
    let mut many: Option<(usize, usize)> = None;
    while let Some(found) = text.get(read) {
        match letters.get(at) {
            Some(Letter::Many) => {
                many = Some((at, read));
                at += 1;
                continue;
            }
            Some(Letter::Any) => {}
            Some(Letter::Itself(wanted)) if wanted == found => {}
            _ => {
                let Some((place, reach)) = &mut many else {
                    return false;
                };
                *reach += 1;
                (at, read) = (*place + 1, *reach);
                continue;
            }
        }
        at += 1;
        read += 1;
    }
    letters.iter().skip(at).all(|letter| matches!(letter, Letter::Many))
}

#[cfg(test)]
mod tests {
    use super::{exactly, like};

    #[test]
    fn a_name_is_a_pattern_of_itself_only() {
        for name in ["a_b", "100%", r"a\b", ""] {
            assert!(like(&exactly(name), name), "{name}");
        }
        assert!(!like(&exactly("a_b"), "axb") && !like(&exactly("100%"), "1000"));
    }

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
            (&"%_".repeat(200), &"a".repeat(400), true),
            (&("%_".repeat(200) + "!"), &"a".repeat(4000), false),
            ("a%b%c", "a_b_b_c", true),
            ("a%b%c", "a_b_b_", false),
            (r"%\%", "100%", true),
            (r"%\%", "100", false),
            (r"a\", r"a\", true),
            ("", "", true),
            ("", "a", false),
            ("_", "", false),
        ] {
            assert_eq!(like(pattern, text), expected, "{pattern} {text}");
        }
    }
}

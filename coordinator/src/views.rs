//! The views of depots: texts that the coordinator keeps, planned anew for whoever uses them.
//!
//! In: `CREATE VIEW depot.collection.name AS query`. Out: the query, with the catalog and schema of its maker for names without. A view has the
//! rights of who asks and not of who made it (invoker rights): it gives nobody anything, and the policies of who asks hold for its tables.
//! Nothing of it is in the depot itself, whose own views would run with raw data.

use std::collections::BTreeMap;

use minerva_resources::Address;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Code, QueryError, Result},
    parse::{self, Request},
    session::View,
    store::Store,
};

/// A view as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Definition {
    /// The query.
    pub(crate) query: String,
    /// The names of its columns, if the query's are not theirs.
    pub(crate) columns: Vec<String>,
    /// The catalog and schema of names that say none.
    pub(crate) catalog: Option<String>,
    pub(crate) schema: Option<String>,
}

impl Definition {
    /// The view that statements use.
    pub(crate) fn read(&self) -> Result<View> {
        let Request::Query(query) = parse::one_statement(&self.query)? else {
            return Err(QueryError::new(
                Code::GenericInternalError,
                "a view is kept whose text is no query",
            ));
        };
        Ok(View {
            query,
            columns: self.columns.clone(),
            catalog: self.catalog.clone(),
            schema: self.schema.clone(),
        })
    }
}

/// A view and whose it is.
#[derive(Debug)]
struct Kept {
    owner: String,
    definition: Definition,
}

/// The views of all depots.
#[derive(Debug, Default)]
pub(crate) struct Views(BTreeMap<Address, Kept>);

impl Views {
    /// Those that are kept.
    pub(crate) fn read(store: &Store) -> Result<Self> {
        let mut views = BTreeMap::new();
        for (address, owner, definition) in store.views()? {
            let definition = serde_json::from_str(&definition).map_err(|error| {
                QueryError::new(
                    Code::GenericInternalError,
                    format!("the definition of view `{address}` cannot be read: {error}"),
                )
            })?;
            views.insert(address, Kept { owner, definition });
        }
        Ok(Self(views))
    }

    /// The view of this address.
    pub(crate) fn get(&self, address: &Address) -> Option<&Definition> {
        self.0.get(address).map(|kept| &kept.definition)
    }

    /// Who made the view last. It gives them nothing but to read its text.
    pub(crate) fn owner(&self, address: &Address) -> Option<&str> {
        self.0.get(address).map(|kept| kept.owner.as_str())
    }

    /// The addresses of the views of a depot.
    pub(crate) fn of_depot<'a>(&'a self, depot: &'a str) -> impl Iterator<Item = &'a Address> {
        self.0.keys().filter(move |address| address.depot == depot)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

//! `dataos://depot:collection/dataset`: the name of a table, of a collection, or of a depot.

use std::fmt::{self, Display};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::name;

/// What a piece of data is called, wherever it lies. Depot, collection and dataset are SQL's catalog, schema and table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The depot.
    pub depot: String,
    /// The collection; empty when the address names a whole depot.
    pub collection: String,
    /// The dataset; empty when the address names a whole collection or depot.
    pub dataset: String,
}

impl Address {
    /// The address of a dataset.
    pub fn new(depot: impl Into<String>, collection: impl Into<String>, dataset: impl Into<String>) -> Self {
        Self {
            depot: depot.into(),
            collection: collection.into(),
            dataset: dataset.into(),
        }
    }

    /// Whether the address names one dataset, not a collection or a depot.
    pub fn is_dataset(&self) -> bool {
        !self.dataset.is_empty()
    }

    /// Whether `other` is this very thing or lies inside it.
    pub fn contains(&self, other: &Address) -> bool {
        self.depot == other.depot
            && (self.collection.is_empty() || self.collection == other.collection)
            && (self.dataset.is_empty() || self.dataset == other.dataset)
    }
}

impl Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dataos://{}", self.depot)?;
        if !self.collection.is_empty() {
            write!(f, ":{}", self.collection)?;
        }
        if !self.dataset.is_empty() {
            write!(f, "/{}", self.dataset)?;
        }
        Ok(())
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |why: &str| format!("`{text}` is not an address: {why}; expected `dataos://depot:collection/dataset`");
        let rest = text
            .strip_prefix("dataos://")
            .ok_or_else(|| wrong("it does not start with `dataos://`"))?;
        let rest = match rest.split_once('?') {
            None => rest,
            Some((rest, "acl=r" | "acl=rw")) => rest,
            Some(_) => return Err(wrong("after `?` only `acl=r` or `acl=rw` may stand")),
        };
        let (depot, inside) = match rest.split_once(':') {
            None => (rest, None),
            Some((depot, inside)) => (depot, Some(inside)),
        };
        if name::check(depot, true).is_err() {
            return Err(wrong(
                "a depot's name is a lower-case letter, then lower-case letters and digits",
            ));
        }
        let Some(inside) = inside else {
            return Ok(Self::new(depot, "", ""));
        };
        let (collection, dataset) = match inside.split_once('/') {
            None => (inside, None),
            Some((collection, dataset)) => (collection, Some(dataset)),
        };
        if collection.is_empty() {
            return Err(wrong("the collection is empty"));
        }
        match dataset {
            None => Ok(Self::new(depot, collection, "")),
            Some("") => Err(wrong("the dataset is empty")),
            Some(dataset) if dataset.contains('/') => Err(wrong("there is more than one `/`")),
            Some(dataset) => Ok(Self::new(depot, collection, dataset)),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.depot, &self.collection, &self.dataset).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (depot, collection, dataset) = <(String, String, String)>::deserialize(deserializer)?;
        Ok(Self {
            depot,
            collection,
            dataset,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn addresses_are_read_and_written() {
        for text in [
            "dataos://crm",
            "dataos://crm:public",
            "dataos://crm:public/customer",
            "dataos://s3:none/a b.csv",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let address: Address = "dataos://crm:public/customer?acl=rw".parse().unwrap();
        assert_eq!(address, Address::new("crm", "public", "customer"));
        assert!("dataos://crm:public".parse::<Address>().unwrap().contains(&address));
        for text in [
            "",
            "crm",
            "dataos://",
            "dataos://Crm",
            "dataos://crm:",
            "dataos://crm:/x",
            "dataos://crm:a/",
            "dataos://crm:a/b/c",
            "dataos://crm?acl=x",
            "dataos://my-depot:a/b",
            "http://crm:a/b",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}

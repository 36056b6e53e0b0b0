//! Which tags a table and its columns have: their own, and those of the collection and the depot they lie in.
//!
//! Tags come from dataset manifests, which may name a depot, a collection or a dataset, and for data policies from
//! the depot's own manifest too. Column names are compared without regard to the case of ASCII letters, because a
//! tag that misses its column would show it. Also known here: which columns are classified, and what becomes of the
//! others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use minerva_resources::{Address, Column, Dataset, Location, Meta, ResourceSet, Unclassified};

/// The head of what no manifest says.
fn derived_meta() -> Meta {
    Meta {
        name: String::new(),
        version: String::new(),
        kind: "dataset".to_owned(),
        tags: Vec::new(),
        description: String::new(),
        owner: None,
        layer: String::new(),
        workspace: None,
        location: Location {
            file: Arc::from(Path::new("")),
            line: 0,
        },
    }
}

/// Tags that followed columns into tables that statements made or added to: by table, then by column or dotted field.
pub type DerivedTags = BTreeMap<Address, BTreeMap<String, BTreeSet<String>>>;

/// Every declared tag, found by address.
#[derive(Debug, Default)]
pub(crate) struct TagIndex {
    datasets: HashMap<Address, Vec<Dataset>>,
    depots: HashMap<String, Vec<String>>,
}

impl TagIndex {
    /// Gathers the tags of a resource set.
    pub(crate) fn of(set: &ResourceSet) -> Self {
        let mut index = Self::default();
        for dataset in set.datasets() {
            index
                .datasets
                .entry(dataset.address.clone())
                .or_default()
                .push(Dataset::clone(dataset));
        }
        for depot in set.depots() {
            index.depots.insert(depot.meta.name.clone(), depot.meta.tags.clone());
        }
        index
    }

    /// The manifests about a table and about what it lies in, from the depot down.
    fn about<'a>(&'a self, address: &Address) -> impl Iterator<Item = &'a Dataset> {
        let depot = Address::new(&address.depot, "", "");
        let collection = Address::new(&address.depot, &address.collection, "");
        let mut places = vec![depot, collection, address.clone()];
        places.dedup();
        places
            .into_iter()
            .filter_map(|place| self.datasets.get(&place))
            .flatten()
    }

    /// The tags that dataset manifests give a table.
    pub(crate) fn of_dataset(&self, address: &Address) -> Vec<&str> {
        self.about(address)
            .flat_map(|dataset| dataset.tags.iter().map(String::as_str))
            .collect()
    }

    /// The tags that every column of a table inherits: those of the heads of manifests count as well.
    pub(crate) fn of_table(&self, address: &Address) -> Vec<&str> {
        let own = self
            .depots
            .get(&address.depot)
            .into_iter()
            .flatten()
            .map(String::as_str);
        let heads = self
            .about(address)
            .flat_map(|dataset| dataset.meta.tags.iter().map(String::as_str));
        own.chain(heads).chain(self.of_dataset(address)).collect()
    }

    /// What happens to columns of a table that its manifest does not list, and where that is said: the nearest
    /// manifest that says something decides, and where none does an inventory denies.
    pub(crate) fn unclassified(&self, address: &Address) -> Option<(Unclassified, &Location)> {
        let nearest = self
            .about(address)
            .filter_map(|dataset| Some((dataset.unclassified?, &dataset.meta.location)))
            .last();
        nearest.or_else(|| {
            let mut own = self.datasets.get(address).into_iter().flatten();
            own.find(|dataset| dataset.is_inventory())
                .map(|dataset| (Unclassified::Deny, &dataset.meta.location))
        })
    }

    /// Whether the table's manifest lists a top-level column or something inside it.
    pub(crate) fn is_classified(&self, address: &Address, column: &str) -> bool {
        let lists = |name: &str| name.eq_ignore_ascii_case(column) || lies_below(name, column);
        (self.datasets.get(address).into_iter().flatten())
            .flat_map(|dataset| &dataset.columns)
            .any(|listed| lists(&listed.name))
    }

    /// The columns of a table to which its manifest gives tags, and what stands in it.
    pub(crate) fn tagged<'a>(&'a self, address: &Address) -> impl Iterator<Item = (&'a Dataset, &'a str)> {
        (self.datasets.get(address).into_iter().flatten()).flat_map(|dataset| {
            let tagged = dataset.columns.iter().filter(|column| !column.tags.is_empty());
            tagged.map(move |column| (dataset, column.name.as_str()))
        })
    }

    /// The tags of everything that manifests say lies inside `path`.
    pub(crate) fn below_path(&self, address: &Address, path: &str) -> Vec<&str> {
        self.about(address)
            .flat_map(|dataset| &dataset.columns)
            .filter(|column| lies_below(&column.name, path))
            .flat_map(|column| column.tags.iter().map(String::as_str))
            .collect()
    }

    /// The tags of a column itself, or of the field inside it that the path leads to, not those it inherits.
    pub(crate) fn of_path(&self, address: &Address, path: &str) -> Vec<&str> {
        self.about(address)
            .flat_map(|dataset| &dataset.columns)
            .filter(|column| column.name.eq_ignore_ascii_case(path))
            .flat_map(|column| column.tags.iter().map(String::as_str))
            .collect()
    }

    /// The columns of a table, or fields inside them, that manifests name, with their own tags.
    pub(crate) fn columns_of<'a>(&'a self, address: &Address) -> impl Iterator<Item = (&'a str, &'a [String])> {
        self.about(address)
            .flat_map(|dataset| &dataset.columns)
            .map(|column| (column.name.as_str(), column.tags.as_slice()))
    }

    /// Adds what was found out of a table's columns besides its manifest.
    pub(crate) fn add(&mut self, derived: &DerivedTags) {
        for (address, columns) in derived {
            let column = |(name, tags): (&String, &BTreeSet<String>)| Column {
                name: name.clone(),
                description: String::new(),
                tags: tags.iter().cloned().collect(),
                line: 0,
            };
            let dataset = Dataset {
                meta: derived_meta(),
                address: address.clone(),
                description: String::new(),
                owner: None,
                tags: Vec::new(),
                columns: columns.iter().map(column).collect(),
                unclassified: None,
            };
            self.datasets.entry(address.clone()).or_default().push(dataset);
        }
    }

    /// Every tag that some table in a depot or collection may have.
    pub(crate) fn inside(&self, place: &Address) -> Vec<&str> {
        let related = |other: &Address| place.contains(other) || other.contains(place);
        self.datasets
            .iter()
            .filter(|(address, _)| related(address))
            .flat_map(|(_, datasets)| datasets)
            .flat_map(|dataset| dataset.tags.iter().map(String::as_str))
            .collect()
    }

    /// Every column that a manifest names, with its table's address and everything it inherits.
    pub(crate) fn columns(&self) -> impl Iterator<Item = (&Address, &str, Vec<&str>)> {
        self.datasets.iter().flat_map(move |(address, datasets)| {
            let table = self.of_table(address);
            let mut own: HashMap<String, Vec<&str>> = HashMap::new();
            for column in self.about(address).flat_map(|dataset| &dataset.columns) {
                let tags = own.entry(column.name.to_ascii_lowercase()).or_default();
                tags.extend(column.tags.iter().map(String::as_str));
            }
            datasets.iter().flat_map(|dataset| &dataset.columns).map(move |column| {
                let mut tags = table.clone();
                let name = column.name.to_ascii_lowercase();
                for (end, _) in name.match_indices('.').chain([(name.len(), "")]) {
                    tags.extend(name.get(..end).and_then(|path| own.get(path)).into_iter().flatten());
                }
                (address, column.name.as_str(), tags)
            })
        })
    }
}

/// Whether a dotted name lies inside a path.
pub(crate) fn lies_below(name: &str, path: &str) -> bool {
    name.get(..path.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(path))
        && name.get(path.len()..).is_some_and(|rest| rest.starts_with('.'))
}

//! Where collections and datasets lie in an object store, and which objects a dataset has.
//!
//! The layout is that of a folder (see [`crate::files::layout`]); a key's parts between slashes are its folders. In: names. Out:
//! names, or the [`Listing`] of a dataset. What the store lists is kept for a while, see [`super::kept`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use object_store::path::Path;

use super::kept::Kept;
use super::location::{Version, locate};
use super::store::DepotStore;
use crate::ErrorKind;
use crate::files::fault::Fault;
use crate::files::formats::{Format, dataset_of, format_of, is_hidden};
use crate::files::layout::ROOT_COLLECTION;
use crate::files::listing::{At, DataFile, Listing, Stamp, one_format, refused_format, same_partitions};
use crate::files::partitions::partition_of;

/// How many objects are asked for at the same time where a store cannot list.
const AT_ONCE: usize = 16;

/// How a store is made to tell what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lister {
    /// It lists all keys that begin with a text.
    Keys,
    /// It lists one folder at a time.
    Folders,
    /// It does not list: the manifest names the objects.
    Named(Vec<Path>),
}

/// The part of an object store that is a depot.
#[derive(Debug)]
pub(in crate::files) struct Bucket {
    store: Arc<DepotStore>,
    root: Path,
    format: Option<Format>,
    lister: Lister,
    children: Kept<Vec<Child>>,
    trees: Kept<Vec<ObjectMeta>>,
}

/// What lies in one collection.
#[derive(Debug)]
pub(in crate::files) struct Shelf(HashMap<String, Vec<(Path, Child)>>);

/// What lies directly under a folder.
#[derive(Debug, Clone)]
struct Child {
    name: String,
    /// What is known of an object; `None` for a folder.
    object: Option<Object>,
}

#[derive(Debug, Clone)]
enum Object {
    Listed(ObjectMeta),
    Named(Path),
}

impl Bucket {
    pub(super) fn new(
        store: Arc<DepotStore>,
        root: Path,
        format: Option<Format>,
        lister: Lister,
        lifetime: Duration,
    ) -> Bucket {
        Bucket {
            store,
            root,
            format,
            lister,
            children: Kept::new(lifetime),
            trees: Kept::new(lifetime),
        }
    }

    /// Whether the store answers.
    pub(in crate::files) async fn reach(&self) -> Result<(), Fault> {
        match &self.lister {
            Lister::Keys | Lister::Folders => self.children(&self.root).await.map(drop),
            Lister::Named(names) => match names.first() {
                Some(first) => self.named(first).await.map(drop),
                None => Ok(()),
            },
        }
    }

    /// The collections, sorted.
    pub(in crate::files) async fn collections(&self) -> Result<Vec<String>, Fault> {
        let mut names = BTreeSet::new();
        for child in self.children(&self.root).await?.iter() {
            if child.object.is_none() {
                names.insert(child.name.clone());
            } else if self.format_of(&child.name).is_some() {
                names.insert(ROOT_COLLECTION.to_owned());
            }
        }
        Ok(names.into_iter().collect())
    }

    /// The datasets of a collection, sorted; none when there is no such collection.
    pub(in crate::files) async fn datasets(&self, collection: &str) -> Result<Vec<String>, Fault> {
        let mut names: Vec<String> = self.shelf(collection).await?.0.into_keys().collect();
        names.sort();
        Ok(names)
    }

    /// What lies in a collection, by the names that datasets may have.
    pub(in crate::files) async fn shelf(&self, collection: &str) -> Result<Shelf, Fault> {
        let mut places: HashMap<String, Vec<(Path, Child)>> = HashMap::new();
        for (folder, child) in self.entries_of(collection).await? {
            let dataset = match child.object {
                None => child.name.clone(),
                Some(_) if self.format_of(&child.name).is_some() => dataset_of(&child.name).to_owned(),
                Some(_) => continue,
            };
            places.entry(dataset).or_default().push((folder, child));
        }
        Ok(Shelf(places))
    }

    /// The objects of a dataset as they were when the store listed them; `None` if there is no such dataset.
    pub(in crate::files) async fn listing(&self, shelf: &Shelf, dataset: &str) -> Result<Option<Listing>, Fault> {
        let found = match shelf.0.get(dataset).map(Vec::as_slice) {
            None | Some([]) => None,
            Some([only]) => Some(only.clone()),
            Some([(_, one), (_, other), ..]) => {
                let message = format!(
                    "both `{}` and `{}` are called that; rename one of them",
                    one.name, other.name
                );
                return Err(Fault::new(ErrorKind::Settings, message));
            }
        };
        let Some((folder, child)) = found else {
            return Ok(None);
        };
        let mut files = Vec::new();
        match child.object {
            Some(Object::Listed(object)) => files.extend(self.file(&folder, &object)?),
            Some(Object::Named(key)) => files.extend(self.file(&folder, &self.named(&key).await?)?),
            None => {
                let prefix = join(&folder, &child.name)?;
                let objects = self.tree(&prefix).await?;
                let keys = objects.iter().filter_map(|object| below(&prefix, &object.location));
                refuse_table_formats(keys)?;
                for object in objects.iter() {
                    files.extend(self.file(&prefix, object)?);
                }
            }
        }
        files.sort_by(|(one, _), (other, _)| one.relative.cmp(&other.relative));
        let format = one_format(&files)?;
        let files: Vec<DataFile> = files.into_iter().map(|(file, _)| file).collect();
        same_partitions(&files)?;
        Ok(Some(Listing {
            format,
            root: Path::from(self.store.name()),
            files,
        }))
    }

    fn format_of(&self, name: &str) -> Option<Format> {
        self.format.or_else(|| format_of(name))
    }

    /// An object as a file of the dataset under `prefix`; `None` if it is not one.
    fn file(&self, prefix: &Path, object: &ObjectMeta) -> Result<Option<(DataFile, Format)>, Fault> {
        let Some(below) = below(prefix, &object.location) else {
            return Ok(None);
        };
        let mut parts: Vec<&str> = below.split('/').collect();
        let Some(name) = parts.pop().filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        if is_hidden(name) || parts.iter().any(|part| is_hidden(part)) {
            return Ok(None);
        }
        let Some(format) = self.format_of(name) else {
            return Ok(None);
        };
        if is_marker(object) {
            return Ok(None);
        }
        let relative = below_root(&self.root, &object.location);
        let version = Version::of(object, self.lister != Lister::Folders);
        let Some(location) = locate(self.store.name(), &version, &object.location) else {
            let message = format!("file `{relative}` has a name that cannot be read; rename it");
            return Err(Fault::new(ErrorKind::Unsupported, message));
        };
        let file = DataFile {
            relative: relative.to_owned(),
            at: At::Store {
                location,
                has_tag: matches!(version, Version::Tag(_)),
            },
            stamp: Stamp {
                size: object.size,
                changed: object.last_modified.timestamp_nanos_opt().unwrap_or_default(),
            },
            partitions: parts.iter().filter_map(|part| partition_of(part)).collect(),
        };
        Ok(Some((file, format)))
    }

    /// What lies in a collection, each with its folder. The objects of the root and a folder `none` are one collection.
    async fn entries_of(&self, collection: &str) -> Result<Vec<(Path, Child)>, Fault> {
        let mut found = Vec::new();
        if collection == ROOT_COLLECTION {
            let objects = self.children(&self.root).await?;
            let objects = objects.iter().filter(|child| child.object.is_some());
            found.extend(objects.map(|child| (self.root.clone(), child.clone())));
        }
        // A name with a slash is no folder's.
        if collection.is_empty() || collection.contains('/') || is_hidden(collection) {
            return Ok(found);
        }
        let Ok(folder) = join(&self.root, collection) else {
            return Ok(found);
        };
        let children = self.children(&folder).await?;
        found.extend(children.iter().map(|child| (folder.clone(), child.clone())));
        Ok(found)
    }

    /// What lies directly under a folder and is not hidden, sorted by name.
    async fn children(&self, folder: &Path) -> Result<Arc<Vec<Child>>, Fault> {
        self.children
            .get(folder.as_ref(), self.store.changes(), self.ask_for_children(folder))
            .await
    }

    async fn ask_for_children(&self, folder: &Path) -> Result<Vec<Child>, Fault> {
        let mut children = Vec::new();
        if let Lister::Named(names) = &self.lister {
            let mut folders = BTreeSet::new();
            for key in names {
                match below(folder, key).map(|rest| rest.split_once('/').ok_or(rest)) {
                    Some(Ok((name, _))) => drop(folders.insert(name.to_owned())),
                    Some(Err(name)) => children.push(Child {
                        name: name.to_owned(),
                        object: Some(Object::Named(key.clone())),
                    }),
                    None => {}
                }
            }
            children.extend(folders.into_iter().map(|name| Child { name, object: None }));
        } else {
            let listed = self.store.children(folder).await.map_err(|fault| self.hinted(fault))?;
            for prefix in &listed.common_prefixes {
                let name = prefix.filename().unwrap_or_default().to_owned();
                children.push(Child { name, object: None });
            }
            for object in listed.objects {
                if is_marker(&object) {
                    continue;
                }
                let name = object.location.filename().unwrap_or_default().to_owned();
                let object = Some(Object::Listed(object));
                children.push(Child { name, object });
            }
        }
        children.retain(|child| !child.name.is_empty() && !is_hidden(&child.name));
        children.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(children)
    }

    /// What to do about a web server that does not list.
    fn hinted(&self, fault: Fault) -> Fault {
        let answered = fault.message.contains("the server answers") || fault.message.contains("makes no sense");
        if self.lister != Lister::Folders || !answered {
            return fault;
        }
        let message = format!(
            "{}; where WebDAV does not list folders, name the files in `files`",
            fault.message
        );
        Fault::new(fault.kind, message)
    }

    async fn tree(&self, prefix: &Path) -> Result<Arc<Vec<ObjectMeta>>, Fault> {
        self.trees
            .get(prefix.as_ref(), self.store.changes(), self.ask_for_tree(prefix))
            .await
    }

    async fn ask_for_tree(&self, prefix: &Path) -> Result<Vec<ObjectMeta>, Fault> {
        match &self.lister {
            Lister::Keys => self.store.tree(prefix).await,
            Lister::Folders => {
                let (mut found, mut folders) = (Vec::new(), vec![prefix.clone()]);
                while let Some(folder) = folders.pop() {
                    let listed = self.store.children(&folder).await?;
                    folders.extend(listed.common_prefixes);
                    found.extend(listed.objects);
                }
                Ok(found)
            }
            Lister::Named(names) => {
                let names = names.iter().filter(|key| below(prefix, key).is_some());
                let asked: Vec<_> = names.map(|key| self.named(key)).collect();
                futures::stream::iter(asked).buffered(AT_ONCE).try_collect().await
            }
        }
    }

    /// What the store says of an object that the manifest names.
    async fn named(&self, key: &Path) -> Result<ObjectMeta, Fault> {
        let relative = below_root(&self.root, key);
        match self.store.head(key).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => {
                let message = format!(
                    "file `{relative}`, which the manifest names, is not in {}",
                    self.store.place()
                );
                Err(Fault::new(ErrorKind::NotFound, message))
            }
            Err(fault) => Err(Fault::new(fault.kind, format!("file `{relative}` {}", fault.message))),
        }
    }
}

/// Whether an object is one of those that some tools make to have a folder.
fn is_marker(object: &ObjectMeta) -> bool {
    object.size == 0 && object.location.filename().and_then(format_of).is_none()
}

/// The rest of a key below a folder; `None` if it does not lie below.
fn below<'a>(folder: &Path, key: &'a Path) -> Option<&'a str> {
    let (folder, key) = (folder.as_ref(), key.as_ref());
    if folder.is_empty() {
        return Some(key);
    }
    key.strip_prefix(folder)?.strip_prefix('/')
}

fn below_root<'a>(root: &Path, key: &'a Path) -> &'a str {
    below(root, key).unwrap_or(key.as_ref())
}

/// A folder in a folder. Names are those of listings or of SQL, and are taken as they are.
fn join(folder: &Path, name: &str) -> Result<Path, Fault> {
    let path = match folder.as_ref() {
        "" => name.to_owned(),
        folder => format!("{folder}/{name}"),
    };
    Path::parse(path).map_err(|_| {
        Fault::new(
            ErrorKind::Unsupported,
            format!("folder `{name}` has a name that cannot be read"),
        )
    })
}

/// A table format keeps files that are no longer a part of the table: to read them all would be wrong.
fn refuse_table_formats<'a>(keys: impl Iterator<Item = &'a str>) -> Result<(), Fault> {
    for key in keys {
        let kind = if key.starts_with("_delta_log/") {
            "a Delta Lake table"
        } else if key.starts_with(".hoodie/") {
            "a Hudi table"
        } else if key.starts_with("metadata/") && key.ends_with(".metadata.json") {
            "an Iceberg table"
        } else {
            continue;
        };
        return Err(refused_format(kind));
    }
    Ok(())
}

//! Where collections and datasets lie in the folder of a depot.
//!
//! A folder directly under the root is a collection, what lies in it is a dataset: a folder of files, or one file, whose
//! name without extensions is the dataset. Files in the root are in collection `none`. In: names. Out: a [`Place`], or
//! the names that are there. Names are compared with what is in the folder and never become a part of a path unseen,
//! so that no name leads out of the root; nor does a symbolic link.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use object_store::path::Path as StorePath;

use super::fault::Fault;
use super::formats::{Format, dataset_of, format_of, is_hidden};
use crate::ErrorKind;

/// The collection of the files that lie in the root itself.
pub(super) const ROOT_COLLECTION: &str = "none";

/// The folder of a depot, all symbolic links on the way to it resolved.
#[derive(Debug, Clone)]
pub(super) struct Root {
    pub(super) path: PathBuf,
    format: Option<Format>,
}

/// Where a dataset lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A folder of files.
    Folder(PathBuf),
    /// A single file.
    File(PathBuf),
}

/// A directory entry once a symbolic link is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) kind: Kind,
    /// Where a link leads.
    pub(super) target: Option<PathBuf>,
}

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File,
    /// A socket, a pipe, a broken link.
    Other,
    /// A symbolic link that leads out of the root.
    Outside,
}

impl Root {
    /// The folder at `path` as it is now.
    pub(super) fn find(path: &Path, format: Option<Format>) -> Result<Root, Fault> {
        let resolved = fs::canonicalize(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Fault::new(
                ErrorKind::NotFound,
                format!("the folder `{}` does not exist", path.display()),
            ),
            _ => unreadable(path, &error),
        })?;
        if !resolved.is_dir() {
            let message = format!(
                "`{}` is not a folder; `path` names the folder in which the files lie",
                path.display()
            );
            return Err(Fault::new(ErrorKind::Settings, message));
        }
        Ok(Root { path: resolved, format })
    }

    /// The collections, sorted.
    pub(super) fn collections(&self) -> Result<Vec<String>, Fault> {
        let mut names = BTreeSet::new();
        for (entry, name) in entries(&self.path)? {
            match self.kind(&entry)? {
                Kind::Folder => drop(names.insert(name)),
                Kind::File if self.is_data(&name) => drop(names.insert(ROOT_COLLECTION.to_owned())),
                Kind::File | Kind::Other | Kind::Outside => {}
            }
        }
        Ok(names.into_iter().collect())
    }

    /// The datasets of a collection, sorted; none when there is no such collection.
    pub(super) fn datasets(&self, collection: &str) -> Result<Vec<String>, Fault> {
        let mut names = BTreeSet::new();
        for (entry, name) in self.entries_of(collection)? {
            match self.kind(&entry)? {
                Kind::Folder => drop(names.insert(name)),
                Kind::File if self.is_data(&name) => drop(names.insert(dataset_of(&name).to_owned())),
                Kind::File | Kind::Other | Kind::Outside => {}
            }
        }
        Ok(names.into_iter().collect())
    }

    /// What lies in a collection, by the names that datasets may have.
    pub(super) fn shelf(&self, collection: &str) -> Result<Shelf<'_>, Fault> {
        let entries = self.entries_of(collection)?;
        let mut places: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, (_, name)) in entries.iter().enumerate() {
            places.entry(name.clone()).or_default().push(at);
            let dataset = dataset_of(name);
            if dataset != name && self.is_data(name) {
                places.entry(dataset.to_owned()).or_default().push(at);
            }
        }
        Ok(Shelf {
            root: self,
            entries,
            places,
        })
    }

    fn kind(&self, entry: &DirEntry) -> Result<Kind, Fault> {
        self.follow(entry).map(|found| found.kind)
    }

    /// What an entry is. Links may lead to anything inside the root.
    pub(super) fn follow(&self, entry: &DirEntry) -> Result<Found, Fault> {
        let file_type = entry.file_type().map_err(|error| Fault::io(&error))?;
        if !file_type.is_symlink() {
            let kind = match file_type {
                file_type if file_type.is_dir() => Kind::Folder,
                file_type if file_type.is_file() => Kind::File,
                _ => Kind::Other,
            };
            return Ok(Found { kind, target: None });
        }
        let Ok(target) = fs::canonicalize(entry.path()) else {
            return Ok(Found {
                kind: Kind::Other,
                target: None,
            });
        };
        let kind = match target.starts_with(&self.path) {
            false => Kind::Outside,
            true if target.is_dir() => Kind::Folder,
            true if target.is_file() => Kind::File,
            true => Kind::Other,
        };
        Ok(Found {
            kind,
            target: Some(target),
        })
    }

    /// Whether a file of this name is one of the depot's.
    pub(super) fn is_data(&self, name: &str) -> bool {
        self.format_of(name).is_some()
    }

    /// What a file of this name holds.
    pub(super) fn format_of(&self, name: &str) -> Option<Format> {
        self.format.or_else(|| format_of(name))
    }

    /// A path below the root as its owner knows it.
    pub(super) fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.path).unwrap_or(path)
    }

    /// What lies in a collection. The files of the root and a folder `none` are one collection.
    fn entries_of(&self, collection: &str) -> Result<Vec<(DirEntry, String)>, Fault> {
        let mut found = Vec::new();
        for (entry, name) in entries(&self.path)? {
            if name == collection {
                match self.kind(&entry)? {
                    Kind::Folder => found.extend(entries(&entry.path())?),
                    Kind::Outside => return Err(leads_out(&name)),
                    Kind::File | Kind::Other => {}
                }
            } else if collection == ROOT_COLLECTION && self.kind(&entry)? == Kind::File {
                found.push((entry, name));
            }
        }
        Ok(found)
    }
}

/// The entries of one collection.
#[derive(Debug)]
pub(super) struct Shelf<'a> {
    root: &'a Root,
    entries: Vec<(DirEntry, String)>,
    /// Which entries may be a dataset, by its name.
    places: HashMap<String, Vec<usize>>,
}

impl Shelf<'_> {
    /// Where a dataset lies, if it is there.
    pub(super) fn place(&self, dataset: &str) -> Result<Option<Place>, Fault> {
        let mut found: Option<(Place, &str)> = None;
        let places = self.places.get(dataset).into_iter().flatten();
        for (entry, name) in places.filter_map(|at| self.entries.get(*at)) {
            let is_file_of = self.root.is_data(name) && dataset_of(name) == dataset;
            let place = match self.root.kind(entry)? {
                Kind::Folder if name == dataset => Place::Folder(entry.path()),
                Kind::File if is_file_of => Place::File(entry.path()),
                Kind::Outside => return Err(leads_out(name)),
                Kind::Folder | Kind::File | Kind::Other => continue,
            };
            if let Some((_, other)) = &found {
                let message = format!("both `{other}` and `{name}` are called that; rename one of them");
                return Err(Fault::new(ErrorKind::Settings, message));
            }
            found = Some((place, name));
        }
        Ok(found.map(|(place, _)| place))
    }
}

/// The entries of a folder that are not hidden and whose names are text, sorted by name.
fn entries(folder: &Path) -> Result<Vec<(DirEntry, String)>, Fault> {
    let mut found = Vec::new();
    for entry in all_entries(folder)? {
        if let Some(name) = entry.file_name().to_str().filter(|name| !is_hidden(name)) {
            let name = name.to_owned();
            found.push((entry, name));
        }
    }
    found.sort_by(|(_, one), (_, other)| one.cmp(other));
    Ok(found)
}

/// The same, but a name that is not text is an error: left out, its rows would be missing from an answer.
pub(super) fn data_entries(folder: &Path) -> Result<Vec<(DirEntry, String)>, Fault> {
    let mut found = Vec::new();
    for entry in all_entries(folder)? {
        match entry.file_name().into_string() {
            Ok(name) if is_hidden(&name) => {}
            Ok(name) => found.push((entry, name)),
            Err(name) => {
                let message = format!("`{}` has a name that is not UTF-8; rename it", name.to_string_lossy());
                return Err(Fault::new(ErrorKind::Unsupported, message));
            }
        }
    }
    found.sort_by(|(_, one), (_, other)| one.cmp(other));
    Ok(found)
}

fn all_entries(folder: &Path) -> Result<Vec<DirEntry>, Fault> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect);
    entries.map_err(|error| unreadable(folder, &error))
}

/// The collection and dataset that a file belongs to, from its path alone.
pub(super) fn owner_of(root: &StorePath, file: &StorePath) -> Option<(String, String)> {
    let parts: Vec<String> = file.prefix_match(root)?.map(|part| part.as_ref().to_owned()).collect();
    match parts.as_slice() {
        [] => None,
        [file] => Some((ROOT_COLLECTION.to_owned(), dataset_of(file).to_owned())),
        [collection, file] => Some((collection.clone(), dataset_of(file).to_owned())),
        [collection, dataset, ..] => Some((collection.clone(), dataset.clone())),
    }
}

fn leads_out(name: &str) -> Fault {
    let message = format!("`{name}` is a symbolic link that leads out of the depot's folder");
    Fault::new(ErrorKind::Denied, message)
}

fn unreadable(path: &Path, error: &io::Error) -> Fault {
    let fault = Fault::io(error);
    Fault {
        message: format!("the folder `{}` {}", path.display(), fault.message),
        ..fault
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_tells_the_dataset() {
        let root = StorePath::from("data/lake");
        let check = |file: &str, owner: Option<(&str, &str)>| {
            let found = owner_of(&root, &StorePath::from(file));
            assert_eq!(
                found.as_ref().map(|(one, two)| (one.as_str(), two.as_str())),
                owner,
                "{file}"
            );
        };
        check("data/lake/city.csv.gz", Some(("none", "city")));
        check("data/lake/retail/city.parquet", Some(("retail", "city")));
        check("data/lake/retail/city/year=2024/1.parquet", Some(("retail", "city")));
        check("data/lake/retail/city.v1/1.parquet", Some(("retail", "city.v1")));
        check("data/lakes/retail/city.parquet", None);
        check("data/lake", None);
    }
}

//! The files of one dataset as they are now.
//!
//! In: the place of a dataset. Out: a [`Listing`], which tells by comparison whether anything changed since the last
//! one. Files are looked at from outside only: name, size, times.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use object_store::path::Path as StorePath;

use super::fault::Fault;
use super::formats::Format;
use super::layout::{Found, Kind, Place, Root, data_entries};
use super::partitions::{PartitionKey, partition_of};
use crate::ErrorKind;

/// How long ago a file must have changed at least for its times to tell the next change: clocks of file systems tick
/// some milliseconds apart.
const CLOCK_TICK: i64 = 50_000_000;

/// The same for object stores, which tell whole seconds of a clock of their own.
const STORE_TICK: i64 = 5_000_000_000;

/// One file of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DataFile {
    /// The path relative to the root, for messages.
    pub(super) relative: String,
    pub(super) at: At,
    pub(super) stamp: Stamp,
    /// The `key=value` folders on the way to it.
    pub(super) partitions: Vec<PartitionKey>,
}

/// Where a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    Disk(PathBuf),
    /// In the object store of the depot.
    Store {
        location: StorePath,
        /// Whether the location names the version by a tag, which every change changes.
        has_tag: bool,
    },
}

/// What changes when a file changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    /// Nanoseconds since 1970 of the last change of content or, where the system tells it, of anything about the file:
    /// a file that is replaced by an older one has changed too.
    pub(super) changed: i64,
}

/// The files of one dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) format: Format,
    /// What the locations of all files of the depot begin with: the root's own folder, links resolved, or the store.
    pub(super) root: StorePath,
    /// Sorted by path.
    pub(super) files: Vec<DataFile>,
}

impl Stamp {
    /// The stamp of a file.
    pub(super) fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            size: metadata.len(),
            changed: written(metadata).max(touched(metadata)),
        }
    }
}

impl DataFile {
    /// Whether the file changed so lately that its next change may leave the same stamp.
    pub(super) fn is_fresh(&self, now: i64) -> bool {
        let tick = match self.at {
            At::Disk(_) => CLOCK_TICK,
            At::Store { has_tag: true, .. } => return false,
            // A store that tells no time tells no change either.
            At::Store { has_tag: false, .. } if self.stamp.changed <= 0 => return true,
            At::Store { has_tag: false, .. } => STORE_TICK,
        };
        now.saturating_sub(self.stamp.changed) < tick
    }

    /// The path as object stores write it.
    pub(super) fn location(&self) -> Result<StorePath, Fault> {
        let odd = |_| Fault::new(ErrorKind::Unsupported, "has a name that cannot be read; rename it");
        let location = match &self.at {
            At::Disk(path) => StorePath::from_absolute_path(path).map_err(odd)?,
            At::Store { location, .. } => return Ok(location.clone()),
        };
        // The local object store takes such a name for one of its own unfinished writes.
        let unfinished = location
            .filename()
            .and_then(|name| name.split_once('#'))
            .is_some_and(|(_, rest)| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
        if unfinished {
            return Err(Fault::new(
                ErrorKind::Unsupported,
                "has a name that ends in `#` and digits; rename it",
            ));
        }
        Ok(location)
    }
}

/// Nanoseconds since 1970.
pub(super) fn now() -> i64 {
    nanoseconds(SystemTime::now())
}

fn nanoseconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(_) => 0,
    }
}

fn written(metadata: &Metadata) -> i64 {
    metadata.modified().map(nanoseconds).unwrap_or_default()
}

#[cfg(unix)]
fn touched(metadata: &Metadata) -> i64 {
    use std::os::unix::fs::MetadataExt;
    metadata
        .ctime()
        .saturating_mul(1_000_000_000)
        .saturating_add(metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn touched(_metadata: &Metadata) -> i64 {
    0
}

/// Lists the files of a dataset.
pub(super) fn list(root: &Root, place: &Place) -> Result<Listing, Fault> {
    let mut walk = Walk {
        root,
        found: Vec::new(),
        trees: Vec::new(),
    };
    match place {
        Place::File(path) => walk.file(path.clone(), &[])?,
        Place::Folder(path) => {
            refuse_table_formats(path)?;
            walk.trees
                .push(fs::canonicalize(path).map_err(|error| Fault::io(&error))?);
            walk.folder(path, &mut Vec::new())?;
        }
    }
    let format = one_format(&walk.found)?;
    let files: Vec<DataFile> = walk.found.into_iter().map(|(file, _)| file).collect();
    same_partitions(&files)?;
    Ok(Listing {
        format,
        root: store_root(&root.path)?,
        files,
    })
}

struct Walk<'a> {
    root: &'a Root,
    found: Vec<(DataFile, Format)>,
    /// The folder of the dataset, and whatever links in it lead to.
    trees: Vec<PathBuf>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, partitions: &mut Vec<PartitionKey>) -> Result<(), Fault> {
        for (entry, name) in data_entries(folder)? {
            let Found { kind, target } = self.root.follow(&entry)?;
            if let (Kind::Folder | Kind::File, Some(target)) = (kind, target) {
                self.follow_once(&entry.path(), target)?;
            }
            match kind {
                Kind::Folder => {
                    let depth = partitions.len();
                    partitions.extend(partition_of(&name));
                    self.folder(&entry.path(), partitions)?;
                    partitions.truncate(depth);
                }
                Kind::File => self.file(entry.path(), partitions)?,
                Kind::Outside => {
                    let name = self.name(&entry.path());
                    let message = format!("`{name}` is a symbolic link that leads out of the depot's folder");
                    return Err(Fault::new(ErrorKind::Denied, message));
                }
                Kind::Other => {}
            }
        }
        Ok(())
    }

    /// A file that is in a dataset by two ways would count twice, and a folder inside itself without end.
    fn follow_once(&mut self, link: &Path, target: PathBuf) -> Result<(), Fault> {
        if self
            .trees
            .iter()
            .any(|tree| target.starts_with(tree) || tree.starts_with(&target))
        {
            let message = format!(
                "`{}` is a symbolic link to what is in the dataset anyway",
                self.name(link)
            );
            return Err(Fault::new(ErrorKind::Unsupported, message));
        }
        self.trees.push(target);
        Ok(())
    }

    fn file(&mut self, path: PathBuf, partitions: &[PartitionKey]) -> Result<(), Fault> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(format) = self.root.format_of(name) else {
            return Ok(());
        };
        let relative = self.name(&path);
        let metadata = fs::metadata(&path).map_err(|error| {
            let fault = Fault::io(&error);
            Fault {
                message: format!("file `{relative}` {}", fault.message),
                ..fault
            }
        })?;
        let file = DataFile {
            relative,
            stamp: Stamp::of(&metadata),
            at: At::Disk(path),
            partitions: partitions.to_vec(),
        };
        self.found.push((file, format));
        Ok(())
    }

    fn name(&self, path: &Path) -> String {
        self.root.relative(path).to_string_lossy().into_owned()
    }
}

/// The root of a depot as an object store path.
pub(super) fn store_root(root: &Path) -> Result<StorePath, Fault> {
    StorePath::from_absolute_path(root)
        .map_err(|_| Fault::new(ErrorKind::Unsupported, "the folder has a name that cannot be read"))
}

/// A table format keeps files that are no longer a part of the table: to read them all would be wrong.
fn refuse_table_formats(folder: &Path) -> Result<(), Fault> {
    let is_iceberg = || {
        let metadata = fs::read_dir(folder.join("metadata")).into_iter().flatten().flatten();
        metadata
            .map(|entry| entry.file_name())
            .any(|name| name.to_string_lossy().ends_with(".metadata.json"))
    };
    let kind = if folder.join("_delta_log").is_dir() {
        "a Delta Lake table"
    } else if folder.join(".hoodie").is_dir() {
        "a Hudi table"
    } else if is_iceberg() {
        "an Iceberg table"
    } else {
        return Ok(());
    };
    Err(refused_format(kind))
}

/// The fault of a dataset that is `kind`: "a Delta Lake table".
pub(super) fn refused_format(kind: &str) -> Fault {
    let message = format!("is {kind}, whose files cannot be read without its log; this format is not supported");
    Fault::new(ErrorKind::Unsupported, message)
}

/// The format that all files have.
pub(super) fn one_format(files: &[(DataFile, Format)]) -> Result<Format, Fault> {
    let Some((first, format)) = files.first() else {
        let message = "has no data files; known extensions are .parquet, .csv, .tsv, .json, .jsonl, .ndjson, .avro, \
                       .arrow, .ipc and .feather, others need `format` in the manifest";
        return Err(Fault::new(ErrorKind::NotFound, message));
    };
    match files.iter().find(|(_, other)| other != format) {
        None => Ok(*format),
        Some((file, other)) => {
            let message = format!(
                "file `{}` is {} and file `{}` is {}; the files of one dataset have one format",
                first.relative,
                format.name(),
                file.relative,
                other.name()
            );
            Err(Fault::new(ErrorKind::Unsupported, message))
        }
    }
}

/// An error unless all files lie in the same partition folders.
pub(super) fn same_partitions(files: &[DataFile]) -> Result<(), Fault> {
    let keys = |file: &DataFile| {
        file.partitions
            .iter()
            .map(|partition| partition.key.clone())
            .collect::<Vec<_>>()
    };
    let Some((first, wanted)) = files.first().map(|file| (file, keys(file))) else {
        return Ok(());
    };
    if let Some(duplicate) = wanted
        .iter()
        .enumerate()
        .find(|(at, key)| wanted.iter().skip(at + 1).any(|k| k == *key))
    {
        let message = format!("file `{}` lies in two folders `{}=...`", first.relative, duplicate.1);
        return Err(Fault::new(ErrorKind::Unsupported, message));
    }
    match files.iter().find(|file| keys(file) != wanted) {
        None => Ok(()),
        Some(other) => {
            let message = format!(
                "file `{}` lies in the partition folders [{}] and file `{}` in [{}]; all files need the same ones",
                first.relative,
                wanted.join(", "),
                other.relative,
                keys(other).join(", ")
            );
            Err(Fault::new(ErrorKind::Unsupported, message))
        }
    }
}

//! Which files hold manifests, what is in them, and what they looked like.
//!
//! In: folders and files. Out: the manifests' files in order, their text, and a stamp of everything seen, by which a change is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::problem::{Location, Problem};

/// The largest file that is read.
pub(crate) const LARGEST: u64 = 16 * 1024 * 1024;
/// How deep folders may lie in each other.
const DEEPEST: usize = 32;

/// Whether a folder's file of this name holds manifests.
pub(crate) fn is_manifest(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden
        && path
            .extension()
            .is_some_and(|ending| ending == "yaml" || ending == "yml")
}

/// The files with manifests under these folders, each once, in order; what cannot be looked at is noted.
pub(crate) fn find(folders: &[PathBuf], problems: &mut Vec<Problem>) -> Vec<Arc<Path>> {
    let mut search = Search {
        files: Vec::new(),
        seen: BTreeSet::new(),
        problems,
    };
    for folder in folders {
        match fs::metadata(folder) {
            Ok(metadata) => search.visit(folder, &metadata, 0, true),
            Err(error) => search.cannot(folder, "read", &error),
        }
    }
    search.files
}

struct Search<'a> {
    files: Vec<Arc<Path>>,
    seen: BTreeSet<PathBuf>,
    problems: &'a mut Vec<Problem>,
}

impl Search<'_> {
    fn visit(&mut self, path: &Path, metadata: &Metadata, depth: usize, named: bool) {
        if !metadata.is_dir() && !(metadata.is_file() && (is_manifest(path) || named)) {
            if named {
                self.problems.push(Problem::new(
                    Location::new(path, 0),
                    "this is neither a file nor a folder",
                ));
            }
            return;
        }
        match fs::canonicalize(path) {
            Ok(real) => {
                if !self.seen.insert(real) {
                    return;
                }
            }
            Err(error) => return self.cannot(path, "read", &error),
        }
        if metadata.is_file() {
            if path.to_str().is_none() {
                self.problems
                    .push(Problem::new(Location::new(path, 0), "the name of this file is not UTF-8").help("rename it"));
            } else {
                self.files.push(Arc::from(path));
            }
            return;
        }
        if depth >= DEEPEST {
            let message = format!("folders lie more than {DEEPEST} levels deep in each other");
            self.problems.push(Problem::new(Location::new(path, 0), message));
            return;
        }
        let entries = match fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => entries,
            Err(error) => return self.cannot(path, "list", &error),
        };
        let mut paths: Vec<PathBuf> = entries
            .into_iter()
            .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
            .map(|entry| entry.path())
            .collect();
        paths.sort();
        for path in paths {
            match fs::metadata(&path) {
                Ok(metadata) => self.visit(&path, &metadata, depth + 1, false),
                Err(error) => self.cannot(&path, "read", &error),
            }
        }
    }

    fn cannot(&mut self, path: &Path, what: &str, error: &std::io::Error) {
        self.problems.push(Problem::new(
            Location::new(path, 0),
            format!("cannot {what} `{}`: {error}", path.display()),
        ));
    }
}

/// The text of a file; the error says what is wrong, and on which line if on one.
pub(crate) fn read(path: &Path) -> Result<String, (usize, String)> {
    let cannot = |error: std::io::Error| (0, format!("cannot read `{}`: {error}", path.display()));
    // A device or a pipe could keep the reader waiting for ever.
    if !fs::metadata(path).map_err(cannot)?.is_file() {
        return Err((0, format!("`{}` is not a file", path.display())));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
        .map_err(cannot)?;
    text(bytes)
}

/// Bytes as text, if they are UTF-8 and not too many.
pub(crate) fn text(bytes: Vec<u8>) -> Result<String, (usize, String)> {
    if bytes.len() as u64 > LARGEST {
        return Err((0, format!("the file is larger than {} MiB", LARGEST / 1024 / 1024)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error
            .as_bytes()
            .get(..error.utf8_error().valid_up_to())
            .unwrap_or_default();
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        (line, "the file is not UTF-8 text".to_string())
    })
}

/// What files looked like at one time. Two stamps that are equal mean that nothing has changed, except that a file may change twice
/// within one tick of the file system's clock: a stamp of a file that is younger than that is not settled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Stamp {
    files: BTreeMap<PathBuf, Option<Look>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    length: u64,
    modified: Option<SystemTime>,
    identity: Identity,
}

impl Stamp {
    /// How these files look now.
    pub(crate) fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut stamp = Self::default();
        files.into_iter().for_each(|path| stamp.add(path));
        stamp
    }

    /// Adds how a file looks now, unless it is known how it looked.
    pub(crate) fn add(&mut self, path: &Path) {
        let look = |metadata: Metadata| Look {
            length: metadata.len(),
            modified: metadata.modified().ok(),
            identity: identity(&metadata),
        };
        self.files
            .entry(path.to_path_buf())
            .or_insert_with(|| fs::metadata(path).ok().map(look));
    }

    /// Whether every file had lain still for a while at this time.
    pub(crate) fn settled(&self, now: SystemTime) -> bool {
        const STILL: Duration = Duration::from_secs(2);
        self.files
            .values()
            .flatten()
            .filter_map(|look| look.modified)
            .all(|modified| {
                // A file from the future is as settled as it will be.
                now.duration_since(modified).map_or(true, |age| age > STILL)
            })
    }
}

/// What tells a file from another in its place: device, inode and the time of its last change of any kind.
#[cfg(unix)]
type Identity = (u64, u64, i64, i64);

#[cfg(unix)]
fn identity(metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
type Identity = ();

#[cfg(not(unix))]
fn identity(_metadata: &Metadata) -> Identity {}

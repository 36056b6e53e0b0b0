//! Resources that follow their files: a good change is taken over as a whole, a bad one changes nothing and says why.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

use crate::files::{self, Stamp};
use crate::problem::{Problem, Problems};
use crate::set::{Check, Loaded, ParsedFiles, ResourceSet, environment_variable, load_with};

/// What came of looking at the files again.
#[derive(Debug, Clone)]
pub enum Reload {
    /// Nothing of any consequence has changed since the last look.
    Unchanged,
    /// This set is in force now.
    Swapped(Arc<ResourceSet>),
    /// The files are not in order; what was in force still is. Said once for each change of the files.
    Refused(Arc<Problems>),
}

/// The resources in force, and the files they follow.
#[derive(Debug)]
pub struct Resources {
    folders: Vec<PathBuf>,
    checks: Vec<Check>,
    current: RwLock<Arc<ResourceSet>>,
    watched: Mutex<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    stamp: Stamp,
    /// What could not even be looked at.
    blocked: Vec<Problem>,
    named: BTreeSet<PathBuf>,
    settled: bool,
    refusal: Option<Arc<Problems>>,
    parsed: ParsedFiles,
}

impl Resources {
    /// Reads the manifests in these folders and holds them.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn open(folders: Vec<PathBuf>, checks: Vec<Check>) -> Result<Self, Problems> {
        let now = SystemTime::now();
        let mut watched = Watched::default();
        let loaded = load_with(&folders, &checks, &environment_variable, ParsedFiles::new());
        let set = watched.note(loaded, Vec::new(), now)?;
        Ok(Self {
            folders,
            checks,
            current: RwLock::new(Arc::new(set)),
            watched: Mutex::new(watched),
        })
    }

    /// The resources in force.
    pub fn current(&self) -> Arc<ResourceSet> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why the files as they are now are not in force, if they are not.
    pub fn last_refusal(&self) -> Option<Arc<Problems>> {
        self.watched().refusal.clone()
    }

    /// Looks at the files, and reads them if they have changed. When nothing has, this costs a look at each.
    pub fn poll(&self) -> Reload {
        let mut watched = self.watched();
        let now = SystemTime::now();
        let mut blocked = Vec::new();
        let found = files::find(&self.folders, &mut blocked);
        let stamp = Stamp::of(
            found
                .iter()
                .map(AsRef::as_ref)
                .chain(watched.named.iter().map(PathBuf::as_path)),
        );
        if watched.settled && watched.stamp == stamp && watched.blocked == blocked {
            return Reload::Unchanged;
        }
        let before = watched.refusal.clone();
        let parsed = std::mem::take(&mut watched.parsed);
        let loaded = load_with(&self.folders, &self.checks, &environment_variable, parsed);
        match watched.note(loaded, blocked, now) {
            Ok(set) if set.fingerprint() == self.current().fingerprint() => Reload::Unchanged,
            Ok(set) => {
                let set = Arc::new(set);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&set);
                Reload::Swapped(set)
            }
            Err(problems) if before.as_deref() == Some(&problems) => Reload::Unchanged,
            Err(_) => watched.refusal.clone().map_or(Reload::Unchanged, Reload::Refused),
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        // What is guarded is only ever replaced, so a panic elsewhere leaves it whole.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// Remembers what was looked at and what came of it.
    fn note(&mut self, loaded: Loaded, blocked: Vec<Problem>, now: SystemTime) -> Result<ResourceSet, Problems> {
        self.settled = loaded.stamp.settled(now);
        self.stamp = loaded.stamp;
        self.blocked = blocked;
        self.named = loaded.named;
        self.parsed = loaded.parsed;
        self.refusal = loaded.result.as_ref().err().cloned().map(Arc::new);
        loaded.result
    }
}

//! The object stores of the depots of one process, made by name on first use.
//!
//! In: the current resource set. Out: the store of a depot, one for each manifest version, also under the URL `depot://NAME`, by
//! which the scans of plans name it: a worker finds the store in its own resources, and no plan holds a credential. Making a
//! store reaches nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::object_store::ObjectStoreRegistry;
use minerva_resources::{Depot, ResourceSet};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use url::Url;

use crate::files::location;
use crate::{DepotStore, Error, ErrorKind, Result, connector};

/// The object stores of a process's depots, and its disks.
#[derive(Debug)]
pub struct Stores {
    state: Mutex<State>,
    disks: Arc<LocalFileSystem>,
}

#[derive(Debug)]
struct State {
    resources: Arc<ResourceSet>,
    /// By the names of depots, with the fingerprints of their manifests.
    made: HashMap<String, (String, Arc<DepotStore>)>,
}

impl Stores {
    pub(crate) fn new(resources: Arc<ResourceSet>) -> Stores {
        Stores {
            state: Mutex::new(State {
                resources,
                made: HashMap::new(),
            }),
            disks: Arc::new(LocalFileSystem::new()),
        }
    }

    /// Takes a new resource set. Stores whose manifest did not change stay.
    pub(crate) fn update(&self, resources: Arc<ResourceSet>) {
        let mut state = self.state();
        state.made.retain(|name, (fingerprint, _)| {
            let depot = resources.depot(name);
            depot.is_some_and(|depot| depot.fingerprint == *fingerprint)
        });
        state.resources = resources;
    }

    /// The store of a depot.
    pub(crate) fn of(&self, depot: &Depot) -> Result<Arc<DepotStore>> {
        let mut state = self.state();
        if let Some((fingerprint, store)) = state.made.get(&depot.meta.name)
            && *fingerprint == depot.fingerprint
        {
            return Ok(Arc::clone(store));
        }
        let made = match connector(&depot.depot_type) {
            Some(connector) => connector.store(depot)?,
            None => None,
        };
        let store = made.ok_or_else(|| Error::new(&depot.meta.name, ErrorKind::Internal, "it has no object store"))?;
        let entry = (depot.fingerprint.clone(), Arc::clone(&store));
        state.made.insert(depot.meta.name.clone(), entry);
        Ok(store)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the map half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ObjectStoreRegistry for Stores {
    /// Stores are those of depots; nothing is registered.
    fn register_store(&self, _url: &Url, _store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &Url) -> DataFusionResult<Arc<dyn ObjectStore>> {
        if url.scheme() == "file" {
            return Ok(Arc::clone(&self.disks) as Arc<dyn ObjectStore>);
        }
        let name = url.host_str().filter(|_| url.scheme() == location::SCHEME);
        let name = name.ok_or_else(|| DataFusionError::Internal(format!("`{url}` is not the store of a depot")))?;
        let depot = self.state().resources.depot(name).cloned();
        let depot = depot.ok_or_else(|| Error::new(name, ErrorKind::NotFound, "there is no depot of this name"))?;
        Ok(self.of(&depot)?)
    }
}

//! Depots in object stores: the layout and the formats of depots of type `file`, read over HTTP.
//!
//! One file a type: [`s3`], [`gcs`], [`abfss`], [`http`]. They say where a store is and who asks; the rest is here. [`bucket`] finds
//! datasets and their objects, [`store`] reads objects by the names that plans have for them, [`location`], [`parts`] asks for many of them at once, [`input`] is an
//! object as a file for decoders that know files only, [`cache`] keeps what was read, [`failure`] says what went wrong.

pub(super) mod abfss;
mod bucket;
mod cache;
mod client;
mod failure;
pub(super) mod gcs;
pub(super) mod http;
mod input;
mod kept;
pub(crate) mod location;
mod parts;
pub(super) mod s3;
mod settings;
mod store;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::execution::object_store::ObjectStoreUrl;
use minerva_resources::{Address, Depot, Parameter, Problem};
use object_store::ObjectStore;
use object_store::path::Path;

use self::bucket::Lister;
use self::settings::{Remote, certificates};
use super::Files;
use super::layout::owner_of;
use crate::{Around, Connector, Error, ErrorKind, Result, Source};

pub(super) use self::bucket::Bucket;
pub(super) use self::failure::{in_error, in_text};
pub(super) use self::input::RemoteFile;
pub use self::store::DepotStore;

/// An object store as a manifest describes it.
struct Described {
    remote: Remote,
    /// What it is called in messages: the bucket `lake`.
    place: String,
    /// Tells it from other stores; without credentials.
    identity: String,
    lister: Lister,
    build: Build,
}

/// Makes the client of a store. Reaches nothing.
type Build = Box<dyn Fn(&Remote) -> object_store::Result<Arc<dyn ObjectStore>> + Send + Sync>;

/// What a type of object store makes of a manifest.
type Describe = fn(&Depot) -> std::result::Result<Described, Vec<Problem>>;

fn described(depot: &Depot, describe: Describe) -> Result<Described> {
    describe(depot).map_err(|problems| {
        let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
        Error::new(&depot.meta.name, ErrorKind::Settings, messages.join("; "))
    })
}

/// The store of a depot. Reaches nothing.
fn store(depot: &Depot, describe: Describe) -> Result<Arc<DepotStore>> {
    let wrong = |message: String| Error::new(&depot.meta.name, ErrorKind::Settings, message);
    let mut described = described(depot, describe)?;
    described.remote.client.certificates = certificates(depot).map_err(wrong)?;
    // The client's text may quote a credential that it cannot use.
    let inner = (described.build)(&described.remote).map_err(|_| {
        wrong(format!(
            "{} cannot be opened with these credentials and settings",
            described.place
        ))
    })?;
    let Described {
        remote,
        place,
        identity,
        ..
    } = described;
    let store = DepotStore::new(&depot.meta.name, &identity, place, inner, remote.cache);
    Ok(Arc::new(store))
}

/// One type of object store.
#[derive(Debug)]
pub(crate) struct StoreConnector {
    depot_type: &'static str,
    parameters: &'static [Parameter],
    example: &'static str,
    describe: Describe,
}

#[async_trait]
impl Connector for StoreConnector {
    fn depot_type(&self) -> &'static str {
        self.depot_type
    }

    fn parameters(&self) -> &'static [Parameter] {
        self.parameters
    }

    fn fails_as_a_whole(&self) -> bool {
        false
    }

    fn example(&self) -> &'static str {
        self.example
    }

    fn check(&self, depot: &Depot) -> Vec<Problem> {
        (self.describe)(depot).err().unwrap_or_default()
    }

    fn store(&self, depot: &Depot) -> Result<Option<Arc<DepotStore>>> {
        store(depot, self.describe).map(Some)
    }

    async fn open(&self, depot: &Arc<Depot>, around: &Around) -> Result<Arc<dyn Source>> {
        let Described { remote, lister, .. } = described(depot, self.describe)?;
        let store = around.stores.of(depot)?;
        let bucket = Bucket::new(store, remote.root.clone(), remote.format, lister, remote.listing);
        Files::remote(depot, self.depot_type, bucket, remote.text, remote.root).await
    }

    fn trace(&self, depot: &Depot, store: &ObjectStoreUrl, files: &[&Path]) -> Vec<Address> {
        trace(depot, self.describe, store, files)
    }
}

/// The dataset of a depot that holds every one of `files`.
fn trace(depot: &Depot, describe: Describe, store: &ObjectStoreUrl, files: &[&Path]) -> Vec<Address> {
    let name = &depot.meta.name;
    if !location::store_url(name).is_ok_and(|url| url == *store) {
        return Vec::new();
    }
    let Ok(described) = describe(depot) else {
        return Vec::new();
    };
    let root = &described.remote.root;
    let mut owners = files.iter().map(|file| {
        // Whether it is this store, and this version, is seen to when it is read.
        let located = location::parse(file).filter(|located| location::depot_of(located.store_name) == name)?;
        owner_of(root, &Path::parse(located.key).ok()?)
    });
    let Some(Some(owner)) = owners.next() else {
        return Vec::new();
    };
    if owners.any(|other| other.as_ref() != Some(&owner)) {
        return Vec::new();
    }
    vec![Address::new(name.clone(), owner.0, owner.1)]
}

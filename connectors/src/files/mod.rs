//! Depots of type `file`: folders of Parquet, CSV, JSON, Avro and Arrow files.
//!
//! In: the manifest of a depot. Out: tables whose scans are DataFusion's own file scans. [`layout`] finds datasets,
//! [`listing`] their files, [`schema_cache`] keeps what is known of them, [`table`] plans. Nothing is ever written.

mod avro;
mod csv;
mod fault;
mod formats;
mod infer;
mod ipc;
mod json;
mod layout;
mod lines;
mod listing;
mod merge;
mod named;
mod nan;
mod partitions;
mod rows;
mod schema_cache;
mod settings;
mod table;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::execution::object_store::ObjectStoreUrl;
use minerva_resources::{Address, Depot, Parameter, Problem};
use object_store::path::Path;

use self::fault::{Fault, Origin};
use self::layout::{Root, owner_of};
use self::listing::{Listing, list};
use self::schema_cache::{SchemaCache, store_root};
use self::settings::{FileSettings, PARAMETERS};
use crate::{Connector, Error, ErrorKind, Result, Source};

pub use self::wire::{decode_file_scan, encode_file_scan};

/// Depots of type `file`.
#[derive(Debug)]
pub(crate) struct FileConnector;

#[async_trait]
impl Connector for FileConnector {
    fn depot_type(&self) -> &'static str {
        "file"
    }

    fn parameters(&self) -> &'static [Parameter] {
        PARAMETERS
    }

    fn example(&self) -> &'static str {
        "name: lake
version: v2alpha
type: depot
depot:
  type: file
  file:
    path: ./data
"
    }

    fn check(&self, depot: &Depot) -> Vec<Problem> {
        FileSettings::of(depot).err().unwrap_or_default()
    }

    async fn open(&self, depot: &Arc<Depot>) -> Result<Arc<dyn Source>> {
        let name = depot.meta.name.clone();
        let settings = FileSettings::of(depot).map_err(|problems| {
            let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
            Error::new(&name, ErrorKind::Settings, messages.join("; "))
        })?;
        let files = Files {
            depot: name,
            settings: Arc::new(settings),
            tables: SchemaCache::default(),
        };
        files.look(|_| Ok(())).await?;
        Ok(Arc::new(files))
    }

    fn trace(&self, depot: &Depot, store: &ObjectStoreUrl, files: &[&Path]) -> Vec<Address> {
        if *store != ObjectStoreUrl::local_filesystem() {
            return Vec::new();
        }
        let Ok(settings) = FileSettings::of(depot) else {
            return Vec::new();
        };
        let root = Root::find(&settings.path, settings.format).and_then(|root| store_root(&root.path));
        let Ok(root) = root else {
            return Vec::new();
        };
        let mut owners = files.iter().map(|file| owner_of(&root, file));
        let Some(Some(owner)) = owners.next() else {
            return Vec::new();
        };
        if owners.any(|other| other.as_ref() != Some(&owner)) {
            return Vec::new();
        }
        vec![Address::new(depot.meta.name.clone(), owner.0, owner.1)]
    }
}

/// An open depot of type `file`.
#[derive(Debug)]
struct Files {
    depot: String,
    settings: Arc<FileSettings>,
    tables: SchemaCache,
}

impl Files {
    /// Looks at the folder, on a thread that may wait for it.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Root) -> std::result::Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let settings = Arc::clone(&self.settings);
        let looked = tokio::task::spawn_blocking(move || look(&Root::find(&settings.path, settings.format)?)).await;
        let looked =
            looked.unwrap_or_else(|_| Err(Fault::new(ErrorKind::Internal, "the folder could not be looked at")));
        looked.map_err(|fault| Error::new(&self.depot, fault.kind, fault.message))
    }

    async fn listing(&self, collection: &str, dataset: &str) -> Result<Option<Listing>> {
        let names = (collection.to_owned(), dataset.to_owned());
        let listed = self.look(move |root| match root.place(&names.0, &names.1)? {
            None => Ok(None),
            Some(place) => list(root, &place).map(Some),
        });
        listed.await.map_err(|error| error.about_dataset(collection, dataset))
    }
}

#[async_trait]
impl Source for Files {
    async fn collections(&self) -> Result<Vec<String>> {
        self.look(Root::collections).await
    }

    async fn datasets(&self, collection: &str) -> Result<Vec<String>> {
        let collection = collection.to_owned();
        self.look(move |root| root.datasets(&collection)).await
    }

    async fn dataset(
        &self,
        collection: &str,
        dataset: &str,
        session: &dyn Session,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(listing) = self.listing(collection, dataset).await? else {
            self.tables.forget(collection, dataset);
            return Ok(None);
        };
        let root = store_root(&listing.root).map_err(|fault| Error::new(&self.depot, fault.kind, fault.message))?;
        let origin = Origin {
            depot: self.depot.clone(),
            collection: collection.to_owned(),
            dataset: dataset.to_owned(),
            root: root.as_ref().to_owned(),
        };
        let table = self.tables.table(origin, listing, &self.settings.text, session).await?;
        Ok(Some(table))
    }

    fn depot(&self) -> &str {
        &self.depot
    }

    fn depot_type(&self) -> &'static str {
        "file"
    }
}

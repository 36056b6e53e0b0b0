//! Depots of files: folders of Parquet, CSV, JSON, Avro and Arrow files, on this machine or in object stores.
//!
//! In: the manifest of a depot. Out: tables whose scans are DataFusion's own file scans. [`layout`] finds datasets in a folder,
//! [`listing`] their files, [`remote`] does both in object stores, [`schema_cache`] keeps what is known of files, [`table`] plans.
//! [`write`] adds Parquet files to a folder of this machine.

mod avro;
mod csv;
mod fault;
mod formats;
mod infer;
mod ipc;
mod json;
mod keys;
mod layout;
mod lines;
mod listing;
mod merge;
mod named;
mod nan;
mod partitions;
mod remote;
mod row_lists;
mod rows;
mod schema_cache;
mod settings;
mod short_lists;
mod table;
mod wire;
mod write;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::StreamExt;
use minerva_resources::{Address, Depot, Parameter, Problem};
use object_store::path::Path;

use self::fault::{Fault, Home, Origin};
use self::layout::{Root, owner_of};
use self::listing::{Listing, list, store_root};
use self::remote::Bucket;
use self::schema_cache::SchemaCache;
use self::settings::{FileSettings, PARAMETERS, TextSettings};
use self::table::FileTable;
use crate::{Around, Connector, Error, ErrorKind, LOOKS_AT_ONCE, Result, Source, Writer};

pub(crate) use self::named::without_filters;
pub use self::remote::DepotStore;
pub(crate) use self::remote::abfss::ABFSS;
pub(crate) use self::remote::gcs::GCS;
pub(crate) use self::remote::http::HTTP;
pub(crate) use self::remote::location;
pub(crate) use self::remote::s3::S3;
pub use self::row_lists::FILE_ROWS_FOR_A_KEY;
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

    fn is_remote(&self) -> bool {
        false
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

    async fn open(&self, depot: &Arc<Depot>, _around: &Around) -> Result<Arc<dyn Source>> {
        let name = depot.meta.name.clone();
        let settings = FileSettings::of(depot).map_err(|problems| {
            let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
            Error::new(&name, ErrorKind::Settings, messages.join("; "))
        })?;
        let files = Files {
            depot: name,
            depot_type: self.depot_type(),
            text: settings.text.clone(),
            place: Place::Folder(Arc::new(settings)),
            tables: SchemaCache::default(),
        };
        files.named(files.reach().await)?;
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

/// An open depot of files.
#[derive(Debug)]
struct Files {
    depot: String,
    depot_type: &'static str,
    place: Place,
    text: TextSettings,
    tables: SchemaCache,
}

/// The files of a dataset; `None` if there is no such dataset.
type Listed = std::result::Result<Option<Listing>, Fault>;

/// Where its files are.
#[derive(Debug)]
enum Place {
    Folder(Arc<FileSettings>),
    /// The part of an object store that is the depot, and its folder there.
    Bucket(Box<Bucket>, Path),
}

impl Files {
    /// Opens a depot in an object store, where it is `folder`.
    async fn remote(
        depot: &Depot,
        depot_type: &'static str,
        bucket: Bucket,
        text: TextSettings,
        folder: Path,
    ) -> Result<Arc<dyn Source>> {
        let files = Files {
            depot: depot.meta.name.clone(),
            depot_type,
            place: Place::Bucket(Box::new(bucket), folder),
            text,
            tables: SchemaCache::default(),
        };
        files.named(files.reach().await)?;
        Ok(Arc::new(files))
    }

    /// An error if the folder or the store is not there.
    async fn reach(&self) -> std::result::Result<(), Fault> {
        match &self.place {
            Place::Folder(settings) => look(settings, |_| Ok(())).await,
            Place::Bucket(bucket, _) => bucket.reach().await,
        }
    }

    /// What is there now of some datasets of a collection, in the order of their names.
    async fn listings(&self, collection: &str, datasets: &[String]) -> Result<Vec<Listed>> {
        self.named(match &self.place {
            Place::Folder(settings) => {
                let (collection, datasets) = (collection.to_owned(), datasets.to_vec());
                let listed = look(settings, move |root| {
                    let shelf = root.shelf(&collection)?;
                    let list = |dataset: &String| match shelf.place(dataset)? {
                        None => Ok(None),
                        Some(place) => list(root, &place).map(Some),
                    };
                    Ok(datasets.iter().map(list).collect())
                });
                listed.await
            }
            Place::Bucket(bucket, _) => match bucket.shelf(collection).await {
                Ok(shelf) => {
                    let looks: Vec<_> = datasets.iter().map(|dataset| bucket.listing(&shelf, dataset)).collect();
                    Ok(futures::stream::iter(looks).buffered(LOOKS_AT_ONCE).collect().await)
                }
                Err(fault) => Err(fault),
            },
        })
    }

    /// The table of a dataset out of what is there now.
    async fn table(
        &self,
        collection: &str,
        dataset: &str,
        listed: Listed,
        session: &dyn Session,
    ) -> Result<Option<Arc<FileTable>>> {
        let listed = self
            .named(listed)
            .map_err(|error| error.about_dataset(collection, dataset))?;
        let Some(listing) = listed else {
            self.tables.forget(collection, dataset);
            return Ok(None);
        };
        let (home, folder) = match &self.place {
            Place::Folder(_) => (Home::Disk, String::new()),
            Place::Bucket(_, folder) => (Home::Store, folder.as_ref().to_owned()),
        };
        let origin = Origin {
            depot: self.depot.clone(),
            collection: collection.to_owned(),
            dataset: dataset.to_owned(),
            home,
            root: listing.root.as_ref().to_owned(),
            folder,
        };
        self.tables.table(origin, listing, &self.text, session).await.map(Some)
    }

    fn named<T>(&self, looked: std::result::Result<T, Fault>) -> Result<T> {
        looked.map_err(|fault| Error::new(&self.depot, fault.kind, fault.message))
    }
}

/// Looks at a folder, on a thread that may wait for it.
async fn look<T: Send + 'static>(
    settings: &Arc<FileSettings>,
    look: impl FnOnce(&Root) -> std::result::Result<T, Fault> + Send + 'static,
) -> std::result::Result<T, Fault> {
    let settings = Arc::clone(settings);
    let looked = tokio::task::spawn_blocking(move || look(&Root::find(&settings.path, settings.format)?)).await;
    looked.unwrap_or_else(|_| Err(Fault::new(ErrorKind::Internal, "the folder could not be looked at")))
}

#[async_trait]
impl Source for Files {
    async fn collections(&self) -> Result<Vec<String>> {
        self.named(match &self.place {
            Place::Folder(settings) => look(settings, Root::collections).await,
            Place::Bucket(bucket, _) => bucket.collections().await,
        })
    }

    async fn datasets(&self, collection: &str) -> Result<Vec<String>> {
        self.named(match &self.place {
            Place::Folder(settings) => {
                let collection = collection.to_owned();
                look(settings, move |root| root.datasets(&collection)).await
            }
            Place::Bucket(bucket, _) => bucket.datasets(collection).await,
        })
    }

    async fn dataset(
        &self,
        collection: &str,
        dataset: &str,
        session: &dyn Session,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        let names = [dataset.to_owned()];
        let listed = self.listings(collection, &names).await;
        let mut listed = listed.map_err(|error| error.about_dataset(collection, dataset))?;
        let table = self
            .table(collection, dataset, listed.pop().unwrap_or(Ok(None)), session)
            .await?;
        Ok(table.map(|table| table as Arc<dyn TableProvider>))
    }

    async fn columns(
        &self,
        collection: &str,
        datasets: &[String],
        session: &dyn Session,
    ) -> Result<Vec<Result<Option<SchemaRef>>>> {
        let listed = self.listings(collection, datasets).await?;
        let looks: Vec<_> = datasets
            .iter()
            .zip(listed)
            .map(|(dataset, listed)| async move {
                let table = self.table(collection, dataset, listed, session).await?;
                Ok(table.map(|table| table.schema()))
            })
            .collect();
        Ok(futures::stream::iter(looks).buffered(LOOKS_AT_ONCE).collect().await)
    }

    fn writer(&self) -> Option<&dyn Writer> {
        self.written().map(|_| self as &dyn Writer)
    }

    fn refusal(&self, statement: &str) -> Error {
        let message = format!(
            "{statement} is not supported by depot type `{}`, but for `file` with `format: PARQUET`",
            self.depot_type
        );
        Error::new(&self.depot, ErrorKind::Unsupported, message)
    }

    fn depot(&self) -> &str {
        &self.depot
    }

    fn depot_type(&self) -> &'static str {
        self.depot_type
    }
}

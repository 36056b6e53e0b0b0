//! The object store of a depot, as plans see it: read only, and each object in the version that was listed.
//!
//! In: locations (see [`super::location`]), which plans hold, or keys, which listings are made of. Out: bytes, or faults in our
//! words. Every answer is compared with the version that is meant, so that a file which changes while it is read is an error
//! instead of a mixture of two; that costs no request.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::cache::Cache;
use super::{failure, location, parts};
use crate::ErrorKind;
use crate::files::fault::Fault;

/// The object store of one depot.
pub struct DepotStore {
    /// The first part of its locations.
    name: String,
    /// What it is called in messages: the bucket `lake`.
    place: String,
    inner: Arc<dyn ObjectStore>,
    changes: AtomicU64,
    cache: Cache,
}

impl DepotStore {
    /// Of the parts of objects that are read, up to `cache` bytes are kept.
    pub(super) fn new(
        depot: &str,
        identity: &str,
        place: String,
        inner: Arc<dyn ObjectStore>,
        cache: usize,
    ) -> DepotStore {
        DepotStore {
            name: location::store_name(depot, identity),
            place,
            inner,
            changes: AtomicU64::new(0),
            cache: Cache::new(cache),
        }
    }

    /// The first part of the locations of its objects.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What it is called in messages.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// How often an object was found to be another one than was listed. Lists from before are not worth keeping.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    fn failed(&self, fault: Fault) -> Error {
        if fault.kind == ErrorKind::Changed {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
        failure::as_error(fault)
    }

    /// What lies directly under a prefix.
    pub(super) async fn children(&self, prefix: &Path) -> Result<ListResult, Fault> {
        let prefix = Some(prefix).filter(|prefix| !prefix.as_ref().is_empty());
        let listed = self.inner.list_with_delimiter(prefix).await;
        listed.map_err(|error| failure::of_listing(&error, &self.place))
    }

    /// Everything under a prefix, however deep.
    pub(super) async fn tree(&self, prefix: &Path) -> Result<Vec<ObjectMeta>, Fault> {
        let prefix = Some(prefix).filter(|prefix| !prefix.as_ref().is_empty());
        let listed: Result<Vec<ObjectMeta>> = self.inner.list(prefix).try_collect().await;
        listed.map_err(|error| failure::of_listing(&error, &self.place))
    }

    /// What the store says of an object; `None` if there is none of this key.
    pub(super) async fn head(&self, key: &Path) -> Result<Option<ObjectMeta>, Fault> {
        match self.inner.head(key).await {
            Ok(found) => Ok(Some(found)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failure::of_object(&error)),
        }
    }

    fn wrong(&self, location: &Path) -> Error {
        let message = format!("`{location}` is not a location of this store");
        failure::as_error(Fault::new(ErrorKind::Internal, message))
    }
}

fn refused(operation: &str) -> Error {
    Error::NotImplemented {
        operation: operation.to_owned(),
        implementer: "a depot's store, which is only read".to_owned(),
    }
}

#[async_trait]
impl ObjectStore for DepotStore {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let located = location::parse(location).ok_or_else(|| self.wrong(location))?;
        if located.store_name != self.name {
            let is_ours = location::depot_of(located.store_name) == location::depot_of(&self.name);
            // The manifest changed after the query was planned.
            return Err(if is_ours {
                failure::as_error(failure::changed())
            } else {
                self.wrong(location)
            });
        }
        let key = Path::parse(located.key).map_err(|_| self.wrong(location))?;
        let answer = self.inner.get_opts(&key, options).await;
        let mut answer = answer.map_err(|error| self.failed(failure::of_object(&error)))?;
        if !located.version.is_of(&answer.meta) {
            return Err(self.failed(failure::changed()));
        }
        answer.meta.location = location.clone();
        answer.payload = match answer.payload {
            GetResultPayload::Stream(bytes) => {
                let bytes = bytes.map_err(|error| failure::as_error(failure::of_object(&error)));
                GetResultPayload::Stream(bytes.boxed())
            }
            payload @ GetResultPayload::File(..) => payload,
        };
        Ok(answer)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let ask = async |range| {
            let options = GetOptions::new().with_range(Some(range));
            Ok(self.get_opts(location, options).await?.into_stream())
        };
        if self.cache.is_off() {
            return parts::read(ranges, ask).await;
        }
        let mut found = self.cache.get(location, ranges);
        let missing: Vec<Range<u64>> = found
            .iter()
            .zip(ranges)
            .filter(|(found, _)| found.is_none())
            .map(|(_, range)| range.clone())
            .collect();
        let fetched = parts::read(&missing, ask).await?;
        for (range, bytes) in missing.iter().zip(&fetched) {
            self.cache.put(location, range, bytes);
        }
        let mut fetched = fetched.into_iter();
        let whole: Option<Vec<Bytes>> = found
            .iter_mut()
            .map(|found| found.take().or_else(|| fetched.next()))
            .collect();
        whole.ok_or_else(|| failure::as_error(Fault::new(ErrorKind::Internal, "was not read whole")))
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(refused("put"))
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(refused("put"))
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        futures::stream::once(async { Err(refused("delete")) }).boxed()
    }

    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        futures::stream::once(async { Err(refused("list")) }).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(refused("list"))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(refused("copy"))
    }
}

impl fmt::Debug for DepotStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DepotStore")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for DepotStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

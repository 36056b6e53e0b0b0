//! An object as something to read and seek in, for decoders that know files only.
//!
//! In: the location of an object. Out: its bytes, in parts that grow while it is read from front to back, the next part being
//! asked for while this one is used; so memory is bounded and a file is read at the speed of the store. Reading blocks:
//! it is for threads that may wait.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::files::fault::{Fault, store_fault};

const FIRST_PART: u64 = 64 * 1024;
const LARGEST_PART: u64 = 8 * 1024 * 1024;
const PART_BEYOND: u64 = 16 * 1024;

/// An object that can be opened more than once.
#[derive(Clone)]
pub(in crate::files) struct RemoteFile {
    store: Arc<dyn ObjectStore>,
    location: Path,
    size: u64,
    /// Up to where it will be read, except for the rest of what begins before.
    until: u64,
    handle: Handle,
    /// The first bytes, which decoders look at more than once.
    first: Arc<OnceLock<Bytes>>,
    /// The first failure of a read, which decoders may not pass on as it is.
    failure: Arc<Mutex<Option<Fault>>>,
}

impl RemoteFile {
    /// An object of `size` bytes. Must be called from inside a runtime, which then does the reading.
    pub(in crate::files) fn new(store: Arc<dyn ObjectStore>, location: Path, size: u64) -> RemoteFile {
        RemoteFile {
            store,
            location,
            size,
            until: size,
            handle: Handle::current(),
            first: Arc::default(),
            failure: Arc::default(),
        }
    }

    /// The same, of which little will be read beyond a position.
    pub(in crate::files) fn until(mut self, position: u64) -> RemoteFile {
        self.until = position.min(self.size);
        self
    }

    pub(in crate::files) fn open(&self) -> RemoteReader {
        RemoteReader {
            position: 0,
            part: self.first.get().cloned().unwrap_or_default(),
            file: self.clone(),
            part_start: 0,
            next_size: FIRST_PART,
            next: None,
        }
    }

    /// What went wrong with the store while the object was read.
    pub(in crate::files) fn failure(&self) -> Option<Fault> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn ask(&self, range: Range<u64>) -> JoinHandle<object_store::Result<Bytes>> {
        let (store, location) = (Arc::clone(&self.store), self.location.clone());
        self.handle
            .spawn(async move { store.get_range(&location, range).await })
    }

    fn failed(&self, error: &object_store::Error) -> io::Error {
        let fault = store_fault(error);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| fault.clone());
        io::Error::other(fault)
    }
}

impl fmt::Debug for RemoteFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteFile")
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

/// Reads one object.
pub(in crate::files) struct RemoteReader {
    file: RemoteFile,
    position: u64,
    part: Bytes,
    part_start: u64,
    /// How much the next part holds.
    next_size: u64,
    /// A part that was asked for before it was needed.
    next: Option<(Range<u64>, JoinHandle<object_store::Result<Bytes>>)>,
}

impl RemoteReader {
    fn rest_of_part(&self) -> &[u8] {
        let from = self
            .position
            .checked_sub(self.part_start)
            .and_then(|from| usize::try_from(from).ok());
        from.and_then(|from| self.part.get(from..)).unwrap_or_default()
    }

    /// Takes the part at the position, which is not at the end.
    fn fetch(&mut self) -> io::Result<()> {
        let expected = self.next.take();
        let (range, asked) = match expected {
            Some((range, asked)) if range.contains(&self.position) => (range, asked),
            expected => {
                if let Some((_, asked)) = expected {
                    asked.abort();
                    self.next_size = FIRST_PART;
                }
                let range = self.range_from(self.position);
                (range.clone(), self.file.ask(range))
            }
        };
        let answer = self.file.handle.block_on(asked).map_err(io::Error::other)?;
        let part = answer.map_err(|error| self.file.failed(&error))?;
        if part.len() as u64 != range.end - range.start {
            let short = Fault::corrupt("ends too early");
            return Err(io::Error::other(short));
        }
        if range.start == 0 {
            let _ = self.file.first.set(part.clone());
        }
        self.part = part;
        self.part_start = range.start;
        self.next_size = (self.next_size * 2).min(LARGEST_PART);
        // Of the beginning of a file often nothing but the header is wanted.
        if range.start > 0 && range.end < self.file.until {
            let next = self.range_from(range.end);
            self.next = Some((next.clone(), self.file.ask(next)));
        }
        Ok(())
    }

    fn range_from(&self, start: u64) -> Range<u64> {
        if start >= self.file.until {
            return start..start.saturating_add(PART_BEYOND).min(self.file.size);
        }
        start..start.saturating_add(self.next_size).min(self.file.until)
    }
}

impl Read for RemoteReader {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        if target.is_empty() || self.position >= self.file.size {
            return Ok(0);
        }
        if self.rest_of_part().is_empty() {
            self.fetch()?;
        }
        let count = self.rest_of_part().len().min(target.len());
        if let (Some(from), Some(to)) = (self.rest_of_part().get(..count), target.get_mut(..count)) {
            to.copy_from_slice(from);
        }
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for RemoteReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(distance) => self.file.size.checked_add_signed(distance),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

impl Drop for RemoteReader {
    fn drop(&mut self) {
        if let Some((_, asked)) = self.next.take() {
            asked.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_read_is_what_was_stored_wherever_it_is_read() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        let (store, path) = (Arc::new(InMemory::new()), Path::from("c/t.bin"));
        store.put(&path, bytes.clone().into()).await.unwrap();
        let file = RemoteFile::new(store, path, bytes.len() as u64);
        let read = tokio::task::spawn_blocking(move || {
            let mut whole = Vec::new();
            file.open().read_to_end(&mut whole).unwrap();
            let mut again = Vec::new();
            file.clone().until(1_000_000).open().read_to_end(&mut again).unwrap();
            assert!(again == whole, "little is read beyond, and not nothing");
            let mut parts = Vec::new();
            let mut reader = file.open();
            for at in [2_999_990_u64, 5, 1_000_000, 262_140, 262_144, 3_000_000, 4_000_000] {
                let mut part = Vec::new();
                reader.seek(SeekFrom::Start(at)).unwrap();
                reader.by_ref().take(20).read_to_end(&mut part).unwrap();
                parts.push((at, part));
            }
            (
                whole,
                parts,
                reader.seek(SeekFrom::End(1)).is_ok(),
                reader.seek(SeekFrom::End(-4_000_000)).is_err(),
            )
        });
        let (whole, parts, beyond, before) = read.await.unwrap();
        assert!(whole == bytes);
        for (at, part) in parts {
            let from = (at as usize).min(bytes.len());
            assert_eq!(part, bytes[from..(from + 20).min(bytes.len())], "at {at}");
        }
        assert!(beyond && before);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_failure_of_the_store_is_told_and_remembered() {
        let (store, path) = (Arc::new(InMemory::new()), Path::from("c/gone.bin"));
        let file = RemoteFile::new(store, path, 10);
        let read = tokio::task::spawn_blocking(move || (file.open().read(&mut [0; 4]).is_err(), file.failure()));
        let (failed, failure) = read.await.unwrap();
        assert!(failed && failure.is_some());
    }
}

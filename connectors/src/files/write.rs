//! Writing Parquet files into the folder of a depot.
//!
//! In: batches. Out: files that are there whole or not at all: they are written under a hidden name, forced to the disk, and renamed.
//! A new dataset is a folder of one file; each INSERT adds a file. Files of others are never changed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::common::runtime::SpawnedTask;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use datafusion::parquet::basic::Compression;
use datafusion::parquet::file::properties::WriterProperties;
use futures::FutureExt;

use super::formats::{Format, is_hidden};
use super::layout::{Place as Lies, Root, data_entries};
use super::settings::FileSettings;
use super::{Files, Place};
use crate::writer::{Feed, Next, feed, named_twice, stored_as};
use crate::{Change, Error, ErrorKind, Result, Source, Writer};

impl Files {
    /// The folder that is written to, if this depot is one that can be.
    pub(super) fn written(&self) -> Option<&Arc<FileSettings>> {
        match &self.place {
            Place::Folder(settings) if settings.format == Some(Format::Parquet) => Some(settings),
            Place::Folder(_) | Place::Bucket(..) => None,
        }
    }

    /// Does something with the folder, on a thread that may wait.
    async fn at_work<T: Send + 'static>(
        &self,
        about: &str,
        work: impl FnOnce(&Root) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T> {
        let settings = self.written().cloned().ok_or_else(|| self.refusal("writing"))?;
        run(self.depot.clone(), about.to_owned(), settings, work).await
    }
}

async fn run<T: Send + 'static>(
    depot: String,
    about: String,
    settings: Arc<FileSettings>,
    work: impl FnOnce(&Root) -> Result<T, Failed> + Send + 'static,
) -> Result<T> {
    let task = SpawnedTask::spawn_blocking(move || {
        let root =
            Root::find(&settings.path, settings.format).map_err(|fault| Failed::Because(fault.kind, fault.message))?;
        work(&root)
    });
    let done = task
        .join()
        .await
        .unwrap_or_else(|failure| Err(Failed::Because(ErrorKind::Internal, failure.to_string())));
    done.map_err(|Failed::Because(kind, message)| Error::new(&depot, kind, message).about(about))
}

/// Why nothing was written.
enum Failed {
    Because(ErrorKind, String),
}

impl Failed {
    fn because(kind: ErrorKind, message: impl Into<String>) -> Failed {
        Failed::Because(kind, message.into())
    }

    fn io(error: &std::io::Error) -> Failed {
        let kind = match error.kind() {
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
            std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::DirectoryNotEmpty => ErrorKind::AlreadyExists,
            _ => ErrorKind::Unreachable,
        };
        Failed::Because(kind, format!("the folder cannot be written to: {error}"))
    }
}

#[async_trait]
impl Writer for Files {
    fn stored(&self, columns: &Schema) -> Result<SchemaRef> {
        let error = |message: String| Error::new(&self.depot, ErrorKind::Unsupported, message);
        if let Some(name) = named_twice(columns, |left, right| left == right) {
            return Err(error(format!(
                "column `{name}` is named twice; give one of them another name"
            )));
        }
        let refused = |field: &Field| {
            let (name, found) = (field.name(), field.data_type());
            error(format!(
                "column `{name}` has type {found}, which Parquet files cannot hold; cast it to another one, such as VARCHAR"
            ))
        };
        stored_as(columns, refused, stored)
    }

    async fn create(
        &self,
        collection: &str,
        dataset: &str,
        rows: SendableRecordBatchStream,
    ) -> datafusion::error::Result<u64> {
        let (about, schema) = (format!("{collection}.{dataset}"), rows.schema());
        let (collection, dataset) = (collection.to_owned(), dataset.to_owned());
        self.write(about, rows, move |root, feed| {
            let folder = Collection::find_or_make(root, &collection)?;
            expect_name(&dataset)?;
            expect_absent(root, &collection, &dataset)?;
            let hidden = Hidden::new(&folder.path);
            fs::create_dir(&hidden.0).map_err(|error| Failed::io(&error))?;
            let count = write_file(&hidden.0.join("part-0.parquet"), &schema, feed)?;
            expect_absent(root, &collection, &dataset)?;
            hidden.rename_to(&folder.path.join(&dataset))?;
            folder.keep();
            Ok(count)
        })
        .await
    }

    async fn append(
        &self,
        collection: &str,
        dataset: &str,
        rows: SendableRecordBatchStream,
    ) -> datafusion::error::Result<u64> {
        let (about, schema) = (format!("{collection}.{dataset}"), rows.schema());
        let (collection, dataset) = (collection.to_owned(), dataset.to_owned());
        self.write(about, rows, move |root, feed| {
            let folder = match place(root, &collection, &dataset)? {
                Some(Lies::Folder(folder)) => folder,
                Some(Lies::File(_)) => {
                    let message = "it is a single file, and rows are added as files; move it into a folder of its name";
                    return Err(Failed::because(ErrorKind::Unsupported, message));
                }
                None => return Err(Failed::because(ErrorKind::NotFound, "there is no table of this name")),
            };
            let entries = data_entries(&folder).map_err(|fault| Failed::Because(fault.kind, fault.message))?;
            if entries.iter().any(|(entry, _)| entry.path().is_dir()) {
                let message = "it has folders inside, and INSERT does not know into which one a row belongs";
                return Err(Failed::because(ErrorKind::Unsupported, message));
            }
            let hidden = Hidden::new(&folder);
            let count = write_file(&hidden.0, &schema, feed)?;
            if count > 0 {
                hidden.rename_to(&folder.join(format!("part-{}.parquet", unique())))?;
            }
            Ok(count)
        })
        .await
    }

    async fn remove(&self, collection: &str, dataset: &str) -> Result<bool> {
        let about = format!("{collection}.{dataset}");
        let (collection, dataset) = (collection.to_owned(), dataset.to_owned());
        self.at_work(&about, move |root| {
            let found = match place(root, &collection, &dataset)? {
                Some(Lies::Folder(path) | Lies::File(path)) => path,
                None => return Ok(false),
            };
            let parent = found.parent().unwrap_or(&root.path);
            // Gone for readers at once, whatever happens while the files are removed.
            let hidden = Hidden::new(parent);
            fs::rename(&found, &hidden.0).map_err(|error| Failed::io(&error))?;
            sync_folder(parent)?;
            Ok(true)
        })
        .await
    }

    fn has_defaults(&self) -> bool {
        false
    }

    async fn change(&self, collection: &str, dataset: &str) -> Result<Box<dyn Change>> {
        let message = "rows of files cannot be changed; make a new table with CREATE TABLE AS";
        Err(Error::new(&self.depot, ErrorKind::Unsupported, message).about_dataset(collection, dataset))
    }
}

impl Files {
    async fn write(
        &self,
        about: String,
        rows: SendableRecordBatchStream,
        work: impl FnOnce(&Root, Feed) -> Result<u64, Failed> + Send + 'static,
    ) -> datafusion::error::Result<u64> {
        let settings = self.written().cloned().ok_or_else(|| self.refusal("writing"))?;
        let depot = self.depot.clone();
        feed(rows, |feed| {
            run(depot, about, settings, move |root| work(root, feed)).boxed()
        })
        .await
    }
}

/// Writes one file and forces it to the disk.
fn write_file(path: &Path, schema: &SchemaRef, mut feed: Feed) -> Result<u64, Failed> {
    let failed = |error: datafusion::parquet::errors::ParquetError| match error {
        datafusion::parquet::errors::ParquetError::External(source) if source.is::<std::io::Error>() => {
            Failed::because(ErrorKind::Unreachable, format!("the file cannot be written: {source}"))
        }
        other => Failed::because(ErrorKind::Internal, format!("the file cannot be written: {other}")),
    };
    let file = File::options()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| Failed::io(&error))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::LZ4_RAW)
        .build();
    let mut writer = ArrowWriter::try_new(file, Arc::clone(schema), Some(properties)).map_err(failed)?;
    let mut count = 0;
    loop {
        match feed.next() {
            Next::Rows(batch) => {
                writer.write(&batch).map_err(failed)?;
                count += batch.num_rows() as u64;
            }
            Next::End => break,
            Next::Stopped => return Err(Failed::because(ErrorKind::Internal, "the writing was stopped")),
        }
    }
    let file = writer.into_inner().map_err(failed)?;
    file.sync_all().map_err(|error| Failed::io(&error))?;
    Ok(count)
}

/// The folder of a collection. If it was made for a dataset that then fails, it is removed again.
struct Collection {
    path: PathBuf,
    made: bool,
}

impl Collection {
    fn find_or_make(root: &Root, name: &str) -> Result<Collection, Failed> {
        expect_name(name)?;
        let path = root.path.join(name);
        match fs::create_dir(&path) {
            Ok(()) => {
                sync_folder(&root.path)?;
                return Ok(Collection { path, made: true });
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Failed::io(&error)),
        }
        let resolved = fs::canonicalize(&path).map_err(|error| Failed::io(&error))?;
        if !resolved.starts_with(&root.path) || !resolved.is_dir() {
            let message = format!("`{name}` is no folder inside the depot's");
            return Err(Failed::Because(ErrorKind::Denied, message));
        }
        Ok(Collection { path, made: false })
    }

    fn keep(mut self) {
        self.made = false;
    }
}

impl Drop for Collection {
    fn drop(&mut self) {
        if self.made {
            // Only an empty one is removed: somebody else may have put something in it meanwhile.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// A hidden name, under which things are made and removed. What is still there at the end is removed.
struct Hidden(PathBuf);

impl Hidden {
    fn new(folder: &Path) -> Hidden {
        Hidden(folder.join(format!(".minerva-{}", unique())))
    }

    fn rename_to(self, path: &Path) -> Result<(), Failed> {
        if self.0.is_dir() {
            sync_folder(&self.0)?;
        }
        fs::rename(&self.0, path).map_err(|error| Failed::io(&error))?;
        path.parent().map_or(Ok(()), sync_folder)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Nothing is there any more if all went well; what cannot be removed is hidden.
        let _ = match fs::symlink_metadata(&self.0) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&self.0),
            Ok(_) => fs::remove_file(&self.0),
            Err(_) => Ok(()),
        };
    }
}

/// A name is on the disk only once its folder is.
fn sync_folder(folder: &Path) -> Result<(), Failed> {
    let sync = File::open(folder).and_then(|folder| folder.sync_all());
    sync.map_err(|error| Failed::io(&error))
}

fn place(root: &Root, collection: &str, dataset: &str) -> Result<Option<Lies>, Failed> {
    let shelf = root.shelf(collection);
    shelf
        .and_then(|shelf| shelf.place(dataset))
        .map_err(|fault| Failed::Because(fault.kind, fault.message))
}

fn expect_absent(root: &Root, collection: &str, dataset: &str) -> Result<(), Failed> {
    match place(root, collection, dataset)? {
        None => Ok(()),
        Some(_) => Err(Failed::because(
            ErrorKind::AlreadyExists,
            "there is a table of this name already",
        )),
    }
}

/// A name becomes the name of a folder only if it can be nothing else.
fn expect_name(name: &str) -> Result<(), Failed> {
    let is_plain = !name.is_empty()
        && name.len() <= 200
        && !is_hidden(name)
        && !name.contains(['/', '\\', '\0', ':', '='])
        && !name.chars().any(char::is_control);
    match is_plain {
        true => Ok(()),
        false => Err(Failed::Because(
            ErrorKind::Unsupported,
            format!(
                "`{}` cannot be the name of a folder; use at most 200 bytes, without a leading `.` or `_`, and without `/ \\ : =`",
                name.escape_debug()
            ),
        )),
    }
}

/// Differs each time, in this process and in others.
fn unique() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let (process, count) = (std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
    format!("{:x}-{process:x}-{count:x}", now.as_nanos())
}

/// What a column of this type is written as.
fn stored(data_type: &DataType) -> Option<DataType> {
    let plain = match data_type {
        DataType::Dictionary(_, value) => value.as_ref().clone(),
        other => other.clone(),
    };
    let holds = holds(&plain)
        && ArrowSchemaConverter::new()
            .convert(&Schema::new(vec![Field::new("column", plain.clone(), true)]))
            .is_ok();
    holds.then_some(plain)
}

/// Parquet's intervals have no nanoseconds, and a union is no type of it.
fn holds(data_type: &DataType) -> bool {
    match data_type {
        DataType::Interval(_) | DataType::Duration(_) | DataType::Union(..) | DataType::RunEndEncoded(..) => false,
        DataType::Dictionary(_, value) => holds(value),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => holds(field.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| holds(field.data_type())),
        _ => true,
    }
}

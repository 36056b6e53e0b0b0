//! What goes wrong with one file, and how it gets its names.
//!
//! Readers know what happened but not where: they return a [`Fault`]. An [`Origin`] knows depot, dataset and root, and
//! makes the crate's error of it. A fault never holds a stored value: a policy may hide it from the one who reads the
//! message. That is why the texts of the decoders, which quote values, are not passed on.

use std::fmt;
use std::io;

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::remote::{in_error, in_text, location};
use crate::{Error, ErrorKind};

/// What happened to a file, without its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Fault {
        Fault {
            kind,
            message: message.into(),
        }
    }

    pub(super) fn corrupt(message: impl Into<String>) -> Fault {
        Fault::new(ErrorKind::Corrupt, message)
    }

    /// What the operating system said, or the store behind a file that is read like one.
    pub(super) fn io(error: &io::Error) -> Fault {
        if let Some(fault) = error.get_ref().and_then(|error| error.downcast_ref::<Fault>()) {
            return fault.clone();
        }
        match error.kind() {
            io::ErrorKind::NotFound => Fault::new(ErrorKind::Changed, "is gone; run the query again"),
            io::ErrorKind::PermissionDenied => {
                Fault::new(ErrorKind::Denied, "cannot be read: the operating system denies it")
            }
            _ => Fault::new(ErrorKind::Unreachable, format!("cannot be read: {error}")),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// It travels inside the errors of readers and stores.
impl std::error::Error for Fault {}

/// Where the files of a scan are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Home {
    /// On this machine's disks.
    Disk,
    /// In the object store of the depot.
    Store,
}

/// Where a file scan comes from, for messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) depot: String,
    pub(super) collection: String,
    pub(super) dataset: String,
    pub(super) home: Home,
    /// What the locations of the depot's files begin with, without slashes at its ends: its folder, or its store.
    pub(super) root: String,
    /// The folder inside an object store that is the depot; empty for all of it.
    pub(super) folder: String,
}

impl Origin {
    /// The error about a file of this dataset.
    pub(super) fn error(&self, file: &Path, fault: Fault) -> Error {
        self.error_in(self.relative(file), fault)
    }

    /// The error about a file that is given relative to the root.
    pub(super) fn error_in(&self, relative: &str, fault: Fault) -> Error {
        self.dataset_error(fault.kind, format!("file `{relative}` {}", fault.message))
    }

    /// The error about the dataset as a whole.
    pub(super) fn dataset_error(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(&self.depot, kind, message).about_dataset(&self.collection, &self.dataset)
    }

    /// The URL of the store that holds the files.
    pub(super) fn store_url(&self) -> datafusion::error::Result<ObjectStoreUrl> {
        match self.home {
            Home::Disk => Ok(ObjectStoreUrl::local_filesystem()),
            Home::Store => location::store_url(&self.depot),
        }
    }

    /// A file's path as the depot's owner knows it.
    fn relative<'a>(&self, file: &'a Path) -> &'a str {
        let (path, root) = match self.home {
            Home::Disk => (file.as_ref(), &self.root),
            Home::Store => (
                location::parse(file).map_or(file.as_ref(), |located| located.key),
                &self.folder,
            ),
        };
        path.strip_prefix(root.as_str())
            .map_or(path, |rest| rest.trim_start_matches('/'))
    }

    /// The error that is seen when reading `file` fails with `error`, which comes from a Parquet scan: what can only
    /// come from the file gets its name; what may come from an expression evaluated in the scan passes unchanged.
    pub(super) fn name(&self, file: &Path, error: DataFusionError) -> DataFusionError {
        if Error::find(&error).is_some() {
            return error;
        }
        match fault_of(&error) {
            Some(fault) => self.error(file, fault).into(),
            None => error,
        }
    }
}

/// The fault in a DataFusion error, if the file is to blame.
pub(super) fn fault_of(error: &DataFusionError) -> Option<Fault> {
    use datafusion::parquet::errors::ParquetError;
    match error {
        DataFusionError::ObjectStore(error) => Some(store_fault(error)),
        DataFusionError::IoError(error) => Some(Fault::io(error)),
        DataFusionError::ParquetError(error) => match error.as_ref() {
            // An expression that was pushed into the scan comes back as this.
            ParquetError::ArrowError(_) => None,
            ParquetError::External(source) => match source.downcast_ref::<object_store::Error>() {
                Some(error) => Some(store_fault(error)),
                // What is asked of each row is decoded first, and what that fails with comes so.
                None => (source.downcast_ref::<ArrowError>().and_then(arrow_fault))
                    .or_else(|| source.downcast_ref::<DataFusionError>().and_then(fault_of)),
            },
            error => Some(not_parquet(&error.to_string())),
        },
        DataFusionError::ArrowError(error, _) => arrow_fault(error),
        DataFusionError::Context(_, source) | DataFusionError::Diagnostic(_, source) => fault_of(source),
        DataFusionError::Shared(source) => fault_of(source),
        DataFusionError::External(source) => source.downcast_ref::<DataFusionError>().and_then(fault_of),
        _ => None,
    }
}

fn arrow_fault(error: &ArrowError) -> Option<Fault> {
    match error {
        ArrowError::ParquetError(text) if !text.starts_with("Arrow: ") => Some(not_parquet(text)),
        ArrowError::IoError(_, error) => Some(Fault::io(error)),
        ArrowError::IpcError(text) => Some(Fault::corrupt(format!("is damaged: {}", plain(text)))),
        ArrowError::ExternalError(source) => source.downcast_ref::<DataFusionError>().and_then(fault_of),
        _ => None,
    }
}

/// What an error of a store means.
pub(super) fn store_fault(error: &object_store::Error) -> Fault {
    if let Some(fault) = in_error(error) {
        return fault;
    }
    match error {
        object_store::Error::NotFound { .. } => Fault::new(ErrorKind::Changed, "is gone; run the query again"),
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            Fault::new(ErrorKind::Denied, "cannot be read: access is denied")
        }
        // A read beyond the end, which is how a shortened file shows.
        object_store::Error::Generic { .. } => Fault::corrupt("ends too early or cannot be read"),
        _ => Fault::new(ErrorKind::Unreachable, "cannot be read"),
    }
}

/// What the decoder of Parquet means: the store's failure, if that is what its text is about.
fn not_parquet(text: &str) -> Fault {
    let damaged = || Fault::corrupt(format!("is damaged or is not Parquet: {}", plain(text)));
    in_text(text).unwrap_or_else(damaged)
}

/// A decoder's text as a part of a sentence.
fn plain(text: &str) -> String {
    let text = text.strip_prefix("Parquet error: ").unwrap_or(text);
    let text: String = text
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect();
    text.trim().trim_end_matches('.').to_owned()
}

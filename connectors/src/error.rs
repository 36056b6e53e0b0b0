//! The one error of this crate.
//!
//! It names the depot and the object, says what happened in words, and has a kind, from which the coordinator makes the
//! code that clients see. It never carries a stored value or a credential.

use std::fmt;

use datafusion::error::DataFusionError;

/// What sort of failure an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The depot, or what it points to (a file, a dataset), is not there.
    NotFound,
    /// Something of that name is there already.
    AlreadyExists,
    /// The depot cannot be reached, or does not answer in time. Trying again may help.
    Unreachable,
    /// The depot refuses the credentials, or the operating system refuses the access.
    Denied,
    /// The data is damaged, or is not what its name says.
    Corrupt,
    /// The depot cannot do what is asked.
    Unsupported,
    /// A stored value does not fit the type of its column.
    BadValue,
    /// The dataset is no longer what it was when the query was planned.
    Changed,
    /// The settings of the depot make no sense.
    Settings,
    /// A defect of this program.
    Internal,
}

/// Something that went wrong with a depot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The name of the depot.
    pub depot: String,
    /// What in the depot it is about: a dataset, a file, a column.
    pub object: Option<String>,
    /// What sort of failure it is.
    pub kind: ErrorKind,
    /// What happened: lower case, no final stop, without the names of depot and object.
    pub message: String,
}

impl Error {
    /// An error about a depot as a whole.
    pub fn new(depot: &str, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error {
            depot: depot.to_owned(),
            object: None,
            kind,
            message: message.into(),
        }
    }

    /// The same error, about one object of the depot.
    pub fn about(self, object: impl Into<String>) -> Error {
        Error {
            object: Some(object.into()),
            ..self
        }
    }

    /// The same error, about one dataset of the depot.
    pub fn about_dataset(self, collection: &str, dataset: &str) -> Error {
        self.about(format!("{collection}.{dataset}"))
    }

    /// The error of this crate inside a DataFusion error, however deeply wrapped.
    pub fn find(error: &DataFusionError) -> Option<&Error> {
        match error {
            DataFusionError::External(source) => match source.downcast_ref::<Error>() {
                Some(error) => Some(error),
                None => source.downcast_ref::<DataFusionError>().and_then(Error::find),
            },
            DataFusionError::ArrowError(source, _) => match source.as_ref() {
                arrow::error::ArrowError::ExternalError(source) => source
                    .downcast_ref::<Error>()
                    .or_else(|| source.downcast_ref::<DataFusionError>().and_then(Error::find)),
                _ => None,
            },
            DataFusionError::Context(_, source) | DataFusionError::Diagnostic(_, source) => Error::find(source),
            DataFusionError::Shared(source) => Error::find(source),
            DataFusionError::Collection(sources) => sources.iter().find_map(Error::find),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "depot `{}`: ", self.depot)?;
        if let Some(object) = &self.object {
            write!(f, "`{object}`: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> DataFusionError {
        DataFusionError::External(Box::new(error))
    }
}

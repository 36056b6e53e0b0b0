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
    /// The depot is there, but something is locked, full or was stopped. Trying again may help.
    Busy,
    /// The depot refuses the credentials.
    Refused,
    /// The depot or the operating system refuses the access.
    Denied,
    /// The data is damaged, or is not what its name says.
    Corrupt,
    /// The depot cannot do what is asked.
    Unsupported,
    /// A stored value does not fit the type of its column.
    BadValue,
    /// A number that the depot computed left the range of its type.
    OutOfRange,
    /// The dataset is no longer what it was when the query was planned.
    Changed,
    /// A constraint of the depot does not allow what was to be written.
    Constraint,
    /// The depot's answer to the end of a transaction was lost: nobody knows whether it was done.
    Uncertain,
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

    /// The error of this crate that an error of unknown type is.
    pub fn of<'a>(source: &'a (dyn std::error::Error + Send + Sync + 'static)) -> Option<&'a Error> {
        let carried = source.downcast_ref::<Carried>().map(|carried| &carried.0);
        carried.or_else(|| source.downcast_ref())
    }

    /// The error of this crate inside a DataFusion error, however deeply wrapped.
    pub fn find(error: &DataFusionError) -> Option<&Error> {
        match error {
            DataFusionError::External(source) => match Error::of(source.as_ref()) {
                Some(error) => Some(error),
                None => source.downcast_ref::<DataFusionError>().and_then(Error::find),
            },
            DataFusionError::ArrowError(source, _) => match source.as_ref() {
                arrow::error::ArrowError::ExternalError(source) => Error::of(source.as_ref())
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
        DataFusionError::External(Box::new(Carried(error)))
    }
}

/// An error inside one of DataFusion's. From a worker only its text arrives, so the text tells the kind.
#[derive(Debug)]
struct Carried(Error);

/// What stands between the text of an error and its kind. No name and no message has it.
const MARK: &str = "\u{1}depot error ";

const KINDS: [(ErrorKind, &str); 15] = [
    (ErrorKind::NotFound, "not found"),
    (ErrorKind::AlreadyExists, "already exists"),
    (ErrorKind::Unreachable, "unreachable"),
    (ErrorKind::Busy, "busy"),
    (ErrorKind::Refused, "refused"),
    (ErrorKind::Denied, "denied"),
    (ErrorKind::Corrupt, "corrupt"),
    (ErrorKind::Unsupported, "unsupported"),
    (ErrorKind::BadValue, "bad value"),
    (ErrorKind::OutOfRange, "out of range"),
    (ErrorKind::Changed, "changed"),
    (ErrorKind::Constraint, "constraint"),
    (ErrorKind::Uncertain, "uncertain"),
    (ErrorKind::Settings, "settings"),
    (ErrorKind::Internal, "internal"),
];

impl ErrorKind {
    /// The kind and the text of an error of this crate that arrived from a worker as text.
    pub fn in_text(text: &str) -> Option<(ErrorKind, &str)> {
        let (text, word) = text.rsplit_once(MARK)?;
        let (kind, _) = KINDS.iter().find(|(_, known)| *known == word)?;
        Some((*kind, text))
    }

    /// A text out of which [`ErrorKind::in_text`] takes the kind again.
    pub(crate) fn into_text(self, text: &str) -> String {
        let word = KINDS.iter().find(|(kind, _)| *kind == self);
        format!("{text}{MARK}{}", word.map_or("internal", |(_, word)| word))
    }
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.kind.into_text(&self.0.to_string()))
    }
}

impl std::error::Error for Carried {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_survives_as_text() {
        for (kind, _) in KINDS {
            let error = Error::new("lake", kind, "is so").about("c.t");
            let carried = DataFusionError::from(error.clone());
            assert_eq!(Error::find(&carried), Some(&error));
            let DataFusionError::External(source) = carried else {
                panic!("another error");
            };
            assert_eq!(
                ErrorKind::in_text(&source.to_string()),
                Some((kind, error.to_string().as_str()))
            );
        }
        assert_eq!(ErrorKind::in_text("depot `lake`: it is not there"), None);
    }
}

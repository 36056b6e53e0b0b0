//! What is wrong with a manifest, and where.
//!
//! In: a place, a sentence, perhaps a way out. Out: text for people. A problem never carries a value of a manifest that could be a
//! secret: those who report name the key, not what stands behind it.

use std::error::Error;
use std::fmt::{self, Display};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A line of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Location {
    /// The file, as it was named when it was loaded.
    pub file: Arc<Path>,
    /// The line, counted from 1; 0 means the file as a whole.
    pub line: usize,
}

impl Location {
    /// A line of a file.
    pub fn new(file: impl Into<Arc<Path>>, line: usize) -> Self {
        Self {
            file: file.into(),
            line,
        }
    }
}

impl Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}", self.file.display())
        } else {
            write!(f, "{}:{}", self.file.display(), self.line)
        }
    }
}

/// One thing that is wrong, where it stands, and what may help.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it stands.
    pub location: Location,
    /// What is wrong: names the thing, lower case, no final stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    /// A problem without a known way out.
    pub fn new(location: Location, message: impl Into<String>) -> Self {
        Self {
            location,
            message: message.into(),
            help: None,
        }
    }

    /// The same problem, with what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same problem, said of a thing that the reporter did not know by name.
    #[must_use]
    pub(crate) fn of(mut self, owner: &str) -> Self {
        self.message = format!("{owner}: {}", self.message);
        self
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(f, "; {help}")?;
        }
        write!(f, " ({})", self.location)
    }
}

/// Everything that is wrong with a set of manifests, in the order of files and lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Sorted by place, each problem once.
    pub(crate) fn sorted(mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup();
        Self(problems)
    }
}

impl Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl Error for Problems {}

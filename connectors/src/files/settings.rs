//! The block of a `file` depot, read once, and the part of it that every depot of files has: how files are read.
//!
//! In: a depot. Out: [`FileSettings`], or what is wrong with them. Nothing here looks at the folder.

use std::path::PathBuf;

use minerva_resources::{Depot, Location, Parameter, ParameterKind, Problem, Settings};
use serde::{Deserialize, Serialize};

use super::formats::{Compression, Format};

/// How many rows of a text file are looked at to guess its column types, unless the manifest says otherwise.
const SAMPLE: usize = 4096;

/// The keys of the block.
pub(super) const PARAMETERS: &[Parameter] = &joined::<1, 9, 10>([PATH], READING);

const PATH: Parameter = Parameter {
    name: "path",
    kind: ParameterKind::Path,
    required: true,
    default: None,
    secret: false,
    description: "the folder whose folders are the collections",
};

/// The keys that say how files are read, whichever store they are in.
pub(super) const READING: [Parameter; 9] = [
    Parameter {
        name: "format",
        kind: ParameterKind::Choice(&["ARROW", "AVRO", "CSV", "JSON", "PARQUET"]),
        required: false,
        default: None,
        secret: false,
        description: "what every file of the depot holds; without it the extensions tell, and files with others are left out",
    },
    Parameter {
        name: "header",
        kind: ParameterKind::Flag,
        required: false,
        default: Some("true"),
        secret: false,
        description: "CSV: whether the first line holds the column names; if not, they are column_1, column_2, ...",
    },
    Parameter {
        name: "delimiter",
        kind: ParameterKind::Text,
        required: false,
        default: Some(","),
        secret: false,
        description: "CSV: the character between two values; `\\t` is a tab, which is the default of `.tsv` files",
    },
    Parameter {
        name: "quote",
        kind: ParameterKind::Text,
        required: false,
        default: Some("\""),
        secret: false,
        description: "CSV: the character around values that hold delimiters, quotes or line breaks",
    },
    Parameter {
        name: "escape",
        kind: ParameterKind::Text,
        required: false,
        default: None,
        secret: false,
        description: "CSV: the character that makes the next one a part of a quoted value; without it a quote in a value is doubled",
    },
    Parameter {
        name: "null",
        kind: ParameterKind::Text,
        required: false,
        default: None,
        secret: false,
        description: "CSV: a text, such as `NA`, that stands for NULL, besides the empty value",
    },
    Parameter {
        name: "multiline",
        kind: ParameterKind::Flag,
        required: false,
        default: None,
        secret: false,
        description: "CSV: whether quoted values may hold line breaks, so that files are not split; without it the sample tells",
    },
    Parameter {
        name: "compression",
        kind: ParameterKind::Choice(&["none", "gzip", "bzip2", "xz", "zstd"]),
        required: false,
        default: None,
        secret: false,
        description: "CSV and JSON: how every file is compressed; without it the extensions `.gz`, `.bz2`, `.xz`, `.zst` tell",
    },
    Parameter {
        name: "sample",
        kind: ParameterKind::Integer,
        required: false,
        default: Some("4096"),
        secret: false,
        description: "CSV and JSON: how many rows of each file are looked at to find columns and types; 0 for all",
    },
];

/// Two lists of keys as one.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which refuses an index out of bounds"
)]
pub(super) const fn joined<const A: usize, const B: usize, const N: usize>(
    first: [Parameter; A],
    second: [Parameter; B],
) -> [Parameter; N] {
    assert!(A + B == N, "the lengths do not add up");
    let mut all = [first[0]; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < A { first[at] } else { second[at - A] };
        at += 1;
    }
    all
}

/// What the manifest of a `file` depot says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileSettings {
    /// The folder, relative parts and symbolic links not yet resolved.
    pub(super) path: PathBuf,
    pub(super) format: Option<Format>,
    pub(super) text: TextSettings,
}

/// How text files are read. Workers receive it with the scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TextSettings {
    pub(super) header: bool,
    pub(super) delimiter: Option<u8>,
    pub(super) quote: u8,
    pub(super) escape: Option<u8>,
    pub(super) null: Option<String>,
    pub(super) multiline: Option<bool>,
    pub(super) compression: Option<Compression>,
    /// `None` for all rows.
    pub(super) sample: Option<usize>,
}

impl TextSettings {
    /// How a file of this name is compressed.
    pub(super) fn compression_of(&self, name: &str) -> Compression {
        self.compression.unwrap_or_else(|| Compression::of(name))
    }
}

impl FileSettings {
    /// Reads the settings of a depot.
    pub(super) fn of(depot: &Depot) -> Result<FileSettings, Vec<Problem>> {
        let mut reader = Reader::new(depot);
        let path = depot.settings.path("path", &depot.base).unwrap_or_default();
        let (format, text) = reader.reading();
        reader.end(FileSettings { path, format, text })
    }
}

/// Reads a block and collects what is wrong with it.
pub(super) struct Reader<'a> {
    pub(super) depot: &'a Depot,
    pub(super) settings: &'a Settings,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(depot: &'a Depot) -> Reader<'a> {
        Reader {
            depot,
            settings: &depot.settings,
            problems: Vec::new(),
        }
    }

    /// What was read, unless something was wrong.
    pub(super) fn end<T>(self, read: T) -> Result<T, Vec<Problem>> {
        if self.problems.is_empty() {
            Ok(read)
        } else {
            Err(self.problems)
        }
    }

    /// How the files are read.
    pub(super) fn reading(&mut self) -> (Option<Format>, TextSettings) {
        let format = self.settings.text("format").and_then(Format::named);
        let text = TextSettings {
            header: self.settings.flag("header").unwrap_or(true),
            delimiter: self.character("delimiter"),
            quote: self.character("quote").unwrap_or(b'"'),
            escape: self.character("escape"),
            null: self.settings.text("null").map(str::to_owned),
            multiline: self.settings.flag("multiline"),
            compression: self.settings.text("compression").and_then(Compression::named),
            sample: self.sample(),
        };
        self.applicable(format);
        self.distinct(&text);
        (format, text)
    }

    /// Something is wrong with a key.
    pub(super) fn problem(&mut self, key: &str, message: &str, help: &str) {
        self.problems.push(Problem {
            location: self.settings.location_of(key),
            message: format!("depot `{}`: `{key}` {message}", self.depot.meta.name),
            help: Some(help.to_owned()),
        });
    }

    /// Something is wrong at a place of its own, such as a key inside a map.
    pub(super) fn problem_at(&mut self, location: Location, message: &str, help: impl Into<String>) {
        let message = format!("depot `{}`: {message}", self.depot.meta.name);
        self.problems.push(Problem::new(location, message).help(help));
    }

    fn character(&mut self, key: &str) -> Option<u8> {
        let text = self.settings.text(key)?;
        let byte = match text {
            "\\t" => Some(b'\t'),
            _ => text.as_bytes().first().copied().filter(|_| text.len() == 1),
        };
        match byte {
            Some(b'\n' | b'\r') | None => {
                self.problem(
                    key,
                    "is not one ASCII character",
                    "put the character in quotes, as in `\"|\"`",
                );
                None
            }
            Some(byte) => Some(byte),
        }
    }

    fn sample(&mut self) -> Option<usize> {
        match self.settings.integer("sample").map(usize::try_from) {
            None => Some(SAMPLE),
            Some(Ok(0)) => None,
            Some(Ok(rows)) => Some(rows),
            Some(Err(_)) => {
                self.problem("sample", "is less than 0", "give a number of rows, or 0 for all rows");
                None
            }
        }
    }

    /// A setting that would have no effect is a mistake.
    fn applicable(&mut self, format: Option<Format>) {
        let Some(format) = format else { return };
        let only_csv = ["header", "delimiter", "quote", "escape", "null", "multiline"];
        let only_text = ["compression", "sample"];
        let idle = |key: &&str| self.settings.get(key).is_some();
        let of_csv: Vec<&str> = only_csv
            .iter()
            .copied()
            .filter(idle)
            .filter(|_| format != Format::Csv)
            .collect();
        let of_text: Vec<&str> = only_text
            .iter()
            .copied()
            .filter(idle)
            .filter(|_| !format.is_text())
            .collect();
        for (keys, formats) in [(of_csv, "CSV"), (of_text, "CSV and JSON")] {
            for key in keys {
                let message = format!("has no meaning with format {}", format.name());
                self.problem(key, &message, &format!("it is for {formats} only; take it out"));
            }
        }
    }

    fn distinct(&mut self, text: &TextSettings) {
        let delimiter = text.delimiter.unwrap_or(b',');
        if delimiter == text.quote {
            self.problem("quote", "is the same character as `delimiter`", "choose another one");
        }
        if text.escape == Some(delimiter) {
            self.problem("escape", "is the same character as `delimiter`", "choose another one");
        }
    }
}

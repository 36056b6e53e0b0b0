//! Formats and compressions, and how a file name tells them.
//!
//! In: a file name. Out: what is in the file and what the file is called without its extensions. Nothing here opens a
//! file.

use std::io::Read;

use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use serde::{Deserialize, Serialize};

use super::fault::Fault;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Format {
    Arrow,
    Avro,
    Csv,
    Json,
    Parquet,
}

impl Format {
    /// The format that a manifest names.
    pub(super) fn named(name: &str) -> Option<Format> {
        ALL.iter()
            .copied()
            .find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// As it is written in manifests.
    pub(super) fn name(self) -> &'static str {
        match self {
            Format::Arrow => "ARROW",
            Format::Avro => "AVRO",
            Format::Csv => "CSV",
            Format::Json => "JSON",
            Format::Parquet => "PARQUET",
        }
    }

    /// Whether the files are text whose column types are guessed from their values.
    pub(super) fn is_text(self) -> bool {
        match self {
            Format::Csv | Format::Json => true,
            Format::Arrow | Format::Avro | Format::Parquet => false,
        }
    }

    fn of_extension(extension: &str) -> Option<Format> {
        EXTENSIONS
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(extension))
            .map(|(_, format)| *format)
    }
}

const ALL: [Format; 5] = [Format::Arrow, Format::Avro, Format::Csv, Format::Json, Format::Parquet];

const EXTENSIONS: [(&str, Format); 11] = [
    ("arrow", Format::Arrow),
    ("feather", Format::Arrow),
    ("ipc", Format::Arrow),
    ("avro", Format::Avro),
    ("csv", Format::Csv),
    ("tsv", Format::Csv),
    ("json", Format::Json),
    ("jsonl", Format::Json),
    ("ndjson", Format::Json),
    ("parquet", Format::Parquet),
    ("parq", Format::Parquet),
];

/// How a text file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Compression {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Compression {
    /// The compression that a manifest names.
    pub(super) fn named(name: &str) -> Option<Compression> {
        match name.to_ascii_lowercase().as_str() {
            "none" => Some(Compression::None),
            "gzip" => Some(Compression::Gzip),
            "bzip2" => Some(Compression::Bzip2),
            "xz" => Some(Compression::Xz),
            "zstd" => Some(Compression::Zstd),
            _ => None,
        }
    }

    fn of_extension(extension: &str) -> Option<Compression> {
        match extension.to_ascii_lowercase().as_str() {
            "gz" | "gzip" => Some(Compression::Gzip),
            "bz2" => Some(Compression::Bzip2),
            "xz" => Some(Compression::Xz),
            "zst" | "zstd" => Some(Compression::Zstd),
            _ => None,
        }
    }

    /// The compression that a file name tells.
    pub(super) fn of(name: &str) -> Compression {
        extension(name)
            .and_then(|(_, extension)| Compression::of_extension(extension))
            .unwrap_or(Compression::None)
    }

    /// The bytes of a file as they were before compression.
    pub(super) fn decompress(self, file: impl Read + Send + 'static) -> Result<Box<dyn Read + Send>, Fault> {
        let compression = match self {
            Compression::None => return Ok(Box::new(file)),
            Compression::Gzip => FileCompressionType::GZIP,
            Compression::Bzip2 => FileCompressionType::BZIP2,
            Compression::Xz => FileCompressionType::XZ,
            Compression::Zstd => FileCompressionType::ZSTD,
        };
        compression
            .convert_read(file)
            .map_err(|_| Fault::corrupt("cannot be decompressed"))
    }
}

/// The format that a file name tells, which may have an extension for compression behind it.
pub(super) fn format_of(name: &str) -> Option<Format> {
    let (stem, last) = extension(name)?;
    match Compression::of_extension(last) {
        Some(_) => extension(stem)
            .and_then(|(_, last)| Format::of_extension(last))
            .filter(|format| format.is_text()),
        None => Format::of_extension(last),
    }
}

/// Whether the values of a CSV file are, by its name, separated by tabs.
pub(super) fn is_tab_separated(name: &str) -> bool {
    let name = match extension(name) {
        Some((stem, last)) if Compression::of_extension(last).is_some() => stem,
        _ => name,
    };
    extension(name).is_some_and(|(_, last)| last.eq_ignore_ascii_case("tsv"))
}

/// The name of the dataset that a single file makes: the file's name without its extensions.
pub(super) fn dataset_of(name: &str) -> &str {
    match extension(name) {
        None => name,
        Some((stem, last)) if Compression::of_extension(last).is_some() => {
            extension(stem).map_or(stem, |(stem, _)| stem)
        }
        Some((stem, _)) => stem,
    }
}

/// Hidden files and folders are nobody's data.
pub(super) fn is_hidden(name: &str) -> bool {
    name.starts_with('.') || name.starts_with('_')
}

fn extension(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('.')
        .filter(|(stem, last)| !stem.is_empty() && !last.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_format_compression_and_dataset() {
        let check = |name: &str, format: Option<Format>, compression: Compression, dataset: &str| {
            assert_eq!(format_of(name), format, "{name}");
            assert_eq!(Compression::of(name), compression, "{name}");
            assert_eq!(dataset_of(name), dataset, "{name}");
        };
        check("orders.csv", Some(Format::Csv), Compression::None, "orders");
        check("orders.csv.gz", Some(Format::Csv), Compression::Gzip, "orders");
        check(
            "orders.2024.JSONL.zst",
            Some(Format::Json),
            Compression::Zstd,
            "orders.2024",
        );
        check("orders.parquet", Some(Format::Parquet), Compression::None, "orders");
        // Parquet compresses inside; a compressed Parquet file is not one.
        check("orders.parquet.gz", None, Compression::Gzip, "orders");
        check("orders.tbl", None, Compression::None, "orders");
        check("orders", None, Compression::None, "orders");
        check("part-0001.c000", None, Compression::None, "part-0001");
    }
}

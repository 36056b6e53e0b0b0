//! How the plan of a query names one version of one object.
//!
//! A location is `DEPOT@STORE/VERSION/KEY`. The first part names the depot, from whose manifest a worker opens the store, and
//! the store that was meant, so that a manifest that changed meanwhile does not lead elsewhere; the second names the version
//! of the object that was listed, so that a read of another one is an error; the third is the object's key. So a location is
//! unique among all stores and versions, which caches of footers rely on: theirs are kept by location alone. There is no
//! credential in it.

use std::fmt::Write;

use datafusion::execution::object_store::ObjectStoreUrl;
use object_store::ObjectMeta;
use object_store::path::Path;
use sha2::{Digest, Sha256};

/// The scheme of the URLs by which DataFusion asks for the store of a depot.
pub(crate) const SCHEME: &str = "depot";

/// The URL of a depot's store.
pub(crate) fn store_url(depot: &str) -> datafusion::error::Result<ObjectStoreUrl> {
    ObjectStoreUrl::parse(format!("{SCHEME}://{depot}"))
}

/// The first part of the locations of a depot.
pub(crate) fn store_name(depot: &str, store: &str) -> String {
    format!("{depot}@{store}")
}

/// Sixteen digits that stand for some texts.
pub(crate) fn digest<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    let mut digits = String::with_capacity(16);
    for byte in hash.finalize().iter().take(8) {
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// A version of an object, as far as its store tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Version {
    /// The store names versions by tags.
    Tag(String),
    /// The store tells time and size only; times are compared in seconds, which is what HTTP has.
    Time { seconds: i64, size: u64 },
}

impl Version {
    /// The version that a listing or an answer tells of. Where listings and answers of a store write tags in different ways,
    /// `by_tag` must be false.
    pub(crate) fn of(meta: &ObjectMeta, by_tag: bool) -> Version {
        match meta.e_tag.as_deref().filter(|_| by_tag) {
            Some(tag) => Version::Tag(digest([plain(tag)])),
            None => Version::Time {
                seconds: meta.last_modified.timestamp(),
                size: meta.size,
            },
        }
    }

    fn parse(text: &str) -> Option<Version> {
        if let Some(tag) = text.strip_prefix('e') {
            return Some(Version::Tag(tag.to_owned()));
        }
        let (seconds, size) = text.strip_prefix('t')?.split_once('s')?;
        Some(Version::Time {
            seconds: seconds.parse().ok()?,
            size: size.parse().ok()?,
        })
    }

    fn text(&self) -> String {
        match self {
            Version::Tag(tag) => format!("e{tag}"),
            Version::Time { seconds, size } => format!("t{seconds}s{size}"),
        }
    }

    /// Whether an answer is of this version.
    pub(crate) fn is_of(&self, answer: &ObjectMeta) -> bool {
        *self == Version::of(answer, matches!(self, Version::Tag(_)))
    }
}

/// A tag as some stores write it and others do not.
fn plain(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"')
}

/// The parts of a location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located<'a> {
    pub(crate) store_name: &'a str,
    pub(crate) version: Version,
    pub(crate) key: &'a str,
}

/// The location of a version of an object; `None` if the key cannot be a part of one.
pub(crate) fn locate(store_name: &str, version: &Version, key: &Path) -> Option<Path> {
    Path::parse(format!("{store_name}/{}/{key}", version.text())).ok()
}

/// What a location names; `None` for a path that is not one.
pub(crate) fn parse(location: &Path) -> Option<Located<'_>> {
    let (store_name, rest) = location.as_ref().split_once('/')?;
    let (version, key) = rest.split_once('/')?;
    Some(Located {
        store_name,
        version: Version::parse(version)?,
        key,
    })
}

/// The depot that the first part of a location names.
pub(crate) fn depot_of(store_name: &str) -> &str {
    store_name.split_once('@').map_or(store_name, |(depot, _)| depot)
}

#[cfg(test)]
mod tests {
    use chrono::{TimeZone, Utc};

    use super::*;

    fn meta(e_tag: Option<&str>, seconds: i64, size: u64) -> ObjectMeta {
        ObjectMeta {
            location: Path::from("c/t.csv"),
            last_modified: Utc.timestamp_opt(seconds, 500_000_000).unwrap(),
            size,
            e_tag: e_tag.map(str::to_owned),
            version: None,
        }
    }

    #[test]
    fn a_location_names_depot_store_version_and_key() {
        let key = Path::parse("c/t/year=2024/a%20b.csv").unwrap();
        for listed in [meta(Some("\"abc\""), 7, 9), meta(None, 7, 9), meta(None, -7, 0)] {
            let version = Version::of(&listed, true);
            let location = locate("lake@0123", &version, &key).unwrap();
            let located = parse(&location).unwrap();
            assert_eq!((located.store_name, located.key), ("lake@0123", key.as_ref()));
            assert_eq!(located.version, version);
            assert_eq!(depot_of(located.store_name), "lake");
            assert_eq!(location.filename(), key.filename());
        }
    }

    #[test]
    fn versions_differ_when_tags_do_and_else_by_time_and_size() {
        let listed = Version::of(&meta(Some("0x8D"), 7, 9), true);
        assert!(listed.is_of(&meta(Some("\"0x8D\""), 8, 9)), "a tag says all");
        assert!(!listed.is_of(&meta(Some("\"0x8E\""), 7, 9)));
        assert!(!listed.is_of(&meta(None, 7, 9)));
        let listed = Version::of(&meta(Some("x"), 7, 9), false);
        assert!(listed.is_of(&meta(Some("y"), 7, 9)));
        assert!(!listed.is_of(&meta(None, 8, 9)));
        assert!(!listed.is_of(&meta(None, 7, 10)));
    }

    #[test]
    fn other_paths_are_no_locations() {
        for path in ["work/data/lake/t.csv", "t.csv", "lake@1/x/t.csv", "lake@1/t1/t.csv"] {
            assert_eq!(parse(&Path::from(path)), None, "{path}");
        }
    }
}

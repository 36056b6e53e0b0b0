//! Fingerprints: short names for contents, equal when the contents are, useful to nobody who wants to guess the contents.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

/// What no other process knows: contents hold credentials, and a plain hash of a guessable one could be looked up.
fn salt() -> &'static [u64; 4] {
    static SALT: OnceLock<[u64; 4]> = OnceLock::new();
    SALT.get_or_init(|| std::array::from_fn(|_| RandomState::new().build_hasher().finish()))
}

/// The fingerprint of some parts, in order. It differs from process to process.
pub(crate) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut digest = Sha256::new();
    for word in salt() {
        digest.update(word.to_le_bytes());
    }
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest
        .finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

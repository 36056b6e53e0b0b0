//! The keys of keyed masks: taken from secrets, looked up by name where a mask runs.
//!
//! A key ring is never printed and never part of a plan. Workers make theirs from the secrets they
//! are sent over the authenticated cluster port.

use std::collections::BTreeMap;
use std::fmt;

use minerva_resources::{ResourceSet, Secret};

/// The entry of a secret that holds the key, where it has more than one.
const KEY_ENTRY: &str = "key";

/// The secret that holds the key of every hash that names none, where there is such a secret.
pub(crate) const DEFAULT_KEY: &str = "mask-key";

/// The keys that masks may name, by the names of their secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KeyRing {
    keys: BTreeMap<String, Vec<u8>>,
}

impl KeyRing {
    /// The key in the secret of this name.
    pub fn key(&self, secret: &str) -> Option<&[u8]> {
        self.keys.get(secret).map(Vec::as_slice)
    }

    /// Every key with its secret's name; what a coordinator sends its workers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.keys.iter().map(|(name, key)| (name.as_str(), key.as_slice()))
    }
}

impl FromIterator<(String, Vec<u8>)> for KeyRing {
    fn from_iter<I: IntoIterator<Item = (String, Vec<u8>)>>(keys: I) -> Self {
        Self {
            keys: keys.into_iter().collect(),
        }
    }
}

impl From<&ResourceSet> for KeyRing {
    /// Takes the key of every secret that holds one, so that a worker, which is sent secrets but no policies, makes
    /// the same ring as its coordinator.
    fn from(set: &ResourceSet) -> Self {
        set.secrets()
            .filter_map(|secret| Some((secret.meta.name.clone(), key_of(secret)?.as_bytes().to_vec())))
            .collect()
    }
}

/// The key in a secret: its entry `key`, or its only entry; an empty one is none.
pub(crate) fn key_of(secret: &Secret) -> Option<&str> {
    let only = || secret.data.values().next().filter(|_| secret.data.len() == 1);
    secret
        .data
        .get(KEY_ENTRY)
        .or_else(only)
        .map(String::as_str)
        .filter(|key| !key.is_empty())
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.keys.keys()).finish()
    }
}

//! Who is declared, ready to be found by what they show: keys by hash, certificates by name, providers by issuer.
//!
//! In: the resources of one moment. Out: look-ups that cost the same whoever is looked for. Made once for each set of resources.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use minerva_policy::Principal;
use minerva_resources::{CertificateName, IdentityProvider, ResourceSet, User};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{certificate::ClientCertificate, token::Claims};

/// What is kept of a key: its SHA-256. Two are compared in constant time; a table finds them by a hash that is keyed for each process, so
/// that the time of a look-up says nothing of the stored ones.
#[derive(Clone, Copy)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of a key.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// Reads 64 hexadecimal digits.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// 64 lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for KeyHash {}

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.hash(hasher);
    }
}

impl std::fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyHash")
    }
}

/// Everybody who is declared.
#[derive(Debug)]
pub(crate) struct Identities {
    /// Tells one moment's identities from another's.
    pub(crate) number: u64,
    users: HashMap<String, Arc<Principal>>,
    keys: HashMap<KeyHash, (Arc<Principal>, Option<i64>)>,
    certificates: HashMap<CertificateName, Arc<Principal>>,
    providers: HashMap<String, Arc<IdentityProvider>>,
}

impl Identities {
    pub(crate) fn of(set: &ResourceSet) -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let mut identities = Self {
            number: MADE.fetch_add(1, Ordering::Relaxed),
            users: HashMap::new(),
            keys: HashMap::new(),
            certificates: HashMap::new(),
            providers: HashMap::new(),
        };
        for user in set.users() {
            let person = Arc::new(principal(user));
            for key in &user.apikeys {
                if let Some(hash) = KeyHash::from_hex(&key.sha256) {
                    identities.keys.insert(hash, (Arc::clone(&person), key.expires));
                }
            }
            for name in &user.certificates {
                identities.certificates.insert(name.clone(), Arc::clone(&person));
            }
            identities.users.insert(user.id.clone(), person);
        }
        for provider in set.identity_providers() {
            identities
                .providers
                .insert(provider.issuer.clone(), Arc::clone(provider));
        }
        identities
    }

    /// A declared user.
    pub(crate) fn user(&self, id: &str) -> Option<&Arc<Principal>> {
        self.users.get(id)
    }

    /// Whose key this is, and when it ends.
    pub(crate) fn owner(&self, hash: &KeyHash) -> Option<&(Arc<Principal>, Option<i64>)> {
        self.keys.get(hash)
    }

    /// Whose tokens have this issuer.
    pub(crate) fn provider(&self, issuer: &str) -> Option<&Arc<IdentityProvider>> {
        self.providers.get(issuer)
    }

    /// The users whom a certificate names: one, unless it is nobody's or declared badly.
    pub(crate) fn holders(&self, certificate: &ClientCertificate) -> Vec<&Arc<Principal>> {
        let mut holders: Vec<_> = certificate
            .names
            .iter()
            .filter_map(|name| self.certificates.get(name))
            .collect();
        holders.dedup_by(|one, other| one.id == other.id);
        holders
    }

    /// The user of a token: what it says, and what is declared of that id besides.
    pub(crate) fn bearer(&self, claims: Claims) -> Arc<Principal> {
        let declared = self.user(&claims.user);
        let tags = declared.into_iter().flat_map(|user| user.tags.iter().cloned());
        Arc::new(Principal::new(
            claims.user,
            claims.tags.into_iter().chain(tags).collect::<BTreeSet<_>>(),
            declared.map(|user| user.attributes.clone()).unwrap_or_default(),
        ))
    }
}

/// What is known of a declared user.
pub(crate) fn principal(user: &User) -> Principal {
    Principal::new(
        &user.id,
        user.tags.iter().cloned(),
        user.attributes.clone().into_iter().collect::<BTreeMap<_, _>>(),
    )
}

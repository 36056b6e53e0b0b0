//! Credentials to a principal, or a refusal; never anonymous.
//!
//! In: a user id and an API key, or an API key alone. Out: a [`Principal`], which is made nowhere else. Keys are compared by their
//! SHA-256, so that neither the stored hash nor the time of the comparison tells anything of a key.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use minerva_policy::Principal;
use minerva_resources::{ResourceSet, User};
use rand::RngCore;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    error::{Code, QueryError, Result},
    store::Store,
};

/// What a client shows.
#[derive(Clone)]
pub enum Credentials {
    /// A user id and an API key as its password.
    Basic {
        /// The user id.
        user: String,
        /// The API key, or the wrapped token `base64({"token": KEY, "cluster": NAME})`.
        password: String,
    },
    /// An API key alone.
    Bearer(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Credentials::Basic { user, .. } => f.debug_struct("Basic").field("user", user).finish_non_exhaustive(),
            Credentials::Bearer(_) => f.debug_tuple("Bearer").finish_non_exhaustive(),
        }
    }
}

/// A key wrapped with a cluster's name, for drivers that cannot set headers.
#[derive(Deserialize)]
struct WrappedToken {
    token: String,
    #[serde(default)]
    cluster: Option<String>,
}

/// Finds the user whom the credentials belong to.
pub(crate) fn authenticate(
    set: &ResourceSet,
    store: &Store,
    served: &str,
    credentials: &Credentials,
) -> Result<Arc<Principal>> {
    let (claimed, wrapped) = match credentials {
        Credentials::Basic { user, password } => (Some(user.as_str()), unwrap_token(password)),
        Credentials::Bearer(key) => (None, unwrap_token(key)),
    };
    let sha256 = hash_key(&wrapped.token);
    let owner = match owner_of(set, store, &sha256)? {
        Some((user, expires)) if expires.is_none_or(|end| now() < end) => user,
        Some(_) => return Err(refused("the API key has expired")),
        None => return Err(refused("the user is unknown or the API key is wrong")),
    };
    match claimed {
        Some(claimed) if claimed != owner.id => return Err(refused("the user is unknown or the API key is wrong")),
        _ => {}
    }
    if let Some(cluster) = &wrapped.cluster {
        expect_cluster(cluster, served)?;
    }
    Ok(Arc::new(principal(owner)))
}

/// One coordinator serves one cluster; who asks for another is at the wrong door.
pub(crate) fn expect_cluster(wanted: &str, served: &str) -> Result<()> {
    match wanted == served {
        true => Ok(()),
        false => Err(
            QueryError::new(Code::NotFound, format!("cluster `{wanted}` is not served here"))
                .with_hint(format!("this coordinator serves `{served}`")),
        ),
    }
}

fn refused(reason: &str) -> QueryError {
    QueryError::new(Code::InvalidCredentials, reason).with_hint(
        "make a key with `minerva user apikey create -u USER`, and send it as the password or as a bearer token",
    )
}

fn owner_of<'a>(set: &'a ResourceSet, store: &Store, sha256: &str) -> Result<Option<(&'a User, Option<i64>)>> {
    let mut found = None;
    for user in set.users() {
        for key in &user.apikeys {
            if bool::from(key.sha256.as_bytes().ct_eq(sha256.as_bytes())) {
                found = Some((user.as_ref(), key.expires));
            }
        }
    }
    if found.is_some() {
        return Ok(found);
    }
    let Some((user, expires)) = store.find_key(sha256)? else {
        return Ok(None);
    };
    Ok(set.user(&user).map(|user| (user.as_ref(), Some(expires))))
}

/// What is known of a declared user.
pub(crate) fn principal(user: &User) -> Principal {
    Principal {
        id: user.id.clone(),
        tags: user.tags.iter().cloned().collect::<BTreeSet<_>>(),
        attributes: user.attributes.clone().into_iter().collect::<BTreeMap<_, _>>(),
    }
}

fn unwrap_token(text: &str) -> WrappedToken {
    let decoded = BASE64_STANDARD.decode(text).ok();
    let wrapped = decoded.and_then(|bytes| serde_json::from_slice::<WrappedToken>(&bytes).ok());
    wrapped.unwrap_or_else(|| WrappedToken {
        token: text.to_owned(),
        cluster: None,
    })
}

/// The hash that is kept of a key: SHA-256 in lower-case hex.
pub fn hash_key(key: &str) -> String {
    Sha256::digest(key.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A new key: 256 random bits, after a letter, so that no command line takes it for a flag.
pub(crate) fn new_key() -> String {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    format!("k{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

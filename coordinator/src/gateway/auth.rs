//! What a client shows to a principal, or a refusal; never anonymous.
//!
//! In: [`Presented`]: credentials (API key, token), a client certificate, the address, whom to act as. Out: a [`Principal`], which is made
//! nowhere else. Keys are compared by their SHA-256, in constant time. What a token was found to say is kept until it ends or anything
//! declared changes, so that a kept connection pays for one signature. Nothing here repeats a key or a token.

mod certificate;
mod fetched_keys;
mod header;
mod identities;
mod lockout;
mod token;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use minerva_policy::{Principal, Rules};
use minerva_resources::{IdentityProvider, KeySource, ResourceSet};
use rand::RngCore;

use self::{fetched_keys::FetchedKeys, header::unwrap_token, lockout::Lockout};
use crate::{
    error::{Code, QueryError, Result},
    store::Store,
};

pub use certificate::ClientCertificate;
pub use identities::KeyHash;
pub(crate) use identities::{Identities, principal};
pub use token::{Claims, LONGEST_TOKEN, Refusal, Token, looks_like_token};

/// How many checked tokens are remembered.
const MOST_TOKENS: usize = 10_000;
/// A key of so many characters is not found by trying, and is never locked out. Keys made here have 44.
pub(crate) const UNGUESSABLE: usize = 32;

/// What a client shows.
#[derive(Clone)]
pub enum Credentials {
    /// A user id and an API key or a token as its password.
    Basic {
        /// The user id.
        user: String,
        /// The API key or the token, plain or wrapped: `base64({"token": KEY, "cluster": NAME})`.
        password: String,
    },
    /// An API key or a token alone.
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

/// Everything that a call says of who makes it.
#[derive(Debug, Clone, Default)]
pub struct Presented {
    /// What was shown in a header or a handshake.
    pub credentials: Option<Credentials>,
    /// Where the call comes from; wrong keys are counted by it.
    pub address: Option<IpAddr>,
    /// The client's certificate, if the TLS handshake has checked one.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// The user to act as, if it is another.
    pub act_as: Option<String>,
}

/// The time, as given to every check so that tests need not wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Seconds since 1970, which keys and tokens are measured by.
    pub(crate) seconds: i64,
    /// A clock that is never set, which waits are measured by.
    pub(crate) instant: Instant,
}

impl Now {
    pub(crate) fn real() -> Self {
        Self {
            seconds: now(),
            instant: Instant::now(),
        }
    }
}

/// Why nobody was found.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The client is told why.
    Refused(QueryError),
    /// A token names a key that is not known; the issuer may have published it since.
    UnknownKey(Arc<IdentityProvider>, QueryError),
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        Self::Refused(error)
    }
}

/// What outlives the resources of one moment: wrong keys counted, tokens checked, keys fetched.
#[derive(Debug, Default)]
pub(crate) struct Authenticator {
    lockout: Lockout,
    fetched: FetchedKeys,
    checked: Mutex<HashMap<KeyHash, Checked>>,
}

/// A token that was checked.
#[derive(Debug, Clone)]
struct Checked {
    principal: Arc<Principal>,
    expires: i64,
    identities: u64,
    keys: u64,
    /// When the issuer's keys are looked at again, for those that are fetched and may grow too old.
    until: Instant,
}

/// How long a checked token is believed without a look at whether its key still holds.
const CHECKED_FOR: Duration = Duration::from_secs(60);

/// What a question is answered from.
pub(crate) struct Known<'a> {
    pub(crate) identities: &'a Identities,
    pub(crate) rules: &'a Rules,
    pub(crate) store: &'a Store,
    /// The cluster that is served here.
    pub(crate) cluster: &'a str,
}

impl Authenticator {
    /// Finds the user, and looks at an issuer's keys again when a token names one that is not known.
    pub(crate) async fn authenticate(&self, known: &Known<'_>, presented: &Presented) -> Result<Arc<Principal>> {
        match self.attempt(known, presented, Now::real()) {
            Err(Failure::UnknownKey(provider, error)) => {
                let KeySource::Url { url, authorities } = &provider.keys else {
                    return Err(error);
                };
                self.fetched.look_again(url, authorities.as_deref()).await;
                self.attempt(known, presented, Now::real())
            }
            other => other,
        }
        .map_err(|failure| match failure {
            Failure::Refused(error) | Failure::UnknownKey(_, error) => error,
        })
    }

    /// Finds the user with what is known, without waiting for anything.
    pub(crate) fn attempt(
        &self,
        known: &Known<'_>,
        presented: &Presented,
        now: Now,
    ) -> Result<Arc<Principal>, Failure> {
        let holder = match &presented.certificate {
            Some(certificate) => holder(known.identities, certificate, now)?,
            None => None,
        };
        let principal = match (&presented.credentials, holder) {
            (Some(credentials), holder) => {
                let principal = self.by_credentials(known, credentials, presented.address, now)?;
                if holder.is_some_and(|holder| holder.id != principal.id) {
                    return Err(refused("the certificate and the credentials are of different users").into());
                }
                principal
            }
            (None, Some(holder)) => holder,
            (None, None) if presented.certificate.is_some() => {
                return Err(refused("the certificate is no user's, and there are no other credentials").into());
            }
            (None, None) => return Err(refused("there are no credentials").into()),
        };
        match &presented.act_as {
            Some(other) if *other != principal.id => Ok(impersonate(known, &principal, other)?),
            _ => Ok(principal),
        }
    }

    /// Keeps the keys fresh that are fetched.
    pub(crate) async fn keep_fresh(&self, set: &ResourceSet) {
        self.fetched.keep_fresh(set).await;
    }

    fn by_credentials(
        &self,
        known: &Known<'_>,
        credentials: &Credentials,
        address: Option<IpAddr>,
        now: Now,
    ) -> Result<Arc<Principal>, Failure> {
        let (claimed, wrapped) = match credentials {
            Credentials::Basic { user, password } => (Some(user.as_str()), unwrap_token(password)),
            Credentials::Bearer(key) => (None, unwrap_token(key)),
        };
        let hash = KeyHash::of(&wrapped.token);
        let principal = match looks_like_token(&wrapped.token) {
            true => {
                let principal = self.by_token(known, &wrapped.token, hash, now)?;
                if claimed.is_some_and(|claimed| claimed != principal.id) {
                    return Err(refused("the token is of another user").into());
                }
                principal
            }
            false => self.by_key(known, claimed, &wrapped.token, &hash, address, now)?,
        };
        if let Some(cluster) = &wrapped.cluster {
            expect_cluster(cluster, known.cluster)?;
        }
        Ok(principal)
    }

    fn by_key(
        &self,
        known: &Known<'_>,
        claimed: Option<&str>,
        key: &str,
        hash: &KeyHash,
        address: Option<IpAddr>,
        now: Now,
    ) -> Result<Arc<Principal>> {
        let owner = match known.identities.owner(hash) {
            Some((user, expires)) => Some((Arc::clone(user), *expires)),
            None => known.store.find_key(hash).and_then(|(user, expires)| {
                let user = known.identities.user(&user)?;
                Some((Arc::clone(user), Some(expires)))
            }),
        };
        let owner = owner.filter(|(user, _)| claimed.is_none_or(|claimed| claimed == user.id));
        let is_current = |expires: Option<i64>| expires.is_none_or(|end| now.seconds < end);
        let good = owner.as_ref().is_some_and(|(_, expires)| is_current(*expires));
        // A key that nobody can guess is let in: else who fails on purpose could keep its owner out.
        if !(good && key.len() >= UNGUESSABLE)
            && let Some(wait) = self.lockout.wait(claimed, address, now.instant)
        {
            return Err(locked_out(wait));
        }
        match owner {
            Some((user, _)) if good => {
                self.lockout.succeeded(claimed, address);
                Ok(user)
            }
            // Only who holds the key learns this.
            Some(_) => Err(refused("the API key has expired")),
            None => {
                self.lockout.failed(claimed, address, now.instant);
                Err(refused("the user is unknown or the API key is wrong"))
            }
        }
    }

    fn by_token(&self, known: &Known<'_>, text: &str, hash: KeyHash, now: Now) -> Result<Arc<Principal>, Failure> {
        let keys_version = self.fetched.version();
        if let Some(checked) = self.checked(&hash)
            && checked.identities == known.identities.number
            && checked.keys == keys_version
            && now.seconds < checked.expires
            && now.instant < checked.until
        {
            return Ok(checked.principal);
        }
        let token = Token::read(text).map_err(not_believed)?;
        let provider = token.issuer().and_then(|issuer| known.identities.provider(issuer));
        let provider = provider.ok_or_else(|| not_believed(Refusal::Issuer))?;
        let fetched;
        let keys = match &provider.keys {
            KeySource::File(keys) => keys.as_slice(),
            KeySource::Url { url, authorities } => {
                let Some(keys) = self.fetched.keys(url, authorities.as_deref(), now.instant) else {
                    return Err(Failure::UnknownKey(Arc::clone(provider), not_believed(Refusal::NoKeys)));
                };
                fetched = keys;
                fetched.as_slice()
            }
        };
        let claims = token
            .check(provider, keys, now.seconds)
            .map_err(|refusal| match refusal {
                Refusal::UnknownKey => Failure::UnknownKey(Arc::clone(provider), not_believed(refusal)),
                refusal => Failure::Refused(not_believed(refusal)),
            })?;
        let expires = claims.expires;
        let principal = known.identities.bearer(claims);
        let mut all = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST_TOKENS {
            all.retain(|_, checked| now.seconds < checked.expires && now.instant < checked.until);
            if all.len() >= MOST_TOKENS {
                all.clear();
            }
        }
        let checked = Checked {
            principal: Arc::clone(&principal),
            expires,
            identities: known.identities.number,
            keys: keys_version,
            until: now.instant + CHECKED_FOR,
        };
        all.insert(hash, checked);
        Ok(principal)
    }

    fn checked(&self, hash: &KeyHash) -> Option<Checked> {
        let all = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(hash).cloned()
    }
}

/// The user whom a certificate names, if it names one.
fn holder(identities: &Identities, certificate: &ClientCertificate, now: Now) -> Result<Option<Arc<Principal>>> {
    let holder = match identities.holders(certificate).as_slice() {
        [] => return Ok(None),
        [one] => Arc::clone(one),
        _ => return Err(refused("the certificate names several users")),
    };
    // A handshake looks at the time once, and a connection may be kept for long.
    match now.seconds < certificate.expires {
        true => Ok(Some(holder)),
        false => Err(refused("the certificate has expired")),
    }
}

fn impersonate(known: &Known<'_>, principal: &Principal, other: &str) -> Result<Arc<Principal>> {
    let declared = known.identities.user(other);
    match declared.and_then(|other| known.rules.impersonate(principal, other)) {
        Some(acting) => Ok(Arc::new(acting)),
        // The same for somebody who does not exist.
        None => Err(QueryError::new(
            Code::PermissionDenied,
            format!("user `{}` may not act as another user", principal.id),
        )
        .with_hint("an access policy has to allow `impersonate` on `dataos:system:minerva:user:ID`")),
    }
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

fn not_believed(refusal: Refusal) -> QueryError {
    QueryError::new(Code::InvalidCredentials, refusal.to_string())
        .with_hint("get a new token from an identity provider that is declared here, and send it as a bearer token or as the password")
}

fn locked_out(wait: Duration) -> QueryError {
    let seconds = wait.as_secs_f64().ceil();
    // The seconds are no part of the message, by which the audit counts what is the same.
    QueryError::new(Code::InvalidCredentials, "too many wrong keys came from this address").with_hint(format!(
        "try again in {seconds} s; keys of 32 characters and more, tokens and certificates are let in meanwhile"
    ))
}

/// The hash that is kept of a key: SHA-256 in lower-case hex.
pub fn hash_key(key: &str) -> String {
    KeyHash::of(key).hex()
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

#[cfg(test)]
mod tests;

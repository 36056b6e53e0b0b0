//! Signed tokens (JWT): what they say, and whether it may be believed.
//!
//! In: a token's text, the provider that its issuer names, that provider's keys, the time. Out: [`Claims`], or why not. A pure function of
//! these; keys are found and results kept elsewhere. The key decides the algorithm: a token that names another is refused, and there is no
//! `none` and no HMAC. What a token says where keys are to be found (`jku`, `jwk`, `x5u`, `x5c`) is never looked at.
//! Until the signature is checked, a refusal says nothing that depends on what is declared, but whether the issuer is.

use std::collections::BTreeSet;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use minerva_resources::{Algorithm, IdentityProvider, Jwk, PublicKey};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The longest token that is looked at, in bytes.
pub const LONGEST_TOKEN: usize = 16 << 10;
/// The longest user id, tag and key id that a token may hold.
const LONGEST_NAME: usize = 256;
/// How many tags a token may give.
const MOST_TAGS: usize = 1_000;
/// The end of the year 9999, beyond which no time is taken.
const LAST_MOMENT: f64 = 253_402_300_799.0;

/// Why a token is not believed. The text is safe to tell whoever sent it: it repeats nothing of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no token.
    #[error("the token is malformed")]
    Malformed,
    /// It is too long.
    #[error("the token is longer than {} KiB", LONGEST_TOKEN / 1024)]
    TooLong,
    /// `alg` is none that is accepted.
    #[error("the token's algorithm is not accepted; expected RS256, ES256 or EdDSA")]
    Algorithm,
    /// Its head demands something that is not understood.
    #[error("the token's head asks for what is not supported")]
    Head,
    /// No provider has its issuer.
    #[error("the token's issuer is not declared here")]
    Issuer,
    /// No key of the issuer has its `kid`.
    #[error("the token is signed with a key that its issuer does not publish")]
    UnknownKey,
    /// There are no keys, or they are too old to be trusted.
    #[error("the keys of the token's issuer could not be fetched")]
    NoKeys,
    /// The signature does not fit.
    #[error("the token's signature is wrong")]
    Signature,
    /// It is for somebody else.
    #[error("the token is not meant for Minerva: none of its audiences (`aud`) is expected here")]
    Audience,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// It has no end.
    #[error("the token has no expiry (`exp`)")]
    NoExpiry,
    /// Its time has not begun.
    #[error("the token does not hold yet (`nbf` or `iat` lies in the future)")]
    TooEarly,
    /// It lives too long.
    #[error("the token lives longer than the provider's `maxLifetime`")]
    LivesTooLong,
    /// It was taken back.
    #[error("the token was revoked")]
    Revoked,
    /// The claim with the user is missing or no usable id.
    #[error("the token names no usable user")]
    User,
    /// The claim with the tags is not of texts.
    #[error("the token's tags are not texts that can be used")]
    Tags,
}

/// What a token that is believed says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The user's id.
    pub user: String,
    /// Tags, each below the provider's prefix.
    pub tags: BTreeSet<String>,
    /// When it ends, in seconds since 1970, the clock's skew included.
    pub expires: i64,
}

/// A token that was taken apart, of which nothing is believed yet.
#[derive(Debug)]
pub struct Token<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    algorithm: Algorithm,
    kid: Option<String>,
    claims: Map<String, Value>,
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    cty: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
    b64: Option<bool>,
}

/// Whether a text is meant to be a token: API keys have no dots.
pub fn looks_like_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.bytes().filter(|byte| *byte == b'.').count() >= 2
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// When it is too long, malformed or of a kind that is not accepted.
    pub fn read(text: &'a str) -> Result<Self, Refusal> {
        if text.len() > LONGEST_TOKEN {
            return Err(Refusal::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Refusal::Malformed)?;
        let (head, claims) = signed.split_once('.').ok_or(Refusal::Malformed)?;
        let bytes = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed);
        let head: Head = serde_json::from_slice(&bytes(head)?).map_err(|_| Refusal::Malformed)?;
        let algorithm = Algorithm::named(&head.alg).ok_or(Refusal::Algorithm)?;
        let is_plain = head.typ.as_deref().is_none_or(|kind| {
            let kind = kind.to_ascii_lowercase();
            matches!(kind.trim_start_matches("application/"), "jwt" | "at+jwt")
        });
        let is_long = head.kid.as_ref().is_some_and(|kid| kid.len() > LONGEST_NAME);
        if !is_plain || is_long || head.crit.is_some() || head.cty.is_some() || head.b64 == Some(false) {
            return Err(Refusal::Head);
        }
        Ok(Self {
            signed,
            signature: bytes(signature)?,
            algorithm,
            kid: head.kid,
            claims: serde_json::from_slice(&bytes(claims)?).map_err(|_| Refusal::Malformed)?,
        })
    }

    /// Whose token it says that it is; nothing to believe yet.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// What the token says, if the provider's keys and declaration say that it may be believed at this time (seconds since 1970).
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn check(&self, provider: &IdentityProvider, keys: &[Jwk], now: i64) -> Result<Claims, Refusal> {
        if self.issuer() != Some(provider.issuer.as_str()) {
            return Err(Refusal::Issuer);
        }
        if !provider.algorithms.contains(&self.algorithm) {
            return Err(Refusal::Algorithm);
        }
        self.check_signature(keys)?;
        self.check_audience(provider)?;
        let expires = self.check_times(provider, now)?;
        let id = self.claims.get("jti").and_then(Value::as_str);
        if id.is_some_and(|id| provider.revoked.iter().any(|revoked| revoked == id)) {
            return Err(Refusal::Revoked);
        }
        let user = claim(&self.claims, &provider.user_claim).and_then(Value::as_str);
        let user = user.filter(|user| is_user_id(user)).ok_or(Refusal::User)?;
        Ok(Claims {
            user: user.to_owned(),
            tags: self.tags(provider)?,
            expires,
        })
    }

    /// The keys are those that the token names; when it names none, all of its algorithm are tried.
    fn check_signature(&self, keys: &[Jwk]) -> Result<(), Refusal> {
        let mut candidates = keys
            .iter()
            .filter(|key| key.algorithm() == self.algorithm)
            .filter(|key| self.kid.is_none() || key.kid == self.kid)
            .peekable();
        if candidates.peek().is_none() {
            return Err(Refusal::UnknownKey);
        }
        match candidates.any(|key| fits(&key.key, self.signed.as_bytes(), &self.signature)) {
            true => Ok(()),
            false => Err(Refusal::Signature),
        }
    }

    fn check_audience(&self, provider: &IdentityProvider) -> Result<(), Refusal> {
        let is_ours = |value: &Value| {
            let text = value.as_str();
            text.is_some_and(|text| provider.audience.iter().any(|expected| expected == text))
        };
        let found = match self.claims.get("aud") {
            Some(Value::Array(several)) => several.iter().any(is_ours),
            Some(one) => is_ours(one),
            None => false,
        };
        if found { Ok(()) } else { Err(Refusal::Audience) }
    }

    /// When the token ends.
    fn check_times(&self, provider: &IdentityProvider, now: i64) -> Result<i64, Refusal> {
        let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let skew = seconds(provider.clock_skew);
        let end = self.moment("exp")?.ok_or(Refusal::NoExpiry)?;
        let (begin, issued) = (self.moment("nbf")?, self.moment("iat")?);
        if now >= end.saturating_add(skew) {
            return Err(Refusal::Expired);
        }
        let latest = now.saturating_add(skew);
        if begin.is_some_and(|begin| begin > latest) || issued.is_some_and(|issued| issued > latest) {
            return Err(Refusal::TooEarly);
        }
        let longest = issued.unwrap_or(latest).saturating_add(seconds(provider.max_lifetime));
        if end > longest {
            return Err(Refusal::LivesTooLong);
        }
        Ok(end.saturating_add(skew))
    }

    fn moment(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.claims.get(name) else {
            return Ok(None);
        };
        let seconds = value.as_f64().filter(|seconds| (0.0..=LAST_MOMENT).contains(seconds));
        seconds.map(|seconds| Some(seconds as i64)).ok_or(Refusal::Malformed)
    }

    fn tags(&self, provider: &IdentityProvider) -> Result<BTreeSet<String>, Refusal> {
        let Some(from) = &provider.tags else {
            return Ok(BTreeSet::new());
        };
        let values = match claim(&self.claims, &from.claim) {
            None | Some(Value::Null) => &[],
            Some(Value::Array(several)) => several.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        if values.len() > MOST_TAGS {
            return Err(Refusal::Tags);
        }
        // A tag left out could be one that a policy denies or masks by: all or nothing.
        let tag = |value: &Value| {
            let text = value.as_str().filter(|text| is_tag(text)).ok_or(Refusal::Tags)?;
            Ok(format!("{}{text}", from.prefix))
        };
        values.iter().map(tag).collect()
    }
}

/// A claim by its name; `a.b` is also the claim `b` inside `a`.
fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| {
        let (outer, inner) = name.split_once('.')?;
        claim(claims.get(outer)?.as_object()?, inner)
    })
}

/// What can stand in a tag, a Basic header and a log, and looks like nothing else.
fn is_user_id(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
}

fn is_tag(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len()) && !text.chars().any(char::is_control) && text.trim() == text
}

fn fits(key: &PublicKey, signed: &[u8], signature: &[u8]) -> bool {
    match key {
        PublicKey::Rsa { n, e } => {
            RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature)
        }
        PublicKey::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature),
        PublicKey::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point).verify(signed, signature),
    }
    .is_ok()
}

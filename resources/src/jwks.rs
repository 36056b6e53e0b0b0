//! JSON Web Key Sets: the public keys that tokens of an issuer are checked with.
//!
//! In: the text of a key set. Out: the keys that can check RS256, ES256 or EdDSA, and what was passed over. Deliberately absent: any
//! cryptography, and keys that a token could be forged with: a private key is an error, a symmetric one is passed over.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;

/// The largest key set that is read, in bytes.
pub const LARGEST_KEY_SET: usize = 1 << 20;
/// How many keys a set may hold.
const MOST_KEYS: usize = 100;

/// How a token is signed. There is no `none` and no HMAC: a token is checked with a public key or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA, PKCS #1 v1.5, SHA-256.
    Rs256,
    /// ECDSA on P-256, SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];

    /// The name in the head of a token.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// RSA: modulus and exponent, big-endian without leading zeros.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
    /// A point on P-256, uncompressed: 4, then 32 bytes for each coordinate.
    P256(Vec<u8>),
    /// Ed25519: 32 bytes.
    Ed25519(Vec<u8>),
}

/// A key of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwk {
    /// What tokens call the key.
    pub kid: Option<String>,
    /// The key.
    pub key: PublicKey,
}

impl Jwk {
    /// The one algorithm that the key is for; what a token says of itself does not change it.
    pub fn algorithm(&self) -> Algorithm {
        match self.key {
            PublicKey::Rsa { .. } => Algorithm::Rs256,
            PublicKey::P256(_) => Algorithm::Es256,
            PublicKey::Ed25519(_) => Algorithm::EdDsa,
        }
    }
}

/// A key set that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Jwks {
    /// The keys that can be used.
    pub keys: Vec<Jwk>,
    /// Why other keys are not: for those who wrote the set.
    pub passed_over: Vec<String>,
    /// Which of them should have been usable: the kind is known and the key is not in order.
    pub broken: Vec<String>,
}

#[derive(Deserialize)]
struct Written {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct WrittenKey {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<serde::de::IgnoredAny>,
}

/// Why a key is not used.
enum Unused {
    /// Its kind or purpose is another.
    PassedOver(String),
    /// It is not in order.
    Broken(String),
}

impl Jwks {
    /// Reads a key set.
    ///
    /// # Errors
    /// What is wrong with the set as a whole: it is no key set, holds a private key, or holds no key that can be used.
    pub fn read(text: &str) -> Result<Self, String> {
        if text.len() > LARGEST_KEY_SET {
            return Err(format!("the key set is larger than {} KiB", LARGEST_KEY_SET / 1024));
        }
        // What serde says quotes values, and a file named by mistake may hold secrets.
        let written: Written = serde_json::from_str(text).map_err(|error| {
            format!(
                "no JSON Web Key Set, at line {}; expected such as `{{\"keys\": [{{\"kty\": \"RSA\", ...}}]}}`",
                error.line()
            )
        })?;
        if written.keys.len() > MOST_KEYS {
            return Err(format!(
                "the key set holds {} keys; at most {MOST_KEYS} are read",
                written.keys.len()
            ));
        }
        let mut set = Self::default();
        for (number, value) in (1..).zip(written.keys) {
            let Ok(key) = serde_json::from_value::<WrittenKey>(value) else {
                set.broken.push(format!("key {number}: no JSON Web Key"));
                continue;
            };
            let name = key
                .kid
                .as_ref()
                .map_or_else(|| number.to_string(), |kid| format!("`{kid}`"));
            if key.d.is_some() {
                return Err(format!(
                    "key {name} is a private key, with which anybody could sign tokens; publish the public part only"
                ));
            }
            match public_key(&key) {
                Ok(public) => set.keys.push(Jwk {
                    kid: key.kid,
                    key: public,
                }),
                Err(Unused::PassedOver(why)) => set.passed_over.push(format!("key {name}: {why}")),
                Err(Unused::Broken(why)) => set.broken.push(format!("key {name}: {why}")),
            }
        }
        if set.keys.is_empty() && set.broken.is_empty() {
            let why = match set.passed_over.is_empty() {
                true => String::new(),
                false => format!(" ({})", set.passed_over.join("; ")),
            };
            return Err(format!(
                "the key set holds no key for RS256, ES256 or EdDSA signatures{why}"
            ));
        }
        Ok(set)
    }
}

fn public_key(key: &WrittenKey) -> Result<PublicKey, Unused> {
    if key.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
        return Err(Unused::PassedOver("it is not for signatures".to_owned()));
    }
    if key
        .key_ops
        .as_ref()
        .is_some_and(|operations| !operations.iter().any(|operation| operation == "verify"))
    {
        return Err(Unused::PassedOver("it is not for checking signatures".to_owned()));
    }
    let (algorithm, public) = match (key.kty.as_str(), key.crv.as_deref()) {
        ("RSA", _) => (Algorithm::Rs256, rsa as fn(&WrittenKey) -> Result<PublicKey, String>),
        ("EC", Some("P-256")) => (Algorithm::Es256, p256 as _),
        ("OKP", Some("Ed25519")) => (Algorithm::EdDsa, ed25519 as _),
        ("oct", _) => {
            return Err(Unused::PassedOver(
                "it is symmetric: who can check with it can sign".to_owned(),
            ));
        }
        _ => return Err(Unused::PassedOver("its kind is not supported".to_owned())),
    };
    let other =
        |written: &&str| *written != algorithm.name() && !(*written == "Ed25519" && algorithm == Algorithm::EdDsa);
    if key.alg.as_deref().filter(other).is_some() {
        return Err(Unused::PassedOver("its `alg` is another".to_owned()));
    }
    public(key).map_err(Unused::Broken)
}

fn bytes(name: &str, text: Option<&String>) -> Result<Vec<u8>, String> {
    let text = text.ok_or_else(|| format!("`{name}` is missing"))?;
    BASE64_URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| format!("`{name}` is not base64url without padding"))
}

fn rsa(key: &WrittenKey) -> Result<PublicKey, String> {
    let number = |name, text| {
        let bytes = bytes(name, text)?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Ok::<_, String>(bytes.get(zeros..).unwrap_or_default().to_vec())
    };
    let (n, e) = (number("n", key.n.as_ref())?, number("e", key.e.as_ref())?);
    let leading = n.first().map_or(8, |byte| byte.leading_zeros() as usize);
    let bits = (n.len() * 8).saturating_sub(leading);
    if !(2048..=8192).contains(&bits) {
        return Err(format!("the RSA key has {bits} bits; expected 2048 to 8192"));
    }
    let exponent = e.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    if e.len() > 4 || exponent < 3 || exponent % 2 == 0 {
        return Err("the exponent `e` is not an odd number from 3 on, of at most 32 bits".to_owned());
    }
    Ok(PublicKey::Rsa { n, e })
}

fn p256(key: &WrittenKey) -> Result<PublicKey, String> {
    let mut point = vec![4];
    for (name, text) in [("x", &key.x), ("y", &key.y)] {
        let coordinate = bytes(name, text.as_ref())?;
        if coordinate.len() != 32 {
            return Err(format!("`{name}` has {} bytes; expected 32", coordinate.len()));
        }
        point.extend(coordinate);
    }
    Ok(PublicKey::P256(point))
}

fn ed25519(key: &WrittenKey) -> Result<PublicKey, String> {
    let x = bytes("x", key.x.as_ref())?;
    match x.len() {
        32 => Ok(PublicKey::Ed25519(x)),
        length => Err(format!("`x` has {length} bytes; expected 32")),
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"e","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    #[test]
    fn keys_are_read_and_others_passed_over() {
        let text = format!(
            r#"{{"keys":[{ED},{{"kty":"oct","k":"c2VjcmV0"}},{{"kty":"EC","crv":"P-521"}},{{"kty":"RSA","use":"enc"}},{{"kty":"RSA","alg":"RS512"}}]}}"#
        );
        let set = Jwks::read(&text).unwrap();
        assert_eq!(
            (set.keys.len(), set.passed_over.len(), set.broken.len()),
            (1, 4, 0),
            "{set:?}"
        );
        assert_eq!(set.keys[0].algorithm(), Algorithm::EdDsa);
        assert_eq!(set.keys[0].kid.as_deref(), Some("e"));
    }

    #[test]
    fn a_set_that_is_not_in_order_says_why_and_quotes_nothing() {
        for (text, why) in [
            ("s3cret", "no JSON Web Key Set"),
            (r#"{"keys": "s3cret"}"#, "no JSON Web Key Set"),
            (r#"{"keys": []}"#, "holds no key"),
            (r#"{"keys": [{"kty":"oct","k":"s3cret"}]}"#, "symmetric"),
            (
                r#"{"keys": [{"kty":"OKP","crv":"Ed25519","x":"a","d":"s3cret"}]}"#,
                "private key",
            ),
        ] {
            let refused = Jwks::read(text).unwrap_err();
            assert!(
                refused.contains(why) && !refused.contains("s3cret"),
                "{text}: {refused}"
            );
        }
        for (key, why) in [
            (r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#, "17 bits"),
            (r#"{"kty":"RSA","e":"AQAB"}"#, "`n` is missing"),
            (r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#, "3 bytes"),
            (r#"{"kty":"EC","crv":"P-256","x":"AAAA","y":"!"}"#, "expected 32"),
            (r#"{"kid":"x"}"#, "no JSON Web Key"),
        ] {
            let set = Jwks::read(&format!(r#"{{"keys":[{ED},{key}]}}"#)).unwrap();
            assert!(set.broken.iter().any(|said| said.contains(why)), "{key}: {set:?}");
        }
        let many = vec![ED; 101].join(",");
        assert!(
            Jwks::read(&format!(r#"{{"keys":[{many}]}}"#))
                .unwrap_err()
                .contains("101 keys")
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = Jwks::read(&text);
            let _ = Jwks::read(&format!(r#"{{"keys":[{{"kty":"RSA","n":"{text}","e":"AQAB"}}]}}"#));
        }
    }
}

//! Keys, tokens and certificates against the authenticator, with a clock that the tests set.

use std::{fs, path::Path, sync::LazyLock};

use minerva_resources::load;
use proptest::prelude::*;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const ISSUER: &str = "https://idp.example";
/// The seconds at which the tests take place.
const TODAY: i64 = 1_800_000_000;
/// A key that a person might choose: short enough to be guessed.
const SHORT: &str = "jane-key";

fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A pair of keys that signs.
enum Signer {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
}

impl Signer {
    fn ed() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
    }

    fn ec() -> Self {
        let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        Self::Ec(EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).unwrap())
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed(_) => "EdDSA",
            Self::Ec(_) => "ES256",
        }
    }

    fn public(&self, kid: &str) -> Value {
        match self {
            Self::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": base64(pair.public_key().as_ref())})
            }
            Self::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "alg": "ES256", "x": base64(x), "y": base64(y)})
            }
        }
    }

    fn sign(&self, signed: &str) -> String {
        let signature = match self {
            Self::Ed(pair) => pair.sign(signed.as_bytes()).as_ref().to_vec(),
            Self::Ec(pair) => pair
                .sign(&SystemRandom::new(), signed.as_bytes())
                .unwrap()
                .as_ref()
                .to_vec(),
        };
        format!("{signed}.{}", base64(signature))
    }

    fn token_with(&self, head: &Value, claims: &Value) -> String {
        self.sign(&format!("{}.{}", base64(head.to_string()), base64(claims.to_string())))
    }

    fn token(&self, kid: &str, claims: &Value) -> String {
        self.token_with(&json!({"alg": self.algorithm(), "typ": "JWT", "kid": kid}), claims)
    }
}

/// Good claims of jane, and what is to be different.
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "sub": "jane", "aud": "minerva", "iat": TODAY - 10, "exp": TODAY + 3600, "groups": ["analyst"],
    });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims
}

/// A world of its own: users, a provider, a store, and the authenticator.
struct World {
    folder: TempDir,
    identities: Identities,
    rules: Rules,
    store: Store,
    authenticator: Authenticator,
    now: Now,
}

impl World {
    fn new(keys: &[Value]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (identities, rules) = Self::read(folder.path(), keys);
        Self {
            identities,
            rules,
            store: Store::open(&folder.path().join("state.db")).unwrap(),
            folder,
            authenticator: Authenticator::default(),
            now: Now {
                seconds: TODAY,
                instant: Instant::now(),
            },
        }
    }

    fn read(folder: &Path, keys: &[Value]) -> (Identities, Rules) {
        let manifests = format!(
            "name: jane
version: v1
type: user
user:
  tags: [roles:id:user]
  attributes: {{region: EU}}
  apikeys: [{{name: a, sha256: {}}}, {{name: b, sha256: {}, expires: 2027-01-15}}]
  certificates: [{{subject: \"CN=jane,O=Acme\"}}, {{uri: spiffe://acme/jane}}]
---
name: bob
version: v1
type: user
user: {{tags: [roles:id:desk], apikeys: [{{name: a, sha256: {}}}], certificates: [{{uri: spiffe://acme/bob}}]}}
---
name: desk
version: v1
type: policy
policy:
  access: {{subjects: {{tags: ['roles:id:desk']}}, predicates: [impersonate], objects: {{tags: ['dataos:system:minerva:user:jane']}}, allow: true}}
---
name: corp
version: v1
type: identity-provider
identity-provider:
  issuer: {ISSUER}
  jwks: keys.json
  audience: [minerva, other]
  tagsClaim: groups
  tagPrefix: \"roles:id:\"
  revoked: [gone]
",
            hash_key(SHORT),
            hash_key("old-key"),
            hash_key("bob-key"),
        );
        fs::write(folder.join("keys.json"), json!({ "keys": keys }).to_string()).unwrap();
        fs::write(folder.join("all.yaml"), manifests).unwrap();
        let set = load(&[folder.join("all.yaml")], &[]).unwrap();
        (Identities::of(&set), Rules::compile(&set).unwrap())
    }

    fn reload(&mut self, keys: &[Value]) {
        (self.identities, self.rules) = Self::read(self.folder.path(), keys);
    }

    fn present(&self, presented: &Presented) -> Result<Arc<Principal>> {
        let known = Known {
            identities: &self.identities,
            rules: &self.rules,
            store: &self.store,
            cluster: "minerva",
        };
        self.authenticator
            .attempt(&known, presented, self.now)
            .map_err(|failure| match failure {
                Failure::Refused(error) | Failure::UnknownKey(_, error) => error,
            })
    }

    fn show(&self, credentials: Credentials) -> Result<Arc<Principal>> {
        self.present(&Presented {
            credentials: Some(credentials),
            address: Some([127, 0, 0, 1].into()),
            ..Presented::default()
        })
    }

    fn bearer(&self, token: &str) -> Result<Arc<Principal>> {
        self.show(Credentials::Bearer(token.to_owned()))
    }

    fn basic(&self, user: &str, password: &str) -> Result<Arc<Principal>> {
        self.show(Credentials::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }
}

fn refused_with(outcome: Result<Arc<Principal>>, why: &str) {
    let error = outcome.expect_err(why);
    assert_eq!(error.code, Code::InvalidCredentials, "{error}");
    let (message, hint) = (&error.message, error.hint.as_deref().unwrap_or_default());
    assert!(
        message.contains(why) || hint.starts_with(why),
        "`{why}` is not in: {message}; {hint}"
    );
}

#[test]
fn a_token_makes_its_user_with_the_tags_below_the_prefix_and_what_is_declared() {
    for signer in [Signer::ed(), Signer::ec()] {
        let world = World::new(&[signer.public("k1")]);
        let token = signer.token("k1", &claims(json!({})));
        let jane = world.bearer(&token).unwrap();
        let tags: Vec<_> = jane.tags.iter().map(String::as_str).collect();
        assert_eq!(tags, ["roles:id:analyst", "roles:id:user", "users:id:jane"]);
        assert_eq!(jane.attributes["region"], "EU");
        assert!(Arc::ptr_eq(&jane, &world.bearer(&token).unwrap()), "checked once");
        assert_eq!(world.basic("jane", &token).unwrap().id, "jane");
        refused_with(world.basic("bob", &token), "of another user");
        let wrap = |cluster: &str| {
            let text = json!({"token": token, "cluster": cluster}).to_string();
            base64::prelude::BASE64_STANDARD.encode(text)
        };
        assert_eq!(world.basic("jane", &wrap("minerva")).unwrap().id, "jane");
        assert_eq!(world.basic("jane", &wrap("else")).unwrap_err().code, Code::NotFound);

        let stranger = signer.token("k1", &claims(json!({"sub": "eve@acme.example", "groups": "a b"})));
        let stranger = world.bearer(&stranger).unwrap();
        let tags: Vec<_> = stranger.tags.iter().map(String::as_str).collect();
        assert_eq!(tags, ["roles:id:a b", "users:id:eve@acme.example"]);
        assert!(stranger.attributes.is_empty());
    }
}

#[test]
fn claims_that_do_not_hold_are_refused_with_the_reason() {
    let signer = Signer::ed();
    let world = World::new(&[signer.public("k1")]);
    for (change, why) in [
        (json!({"iss": "https://other.example"}), "issuer is not declared"),
        (json!({"iss": null}), "issuer is not declared"),
        (json!({"iss": [ISSUER]}), "issuer is not declared"),
        (json!({"aud": "else"}), "not meant for Minerva"),
        (json!({"aud": null}), "not meant for Minerva"),
        (json!({"aud": ["else"]}), "not meant for Minerva"),
        (json!({"aud": {"minerva": 1}}), "not meant for Minerva"),
        (json!({"exp": TODAY - 61}), "expired"),
        (json!({"exp": null}), "no expiry"),
        (json!({"exp": "never"}), "malformed"),
        (json!({"exp": 1e300}), "malformed"),
        (json!({"exp": TODAY + 25 * 3600}), "lives longer"),
        (json!({"iat": null, "exp": TODAY + 25 * 3600}), "lives longer"),
        (json!({"nbf": TODAY + 61}), "does not hold yet"),
        (json!({"iat": TODAY + 61}), "does not hold yet"),
        (json!({"jti": "gone"}), "revoked"),
        (json!({"sub": null}), "no usable user"),
        (json!({"sub": ""}), "no usable user"),
        (json!({"sub": 7}), "no usable user"),
        (json!({"sub": "a:b"}), "no usable user"),
        (json!({"sub": "jane by bob"}), "no usable user"),
        (json!({"sub": "j\u{430}ne"}), "no usable user"),
        (json!({"sub": "jane\n"}), "no usable user"),
        (json!({"sub": "x".repeat(257)}), "no usable user"),
        (json!({"groups": [7]}), "tags"),
        (json!({"groups": {"a": 1}}), "tags"),
        (json!({"groups": [""]}), "tags"),
        (json!({"groups": ["a\u{0}b"]}), "tags"),
        (json!({"groups": vec!["a"; 1_001]}), "tags"),
    ] {
        refused_with(world.bearer(&signer.token("k1", &claims(change))), why);
    }
    for good in [
        json!({"aud": ["else", "other"]}),
        json!({"exp": TODAY - 59}),
        json!({"nbf": TODAY + 59, "iat": TODAY + 59}),
        json!({"exp": TODAY as f64 + 0.5}),
        json!({"groups": null, "jti": "here"}),
        json!({"groups": ["users:id:root", "../x"]}),
    ] {
        let principal = world.bearer(&signer.token("k1", &claims(good))).unwrap();
        let own = |tag: &String| tag.starts_with("roles:id:") || tag == "users:id:jane";
        assert!(principal.tags.iter().all(own), "{principal:?}");
    }
}

#[test]
fn a_token_ends_although_it_was_checked_and_a_changed_declaration_is_asked_again() {
    let signer = Signer::ed();
    let mut world = World::new(&[signer.public("k1")]);
    let token = signer.token("k1", &claims(json!({"exp": TODAY + 100})));
    world.bearer(&token).unwrap();
    world.now.seconds += 159;
    world.bearer(&token).unwrap();
    world.now.seconds += 1;
    refused_with(world.bearer(&token), "expired");

    world.now.seconds = TODAY;
    let next = Signer::ed();
    world.reload(&[signer.public("k1"), next.public("k2")]);
    world.bearer(&token).unwrap();
    world.bearer(&next.token("k2", &claims(json!({})))).unwrap();
    world.reload(&[next.public("k2")]);
    refused_with(world.bearer(&token), "does not publish");
    world.reload(&[next.public("k1")]);
    refused_with(world.bearer(&token), "signature is wrong");
}

#[test]
fn the_key_decides_the_algorithm_and_the_token_does_not() {
    let (ed, ec, other) = (Signer::ed(), Signer::ec(), Signer::ed());
    let world = World::new(&[ed.public("ed"), ec.public("ec")]);
    let good = claims(json!({}));
    refused_with(world.bearer(&other.token("ed", &good)), "signature is wrong");
    refused_with(world.bearer(&other.token("unknown", &good)), "does not publish");
    // Without a name, every key of the algorithm is tried.
    let anonymous = |signer: &Signer| signer.token_with(&json!({"alg": signer.algorithm()}), &good);
    world.bearer(&anonymous(&ed)).unwrap();
    world.bearer(&anonymous(&ec)).unwrap();
    refused_with(world.bearer(&anonymous(&other)), "signature is wrong");
    // The name of a key of another kind.
    refused_with(world.bearer(&ed.token("ec", &good)), "does not publish");

    for (alg, why) in [
        ("none", "algorithm"),
        ("None", "algorithm"),
        ("", "algorithm"),
        ("HS256", "algorithm"),
        ("RS512", "algorithm"),
        ("PS256", "algorithm"),
        ("eddsa", "algorithm"),
        ("ES256", "signature is wrong"),
        ("RS256", "does not publish"),
    ] {
        let head = json!({"alg": alg, "kid": if alg == "ES256" { "ec" } else { "ed" }});
        refused_with(world.bearer(&ed.token_with(&head, &good)), why);
    }
    // Nothing that was signed by nobody, whatever its head says.
    let unsigned = format!(
        "{}.{}.",
        base64(json!({"alg": "none"}).to_string()),
        base64(good.to_string())
    );
    refused_with(world.bearer(&unsigned), "algorithm");
    for head in [
        json!({"alg": "EdDSA", "crit": ["exp"]}),
        json!({"alg": "EdDSA", "b64": false}),
        json!({"alg": "EdDSA", "typ": "dpop+jwt"}),
        json!({"alg": "EdDSA", "cty": "JWT"}),
        json!({"alg": "EdDSA", "kid": "k".repeat(257)}),
    ] {
        refused_with(world.bearer(&ed.token_with(&head, &good)), "not supported");
    }
    for head in [
        json!({"alg": "EdDSA", "typ": "at+jwt", "jwk": other.public("x"), "jku": "http://127.0.0.1:1/keys"}),
        json!({"alg": "EdDSA", "typ": "application/JWT"}),
    ] {
        world.bearer(&ed.token_with(&head, &good)).unwrap();
        refused_with(world.bearer(&other.token_with(&head, &good)), "signature is wrong");
    }
}

#[test]
fn what_is_no_token_is_refused_and_never_repeated() {
    let signer = Signer::ed();
    let world = World::new(&[signer.public("k1")]);
    let good = signer.token("k1", &claims(json!({})));
    let long = signer.token("k1", &claims(json!({"x": "y".repeat(LONGEST_TOKEN)})));
    refused_with(world.bearer(&long), "longer than");
    let (signed, signature) = good.rsplit_once('.').unwrap();
    for text in [
        format!("{signed}."),
        format!("{signed}.{signature}="),
        format!("{signed}.{signature}.x"),
        format!("{signed}.{}", &signature[1..]),
        format!("{good} "),
        good.replace('.', ".."),
        format!("eyJ.{}.{}", "x".repeat(100), "y"),
    ] {
        let error = world.bearer(&text).unwrap_err();
        assert_eq!(error.code, Code::InvalidCredentials);
        assert!(!format!("{error:?}").contains(&signed[..40]), "{error:?}");
    }
}

#[test]
fn keys_are_of_their_user_and_refusals_are_alike() {
    let world = World::new(&[Signer::ed().public("k")]);
    assert_eq!(world.basic("jane", SHORT).unwrap().id, "jane");
    assert_eq!(world.bearer(SHORT).unwrap().id, "jane");
    let refusals: Vec<_> = [
        world.basic("jane", "wrong"),
        world.basic("nobody", "wrong"),
        world.basic("nobody", SHORT),
        world.basic("bob", SHORT),
        world.basic("", ""),
        world.bearer("wrong"),
    ]
    .into_iter()
    .map(|outcome| outcome.unwrap_err().to_string())
    .collect();
    assert!(refusals.iter().all(|text| *text == refusals[0]), "{refusals:?}");
    refused_with(world.basic("jane", "old-key"), "expired");
    let key = new_key();
    let stored = crate::store::StoredKey {
        user: "bob".into(),
        name: "laptop".into(),
        created: TODAY,
        expires: TODAY + 1,
    };
    world.store.add_key(&stored, &KeyHash::of(&key)).unwrap();
    assert_eq!(world.bearer(&key).unwrap().id, "bob");
}

#[test]
fn wrong_keys_lock_a_guessable_one_for_a_while_and_no_other() {
    let signer = Signer::ed();
    let mut world = World::new(&[signer.public("k1")]);
    let (long, token) = (new_key(), signer.token("k1", &claims(json!({}))));
    let stored = crate::store::StoredKey {
        user: "jane".into(),
        name: "laptop".into(),
        created: TODAY,
        expires: TODAY + 1_000,
    };
    world.store.add_key(&stored, &KeyHash::of(&long)).unwrap();
    for _ in 0..11 {
        refused_with(world.basic("jane", "wrong"), "unknown or the API key is wrong");
    }
    refused_with(world.basic("jane", "wrong"), "try again in 1 s");
    refused_with(world.basic("jane", SHORT), "try again in 1 s");
    assert_eq!(world.basic("jane", &long).unwrap().id, "jane", "nobody can guess it");
    assert_eq!(world.basic("jane", &token).unwrap().id, "jane");
    assert_eq!(world.basic("bob", "bob-key").unwrap().id, "bob", "another user");
    world.now.instant += Duration::from_secs(1);
    assert_eq!(world.basic("jane", SHORT).unwrap().id, "jane");
    // The same words for a user who does not exist.
    for _ in 0..11 {
        refused_with(world.basic("nobody", "wrong"), "unknown or the API key is wrong");
    }
    refused_with(world.basic("nobody", "wrong"), "try again in 1 s");
    // Expired and forged tokens count against nobody.
    for _ in 0..200 {
        refused_with(world.basic("bob", &format!("{token}x")), "malformed");
    }
    assert_eq!(world.basic("bob", "bob-key").unwrap().id, "bob");
}

fn certificate(names: &[&str]) -> Option<Arc<ClientCertificate>> {
    use minerva_resources::{CertificateName, Subject};
    let name = |text: &&str| match text.contains("://") {
        true => CertificateName::Uri((*text).to_owned()),
        false => CertificateName::Subject(Subject::parse(text).unwrap()),
    };
    Some(Arc::new(ClientCertificate {
        names: names.iter().map(name).collect(),
        expires: TODAY + 100,
    }))
}

#[test]
fn a_certificate_is_a_user_and_must_agree_with_other_credentials() {
    let mut world = World::new(&[Signer::ed().public("k")]);
    let shown = |names: &[&str], key: Option<&str>| Presented {
        credentials: key.map(|key| Credentials::Bearer(key.to_owned())),
        certificate: certificate(names),
        ..Presented::default()
    };
    for names in [
        &["CN=jane,O=Acme"][..],
        &["CN=x", "spiffe://acme/jane"],
        &["CN=jane,O=Acme", "spiffe://acme/jane"],
    ] {
        assert_eq!(world.present(&shown(names, None)).unwrap().id, "jane");
        assert_eq!(world.present(&shown(names, Some(SHORT))).unwrap().id, "jane");
        refused_with(world.present(&shown(names, Some("bob-key"))), "different users");
        refused_with(world.present(&shown(names, Some("wrong"))), "wrong");
    }
    refused_with(world.present(&shown(&["CN=Jane,O=Acme"], None)), "no user's");
    refused_with(world.present(&shown(&["CN=jane"], None)), "no user's");
    refused_with(world.present(&shown(&[], None)), "no user's");
    refused_with(world.present(&Presented::default()), "no credentials");
    refused_with(
        world.present(&shown(&["CN=jane,O=Acme", "spiffe://acme/bob"], None)),
        "several users",
    );
    // One that names nobody takes nothing away.
    assert_eq!(world.present(&shown(&["CN=proxy"], Some(SHORT))).unwrap().id, "jane");
    world.now.seconds += 100;
    refused_with(world.present(&shown(&["CN=jane,O=Acme"], None)), "expired");
}

#[test]
fn who_acts_as_another_is_known_by_both_names() {
    let world = World::new(&[Signer::ed().public("k")]);
    let act = |key: &str, as_whom: &str| {
        world.present(&Presented {
            credentials: Some(Credentials::Bearer(key.to_owned())),
            act_as: Some(as_whom.to_owned()),
            ..Presented::default()
        })
    };
    let acting = act("bob-key", "jane").unwrap();
    assert_eq!(
        (acting.id.as_str(), acting.impersonator.as_deref()),
        ("jane", Some("bob"))
    );
    assert_eq!(acting.attributes["region"], "EU");
    assert_eq!(act("bob-key", "bob").unwrap().impersonator, None);
    let refused = [act(SHORT, "bob"), act(SHORT, "nobody"), act("bob-key", "nobody")].map(Result::unwrap_err);
    assert!(refused.iter().all(|error| error.code == Code::PermissionDenied));
    assert_eq!(refused[0].to_string(), refused[1].to_string(), "who exists is not told");
}

static SIGNER: LazyLock<Signer> = LazyLock::new(Signer::ed);
static WORLD: LazyLock<World> = LazyLock::new(|| World::new(&[SIGNER.public("k1")]));

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".*", bytes: Vec<u8>) {
        let text_of_bytes = String::from_utf8_lossy(&bytes).into_owned();
        for text in [text, text_of_bytes, format!("eyJ.{}.{}", base64(&bytes), base64(&bytes))] {
            let _ = Token::read(&text);
            let _ = Credentials::from_header(&text);
            let _ = Credentials::from_header(&format!("Basic {text}"));
            prop_assert!(WORLD.bearer(&text).is_err());
            let _ = unwrap_token(&text);
        }
    }

    /// Whatever one byte of a good token is changed to, it is refused: else what it says could be changed.
    #[test]
    fn a_changed_token_is_refused(place: prop::sample::Index, byte in 0x21_u8..0x7f) {
        let token = SIGNER.token("k1", &claims(json!({})));
        let mut bytes = token.clone().into_bytes();
        let place = place.index(bytes.len());
        prop_assume!(bytes[place] != byte);
        bytes[place] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        prop_assert!(WORLD.bearer(&changed).is_err(), "{}", changed);
        prop_assert!(WORLD.bearer(&token).is_ok());
    }

    /// Whatever the claims are, no tag lies outside the prefix and nobody is made but the user whom the token names.
    #[test]
    fn no_claim_reaches_beyond_the_prefix(groups in prop::collection::vec(".{0,20}", 0..4), user in "[!-~]{1,12}") {
        let token = SIGNER.token("k1", &claims(json!({"groups": groups, "sub": user})));
        if let Ok(principal) = WORLD.bearer(&token) {
            let declared = ["roles:id:user", "roles:id:desk"];
            let own = format!("users:id:{user}");
            let fits = |tag: &String| tag.starts_with("roles:id:") || declared.contains(&tag.as_str()) || *tag == own;
            prop_assert!(principal.tags.iter().all(fits), "{:?}", principal);
            prop_assert_eq!(&principal.id, &user);
        }
    }

    #[test]
    fn a_basic_header_is_read_as_it_was_written(user in "[^:]{0,20}", password in ".{0,40}", padded: bool) {
        let text = format!("{user}:{password}");
        let encoded = if padded { base64::prelude::BASE64_STANDARD.encode(text) } else { base64::prelude::BASE64_STANDARD_NO_PAD.encode(text) };
        let read = Credentials::from_header(&format!("Basic {encoded}"));
        let Ok(Credentials::Basic { user: read_user, password: read_password }) = read else {
            panic!("a good header was refused");
        };
        prop_assert_eq!((read_user, read_password), (user, password));
    }
}

//! Any text as a signed token, and any head, claims and signature as the parts of one: refused, since nothing here has signed it, and without
//! a panic. `cargo +nightly fuzz run jwt`.

#![no_main]

use std::{path::Path, sync::LazyLock};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use minerva_coordinator::gateway::auth::Token;
use minerva_resources::{Jwks, ResourceSet, load_bytes};

const PROVIDER: &str = "name: corp
version: v1
type: identity-provider
identity-provider: {issuer: i, jwks: https://idp.example/keys, audience: m, tagsClaim: g, tagPrefix: 'r:'}
";
const KEYS: &str = r#"{"keys": [
    {"kty": "OKP", "crv": "Ed25519", "kid": "e", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
    {"kty": "EC", "crv": "P-256", "kid": "p", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}
]}"#;

static SET: LazyLock<ResourceSet> = LazyLock::new(|| load_bytes(Path::new("p.yaml"), PROVIDER.into(), &[]).unwrap());
static TRUSTED: LazyLock<Jwks> = LazyLock::new(|| Jwks::read(KEYS).unwrap());

fn refused(text: &str) {
    if let Ok(token) = Token::read(text) {
        let provider = SET.identity_providers().next().unwrap();
        assert!(token.check(provider, &TRUSTED.keys, 1_000).is_err());
    }
}

fuzz_target!(|parts: (&str, &str, &str, &[u8])| {
    let (text, head, claims, signature) = parts;
    refused(text);
    let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    refused(&format!(
        "{}.{}.{}",
        part(head.as_bytes()),
        part(claims.as_bytes()),
        part(signature)
    ));
    let _ = Jwks::read(text);
});

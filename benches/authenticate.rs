//! What authenticating costs a call: 1,000 users with 2 API keys each; a key of a manifest, a key made by command, a token that was checked
//! before, a token that is new, a wrong key.
//!
//! Out: one line `NAME MICROSECONDS` for each, the median. Run by `run.py`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark may fail loudly"
)]

use std::{
    fmt::Write,
    fs,
    net::IpAddr,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use minerva_coordinator::{Config, CreateKey, Credentials, Engine, Presented, hash_key};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde_json::json;

const USERS: usize = 1_000;
const CALLS: usize = 5_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let folder = std::env::temp_dir().join(format!("minerva-authenticate-{}", std::process::id()));
    fs::create_dir_all(folder.join("resources")).unwrap();
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
    let mut text = String::from(
        "name: corp\nversion: v1\ntype: identity-provider\nidentity-provider: {issuer: 'https://idp.example', jwks: keys.json, audience: minerva, tagsClaim: groups, tagPrefix: 'roles:id:'}\n",
    );
    for number in 0..USERS {
        let hash = |name: &str| hash_key(&format!("{name}-{number}"));
        let (one, two) = (hash("one"), hash("two"));
        write!(
            text,
            "---\nname: user{number}\nversion: v1\ntype: user\nuser: {{tags: ['roles:id:user', 'roles:id:r{}'], apikeys: [{{name: a, sha256: {one}}}, {{name: b, sha256: {two}}}]}}\n",
            number % 50
        )
        .unwrap();
    }
    fs::write(folder.join("resources/all.yaml"), text).unwrap();
    let public = json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": base64(pair.public_key().as_ref())});
    fs::write(
        folder.join("resources/keys.json"),
        json!({"keys": [public]}).to_string(),
    )
    .unwrap();
    let bound = minerva_coordinator::bind(Config::new(vec![folder.join("resources")], folder.join("data")))
        .await
        .unwrap();
    let engine = bound.engine();

    let user = engine
        .authenticate(&Credentials::Bearer("one-500".into()))
        .await
        .unwrap();
    let wanted = CreateKey {
        user: "user500".into(),
        name: "made".into(),
        lifetime_seconds: 3600,
    };
    let made = engine.create_api_key(&user, &wanted).unwrap().key;
    let token = |number: usize| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let head = json!({"alg": "EdDSA", "typ": "JWT", "kid": "k"}).to_string();
        let claims = json!({"iss": "https://idp.example", "aud": "minerva", "sub": "user500", "iat": now, "exp": now + 3600, "jti": number, "groups": ["analyst", "finance"]});
        let signed = format!("{}.{}", base64(head), base64(claims.to_string()));
        format!("{signed}.{}", base64(pair.sign(signed.as_bytes())))
    };
    let known = token(0);
    let basic = |password: &str| Credentials::Basic {
        user: "user500".into(),
        password: password.into(),
    };
    report(engine, "declared_key", true, |_| basic("two-500")).await;
    report(engine, "made_key", true, |_| basic(&made)).await;
    report(engine, "known_token", true, |_| Credentials::Bearer(known.clone())).await;
    report(engine, "new_token", true, |number| {
        Credentials::Bearer(token(number + 1))
    })
    .await;
    report(engine, "wrong_key", false, |number| {
        Credentials::Bearer(format!("wrong-{number}"))
    })
    .await;
    drop(bound);
    fs::remove_dir_all(&folder).unwrap();
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

async fn report(engine: &Arc<Engine>, name: &str, good: bool, credentials: impl Fn(usize) -> Credentials) {
    let mut times = Vec::with_capacity(CALLS);
    for number in 0..CALLS {
        let presented = Presented {
            credentials: Some(credentials(number)),
            address: Some(IpAddr::from([127, 0, 0, 1])),
            ..Presented::default()
        };
        let begin = Instant::now();
        let found = engine.admit(&presented).await;
        times.push(begin.elapsed().as_secs_f64() * 1e6);
        assert_eq!(found.is_ok(), good, "{name}: {found:?}");
    }
    times.sort_by(f64::total_cmp);
    println!("{name} {:.2}", times[CALLS / 2]);
}

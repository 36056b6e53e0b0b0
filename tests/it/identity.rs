//! Who one is: signed tokens, client certificates, acting as another, wrong keys; with real clients against the real program.

use std::{fs, path::Path, process::Command, time::Duration};

use tempfile::TempDir;

use crate::minerva::{Minerva, Server, program, python};

/// What those with the role `analyst` may read, and jane alone.
const MANIFESTS: &str = "name: gen
version: v2alpha
type: depot
depot: {type: TPCH, tpch: {scale: 0.01}}
---
name: jane
version: v1
type: user
user:
  tags: [roles:id:user, roles:id:analyst]
  certificates: [{subject: \"CN=jane,O=Acme\"}]
---
name: bob
version: v1
type: user
user: {tags: [roles:id:user], apikeys: [{name: bob, sha256: ${BOB_KEY}}]}
---
name: robot
version: v1
type: user
user: {certificates: [{uri: spiffe://acme/robot}]}
---
name: root
version: v1
type: user
user: {tags: [roles:id:operator]}
---
name: short
version: v1
type: user
user:
  tags: [roles:id:analyst]
  apikeys: [{name: short, sha256: ${SHORT_KEY}}]
---
name: analysts
version: v1
type: policy
policy:
  access: {subjects: {tags: ['roles:id:analyst']}, predicates: [select], objects: {paths: ['dataos://gen:tpch/region']}, allow: true}
---
name: users
version: v1
type: policy
policy:
  access: {subjects: {tags: ['roles:id:user']}, predicates: [select], objects: {paths: ['dataos://gen:tpch/nation']}, allow: true}
---
name: desk
version: v1
type: policy
policy:
  access: {subjects: {tags: ['roles:id:desk', 'roles:id:operator']}, predicates: [impersonate], objects: {tags: ['dataos:system:minerva:user:root']}, allow: true}
---
name: desk-for-jane
version: v1
type: policy
policy:
  access: {subjects: {tags: ['roles:id:desk']}, predicates: [impersonate], objects: {tags: ['dataos:system:minerva:user:jane']}, allow: true}
";

fn provider(jwks: &str) -> String {
    format!(
        "name: corp
version: v1
type: identity-provider
identity-provider:
  issuer: https://idp.example
  jwks: {jwks}
  audience: minerva
  tagsClaim: groups
  tagPrefix: \"roles:id:\"
"
    )
}

/// Runs a Python script of `tests/python` to its end.
fn script(name: &str, arguments: &[&str]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name);
    let output = python().arg(path).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// A folder with keys, certificates and manifests.
fn prepared(provider: Option<&str>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    script("identity.py", &["prepare", folder.path().to_str().unwrap()]);
    let resources = folder.path().join("resources");
    let short = minerva_coordinator::hash_key("short-key");
    let bob = minerva_coordinator::hash_key("bob-key");
    let manifests = MANIFESTS.replace("${SHORT_KEY}", &short).replace("${BOB_KEY}", &bob);
    fs::write(resources.join("all.yaml"), manifests).unwrap();
    if let Some(provider) = provider {
        fs::write(resources.join("corp.yaml"), provider).unwrap();
    }
    folder
}

fn with_tls(folder: &TempDir) -> Command {
    let mut command = program();
    command.env("MINERVA_TLS_CERT", folder.path().join("server.pem"));
    command.env("MINERVA_TLS_KEY", folder.path().join("server.key"));
    command.env("MINERVA_TLS_CA", folder.path().join("ca.pem"));
    command
}

#[test]
fn signed_tokens_are_accepted_refused_and_rotated() {
    let minerva = Minerva::start_in(prepared(Some(&provider("./jwks.json"))), 1);
    let (host, port) = minerva.flight().rsplit_once(':').unwrap();
    let said = script("with_tokens.py", &[host, port, minerva.folder.path().to_str().unwrap()]);
    assert_eq!(said.lines().count(), 7, "{said}");
    let (_, log) = minerva.server.leave();
    assert!(
        !log.contains("eyJ") && !log.contains("short-key") && !log.contains("panicked"),
        "{log}"
    );
}

fn token(folder: &Path, algorithm: &str, kid: &str) -> String {
    let code = "import sys, pathlib, identity; from cryptography.hazmat.primitives import serialization as s; \
                key = s.load_pem_private_key((pathlib.Path(sys.argv[1]) / f'{sys.argv[2]}.pem').read_bytes(), None); \
                print(identity.sign(sys.argv[2], sys.argv[3], key))";
    let output = python()
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python"))
        .args(["-c", code])
        .arg(folder)
        .args([algorithm, kid])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Keys from a URL: fetched at the start, looked at again for an unknown name but not for each, and kept when the issuer is gone.
#[test]
fn keys_are_fetched_kept_and_looked_at_again() {
    let folder = prepared(None);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/identity.py");
    let mut command = python();
    command.arg(path).arg("publish").arg(folder.path());
    command.stdin(std::process::Stdio::piped());
    let mut issuer = Server::start(command);
    let url = format!("http://{}/keys", issuer.addresses["jwks"]);
    fs::write(folder.path().join("resources/corp.yaml"), provider(&url)).unwrap();
    let minerva = Minerva::start_in(folder, 1);
    let folder = minerva.folder.path();
    let count = "SELECT count(*) AS n FROM gen.tpch.region";
    let good = token(folder, "ES256", "one-ES256");
    assert_eq!(minerva.rows(Some(("jane", &good)), count), ["5"]);
    // Two hundred unknown names cause two requests at most: this one, and another after ten seconds if the machine is slow.
    let hits = || fs::read_to_string(folder.join("hits")).unwrap().lines().count();
    let before = hits();
    let begin = std::time::Instant::now();
    let (host, port) = minerva.flight().rsplit_once(':').unwrap();
    let code = "import sys, pyarrow.flight as f, identity\n\
                client = f.FlightClient(f'grpc://{sys.argv[1]}:{sys.argv[2]}'); key = identity.new_key('EdDSA')\n\
                for number in range(200):\n\
                \x20   token = identity.sign('EdDSA', f'unknown-{number}', key)\n\
                \x20   try: list(client.list_actions(f.FlightCallOptions(headers=[(b'authorization', b'Bearer ' + token.encode())])))\n\
                \x20   except f.FlightUnauthenticatedError as error: assert 'does not publish' in str(error), error\n\
                \x20   else: sys.exit('let in')";
    let tried = python()
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python"))
        .args(["-c", code, host, port])
        .output()
        .unwrap();
    assert!(tried.status.success(), "{}", String::from_utf8_lossy(&tried.stderr));
    let windows = 1 + usize::try_from(begin.elapsed().as_secs() / 10).unwrap();
    assert!(
        hits() - before <= windows,
        "{} requests in {windows} windows of ten seconds",
        hits() - before
    );
    // The issuer is gone; its keys hold.
    issuer.kill();
    assert_eq!(minerva.rows(Some(("jane", &good)), count), ["5"]);
    let other = token(folder, "EdDSA", "one-EdDSA");
    assert_eq!(
        minerva.rows(Some(("jane", &other)), count),
        ["5"],
        "a token that was not seen before"
    );
}

/// An issuer that cannot be reached stops its own tokens and nothing else; one that sends its callers elsewhere is not followed.
#[test]
fn an_issuer_that_cannot_be_reached_stops_its_own_tokens_only() {
    let folder = prepared(None);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/identity.py");
    let mut command = python();
    command.arg(path).arg("publish").arg(folder.path());
    command.stdin(std::process::Stdio::piped());
    let issuer = Server::start(command);
    let url = format!("http://{}/moved", issuer.addresses["jwks"]);
    fs::write(folder.path().join("resources/corp.yaml"), provider(&url)).unwrap();
    let minerva = Minerva::start_in(folder, 1);
    let good = token(minerva.folder.path(), "ES256", "one-ES256");
    let begin = std::time::Instant::now();
    let error = minerva.error(Some(("jane", &good)), "SELECT 1 AS one");
    assert!(
        error.contains("could not be fetched") && !error.contains(&good),
        "{error}"
    );
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert_eq!(minerva.rows(Some(("short", "short-key")), "SELECT 1 AS one"), ["1"]);
    let hits = fs::read_to_string(minerva.folder.path().join("hits")).unwrap();
    assert!(!hits.contains("/keys"), "a redirect was followed:\n{hits}");
}

#[test]
fn client_certificates_are_their_users() {
    let folder = prepared(None);
    let command = with_tls(&folder);
    let resources = folder.path().join("resources");
    let minerva = Minerva::start_as(command, folder, &resources, 1);
    let (host, port) = minerva.flight().rsplit_once(':').unwrap();
    let said = script(
        "with_certificates.py",
        &[host, port, minerva.folder.path().to_str().unwrap(), "bob-key"],
    );
    assert_eq!(said.lines().count(), 3, "{said}");
}

//! `identity-provider`: whose tokens prove who asks, and what they may say of a user.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Field, Kind, Meta, optional, required};
use crate::jwks::{Algorithm, Jwk, Jwks};
use crate::node::Node;
use crate::problem::Problem;
use crate::set::Builder;
use crate::suggest;
use crate::time;

/// How far the clocks of issuer and coordinator may be apart, unless the manifest says otherwise.
const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// The most that a manifest may say.
const MOST_CLOCK_SKEW: Duration = Duration::from_secs(600);
/// How long a token may live, unless the manifest says otherwise.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// An issuer of tokens.
#[derive(Debug, Clone)]
pub struct IdentityProvider {
    /// The head of the manifest.
    pub meta: Meta,
    /// The `iss` of its tokens.
    pub issuer: String,
    /// Where its keys are.
    pub keys: KeySource,
    /// The `aud` of tokens for Minerva: one of these.
    pub audience: Vec<String>,
    /// The claim that holds the user's id.
    pub user_claim: String,
    /// The claim that holds the user's tags, and what stands before each.
    pub tags: Option<TagsClaim>,
    /// The algorithms that its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// How far its clock may be off.
    pub clock_skew: Duration,
    /// How long a token may live.
    pub max_lifetime: Duration,
    /// The `jti` of tokens that no longer hold.
    pub revoked: Vec<String>,
}

/// What a token may say of its user's tags.
#[derive(Debug, Clone)]
pub struct TagsClaim {
    /// The claim.
    pub claim: String,
    /// What stands before every tag that a token gives; it ends with `:`.
    pub prefix: String,
}

/// Where the keys of an issuer are.
#[derive(Clone)]
pub enum KeySource {
    /// They were in a file, which is watched like the manifest.
    File(Vec<Jwk>),
    /// They are fetched.
    Url {
        /// From here.
        url: String,
        /// The authorities (PEM) to trust instead of the machine's.
        authorities: Option<String>,
    },
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(keys) => f.debug_tuple("File").field(&keys.len()).finish(),
            Self::Url { url, .. } => f.debug_struct("Url").field("url", url).finish_non_exhaustive(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    issuer: String,
    jwks: String,
    #[serde(rename = "audience")]
    _audience: IgnoredAny,
    #[serde(default = "subject")]
    user_claim: String,
    tags_claim: Option<String>,
    tag_prefix: Option<String>,
    #[serde(default)]
    algorithms: Vec<String>,
    clock_skew: Option<String>,
    max_lifetime: Option<String>,
    authorities: Option<String>,
    #[serde(default)]
    revoked: Vec<String>,
}

fn subject() -> String {
    "sub".to_owned()
}

#[derive(Debug)]
pub(crate) struct IdentityProviderKind;

impl Kind for IdentityProviderKind {
    fn name(&self) -> &'static str {
        "identity-provider"
    }

    fn description(&self) -> &'static str {
        "An identity provider signs tokens (JWT) with which its users connect: as a bearer token, or as the password beside their user id. \
         A token counts until it expires, for whoever holds it, so issuers should give short lives. The user need not be declared: an id that \
         no `user` manifest has gets the tag `users:id:<id>` and the token's tags. A declared user gets the manifest's tags and attributes \
         besides. A provider is therefore trusted with every user id and with every tag below `tagPrefix`, `roles:id:operator` included if \
         that is below it. Keys are told apart by `kid`; a provider changes them by publishing the new one before it signs with it."
    }

    fn example(&self) -> &'static str {
        "name: corp
version: v1
type: identity-provider
identity-provider:
  issuer: https://idp.example
  jwks: https://idp.example/keys
  audience: minerva
  userClaim: sub
  tagsClaim: groups
  tagPrefix: \"roles:id:\"
"
    }

    fn fields(&self) -> &'static [Field] {
        const FIELDS: &[Field] = &[
            required(
                "issuer",
                "text",
                "The `iss` of its tokens, letter by letter. No two providers have the same.",
            ),
            required(
                "jwks",
                "path or URL",
                "The public keys as a JSON Web Key Set: a file relative to the manifest and watched like it, or `https://`. `http://` is \
                 taken on this machine only. A URL is fetched every 5 minutes, and at most every 10 seconds when a token names an unknown key; \
                 when it fails, the last keys hold for a day.",
            ),
            required(
                "audience",
                "text or list of texts",
                "The `aud` of tokens for Minerva; a token must name one of them.",
            ),
            optional(
                "userClaim",
                "text",
                "The claim with the user's id; `sub` when absent. The id is printable ASCII without blanks and `:`.",
            ),
            optional(
                "tagsClaim",
                "text",
                "The claim with the user's tags, a text or a list of texts. Needs `tagPrefix`.",
            ),
            optional(
                "tagPrefix",
                "text that ends with `:`",
                "Stands before each tag that a token gives, so that a token cannot give others. Not `users:` or anything below.",
            ),
            optional(
                "algorithms",
                "list of `RS256`, `ES256`, `EdDSA`",
                "How tokens may be signed; all three when absent. The key decides which of them it is.",
            ),
            optional(
                "clockSkew",
                "duration",
                "How far the issuer's clock may be off: `60s` when absent, at most `10m`.",
            ),
            optional(
                "maxLifetime",
                "duration",
                "How long a token may live from `iat` (or from now if it has none) to `exp`: `1d` when absent.",
            ),
            optional(
                "authorities",
                "path",
                "A PEM file with the authorities to trust when keys are fetched, instead of the machine's. Relative to the manifest and watched. \
                 Only where `jwks` is a URL.",
            ),
            optional(
                "revoked",
                "list of texts",
                "The `jti` of tokens that no longer hold although they have not expired.",
            ),
        ];
        FIELDS
    }

    fn read(&self, meta: Meta, body: &Node, set: &mut Builder) -> Vec<Problem> {
        let written: Written = match body.read(&meta.location.file) {
            Ok(written) => written,
            Err(problems) => return problems,
        };
        let mut problems = Vec::new();
        let at = |key: &str| meta.at(super::line_of(body, &[key]));
        for (key, text) in [("issuer", &written.issuer), ("userClaim", &written.user_claim)] {
            if text.is_empty() {
                problems.push(Problem::new(at(key), format!("`{key}` is empty")));
            }
        }
        let audience = audience(body.get("audience"), &meta, &mut problems);
        let tags = match (written.tags_claim, written.tag_prefix) {
            (None, None) => None,
            (Some(claim), Some(prefix)) => {
                if let Err((message, help)) = check_prefix(&prefix) {
                    problems.push(Problem::new(at("tagPrefix"), message).help(help));
                }
                if claim.is_empty() {
                    problems.push(Problem::new(at("tagsClaim"), "`tagsClaim` is empty"));
                }
                Some(TagsClaim { claim, prefix })
            }
            (Some(_), None) => {
                let problem = Problem::new(at("tagsClaim"), "`tagsClaim` needs `tagPrefix`");
                problems.push(problem.help("say what stands before each tag, such as `roles:id:`"));
                None
            }
            (None, Some(_)) => {
                problems.push(Problem::new(at("tagPrefix"), "`tagPrefix` needs `tagsClaim`"));
                None
            }
        };
        let algorithms = algorithms(&written.algorithms, body, &meta, &mut problems);
        let mut duration = |key: &str, text: Option<String>, default: Duration, most: Duration| match text {
            None => default,
            Some(text) => time::duration(&text).filter(|found| *found <= most).unwrap_or_else(|| {
                let most = match most.as_secs() / 60 {
                    minutes @ ..1440 => format!("{minutes}m"),
                    minutes => format!("{}d", minutes / 1440),
                };
                let message = format!("`{key}` is `{text}`; expected a duration such as `90s`, of at most {most}");
                problems.push(Problem::new(at(key), message));
                default
            }),
        };
        let clock_skew = duration("clockSkew", written.clock_skew, CLOCK_SKEW, MOST_CLOCK_SKEW);
        let year = Duration::from_secs(366 * 24 * 3600);
        let max_lifetime = duration("maxLifetime", written.max_lifetime, MAX_LIFETIME, year);
        let base = meta.location.file.parent().unwrap_or(Path::new(""));
        if written.authorities.is_some() && !is_url(&written.jwks) {
            let message = "`authorities` is given, but `jwks` is a file and nothing is fetched";
            problems.push(
                Problem::new(at("authorities"), message).help("leave `authorities` out, or give `jwks` as a URL"),
            );
        }
        let authorities = written.authorities.and_then(|path| {
            set.read_file(&base.join(path))
                .map_err(|message| problems.push(Problem::new(at("authorities"), format!("`authorities`: {message}"))))
                .ok()
        });
        let keys = match is_url(&written.jwks) {
            true => {
                if let Err(message) = check_url(&written.jwks) {
                    problems.push(Problem::new(at("jwks"), message));
                }
                KeySource::Url {
                    url: written.jwks,
                    authorities,
                }
            }
            false => {
                let read = set
                    .read_file(&base.join(&written.jwks))
                    .and_then(|text| Jwks::read(&text));
                match read {
                    Ok(read) => {
                        let broken = read
                            .broken
                            .iter()
                            .map(|why| Problem::new(at("jwks"), format!("`jwks`: {why}")));
                        problems.extend(broken);
                        KeySource::File(read.keys)
                    }
                    Err(message) => {
                        problems.push(Problem::new(at("jwks"), format!("`jwks`: {message}")));
                        KeySource::File(Vec::new())
                    }
                }
            }
        };
        if problems.is_empty() {
            set.add_identity_provider(IdentityProvider {
                meta,
                issuer: written.issuer,
                keys,
                audience,
                user_claim: written.user_claim,
                tags,
                algorithms,
                clock_skew,
                max_lifetime,
                revoked: written.revoked,
            });
        }
        problems
    }
}

fn is_url(text: &str) -> bool {
    text.contains("://")
}

/// Keys that somebody on the way could exchange would let them sign as anybody.
fn check_url(url: &str) -> Result<(), String> {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("`jwks` has credentials in its URL; public keys need none".to_owned());
    }
    let host = match authority.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    if host.is_empty() {
        return Err(format!("`jwks` is `{url}`, a URL without a host"));
    }
    match scheme {
        "https" => Ok(()),
        "http" if host == "localhost" || host == "::1" || is_loopback_four(host) => Ok(()),
        "http" => Err(
            "`jwks` is fetched without TLS, so that who is on the way could exchange the keys; use `https://`"
                .to_owned(),
        ),
        other => Err(format!(
            "`jwks` begins with `{other}://`; expected `https://` or a path"
        )),
    }
}

fn is_loopback_four(host: &str) -> bool {
    host.parse::<std::net::Ipv4Addr>()
        .is_ok_and(|address| address.is_loopback())
}

/// A prefix may not let a token make its user somebody else.
fn check_prefix(prefix: &str) -> Result<(), (&'static str, &'static str)> {
    if prefix.len() < 2 || !prefix.ends_with(':') {
        return Err(("`tagPrefix` does not end with `:`", "write it such as `roles:id:`"));
    }
    if prefix.starts_with("users:") || prefix.starts_with("dataos:") {
        return Err((
            "`tagPrefix` would let a token give its user the tags of another user or of the system",
            "use one such as `roles:id:`",
        ));
    }
    Ok(())
}

fn audience(node: Option<&Node>, meta: &Meta, problems: &mut Vec<Problem>) -> Vec<String> {
    let Some(node) = node else { return Vec::new() };
    let nodes = match node.as_list() {
        Some(list) => list,
        None => std::slice::from_ref(node),
    };
    let texts: Vec<_> = nodes
        .iter()
        .filter_map(|node| node.as_text().filter(|text| !text.is_empty()).map(str::to_owned))
        .collect();
    if texts.is_empty() || texts.len() < nodes.len() {
        let message = "`audience` is neither a text nor a list of texts, or a text in it is empty";
        problems.push(Problem::new(meta.at(node.line), message).help("expected such as `minerva`"));
    }
    texts
}

fn algorithms(written: &[String], body: &Node, meta: &Meta, problems: &mut Vec<Problem>) -> Vec<Algorithm> {
    if written.is_empty() {
        return Algorithm::ALL.to_vec();
    }
    let nodes = body.get("algorithms").and_then(Node::as_list).unwrap_or_default();
    let names = Algorithm::ALL.map(Algorithm::name);
    let mut known = Vec::new();
    for (name, node) in written.iter().zip(nodes) {
        match Algorithm::named(name) {
            Some(algorithm) => known.push(algorithm),
            None => {
                let message = format!("there is no algorithm `{name}`");
                let mut problem = Problem::new(meta.at(node.line), message);
                problem.help = suggest::instead(name, names.iter().copied());
                problems.push(problem);
            }
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_where_nobody_can_exchange_them() {
        for good in [
            "https://idp.example/keys",
            "http://127.0.0.1:8000/k",
            "http://[::1]:1/",
            "http://localhost/k",
        ] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "http://idp.example/keys",
            "http://127.0.0.1.evil.example/",
            "http://localhost@evil.example/",
            "http://127.0.0.1@evil.example/",
            "file:///etc/keys",
            "https:///x",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_prefix_reaches_no_other_user() {
        assert!(check_prefix("roles:id:").is_ok() && check_prefix("corp:").is_ok());
        for bad in ["", ":", "roles", "users:", "users:id:", "dataos:system:", "user"] {
            assert!(check_prefix(bad).is_err(), "{bad}");
        }
    }
}

//! Manifests without what is secret in them.
//!
//! In: a manifest as it is written, in order or not. Out: the same with what is known to be harmless. Of anything else only the names of the keys are
//! left: a key may be misspelt, and a password may stand where none belongs.

use crate::kind::{Kind, depot::WITHOUT_EFFECT};
use crate::manifest::HEAD;
use crate::node::{Key, Node, Value};
use crate::parameter::{Parameter, ParameterKind};

/// The settings that a type of depot, in lower case, knows; none if there is no such type. Whoever knows the connectors says.
pub type KnownSettings = fn(&str) -> &'static [Parameter];

/// What stands in the place of a value that is not shown.
const LEFT_OUT: &str = "<left out>";

/// What may be shown of a value. A value of another form is one that nobody knows.
#[derive(Debug)]
enum Shape {
    /// Texts, numbers, true or false, and lists of them.
    Plain,
    /// The same by keys of any name.
    Plains,
    /// The paths of files by keys of any name.
    Paths,
    /// The names of the keys.
    Keys,
    /// Nothing, not even that it is there.
    Gone,
    /// A list.
    Each(&'static Shape),
    /// A map with these keys.
    Of(&'static [(&'static str, Shape)]),
}

const CREDENTIALS: Shape = Shape::Of(&[
    ("type", Shape::Plain),
    ("acl", Shape::Plain),
    ("data", Shape::Keys),
    ("files", Shape::Paths),
]);

const USER: Shape = Shape::Of(&[
    ("tags", Shape::Plain),
    ("attributes", Shape::Plains),
    (
        "apikeys",
        Shape::Each(&Shape::Of(&[
            ("name", Shape::Plain),
            ("expires", Shape::Plain),
            ("sha256", Shape::Gone),
        ])),
    ),
    (
        "certificates",
        Shape::Each(&Shape::Of(&[("subject", Shape::Plain), ("uri", Shape::Plain)])),
    ),
]);

/// A depot but for its settings.
const DEPOT: &[(&str, Shape)] = &[
    ("type", Shape::Plain),
    ("description", Shape::Plain),
    ("acl", Shape::Plain),
    ("acceptsTags", Shape::Plain),
    (
        "secrets",
        Shape::Each(&Shape::Of(&[
            ("name", Shape::Plain),
            ("workspace", Shape::Plain),
            ("key", Shape::Plain),
            ("keys", Shape::Plain),
            ("allkeys", Shape::Plain),
            ("allKeys", Shape::Plain),
            ("consumptionType", Shape::Plain),
        ])),
    ),
    ("connectionSecret", Shape::Each(&CREDENTIALS)),
];

/// The manifest as it may be shown. Kinds that hold no credentials are shown as they are.
pub(crate) fn shown(manifest: &Node, kind: &dyn Kind, settings: KnownSettings) -> Node {
    if !["secret", "depot", "user"].contains(&kind.name()) {
        return manifest.clone();
    }
    entries(manifest, |key, inside| {
        if HEAD.contains(&key) {
            return Some(Shape::Plain.of(inside));
        }
        if key != kind.name() && !kind.aliases().contains(&key) {
            return Some(reduced(inside));
        }
        match kind.name() {
            "secret" => CREDENTIALS.of(inside),
            "user" => USER.of(inside),
            _ => depot(inside, settings),
        }
        .into()
    })
}

impl Shape {
    fn of(&self, node: &Node) -> Node {
        match (self, &node.value) {
            (Self::Plain, Value::List(nodes)) if nodes.iter().all(is_plain) => node.clone(),
            (Self::Plain, _) if is_plain(node) => node.clone(),
            (Self::Plains, Value::Map(_)) => entries(node, |_, inside| Some(Self::Plain.of(inside))),
            (Self::Paths, Value::Map(_)) => entries(node, |_, inside| {
                // What has several lines is the text of a file, and not its path.
                let is_path = inside.as_text().is_some_and(|text| !text.contains('\n'));
                Some(if is_path { inside.clone() } else { reduced(inside) })
            }),
            (Self::Each(shape), Value::List(nodes)) => Node {
                value: Value::List(nodes.iter().map(|node| shape.of(node)).collect()),
                line: node.line,
            },
            (Self::Of(known), Value::Map(_)) => entries(node, |key, inside| known_of(known, key, inside)),
            _ => reduced(node),
        }
    }
}

/// What may be shown behind one of these keys, or behind another.
fn known_of(known: &[(&str, Shape)], key: &str, inside: &Node) -> Option<Node> {
    match known.iter().find(|(name, _)| *name == key) {
        Some((_, Shape::Gone)) => None,
        Some((_, shape)) => Some(shape.of(inside)),
        None => Some(reduced(inside)),
    }
}

/// The block of a depot: of its settings those that its connector knows and that are no credentials.
fn depot(block: &Node, settings: KnownSettings) -> Node {
    if block.as_map().is_none() {
        return reduced(block);
    }
    let depot_type = block.get("type").and_then(Node::as_text).unwrap_or_default();
    let depot_type = depot_type.to_lowercase();
    entries(block, |key, inside| {
        if key == "spec" || key == depot_type {
            return Some(settings_of(inside, settings(&depot_type)));
        }
        if WITHOUT_EFFECT.contains(&key) {
            return Some(Shape::Plain.of(inside));
        }
        known_of(DEPOT, key, inside)
    })
}

fn settings_of(block: &Node, known: &[Parameter]) -> Node {
    if block.as_map().is_none() {
        return reduced(block);
    }
    entries(block, |key, inside| {
        let parameter = known.iter().find(|one| one.name == key && !one.secret);
        Some(match parameter.map(|parameter| parameter.kind) {
            Some(ParameterKind::Map(keys)) if inside.as_map().is_some() => entries(inside, |key, inside| {
                let is_known = keys.contains(&key) && is_plain(inside) && !may_authorize(inside);
                Some(if is_known { inside.clone() } else { reduced(inside) })
            }),
            Some(kind) if kind.fits(inside) && !may_authorize(inside) => inside.clone(),
            _ => reduced(inside),
        })
    })
}

/// Whether a text is an address with a password or a query in it, of which either may be all that it takes to be let in.
fn may_authorize(node: &Node) -> bool {
    let texts = node.as_list().unwrap_or(std::slice::from_ref(node)).iter();
    texts.filter_map(Node::as_text).any(|text| {
        let Some((_, rest)) = text.split_once("://") else {
            return false;
        };
        let host = rest.split('/').next().unwrap_or(rest);
        let has_password = host.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'));
        has_password || rest.contains('?')
    })
}

fn is_plain(node: &Node) -> bool {
    !matches!(node.value, Value::List(_) | Value::Map(_))
}

/// A value of which nothing is known: the names of its keys at most.
fn reduced(node: &Node) -> Node {
    let value = match &node.value {
        Value::Null => Value::Null,
        Value::Map(entries) => Value::List(entries.iter().map(|(key, _)| name_of(key)).collect()),
        Value::List(nodes) => Value::List(nodes.iter().map(reduced).collect()),
        Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => Value::Text(LEFT_OUT.to_owned()),
    };
    Node { value, line: node.line }
}

fn name_of(key: &Key) -> Node {
    Node {
        value: Value::Text(key.text.clone()),
        line: key.line,
    }
}

/// A map with other values.
fn entries(map: &Node, with: impl Fn(&str, &Node) -> Option<Node>) -> Node {
    let entries = map.as_map().unwrap_or_default().iter();
    let entries = entries.filter_map(|(key, inside)| Some((key.clone(), with(&key.text, inside)?)));
    Node {
        value: Value::Map(entries.collect()),
        line: map.line,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::listing::id_of;
    use crate::node::parse;

    fn settings(depot_type: &str) -> &'static [Parameter] {
        const fn known(name: &'static str, kind: ParameterKind, secret: bool) -> Parameter {
            Parameter {
                name,
                kind,
                required: false,
                default: None,
                secret,
                description: "",
            }
        }
        const KNOWN: &[Parameter] = &[
            known("host", ParameterKind::Text, false),
            known("urls", ParameterKind::List, false),
            known("params", ParameterKind::Map(&["sslmode"]), false),
            known("password", ParameterKind::Text, true),
        ];
        match depot_type {
            "postgresql" => KNOWN,
            _ => &[],
        }
    }

    fn shown_yaml(text: &str) -> String {
        let file: Arc<Path> = Arc::from(Path::new("a.yaml"));
        let nodes = parse(text, &file).unwrap();
        let shown = |node| shown(node, id_of(node).unwrap().0, settings).to_yaml();
        nodes.iter().map(shown).collect::<Vec<_>>().join("---\n")
    }

    /// Whatever is misspelt, and wherever a password stands.
    #[test]
    fn what_is_not_known_is_not_shown() {
        let secret = "name: s\nversion: v1\ntype: instance-secret\n";
        let depot = "name: d\nversion: v1\ntype: depot\n";
        let user = "name: u\nversion: v1\ntype: user\n";
        for (head, rest) in [
            (secret, "instance-secrets: {data: {password: HIDDEN}}"),
            (secret, "data: {password: HIDDEN}"),
            (secret, "password: HIDDEN"),
            (secret, "owner: {password: HIDDEN}"),
            (secret, "instance-secret: HIDDEN"),
            (secret, "instance-secret: [{data: {password: HIDDEN}}]"),
            (secret, "instance-secret: {data: [HIDDEN]}"),
            (secret, "instance-secret: {data: HIDDEN}"),
            (secret, "instance-secret: {dta: {password: HIDDEN}}"),
            (secret, "instance-secret: {password: HIDDEN}"),
            (secret, "instance-secret: {data: {password: {is: HIDDEN}}}"),
            (secret, "instance-secret: {files: {pem: \"-----BEGIN\\nHIDDEN\"}}"),
            (
                depot,
                "depot: {type: POSTGRESQL, connectionSecrets: [{data: {password: HIDDEN}}]}",
            ),
            (
                depot,
                "depot: {type: POSTGRESQL, connectionSecret: {data: {password: HIDDEN}}}",
            ),
            (
                depot,
                "depot: {type: POSTGRESQL, connectionSecret: [{password: HIDDEN}, HIDDEN]}",
            ),
            (
                depot,
                "depot: {type: POSTGRESQL, secrets: [{name: s, data: {password: HIDDEN}}, HIDDEN]}",
            ),
            (depot, "depot: {type: POSTGRESQL, spec: {password: HIDDEN}}"),
            (depot, "depot: {type: POSTGRESQL, spec: {pasword: HIDDEN}}"),
            (depot, "depot: {type: POSTGRESQL, postgresql: {password: HIDDEN}}"),
            (depot, "depot: {type: POSTGRESQL, specs: {host: HIDDEN}}"),
            (depot, "depot: {type: POSTGRESQL, spec: HIDDEN}"),
            (depot, "depot: {type: POSTGRESQL, spec: {host: {password: HIDDEN}}}"),
            (depot, "depot: {type: POSTGRESQL, spec: {host: 'pg://me:HIDDEN@h/d'}}"),
            (
                depot,
                "depot: {type: POSTGRESQL, spec: {urls: ['http://h/a?sig=HIDDEN']}}",
            ),
            (
                depot,
                "depot: {type: POSTGRESQL, spec: {params: {sslpassword: HIDDEN}}}",
            ),
            (depot, "depot: {type: POSTGRES, spec: {password: HIDDEN}}"),
            (depot, "depot: {spec: {password: HIDDEN}}"),
            (depot, "depots: {type: POSTGRESQL, spec: {host: HIDDEN}}"),
            (user, "user: {apikeys: [{name: k, sha265: HIDDEN}]}"),
            (user, "user: {apikeys: {name: k, sha256: HIDDEN}}"),
            (user, "user: {apikey: [{name: k, sha256: HIDDEN}]}"),
            (user, "users: {apikeys: [{name: k, sha256: HIDDEN}]}"),
            (user, "apikeys: [{name: k, sha256: HIDDEN}]"),
            (user, "user: {attributes: {region: {password: HIDDEN}}}"),
            (user, "user: {certificates: [{key: HIDDEN}]}"),
        ] {
            let shown = shown_yaml(&format!("{head}{rest}\n"));
            assert!(!shown.contains("HIDDEN"), "{rest}: {shown}");
            assert!(shown.contains(head.lines().next().unwrap()), "{rest}: {shown}");
        }
    }

    #[test]
    fn what_is_harmless_stays_as_it_is() {
        for text in [
            "name: d\nversion: v1\ntype: depot\ntags:\n  - a\ndepot:\n  type: POSTGRESQL\n  external: true\n  spec:\n    host: h\n    \
             urls:\n      - u\n    params:\n      sslmode: disable\n",
            "name: d\nversion: v2alpha\ntype: depot\ndepot:\n  type: POSTGRESQL\n  postgresql:\n    host: h\n  secrets:\n    - name: s\n      \
             allkeys: true\n",
            "name: u\nversion: v1\ntype: user\nuser:\n  tags:\n    - a\n  attributes:\n    region: EU\n  apikeys:\n    - name: k\n  \
             certificates:\n    - subject: uu\n",
            "name: s\nversion: v1\ntype: secret\nsecret:\n  acl: rw\n  files:\n    pem: ./a.pem\n",
        ] {
            let file: Arc<Path> = Arc::from(Path::new("a.yaml"));
            let nodes = parse(text, &file).unwrap();
            assert_eq!(shown_yaml(text), nodes.iter().map(Node::to_yaml).collect::<String>());
        }
    }
}

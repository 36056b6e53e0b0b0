//! Access decisions: may this subject do this to that object.
//!
//! Nothing is allowed unless a policy allows it; a matching policy that denies beats any that allow; the role
//! `roles:id:operator` may do everything. An object goes by several names, paths and tags; a policy that names any of
//! them is about it. Deciding does no IO.

use std::sync::Arc;

use minerva_resources::{AccessPolicy, Address, Glob};

use crate::impersonate::IMPERSONATE;
use crate::principal::Principal;
use crate::rules::{PolicyRef, Rules};

/// Something that may be done something to, under every name it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Object {
    /// Its paths: addresses of data, paths of an API.
    pub paths: Vec<String>,
    /// Its tags.
    pub tags: Vec<String>,
}

/// Whether something is allowed, and which policies said so.
#[derive(Debug, Clone, Default)]
pub struct AccessDecision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The policies that decided: those that deny, else those that allow. Empty when no policy matched, and for
    /// operators whom no policy had to allow.
    pub because: Vec<Arc<PolicyRef>>,
}

/// An access policy and who it is.
#[derive(Debug, Clone)]
pub(crate) struct AccessRule {
    pub(crate) policy: AccessPolicy,
    pub(crate) because: Arc<PolicyRef>,
}

impl AccessRule {
    /// Whether a predicate is written out in the policy.
    fn names(&self, predicate: &str) -> bool {
        let mut globs = self.policy.predicates.iter();
        globs.any(|glob| glob.literal() == Some(predicate))
    }

    /// Whether the policy denies this to whom it is about.
    pub(crate) fn denies(&self, predicate: &str) -> bool {
        !self.policy.allow && self.policy.predicates.iter().any(|glob| glob.matches(predicate))
    }

    /// Whether the policy could name something whose path begins like this. Errs on the side of yes.
    pub(crate) fn may_name_below(&self, begin: &str) -> bool {
        self.policy.paths.iter().any(|glob| glob.may_begin_with(begin))
    }

    /// Whether the policy names things by their tags.
    pub(crate) fn has_tags(&self) -> bool {
        !self.policy.tags.is_empty()
    }

    pub(crate) fn is_about(&self, predicate: &str, object: &Object) -> bool {
        let names =
            |globs: &[Glob], texts: &[String]| globs.iter().any(|glob| texts.iter().any(|text| glob.matches(text)));
        self.policy.predicates.iter().any(|glob| glob.matches(predicate))
            && (names(&self.policy.paths, &object.paths)
                || self.policy.tags.matches(object.tags.iter().map(String::as_str)))
    }

    /// Whether the policy could be about some table below these first parts of an address. Errs on the side of yes.
    fn could_be_about(&self, place: &Place<'_>) -> bool {
        self.policy.predicates.iter().any(|glob| glob.matches(SELECT))
            && (self
                .policy
                .paths
                .iter()
                .any(|glob| could_match(glob.as_str(), &place.path))
                || self.policy.tags.0.iter().any(|all| {
                    !all.is_empty()
                        && all.iter().all(|glob| {
                            could_match(glob.as_str(), &place.tag) || place.tags.iter().any(|tag| glob.matches(tag))
                        })
                }))
    }
}

/// Where tables may lie: the known first segments of their path and tag, and the tags any of them may have.
struct Place<'a> {
    path: Vec<&'a str>,
    tag: Vec<&'a str>,
    tags: Vec<&'a str>,
}

/// What reading a table needs.
pub(crate) const SELECT: &str = "select";
/// What any statement that writes may have instead of what it needs.
const WRITE: &str = "write";
/// What statements that write need, each for itself.
const WRITES: [&str; 5] = ["create", "insert", "update", "delete", "drop"];
/// A name that nothing has.
pub(crate) const UNHEARD_OF: &str = "\u{10fffd}";
/// What takes all columns of a row away with it.
const REMOVES: [&str; 2] = ["delete", "drop"];

/// What a policy may deny so that this may not be done: itself, and where it writes any writing.
pub(crate) fn predicates_of(predicate: &str) -> impl Iterator<Item = &str> {
    std::iter::once(predicate).chain(WRITES.contains(&predicate).then_some(WRITE))
}

/// What running a query on a cluster needs.
const READ: &str = "read";

/// The tag that stands for a table.
pub(crate) fn table_tag(address: &Address) -> String {
    let Address {
        depot,
        collection,
        dataset,
    } = address;
    format!("dataos:system:minerva:table:{depot}:{collection}:{dataset}")
}

/// The column that a path names: `dataos://depot:collection/dataset/column`.
fn column_in(path: &str) -> Option<(Address, &str)> {
    let (table, column) = path.rsplit_once('/')?;
    let address: Address = table.parse().ok()?;
    (address.is_dataset() && !column.is_empty()).then_some((address, column))
}

impl Rules {
    /// May the principal do `predicate` to the object.
    pub fn authorize(&self, principal: &Principal, predicate: &str, object: &Object) -> AccessDecision {
        if principal.is_operator() && predicate != IMPERSONATE {
            return AccessDecision {
                allowed: true,
                because: vec![],
            };
        }
        let person = self.person(principal);
        let mut decision = AccessDecision::default();
        let mut denied = vec![];
        for rule in person.access(self).filter(|rule| rule.is_about(predicate, object)) {
            if rule.policy.allow {
                // What lets one be somebody else must say so, not only not exclude it.
                if predicate == IMPERSONATE && !rule.names(IMPERSONATE) {
                    continue;
                }
                decision.because.push(Arc::clone(&rule.because));
            } else {
                denied.push(Arc::clone(&rule.because));
            }
        }
        decision.allowed = denied.is_empty() && !decision.because.is_empty();
        if !denied.is_empty() {
            decision.because = denied;
        }
        decision
    }

    /// May the principal read the table.
    pub fn may_select(&self, principal: &Principal, address: &Address) -> AccessDecision {
        self.authorize(principal, SELECT, &self.object(address))
    }

    /// May the principal do this to the table: `create`, `insert`, `update`, `delete` or `drop`. Who may `write` may do any of it, and who is
    /// denied either may not. Single columns may be denied on top of that ([`Rules::unwritable`]).
    pub fn may_write(&self, principal: &Principal, predicate: &str, address: &Address) -> AccessDecision {
        self.decide_object(principal, predicate, &self.object(address))
    }

    /// The same for anything and for any predicate: what writes goes by two names.
    pub(crate) fn decide_object(&self, principal: &Principal, predicate: &str, object: &Object) -> AccessDecision {
        let one = self.authorize(principal, predicate, object);
        if !WRITES.contains(&predicate) {
            return one;
        }
        let any = self.authorize(principal, WRITE, object);
        // Policies that decided without allowing have denied.
        let denies = |decision: &AccessDecision| !decision.allowed && !decision.because.is_empty();
        match () {
            () if denies(&one) => one,
            () if denies(&any) || !one.allowed => any,
            () => one,
        }
    }

    /// The same for an object that somebody outside names. Every path must be allowed by itself, whatever else is asked about with it. A table goes by
    /// its tags as well, and what they allow or deny is what a statement on the table meets.
    pub fn decide_access(&self, principal: &Principal, predicate: &str, object: &Object) -> AccessDecision {
        let mut allowed = AccessDecision::default();
        let mut decisions: Vec<AccessDecision> = (object.paths.iter())
            .map(|path| match column_in(path) {
                Some((address, column)) => self.decide_column(principal, predicate, (&address, column), &object.tags),
                None => self.decide_whole(principal, predicate, &self.named(path, &object.tags), &object.tags),
            })
            .collect();
        if object.paths.is_empty() {
            decisions.push(self.decide_whole(principal, predicate, &self.tagged(&object.tags), &object.tags));
        }
        for decision in decisions {
            if !decision.allowed {
                return decision;
            }
            allowed.allowed = true;
            for policy in decision.because {
                if !allowed.because.contains(&policy) {
                    allowed.because.push(policy);
                }
            }
        }
        allowed
    }

    /// The same for an object that is no column. What removes rows of a table removes all of its columns, with the tags that were asked about.
    fn decide_whole(&self, principal: &Principal, predicate: &str, object: &Object, tags: &[String]) -> AccessDecision {
        let decision = self.decide_object(principal, predicate, object);
        if !decision.allowed || !REMOVES.contains(&predicate) {
            return decision;
        }
        let tables = object.paths.iter().filter_map(|path| path.parse::<Address>().ok());
        tables
            .filter(Address::is_dataset)
            .find_map(|address| {
                let names = self.conceivable_columns(predicate, &address);
                let columns = names.iter().map(|name| (name.as_str(), tags.to_vec()));
                self.unwritable(principal, predicate, &address, columns)
            })
            .map_or(decision, |(_, denied)| denied)
    }

    /// What goes by this path and these tags.
    fn named(&self, path: &str, tags: &[String]) -> Object {
        let mut object = self.tagged(tags);
        object.paths.push(path.to_owned());
        if let Some(address) = path.parse::<Address>().ok().filter(Address::is_dataset) {
            let table = self.object(&address);
            object.paths.extend(table.paths);
            object.tags.extend(table.tags);
        }
        object
    }

    /// What goes by these tags; the tag of a table stands for the table.
    fn tagged(&self, tags: &[String]) -> Object {
        let mut object = Object {
            paths: vec![],
            tags: tags.to_vec(),
        };
        for tag in tags {
            let parts: Option<Vec<&str>> = tag
                .strip_prefix("dataos:system:minerva:table:")
                .map(|names| names.splitn(3, ':').collect());
            if let Some([depot, collection, dataset]) = parts.as_deref() {
                let table = self.object(&Address::new(*depot, *collection, *dataset));
                object.paths.extend(table.paths);
                object.tags.extend(table.tags);
            }
        }
        object
    }

    /// May the principal run queries on the cluster.
    pub fn may_use_cluster(&self, principal: &Principal, name: &str) -> AccessDecision {
        let tags = vec![format!("dataos:resource:cluster:{name}")];
        self.authorize(principal, READ, &Object { paths: vec![], tags })
    }

    /// Whether the principal may be able to read some table of the depot. For listings: a yes promises nothing, and
    /// a no is certain. Whether a table may be read is for [`Rules::may_select`] to say.
    pub fn may_see_depot(&self, principal: &Principal, depot: &str) -> bool {
        self.may_see(principal, &Address::new(depot, "", ""))
    }

    /// The same for some table of a collection.
    pub fn may_see_collection(&self, principal: &Principal, depot: &str, collection: &str) -> bool {
        self.may_see(principal, &Address::new(depot, collection, ""))
    }

    fn may_see(&self, principal: &Principal, place: &Address) -> bool {
        if principal.is_operator() {
            return true;
        }
        let person = self.person(principal);
        let known = [place.depot.as_str(), place.collection.as_str()];
        let known = known.into_iter().take_while(|part| !part.is_empty());
        let path = ["dataos", "", ""].into_iter().chain(known.clone()).collect();
        let tag = ["dataos", "system", "minerva", "table"]
            .into_iter()
            .chain(known)
            .collect();
        let tags = self.tags().inside(place);
        let here = Place { path, tag, tags };
        // A policy that denies a table of an unheard-of name denies every one.
        let unheard_of = |part: &String| {
            if part.is_empty() {
                UNHEARD_OF.to_owned()
            } else {
                part.clone()
            }
        };
        let any = Address::new(&place.depot, unheard_of(&place.collection), UNHEARD_OF);
        let any = self.object(&any);
        !person
            .access(self)
            .any(|rule| !rule.policy.allow && rule.is_about(SELECT, &any))
            && person
                .access(self)
                .any(|rule| rule.policy.allow && rule.could_be_about(&here))
    }

    /// A table under every name that policies may use for it.
    pub(crate) fn object(&self, address: &Address) -> Object {
        let tags = self.tags().of_dataset(address).into_iter().map(str::to_owned);
        Object {
            paths: vec![address.to_string()],
            tags: std::iter::once(table_tag(address)).chain(tags).collect(),
        }
    }
}

/// Whether a pattern could match some text that begins with these segments. Errs on the side of yes.
fn could_match(pattern: &str, known: &[&str]) -> bool {
    let segments = segments(pattern);
    for (index, part) in known.iter().enumerate() {
        let Some(segment) = segments.get(index) else {
            return false;
        };
        // `**`, and braces with a delimiter inside, may reach over segments.
        if segment.contains("**") || (segment.contains('{') && segment.contains([':', '/'])) {
            return Glob::new(pattern).is_ok_and(|glob| glob.may_begin_with(&beginning(known)));
        }
        let fits = match segment.as_str() {
            "" => part.is_empty(),
            text => Glob::new(text).is_ok_and(|glob| glob.matches(part)),
        };
        if !fits {
            return false;
        }
    }
    segments.len() > known.len() || segments.last().is_some_and(|last| last.contains("**"))
}

/// What a path or tag begins with that goes on behind these first segments.
fn beginning(known: &[&str]) -> String {
    match known {
        ["dataos", "", "", depot] => format!("dataos://{depot}:"),
        ["dataos", "", "", depot, rest @ ..] => format!("dataos://{depot}:{}/", rest.join("/")),
        segments => format!("{}:", segments.join(":")),
    }
}

/// Cuts a pattern at `:` and `/` that stand outside brackets and braces.
fn segments(pattern: &str) -> Vec<String> {
    let mut segments = vec![String::new()];
    let mut depth = 0_usize;
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' | '/' if depth == 0 => {
                segments.push(String::new());
                continue;
            }
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if let Some(segment) = segments.last_mut() {
            segment.push(character);
            if character == '\\' {
                segment.extend(characters.next());
            }
        }
    }
    segments
}

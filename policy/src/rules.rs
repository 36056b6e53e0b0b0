//! The policies of one resource set, compiled once and asked many times.
//!
//! In goes a resource set; out come rules whose masks, filters and patterns are known to be right, or every problem
//! with file and line. What does not depend on the question is worked out once: which policies concern a user, which
//! concern a table. These are kept in bounded caches, so a decision stays a pure function of its arguments.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use minerva_resources::{
    Address, ColumnSelector, DataPolicy, Dataset, Glob, Location, Problem, ResourceSet, Rule, Scope, Unclassified,
    UserSelector, closest,
};

use crate::access::AccessRule;
use crate::filter::Condition;
use crate::index::RuleIndex;
use crate::keys::{DEFAULT_KEY, KeyRing, key_of};
use crate::mask::{self, Mask, MaskFunctions};
use crate::principal::Principal;
use crate::table::TableRules;
use crate::tags::{DerivedTags, TagIndex};

/// The weakest priority that a policy can have.
const WEAKEST_PRIORITY: u32 = 100;

/// How many tables' and how many users' rules are kept ready.
const KEPT: usize = 4096;

/// What a policy decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// Who may do what.
    Access,
    /// How columns are shown.
    Mask,
    /// Which rows are shown.
    Filter,
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Access => "access",
            Self::Mask => "mask",
            Self::Filter => "filter",
        })
    }
}

/// The policy that decided something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyRef {
    /// What it is called.
    pub name: String,
    /// What it decides about.
    pub kind: PolicyKind,
    /// Its priority; among masks the lowest number wins.
    pub priority: Option<u32>,
    /// Where it is declared.
    pub location: Location,
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "policy `{}` ({})", self.name, self.location)
    }
}

/// A compiled data policy.
#[derive(Debug, Clone)]
pub(crate) struct DataRule {
    pub(crate) because: Arc<PolicyRef>,
    pub(crate) priority: u32,
    pub(crate) scope: Scope,
    pub(crate) users: UserSelector,
    pub(crate) columns: ColumnSelector,
    pub(crate) effect: Effect,
}

/// What a data policy does.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    /// Masks columns.
    Mask(Arc<dyn Mask>),
    /// Hides rows for which not all of these hold.
    Filter(Vec<Condition>),
}

impl DataRule {
    /// Whether the policy is about the table, which has these tags of its own and by inheritance.
    pub(crate) fn covers(&self, address: &Address, tags: &[&str]) -> bool {
        let has_tag = |glob: &Glob| tags.iter().any(|tag| glob.matches(tag));
        self.scope.depot.matches(&address.depot)
            && self.scope.collection.matches(&address.collection)
            && self.scope.dataset.matches(&address.dataset)
            && (self.scope.tags.is_empty() || self.scope.tags.iter().any(has_tag))
    }

    pub(crate) fn mask(&self) -> Option<&Arc<dyn Mask>> {
        match &self.effect {
            Effect::Mask(mask) => Some(mask),
            Effect::Filter(_) => None,
        }
    }
}

/// The policies of one resource set.
pub struct Rules {
    access: Vec<AccessRule>,
    data: Vec<DataRule>,
    index: RuleIndex,
    tags: TagIndex,
    /// The masks of unclassified columns, by where they are declared.
    last_resorts: HashMap<Location, usize>,
    keys: Arc<KeyRing>,
    functions: MaskFunctions,
    fingerprint: String,
    people: Mutex<HashMap<BTreeSet<String>, Arc<Person>>>,
    tables: Mutex<HashMap<Address, Arc<TableRules>>>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Rules")
            .field("access", &self.access.len())
            .field("data", &self.data.len())
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// Which policies concern the holder of some tags.
#[derive(Debug)]
pub(crate) struct Person {
    access: Vec<usize>,
    data: Vec<bool>,
}

impl Person {
    /// The access policies about this person.
    pub(crate) fn access<'a>(&'a self, rules: &'a Rules) -> impl Iterator<Item = &'a AccessRule> {
        self.access.iter().filter_map(|index| rules.access.get(*index))
    }

    /// Whether an access policy, by its number, is about this person.
    pub(crate) fn is_subject_of(&self, index: usize) -> bool {
        self.access.binary_search(&index).is_ok()
    }

    /// Whether a data policy, by its number, is about this person.
    pub(crate) fn has(&self, index: usize) -> bool {
        self.data.get(index).copied().unwrap_or(false)
    }
}

impl Rules {
    /// Compiles the policies of a resource set, or says everything that is wrong with them.
    pub fn compile(set: &ResourceSet) -> Result<Self, Vec<Problem>> {
        Self::compile_with(set, &DerivedTags::new())
    }

    /// The same, with the tags that followed columns into the tables that statements made. They are as good as declared ones, but that masks
    /// which contradict each other because of them close the table when it is asked for, and not the whole set now.
    pub fn compile_with(set: &ResourceSet, derived: &DerivedTags) -> Result<Self, Vec<Problem>> {
        let mut problems = vec![];
        let access = set.access_policies().iter().map(|policy| AccessRule {
            policy: policy.clone(),
            because: Arc::new(PolicyRef {
                name: policy.name.clone(),
                kind: PolicyKind::Access,
                priority: None,
                location: policy.meta.location.clone(),
            }),
        });
        let access = access.collect();
        let mut data = vec![];
        for policy in set.data_policies() {
            match compiled(policy, set) {
                Ok(rule) => data.push(rule),
                Err(found) => problems.extend(found),
            }
        }
        let mut tags = TagIndex::of(set);
        problems.extend(crate::conflict::conflicts(&data, &tags, set));
        tags.add(derived);
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut last_resorts = HashMap::new();
        for dataset in set
            .datasets()
            .filter(|dataset| dataset.unclassified == Some(Unclassified::Mask))
        {
            last_resorts.insert(dataset.meta.location.clone(), data.len());
            data.push(last_resort(dataset).map_err(|problem| vec![problem])?);
        }
        let keys = Arc::new(KeyRing::from(set));
        Ok(Self {
            access,
            index: RuleIndex::of(&data),
            data,
            tags,
            last_resorts,
            functions: MaskFunctions::new(&keys),
            keys,
            fingerprint: set.fingerprint().to_owned(),
            people: Mutex::default(),
            tables: Mutex::default(),
        })
    }

    /// Changes whenever a policy may have changed.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The keys of the masks, for [`crate::mask_functions`] and for handing to authenticated workers.
    pub fn keys(&self) -> &Arc<KeyRing> {
        &self.keys
    }

    pub(crate) fn functions(&self) -> &MaskFunctions {
        &self.functions
    }

    pub(crate) fn data(&self) -> &[DataRule] {
        &self.data
    }

    /// The mask of a table's unclassified columns, by its number, if they are masked.
    pub(crate) fn last_resort(&self, address: &Address) -> Option<usize> {
        match self.tags.unclassified(address) {
            Some((Unclassified::Mask, location)) => self.last_resorts.get(location).copied(),
            _ => None,
        }
    }

    /// The data policies by what they select.
    pub(crate) fn index(&self) -> &RuleIndex {
        &self.index
    }

    pub(crate) fn access(&self) -> &[AccessRule] {
        &self.access
    }

    pub(crate) fn tags(&self) -> &TagIndex {
        &self.tags
    }

    /// Which policies concern a principal; worked out once for each set of tags.
    pub(crate) fn person(&self, principal: &Principal) -> Arc<Person> {
        if let Some(person) = self
            .people
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&principal.tags)
        {
            return Arc::clone(person);
        }
        let tags = principal.tags.iter().map(String::as_str);
        let person = Arc::new(Person {
            access: (self.access.iter().enumerate())
                .filter(|(_, rule)| rule.policy.subjects.matches(tags.clone()))
                .map(|(index, _)| index)
                .collect(),
            data: self.data.iter().map(|rule| rule.users.matches(tags.clone())).collect(),
        });
        keep(&self.people, principal.tags.clone(), &person);
        person
    }

    /// Which policies concern which columns of a table; worked out once for each table and schema.
    pub(crate) fn table(&self, address: &Address, schema: &datafusion::arrow::datatypes::Schema) -> Arc<TableRules> {
        let known = self
            .tables
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(address)
            .map(Arc::clone);
        if let Some(table) = known.filter(|table| table.is_for(schema)) {
            return table;
        }
        let table = Arc::new(TableRules::new(self, address, schema));
        keep(&self.tables, address.clone(), &table);
        table
    }
}

/// The policy that `unclassified: mask` stands for: everybody sees `redact`, and every other mask that is about the
/// column outranks it.
fn last_resort(dataset: &Dataset) -> Result<DataRule, Problem> {
    let glob = |text: &str| match text {
        "" => Glob::everything(),
        text => Glob::exactly(text),
    };
    let priority = WEAKEST_PRIORITY + 1;
    Ok(DataRule {
        because: Arc::new(PolicyRef {
            name: format!("unclassified of {}", dataset.meta.name),
            kind: PolicyKind::Mask,
            priority: Some(priority),
            location: dataset.meta.location.clone(),
        }),
        priority,
        scope: Scope {
            depot: glob(&dataset.address.depot),
            collection: glob(&dataset.address.collection),
            dataset: glob(&dataset.address.dataset),
            tags: vec![],
        },
        users: UserSelector {
            all: false,
            tags: vec![Glob::everything()],
        },
        columns: ColumnSelector::default(),
        effect: Effect::Mask(mask::redact(&dataset.meta.location)?),
    })
}

fn keep<K: std::hash::Hash + Eq, V>(cache: &Mutex<HashMap<K, Arc<V>>>, key: K, value: &Arc<V>) {
    let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
    if cache.len() >= KEPT {
        cache.clear();
    }
    cache.insert(key, Arc::clone(value));
}

fn compiled(policy: &DataPolicy, set: &ResourceSet) -> Result<DataRule, Vec<Problem>> {
    let (kind, effect) = match &policy.rule {
        Rule::Mask(spec) => {
            let mask = mask::read(spec)?;
            // A hash that names no key takes the one that the resources hold for that.
            let default_key = set.secret(DEFAULT_KEY).map(|secret| secret.meta.name.as_str());
            let mask = default_key.and_then(|key| mask.keyed_by(key)).unwrap_or(mask);
            if let Some(name) = mask.secret()
                && let Some(why) = wrong_secret(name, set)
            {
                let message = format!("mask `{}`: `keySecret`: {why}", mask.name());
                return Err(vec![Problem::new(spec.location.clone(), message)]);
            }
            (PolicyKind::Mask, Effect::Mask(mask))
        }
        Rule::Filter(specs) => {
            let mut problems = vec![];
            let mut conditions = vec![];
            for spec in specs {
                match Condition::read(spec) {
                    Ok(condition) => conditions.push(condition),
                    Err(problem) => problems.push(problem),
                }
            }
            if !problems.is_empty() {
                return Err(problems);
            }
            (PolicyKind::Filter, Effect::Filter(conditions))
        }
    };
    let because = Arc::new(PolicyRef {
        name: policy.name.clone(),
        kind,
        priority: Some(policy.priority),
        location: policy.meta.location.clone(),
    });
    Ok(DataRule {
        because,
        priority: policy.priority,
        scope: policy.scope.clone(),
        users: policy.users.clone(),
        columns: policy.columns.clone(),
        effect,
    })
}

/// What is wrong with a secret that a mask names.
fn wrong_secret(name: &str, set: &ResourceSet) -> Option<String> {
    let Some(secret) = set.secret(name) else {
        let close = closest(name, set.secrets().map(|secret| secret.meta.name.as_str()));
        return Some(match close {
            Some(close) => format!("there is no secret `{name}`; did you mean `{close}`?"),
            None => format!("there is no secret `{name}`"),
        });
    };
    key_of(secret)
        .is_none()
        .then(|| format!("secret `{name}` holds no key: expected an entry `key` that is not empty, or a single entry"))
}

/// Checks the policies of a resource set: masks and their parameters, the secrets they name, filters and their
/// expressions, and masks that contradict each other.
pub fn check(set: &ResourceSet) -> Vec<Problem> {
    Rules::compile(set).err().unwrap_or_default()
}

/// What is allowed but better done otherwise: hashes without a key, keys that are too short.
pub fn advise(set: &ResourceSet) -> Vec<Problem> {
    /// A key shorter than this can be found by trying.
    const SHORTEST_KEY: usize = 16;
    let mut advice = vec![];
    for policy in set.data_policies() {
        let Rule::Mask(spec) = &policy.rule else { continue };
        let Ok(mask) = mask::read(spec) else { continue };
        let default_key = set.secret(DEFAULT_KEY).map(|secret| secret.meta.name.as_str());
        match mask.secret().or(default_key.filter(|key| mask.keyed_by(key).is_some())) {
            None if mask.keyed_by(DEFAULT_KEY).is_some() => advice.push(
                Problem::new(
                    spec.location.clone(),
                    format!(
                        "policy `{}` hashes without a key: who can guess the values can look them up",
                        policy.name
                    ),
                )
                .help(
                    "name a secret in `hash.keySecret`, or declare a secret `mask-key`, which is the key of every hash that \
                     names none; `keyed: false` says that a plain hash is meant",
                ),
            ),
            Some(name)
                if set
                    .secret(name)
                    .and_then(|secret| key_of(secret))
                    .is_some_and(|key| key.len() < SHORTEST_KEY) =>
            {
                let message = format!("policy `{}`: the key in secret `{name}` is short", policy.name);
                advice.push(Problem::new(spec.location.clone(), message).help("use at least 16 random characters"));
            }
            _ => {}
        }
    }
    advice
}

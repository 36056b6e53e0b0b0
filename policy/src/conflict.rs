//! Finds masks that contradict each other before any query does: two different masks of one priority that some user
//! would meet on one column.
//!
//! Only what can be seen is found: policies whose selectors meet by what they say, declared columns and declared
//! users. What shows only with a real table and a real user closes that table when it is asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use minerva_resources::{Glob, Problem, ResourceSet};

use crate::rules::DataRule;
use crate::tags::TagIndex;

/// Every pair of policies that contradict each other.
pub(crate) fn conflicts(rules: &[DataRule], tags_of: &TagIndex, set: &ResourceSet) -> Vec<Problem> {
    let mut masks = Masks::of(rules, set);
    // Each pair once, with the declared column that shows it, if one does.
    let mut found: BTreeMap<Pair, Option<String>> = BTreeMap::new();
    for (address, path, tags) in tags_of.columns().filter(|(address, ..)| address.is_dataset()) {
        let rivals = masks.rivals_on(path, &tags);
        if rivals.iter().all(|pair| found.contains_key(pair)) {
            continue;
        }
        let table_tags = tags_of.of_table(address);
        for pair in rivals.iter() {
            if !found.contains_key(pair) && masks.both(*pair, |rule| rule.covers(address, &table_tags)) {
                found.insert(*pair, Some(format!("`{path}` of `{address}`")));
            }
        }
    }
    for pair in masks.rivals_by_selector() {
        if masks.pair(pair).is_some_and(|(left, right)| scopes_meet(left, right)) {
            found.entry(pair).or_default();
        }
    }
    found
        .into_iter()
        .filter_map(|(pair, column)| Some((masks.pair(pair)?, column)))
        .map(|((left, right), column)| problem(left, right, column))
        .collect()
}

fn problem(left: &DataRule, right: &DataRule, column: Option<String>) -> Problem {
    let on = column.map(|column| format!(" on column {column}")).unwrap_or_default();
    let message = format!(
        "policies `{}` and `{}` have priority {} and give different masks{on}",
        left.because.name, right.because.name, left.priority
    );
    Problem::new(right.because.location.clone(), message).help(format!(
        "give one of them another priority; the other is at {}",
        left.because.location
    ))
}

/// Two masks by their numbers, the lower first.
type Pair = (usize, usize);

/// The masks of a resource set, found by what they select: among thousands of policies most pairs share nothing, and are never compared.
struct Masks<'a> {
    rules: Vec<Masking<'a>>,
    by_name: HashMap<String, Vec<usize>>,
    by_tag: HashMap<&'a str, Vec<usize>>,
    /// Patterns that may match several tags.
    patterns: Vec<(&'a Glob, usize)>,
    people: People,
    /// Whether two masks are rivals: of one priority, different, and met by one user.
    rivals: HashMap<Pair, bool>,
    /// The rivals on a column with these tags whose name is of no concern.
    on_tags: HashMap<Vec<String>, Arc<[Pair]>>,
}

struct Masking<'a> {
    rule: &'a DataRule,
    /// What the mask does, in words that are equal for equal masks.
    does: String,
}

impl<'a> Masks<'a> {
    fn of(rules: &'a [DataRule], set: &ResourceSet) -> Self {
        let masking = |rule: &'a DataRule| {
            let mask = rule.mask().filter(|mask| !mask.is_pass_through())?;
            let does = mask.describe();
            Some(Masking { rule, does })
        };
        let rules: Vec<Masking<'a>> = rules.iter().filter_map(masking).collect();
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        let mut by_tag: HashMap<&'a str, Vec<usize>> = HashMap::new();
        let mut patterns = vec![];
        for (index, Masking { rule, .. }) in rules.iter().enumerate() {
            for name in &rule.columns.names {
                by_name.entry(name.to_ascii_lowercase()).or_default().push(index);
            }
            for glob in &rule.columns.tags {
                match glob.literal() {
                    Some(tag) => by_tag.entry(tag).or_default().push(index),
                    None => patterns.push((glob, index)),
                }
            }
        }
        Self {
            rules,
            by_name,
            by_tag,
            patterns,
            people: People::of(set),
            rivals: HashMap::new(),
            on_tags: HashMap::new(),
        }
    }

    fn pair(&self, (left, right): Pair) -> Option<(&'a DataRule, &'a DataRule)> {
        Some((self.rules.get(left)?.rule, self.rules.get(right)?.rule))
    }

    fn both(&self, pair: Pair, is_so: impl Fn(&DataRule) -> bool) -> bool {
        self.pair(pair).is_some_and(|(left, right)| is_so(left) && is_so(right))
    }

    /// The rivals that select a column by its name or one of its tags, wherever it lies.
    fn rivals_on(&mut self, name: &str, tags: &[&str]) -> Arc<[Pair]> {
        let named = self.by_name.get(&name.to_ascii_lowercase()).cloned();
        let key: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        if named.is_none()
            && let Some(known) = self.on_tags.get(&key)
        {
            return Arc::clone(known);
        }
        let mut selecting = named.clone().unwrap_or_default();
        for tag in tags {
            selecting.extend(self.by_tag.get(tag).into_iter().flatten());
            let matching = self.patterns.iter().filter(|(glob, _)| glob.matches(tag));
            selecting.extend(matching.map(|(_, index)| index));
        }
        let rivals: Arc<[Pair]> = self.rivals_among(selecting).into();
        if named.is_none() {
            self.on_tags.insert(key, Arc::clone(&rivals));
        }
        rivals
    }

    /// The rivals whose selectors meet by what they say, on columns that nobody has declared.
    fn rivals_by_selector(&mut self) -> Vec<Pair> {
        let mut meeting: Vec<Vec<usize>> = self.by_name.values().chain(self.by_tag.values()).cloned().collect();
        for (glob, index) in &self.patterns {
            let others = self.by_tag.iter().filter(|(tag, _)| glob.matches(tag));
            let others = others.flat_map(|(_, indexes)| indexes.iter().copied());
            let patterns = self.patterns.iter().filter(|(other, _)| meet(glob, other));
            let others: Vec<usize> = others.chain(patterns.map(|(_, index)| *index)).collect();
            // Those that the pattern meets need not meet each other.
            meeting.extend(others.into_iter().map(|other| vec![*index, other]));
        }
        meeting
            .into_iter()
            .flat_map(|selecting| self.rivals_among(selecting))
            .collect()
    }

    fn rivals_among(&mut self, mut indexes: Vec<usize>) -> Vec<Pair> {
        let priority = |index: &usize| self.rules.get(*index).map(|mask| mask.rule.priority);
        indexes.sort_unstable_by_key(|index| (priority(index), *index));
        indexes.dedup();
        let groups: Vec<Vec<usize>> = indexes
            .chunk_by(|left, right| priority(left) == priority(right))
            .map(<[usize]>::to_vec)
            .collect();
        let mut rivals = vec![];
        for group in groups {
            for (position, left) in group.iter().enumerate() {
                let others = group.iter().skip(position + 1).map(|right| (*left, *right));
                rivals.extend(others.filter(|pair| self.are_rivals(*pair)));
            }
        }
        rivals
    }

    fn are_rivals(&mut self, pair: Pair) -> bool {
        let (Some(left), Some(right)) = (self.rules.get(pair.0), self.rules.get(pair.1)) else {
            return false;
        };
        if left.does == right.does {
            return false;
        }
        let (left, right) = (left.rule, right.rule);
        let people = &mut self.people;
        *self
            .rivals
            .entry(pair)
            .or_insert_with(|| users_meet(left, right) || users_meet(right, left) || people.share(left, right))
    }
}

/// Whether one pattern matches what the other says, taken as a text.
fn meet(left: &Glob, right: &Glob) -> bool {
    left.as_str() == right.as_str() || left.matches(right.as_str()) || right.matches(left.as_str())
}

fn scopes_meet(left: &DataRule, right: &DataRule) -> bool {
    meet(&left.scope.depot, &right.scope.depot)
        && meet(&left.scope.collection, &right.scope.collection)
        && meet(&left.scope.dataset, &right.scope.dataset)
        && (left.scope.tags.is_empty()
            || right.scope.tags.is_empty()
            || (left.scope.tags.iter()).any(|glob| right.scope.tags.iter().any(|other| meet(glob, other))))
}

/// Whether a user with just the tags that one policy asks for meets the other too.
fn users_meet(left: &DataRule, right: &DataRule) -> bool {
    let tags = || left.users.tags.iter().map(Glob::as_str);
    if left.users.all {
        right.users.matches(tags().collect::<Vec<_>>())
    } else {
        tags().any(|tag| right.users.matches([tag]))
    }
}

/// The declared users, by the patterns for tags that policies have for them.
struct People {
    tags: Vec<Vec<String>>,
    matching: HashMap<String, Arc<[bool]>>,
}

impl People {
    fn of(set: &ResourceSet) -> Self {
        Self {
            tags: set.users().map(|user| user.tags.clone()).collect(),
            matching: HashMap::new(),
        }
    }

    /// Whether some declared user is meant by both policies.
    fn share(&mut self, left: &DataRule, right: &DataRule) -> bool {
        let (left, right) = (self.meant(left), self.meant(right));
        left.iter().zip(&right).any(|(left, right)| *left && *right)
    }

    fn meant(&mut self, rule: &DataRule) -> Vec<bool> {
        let all = rule.users.all && !rule.users.tags.is_empty();
        let mut meant = vec![all; self.tags.len()];
        for glob in &rule.users.tags {
            for (meant, matches) in meant.iter_mut().zip(self.matching(glob).iter()) {
                *meant = if all { *meant && *matches } else { *meant || *matches };
            }
        }
        meant
    }

    fn matching(&mut self, glob: &Glob) -> Arc<[bool]> {
        if let Some(known) = self.matching.get(glob.as_str()) {
            return Arc::clone(known);
        }
        let matches = |tags: &Vec<String>| tags.iter().any(|tag| glob.matches(tag));
        let matching: Arc<[bool]> = self.tags.iter().map(matches).collect();
        self.matching.insert(glob.as_str().to_owned(), Arc::clone(&matching));
        matching
    }
}

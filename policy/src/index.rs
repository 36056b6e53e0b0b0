//! Data policies, found by what they select: a table with a handful of tagged columns is not compared with ten thousand policies.
//!
//! In: the compiled policies. Out: the numbers of those that may be about a table, a tag or a column's name. What is found here is looked at again:
//! the index may find too many, never too few.

use std::collections::{BTreeMap, HashMap};

use minerva_resources::{Address, Glob};

use crate::rules::DataRule;

/// Policies by what they select.
#[derive(Debug, Default)]
pub(crate) struct RuleIndex {
    /// The filters, by the most particular part of their scope that is no pattern.
    filters: ByScope,
    /// The masks that are about one table by its name.
    exact: HashMap<Address, Vec<usize>>,
    /// The masks by tags of columns that are no patterns.
    by_tag: HashMap<String, Vec<usize>>,
    /// The masks by patterns for tags of columns.
    patterns: Vec<(Glob, usize)>,
    /// The masks by names of columns, in small letters.
    by_name: BTreeMap<String, Vec<usize>>,
    /// The place of each policy in the order in which masks win.
    rank: Vec<usize>,
}

#[derive(Debug, Default)]
struct ByScope {
    dataset: HashMap<String, Vec<usize>>,
    collection: HashMap<String, Vec<usize>>,
    depot: HashMap<String, Vec<usize>>,
    anywhere: Vec<usize>,
}

impl RuleIndex {
    /// Sorts the policies.
    pub(crate) fn of(rules: &[DataRule]) -> Self {
        let mut index = Self::default();
        let mut order: Vec<usize> = (0..rules.len()).collect();
        let wins = |number: &usize| {
            let rule = rules.get(*number);
            rule.map(|rule| {
                (
                    rule.priority,
                    rule.mask().is_some_and(|mask| mask.is_pass_through()),
                    *number,
                )
            })
        };
        order.sort_by_key(wins);
        index.rank = vec![0; rules.len()];
        for (place, number) in order.into_iter().enumerate() {
            if let Some(rank) = index.rank.get_mut(number) {
                *rank = place;
            }
        }
        for (number, rule) in rules.iter().enumerate() {
            match rule.mask() {
                Some(_) => index.add_mask(number, rule),
                None => index.filters.add(number, rule),
            }
        }
        index
    }

    fn add_mask(&mut self, number: usize, rule: &DataRule) {
        let scope = &rule.scope;
        if let (Some(depot), Some(collection), Some(dataset)) = (
            scope.depot.literal(),
            scope.collection.literal(),
            scope.dataset.literal(),
        ) {
            let address = Address::new(depot, collection, dataset);
            self.exact.entry(address).or_default().push(number);
        }
        for glob in &rule.columns.tags {
            match glob.literal() {
                Some(tag) => self.by_tag.entry(tag.to_owned()).or_default().push(number),
                None => self.patterns.push((glob.clone(), number)),
            }
        }
        for name in &rule.columns.names {
            self.by_name.entry(name.to_ascii_lowercase()).or_default().push(number);
        }
    }

    /// The filters that may be about a table.
    pub(crate) fn filters(&self, address: &Address) -> Vec<usize> {
        let of = |map: &HashMap<String, Vec<usize>>, name: &str| map.get(name).cloned().unwrap_or_default();
        let filters = &self.filters;
        let mut found = filters.anywhere.clone();
        found.extend(of(&filters.dataset, &address.dataset));
        found.extend(of(&filters.collection, &address.collection));
        found.extend(of(&filters.depot, &address.depot));
        found.sort_unstable();
        found
    }

    /// The masks about this one table.
    pub(crate) fn masks_about(&self, address: &Address) -> &[usize] {
        self.exact.get(address).map(Vec::as_slice).unwrap_or_default()
    }

    /// The masks that select columns with one of these tags, on whatever table.
    pub(crate) fn masks_by_tags(&self, tags: &[&str]) -> Vec<usize> {
        let mut found = vec![];
        for tag in tags {
            found.extend(self.by_tag.get(*tag).into_iter().flatten());
            let matching = self.patterns.iter().filter(|(glob, _)| glob.matches(tag));
            found.extend(matching.map(|(_, number)| *number));
        }
        found
    }

    /// The masks that select columns of this name, on whatever table; with `below`, also those that name something inside it.
    pub(crate) fn masks_by_name(&self, path: &str, below: bool) -> Vec<usize> {
        let path = path.to_ascii_lowercase();
        let mut found = self.by_name.get(&path).cloned().unwrap_or_default();
        if below {
            let inside = format!("{path}.");
            let names = self.by_name.range(inside.clone()..);
            let names = names.take_while(|(name, _)| name.starts_with(&inside));
            found.extend(names.flat_map(|(_, numbers)| numbers));
        }
        found
    }

    /// Where a mask stands among all masks: the one that wins first.
    pub(crate) fn rank(&self, number: usize) -> usize {
        self.rank.get(number).copied().unwrap_or(usize::MAX)
    }
}

impl ByScope {
    fn add(&mut self, number: usize, rule: &DataRule) {
        let scope = &rule.scope;
        let place = if let Some(name) = scope.dataset.literal() {
            self.dataset.entry(name.to_owned()).or_default()
        } else if let Some(name) = scope.collection.literal() {
            self.collection.entry(name.to_owned()).or_default()
        } else if let Some(name) = scope.depot.literal() {
            self.depot.entry(name.to_owned()).or_default()
        } else {
            &mut self.anywhere
        };
        place.push(number);
    }
}

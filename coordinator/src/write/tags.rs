//! Tags follow columns into what is written.
//!
//! In: the lineage of a query's columns. Out: the tags that copies must have, kept before there is a copy, or a refusal that names them.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::logical_expr::LogicalPlan;
use minerva_policy::{CarriedTags, lineage};
use minerva_resources::{Address, Depot};

use super::Writing;
use crate::error::{Code, QueryError, Result};

/// Tags by column or dotted field.
pub(super) type Tags = BTreeMap<String, BTreeSet<String>>;

impl Writing<'_> {
    /// The tags that the columns of a plan bring to columns of these names.
    pub(super) fn carried(&self, plan: &LogicalPlan, names: &[String]) -> Result<Tags> {
        let mut tags = Tags::new();
        for CarriedTags {
            column,
            inside,
            tags: carried,
        } in self.snapshot.rules.carried_tags(&lineage(plan)?)
        {
            let Some(name) = names.get(column) else { continue };
            let path: Vec<String> = std::iter::once(name.clone()).chain(inside).collect();
            tags.entry(path.join(".")).or_default().extend(carried);
        }
        Ok(tags)
    }

    /// Those of them that the columns of a table have not got.
    pub(super) fn lacking(&self, tags: Tags, address: &Address) -> Tags {
        let missing = |(path, mut tags): (String, BTreeSet<String>)| {
            let parts: Vec<String> = path.split('.').map(str::to_owned).collect();
            let known = self.snapshot.rules.tags_of(address, &parts);
            tags.retain(|tag| !known.contains(tag));
            (!tags.is_empty()).then_some((path, tags))
        };
        tags.into_iter().filter_map(missing).collect()
    }
}

/// The tags that come to a column or to anything inside it.
pub(super) fn of_column(tags: &Tags, column: &str) -> Vec<String> {
    let inside = |path: &str| {
        path.strip_prefix(column)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let found = tags.iter().filter(|(path, _)| inside(path)).flat_map(|(_, tags)| tags);
    found.cloned().collect()
}

/// Refuses to bring tags to a depot that does not take them.
pub(super) fn expect_accepted(tags: &Tags, depot: &Depot) -> Result<()> {
    if tags.is_empty() || depot.accepts_tags {
        return Ok(());
    }
    let message = format!(
        "depot `{}` does not take columns with tags, and these bring some: {}",
        depot.name(),
        described(tags)
    );
    Err(QueryError::new(Code::PermissionDenied, message)
        .with_hint("leave them out, or write into a depot whose manifest says `acceptsTags: true`"))
}

/// Refuses to bring tags to columns of a table that is there: others may read it just now, by the tags that it has.
pub(super) fn expect_none_new(tags: &Tags, address: &Address) -> Result<()> {
    if tags.is_empty() {
        return Ok(());
    }
    let message = format!(
        "columns of `{address}` lack tags of what is written to them: {}",
        described(tags)
    );
    Err(QueryError::new(Code::PermissionDenied, message)
        .with_hint("leave these columns out, or have their tags declared in a dataset manifest"))
}

fn described(tags: &Tags) -> String {
    let column = |(name, tags): (&String, &BTreeSet<String>)| {
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        format!("`{name}` ({})", tags.join(", "))
    };
    tags.iter().map(column).collect::<Vec<_>>().join(", ")
}

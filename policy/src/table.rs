//! What the policies say about one table whatever the user: which masks may reach which column or field, and which
//! filters may hold. Worked out once for each table and schema, so that a decision only has to ask who the user is.

use std::collections::HashSet;
use std::sync::OnceLock;

use datafusion::arrow::datatypes::{DataType, Fields, Schema};
use datafusion::logical_expr::Expr;
use minerva_resources::{Address, Unclassified, closest};

use crate::column_access::ColumnDenial;
use crate::mask::Nesting;
use crate::opaque::Opaque;
use crate::rules::Rules;
use crate::tags::lies_below;
use crate::verdict::{Compiled, HiddenColumn};

/// The policies about one table.
#[derive(Debug)]
pub(crate) struct TableRules {
    fields: Fields,
    /// One node for each top-level column that some mask may reach.
    pub(crate) columns: Vec<ColumnNode>,
    /// The filters that may hold.
    pub(crate) filters: Vec<TableFilter>,
    /// Policies about this very table that name a column which is not there, or select a tag that only such a column has.
    pub(crate) missing: Vec<(usize, String)>,
    /// Columns that nobody has classified, where such do not exist but for operators.
    pub(crate) unclassified: Vec<HiddenColumn>,
    /// Columns that access policies deny to those whom they are about.
    pub(crate) denials: Vec<ColumnDenial>,
}

/// A column, or a part of one, with the masks that may reach it.
#[derive(Debug)]
pub(crate) struct ColumnNode {
    /// The column's name, then the way down.
    pub(crate) path: Vec<String>,
    pub(crate) data_type: DataType,
    /// Whether the part can be NULL; columns themselves always can.
    pub(crate) is_nullable: bool,
    /// The masks that may reach it, by priority; `pass_through` after the others of its priority.
    pub(crate) candidates: Vec<Candidate>,
    /// What lies directly inside.
    pub(crate) parts: Vec<ColumnNode>,
}

/// A mask that may reach a column.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// The number of the policy.
    pub(crate) rule: usize,
    /// The mask compiled for the column, once somebody needs it.
    pub(crate) compiled: OnceLock<Result<Compiled, String>>,
}

/// A filter that may hold.
#[derive(Debug)]
pub(crate) struct TableFilter {
    /// The number of the policy.
    pub(crate) rule: usize,
    /// The predicate, once somebody needs it; for filters that are the same for everyone.
    pub(crate) predicate: OnceLock<Result<Opaque<Expr>, String>>,
}

impl TableRules {
    /// Works out what the policies say about a table.
    pub(crate) fn new(rules: &Rules, address: &Address, schema: &Schema) -> Self {
        let table_tags = rules.tags().of_table(address);
        let reach = Reach {
            rules,
            address,
            table_tags: &table_tags,
        };
        let filters = (rules.index().filters(address).into_iter())
            .filter(|index| reach.covers(*index))
            .map(|rule| TableFilter {
                rule,
                predicate: OnceLock::new(),
            })
            .collect();
        let inherited = reach.by_tags(&table_tags);
        let walk = Walk { reach: &reach };
        let unclassified = rules.tags().unclassified(address);
        let is_unclassified = |name: &str| !rules.tags().is_classified(address, name);
        let last_resort = rules.last_resort(address).filter(|index| reach.covers(*index));
        let columns: Vec<_> = schema
            .fields()
            .iter()
            .map(|field| {
                let mut reaching = inherited.clone();
                reaching.extend(last_resort.filter(|_| is_unclassified(field.name())));
                walk.node(vec![field.name().clone()], field.data_type(), true, &reaching)
            })
            .filter(ColumnNode::is_reached)
            .collect();
        let unclassified = match unclassified {
            Some((Unclassified::Deny, location)) => (schema.fields().iter())
                .filter(|field| is_unclassified(field.name()))
                .map(|field| HiddenColumn {
                    name: field.name().clone(),
                    because: format!("unclassified columns are denied ({location})"),
                })
                .collect(),
            _ => vec![],
        };
        let mut missing = missing(&reach, schema);
        missing.extend(untagged(&reach, schema));
        Self {
            fields: schema.fields().clone(),
            columns,
            filters,
            missing,
            unclassified,
            denials: rules.column_denials(address, schema),
        }
    }

    /// Whether this was worked out for a table of just these columns.
    pub(crate) fn is_for(&self, schema: &Schema) -> bool {
        self.fields == *schema.fields()
    }
}

impl ColumnNode {
    /// Whether some mask may reach it or a part of it.
    fn is_reached(&self) -> bool {
        !self.candidates.is_empty() || self.parts.iter().any(Self::is_reached)
    }
}

/// The policies that are about one table.
struct Reach<'a> {
    rules: &'a Rules,
    address: &'a Address,
    table_tags: &'a [&'a str],
}

impl Reach<'_> {
    fn covers(&self, index: usize) -> bool {
        let rule = self.rules.data().get(index);
        rule.is_some_and(|rule| rule.covers(self.address, self.table_tags))
    }

    /// The masks that select a column with these tags.
    fn by_tags(&self, tags: &[&str]) -> HashSet<usize> {
        let mut found: HashSet<usize> = self.rules.index().masks_by_tags(tags).into_iter().collect();
        found.retain(|index| self.covers(*index));
        found
    }

    /// The masks that select a column of this name, or something inside it.
    fn by_name(&self, path: &str, below: bool) -> HashSet<usize> {
        let mut found: HashSet<usize> = self.rules.index().masks_by_name(path, below).into_iter().collect();
        found.retain(|index| self.covers(*index));
        found
    }
}

struct Walk<'a> {
    reach: &'a Reach<'a>,
}

impl Walk<'_> {
    /// The node of a column or part; what reaches the whole reaches the part.
    fn node(
        &self,
        path: Vec<String>,
        data_type: &DataType,
        is_nullable: bool,
        inherited: &HashSet<usize>,
    ) -> ColumnNode {
        let dotted = path.join(".");
        let nesting = Nesting::of(crate::mask::value_type(data_type));
        // What cannot be taken apart is reached as a whole by whoever means a part of it.
        let is_opaque = nesting.0.is_empty();
        let Reach { rules, address, .. } = self.reach;
        let mut tags = rules.tags().of_path(address, &dotted);
        if is_opaque {
            tags.extend(rules.tags().below_path(address, &dotted));
        }
        let mut reaching = inherited.clone();
        reaching.extend(self.reach.by_tags(&tags));
        reaching.extend(self.reach.by_name(&dotted, is_opaque));
        // Each once, in the order in which they win.
        let mut reaching: Vec<usize> = reaching.into_iter().collect();
        reaching.sort_unstable_by_key(|index| rules.index().rank(*index));
        let inside = reaching.iter().copied().collect();
        let parts = nesting.0.into_iter().map(|(segment, field)| {
            let path = path.iter().cloned().chain([segment]).collect();
            self.node(path, field.data_type(), field.is_nullable(), &inside)
        });
        let parts = parts.collect();
        ColumnNode {
            parts,
            candidates: reaching
                .into_iter()
                .map(|rule| Candidate {
                    rule,
                    compiled: OnceLock::new(),
                })
                .collect(),
            path,
            data_type: data_type.clone(),
            is_nullable,
        }
    }
}

/// Policies about one table that name a column which the table does not have: it may have been renamed, and what
/// should be masked would be shown.
fn missing(reach: &Reach<'_>, schema: &Schema) -> Vec<(usize, String)> {
    let mut missing = vec![];
    let about = reach.rules.index().masks_about(reach.address).iter();
    for index in about.filter(|index| reach.covers(**index)) {
        let Some(rule) = reach.rules.data().get(*index) else {
            continue;
        };
        for name in &rule.columns.names {
            if !has_path(schema, name) {
                let names = schema.fields().iter().map(|field| field.name().as_str());
                let why = match closest(name, names) {
                    Some(close) => format!("there is no column `{name}`; did you mean `{close}`?"),
                    None => format!("there is no column `{name}`"),
                };
                missing.push((*index, why));
            }
        }
    }
    missing
}

/// Policies that select a tag which the table's manifest gives to a column that the table does not have: it may have
/// been renamed, and what should be masked would be shown under its new name.
fn untagged(reach: &Reach<'_>, schema: &Schema) -> Vec<(usize, String)> {
    let Reach { rules, address, .. } = reach;
    let mut found = vec![];
    for (dataset, name) in rules.tags().tagged(address) {
        if has_path(schema, name) {
            continue;
        }
        let tags = rules.tags().of_path(address, name);
        let mut selected: Vec<usize> = reach.by_tags(&tags).into_iter().collect();
        selected.sort_unstable();
        found.extend(selected.into_iter().map(|index| {
            // Tags that followed a column into this table stand in no manifest.
            let giver = match dataset.meta.name.as_str() {
                "" => "the statement that wrote it".to_owned(),
                manifest => format!("dataset `{manifest}` ({})", dataset.meta.location),
            };
            let why = format!(
                "there is no column `{name}`, to which {giver} gives tags; correct the manifest or make the table anew if \
                 the column was renamed or dropped"
            );
            (index, why)
        }));
    }
    found
}

fn has_path(schema: &Schema, dotted: &str) -> bool {
    schema
        .fields()
        .iter()
        .any(|field| has_part(field.name(), field.data_type(), dotted))
}

/// Whether a part called `path`, or something inside it, is called `dotted`.
fn has_part(path: &str, data_type: &DataType, dotted: &str) -> bool {
    if path.eq_ignore_ascii_case(dotted) {
        return true;
    }
    if !lies_below(dotted, path) {
        return false;
    }
    let parts = Nesting::of(crate::mask::value_type(data_type)).0;
    // What cannot be taken apart holds whatever is meant by a part of it.
    parts.is_empty()
        || parts
            .iter()
            .any(|(segment, field)| has_part(&format!("{path}.{segment}"), field.data_type(), dotted))
}

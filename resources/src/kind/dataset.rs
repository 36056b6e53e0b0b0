//! `dataset`: what is known of a table, a collection or a depot besides its data: words and tags.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Field, Kind, Meta, optional, required};
use crate::address::Address;
use crate::node::Node;
use crate::problem::Problem;
use crate::set::Builder;

/// What is known of a piece of data.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Dataset {
    /// The head of the manifest.
    pub meta: Meta,
    /// What it is about: a dataset, a collection or a depot.
    pub address: Address,
    /// A sentence for people; empty if there is none.
    pub description: String,
    /// Who answers for the data.
    pub owner: Option<String>,
    /// Tags, which everything inside inherits.
    pub tags: Vec<String>,
    /// The columns about which something is known.
    pub columns: Vec<Column>,
    /// What happens to columns that nobody has classified; nothing is said if absent.
    pub unclassified: Option<Unclassified>,
}

impl Dataset {
    /// Whether the list of columns is an inventory: it names one that needs no tag, which it need not do to put tags on others.
    pub fn is_inventory(&self) -> bool {
        self.columns.iter().any(|column| column.tags.is_empty())
    }
}

/// What happens to a column that is in the source and that no dataset manifest lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unclassified {
    /// It is shown as it is.
    Allow,
    /// It is redacted.
    Mask,
    /// It does not exist but for operators.
    Deny,
}

impl Unclassified {
    /// The words for it.
    pub const WORDS: [(&'static str, Self); 3] = [("allow", Self::Allow), ("mask", Self::Mask), ("deny", Self::Deny)];
}

/// What is known of a column.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Column {
    /// The name; dotted for a field inside a struct.
    pub name: String,
    /// A sentence for people; empty if there is none.
    #[serde(default)]
    pub description: String,
    /// Tags, which fields inside inherit.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Where it stands in the manifest.
    #[serde(default)]
    pub line: usize,
}

#[derive(Deserialize)]
struct Written {
    address: String,
    description: Option<String>,
    owner: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    columns: Vec<WrittenColumn>,
    unclassified: Option<String>,
}

#[derive(Deserialize)]
struct WrittenColumn {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct DatasetKind;

impl Kind for DatasetKind {
    fn name(&self) -> &'static str {
        "dataset"
    }

    fn description(&self) -> &'static str {
        "A dataset manifest says what is known of a table: a description, an owner, tags, and the same of its columns. Data policies \
         select columns by tag. It may also be about a whole collection (`dataos://crm:public`) or depot (`dataos://crm`): tags are \
         inherited from depot to collection to dataset to column to field. Fields inside lists are reached by `element`, those of maps by \
         `key` and `value`: `phones.element.number`."
    }

    fn example(&self) -> &'static str {
        "name: crm
version: v2alpha
type: depot
depot:
  type: SQLITE
  sqlite: {path: crm.db}
---
name: customer
version: v1
type: dataset
dataset:
  address: dataos://crm:public/customer
  description: one row a customer
  owner: jane
  tags: [DPTier.Gold]
  columns:
    - {name: email, description: contact address, tags: [PII.Email]}
    - {name: address.city, tags: [PII.Location]}
"
    }

    fn fields(&self) -> &'static [Field] {
        const FIELDS: &[Field] = &[
            required(
                "address",
                "address",
                "What the manifest is about: `dataos://depot:collection/dataset`, or a collection or depot.",
            ),
            optional("description", "text", "A sentence for people."),
            optional(
                "owner",
                "text",
                "Who answers for the data. Ownership exempts nobody from a policy.",
            ),
            optional(
                "tags",
                "list of texts",
                "Tags of the data, such as `DPTier.Gold`; everything inside inherits them.",
            ),
            optional(
                "columns",
                "list",
                "The columns about which something is known; only for a dataset.",
            ),
            required(
                "columns[].name",
                "text",
                "The column; `address.city` is the field `city` of the column `address`.",
            ),
            optional("columns[].description", "text", "A sentence for people."),
            optional(
                "columns[].tags",
                "list of texts",
                "Tags of the column, such as `PII.Email`.",
            ),
            optional(
                "unclassified",
                "`allow`, `mask`, `deny`",
                "What happens to a column of the source that `columns` does not list: it is shown, redacted, or does not exist but for \
                 operators. The manifest nearest to the table decides: the dataset's, else the collection's, else the depot's. When none \
                 says it: `deny` where the dataset's manifest lists a column without tags, since that is an inventory of the table; else \
                 `allow`.",
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
        let line = meta.at(super::line_of(body, &["address"]));
        let address = written
            .address
            .parse::<Address>()
            .map_err(|message| problems.push(Problem::new(line, message)))
            .ok();
        let column_nodes = body.get("columns").and_then(Node::as_list).unwrap_or_default();
        if let (Some(address), Some(_)) = (&address, column_nodes.first())
            && !address.is_dataset()
        {
            let message = format!("`{address}` is not one dataset and has no columns");
            problems.push(Problem::new(meta.at(super::line_of(body, &["columns"])), message).help("remove `columns`"));
        }
        let mut names = BTreeSet::new();
        let mut columns = Vec::with_capacity(column_nodes.len());
        for (column, node) in written.columns.into_iter().zip(column_nodes) {
            if column.name.is_empty() || column.name.split('.').any(str::is_empty) {
                problems.push(Problem::new(
                    meta.at(node.line),
                    format!("`{}` is not the name of a column", column.name),
                ));
            } else if !names.insert(column.name.clone()) {
                problems.push(Problem::new(
                    meta.at(node.line),
                    format!("the column `{}` is described twice", column.name),
                ));
            }
            columns.push(Column {
                name: column.name,
                description: column.description,
                tags: column.tags,
                line: node.line,
            });
        }
        let unclassified = written.unclassified.as_deref().and_then(|word| {
            let found = Unclassified::WORDS.iter().find(|(known, _)| *known == word);
            if found.is_none() {
                let location = meta.at(super::line_of(body, &["unclassified"]));
                let words = Unclassified::WORDS.map(|(word, _)| word);
                problems.extend(super::one_of(word, &words, "unclassified", location));
            }
            found.map(|(_, rule)| *rule)
        });
        if let (Some(address), true) = (address, problems.is_empty()) {
            let description = written.description.unwrap_or_else(|| meta.description.clone());
            let owner = written.owner.or_else(|| meta.owner.clone());
            set.add_dataset(Dataset {
                meta,
                address,
                description,
                owner,
                tags: written.tags,
                columns,
                unclassified,
            });
        }
        problems
    }
}

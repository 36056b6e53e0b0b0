//! Columns that access policies deny.
//!
//! Who may select from a table may select its columns, but for those that a policy denies: by the column's tags, which it has for itself or inherits,
//! together with `dataos:type:column`, or by its path, `dataos://depot:collection/dataset/column`. A part of a column that is denied takes the whole column with
//! it. What does not depend on the user is worked out once for each table; a denied column does not exist for the user, which is the work of others.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use minerva_resources::Address;

use crate::access::{AccessDecision, Object, SELECT, table_tag};
use crate::principal::Principal;
use crate::rules::{Person, PolicyRef, Rules};

/// The tag that every column has.
const COLUMN: &str = "dataos:type:column";

/// A column that some policies deny to those whom they are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnDenial {
    /// The column.
    pub(crate) name: String,
    /// The numbers of the policies.
    rules: Vec<usize>,
}

impl ColumnDenial {
    /// The policies that deny the column to this person; none for most.
    pub(crate) fn because(&self, rules: &Rules, person: &Person) -> Vec<Arc<PolicyRef>> {
        let about = self.rules.iter().filter(|index| person.is_subject_of(**index));
        about
            .filter_map(|index| rules.access().get(*index))
            .map(|rule| Arc::clone(&rule.because))
            .collect()
    }
}

impl Rules {
    /// Which columns of a table policies deny, whoever asks.
    pub(crate) fn column_denials(&self, address: &Address, schema: &Schema) -> Vec<ColumnDenial> {
        let below = format!("{address}/");
        let denying: Vec<usize> = (self.access().iter().enumerate())
            .filter(|(_, rule)| rule.denies(SELECT) && (rule.may_name_below(&below) || rule.has_tags()))
            .map(|(index, _)| index)
            .collect();
        if denying.is_empty() {
            return vec![];
        }
        // Most columns have no tags of their own: what denies one of them by its tags denies all.
        let mut by_tags: HashMap<Vec<String>, Vec<usize>> = HashMap::new();
        let mut denials = vec![];
        for field in schema.fields() {
            let mut found = vec![];
            for object in self.column_objects(address, field.name()) {
                let tagged = by_tags.entry(object.tags.clone()).or_insert_with(|| {
                    let only = Object {
                        paths: vec![],
                        tags: object.tags.clone(),
                    };
                    self.about(&denying, &only)
                });
                found.extend_from_slice(tagged);
                let only = Object {
                    paths: object.paths,
                    tags: vec![],
                };
                found.extend(self.about(&denying, &only));
            }
            found.sort_unstable();
            found.dedup();
            if !found.is_empty() {
                denials.push(ColumnDenial {
                    name: field.name().clone(),
                    rules: found,
                });
            }
        }
        denials
    }

    fn about(&self, among: &[usize], object: &Object) -> Vec<usize> {
        let about = |index: &&usize| {
            let rule = self.access().get(**index);
            rule.is_some_and(|rule| rule.is_about(SELECT, object))
        };
        among.iter().filter(about).copied().collect()
    }

    /// A column and each declared part of it, under every name that policies may use. Names are compared without regard to the case of ASCII letters,
    /// because a denial that misses its column would show it.
    fn column_objects(&self, address: &Address, column: &str) -> Vec<Object> {
        let lies_in = |name: &str, path: &str| {
            let start = name.get(..path.len());
            let inside = name
                .get(path.len()..)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            inside && start.is_some_and(|start| start.eq_ignore_ascii_case(path))
        };
        let declared: Vec<(&str, &[String])> = self
            .tags()
            .columns_of(address)
            .filter(|(name, _)| lies_in(name, column))
            .collect();
        let mut parts: Vec<&str> = declared.iter().map(|(name, _)| *name).collect();
        parts.push(column);
        let inherited = self.tags().of_table(address);
        let objects = parts.into_iter().map(|part| {
            let own = declared
                .iter()
                .filter(|(name, _)| lies_in(part, name))
                .flat_map(|(_, tags)| tags.iter());
            let mut tags: Vec<String> = inherited
                .iter()
                .map(|tag| (*tag).to_owned())
                .chain(own.cloned())
                .collect();
            tags.push(COLUMN.to_owned());
            tags.push(table_tag(address));
            let spellings = [part.to_owned(), part.to_ascii_lowercase(), part.to_ascii_uppercase()];
            Object {
                paths: spellings.iter().map(|name| format!("{address}/{name}")).collect(),
                tags,
            }
        });
        objects.collect()
    }

    /// May the principal do this to a column: what is allowed on its table, unless a policy denies the column.
    pub(crate) fn decide_column(
        &self,
        principal: &Principal,
        predicate: &str,
        address: &Address,
        column: &str,
    ) -> AccessDecision {
        let table = self.authorize(principal, predicate, &self.object(address));
        if !table.allowed || principal.is_operator() {
            return table;
        }
        let objects = self.column_objects(address, column);
        let person = self.person(principal);
        let denied: Vec<_> = person
            .access(self)
            .filter(|rule| rule.denies(predicate) && objects.iter().any(|object| rule.is_about(predicate, object)))
            .map(|rule| Arc::clone(&rule.because))
            .collect();
        match denied.is_empty() {
            true => table,
            false => AccessDecision {
                allowed: false,
                because: denied,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::testing::{documents, person, rules};

    const DATASET: &str = "
name: customer
version: v1
type: dataset
dataset:
  address: dataos://crm:public/customer
  tags: [DPTier.Gold]
  columns:
    - {name: SSN, tags: [PII.Sensitive]}
    - {name: email, tags: [PII.Email]}
    - {name: address.street, tags: [PII.Sensitive]}
";

    fn deny(name: &str, subjects: &str, objects: &str) -> String {
        format!(
            "
name: {name}
version: v1
type: policy
policy:
  access: {{subjects: {{tags: {subjects}}}, predicates: [select], objects: {objects}, allow: false}}
"
        )
    }

    fn denied(policies: &[&str], tags: &[&str]) -> Vec<String> {
        let depot = "
name: crm
version: v1
type: depot
depot: {type: MEMORY, description: customers, spec: {}}
";
        let allow = "
name: all
version: v1
type: policy
policy:
  access: {subjects: {tags: ['users:**']}, predicates: [select], objects: {paths: ['dataos://crm:**']}, allow: true}
";
        let rules = rules(&documents(&[&[depot, DATASET, allow], policies].concat()));
        let address = Address::new("crm", "public", "customer");
        let columns = ["id", "ssn", "email", "address", "Note"];
        let schema = Schema::new(columns.map(|name| Field::new(name, DataType::Utf8, true)).to_vec());
        let who = person("tom", tags);
        let asked = rules.person(&who);
        let denials = rules.column_denials(&address, &schema);
        let found: Vec<String> = denials
            .iter()
            .filter(|denial| !denial.because(&rules, &asked).is_empty())
            .map(|denial| denial.name.clone())
            .collect();
        // The same columns, asked about one by one.
        for column in columns {
            let decision = rules.decide_access(
                &who,
                "select",
                &Object {
                    paths: vec![format!("{address}/{column}")],
                    tags: vec![],
                },
            );
            assert_eq!(decision.allowed, !found.iter().any(|name| name == column), "{column}");
        }
        found
    }

    #[test]
    fn columns_are_denied_by_their_tags_and_paths_to_those_whom_a_policy_is_about() {
        let everybody = "['users:**']";
        let sensitive = deny(
            "sensitive",
            everybody,
            "{tags: [[PII.Sensitive, 'dataos:type:column']]}",
        );
        for (policies, tags, expected) in [
            (vec![], vec![], vec![]),
            // A part that is denied takes its column with it; upper and lower case are the same.
            (vec![sensitive], vec![], vec!["ssn", "address"]),
            (
                vec![deny("any", everybody, "{tags: ['PII.*']}")],
                vec![],
                vec!["ssn", "email", "address"],
            ),
            (
                vec![deny(
                    "some",
                    "['roles:id:intern']",
                    "{tags: [[PII.Email, 'dataos:type:column']]}",
                )],
                vec![],
                vec![],
            ),
            (
                vec![deny(
                    "some",
                    "['roles:id:intern']",
                    "{tags: [[PII.Email, 'dataos:type:column']]}",
                )],
                vec!["roles:id:intern"],
                vec!["email"],
            ),
            // Both tags must be met, and what the table has its columns have too.
            (
                vec![deny("both", everybody, "{tags: [[PII.Email, Other.Tag]]}")],
                vec![],
                vec![],
            ),
            (
                vec![deny(
                    "both",
                    everybody,
                    "{tags: [[PII.Email, DPTier.Gold, 'dataos:type:*']]}",
                )],
                vec![],
                vec!["email"],
            ),
            (
                vec![deny(
                    "table",
                    everybody,
                    "{tags: [[PII.Email, 'dataos:system:minerva:table:crm:public:customer']]}",
                )],
                vec![],
                vec!["email"],
            ),
            (
                vec![deny(
                    "other-table",
                    everybody,
                    "{tags: [[PII.Email, 'dataos:system:minerva:table:crm:public:order']]}",
                )],
                vec![],
                vec![],
            ),
            (
                vec![deny(
                    "path",
                    everybody,
                    "{paths: ['dataos://crm:*/customer/{id,note}']}",
                )],
                vec![],
                vec!["id", "Note"],
            ),
            (
                vec![deny(
                    "part",
                    everybody,
                    "{paths: ['dataos://crm:public/customer/address.*']}",
                )],
                vec![],
                vec!["address"],
            ),
            (
                vec![deny(
                    "elsewhere",
                    everybody,
                    "{paths: ['dataos://crm:public/order/**']}",
                )],
                vec![],
                vec![],
            ),
        ] {
            let texts: Vec<&str> = policies.iter().map(String::as_str).collect();
            assert_eq!(denied(&texts, &tags), expected, "{texts:?}");
        }
    }
}

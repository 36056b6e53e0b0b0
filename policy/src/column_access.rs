//! Columns that access policies deny.
//!
//! Who may select from a table may select its columns, but for those that a policy denies: by the column's tags, which it has for itself or inherits,
//! together with `dataos:type:column`, or by its path, `dataos://depot:collection/dataset/column`. A part of a column that is denied takes the whole column with
//! it. What does not depend on the user is worked out once for each table; a denied column does not exist for the user, which is the work of others.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use minerva_resources::{Address, Glob};

use crate::access::{AccessDecision, AccessRule, SELECT, UNHEARD_OF, predicates_of, table_tag};
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

/// A column or a part of it, under every name that policies may use.
#[derive(Debug)]
struct ColumnObject {
    /// The address of its table and the `/` behind it.
    table: String,
    /// Its name.
    name: String,
    /// Its tags, those of its table and those that were given with it.
    tags: Vec<String>,
}

impl AccessRule {
    /// Whether the policy names the column by its path. Upper and lower case of the column's name are the same, because a denial that misses
    /// its column would show it.
    fn names_column(&self, column: &ColumnObject) -> bool {
        let mut paths = self.policy.paths.iter();
        paths.any(|glob| glob.matches_end_in_any_case(&column.table, &column.name))
    }

    /// Whether the policy names things that have these tags.
    fn names_tagged(&self, tags: &[String]) -> bool {
        self.policy.tags.matches(tags.iter().map(String::as_str))
    }
}

impl Rules {
    /// Which columns of a table policies deny, whoever asks.
    pub(crate) fn column_denials(&self, address: &Address, schema: &Schema) -> Vec<ColumnDenial> {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        self.denials(&[SELECT], address, names.map(|name| (name, vec![])))
    }

    /// Which of these columns, with tags that they have besides their own, policies deny when any of these is to be done to them.
    fn denials<'a>(
        &self,
        predicates: &[&str],
        address: &Address,
        columns: impl Iterator<Item = (&'a str, Vec<String>)>,
    ) -> Vec<ColumnDenial> {
        let below = format!("{address}/");
        let denying: Vec<(usize, &AccessRule)> = (self.access().iter().enumerate())
            .filter(|(_, rule)| predicates.iter().any(|predicate| rule.denies(predicate)))
            .filter(|(_, rule)| rule.may_name_below(&below) || rule.has_tags())
            .collect();
        if denying.is_empty() {
            return vec![];
        }
        // Most columns have no tags of their own: what denies one of them by its tags denies all.
        let mut by_tags: HashMap<Vec<String>, Vec<usize>> = HashMap::new();
        let mut denials = vec![];
        for (name, tags) in columns {
            let mut found = vec![];
            for object in self.column_objects(address, name, &tags) {
                let by_path = denying.iter().filter(|(_, rule)| rule.names_column(&object));
                found.extend(by_path.map(|(index, _)| *index));
                let tagged = by_tags.entry(object.tags).or_insert_with_key(|tags| {
                    let tagged = denying.iter().filter(|(_, rule)| rule.names_tagged(tags));
                    tagged.map(|(index, _)| *index).collect()
                });
                found.extend_from_slice(tagged);
            }
            found.sort_unstable();
            found.dedup();
            if !found.is_empty() {
                denials.push(ColumnDenial {
                    name: name.to_owned(),
                    rules: found,
                });
            }
        }
        denials
    }

    /// A column and each declared part of it. Names are compared without regard to case, as in the paths of policies.
    fn column_objects(&self, address: &Address, column: &str, tags: &[String]) -> Vec<ColumnObject> {
        let lies_in = |name: &str, path: &str| {
            let name = name.to_lowercase();
            let rest = name.strip_prefix(path.to_lowercase().as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
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
            let mut all: Vec<String> = inherited
                .iter()
                .map(|tag| (*tag).to_owned())
                .chain(own.cloned())
                .chain(tags.iter().cloned())
                .collect();
            all.push(COLUMN.to_owned());
            all.push(table_tag(address));
            ColumnObject {
                table: format!("{address}/"),
                name: part.to_owned(),
                tags: all,
            }
        });
        objects.collect()
    }

    /// May the principal do this to a column, which has these tags besides its own: what is allowed on its table, unless a policy denies the column.
    pub(crate) fn decide_column(
        &self,
        principal: &Principal,
        predicate: &str,
        (address, column): (&Address, &str),
        tags: &[String],
    ) -> AccessDecision {
        let mut object = self.object(address);
        object.tags.extend_from_slice(tags);
        let table = self.decide_object(principal, predicate, &object);
        if !table.allowed || principal.is_operator() {
            return table;
        }
        let objects = self.column_objects(address, column, tags);
        let person = self.person(principal);
        let denied: Vec<_> = person
            .access(self)
            .filter(|rule| predicates_of(predicate).any(|predicate| rule.denies(predicate)))
            .filter(|rule| (objects.iter()).any(|object| rule.names_column(object) || rule.names_tagged(&object.tags)))
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

    /// Which of these columns of a table, with the tags that they bring along, the principal may not write to although they may write to the
    /// table, and why. Who is denied `write` may do none of what writes.
    pub fn unwritable<'a>(
        &self,
        principal: &Principal,
        predicate: &str,
        address: &Address,
        columns: impl Iterator<Item = (&'a str, Vec<String>)>,
    ) -> Option<(String, AccessDecision)> {
        if principal.is_operator() {
            return None;
        }
        let person = self.person(principal);
        let predicates: Vec<&str> = predicates_of(predicate).collect();
        self.denials(&predicates, address, columns)
            .into_iter()
            .find_map(|denial| {
                let because = denial.because(self, &person);
                let decision = AccessDecision {
                    allowed: false,
                    because,
                };
                (!decision.because.is_empty()).then_some((denial.name, decision))
            })
    }

    /// Whether some policy may deny this to the principal for a column of the table. A no is certain.
    pub fn may_deny_columns(&self, principal: &Principal, predicate: &str, address: &Address) -> bool {
        let below = format!("{address}/");
        let person = self.person(principal);
        let mut rules = person.access(self);
        let denies = |rule: &AccessRule| predicates_of(predicate).any(|predicate| rule.denies(predicate));
        !principal.is_operator() && rules.any(|rule| denies(rule) && (rule.may_name_below(&below) || rule.has_tags()))
    }

    /// Names that columns of a table may have, where nobody looks at the table: those that manifests declare, of which a name with dots is a part of its
    /// first; those that policies which deny this write out; and one that nobody has heard of, since what denies it denies every column.
    pub(crate) fn conceivable_columns(&self, predicate: &str, address: &Address) -> BTreeSet<String> {
        let below = format!("{address}/");
        let declared = self.tags().columns_of(address).map(|(name, _)| name);
        let declared = declared.map(|name| name.split('.').next().unwrap_or(name).to_owned());
        let denying = (self.access().iter())
            .filter(|rule| predicates_of(predicate).any(|predicate| rule.denies(predicate)))
            .flat_map(|rule| &rule.policy.paths)
            .filter(|glob| glob.may_begin_with(&below));
        let written = denying.flat_map(Glob::last_names);
        declared.chain(written).chain([UNHEARD_OF.to_owned()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::access::Object;
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
    - {name: 'ÉTAT', tags: [PII.Place]}
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
        let columns = ["id", "ssn", "email", "address", "Note", "homeAddress", "état"];
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
                vec!["ssn", "email", "address", "état"],
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
            // However the policy and the source write it, the column is meant.
            (
                vec![deny(
                    "mixed",
                    everybody,
                    "{paths: ['dataos://crm:public/customer/{HomeAddress,nOTE,E[M]ail,État}']}",
                )],
                vec![],
                vec!["email", "Note", "homeAddress", "état"],
            ),
            (
                vec![deny("place", everybody, "{tags: [[PII.Place, 'dataos:type:column']]}")],
                vec![],
                vec!["état"],
            ),
            (
                vec![deny(
                    "table-in-another-case",
                    everybody,
                    "{paths: ['dataos://crm:public/Customer/*']}",
                )],
                vec![],
                vec![],
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

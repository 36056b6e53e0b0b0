//! `policy`: one kind with two blocks, `access` (who may do what to what) and `data` (what of a table is shown to whom).

use super::{Field, Kind, Meta, access, data, optional, policy_test, required, unknown_keys};
use crate::node::Node;
use crate::problem::Problem;
use crate::set::Builder;

#[derive(Debug)]
pub(crate) struct PolicyKind;

impl Kind for PolicyKind {
    fn name(&self) -> &'static str {
        "policy"
    }

    fn description(&self) -> &'static str {
        "A policy has one of two blocks. `access` says who may do what: nothing is allowed unless a policy allows it, and one that \
         denies beats any that allow. `data` says what of a table is shown: a mask changes the values of columns, a filter says which \
         rows stay visible. Per column the matching mask with the lowest priority number wins; all matching filters hold together. \
         Patterns know `?`, `*` (within a level), `**` (across levels), `[ab]`, `[!ab]` and `{a,b}`; levels are separated by `:` and `/`."
    }

    fn example(&self) -> &'static str {
        "name: analysts-read-crm
version: v1
type: policy
policy:
  access:
    subjects:
      tags: [[roles:id:analyst, roles:id:user], users:id:jane]
    predicates: [select, read]
    objects:
      paths: [\"dataos://crm:public/**\"]
    allow: true
---
name: hash-email
version: v1
type: policy
policy:
  data:
    type: mask
    priority: 50
    selector:
      user: {match: any, tags: [\"roles:id:*\"]}
      column: {tags: [PII.Email]}
    mask:
      operator: hash
      hash: {algo: sha256}
---
name: own-region
version: v1
type: policy
policy:
  data:
    type: filter
    dataset_id: crm.public.customer
    selector:
      user: {tags: [roles:id:analyst]}
    filters:
      - {column: region, operator: equals, value: \"${user.attributes.region}\"}
      - {expression: \"closed_at IS NULL\"}
---
name: crm
version: v2alpha
type: depot
depot:
  type: SQLITE
  sqlite: {path: crm.db}
"
    }

    fn fields(&self) -> &'static [Field] {
        const FIELDS: &[Field] = &[
            optional("access", "map", "An access policy."),
            optional(
                "access.name",
                "text",
                "What people call it; the name of the manifest when absent.",
            ),
            optional("access.description", "text", "A sentence for people."),
            optional("access.collection", "`default`", "The tenant; there is one."),
            required(
                "access.subjects.tags",
                "list of tags or of lists of tags",
                "Whom it is about: one of the elements must match, and of a list all tags. Tags may be patterns.",
            ),
            required(
                "access.predicates",
                "list of patterns",
                "What they want to do: `select` on tables, `read` on clusters.",
            ),
            optional(
                "access.objects.paths",
                "list of patterns",
                "To what: `dataos://crm:public/**`. There must be `paths` or `tags`; with both, the policy is about what has one of the paths \
                 and about what has the tags. `dataos://crm:public/customer/ssn` is a column: a policy that denies `select` on it takes it \
                 out of the table, and one that denies `insert`, `update` or `write` keeps values out of it. Upper and lower case of the \
                 column's name are the same.",
            ),
            optional(
                "access.objects.tags",
                "list of tags or of lists of tags",
                "To what has these tags, such as `dataos:system:minerva:table:crm:public:customer`. A column has its own tags, those of its \
                 table, collection and depot, and `dataos:type:column`: `[[PII.Ssn, 'dataos:type:column']]` with `allow: false` denies \
                 such columns, which then do not exist for the user.",
            ),
            optional(
                "access.allow",
                "true or false",
                "Whether it allows or denies; denies when absent.",
            ),
            optional(
                "tests",
                "list",
                "What somebody is expected to see, for `minerva policy test`; as in a `policy-test`.",
            ),
            optional("data", "map", "A data policy."),
            required("data.type", "`mask`, `filter`", "What it does."),
            optional(
                "data.name",
                "text",
                "What people call it; the name of the manifest when absent.",
            ),
            optional("data.description", "text", "A sentence for people."),
            optional(
                "data.priority",
                "1 to 100",
                "The mask with the lowest number wins. Required for masks, without effect on filters.",
            ),
            optional("data.depot", "pattern", "The depots it is about; all when absent."),
            optional(
                "data.collection",
                "pattern",
                "The collections it is about; all when absent.",
            ),
            optional("data.dataset", "pattern", "The datasets it is about; all when absent."),
            optional(
                "data.dataset_id",
                "`depot.collection.dataset`",
                "The one dataset it is about, instead of the three patterns.",
            ),
            required(
                "data.selector.user.tags",
                "list of patterns",
                "Whom it is about; `users:**` is everybody.",
            ),
            optional(
                "data.selector.user.match",
                "`any`, `all`",
                "Whether one of the patterns must match a tag of the user, or each; `any` when absent.",
            ),
            optional(
                "data.selector.dataset.tags",
                "list of patterns",
                "Only datasets that have one of these tags, or inherit it from their collection or depot.",
            ),
            optional(
                "data.selector.column.tags",
                "list of patterns",
                "Masks: the columns with one of these tags.",
            ),
            optional(
                "data.selector.column.names",
                "list of texts",
                "Masks: the columns with one of these names; `address.city` is a field. There must be `tags` or `names`.",
            ),
            optional(
                "data.mask.operator",
                "name",
                "Masks: what is done to the values: `hash`, `redact`, `nullify`, `pass_through` and others.",
            ),
            optional(
                "data.mask.<operator>",
                "map",
                "Masks: the settings of the operator, in a block named after it.",
            ),
            optional(
                "data.filters",
                "list",
                "Filters: conditions on the rows that stay visible; all of them hold together.",
            ),
            optional(
                "data.filters[].column",
                "text",
                "The column that is compared, with its unmasked value.",
            ),
            optional(
                "data.filters[].operator",
                "name",
                "One of `equals`, `not_equals`, `in`, `not_in`, `less_than`, `less_than_equals`, `greater_than`, `greater_than_equals`, `like`, `is_null`, `is_not_null`; `equals` when absent.",
            ),
            optional(
                "data.filters[].value",
                "scalar, or a list for `in` and `not_in`",
                "What it is compared with; `${user.id}` and `${user.attributes.NAME}` stand for values of the user.",
            ),
            optional(
                "data.filters[].expression",
                "SQL",
                "A predicate over the table's own columns, instead of the three keys above.",
            ),
        ];
        FIELDS
    }

    fn read(&self, meta: Meta, body: &Node, set: &mut Builder) -> Vec<Problem> {
        let mut problems = unknown_keys(body, &["access", "data", "tests"], &meta.location.file);
        if let Some(tests) = body.get("tests") {
            problems.extend(policy_test::read_tests(tests, &meta.location.file, set));
        }
        match (body.get("access"), body.get("data")) {
            (Some(access), None) => problems.extend(access::read(meta, access, set)),
            (None, Some(data)) => problems.extend(data::read(meta, data, set)),
            (Some(_), Some(_)) => {
                let message = "a policy has `access` or `data`, not both";
                problems.push(Problem::new(meta.at(body.line), message).help("make two manifests of it"));
            }
            (None, None) if problems.is_empty() => {
                problems.push(Problem::new(
                    meta.at(body.line),
                    "a policy has `access` or `data`; both are missing",
                ));
            }
            (None, None) => {}
        }
        problems
    }
}

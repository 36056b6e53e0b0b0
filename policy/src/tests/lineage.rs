//! Which tags a query's columns bring along: one line for each shape that a query may have.
#![allow(clippy::disallowed_methods, reason = "the test makes sessions and tables of its own")]

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema};
use datafusion::datasource::empty::EmptyTable;
use datafusion::prelude::SessionContext;
use minerva_resources::Address;

use crate::testing::{EVERYTHING, documents, mask_policy, person, rules};
use crate::{Rules, Verdict, decide, lineage, mask_functions, protect};

const TAGS: &str = "
name: crm
version: v2alpha
type: depot
depot: {type: memory, memory: {}}
---
name: customer
version: v1
type: dataset
dataset:
  address: dataos://crm:public/customer
  columns:
    - {name: email, tags: [PII.Email]}
    - {name: phone, tags: [PII.Phone]}
    - {name: home.city, tags: [PII.City]}
---
name: plain
version: v1
type: dataset
dataset: {address: 'dataos://crm:public/plain', columns: [{name: labels.value, tags: [PII.Label]}]}
---
name: secret
version: v1
type: dataset
dataset: {address: 'dataos://crm:public/secret', tags: [Secret]}
";

/// A context with the governed tables `customer` (masked), `plain` and `secret` of `crm.public`.
fn context(rules: &Rules) -> SessionContext {
    let context = SessionContext::new();
    for function in mask_functions(rules.keys()) {
        context.register_udf(function.as_ref().clone());
    }
    let home = Fields::from(vec![
        Field::new("city", DataType::Utf8, true),
        Field::new("street", DataType::Utf8, true),
    ]);
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let number = |name: &str| Field::new(name, DataType::Int64, true);
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    let entries = Fields::from(vec![Field::new("key", DataType::Utf8, false), text("value")]);
    let labels = DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false);
    let customer = vec![
        number("id"),
        text("email"),
        text("phone"),
        Field::new("home", DataType::Struct(home), true),
    ];
    for (name, fields) in [
        ("customer", customer),
        (
            "plain",
            vec![
                number("id"),
                text("note"),
                Field::new("list", list, true),
                Field::new("labels", labels, true),
            ],
        ),
        ("secret", vec![number("id"), text("what")]),
    ] {
        let address = Address::new("crm", "public", name);
        let raw = Arc::new(EmptyTable::new(Arc::new(Schema::new(fields))));
        let Verdict::Allow(governance) =
            decide(rules, &person("jane", &["roles:id:user"]), &address, &raw_schema(&raw))
        else {
            panic!("denied");
        };
        assert_eq!(governance.is_open(), name != "customer");
        context
            .register_table(name, protect(&address, &governance, raw).unwrap())
            .unwrap();
    }
    context
}

fn raw_schema(table: &Arc<EmptyTable>) -> Arc<Schema> {
    use datafusion::catalog::TableProvider;
    table.schema()
}

#[tokio::test]
async fn tags_follow_columns_through_every_shape_of_query() {
    let mask = mask_policy(
        "mails",
        10,
        "roles:id:user",
        "{tags: [PII.Email]}",
        "{operator: redact}",
    );
    let rules = rules(&documents(&[EVERYTHING, TAGS, &mask]));
    let context = context(&rules);
    for (sql, expected) in [
        ("SELECT id, email FROM customer", "1: PII.Email"),
        ("SELECT * FROM customer", "1: PII.Email; 2: PII.Phone; 3.city: PII.City"),
        ("SELECT upper(email) AS u, id FROM customer", "0: PII.Email"),
        ("SELECT email || phone AS both FROM customer", "0: PII.Email, PII.Phone"),
        ("SELECT x.e FROM (SELECT email AS e FROM customer) x", "0: PII.Email"),
        (
            "WITH c AS (SELECT phone AS p FROM customer) SELECT p, 1 AS one FROM c",
            "0: PII.Phone",
        ),
        ("SELECT id FROM customer WHERE email = 'a'", ""),
        ("SELECT count(*), max(email) FROM customer GROUP BY id", "1: PII.Email"),
        ("SELECT phone, count(*) FROM customer GROUP BY phone", "0: PII.Phone"),
        (
            "SELECT phone, id, count(email) FROM customer GROUP BY GROUPING SETS ((phone), (id))",
            "0: PII.Phone; 1: PII.Phone; 2: PII.Email",
        ),
        (
            "SELECT max(id) FILTER (WHERE email > 'a') FROM customer",
            "0: PII.Email",
        ),
        (
            "SELECT id, row_number() OVER (ORDER BY email) FROM customer",
            "1: PII.Email",
        ),
        (
            "SELECT c.email, p.note FROM customer c JOIN plain p ON c.id = p.id",
            "0: PII.Email",
        ),
        (
            "SELECT p.note FROM plain p WHERE EXISTS (SELECT 1 FROM customer c WHERE c.id = p.id)",
            "",
        ),
        ("SELECT p.id IN (SELECT id FROM secret) FROM plain p", "0: Secret"),
        (
            "SELECT (SELECT max(email) FROM customer) AS m FROM plain",
            "0: PII.Email",
        ),
        (
            "SELECT (SELECT max(p.id) FROM plain p WHERE p.id = c.id) FROM customer c",
            "",
        ),
        (
            "SELECT (SELECT max(c.phone) FROM plain p) FROM customer c",
            "0: PII.Phone",
        ),
        (
            "SELECT note FROM plain UNION ALL SELECT email FROM customer",
            "0: PII.Email",
        ),
        (
            "SELECT email FROM customer EXCEPT SELECT what FROM secret",
            "0: PII.Email",
        ),
        (
            "SELECT DISTINCT phone FROM customer ORDER BY phone LIMIT 3",
            "0: PII.Phone",
        ),
        (
            "SELECT CASE WHEN email = 'a' THEN 1 ELSE 2 END FROM customer",
            "0: PII.Email",
        ),
        ("SELECT home FROM customer", "0.city: PII.City"),
        (
            "SELECT home['city'] AS c, home['street'] AS s FROM customer",
            "0: PII.City",
        ),
        ("SELECT CAST(home AS VARCHAR) FROM customer", "0: PII.City"),
        ("SELECT unnest(list) FROM plain", ""),
        ("SELECT labels FROM plain", "0.value: PII.Label"),
        // A key is no field of that name.
        ("SELECT labels['city'] AS c, note FROM plain", "0: PII.Label"),
        ("SELECT labels['value'] AS c FROM plain", "0: PII.Label"),
        ("SELECT unnest([email, note]) FROM customer, plain", "0: PII.Email"),
        ("SELECT * FROM secret", "0: Secret; 1: Secret"),
        ("SELECT id + 1 FROM secret", "0: Secret"),
        ("VALUES (1), ((SELECT max(id) FROM secret))", "0: Secret"),
        (
            "WITH RECURSIVE r AS (SELECT id, email AS e FROM customer UNION ALL SELECT id + 1, e FROM r WHERE id < 3) SELECT e, id FROM r",
            "0: PII.Email; 1: PII.Email",
        ),
        ("SELECT 1", ""),
    ] {
        let plan = context
            .state()
            .create_logical_plan(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        let carried = rules.carried_tags(&lineage(&plan).unwrap());
        let shown: Vec<String> = carried
            .into_iter()
            .map(|carried| {
                let path = std::iter::once(carried.column.to_string()).chain(carried.inside);
                let tags: Vec<String> = carried.tags.into_iter().collect();
                format!("{}: {}", path.collect::<Vec<_>>().join("."), tags.join(", "))
            })
            .collect();
        assert_eq!(shown.join("; "), expected, "{sql}");
    }
}

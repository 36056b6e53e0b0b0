//! The order of joins, over a real database and files: tables of one depot come together, and nothing tells of hidden rows.

use std::fs;

use crate::{minerva::Minerva, private_postgres::Postgres};

const NONE: &str = "SET SESSION join_reordering_strategy = 'NONE'";
const AUTOMATIC: &str = "SET SESSION join_reordering_strategy = 'AUTOMATIC'";

const JANE: &str = "\
name: jane
version: v1
type: user
user: {tags: [roles:id:analyst]}
---
name: analysts
version: v1
type: policy
policy:
  access: {subjects: {tags: [[roles:id:analyst]]}, predicates: [select], objects: {paths: ['dataos://pg:public/*', 'dataos://lake:shop/*']}, allow: true}
";

const LAKE: &str = "\
name: lake
version: v2alpha
type: depot
depot: {type: FILE, acl: rw, file: {path: ./lake, format: PARQUET}}
";

/// What jane sees of two tables whose hidden rows differ.
const POLICIES: &str = "\
name: shown
version: v1
type: policy
policy:
  data:
    type: filter
    priority: 10
    dataset_id: pg.public.few_hidden
    selector: {user: {match: any, tags: [roles:id:analyst]}}
    filters: [{column: secret, operator: equals, value: false}]
---
name: shown-too
version: v1
type: policy
policy:
  data:
    type: filter
    priority: 10
    dataset_id: pg.public.many_hidden
    selector: {user: {match: any, tags: [roles:id:analyst]}}
    filters: [{column: secret, operator: equals, value: false}]
";

const TABLES: &str = "\
CREATE TABLE buyers AS SELECT i AS id, 'n' || i AS name FROM generate_series(1, 20000) i;
CREATE TABLE orders AS SELECT i AS id, i % 20000 + 1 AS buyer FROM generate_series(1, 200000) i;
CREATE INDEX ON orders (buyer);
CREATE TABLE few_hidden AS SELECT i AS id, i % 20000 + 1 AS buyer, false AS secret FROM generate_series(1, 2000) i;
CREATE TABLE many_hidden AS SELECT i AS id, i % 20000 + 1 AS buyer, i > 2000 AS secret FROM generate_series(1, 300000) i;
ANALYZE";

struct World {
    _postgres: Postgres,
    minerva: Minerva,
}

impl World {
    fn start(workers: usize) -> World {
        let postgres = Postgres::start();
        postgres.execute(TABLES, b"");
        let manifests = [
            ("pg.yaml", postgres.manifest()),
            ("lake.yaml", LAKE.to_owned()),
            ("jane.yaml", JANE.to_owned()),
            ("policies.yaml", POLICIES.to_owned()),
        ];
        let manifests: Vec<(&str, &str)> = manifests.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let minerva = Minerva::start(&manifests, workers);
        fs::create_dir(minerva.resources().join("lake")).unwrap();
        let items = "CREATE TABLE lake.shop.items AS SELECT o.id AS order_id, n.value AS number, o.id + n.value AS price \
                     FROM pg.public.orders o CROSS JOIN (VALUES (1), (2), (3)) AS n(value)";
        minerva.rows(None, items);
        World {
            _postgres: postgres,
            minerva,
        }
    }

    fn rows(&self, who: Option<(&str, &str)>, strategy: &str, sql: &str) -> Vec<String> {
        self.minerva.rows(who, &format!("{strategy}; {sql}"))
    }

    fn plan(&self, who: Option<(&str, &str)>, strategy: &str, sql: &str) -> String {
        self.rows(who, strategy, &format!("EXPLAIN {sql}")).join("\n")
    }
}

/// As it is written, the items stand between two tables of the database: all orders are fetched. Joined there first, only those of one buyer are.
const SQL: &str = "SELECT count(*), sum(i.price) FROM pg.public.orders o JOIN lake.shop.items i ON i.order_id = o.id \
                   JOIN pg.public.buyers b ON b.id = o.buyer WHERE b.name = 'n77'";

#[test]
fn tables_of_one_depot_come_together() {
    for workers in [1, 2] {
        let world = World::start(workers);
        let (written, chosen) = (world.plan(None, NONE, SQL), world.plan(None, AUTOMATIC, SQL));
        assert!(!written.contains("sql=SELECT"), "{written}");
        assert!(
            written.contains("about 200000 rows from dataos://pg:public/orders"),
            "{written}"
        );
        assert!(
            chosen.contains("sql=SELECT") && chosen.contains(" JOIN (SELECT"),
            "{chosen}"
        );
        assert!(!chosen.contains("rows from dataos://pg:public/orders"), "{chosen}");
        let answer = world.rows(None, NONE, SQL);
        assert_eq!(world.rows(None, AUTOMATIC, SQL), answer);
        assert_eq!(answer.len(), 1);
        assert!(answer[0].starts_with("30,"), "{answer:?}");
        // The columns are those of the statement, in its order.
        let all = "SELECT * FROM pg.public.orders o JOIN lake.shop.items i ON i.order_id = o.id JOIN pg.public.buyers b ON b.id = o.buyer \
                   WHERE b.name = 'n77' ORDER BY i.price, i.number";
        let answer = world.rows(None, NONE, all);
        assert_eq!(answer.len(), 30);
        assert_eq!(world.rows(None, AUTOMATIC, all), answer);
        let plan = world.plan(None, AUTOMATIC, all);
        assert!(plan.contains("sql=SELECT"), "{plan}");
    }
}

#[test]
fn an_order_tells_nothing_of_hidden_rows() {
    let world = World::start(1);
    let key = world.minerva.key("jane");
    let jane = Some(("jane", key.as_str()));
    let of = |table: &str, sql: &str| sql.replace("TABLE", &format!("pg.public.{table}"));
    for sql in [
        "SELECT count(*), sum(i.price) FROM TABLE o JOIN lake.shop.items i ON i.order_id = o.id JOIN pg.public.buyers b ON b.id = o.buyer \
         WHERE b.name = 'n77'",
        "SELECT count(*), sum(i.price) FROM lake.shop.items i JOIN TABLE o ON i.order_id = o.id JOIN pg.public.buyers b ON b.id = o.buyer",
        "SELECT count(*) FROM pg.public.buyers b JOIN lake.shop.items i ON b.id = i.number JOIN TABLE o ON o.id = i.order_id JOIN TABLE p ON p.buyer = b.id",
    ] {
        let explained = |table: &str| {
            // Which side of a join is read first is another matter (docs/security.md).
            let logical = format!("(TYPE LOGICAL) {}", of(table, sql));
            world.plan(jane, AUTOMATIC, &logical).replace(table, "TABLE")
        };
        assert_eq!(explained("few_hidden"), explained("many_hidden"), "{sql}");
        let answer = world.rows(jane, AUTOMATIC, &of("few_hidden", sql));
        assert_eq!(answer, world.rows(jane, AUTOMATIC, &of("many_hidden", sql)), "{sql}");
        assert_eq!(answer, world.rows(jane, NONE, &of("many_hidden", sql)), "{sql}");
    }
}

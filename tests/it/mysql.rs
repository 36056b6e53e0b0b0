//! MariaDB as a source of the whole program: a private server, loaded with TPC-H, read in one process and on workers, and governed.
//!
//! What the connector does by itself is tested beside it; here are the ways through the coordinator, the wire and the policies.

use crate::{minerva::Minerva, private_mariadb::MariaDb, private_mariadb::PASSWORD, tpch, tpch_data};

const SCALE: f64 = 0.1;
/// The tables that go into the database in the mixed set-up.
const HALF: [&str; 4] = ["lineitem", "part", "customer", "nation"];

#[test]
fn tpch_agrees_with_all_and_with_half_of_the_tables_in_mariadb() {
    let folder = tempfile::tempdir().unwrap();
    tpch_data::write_parquet(&folder.path().join("lake/tpch"), SCALE);
    let expected = tpch::oracle(&folder.path().join("lake/tpch"));
    let mariadb = MariaDb::start();
    for table in tpch_data::TABLES {
        let (create, rows) = tpch_data::as_csv(table, SCALE);
        mariadb.load(table, &create, &rows);
    }
    let lake = format!(
        "name: lake\nversion: v2alpha\ntype: depot\ndepot: {{type: FILE, file: {{path: {}/lake, format: PARQUET}}}}\n",
        folder.path().display()
    );
    let database = mariadb.manifest();
    let manifests = [("shop.yaml", database.as_str()), ("lake.yaml", lake.as_str())];
    let everything = |table: &str| format!("shop.shop.{table}");
    let half = |table: &str| match HALF.contains(&table) {
        true => format!("shop.shop.{table}"),
        false => format!("lake.tpch.{table}"),
    };
    let apart = tpch::agree(&manifests, &[("all", &everything), ("half", &half)], &expected);
    let plan = apart.rows(
        None,
        "EXPLAIN SELECT count(*) FROM shop.shop.orders WHERE o_orderkey < 100 LIMIT 5",
    );
    let text = plan.join("\n") + &apart.rows(None, "SELECT * FROM system.runtime.queries").join("\n");
    assert!(
        text.contains("sql=SELECT COUNT(*) AS c0 FROM `shop`.`orders`") && !text.contains(PASSWORD),
        "{text}"
    );
}

#[test]
fn masks_and_filters_are_in_force_on_mariadb() {
    let mariadb = MariaDb::start();
    mariadb.sql(
        "USE shop; CREATE TABLE people (id int PRIMARY KEY, name varchar(40), city varchar(40), born date, pay decimal(9, 2));
         INSERT INTO people VALUES (1, 'Ada', 'Basel', '1990-01-02', 10.50), (2, 'Bo', 'Bern', '1980-03-04', 20),
         (3, 'Canary-7731', 'Zug', '1970-05-06', 999), (4, NULL, 'Basel', NULL, NULL), (5, 'Eve', 'ZUG', NULL, 5)",
    );
    let cities = "name: cities\nversion: v2alpha\ntype: depot\ndepot: {type: MEMORY, memory: {}}\n";
    let policies = "\
name: jane
version: v1
type: user
user: {tags: [roles:id:analyst]}
---
name: analysts
version: v1
type: policy
policy:
  access: {subjects: {tags: [[roles:id:analyst]]}, predicates: [select], objects: {paths: ['dataos://shop:shop/*']}, allow: true}
---
name: cities-seen
version: v1
type: policy
policy:
  data:
    type: filter
    priority: 10
    dataset_id: shop.shop.people
    selector: {user: {match: any, tags: [roles:id:analyst]}}
    filters: [{column: city, operator: not_equals, value: Zug}]
---
name: names
version: v1
type: policy
policy:
  data:
    type: mask
    priority: 10
    depot: shop
    selector: {user: {match: any, tags: [roles:id:analyst]}, column: {names: [name]}}
    mask: {operator: redact}
";
    let minerva = Minerva::start(
        &[
            ("shop.yaml", &mariadb.manifest()),
            ("cities.yaml", cities),
            ("policies.yaml", policies),
        ],
        2,
    );
    let key = minerva.key("jane");
    let jane = Some(("jane", key.as_str()));
    let all = "SELECT id, name, pay FROM shop.shop.people ORDER BY id";
    // `ZUG` is another city than `Zug`, although the column's collation says that they are equal.
    assert_eq!(
        minerva.rows(jane, all),
        ["1,REDACTED,10.50", "2,REDACTED,20.00", "4,,", "5,REDACTED,5.00"]
    );
    assert_eq!(minerva.rows(None, all).len(), 5, "an operator sees all");
    for sql in [
        "SELECT count(*) FROM shop.shop.people WHERE name = 'Canary-7731'",
        "SELECT count(*) FROM shop.shop.people WHERE city = 'Zug'",
        "SELECT count(*) FROM shop.shop.people WHERE pay > 900",
    ] {
        assert_eq!(minerva.rows(jane, sql), ["0"], "{sql}");
    }
    // A join with another depot.
    minerva.rows(
        None,
        "CREATE TABLE cities.main.cantons AS SELECT 'Basel' AS city, 'BS' AS canton",
    );
    let joined =
        "SELECT p.id, c.canton FROM shop.shop.people p JOIN cities.main.cantons c ON p.city = c.city ORDER BY p.id";
    assert_eq!(minerva.rows(None, joined), ["1,BS", "4,BS"]);
    // It is read only, and says so.
    let refused = minerva.error(None, "INSERT INTO shop.shop.people VALUES (9, 'x', 'y', NULL, NULL)");
    assert!(refused.contains("shop"), "{refused}");
    assert_eq!(mariadb.sql("SELECT count(*) FROM shop.people").trim(), "5");
}

//! Columns that access policies deny, in whatever case they are written, for reading and for writing; and views, whose owner is told.

use crate::minerva::Minerva;

const MANIFESTS: &str = "\
{name: notes, version: v2alpha, type: depot, depot: {type: memory, acceptsTags: true, memory: {}}}
---
{name: jane, version: v1, type: user, user: {tags: [roles:id:user]}}
---
{name: tom, version: v1, type: user, user: {tags: [roles:id:user]}}
---
{name: all, version: v1, type: policy, policy: {access: {subjects: {tags: [roles:id:user]}, predicates: [select, write], objects: {paths: ['dataos://notes:**']}, allow: true}}}
---
{name: no-home, version: v1, type: policy, policy: {access: {subjects: {tags: [roles:id:user]}, predicates: [select], objects: {paths: ['dataos://notes:none/people/HOMEaddress']}, allow: false}}}
---
{name: no-pay, version: v1, type: policy, policy: {access: {subjects: {tags: [roles:id:user]}, predicates: [insert], objects: {paths: ['dataos://notes:none/people/Pay']}, allow: false}}}
---
{name: no-salary, version: v1, type: policy, policy: {access: {subjects: {tags: [roles:id:user]}, predicates: [write], objects: {tags: [[Pay.Salary, 'dataos:type:column']]}, allow: false}}}
---
{name: salaries, version: v1, type: dataset, dataset: {address: 'dataos://notes:none/salaries', columns: [{name: salary, tags: [Pay.Salary]}]}}
";

#[test]
fn denied_columns_are_neither_read_nor_written() {
    let minerva = Minerva::start(&[("all.yaml", MANIFESTS)], 1);
    let key = minerva.key("jane");
    let jane = Some(("jane", key.as_str()));
    minerva.rows(
        None,
        "CREATE TABLE notes.none.people AS SELECT 1 AS id, 'kanari' AS \"homeAddress\", 10 AS pay",
    );
    minerva.rows(None, "CREATE TABLE notes.none.salaries AS SELECT 1 AS id, 10 AS salary");
    // The policy writes the column otherwise than the source.
    assert_eq!(minerva.rows(jane, "SELECT * FROM notes.none.people"), ["1,10"]);
    let unknown = minerva.error(jane, "SELECT \"homeAddress\" FROM notes.none.people");
    assert!(unknown.contains("COLUMN_NOT_FOUND"), "{unknown}");

    minerva.run(jane, "INSERT INTO notes.none.people (id) VALUES (2)", "CSV");
    minerva.run(jane, "INSERT INTO notes.none.salaries (id) VALUES (2)", "CSV");
    let begin = ["1,10", "2,"];
    for (sql, expected) in [
        (
            "INSERT INTO notes.none.people VALUES (3, 30)",
            "may not insert column `pay`",
        ),
        (
            "INSERT INTO notes.none.people (pay) VALUES (30)",
            "may not insert column `pay`",
        ),
        (
            "INSERT INTO notes.none.salaries VALUES (3, 30)",
            "may not insert column `salary`",
        ),
        // What takes the rows away takes the column's values away.
        (
            "DROP TABLE notes.none.salaries",
            "may not drop `dataos://notes:none/salaries`",
        ),
        // The tag comes along, and is denied where it comes to.
        (
            "CREATE TABLE notes.none.copy AS SELECT salary AS other FROM notes.none.salaries",
            "may not create column `other`",
        ),
    ] {
        let error = minerva.error(jane, sql);
        assert!(
            error.contains("PERMISSION_DENIED") && error.contains(expected),
            "{sql}: {error}"
        );
        assert!(!error.contains("home"), "{error}");
        for table in ["people", "salaries"] {
            let column = if table == "people" { "pay" } else { "salary" };
            let now = minerva.rows(
                None,
                &format!("SELECT id, {column} FROM notes.none.{table} ORDER BY id"),
            );
            assert_eq!(now, begin, "{sql}");
        }
    }
    let audit =
        "SELECT tables FROM gateway.public.query_audit WHERE query LIKE 'INSERT INTO notes.none.salaries VALUES%'";
    let recorded = minerva.rows(None, audit).join("");
    assert!(
        recorded.contains("DENIED") && recorded.contains("no-salary"),
        "{recorded}"
    );
    minerva.rows(None, "DROP TABLE notes.none.salaries");
}

#[test]
fn the_owner_of_a_view_is_told_and_its_text_to_them_only() {
    let minerva = Minerva::start(&[("all.yaml", MANIFESTS)], 1);
    let [jane, tom] = ["jane", "tom"].map(|user| minerva.key(user));
    let (jane, tom) = (Some(("jane", jane.as_str())), Some(("tom", tom.as_str())));
    minerva.rows(jane, "CREATE VIEW IF NOT EXISTS notes.none.one AS SELECT 1 AS a");
    let sql = "SELECT table_schema, table_name, view_owner, view_definition FROM notes.information_schema.views";
    assert_eq!(minerva.rows(jane, sql), ["none,one,jane,SELECT 1 AS a"]);
    assert_eq!(minerva.rows(None, sql), ["none,one,jane,SELECT 1 AS a"]);
    assert_eq!(minerva.rows(tom, sql), ["none,one,jane,"]);
    minerva.rows(tom, "CREATE OR REPLACE VIEW notes.none.one AS SELECT 2 AS a");
    assert_eq!(minerva.rows(tom, sql), ["none,one,tom,SELECT 2 AS a"]);
    assert_eq!(
        minerva.rows(None, "SELECT * FROM system.information_schema.views"),
        [""; 0]
    );
    for name in ["notes.none.one", "one"] {
        let error = minerva.error(
            tom,
            &format!("CREATE OR REPLACE VIEW IF NOT EXISTS {name} AS SELECT 3 AS a"),
        );
        assert!(
            error.contains("SYNTAX_ERROR") && error.contains("both OR REPLACE and IF NOT EXISTS"),
            "{error}"
        );
    }
}

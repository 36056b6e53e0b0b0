//! Writing under governance: what a user does not see they neither change nor copy, on every kind of depot that takes writes.
//!
//! An oracle looks at the database itself, past Minerva: rows that a user does not see are as they were, and counts are exact.

use std::{fs, path::Path, thread};

use rusqlite::Connection;

use crate::{minerva::Minerva, private_postgres::Postgres};

pub(crate) const PEOPLE: &str = "CREATE TABLE people (id int PRIMARY KEY, name text, region text, email text, pay int CHECK (pay >= 0)); \
    INSERT INTO people VALUES (1, 'Ada', 'EU', 'ada@x.org', 10), (2, 'Bo', 'US', 'canary@x.org', 20), (3, 'Cy', 'EU', 'cy@x.org', 30), \
    (4, 'Di', NULL, 'di@x.org', 40)";

/// `analyst` sees rows of the EU and redacted mails, `clerk` the same rows and every mail, `reader` may read copies, `outsider` nothing.
const POLICIES: &str = "\
name: analyst
version: v1
type: user
user: {tags: [roles:id:analyst, roles:id:filtered]}
---
name: clerk
version: v1
type: user
user: {tags: [roles:id:clerk, roles:id:filtered]}
---
name: reader
version: v1
type: user
user: {tags: [roles:id:reader]}
---
name: outsider
version: v1
type: user
user: {tags: [roles:id:outsider]}
---
name: cluster
version: v1
type: policy
policy:
  access: {subjects: {tags: [['users:id:*']]}, predicates: [read], objects: {tags: [['dataos:resource:cluster:**']]}, allow: true}
---
name: writers
version: v1
type: policy
policy:
  access: {subjects: {tags: [[roles:id:filtered]]}, predicates: [select, insert, update, delete], objects: {paths: ['dataos://{crm,pg}:*/*']}, allow: true}
---
name: makers
version: v1
type: policy
policy:
  access: {subjects: {tags: [[roles:id:clerk]]}, predicates: [select, create, drop], objects: {paths: ['dataos://{lake,plain}:*/*']}, allow: true}
---
name: readers
version: v1
type: policy
policy:
  access: {subjects: {tags: [[roles:id:reader]]}, predicates: [select], objects: {paths: ['dataos://{lake,crm,plain}:*/*']}, allow: true}
---
name: europe
version: v1
type: policy
policy:
  data:
    type: filter
    priority: 10
    selector: {user: {match: any, tags: [roles:id:filtered]}}
    dataset_id: DEPOT.people
    filters: [{column: region, operator: equals, value: EU}]
---
name: mails
version: v1
type: policy
policy:
  data:
    type: mask
    priority: 10
    selector: {user: {match: any, tags: [roles:id:analyst, roles:id:reader]}, column: {tags: [PII.Email]}}
    mask: {operator: redact}
---
name: people
version: v1
type: dataset
dataset: {address: 'dataos://ADDRESS/people', columns: [{name: email, tags: [PII.Email]}]}
";

pub(crate) fn policies(depot: &str, collection: &str) -> String {
    POLICIES
        .replace("DEPOT", &format!("{depot}.{collection}"))
        .replace("ADDRESS", &format!("{depot}:{collection}"))
}

/// Depots that are written to, in a folder: `crm` (SQLite), `lake` (Parquet, takes tags), `plain` (memory, takes none), `sealed` (read only).
fn depots(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "name: crm\nversion: v2alpha\ntype: depot\ndepot: {{type: sqlite, acl: rw, sqlite: {{path: {folder}/crm.db}}}}\n---\n\
         name: sealed\nversion: v2alpha\ntype: depot\ndepot: {{type: sqlite, sqlite: {{path: {folder}/crm.db}}}}\n---\n\
         name: lake\nversion: v2alpha\ntype: depot\ndepot: {{type: file, acl: rw, acceptsTags: true, file: {{path: {folder}/lake, format: PARQUET}}}}\n---\n\
         name: plain\nversion: v2alpha\ntype: depot\ndepot: {{type: memory, memory: {{}}}}\n---\n\
         name: small\nversion: v2alpha\ntype: depot\ndepot: {{type: tpch, tpch: {{scale: 0.01}}}}\n"
    )
}

/// A server on a SQLite database that these statements make.
pub(crate) fn on_sqlite(statements: &str) -> Minerva {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("lake")).unwrap();
    fs::create_dir_all(folder.path().join("resources")).unwrap();
    Connection::open(folder.path().join("crm.db"))
        .unwrap()
        .execute_batch(statements)
        .unwrap();
    fs::write(folder.path().join("resources/depots.yaml"), depots(folder.path())).unwrap();
    fs::write(folder.path().join("resources/policies.yaml"), policies("crm", "main")).unwrap();
    Minerva::start_in(folder, 1)
}

/// A table of the database itself, one line for each row.
pub(crate) fn in_sqlite(minerva: &Minerva, sql: &str) -> Vec<String> {
    let connection = Connection::open(minerva.folder.path().join("crm.db")).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        let value = |at: usize| match row.get_ref(at).unwrap() {
            rusqlite::types::ValueRef::Null => "NULL".to_owned(),
            rusqlite::types::ValueRef::Integer(value) => value.to_string(),
            rusqlite::types::ValueRef::Real(value) => value.to_string(),
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            rusqlite::types::ValueRef::Blob(bytes) => format!("{bytes:?}"),
        };
        Ok((0..columns).map(value).collect::<Vec<_>>().join("|"))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// How many rows a statement says that it wrote.
pub(crate) fn written(minerva: &Minerva, user: Option<(&str, &str)>, sql: &str) -> u64 {
    let output = minerva.run(user, sql, "CSV");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{sql}\n{said}");
    let count = said.lines().find_map(|line| line.strip_prefix("written: "));
    count
        .and_then(|count| count.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("{sql}: {said}"))
}

pub(crate) fn refused(minerva: &Minerva, user: Option<(&str, &str)>, sql: &str, expected: &[&str]) {
    let error = minerva.error(user, sql);
    for part in expected {
        assert!(error.contains(part), "{sql}: `{part}` is not in: {error}");
    }
    for hidden in ["canary", "US", "EU", "x.org"] {
        assert!(!error.contains(hidden), "{sql}: {error}");
    }
}

/// The statements of two governed users against one table; `raw` reads it past Minerva.
fn hidden_rows_stay(minerva: &Minerva, table: &str, raw: &dyn Fn() -> Vec<String>) {
    let keys = ["analyst", "clerk", "reader", "outsider"].map(|user| (user, minerva.key(user)));
    let [analyst, clerk, reader, outsider] = [0, 1, 2, 3].map(|at: usize| Some((keys[at].0, keys[at].1.as_str())));
    let hidden = ["2|Bo|US|canary@x.org|20", "4|Di|NULL|di@x.org|40"];
    let begin = ["1|Ada|EU|ada@x.org|10", hidden[0], "3|Cy|EU|cy@x.org|30", hidden[1]];
    assert_eq!(raw(), begin);
    // What may not be read or written is refused, and nothing happens.
    for (user, sql, expected) in [
        (
            analyst,
            "UPDATE {t} SET email = 'new'",
            &["PERMISSION_DENIED", "`email`"][..],
        ),
        (
            analyst,
            "UPDATE {t} SET name = email",
            &["PERMISSION_DENIED", "`email`"],
        ),
        (
            analyst,
            "UPDATE {t} SET name = (SELECT max(p.email) FROM {t} p) WHERE people.email > 'a'",
            &["PERMISSION_DENIED", "`email`"],
        ),
        (
            analyst,
            "DELETE FROM {t} WHERE email LIKE 'a%'",
            &["PERMISSION_DENIED", "`email`"],
        ),
        (
            analyst,
            "DELETE FROM {t} AS q WHERE EXISTS (SELECT 1 FROM {t} z WHERE z.id = q.id AND q.email > 'a')",
            &["PERMISSION_DENIED", "`email`"],
        ),
        (
            analyst,
            "INSERT INTO {t} VALUES (9, 'Zo', 'EU', 'zo', 1)",
            &["PERMISSION_DENIED", "`email`"],
        ),
        (
            analyst,
            "INSERT INTO {t} (id, region) VALUES (9, 'EU')",
            &["PERMISSION_DENIED", "every column"],
        ),
        (
            clerk,
            "UPDATE {t} SET region = 'U' || 'S' WHERE id = 1",
            &["PERMISSION_DENIED", "row filter"],
        ),
        (
            clerk,
            "UPDATE {t} SET region = NULL",
            &["PERMISSION_DENIED", "row filter"],
        ),
        (
            clerk,
            "INSERT INTO {t} VALUES (5, 'Ed', 'E' || 'U', 'ed', 1), (6, 'Fy', 'U' || 'S', 'fy', 1)",
            &["PERMISSION_DENIED", "row filter"],
        ),
        // The key is that of a hidden row: its existence can be told, its values cannot.
        (
            clerk,
            "INSERT INTO {t} SELECT 2, 'Bo', region, 'b', 1 FROM {t} WHERE id = 1",
            &["CONSTRAINT_VIOLATION"],
        ),
        (clerk, "UPDATE {t} SET pay = 15 - pay", &["CONSTRAINT_VIOLATION"]),
        (clerk, "UPDATE {t} SET pay = 'much'", &["TYPE_MISMATCH", "`pay`"]),
        (clerk, "UPDATE {t} SET pay = 99999999999999999999", &["`pay`"]),
        (clerk, "UPDATE {t} SET nothing = 1", &["COLUMN_NOT_FOUND", "`nothing`"]),
        (clerk, "UPDATE {t} SET pay = 1 / (id - 1)", &["DIVISION_BY_ZERO"]),
        (reader, "DELETE FROM {t}", &["PERMISSION_DENIED", "`delete`"]),
        (clerk, "DROP TABLE {t}", &["PERMISSION_DENIED", "`drop`"]),
        (clerk, "TRUNCATE TABLE {t}", &["NOT_SUPPORTED"]),
        (clerk, "DELETE FROM {t} RETURNING id", &["NOT_SUPPORTED"]),
        (outsider, "DELETE FROM {t}", &["CATALOG_NOT_FOUND"]),
        (outsider, "INSERT INTO {t} VALUES (1)", &["CATALOG_NOT_FOUND"]),
        (outsider, "DROP TABLE {t}", &["CATALOG_NOT_FOUND"]),
    ] {
        if user == reader && table.starts_with("pg.") {
            continue;
        }
        refused(minerva, user, &sql.replace("{t}", table), expected);
        assert_eq!(raw(), begin, "{sql}");
    }
    let run = |user, sql: &str| written(minerva, user, &sql.replace("{t}", table));
    assert_eq!(run(analyst, "UPDATE {t} SET pay = pay + 1"), 2);
    assert_eq!(
        raw(),
        ["1|Ada|EU|ada@x.org|11", hidden[0], "3|Cy|EU|cy@x.org|31", hidden[1]]
    );
    assert_eq!(
        run(
            analyst,
            "UPDATE {t} SET pay = pay - 1 WHERE id IN (SELECT p.id FROM {t} p)"
        ),
        2
    );
    assert_eq!(raw(), begin);
    assert_eq!(run(analyst, "UPDATE {t} SET pay = 0 WHERE false"), 0);
    assert_eq!(run(analyst, "DELETE FROM {t} WHERE id = 2 OR region IS NULL"), 0);
    assert_eq!(
        run(
            clerk,
            "UPDATE {t} AS p SET name = upper(p.name), email = lower(name) WHERE p.id = 1"
        ),
        1
    );
    assert_eq!(raw(), ["1|ADA|EU|ada|10", begin[1], begin[2], begin[3]]);
    assert_eq!(
        run(
            clerk,
            "INSERT INTO {t} (pay, id, name, region, email) VALUES (5, 7, 'Ed', 'EU', 'ed'), (6, 8, 'Fy', 'EU', NULL)"
        ),
        2
    );
    assert_eq!(raw()[4..], ["7|Ed|EU|ed|5", "8|Fy|EU|NULL|6"]);
    assert_eq!(run(analyst, "DELETE FROM {t} WHERE pay < 10"), 2);
    assert_eq!(run(analyst, "DELETE FROM {t}"), 2);
    assert_eq!(raw(), hidden);
    assert_eq!(run(None, "DELETE FROM {t}"), 2);
    assert_eq!(raw(), Vec::<String>::new());
}

#[test]
fn hidden_rows_of_sqlite_are_neither_changed_nor_counted() {
    let minerva = on_sqlite(PEOPLE);
    hidden_rows_stay(&minerva, "crm.main.people", &|| {
        in_sqlite(&minerva, "SELECT * FROM people ORDER BY id")
    });
    refused(
        &minerva,
        None,
        "DELETE FROM sealed.main.people",
        &["NOT_SUPPORTED", "acl: rw"],
    );
}

pub(crate) fn on_postgres(postgres: &Postgres) -> Minerva {
    let depot = postgres
        .manifest()
        .replace("type: POSTGRESQL\n", "type: POSTGRESQL\n  acl: rw\n");
    Minerva::start(
        &[
            ("depot.yaml", depot.as_str()),
            ("policies.yaml", policies("pg", "public").as_str()),
        ],
        1,
    )
}

#[test]
fn hidden_rows_of_postgresql_are_neither_changed_nor_counted() {
    let postgres = Postgres::start();
    postgres.execute(PEOPLE, b"");
    let minerva = on_postgres(&postgres);
    hidden_rows_stay(&minerva, "pg.public.people", &|| {
        postgres.ask("SELECT coalesce(id::text, 'NULL'), coalesce(name, 'NULL'), coalesce(region, 'NULL'), coalesce(email, 'NULL'), pay FROM people ORDER BY id")
    });
}

/// Many at once add to one number, and no addition is lost.
fn additions_are_not_lost(minerva: &Minerva, table: &str) {
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..3 {
                    assert_eq!(written(minerva, None, &format!("UPDATE {table} SET n = n + 1")), 1);
                }
            });
        }
    });
    assert_eq!(minerva.rows(None, &format!("SELECT n FROM {table}")), ["12"]);
}

#[test]
fn updates_side_by_side_are_not_lost() {
    let counter = "CREATE TABLE counter (n int); INSERT INTO counter VALUES (0)";
    let postgres = Postgres::start();
    postgres.execute(counter, b"");
    additions_are_not_lost(&on_postgres(&postgres), "pg.public.counter");
    additions_are_not_lost(&on_sqlite(counter), "crm.main.counter");
}

#[test]
fn tags_follow_a_copy_and_hold_at_once_after_a_restart_and_after_a_reload() {
    let mut minerva = on_sqlite(PEOPLE);
    let [clerk, reader] = ["clerk", "reader"].map(|user| minerva.key(user));
    let (clerk, reader) = (Some(("clerk", clerk.as_str())), Some(("reader", reader.as_str())));
    refused(
        &minerva,
        clerk,
        "CREATE TABLE plain.public.copy AS SELECT id, upper(email) AS mail FROM crm.main.people",
        &["PERMISSION_DENIED", "`plain`", "`mail`", "PII.Email"],
    );
    assert_eq!(
        written(
            &minerva,
            clerk,
            "CREATE TABLE plain.public.copy AS SELECT id, name FROM crm.main.people WHERE email > 'a'"
        ),
        2
    );
    // The copy has what its maker saw, and no more.
    let copy = "CREATE TABLE lake.new.copy AS SELECT id, upper(email) AS mail, name FROM crm.main.people";
    assert_eq!(written(&minerva, clerk, copy), 2);
    let of_clerk = ["1,ADA@X.ORG,Ada", "3,CY@X.ORG,Cy"];
    let of_reader = ["1,REDACTED,Ada", "3,REDACTED,Cy"];
    let select = "SELECT * FROM lake.new.copy ORDER BY id";
    assert_eq!(minerva.rows(clerk, select), of_clerk);
    assert_eq!(minerva.rows(reader, select), of_reader);
    refused(
        &minerva,
        clerk,
        "INSERT INTO lake.new.copy VALUES (9, 'x', 'y')",
        &["PERMISSION_DENIED", "`insert`"],
    );
    assert_eq!(
        written(
            &minerva,
            None,
            "INSERT INTO lake.new.copy SELECT id, email, name FROM crm.main.people WHERE id = 2"
        ),
        1
    );
    // A tag that the column has not got is not brought to a table that others read.
    refused(
        &minerva,
        None,
        "INSERT INTO lake.new.copy SELECT id, name, email FROM crm.main.people",
        &["PERMISSION_DENIED", "`name`", "PII.Email"],
    );
    assert_eq!(
        minerva.rows(reader, select),
        ["1,REDACTED,Ada", "2,REDACTED,Bo", "3,REDACTED,Cy"]
    );
    let copied = "SELECT mail FROM lake.new.copy WHERE id = 1";
    // A reload of the manifests.
    let manifest = minerva.resources().join("policies.yaml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("redact", "nullify")).unwrap();
    while minerva.rows(reader, copied) == ["REDACTED"] {}
    assert_eq!(minerva.rows(reader, copied), [""]);
    // A restart.
    minerva.server.kill();
    let Minerva { folder, .. } = minerva;
    let minerva = Minerva::start_in(folder, 1);
    assert_eq!(minerva.rows(reader, copied), [""]);
    assert_eq!(minerva.rows(clerk, copied), ["ADA@X.ORG"]);
    // A copy of the copy.
    assert_eq!(
        written(
            &minerva,
            clerk,
            "CREATE TABLE lake.new.again AS SELECT mail AS m FROM lake.new.copy WHERE id = 1"
        ),
        1
    );
    assert_eq!(minerva.rows(reader, "SELECT m FROM lake.new.again"), [""]);
    // A name is free again, and so are its tags gone.
    minerva.rows(clerk, "DROP TABLE lake.new.again");
    assert_eq!(
        written(&minerva, clerk, "CREATE TABLE lake.new.again AS SELECT 'open' AS m"),
        1
    );
    assert_eq!(minerva.rows(reader, "SELECT m FROM lake.new.again"), ["open"]);
}

#[test]
fn what_fails_half_way_leaves_nothing() {
    let minerva = on_sqlite("CREATE TABLE numbers (n INTEGER CHECK (n <> 59968), t TEXT)");
    let lake = minerva.folder.path().join("lake");
    let made = || walk(&lake);
    refused(
        &minerva,
        None,
        "INSERT INTO crm.main.numbers SELECT o_orderkey, o_comment FROM small.tpch.orders",
        &["CONSTRAINT_VIOLATION"],
    );
    assert_eq!(in_sqlite(&minerva, "SELECT count(*) FROM numbers"), ["0"]);
    let last = "SELECT 100 / (o_orderkey - 59968) AS x FROM small.tpch.orders";
    for table in ["lake.c.t", "crm.main.t", "plain.public.t"] {
        refused(
            &minerva,
            None,
            &format!("CREATE TABLE {table} AS {last}"),
            &["DIVISION_BY_ZERO"],
        );
        refused(&minerva, None, &format!("SELECT * FROM {table}"), &["TABLE_NOT_FOUND"]);
    }
    assert_eq!(made(), Vec::<String>::new());
    assert_eq!(written(&minerva, None, "CREATE TABLE lake.c.t AS SELECT 1 AS x"), 1);
    let before = made();
    refused(
        &minerva,
        None,
        &format!("INSERT INTO lake.c.t {last}"),
        &["DIVISION_BY_ZERO"],
    );
    assert_eq!(made(), before);
    assert_eq!(
        written(
            &minerva,
            None,
            "INSERT INTO lake.c.t SELECT o_orderkey FROM small.tpch.orders"
        ),
        15_000
    );
    assert_eq!(minerva.rows(None, "SELECT count(*), min(x) FROM lake.c.t"), ["15001,1"]);
    for name in ["../out", "a/b", ".hidden", "_x", "a=b", ""] {
        minerva.error(None, &format!("CREATE TABLE lake.c.\"{name}\" AS SELECT 1 AS x"));
        minerva.error(None, &format!("CREATE TABLE lake.\"{name}\".t AS SELECT 1 AS x"));
    }
    assert!(!minerva.folder.path().join("out").exists());
    minerva.rows(None, "DROP TABLE lake.c.t");
    assert_eq!(made(), ["c"]);
}

/// Everything in a folder, hidden things too.
fn walk(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        found.push(entry.file_name().into_string().unwrap());
        if entry.path().is_dir() {
            found.extend(walk(&entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn names_of_all_sorts_are_written_and_found() {
    let postgres = Postgres::start();
    for (minerva, schema) in [(&on_sqlite(""), "crm.main"), (&on_postgres(&postgres), "pg.public")] {
        let table = format!("{schema}.\"Ta \"\"b\"\" ' l\u{e9} \u{1f600}\"");
        let create = format!(
            "CREATE TABLE {table} (\"Id\" BIGINT NOT NULL, \"a \"\"b\"\" ; --\" VARCHAR, d DATE, x DECIMAL(9, 2))"
        );
        minerva.rows(None, &create);
        let insert = format!(
            "INSERT INTO {table} VALUES (1, 'it''s\t\\N \u{1f600}', '2024-02-29', 1.25), (2, NULL, NULL, -0.5)"
        );
        assert_eq!(written(minerva, None, &insert), 2);
        let update = format!("UPDATE {table} SET \"a \"\"b\"\" ; --\" = 'new' WHERE \"Id\" = 2");
        assert_eq!(written(minerva, None, &update), 1);
        assert_eq!(
            minerva.rows(None, &format!("SELECT * FROM {table} ORDER BY 1")),
            ["1,it's\t\\N \u{1f600},2024-02-29,1.25", "2,new,,-0.50"]
        );
        refused(
            minerva,
            None,
            &format!("INSERT INTO {table} (d) VALUES ('2024-01-01')"),
            &["CONSTRAINT_VIOLATION"],
        );
        assert_eq!(
            written(minerva, None, &format!("DELETE FROM {table} WHERE d IS NULL")),
            1
        );
        minerva.rows(None, &format!("DROP TABLE {table}"));
        minerva.error(None, &format!("SELECT * FROM {table}"));
        refused(
            minerva,
            None,
            &format!("CREATE TABLE {schema}.t AS SELECT named_struct('a', 1) AS s"),
            &["NOT_SUPPORTED", "`s`"],
        );
    }
}

#[test]
fn a_kept_view_has_the_rights_of_who_asks() {
    let mut minerva = on_sqlite(PEOPLE);
    let keys = ["analyst", "clerk", "reader", "outsider"].map(|user| (user, minerva.key(user)));
    let [analyst, clerk, reader, outsider] = [0, 1, 2, 3].map(|at: usize| Some((keys[at].0, keys[at].1.as_str())));
    let create = "CREATE VIEW crm.main.mails (who, mail) AS SELECT name, email FROM crm.main.people";
    refused(&minerva, clerk, create, &["PERMISSION_DENIED", "`create`"]);
    minerva.rows(None, create);
    minerva.rows(
        None,
        "USE crm.main; CREATE VIEW crm.main.short AS SELECT who FROM mails WHERE who < 'C'",
    );
    refused(&minerva, None, create, &["TABLE_ALREADY_EXISTS"]);
    let on_session = "CREATE VIEW own AS SELECT 1 AS a; CREATE VIEW crm.main.longer AS SELECT * FROM own";
    refused(&minerva, None, on_session, &["NOT_SUPPORTED", "`own`"]);
    let select = "SELECT * FROM crm.main.mails ORDER BY who";
    for _ in 0..2 {
        assert_eq!(minerva.rows(None, select).len(), 4);
        assert_eq!(minerva.rows(analyst, select), ["Ada,REDACTED", "Cy,REDACTED"]);
        assert_eq!(minerva.rows(clerk, select), ["Ada,ada@x.org", "Cy,cy@x.org"]);
        assert_eq!(minerva.rows(clerk, "SELECT * FROM crm.main.short"), ["Ada"]);
        assert_eq!(
            minerva.rows(reader, "SELECT count(*), max(mail) FROM crm.main.mails"),
            ["4,REDACTED"]
        );
        refused(&minerva, outsider, select, &["CATALOG_NOT_FOUND"]);
        assert_eq!(
            minerva.rows(clerk, "SHOW TABLES FROM crm.main"),
            ["mails", "people", "short"]
        );
        assert_eq!(
            minerva.rows(
                clerk,
                "SELECT table_type FROM crm.information_schema.tables WHERE table_name = 'mails'"
            ),
            ["VIEW"]
        );
        refused(
            &minerva,
            clerk,
            "DELETE FROM crm.main.mails",
            &["NOT_SUPPORTED", "view"],
        );
        // They are still there after a restart.
        minerva.server.kill();
        let Minerva { folder, .. } = minerva;
        minerva = Minerva::start_in(folder, 1);
    }
    // Tags follow through views.
    refused(
        &minerva,
        clerk,
        "CREATE TABLE plain.public.t AS SELECT mail FROM crm.main.mails",
        &["`mail`", "PII.Email"],
    );
    assert_eq!(
        in_sqlite(&minerva, "SELECT count(*) FROM sqlite_schema WHERE type = 'view'"),
        ["0"]
    );
    refused(&minerva, clerk, "DROP VIEW crm.main.mails", &["PERMISSION_DENIED"]);
    minerva.rows(
        None,
        "CREATE OR REPLACE VIEW crm.main.mails AS SELECT * FROM crm.main.mails",
    );
    refused(&minerva, None, select, &["built on"]);
    minerva.rows(None, "DROP VIEW crm.main.mails");
    refused(&minerva, None, select, &["TABLE_NOT_FOUND"]);
    minerva.rows(None, "DROP VIEW IF EXISTS crm.main.mails");
}

#[test]
fn columns_that_do_not_exist_for_somebody_take_nothing_of_theirs() {
    let minerva = on_sqlite(PEOPLE);
    let (file, tags) = (
        minerva.resources().join("policies.yaml"),
        "columns: [{name: email, tags: [PII.Email]}]",
    );
    let text = fs::read_to_string(&file).unwrap();
    let inventory = "columns: [{name: id}, {name: name}, {name: region}, {name: email, tags: [PII.Email]}]";
    assert!(text.contains(tags));
    fs::write(&file, text.replace(tags, inventory)).unwrap();
    let key = minerva.key("clerk");
    let clerk = Some(("clerk", key.as_str()));
    // The change of the manifests is in force once the column is gone.
    let begin = std::time::Instant::now();
    while minerva
        .run(clerk, "SELECT pay FROM crm.main.people", "CSV")
        .status
        .success()
    {
        assert!(begin.elapsed().as_secs() < 30, "the manifest is not taken over");
    }
    for sql in [
        "INSERT INTO crm.main.people (id, name, region, email, pay) VALUES (9, 'x', 'EU', 'x', 1)",
        "UPDATE crm.main.people SET pay = 0",
        "UPDATE crm.main.people SET name = CAST(pay AS varchar)",
        "UPDATE crm.main.people SET name = 'x' WHERE pay > 0",
        "DELETE FROM crm.main.people WHERE pay > 0",
    ] {
        let unknown = minerva.error(clerk, &sql.replace("pay", "wage"));
        let hidden = minerva.error(clerk, sql);
        let first = |text: &str| text.lines().next().unwrap_or_default().replace("pay", "wage");
        assert_eq!(first(&hidden), first(&unknown), "{sql}");
        assert!(hidden.contains("COLUMN_NOT_FOUND"), "{sql}: {hidden}");
    }
    let insert = "INSERT INTO crm.main.people VALUES (9, 'Eve', 'EU', 'eve@x.org')";
    assert_eq!(written(&minerva, clerk, insert), 1);
    assert_eq!(
        written(&minerva, clerk, "UPDATE crm.main.people SET name = 'Eva' WHERE id = 9"),
        1
    );
    assert_eq!(
        in_sqlite(&minerva, "SELECT name, pay FROM people WHERE id IN (1, 9) ORDER BY id"),
        ["Ada|10", "Eva|NULL"]
    );
}

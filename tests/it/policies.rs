//! Policies from the outside: explained, tested and changed by command, with and without a coordinator, and what unclassified columns,
//! conflicts and broken expressions look like to a client.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    governed_data::run,
    minerva::{Minerva, program, python},
};

fn repository(path: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join(path)
        .display()
        .to_string()
}

fn minerva(words: &[&str]) -> Output {
    program().args(words).output().unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn the_stock_policies_load_alone_and_do_what_their_tests_say() {
    let checked = minerva(&["check", &repository("examples/policies")]);
    assert!(checked.status.success(), "{}", text(&checked));
    let tested = minerva(&[
        "policy",
        "test",
        &repository("examples/policies"),
        &repository("examples/people"),
    ]);
    let said = text(&tested);
    assert!(
        tested.status.success() && said.ends_with("26 as expected, 0 not\n"),
        "{said}"
    );
    // Without the stock policies the same expectations fail, and it is said why.
    let alone = minerva(&["policy", "test", &repository("examples/people")]);
    let said = text(&alone);
    assert_eq!(alone.status.code(), Some(1), "{said}");
    assert!(said.contains("column `email`: expected hash, got as it is"), "{said}");
    assert!(said.contains("| column `email`: as it is"), "{said}");
}

#[test]
fn stock_policies_govern_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let resources = folder.path().join("resources");
    copy(&PathBuf::from(repository("examples/people")), &resources);
    copy(&PathBuf::from(repository("examples/policies")), &resources);
    let secret = "name: mask-key\nversion: v1\ntype: instance-secret\ninstance-secret: {type: key-value, acl: r, data: {key: sixteen bytes of it}}\n";
    fs::write(resources.join("secret.yaml"), secret).unwrap();
    let minerva = Minerva::start_in(folder, 2);
    let [analyst, officer, guest] = ["analyst", "officer", "guest"].map(|user| minerva.key(user));
    let sql = "SELECT full_name, email = full_name, phone, home, born, age, gender, income, ip, country FROM staff.hr.people ORDER BY id";
    let rows = minerva.rows(Some(("analyst", &analyst)), sql);
    assert_eq!(rows.len(), 2);
    let ada = "false,+331234xxxxx,REDACTED,1990-01-01,35,REDACTED,50000,REDACTED,FR";
    assert!(rows[0].ends_with(ada), "{rows:?}");
    let hash = rows[0].split(',').next().unwrap();
    // The hash is keyed: it is not the plain SHA-256 that could be looked up.
    let plain = "SELECT encode(sha256(full_name), 'hex') FROM staff.hr.people ORDER BY id LIMIT 1";
    let plain = &minerva.rows(Some(("officer", &officer)), plain)[0];
    assert!(hash.len() == 64 && hash != plain, "{hash} {plain}");
    let ssn = &minerva.rows(
        Some(("analyst", &analyst)),
        "SELECT ssn FROM staff.hr.people WHERE id = 1",
    )[0];
    assert!(
        ssn.len() == 11 && ssn.matches('-').count() == 2 && ssn != "123-45-6789",
        "{ssn}"
    );
    assert_eq!(
        minerva.rows(
            Some(("officer", &officer)),
            "SELECT full_name, ssn FROM staff.hr.people ORDER BY id LIMIT 1"
        ),
        ["Ada Byron,123-45-6789"]
    );
    let refused = minerva.error(Some(("guest", &guest)), "SELECT 1 FROM staff.hr.people");
    assert!(refused.contains("CATALOG_NOT_FOUND"), "{refused}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

const SHOP: &str = "\
{name: shop, version: v2alpha, type: depot, depot: {type: FILE, file: {path: ../sources}}}
---
{name: analyst, version: v1, type: user, user: {tags: [roles:id:user], attributes: {region: EU}}}
---
{name: readers, version: v1, type: policy, policy: {access: {subjects: {tags: [roles:id:user]}, predicates: [select], objects: {paths: ['dataos://shop:**']}, allow: true}}}
";

/// A folder with the table `shop.none.people` of `id`, `email`, `region` and `divisor`, and these manifests besides.
fn shop(manifests: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for inner in ["resources", "sources"] {
        fs::create_dir(folder.path().join(inner)).unwrap();
    }
    let rows = "id,email,region,divisor\n1,a@example.test,EU,1\n2,b@example.test,US,0\n3,c@example.test,EU,2\n";
    fs::write(folder.path().join("sources/people.csv"), rows).unwrap();
    fs::write(folder.path().join("resources/shop.yaml"), SHOP).unwrap();
    for (name, text) in manifests {
        fs::write(folder.path().join("resources").join(name), text).unwrap();
    }
    folder
}

#[test]
fn explaining_without_a_coordinator_says_what_one_says() {
    let policies = "\
{name: weak, version: v1, type: policy, policy: {data: {type: mask, priority: 90, selector: {user: {tags: ['users:**']}, column: {names: [email]}}, mask: {operator: redact}}}}
---
{name: strong, version: v1, type: policy, policy: {data: {type: mask, priority: 10, selector: {user: {tags: ['users:**']}, column: {names: [email]}}, mask: {operator: hash}}}}
---
{name: own, version: v1, type: policy, policy: {data: {type: filter, selector: {user: {tags: [roles:id:user]}}, dataset_id: shop.none.people, filters: [{column: region, value: '${user.attributes.region}'}]}}}
---
{name: people, version: v1, type: dataset, dataset: {address: 'dataos://shop:none/people', columns: [{name: id}, {name: email}, {name: region}]}}
";
    let folder = shop(&[("policies.yaml", policies)]);
    let resources = folder.path().join("resources");
    let offline = |more: &[&str]| {
        let mut command = program();
        command
            .args(["policy", "explain", "-u", "analyst", "--resources"])
            .arg(&resources);
        command.args(more).output().unwrap()
    };
    let table = offline(&["--table", "shop.none.people"]);
    let said = text(&table);
    for line in [
        "rows: only where region = 'EU' -- policy `own`",
        "column `email`: hash(algo: sha256) -- policy `strong`",
        "    outranked: redact -- policy `weak`",
        "priority 90 is weaker than 10",
        "column `divisor`: does not exist -- unclassified columns are denied",
        "column `id`: as it is",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    let sql = "SELECT p.id FROM shop.none.people p JOIN \"dataos://shop:none/people\" q ON p.id = q.id";
    assert_eq!(text(&offline(&["--sql", sql])), format!("{said}\n{said}"));
    assert_eq!(text(&offline(&[])), said, "it is the only table");
    let json = offline(&["--table", "dataos://shop:none/people", "--output", "json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json[0]["columns"][1]["mask"], "hash(algo: sha256)");
    assert_eq!(json[0]["columns"][1]["outranked"][0]["policy"]["name"], "weak");
    assert_eq!(json[0]["columns"][3]["shown"], "denied");
    assert_eq!(json[0]["rows"][0]["sql"], "region = 'EU'");
    for (wrong, expected) in [
        (["--table", "people"], "catalog.schema.table"),
        (["--table", "shop.none.persons"], "does not exist"),
        (["--sql", "SELEC 1"], "expected"),
    ] {
        let output = offline(&wrong);
        assert!(
            !output.status.success() && text(&output).to_lowercase().contains(expected),
            "{}",
            text(&output)
        );
    }
    let mut stranger = program();
    stranger
        .args(["policy", "explain", "-u", "analist", "--resources"])
        .arg(&resources);
    assert!(text(&stranger.output().unwrap()).contains("did you mean `analyst`?"));

    // A coordinator on the same manifests explains alike, but for the folder's name.
    let minerva = Minerva::start_in(folder, 1);
    let online = minerva
        .client(&["policy", "explain", "-u", "analyst", "--table", "shop.none.people"])
        .output()
        .unwrap();
    assert_eq!(text(&online), said);
}

#[test]
fn columns_that_nobody_classified_do_not_exist() {
    let manifest = "{name: people, version: v1, type: dataset, dataset: {address: 'dataos://shop:none/people', columns: [{name: id}, {name: email}, {name: region}]}}\n---\n\
         {name: ones, version: v1, type: policy, policy: {data: {type: filter, selector: {user: {tags: ['roles:id:user']}}, dataset: people, filters: [{column: divisor, operator: greater_than, value: 0}]}}}\n";
    let minerva = Minerva::start_in(shop(&[("people.yaml", manifest)]), 2);
    let key = minerva.key("analyst");
    let analyst = Some(("analyst", key.as_str()));
    // The filter reads what the user cannot.
    let all = minerva.run(analyst, "SELECT * FROM shop.none.people ORDER BY id", "CSV");
    assert_eq!(
        String::from_utf8_lossy(&all.stdout),
        "id,email,region\n1,a@example.test,EU\n3,c@example.test,EU\n"
    );
    let unknown = minerva.error(analyst, "SELECT nothing FROM shop.none.people");
    for sql in [
        "SELECT divisor FROM shop.none.people",
        "SELECT p.divisor FROM shop.none.people p",
        "SELECT id FROM shop.none.people ORDER BY divisor",
        "SELECT count(*) FROM shop.none.people WHERE divisor = 1",
        "SELECT count(*) FROM shop.none.people GROUP BY divisor",
        "SELECT 1 FROM shop.none.people p JOIN shop.none.people q USING (divisor)",
    ] {
        let error = minerva.error(analyst, sql);
        let code = |text: &str| text.split(": ").nth(1).unwrap_or_default().to_owned();
        assert_eq!(code(&error), code(&unknown), "{sql}: {error}");
    }
    // It is as unknown as a column that nobody has: the text is the same but for the name.
    let hidden = minerva.error(analyst, "SELECT divisor FROM shop.none.people");
    let without_ids = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| !line.contains("query id") && !line.contains("query_id"));
        lines.map(|line| line.replace("divisor", "nothing")).collect()
    };
    assert_eq!(without_ids(&hidden)[0], without_ids(&unknown)[0]);
    for sql in [
        "DESCRIBE shop.none.people",
        "SHOW COLUMNS FROM shop.none.people",
        "SELECT column_name FROM shop.information_schema.columns WHERE table_name = 'people'",
        "SELECT count(*) FROM shop.none.people NATURAL JOIN (SELECT 1 AS divisor)",
        "EXPLAIN SELECT * FROM shop.none.people",
    ] {
        let said = minerva.rows(analyst, sql).join("\n");
        assert!(!said.contains("divisor"), "{sql}\n{said}");
    }
    // An operator sees it, to classify it.
    assert_eq!(
        minerva.rows(None, "SELECT divisor FROM shop.none.people ORDER BY id"),
        ["1", "2"],
        "the filter is about operators who are users too"
    );
    // A rule of the collection for what is not declared.
    fs::write(
        minerva.resources().join("people.yaml"),
        "{name: all, version: v1, type: dataset, dataset: {address: 'dataos://shop:none', unclassified: mask}}\n---\n\
         {name: people, version: v1, type: dataset, dataset: {address: 'dataos://shop:none/people', columns: [{name: id}]}}\n",
    )
    .unwrap();
    let sql = "SELECT id, email, divisor FROM shop.none.people ORDER BY id LIMIT 1";
    wait_until(|| text(&minerva.run(analyst, sql, "CSV")).contains("1,REDACTED,0"));
}

pub(crate) fn wait_until(mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(30), "it did not become so");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_error_in_a_filter_fails_the_statement_and_tells_nothing() {
    let policy = |expression: &str| {
        format!(
            "{{name: careful, version: v1, type: policy, policy: {{data: {{type: filter, selector: {{user: {{tags: ['users:**']}}}}, dataset_id: shop.none.people, filters: [{{expression: \"{expression}\"}}]}}}}}}\n"
        )
    };
    let minerva = Minerva::start_in(shop(&[("policies.yaml", &policy("10 / divisor > 1"))]), 2);
    let key = minerva.key("analyst");
    for user in [Some(("analyst", key.as_str())), None] {
        let error = minerva.error(user, "SELECT id FROM shop.none.people");
        assert!(
            error.contains("POLICY_ERROR") && !error.to_lowercase().contains("divi"),
            "{error}"
        );
    }
    // What stands to the left guards the right.
    fs::write(
        minerva.resources().join("policies.yaml"),
        policy("divisor <> 0 AND 10 / divisor > 1"),
    )
    .unwrap();
    let sql = "SELECT id FROM shop.none.people ORDER BY id";
    wait_until(|| text(&minerva.run(Some(("analyst", &key)), sql, "CSV")) == "id\n1\n3\n");
}

#[test]
fn names_in_a_policy_cannot_be_captured() {
    let policies = "\
{name: own, version: v1, type: policy, policy: {data: {type: filter, selector: {user: {tags: ['users:**']}}, dataset_id: shop.none.people, filters: [{expression: \"lower(region) = 'eu'\"}]}}}
---
{name: first, version: v1, type: policy, policy: {data: {type: mask, priority: 5, selector: {user: {tags: ['users:**']}, column: {names: [email]}}, mask: {operator: expression, expression: {sql: \"concat(left(value, 1), '.')\"}}}}}
";
    let minerva = Minerva::start_in(shop(&[("policies.yaml", policies)]), 1);
    let key = minerva.key("analyst");
    let script = "\
CREATE VIEW people AS SELECT 1 AS id, 'x' AS region, 'y' AS value;
CREATE VIEW region AS SELECT 'eu' AS region, 'whole' AS value;
USE shop.none;
WITH region AS (SELECT 'eu' AS lower, 'all' AS value), people AS (SELECT 'eu' AS region) \
SELECT p.id, p.email FROM shop.none.people p, region value ORDER BY p.id;
SELECT q.id, q.email FROM (SELECT 'EU' AS region, 'EU' AS value) r CROSS JOIN shop.none.people q ORDER BY q.id;
SELECT lower(value), (SELECT count(*) FROM shop.none.people) FROM (SELECT 'US' AS value) region;
";
    let file = minerva.folder.path().join("script.sql");
    fs::write(&file, script).unwrap();
    let mut command = minerva.client(&["sql", "--output-format", "CSV", "--user", "analyst"]);
    command.arg("-f").arg(&file).env("MINERVA_APIKEY", &key);
    let output = command.output().unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("1,a.\n3,c.\n").count(), 2, "{said}");
    assert!(said.contains("us,2"), "{said}");
}

#[test]
fn two_spellings_of_a_table_are_one_table_or_none() {
    let policies = "\
{name: lite, version: v2alpha, type: depot, depot: {type: SQLITE, sqlite: {path: ../sources/lite.db}}}
---
{name: lite-readers, version: v1, type: policy, policy: {access: {subjects: {tags: [roles:id:user]}, predicates: [select], objects: {paths: ['dataos://lite:**']}, allow: true}}}
---
{name: no-email, version: v1, type: policy, policy: {data: {type: mask, priority: 5, depot: lite, collection: main, dataset: people, selector: {user: {tags: ['users:**']}, column: {names: [EMAIL]}}, mask: {operator: redact}}}}
";
    let folder = shop(&[("policies.yaml", policies)]);
    let make = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('CREATE TABLE people (id INTEGER, Email TEXT)'); c.execute(\"INSERT INTO people VALUES (1, 'kanari')\"); c.commit()";
    run(python().args(["-c", make]).arg(folder.path().join("sources/lite.db")));
    let minerva = Minerva::start_in(folder, 1);
    let key = minerva.key("analyst");
    let analyst = Some(("analyst", key.as_str()));
    assert_eq!(
        minerva.rows(analyst, "SELECT \"Email\" FROM lite.main.people"),
        ["REDACTED"]
    );
    for name in [
        "LITE.MAIN.PEOPLE",
        "lite.main.\"PEOPLE\"",
        "lite.\"MAIN\".people",
        "\"Lite\".main.people",
        "lite.main.\"people \"",
        "lite.main.\" people\"",
        "\"dataos://lite:main/PEOPLE\"",
        "\"dataos://lite:main/people\"",
        "lite.main.\"ｐeople\"",
        "lite.main.\"[people]\"",
        "lite.main.\"main.people\"",
        "lite.main.\"\"\"people\"\"\"",
    ] {
        for columns in ["*", "\"Email\"", "p"] {
            let output = minerva.run(analyst, &format!("SELECT {columns} FROM {name} p"), "CSV");
            assert!(!text(&output).contains("kanari"), "{name}: {}", text(&output));
        }
    }
}

const MASKED: &str = "\
{name: no-email, version: v1, type: policy, policy: {data: {type: mask, priority: 5, dataset_id: shop.none.people, selector: {user: {tags: [roles:id:user]}, column: {names: [email]}}, mask: {operator: redact}}}}
";

#[test]
fn a_change_is_shown_before_it_is_made_and_in_force_after() {
    let minerva = Minerva::start_in(shop(&[]), 1);
    let key = minerva.key("analyst");
    let sql = "SELECT email FROM shop.none.people ORDER BY id LIMIT 1";
    let apply = |text: &str, more: &[&str]| {
        let given = minerva.folder.path().join("given.yaml");
        fs::write(&given, text).unwrap();
        let mut command = program();
        command.args(["apply", "-f"]).arg(&given);
        command.arg("--resources").arg(minerva.resources()).args(more);
        command.output().unwrap()
    };
    let dry = apply(MASKED, &["--dry-run"]);
    let said = text(&dry);
    assert!(dry.status.success(), "{said}");
    for line in [
        "policy/no-email created\n",
        "user `analyst`, `dataos://shop:none/people`:\n  column `email`:\n    - as it is\n    + redact by `no-email`\n",
        "1 decision is altered\n",
        "nothing was changed",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    assert!(!minerva.resources().join("given.yaml").exists());
    let json = apply(MASKED, &["--dry-run", "--output", "json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["decisions"][0]["after"], "redact by `no-email`");
    assert_eq!(json["written"], false);
    assert_eq!(minerva.rows(Some(("analyst", &key)), sql), ["a@example.test"]);

    let applied = apply(MASKED, &[]);
    assert!(applied.status.success(), "{}", text(&applied));
    wait_until(|| minerva.rows(Some(("analyst", &key)), sql) == ["REDACTED"]);
    let again = apply(MASKED, &[]);
    assert!(text(&again).contains("policy/no-email unchanged\nno decision about a declared user is altered\n"));

    // What is wrong, what does not fit a column, and what contradicts another policy is refused and changes nothing.
    let number = MASKED
        .replace("no-email", "bad")
        .replace("names: [email]", "names: [id]")
        .replace("priority: 5", "priority: 4");
    for (manifest, expected) in [
        (MASKED.replace("redact", "redcat"), "did you mean `redact`?"),
        (
            MASKED.replace("[email]", "[emial]").replace("no-email", "bad"),
            "there is no column `emial`; did you mean `email`?",
        ),
        (
            number.replace("operator: redact", "operator: hash"),
            "mask `hash` does not fit column `id` of type `Int64`",
        ),
        (
            MASKED.replace("no-email", "bad").replace("redact", "nullify"),
            "give different masks",
        ),
        (
            "{name: x, version: v1, type: depot, depot: {type: FILE, file: {path: data}}}".to_owned(),
            "is relative",
        ),
    ] {
        let refused = apply(&manifest, &[]);
        let said = text(&refused);
        assert_eq!(refused.status.code(), Some(1), "{manifest}\n{said}");
        assert!(
            said.contains(expected) && said.contains("refused: nothing was changed"),
            "{expected}\n{said}"
        );
    }
    // A mask that reaches a column through the tag of a whole table meets another there: only the real columns show it.
    let by_tag = "\
{name: people, version: v1, type: dataset, dataset: {address: 'dataos://shop:none/people', tags: [Pii.All]}}
---
{name: by-tag, version: v1, type: policy, policy: {data: {type: mask, priority: 5, selector: {user: {tags: [roles:id:user]}, column: {tags: [Pii.All]}}, mask: {operator: nullify}}}}
";
    let refused = apply(by_tag, &[]);
    let said = text(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("`no-email`") && said.contains("`by-tag`"), "{said}");
    assert_eq!(minerva.rows(Some(("analyst", &key)), sql), ["REDACTED"]);
}

#[test]
fn a_coordinator_applies_what_an_operator_sends() {
    let minerva = Minerva::start_in(shop(&[("policies.yaml", MASKED)]), 1);
    let key = minerva.key("analyst");
    let sql = "SELECT email FROM shop.none.people ORDER BY id LIMIT 1";
    let given = minerva.folder.path().join("given.yaml");
    let apply = |text: &str, more: &[&str]| {
        fs::write(&given, text).unwrap();
        let mut command = minerva.client(&["apply"]);
        command.arg("-f").arg(&given).args(more).output().unwrap()
    };
    let changed = format!(
        "{}---\n{{name: joe, version: v1, type: user, user: {{tags: [roles:id:user]}}}}\n",
        MASKED.replace("redact", "hash")
    );
    let dry = apply(&changed, &["--dry-run"]);
    let said = text(&dry);
    assert!(dry.status.success(), "{said}");
    for line in [
        "policy/no-email changed\nuser/joe created\n",
        "user `analyst`, `dataos://shop:none/people`:\n  column `email`:\n    - redact by `no-email`\n    + hash(algo: sha256) by `no-email`\n",
        "user `joe`, `dataos://shop:none/people`:\n  access:\n    - none: the user or the table is not there\n    + allowed\n",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    assert_eq!(minerva.rows(Some(("analyst", &key)), sql), ["REDACTED"]);
    let applied = apply(&changed, &[]);
    assert!(applied.status.success(), "{}", text(&applied));
    // It is in force when the command has ended.
    assert_eq!(minerva.rows(Some(("analyst", &key)), sql)[0].len(), 64);
    let policies = fs::read_to_string(minerva.resources().join("policies.yaml")).unwrap();
    assert!(
        policies.contains("operator: hash"),
        "it is changed where it stands: {policies}"
    );
    assert!(
        minerva.data().join("resources/given.yaml").exists(),
        "what is new lies in the data folder"
    );
    minerva.key("joe");

    for (manifest, expected) in [
        (MASKED.replace("redact", "redcat"), "unknown mask operator `redcat`"),
        (
            MASKED.replace("redact", "bucket_date, bucket_date: {precision: day}"),
            "`bucket_date` does not fit column `email`",
        ),
    ] {
        let refused = apply(&manifest, &[]);
        let said = text(&refused);
        assert!(
            refused.status.code() == Some(1) && said.contains(expected),
            "{expected}\n{said}"
        );
        assert!(said.ends_with("refused: nothing was changed\n"), "{said}");
    }
    assert_eq!(minerva.rows(Some(("analyst", &key)), sql)[0].len(), 64);
    let stranger = {
        let mut command = minerva.client(&["apply", "-u", "analyst"]);
        command
            .arg("-f")
            .arg(&given)
            .env("MINERVA_APIKEY", &key)
            .output()
            .unwrap()
    };
    let said = text(&stranger);
    assert!(
        !stranger.status.success() && said.contains("PERMISSION_DENIED"),
        "{said}"
    );
    let left: Vec<_> = fs::read_dir(minerva.data())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        !left.iter().any(|name| name.to_string_lossy().starts_with(".apply")),
        "{left:?}"
    );
}

#[test]
fn tests_stand_beside_policies_and_fail_with_the_reason() {
    let inside = MASKED.trim_end().strip_suffix("}}").unwrap().to_owned()
        + ", tests: [{as: analyst, table: shop.none.people, expect: {email: redact, id: visible, rows: all}}]}}\n";
    let folder = shop(&[("policies.yaml", &inside)]);
    let resources = folder.path().join("resources").display().to_string();
    let good = minerva(&["policy", "test", &resources]);
    assert!(good.status.success(), "{}", text(&good));
    assert!(text(&good).ends_with("3 as expected, 0 not\n"), "{}", text(&good));
    let more = "tests:\n- {as: analyst, table: shop.none.people, expect: {email: visible, rows: \"id > 1\"}}\n- {as: analyst, table: shop.none.gone, expect: {access: denied}}\n";
    fs::write(folder.path().join("resources/tests.yaml"), more).unwrap();
    let bad = minerva(&["policy", "test", &resources]);
    let said = text(&bad);
    assert_eq!(bad.status.code(), Some(1), "{said}");
    for line in [
        "column `email`: expected visible, got redact by `no-email`",
        "rows: expected id > 1, got all",
        "| column `email`: redact -- policy `no-email`",
        "`dataos://shop:none/gone` does not exist",
        "3 as expected, 3 not",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    fs::remove_file(folder.path().join("resources/tests.yaml")).unwrap();
    fs::write(folder.path().join("resources/policies.yaml"), MASKED).unwrap();
    let none = minerva(&["policy", "test", &resources]);
    assert!(
        none.status.code() == Some(1) && text(&none).contains("there is no test"),
        "{}",
        text(&none)
    );
}

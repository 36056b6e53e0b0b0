//! Governance over Flight SQL: nobody learns more than their policies allow, whatever they ask, on any kind of depot, on any number of
//! workers.
//!
//! The two scripts are the strong tests: `canary.py` looks at every byte that leaves the server, `twins.py` compares servers whose data
//! differ only in what the user must not know. The rest says in a few lines each what a person expects.

use std::{fs, process::Command};

use crate::{
    governed_data::{Governed, run, script},
    minerva::{Minerva, python},
    private_postgres::Postgres,
};

fn canaries(workers: usize, processes: usize) {
    let postgres = Postgres::start();
    let mut governed = Governed::start_with("a", workers, &postgres);
    for _ in 0..processes {
        governed.minerva.add_worker();
    }
    let mut command = script("canary.py");
    command.arg(governed.minerva.flight()).arg(governed.folder());
    for user in [governed.analyst(), governed.outsider(), governed.steward()] {
        command.arg(user.unwrap().1);
    }
    run(&mut command);
    let log = governed.log().to_lowercase();
    for canary in ["kanari", "7392700", "1787-", "a key that no plan may hold"] {
        let line = log.lines().find(|line| line.contains(canary));
        assert!(line.is_none(), "the log holds a canary: {}", line.unwrap_or_default());
    }
}

#[test]
fn no_canary_leaves_a_server_with_one_worker() {
    canaries(1, 0);
}

#[test]
fn no_canary_leaves_a_server_with_two_workers() {
    canaries(2, 0);
}

#[test]
fn no_canary_leaves_a_server_with_two_worker_processes() {
    canaries(0, 2);
}

/// The addresses of servers, each with the analyst's key.
fn as_analyst(command: &mut Command, servers: &[Governed]) {
    for governed in servers {
        command
            .arg(governed.minerva.flight())
            .arg(governed.analyst().unwrap().1);
    }
}

/// How many statements `make fuzz` asks for, and from which seed; without it those of the test.
fn by_chance() -> Vec<String> {
    let asked = |option: &str, name: &str| std::env::var(name).map(|value| [option.to_owned(), value]);
    let options = [
        asked("--statements", "MINERVA_FUZZ_STATEMENTS"),
        asked("--seed", "MINERVA_FUZZ_SEED"),
    ];
    options.into_iter().flatten().flatten().collect()
}

/// Compares twin `a` with another, on each kind of depot.
fn twins(other: &str, workers: usize, options: &[&str]) {
    let postgres = Postgres::start();
    let twins = ["a", other].map(|twin| Governed::start_with(twin, workers, &postgres));
    for depot in ["files", "lite", "pg", "mixed"] {
        let mut command = script("twins.py");
        command.args(["--depot", depot]).args(options);
        command.args(by_chance());
        // A key may begin with a hyphen.
        command.arg("--");
        as_analyst(&mut command, &twins);
        run(&mut command);
    }
}

#[test]
fn twins_cannot_be_told_apart_with_one_worker() {
    twins("b", 1, &["--seed", "1", "--statements", "250", "--no-plans"]);
}

#[test]
fn twins_cannot_be_told_apart_with_two_workers() {
    twins("b", 2, &["--seed", "2", "--statements", "250", "--no-plans"]);
}

/// PostgreSQL computes all that it can of the statements, with the governed tables behind fences.
#[test]
fn twins_cannot_be_told_apart_behind_fences() {
    let postgres = Postgres::start();
    let twins = ["a", "b"].map(|twin| Governed::start_with(twin, 1, &postgres));
    for depot in ["pg", "mixed"] {
        let mut command = script("twins.py");
        command.args(["--depot", depot, "--seed", "8", "--statements", "250", "--eager"]);
        command.args(by_chance()).arg("--");
        as_analyst(&mut command, &twins);
        run(&mut command);
    }
}

#[test]
fn twins_cannot_be_told_apart_without_push_down() {
    twins(
        "b",
        2,
        &["--seed", "7", "--statements", "150", "--no-pushdown", "--no-plans"],
    );
}

#[test]
fn twins_with_many_hidden_rows_answer_the_same() {
    twins("c", 2, &["--seed", "3", "--statements", "250", "--no-plans"]);
}

#[test]
fn twins_cannot_be_told_apart_over_the_command_line() {
    let twins = ["a", "b"].map(|twin| Governed::start(twin, 1));
    for depot in ["files", "lite"] {
        let mut command = script("twins_cli.py");
        command
            .arg(env!("CARGO_BIN_EXE_minerva"))
            .arg(twins[0].minerva.data())
            .args(["--depot", depot, "--seed", "4", "--statements", "60"]);
        command.arg("--");
        as_analyst(&mut command, &twins);
        run(&mut command);
    }
}

/// Statements that change rows are taken alike, count alike, and leave hidden rows as they were.
#[test]
fn changes_of_twins_cannot_be_told_apart_and_leave_hidden_rows() {
    let postgres = Postgres::start();
    let twins = ["a", "b"].map(|twin| Governed::start_with(twin, 1, &postgres));
    for depot in ["lite", "pg"] {
        let mut command = script("twins_writes.py");
        command.args(["--depot", depot, "--seed", "6", "--statements", "150"]);
        command.arg("--postgres").arg(postgres.port().to_string()).arg("--");
        for governed in &twins {
            command.arg(governed.folder());
        }
        as_analyst(&mut command, &twins);
        run(&mut command);
    }
}

/// Another system under the same policies, written in its own words.
#[test]
fn postgresql_answers_the_same_under_its_own_row_security() {
    let postgres = Postgres::start();
    let governed = Governed::start_with("a", 1, &postgres);
    let mut command = script("rls_oracle.py");
    command
        .args(["--seed", "5", "--statements", "400"])
        .args(by_chance())
        .arg("--");
    as_analyst(&mut command, std::slice::from_ref(&governed));
    command.arg(postgres.port().to_string());
    run(&mut command);
}

/// A divergence is told by the smallest statement that shows it.
#[test]
fn statements_are_made_smaller_while_they_show_the_same() {
    run(&mut script("shrink.py"));
}

#[test]
fn two_users_get_two_answers_and_a_third_gets_none() {
    let governed = Governed::start("a", 1);
    let minerva = &governed.minerva;
    for table in ["files.shop.people", "lite.main.people"] {
        let sql = format!(
            "SELECT name, nick, salary >= 700000000000000, born = date_trunc('year', born) FROM {table} WHERE id = 1"
        );
        let masked = minerva.rows(governed.analyst(), &sql).concat();
        assert!(
            masked.contains("**********") && masked.ends_with(".,true,true"),
            "{masked}"
        );
        let raw = minerva.rows(governed.steward(), &sql);
        assert!(
            raw.iter().all(|row| row.contains("kanari") && row.ends_with(",false")),
            "{raw:?}"
        );
        assert_eq!(
            minerva.rows(governed.analyst(), &format!("SELECT count(*) FROM {table}")),
            ["70"]
        );
        assert_eq!(
            minerva.rows(governed.steward(), &format!("SELECT count(*) FROM {table}")),
            ["110"]
        );
        let refused = minerva.error(governed.outsider(), &format!("SELECT count(*) FROM {table}"));
        assert!(refused.contains("CATALOG_NOT_FOUND"), "{refused}");
        // An operator may do everything, and is still under the policies that are about operators: here, none.
        assert_eq!(minerva.rows(None, &format!("SELECT count(*) FROM {table}")), ["110"]);
    }
    assert!(
        minerva
            .error(governed.analyst(), "SELECT * FROM files.shop.payroll")
            .contains("TABLE_NOT_FOUND")
    );
    assert_eq!(
        minerva.rows(governed.steward(), "SELECT count(*) FROM files.shop.payroll"),
        ["10"]
    );
}

#[test]
fn what_writes_or_names_a_file_is_refused() {
    let governed = Governed::start("a", 1);
    let file = governed.folder().join("sources/files/shop/people.csv");
    let file = file.display();
    for (sql, code) in [
        (
            "MERGE INTO files.shop.people p USING files.shop.notes n ON p.id = n.person_id WHEN MATCHED THEN DELETE"
                .to_owned(),
            "NOT_SUPPORTED",
        ),
        ("COPY files.shop.people TO 'people.parquet'".to_owned(), "NOT_SUPPORTED"),
        (
            format!("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '{file}'"),
            "NOT_SUPPORTED",
        ),
        (format!("SELECT * FROM '{file}'"), "MISSING_CATALOG_NAME"),
        (format!("SELECT * FROM \"{file}\""), "MISSING_CATALOG_NAME"),
    ] {
        // Not even an operator has another way to the data.
        for user in [governed.analyst(), governed.outsider(), None] {
            let error = governed.minerva.error(user, &sql);
            assert!(error.contains(code), "{sql}: {error}");
        }
    }
    for sql in [
        "DELETE FROM files.shop.people",
        "UPDATE files.shop.people SET city = 'x'",
    ] {
        for (user, code) in [
            (governed.analyst(), "PERMISSION_DENIED"),
            (governed.outsider(), "CATALOG_NOT_FOUND"),
            (None, "NOT_SUPPORTED"),
        ] {
            let error = governed.minerva.error(user, sql);
            assert!(error.contains(code), "{sql}: {error}");
        }
    }
    for function in [
        "read_csv",
        "read_parquet",
        "read_json",
        "parquet_metadata",
        "glob",
        "query",
    ] {
        for user in [governed.analyst(), None] {
            governed
                .minerva
                .error(user, &format!("SELECT * FROM {function}('{file}')"));
        }
    }
    assert!(
        governed
            .minerva
            .error(governed.analyst(), "INSERT INTO files.shop.notes VALUES ('a', 1, 'b')")
            .contains("PERMISSION_DENIED")
    );
}

#[test]
fn a_plan_ends_at_the_governed_scan() {
    let governed = Governed::start("a", 1);
    for table in [
        "files.shop.orders",
        "files.shop.people",
        "files.shop.events",
        "lite.main.people",
    ] {
        for explain in [
            "EXPLAIN",
            "EXPLAIN ANALYZE",
            "EXPLAIN (TYPE LOGICAL)",
            "EXPLAIN (FORMAT JSON)",
            "EXPLAIN (FORMAT GRAPHVIZ)",
        ] {
            let sql = format!("{explain} SELECT max(person_id) FROM {table} WHERE person_id > 10");
            let sql = if table.ends_with("people") {
                sql.replace("person_id", "id")
            } else {
                sql
            };
            let plan = governed.minerva.rows(governed.analyst(), &sql).join("\n");
            assert!(plan.contains("GovernedScan"), "{sql}\n{plan}");
            for below in [
                "DataSourceExec",
                "ScanExec",
                "TableScan",
                "PolicyBarrier",
                "minerva_mask",
                "kanari",
                ".csv",
                ".parquet",
                "file_groups",
                "pruned",
                "bytes_scanned",
            ] {
                assert!(!plan.contains(below), "{sql} shows `{below}`\n{plan}");
            }
        }
    }
    let all = governed
        .minerva
        .rows(None, "EXPLAIN SELECT * FROM files.shop.orders")
        .join("\n");
    assert!(
        all.contains("DataSourceExec") && all.contains("kanari-0.parquet"),
        "an operator sees everything\n{all}"
    );
}

#[test]
fn a_masked_column_in_an_order_neither_fails_nor_shows_the_plan() {
    let governed = Governed::start("a", 1);
    for place in ["files.shop", "lite.main"] {
        let sql = format!(
            "SELECT a.id FROM {place}.people a WHERE a.id = (SELECT max(s.rank) FROM {place}.regions s) ORDER BY a.id, a.secret"
        );
        let output = governed.minerva.run(governed.analyst(), &sql, "CSV");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            !errors.contains("PolicyBarrier") && !errors.contains("minerva_row_filter"),
            "{errors}"
        );
        assert_eq!(String::from_utf8_lossy(&output.stdout), "id\n5\n", "{errors}");
    }
}

const READERS: &str = "\
{name: analyst, version: v1, type: user, user: {tags: [roles:id:user, roles:id:analyst]}}
---
{name: readers, version: v1, type: policy, policy: {access: {subjects: {tags: [roles:id:user]}, predicates: [select], objects: {paths: ['dataos://shop:**']}, allow: true}}}
---
{name: shop, version: v2alpha, type: depot, depot: {type: FILE, file: {path: ../sources}}}
";

/// A server on one table `shop.none.people` with columns `id`, `email` and `region`, under these policies.
fn people_under(policies: &str) -> (Minerva, String) {
    let folder = tempfile::tempdir().unwrap();
    for inner in ["resources", "sources"] {
        fs::create_dir(folder.path().join(inner)).unwrap();
    }
    fs::write(
        folder.path().join("sources/people.csv"),
        "id,email,region\n1,a@example.test,EU\n2,b@example.test,US\n",
    )
    .unwrap();
    fs::write(folder.path().join("resources/readers.yaml"), READERS).unwrap();
    fs::write(folder.path().join("resources/policies.yaml"), policies).unwrap();
    let minerva = Minerva::start_in(folder, 1);
    let key = minerva.key("analyst");
    (minerva, key)
}

#[test]
fn masks_that_contradict_each_other_are_an_error_that_names_both() {
    // One selects the column by its name, the other by a tag of the whole table: only the table itself brings them together.
    let (minerva, key) = people_under(
        "\
{name: people, version: v1, type: dataset, dataset: {address: 'dataos://shop:none/people', tags: [Pii.All]}}
---
{name: by-name, version: v1, type: policy, policy: {data: {type: mask, priority: 50, selector: {user: {tags: [roles:id:analyst]}, column: {names: [email]}}, mask: {operator: nullify}}}}
---
{name: by-tag, version: v1, type: policy, policy: {data: {type: mask, priority: 50, selector: {user: {tags: [roles:id:analyst]}, column: {tags: [Pii.All]}}, mask: {operator: redact}}}}
",
    );
    for sql in [
        "SELECT * FROM shop.none.people",
        "SELECT id FROM shop.none.people",
        "SELECT count(*) FROM shop.none.people",
        "EXPLAIN SELECT 1 FROM shop.none.people",
    ] {
        let error = minerva.error(Some(("analyst", &key)), sql);
        assert!(
            error.contains("POLICY_ERROR") && error.contains("by-name") && error.contains("by-tag"),
            "{sql}: {error}"
        );
    }
    assert_eq!(
        minerva.rows(None, "SELECT email FROM shop.none.people ORDER BY id"),
        ["a@example.test", "b@example.test"]
    );
}

#[test]
fn a_policy_that_does_not_fit_closes_the_table() {
    for (name, policy) in [
        (
            "a-mask-for-numbers",
            "{type: mask, priority: 50, selector: {user: {tags: [roles:id:analyst]}, column: {names: [email]}}, mask: {operator: bucket_number, bucket_number: {buckets: [0]}}}",
        ),
        (
            "a-missing-column",
            "{type: filter, dataset_id: shop.none.people, selector: {user: {tags: [roles:id:analyst]}}, filters: [{column: country, value: EU}]}",
        ),
        (
            "a-value-that-does-not-fit",
            "{type: filter, dataset_id: shop.none.people, selector: {user: {tags: [roles:id:analyst]}}, filters: [{column: id, value: EU}]}",
        ),
        (
            "an-attribute-that-nobody-has",
            "{type: filter, dataset_id: shop.none.people, selector: {user: {tags: [roles:id:analyst]}}, filters: [{column: region, value: '${user.attributes.region}'}]}",
        ),
        (
            "an-expression-of-nothing",
            "{type: filter, dataset_id: shop.none.people, selector: {user: {tags: [roles:id:analyst]}}, filters: [{expression: 'no_such_column = 1'}]}",
        ),
    ] {
        let (minerva, key) = people_under(&format!(
            "{{name: {name}, version: v1, type: policy, policy: {{data: {policy}}}}}\n"
        ));
        for sql in [
            "SELECT * FROM shop.none.people",
            "SELECT id FROM shop.none.people LIMIT 0",
            "DESCRIBE shop.none.people",
        ] {
            let error = minerva.error(Some(("analyst", &key)), sql);
            assert!(
                error.contains("POLICY_ERROR") && error.contains(name),
                "{name}: {sql}: {error}"
            );
        }
        assert_eq!(
            minerva.rows(None, "SELECT count(*) FROM shop.none.people"),
            ["2"],
            "{name} is not about operators"
        );
    }
}

#[test]
fn an_error_in_a_mask_tells_no_value() {
    let (minerva, key) = people_under(
        "{name: failing, version: v1, type: policy, policy: {data: {type: mask, priority: 50, selector: {user: {tags: ['users:**']}, column: {names: [email]}}, \
         mask: {operator: expression, expression: {sql: \"CAST(CAST(value AS INT) AS VARCHAR)\"}}}}}\n",
    );
    for user in [Some(("analyst", key.as_str())), None] {
        assert_eq!(
            minerva.rows(user, "SELECT id FROM shop.none.people ORDER BY id"),
            ["1", "2"],
            "the column is not asked for"
        );
        let error = minerva.error(user, "SELECT email FROM shop.none.people");
        assert!(
            error.contains("POLICY_ERROR") && !error.contains("example.test"),
            "{error}"
        );
    }
    let (_, log) = minerva.server.leave();
    assert!(!log.contains("example.test"), "{log}");
}

#[test]
fn leakproof_predicates_still_prune_files() {
    let folder = tempfile::tempdir().unwrap();
    for inner in ["resources", "sources"] {
        fs::create_dir(folder.path().join(inner)).unwrap();
    }
    let file = folder.path().join("sources/numbers.parquet");
    let write = "import sys, pyarrow as pa, pyarrow.parquet as pq; n = 20000; \
                 pq.write_table(pa.table({'id': list(range(n)), 'kind': [i % 7 for i in range(n)], 'text': [f't{i}' for i in range(n)]}), sys.argv[1], row_group_size=1000)";
    run(python().args(["-c", write]).arg(&file));
    fs::write(
        folder.path().join("resources/all.yaml"),
        "\
{name: shop, version: v2alpha, type: depot, depot: {type: FILE, file: {path: ../sources}}}
---
{name: for-everybody, version: v1, type: policy, policy: {data: {type: filter, dataset_id: shop.none.numbers, selector: {user: {tags: ['users:**']}}, filters: [{column: kind, operator: not_equals, value: 3}]}}}
---
{name: no-text, version: v1, type: policy, policy: {data: {type: mask, priority: 50, selector: {user: {tags: ['users:**']}, column: {names: [text]}}, mask: {operator: redact}}}}
",
    )
    .unwrap();
    let minerva = Minerva::start_in(folder, 1);
    // Row group 4 of 20 holds the ids from 4000.
    let groups = |predicate: &str| {
        let plan = minerva
            .rows(
                None,
                &format!("EXPLAIN ANALYZE SELECT id, text FROM shop.none.numbers WHERE {predicate}"),
            )
            .join("\n");
        assert!(plan.contains("PolicyBarrierExec"), "{plan}");
        let pruned = plan
            .split("row_groups_pruned_statistics=")
            .nth(1)
            .unwrap_or_else(|| panic!("no row groups in the plan\n{plan}"));
        pruned.split([',', ']']).next().unwrap().to_owned()
    };
    let one = groups("id = 4321");
    assert!(one.contains("20 total") && one.contains("1 matched"), "{one}");
    let some = groups("id BETWEEN 4000 AND 5999 AND text <> 'x'");
    assert!(some.contains("2 matched"), "{some}");
    // What may fail, or looks at a masked column, stays above the barrier.
    let all = groups("1000000 / (id + 1) = 231");
    assert!(all.contains("20 matched"), "{all}");
    let masked = groups("text = 't4321'");
    assert!(masked.contains("20 matched"), "{masked}");
    // 4322 is of the hidden kind and 4321 is not.
    assert_eq!(
        minerva.rows(None, "SELECT id, text FROM shop.none.numbers WHERE id = 4321"),
        ["4321,REDACTED"]
    );
    assert_eq!(
        minerva.rows(
            None,
            "SELECT count(*) FROM shop.none.numbers WHERE id = 4322 AND kind = 3"
        ),
        ["0"]
    );
    assert!(
        minerva
            .rows(None, "SELECT id FROM shop.none.numbers WHERE text = 't4321'")
            .is_empty()
    );
}

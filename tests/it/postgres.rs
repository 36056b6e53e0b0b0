//! PostgreSQL as a source of the whole program: a private server, loaded with TPC-H, read in one process and on workers, and governed.
//!
//! What the connector does by itself is tested beside it; here are the ways through the coordinator, the wire and the policies.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{minerva::Minerva, private_postgres::Postgres, tpch, tpch_data};

const SCALE: f64 = 0.1;
/// The tables that go into the database in the mixed set-up; `lineitem` is among them, so that a large one travels too.
const HALF: [&str; 4] = ["lineitem", "part", "customer", "nation"];

fn lake(folder: &Path) -> String {
    format!(
        "name: lake\nversion: v2alpha\ntype: depot\ndepot: {{type: FILE, file: {{path: {}/lake, format: PARQUET}}}}\n",
        folder.display()
    )
}

/// An analyst, who may select from every table of depot `pg`.
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
  access: {subjects: {tags: [[roles:id:analyst]]}, predicates: [select], objects: {paths: ['dataos://pg:public/*']}, allow: true}
";

#[test]
fn tpch_agrees_with_all_and_with_half_of_the_tables_in_postgresql() {
    let folder = tempfile::tempdir().unwrap();
    tpch_data::write_parquet(&folder.path().join("lake/tpch"), SCALE);
    let expected = tpch::oracle(&folder.path().join("lake/tpch"));
    let postgres = Postgres::start();
    for table in tpch_data::TABLES {
        let (create, rows) = tpch_data::as_csv(table, SCALE);
        postgres.execute(&create, b"");
        postgres.execute(&format!("COPY {table} FROM STDIN (FORMAT csv)"), rows.as_bytes());
    }
    let (database, files) = (postgres.manifest(), lake(folder.path()));
    let generated =
        format!("name: gen\nversion: v2alpha\ntype: depot\ndepot: {{type: TPCH, tpch: {{scale: {SCALE}}}}}\n");
    let manifests = [
        ("pg.yaml", database.as_str()),
        ("lake.yaml", files.as_str()),
        ("gen.yaml", generated.as_str()),
    ];
    let everything = |table: &str| format!("pg.public.{table}");
    let half = |table: &str| match HALF.contains(&table) {
        true => format!("pg.public.{table}"),
        false => format!("lake.tpch.{table}"),
    };
    let apart = tpch::agree(&manifests, &[("all", &everything), ("half", &half)], &expected);
    // Beside a table that is worth several tasks it is read on a worker, which opens the depot by its name; nothing shows the password.
    let sql = |place: &str| {
        format!(
            "SELECT o_orderpriority, count(*), sum(l_quantity) FROM gen.tpch.lineitem JOIN {place} ON l_orderkey = o_orderkey GROUP BY 1 ORDER BY 1"
        )
    };
    let spread = sql("pg.public.orders");
    assert_eq!(apart.rows(None, &spread), apart.rows(None, &sql("gen.tpch.orders")));
    let plan = apart.rows(None, &format!("EXPLAIN {spread}"));
    let stage = plan.iter().position(|line| line.contains("Stage 1")).expect("stages");
    let scan = plan
        .iter()
        .position(|line| line.contains("dataos://pg:public/orders"))
        .expect("the scan");
    assert!(stage < scan, "{}", plan.join("\n"));
    let text = plan.join("\n") + &apart.rows(None, "SELECT * FROM system.runtime.queries").join("\n");
    assert!(!text.contains("5up3r"), "{text}");
}

#[test]
fn masks_and_filters_are_in_force_on_postgresql() {
    let postgres = Postgres::start();
    postgres.execute(
        "CREATE TABLE people (id int PRIMARY KEY, name text, city text, born date, pay numeric(9, 2)); \
         INSERT INTO people VALUES (1, 'Ada', 'Basel', '1990-01-02', 10.50), (2, 'Bo', 'Bern', '1980-03-04', 20), \
         (3, 'Canary-7731', 'Zug', '1970-05-06', 999), (4, NULL, 'Basel', NULL, NULL)",
        b"",
    );
    let policies = "\
name: cities
version: v1
type: policy
policy:
  data:
    type: filter
    priority: 10
    dataset_id: pg.public.people
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
    depot: pg
    selector: {user: {match: any, tags: [roles:id:analyst]}, column: {names: [name]}}
    mask: {operator: redact}
";
    for workers in [1, 2] {
        let minerva = Minerva::start(
            &[
                ("pg.yaml", &postgres.manifest()),
                ("jane.yaml", JANE),
                ("policies.yaml", policies),
            ],
            workers,
        );
        let key = minerva.key("jane");
        let jane = Some(("jane", key.as_str()));
        let all = "SELECT id, name, pay FROM pg.public.people ORDER BY id";
        assert_eq!(minerva.rows(jane, all), ["1,REDACTED,10.50", "2,REDACTED,20.00", "4,,"]);
        assert_eq!(minerva.rows(None, all).len(), 4, "an operator sees all");
        for sql in [
            "SELECT count(*) FROM pg.public.people WHERE name = 'Canary-7731'",
            "SELECT count(*) FROM pg.public.people WHERE city = 'Zug'",
            "SELECT count(*) FROM pg.public.people WHERE id = 3 AND 1 / (pay - 999) > 0",
            "SELECT count(*) FROM pg.public.people WHERE pay > 900",
        ] {
            assert_eq!(minerva.rows(jane, sql), ["0"], "{sql}");
        }
        // What may fail is computed on visible rows only: no error tells of the hidden one.
        assert_eq!(
            minerva.rows(jane, "SELECT count(1 / (pay - 999)) FROM pg.public.people"),
            ["2"]
        );
        let plan = minerva
            .rows(jane, "EXPLAIN SELECT name FROM pg.public.people WHERE id < 3")
            .join("\n");
        assert!(plan.contains("GovernedScan") && !plan.contains("Zug"), "{plan}");
        let plan = minerva
            .rows(None, "EXPLAIN SELECT name FROM pg.public.people WHERE id < 3")
            .join("\n");
        assert!(plan.contains("id < 3") || plan.contains("id@0 < 3"), "{plan}");
    }
}

/// EXPLAIN says what stayed here although its depot computes, and why; what is estimated of the data is for operators.
#[test]
fn explain_says_what_stayed_here_and_why() {
    let postgres = Postgres::start();
    postgres.execute(
        "CREATE TABLE few AS SELECT i AS id, 'n' || i AS name FROM generate_series(1, 100) i; \
         CREATE TABLE many AS SELECT i AS id, i % 100 AS few_id, i / 7.0::float8 AS x FROM generate_series(1, 50000) i; ANALYZE",
        b"",
    );
    let minerva = Minerva::start(&[("pg.yaml", &postgres.manifest()), ("jane.yaml", JANE)], 1);
    let key = minerva.key("jane");
    let explained = |who, sql: &str| minerva.rows(who, &format!("EXPLAIN {sql}")).join("\n");
    for (sql, reasons) in [
        (
            "SELECT sum(x) FROM pg.public.many",
            &[
                "stays here, since depot `pg` does not compute `sum(",
                "x)` as it is computed here",
            ][..],
        ),
        (
            "SELECT id FROM pg.public.few WHERE reverse(name) = '1'",
            &[
                "Filter: reverse(",
                "stays here, since depot `pg` does not compute `reverse(",
            ],
        ),
        (
            "SELECT count(*) FROM pg.public.few f FULL JOIN pg.public.many m ON f.id = m.x",
            &["Full Join: ", "since depot `pg` does not compute `"],
        ),
        (
            "SELECT id, ntile(3) OVER (ORDER BY id) FROM pg.public.few",
            &["WindowAggr: ", "since depot `pg` does not compute `ntile("],
        ),
        (
            "SELECT f.name, m.id FROM pg.public.few f CROSS JOIN pg.public.many m",
            &["Cross Join", "since no columns of its sides are equal"],
        ),
        (
            "SELECT f.name, m.* FROM pg.public.few f JOIN pg.public.many m ON f.id = m.few_id",
            &["Inner Join: ", "cheaper than in depot `pg`"],
        ),
    ] {
        let plan = explained(None, sql);
        assert!(
            plan.contains("about 50000 rows from ") || !sql.contains("many"),
            "{sql}: {plan}"
        );
        let theirs = explained(Some(("jane", key.as_str())), sql);
        for reason in reasons {
            assert!(plan.contains(reason), "{sql}: {plan}");
            assert!(theirs.contains(reason), "{sql}: {theirs}");
        }
        for figure in ["about ", "ms there", "ms here"] {
            assert!(!theirs.contains(figure), "{sql}: {theirs}");
        }
    }
    let all = explained(None, "SELECT count(*) FROM pg.public.many WHERE few_id = 3");
    assert!(
        all.contains("about 1 rows from depot pg: SELECT") && !all.contains("stays here"),
        "{all}"
    );
    let json = explained(None, "(FORMAT JSON) SELECT sum(x) FROM pg.public.many");
    let (_, notes) = json.split_once("pushdown").unwrap_or_else(|| panic!("{json}"));
    assert!(
        notes.contains("about 50000 rows from") && notes.contains("stays here"),
        "{json}"
    );
}

/// What only the conditions of a statement read is not sent.
#[test]
fn statements_send_no_columns_that_only_their_conditions_read() {
    let postgres = Postgres::start();
    postgres.execute(
        "CREATE TABLE wide AS SELECT i AS id, 'n' || i AS name, i % 9 AS digit, CASE WHEN i % 3 = 0 THEN 'x' ELSE 'y' END || repeat('z', 300) AS filler \
             FROM generate_series(1, 3000) i; ANALYZE wide",
        b"",
    );
    let minerva = Minerva::start(&[("pg.yaml", &postgres.manifest())], 1);
    for (what, sent) in [
        ("id, reverse(name) FROM TABLE WHERE filler LIKE 'x%'", 2),
        ("id, filler, reverse(name) FROM TABLE WHERE filler LIKE 'x%'", 3),
        ("random() < 2 FROM TABLE WHERE filler LIKE 'x%' AND digit = 1", 1),
        (
            "reverse(name) FROM TABLE WHERE filler LIKE 'x%' AND reverse(name) <> '1n'",
            1,
        ),
        (
            "reverse(name) FROM TABLE WHERE filler LIKE 'x%' AND reverse(digit::text) <> '1' ORDER BY id * 10 + digit LIMIT 7",
            3,
        ),
        (
            "n, reverse(digit::text) FROM (SELECT digit, count(*) AS n, max(id) AS id FROM TABLE GROUP BY digit HAVING max(id) > 1)",
            2,
        ),
    ] {
        let sql = format!("SELECT {}", what.replace("TABLE", "pg.public.wide"));
        let plan = minerva.rows(None, &format!("EXPLAIN {sql}")).join("\n");
        let (_, statement) = plan
            .split_once(" from depot pg: SELECT ")
            .unwrap_or_else(|| panic!("{plan}"));
        let (columns, _) = statement.split_once(" FROM ").unwrap_or_else(|| panic!("{plan}"));
        assert_eq!(columns.matches(" AS c").count(), sent, "{sql}: {plan}");
        let sorted = |sql: &str| {
            let mut rows = minerva.rows(None, sql);
            rows.sort();
            rows
        };
        assert_eq!(
            sorted(&sql),
            sorted(&format!("SET SESSION pg.pushdown = false; {sql}")),
            "{sql}"
        );
    }
}

/// Where hidden rows lie changes no plan: what the database knows of the values of a governed table is not used.
#[test]
fn hidden_rows_change_no_plan() {
    let postgres = Postgres::start();
    let table = |name: &str, hidden: &str| {
        format!(
            "CREATE TABLE {name} AS SELECT i AS id, CASE WHEN i % 2 = 0 THEN {hidden} ELSE i END AS pay, i % 2 = 0 AS secret, repeat('x', 300) AS filler \
                 FROM generate_series(1, 120000) i; \
             CREATE INDEX ON {name} (pay);"
        )
    };
    postgres.execute(
        &format!("{} {} ANALYZE", table("low", "1"), table("high", "900000")),
        b"",
    );
    let policies = "\
name: shown
version: v1
type: policy
policy:
  data:
    type: filter
    priority: 10
    depot: pg
    selector: {user: {match: any, tags: [roles:id:analyst]}}
    filters: [{column: secret, operator: equals, value: false}]
";
    let minerva = Minerva::start(
        &[
            ("pg.yaml", &postgres.manifest()),
            ("jane.yaml", JANE),
            ("policies.yaml", policies),
        ],
        1,
    );
    let key = minerva.key("jane");
    let plan = |who, table: &str, sql: &str| {
        let rows = minerva.rows(who, &format!("EXPLAIN {}", sql.replace("TABLE", table)));
        rows.join("\n").replace(table, "TABLE")
    };
    let mut differ = 0;
    for sql in [
        "SELECT count(*) FROM pg.public.TABLE WHERE pay > 500000",
        "SELECT count(*) FROM pg.public.TABLE WHERE pay = 1",
        "SELECT count(*) FROM pg.public.TABLE WHERE pay BETWEEN 2 AND 100",
        "SELECT count(*) FROM pg.public.TABLE a JOIN pg.public.TABLE b ON a.id = b.id WHERE a.pay > 500000 AND b.pay < 60000",
        "SELECT a.filler FROM pg.public.TABLE a JOIN pg.public.TABLE b ON a.id = b.id WHERE a.pay = 1 AND b.pay > 110000",
    ] {
        let jane = Some(("jane", key.as_str()));
        assert_eq!(plan(jane, "low", sql), plan(jane, "high", sql), "{sql}");
        differ += usize::from(plan(None, "low", sql) != plan(None, "high", sql));
    }
    assert!(
        differ > 0,
        "whoever sees all rows is planned for by what is known of them"
    );
}

/// Worker processes read ranges of one table, and all of them see what it was at one moment, although somebody moves amounts all the time.
#[test]
fn worker_processes_see_one_moment_of_a_large_table() {
    let postgres = Postgres::start();
    let rows = 400_000;
    postgres.execute(
        &format!(
            "CREATE TABLE moved AS SELECT i AS id, (i % 1000)::int8 AS amount, repeat('x', 200) AS filler FROM generate_series(1, {rows}) i;
             ALTER TABLE moved ADD PRIMARY KEY (id); ANALYZE moved"
        ),
        b"",
    );
    // Remainders are computed here, so that rows are read and not sums.
    let sums = "SELECT count(*), count(DISTINCT id), sum(amount), sum(id % 3)";
    let sql = &format!("{sums} FROM pg.public.moved");
    let expected = postgres.ask(&format!("{sums} FROM moved"))[0].replace('|', ",");
    let mut mover = postgres.session(&format!(
        "DO $$ BEGIN LOOP
             FOR i IN 1..1000 LOOP
                 UPDATE moved SET amount = amount - 5 WHERE id = i; UPDATE moved SET amount = amount + 5 WHERE id = {rows} - i; COMMIT;
             END LOOP;
         END LOOP; END $$"
    ));
    let manifest = postgres.manifest();
    let mut apart = Minerva::start(&[("pg.yaml", &manifest)], 0);
    apart.add_worker();
    apart.add_worker();
    let plan = apart.rows(None, &format!("EXPLAIN {sql}")).join("\n");
    assert!(plan.contains("Stage 1"), "{plan}");
    for _ in 0..5 {
        assert_eq!(apart.rows(None, sql).last(), Some(&expected));
    }
    assert!(mover.try_wait().unwrap().is_none(), "rows moved meanwhile");
    mover.kill().unwrap();
    mover.wait().unwrap();
    // Nothing of it stays open.
    let kept = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'minerva' AND state LIKE 'idle in transaction%'";
    let begun = std::time::Instant::now();
    while postgres.ask(kept) != ["0"] {
        assert!(begun.elapsed().as_secs() < 20, "a snapshot is kept after its query");
    }
}

/// The mean of whole numbers is PostgreSQL's own to the last bit, whoever computes it.
#[test]
fn means_of_whole_numbers_are_postgresqls_own() {
    let postgres = Postgres::start();
    postgres.execute(
        "CREATE TABLE wide AS SELECT i AS id, i % 900 AS g, ('x' || substr(md5(i::text), 1, 16))::bit(64)::int8 >> (i % 50) AS x, 9007199254740993 - i % 7 AS beyond,
             (i % 30000)::int2 AS few, repeat('x', 200) AS filler FROM generate_series(1, 400000) i;
         INSERT INTO wide VALUES (-1, -1, 9007199254740993, 9223372036854775807), (-2, -1, 1, 9223372036854775807), (-3, -2, NULL, -9223372036854775808), (-4, -3, -9223372036854775808, NULL);
         ALTER TABLE wide ADD PRIMARY KEY (id); ANALYZE wide",
        b"",
    );
    let bits = |lines: Vec<String>, between: char| -> Vec<Vec<Option<u64>>> {
        let value = |value: &str| (!value.is_empty()).then(|| value.parse::<f64>().unwrap().to_bits());
        let lines = lines.iter().map(|line| line.split(between).map(value).collect());
        lines.collect()
    };
    let ours = |distinct: &str, x: &str, rest: &str| format!("avg({distinct}{x}){rest}");
    let own = |distinct: &str, x: &str, rest: &str| {
        format!("(sum({distinct}{x}){rest})::float8 / count({distinct}{x}){rest}")
    };
    type Mean<'a> = &'a dyn Fn(&str, &str, &str) -> String;
    type Statement<'a> = &'a dyn Fn(Mean<'_>, &str) -> String;
    let statements: [Statement<'_>; 4] = [
        &|mean, wide| {
            format!(
                "SELECT {}, {}, {} FROM {wide}",
                mean("", "x", ""),
                mean("", "beyond", ""),
                mean("", "few", "")
            )
        },
        &|mean, wide| {
            format!(
                "SELECT g, {}, {}, {} FROM {wide} GROUP BY g ORDER BY g",
                mean("", "x", ""),
                mean("", "beyond", " FILTER (WHERE id < 300000)"),
                mean("", "few", "")
            )
        },
        &|mean, wide| {
            format!(
                "SELECT g % 10, {}, {} FROM {wide} GROUP BY g % 10 ORDER BY g % 10",
                mean("DISTINCT ", "x", ""),
                mean("DISTINCT ", "beyond", "")
            )
        },
        &|mean, wide| {
            let over = " OVER (ORDER BY id ROWS BETWEEN 3 PRECEDING AND 1 FOLLOWING)";
            format!(
                "SELECT id, {} FROM {wide} WHERE id < 2000 ORDER BY id",
                mean("", "x", over)
            )
        },
    ];
    let manifest = postgres.manifest();
    let here = Minerva::start(&[("pg.yaml", &manifest)], 1);
    let mut apart = Minerva::start(&[("pg.yaml", &manifest)], 0);
    apart.add_worker();
    apart.add_worker();
    let off = "SET SESSION pg.pushdown = false";
    for statement in statements {
        let expected = bits(postgres.ask(&statement(&own, "wide")), '|');
        let sql = statement(&ours, "pg.public.wide");
        for (place, minerva) in [("one process", &here), ("two workers", &apart)] {
            for text in [
                sql.clone(),
                format!("SET SESSION pg.join_pushdown_strategy = 'EAGER'; {sql}"),
                format!("{off}; {sql}"),
            ] {
                let found = bits(minerva.rows(None, &text), ',');
                assert!(found == expected, "{place}: {text}");
            }
        }
    }
    let grouped = statements[1](&ours, "pg.public.wide");
    let plan = here.rows(None, &format!("EXPLAIN {grouped}")).join("\n");
    assert!(plan.contains("pg_catalog.sum(t."), "{plan}");
    let plan = apart.rows(None, &format!("{off}; EXPLAIN {grouped}")).join("\n");
    assert!(plan.contains("Stage 1") && plan.contains("Partial"), "{plan}");
}

/// Joins that run on workers tell the database their keys, also where the workers have not read the table before: no more rows are fetched than the join needs.
#[test]
fn joins_on_workers_tell_the_database_their_keys() {
    let folder = tempfile::tempdir().unwrap();
    let picked: String = (0..40)
        .map(|number| format!("{},kind {}\n", number * 97, number % 4))
        .collect();
    std::fs::create_dir_all(folder.path().join("lake/chosen/picked")).unwrap();
    std::fs::write(
        folder.path().join("lake/chosen/picked/part.csv"),
        "customer,kind\n".to_owned() + &picked,
    )
    .unwrap();
    let postgres = Postgres::start();
    postgres.execute(
        "CREATE TABLE sales AS SELECT i AS id, (i * 79) % 4000 AS customer, repeat('x', 200) AS filler FROM generate_series(1, 400000) i;
         ALTER TABLE sales ADD PRIMARY KEY (id); ANALYZE sales",
        b"",
    );
    postgres.execute("ALTER SYSTEM SET log_statement = 'all'", b"");
    postgres.execute("SELECT pg_reload_conf()", b"");
    let files = lake(folder.path()).replace("PARQUET", "CSV");
    let mut apart = Minerva::start(&[("pg.yaml", &postgres.manifest()), ("lake.yaml", &files)], 0);
    apart.add_worker();
    apart.add_worker();
    let sql = "SELECT kind, count(*), sum(s.id % 7) FROM pg.public.sales s JOIN lake.chosen.picked p ON s.customer = p.customer WHERE kind <> 'kind 3' GROUP BY kind ORDER BY kind";
    let plan = apart.rows(None, &format!("EXPLAIN {sql}")).join("\n");
    let (_, stages) = plan.split_once("Stage 1").unwrap_or_else(|| panic!("{plan}"));
    assert!(stages.contains("dynamic filters=1"), "{plan}");
    let before = postgres.log().len();
    let answer = apart.rows(None, sql);
    let log = postgres.log();
    let asked: Vec<&str> = (log.get(before..).unwrap().lines())
        .filter(|line| line.contains("COPY (") && line.contains("sales"))
        .collect();
    assert!(asked.len() >= 2, "{asked:?}");
    for line in &asked {
        assert!(
            line.replace("tableoid OPERATOR(pg_catalog.=) ANY", "")
                .contains(" ANY ('{"),
            "{line}\n{asked:#?}\n{plan}"
        );
    }
    assert_eq!(
        answer,
        apart.rows(None, &format!("SET SESSION pg.pushdown = false; {sql}")),
        "{sql}"
    );
}

/// A statement is planned while its tables are asked about, and again where they have changed: neither its rows nor its errors are those of before.
#[test]
fn tables_that_change_are_seen_by_the_next_statement() {
    let postgres = Postgres::start();
    postgres.execute(
        "CREATE TABLE one AS SELECT i AS id, 'n' || i AS name FROM generate_series(1, 3) i; CREATE TABLE two AS SELECT i AS id, i * 10 AS n FROM generate_series(1, 3) i; \
         GRANT SELECT ON one, two TO PUBLIC; ANALYZE one; ANALYZE two",
        b"",
    );
    let minerva = Minerva::start(&[("pg.yaml", &postgres.manifest())], 1);
    let joined = "SELECT * FROM pg.public.one JOIN pg.public.two ON one.id = two.id WHERE one.id = 2";
    let rows = |sql: &str| minerva.rows(None, sql);
    for _ in 0..2 {
        assert_eq!(rows(joined), ["2,n2,2,20"]);
    }
    postgres.execute("ALTER TABLE two ADD more text DEFAULT 'x'", b"");
    assert_eq!(rows(joined), ["2,n2,2,20,x"]);
    postgres.execute("ALTER TABLE one RENAME name TO title; ALTER TABLE two DROP more", b"");
    assert_eq!(
        rows("SELECT title, n FROM pg.public.one JOIN pg.public.two ON one.id = two.id WHERE one.id = 3"),
        ["n3,30"]
    );
    let error = minerva.error(None, "SELECT name FROM pg.public.one");
    assert!(error.contains("COLUMN_NOT_FOUND"), "{error}");
    postgres.execute("ALTER TABLE two ALTER n TYPE text USING n || '!'", b"");
    assert_eq!(rows("SELECT max(n || '?') FROM pg.public.two"), ["30!?"]);
    postgres.execute(
        "DROP TABLE one; CREATE VIEW one AS SELECT n FROM two; GRANT SELECT ON one TO PUBLIC",
        b"",
    );
    assert_eq!(rows("SELECT * FROM pg.public.one ORDER BY 1"), ["10!", "20!", "30!"]);
    postgres.execute("DROP VIEW one", b"");
    let error = minerva.error(None, joined);
    assert!(error.contains("TABLE_NOT_FOUND"), "{error}");
    postgres.execute(
        "CREATE TABLE one (id int, name text); INSERT INTO one VALUES (2, 'again'); GRANT SELECT ON one TO PUBLIC",
        b"",
    );
    assert_eq!(rows(joined), ["2,again,2,20!"]);
}

/// Keys are told as a list where the table has many rows for each of them, else as a range.
#[test]
fn a_join_tells_many_keys_as_a_list_and_more_as_their_range() {
    let folder = tempfile::tempdir().unwrap();
    for (count, step) in [(20_000, 3), (60_000, 3), (30_000, 1)] {
        let place = folder.path().join(format!("lake/chosen/keys{count}"));
        std::fs::create_dir_all(&place).unwrap();
        let keys: String = (0..count).map(|number| format!("{}\n", 100 + number * step)).collect();
        std::fs::write(place.join("part.csv"), "id\n".to_owned() + &keys).unwrap();
    }
    let postgres = Postgres::start();
    postgres.execute(
        "CREATE TABLE few AS SELECT i AS id FROM generate_series(1, 400000) i; ANALYZE few; \
         CREATE TABLE many AS SELECT i AS id FROM generate_series(1, 600000) i; ANALYZE many",
        b"",
    );
    postgres.execute("ALTER SYSTEM SET log_statement = 'all'", b"");
    postgres.execute("SELECT pg_reload_conf()", b"");
    let files = lake(folder.path()).replace("PARQUET", "CSV");
    let minerva = Minerva::start(&[("pg.yaml", &postgres.manifest()), ("lake.yaml", &files)], 1);
    // A list of every number between two says what their range says.
    for (table, count, step, is_listed) in [
        ("few", 20_000, 3, true),
        ("few", 60_000, 3, false),
        ("many", 60_000, 3, true),
        ("many", 30_000, 1, false),
    ] {
        let sql = format!(
            "SELECT count(*), sum(s.id % 7) FROM pg.public.{table} s JOIN lake.chosen.keys{count} k ON s.id = k.id"
        );
        let before = postgres.log().len();
        let answer = minerva.rows(None, &sql);
        let log = postgres.log();
        let asked: Vec<&str> = (log.get(before..).unwrap().lines())
            .filter(|line| line.contains("COPY (") && line.contains(table))
            .collect();
        assert!(!asked.is_empty(), "{answer:?}");
        for line in asked {
            let begun: String = line.chars().take(700).collect();
            assert_eq!(line.contains(" ANY ('{100,103,"), is_listed, "{begun}");
            assert!(line.contains(">=) '100'::") && line.contains("<=) '"), "{begun}");
        }
        let sum = postgres.ask(&format!(
            "SELECT count(*), sum(id % 7) FROM {table} WHERE id >= 100 AND id < 100 + {step} * {count} AND (id - 100) % {step} = 0"
        ));
        assert_eq!(answer.last(), Some(&sum[0].replace('|', ",")), "{count}");
    }
}

/// Who writes waits for no connection that its own readers have.
#[test]
fn rows_go_from_table_to_table_over_the_fewest_connections() {
    let postgres = Postgres::start();
    postgres.execute(
        "CREATE TABLE large AS SELECT i AS id, repeat('x', 200) AS filler FROM generate_series(1, 200000) i; ANALYZE large; CREATE TABLE copied (LIKE large)",
        b"",
    );
    for connections in [2, 3, 7] {
        let manifest = postgres
            .manifest()
            .replace("type: POSTGRESQL\n", "type: POSTGRESQL\n  acl: rw\n")
            .replace("host: ", &format!("maxConnections: {connections}, host: "));
        let minerva = Minerva::start(&[("pg.yaml", &manifest)], 2);
        minerva.rows(
            None,
            "INSERT INTO pg.public.copied SELECT id, filler FROM pg.public.large",
        );
        minerva.rows(None, "UPDATE pg.public.copied SET filler = 'y' WHERE id <= 1000");
        minerva.rows(
            None,
            "DELETE FROM pg.public.copied WHERE id IN (SELECT id FROM pg.public.large WHERE id > 1000)",
        );
        minerva.rows(
            None,
            "CREATE TABLE pg.public.made AS SELECT l.id FROM pg.public.large l JOIN pg.public.copied c ON l.id = c.id",
        );
        assert_eq!(postgres.ask("SELECT count(*), min(filler) FROM copied"), ["1000|y"]);
        assert_eq!(postgres.ask("SELECT count(*) FROM made"), ["1000"]);
        postgres.execute("TRUNCATE copied; DROP TABLE made", b"");
    }
}

/// Statements of several clients that write what they read, over so few connections that all use the same ones.
#[test]
fn who_waits_to_write_keeps_no_connection_from_who_writes() {
    let postgres = Postgres::start();
    postgres.execute(
        "CREATE TABLE large AS SELECT i AS id, repeat('x', 200) AS filler FROM generate_series(1, 50000) i; ANALYZE large; CREATE TABLE copied (LIKE large);
         CREATE TABLE changed AS SELECT i AS id, 0 AS n FROM generate_series(1, 1000) i",
        b"",
    );
    let minerva = |connections: usize| {
        let manifest = postgres
            .manifest()
            .replace("type: POSTGRESQL\n", "type: POSTGRESQL\n  acl: rw\n")
            .replace("host: ", &format!("maxConnections: {connections}, host: "));
        Minerva::start(&[("pg.yaml", &manifest)], 0)
    };
    const COPY: &str = "INSERT INTO pg.public.copied SELECT id, filler FROM pg.public.large";
    for connections in [2, 3] {
        let minerva = minerva(connections);
        let begun = Instant::now();
        thread::scope(|scope| {
            for sql in [COPY, COPY, "UPDATE pg.public.changed SET n = n + 1 WHERE id <= 500"] {
                let minerva = &minerva;
                scope.spawn(move || {
                    for _ in 0..4 {
                        minerva.rows(None, sql);
                    }
                });
            }
        });
        assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
        let asked = "SELECT (SELECT count(*) FROM copied), (SELECT sum(n) FROM changed)";
        assert_eq!(postgres.ask(asked), ["400000|2000"]);
        postgres.execute("TRUNCATE copied; UPDATE changed SET n = 0", b"");
    }
    // Over one connection nothing is read while something is written: that is said at once.
    let minerva = minerva(1);
    let begun = Instant::now();
    for sql in [
        COPY,
        "CREATE TABLE pg.public.made AS SELECT id FROM pg.public.large",
        "UPDATE pg.public.changed SET n = 1 WHERE id <= 500",
        "DELETE FROM pg.public.changed WHERE id <= 500",
    ] {
        let output = minerva.run(None, sql, "CSV");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success()
                && error.contains("`maxConnections` is 1")
                && error.contains("set it to 2 or more"),
            "{sql}: {error}"
        );
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    minerva.rows(None, "INSERT INTO pg.public.copied VALUES (1, 'one')");
    assert_eq!(postgres.ask("SELECT count(*) FROM copied"), ["1"]);
}

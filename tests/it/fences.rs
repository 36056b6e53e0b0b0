//! Governed tables inside statements of PostgreSQL: what a user asks for stands outside of the fence that holds their policy, and answers as a view would whose
//! text somebody wrote by hand.
//!
//! `canary.py` and `twins.py` look at the same from outside; `rls_oracle.py` counts the fences, too.

use std::sync::LazyLock;

use crate::{minerva::Minerva, private_postgres::Postgres};

/// Jane may select from every table of depot `pg`.
const USERS: &str = "\
name: jane
version: v1
type: user
user: {tags: [roles:id:analyst]}
---
name: readers
version: v1
type: policy
policy:
  access: {subjects: {tags: ['users:id:**']}, predicates: [select], objects: {paths: ['dataos://pg:public/*', 'dataos://other:public/places']}, allow: true}
";

fn mask(column: &str, mask: &str) -> String {
    format!(
        "---
name: mask-{column}
version: v1
type: policy
policy:
  data:
    type: mask
    priority: 10
    depot: pg
    dataset: people
    selector: {{user: {{tags: ['users:id:**']}}, column: {{names: [{column}]}}}}
    mask: {mask}
"
    )
}

/// Everybody, operators too, sees rows of Europe that are no secret, and masks.
fn policies() -> String {
    let filter = |dataset: &str, filters: &str| {
        format!(
            "
name: shown-{dataset}
version: v1
type: policy
policy:
  data:
    type: filter
    priority: 10
    depot: pg
    dataset: {dataset}
    selector: {{user: {{tags: ['users:id:**']}}}}
    filters: {filters}
"
        )
    };
    [
        filter(
            "people",
            "[{column: region, operator: in, value: [EU, CH]}, {column: secret, operator: equals, value: false}]",
        ),
        "---".to_owned() + &filter("visits", "[{column: place, operator: like, value: 'open%'}]"),
        mask("name", "{operator: redact}"),
        mask(
            "card",
            "{operator: partial, partial: {keep_first: 1, keep_last: 4, with: '*'}}",
        ),
        mask("mail", "{operator: hash, hash: {keyed: false}}"),
        mask(
            "pay",
            "{operator: bucket_number, bucket_number: {buckets: [0, 1000, 5000]}}",
        ),
        mask("born", "{operator: constant, constant: {value: '2000-01-01'}}"),
        mask("note", "{operator: nullify}"),
        mask(
            "town",
            "{operator: regex_replace, regex_replace: {pattern: '[aeiou]', replacement: '.'}}",
        ),
    ]
    .concat()
}

/// Two tables of which some rows are hidden, one that is open, and what policies leave of the first two as open views.
const TABLES: &str = "
CREATE TABLE people AS SELECT i AS id, 'name ' || i % 7 AS name, lpad((i * 7919)::text, 8 + i % 3, '0') AS card, 'm' || i % 50 || '@x' AS mail, (i * 31 % 9000)::bigint AS pay,
    DATE '1970-01-01' + i AS born, 'note ' || i AS note, 'town ' || i % 9 AS town, (ARRAY['EU', 'US', 'CH', NULL])[1 + i % 4] AS region, i % 5 = 0 AS secret, i % 100 AS points,
    CASE WHEN i % 5 = 0 OR i % 4 = 1 THEN 2000000000 ELSE i END AS large
  FROM generate_series(1, 2000) i;
CREATE TABLE visits AS SELECT i AS id, 1 + i * 13 % 2000 AS person, CASE WHEN i % 3 = 0 THEN 'closed ' ELSE 'open ' END || i % 4 AS place, (i % 90)::numeric(8, 2) AS fee FROM generate_series(1, 6000) i;
CREATE TABLE places AS SELECT 'open ' || i AS place, i AS rank FROM generate_series(0, 3) i;
CREATE VIEW people_seen AS SELECT id, CASE WHEN name IS NOT NULL THEN 'REDACTED' END AS name,
    CASE WHEN length(card) <= 5 THEN repeat('*', length(card)) ELSE left(card, 1) || repeat('*', length(card) - 5) || right(card, 4) END AS card,
    encode(sha256(convert_to(mail, 'UTF8')), 'hex') AS mail, (CASE WHEN pay >= 5000 THEN 5000 WHEN pay >= 1000 THEN 1000 WHEN pay >= 0 THEN 0 END)::bigint AS pay,
    CASE WHEN born IS NOT NULL THEN DATE '2000-01-01' END AS born, NULL::text AS note, regexp_replace(town, '[aeiou]', '.', 'g') AS town, region, secret, points, large
  FROM people WHERE region IN ('EU', 'CH') AND secret = false;
CREATE VIEW visits_seen AS SELECT * FROM visits WHERE place LIKE 'open%';
ANALYZE";

/// Has the depot do all that it can.
const EAGER: &str = "SET SESSION pg.join_pushdown_strategy = 'EAGER'";

/// Has the depot do what is cheaper there, and nothing.
const AUTOMATIC: &str = "SET SESSION pg.join_pushdown_strategy = 'AUTOMATIC'";
const OFF: &str = "SET SESSION pg.pushdown = false";

struct World {
    postgres: Postgres,
    minerva: Minerva,
    jane: String,
}

impl World {
    fn start(workers: usize) -> Self {
        let postgres = Postgres::start();
        postgres.execute(TABLES, b"");
        let minerva = Minerva::start(
            &[
                ("pg.yaml", &postgres.manifest()),
                ("other.yaml", &postgres.manifest().replace("name: pg", "name: other")),
                ("users.yaml", USERS),
                ("policies.yaml", &policies()),
            ],
            workers,
        );
        let jane = minerva.key("jane");
        Self {
            postgres,
            minerva,
            jane,
        }
    }

    fn jane(&self) -> Option<(&str, &str)> {
        Some(("jane", &self.jane))
    }

    fn explained(&self, sql: &str) -> String {
        self.minerva
            .rows(self.jane(), &format!("{EAGER}; EXPLAIN {sql}"))
            .join("\n")
    }
}

/// Statements, and how many of their tables are behind a fence. `PEOPLE` and `VISITS` are the tables, or the views that show the same.
static STATEMENTS: LazyLock<Vec<(&str, usize)>> = LazyLock::new(|| {
    vec![
        ("SELECT count(*) FROM PEOPLE", 1),
        (
            "SELECT count(*), count(name), count(note), count(DISTINCT mail), min(born), max(card) FROM PEOPLE",
            1,
        ),
        (
            "SELECT pay, count(*), sum(points) FROM PEOPLE GROUP BY pay ORDER BY pay",
            1,
        ),
        (
            "SELECT name, region, count(*) FROM PEOPLE WHERE card LIKE '%2' GROUP BY name, region ORDER BY region",
            1,
        ),
        (
            "SELECT substr(card, 1, 2) AS c, count(*) FROM PEOPLE WHERE points > 20 GROUP BY 1 HAVING count(*) > 3 ORDER BY 1",
            1,
        ),
        ("SELECT id, card FROM PEOPLE ORDER BY card DESC, id LIMIT 7", 1),
        ("SELECT DISTINCT pay, name FROM PEOPLE ORDER BY 1", 1),
        ("SELECT count(*) FROM PEOPLE WHERE name = 'name 3'", 1),
        (
            "SELECT count(*) FROM PEOPLE WHERE pay > 900 AND born = DATE '2000-01-01' AND note IS NULL",
            1,
        ),
        // Overflows on hidden rows only.
        ("SELECT sum(large * large) FROM PEOPLE", 1),
        ("SELECT count(*) FROM PEOPLE WHERE large * large > 100", 1),
        (
            "SELECT region, count(*), sum(fee) FROM PEOPLE p JOIN VISITS v ON v.person = p.id GROUP BY region ORDER BY region",
            2,
        ),
        (
            "SELECT rank, count(*) FROM VISITS v JOIN pg.public.places o ON o.place = v.place GROUP BY rank ORDER BY rank",
            1,
        ),
        (
            "SELECT count(*) FROM PEOPLE p WHERE EXISTS (SELECT 1 FROM VISITS v WHERE v.person = p.id AND v.fee > 80)",
            2,
        ),
        (
            "SELECT count(*) FROM PEOPLE a JOIN PEOPLE b ON a.id = b.points AND a.pay = b.pay",
            2,
        ),
        (
            "SELECT place, sum(fee), avg(fee) FROM VISITS GROUP BY place ORDER BY place",
            1,
        ),
        (
            "SELECT count(*) FROM (SELECT id FROM PEOPLE UNION ALL SELECT person FROM VISITS) u",
            2,
        ),
        (
            "SELECT count(*) FROM VISITS LEFT JOIN PEOPLE p ON p.id = person WHERE p.id IS NULL",
            2,
        ),
        // A mask that the source does not compute stays here, and so does its barrier.
        ("SELECT town, count(*) FROM PEOPLE GROUP BY town ORDER BY town", 0),
        ("SELECT count(*) FROM PEOPLE WHERE 10 / (points + 1) > 2", 0),
    ]
});

fn asked(sql: &str, people: &str, visits: &str) -> String {
    sql.replace("PEOPLE", &format!("pg.public.{people}"))
        .replace("VISITS", &format!("pg.public.{visits}"))
}

/// The answers, and how many fences were pushed.
#[test]
fn fences_answer_as_views_written_by_hand() {
    let world = World::start(1);
    let (mut fences, mut differ) = (0, Vec::new());
    for (sql, expected) in STATEMENTS.iter() {
        let governed = asked(sql, "people", "visits");
        let plan = world.explained(&governed);
        let found = plan.matches("=[dataos://pg:public/").count();
        fences += found;
        if found != *expected {
            differ.push(format!("{sql}: {found} fences, not {expected}\n{plan}"));
        }
        let by_hand = world
            .minerva
            .rows(world.jane(), &asked(sql, "people_seen", "visits_seen"));
        assert!(!by_hand.is_empty(), "{sql}");
        for before in [EAGER, AUTOMATIC, OFF] {
            let answer = world.minerva.rows(world.jane(), &format!("{before}; {governed}"));
            assert_eq!(answer, by_hand, "{before}; {sql}\n{plan}");
        }
        // A plan that jane sees says nothing of her policies.
        for hidden in [
            "EU",
            "secret",
            "open%",
            "REDACTED",
            "2000-01-01",
            "MATERIALIZED",
            "sha256",
            "repeat(",
        ] {
            let is_own = governed.contains(hidden);
            assert!(is_own || !plan.contains(hidden), "{hidden} in {plan}");
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    assert!(fences > 15, "{fences} fences");
}

/// What the user computes is computed by PostgreSQL over what has left the fence, and nowhere else.
#[test]
fn postgresql_moves_nothing_of_a_user_into_a_fence() {
    let world = World::start(1);
    // An operator is under the policies as well, and sees the whole statement.
    let sql = "SELECT region, count(*) FROM pg.public.people WHERE large * large > 100 AND name = 'x' AND points < 50 GROUP BY region";
    let plan = world
        .minerva
        .rows(None, &format!("{EAGER}; EXPLAIN {sql}"))
        .join("\n")
        .replace("\"\"", "\"");
    assert!(plan.contains("PolicyFenceExec: dataos://pg:public/people"), "{plan}");
    let statement = plan
        .lines()
        .find_map(|line| line.split_once("ScanExec: depot=pg, sql="));
    let (_, statement) = statement.unwrap_or_else(|| panic!("{plan}"));
    let statement = statement.trim_end_matches('"');
    assert!(statement.starts_with("WITH f0 AS MATERIALIZED (SELECT "), "{statement}");
    let (inside, outside) = statement.split_once(") SELECT ").unwrap();
    for part in ["REDACTED", "'EU'", "\"secret\""] {
        assert!(inside.contains(part), "{part}: {inside}");
    }
    assert!(
        !inside.contains('*') && !inside.contains("'x'") && outside.contains("OPERATOR(pg_catalog.*)"),
        "{statement}"
    );
    assert!(!outside.contains("people"), "{statement}");
    // What a policy lets through may go inside: it cannot fail.
    assert!(
        inside.contains("\"points\" OPERATOR(pg_catalog.<)") && !outside.contains("'50'"),
        "{statement}"
    );
    let there = world
        .postgres
        .ask(&format!("EXPLAIN (VERBOSE, COSTS OFF) {statement}"))
        .join("\n");
    // The fence's plan stands under `CTE f0`; what reads it follows.
    let (above, fence) = there.split_once("CTE f0").unwrap_or_else(|| panic!("{there}"));
    let (fence, scan) = fence.split_once("CTE Scan on f0").unwrap_or_else(|| panic!("{there}"));
    let outside = format!("{above}{scan}");
    assert!(
        outside.contains(" * ") && outside.contains("'x'") && !outside.contains("'EU"),
        "{there}"
    );
    assert!(
        fence.contains("secret") && !fence.contains(" * ") && !fence.contains("'x'"),
        "{there}"
    );
}

/// An expression that fails on visible rows says so, and says nothing more; one that fails on hidden rows only does not fail.
#[test]
fn errors_of_statements_with_fences_tell_no_value() {
    let world = World::start(1);
    let fails = |table: &str| format!("SELECT sum(points * 9000000000000000000) FROM pg.public.{table}");
    let plan = world.explained(&fails("people"));
    assert!(plan.contains("GovernedStatement"), "{plan}");
    let error = |sql: &str| {
        let error = world.minerva.error(world.jane(), &format!("{EAGER}; {sql}"));
        error.lines().next().unwrap().to_owned()
    };
    let (governed, open) = (error(&fails("people")), error(&fails("people_seen")));
    assert_eq!(governed, open.replace("people_seen", "people"));
    assert!(
        governed.contains("NUMERIC_VALUE_OUT_OF_RANGE") && !governed.contains("9000000000000000000"),
        "{governed}"
    );
    // What fails for another reason is told in a fixed text: here a function fails below the barrier, and says a value.
    world.postgres.execute(
        "CREATE FUNCTION fails(int) RETURNS int LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'the canary is %', $1; END $$;
         ALTER TABLE visits RENAME TO visits_raw;
         CREATE VIEW visits AS SELECT fails(id) AS id, person, place, fee FROM visits_raw",
        b"",
    );
    let sql = "SELECT max(id) FROM pg.public.visits";
    // What a view computes may fail by what hidden rows hold: it has no fence.
    let plan = world.explained(sql);
    assert!(!plan.contains("GovernedStatement"), "{plan}");
    let failed = error(sql);
    assert!(
        failed.contains("could not be read under its policies") && !failed.contains("canary"),
        "{failed}"
    );
}

/// Keys that a join with another depot tells go into a fence where the policy lets them through: over columns whose raw values are shown.
#[test]
fn keys_of_joins_go_into_a_fence_as_far_as_the_policy_lets_them() {
    let world = World::start(1);
    world.postgres.execute("ALTER SYSTEM SET log_statement = 'all'", b"");
    world.postgres.execute("SELECT pg_reload_conf()", b"");
    let sql = "SELECT count(*), sum(p.points) FROM other.public.places o JOIN PEOPLE p ON KEY WHERE substr(p.card, 1, 2) <> 'x'";
    for (key, column, is_inside) in [("p.id = o.rank", "id", true), ("p.name = o.place", "name", false)] {
        let sql = sql.replace("KEY", key);
        let asked = |people: &str| asked(&sql, people, "visits");
        let plan = world.explained(&asked("people"));
        assert!(plan.contains("GovernedStatement"), "{plan}");
        let by_hand = world.minerva.rows(world.jane(), &asked("people_seen"));
        let before = world.postgres.log().len();
        let answer = world
            .minerva
            .rows(world.jane(), &format!("{EAGER}; {}", asked("people")));
        assert_eq!(answer, by_hand, "{sql}");
        let log = world.postgres.log();
        let log = log.get(before..).unwrap();
        let statement = log.lines().find(|line| line.contains("COPY (WITH f0 AS MATERIALIZED"));
        let statement = statement.unwrap_or_else(|| panic!("{log}"));
        let (inside, outside) = statement.split_once(") SELECT ").unwrap();
        let told = format!("t.\"{column}\" OPERATOR(pg_catalog.=) ANY");
        assert_eq!(inside.contains(&told), is_inside, "{statement}");
        assert_eq!(outside.contains(") AS n WHERE "), !is_inside, "{statement}");
    }
}

/// With workers the statement travels with its fences, and is verified where it runs.
#[test]
fn fences_travel_to_workers_and_can_be_left_out() {
    let mut world = World::start(0);
    world.minerva.add_worker();
    world.minerva.add_worker();
    for (sql, _) in STATEMENTS.iter().step_by(3) {
        let by_hand = world
            .minerva
            .rows(world.jane(), &asked(sql, "people_seen", "visits_seen"));
        for before in [EAGER, OFF] {
            let answer = world
                .minerva
                .rows(world.jane(), &format!("{before}; {}", asked(sql, "people", "visits")));
            assert_eq!(answer, by_hand, "{before}; {sql}");
        }
    }
    // A large open table brings stages, one of which has the fence.
    world.postgres.execute(
        "CREATE TABLE many AS SELECT i AS id, i % 2000 AS person, repeat('x', 200) AS filler FROM generate_series(1, 400000) i; ALTER TABLE many ADD PRIMARY KEY (id); ANALYZE many",
        b"",
    );
    let sql = "SELECT region, count(*), count(DISTINCT m.id % 7) FROM pg.public.many m JOIN (SELECT id, region, max(card) AS card FROM PEOPLE GROUP BY id, region) p ON p.id = m.id % 2000 \
               GROUP BY region ORDER BY region";
    let plan = world.explained(&asked(sql, "people", "visits"));
    let (_, stages) = plan.split_once("Stage 1 ──").unwrap_or_else(|| panic!("{plan}"));
    assert!(stages.contains("GovernedStatement"), "{plan}");
    let answer = |people: &str| {
        world
            .minerva
            .rows(world.jane(), &format!("{EAGER}; {}", asked(sql, people, "visits")))
    };
    assert_eq!(answer("people"), answer("people_seen"), "{plan}");
}

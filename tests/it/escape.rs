//! Statements that a source does not come to an end with: a private PostgreSQL whose statistics lie, so that it compares every row with every other.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use crate::{minerva::Minerva, private_postgres::Postgres};

/// How long an answer may take that would take minutes there, and what is cancelled to end there. Both take a second at most, unless the machine is busy.
const LONGEST: Duration = Duration::from_secs(60);
const ENDED_WITHIN: Duration = Duration::from_secs(20);

const JOINED: &str =
    "SELECT count(*), sum(a.v + b.v), max(a.t) FROM pg.public.left_side a JOIN pg.public.right_side b ON a.id = b.id";
const ANSWER: &str = "100000,150000,n99999";

/// The statements of the depot that run now.
const ACTIVE: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'minerva' AND state <> 'idle'";

fn lying() -> Postgres {
    let postgres = Postgres::start();
    postgres.execute(
        "CREATE TABLE left_side WITH (autovacuum_enabled = off) AS SELECT i AS id, 1 AS v, 'n' || i AS t FROM generate_series(1, 100000) i;
         CREATE TABLE right_side WITH (autovacuum_enabled = off) AS SELECT i AS id, (i % 2)::int AS v FROM generate_series(1, 100000) i;
         ANALYZE left_side; ANALYZE right_side;
         UPDATE pg_class SET reltuples = 10 WHERE relname IN ('left_side', 'right_side');
         ALTER ROLE reader SET max_parallel_workers_per_gather = 0",
        b"",
    );
    postgres
}

fn is_still(postgres: &Postgres) {
    let begun = Instant::now();
    while postgres.ask(ACTIVE) != ["0"] {
        assert!(begun.elapsed() < ENDED_WITHIN, "something goes on in the source");
    }
}

#[test]
fn a_statement_that_takes_too_long_is_answered_here() {
    let postgres = lying();
    let mut minerva = Minerva::start(&[("pg.yaml", &postgres.manifest())], 0);
    let explain = |minerva: &Minerva, sql: &str| minerva.rows(None, &format!("EXPLAIN {sql}")).join("\n");
    let plan = explain(&minerva, JOINED);
    assert!(
        plan.contains("EscapeExec: computed here when") && plan.contains(" JOIN "),
        "{plan}"
    );
    let begun = Instant::now();
    assert_eq!(minerva.rows(None, JOINED), [ANSWER]);
    assert!(begun.elapsed() < LONGEST, "{:?}", begun.elapsed());
    is_still(&postgres);
    let ran = minerva.rows(None, &format!("EXPLAIN ANALYZE {JOINED}")).join("\n");
    assert!(
        ran.contains("EscapeExec: answered here")
            && ran.contains("HashJoinExec")
            && ran.contains("dataos://pg:public/left_side"),
        "{ran}"
    );
    // Rows of which the plan above wants the first only, and texts of another type than the statement's.
    let first = "SELECT a.id, a.t FROM pg.public.left_side a JOIN pg.public.right_side b ON a.id = b.id WHERE a.id > b.v + 99997 ORDER BY a.id LIMIT 2";
    assert_eq!(minerva.rows(None, first), ["99998,n99998", "99999,n99999"]);
    // What a client leaves ends, before it is answered here and while it is.
    for pause in [Duration::from_millis(500), Duration::from_millis(2300)] {
        let mut client = minerva
            .client(&["sql", "-e", JOINED])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let running = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'minerva' AND state = 'active' AND query LIKE '%JOIN%'";
        while postgres.ask(running) == ["0"] {
            assert!(client.try_wait().unwrap().is_none(), "it has ended");
        }
        std::thread::sleep(pause);
        client.kill().unwrap();
        client.wait().unwrap();
        is_still(&postgres);
    }
    // A quick one is answered by its statement, but where the machine is too busy for that.
    let quick = "SELECT count(*) FROM pg.public.left_side a JOIN pg.public.right_side b ON a.id = b.id WHERE a.id < 3 AND b.id < 3";
    let is_quick = (0..20).any(|_| {
        let ran = minerva.rows(None, &format!("EXPLAIN ANALYZE {quick}")).join("\n");
        ran.contains("EscapeExec: answered by the statement") && !ran.contains("HashJoinExec")
    });
    assert!(is_quick);
    // Who asks for everything to be done there is not contradicted.
    let eager = "SET SESSION pg.join_pushdown_strategy = 'EAGER'";
    let plan = minerva.rows(None, &format!("{eager}; EXPLAIN {JOINED}")).join("\n");
    assert!(plan.contains(" JOIN ") && !plan.contains("EscapeExec"), "{plan}");
    minerva.add_worker();
    minerva.add_worker();
    assert!(!explain(&minerva, JOINED).contains("EscapeExec"));
}

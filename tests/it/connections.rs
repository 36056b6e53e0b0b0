//! How many connections to a depot the whole cluster has: a coordinator and two worker processes over a private PostgreSQL that counts them all the time.

use std::{
    fs,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use crate::{minerva::Minerva, private_postgres::Postgres};

const GENERATED: &str = "name: gen\nversion: v2alpha\ntype: depot\ndepot: {type: TPCH, tpch: {scale: 0.1}}\n";

/// Statements of every kind of work: ranges of a large table, a table beside what workers read, two of them, the catalogue, a key.
const STATEMENTS: [&str; 5] = [
    "SELECT count(*), count(DISTINCT id), sum(id % 3) FROM pg.public.large",
    "SELECT count(*), sum(l_linenumber) FROM gen.tpch.lineitem JOIN pg.public.small ON l_orderkey = id",
    "SELECT count(*) FROM gen.tpch.lineitem JOIN pg.public.small s ON l_orderkey = s.id JOIN pg.public.parts p ON l_partkey = p.part",
    "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public' AND table_name IN ('large', 'small', 'parts')",
    "SELECT id, name FROM pg.public.small WHERE id = 17",
];

fn filled() -> Postgres {
    let postgres = Postgres::start();
    postgres.execute(
        "CREATE TABLE large AS SELECT i AS id, repeat('x', 200) AS filler FROM generate_series(1, 200000) i;
         CREATE TABLE small AS SELECT i AS id, 'n' || i AS name FROM generate_series(1, 1000) i;
         CREATE TABLE parts AS SELECT i AS part FROM generate_series(1, 500) i;
         CREATE TABLE counted (connections int8); ANALYZE large; ANALYZE small; ANALYZE parts",
        b"",
    );
    postgres
}

/// Counts the depot's connections every few milliseconds.
fn counting(postgres: &Postgres) -> Child {
    postgres.session(
        "DO $$ BEGIN LOOP
             INSERT INTO counted SELECT count(*) FROM pg_stat_activity WHERE application_name = 'minerva'; COMMIT; PERFORM pg_sleep(0.002); COMMIT;
         END LOOP; END $$",
    )
}

fn counted(postgres: &Postgres, mut counter: Child) -> i64 {
    assert!(counter.try_wait().unwrap().is_none(), "it counted to the end");
    counter.kill().unwrap();
    counter.wait().unwrap();
    let most = postgres.ask("SELECT max(connections) FROM counted")[0].parse().unwrap();
    postgres.execute("TRUNCATE counted", b"");
    most
}

fn cluster(postgres: &Postgres, connections: usize) -> (Minerva, Vec<Vec<String>>) {
    let manifest = postgres
        .manifest()
        .replace("type: POSTGRESQL\n", "type: POSTGRESQL\n  acl: rw\n")
        .replace("host: ", &format!("maxConnections: {connections}, host: "));
    let mut minerva = Minerva::start(&[("pg.yaml", &manifest), ("gen.yaml", GENERATED)], 0);
    let expected = STATEMENTS.iter().map(|sql| minerva.rows(None, sql)).collect();
    minerva.add_worker();
    minerva.add_worker();
    (minerva, expected)
}

/// Runs statements of many clients for a while; those that a lost worker ends are counted.
fn load(minerva: &Minerva, expected: &[Vec<String>], rounds: usize) -> usize {
    let client = |first: usize| {
        let mut lost = 0;
        for round in 0..rounds {
            let at = (first + round) % STATEMENTS.len();
            let output = minerva.run(None, STATEMENTS[at], "CSV");
            let error = String::from_utf8_lossy(&output.stderr);
            if !output.status.success() {
                assert!(error.contains("WORKER_LOST"), "{}\n{error}", STATEMENTS[at]);
                lost += 1;
                continue;
            }
            let rows: Vec<String> = String::from_utf8(output.stdout)
                .unwrap()
                .lines()
                .skip(1)
                .map(str::to_owned)
                .collect();
            assert_eq!(rows, expected[at], "{}", STATEMENTS[at]);
        }
        lost
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..6).map(|first| scope.spawn(move || client(first))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    })
}

#[test]
fn all_processes_together_have_no_more_connections_than_the_depot_may() {
    let postgres = filled();
    for connections in [1, 2, 4, 8] {
        let counter = counting(&postgres);
        let (minerva, expected) = cluster(&postgres, connections);
        assert_eq!(load(&minerva, &expected, 3), 0, "no worker is lost");
        let most = counted(&postgres, counter);
        assert!(
            (1..=connections as i64).contains(&most),
            "{most} connections where {connections} are allowed"
        );
        let plan = minerva.rows(None, &format!("EXPLAIN {}", STATEMENTS[1])).join("\n");
        assert!(
            plan.contains("Stage 1") && plan.contains("dataos://pg:public/small"),
            "{plan}"
        );
    }
}

/// What a killed worker had is lent to the others when it is surely closed, and nothing else waits for it.
#[test]
fn a_killed_worker_keeps_no_connections_from_the_others() {
    let postgres = filled();
    let counter = counting(&postgres);
    let (mut minerva, expected) = cluster(&postgres, 4);
    load(&minerva, &expected, 1);
    let begun = Instant::now();
    let killed = minerva.workers[0].id().to_string();
    thread::scope(|scope| {
        let loading = scope.spawn(|| load(&minerva, &expected, 4));
        // In the middle of what it does.
        while postgres
            .ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'minerva' AND state = 'active'")
            == ["0"]
        {}
        assert!(Command::new("kill").args(["-9", &killed]).status().unwrap().success());
        loading.join().unwrap();
    });
    minerva.workers[1].kill();
    load(&minerva, &expected, 1);
    assert!(begun.elapsed() < Duration::from_secs(300), "{:?}", begun.elapsed());
    minerva.add_worker();
    let active = "SELECT count(*) FROM system.runtime.nodes WHERE NOT coordinator AND state = 'active'";
    while minerva.rows(None, active) != ["1"] {}
    assert_eq!(load(&minerva, &expected, 1), 0);
    assert!(counted(&postgres, counter) <= 4);
}

/// How many connections a process has to a server on this machine.
fn connections(process: u32, port: u16) -> usize {
    let files = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let files: Vec<_> = files
        .filter_map(|file| fs::read_link(file.unwrap().path()).ok())
        .map(|file| file.to_string_lossy().into_owned())
        .collect();
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
    let is_its = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[2].ends_with(&format!(":{port:04X}")) && files.contains(&format!("socket:[{}]", fields[9]))
    };
    sockets.lines().skip(1).filter(is_its).count()
}

/// A worker whose coordinator is away closes its connections by itself.
#[test]
fn a_worker_without_a_coordinator_closes_its_connections() {
    let postgres = filled();
    let (mut minerva, _) = cluster(&postgres, 8);
    let workers: Vec<u32> = minerva.workers.iter().map(|worker| worker.id()).collect();
    let has_some = || workers.iter().any(|worker| connections(*worker, postgres.port()) > 0);
    let begun = Instant::now();
    while !has_some() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no worker reads the depot");
        minerva.rows(None, STATEMENTS[1]);
    }
    minerva.server.kill();
    assert!(has_some(), "they are kept for longer than a moment");
    // One that nobody uses would be kept for a minute.
    let begun = Instant::now();
    while has_some() {
        assert!(begun.elapsed() < Duration::from_secs(40), "a connection stays open");
        thread::sleep(Duration::from_millis(100));
    }
}

/// What a worker had that stops in good order is lent to others at once, and not only when it is surely lost.
#[test]
fn a_worker_that_stops_leaves_its_connections_to_others_at_once() {
    let postgres = filled();
    let (mut minerva, expected) = cluster(&postgres, 2);
    let begun = Instant::now();
    let has_some = |minerva: &Minerva| {
        let mut workers = minerva.workers.iter();
        workers.any(|worker| connections(worker.id(), postgres.port()) > 0)
    };
    while !has_some(&minerva) {
        assert!(begun.elapsed() < Duration::from_secs(60), "no worker reads the depot");
        minerva.rows(None, STATEMENTS[1]);
    }
    for worker in minerva.workers.drain(..) {
        let (in_order, errors) = worker.leave();
        assert!(in_order, "{errors}");
    }
    let begun = Instant::now();
    assert_eq!(minerva.rows(None, STATEMENTS[4]), expected[4]);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

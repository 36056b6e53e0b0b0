//! Depots that are slow, dead or gone: each alone fails, is known to, and is found again; and listings that do not ask each time.

use std::{
    net::TcpListener,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    minerva::{Minerva, python},
    private_postgres::Postgres,
};

/// Far more than what answers at once needs, and far less than any timeout.
const AT_ONCE: Duration = Duration::from_secs(4);

fn postgres_at(name: &str, host: &str, port: u16, lines: &str) -> String {
    format!(
        "name: {name}\nversion: v2alpha\ntype: depot\ndepot:\n  type: POSTGRESQL\n{lines}  postgresql: {{host: {host}, port: {port}, database: postgres, \
         params: {{sslmode: disable}}}}\n  secrets: [{{name: {name}-r}}]\n---\nname: {name}-r\nversion: v1\ntype: instance-secret\n\
         instance-secret:\n  data: {{username: reader, password: c4n4ry-word}}\n---\n"
    )
}

fn lake(folder: &Path) -> String {
    std::fs::create_dir_all(folder.join("lake/shop")).unwrap();
    std::fs::write(folder.join("lake/shop/city.csv"), "id,name\n1,Basel\n").unwrap();
    let path = folder.join("lake");
    format!(
        "name: lake\nversion: v2alpha\ntype: depot\ndepot: {{type: FILE, file: {{path: {}}}}}\n---\n",
        path.display()
    )
}

/// The state of a depot, as a user sees it.
fn state(minerva: &Minerva, user: Option<(&str, &str)>, depot: &str) -> String {
    let sql = format!("SELECT state FROM system.metadata.depots WHERE depot = '{depot}'");
    minerva.rows(user, &sql).join("\n")
}

/// What a driver lists over all catalogs, and how long that takes, without the start of the driver.
fn listed_tables(minerva: &Minerva) -> (Vec<String>, Duration) {
    let key = std::fs::read_to_string(minerva.data().join("admin-key")).unwrap();
    let (host, port) = minerva.flight().rsplit_once(':').unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/list_tables.py");
    let output = python()
        .args([script, host, port, "admin", key.trim()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let (seconds, tables) = said.split_once('\n').unwrap();
    let took = Duration::from_secs_f64(seconds.parse().unwrap());
    (tables.lines().map(str::to_owned).collect(), took)
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Runs something that must not wait for what is slow.
fn at_once<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = run();
    assert!(begun.elapsed() < AT_ONCE, "{what} took {:?}", begun.elapsed());
    done
}

#[test]
fn a_database_that_stops_is_unreachable_and_ready_again_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut postgres = Postgres::start();
    postgres.execute("CREATE TABLE t AS SELECT 7 AS id", b"");
    let manifests = postgres.manifest() + "---\n" + &lake(folder.path());
    let minerva = Minerva::start(&[("all.yaml", &manifests)], 1);
    let sql = "SELECT id FROM pg.public.t";
    assert_eq!(state(&minerva, None, "pg"), "Unknown");
    assert_eq!(minerva.rows(None, sql), ["7"]);
    assert_eq!(state(&minerva, None, "pg"), "Ready");
    let listing = "SELECT table_name FROM pg.information_schema.tables WHERE table_schema = 'public'";
    assert_eq!(minerva.rows(None, listing), ["t"]);

    postgres.stop();
    let mut errors = Vec::new();
    wait_for("the depot is left alone", || {
        errors.push(minerva.error(None, sql));
        errors.last().is_some_and(|error| error.contains(" since "))
    });
    for error in &errors {
        assert!(error.contains("DEPOT_UNREACHABLE"), "{error}");
    }
    let last = errors.last().unwrap();
    assert!(
        last.contains("cannot be reached") && last.contains("tried again"),
        "{last}"
    );
    assert_eq!(state(&minerva, None, "pg"), "Unreachable");
    let sql_of_state =
        "SELECT failures >= 3, reason FROM system.metadata.depots WHERE depot = 'pg' AND since <= last_checked";
    let row = minerva.rows(None, sql_of_state).join("");
    assert!(row.starts_with("true,") && !row.contains("5up3r"), "{row}");
    // What was listed before is still shown, and the others do not notice.
    assert_eq!(minerva.rows(None, listing), ["t"]);
    assert_eq!(minerva.rows(None, "SELECT name FROM lake.shop.city"), ["Basel"]);

    postgres.start_again();
    wait_for("the depot is found again", || state(&minerva, None, "pg") == "Ready");
    assert_eq!(minerva.rows(None, sql), ["7"]);
}

#[test]
fn black_holes_hold_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    // The system takes the connections, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let waiting = "  timeouts: {connect: 2s, listing: 1s}\n";
    let people = "\
name: jane
version: v1
type: user
user: {tags: [roles:id:analyst]}
---
name: analysts
version: v1
type: policy
policy:
  access: {subjects: {tags: [[roles:id:analyst]]}, predicates: [select], objects: {paths: ['dataos://lake:*/*']}, allow: true}
";
    let manifests = postgres_at("silent", "127.0.0.1", port, waiting)
        + &postgres_at("dropped", "10.255.255.1", 5432, waiting)
        + &lake(folder.path())
        + people;
    let minerva = at_once("starting", || Minerva::start(&[("all.yaml", &manifests)], 1));
    let key = minerva.key("jane");
    let jane = Some(("jane", key.as_str()));
    for user in [None, jane] {
        let rows = at_once("a query of another depot", || {
            minerva.rows(user, "SELECT name FROM lake.shop.city")
        });
        assert_eq!(rows, ["Basel"]);
    }
    // A listing of all depots goes on without them.
    let (all, took) = listed_tables(&minerva);
    assert!(took < AT_ONCE, "a listing of all depots took {took:?}");
    assert!(all.contains(&"lake.shop.city".to_owned()), "{all:?}");
    assert!(!all.iter().any(|table| table.starts_with("silent.public")), "{all:?}");
    // For who does not see them nobody asks them, and nothing tells of them.
    let seen = minerva.rows(jane, "SELECT depot FROM system.metadata.depots");
    assert_eq!(seen, ["lake"]);
    let begun = Instant::now();
    minerva.rows(jane, "REFRESH");
    assert!(begun.elapsed() < Duration::from_secs(1) + AT_ONCE);
    let (hidden, absent) = (
        minerva.error(jane, "CALL system.refresh('silent')"),
        minerva.error(jane, "CALL system.refresh('nowhere')"),
    );
    let without_id = |text: &str, name: &str| {
        let lines = text.lines().filter(|line| !line.starts_with("query id"));
        lines.collect::<Vec<_>>().join("\n").replace(name, "NAME")
    };
    assert_eq!(without_id(&hidden, "silent"), without_id(&absent, "nowhere"));
    assert!(hidden.contains("CATALOG_NOT_FOUND"), "{hidden}");

    for depot in ["silent", "dropped"] {
        let sql = format!("SELECT * FROM {depot}.public.t");
        wait_for("the depot is left alone", || {
            minerva.error(None, &sql).contains(" since ")
        });
        let error = at_once("a depot that is left alone", || minerva.error(None, &sql));
        assert!(error.contains("DEPOT_UNREACHABLE"), "{error}");
        assert_eq!(state(&minerva, None, depot), "Unreachable");
    }
    drop(silent);
}

#[test]
fn a_wrong_password_is_said_and_not_tried_again_and_again() {
    let postgres = Postgres::start();
    postgres.execute("CREATE ROLE wrong LOGIN PASSWORD 'right'", b"");
    postgres.require_password("wrong");
    let manifest = postgres_at("pg", "127.0.0.1", postgres.port(), "").replace("username: reader", "username: wrong");
    let minerva = Minerva::start(&[("pg.yaml", &manifest)], 1);
    let sql = "SELECT * FROM pg.public.t";
    let mut errors = Vec::new();
    wait_for("the depot is left alone", || {
        errors.push(minerva.error(None, sql));
        errors.last().is_some_and(|error| error.contains(" since "))
    });
    assert!(errors.iter().all(|error| !error.contains("c4n4ry-word")), "{errors:?}");
    let last = errors.last().unwrap();
    assert!(
        last.contains("refuses the credentials") && last.contains("tried again at"),
        "{last}"
    );
    // Nobody tries in the background: as many failures as queries.
    let before = minerva.rows(None, "SELECT failures FROM system.metadata.depots WHERE depot = 'pg'");
    thread::sleep(Duration::from_secs(3));
    let sql_of_state = "SELECT failures FROM system.metadata.depots WHERE depot = 'pg'";
    assert_eq!(minerva.rows(None, sql_of_state), before);
    // A manifest with the right word helps at once.
    let right = manifest.replace("c4n4ry-word", "right");
    std::fs::write(minerva.resources().join("pg.yaml"), right).unwrap();
    wait_for("the new word is taken", || {
        !minerva.error(None, sql).contains("DEPOT_UNREACHABLE")
    });
    assert_eq!(state(&minerva, None, "pg"), "Ready");
}

#[test]
fn listings_are_kept_for_a_while_and_queries_are_not() {
    let mut postgres = Postgres::start();
    postgres.execute(
        "CREATE TABLE one (a int); CREATE SCHEMA other; CREATE TABLE other.three (c int)",
        b"",
    );
    let manifest = postgres
        .manifest()
        .replace("type: POSTGRESQL\n", "type: POSTGRESQL\n  acl: rw\n  metadataTtl: 1h\n");
    let minerva = Minerva::start(&[("pg.yaml", &manifest)], 1);
    let tables = || minerva.rows(None, "SHOW TABLES FROM pg.public");
    let columns = |table: &str| {
        minerva.rows(
            None,
            &format!("SELECT column_name FROM pg.information_schema.columns WHERE table_schema = 'public' AND table_name = '{table}'"),
        )
    };
    assert_eq!(tables(), ["one"]);
    assert_eq!(columns("one"), ["a"]);
    let before = minerva.rows(
        None,
        "SELECT listed_datasets FROM system.metadata.depots WHERE depot = 'pg'",
    );
    assert_eq!(before, ["2"]);

    // Behind the depot's back: listings are behind, queries are not.
    postgres.execute(
        "CREATE TABLE two (b int); ALTER TABLE one ADD COLUMN late int; INSERT INTO one VALUES (1, 2)",
        b"",
    );
    assert_eq!(tables(), ["one"]);
    assert_eq!(columns("one"), ["a"]);
    assert_eq!(minerva.rows(None, "SELECT * FROM pg.public.one"), ["1,2"]);
    assert_eq!(minerva.rows(None, "SELECT count(*) FROM pg.public.two"), ["0"]);
    // A schema that is new is found when it is named.
    postgres.execute("CREATE SCHEMA new; CREATE TABLE new.four (d int)", b"");
    assert_eq!(minerva.rows(None, "SHOW TABLES FROM pg.new"), ["four"]);
    assert_eq!(tables(), ["one", "two"]);
    for refresh in [
        "CALL system.refresh('pg', 'public')",
        "CALL system.refresh(depot => 'pg')",
        "CALL system.refresh()",
        "REFRESH pg.public",
        "REFRESH pg",
        "REFRESH",
    ] {
        let name = format!("c{}", refresh.len());
        postgres.execute(&format!("ALTER TABLE one ADD COLUMN {name} int"), b"");
        assert!(!columns("one").contains(&name), "{refresh}");
        minerva.rows(None, refresh);
        assert!(columns("one").contains(&name), "{refresh}");
    }
    assert!(minerva.error(None, "REFRESH pg.nowhere").contains("SCHEMA_NOT_FOUND"));

    // What is done through Minerva is seen at once.
    minerva.rows(None, "CREATE TABLE pg.public.made AS SELECT 1 AS x");
    assert_eq!(tables(), ["made", "one", "two"]);
    assert_eq!(columns("made"), ["x"]);
    minerva.rows(None, "DROP TABLE pg.public.made");
    assert_eq!(tables(), ["one", "two"]);
    minerva.rows(None, "CREATE TABLE pg.public.made AS SELECT 1 AS y");
    assert_eq!(columns("made"), ["y"]);
    minerva.rows(None, "CREATE VIEW pg.public.seen AS SELECT y FROM pg.public.made");
    assert!(
        minerva
            .rows(None, "SELECT table_name FROM pg.information_schema.views")
            .contains(&"seen".to_owned())
    );

    // Down: listings show what was known, and who asks for what is there now is told why there is no answer.
    postgres.stop();
    for refresh in [
        "CALL system.refresh('pg')",
        "CALL system.refresh('pg', 'public')",
        "REFRESH pg",
    ] {
        let error = minerva.error(None, refresh);
        assert!(
            error.contains("DEPOT_UNREACHABLE") && error.contains("`pg`"),
            "{refresh}: {error}"
        );
    }
    assert_eq!(
        minerva.rows(None, "SHOW TABLES FROM pg.public"),
        ["made", "one", "seen", "two"]
    );
    postgres.start_again();
    wait_for("the depot is asked again", || {
        minerva.rows(None, "SELECT state FROM system.metadata.depots WHERE depot = 'pg'") == ["Ready"]
    });
    minerva.rows(None, "CALL system.refresh('pg')");

    // Off: asked each time.
    let off = manifest.replace("metadataTtl: 1h", "metadataTtl: 0");
    std::fs::write(minerva.resources().join("pg.yaml"), off).unwrap();
    postgres.execute("CREATE TABLE five (e int)", b"");
    wait_for("the manifest is in force", || tables().contains(&"five".to_owned()));
    postgres.execute("CREATE TABLE six (e int)", b"");
    assert!(tables().contains(&"six".to_owned()));
}

/// Who asks at the same time waits for one question, and conditions narrow it.
#[test]
fn a_listing_asks_the_catalogue_once() {
    let postgres = Postgres::start();
    postgres.execute("CREATE TABLE a (x int); CREATE TABLE b (x int)", b"");
    postgres.execute("ALTER SYSTEM SET log_statement = 'all'", b"");
    postgres.execute("SELECT pg_reload_conf()", b"");
    let manifest = postgres.manifest();
    let minerva = Minerva::start(&[("pg.yaml", &manifest)], 1);
    let sql = "SELECT count(*) FROM pg.information_schema.columns WHERE table_schema = 'public'";
    thread::scope(|scope| {
        let asked: Vec<_> = (0..6).map(|_| scope.spawn(|| minerva.rows(None, sql))).collect();
        for asked in asked {
            assert_eq!(asked.join().unwrap(), ["2"]);
        }
    });
    let log = postgres.log();
    let count = |part: &str| log.matches(part).count();
    assert_eq!(count("array_agg(c.relname"), 1, "{log}");
    assert_eq!(count("array_agg(attname"), 1, "{log}");
    minerva.rows(None, "REFRESH pg");
    let one =
        "SELECT column_name FROM pg.information_schema.columns WHERE table_schema = 'public' AND table_name = 'a'";
    assert_eq!(minerva.rows(None, one), ["x"]);
    let log = postgres.log();
    let parameters = log.lines().rfind(|line| line.contains("$2 = "));
    assert!(parameters.is_some_and(|line| line.contains("{a}")), "{parameters:?}");
}

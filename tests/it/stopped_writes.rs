//! Writing that does not come to its end: stopped by its client, refused before it begins, or without an answer. And the rest of what once went
//! wrong with copies and keys.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use rusqlite::Connection;

use crate::{
    minerva::Minerva,
    private_postgres::Postgres,
    writes::{PEOPLE, in_sqlite, on_postgres, on_sqlite, policies, refused, written},
};

const SMALL: &str = "name: small\nversion: v2alpha\ntype: depot\ndepot: {type: tpch, tpch: {scale: 0.01}}\n";

/// Waits for something that is certain to come.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}: this does not come");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A statement that would run for days.
fn begun(minerva: &Minerva, sql: &str) -> Child {
    let mut command = minerva.client(&["sql", "-e", sql]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Statements that write `table` are stopped in the middle, by Ctrl-C and by a client that dies: nothing is written, and the next one works.
fn nothing_stays(minerva: &Minerva, table: &str, is_writing: &dyn Fn(&str) -> bool, is_free: &dyn Fn() -> bool) {
    let endless = "small.tpch.lineitem a CROSS JOIN small.tpch.lineitem b";
    assert_eq!(
        written(minerva, None, &format!("INSERT INTO {table} VALUES (1), (2)")),
        2
    );
    for sql in [
        format!("INSERT INTO {table} SELECT a.l_orderkey + b.l_orderkey FROM {endless}"),
        format!(
            "DELETE FROM {table} WHERE n > 0 AND EXISTS (SELECT 1 FROM {endless} WHERE a.l_orderkey * b.l_orderkey < 0)"
        ),
        format!(
            "UPDATE {table} SET n = n + 1 WHERE (SELECT count(*) FROM {endless} WHERE a.l_orderkey * b.l_orderkey < 0) = 0"
        ),
    ] {
        for is_killed in [false, true] {
            let mut client = begun(minerva, &sql);
            wait_until("it writes", || is_writing(&sql));
            if is_killed {
                client.kill().unwrap();
            } else {
                let asked = Command::new("kill")
                    .arg("-INT")
                    .arg(client.id().to_string())
                    .status()
                    .unwrap();
                assert!(asked.success());
            }
            let left = client.wait_with_output().unwrap();
            assert!(!left.status.success(), "{sql}");
            wait_until("the table is free again", is_free);
            assert_eq!(
                minerva.rows(None, &format!("SELECT n FROM {table} ORDER BY n")),
                ["1", "2"],
                "{sql}"
            );
            wait_until("its record says so", || {
                let state = minerva.rows(
                    None,
                    "SELECT state FROM system.runtime.queries WHERE query LIKE '%small.tpch.lineitem%' AND query NOT LIKE '%runtime%' \
                     ORDER BY created DESC LIMIT 1",
                );
                state == ["CANCELED"]
            });
            assert_eq!(written(minerva, None, &format!("INSERT INTO {table} VALUES (3)")), 1);
            assert_eq!(written(minerva, None, &format!("DELETE FROM {table} WHERE n = 3")), 1);
        }
    }
}

#[test]
fn what_is_stopped_in_postgresql_is_rolled_back() {
    let postgres = Postgres::start();
    postgres.execute("CREATE TABLE pile (n bigint)", b"");
    let depot = postgres
        .manifest()
        .replace("type: POSTGRESQL\n", "type: POSTGRESQL\n  acl: rw\n");
    let minerva = Minerva::start(&[("depot.yaml", &depot), ("small.yaml", SMALL)], 1);
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'postgres' AND pid <> pg_backend_pid() AND xact_start IS NOT NULL";
    let locks = "SELECT count(*) FROM pg_locks WHERE relation = 'pile'::regclass AND pid <> pg_backend_pid() AND mode <> 'AccessShareLock'";
    let is_writing = |sql: &str| match sql.starts_with("INSERT") {
        // Rows have arrived that nobody sees yet.
        true => postgres.ask("SELECT pg_relation_size('pile') > 100000") == ["t"] && postgres.ask(open) != ["0"],
        false => postgres.ask(locks) != ["0"],
    };
    let is_free = || {
        postgres.ask(open) == ["0"] && postgres.ask(locks) == ["0"] && {
            postgres.execute("VACUUM pile", b"");
            true
        }
    };
    nothing_stays(&minerva, "pg.public.pile", &is_writing, &is_free);
}

#[test]
fn what_is_stopped_in_sqlite_is_rolled_back() {
    let minerva = on_sqlite("CREATE TABLE pile (n bigint)");
    let file = minerva.folder.path().join("crm.db");
    let is_free = || {
        let connection = Connection::open(&file).unwrap();
        connection.busy_timeout(Duration::ZERO).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok()
    };
    nothing_stays(&minerva, "crm.main.pile", &|_| !is_free(), &is_free);
    assert_eq!(in_sqlite(&minerva, "PRAGMA integrity_check"), ["ok"]);
}

/// What can be refused without a look at a row is refused at once, while somebody else has the table.
#[test]
fn what_is_refused_does_not_wait_for_the_table() {
    let sqlite = on_sqlite(PEOPLE);
    let other = Connection::open(sqlite.folder.path().join("crm.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let postgres = Postgres::start();
    postgres.execute(PEOPLE, b"");
    let on_postgres = on_postgres(&postgres);
    let mut holder = postgres.session("BEGIN; LOCK TABLE people IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)");
    wait_until("the table is locked", || {
        postgres.ask("SELECT count(*) FROM pg_locks WHERE relation = 'people'::regclass AND mode = 'AccessExclusiveLock' AND granted") == ["1"]
    });
    for (minerva, table) in [(&sqlite, "crm.main.people"), (&on_postgres, "pg.public.people")] {
        let keys = ["analyst", "clerk"].map(|user| minerva.key(user));
        let (analyst, clerk) = (Some(("analyst", keys[0].as_str())), Some(("clerk", keys[1].as_str())));
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
                "DELETE FROM {t} WHERE email > 'a'",
                &["PERMISSION_DENIED", "`email`"],
            ),
            (
                clerk,
                "UPDATE {t} SET name = email",
                &["PERMISSION_DENIED", "PII.Email"],
            ),
            (clerk, "UPDATE {t} SET pay = 'much'", &["TYPE_MISMATCH", "`pay`"]),
            (clerk, "UPDATE {t} SET nothing = 1", &["COLUMN_NOT_FOUND", "`nothing`"]),
            (
                clerk,
                "DELETE FROM {t} WHERE nothing = 1",
                &["COLUMN_NOT_FOUND", "`nothing`"],
            ),
        ] {
            refused(minerva, user, &sql.replace("{t}", table), expected);
        }
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    other.execute_batch("ROLLBACK").unwrap();
}

/// Tables without a rowid have a primary key, which is their rows' identity.
#[test]
fn rows_are_told_by_their_key_where_there_is_no_rowid() {
    let people = PEOPLE.replace(
        "id int PRIMARY KEY, name text, region text, email text, pay int CHECK (pay >= 0))",
        "id int, name text NOT NULL COLLATE NOCASE, region text, email text, pay int CHECK (pay >= 0), PRIMARY KEY (name, id)) WITHOUT ROWID",
    );
    assert_ne!(people, PEOPLE);
    let odd = "CREATE TABLE odd (k PRIMARY KEY, v int) WITHOUT ROWID; \
        INSERT INTO odd VALUES (1, 0), (1.5, 0), ('1', 0), ('it''s, \"odd\"', 0), (x'00ff', 0), ('', 0), (0.1, 0), (-9223372036854775808, 0);";
    let minerva = on_sqlite(&format!("{people}; {odd}"));
    let key = minerva.key("clerk");
    let clerk = Some(("clerk", key.as_str()));
    let raw = || in_sqlite(&minerva, "SELECT * FROM people ORDER BY id");
    let hidden = ["2|Bo|US|canary@x.org|20", "4|Di|NULL|di@x.org|40"];
    assert_eq!(
        written(
            &minerva,
            clerk,
            "UPDATE crm.main.people SET pay = pay + 1, name = upper(name)"
        ),
        2
    );
    assert_eq!(
        raw(),
        ["1|ADA|EU|ada@x.org|11", hidden[0], "3|CY|EU|cy@x.org|31", hidden[1]]
    );
    // A key that is taken is refused, and nothing happens.
    refused(
        &minerva,
        clerk,
        "UPDATE crm.main.people SET name = 'x', id = 7",
        &["CONSTRAINT_VIOLATION"],
    );
    assert_eq!(
        written(&minerva, clerk, "DELETE FROM crm.main.people WHERE pay > 20"),
        1
    );
    assert_eq!(raw(), ["1|ADA|EU|ada@x.org|11", hidden[0], hidden[1]]);
    assert_eq!(written(&minerva, clerk, "DELETE FROM crm.main.people"), 1);
    assert_eq!(raw(), hidden);
    // Keys of every kind that SQLite has, in one column.
    assert_eq!(written(&minerva, None, "UPDATE crm.main.odd SET v = v + 1"), 8);
    assert_eq!(in_sqlite(&minerva, "SELECT DISTINCT v FROM odd"), ["1"]);
    assert_eq!(written(&minerva, None, "DELETE FROM crm.main.odd WHERE v = 1"), 8);
    refused(
        &on_sqlite("CREATE TABLE t (rowid int, _rowid_ int, oid int)"),
        None,
        "DELETE FROM crm.main.t",
        &["NOT_SUPPORTED", "no identity", "rename one of the columns"],
    );
}

/// Stands before a server. The first transaction that makes a table loses its connection at COMMIT, which reaches the server all the same: when it is
/// said so.
fn losing_one_answer(to: u16) -> (u16, mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (deliver, delivery) = mpsc::channel();
    let delivery = Arc::new(Mutex::new(Some(delivery)));
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else {
                return;
            };
            let delivery = Arc::clone(&delivery);
            let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || {
                let (mut bytes, mut makes) = ([0; 65_536], false);
                while let Ok(count @ 1..) = from_client.read(&mut bytes) {
                    let says = |text: &[u8]| bytes[..count].windows(text.len()).any(|part| part == text);
                    makes |= says(b"CREATE TABLE");
                    let is_last = makes && says(b"COMMIT");
                    if let Some(delivery) = is_last.then(|| delivery.lock().unwrap().take()).flatten() {
                        let _ = from_client.shutdown(Shutdown::Both);
                        let _ = delivery.recv();
                    }
                    if to_server.write_all(&bytes[..count]).is_err() {
                        break;
                    }
                }
                let _ = to_server.shutdown(Shutdown::Write);
            });
            let (mut from_server, mut to_client) = (server, client);
            thread::spawn(move || {
                let mut bytes = [0; 65_536];
                while let Ok(count @ 1..) = from_server.read(&mut bytes) {
                    if to_client.write_all(&bytes[..count]).is_err() {
                        break;
                    }
                }
                let _ = to_client.shutdown(Shutdown::Both);
            });
        }
    });
    (port, deliver)
}

/// A copy that the depot has made has its tags, also when whoever made it never learnt that it is there.
#[test]
fn a_copy_keeps_its_tags_when_the_answer_is_lost() {
    let postgres = Postgres::start();
    postgres.execute(PEOPLE, b"");
    let (port, deliver) = losing_one_answer(postgres.port());
    let depot = postgres
        .manifest()
        .replace(
            "type: POSTGRESQL\n",
            "type: POSTGRESQL\n  acl: rw\n  acceptsTags: true\n",
        )
        .replace(&postgres.port().to_string(), &port.to_string());
    let minerva = Minerva::start(
        &[("depot.yaml", &depot), ("policies.yaml", &policies("pg", "public"))],
        1,
    );
    let key = minerva.key("analyst");
    let create = "CREATE TABLE pg.public.copy AS SELECT id, email AS mail FROM pg.public.people WHERE region = 'EU'";
    refused(
        &minerva,
        None,
        create,
        &["TRANSACTION_RESOLUTION_UNKNOWN", "public.copy", "look"],
    );
    deliver.send(()).unwrap();
    wait_until("the copy", || {
        postgres.ask("SELECT count(*) FROM pg_class WHERE relname = 'copy'") == ["1"]
    });
    let mails = minerva.rows(Some(("analyst", &key)), "SELECT DISTINCT mail FROM pg.public.copy");
    assert_eq!(mails, ["REDACTED"]);
    // A statement that fails before anything is there leaves no tags behind.
    minerva.error(
        None,
        "CREATE TABLE pg.public.other AS SELECT email AS mail, 1 / (id - 1) AS x FROM pg.public.people",
    );
    assert_eq!(
        written(&minerva, None, "CREATE TABLE pg.public.other AS SELECT 'open' AS mail"),
        1
    );
    assert_eq!(
        minerva.rows(Some(("analyst", &key)), "SELECT mail FROM pg.public.other"),
        ["open"]
    );
}

/// What a change of manifests would alter is told by the rules that hold, tags of copies among them.
#[test]
fn a_change_is_compared_with_the_tags_of_copies() {
    let minerva = on_sqlite(PEOPLE);
    written(
        &minerva,
        None,
        "CREATE TABLE lake.new.copy AS SELECT id, email AS mail FROM crm.main.people",
    );
    let key = minerva.key("reader");
    let reader = Some(("reader", key.as_str()));
    assert_eq!(
        minerva.rows(reader, "SELECT DISTINCT mail FROM lake.new.copy"),
        ["REDACTED"]
    );
    let given = minerva.folder.path().join("given.yaml");
    let dry = |text: &str| {
        fs::write(&given, text).unwrap();
        let mut command = minerva.client(&["apply"]);
        let done = command.arg("-f").arg(&given).arg("--dry-run").output().unwrap();
        format!(
            "{}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        )
    };
    let said = dry(
        "{name: nobody, version: v1, type: policy, policy: {access: {subjects: {tags: [roles:id:nobody]}, \
        predicates: [select], objects: {paths: ['dataos://lake:*/*']}, allow: true}}}\n",
    );
    assert!(said.contains("no decision about a declared user is altered"), "{said}");
    let mask = "{name: mails, version: v1, type: policy, policy: {data: {type: mask, priority: 10, \
        selector: {user: {match: any, tags: [roles:id:analyst, roles:id:reader]}, column: {tags: [PII.Email]}}, mask: {operator: nullify}}}}\n";
    let said = dry(mask);
    let line = "user `reader`, `dataos://lake:new/copy`:\n  column `mail`:\n    - redact by `mails`\n    + nullify by `mails`\n";
    assert!(said.contains(line), "{said}");
}

//! The command line: formats, exit codes, keys, checks, doors.

use std::{fs, io::Write, os::unix::fs::PermissionsExt, process::Stdio};

use crate::minerva::{Minerva, Server, program, python};

const DEPOT: &str = "name: small\nversion: v2alpha\ntype: depot\ndepot: {type: TPCH, tpch: {scale: 0.01}}\n";
const USERS: &str = "\
name: jane
version: v1
type: user
user: {tags: [roles:id:user]}
---
name: readers
version: v1
type: policy
policy:
  access:
    subjects: {tags: [[roles:id:user]]}
    predicates: [select]
    objects: {paths: ['dataos://small:tpch/nation']}
    allow: true
";

fn repository(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn each_format_is_written() {
    let minerva = Minerva::start(&[("depots.yaml", DEPOT)], 1);
    let sql = "SELECT n_nationkey AS id, n_name AS name, CAST(NULL AS INT) AS none FROM small.tpch.nation WHERE n_nationkey < 2 ORDER BY id";
    let text = |format: &str| {
        let output = minerva.run(None, sql, format);
        assert!(
            output.status.success(),
            "{format}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    };
    let lines = |format: &str| String::from_utf8(text(format)).unwrap();
    assert!(lines("ALIGNED").contains("ARGENTINA") && lines("ALIGNED").contains("(2 rows)"));
    assert!(lines("VERTICAL").contains("ALGERIA"));
    assert_eq!(
        lines("CSV"),
        "id,name,none\n0,ALGERIA,\n1,ARGENTINA,\n"
            .replace('\n', "\r\n")
            .replace("\r\n", if lines("CSV").contains('\r') { "\r\n" } else { "\n" })
    );
    assert!(lines("TSV").contains("0\tALGERIA\t"));
    let first: serde_json::Value = serde_json::from_str(lines("JSON").lines().next().unwrap()).unwrap();
    assert_eq!(
        (first["id"].as_i64(), first["name"].as_str()),
        (Some(0), Some("ALGERIA"))
    );
    assert!(lines("MARKDOWN").contains("| ALGERIA"));
    let arrow = arrow::ipc::reader::StreamReader::try_new(std::io::Cursor::new(text("ARROW")), None).unwrap();
    assert_eq!(arrow.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 2);
    assert_eq!(&text("PARQUET")[..4], b"PAR1");
}

#[test]
fn statements_come_from_a_file_or_standard_input_and_stop_at_the_first_failure() {
    let minerva = Minerva::start(&[("depots.yaml", DEPOT)], 1);
    let file = minerva.folder.path().join("statements.sql");
    fs::write(
        &file,
        "SELECT 'a;b' AS x; -- one; more\nSELECT 2 AS y;\nSELEC 3;\nSELECT 4 AS z",
    )
    .unwrap();
    let output = minerva
        .client(&["sql", "--output-format", "CSV"])
        .arg("-f")
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("a;b") && said.contains('2') && !said.contains('z'),
        "{said}"
    );

    let mut child = minerva
        .client(&["sql", "--output-format", "CSV"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"SELECT 5 AS five").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains('5'));
}

#[test]
fn exit_codes_tell_what_failed() {
    let minerva = Minerva::start(&[("depots.yaml", DEPOT), ("users.yaml", USERS)], 1);
    assert_eq!(
        minerva.run(Some(("admin", "wrong")), "SELECT 1", "CSV").status.code(),
        Some(3)
    );
    assert_eq!(
        minerva.run(Some(("jane", "wrong")), "SELECT 1", "CSV").status.code(),
        Some(3)
    );
    assert_eq!(minerva.run(None, "SELECT 1 +", "CSV").status.code(), Some(1));
    assert_eq!(
        program()
            .args(["sql", "--no-such-flag"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(2)
    );
    let gone = minerva.flight().to_owned();
    let data = minerva.data();
    let (orderly, _) = minerva.server.leave();
    assert!(orderly, "SIGTERM ends the service in order");
    let output = program()
        .args([
            "sql", "--server", &gone, "--user", "admin", "--apikey", "k", "-e", "SELECT 1",
        ])
        .arg("--data")
        .arg(data)
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn keys_are_made_listed_and_deleted_and_are_ones_own() {
    let minerva = Minerva::start(&[("depots.yaml", DEPOT), ("users.yaml", USERS)], 1);
    let mode = fs::metadata(minerva.data().join("admin-key"))
        .unwrap()
        .permissions()
        .mode()
        & 0o777;
    assert_eq!(mode, 0o600);
    let made = minerva
        .client(&["user", "apikey", "create", "-u", "jane", "-d", "1h", "-n", "laptop"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let jane = Some(("jane", key.as_str()));
    assert_eq!(minerva.rows(jane, "SELECT count(*) FROM small.tpch.nation"), ["25"]);
    // What she may not select does not exist: the same words as for what nobody has.
    let hidden = minerva
        .error(jane, "SELECT * FROM small.tpch.region")
        .replace("region", "X");
    let absent = minerva
        .error(jane, "SELECT * FROM small.tpch.nothing")
        .replace("nothing", "X");
    let without_id = |text: &str| {
        text.lines()
            .filter(|line| !line.starts_with("query id"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(without_id(&hidden), without_id(&absent));
    assert_eq!(minerva.rows(jane, "SHOW TABLES FROM small.tpch"), ["nation"]);

    let listed = minerva
        .client(&["user", "apikey", "get", "-u", "jane"])
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("laptop") && !listed.contains(&key), "{listed}");
    let mut others = minerva.client(&["user", "apikey", "create", "-u", "admin", "-d", "1h", "--login", "jane"]);
    let refused = others.env("MINERVA_APIKEY", &key).output().unwrap();
    assert_eq!(
        refused.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&refused.stderr)
    );
    assert!(String::from_utf8_lossy(&refused.stderr).contains("PERMISSION_DENIED"));

    let deleted = minerva
        .client(&["user", "apikey", "delete", "-u", "jane", "-n", "laptop"])
        .output()
        .unwrap();
    assert!(deleted.status.success());
    assert_eq!(minerva.run(jane, "SELECT 1", "CSV").status.code(), Some(3));
}

#[test]
fn an_operator_has_policies_explained_and_others_have_not() {
    let minerva = Minerva::start(&[("depots.yaml", DEPOT), ("users.yaml", USERS)], 1);
    let explained = minerva
        .client(&["policy", "explain", "-u", "jane", "--table", "small.tpch.nation"])
        .output()
        .unwrap();
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(
        text.contains("readers") && text.contains("n_name"),
        "{text}\n{}",
        String::from_utf8_lossy(&explained.stderr)
    );
    let key = minerva.key("jane");
    let mut command = minerva.client(&["policy", "explain", "-u", "jane", "--login", "jane"]);
    assert!(!command.env("MINERVA_APIKEY", key).output().unwrap().status.success());
}

#[test]
fn check_finds_every_problem_offline() {
    let good = program()
        .arg("check")
        .arg(repository("tests/manifests/good"))
        .output()
        .unwrap();
    assert!(
        good.status.success(),
        "{}{}",
        String::from_utf8_lossy(&good.stdout),
        String::from_utf8_lossy(&good.stderr)
    );
    let example = program()
        .arg("check")
        .arg(repository("examples/flights"))
        .output()
        .unwrap();
    assert!(
        example.status.success(),
        "{}{}",
        String::from_utf8_lossy(&example.stdout),
        String::from_utf8_lossy(&example.stderr)
    );
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("d.yaml"),
        DEPOT.replace("scale", "scael").replace("TPCH,", "TPCHH,"),
    )
    .unwrap();
    fs::write(folder.path().join("p.yaml"), USERS.replace("allow: true", "alow: true")).unwrap();
    let bad = program().arg("check").arg(folder.path()).output().unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&bad.stdout),
        String::from_utf8_lossy(&bad.stderr)
    );
    assert_eq!(bad.status.code(), Some(1), "{said}");
    assert!(
        said.contains("p.yaml:14") && said.contains("did you mean `allow`"),
        "{said}"
    );
}

#[test]
fn listening_beyond_loopback_needs_tls() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program();
    command
        .args([
            "serve",
            "--host",
            "0.0.0.0",
            "--http-port",
            "0",
            "--flight-port",
            "0",
            "--cluster-port",
            "0",
        ])
        .arg("--data")
        .arg(folder.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("--tls-cert"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn tls_is_served_and_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let made = python()
        .args(["-m", "trustme", "-q", "-i", "127.0.0.1", "localhost", "-d"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut command = program();
    command
        .args([
            "serve",
            "--http-port",
            "0",
            "--flight-port",
            "0",
            "--cluster-port",
            "0",
            "--workers",
            "2",
        ])
        .arg("--data")
        .arg(path("data"));
    command
        .arg("--tls-cert")
        .arg(path("server.pem"))
        .arg("--tls-key")
        .arg(path("server.key"))
        .arg("--tls-ca")
        .arg(path("client.pem"));
    let server = Server::start(command);
    let ask = |server: &str, ca: bool| {
        let mut command = program();
        command
            .args([
                "sql",
                "--output-format",
                "CSV",
                "-e",
                "SELECT 7 AS seven",
                "--server",
                server,
            ])
            .arg("--data")
            .arg(path("data"));
        if ca {
            command.arg("--tls-ca").arg(path("client.pem"));
        }
        command.output().unwrap()
    };
    let address = &server.addresses["flight"];
    let answered = ask(&format!("https://{address}"), true);
    assert!(
        answered.status.success(),
        "{}",
        String::from_utf8_lossy(&answered.stderr)
    );
    assert!(String::from_utf8_lossy(&answered.stdout).contains('7'));
    assert_eq!(
        ask(&format!("http://{address}"), false).status.code(),
        Some(3),
        "plain text is not answered"
    );
}

/// Ten to the fourteenth pairs of rows that no filter lets through.
fn runaway() -> String {
    let tables = (0..14).map(|n| format!("(VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)) AS t{n}(x{n})"));
    let sum: Vec<String> = (0..14).map(|n| format!("x{n}")).collect();
    let tables: Vec<String> = tables.collect();
    format!(
        "SELECT count(*) FROM {} WHERE {} = 200",
        tables.join(" CROSS JOIN "),
        sum.join(" + ")
    )
}

#[test]
fn runaway_joins_leave_room_for_others_and_stop_when_their_client_leaves() {
    for workers in [1, 2] {
        let minerva = Minerva::start(&[("depots.yaml", DEPOT)], workers);
        let mut runaways: Vec<_> = (0..3)
            .map(|_| minerva.client(&["sql", "-e", &runaway()]).spawn().unwrap())
            .collect();
        let running =
            "SELECT count(*) FROM system.runtime.queries WHERE state = 'RUNNING' AND query LIKE '%CROSS JOIN%'";
        while minerva.rows(None, &running.replace("%CROSS JOIN%", "SELECT count(*) FROM (VALUES%")) != ["3"] {}
        assert_eq!(
            minerva.rows(None, "SELECT count(*) FROM small.tpch.lineitem"),
            ["60175"]
        );
        for runaway in &mut runaways {
            runaway.kill().unwrap();
            runaway.wait().unwrap();
        }
        // Nothing goes on once their records say that they ended: two looks at the program's time find no difference.
        let mut looks = (0..100).map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(200));
            minerva.server.processor_ticks()
        });
        let mut last = looks.next().unwrap();
        assert!(
            looks.any(|now| {
                let idle = now <= last + 1;
                last = now;
                idle
            }),
            "the cancelled joins go on computing"
        );
    }
}

#[test]
fn a_query_has_its_share_of_the_memory_on_workers_too() {
    const CLUSTER: &str = "\
name: minerva
version: v1
type: cluster
cluster:
  type: minerva
  minerva: {limits: {query.max-memory: 4MB}}
---
name: everybody
version: v1
type: policy
policy:
  access:
    subjects: {tags: [[roles:id:user]]}
    predicates: [select, read]
    objects: {paths: ['**']}
    allow: true
";
    let large = "SELECT count(*) FROM small.tpch.lineitem a JOIN small.tpch.lineitem b ON a.l_comment = b.l_comment AND a.l_orderkey = b.l_orderkey";
    let depot = DEPOT.replace("0.01", "0.1");
    let mut minerva = Minerva::start(&[("depots.yaml", &depot), ("cluster.yaml", CLUSTER)], 0);
    let error = minerva.error(None, large);
    assert!(error.contains("EXCEEDED_MEMORY_LIMIT"), "{error}");
    minerva.add_worker();
    minerva.add_worker();
    let plan = minerva.rows(None, &format!("EXPLAIN {large}")).concat();
    assert!(plan.contains("Stage 1"), "{plan}");
    let error = minerva.error(None, large);
    assert!(error.contains("EXCEEDED_MEMORY_LIMIT"), "{error}");
    assert_eq!(
        minerva.rows(None, "SELECT count(*) FROM small.tpch.lineitem"),
        ["600572"]
    );
}

#[test]
fn the_cluster_manifest_says_how_many_workers_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let resources = folder.path().join("resources");
    fs::create_dir(&resources).unwrap();
    let cluster = "name: minerva\nversion: v1\ntype: cluster\ncluster: {type: minerva, minerva: {replicas: 3}}\n---\n\
                   name: everybody\nversion: v1\ntype: policy\npolicy:\n  access: {subjects: {tags: [[roles:id:user]]}, predicates: [read], \
                   objects: {paths: ['**']}, allow: true}\n";
    fs::write(resources.join("cluster.yaml"), cluster).unwrap();
    let mut command = program();
    command.arg("serve").arg("--resources").arg(&resources);
    command.arg("--data").arg(folder.path().join("data"));
    command.args(["--http-port", "0", "--flight-port", "0", "--cluster-port", "0"]);
    let minerva = Minerva {
        server: Server::start(command),
        workers: Vec::new(),
        folder,
    };
    let workers = "SELECT count(*) FROM system.runtime.nodes WHERE NOT coordinator";
    assert_eq!(minerva.rows(None, workers), ["3"]);
}

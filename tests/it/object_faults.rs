//! Object stores that misbehave: slow, silent, lying, changing and very full ones. And what is asked of those that behave.
//!
//! In: the server of `tests/python/object_server.py`, whose faults are switched while it runs. Out: the right answer, or one error that
//! names depot and object; never a short answer, never a wait without an end.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    governed_data::{run, script},
    minerva::{Minerva, Server},
    object_stores::depot,
    tpch, tpch_data,
};

/// The server, over a folder with the bucket `lake`.
struct Objects {
    server: Server,
    folder: TempDir,
}

impl Objects {
    /// With the files that the other tests of object stores read.
    fn filled() -> Self {
        let folder = tempfile::tempdir().unwrap();
        run(script("object_stores.py").arg(folder.path()).arg("files"));
        Self::over(folder)
    }

    fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("lake")).unwrap();
        Self::over(folder)
    }

    fn over(folder: TempDir) -> Self {
        let mut command = script("object_server.py");
        command.arg(folder.path()).stdin(Stdio::piped());
        Self {
            server: Server::start(command),
            folder,
        }
    }

    fn address(&self) -> &str {
        &self.server.addresses["objects"]
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.path().join("lake").join(key)
    }

    fn write(&self, key: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // As a store does it: the old object or the new one, nothing in between.
        let new = self.folder.path().join("new");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// Says something to the server and returns what it answers.
    fn steer(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        let body = body.to_string();
        let length = body.len();
        write!(
            stream,
            "{method} /-/{path} HTTP/1.1\r\nHost: objects\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 "), "{head}");
        serde_json::from_str(body).unwrap()
    }

    fn faults(&self, faults: Value) {
        self.steer("POST", "faults", &faults);
    }

    fn reset(&self) {
        self.steer("POST", "reset", &Value::Null);
    }

    fn stats(&self) -> Stats {
        Stats(self.steer("GET", "stats", &Value::Null))
    }

    /// A depot `name` over a bucket, with other settings.
    fn manifest(&self, name: &str, bucket: &str, more: &str) -> String {
        let settings = format!(
            "bucket: {bucket}, region: us-east-1, endpoint: \"http://{}\", pathStyle: true{more}",
            self.address()
        );
        let secret = [
            ("accesskeyid", "AKIATEST"),
            ("secretkey", "canary-s3cret"),
            ("sessiontoken", "canary-t0ken"),
        ];
        depot(name, "S3", &settings, &secret)
    }

    /// One process with the depot `lake`.
    fn serve(&self, more: &str) -> Minerva {
        Minerva::start(&[("lake.yaml", &self.manifest("lake", "lake", more))], 1)
    }
}

/// What the server counted.
struct Stats(Value);

impl Stats {
    fn requests(&self, kind: &str) -> u64 {
        self.0["requests"][kind].as_u64().unwrap()
    }

    fn all(&self) -> u64 {
        ["list", "get", "head", "other"]
            .iter()
            .map(|kind| self.requests(kind))
            .sum()
    }

    /// How many requests of a kind were about a key, or a prefix, that holds this.
    fn about(&self, kind: &str, part: &str) -> usize {
        let log = self.0["log"].as_array().unwrap();
        log.iter()
            .filter(|entry| entry[0] == kind && entry[2].as_str().unwrap().contains(part))
            .count()
    }

    fn log(&self) -> String {
        let lines: Vec<String> = self.0["log"].as_array().unwrap().iter().map(Value::to_string).collect();
        lines.join("\n")
    }
}

/// Impatient settings: two seconds for a request, which is made again once or twice.
const BRISK: &str = ", listing: 0, params: {connect_timeout: 1, request_timeout: 2, retries: 2}";
/// Far more than three attempts of two seconds and the pauses between them, far less than the default settings wait.
const SOON: Duration = Duration::from_secs(25);

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a statement that answers `expected` or fails in time with one of the codes and all of the names. Returns the error, if any.
fn right_or_refused(
    minerva: &Minerva,
    sql: &str,
    expected: &[String],
    codes: &[&str],
    names: &[&str],
) -> Option<String> {
    let begun = Instant::now();
    let output = minerva.run(None, sql, "CSV");
    assert!(begun.elapsed() < SOON, "{sql} took {:?}", begun.elapsed());
    if output.status.success() {
        let rows = String::from_utf8(output.stdout).unwrap();
        let rows: Vec<&str> = rows.lines().skip(1).collect();
        assert_eq!(rows, expected, "{sql}");
        return None;
    }
    let error = errors(&output);
    assert!(
        codes.iter().any(|code| error.contains(code)),
        "{sql}: none of {codes:?} in: {error}"
    );
    for name in names {
        assert!(error.contains(name), "{sql}: no `{name}` in: {error}");
    }
    assert!(!error.contains("canary"), "{error}");
    Some(error)
}

/// The same for a statement that cannot be answered.
fn refused(minerva: &Minerva, sql: &str, codes: &[&str], names: &[&str]) -> String {
    right_or_refused(minerva, sql, &["no rows".to_owned()], codes, names).expect("an error")
}

const UNREACHABLE: &[&str] = &["DEPOT_UNREACHABLE"];
/// What may be said of data that do not come as they should.
const DAMAGE: &[&str] = &["DEPOT_UNREACHABLE", "CORRUPT_DATA", "TABLE_CHANGED"];

/// A statement for each way of reading, and the key that it reads.
const READS: [(&str, &str); 6] = [
    (
        "SELECT count(*), sum(id), sum(price), max(day) FROM lake.shop.numbers WHERE price >= 0 OR name LIKE 'n%'",
        "shop/numbers.parquet",
    ),
    (
        "SELECT count(*), sum(id), sum(amount), max(text) FROM lake.texts.lines",
        "texts/lines.csv",
    ),
    (
        "SELECT count(*), sum(id), sum(amount), max(text) FROM lake.texts.zipped",
        "texts/zipped.csv.gz",
    ),
    (
        "SELECT count(*), sum(id), max(\"in\"['x']) FROM lake.texts.notes",
        "texts/notes.json",
    ),
    (
        "SELECT count(*), sum(id), max(song) FROM lake.texts.birds",
        "texts/birds.avro",
    ),
    (
        "SELECT count(*), sum(id), max(name) FROM lake.texts.trees",
        "texts/trees.arrow",
    ),
];

#[test]
fn tpch_agrees_from_a_store_that_stumbles() {
    let objects = Objects::empty();
    tpch_data::write_parquet(&objects.path("tpch"), 0.05);
    let expected = tpch::oracle(&objects.path("tpch"));
    let manifest = objects.manifest("lake", "lake", ", format: PARQUET");
    let manifests = [("lake.yaml", manifest.as_str())];
    let mut apart = Minerva::start(&manifests, 0);
    apart.add_worker();
    apart.add_worker();
    let place = |table: &str| format!("lake.tpch.{table}");
    for (set_up, minerva) in [
        ("one process", &Minerva::start(&manifests, 1)),
        ("two worker processes", &apart),
    ] {
        // One request in a while is refused, and one answer breaks off.
        let stumbles: Vec<Value> = (1..40)
            .map(|turn| {
                let fault = if turn % 2 == 0 { "status" } else { "cut" };
                json!({"do": fault, "kind": "get", "skip": turn * 15, "times": 1, "after": 1000})
            })
            .collect();
        objects.faults(json!(stumbles));
        tpch::compare(set_up, &tpch::answers(minerva, "store", &place), &expected);
    }
    objects.faults(json!([]));
}

#[test]
fn a_server_that_is_busy_for_a_moment_is_asked_again() {
    let objects = Objects::filled();
    for (sql, key) in READS {
        let expected = objects.serve("").rows(None, sql);
        let minerva = objects.serve(", params: {retries: 3}");
        objects.faults(json!([
            {"do": "status", "kind": "list", "times": 2}, {"do": "status", "kind": "get", "times": 2}, {"do": "status", "kind": "head", "times": 1},
        ]));
        assert_eq!(minerva.rows(None, sql), expected, "{key}");
        objects.faults(json!([]));
    }
}

#[test]
fn a_server_that_stays_busy_is_an_error_after_the_retries() {
    let objects = Objects::filled();
    let minerva = objects.serve(BRISK);
    for (sql, key) in READS {
        objects.faults(
            json!([{"do": "status", "kind": "get", "match": key}, {"do": "status", "kind": "head", "match": key}]),
        );
        let error = refused(&minerva, sql, UNREACHABLE, &["`lake`", key, "503"]);
        assert!(
            !error.contains("Please reduce"),
            "the server's words are not ours: {error}"
        );
    }
    objects.faults(json!([{"do": "status", "kind": "list"}]));
    objects.reset();
    let sql = "SELECT * FROM lake.none.loose";
    refused(&minerva, sql, UNREACHABLE, &["`lake`", "503"]);
    let asked = objects.stats().requests("list");
    assert!((3..=12).contains(&asked), "retries: 2, and it was asked {asked} times");
    refused(&minerva, "SHOW TABLES FROM lake.shop", UNREACHABLE, &["`lake`", "503"]);
    // It recovers, and so does the depot.
    objects.faults(json!([]));
    assert_eq!(minerva.rows(None, sql).len(), 2);
    for status in [400, 500, 404, 401] {
        objects.faults(json!([{"do": "status", "status": status, "kind": "list"}]));
        let codes = ["DEPOT_UNREACHABLE", "NOT_FOUND", "INVALID_ARGUMENT"];
        refused(&minerva, sql, &codes, &["`lake`"]);
    }
}

#[test]
fn a_server_that_is_silent_is_an_error_in_time() {
    let objects = Objects::filled();
    let minerva = objects.serve(BRISK);
    objects.faults(json!([{"do": "stall", "kind": "list"}]));
    refused(&minerva, "SELECT * FROM lake.none.loose", UNREACHABLE, &["`lake`"]);
    for (sql, key) in READS {
        for fault in [
            json!({"do": "stall", "match": key}),
            json!({"do": "hang", "after": 7, "match": key}),
        ] {
            objects.faults(json!([fault]));
            refused(&minerva, sql, UNREACHABLE, &["`lake`", key]);
        }
    }
    // Slow, but never silent.
    let sql = "SELECT * FROM lake.none.loose ORDER BY a";
    objects.faults(json!([{"do": "drip", "every": 0.3, "match": "loose.csv", "kind": "get"}]));
    right_or_refused(
        &minerva,
        sql,
        &["1,x".to_owned(), "2,y".to_owned()],
        UNREACHABLE,
        &["`lake`", "loose.csv"],
    );
    // Silent once only.
    for (sql, key) in READS {
        objects.faults(json!([]));
        let expected = minerva.rows(None, sql);
        objects.faults(json!([{"do": "hang", "after": 1000, "match": key, "kind": "get", "times": 1}]));
        right_or_refused(&minerva, sql, &expected, UNREACHABLE, &["`lake`", key]);
    }
}

#[test]
fn an_answer_that_breaks_off_is_never_a_short_answer() {
    let objects = Objects::filled();
    let minerva = objects.serve(BRISK);
    for (sql, key) in READS {
        objects.faults(json!([]));
        let expected = minerva.rows(None, sql);
        for fault in ["cut", "drop", "short"] {
            for after in [0, 5, 3000] {
                for times in [1, -1] {
                    for skip in [0, 1, 2] {
                        objects.faults(json!([{"do": fault, "after": after, "kind": "get", "match": key, "times": times, "skip": skip}]));
                        right_or_refused(&minerva, sql, &expected, DAMAGE, &["`lake`", key]);
                    }
                }
            }
        }
    }
    // A list that breaks off is not the list.
    objects.faults(json!([]));
    let sql = "SHOW TABLES FROM lake.shop";
    let expected = minerva.rows(None, sql);
    for fault in ["cut", "drop", "short", "page"] {
        for (after, times) in [(0, 1), (400, 1), (0, -1), (400, -1)] {
            objects.faults(json!([{"do": fault, "after": after, "kind": "list", "times": times}]));
            right_or_refused(&minerva, sql, &expected, DAMAGE, &["`lake`"]);
        }
    }
}

#[test]
fn an_object_that_changes_under_a_query_is_an_error_or_one_of_both() {
    let objects = Objects::filled();
    let minerva = objects.serve(BRISK);
    let other = Objects::empty();
    for (sql, key) in READS {
        let old = fs::read(objects.path(key)).unwrap();
        let before = minerva.rows(None, sql);
        // As long as the old one, and half of the rows tell that it is another.
        let mut new = old.clone();
        match key {
            "texts/lines.csv" | "texts/notes.json" => new
                .iter_mut()
                .filter(|byte| **byte == b'7')
                .for_each(|byte| *byte = b'8'),
            _ => new.truncate(new.len() / 2),
        }
        other.write("new", &new);
        for skip in 0..4 {
            objects.write(key, &old);
            let replace = json!({"do": "replace", "with": other.path("new"), "kind": "get", "match": key, "skip": skip, "times": 1});
            objects.faults(json!([replace]));
            let output = minerva.run(None, sql, "CSV");
            objects.faults(json!([]));
            let text = errors(&output);
            if output.status.success() {
                let rows: Vec<String> = String::from_utf8(output.stdout)
                    .unwrap()
                    .lines()
                    .skip(1)
                    .map(str::to_owned)
                    .collect();
                let fresh = minerva.run(None, sql, "CSV");
                let after: Vec<String> = String::from_utf8(fresh.stdout)
                    .unwrap()
                    .lines()
                    .skip(1)
                    .map(str::to_owned)
                    .collect();
                assert!(
                    rows == before || rows == after,
                    "a mixture, {key}, after {skip} reads: {rows:?}"
                );
            } else {
                assert!(
                    ["TABLE_CHANGED", "CORRUPT_DATA"].iter().any(|code| text.contains(code))
                        && text.contains("`lake`")
                        && text.contains(key),
                    "{text}"
                );
            }
        }
        objects.write(key, &old);
        assert_eq!(minerva.rows(None, sql), before, "{key}");
    }
}

#[test]
fn damaged_and_foreign_objects_are_named() {
    let objects = Objects::filled();
    let minerva = objects.serve(BRISK);
    for (sql, key) in READS {
        let bytes = fs::read(objects.path(key)).unwrap();
        for damaged in [
            bytes.get(..bytes.len() / 2).unwrap().to_vec(),
            b"not at all".to_vec(),
            Vec::new(),
        ] {
            // Half a text is a text.
            if key.ends_with(".csv") || key.ends_with(".json") && damaged.len() > 10 {
                continue;
            }
            objects.write(key, &damaged);
            let output = minerva.run(None, sql, "CSV");
            let error = errors(&output);
            if output.status.success() {
                assert!(damaged.is_empty() && key.starts_with("texts/"), "{key}");
                continue;
            }
            // A table of nothing has no file to blame.
            let table = key.split('.').next().unwrap().replace('/', ".");
            let of_nothing = damaged.is_empty() && error.contains(&table) && error.contains("empty");
            let named = error.contains("`lake`") && (error.contains(key) || of_nothing);
            assert!(named && !error.contains("GENERIC_INTERNAL"), "{key}: {error}");
        }
        objects.write(key, &bytes);
    }
}

#[test]
fn a_host_that_is_not_there_is_an_error_in_time() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let settings = |address: &str| {
        format!("bucket: lake, region: us-east-1, endpoint: \"http://{address}\", pathStyle: true{BRISK}")
    };
    let secret = [("accesskeyid", "a"), ("secretkey", "b")];
    let manifests = depot("closed", "S3", &settings(&nobody.to_string()), &secret)
        + &depot("unknown", "S3", &settings("no-such-host.invalid:80"), &secret);
    let minerva = Minerva::start(&[("depots.yaml", &manifests)], 1);
    for name in ["closed", "unknown"] {
        refused(&minerva, &format!("SELECT * FROM {name}.c.t"), UNREACHABLE, &[name]);
        refused(&minerva, &format!("SHOW SCHEMAS FROM {name}"), UNREACHABLE, &[name]);
    }
    assert_eq!(minerva.rows(None, "SELECT 1"), ["1"]);
}

#[test]
fn a_server_that_repeats_credentials_or_sends_elsewhere_learns_and_tells_nothing() {
    let (objects, elsewhere) = (Objects::filled(), Objects::filled());
    let lake = objects.manifest("lake", "lake", BRISK);
    let http = |name: &str, secret: &[(&str, &str)]| {
        let settings = format!(
            "url: \"http://{}/lake\", files: [loose.csv], authentication: secret{BRISK}",
            objects.address()
        );
        depot(name, "HTTP", &settings, secret)
    };
    let manifests = lake
        + &http("basic", &[("username", "reader"), ("password", "canary-pa55word")])
        + &http("token", &[("token", "canary-t0ken")]);
    let minerva = Minerva::start(&[("depots.yaml", &manifests)], 1);
    let encoded = "cmVhZGVyOmNhbmFyeS1wYTU1d29yZA==";
    for depot in ["lake", "basic", "token"] {
        let sql = format!("SELECT * FROM {depot}.none.loose");
        assert_eq!(minerva.rows(None, &sql).len(), 2, "{depot}");
        for kind in ["list", "get", "head"] {
            objects.faults(json!([{"do": "echo", "kind": kind}]));
            let output = minerva.run(None, &sql, "CSV");
            let error = errors(&output);
            assert!(
                !error.contains("canary") && !error.contains(encoded) && !error.contains("AKIATEST"),
                "{error}"
            );
        }
        let location = format!("http://{}/lake/loose.csv", elsewhere.address());
        objects.faults(json!([{"do": "redirect", "location": location}]));
        let output = minerva.run(None, &sql, "CSV");
        let error = errors(&output);
        assert!(!error.contains("canary"), "{error}");
        let heard = elsewhere.stats();
        assert!(
            heard.0["signed"] == 0 && heard.0["tokens"] == 0,
            "{depot}: credentials went elsewhere: {} signatures, {} tokens",
            heard.0["signed"],
            heard.0["tokens"]
        );
        objects.faults(json!([]));
    }
    let (_, log) = minerva.server.leave();
    assert!(!log.contains("canary") && !log.contains(encoded), "{log}");
}

#[test]
fn an_error_on_a_worker_names_depot_and_object() {
    let objects = Objects::filled();
    let manifests = objects.manifest(
        "lake",
        "lake",
        ", params: {connect_timeout: 1, request_timeout: 2, retries: 2}",
    ) + "---\nname: gen\nversion: v2alpha\ntype: depot\ndepot: {type: TPCH, tpch: {scale: 0.1}}\n";
    let mut minerva = Minerva::start(&[("depots.yaml", &manifests)], 0);
    minerva.add_worker();
    minerva.add_worker();
    let sql = "SELECT l_returnflag, count(*), sum(n.price) FROM gen.tpch.lineitem JOIN lake.shop.numbers n ON l_orderkey = n.id GROUP BY 1";
    assert_eq!(minerva.rows(None, sql).len(), 3);
    // The footer is known by now: what is asked for are the columns.
    for fault in ["status", "stall", "cut", "short"] {
        objects.faults(json!([{"do": fault, "kind": "get", "match": "numbers", "after": 10}]));
        refused(&minerva, sql, DAMAGE, &["`lake`", "shop/numbers.parquet"]);
    }
    objects.faults(json!([]));
    assert_eq!(minerva.rows(None, sql).len(), 3);
}

/// Until a statement answers this; that a listed object is gone may be said before.
fn wait_for(minerva: &Minerva, sql: &str, expected: &str, within: Duration) {
    let begun = Instant::now();
    loop {
        let output = minerva.run(None, sql, "CSV");
        let (rows, error) = (String::from_utf8_lossy(&output.stdout), errors(&output));
        assert!(output.status.success() || error.contains("TABLE_CHANGED"), "{error}");
        if rows.lines().nth(1) == Some(expected) {
            return;
        }
        assert!(
            begun.elapsed() < within,
            "`{sql}` did not become `{expected}`: {rows}{error}"
        );
    }
}

#[test]
fn a_new_object_is_seen_when_the_list_is_no_longer_kept() {
    let objects = Objects::empty();
    objects.write("c/t/1.csv", "a\n1\n");
    let manifests = objects.manifest("fresh", "lake", ", listing: 0")
        + &objects.manifest("kept", "lake", "")
        + &objects.manifest("long", "lake", ", listing: 3600");
    let minerva = Minerva::start(&[("depots.yaml", &manifests)], 1);
    let count = |depot: &str| format!("SELECT count(*) FROM {depot}.c.t");
    for depot in ["fresh", "kept", "long"] {
        assert_eq!(minerva.rows(None, &count(depot)), ["1"]);
    }
    objects.write("c/t/2.csv", "a\n2\n");
    objects.write("c/u.csv", "a\n2\n");
    assert_eq!(minerva.rows(None, &count("fresh")), ["2"]);
    assert_eq!(minerva.rows(None, "SHOW TABLES FROM fresh.c"), ["t", "u"]);
    assert_eq!(minerva.rows(None, &count("long")), ["1"], "the list is kept");
    wait_for(&minerva, &count("kept"), "2", Duration::from_secs(12));
    // Replaced by one of the same length within the second, and removed.
    objects.write("c/t/2.csv", "a\n2\n3\n");
    assert_eq!(minerva.rows(None, &count("fresh")), ["3"]);
    objects.write("c/t/2.csv", "a\n7\n8\n");
    assert_eq!(minerva.rows(None, "SELECT sum(a) FROM fresh.c.t"), ["16"]);
    fs::remove_file(objects.path("c/t/2.csv")).unwrap();
    assert_eq!(minerva.rows(None, &count("fresh")), ["1"]);
    wait_for(
        &minerva,
        "SELECT count(*), sum(a) FROM kept.c.t",
        "1,1",
        Duration::from_secs(12),
    );
    // What a kept list names and is gone is an error, not fewer rows.
    fs::remove_file(objects.path("c/t/1.csv")).unwrap();
    objects.write("c/t/3.csv", "a\n9\n");
    refused(
        &minerva,
        "SELECT max(a) FROM long.c.t",
        &["TABLE_CHANGED"],
        &["`long`", "c/t/1.csv"],
    );
}

#[test]
fn what_is_known_is_not_asked_again() {
    let objects = Objects::filled();
    let minerva = objects.serve(", listing: 3600");
    for (sql, key) in READS {
        let expected = minerva.rows(None, sql);
        let size = fs::metadata(objects.path(key)).unwrap().len();
        objects.reset();
        assert_eq!(minerva.rows(None, sql), expected);
        let second = objects.stats();
        assert_eq!(
            second.requests("list") + second.requests("head"),
            0,
            "{key}: lists\n{}",
            second.log()
        );
        assert!(second.about("get", key) > 0, "{key}: data are not kept");
        let bytes = second.0["bytes"].as_u64().unwrap();
        // Where a part of a text begins in quotes is known only to who read what is before it, and its beginning is looked at first.
        let (times, beginning) = match key.rsplit('.').next().unwrap() {
            "parquet" => (1, 0),
            "csv" => (2, 1 << 19),
            _ => (1, 1 << 19),
        };
        assert!(
            bytes <= times * size + size / 20 + 4096 + beginning,
            "{key}: {bytes} bytes of a file of {size}:\n{}",
            second.log()
        );
        if key.ends_with(".parquet") {
            // No request of the second time is for the footer, whose length are the last eight bytes but four.
            let end = fs::read(objects.path(key)).unwrap();
            let at = end.len() - 8;
            let footer = u32::from_le_bytes(end.get(at..at + 4).unwrap().try_into().unwrap()) as usize;
            for entry in second.0["log"].as_array().unwrap() {
                let range = entry[3].as_str().unwrap();
                let last: usize = range.rsplit('-').next().unwrap().parse().unwrap();
                assert!(last < at - footer, "the footer again: {range}");
            }
        }
    }
    // What footers answer is answered without a request.
    for sql in [
        "SELECT count(*) FROM lake.shop.numbers",
        "SELECT min(id), max(id) FROM lake.shop.orders",
        "SHOW TABLES FROM lake.texts",
    ] {
        let expected = minerva.rows(None, sql);
        objects.reset();
        assert_eq!(minerva.rows(None, sql), expected);
        assert_eq!(objects.stats().all(), 0, "{sql}\n{}", objects.stats().log());
    }
    // Partitions that a query excludes are not opened; neither are other tables of the depot.
    objects.reset();
    assert_eq!(
        minerva.rows(
            None,
            "SELECT sum(id) FROM lake.shop.sales WHERE year = 2024 AND city = 'Oslo' AND id > 0"
        ),
        ["2235"]
    );
    let asked = objects.stats();
    assert!(
        asked.about("get", "year=2023") <= 2 && asked.about("get", "numbers") == 0,
        "{}",
        asked.log()
    );
    // A table is found by listing its own folder at most, not the whole bucket again and again.
    let begun = objects.serve(", listing: 0");
    objects.reset();
    begun.rows(None, "SELECT * FROM lake.none.loose");
    let lists = objects.stats().requests("list");
    assert!(lists <= 8, "{lists} lists for one table:\n{}", objects.stats().log());
}

#[test]
fn a_hundred_thousand_objects_are_no_trouble() {
    let objects = Objects::empty();
    let crowd = |bucket: &str, keys: u64, pattern: &str| {
        let body = json!({"bucket": bucket, "keys": keys, "pattern": pattern, "body": "a\n1\n", "per": 100});
        objects.steer("POST", "crowd", &body);
    };
    crowd("many", 100_000, "c/t{k:03}/{i:06}.csv");
    crowd("one", 100_000, "c/t/{i:06}.csv");
    let manifests = objects.manifest("many", "many", "") + &objects.manifest("one", "one", ", listing: 3600");
    let minerva = Minerva::start(&[("depots.yaml", &manifests)], 1);
    let begun = Instant::now();
    assert_eq!(minerva.rows(None, "SHOW TABLES FROM many.c").len(), 1000);
    assert_eq!(minerva.rows(None, "SELECT count(*) FROM many.c.t007"), ["100"]);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    // The whole of it, or one error that says what to do.
    let output = minerva.run(None, "SELECT count(*), sum(a) FROM one.c.t", "CSV");
    if output.status.success() {
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).lines().nth(1),
            Some("100000,100000")
        );
    } else {
        let error = errors(&output);
        assert!(
            error.contains("`one`") && !error.contains("GENERIC_INTERNAL"),
            "{error}"
        );
    }
    assert!(begun.elapsed() < Duration::from_secs(400), "{:?}", begun.elapsed());
    let resident = resident_mib(&minerva);
    assert!(resident < 1500, "{resident} MiB");
    assert_eq!(minerva.rows(None, "SELECT count(*) FROM many.c.t008"), ["100"]);
}

fn resident_mib(minerva: &Minerva) -> u64 {
    let status = fs::read_to_string(Path::new("/proc").join(minerva.server.id().to_string()).join("status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

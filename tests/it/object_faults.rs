//! Object stores that misbehave: slow, silent, lying and changing ones.
//!
//! Out comes the right answer, or one error that names depot and object; never a short answer, never a wait without an end.

use std::{fs, process::Stdio};

use serde_json::{Value, json};

use crate::{
    governed_data::script,
    minerva::{Minerva, Server},
    object_server::{BRISK, DAMAGE, Objects, READS, UNREACHABLE, errors, refused, right_or_refused},
    object_stores::depot,
    tpch, tpch_data,
};

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
fn a_server_is_believed_if_its_certificate_is() {
    let objects = Objects::filled();
    let folder = tempfile::tempdir().unwrap();
    let mut front = script("tls_front.py");
    front.arg(objects.address()).arg(folder.path()).stdin(Stdio::piped());
    let front = Server::start(front);
    let (_, port) = front.addresses["front"].rsplit_once(':').unwrap();
    let secret = [("accesskeyid", "a"), ("secretkey", "b")];
    let of = |name: &str, host: &str, roots: &str| {
        let settings = format!("bucket: lake, endpoint: \"https://{host}:{port}\"{roots}{BRISK}");
        depot(name, "S3", &settings, &secret)
    };
    let roots = |file: &str| format!(", rootCertificates: {}", folder.path().join(file).display());
    let manifests = of("known", "localhost", &roots("authority.pem"))
        + &of("stranger", "localhost", "")
        + &of("other", "localhost", &roots("other.pem"))
        + &of("absent", "localhost", &roots("absent.pem"));
    let minerva = Minerva::start(&[("depots.yaml", &manifests)], 1);
    assert_eq!(minerva.rows(None, "SELECT * FROM known.none.loose").len(), 2);
    for name in ["stranger", "other"] {
        let error = refused(
            &minerva,
            &format!("SELECT * FROM {name}.none.loose"),
            UNREACHABLE,
            &[name],
        );
        assert!(error.contains("invalid peer certificate"), "{error}");
    }
    refused(
        &minerva,
        "SELECT * FROM absent.none.loose",
        &["INVALID_ARGUMENT"],
        &["absent.pem", "cannot be read"],
    );
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
        assert!(error.contains("leads elsewhere"), "{error}");
        let heard = elsewhere.stats();
        assert_eq!(heard.all(), 0, "{depot}: it was followed");
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
        ", cache: 0, params: {connect_timeout: 1, request_timeout: 2, retries: 2}",
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

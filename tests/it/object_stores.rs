//! Object stores as sources of the whole program: Google's, Azure's and HTTP, each from a server that checks who asks. S3 has a file of its own.
//!
//! A store must answer what a depot of type `file` answers over the same files, in one process and on workers; whoever may not read
//! is refused with the name of depot and bucket; and nothing that leaves the program shows a credential. What happens when a server
//! misbehaves is in `object_faults.rs`.

use std::{
    path::PathBuf,
    process::{Output, Stdio},
};

use tempfile::TempDir;

use crate::{
    governed_data::{run, script},
    minerva::{Minerva, Server},
};

/// One of the servers of `tests/python/object_stores.py`, and the folder of what it holds.
pub(crate) struct Stores {
    server: Server,
    folder: TempDir,
}

impl Stores {
    pub(crate) fn start(what: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = script("object_stores.py");
        command.arg(folder.path()).arg(what).stdin(Stdio::piped());
        Self {
            server: Server::start(command),
            folder,
        }
    }

    /// What it printed: an address, a key.
    pub(crate) fn says(&self, name: &str) -> &str {
        &self.server.addresses[name]
    }

    /// A depot of type `file` over the same files.
    pub(crate) fn local(&self) -> String {
        local(&self.folder.path().join("lake"))
    }
}

/// A depot `local` over a folder, and one that makes any query worth several tasks.
fn local(lake: &std::path::Path) -> String {
    format!(
        "name: local\nversion: v2alpha\ntype: depot\ndepot: {{type: FILE, file: {{path: {}}}}}\n---\n\
         name: gen\nversion: v2alpha\ntype: depot\ndepot: {{type: TPCH, tpch: {{scale: 0.1}}}}\n",
        lake.display()
    )
}

/// A depot with the settings of its block and, where there are any, the keys of its secret.
pub(crate) fn depot(name: &str, kind: &str, settings: &str, secret: &[(&str, &str)]) -> String {
    let mut text = format!(
        "---\nname: {name}\nversion: v2alpha\ntype: depot\ndepot:\n  type: {kind}\n  {}: {{{settings}}}\n",
        kind.to_lowercase()
    );
    if !secret.is_empty() {
        let data: Vec<String> = secret.iter().map(|(key, value)| format!("{key}: {value:?}")).collect();
        text += &format!(
            "  secrets: [{{name: {name}-r}}]\n---\nname: {name}-r\nversion: v1\ntype: instance-secret\ninstance-secret: \
             {{type: key-value-properties, acl: r, data: {{{}}}}}\n",
            data.join(", ")
        );
    }
    text
}

/// Two set-ups of the same manifests: one process, and two worker processes.
pub(crate) fn set_ups(manifests: &str) -> [(&'static str, Minerva); 2] {
    let files = [("depots.yaml", manifests)];
    let one = Minerva::start(&files, 1);
    let mut apart = Minerva::start(&files, 0);
    apart.add_worker();
    apart.add_worker();
    [("one process", one), ("two worker processes", apart)]
}

/// `{}` is the depot. Every format, several files, partitions, parts of files, names that a URL has to quote, and what is listed.
pub(crate) const QUERIES: [&str; 21] = [
    "SHOW SCHEMAS FROM {}",
    "SHOW TABLES FROM {}.shop",
    "SHOW TABLES FROM {}.texts",
    "SHOW TABLES FROM {}.none",
    "DESCRIBE {}.shop.sales",
    "SELECT count(*), sum(id), sum(price), min(name), count(name), max(day) FROM {}.shop.numbers",
    "SELECT * FROM {}.shop.numbers WHERE id BETWEEN 99990 AND 100010 ORDER BY id",
    "SELECT name, count(*), sum(price) FROM {}.shop.numbers GROUP BY name ORDER BY name",
    "SELECT * FROM {}.shop.people ORDER BY id",
    "SELECT * FROM {}.shop.orders ORDER BY id",
    "SELECT year, city, count(*), sum(id), max(name) FROM {}.shop.sales GROUP BY 1, 2 ORDER BY 1, 2",
    "SELECT * FROM {}.shop.sales WHERE year = 2024 AND city = 'a+b&c' ORDER BY id",
    "SELECT * FROM {}.shop.sales WHERE city = 'São Paulo' OR city IS NULL ORDER BY id",
    "SELECT count(*), sum(id), sum(amount), min(day), max(text) FROM {}.texts.lines",
    "SELECT count(*), sum(id), sum(amount), min(day), max(text) FROM {}.texts.zipped",
    "SELECT id, array_to_string(tags, '|'), \"in\"['x'] FROM {}.texts.notes WHERE id % 500 = 3 ORDER BY id",
    "SELECT k, v FROM {}.texts.parts ORDER BY k",
    "SELECT count(*), sum(id), min(song), count(song) FROM {}.texts.birds",
    "SELECT count(*), sum(id), max(day), min(name) FROM {}.texts.trees",
    "SELECT * FROM {}.none.loose ORDER BY a",
    "SELECT l_returnflag, count(*), sum(n.price), sum(t.amount) FROM gen.tpch.lineitem JOIN {}.shop.numbers n ON l_orderkey = n.id \
     LEFT JOIN {}.texts.lines t ON t.id = n.id GROUP BY 1 ORDER BY 1",
];

/// Where the files lie in a bucket.
pub(crate) const WAREHOUSE: &str = ", relativePath: warehouse";

/// Asks both depots everything.
pub(crate) fn agree(what: &str, minerva: &Minerva, depot: &str, queries: &[&str]) {
    for query in queries {
        let expected = minerva.rows(None, &query.replace("{}", "local"));
        assert!(!expected.is_empty(), "{query}");
        let found = minerva.rows(None, &query.replace("{}", depot));
        assert_eq!(found, expected, "{what}, depot `{depot}`: {query}");
    }
}

/// That a statement fails with this code, and names all of this.
pub(crate) fn refused(minerva: &Minerva, sql: &str, code: &str, names: &[&str]) -> String {
    let error = minerva.error(None, sql);
    assert!(error.contains(code), "{sql}: no {code} in: {error}");
    for name in names {
        assert!(error.contains(name), "{sql}: no `{name}` in: {error}");
    }
    error
}

pub(crate) fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// That nothing a person can see holds one of these: plans, errors, listings, the history, the log. Ends the servers.
pub(crate) fn no_credential_is_shown(minerva: Minerva, tables: &[&str], credentials: &[&str]) {
    let mut shown = String::new();
    for table in tables {
        for statement in [
            "EXPLAIN SELECT * FROM",
            "EXPLAIN ANALYZE SELECT * FROM",
            "EXPLAIN VERBOSE SELECT * FROM",
            "EXPLAIN (FORMAT JSON) SELECT * FROM",
            "SELECT no_such_column FROM",
            "SELECT count(*) FROM",
            "DESCRIBE",
            "SHOW CREATE TABLE",
            "DROP TABLE",
        ] {
            shown += &text_of(&minerva.run(None, &format!("{statement} {table}"), "CSV"));
        }
    }
    for sql in [
        "SHOW CATALOGS",
        "SELECT * FROM system.information_schema.tables",
        "SELECT * FROM system.runtime.queries",
        "SELECT * FROM system.runtime.nodes",
    ] {
        shown += &text_of(&minerva.run(None, sql, "CSV"));
    }
    let checked = crate::minerva::program().arg("check").arg(minerva.resources()).output();
    shown += &text_of(&checked.unwrap());
    let Minerva {
        server,
        workers,
        folder,
    } = minerva;
    for server in std::iter::once(server).chain(workers) {
        let (orderly, log) = server.leave();
        assert!(orderly, "{log}");
        shown += &log;
    }
    drop(folder);
    assert!(shown.len() > 1000, "there was something to look at");
    for credential in credentials {
        let line = shown.lines().find(|line| line.contains(credential));
        assert!(line.is_none(), "a credential is shown: {}", line.unwrap_or_default());
    }
}

// ---- Google's ------------------------------------------------------------------------------------------------------------

fn gcs(stores: &Stores, name: &str, bucket: &str, more: &str, key: Option<&str>) -> String {
    let settings = format!("bucket: {bucket}, endpoint: \"http://{}\"{more}", stores.says("gcs"));
    match key {
        None => depot(name, "GCS", &settings, &[]),
        Some(key) => depot(name, "GCS", &settings, &[("gcskey_json", &key_file(stores, key))]),
    }
}

fn key_file(stores: &Stores, name: &str) -> String {
    std::fs::read_to_string(stores.says(&format!("{name}-key"))).unwrap()
}

#[test]
fn gcs_answers_as_the_files_do_to_who_may_read() {
    let stores = Stores::start("gcs");
    let from_file = depot(
        "filed",
        "GCS",
        &format!(
            "bucket: lake, relativePath: warehouse, endpoint: \"http://{}\"",
            stores.says("gcs")
        ),
        &[("gcskey_json", "?")],
    );
    let file = format!("files: {{gcskey_json: {}}}", stores.says("reader-key"));
    let from_file = from_file.replace("data: {gcskey_json: \"?\"}", &file);
    let manifests = stores.local()
        + &gcs(&stores, "lake", "lake", WAREHOUSE, Some("reader"))
        + &from_file
        + &gcs(&stores, "everybody", "public", ", authentication: anonymous", None)
        + &gcs(&stores, "impostor", "lake", WAREHOUSE, Some("impostor"))
        + &gcs(&stores, "stranger", "lake", WAREHOUSE, Some("stranger"))
        + &gcs(&stores, "nobody", "lake", ", authentication: anonymous", None)
        + &gcs(&stores, "gone", "missing", "", Some("reader"));
    for (set_up, minerva) in set_ups(&manifests) {
        agree(set_up, &minerva, "lake", &QUERIES);
        agree(set_up, &minerva, "filed", &[QUERIES[1], QUERIES[5]]);
        agree(set_up, &minerva, "everybody", &[QUERIES[19]]);
        for depot in ["impostor", "stranger", "nobody"] {
            let sql = format!("SELECT * FROM {depot}.none.loose");
            refused(&minerva, &sql, "DEPOT_UNREACHABLE", &[depot, "lake", "denied"]);
        }
        refused(
            &minerva,
            "SELECT * FROM gone.none.loose",
            "NOT_FOUND",
            &["gone", "missing"],
        );
        // The lines in the midst of the private keys.
        let lines: Vec<String> = ["reader", "impostor", "stranger"]
            .iter()
            .map(|name| key_file(&stores, name).split("\\n").nth(3).unwrap().to_owned())
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).chain(["Bearer", "eyJ"]).collect();
        let tables = [
            "lake.shop.numbers",
            "filed.texts.lines",
            "impostor.none.loose",
            "stranger.none.loose",
        ];
        no_credential_is_shown(minerva, &tables, &lines);
    }
}

// ---- Azure's -------------------------------------------------------------------------------------------------------------

#[test]
fn azure_answers_as_the_files_do_to_who_may_read() {
    let stores = Stores::start("azure");
    let (account, key) = (stores.says("account"), stores.says("key"));
    let azure = |name: &str, container: &str, more: &str, secret: &[(&str, &str)]| {
        let settings = format!(
            "account: {account}, container: {container}, endpoint: \"http://{}/{account}\"{more}",
            stores.says("azure")
        );
        depot(name, "ABFSS", &settings, secret)
    };
    let shared = |key| [("azurestorageaccountname", account), ("azurestorageaccountkey", key)];
    let signed = |name: &str| [("sastoken", stores.says(name).to_owned())];
    let wrong = "d3JvbmcgYW5kIGxvbmcgZW5vdWdoIHRvIGJlIGEga2V5IG9mIGFuIGFjY291bnQgaGVyZQ==";
    let mut manifests = stores.local()
        + &azure("lake", "lake", WAREHOUSE, &shared(key))
        + &azure("everybody", "public", ", authentication: anonymous", &[])
        + &azure("wrong", "lake", WAREHOUSE, &shared(wrong))
        + &azure("nobody", "lake", ", authentication: anonymous", &[])
        + &azure("gone", "missing", "", &shared(key));
    for (depot, token) in [
        ("signed", "sas"),
        ("expired", "sas-expired"),
        ("elsewhere", "sas-elsewhere"),
        ("listless", "sas-without-list"),
    ] {
        let [(name, token)] = signed(token);
        manifests += &azure(depot, "lake", WAREHOUSE, &[(name, &token)]);
    }
    // With its question mark, as portals show it.
    let [(name, token)] = signed("sas");
    manifests += &azure("asked", "lake", WAREHOUSE, &[(name, &format!("?{token}"))]);
    for (set_up, minerva) in set_ups(&manifests) {
        agree(set_up, &minerva, "lake", &QUERIES);
        agree(
            set_up,
            &minerva,
            "signed",
            &[QUERIES[1], QUERIES[5], QUERIES[11], QUERIES[12], QUERIES[14]],
        );
        agree(set_up, &minerva, "asked", &[QUERIES[19]]);
        agree(set_up, &minerva, "everybody", &[QUERIES[19]]);
        let denied = ["wrong", "nobody", "expired", "elsewhere", "listless"];
        for depot in denied {
            let sql = format!("SELECT * FROM {depot}.none.loose");
            refused(&minerva, &sql, "DEPOT_UNREACHABLE", &[depot, "lake", "denied"]);
        }
        refused(
            &minerva,
            "SELECT * FROM gone.none.loose",
            "NOT_FOUND",
            &["gone", "missing"],
        );
        let signatures: Vec<String> = ["sas", "sas-expired", "sas-elsewhere", "sas-without-list"]
            .iter()
            .map(|name| stores.says(name).split("sig=").nth(1).unwrap().to_owned())
            .collect();
        let mut credentials: Vec<&str> = signatures.iter().map(String::as_str).collect();
        credentials.extend([key, wrong, "sig="]);
        let tables = [
            "lake.shop.numbers",
            "signed.texts.lines",
            "expired.none.loose",
            "listless.none.loose",
        ];
        no_credential_is_shown(minerva, &tables, &credentials);
    }
}

// ---- HTTP ----------------------------------------------------------------------------------------------------------------

/// The files that servers without listings are told, below the folder of the data.
const FILES: &str = "files: [shop/numbers.parquet, shop/people.parquet, shop/orders/2023/1.parquet, shop/orders/2024/2.parquet, \
                     \"shop/sales/year=2023/city=Oslo/part 1.parquet\", \"shop/sales/year=2023/city=São Paulo/part 1.parquet\", \
                     \"shop/sales/year=2024/city=Oslo/part 1.parquet\", \"shop/sales/year=2024/city=a+b&c/part 1.parquet\", \
                     \"shop/sales/year=2025/city=__HIVE_DEFAULT_PARTITION__/part 1.parquet\", texts/lines.csv, texts/zipped.csv.gz, \
                     texts/notes.json, texts/parts/0.csv, texts/parts/1.csv, texts/parts/2.csv, texts/birds.avro, texts/trees.arrow, loose.csv]";

#[test]
fn http_answers_as_the_files_do_to_who_may_read() {
    let stores = Stores::start("http");
    let http = |name: &str, server: &str, path: &str, more: &str, secret: &[(&str, &str)]| {
        let settings = format!("url: \"http://{}{path}\"{more}", stores.says(server));
        depot(name, "HTTP", &settings, secret)
    };
    let password = [("username", "reader"), ("password", "dav-pa55word")];
    let named = format!(", {FILES}");
    let manifests = stores.local()
        + &http("dav", "dav", "/files", ", authentication: secret", &password)
        + &http("slashed", "dav", "/files/", ", authentication: secret", &password)
        + &http("open", "dav-open", "/files", "", &[])
        + &http("ranges", "ranges", "/lake", &named, &[])
        + &http(
            "token",
            "ranges-token",
            "/lake",
            &format!("{named}, authentication: secret"),
            &[("token", "t0ken-of-the-tests")],
        )
        + &http("single", "ranges", "/lake/shop/people.parquet", "", &[])
        + &http("plain", "plain", "", &named, &[])
        + &http(
            "wrong",
            "dav",
            "/files",
            ", authentication: secret",
            &[("username", "reader"), ("password", "wr0ng-passw0rd")],
        )
        + &http("nobody", "dav", "/files", ", authentication: anonymous", &[])
        + &http(
            "forger",
            "ranges-token",
            "/lake",
            &format!("{named}, authentication: secret"),
            &[("token", "f0rged-token")],
        )
        + &http("nowhere", "dav-open", "/nothing", "", &[])
        + &http("lost", "ranges", "/lake", ", files: [c/t.parquet]", &[])
        + &http("listless", "plain", "", "", &[]);
    for (set_up, minerva) in set_ups(&manifests) {
        agree(set_up, &minerva, "dav", &QUERIES);
        for depot in ["slashed", "open"] {
            agree(set_up, &minerva, depot, &[QUERIES[1], QUERIES[5], QUERIES[11]]);
        }
        agree(set_up, &minerva, "ranges", &QUERIES);
        agree(set_up, &minerva, "token", &[QUERIES[5], QUERIES[12], QUERIES[14]]);
        assert_eq!(minerva.rows(None, "SELECT count(*) FROM single.none.people"), ["40"]);
        // Python's server knows no parts of files. What needs them says so; nothing is answered by halves.
        for query in QUERIES.iter().skip(5) {
            let output = minerva.run(None, &query.replace("{}", "plain"), "CSV");
            let errors = String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                let expected = minerva.run(None, &query.replace("{}", "local"), "CSV");
                assert_eq!(output.stdout, expected.stdout, "{set_up}: {query}");
            } else {
                assert!(
                    errors.contains("NOT_SUPPORTED") && errors.contains("plain") && errors.contains("range"),
                    "{set_up}: {query}: {errors}"
                );
            }
        }
        for (depot, names) in [("wrong", "denied"), ("nobody", "denied"), ("forger", "denied")] {
            let sql = format!("SELECT * FROM {depot}.none.loose");
            refused(&minerva, &sql, "DEPOT_UNREACHABLE", &[depot, names]);
        }
        refused(&minerva, "SELECT * FROM nowhere.c.t", "NOT_FOUND", &["nowhere"]);
        refused(&minerva, "SELECT * FROM lost.c.t", "", &["lost", "c/t.parquet"]);
        // A server that does not list is asked to be told the files.
        refused(
            &minerva,
            "SELECT * FROM listless.none.loose",
            "",
            &["listless", "files"],
        );
        let basic = ["cmVhZGVyOmRhdi1wYTU1d29yZA==", "cmVhZGVyOndyMG5nLXBhc3N3MHJk"];
        let credentials = [
            "dav-pa55word",
            "wr0ng-passw0rd",
            "t0ken-of-the-tests",
            "f0rged-token",
            basic[0],
            basic[1],
        ];
        let tables = [
            "dav.shop.numbers",
            "token.texts.lines",
            "wrong.none.loose",
            "forger.none.loose",
        ];
        no_credential_is_shown(minerva, &tables, &credentials);
    }
}

/// The folder that all stores hold, without a server.
#[test]
fn the_queries_that_stores_are_compared_by_have_answers() {
    let folder = tempfile::tempdir().unwrap();
    run(script("object_stores.py").arg(folder.path()).arg("files"));
    let lake: PathBuf = folder.path().join("lake");
    let minerva = Minerva::start(&[("depots.yaml", &local(&lake))], 1);
    for query in QUERIES {
        let rows = minerva.rows(None, &query.replace("{}", "local"));
        assert!(!rows.is_empty(), "{query}");
    }
    assert_eq!(
        minerva.rows(None, "SHOW TABLES FROM local.shop"),
        ["numbers", "orders", "people", "sales"]
    );
    let sales = minerva.rows(
        None,
        "SELECT city, count(*) FROM local.shop.sales GROUP BY 1 ORDER BY 1",
    );
    assert_eq!(sales, ["Oslo,60", "São Paulo,30", "a+b&c,30", ",30"]);
}

//! Object stores as sources of the whole program: S3 with IAM, Google's, Azure's and HTTP, each from a server that checks who asks.
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
    fn start(what: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = script("object_stores.py");
        command.arg(folder.path()).arg(what).stdin(Stdio::piped());
        Self {
            server: Server::start(command),
            folder,
        }
    }

    /// What it printed: an address, a key.
    fn says(&self, name: &str) -> &str {
        &self.server.addresses[name]
    }

    /// A depot of type `file` over the same files.
    fn local(&self) -> String {
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

fn keys<'a>(key: &'a str, secret: &'a str) -> [(&'static str, &'a str); 2] {
    [("accesskeyid", key), ("secretkey", secret)]
}

/// Two set-ups of the same manifests: one process, and two worker processes.
fn set_ups(manifests: &str) -> [(&'static str, Minerva); 2] {
    let files = [("depots.yaml", manifests)];
    let one = Minerva::start(&files, 1);
    let mut apart = Minerva::start(&files, 0);
    apart.add_worker();
    apart.add_worker();
    [("one process", one), ("two worker processes", apart)]
}

/// `{}` is the depot. Every format, several files, partitions, parts of files, names that a URL has to quote, and what is listed.
const QUERIES: [&str; 21] = [
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

/// Asks both depots everything.
fn agree(what: &str, minerva: &Minerva, depot: &str, queries: &[&str]) {
    for query in queries {
        let expected = minerva.rows(None, &query.replace("{}", "local"));
        assert!(!expected.is_empty(), "{query}");
        let found = minerva.rows(None, &query.replace("{}", depot));
        assert_eq!(found, expected, "{what}, depot `{depot}`: {query}");
    }
}

/// That a statement fails with this code, and names all of this.
fn refused(minerva: &Minerva, sql: &str, code: &str, names: &[&str]) -> String {
    let error = minerva.error(None, sql);
    assert!(error.contains(code), "{sql}: no {code} in: {error}");
    for name in names {
        assert!(error.contains(name), "{sql}: no `{name}` in: {error}");
    }
    error
}

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// That nothing a person can see holds one of these: plans, errors, listings, the history, the log. Ends the servers.
fn no_credential_is_shown(minerva: Minerva, tables: &[&str], credentials: &[&str]) {
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

// ---- S3 ------------------------------------------------------------------------------------------------------------------

fn s3(stores: &Stores, name: &str, bucket: &str, more: &str, secret: &[(&str, &str)]) -> String {
    let settings = format!(
        "bucket: {bucket}, region: us-east-1, endpoint: \"http://{}\", pathStyle: true{more}",
        stores.says("s3")
    );
    depot(name, "S3", &settings, secret)
}

const WAREHOUSE: &str = ", relativePath: warehouse";

#[test]
fn s3_answers_as_the_files_do() {
    let stores = Stores::start("s3");
    let reader = keys(stores.says("reader-key"), stores.says("reader-secret"));
    let guest = [
        ("accesskeyid", stores.says("guest-key")),
        ("secretkey", stores.says("guest-secret")),
        ("sessiontoken", stores.says("guest-token")),
    ];
    let manifests = stores.local()
        + &s3(&stores, "lake", "lake", WAREHOUSE, &reader)
        + &s3(&stores, "slashed", "lake", ", relativePath: /warehouse/", &reader)
        + &s3(&stores, "guests", "lake", WAREHOUSE, &guest)
        + &s3(&stores, "everybody", "public", ", authentication: anonymous", &[])
        + &s3(&stores, "vacant", "empty", "", &reader)
        + &s3(
            &stores,
            "marked",
            "marked",
            ", relativePath: warehouse, format: PARQUET",
            &reader,
        );
    for (set_up, minerva) in set_ups(&manifests) {
        agree(set_up, &minerva, "lake", &QUERIES);
        let few = [QUERIES[1], QUERIES[5], QUERIES[19]];
        agree(set_up, &minerva, "slashed", &few);
        agree(set_up, &minerva, "guests", &few);
        agree(set_up, &minerva, "everybody", &[QUERIES[3], QUERIES[19]]);
        // Empty objects that stand for folders are no files, even where every file counts.
        agree(set_up, &minerva, "marked", &[QUERIES[8], QUERIES[9]]);
        assert_eq!(minerva.rows(None, "SHOW TABLES FROM marked.shop"), ["orders", "people"]);
        assert_eq!(
            minerva.rows(
                None,
                "SELECT count(*) FROM vacant.information_schema.tables WHERE table_schema <> 'information_schema'"
            ),
            ["0"]
        );
        refused(&minerva, "SELECT * FROM vacant.c.t", "NOT_FOUND", &["vacant"]);
        if set_up != "one process" {
            // The scan is below a stage that workers run; the depot is opened there by its name.
            let plan = minerva.rows(None, &format!("EXPLAIN {}", QUERIES[20].replace("{}", "lake")));
            let stage = plan.iter().position(|line| line.contains("Stage 1")).expect("stages");
            assert!(
                plan.iter().skip(stage).any(|line| line.contains("numbers.parquet")),
                "{}",
                plan.join("\n")
            );
        }
        let tables = ["lake.shop.numbers", "guests.texts.lines", "lake.none.loose"];
        let credentials = [reader[0].1, reader[1].1, guest[0].1, guest[1].1, guest[2].1];
        no_credential_is_shown(minerva, &tables, &credentials);
    }
}

#[test]
fn s3_refuses_who_may_not_read() {
    let stores = Stores::start("s3");
    let wrong = "0123456789abcdefghijKLMNOPQRSTUVWXYZ/+==";
    let (key, secret) = (stores.says("reader-key"), stores.says("reader-secret"));
    let reader = keys(key, secret);
    let lister = keys(stores.says("lister-key"), stores.says("lister-secret"));
    let guest = (stores.says("guest-key"), stores.says("guest-secret"));
    let stale = [
        ("accesskeyid", guest.0),
        ("secretkey", guest.1),
        ("sessiontoken", "a-stale-token"),
    ];
    let manifests = stores.local()
        + &s3(&stores, "right", "lake", WAREHOUSE, &reader)
        + &s3(&stores, "wrong", "lake", WAREHOUSE, &keys(key, wrong))
        + &s3(
            &stores,
            "unknown",
            "lake",
            WAREHOUSE,
            &keys("AKIAUNKNOWNUNKNOWN42", wrong),
        )
        + &s3(&stores, "tokenless", "lake", WAREHOUSE, &keys(guest.0, guest.1))
        + &s3(&stores, "stale", "lake", WAREHOUSE, &stale)
        + &s3(
            &stores,
            "nobody",
            "lake",
            ", relativePath: warehouse, authentication: anonymous",
            &[],
        )
        + &s3(&stores, "foreign", "private", "", &reader)
        + &s3(&stores, "lister", "lake", WAREHOUSE, &lister)
        + &s3(&stores, "gone", "missing", "", &reader)
        + &s3(&stores, "odd", "odd", "", &reader);
    let minerva = Minerva::start(&[("depots.yaml", &manifests)], 1);
    for depot in ["wrong", "unknown", "tokenless", "stale", "nobody"] {
        let table = format!("SELECT * FROM {depot}.none.loose");
        let error = refused(&minerva, &table, "DEPOT_UNREACHABLE", &[depot, "lake", "denied"]);
        assert!(!error.contains(wrong) && !error.contains("a-stale-token"), "{error}");
        refused(
            &minerva,
            &format!("SHOW TABLES FROM {depot}.shop"),
            "DEPOT_UNREACHABLE",
            &[depot, "lake"],
        );
    }
    refused(
        &minerva,
        "SELECT * FROM foreign.none.loose",
        "DEPOT_UNREACHABLE",
        &["foreign", "private", "denied"],
    );
    // May list, may not read.
    refused(
        &minerva,
        "SELECT * FROM lister.none.loose",
        "DEPOT_UNREACHABLE",
        &["lister", "loose.csv", "denied"],
    );
    assert_eq!(minerva.rows(None, "SHOW TABLES FROM lister.none"), ["loose"]);
    refused(
        &minerva,
        "SELECT * FROM gone.none.loose",
        "NOT_FOUND",
        &["gone", "missing"],
    );
    // Keys that cannot be paths spoil nothing beside them, or are named.
    let odd = minerva.run(None, "SELECT * FROM odd.c.good ORDER BY a", "CSV");
    assert!(
        text_of(&odd) == "a,b\n1,x\n2,y\n" || text_of(&odd).contains("NOT_SUPPORTED") && text_of(&odd).contains("odd"),
        "{}",
        text_of(&odd)
    );
    // One depot that cannot be reached does not keep the others from being listed and read.
    agree("one process", &minerva, "right", &[QUERIES[0], QUERIES[19]]);
    let catalogs = minerva.rows(None, "SHOW CATALOGS");
    assert!(catalogs.iter().any(|name| name == "wrong"), "{catalogs:?}");
    no_credential_is_shown(
        minerva,
        &[
            "wrong.none.loose",
            "stale.none.loose",
            "foreign.none.loose",
            "lister.none.loose",
        ],
        &[secret, lister[1].1, guest.1, wrong, "a-stale-token"],
    );
}

#[test]
fn s3_asks_as_the_environment_says() {
    let stores = Stores::start("s3");
    let (key, secret) = (stores.says("reader-key"), stores.says("reader-secret"));
    let manifests = stores.local()
        + &s3(
            &stores,
            "lake",
            "lake",
            ", relativePath: warehouse, authentication: environment",
            &[],
        )
        + &s3(
            &stores,
            "told",
            "lake",
            WAREHOUSE,
            &keys("AKIAUNKNOWNUNKNOWN42", "wrong"),
        )
        + &s3(
            &stores,
            "nobody",
            "lake",
            ", relativePath: warehouse, authentication: anonymous",
            &[],
        );
    let folder = tempfile::tempdir().unwrap();
    let resources = folder.path().join("resources");
    std::fs::create_dir(&resources).unwrap();
    std::fs::write(resources.join("depots.yaml"), manifests).unwrap();
    let mut command = crate::minerva::program();
    command
        .env("AWS_ACCESS_KEY_ID", key)
        .env("AWS_SECRET_ACCESS_KEY", secret);
    // What the environment says beyond credentials does not bend what the manifest says.
    command
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        .env("AWS_ALLOW_HTTP", "false");
    let minerva = Minerva::start_as(command, folder, &resources, 1);
    agree("one process", &minerva, "lake", &[QUERIES[1], QUERIES[5], QUERIES[13]]);
    // It is asked by nobody else.
    for depot in ["told", "nobody"] {
        let sql = format!("SELECT * FROM {depot}.none.loose");
        refused(&minerva, &sql, "DEPOT_UNREACHABLE", &[depot, "lake", "denied"]);
    }
    no_credential_is_shown(minerva, &["lake.shop.numbers", "told.none.loose"], &[key, secret]);
}

#[test]
fn masks_and_filters_are_in_force_on_s3() {
    let stores = Stores::start("s3");
    let reader = keys(stores.says("reader-key"), stores.says("reader-secret"));
    let policies = "\
name: jane
version: v1
type: user
user: {tags: [roles:id:analyst]}
---
name: analysts
version: v1
type: policy
policy:
  access: {subjects: {tags: [[roles:id:analyst]]}, predicates: [select], objects: {paths: ['dataos://lake:shop/*']}, allow: true}
---
name: regions
version: v1
type: policy
policy:
  data:
    type: filter
    priority: 10
    dataset_id: lake.shop.people
    selector: {user: {match: any, tags: [roles:id:analyst]}}
    filters: [{column: region, operator: not_equals, value: ZZ}]
---
name: addresses
version: v1
type: policy
policy:
  data:
    type: mask
    priority: 10
    depot: lake
    selector: {user: {match: any, tags: [roles:id:analyst]}, column: {names: [email]}}
    mask: {operator: redact}
";
    let manifests = s3(&stores, "lake", "lake", WAREHOUSE, &reader);
    let files = [("depots.yaml", manifests.as_str()), ("policies.yaml", policies)];
    for workers in [1, 2] {
        let minerva = Minerva::start(&files, workers);
        let key = minerva.key("jane");
        let jane = Some(("jane", key.as_str()));
        let rows = minerva.rows(
            jane,
            "SELECT id, email, region FROM lake.shop.people ORDER BY id LIMIT 3",
        );
        assert_eq!(rows, ["0,REDACTED,EU", "1,REDACTED,US", "3,REDACTED,EU"]);
        assert_eq!(minerva.rows(jane, "SELECT count(*) FROM lake.shop.people"), ["27"]);
        assert_eq!(minerva.rows(None, "SELECT count(*) FROM lake.shop.people"), ["40"]);
        for sql in [
            "SELECT count(*) FROM lake.shop.people WHERE region = 'ZZ'",
            "SELECT count(*) FROM lake.shop.people WHERE email = 'u1@example.test'",
            "SELECT count(*) FROM lake.shop.people WHERE id = 2",
        ] {
            assert_eq!(minerva.rows(jane, sql), ["0"], "{sql}");
        }
        let error = minerva.error(jane, "SELECT * FROM lake.texts.lines");
        assert!(error.contains("NOT_FOUND"), "{error}");
        for explain in ["EXPLAIN", "EXPLAIN ANALYZE"] {
            let plan = minerva
                .rows(jane, &format!("{explain} SELECT email FROM lake.shop.people"))
                .join("\n");
            assert!(plan.contains("GovernedScan"), "{plan}");
            for below in ["ZZ", "people.parquet", "warehouse", "DataSourceExec", stores.says("s3")] {
                assert!(!plan.contains(below), "{explain} shows `{below}`\n{plan}");
            }
        }
        let plan = minerva
            .rows(None, "EXPLAIN SELECT email FROM lake.shop.people WHERE id < 3")
            .join("\n");
        assert!(plan.contains("people.parquet"), "an operator sees all: {plan}");
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

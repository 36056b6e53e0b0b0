//! S3 behind IAM (moto, which checks every signature and policy): layouts, formats, who may read and who may not, masks and filters.

use crate::{
    minerva::Minerva,
    object_stores::{QUERIES, Stores, WAREHOUSE, agree, depot, no_credential_is_shown, refused, set_ups, text_of},
};

fn keys<'a>(key: &'a str, secret: &'a str) -> [(&'static str, &'a str); 2] {
    [("accesskeyid", key), ("secretkey", secret)]
}

fn s3(stores: &Stores, name: &str, bucket: &str, more: &str, secret: &[(&str, &str)]) -> String {
    let settings = format!(
        "bucket: {bucket}, region: us-east-1, endpoint: \"http://{}\", pathStyle: true{more}",
        stores.says("s3")
    );
    depot(name, "S3", &settings, secret)
}

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
        // `nothing` is a folder without files, which is shown as it is in a folder of this machine.
        assert_eq!(
            minerva.rows(None, "SHOW TABLES FROM marked.shop"),
            ["nothing", "orders", "people"]
        );
        refused(
            &minerva,
            "SELECT * FROM marked.shop.nothing",
            "TABLE_NOT_FOUND",
            &["no data files"],
        );
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

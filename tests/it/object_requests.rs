//! What is asked of an object store: that new objects are seen in time, that nothing is asked twice, and that very many are no trouble.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    minerva::Minerva,
    object_server::{Objects, READS, errors, refused, right_or_refused},
};

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
    // A query that finds an object gone fails, and the next one asks for the list again.
    let sum = "SELECT count(*), sum(a) FROM kept.c.t";
    if let Some(error) = right_or_refused(&minerva, sum, &["1,1".to_owned()], &["TABLE_CHANGED"], &["c/t/2.csv"]) {
        assert!(error.contains("run the query again"), "{error}");
        assert_eq!(minerva.rows(None, sum), ["1,1"]);
    }
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
    let minerva = objects.serve(", listing: 3600, cache: 0");
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
    // By default parts of Parquet objects are kept as well.
    let keeps = objects.serve(", listing: 3600");
    let (sql, key) = READS[0];
    let expected = keeps.rows(None, sql);
    objects.reset();
    assert_eq!(keeps.rows(None, sql), expected);
    assert_eq!(objects.stats().all(), 0, "{key}\n{}", objects.stats().log());
    objects.write(key, fs::read(objects.path(key)).unwrap());
    assert_eq!(keeps.rows(None, sql), expected, "the same bytes of a new version");
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

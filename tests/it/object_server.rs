//! The server of objects whose faults are switched while it runs (`tests/python/object_server.py`), and what may be said of its answers.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    governed_data::{run, script},
    minerva::{Minerva, Server},
    object_stores::depot,
};

/// The server, over a folder with the bucket `lake`.
pub(crate) struct Objects {
    server: Server,
    folder: TempDir,
}

impl Objects {
    /// With the files that the other tests of object stores read.
    pub(crate) fn filled() -> Self {
        let folder = tempfile::tempdir().unwrap();
        run(script("object_stores.py").arg(folder.path()).arg("files"));
        Self::over(folder)
    }

    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("lake")).unwrap();
        Self::over(folder)
    }

    pub(crate) fn over(folder: TempDir) -> Self {
        let mut command = script("object_server.py");
        command.arg(folder.path()).stdin(Stdio::piped());
        Self {
            server: Server::start(command),
            folder,
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.server.addresses["objects"]
    }

    pub(crate) fn path(&self, key: &str) -> PathBuf {
        self.folder.path().join("lake").join(key)
    }

    pub(crate) fn write(&self, key: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // As a store does it: the old object or the new one, nothing in between.
        let new = self.folder.path().join("new");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// Says something to the server and returns what it answers.
    pub(crate) fn steer(&self, method: &str, path: &str, body: &Value) -> Value {
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

    pub(crate) fn faults(&self, faults: Value) {
        self.steer("POST", "faults", &faults);
    }

    pub(crate) fn reset(&self) {
        self.steer("POST", "reset", &Value::Null);
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats(self.steer("GET", "stats", &Value::Null))
    }

    /// A depot `name` over a bucket, with other settings.
    pub(crate) fn manifest(&self, name: &str, bucket: &str, more: &str) -> String {
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
    pub(crate) fn serve(&self, more: &str) -> Minerva {
        Minerva::start(&[("lake.yaml", &self.manifest("lake", "lake", more))], 1)
    }
}

/// What the server counted.
pub(crate) struct Stats(pub(crate) Value);

impl Stats {
    pub(crate) fn requests(&self, kind: &str) -> u64 {
        self.0["requests"][kind].as_u64().unwrap()
    }

    pub(crate) fn all(&self) -> u64 {
        ["list", "get", "head", "other"]
            .iter()
            .map(|kind| self.requests(kind))
            .sum()
    }

    /// How many requests of a kind were about a key, or a prefix, that holds this.
    pub(crate) fn about(&self, kind: &str, part: &str) -> usize {
        let log = self.0["log"].as_array().unwrap();
        log.iter()
            .filter(|entry| entry[0] == kind && entry[2].as_str().unwrap().contains(part))
            .count()
    }

    pub(crate) fn log(&self) -> String {
        let lines: Vec<String> = self.0["log"].as_array().unwrap().iter().map(Value::to_string).collect();
        lines.join("\n")
    }
}

/// Impatient settings: two seconds for a request, which is made again once or twice.
pub(crate) const BRISK: &str = ", listing: 0, cache: 0, params: {connect_timeout: 1, request_timeout: 2, retries: 2}";
/// Far more than three attempts of two seconds and the pauses between them, far less than the default settings wait.
pub(crate) const SOON: Duration = Duration::from_secs(25);

pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a statement that answers `expected` or fails in time with one of the codes and all of the names. Returns the error, if any.
pub(crate) fn right_or_refused(
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
pub(crate) fn refused(minerva: &Minerva, sql: &str, codes: &[&str], names: &[&str]) -> String {
    right_or_refused(minerva, sql, &["no rows".to_owned()], codes, names).expect("an error")
}

pub(crate) const UNREACHABLE: &[&str] = &["DEPOT_UNREACHABLE"];
/// What may be said of data that do not come as they should.
pub(crate) const DAMAGE: &[&str] = &["DEPOT_UNREACHABLE", "CORRUPT_DATA", "TABLE_CHANGED"];

/// A statement for each way of reading, and the key that it reads.
pub(crate) const READS: [(&str, &str); 6] = [
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

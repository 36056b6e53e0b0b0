//! A private MariaDB for one test: its own folder, a socket in it, gone at the end.
//!
//! In: statements. Out: a running server, and a depot over it.

use std::{
    fs,
    io::Write,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// What the depot's user logs in with.
pub(crate) const PASSWORD: &str = "5up3r-s3cret";

/// A server in a folder of its own, gone with the test.
#[derive(Debug)]
pub(crate) struct MariaDb {
    folder: TempDir,
    server: Child,
}

/// A program of MariaDB: in a folder that is named, on the path, or where Debian puts it.
fn program(name: &str) -> PathBuf {
    let named = std::env::var_os("MINERVA_TEST_MARIADB").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = named.into_iter().chain(std::env::split_paths(&path));
    let mut files = folders
        .chain(["/usr/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name));
    files.find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("no `{name}`: run `make mariadb`, or name the folder with MariaDB's programs in MINERVA_TEST_MARIADB")
    })
}

impl MariaDb {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // It refuses to run as root unless it is told to.
        let as_root = (fs::metadata("/proc/self").unwrap().uid() == 0).then_some("--user=root");
        let file = |name: &str| folder.path().join(name).display().to_string();
        let made = Command::new(program("mariadb-install-db"))
            .args([
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ])
            .arg(format!("--datadir={}", file("data")))
            .args(as_root)
            .env("TMPDIR", folder.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let server = Command::new(program("mariadbd"))
            .arg("--no-defaults")
            .args(as_root)
            .arg(format!("--datadir={}", file("data")))
            .arg(format!("--socket={}", file("s")))
            .arg(format!("--pid-file={}", file("pid")))
            .args([
                "--skip-networking",
                "--innodb-flush-log-at-trx-commit=0",
                "--local-infile",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A server that starts removes the temporary tables of all that have the same folder for them.
            .env("TMPDIR", folder.path())
            .spawn()
            .unwrap();
        let mut started = Self { folder, server };
        while !started
            .client("mysql")
            .stdin(Stdio::null())
            .output()
            .unwrap()
            .status
            .success()
        {
            assert!(started.server.try_wait().unwrap().is_none(), "MariaDB does not start");
        }
        started.sql(&format!(
            "CREATE DATABASE shop CHARACTER SET utf8mb4; CREATE USER reader IDENTIFIED BY '{PASSWORD}'; GRANT SELECT ON shop.* TO reader"
        ));
        started
    }

    fn client(&self, database: &str) -> Command {
        let mut command = Command::new(program("mariadb"));
        command
            .arg("--no-defaults")
            .arg(format!("--socket={}", self.socket()))
            .args([
                "--user=root",
                "--batch",
                "--skip-column-names",
                "--local-infile",
                database,
            ]);
        command
    }

    /// What its own client prints of some statements.
    pub(crate) fn sql(&self, statements: &str) -> String {
        let mut client = self.client("mysql");
        let client = client
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut running = client.spawn().unwrap();
        running.stdin.take().unwrap().write_all(statements.as_bytes()).unwrap();
        let done = running.wait_with_output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// A table of the database `shop`, filled from CSV.
    pub(crate) fn load(&self, table: &str, create: &str, rows: &str) {
        let file = self.folder.path().join("rows.csv");
        fs::write(&file, rows).unwrap();
        self.sql(&format!(
            "USE shop; {create}; LOAD DATA LOCAL INFILE '{}' INTO TABLE {table} CHARACTER SET utf8mb4 FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"'",
            file.display()
        ));
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> String {
        self.folder.path().join("s").display().to_string()
    }

    /// A depot `shop` over it.
    pub(crate) fn manifest(&self) -> String {
        format!(
            "name: shop\nversion: v2alpha\ntype: depot\ndepot:\n  type: MYSQL\n  mysql: {{subprotocol: mariadb, host: {}}}\n  \
             secrets: [{{name: shop-r}}]\n---\nname: shop-r\nversion: v1\ntype: instance-secret\n\
             instance-secret:\n  data: {{username: reader, password: {PASSWORD}}}\n",
            self.socket()
        )
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

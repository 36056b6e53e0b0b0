//! A private PostgreSQL for one test: its own folder, a free port, gone at the end.
//!
//! In: statements and scripts. Out: a running server that trusts everybody on this machine, and a depot over it.

use std::{
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// A server in a folder of its own on a free port, gone with the test.
#[derive(Debug)]
pub(crate) struct Postgres {
    port: u16,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    folder: TempDir,
    server: Child,
}

/// Where `initdb`, `postgres` and `psql` are: in a folder that is named, on the path, or where Debian puts them.
fn programs() -> PathBuf {
    let named = std::env::var_os("MINERVA_TEST_POSTGRES").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut folders = named
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(debian.map(|entry| entry.unwrap().path().join("bin")));
    folders
        .find(|folder| {
            ["initdb", "postgres", "psql"]
                .iter()
                .all(|program| folder.join(program).is_file())
        })
        .expect(
            "PostgreSQL's programs: install the package `postgresql`, or name their folder in MINERVA_TEST_POSTGRES",
        )
}

/// PostgreSQL refuses to run as root, so root lends it another user.
fn lent_user() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let line = line
        .or_else(|| users.lines().find(|line| line.starts_with("nobody:")))
        .unwrap();
    let mut ids = line.split(':').skip(2).map(|id| id.parse().unwrap());
    Some((ids.next().unwrap(), ids.next().unwrap()))
}

/// Runs the server on a port; what it says is in the file `log`.
fn serve(programs: &Path, folder: &Path, user: Option<(u32, u32)>, port: u16) -> Child {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    let mut command = Command::new(programs.join("postgres"));
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .args(["-D", "data", "-p", &port.to_string(), "-F"])
        .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Postgres {
    pub(crate) fn start() -> Self {
        let (programs, user, folder) = (programs(), lent_user(), tempfile::tempdir().unwrap());
        let run = |program: &str| {
            let mut command = Command::new(programs.join(program));
            if let Some((user, group)) = user {
                command.uid(user).gid(group);
            }
            command.current_dir(folder.path()).stdin(Stdio::null());
            command
        };
        if let Some((user, group)) = user {
            chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let made = run("initdb")
            .args(["--pgdata", "data", "--username", "reader", "--auth", "trust"])
            .args(["--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = serve(&programs, folder.path(), user, port);
        let postgres = Self {
            port,
            programs: programs.clone(),
            user,
            folder,
            server,
        };
        postgres.wait();
        postgres
    }

    fn wait(&self) {
        while !self.psql("postgres", "SELECT 1").output().unwrap().status.success() {}
    }

    /// Stops it as a crash would.
    pub(crate) fn stop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        // Its children leave when they see that it is gone; the next server waits for them.
        while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {}
    }

    /// Starts it again on the same port.
    pub(crate) fn start_again(&mut self) {
        let has_ended = |server: &mut Child| server.try_wait().unwrap().is_some();
        loop {
            self.server = serve(&self.programs, self.folder.path(), self.user, self.port);
            while !has_ended(&mut self.server) {
                if self.psql("postgres", "SELECT 1").output().unwrap().status.success() {
                    return;
                }
            }
        }
    }

    /// What it has written to its log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Has a user prove who they are from now on.
    pub(crate) fn require_password(&self, user: &str) {
        let file = self.folder.path().join("data/pg_hba.conf");
        let rules = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("host all {user} 127.0.0.1/32 scram-sha-256\n{rules}")).unwrap();
        self.execute("SELECT pg_reload_conf()", b"");
        // The server takes its time to read it.
        while self.as_user(user).output().unwrap().status.success() {}
    }

    fn as_user(&self, user: &str) -> Command {
        let mut command = self.psql("postgres", "SELECT 1");
        command.env("PGPASSWORD", "none").args(["-U", user]);
        command
    }

    /// A new database, filled by a script of `psql`'s.
    pub(crate) fn database(&self, name: &str, script: &Path) {
        self.execute(&format!("CREATE DATABASE {name}"), b"");
        let done = self
            .psql(name, "SET client_min_messages = warning")
            .arg("-f")
            .arg(script)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    pub(crate) fn has_database(&self, name: &str) -> bool {
        self.psql(name, "SELECT 1").output().unwrap().status.success()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn psql(&self, database: &str, sql: &str) -> Command {
        let mut command = Command::new(self.programs.join("psql"));
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "-U",
            "reader",
            "-d",
            database,
        ]);
        command.args(["-v", "ON_ERROR_STOP=1", "-q", "-c", sql]);
        command
    }

    pub(crate) fn execute(&self, sql: &str, input: &[u8]) {
        let mut running = self
            .psql("postgres", sql)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        running.stdin.take().unwrap().write_all(input).unwrap();
        let done = running.wait_with_output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// A session that goes on with a statement until it is killed.
    pub(crate) fn session(&self, sql: &str) -> Child {
        let mut command = self.psql("postgres", sql);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// The rows of a query in the database `postgres`, their values joined by `|`.
    pub(crate) fn ask(&self, sql: &str) -> Vec<String> {
        let answer = self.psql("postgres", sql).args(["-A", "-t"]).output().unwrap();
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
        let text = String::from_utf8(answer.stdout).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// A depot `pg` over it.
    pub(crate) fn manifest(&self) -> String {
        format!(
            "name: pg\nversion: v2alpha\ntype: depot\ndepot:\n  type: POSTGRESQL\n  postgresql: {{host: 127.0.0.1, port: {}, database: postgres, \
             params: {{sslmode: disable}}}}\n  secrets: [{{name: pg-r}}]\n---\nname: pg-r\nversion: v1\ntype: instance-secret\n\
             instance-secret:\n  data: {{username: reader, password: 5up3r-s3cret}}\n",
            self.port
        )
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its children leave when they see that it is gone.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

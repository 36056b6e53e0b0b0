//! A private MariaDB: its own folder, a free port, gone when the test program is gone.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use minerva_connectors::{Depots, Error, Source};
use tempfile::TempDir;

/// The password of the user that depots connect with, with characters that URLs and shells would stumble over.
pub(crate) const PASSWORD: &str = "p'a ss\"w\\o@rd:/%20é";

/// A running server. It ends with the program that started it, however that ends.
pub(crate) struct Server {
    pub(crate) port: u16,
    folder: TempDir,
    keeper: Child,
}

/// The server that the tests share.
pub(crate) fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// A program of MariaDB: in a folder that is named, on the path, or where Debian puts it.
fn program(name: &str) -> PathBuf {
    let named = std::env::var_os("MINERVA_TEST_MARIADB").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = ["/usr/sbin", "/usr/bin"].map(PathBuf::from);
    let folders = named.into_iter().chain(std::env::split_paths(&path)).chain(debian);
    folders
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| {
            panic!(
                "these tests start a MariaDB of their own and find no `{name}`: install the packages `mariadb-server-core` and `mariadb-client-core` \
                 (Debian, Ubuntu: `make mariadb`), or name the folder with the programs in MINERVA_TEST_MARIADB"
            )
        })
}

impl Server {
    pub(crate) fn start() -> Server {
        let folder = tempfile::tempdir().unwrap();
        let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres/tls");
        for name in ["server.pem", "server.key", "ca.pem"] {
            fs::copy(tls.join(name), folder.path().join(name)).unwrap();
        }
        let made = Command::new(program("mariadb-install-db"))
            .args([
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ])
            .arg(format!("--datadir={}", folder.path().join("data").display()))
            .args(as_root())
            .env("TMPDIR", folder.path())
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let (port, keeper) = run(folder.path(), None);
        let server = Server { port, folder, keeper };
        let password = PASSWORD.replace('\'', "''");
        server.sql(
            "mysql",
            &format!(
                "SET sql_mode = 'NO_BACKSLASH_ESCAPES'; CREATE USER reader@'%' IDENTIFIED BY '{password}'; \
                 CREATE USER encrypted@'%' IDENTIFIED BY '{password}' REQUIRE SSL;"
            ),
        );
        server
    }

    /// Stops it at once and starts it again on the same port.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    pub(crate) fn start_again(&mut self) {
        let (_, keeper) = run(self.folder.path(), Some(self.port));
        self.keeper = keeper;
    }

    pub(crate) fn stop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().unwrap();
    }

    fn client(&self, database: &str) -> Command {
        let mut command = Command::new(program("mariadb"));
        command
            .arg("--no-defaults")
            .arg(format!("--socket={}", self.folder.path().join("s").display()))
            .args(["--user=root", "--batch", "--raw", "--skip-column-names"])
            .args(["--default-character-set=utf8mb4", "--max-allowed-packet=512M", database])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// What the server's own client prints of some statements.
    pub(crate) fn sql(&self, database: &str, statements: &str) -> String {
        let mut client = self.client(database).spawn().unwrap();
        let mut input = client.stdin.take().unwrap();
        let statements = statements.to_owned();
        let writing = std::thread::spawn(move || {
            let _ = input.write_all(statements.as_bytes());
        });
        let done = client.wait_with_output().unwrap();
        writing.join().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// A session that carries out what is written to it, until it is dropped.
    pub(crate) fn session(&self, database: &str, statements: &str) -> Session {
        let mut command = self.client(database);
        let mut client = command
            .args(["--unbuffered"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = client.stdin.as_mut().unwrap();
        input
            .write_all(format!("{statements}; SELECT 'done';\n").as_bytes())
            .unwrap();
        input.flush().unwrap();
        let mut line = String::new();
        let mut output = std::io::BufReader::new(client.stdout.take().unwrap());
        while line.trim() != "done" {
            line.clear();
            assert!(
                std::io::BufRead::read_line(&mut output, &mut line).unwrap() > 0,
                "the session ended"
            );
        }
        Session(client)
    }

    /// A new database, made by these statements, and a depot `db` over the server.
    pub(crate) fn database(&self, name: &str, statements: &str) -> Place<'_> {
        self.database_with(name, "", statements)
    }

    pub(crate) fn database_with(&self, name: &str, settings: &str, statements: &str) -> Place<'_> {
        self.sql(
            "mysql",
            &format!("CREATE DATABASE `{name}` CHARACTER SET utf8mb4; GRANT SELECT ON `{name}`.* TO reader@'%', encrypted@'%'"),
        );
        self.sql(name, statements);
        let depots = self.depots("127.0.0.1", settings, "sslmode: disable", "reader", PASSWORD);
        Place {
            depots,
            server: self,
            name: name.to_owned(),
        }
    }

    /// Depots with one, `db`, over the server.
    pub(crate) fn depots(&self, host: &str, settings: &str, params: &str, user: &str, password: &str) -> Arc<Depots> {
        let settings = format!("host: {host}, port: {}, {settings} params: {{{params}}}", self.port);
        depots(&settings, user, password)
    }

    /// The path of its Unix socket.
    pub(crate) fn socket(&self) -> String {
        self.folder.path().join("s").display().to_string()
    }

    /// A file of the folder with the certificates.
    pub(crate) fn certificate(name: &str) -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres/tls");
        folder.join(name).display().to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A client that is still there.
pub(crate) struct Session(Child);

impl Session {
    /// Has it begin a statement whose end nobody waits for.
    pub(crate) fn say(&self, statement: &str) {
        let mut input = self.0.stdin.as_ref().unwrap();
        input.write_all(format!("{statement}\n").as_bytes()).unwrap();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Depots with one, `db`, of these settings.
pub(crate) fn depots(settings: &str, user: &str, password: &str) -> Arc<Depots> {
    depots_with(settings, user, password, "")
}

/// The same, with more lines in the block `depot`.
pub(crate) fn depots_with(settings: &str, user: &str, password: &str, lines: &str) -> Arc<Depots> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db.yaml");
    let password = serde_json::to_string(password).unwrap();
    let manifest = format!(
        "name: db\nversion: v2alpha\ntype: depot\ndepot:\n  type: mysql\n  mysql: {{{settings}}}\n{lines}  \
         secrets: [{{name: db-r}}]\n---\nname: db-r\nversion: v1\ntype: instance-secret\n\
         instance-secret:\n  data: {{username: {user}, password: {password}}}\n"
    );
    fs::write(&file, manifest).unwrap();
    let resources = minerva_resources::load(&[file], &[minerva_connectors::check]).unwrap();
    Arc::new(Depots::new(Arc::new(resources)))
}

/// MariaDB refuses to run as root unless it is told to.
fn as_root() -> Option<&'static str> {
    use std::os::unix::fs::MetadataExt;
    (fs::metadata("/proc/self").unwrap().uid() == 0).then_some("--user=root")
}

/// Starts the server on a free port, or on this one, and waits until it answers.
fn run(folder: &Path, port: Option<u16>) -> (u16, Child) {
    // The server ends when the pipe is closed, which the end of this program does.
    const KEEPER: &str = "\"$@\" >/dev/null 2>&1 </dev/null & server=$!; \
         (while kill -0 $server 2>/dev/null; do sleep 0.2; done; kill $$ 2>/dev/null) & watcher=$!; \
         read nothing; kill -KILL $server 2>/dev/null; wait $server; kill $watcher 2>/dev/null; exit 0";
    for _ in 0..10 {
        let port = port.unwrap_or_else(|| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
        let file = |name: &str| folder.join(name).display().to_string();
        let log = folder.join("log.err");
        let _ = fs::remove_file(&log);
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .arg(program("mariadbd"))
            .arg("--no-defaults")
            .args(as_root())
            .arg(format!("--datadir={}", file("data")))
            .arg(format!("--socket={}", file("s")))
            .arg(format!("--pid-file={}", file("pid")))
            .arg(format!("--log-error={}", file("log.err")))
            .arg(format!("--port={port}"))
            .arg(format!("--ssl-cert={}", file("server.pem")))
            .arg(format!("--ssl-key={}", file("server.key")))
            .arg(format!("--ssl-ca={}", file("ca.pem")))
            .args([
                "--bind-address=127.0.0.1",
                "--innodb-flush-log-at-trx-commit=0",
                "--innodb-buffer-pool-size=64M",
            ])
            .args([
                "--max-allowed-packet=512M",
                "--max-connections=100",
                "--skip-name-resolve",
                "--sync-frm=0",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A server that starts removes the temporary tables of all that have the same folder for them.
            .env("TMPDIR", folder)
            .current_dir(folder)
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) {
            if keeper.try_wait().unwrap().is_some() {
                break;
            }
            let text = fs::read_to_string(&log).unwrap_or_default();
            if text.contains("ready for connections") {
                return (port, keeper);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Somebody else may have taken the port in between.
        drop(keeper.stdin.take());
        keeper.wait().unwrap();
        let text = fs::read_to_string(&log).unwrap_or_default();
        assert!(
            text.contains("Can't start server: Bind on TCP/IP port"),
            "MariaDB does not start: {text}"
        );
    }
    panic!("no free port was found");
}

/// A database, the depot over its server, and the client that changes it behind the depot's back.
pub(crate) struct Place<'a> {
    pub(crate) depots: Arc<Depots>,
    pub(crate) server: &'a Server,
    pub(crate) name: String,
}

impl Place<'_> {
    pub(crate) async fn source(&self) -> Arc<dyn Source> {
        self.depots.open("db").await.unwrap()
    }

    pub(crate) async fn find(&self, database: &str, table: &str) -> Result<Option<Arc<dyn TableProvider>>, Error> {
        let session = context(&self.depots).state();
        self.source().await.dataset(database, table, &session).await
    }

    pub(crate) async fn table(&self, table: &str) -> Arc<dyn TableProvider> {
        self.find(&self.name, table).await.unwrap().unwrap()
    }

    pub(crate) async fn frame(&self, table: &str) -> DataFrame {
        context(&self.depots).read_table(self.table(table).await).unwrap()
    }

    /// All rows of a table, or what is wrong with it.
    pub(crate) async fn rows(&self, table: &str) -> Result<Vec<RecordBatch>, Error> {
        let collected = self.frame(table).await.collect().await;
        collected.map_err(|failure| Error::find(&failure).unwrap_or_else(|| panic!("{failure}")).clone())
    }

    pub(crate) async fn failure(&self, table: &str) -> Error {
        self.rows(table).await.unwrap_err()
    }

    /// What the server's own client prints of some statements.
    pub(crate) fn sql(&self, statements: &str) -> String {
        self.server.sql(&self.name, statements)
    }

    /// Waits until a question is answered with 1.
    pub(crate) async fn until(&self, sql: &str) {
        let begun = Instant::now();
        while self.sql(sql).trim() != "1" {
            assert!(begun.elapsed() < Duration::from_secs(20), "never true: {sql}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub(crate) fn context(depots: &Arc<Depots>) -> SessionContext {
    let config = SessionConfig::new()
        .with_target_partitions(3)
        .with_extension(Arc::clone(depots));
    let state = SessionStateBuilder::new()
        .with_default_features()
        .with_config(config)
        .build();
    SessionContext::new_with_state(state)
}

pub(crate) fn row_count(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Bytes as the server takes them under every `sql_mode`.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("X'{}'", digits.concat())
}

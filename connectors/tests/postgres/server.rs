//! A private PostgreSQL: its own folder, a free port, gone when the test program is gone.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
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
use tokio_postgres::NoTls;

/// The password of the user that depots connect with, with characters that URLs and shells would stumble over.
pub(crate) const PASSWORD: &str = "p'a ss\"w\\o@rd:/%20é";

/// A running server. It ends with the program that started it, however that ends.
pub(crate) struct Server {
    pub(crate) port: u16,
    folder: TempDir,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    keeper: Child,
}

/// The server that the tests share.
pub(crate) fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// Where a program of PostgreSQL is: in a folder that is named, on the path, or where Debian puts them.
fn folder_of(program: &str) -> PathBuf {
    let named = std::env::var_os("MINERVA_TEST_POSTGRES").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.map(|entry| entry.unwrap().path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    let on_path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut folders = named.into_iter().chain(on_path).chain(versions.into_iter().rev());
    folders
        .find(|folder| folder.join(program).is_file())
        .unwrap_or_else(|| {
            panic!(
                "these tests start a PostgreSQL of their own and find no `{program}`: install the package `postgresql` (Debian, \
             Ubuntu: `apt-get install postgresql`), or name the folder with its programs in MINERVA_TEST_POSTGRES"
            )
        })
}

/// PostgreSQL refuses to run as root, so root lends it another user.
fn lent_user() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut parts = line.split(':').skip(2);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    Some(
        find("postgres")
            .or_else(|| find("nobody"))
            .expect("a user that is not root"),
    )
}

impl Server {
    pub(crate) fn start() -> Server {
        let programs = folder_of("initdb");
        let user = lent_user();
        let folder = tempfile::tempdir().unwrap();
        let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres/tls");
        for name in ["server.pem", "server.key", "ca.pem"] {
            fs::copy(tls.join(name), folder.path().join(name)).unwrap();
        }
        fs::set_permissions(folder.path().join("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
        if let Some((user, group)) = user {
            for path in [folder.path().to_owned(), folder.path().join("server.key")] {
                chown(path, Some(user), Some(group)).unwrap();
            }
        }
        let data = folder.path().join("data");
        let mut initdb = as_user(Command::new(programs.join("initdb")), user);
        let made = initdb
            .arg("--pgdata")
            .arg(&data)
            .args([
                "--username=admin",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        fs::write(
            data.join("pg_hba.conf"),
            "host all admin 127.0.0.1/32 trust\nhost replication admin 127.0.0.1/32 trust\nhostssl all encrypted 127.0.0.1/32 scram-sha-256\n\
             host all reader 127.0.0.1/32 scram-sha-256\n",
        )
        .unwrap();
        let mut configuration = fs::OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.conf"))
            .unwrap();
        let path = folder.path().display();
        writeln!(
            configuration,
            "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nautovacuum = off\nmax_connections = 60\n\
             password_encryption = 'scram-sha-256'\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n\
             ssl = on\nssl_cert_file = '{path}/server.pem'\nssl_key_file = '{path}/server.key'"
        )
        .unwrap();
        let (port, keeper) = run(&programs, folder.path(), user, None);
        Server {
            port,
            folder,
            programs,
            user,
            keeper,
        }
    }

    /// Another server that replays what this one does, with more settings. What was done before is there.
    pub(crate) fn standby(&self, settings: &str) -> Server {
        let folder = tempfile::tempdir().unwrap();
        if let Some((user, group)) = self.user {
            chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let data = folder.path().join("data");
        let copied = as_user(
            Command::new(folder_of("pg_basebackup").join("pg_basebackup")),
            self.user,
        )
        .args([
            "--host=127.0.0.1",
            "--username=admin",
            "--write-recovery-conf",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--no-sync",
        ])
        .arg(format!("--port={}", self.port))
        .arg("--pgdata")
        .arg(&data)
        .current_dir(folder.path())
        .output()
        .unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        let mut configuration = fs::OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.conf"))
            .unwrap();
        writeln!(configuration, "{settings}").unwrap();
        let (port, keeper) = run(&self.programs, folder.path(), self.user, None);
        Server {
            port,
            folder,
            programs: self.programs.clone(),
            user: self.user,
            keeper,
        }
    }

    /// Depots with one, `db`, over a database that is there.
    pub(crate) fn reader(&self, database: &str) -> Arc<Depots> {
        self.depots(database, "127.0.0.1", "sslmode: disable", "reader", PASSWORD)
    }

    /// Stops it at once and starts it again on the same port.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    pub(crate) fn start_again(&mut self) {
        let (_, keeper) = run(&self.programs, self.folder.path(), self.user, Some(self.port));
        self.keeper = keeper;
    }

    pub(crate) fn stop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().unwrap();
    }

    /// What it has written of itself.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("data").join("log")).unwrap()
    }

    /// A connection of the user who may do everything.
    pub(crate) async fn admin(&self, database: &str) -> tokio_postgres::Client {
        let settings = format!("host=127.0.0.1 port={} user=admin dbname={database}", self.port);
        let (client, connection) = tokio_postgres::connect(&settings, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// A new database, made by these statements, and a depot `db` over it.
    pub(crate) async fn database(&self, name: &str, statements: &str) -> Place {
        self.database_with(name, "", statements).await
    }

    pub(crate) async fn database_with(&self, name: &str, options: &str, statements: &str) -> Place {
        let admin = self.admin("postgres").await;
        let roles = format!(
            "DO $$ BEGIN PERFORM pg_advisory_lock(1); \
             IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'reader') THEN \
                 CREATE ROLE reader LOGIN PASSWORD '{password}'; CREATE ROLE encrypted LOGIN PASSWORD '{password}'; \
             END IF; PERFORM pg_advisory_unlock(1); END $$",
            password = PASSWORD.replace('\'', "''")
        );
        // Two tests may be first at the same time, and one of them does not see the other's roles yet.
        while let Err(failure) = admin.batch_execute(&roles).await {
            assert!(
                failure.to_string().contains("db error") && failure.code().is_some(),
                "{failure}"
            );
        }
        admin
            .batch_execute(&format!("CREATE DATABASE \"{name}\" {options}"))
            .await
            .unwrap();
        let admin = self.admin(name).await;
        admin.batch_execute(statements).await.unwrap();
        admin
            .batch_execute(
                "GRANT USAGE ON SCHEMA public TO reader, encrypted; \
                 GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader, encrypted",
            )
            .await
            .unwrap();
        let depots = self.depots(name, "127.0.0.1", "sslmode: disable", "reader", PASSWORD);
        Place { depots, admin }
    }

    /// Depots with one, `db`, over a database.
    pub(crate) fn depots(&self, database: &str, host: &str, params: &str, user: &str, password: &str) -> Arc<Depots> {
        let settings = format!(
            "host: {host}, port: {}, database: {database}, params: {{{params}}}",
            self.port
        );
        depots(&settings, user, password)
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
        "name: db\nversion: v2alpha\ntype: depot\ndepot:\n  type: postgresql\n  postgresql: {{{settings}}}\n{lines}  \
         secrets: [{{name: db-r}}]\n---\nname: db-r\nversion: v1\ntype: instance-secret\n\
         instance-secret:\n  data: {{username: {user}, password: {password}}}\n"
    );
    fs::write(&file, manifest).unwrap();
    let resources = minerva_resources::load(&[file], &[minerva_connectors::check]).unwrap();
    Arc::new(Depots::new(Arc::new(resources)))
}

/// Has somebody else than root run a program, which some refuse to.
pub(crate) fn as_lent_user(command: Command) -> Command {
    as_user(command, lent_user())
}

fn as_user(mut command: Command, user: Option<(u32, u32)>) -> Command {
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
    command
}

/// Starts the server on a free port, or on this one, and waits until it answers.
fn run(programs: &Path, folder: &Path, user: Option<(u32, u32)>, port: Option<u16>) -> (u16, Child) {
    // The server ends when the pipe is closed, which the end of this program does.
    const KEEPER: &str = "\"$0\" -D \"$1\" -p \"$2\" >\"$3\" 2>&1 </dev/null & server=$!; \
         (while kill -0 $server 2>/dev/null; do sleep 0.2; done; kill $$ 2>/dev/null) & watcher=$!; \
         read nothing; kill -INT $server 2>/dev/null; wait $server; kill $watcher 2>/dev/null; exit 0";
    for _ in 0..10 {
        let port = port.unwrap_or_else(|| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
        let log = folder.join("data").join("log");
        let _ = fs::remove_file(&log);
        let mut keeper = as_user(Command::new("sh"), user)
            .arg("-c")
            .arg(KEEPER)
            .arg(programs.join("postgres"))
            .arg(folder.join("data"))
            .arg(port.to_string())
            .arg(&log)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir(folder)
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) {
            if keeper.try_wait().unwrap().is_some() {
                break;
            }
            let text = fs::read_to_string(&log).unwrap_or_default();
            if text.contains("ready to accept") {
                return (port, keeper);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Somebody else may have taken the port in between.
        drop(keeper.stdin.take());
        keeper.wait().unwrap();
        let text = fs::read_to_string(&log).unwrap_or_default();
        assert!(text.contains("could not bind"), "PostgreSQL does not start: {text}");
    }
    panic!("no free port was found");
}

/// A database, the depot over it, and a connection to change it behind the depot's back.
pub(crate) struct Place {
    pub(crate) depots: Arc<Depots>,
    pub(crate) admin: tokio_postgres::Client,
}

impl Place {
    pub(crate) async fn source(&self) -> Arc<dyn Source> {
        self.depots.open("db").await.unwrap()
    }

    pub(crate) async fn find(&self, schema: &str, table: &str) -> Result<Option<Arc<dyn TableProvider>>, Error> {
        let session = context(&self.depots).state();
        self.source().await.dataset(schema, table, &session).await
    }

    pub(crate) async fn table(&self, table: &str) -> Arc<dyn TableProvider> {
        self.find("public", table).await.unwrap().unwrap()
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

    /// One column of one row that the server answers with.
    pub(crate) async fn ask<T: for<'a> tokio_postgres::types::FromSql<'a>>(&self, sql: &str) -> T {
        self.admin.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Waits until a question is answered with true.
    pub(crate) async fn until(&self, sql: &str) {
        let begun = Instant::now();
        while !self.ask::<bool>(sql).await {
            assert!(begun.elapsed() < Duration::from_secs(20), "never true: {sql}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Fills a table from the text format of `COPY`.
    pub(crate) async fn fill(&self, table: &str, text: String) {
        let sink = self.admin.copy_in(&format!("COPY {table} FROM STDIN")).await.unwrap();
        futures::pin_mut!(sink);
        futures::SinkExt::send(&mut sink, std::io::Cursor::new(text.into_bytes()))
            .await
            .unwrap();
        futures::SinkExt::close(&mut sink).await.unwrap();
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
    let mut text = String::new();
    write!(text, "\"{}\"", name.replace('"', "\"\"")).unwrap();
    text
}

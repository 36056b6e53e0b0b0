//! A pgbouncer in front of a server, in transaction mode: whoever begins a transaction gets any session that is free.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::pretty::pretty_format_batches;
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use minerva_connectors::conformance::{self, Failure, Subject, stream_of};
use minerva_connectors::{Depots, Error, ErrorKind, ScanExec};
use tempfile::TempDir;
use tokio_postgres::NoTls;

use crate::scans::subject;
use crate::server::{PASSWORD, Place, Server, as_lent_user, context, depots, row_count, shared};

/// A running pooler. It ends with the program that started it.
struct Pooler {
    port: u16,
    folder: TempDir,
    keeper: Child,
}

/// Where it is: named, on the path, or where Debian puts it.
fn program() -> PathBuf {
    let named = std::env::var_os("MINERVA_TEST_PGBOUNCER").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("pgbouncer"));
    let mut places = named.into_iter().chain(on_path).chain(["/usr/sbin/pgbouncer".into()]);
    places.find(|place| place.is_file()).unwrap_or_else(|| {
        panic!(
            "these tests start a pgbouncer of their own and find none: install the package `pgbouncer` (Debian, Ubuntu: `apt-get install \
             pgbouncer`, or `make pgbouncer`), or name the program in MINERVA_TEST_PGBOUNCER"
        )
    })
}

impl Pooler {
    /// With so many sessions of the server for each database and user.
    fn start(server: &Server, sessions: usize, more: &str) -> Pooler {
        const KEEPER: &str = "\"$0\" \"$1\" >\"$2\" 2>&1 </dev/null & pooler=$!; read nothing; kill -INT $pooler 2>/dev/null; wait $pooler; exit 0";
        let folder = tempfile::tempdir().unwrap();
        let (users, settings, log) = (
            folder.path().join("users"),
            folder.path().join("settings"),
            folder.path().join("log"),
        );
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        fs::write(
            &users,
            format!("\"reader\" \"{}\"\n\"admin\" \"\"\n", PASSWORD.replace('"', "\"\"")),
        )
        .unwrap();
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let text = format!(
                "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                 auth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = {sessions}\nmax_client_conn = 200\n\
                 query_wait_timeout = 60\n{more}\n",
                server.port,
                users.display()
            );
            fs::write(&settings, text).unwrap();
            let mut keeper = as_lent_user(Command::new("sh"))
                .arg("-c")
                .arg(KEEPER)
                .args([program(), settings.clone(), log.clone()])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .current_dir(folder.path())
                .spawn()
                .unwrap();
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(20) {
                let said = fs::read_to_string(&log).unwrap_or_default();
                if said.contains("process up") {
                    return Pooler { port, folder, keeper };
                }
                if said.contains("FATAL") {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            // Somebody else may have taken the port in between.
            drop(keeper.stdin.take());
            keeper.wait().unwrap();
            let said = fs::read_to_string(&log).unwrap_or_default();
            assert!(
                said.contains("already in use") || said.contains("cannot listen"),
                "pgbouncer does not start: {said}"
            );
            fs::remove_file(&log).unwrap();
        }
        panic!("no free port was found");
    }

    fn depots(&self, database: &str) -> Arc<Depots> {
        let settings = format!(
            "host: 127.0.0.1, port: {}, database: {database}, params: {{sslmode: disable}}",
            self.port
        );
        depots(&settings, "reader", PASSWORD)
    }

    /// Another client of the same sessions.
    async fn client(&self, database: &str) -> tokio_postgres::Client {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(self.port)
            .user("reader")
            .password(PASSWORD)
            .dbname(database);
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().unwrap();
        if std::thread::panicking() {
            eprintln!(
                "{}",
                fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
            );
        }
    }
}

/// A pooler refuses options that it cannot keep, or is told to ignore them: both are found out.
const WAYS: [&str; 2] = ["", "ignore_startup_parameters = options"];

#[tokio::test(flavor = "multi_thread")]
async fn conforms_behind_a_pooler() {
    let place = shared().database("pool_conforms", "").await;
    let pooler = Pooler::start(shared(), 3, "");
    let direct = subject(&place).await;
    let behind = Subject {
        depots: pooler.depots("pool_conforms"),
        ..direct
    };
    let failures = conformance::check(&behind).await;
    assert!(failures.is_empty(), "{}", Failure::all(&failures));
}

const ODD_SETTINGS: &str = "ALTER DATABASE pool_settings SET DateStyle = 'SQL, DMY'; ALTER DATABASE pool_settings SET IntervalStyle = 'iso_8601';
     ALTER DATABASE pool_settings SET TimeZone = 'Asia/Kolkata'; ALTER DATABASE pool_settings SET extra_float_digits = -5;
     ALTER DATABASE pool_settings SET bytea_output = 'escape'; ALTER DATABASE pool_settings SET default_transaction_read_only = on";

/// What a transaction is set to ends with it: other clients of the same sessions find them as they were.
#[tokio::test(flavor = "multi_thread")]
async fn other_clients_of_the_pooler_are_left_alone() {
    let server = shared();
    let place = server
        .database(
            "pool_settings",
            "CREATE TYPE r AS (d date, t timestamptz, i interval, f float8, b bytea);
             CREATE TABLE printed AS SELECT 1 AS id, ROW('2024-02-01', '2024-02-01 12:00+02', '1 mon 3 h', 0.1::float8 + 0.2::float8, '\\x00ff')::r AS r, timetz '10:00+01' AS z,
                 daterange('2024-02-01', '2024-03-01') AS days;
             CREATE TABLE written (d date, i interval, b bytea); CREATE TYPE mood AS ENUM ('a');
             GRANT USAGE, CREATE ON SCHEMA public TO reader; GRANT ALL ON ALL TABLES IN SCHEMA public TO reader",
        )
        .await;
    place.admin.batch_execute(ODD_SETTINGS).await.unwrap();
    let pooler = Pooler::start(server, 2, "");
    let settings = "SELECT concat_ws('|', current_setting('DateStyle'), current_setting('IntervalStyle'), current_setting('TimeZone'),
         current_setting('extra_float_digits'), current_setting('bytea_output'), current_setting('lock_timeout'),
         current_setting('default_transaction_read_only'), current_setting('statement_timeout'))";
    let (one, two) = (
        pooler.client("pool_settings").await,
        pooler.client("pool_settings").await,
    );
    let before: String = one.simple_query(settings).await.map(text_of).unwrap();
    assert!(
        before.starts_with("SQL, DMY|iso_8601|Asia/Kolkata|-5|escape|0|on|0"),
        "{before}"
    );

    let behind = Place {
        depots: pooler.depots("pool_settings"),
        admin: server.admin("pool_settings").await,
    };
    for _ in 0..3 {
        let rows = behind.rows("printed").await.unwrap();
        let shown = pretty_format_batches(&rows).unwrap().to_string();
        for part in [
            "\"d\": \"2024-02-01\"",
            "\"t\": \"2024-02-01T10:00:00+00:00\"",
            "\"i\": \"1 mon 03:00:00\"",
            "\"f\": 0.30000000000000004",
            "\"b\": \"\\\\x00ff\"",
            "[2024-02-01,2024-03-01)",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert_eq!(
            shown,
            pretty_format_batches(&place.rows("printed").await.unwrap())
                .unwrap()
                .to_string()
        );
    }
    let source = behind.source().await;
    let writer = source.writer().unwrap();
    let rows = place.rows("printed").await.unwrap();
    let schema = Arc::new(Schema::new(vec![Field::new("d", DataType::Date32, true)]));
    let days: Arc<dyn arrow::array::Array> = Arc::new(arrow::array::Date32Array::from(vec![19_754]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![days]).unwrap();
    assert_eq!(
        writer
            .append("public", "written", stream_of(&schema, vec![batch]))
            .await
            .unwrap(),
        1
    );
    assert!(place.ask::<bool>("SELECT d = date '2024-02-01' FROM written").await);
    assert_eq!(rows.len(), 1);
    // A column that became of a type which the client has to ask about.
    let plan = behind.frame("written").await.create_physical_plan().await.unwrap();
    let alter = "SET default_transaction_read_only = off; ALTER TABLE written ALTER i TYPE mood USING 'a'::mood";
    place.admin.batch_execute(alter).await.unwrap();
    let failure = datafusion::physical_plan::collect(plan, context(&behind.depots).task_ctx())
        .await
        .unwrap_err();
    assert_eq!(Error::find(&failure).unwrap().kind, ErrorKind::Changed, "{failure}");
    assert_eq!(row_count(&behind.rows("written").await.unwrap()), 1);

    // All sessions that the pooler has, at the same time.
    one.batch_execute("BEGIN").await.unwrap();
    two.batch_execute("BEGIN").await.unwrap();
    for client in [&one, &two] {
        assert_eq!(client.simple_query(settings).await.map(text_of).unwrap(), before);
        let left = "SELECT count(*)::text FROM pg_prepared_statements";
        assert_eq!(client.simple_query(left).await.map(text_of).unwrap(), "0");
        let temporary = "SELECT count(*)::text FROM pg_class WHERE relpersistence = 't'";
        assert_eq!(client.simple_query(temporary).await.map(text_of).unwrap(), "0");
    }
}

fn text_of(messages: Vec<tokio_postgres::SimpleQueryMessage>) -> String {
    let row = messages.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    row.unwrap()
}

/// More readers than the pooler has sessions wait for each other; none of them holds one that others wait for.
#[tokio::test(flavor = "multi_thread")]
async fn readers_behind_a_pooler_never_wait_for_themselves() {
    let server = shared();
    let statements = "CREATE TABLE large AS SELECT i::int4 AS id, repeat('x', 200) AS filler FROM generate_series(1, 200000) i; ANALYZE large";
    let place = server.database("pool_many", statements).await;
    let parts = |plan: &Arc<dyn datafusion::physical_plan::ExecutionPlan>| {
        plan.downcast_ref::<ScanExec>()
            .unwrap()
            .partitions()
            .iter()
            .flatten()
            .count()
    };
    let plan = place.frame("large").await.create_physical_plan().await.unwrap();
    assert!(parts(&plan) > 1);
    drop(plan);
    for way in WAYS {
        let pooler = Pooler::start(server, 2, way);
        let behind = Arc::new(Place {
            depots: pooler.depots("pool_many"),
            admin: server.admin("pool_many").await,
        });
        let plan = behind.frame("large").await.create_physical_plan().await.unwrap();
        assert_eq!(parts(&plan), 1, "{way}");
        let reading = (0..6).map(|_| {
            let behind = Arc::clone(&behind);
            tokio::spawn(async move { row_count(&behind.rows("large").await.unwrap()) })
        });
        for read in futures::future::join_all(reading).await {
            assert_eq!(read.unwrap(), 200_000, "{way}");
        }
    }
    // One that gives each client a session for itself takes the word that asks for it, or not; both are right.
    let pooler = Pooler::start(server, 20, "pool_mode = session");
    let behind = Place {
        depots: pooler.depots("pool_many"),
        admin: server.admin("pool_many").await,
    };
    assert_eq!(row_count(&behind.rows("large").await.unwrap()), 200_000);
}

/// Whoever leaves has the statement stopped, and a server that is gone behind the pooler is an error.
#[tokio::test(flavor = "multi_thread")]
async fn cancelling_reaches_the_server_behind_a_pooler() {
    let mut server = Server::start();
    let place = server
        .database(
            "pool_cancel",
            "CREATE VIEW endless AS SELECT generate_series(1, 2000000000) AS id, repeat('x', 1000) AS s;
             CREATE VIEW never AS SELECT 1 AS id FROM pg_sleep(1000); CREATE TABLE t AS SELECT generate_series(1, 10) AS id",
        )
        .await;
    let pooler = Pooler::start(&server, 2, "server_login_retry = 1\nquery_wait_timeout = 3");
    let behind = Place {
        depots: pooler.depots("pool_cancel"),
        admin: server.admin("pool_cancel").await,
    };
    let running = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = 'pool_cancel' AND usename = 'reader'
         AND state = 'active' AND query LIKE 'COPY%'";
    for view in ["endless", "never", "endless"] {
        let plan = behind.frame(view).await.create_physical_plan().await.unwrap();
        let mut stream = execute_stream(plan, context(&behind.depots).task_ctx()).unwrap();
        if view == "endless" {
            let first = stream.next().await.unwrap().unwrap();
            assert_eq!(
                first.column(0).as_primitive::<arrow::datatypes::Int32Type>().value(0),
                1
            );
        } else {
            assert!(
                tokio::time::timeout(Duration::from_millis(100), stream.next())
                    .await
                    .is_err()
            );
        }
        place.until(running).await;
        drop(stream);
        place.until(&format!("SELECT NOT ({running})")).await;
    }
    assert_eq!(row_count(&behind.rows("t").await.unwrap()), 10);
    server.restart();
    assert_eq!(
        row_count(&behind.rows("t").await.unwrap()),
        10,
        "dead sessions are replaced"
    );
    server.stop();
    let plan = behind.find("public", "t").await;
    let error = plan.unwrap_err();
    assert!(
        matches!(error.kind, ErrorKind::Busy | ErrorKind::Unreachable),
        "{error}"
    );
}

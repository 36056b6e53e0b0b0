//! A coordinator's part, played by hand: a depot of Parquet files, a cluster port, and sessions over it.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_distributed::{DistributedExt, DistributedMetricsFormat, Worker, display_plan_ascii};
use futures::TryStreamExt;
use minerva_cluster::{
    Channels, ClusterPort, Error, Members, Membership, QueryGrants, Readings, Resources, Tls, TlsFiles, Token, Wire,
    coordinator_session, metrics_within, runtime,
};
use minerva_connectors::{Depots, Ledger};
use minerva_policy::{Grants, KeyRing};
use minerva_resources::{Address, ResourceSet, load};
use minerva_worker::{Config, bind, in_process};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use url::Url;

const TABLES: &[&str] = &["orders", "customers"];
const WITHIN: Duration = Duration::from_secs(20);

struct Board {
    members: Members,
    channels: Channels,
    readings: Readings,
    wire: Wire,
    resources: RwLock<Arc<Resources>>,
}

impl Membership for Board {
    fn members(&self) -> &Members {
        &self.members
    }

    fn channels(&self) -> &Channels {
        &self.channels
    }

    fn readings(&self) -> &Readings {
        &self.readings
    }

    fn ledger(&self) -> &Arc<Ledger> {
        self.wire.depots().ledger()
    }

    fn resources(&self) -> Arc<Resources> {
        Arc::clone(&self.resources.read().unwrap())
    }
}

pub(crate) struct Site {
    folder: TempDir,
    token: Token,
    tls: Option<Tls>,
    board: Arc<Board>,
    wire: Wire,
    worker: Worker,
    stop: oneshot::Sender<()>,
    port: JoinHandle<Result<(), Error>>,
    pub(crate) url: Url,
    pub(crate) members: Members,
    pub(crate) channels: Channels,
}

impl Site {
    /// A coordinator with a depot and no worker.
    pub(crate) async fn start() -> Self {
        let site = Self::start_empty().await;
        site.put_depot();
        site
    }

    /// A coordinator without a depot.
    pub(crate) async fn start_empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_tables(folder.path());
        let token = Token::open(folder.path()).unwrap();
        Self::open(folder, token, "127.0.0.1:0", Arc::default(), None).await
    }

    /// A coordinator with a depot, whose cluster port speaks TLS.
    pub(crate) async fn start_with_tls() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_tables(folder.path());
        let token = Token::open(folder.path()).unwrap();
        let site = Self::open(folder, token, "127.0.0.1:0", Arc::default(), Some(tls())).await;
        site.put_depot();
        site
    }

    /// Another coordinator at the same place, which knows nobody.
    pub(crate) async fn restart(self) -> Self {
        self.stop.send(()).unwrap();
        self.port.await.unwrap().unwrap();
        let address = format!("127.0.0.1:{}", self.url.port().unwrap());
        Self::open(
            self.folder,
            self.token,
            &address,
            self.wire.depots().resources(),
            self.tls,
        )
        .await
    }

    async fn open(folder: TempDir, token: Token, address: &str, set: Arc<ResourceSet>, tls: Option<Tls>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url: Url = format!("{scheme}://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let members = Members::new("coordinator", url.clone());
        let channels = Channels::new(token.clone(), tls.clone());
        let resources = RwLock::new(Arc::new(Resources::new(&set, &KeyRing::default()).unwrap()));
        let wire = Wire::new(Arc::new(Depots::new(set)), &KeyRing::default(), channels.clone());
        let board = Arc::new(Board {
            members: members.clone(),
            channels: channels.clone(),
            readings: wire.readings().clone(),
            wire: wire.clone(),
            resources,
        });
        let (stop, stopped) = oneshot::channel();
        let worker = in_process(wire.clone(), runtime(None, wire.depots()).unwrap());
        let port = ClusterPort {
            membership: Arc::clone(&board) as _,
            worker: Some(worker.clone()),
            token: token.clone(),
            tls: tls.clone(),
        };
        let port = tokio::spawn(port.serve(listener, async {
            let _ = stopped.await;
        }));
        Self {
            folder,
            token,
            tls,
            board,
            wire,
            worker,
            stop,
            port,
            url,
            members,
            channels,
        }
    }

    /// Declares the depot, as a change of the manifests would.
    pub(crate) fn put_depot(&self) {
        let manifest = self.folder.path().join("shop.yaml");
        let text = "name: shop\nversion: v2alpha\ntype: depot\ndepot:\n  type: file\n  file:\n    path: ./data\n";
        std::fs::write(&manifest, text).unwrap();
        let set = Arc::new(load(&[manifest], &[minerva_connectors::check]).unwrap());
        *self.board.resources.write().unwrap() = Arc::new(Resources::new(&set, &KeyRing::default()).unwrap());
        self.wire.depots().update(set);
    }

    pub(crate) fn add_in_process(&self, workers: usize) {
        for number in 0..workers {
            let url = self.members.add_in_process(number, 0).unwrap();
            self.channels.add_in_process(url, self.worker.clone());
        }
    }

    pub(crate) fn worker_config(&self, token: Token) -> Config {
        Config {
            tls: self.tls.clone(),
            ..config(self.url.clone(), token)
        }
    }

    /// Starts a worker and waits until it is taken in.
    pub(crate) async fn add_tcp(&self) -> TcpWorker {
        TcpWorker::run(self.worker_config(self.token.clone())).await.unwrap()
    }

    async fn context(&self) -> SessionContext {
        let config = SessionConfig::new().with_target_partitions(2);
        let builder = SessionStateBuilder::new().with_default_features().with_config(config);
        let state = coordinator_session(builder, &self.wire, &self.members)
            .with_distributed_file_scan_config_bytes_per_partition(1)
            .unwrap()
            .build();
        let shop = self.wire.depots().open("shop").await.unwrap();
        let context = SessionContext::new_with_state(state);
        for table in TABLES {
            let provider = shop.dataset("sales", table, &context.state()).await.unwrap().unwrap();
            context.register_table(*table, provider).unwrap();
        }
        context
    }

    pub(crate) async fn explain(&self, sql: &str) -> String {
        let plan = self
            .context()
            .await
            .sql(sql)
            .await
            .unwrap()
            .create_physical_plan()
            .await
            .unwrap();
        display_plan_ascii(plan.as_ref(), false)
    }

    pub(crate) async fn stream(&self, sql: &str, granted: &[&str]) -> Result<SendableRecordBatchStream> {
        let (_, rows) = self.planned_stream(sql, granted).await?;
        Ok(rows)
    }

    async fn planned_stream(
        &self,
        sql: &str,
        granted: &[&str],
    ) -> Result<(Arc<dyn ExecutionPlan>, SendableRecordBatchStream)> {
        let context = self.context().await;
        let plan = context.sql(sql).await?.create_physical_plan().await?;
        let mut grants = Grants::default();
        for table in granted {
            grants.add(Address::new("shop", "sales", *table), "");
        }
        // More than the headers of HTTP/2 usually hold: what a query was granted is not bounded.
        for number in 0..1000 {
            grants.add(Address::new("other", "many", number.to_string()), "");
        }
        let version = self.board.resources().version.clone();
        let grants = QueryGrants::new("query-1", &version, &grants);
        let state = context.state();
        let runtime = Arc::clone(state.runtime_env());
        let rows = execute_stream(Arc::clone(&plan), grants.into_context(&state, runtime, &plan))?;
        Ok((plan, rows))
    }

    /// The plan of a query with what every task counted, after it has run.
    pub(crate) async fn analyzed(&self, sql: &str) -> String {
        let (plan, rows) = self.planned_stream(sql, TABLES).await.unwrap();
        rows.try_collect::<Vec<RecordBatch>>().await.unwrap();
        let format = DistributedMetricsFormat::PerTask;
        let plan = metrics_within(&plan, format, WITHIN).await.unwrap();
        display_plan_ascii(plan.expect("all metrics arrive").as_ref(), true)
    }

    pub(crate) async fn rows_granted(&self, sql: &str, granted: &[&str]) -> Result<String> {
        let batches: Vec<RecordBatch> = self.stream(sql, granted).await?.try_collect().await?;
        Ok(pretty_format_batches(&batches)?.to_string())
    }

    pub(crate) async fn rows(&self, sql: &str) -> Result<String> {
        self.rows_granted(sql, TABLES).await
    }
}

/// A worker in this process, behind a TCP port.
#[derive(Debug)]
pub(crate) struct TcpWorker {
    pub(crate) url: Url,
    pub(crate) node_id: String,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), Error>>,
}

impl TcpWorker {
    /// Starts a worker; answers once it is taken in, or with the reason why it was not.
    pub(crate) async fn run(config: Config) -> Result<Self, Error> {
        let bound = bind(config).await?;
        let url = bound.url().clone();
        let node_id = bound.node_id().to_owned();
        let mut joined = bound.joined();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(bound.serve(async {
            let _ = stopped.await;
        }));
        if joined.wait_for(|joined| *joined).await.is_ok() {
            return Ok(Self {
                url,
                node_id,
                stop,
                serving,
            });
        }
        Err(serving.await.unwrap().expect_err("it was not told to stop"))
    }

    /// Asks it to leave and waits until it has.
    pub(crate) async fn stop(self) -> Result<(), Error> {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap()
    }
}

/// A worker in a process of its own, so that it can be killed: this test program, told to run [`act_as_worker`] only.
pub(crate) struct ProcessWorker {
    pub(crate) url: String,
    process: Child,
}

const COORDINATOR: &str = "MINERVA_TEST_COORDINATOR";
const TOKEN_FOLDER: &str = "MINERVA_TEST_TOKEN_FOLDER";

impl ProcessWorker {
    pub(crate) async fn start(site: &Site, test: &str) -> Self {
        let before = site.members.active();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(COORDINATOR, site.url.as_str())
            .env(TOKEN_FOLDER, site.folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut worker = Self {
            url: String::new(),
            process,
        };
        let joined = tokio::time::timeout(WITHIN, site.members.wait_for_active(before.len() + 1)).await;
        joined.expect("the worker's process joins");
        let new = site.members.active().into_iter().find(|url| !before.contains(url));
        worker.url = new.unwrap().to_string();
        worker
    }

    /// As if the machine hung: its connections stay open and nothing answers.
    pub(crate) fn freeze(&self) {
        let stopped = Command::new("kill")
            .args(["-STOP", &self.process.id().to_string()])
            .status()
            .unwrap();
        assert!(stopped.success());
    }

    /// As if the power went.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for ProcessWorker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a worker until it is killed, in a process that was started for it; does nothing in any other.
pub(crate) async fn act_as_worker() {
    let Ok(coordinator) = std::env::var(COORDINATOR) else {
        return;
    };
    let folder = std::env::var(TOKEN_FOLDER).unwrap();
    let token = Token::find(None, None, Path::new(&folder)).unwrap();
    let bound = bind(config(coordinator.parse().unwrap(), token)).await.unwrap();
    bound.serve(std::future::pending()).await.unwrap();
}

/// A certificate for `localhost` that signs itself.
fn tls() -> Tls {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/tls");
    let files = TlsFiles {
        cert: Some(folder.join("cert.pem")),
        key: Some(folder.join("key.pem")),
        ca: None,
    };
    Tls::read(&files).unwrap().unwrap()
}

fn config(coordinator: Url, token: Token) -> Config {
    Config {
        coordinator,
        host: "127.0.0.1".to_owned(),
        port: 0,
        token,
        tls: None,
        compute_on: tokio::runtime::Handle::current(),
        memory_bytes: 1 << 30,
        cores: 2,
        drain_within: Duration::from_secs(10),
    }
}

/// Six files of orders and two of customers.
fn write_tables(folder: &Path) {
    for file in 0..6_i64 {
        let ids: Vec<i64> = (file * 1000..(file + 1) * 1000).collect();
        let regions = ids.iter().map(|id| if id % 3 == 0 { "east" } else { "west" });
        let columns: [(&str, ArrayRef); 4] = [
            ("id", Arc::new(Int64Array::from(ids.clone()))),
            (
                "customer",
                Arc::new(ids.iter().map(|id| id * 7 % 50).collect::<Int64Array>()),
            ),
            ("region", Arc::new(StringArray::from_iter_values(regions))),
            (
                "amount",
                Arc::new(ids.iter().map(|id| (id % 97) as f64).collect::<Float64Array>()),
            ),
        ];
        write(&folder.join(format!("data/sales/orders/{file}.parquet")), columns);
    }
    for file in 0..2_i64 {
        let ids: Vec<i64> = (file * 25..(file + 1) * 25).collect();
        let names = ids.iter().map(|id| format!("customer {id:02}"));
        let columns: [(&str, ArrayRef); 2] = [
            ("id", Arc::new(Int64Array::from(ids.clone()))),
            ("name", Arc::new(StringArray::from_iter_values(names))),
        ];
        write(&folder.join(format!("data/sales/customers/{file}.parquet")), columns);
    }
}

fn write<const COLUMNS: usize>(path: &Path, columns: [(&str, ArrayRef); COLUMNS]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

//! A private Minerva for one test: the real program in a folder of its own, on free ports, stopped at the end.
//!
//! In: manifests as text. Out: a running coordinator, its workers, and clients that run statements as a user and see what a person sees.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use tempfile::TempDir;

/// How long a server may take to say that it is ready; far more than it needs.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The program under test.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minerva"));
    command
        .env_remove("MINERVA_APIKEY")
        .env_remove("MINERVA_USER")
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null());
    command
}

/// A process that serves and is killed with the test.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// The addresses that it printed, by name.
    pub(crate) addresses: BTreeMap<String, String>,
    errors: thread::JoinHandle<String>,
}

impl Server {
    /// Starts the program and waits until it says `ready`.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let stderr = child.stderr.take().unwrap();
        let errors = thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut addresses = BTreeMap::new();
        loop {
            match lines.recv_timeout(READY_WITHIN) {
                Ok(line) if line == "ready" => break,
                Ok(line) => {
                    if let Some((name, address)) = line.split_once(' ') {
                        addresses.insert(name.to_owned(), address.to_owned());
                    }
                }
                Err(_) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    panic!("the server did not become ready:\n{}", errors.join().unwrap());
                }
            }
        }
        Self {
            child,
            addresses,
            errors,
        }
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The processor's time that it has had, in ticks.
    pub(crate) fn processor_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let after_name = stat.rsplit(')').next().unwrap();
        after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<u64>().unwrap())
            .sum()
    }

    /// Asks it to leave and waits; true when it left in order.
    pub(crate) fn leave(mut self) -> (bool, String) {
        let asked = Command::new("kill")
            .arg("-TERM")
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(asked.success());
        let status = self.child.wait().unwrap();
        let errors = std::mem::replace(&mut self.errors, thread::spawn(String::new));
        (status.success(), errors.join().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A coordinator with its own folder of manifests and data.
#[derive(Debug)]
pub(crate) struct Minerva {
    pub(crate) server: Server,
    pub(crate) workers: Vec<Server>,
    pub(crate) folder: TempDir,
}

impl Minerva {
    /// Starts a coordinator on these manifests (file name and text) with workers of its own.
    pub(crate) fn start(manifests: &[(&str, &str)], workers: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("resources")).unwrap();
        for (name, text) in manifests {
            let path = folder.path().join("resources").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self::start_in(folder, workers)
    }

    /// Starts a coordinator on a folder whose `resources` are there already.
    pub(crate) fn start_in(folder: TempDir, workers: usize) -> Self {
        let resources = folder.path().join("resources");
        Self::start_with(folder, &resources, workers)
    }

    /// Starts a coordinator on manifests that lie elsewhere.
    pub(crate) fn start_with(folder: TempDir, resources: &Path, workers: usize) -> Self {
        Self::start_as(program(), folder, resources, workers)
    }

    /// Starts a coordinator by a command that has an environment already.
    pub(crate) fn start_as(mut command: Command, folder: TempDir, resources: &Path, workers: usize) -> Self {
        command
            .arg("serve")
            .arg("--resources")
            .arg(resources)
            .arg("--data")
            .arg(folder.path().join("data"));
        command.args([
            "--http-port",
            "0",
            "--flight-port",
            "0",
            "--cluster-port",
            "0",
            "--workers",
            &workers.to_string(),
        ]);
        Self {
            server: Server::start(command),
            workers: Vec::new(),
            folder,
        }
    }

    /// Adds a worker process.
    pub(crate) fn add_worker(&mut self) {
        self.add_worker_as(program());
    }

    /// Adds a worker process by a command that has an environment already.
    pub(crate) fn add_worker_as(&mut self, mut command: Command) {
        command.args([
            "worker",
            "--coordinator",
            &format!("http://{}", self.server.addresses["cluster"]),
        ]);
        command.arg("--data").arg(self.data());
        self.workers.push(Server::start(command));
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn resources(&self) -> PathBuf {
        self.folder.path().join("resources")
    }

    pub(crate) fn flight(&self) -> &str {
        &self.server.addresses["flight"]
    }

    /// A client command as the first start's `admin`.
    pub(crate) fn client(&self, words: &[&str]) -> Command {
        let mut command = program();
        command
            .args(words)
            .args(["--server", self.flight()])
            .arg("--data")
            .arg(self.data());
        command
    }

    /// A new API key for a declared user.
    pub(crate) fn key(&self, user: &str) -> String {
        let output = self
            .client(&["user", "apikey", "create", "-u", user, "-d", "1h"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Runs a statement as a user with a key; `None` means `admin`.
    pub(crate) fn run(&self, user: Option<(&str, &str)>, sql: &str, format: &str) -> Output {
        let mut command = self.client(&["sql", "--output-format", format]);
        if let Some((user, key)) = user {
            command.args(["--user", user]).env("MINERVA_APIKEY", key);
        }
        command.args(["-e", sql]).output().unwrap()
    }

    /// The rows of a statement as CSV without its header; panics when it fails.
    pub(crate) fn rows(&self, user: Option<(&str, &str)>, sql: &str) -> Vec<String> {
        let output = self.run(user, sql, "CSV");
        assert!(
            output.status.success(),
            "{sql}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .skip(1)
            .map(str::to_owned)
            .collect()
    }

    /// What a failing statement says on standard error; panics when it succeeds.
    pub(crate) fn error(&self, user: Option<(&str, &str)>, sql: &str) -> String {
        let output = self.run(user, sql, "CSV");
        assert!(
            !output.status.success(),
            "{sql} succeeded:\n{}",
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8(output.stderr).unwrap()
    }
}

/// The Python with the clients, which `make test` sets up. The tests that need it fail without: they are not skipped.
pub(crate) fn python() -> Command {
    let python =
        std::env::var("MINERVA_TEST_PYTHON").expect("run the tests with `make test`, which sets up the Python clients");
    Command::new(python)
}

//! What a coordinator is told at start: checked once, then trusted.
//!
//! In: the settings as written on the command line. Out: a [`Config`]. Deliberately absent: any effect; nothing is created or bound here.

use std::{net::IpAddr, path::PathBuf, time::Duration};

/// How long the audit keeps its records when nothing is said: 90 days.
const DEFAULT_AUDIT_RETENTION: Duration = Duration::from_secs(90 * 24 * 3600);

/// Certificates for the doors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Whom to trust when Minerva is itself a client (coordinator to worker), and whose certificates clients of the doors may show, PEM.
    pub ca: Option<PathBuf>,
}

/// What a coordinator is told at start.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folders and files that hold manifests.
    pub resources: Vec<PathBuf>,
    /// State: keys, the join token, what `apply` stores.
    pub data: PathBuf,
    /// Where the doors listen.
    pub host: IpAddr,
    /// The HTTP door's port; 0 takes a free one.
    pub http_port: u16,
    /// The Flight SQL door's port; 0 takes a free one.
    pub flight_port: u16,
    /// The workers' port; 0 takes a free one.
    pub cluster_port: u16,
    /// Certificates; none means plain text, which is refused beyond loopback.
    pub tls: Option<TlsFiles>,
    /// Allows listening beyond loopback without certificates.
    pub insecure: bool,
    /// The workers' join token; none means the data folder's, which is made when it is not there.
    pub join_token_file: Option<PathBuf>,
    /// Which cluster this coordinator serves: the name of a `cluster` manifest, whose limits hold.
    pub cluster: String,
    /// Threads that one process gives to a query; 0 means one for each core.
    pub parallelism: usize,
    /// How many bytes of files are worth a task of their own on a worker: less stays on one.
    pub bytes_per_task: usize,
    /// Memory of all queries of this process, in bytes; none means three quarters of the machine's.
    pub max_memory_bytes: Option<u64>,
    /// The threads that queries compute on, so that the doors answer while they are busy; none means those that call.
    pub compute_on: Option<tokio::runtime::Handle>,
    /// How long the audit keeps its records.
    pub audit_retention: Duration,
    /// Whether the audit leaves out the literals of statements, and the texts of errors, which may quote them.
    pub audit_redact: bool,
}

impl Config {
    /// A configuration for these manifests and this data folder, on loopback and on free ports.
    pub fn new(resources: Vec<PathBuf>, data: PathBuf) -> Self {
        Self {
            resources,
            data,
            host: IpAddr::from([127, 0, 0, 1]),
            http_port: 0,
            flight_port: 0,
            cluster_port: 0,
            tls: None,
            insecure: false,
            join_token_file: None,
            cluster: "minerva".to_owned(),
            parallelism: 0,
            bytes_per_task: 16 << 20,
            max_memory_bytes: None,
            compute_on: None,
            audit_retention: DEFAULT_AUDIT_RETENTION,
            audit_redact: false,
        }
    }

    /// Checks what does not depend on the machine.
    ///
    /// # Errors
    /// A sentence that names the setting and says what to do.
    pub fn check(&self) -> Result<(), String> {
        if !self.host.is_loopback() && self.tls.is_none() && !self.insecure {
            return Err(format!(
                "listening on `{}` without TLS is refused, since keys and data would travel in clear text; give --tls-cert and --tls-key, or --insecure",
                self.host
            ));
        }
        if let Some(missing) = self.resources.iter().find(|path| !path.exists()) {
            return Err(format!(
                "resources folder `{}` does not exist; create it or name another with --resources",
                missing.display()
            ));
        }
        Ok(())
    }

    /// Threads for one query in this process.
    pub fn partitions(&self) -> usize {
        match self.parallelism {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            wanted => wanted,
        }
    }
}

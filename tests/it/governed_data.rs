//! Servers on the governed data set that `tests/python/governed.py` writes, with keys for its users.
//!
//! In: which twin, how many workers. Out: a running server whose user `analyst` sees masked cells of some rows, `steward` everything and
//! `outsider` nothing. What each may see is said there, not here.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    minerva::{Minerva, python},
    private_postgres::Postgres,
};

/// A server on one of the twins.
#[derive(Debug)]
pub(crate) struct Governed {
    pub(crate) minerva: Minerva,
    analyst: String,
    steward: String,
    outsider: String,
}

impl Governed {
    /// Writes the twin `a`, `b` or `c` and serves it.
    pub(crate) fn start(twin: &str, workers: usize) -> Self {
        Self::start_on(twin, workers, None)
    }

    /// The same with its flat tables in a PostgreSQL as well: databases `twin_a` and so on, and `plain`, which all twins share.
    pub(crate) fn start_with(twin: &str, workers: usize, postgres: &Postgres) -> Self {
        Self::start_on(twin, workers, Some(postgres))
    }

    fn start_on(twin: &str, workers: usize, postgres: Option<&Postgres>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut write = script("governed.py");
        write.arg(folder.path()).arg(twin);
        if let Some(postgres) = postgres {
            write.arg(postgres.port().to_string());
        }
        run(&mut write);
        if let Some(postgres) = postgres {
            let sources = folder.path().join("sources");
            postgres.database(&format!("twin_{twin}"), &sources.join("pg.sql"));
            // The plain tables are the same for every twin.
            if !postgres.has_database("plain") {
                postgres.database("plain", &sources.join("plainpg.sql"));
            }
        }
        let minerva = Minerva::start_in(folder, workers);
        let [analyst, steward, outsider] = ["analyst", "steward", "outsider"].map(|user| minerva.key(user));
        Self {
            minerva,
            analyst,
            steward,
            outsider,
        }
    }

    pub(crate) fn analyst(&self) -> Option<(&str, &str)> {
        Some(("analyst", &self.analyst))
    }

    pub(crate) fn steward(&self) -> Option<(&str, &str)> {
        Some(("steward", &self.steward))
    }

    pub(crate) fn outsider(&self) -> Option<(&str, &str)> {
        Some(("outsider", &self.outsider))
    }

    /// Where the script's manifests and data lie.
    pub(crate) fn folder(&self) -> &Path {
        self.minerva.folder.path()
    }

    /// Stops the server and its workers and returns what they logged.
    pub(crate) fn log(self) -> String {
        let Minerva {
            server,
            workers,
            folder,
        } = self.minerva;
        let logs = std::iter::once(server).chain(workers).map(|server| {
            let (orderly, log) = server.leave();
            assert!(orderly, "{log}");
            log
        });
        let log = logs.collect();
        drop(folder);
        log
    }
}

/// A script of `tests/python`, to be given its arguments.
pub(crate) fn script(name: &str) -> Command {
    let mut command = python();
    command
        .arg(
            PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("tests/python")
                .join(name),
        )
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Runs a script to its end; panics with all that it printed when it fails.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{text}");
    text
}

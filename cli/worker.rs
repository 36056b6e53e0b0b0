//! `minerva worker`: a process that runs the stages of a coordinator elsewhere.
//!
//! In: the coordinator's cluster port and the join token. Out: one line `worker ADDRESS`, then `ready` once the coordinator has taken it in.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use minerva_cluster::{Tls, TlsFiles, Token};
use minerva_worker::{Config, bind};
use tokio::runtime::Handle;

pub(crate) use crate::args::WorkerArgs;
use crate::serve::{log_to_stderr, on_runtime, report, told_to_leave};

/// How long tasks may go on once the worker was told to leave.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// Runs the command.
pub(crate) fn run(args: WorkerArgs) -> ExitCode {
    log_to_stderr();
    report(on_runtime(async |compute| {
        let bound = bind(config(&args, compute)?).await.map_err(|error| error.to_string())?;
        say("worker", &bound.addr().to_string())?;
        let mut joined = bound.joined();
        let serving = bound.serve(told_to_leave());
        let announced = async move {
            // The sender goes when serving ends, which the other branch reports.
            if joined.wait_for(|joined| *joined).await.is_ok() {
                say("ready", "")?;
            }
            std::future::pending::<Result<(), String>>().await
        };
        tokio::select! {
            served = serving => served.map_err(|error| error.to_string()),
            failed = announced => failed,
        }
    }))
}

fn say(name: &str, value: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    let line = format!("{name} {value}");
    writeln!(out, "{}", line.trim_end())
        .and_then(|()| out.flush())
        .map_err(|error| format!("standard output is closed: {error}"))
}

fn config(args: &WorkerArgs, compute: Handle) -> Result<Config, String> {
    let coordinator = args.coordinator.parse().map_err(|error| {
        format!(
            "`{}` is no URL of a coordinator: {error}; expected http://HOST:PORT",
            args.coordinator
        )
    })?;
    let files = TlsFiles {
        cert: args.tls.tls_cert.clone(),
        key: args.tls.tls_key.clone(),
        ca: args.tls.tls_ca.clone(),
    };
    let tls = Tls::read(&files).map_err(|error| error.to_string())?;
    if !args.host.is_loopback() && tls.is_none() && !args.tls.insecure {
        return Err(format!(
            "listening on `{}` without TLS is refused; give --tls-cert and --tls-key, or --insecure",
            args.host
        ));
    }
    let file: Option<&Path> = args.join_token_file.as_deref();
    Ok(Config {
        coordinator,
        host: args.host.to_string(),
        port: args.cluster_port,
        token: Token::find(file, args.join_token.as_deref(), &args.data).map_err(|error| error.to_string())?,
        tls,
        memory_bytes: minerva_cluster::default_memory_bytes(),
        compute_on: compute,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        drain_within: DRAIN_WITHIN,
    })
}

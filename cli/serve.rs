//! `minerva serve`: a coordinator with workers of its own, until it is told to leave.
//!
//! In: settings. Out: one line `NAME ADDRESS` for each bound port on standard output, then `ready`. Deliberately absent: the work itself;
//! this file only puts coordinator and workers together, which never depend on each other.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use minerva_coordinator::{Bound, Config, TlsFiles, shutdown_when};
use tokio::runtime::{Handle, Runtime};

pub(crate) use crate::args::ServeArgs;
use crate::{args::Tls, failure::Failure};

/// Deep plans recurse; the default of 2 MiB is too little for them.
const STACK_BYTES: usize = 8 * 1024 * 1024;

/// Runs the command.
pub(crate) fn run(args: ServeArgs) -> ExitCode {
    log_to_stderr();
    report(on_runtime(async |compute| {
        let bound = start(config(&args, compute), args.workers).await?;
        if let Some(key) = &bound.first_start().admin_key {
            let data = bound.data().display();
            // The key goes to a person; programs read the addresses on standard output.
            let _ = writeln!(
                io::stderr().lock(),
                "no user has an API key yet: made user `admin` with the key {key}\nit is shown only this once, and kept in {data}/admin-key, where `minerva sql` finds it"
            );
        }
        announce(&bound)?;
        bound.serve(shutdown_when(told_to_leave())).await
    }))
}

fn config(args: &ServeArgs, compute: Handle) -> Config {
    let mut config = Config::new(args.resources.clone(), args.data.clone());
    config.host = args.doors.host;
    config.http_port = args.doors.http_port;
    config.flight_port = args.doors.flight_port;
    config.cluster_port = args.doors.cluster_port;
    config.tls = tls_files(&args.tls);
    config.insecure = args.tls.insecure;
    config.join_token_file = args.join_token_file.clone();
    config.compute_on = Some(compute);
    config.audit_retention = args.audit_retention;
    config.audit_redact = args.audit_redact;
    config
}

pub(crate) fn tls_files(tls: &Tls) -> Option<TlsFiles> {
    let (cert, key) = tls.tls_cert.clone().zip(tls.tls_key.clone())?;
    Some(TlsFiles {
        cert,
        key,
        ca: tls.tls_ca.clone(),
    })
}

/// Binds every port and adds the workers of this process.
pub(crate) async fn start(config: Config, workers: Option<usize>) -> Result<Bound, String> {
    let mut bound = minerva_coordinator::bind(config).await?;
    let engine = bound.engine();
    let worker = minerva_worker::in_process(engine.wire().clone(), engine.runtime().clone());
    let workers = workers.unwrap_or_else(|| engine.declared_workers());
    bound.add_workers(workers, &worker)?;
    Ok(bound)
}

/// Says where everything listens.
pub(crate) fn announce(bound: &Bound) -> Result<(), String> {
    let mut out = io::stdout().lock();
    let written = bound
        .addresses()
        .into_iter()
        .try_for_each(|(name, address)| writeln!(out, "{name} {address}"));
    written
        .and_then(|()| writeln!(out, "ready"))
        .and_then(|()| out.flush())
        .map_err(|error| format!("standard output is closed: {error}"))
}

/// Warnings and errors of a server go to standard error.
pub(crate) fn log_to_stderr() {
    // A second call, as in a test, keeps the first.
    let _ = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_max_level(tracing::Level::INFO)
        .try_init();
}

/// Runs a server's work. It is given the threads for what computes, one for each core: the server's own are always free to answer.
pub(crate) fn on_runtime<W>(work: impl FnOnce(Handle) -> W) -> Result<(), String>
where
    W: Future<Output = Result<(), String>>,
{
    let (serving, computing) = (threads("serve")?, threads("compute")?);
    let done = serving.block_on(work(computing.handle().clone()));
    // What still blocks, such as a read of a slow disk, does not keep the process.
    computing.shutdown_background();
    serving.shutdown_background();
    done
}

fn threads(name: &str) -> Result<Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name(name)
        .thread_stack_size(STACK_BYTES)
        .build()
        .map_err(|error| format!("cannot start the program's threads: {error}"))
}

/// The exit code of a server, with what went wrong on standard error.
pub(crate) fn report(done: Result<(), String>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => Failure::Failed(reason).report(),
    }
}

/// Completes at Ctrl-C or SIGTERM.
pub(crate) async fn told_to_leave() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

//! `minerva check`: reads manifests offline and tells everything that is wrong with them.
//!
//! In: files and folders. Out: one line for each problem, `file:line: message`, its help below, and a summary. Deliberately absent: reaching any
//! depot; what is checked is what is written.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use minerva_resources::{Problem, ResourceSet};

use crate::failure::Failure;

/// Reads manifests offline and tells everything that is wrong with them
#[derive(Args, Debug, Clone)]
#[command(after_help = "Exit codes: 0 no problem; 1 problems; 2 wrong usage.")]
pub(crate) struct CheckArgs {
    /// Files and folders of manifests; they are checked together, since they may refer to each other
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &CheckArgs) -> ExitCode {
    let loaded = minerva_resources::load(&args.paths, &[minerva_connectors::check, minerva_policy::check]);
    let out = &mut io::stdout().lock();
    let (written, code) = match &loaded {
        Ok(set) => (write_summary(set, out), ExitCode::SUCCESS),
        Err(problems) => (write_problems(&problems.0, out), ExitCode::FAILURE),
    };
    match written.and_then(|()| out.flush()) {
        Ok(()) => code,
        Err(error) => Failure::from(error).report(),
    }
}

fn write_problems(problems: &[Problem], out: &mut impl Write) -> io::Result<()> {
    for problem in problems {
        writeln!(out, "{}: {}", problem.location, problem.message)?;
        if let Some(help) = &problem.help {
            writeln!(out, "  help: {help}")?;
        }
    }
    let files: BTreeSet<_> = problems.iter().map(|problem| &problem.location.file).collect();
    writeln!(
        out,
        "{} in {}",
        counted(problems.len(), "problem"),
        counted(files.len(), "file")
    )
}

fn write_summary(set: &ResourceSet, out: &mut impl Write) -> io::Result<()> {
    let kinds = [
        (set.depots().count(), "depot"),
        (set.secrets().count(), "secret"),
        (set.users().count(), "user"),
        (set.datasets().count(), "dataset"),
        (set.access_policies().len(), "access policy"),
        (set.data_policies().len(), "data policy"),
        (set.clusters().count(), "cluster"),
    ];
    let found: Vec<String> = kinds
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, noun)| counted(*count, noun))
        .collect();
    let found = if found.is_empty() {
        "no resources".to_owned()
    } else {
        found.join(", ")
    };
    writeln!(out, "no problems: {found}")
}

fn counted(count: usize, noun: &str) -> String {
    match (count, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) => format!("{count} {noun}s"),
    }
}

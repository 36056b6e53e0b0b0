//! `minerva check`: reads manifests offline and tells everything that is wrong with them.
//!
//! In: files and folders. Out: one line for each problem, `file:line: message`, its help below, and a summary; where there is none, advice in
//! the same form. Deliberately absent: reaching any depot; what is checked is what is written.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use minerva_resources::{Problem, ResourceSet};

use crate::{
    failure::Failure,
    world::{CHECKS, write_problem},
};

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
    let loaded = minerva_resources::load(&args.paths, &CHECKS);
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
        write_problem(problem, "", out)?;
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
    for advice in minerva_policy::advise(set) {
        write_problem(&advice, "advice: ", out)?;
    }
    let kinds = [
        (set.depots().count(), "depot"),
        (set.secrets().count(), "secret"),
        (set.users().count(), "user"),
        (set.datasets().count(), "dataset"),
        (set.access_policies().len(), "access policy"),
        (set.data_policies().len(), "data policy"),
        (set.clusters().count(), "cluster"),
        (set.policy_tests().len(), "policy test"),
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

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use minerva_resources::Location;

    use super::*;

    #[test]
    fn every_problem_is_a_line_with_its_place() {
        let place = |line| Location::new(Path::new("depots/sales.yaml"), line);
        let problems = [
            Problem::new(place(7), "depot `sales`: unknown setting `hots`").help("did you mean `host`?"),
            Problem::new(place(9), "secret `crm` does not exist"),
        ];
        let mut out = Vec::new();
        write_problems(&problems, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "depots/sales.yaml:7: depot `sales`: unknown setting `hots`\n  help: did you mean `host`?\n\
             depots/sales.yaml:9: secret `crm` does not exist\n2 problems in 1 file\n"
        );
    }

    #[test]
    fn a_good_folder_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("m.yaml"),
            "name: m\nversion: v2alpha\ntype: depot\ndepot:\n  type: memory\n  memory: {}\n",
        )
        .unwrap();
        let set = minerva_resources::load(
            &[folder.path().to_owned()],
            &[minerva_connectors::check, minerva_policy::check],
        );
        let mut out = Vec::new();
        write_summary(&set.unwrap(), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "no problems: 1 depot\n");
        assert_eq!(
            (counted(2, "access policy"), counted(1, "data policy")),
            ("2 access policies".to_owned(), "1 data policy".to_owned())
        );
    }
}

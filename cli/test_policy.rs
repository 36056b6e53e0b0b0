//! `minerva policy test`: decides what somebody would see and compares it with what was written to be expected.
//!
//! In: files and folders of manifests with tests in them. Out: one line for each expectation, what was found and why where one does not hold, and
//! a summary; the exit code tells whether all hold. Deliberately absent: a coordinator, and any row of a table.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use minerva_policy::compare;

use crate::{failure::Failure, world::World};

/// Runs the tests that stand beside policies: who sees what, as it was written to be expected
#[derive(Args, Debug, Clone)]
#[command(
    after_help = "Exit codes: 0 every expectation holds; 1 some do not, there are none, or the manifests have problems; 2 wrong usage."
)]
pub(crate) struct TestArgs {
    /// Files and folders of manifests, with the tests among them; they are read together
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &TestArgs) -> ExitCode {
    match test(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => failure.report(),
    }
}

fn test(args: &TestArgs) -> Result<bool, Failure> {
    let world = World::load(&args.paths)?;
    if world.set.policy_tests().is_empty() {
        return Err(Failure::Failed(
            "there is no test in these manifests; write some under `tests` beside the policies".to_owned(),
        ));
    }
    let out = &mut io::stdout().lock();
    let (mut held, mut failed) = (0_usize, 0_usize);
    for test in world.set.policy_tests() {
        let principal = world.subject(test)?;
        let (table, note) = match world.table(&test.table) {
            Ok(found) => found,
            Err(failure) => {
                failed += 1;
                writeln!(out, "FAILED {}: {failure}", test.location)?;
                continue;
            }
        };
        let explanation = world.explain(&principal, &table);
        let outcomes = compare(test, &explanation, &table.schema);
        let mut is_explained = false;
        if let Some(note) = &note {
            writeln!(out, "note   {}: {note}", test.location)?;
        }
        for outcome in outcomes {
            let (user, table) = (test.subject.id(), &test.table);
            let line = format!("{}: `{user}`, `{table}`, {}", test.location, outcome.subject);
            if outcome.holds {
                held += 1;
                writeln!(out, "ok     {line}: {}", outcome.expected)?;
                continue;
            }
            failed += 1;
            writeln!(out, "FAILED {line}: expected {}, got {}", outcome.expected, outcome.got)?;
            if !is_explained {
                is_explained = true;
                for line in explanation.to_string().lines() {
                    writeln!(out, "       | {line}")?;
                }
            }
        }
    }
    writeln!(out, "{held} as expected, {failed} not")?;
    Ok(failed == 0)
}

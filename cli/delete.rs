//! `minerva delete`: takes resources out of those of a coordinator, after showing whose view of what that alters.
//!
//! In: a type and names, or manifests whose resources are meant; and a coordinator, or the folders of the resources in force. Out: what is gone,
//! every decision that would be another, and without `--dry-run` the change, all of it or nothing. What the rest refers to stays. Only the
//! documents of these resources are taken out of their files.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, builder::BoolishValueParser};
use minerva_resources::{declared, no_such, plan_removal};
use serde_json::{Value, json};

use crate::{
    apply::{report, settle},
    args::ServerArgs,
    client::call_once,
    explain_policy::Form,
    failure::Failure,
    get::kind,
};

/// Takes resources away from a coordinator, or shows what that would alter
#[derive(Args, Debug, Clone)]
#[command(
    after_help = "Exit codes: 0 deleted, or would be; 1 refused, or not there; 2 wrong usage; 3 cannot connect or not authenticated."
)]
pub(crate) struct DeleteArgs {
    /// The type of what is to go: cluster, dataset, depot, identity-provider, policy, policy-test, secret, user
    #[arg(value_name = "TYPE", value_parser = kind, required_unless_present = "files", requires = "names")]
    kind: Option<&'static str>,
    /// Their names
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// File or folder of manifests whose resources are to go; may be given several times
    #[arg(
        short = 'f',
        long = "filename",
        env = "MINERVA_FILENAME",
        value_name = "PATH",
        conflicts_with = "kind"
    )]
    files: Vec<PathBuf>,
    /// Take them out of this folder, which a coordinator watches, without asking it; may be given several times. A --server goes before it
    #[arg(long, env = "MINERVA_RESOURCES", value_name = "DIR")]
    resources: Vec<PathBuf>,
    /// Show which decisions the change would alter, and change nothing
    #[arg(long, env = "MINERVA_DRY_RUN", value_parser = BoolishValueParser::new())]
    dry_run: bool,
    /// How the answer is written
    #[arg(short, long, env = "MINERVA_OUTPUT", value_name = "FORM", value_enum, ignore_case = true, default_value_t = Form::Text)]
    output: Form,
    /// The user to connect as; an operator
    #[arg(short, long, env = "MINERVA_USER", value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
pub(crate) fn run(args: &DeleteArgs) -> ExitCode {
    match delete(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => failure.report(),
    }
}

/// Deletes; true if it is not refused.
fn delete(args: &DeleteArgs) -> Result<bool, Failure> {
    let unwanted = unwanted(args)?;
    let answer = if args.resources.is_empty() || args.server.server.is_some() {
        let arguments = json!({"resources": unwanted, "dry_run": args.dry_run});
        call_once(&args.server, args.user.as_deref(), "minerva.delete", &arguments)?
    } else {
        in_folders(args, &unwanted)?
    };
    report(&answer, args.output, args.dry_run)
}

/// The kind and name of each resource that is to go.
fn unwanted(args: &DeleteArgs) -> Result<Vec<(&'static str, String)>, Failure> {
    if let Some(kind) = args.kind {
        return Ok(args.names.iter().map(|name| (kind, name.clone())).collect());
    }
    let found = declared(&args.files, minerva_connectors::parameters)
        .map_err(|problems| Failure::Failed(format!("the manifests cannot be read:\n{problems}")))?;
    match found.is_empty() {
        true => Err(Failure::Usage(
            "there is no resource in what --filename names".to_owned(),
        )),
        false => Ok(found.into_iter().map(|one| (one.kind, one.name)).collect()),
    }
}

/// Deletes from folders, without a coordinator.
fn in_folders(args: &DeleteArgs, unwanted: &[(&'static str, String)]) -> Result<Value, Failure> {
    let known = declared(&args.resources, minerva_connectors::parameters)
        .map_err(|problems| Failure::Failed(format!("the manifests cannot be read:\n{problems}")))?;
    let is_there =
        |(kind, name): &&(&'static str, String)| known.iter().any(|one| (one.kind, &one.name) == (*kind, name));
    if let Some((kind, name)) = unwanted.iter().find(|one| !is_there(one)) {
        return Err(Failure::Failed(no_such(kind, name, &known)));
    }
    let names: Vec<(&str, &str)> = unwanted.iter().map(|(kind, name)| (*kind, name.as_str())).collect();
    settle(&args.resources, plan_removal(&args.resources, &names), args.dry_run)
}

//! `minerva policy explain`: asks a coordinator what a user sees and which policy says so.
//!
//! In: a user, and a table or a statement. Out: the server's explanation. Deliberately absent: any deciding; the coordinator explains with the
//! very rules that it runs queries with.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Args;
use serde_json::{Value, json};

use crate::{args::OperatorArgs, client::call_once, failure::Failure};

/// Tells what a user sees and why: each mask, filter and denial with the policy that decided it
#[derive(Args, Debug, Clone)]
pub(crate) struct ExplainArgs {
    /// The user to explain
    #[arg(id = "subject", short = 'u', long = "user", value_name = "USER")]
    user: String,
    /// A table, as catalog.schema.table or dataos://depot:collection/dataset; all of the user's tables if neither is given
    #[arg(short, long, env = "MINERVA_TABLE", value_name = "TABLE", conflicts_with = "sql")]
    table: Option<String>,
    /// A statement, whose tables are explained
    #[arg(short, long, env = "MINERVA_SQL", value_name = "SQL")]
    sql: Option<String>,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Runs the command.
pub(crate) fn run(args: &ExplainArgs) -> ExitCode {
    match explain(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    let mut arguments = json!({"user": args.user});
    for (name, value) in [("table", &args.table), ("sql", &args.sql)] {
        if let (Some(value), Value::Object(arguments)) = (value, &mut arguments) {
            arguments.insert(name.to_owned(), Value::from(value.as_str()));
        }
    }
    let answer = call_once(
        &args.operator.server,
        args.operator.login.as_deref(),
        "minerva.policy.explain",
        &arguments,
    )?;
    let text = answer
        .get("text")
        .and_then(Value::as_str)
        .ok_or_else(|| Failure::Failed("the server's answer holds no explanation".to_owned()))?;
    writeln!(io::stdout().lock(), "{}", text.trim_end_matches('\n'))?;
    Ok(())
}

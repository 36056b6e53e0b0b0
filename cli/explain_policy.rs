//! `minerva policy explain`: what a user sees and which policy says so.
//!
//! In: a user, and a table or a statement. Out: an explanation; of the coordinator, with the very rules that it runs queries with, or where
//! folders of manifests are named, of these. Deliberately absent: any deciding.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use minerva_policy::{AccessDecision, Explanation, PolicyRef, Shown};
use minerva_resources::Address;
use serde_json::{Value, json};

use crate::{args::OperatorArgs, client::call_once, failure::Failure, world::World};

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
    /// Folder of manifests to explain without a coordinator; may be given several times. A --server goes before it
    #[arg(long, env = "MINERVA_RESOURCES", value_name = "DIR")]
    resources: Vec<PathBuf>,
    /// How the explanation is written
    #[arg(long, env = "MINERVA_OUTPUT", value_name = "FORM", value_enum, ignore_case = true, default_value_t = Form::Text)]
    output: Form,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// How an answer is written.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Runs the command.
pub(crate) fn run(args: &ExplainArgs) -> ExitCode {
    match explain(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    if !args.resources.is_empty() && args.operator.server.server.is_none() {
        return explain_offline(args);
    }
    if args.output == Form::Json {
        let message = "a coordinator explains in text; name the folder of manifests with --resources for JSON";
        return Err(Failure::Usage(message.to_owned()));
    }
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

fn explain_offline(args: &ExplainArgs) -> Result<(), Failure> {
    let world = World::load(&args.resources)?;
    let principal = world.principal(&args.user)?;
    let mut notes = vec![];
    let mut tables = vec![];
    let named = match (&args.table, &args.sql) {
        (Some(table), _) => world.named_in(&format!("SELECT 1 FROM {}", quoted(table)))?,
        (None, Some(sql)) => world.named_in(sql)?,
        (None, None) => {
            let found = world.tables();
            notes = found.unreached;
            tables = found.tables.into_values().collect();
            vec![]
        }
    };
    for address in named {
        let (table, note) = world.table(&address)?;
        tables.push(table);
        notes.extend(note);
    }
    for note in &notes {
        writeln!(io::stderr().lock(), "note: {note}")?;
    }
    let out = &mut io::stdout().lock();
    if args.output == Form::Json {
        let all: Vec<Value> = tables
            .iter()
            .map(|table| json_of(&world.explain(&principal, table)))
            .collect();
        writeln!(out, "{:#}", Value::from(all))?;
        return Ok(());
    }
    for (index, table) in tables.iter().enumerate() {
        let gap = if index == 0 { "" } else { "\n" };
        write!(out, "{gap}{}", world.explain(&principal, table))?;
    }
    Ok(())
}

/// A table's name in a statement: an address is written in quotes.
fn quoted(table: &str) -> String {
    match table.parse::<Address>() {
        Ok(_) => format!("\"{}\"", table.replace('"', "\"\"")),
        Err(_) => table.to_owned(),
    }
}

/// An explanation for programs.
pub(crate) fn json_of(explanation: &Explanation) -> Value {
    let policy = |policy: &PolicyRef| {
        json!({
            "name": policy.name,
            "kind": policy.kind.to_string(),
            "priority": policy.priority,
            "location": policy.location.to_string(),
        })
    };
    let AccessDecision { allowed, because, .. } = &explanation.access;
    let because: Vec<Value> = because.iter().map(|because| policy(because)).collect();
    let filters: Vec<Value> = explanation
        .filters
        .iter()
        .map(|filter| json!({"condition": filter.condition, "sql": filter.sql, "policy": policy(&filter.because)}))
        .collect();
    let columns: Vec<Value> = explanation
        .columns
        .iter()
        .map(|column| {
            let shown = match column.shown() {
                Shown::AsItIs => "visible",
                Shown::Masked { .. } => "masked",
                Shown::Hidden => "denied",
                Shown::Undecided => "undecided",
            };
            let lost: Vec<Value> = column
                .outranked
                .iter()
                .map(|lost| json!({"mask": lost.mask, "why": lost.why, "policy": policy(&lost.because)}))
                .collect();
            json!({
                "column": column.path,
                "type": column.data_type.to_string(),
                "shown": shown,
                "mask": column.winner.as_ref().map(|(mask, _)| mask),
                "policy": column.winner.as_ref().map(|(_, because)| policy(because)),
                "outranked": lost,
                "hidden": column.hidden,
            })
        })
        .collect();
    json!({
        "user": explanation.principal,
        "table": explanation.address.to_string(),
        "access": {"allowed": allowed, "because": because},
        "closed": explanation.closed.as_ref().map(|closed| &closed.message),
        "rows": filters,
        "columns": columns,
    })
}

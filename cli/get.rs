//! `minerva get`: the resources of a coordinator, or of folders, as their manifests declare them.
//!
//! In: a kind and a name, or neither. Out: a table, or manifests as YAML or JSON. The values of secrets are never among them: the coordinator does
//! not send them.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};
use clap::{Args, ValueEnum};
use minerva_coordinator::declared_json;
use minerva_resources::{declared, kind_named, no_such};
use serde_json::{Map, Value, json};

use crate::{args::ServerArgs, client::call_once, failure::Failure, output::Format};

/// Lists the resources of a coordinator, or shows their manifests; the values of secrets are left out
#[derive(Args, Debug, Clone)]
#[command(
    after_help = "A TYPE may also be written in the plural. Exit codes: 0 listed; 1 there is none of that name, or refused; 2 wrong usage; 3 cannot connect or not authenticated."
)]
pub(crate) struct GetArgs {
    /// Only those of this type: cluster, dataset, depot, identity-provider, policy, policy-test, secret, user
    #[arg(value_name = "TYPE", value_parser = kind)]
    kind: Option<&'static str>,
    /// Only the one of this name
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// How they are written
    #[arg(short, long, env = "MINERVA_OUTPUT", value_name = "FORM", value_enum, ignore_case = true, default_value_t = Form::Table)]
    output: Form,
    /// List those of this folder, without a coordinator; may be given several times. A --server goes before it
    #[arg(long, env = "MINERVA_RESOURCES", value_name = "DIR")]
    resources: Vec<PathBuf>,
    /// The user to connect as; an operator
    #[arg(short, long, env = "MINERVA_USER", value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// How resources are written.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A line for each
    Table,
    /// Manifests
    Yaml,
    /// Manifests for programs: a list, or the one that is named
    Json,
}

/// Reads the type of a resource.
pub(crate) fn kind(written: &str) -> Result<&'static str, String> {
    kind_named(written)
}

/// Runs the command.
pub(crate) fn run(args: &GetArgs) -> ExitCode {
    match get(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn get(args: &GetArgs) -> Result<(), Failure> {
    let answer = if args.resources.is_empty() || args.server.server.is_some() {
        let mut arguments = Map::new();
        for (key, value) in [("kind", args.kind), ("name", args.name.as_deref())] {
            arguments.extend(value.map(|value| (key.to_owned(), Value::from(value))));
        }
        call_once(&args.server, args.user.as_deref(), "minerva.get", &arguments.into())?
    } else {
        in_folders(args)?
    };
    if let Some(refused) = answer.get("refused").and_then(Value::as_str) {
        writeln!(
            io::stderr().lock(),
            "note: these manifests are not in force as they are: {refused}"
        )?;
    }
    let found = answer.get("resources").and_then(Value::as_array);
    let found = found.ok_or_else(|| Failure::Failed("the server's answer is no list of resources".to_owned()))?;
    write(found, args)
}

/// The same of folders, without a coordinator.
fn in_folders(args: &GetArgs) -> Result<Value, Failure> {
    let known = declared(&args.resources, minerva_connectors::parameters)
        .map_err(|problems| Failure::Failed(format!("the manifests cannot be read:\n{problems}")))?;
    let found = (known.iter())
        .filter(|one| args.kind.is_none_or(|kind| kind == one.kind))
        .filter(|one| args.name.as_ref().is_none_or(|name| *name == one.name));
    let found: Vec<Value> = found.map(declared_json).collect();
    match (args.kind, &args.name) {
        (Some(kind), Some(name)) if found.is_empty() => Err(Failure::Failed(no_such(kind, name, &known))),
        _ => Ok(json!({"resources": found})),
    }
}

fn write(found: &[Value], args: &GetArgs) -> Result<(), Failure> {
    let word = |one: &Value, key: &str| one.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    match args.output {
        Form::Table => {
            let columns = [("type", "kind"), ("name", "name"), ("declared at", "location")];
            let fields = columns.map(|(name, _)| Field::new(name, DataType::Utf8, false));
            let arrays = columns.map(|(_, key)| {
                let texts = found.iter().map(|one| word(one, key));
                Arc::new(StringArray::from_iter_values(texts)) as ArrayRef
            });
            let schema = Arc::new(Schema::new(fields.to_vec()));
            let batch = RecordBatch::try_new(Arc::clone(&schema), arrays.to_vec())
                .map_err(|error| Failure::Failed(error.to_string()))?;
            let mut out = io::stdout();
            let mut output = Format::Aligned.begin(&schema, &mut out)?;
            output.write(&batch)?;
            output.finish()?;
        }
        Form::Yaml => {
            let out = &mut io::stdout().lock();
            for (index, one) in found.iter().enumerate() {
                let between = if index == 0 { "" } else { "---\n" };
                write!(out, "{between}{}", word(one, "yaml"))?;
            }
        }
        Form::Json => {
            let manifests = found.iter().filter_map(|one| one.get("manifest").cloned());
            let manifests: Vec<Value> = manifests.collect();
            let out = &mut io::stdout().lock();
            match (args.kind.is_some() && args.name.is_some(), manifests.first()) {
                (true, Some(one)) => writeln!(out, "{one:#}")?,
                _ => writeln!(out, "{:#}", Value::from(manifests))?,
            }
        }
    }
    Ok(())
}

//! `minerva user apikey`: creates, lists and deletes API keys on a coordinator.
//!
//! In: whose key, its name, how long it lives. Out: the key alone on standard output, once, so that a script can take it; a table of keys without
//! the keys. Deliberately absent: keys of manifests, which only their files change.

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
    error::ArrowError,
};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    args::{OperatorArgs, parse_duration},
    client::call_once,
    failure::Failure,
    output::{Format, OutputError},
};

/// What to do with API keys.
#[derive(Subcommand, Debug, Clone)]
pub(crate) enum ApikeyCommand {
    /// Creates a key and prints it, this once
    Create(CreateArgs),
    /// Lists a user's keys
    Get(GetArgs),
    /// Deletes a key; who uses it is refused from then on
    Delete(DeleteArgs),
}

/// What a new key is.
#[derive(Args, Debug, Clone)]
pub(crate) struct CreateArgs {
    /// Whose key it is
    #[arg(id = "subject", short = 'u', long = "user", value_name = "USER")]
    user: String,
    /// How long it lives, like 24h or 90d
    #[arg(short, long, env = "MINERVA_DURATION", value_parser = parse_duration)]
    duration: Duration,
    /// What to call it; a name with the time if absent
    #[arg(short, long, env = "MINERVA_NAME")]
    name: Option<String>,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Whose keys.
#[derive(Args, Debug, Clone)]
pub(crate) struct GetArgs {
    /// Whose keys they are
    #[arg(id = "subject", short = 'u', long = "user", value_name = "USER")]
    user: String,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Which key.
#[derive(Args, Debug, Clone)]
pub(crate) struct DeleteArgs {
    /// Whose key it is
    #[arg(id = "subject", short = 'u', long = "user", value_name = "USER")]
    user: String,
    /// What it is called
    #[arg(short, long, env = "MINERVA_NAME")]
    name: String,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Runs the command.
pub(crate) fn run(command: &ApikeyCommand) -> ExitCode {
    let done = match command {
        ApikeyCommand::Create(args) => create(args),
        ApikeyCommand::Get(args) => get(args),
        ApikeyCommand::Delete(args) => delete(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn create(args: &CreateArgs) -> Result<(), Failure> {
    let name = args
        .name
        .clone()
        .unwrap_or_else(|| Utc::now().format("key-%Y%m%d-%H%M%S").to_string());
    let arguments = json!({"user": args.user, "name": name, "lifetime_seconds": args.duration.as_secs()});
    let answer = call(&args.operator, "minerva.apikey.create", &arguments)?;
    let key = answer.get("key").and_then(Value::as_str).ok_or_else(|| {
        Failure::Failed("the server created the API key but did not tell it; delete it and try again".to_owned())
    })?;
    writeln!(io::stdout().lock(), "{key}")?;
    // The key is what was asked for; where standard error is closed nobody reads more.
    let _ = writeln!(
        io::stderr().lock(),
        "API key `{name}` of `{}`, expires {}; it is shown only this once",
        args.user,
        text_of(answer.get("expires"), "never")
    );
    Ok(())
}

fn get(args: &GetArgs) -> Result<(), Failure> {
    let answer = call(&args.operator, "minerva.apikey.get", &json!({"user": args.user}))?;
    let keys = answer
        .get("apikeys")
        .and_then(Value::as_array)
        .ok_or_else(|| Failure::Failed("the server's answer is no list of API keys".to_owned()))?;
    write_keys(keys, &mut io::stdout())?;
    Ok(())
}

fn delete(args: &DeleteArgs) -> Result<(), Failure> {
    let answer = call(
        &args.operator,
        "minerva.apikey.delete",
        &json!({"user": args.user, "name": args.name}),
    )?;
    if answer.get("deleted").and_then(Value::as_bool) != Some(true) {
        return Err(Failure::Failed(format!(
            "user `{}` has no API key `{}` that can be deleted",
            args.user, args.name
        )));
    }
    writeln!(
        io::stdout().lock(),
        "deleted API key `{}` of `{}`",
        args.name,
        args.user
    )?;
    Ok(())
}

fn call(operator: &OperatorArgs, action: &str, arguments: &Value) -> Result<Value, Failure> {
    call_once(&operator.server, operator.login.as_deref(), action, arguments)
}

fn write_keys(keys: &[Value], sink: &mut (impl Write + Send + 'static)) -> Result<(), OutputError> {
    let batch = table(keys)?;
    let mut output = Format::Aligned.begin(&batch.schema(), sink)?;
    output.write(&batch)?;
    output.finish()
}

fn table(keys: &[Value]) -> Result<RecordBatch, ArrowError> {
    let columns = [("user", ""), ("name", ""), ("created", ""), ("expires", "never")];
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, _)| Field::new(*name, DataType::Utf8, true))
        .collect();
    let arrays = columns.iter().map(|(name, absent)| {
        let texts: StringArray = keys.iter().map(|key| Some(text_of(key.get(*name), absent))).collect();
        Arc::new(texts) as ArrayRef
    });
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays.collect())
}

/// A field of an answer as people read it; a number is a time in seconds.
fn text_of(value: Option<&Value>, absent: &str) -> String {
    match value {
        None | Some(Value::Null) => absent.to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => match value.as_i64().and_then(|seconds| DateTime::from_timestamp(seconds, 0)) {
            Some(time) => time.to_rfc3339_opts(SecondsFormat::Secs, true),
            None => value.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_a_table_without_the_keys() {
        let keys = [
            json!({"user": "jane", "name": "laptop", "created": 1_767_225_600, "expires": 1_798_761_600}),
            json!({"user": "jane", "name": "ci", "created": "2026-01-01T00:00:00Z", "expires": null}),
        ];
        let mut sink = Vec::new();
        write_keys(&keys, &mut sink).unwrap();
        assert_eq!(
            String::from_utf8(sink).unwrap(),
            " user | name   | created              | expires\n\
             ------+--------+----------------------+----------------------\n \
             jane | laptop | 2026-01-01T00:00:00Z | 2027-01-01T00:00:00Z\n \
             jane | ci     | 2026-01-01T00:00:00Z | never\n\
             (2 rows)\n"
        );
    }
}

//! The program `minerva`: reads the command line, runs one command, answers with its exit code.
//!
//! Each command is a file beside this one: an `Args` struct and a `run`. Deliberately absent: anything that a command does.

mod allocator;
mod apikey;
mod apply;
mod args;
mod check;
mod client;
mod delete;
mod demo;
mod explain_policy;
mod failure;
mod get;
mod line;
mod output;
mod profile;
mod serve;
mod sql;
mod test_policy;
mod worker;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A distributed, federated SQL query engine with governance built in
#[derive(Parser, Debug)]
#[command(name = "minerva", version, about, propagate_version = true, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Every flag can be given as an environment variable: --some-flag is MINERVA_SOME_FLAG.
Exit codes: 0 success; 1 failed; 2 wrong usage; 3 cannot connect or not authenticated; 130 interrupted.";

#[derive(Subcommand, Debug)]
enum Command {
    Apply(apply::ApplyArgs),
    Check(check::CheckArgs),
    Delete(delete::DeleteArgs),
    Demo(args::DemoArgs),
    Get(get::GetArgs),
    /// Explains policies and tests them
    #[command(subcommand)]
    Policy(PolicyCommand),
    Serve(args::ServeArgs),
    Sql(sql::SqlArgs),
    /// Manages a coordinator's users
    #[command(subcommand)]
    User(UserCommand),
    Worker(args::WorkerArgs),
}

#[derive(Subcommand, Debug)]
enum PolicyCommand {
    Explain(Box<explain_policy::ExplainArgs>),
    Test(test_policy::TestArgs),
}

#[derive(Subcommand, Debug)]
enum UserCommand {
    /// Creates, lists and deletes API keys
    #[command(subcommand)]
    Apikey(apikey::ApikeyCommand),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    if matches!(command, Command::Demo(_) | Command::Serve(_) | Command::Worker(_)) {
        allocator::keep_freed_memory();
    }
    match command {
        Command::Apply(args) => apply::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Delete(args) => delete::run(&args),
        Command::Demo(args) => demo::run(args),
        Command::Get(args) => get::run(&args),
        Command::Policy(PolicyCommand::Explain(args)) => explain_policy::run(&args),
        Command::Policy(PolicyCommand::Test(args)) => test_policy::run(&args),
        Command::Serve(args) => serve::run(args),
        Command::Sql(args) => sql::run(&args),
        Command::User(UserCommand::Apikey(command)) => apikey::run(&command),
        Command::Worker(args) => worker::run(args),
    }
}

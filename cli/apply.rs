//! `minerva apply`: puts manifests into a coordinator's resources, after showing whose view of what they alter.
//!
//! In: manifests; and a coordinator, or the folders of the resources in force. Out: what is created and changed, every decision that would be another,
//! and without `--dry-run` the change, all of it or nothing. What would be refused on reload, and what would close a table to somebody, is
//! refused. Deliberately absent: comparing two decisions, which is the policies' business.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, builder::BoolishValueParser};
use minerva_coordinator::{MOST_COMPARED, applied_json, refused_json, too_many};
use minerva_policy::{Impact, misfits};
use minerva_resources::{Address, Change, Problems, load_changed, plan};
use serde_json::{Map, Value, json};

use crate::{
    args::ServerArgs,
    client::call_once,
    explain_policy::Form,
    failure::Failure,
    world::{CHECKS, Tables, World, principal},
};

/// Puts manifests into a coordinator's resources, or shows what that would alter
#[derive(Args, Debug, Clone)]
#[command(
    after_help = "Exit codes: 0 applied, or would be; 1 refused; 2 wrong usage; 3 cannot connect or not authenticated."
)]
pub(crate) struct ApplyArgs {
    /// File or folder of manifests to apply; may be given several times
    #[arg(
        short = 'f',
        long = "filename",
        env = "MINERVA_FILENAME",
        value_name = "PATH",
        required = true
    )]
    files: Vec<PathBuf>,
    /// Write into this folder, which a coordinator watches, without asking it; of several, new manifests go into the last. A --server goes before it
    #[arg(long, env = "MINERVA_RESOURCES", value_name = "DIR")]
    resources: Vec<PathBuf>,
    /// Show which decisions the change would alter, and change nothing
    #[arg(long, env = "MINERVA_DRY_RUN", value_parser = BoolishValueParser::new())]
    dry_run: bool,
    /// How the answer is written
    #[arg(long, env = "MINERVA_OUTPUT", value_name = "FORM", value_enum, ignore_case = true, default_value_t = Form::Text)]
    output: Form,
    /// The user to connect as; an operator
    #[arg(short, long, env = "MINERVA_USER", value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
pub(crate) fn run(args: &ApplyArgs) -> ExitCode {
    match apply(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => failure.report(),
    }
}

/// Applies; true if it is not refused.
fn apply(args: &ApplyArgs) -> Result<bool, Failure> {
    let answer = if args.resources.is_empty() || args.server.server.is_some() {
        let arguments = json!({"manifests": read_to_send(&args.files)?, "dry_run": args.dry_run});
        call_once(&args.server, args.user.as_deref(), "minerva.apply", &arguments)?
    } else {
        in_folder(args)?
    };
    report(&answer, args.output, args.dry_run)
}

/// Writes what came of a change; true if it is not refused.
pub(crate) fn report(answer: &Value, form: Form, dry_run: bool) -> Result<bool, Failure> {
    let list = |key: &str| answer.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let is_refused = !list("problems").is_empty() || !list("closed").is_empty();
    let out = &mut io::stdout().lock();
    match form {
        Form::Json => writeln!(out, "{answer:#}")?,
        Form::Text if list("problems").is_empty() => write_text(answer, out)?,
        Form::Text => {}
    }
    let errors = &mut io::stderr().lock();
    for problem in list("problems") {
        writeln!(errors, "{}: {}", word(problem, "location"), word(problem, "message"))?;
        if let Some(help) = problem.get("help").and_then(Value::as_str) {
            writeln!(errors, "  help: {help}")?;
        }
    }
    for why in list("closed").iter().filter_map(Value::as_str) {
        writeln!(errors, "error: {why}")?;
    }
    if is_refused {
        writeln!(errors, "refused: nothing was changed")?;
    } else if dry_run {
        writeln!(errors, "nothing was changed, since this was a dry run")?;
    }
    Ok(!is_refused)
}

/// The texts of the manifests by the names of their files, for a coordinator that may be elsewhere.
fn read_to_send(paths: &[PathBuf]) -> Result<Map<String, Value>, Failure> {
    fn add(path: &Path, named: bool, found: &mut Map<String, Value>) -> Result<(), Failure> {
        let cannot = |error: io::Error| Failure::Failed(format!("`{}` cannot be read: {error}", path.display()));
        if path.is_dir() {
            let mut inside: Vec<PathBuf> = fs::read_dir(path)
                .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
                .map_err(cannot)?;
            inside.sort();
            return inside.iter().try_for_each(|path| add(path, false, found));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_manifest = path
            .extension()
            .is_some_and(|ending| ending == "yaml" || ending == "yml");
        if name.starts_with('.') || !is_manifest {
            // What is given by name is either taken or refused; a pipe has no name to speak of.
            match named {
                true if path.is_file() => {
                    let message = format!(
                        "`{}` is not the name of a file of manifests: it ends with `.yaml` or `.yml` and does not begin with `.`; rename it",
                        path.display()
                    );
                    return Err(Failure::Usage(message));
                }
                true => {}
                false => return Ok(()),
            }
        }
        let name = if is_manifest { name } else { format!("{name}.yaml") };
        if found.contains_key(&name) {
            let message = format!("two files are called `{name}`; apply them one after the other");
            return Err(Failure::Usage(message));
        }
        found.insert(name, Value::from(fs::read_to_string(path).map_err(cannot)?));
        Ok(())
    }
    let mut found = Map::new();
    paths.iter().try_for_each(|path| add(path, true, &mut found))?;
    Ok(found)
}

/// Applies to a folder, without a coordinator.
fn in_folder(args: &ApplyArgs) -> Result<Value, Failure> {
    let Some(into) = args.resources.last().filter(|folder| folder.is_dir()) else {
        let message = "the last --resources is not a folder; new manifests could not be put into it";
        return Err(Failure::Usage(message.to_owned()));
    };
    settle(&args.resources, plan(&args.resources, into, &args.files), args.dry_run)
}

/// Works out what a change of these folders alters, and makes it.
pub(crate) fn settle(
    resources: &[PathBuf],
    planned: Result<Change, Problems>,
    dry_run: bool,
) -> Result<Value, Failure> {
    let planned = planned.and_then(|change| Ok((load_changed(resources, &change, &CHECKS)?, change)));
    let (set, change) = match planned {
        Ok(planned) => planned,
        Err(problems) => return Ok(refused_json(&problems.0)),
    };
    let after = World::of(set)?;
    // What is in force may be out of order: then everything is new.
    let before = minerva_resources::load(resources, &CHECKS)
        .ok()
        .map(World::of)
        .transpose()?;
    let impact = impact(before.as_ref(), &after);
    let is_written = impact.closed.is_empty() && !dry_run && !change.files.is_empty();
    if is_written {
        change.write().map_err(Failure::Failed)?;
    }
    Ok(applied_json(&change, &impact, is_written))
}

/// Compares what every declared user sees of every table, before and after.
fn impact(before: Option<&World>, after: &World) -> Impact {
    let mut impact = Impact::default();
    let tables_after = after.tables();
    let tables_before = before.map(World::tables).unwrap_or_default();
    impact.unreached.extend(tables_after.unreached.iter().cloned());
    impact.unreached.extend(tables_before.unreached.iter().cloned());
    let addresses: BTreeSet<&Address> = tables_before.tables.keys().chain(tables_after.tables.keys()).collect();
    let users: BTreeSet<&str> = [before, Some(after)]
        .into_iter()
        .flatten()
        .flat_map(|world| world.set.users().map(|user| user.id.as_str()))
        .collect();
    let mut compared = 0;
    for user in users {
        for address in &addresses {
            compared += 1;
            if compared > MOST_COMPARED {
                impact.unreached.insert(too_many(user));
                return impact;
            }
            let explanation = |world: Option<&World>, tables: &Tables| {
                let world = world?;
                let user = world.set.user(user)?;
                let table = tables.tables.get(*address)?;
                Some(world.explain(&principal(user), table))
            };
            let was = explanation(before, &tables_before);
            let will = explanation(Some(after), &tables_after);
            impact.note(user, &address.to_string(), was.as_ref(), will.as_ref());
        }
        for cluster in after.set.clusters() {
            let name = cluster.meta.name.as_str();
            let may = |world: &World| {
                let user = world.set.user(user);
                user.is_some_and(|user| world.rules.may_use_cluster(&principal(user), name).allowed)
            };
            impact.note_cluster(user, name, before.is_some_and(may), may(after));
        }
    }
    for table in tables_after.tables.values().filter(|table| table.was_opened) {
        impact
            .misfits
            .extend(misfits(&after.rules, &table.address, &table.schema));
    }
    impact
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn write_text(answer: &Value, out: &mut impl Write) -> io::Result<()> {
    let list = |key: &str| answer.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for resource in list("resources") {
        let (kind, name, action) = (word(resource, "kind"), word(resource, "name"), word(resource, "action"));
        writeln!(out, "{kind}/{name} {action}")?;
    }
    let mut head = (String::new(), String::new());
    for decision in list("decisions") {
        let of = (word(decision, "user").to_owned(), word(decision, "object").to_owned());
        if of != head {
            writeln!(out, "user `{}`, `{}`:", of.0, of.1)?;
            head = of;
        }
        writeln!(out, "  {}:", word(decision, "subject"))?;
        writeln!(out, "    - {}", word(decision, "before"))?;
        writeln!(out, "    + {}", word(decision, "after"))?;
    }
    for (key, label) in [("advice", "advice"), ("unreached", "note")] {
        for text in list(key).iter().filter_map(Value::as_str) {
            writeln!(out, "{label}: {text}")?;
        }
    }
    match list("decisions").len() {
        0 => writeln!(out, "no decision about a declared user is altered"),
        1 => writeln!(out, "1 decision is altered"),
        count => writeln!(out, "{count} decisions are altered"),
    }
}

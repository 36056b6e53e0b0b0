//! `minerva apply`: puts manifests into the folder that a coordinator watches, after showing whose view of what they alter.
//!
//! In: manifests, and the folders of the resources in force. Out: what is created and changed, every decision that would be another, and without
//! `--dry-run` the changed files, all or none. What would be refused on reload, and what would close a table to somebody, is refused here.
//! Deliberately absent: a coordinator; it takes the change over by itself, as any change of its files.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, builder::BoolishValueParser};
use minerva_policy::{Alteration, alterations, misfits};
use minerva_resources::{Action, Address, Change, load_changed, plan};
use serde_json::{Value, json};

use crate::{
    explain_policy::Form,
    failure::Failure,
    world::{CHECKS, Tables, World, principal, write_problem},
};

/// Puts manifests into a coordinator's folder of resources, or shows what that would alter
#[derive(Args, Debug, Clone)]
#[command(after_help = "Exit codes: 0 applied, or would be; 1 refused; 2 wrong usage.")]
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
    /// The coordinator's folder of manifests; of several, new manifests go into the last
    #[arg(long, env = "MINERVA_RESOURCES", value_name = "DIR", required = true)]
    resources: Vec<PathBuf>,
    /// Show which decisions the change would alter, and change nothing
    #[arg(long, env = "MINERVA_DRY_RUN", value_parser = BoolishValueParser::new())]
    dry_run: bool,
    /// How the answer is written
    #[arg(long, env = "MINERVA_OUTPUT", value_name = "FORM", value_enum, ignore_case = true, default_value_t = Form::Text)]
    output: Form,
}

/// Decisions that a change alters: for whom, of what, and what of it.
type Altered = BTreeMap<(String, String), Vec<Alteration>>;

/// What a change does.
#[derive(Debug, Default)]
struct Impact {
    altered: Altered,
    /// Tables that the change would close to somebody, and why.
    closed: Vec<String>,
    /// Masks that fit no column that they are about, though nobody declared meets them.
    misfits: BTreeSet<String>,
    unreached: BTreeSet<String>,
}

/// Runs the command.
pub(crate) fn run(args: &ApplyArgs) -> ExitCode {
    match apply(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => failure.report(),
    }
}

fn apply(args: &ApplyArgs) -> Result<bool, Failure> {
    let Some(into) = args.resources.last().filter(|folder| folder.is_dir()) else {
        let message = "the last --resources is not a folder; new manifests could not be put into it";
        return Err(Failure::Usage(message.to_owned()));
    };
    let change = match plan(&args.resources, into, &args.files) {
        Ok(change) => change,
        Err(problems) => return refused(&problems.0),
    };
    let after = match load_changed(&args.resources, &change, &CHECKS) {
        Ok(set) => World::of(set)?,
        Err(problems) => return refused(&problems.0),
    };
    // What is in force may be out of order: then everything is new.
    let before = minerva_resources::load(&args.resources, &CHECKS)
        .ok()
        .map(World::of)
        .transpose()?;
    let impact = impact(before.as_ref(), &after);
    let is_refused = !impact.closed.is_empty();
    let is_written = !is_refused && !args.dry_run && !change.files.is_empty();
    if is_written {
        change.write().map_err(Failure::Failed)?;
    }
    let out = &mut io::stdout().lock();
    match args.output {
        Form::Json => writeln!(out, "{:#}", json_of(&change, &impact, is_written))?,
        Form::Text => write_text(&change, &impact, out)?,
    }
    let errors = &mut io::stderr().lock();
    for why in &impact.closed {
        writeln!(errors, "error: {why}")?;
    }
    if is_refused {
        writeln!(errors, "refused: nothing was changed")?;
    } else if args.dry_run {
        writeln!(errors, "nothing was changed, since this was a dry run")?;
    }
    Ok(!is_refused)
}

fn refused(problems: &[minerva_resources::Problem]) -> Result<bool, Failure> {
    let errors = &mut io::stderr().lock();
    for problem in problems {
        write_problem(problem, "", errors)?;
    }
    writeln!(errors, "refused: nothing was changed")?;
    Ok(false)
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
    for user in users {
        for address in &addresses {
            let explanation = |world: Option<&World>, tables: &Tables| {
                let world = world?;
                let user = world.set.user(user)?;
                let table = tables.tables.get(*address)?;
                Some(world.explain(&principal(user), table))
            };
            let was = explanation(before, &tables_before);
            let will = explanation(Some(after), &tables_after);
            let is_closed = |explanation: Option<&minerva_policy::Explanation>| {
                explanation
                    .filter(|explanation| explanation.access.allowed)
                    .and_then(|explanation| explanation.closed.as_ref())
                    .map(ToString::to_string)
            };
            if let (Some(why), None) = (is_closed(will.as_ref()), is_closed(was.as_ref())) {
                impact.closed.push(format!("for user `{user}`, {why}"));
            }
            let altered = alterations(was.as_ref(), will.as_ref());
            if !altered.is_empty() {
                impact.altered.insert((user.to_owned(), address.to_string()), altered);
            }
        }
        let clusters = after.set.clusters().map(|cluster| cluster.meta.name.as_str());
        for cluster in clusters {
            let may = |world: Option<&World>| {
                let allowed = world.and_then(|world| {
                    let user = world.set.user(user)?;
                    Some(world.rules.may_use_cluster(&principal(user), cluster).allowed)
                });
                if allowed == Some(true) { "allowed" } else { "denied" }
            };
            let (was, will) = (may(before), may(Some(after)));
            if was != will {
                let altered = Alteration {
                    subject: "access".to_owned(),
                    before: was.to_owned(),
                    after: will.to_owned(),
                };
                impact
                    .altered
                    .insert((user.to_owned(), format!("cluster {cluster}")), vec![altered]);
            }
        }
    }
    for table in tables_after.tables.values().filter(|table| table.was_opened) {
        impact
            .misfits
            .extend(misfits(&after.rules, &table.address, &table.schema));
    }
    impact
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Created => "created",
        Action::Changed => "changed",
        Action::Unchanged => "unchanged",
    }
}

fn write_text(change: &Change, impact: &Impact, out: &mut impl Write) -> io::Result<()> {
    for (kind, name, what) in &change.resources {
        writeln!(out, "{kind}/{name} {}", action(*what))?;
    }
    let mut count = 0;
    for ((user, object), altered) in &impact.altered {
        writeln!(out, "user `{user}`, `{object}`:")?;
        for Alteration { subject, before, after } in altered {
            count += 1;
            writeln!(out, "  {subject}:")?;
            writeln!(out, "    - {before}")?;
            writeln!(out, "    + {after}")?;
        }
    }
    for misfit in &impact.misfits {
        writeln!(out, "advice: {misfit}")?;
    }
    for note in &impact.unreached {
        writeln!(out, "note: {note}")?;
    }
    match count {
        0 => writeln!(out, "no decision about a declared user is altered"),
        1 => writeln!(out, "1 decision is altered"),
        count => writeln!(out, "{count} decisions are altered"),
    }
}

fn json_of(change: &Change, impact: &Impact, is_written: bool) -> Value {
    let resources: Vec<Value> = change
        .resources
        .iter()
        .map(|(kind, name, what)| json!({"kind": kind, "name": name, "action": action(*what)}))
        .collect();
    let decisions: Vec<Value> = impact
        .altered
        .iter()
        .flat_map(|((user, object), altered)| {
            altered.iter().map(move |alteration| {
                json!({
                    "user": user,
                    "object": object,
                    "subject": alteration.subject,
                    "before": alteration.before,
                    "after": alteration.after,
                })
            })
        })
        .collect();
    json!({
        "resources": resources,
        "decisions": decisions,
        "closed": impact.closed,
        "advice": impact.misfits,
        "unreached": impact.unreached,
        "written": is_written,
    })
}

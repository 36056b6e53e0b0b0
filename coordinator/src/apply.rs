//! Manifests that an operator sends to hold from now on, or takes away: what that alters is worked out first, then it is written as a whole.
//!
//! In: texts of manifests, or names of resources. Out: what is created, changed and deleted, and every decision that is another; or the resources as
//! they are declared. What is declared in a folder of `--resources` is replaced there, what is new goes into the data folder. Deliberately absent:
//! comparing two decisions, which is the policies' business.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use datafusion::arrow::datatypes::SchemaRef;
use minerva_policy::{Impact, Rules, explain, misfits};
use minerva_resources::{
    Address, Change, Check, Declared, Problem, Problems, ResourceSet, declared, kind_named, load_changed, no_such,
    plan, plan_removal,
};
use serde_json::{Value, json};

use crate::{
    catalog::{Catalog, TableRequest},
    engine::Engine,
    error::{Code, QueryError, Result},
    gateway::auth,
    session::Session,
};

/// How many pairs of a user and a table are compared; beyond that nobody would read the answer.
pub const MOST_COMPARED: usize = 200_000;

/// The checks that a coordinator makes of its manifests.
pub(crate) const CHECKS: [Check; 2] = [minerva_connectors::check, minerva_policy::check];

/// What came of a change, for programs: `resources`, `decisions`, `closed`, `advice`, `unreached`, `problems` and `written`.
pub fn applied_json(change: &Change, impact: &Impact, written: bool) -> Value {
    let resources: Vec<Value> = change
        .resources
        .iter()
        .map(|(kind, name, action)| json!({"kind": kind, "name": name, "action": action.as_str()}))
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
        "problems": [],
        "written": written,
    })
}

/// What is wrong with a change, in the same form.
pub fn refused_json(problems: &[Problem]) -> Value {
    let problems: Vec<Value> = problems
        .iter()
        .map(|problem| {
            json!({
                "location": problem.location.to_string(),
                "message": problem.message,
                "help": problem.help,
            })
        })
        .collect();
    let mut answer = applied_json(&Change::default(), &Impact::default(), false);
    if let Some(slot) = answer.get_mut("problems") {
        *slot = Value::from(problems);
    }
    answer
}

/// Puts manifests, by the name of their file, into the resources of a coordinator; a dry run changes nothing.
pub(crate) async fn apply(session: &Session, manifests: &BTreeMap<String, String>, dry_run: bool) -> Result<Value> {
    expect_operator(session, "change resources")?;
    let engine = Arc::clone(session.engine());
    let _one_at_a_time = engine.applying.lock().await;
    let given = Given::new(&engine.config.data, manifests)?;
    let into = engine.own_folder();
    let planned = plan(&engine.folders(), &into, std::slice::from_ref(&given.folder));
    take(session, planned, dry_run, |problems| given.named(problems)).await
}

/// Takes resources, by kind and name, out of those of a coordinator; a dry run changes nothing.
pub(crate) async fn delete(session: &Session, unwanted: &[(String, String)], dry_run: bool) -> Result<Value> {
    expect_operator(session, "change resources")?;
    let engine = Arc::clone(session.engine());
    let _one_at_a_time = engine.applying.lock().await;
    let folders = engine.folders();
    let planned = match declared(&folders, minerva_connectors::parameters) {
        Ok(known) => {
            let mut wanted = Vec::new();
            for (kind, name) in unwanted {
                wanted.push((known_kind(kind)?, name.as_str()));
            }
            expect_known(&known, &wanted)?;
            if wanted.contains(&("user", session.principal().id.as_str())) {
                let message = format!("user `{}` cannot delete themselves", session.principal().id);
                return Err(QueryError::new(Code::PermissionDenied, message).with_hint("ask another operator"));
            }
            plan_removal(&folders, &wanted)
        }
        Err(problems) => Err(problems),
    };
    take(session, planned, dry_run, |problems| problems.0.clone()).await
}

/// The resources as they are declared, of one kind or of all, and of one name; with their manifests, in which nothing secret is. What lies in the
/// folders and is not in force is told too.
pub(crate) fn get(session: &Session, kind: Option<&str>, name: Option<&str>) -> Result<Value> {
    expect_operator(session, "list resources")?;
    let engine = session.engine();
    let known = declared(&engine.folders(), minerva_connectors::parameters);
    let known = known.map_err(|problems| {
        QueryError::new(
            Code::InvalidArgument,
            format!("the manifests cannot be read: {problems}"),
        )
        .with_hint("`minerva check` says what is wrong with them")
    })?;
    let kind = kind.map(known_kind).transpose()?;
    if let (Some(kind), Some(name)) = (kind, name) {
        expect_known(&known, &[(kind, name)])?;
    }
    let found = (known.iter())
        .filter(|one| kind.is_none_or(|kind| kind == one.kind) && name.is_none_or(|name| name == one.name));
    let resources: Vec<Value> = found.map(declared_json).collect();
    Ok(json!({"resources": resources, "refused": engine.refused_resources()}))
}

/// A resource for programs, and its manifest as people read it.
pub fn declared_json(one: &Declared) -> Value {
    json!({
        "kind": one.kind,
        "name": one.name,
        "location": one.location.to_string(),
        "manifest": one.manifest.to_json(),
        "yaml": one.manifest.to_yaml(),
    })
}

fn expect_operator(session: &Session, deed: &str) -> Result<()> {
    if session.principal().is_operator() {
        return Ok(());
    }
    let message = format!("user `{}` may not {deed}", session.principal().id);
    Err(QueryError::new(Code::PermissionDenied, message).with_hint("ask an operator"))
}

fn known_kind(written: &str) -> Result<&'static str> {
    kind_named(written).map_err(|message| QueryError::new(Code::InvalidArgument, message))
}

fn expect_known(known: &[Declared], wanted: &[(&str, &str)]) -> Result<()> {
    let is = |one: &Declared, wanted: &(&str, &str)| (one.kind, one.name.as_str()) == *wanted;
    match wanted.iter().find(|wanted| !known.iter().any(|one| is(one, wanted))) {
        None => Ok(()),
        Some((kind, name)) => Err(QueryError::new(Code::NotFound, no_such(kind, name, known))
            .with_hint(format!("`minerva get {kind}` lists those that there are"))),
    }
}

/// Works out what a change alters, and makes it.
async fn take(
    session: &Session,
    planned: std::result::Result<Change, Problems>,
    dry_run: bool,
    named: impl Fn(&Problems) -> Vec<Problem>,
) -> Result<Value> {
    let engine = Arc::clone(session.engine());
    let failed = |reason: String| QueryError::new(Code::GenericInternalError, reason);
    let loaded = planned.and_then(|change| Ok((load_changed(&engine.folders(), &change, &CHECKS)?, change)));
    let (set, change) = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => return Ok(refused_json(&named(&problems))),
    };
    let rules = match Rules::compile_with(&set, &engine.snapshot().derived) {
        Ok(rules) => rules,
        Err(problems) => return Ok(refused_json(&named(&Problems(problems)))),
    };
    let impact = impact(session, &set, &rules).await?;
    let written = impact.closed.is_empty() && !dry_run && !change.files.is_empty();
    if written {
        let change = change.clone();
        let engine = Arc::clone(&engine);
        let taken = tokio::task::spawn_blocking(move || {
            change.write()?;
            engine.reload();
            Ok(())
        });
        taken
            .await
            .map_err(|error| failed(format!("the change was not written: {error}")))?
            .map_err(failed)?;
        tracing::info!(user = %session.principal().full_name(), "resources were changed");
    }
    Ok(applied_json(&change, &impact, written))
}

/// What every declared user sees of every table that can be reached now, before and after.
async fn impact(session: &Session, set: &ResourceSet, rules: &Rules) -> Result<Impact> {
    let snapshot = session.engine().snapshot();
    let catalog = Catalog::of(session, &snapshot);
    let mut impact = Impact::default();
    let mut tables: BTreeMap<Address, SchemaRef> = BTreeMap::new();
    for depot in snapshot.set.depots() {
        let request = TableRequest {
            catalog: Some(depot.meta.name.clone()),
            kinds: vec!["BASE TABLE".to_owned()],
            ..TableRequest::default()
        };
        let listed = match catalog.tables(&request).await {
            Ok(listed) => listed,
            Err(error) => {
                let note = format!("depot `{}` cannot be opened: {}", depot.meta.name, error.message);
                impact.unreached.insert(note);
                continue;
            }
        };
        for table in listed {
            let address = Address::new(table.catalog, table.schema, table.name);
            match catalog.raw_schema(&address).await {
                Ok(schema) => {
                    tables.insert(address, schema);
                }
                Err(error) => {
                    impact
                        .unreached
                        .insert(format!("`{address}` cannot be read: {}", error.message));
                }
            }
        }
    }
    for depot in set.depots().filter(|depot| snapshot.set.depot(depot.name()).is_none()) {
        let note = format!(
            "depot `{}` is new: its tables are not looked at before it is there",
            depot.name()
        );
        impact.unreached.insert(note);
    }
    let users: BTreeSet<&str> = snapshot
        .set
        .users()
        .chain(set.users())
        .map(|user| user.id.as_str())
        .collect();
    let mut compared = 0;
    for user in users {
        let was = snapshot.set.user(user).map(|user| auth::principal(user));
        let will = set.user(user).map(|user| auth::principal(user));
        for (address, schema) in &tables {
            compared += 1;
            if compared > MOST_COMPARED {
                impact.unreached.insert(too_many(user));
                return Ok(impact);
            }
            let before = was
                .as_ref()
                .map(|principal| explain(&snapshot.rules, principal, address, schema));
            let is_there = set.depot(&address.depot).is_some();
            let after = will
                .as_ref()
                .filter(|_| is_there)
                .map(|principal| explain(rules, principal, address, schema));
            impact.note(user, &address.to_string(), before.as_ref(), after.as_ref());
        }
        for cluster in set.clusters() {
            let name = cluster.meta.name.as_str();
            let may = |rules: &Rules, principal: Option<&minerva_policy::Principal>| {
                principal.is_some_and(|principal| rules.may_use_cluster(principal, name).allowed)
            };
            impact.note_cluster(
                user,
                name,
                may(&snapshot.rules, was.as_ref()),
                may(rules, will.as_ref()),
            );
        }
        // A long comparison leaves the thread to others now and then.
        tokio::task::yield_now().await;
    }
    for (address, schema) in &tables {
        impact.misfits.extend(misfits(rules, address, schema));
    }
    Ok(impact)
}

/// What is said when not everything was compared.
pub fn too_many(user: &str) -> String {
    format!("more than {MOST_COMPARED} pairs of a user and a table: those from user `{user}` on were not compared")
}

/// The manifests as files in a folder of their own, which goes away with it.
struct Given {
    folder: PathBuf,
}

impl Given {
    fn new(data: &Path, manifests: &BTreeMap<String, String>) -> Result<Self> {
        let given = Self {
            folder: data.join(format!(".apply-{}", auth::new_key().get(..16).unwrap_or_default())),
        };
        let failed = |error: std::io::Error| {
            let message = format!("the manifests cannot be put into the data folder: {error}");
            QueryError::new(Code::GenericInternalError, message)
        };
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&given.folder)
            .map_err(failed)?;
        for (name, text) in manifests {
            let path = Path::new(name);
            let is_plain = path.file_name().is_some_and(|file| file == path.as_os_str())
                && !name.starts_with('.')
                && path
                    .extension()
                    .is_some_and(|ending| ending == "yaml" || ending == "yml");
            if !is_plain {
                let message = format!("`{name}` is not the name of a file of manifests");
                return Err(
                    QueryError::new(Code::InvalidArgument, message).with_hint("expected such as `policies.yaml`")
                );
            }
            fs::write(given.folder.join(name), text).map_err(failed)?;
        }
        Ok(given)
    }

    /// Problems with the names of files as they were given.
    fn named(&self, problems: &Problems) -> Vec<Problem> {
        problems
            .0
            .iter()
            .map(|problem| {
                let mut problem = problem.clone();
                if let Ok(name) = problem.location.file.strip_prefix(&self.folder) {
                    problem.location.file = Arc::from(name);
                }
                problem
            })
            .collect()
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(%error, "a folder of manifests that were applied is left in the data folder");
        }
    }
}

impl Engine {
    /// The folder of the manifests that were applied.
    fn own_folder(&self) -> PathBuf {
        self.config.data.join("resources")
    }

    /// The folders that hold manifests.
    fn folders(&self) -> Vec<PathBuf> {
        let mut folders = self.config.resources.clone();
        folders.push(self.own_folder());
        folders
    }
}

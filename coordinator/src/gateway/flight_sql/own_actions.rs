//! Minerva's own actions: API keys, resources, explanations of policies, how far a query is.
//!
//! In: the name and the JSON of an action. Out: its answer as JSON, and a record in the audit of what was refused, and of what changes something before it
//! is changed. The record names the action and what it was about; never a key, a manifest's text or a statement.

use std::collections::BTreeMap;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tonic::Status;

use super::{
    actions::Done,
    service::Service,
    sessions::Caller,
    status::{fault, status_of},
};
use crate::{
    audit::trace::Traced,
    engine::CreateKey,
    error::{Code, QueryError, Result},
    session::PolicySubject,
};

/// One call, as the audit has it.
struct Call<'c> {
    caller: &'c Caller,
    /// The action and what it is about.
    what: String,
    /// What the record says went wrong, where that is not the answer's error.
    failed: Option<QueryError>,
    /// The record of the change that this makes, once it has begun.
    begun: Option<String>,
}

impl Call<'_> {
    fn read<T: DeserializeOwned>(&mut self, body: &[u8]) -> Result<T> {
        serde_json::from_slice(body).map_err(|error| {
            // What is said to the caller may quote the body.
            let misread = "the action's body could not be read";
            self.failed = Some(QueryError::new(Code::InvalidArgument, misread));
            let message = format!("the action's body is not the JSON that was expected: {error}");
            QueryError::new(Code::InvalidArgument, message)
        })
    }

    /// The same where no body asks for everything.
    fn read_or_default<T: DeserializeOwned + Default>(&mut self, body: &[u8]) -> Result<T> {
        match body.is_empty() {
            true => Ok(T::default()),
            false => self.read(body),
        }
    }

    fn about(&mut self, name: &str) {
        self.what.push(' ');
        self.what.push_str(name);
    }

    /// Records a change before it is made.
    fn begin(&mut self) -> Result<()> {
        let engine = self.caller.session.engine();
        let id = engine.changes(&self.caller.principal, self.caller.session.client(), self.what.clone())?;
        self.begun = Some(id);
        Ok(())
    }

    /// Records what became of it, and hands its answer on. A refusal that cannot be recorded is not told.
    fn end(mut self, answer: Result<Value>) -> Result<Value> {
        let (caller, what) = (self.caller, std::mem::take(&mut self.what));
        let (engine, client) = (caller.session.engine(), caller.session.client());
        let failed = self.failed.take();
        let error = failed.as_ref().or(answer.as_ref().err());
        match (self.begun.take(), error) {
            (Some(id), error) => engine.changed(id, &caller.principal, client, what, error)?,
            (None, Some(error)) => engine.called(&caller.principal, client, what, Some(error), Traced::default())?,
            (None, None) => {}
        }
        answer
    }
}

impl Drop for Call<'_> {
    /// Who hangs up while a change is made does not leave its record open.
    fn drop(&mut self) {
        if let Some(id) = self.begun.take() {
            let message = "the call ended before its answer; the change may have been made";
            let error = QueryError::new(Code::QueryCanceled, message);
            let (caller, what) = (self.caller, std::mem::take(&mut self.what));
            let (engine, client) = (caller.session.engine(), caller.session.client());
            if let Err(error) = engine.changed(id, &caller.principal, client, what, Some(&error)) {
                tracing::error!(%error, "the end of a change was not recorded");
            }
        }
    }
}

impl Service {
    /// Does one of the actions that are Minerva's own.
    pub(super) async fn act_of_ours(&self, caller: &Caller, name: &str, body: &[u8]) -> Result<Done, Status> {
        let mut call = Call {
            caller,
            what: name.to_owned(),
            failed: None,
            begun: None,
        };
        let answer = match name {
            "minerva.apikey.create" => self.create_key(&mut call, body),
            "minerva.apikey.get" => self.list_keys(&mut call, body),
            "minerva.apikey.delete" => self.delete_key(&mut call, body),
            "minerva.apply" => apply(&mut call, body).await,
            "minerva.delete" => delete(&mut call, body).await,
            "minerva.get" => get(&mut call, body).await,
            "minerva.policy.explain" => explain_policy(&mut call, body).await,
            "minerva.query.progress" => self.progress(&mut call, body),
            other => Err(fault("an action is listed and not known", &other)),
        };
        let answer = call.end(answer).map_err(status_of)?;
        Ok(Done::with(answer.to_string()))
    }

    fn progress(&self, call: &mut Call<'_>, body: &[u8]) -> Result<Value> {
        let QueryNamed { query_id } = call.read(body)?;
        call.about(&query_id);
        let progress = self.engine.progress(&call.caller.principal, &query_id);
        let progress = progress.ok_or_else(|| {
            let message = format!("there is no query `{query_id}` of yours");
            QueryError::new(Code::InvalidArgument, message)
        })?;
        Ok(json!({
            "state": progress.state.as_str(),
            "elapsed_ms": progress.elapsed_ms,
            "stages": progress.stages,
            "input_rows": progress.input_rows,
            "input_bytes": progress.input_bytes,
            "output_rows": progress.output_rows,
            "output_bytes": progress.output_bytes,
        }))
    }

    fn create_key(&self, call: &mut Call<'_>, body: &[u8]) -> Result<Value> {
        let NewKey {
            user,
            name,
            lifetime_seconds,
        } = call.read(body)?;
        call.about(&user);
        call.about(&name);
        call.begin()?;
        let wanted = CreateKey {
            user,
            name,
            lifetime_seconds,
        };
        let made = self.engine.create_api_key(&call.caller.principal, &wanted)?;
        Ok(json!({ "user": made.user, "name": made.name, "key": made.key, "expires": made.expires }))
    }

    fn list_keys(&self, call: &mut Call<'_>, body: &[u8]) -> Result<Value> {
        let KeysOf { user } = call.read_or_default(body)?;
        if let Some(user) = &user {
            call.about(user);
        }
        let keys = self.engine.list_api_keys(&call.caller.principal, user.as_deref())?;
        let keys = keys
            .iter()
            .map(|key| json!({ "user": key.user, "name": key.name, "created": key.created, "expires": key.expires }));
        Ok(json!({ "apikeys": keys.collect::<Vec<_>>() }))
    }

    fn delete_key(&self, call: &mut Call<'_>, body: &[u8]) -> Result<Value> {
        let KeyName { user, name } = call.read(body)?;
        call.about(&user);
        call.about(&name);
        call.begin()?;
        let deleted = self.engine.delete_api_key(&call.caller.principal, &user, &name)?;
        Ok(json!({ "deleted": deleted }))
    }
}

/// Whose view of what is to be explained.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainPolicy {
    user: String,
    #[serde(default)]
    table: Option<String>,
    #[serde(default)]
    sql: Option<String>,
}

async fn explain_policy(call: &mut Call<'_>, body: &[u8]) -> Result<Value> {
    let ExplainPolicy { user, table, sql } = call.read(body)?;
    call.about(&user);
    let subject = match (table, sql) {
        (Some(_), Some(_)) => {
            let message = "name a table or a statement, not both";
            return Err(QueryError::new(Code::InvalidArgument, message));
        }
        (Some(table), None) => {
            call.about(&table);
            PolicySubject::Table(table)
        }
        (None, Some(sql)) => PolicySubject::Query(sql),
        (None, None) => PolicySubject::Everything,
    };
    let text = call.caller.session.explain_policy(&user, &subject).await?;
    Ok(json!({ "text": text }))
}

/// Manifests that are to hold.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Apply {
    manifests: BTreeMap<String, String>,
    #[serde(default)]
    dry_run: bool,
}

async fn apply(call: &mut Call<'_>, body: &[u8]) -> Result<Value> {
    let Apply { manifests, dry_run } = call.read(body)?;
    for file in manifests.keys() {
        call.about(file);
    }
    begin_unless(dry_run, call)?;
    let answer = call.caller.session.apply(&manifests, dry_run).await?;
    end_of_change(dry_run, call, answer)
}

/// Resources that are to be gone: the kind and name of each.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    resources: Vec<(String, String)>,
    #[serde(default)]
    dry_run: bool,
}

async fn delete(call: &mut Call<'_>, body: &[u8]) -> Result<Value> {
    let Delete { resources, dry_run } = call.read(body)?;
    for (kind, name) in &resources {
        call.about(&format!("{kind}/{name}"));
    }
    begin_unless(dry_run, call)?;
    let answer = call.caller.session.delete_resources(&resources, dry_run).await?;
    end_of_change(dry_run, call, answer)
}

/// Only who may change resources begins to; others are refused next.
fn begin_unless(dry_run: bool, call: &mut Call<'_>) -> Result<()> {
    match dry_run || !call.caller.principal.is_operator() {
        true => Ok(()),
        false => call.begin(),
    }
}

/// Writes down what was changed, or that nothing was.
fn end_of_change(dry_run: bool, call: &mut Call<'_>, answer: Value) -> Result<Value> {
    if dry_run {
        return Ok(answer);
    }
    let is_empty = |list: &str| answer.get(list).and_then(Value::as_array).is_none_or(Vec::is_empty);
    if !is_empty("problems") || !is_empty("closed") {
        let message = "nothing was written: the change was refused";
        call.failed = Some(QueryError::new(Code::InvalidArgument, message));
        return Ok(answer);
    }
    let resources = answer.get("resources").and_then(Value::as_array);
    for (place, resource) in resources.into_iter().flatten().enumerate() {
        let text = |key: &str| resource.get(key).and_then(Value::as_str).unwrap_or_default();
        let separator = if place == 0 { ":" } else { "," };
        call.what.push_str(separator);
        call.about(&format!("{} {}/{}", text("action"), text("kind"), text("name")));
    }
    Ok(answer)
}

/// Which resources are wanted.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Get {
    kind: Option<String>,
    name: Option<String>,
}

async fn get(call: &mut Call<'_>, body: &[u8]) -> Result<Value> {
    let Get { kind, name } = call.read_or_default(body)?;
    for asked in [&kind, &name].into_iter().flatten() {
        call.about(asked);
    }
    // Files are read.
    let session = call.caller.session.clone();
    let found = tokio::task::spawn_blocking(move || session.get_resources(kind.as_deref(), name.as_deref())).await;
    found.map_err(|error| fault("the resources were not listed", &error))?
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    user: String,
    name: String,
    lifetime_seconds: i64,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysOf {
    user: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryNamed {
    query_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyName {
    user: String,
    name: String,
}

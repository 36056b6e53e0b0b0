//! Actions: prepared statements, cancelling, session options, API keys.
//!
//! In: the type and body of a DoAction. Out: its results. Flight SQL's older actions wrap their messages in `Any`, Flight's own and Minerva's do not;
//! Minerva's speak JSON.

use std::collections::BTreeMap;

use arrow::datatypes::{Field, Schema};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightEndpoint, FlightInfo,
    RenewFlightEndpointRequest,
    sql::{
        ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
        ActionCreatePreparedStatementRequest, Any, ProstMessageExt, TicketStatementQuery,
    },
};
use bytes::Bytes;
use chrono::Utc;
use prost::Message;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use tonic::Status;

use super::{
    handles::{Handle, RESULT_TIME_OUT, no_such_result},
    service::{Service, no_transactions},
    session_messages::{
        CloseSessionResult, CloseStatus, CreatePreparedStatementResult, ErrorValue, GetSessionOptionsResult,
        OptionValue, SessionOptionValue, SetSessionOptionError, SetSessionOptionsRequest, SetSessionOptionsResult,
    },
    sessions::Caller,
    statements::schema_bytes,
    status::{internal, invalid, status_of, unsupported},
    stream::wire_schema,
};
use crate::{engine::CreateKey, session::PolicySubject};

/// Every action with its description, in the order of the alphabet.
const ACTIONS: &[(&str, &str)] = &[
    (
        "CancelFlightInfo",
        "cancels a query; CancelFlightInfoRequest, CancelFlightInfoResult",
    ),
    (
        "CancelQuery",
        "cancels a query (deprecated); ActionCancelQueryRequest, ActionCancelQueryResult",
    ),
    (
        "ClosePreparedStatement",
        "forgets a prepared statement; ActionClosePreparedStatementRequest, no result",
    ),
    (
        "CloseSession",
        "ends the session; CloseSessionRequest, CloseSessionResult",
    ),
    (
        "CreatePreparedStatement",
        "prepares a statement; ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult",
    ),
    (
        "GetSessionOptions",
        "reads `catalog` and `schema`; GetSessionOptionsRequest, GetSessionOptionsResult",
    ),
    (
        "RenewFlightEndpoint",
        "keeps a result that was not fetched yet; RenewFlightEndpointRequest, FlightEndpoint",
    ),
    (
        "SetSessionOptions",
        "sets `catalog` and `schema`; SetSessionOptionsRequest, SetSessionOptionsResult",
    ),
    (
        "minerva.apikey.create",
        r#"makes an API key; {"user", "name", "lifetime_seconds"}, {"user", "name", "key", "expires"}"#,
    ),
    (
        "minerva.apikey.delete",
        r#"forgets an API key; {"user", "name"}, {"deleted"}"#,
    ),
    (
        "minerva.apikey.get",
        r#"lists API keys; {"user"} or {}, {"apikeys": [{"user", "name", "created", "expires"}]}"#,
    ),
    (
        "minerva.apply",
        r#"puts manifests into the resources, for operators; {"manifests": {"FILE.yaml": "..."}, "dry_run"}, {"resources", "decisions", "closed", "problems", "written", ...}"#,
    ),
    (
        "minerva.delete",
        r#"takes resources away, for operators; {"resources": [["KIND", "NAME"]], "dry_run"}, as minerva.apply"#,
    ),
    (
        "minerva.get",
        r#"lists resources, to operators; {"kind", "name"} or {}, {"resources": [{"kind", "name", "location", "manifest", "yaml"}], "refused"}"#,
    ),
    (
        "minerva.policy.explain",
        r#"says who sees what and why, to operators; {"user", "table" or "sql" or neither}, {"text"}"#,
    ),
    (
        "minerva.query.progress",
        r#"says how far a query is; {"query_id"}, {"state", "elapsed_ms", "stages", "input_rows", "input_bytes", "output_rows", "output_bytes"}"#,
    ),
];

/// The options of a session.
const CATALOG: &str = "catalog";
const SCHEMA: &str = "schema";

/// The answers of an action, and whether the session is over.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) results: Vec<Bytes>,
    pub(super) closes_session: bool,
}

impl Done {
    fn with(result: impl Into<Bytes>) -> Self {
        Self {
            results: vec![result.into()],
            closes_session: false,
        }
    }

    fn json(answer: &impl Serialize) -> Result<Self, Status> {
        let bytes = serde_json::to_vec(answer).map_err(|error| internal("an answer cannot be written", &error))?;
        Ok(Self::with(bytes))
    }
}

/// What ListActions answers.
pub(super) fn list() -> impl Iterator<Item = ActionType> {
    ACTIONS.iter().map(|(name, description)| ActionType {
        r#type: (*name).to_owned(),
        description: (*description).to_owned(),
    })
}

impl Service {
    /// Does an action.
    pub(super) async fn act(&self, caller: &Caller, action: &Action) -> Result<Done, Status> {
        let body = action.body.as_ref();
        match action.r#type.as_str() {
            "CancelFlightInfo" => {
                let request: CancelFlightInfoRequest = plain(body)?;
                let info = request
                    .info
                    .ok_or_else(|| invalid("the request names no FlightInfo to cancel"))?;
                let status = self.cancel(caller, &info)?;
                Ok(Done::with(
                    CancelFlightInfoResult { status: status.into() }.encode_to_vec(),
                ))
            }
            "CancelQuery" => {
                let request: ActionCancelQueryRequest = wrapped(body)?;
                let info = FlightInfo::decode(request.info).map_err(|error| unreadable(&error))?;
                let result = ActionCancelQueryResult {
                    result: self.cancel(caller, &info)?.into(),
                };
                Ok(Done::with(result.as_any().encode_to_vec()))
            }
            "CreatePreparedStatement" => self.prepare(caller, &wrapped(body)?).await,
            "ClosePreparedStatement" => {
                let request: ActionClosePreparedStatementRequest = wrapped(body)?;
                self.prepared
                    .close(&request.prepared_statement_handle, &caller.principal);
                Ok(Done::default())
            }
            "RenewFlightEndpoint" => {
                let request: RenewFlightEndpointRequest = plain(body)?;
                let endpoint = request
                    .endpoint
                    .ok_or_else(|| invalid("the request names no endpoint to renew"))?;
                Ok(Done::with(self.renew(caller, endpoint)?.encode_to_vec()))
            }
            "SetSessionOptions" => {
                let request: SetSessionOptionsRequest = plain(body)?;
                Ok(Done::with(set_options(caller, &request).await.encode_to_vec()))
            }
            "GetSessionOptions" => Ok(Done::with(options_of(caller).encode_to_vec())),
            "CloseSession" => {
                self.close_session(caller);
                let result = CloseSessionResult {
                    status: CloseStatus::Closed.into(),
                };
                Ok(Done {
                    closes_session: true,
                    ..Done::with(result.encode_to_vec())
                })
            }
            "minerva.apikey.create" => self.create_key(caller, body),
            "minerva.apikey.get" => self.list_keys(caller, body),
            "minerva.apikey.delete" => self.delete_key(caller, body),
            "minerva.apply" => apply(caller, body).await,
            "minerva.delete" => delete(caller, body).await,
            "minerva.get" => get(caller, body).await,
            "minerva.policy.explain" => explain_policy(caller, body).await,
            "minerva.query.progress" => self.progress(caller, body),
            "BeginTransaction" | "EndTransaction" | "BeginSavepoint" | "EndSavepoint" => Err(no_transactions()),
            "CreatePreparedSubstraitPlan" => Err(unsupported("Substrait plans are not supported; send SQL")),
            other => Err(unsupported(format!(
                "the action `{other}` does not exist; ListActions names those that do"
            ))),
        }
    }

    async fn prepare(&self, caller: &Caller, request: &ActionCreatePreparedStatementRequest) -> Result<Done, Status> {
        if request.transaction_id.is_some() {
            return Err(no_transactions());
        }
        let described = caller.session.describe(&request.query).await.map_err(status_of)?;
        let handle = self.prepared.put(&caller.client, &request.query)?;
        let parameters = described
            .parameters
            .iter()
            .map(|(name, data_type)| Field::new(name, data_type.clone(), true));
        let parameters = Schema::new(parameters.collect::<Vec<_>>());
        let result = CreatePreparedStatementResult {
            prepared_statement_handle: handle.bytes(),
            // Drivers take a statement without a schema for an update.
            dataset_schema: if described.is_update {
                Bytes::new()
            } else {
                schema_bytes(&wire_schema(&described.schema))?
            },
            parameter_schema: schema_bytes(&wire_schema(&parameters))?,
            is_update: Some(described.is_update),
        };
        let any = Any {
            type_url: "type.googleapis.com/arrow.flight.protocol.sql.ActionCreatePreparedStatementResult".to_owned(),
            value: result.encode_to_vec().into(),
        };
        Ok(Done::with(any.encode_to_vec()))
    }

    /// Cancels every query behind an info, waiting or running.
    fn cancel(&self, caller: &Caller, info: &FlightInfo) -> Result<CancelStatus, Status> {
        let mut cancelled = false;
        for handle in info.endpoint.iter().filter_map(handle_of) {
            let Some(query_id) = self.results.query_id(handle, &caller.principal) else {
                continue;
            };
            self.engine.cancel(&caller.principal, &query_id).map_err(status_of)?;
            self.results.discard(handle);
            cancelled = true;
        }
        if cancelled {
            Ok(CancelStatus::Cancelled)
        } else {
            Err(no_such_result())
        }
    }

    fn renew(&self, caller: &Caller, mut endpoint: FlightEndpoint) -> Result<FlightEndpoint, Status> {
        let handle = handle_of(&endpoint).filter(|handle| self.results.renew(*handle, &caller.principal));
        handle.ok_or_else(no_such_result)?;
        let expires = Utc::now() + RESULT_TIME_OUT;
        endpoint.expiration_time.get_or_insert_default().seconds = expires.timestamp();
        Ok(endpoint)
    }

    fn progress(&self, caller: &Caller, body: &[u8]) -> Result<Done, Status> {
        let QueryNamed { query_id } = read_json(body)?;
        let progress = self.engine.progress(&caller.principal, &query_id);
        let progress = progress.ok_or_else(|| invalid(format!("there is no query `{query_id}` of yours")))?;
        Done::json(&json!({
            "state": progress.state.as_str(),
            "elapsed_ms": progress.elapsed_ms,
            "stages": progress.stages,
            "input_rows": progress.input_rows,
            "input_bytes": progress.input_bytes,
            "output_rows": progress.output_rows,
            "output_bytes": progress.output_bytes,
        }))
    }

    fn create_key(&self, caller: &Caller, body: &[u8]) -> Result<Done, Status> {
        let NewKey {
            user,
            name,
            lifetime_seconds,
        } = read_json(body)?;
        let wanted = CreateKey {
            user,
            name,
            lifetime_seconds,
        };
        let made = self
            .engine
            .create_api_key(&caller.principal, &wanted)
            .map_err(status_of)?;
        Done::json(&json!({ "user": made.user, "name": made.name, "key": made.key, "expires": made.expires }))
    }

    fn list_keys(&self, caller: &Caller, body: &[u8]) -> Result<Done, Status> {
        let KeysOf { user } = if body.is_empty() {
            KeysOf::default()
        } else {
            read_json(body)?
        };
        let keys = self
            .engine
            .list_api_keys(&caller.principal, user.as_deref())
            .map_err(status_of)?;
        let keys = keys
            .iter()
            .map(|key| json!({ "user": key.user, "name": key.name, "created": key.created, "expires": key.expires }));
        Done::json(&json!({ "apikeys": keys.collect::<Vec<_>>() }))
    }

    fn delete_key(&self, caller: &Caller, body: &[u8]) -> Result<Done, Status> {
        let KeyName { user, name } = read_json(body)?;
        let deleted = self
            .engine
            .delete_api_key(&caller.principal, &user, &name)
            .map_err(status_of)?;
        Done::json(&json!({ "deleted": deleted }))
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

async fn explain_policy(caller: &Caller, body: &[u8]) -> Result<Done, Status> {
    let ExplainPolicy { user, table, sql } = read_json(body)?;
    let subject = match (table, sql) {
        (Some(_), Some(_)) => return Err(invalid("name a table or a statement, not both")),
        (Some(table), None) => PolicySubject::Table(table),
        (None, Some(sql)) => PolicySubject::Query(sql),
        (None, None) => PolicySubject::Everything,
    };
    let text = caller
        .session
        .explain_policy(&user, &subject)
        .await
        .map_err(status_of)?;
    Done::json(&json!({ "text": text }))
}

/// Manifests that are to hold.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Apply {
    manifests: BTreeMap<String, String>,
    #[serde(default)]
    dry_run: bool,
}

async fn apply(caller: &Caller, body: &[u8]) -> Result<Done, Status> {
    let Apply { manifests, dry_run } = read_json(body)?;
    let answer = caller.session.apply(&manifests, dry_run).await.map_err(status_of)?;
    Done::json(&answer)
}

/// Resources that are to be gone: the kind and name of each.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    resources: Vec<(String, String)>,
    #[serde(default)]
    dry_run: bool,
}

async fn delete(caller: &Caller, body: &[u8]) -> Result<Done, Status> {
    let Delete { resources, dry_run } = read_json(body)?;
    let answer = caller.session.delete_resources(&resources, dry_run).await;
    Done::json(&answer.map_err(status_of)?)
}

/// Which resources are wanted.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Get {
    kind: Option<String>,
    name: Option<String>,
}

async fn get(caller: &Caller, body: &[u8]) -> Result<Done, Status> {
    let Get { kind, name } = if body.is_empty() {
        Get::default()
    } else {
        read_json(body)?
    };
    // Files are read.
    let session = caller.session.clone();
    let found = tokio::task::spawn_blocking(move || session.get_resources(kind.as_deref(), name.as_deref())).await;
    let found = found.map_err(|error| internal("the resources were not listed", &error))?;
    Done::json(&found.map_err(status_of)?)
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

/// The handle in an endpoint's ticket.
fn handle_of(endpoint: &FlightEndpoint) -> Option<Handle> {
    let any = Any::decode(endpoint.ticket.as_ref()?.ticket.as_ref()).ok()?;
    let ticket: TicketStatementQuery = any.unpack().ok()??;
    Handle::read(&ticket.statement_handle)
}

/// Sets options; the catalog first, since a schema is looked for in it. Each that fails is named with the kind of its failure.
async fn set_options(caller: &Caller, request: &SetSessionOptionsRequest) -> SetSessionOptionsResult {
    let mut errors = BTreeMap::new();
    let mut refuse = |name: &str, value: ErrorValue| {
        errors.insert(name.to_owned(), SetSessionOptionError { value: value.into() });
    };
    for (name, value) in &request.session_options {
        let Ok(text) = text_of(value) else {
            refuse(name, ErrorValue::InvalidValue);
            continue;
        };
        let set = match name.as_str() {
            CATALOG => caller.session.set_catalog(text).await,
            SCHEMA => caller.session.set_schema(text).await,
            _ => {
                refuse(name, ErrorValue::InvalidName);
                continue;
            }
        };
        if let Err(error) = set {
            tracing::debug!(%error, option = name, "a session option was refused");
            refuse(name, ErrorValue::InvalidValue);
        }
    }
    SetSessionOptionsResult { errors }
}

/// The text of an option's value; no value and an empty text both unset the option.
fn text_of(value: &SessionOptionValue) -> Result<Option<&str>, ()> {
    match &value.option_value {
        None => Ok(None),
        Some(OptionValue::Text(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(OptionValue::Bool(_) | OptionValue::Int64(_) | OptionValue::Double(_) | OptionValue::TextList(_)) => {
            Err(())
        }
    }
}

/// The options of a session; one that is not set is an empty text, since drivers take a missing one for a missing feature.
fn options_of(caller: &Caller) -> GetSessionOptionsResult {
    let option = |value: Option<String>| SessionOptionValue {
        option_value: Some(OptionValue::Text(value.unwrap_or_default())),
    };
    GetSessionOptionsResult {
        session_options: BTreeMap::from([
            (CATALOG.to_owned(), option(caller.session.catalog_name())),
            (SCHEMA.to_owned(), option(caller.session.schema_name())),
        ]),
    }
}

/// A message as it is.
fn plain<M: Message + Default>(body: &[u8]) -> Result<M, Status> {
    M::decode(body).map_err(|error| unreadable(&error))
}

/// A message inside an `Any`.
fn wrapped<M: ProstMessageExt>(body: &[u8]) -> Result<M, Status> {
    let any = Any::decode(body).map_err(|error| unreadable(&error))?;
    let message = any.unpack().map_err(|error| unreadable(&error))?;
    message.ok_or_else(|| {
        invalid(format!(
            "the action's body is a `{}`; expected a `{}`",
            any.type_url,
            M::type_url()
        ))
    })
}

fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(body)
        .map_err(|error| invalid(format!("the action's body is not the JSON that was expected: {error}")))
}

fn unreadable(error: &dyn std::fmt::Display) -> Status {
    invalid(format!("the action's body cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_listed_once_and_sorted() {
        let names: Vec<_> = list().map(|action| action.r#type).collect();
        assert!(names.is_sorted(), "{names:?}");
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn only_tickets_of_statements_hold_handles() {
        let handle = Handle::random();
        let ticket = TicketStatementQuery {
            statement_handle: handle.bytes(),
        }
        .as_any()
        .encode_to_vec();
        let endpoint = |ticket: Vec<u8>| FlightEndpoint::new().with_ticket(arrow_flight::Ticket::new(ticket));
        assert_eq!(handle_of(&endpoint(ticket)), Some(handle));
        assert_eq!(handle_of(&endpoint(b"rubbish".to_vec())), None);
        assert_eq!(handle_of(&FlightEndpoint::new()), None);
    }

    #[test]
    fn options_are_texts_and_empty_ones_unset() {
        let value = |value| SessionOptionValue { option_value: value };
        assert_eq!(
            text_of(&value(Some(OptionValue::Text("flights".to_owned())))),
            Ok(Some("flights"))
        );
        assert_eq!(text_of(&value(Some(OptionValue::Text(String::new())))), Ok(None));
        assert_eq!(text_of(&value(None)), Ok(None));
        assert_eq!(text_of(&value(Some(OptionValue::Bool(true)))), Err(()));
    }
}

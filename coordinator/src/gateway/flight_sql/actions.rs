//! Actions: prepared statements, cancelling, session options.
//!
//! In: the type and body of a DoAction. Out: its results. Flight SQL's older actions wrap their messages in `Any`, Flight's own do not. Minerva's
//! own are in `own_actions.rs`.

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
    status::{invalid, status_of, unsupported},
    stream::wire_schema,
};

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
    pub(super) fn with(result: impl Into<Bytes>) -> Self {
        Self {
            results: vec![result.into()],
            closes_session: false,
        }
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
            ours if ours.starts_with("minerva.") && ACTIONS.iter().any(|(known, _)| *known == ours) => {
                self.act_of_ours(caller, ours, body).await
            }
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

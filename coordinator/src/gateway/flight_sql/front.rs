//! The gRPC service itself: what every call has in common, and what arrow-flight leaves out.
//!
//! In: raw requests. Out: the answers of `service` and `actions`. Each method but Handshake authenticates first, so that a call that is added
//! later cannot be forgotten: nothing below can be reached without a caller. A panic anywhere below ends its call and nothing else.

use std::{pin::Pin, sync::Arc};

use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaAsIpc, SchemaResult, Ticket,
    flight_service_server::FlightService,
    sql::{Any, Command},
};
use futures::Stream;
use prost::Message;
use tonic::{
    Request, Response, Status, Streaming,
    metadata::{Ascii, MetadataValue},
};

use super::{
    actions,
    service::Service,
    sessions::{Caller, clear_cookie},
    status::{guarded, internal, invalid, unsupported},
};

type Answer<T> = Result<Response<T>, Status>;
type Items<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send + 'static>>;

/// The gRPC service.
pub(super) struct Front {
    service: Arc<Service>,
}

impl Front {
    pub(super) fn new(service: Arc<Service>) -> Self {
        Self { service }
    }

    /// Authenticates a call, does it, and sends the session's cookie with its answer.
    async fn call<T, U, F>(&self, mut request: Request<T>, work: impl FnOnce(Caller, Request<T>) -> F) -> Answer<U>
    where
        F: Future<Output = Answer<U>>,
    {
        guarded(async {
            let service = &self.service;
            let admitted = service
                .sessions
                .admit(&service.engine, request.metadata(), request.extensions())
                .await?;
            request.extensions_mut().insert(admitted.caller.clone());
            let mut answer = work(admitted.caller, request).await;
            if let Some(cookie) = admitted.cookie {
                put_cookie(&mut answer, cookie);
            }
            answer
        })
        .await
    }
}

/// Adds a cookie to an answer, good or bad, unless it sets one already.
fn put_cookie<U>(answer: &mut Answer<U>, cookie: MetadataValue<Ascii>) {
    let metadata = match answer {
        Ok(response) => response.metadata_mut(),
        Err(status) => status.metadata_mut(),
    };
    if !metadata.contains_key("set-cookie") {
        metadata.insert("set-cookie", cookie);
    }
}

/// The command in a descriptor.
fn command_of(descriptor: &FlightDescriptor) -> Result<Command, Status> {
    let unreadable =
        |error: &dyn std::fmt::Display| invalid(format!("the descriptor holds no Flight SQL command: {error}"));
    let any = Any::decode(descriptor.cmd.clone()).map_err(|error| unreadable(&error))?;
    Command::try_from(any).map_err(|error| unreadable(&error))
}

#[tonic::async_trait]
impl FlightService for Front {
    type HandshakeStream = Items<HandshakeResponse>;
    type ListFlightsStream = Items<FlightInfo>;
    type DoGetStream = Items<FlightData>;
    type DoPutStream = Items<PutResult>;
    type DoActionStream = Items<arrow_flight::Result>;
    type ListActionsStream = Items<ActionType>;
    type DoExchangeStream = Items<FlightData>;

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Answer<Self::HandshakeStream> {
        guarded(self.service.handshake(request)).await
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        self.call(request, |_, request| self.service.get_flight_info(request))
            .await
    }

    /// A query is admitted before this answers, and runs while it is read: there is never anything left to poll for.
    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<PollInfo> {
        self.call(request, async |_, request| {
            let info = self.service.get_flight_info(request).await?;
            Ok(info.map(|info| PollInfo {
                info: Some(info),
                flight_descriptor: None,
                progress: Some(1.0),
                expiration_time: None,
            }))
        })
        .await
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        self.call(request, async |caller, request| {
            let schema = self.service.schema_of(&caller, command_of(request.get_ref())?).await?;
            let options = IpcWriteOptions::default();
            let result: Result<SchemaResult, _> = SchemaAsIpc::new(&schema, &options).try_into();
            result
                .map(Response::new)
                .map_err(|error| internal("a schema cannot be encoded", &error))
        })
        .await
    }

    async fn do_get(&self, request: Request<Ticket>) -> Answer<Self::DoGetStream> {
        self.call(request, |_, request| self.service.do_get(request)).await
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        self.call(request, |_, request| self.service.do_put(request)).await
    }

    async fn do_action(&self, request: Request<Action>) -> Answer<Self::DoActionStream> {
        self.call(request, async |caller, request| {
            let done = self.service.act(&caller, request.get_ref()).await?;
            let results = done.results.into_iter().map(|body| Ok(arrow_flight::Result { body }));
            let stream: Self::DoActionStream = Box::pin(futures::stream::iter(results.collect::<Vec<_>>()));
            let mut answer = Ok(Response::new(stream));
            if done.closes_session {
                put_cookie(&mut answer, clear_cookie());
            }
            answer
        })
        .await
    }

    async fn list_actions(&self, request: Request<Empty>) -> Answer<Self::ListActionsStream> {
        self.call(request, async |_, _| {
            let stream: Self::ListActionsStream = Box::pin(futures::stream::iter(actions::list().map(Ok)));
            Ok(Response::new(stream))
        })
        .await
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Answer<Self::ListFlightsStream> {
        self.call(request, async |_, _| {
            Err(unsupported(
                "flights are not listed; ask for tables with Flight SQL's GetTables",
            ))
        })
        .await
    }

    async fn do_exchange(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoExchangeStream> {
        self.call(request, async |_, _| {
            Err(unsupported(
                "DoExchange is not supported; send statements with Flight SQL's commands",
            ))
        })
        .await
    }
}

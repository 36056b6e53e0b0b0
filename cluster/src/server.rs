//! The cluster port of a coordinator: where workers join, show that they live, and get the resources they need.
//!
//! In: Flight `DoAction` calls that carry the join token. Out: changes of [`Members`] and answers. Beside it, on the same
//! port, answer the workers inside the coordinator's process, for the workers outside it. Clients never come here.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use async_trait::async_trait;
use datafusion_distributed::Worker;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use minerva_connectors::Ledger;
use tokio::net::TcpListener;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use url::Url;

use crate::error::reason_of;
use crate::lending;
use crate::members::HEARTBEAT;
use crate::messages::{
    Borrow, Done, GiveBack, Heard, Heartbeat, Join, Joined, Leave, Question, Resources, ResourcesRequest, Wanted, read,
    write,
};
use crate::token::CheckToken;
use crate::{Channels, Error, Members, Readings, Tls, Token, VERSION, channels};

/// What the coordinator brings to its cluster port.
pub trait Membership: Send + Sync + 'static {
    /// The list that joins and leaves change.
    fn members(&self) -> &Members;

    /// How the coordinator reaches workers; a worker that joins is called back before it is taken in.
    fn channels(&self) -> &Channels;

    /// What queries have read so far, which workers tell with their heartbeats.
    fn readings(&self) -> &Readings;

    /// Who has which connections to depots.
    fn ledger(&self) -> &Arc<Ledger>;

    /// The resources that hold now. Called at every heartbeat, so it must be cheap.
    fn resources(&self) -> Arc<Resources>;
}

/// The service behind the cluster port.
pub(crate) struct ClusterService(Arc<dyn Membership>);

impl std::fmt::Debug for ClusterService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ClusterService").field(self.0.members()).finish()
    }
}

/// Everything that answers on the cluster port.
#[derive(Clone)]
pub struct ClusterPort {
    /// The coordinator's side of the protocol.
    pub membership: Arc<dyn Membership>,
    /// The worker inside this process, so that workers elsewhere can fetch from its stages.
    pub worker: Option<Worker>,
    /// What callers must show.
    pub token: Token,
    /// Certificates, or `None` for plain text.
    pub tls: Option<Tls>,
}

impl std::fmt::Debug for ClusterPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterPort")
            .field("members", self.membership.members())
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl ClusterPort {
    /// Serves until `shutdown` is done and the calls in flight are answered.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let check = CheckToken(self.token);
        let worker = self
            .worker
            .map(|worker| InterceptedService::new(worker.into_worker_server(), check.clone()));
        let membership = Arc::clone(&self.membership);
        let lending = lending::look_after(membership.ledger(), membership.members());
        let service = FlightServiceServer::new(ClusterService(self.membership));
        let serving = channels::server(self.tls.as_ref())?
            .add_service(InterceptedService::new(service, check))
            .add_optional_service(worker)
            .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), shutdown);
        let served = tokio::select! {
            served = serving => served,
            () = lending => return Ok(()),
        };
        served.map_err(|error| Error::Address(format!("the cluster port stopped: {}", reason_of(&error))))
    }
}

impl ClusterService {
    async fn join(&self, join: Join, from: Option<IpAddr>) -> Result<Joined, Status> {
        if join.version != VERSION {
            return Err(Status::failed_precondition(format!(
                "worker `{}` is Minerva {}, this coordinator is Minerva {VERSION}; run the same version on both",
                join.node_id, join.version
            )));
        }
        let url = reachable(&join.url, from)?;
        self.0.channels().forget(&url);
        self.0.channels().probe(&url).await.map_err(|error| {
            Status::failed_precondition(format!(
                "the coordinator cannot reach worker `{}`: {error}; start it with `--host` set to an address the coordinator can reach",
                join.node_id
            ))
        })?;
        self.0.members().join(&join, url.clone());
        let heartbeat_ms = u64::try_from(HEARTBEAT.as_millis()).unwrap_or(u64::MAX);
        Ok(Joined { url, heartbeat_ms })
    }

    fn heartbeat(&self, heartbeat: Heartbeat) -> Heard {
        self.0.readings().hear(&heartbeat.node_id, heartbeat.news);
        lending::compare(self.0.ledger(), &heartbeat.node_id, &heartbeat.slots);
        Heard {
            known: self.0.members().heartbeat(&heartbeat.node_id),
            resources: self.0.resources().version.clone(),
        }
    }

    fn leave(&self, leave: &Leave) -> Done {
        if let Some(url) = self.0.members().leave(leave) {
            self.0.channels().forget(&url);
        }
        if leave.drained {
            // It has closed its connections, or its process ends with them now.
            self.0.ledger().free(|node| node == leave.node_id);
        }
        Done {}
    }

    fn resources(&self) -> Resources {
        Resources::clone(&self.0.resources())
    }
}

/// The address that the worker listens on, with the address it called from in the place of "every address".
fn reachable(url: &Url, from: Option<IpAddr>) -> Result<Url, Status> {
    let unspecified = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_unspecified(),
        Some(url::Host::Ipv6(address)) => address.is_unspecified(),
        _ => false,
    };
    let mut url = url.clone();
    if unspecified {
        let from = from.ok_or_else(|| Status::invalid_argument("cannot tell where the worker calls from"))?;
        url.set_ip_host(from.to_canonical())
            .map_err(|()| Status::invalid_argument(format!("cannot put `{from}` into the address `{url}`")))?;
    }
    Ok(url)
}

fn ask<Q: Question>(action: &Action) -> Result<Q, Status> {
    read(&action.body).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn answer<T: serde::Serialize>(message: &T) -> Result<Vec<u8>, Status> {
    write(message).map_err(|error| Status::internal(error.to_string()))
}

#[async_trait]
impl FlightService for ClusterService {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let from = request.remote_addr().map(|address| address.ip());
        let action = request.into_inner();
        let body = match action.r#type.as_str() {
            Join::NAME => answer(&self.join(ask(&action)?, from).await?)?,
            Heartbeat::NAME => answer(&self.heartbeat(ask(&action)?))?,
            Leave::NAME => answer(&self.leave(&ask(&action)?))?,
            Borrow::NAME => answer(&lending::lend(self.0.ledger(), self.0.members(), &ask(&action)?).await)?,
            GiveBack::NAME => {
                lending::take_back(self.0.ledger(), &ask(&action)?);
                answer(&Done {})?
            }
            Wanted::NAME => answer(&lending::waiters(self.0.ledger(), ask(&action)?).await)?,
            ResourcesRequest::NAME => {
                ask::<ResourcesRequest>(&action)?;
                answer(&self.resources())?
            }
            other => return Err(Status::invalid_argument(format!("unknown action `{other}`"))),
        };
        let result = arrow_flight::Result { body: body.into() };
        Ok(Response::new(stream::iter([Ok(result)]).boxed()))
    }

    async fn handshake(
        &self,
        _request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        Err(not_here())
    }

    async fn list_flights(&self, _request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        Err(not_here())
    }

    async fn get_flight_info(&self, _request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        Err(not_here())
    }

    async fn poll_flight_info(&self, _request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        Err(not_here())
    }

    async fn get_schema(&self, _request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        Err(not_here())
    }

    async fn do_get(&self, _request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        Err(not_here())
    }

    async fn do_put(&self, _request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        Err(not_here())
    }

    async fn list_actions(&self, _request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        Err(not_here())
    }

    async fn do_exchange(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(not_here())
    }
}

fn not_here() -> Status {
    Status::unimplemented("this port is for the cluster's own members; clients use the Flight SQL port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_listens_everywhere_is_called_where_it_calls_from() {
        let check = |url: &str, from: &str, expected: &str| {
            let url = reachable(&Url::parse(url).unwrap(), Some(from.parse().unwrap())).unwrap();
            assert_eq!(url.as_str(), expected);
        };
        check("http://0.0.0.0:7440", "10.0.0.7", "http://10.0.0.7:7440/");
        check("https://[::]:7440", "::ffff:10.0.0.7", "https://10.0.0.7:7440/");
        check("http://10.0.0.8:7440", "10.0.0.7", "http://10.0.0.8:7440/");
        check("http://worker-3:7440", "10.0.0.7", "http://worker-3:7440/");
    }
}

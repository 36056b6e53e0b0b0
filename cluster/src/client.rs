//! A worker's line to its coordinator.
//!
//! In: the coordinator's cluster port. Out: answers, or errors that say whether trying again may help. It tries nothing
//! twice itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use url::Url;

use crate::messages::{
    Borrow, Borrowed, GiveBack, Heard, Heartbeat, Join, Joined, Leave, Question, Resources, ResourcesRequest, Waiters,
    Wanted, read,
};
use crate::{Channels, Error, Reading};

/// How long the coordinator may take to answer; joining includes its call back.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Calls one coordinator.
#[derive(Debug, Clone)]
pub struct CoordinatorClient {
    url: Url,
    channels: Channels,
}

impl CoordinatorClient {
    /// A client of the coordinator whose cluster port is `url`. Does not connect yet.
    pub fn new(url: Url, channels: Channels) -> Self {
        Self { url, channels }
    }

    /// The coordinator's address.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Asks to be taken in.
    pub async fn join(&self, join: &Join) -> Result<Joined, Error> {
        self.ask(join).await
    }

    /// Says that the worker lives, which slots it has, and what its stages have read.
    pub async fn heartbeat(
        &self,
        node_id: &str,
        slots: BTreeSet<u64>,
        news: BTreeMap<String, Reading>,
    ) -> Result<Heard, Error> {
        self.ask(&Heartbeat {
            node_id: node_id.to_owned(),
            slots,
            news,
        })
        .await
    }

    /// Says that the worker takes nothing new, or is gone.
    pub async fn leave(&self, node_id: &str, drained: bool) -> Result<(), Error> {
        self.ask(&Leave {
            node_id: node_id.to_owned(),
            drained,
        })
        .await
        .map(|_done| ())
    }

    /// Fetches the resources that hold now.
    pub async fn resources(&self, node_id: &str) -> Result<Resources, Error> {
        self.ask(&ResourcesRequest {
            node_id: node_id.to_owned(),
        })
        .await
    }

    /// Asks for the right to open a connection to a depot.
    pub(crate) async fn borrow(&self, question: &Borrow) -> Result<Borrowed, Error> {
        self.ask(question).await
    }

    /// Gives such a right back.
    pub(crate) async fn give_back(&self, question: &GiveBack) -> Result<(), Error> {
        self.ask(question).await.map(|_done| ())
    }

    /// Asks who waits for one.
    pub(crate) async fn wanted(&self, question: &Wanted) -> Result<Waiters, Error> {
        self.ask(question).await
    }

    async fn ask<Q: Question>(&self, question: &Q) -> Result<Q::Answer, Error> {
        match tokio::time::timeout(ANSWER_WITHIN, self.call(question)).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Unreachable {
                url: self.url.to_string(),
                reason: format!("no answer within {ANSWER_WITHIN:?}"),
            }),
        }
    }

    async fn call<Q: Question>(&self, question: &Q) -> Result<Q::Answer, Error> {
        let refused = |status: tonic::Status| Error::from_status(&self.url, &status);
        let connection = self.channels.connection(&self.url).await?;
        let mut client =
            FlightServiceClient::new(self.channels.with_token(connection)).max_decoding_message_size(usize::MAX);
        let mut answers = client
            .do_action(question.to_action()?)
            .await
            .map_err(refused)?
            .into_inner();
        let answer = answers.message().await.map_err(refused)?;
        let answer =
            answer.ok_or_else(|| Error::Answer(format!("`{}` answered `{}` with nothing", self.url, Q::NAME)))?;
        read(&answer.body)
    }
}

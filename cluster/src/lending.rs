//! Rights to have connections open, asked of the coordinator.
//!
//! In: what the depots of a worker want to open. Out: a [`Lender`] for them. The coordinator's ledger knows who has what: each heartbeat tells it once more,
//! so that an answer that got lost costs nothing for long. Whoever has heard nothing from its coordinator for a while gives all up, before the coordinator
//! takes it back: what was lent to a worker that is silent is lent to others only when the worker surely has closed its connections.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::common::runtime::SpawnedTask;
use minerva_connectors::{Ledger, Lender, Loan, SlotHolder, SlotKind, Waiting};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::messages::{Borrow, Borrowed, GiveBack, Waiters, Wanted};
use crate::{CoordinatorClient, Members};

/// After how long a silence of its coordinator a worker gives up what was lent to it. Its connections are closed some seconds later at most.
pub(crate) const GIVEN_UP_AFTER: Duration = Duration::from_secs(6);
/// After how long a silence of a worker what was lent to it is lent to others.
const TAKEN_BACK_AFTER: Duration = Duration::from_secs(20);
/// How old must be what a worker does not know of to be taken back: its answer is under way no more.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);
/// How long the coordinator lets a worker wait for an answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// For how long the place of a worker that does not ask again is kept.
const PLACE_KEPT_FOR: Duration = Duration::from_secs(8);
/// How often somebody looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long to wait after a call that failed.
const PAUSE: Duration = Duration::from_millis(200);
/// How often a worker that stops looks whether all is closed.
const CLOSED_EVERY: Duration = Duration::from_millis(20);
/// How many calls one worker makes for connections of one kind at the same time, so that the line stays free for others.
const MOST_CALLS: usize = 8;

/// A worker's lender.
#[derive(Debug)]
pub struct Borrower {
    node_id: String,
    client: CoordinatorClient,
    state: Mutex<State>,
    term: AtomicU64,
    changed: watch::Sender<u64>,
    calls: Mutex<BTreeMap<SlotKind, Arc<Semaphore>>>,
    myself: Weak<Borrower>,
}

/// What was lent to somebody who has not heard of it yet, and may never. Dropped unheard, it is given back.
#[derive(Debug)]
struct Unheard {
    borrower: Arc<Borrower>,
    kind: SlotKind,
    loan: Loan,
    is_heard: bool,
}

impl Unheard {
    fn heard(mut self) -> Loan {
        self.is_heard = true;
        self.loan
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        if !self.is_heard {
            self.borrower.take_back(&self.kind, self.loan.number);
        }
    }
}

#[derive(Debug)]
struct State {
    /// By number, with the term in which it was lent. What was given up stays until its connection is closed: the coordinator lends it to others only then.
    held: BTreeMap<u64, u64>,
    waiting: Waiting,
    /// When the last heartbeat that was answered was sent.
    heard: Instant,
}

impl Borrower {
    /// The lender of a worker of this name.
    pub fn new(node_id: &str, client: CoordinatorClient) -> Arc<Self> {
        Arc::new_cyclic(|myself| Self {
            node_id: node_id.to_owned(),
            client,
            state: Mutex::new(State {
                held: BTreeMap::new(),
                waiting: Waiting::new(),
                heard: Instant::now(),
            }),
            term: AtomicU64::new(0),
            changed: watch::Sender::new(0),
            calls: Mutex::default(),
            myself: myself.clone(),
        })
    }

    /// What the worker has, and what it has given up and not closed yet, to be told with a heartbeat.
    pub fn held(&self) -> BTreeSet<u64> {
        self.state().held.keys().copied().collect()
    }

    /// A heartbeat was answered that was sent then.
    pub fn heard(&self, sent: Instant) {
        self.state().heard = sent;
    }

    /// Gives all up, and forgets it: the coordinator does not know whose it is.
    pub fn forget(&self) {
        let held = std::mem::take(&mut self.state().held);
        if !held.is_empty() {
            tracing::warn!(node = %self.node_id, connections = held.len(), "gives up its connections to depots: the coordinator is new, or has missed this worker");
        }
        self.give_up();
    }

    /// Gives all up before the worker stops, and waits until it is closed, but not for long.
    pub async fn close(&self, within: Duration) {
        self.give_up();
        let closed = async {
            while !self.state().held.is_empty() {
                sleep(CLOSED_EVERY).await;
            }
        };
        if timeout(within, closed).await.is_err() {
            tracing::debug!(node = %self.node_id, "stops with connections to depots that are not closed yet");
        }
    }

    /// Has all connections closed.
    fn give_up(&self) {
        let state = self.state();
        self.term.fetch_add(1, Ordering::SeqCst);
        drop(state);
        self.tell();
    }

    /// Looks for how long the coordinator was silent, and asks who waits, until it is dropped.
    pub fn run(self: &Arc<Self>) -> SpawnedTask<()> {
        let borrower = Arc::clone(self);
        SpawnedTask::spawn(async move {
            tokio::join!(borrower.look_at_silence(), borrower.ask_who_waits());
        })
    }

    async fn look_at_silence(&self) {
        loop {
            sleep(LOOK_EVERY).await;
            let (heard, connections) = {
                let (state, term) = (self.state(), self.term());
                let current = state.held.values().filter(|lent_in| **lent_in == term);
                (state.heard, current.count())
            };
            if heard.elapsed() > GIVEN_UP_AFTER && connections > 0 {
                tracing::warn!(node = %self.node_id, connections, "gives up its connections to depots: the coordinator is away");
                self.give_up();
            }
        }
    }

    async fn ask_who_waits(&self) {
        loop {
            let known = self.state().waiting.clone();
            let question = Wanted {
                known: known.into_iter().collect(),
            };
            match self.client.wanted(&question).await {
                Ok(Waiters { waiting }) => {
                    self.state().waiting = waiting.into_iter().collect();
                    self.tell();
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// Asks until there is an answer, or nobody waits for it.
    async fn borrow(self: &Arc<Self>, kind: &SlotKind, pool: u64, most: usize, told: oneshot::Sender<Unheard>) {
        let calls = self.calls(kind);
        // To the end: who has a place at the coordinator must go on asking for it.
        let Ok(_calling) = calls.acquire().await else { return };
        let mut question = Borrow {
            holder: self.holder(pool),
            kind: kind.clone(),
            most,
            ticket: None,
        };
        while !told.is_closed() {
            let term = self.term();
            match self.client.borrow(&question).await {
                Ok(Borrowed {
                    number: Some(number), ..
                }) => {
                    if let Some(lent) = self.lent(kind, Loan { number, term }) {
                        // Nobody may hear it, now or later.
                        let _ = told.send(lent);
                    }
                    return;
                }
                Ok(Borrowed { number: None, ticket }) => question.ticket = ticket,
                Err(_) => sleep(PAUSE).await,
            }
        }
        if let Some(ticket) = question.ticket {
            self.take_back(kind, ticket);
        }
    }

    /// What was lent, for who waits for it; `None`, and it is given back, when all was given up meanwhile.
    fn lent(self: &Arc<Self>, kind: &SlotKind, loan: Loan) -> Option<Unheard> {
        let unheard = Unheard {
            borrower: Arc::clone(self),
            kind: kind.clone(),
            loan,
            is_heard: false,
        };
        let mut state = self.state();
        let is_current = self.term() == loan.term;
        if is_current {
            state.held.insert(loan.number, loan.term);
        }
        drop(state);
        is_current.then_some(unheard)
    }

    fn calls(&self, kind: &SlotKind) -> Arc<Semaphore> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = calls.entry(kind.clone());
        Arc::clone(calls.or_insert_with(|| Arc::new(Semaphore::new(MOST_CALLS))))
    }

    fn holder(&self, pool: u64) -> SlotHolder {
        SlotHolder {
            node_id: self.node_id.clone(),
            pool,
        }
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Lender for Borrower {
    async fn lend(&self, kind: &SlotKind, pool: u64, most: usize) -> Loan {
        loop {
            let (told, answer) = oneshot::channel();
            if let Some(myself) = self.myself.upgrade() {
                let kind = kind.clone();
                // In a task of its own: if nobody waits any more when the answer comes, what was lent is given back.
                tokio::spawn(async move { myself.borrow(&kind, pool, most, told).await });
            }
            match answer.await {
                Ok(lent) if lent.loan.term == self.term() => return lent.heard(),
                // What was lent was given up meanwhile.
                Ok(_) | Err(_) => sleep(PAUSE).await,
            }
        }
    }

    fn lend_now(&self, _kind: &SlotKind, _pool: u64, _most: usize) -> Option<Loan> {
        // Nobody is asked without waiting.
        None
    }

    fn take_back(&self, kind: &SlotKind, number: u64) {
        self.state().held.remove(&number);
        let (Some(myself), Ok(runtime)) = (self.myself.upgrade(), tokio::runtime::Handle::try_current()) else {
            // The next heartbeat says it.
            return;
        };
        let question = GiveBack {
            kind: kind.clone(),
            number,
        };
        runtime.spawn(async move {
            // If it is not heard, the next heartbeats say it.
            if let Err(error) = myself.client.give_back(&question).await {
                tracing::debug!(%error, "cannot give a connection's place back");
            }
        });
    }

    fn is_wanted(&self, kind: &SlotKind, pool: u64) -> bool {
        let state = self.state();
        let mut waiting = state.waiting.iter();
        waiting.any(|(wanted, holder)| wanted == kind && (holder.pool != pool || holder.node_id != self.node_id))
    }

    fn term(&self) -> u64 {
        self.term.load(Ordering::SeqCst)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// Answers a worker that wants to open a connection.
pub(crate) async fn lend(ledger: &Ledger, members: &Members, question: &Borrow) -> Borrowed {
    let Borrow {
        holder,
        kind,
        most,
        ticket,
    } = question;
    // What is lent to nobody would be taken back by nobody.
    if members.silence(&holder.node_id).is_none() {
        sleep(PAUSE).await;
        return Borrowed {
            number: None,
            ticket: *ticket,
        };
    }
    let lent = ledger.lend_within(kind, holder, *most, *ticket, PATIENCE).await;
    Borrowed {
        number: lent.ok(),
        ticket: lent.err(),
    }
}

/// Takes back what a worker does not use any more.
pub(crate) fn take_back(ledger: &Ledger, question: &GiveBack) {
    ledger.take_back(&question.kind, question.number);
}

/// Takes back what a worker does not know of.
pub(crate) fn compare(ledger: &Ledger, node_id: &str, held: &BTreeSet<u64>) {
    ledger.keep_only(node_id, held, ANSWERED_WITHIN);
}

/// Tells a worker who waits, as soon as it is not what the worker knows.
pub(crate) async fn waiters(ledger: &Ledger, question: Wanted) -> Waiters {
    let known: Waiting = question.known.into_iter().collect();
    let mut changes = ledger.changes();
    let differing = async {
        loop {
            changes.mark_unchanged();
            let waiting = ledger.waiting();
            if waiting != known || changes.changed().await.is_err() {
                return waiting;
            }
        }
    };
    let waiting = timeout(PATIENCE, differing).await;
    Waiters {
        waiting: waiting.unwrap_or(known).into_iter().collect(),
    }
}

/// Takes back what lost workers have, and what is kept for those that do not come, for as long as it is polled.
pub(crate) async fn look_after(ledger: &Ledger, members: &Members) {
    // When those that are in no list any more were missed first.
    let mut missed: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        sleep(LOOK_EVERY).await;
        ledger.forget_tickets(PLACE_KEPT_FOR);
        let nodes = ledger.nodes();
        missed.retain(|node, _| nodes.contains(node));
        for node in nodes.iter().filter(|node| !node.is_empty()) {
            let silence = match members.silence(node) {
                Some(silence) => {
                    missed.remove(node);
                    silence
                }
                None => missed.entry(node.clone()).or_insert_with(Instant::now).elapsed(),
            };
            if silence > TAKEN_BACK_AFTER {
                tracing::warn!(%node, "takes back the connections to depots that a lost worker had");
                // Its own clock may have stood still: it must hear of it before it does anything else.
                members.disown(node);
                ledger.free(|gone| gone == node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;
    use crate::{Channels, Token};

    fn kind() -> SlotKind {
        SlotKind {
            depot: "crm".to_owned(),
            purpose: minerva_connectors::Purpose::Read,
        }
    }

    /// One whose coordinator does not answer.
    fn borrower() -> Arc<Borrower> {
        let nowhere = Url::parse("http://127.0.0.1:1").unwrap();
        let client = CoordinatorClient::new(nowhere, Channels::new(Token::generate().unwrap(), None));
        Borrower::new("worker-1", client)
    }

    #[tokio::test]
    async fn what_nobody_hears_of_is_given_back() {
        let borrower = borrower();
        let loan = |number| Loan { number, term: 0 };
        let lent = borrower.lent(&kind(), loan(7)).unwrap();
        assert_eq!(borrower.held(), BTreeSet::from([7]));
        // It is told to somebody who goes away before it is looked at.
        let (told, answer) = oneshot::channel();
        told.send(lent).unwrap();
        drop(answer);
        assert!(borrower.held().is_empty());
        let lent = borrower.lent(&kind(), loan(8)).unwrap();
        assert_eq!(lent.heard(), loan(8));
        assert_eq!(borrower.held(), BTreeSet::from([8]));
    }

    #[tokio::test]
    async fn what_was_lent_before_all_was_given_up_is_not_had() {
        let borrower = borrower();
        let loan = Loan { number: 7, term: 0 };
        let lent = borrower.lent(&kind(), loan).unwrap();
        borrower.give_up();
        assert_ne!(lent.loan.term, borrower.term());
        let late = Loan { number: 8, term: 0 };
        assert!(borrower.lent(&kind(), late).is_none());
        // It is told to the coordinator until its connection is closed.
        let loan = lent.heard();
        assert_eq!(borrower.held(), BTreeSet::from([7]));
        borrower.take_back(&kind(), loan.number);
        assert!(borrower.held().is_empty());
    }

    #[tokio::test]
    async fn what_the_coordinator_does_not_know_is_not_told_again() {
        let borrower = borrower();
        let lent = borrower.lent(&kind(), Loan { number: 7, term: 0 }).unwrap();
        borrower.forget();
        assert!(borrower.held().is_empty());
        assert_ne!(lent.heard().term, borrower.term());
    }

    #[tokio::test]
    async fn a_worker_that_stops_waits_for_its_connections_but_not_for_long() {
        let borrower = borrower();
        let loan = borrower.lent(&kind(), Loan { number: 7, term: 0 }).unwrap().heard();
        borrower.close(Duration::from_millis(50)).await;
        assert_ne!(loan.term, borrower.term());
        assert_eq!(borrower.held(), BTreeSet::from([7]));
        let (closing, closed) = (Arc::clone(&borrower), Duration::from_secs(600));
        let closing = tokio::spawn(async move { closing.close(closed).await });
        borrower.take_back(&kind(), loan.number);
        timeout(Duration::from_secs(60), closing).await.unwrap().unwrap();
    }
}

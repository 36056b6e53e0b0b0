//! Rights to have a connection open: a depot has so many in the whole cluster, whoever opens them.
//!
//! In: what one process wants to open connections for. Out: a [`Slot`] for each, which lives as long as its connection does, also while nobody uses that.
//! Who reuses a connection that it kept asks nobody. Who needs another one waits in the order of asking, and whoever keeps one that it does not use closes
//! it then. The coordinator's process has the [`Ledger`]; a worker's asks for them over the wire, by a [`Lender`] of its own.
//!
//! What may wait for another has slots of its own ([`Purpose`]), so that no statement waits for itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::Either;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};

/// How long a server may take to notice that a connection was closed. Its slot is given back after that.
const NOTICED_WITHIN: Duration = Duration::from_millis(100);

/// Why a reader stops.
pub(crate) const GIVEN_UP: &str =
    "the worker that reads it lost its coordinator, and with it the right to its connections; run the query again";

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Purpose {
    /// Questions to the catalogue, which are answered while all readers read.
    Ask,
    /// Rows.
    Read,
    /// Transactions that write. What they write may come from readers that wait until it is taken from them.
    Write,
    /// Transactions that keep a snapshot for readers, which wait for nobody.
    Keep,
    /// Ending what others do.
    Stop,
}

impl Purpose {
    const ALL: [Purpose; 5] = [
        Purpose::Ask,
        Purpose::Read,
        Purpose::Write,
        Purpose::Keep,
        Purpose::Stop,
    ];
}

/// Connections of one depot for one purpose.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotKind {
    /// The depot's name.
    pub depot: String,
    /// What they are for.
    pub purpose: Purpose,
}

/// Who has slots: the node, and which of the pools in its process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotHolder {
    /// The node's name.
    pub node_id: String,
    /// The pool, new for each.
    pub pool: u64,
}

/// Those who wait for a slot, and of which kind.
pub type Waiting = BTreeSet<(SlotKind, SlotHolder)>;

/// Where a process has its slots from.
#[async_trait]
pub trait Lender: fmt::Debug + Send + Sync {
    /// Waits for a slot of a kind of which there are `most`, and says its number. Who no longer waits gets none.
    async fn lend(&self, kind: &SlotKind, pool: u64, most: usize) -> u64;

    /// A slot, if one can be had at once.
    fn lend_now(&self, kind: &SlotKind, pool: u64, most: usize) -> Option<u64>;

    /// Takes a slot back.
    fn take_back(&self, kind: &SlotKind, number: u64);

    /// Whether anybody waits for a slot of this kind but one pool of this process.
    fn is_wanted(&self, kind: &SlotKind, pool: u64) -> bool;

    /// Counts how often all slots were given up, since it was not known any more whether they are still this process's.
    fn term(&self) -> u64;

    /// Changes when others begin to wait, and with the term.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// All slots of all depots.
#[derive(Debug)]
pub struct Ledger {
    state: Mutex<BTreeMap<SlotKind, Lent>>,
    last: AtomicU64,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Lent {
    most: usize,
    held: BTreeMap<u64, Holding>,
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Holding {
    holder: SlotHolder,
    since: Instant,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    holder: SlotHolder,
    tell: oneshot::Sender<()>,
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger {
            state: Mutex::default(),
            last: AtomicU64::new(0),
            changed: watch::Sender::new(0),
        }
    }
}

impl Ledger {
    /// Waits for a slot. Whoever stops waiting has none.
    pub async fn lend(&self, kind: &SlotKind, holder: &SlotHolder, most: usize) -> u64 {
        let (number, told) = {
            let mut state = self.state();
            let lent = state.entry(kind.clone()).or_default();
            lent.most = most;
            let number = self.last.fetch_add(1, Ordering::Relaxed);
            if lent.waiting.is_empty() && lent.has_room() {
                lent.hold(number, holder);
                return number;
            }
            let (tell, told) = oneshot::channel();
            lent.waiting.push_back(Waiter {
                number,
                holder: holder.clone(),
                tell,
            });
            // There may be more of them than before.
            lent.deal();
            (number, told)
        };
        self.tell();
        let mut asking = Asking {
            ledger: self,
            kind,
            number,
            is_served: false,
        };
        // The ledger tells everybody before it lets go of a waiter.
        asking.is_served = told.await.is_ok();
        number
    }

    /// A slot, if one can be had at once.
    pub fn lend_now(&self, kind: &SlotKind, holder: &SlotHolder, most: usize) -> Option<u64> {
        let mut state = self.state();
        let lent = state.entry(kind.clone()).or_default();
        lent.most = most;
        (lent.waiting.is_empty() && lent.has_room()).then(|| {
            let number = self.last.fetch_add(1, Ordering::Relaxed);
            lent.hold(number, holder);
            number
        })
    }

    /// Takes a slot back. One that was taken back already changes nothing.
    pub fn take_back(&self, kind: &SlotKind, number: u64) {
        let mut state = self.state();
        if let Some(lent) = state.get_mut(kind) {
            lent.held.remove(&number);
            lent.waiting.retain(|waiter| waiter.number != number);
            lent.deal();
        }
        drop(state);
        self.tell();
    }

    /// Takes back what a node has but for those that it says it has, and those that were lent a moment ago: it may not have heard of them yet.
    pub fn keep_only(&self, node_id: &str, numbers: &BTreeSet<u64>, moment: Duration) {
        self.take_back_if(|number, holding| {
            holding.holder.node_id == node_id && !numbers.contains(&number) && holding.since.elapsed() > moment
        });
    }

    /// Takes back all that some nodes have.
    pub fn free(&self, is_gone: impl Fn(&str) -> bool) {
        self.take_back_if(|_, holding| is_gone(&holding.holder.node_id));
    }

    fn take_back_if(&self, is_over: impl Fn(u64, &Holding) -> bool) {
        for lent in self.state().values_mut() {
            let before = lent.held.len();
            lent.held.retain(|number, holding| !is_over(*number, holding));
            if lent.held.len() < before {
                lent.deal();
            }
        }
        self.tell();
    }

    /// The nodes that have slots.
    pub fn nodes(&self) -> BTreeSet<String> {
        let state = self.state();
        let held = state.values().flat_map(|lent| lent.held.values());
        held.map(|holding| holding.holder.node_id.clone()).collect()
    }

    /// Who waits.
    pub fn waiting(&self) -> Waiting {
        let state = self.state();
        let of = |(kind, lent): (&SlotKind, &Lent)| {
            let kind = kind.clone();
            let waiting: Vec<_> = lent.waiting.iter().map(|waiter| waiter.holder.clone()).collect();
            waiting.into_iter().map(move |holder| (kind.clone(), holder))
        };
        state.iter().flat_map(of).collect()
    }

    /// Whether anybody waits for a connection to a depot.
    pub(crate) fn is_waited_for(&self, depot: &str) -> bool {
        let state = self.state();
        let mut waited_for = state.iter().filter(|(_, lent)| !lent.waiting.is_empty());
        waited_for.any(|(kind, _)| kind.depot == depot)
    }

    /// Changes when somebody begins to wait or has what they waited for.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn state(&self) -> MutexGuard<'_, BTreeMap<SlotKind, Lent>> {
        // No code that holds the lock can leave the map half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lent {
    fn has_room(&self) -> bool {
        self.held.len() < self.most
    }

    fn hold(&mut self, number: u64, holder: &SlotHolder) {
        self.held.insert(
            number,
            Holding {
                holder: holder.clone(),
                since: Instant::now(),
            },
        );
    }

    fn deal(&mut self) {
        while self.has_room()
            && let Some(waiter) = self.waiting.pop_front()
        {
            if waiter.tell.send(()).is_ok() {
                self.hold(waiter.number, &waiter.holder);
            }
        }
    }
}

/// Somebody who waits. Dropped early, it wants nothing.
struct Asking<'a> {
    ledger: &'a Ledger,
    kind: &'a SlotKind,
    number: u64,
    is_served: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.is_served {
            self.ledger.take_back(self.kind, self.number);
        }
    }
}

/// The lender of the process that has the ledger.
#[derive(Debug)]
pub(crate) struct Own(pub(crate) Arc<Ledger>);

fn own(pool: u64) -> SlotHolder {
    SlotHolder {
        node_id: String::new(),
        pool,
    }
}

#[async_trait]
impl Lender for Own {
    async fn lend(&self, kind: &SlotKind, pool: u64, most: usize) -> u64 {
        self.0.lend(kind, &own(pool), most).await
    }

    fn lend_now(&self, kind: &SlotKind, pool: u64, most: usize) -> Option<u64> {
        self.0.lend_now(kind, &own(pool), most)
    }

    fn take_back(&self, kind: &SlotKind, number: u64) {
        self.0.take_back(kind, number);
    }

    fn is_wanted(&self, kind: &SlotKind, pool: u64) -> bool {
        let state = self.0.state();
        let waiting = state.get(kind).map(|lent| &lent.waiting);
        waiting.is_some_and(|waiting| waiting.iter().any(|waiter| waiter.holder != own(pool)))
    }

    fn term(&self) -> u64 {
        0
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }
}

/// The slots of one pool of connections.
#[derive(Debug)]
pub(crate) struct Slots {
    depot: String,
    lender: Arc<dyn Lender>,
    pool: u64,
    shares: Shares,
    /// Told when a connection is kept that others may use.
    returned: [Notify; Purpose::ALL.len()],
}

/// How the connections of a depot are shared out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shares(BTreeMap<Purpose, (Purpose, usize)>);

impl Shares {
    /// So many for each purpose; what is not named has none.
    pub(crate) fn new(shares: impl IntoIterator<Item = (Purpose, usize)>) -> Shares {
        Shares(
            shares
                .into_iter()
                .map(|(purpose, most)| (purpose, (purpose, most)))
                .collect(),
        )
    }

    /// Purposes that use those of another one.
    pub(crate) fn with(mut self, purposes: &[Purpose], of: Purpose) -> Shares {
        if let Some(share) = self.0.get(&of).copied() {
            self.0.extend(purposes.iter().map(|purpose| (*purpose, share)));
        }
        self
    }

    /// Of which purpose the connections are that are used for one, and how many there are.
    fn of(&self, purpose: Purpose) -> (Purpose, usize) {
        self.0.get(&purpose).copied().unwrap_or((purpose, 0))
    }

    /// How many there are for a purpose.
    pub(crate) fn most(&self, purpose: Purpose) -> usize {
        self.of(purpose).1
    }

    /// How many there are in all.
    #[cfg(test)]
    pub(crate) fn all(&self) -> usize {
        let own = self.0.iter().filter(|(purpose, (of, _))| *purpose == of);
        own.map(|(_, (_, most))| most).sum()
    }
}

/// The right to have one connection open.
#[derive(Debug)]
pub(crate) struct Slot {
    kind: SlotKind,
    number: u64,
    pool: u64,
    term: u64,
    lender: Arc<dyn Lender>,
}

impl Slot {
    /// What its connection is for.
    pub(crate) fn purpose(&self) -> Purpose {
        self.kind.purpose
    }

    /// Whether it was given up, and may be another's.
    pub(crate) fn is_over(&self) -> bool {
        self.term != self.lender.term()
    }

    /// Whether a connection that nobody uses must be closed now.
    pub(crate) fn is_due(&self) -> bool {
        self.is_over() || self.lender.is_wanted(&self.kind, self.pool)
    }

    /// Gives it back when the server has noticed that its connection is closed.
    pub(crate) fn leave(self) {
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(NOTICED_WITHIN).await;
                drop(self);
            });
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // What was given up is nobody's, or another's.
        if !self.is_over() {
            self.lender.take_back(&self.kind, self.number);
        }
    }
}

impl Slots {
    pub(crate) fn new(depot: &str, lender: &Arc<dyn Lender>, shares: Shares) -> Slots {
        static POOLS: AtomicU64 = AtomicU64::new(0);
        Slots {
            depot: depot.to_owned(),
            lender: Arc::clone(lender),
            pool: POOLS.fetch_add(1, Ordering::Relaxed),
            shares,
            returned: Default::default(),
        }
    }

    /// How many connections there are for a purpose, in the whole cluster.
    pub(crate) fn most(&self, purpose: Purpose) -> usize {
        self.shares.most(purpose)
    }

    /// What was kept for a purpose, by `kept`, or a slot for a new connection, whichever can be had first.
    pub(crate) async fn kept_or_slot<T>(
        &self,
        purpose: Purpose,
        kept: impl Fn(Purpose) -> Option<T>,
    ) -> Either<T, Slot> {
        let (purpose, most) = self.shares.of(purpose);
        let kind = self.kind(purpose);
        loop {
            let mut returned = std::pin::pin!(self.notice(purpose).notified());
            returned.as_mut().enable();
            if let Some(kept) = kept(purpose) {
                return Either::Left(kept);
            }
            let term = self.lender.term();
            tokio::select! {
                number = self.lender.lend(&kind, self.pool, most) => return Either::Right(self.slot(kind, number, term)),
                () = returned => {}
            }
        }
    }

    /// The same, if it can be had at once.
    pub(crate) fn kept_or_slot_now<T>(
        &self,
        purpose: Purpose,
        kept: impl Fn(Purpose) -> Option<T>,
    ) -> Option<Either<T, Slot>> {
        let (purpose, most) = self.shares.of(purpose);
        if let Some(kept) = kept(purpose) {
            return Some(Either::Left(kept));
        }
        let (kind, term) = (self.kind(purpose), self.lender.term());
        let number = self.lender.lend_now(&kind, self.pool, most)?;
        Some(Either::Right(self.slot(kind, number, term)))
    }

    /// Has a slot become one for another purpose, if one can be had at once.
    pub(crate) fn exchange(&self, slot: &mut Slot, purpose: Purpose) -> bool {
        let (purpose, most) = self.shares.of(purpose);
        let (kind, term) = (self.kind(purpose), self.lender.term());
        let number = self.lender.lend_now(&kind, self.pool, most);
        if let Some(number) = number {
            *slot = self.slot(kind, number, term);
        }
        number.is_some()
    }

    /// Says that a connection was kept.
    pub(crate) fn has_kept(&self, purpose: Purpose) {
        self.notice(purpose).notify_one();
    }

    /// Changes when connections that nobody uses may have to be closed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.lender.changes()
    }

    /// Waits until all slots that are had now are given up.
    pub(crate) async fn given_up(&self) {
        let (term, mut changes) = (self.lender.term(), self.lender.changes());
        while self.lender.term() == term {
            if changes.changed().await.is_err() {
                // Nobody can take them any more.
                std::future::pending::<()>().await;
            }
        }
    }

    fn slot(&self, kind: SlotKind, number: u64, term: u64) -> Slot {
        Slot {
            kind,
            number,
            pool: self.pool,
            term,
            lender: Arc::clone(&self.lender),
        }
    }

    fn kind(&self, purpose: Purpose) -> SlotKind {
        SlotKind {
            depot: self.depot.clone(),
            purpose,
        }
    }

    fn notice(&self, purpose: Purpose) -> &Notify {
        let [ask, read, write, keep, stop] = &self.returned;
        match purpose {
            Purpose::Ask => ask,
            Purpose::Read => read,
            Purpose::Write => write,
            Purpose::Keep => keep,
            Purpose::Stop => stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn kind() -> SlotKind {
        SlotKind {
            depot: "crm".to_owned(),
            purpose: Purpose::Read,
        }
    }

    fn holder(node_id: &str) -> SlotHolder {
        SlotHolder {
            node_id: node_id.to_owned(),
            pool: 0,
        }
    }

    #[tokio::test]
    async fn slots_are_lent_in_the_order_of_asking_and_never_more_than_there_are() {
        let (ledger, kind) = (Ledger::default(), kind());
        let (a, b) = (holder("a"), holder("b"));
        let first = ledger.lend(&kind, &a, 1).await;
        let mut second = Box::pin(ledger.lend(&kind, &b, 1));
        let mut third = Box::pin(ledger.lend(&kind, &a, 1));
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        assert_eq!(ledger.lend_now(&kind, &a, 1), None);
        assert_eq!(
            ledger.waiting(),
            Waiting::from([(kind.clone(), b.clone()), (kind.clone(), a.clone())])
        );
        ledger.take_back(&kind, first);
        assert!(third.as_mut().now_or_never().is_none());
        let second = second.now_or_never().unwrap();
        // Twice is once.
        ledger.take_back(&kind, first);
        assert!(third.as_mut().now_or_never().is_none());
        ledger.take_back(&kind, second);
        assert!(third.now_or_never().is_some());
        assert!(ledger.waiting().is_empty());
    }

    #[tokio::test]
    async fn who_no_longer_waits_gets_none() {
        let (ledger, kind, a) = (Ledger::default(), kind(), holder("a"));
        let first = ledger.lend(&kind, &a, 1).await;
        let mut second = Box::pin(ledger.lend(&kind, &a, 1));
        assert!(second.as_mut().now_or_never().is_none());
        drop(second);
        // One is told and goes away without hearing it.
        let mut third = Box::pin(ledger.lend(&kind, &a, 1));
        assert!(third.as_mut().now_or_never().is_none());
        ledger.take_back(&kind, first);
        drop(third);
        assert!(ledger.lend_now(&kind, &a, 1).is_some());
    }

    #[tokio::test]
    async fn what_a_node_does_not_know_of_is_taken_back_and_so_is_all_of_a_lost_one() {
        let (ledger, kind) = (Ledger::default(), kind());
        let known = ledger.lend(&kind, &holder("a"), 3).await;
        ledger.lend(&kind, &holder("a"), 3).await;
        ledger.lend(&kind, &holder("b"), 3).await;
        ledger.keep_only("a", &BTreeSet::from([known]), Duration::from_secs(60));
        assert_eq!(ledger.lend_now(&kind, &holder("c"), 3), None);
        ledger.keep_only("a", &BTreeSet::from([known]), Duration::ZERO);
        assert!(ledger.lend_now(&kind, &holder("c"), 3).is_some());
        assert_eq!(ledger.lend_now(&kind, &holder("c"), 3), None);
        ledger.free(|node| node == "b");
        assert!(ledger.lend_now(&kind, &holder("c"), 3).is_some());
        assert_eq!(ledger.nodes(), BTreeSet::from(["a".to_owned(), "c".to_owned()]));
    }

    #[tokio::test]
    async fn a_kept_connection_goes_to_who_waits_here_and_is_closed_for_who_waits_elsewhere() {
        let ledger = Arc::new(Ledger::default());
        let lender: Arc<dyn Lender> = Arc::new(Own(Arc::clone(&ledger)));
        let shares = Shares::new([(Purpose::Read, 1)]).with(&[Purpose::Ask], Purpose::Read);
        let slots = Slots::new("crm", &lender, shares.clone());
        let Either::Right(slot) = slots.kept_or_slot(Purpose::Read, |_| None::<Slot>).await else {
            unreachable!("nothing is kept");
        };
        let kept = Mutex::new(None);
        let take = |_: Purpose| kept.lock().unwrap().take();
        let mut here = Box::pin(slots.kept_or_slot(Purpose::Ask, take));
        assert!(here.as_mut().now_or_never().is_none());
        assert!(!slot.is_due());
        *kept.lock().unwrap() = Some(slot);
        slots.has_kept(Purpose::Read);
        let Some(Either::Left(slot)) = here.now_or_never() else {
            unreachable!("it is kept");
        };
        // Both are one, and it is had.
        let mut slot = slot;
        assert!(!slots.exchange(&mut slot, Purpose::Ask));
        let others = Slots::new("crm", &lender, shares);
        let mut elsewhere = Box::pin(others.kept_or_slot(Purpose::Read, |_| None::<Slot>));
        assert!(elsewhere.as_mut().now_or_never().is_none());
        assert!(slot.is_due());
        drop(slot);
        assert!(elsewhere.now_or_never().is_some());
    }
}

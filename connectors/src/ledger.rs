//! The ledger of all slots: who has one, and who waits for one.
//!
//! In: what one holder wants, of which kind, and how many of the kind there are. Out: a number, in the order of asking. Who cannot wait in one go, since it asks over
//! a wire, has a ticket, which keeps its place for a while between two questions; what is dealt to a ticket meanwhile is kept for it as long.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::slots::{Lender, Loan, SlotHolder, SlotKind, Waiting};

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
    /// Whether its holder was away when it was dealt, and has not asked since.
    is_unheard: bool,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    holder: SlotHolder,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// Somebody waits at it.
    Taken(oneshot::Sender<()>),
    /// It is kept for a ticket.
    Kept(Instant),
}

/// What comes of asking.
enum Asked {
    Lent(u64),
    Waits(u64, oneshot::Receiver<()>),
}

impl Default for Ledger {
    fn default() -> Ledger {
        // What was lent by another coordinator, and comes back late, must be none of this one's numbers. A hasher has a new random key each time.
        let first = RandomState::new().hash_one(0) >> 1;
        Ledger {
            state: Mutex::default(),
            last: AtomicU64::new(first),
            changed: watch::Sender::new(0),
        }
    }
}

impl Ledger {
    /// Waits for a slot. Whoever stops waiting has none.
    pub async fn lend(&self, kind: &SlotKind, holder: &SlotHolder, most: usize) -> u64 {
        let (number, told) = match self.ask(kind, holder, most, None) {
            Asked::Lent(number) => return number,
            Asked::Waits(number, told) => (number, told),
        };
        self.tell();
        let mut asking = Asking {
            ledger: self,
            kind,
            number,
            is_served: false,
            has_ticket: false,
        };
        // The ledger tells everybody before it lets go of a waiter.
        asking.is_served = told.await.is_ok();
        number
    }

    /// Waits for a slot for a while.
    ///
    /// # Errors
    /// With a ticket that keeps the place if it is asked with again soon. One that is not known any more is as good as none.
    pub async fn lend_within(
        &self,
        kind: &SlotKind,
        holder: &SlotHolder,
        most: usize,
        ticket: Option<u64>,
        patience: Duration,
    ) -> Result<u64, u64> {
        let (number, told) = match self.ask(kind, holder, most, ticket) {
            Asked::Lent(number) => return Ok(number),
            Asked::Waits(number, told) => (number, told),
        };
        self.tell();
        let mut asking = Asking {
            ledger: self,
            kind,
            number,
            is_served: false,
            has_ticket: true,
        };
        asking.is_served = matches!(timeout(patience, told).await, Ok(Ok(())));
        if asking.is_served { Ok(number) } else { Err(number) }
    }

    fn ask(&self, kind: &SlotKind, holder: &SlotHolder, most: usize, ticket: Option<u64>) -> Asked {
        let mut state = self.state();
        let lent = state.entry(kind.clone()).or_default();
        lent.most = most;
        let (tell, told) = oneshot::channel();
        if let Some(ticket) = ticket {
            // It was dealt meanwhile, or the answer got lost.
            let held = lent.held.get_mut(&ticket).filter(|holding| holding.holder == *holder);
            if let Some(holding) = held {
                (holding.is_unheard, holding.since) = (false, Instant::now());
                return Asked::Lent(ticket);
            }
            let is_it = |waiter: &&mut Waiter| waiter.number == ticket && waiter.holder == *holder;
            if let Some(waiter) = lent.waiting.iter_mut().find(is_it) {
                waiter.place = Place::Taken(tell);
                lent.deal();
                return Asked::Waits(ticket, told);
            }
        }
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        if lent.waiting.is_empty() && lent.has_room() {
            lent.hold(number, holder, false);
            return Asked::Lent(number);
        }
        lent.waiting.push_back(Waiter {
            number,
            holder: holder.clone(),
            place: Place::Taken(tell),
        });
        // There may be more of them than before.
        lent.deal();
        Asked::Waits(number, told)
    }

    /// A slot, if one can be had at once.
    pub fn lend_now(&self, kind: &SlotKind, holder: &SlotHolder, most: usize) -> Option<u64> {
        let mut state = self.state();
        let lent = state.entry(kind.clone()).or_default();
        lent.most = most;
        (lent.waiting.is_empty() && lent.has_room()).then(|| {
            let number = self.last.fetch_add(1, Ordering::Relaxed);
            lent.hold(number, holder, false);
            number
        })
    }

    /// Takes a slot, or a ticket, back. One that was taken back already changes nothing.
    pub fn take_back(&self, kind: &SlotKind, number: u64) {
        let mut state = self.state();
        let Some(lent) = state.get_mut(kind) else { return };
        let is_waited_for = !lent.waiting.is_empty();
        lent.held.remove(&number);
        lent.waiting.retain(|waiter| waiter.number != number);
        lent.deal();
        drop(state);
        // Small statements give many back, of which nobody needs to hear.
        if is_waited_for {
            self.tell();
        }
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

    /// Does not keep anything longer for tickets that nobody has asked with for a while.
    pub fn forget_tickets(&self, after: Duration) {
        let mut forgotten = false;
        for lent in self.state().values_mut() {
            let before = (lent.waiting.len(), lent.held.len());
            lent.waiting
                .retain(|waiter| !matches!(waiter.place, Place::Kept(since) if since.elapsed() >= after));
            lent.held
                .retain(|_, holding| !(holding.is_unheard && holding.since.elapsed() >= after));
            if (lent.waiting.len(), lent.held.len()) != before {
                forgotten = true;
                lent.deal();
            }
        }
        if forgotten {
            self.tell();
        }
    }

    /// Keeps the place of a ticket whose holder has stopped waiting at it.
    fn keep_place(&self, kind: &SlotKind, ticket: u64) {
        let mut state = self.state();
        let Some(lent) = state.get_mut(kind) else { return };
        if let Some(waiter) = lent.waiting.iter_mut().find(|waiter| waiter.number == ticket) {
            // It may be asked with again already.
            if matches!(&waiter.place, Place::Taken(tell) if tell.is_closed()) {
                waiter.place = Place::Kept(Instant::now());
            }
        } else if let Some(holding) = lent.held.get_mut(&ticket) {
            (holding.is_unheard, holding.since) = (true, Instant::now());
        }
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

    fn hold(&mut self, number: u64, holder: &SlotHolder, is_unheard: bool) {
        self.held.insert(
            number,
            Holding {
                holder: holder.clone(),
                since: Instant::now(),
                is_unheard,
            },
        );
    }

    fn deal(&mut self) {
        while self.has_room()
            && let Some(waiter) = self.waiting.pop_front()
        {
            // Who has just left takes back what it has not heard of, or comes again with its ticket.
            let is_unheard = match waiter.place {
                Place::Taken(tell) => tell.send(()).is_err(),
                Place::Kept(_) => true,
            };
            self.hold(waiter.number, &waiter.holder, is_unheard);
        }
    }
}

/// Somebody who waits. Dropped early, it wants nothing, or has its place kept.
struct Asking<'a> {
    ledger: &'a Ledger,
    kind: &'a SlotKind,
    number: u64,
    is_served: bool,
    has_ticket: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        match (self.is_served, self.has_ticket) {
            (true, _) => {}
            (false, true) => self.ledger.keep_place(self.kind, self.number),
            (false, false) => self.ledger.take_back(self.kind, self.number),
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
    async fn lend(&self, kind: &SlotKind, pool: u64, most: usize) -> Loan {
        let number = self.0.lend(kind, &own(pool), most).await;
        Loan { number, term: 0 }
    }

    fn lend_now(&self, kind: &SlotKind, pool: u64, most: usize) -> Option<Loan> {
        let number = self.0.lend_now(kind, &own(pool), most)?;
        Some(Loan { number, term: 0 })
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

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::slots::Purpose;

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

    /// A worker asks again and again, and somebody else begins to wait in one go meanwhile.
    #[tokio::test]
    async fn a_ticket_keeps_its_place_between_two_questions() {
        let (ledger, kind) = (Ledger::default(), kind());
        let (a, b) = (holder("a"), holder("b"));
        let first = ledger.lend(&kind, &b, 1).await;
        let short = Duration::from_millis(1);
        let ticket = ledger.lend_within(&kind, &a, 1, None, short).await.unwrap_err();
        let mut later = Box::pin(ledger.lend(&kind, &b, 1));
        assert!(later.as_mut().now_or_never().is_none());
        // It is the same place.
        assert_eq!(ledger.lend_within(&kind, &a, 1, Some(ticket), short).await, Err(ticket));
        assert_eq!(ledger.waiting().len(), 2);
        ledger.take_back(&kind, first);
        // It was dealt to the ticket while nobody asked.
        assert!(later.as_mut().now_or_never().is_none());
        assert_eq!(ledger.lend_within(&kind, &a, 1, Some(ticket), short).await, Ok(ticket));
        // The answer got lost.
        assert_eq!(ledger.lend_within(&kind, &a, 1, Some(ticket), short).await, Ok(ticket));
        ledger.forget_tickets(Duration::ZERO);
        assert!(later.as_mut().now_or_never().is_none());
        ledger.take_back(&kind, ticket);
        assert!(later.now_or_never().is_some());
        // What is known no more is a new place.
        assert_ne!(ledger.lend_within(&kind, &a, 1, Some(ticket), short).await, Err(ticket));
    }

    #[tokio::test]
    async fn a_ticket_that_nobody_asks_with_keeps_nothing_for_long() {
        let (ledger, kind) = (Ledger::default(), kind());
        let (a, b) = (holder("a"), holder("b"));
        let first = ledger.lend(&kind, &b, 1).await;
        let short = Duration::from_millis(1);
        ledger.lend_within(&kind, &a, 1, None, short).await.unwrap_err();
        ledger.forget_tickets(Duration::from_secs(60));
        assert_eq!(ledger.waiting().len(), 1);
        ledger.forget_tickets(Duration::ZERO);
        assert!(ledger.waiting().is_empty());
        // One that was dealt something, and one that is given back.
        ledger.lend_within(&kind, &a, 1, None, short).await.unwrap_err();
        let ticket = ledger.lend_within(&kind, &a, 1, None, short).await.unwrap_err();
        let mut last = Box::pin(ledger.lend(&kind, &b, 1));
        assert!(last.as_mut().now_or_never().is_none());
        ledger.take_back(&kind, first);
        ledger.take_back(&kind, ticket);
        assert!(last.as_mut().now_or_never().is_none());
        ledger.forget_tickets(Duration::ZERO);
        assert!(last.now_or_never().is_some());
    }

    #[test]
    fn no_two_coordinators_lend_the_same_numbers() {
        let first = || Ledger::default().lend_now(&kind(), &holder("a"), 1).unwrap();
        assert!(first().abs_diff(first()) > 1 << 32);
    }
}

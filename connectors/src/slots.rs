//! Rights to have a connection open: a depot has so many in the whole cluster, whoever opens them.
//!
//! In: what one process wants to open connections for. Out: a [`Slot`] for each, which lives as long as its connection does, also while nobody uses that.
//! Who reuses a connection that it kept asks nobody. Who needs another one waits in the order of asking, and whoever keeps one that it does not use closes
//! it then. The coordinator's process has the [`crate::Ledger`]; a worker's asks for them over the wire, by a [`Lender`] of its own.
//!
//! What may wait for another has slots of its own ([`Purpose`]), so that no statement waits for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::Either;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use crate::{Error, ErrorKind, waits};

/// How long a server may take to notice that a connection was closed. Its slot is given back after that.
const NOTICED_WITHIN: Duration = Duration::from_millis(100);

/// Why a reader stops whose connection may be another's now. It tells nothing of the depot, so that it is no reason to leave that alone.
pub(crate) fn given_up(depot: &str) -> Error {
    let message =
        "the worker that reads it lost its coordinator, and with it the right to its connections; run the query again";
    Error::new(depot, ErrorKind::Busy, message)
}

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

/// A slot that was lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loan {
    /// By which number it is given back.
    pub number: u64,
    /// The term in which it was lent ([`Lender::term`]).
    pub term: u64,
}

/// Where a process has its slots from.
#[async_trait]
pub trait Lender: fmt::Debug + Send + Sync {
    /// Waits for a slot of a kind of which there are `most`. Who no longer waits gets none.
    async fn lend(&self, kind: &SlotKind, pool: u64, most: usize) -> Loan;

    /// A slot, if one can be had at once.
    fn lend_now(&self, kind: &SlotKind, pool: u64, most: usize) -> Option<Loan>;

    /// Takes a slot back.
    fn take_back(&self, kind: &SlotKind, number: u64);

    /// Whether anybody waits for a slot of this kind but one pool of this process.
    fn is_wanted(&self, kind: &SlotKind, pool: u64) -> bool;

    /// Counts how often all slots were given up, since it was not known any more whether they are still this process's.
    fn term(&self) -> u64;

    /// Changes when others begin to wait, and with the term.
    fn changes(&self) -> watch::Receiver<u64>;
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

/// The right to have one connection open. Dropped, it goes back when the server has noticed that its connection is closed.
#[derive(Debug)]
pub(crate) struct Slot {
    kind: SlotKind,
    loan: Loan,
    pool: u64,
    lender: Arc<dyn Lender>,
    /// Whether the server is known to have closed its connection.
    is_closed: bool,
}

/// Waits until a server has surely noticed that a connection was closed, so that its slot may serve for another one.
pub(crate) async fn noticed() {
    tokio::time::sleep(NOTICED_WITHIN).await;
}

impl Slot {
    /// What its connection is for.
    pub(crate) fn purpose(&self) -> Purpose {
        self.kind.purpose
    }

    /// Gives it back at once: the server has closed its connection.
    pub(crate) fn end(mut self) {
        self.is_closed = true;
    }

    /// Has its connection counted by another slot, which has none, from now on.
    pub(crate) fn become_other(&mut self, other: Slot) {
        std::mem::replace(self, other).end();
    }

    /// Whether it was given up, and may be another's.
    pub(crate) fn is_over(&self) -> bool {
        self.loan.term != self.lender.term()
    }

    /// Whether a connection that nobody uses must be closed now.
    pub(crate) fn is_due(&self) -> bool {
        self.is_over() || self.lender.is_wanted(&self.kind, self.pool)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let right = Right {
            kind: self.kind.clone(),
            loan: self.loan,
            lender: Arc::clone(&self.lender),
        };
        if let Ok(runtime) = Handle::try_current()
            && !self.is_closed
        {
            // Also of one that was being made, or was left in the middle: its server may have it for a moment longer.
            runtime.spawn(async move {
                noticed().await;
                drop(right);
            });
        }
    }
}

/// What a slot leaves behind. It goes back when this is dropped.
#[derive(Debug)]
struct Right {
    kind: SlotKind,
    loan: Loan,
    lender: Arc<dyn Lender>,
}

impl Drop for Right {
    fn drop(&mut self) {
        // Also what was given up: it is lent to others when its connection is closed. No number is lent twice.
        self.lender.take_back(&self.kind, self.loan.number);
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
        let _waiting = waits::begin();
        // One place among those who wait, however often somebody else is quicker to take what was kept.
        let mut lending = self.lender.lend(&kind, self.pool, most);
        loop {
            let mut returned = std::pin::pin!(self.notice(purpose).notified());
            returned.as_mut().enable();
            if let Some(kept) = kept(purpose) {
                return Either::Left(kept);
            }
            tokio::select! {
                loan = &mut lending => return Either::Right(self.slot(kind.clone(), loan)),
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
        let kind = self.kind(purpose);
        let loan = self.lender.lend_now(&kind, self.pool, most)?;
        Some(Either::Right(self.slot(kind, loan)))
    }

    /// Has a slot become one for another purpose, if one can be had at once.
    pub(crate) fn exchange(&self, slot: &mut Slot, purpose: Purpose) -> bool {
        let (purpose, most) = self.shares.of(purpose);
        let kind = self.kind(purpose);
        let Some(loan) = self.lender.lend_now(&kind, self.pool, most) else {
            return false;
        };
        // Its connection stays, and counts as one of the others from now on.
        slot.become_other(self.slot(kind, loan));
        true
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

    fn slot(&self, kind: SlotKind, loan: Loan) -> Slot {
        Slot {
            kind,
            loan,
            pool: self.pool,
            lender: Arc::clone(&self.lender),
            is_closed: false,
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
    use std::sync::Mutex;

    use futures::FutureExt;

    use super::*;
    use crate::health::{Health, Outcome};
    use crate::ledger::{Ledger, Own};

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
        // The server may have its connection for a moment longer.
        drop(slot);
        assert!(elsewhere.as_mut().now_or_never().is_none());
        let Either::Right(slot) = elsewhere.await else {
            unreachable!("nothing is kept");
        };
        // Of one that it is known to have closed it has none.
        let mut third = Box::pin(slots.kept_or_slot(Purpose::Read, |_| None::<Slot>));
        assert!(third.as_mut().now_or_never().is_none());
        slot.end();
        assert!(matches!(third.now_or_never(), Some(Either::Right(_))));
    }

    /// Small statements change what their connection is for many times in a tenth of a second.
    #[tokio::test]
    async fn who_exchanges_a_slot_keeps_nothing_of_the_old_one() {
        let lender: Arc<dyn Lender> = Arc::new(Own(Arc::default()));
        let slots = Slots::new("crm", &lender, Shares::new([(Purpose::Read, 1), (Purpose::Ask, 1)]));
        let found = slots.kept_or_slot_now(Purpose::Read, |_| None::<Slot>);
        let Some(Either::Right(mut slot)) = found else {
            unreachable!("nothing is kept");
        };
        for _ in 0..3 {
            assert!(slots.exchange(&mut slot, Purpose::Ask) && slots.exchange(&mut slot, Purpose::Read));
        }
        assert!(slots.kept_or_slot_now(Purpose::Read, |_| None::<Slot>).is_none());
        assert!(slots.kept_or_slot_now(Purpose::Ask, |_| None::<Slot>).is_some());
    }

    #[test]
    fn what_is_given_up_is_not_held_against_the_depot() {
        let health = Health::new("crm", true);
        for _ in 0..5 {
            let mut admitted = health.admit().unwrap();
            health.note(Outcome::Failed(&given_up("crm")), Some(&mut admitted));
        }
        assert!(health.admit().is_ok());
    }

    /// A lender that gives all up while somebody waits, and lends anew.
    #[derive(Debug)]
    struct Renewed {
        term: AtomicU64,
        back: AtomicU64,
        changed: watch::Sender<u64>,
    }

    #[async_trait]
    impl Lender for Renewed {
        async fn lend(&self, _kind: &SlotKind, _pool: u64, _most: usize) -> Loan {
            let term = self.term.fetch_add(1, Ordering::SeqCst) + 1;
            Loan { number: 7, term }
        }

        fn lend_now(&self, _kind: &SlotKind, _pool: u64, _most: usize) -> Option<Loan> {
            None
        }

        fn take_back(&self, _kind: &SlotKind, number: u64) {
            self.back.store(number, Ordering::SeqCst);
            self.changed.send_modify(|count| *count += 1);
        }

        fn is_wanted(&self, _kind: &SlotKind, _pool: u64) -> bool {
            false
        }

        fn term(&self) -> u64 {
            self.term.load(Ordering::SeqCst)
        }

        fn changes(&self) -> watch::Receiver<u64> {
            self.changed.subscribe()
        }
    }

    #[tokio::test]
    async fn what_is_lent_after_a_term_has_ended_is_of_the_next_one() {
        let renewed = Arc::new(Renewed {
            term: AtomicU64::new(0),
            back: AtomicU64::new(0),
            changed: watch::Sender::new(0),
        });
        let lender: Arc<dyn Lender> = Arc::clone(&renewed) as Arc<dyn Lender>;
        let slots = Slots::new("crm", &lender, Shares::new([(Purpose::Read, 1)]));
        let found = slots.kept_or_slot(Purpose::Read, |_| None::<Slot>).await;
        let Either::Right(slot) = found else {
            unreachable!("nothing is kept");
        };
        assert!(!slot.is_over());
        let mut changes = renewed.changes();
        drop(slot);
        changes.changed().await.unwrap();
        assert_eq!(renewed.back.load(Ordering::SeqCst), 7);
    }
}

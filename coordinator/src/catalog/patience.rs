//! How long a listing waits for a depot.
//!
//! In: whether the depot was named. Out: what is left of its time, for each of the questions that one listing asks.

use std::time::{Duration, Instant};

/// Who waits for a depot, and how long: all the questions of one listing together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    end: End,
    begun: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The depot was named: an old answer or the failure is told.
    Named,
    /// It is one of several: it is given up after a while.
    OneOfMany,
    /// Only what it says now is told, or the failure.
    Fresh,
}

impl Patience {
    /// Of who listed this depot, or one thing of it, by its name.
    pub(crate) fn named() -> Self {
        Self::until(End::Named)
    }

    /// Of who lists several depots.
    pub(crate) fn one_of_many() -> Self {
        Self::until(End::OneOfMany)
    }

    /// Of who wants it to be asked.
    pub(crate) fn fresh() -> Self {
        Self::until(End::Fresh)
    }

    fn until(end: End) -> Self {
        Self {
            end,
            begun: Instant::now(),
        }
    }

    /// How long an answer may still be waited for that may take so long; `None` is as long as it takes. `has_old` says whether there is another to tell.
    pub(super) fn left(self, limit: Duration, has_old: bool) -> Option<Duration> {
        match self.end {
            End::Fresh => None,
            End::Named if !has_old => None,
            End::Named | End::OneOfMany => Some(limit.saturating_sub(self.begun.elapsed())),
        }
    }

    /// Whether an answer of before is better than none.
    pub(super) fn takes_old(self) -> bool {
        self.end != End::Fresh
    }
}

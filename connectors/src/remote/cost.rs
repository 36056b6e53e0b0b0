//! What it is worth to have something done by a source: microseconds, roughly.
//!
//! What sending costs is from reads of `lineitem` with 3 and with 16 columns (`benches/postgres.py`); what reading, joining and grouping rows costs there, from statements
//! of PostgreSQL over TPC-H at scale 1 on two busy cores. What keeping rows behind a fence costs is from
//! statements with and without one. The rest are guesses in proportion to these. They decide between sending rows and having them joined or computed where they are.

use super::dialect::Value;
use crate::narrow::most_listed;

/// Sending a row, without its values.
const ROW_SENT: f64 = 0.25;
/// Sending a value.
const VALUE_SENT: f64 = 0.04;
/// What is left of the time to send rows when several connections do it.
const SENT_IN_PIECES: f64 = 0.6;
/// Reading a row inside the source.
const ROW_READ: f64 = 0.05;
/// Finding a row by an index inside the source.
const ROW_FOUND: f64 = 4.0;
/// Joining a row inside the source.
const ROW_JOINED_THERE: f64 = 0.1;
/// How much more that is where the source knows nothing of the rows, as behind a fence: it may sort them all.
const JOINED_UNKNOWN: f64 = 2.0;
/// Looking in the source whether a row meets any, and whether it meets any of a few.
const ROW_MET_THERE: f64 = 0.2;
const ROW_MET_BY_FEW: f64 = 0.05;
/// So few that they are at hand: their hash table is in the processor's cache.
const FEW_ROWS: f64 = 10_000.0;
/// Grouping a row inside the source, and making a group.
const ROW_GROUPED_THERE: f64 = 0.14;
const GROUP_MADE_THERE: f64 = 2.5;
/// Keeping a row inside the source to read it again, without its values, and keeping a value.
const ROW_KEPT: f64 = 0.1;
const VALUE_KEPT: f64 = 0.02;
/// Counting or adding up a row inside the source where all rows are one group.
const ROW_COUNTED_THERE: f64 = 0.05;
/// What share of its rows the groups of a table are of which nothing may be known.
const GROUPS_GUESSED: f64 = 0.01;
/// Sorting a row for a window and computing over it, inside the source and here.
const ROW_WINDOWED_THERE: f64 = 0.55;
const ROW_WINDOWED_HERE: f64 = 0.3;
/// Doing anything with a row here.
const ROW_HERE: f64 = 0.04;
/// Joining a row here, and making a group.
const ROW_JOINED_HERE: f64 = 0.08;
const GROUP_MADE_HERE: f64 = 0.15;
/// Taking in a key of a list inside the source, before it reads.
const KEY_TOLD: f64 = 1.0;
/// Looking for the key of a row in such a list.
const ROW_TOLD: f64 = 0.03;
/// Asking at all.
const STATEMENT: f64 = 300.0;

/// A table of which nothing is known.
pub(super) const UNKNOWN_ROWS: f64 = 100_000.0;

/// An estimate of what a statement does and sends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    /// Rows that come out.
    pub(super) rows: f64,
    /// Rows that would come out without any filter.
    pub(super) unfiltered: f64,
    /// What the source does for them.
    pub(super) work: f64,
    /// Whether they are of a governed table: they are guessed, and nothing may be known that is better.
    pub(super) is_guessed: bool,
}

impl Estimate {
    pub(super) fn table(rows: f64) -> Estimate {
        let rows = rows.max(1.0);
        Estimate {
            rows,
            unfiltered: rows,
            work: rows * ROW_READ,
            is_guessed: false,
        }
    }

    pub(super) fn filtered(self, share: f64) -> Estimate {
        Estimate {
            rows: (self.rows * share).max(1.0),
            ..self
        }
    }

    /// The source finds such a share of all rows by an index, and reads no others.
    pub(super) fn found(self, share: f64) -> Estimate {
        Estimate {
            work: self.work.min(self.unfiltered * share * ROW_FOUND),
            ..self
        }
    }

    pub(super) fn limited(self, rows: usize) -> Estimate {
        Estimate {
            rows: self.rows.min(rows as f64),
            ..self
        }
    }

    /// The source keeps all rows before it goes on with them.
    pub(super) fn fenced(self, columns: usize) -> Estimate {
        Estimate {
            work: self.work + self.rows * (ROW_KEPT + VALUE_KEPT * columns as f64),
            unfiltered: self.rows,
            is_guessed: true,
            ..self
        }
    }

    /// One row for each group.
    pub(super) fn grouped(self, keys: &[Value]) -> Estimate {
        let rows = self.groups(keys);
        let row = match keys.is_empty() {
            true => ROW_COUNTED_THERE,
            false => ROW_GROUPED_THERE,
        };
        Estimate {
            rows,
            unfiltered: rows,
            work: self.work + self.rows * row + rows * GROUP_MADE_THERE,
            ..self
        }
    }

    /// Each row with what is found beside it.
    pub(super) fn windowed(self) -> Estimate {
        Estimate {
            unfiltered: self.rows,
            work: self.work + self.rows * ROW_WINDOWED_THERE,
            ..self
        }
    }

    /// How many groups its rows are.
    pub(super) fn groups(self, keys: &[Value]) -> f64 {
        if self.is_guessed && keys.iter().any(|key| key.distinct().is_none()) {
            let known: f64 = keys.iter().filter_map(Value::distinct).product();
            return (known * self.unfiltered * GROUPS_GUESSED).min(self.rows).max(1.0);
        }
        let of = |key: &Value| {
            let guessed = (self.unfiltered * 0.1).max(self.unfiltered.min(100.0));
            key.distinct()
                .unwrap_or_else(|| guessed.min(key.most().unwrap_or(f64::INFINITY)))
        };
        let groups: f64 = keys.iter().map(of).product();
        groups.min(self.rows).max(1.0)
    }

    /// The rows of all of them.
    pub(super) fn together(all: &[Estimate]) -> Estimate {
        let sum = |part: fn(&Estimate) -> f64| all.iter().map(part).sum();
        Estimate {
            rows: sum(|one| one.rows),
            unfiltered: sum(|one| one.unfiltered),
            work: sum(|one| one.work),
            is_guessed: all.iter().any(|one| one.is_guessed),
        }
    }

    /// Rows of two sides that meet on keys.
    pub(super) fn joined(self, other: Estimate, keys: &[(Value, Value)]) -> Estimate {
        let rows = (self.rows * other.rows / self.most_keys(other, keys)).max(1.0);
        let row = match self.is_guessed || other.is_guessed {
            true => ROW_JOINED_THERE * JOINED_UNKNOWN,
            false => ROW_JOINED_THERE,
        };
        Estimate {
            rows,
            unfiltered: rows.max(self.unfiltered).max(other.unfiltered),
            work: self.meeting(other, keys, row) + rows * ROW_JOINED_THERE,
            is_guessed: self.is_guessed || other.is_guessed,
        }
    }

    /// Rows of this side that meet any of the other, or none.
    pub(super) fn met(self, other: Estimate, keys: &[(Value, Value)]) -> Estimate {
        let row = match other.rows <= FEW_ROWS {
            true => ROW_MET_BY_FEW,
            false => ROW_MET_THERE,
        };
        Estimate {
            rows: self.rows_met(other, keys),
            unfiltered: self.unfiltered,
            work: self.meeting(other, keys, row),
            is_guessed: self.is_guessed || other.is_guessed,
        }
    }

    /// How many rows of this side meet any of the other.
    pub(super) fn rows_met(self, other: Estimate, keys: &[(Value, Value)]) -> f64 {
        let there: f64 = keys
            .iter()
            .map(|(_, key)| key.distinct().unwrap_or(other.rows))
            .product();
        let share = there.min(other.rows) / self.most_keys(other, keys);
        (self.rows * share.min(1.0)).max(1.0)
    }

    /// How many keys the side with more of them has, without filters.
    fn most_keys(self, other: Estimate, keys: &[(Value, Value)]) -> f64 {
        let side = |of: fn(&(Value, Value)) -> Option<f64>, rows: f64| {
            let keys: Option<f64> = keys.iter().map(of).product();
            keys.map(|keys| keys.min(rows))
        };
        let left = side(|(left, _)| left.distinct(), self.unfiltered);
        let right = side(|(_, right)| right.distinct(), other.unfiltered);
        let known = left.into_iter().chain(right).reduce(f64::max);
        // One side has each key once, or each one that there can be more often.
        let most = |of: fn(&(Value, Value)) -> Option<f64>, rows: f64| {
            let most = keys.iter().map(|key| of(key).unwrap_or(f64::INFINITY));
            most.product::<f64>().min(rows)
        };
        let least = || {
            let left = most(|(left, _)| left.most(), self.unfiltered);
            left.min(most(|(_, right)| right.most(), other.unfiltered))
        };
        known.unwrap_or_else(least).max(1.0)
    }

    /// What the source does to have rows of both sides meet, by reading both or by an index of one.
    fn meeting(self, other: Estimate, keys: &[(Value, Value)], row: f64) -> f64 {
        let both = self.work + other.work + (self.rows + other.rows) * row;
        let mut least = both;
        if keys.iter().any(|(left, _)| left.found_by_index) {
            least = least.min(other.work + other.rows * ROW_FOUND);
        }
        if keys.iter().any(|(_, right)| right.found_by_index) {
            least = least.min(self.work + self.rows * ROW_FOUND);
        }
        least
    }

    /// What it costs to have the statement run and its rows sent, by several connections or by one.
    pub(super) fn cost(self, columns: usize, in_pieces: bool) -> f64 {
        let sent = self.rows * (ROW_SENT + VALUE_SENT * columns as f64);
        // The source reads with several processes in any case, if that is worth it.
        STATEMENT + self.work + if in_pieces { sent * SENT_IN_PIECES } else { sent }
    }

    /// The rows that have to be sent for a join here of this side with another one: all, or those with the other's keys.
    pub(super) fn narrowed(self, other: Estimate, keys: &[(Value, Value)]) -> Estimate {
        if other.rows > most_listed(Some(self.rows as usize)) as f64 || keys.is_empty() {
            return self;
        }
        let rows = self.rows_met(other, keys);
        let by_index = keys.iter().any(|(key, _)| key.found_by_index);
        let looked_up = self.work + self.rows * ROW_TOLD;
        let work = if by_index {
            looked_up.min(rows * ROW_FOUND)
        } else {
            looked_up
        };
        Estimate {
            rows,
            work: work + other.rows * KEY_TOLD,
            ..self
        }
    }
}

/// What an operator costs here, beyond what its inputs cost.
pub(super) fn here(rows: f64) -> f64 {
    rows * ROW_HERE
}

/// What a join costs here.
pub(super) fn joined_here(rows: f64) -> f64 {
    rows * ROW_JOINED_HERE
}

/// What functions over windows cost here.
pub(super) fn windowed_here(rows: f64) -> f64 {
    rows * ROW_WINDOWED_HERE
}

/// What it costs here to make groups of rows.
pub(super) fn grouped_here(rows: f64, groups: f64) -> f64 {
    rows * ROW_HERE + groups * GROUP_MADE_HERE
}

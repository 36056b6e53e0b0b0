//! What it is worth to have something done by a source: microseconds, roughly.
//!
//! What sending costs is from reads of `lineitem` with 3 and with 16 columns (`benches/postgres.py`); the rest are guesses in proportion to it. The numbers decide
//! between sending rows and having them joined or computed where they are, and are never shown.

/// Sending a row, without its values.
const ROW_SENT: f64 = 0.25;
/// Sending a value.
const VALUE_SENT: f64 = 0.04;
/// Reading a row inside the source.
const ROW_READ: f64 = 0.05;
/// Joining a row inside the source.
const ROW_JOINED_THERE: f64 = 0.25;
/// Grouping a row inside the source.
const ROW_GROUPED_THERE: f64 = 0.15;
/// Doing anything with a row here.
const ROW_HERE: f64 = 0.04;

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
}

impl Estimate {
    pub(super) fn table(rows: f64) -> Estimate {
        let rows = rows.max(1.0);
        Estimate {
            rows,
            unfiltered: rows,
            work: rows * ROW_READ,
        }
    }

    pub(super) fn filtered(self, share: f64) -> Estimate {
        Estimate {
            rows: (self.rows * share).max(1.0),
            ..self
        }
    }

    pub(super) fn limited(self, rows: usize) -> Estimate {
        Estimate {
            rows: self.rows.min(rows as f64),
            ..self
        }
    }

    /// One row for each group.
    pub(super) fn grouped(self, keys: usize) -> Estimate {
        let rows = match keys {
            0 => 1.0,
            _ => (self.rows * 0.1).max(self.rows.min(100.0)),
        };
        Estimate {
            rows,
            unfiltered: rows.max(if keys == 0 { 1.0 } else { self.unfiltered * 0.1 }),
            work: self.work + self.rows * ROW_GROUPED_THERE,
        }
    }

    /// The rows of all of them.
    pub(super) fn together(all: &[Estimate]) -> Estimate {
        let sum = |part: fn(&Estimate) -> f64| all.iter().map(part).sum();
        Estimate {
            rows: sum(|one| one.rows),
            unfiltered: sum(|one| one.unfiltered),
            work: sum(|one| one.work),
        }
    }

    /// Rows of two sides that meet on a key, of which one side has each value once.
    pub(super) fn joined(self, other: Estimate) -> Estimate {
        let keys = self.unfiltered.min(other.unfiltered).max(1.0);
        let rows = (self.rows * other.rows / keys).max(1.0);
        Estimate {
            rows,
            unfiltered: self.unfiltered.max(other.unfiltered),
            work: self.work + other.work + (self.rows + other.rows + rows) * ROW_JOINED_THERE,
        }
    }

    /// Rows of this side that meet any of the other, or none.
    pub(super) fn met(self, other: Estimate) -> Estimate {
        let joined = self.joined(other);
        Estimate {
            rows: joined.rows.min(self.rows),
            unfiltered: self.unfiltered,
            ..joined
        }
    }

    /// What it costs to have the statement run and its rows sent.
    pub(super) fn cost(self, columns: usize) -> f64 {
        self.work + self.rows * (ROW_SENT + VALUE_SENT * columns as f64)
    }
}

/// What an operator costs here, beyond what its inputs cost.
pub(super) fn here(rows: f64) -> f64 {
    rows * ROW_HERE
}

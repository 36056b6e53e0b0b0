//! What sources were asked of the values in their tables, kept for a while.
//!
//! In: the figures of a table, and how many rows it had then. Out: the same figures, as long as they are not old and the table has as many rows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::statistics::ColumnStatistics;

/// How long figures are used before they are asked for again, if the number of rows does not tell that there are new ones.
const KEPT: Duration = Duration::from_secs(300);
/// Of so many tables.
const MOST_TABLES: usize = 1024;

/// What is known of a table's columns, by their names.
pub(crate) type Figures = Arc<HashMap<String, Arc<ColumnStatistics>>>;

/// The figures of tables that were asked for, by schema and name.
#[derive(Default)]
pub(crate) struct Known(Mutex<HashMap<(String, String), Asked>>);

struct Asked {
    at: Instant,
    /// How many rows the table had.
    rows: usize,
    figures: Figures,
}

impl Known {
    pub(crate) fn get(&self, table: &(String, String), rows: usize) -> Option<Figures> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = known.get(table)?;
        (asked.at.elapsed() < KEPT && asked.rows == rows).then(|| Arc::clone(&asked.figures))
    }

    pub(crate) fn put(&self, table: (String, String), rows: usize, figures: &Figures) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_TABLES {
            known.clear();
        }
        let asked = Asked {
            at: Instant::now(),
            rows,
            figures: Arc::clone(figures),
        };
        known.insert(table, asked);
    }
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known").finish_non_exhaustive()
    }
}

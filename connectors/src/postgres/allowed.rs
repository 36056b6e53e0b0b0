//! How many connections to one server may be open, and for what.
//!
//! In: the depot's `maxConnections`. Out: semaphores. What may wait for another gets connections of its own, so that no statement waits for itself.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// How many connections one scan reads with at most.
const MOST_READERS: usize = 8;

/// With fewer connections none is kept for snapshots.
const FEWEST_FOR_SNAPSHOTS: usize = 7;

/// How many connections may be open for what. A connection is only made when none is idle, so that there are never more than all of these.
pub(super) struct Allowed {
    /// Readers of rows.
    pub(super) readers: Arc<Semaphore>,
    /// Transactions that write. What they write may come from readers that wait until it is taken from them.
    pub(super) writers: Arc<Semaphore>,
    /// Transactions that keep a snapshot for readers. They are a few and apart, so that they never wait for readers that wait for them.
    pub(super) snapshots: Arc<Semaphore>,
    /// Questions to the catalogue, which are answered while all readers read.
    pub(super) catalog: Arc<Semaphore>,
    /// How many connections one scan may read with: some are left for others, however long it takes.
    pub(super) readers_of_one_scan: usize,
}

impl Allowed {
    /// Deals connections out: an eighth for each but readers. With fewer than [`FEWEST_FOR_SNAPSHOTS`] each table has one reader at a time.
    pub(super) fn new(connections: usize) -> Allowed {
        let snapshots = if connections < FEWEST_FOR_SNAPSHOTS {
            0
        } else {
            (connections / 8).max(1)
        };
        let (catalog, writers) = ((connections / 8).max(1), (connections / 8).max(1));
        let readers = connections.saturating_sub(snapshots + catalog + writers).max(1);
        Allowed {
            readers: Arc::new(Semaphore::new(readers)),
            writers: Arc::new(Semaphore::new(writers)),
            snapshots: Arc::new(Semaphore::new(snapshots)),
            catalog: Arc::new(Semaphore::new(catalog)),
            readers_of_one_scan: (readers / 2).min(MOST_READERS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_together_are_no_more_than_allowed() {
        for connections in 3..200 {
            let allowed = Allowed::new(connections);
            let all = [&allowed.readers, &allowed.writers, &allowed.snapshots, &allowed.catalog];
            assert_eq!(
                all.iter().map(|some| some.available_permits()).sum::<usize>(),
                connections
            );
            assert!(allowed.readers.available_permits() > 0 && allowed.writers.available_permits() > 0);
            assert!(allowed.readers_of_one_scan * 2 <= allowed.readers.available_permits());
        }
    }
}

//! How the connections that a depot may have are shared out.
//!
//! In: the depot's `maxConnections`. Out: how many are for what. What may wait for another gets connections of its own, so that no statement waits for itself.

use crate::slots::{Purpose, Shares};

/// How many connections one scan reads with at most.
const MOST_READERS: usize = 8;

/// With fewer connections none is kept for snapshots.
const FEWEST_FOR_SNAPSHOTS: usize = 7;

/// Deals connections out: an eighth for each purpose but reading. With fewer than [`FEWEST_FOR_SNAPSHOTS`] each table has one reader at a time, with two
/// the catalogue is asked by who reads, and one is for all.
pub(super) fn shares(connections: usize) -> Shares {
    match connections {
        0 | 1 => Shares::new([(Purpose::Read, 1)]).with(&[Purpose::Ask, Purpose::Write], Purpose::Read),
        2 => Shares::new([(Purpose::Read, 1), (Purpose::Write, 1)]).with(&[Purpose::Ask], Purpose::Read),
        _ => {
            let some = (connections / 8).max(1);
            let snapshots = if connections < FEWEST_FOR_SNAPSHOTS { 0 } else { some };
            Shares::new([
                (Purpose::Read, connections.saturating_sub(2 * some + snapshots).max(1)),
                (Purpose::Ask, some),
                (Purpose::Write, some),
                (Purpose::Keep, snapshots),
            ])
        }
    }
}

/// How many connections one scan may read with: some are left for others, however long it takes.
pub(super) fn readers_of_one_scan(readers: usize) -> usize {
    (readers / 2).min(MOST_READERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_together_are_no_more_than_allowed() {
        for connections in 1..200 {
            let shares = shares(connections);
            assert_eq!(shares.all(), connections);
            for purpose in [Purpose::Read, Purpose::Ask, Purpose::Write] {
                assert!(shares.most(purpose) > 0, "{connections} {purpose:?}");
            }
            let readers = shares.most(Purpose::Read);
            assert!(readers_of_one_scan(readers) * 2 <= readers);
        }
    }
}

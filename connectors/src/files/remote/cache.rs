//! What was read of objects, kept in memory up to a number of bytes.
//!
//! In: ranges of locations. Out: their bytes, those that were used longest ago being forgotten first. A location names a version of
//! an object (see [`super::location`]), whose bytes never change; so nothing here is ever out of date.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use object_store::path::Path;

/// Bytes of objects.
#[derive(Debug)]
pub(super) struct Cache {
    limit: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    objects: HashMap<Path, HashMap<(u64, u64), Part>>,
    /// What was used when, the longest ago first.
    used: BTreeMap<u64, (Path, (u64, u64))>,
    /// Counts uses.
    now: u64,
    size: usize,
}

#[derive(Debug)]
struct Part {
    bytes: Bytes,
    used: u64,
}

impl Cache {
    /// An empty cache of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Cache {
        Cache {
            limit,
            kept: Mutex::default(),
        }
    }

    /// Whether nothing is ever kept.
    pub(super) fn is_off(&self) -> bool {
        self.limit == 0
    }

    /// The bytes of each range that is kept.
    pub(super) fn get(&self, location: &Path, ranges: &[Range<u64>]) -> Vec<Option<Bytes>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        ranges.iter().map(|range| kept.take(location, range)).collect()
    }

    /// Keeps the bytes of a range, which must have memory of their own: whatever they share it with would stay too.
    pub(super) fn put(&self, location: &Path, range: &Range<u64>, bytes: &Bytes) {
        // One that is larger than the eighth part would drive out too many others.
        if bytes.len() > self.limit / 8 {
            return;
        }
        let bytes = bytes.clone();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.put(location, range, bytes);
        while kept.size > self.limit && kept.forget_one() {}
    }
}

impl Kept {
    fn take(&mut self, location: &Path, range: &Range<u64>) -> Option<Bytes> {
        let key = (range.start, range.end);
        let part = self.objects.get_mut(location)?.get_mut(&key)?;
        self.now += 1;
        let place = self.used.remove(&part.used)?;
        part.used = self.now;
        self.used.insert(self.now, place);
        Some(part.bytes.clone())
    }

    fn put(&mut self, location: &Path, range: &Range<u64>, bytes: Bytes) {
        let key = (range.start, range.end);
        self.now += 1;
        self.size += bytes.len();
        let part = Part { bytes, used: self.now };
        let before = match self.objects.get_mut(location) {
            Some(parts) => parts.insert(key, part),
            None => {
                self.objects.insert(location.clone(), HashMap::from([(key, part)]));
                None
            }
        };
        if let Some(before) = before {
            self.size -= before.bytes.len();
            self.used.remove(&before.used);
        }
        self.used.insert(self.now, (location.clone(), key));
    }

    /// Forgets what was used longest ago; false when there is nothing.
    fn forget_one(&mut self) -> bool {
        let Some((_, (location, key))) = self.used.pop_first() else {
            return false;
        };
        if let Some(parts) = self.objects.get_mut(&location) {
            if let Some(part) = parts.remove(&key) {
                self.size -= part.bytes.len();
            }
            if parts.is_empty() {
                self.objects.remove(&location);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_used_longest_ago_is_forgotten_first() {
        let cache = Cache::new(80);
        let path = Path::from("c/t");
        let has = |at: u64| {
            cache.get(
                &path,
                &[Range {
                    start: at,
                    end: at + 10,
                }],
            )[0]
            .is_some()
        };
        for at in 0..8 {
            cache.put(&path, &(at..at + 10), &Bytes::from(vec![0; 10]));
        }
        assert!(has(0), "all fit");
        cache.put(&path, &(8..18), &Bytes::from(vec![0; 10]));
        assert!(has(0) && !has(1) && has(2), "the second was used longest ago");
        cache.put(&path, &(9..29), &Bytes::from(vec![0; 20]));
        assert!(
            cache.get(&path, &[Range { start: 9, end: 29 }])[0].is_none(),
            "too large"
        );
    }

    proptest! {
        #[test]
        fn it_gives_what_it_was_given_and_stays_small(steps in prop::collection::vec((0_u8..4, 0_u64..6, 1_u64..12, any::<bool>()), 0..200)) {
            let cache = Cache::new(96);
            for (object, start, length, put) in steps {
                let path = Path::from(format!("c/{object}"));
                let range = start..start + length;
                let bytes = Bytes::from(vec![object + start as u8; length as usize]);
                if put {
                    cache.put(&path, &range, &bytes);
                }
                if let Some(found) = &cache.get(&path, std::slice::from_ref(&range))[0] {
                    prop_assert_eq!(found, &bytes);
                }
                let kept = cache.kept.lock().unwrap();
                let parts = kept.objects.values().flat_map(HashMap::values);
                prop_assert_eq!(parts.map(|part| part.bytes.len()).sum::<usize>(), kept.size);
                prop_assert_eq!(kept.objects.values().map(HashMap::len).sum::<usize>(), kept.used.len());
                prop_assert!(kept.size <= 96);
            }
        }
    }
}

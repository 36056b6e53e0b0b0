//! A query's own share of the memory: `query.max-memory` and `query.max-memory-per-node`.
//!
//! In: the pool of the process and a limit. Out: a runtime whose pool refuses what goes beyond the limit, so that operators which can spill do,
//! and the query fails where they cannot. It holds in the coordinator's process; what a query's stages use on workers counts against the
//! worker's pool only.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use datafusion::{
    common::{Result, resources_datafusion_err},
    execution::{
        memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation},
        runtime_env::RuntimeEnv,
    },
};

/// The runtime of one query: the process's own, with a bounded pool.
pub(crate) fn bounded(runtime: &Arc<RuntimeEnv>, limit_bytes: u64) -> Arc<RuntimeEnv> {
    let limit = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
    let pool = Bounded {
        shared: Arc::clone(&runtime.memory_pool),
        used: AtomicUsize::new(0),
        limit,
    };
    Arc::new(RuntimeEnv {
        memory_pool: Arc::new(pool),
        ..runtime.as_ref().clone()
    })
}

#[derive(Debug)]
struct Bounded {
    shared: Arc<dyn MemoryPool>,
    used: AtomicUsize,
    limit: usize,
}

impl fmt::Display for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query(limit {} bytes) of {}", self.limit, self.shared)
    }
}

impl MemoryPool for Bounded {
    fn name(&self) -> &str {
        "query"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.shared.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.shared.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.used.fetch_add(additional, Ordering::Relaxed);
        self.shared.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.used.fetch_sub(shrink, Ordering::Relaxed);
        self.shared.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let fits = |used: usize| used.checked_add(additional).filter(|wanted| *wanted <= self.limit);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map_err(|used| {
                resources_datafusion_err!(
                    "the query needs {additional} bytes beyond the {used} it has; it may have {} bytes",
                    self.limit
                )
            })?;
        self.shared.try_grow(reservation, additional).inspect_err(|_| {
            self.used.fetch_sub(additional, Ordering::Relaxed);
        })
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_gets_its_share_and_gives_it_back() {
        let runtime = bounded(&Arc::new(RuntimeEnv::default()), 100);
        let reservation = MemoryConsumer::new("sort").register(&runtime.memory_pool);
        reservation.try_grow(80).unwrap();
        let refused = reservation.try_grow(30).unwrap_err().to_string();
        assert!(refused.contains("100 bytes"), "{refused}");
        reservation.shrink(50);
        reservation.try_grow(30).unwrap();
        drop(reservation);
        assert_eq!(runtime.memory_pool.reserved(), 0);
    }
}

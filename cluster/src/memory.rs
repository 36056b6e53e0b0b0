//! Memory: what a process gives to all its queries, and a query's own share of it (`query.max-memory`, `query.max-memory-per-node`).
//!
//! In: the pool of the process and a limit. Out: a runtime whose pool refuses what goes beyond the limit, so that operators which can spill do,
//! and the query fails where they cannot. All stages of a query in one process share one share; it ends with the last of them.

use std::{
    collections::HashMap,
    fmt, fs,
    num::NonZeroUsize,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use datafusion::{
    common::{Result, resources_datafusion_err},
    execution::{
        disk_manager::{DiskManager, DiskManagerMode},
        memory_pool::{
            GreedyMemoryPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, TrackConsumersPool,
        },
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
};
use minerva_connectors::Depots;

/// How many of the largest consumers an error about memory names.
const NAMED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);

/// The memory and the spill files that all queries of a process share, and the object stores of its depots; no memory means
/// [`default_memory_bytes`].
pub fn runtime(memory_bytes: Option<u64>, depots: &Depots) -> Result<Arc<RuntimeEnv>> {
    let bytes = memory_bytes.unwrap_or_else(default_memory_bytes);
    let pool = GreedyMemoryPool::new(usize::try_from(bytes).unwrap_or(usize::MAX));
    let disk = DiskManager::builder().with_mode(DiskManagerMode::Directories(vec![std::env::temp_dir()]));
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(TrackConsumersPool::new(pool, NAMED)))
        .with_disk_manager_builder(disk)
        .with_object_store_registry(Arc::clone(depots.stores()) as _)
        .build_arc()?;
    // Spill files are their owner's alone from their beginning; what the folder is called into being with depends on the umask.
    for folder in runtime.disk_manager.temp_dir_paths() {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(runtime)
}

/// The folder of spill files of a process. Dropping it at the process's end removes it: what runs on in the background may keep the runtime.
#[derive(Debug)]
pub struct SpillFolder(Arc<RuntimeEnv>);

impl SpillFolder {
    /// That of this runtime.
    pub fn of(runtime: &Arc<RuntimeEnv>) -> Self {
        Self(Arc::clone(runtime))
    }
}

impl Drop for SpillFolder {
    fn drop(&mut self) {
        for folder in self.0.disk_manager.temp_dir_paths() {
            if let Err(error) = fs::remove_dir_all(&folder)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, folder = %folder.display(), "temporary files were not removed");
            }
        }
    }
}

/// Three quarters of this machine's memory; of 8 GiB where it cannot be told.
pub fn default_memory_bytes() -> u64 {
    let kib = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    kib.map_or(8 << 30, |kib| kib * 1024) / 4 * 3
}

/// The shares of the queries that run in this process.
#[derive(Debug, Default)]
pub(crate) struct Shares(Mutex<HashMap<String, Weak<RuntimeEnv>>>);

impl Shares {
    /// The runtime of a query in this process: the same for all its stages.
    pub(crate) fn of(&self, query_id: &str, limit_bytes: u64, runtime: &Arc<RuntimeEnv>) -> Arc<RuntimeEnv> {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(query_id).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = bounded(runtime, limit_bytes);
        shares.insert(query_id.to_owned(), Arc::downgrade(&share));
        share
    }
}

/// The runtime of one query: the process's own, with a bounded pool.
fn bounded(runtime: &Arc<RuntimeEnv>, limit_bytes: u64) -> Arc<RuntimeEnv> {
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
    fn spilled_rows_are_their_owners_alone() {
        let runtime = runtime(Some(1), &Depots::new(Arc::default())).unwrap();
        let file = runtime.disk_manager.create_tmp_file("a test").unwrap();
        let path = file.path().unwrap();
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(path), mode(path.parent().unwrap())), (0o600, 0o700));
        let folder = path.parent().unwrap().to_owned();
        drop((file, runtime));
        assert!(!folder.exists());
    }

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

    #[test]
    fn the_stages_of_a_query_share_its_share() {
        let (shares, process) = (Shares::default(), Arc::new(RuntimeEnv::default()));
        let first = shares.of("one", 100, &process);
        let other = shares.of("two", 100, &process);
        let stage = MemoryConsumer::new("first").register(&first.memory_pool);
        stage.try_grow(80).unwrap();
        let second = shares.of("one", 100, &process);
        assert!(
            MemoryConsumer::new("second")
                .register(&second.memory_pool)
                .try_grow(30)
                .is_err()
        );
        MemoryConsumer::new("other")
            .register(&other.memory_pool)
            .try_grow(80)
            .unwrap();
        drop((first, second, other, stage));
        assert_eq!(shares.of("three", 100, &process).memory_pool.reserved(), 0);
        assert_eq!(shares.0.lock().unwrap().len(), 1, "what ended is forgotten");
    }
}

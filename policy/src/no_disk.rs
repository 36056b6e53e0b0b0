//! What runs below a barrier writes nothing to disk.
//!
//! In: the context that a plan runs in. Out: the same without a disk. Operators that are short of memory spill their rows to temporary files;
//! below a barrier those are raw rows, hidden ones among them, so that there they stay in memory. They are a few batches on their way from one
//! thread to another, and they get a little memory even when others of the query have taken all of it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use datafusion::{
    common::Result,
    execution::{
        TaskContext,
        disk_manager::{DiskManager, DiskManagerMode},
        memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation},
        runtime_env::RuntimeEnv,
    },
};

/// What operators below one barrier may have although the query has no memory left.
const SPARE_BYTES: usize = 32 << 20;

/// The same context, in which nothing can be spilled.
pub(crate) fn without_disk(context: &TaskContext) -> Result<Arc<TaskContext>> {
    let runtime = context.runtime_env();
    let disk = DiskManager::builder().with_mode(DiskManagerMode::Disabled).build()?;
    let pool = Spared {
        shared: Arc::clone(&runtime.memory_pool),
        used: AtomicUsize::new(0),
    };
    let runtime = RuntimeEnv {
        memory_pool: Arc::new(pool),
        disk_manager: Arc::new(disk),
        ..runtime.as_ref().clone()
    };
    Ok(Arc::new(TaskContext::new(
        context.task_id(),
        context.session_id(),
        context.session_config().clone(),
        context.scalar_functions().clone(),
        context.higher_order_functions().clone(),
        context.aggregate_functions().clone(),
        context.window_functions().clone(),
        Arc::new(runtime),
    )))
}

/// The query's pool, which does not refuse the first few bytes.
#[derive(Debug)]
struct Spared {
    shared: Arc<dyn MemoryPool>,
    used: AtomicUsize,
}

impl fmt::Display for Spared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "below a barrier, of {}", self.shared)
    }
}

impl MemoryPool for Spared {
    fn name(&self) -> &str {
        "below a barrier"
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
        let used = self.used.fetch_add(additional, Ordering::Relaxed);
        match self.shared.try_grow(reservation, additional) {
            Ok(()) => Ok(()),
            Err(_) if used.saturating_add(additional) <= SPARE_BYTES => {
                self.shared.grow(reservation, additional);
                Ok(())
            }
            Err(error) => {
                self.used.fetch_sub(additional, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    fn reserved(&self) -> usize {
        self.shared.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.shared.memory_limit()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::{
        arrow::{
            array::{Int64Array, RecordBatch},
            datatypes::{DataType, Field, Schema},
        },
        datasource::memory::MemorySourceConfig,
        execution::{memory_pool::GreedyMemoryPool, runtime_env::RuntimeEnvBuilder},
        physical_plan::{ExecutionPlan, Partitioning, common::collect, repartition::RepartitionExec},
    };

    use super::*;

    /// Rows of one partition dealt to two, of which the second is read when the first is at its end: its rows have to wait somewhere.
    async fn dealt(context: &Arc<TaskContext>, batches: usize) -> Result<(usize, usize)> {
        let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, false)]));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from(vec![7; 8192]))])?;
        let source = MemorySourceConfig::try_new_exec(&[vec![batch; batches]], schema, None)?;
        let dealt = RepartitionExec::try_new(source, Partitioning::RoundRobinBatch(2))?;
        let mut rows = 0;
        for partition in 0..2 {
            let read = collect(dealt.execute(partition, Arc::clone(context))?).await?;
            rows += read.iter().map(RecordBatch::num_rows).sum::<usize>();
        }
        let spilled = dealt.metrics().and_then(|metrics| metrics.spill_count());
        Ok((rows, spilled.unwrap_or_default()))
    }

    fn without_memory() -> Arc<TaskContext> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(1)))
            .build_arc()
            .unwrap();
        Arc::new(TaskContext::default().with_runtime(runtime))
    }

    #[tokio::test]
    async fn rows_below_a_barrier_wait_in_memory_and_not_on_disk() {
        let context = without_memory();
        let (rows, spilled) = dealt(&context, 40).await.unwrap();
        assert_eq!(rows, 40 * 8192);
        assert!(spilled > 0, "else this test shows nothing");
        let inside = without_disk(&context).unwrap();
        assert_eq!(dealt(&inside, 40).await.unwrap(), (40 * 8192, 0));
        assert_eq!(context.memory_pool().reserved(), 0, "all is given back");
    }

    #[tokio::test]
    async fn what_is_too_much_for_the_spare_memory_fails() {
        let inside = without_disk(&without_memory()).unwrap();
        let refused = dealt(&inside, 2_000).await.unwrap_err().to_string();
        assert!(refused.contains("Memory Exhausted"), "{refused}");
    }
}

//! Limits in which it does not count how long somebody waits for a connection that others use.
//!
//! In: a limit and what is done within it. Out: what came of it; nothing, when it took longer than that without the waiting. Who waits for a slot says so here.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

/// A limit is looked at no more often, while somebody waits.
const LOOK_EVERY: Duration = Duration::from_millis(10);

tokio::task_local! {
    /// What is waited for within a limit.
    static WAITED: Arc<Waited>;
}

#[derive(Debug, Default)]
struct Waited(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    /// How many wait now, since when, and how long others did before.
    waiting: usize,
    since: Option<Instant>,
    before: Duration,
}

impl Waited {
    fn long(&self) -> Duration {
        let counted = self.lock();
        counted.before + counted.since.map(|since| since.elapsed()).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody waits until this is dropped.
pub(crate) struct Waiting(Option<Arc<Waited>>);

/// Somebody begins to wait.
pub(crate) fn begin() -> Waiting {
    let waited = WAITED.try_with(Arc::clone).ok();
    if let Some(waited) = &waited {
        let mut counted = waited.lock();
        counted.waiting += 1;
        counted.since.get_or_insert_with(Instant::now);
    }
    Waiting(waited)
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(waited) = &self.0 {
            let mut counted = waited.lock();
            counted.waiting = counted.waiting.saturating_sub(1);
            if counted.waiting == 0 {
                let last = counted.since.take();
                counted.before += last.map(|since| since.elapsed()).unwrap_or_default();
            }
        }
    }
}

/// What comes of something that may take so long, besides waiting.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let (begun, waited) = (Instant::now(), Arc::new(Waited::default()));
    let counting = Arc::clone(&waited);
    WAITED
        .scope(counting, async move {
            let mut work = pin!(work);
            loop {
                let left = limit.saturating_sub(begun.elapsed().saturating_sub(waited.long()));
                let pause = if waited.lock().waiting > 0 {
                    left.max(LOOK_EVERY)
                } else {
                    left
                };
                if let Ok(done) = timeout(pause, work.as_mut()).await {
                    return Some(done);
                }
                if begun.elapsed().saturating_sub(waited.long()) >= limit {
                    return None;
                }
            }
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(30);

    #[tokio::test]
    async fn only_what_is_not_waited_for_counts() {
        let waits = async {
            let waiting = begin();
            tokio::time::sleep(LIMIT * 4).await;
            drop(waiting);
        };
        assert_eq!(within(LIMIT, waits).await, Some(()));
        assert_eq!(within(LIMIT, std::future::pending::<()>()).await, None);
        // Who has waited has the whole limit left, and no more.
        let waits = async {
            drop(begin());
            std::future::pending::<()>().await;
        };
        assert_eq!(within(LIMIT, waits).await, None);
        // Outside of any limit nothing is counted.
        drop(begin());
    }
}

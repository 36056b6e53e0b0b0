//! Answers of a store that are kept for a while.
//!
//! In: what is asked for, and a way to ask. Out: the answer of last time while it is young enough. Those who ask for the same at
//! the same time wait for one request. Failures are not kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Answers by what was asked for.
#[derive(Debug)]
pub(super) struct Kept<T> {
    lifetime: Duration,
    slots: Mutex<HashMap<String, Arc<Slot<T>>>>,
}

type Slot<T> = tokio::sync::Mutex<Option<Answer<T>>>;

#[derive(Debug)]
struct Answer<T> {
    since: Instant,
    /// How often the store was found to have changed when it was asked for.
    changes: u64,
    value: Arc<T>,
}

impl<T> Kept<T> {
    pub(super) fn new(lifetime: Duration) -> Kept<T> {
        Kept {
            lifetime,
            slots: Mutex::default(),
        }
    }

    /// The answer, asked for unless it is kept. `changes` counts how often the store was found to have changed: answers from
    /// before are not kept.
    pub(super) async fn get<E>(
        &self,
        key: &str,
        changes: u64,
        ask: impl Future<Output = Result<T, E>>,
    ) -> Result<Arc<T>, E> {
        if self.lifetime.is_zero() {
            return ask.await.map(Arc::new);
        }
        let slot = self.slot(key);
        let mut kept = slot.lock().await;
        if let Some(answer) = kept.as_ref()
            && answer.since.elapsed() < self.lifetime
            && answer.changes >= changes
        {
            return Ok(Arc::clone(&answer.value));
        }
        // An answer is as old as the moment in which it was asked for.
        let since = Instant::now();
        let value = Arc::new(ask.await?);
        *kept = Some(Answer {
            since,
            changes,
            value: Arc::clone(&value),
        });
        Ok(value)
    }

    fn slot(&self, key: &str) -> Arc<Slot<T>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(key) {
            return Arc::clone(slot);
        }
        // What is too old and not in use goes when something new comes.
        slots.retain(|_, slot| match slot.try_lock() {
            Ok(kept) => kept
                .as_ref()
                .is_some_and(|answer| answer.since.elapsed() < self.lifetime),
            Err(_) => true,
        });
        Arc::clone(slots.entry(key.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn an_answer_is_asked_for_once_and_a_failure_again() {
        let kept: Kept<u32> = Kept::new(Duration::from_secs(3600));
        let asked = Cell::new(0);
        let ask = |answer: Result<u32, &'static str>| {
            let asked = &asked;
            async move {
                asked.set(asked.get() + 1);
                answer
            }
        };
        assert_eq!(kept.get("a", 0, ask(Err("no"))).await, Err("no"));
        let (one, two) = futures::join!(kept.get("a", 0, ask(Ok(1))), kept.get("a", 0, ask(Ok(2))));
        assert_eq!((one, two), (Ok(Arc::new(1)), Ok(Arc::new(1))));
        assert_eq!(kept.get("b", 0, ask(Ok(3))).await, Ok(Arc::new(3)));
        assert_eq!(asked.get(), 3);
        // The store was found to have changed.
        assert_eq!(kept.get("a", 1, ask(Ok(4))).await, Ok(Arc::new(4)));
        assert_eq!(kept.get("a", 1, ask(Ok(5))).await, Ok(Arc::new(4)));
    }

    #[tokio::test]
    async fn nothing_is_kept_without_a_lifetime() {
        let kept: Kept<u32> = Kept::new(Duration::ZERO);
        assert_eq!(kept.get("a", 0, async { Ok::<_, ()>(1) }).await, Ok(Arc::new(1)));
        assert_eq!(kept.get("a", 0, async { Ok::<_, ()>(2) }).await, Ok(Arc::new(2)));
    }
}

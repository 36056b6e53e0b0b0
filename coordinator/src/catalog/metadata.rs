//! What depots said of their collections, datasets and columns, kept for a while for listings.
//!
//! In: a depot, and what of it is to be listed. Out: names and columns as the depot has them, not governed: who may see what is decided after, for each
//! statement. Those who ask at the same time wait for one answer. Deliberately absent: planning a query, which looks at the table itself each time, so
//! that it never sees columns of yesterday.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use datafusion::{
    arrow::datatypes::{Field, Schema, SchemaRef},
    execution::SessionState,
};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use minerva_connectors::{Depots, Error, ErrorKind, Result};
use minerva_resources::{Address, Depot, ResourceSet};

use super::patience::Patience;

/// How long depots are believed whose manifest says nothing of it; what lies on this machine is asked each time.
const TTL: Duration = Duration::from_secs(60);
/// How many columns of a process are kept at most. Those of one name and type are kept once.
const MOST_COLUMNS: usize = 1_000_000;

/// The columns of one dataset; `None` when it is not there.
pub(crate) type Columns = Result<Option<SchemaRef>>;

/// What is kept of all depots.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    depots: Mutex<HashMap<String, Arc<Kept>>>,
    fields: Arc<Fields>,
}

/// What is kept of one depot under one manifest.
#[derive(Debug)]
struct Kept {
    depot: Arc<Depot>,
    ttl: Duration,
    fields: Arc<Fields>,
    names: Arc<Memo<Names>>,
    /// Of depots that cannot tell everything at once.
    datasets: Mutex<HashMap<String, Arc<Memo<Vec<String>>>>>,
    columns: Mutex<HashMap<String, Arc<Collection>>>,
}

/// The collections of a depot, with their datasets if the depot told both at once.
#[derive(Debug)]
struct Names {
    collections: Vec<String>,
    datasets: Option<BTreeMap<String, Arc<Vec<String>>>>,
}

/// The columns of the datasets of one collection.
#[derive(Debug, Default)]
struct Collection {
    known: Mutex<HashMap<String, (SchemaRef, Instant)>>,
    /// Held by who asks the depot.
    asking: Arc<tokio::sync::Mutex<()>>,
    /// Counted up when what is known is out of date, so that an answer from before is not kept.
    changes: AtomicUsize,
}

impl Metadata {
    /// Forgets depots that are gone, or whose manifest changed.
    pub(crate) fn keep_only(&self, set: &ResourceSet) {
        self.depots().retain(|name, kept| {
            let depot = set.depot(name);
            depot.is_some_and(|depot| depot.fingerprint == kept.depot.fingerprint)
        });
    }

    fn of(&self, depot: &Arc<Depot>) -> Arc<Kept> {
        let mut depots = self.depots();
        if let Some(kept) = depots.get(depot.name())
            && kept.depot.fingerprint == depot.fingerprint
        {
            return Arc::clone(kept);
        }
        let kept = Arc::new(Kept {
            ttl: ttl(depot),
            depot: Arc::clone(depot),
            fields: Arc::clone(&self.fields),
            names: Arc::default(),
            datasets: Mutex::default(),
            columns: Mutex::default(),
        });
        depots.insert(depot.name().to_owned(), Arc::clone(&kept));
        kept
    }

    /// The collections of a depot.
    pub(crate) async fn collections(
        &self,
        depots: &Arc<Depots>,
        depot: &Arc<Depot>,
        patience: Patience,
    ) -> Result<Vec<String>> {
        let kept = self.of(depot);
        Ok(kept.names(depots, patience).await?.collections.clone())
    }

    /// The datasets of a collection of a depot.
    pub(crate) async fn datasets(
        &self,
        depots: &Arc<Depots>,
        depot: &Arc<Depot>,
        collection: &str,
        patience: Patience,
    ) -> Result<Arc<Vec<String>>> {
        let kept = self.of(depot);
        if let Some(datasets) = &kept.names(depots, patience).await?.datasets {
            return Ok(datasets.get(collection).cloned().unwrap_or_default());
        }
        let memo = Arc::clone(lock(&kept.datasets).entry(collection.to_owned()).or_default());
        let (depots, name, asked) = (Arc::clone(depots), depot.name().to_owned(), collection.to_owned());
        let ask = move || async move { depots.open(&name).await?.datasets(&asked).await };
        memo.get(&kept, patience, ask).await
    }

    /// The columns of some datasets, in the order of their names. The depot is asked only for those that are not known.
    pub(crate) async fn columns(
        &self,
        depots: &Arc<Depots>,
        address: (&Arc<Depot>, &str),
        names: &[String],
        state: SessionState,
        patience: Patience,
    ) -> Vec<Columns> {
        let (depot, collection) = address;
        let kept = self.of(depot);
        let of_collection = Arc::clone(lock(&kept.columns).entry(collection.to_owned()).or_default());
        let mut found = of_collection.known(names, Some(kept.ttl));
        if found.len() < names.len() {
            let missing: Vec<String> = names
                .iter()
                .filter(|name| !found.contains_key(*name))
                .cloned()
                .collect();
            let asking = Asking {
                kept: Arc::clone(&kept),
                of_collection: Arc::clone(&of_collection),
                depots: Arc::clone(depots),
                collection: collection.to_owned(),
                names: missing.clone(),
                state,
            };
            // In a task of its own: who waits may leave, and the answer is kept for the next.
            let task = tokio::spawn(asking.ask());
            let old = of_collection.known(&missing, None);
            match kept.wait(task, patience, !old.is_empty()).await {
                Ok(Ok(Ok(asked))) => found.extend(asked),
                failed => {
                    let error = match failed {
                        Ok(Ok(Err(error))) | Err(error) => error,
                        Ok(Err(failure)) => kept.broken(&failure.to_string()),
                        Ok(Ok(Ok(_))) => kept.broken("an answer got lost"),
                    };
                    kept.warn_of(&error);
                    for name in missing {
                        let known = old.get(&name).cloned().unwrap_or_else(|| Err(error.clone()));
                        found.insert(name, known);
                    }
                }
            }
        }
        names
            .iter()
            .map(|name| found.remove(name).unwrap_or(Ok(None)))
            .collect()
    }

    /// Asks again when a listing needs something of a depot next, or of one of its collections. What was known is kept until there is an answer.
    pub(crate) fn expire(&self, depot: &str, collection: Option<&str>) {
        let Some(kept) = self.depots().get(depot).cloned() else {
            return;
        };
        kept.names.expire();
        for (name, memo) in lock(&kept.datasets).iter() {
            if collection.is_none_or(|wanted| wanted == name) {
                memo.expire();
            }
        }
        let columns = lock(&kept.columns);
        for (_, of_collection) in columns
            .iter()
            .filter(|(name, _)| collection.is_none_or(|wanted| wanted == *name))
        {
            of_collection.expire();
        }
    }

    /// Asks again for the collections when a listing needs them next.
    pub(crate) fn expire_names(&self, depot: &str) {
        let kept = self.depots().get(depot).cloned();
        if let Some(kept) = kept {
            kept.names.expire();
        }
    }

    /// To be held while a dataset is made or removed: after that, whatever came of it, listings ask again.
    pub(crate) fn changing(self: &Arc<Self>, address: &Address) -> Changing {
        Changing {
            metadata: Arc::clone(self),
            address: address.clone(),
        }
    }

    /// When the names of a depot were last told, and how many datasets it has, as far as it is known.
    pub(crate) fn listed(&self, depot: &str) -> Option<(SystemTime, u64)> {
        let kept = self.depots().get(depot).cloned()?;
        let (names, at) = kept.names.peek()?;
        let count: usize = match &names.datasets {
            Some(datasets) => datasets.values().map(|datasets| datasets.len()).sum(),
            None => lock(&kept.datasets)
                .values()
                .filter_map(|memo| Some(memo.peek()?.0.len()))
                .sum(),
        };
        Some((
            SystemTime::now() - at.elapsed(),
            u64::try_from(count).unwrap_or(u64::MAX),
        ))
    }

    fn depots(&self) -> MutexGuard<'_, HashMap<String, Arc<Kept>>> {
        lock(&self.depots)
    }
}

/// See [`Metadata::changing`].
#[must_use]
pub(crate) struct Changing {
    metadata: Arc<Metadata>,
    address: Address,
}

impl Drop for Changing {
    fn drop(&mut self) {
        let Address {
            depot,
            collection,
            dataset,
        } = &self.address;
        let Some(kept) = self.metadata.depots().get(depot).cloned() else {
            return;
        };
        kept.names.expire();
        if let Some(memo) = lock(&kept.datasets).get(collection) {
            memo.expire();
        }
        if let Some(of_collection) = lock(&kept.columns).get(collection) {
            of_collection.forget(dataset, &kept.fields);
        }
    }
}

fn ttl(depot: &Depot) -> Duration {
    let is_remote = minerva_connectors::connector(&depot.depot_type).is_some_and(|connector| connector.is_remote());
    depot
        .metadata_ttl
        .unwrap_or(if is_remote { TTL } else { Duration::ZERO })
}

impl Kept {
    async fn names(self: &Arc<Self>, depots: &Arc<Depots>, patience: Patience) -> Result<Arc<Names>> {
        let (depots, kept) = (Arc::clone(depots), Arc::clone(self));
        let ask = move || async move {
            let source = depots.open(kept.depot.name()).await?;
            let names = match source.listing().await? {
                Some(listing) => Names {
                    collections: listing.iter().map(|(collection, _)| collection.clone()).collect(),
                    datasets: Some(
                        listing
                            .into_iter()
                            .map(|(collection, datasets)| (collection, Arc::new(datasets)))
                            .collect(),
                    ),
                },
                None => Names {
                    collections: source.collections().await?,
                    datasets: None,
                },
            };
            // What is kept of a collection that is gone is of no use.
            lock(&kept.datasets).retain(|name, _| names.collections.contains(name));
            lock(&kept.columns).retain(|name, gone| {
                let stays = names.collections.contains(name);
                if !stays {
                    gone.forget_all(&kept.fields);
                }
                stays
            });
            Ok(names)
        };
        self.names.get(self, patience, ask).await
    }

    /// Waits for an answer, but not long for one that others wait for too, or where an old one will do.
    async fn wait<T>(&self, answer: impl Future<Output = T>, patience: Patience, has_old: bool) -> Result<T> {
        let limit = self.depot.timeouts.listing;
        let Some(left) = patience.left(limit, has_old) else {
            return Ok(answer.await);
        };
        tokio::time::timeout(left, answer).await.map_err(|_| {
            let message = format!(
                "it did not answer a listing within {} seconds (`timeouts.listing`)",
                limit.as_secs_f64()
            );
            Error::new(self.depot.name(), ErrorKind::Busy, message)
        })
    }

    fn warn_of(&self, error: &Error) {
        tracing::warn!(depot = self.depot.name(), %error, "a listing has what was known before, or nothing, of it");
    }

    fn broken(&self, why: &str) -> Error {
        Error::new(
            self.depot.name(),
            ErrorKind::Internal,
            format!("asking it failed: {why}"),
        )
    }
}

type Loading<T> = Shared<BoxFuture<'static, Result<Arc<T>>>>;

/// One answer, and who fetches the next.
struct Memo<T>(Mutex<State<T>>);

struct State<T> {
    known: Option<(Arc<T>, Instant)>,
    /// Counted up when what is known is out of date.
    changes: usize,
    expired: bool,
    /// The question that is on its way, and how many changes there had been.
    loading: Option<(usize, Loading<T>)>,
}

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self(Mutex::new(State {
            known: None,
            changes: 0,
            expired: false,
            loading: None,
        }))
    }
}

impl<T> fmt::Debug for Memo<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memo").finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> Memo<T> {
    fn expire(&self) {
        let mut state = lock(&self.0);
        state.expired = true;
        state.changes += 1;
        state.loading = None;
    }

    fn peek(&self) -> Option<(Arc<T>, Instant)> {
        lock(&self.0).known.clone()
    }

    /// The answer that is known, or a new one; an old one if there is no new one in time.
    async fn get<F>(
        self: &Arc<Self>,
        kept: &Kept,
        patience: Patience,
        ask: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Arc<T>>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (loading, old) = {
            let mut state = lock(&self.0);
            let old = state.known.clone();
            if let Some((known, at)) = &old
                && !state.expired
                && at.elapsed() < kept.ttl
            {
                return Ok(Arc::clone(known));
            }
            let changes = state.changes;
            let loading = match &state.loading {
                // Who wants to know what is there now takes no answer to a question of before.
                Some((asked, loading)) if *asked == changes && !kept.ttl.is_zero() => loading.clone(),
                _ => {
                    let loading = self.load(changes, kept.broken("its task ended"), ask);
                    state.loading = Some((changes, loading.clone()));
                    loading
                }
            };
            (loading, old.filter(|_| !kept.ttl.is_zero()))
        };
        let error = match kept.wait(loading, patience, old.is_some()).await {
            Ok(Ok(known)) => return Ok(known),
            Ok(Err(error)) | Err(error) => error,
        };
        match old {
            Some((known, _)) if patience.takes_old() => {
                kept.warn_of(&error);
                Ok(known)
            }
            _ => Err(error),
        }
    }

    /// Asks in a task of its own, which keeps the answer whoever waits for it, and if nobody does any more.
    fn load<F>(self: &Arc<Self>, changes: usize, broken: Error, ask: impl FnOnce() -> F + Send + 'static) -> Loading<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (memo, begun) = (Arc::clone(self), Instant::now());
        let asking = ask();
        let task = tokio::spawn(async move {
            let answer = asking.await.map(Arc::new);
            let mut state = lock(&memo.0);
            let is_last = state.changes == changes;
            if is_last {
                state.loading = None;
            }
            // What was asked before a change is out of date, and still newer than what is known: else nothing new would ever be known where changes come
            // faster than answers.
            if let Ok(known) = &answer
                && state.known.as_ref().is_none_or(|(_, at)| *at < begun)
            {
                state.known = Some((Arc::clone(known), begun));
                state.expired = !is_last;
            }
            answer
        });
        let joined = async move { task.await.unwrap_or(Err(broken)) };
        joined.boxed().shared()
    }
}

/// A question about columns.
struct Asking {
    kept: Arc<Kept>,
    of_collection: Arc<Collection>,
    depots: Arc<Depots>,
    collection: String,
    names: Vec<String>,
    state: SessionState,
}

impl Asking {
    async fn ask(self) -> Result<HashMap<String, Columns>> {
        // Where nothing is kept nobody gains by waiting for another's answer.
        let _one = match self.kept.ttl.is_zero() {
            true => None,
            false => Some(Arc::clone(&self.of_collection.asking).lock_owned().await),
        };
        // Who had the turn before may have asked for the same.
        let mut found = self.of_collection.known(&self.names, Some(self.kept.ttl));
        let missing: Vec<String> = self
            .names
            .into_iter()
            .filter(|name| !found.contains_key(name))
            .collect();
        if missing.is_empty() {
            return Ok(found);
        }
        let changes = self.of_collection.changes.load(Ordering::Acquire);
        let begun = Instant::now();
        let source = self.depots.open(self.kept.depot.name()).await?;
        let columns = source.columns(&self.collection, &missing, &self.state).await?;
        let columns = missing.into_iter().zip(columns);
        for (name, columns) in columns {
            if let Ok(Some(schema)) = &columns
                && !self.kept.ttl.is_zero()
                && self.of_collection.changes.load(Ordering::Acquire) == changes
            {
                self.of_collection.keep(&name, schema, begun, &self.kept.fields);
            }
            found.insert(name, columns);
        }
        Ok(found)
    }
}

impl Collection {
    /// What is known of these datasets, of all ages or not older than this.
    fn known(&self, names: &[String], ttl: Option<Duration>) -> HashMap<String, Columns> {
        let known = lock(&self.known);
        let found = names.iter().filter_map(|name| {
            let (schema, at) = known.get(name)?;
            let is_young = ttl.is_none_or(|ttl| at.elapsed() < ttl);
            is_young.then(|| (name.clone(), Ok(Some(Arc::clone(schema)))))
        });
        found.collect()
    }

    fn keep(&self, name: &str, schema: &SchemaRef, at: Instant, fields: &Fields) {
        let mut known = lock(&self.known);
        let Some(schema) = fields.take(schema) else {
            // Too many: begin anew with those that are asked for now.
            let forgotten: usize = known.drain().map(|(_, (schema, _))| schema.fields().len()).sum();
            fields.give_back(forgotten);
            return;
        };
        if let Some((old, _)) = known.insert(name.to_owned(), (schema, at)) {
            fields.give_back(old.fields().len());
        }
    }

    fn expire(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        // So old that no time to live reaches there; it is still shown while the depot cannot be asked.
        let mut known = lock(&self.known);
        for (_, at) in known.values_mut() {
            *at = at.checked_sub(Duration::from_secs(2 * 24 * 3600)).unwrap_or(*at);
        }
    }

    fn forget(&self, dataset: &str, fields: &Fields) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        if let Some((schema, _)) = lock(&self.known).remove(dataset) {
            fields.give_back(schema.fields().len());
        }
    }

    fn forget_all(&self, fields: &Fields) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        let forgotten: usize = lock(&self.known)
            .drain()
            .map(|(_, (schema, _))| schema.fields().len())
            .sum();
        fields.give_back(forgotten);
    }
}

/// The fields that tables share, and how many columns are kept.
#[derive(Debug, Default)]
struct Fields {
    shared: Mutex<HashSet<Arc<Field>>>,
    columns: AtomicUsize,
}

impl Fields {
    /// The same columns, whose fields are shared with other tables; `None` when too many are kept.
    fn take(&self, schema: &SchemaRef) -> Option<SchemaRef> {
        let count = schema.fields().len();
        let before = self.columns.fetch_add(count, Ordering::AcqRel);
        if before + count > MOST_COLUMNS {
            self.give_back(count);
            return None;
        }
        let mut shared = lock(&self.shared);
        if shared.len() > before + count {
            shared.retain(|field| Arc::strong_count(field) > 1);
        }
        let fields = schema.fields().iter().map(|field| match shared.get(field) {
            Some(known) => Arc::clone(known),
            None => {
                shared.insert(Arc::clone(field));
                Arc::clone(field)
            }
        });
        let fields: Vec<Arc<Field>> = fields.collect();
        Some(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())))
    }

    fn give_back(&self, count: usize) {
        self.columns.fetch_sub(count, Ordering::AcqRel);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        for of_collection in lock(&self.columns).values() {
            of_collection.forget_all(&self.fields);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds a lock can leave what it protects half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Notify;

    fn kept(listing: &str) -> Arc<Kept> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scratch.yaml");
        let manifest = format!(
            "name: scratch\nversion: v2alpha\ntype: depot\ndepot:\n  type: memory\n  memory: {{}}\n  metadataTtl: 1h\n  timeouts: {{listing: {listing}}}\n"
        );
        std::fs::write(&file, manifest).unwrap();
        let set = minerva_resources::load(&[file], &[minerva_connectors::check]).unwrap();
        Metadata::default().of(set.depot("scratch").unwrap())
    }

    async fn ask(memo: &Arc<Memo<i32>>, kept: &Kept, patience: Patience, answer: i32) -> Result<Arc<i32>> {
        memo.get(kept, patience, move || async move { Ok(answer) }).await
    }

    async fn never() -> Result<i32> {
        std::future::pending().await
    }

    /// Changes that come faster than answers do not keep a listing as it once was.
    #[tokio::test]
    async fn an_answer_from_before_a_change_is_better_than_an_older_one() {
        let (kept, memo) = (kept("100ms"), Arc::new(Memo::default()));
        assert_eq!(*ask(&memo, &kept, Patience::named(), 1).await.unwrap(), 1);
        memo.expire();
        let go_on = Arc::new(Notify::new());
        let waits = Arc::clone(&go_on);
        let slow = memo.get(&kept, Patience::named(), move || async move {
            waits.notified().await;
            Ok(2)
        });
        assert_eq!(*slow.await.unwrap(), 1, "it takes too long");
        memo.expire();
        go_on.notify_one();
        let begun = Instant::now();
        while memo.peek().is_none_or(|(known, _)| *known != 2) {
            assert!(begun.elapsed() < Duration::from_secs(10), "the answer was thrown away");
            tokio::task::yield_now().await;
        }
        assert_eq!(*memo.get(&kept, Patience::named(), never).await.unwrap(), 2);
        memo.expire();
        assert_eq!(
            *ask(&memo, &kept, Patience::named(), 3).await.unwrap(),
            3,
            "it is asked again"
        );
    }

    #[tokio::test]
    async fn who_wants_a_new_answer_gets_no_old_one() {
        let (kept, memo) = (kept("100ms"), Arc::new(Memo::default()));
        assert_eq!(*ask(&memo, &kept, Patience::fresh(), 1).await.unwrap(), 1);
        memo.expire();
        let fail = || async { Err(Error::new("scratch", ErrorKind::Unreachable, "it is gone")) };
        assert_eq!(*memo.get(&kept, Patience::named(), fail).await.unwrap(), 1);
        let error = memo.get(&kept, Patience::fresh(), fail).await.unwrap_err();
        assert!(error.to_string().contains("it is gone"), "{error}");
        let late = memo.get(&kept, Patience::fresh(), || async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Ok(4)
        });
        assert_eq!(*late.await.unwrap(), 4, "it is waited for");
    }

    /// However many questions a listing has, it waits no longer than once.
    #[tokio::test]
    async fn a_listing_is_patient_once() {
        let kept = kept("400ms");
        let patience = Patience::one_of_many();
        let begun = Instant::now();
        for _ in 0..10 {
            let memo: Arc<Memo<i32>> = Arc::default();
            let error = memo.get(&kept, patience, never).await.unwrap_err();
            assert!(error.to_string().contains("`timeouts.listing`"), "{error}");
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        // What is known at once is told all the same.
        let memo = Arc::new(Memo::default());
        assert_eq!(*ask(&memo, &kept, Patience::named(), 1).await.unwrap(), 1);
        assert_eq!(*memo.get(&kept, patience, never).await.unwrap(), 1);
    }
}

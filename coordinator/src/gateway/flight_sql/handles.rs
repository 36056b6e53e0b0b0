//! Results that wait to be fetched: planned by GetFlightInfo, taken by DoGet, each once.
//!
//! In: planned queries. Out: opaque random handles, and the queries again for whoever owns them.
//! A handle belongs to the principal that made it; for everybody else it does not exist. A result that nobody fetches is cancelled
//! after [`RESULT_TIME_OUT`]. Deliberately absent: results themselves; a query runs while its answer is read.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use minerva_policy::Principal;
use tonic::Status;

use super::status::{invalid, unknown};
use crate::query::Query;

/// How long a planned query waits for its client.
pub(super) const RESULT_TIME_OUT: Duration = Duration::from_secs(600);

/// 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Handle([u8; 16]);

impl Handle {
    pub(super) fn random() -> Self {
        Self(rand::random())
    }

    pub(super) fn bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    /// The handle in a client's message, if it has the right length.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The handle as a cookie's value.
    pub(super) fn hex(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }

    /// The handle in a cookie's value.
    pub(super) fn read_hex(text: &str) -> Option<Self> {
        if text.len() != 32 {
            return None;
        }
        u128::from_str_radix(text, 16)
            .ok()
            .map(|number| Self(number.to_be_bytes()))
    }
}

impl fmt::Debug for Handle {
    /// A handle opens a result, so logs see its beginning only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({}...)", self.hex().get(..6).unwrap_or_default())
    }
}

/// Locks; a panic elsewhere leaves our maps consistent, since each change is one call.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a waiting result holds: a planned query. A trait so that the registry can be tested by itself.
pub(super) trait Planned: Send {
    fn query_id(&self) -> &str;
}

impl Planned for Query {
    fn query_id(&self) -> &str {
        self.id()
    }
}

#[derive(Debug)]
struct Entry<Q> {
    owner: Arc<Principal>,
    session: Handle,
    query_id: String,
    since: Instant,
    /// `None` once a DoGet has taken it.
    query: Option<Q>,
}

/// A query that nobody will fetch and that has to be told so.
#[derive(Debug)]
pub(super) struct Abandoned {
    pub(super) owner: Arc<Principal>,
    pub(super) query_id: String,
}

/// The registry.
#[derive(Debug)]
pub(super) struct Results<Q = Query> {
    entries: Arc<Mutex<HashMap<Handle, Entry<Q>>>>,
}

impl<Q> Default for Results<Q> {
    fn default() -> Self {
        Self {
            entries: Arc::default(),
        }
    }
}

/// Keeps the handle of a running query known, for cancelling, until its stream is dropped.
#[derive(Debug)]
pub(super) struct Running<Q: Planned = Query> {
    handle: Handle,
    entries: Arc<Mutex<HashMap<Handle, Entry<Q>>>>,
}

impl<Q: Planned> Drop for Running<Q> {
    fn drop(&mut self) {
        locked(&self.entries).remove(&self.handle);
    }
}

impl<Q: Planned> Results<Q> {
    /// Keeps a planned query for its owner.
    pub(super) fn put(&self, owner: &Arc<Principal>, session: Handle, query: Q) -> Handle {
        let handle = Handle::random();
        let query_id = query.query_id().to_owned();
        let entry = Entry {
            owner: Arc::clone(owner),
            session,
            query_id,
            since: Instant::now(),
            query: Some(query),
        };
        locked(&self.entries).insert(handle, entry);
        handle
    }

    /// Hands the query to the one call that may read it.
    pub(super) fn take(&self, handle: Handle, caller: &Principal) -> Result<(Q, Running<Q>), Status> {
        let mut entries = locked(&self.entries);
        let entry = entries
            .get_mut(&handle)
            .filter(|entry| is_same(&entry.owner, caller))
            .ok_or_else(no_such_result)?;
        match entry.query.take() {
            Some(query) => Ok((
                query,
                Running {
                    handle,
                    entries: Arc::clone(&self.entries),
                },
            )),
            None => Err(invalid(format!(
                "the result of query `{}` is being read already; each result can be read once, run the statement again for another",
                entry.query_id
            ))),
        }
    }

    /// The id of the query behind a handle, running or waiting.
    pub(super) fn query_id(&self, handle: Handle, caller: &Principal) -> Option<String> {
        let entries = locked(&self.entries);
        entries
            .get(&handle)
            .filter(|entry| is_same(&entry.owner, caller))
            .map(|entry| entry.query_id.clone())
    }

    /// Gives a waiting result its full time again. False when it is not waiting.
    pub(super) fn renew(&self, handle: Handle, caller: &Principal) -> bool {
        let mut entries = locked(&self.entries);
        match entries
            .get_mut(&handle)
            .filter(|entry| is_same(&entry.owner, caller) && entry.query.is_some())
        {
            Some(entry) => {
                entry.since = Instant::now();
                true
            }
            None => false,
        }
    }

    /// Drops a waiting result. A running one keeps its entry until its stream ends.
    pub(super) fn discard(&self, handle: Handle) {
        let mut entries = locked(&self.entries);
        let waits = entries.get(&handle).is_some_and(|entry| entry.query.is_some());
        let dropped = if waits { entries.remove(&handle) } else { None };
        drop(entries);
        drop(dropped);
    }

    /// Takes out what has waited since before `deadline`, and everything that waits for one of the `closed` sessions.
    pub(super) fn sweep(&self, deadline: Instant, closed: &[Handle]) -> Vec<Abandoned> {
        let mut entries = locked(&self.entries);
        let gone = entries.extract_if(|_, entry| {
            entry.query.is_some() && (entry.since < deadline || closed.contains(&entry.session))
        });
        let gone: Vec<_> = gone.collect();
        drop(entries);
        gone.into_iter()
            .map(|(_, entry)| Abandoned {
                owner: entry.owner,
                query_id: entry.query_id,
            })
            .collect()
    }
}

/// The one answer for a handle that never was, is over, or belongs to somebody else.
pub(super) fn no_such_result() -> Status {
    unknown(
        "the statement handle is unknown: its result was read or cancelled, was not fetched in time, or was never made here; \
         run the statement again",
    )
}

/// Who acts as somebody does not get at what that user has made, nor the other way round.
fn is_same(owner: &Principal, caller: &Principal) -> bool {
    owner.full_name() == caller.full_name()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fake(&'static str);

    impl Planned for Fake {
        fn query_id(&self) -> &str {
            self.0
        }
    }

    fn principal(id: &str) -> Arc<Principal> {
        Arc::new(Principal::new(id, [], Default::default()))
    }

    #[test]
    fn a_result_is_taken_once_and_only_by_its_owner() {
        let (results, jane, joe) = (Results::default(), principal("jane"), principal("joe"));
        let handle = results.put(&jane, Handle::random(), Fake("q1"));

        let stolen = results.take(handle, &joe).unwrap_err();
        let never = results.take(Handle::random(), &joe).unwrap_err();
        assert_eq!((stolen.code(), stolen.message()), (never.code(), never.message()));
        assert_eq!(results.query_id(handle, &joe), None);
        assert!(!results.renew(handle, &joe));

        let (query, running) = results.take(handle, &jane).unwrap();
        assert_eq!(query.query_id(), "q1");
        assert!(
            results
                .take(handle, &jane)
                .unwrap_err()
                .message()
                .contains("being read already")
        );
        assert_eq!(results.query_id(handle, &jane).as_deref(), Some("q1"));

        drop(running);
        assert_eq!(results.take(handle, &jane).unwrap_err().message(), never.message());
    }

    #[test]
    fn what_nobody_fetches_is_swept_and_what_is_read_is_not() {
        let (results, jane, session) = (Results::default(), principal("jane"), Handle::random());
        let waiting = results.put(&jane, Handle::random(), Fake("waiting"));
        let read = results.put(&jane, session, Fake("read"));
        let closed = results.put(&jane, session, Fake("closed"));
        let (_query, _running) = results.take(read, &jane).unwrap();

        let past = Instant::now().checked_sub(RESULT_TIME_OUT).unwrap();
        let swept = results.sweep(past, &[session]);
        assert_eq!(
            swept.into_iter().map(|gone| gone.query_id).collect::<Vec<_>>(),
            ["closed"]
        );
        assert_eq!(results.query_id(closed, &jane), None);

        assert!(results.renew(waiting, &jane));
        let swept = results.sweep(Instant::now() + Duration::from_secs(1), &[]);
        assert_eq!(
            swept.into_iter().map(|gone| gone.query_id).collect::<Vec<_>>(),
            ["waiting"]
        );
        assert_eq!(results.query_id(read, &jane).as_deref(), Some("read"));
    }

    #[test]
    fn handles_survive_their_spellings() {
        let handle = Handle::random();
        assert_eq!(Handle::read(&handle.bytes()), Some(handle));
        assert_eq!(Handle::read_hex(&handle.hex()), Some(handle));
        assert_eq!(Handle::read(b"short"), None);
        assert_eq!(Handle::read_hex("zz"), None);
        assert!(!format!("{handle:?}").contains(&handle.hex()));
    }
}

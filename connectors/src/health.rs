//! Whether a depot can be reached, and who may try.
//!
//! In: how calls to a depot ended. Out: its state, for people, and a circuit: after some failures in a row to reach the depot calls fail at once,
//! and after a while one of them is let through to try. Nothing here reaches a depot.
//!
//! What a failure says may name what its reader must not know of, so that what everybody is told is a fixed sentence for each kind of failure.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};

use crate::{Error, ErrorKind, Result};

/// After so many failures in a row the depot is left alone for a while.
const MOST_FAILURES: u32 = 3;
/// Failures that lie further apart are not in a row.
const WINDOW: Duration = Duration::from_secs(300);
/// How long a depot that cannot be reached is left alone: doubled each time, up to the second.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After so long somebody else may try as well.
const LONGEST_TRIAL: Duration = Duration::from_secs(30);
/// The same for one that refuses the credentials, since databases lock accounts that are tried too often.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_REFUSED_PAUSE: Duration = Duration::from_secs(900);

/// What is known of a depot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DepotState {
    /// Nobody has asked it for anything yet.
    Unknown,
    /// It did what it was asked last.
    Ready,
    /// It is there, and could not do what it was asked last.
    Degraded,
    /// It could not be reached, opened or authenticated with.
    Unreachable,
}

impl DepotState {
    /// The word that people read.
    pub fn as_str(self) -> &'static str {
        match self {
            DepotState::Unknown => "Unknown",
            DepotState::Ready => "Ready",
            DepotState::Degraded => "Degraded",
            DepotState::Unreachable => "Unreachable",
        }
    }
}

/// What is known of a depot at one moment.
#[derive(Debug, Clone)]
pub struct DepotHealth {
    /// Its state.
    pub state: DepotState,
    /// Since when it is in that state.
    pub since: SystemTime,
    /// When it last answered, or failed to.
    pub last_checked: Option<SystemTime>,
    /// Why it is not `Ready`, in words that tell of nothing in the depot.
    pub reason: Option<&'static str>,
    /// The failure itself, which may name a dataset: for operators.
    pub failure: Option<Error>,
    /// How many failures to reach it in a row there were.
    pub failures: u32,
    /// When it is tried again, while calls to it fail at once.
    pub retry_at: Option<SystemTime>,
}

/// The health of one depot, as long as its manifest does not change.
pub(crate) struct Health {
    depot: String,
    /// Whether failing to reach it makes calls fail at once for a while. What lies on this machine fails at once anyway.
    breaks: bool,
    inner: Mutex<Inner>,
}

struct Inner {
    state: DepotState,
    since: SystemTime,
    last_checked: Option<SystemTime>,
    last_failure: Option<Instant>,
    failure: Option<Error>,
    failures: u32,
    circuit: Circuit,
    /// How often in a row the depot was left alone.
    pauses: u32,
    /// Whether a task looks after the depot until it is `Ready`.
    is_probed: bool,
}

#[derive(Clone, Copy)]
enum Circuit {
    /// Everybody may ask.
    Closed,
    /// Nobody may ask before.
    Open(Instant),
    /// One tries since then; the others may not ask, unless that takes long.
    Trying(Instant),
}

/// The right to ask a depot. Whoever tries a depot that was left alone must say how it ended; dropped without that, somebody else may try.
pub(crate) struct Admitted {
    health: Arc<Health>,
    tries: bool,
}

/// What somebody who looks after a depot should do next.
pub(crate) enum Probe {
    /// Nothing: it is `Ready`, or only a change of its manifest helps.
    Stop,
    /// Ask it after a while.
    After(Duration),
}

impl Health {
    pub(crate) fn new(depot: &str, breaks: bool) -> Arc<Health> {
        Arc::new(Health {
            depot: depot.to_owned(),
            breaks,
            inner: Mutex::new(Inner {
                state: DepotState::Unknown,
                since: SystemTime::now(),
                last_checked: None,
                last_failure: None,
                failure: None,
                failures: 0,
                circuit: Circuit::Closed,
                pauses: 0,
                is_probed: false,
            }),
        })
    }

    /// The depot's state now.
    pub(crate) fn report(&self) -> DepotHealth {
        let inner = self.inner();
        DepotHealth {
            state: inner.state,
            since: inner.since,
            last_checked: inner.last_checked,
            reason: inner.failure.as_ref().map(|failure| reason(failure.kind)),
            failure: inner.failure.clone(),
            failures: inner.failures,
            retry_at: match inner.circuit {
                Circuit::Open(until) => Some(moment(until)),
                Circuit::Closed | Circuit::Trying(_) => None,
            },
        }
    }

    /// Lets a call through, or fails at once.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Admitted> {
        let mut inner = self.inner();
        let tries = match inner.circuit {
            Circuit::Closed => false,
            Circuit::Open(until) if until <= Instant::now() => {
                inner.circuit = Circuit::Trying(Instant::now());
                true
            }
            Circuit::Open(until) => {
                let when = format!("is tried again at {}", text(moment(until)));
                return Err(self.left_alone(&inner, &when));
            }
            // Whoever tries may read for long what it has found.
            Circuit::Trying(since) if since.elapsed() > LONGEST_TRIAL => {
                inner.circuit = Circuit::Trying(Instant::now());
                true
            }
            Circuit::Trying(_) => return Err(self.left_alone(&inner, "is being tried again now")),
        };
        Ok(Admitted {
            health: Arc::clone(self),
            tries,
        })
    }

    fn left_alone(&self, inner: &Inner, when: &str) -> Error {
        let kind = inner
            .failure
            .as_ref()
            .map_or(ErrorKind::Unreachable, |failure| failure.kind);
        let message = format!("{} since {}; the depot {when}", reason(kind), text(inner.since));
        Error::new(&self.depot, ErrorKind::Unreachable, message)
    }

    /// Notes how a call ended. True when somebody must begin to look after the depot.
    pub(crate) fn note(&self, outcome: Outcome<'_>, admitted: Option<&mut Admitted>) -> bool {
        let tried = admitted.is_some_and(|admitted| std::mem::take(&mut admitted.tries));
        let mut inner = self.inner();
        let now = SystemTime::now();
        let (state, failure) = match outcome {
            Outcome::Answered => (DepotState::Ready, None),
            Outcome::Interrupted(error) => (DepotState::Degraded, Some(error)),
            Outcome::Failed(error) | Outcome::Again(error) => match error.kind {
                ErrorKind::Busy => (DepotState::Degraded, Some(error)),
                _ => (DepotState::Unreachable, Some(error)),
            },
        };
        inner.last_checked = Some(now);
        if inner.state != state {
            inner.state = state;
            inner.since = now;
        }
        let Some(error) = failure else {
            (inner.failures, inner.pauses) = (0, 0);
            (inner.failure, inner.last_failure) = (None, None);
            inner.circuit = Circuit::Closed;
            return false;
        };
        let in_a_row = inner.last_failure.is_some_and(|last| last.elapsed() < WINDOW);
        let counts = self.breaks && leaves_alone(error.kind) && matches!(outcome, Outcome::Failed(_));
        if counts || !self.breaks {
            inner.failures = if in_a_row || tried {
                inner.failures.saturating_add(1)
            } else {
                1
            };
            inner.last_failure = Some(Instant::now());
        }
        match inner.circuit {
            // It is there, which is what was to be found out.
            Circuit::Trying(_) if tried && !counts => inner.circuit = Circuit::Closed,
            Circuit::Trying(_) if tried => inner.leave_alone(error.kind),
            Circuit::Closed if counts && inner.failures >= MOST_FAILURES => inner.leave_alone(error.kind),
            // Calls that began before tell nothing new.
            Circuit::Closed | Circuit::Open(_) | Circuit::Trying(_) => {}
        }
        inner.failure = Some(error.clone());
        !std::mem::replace(&mut inner.is_probed, true)
    }

    /// What to do for somebody who looked after the depot so many times.
    pub(crate) fn next_probe(&self, times: u32) -> Probe {
        let mut inner = self.inner();
        let refused = inner.failure.as_ref().is_some_and(|failure| is_refusal(failure.kind));
        if matches!(inner.state, DepotState::Ready | DepotState::Unknown) || refused {
            inner.is_probed = false;
            return Probe::Stop;
        }
        Probe::After(match inner.circuit {
            Circuit::Open(until) => until.saturating_duration_since(Instant::now()),
            Circuit::Closed | Circuit::Trying(_) => pause(times, PAUSE, LONGEST_PAUSE),
        })
    }

    /// Nobody looks after the depot any more.
    pub(crate) fn unprobed(&self) {
        self.inner().is_probed = false;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // No code that holds the lock can leave the fields half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn leave_alone(&mut self, kind: ErrorKind) {
        let (first, longest) = match is_refusal(kind) {
            true => (REFUSED_PAUSE, LONGEST_REFUSED_PAUSE),
            false => (PAUSE, LONGEST_PAUSE),
        };
        self.circuit = Circuit::Open(Instant::now() + pause(self.pauses, first, longest));
        self.pauses = self.pauses.saturating_add(1);
    }
}

impl Admitted {
    /// Whether others wait for what comes of this call.
    pub(crate) fn tries(&self) -> bool {
        self.tries
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.tries {
            // Whoever tried went away before it was known.
            let mut inner = self.health.inner();
            if matches!(inner.circuit, Circuit::Trying(_)) {
                inner.circuit = Circuit::Open(Instant::now());
            }
        }
    }
}

/// How a call to a depot ended.
#[derive(Clone, Copy)]
pub(crate) enum Outcome<'a> {
    /// It answered, whatever it said.
    Answered,
    /// It failed to.
    Failed(&'a Error),
    /// It answered, and what it said broke off, or a part of it could not be reached.
    Interrupted(&'a Error),
    /// It failed still, when it was looked after.
    Again(&'a Error),
}

impl<'a> Outcome<'a> {
    /// Of a call about the depot as a whole.
    pub(crate) fn of_whole<T>(result: &'a Result<T>) -> Outcome<'a> {
        match result {
            Ok(_) => Outcome::Answered,
            Err(error) if matches!(error.kind, ErrorKind::Unsupported | ErrorKind::Internal) => Outcome::Answered,
            Err(error) => Outcome::Failed(error),
        }
    }

    /// Of a call about one dataset: what is wrong with the dataset is not wrong with the depot.
    pub(crate) fn of_part<T>(result: &'a Result<T>) -> Outcome<'a> {
        match result {
            Err(error) => Outcome::of_error(error),
            Ok(_) => Outcome::Answered,
        }
    }

    pub(crate) fn of_error(error: &'a Error) -> Outcome<'a> {
        match error.kind {
            ErrorKind::Unreachable | ErrorKind::Refused | ErrorKind::Busy => Outcome::Failed(error),
            _ => Outcome::Answered,
        }
    }
}

/// Whether a depot that fails so is left alone after a while: asking again costs somebody something.
fn leaves_alone(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unreachable | ErrorKind::Refused | ErrorKind::Denied)
}

/// Whether asking again does harm until somebody changes something.
fn is_refusal(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Refused | ErrorKind::Denied | ErrorKind::Settings)
}

/// What everybody may be told of a failure.
fn reason(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unreachable => "it cannot be reached, or does not answer",
        ErrorKind::Busy => "it is there, but could not do what it was asked",
        ErrorKind::Refused => "it refuses the credentials of its manifest",
        ErrorKind::Denied => "it denies the access",
        ErrorKind::NotFound => "what its manifest points to is not there",
        ErrorKind::Settings => "its settings make no sense",
        _ => "it cannot be opened",
    }
}

/// The first pause doubled so often, with a little chance, so that many who wait do not come back at the same time.
fn pause(times: u32, first: Duration, longest: Duration) -> Duration {
    let doubled = first
        .saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX))
        .min(longest);
    // A hasher has a new random key each time, which is chance enough.
    let chance = RandomState::new().hash_one(times) % 1000;
    doubled.mul_f64(0.8 + 0.2 * chance as f64 / 1000.0)
}

/// A moment to come, by the clock on the wall.
fn moment(instant: Instant) -> SystemTime {
    SystemTime::now() + instant.saturating_duration_since(Instant::now())
}

fn text(moment: SystemTime) -> String {
    DateTime::<Utc>::from(moment).to_rfc3339_opts(SecondsFormat::Secs, true)
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health")
            .field("depot", &self.depot)
            .field("state", &self.inner().state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(kind: ErrorKind) -> Error {
        Error::new("crm", kind, "secret.table went away")
    }

    fn fail(health: &Arc<Health>, kind: ErrorKind) {
        let mut admitted = health.admit().unwrap();
        health.note(Outcome::Failed(&failure(kind)), Some(&mut admitted));
    }

    fn let_time_pass(health: &Arc<Health>) {
        let mut inner = health.inner();
        assert!(matches!(inner.circuit, Circuit::Open(_)));
        inner.circuit = Circuit::Open(Instant::now());
    }

    #[test]
    fn after_three_failures_one_at_a_time_tries() {
        let health = Health::new("crm", true);
        assert_eq!(health.report().state, DepotState::Unknown);
        fail(&health, ErrorKind::Unreachable);
        fail(&health, ErrorKind::Unreachable);
        assert_eq!(health.report().state, DepotState::Unreachable);
        assert!(health.report().retry_at.is_none());
        fail(&health, ErrorKind::Unreachable);
        let Err(refused) = health.admit() else {
            panic!("a call was let through")
        };
        assert_eq!(refused.kind, ErrorKind::Unreachable);
        let said = refused.to_string();
        assert!(said.contains("cannot be reached") && said.contains(" since ") && said.contains("tried again at"));
        assert!(!said.contains("secret"), "{said}");

        let_time_pass(&health);
        let one = health.admit().unwrap();
        assert!(health.admit().is_err(), "one tries at a time");
        drop(one);
        let mut next = health.admit().unwrap();
        health.note(Outcome::Failed(&failure(ErrorKind::Unreachable)), Some(&mut next));
        assert!(health.admit().is_err());

        let_time_pass(&health);
        let mut last = health.admit().unwrap();
        health.note(Outcome::Answered, Some(&mut last));
        assert_eq!(health.report().state, DepotState::Ready);
        assert!(health.report().failure.is_none());
        fail(&health, ErrorKind::Unreachable);
        assert!(health.admit().is_ok(), "failures are counted anew");
    }

    #[test]
    fn what_is_there_is_not_left_alone() {
        let health = Health::new("crm", true);
        for _ in 0..5 {
            fail(&health, ErrorKind::Busy);
        }
        assert_eq!(health.report().state, DepotState::Degraded);
        assert!(health.admit().is_ok());
        let local = Health::new("files", false);
        for _ in 0..5 {
            fail(&local, ErrorKind::Unreachable);
        }
        assert_eq!(local.report().state, DepotState::Unreachable);
        assert!(local.admit().is_ok());
    }

    #[test]
    fn credentials_that_are_refused_are_not_tried_in_the_background() {
        let health = Health::new("crm", true);
        for _ in 0..3 {
            fail(&health, ErrorKind::Refused);
        }
        let Err(refused) = health.admit() else {
            panic!("a call was let through")
        };
        assert!(refused.message.contains("refuses the credentials"), "{refused}");
        assert!(matches!(health.next_probe(0), Probe::Stop));
        let wait = health
            .report()
            .retry_at
            .unwrap()
            .duration_since(SystemTime::now())
            .unwrap();
        assert!(wait > Duration::from_secs(20), "{wait:?}");
    }

    #[test]
    fn one_looks_after_a_depot_until_it_is_ready() {
        let health = Health::new("crm", true);
        let failed = failure(ErrorKind::Unreachable);
        assert!(health.note(Outcome::Failed(&failed), None));
        assert!(!health.note(Outcome::Failed(&failed), None), "somebody does already");
        assert!(matches!(health.next_probe(0), Probe::After(_)));
        health.note(Outcome::Answered, None);
        assert!(matches!(health.next_probe(1), Probe::Stop));
        assert!(health.note(Outcome::Failed(&failed), None));
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        for (times, least, most) in [
            (0, 800, 1000),
            (3, 6_400, 8_000),
            (6, 48_000, 60_000),
            (90, 48_000, 60_000),
        ] {
            let found = pause(times, PAUSE, LONGEST_PAUSE).as_millis();
            assert!((least..=most).contains(&found), "{times}: {found}");
        }
    }
}

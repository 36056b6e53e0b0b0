//! Who has shown wrong keys too often, and for how long they have to wait.
//!
//! In: failures and successes, by the user who was claimed and the address they came from, and the time. Out: how long to wait.
//! A lock is on a user *from one address*, so that nobody is locked out elsewhere, and it ends by itself. Failures leak away: who fails
//! once a minute is never locked. It is not asked about keys that cannot be guessed: signed tokens, certificates, long keys.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How many failures in a row cost nothing.
const FREE: f64 = 10.0;
/// How many failures of one address cost nothing, whoever they claim to be.
const FREE_OF_ADDRESS: f64 = 100.0;
/// How long it takes to forget one failure.
const LEAK: Duration = Duration::from_secs(30);
/// The first wait; each further failure doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// How many failures beyond the free ones are counted: enough to double the first wait to the longest.
const DOUBLINGS: f64 = 10.0;
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// How many characters of a user's id are remembered.
const LONGEST_USER: usize = 256;
/// How many users and addresses are remembered.
const MOST: usize = 10_000;

/// Whose failures are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    /// One user, or a key without a user, from one address.
    User(Option<String>, Option<IpAddr>),
    /// Everybody from one address.
    Address(Option<IpAddr>),
}

#[derive(Debug, Clone, Copy)]
struct Count {
    level: f64,
    /// When the level was this; it leaks from then on.
    last: Instant,
    until: Instant,
}

impl Count {
    fn level(&self, now: Instant) -> f64 {
        let leaked = now.saturating_duration_since(self.last).as_secs_f64() / LEAK.as_secs_f64();
        (self.level - leaked).max(0.0)
    }
}

/// The failures of late.
#[derive(Debug, Default)]
pub(crate) struct Lockout(Mutex<HashMap<Who, Count>>);

impl Lockout {
    /// How long this user has to wait at this address, if at all.
    pub(crate) fn wait(&self, user: Option<&str>, address: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        both(user, address)
            .iter()
            .filter_map(|(who, _)| counts.get(who))
            .map(|count| count.until.saturating_duration_since(now))
            .max()
            .filter(|wait| !wait.is_zero())
    }

    /// Counts a wrong key.
    pub(crate) fn failed(&self, user: Option<&str>, address: Option<IpAddr>, now: Instant) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (who, free) in both(user, address) {
            make_room(&mut counts, &who, now);
            let count = counts.entry(who).or_insert(Count {
                level: 0.0,
                last: now,
                until: now,
            });
            count.level = (count.level(now) + 1.0).min(free + DOUBLINGS);
            count.last = now;
            if count.level > free {
                let doubled = 2_f64.powf(count.level - free - 1.0);
                count.until = now + FIRST_WAIT.mul_f64(doubled).min(LONGEST_WAIT);
                // Nothing is forgotten while one waits.
                count.last = count.until;
            }
        }
    }

    /// Forgets the failures of a user who has shown the right key. Those of the address stay, and those of keys without a user: anybody
    /// with a key of their own could wipe them out between two guesses.
    pub(crate) fn succeeded(&self, user: Option<&str>, address: Option<IpAddr>) {
        if user.is_some() {
            let [(who, _), _] = both(user, address);
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&who);
        }
    }
}

fn both(user: Option<&str>, address: Option<IpAddr>) -> [(Who, f64); 2] {
    let address = address.map(network);
    // Nobody's id is longer, and what is remembered is bounded.
    let user = user.map(|user| user.chars().take(LONGEST_USER).collect());
    [
        (Who::User(user, address), FREE),
        (Who::Address(address), FREE_OF_ADDRESS),
    ]
}

/// Who has one address of version 6 has the 64 bits behind it.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => {
            let [a, b, c, d, ..] = six.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        four => four,
    }
}

/// Makes room for one more: first what is forgotten anyway, then the longest ago.
fn make_room(counts: &mut HashMap<Who, Count>, who: &Who, now: Instant) {
    if counts.len() < MOST || counts.contains_key(who) {
        return;
    }
    counts.retain(|_, count| count.level(now) > 0.0 || count.until > now);
    if counts.len() >= MOST {
        let mut times: Vec<_> = counts.values().map(|count| count.last).collect();
        let (_, middle, _) = times.select_nth_unstable(MOST / 2);
        let middle = *middle;
        counts.retain(|_, count| count.last > middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn failures_lock_a_user_at_one_address_for_longer_and_longer() {
        let (lockout, mut now) = (Lockout::default(), Instant::now());
        for _ in 0..10 {
            assert_eq!(lockout.wait(Some("jane"), address(1), now), None);
            lockout.failed(Some("jane"), address(1), now);
        }
        assert_eq!(lockout.wait(Some("jane"), address(1), now), None, "ten are free");
        let mut waits = Vec::new();
        for _ in 0..12 {
            lockout.failed(Some("jane"), address(1), now);
            let wait = lockout.wait(Some("jane"), address(1), now).unwrap();
            assert_eq!(
                lockout.wait(Some("jane"), address(2), now),
                None,
                "elsewhere nothing is locked"
            );
            assert_eq!(lockout.wait(Some("joe"), address(1), now), None, "nor is anybody else");
            waits.push(wait);
            now += wait;
            assert_eq!(lockout.wait(Some("jane"), address(1), now), None, "it ends by itself");
        }
        assert_eq!(waits[0], Duration::from_secs(1));
        assert!(
            waits
                .iter()
                .take(8)
                .zip(waits.iter().skip(1))
                .all(|(one, next)| one <= next),
            "{waits:?}"
        );
        assert!(waits.iter().any(|wait| *wait > Duration::from_secs(60)), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LONGEST_WAIT));
        lockout.succeeded(Some("jane"), address(1));
        lockout.failed(Some("jane"), address(1), now);
        assert_eq!(
            lockout.wait(Some("jane"), address(1), now),
            None,
            "the right key forgets"
        );
    }

    #[test]
    fn who_fails_now_and_then_is_never_locked() {
        let (lockout, mut now) = (Lockout::default(), Instant::now());
        for _ in 0..1_000 {
            lockout.failed(Some("jane"), address(1), now);
            assert_eq!(lockout.wait(Some("jane"), address(1), now), None);
            now += Duration::from_secs(60);
        }
    }

    #[test]
    fn an_address_that_tries_many_users_is_locked_and_a_key_of_ones_own_does_not_help() {
        let (lockout, now) = (Lockout::default(), Instant::now());
        for number in 0..101 {
            lockout.failed(Some(&format!("user{number}")), address(1), now);
            lockout.succeeded(Some("mallory"), address(1));
        }
        assert!(lockout.wait(Some("jane"), address(1), now).is_some());
        assert_eq!(lockout.wait(Some("jane"), address(2), now), None);
        for _ in 0..11 {
            lockout.failed(None, address(3), now);
            lockout.succeeded(None, address(3));
        }
        assert!(lockout.wait(None, address(3), now).is_some());
        let six = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        for host in 0..11 {
            lockout.failed(Some("jane"), six(&format!("2001:db8::{host}")), now);
        }
        assert!(lockout.wait(Some("jane"), six("2001:db8::ffff"), now).is_some());
        assert_eq!(lockout.wait(Some("jane"), six("2001:db8:0:1::1"), now), None);
    }

    #[test]
    fn memory_is_bounded() {
        let (lockout, now) = (Lockout::default(), Instant::now());
        for number in 0..30_000_u32 {
            lockout.failed(
                Some(&number.to_string()),
                address(1),
                now + Duration::from_millis(number.into()),
            );
        }
        assert!(lockout.0.lock().unwrap().len() <= MOST);
        let late = now + Duration::from_secs(30);
        assert!(
            lockout.wait(Some("jane"), address(1), late).is_some(),
            "the address stays locked"
        );
    }
}

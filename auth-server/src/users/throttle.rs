//! Slows down who guesses, and nobody else (auth R17).
//!
//! What counts are *distinct* wrong passwords for one name from one network: helm, containerd and
//! kubelets repeat the same stale one for ever, and that must neither slow nor lock anybody out.
//! From the fourth on, each further one waits twice as long as the one before, ten seconds at most,
//! and those that arrive together wait behind each other. Nobody is locked out, and who has signed
//! in from that network before does not wait at all: a right password gets through at once.
//!
//! Beyond that, the whole machine spends a bounded number of checks per second on failures, so that
//! guesses from many networks do not eat it. That too holds up only those who never signed in from
//! where they are.
//!
//! Names that no user has are treated as those that one has.

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use moka::sync::Cache;
use ring::hmac;
use tokio::time::Instant;

use crate::config::Limits;

/// Wrong passwords that cost nothing but the check: people mistype, and have old ones in scripts.
const FREE: usize = 3;

/// What the first one beyond those waits.
const FIRST_DELAY: Duration = Duration::from_millis(250);

/// How long a name's failures from one network, and a wrong password, are remembered after the last
/// one.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);

/// How long it is remembered who signed in from where.
const KNOWN: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Pairs of name and network, and wrong passwords, that are remembered at most.
const ENTRIES_MAX: u64 = 100_000;

/// Distinct wrong passwords that are told apart for one name from one network.
const DISTINCT_MAX: usize = 64;

/// Failures that may come at once before they are spread over time, in seconds' worth of them.
const BURST_SECS: u32 = 5;

/// An HMAC: nothing here can be turned back into a password or a name.
pub type Tag = [u8; 32];

/// A name and a network, as an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pair(Tag);

/// The wait would be longer than anybody is held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

/// What is remembered of failures, and the delays that follow from it.
pub struct Throttle {
    failures: Cache<Pair, Arc<Mutex<Failures>>>,
    known: Cache<Pair, ()>,
    wrong: Cache<Tag, ()>,
    budget: Mutex<Budget>,
    delay_max: Duration,
}

/// The failures of one pair.
#[derive(Debug, Default)]
struct Failures {
    distinct: HashSet<Tag>,
    /// Guesses that are waiting or being checked.
    under_way: usize,
    /// When the next guess may be checked.
    next: Option<Instant>,
}

/// The failures of all: each is paid off after `interval`, and `burst` may be owed.
#[derive(Debug)]
struct Budget {
    interval: Duration,
    burst: Duration,
    paid_off: Option<Instant>,
}

/// The network of a client: a /24 of IPv4, a /64 of IPv6, or the machine's own sockets.
#[must_use]
pub fn network(client: Option<IpAddr>) -> [u8; 8] {
    let mut network = [0; 8];
    match client.map(|client| client.to_canonical()) {
        None => {}
        Some(IpAddr::V4(v4)) => {
            network[0] = 4;
            network[1..4].copy_from_slice(&v4.octets()[..3]);
        }
        Some(IpAddr::V6(v6)) => network.copy_from_slice(&v6.octets()[..8]),
    }
    network
}

impl Throttle {
    /// A throttle that remembers nothing yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let interval = Duration::from_secs(1) / limits.password_failures_per_sec_max.max(1);
        Self {
            failures: Cache::builder().max_capacity(ENTRIES_MAX).time_to_idle(REMEMBERED).build(),
            known: Cache::builder().max_capacity(ENTRIES_MAX).time_to_idle(KNOWN).build(),
            wrong: Cache::builder().max_capacity(ENTRIES_MAX).time_to_idle(REMEMBERED).build(),
            budget: Mutex::new(Budget {
                interval,
                burst: Duration::from_secs(BURST_SECS.into()),
                paid_off: None,
            }),
            delay_max: Duration::from_secs(limits.sign_in_delay_secs_max),
        }
    }

    /// The name `user` as somebody from the network of `client` sends it.
    #[must_use]
    pub fn pair(&self, key: &hmac::Key, user: &str, client: Option<IpAddr>) -> Pair {
        let mut context = hmac::Context::with_key(key);
        for part in [network(client).as_slice(), user.as_bytes()] {
            context.update(part);
        }
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        Pair(tag)
    }

    /// Whether this password was checked lately, and was wrong: no second check is needed. The tag
    /// holds the stored hash, so that a new password is checked.
    #[must_use]
    pub fn is_known_wrong(&self, tag: &Tag) -> bool {
        self.wrong.get(tag).is_some()
    }

    /// Waits until a guess of `pair` may be checked.
    ///
    /// # Errors
    /// When it would wait for longer than the longest delay.
    pub async fn turn(&self, pair: Pair) -> Result<Guess, TooMany> {
        let now = Instant::now();
        if self.known.get(&pair).is_some() {
            return Ok(Guess(None));
        }
        let failures = self.failures.get_with(pair, Arc::default);
        let until = {
            let mut failures = lock(&failures);
            let begins = failures.next.unwrap_or(now).max(now);
            let begins = begins.max(lock(&self.budget).next(now));
            let begins = begins + self.delay(failures.distinct.len() + failures.under_way);
            if begins - now > self.delay_max {
                return Err(TooMany);
            }
            failures.under_way += 1;
            failures.next = Some(begins);
            begins
        };
        // Given back however this ends, a client that leaves while it waits included.
        let guess = Guess(Some(failures));
        if until > now {
            metrics::counter!("berth_sign_ins_delayed_total").increment(1);
            tokio::time::sleep_until(until).await;
        }
        Ok(guess)
    }

    /// Counts a wrong password for `pair`; the same one once.
    pub fn failed(&self, pair: Pair, tag: Tag) {
        self.wrong.insert(tag, ());
        let failures = self.failures.get_with(pair, Arc::default);
        let mut failures = lock(&failures);
        if failures.distinct.len() < DISTINCT_MAX {
            failures.distinct.insert(tag);
        }
    }

    /// Counts a check that was spent on a wrong password.
    pub fn spend(&self) {
        lock(&self.budget).spend(Instant::now());
    }

    /// Notes that `pair` signed in.
    pub fn succeeded(&self, pair: Pair) {
        self.known.insert(pair, ());
    }

    /// What the next guess waits after so many distinct ones.
    fn delay(&self, distinct: usize) -> Duration {
        let Some(beyond) = distinct.checked_sub(FREE) else { return Duration::ZERO };
        let doublings = u32::try_from(beyond).unwrap_or(u32::MAX).min(16);
        (FIRST_DELAY * 2_u32.pow(doublings)).min(self.delay_max)
    }
}

/// A guess that is waiting or being checked, until it is dropped.
pub struct Guess(Option<Arc<Mutex<Failures>>>);

impl Drop for Guess {
    fn drop(&mut self) {
        if let Some(failures) = &self.0 {
            lock(failures).under_way -= 1;
        }
    }
}

impl Budget {
    /// When the next check of a stranger may begin.
    fn next(&self, now: Instant) -> Instant {
        self.paid_off
            .and_then(|paid_off| paid_off.checked_sub(self.burst))
            .map_or(now, |at| at.max(now))
    }

    fn spend(&mut self, now: Instant) {
        self.paid_off = Some(self.paid_off.unwrap_or(now).max(now) + self.interval);
    }
}

/// Nothing that is done under these locks can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: Pair = Pair([1; 32]);

    fn throttle() -> Throttle {
        Throttle::new(Limits::default())
    }

    fn tag(n: u8) -> Tag {
        [n; 32]
    }

    async fn waits(throttle: &Throttle, pair: Pair) -> Duration {
        let begun = Instant::now();
        let guess = throttle.turn(pair).await.ok();
        let waited = begun.elapsed();
        assert!(guess.is_some());
        waited
    }

    #[tokio::test(start_paused = true)]
    async fn each_further_wrong_password_waits_longer_and_the_same_one_never() {
        let throttle = throttle();
        let mut waited = Vec::new();
        for n in 0..11 {
            waited.push(waits(&throttle, PAIR).await.as_millis());
            throttle.failed(PAIR, tag(n));
        }
        assert_eq!(waited, [0, 0, 0, 250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(waits(&throttle, Pair([2; 32])).await, Duration::ZERO, "another network");
        let repeated = Throttle::new(Limits::default());
        for _ in 0..100 {
            repeated.failed(PAIR, tag(0));
        }
        assert!(repeated.is_known_wrong(&tag(0)) && !repeated.is_known_wrong(&tag(1)));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(waits(&repeated, PAIR).await, Duration::ZERO, "one distinct password");
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_at_once_wait_behind_each_other_and_beyond_that_are_refused() {
        let throttle = throttle();
        let mut guesses = Vec::new();
        for _ in 0..1000 {
            guesses.push(throttle.turn(PAIR));
        }
        let begun = Instant::now();
        let results = futures_util::future::join_all(guesses).await;
        let checked = results.iter().filter(|result| result.is_ok()).count();
        assert!((FREE..10).contains(&checked), "{checked}");
        assert!(begun.elapsed() <= Duration::from_secs(10));
        drop(results);
        assert_eq!(lock(&throttle.failures.get(&PAIR).unwrap()).under_way, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_signed_in_from_there_before_never_waits() {
        let throttle = throttle();
        throttle.succeeded(PAIR);
        for n in 0..100 {
            throttle.failed(PAIR, tag(n));
        }
        assert_eq!(waits(&throttle, PAIR).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_from_everywhere_are_spread_over_time() {
        let limits = Limits { password_failures_per_sec_max: 10, ..Limits::default() };
        let throttle = Throttle::new(limits);
        let begun = Instant::now();
        for n in 0..100 {
            let _turn = throttle.turn(Pair([n; 32])).await.ok().unwrap();
            throttle.spend();
        }
        // 50 at once, and ten a second from then on.
        assert_eq!(begun.elapsed().as_secs(), 4);
        assert_eq!(waits(&throttle, Pair([200; 32])).await.as_millis(), 100);
        throttle.succeeded(PAIR);
        assert_eq!(waits(&throttle, PAIR).await, Duration::ZERO);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(waits(&throttle, Pair([201; 32])).await, Duration::ZERO);
    }

    #[test]
    fn networks_are_of_a_size_that_one_person_has() {
        let of = |text: &str| network(Some(text.parse().unwrap()));
        assert_eq!(of("192.0.2.1"), of("192.0.2.254"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.9"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(network(None), of("0.0.0.0"));
    }
}

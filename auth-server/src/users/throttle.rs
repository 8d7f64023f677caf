//! Slows down who guesses, and nobody else (auth R17).
//!
//! What counts are *distinct* wrong passwords for one name from one network: helm, containerd and
//! kubelets repeat the same stale one for ever, and that must neither slow nor lock anybody out.
//! From the fourth on, each further one waits twice as long as the one before, ten seconds at most,
//! and those that arrive together wait behind each other. Nobody is locked out: an address that
//! the name has signed in from has a queue of its own, where each wrong password holds up the next
//! for a second at most, and those from elsewhere hold up nobody; and a password that was right
//! before waits for nobody. The addresses are in the database, so that a restart changes nothing
//! for who signs in from home.
//!
//! Beyond that, the whole machine spends a bounded number of checks per second on failures, so that
//! guesses from many networks do not eat it, and one network has a part of them; see
//! `budget`. That too holds up only those who never signed in from where they are.
//!
//! Names that no user has are treated as those that one has.

use std::{collections::HashSet, net::IpAddr, sync::Arc, time::Duration};

use berth_shared::claimant::{Claimant, Network, network_of};
use moka::sync::Cache;
use parking_lot::Mutex;
use ring::hmac;
use tokio::time::Instant;

use super::{budget::Budget, limits::Limits};
use crate::database::sign_in_addresses::{self, KEPT_SECS};

/// Wrong passwords that cost nothing but the check: people mistype, and have old ones in scripts.
const FREE: usize = 3;

/// What the first one beyond those waits.
const FIRST_DELAY: Duration = Duration::from_millis(250);

/// The longest delay at an address that the name has signed in from.
const DELAY_MAX_KNOWN: Duration = Duration::from_secs(1);

/// How long a name's failures from one network, and a wrong password, are remembered after the last
/// one.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);

/// How long it is remembered who signed in from where, and that a password was right.
const KNOWN: Duration = Duration::from_secs(KEPT_SECS.unsigned_abs());

/// Queues, addresses and wrong passwords that are remembered at most.
const ENTRIES_MAX: u64 = sign_in_addresses::ENTRIES_MAX as u64;

/// Distinct wrong passwords that are told apart in one queue: more change no delay.
const DISTINCT_MAX: usize = 16;

/// An HMAC: nothing here can be turned back into a password or a name.
pub type Tag = [u8; 32];

/// The HMAC of these parts, one behind the other.
pub(super) fn tag_over(key: &hmac::Key, parts: &[&[u8]]) -> Tag {
    let mut context = hmac::Context::with_key(key);
    parts.iter().for_each(|part| context.update(part));
    let mut tag = [0; 32];
    tag.copy_from_slice(context.sign().as_ref());
    tag
}

/// Who signs in as whom, as HMACs: a name with an address, and with the network of that address.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    address: Tag,
    network: Tag,
    /// Where that is, whoever it is.
    pub(super) from: Network,
}

/// The wait would be longer than anybody is held up, by the limit of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany(pub &'static str);

/// What is remembered of failures, and the delays that follow from it.
pub struct Throttle {
    /// By address where that is known, by network where it is not.
    failures: Cache<Tag, Arc<Mutex<Failures>>>,
    /// The addresses that a name has signed in from.
    known: Cache<Tag, ()>,
    wrong: Cache<Tag, ()>,
    /// Passwords that were right, with the stored hash that they matched.
    proved: Cache<Tag, ()>,
    budget: Arc<Budget>,
    delay_max: Duration,
}

/// The failures in one queue.
#[derive(Debug, Default)]
struct Failures {
    distinct: HashSet<Tag>,
    /// Guesses that are waiting or being checked.
    under_way: usize,
    /// When the next guess may be checked.
    next: Option<Instant>,
}

impl Throttle {
    /// A throttle that remembers nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            failures: Cache::builder().max_capacity(ENTRIES_MAX).time_to_idle(REMEMBERED).build(),
            known: Cache::builder().max_capacity(ENTRIES_MAX).time_to_idle(KNOWN).build(),
            wrong: Cache::builder().max_capacity(ENTRIES_MAX).time_to_idle(REMEMBERED).build(),
            proved: Cache::builder().max_capacity(ENTRIES_MAX).time_to_idle(KNOWN).build(),
            budget: Arc::new(Budget::new(limits.password_failures_per_sec_max)),
            delay_max: Duration::from_secs(limits.sign_in_delay_secs_max),
        }
    }

    /// The name `user` as `client` sends it.
    pub fn pair(&self, key: &hmac::Key, user: &str, client: Option<IpAddr>) -> Pair {
        // A length in front, so that no two pairs read the same.
        let length = |from: &[u8]| [u8::try_from(from.len()).unwrap_or(u8::MAX)];
        let tag = |from: &[u8]| tag_over(key, &[&length(from), from, user.as_bytes()]);
        let address = client.map(|client| client.to_canonical().to_string()).unwrap_or_default();
        let from = client.map(network_of);
        // As text it reads as no address does.
        let network = Claimant::Network(from).to_string();
        Pair { address: tag(address.as_bytes()), network: tag(network.as_bytes()), from }
    }

    /// Whether this password was checked lately, and was wrong: no second check is needed. The tag
    /// holds the stored hash, so that a new password is checked.
    pub fn is_known_wrong(&self, tag: &Tag) -> bool {
        self.wrong.get(tag).is_some()
    }

    /// Waits until a guess of `pair` may be checked.
    ///
    /// # Errors
    /// When it would wait for longer than the longest delay.
    pub async fn turn(&self, pair: Pair) -> Result<Guess, TooMany> {
        let now = Instant::now();
        let (queue, is_known) = self.queue(pair);
        let longest = if is_known { self.delay_max.min(DELAY_MAX_KNOWN) } else { self.delay_max };
        let (guess, until) = {
            // Held until what this one takes of it is booked.
            let mut budget = (!is_known).then(|| self.budget.hold());
            let open = budget.as_ref().map_or(now, |budget| budget.next(pair.from, now));
            if open - now > self.delay_max {
                // Before a queue is made: a name that is turned away takes no room.
                return Err(TooMany("password_failures_per_sec_max"));
            }
            let queue = self.failures.get_with(queue, Arc::default);
            let mut failures = queue.lock();
            let delay = delay(failures.distinct.len() + failures.under_way).min(longest);
            let begins = failures.next.unwrap_or(now).max(open) + delay;
            if begins - now > self.delay_max {
                return Err(TooMany("sign_in_delay_secs_max"));
            }
            failures.under_way += 1;
            failures.next = Some(begins);
            drop(failures);
            if let Some(budget) = &mut budget {
                budget.spend(pair.from, now);
            }
            // Given back however this ends, a client that leaves while it waits included.
            let budget = Arc::clone(&self.budget);
            let (from, is_booked) = (pair.from, !is_known);
            (Guess { failures: queue, budget, from, is_booked, is_wrong: false }, begins)
        };
        if until > now {
            metrics::counter!("berth_sign_ins_delayed_total").increment(1);
            metrics::histogram!("berth_sign_in_delay_seconds").record(until - now);
            tokio::time::sleep_until(until).await;
        }
        Ok(guess)
    }

    /// Counts a wrong password for `pair`; the same one once.
    pub fn failed(&self, pair: Pair, tag: Tag) {
        self.wrong.insert(tag, ());
        let failures = self.failures.get_with(self.queue(pair).0, Arc::default);
        let mut failures = failures.lock();
        if failures.distinct.len() < DISTINCT_MAX {
            failures.distinct.insert(tag);
        }
    }

    /// Notes that a password was right.
    pub fn proved(&self, tag: Tag) {
        self.proved.insert(tag, ());
    }

    /// Whether this password was right before, however long ago that was checked. The tag holds the
    /// stored hash, so that a password that was changed is a guess.
    pub fn is_proved(&self, tag: &Tag) -> bool {
        self.proved.get(tag).is_some()
    }

    /// Notes that `pair` signed in.
    pub fn succeeded(&self, pair: Pair) {
        // A look keeps the note alive, and costs a tenth of writing it again.
        if self.known.get(&pair.address).is_none() {
            self.known.insert(pair.address, ());
        }
    }

    /// Where `pair` waits, and whether it has signed in from its address before.
    fn queue(&self, pair: Pair) -> (Tag, bool) {
        let is_known = self.known.get(&pair.address).is_some();
        (if is_known { pair.address } else { pair.network }, is_known)
    }
}

/// What the next guess waits after so many distinct ones.
fn delay(distinct: usize) -> Duration {
    let Some(beyond) = distinct.checked_sub(FREE) else { return Duration::ZERO };
    FIRST_DELAY * 2_u32.pow(u32::try_from(beyond).unwrap_or(u32::MAX).min(16))
}

/// A guess that is waiting or being checked, until it is dropped.
pub struct Guess {
    failures: Arc<Mutex<Failures>>,
    budget: Arc<Budget>,
    from: Network,
    /// Whether it was booked in the budget when its turn was given: a stranger's.
    pub(super) is_booked: bool,
    /// Whether a check was spent on it, and it was wrong.
    pub(super) is_wrong: bool,
}

impl Drop for Guess {
    fn drop(&mut self) {
        self.failures.lock().under_way -= 1;
        match (self.is_booked, self.is_wrong) {
            (true, false) => self.budget.hold().give_back(self.from),
            (false, true) => self.budget.hold().spend(self.from, Instant::now()),
            (true, true) | (false, false) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody on this machine.
    const PAIR: Pair = Pair { address: [1; 32], network: [254; 32], from: None };

    /// Somebody alone in their network.
    fn pair(n: u8) -> Pair {
        let from = Some(network_of([192, 0, n, 1].into()));
        Pair { address: [n; 32], network: [255 - n; 32], from }
    }

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
        assert_eq!(waits(&throttle, pair(2)).await, Duration::ZERO, "another network");
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
        let mut refused = results.iter().filter_map(|result| result.as_ref().err());
        assert!(refused.all(|it| *it == TooMany("sign_in_delay_secs_max")));
        assert!(begun.elapsed() <= Duration::from_secs(10));
        drop(results);
        assert_eq!(throttle.failures.get(&PAIR.network).unwrap().lock().under_way, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_signed_in_from_there_before_waits_for_nobody_elsewhere_and_never_long() {
        let throttle = throttle();
        let neighbour = Pair { address: [9; 32], ..PAIR };
        throttle.succeeded(PAIR);
        for n in 0..100 {
            throttle.failed(neighbour, tag(n));
        }
        assert_eq!(waits(&throttle, PAIR).await, Duration::ZERO);
        assert_eq!(waits(&throttle, neighbour).await.as_secs(), 10);
        for n in 0..100 {
            throttle.failed(PAIR, tag(n));
        }
        assert_eq!(waits(&throttle, PAIR).await.as_secs(), 1);
        assert_eq!(waits(&throttle, PAIR).await.as_secs(), 1);
    }

    #[test]
    fn a_right_password_is_no_guess_until_it_is_another() {
        let throttle = throttle();
        throttle.proved(tag(1));
        assert!(throttle.is_proved(&tag(1)) && !throttle.is_proved(&tag(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_from_everywhere_are_spread_over_time() {
        let limits = Limits { password_failures_per_sec_max: 10, ..Limits::default() };
        let throttle = Throttle::new(limits);
        let begun = Instant::now();
        for n in 0..100 {
            throttle.turn(pair(n)).await.ok().unwrap().is_wrong = true;
        }
        // 50 at once, and ten a second from then on.
        assert_eq!(begun.elapsed().as_secs(), 4);
        assert_eq!(waits(&throttle, pair(200)).await.as_millis(), 100);
        throttle.succeeded(PAIR);
        assert_eq!(waits(&throttle, PAIR).await, Duration::ZERO);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(waits(&throttle, pair(201)).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_who_come_together_share_the_budget_and_the_right_ones_give_it_back() {
        let limits = Limits { password_failures_per_sec_max: 10, ..Limits::default() };
        let throttle = Throttle::new(limits);
        let together: Vec<_> = (0..200).map(|n| throttle.turn(pair(n))).collect();
        let begun = Instant::now();
        let turns = futures_util::future::join_all(together).await;
        let mut refused = turns.iter().filter_map(|turn| turn.as_ref().err());
        assert!(refused.all(|it| *it == TooMany("password_failures_per_sec_max")));
        let turns: Vec<_> = turns.into_iter().filter_map(Result::ok).collect();
        // 50 at once, and ten a second for the ten seconds that anybody waits.
        assert_eq!((turns.len(), begun.elapsed().as_secs()), (151, 10));
        assert!(turns.iter().all(|turn| turn.is_booked));
        // All of them were right, or left.
        drop(turns);
        assert_eq!(waits(&throttle, pair(201)).await, Duration::ZERO);
    }
}

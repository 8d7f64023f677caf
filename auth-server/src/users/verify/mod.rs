//! The password check: bcrypt on a bounded number of threads, with a memory for successes.
//!
//! An unknown user costs the same as a known one: the same steps are taken with a hash that
//! nothing matches, of the cost that most users have. What was wrong is answered when the largest
//! cost of the file would have come to its end, as `pace` says; the wait holds no thread.
//!
//! Successes are remembered under an HMAC over user, stored hash and password with a key of this
//! process, so that an entry dies with the stored hash, and the memory tells nobody a password.
//! Equal logins that arrive together are checked once. [`super::throttle`] slows down who guesses,
//! and remembers wrong passwords for a while, so that a stale one that is repeated for ever costs
//! one check.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use berth_shared::subject::UserName;
use moka::future::Cache;
use ring::{hmac, rand::SystemRandom};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{
    Password,
    htpasswd::StoredHash,
    limits::Limits,
    pace::Pace,
    queue::{Queue, Standing},
    store::UserSet,
    throttle::{Guess, Pair, Tag, Throttle, TooMany, tag_over},
};

#[cfg(test)]
mod tests;

/// What a client says about itself. Has no `Debug`, and is wiped when dropped.
pub struct Credentials {
    /// The user name as it was sent.
    pub user: Zeroizing<String>,
    /// The password as it was sent.
    pub password: Zeroizing<String>,
}

/// The credentials are not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such user, or the password is another.
    #[error("wrong user name or password")]
    Wrong,
    /// The same, and it is known from a check before, so that this one cost nothing.
    #[error("wrong user name or password, as before")]
    StillWrong,
    /// Too many checks or guesses are waiting, by the limit of this name.
    #[error("too many password checks are waiting")]
    Busy(&'static str),
    /// The check could not be made.
    #[error("the password check broke")]
    Broken,
}

/// What a check can come to, as metrics say it: by bcrypt, or as it was remembered. What was `shared`
/// is an equal login's that was being checked.
pub(crate) const OUTCOMES: [&str; 7] =
    ["right", REMEMBERED_RIGHT, SHARED, "wrong", "remembered_wrong", "busy", "broken"];

const REMEMBERED_RIGHT: &str = "remembered_right";
const SHARED: &str = "shared";

fn outcome(checked: Result<(), Refusal>) -> &'static str {
    match checked {
        Ok(()) => "right",
        Err(Refusal::Wrong) => "wrong",
        Err(Refusal::StillWrong) => "remembered_wrong",
        Err(Refusal::Busy(_)) => "busy",
        Err(Refusal::Broken) => "broken",
    }
}

/// Checks passwords.
pub struct Verifier {
    key: hmac::Key,
    successes: Cache<Tag, ()>,
    throttle: Arc<Throttle>,
    queue: Queue,
    pace: Arc<Pace>,
    runs: Arc<AtomicU64>,
}

impl Verifier {
    /// A verifier that runs one check less at once than the machine has cores, at least one, so
    /// that sign-ins never take the whole machine.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn new(limits: Limits) -> Result<Self, ring::error::Unspecified> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads_max = cores.saturating_sub(1).max(1);
        let remembered = Cache::builder()
            .max_capacity(limits.password_cache_max)
            .time_to_live(Duration::from_secs(limits.password_cache_secs));
        Ok(Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?,
            successes: remembered.build(),
            throttle: Arc::new(Throttle::new(limits)),
            queue: Queue::new(threads_max, limits.password_queue_max),
            pace: Arc::default(),
            runs: Arc::default(),
        })
    }

    /// Whose credentials these are.
    ///
    /// # Errors
    /// [`Refusal::Wrong`] for whatever is wrong with them, always after the same time, and
    /// [`Refusal::StillWrong`] when they are shown again; [`Refusal::Busy`] when too many others
    /// wait, or too many guesses.
    pub async fn verify(
        &self,
        users: &UserSet,
        credentials: &Credentials,
        client: Option<IpAddr>,
    ) -> Result<UserName, Refusal> {
        let name = credentials.user.parse::<UserName>().ok();
        let stored = name.as_ref().and_then(|name| users.hashes.get(name));
        let password = Password::new(credentials.password.clone()).ok();
        let is_possible = stored.is_some() && password.is_some();
        let hash = match (stored, is_possible) {
            (Some(stored), true) => stored.clone(),
            _ => StoredHash::dummy(stored.map_or(users.modal_cost, StoredHash::cost)),
        };
        let shown = password.as_ref().map_or(&[][..], Password::as_bytes);
        let tag = self.tag_of(&credentials.user, hash.as_str(), shown);
        let pair = self.throttle.pair(&self.key, &credentials.user, client);
        if self.successes.get(&tag).await.is_some() {
            count(REMEMBERED_RIGHT);
            self.throttle.succeeded(pair);
            return name.ok_or(Refusal::Wrong);
        }
        let cost_max = users.cost_max;
        let attempt = Attempt { pair, tag, guess: None, hash, cost_max, password, is_possible };
        let mut is_own = false;
        let own = async {
            is_own = true;
            self.attempt(attempt).await
        };
        let result = self.successes.try_get_with(tag, own).await.map_err(|refusal| *refusal);
        count(if is_own { outcome(result) } else { SHARED });
        if let Err(refusal) = result {
            if matches!(refusal, Refusal::Wrong | Refusal::StillWrong) {
                self.throttle.failed(pair, tag);
            }
            // The one that was checked is told once.
            let is_told = !is_own && refusal == Refusal::Wrong;
            return Err(if is_told { Refusal::StillWrong } else { refusal });
        }
        self.throttle.succeeded(pair);
        self.throttle.proved(tag);
        name.ok_or(Refusal::Wrong)
    }

    /// Learns that a user has signed in from an address, before this process was there.
    pub fn knows(&self, user: &UserName, address: IpAddr) {
        let pair = self.throttle.pair(&self.key, user.as_str(), Some(address));
        self.throttle.succeeded(pair);
    }

    /// What is under way, and what is remembered, by the names of the metrics.
    pub(crate) fn load(&self) -> [(&'static str, u64); 5] {
        let (running, running_max) = self.queue.running();
        let (waiting, waiting_max) = self.queue.waiting();
        [
            ("berth_password_cache_entries", self.successes.entry_count()),
            ("berth_bcrypt_running", running as u64),
            ("berth_bcrypt_running_max", running_max as u64),
            ("berth_bcrypt_waiting", waiting as u64),
            ("berth_bcrypt_waiting_max", waiting_max as u64),
        ]
    }

    /// How many times bcrypt has run.
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    fn tag_of(&self, user: &str, hash: &str, password: &[u8]) -> Tag {
        tag_over(&self.key, &[user.as_bytes(), b"\0", hash.as_bytes(), b"\0", password])
    }

    /// Checks a password when its turn has come, unless it is known to be wrong. Of equal logins
    /// one does this, and the others get what comes of it.
    async fn attempt(&self, mut attempt: Attempt) -> Result<(), Refusal> {
        if self.throttle.is_known_wrong(&attempt.tag) {
            return Err(Refusal::StillWrong);
        }
        // One that was right before is no guess, wherever guesses come from: it waits for no turn of
        // theirs.
        if !self.throttle.is_proved(&attempt.tag) {
            let turn = self.throttle.turn(attempt.pair).await;
            attempt.guess = Some(turn.map_err(|TooMany(limit)| Refusal::Busy(limit))?);
        }
        self.check(attempt).await
    }

    async fn check(&self, attempt: Attempt) -> Result<(), Refusal> {
        let begun = Instant::now();
        let is_stranger = attempt.guess.as_ref().is_some_and(|guess| guess.is_booked);
        let standing =
            if is_stranger { Standing::Stranger(attempt.pair.from) } else { Standing::Known };
        let turn = self.queue.turn(standing).await;
        let turn = turn.map_err(|_| Refusal::Busy("password_queue_max"))?;
        let (runs, pace) = (Arc::clone(&self.runs), Arc::clone(&self.pace));
        let checking = tokio::task::spawn_blocking(move || {
            // The turn goes with the work: a client that leaves makes no room early.
            let (mut attempt, _turn) = (attempt, turn);
            let run = |hash: &StoredHash| {
                runs.fetch_add(1, Ordering::Relaxed);
                let started = Instant::now();
                let password = attempt.password.as_ref().map_or(&[][..], Password::as_bytes);
                let is_right = bcrypt::verify(password, hash.as_str())?;
                pace.ran(hash.cost(), started.elapsed());
                Ok::<_, bcrypt::BcryptError>(is_right)
            };
            let is_right = run(&attempt.hash)? && attempt.is_possible;
            if !is_right && !pace.has_seen(attempt.cost_max) {
                // After a start, or when a larger cost has come: without it the first answers would
                // come when their own cost's check ends.
                run(&StoredHash::dummy(attempt.cost_max))?;
            }
            if let Some(guess) = attempt.guess.as_mut().filter(|_| !is_right) {
                guess.is_wrong = true;
            }
            Ok::<_, bcrypt::BcryptError>((attempt, is_right))
        });
        let (pace, throttle) = (Arc::clone(&self.pace), Arc::clone(&self.throttle));
        // In a task of its own: what was guessed counts though the client leaves. That it was wrong
        // is known when it would have been told and no sooner, or a second client would be told
        // how long the check of the first took.
        let told = tokio::spawn(async move {
            let Ok(Ok((attempt, is_right))) = checking.await else { return Err(Refusal::Broken) };
            if is_right {
                return Ok(());
            }
            tokio::time::sleep_until(pace.answer_at(begun, Instant::now(), attempt.cost_max)).await;
            throttle.failed(attempt.pair, attempt.tag);
            Err(Refusal::Wrong)
        });
        told.await.unwrap_or(Err(Refusal::Broken))
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("berth_password_checks_total", "outcome" => outcome).increment(1);
}

/// A password that is about to be checked.
struct Attempt {
    pair: Pair,
    tag: Tag,
    /// Its place among the guesses, if it is one.
    guess: Option<Guess>,
    hash: StoredHash,
    /// The largest cost that any user's hash has.
    cost_max: u32,
    /// None where what was shown cannot be one.
    password: Option<Password>,
    is_possible: bool,
}

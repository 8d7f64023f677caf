//! The issuers' keys, kept between tokens: fetched when a token needs them, one fetch at a time
//! per issuer, and never because a token asks for it.
//!
//! An issuer that is down does not stop those who hold tokens that were signed before: the last
//! good keys are used for a day. Nor can a flood of tokens become a flood of fetches.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use berth_shared::{
    clock::{Clock, UnixSeconds},
    keys::KeySet,
    telemetry::chain,
};
use moka::sync::Cache;
use tokio::sync::Mutex;

use super::{FetchError, KeySource, Remote, fetch};

/// How long keys are used before they are asked for again.
const FRESH_SECS: i64 = 60 * 60;

/// How long keys are used when their issuer gives none. Beyond that, keys that the issuer may have
/// withdrawn are worse than a build that waits.
const KEPT_SECS: i64 = 24 * 60 * 60;

/// How often a token with an unknown key id may cause a fetch, per issuer: anybody can make one up.
const UNKNOWN_KEY_SECS: i64 = 30;

/// How long an issuer that failed is left alone.
const FAILURE_SECS: i64 = 10;

/// Issuers whose keys are kept. Only an administrator can add one.
const ISSUERS_MAX: u64 = 1024;

/// The keys that a token needs cannot be had now; says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the keys of the issuer are not to be had: {0}")]
pub struct Unavailable(String);

/// The keys of all issuers.
#[derive(Debug)]
pub struct IssuerKeys {
    clock: Clock,
    issuers: Cache<Remote, Arc<Issuer>>,
}

/// One issuer. What was fetched last is seen without waiting for a fetch that is under way.
#[derive(Debug, Default)]
struct Issuer {
    kept: ArcSwapOption<Kept>,
    slot: Arc<Mutex<Slot>>,
}

/// What is known of one issuer, and when it was asked.
#[derive(Debug, Default)]
struct Slot {
    kept: Option<Arc<Kept>>,
    tried: UnixSeconds,
    /// Why the last fetch failed, if it did.
    failure: Option<String>,
}

#[derive(Debug)]
struct Kept {
    keys: Arc<KeySet>,
    fetched: UnixSeconds,
}

impl IssuerKeys {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, issuers: Cache::new(ISSUERS_MAX) }
    }

    /// The issuer's keys for a token that names the key `id`. Whether that is among them is for
    /// the verification to say.
    ///
    /// # Errors
    /// When keys are needed that are not to be had.
    pub async fn for_token(
        &self,
        source: &KeySource,
        id: &str,
    ) -> Result<Arc<KeySet>, Unavailable> {
        let remote = match source {
            KeySource::Inline(inline) => return Ok(Arc::clone(&inline.keys)),
            KeySource::Remote(remote) => remote.as_ref(),
        };
        let issuer = self.issuers.get_with_by_ref(remote, Arc::default);
        let kept = issuer.kept.load_full().filter(|kept| kept.keys.has(id));
        let is_within = |secs| kept.as_ref().filter(|kept| kept.is_within(secs, self.clock.now()));
        // A made-up key id may be what is fetched for: that holds up nobody whose key is known.
        if let Some(kept) = is_within(FRESH_SECS) {
            return Ok(Arc::clone(&kept.keys));
        }
        // Held while fetching: whoever comes meanwhile waits for the one fetch, which is bounded,
        // unless an old key will do for want of a new one.
        let slot = Arc::clone(&issuer.slot);
        let mut slot = match (slot.try_lock_owned(), is_within(KEPT_SECS)) {
            (Ok(slot), _) => slot,
            (Err(_), Some(kept)) => return Ok(Arc::clone(&kept.keys)),
            (Err(_), None) => Arc::clone(&issuer.slot).lock_owned().await,
        };
        let now = self.clock.now();
        if !slot.is_due(id, now) {
            return slot.answer(id, now);
        }
        let (remote, id) = (remote.clone(), id.to_owned());
        // In a task of its own: a client that leaves must not stop it for all.
        let fetched = tokio::spawn(async move {
            let fetched = fetch::keys(&remote).await;
            slot.take(fetched, &remote, now);
            issuer.kept.store(slot.kept.clone());
            slot.answer(&id, now)
        });
        fetched.await.map_err(|error| Unavailable(error.to_string()))?
    }
}

/// Fetches an issuer's keys once and says how many are usable, to find out whether that works.
///
/// # Errors
/// When it does not.
pub async fn try_out(remote: &Remote) -> Result<usize, FetchError> {
    fetch::keys(remote).await.map(|keys| keys.len())
}

impl Kept {
    /// A clock that was set back makes keys old, not young.
    fn is_within(&self, secs: i64, now: UnixSeconds) -> bool {
        (0..secs).contains(&(now - self.fetched))
    }
}

impl Slot {
    /// Whether a token with the key `id` is a reason to fetch now.
    fn is_due(&self, id: &str, now: UnixSeconds) -> bool {
        let fresh = self.kept.as_ref().filter(|kept| kept.is_within(FRESH_SECS, now));
        let wait = match fresh {
            Some(kept) if kept.keys.has(id) => return false,
            Some(_) => UNKNOWN_KEY_SECS,
            None if self.failure.is_some() => FAILURE_SECS,
            None => return true,
        };
        !(0..wait).contains(&(now - self.tried))
    }

    fn take(&mut self, fetched: Result<KeySet, FetchError>, remote: &Remote, now: UnixSeconds) {
        self.tried = now;
        match fetched {
            Ok(keys) => {
                self.failure = None;
                self.kept = Some(Arc::new(Kept { keys: Arc::new(keys), fetched: now }));
            }
            Err(error) => {
                let reason = chain(&error);
                tracing::warn!(issuer = %remote.issuer, error = reason, "fetching an issuer's keys");
                self.failure = Some(reason);
            }
        }
    }

    fn answer(&self, id: &str, now: UnixSeconds) -> Result<Arc<KeySet>, Unavailable> {
        let kept = self.kept.as_ref().filter(|kept| kept.is_within(KEPT_SECS, now));
        match (kept, &self.failure) {
            (Some(kept), failure) if kept.keys.has(id) || failure.is_none() => {
                Ok(Arc::clone(&kept.keys))
            }
            // The issuer may have a new key that we could not ask for.
            (_, Some(reason)) => Err(Unavailable(reason.clone())),
            (_, None) => Err(Unavailable("they are too old".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(id: &str) -> KeySet {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let key = serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": x });
        let set = serde_json::json!({ "keys": [key] }).to_string();
        KeySet::from_issuer(set.as_bytes(), 1).unwrap()
    }

    fn remote() -> Remote {
        Remote { issuer: "https://issuer.test".parse().unwrap(), keys_url: None, ca: None }
    }

    #[test]
    fn a_fetch_is_due_once_an_hour_and_for_unknown_keys_twice_a_minute() {
        let mut slot = Slot::default();
        assert!(slot.is_due("a", 1000));
        slot.take(Ok(keys("a")), &remote(), 1000);
        assert!(!slot.is_due("a", 1000) && !slot.is_due("b", 1000));
        assert!(!slot.is_due("b", 1029) && slot.is_due("b", 1030));
        assert!(!slot.is_due("a", 1000 + FRESH_SECS - 1) && slot.is_due("a", 1000 + FRESH_SECS));
        assert!(slot.is_due("a", 999), "a clock that was set back");
        assert!(!slot.answer("b", 1000).unwrap().has("b"));
    }

    #[test]
    fn the_last_good_keys_are_used_for_a_day_and_failures_are_remembered() {
        let (remote, mut slot) = (remote(), Slot::default());
        slot.take(Err(FetchError::Slow), &remote, 1000);
        assert!(slot.answer("a", 1000).is_err());
        assert!(!slot.is_due("a", 1009) && slot.is_due("a", 1010));
        slot.take(Ok(keys("a")), &remote, 1010);
        let later = 1010 + FRESH_SECS;
        slot.take(Err(FetchError::Slow), &remote, later);
        assert!(slot.answer("a", later).is_ok() && slot.answer("b", later).is_err());
        assert!(!slot.is_due("a", later + 9) && slot.is_due("a", later + 10));
        assert!(slot.answer("a", 1009 + KEPT_SECS).is_ok());
        assert!(slot.answer("a", 1010 + KEPT_SECS).is_err());
    }
}

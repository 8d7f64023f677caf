//! The issuers' keys, kept between tokens: fetched when a token needs them, one fetch at a time
//! per issuer, and never because a token asks for it.
//!
//! An issuer that is down does not stop those who hold tokens that were signed before: the last
//! good keys are used for a day. Nor can a flood of tokens become a flood of fetches.
//!
//! A trust is never served keys from before it was made: to remove one and add it again is how an
//! administrator ends a key that the issuer has withdrawn.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use berth_shared::{
    clock::{Clock, UnixSeconds},
    keys::KeySet,
    telemetry::chain,
};
use moka::sync::Cache;
use tokio::sync::Mutex;

use super::{FetchError, KeySource, Remote, Trust, fetch};

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
    /// Trusts that were made later than this need newer keys. When the keys were fetched, or, where
    /// the clock was ahead at the time, when the trust was made that they were fetched for.
    serves_until: UnixSeconds,
}

/// What a token needs keys for.
#[derive(Debug, Clone)]
struct Need {
    /// The key id that it names.
    id: String,
    /// When its trust was made.
    trusted: UnixSeconds,
}

impl IssuerKeys {
    /// Nothing is known yet.
    pub fn new(clock: Clock) -> Self {
        Self { clock, issuers: Cache::new(ISSUERS_MAX) }
    }

    /// The keys of the trust's issuer for a token that names the key `id`. Whether that is among
    /// them is for the verification to say.
    ///
    /// # Errors
    /// When keys are needed that are not to be had.
    pub async fn for_token(&self, trust: &Trust, id: &str) -> Result<Arc<KeySet>, Unavailable> {
        let remote = match &trust.keys {
            KeySource::Inline(inline) => return Ok(Arc::clone(&inline.keys)),
            KeySource::Remote(remote) => remote.as_ref(),
        };
        let issuer = self.issuers.get_with_by_ref(remote, Arc::default);
        let need = Need { id: id.to_owned(), trusted: trust.created };
        let kept = issuer.kept.load_full().filter(|kept| kept.meets(&need));
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
        if !slot.is_due(&need, now) {
            return slot.answer(&need, now);
        }
        let remote = remote.clone();
        // In a task of its own: a client that leaves must not stop it for all.
        let fetched = tokio::spawn(async move {
            let fetched = fetch::keys(&remote).await;
            slot.take(fetched, &remote, &need, now);
            issuer.kept.store(slot.kept.clone());
            slot.answer(&need, now)
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

    /// Whether the keys are from after the trust was made.
    fn serves(&self, need: &Need) -> bool {
        need.trusted <= self.serves_until
    }

    fn meets(&self, need: &Need) -> bool {
        self.serves(need) && self.keys.has(&need.id)
    }
}

impl Slot {
    /// The last good keys, if they are from within `secs` and from after the trust was made.
    fn kept(&self, secs: i64, need: &Need, now: UnixSeconds) -> Option<&Arc<Kept>> {
        self.kept.as_ref().filter(|kept| kept.is_within(secs, now) && kept.serves(need))
    }

    /// Whether a token with this need is a reason to fetch now.
    fn is_due(&self, need: &Need, now: UnixSeconds) -> bool {
        let wait = match self.kept(FRESH_SECS, need, now) {
            Some(kept) if kept.meets(need) => return false,
            Some(_) => UNKNOWN_KEY_SECS,
            None if self.failure.is_some() => FAILURE_SECS,
            None => return true,
        };
        !(0..wait).contains(&(now - self.tried))
    }

    fn take(
        &mut self,
        fetched: Result<KeySet, FetchError>,
        remote: &Remote,
        need: &Need,
        now: UnixSeconds,
    ) {
        self.tried = now;
        match fetched {
            Ok(keys) => {
                self.failure = None;
                let serves_until = now.max(need.trusted);
                self.kept =
                    Some(Arc::new(Kept { keys: Arc::new(keys), fetched: now, serves_until }));
            }
            Err(error) => {
                let reason = chain(&error);
                tracing::warn!(issuer = %remote.issuer, error = reason, "fetching an issuer's keys");
                self.failure = Some(reason);
            }
        }
    }

    fn answer(&self, need: &Need, now: UnixSeconds) -> Result<Arc<KeySet>, Unavailable> {
        match (self.kept(KEPT_SECS, need, now), &self.failure) {
            (Some(kept), failure) if kept.meets(need) || failure.is_none() => {
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

    fn moment(seconds: i64) -> UnixSeconds {
        UnixSeconds::new(seconds)
    }

    fn slow() -> FetchError {
        FetchError("no keys".to_owned())
    }

    fn keys(id: &str) -> KeySet {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let key = serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": x });
        let set = serde_json::json!({ "keys": [key] }).to_string();
        KeySet::from_issuer(set.as_bytes(), 1).unwrap()
    }

    /// That of a token with the key `id`, whose trust was made before everything.
    fn need(id: &str) -> Need {
        Need { id: id.to_owned(), trusted: moment(0) }
    }

    fn remote() -> Remote {
        Remote { issuer: "https://issuer.test".parse().unwrap(), keys_url: None, ca: None }
    }

    #[test]
    fn a_fetch_is_due_once_an_hour_and_for_unknown_keys_twice_a_minute() {
        let mut slot = Slot::default();
        assert!(slot.is_due(&need("a"), moment(1000)));
        slot.take(Ok(keys("a")), &remote(), &need("a"), moment(1000));
        assert!(!slot.is_due(&need("a"), moment(1000)) && !slot.is_due(&need("b"), moment(1000)));
        assert!(!slot.is_due(&need("b"), moment(1029)) && slot.is_due(&need("b"), moment(1030)));
        assert!(
            !slot.is_due(&need("a"), moment(1000 + FRESH_SECS - 1))
                && slot.is_due(&need("a"), moment(1000 + FRESH_SECS))
        );
        assert!(slot.is_due(&need("a"), moment(999)), "a clock that was set back");
        assert!(!slot.answer(&need("b"), moment(1000)).unwrap().has("b"));
    }

    #[test]
    fn the_last_good_keys_are_used_for_a_day_and_failures_are_remembered() {
        let (remote, mut slot) = (remote(), Slot::default());
        slot.take(Err(slow()), &remote, &need("a"), moment(1000));
        assert!(slot.answer(&need("a"), moment(1000)).is_err());
        assert!(!slot.is_due(&need("a"), moment(1009)) && slot.is_due(&need("a"), moment(1010)));
        slot.take(Ok(keys("a")), &remote, &need("a"), moment(1010));
        let later = 1010 + FRESH_SECS;
        slot.take(Err(slow()), &remote, &need("a"), moment(later));
        assert!(
            slot.answer(&need("a"), moment(later)).is_ok()
                && slot.answer(&need("b"), moment(later)).is_err()
        );
        assert!(
            !slot.is_due(&need("a"), moment(later + 9))
                && slot.is_due(&need("a"), moment(later + 10))
        );
        assert!(slot.answer(&need("a"), moment(1009 + KEPT_SECS)).is_ok());
        assert!(slot.answer(&need("a"), moment(1010 + KEPT_SECS)).is_err());
    }

    #[test]
    fn a_trust_that_was_made_later_gets_no_older_keys() {
        let (remote, mut slot) = (remote(), Slot::default());
        let later = |trusted| Need { id: "a".to_owned(), trusted };
        slot.take(Ok(keys("a")), &remote, &need("a"), moment(1000));
        assert!(
            !slot.is_due(&later(moment(1000)), moment(1000))
                && slot.is_due(&later(moment(1001)), moment(1001))
        );
        slot.take(Err(slow()), &remote, &later(moment(1001)), moment(1001));
        assert!(
            slot.answer(&later(moment(1001)), moment(1001)).is_err()
                && slot.answer(&need("a"), moment(1001)).is_ok()
        );
        assert!(
            !slot.is_due(&later(moment(1001)), moment(1010))
                && slot.is_due(&later(moment(1001)), moment(1011))
        );
        // Made under a clock that was ahead: fetched for once, and not each time.
        slot.take(Ok(keys("a")), &remote, &later(moment(9999)), moment(1011));
        assert!(
            !slot.is_due(&later(moment(9999)), moment(1011))
                && slot.answer(&later(moment(9999)), moment(1011)).is_ok()
        );
    }
}

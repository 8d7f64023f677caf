//! The time, passed in, so that tests can set it.

use std::{
    fmt,
    ops::{Add, Sub},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize, Serializer};

/// A time of day: seconds since the Unix epoch, as in token claims and in both databases.
///
/// It is no number, so that it is not taken for a counter or a length of time. The difference of two
/// is so many seconds; what would leave the range stays at its end.
#[derive(
    Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixSeconds(i64);

impl UnixSeconds {
    /// Before every other.
    pub const MIN: Self = Self(i64::MIN);
    /// Behind every other.
    pub const MAX: Self = Self(i64::MAX);

    /// So many seconds after the beginning of 1970.
    pub const fn new(seconds: i64) -> Self {
        Self(seconds)
    }

    /// So long after the beginning of 1970.
    pub fn of(since_epoch: Duration) -> Self {
        Self(i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX))
    }

    /// Seconds since the beginning of 1970.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// How long after the beginning of 1970; nothing for what lies before.
    pub fn since_epoch(self) -> Duration {
        Duration::from_secs(u64::try_from(self.0).unwrap_or(0))
    }
}

/// So many seconds later.
impl Add<i64> for UnixSeconds {
    type Output = Self;

    fn add(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

/// So many seconds earlier.
impl Sub<i64> for UnixSeconds {
    type Output = Self;

    fn sub(self, seconds: i64) -> Self {
        Self(self.0.saturating_sub(seconds))
    }
}

/// So long before, in whole seconds.
impl Sub<Duration> for UnixSeconds {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub_unsigned(duration.as_secs()))
    }
}

/// How many seconds lie between the two.
impl Sub for UnixSeconds {
    type Output = i64;

    fn sub(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Tells the time of day. Clones share one clock.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Set(Arc<AtomicI64>),
    Followed(Arc<Followed>),
}

/// What another clock said, and how long ago that was by one that nobody sets.
struct Followed {
    begun: Instant,
    /// What the other one said when this one began, in milliseconds.
    epoch_millis: AtomicI64,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still at `now` until [`advance`](Self::advance) moves it.
    #[must_use]
    pub fn set(now: UnixSeconds) -> Self {
        Self(Source::Set(Arc::new(AtomicI64::new(now.0))))
    }

    /// Moves a set clock on; the machine's clock is left alone.
    pub fn advance(&self, by: Duration) {
        if let Source::Set(now) = &self.0 {
            let seconds = i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
            now.fetch_add(seconds, Ordering::SeqCst);
        }
    }

    /// One that goes by another, which says that it is `now` after the beginning of 1970. What is set stays so.
    #[must_use]
    pub fn following(self, now: Duration) -> Self {
        match self.0 {
            Source::System => {
                let followed =
                    Followed { begun: Instant::now(), epoch_millis: AtomicI64::new(millis(now)) };
                Self(Source::Followed(Arc::new(followed)))
            }
            Source::Set(_) | Source::Followed(_) => self,
        }
    }

    /// Hears again what the clock says that this one follows. Gives how far that is from the machine's, in seconds.
    pub fn hear(&self, now: Duration) -> i64 {
        if let Source::Followed(followed) = &self.0 {
            let epoch = millis(now).saturating_sub(millis(followed.begun.elapsed()));
            followed.epoch_millis.store(epoch, Ordering::SeqCst);
        }
        UnixSeconds(millis(now) / 1000) - Self::system().now()
    }

    /// The time now.
    #[expect(clippy::disallowed_methods, reason = "the one place where the time is read")]
    pub fn now(&self) -> UnixSeconds {
        UnixSeconds(match &self.0 {
            Source::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)),
            Source::Set(now) => now.load(Ordering::SeqCst),
            Source::Followed(followed) => {
                let epoch = followed.epoch_millis.load(Ordering::SeqCst);
                epoch.saturating_add(millis(followed.begun.elapsed())).div_euclid(1000)
            }
        })
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now().0)
    }
}

/// The last second of the year 9999: RFC 3339 can write none that is later.
pub const LAST_WRITTEN: UnixSeconds = UnixSeconds(253_402_300_799);

/// `seconds` as RFC 3339 in UTC, such as `2026-11-23T10:00:00Z`. What lies before 1970 or behind
/// [`LAST_WRITTEN`] is written as that.
pub fn rfc3339(seconds: UnixSeconds) -> String {
    let elapsed = seconds.min(LAST_WRITTEN).since_epoch();
    humantime::format_rfc3339_seconds(UNIX_EPOCH + elapsed).to_string()
}

/// For `serialize_with`: a time as [`rfc3339`] writes it, if there is one.
///
/// # Errors
/// What the serializer says.
pub fn as_rfc3339<T, S>(at: &T, serializer: S) -> Result<S::Ok, S::Error>
where
    T: Copy + Into<Option<UnixSeconds>>,
    S: Serializer,
{
    (*at).into().map(rfc3339).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_follows_says_what_it_heard_whatever_the_machine_says() {
        let year_2100 = Duration::from_secs(4_102_444_800);
        let clock = Clock::system().following(year_2100);
        let (first, clone) = (clock.now(), clock.clone());
        assert!((0..60).contains(&(first - UnixSeconds::new(4_102_444_800))), "{first:?}");
        let difference = clock.hear(year_2100 + Duration::from_secs(3600));
        assert!(difference > 1_000_000_000, "{difference}");
        assert!((3600..3660).contains(&(clone.now() - UnixSeconds::new(4_102_444_800))));
    }

    #[test]
    fn a_set_clock_follows_nobody() {
        let clock = Clock::set(UnixSeconds::new(7)).following(Duration::from_secs(100));
        clock.hear(Duration::from_secs(100));
        assert_eq!(clock.now(), UnixSeconds::new(7));
    }
}

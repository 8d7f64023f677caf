//! The time, passed in, so that tests can set it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Serialize, Serializer};

/// Seconds since the Unix epoch: the unit of token claims and of both databases.
pub type UnixSeconds = i64;

/// Tells the time of day. Clones share one clock.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Set(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still at `now` until [`advance`](Self::advance) moves it.
    #[must_use]
    pub fn set(now: UnixSeconds) -> Self {
        Self(Source::Set(Arc::new(AtomicI64::new(now))))
    }

    /// Moves a set clock on; the machine's clock is left alone.
    pub fn advance(&self, by: Duration) {
        if let Source::Set(now) = &self.0 {
            let seconds = i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
            now.fetch_add(seconds, Ordering::SeqCst);
        }
    }

    /// The time now.
    #[expect(clippy::disallowed_methods, reason = "the one place where the time is read")]
    pub fn now(&self) -> UnixSeconds {
        match &self.0 {
            Source::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)),
            Source::Set(now) => now.load(Ordering::SeqCst),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

/// The last second of the year 9999: RFC 3339 can write none that is later.
pub const LAST_WRITTEN: UnixSeconds = 253_402_300_799;

/// `seconds` as RFC 3339 in UTC, such as `2026-11-23T10:00:00Z`. What lies before 1970 or behind
/// [`LAST_WRITTEN`] is written as that.
pub fn rfc3339(seconds: UnixSeconds) -> String {
    let elapsed = Duration::from_secs(u64::try_from(seconds.min(LAST_WRITTEN)).unwrap_or(0));
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

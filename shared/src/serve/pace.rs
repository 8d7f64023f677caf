//! How far ahead a client is of the least rate at which it must send or take bytes.
//!
//! Only the time in which the server waits for the client is charged to it. Bytes give time back,
//! at the least rate: whoever moves a byte a minute runs out of time as one who moves none, and
//! whoever keeps to the rate never does.

use std::time::Duration;

use tokio::time::Instant;

/// The least rate, and how far a client may be from it.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeastRate {
    /// The rate.
    pub(super) bytes_per_sec: u64,
    /// How long a client may stand still that is not ahead.
    pub(super) idle: Duration,
    /// How far ahead it can be at most, in bytes.
    pub(super) ahead_bytes: u64,
}

impl LeastRate {
    fn time_for(self, bytes: u64) -> Duration {
        Duration::from_micros(bytes.saturating_mul(1_000_000) / self.bytes_per_sec.max(1))
    }

    /// The longest that a client can stand still.
    pub(super) fn time_max(self) -> Duration {
        self.idle + self.time_for(self.ahead_bytes)
    }
}

/// One client's account of time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    rate: LeastRate,
    left: Duration,
    awaited_since: Option<Instant>,
}

impl Pace {
    pub(super) fn new(rate: LeastRate) -> Self {
        Self { rate, left: rate.idle, awaited_since: None }
    }

    /// The client is waited for from now on, if it was not already.
    pub(super) fn wait(&mut self, now: Instant) {
        self.awaited_since.get_or_insert(now);
    }

    /// The client is not waited for any more.
    pub(super) fn rest(&mut self, now: Instant) {
        self.charge(now);
        self.awaited_since = None;
    }

    /// Bytes came or went. `sharers` is how many transfers the rate is for: those of one connection
    /// have one line between them.
    pub(super) fn moved(&mut self, bytes: usize, sharers: usize, now: Instant) {
        self.charge(now);
        let counted = (bytes as u64).saturating_mul(sharers as u64);
        self.left = (self.left + self.rate.time_for(counted)).min(self.rate.time_max());
    }

    /// When the client has run out of time, unless it moves; `None` while it is not waited for.
    pub(super) fn due(&self) -> Option<Instant> {
        self.awaited_since.map(|since| since + self.left)
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.awaited_since.is_some()
    }

    /// Since when it is waited for, or moved last while it was.
    pub(super) fn awaited_since(&self) -> Option<Instant> {
        self.awaited_since
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.due().is_some_and(|due| now > due)
    }

    fn charge(&mut self, now: Instant) {
        if let Some(since) = &mut self.awaited_since {
            self.left = self.left.saturating_sub(now.duration_since(*since));
            *since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: LeastRate =
        LeastRate { bytes_per_sec: 512, idle: Duration::from_secs(60), ahead_bytes: 0 };

    /// Whether a client lives for an hour that moves so many bytes after each so many seconds.
    fn lives(rate: LeastRate, bytes: usize, secs: u64) -> bool {
        let began = Instant::now();
        let mut pace = Pace::new(rate);
        pace.wait(began);
        (1..=3600 / secs).all(|turn| {
            let now = began + Duration::from_secs(turn * secs);
            let is_late = pace.is_late(now);
            pace.moved(bytes, 1, now);
            !is_late
        })
    }

    #[test]
    fn the_least_rate_is_enough_and_less_is_not() {
        assert!(lives(RATE, 512, 1));
        assert!(!lives(RATE, 500, 1));
        assert!(!lives(RATE, 1, 1));
        assert!(lives(RATE, 512 * 60, 60), "in bursts");
        assert!(!lives(RATE, 512 * 61, 61), "longer than it may stand still");
        let ahead = LeastRate { ahead_bytes: 512 * 100, ..RATE };
        assert!(lives(ahead, 512 * 59, 59), "behind a buffer");
        assert!(!lives(ahead, 1, 59), "a byte buys no minute");
    }

    #[test]
    fn being_ahead_has_a_bound_and_buys_so_much_standing_still() {
        let began = Instant::now();
        let after = |secs| began + Duration::from_secs(secs);
        let mut pace = Pace::new(LeastRate { ahead_bytes: 512 * 100, ..RATE });
        pace.wait(began);
        pace.moved(1 << 40, 1, began);
        assert!(!pace.is_late(after(160)));
        assert!(pace.is_late(after(161)));
    }

    #[test]
    fn time_in_which_nobody_waits_for_the_client_is_free() {
        let began = Instant::now();
        let after = |secs| began + Duration::from_secs(secs);
        let mut pace = Pace::new(RATE);
        pace.wait(began);
        pace.rest(after(50));
        assert!(!pace.is_late(after(1000)));
        pace.wait(after(1000));
        assert!(!pace.is_late(after(1010)));
        assert!(pace.is_late(after(1011)));
    }

    #[test]
    fn transfers_that_share_a_line_share_the_rate() {
        let began = Instant::now();
        let mut pace = Pace::new(LeastRate { ahead_bytes: 512 * 100, ..RATE });
        pace.wait(began);
        pace.moved(512, 10, began);
        assert!(!pace.is_late(began + Duration::from_secs(70)));
        assert!(pace.is_late(began + Duration::from_secs(71)));
    }
}

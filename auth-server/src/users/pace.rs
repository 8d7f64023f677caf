//! When a wrong password is answered: at a time that does not tell which cost the user's hash has,
//! nor whether there is such a user.
//!
//! Hashes of one file may have several costs, and a check takes as long as its cost says. So what was
//! wrong waits, holding nothing, until as much time has gone by as the file's largest cost takes, or
//! a multiple of it. How long that is, is learned from the checks themselves; where none of that cost
//! was made yet, one is made before the first wrong password is answered. Checks of the largest cost
//! take a little longer at times, and wait for a thread; therefore the step is twice what the fastest
//! one took, and all who wait less than that for a thread are answered alike.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// The longest step: clients give up after fifteen seconds, ten of which the throttle may take.
const STEP_MAX: Duration = Duration::from_secs(4);

/// How long checks of each cost take.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The fastest of each cost, which load does not change.
    fastest: Mutex<BTreeMap<u32, Duration>>,
}

impl Pace {
    /// Whether a check of this cost was noted.
    pub(super) fn has_seen(&self, cost: u32) -> bool {
        self.fastest.lock().contains_key(&cost)
    }

    /// Notes what a check took.
    pub(super) fn ran(&self, cost: u32, took: Duration) {
        let mut all = self.fastest.lock();
        let fastest = all.entry(cost).or_insert(took);
        *fastest = took.min(*fastest);
    }

    /// When to answer what was wrong and whose turn came at `begun`, where the largest cost is
    /// `cost_max`: not before `now`, and at a multiple of the step.
    pub(super) fn answer_at(&self, begun: Instant, now: Instant, cost_max: u32) -> Instant {
        let step = self.step(cost_max);
        let gone = now.saturating_duration_since(begun);
        if step.is_zero() {
            return now;
        }
        let steps = gone.as_nanos().div_ceil(step.as_nanos()).max(1);
        begun + step * u32::try_from(steps).unwrap_or(u32::MAX)
    }

    /// Twice what a check of this cost takes: seen, or by the nearest cost that was seen, since each
    /// doubles the time.
    fn step(&self, cost: u32) -> Duration {
        let all = self.fastest.lock();
        let Some((seen, took)) = all.iter().min_by_key(|(seen, _)| seen.abs_diff(cost)) else {
            return Duration::ZERO;
        };
        let times = 1 << seen.abs_diff(cost).min(31);
        let took = if *seen <= cost { took.saturating_mul(times) } else { *took / times };
        took.saturating_mul(2).min(STEP_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn whatever_a_check_cost_the_answer_comes_when_the_largest_cost_would_have() {
        let pace = Pace::default();
        let begun = Instant::now();
        let answer = |took, cost_max| pace.answer_at(begun, begun + took, cost_max) - begun;
        assert_eq!(answer(3 * MS, 12), 3 * MS, "nothing is known yet");
        pace.ran(5, 3 * MS);
        assert_eq!(answer(3 * MS, 12), 3 * 128 * 2 * MS, "each cost doubles the time");
        pace.ran(10, 90 * MS);
        assert_eq!(answer(3 * MS, 12), 90 * 4 * 2 * MS, "the nearest cost says best");
        pace.ran(12, 330 * MS);
        pace.ran(12, 320 * MS);
        pace.ran(12, 5_000 * MS);
        // A cost of 5, of 10, and of 12 with and without other checks before it.
        for took in [3, 90, 320, 330, 640] {
            assert_eq!(answer(took * MS, 12), 640 * MS, "{took} ms");
        }
        assert_eq!(answer(641 * MS, 12), 1_280 * MS, "many stood before it");
        // A file with small costs is answered soon.
        assert_eq!(answer(3 * MS, 5), 6 * MS);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_clients_do() {
        let pace = Pace::default();
        let begun = Instant::now();
        pace.ran(4, 100 * MS);
        pace.ran(99, MS);
        assert_eq!(pace.answer_at(begun, begun, 14) - begun, STEP_MAX);
        assert_eq!(pace.answer_at(begun, begun, u32::MAX) - begun, STEP_MAX);
    }
}

//! How many failed checks the machine spends on strangers: so many per second in all, and on one
//! network a third of that.
//!
//! So whoever guesses from one network uses up that network's share, and strangers from elsewhere
//! find the rest: what a network may owe and have waiting together, in fifteen seconds' worth of its
//! third, is no more than what all may owe at once, so that no wait of theirs comes from it alone.
//! Guesses from several networks are what the bound of all is for.

use std::{collections::HashMap, time::Duration};

use berth_shared::claimant::Network;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

/// Failures that may come at once before they are spread over time, in seconds' worth of them.
const BURST: Duration = Duration::from_secs(5);

/// What one network may use: one part of so many.
const SHARES: u32 = 3;

/// Networks that are remembered before those that owe nothing are forgotten. As many as owe
/// something are remembered, and the budget of all bounds those: a failure is owed for a moment.
const NETWORKS_KEPT: usize = 256;

/// The failures of all, and of each network. What a stranger may turn out to have wrong is booked
/// before it is checked, and given back if it was right.
#[derive(Debug)]
pub(super) struct Budget(Mutex<Accounts>);

/// What is owed: a failure of all is paid off after `interval`, one of a network after [`SHARES`] of
/// them; [`BURST`] of either may be owed.
#[derive(Debug)]
pub(super) struct Accounts {
    interval: Duration,
    /// When all of it is paid off.
    all: Option<Instant>,
    /// When what each network owes is.
    networks: HashMap<Network, Instant>,
}

impl Budget {
    /// A budget of so many failures per second.
    pub(super) fn new(failures_per_sec_max: u32) -> Self {
        let interval = Duration::from_secs(1) / failures_per_sec_max.max(1);
        Self(Mutex::new(Accounts { interval, all: None, networks: HashMap::new() }))
    }

    /// Holds the budget while somebody decides by it: strangers who come together must not all find
    /// it as the first did. Nothing that is done under this lock can panic half-way.
    pub(super) fn hold(&self) -> MutexGuard<'_, Accounts> {
        self.0.lock()
    }
}

impl Accounts {
    /// When the next check of a stranger from `network` may begin.
    pub(super) fn next(&self, network: Network, now: Instant) -> Instant {
        let paid_off = self.all.into_iter().chain(self.networks.get(&network).copied());
        paid_off.filter_map(|at| at.checked_sub(BURST)).fold(now, Instant::max)
    }

    /// Books a failure of `network`.
    pub(super) fn spend(&mut self, network: Network, now: Instant) {
        self.all = Some(self.all.unwrap_or(now).max(now) + self.interval);
        if self.networks.len() >= NETWORKS_KEPT {
            self.networks.retain(|_, paid_off| *paid_off > now);
        }
        let own = self.networks.entry(network).or_insert(now);
        *own = now.max(*own) + self.interval * SHARES;
    }

    /// Takes back what was booked for `network`.
    pub(super) fn give_back(&mut self, network: Network) {
        self.all = self.all.and_then(|paid_off| paid_off.checked_sub(self.interval));
        if let Some(own) = self.networks.get_mut(&network) {
            *own = own.checked_sub(self.interval * SHARES).unwrap_or(*own);
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_shared::claimant::network_of;

    use super::*;

    const LONGEST: Duration = Duration::from_secs(10);

    /// One network of many.
    fn network(n: u32) -> Network {
        Some(network_of((u128::from(n) << 64).to_be_bytes().into()))
    }

    /// Books for `network` until it would wait for longer than anybody does: how many.
    fn exhaust(budget: &Budget, network: Network, now: Instant) -> usize {
        let mut budget = budget.hold();
        let mut booked = 0;
        while budget.next(network, now) - now <= LONGEST {
            budget.spend(network, now);
            booked += 1;
        }
        booked
    }

    #[tokio::test(start_paused = true)]
    async fn one_network_uses_its_share_and_holds_up_no_stranger_from_elsewhere() {
        let budget = Budget::new(10);
        let now = Instant::now();
        let booked = exhaust(&budget, network(1), now);
        assert_eq!(booked, 51, "a third of what all have in fifteen seconds");
        let elsewhere = |now| budget.hold().next(network(2), now) - now;
        assert!(elsewhere(now) <= budget.hold().interval);
        // It goes on as it can: others wait for one check at most.
        for secs in 1..60 {
            let now = now + Duration::from_secs(secs);
            exhaust(&budget, network(1), now);
            assert!(elsewhere(now) <= budget.hold().interval, "after {secs} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_turned_out_right_was_never_owed() {
        let budget = Budget::new(10);
        let now = Instant::now();
        for _ in 0..exhaust(&budget, network(1), now) {
            budget.hold().give_back(network(1));
        }
        assert_eq!(budget.hold().next(network(1), now), now);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_networks_are_remembered_than_owe_something() {
        let budget = Budget::new(10);
        let begun = Instant::now();
        for n in 0..100_000 {
            // Faster than they are paid off, by twice.
            let now = begun + Duration::from_millis(50) * n;
            budget.hold().spend(network(n), now);
        }
        assert!(budget.hold().networks.len() <= NETWORKS_KEPT);
    }
}

//! Comparing many names with a subject's rights, which is work by how many there are of both.
//!
//! It is done in steps, between which others go on, and a client has a turn for it: what one asks
//! for at once is done one after the other, and takes no more of the processor than that.

use std::{sync::Arc, time::Duration};

use berth_shared::{
    name::RepositoryName,
    serve::budget::{Budget, Busy, Reservation},
};
use tokio::{task::yield_now, time::timeout};

use super::Error;
use crate::{metadata::Asker, reach::Reach};

/// How many compare at once. A client has a quarter.
const MATCHES_MAX: usize = 4;

/// How long a request waits for its turn.
const TURN_WAIT_MAX: Duration = Duration::from_secs(10);

/// After how many comparisons others go on: a millisecond.
const STEP: usize = 5_000;

/// Whose turn it is to compare; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Matching(Budget);

impl Default for Matching {
    fn default() -> Self {
        // With one more, since the last of a budget is nobody's.
        Self(Budget::new("MATCHES_MAX", MATCHES_MAX + 1))
    }
}

impl Matching {
    /// Those of `items` whose names are within `reach`.
    pub(super) async fn within<T>(
        &self,
        reach: &Reach,
        items: Vec<T>,
        name: impl Fn(&T) -> &RepositoryName,
    ) -> Result<Vec<T>, Error> {
        let _turn = self.turn().await?;
        let (mut within, mut work) = (Vec::new(), 0);
        for item in items {
            if reach.holds(name(&item), &mut work) {
                within.push(item);
            }
            if work >= STEP {
                work = 0;
                yield_now().await;
            }
        }
        Ok(within)
    }

    async fn turn(&self) -> Result<Option<Reservation>, Error> {
        let Asker::Client(claimant) = Asker::current() else { return Ok(None) };
        let share = self.0.share(Arc::clone(&claimant));
        let turn = timeout(TURN_WAIT_MAX, share.wait_for(1)).await;
        turn.map(Some).map_err(|_| Error::Busy(Busy { limit: "MATCHES_MAX" }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use berth_shared::{
        claimant::Claimant,
        clock::UnixSeconds,
        rights::{Effect, Rights, Rule},
        subject::{Grantee, Subject},
    };
    use tokio::task::JoinSet;

    use super::*;

    fn client(name: &str) -> Asker {
        Asker::Client(Arc::new(Claimant::Subject(Subject::User(name.parse().unwrap()))))
    }

    fn reach(rules: usize) -> Reach {
        let rule = |n| Rule {
            grantee: Grantee::Everyone,
            pattern: format!("**/q{n}/**/z{n}").parse().unwrap(),
            effect: Effect::Allow,
            actions: "pull".parse().unwrap(),
            expires: None,
        };
        Reach::of(&Rights { rules: (0..rules).map(rule).collect() }, UnixSeconds::new(0))
    }

    fn names(count: usize) -> Vec<RepositoryName> {
        (0..count).map(|n| format!("team-{n}/q7/app/z7").parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn others_go_on_while_many_names_are_compared_with_many_rules() {
        let steps = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&steps);
        let other = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                yield_now().await;
            }
        });
        let found = Matching::default().within(&reach(1000), names(100), |name| name).await;
        assert_eq!(found.unwrap().len(), 100);
        // Each of the names is compared with eight rules, and then is within.
        let few = steps.load(Ordering::Relaxed);
        let none = Matching::default().within(&reach(7), names(10_000), |name| name).await;
        assert_eq!(none.unwrap().len(), 0);
        other.abort();
        let many = steps.load(Ordering::Relaxed) - few;
        assert!(few <= 1 && many >= 10_000 * 7 / STEP, "{few} and {many}");
    }

    #[tokio::test]
    async fn a_client_that_asks_for_much_keeps_nobody_else_waiting() {
        let (matching, large) = (Matching::default(), Arc::new(reach(1000)));
        let mut asked = JoinSet::new();
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..50 {
            let (matching, large, done) = (matching.clone(), large.clone(), done.clone());
            asked.spawn(client("mallory").scope(async move {
                let name = |n: usize| format!("a/{n}").parse().unwrap();
                let names: Vec<RepositoryName> = (0..100).map(name).collect();
                matching.within(&large, names, |name| name).await.unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            }));
        }
        yield_now().await;
        for _ in 0..10 {
            let found = matching.within(&large, names(1), |name| name);
            assert_eq!(client("carol").scope(found).await.unwrap().len(), 1);
            yield_now().await;
        }
        // Each of theirs takes twenty steps.
        let done = done.load(Ordering::Relaxed);
        assert!(done < 5, "{done} of the others' requests came first");
    }
}

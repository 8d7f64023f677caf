//! Rules and looks at counters, for tests.

use berth_shared::{
    clock::UnixSeconds,
    rights::{Effect, Rule},
};

use super::Database;

/// A rule that allows.
pub(super) fn allow(
    grantee: &str,
    pattern: &str,
    actions: &str,
    expires: Option<UnixSeconds>,
) -> Rule {
    Rule {
        grantee: grantee.parse().unwrap(),
        pattern: pattern.parse().unwrap(),
        effect: Effect::Allow,
        actions: actions.parse().unwrap(),
        expires,
    }
}

/// The counter that the tokens of `grantee` must reach.
pub(super) async fn counter(database: &Database, grantee: &str) -> u64 {
    let policy = database.policy().await.unwrap();
    policy.revocations.counters.get(&grantee.parse().unwrap()).copied().unwrap_or(0)
}

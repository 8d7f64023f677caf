//! The auth server's metrics: what there is, and what is looked up when somebody asks for them.
//!
//! What happens is counted where it happens; how much there is of everything is read from the
//! policy and the users as they are at a scrape.

use std::sync::Arc;

use ::metrics::{counter, gauge};
use berth_shared::{
    rights::Effect,
    serve::metrics::{self, Series},
    telemetry::chain,
};

use crate::{issue::Withheld, server::AuthServer, users::verify::OUTCOMES};

/// What the server is called in the labels that both servers have.
pub(crate) const SERVER: &str = "auth";

/// Every series of this server alone, or with another meaning than in the registry.
pub(crate) const SERIES: [Series; 25] = [
    Series::counter("berth_tokens_issued_total", "Tokens that were issued."),
    Series::counter("berth_tokens_refused_total", "Requests for a token that got none."),
    Series::counter("berth_tokens_denied_total", "Tokens that say less than was asked for."),
    Series::histogram("berth_token_signing_duration_seconds", "How long a signature takes."),
    Series::counter("berth_password_checks_total", "Passwords that were shown."),
    Series::gauge("berth_password_cache_entries", "Right passwords that are remembered."),
    Series::counter("berth_bcrypt_runs_total", "Runs of bcrypt."),
    Series::gauge("berth_bcrypt_running", "Runs of bcrypt under way."),
    Series::gauge("berth_bcrypt_running_max", "Runs of bcrypt at once."),
    Series::gauge("berth_bcrypt_waiting", "Password checks that wait for their turn."),
    Series::gauge("berth_bcrypt_waiting_max", "Checks that may wait; further ones get 429."),
    Series::counter("berth_sign_ins_delayed_total", "Checks held up by wrong passwords before."),
    Series::histogram("berth_sign_in_delay_seconds", "How long those were held up."),
    Series::gauge("berth_users", "Users that can sign in."),
    Series::gauge("berth_htpasswd_usable", "0 while the file cannot be used, and old users stay."),
    Series::gauge("berth_robots", "Robots whose secret holds."),
    Series::gauge("berth_groups", "Groups."),
    Series::gauge("berth_rules", "Grants and denies."),
    Series::gauge("berth_revocations", "Subjects that something was taken away from."),
    Series::gauge("berth_revocation_sequence", "How often something was taken away."),
    Series::counter("berth_policy_looks_total", "Looks whether the rules have changed."),
    Series::counter("berth_policy_reads_total", "Times that the rules were read again."),
    Series::gauge("berth_signing_keys", "Keys whose tokens are good; one of them signs."),
    Series::counter("berth_audit_lost_total", "Events that the audit could not keep."),
    Series::counter("berth_link_refusals_total", "Requests on the link without the secret."),
];

/// Lets what is counted begin at nought, so that the first of something is an increase.
pub(crate) fn begin() {
    for outcome in OUTCOMES {
        counter!("berth_password_checks_total", "outcome" => outcome).increment(0);
    }
    for withheld in [Withheld::Part, Withheld::Everything] {
        counter!("berth_tokens_denied_total", "withheld" => withheld.word()).increment(0);
    }
    counter!("berth_sign_ins_delayed_total").increment(0);
    counter!("berth_audit_lost_total").increment(0);
    counter!("berth_link_refusals_total").increment(0);
}

/// Sets what is not counted as it happens. A part that cannot be had keeps its last value.
pub(crate) async fn refresh(server: Arc<AuthServer>) {
    for (name, value) in server.sign_in.verifier.load() {
        gauge!(name).set(value as f64);
    }
    counter!("berth_bcrypt_runs_total").absolute(server.bcrypt_runs());
    gauge!("berth_signing_keys").set(server.keys().list().count() as f64);
    gauge!("berth_htpasswd_usable").set(f64::from(u8::from(server.users.is_usable())));
    let (looks, reads) = server.database.looks_and_reads();
    counter!("berth_policy_looks_total").absolute(looks);
    counter!("berth_policy_reads_total").absolute(reads);
    metrics::tell_memory(SERVER, &server.memory);
    if !server.database.is_shared() {
        metrics::tell_database_bytes(SERVER, &server.config().database());
    }
    let current = match server.current().await {
        Ok(current) => current,
        Err(error) => {
            tracing::warn!(error = chain(&error), "counting users and rules");
            return;
        }
    };
    let (policy, now) = (&current.policy, server.clock.now());
    let robots = policy.robots.iter().filter(|robot| robot.holds_at(now)).count();
    gauge!("berth_users").set(current.users.hashes.len() as f64);
    gauge!("berth_robots").set(robots as f64);
    gauge!("berth_groups").set(policy.groups.len() as f64);
    for effect in [Effect::Allow, Effect::Deny] {
        let rules = policy.rule_count(effect);
        gauge!("berth_rules", "effect" => effect.word()).set(rules as f64);
    }
    let revocations = policy.revocations.counters.len();
    gauge!("berth_revocations", "server" => SERVER).set(revocations as f64);
    gauge!("berth_revocation_sequence").set(policy.sequence as f64);
}

//! What a server does by itself, in the background: collection and verification.

use std::time::Duration;

use berth_shared::telemetry::chain;
use metrics::{counter, gauge};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    metadata::postgres::Alone,
    registry::{
        Error, Registry,
        event::{Event, Events},
        gc, verify,
    },
};

/// How often the settings are looked at, at least: they may have changed.
const TICK: Duration = Duration::from_secs(60);

/// How often the database's clock is heard.
const HEARD_EVERY: Duration = Duration::from_secs(10);

/// How far the machine's clock may be from the database's before somebody is told, in seconds.
const DIFFERENCE_MAX: i64 = 30;

/// Keeps the database this process's alone, if it has to be, until `shutdown`. Where another one has it after
/// all, nothing is changed any more.
pub(crate) async fn hold_database(
    alone: Option<Alone>,
    registry: Registry,
    shutdown: CancellationToken,
) {
    let Some(alone) = alone else { return };
    if shutdown.run_until_cancelled(alone.hold()).await.is_some() {
        registry.set_read_only(true);
        tracing::error!(
            "another registry-server has the database, which has its objects elsewhere: this one is \
             read-only until it is restarted; stop one of them"
        );
    }
}

/// Follows the database's clock, where the times are by that, until `shutdown`.
pub(crate) async fn follow_clock(registry: Registry, shutdown: CancellationToken) {
    let follow = async {
        let mut is_told = false;
        while registry.follows_a_clock() {
            sleep(HEARD_EVERY).await;
            match registry.hear_clock().await {
                Ok(Some(difference)) => is_told = note_difference(difference, is_told),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(error = chain(&error), "asking for the database's clock")
                }
            }
        }
    };
    shutdown.run_until_cancelled(follow).await;
}

/// Tells how far the database's clock is before the machine's, in seconds, once when that is much. Whether
/// it is.
fn note_difference(difference: i64, is_told: bool) -> bool {
    gauge!("berth_database_clock_difference_seconds").set(difference as f64);
    let is_far = difference.abs() > DIFFERENCE_MAX;
    if is_far && !is_told {
        tracing::warn!(
            difference_secs = difference,
            "this machine's clock is not that of the database, which counts for what is stored: set it, \
             since tokens and certificates are judged by it"
        );
    }
    is_far
}

/// Collects at the interval of the settings until `shutdown`.
pub(crate) async fn collect(registry: Registry, shutdown: CancellationToken) {
    let mut last = tokio::time::Instant::now();
    loop {
        let interval = registry.settings().collection.interval;
        let left = interval.map_or(TICK, |interval| interval.saturating_sub(last.elapsed()));
        if shutdown.run_until_cancelled(sleep(left.min(TICK))).await.is_none() {
            return;
        }
        if interval.is_none_or(|interval| last.elapsed() < interval) || registry.is_read_only() {
            continue;
        }
        last = tokio::time::Instant::now();
        let work = async |events: Events| registry.collector.collect(&events).await;
        match in_the_background(work, &shutdown).await {
            Some(Ok(summary)) => note_collection(&summary),
            Some(Err(error)) => {
                counter!("berth_collection_failures_total").increment(1);
                tracing::warn!(error = chain(&error), "collecting garbage");
            }
            None => return,
        }
    }
}

/// Hashes what is due by the settings until `shutdown`.
pub(crate) async fn verify(registry: Registry, shutdown: CancellationToken) {
    loop {
        let every = registry.settings().verification.every;
        let wait = every.unwrap_or(TICK).min(TICK);
        if shutdown.run_until_cancelled(sleep(wait)).await.is_none() {
            return;
        }
        if every.is_none() || registry.is_read_only() {
            continue;
        }
        let work = async |events: Events| registry.verifier.verify_due(&events).await;
        match in_the_background(work, &shutdown).await {
            Some(Ok(summary)) if summary.blobs > 0 => note_verification(&summary),
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                counter!("berth_verification_failures_total").increment(1);
                tracing::warn!(error = chain(&error), "verifying what is stored");
            }
            None => return,
        }
    }
}

/// Runs work whose events go to the log. `None` when the server ended first.
async fn in_the_background<T>(
    work: impl AsyncFnOnce(Events) -> Result<T, Error>,
    shutdown: &CancellationToken,
) -> Option<Result<T, Error>> {
    let (events, mut received) = Events::channel();
    let log = async {
        while let Some(event) = received.recv().await {
            note(&event);
        }
    };
    shutdown.run_until_cancelled(async { tokio::join!(work(events), log).0 }).await
}

fn note(event: &Event) {
    match event {
        Event::Gone { kind, repository, name, bytes, why } => {
            tracing::debug!(?kind, repository, name, bytes, why, "collected");
        }
        Event::Problem { message } => tracing::warn!(message, "skipped"),
        Event::Damaged { digest, what, images } => {
            tracing::error!(%digest, what, ?images, "damaged: push it again");
        }
        _ => {}
    }
}

/// The summary line of a collection, and its metrics.
pub(crate) fn note_collection(summary: &gc::Summary) {
    let removed = [
        ("manifest", summary.manifests),
        ("link", summary.links),
        ("blob", summary.blobs),
        ("upload", summary.uploads),
        ("orphan", summary.orphans),
        ("repository", summary.repositories),
    ];
    for (kind, number) in removed {
        counter!("berth_collection_removed_total", "kind" => kind).increment(number);
    }
    counter!("berth_collection_runs_total").increment(1);
    counter!("berth_collection_freed_bytes_total").increment(summary.bytes);
    counter!("berth_collection_problems_total").increment(summary.problems);
    gauge!("berth_collection_last_seconds").set(summary.millis as f64 / 1e3);
    gauge!("berth_collection_longest_step_seconds").set(summary.longest_step_micros as f64 / 1e6);
    tracing::info!(
        manifests = summary.manifests,
        links = summary.links,
        blobs = summary.blobs,
        uploads = summary.uploads,
        orphans = summary.orphans,
        repositories = summary.repositories,
        bytes = summary.bytes,
        problems = summary.problems,
        longest_step_micros = summary.longest_step_micros,
        ms = summary.millis,
        "collected garbage"
    );
}

/// The summary line of a verification, and its metrics.
pub(crate) fn note_verification(summary: &verify::Summary) {
    counter!("berth_verification_blobs_total").increment(summary.blobs);
    counter!("berth_verification_bytes_total").increment(summary.bytes);
    counter!("berth_verification_damaged_total").increment(summary.damaged);
    counter!("berth_verification_repaired_total").increment(summary.repaired);
    tracing::info!(
        blobs = summary.blobs,
        manifests = summary.manifests,
        bytes = summary.bytes,
        damaged = summary.damaged,
        repaired = summary.repaired,
        ms = summary.millis,
        "verified what is stored"
    );
}

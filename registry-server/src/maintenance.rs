//! What a server does by itself, in the background: collection and verification.

use std::time::Duration;

use berth_shared::telemetry::chain;
use metrics::{counter, gauge};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::registry::{
    Error, Registry,
    event::{Event, Events},
    gc,
    lease::{Sign, Standing},
    verify,
};

/// How often the settings are looked at, at least: they may have changed.
const TICK: Duration = Duration::from_secs(60);

/// How often the database's clock is heard.
const HEARD_EVERY: Duration = Duration::from_secs(10);

/// How often it is looked whether nothing may be changed, where the database says so.
pub(crate) const LOOKED_EVERY: Duration = Duration::from_secs(2);

/// And how soon by whom could not see it.
const LOOKED_AGAIN: Duration = Duration::from_millis(200);

/// How long a look may take.
const LOOK_TIME: Duration = Duration::from_secs(3);

/// How often it is asked whether others see this server.
const SEEN_EVERY: Duration = Duration::from_secs(2);

/// How often it is tried again where another seems to have the registry alone.
const REFUSED_MAX: u32 = 5;

/// How far the machine's clock may be from the database's before somebody is told, in seconds.
const DIFFERENCE_MAX: i64 = 30;

/// Keeps the registry from others that would not go well with this process, until `shutdown`. Where one works
/// on it after all, nothing is changed any more. Gives what is to be shown until the last change is through.
pub(crate) async fn hold_registry(
    standing: Standing,
    registry: Registry,
    shutdown: CancellationToken,
) -> Option<Sign> {
    match standing {
        Standing::Alone(None) => {}
        Standing::Alone(Some(alone)) => {
            if shutdown.run_until_cancelled(alone.hold()).await.is_some() {
                give_up(&registry);
            }
        }
        Standing::Shared(mut presence) => {
            let seen = be_seen(&mut presence, &registry);
            if shutdown.run_until_cancelled(seen).await.is_some() {
                give_up(&registry);
            }
            return Some(presence);
        }
    }
    None
}

fn give_up(registry: &Registry) {
    registry.give_up();
    tracing::error!(
        "another registry-server has the database, which has its objects elsewhere or shares it with \
         nobody: this one is read-only until it is restarted; stop one of them"
    );
}

/// Shows that this process is there, also when the database was away. Ends when another has the registry alone.
async fn be_seen(presence: &mut Sign, registry: &Registry) {
    let mut refused = 0;
    while refused < REFUSED_MAX {
        sleep(SEEN_EVERY).await;
        if presence.lasts() {
            continue;
        }
        match registry.show_presence().await {
            Ok(Some(again)) => (*presence, refused) = (again, 0),
            // Who only tries to have it alone gives it back.
            Ok(None) => refused += 1,
            Err(error) => {
                tracing::debug!(error = chain(&error), "the database does not see this server")
            }
        }
    }
}

/// Looks in the database whether nothing may be changed, where several servers are told so there, until
/// `shutdown`. Who has not seen it for ten seconds changes nothing: whoever switched waits no longer.
async fn follow_switch(registry: Registry, shutdown: CancellationToken) {
    let Some(mut eye) = registry.eye() else { return };
    let follow = async {
        loop {
            let looked = timeout(LOOK_TIME, eye.look()).await;
            match &looked {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(error = chain(error), "looking at the switch"),
                Err(_) => tracing::debug!("looking at the switch takes long"),
            }
            sleep(if matches!(looked, Ok(Ok(()))) { LOOKED_EVERY } else { LOOKED_AGAIN }).await;
        }
    };
    shutdown.run_until_cancelled(follow).await;
}

/// Follows what the database says of the time and of the switch, until `shutdown`.
pub(crate) fn follow(registry: &Registry, shutdown: &CancellationToken) {
    tokio::spawn(follow_clock(registry.clone(), shutdown.clone()));
    tokio::spawn(follow_switch(registry.clone(), shutdown.clone()));
}

/// Follows the database's clock, where the times are by that, until `shutdown`.
async fn follow_clock(registry: Registry, shutdown: CancellationToken) {
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
    let (mut last, mut failed) = (Instant::now(), false);
    loop {
        let interval = registry.settings().collection.interval;
        let left = match interval {
            // What is due waits until something may be changed.
            Some(interval) if !registry.is_read_only() => interval.saturating_sub(last.elapsed()),
            _ => TICK,
        };
        if shutdown.run_until_cancelled(sleep(left.min(TICK))).await.is_none() {
            return;
        }
        // Of several servers the database knows when one has. One that failed leaves it to the others for a while.
        let waits = failed || !registry.is_shared();
        let is_due = |interval| !waits || last.elapsed() >= interval;
        let Some(interval) = interval.filter(|it| is_due(*it) && !registry.is_read_only()) else {
            continue;
        };
        last = Instant::now();
        let work = async |events: Events| registry.collector.collect_due(interval, &events).await;
        let ended = in_the_background(work, &shutdown).await;
        failed = matches!(ended, Some(Err(_)));
        match ended {
            Some(Ok(None)) => {}
            Some(Ok(Some(summary))) => note_collection(&summary),
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

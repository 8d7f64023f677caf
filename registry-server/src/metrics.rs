//! The registry's metrics: what there is, and what is looked up when somebody asks for them.
//!
//! What happens often is counted where it happens, in plain numbers that are copied here; what lies
//! in the database is asked for at a scrape, the expensive part of it not at every one.

use std::{sync::Arc, time::Duration};

use ::metrics::{counter, gauge};
use berth_shared::{
    serve::metrics::{self, Series},
    telemetry::chain,
    token::Refusal::{
        self, Audience, Expired, Issuer as IssuedElsewhere, Malformed, NotYet, Revoked, Signature,
        UnknownKey,
    },
};
use tokio::{sync::Mutex, time::Instant};

use crate::{authz::Authorizer, issuer::Issuer, registry::Registry, storage::room::Room};

/// What the server is called in the labels that both servers have.
pub(crate) const SERVER: &str = "registry";

/// How old the numbers of what is stored may be. Adding up a million blobs takes some 0.2 s.
const TOTALS_KEPT: Duration = Duration::from_secs(60);

/// And they are kept for so many times as long as it took to count them, so that counting takes one
/// twentieth of one reader at most, however much is stored.
const TOTALS_KEPT_TIMES: u32 = 20;

/// How long who asks for metrics waits for a count; after that the numbers of the last one are told.
const TOTALS_WAIT: Duration = Duration::from_millis(500);

/// Every series of this server alone.
pub(crate) const SERIES: [Series; 44] = [
    Series::gauge("berth_uploads_open", "Upload sessions, idle ones included, a minute old."),
    Series::gauge("berth_uploads_receiving", "Uploads that receive bytes now."),
    Series::gauge("berth_uploads_receiving_max", "Uploads that may receive bytes at once."),
    Series::gauge("berth_blob_files_open", "Files that blobs are read from for clients."),
    Series::gauge("berth_blob_files_max", "How many of them may be open; further ones wait."),
    Series::gauge("berth_store_blobs", "Blobs that are stored, a minute old."),
    Series::gauge("berth_store_bytes", "Bytes of the blobs that are stored, a minute old."),
    Series::gauge("berth_store_manifests", "Manifests, per repository, a minute old."),
    Series::gauge("berth_store_tags", "Tags, a minute old."),
    Series::gauge("berth_store_repositories", "Repositories, a minute old."),
    Series::gauge("berth_store_damaged_blobs", "Blobs that are known to be damaged."),
    Series::gauge("berth_store_free_bytes", "Bytes that are free on the disk of the store."),
    Series::gauge("berth_store_buffer_bytes", "Bytes of uploads that wait to be parts at a store."),
    Series::gauge("berth_store_buffer_max_bytes", "How many there may be; further uploads wait."),
    Series::counter("berth_store_calls_total", "Calls to a store, by what became of them."),
    Series::gauge("berth_store_free_min_bytes", "Below so many free bytes pushes get 507."),
    Series::gauge("berth_read_only", "1 while pushes are refused for maintenance."),
    Series::counter("berth_metadata_cache_total", "Looks into the cache before the database."),
    Series::gauge("berth_metadata_cache_bytes", "What the cache before the database holds."),
    Series::counter("berth_token_verifications_total", "Signatures that were checked."),
    Series::counter("berth_token_cache_hits_total", "Tokens that had been checked before."),
    Series::gauge("berth_token_cache_tokens", "Checked tokens that are kept."),
    Series::counter("berth_requests_denied_total", "Requests that were not let through."),
    Series::gauge("berth_revocations_age_seconds", "Since auth-server confirmed the revocations."),
    Series::gauge("berth_revocations", "Subjects that something was taken away from."),
    Series::gauge("berth_auth_server_up", "1 while auth-server answers."),
    Series::gauge("berth_verification_keys", "Keys that tokens may be signed with."),
    Series::counter("berth_collection_runs_total", "Collections that came to their end."),
    Series::counter("berth_collection_removed_total", "What collection removed."),
    Series::counter("berth_collection_freed_bytes_total", "Bytes that collection freed."),
    Series::counter("berth_collection_problems_total", "What collection could not work on."),
    Series::counter("berth_collection_failures_total", "Collections that broke off."),
    Series::gauge("berth_collection_last_seconds", "How long the last collection took."),
    Series::gauge("berth_collection_longest_step_seconds", "What a push waited for it at most."),
    Series::gauge("berth_collection_interval_seconds", "How often it runs; 0 for on demand."),
    Series::counter("berth_verification_blobs_total", "Blobs that were hashed again."),
    Series::counter("berth_verification_bytes_total", "Bytes that were hashed again."),
    Series::counter("berth_verification_damaged_total", "Blobs that were found damaged."),
    Series::counter("berth_verification_repaired_total", "Blobs that were found whole again."),
    Series::counter("berth_verification_failures_total", "Verifications that broke off."),
    Series::gauge("berth_database_connections", "Connections to the database's server."),
    Series::gauge("berth_database_connections_max", "How many of them there may be."),
    Series::counter("berth_database_repeats_total", "Writes that met another, tried again."),
    Series::gauge(
        "berth_database_clock_difference_seconds",
        "How far the database's clock is before the machine's.",
    ),
];

/// Looks up what the metrics tell.
#[derive(Clone)]
pub(crate) struct Lookup {
    registry: Registry,
    issuer: Issuer,
    authorizer: Authorizer,
    totals_due: Arc<Mutex<Instant>>,
}

impl Lookup {
    pub(crate) fn new(registry: Registry, issuer: Issuer, authorizer: Authorizer) -> Self {
        begin();
        let totals_due = Arc::new(Mutex::new(Instant::now()));
        Self { registry, issuer, authorizer, totals_due }
    }

    /// Sets what is not counted as it happens. A part that cannot be had keeps its last value.
    pub(crate) async fn refresh(self) {
        self.refresh_cheap();
        if let Ok(Some(free)) = self.registry.backend.store.free_bytes().await {
            gauge!("berth_store_free_bytes").set(free as f64);
        }
        // In a task of its own: who asks for metrics waits a moment for it, and may give up.
        let counted = tokio::spawn(self.refresh_totals());
        let _ = tokio::time::timeout(TOTALS_WAIT, counted).await;
    }

    fn refresh_cheap(&self) {
        let settings = self.registry.settings();
        let (receiving, receiving_max) = self.registry.uploads.receiving();
        let interval = settings.collection.interval.unwrap_or_default();
        gauge!("berth_uploads_receiving").set(receiving as f64);
        gauge!("berth_uploads_receiving_max").set(receiving_max as f64);
        let Registry { memory, files, .. } = &self.registry;
        metrics::tell_memory(SERVER, memory);
        gauge!("berth_blob_files_open").set(files.held() as f64);
        gauge!("berth_blob_files_max").set(files.max() as f64);
        gauge!("berth_store_free_min_bytes").set(settings.limits.free_bytes_min as f64);
        if let Some((held, max)) = self.registry.backend.store.room().map(Room::held) {
            gauge!("berth_store_buffer_bytes").set(held as f64);
            gauge!("berth_store_buffer_max_bytes").set(max as f64);
        }
        gauge!("berth_read_only").set(f64::from(u8::from(self.registry.is_read_only())));
        gauge!("berth_collection_interval_seconds").set(interval.as_secs_f64());
        let database = &self.registry.backend.database;
        if let Some(path) = database.path() {
            metrics::tell_database_bytes(SERVER, path);
        }
        if let Some(connections) = database.connections() {
            for (state, number) in [("used", connections.used), ("idle", connections.idle)] {
                gauge!("berth_database_connections", "state" => state).set(number as f64);
            }
            gauge!("berth_database_connections_max").set(connections.max as f64);
        }
        let cache = database.cache();
        let (hits, misses) = cache.looks();
        counter!("berth_metadata_cache_total", "result" => "hit").absolute(hits);
        counter!("berth_metadata_cache_total", "result" => "miss").absolute(misses);
        gauge!("berth_metadata_cache_bytes").set(cache.bytes() as f64);
        let (hits, tokens) = self.authorizer.kept();
        counter!("berth_token_cache_hits_total").absolute(hits);
        gauge!("berth_token_cache_tokens").set(tokens as f64);
        if let Some(keys) = self.issuer.kept_keys() {
            gauge!("berth_verification_keys").set(keys.len() as f64);
        }
        let Some(client) = self.issuer.auth_client() else { return };
        gauge!("berth_auth_server_up").set(f64::from(u8::from(client.is_up())));
        gauge!("berth_revocations_age_seconds").set(client.revocations().age().as_secs_f64());
        if let Some(revocations) = client.revocations().current() {
            gauge!("berth_revocations", "server" => SERVER).set(revocations.counters.len() as f64);
        }
    }

    async fn refresh_totals(self) {
        let Ok(mut due) = self.totals_due.try_lock() else { return };
        let begun = Instant::now();
        if begun < *due {
            return;
        }
        let counted = self.registry.totals().await.inspect_err(|error| {
            tracing::warn!(error = chain(error), "counting what is stored");
        });
        let Ok(Some(totals)) = counted else { return };
        gauge!("berth_uploads_open").set(totals.uploads as f64);
        gauge!("berth_store_blobs").set(totals.blobs.count as f64);
        gauge!("berth_store_bytes").set(totals.blobs.bytes as f64);
        gauge!("berth_store_damaged_blobs").set(totals.blobs.damaged as f64);
        gauge!("berth_store_manifests").set(totals.manifests as f64);
        gauge!("berth_store_tags").set(totals.tags as f64);
        gauge!("berth_store_repositories").set(totals.repositories as f64);
        *due = begun + TOTALS_KEPT.max(begun.elapsed() * TOTALS_KEPT_TIMES);
    }
}

/// Lets what is counted begin at nought, so that the first of something is an increase.
fn begin() {
    for refusal in
        [Malformed, UnknownKey, Signature, IssuedElsewhere, Audience, NotYet, Expired, Revoked]
    {
        let reason = Refusal::word(refusal);
        counter!("berth_requests_denied_total", "reason" => reason).increment(0);
    }
    for reason in ["no_token", "bad_password", "insufficient_scope", "unavailable"] {
        counter!("berth_requests_denied_total", "reason" => reason).increment(0);
    }
    for name in [
        "berth_collection_runs_total",
        "berth_collection_freed_bytes_total",
        "berth_collection_problems_total",
        "berth_collection_failures_total",
        "berth_verification_blobs_total",
        "berth_verification_bytes_total",
        "berth_verification_damaged_total",
        "berth_verification_repaired_total",
        "berth_verification_failures_total",
    ] {
        counter!(name).increment(0);
    }
}

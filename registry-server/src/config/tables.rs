//! The tables of `registry.toml` that hold bounds and times, with their defaults.

use std::time::Duration;

use berth_shared::{config::ConfigError, serve};
use serde::Deserialize;

use crate::registry::{self, gc, verify};

/// The `[collection]` table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Collection {
    interval_secs: u64,
    grace_secs: u64,
    orphan_secs: u64,
    deleted_objects_kept_secs: Option<u64>,
    untagged_secs: Option<u64>,
}

impl Default for Collection {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self {
            interval_secs: 60 * 60,
            grace_secs: DAY,
            orphan_secs: DAY,
            deleted_objects_kept_secs: None,
            untagged_secs: None,
        }
    }
}

impl Collection {
    /// In a data directory an object goes at once. At a store one stays for a day: others may read it,
    /// and a database of a while ago may name it.
    pub(super) fn settings(&self, at_store: bool) -> Result<gc::Settings, ConfigError> {
        const KEPT_AT_STORE: u64 = 24 * 60 * 60;
        // Elsewhere in the file 0 means never; here it would mean at once.
        if self.untagged_secs == Some(0) {
            return Err(ConfigError::value(
                "collection.untagged_secs",
                "must be at least 1: leave it out to keep manifests without a tag for ever",
            ));
        }
        Ok(gc::Settings {
            interval: unless_never(self.interval_secs),
            grace: Duration::from_secs(self.grace_secs),
            objects_kept: Duration::from_secs(
                self.deleted_objects_kept_secs.unwrap_or(if at_store { KEPT_AT_STORE } else { 0 }),
            ),
            orphans_after: Duration::from_secs(self.orphan_secs),
            untagged_after: self.untagged_secs.map(Duration::from_secs),
        })
    }
}

/// The `[verification]` table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Verification {
    every_secs: Option<u64>,
    bytes_per_sec_max: u64,
}

impl Default for Verification {
    fn default() -> Self {
        Self { every_secs: None, bytes_per_sec_max: 32 * 1024 * 1024 }
    }
}

impl Verification {
    /// A disk's blobs are hashed once a month. A store looks after its own bytes, and reading all of them
    /// may be paid for.
    pub(super) fn settings(&self, at_store: bool) -> Result<verify::Settings, ConfigError> {
        const MONTH: u64 = 30 * 24 * 60 * 60;
        if self.bytes_per_sec_max == 0 {
            let key = "verification.bytes_per_sec_max";
            return Err(ConfigError::value(key, "must be at least 1"));
        }
        Ok(verify::Settings {
            every: unless_never(self.every_secs.unwrap_or(if at_store { 0 } else { MONTH })),
            bytes_per_sec_max: self.bytes_per_sec_max,
        })
    }
}

/// A time of which 0 means never.
fn unless_never(secs: u64) -> Option<Duration> {
    (secs > 0).then(|| Duration::from_secs(secs))
}

/// The memory for what is under way, unless the file says.
const MEMORY_BYTES: usize = 64 * 1024 * 1024;

/// The least of it: a page of a list, and pieces of blobs.
const MEMORY_BYTES_MIN: usize = 4 * 1024 * 1024;

/// The largest manifest goes so often into it.
const MEMORY_PER_MANIFEST: usize = 8;

/// The `[limits]` table, with the unit in each name. Numbers and times are of 32 bits, so that
/// whatever is told can be waited for, and counted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    manifest_bytes_max: usize,
    upload_idle_secs_max: u32,
    body_idle_secs_max: u32,
    write_secs_max: u32,
    free_bytes_min: u64,
    pub(super) uploads_max: u32,
    uploads_per_subject_max: u32,
    sessions_per_subject_max: u32,
    unfinished_bytes_per_subject_max: u64,
    connections_max: u32,
    connections_per_network_max: u32,
    connection_idle_secs_max: u32,
    transfer_bytes_per_sec_min: u64,
    memory_bytes_max: Option<usize>,
    sparse_manifests: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes_max: 4 * 1024 * 1024,
            upload_idle_secs_max: 24 * 60 * 60,
            body_idle_secs_max: 60,
            write_secs_max: 30,
            free_bytes_min: 512 * 1024 * 1024,
            uploads_max: 32,
            uploads_per_subject_max: 8,
            sessions_per_subject_max: 1000,
            unfinished_bytes_per_subject_max: 100 * 1024 * 1024 * 1024,
            connections_max: 1024,
            connections_per_network_max: 512,
            connection_idle_secs_max: 75,
            transfer_bytes_per_sec_min: 512,
            memory_bytes_max: None,
            sparse_manifests: false,
        }
    }
}

impl Limits {
    pub(super) fn check(&self) -> Result<registry::Limits, ConfigError> {
        let write_secs = positive("limits.write_secs_max", self.write_secs_max)?;
        Ok(registry::Limits {
            manifest_bytes_max: positive("limits.manifest_bytes_max", self.manifest_bytes_max)?,
            upload_idle: Duration::from_secs(self.upload_idle_secs_max.into()),
            write_time: Duration::from_secs(write_secs.into()),
            free_bytes_min: self.free_bytes_min,
            uploads_max: positive("limits.uploads_max", self.uploads_max)? as usize,
            uploads_per_subject_max: positive(
                "limits.uploads_per_subject_max",
                self.uploads_per_subject_max,
            )? as usize,
            sessions_per_subject_max: positive(
                "limits.sessions_per_subject_max",
                self.sessions_per_subject_max,
            )?,
            unfinished_bytes_per_subject_max: positive(
                "limits.unfinished_bytes_per_subject_max",
                self.unfinished_bytes_per_subject_max,
            )?,
            memory_bytes_max: self.memory()?,
            sparse_manifests: self.sparse_manifests,
        })
    }

    /// What the public listener lets clients hold; proxies are named elsewhere.
    pub(super) fn of_connections(&self) -> Result<serve::Limits, ConfigError> {
        let per_network = self.connections_per_network_max;
        let idle = positive("limits.connection_idle_secs_max", self.connection_idle_secs_max)?;
        // A rate needs some time to be one.
        let body_idle = positive("limits.body_idle_secs_max", self.body_idle_secs_max)?;
        let rate = self.transfer_bytes_per_sec_min;
        Ok(serve::Limits {
            connections_max: positive("limits.connections_max", self.connections_max)? as usize,
            connections_per_network_max: positive(
                "limits.connections_per_network_max",
                per_network,
            )? as usize,
            idle_timeout: Duration::from_secs(idle.into()),
            transfer_bytes_per_sec_min: positive("limits.transfer_bytes_per_sec_min", rate)?,
            body_idle: Duration::from_secs(body_idle.into()),
            ..serve::Limits::default()
        })
    }

    /// Room for everything that is under way. A client has a quarter, and that must have room for a
    /// manifest.
    fn memory(&self) -> Result<usize, ConfigError> {
        let least = self.manifest_bytes_max.saturating_mul(MEMORY_PER_MANIFEST);
        match self.memory_bytes_max {
            None => Ok(least.max(MEMORY_BYTES)),
            Some(bytes) if bytes >= least.max(MEMORY_BYTES_MIN) => Ok(bytes),
            Some(_) => {
                let reason = format!(
                    "must be at least {MEMORY_BYTES_MIN}, and {MEMORY_PER_MANIFEST} times \
                     limits.manifest_bytes_max: a client has a quarter of it, and a manifest that \
                     is pushed takes twice its size"
                );
                Err(ConfigError::value("limits.memory_bytes_max", reason))
            }
        }
    }
}

/// A bound that nothing could keep if it were 0.
fn positive<N: Default + PartialEq>(key: &'static str, value: N) -> Result<N, ConfigError> {
    if value == N::default() {
        Err(ConfigError::value(key, "must be at least 1"))
    } else {
        Ok(value)
    }
}

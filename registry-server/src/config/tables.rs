//! The tables of `registry.toml` that hold bounds and times, with their defaults.

use std::time::Duration;

use berth_shared::config::ConfigError;
use serde::Deserialize;

use crate::registry::{self, collect, verify};

/// The `[collection]` table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Collection {
    interval_secs: u64,
    grace_secs: u64,
    orphan_secs: u64,
    untagged_secs: Option<u64>,
}

impl Default for Collection {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self { interval_secs: 60 * 60, grace_secs: DAY, orphan_secs: DAY, untagged_secs: None }
    }
}

impl Collection {
    pub(super) fn settings(&self) -> Result<collect::Settings, ConfigError> {
        // Elsewhere in the file 0 means never; here it would mean at once.
        if self.untagged_secs == Some(0) {
            return Err(ConfigError::value(
                "collection.untagged_secs",
                "must be at least 1: leave it out to keep manifests without a tag for ever",
            ));
        }
        Ok(collect::Settings {
            interval: positive(self.interval_secs),
            grace: Duration::from_secs(self.grace_secs),
            orphans_after: Duration::from_secs(self.orphan_secs),
            untagged_after: self.untagged_secs.map(Duration::from_secs),
        })
    }
}

/// The `[verification]` table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Verification {
    every_secs: u64,
    bytes_per_sec_max: u64,
}

impl Default for Verification {
    fn default() -> Self {
        Self { every_secs: 30 * 24 * 60 * 60, bytes_per_sec_max: 32 * 1024 * 1024 }
    }
}

impl Verification {
    pub(super) fn settings(&self) -> Result<verify::Settings, ConfigError> {
        if self.bytes_per_sec_max == 0 {
            let key = "verification.bytes_per_sec_max";
            return Err(ConfigError::value(key, "must be at least 1"));
        }
        Ok(verify::Settings {
            every: positive(self.every_secs),
            bytes_per_sec_max: self.bytes_per_sec_max,
        })
    }
}

/// A time of which 0 means never.
fn positive(secs: u64) -> Option<Duration> {
    (secs > 0).then(|| Duration::from_secs(secs))
}

/// The `[limits]` table, with the unit in each name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    manifest_bytes_max: usize,
    upload_idle_secs_max: u64,
    body_idle_secs_max: u64,
    free_bytes_min: u64,
    pub(super) uploads_max: usize,
    uploads_per_subject_max: usize,
    sessions_per_subject_max: u32,
    unfinished_bytes_per_subject_max: u64,
    pub(super) connections_max: usize,
    sparse_manifests: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes_max: 4 * 1024 * 1024,
            upload_idle_secs_max: 24 * 60 * 60,
            body_idle_secs_max: 60,
            free_bytes_min: 512 * 1024 * 1024,
            uploads_max: 32,
            uploads_per_subject_max: 8,
            sessions_per_subject_max: 1000,
            unfinished_bytes_per_subject_max: 100 * 1024 * 1024 * 1024,
            connections_max: 1024,
            sparse_manifests: false,
        }
    }
}

impl Limits {
    pub(super) fn check(&self) -> Result<registry::Limits, ConfigError> {
        positive_number("limits.connections_max", self.connections_max)?;
        Ok(registry::Limits {
            manifest_bytes_max: positive_number(
                "limits.manifest_bytes_max",
                self.manifest_bytes_max,
            )?,
            upload_idle: Duration::from_secs(self.upload_idle_secs_max),
            body_idle: Duration::from_secs(self.body_idle_secs_max),
            free_bytes_min: self.free_bytes_min,
            uploads_max: positive_number("limits.uploads_max", self.uploads_max)?,
            uploads_per_subject_max: positive_number(
                "limits.uploads_per_subject_max",
                self.uploads_per_subject_max,
            )?,
            sessions_per_subject_max: positive_number(
                "limits.sessions_per_subject_max",
                self.sessions_per_subject_max,
            )?,
            unfinished_bytes_per_subject_max: positive_number(
                "limits.unfinished_bytes_per_subject_max",
                self.unfinished_bytes_per_subject_max,
            )?,
            sparse_manifests: self.sparse_manifests,
        })
    }
}

/// A bound that nothing could keep if it were 0.
fn positive_number<T: PartialEq + From<u8>>(key: &'static str, value: T) -> Result<T, ConfigError> {
    if value == T::from(0) {
        return Err(ConfigError::value(key, "must be at least 1"));
    }
    Ok(value)
}

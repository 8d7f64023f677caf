//! The table `[limits]` of `auth.toml`.

use std::time::Duration;

use berth_shared::{config::ConfigError, serve};
use serde::Deserialize;

/// The longest delay of a sign-in: dockerd waits 15 seconds for an answer.
const SIGN_IN_DELAY_SECS: std::ops::RangeInclusive<u64> = 1..=10;

/// The least memory for the bodies of requests: a quarter has room for a body.
const MEMORY_BYTES_MIN: usize = 1024 * 1024;

/// Bounds on what clients may make the server do.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Password checks that may wait for their turn; further ones get 429.
    pub password_queue_max: usize,
    /// Wrong passwords that are checked per second, over all clients that never signed in from
    /// where they are.
    pub password_failures_per_sec_max: u32,
    /// The longest that a sign-in is held up after many wrong passwords, in seconds.
    pub sign_in_delay_secs_max: u64,
    /// Successful checks that are remembered.
    pub password_cache_max: u64,
    /// How long a successful check is remembered, in seconds; 0 turns that off.
    pub password_cache_secs: u64,
    /// Connections at once on the listener of `public`.
    pub connections_max: usize,
    /// Those of one network.
    pub connections_per_network_max: usize,
    /// How long a connection may be idle between requests, in seconds.
    pub connection_idle_secs_max: u64,
    /// The least rate of bodies and answers.
    pub transfer_bytes_per_sec_min: u64,
    /// How long they may stand still besides, in seconds.
    pub body_idle_secs_max: u64,
    /// How much of the bodies of requests may be in memory at once, in bytes.
    pub memory_bytes_max: usize,
}

impl Limits {
    /// What the listener of `public` lets clients hold.
    pub fn of_connections(&self) -> serve::Limits {
        serve::Limits {
            connections_max: self.connections_max,
            connections_per_network_max: self.connections_per_network_max,
            idle_timeout: Duration::from_secs(self.connection_idle_secs_max),
            transfer_bytes_per_sec_min: self.transfer_bytes_per_sec_min,
            body_idle: Duration::from_secs(self.body_idle_secs_max),
            ..serve::Limits::default()
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let counted = [
            ("limits.password_queue_max", self.password_queue_max as u64, 1),
            ("limits.password_failures_per_sec_max", self.password_failures_per_sec_max.into(), 1),
            ("limits.connections_max", self.connections_max as u64, 1),
            ("limits.connections_per_network_max", self.connections_per_network_max as u64, 1),
            ("limits.connection_idle_secs_max", self.connection_idle_secs_max, 1),
            ("limits.transfer_bytes_per_sec_min", self.transfer_bytes_per_sec_min, 1),
            ("limits.body_idle_secs_max", self.body_idle_secs_max, 1),
            ("limits.password_cache_max", self.password_cache_max, 0),
            ("limits.password_cache_secs", self.password_cache_secs, 0),
        ];
        if let Some((key, ..)) = counted.iter().find(|(_, value, least)| value < least) {
            return Err(ConfigError::value(key, "must be at least 1"));
        }
        // What is longer or more could not be waited for, or counted.
        if let Some((key, ..)) = counted.iter().find(|(_, value, _)| *value > u32::MAX.into()) {
            return Err(ConfigError::value(key, "must be at most 4294967295"));
        }
        if !SIGN_IN_DELAY_SECS.contains(&self.sign_in_delay_secs_max) {
            let reason = "is within 1 to 10: clients give up after 15 seconds";
            return Err(ConfigError::value("limits.sign_in_delay_secs_max", reason));
        }
        if self.memory_bytes_max < MEMORY_BYTES_MIN {
            let reason = format!("must be at least {MEMORY_BYTES_MIN}: a client has a quarter");
            return Err(ConfigError::value("limits.memory_bytes_max", reason));
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        let connections = serve::Limits::default();
        Self {
            password_queue_max: 256,
            password_failures_per_sec_max: 10,
            sign_in_delay_secs_max: 10,
            password_cache_max: 10_000,
            password_cache_secs: 600,
            connections_max: connections.connections_max,
            connections_per_network_max: connections.connections_per_network_max,
            connection_idle_secs_max: connections.idle_timeout.as_secs(),
            transfer_bytes_per_sec_min: connections.transfer_bytes_per_sec_min,
            body_idle_secs_max: connections.body_idle.as_secs(),
            memory_bytes_max: 64 * 1024 * 1024,
        }
    }
}

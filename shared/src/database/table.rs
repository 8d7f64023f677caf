//! The `[database]` table of a server's configuration, which leads to PostgreSQL.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::Settings;
use crate::config::{ConfigError, beside};

/// The `[database]` table, as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [database]")]
pub struct Table {
    url: String,
    migrate_url: Option<String>,
    password_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    connections_max: Option<u32>,
    statement_secs_max: Option<u32>,
}

/// Whether it leads to PostgreSQL, and has no secret in it.
fn check_url(setting: &'static str, url: &str) -> Result<(), ConfigError> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(ConfigError::value(
            setting,
            "must be a URL, such as postgres://berth@db/berth",
        ));
    };
    if !matches!(scheme, "postgres" | "postgresql") {
        return Err(ConfigError::value(setting, "must begin with postgres://"));
    }
    // A password may hold what ends it elsewhere.
    let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
    if user.contains(':') || rest.contains("password=") {
        let reason = "must have no password in it: put it into a file, and name that in \
                      database.password_file";
        return Err(ConfigError::value(setting, reason));
    }
    Ok(())
}

impl Table {
    /// What it says in the configuration file `path`, of a server whose commits are `durable` or not.
    ///
    /// # Errors
    /// When a value makes no sense.
    pub fn check(self, path: &Path, durable: bool) -> Result<Settings, ConfigError> {
        check_url("database.url", &self.url)?;
        if let Some(url) = &self.migrate_url {
            check_url("database.migrate_url", url)?;
        }
        let connections_max = self.connections_max.unwrap_or(16);
        if connections_max < 8 {
            return Err(ConfigError::value("database.connections_max", "must be at least 8"));
        }
        let statement_secs_max = self.statement_secs_max.unwrap_or(10);
        if statement_secs_max == 0 {
            return Err(ConfigError::value("database.statement_secs_max", "must be at least 1"));
        }
        Ok(Settings {
            url: self.url,
            migrate_url: self.migrate_url,
            password_file: self.password_file.map(|file| beside(path, &file)),
            ca: self.ca.map(|file| beside(path, &file)),
            connections_max,
            statement_time_max: Duration::from_secs(statement_secs_max.into()),
            durable,
        })
    }
}

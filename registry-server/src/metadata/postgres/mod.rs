//! What is PostgreSQL's own here: what this program is to a server of it, and what that is asked. Writing
//! there is `postgres_writer`.

mod alone;
#[cfg(test)]
pub(crate) mod tests;

use std::{path::PathBuf, sync::LazyLock};

use berth_shared::database::{self, Migrations, Program, Schema};
use sqlx::{PgConnection, PgPool, migrate::Migrator};

use super::Error;
pub(super) use alone::IS_ALONE;
pub(crate) use alone::{Alone, Taken};

/// How many transactions of registry-servers have been open for so many seconds.
pub(super) const OPEN_TRANSACTIONS: &str = "SELECT COUNT(*) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'berth registry-server'
     AND pid <> pg_backend_pid() AND state <> 'idle'
     AND xact_start < clock_timestamp() - CAST($1 AS BIGINT) * INTERVAL '1 second'";

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations = sqlx::migrate!("./migrations/postgres");
    // Those of a newer program: `compatible_from` says whether they matter.
    migrations.set_ignore_missing(true);
    migrations
});

static PROGRAM: Program = Program {
    name: "berth registry-server",
    migrations: Migrations { known: &MIGRATIONS, compatible_since: 7 },
    lost: "pushes that were acknowledged",
};

/// Where the database is, and what this program needs beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The server.
    pub server: database::Settings,
    /// The directory in which copies of the rows may lie for a while.
    pub copies: PathBuf,
}

impl Settings {
    /// Host and database, as they may be told.
    #[must_use]
    pub fn place(&self) -> &str {
        self.server.place()
    }
}

/// The connections to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connections {
    /// Those that somebody has.
    pub(crate) used: u64,
    /// Those that wait for somebody.
    pub(crate) idle: u64,
    /// How many there may be.
    pub(crate) max: u64,
}

/// Connects, refuses a server that registries cannot be kept in, and brings the tables to what this
/// program needs.
pub(super) async fn open(settings: &Settings) -> Result<PgPool, Error> {
    Ok(PROGRAM.open(&settings.server).await?)
}

/// The same for who reads beside a server, which has prepared the tables.
pub(super) async fn open_beside(settings: &Settings) -> Result<PgPool, Error> {
    Ok(PROGRAM.open_beside(&settings.server).await?)
}

/// How the tables at the server stand to this program.
///
/// # Errors
/// When the server does not answer, registries cannot be kept in it, or this program is too old for the
/// tables.
pub async fn look_at_schema(settings: &Settings) -> Result<Schema, Error> {
    Ok(PROGRAM.look_at_schema(&settings.server).await?)
}

/// Brings the tables at the server to what this program needs, by the way that is for that. Gives how
/// they stood before.
///
/// # Errors
/// As [`look_at_schema`], and when the tables cannot be changed.
pub async fn migrate(settings: &Settings) -> Result<Schema, Error> {
    Ok(PROGRAM.migrate(&settings.server).await?)
}

/// A connection of its own, for what takes long: none of those that requests share.
pub(super) async fn connect_alone(settings: &Settings) -> Result<PgConnection, Error> {
    Ok(PROGRAM.connect_alone(&settings.server).await?)
}

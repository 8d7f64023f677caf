//! The tables on PostgreSQL: how they are brought to what a program needs, and which programs may work
//! on them.
//!
//! A migration is *additive*, and then programs that do not know it work on beside those that do; or it is
//! *final*: it ships when no program needs any more what it takes away, and sets `state.compatible_from` to
//! its own number. So old and new replicas run side by side, and one step back is possible.

use std::{collections::HashSet, sync::LazyLock};

use sqlx::{
    PgConnection,
    migrate::{Migrate, MigrateError, Migrator},
};

use super::{Error, Missing, Schema, state::state_of};

/// Where it stands what the tables have seen.
const TABLE: &str = "_sqlx_migrations";

/// An ALTER waits for a while behind what runs, since everything else waits behind it, and then takes as
/// long as it must.
const SETTINGS: [&str; 2] = ["SET lock_timeout = '2s'", "SET statement_timeout = 0"];

/// How often a migration is tried that has waited so long.
const TRIES: u32 = 10;

/// What makes a program's tables.
#[derive(Debug)]
pub struct Migrations {
    /// Those that it knows. Those of a newer program have to be ignored: `compatible_from` says whether
    /// they matter.
    pub known: &'static LazyLock<Migrator>,
    /// Since which of them the tables say which programs may work on them.
    pub compatible_since: i64,
}

impl Migrations {
    /// How the tables stand to this program.
    pub(super) async fn look(&self, connection: &mut PgConnection) -> Result<Schema, Error> {
        let is_there = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
        let applied: HashSet<i64> =
            match sqlx::query_scalar(is_there).fetch_one(&mut *connection).await? {
                true => {
                    let applied = connection.list_applied_migrations(TABLE).await;
                    applied.map_err(Error::Migrate)?.iter().map(|it| it.version).collect()
                }
                false => HashSet::new(),
            };
        let version = applied.iter().max().copied().unwrap_or(0);
        let compatible_from = match version < self.compatible_since {
            true => 0,
            false => {
                let statement = "SELECT compatible_from FROM state";
                sqlx::query_scalar(statement).fetch_one(connection).await?
            }
        };
        let missing = self.known.iter().filter(|it| !applied.contains(&it.version));
        let missing =
            missing.map(|it| Missing { version: it.version, name: it.description.to_string() });
        let known = self.known.iter().map(|it| it.version).max().unwrap_or(0);
        Ok(Schema { version, known, compatible_from, missing: missing.collect() })
    }

    /// Does what is missing: one server at a time, whoever else starts. Nothing is copied first.
    pub(super) async fn run(&self, connection: &mut PgConnection) -> Result<(), Error> {
        for setting in SETTINGS {
            sqlx::query(setting).execute(&mut *connection).await?;
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match self.known.run_direct(None, &mut *connection, false).await {
                Ok(()) => return Ok(()),
                Err(error) if tries < TRIES && waited_too_long(&error) => {
                    tracing::info!("the tables are in use: they are migrated in a moment");
                }
                Err(error) => return Err(Error::Migrate(error)),
            }
        }
    }
}

fn waited_too_long(error: &MigrateError) -> bool {
    match error {
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
            state_of(source).is_some_and(|state| state == "55P03")
        }
        _ => false,
    }
}

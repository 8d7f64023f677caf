//! The signing keys in the database that servers share: a row for each, sealed.
//!
//! Whatever changes them is one act, and acts follow each other: of two servers that start at once the
//! second finds the first's keys, and of two rotations at once the second comes too early.

mod change;
mod live;
mod loading;
#[cfg(test)]
mod tests;

use berth_shared::{clock::Clock, database::Connection};

use super::{How, KeyError, Rotated, Sealer, Settings, SigningKeys};
use crate::database::{self, Database, signing_keys};

pub use live::LiveRows;
pub use loading::of_rows;

/// The keys of `database`, after all that is due was done: what is missing is made, and retired keys
/// whose time is over are deleted.
///
/// # Errors
/// When the database cannot be written to, or a key in it is not fit to sign.
pub async fn open_in(
    database: &Database,
    sealer: &Sealer,
    settings: &Settings,
    clock: &Clock,
) -> Result<SigningKeys, KeyError> {
    let now = clock.now();
    let opened = database.change_signing_keys(|rows| change::opened(rows, sealer, settings, now));
    opened.await?
}

/// Does what time has made due: retired keys go, and a changed algorithm takes effect. What seals is read
/// only then.
///
/// # Errors
/// When the database cannot be read or written to; the next call tries again.
pub async fn tend_in(
    database: &Database,
    settings: &Settings,
    clock: &Clock,
) -> Result<(), KeyError> {
    let states = loading::states(&database.signing_keys().await?)?;
    if states.is_due(settings.algorithm, clock.now()) {
        open_in(database, &settings.sealer()?, settings, clock).await?;
    }
    Ok(())
}

/// The keys of `database`; nothing is changed.
///
/// # Errors
/// When there are none, or one is not fit to sign.
pub async fn read_in(
    database: &Database,
    sealer: &Sealer,
    settings: &Settings,
) -> Result<SigningKeys, KeyError> {
    of_rows(&database.signing_keys().await?, sealer, settings)
}

/// The same in a transaction that has begun.
///
/// # Errors
/// As [`read_in`].
pub async fn keys_within(
    connection: &mut Connection<'_>,
    sealer: &Sealer,
    settings: &Settings,
) -> Result<SigningKeys, KeyError> {
    let rows = signing_keys::read(connection).await.map_err(database::Error::from)?;
    of_rows(&rows, sealer, settings)
}

/// Rotates the keys of `database`; with `is_dry` it only says what it would do. Keys that leaked are dropped
/// in one act with every token, also where they cannot be opened any more. The audit is told in the same act.
///
/// # Errors
/// [`KeyError::TooYoung`] when it is too early for [`How::InOrder`]; else when the keys cannot be read
/// or written.
pub async fn rotate_in(
    database: &Database,
    sealer: &Sealer,
    settings: &Settings,
    how: How,
    is_dry: bool,
    clock: &Clock,
) -> Result<Rotated, KeyError> {
    let now = clock.now();
    if is_dry {
        return change::planned(&database.signing_keys().await?, sealer, settings, how, now);
    }
    if how != How::Compromised {
        // What is missing or due comes first, so that there is a next key to rotate to.
        open_in(database, sealer, settings, clock).await?;
    }
    let rotated =
        database.change_signing_keys(|rows| change::rotated(rows, sealer, settings, how, now));
    rotated.await?
}

/// Seals all keys of `database` anew with the first line, so that the second is needed no more. How many
/// there are.
///
/// # Errors
/// When one cannot be opened, or the database cannot be written to; nothing is changed then.
pub async fn reseal(database: &Database, sealer: &Sealer) -> Result<usize, KeyError> {
    database.change_signing_keys(|rows| change::resealed(rows, sealer)).await?
}

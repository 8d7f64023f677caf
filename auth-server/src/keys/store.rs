//! The signing keys where the settings say that they are kept, for who administers them.

use berth_shared::clock::Clock;

use super::{
    How, KeyError, Rotated, Sealer, SigningKeys, rotate,
    rows::{open_in, read_in, reseal, rotate_in},
    settings::Settings,
};
use crate::database::Database;

/// The keys, in files or in the database.
pub struct KeyStore<'d> {
    settings: Settings,
    clock: Clock,
    /// The database that they lie in, and what seals them there.
    rows: Option<(&'d Database, Sealer)>,
}

impl<'d> KeyStore<'d> {
    /// The files in the directory of `settings`.
    pub fn directory(settings: Settings, clock: Clock) -> Self {
        Self { settings, clock, rows: None }
    }

    /// The rows of `database`, sealed as `settings` say.
    ///
    /// # Errors
    /// When what seals them cannot be read.
    pub fn database(
        settings: Settings,
        clock: Clock,
        database: &'d Database,
    ) -> Result<Self, KeyError> {
        let rows = Some((database, settings.sealer()?));
        Ok(Self { settings, clock, rows })
    }

    /// The keys, after all that is due was done.
    ///
    /// # Errors
    /// When they cannot be read or written, or one is not fit to sign.
    pub async fn open(&self) -> Result<SigningKeys, KeyError> {
        match &self.rows {
            None => SigningKeys::open(&self.settings, &self.clock),
            Some((database, sealer)) => {
                open_in(database, sealer, &self.settings, &self.clock).await
            }
        }
    }

    /// The keys; nothing is changed.
    ///
    /// # Errors
    /// When there are none, or one is not fit to sign.
    pub async fn read(&self) -> Result<SigningKeys, KeyError> {
        match &self.rows {
            None => SigningKeys::read(&self.settings, &self.clock),
            Some((database, sealer)) => read_in(database, sealer, &self.settings).await,
        }
    }

    /// Rotates the keys; with `is_dry` it only says what it would do.
    ///
    /// # Errors
    /// When it is too early, or the keys cannot be read or written.
    pub async fn rotate(&self, how: How, is_dry: bool) -> Result<Rotated, KeyError> {
        let (settings, clock) = (&self.settings, &self.clock);
        match &self.rows {
            None => rotate(settings, how, is_dry, clock),
            Some((database, sealer)) => {
                rotate_in(database, sealer, settings, how, is_dry, clock).await
            }
        }
    }

    /// Whether a rotation is written down in the act that does it. Of files the audit has to be told.
    pub fn records_acts(&self) -> bool {
        self.rows.is_some()
    }

    /// Seals all keys anew; how many there are, and whether two keys still open them.
    ///
    /// # Errors
    /// When they are files, or cannot be opened or written.
    pub async fn reseal(&self) -> Result<Resealed, KeyError> {
        let Some((database, sealer)) = &self.rows else {
            return Err(KeyError::NotSealed(self.settings.directory.clone()));
        };
        let keys = reseal(database, sealer).await?;
        Ok(Resealed { keys, may_drop_second: sealer.are_two() })
    }
}

/// What sealing anew came to.
pub struct Resealed {
    /// How many keys were sealed.
    pub keys: usize,
    /// Whether the file has a second line, which is not needed any more.
    pub may_drop_second: bool,
}

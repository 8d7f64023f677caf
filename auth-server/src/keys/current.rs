//! The keys that the running server signs with, wherever they are kept.

use std::sync::Arc;

use arc_swap::ArcSwap;
use berth_shared::clock::Clock;

use super::{
    KeyError, LiveKeys, SigningKeys,
    rows::{LiveRows, open_in, tend_in},
    settings::Settings,
};
use crate::database::{Database, signing_keys::SealedKey};

/// The keys, in files or in the database.
pub enum CurrentKeys {
    /// In files.
    Directory(Arc<LiveKeys>),
    /// In the database: those of the last look at it.
    Rows(Rows),
}

/// Those of the database.
pub struct Rows {
    settings: Settings,
    clock: Clock,
    live: LiveRows,
    last: ArcSwap<SigningKeys>,
}

impl CurrentKeys {
    /// Opens those of `settings`, after all that is due was done.
    ///
    /// # Errors
    /// When they cannot be read or written, or one is not fit to sign.
    pub async fn open(
        settings: Settings,
        database: &Database,
        clock: &Clock,
    ) -> Result<Self, KeyError> {
        if !database.is_shared() {
            return LiveKeys::open(&settings, clock).map(|keys| Self::Directory(Arc::new(keys)));
        }
        let keys = open_in(database, &settings.sealer()?, &settings, clock).await?;
        let (last, live) = (ArcSwap::from_pointee(keys), LiveRows::new(settings.clone()));
        // Opened while what seals them is surely there.
        live.of(&database.signing_keys().await?)?;
        Ok(Self::Rows(Rows { settings, clock: clock.clone(), live, last }))
    }

    /// The keys as they are now, or as these rows of the last look say.
    ///
    /// # Errors
    /// When a row cannot be opened.
    pub fn of(&self, rows: &[SealedKey]) -> Result<Arc<SigningKeys>, KeyError> {
        match self {
            Self::Directory(live) => Ok(live.fresh()),
            Self::Rows(Rows { live, last, .. }) => {
                let keys = live.of(rows)?;
                last.store(Arc::clone(&keys));
                Ok(keys)
            }
        }
    }

    /// Those that were used last; nobody is asked.
    pub fn last(&self) -> Arc<SigningKeys> {
        match self {
            Self::Directory(live) => live.fresh(),
            Self::Rows(rows) => rows.last.load_full(),
        }
    }

    /// Does what time has made due.
    ///
    /// # Errors
    /// When the keys cannot be read or written; the next call tries again.
    pub async fn tend(&self, database: &Database) -> Result<(), KeyError> {
        match self {
            Self::Directory(live) => {
                let live = Arc::clone(live);
                // A task that breaks off has said so.
                tokio::task::spawn_blocking(move || live.tend()).await.unwrap_or(Ok(()))
            }
            Self::Rows(Rows { settings, clock, .. }) => tend_in(database, settings, clock).await,
        }
    }
}

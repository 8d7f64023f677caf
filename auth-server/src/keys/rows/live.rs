//! The keys of the rows that the last look at the database brought, for the running server.

use std::sync::Arc;

use parking_lot::Mutex;

use super::of_rows;
use crate::{
    database::signing_keys::SealedKey,
    keys::{KeyError, Settings, SigningKeys},
};

/// Opens rows, and keeps the keys until other rows come.
pub struct LiveRows {
    settings: Settings,
    current: Mutex<Option<Opened>>,
}

struct Opened {
    rows: Vec<SealedKey>,
    keys: Arc<SigningKeys>,
}

impl LiveRows {
    /// Those that are sealed as `settings` say.
    pub fn new(settings: Settings) -> Self {
        Self { settings, current: Mutex::new(None) }
    }

    /// The keys that these rows are. What seals them is read again for other rows than the last ones,
    /// so that a change of it needs no start.
    ///
    /// # Errors
    /// When what seals them cannot be read, or one is not fit to sign: no other keys are used then, since
    /// those from before may have been dropped.
    pub fn of(&self, rows: &[SealedKey]) -> Result<Arc<SigningKeys>, KeyError> {
        let mut current = self.current.lock();
        if let Some(opened) = current.as_ref().filter(|opened| opened.rows == rows) {
            return Ok(Arc::clone(&opened.keys));
        }
        let keys = Arc::new(of_rows(rows, &self.settings.sealer()?, &self.settings)?);
        if current.as_ref().is_some_and(|opened| opened.keys.active_id() != keys.active_id()) {
            tracing::info!(key = keys.active_id(), "another key signs");
        }
        *current = Some(Opened { rows: rows.to_vec(), keys: Arc::clone(&keys) });
        Ok(keys)
    }
}

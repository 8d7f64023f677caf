//! The keys as they are now, for the running server.
//!
//! The file of states is looked at before each use, as the users' file is: that costs a
//! microsecond and misses no rotation. Keys that cannot be read change nothing: the old ones stay,
//! and the log says why.

use std::{path::PathBuf, sync::Arc};

use berth_shared::{clock::Clock, file_stamp::Stamp, telemetry::chain};
use parking_lot::Mutex;

use super::{KeyError, SigningKeys, directory, settings::Settings};

/// The keys, read again whenever their states have changed.
pub struct LiveKeys {
    settings: Settings,
    clock: Clock,
    current: Mutex<Reading>,
}

/// What the file of states looked like and what was in it.
struct Reading {
    /// `None` when it has to be read again in any case.
    stamp: Option<Stamp>,
    keys: Arc<SigningKeys>,
    /// What has been reported, so that it is said once.
    complaint: Option<String>,
}

impl LiveKeys {
    /// Opens the keys of `settings`, as [`SigningKeys::open`] does.
    ///
    /// # Errors
    /// As that.
    pub fn open(settings: &Settings, clock: &Clock) -> Result<Self, KeyError> {
        let keys = SigningKeys::open(settings, clock)?;
        // The first use reads them once more, since the stamp must be older than what is read.
        let reading = Reading { stamp: None, keys: Arc::new(keys), complaint: None };
        Ok(Self { settings: settings.clone(), clock: clock.clone(), current: Mutex::new(reading) })
    }

    /// The keys as the directory has them now.
    pub fn fresh(&self) -> Arc<SigningKeys> {
        let mut current = self.current.lock();
        if !current.stamp.is_some_and(|stamp| stamp.still_holds(&self.states())) {
            *current = self.look(&current).unwrap_or_else(|error| current.failed(chain(&error)));
        }
        Arc::clone(&current.keys)
    }

    fn look(&self, old: &Reading) -> Result<Reading, KeyError> {
        // The stamp is taken before the states: a change in between is seen again next time.
        let stamp = Stamp::of(&self.states()).ok();
        let states = directory::states_in(&self.settings.directory)?;
        let mut keys = Arc::clone(&old.keys);
        if old.stamp.is_none() || states.as_ref() != Some(&keys.states) {
            keys = Arc::new(SigningKeys::read(&self.settings, &self.clock)?);
        }
        if keys.active_id() != old.keys.active_id() {
            tracing::info!(key = keys.active_id(), "another key signs");
        }
        Ok(Reading { stamp, keys, complaint: None })
    }

    /// Does what time has made due: retired keys go, and a changed algorithm takes effect.
    ///
    /// # Errors
    /// When the directory cannot be written to; the next call tries again.
    pub fn tend(&self) -> Result<(), KeyError> {
        if self.fresh().states.is_due(self.settings.algorithm, self.clock.now()) {
            SigningKeys::open(&self.settings, &self.clock)?;
        }
        Ok(())
    }

    fn states(&self) -> PathBuf {
        self.settings.directory.join(directory::STATES)
    }
}

impl Reading {
    /// The same keys after a look that failed, which is tried again at the next use.
    fn failed(&self, complaint: String) -> Self {
        if self.complaint.as_ref() != Some(&complaint) {
            tracing::error!(error = complaint, "the signing keys stay as they were");
        }
        Self { stamp: None, keys: Arc::clone(&self.keys), complaint: Some(complaint) }
    }
}

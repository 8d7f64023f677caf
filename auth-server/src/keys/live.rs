//! The keys as they are now, for the running server.
//!
//! The file of states is looked at before each use, as the users' file is: that costs a
//! microsecond and misses no rotation. Keys that cannot be read change nothing: the old ones stay,
//! and the log says why.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use berth_shared::{clock::Clock, telemetry::chain, watch::Stamp};

use super::{KeyError, SigningKeys, directory};
use crate::{config::Config, files};

/// The keys, read again whenever their states have changed.
pub struct LiveKeys {
    config: Config,
    clock: Clock,
    current: ArcSwap<Reading>,
    turn: Mutex<()>,
}

/// What the file of states looked like and what was in it.
struct Reading {
    /// `None` when it has to be read again in any case.
    stamp: Option<Stamp>,
    states: Vec<u8>,
    keys: Arc<SigningKeys>,
    /// What has been reported, so that it is said once.
    complaint: Option<String>,
}

impl LiveKeys {
    /// Opens the keys of `config`, as [`SigningKeys::open`] does.
    ///
    /// # Errors
    /// As that.
    pub fn open(config: &Config, clock: &Clock) -> Result<Self, KeyError> {
        let keys = Arc::new(SigningKeys::open(config, clock)?);
        // The first use reads them once more, since the stamp must be older than what is read.
        let reading = Reading { stamp: None, states: Vec::new(), keys, complaint: None };
        Ok(Self {
            config: config.clone(),
            clock: clock.clone(),
            current: ArcSwap::from_pointee(reading),
            turn: Mutex::default(),
        })
    }

    /// The keys as the directory has them now.
    #[must_use]
    pub fn fresh(&self) -> Arc<SigningKeys> {
        if let Some(keys) = self.unchanged() {
            return keys;
        }
        let _turn = self.take_turn();
        if let Some(keys) = self.unchanged() {
            return keys;
        }
        // The stamp is taken before the bytes: a change in between is seen again next time.
        let stamp = self.stamp();
        let old = self.current.load_full();
        let states = files::read(&self.config.keys().join(directory::STATES));
        let reading = match states.map_err(KeyError::from) {
            Ok(states) if states == old.states && old.stamp.is_some() => old.kept(stamp),
            states => match states.and_then(|states| Ok((states, self.read()?))) {
                Ok((states, keys)) => {
                    if !old.states.is_empty() && keys.active_id() != old.keys.active_id() {
                        tracing::info!(key = keys.active_id(), "another key signs");
                    }
                    Reading { stamp, states, keys: Arc::new(keys), complaint: None }
                }
                Err(error) => old.failed(chain(&error)),
            },
        };
        let keys = Arc::clone(&reading.keys);
        self.current.store(Arc::new(reading));
        keys
    }

    /// Does what time has made due: retired keys go, and a changed algorithm takes effect.
    ///
    /// # Errors
    /// When the directory cannot be written to; the next call tries again.
    pub fn tend(&self) -> Result<(), KeyError> {
        if self.fresh().is_due(self.config.key_algorithm, self.clock.now()) {
            SigningKeys::open(&self.config, &self.clock)?;
        }
        Ok(())
    }

    fn read(&self) -> Result<SigningKeys, KeyError> {
        SigningKeys::read(&self.config, &self.clock)
    }

    /// The current keys, if the states surely look as they did when they were read.
    fn unchanged(&self) -> Option<Arc<SigningKeys>> {
        let current = self.current.load();
        let (then, now) = (current.stamp.as_ref()?, self.stamp()?);
        (!then.may_differ_from(&now)).then(|| Arc::clone(&current.keys))
    }

    fn stamp(&self) -> Option<Stamp> {
        // Compared with times that the file system gives, so a test's clock has no say in it.
        Stamp::of(&self.config.keys().join(directory::STATES), &Clock::system()).ok()
    }

    fn take_turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading {
    /// The same keys after another look.
    fn kept(&self, stamp: Option<Stamp>) -> Self {
        let (states, keys) = (self.states.clone(), Arc::clone(&self.keys));
        Self { stamp, states, keys, complaint: None }
    }

    /// The same keys after a look that failed, which is tried again at the next use.
    fn failed(&self, complaint: String) -> Self {
        if self.complaint.as_ref() != Some(&complaint) {
            tracing::error!(error = complaint, "the signing keys stay as they were");
        }
        Self { complaint: Some(complaint), ..self.kept(None) }
    }
}

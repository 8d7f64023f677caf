//! The verification keys, polled as the revocations are, and asked for at once when a token names
//! an unknown one.
//!
//! A poll finds a next key before it signs, and takes a dropped key out of use within seconds.

use std::{path::PathBuf, sync::Arc, time::Duration};

use berth_shared::{auth_api::KEYS_PATH, keys::KeySet, telemetry::chain};
use tokio::time::Instant;

use super::{
    error::Error,
    link::Link,
    polled::{Document, Polled},
};

/// The shortest time between two requests for the keys that unknown key ids cause; the polls come
/// beside them, so an unknown key id waits no longer than for the next of those.
const REFRESH_INTERVAL_MIN: Duration = Duration::from_secs(5);

pub(crate) struct Keys {
    document: Polled<KeySet>,
    /// Held while the keys are asked for; when an unknown key id last was the reason, whatever came
    /// of it.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

impl Keys {
    /// Begins with the last good keys, if `file` holds any.
    pub(super) fn load(link: Arc<Link>, file: PathBuf) -> Self {
        let document = Document {
            path: KEYS_PATH,
            read: |json| KeySet::from_json(json).map_err(|error| chain(&error)),
            behind: |keys, _| keys,
            kept: |_| None,
        };
        let document = Polled::load(link, document, file);
        Self { document, asked: tokio::sync::Mutex::default() }
    }

    /// The keys that are kept; nobody is asked.
    pub(crate) fn current(&self) -> Option<Arc<KeySet>> {
        self.document.current()
    }

    /// Asks for the keys, if they have changed.
    pub(super) async fn poll(&self) -> Result<(), Error> {
        let _turn = self.asked.lock().await;
        self.document.poll().await
    }

    /// Other keys than `known`, asked for at a bounded rate; `None` when there are none, or they
    /// could not be had.
    pub(crate) async fn newer_than(&self, known: Option<&Arc<KeySet>>) -> Option<Arc<KeySet>> {
        let came = Instant::now();
        let mut asked = self.asked.lock().await;
        // Somebody else may have got them meanwhile.
        if let Some(newer) = self.other_than(known) {
            return Some(newer);
        }
        // Who asked after this one had come, has asked for this one too, however long that took.
        let is_recent =
            |at: Instant| at >= came || known.is_some() && at.elapsed() < REFRESH_INTERVAL_MIN;
        if asked.is_some_and(is_recent) {
            return None;
        }
        *asked = Some(Instant::now());
        if let Err(error) = self.document.poll().await {
            tracing::warn!(error = chain(&error), "asking auth-server for its keys");
        }
        self.other_than(known)
    }

    fn other_than(&self, known: Option<&Arc<KeySet>>) -> Option<Arc<KeySet>> {
        self.current().filter(|now| known.is_none_or(|known| !Arc::ptr_eq(known, now)))
    }
}

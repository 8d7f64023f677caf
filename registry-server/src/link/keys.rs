//! The verification keys, polled as the revocations are, and asked for at once when a token names
//! an unknown one.
//!
//! A poll finds a next key before it signs, and takes a dropped key out of use within seconds. The
//! set in use stays the same value as long as its keys do, so that whoever keeps what was verified
//! with it can compare.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use axum::http::header;
use berth_shared::{keys::KeySet, link::KEYS_PATH, telemetry::chain};
use tokio::time::Instant;

use super::{ask, keep};

/// The shortest time between two requests for the keys that unknown key ids cause; the polls come
/// beside them, so an unknown key id waits no longer than for the next of those.
const REFRESH_INTERVAL_MIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Keys {
    current: ArcSwapOption<KeySet>,
    etag: Mutex<Option<String>>,
    path: PathBuf,
    asked: Mutex<Option<Instant>>,
    asking: tokio::sync::Mutex<()>,
}

impl Keys {
    /// Begins with the last good keys, if `path` holds any.
    pub(super) fn load(path: PathBuf) -> Self {
        let known = std::fs::read(&path).ok().and_then(|json| KeySet::from_json(&json).ok());
        Self {
            current: ArcSwapOption::from_pointee(known),
            etag: Mutex::default(),
            path,
            asked: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        self.current.load_full()
    }

    /// Asks for the keys, if they have changed.
    pub(super) async fn poll(&self, socket: &Path) -> Result<(), String> {
        let _turn = self.asking.lock().await;
        self.fetch(socket).await
    }

    /// Other keys than `known`, asked for at a bounded rate; `None` when there are none, or they
    /// could not be had.
    pub(super) async fn newer_than(
        &self,
        known: Option<&Arc<KeySet>>,
        socket: &Path,
    ) -> Option<Arc<KeySet>> {
        let _turn = self.asking.lock().await;
        // Somebody else may have got them meanwhile.
        if let Some(newer) = self.other_than(known) {
            return Some(newer);
        }
        if known.is_some() && self.asked_ago().is_some_and(|ago| ago < REFRESH_INTERVAL_MIN) {
            return None;
        }
        *lock(&self.asked) = Some(Instant::now());
        if let Err(error) = self.fetch(socket).await {
            tracing::warn!(error, "asking auth-server for its keys");
        }
        self.other_than(known)
    }

    fn other_than(&self, known: Option<&Arc<KeySet>>) -> Option<Arc<KeySet>> {
        self.current().filter(|now| known.is_none_or(|known| !Arc::ptr_eq(known, now)))
    }

    async fn fetch(&self, socket: &Path) -> Result<(), String> {
        let etag = lock(&self.etag).clone();
        let Some(answer) = ask(socket, KEYS_PATH, etag.as_deref()).await? else { return Ok(()) };
        let keys = KeySet::from_json(answer.body()).map_err(|error| chain(&error))?;
        let etag = answer.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
        *lock(&self.etag) = etag.map(ToOwned::to_owned);
        self.current.store(Some(Arc::new(keys)));
        keep(self.path.clone(), answer.into_body()).await;
        Ok(())
    }

    fn asked_ago(&self) -> Option<Duration> {
        lock(&self.asked).map(|asked| asked.elapsed())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

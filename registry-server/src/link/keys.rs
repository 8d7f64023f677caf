//! The verification keys, asked for again when they get old or a token names an unknown one.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use berth_shared::{keys::KeySet, link::KEYS_PATH, telemetry::chain};
use tokio::time::Instant;

use super::{ask, keep};

/// The shortest time between two requests for the keys: an unknown key id costs no more than that.
const REFRESH_INTERVAL_MIN: Duration = Duration::from_secs(5);

/// After this time the keys are asked for again without a reason.
const STALE_AFTER: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Keys {
    current: ArcSwapOption<KeySet>,
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
            path,
            asked: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        self.current.load_full()
    }

    pub(super) fn is_stale(&self) -> bool {
        self.current().is_none() || self.asked_ago().is_none_or(|ago| ago > STALE_AFTER)
    }

    /// Asks for the keys unless that was just done; `None` when they could not be had, or were
    /// asked for too recently to be other ones.
    pub(super) async fn refresh(&self, socket: &Path) -> Option<Arc<KeySet>> {
        let before = self.current();
        let _turn = self.asking.lock().await;
        let now = self.current();
        if now.as_ref().map(Arc::as_ptr) != before.as_ref().map(Arc::as_ptr) {
            return now;
        }
        let known = now.is_some();
        if known && self.asked_ago().is_some_and(|ago| ago < REFRESH_INTERVAL_MIN) {
            return None;
        }
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        match self.fetch(socket).await {
            Ok(keys) => Some(keys),
            Err(error) => {
                tracing::warn!(error, "asking auth-server for its keys");
                None
            }
        }
    }

    async fn fetch(&self, socket: &Path) -> Result<Arc<KeySet>, String> {
        let answer = ask(socket, KEYS_PATH, None).await?.ok_or("no keys came")?;
        let keys = Arc::new(KeySet::from_json(answer.body()).map_err(|error| chain(&error))?);
        self.current.store(Some(Arc::clone(&keys)));
        keep(self.path.clone(), answer.into_body()).await;
        Ok(keys)
    }

    fn asked_ago(&self) -> Option<Duration> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).map(|asked| asked.elapsed())
    }
}

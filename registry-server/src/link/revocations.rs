//! The table of raised counters, polled, with the last good one on disk.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use axum::http::header;
use berth_shared::link::{REVOCATIONS_PATH, Revocations};
use tokio::time::Instant;

use super::{ask, keep};

#[derive(Debug)]
pub(super) struct RevocationTable {
    current: ArcSwapOption<Revocations>,
    etag: Mutex<Option<String>>,
    path: PathBuf,
    /// When `auth-server` last said that the table is this one; at first, when this began.
    confirmed: Mutex<Instant>,
}

impl RevocationTable {
    /// Begins with the last good table, if `path` holds one.
    pub(super) fn load(path: PathBuf) -> Self {
        let known = std::fs::read(&path).ok().and_then(|json| serde_json::from_slice(&json).ok());
        let (etag, confirmed) = (Mutex::default(), Mutex::new(Instant::now()));
        Self { current: ArcSwapOption::from_pointee(known), etag, path, confirmed }
    }

    /// How long ago the table was confirmed.
    pub(super) fn age(&self) -> Duration {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    fn confirm(&self, asked: Instant) {
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = asked;
    }

    pub(super) fn current(&self) -> Option<Arc<Revocations>> {
        self.current.load_full()
    }

    /// Asks for the table, if it has changed.
    pub(super) async fn poll(&self, socket: &Path) -> Result<(), String> {
        let asked = Instant::now();
        let etag = self.etag.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(answer) = ask(socket, REVOCATIONS_PATH, etag.as_deref()).await? else {
            self.confirm(asked);
            return Ok(());
        };
        let table: Revocations = serde_json::from_slice(answer.body())
            .map_err(|error| format!("auth-server's table of revocations: {error}"))?;
        let etag = answer.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
        *self.etag.lock().unwrap_or_else(PoisonError::into_inner) = etag.map(ToOwned::to_owned);
        self.current.store(Some(Arc::new(table)));
        self.confirm(asked);
        keep(self.path.clone(), answer.into_body()).await;
        Ok(())
    }
}

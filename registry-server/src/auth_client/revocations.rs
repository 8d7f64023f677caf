//! The table of raised counters, polled, and how long ago it was confirmed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use berth_shared::auth_api::{REVOCATIONS_PATH, Revocations};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::polled::Polled;

#[derive(Debug)]
pub(super) struct RevocationTable {
    document: Polled<Revocations>,
    /// When `auth-server` last said that the table is this one; at first, when this began.
    confirmed: Mutex<Instant>,
}

impl RevocationTable {
    /// Begins with the last good table, if `file` holds one.
    pub(super) fn load(file: PathBuf) -> Self {
        let read = |json: &[u8]| serde_json::from_slice(json).map_err(|error| error.to_string());
        let document = Polled::load(REVOCATIONS_PATH, file, read);
        Self { document, confirmed: Mutex::new(Instant::now()) }
    }

    /// How long ago the table was confirmed.
    pub(super) fn age(&self) -> Duration {
        self.confirmed.lock().elapsed()
    }

    pub(super) fn current(&self) -> Option<Arc<Revocations>> {
        self.document.current()
    }

    /// Asks for the table, if it has changed.
    pub(super) async fn poll(&self, socket: &Path) -> Result<(), String> {
        let asked = Instant::now();
        self.document.poll(socket).await?;
        *self.confirmed.lock() = asked;
        Ok(())
    }
}

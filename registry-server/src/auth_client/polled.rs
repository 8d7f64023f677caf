//! A document of `auth-server`'s: asked for by its `ETag`, with the last good one on disk for when
//! nobody answers.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use axum::http::header;
use berth_shared::files::read_at_most;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{TABLE_BYTES_MAX, ask, keep};

/// A document and how it is asked for. The value in use stays the same one for as long as the
/// document does, so that whoever keeps what was made with it can compare.
pub(crate) struct Polled<T> {
    current: ArcSwapOption<T>,
    etag: Mutex<Option<String>>,
    /// When `auth-server` last said that the document is this one; at first, when this began.
    confirmed: Mutex<Instant>,
    socket: PathBuf,
    path: &'static str,
    file: PathBuf,
    read: fn(&[u8]) -> Result<T, String>,
}

impl<T> Polled<T> {
    /// The document at `path` of `socket`. Begins with the last good one, if `file` holds any.
    pub(super) fn load(
        socket: &Path,
        path: &'static str,
        file: PathBuf,
        read: fn(&[u8]) -> Result<T, String>,
    ) -> Self {
        let known =
            read_at_most(&file, TABLE_BYTES_MAX as u64).ok().and_then(|bytes| read(&bytes).ok());
        let (current, etag) = (ArcSwapOption::from_pointee(known), Mutex::default());
        let (confirmed, socket) = (Mutex::new(Instant::now()), socket.to_owned());
        Self { current, etag, confirmed, socket, path, file, read }
    }

    pub(crate) fn current(&self) -> Option<Arc<T>> {
        self.current.load_full()
    }

    /// How long ago the document was confirmed.
    pub(crate) fn age(&self) -> Duration {
        self.confirmed.lock().elapsed()
    }

    /// Asks for the document, if it has changed.
    pub(super) async fn poll(&self) -> Result<(), String> {
        let asked = Instant::now();
        let etag = self.etag.lock().clone();
        if let Some(answer) = ask(&self.socket, self.path, etag.as_deref()).await? {
            let read = (self.read)(answer.body());
            let document = read.map_err(|error| format!("auth-server's {}: {error}", self.path))?;
            let etag = answer.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
            *self.etag.lock() = etag.map(ToOwned::to_owned);
            self.current.store(Some(Arc::new(document)));
            keep(self.file.clone(), answer.into_body()).await;
        }
        *self.confirmed.lock() = asked;
        Ok(())
    }
}

//! A document of `auth-server`'s: asked for by its `ETag`, with the last good one on disk for when
//! nobody answers.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use axum::http::header;
use berth_shared::files::read_at_most;
use parking_lot::Mutex;

use super::{TABLE_BYTES_MAX, ask, keep};

/// A document and how it is asked for. The value in use stays the same one for as long as the
/// document does, so that whoever keeps what was made with it can compare.
pub(super) struct Polled<T> {
    current: ArcSwapOption<T>,
    etag: Mutex<Option<String>>,
    path: &'static str,
    file: PathBuf,
    read: fn(&[u8]) -> Result<T, String>,
}

impl<T> Polled<T> {
    /// The document at `path` of the socket. Begins with the last good one, if `file` holds any.
    pub(super) fn load(
        path: &'static str,
        file: PathBuf,
        read: fn(&[u8]) -> Result<T, String>,
    ) -> Self {
        let known =
            read_at_most(&file, TABLE_BYTES_MAX as u64).ok().and_then(|bytes| read(&bytes).ok());
        let (current, etag) = (ArcSwapOption::from_pointee(known), Mutex::default());
        Self { current, etag, path, file, read }
    }

    pub(super) fn current(&self) -> Option<Arc<T>> {
        self.current.load_full()
    }

    /// Asks for the document, if it has changed.
    pub(super) async fn poll(&self, socket: &Path) -> Result<(), String> {
        let etag = self.etag.lock().clone();
        let Some(answer) = ask(socket, self.path, etag.as_deref()).await? else { return Ok(()) };
        let read = (self.read)(answer.body());
        let document = read.map_err(|error| format!("auth-server's {}: {error}", self.path))?;
        let etag = answer.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
        *self.etag.lock() = etag.map(ToOwned::to_owned);
        self.current.store(Some(Arc::new(document)));
        keep(self.file.clone(), answer.into_body()).await;
        Ok(())
    }
}

impl<T> fmt::Debug for Polled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Polled").field("path", &self.path).finish_non_exhaustive()
    }
}

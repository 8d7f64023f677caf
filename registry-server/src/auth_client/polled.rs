//! A document of `auth-server`'s: asked for by its `ETag`, with the last good one on disk for when
//! nobody answers.

use std::{path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use axum::http::header;
use berth_shared::files::read_at_most;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{TABLE_BYTES_MAX, ask, error::Error, keep, link::Link};

/// A document and how it is asked for. The value in use stays the same one for as long as the
/// document does, so that whoever keeps what was made with it can compare.
pub(crate) struct Polled<T> {
    current: ArcSwapOption<T>,
    etag: Mutex<Option<String>>,
    /// When `auth-server` last said that the document is this one; at first, when this began.
    confirmed: Mutex<Instant>,
    link: Arc<Link>,
    document: Document<T>,
    file: PathBuf,
}

/// What a document is.
pub(super) struct Document<T> {
    /// Where it is asked for.
    pub(super) path: &'static str,
    /// How it is read.
    pub(super) read: fn(&[u8]) -> Result<T, String>,
    /// What is in use once it has come behind another.
    pub(super) behind: fn(T, &T) -> T,
}

impl<T> Polled<T> {
    /// Begins with the last good one, if `file` holds any.
    pub(super) fn load(link: Arc<Link>, document: Document<T>, file: PathBuf) -> Self {
        let known = read_at_most(&file, TABLE_BYTES_MAX as u64).ok();
        let known = known.and_then(|bytes| (document.read)(&bytes).ok());
        let (current, etag) = (ArcSwapOption::from_pointee(known), Mutex::default());
        Self { current, etag, confirmed: Mutex::new(Instant::now()), link, document, file }
    }

    pub(crate) fn current(&self) -> Option<Arc<T>> {
        self.current.load_full()
    }

    /// How long ago the document was confirmed.
    pub(crate) fn age(&self) -> Duration {
        self.confirmed.lock().elapsed()
    }

    /// Asks for the document, if it has changed.
    pub(super) async fn poll(&self) -> Result<(), Error> {
        let asked = Instant::now();
        let etag = self.etag.lock().clone();
        let Document { path, read, behind } = self.document;
        if let Some(answer) = ask(&self.link, path, etag.as_deref()).await? {
            let read = read(answer.body());
            let mut document =
                read.map_err(|error| Error::Answer(format!("auth-server's {path}: {error}")))?;
            if let Some(before) = self.current() {
                document = behind(document, &before);
            }
            let etag = answer.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
            *self.etag.lock() = etag.map(ToOwned::to_owned);
            self.current.store(Some(Arc::new(document)));
            keep(self.file.clone(), answer.into_body()).await;
        }
        *self.confirmed.lock() = asked;
        Ok(())
    }
}

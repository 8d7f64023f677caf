//! A document of `auth-server`'s: asked for by its `ETag`, with the last good one on disk for when
//! nobody answers.

use std::{path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use axum::http::header;
use berth_shared::files::read_at_most;
use bytes::Bytes;
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
    /// How that is kept for the next start; as it came, where this says nothing.
    pub(super) kept: fn(&T) -> Option<Vec<u8>>,
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
        let Document { path, read, behind, kept } = self.document;
        if let Some(answer) = ask(&self.link, path, etag.as_deref()).await? {
            let read = read(answer.body());
            let mut document =
                read.map_err(|error| Error::Answer(format!("auth-server's {path}: {error}")))?;
            if let Some(before) = self.current() {
                document = behind(document, &before);
            }
            let etag = answer.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
            *self.etag.lock() = etag.map(ToOwned::to_owned);
            let bytes = kept(&document).map_or_else(|| answer.into_body(), Bytes::from);
            self.current.store(Some(Arc::new(document)));
            keep(self.file.clone(), bytes).await;
        }
        *self.confirmed.lock() = asked;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::atomic::AtomicU64};

    use axum::{Router, routing::get};
    use berth_shared::{
        auth_api::{REVOCATIONS_PATH, Revocations},
        serve::{Limits, Listener, Name, serve},
    };
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::auth_client::link::Place;

    #[tokio::test]
    async fn what_is_kept_for_the_next_start_is_what_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        // An answer that was overtaken comes behind a newer one.
        let sequence = Arc::new(AtomicU64::new(10));
        let table = get(move || async move {
            let sequence = sequence.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            let counters = if sequence == 10 { r#"{"andrew":10}"# } else { "{}" };
            format!(r#"{{"identity":"i","sequence":{sequence},"counters":{counters}}}"#)
        });
        let routes = Router::new().route(REVOCATIONS_PATH, table);
        let listener = Listener::unix(&socket, None).unwrap();
        let name = Name { server: "test", listener: "private" };
        tokio::spawn(serve(listener, name, routes, Limits::default(), CancellationToken::new()));
        let file = directory.path().join("revocations.json");
        let open = || {
            let link = Arc::new(Link::open(&Place::Socket(socket.clone())).unwrap());
            let document = Document {
                path: REVOCATIONS_PATH,
                read: |json| serde_json::from_slice(json).map_err(|error| error.to_string()),
                behind: |table: Revocations, before| table.behind(before),
                kept: |table| serde_json::to_vec(table).ok(),
            };
            Polled::load(link, document, file.clone())
        };
        let polled = open();
        polled.poll().await.unwrap();
        polled.poll().await.unwrap();
        let kept = open().current().unwrap();
        assert_eq!(kept.counters, [("andrew".parse().unwrap(), 10)].into());
        assert_eq!(*kept, *polled.current().unwrap(), "{:?}", fs::read_to_string(&file));
    }
}

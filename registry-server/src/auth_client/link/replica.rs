//! One of the servers at the other end of the link.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::http::uri::Authority;
use berth_shared::{client::Pool, telemetry::chain};
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::time::Instant;

use super::{
    super::error::Error,
    tls::{self, Stream},
};

/// How long one that could not be asked stands behind the others.
const BAD_TIME: Duration = Duration::from_secs(10);

/// A server at one address; clones share what is known of it.
#[derive(Clone)]
pub(super) struct Replica {
    pub(super) address: SocketAddr,
    /// For what clients ask, which may wait for passwords.
    pub(super) tokens: Pool<Stream>,
    /// For polls, which that holds up no more than on a socket.
    pub(super) polls: Pool<Stream>,
    health: Arc<Health>,
}

#[derive(Default)]
struct Health {
    bad_until: Mutex<Option<Instant>>,
    /// A connection that was kept may have died without a word: the first failure over one is none.
    is_doubted: AtomicBool,
    is_told: AtomicBool,
}

impl Replica {
    pub(super) fn at(address: SocketAddr, config: &ClientConfig, authority: &Authority) -> Self {
        let pool = || tls::pool(config, address, authority);
        Self { address, tokens: pool(), polls: pool(), health: Arc::default() }
    }

    /// Whether it could be asked of late.
    pub(super) fn is_well(&self) -> bool {
        self.health.bad_until.lock().is_none_or(|until| until <= Instant::now())
    }

    /// Notes whether it could be asked, and tells a change.
    pub(super) fn note(&self, failed: Option<&Error>) {
        let address = self.address;
        let is_doubted = self.health.is_doubted.swap(failed.is_some(), Ordering::Relaxed);
        if failed.is_some_and(Error::may_be_of_a_kept_connection) && !is_doubted {
            return;
        }
        *self.health.bad_until.lock() = failed.map(|_| Instant::now() + BAD_TIME);
        match (failed, self.health.is_told.swap(failed.is_some(), Ordering::Relaxed)) {
            (Some(error), false) => {
                tracing::warn!(%address, error = chain(error), "an auth-server gives no answer");
            }
            (None, true) => tracing::info!(%address, "this auth-server answers again"),
            _ => {}
        }
    }
}

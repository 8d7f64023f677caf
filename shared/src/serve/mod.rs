//! Serving HTTP: accept, TLS, limits, and a shutdown that lets requests finish.
//!
//! The accept loop only accepts. Handshakes run beside it, bounded by the number of connections
//! and timed, so that a silent client cannot stop the others.
//!
//! A connection ends when its client leaves it idle, takes less than the least rate of what is ready
//! for it, or keeps the server waiting while others need the place. So nobody holds one by doing
//! nothing, and nobody is cut off who goes on.

mod admission;
mod arriving;
pub mod budget;
mod connection;
pub mod etag;
pub mod expiry;
pub mod health;
pub mod host;
mod listener;
pub mod log;
pub mod metrics;
mod outbox;
mod pace;
mod places;
mod plain;
mod progress;
pub mod refusals;
pub mod shutdown;
pub mod socket;
pub mod tls;
mod watched;

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{HeaderValue, Response, StatusCode, header};
use ipnet::IpNet;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use arriving::Late;
pub use listener::Listener;

use crate::{
    claimant::Claimant,
    error::{Code, ErrorBody},
};
use budget::Budget;
use connection::{Stream, Terms, serve_connection};
use pace::LeastRate;
use places::{Place, Places};

/// How long accepting pauses after the system refused a connection, as when no file descriptor is
/// left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What requests may take that are under way on one listener, in bytes: their heads, and what the
/// server keeps for each. A network has a quarter of it, and all of them half: nobody has signed in
/// yet. Four small requests of each connection are not counted.
const REQUESTS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long open requests may go on after the shutdown began.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);

/// How far a client can be ahead with taking its answers, in bytes: what buffers between it and here
/// hold, and open up for at once.
const ANSWER_AHEAD_BYTES: u64 = 256 * 1024;

/// The address of the peer of a connection; a request extension. `None` on a Unix socket.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub Option<IpAddr>);

/// What a listener is called in metrics.
#[derive(Debug, Clone, Copy)]
pub struct Name {
    /// Whose it is.
    pub server: metrics::Server,
    /// Which one.
    pub listener: &'static str,
}

/// Bounds on what clients may hold open.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once. When all are taken the one that has kept the server waiting longest is
    /// ended for the next.
    pub connections_max: usize,
    /// Connections at once of one network, a /24 or a /64, but for this machine's own and those of
    /// `trusted_proxies`.
    pub connections_per_network_max: usize,
    /// Peers behind which there are many clients.
    pub trusted_proxies: Arc<[IpNet]>,
    /// The longest block of request headers over HTTP/1.1, in bytes; more gets 431.
    pub header_bytes_max: u32,
    /// How long a handshake may take; they run side by side.
    pub handshake_timeout: Duration,
    /// How long a connection may be idle between requests.
    pub idle_timeout: Duration,
    /// The least rate at which clients must send bodies and take answers.
    pub transfer_bytes_per_sec_min: u64,
    /// How long they may stand still besides.
    pub body_idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            connections_per_network_max: 512,
            trusted_proxies: Arc::default(),
            header_bytes_max: 64 * 1024,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            transfer_bytes_per_sec_min: 512,
            body_idle: Duration::from_secs(60),
        }
    }
}

impl Limits {
    fn answer_rate(&self) -> LeastRate {
        LeastRate { ahead_bytes: ANSWER_AHEAD_BYTES, ..self.body_rate() }
    }

    /// What a client has sent is here: it needs no time for buffers.
    fn body_rate(&self) -> LeastRate {
        let bytes_per_sec = self.transfer_bytes_per_sec_min;
        LeastRate { bytes_per_sec, idle: self.body_idle, ahead_bytes: 0 }
    }
}

/// A refusal in the specification's form, for what no handler of the API sees.
pub fn refusal(status: StatusCode, code: Code, message: &str) -> Response<Body> {
    let body = ErrorBody::new(code, message, serde_json::Value::Null).to_json();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Serves `router` until `shutdown`, then lets open requests finish for a while. The connections are
/// counted under `name`.
pub async fn serve(
    mut listener: Listener,
    name: Name,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let places = Places::new(&limits);
    let requests = Budget::new("REQUESTS_BYTES_MAX", REQUESTS_BYTES_MAX);
    let counted = metrics::Connections::of(name, limits.connections_max);
    let tasks = TaskTracker::new();
    while let Some((stream, peer, place)) = next(&mut listener, &places, &counted, &shutdown).await
    {
        let (router, limits, shutdown) = (router.clone(), limits.clone(), shutdown.clone());
        let open = counted.open();
        let requests = requests.share(Claimant::stranger(peer.0));
        let terms = Terms { peer, router, limits, requests, counted: counted.clone(), shutdown };
        tasks.spawn(async move {
            let _open = open;
            serve_connection(stream, place, terms).await;
        });
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, tasks.wait()).await.is_err() {
        tracing::warn!(open = tasks.len(), "connections still open at the end of the drain time");
    }
}

/// The next connection that has a place; `None` when the shutdown began.
async fn next(
    listener: &mut Listener,
    places: &Places,
    counted: &metrics::Connections,
    shutdown: &CancellationToken,
) -> Option<(Stream, PeerAddress, Place)> {
    let accepted = async {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => match places.take(peer).await {
                    Some(place) => return (stream, peer, place),
                    None => counted.ended("share"),
                },
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    shutdown.run_until_cancelled(accepted).await
}

//! Serving HTTP: accept, TLS, limits, and a shutdown that lets requests finish.
//!
//! The accept loop only accepts. Handshakes run beside it, bounded by the number of connections
//! and timed, so that a silent client cannot stop the others.

mod connection;
pub mod expiry;
pub mod health;
pub mod log;
pub mod metrics;
mod progress;
pub mod refusals;
pub mod shutdown;
pub mod tls;

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::{FileTypeExt, PermissionsExt, chown},
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use connection::{Stream, serve_connection};
use tls::Tls;

/// How long accepting pauses after the system refused a connection, as when no file descriptor is
/// left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long open requests may go on after the shutdown began.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);

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
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; further ones wait in the system's queue.
    pub connections_max: usize,
    /// How long a handshake may take; they run side by side.
    pub handshake_timeout: Duration,
    /// How long a connection may be idle between requests.
    pub idle_timeout: Duration,
    /// How long a client may leave bytes unread that are ready for it.
    pub write_stall_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            write_stall_timeout: Duration::from_secs(60),
        }
    }
}

/// Where a server listens.
#[derive(Debug)]
pub enum Listener {
    /// TCP, with TLS when there is a certificate.
    Tcp(TcpListener, Option<Arc<Tls>>),
    /// A Unix socket: private to whoever may open the file.
    Unix(UnixListener),
}

impl Listener {
    /// Listens on a TCP address.
    ///
    /// # Errors
    /// When the address is taken or not this machine's.
    pub async fn tcp(address: SocketAddr, tls: Option<Arc<Tls>>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            io::Error::new(error.kind(), format!("listening on {address}: {error}"))
        })?;
        Ok(Self::Tcp(listener, tls))
    }

    /// Listens on a Unix socket that only its owner may open, and the members of `group` if there is
    /// one. A socket file left behind by a server that died is replaced; call this only while
    /// holding the lock on the data directory.
    ///
    /// # Errors
    /// When the path is too long, something else than a socket lies there, or the process may not
    /// give a file to the group.
    pub fn unix(path: &Path, group: Option<u32>) -> io::Result<Self> {
        let explain = |error: io::Error| {
            io::Error::new(error.kind(), format!("listening on {}: {error}", path.display()))
        };
        if fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
            fs::remove_file(path).map_err(explain)?;
        }
        let listener = UnixListener::bind(path).map_err(explain)?;
        // The group first: what it was before is given nothing.
        if group.is_some() {
            chown(path, None, group).map_err(explain)?;
        }
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(explain)?;
        Ok(Self::Unix(listener))
    }

    /// The TCP address that was bound, for port 0. `None` for a Unix socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener, _) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    async fn accept(&self) -> io::Result<(Stream, PeerAddress)> {
        match self {
            Self::Tcp(listener, tls) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream, tls.clone()), PeerAddress(Some(peer.ip().to_canonical()))))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), PeerAddress(None)))
            }
        }
    }
}

/// Serves `router` until `shutdown`, then lets open requests finish for a while. The connections are
/// counted under `name`.
pub async fn serve(
    listener: Listener,
    name: Name,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let connections = Arc::new(Semaphore::new(limits.connections_max));
    let counted = metrics::Connections::of(name, limits.connections_max);
    let tasks = TaskTracker::new();
    while let Some((stream, peer, permit)) = next(&listener, &connections, &shutdown).await {
        let (router, shutdown) = (router.clone(), shutdown.clone());
        let open = counted.open();
        tasks.spawn(async move {
            let _held = (permit, open);
            serve_connection(stream, peer, router, limits, shutdown).await;
        });
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, tasks.wait()).await.is_err() {
        tracing::warn!(open = tasks.len(), "connections still open at the end of the drain time");
    }
}

/// The next connection, once there is room for one; `None` when the shutdown began.
async fn next(
    listener: &Listener,
    connections: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(Stream, PeerAddress, tokio::sync::OwnedSemaphorePermit)> {
    let accepted = async {
        let permit = Arc::clone(connections).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => return Some((stream, peer, permit)),
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        accepted = accepted => accepted,
        () = shutdown.cancelled() => None,
    }
}

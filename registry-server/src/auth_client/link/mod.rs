//! The way to `auth-server`: the Unix socket of one on this machine, or TLS to one or several elsewhere.

mod addresses;
mod replica;
mod replicas;
mod settings;
#[cfg(test)]
mod tests;
mod tls;

use std::path::{Path, PathBuf};

use axum::{
    body::Body,
    http::{Request, Response},
};
use berth_shared::{
    claimant::Network,
    client::{self, Pool},
};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::error::Error;
use replicas::Replicas;
pub(crate) use settings::{LinkError, Place, Settings};

/// The way there, with the connections that are kept.
pub(super) enum Link {
    Socket { path: PathBuf, pool: Box<Pool> },
    Tls(Box<Replicas>),
}

impl Link {
    /// Connects to nobody yet.
    pub(super) fn open(place: &Place) -> Result<Self, LinkError> {
        Ok(match place {
            Place::Socket(path) => {
                Self::Socket { path: path.clone(), pool: Box::new(Pool::new(path)) }
            }
            Place::Link(settings) => Self::Tls(Box::new(Replicas::open(settings)?)),
        })
    }

    /// Keeps what it needs up to date until `shutdown`.
    pub(super) async fn follow(&self, shutdown: &CancellationToken) {
        if let Self::Tls(replicas) = self {
            replicas.follow(shutdown).await;
        }
    }

    /// Asks for a document, whose answer is read up to so many bytes: whoever answers first of those that
    /// are asked in turn.
    pub(super) async fn ask(
        &self,
        request: Request<Bytes>,
        bytes_max: usize,
    ) -> Result<Response<Bytes>, Error> {
        match self {
            // On a connection of its own: what waits for passwords holds up no poll.
            Self::Socket { path, .. } => fetch(path, request, bytes_max).await,
            Self::Tls(replicas) => replicas.ask(request, bytes_max).await,
        }
    }

    /// Passes on what somebody of `network` asked, always to the same server while that is there: it knows
    /// what was guessed from there.
    pub(super) async fn forward(
        &self,
        request: Request<Bytes>,
        network: Network,
        bytes_max: usize,
    ) -> Result<Response<Bytes>, Error> {
        match self {
            Self::Socket { pool, .. } => Ok(pool.fetch(request.map(Body::from), bytes_max).await?),
            Self::Tls(replicas) => replicas.forward(request, network, bytes_max).await,
        }
    }
}

async fn fetch(
    path: &Path,
    request: Request<Bytes>,
    bytes_max: usize,
) -> Result<Response<Bytes>, Error> {
    Ok(client::fetch(path, request.map(Body::from), bytes_max).await?)
}

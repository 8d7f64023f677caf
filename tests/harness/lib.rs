//! Both servers in one process, on port 0 with TLS, and a client that speaks plain HTTP to them.
//!
//! Everything that a test sees goes over a socket; what a test sets up (users, grants, tokens with
//! odd claims) goes through the same code that `authctl` uses.

mod auth;
mod authority;
pub mod client;
pub mod events;
pub mod forger;
pub mod h2;
pub mod image;
pub mod issuer;
pub mod link;
pub mod postgres;
pub mod raw;
mod running;
pub mod s3;
pub mod secret;
mod settings;
pub mod stack;
pub mod upload;
pub mod wire;

use std::{io, time::Duration};

pub use client::{Client, Response};
pub use forger::Forger;
pub use h2::H2;
pub use issuer::{IssuerKey, IssuerServer};
pub use raw::Raw;
pub use secret::Secret;
pub use stack::{Options, Stack};
use tokio::signal::unix::{SignalKind, signal};

/// Waits for Ctrl-C and the like, and says so: a program ends by itself then, and kills what it
/// started.
pub async fn told_to_stop() -> io::Error {
    let signals = signal(SignalKind::interrupt())
        .and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)));
    let (mut interrupt, mut terminate) = match signals {
        Ok(signals) => signals,
        Err(error) => return error,
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    io::Error::other("told to stop")
}

/// Waits until `condition` gives something, for ten seconds at most.
///
/// # Panics
/// When it never does.
pub async fn eventually<T>(what: &str, condition: impl AsyncFnMut() -> Option<T>) -> T {
    within(Duration::from_secs(10), what, condition).await
}

/// As [`eventually`], for what has much to compute and may run beside other tests.
///
/// # Panics
/// When it does not happen within `most`.
pub async fn within<T>(
    most: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = tokio::time::Instant::now() + most;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

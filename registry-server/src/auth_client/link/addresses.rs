//! The addresses that a name has now.

use std::{net::SocketAddr, time::Duration};

use axum::http::uri::Authority;
use parking_lot::Mutex;
use tokio::{
    net::lookup_host,
    time::{Instant, timeout},
};

use super::super::error::Error;

/// How long addresses are used before they are looked up again.
const KEPT: Duration = Duration::from_secs(5);

/// How long looking them up may take.
const LOOKUP_TIME: Duration = Duration::from_secs(3);

/// Addresses that are used of one name.
const ADDRESSES_MAX: usize = 64;

/// A name and when its addresses were last looked up.
pub(super) struct Addresses {
    authority: Authority,
    port: u16,
    looked: Mutex<Option<Instant>>,
}

impl Addresses {
    pub(super) fn of(authority: Authority, port: u16) -> Self {
        Self { authority, port, looked: Mutex::default() }
    }

    /// Whether they are to be looked up, which whoever asks does then.
    pub(super) fn are_due(&self) -> bool {
        let mut looked = self.looked.lock();
        let is_due = looked.is_none_or(|at| at.elapsed() >= KEPT);
        if is_due {
            *looked = Some(Instant::now());
        }
        is_due
    }

    /// Looks them up, and gives them in order.
    pub(super) async fn look_up(&self) -> Result<Vec<SocketAddr>, Error> {
        let host = self.authority.host();
        let failed = |reason: String| Error::Addresses { host: host.to_owned(), reason };
        // A literal of IPv6 has brackets here.
        let name = host.trim_matches(['[', ']']);
        let found = timeout(LOOKUP_TIME, lookup_host((name, self.port))).await;
        let found = found.map_err(|_| failed("no answer in time".to_owned()))?;
        let found = found.map_err(|error| failed(error.to_string()))?;
        let mut found: Vec<_> = found.collect();
        found.sort_unstable();
        found.dedup();
        found.truncate(ADDRESSES_MAX);
        if found.is_empty() { Err(failed("it has none".to_owned())) } else { Ok(found) }
    }
}

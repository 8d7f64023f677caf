//! In whose name the database is asked: each has a turn, and a share of the readers.

use std::{sync::Arc, time::Duration};

use berth_shared::{
    claimant::Claimant,
    serve::budget::{Budget, Busy, Reservation},
};
use tokio::{task::futures::TaskLocalFuture, time::timeout};

/// How long a client waits for its turn. However many of them wait: each waits for a while.
const TURN_WAIT_MAX: Duration = Duration::from_secs(10);

tokio::task_local! {
    static ASKER: Asker;
}

/// In whose name something is read or written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Asker {
    /// The server's own: collection, verification, a verb.
    Server,
    /// A client.
    Client(Arc<Claimant>),
}

impl Asker {
    /// Does `work` in this name; what nobody lends a name is the server's own.
    pub(crate) fn scope<F: Future>(self, work: F) -> TaskLocalFuture<Self, F> {
        ASKER.scope(self, work)
    }

    /// In whose name this is done.
    pub(crate) fn current() -> Self {
        ASKER.try_with(Self::clone).unwrap_or(Self::Server)
    }
}

/// Turns of clients at work that takes much: one has a quarter of them, and all strangers together
/// have half, so that there always is one soon for somebody else.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    limit: &'static str,
    turns: Budget,
}

impl Turns {
    pub(crate) fn new(limit: &'static str, max: usize) -> Self {
        // With one more, since the last of a budget is nobody's.
        Self { limit, turns: Budget::new(limit, max + 1) }
    }

    /// Waits for a turn of the client in whose name this is called; `None` is the server's own.
    pub(crate) async fn take(&self) -> Result<Option<Reservation>, Busy> {
        let Asker::Client(claimant) = Asker::current() else { return Ok(None) };
        let turn = timeout(TURN_WAIT_MAX, self.turns.share(claimant).wait_for(1)).await;
        turn.map(Some).map_err(|_| Busy { limit: self.limit })
    }
}

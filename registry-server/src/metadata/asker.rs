//! In whose name the database is asked: each has a turn, and a share of the readers.

use std::sync::Arc;

use berth_shared::claimant::Claimant;
use tokio::task::futures::TaskLocalFuture;

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

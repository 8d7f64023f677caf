//! Whose turn it is to work on a session.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{metadata::upload::UploadId, registry::Error};

/// Who may work on which session: one request at a time, and the newest goes first.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<UploadId, Arc<Session>>>);

#[derive(Debug, Default)]
struct Session {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Cancelled to stop whoever has the turn.
    superseded: Mutex<CancellationToken>,
}

/// The right to work on a session, until dropped.
pub(super) struct Turn<'s> {
    turns: &'s Turns,
    id: UploadId,
    /// Cancelled when a newer request wants it.
    pub(super) superseded: CancellationToken,
    permit: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Turns {
    /// Whether a request works on the session, or waits to.
    pub(super) fn is_active(&self, id: &UploadId) -> bool {
        self.0.lock().contains_key(id)
    }

    /// Stops whoever works on the session and takes over once it has recorded what it received. Who
    /// waits for that is stopped by the next one too: two requests of a session are there at most.
    pub(super) async fn take(&self, id: &UploadId) -> Result<Turn<'_>, Error> {
        let superseded = CancellationToken::new();
        // Before the session, which it looks at when it is dropped.
        let mut turn =
            Turn { turns: self, id: id.clone(), superseded: superseded.clone(), permit: None };
        let session = Arc::clone(self.0.lock().entry(id.clone()).or_default());
        let before = std::mem::replace(&mut *session.superseded.lock(), superseded.clone());
        before.cancel();
        let permit = Arc::clone(&session.turn).lock_owned();
        tokio::select! {
            permit = permit => turn.permit = Some(permit),
            () = superseded.cancelled() => return Err(Error::Superseded),
        }
        Ok(turn)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut sessions = self.turns.0.lock();
        drop(self.permit.take());
        // Whoever waits for the turn holds the session too; the last one out removes it.
        if sessions.get(&self.id).is_some_and(|session| Arc::strong_count(session) == 1) {
            sessions.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn of_those_that_wait_for_a_session_the_last_alone_goes_on() {
        let turns = Turns::default();
        let id: UploadId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let first = turns.take(&id).await.unwrap();
        let mut second = Box::pin(turns.take(&id));
        assert!(second.as_mut().now_or_never().is_none() && first.superseded.is_cancelled());
        let mut third = Box::pin(turns.take(&id));
        assert!(third.as_mut().now_or_never().is_none());
        assert!(matches!(second.await, Err(Error::Superseded)));
        drop(first);
        drop(third.await.unwrap());
        assert!(!turns.is_active(&id), "nothing is kept of it");
    }
}

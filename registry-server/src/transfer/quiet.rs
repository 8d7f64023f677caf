//! What keeps stored objects in place while they are copied: a running server's word, or where
//! none runs the lock on its data directory.

use std::{fs::File, path::Path};

use berth_shared::telemetry::chain;

use super::error::Error;
use crate::{
    data::{CONTROL_SOCKET, ENDING_TIME, Home, StartError, lock},
    jobs::{
        Job,
        event::{Outcome, Tale, Told},
    },
    metadata::postgres::Alone,
    registry::event::Event,
};

/// As long as this is kept, no stored object is deleted.
pub(super) enum Quiet {
    /// No server runs, and none can start.
    Alone { _lock: File, _database: Option<Alone> },
    /// The server deletes nothing until it tells something else.
    Held(Tale<Outcome>),
}

impl Quiet {
    /// Sees to it that nothing is deleted from the data directory.
    ///
    /// # Errors
    /// When it holds no registry, or its server does not answer.
    pub(super) async fn over(home: &Home) -> Result<Self, Error> {
        let data = &home.data;
        if !home.has_registry() {
            let data = data.display();
            return Err(Error::Refused(format!("{data} holds no registry yet")));
        }
        match lock(data) {
            Ok(lock) => {
                let database = home.take_database(ENDING_TIME).await?;
                Ok(Self::Alone { _lock: lock, _database: database })
            }
            Err(StartError::InUse(_)) => Self::ask(data).await,
            Err(error) => Err(error.into()),
        }
    }

    async fn ask(data: &Path) -> Result<Self, Error> {
        let asked = Job::Hold.ask(&data.join(CONTROL_SOCKET)).await;
        let mut events = asked.map_err(|error| Error::Refused(chain(&error)))?;
        match events.recv().await {
            Some(Told::Step(Event::Held)) => Ok(Self::Held(events)),
            Some(Told::Failed { message }) => Err(Error::Refused(message)),
            _ => Err(Error::Refused("the server went away before it answered".to_owned())),
        }
    }

    /// Whether nothing can have been deleted until now.
    pub(super) fn lasts(&mut self) -> bool {
        match self {
            Self::Alone { .. } => true,
            Self::Held(events) => events.is_silent(),
        }
    }
}

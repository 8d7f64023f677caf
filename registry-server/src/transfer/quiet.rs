//! What keeps stored objects in place while they are copied: a running server's word, where none runs the
//! lock on its data directory, and where several servers share a registry a word in its database.

use std::{fs::File, path::Path};

use berth_shared::{clock::Clock, telemetry::chain};

use super::error::Error;
use crate::{
    data::{CONTROL_SOCKET, ENDING_TIME, Home, StartError, clock_of, lock},
    jobs::{
        Job,
        event::{Outcome, Tale, Told},
    },
    metadata::{lease::Kind, postgres::Alone},
    registry::{event::Event, lease::Sign},
};

/// As long as this is kept, no stored object is deleted.
pub(super) enum Quiet {
    /// No server runs, and none can start.
    Alone { _lock: File, _database: Option<Alone> },
    /// The server deletes nothing until it tells something else.
    Held(Tale<Outcome>),
    /// No server deletes anything for a while, which is said again and again.
    Shared(Sign),
}

impl Quiet {
    /// Sees to it that nothing is deleted from the data directory.
    ///
    /// # Errors
    /// When it holds no registry, or its server does not answer.
    pub(super) async fn over(home: &Home, clock: &Clock) -> Result<Self, Error> {
        let data = &home.data;
        if home.is_shared() {
            let database = home.open_beside().await?;
            let clock = clock_of(&database, clock.clone()).await?;
            return Ok(Self::Shared(Sign::show(Kind::Hold, &database, &clock).await?));
        }
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

    /// Lets what is to be deleted be deleted again.
    pub(super) async fn end(self) {
        if let Self::Shared(hold) = self {
            hold.end().await;
        }
    }

    /// Whether nothing can have been deleted until now.
    pub(super) fn lasts(&mut self) -> bool {
        match self {
            Self::Alone { .. } => true,
            Self::Held(events) => events.is_silent(),
            Self::Shared(hold) => hold.lasts(),
        }
    }
}

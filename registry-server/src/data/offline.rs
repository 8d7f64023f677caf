//! A registry that a verb opens by itself.

use std::fs::{self, File};

use berth_shared::clock::Clock;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{ENDING_TIME, Home, Objects, Opening, StartError, lock, open_registry, preparing};
use crate::{
    config::Config,
    jobs::{
        Job,
        event::{Outcome, Tale, tell},
    },
    maintenance,
    registry::{Registry, lease::Standing},
};

/// A registry, opened to do something to it: for this process alone, or beside the servers that share it.
#[derive(Debug)]
pub struct Offline {
    registry: Registry,
    objects: Objects,
    standing: Standing,
    _lock: Option<File>,
    _following: DropGuard,
}

impl Offline {
    /// Opens it.
    ///
    /// # Errors
    /// [`StartError::InUse`] when a server has it alone; else what cannot be used, and why.
    pub async fn open(config: &Config, clock: Clock) -> Result<Self, StartError> {
        let home = Home::of(config);
        let lock = if home.is_shared() { None } else { Some(lock(&config.data)?) };
        // Where others share it there may be none here yet, and copies lie there for a while.
        fs::create_dir_all(&config.data).map_err(preparing(&config.data.display().to_string()))?;
        let (registry, objects) = open_registry(config, clock, Opening::Verb).await?;
        let standing = home.stand(&registry, ENDING_TIME).await?;
        let over = CancellationToken::new();
        maintenance::follow(&registry, &over);
        let following = over.drop_guard();
        Ok(Self { registry, objects, standing, _lock: lock, _following: following })
    }

    /// Does a job here, and tells of it. Nobody else has the registry until it is over.
    #[must_use]
    pub fn start(self, job: Job) -> Tale<Outcome> {
        tell(async move |events| {
            let offline = self;
            let done = job.run(offline.registry().clone(), events).await;
            offline.end().await;
            done
        })
    }

    /// Ends it, where others are to know.
    pub async fn end(self) {
        self.standing.end().await;
    }

    /// The registry.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Where the objects are.
    pub(crate) fn objects(&self) -> Objects {
        self.objects.clone()
    }
}

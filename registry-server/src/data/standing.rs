//! Who else may work on a registry.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Home, StartError, failed};
use crate::{
    metadata::postgres::{Alone, Taken},
    registry::{Registry, lease::Standing},
};

/// How often it is looked again whether somebody has the registry alone.
const TRIED_EVERY: Duration = Duration::from_millis(500);

impl Home {
    /// Makes the database this process's alone, where another machine may work on it, and waits so long for
    /// others to end.
    pub(crate) async fn take_database(&self, most: Duration) -> Result<Option<Alone>, StartError> {
        let Some(settings) = &self.database else { return Ok(None) };
        let path = settings.place().to_owned();
        match Alone::take(settings, most).await {
            Ok(Taken::Alone(alone)) => Ok(Some(alone)),
            Ok(Taken::Used) => Err(StartError::DatabaseInUse(path)),
            Ok(Taken::Shared) => Err(StartError::DatabaseShared(path)),
            Err(source) => Err(StartError::Database { path, source }),
        }
    }

    /// Sees to it that nobody works on the registry in a way that does not go with this process's.
    pub(crate) async fn stand(
        &self,
        registry: &Registry,
        most: Duration,
    ) -> Result<Standing, StartError> {
        if !self.is_shared() {
            return Ok(Standing::Alone(self.take_database(most).await?));
        }
        let begun = Instant::now();
        loop {
            if let Some(presence) = registry.show_presence().await.map_err(failed(self))? {
                return Ok(Standing::Shared(presence));
            }
            if begun.elapsed() >= most {
                let place = self.database.as_ref().map_or("", |settings| settings.place());
                return Err(StartError::DatabaseInUse(place.to_owned()));
            }
            sleep(TRIED_EVERY).await;
        }
    }
}

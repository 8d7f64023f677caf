//! Taking no pushes any more, where several servers share a registry: each looks in the database.

use std::time::Duration;

use berth_shared::clock::Clock;
use tokio::time::sleep;

use super::{Home, StartError, clock_of, failed};
use crate::{
    jobs::event::Outcome,
    maintenance::LOOKED_EVERY,
    metadata::switch::BELIEVED,
    registry::{
        self,
        event::{Event, Events},
    },
};

const SECOND: Duration = Duration::from_secs(1);

/// The registry could not be switched.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The registry cannot be reached.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Nobody waits for it any more.
    #[error(transparent)]
    Registry(#[from] registry::Error),
}

impl Home {
    /// Tells all servers that share the registry to take no pushes, or to take them again. Where they are to
    /// take none it waits until each has heard so or could not look: that one takes none either. No commit
    /// begins then, and those that had are over.
    ///
    /// # Errors
    /// When the database cannot be asked, and when nobody listens any more.
    pub async fn switch(
        &self,
        on: bool,
        clock: Clock,
        events: &Events,
    ) -> Result<Outcome, SwitchError> {
        let database = self.open_beside().await.map_err(failed(self))?;
        let clock = clock_of(&database, clock).await.map_err(failed(self))?;
        let since = on.then(|| clock.now());
        database.set_read_only(since).await.map_err(failed(self))?;
        if on {
            let most = LOOKED_EVERY + BELIEVED;
            let what = format!("until every server has heard it, {} s", most.as_secs());
            events.say(Event::Waiting { what }).await?;
            for done in 0..most.as_secs() {
                events.progress((done, most.as_secs()), (0, 0)).await?;
                sleep(SECOND).await;
            }
            // Whose commit was on its way, or who stood still with one.
            while database.open_transactions(SECOND).await.map_err(failed(self))? > 0 {
                let what = "until the last change is through".to_owned();
                events.say(Event::Waiting { what }).await?;
                sleep(SECOND).await;
            }
        } else {
            // So that who pushes next is not refused.
            sleep(LOOKED_EVERY + SECOND).await;
        }
        database.close().await;
        Ok(Outcome::ReadOnly { on })
    }
}

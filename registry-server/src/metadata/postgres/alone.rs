//! One process at a time works on a database whose objects lie in a directory: the directory's lock says so
//! for this machine, and this one for all others.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use super::{Settings, connect_alone, no_answer};
use crate::metadata::Error;

/// By which identity the lock is told from those of others. What is known of a process that has died with
/// its machine ends a while later.
const TAKE: &str = "SELECT pg_try_advisory_lock(hashtextextended(identity, 0)) FROM state,
     set_config('tcp_keepalives_idle', '5', FALSE) a,
     set_config('tcp_keepalives_interval', '5', FALSE) b,
     set_config('tcp_keepalives_count', '3', FALSE) c";

/// How often it is tried again.
const TRY_EVERY: Duration = Duration::from_millis(200);

/// How often it is asked whether it is still held.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// The lock, for as long as its connection is there.
#[derive(Debug)]
pub(crate) struct Alone {
    settings: Settings,
    connection: PgConnection,
}

impl Alone {
    /// Takes it, and waits so long for another process to end; `None` when that does not.
    pub(crate) async fn take(settings: &Settings, most: Duration) -> Result<Option<Self>, Error> {
        let (settings, begun) = (settings.clone(), Instant::now());
        let mut connection = connect_alone(&settings).await?;
        let mut is_told = most.is_zero();
        loop {
            let asked = sqlx::query_scalar(TAKE).fetch_one(&mut connection);
            let taken = timeout(settings.answer_time(), asked).await;
            let taken = taken.unwrap_or_else(|_| Err(no_answer()));
            if taken.map_err(Error::of_postgres)? {
                return Ok(Some(Self { settings, connection }));
            }
            if begun.elapsed() >= most {
                return Ok(None);
            }
            if !is_told {
                tracing::info!(
                    secs = most.as_secs(),
                    "another registry-server has the database: waiting"
                );
                is_told = true;
            }
            sleep(TRY_EVERY).await;
        }
    }

    /// Holds it, also when the server was restarted. Ends when another process has it.
    pub(crate) async fn hold(mut self) {
        loop {
            sleep(ASK_EVERY).await;
            let asked = timeout(self.settings.answer_time(), self.connection.ping()).await;
            if matches!(asked, Ok(Ok(()))) {
                continue;
            }
            match Self::take(&self.settings, Duration::ZERO).await {
                Ok(Some(again)) => self = again,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "the database's lock cannot be taken again yet")
                }
            }
        }
    }
}

//! One process at a time works on a database whose objects lie in a directory, or restores one: the
//! directory's lock says so for this machine, and this one for all others. Those that share a registry do not
//! take it, and are there for others to see.

use std::time::Duration;

use berth_shared::database::no_answer;
use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use super::{Settings, connect_alone};
use crate::metadata::Error;

/// By which identity the lock is told from those of others. What is known of a process that has died with
/// its machine ends a while later.
const TAKE: &str = "SELECT pg_try_advisory_lock(hashtextextended(identity, 0)) FROM state,
     set_config('tcp_keepalives_idle', '5', FALSE) a,
     set_config('tcp_keepalives_interval', '5', FALSE) b,
     set_config('tcp_keepalives_count', '3', FALSE) c";

/// What gives it back.
const GIVE_BACK: &str = "SELECT pg_advisory_unlock(hashtextextended(identity, 0)) FROM state";

/// How long it is tried to have it again when its connection broke.
const AGAIN_TIME: Duration = Duration::from_secs(5);

/// Whether processes that share the registry are there.
const SHARED: &str =
    "SELECT EXISTS (SELECT 1 FROM leases WHERE name >= 'server/' AND name < 'server0'
     AND until >= CAST(extract(epoch FROM clock_timestamp()) AS BIGINT))";

/// Whether a process has it alone. What this takes it gives back at once.
pub(in crate::metadata) const IS_ALONE: &str =
    "SELECT NOT pg_try_advisory_xact_lock_shared(hashtextextended(identity, 0)) FROM state";

/// What became of trying to take it.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It is this process's.
    Alone(Alone),
    /// Another process has it.
    Used,
    /// Several share the registry.
    Shared,
}

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
    /// Takes it, and waits so long for other processes to end.
    pub(crate) async fn take(settings: &Settings, most: Duration) -> Result<Taken, Error> {
        let (settings, begun) = (settings.clone(), Instant::now());
        let mut connection = connect_alone(&settings).await?;
        let mut is_told = most.is_zero();
        loop {
            let asked = async {
                // Whoever shares it says so before it looks whether somebody has it alone.
                let is_taken = sqlx::query_scalar(TAKE).fetch_one(&mut connection).await?;
                let is_shared = sqlx::query_scalar(SHARED).fetch_one(&mut connection).await?;
                if is_taken && is_shared {
                    // Others would take it for refused.
                    sqlx::query(GIVE_BACK).execute(&mut connection).await?;
                }
                Ok((is_taken, is_shared))
            };
            let taken = timeout(settings.server.answer_time(), asked).await;
            let taken = taken.unwrap_or_else(|_| Err(no_answer()));
            let in_the_way = match taken.map_err(Error::of_postgres)? {
                (true, false) => return Ok(Taken::Alone(Self { settings, connection })),
                (false, _) => Taken::Used,
                (true, true) => Taken::Shared,
            };
            if begun.elapsed() >= most {
                return Ok(in_the_way);
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
            let asked = timeout(self.settings.server.answer_time(), self.connection.ping()).await;
            if matches!(asked, Ok(Ok(()))) {
                continue;
            }
            match Self::take(&self.settings, AGAIN_TIME).await {
                Ok(Taken::Alone(again)) => self = again,
                Ok(Taken::Used | Taken::Shared) => return,
                Err(error) => {
                    tracing::debug!(%error, "the database's lock cannot be taken again yet")
                }
            }
        }
    }
}

//! Work that one of several servers on the same registry does at a time, and stored objects that none of
//! them deletes meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use berth_shared::{
    clock::{Clock, UnixSeconds},
    telemetry::chain,
};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::Error;
use crate::metadata::{
    self, Database,
    lease::{Kind, Name},
    postgres::Alone,
};

/// How long a lease lasts that nobody says again, in seconds.
const LASTS_SECS: i64 = 60;

/// How long giving one back may take.
const GIVEN_BACK_TIME: Duration = Duration::from_secs(2);

/// How often it is said again.
const SAID_EVERY: Duration = Duration::from_secs(15);

/// When it is tried again to get one that somebody else has; each time it waits twice as long.
const TRIED_AGAIN: Duration = Duration::from_millis(50);

/// Until it waits so long.
const TRIED_EVERY: Duration = Duration::from_secs(1);

/// What one server does at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Looking whether the bucket is the registry's, and making it so.
    Start,
    /// Collecting garbage.
    Collection,
    /// Hashing what is stored.
    Verification,
    /// Counting what is stored.
    Totals,
}

impl Work {
    /// What the lease is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Collection => "collection",
            Self::Verification => "verification",
            Self::Totals => "totals",
        }
    }
}

/// The right to do work, until it is dropped. Who works on a registry alone has it without asking.
#[derive(Debug)]
pub(crate) struct Lease(Option<Kept>);

impl Lease {
    /// Of who works alone.
    pub(crate) fn of_one() -> Self {
        Self(None)
    }

    /// Takes it, unless another server has it or its work came to its end after `due`.
    pub(crate) async fn take(
        database: &Database,
        clock: &Clock,
        work: Work,
        due: UnixSeconds,
    ) -> Result<Option<Self>, metadata::Error> {
        let name = Name { of: work.name().to_owned(), holder: random() };
        let now = clock.now();
        let Some(done) = database.take_lease(&name, now, now + LASTS_SECS, due).await? else {
            return Ok(None);
        };
        if done > due {
            // Nobody had ever done it, and the time begins now.
            database.end_lease(&name, None).await?;
            return Ok(None);
        }
        Ok(Some(Self(Some(Kept::new(database, clock, name)))))
    }

    /// Waits for it, and calls `told` once when there is something to wait for.
    pub(crate) async fn wait_for<E: From<metadata::Error>>(
        database: &Database,
        clock: &Clock,
        work: Work,
        told: impl AsyncFnOnce() -> Result<(), E>,
    ) -> Result<Self, E> {
        let (mut told, mut pause) = (Some(told), TRIED_AGAIN);
        loop {
            if let Some(lease) = Self::take(database, clock, work, UnixSeconds::MAX).await? {
                return Ok(lease);
            }
            if let Some(told) = told.take() {
                told().await?;
            }
            sleep(pause).await;
            pause = (2 * pause).min(TRIED_EVERY);
        }
    }

    /// Whether another server may do the work by now: then this one stops.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match &self.0 {
            Some(kept) if kept.is_lost() => Err(Error::TakenOver),
            _ => Ok(()),
        }
    }

    /// Ends it, since the work came to its end now.
    pub(crate) async fn done(self, now: UnixSeconds) {
        self.give_back(Some(now)).await;
    }

    /// Ends it.
    pub(crate) async fn end(self) {
        self.give_back(None).await;
    }

    async fn give_back(self, done: Option<UnixSeconds>) {
        if let Some(kept) = self.0 {
            kept.give_back(done).await;
        }
    }
}

/// What others see as long as this is kept: that blobs' objects are not to be deleted, or that a process
/// works on the registry. Whoever deletes objects lets rows go first, and looks for holds between that and
/// the objects.
#[derive(Debug)]
pub(crate) struct Sign(Kept);

impl Sign {
    /// Begins to show it.
    pub(crate) async fn show(
        kind: Kind,
        database: &Database,
        clock: &Clock,
    ) -> Result<Self, metadata::Error> {
        let (name, now) = (kind.name(random()), clock.now());
        // Of those who died.
        database.forget_leases(kind, now).await?;
        database.take_lease(&name, now, now + LASTS_SECS, UnixSeconds::MAX).await?;
        Ok(Self(Kept::new(database, clock, name)))
    }

    /// Whether all have seen it until now.
    pub(crate) fn lasts(&self) -> bool {
        !self.0.is_lost()
    }

    /// Shows it no more.
    pub(crate) async fn end(self) {
        self.0.give_back(None).await;
    }
}

/// How a process stands to others that would work on the same registry.
#[derive(Debug)]
pub(crate) enum Standing {
    /// Nobody else does.
    Alone(Option<Alone>),
    /// Others may, and see it.
    Shared(Sign),
}

impl Standing {
    /// Lets others know that it has ended.
    pub(crate) async fn end(self) {
        if let Self::Shared(presence) = self {
            presence.end().await;
        }
    }
}

/// A lease that is said again until it is given back.
#[derive(Debug)]
struct Kept {
    database: Database,
    name: Name,
    said: Arc<Said>,
    is_given_back: bool,
    _said_again: AbortOnDropHandle<()>,
}

impl Kept {
    fn new(database: &Database, clock: &Clock, name: Name) -> Self {
        let said = Arc::new(Said::now());
        let heard = Arc::clone(&said);
        let again = say_again(database.clone(), clock.clone(), name.clone(), heard, SAID_EVERY);
        let said_again = AbortOnDropHandle::new(tokio::spawn(again));
        let database = database.clone();
        Self { database, name, said, is_given_back: false, _said_again: said_again }
    }

    fn is_lost(&self) -> bool {
        self.said.is_lost()
    }

    async fn give_back(mut self, done: Option<UnixSeconds>) {
        self.is_given_back = true;
        // Where it cannot be given back soon, it ends by itself.
        let ended = timeout(GIVEN_BACK_TIME, self.database.end_lease(&self.name, done)).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::debug!(lease = self.name.of, "a lease could not be given back");
        }
    }
}

/// When a lease was last said.
#[derive(Debug)]
struct Said {
    last: Mutex<Instant>,
    /// Whether another has it, or it had ended before it was said again.
    is_over: AtomicBool,
}

impl Said {
    fn now() -> Self {
        Self { last: Mutex::new(Instant::now()), is_over: AtomicBool::new(false) }
    }

    fn is_lost(&self) -> bool {
        let is_old = self.last.lock().elapsed().as_secs() >= LASTS_SECS.unsigned_abs();
        is_old || self.is_over.load(Ordering::Relaxed)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.is_given_back {
            return;
        }
        let (database, name) = (self.database.clone(), self.name.clone());
        // Whoever had it was stopped.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { database.end_lease(&name, None).await });
        }
    }
}

/// Keeps a lease, until somebody else has it or it has ended without having been said again. By the time
/// that the database says: this process may have stood still with its machine.
async fn say_again(database: Database, clock: Clock, name: Name, said: Arc<Said>, every: Duration) {
    let keep = async || {
        let now = match database.time().await? {
            Some((now, _)) => UnixSeconds::of(now),
            None => clock.now(),
        };
        database.keep_lease(&name, now, now + LASTS_SECS).await
    };
    while !said.is_lost() {
        sleep(every).await;
        let asked = Instant::now();
        match keep().await {
            Ok(true) => *said.last.lock() = asked,
            Ok(false) => break,
            Err(error) => tracing::debug!(error = chain(&error), "keeping a lease"),
        }
    }
    said.is_over.store(true, Ordering::Relaxed);
    tracing::warn!(
        lease = name.of,
        "the database did not hear of this process for a minute, so that others take it for gone"
    );
}

fn random() -> String {
    format!("{:032x}", fastrand::u128(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;

    async fn database() -> (tempfile::TempDir, Database, Clock) {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(&directory.path().join("registry.db")).await.unwrap();
        (directory, database, Clock::set(Clock::system().now()))
    }

    #[tokio::test]
    async fn one_server_has_a_lease_until_it_gives_it_back_or_is_not_heard_of() {
        let (_directory, database, clock) = database().await;
        let take = async || {
            Lease::take(&database, &clock, Work::Collection, UnixSeconds::MAX).await.unwrap()
        };
        let first = take().await.unwrap();
        assert!(take().await.is_none(), "somebody has it");
        first.end().await;
        let second = take().await.unwrap();
        clock.advance(Duration::from_secs(59));
        assert!(take().await.is_none());
        clock.advance(Duration::from_secs(2));
        let third = take().await.expect("the one who had it was not heard of");
        // Which gives back what is not its own any more.
        second.end().await;
        assert!(take().await.is_none());
        third.end().await;
    }

    #[tokio::test]
    async fn work_is_done_again_when_it_is_due_and_by_one_server() {
        let (_directory, database, clock) = database().await;
        let due = async || {
            let due = clock.now() - HOUR;
            Lease::take(&database, &clock, Work::Totals, due).await.unwrap()
        };
        assert!(due().await.is_none(), "the time begins at the first look");
        clock.advance(Duration::from_secs(HOUR.unsigned_abs()));
        let lease = due().await.expect("it is due");
        assert!(due().await.is_none(), "somebody does it");
        lease.done(clock.now()).await;
        assert!(due().await.is_none(), "it was done");
        clock.advance(Duration::from_secs(HOUR.unsigned_abs()));
        let failed = due().await.unwrap();
        failed.end().await;
        assert!(due().await.is_some(), "it broke off, and is still due");
    }

    #[tokio::test]
    async fn a_lease_is_said_again_until_another_has_it() {
        const OFTEN: Duration = Duration::from_millis(1);
        let (_directory, database, clock) = database().await;
        let take = async || {
            Lease::take(&database, &clock, Work::Collection, UnixSeconds::MAX).await.unwrap()
        };
        let name = Name { of: Work::Collection.name().to_owned(), holder: random() };
        let begun = clock.now();
        database.take_lease(&name, begun, begun + LASTS_SECS, UnixSeconds::MAX).await.unwrap();
        let said = Arc::new(Said::now());
        let again = say_again(database.clone(), clock.clone(), name, Arc::clone(&said), OFTEN);
        let _again = AbortOnDropHandle::new(tokio::spawn(again));
        for _ in 0..10 {
            clock.advance(Duration::from_secs(30));
            // Said again within the half of its time, it lasts.
            while database.lease_until(Work::Collection.name()).await.unwrap() < clock.now() + 60 {
                tokio::task::yield_now().await;
            }
            assert!(take().await.is_none());
        }
        assert!(!said.is_lost());
        let other = Name { of: Work::Collection.name().to_owned(), holder: random() };
        let later = clock.now() + 3 * LASTS_SECS;
        database.take_lease(&other, later, later + 60, UnixSeconds::MAX).await.unwrap().unwrap();
        while !said.is_lost() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn objects_are_held_until_the_last_has_let_go_or_is_not_heard_of() {
        let (_directory, database, clock) = database().await;
        let is_held = async || database.has_lease(Kind::Hold, clock.now()).await.unwrap();
        let hold = async || Sign::show(Kind::Hold, &database, &clock).await.unwrap();
        let (first, second) = (hold().await, hold().await);
        let _presence = Sign::show(Kind::Presence, &database, &clock).await.unwrap();
        first.end().await;
        assert!(is_held().await);
        clock.advance(Duration::from_secs(61));
        assert!(!is_held().await, "nobody has said so for long");
        assert!(second.lasts());
        second.end().await;
        assert!(!is_held().await);
    }
}

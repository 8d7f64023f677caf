//! The eye on the writer: what is at work for too long is interrupted.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// How long a write may wait where no settings say so.
const DEFAULT: Duration = Duration::from_secs(30);

/// Work may take this part of the time that it may wait: those behind what takes too long have the
/// rest of theirs left.
const WORK_PART: u32 = 3;

/// How long the work in hand may take. Asked by the database between its steps, and by the writer
/// between statements.
#[derive(Debug)]
pub(super) struct Watch {
    ends: Mutex<Ends>,
    shortened: Notify,
}

#[derive(Debug)]
struct Ends {
    /// How long a write may wait for its turn.
    limit: Duration,
    /// Of the work in hand.
    work: Option<Instant>,
    /// Of all work, once the writer is to stop.
    all: Option<Instant>,
}

impl Watch {
    pub(super) fn new() -> Self {
        let ends = Ends { limit: DEFAULT, work: None, all: None };
        Self { ends: Mutex::new(ends), shortened: Notify::new() }
    }

    /// How long a write may wait for its turn.
    pub(super) fn limit(&self) -> Duration {
        self.ends.lock().limit
    }

    pub(super) fn set_limit(&self, most: Duration) {
        self.ends.lock().limit = most;
    }

    /// Watches the work that begins.
    pub(super) fn begin(&self) {
        let mut ends = self.ends.lock();
        ends.work = Some(Instant::now() + ends.limit / WORK_PART);
    }

    /// Watches no more.
    pub(super) fn end(&self) {
        self.ends.lock().work = None;
    }

    /// Lets no work take longer than this from now on.
    pub(super) fn stop_within(&self, most: Duration) {
        self.ends.lock().all = Some(Instant::now() + most);
        self.shortened.notify_one();
    }

    fn at(&self) -> Option<Instant> {
        let ends = self.ends.lock();
        let work = ends.work?;
        Some(ends.all.map_or(work, |all| all.min(work)))
    }

    /// Whether the work in hand has taken too long.
    pub(super) fn is_over(&self) -> bool {
        self.at().is_some_and(|end| end <= Instant::now())
    }

    /// Returns when it has.
    pub(super) async fn over(&self) {
        loop {
            match self.at() {
                Some(end) if end <= Instant::now() => return,
                Some(end) => tokio::select! {
                    () = sleep_until(end) => {}
                    () = self.shortened.notified() => {}
                },
                None => self.shortened.notified().await,
            }
        }
    }
}

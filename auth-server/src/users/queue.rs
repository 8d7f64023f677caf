//! The queue for bcrypt: bounded in threads and in places, and strangers stand behind everybody
//! else.
//!
//! Whoever signed in from where they are before, or shows a password that was right before, waits
//! for what is running and for others like them, and for no stranger who came earlier. Strangers
//! have half of the places, so that they fill the queue for one another alone.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Somebody who has signed in from there, or with that password.
    Known,
    /// Anybody else.
    Stranger,
}

/// Nobody may wait any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    threads: Arc<Semaphore>,
    threads_max: usize,
    /// Held by strangers beside a thread, so that the rest of them do not stand in line for one.
    strangers: Arc<Semaphore>,
    waiting: Places,
    waiting_strangers: Places,
}

/// The right to run one check, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    // In this order: a thread that is free goes to whoever is in line for it, and a stranger joins
    // that line behind them.
    _thread: OwnedSemaphorePermit,
    _stranger: Option<OwnedSemaphorePermit>,
}

impl Queue {
    /// A queue for `threads_max` threads in which `waiting_max` may wait.
    pub(super) fn new(threads_max: usize, waiting_max: usize) -> Self {
        Self {
            threads: Arc::new(Semaphore::new(threads_max)),
            threads_max,
            strangers: Arc::new(Semaphore::new(threads_max)),
            waiting: Places::new(waiting_max),
            waiting_strangers: Places::new(waiting_max.div_ceil(2)),
        }
    }

    /// Waits for a thread.
    pub(super) async fn turn(&self, standing: Standing) -> Result<Turn, Full> {
        let is_stranger = standing == Standing::Stranger;
        let _place = self.waiting.take()?;
        let _among_strangers = is_stranger.then(|| self.waiting_strangers.take()).transpose()?;
        let _stranger = if is_stranger { Some(acquire(&self.strangers).await?) } else { None };
        Ok(Turn { _thread: acquire(&self.threads).await?, _stranger })
    }

    /// Checks that run, and those that may at once.
    pub(super) fn running(&self) -> (usize, usize) {
        let running = self.threads_max.saturating_sub(self.threads.available_permits());
        (running, self.threads_max)
    }

    /// Checks that wait, and those that may at once.
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.waiting.taken.load(Ordering::Relaxed), self.waiting.most)
    }
}

async fn acquire(semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Full> {
    // It is never closed.
    Arc::clone(semaphore).acquire_owned().await.map_err(|_| Full)
}

/// Places to wait in.
#[derive(Debug)]
struct Places {
    taken: AtomicUsize,
    most: usize,
}

/// One of them, given back when dropped.
struct Place<'a>(&'a Places);

impl Places {
    fn new(most: usize) -> Self {
        Self { taken: AtomicUsize::new(0), most }
    }

    fn take(&self) -> Result<Place<'_>, Full> {
        self.taken
            .try_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
                (now < self.most).then_some(now + 1)
            })
            .map(|_| Place(self))
            .map_err(|_| Full)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, future::BoxFuture};

    use super::*;

    /// Joins the queue, and says whether the turn came at once.
    fn join(
        queue: &Queue,
        standing: Standing,
    ) -> (BoxFuture<'_, Result<Turn, Full>>, Option<Turn>) {
        let mut turn = queue.turn(standing).boxed();
        let came = (&mut turn).now_or_never().map(Result::unwrap);
        (turn, came)
    }

    #[tokio::test]
    async fn strangers_stand_behind_who_is_known() {
        let queue = Queue::new(1, 10);
        let (_, running) = join(&queue, Standing::Stranger);
        let (first_stranger, none) = join(&queue, Standing::Stranger);
        assert!(none.is_none());
        let (second_stranger, _) = join(&queue, Standing::Stranger);
        let (known, _) = join(&queue, Standing::Known);
        drop(running.unwrap());
        let turn = known.now_or_never().unwrap().unwrap();
        let (later_known, _) = join(&queue, Standing::Known);
        assert_eq!((queue.running(), queue.waiting()), ((1, 1), (3, 10)));
        let mut strangers = [first_stranger, second_stranger];
        assert!(strangers.iter_mut().all(|stranger| stranger.now_or_never().is_none()));
        drop(turn);
        drop(later_known.now_or_never().unwrap().unwrap());
        for stranger in strangers {
            drop(stranger.await.unwrap());
        }
        assert_eq!((queue.running(), queue.waiting()), ((0, 1), (0, 10)));
    }

    #[tokio::test]
    async fn strangers_fill_half_of_the_queue_and_the_known_all_of_it() {
        let queue = Queue::new(1, 4);
        let (_, _running) = join(&queue, Standing::Known);
        let _strangers = [join(&queue, Standing::Stranger), join(&queue, Standing::Stranger)];
        assert_eq!(queue.turn(Standing::Stranger).await.unwrap_err(), Full);
        let waiting = [join(&queue, Standing::Known), join(&queue, Standing::Known)];
        assert_eq!(queue.turn(Standing::Known).await.unwrap_err(), Full);
        // Who leaves makes room.
        drop(waiting);
        assert!(join(&queue, Standing::Known).1.is_none());
    }
}

//! The queue for bcrypt: bounded in threads and in places, and strangers stand behind everybody
//! else.
//!
//! Whoever signed in from where they are before, or shows a password that was right before, waits
//! for what is running and for others like them, and for no stranger who came earlier. Strangers
//! have half of the places, so that they fill the queue for one another alone, and those of one
//! network half of that.

use std::{collections::HashMap, sync::Arc};

use berth_shared::claimant::Network;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Standing {
    /// Somebody who has signed in from there, or with that password.
    Known,
    /// Anybody else, from there.
    Stranger(Network),
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
    /// How many wait of each standing that somebody has.
    waiting: Mutex<HashMap<Standing, usize>>,
    waiting_max: usize,
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
            waiting: Mutex::default(),
            waiting_max,
        }
    }

    /// Waits for a thread.
    pub(super) async fn turn(&self, standing: Standing) -> Result<Turn, Full> {
        let _place = self.place(standing)?;
        let stranger = match standing {
            Standing::Known => None,
            Standing::Stranger(_) => Some(acquire(&self.strangers).await?),
        };
        Ok(Turn { _thread: acquire(&self.threads).await?, _stranger: stranger })
    }

    /// Takes a place among those who wait.
    fn place(&self, standing: Standing) -> Result<Place<'_>, Full> {
        let mut waiting = self.waiting.lock();
        let of = |standing| waiting.get(&standing).copied().unwrap_or_default();
        let all: usize = waiting.values().sum();
        let strangers = all - of(Standing::Known);
        let has_share = standing == Standing::Known
            || (strangers < self.waiting_max.div_ceil(2)
                && of(standing) < self.waiting_max.div_ceil(4));
        if all >= self.waiting_max || !has_share {
            return Err(Full);
        }
        *waiting.entry(standing).or_default() += 1;
        Ok(Place(self, standing))
    }

    /// Checks that run, and those that may at once.
    pub(super) fn running(&self) -> (usize, usize) {
        let running = self.threads_max.saturating_sub(self.threads.available_permits());
        (running, self.threads_max)
    }

    /// Checks that wait, and those that may at once.
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.waiting.lock().values().sum(), self.waiting_max)
    }
}

async fn acquire(semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Full> {
    // It is never closed.
    Arc::clone(semaphore).acquire_owned().await.map_err(|_| Full)
}

/// A place among those who wait, given back when dropped.
struct Place<'a>(&'a Queue, Standing);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock();
        if let Some(own) = waiting.get_mut(&self.1) {
            *own -= 1;
            if *own == 0 {
                waiting.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_shared::claimant::network_of;
    use futures_util::{FutureExt, future::BoxFuture};

    use super::*;

    const STRANGER: Standing = Standing::Stranger(None);

    fn stranger(n: u8) -> Standing {
        Standing::Stranger(Some(network_of([192, 0, n, 1].into())))
    }

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
        let (_, running) = join(&queue, STRANGER);
        let (first_stranger, none) = join(&queue, STRANGER);
        assert!(none.is_none());
        let (second_stranger, _) = join(&queue, STRANGER);
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
        let _first = join(&queue, STRANGER);
        assert_eq!(queue.turn(STRANGER).await.unwrap_err(), Full, "one network has a half");
        assert_eq!(queue.waiting.lock().len(), 1);
        let second = join(&queue, stranger(2));
        assert_eq!(queue.turn(stranger(3)).await.unwrap_err(), Full);
        drop(second);
        assert_eq!(queue.waiting.lock().len(), 1, "who left is forgotten");
        let _second = join(&queue, stranger(2));
        let waiting = [join(&queue, Standing::Known), join(&queue, Standing::Known)];
        assert_eq!(queue.turn(Standing::Known).await.unwrap_err(), Full);
        // Who leaves makes room.
        drop(waiting);
        assert!(join(&queue, Standing::Known).1.is_none());
    }
}

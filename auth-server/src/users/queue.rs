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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    waiting: Semaphore,
    waiting_max: usize,
    waiting_strangers: Semaphore,
    waiting_by_network: Shares,
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
            waiting: Semaphore::new(waiting_max),
            waiting_max,
            waiting_strangers: Semaphore::new(waiting_max.div_ceil(2)),
            waiting_by_network: Shares::new(waiting_max.div_ceil(4)),
        }
    }

    /// Waits for a thread.
    pub(super) async fn turn(&self, standing: Standing) -> Result<Turn, Full> {
        let _place = self.waiting.try_acquire().map_err(|_| Full)?;
        let Standing::Stranger(network) = standing else {
            return Ok(Turn { _thread: acquire(&self.threads).await?, _stranger: None });
        };
        let _among_strangers = self.waiting_strangers.try_acquire().map_err(|_| Full)?;
        let _of_network = self.waiting_by_network.take(network)?;
        let stranger = acquire(&self.strangers).await?;
        Ok(Turn { _thread: acquire(&self.threads).await?, _stranger: Some(stranger) })
    }

    /// Checks that run, and those that may at once.
    pub(super) fn running(&self) -> (usize, usize) {
        let running = self.threads_max.saturating_sub(self.threads.available_permits());
        (running, self.threads_max)
    }

    /// Checks that wait, and those that may at once.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let waiting = self.waiting_max.saturating_sub(self.waiting.available_permits());
        (waiting, self.waiting_max)
    }
}

async fn acquire(semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Full> {
    // It is never closed.
    Arc::clone(semaphore).acquire_owned().await.map_err(|_| Full)
}

/// Places that each network has a share of. Remembers networks that somebody waits from, and no
/// other.
#[derive(Debug)]
struct Shares {
    taken: Mutex<HashMap<Network, usize>>,
    most: usize,
}

/// A place of a network, given back when dropped.
struct Share<'a>(&'a Shares, Network);

impl Shares {
    fn new(most: usize) -> Self {
        Self { taken: Mutex::default(), most }
    }

    fn take(&self, network: Network) -> Result<Share<'_>, Full> {
        let mut taken = self.taken.lock();
        let own = taken.entry(network).or_default();
        if *own >= self.most {
            return Err(Full);
        }
        *own += 1;
        Ok(Share(self, network))
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut taken = self.0.taken.lock();
        if let Some(own) = taken.get_mut(&self.1) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.1);
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
        assert_eq!(queue.waiting_by_network.taken.lock().len(), 1);
        let second = join(&queue, stranger(2));
        assert_eq!(queue.turn(stranger(3)).await.unwrap_err(), Full);
        drop(second);
        assert_eq!(queue.waiting_by_network.taken.lock().len(), 1, "who left is forgotten");
        let _second = join(&queue, stranger(2));
        let waiting = [join(&queue, Standing::Known), join(&queue, Standing::Known)];
        assert_eq!(queue.turn(Standing::Known).await.unwrap_err(), Full);
        // Who leaves makes room.
        drop(waiting);
        assert!(join(&queue, Standing::Known).1.is_none());
    }
}

//! What waits for the writer: a lane for each asker, and the writer takes one piece of work from
//! each in turn.
//!
//! So whoever asks for much waits behind what they asked for themselves, and nobody else does. What
//! its asker does not wait for any more leaves the queue, unless it was begun.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::metadata::{Asker, Error};

/// Pieces of work of one asker that may wait: more than all connections of a network together.
const LANE_MAX: usize = 1024;

/// The queue. Many put work into it, and one takes it out.
#[derive(Debug)]
pub(super) struct Queue<W> {
    lanes: Mutex<Lanes<W>>,
    filled: Notify,
}

#[derive(Debug)]
struct Lanes<W> {
    /// None of them is empty. Numbers ascend.
    work: HashMap<Asker, VecDeque<(u64, W)>>,
    /// Whose turn it is next: each that has a lane, once.
    turns: VecDeque<Asker>,
    last: u64,
    is_closed: bool,
}

impl<W> Queue<W> {
    pub(super) fn new() -> Arc<Self> {
        let (work, turns) = (HashMap::new(), VecDeque::new());
        let lanes = Mutex::new(Lanes { work, turns, last: 0, is_closed: false });
        Arc::new(Self { lanes, filled: Notify::new() })
    }

    /// Puts work at the end of the asker's lane.
    pub(super) fn put(self: &Arc<Self>, asker: Asker, work: W) -> Result<Place<W>, Error> {
        let mut lanes = self.lanes.lock();
        if lanes.is_closed {
            return Err(Error::Closed);
        }
        lanes.last += 1;
        let number = lanes.last;
        let lane = lanes.work.entry(asker.clone()).or_default();
        if lane.len() >= LANE_MAX {
            return Err(Error::Busy);
        }
        lane.push_back((number, work));
        if lane.len() == 1 {
            lanes.turns.push_back(asker.clone());
        }
        drop(lanes);
        self.filled.notify_one();
        Ok(Place { queue: Arc::clone(self), asker, number })
    }

    /// Takes the first of whose turn it is.
    pub(super) fn take(&self) -> Option<W> {
        let mut lanes = self.lanes.lock();
        let asker = lanes.turns.pop_front()?;
        let lane = lanes.work.get_mut(&asker)?;
        let (_, work) = lane.pop_front()?;
        if lane.is_empty() {
            lanes.work.remove(&asker);
        } else {
            lanes.turns.push_back(asker);
        }
        Some(work)
    }

    /// Waits for work. `false` when there will be none.
    pub(super) async fn is_filled(&self) -> bool {
        loop {
            {
                let lanes = self.lanes.lock();
                if lanes.is_closed || !lanes.turns.is_empty() {
                    return !lanes.is_closed;
                }
            }
            self.filled.notified().await;
        }
    }

    /// Takes no more, and drops what was not begun.
    pub(super) fn close(&self) {
        let mut lanes = self.lanes.lock();
        lanes.is_closed = true;
        lanes.turns.clear();
        let dropped = std::mem::take(&mut lanes.work);
        drop(lanes);
        drop(dropped);
        self.filled.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lanes.lock().is_closed
    }

    pub(super) fn len(&self) -> usize {
        self.lanes.lock().work.values().map(VecDeque::len).sum()
    }

    /// Takes a piece of work out before its turn; `None` when it was begun.
    fn give_up(&self, asker: &Asker, number: u64) -> Option<W> {
        let mut lanes = self.lanes.lock();
        let lane = lanes.work.get_mut(asker)?;
        let at = lane.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let (_, work) = lane.remove(at)?;
        if lane.is_empty() {
            lanes.work.remove(asker);
            lanes.turns.retain(|other| other != asker);
        }
        Some(work)
    }
}

/// A piece of work in the queue, which leaves it when this is dropped first.
#[derive(Debug)]
pub(super) struct Place<W> {
    queue: Arc<Queue<W>>,
    asker: Asker,
    number: u64,
}

impl<W> Place<W> {
    /// Leaves the queue. `false` when the work was begun: then it comes to its end.
    pub(super) fn give_up(&self) -> bool {
        self.queue.give_up(&self.asker, self.number).is_some()
    }
}

impl<W> Drop for Place<W> {
    fn drop(&mut self) {
        self.give_up();
    }
}

#[cfg(test)]
mod tests {
    use berth_shared::{claimant::Claimant, subject::Subject};

    use super::*;

    fn subject(name: &str) -> Asker {
        Asker::Client(Arc::new(Claimant::Subject(Subject::User(name.parse().unwrap()))))
    }

    #[tokio::test]
    async fn askers_are_served_in_turn_and_each_in_order() {
        let queue = Queue::new();
        let of_many: Vec<_> = (0..5).map(|n| queue.put(subject("many"), n).unwrap()).collect();
        let of_one = queue.put(subject("one"), 10).unwrap();
        assert!(queue.is_filled().await);
        assert_eq!([(); 3].map(|()| queue.take().unwrap()), [0, 10, 1]);
        assert!(!of_one.give_up());
        let later = queue.put(subject("one"), 11).unwrap();
        assert_eq!([(); 4].map(|()| queue.take().unwrap()), [2, 11, 3, 4]);
        assert_eq!((queue.take(), queue.len()), (None, 0));
        drop((of_many, later));
    }

    #[test]
    fn what_nobody_waits_for_leaves_the_queue() {
        let queue = Queue::new();
        let mut places: Vec<_> = (0..4).map(|n| queue.put(Asker::Server, n).unwrap()).collect();
        drop(places.remove(2));
        assert!(places.remove(0).give_up());
        assert_eq!((queue.take(), queue.take(), queue.take()), (Some(1), Some(3), None));
        drop(queue.put(subject("gone"), 5).unwrap());
        assert!(queue.lanes.lock().turns.is_empty() && queue.lanes.lock().work.is_empty());
    }

    #[test]
    fn a_lane_is_bounded_and_the_others_are_not_for_it() {
        let queue = Queue::new();
        let places: Vec<_> =
            (0..LANE_MAX).map(|n| queue.put(subject("many"), n).unwrap()).collect();
        assert!(matches!(queue.put(subject("many"), 0), Err(Error::Busy)));
        let other = queue.put(subject("one"), 1).unwrap();
        drop(places);
        assert_eq!(queue.len(), 1);
        queue.close();
        assert!(!other.give_up() && queue.take().is_none());
        assert!(matches!(queue.put(subject("one"), 1), Err(Error::Closed)));
    }
}

//! Who pushes, and the share of the registry that is theirs: slots in which bytes are hashed and
//! written, and bytes that lie in unfinished uploads.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    metadata::upload::Pusher,
    storage::room::{Place, Room, RoomShare},
};

/// Files of uploads that stay open while their clients think. Those of further uploads are synced
/// and closed meanwhile, so that no number of uploads takes the files that everybody needs.
const KEPT_OPEN_MAX: usize = 256;

/// How many of these one pusher may have.
const KEPT_OPEN_PER_PUSHER_MAX: usize = KEPT_OPEN_MAX / 4;

/// The slots, and what of them and of the store each pusher has who pushes now.
#[derive(Debug)]
pub(crate) struct Pushers {
    slots: Arc<Semaphore>,
    slots_max: usize,
    kept_open: Arc<Semaphore>,
    /// The memory for what is received, where the store holds that until it is a part.
    room: Option<Room>,
    active: Mutex<HashMap<Pusher, Active>>,
}

/// A pusher with uploads under way.
#[derive(Debug)]
struct Active {
    share: Arc<Share>,
    uploads: usize,
}

#[derive(Debug)]
struct Share {
    slots: Arc<Semaphore>,
    kept_open: Arc<Semaphore>,
    room: Option<RoomShare>,
    /// Bytes that requests have received and no row counts yet.
    unrecorded_bytes: AtomicU64,
}

impl Pushers {
    /// Nobody yet, with `slots_max` slots for all, and the store's room.
    pub(crate) fn new(slots_max: usize, room: Option<Room>) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(slots_max)),
            slots_max,
            kept_open: Arc::new(Semaphore::new(KEPT_OPEN_MAX)),
            room,
            active: Mutex::default(),
        }
    }

    /// How many slots are taken, and how many there are.
    pub(crate) fn slots(&self) -> (usize, usize) {
        (self.slots_max.saturating_sub(self.slots.available_permits()), self.slots_max)
    }

    /// Begins an upload of `pusher`, who may have `slots_max` slots at once: a number that holds
    /// for as long as they have an upload under way.
    pub(super) fn begin(&self, pusher: &Pusher, slots_max: usize) -> Pushing<'_> {
        let mut active = self.active.lock();
        let fresh = || {
            let share = Share {
                slots: Arc::new(Semaphore::new(slots_max.min(Semaphore::MAX_PERMITS))),
                kept_open: Arc::new(Semaphore::new(KEPT_OPEN_PER_PUSHER_MAX)),
                room: self.room.as_ref().map(Room::share),
                unrecorded_bytes: AtomicU64::new(0),
            };
            Active { share: Arc::new(share), uploads: 0 }
        };
        let entry = active.entry(pusher.clone()).or_insert_with(fresh);
        entry.uploads += 1;
        let share = Arc::clone(&entry.share);
        let (pusher, unrecorded_bytes) = (pusher.clone(), AtomicU64::new(0));
        Pushing { pushers: self, pusher, share, unrecorded_bytes }
    }
}

/// An upload that is under way, until dropped.
#[derive(Debug)]
pub(super) struct Pushing<'p> {
    pushers: &'p Pushers,
    pusher: Pusher,
    share: Arc<Share>,
    /// This one's part of the share's.
    unrecorded_bytes: AtomicU64,
}

/// One of the pusher's share and of all, until dropped: the right to have bytes in hand, which is to
/// take them from the client, hash and write them, or to keep a file open while its client thinks.
#[derive(Debug)]
pub(super) struct Slot {
    _own: OwnedSemaphorePermit,
    _common: OwnedSemaphorePermit,
    _room: Option<Place>,
}

impl Pushing<'_> {
    /// Waits for a slot, and for room for `bytes` where the store needs that. Whoever has many
    /// uploads waits for one of their own first, so that no pusher has more than a share of the
    /// common queue. `None` when the registry is gone.
    pub(super) async fn slot(&self, bytes: u64) -> Option<Slot> {
        let own = Arc::clone(&self.share.slots).acquire_owned().await.ok()?;
        // Before the slot, which is for those alone who can go on.
        let room = match &self.share.room {
            Some(room) => Some(room.in_hand(bytes).await?),
            None => None,
        };
        let common = Arc::clone(&self.pushers.slots).acquire_owned().await.ok()?;
        Some(Slot { _own: own, _common: common, _room: room })
    }

    /// Whether somebody may be waiting for the slot that this upload has.
    pub(super) fn keeps_others_waiting(&self) -> bool {
        self.share.slots.available_permits() == 0
            || self.pushers.slots.available_permits() == 0
            || self.share.room.as_ref().is_some_and(RoomShare::is_short)
    }

    /// The pusher's share of the memory for what is received, where the store has such.
    pub(super) fn room(&self) -> Option<&RoomShare> {
        self.share.room.as_ref()
    }

    /// How long a part is where the store holds what comes until it is one, in bytes; else 0.
    pub(super) fn part_bytes(&self) -> u64 {
        self.share.room.as_ref().map_or(0, RoomShare::part_bytes)
    }

    /// The right to keep the file open while the client thinks, if the pusher's share and all of it
    /// have room.
    pub(super) fn keep_open(&self) -> Option<Slot> {
        let own = Arc::clone(&self.share.kept_open).try_acquire_owned().ok()?;
        let common = Arc::clone(&self.pushers.kept_open).try_acquire_owned().ok()?;
        Some(Slot { _own: own, _common: common, _room: None })
    }

    /// Notes bytes that were received and that no row counts yet.
    pub(super) fn note_received(&self, bytes: u64) {
        self.unrecorded_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.share.unrecorded_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes that a row counts all of this one's bytes now but so many.
    pub(super) fn note_recorded(&self, left: u64) {
        let bytes = self.unrecorded_bytes.swap(left, Ordering::Relaxed);
        self.share.unrecorded_bytes.fetch_sub(bytes.saturating_sub(left), Ordering::Relaxed);
    }

    /// How many such bytes all uploads of the pusher hold together.
    pub(super) fn unrecorded_bytes(&self) -> u64 {
        self.share.unrecorded_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Pushing<'_> {
    fn drop(&mut self) {
        let bytes = *self.unrecorded_bytes.get_mut();
        self.share.unrecorded_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let mut active = self.pushers.active.lock();
        let Some(entry) = active.get_mut(&self.pusher) else { return };
        entry.uploads -= 1;
        if entry.uploads == 0 {
            active.remove(&self.pusher);
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_shared::{claimant::Claimant, subject::Subject};

    use super::*;

    fn named(name: &str) -> Pusher {
        Pusher::of(&Claimant::Subject(Subject::User(name.parse().unwrap())))
    }

    #[tokio::test]
    async fn a_pusher_takes_a_share_of_the_slots_and_another_gets_the_next() {
        let pushers = Pushers::new(3, None);
        let eve: Vec<_> = (0..4).map(|_| pushers.begin(&named("eve"), 2)).collect();
        let held = (eve[0].slot(1).await.unwrap(), eve[1].slot(1).await.unwrap());
        assert!(eve[0].keeps_others_waiting());
        let waiting = eve[2].slot(1);
        tokio::select! {
            biased;
            _ = waiting => panic!("a third of her own"),
            slot = async { pushers.begin(&named("bob"), 2).slot(1).await.is_some() } => assert!(slot),
        }
        assert_eq!(pushers.slots(), (2, 3));
        drop(held);
        assert!(eve[3].slot(1).await.is_some() && !eve[3].keeps_others_waiting());
    }

    #[test]
    fn a_pusher_keeps_a_share_of_the_files_open_and_another_gets_the_next() {
        let pushers = Pushers::new(1, None);
        let (eve, bob) = (pushers.begin(&named("eve"), 1), pushers.begin(&named("bob"), 1));
        let kept: Vec<_> = std::iter::from_fn(|| eve.keep_open()).take(KEPT_OPEN_MAX).collect();
        assert_eq!(kept.len(), KEPT_OPEN_MAX / 4);
        assert!(bob.keep_open().is_some());
        drop(kept);
        assert!(eve.keep_open().is_some());
    }

    #[test]
    fn nobody_is_remembered_whose_uploads_have_ended() {
        let (pushers, begun) = (Pushers::new(1, None), AtomicU64::new(0));
        // No barrier, behind which one goes before the other.
        let end_together = || {
            for number in 1..=60_000 {
                let pushing = pushers.begin(&named(&format!("eve-{number}")), 1);
                begun.fetch_add(1, Ordering::SeqCst);
                while begun.load(Ordering::SeqCst) < 2 * number {
                    std::thread::yield_now();
                }
                drop(pushing);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(end_together);
            scope.spawn(end_together);
        });
        assert!(pushers.active.lock().is_empty());
    }

    #[test]
    fn bytes_count_to_the_pusher_until_the_upload_ends() {
        let pushers = Pushers::new(1, None);
        let (one, other) = (pushers.begin(&named("eve"), 1), pushers.begin(&named("eve"), 1));
        one.note_received(5);
        other.note_received(7);
        assert_eq!(one.unrecorded_bytes(), 12);
        other.note_recorded(0);
        assert_eq!(one.unrecorded_bytes(), 5);
        other.note_received(7);
        drop(other);
        assert_eq!(one.unrecorded_bytes(), 5);
        drop(one);
        assert!(pushers.active.lock().is_empty());
    }
}

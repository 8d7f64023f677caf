//! Memory for objects that grow at a store which takes no small pieces: what comes is held until it is a
//! part.
//!
//! Half of it is for those that receive just now, who wait for as much as makes a part and so can always
//! go on. The other half is nobody's right: a quarter for parts that are on their way while the next one
//! fills, and a quarter for what clients that think have sent. Who gets none of it waits for its part, or
//! puts away what it has.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What it is counted in, in bytes.
const UNIT: u64 = 1024;

/// The memory of one store; clones share it.
#[derive(Debug, Clone)]
pub struct Room {
    part_bytes: u64,
    units: usize,
    in_hand: Arc<Semaphore>,
    ahead: Arc<Semaphore>,
    kept: Arc<Semaphore>,
}

/// A part of it, until dropped.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "it is held")] Vec<OwnedSemaphorePermit>);

/// What one of those who push may have of what is in hand, and of what is kept: half of each.
#[derive(Debug, Clone)]
pub struct RoomShare {
    room: Room,
    in_hand: Arc<Semaphore>,
    kept: Arc<Semaphore>,
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT).max(1)).unwrap_or(u32::MAX)
}

impl Room {
    /// Of `bytes_max` for parts of `part_bytes`, of which each share holds one at least.
    #[must_use]
    pub fn new(part_bytes: u64, bytes_max: u64) -> Self {
        let share = |of: u64| units((bytes_max / of).max(part_bytes)) as usize;
        let (half, quarter) = (share(2), share(4));
        Self {
            part_bytes,
            units: half + 2 * quarter,
            in_hand: Arc::new(Semaphore::new(half)),
            ahead: Arc::new(Semaphore::new(quarter)),
            kept: Arc::new(Semaphore::new(quarter)),
        }
    }

    /// How long a part is, in bytes.
    #[must_use]
    pub fn part_bytes(&self) -> u64 {
        self.part_bytes
    }

    /// How much is held, in bytes, and how much may be.
    #[must_use]
    pub fn held(&self) -> (u64, u64) {
        let free: usize =
            [&self.in_hand, &self.ahead, &self.kept].iter().map(|it| it.available_permits()).sum();
        (self.units.saturating_sub(free) as u64 * UNIT, self.units as u64 * UNIT)
    }

    /// The share of one of those who push.
    #[must_use]
    pub fn share(&self) -> RoomShare {
        let half = |of: &Semaphore| {
            let units = (of.available_permits() / 2).max(units(self.part_bytes) as usize);
            Arc::new(Semaphore::new(units))
        };
        let whole = Self::new(self.part_bytes, self.units as u64 * UNIT);
        RoomShare { room: self.clone(), in_hand: half(&whole.in_hand), kept: half(&whole.kept) }
    }

    /// So much for a part that is on its way, if there is as much.
    #[must_use]
    pub fn ahead(&self, bytes: u64) -> Option<Place> {
        let taken = Arc::clone(&self.ahead).try_acquire_many_owned(units(bytes));
        Some(Place(vec![taken.ok()?]))
    }
}

impl RoomShare {
    /// How long a part is, in bytes.
    #[must_use]
    pub fn part_bytes(&self) -> u64 {
        self.room.part_bytes
    }

    /// Waits for room for so many bytes, or for a part. `None` when the registry is gone.
    pub async fn in_hand(&self, bytes: u64) -> Option<Place> {
        let units = units(bytes.min(self.room.part_bytes));
        let own = Arc::clone(&self.in_hand).acquire_many_owned(units).await.ok()?;
        let common = Arc::clone(&self.room.in_hand).acquire_many_owned(units).await.ok()?;
        Some(Place(vec![own, common]))
    }

    /// So much for what stays while the client thinks, if there is as much.
    #[must_use]
    pub fn keep(&self, bytes: u64) -> Option<Place> {
        let own = Arc::clone(&self.kept).try_acquire_many_owned(units(bytes)).ok()?;
        let common = Arc::clone(&self.room.kept).try_acquire_many_owned(units(bytes)).ok()?;
        Some(Place(vec![own, common]))
    }

    /// Whether somebody may be waiting for what this one has in hand.
    #[must_use]
    pub fn is_short(&self) -> bool {
        let part = units(self.room.part_bytes) as usize;
        self.in_hand.available_permits() < part || self.room.in_hand.available_permits() < part
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_has_half_of_what_is_in_hand_and_another_gets_the_next() {
        let room = Room::new(4 * UNIT, 32 * UNIT);
        let (eve, bob) = (room.share(), room.share());
        let held = (eve.in_hand(u64::MAX).await.unwrap(), eve.in_hand(4 * UNIT).await.unwrap());
        assert!(eve.is_short() && !bob.is_short());
        assert!(eve.in_hand(1).now_or_never().is_none());
        let _his = bob.in_hand(u64::MAX).await.unwrap();
        assert_eq!(room.held(), (12 * UNIT, 32 * UNIT));
        drop(held);
        assert!(eve.in_hand(1).now_or_never().is_some());
    }

    #[test]
    fn beside_what_is_in_hand_there_is_so_much_and_nobody_waits_for_it() {
        let room = Room::new(4 * UNIT, 32 * UNIT);
        let held = (room.ahead(4 * UNIT).unwrap(), room.ahead(1).unwrap());
        assert!(room.ahead(4 * UNIT).is_none());
        drop(held);
        assert!(room.ahead(8 * UNIT).is_some());
    }

    #[test]
    fn one_keeps_half_of_what_is_kept_and_another_gets_the_next() {
        let room = Room::new(4 * UNIT, 32 * UNIT);
        let (eve, bob) = (room.share(), room.share());
        let held = eve.keep(4 * UNIT).unwrap();
        assert!(eve.keep(1).is_none() && bob.keep(4 * UNIT).is_some());
        drop(held);
        assert!(eve.keep(1).is_some());
    }

    #[tokio::test]
    async fn a_part_fits_in_whatever_the_settings_say() {
        let room = Room::new(8 * UNIT, UNIT);
        assert!(room.ahead(8 * UNIT).is_some() && room.share().keep(8 * UNIT).is_some());
        assert!(room.share().in_hand(u64::MAX).now_or_never().flatten().is_some());
    }
}

//! What waits to be written: bounded, in memory, and never in a client's way.

use data_encoding::HEXLOWER;
use metrics::counter;
use parking_lot::Mutex;
use ring::{hmac, rand::SystemRandom};
use tokio::sync::Notify;

use crate::audit::entry::Entry;

/// Entries that wait at most: a second of tokens as fast as they can be issued, and some 20 MiB.
/// What comes beyond is lost, and counted.
pub const WAITING_MAX: usize = 10_000;

/// Of these, how many may be what costs nothing to cause: the rest is for passwords that were checked,
/// so that no flood of tokens hides a guess.
const COMMON_MAX: usize = WAITING_MAX / 4 * 3;

/// How much of a name's HMAC is written down, in bytes: enough to tell names apart.
const TAG_BYTES: usize = 8;

/// Entries on their way to the database.
pub struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
    /// Of this process alone: what was typed instead of a name cannot be found out from its tag,
    /// not even by who has the database.
    key: hmac::Key,
}

/// What waits, and how much found no place.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) entries: Vec<Entry>,
    pub(super) lost: u64,
}

impl Queue {
    /// An empty queue.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn new() -> Result<Self, ring::error::Unspecified> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?;
        Ok(Self { waiting: Mutex::default(), filled: Notify::new(), key })
    }

    /// Takes an entry, or counts it as lost. Does not wait.
    pub fn push(&self, entry: Entry) {
        let most = if entry.is_checked() { WAITING_MAX } else { COMMON_MAX };
        let mut waiting = self.waiting.lock();
        if waiting.entries.len() < most {
            waiting.entries.push(entry);
        } else {
            waiting.lost += 1;
            count_lost(1);
        }
        let is_first = waiting.entries.len() == 1;
        drop(waiting);
        if is_first {
            self.filled.notify_one();
        }
    }

    /// What stands for a name that nobody has: it may be a password typed in the wrong field.
    pub fn tag(&self, name: &str) -> String {
        let tag = hmac::sign(&self.key, name.as_bytes());
        HEXLOWER.encode(&tag.as_ref()[..TAG_BYTES])
    }

    /// Returns once something waits.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Everything that waits.
    pub(super) fn take(&self) -> Waiting {
        std::mem::take(&mut *self.waiting.lock())
    }
}

/// Counts what will never be written.
pub(super) fn count_lost(lost: u64) {
    counter!("berth_audit_lost_total").increment(lost);
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_shared::clock::UnixSeconds;

    #[test]
    fn what_finds_no_place_is_counted_and_nothing_waits() {
        let queue = Queue::new().unwrap();
        for _ in 0..COMMON_MAX + 3 {
            queue.push(Entry::gap(UnixSeconds::new(0), 1));
        }
        for _ in 0..WAITING_MAX - COMMON_MAX + 2 {
            queue.push(Entry::gap(UnixSeconds::new(0), 1).checked(true));
        }
        let waiting = queue.take();
        assert_eq!((waiting.entries.len(), waiting.lost), (WAITING_MAX, 5));
        queue.push(Entry::gap(UnixSeconds::new(0), 1));
        let waiting = queue.take();
        assert_eq!((waiting.entries.len(), waiting.lost), (1, 0));
    }

    #[test]
    fn a_tag_tells_names_apart_and_holds_in_one_process_only() {
        let (one, two) = (Queue::new().unwrap(), Queue::new().unwrap());
        assert_eq!(one.tag("hunter2"), one.tag("hunter2"));
        assert_ne!(one.tag("hunter2"), one.tag("hunter3"));
        assert_ne!(one.tag("hunter2"), two.tag("hunter2"));
        assert_eq!(one.tag("").len(), 2 * TAG_BYTES);
    }
}

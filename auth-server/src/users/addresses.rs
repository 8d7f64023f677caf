//! When it was last written down that a user signed in from an address, so that it is written again
//! once a day and not at every sign-in.
//!
//! [`super::throttle`] knows the addresses themselves, as HMACs; the database has them over a
//! restart. What is here is lost with the process, and costs one write for each pair then.

use std::net::IpAddr;

use berth_shared::{clock::UnixSeconds, subject::UserName};
use moka::sync::Cache;

use crate::acl::sign_in_addresses::{ENTRIES_MAX, SignInAddress};

/// How far the note of an address may be behind, in seconds: a note is a write.
const NOTE_SECS: i64 = 24 * 60 * 60;

/// How long after a note that failed the next is tried, in seconds: a disk that is full stays so.
const RETRY_SECS: i64 = 600;

/// What has been written down.
pub struct Addresses(Cache<(UserName, IpAddr), UnixSeconds>);

impl Addresses {
    /// Everything that the database knows.
    #[must_use]
    pub fn known(known: &[SignInAddress]) -> Self {
        let noted = Cache::builder().max_capacity(ENTRIES_MAX.into()).build();
        for SignInAddress { user, address, seen } in known {
            noted.insert((user.clone(), *address), *seen);
        }
        Self(noted)
    }

    /// What is to be written down because `user` signed in from `client`, if it has not been lately.
    /// It counts as written from here on, so that sign-ins at once write once.
    #[must_use]
    pub fn due(&self, user: &UserName, client: IpAddr, now: UnixSeconds) -> Option<SignInAddress> {
        let address = client.to_canonical();
        let pair = (user.clone(), address);
        if self.0.get(&pair).is_some_and(|noted| now - noted < NOTE_SECS) {
            return None;
        }
        self.0.insert(pair, now);
        Some(SignInAddress { user: user.clone(), address, seen: now })
    }

    /// Takes back that this was written down.
    pub fn failed(&self, lost: SignInAddress) {
        let SignInAddress { user, address, seen } = lost;
        self.0.insert((user, address), seen - NOTE_SECS + RETRY_SECS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_due_once_a_day_and_sooner_after_a_failure() {
        let (user, home): (UserName, IpAddr) = ("a".parse().unwrap(), "192.0.2.1".parse().unwrap());
        let addresses = Addresses::known(&[]);
        let due = |client: IpAddr, now| addresses.due(&user, client, now);
        assert!(due(home, 0).is_some());
        assert!(due(home, NOTE_SECS - 1).is_none());
        assert!(due("::ffff:192.0.2.1".parse().unwrap(), NOTE_SECS - 1).is_none());
        assert!(due("192.0.2.2".parse().unwrap(), NOTE_SECS - 1).is_some());
        let written = due(home, NOTE_SECS).unwrap();
        assert_eq!(written.seen, NOTE_SECS);
        addresses.failed(written);
        assert!(due(home, NOTE_SECS + RETRY_SECS - 1).is_none());
        let written = due(home, NOTE_SECS + RETRY_SECS).unwrap();
        let restarted = Addresses::known(std::slice::from_ref(&written));
        assert!(restarted.due(&user, home, written.seen + NOTE_SECS - 1).is_none());
    }
}

//! When something was last used, written down once in a while: a note is a write, and not every
//! sign-in is worth one.
//!
//! Notes are written beside the request, so that a database that cannot be written to fails no
//! sign-in. What was noted is remembered here, and lost with the process; that costs one write for
//! each thing then.

use std::{fmt, net::IpAddr, sync::Arc};

use berth_shared::{
    clock::{Clock, UnixSeconds},
    subject::{RobotName, UserName},
    telemetry::chain,
};
use moka::sync::Cache;

use crate::database::{
    self, Database,
    sign_in_addresses::{self, SignInAddress},
};

/// How far most notes may be behind, in seconds.
const BEHIND_SECS_MAX: i64 = 600;

/// How far the note of an address may be behind, in seconds: every user has some.
const ADDRESS_BEHIND_SECS_MAX: i64 = 24 * 60 * 60;

/// How long after a note that failed the next is tried, in seconds: a disk that is full stays so.
const RETRY_SECS: i64 = 600;

/// Notes that are remembered at most: those of all addresses that the database keeps, and as many
/// of other things.
const REMEMBERED_MAX: u64 = 2 * sign_in_addresses::ENTRIES_MAX as u64;

/// What was used to sign in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Used {
    /// The secret of a robot, which was made then: another of the same name is not meant.
    Robot(RobotName, UnixSeconds),
    /// A trust, which was added then.
    Trust(RobotName, UnixSeconds),
    /// A refresh token, by its id.
    RefreshToken(i64),
    /// The address that a user came from.
    Address(UserName, IpAddr),
}

impl Used {
    fn behind_secs_max(&self) -> i64 {
        match self {
            Self::Robot(..) | Self::Trust(..) | Self::RefreshToken(_) => BEHIND_SECS_MAX,
            Self::Address(..) => ADDRESS_BEHIND_SECS_MAX,
        }
    }

    async fn write(&self, database: &Database, now: UnixSeconds) -> Result<(), database::Error> {
        match self {
            Self::Robot(name, _) => database.note_robot(name, now).await,
            Self::Trust(name, _) => database.note_trust(name, now).await,
            Self::RefreshToken(id) => database.note_refresh_token(*id, now).await,
            Self::Address(user, address) => {
                let (user, address) = (user.clone(), *address);
                database.note_sign_in_address(&SignInAddress { user, address, seen: now }).await
            }
        }
    }
}

impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Robot(name, _) | Self::Trust(name, _) => write!(f, "{name}"),
            Self::RefreshToken(id) => write!(f, "refresh token {id}"),
            Self::Address(user, _) => write!(f, "an address of {user}"),
        }
    }
}

/// Notes when something was last used.
pub(crate) struct LastUsed {
    database: Arc<Database>,
    clock: Clock,
    noted: Noted,
}

impl LastUsed {
    /// Notes in `database`, which knows of the addresses `known` already.
    pub(crate) fn new(database: Arc<Database>, known: &[SignInAddress], clock: Clock) -> Self {
        Self { database, clock, noted: Noted::of(known) }
    }

    /// Notes that `used` was used, if it is time to: the database last knew of it at `known`.
    pub(super) fn note(self: &Arc<Self>, used: Used, known: Option<UnixSeconds>) {
        let now = self.clock.now();
        if !self.noted.is_due(&used, known, now) {
            return;
        }
        let notes = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = used.write(&notes.database, now).await {
                tracing::warn!(%used, error = chain(&error), "noting what was used to sign in");
                notes.noted.failed(used, now);
            }
        });
    }
}

/// When each thing was last noted.
struct Noted(Cache<Used, UnixSeconds>);

impl Noted {
    /// Notes of the addresses that the database knows.
    fn of(known: &[SignInAddress]) -> Self {
        let noted = Cache::builder().max_capacity(REMEMBERED_MAX).build();
        for SignInAddress { user, address, seen } in known {
            noted.insert(Used::Address(user.clone(), *address), *seen);
        }
        Self(noted)
    }

    /// Whether it is time to note that `used` was used, which the database last knew of at `known`.
    /// It counts as noted from here on, so that sign-ins at once write once.
    fn is_due(&self, used: &Used, known: Option<UnixSeconds>, now: UnixSeconds) -> bool {
        let noted = self.0.get(used).max(known);
        let is_due = noted.is_none_or(|noted| now - noted >= used.behind_secs_max());
        if is_due {
            self.0.insert(used.clone(), now);
        }
        is_due
    }

    /// Takes back that it was noted at `now`.
    fn failed(&self, used: Used, now: UnixSeconds) {
        let due = now - used.behind_secs_max() + RETRY_SECS;
        self.0.insert(used, due);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(seconds: i64) -> UnixSeconds {
        UnixSeconds::new(seconds)
    }

    fn address(text: &str) -> Used {
        Used::Address("a".parse().unwrap(), text.parse().unwrap())
    }

    #[test]
    fn a_note_is_due_once_in_a_while_and_sooner_after_a_failure() {
        let noted = Noted::of(&[]);
        for (used, other) in [
            (address("192.0.2.1"), address("192.0.2.2")),
            (Used::RefreshToken(1), Used::RefreshToken(2)),
            (
                Used::Robot("robot.a".parse().unwrap(), moment(1)),
                Used::Robot("robot.a".parse().unwrap(), moment(2)),
            ),
        ] {
            let wait = used.behind_secs_max();
            assert!(noted.is_due(&used, None, moment(0)));
            assert!(!noted.is_due(&used, None, moment(wait - 1)));
            assert!(noted.is_due(&other, None, moment(wait - 1)));
            assert!(noted.is_due(&used, None, moment(wait)));
            noted.failed(used.clone(), moment(wait));
            assert!(!noted.is_due(&used, None, moment(wait + RETRY_SECS - 1)));
            assert!(noted.is_due(&used, None, moment(wait + RETRY_SECS)));
        }
    }

    #[test]
    fn what_the_database_knows_is_not_written_again_after_a_restart() {
        let (user, address) = ("a".parse().unwrap(), "192.0.2.1".parse().unwrap());
        let noted = Noted::of(&[SignInAddress { user, address, seen: moment(100) }]);
        let home = Used::Address("a".parse().unwrap(), address);
        assert!(!noted.is_due(&home, None, moment(100 + ADDRESS_BEHIND_SECS_MAX - 1)));
        assert!(noted.is_due(&home, None, moment(100 + ADDRESS_BEHIND_SECS_MAX)));
        let robot = Used::Robot("robot.a".parse().unwrap(), moment(0));
        assert!(!noted.is_due(&robot, Some(moment(100)), moment(100 + BEHIND_SECS_MAX - 1)));
        assert!(noted.is_due(&robot, Some(moment(100)), moment(100 + BEHIND_SECS_MAX)));
    }
}

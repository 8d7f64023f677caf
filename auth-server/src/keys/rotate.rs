//! Rotating: the next key signs, the one that signed retires, and a new next one is made. Or, where
//! keys may have leaked, all of them go at once.

use berth_shared::clock::{Clock, UnixSeconds};
use serde::Serialize;

use super::{
    KeyError, KeyInfo, KeyState, SigningKeys,
    directory::{hold, make, remove_unnamed, write},
    settings::Settings,
};

/// How a rotation treats the keys that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Once every registry knows the next key.
    InOrder,
    /// Whether or not every registry knows the next key.
    Now,
    /// As [`Now`](Self::Now), and none of the keys that are there is used or published any more:
    /// who read one has probably read them all, the next one included.
    Compromised,
}

/// What a rotation did, or would do.
#[derive(Debug, Clone, Serialize)]
pub struct Rotated {
    /// The key that signs now; `None` while it is yet to be made.
    pub active: Option<KeyInfo>,
    /// The key after that; `None` while it is yet to be made.
    pub next: Option<KeyInfo>,
    /// The key that signed until now, if it stays published.
    pub retired: Option<KeyInfo>,
    /// The keys that are used and published no more.
    pub dropped: Vec<KeyInfo>,
}

/// Rotates the keys of `settings`; with `is_dry` it only says what it would do. The running server
/// takes them into use by itself.
///
/// # Errors
/// [`KeyError::TooYoung`] when it is too early for [`How::InOrder`]; else when the keys cannot be
/// read or written.
pub fn rotate(
    settings: &Settings,
    how: How,
    is_dry: bool,
    clock: &Clock,
) -> Result<Rotated, KeyError> {
    let now = clock.now();
    if is_dry {
        let keys = SigningKeys::read(settings, clock)?;
        check_age(&keys, how, now)?;
        return Ok(plan(&keys, how));
    }
    // What is missing or due comes first, so that there is a next key to rotate to.
    SigningKeys::open(settings, clock)?;
    let directory = &settings.directory;
    let _lock = hold(settings)?;
    let before = SigningKeys::read(settings, clock)?;
    // Looked at under the lock: of two rotations at once the second comes too early.
    check_age(&before, how, now)?;
    let mut states = before.states.clone();
    if how == How::Compromised {
        states.keys.clear();
        states.add_next(make(directory, settings.algorithm, now)?, now);
    }
    states.rotate(now);
    states.note_token_life(settings.token_life_secs);
    states.add_next(make(directory, settings.algorithm, now)?, now);
    // From here on the new keys are in use; what is done before can be done again.
    write(directory, &states)?;
    remove_unnamed(directory, &states)?;
    let after = SigningKeys::read(settings, clock)?;
    let Rotated { retired, dropped, .. } = plan(&before, how);
    let retired = retired.and_then(|key| after.list().find(|it| it.id == key.id).cloned());
    let [active, next] = [KeyState::Active, KeyState::Next].map(|state| after.of(state).cloned());
    Ok(Rotated { active, next, retired, dropped })
}

/// Refuses while somebody may not know the next key yet.
fn check_age(keys: &SigningKeys, how: How, now: UnixSeconds) -> Result<(), KeyError> {
    if how != How::InOrder {
        return Ok(());
    }
    let next = keys.of(KeyState::Next);
    // A directory that an older Berth left has none; the server makes it when it starts.
    let signs_from = next.and_then(|key| key.signs_from).unwrap_or(now + super::NEXT_AGE_SECS_MIN);
    if signs_from > now { Err(KeyError::TooYoung(signs_from)) } else { Ok(()) }
}

fn plan(keys: &SigningKeys, how: How) -> Rotated {
    let stay = how != How::Compromised;
    let of = |state| keys.of(state).filter(|_| stay).cloned();
    let dropped = keys.list().filter(|_| !stay).cloned().collect();
    Rotated { active: of(KeyState::Next), next: None, retired: of(KeyState::Active), dropped }
}

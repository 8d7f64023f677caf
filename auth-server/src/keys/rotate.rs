//! Rotating: the next key signs, the one that signed retires, and a new next one is made. Or, where
//! keys may have leaked, all of them go at once.

use berth_shared::clock::Clock;
use serde::Serialize;

use super::{
    KeyError, KeyInfo, KeyState, SigningKeys,
    directory::{hold, make, remove_unnamed, write},
    rules::{self, How},
    settings::Settings,
};
use crate::audit::Act;

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

impl Rotated {
    /// What becomes of the keys that are there.
    pub(super) fn planned(before: &[KeyInfo], how: How) -> Self {
        let stay = how != How::Compromised;
        let of = |state| before.iter().find(|key| key.state == state && stay).cloned();
        let dropped = before.iter().filter(|_| !stay).cloned().collect();
        Self { active: of(KeyState::Next), next: None, retired: of(KeyState::Active), dropped }
    }

    /// What became of them.
    pub(super) fn done(before: &[KeyInfo], how: How, after: &SigningKeys) -> Self {
        let Self { retired, dropped, .. } = Self::planned(before, how);
        let retired = retired.and_then(|key| after.list().find(|it| it.id == key.id).cloned());
        let [active, next] =
            [KeyState::Active, KeyState::Next].map(|state| after.of(state).cloned());
        Self { active, next, retired, dropped }
    }

    /// What the audit is told of it, in this order.
    #[must_use]
    pub fn acts(&self) -> Vec<Act<'_>> {
        let dropped = self.dropped.iter().map(|key| Act::KeyCompromised(&key.id));
        let active = self.active.iter().map(|key| Act::KeyRotate(&key.id));
        let retired = self.retired.iter().map(|key| Act::KeyRetire(&key.id));
        dropped.chain(active).chain(retired).collect()
    }
}

/// Rotates the keys in the directory of `settings`; with `is_dry` it only says what it would do. The
/// running server takes them into use by itself.
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
        rules::check_age(keys.of(KeyState::Next), how, now)?;
        return Ok(Rotated::planned(&keys.infos(), how));
    }
    // What is missing or due comes first, so that there is a next key to rotate to.
    SigningKeys::open(settings, clock)?;
    let directory = &settings.directory;
    let _lock = hold(settings)?;
    let before = SigningKeys::read(settings, clock)?;
    // Looked at under the lock: of two rotations at once the second comes too early.
    rules::check_age(before.of(KeyState::Next), how, now)?;
    let mut states = before.states.clone();
    rules::rotate(&mut states, how, settings, now, || make(settings, now))?;
    // From here on the new keys are in use; what is done before can be done again.
    write(directory, &states)?;
    remove_unnamed(directory, &states)?;
    let after = SigningKeys::read(settings, clock)?;
    Ok(Rotated::done(&before.infos(), how, &after))
}

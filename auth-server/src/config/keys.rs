//! `[keys]`: the signing keys, where they lie in the database that servers share.

use std::path::{Path, PathBuf};

use berth_shared::config::{ConfigError, beside};
use serde::Deserialize;

/// How the keys are kept.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// The file of what seals them in the database. Without one they are files themselves.
    pub sealed_with: Option<PathBuf>,
}

impl Keys {
    /// Refuses what does not fit the database, which servers share or not.
    ///
    /// # Errors
    /// When it is shared and nothing seals the keys, or the other way round.
    pub(super) fn check(&self, is_shared: bool) -> Result<(), ConfigError> {
        let reason = match (&self.sealed_with, is_shared) {
            (None, true) => {
                "with [database] the signing keys lie there, sealed: name the file of what seals them, \
                 which authctl key seal --out FILE makes"
            }
            (Some(_), false) => {
                "without [database] the signing keys are files, which nothing seals"
            }
            _ => return Ok(()),
        };
        Err(ConfigError::value("keys.sealed_with", reason))
    }

    /// Makes the path relative to the directory of the settings at `path`.
    pub(super) fn place_beside(&mut self, path: &Path) {
        if let Some(sealed_with) = &mut self.sealed_with {
            *sealed_with = beside(path, sealed_with);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sealed_in_a_shared_database_and_nowhere_else() {
        for (sealed_with, is_shared, is_good) in [
            (None, false, true),
            (None, true, false),
            (Some("sealing.key"), true, true),
            (Some("sealing.key"), false, false),
        ] {
            let mut keys = Keys { sealed_with: sealed_with.map(PathBuf::from) };
            let checked = keys.check(is_shared);
            assert_eq!(checked.is_ok(), is_good, "{sealed_with:?} {is_shared}");
            if let Err(error) = checked {
                assert!(error.to_string().contains("keys.sealed_with"), "{error}");
            }
            keys.place_beside(Path::new("/etc/berth/auth.toml"));
            let expected = sealed_with.map(|_| PathBuf::from("/etc/berth/sealing.key"));
            assert_eq!(keys.sealed_with, expected);
        }
    }
}

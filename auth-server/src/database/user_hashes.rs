//! The users with their hashes, where the database has them.

use std::{collections::BTreeMap, fmt, ops::Deref};

use berth_shared::subject::UserName;

/// Users, each with the hash of the password as it stands in an htpasswd file. Shows no hash.
#[derive(Default, Clone, PartialEq, Eq)]
pub struct UserHashes(BTreeMap<UserName, String>);

impl UserHashes {
    /// Those of rows. One whose name nobody can have, written by hand, is nobody, and hides no other.
    pub(super) fn of_rows(rows: Vec<(String, String)>) -> Self {
        let number = rows.len();
        let read = |(name, hash): (String, String)| Some((name.parse().ok()?, hash));
        let users: BTreeMap<_, _> = rows.into_iter().filter_map(read).collect();
        if users.len() < number {
            let skipped = number - users.len();
            tracing::warn!(skipped, "the table of users has names that nobody can have");
        }
        Self(users)
    }
}

impl Deref for UserHashes {
    type Target = BTreeMap<UserName, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl fmt::Debug for UserHashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

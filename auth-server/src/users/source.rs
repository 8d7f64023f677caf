//! Where the users are: in a file beside the database, or in it, where several servers share it.

use std::{path::Path, sync::Arc};

use parking_lot::Mutex;

use super::{
    htpasswd::Htpasswd,
    store::{LoadError, UserFile, UserSet},
};
use crate::database::{self, Database, policy::Policy};

/// The users, wherever they are.
pub enum Users {
    /// In an htpasswd file.
    File(UserFile),
    /// In the policy, as part of which they are read.
    Table(UserTable),
}

/// The users of the policy that was looked at last.
#[derive(Default)]
pub struct UserTable(Mutex<Option<(Arc<Policy>, Arc<UserSet>)>>);

impl Users {
    /// Those of `database`, or of the file where it has none.
    ///
    /// # Errors
    /// When they are in a file that cannot be read, or the database does not answer.
    pub async fn load(htpasswd: &Path, database: &Arc<Database>) -> Result<Self, LoadError> {
        if database.is_shared() {
            return Ok(Self::Table(UserTable::default()));
        }
        let file = UserFile::load(htpasswd.to_owned(), Arc::clone(database)).await?;
        Ok(Self::File(file))
    }

    /// The users as they are now, or were with the policy where they are a part of it.
    ///
    /// # Errors
    /// When a changed file cannot be reconciled with the database.
    pub async fn with(&self, policy: &Arc<Policy>) -> Result<Arc<UserSet>, database::Error> {
        match self {
            Self::File(file) => file.fresh().await,
            Self::Table(table) => Ok(table.of(policy)),
        }
    }

    /// Looks at the file, if they are in one, so that a change is noticed while nobody signs in.
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub async fn look(&self) -> Result<(), database::Error> {
        match self {
            Self::File(file) => file.fresh().await.map(drop),
            Self::Table(_) => Ok(()),
        }
    }

    /// Whether the file, if they are in one, could be used when it was last looked at.
    pub fn is_usable(&self) -> bool {
        match self {
            Self::File(file) => file.is_usable(),
            Self::Table(_) => true,
        }
    }
}

impl UserTable {
    fn of(&self, policy: &Arc<Policy>) -> Arc<UserSet> {
        let mut known = self.0.lock();
        if let Some((of, users)) = &*known
            && Arc::ptr_eq(of, policy)
        {
            return Arc::clone(users);
        }
        let table = policy.users.as_deref().map(Htpasswd::of_table).unwrap_or_default();
        for problem in &table.problems {
            tracing::warn!("the table of users, {problem}");
        }
        let users = Arc::new(UserSet::of(table, policy.sequence));
        *known = Some((Arc::clone(policy), Arc::clone(&users)));
        users
    }
}

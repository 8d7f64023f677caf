//! Repositories: a name, and the number that the other tables know it by.

use berth_shared::{
    database::{Connection, Statements, row, same},
    name::RepositoryName,
};

use super::{Database, Error, Transaction, list::List, lock::Lock};
use crate::reach::Span;

/// A repository's number in the database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub(crate) struct RepositoryId(i64);

/// A repository, as the catalog looks at it.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) name: RepositoryName,
    pub(crate) has_manifests: bool,
}

const ID: &str = "SELECT id FROM repositories WHERE name = $1";

same!(RepositoryId);
row!(Listed { name, has_manifests });

/// Spans for a statement: from the first column to before the second.
pub(super) fn listed(spans: &[Span]) -> List {
    List::of(spans.iter().map(|span| [span.from.as_str(), span.to.as_str()]))
}

/// How often the number of a repository is looked for that others make and delete meanwhile.
const TRIES_MAX: usize = 3;

/// The number of `name`, giving it one where it has none. It is kept until the transaction ends.
pub(super) async fn ensure(
    tx: &mut Transaction<'_>,
    name: &RepositoryName,
) -> Result<RepositoryId, Error> {
    for _ in 0..TRIES_MAX {
        let find = tx.locking(ID, Lock::KeyShare);
        if let Some(id) = tx.optional(find, name).await? {
            return Ok(id);
        }
        let statement = "INSERT INTO repositories (name) VALUES ($1)
             ON CONFLICT (name) DO NOTHING RETURNING id";
        if let Some(id) = tx.optional(statement, name).await? {
            return Ok(id);
        }
    }
    Err(Error::Overtaken)
}

/// The number of `name`, if it has one.
pub(super) async fn find(
    mut connection: Connection<'_>,
    name: &RepositoryName,
) -> Result<Option<RepositoryId>, Error> {
    Ok(connection.optional(ID, name).await?)
}

impl Database {
    /// Up to `limit` repositories within `spans`, in byte order.
    pub(crate) async fn repositories_within(
        &self,
        spans: &[Span],
        limit: u32,
    ) -> Result<Vec<Listed>, Error> {
        // No ORDER BY, which would sort all of them first: this walks span after span, each in the
        // order of the index.
        let statement = "SELECT r.name,
             EXISTS (SELECT 1 FROM manifests m WHERE m.repository = r.id) AS has_manifests
             FROM json_each($1) s CROSS JOIN repositories r
             WHERE r.name >= s.value ->> 0 AND r.name < s.value ->> 1 LIMIT $2";
        self.reader().await?.all(statement, (listed(spans), limit)).await
    }

    /// Whether `name` is a repository that holds a manifest.
    pub(crate) async fn repository_exists(&self, name: &RepositoryName) -> Result<bool, Error> {
        let statement = "SELECT EXISTS (SELECT 1 FROM manifests m JOIN repositories r
                            ON r.id = m.repository WHERE r.name = $1)";
        self.reader().await?.one(statement, name).await
    }
}

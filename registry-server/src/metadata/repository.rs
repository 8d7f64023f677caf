//! Repositories: a name, and the number that the other tables know it by.

use berth_shared::name::RepositoryName;
use sqlx::SqliteConnection;

use super::{Database, Error, parse};

/// A repository's number in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub(crate) struct RepositoryId(i64);

/// The number of `name`, giving it one where it has none.
pub(super) async fn ensure(
    connection: &mut SqliteConnection,
    name: &RepositoryName,
) -> Result<RepositoryId, Error> {
    if let Some(id) = find(connection, name).await? {
        return Ok(id);
    }
    let id = sqlx::query_scalar("INSERT INTO repositories (name) VALUES ($1) RETURNING id")
        .bind(name.as_str())
        .fetch_one(connection)
        .await?;
    Ok(id)
}

/// The number of `name`, if it has one.
pub(super) async fn find(
    connection: &mut SqliteConnection,
    name: &RepositoryName,
) -> Result<Option<RepositoryId>, Error> {
    let id = sqlx::query_scalar("SELECT id FROM repositories WHERE name = $1")
        .bind(name.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(id)
}

impl Database {
    /// Up to `limit` names of repositories that hold a manifest, behind `last` in byte order.
    pub(crate) async fn repositories_after(
        &self,
        last: &str,
        limit: u32,
    ) -> Result<Vec<RepositoryName>, Error> {
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM repositories r WHERE name > $1
             AND EXISTS (SELECT 1 FROM manifests m WHERE m.repository = r.id)
             ORDER BY name LIMIT $2",
        )
        .bind(last)
        .bind(limit)
        .fetch_all(self.readers())
        .await?;
        names.iter().map(|name| parse(name)).collect()
    }

    /// Whether `name` is a repository that holds a manifest.
    pub(crate) async fn repository_exists(&self, name: &RepositoryName) -> Result<bool, Error> {
        let exists = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM manifests m JOIN repositories r ON r.id = m.repository
             WHERE r.name = $1)",
        )
        .bind(name.as_str())
        .fetch_one(self.readers())
        .await?;
        Ok(exists)
    }
}

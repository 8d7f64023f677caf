//! Repositories: a name, and the number that the other tables know it by.

use berth_shared::name::RepositoryName;
use sqlx::{SqliteConnection, SqliteExecutor};

use super::{Database, Error, column::parse};
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

/// An array of pairs, for `json_each`.
pub(super) fn spans_as_json(spans: &[Span]) -> String {
    let pairs = spans.iter().map(|span| vec![span.from.as_str(), span.to.as_str()]);
    serde_json::Value::from_iter(pairs).to_string()
}

/// The number of `name`, giving it one where it has none.
pub(super) async fn ensure(
    connection: &mut SqliteConnection,
    name: &RepositoryName,
) -> Result<RepositoryId, Error> {
    if let Some(id) = find(&mut *connection, name).await? {
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
    executor: impl SqliteExecutor<'_>,
    name: &RepositoryName,
) -> Result<Option<RepositoryId>, Error> {
    let id = sqlx::query_scalar("SELECT id FROM repositories WHERE name = $1")
        .bind(name.as_str())
        .fetch_optional(executor)
        .await?;
    Ok(id)
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
        let rows: Vec<(String, bool)> = sqlx::query_as(
            "SELECT r.name, EXISTS (SELECT 1 FROM manifests m WHERE m.repository = r.id)
             FROM json_each($1) s CROSS JOIN repositories r
             WHERE r.name >= s.value ->> 0 AND r.name < s.value ->> 1 LIMIT $2",
        )
        .bind(spans_as_json(spans))
        .bind(limit)
        .fetch_all(&mut *self.reader().await?)
        .await?;
        let listed = |(name, has_manifests): (String, bool)| {
            Ok(Listed { name: parse(&name)?, has_manifests })
        };
        rows.into_iter().map(listed).collect()
    }

    /// Whether `name` is a repository that holds a manifest.
    pub(crate) async fn repository_exists(&self, name: &RepositoryName) -> Result<bool, Error> {
        let exists = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM manifests m JOIN repositories r ON r.id = m.repository
             WHERE r.name = $1)",
        )
        .bind(name.as_str())
        .fetch_one(&mut *self.reader().await?)
        .await?;
        Ok(exists)
    }
}

//! Repositories: a name, and the number that the other tables know it by.

use berth_shared::name::RepositoryName;
use sqlx::{AssertSqlSafe, SqliteConnection, SqliteExecutor};

use super::{
    Database, Error,
    column::{parse, signed},
    list,
};
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

/// Spans for a statement: one part after the other, filled up with such as hold nothing.
pub(super) fn parts_of(spans: &[Span]) -> impl Iterator<Item = Vec<&Span>> {
    static NOWHERE: Span = Span { from: String::new(), to: String::new() };
    list::filled(spans, &NOWHERE)
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
        let mut reader = self.reader().await?;
        let mut left = limit as usize;
        let mut listed = Vec::new();
        for part in parts_of(spans) {
            let rows = list::pairs("", 2, part.len());
            // No ORDER BY, which would sort all of them first: this walks span after span, each in
            // the order of the index.
            let statement = format!(
                "WITH s (low, high) AS (VALUES {rows})
                 SELECT r.name, EXISTS (SELECT 1 FROM manifests m WHERE m.repository = r.id)
                 FROM s CROSS JOIN repositories r
                 WHERE r.name >= s.low AND r.name < s.high LIMIT $1"
            );
            let mut query = sqlx::query_as(AssertSqlSafe(statement)).bind(signed(left as u64)?);
            for span in part {
                query = query.bind(&span.from).bind(&span.to);
            }
            let rows: Vec<(String, bool)> = query.fetch_all(&mut *reader).await?;
            left -= rows.len();
            for (name, has_manifests) in rows {
                listed.push(Listed { name: parse(&name)?, has_manifests });
            }
            if left == 0 {
                break;
            }
        }
        Ok(listed)
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

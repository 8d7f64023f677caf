//! Repositories: a name, and the number that the other tables know it by.

use berth_shared::name::RepositoryName;
use sqlx::{AssertSqlSafe, SqliteConnection, sqlite::SqliteArguments};

use super::{
    Database, Error,
    column::{Bind, same},
    list,
    statement::{Statements, row},
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

same!(RepositoryId);
row!(Listed { name, has_manifests });

impl Bind for Span {
    fn bind(&self, places: &mut SqliteArguments) -> Result<(), Error> {
        (&self.from, &self.to).bind(places)
    }
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
    match find(connection, name).await? {
        Some(id) => Ok(id),
        None => {
            connection.one("INSERT INTO repositories (name) VALUES ($1) RETURNING id", name).await
        }
    }
}

/// The number of `name`, if it has one.
pub(super) async fn find(
    connection: &mut SqliteConnection,
    name: &RepositoryName,
) -> Result<Option<RepositoryId>, Error> {
    connection.optional("SELECT id FROM repositories WHERE name = $1", name).await
}

impl Database {
    /// Up to `limit` repositories within `spans`, in byte order.
    pub(crate) async fn repositories_within(
        &self,
        spans: &[Span],
        limit: u32,
    ) -> Result<Vec<Listed>, Error> {
        let mut reader = self.reader().await?;
        let mut listed: Vec<Listed> = Vec::new();
        for part in parts_of(spans) {
            let left = u64::from(limit) - listed.len() as u64;
            if left == 0 {
                break;
            }
            let rows = list::pairs("", 2, part.len());
            // No ORDER BY, which would sort all of them first: this walks span after span, each in
            // the order of the index.
            let statement = format!(
                "WITH s (low, high) AS (VALUES {rows})
                 SELECT r.name, EXISTS (SELECT 1 FROM manifests m WHERE m.repository = r.id)
                 AS has_manifests
                 FROM s CROSS JOIN repositories r
                 WHERE r.name >= s.low AND r.name < s.high LIMIT $1"
            );
            listed.extend(reader.all::<Listed>(AssertSqlSafe(statement), (left, &part[..])).await?);
        }
        Ok(listed)
    }

    /// Whether `name` is a repository that holds a manifest.
    pub(crate) async fn repository_exists(&self, name: &RepositoryName) -> Result<bool, Error> {
        let statement = "SELECT EXISTS (SELECT 1 FROM manifests m JOIN repositories r
                            ON r.id = m.repository WHERE r.name = $1)";
        self.reader().await?.one(statement, name).await
    }
}

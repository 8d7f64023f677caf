//! Blobs, and which repository links which.

use berth_shared::{clock::UnixSeconds, digest::Digest, name::RepositoryName};
use sqlx::{AssertSqlSafe, FromRow, SqliteConnection};

use super::{
    Database, Error, Transaction,
    column::{parse, signed, unsigned},
    key::Key,
    list,
    repository::{self, parts_of},
    upload::Upload,
};
use crate::{
    reach::{Reach, Span},
    storage::{Dead, Location},
};

/// A blob and the object that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) location: Location,
    /// Whether the object is known not to be what the digest says.
    pub(crate) damaged: bool,
}

/// A blob as a repository holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkedBlob {
    pub(crate) blob: Blob,
    /// When a client last put it here or was told that it is here.
    pub(crate) touched: UnixSeconds,
}

/// Where a blob may be mounted from.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) repository: RepositoryName,
    pub(crate) holds: bool,
}

#[derive(FromRow)]
pub(super) struct Row {
    pub(super) digest: String,
    size: i64,
    location: String,
    damaged: Option<UnixSeconds>,
}

#[derive(FromRow)]
struct LinkedRow {
    #[sqlx(flatten)]
    row: Row,
    touched: UnixSeconds,
}

impl TryFrom<Row> for Blob {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            digest: parse(&row.digest)?,
            size: unsigned(row.size)?,
            location: parse(&row.location)?,
            damaged: row.damaged.is_some(),
        })
    }
}

impl Database {
    /// The blob, as far as `repository` links it.
    pub(crate) async fn linked_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<LinkedBlob>, Error> {
        if let Some(blob) = self.cache().blob(repository, digest) {
            return Ok(Some(blob));
        }
        let read_at = self.cache().generation();
        let row: Option<LinkedRow> = sqlx::query_as(
            "SELECT b.digest, b.size, b.location, b.damaged, l.touched FROM repositories r
             JOIN repository_blobs l ON l.repository = r.id
             JOIN blobs b ON b.digest = l.digest
             WHERE r.name = $1 AND l.digest = $2",
        )
        .bind(repository.as_str())
        .bind(digest.as_str())
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        let linked = |row: LinkedRow| {
            Ok::<_, Error>(LinkedBlob { blob: row.row.try_into()?, touched: row.touched })
        };
        let blob = row.map(linked).transpose()?;
        if let Some(blob) = &blob {
            self.cache().keep_blob(read_at, repository, blob);
        }
        Ok(blob)
    }

    /// The blob, whoever links it.
    pub(crate) async fn blob(&self, digest: &Digest) -> Result<Option<Blob>, Error> {
        let row: Option<Row> =
            sqlx::query_as("SELECT digest, size, location, damaged FROM blobs WHERE digest = $1")
                .bind(digest.as_str())
                .fetch_optional(&mut *self.reader().await?)
                .await?;
        row.map(Blob::try_from).transpose()
    }

    /// Up to `limit` repositories that may be within `reach`, and whether each links the blob.
    /// Which they are does not depend on the blob, unless everything is within reach: then one
    /// that links it is looked for.
    pub(crate) async fn mount_sources(
        &self,
        reach: &Reach,
        digest: &Digest,
        limit: u32,
    ) -> Result<Vec<Source>, Error> {
        let mut reader = self.reader().await?;
        let mut rows: Vec<(String, bool)> = Vec::new();
        if reach.is_everything() {
            let query = sqlx::query_as(
                "SELECT r.name, TRUE FROM repository_blobs l CROSS JOIN repositories r
                 WHERE l.digest = $1 AND r.id = l.repository LIMIT 1",
            );
            rows = query.bind(digest.as_str()).fetch_all(&mut *reader).await?;
        } else {
            let mut left = limit as usize;
            for part in parts_of(reach.spans()) {
                let found = sources_within(&mut reader, part, digest, left).await?;
                left -= found.len();
                rows.extend(found);
                if left == 0 {
                    break;
                }
            }
        }
        let source =
            |(name, holds): (String, bool)| Ok(Source { repository: parse(&name)?, holds });
        rows.into_iter().map(source).collect()
    }
}

/// Up to `limit` repositories within the spans, and whether each links the blob.
async fn sources_within(
    connection: &mut SqliteConnection,
    spans: Vec<&Span>,
    digest: &Digest,
    limit: usize,
) -> Result<Vec<(String, bool)>, Error> {
    let rows = list::pairs("", 3, spans.len());
    let statement = format!(
        "WITH s (low, high) AS (VALUES {rows})
         SELECT c.name, EXISTS (SELECT 1 FROM repository_blobs l
                                WHERE l.repository = c.id AND l.digest = $1)
         FROM (SELECT r.id, r.name FROM s CROSS JOIN repositories r
               WHERE r.name >= s.low AND r.name < s.high LIMIT $2) c"
    );
    let query = sqlx::query_as(AssertSqlSafe(statement));
    let mut query = query.bind(digest.as_str()).bind(signed(limit as u64)?);
    for span in spans {
        query = query.bind(&span.from).bind(&span.to);
    }
    Ok(query.fetch_all(connection).await?)
}

/// What a commit makes of an upload: the blob, and where its present object lies if that is known not
/// to be sound.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) blob: Blob,
    pub(crate) unsound: Option<Location>,
}

impl Database {
    /// Ends the session and makes what it received a blob of its repository. Gives the object that
    /// goes for it, and `None` when the session has ended already, or somebody else recorded since.
    pub(crate) async fn commit_blob(
        &self,
        upload: &Upload,
        received: Received,
        now: UnixSeconds,
    ) -> Result<Option<Vec<Dead>>, Error> {
        self.write((upload.clone(), received), move |tx, (upload, received)| {
            Box::pin(async move {
                if !tx.delete_upload(upload).await? {
                    return Ok(None);
                }
                let dead = tx.put_blob(received, now).await?;
                tx.link_blob(&upload.repository, &received.blob.digest, now).await?;
                Ok(Some(dead.into_iter().collect()))
            })
        })
        .await
    }

    /// Makes a blob that is here readable in `repository`. `false` when there is no such blob.
    pub(crate) async fn mount(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        now: UnixSeconds,
    ) -> Result<bool, Error> {
        let given = (repository.clone(), digest.clone());
        self.write(given, move |tx, (repository, digest)| {
            Box::pin(tx.link_blob(repository, digest, now))
        })
        .await
    }

    /// Records that a client was told that the repository holds the blob. `false` when it does
    /// not any more.
    pub(crate) async fn touch_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        now: UnixSeconds,
    ) -> Result<bool, Error> {
        let given = (repository.clone(), digest.clone());
        self.write(given, move |tx, (repository, digest)| {
            Box::pin(tx.touch_blob(repository, digest, now))
        })
        .await
    }

    /// Takes the blob out of `repository`, unless a manifest there still names it.
    pub(crate) async fn unlink_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Unlinked, Error> {
        let given = (repository.clone(), digest.clone());
        self.write(given, |tx, (repository, digest)| Box::pin(tx.unlink_blob(repository, digest)))
            .await
    }
}

impl Transaction<'_> {
    /// Records that `blob` exists and lies where it says. When another object holds the digest and
    /// is not `unsound`, that one stays; an unsound one gives way. Gives the one that goes.
    pub(super) async fn put_blob(
        &mut self,
        Received { blob, unsound }: &Received,
        now: UnixSeconds,
    ) -> Result<Option<Dead>, Error> {
        let row: Option<Row> =
            sqlx::query_as("SELECT digest, size, location, damaged FROM blobs WHERE digest = $1")
                .bind(blob.digest.as_str())
                .fetch_optional(&mut *self.connection)
                .await?;
        let Some(old) = row.map(Blob::try_from).transpose()? else {
            insert(self.connection, blob, now).await?;
            return Ok(None);
        };
        if unsound.as_ref() != Some(&old.location) {
            let dead = Dead::finished(blob.location.clone(), blob.size);
            self.bury(std::slice::from_ref(&dead), now).await?;
            return Ok(Some(dead));
        }
        sqlx::query("UPDATE blobs SET size = $2, location = $3, checked = $4, damaged = NULL WHERE digest = $1")
            .bind(blob.digest.as_str())
            .bind(signed(blob.size)?)
            .bind(blob.location.as_str())
            .bind(now)
            .execute(&mut *self.connection)
            .await?;
        self.invalidate(Key::BlobEverywhere);
        let dead = Dead::finished(old.location, old.size);
        self.bury(std::slice::from_ref(&dead), now).await?;
        Ok(Some(dead))
    }

    /// As [`Database::mount`].
    pub(super) async fn link_blob(
        &mut self,
        repository: &RepositoryName,
        digest: &Digest,
        now: UnixSeconds,
    ) -> Result<bool, Error> {
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM blobs WHERE digest = $1)")
                .bind(digest.as_str())
                .fetch_one(&mut *self.connection)
                .await?;
        if !exists {
            return Ok(false);
        }
        let id = repository::ensure(self.connection, repository).await?;
        sqlx::query(
            "INSERT INTO repository_blobs (repository, digest, touched) VALUES ($1, $2, $3)
             ON CONFLICT (repository, digest) DO UPDATE SET touched = excluded.touched",
        )
        .bind(id)
        .bind(digest.as_str())
        .bind(now)
        .execute(&mut *self.connection)
        .await?;
        self.invalidate(Key::Blob(repository.clone(), digest.clone()));
        Ok(true)
    }

    async fn touch_blob(
        &mut self,
        repository: &RepositoryName,
        digest: &Digest,
        now: UnixSeconds,
    ) -> Result<bool, Error> {
        let touched = sqlx::query(
            "UPDATE repository_blobs SET touched = $3 WHERE digest = $2
             AND repository = (SELECT id FROM repositories WHERE name = $1)",
        )
        .bind(repository.as_str())
        .bind(digest.as_str())
        .bind(now)
        .execute(&mut *self.connection)
        .await?
        .rows_affected();
        self.invalidate(Key::Blob(repository.clone(), digest.clone()));
        Ok(touched > 0)
    }

    async fn unlink_blob(
        &mut self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Unlinked, Error> {
        let Some(id) = repository::find(&mut *self.connection, repository).await? else {
            return Ok(Unlinked::NotLinked);
        };
        let referrer: Option<String> = sqlx::query_scalar(
            "SELECT manifest FROM manifest_references
             WHERE repository = $1 AND digest = $2 AND kind <> 'subject'
             ORDER BY manifest LIMIT 1",
        )
        .bind(id)
        .bind(digest.as_str())
        .fetch_optional(&mut *self.connection)
        .await?;
        if let Some(manifest) = referrer {
            return Ok(Unlinked::StillNamed(parse(&manifest)?));
        }
        let deleted =
            sqlx::query("DELETE FROM repository_blobs WHERE repository = $1 AND digest = $2")
                .bind(id)
                .bind(digest.as_str())
                .execute(&mut *self.connection)
                .await?
                .rows_affected();
        self.invalidate(Key::Blob(repository.clone(), digest.clone()));
        Ok(if deleted > 0 { Unlinked::Done } else { Unlinked::NotLinked })
    }
}

/// What became of [`Database::unlink_blob`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unlinked {
    /// It is gone from the repository.
    Done,
    /// It was not there.
    NotLinked,
    /// This manifest of the repository names it.
    StillNamed(Digest),
}

async fn insert(
    connection: &mut SqliteConnection,
    blob: &Blob,
    now: UnixSeconds,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO blobs (digest, size, location, created, checked) VALUES ($1, $2, $3, $4, $4)",
    )
    .bind(blob.digest.as_str())
    .bind(signed(blob.size)?)
    .bind(blob.location.as_str())
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

//! Who refers to a manifest: read a page at a time, within a bound in bytes.
//!
//! A pusher chooses how large annotations are, so a page is measured before a row of it is read.

use berth_shared::{digest::Digest, name::RepositoryName};
use futures_util::TryStreamExt;
use sqlx::{
    Connection, FromRow, Sqlite, SqliteConnection, query::QueryAs, sqlite::SqliteArguments,
    sqlite::SqliteRow,
};

use super::{
    Database, Error,
    column::{parse, unsigned},
    repository::RepositoryId,
};

/// How much a page of referrers has at most, as the distribution specification has it for manifests.
/// A referrer that is larger stands alone on its page.
pub(crate) const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a descriptor has besides annotations and artifact type is less.
const DESCRIPTOR_BYTES: usize = 512;

/// Which referrers are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) repository: &'a RepositoryName,
    /// To whom they refer.
    pub(crate) subject: &'a Digest,
    /// Of which artifact type, if of one.
    pub(crate) artifact_type: Option<&'a str>,
    /// Only what comes behind this in byte order.
    pub(crate) last: &'a str,
    /// How many at most.
    pub(crate) limit: u32,
}

/// A manifest that refers to another, as the referrers list describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Referrer {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) size: u64,
    pub(crate) artifact_type: Option<String>,
    /// As a JSON object.
    pub(crate) annotations: Option<String>,
}

/// What came of asking for a page.
#[derive(Debug)]
pub(crate) enum Answer {
    Page {
        referrers: Vec<Referrer>,
        /// Behind which digest the next page begins, if there is one.
        next: Option<String>,
    },
    /// The page has so many bytes, which is more than there is room for.
    TooLarge(usize),
}

/// The lengths of the referrers that come next, which the rows tell without being read.
const LOOK: &str = "SELECT m.digest,
     CAST(COALESCE(OCTET_LENGTH(m.annotations), 0) + COALESCE(OCTET_LENGTH(m.artifact_type), 0)
          AS BIGINT) AS bytes
     FROM repositories r JOIN manifests m ON m.repository = r.id
     WHERE r.name = $1 AND m.subject = $2 AND m.digest > $3
     ORDER BY m.digest LIMIT $4";

/// The same, of an artifact type: by the index that holds those alone, whatever else refers.
const LOOK_OF_TYPE: &str = "SELECT m.digest,
     CAST(COALESCE(OCTET_LENGTH(m.annotations), 0) + OCTET_LENGTH(m.artifact_type)
          AS BIGINT) AS bytes
     FROM repositories r JOIN manifests m ON m.repository = r.id
     WHERE r.name = $1 AND m.subject = $2 AND m.artifact_type = $5 AND m.digest > $3
     ORDER BY m.digest LIMIT $4";

/// What a page of referrers says.
const READ: &str = "SELECT m.digest, m.media_type, m.size, m.artifact_type, m.annotations
     FROM repositories r JOIN manifests m ON m.repository = r.id
     WHERE r.name = $1 AND m.subject = $2 AND m.digest > $3
     ORDER BY m.digest LIMIT $4";

/// The same, of an artifact type.
const READ_OF_TYPE: &str = "SELECT m.digest, m.media_type, m.size, m.artifact_type, m.annotations
     FROM repositories r JOIN manifests m ON m.repository = r.id
     WHERE r.name = $1 AND m.subject = $2 AND m.artifact_type = $5 AND m.digest > $3
     ORDER BY m.digest LIMIT $4";

type Asked<'q, R> = QueryAs<'q, Sqlite, R, SqliteArguments>;

/// How far a page goes.
struct Measured {
    count: u32,
    bytes: usize,
    /// The last of it that was looked at.
    end: String,
    more: bool,
}

#[derive(FromRow)]
struct LookRow {
    digest: String,
    bytes: i64,
}

#[derive(FromRow)]
struct ReferrerRow {
    digest: String,
    media_type: String,
    size: i64,
    artifact_type: Option<String>,
    annotations: Option<String>,
}

impl TryFrom<ReferrerRow> for Referrer {
    type Error = Error;

    fn try_from(row: ReferrerRow) -> Result<Self, Error> {
        Ok(Self {
            digest: parse(&row.digest)?,
            media_type: row.media_type,
            size: unsigned(row.size)?,
            artifact_type: row.artifact_type,
            annotations: row.annotations,
        })
    }
}

impl Database {
    /// A page of the manifests that refer to a subject, if it has at most `bytes_max` bytes.
    pub(crate) async fn referrers(
        &self,
        wanted: Wanted<'_>,
        bytes_max: usize,
    ) -> Result<Answer, Error> {
        // What is measured is what is read.
        let mut reader = self.reader().await?;
        let mut snapshot = reader.begin().await?;
        let page = measure(&mut snapshot, wanted).await?;
        if page.bytes > bytes_max {
            return Ok(Answer::TooLarge(page.bytes));
        }
        let rows: Vec<ReferrerRow> = match page.count {
            0 => Vec::new(),
            count => wanted.ask(READ, READ_OF_TYPE, count).fetch_all(&mut *snapshot).await?,
        };
        let referrers = rows.into_iter().map(Referrer::try_from).collect::<Result<_, _>>()?;
        Ok(Answer::Page { referrers, next: page.more.then_some(page.end) })
    }

    /// Up to `limit` manifests that refer to `subject`, behind `last` in byte order.
    pub(crate) async fn referrers_after(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        last: &str,
        limit: u32,
    ) -> Result<Vec<Digest>, Error> {
        let digests: Vec<String> = sqlx::query_scalar(
            "SELECT m.digest FROM repositories r JOIN manifests m ON m.repository = r.id
             WHERE r.name = $1 AND m.subject = $2 AND m.digest > $3
             ORDER BY m.digest LIMIT $4",
        )
        .bind(repository.as_str())
        .bind(subject.as_str())
        .bind(last)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.reader().await?)
        .await?;
        digests.iter().map(|digest| parse(digest)).collect()
    }

    /// As [`referrers_after`](Self::referrers_after), for collection: one that cannot be read is
    /// named too.
    pub(crate) async fn referrers_by_id(
        &self,
        repository: RepositoryId,
        subject: &str,
        last: &str,
        limit: u32,
    ) -> Result<Vec<String>, Error> {
        let digests = sqlx::query_scalar(
            "SELECT digest FROM manifests WHERE repository = $1 AND subject = $2 AND digest > $3
             ORDER BY digest LIMIT $4",
        )
        .bind(repository)
        .bind(subject)
        .bind(last)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.reader().await?)
        .await?;
        Ok(digests)
    }
}

impl Wanted<'_> {
    /// The next `limit` of them, by one of the two statements.
    fn ask<R>(&self, all: &'static str, of_type: &'static str, limit: u32) -> Asked<'_, R>
    where
        R: for<'r> FromRow<'r, SqliteRow>,
    {
        let statement = if self.artifact_type.is_some() { of_type } else { all };
        let query = sqlx::query_as(statement).bind(self.repository.as_str());
        let query = query.bind(self.subject.as_str()).bind(self.last).bind(i64::from(limit));
        match self.artifact_type {
            Some(artifact_type) => query.bind(artifact_type),
            None => query,
        }
    }
}

/// Looks at lengths alone.
async fn measure(connection: &mut SqliteConnection, wanted: Wanted<'_>) -> Result<Measured, Error> {
    let mut page = Measured { count: 0, bytes: 0, end: wanted.last.to_owned(), more: false };
    if wanted.limit == 0 {
        return Ok(page);
    }
    let mut rows = wanted.ask::<LookRow>(LOOK, LOOK_OF_TYPE, wanted.limit + 1).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let bytes = usize::try_from(row.bytes).unwrap_or(0).saturating_add(DESCRIPTOR_BYTES);
        let is_full = page.count == wanted.limit
            || (page.count > 0 && page.bytes.saturating_add(bytes) > PAGE_BYTES_MAX);
        if is_full {
            page.more = true;
            break;
        }
        page.count += 1;
        page.bytes = page.bytes.saturating_add(bytes);
        page.end = row.digest;
    }
    Ok(page)
}

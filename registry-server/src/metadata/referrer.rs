//! Who refers to a manifest: read a page at a time, within a bound in bytes.
//!
//! A pusher chooses how large annotations are, so a page is measured before a row of it is read.

use berth_shared::{
    database::{Bind, Statements, row},
    digest::Digest,
    name::RepositoryName,
};
use sqlx::AssertSqlSafe;

use super::{Database, Error, readers::Snapshot, repository::RepositoryId};

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

/// The length of a referrer, which its row tells without being read.
const LENGTH: &str = "m.digest,
     CAST(COALESCE(OCTET_LENGTH(m.annotations), 0) + COALESCE(OCTET_LENGTH(m.artifact_type), 0)
          AS BIGINT) AS bytes";

/// What a page of referrers says.
const ALL: &str = "m.digest, m.media_type, m.size, m.artifact_type, m.annotations";

/// How far a page goes.
struct Measured {
    count: u32,
    bytes: usize,
    /// The last of it that was looked at.
    end: String,
    more: bool,
}

row!(Referrer { digest, media_type, size, artifact_type, annotations });

impl Database {
    /// A page of the manifests that refer to a subject, if it has at most `bytes_max` bytes.
    pub(crate) async fn referrers(
        &self,
        wanted: Wanted<'_>,
        bytes_max: usize,
    ) -> Result<Answer, Error> {
        // What is measured is what is read.
        let mut reader = self.reader().await?;
        let mut snapshot = reader.snapshot().await?;
        let page = measure(&mut snapshot, wanted).await?;
        if page.bytes > bytes_max {
            return Ok(Answer::TooLarge(page.bytes));
        }
        let referrers = match page.count {
            0 => Vec::new(),
            count => snapshot.all(wanted.select(ALL), wanted.values(count)).await?,
        };
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
        let wanted = Wanted { repository, subject, artifact_type: None, last, limit };
        self.reader().await?.all(wanted.select("m.digest"), wanted.values(limit)).await
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
        let statement = "SELECT digest FROM manifests
             WHERE repository = $1 AND subject = $2 AND digest > $3 ORDER BY digest LIMIT $4";
        self.reader().await?.all(statement, (repository, subject, last, limit)).await
    }
}

impl Wanted<'_> {
    /// What reads `columns` of them: those of a type by the index that holds those alone, whatever
    /// else refers.
    fn select(&self, columns: &str) -> AssertSqlSafe<String> {
        let of_type = self.artifact_type.map_or("", |_| " AND m.artifact_type = $5");
        AssertSqlSafe(format!(
            "SELECT {columns} FROM repositories r JOIN manifests m ON m.repository = r.id
             WHERE r.name = $1 AND m.subject = $2{of_type} AND m.digest > $3
             ORDER BY m.digest LIMIT $4"
        ))
    }

    /// What either says that the next `limit` of them are. A place that it does not have is left
    /// alone.
    fn values(&self, limit: u32) -> impl Bind {
        (self.repository, self.subject, self.last, limit, self.artifact_type)
    }
}

/// Looks at lengths alone.
async fn measure(snapshot: &mut Snapshot<'_>, wanted: Wanted<'_>) -> Result<Measured, Error> {
    let mut page = Measured { count: 0, bytes: 0, end: wanted.last.to_owned(), more: false };
    if wanted.limit == 0 {
        return Ok(page);
    }
    let lengths = snapshot.all(wanted.select(LENGTH), wanted.values(wanted.limit + 1)).await?;
    for (end, bytes) in lengths {
        let bytes: u64 = bytes;
        let bytes = usize::try_from(bytes).unwrap_or(0).saturating_add(DESCRIPTOR_BYTES);
        let is_full = page.count == wanted.limit
            || (page.count > 0 && page.bytes.saturating_add(bytes) > PAGE_BYTES_MAX);
        if is_full {
            page.more = true;
            break;
        }
        page.count += 1;
        page.bytes = page.bytes.saturating_add(bytes);
        page.end = end;
    }
    Ok(page)
}

//! Upload sessions. The row is there before the first byte, so every object can be traced.

use std::{fmt, str::FromStr};

use super::{Database, Error, Rows, Transaction};
use crate::storage::{self, Draft, is_random_hex, random_hex};
use berth_shared::{
    claimant::Claimant,
    clock::UnixSeconds,
    database::{Statements, row, same, text},
    digest::Algorithm,
    name::RepositoryName,
};
use sqlx::AssertSqlSafe;

/// The text is no id of an upload session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of an upload session")]
pub struct InvalidUploadId;

/// Names an upload session: 128 random bits in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UploadId(String);

impl UploadId {
    /// A new id, unlike any other.
    pub(crate) fn fresh() -> Result<Self, storage::Error> {
        Ok(Self(random_hex()?))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UploadId {
    type Err = InvalidUploadId;

    fn from_str(text: &str) -> Result<Self, InvalidUploadId> {
        if is_random_hex(text) { Ok(Self(text.to_owned())) } else { Err(InvalidUploadId) }
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// To whose share an upload counts, as the database holds it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub(crate) struct Pusher(String);

impl Pusher {
    /// As whom `claimant` pushes.
    pub(crate) fn of(claimant: &Claimant) -> Self {
        Self(claimant.to_string())
    }
}

/// An upload session as it was last recorded.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) id: UploadId,
    pub(crate) repository: RepositoryName,
    /// The `sub` claim of whoever began it.
    pub(crate) subject: String,
    /// Whose share it counts to.
    pub(crate) pusher: Pusher,
    /// What was received.
    pub(crate) draft: Draft,
    /// The fence: who claimed or recorded last may record and commit.
    pub(crate) claim: u64,
    pub(crate) algorithm: Algorithm,
    /// The state of the hash over what was received.
    pub(crate) hash_state: Option<Vec<u8>>,
    pub(crate) started: UnixSeconds,
}

/// Sessions of a pusher and the bytes that they hold; no more of them are counted than it may have.
const UNFINISHED: &str = "SELECT COUNT(*), CAST(COALESCE(SUM(received), 0) AS BIGINT) FROM
     (SELECT received FROM uploads WHERE pusher = $1 AND touched >= $2 LIMIT $3) s";

text!(UploadId::as_str);
same!(Pusher);
row!(Upload { id, repository, subject, pusher, claim, algorithm, hash_state, started }, draft);
row!(Draft { location, received, state });

impl Database {
    /// The session with this id, unless it was last touched before `idle_since`.
    pub(crate) async fn upload(
        &self,
        id: &UploadId,
        idle_since: UnixSeconds,
    ) -> Result<Option<Upload>, Error> {
        let statement =
            "SELECT id, repository, subject, pusher, location, received, draft AS state,
                    claim, algorithm, hash_state, started
             FROM uploads WHERE id = $1 AND touched >= $2";
        self.reader().await?.optional(statement, (id, idle_since)).await
    }

    /// The session of whoever began it in the repository, for a request that goes on with it: who worked
    /// on it before records and commits nothing any more.
    pub(crate) async fn claim_upload(
        &self,
        id: &UploadId,
        (repository, subject): (&RepositoryName, &str),
        idle_since: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<Option<Upload>, Error> {
        let whose = (id.clone(), repository.clone(), subject.to_owned());
        self.write_one(whose, move |tx, (id, repository, subject)| {
            Box::pin(async move {
                let statement = "UPDATE uploads SET claim = claim + 1, touched = $5
                     WHERE id = $1 AND repository = $2 AND subject = $3 AND touched >= $4
                     RETURNING id, repository, subject, pusher, location, received, draft AS state,
                               claim, algorithm, hash_state, started";
                tx.optional(statement, (id, repository, subject, idle_since, now)).await
            })
        })
        .await
    }

    /// Up to `limit` sessions behind the id `last` that were last touched before `idle_since`: each
    /// by its id as it stands there, and as it can be read.
    pub(crate) async fn idle_uploads(
        &self,
        last: &str,
        idle_since: UnixSeconds,
        limit: u32,
    ) -> Result<Rows<String, Upload>, Error> {
        let statement =
            "SELECT id, repository, subject, pusher, location, received, draft AS state,
                    claim, algorithm, hash_state, started
             FROM uploads WHERE touched < $1 AND id > $2 ORDER BY id LIMIT $3";
        self.reader().await?.all(statement, (idle_since, last, limit)).await
    }

    /// How many sessions the pusher has that were touched since `idle_since`, and the bytes that they
    /// hold together; counted no further than `limit` of them.
    pub(crate) async fn unfinished_of(
        &self,
        pusher: &Pusher,
        idle_since: UnixSeconds,
        limit: u32,
    ) -> Result<(u64, u64), Error> {
        self.reader().await?.one(UNFINISHED, (pusher, idle_since, limit)).await
    }

    /// Records a new session, unless its pusher has `max` of them or more. Whether it did.
    pub(crate) async fn start_upload(
        &self,
        upload: Upload,
        idle_since: UnixSeconds,
        max: u32,
    ) -> Result<bool, Error> {
        self.write(upload, move |tx, upload| {
            Box::pin(async move {
                let (has, _): (u64, u64) =
                    tx.one(UNFINISHED, (&upload.pusher, idle_since, max)).await?;
                if has >= max.into() {
                    return Ok(false);
                }
                let statement = "INSERT INTO uploads
                     (id, repository, subject, pusher, location, received, draft, algorithm,
                      hash_state, started, touched)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)";
                let Draft { location, received, state } = &upload.draft;
                let session = (
                    &upload.id,
                    &upload.repository,
                    &upload.subject,
                    &upload.pusher,
                    location,
                    received,
                    state,
                    upload.algorithm,
                    &upload.hash_state,
                    upload.started,
                );
                tx.run(statement, session).await?;
                Ok(true)
            })
        })
        .await
    }

    /// Records how far a session has come, and moves its fence on. `false` when it has ended, or
    /// somebody else recorded since the upload was read.
    pub(crate) async fn record_upload(
        &self,
        upload: &mut Upload,
        now: UnixSeconds,
    ) -> Result<bool, Error> {
        let write = self.write_one(
            upload.clone(),
            move |tx, Upload { id, claim, draft, hash_state, .. }| {
                Box::pin(async move {
                    let statement = "UPDATE uploads SET received = $3, draft = $4, hash_state = $5,
                             touched = $6, claim = claim + 1 WHERE id = $1 AND claim = $2";
                    let Draft { received, state, .. } = draft;
                    tx.run(statement, (id, claim, received, state, hash_state, now)).await
                })
            },
        );
        let recorded = write.await?;
        upload.claim += recorded;
        Ok(recorded > 0)
    }

    /// Ends a session, whose object goes. `false` when it had ended already, or somebody else
    /// recorded since the upload was read; with `idle_since`, when somebody has touched it since.
    pub(crate) async fn end_upload(
        &self,
        upload: &Upload,
        idle_since: Option<UnixSeconds>,
        due: UnixSeconds,
    ) -> Result<bool, Error> {
        self.write(upload.clone(), move |tx, upload| {
            Box::pin(async move {
                let idle = "DELETE FROM uploads WHERE id = $1 AND touched < $2";
                let is_ended = match idle_since {
                    Some(idle_since) => tx.run(idle, (&upload.id, idle_since)).await? > 0,
                    None => tx.delete_upload(upload).await?,
                };
                if is_ended {
                    tx.bury(&upload.draft, due).await?;
                }
                Ok(is_ended)
            })
        })
        .await
    }

    /// Drops all sessions, what was to be deleted, whose objects they were, and what servers say to each
    /// other: what a copy cannot go on with.
    pub(crate) async fn forget_uploads(&self) -> Result<(), Error> {
        self.write((), |tx, ()| {
            Box::pin(async move {
                tx.run("DELETE FROM uploads", ()).await?;
                for table in ["dead_objects", "state", "leases", "totals"] {
                    tx.run(AssertSqlSafe(format!("DELETE FROM {table}")), ()).await?;
                }
                Ok(())
            })
        })
        .await
    }
}

impl Transaction<'_> {
    pub(super) async fn delete_upload(&mut self, upload: &Upload) -> Result<bool, Error> {
        let statement = "DELETE FROM uploads WHERE id = $1 AND claim = $2";
        Ok(self.run(statement, (&upload.id, upload.claim)).await? > 0)
    }
}

#[cfg(test)]
mod tests {
    use berth_shared::digest::Digest;

    use super::*;
    use crate::{
        metadata::blob::{Blob, Received},
        storage::Location,
    };

    fn moment(seconds: i64) -> UnixSeconds {
        UnixSeconds::new(seconds)
    }

    fn upload() -> Upload {
        Upload {
            id: UploadId::fresh().unwrap(),
            repository: "app".parse().unwrap(),
            subject: "user:andrew".to_owned(),
            pusher: Pusher("subject:andrew".to_owned()),
            draft: Draft::of(Location::fresh().unwrap(), 0),
            claim: 0,
            algorithm: Algorithm::Sha256,
            hash_state: None,
            started: moment(0),
        }
    }

    #[tokio::test]
    async fn who_was_overtaken_records_commits_and_ends_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(&directory.path().join("registry.db")).await.unwrap();
        let begun = upload();
        assert!(database.start_upload(begun.clone(), moment(0), 1).await.unwrap());
        let (mut overtaken, mut newest) = (begun.clone(), begun);
        newest.draft.received = 7;
        newest.draft.state = Some("in the store's words".to_owned());
        assert!(database.record_upload(&mut newest, moment(5)).await.unwrap());

        overtaken.draft.received = 3;
        assert!(!database.record_upload(&mut overtaken, moment(6)).await.unwrap());
        assert!(!database.end_upload(&overtaken, None, moment(6)).await.unwrap());
        let digest: Digest = Algorithm::Sha256.digest(b"");
        let received = |upload: &Upload| {
            let location = upload.draft.location.clone();
            let blob = Blob { digest: digest.clone(), size: 0, location, damaged: false };
            Received { blob, unsound: None, left: None, due: moment(6) }
        };
        let put = database.commit_blob(&overtaken, received(&overtaken), moment(6)).await.unwrap();
        assert_eq!(put, None);
        assert_eq!(
            database.dead_objects(moment(100), &Default::default(), 10).await.unwrap().len(),
            0
        );

        let recorded = database.upload(&newest.id, moment(0)).await.unwrap().unwrap();
        assert_eq!((&recorded.draft, recorded.claim), (&newest.draft, newest.claim));
        let put = database.commit_blob(&newest, received(&newest), moment(7)).await.unwrap();
        assert_eq!(put, Some(Vec::new()));
        assert!(database.upload(&newest.id, moment(0)).await.unwrap().is_none());
    }
}

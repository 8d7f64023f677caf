//! The refresh tokens: the acts that keep, find and end them.
//!
//! They are no part of the policy in memory but looked up when one is shown, so that issuing one
//! does not make the policy be read again. Rows go with what takes their subject's tokens away as a
//! whole (a new password, a removed user or robot, `authctl revoke-tokens`, a restored backup), and
//! stay when single rights go: those are evaluated anew at every use.

use std::collections::BTreeMap;

use berth_shared::{
    clock::UnixSeconds,
    database::{self, Column, Record, Row, Statements},
    subject::{Grantee, Subject},
};

use super::{
    Database, Error,
    counters::raise,
    members::{losers, own},
    row::Member,
    transaction::{Transaction, Turn},
};
use crate::audit::Act;

/// Refresh tokens that one subject has at most; beyond it the one that was not used for longest
/// goes. A login that is repeated by a script leaves a new one each time.
pub const PER_SUBJECT_MAX: i64 = 100;

/// Rows that are read at once.
const PAGE: i64 = 1000;

/// A refresh token that is about to be kept.
#[derive(Debug)]
pub struct NewRefreshToken {
    /// What it hashes to.
    pub hash: String,
    /// Whose it is: a user or a robot.
    pub subject: Subject,
    /// The fingerprint of the credential that it was issued for.
    pub credential: String,
    /// What the client calls itself.
    pub client: String,
    /// The sequence that was read before the subject signed in.
    pub sequence: u64,
}

/// A refresh token as the database knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshTokenRow {
    /// Its name for `authctl`.
    pub id: i64,
    /// Whose it is.
    pub subject: Subject,
    /// The fingerprint of the credential that it was issued for.
    pub credential: String,
    /// What the client called itself.
    pub client: String,
    /// When it was issued.
    pub created: UnixSeconds,
    /// When it was last used, give or take the time between two notes of it.
    pub last_used: UnixSeconds,
}

impl Database {
    /// Keeps a new refresh token, and clears away those that nobody has used since `idle_since`.
    /// Gives back its id if it was kept: not when the subject's tokens were voided after it had
    /// signed in.
    ///
    /// # Errors
    /// When the database cannot be written to; nothing is changed then.
    pub async fn keep_refresh_token(
        &self,
        new: &NewRefreshToken,
        now: UnixSeconds,
        idle_since: UnixSeconds,
    ) -> Result<Option<i64>, Error> {
        let kept = self.change(Turn::Beside, new, move |tx, &new| {
            Box::pin(async move {
                if counter(tx, &new.subject).await? > new.sequence {
                    return Ok(None);
                }
                let idle = "DELETE FROM refresh_tokens WHERE last_used <= $1";
                tx.run(idle, idle_since).await?;
                let NewRefreshToken { hash, credential, client, .. } = new;
                let subject = new.subject.claim();
                let beyond = "DELETE FROM refresh_tokens WHERE subject = $1 AND id NOT IN (
                         SELECT id FROM refresh_tokens WHERE subject = $1
                         ORDER BY last_used DESC, id DESC LIMIT $2)";
                tx.run(beyond, (subject, PER_SUBJECT_MAX - 1)).await?;
                let insert =
                    "INSERT INTO refresh_tokens (hash, subject, credential, client, created, last_used)
                     VALUES ($1, $2, $3, $4, $5, $5) RETURNING id";
                tx.one(insert, (hash, subject, credential, client, now)).await.map(Some)
            })
        });
        kept.await
    }

    /// The refresh token that hashes to `hash`. Looked up by its hash: what the time of that tells
    /// is about the hash of a guess, and says nothing about any token.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find_refresh_token(&self, hash: &str) -> Result<Option<RefreshTokenRow>, Error> {
        let statement =
            "SELECT id, subject, credential, client, created, last_used FROM refresh_tokens
             WHERE hash = $1";
        self.asking().await?.optional(statement, hash).await
    }

    /// Notes that a refresh token was used.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn note_refresh_token(&self, id: i64, now: UnixSeconds) -> Result<(), Error> {
        let note = "UPDATE refresh_tokens SET last_used = $2 WHERE id = $1 AND last_used < $2";
        self.write(note, (id, now)).await
    }

    /// Every refresh token, or those of one subject, in the order in which they were issued.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn refresh_tokens(
        &self,
        subject: Option<&Subject>,
    ) -> Result<Vec<RefreshTokenRow>, Error> {
        if let Some(subject) = subject {
            let statement =
                "SELECT id, subject, credential, client, created, last_used FROM refresh_tokens
                 WHERE subject = $1 ORDER BY id";
            return self.asking().await?.all(statement, subject.claim()).await;
        }
        let mut all: Vec<RefreshTokenRow> = Vec::new();
        loop {
            let statement =
                "SELECT id, subject, credential, client, created, last_used FROM refresh_tokens
                 WHERE id > $1 ORDER BY id LIMIT $2";
            let values = (all.last().map_or(0, |row| row.id), PAGE);
            let rows: Vec<RefreshTokenRow> = self.asking().await?.all(statement, values).await?;
            if rows.is_empty() {
                return Ok(all);
            }
            all.extend(rows);
        }
    }

    /// Ends refresh tokens, and voids the tokens of whose they were: those that came from them
    /// cannot be told apart. Gives back those that were there.
    ///
    /// # Errors
    /// When the database cannot be written to; none is ended then.
    pub async fn end_refresh_tokens(&self, ids: &[i64]) -> Result<Vec<RefreshTokenRow>, Error> {
        let ended = self.act(ids, |tx, &ids| {
            Box::pin(async move {
                let mut ended = Vec::<RefreshTokenRow>::new();
                for id in ids {
                    let delete = "DELETE FROM refresh_tokens WHERE id = $1
                         RETURNING id, subject, credential, client, created, last_used";
                    ended.extend(tx.optional(delete, id).await?);
                }
                let mut of = BTreeMap::<_, Vec<i64>>::new();
                for row in &ended {
                    of.entry(&row.subject).or_default().push(row.id);
                }
                for (subject, ids) in of {
                    raise(tx, &own(subject)).await?;
                    tx.record(&Act::RefreshRevoke(subject, &ids)).await?;
                }
                Ok(ended)
            })
        });
        ended.await
    }
}

/// Ends the refresh tokens of `grantee`: of each member of a group, and of all for `everyone`.
/// Gives back how many there were.
pub(super) async fn forget(
    transaction: &mut Transaction<'_>,
    grantee: &Grantee,
) -> Result<u64, Error> {
    if *grantee == Grantee::Everyone {
        return transaction.run("DELETE FROM refresh_tokens", ()).await;
    }
    let mut ended = 0;
    for loser in losers(transaction, grantee).await? {
        ended += transaction.run("DELETE FROM refresh_tokens WHERE subject = $1", loser).await?;
    }
    Ok(ended)
}

/// The counter that the tokens of `subject` must reach.
async fn counter(transaction: &mut Transaction<'_>, subject: &Subject) -> Result<u64, Error> {
    let statement =
        "SELECT COALESCE(MAX(counter), 0) AS counter FROM counters WHERE grantee IN ($1, $2)";
    transaction.one(statement, (subject.claim(), Grantee::Everyone)).await
}

impl Row for RefreshTokenRow {
    fn of(row: &Record) -> Result<Self, database::Error> {
        let Member(subject) = Column::at(row, "subject")?;
        Ok(Self {
            id: Column::at(row, "id")?,
            subject,
            credential: Column::at(row, "credential")?,
            client: Column::at(row, "client")?,
            created: Column::at(row, "created")?,
            last_used: Column::at(row, "last_used")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn moment(seconds: i64) -> UnixSeconds {
        UnixSeconds::new(seconds)
    }

    fn subject(name: &str) -> Subject {
        Subject::from_claim(name).unwrap()
    }

    async fn database() -> (tempfile::TempDir, Database) {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("auth.db")).await.unwrap();
        (dir, database)
    }

    async fn keep(database: &Database, hash: &str, name: &str, now: UnixSeconds) -> bool {
        let sequence = database.policy().await.unwrap().sequence;
        keep_after(database, hash, name, now, sequence).await
    }

    async fn keep_after(
        database: &Database,
        hash: &str,
        name: &str,
        now: UnixSeconds,
        sequence: u64,
    ) -> bool {
        let new = NewRefreshToken {
            hash: hash.to_owned(),
            subject: subject(name),
            credential: "print".to_owned(),
            client: "docker".to_owned(),
            sequence,
        };
        database.keep_refresh_token(&new, now, now - 50).await.unwrap().is_some()
    }

    async fn left(database: &Database) -> Vec<String> {
        let all = database.refresh_tokens(None).await.unwrap();
        all.iter().map(|row| row.subject.to_string()).collect()
    }

    #[tokio::test]
    async fn what_voids_tokens_as_a_whole_ends_refresh_tokens_and_a_lost_right_does_not() {
        let (_dir, database) = database().await;
        let users = |names: &[(&str, &str)]| -> BTreeMap<_, _> {
            names.iter().map(|(name, print)| (name.parse().unwrap(), (*print).to_owned())).collect()
        };
        let first = users(&[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")]);
        database.reconcile_users(&first).await.unwrap();
        for name in ["a", "b", "c", "d", "robot.ci", "robot.cd"] {
            assert!(keep(&database, name, name, moment(1)).await);
        }
        let devs = "devs".parse().unwrap();
        database.join_group(&devs, &[subject("d"), subject("robot.cd")]).await.unwrap();
        database.leave_group(&devs, &[subject("d")]).await.unwrap();
        database.join_group(&devs, &[subject("d")]).await.unwrap();
        assert_eq!(left(&database).await.len(), 6, "leaving a group takes a right");
        assert_eq!(database.void_tokens(&"anonymous".parse().unwrap()).await.unwrap(), 0);
        database.reconcile_users(&users(&[("a", "2"), ("c", "1"), ("d", "1")])).await.unwrap();
        assert_eq!(left(&database).await, ["c", "d", "robot.ci", "robot.cd"]);
        let left_over = users(&[("a", "2"), ("d", "1")]);
        database
            .remove_user(&left_over, &"c".parse().unwrap(), || Ok::<_, Error>(()))
            .await
            .unwrap();
        assert_eq!(database.void_tokens(&"group:devs".parse().unwrap()).await.unwrap(), 2);
        assert_eq!(left(&database).await, ["robot.ci"]);
        assert_eq!(database.void_tokens(&"everyone".parse().unwrap()).await.unwrap(), 1);
        assert!(keep(&database, "again", "a", moment(1)).await);
        database.void_all_tokens(1000).await.unwrap();
        assert!(left(&database).await.is_empty());
    }

    #[tokio::test]
    async fn none_is_kept_for_a_sign_in_whose_tokens_were_voided_meanwhile() {
        let (_dir, database) = database().await;
        let before = database.policy().await.unwrap().sequence;
        database.void_tokens(&"a".parse().unwrap()).await.unwrap();
        assert!(!keep_after(&database, "x", "a", moment(1), before).await);
        assert!(keep_after(&database, "y", "b", moment(1), before).await);
        database.void_tokens(&"everyone".parse().unwrap()).await.unwrap();
        assert!(!keep_after(&database, "z", "b", moment(1), before).await);
        assert!(keep(&database, "z", "b", moment(1)).await);
    }

    #[tokio::test]
    async fn a_subject_has_a_bounded_number_and_the_idle_ones_go() {
        let (_dir, database) = database().await;
        assert!(keep(&database, "other", "b", moment(100)).await);
        for n in 0..PER_SUBJECT_MAX {
            assert!(keep(&database, &format!("h{n}"), "a", moment(100)).await);
        }
        let first = database.find_refresh_token("h0").await.unwrap().unwrap();
        database.note_refresh_token(first.id, moment(101)).await.unwrap();
        assert!(keep(&database, "one more", "a", moment(101)).await);
        let all = database.refresh_tokens(Some(&subject("a"))).await.unwrap();
        assert_eq!(all.len() as i64, PER_SUBJECT_MAX);
        assert!(database.find_refresh_token("h0").await.unwrap().is_some(), "it was used");
        assert!(database.find_refresh_token("h1").await.unwrap().is_none());
        assert!(database.find_refresh_token("other").await.unwrap().is_some());
        // 50 s are the idle life here: what was last used at 101 ends with 151.
        assert!(keep(&database, "later", "c", moment(150)).await);
        assert_eq!(left(&database).await, ["a", "a", "c"]);
        assert!(keep(&database, "last", "c", moment(151)).await);
        assert_eq!(left(&database).await, ["c", "c"]);
    }

    #[tokio::test]
    async fn ending_one_voids_the_tokens_of_its_subject_alone() {
        let (_dir, database) = database().await;
        for (hash, name) in [("1", "a"), ("2", "a"), ("3", "b")] {
            assert!(keep(&database, hash, name, moment(1)).await);
        }
        let id = database.find_refresh_token("1").await.unwrap().unwrap().id;
        assert_eq!(database.end_refresh_tokens(&[id, 1000]).await.unwrap().len(), 1);
        assert!(database.end_refresh_tokens(&[id]).await.unwrap().is_empty());
        assert_eq!(left(&database).await, ["a", "b"]);
        let counters = database.policy().await.unwrap().revocations.counters.clone();
        assert_eq!(counters.into_iter().collect::<Vec<_>>(), [("a".parse().unwrap(), 1)]);
        assert!(keep(&database, "4", "b", moment(1)).await);
        let newest = database.find_refresh_token("4").await.unwrap().unwrap();
        database.end_refresh_tokens(&[newest.id]).await.unwrap();
        assert!(keep(&database, "5", "b", moment(1)).await);
        assert!(database.find_refresh_token("5").await.unwrap().unwrap().id > newest.id);
    }
}

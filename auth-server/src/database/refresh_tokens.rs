//! The refresh tokens: the acts that keep, find and end them.
//!
//! They are no part of the policy in memory but looked up when one is shown, so that issuing one
//! does not make the policy be read again. Rows go with what takes their subject's tokens away as a
//! whole (a new password, a removed user or robot, `authctl revoke-tokens`, a restored backup), and
//! stay when single rights go: those are evaluated anew at every use.

use std::collections::BTreeMap;

use berth_shared::{
    clock::UnixSeconds,
    subject::{Grantee, Subject},
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Database, Error,
    counters::raise,
    members::{losers, own},
    row::{count, read_member},
    transaction::{begin, record},
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
        let mut writer = self.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        if counter(&mut transaction, &new.subject).await? > new.sequence {
            return Ok(None);
        }
        let idle = sqlx::query("DELETE FROM refresh_tokens WHERE last_used <= $1").bind(idle_since);
        idle.execute(&mut *transaction).await?;
        let subject = new.subject.claim();
        let beyond = sqlx::query(
            "DELETE FROM refresh_tokens WHERE subject = $1 AND id NOT IN (
                 SELECT id FROM refresh_tokens WHERE subject = $1
                 ORDER BY last_used DESC, id DESC LIMIT $2)",
        );
        beyond.bind(subject).bind(PER_SUBJECT_MAX - 1).execute(&mut *transaction).await?;
        let id = sqlx::query_scalar(
            "INSERT INTO refresh_tokens (hash, subject, credential, client, created, last_used)
             VALUES ($1, $2, $3, $4, $5, $5) RETURNING id",
        )
        .bind(&new.hash)
        .bind(subject)
        .bind(&new.credential)
        .bind(&new.client)
        .bind(now)
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Some(id))
    }

    /// The refresh token that hashes to `hash`. Looked up by its hash: what the time of that tells
    /// is about the hash of a guess, and says nothing about any token.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find_refresh_token(&self, hash: &str) -> Result<Option<RefreshTokenRow>, Error> {
        let query = sqlx::query(
            "SELECT id, subject, credential, client, created, last_used FROM refresh_tokens
             WHERE hash = $1",
        );
        let mut reader = self.reader.lock().await;
        let row = query.bind(hash).fetch_optional(&mut *reader).await?;
        row.as_ref().map(read_row).transpose()
    }

    /// Notes that a refresh token was used.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn note_refresh_token(&self, id: i64, now: UnixSeconds) -> Result<(), Error> {
        let note = "UPDATE refresh_tokens SET last_used = $2 WHERE id = $1 AND last_used < $2";
        self.write(sqlx::query(note).bind(id).bind(now)).await
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
            let query = sqlx::query(
                "SELECT id, subject, credential, client, created, last_used FROM refresh_tokens
                 WHERE subject = $1 ORDER BY id",
            );
            let query = query.bind(subject.claim());
            let rows = query.fetch_all(&mut *self.reader.lock().await).await?;
            return rows.iter().map(read_row).collect();
        }
        let mut all: Vec<RefreshTokenRow> = Vec::new();
        loop {
            let query = sqlx::query(
                "SELECT id, subject, credential, client, created, last_used FROM refresh_tokens
                 WHERE id > $1 ORDER BY id LIMIT $2",
            );
            let query = query.bind(all.last().map_or(0, |row| row.id)).bind(PAGE);
            let rows = query.fetch_all(&mut *self.reader.lock().await).await?;
            if rows.is_empty() {
                return Ok(all);
            }
            all.extend(rows.iter().map(read_row).collect::<Result<Vec<_>, _>>()?);
        }
    }

    /// Ends refresh tokens, and voids the tokens of whose they were: those that came from them
    /// cannot be told apart. Gives back those that were there.
    ///
    /// # Errors
    /// When the database cannot be written to; none is ended then.
    pub async fn end_refresh_tokens(&self, ids: &[i64]) -> Result<Vec<RefreshTokenRow>, Error> {
        let mut writer = self.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        let mut ended = Vec::new();
        for id in ids {
            let delete = sqlx::query(
                "DELETE FROM refresh_tokens WHERE id = $1
                 RETURNING id, subject, credential, client, created, last_used",
            );
            let row = delete.bind(id).fetch_optional(&mut *transaction).await?;
            ended.extend(row.as_ref().map(read_row).transpose()?);
        }
        let mut of = BTreeMap::<_, Vec<i64>>::new();
        for row in &ended {
            of.entry(&row.subject).or_default().push(row.id);
        }
        for (subject, ids) in of {
            raise(&mut transaction, &own(subject)).await?;
            let act = Act::RefreshRevoke(subject, &ids);
            record(&mut transaction, &self.author, &act).await?;
        }
        transaction.commit().await?;
        Ok(ended)
    }
}

/// Ends the refresh tokens of `grantee`: of each member of a group, and of all for `everyone`.
/// Gives back how many there were.
pub(super) async fn forget(
    transaction: &mut SqliteConnection,
    grantee: &Grantee,
) -> Result<u64, Error> {
    if *grantee == Grantee::Everyone {
        let all = sqlx::query("DELETE FROM refresh_tokens");
        return Ok(all.execute(transaction).await?.rows_affected());
    }
    let mut ended = 0;
    for loser in losers(transaction, grantee).await? {
        let tokens = sqlx::query("DELETE FROM refresh_tokens WHERE subject = $1");
        let tokens = tokens.bind(loser.to_string()).execute(&mut *transaction).await?;
        ended += tokens.rows_affected();
    }
    Ok(ended)
}

/// The counter that the tokens of `subject` must reach.
async fn counter(transaction: &mut SqliteConnection, subject: &Subject) -> Result<u64, Error> {
    let query = sqlx::query(
        "SELECT COALESCE(MAX(counter), 0) AS counter FROM counters WHERE grantee IN ($1, $2)",
    );
    let everyone = Grantee::Everyone.to_string();
    let row = query.bind(subject.claim()).bind(everyone).fetch_one(transaction).await?;
    count(&row, "counter")
}

fn read_row(row: &SqliteRow) -> Result<RefreshTokenRow, Error> {
    let subject = read_member(row, "subject")?;
    Ok(RefreshTokenRow {
        id: row.try_get("id")?,
        subject,
        credential: row.try_get("credential")?,
        client: row.try_get("client")?,
        created: row.try_get("created")?,
        last_used: row.try_get("last_used")?,
    })
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

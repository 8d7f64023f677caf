//! Where users have signed in from, with the right password.
//!
//! What is kept is bounded in every direction: in age, for each user, and as a whole.

use std::net::IpAddr;

use berth_shared::{clock::UnixSeconds, database::Statements, subject::UserName};

use super::{
    Database, Error,
    transaction::{Transaction, Turn},
};

/// How long it is kept that a user signed in from an address.
pub const KEPT_SECS: i64 = 30 * 24 * 60 * 60;

/// Pairs of a user and an address that are kept; beyond it those seen longest ago go.
pub const ENTRIES_MAX: u32 = 20_000;

/// Addresses that are kept of one user, so that nobody who changes theirs all the time pushes out
/// those of others.
const ADDRESSES_PER_USER_MAX: i64 = 200;

/// That a user signed in from an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignInAddress {
    /// Who.
    pub user: UserName,
    /// From where.
    pub address: IpAddr,
    /// When last, give or take the time between two notes of it.
    pub seen: UnixSeconds,
}

impl Database {
    /// What is known at `now`, the last seen first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sign_in_addresses(&self, now: UnixSeconds) -> Result<Vec<SignInAddress>, Error> {
        let statement = "SELECT name, address, seen FROM sign_in_addresses WHERE seen > $1
             ORDER BY seen DESC LIMIT $2";
        let values = (now - KEPT_SECS, ENTRIES_MAX);
        let rows: Vec<(UserName, IpAddr, UnixSeconds)> =
            self.asking().await?.all(statement, values).await?;
        let read = |(user, address, seen)| SignInAddress { user, address, seen };
        Ok(rows.into_iter().map(read).collect())
    }

    /// Notes that a user signed in from an address, unless the user is gone by now, and clears away
    /// what is too old or too much.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn note_sign_in_address(&self, seen: &SignInAddress) -> Result<(), Error> {
        let noted =
            self.change(Turn::Beside, seen, |tx, &SignInAddress { user, address, seen }| {
                Box::pin(async move {
                    let insert = "INSERT INTO sign_in_addresses (name, address, seen)
                     SELECT name, $2, $3 FROM htpasswd_seen WHERE name = $1
                     ON CONFLICT (name, address) DO UPDATE SET seen = excluded.seen";
                    tx.run(insert, (user, address, seen)).await?;
                    let oldest = *seen - KEPT_SECS;
                    tx.run("DELETE FROM sign_in_addresses WHERE seen <= $1", oldest).await?;
                    let of_user =
                        "DELETE FROM sign_in_addresses WHERE name = $1 AND address NOT IN (
                         SELECT address FROM sign_in_addresses WHERE name = $1
                         ORDER BY seen DESC, address LIMIT $2)";
                    tx.run(of_user, (user, ADDRESSES_PER_USER_MAX)).await?;
                    let of_all = "DELETE FROM sign_in_addresses WHERE (name, address) IN (
                         SELECT name, address FROM sign_in_addresses WHERE seen > $1 ORDER BY seen
                         LIMIT (SELECT CASE WHEN value > $2 THEN value - $2 ELSE 0 END
                                FROM sign_in_address_count))";
                    tx.run(of_all, (oldest, ENTRIES_MAX)).await.map(drop)
                })
            });
        noted.await
    }
}

/// Forgets where `user` signed in from.
pub(super) async fn forget(
    transaction: &mut Transaction<'_>,
    user: &UserName,
) -> Result<(), Error> {
    transaction.run("DELETE FROM sign_in_addresses WHERE name = $1", user).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn moment(seconds: i64) -> UnixSeconds {
        UnixSeconds::new(seconds)
    }

    fn pair(user: &str, address: &str, seen: UnixSeconds) -> SignInAddress {
        SignInAddress { user: user.parse().unwrap(), address: address.parse().unwrap(), seen }
    }

    fn users(names: &[&str]) -> BTreeMap<UserName, String> {
        names.iter().map(|name| (name.parse().unwrap(), "print".to_owned())).collect()
    }

    #[tokio::test]
    async fn only_users_are_noted_and_go_with_what_is_known_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("auth.db")).await.unwrap();
        database.reconcile_users(&users(&["a", "b", "c"])).await.unwrap();
        for user in ["a", "b", "c", "nobody"] {
            database.note_sign_in_address(&pair(user, "192.0.2.1", moment(10))).await.unwrap();
        }
        database.note_sign_in_address(&pair("a", "192.0.2.1", moment(20))).await.unwrap();
        let known = database.sign_in_addresses(moment(20)).await.unwrap();
        assert_eq!(known[0], pair("a", "192.0.2.1", moment(20)));
        assert_eq!(known.len(), 3);
        // A new password leaves where its owner is at home.
        let mut left = users(&["a", "b"]);
        left.insert("a".parse().unwrap(), "another".to_owned());
        database.reconcile_users(&left).await.unwrap();
        assert_eq!(database.sign_in_addresses(moment(20)).await.unwrap().len(), 2);
        left.remove(&"a".parse().unwrap());
        database.remove_user(&left, &"a".parse().unwrap(), || Ok::<_, Error>(())).await.unwrap();
        assert_eq!(
            database.sign_in_addresses(moment(20)).await.unwrap(),
            [pair("b", "192.0.2.1", moment(10))]
        );
        assert!(database.sign_in_addresses(moment(10 + KEPT_SECS)).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("auth.db")).await.unwrap();
        database.reconcile_users(&users(&["a"])).await.unwrap();
        sqlx::query(
            "WITH RECURSIVE count (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM count LIMIT $1)
             INSERT INTO sign_in_addresses (name, address, seen)
             SELECT 'user' || n, '192.0.2.1', n FROM count",
        )
        .bind(ENTRIES_MAX + 9)
        .execute(&mut *database.file().await.unwrap())
        .await
        .unwrap();
        database.note_sign_in_address(&pair("a", "192.0.2.1", moment(1_000_000))).await.unwrap();
        let known = database.sign_in_addresses(moment(1_000_000)).await.unwrap();
        let last = known.last().map(|pair| pair.seen);
        assert_eq!(
            (known.len(), known[0].seen, last),
            (ENTRIES_MAX as usize, moment(1_000_000), Some(moment(11)))
        );
        let left: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM sign_in_addresses")
            .fetch_one(&mut *database.file().await.unwrap())
            .await
            .unwrap();
        assert_eq!(left, i64::from(ENTRIES_MAX));
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_for_each_user_and_in_age() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("auth.db")).await.unwrap();
        database.reconcile_users(&users(&["a", "b"])).await.unwrap();
        database.note_sign_in_address(&pair("b", "192.0.2.1", moment(0))).await.unwrap();
        for n in 0..=ADDRESSES_PER_USER_MAX {
            database
                .note_sign_in_address(&pair("a", &format!("2001:db8::{n:x}"), moment(n)))
                .await
                .unwrap();
        }
        let known = database.sign_in_addresses(moment(0)).await.unwrap();
        assert_eq!(known.len() as i64, ADDRESSES_PER_USER_MAX + 1);
        assert!(!known.contains(&pair("a", "2001:db8::0", moment(0))));
        database.note_sign_in_address(&pair("b", "192.0.2.2", moment(KEPT_SECS))).await.unwrap();
        let ages = database.sign_in_addresses(moment(0)).await.unwrap();
        assert!(ages.iter().all(|pair| pair.seen > moment(0)), "{ages:?}");
    }
}

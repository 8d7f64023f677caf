//! The signing keys, where servers share the database: a row for each, with its private half sealed. What
//! the words in a row mean, and what opens it, is not known here.

use berth_shared::{
    database::{self, Connection, Statements},
    subject::Grantee,
};

pub use super::sealed_key::{SealedKey, read};
use super::{Database, Error, counters::raise};
use crate::audit::Act;

#[cfg(test)]
pub(crate) mod tests;

/// What becomes of the keys in one act.
pub struct KeyChange<T> {
    /// All that there are to be.
    pub keys: Vec<SealedKey>,
    /// Whether every token that is out is void from now on.
    pub voids_tokens: bool,
    /// What came of it.
    pub done: T,
    /// What the audit is told of that.
    pub acts: fn(&T) -> Vec<Act<'_>>,
}

impl Database {
    /// The signing keys as they are now.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn signing_keys(&self) -> Result<Vec<SealedKey>, Error> {
        Ok(read(&mut self.working().await?.connection()).await?)
    }

    /// Replaces the signing keys by what `change` makes of them, in one act: of two at once the second
    /// sees what the first has left. It may be asked more than once. What it refuses changes nothing.
    ///
    /// # Errors
    /// When the database cannot be written to; inside, what `change` says.
    pub async fn change_signing_keys<T: Send, E: Send>(
        &self,
        change: impl Fn(&[SealedKey]) -> Result<KeyChange<T>, E> + Send + Sync,
    ) -> Result<Result<T, E>, Error> {
        let changed = self.act(change, |tx, change| {
            Box::pin(async move {
                let before = read(&mut tx.connection()).await?;
                let KeyChange { keys, voids_tokens, done, acts } = match change(&before) {
                    Ok(change) => change,
                    Err(refused) => return Ok(Err(refused)),
                };
                replace(&mut tx.connection(), &before, &keys).await?;
                if voids_tokens {
                    // Refresh tokens stay: no signing key has to do with them.
                    raise(tx, &[Grantee::Everyone, Grantee::Anonymous]).await?;
                }
                for act in acts(&done) {
                    tx.record(&act).await?;
                }
                Ok(Ok(done))
            })
        });
        changed.await
    }
}

/// Makes the rows those of `after`, where they are those of `before`.
async fn replace(
    connection: &mut Connection<'_>,
    before: &[SealedKey],
    after: &[SealedKey],
) -> Result<(), database::Error> {
    let of = |keys: &[SealedKey], name: &str| keys.iter().any(|key| key.name == name);
    for key in before.iter().filter(|key| !of(after, &key.name)) {
        connection.run("DELETE FROM signing_keys WHERE name = $1", &*key.name).await?;
    }
    for key in after.iter().filter(|key| !before.contains(key)) {
        let statement = if of(before, &key.name) {
            "UPDATE signing_keys SET algorithm = $2, state = $3, made = $4, since = $5,
             token_life_secs = $6, until = $7, sealed = $8 WHERE name = $1"
        } else {
            "INSERT INTO signing_keys
             (name, algorithm, state, made, since, token_life_secs, until, sealed)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
        };
        let words = (&*key.name, &*key.algorithm, &*key.state);
        let times = (key.made, key.since, key.token_life_secs, key.until);
        connection.run(statement, (words, times, &*key.sealed)).await?;
    }
    Ok(())
}

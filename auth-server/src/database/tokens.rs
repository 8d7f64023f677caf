//! The acts that make tokens void which are out.

use berth_shared::{database::Statements, subject::Grantee};

use super::{Database, Error, counters::raise, refresh_tokens};
use crate::audit::Act;

impl Database {
    /// Makes every token void that is out, refresh tokens too, though what issued them was a later
    /// state than this database knows: `least` is a number that the sequence has not gone beyond
    /// anywhere.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn void_all_tokens(&self, least: i64) -> Result<(), Error> {
        let voided = self.act(least, |tx, least| {
            Box::pin(async move {
                tx.run("UPDATE sequence SET value = $1 WHERE value < $1", least).await?;
                raise(tx, &[Grantee::Everyone, Grantee::Anonymous]).await?;
                // One that was ended since would come back.
                refresh_tokens::forget(tx, &Grantee::Everyone).await.map(drop)
            })
        });
        voided.await
    }

    /// Makes every token void that is out for `grantee`, for each member of a group, and ends
    /// their refresh tokens. Gives back how many of those there were.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn void_tokens(&self, grantee: &Grantee) -> Result<u64, Error> {
        let voided = self.act(grantee, |tx, &grantee| {
            Box::pin(async move {
                raise(tx, std::slice::from_ref(grantee)).await?;
                let ended = refresh_tokens::forget(tx, grantee).await?;
                tx.record(&Act::TokensRevoke(grantee)).await?;
                Ok(ended)
            })
        });
        voided.await
    }
}

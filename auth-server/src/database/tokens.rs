//! The acts that make tokens void which are out.

use berth_shared::subject::Grantee;

use super::{
    Database, Error,
    counters::raise,
    refresh_tokens,
    transaction::{begin, record},
};
use crate::audit::Act;

impl Database {
    /// Makes every token void that is out, refresh tokens too, though what issued them was a later
    /// state than this database knows: `least` is a number that the sequence has not gone beyond
    /// anywhere.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn void_all_tokens(&self, least: i64) -> Result<(), Error> {
        let mut writer = self.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        sqlx::query("UPDATE sequence SET value = $1 WHERE value < $1")
            .bind(least)
            .execute(&mut *transaction)
            .await?;
        raise(&mut transaction, &[Grantee::Everyone, Grantee::Anonymous]).await?;
        // One that was ended since would come back.
        refresh_tokens::forget(&mut transaction, &Grantee::Everyone).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Makes every token void that is out for `grantee`, for each member of a group, and ends
    /// their refresh tokens. Gives back how many of those there were.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn void_tokens(&self, grantee: &Grantee) -> Result<u64, Error> {
        let mut writer = self.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        raise(&mut transaction, std::slice::from_ref(grantee)).await?;
        let ended = refresh_tokens::forget(&mut transaction, grantee).await?;
        record(&mut transaction, &self.author, &Act::TokensRevoke(grantee)).await?;
        transaction.commit().await?;
        Ok(ended)
    }
}

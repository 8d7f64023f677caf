//! A signing key as a row has it, with its private half sealed: read with the policy, where servers share the
//! database.

use std::fmt;

use berth_shared::{
    clock::UnixSeconds,
    database::{self, Connection, Statements, row},
};

/// A key, sealed.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// What it is called.
    pub name: String,
    /// The only algorithm that it is used with.
    pub algorithm: String,
    /// What it is good for.
    pub state: String,
    /// When it was made.
    pub made: UnixSeconds,
    /// Since when it is in its state.
    pub since: UnixSeconds,
    /// The longest life of the tokens that it has signed, in seconds.
    pub token_life_secs: u32,
    /// When a retired key goes.
    pub until: Option<UnixSeconds>,
    /// Its private half.
    pub sealed: Vec<u8>,
}

/// Without what is sealed.
impl fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, state, since, .. } = self;
        let mut shown = f.debug_struct("SealedKey");
        shown.field("name", name).field("state", state).field("since", since);
        shown.finish_non_exhaustive()
    }
}

row!(SealedKey { name, algorithm, state, made, since, token_life_secs, until, sealed });

/// All of them, in a transaction that has begun.
///
/// # Errors
/// When the database does not answer.
pub async fn read(connection: &mut Connection<'_>) -> Result<Vec<SealedKey>, database::Error> {
    let keys = "SELECT name, algorithm, state, made, since, token_life_secs, until, sealed
         FROM signing_keys ORDER BY name";
    connection.all(keys, ()).await
}

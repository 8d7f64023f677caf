//! One key of a key set, and why a set of them cannot be used.

use jsonwebtoken::{Algorithm, DecodingKey};

/// One verification key and the only algorithm it may be used with.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) algorithm: Algorithm,
    pub(crate) key: DecodingKey,
}

/// The key set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidKeySet {
    /// It is not a JSON Web Key Set.
    #[error("reading the key set")]
    Json(#[from] serde_json::Error),
    /// A key cannot be used for verification.
    #[error("key {id:?} of the key set cannot be used: {reason}")]
    Key {
        /// The key id, or empty.
        id: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There are more keys than an issuer can need.
    #[error("the key set holds {count} keys, more than the {max} that are read")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// None of the keys can verify anything here.
    #[error("the key set holds no key with a kid for ES256, EdDSA with Ed25519, or RS256")]
    NoneUsable,
}

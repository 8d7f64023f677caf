//! What the settings say of the signing keys.

use std::path::PathBuf;

use berth_shared::text::words;
use serde::{Deserialize, Serialize};

use super::{KeyError, Sealer};

/// Where the keys lie, what they are, and how long what they sign holds.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory of the keys, where they are files.
    pub directory: PathBuf,
    /// The file of what seals them, where they lie in the database.
    pub sealed_with: Option<PathBuf>,
    /// What new tokens are signed with.
    pub algorithm: KeyAlgorithm,
    /// How keys are named in tokens.
    pub ids: KeyIds,
    /// How long a token holds, in seconds.
    pub token_life_secs: u32,
}

impl Settings {
    /// What seals the keys, read from its file.
    ///
    /// # Errors
    /// When it cannot be used, or nothing seals them.
    pub fn sealer(&self) -> Result<Sealer, KeyError> {
        let path = self.sealed_with.as_ref();
        let path = path.ok_or_else(|| KeyError::NotSealed(self.directory.clone()))?;
        Ok(Sealer::read(path)?)
    }
}

words! {
    /// The signature algorithms that Berth's tokens use, with the words that key files begin with.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
    pub enum KeyAlgorithm {
        /// Ed25519: faster, but unknown to distribution 2.8.
        #[serde(rename = "EdDSA")]
        EdDsa = "eddsa",
        /// ECDSA on P-256, which every registry knows.
        #[default]
        #[serde(rename = "ES256")]
        Es256 = "es256",
    }
}

/// How a key is named in the tokens that it signs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyIds {
    /// As distribution 2.x and its kin want it.
    Libtrust,
    /// By RFC 7638, as everybody else does.
    #[default]
    Thumbprint,
}

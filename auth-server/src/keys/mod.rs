//! The signing keys: made at the first start, kept in one place, published as a JWKS.
//!
//! Signing is done here, with ring directly, and nowhere else: what both servers share can only
//! verify. Which key signs (`active`), which will (`next`) and which did (`retired`) are `states`, and
//! `rules` says what becomes of them. All of these are published. A key's id is its RFC 7638 thumbprint, or
//! that of libtrust for old registries.
//!
//! They are kept in a `directory`, where each file is one private key (PKCS#8 PEM) and `states.json` beside
//! them has the states; or in the database that servers share, where each is a row, sealed by what `seal`
//! reads from a file: [`rows`]. Who works on either has a [`KeyStore`].

mod certificates;
mod current;
mod directory;
mod file;
mod live;
mod pair;
mod rotate;
pub mod rows;
mod rules;
mod samples;
mod seal;
mod settings;
mod states;
mod store;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use berth_shared::{
    claims::ClaimSet,
    clock::{UnixSeconds, as_rfc3339, rfc3339},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{database, files::FileError};
use pair::Pair;
use states::{Entry, States};

pub use current::CurrentKeys;
pub use directory::hold;
pub use live::LiveKeys;
pub use rotate::{Rotated, rotate};
pub use rules::How;
pub use seal::{SealError, Sealer};
pub use settings::{KeyAlgorithm, KeyIds, Settings};
pub use states::KeyState;
pub use store::{KeyStore, Resealed};

/// How long whoever has fetched `/keys` may use the answer without asking again. Berth's registry
/// asks every two seconds all the same.
pub const KEYS_AGE_SECS_MAX: i64 = 300;

/// How long a key is published before it signs: whoever fetched the set just before has fetched it
/// again by then, with a minute to do so.
pub const NEXT_AGE_SECS_MIN: i64 = KEYS_AGE_SECS_MAX + 60;

/// The keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file or the directory cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file holds no key of the kind that its name says.
    #[error(
        "{0} holds no usable signing key: put it back from a backup, or remove it, and its tokens are void"
    )]
    Unusable(String),
    /// Everybody can look up this private key.
    #[error(
        "{path} holds a key that is printed in {source_of}, so anybody can sign with it: remove \
         the file, and a new key is made at the next start"
    )]
    Published {
        /// The file.
        path: String,
        /// Where the key is printed.
        source_of: &'static str,
    },
    /// Others than the owner may read or change a private key.
    #[error("{path} is open to others (mode {mode:03o}): chmod 600 {path}")]
    Open {
        /// The file.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// The file that says which key signs makes no sense.
    #[error("{path}: {reason}; without that file the newest key signs and the others retire")]
    States {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A key in the database is not one that signs.
    #[error(
        "the signing key {name} in the database {reason}; where that cannot be put right, authctl key \
         rotate --compromised makes new keys, and every token is void"
    )]
    Row {
        /// Which key.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What seals the keys cannot be used.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// There is nothing to seal.
    #[error("the signing keys are files in {}, which nothing seals", .0.display())]
    NotSealed(PathBuf),
    /// There is no key that signs.
    #[error("there is no signing key in {0}: start auth-server, which makes one")]
    NoKey(String),
    /// Not every registry has the next key yet.
    #[error(
        "the next key is not published for long enough: registries other than Berth's may not \
         know it before {at}; rotate then, or now with --now", at = rfc3339(*.0)
    )]
    TooYoung(UnixSeconds),
    /// The system gave no randomness, or ring refused.
    #[error("making a signing key")]
    Making,
    /// A token could not be signed.
    #[error("signing a token")]
    Signing,
}

/// All published keys, one of which signs.
pub struct SigningKeys {
    /// The one that signs comes first.
    keys: Vec<SigningKey>,
    states: States,
    jwks: String,
}

struct SigningKey {
    pair: Pair,
    /// Where it lies, if it is a file.
    file: Option<PathBuf>,
    info: KeyInfo,
}

/// Why a key does not sign.
enum Unfit {
    /// It is none of its algorithm.
    NoKey,
    /// Everybody can look it up there.
    Published(&'static str),
}

/// What there is to know about a key, but for the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    /// Its id in tokens.
    pub id: String,
    /// The only algorithm that it is used with.
    pub algorithm: KeyAlgorithm,
    /// What it is good for.
    pub state: KeyState,
    /// When it was made.
    #[serde(serialize_with = "as_rfc3339")]
    pub made: UnixSeconds,
    /// Since when it is in its state.
    #[serde(serialize_with = "as_rfc3339")]
    pub since: UnixSeconds,
    /// From when on a next key can sign.
    #[serde(serialize_with = "as_rfc3339")]
    pub signs_from: Option<UnixSeconds>,
    /// When a retired key is dropped.
    #[serde(serialize_with = "as_rfc3339")]
    pub until: Option<UnixSeconds>,
}

impl SigningKeys {
    /// `None` when none of them signs.
    fn new(mut keys: Vec<SigningKey>, states: States) -> Option<Self> {
        keys.sort_by_key(|key| (key.info.state, Reverse(key.info.since), key.info.id.clone()));
        if keys.first()?.info.state != KeyState::Active {
            return None;
        }
        let jwks = json!({ "keys": keys.iter().map(SigningKey::jwk).collect::<Vec<_>>() });
        Some(Self { jwks: jwks.to_string(), states, keys })
    }

    /// Where each key lies that is a file and when it was made, the one that signs first.
    pub fn files(&self) -> impl Iterator<Item = (&Path, UnixSeconds)> {
        self.keys.iter().filter_map(|key| Some((key.file.as_deref()?, key.info.made)))
    }

    /// What is known of each key: the one that signs, the next, and the retired ones.
    pub fn list(&self) -> impl Iterator<Item = &KeyInfo> {
        self.keys.iter().map(|key| &key.info)
    }

    fn infos(&self) -> Vec<KeyInfo> {
        self.list().cloned().collect()
    }

    /// What is known of the key in this state; of the first, if several are.
    pub fn of(&self, state: KeyState) -> Option<&KeyInfo> {
        self.list().find(|key| key.state == state)
    }

    /// The public halves, as a JSON Web Key Set (RFC 7517).
    pub fn jwks(&self) -> &str {
        &self.jwks
    }

    /// The id of the key that signs.
    pub fn active_id(&self) -> &str {
        &self.active().info.id
    }

    fn active(&self) -> &SigningKey {
        // There is no set without one.
        &self.keys[0]
    }

    /// Signs `claims` as a JWT (RFC 7515 compact form).
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn sign(&self, claims: &ClaimSet) -> Result<String, KeyError> {
        let key = self.active();
        let algorithm = key.info.algorithm;
        let header = json!({ "typ": "JWT", "alg": algorithm, "kid": key.info.id });
        let claims = serde_json::to_vec(claims).map_err(|_| KeyError::Signing)?;
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        let mut token = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = key.pair.sign(token.as_bytes())?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(token)
    }
}

impl SigningKey {
    /// Reads PKCS#8.
    fn of(entry: &Entry, der: &[u8], ids: KeyIds) -> Result<Self, Unfit> {
        let algorithm = entry.file.algorithm;
        let pair = Pair::from_pkcs8(algorithm, der).ok_or(Unfit::NoKey)?;
        if let Some(source_of) = samples::published_in(&pair.thumbprint()) {
            return Err(Unfit::Published(source_of));
        }
        let info = KeyInfo {
            id: pair.id(ids),
            algorithm,
            state: entry.state,
            made: entry.file.made,
            since: entry.since,
            signs_from: (entry.state == KeyState::Next).then(|| entry.signs_from()),
            until: entry.until,
        };
        Ok(Self { pair, file: None, info })
    }

    fn jwk(&self) -> Value {
        let mut jwk = self.pair.public_parameters();
        jwk["alg"] = json!(self.info.algorithm);
        jwk["use"] = "sig".into();
        jwk["kid"] = self.info.id.as_str().into();
        jwk
    }
}

//! Who issues the tokens that the registry takes: Berth's own `auth-server`, over its private
//! socket, or somebody else, whose public keys lie in a file.
//!
//! A foreign issuer can be asked nothing: there are no revocations, a mount needs its source in
//! the token, and the catalog needs `registry:catalog:*` in it, as with stock registries.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use berth_shared::{
    auth_api::Revocations,
    file_stamp,
    files::{SMALL_FILE_BYTES_MAX, read_at_most},
    keys::KeySet,
    rights::Rights,
    subject::Subject,
    telemetry::chain,
};
use tokio_util::sync::CancellationToken;

use crate::auth_client::AuthClient;

/// Where tokens come from; clones share what is kept.
#[derive(Clone)]
pub(crate) enum Issuer {
    Berth(AuthClient),
    Foreign(Foreign),
}

/// Who issues tokens in place of `auth-server`.
#[derive(Debug, Clone)]
pub struct ForeignIssuer {
    /// Where clients get tokens.
    pub realm: String,
    /// What tokens are verified with.
    pub keys: KeyFile,
}

/// A file of public keys.
#[derive(Debug, Clone)]
pub enum KeyFile {
    /// A JSON Web Key Set.
    Jwks(PathBuf),
    /// PEM certificates, whose keys or whose issues sign.
    Certificates(PathBuf),
}

impl KeyFile {
    fn path(&self) -> &PathBuf {
        match self {
            Self::Jwks(path) | Self::Certificates(path) => path,
        }
    }
}

/// A foreign issuer: where clients get its tokens, and its keys.
#[derive(Clone)]
pub(crate) struct Foreign {
    realm: Arc<str>,
    file: KeyFile,
    keys: Arc<ArcSwap<KeySet>>,
}

impl Foreign {
    /// Reads the issuer's keys.
    pub(crate) fn open(config: ForeignIssuer) -> Result<Self, String> {
        let ForeignIssuer { realm, keys: file } = config;
        let keys = Arc::new(ArcSwap::from_pointee(read(&file)?));
        Ok(Self { realm: realm.into(), file, keys })
    }

    /// Looks at the file until `shutdown` and takes new keys into use.
    async fn keep_fresh(self, shutdown: CancellationToken) {
        let read = || match read(&self.file) {
            Ok(keys) => self.keys.store(Arc::new(keys)),
            Err(error) => tracing::warn!(error, "keeping the issuer's old keys"),
        };
        file_stamp::reload(&[self.file.path()], &shutdown, read).await;
    }
}

fn read(file: &KeyFile) -> Result<KeySet, String> {
    let path: &Path = file.path();
    let bytes = read_at_most(path, SMALL_FILE_BYTES_MAX)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let keys = match file {
        KeyFile::Jwks(_) => KeySet::from_json(&bytes),
        KeyFile::Certificates(_) => KeySet::from_certificates(&bytes),
    };
    keys.map_err(|error| format!("{}: {}", path.display(), chain(&error)))
}

impl Issuer {
    /// The client of Berth's own `auth-server`.
    pub(crate) fn auth_client(&self) -> Option<&AuthClient> {
        match self {
            Self::Berth(client) => Some(client),
            Self::Foreign(_) => None,
        }
    }

    /// Where clients get tokens, if that is not on the registry's own origin.
    pub(crate) fn realm(&self) -> Option<&str> {
        match self {
            Self::Berth(_) => None,
            Self::Foreign(foreign) => Some(&foreign.realm),
        }
    }

    /// The keys that tokens are verified with; `None` while none were ever received.
    pub(crate) async fn keys(&self) -> Option<Arc<KeySet>> {
        match self.kept_keys() {
            None => self.newer_keys(None).await,
            keys => keys,
        }
    }

    /// The keys that are kept; nobody is asked.
    pub(crate) fn kept_keys(&self) -> Option<Arc<KeySet>> {
        match self {
            Self::Berth(client) => client.keys().current(),
            Self::Foreign(foreign) => Some(foreign.keys.load_full()),
        }
    }

    /// Asks for other keys than `known`; `None` when there are none.
    pub(crate) async fn newer_keys(&self, known: Option<&Arc<KeySet>>) -> Option<Arc<KeySet>> {
        self.auth_client()?.keys().newer_than(known).await
    }

    /// The table of raised counters; `None` while it was never received.
    pub(crate) fn revocations(&self) -> Option<Arc<Revocations>> {
        match self {
            Self::Berth(client) => client.revocations().current(),
            Self::Foreign(_) => Some(Arc::default()),
        }
    }

    /// The subject's rights as they are now; `None` when nobody can say.
    pub(crate) async fn rights(&self, subject: &Subject) -> Option<Arc<Rights>> {
        self.auth_client()?.rights(subject).await
    }

    /// Whether tokens can be verified.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.auth_client().map_or(Ok(()), AuthClient::check)
    }

    /// Keeps keys and revocations fresh until `shutdown`.
    pub(crate) async fn keep_fresh(self, shutdown: CancellationToken) {
        match self {
            Self::Berth(client) => client.keep_fresh(shutdown).await,
            Self::Foreign(foreign) => foreign.keep_fresh(shutdown).await,
        }
    }
}

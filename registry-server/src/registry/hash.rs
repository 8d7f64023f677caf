//! A digest being computed while bytes arrive, whose state can be kept across a restart.

use berth_shared::digest::{Algorithm, Digest};
use bytes::Bytes;
use futures_util::StreamExt;
use sha2::{
    Digest as _, Sha256, Sha512,
    digest::common::hazmat::{SerializableState, SerializedState},
};
use tokio::task::spawn_blocking;

use super::Error;
use crate::storage::{self, Draft, Store};

/// A hash under way.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// Takes up a saved state. `None` when it is not one of this algorithm and this version of the
    /// library: then the bytes must be hashed again.
    pub(crate) fn from_state(algorithm: Algorithm, state: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::Sha256 => resume(state).map(Self::Sha256),
            Algorithm::Sha512 => resume(state).map(Self::Sha512),
        }
    }

    /// The state, to be saved beside the bytes hashed so far.
    pub(crate) fn state(&self) -> Vec<u8> {
        match self {
            Self::Sha256(hash) => hash.serialize().to_vec(),
            Self::Sha512(hash) => hash.serialize().to_vec(),
        }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    pub(crate) fn update(&mut self, chunks: &[Bytes]) {
        match self {
            Self::Sha256(hash) => chunks.iter().for_each(|chunk| hash.update(chunk)),
            Self::Sha512(hash) => chunks.iter().for_each(|chunk| hash.update(chunk)),
        }
    }

    /// The hash with a batch more, off the threads that serve the network.
    pub(super) async fn updated(mut self, batch: Vec<Bytes>) -> Result<Self, Error> {
        let hashed = spawn_blocking(move || {
            self.update(&batch);
            self
        });
        // A panic in there is the only way to fail, and then the digest is lost.
        hashed.await.map_err(|_| Error::UploadInvalid("the hash was lost"))
    }

    /// The hash over what an object holds; when it holds less, there is no such upload.
    pub(super) async fn over(
        store: &dyn Store,
        object: &Draft,
        algorithm: Algorithm,
    ) -> Result<Self, Error> {
        let mut chunks = match store.read(None, &object.location, 0..object.received).await {
            Err(storage::Error::NotFound(_)) => return Err(Error::UploadUnknown),
            chunks => chunks?,
        };
        let mut hasher = Self::new(algorithm);
        while let Some(chunk) = chunks.next().await {
            hasher = hasher.updated(vec![chunk?]).await?;
        }
        Ok(hasher)
    }

    pub(crate) fn finish(self) -> Digest {
        match self {
            Self::Sha256(hash) => Digest::from_hash(Algorithm::Sha256, &hash.finalize()),
            Self::Sha512(hash) => Digest::from_hash(Algorithm::Sha512, &hash.finalize()),
        }
    }
}

fn resume<H: SerializableState>(state: &[u8]) -> Option<H> {
    let state = SerializedState::<H>::try_from(state).ok()?;
    H::deserialize(&state).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_state_goes_on_where_it_was() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let mut first = Hasher::new(algorithm);
            first.update(&[Bytes::from_static(b"one, ")]);
            let mut second = Hasher::from_state(algorithm, &first.state()).unwrap();
            second.update(&[Bytes::from_static(b"two")]);
            assert_eq!(second.finish(), algorithm.digest(b"one, two"));
        }
        assert!(Hasher::from_state(Algorithm::Sha256, b"short").is_none());
    }
}

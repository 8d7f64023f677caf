//! Images of random bytes.

use berth_shared::digest::Digest;
use bytes::Bytes;
use fastrand::Rng;
use harness::image::{MANIFEST, digest_of};
use serde_json::{Value, json};

/// A layer that most images are content with, in bytes.
const LAYER_BYTES_USUAL: usize = 64 * 1024;

/// How many layers there are that all clients push again and again.
const SHARED_LAYERS: u64 = 6;

/// A blob and its name.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    /// The digest.
    pub(crate) digest: Digest,
    /// The bytes.
    pub(crate) bytes: Bytes,
}

impl Blob {
    fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: digest_of(&bytes), bytes }
    }

    /// Between 1 byte and the largest, most of them small.
    pub(crate) fn random(random: &mut Rng, largest: usize) -> Self {
        let largest = match random.u32(0..8) {
            0 => largest,
            1 => 4,
            _ => LAYER_BYTES_USUAL,
        };
        let mut bytes = vec![0; random.usize(1..=largest)];
        random.fill(&mut bytes);
        Self::new(bytes)
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({
            "mediaType": media_type,
            "digest": self.digest.as_str(),
            "size": self.bytes.len(),
        })
    }
}

/// An image of one to three layers.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// The digest of the manifest.
    pub(crate) digest: Digest,
    /// The manifest's bytes.
    pub(crate) manifest: Bytes,
    /// The configuration, then the layers.
    pub(crate) blobs: Vec<Blob>,
}

impl Image {
    /// An image that was never there before; layers may be.
    pub(crate) fn random(random: &mut Rng, seed: u64, largest: usize) -> Self {
        let mut blobs = vec![Blob::new(json!({ "created by": random.u64(..) }).to_string())];
        for _ in 0..random.usize(1..=3) {
            blobs.push(match random.u32(0..3) {
                // A generator of its own, so that the same bytes come out for everybody.
                0 => Blob::random(&mut Rng::with_seed(seed ^ random.u64(..SHARED_LAYERS)), largest),
                _ => Blob::random(random, largest),
            });
        }
        let layer = |blob: &Blob| blob.descriptor("application/vnd.oci.image.layer.v1.tar");
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": blobs[0].descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": blobs[1..].iter().map(layer).collect::<Vec<_>>(),
        });
        let manifest = Bytes::from(manifest.to_string());
        Self { digest: digest_of(&manifest), manifest, blobs }
    }
}

//! Content to push: blobs, and manifests that name them.

use berth_shared::digest::{Algorithm, Digest};
use bytes::Bytes;
use serde_json::json;

use crate::client::{Client, Response};

/// The media type of an image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The SHA-256 digest of `bytes`.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> Digest {
    Algorithm::Sha256.digest(bytes)
}

/// An image of one layer.
#[derive(Debug, Clone)]
pub struct Image {
    /// The configuration's bytes.
    pub config: Bytes,
    /// The layer's bytes.
    pub layer: Bytes,
    /// The manifest's bytes.
    pub manifest: Bytes,
}

impl Image {
    /// An image whose bytes depend on `seed` alone.
    #[must_use]
    pub fn new(seed: &str) -> Self {
        let config = Bytes::from(json!({ "seed": seed }).to_string());
        let layer = Bytes::from(format!("the layer of {seed}"));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest_of(&config).as_str(),
                "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": digest_of(&layer).as_str(),
                "size": layer.len(),
            }],
        });
        Self { config, layer, manifest: manifest.to_string().into() }
    }

    /// The manifest's digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest_of(&self.manifest)
    }

    /// Pushes blobs and manifest, the latter under `reference`.
    pub async fn push(
        &self,
        client: &Client,
        token: &str,
        name: &str,
        reference: &str,
    ) -> Response {
        push_blob(client, token, name, &self.config).await;
        push_blob(client, token, name, &self.layer).await;
        put_manifest(client, token, name, reference, MANIFEST, self.manifest.clone())
            .await
            .expect(201)
    }
}

/// Uploads a blob in one request.
pub async fn push_blob(client: &Client, token: &str, name: &str, bytes: &Bytes) -> Response {
    let digest = digest_of(bytes);
    client
        .call("POST", format!("/v2/{name}/blobs/uploads/?digest={digest}"))
        .bearer(token)
        .header("content-type", "application/octet-stream")
        .body(bytes.clone())
        .send()
        .await
        .expect(201)
}

/// Puts a manifest.
pub async fn put_manifest(
    client: &Client,
    token: &str,
    name: &str,
    reference: &str,
    media_type: &str,
    bytes: Bytes,
) -> Response {
    client
        .call("PUT", format!("/v2/{name}/manifests/{reference}"))
        .bearer(token)
        .header("content-type", media_type)
        .body(bytes)
        .send()
        .await
}

/// Begins an upload session and gives its location.
pub async fn start_upload(client: &Client, token: &str, name: &str) -> String {
    let call = client.call("POST", format!("/v2/{name}/blobs/uploads/")).bearer(token);
    call.send().await.expect(202).header("location").to_owned()
}

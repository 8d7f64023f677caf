//! The domain operations: what each needs beforehand, what it does, and what must hold once it is
//! done.

use std::sync::Arc;

use berth_shared::{
    claimant::Claimant,
    clock::Clock,
    digest::{Algorithm, Digest},
    reference::Reference,
    subject::Subject,
};
use bytes::Bytes;
use futures_util::{future::BoxFuture, stream};
use serde_json::json;

use super::Outcome;
use crate::{
    authz::permit::Permit,
    metadata::upload::{Pusher, UploadId},
    registry::{Error, Registry, content::Content, manifest::AsOf, upload::Progress, verify},
    storage::{Draft, Location, Shares},
};

/// An operation on the repository `app`.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// What has to be there.
    pub(crate) prepare: for<'r> fn(&'r Registry, &'r Clock) -> BoxFuture<'r, Outcome>,
    /// The operation.
    pub(crate) act: for<'r> fn(&'r Registry) -> BoxFuture<'r, Outcome>,
    /// What a client does after a failure that it was told of.
    pub(crate) retry: for<'r> fn(&'r Registry) -> BoxFuture<'r, Outcome>,
    /// What must hold once it was acknowledged.
    pub(crate) done: for<'r> fn(&'r Registry) -> BoxFuture<'r, Outcome>,
}

pub(crate) static BLOB: Bytes = Bytes::from_static(b"a blob that is pushed");
static CONFIG: Bytes = Bytes::from_static(b"{}");
const SESSION: &str = "0123456789abcdef0123456789abcdef";

pub(crate) fn permit(repository: &str) -> Permit {
    Permit::of(Subject::Anonymous, repository.parse().unwrap())
}

pub(crate) fn shares(registry: &Registry) -> Shares {
    registry.shares(&Arc::new(Claimant::of(&Subject::Anonymous, None)))
}

pub(crate) fn pusher(permit: &Permit) -> Pusher {
    Pusher::of(&Claimant::of(permit.subject(), None))
}

pub(crate) fn digest_of(bytes: &Bytes) -> Digest {
    Algorithm::Sha256.digest(bytes)
}

pub(crate) fn content(bytes: &Bytes) -> Content {
    let (bytes, length) = (bytes.clone(), bytes.len() as u64);
    Content::new(stream::once(async move { Ok(bytes) }), Some(length))
}

pub(crate) fn tag(name: &str) -> Reference {
    name.parse().unwrap()
}

/// A push of a blob, in two requests.
pub(crate) async fn push(
    registry: &Registry,
    repository: &str,
    bytes: &Bytes,
    algorithm: Algorithm,
) -> Outcome {
    let permit = permit(repository);
    let Progress { id, .. } =
        registry.uploads.start(&permit, pusher(&permit), Algorithm::Sha256).await?;
    let digest = algorithm.digest(bytes);
    registry.uploads.commit(&permit, &id, &digest, None, &mut content(bytes)).await
}

pub(crate) fn image() -> Bytes {
    let descriptor = |bytes: &Bytes| json!({ "mediaType": "a/b", "digest": digest_of(bytes).as_str(), "size": bytes.len() });
    let image = json!({ "schemaVersion": 2, "config": descriptor(&CONFIG),
                        "layers": [descriptor(&BLOB)] });
    image.to_string().into()
}

pub(crate) fn index() -> Bytes {
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let child = json!({ "mediaType": kind, "digest": digest_of(&image()).as_str() });
    json!({ "schemaVersion": 2, "manifests": [child] }).to_string().into()
}

pub(crate) fn referrer(subject: &Digest) -> Bytes {
    let subject = json!({ "mediaType": "a/b", "digest": subject.as_str() });
    json!({ "schemaVersion": 2, "artifactType": "a/signature", "subject": subject })
        .to_string()
        .into()
}

pub(crate) async fn put(registry: &Registry, reference: &Reference, bytes: Bytes) -> Outcome {
    registry.manifests.put(&permit("app"), reference, Vec::new(), None, bytes).await.map(drop)
}

pub(crate) async fn push_image(registry: &Registry) -> Outcome {
    push(registry, "app", &CONFIG, Algorithm::Sha256).await?;
    push(registry, "app", &BLOB, Algorithm::Sha256).await?;
    put(registry, &tag("v1"), image()).await
}

async fn has_blob(registry: &Registry, repository: &str, digest: &Digest) -> Outcome {
    let blob = registry.blobs.find_sound(&permit(repository), digest).await?;
    registry.blobs.read(&shares(registry), &blob, 0..blob.size).await.map(drop)
}

async fn has(registry: &Registry, reference: &str) -> Outcome {
    registry
        .manifests
        .find(&permit("app"), &tag(reference), AsOf::Now, &shares(registry).memory)
        .await
        .map(drop)
}

/// Not found is what was wanted.
fn gone(found: Outcome) -> Outcome {
    match found {
        Ok(()) => Err(Error::UploadInvalid("it is still there")),
        Err(Error::ManifestUnknown | Error::BlobUnknown | Error::NameUnknown) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Somebody who deletes again may find that it was done.
fn once(deleted: Outcome) -> Outcome {
    match deleted {
        Err(Error::ManifestUnknown | Error::BlobUnknown | Error::NameUnknown) => Ok(()),
        other => other,
    }
}

/// Goes on with the session where it stands, as a client does.
async fn go_on(registry: &Registry) -> Outcome {
    let id: UploadId = SESSION.parse()?;
    let permit = permit("app");
    let at = match registry.uploads.progress(&permit, &id).await {
        Ok(progress) => usize::try_from(progress.received).unwrap(),
        // It was committed, and the answer did not come.
        Err(Error::UploadUnknown) => return has_blob(registry, "app", &digest_of(&BLOB)).await,
        Err(error) => return Err(error),
    };
    let (middle, end) = (BLOB.len() / 2, BLOB.len());
    if at < middle {
        let chunk = BLOB.slice(at..middle);
        registry.uploads.append(&permit, &id, None, &mut content(&chunk)).await?;
    }
    let rest = BLOB.slice(at.max(middle)..end);
    registry.uploads.commit(&permit, &id, &digest_of(&BLOB), None, &mut content(&rest)).await
}

async fn collect(registry: &Registry) -> Outcome {
    super::listening(async |events| registry.collector.collect(&events).await).await.map(drop)
}

async fn verify(registry: &Registry) -> Outcome {
    let options = verify::Options::default();
    super::listening(async |events| registry.verifier.verify(options, &events).await)
        .await
        .map(drop)
}

/// Every kind of garbage, and an image that must stay.
pub(crate) async fn litter(registry: &Registry, clock: &Clock) -> Outcome {
    push_image(registry).await?;
    put(registry, &tag("moved"), index()).await?;
    push(registry, "app", &Bytes::from_static(b"stray"), Algorithm::Sha256).await?;
    push(registry, "empty", &Bytes::from_static(b"stray"), Algorithm::Sha256).await?;
    let permit = permit("app");
    registry.manifests.delete(&permit, &tag("moved")).await?;
    let Progress { id, .. } =
        registry.uploads.start(&permit, pusher(&permit), Algorithm::Sha256).await?;
    registry.uploads.append(&permit, &id, None, &mut content(&BLOB)).await?;
    let draft = Draft { location: Location::fresh()?, received: 0, state: None };
    let mut orphan = registry.store().open(draft).await?;
    orphan.append(vec![BLOB.clone()]).await?;
    clock.advance(std::time::Duration::from_secs(60 * 60));
    Ok(())
}

pub(crate) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "pushing a blob",
        prepare: |_, _| Box::pin(async { Ok(()) }),
        act: |it| Box::pin(push(it, "app", &BLOB, Algorithm::Sha256)),
        retry: |it| Box::pin(push(it, "app", &BLOB, Algorithm::Sha256)),
        done: |it| Box::pin(async { has_blob(it, "app", &digest_of(&BLOB)).await }),
    },
    Operation {
        name: "pushing a blob under another algorithm",
        prepare: |_, _| Box::pin(async { Ok(()) }),
        act: |it| Box::pin(push(it, "app", &BLOB, Algorithm::Sha512)),
        retry: |it| Box::pin(push(it, "app", &BLOB, Algorithm::Sha512)),
        done: |it| Box::pin(async { has_blob(it, "app", &Algorithm::Sha512.digest(&BLOB)).await }),
    },
    Operation {
        name: "pushing a blob that is there",
        prepare: |it, _| Box::pin(push(it, "other", &BLOB, Algorithm::Sha256)),
        act: |it| Box::pin(push(it, "app", &BLOB, Algorithm::Sha256)),
        retry: |it| Box::pin(push(it, "app", &BLOB, Algorithm::Sha256)),
        done: |it| Box::pin(async { has_blob(it, "app", &digest_of(&BLOB)).await }),
    },
    Operation {
        name: "pushing a blob in chunks",
        prepare: |it, _| {
            Box::pin(async { it.uploads.start_as(&permit("app"), SESSION.parse()?).await })
        },
        act: |it| Box::pin(go_on(it)),
        retry: |it| Box::pin(go_on(it)),
        done: |it| Box::pin(async { has_blob(it, "app", &digest_of(&BLOB)).await }),
    },
    Operation {
        name: "cancelling an upload",
        prepare: |it, _| {
            Box::pin(async {
                it.uploads.start_as(&permit("app"), SESSION.parse()?).await?;
                let (permit, id) = (permit("app"), SESSION.parse()?);
                it.uploads.append(&permit, &id, None, &mut content(&BLOB)).await.map(drop)
            })
        },
        act: |it| Box::pin(async { it.uploads.cancel(&permit("app"), &SESSION.parse()?).await }),
        retry: |it| {
            Box::pin(async {
                match it.uploads.cancel(&permit("app"), &SESSION.parse()?).await {
                    Err(Error::UploadUnknown) => Ok(()),
                    other => other,
                }
            })
        },
        done: |_| Box::pin(async { Ok(()) }),
    },
    Operation {
        name: "mounting a blob",
        prepare: |it, _| Box::pin(push(it, "other", &BLOB, Algorithm::Sha256)),
        act: |it| Box::pin(mount(it)),
        retry: |it| Box::pin(mount(it)),
        done: |it| Box::pin(async { has_blob(it, "app", &digest_of(&BLOB)).await }),
    },
    Operation {
        name: "putting an image",
        prepare: |it, _| {
            Box::pin(async {
                push(it, "app", &CONFIG, Algorithm::Sha256).await?;
                push(it, "app", &BLOB, Algorithm::Sha256).await
            })
        },
        act: |it| Box::pin(async { put(it, &tag("v1"), image()).await }),
        retry: |it| Box::pin(async { put(it, &tag("v1"), image()).await }),
        done: |it| Box::pin(has(it, "v1")),
    },
    Operation {
        name: "putting an index over a tag",
        prepare: |it, _| Box::pin(push_image(it)),
        act: |it| Box::pin(async { put(it, &tag("v1"), index()).await }),
        retry: |it| Box::pin(async { put(it, &tag("v1"), index()).await }),
        done: |it| Box::pin(has(it, "v1")),
    },
    Operation {
        name: "deleting a manifest",
        prepare: |it, _| Box::pin(push_image(it)),
        act: |it| Box::pin(async { delete(it, digest_of(&image()).as_str()).await }),
        retry: |it| Box::pin(async { once(delete(it, digest_of(&image()).as_str()).await) }),
        done: |it| Box::pin(async { gone(has(it, "v1").await) }),
    },
    Operation {
        name: "deleting a tag",
        prepare: |it, _| Box::pin(push_image(it)),
        act: |it| Box::pin(delete(it, "v1")),
        retry: |it| Box::pin(async { once(delete(it, "v1").await) }),
        done: |it| Box::pin(async { gone(has(it, "v1").await) }),
    },
    Operation {
        name: "deleting a blob",
        prepare: |it, _| Box::pin(push(it, "app", &BLOB, Algorithm::Sha256)),
        act: |it| Box::pin(async { it.blobs.delete(&permit("app"), &digest_of(&BLOB)).await }),
        retry: |it| {
            Box::pin(async { once(it.blobs.delete(&permit("app"), &digest_of(&BLOB)).await) })
        },
        done: |it| Box::pin(async { gone(has_blob(it, "app", &digest_of(&BLOB)).await) }),
    },
    Operation {
        name: "deleting a repository",
        prepare: |it, _| Box::pin(push_image(it)),
        act: |it| Box::pin(delete_all(it)),
        retry: |it| Box::pin(async { once(delete_all(it).await) }),
        done: |it| Box::pin(async { gone(has(it, "v1").await) }),
    },
    Operation {
        name: "collecting garbage",
        prepare: |it, clock| Box::pin(litter(it, clock)),
        act: |it| Box::pin(collect(it)),
        retry: |it| Box::pin(collect(it)),
        done: |it| {
            Box::pin(async {
                has(it, "v1").await?;
                has_blob(it, "app", &digest_of(&BLOB)).await
            })
        },
    },
    Operation {
        name: "verifying",
        prepare: |it, _| Box::pin(push_image(it)),
        act: |it| Box::pin(verify(it)),
        retry: |it| Box::pin(verify(it)),
        done: |it| Box::pin(async { has_blob(it, "app", &digest_of(&BLOB)).await }),
    },
];

async fn mount(registry: &Registry) -> Outcome {
    let blob = registry.blobs.find(&permit("other"), &digest_of(&BLOB)).await?;
    registry.mounts.link(&permit("app"), &blob).await.map(drop)
}

async fn delete(registry: &Registry, reference: &str) -> Outcome {
    registry.manifests.delete(&permit("app"), &tag(reference)).await
}

async fn delete_all(registry: &Registry) -> Outcome {
    let app = "app".parse().unwrap();
    super::listening(async |events| registry.deletion.delete(&app, None, false, &events).await)
        .await
        .map(drop)
}

//! Manifests: what may be pushed, and what it says about other content.

use std::{collections::BTreeMap, fmt, marker::PhantomData, sync::Arc};

use berth_shared::{
    clock::UnixSeconds,
    digest::{Algorithm, Digest},
    reference::Reference,
    tag::Tag,
};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{Error, Registry};
use crate::{
    authz::Permit,
    metadata::manifest::{Kind, Manifest, Named, NewManifest},
};

/// How many things one manifest may name.
const REFERENCES_MAX: usize = 4096;

/// The media types that a manifest may have.
const MEDIA_TYPES: [&str; 5] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.artifact.manifest.v1+json",
];

/// What became of a pushed manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pushed {
    pub(crate) digest: Digest,
    pub(crate) subject: Option<Digest>,
}

impl Registry {
    /// The manifest that the reference names.
    pub(crate) async fn manifest(
        &self,
        permit: &Permit,
        reference: &Reference,
    ) -> Result<Arc<Manifest>, Error> {
        let repository = permit.repository();
        let digest = match reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(tag) => {
                self.database.tag(repository, tag).await?.ok_or(Error::ManifestUnknown)?
            }
        };
        let manifest = self.database.manifest(repository, &digest).await?;
        let manifest = manifest.ok_or(Error::ManifestUnknown)?;
        // Whoever was told that it is here goes on to name it in an index.
        if let Reference::Digest(_) = reference
            && let Some(lasts) = self.settings().collection.untagged_after
            && self.touch_is_due(manifest.touched, lasts)
        {
            let (name, now) = (repository.clone(), self.clock.now());
            let touch = self.database.write(move |tx| {
                Box::pin(async move { tx.touch_manifest(&name, &digest, now).await })
            });
            self.touched(touch.await, Error::ManifestUnknown)?;
        }
        Ok(manifest)
    }

    /// Stores a manifest under its digest, and points the reference, if it is a tag, and all of
    /// `tags` at it.
    pub(crate) async fn put_manifest(
        &self,
        permit: &Permit,
        reference: &Reference,
        tags: Vec<Tag>,
        media_type: Option<&str>,
        bytes: Bytes,
    ) -> Result<Pushed, Error> {
        self.refuse_when_full().await?;
        let now = self.clock.now();
        let (algorithm, claimed) = match reference {
            Reference::Digest(digest) => (digest.algorithm(), Some(digest)),
            Reference::Tag(_) => (Algorithm::Sha256, None),
        };
        let digest = algorithm.digest(&bytes);
        if claimed.is_some_and(|claimed| *claimed != digest) {
            return Err(Error::DigestMismatch);
        }
        let sparse_manifests = self.settings().limits.sparse_manifests;
        let new = read_manifest(digest, media_type, bytes, sparse_manifests, now)?;
        let pushed = Pushed { digest: new.manifest.digest.clone(), subject: new.subject.clone() };
        let tagged = match reference {
            Reference::Tag(tag) => vec![tag.clone()],
            Reference::Digest(_) => tags,
        };
        let repository = permit.repository().clone();
        self.database
            .write(move |tx| {
                Box::pin(async move {
                    let missing = tx.put_manifest(&repository, &new, now).await?;
                    if !missing.is_empty() {
                        return Err(Error::ManifestReferencesUnknown(missing));
                    }
                    for tag in &tagged {
                        tx.put_tag(&repository, tag, &new.manifest.digest, now).await?;
                    }
                    Ok(())
                })
            })
            .await?;
        Ok(pushed)
    }

    /// Deletes a manifest with its tags, or a tag alone.
    pub(crate) async fn delete_manifest(
        &self,
        permit: &Permit,
        reference: &Reference,
    ) -> Result<(), Error> {
        match reference {
            Reference::Tag(tag) => self.delete_tag(permit.repository(), tag).await,
            Reference::Digest(digest) => {
                self.delete_with_tags(permit.repository(), digest).await.map(drop)
            }
        }
    }
}

/// The parts of a manifest that a registry reads; everything else is kept as it came.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Object<Descriptor>>,
    layers: Option<Vec<Object<Descriptor>>>,
    blobs: Option<Vec<Object<Descriptor>>>,
    manifests: Option<Vec<Object<Descriptor>>>,
    subject: Option<Object<Descriptor>>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    // A size that is none is nothing to refuse a push for.
    #[serde(default)]
    size: serde_json::Value,
}

/// Read from a JSON object alone: what serde derives takes an array of the members as well, which
/// no other reader of manifests does.
#[derive(Debug)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members)).map(Object)
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::ManifestInvalid(reason.into())
}

pub(crate) fn read_manifest(
    digest: Digest,
    media_type: Option<&str>,
    bytes: Bytes,
    sparse_manifests: bool,
    now: UnixSeconds,
) -> Result<NewManifest, Error> {
    // The members that are skipped below would not be checked for it (RFC 8259 §8.1).
    let text = str::from_utf8(&bytes).map_err(|_| invalid("the manifest is not UTF-8"))?;
    let Object(content): Object<Content> = serde_json::from_str(text)
        .map_err(|error| invalid(format!("the manifest is not readable: {error}")))?;
    let media_type = content.settle_media_type(media_type)?;
    let references = content.references(sparse_manifests);
    if references.len() > REFERENCES_MAX {
        return Err(invalid(format!("the manifest names more than {REFERENCES_MAX} things")));
    }
    let artifact_type = content.referrer_type();
    let subject = content.subject.map(|Object(subject)| subject.digest);
    let annotations = match (&subject, &content.annotations) {
        (Some(_), Some(annotations)) => serde_json::to_string(annotations).ok(),
        _ => None,
    };
    let manifest = Manifest { digest, media_type, bytes, touched: now };
    Ok(NewManifest { manifest, artifact_type, subject, annotations, references })
}

impl Content {
    /// The media type, from the request, the content, or its shape; they must not contradict.
    fn settle_media_type(&self, announced: Option<&str>) -> Result<String, Error> {
        if self.schema_version == Some(1) {
            return Err(invalid(
                "schema 1 manifests are not supported: push with a docker of version 1.10 or newer",
            ));
        }
        if self.schema_version.is_some_and(|version| version != 2) {
            return Err(invalid("schemaVersion must be 2"));
        }
        let is_index = self.manifests.is_some();
        if is_index && (self.config.is_some() || self.layers.is_some()) {
            return Err(invalid("a manifest is either an image or an index, not both"));
        }
        let stated = self.media_type.as_deref();
        if let (Some(announced), Some(stated)) = (announced, stated)
            && announced != stated
        {
            return Err(invalid(format!(
                "the Content-Type says {announced:?} and the manifest's mediaType {stated:?}"
            )));
        }
        let media_type = announced.or(stated).unwrap_or(MEDIA_TYPES[usize::from(is_index)]);
        if !MEDIA_TYPES.contains(&media_type) {
            return Err(invalid(format!(
                "{media_type:?} is no media type of a manifest; these are: {}",
                MEDIA_TYPES.join(", ")
            )));
        }
        if is_index != is_index_type(media_type) {
            return Err(invalid(format!("the content does not have the shape of {media_type:?}")));
        }
        Ok(media_type.to_owned())
    }

    /// Everything that the manifest names. A subject may come later; a layer that is to be fetched
    /// elsewhere need not be here at all.
    fn references(&self, sparse_manifests: bool) -> Vec<Named> {
        let named = |kind, required: bool| {
            move |Object(descriptor): &Object<Descriptor>| Named {
                digest: descriptor.digest.clone(),
                kind,
                size: descriptor.size.as_u64(),
                required: required && !is_foreign(&descriptor.media_type),
            }
        };
        let layers = self.layers.iter().flatten().chain(self.blobs.iter().flatten());
        let children = self.manifests.iter().flatten();
        self.config
            .iter()
            .map(named(Kind::Config, true))
            .chain(layers.map(named(Kind::Layer, !sparse_manifests)))
            .chain(children.map(named(Kind::Child, !sparse_manifests)))
            .chain(self.subject.iter().map(named(Kind::Subject, false)))
            .collect()
    }

    /// The artifact type by which referrers are listed: the manifest's own, else an image's config
    /// media type.
    fn referrer_type(&self) -> Option<String> {
        let own = self.artifact_type.clone().filter(|own| !own.is_empty());
        own.or_else(|| self.config.as_ref().map(|Object(config)| config.media_type.clone()))
    }
}

fn is_index_type(media_type: &str) -> bool {
    media_type == MEDIA_TYPES[1] || media_type == MEDIA_TYPES[3]
}

/// Whether the media type is of a layer that registries need not hold.
fn is_foreign(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(media_type: Option<&str>, text: &str) -> Result<NewManifest, Error> {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        read_manifest(Algorithm::Sha256.digest(&bytes), media_type, bytes, false, 0)
    }

    #[test]
    fn the_media_type_comes_from_header_content_or_shape() {
        for (announced, text, expected) in [
            (None, r#"{"schemaVersion":2,"layers":[]}"#, MEDIA_TYPES[0]),
            (None, r#"{"schemaVersion":2,"manifests":[]}"#, MEDIA_TYPES[1]),
            (Some(MEDIA_TYPES[2]), r#"{"schemaVersion":2}"#, MEDIA_TYPES[2]),
        ] {
            assert_eq!(read(announced, text).unwrap().manifest.media_type, expected, "{text}");
        }
    }

    #[test]
    fn what_contradicts_itself_or_is_too_old_is_refused() {
        for (announced, text) in [
            (None, "no json"),
            (None, r#"{"schemaVersion":1,"fsLayers":[]}"#),
            (None, r#"{"schemaVersion":3}"#),
            (None, r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#),
            (Some(MEDIA_TYPES[0]), r#"{"schemaVersion":2,"manifests":[]}"#),
            (Some(MEDIA_TYPES[1]), r#"{"schemaVersion":2,"layers":[]}"#),
            (Some("text/plain"), r#"{"schemaVersion":2}"#),
            (None, r#"{"schemaVersion":2,"config":{"digest":"sha256:short"}}"#),
        ] {
            assert!(matches!(read(announced, text), Err(Error::ManifestInvalid(_))), "{text}");
        }
    }

    #[test]
    fn a_manifest_and_its_descriptors_are_objects_in_utf_8() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for text in [
            r#"[2,null,null,null,null,null,null,null,null]"#.to_owned(),
            format!(r#"{{"schemaVersion":2,"config":["a/b","{digest}"]}}"#),
            format!(r#"{{"schemaVersion":2,"layers":[["a/b","{digest}"]]}}"#),
            format!(r#"{{"schemaVersion":2,"subject":["a/b","{digest}"]}}"#),
        ] {
            assert!(matches!(read(None, &text), Err(Error::ManifestInvalid(_))), "{text}");
        }
        let latin = Bytes::from_static(b"{\"schemaVersion\":2,\"x\":\"\xe4\"}");
        let read = read_manifest(Algorithm::Sha256.digest(&latin), None, latin, false, 0);
        assert!(matches!(read, Err(Error::ManifestInvalid(_))));
    }

    #[test]
    fn foreign_layers_and_subjects_need_not_be_there() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"a/b","digest":"{digest}"}},
                "layers":[{{"mediaType":"{foreign}","digest":"{digest}"}}],
                "subject":{{"digest":"{digest}"}}}}"#
        );
        let new = read(None, &text).unwrap();
        let required: Vec<bool> = new.references.iter().map(|named| named.required).collect();
        assert_eq!(required, [true, false, false]);
        assert_eq!(new.artifact_type.as_deref(), Some("a/b"));
    }
}

//! What a manifest says: the few members that a registry reads, and nothing else kept of it.
//!
//! A pusher chooses every byte of it, so reading one takes no more memory than it has itself: text
//! is borrowed from it, lists end where they are too long, and what is not needed is passed over.

mod members;

use std::borrow::Cow;

use berth_shared::{clock::UnixSeconds, digest::Digest};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Error;
use crate::metadata::manifest::{Kind, Manifest, Named, NewManifest};
use members::{Annotations, List, Object, REFERENCES_MAX, Size, Text, TooMany};

/// The longest artifact type: RFC 6838 §4.2 has two names of 127 characters. Lists are filtered by
/// it.
const ARTIFACT_TYPE_BYTES_MAX: usize = 255;

/// How much of a manifest is repeated in words about it, in characters.
const REASON_CHARS_MAX: usize = 400;

/// The media types that a manifest may have.
const MEDIA_TYPES: [&str; 5] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.artifact.manifest.v1+json",
];

/// The parts of a manifest that a registry reads; everything else is kept as it came.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content<'a> {
    schema_version: Option<u64>,
    #[serde(borrow)]
    media_type: Option<Text<'a>>,
    #[serde(borrow)]
    artifact_type: Option<Text<'a>>,
    #[serde(borrow)]
    config: Option<Object<Descriptor<'a>>>,
    #[serde(borrow)]
    layers: Option<List<Descriptor<'a>>>,
    #[serde(borrow)]
    blobs: Option<List<Descriptor<'a>>>,
    #[serde(borrow)]
    manifests: Option<List<Descriptor<'a>>>,
    #[serde(borrow)]
    subject: Option<Object<Descriptor<'a>>>,
    #[serde(borrow)]
    annotations: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    #[serde(borrow, default)]
    media_type: Cow<'a, str>,
    digest: Digest,
    #[serde(default)]
    size: Size,
}

/// A refusal. What it repeats of the manifest is cut short: the pusher chose it.
fn invalid(reason: impl Into<String>) -> Error {
    let mut reason = reason.into();
    if let Some((cut, _)) = reason.char_indices().nth(REASON_CHARS_MAX) {
        reason.truncate(cut);
        reason.push('…');
        reason.shrink_to_fit();
    }
    Error::ManifestInvalid(reason)
}

fn unreadable(error: &serde_json::Error) -> Error {
    invalid(format!("the manifest is not readable: {error}"))
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
    let Object(content): Object<Content<'_>> =
        serde_json::from_str(text).map_err(|error| unreadable(&error))?;
    let annotations = content.annotations.map(RawValue::get);
    if let Some(annotations) = annotations {
        let _: Annotations =
            serde_json::from_str(annotations).map_err(|error| unreadable(&error))?;
    }
    let media_type = content.settle_media_type(media_type)?;
    let references = content.references(sparse_manifests);
    if references.len() > REFERENCES_MAX {
        return Err(invalid(TooMany.to_string()));
    }
    let artifact_type = content.referrer_type();
    if artifact_type.is_some_and(|it| it.len() > ARTIFACT_TYPE_BYTES_MAX || it.contains('\0')) {
        return Err(invalid(format!(
            "the artifact type is longer than {ARTIFACT_TYPE_BYTES_MAX} bytes, or has a NUL in it"
        )));
    }
    let artifact_type = artifact_type.map(ToOwned::to_owned);
    // As they were written, so that a list can repeat them without reading them.
    let annotations = annotations.filter(|_| content.subject.is_some()).map(ToOwned::to_owned);
    let subject = content.subject.map(|Object(subject)| subject.digest);
    let manifest = Manifest { digest, media_type, bytes, touched: now };
    Ok(NewManifest { manifest, artifact_type, subject, annotations, references })
}

impl Content<'_> {
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
        let stated = self.media_type.as_ref().map(|Text(stated)| stated.as_ref());
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
            move |Object(descriptor): &Object<Descriptor<'_>>| Named {
                digest: descriptor.digest.clone(),
                kind,
                size: descriptor.size.0,
                required: required && !is_foreign(&descriptor.media_type),
            }
        };
        let layers = self.layers.iter().chain(&self.blobs).flat_map(|List(items)| items);
        let entries = self.manifests.iter().flat_map(|List(items)| items);
        // An index may name whatever it likes: BuildKit's caches of before 2025 name layers.
        let kind =
            |Object(entry): &Object<Descriptor<'_>>| match is_manifest_type(&entry.media_type) {
                true => Kind::Child,
                false => Kind::Layer,
            };
        let entries = entries.map(|entry| named(kind(entry), !sparse_manifests)(entry));
        self.config
            .iter()
            .map(named(Kind::Config, true))
            .chain(layers.map(named(Kind::Layer, !sparse_manifests)))
            .chain(entries)
            .chain(self.subject.iter().map(named(Kind::Subject, false)))
            .collect()
    }

    /// The artifact type by which referrers are listed: the manifest's own, else an image's config
    /// media type.
    fn referrer_type(&self) -> Option<&str> {
        let own = self.artifact_type.as_ref().map(|Text(own)| own.as_ref());
        let own = own.filter(|own| !own.is_empty());
        own.or_else(|| self.config.as_ref().map(|Object(config)| config.media_type.as_ref()))
    }
}

fn is_index_type(media_type: &str) -> bool {
    media_type == MEDIA_TYPES[1] || media_type == MEDIA_TYPES[3]
}

/// Whether an entry of an index is a manifest; one that does not say it is taken for one.
fn is_manifest_type(media_type: &str) -> bool {
    media_type.is_empty() || MEDIA_TYPES.contains(&media_type)
}

/// Whether the media type is of a layer that registries need not hold.
fn is_foreign(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
}

#[cfg(test)]
mod tests {
    use berth_shared::digest::Algorithm;

    use super::*;

    fn read(media_type: Option<&str>, text: &str) -> Result<NewManifest, Error> {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        read_manifest(
            Algorithm::Sha256.digest(&bytes),
            media_type,
            bytes,
            false,
            UnixSeconds::new(0),
        )
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
        let read = read_manifest(
            Algorithm::Sha256.digest(&latin),
            None,
            latin,
            false,
            UnixSeconds::new(0),
        );
        assert!(matches!(read, Err(Error::ManifestInvalid(_))));
    }

    #[test]
    fn an_entry_of_an_index_that_is_no_manifest_is_a_blob() {
        let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
        let entries = [MEDIA_TYPES[0], MEDIA_TYPES[3], "", "application/xml", "a/b"];
        let entries = entries.iter().zip(["a", "b", "c", "d", "e"]).map(|(kind, letter)| {
            format!(r#"{{"mediaType":"{kind}","digest":"{}"}}"#, digest(letter))
        });
        let entries = entries.collect::<Vec<_>>().join(",");
        let new = read(None, &format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#)).unwrap();
        let mut kinds: Vec<_> =
            new.references.iter().map(|it| (it.digest.hex()[..1].to_owned(), it.kind)).collect();
        kinds.sort_by(|a, b| a.0.cmp(&b.0));
        let kinds: Vec<_> = kinds.into_iter().map(|(_, kind)| kind).collect();
        assert_eq!(kinds, [Kind::Child, Kind::Child, Kind::Child, Kind::Layer, Kind::Layer]);
        assert!(new.references.iter().all(|named| named.required));
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

    fn digest() -> String {
        format!("sha256:{}", "a".repeat(64))
    }

    #[test]
    fn a_size_is_a_number_or_is_not_there() {
        let with = |size: &str| {
            let text =
                format!(r#"{{"schemaVersion":2,"config":{{"digest":"{}"{size}}}}}"#, digest());
            read(None, &text).map(|new| new.references[0].size)
        };
        for (size, expected) in [
            ("", None),
            (r#","size":7"#, Some(7)),
            (r#","size":18446744073709551615"#, Some(u64::MAX)),
            (r#","size":-1"#, None),
            (r#","size":1.5"#, None),
            (r#","size":18446744073709551616"#, None),
            (r#","size":null"#, None),
        ] {
            assert_eq!(with(size).unwrap(), expected, "{size}");
        }
        for size in [r#""7""#, r#"[{"":0},{"":0}]"#, "{}", "true"] {
            let error = with(&format!(r#","size":{size}"#)).unwrap_err().to_string();
            assert!(error.contains("a number of bytes"), "{error}");
        }
    }

    #[test]
    fn a_list_is_not_read_further_than_it_may_be_long() {
        let item = format!(r#"{{"digest":"{}"}}"#, digest());
        let with = |count: usize, end: &str| {
            let items = vec![item.as_str(); count].join(",");
            read(None, &format!(r#"{{"schemaVersion":2,"layers":[{items}{end}"#))
        };
        assert_eq!(with(REFERENCES_MAX, "]}").unwrap().references.len(), REFERENCES_MAX);
        // What comes behind is not looked at: it is no JSON.
        let error = with(REFERENCES_MAX + 1, ",!").unwrap_err().to_string();
        assert!(error.contains("more than 4096 things"), "{error}");
        let config = format!(r#"],"config":{item}}}"#);
        let error = with(REFERENCES_MAX, &config).unwrap_err().to_string();
        assert!(error.contains("more than 4096 things"), "{error}");
    }

    #[test]
    fn annotations_are_kept_as_they_were_written() {
        let with = |annotations: &str| {
            let subject = digest();
            let text = format!(
                r#"{{"schemaVersion":2,"subject":{{"digest":"{subject}"}},"annotations":{annotations}}}"#
            );
            read(None, &text).map(|new| new.annotations)
        };
        for annotations in ["{}", r#"{ "b":"\u00e9", "a" : "" }"#] {
            assert_eq!(with(annotations).unwrap().as_deref(), Some(annotations));
        }
        assert_eq!(with("null").unwrap(), None);
        for annotations in ["[]", r#"{"a":1}"#, r#"{"a":{}}"#, r#"{"a":"\ud800"}"#, r#""a""#] {
            let read = with(annotations);
            assert!(matches!(read, Err(Error::ManifestInvalid(_))), "{annotations}: {read:?}");
        }
    }

    #[test]
    fn what_a_refusal_repeats_is_cut_short() {
        let long = "ä".repeat(1024 * 1024);
        for text in [
            format!(r#"{{"schemaVersion":2,"mediaType":"{long}"}}"#),
            format!(r#"{{"schemaVersion":"{long}"}}"#),
            format!(r#"{{"schemaVersion":2,"config":{{"digest":"{long}"}}}}"#),
        ] {
            let words = read(None, &text).unwrap_err().to_string();
            assert!(words.chars().count() <= REASON_CHARS_MAX + 1, "{} characters", words.len());
        }
    }

    #[test]
    fn an_artifact_type_is_as_long_as_a_media_type_may_be() {
        for (length, good) in
            [(ARTIFACT_TYPE_BYTES_MAX, true), (ARTIFACT_TYPE_BYTES_MAX + 1, false)]
        {
            let long = "x".repeat(length);
            let text = format!(r#"{{"schemaVersion":2,"artifactType":"{long}"}}"#);
            assert_eq!(read(None, &text).is_ok(), good, "{length}");
        }
        let text = r#"{"schemaVersion":2,"artifactType":"a/b\u0000"}"#;
        assert!(read(None, text).is_err());
    }
}

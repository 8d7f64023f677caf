//! The `Content-Type` of a push on a line of its own, which may be empty, and the manifest.
//!
//! What is accepted is a JSON object as every reader knows it, and names exactly what another
//! reader finds in it.
#![no_main]

use berth_fuzz::shared::digest::Algorithm;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use registry_server::fuzzing::{Manifest, manifest};
use serde_json::Value;

const REFERENCES_MAX: usize = 4096;

fuzz_target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|b| *b == b'\n') else { return };
    let Ok(announced) = std::str::from_utf8(&data[..end]) else { return };
    let announced = (!announced.is_empty()).then_some(announced);
    let bytes = Bytes::copy_from_slice(&data[end + 1..]);
    let digest = Algorithm::Sha256.digest(&bytes);
    let read = |media_type, sparse| manifest(digest.clone(), media_type, bytes.clone(), sparse);

    let found = read(announced, false);
    let sparse = read(announced, true);
    let Some(found) = found else {
        assert_eq!(sparse, None);
        return;
    };
    assert_eq!(found.bytes, bytes);
    assert_eq!(read(Some(&found.media_type), false).as_ref(), Some(&found));
    assert!(announced.is_none_or(|announced| announced == found.media_type));
    check_sparse(&found, &sparse.expect("the same content"));
    check_content(&found);
});

/// What is missing may be missing from sparse content; nothing else changes.
fn check_sparse(found: &Manifest, sparse: &Manifest) {
    assert_eq!(found.references.len(), sparse.references.len());
    for ((digest, required), (same, still)) in found.references.iter().zip(&sparse.references) {
        assert!(digest == same && (*required || !still), "{digest}");
    }
    assert_eq!(found, &Manifest { references: found.references.clone(), ..sparse.clone() });
}

fn check_content(found: &Manifest) {
    let text = std::str::from_utf8(&found.bytes).expect("JSON is UTF-8 (RFC 8259 §8.1)");
    // This reader gives up on deep nesting and on large numbers, wherever they stand.
    let Ok(content) = serde_json::from_str::<Value>(text) else { return };
    assert!(content.is_object(), "a manifest is an object: {text}");
    let is_index = !content["manifests"].is_null();
    assert_eq!(found.media_type.contains("index") || found.media_type.contains("list"), is_index);
    assert!(content["mediaType"].is_null() || content["mediaType"] == *found.media_type);

    let single = |name: &str| Some(&content[name]).filter(|value| !value.is_null());
    let several = |name: &str| content[name].as_array().into_iter().flatten();
    let named = single("config").into_iter();
    let named = named.chain(several("layers")).chain(several("blobs")).chain(several("manifests"));
    let named = named.chain(single("subject")).map(|descriptor| {
        assert!(descriptor.is_object(), "a descriptor is an object: {descriptor}");
        let size = &descriptor["size"];
        assert!(size.is_null() || size.is_number(), "a size is a number: {size}");
        descriptor["digest"].as_str().expect("a digest")
    });
    let named: Vec<&str> = named.collect();
    let references = found.references.iter().map(|(digest, _required)| digest.as_str());
    assert_eq!(references.collect::<Vec<_>>(), named);
    assert!(named.len() <= REFERENCES_MAX);

    let subject = single("subject").map(|subject| &subject["digest"]);
    assert_eq!(
        found.subject.as_ref().map(|digest| digest.as_str()),
        subject.and_then(Value::as_str)
    );
    let own = content["artifactType"].as_str().filter(|own| !own.is_empty());
    let config = single("config").map(|config| config["mediaType"].as_str().unwrap_or_default());
    assert_eq!(found.artifact_type.as_deref(), own.or(config));
    let annotations = found.annotations.as_deref();
    let annotations = annotations.map(|text| serde_json::from_str(text).expect("JSON"));
    let expected = subject.and(single("annotations"));
    assert_eq!(annotations.as_ref(), expected);
}

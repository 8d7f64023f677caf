//! What the program before uploads were sessions of parts has left goes on.

use std::{fs, path::Path, time::Duration};

use berth_shared::{
    clock::{Clock, UnixSeconds},
    digest::Algorithm,
    subject::Subject,
};
use bytes::Bytes;
use futures_util::{TryStreamExt, stream};

use crate::{
    authz::permit::Permit,
    faults::{listening, operations::shares, sound},
    metadata::{Database, upload::UploadId},
    registry::{content::Content, manifest::AsOf},
};

const OBJECTS: [(&str, &str); 3] = [
    ("6e243c793b5079f1cbad856990a8430b", "the first half, "),
    ("d19c56898b7d7f65aff27864b0330b2a", "{\"made\":\"by version 4\"}"),
    ("df35a3ac8a2ea83214916fd9545d47a9", "a layer that version 4 stored"),
];

/// When it was written.
const THEN: i64 = 1_795_956_568;

async fn make(root: &Path) {
    Database::make_from(&root.join("registry.db"), include_str!("version_4.sql")).await;
    for (location, content) in OBJECTS {
        let directory = root.join("objects").join(&location[..2]);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(location), content).unwrap();
    }
}

#[tokio::test]
async fn what_version_4_stored_is_pulled_and_its_session_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    make(root).await;
    let clock = Clock::set(UnixSeconds::new(THEN + 5));
    let registry = sound(root, &clock).await;
    assert!(root.join("registry.db.version-4").exists(), "it is copied first");
    assert_eq!(registry.database().foreign_schema().await.unwrap(), None);

    let repository: berth_shared::name::RepositoryName = "team/app".parse().unwrap();
    let andrew = Permit::of(Subject::User("andrew".parse().unwrap()), repository);
    let memory = shares(&registry).memory;
    for tag in ["v1", "list"] {
        let found = registry
            .manifests
            .find(&andrew, &tag.parse().unwrap(), AsOf::Lately, &memory)
            .await
            .unwrap();
        assert!(!found.bytes(&memory).await.unwrap().is_empty(), "{tag}");
    }
    let layer = Algorithm::Sha256.digest(OBJECTS[2].1.as_bytes());
    let blob = registry.blobs.find_sound(&andrew, &layer).await.unwrap();
    let read = registry.blobs.read(&shares(&registry), &blob, 0..blob.size).await.unwrap();
    let read: Vec<Bytes> = read.try_collect().await.unwrap();
    assert_eq!(read.concat(), OBJECTS[2].1.as_bytes());

    let id: UploadId = "6aa921b38553202012d1cf922d3b2839".parse().unwrap();
    assert_eq!(registry.uploads.progress(&andrew, &id).await.unwrap().received, 16);
    let rest = Bytes::from_static(b"and the second");
    let mut body = Content::new(stream::iter([Ok(rest.clone())]), Some(rest.len() as u64));
    let whole = Algorithm::Sha256.digest(b"the first half, and the second");
    registry.uploads.commit(&andrew, &id, &whole, None, &mut body).await.unwrap();
    assert_eq!(registry.blobs.find_sound(&andrew, &whole).await.unwrap().size, 30);

    clock.advance(Duration::from_secs(60 * 60));
    let done = listening(async |events| registry.collector.collect(&events).await).await.unwrap();
    assert_eq!((done.blobs, done.manifests, done.problems), (1, 0, 0), "{done:?}");
}

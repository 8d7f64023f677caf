//! Exports: OCI image layouts with exactly the bytes that were pushed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use berth_shared::digest::Digest;
use harness::{
    Stack,
    image::{Image, MANIFEST, digest_of, put_manifest},
};
use registry_server::{
    registry::event::{Event, Events},
    transfer::{Error, export::Summary, export::export},
};
use serde_json::{Value, json};

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Exports from team/app.
async fn run(stack: &Stack, reference: &str, to: &Path) -> (Result<Summary, Error>, Vec<Event>) {
    let (events, mut received) = Events::channel();
    let reference = Some(reference).filter(|it| !it.is_empty());
    let work = tokio::spawn(export(
        stack.home(),
        "team/app".parse().expect("a name"),
        reference.map(|it| it.parse().expect("a reference")),
        to.to_owned(),
        stack.clock.clone(),
        events,
    ));
    let mut told = Vec::new();
    while let Some(event) = received.recv().await {
        told.push(event);
    }
    (work.await.expect("the export panicked"), told)
}

async fn stack_with(tags: &[&str]) -> (Stack, String, PathBuf) {
    let stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:team/app:pull,push,delete"]);
    for tag in tags {
        Image::new(tag).push(&stack.client, &token, "team/app", tag).await;
    }
    let to = stack.root().join("layout");
    (stack, token, to)
}

fn blob(layout: &Path, digest: &Digest) -> PathBuf {
    layout.join("blobs").join(digest.algorithm().name()).join(digest.hex())
}

fn index(layout: &Path) -> Vec<Value> {
    let bytes = fs::read(layout.join("index.json")).expect("an index");
    let index: Value = serde_json::from_slice(&bytes).expect("JSON");
    index["manifests"].as_array().expect("manifests").clone()
}

fn tags(layout: &Path) -> Vec<String> {
    let name = |it: Value| it["annotations"][REF_NAME].as_str().map(str::to_owned);
    index(layout).into_iter().filter_map(name).collect()
}

fn holds(layout: &Path, image: &Image) {
    for bytes in [&image.config, &image.layer, &image.manifest] {
        assert_eq!(fs::read(blob(layout, &digest_of(bytes))).expect("a blob"), **bytes);
    }
}

#[tokio::test]
async fn an_export_has_the_pushed_bytes_under_their_tags() {
    let (stack, _, to) = stack_with(&["one", "two"]).await;
    let done = run(&stack, "", &to).await.0.expect("an export");
    assert_eq!((done.images, done.manifests, done.blobs, done.damaged), (2, 2, 4, 0));
    assert_eq!(tags(&to), ["one", "two"]);
    for name in ["one", "two"] {
        holds(&to, &Image::new(name));
    }
    let mark = fs::read_to_string(to.join("oci-layout")).expect("the mark");
    assert_eq!(mark, r#"{"imageLayoutVersion":"1.0.0"}"#);
}

#[tokio::test]
async fn a_layout_is_added_to_and_a_tag_in_it_moves() {
    let (stack, token, to) = stack_with(&["one", "two"]).await;
    run(&stack, "one", &to).await.0.expect("an export");
    assert_eq!(tags(&to), ["one"]);
    assert!(!blob(&to, &Image::new("two").digest()).exists());
    let by_digest = Image::new("two").digest();
    run(&stack, by_digest.as_str(), &to).await.0.expect("an export by digest");
    assert_eq!((index(&to).len(), tags(&to).len()), (2, 1));
    let moved = Image::new("moved");
    moved.push(&stack.client, &token, "team/app", "one").await;
    run(&stack, "one", &to).await.0.expect("another export");
    let entries = index(&to);
    let under_one: Vec<_> =
        entries.iter().filter(|it| it["annotations"][REF_NAME] == "one").collect();
    assert_eq!(under_one.len(), 1);
    assert_eq!(under_one[0]["digest"], moved.digest().as_str());
    holds(&to, &moved);
}

#[tokio::test]
async fn what_refers_to_an_image_goes_along() {
    let (stack, token, to) = stack_with(&["one"]).await;
    let image = Image::new("one");
    let mut signature: Value = serde_json::from_slice(&image.manifest).expect("JSON");
    signature["artifactType"] = json!("application/vnd.test.signature");
    signature["subject"] = json!({
        "mediaType": MANIFEST,
        "digest": image.digest(),
        "size": image.manifest.len(),
    });
    let signature = signature.to_string();
    let digest = digest_of(signature.as_bytes());
    let put = put_manifest(
        &stack.client,
        &token,
        "team/app",
        digest.as_str(),
        MANIFEST,
        signature.clone().into(),
    );
    put.await.expect(201);
    let done = run(&stack, "one", &to).await.0.expect("an export");
    assert_eq!((done.images, done.manifests), (1, 2));
    assert_eq!(fs::read_to_string(blob(&to, &digest)).expect("the signature"), signature);
    assert!(index(&to).iter().any(|it| it["digest"] == digest.as_str()));
}

#[tokio::test]
async fn a_damaged_blob_is_told_and_left_out() {
    let (stack, _, to) = stack_with(&["one", "two"]).await;
    let image = Image::new("one");
    for object in stack.objects() {
        if fs::read(&object).expect("an object") == image.layer {
            fs::write(object, vec![b'x'; image.layer.len()]).expect("other bytes");
        }
    }
    let (done, events) = run(&stack, "", &to).await;
    assert_eq!(done.expect("an export").damaged, 1);
    let is_it = |event: &Event| {
        matches!(event, Event::Damaged { digest, images, .. }
        if *digest == digest_of(&image.layer) && images[..] == ["team/app:one"])
    };
    assert!(events.iter().any(is_it), "{events:?}");
    assert!(!blob(&to, &digest_of(&image.layer)).exists());
    holds(&to, &Image::new("two"));
}

#[tokio::test]
async fn what_is_not_there_and_a_directory_of_something_else_are_refused() {
    let (stack, _, to) = stack_with(&["one"]).await;
    let refused = run(&stack, "two", &to).await.0.expect_err("a refusal").to_string();
    assert_eq!(
        refused,
        "team/app has no tag two: registry-server list team/app shows those that it has"
    );
    assert!(!to.exists(), "something was made");
    fs::create_dir(&to).expect("a directory");
    fs::write(to.join("letter.txt"), "mine").expect("a file");
    let refused = run(&stack, "one", &to).await.0.expect_err("a refusal").to_string();
    assert!(refused.contains("neither empty nor an OCI image layout"), "{refused}");
    assert_eq!(fs::read_dir(&to).expect("the directory").count(), 1);
}

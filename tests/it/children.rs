//! Manifests that tagged indexes name: who deletes one breaks those, and is told.

use harness::{
    Stack,
    events::Recording,
    image::{INDEX, Image, MANIFEST, digest_of, put_manifest},
    stack::Options,
};
use registry_server::{
    jobs::{
        Job,
        event::{Outcome, Told},
    },
    registry::{event::Event, verify},
};
use serde_json::json;

use crate::collection::run;

/// An image in `app` that the index `inner` names, which the tag `multi` leads to through another.
async fn with_child(registry_limits: &str) -> (Stack, String, Image) {
    let registry_limits = registry_limits.to_owned();
    let stack = Stack::with(Options { registry_limits, ..Options::default() }).await;
    let token = stack.forged_token("andrew", &["repository:app:pull,push,delete"]);
    let image = Image::new("child");
    image.push(&stack.client, &token, "app", image.digest().as_str()).await;
    let mut named = json!({ "mediaType": MANIFEST, "digest": image.digest() });
    for tag in ["inner", "multi"] {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [named] });
        let bytes = index.to_string();
        named = json!({ "mediaType": INDEX, "digest": digest_of(bytes.as_bytes()) });
        put_manifest(&stack.client, &token, "app", tag, INDEX, bytes.into()).await.expect(201);
    }
    (stack, token, image)
}

async fn delete(stack: &Stack, reference: &str, force: bool) -> Told<Outcome> {
    let reference = Some(reference.parse().expect("a reference"));
    run(stack, Job::Delete { repository: "app".parse().expect("a name"), reference, force })
        .await
        .pop()
        .expect("an end")
}

/// What a verification says of indexes, and how many it counts.
async fn incomplete(stack: &Stack) -> (Vec<Told<Outcome>>, u64) {
    let options = verify::Options { repair: false, bytes_per_sec_max: Some(u64::MAX) };
    let mut told = run(stack, Job::Verify { options }).await;
    let Some(Told::Ended(Outcome::Verified(summary))) = told.pop() else { panic!("{told:?}") };
    told.retain(|event| matches!(event, Told::Step(Event::Lacking { .. })));
    (told, summary.incomplete)
}

#[tokio::test]
async fn the_administrator_is_told_which_tags_would_break() {
    let (stack, token, image) = with_child("").await;
    let digest = image.digest();
    let refused = delete(&stack, digest.as_str(), false).await;
    let Told::Failed { message } = refused else { panic!("{refused:?}") };
    for word in ["app:inner", "app:multi", "--force"] {
        assert!(message.contains(word), "{message}");
    }
    let target = format!("/v2/app/manifests/{digest}");
    stack.client.get(&token, &target).await.expect(200);
    assert_eq!(incomplete(&stack).await, (Vec::new(), 0));

    assert!(matches!(
        delete(&stack, digest.as_str(), true).await,
        Told::Ended(Outcome::Deleted(_))
    ));
    stack.client.get(&token, &target).await.expect(404);
    let (told, count) = incomplete(&stack).await;
    let lacking = Event::Lacking {
        image: "app:inner".to_owned(),
        lacking: 1,
        example: digest.to_string(),
        is_sparse: false,
    };
    assert_eq!((told, count), (vec![Told::Step(lacking)], 1));
    // What no index names needs no word.
    image.push(&stack.client, &token, "app", "alone").await;
    for tag in ["multi", "inner"] {
        delete(&stack, tag, false).await;
    }
    for tag in ["multi", "inner"] {
        stack.client.get(&token, format!("/v2/app/manifests/{tag}")).await.expect(404);
    }
}

/// The specification lets a client break an index; who looks for the reason finds it.
#[tokio::test]
async fn what_a_client_breaks_stands_in_the_log() {
    let recording = Recording::start();
    let (stack, token, image) = with_child("").await;
    let target = format!("/v2/app/manifests/{}", image.digest());
    stack.client.delete(&token, target).await.expect(202);
    let events = recording.take();
    let told = events.iter().find(|event| {
        event.text.contains("tagged indexes name") && event.text.contains(image.digest().as_str())
    });
    let told = told.expect("a line");
    assert!(told.text.contains("app:inner") && told.text.contains("app:multi"), "{}", told.text);
}

#[tokio::test]
async fn sparse_indexes_are_told_apart() {
    let (stack, token, _) = with_child("sparse_manifests = true\n").await;
    let absent = digest_of(b"absent");
    let named = json!({ "mediaType": MANIFEST, "digest": absent });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [named] });
    let bytes = index.to_string().into();
    put_manifest(&stack.client, &token, "app", "sparse", INDEX, bytes).await.expect(201);
    let (told, count) = incomplete(&stack).await;
    assert!(
        matches!(&told[..], [Told::Step(Event::Lacking { image, is_sparse: true, .. })] if image == "app:sparse")
    );
    assert_eq!(count, 1);
}

//! Verification: what is damaged is named, not served, and healed by a push.

use std::{fs, path::PathBuf, time::Duration};

use harness::{
    Stack, eventually,
    image::{Image, digest_of, push_blob},
    upload::content,
};
use registry_server::{
    jobs::{
        Job,
        event::{Outcome, Told},
    },
    registry::{
        event::Event,
        verify::{Options, Summary},
    },
};

use crate::collection::run;

async fn verify(stack: &Stack, repair: bool) -> (Vec<Told<Outcome>>, Summary) {
    let options = Options { repair, bytes_per_sec_max: Some(u64::MAX) };
    let mut told = run(stack, Job::Verify { options }).await;
    told.retain(|event| !matches!(event, Told::Step(Event::Progress { .. })));
    match told.pop() {
        Some(Told::Ended(Outcome::Verified(summary))) => (told, summary),
        other => panic!("verification ended with {other:?}"),
    }
}

/// The file that holds these bytes.
fn object_of(stack: &Stack, bytes: &[u8]) -> PathBuf {
    let holds = |path: &PathBuf| fs::read(path).is_ok_and(|found| found == bytes);
    stack.objects().into_iter().find(holds).expect("an object")
}

fn flip(path: &PathBuf) {
    let mut bytes = fs::read(path).expect("an object");
    bytes[0] ^= 1;
    fs::write(path, bytes).expect("damaging it");
}

async fn status(stack: &Stack, method: &str, bytes: &[u8]) -> u16 {
    let token = stack.full_token("app").await;
    let target = format!("/v2/app/blobs/{}", digest_of(bytes));
    stack.client.call(method, target).bearer(&token).send().await.status.as_u16()
}

#[tokio::test]
async fn damage_is_found_named_not_served_and_healed_by_a_push() {
    let damages: [fn(&PathBuf); 3] = [
        flip,
        |path| fs::write(path, "short").expect("cutting it"),
        |path| fs::remove_file(path).expect("removing it"),
    ];
    for damage in damages {
        let stack = Stack::start().await;
        stack.grant("andrew", "app:*").await;
        let token = stack.full_token("app").await;
        let image = Image::new("one");
        image.push(&stack.client, &token, "app", "v1").await;
        assert_eq!(verify(&stack, false).await.1.damaged, 0);
        damage(&object_of(&stack, &image.layer));

        let (told, summary) = verify(&stack, false).await;
        assert_eq!((summary.damaged, summary.blobs), (1, 2), "{told:?}");
        let Told::Step(Event::Damaged { digest, images, .. }) = &told[0] else {
            panic!("{told:?}")
        };
        assert_eq!(*digest, digest_of(&image.layer));
        assert_eq!(*images, ["app:v1"]);
        assert_eq!(status(&stack, "HEAD", &image.layer).await, 404);
        assert_eq!(status(&stack, "GET", &image.layer).await, 404);

        image.push(&stack.client, &token, "app", "v1").await;
        assert_eq!(status(&stack, "GET", &image.layer).await, 200);
        assert_eq!(verify(&stack, false).await.1.damaged, 0);
    }
}

#[tokio::test]
async fn a_small_blob_is_checked_when_it_is_served() {
    let stack = Stack::start().await;
    stack.grant("andrew", "app:*").await;
    let token = stack.full_token("app").await;
    let blob = "a small blob".into();
    push_blob(&stack.client, &token, "app", &blob).await;
    flip(&object_of(&stack, &blob));
    assert_eq!(status(&stack, "GET", &blob).await, 404);
    assert_eq!(status(&stack, "HEAD", &blob).await, 404, "so that it is pushed again");
    push_blob(&stack.client, &token, "app", &blob).await;
    assert_eq!(status(&stack, "GET", &blob).await, 200);
}

#[tokio::test]
async fn damage_is_found_in_the_background_too() {
    let registry_limits = "[verification]\nevery_secs = 1\n".to_owned();
    let options = harness::stack::Options { registry_limits, ..Default::default() };
    let stack = Stack::with(options).await;
    stack.grant("andrew", "app:*").await;
    let blob = content(600_000, 1);
    push_blob(&stack.client, &stack.full_token("app").await, "app", &blob).await;
    flip(&object_of(&stack, &blob));
    stack.clock.advance(Duration::from_secs(2));
    let is_found = async || (status(&stack, "HEAD", &blob).await == 404).then_some(());
    eventually("the damage is found", is_found).await;
}

#[tokio::test]
async fn what_was_put_right_is_served_again_by_repair() {
    let stack = Stack::start().await;
    stack.grant("andrew", "app:*").await;
    let token = stack.full_token("app").await;
    let (one, two) = (content(600_000, 1), content(500_000, 2));
    push_blob(&stack.client, &token, "app", &one).await;
    push_blob(&stack.client, &token, "app", &two).await;
    let (file_of_one, file_of_two) = (object_of(&stack, &one), object_of(&stack, &two));
    flip(&file_of_one);
    flip(&file_of_two);
    assert_eq!(verify(&stack, false).await.1.damaged, 2);
    // The file of one is put right; the bytes of the other lie in an object that nothing owns.
    fs::write(&file_of_one, &one).expect("putting it right");
    fs::write(stack.root().join("registry/objects/0a").join("0a".repeat(16)), &two)
        .expect("a copy");
    let (told, summary) = verify(&stack, false).await;
    assert_eq!((summary.damaged, summary.repaired), (2, 0), "{told:?}");
    // Repairing writes, and a read-only registry is not written to.
    run(&stack, Job::ReadOnly { on: true }).await;
    let repair = Job::Verify { options: Options { repair: true, bytes_per_sec_max: None } };
    assert!(matches!(&run(&stack, repair).await[..], [Told::Failed { .. }]));
    run(&stack, Job::ReadOnly { on: false }).await;
    let (told, summary) = verify(&stack, true).await;
    assert_eq!((summary.damaged, summary.repaired), (1, 2), "{told:?}");
    assert_eq!(status(&stack, "GET", &one).await, 200);
    assert_eq!(status(&stack, "GET", &two).await, 200);
    assert_eq!(verify(&stack, false).await.1.damaged, 0);
}

//! Garbage collection: what nothing keeps alive goes, and nothing else.

use std::{fs, time::Duration};

use harness::{
    Stack, eventually,
    image::{Image, digest_of, push_blob, put_manifest, start_upload},
    stack::Options,
    upload::patch,
};
use registry_server::{
    config::Config,
    data::{CONTROL_SOCKET, Offline, StartError},
    jobs::{
        Job,
        event::{Outcome, Told},
    },
    registry::{
        delete::Deleted,
        event::{Event, Kind},
        gc::Summary,
        verify,
    },
};
use serde_json::json;

/// How long a blob that nothing names stays, by default.
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);

const SECOND: Duration = Duration::from_secs(1);

/// Has the running registry do a job, and gives what it told.
pub(crate) async fn run(stack: &Stack, job: Job) -> Vec<Told<Outcome>> {
    let socket = stack.root().join("registry").join(CONTROL_SOCKET);
    let mut events = job.ask(&socket).await.expect("the control socket");
    let mut told = Vec::new();
    while let Some(event) = events.recv().await {
        told.push(event);
    }
    told
}

/// What a collection did; `None` when it failed.
pub(crate) async fn try_collect(stack: &Stack) -> Option<Summary> {
    match run(stack, Job::Collect { dry_run: false }).await.pop() {
        Some(Told::Ended(Outcome::Collected(summary))) => Some(summary),
        _ => None,
    }
}

/// Collects until nothing is left to, and sees that what lies in the store is what the rows say. `long` is
/// behind every grace period.
pub(crate) async fn nothing_is_left(stack: &Stack, long: Duration) {
    for _ in 0..3 {
        stack.clock.advance(long);
        assert_eq!(try_collect(stack).await.map(|it| it.problems), Some(0));
    }
    let told = run(stack, Job::Verify { options: verify::Options::default() }).await;
    let Some(Told::Ended(Outcome::Verified(found))) = told.last() else { panic!("{told:?}") };
    assert_eq!((found.damaged, found.incomplete), (0, 0));
    assert_eq!(stack.objects().len() as u64, found.blobs);
}

async fn collect(stack: &Stack) -> (Vec<Told<Outcome>>, Summary) {
    collect_with(stack, false).await
}

async fn collect_with(stack: &Stack, dry_run: bool) -> (Vec<Told<Outcome>>, Summary) {
    let mut told = run(stack, Job::Collect { dry_run }).await;
    match told.pop() {
        Some(Told::Ended(Outcome::Collected(summary))) => (told, summary),
        other => panic!("collection ended with {other:?}"),
    }
}

async fn stack_with(collection: &str) -> Stack {
    let registry_limits = format!("[collection]\n{collection}\n");
    Stack::with(Options { registry_limits, ..Options::default() }).await
}

fn token(stack: &Stack, repositories: &[&str]) -> String {
    let scope = |name: &&str| format!("repository:{name}:pull,push,delete");
    let scopes: Vec<String> = repositories.iter().map(scope).collect();
    stack.forged_token("andrew", &scopes.iter().map(String::as_str).collect::<Vec<_>>())
}

async fn head_blob(stack: &Stack, token: &str, name: &str, bytes: &[u8]) -> u16 {
    let target = format!("/v2/{name}/blobs/{}", digest_of(bytes));
    stack.client.head(token, target).await.status.as_u16()
}

#[tokio::test]
async fn a_blob_that_no_manifest_names_goes_after_the_grace_period() {
    let stack = Stack::start().await;
    let token = token(&stack, &["app"]);
    Image::new("kept").push(&stack.client, &token, "app", "v1").await;
    let stray = "a stray blob".into();
    push_blob(&stack.client, &token, "app", &stray).await;
    let before = stack.objects().len();

    stack.clock.advance(GRACE);
    assert_eq!(collect(&stack).await.1.blobs, 0);
    stack.clock.advance(SECOND);
    let (told, summary) = collect(&stack).await;
    assert_eq!((summary.blobs, summary.bytes), (1, stray.len() as u64), "{told:?}");
    assert_eq!(stack.objects().len(), before - 1, "the space is not free");
    assert!(matches!(&told[0], Told::Step(Event::Gone { kind: Kind::Blob, name, why, .. })
        if *name == digest_of(&stray).to_string() && why.contains("no manifest")));
    let token = token_again(&stack, "app");
    assert_eq!(head_blob(&stack, &token, "app", &stray).await, 404);
    stack.client.get(&token, "/v2/app/manifests/v1").await.expect(200);
}

/// Tokens do not live as long as the grace period.
fn token_again(stack: &Stack, repository: &str) -> String {
    token(stack, &[repository])
}

#[tokio::test]
async fn a_client_that_was_told_that_a_blob_is_there_can_count_on_it() {
    let stack = Stack::start().await;
    let blob = "a blob".into();
    push_blob(&stack.client, &token(&stack, &["app"]), "app", &blob).await;
    stack.clock.advance(GRACE);
    assert_eq!(head_blob(&stack, &token(&stack, &["app"]), "app", &blob).await, 200);
    stack.clock.advance(GRACE * 3 / 4);
    assert_eq!(collect(&stack).await.1.blobs, 0);
    stack.clock.advance(GRACE / 4 + SECOND);
    assert_eq!(collect(&stack).await.1.blobs, 1);
}

#[tokio::test]
async fn a_touch_is_written_once_per_quarter_of_the_grace_period() {
    let stack = Stack::start().await;
    let blob = "a blob".into();
    push_blob(&stack.client, &token(&stack, &["app"]), "app", &blob).await;
    // Too early to be written: it is as if nobody had asked.
    stack.clock.advance(GRACE / 4 - SECOND);
    assert_eq!(head_blob(&stack, &token(&stack, &["app"]), "app", &blob).await, 200);
    stack.clock.advance(GRACE * 3 / 4 + SECOND + SECOND);
    assert_eq!(collect(&stack).await.1.blobs, 1);
}

#[tokio::test]
async fn it_runs_by_itself() {
    let stack = stack_with("interval_secs = 1\ngrace_secs = 0").await;
    push_blob(&stack.client, &token(&stack, &["app"]), "app", &"stray".into()).await;
    let is_gone = async || {
        // Servers that share a registry go by its clock.
        stack.clock.advance(SECOND);
        stack.objects().is_empty().then_some(())
    };
    eventually("the blob is collected", is_gone).await;
}

#[tokio::test]
async fn what_a_deleted_manifest_named_goes_at_the_next_run() {
    let stack = Stack::start().await;
    let image = Image::new("one");
    image.push(&stack.client, &token(&stack, &["app"]), "app", "v1").await;
    stack.clock.advance(GRACE + SECOND);
    let token = token(&stack, &["app"]);
    stack.client.delete(&token, format!("/v2/app/manifests/{}", image.digest())).await.expect(202);
    let (_, summary) = collect(&stack).await;
    assert_eq!((summary.blobs, summary.repositories), (2, 1));
    assert_eq!(stack.objects().len(), 0);
}

#[tokio::test]
async fn a_blob_that_another_repository_holds_stays_there() {
    let stack = Stack::start().await;
    let image = Image::new("shared");
    let both = token(&stack, &["one", "two"]);
    image.push(&stack.client, &both, "one", "v1").await;
    image.push(&stack.client, &both, "two", "v1").await;
    stack.clock.advance(GRACE + SECOND);
    let both = token(&stack, &["one", "two"]);
    stack.client.delete(&both, format!("/v2/one/manifests/{}", image.digest())).await.expect(202);
    let (_, summary) = collect(&stack).await;
    assert_eq!((summary.links, summary.blobs), (2, 0));
    assert_eq!(head_blob(&stack, &both, "one", &image.layer).await, 404);
    assert_eq!(head_blob(&stack, &both, "two", &image.layer).await, 200);
}

#[tokio::test]
async fn abandoned_uploads_go_with_their_bytes() {
    let stack = Stack::start().await;
    let token = token(&stack, &["app"]);
    let location = start_upload(&stack.client, &token, "app").await;
    patch(&stack.client, &token, &location, None, "some bytes").await.expect(202);
    assert_eq!(collect(&stack).await.1.uploads, 0);
    stack.clock.advance(GRACE + SECOND);
    let (_, summary) = collect(&stack).await;
    assert_eq!((summary.uploads, summary.bytes), (1, 10));
    assert_eq!(stack.objects().len(), 0);
}

#[tokio::test]
async fn an_object_that_nothing_owns_goes_and_what_is_none_is_reported() {
    let stack = Stack::start().await;
    let folder = stack.root().join("registry/objects/00");
    fs::write(folder.join("0".repeat(32)), "an orphan").expect("an orphan");
    fs::write(folder.join("notes.txt"), "mine").expect("a strange file");
    // A directory cannot be deleted as a file is.
    fs::create_dir(folder.join(format!("{:032}", 1))).expect("a strange directory");
    let (told, summary) = collect(&stack).await;
    assert_eq!((summary.orphans, summary.problems), (0, 1), "{told:?}");
    stack.clock.advance(GRACE * 2);
    let (told, summary) = collect(&stack).await;
    assert_eq!((summary.orphans, summary.problems, summary.bytes), (1, 2, 9), "{told:?}");
    let is_named = |event: &Told<Outcome>| matches!(event, Told::Step(Event::Problem { message }) if message.contains("notes.txt"));
    assert!(told.iter().any(is_named), "{told:?}");
    assert!(folder.join("notes.txt").exists());
}

#[tokio::test]
async fn a_dry_run_tells_what_the_real_one_does_and_changes_nothing() {
    let stack = stack_with("untagged_secs = 60").await;
    let first = token(&stack, &["app"]);
    Image::new("old").push(&stack.client, &first, "app", "latest").await;
    Image::new("new").push(&stack.client, &first, "app", "latest").await;
    push_blob(&stack.client, &first, "app", &"stray".into()).await;
    stack.clock.advance(GRACE + SECOND);
    let objects = stack.objects().len();
    let (would, dry) = collect_with(&stack, true).await;
    assert!(dry.dry_run);
    assert_eq!(stack.objects().len(), objects);
    let (did, summary) = collect(&stack).await;
    assert_eq!(would, did);
    assert_eq!((summary.manifests, summary.blobs, dry.bytes), (1, 3, summary.bytes));
    assert_eq!(
        fs::read_dir(stack.root().join("registry"))
            .expect("the data")
            .filter(|entry| {
                entry.as_ref().expect("an entry").file_name().to_string_lossy().starts_with("copy-")
            })
            .count(),
        0
    );
}

/// An index over two images, tagged `latest`, and something that refers to it.
async fn push_index(stack: &Stack, token: &str) -> (Image, String) {
    let images = [Image::new("amd64"), Image::new("arm64")];
    for image in &images {
        image.push(&stack.client, token, "app", image.digest().as_str()).await;
    }
    let descriptor = |image: &Image| {
        json!({ "mediaType": harness::image::MANIFEST, "digest": image.digest().as_str(),
                "size": image.manifest.len() })
    };
    let manifests: Vec<_> = images.iter().map(descriptor).collect();
    let index =
        json!({ "schemaVersion": 2, "mediaType": harness::image::INDEX, "manifests": manifests });
    let index = bytes::Bytes::from(index.to_string());
    let digest = digest_of(&index);
    put_manifest(&stack.client, token, "app", "latest", harness::image::INDEX, index.clone())
        .await
        .expect(201);
    let signature = Image::new("signature");
    push_blob(&stack.client, token, "app", &signature.config).await;
    push_blob(&stack.client, token, "app", &signature.layer).await;
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&signature.manifest).expect("JSON");
    manifest["subject"] = json!({ "mediaType": harness::image::INDEX, "digest": digest.as_str(),
                                  "size": index.len() });
    let manifest = bytes::Bytes::from(manifest.to_string());
    let signed = digest_of(&manifest).to_string();
    put_manifest(&stack.client, token, "app", &signed, harness::image::MANIFEST, manifest)
        .await
        .expect(201);
    let [image, _] = images;
    (image, signed)
}

#[tokio::test]
async fn untagged_manifests_go_with_what_they_name_and_what_names_them() {
    let stack = stack_with("untagged_secs = 3600").await;
    let token_now = || token(&stack, &["app"]);
    let (child, signed) = push_index(&stack, &token_now()).await;
    stack.clock.advance(GRACE * 2);
    assert_eq!(collect(&stack).await.1.manifests, 0, "all of it hangs on a tag");
    // The tag moves on: from now on nothing names the index.
    Image::new("next").push(&stack.client, &token_now(), "app", "latest").await;
    stack.clock.advance(Duration::from_secs(3600));
    assert_eq!(collect(&stack).await.1.manifests, 0, "the time is not over");
    let manifest = |digest: &str| format!("/v2/app/manifests/{digest}");
    stack.client.get(&token_now(), manifest(&signed)).await.expect(200);
    stack.clock.advance(Duration::from_secs(3601));
    let (told, summary) = collect(&stack).await;
    assert_eq!(summary.manifests, 4, "index, two children and a signature: {told:?}");
    stack.client.get(&token_now(), manifest(child.digest().as_str())).await.expect(404);
    stack.client.get(&token_now(), manifest(&signed)).await.expect(404);
    stack.client.get(&token_now(), manifest("latest")).await.expect(200);
}

#[tokio::test]
async fn manifests_without_a_tag_stay_unless_asked_for_otherwise() {
    let stack = Stack::start().await;
    let image = Image::new("one");
    let reference = image.digest().to_string();
    image.push(&stack.client, &token(&stack, &["app"]), "app", &reference).await;
    stack.clock.advance(GRACE * 400);
    let (told, summary) = collect(&stack).await;
    assert_eq!((summary.manifests, summary.blobs), (0, 0), "{told:?}");
}

#[tokio::test]
async fn nothing_is_deleted_while_somebody_holds_it() {
    let stack = stack_with("grace_secs = 0").await;
    push_blob(&stack.client, &token(&stack, &["app"]), "app", &"stray".into()).await;
    stack.clock.advance(SECOND);
    let socket = stack.root().join("registry").join(CONTROL_SOCKET);
    let mut hold = Job::Hold.ask(&socket).await.expect("the control socket");
    assert_eq!(hold.recv().await, Some(Told::Step(Event::Held)));
    let mut collection = Box::pin(collect(&stack));
    tokio::select! {
        _ = &mut collection => panic!("collected what was held"),
        () = tokio::time::sleep(Duration::from_millis(300)) => {}
    }
    assert_eq!(stack.objects().len(), 1);
    drop(hold);
    assert_eq!(collection.await.1.blobs, 1);
}

#[tokio::test]
async fn a_read_only_registry_serves_and_changes_nothing() {
    let stack = stack_with("grace_secs = 0").await;
    let rights = token(&stack, &["app"]);
    let image = Image::new("one");
    image.push(&stack.client, &rights, "app", "v1").await;
    assert_eq!(
        run(&stack, Job::ReadOnly { on: true }).await,
        [Told::Ended(Outcome::ReadOnly { on: true })]
    );

    stack.client.get(&rights, "/v2/app/manifests/v1").await.expect(200);
    assert_eq!(head_blob(&stack, &rights, "app", &image.layer).await, 200);
    let upload = stack.client.call("POST", "/v2/app/blobs/uploads/").bearer(&rights).send().await;
    let refused = upload.expect_error(405, "UNSUPPORTED");
    assert!(refused.json().to_string().contains("read-only"), "{refused:?}");
    stack.client.delete(&rights, "/v2/app/manifests/v1").await.expect_error(405, "UNSUPPORTED");
    let refused = run(&stack, Job::Collect { dry_run: false }).await;
    assert!(matches!(&refused[..], [Told::Failed { .. }]), "{refused:?}");
    let delete =
        Job::Delete { repository: "app".parse().expect("a name"), reference: None, force: false };
    assert!(matches!(&run(&stack, delete).await[..], [Told::Failed { .. }]));

    run(&stack, Job::ReadOnly { on: false }).await;
    stack.client.delete(&rights, "/v2/app/manifests/v1").await.expect(202);
}

#[tokio::test]
async fn the_administrator_deletes_tags_manifests_and_repositories() {
    let stack = Stack::start().await;
    let rights = token(&stack, &["app"]);
    let image = Image::new("one");
    for tag in ["v1", "v2"] {
        image.push(&stack.client, &rights, "app", tag).await;
    }
    let delete = |reference: Option<&str>| Job::Delete {
        repository: "app".parse().expect("a name"),
        reference: reference.map(|it| it.parse().expect("a reference")),
        force: false,
    };
    let told = |what: &str, manifests, tags, left| {
        Told::Ended(Outcome::Deleted(Deleted { what: what.into(), manifests, tags, left }))
    };
    let deleted = |what: &str, manifests, tags| told(what, manifests, tags, None);
    let gone = told("app:v1", 0, 1, Some(image.digest()));
    assert_eq!(run(&stack, delete(Some("v1"))).await, [gone]);
    stack.client.get(&rights, "/v2/app/manifests/v1").await.expect(404);
    stack.client.get(&rights, "/v2/app/manifests/v2").await.expect(200);
    let digest = image.digest();
    let at = format!("app@{digest}");
    assert_eq!(run(&stack, delete(Some(digest.as_str()))).await, [deleted(&at, 1, 1)]);
    image.push(&stack.client, &rights, "app", "v3").await;
    assert_eq!(run(&stack, delete(None)).await.last(), Some(&deleted("app", 1, 1)));
    assert_eq!(head_blob(&stack, &rights, "app", &image.layer).await, 404);
    let refused = run(&stack, delete(Some("v9"))).await;
    assert!(
        matches!(&refused[..], [Told::Failed { message }] if message.starts_with("app has no tag v9: "))
    );
    assert_eq!(collect(&stack).await.1.blobs, 2);
    assert_eq!(stack.objects().len(), 0);
}

/// Of a registry that several servers share, it keeps those away that would not go with it.
#[tokio::test]
async fn what_a_verb_does_without_a_server_nobody_comes_in_between() {
    let mut stack = Stack::start().await;
    stack.stop_registry().await;
    let config = Config::read(&stack.root().join("registry.toml")).expect("the settings");
    let open = async || Offline::open(&config, stack.clock.clone()).await;
    let mut held = open().await.expect("the data").start(Job::Hold);
    assert_eq!(held.recv().await, Some(Told::Step(Event::Held)));
    if !stack.home().is_shared() {
        assert!(matches!(open().await, Err(StartError::InUse(_))));
    }
    drop(held);
    let opened = eventually("it is over", async || open().await.ok()).await;
    opened.end().await;
}

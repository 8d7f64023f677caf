//! Bounds and damage: a full disk, a damaged blob, a body that stalls, a server that stops.

use std::{fs, path::PathBuf};

use bytes::Bytes;
use harness::{
    Raw, Response, Stack,
    image::{Image, MANIFEST, digest_of, push_blob, put_manifest, start_upload},
    stack::Options,
    upload::{commit, content, patch},
};

/// A stack whose disk has become full: with an image as `app:v1` and the location of an upload
/// session, both from before.
async fn with_full_disk() -> (Stack, String, Image, String) {
    let mut stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let image = Image::new("one");
    image.push(&stack.client, &token, "app", "v1").await;
    let location = start_upload(&stack.client, &token, "app").await;
    stack.stop_registry().await;
    stack.configure_registry("free_bytes_min = 9000000000000000000");
    stack.start_registry().await;
    (stack, token, image, location)
}

fn full(answer: Response) {
    let answer = answer.expect_error(507, "DENIED");
    assert!(answer.json()["errors"][0]["message"].to_string().contains("full"));
}

#[tokio::test]
async fn a_full_disk_takes_no_manifest() {
    let (stack, token, image, _) = with_full_disk().await;
    let bytes = image.manifest.clone();
    full(put_manifest(&stack.client, &token, "app", "v2", MANIFEST, bytes).await);
}

#[tokio::test]
async fn a_full_disk_stops_pushes_and_nothing_else() {
    let (stack, token, image, location) = with_full_disk().await;
    let client = &stack.client;
    let post = |query: &str| {
        let call = client.call("POST", format!("/v2/app/blobs/uploads/{query}")).bearer(&token);
        call.body("new").send()
    };
    full(post("").await);
    full(post(&format!("?digest={}", digest_of(b"new"))).await);
    full(patch(client, &token, &location, None, "new").await);
    full(commit(client, &token, &location, &digest_of(b"new"), "new").await);
    assert_eq!(client.get(&token, "/v2/app/manifests/v1").await.expect(200).body, image.manifest);
    let layer = format!("/v2/app/blobs/{}", digest_of(&image.layer));
    client.get(&token, &layer).await.expect(200);
    client.delete(&token, &location).await.expect(204);
    let manifest = format!("/v2/app/manifests/{}", image.digest());
    client.delete(&token, manifest).await.expect(202);
    client.delete(&token, layer).await.expect(202);
    client.call("GET", "/readyz").send().await.expect(200);
}

/// A stack whose repository `app` holds a blob of which nothing but a part is left on the disk.
async fn with_damage(left: Option<usize>) -> (Stack, String, Bytes) {
    let stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*", "repository:other:*"]);
    let bytes = content(5000, 1);
    push_blob(&stack.client, &token, "app", &bytes).await;
    let target = format!("/v2/app/blobs/{}", digest_of(&bytes));
    stack.client.get(&token, target).await.expect(200);
    let objects = stack.objects();
    assert_eq!(objects.len(), 1);
    match left {
        Some(left) => fs::write(&objects[0], &bytes[..left]).expect("writing"),
        None => fs::remove_file(&objects[0]).expect("removing"),
    }
    (stack, token, bytes)
}

#[tokio::test]
async fn a_damaged_blob_is_not_there_until_it_is_pushed_again() {
    for left in [Some(1000), Some(0), None] {
        let (stack, token, bytes) = with_damage(left).await;
        let client = &stack.client;
        let target = format!("/v2/app/blobs/{}", digest_of(&bytes));
        client.head(&token, &target).await.expect(404);
        client.get(&token, &target).await.expect_error(404, "BLOB_UNKNOWN");
        let mount = format!("/v2/other/blobs/uploads/?mount={}&from=app", digest_of(&bytes));
        client.call("POST", mount).bearer(&token).send().await.expect(202);
        push_blob(client, &token, "other", &bytes).await;
        client.head(&token, &target).await.expect(200);
        assert_eq!(client.get(&token, &target).await.expect(200).body, bytes, "{left:?}");
        // The one that mounts began lies there without bytes, if at all.
        let whole = |path: &PathBuf| fs::metadata(path).is_ok_and(|it| it.len() > 0);
        assert_eq!(stack.objects().iter().filter(|path| whole(path)).count(), 1);
    }
}

#[tokio::test]
async fn a_part_of_a_damaged_blob_is_not_there_either() {
    for left in [Some(1000), Some(0), None] {
        let (stack, token, bytes) = with_damage(left).await;
        let target = format!("/v2/app/blobs/{}", digest_of(&bytes));
        let call = stack.client.call("GET", target).bearer(&token).header("range", "bytes=0-9");
        call.send().await.expect_error(404, "BLOB_UNKNOWN");
    }
}

/// A stack whose blob of 32 MiB in `app` is being sent to a client that has read nothing but the
/// status.
async fn with_download() -> (Stack, String, Bytes, Raw) {
    let stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let bytes = content(32 << 20, 1);
    push_blob(&stack.client, &token, "app", &bytes).await;
    let mut pull = Raw::connect_narrow(&stack.client).await;
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Connection", "close")];
    pull.head(&format!("GET /v2/app/blobs/{}", digest_of(&bytes)), &headers).await;
    assert_eq!(pull.read(12).await, b"HTTP/1.1 200");
    (stack, token, bytes, pull)
}

#[tokio::test]
async fn a_blob_that_becomes_shorter_under_a_download_ends_it_and_is_not_there_after() {
    let (stack, token, bytes, mut pull) = with_download().await;
    let object = fs::OpenOptions::new().write(true).open(&stack.objects()[0]).expect("opening");
    object.set_len(1000).expect("cutting off");
    let got = pull.until_closed().await.len();
    assert!(got < bytes.len(), "{got} bytes came");
    let target = format!("/v2/app/blobs/{}", digest_of(&bytes));
    stack.client.get(&token, &target).await.expect_error(404, "BLOB_UNKNOWN");
    push_blob(&stack.client, &token, "app", &bytes).await;
    assert_eq!(stack.client.get(&token, &target).await.expect(200).body, bytes);
}

/// A file that is open stays whole when its name is gone.
#[tokio::test]
async fn a_blob_that_vanishes_under_a_download_is_sent_whole_and_is_not_there_after() {
    let (stack, token, bytes, mut pull) = with_download().await;
    fs::remove_file(&stack.objects()[0]).expect("removing");
    assert!(pull.until_closed().await.ends_with(&bytes));
    let target = format!("/v2/app/blobs/{}", digest_of(&bytes));
    stack.client.get(&token, &target).await.expect_error(404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn the_size_of_manifests_is_a_setting() {
    let registry_limits = "manifest_bytes_max = 1000".to_owned();
    let stack = Stack::with(Options { registry_limits, ..Options::default() }).await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    Image::new("small").push(&stack.client, &token, "app", "v1").await;
    let large = Bytes::from(vec![b' '; 1001]);
    let answer = put_manifest(&stack.client, &token, "app", "v1", MANIFEST, large).await;
    answer.expect_error(413, "MANIFEST_INVALID");
}

#[tokio::test]
async fn a_body_without_progress_is_cut_off_and_its_session_stays() {
    let registry_limits = "body_idle_secs_max = 1".to_owned();
    let stack = Stack::with(Options { registry_limits, ..Options::default() }).await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let location = start_upload(&stack.client, &token, "app").await;
    let mut raw = Raw::connect(&stack.client).await;
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Length", "1000")];
    raw.head(&format!("PATCH {location}"), &headers).await;
    raw.send(&[1; 600]).await;
    harness::eventually("the session holds what was sent", async || {
        let progress = stack.client.get(&token, &location).await.expect(204);
        (progress.header("range") == "0-599").then_some(())
    })
    .await;
    patch(&stack.client, &token, &location, Some("600-999"), vec![1; 400]).await.expect(202);
    let digest = digest_of(&[1; 1000]);
    commit(&stack.client, &token, &location, &digest, "").await.expect(201);
}

#[tokio::test]
async fn a_server_that_stops_finishes_what_is_open_and_takes_nothing_new() {
    let mut stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let location = start_upload(&stack.client, &token, "app").await;
    let client = stack.client.clone();
    let mut raw = Raw::connect(&client).await;
    let mut idle = Raw::connect(&client).await;
    idle.head("GET /healthz", &[]).await;
    idle.unchecked_answer(false).await.expect(200);
    let bearer = format!("Bearer {token}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Length", "1000"),
        ("Expect", "100-continue"),
    ];
    raw.head(&format!("PATCH {location}"), &headers).await;
    // The request is under way: its handler has asked for the body.
    assert_eq!(raw.unchecked_answer(false).await.status.as_u16(), 100);
    raw.send(&[1; 500]).await;
    let goes_on = async {
        harness::eventually("nobody is let in", async || {
            client.try_connect().await.is_err().then_some(())
        })
        .await;
        raw.send(&[1; 500]).await;
        raw.answer(&location, false).await.expect(202)
    };
    let ((), answer) = tokio::join!(stack.stop_registry(), goes_on);
    assert_eq!(answer.header("range"), "0-999");
    stack.start_registry().await;
    let digest = digest_of(&[1; 1000]);
    commit(&stack.client, &token, &location, &digest, "").await.expect(201);
}

/// So that its files can be moved, copied or replaced as soon as it has stopped.
#[tokio::test]
async fn a_registry_that_has_stopped_has_nothing_open_and_one_file_for_a_database() {
    let mut stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    push_blob(&stack.client, &token, "app", &Bytes::from_static(b"a blob")).await;
    let data = stack.root().join("registry");
    let open = || -> Vec<PathBuf> {
        let entries = fs::read_dir("/proc/self/fd").expect("descriptors").flatten();
        let files = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        files.filter(|file| file.starts_with(&data)).collect()
    };
    assert!(open().contains(&data.join("registry.db")), "{:?}", open());
    stack.stop_registry().await;
    assert!(open().is_empty(), "{:?}", open());
    assert!(!data.join("registry.db-wal").exists());
    stack.start_registry().await;
    let target = format!("/v2/app/blobs/{}", digest_of(b"a blob"));
    stack.client.head(&token, target).await.expect(200);
}

#[tokio::test]
async fn one_data_directory_has_one_server() {
    let stack = Stack::start().await;
    let path = stack.root().join("registry.toml");
    let config = registry_server::config::Config::read(&path).expect("registry.toml");
    let second = registry_server::server::Server::start(config, stack.clock.clone()).await;
    assert!(matches!(second, Err(registry_server::data::StartError::InUse(_))));
    let path = stack.root().join("auth.toml");
    let config = auth_server::config::Config::load(&path).expect("auth.toml");
    let second = auth_server::Bound::open(config, stack.clock.clone()).await;
    assert!(matches!(second, Err(auth_server::StartError::Locked(_))));
    stack.client.call("GET", "/readyz").send().await.expect(200);
}

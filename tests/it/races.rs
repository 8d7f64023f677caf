//! Requests at the same time: what one has been told is what the next one sees.

use bytes::Bytes;
use harness::{
    Client, Stack,
    image::{Image, MANIFEST, digest_of, push_blob, put_manifest, start_upload},
    upload::{commit, content, patch},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

async fn with_token() -> (Stack, String) {
    let stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    (stack, token)
}

/// Reads `target` again and again until told to stop.
fn keep_reading(client: &Client, token: &str, target: &str, stop: &CancellationToken) -> Readers {
    let reader = || {
        let (client, token, target, stop) =
            (client.clone(), token.to_owned(), target.to_owned(), stop.clone());
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                let status = client.get(&token, &target).await.status.as_u16();
                assert!([200, 404].contains(&status), "{status}");
            }
        })
    };
    Readers { tasks: (0..3).map(|_| reader()).collect(), stop: stop.clone() }
}

struct Readers {
    tasks: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Readers {
    async fn finish(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.expect("a reader");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_stays_so_however_busily_it_is_read() {
    let (stack, token) = with_token().await;
    let client = &stack.client;
    let image = Image::new("busy");
    let blob = Bytes::from("a busy blob");
    let manifest = format!("/v2/app/manifests/{}", image.digest());
    for target in [manifest.as_str(), &format!("/v2/app/blobs/{}", digest_of(&blob))] {
        let readers = keep_reading(client, &token, target, &CancellationToken::new());
        for round in 0..10 {
            if target == manifest {
                image.push(client, &token, "app", "v1").await;
            } else {
                push_blob(client, &token, "app", &blob).await;
            }
            client.get(&token, target).await.expect(200);
            client.delete(&token, target).await.expect(202);
            let status = client.get(&token, target).await.status.as_u16();
            assert_eq!(status, 404, "{target}, round {round}");
        }
        readers.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_that_was_moved_is_read_where_it_is() {
    let (stack, token) = with_token().await;
    let images = [Image::new("left"), Image::new("right")];
    for image in &images {
        image.push(&stack.client, &token, "app", "v1").await;
    }
    let target = "/v2/app/manifests/v1";
    let readers = keep_reading(&stack.client, &token, target, &CancellationToken::new());
    for round in 0..20 {
        let manifest = images[round % 2].manifest.clone();
        put_manifest(&stack.client, &token, "app", "v1", MANIFEST, manifest.clone())
            .await
            .expect(201);
        let read = stack.client.get(&token, target).await.expect(200);
        assert_eq!(read.body, manifest, "round {round}");
    }
    readers.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_and_the_delete_of_its_blob_never_both_win() {
    let (stack, token) = with_token().await;
    for round in 0..10 {
        let image = Image::new(&format!("round {round}"));
        push_blob(&stack.client, &token, "app", &image.config).await;
        push_blob(&stack.client, &token, "app", &image.layer).await;
        let blob = format!("/v2/app/blobs/{}", digest_of(&image.layer));
        let manifest = image.manifest.clone();
        let (put, deleted) = tokio::join!(
            put_manifest(&stack.client, &token, "app", "v1", MANIFEST, manifest),
            stack.client.delete(&token, &blob),
        );
        let outcome = (put.status.as_u16(), deleted.status.as_u16());
        assert!([(201, 405), (400, 202)].contains(&outcome), "{outcome:?}");
        let there = stack.client.head(&token, &blob).await.status.is_success();
        assert_eq!(there, outcome.0 == 201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_parallel_pushes_to_one_tag_the_last_wins_and_no_two_mix() {
    let (stack, token) = with_token().await;
    let images: Vec<Image> = (0..6).map(|n| Image::new(&format!("racer {n}"))).collect();
    for round in 0..3 {
        let push = |image: &Image| {
            let (client, token, image) = (stack.client.clone(), token.clone(), image.clone());
            tokio::spawn(async move { image.push(&client, &token, "app", "v1").await })
        };
        let pushes: Vec<_> = images.iter().map(push).collect();
        for push in pushes {
            push.await.expect("a push");
        }
        let by_tag = stack.client.get(&token, "/v2/app/manifests/v1").await.expect(200);
        let winner = images.iter().find(|image| image.manifest == by_tag.body);
        let winner = winner.unwrap_or_else(|| panic!("nobody pushed {by_tag:?}"));
        assert_eq!(by_tag.header("docker-content-digest"), winner.digest().as_str());
        // Who lost the tag has lost nothing else, and who comes last wins.
        for image in images.iter().chain([&images[round]]) {
            let target = format!("/v2/app/manifests/{}", image.digest());
            assert_eq!(stack.client.get(&token, target).await.expect(200).body, image.manifest);
        }
        images[round].push(&stack.client, &token, "app", "v1").await;
        let last = stack.client.get(&token, "/v2/app/manifests/v1").await.expect(200);
        assert_eq!(last.body, images[round].manifest);
    }
    let tags = stack.client.get(&token, "/v2/app/tags/list").await.expect(200);
    assert_eq!(tags.json()["tags"], serde_json::json!(["v1"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_manifest_in_parallel_is_one_manifest() {
    let (stack, token) = with_token().await;
    let image = Image::new("same");
    image.push(&stack.client, &token, "app", "v0").await;
    let push = |n: usize| {
        let (client, token, bytes) = (stack.client.clone(), token.clone(), image.manifest.clone());
        tokio::spawn(async move {
            put_manifest(&client, &token, "app", &format!("v{n}"), MANIFEST, bytes).await
        })
    };
    let pushes: Vec<_> = (0..8).map(push).collect();
    for push in pushes {
        let answer = push.await.expect("a push").expect(201);
        assert_eq!(answer.header("docker-content-digest"), image.digest().as_str());
    }
    let tags = stack.client.get(&token, "/v2/app/tags/list").await.expect(200);
    assert_eq!(tags.json()["tags"].as_array().map(Vec::len), Some(8));
    // One manifest: deleting it takes all its tags along.
    let target = format!("/v2/app/manifests/{}", image.digest());
    stack.client.delete(&token, target).await.expect(202);
    stack.client.get(&token, "/v2/app/manifests/v7").await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_for_one_session_at_once_never_mix() {
    let (stack, token) = with_token().await;
    let location = start_upload(&stack.client, &token, "app").await;
    let chunks: Vec<Bytes> = (0..4).map(|seed| content(300_000, seed)).collect();
    let send = |chunk: &Bytes| {
        let (client, token) = (stack.client.clone(), token.clone());
        let (location, chunk) = (location.clone(), chunk.clone());
        tokio::spawn(async move {
            let range = Some("0-299999");
            patch(&client, &token, &location, range, chunk).await.status.as_u16()
        })
    };
    let sent: Vec<_> = chunks.iter().map(send).collect();
    let mut won = Vec::new();
    for (index, status) in sent.into_iter().enumerate() {
        match status.await.expect("a chunk") {
            202 => won.push(index),
            // Out of order, or overtaken by a newer request.
            status => assert!([409, 416].contains(&status), "{status}"),
        }
    }
    let progress = stack.client.get(&token, &location).await.expect(204);
    if let [winner] = won[..] {
        assert_eq!(progress.header("range"), "0-299999");
        let digest = digest_of(&chunks[winner]);
        commit(&stack.client, &token, &location, &digest, "").await.expect(201);
    } else {
        // Each was stopped by the next: then all but the last have come in part, or none.
        assert!(won.is_empty(), "{won:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_moves_shows_once_what_stays() {
    let (stack, token) = with_token().await;
    let image = Image::new("paged");
    for n in 0..10 {
        image.push(&stack.client, &token, "app", &format!("stays-{n}")).await;
    }
    let stop = CancellationToken::new();
    let busy = {
        let (client, token, image) = (stack.client.clone(), token.clone(), image.clone());
        let stop = stop.clone();
        tokio::spawn(async move {
            for n in 0.. {
                if stop.is_cancelled() {
                    return;
                }
                // Before, between and behind what stays.
                for tag in [format!("a-{n}"), format!("stays-{}-x", n % 10), format!("z-{n}")] {
                    let bytes = image.manifest.clone();
                    put_manifest(&client, &token, "app", &tag, MANIFEST, bytes).await.expect(201);
                    client.delete(&token, format!("/v2/app/manifests/{tag}")).await.expect(202);
                }
            }
        })
    };
    for _ in 0..8 {
        let (mut seen, mut last) = (Vec::<String>::new(), String::new());
        loop {
            let target = format!("/v2/app/tags/list?n=2&last={last}");
            let answer = stack.client.get(&token, target).await.expect(200);
            for tag in answer.json()["tags"].as_array().expect("a list") {
                let tag = tag.as_str().expect("a tag").to_owned();
                assert!(tag > last, "{tag} after {last}");
                last.clone_from(&tag);
                seen.push(tag);
            }
            if answer.find_header("link").is_none() {
                break;
            }
        }
        seen.retain(|tag| tag.starts_with("stays-") && !tag.ends_with("-x"));
        let stay: Vec<String> = (0..10).map(|n| format!("stays-{n}")).collect();
        assert_eq!(seen, stay);
    }
    stop.cancel();
    busy.await.expect("adding and removing");
}

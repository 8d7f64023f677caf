//! Requests at the same time: what one has been told is what the next one sees.

use bytes::Bytes;
use harness::{
    Client, Stack,
    image::{Image, MANIFEST, digest_of, push_blob, put_manifest},
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

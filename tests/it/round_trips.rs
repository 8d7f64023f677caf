//! How often a request waits for PostgreSQL, so that it does not grow unseen.
//!
//! `tests/interop/postgres.sh` starts the server, and runs this.

use bytes::Bytes;
use harness::{
    Stack,
    image::{Image, MANIFEST, digest_of, push_blob, put_manifest, start_upload},
    postgres::Proxy,
    stack::Options,
    upload::{commit, content, patch},
};
use serde_json::json;

/// How often a request is made between two looks. The server asks for things of its own now and then,
/// less often than that, and each connection prepares each statement once.
const TIMES: u64 = 20;

/// How many looks there are, of which the least counts.
const LOOKS: u64 = 4;

/// How many blobs an image names.
const BLOBS: u64 = 9;

/// A registry whose round trips are counted.
struct Counted {
    stack: Stack,
    proxy: Proxy,
    token: String,
}

impl Counted {
    async fn start() -> Self {
        let proxy = Proxy::start().await;
        let database = Some(proxy.table().await);
        let stack = Stack::with(Options { database, ..Options::default() }).await;
        let token = stack.forged_token("andrew", &["repository:app:*", "repository:other:*"]);
        Self { stack, proxy, token }
    }

    /// One request takes no more round trips than `most`.
    async fn takes(&self, most: u64, what: &str, mut request: impl AsyncFnMut(u64)) {
        let (mut least, mut number) = (u64::MAX, 0);
        for _ in 0..LOOKS {
            let before = self.proxy.round_trips();
            for _ in 0..TIMES {
                request(number).await;
                number += 1;
            }
            least = least.min((self.proxy.round_trips() - before) / TIMES);
        }
        assert!(least <= most, "{what}: {least}, and {most} at most");
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn what_is_read_is_asked_for_once_or_known() {
    let counted = Counted::start().await;
    let (client, token) = (&counted.stack.client, &counted.token);
    let image = Image::new("one");
    image.push(client, token, "app", "v1").await;
    let by_digest = format!("/v2/app/manifests/{}", image.digest());
    let layer = format!("/v2/app/blobs/{}", digest_of(&image.layer));
    let get = async |target: &str| drop(client.get(token, target).await.expect(200));
    counted.takes(1, "a manifest by tag", async |_| get("/v2/app/manifests/v1").await).await;
    counted.takes(0, "a known manifest by digest", async |_| get(&by_digest).await).await;
    counted.takes(0, "a known blob", async |_| get(&layer).await).await;
    let head = async |_| drop(client.head(token, &layer).await.expect(200));
    // Its client uploads nothing that it is told is here.
    counted.takes(1, "HEAD of a blob", head).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn a_step_of_an_upload_takes_no_more_round_trips_than_it_did() {
    let counted = Counted::start().await;
    let (client, token) = (&counted.stack.client, &counted.token);
    let open = async |_| drop(start_upload(client, token, "app").await);
    counted.takes(5, "POST", open).await;

    let mut locations = Vec::new();
    for _ in 0..TIMES * LOOKS {
        locations.push(start_upload(client, token, "app").await);
    }
    let blob = |number: u64| content(100, number);
    let at = |number: u64| &locations[usize::try_from(number).unwrap()];
    let send = async |number| {
        patch(client, token, at(number), None, blob(number)).await.expect(202);
    };
    counted.takes(3, "PATCH", send).await;
    let end = async |number| {
        let digest = digest_of(&blob(number));
        commit(client, token, at(number), &digest, "").await.expect(201);
    };
    counted.takes(8, "PUT", end).await;
    let mount = async |number| {
        let digest = digest_of(&blob(number));
        let target = format!("/v2/other/blobs/uploads/?mount={digest}&from=app");
        client.call("POST", target).bearer(token).send().await.expect(201);
    };
    counted.takes(7, "a mount", mount).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn a_manifest_takes_no_more_round_trips_than_it_did_whatever_it_names() {
    let counted = Counted::start().await;
    let (client, token) = (&counted.stack.client, &counted.token);
    let mut blobs = Vec::new();
    for number in 0..BLOBS {
        let blob = content(100, number);
        push_blob(client, token, "app", &blob).await;
        blobs.push(blob);
    }
    let put = async |number| {
        let (manifest, tag) = (naming(&blobs, number), format!("n{number}"));
        put_manifest(client, token, "app", &tag, MANIFEST, manifest).await.expect(201);
    };
    counted.takes(11, "a manifest with a tag", put).await;
    let delete = async |number| {
        let digest = digest_of(&naming(&blobs, number));
        client.delete(token, format!("/v2/app/manifests/{digest}")).await.expect(202);
    };
    counted.takes(7, "its DELETE", delete).await;
}

/// An image of these blobs, another one for each number.
fn naming(blobs: &[Bytes], number: u64) -> Bytes {
    let descriptor = |media_type: &str, bytes: &Bytes| {
        json!({
            "mediaType": format!("application/vnd.oci.image.{media_type}"),
            "digest": digest_of(bytes),
            "size": bytes.len(),
        })
    };
    let layers = blobs[1..].iter().map(|layer| descriptor("layer.v1.tar", layer));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("config.v1+json", &blobs[0]),
        "layers": layers.collect::<Vec<_>>(),
        "annotations": { "number": number.to_string() },
    });
    manifest.to_string().into()
}

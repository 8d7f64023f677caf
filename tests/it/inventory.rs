//! The inventory: what repositories and images take, counted once where they share.

use harness::{
    Stack,
    image::{INDEX, Image, digest_of, push_blob, put_manifest},
};
use registry_server::metadata::Database;
use serde_json::json;

async fn database(stack: &Stack) -> Database {
    let path = stack.root().join("registry/registry.db");
    Database::open_beside(&path).await.expect("the database")
}

fn size_of(image: &Image) -> u64 {
    (image.config.len() + image.layer.len()) as u64
}

#[tokio::test]
async fn what_repositories_share_is_told_apart_from_what_is_their_own() {
    let stack = Stack::start().await;
    let token = stack.forged_token(
        "andrew",
        &["repository:team/one:pull,push", "repository:team/two:pull,push"],
    );
    let (alone, both) = (Image::new("alone"), Image::new("both"));
    alone.push(&stack.client, &token, "team/one", "1").await;
    both.push(&stack.client, &token, "team/one", "2").await;
    both.push(&stack.client, &token, "team/two", "2").await;
    let database = database(&stack).await;
    let holdings = database.holdings().await.expect("repositories");
    let [one, two] = &holdings[..] else { panic!("{holdings:?}") };
    assert_eq!((one.repository.as_str(), one.tags, one.manifests), ("team/one", 2, 2));
    assert_eq!((one.own_bytes, one.shared_bytes), (size_of(&alone), size_of(&both)));
    assert_eq!((two.own_bytes, two.shared_bytes), (0, size_of(&both)));
    assert_eq!(database.shared_bytes().await.expect("the sum"), size_of(&both));
    let missing = database.holding(&"team/three".parse().expect("a name")).await;
    assert_eq!(missing.expect("an answer"), None);
}

#[tokio::test]
async fn an_image_takes_what_it_reaches_through_indexes_counted_once() {
    let stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:team/app:pull,push"]);
    let client = &stack.client;
    let (first, second) = (Image::new("first"), Image::new("second"));
    for image in [&first, &second] {
        image.push(client, &token, "team/app", image.digest().as_str()).await;
    }
    let entry = |image: &Image| {
        json!({
            "mediaType": harness::image::MANIFEST,
            "digest": image.digest(),
            "size": image.manifest.len(),
        })
    };
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [entry(&first), entry(&second), entry(&first)],
    });
    let index = index.to_string();
    put_manifest(client, &token, "team/app", "many", INDEX, index.clone().into()).await.expect(201);
    put_manifest(
        client,
        &token,
        "team/app",
        "first",
        harness::image::MANIFEST,
        first.manifest.clone(),
    )
    .await
    .expect(201);
    Image::new("third").push(client, &token, "team/app", "old").await;
    Image::new("fourth").push(client, &token, "team/app", "old").await;
    push_blob(client, &token, "team/app", &"a blob without a manifest".into()).await;
    let name = "team/app".parse().expect("a name");
    let database = database(&stack).await;
    // `third` lost its tag; the two platforms have none, and the index leads to them.
    let holding = database.holding(&name).await.expect("an answer").expect("the repository");
    assert_eq!((holding.tags, holding.manifests, holding.untagged), (3, 5, 1));
    let images = database.images(&name).await.expect("tags");
    let sizes: Vec<_> = images.iter().map(|it| (it.tag.as_str(), it.bytes)).collect();
    let both = size_of(&first) + size_of(&second);
    let fourth = size_of(&Image::new("fourth"));
    assert_eq!(sizes, [("first", size_of(&first)), ("many", both), ("old", fourth)]);
    assert_eq!(images[1].digest, digest_of(index.as_bytes()).to_string());
    assert_eq!(images[1].pushed, stack.clock.now());
}

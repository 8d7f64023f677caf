//! Attacks: what grows with use and is asked for by everybody. What statements cost is counted beside
//! them, in both servers' own tests; here is what others notice.

use bytes::Bytes;
use harness::{
    Stack,
    image::{INDEX, Image, digest_of, put_manifest},
};
use serde_json::{Value, json};

/// An index of all of `named`.
fn index_of(named: &[Value]) -> Bytes {
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": named }).to_string().into()
}

#[tokio::test]
async fn a_push_ends_while_others_push_large_indexes_without_end() {
    const NAMED: usize = 400;
    let stack = Stack::start().await;
    let (eve, bob) = (stack.full_token("eve/app").await, stack.full_token("bob/app").await);
    let mut named = Vec::new();
    for number in 0..NAMED {
        let annotations = json!({ "number": number.to_string() });
        let small = json!({ "schemaVersion": 2, "manifests": [], "annotations": annotations });
        let bytes = small.to_string();
        let digest = digest_of(bytes.as_bytes());
        let name = digest.as_str();
        named.push(json!({ "mediaType": INDEX, "digest": name, "size": bytes.len() }));
        put_manifest(&stack.client, &eve, "eve/app", name, INDEX, bytes.into()).await.expect(201);
    }
    let index = index_of(&named);
    put_manifest(&stack.client, &eve, "eve/app", "all", INDEX, index.clone()).await.expect(201);
    let without_end = async {
        loop {
            let put = |tag: &'static str| {
                put_manifest(&stack.client, &eve, "eve/app", tag, INDEX, index.clone())
            };
            tokio::join!(put("a"), put("b"), put("c"), put("d"), put("e"), put("f"));
        }
    };
    let image = Image::new("bob");
    tokio::select! {
        () = without_end => unreachable!("it has no end"),
        _ = image.push(&stack.client, &bob, "bob/app", "v1") => {}
    }
}

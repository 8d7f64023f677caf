//! Reading: what was pushed comes back, and nothing else.

use harness::{
    Stack,
    image::{Image, MANIFEST, digest_of},
};

#[tokio::test]
async fn what_was_pushed_is_pulled_by_tag_and_by_digest() {
    let stack = Stack::start().await;
    let token = stack.full_token("team/app").await;
    let image = Image::new("one");
    image.push(&stack.client, &token, "team/app", "v1").await;
    for reference in ["v1", image.digest().as_str()] {
        let call = stack.client.call("GET", format!("/v2/team/app/manifests/{reference}"));
        let answer = call.bearer(&token).send().await.expect(200);
        assert_eq!(answer.body, image.manifest);
        assert_eq!(answer.header("content-type"), MANIFEST);
        assert_eq!(answer.header("docker-content-digest"), image.digest().as_str());
    }
    let layer = digest_of(&image.layer);
    let call = stack.client.call("GET", format!("/v2/team/app/blobs/{layer}"));
    assert_eq!(call.bearer(&token).send().await.expect(200).body, image.layer);
}

//! Attacks on connections: what a stranger holds by sending little, or nothing.

use harness::{H2, Stack, h2::kind};

#[tokio::test]
async fn frames_that_a_test_writes_are_understood() {
    let stack = Stack::start().await;
    let client = stack.client_with(&["h2"]);
    let mut connection = H2::connect(&client, 65_535).await;
    let stream = connection.request("GET", "/v2/", &[], true).await.unwrap();
    let mut kinds = Vec::new();
    while let Some(frame) = connection.next().await {
        if frame.stream == stream {
            kinds.push(frame.kind);
            if frame.ends_stream() {
                break;
            }
        }
    }
    assert_eq!(kinds, [kind::HEADERS, kind::DATA]);
}

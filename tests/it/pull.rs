//! Reading: what was pushed comes back, whole or in part, and nothing else.

use bytes::Bytes;
use harness::{
    Response, Stack,
    image::{Image, MANIFEST, digest_of, push_blob},
    upload::content,
};

#[tokio::test]
async fn what_was_pushed_is_pulled_by_tag_and_by_digest() {
    let stack = Stack::start().await;
    let token = stack.full_token("team/app").await;
    let image = Image::new("one");
    image.push(&stack.client, &token, "team/app", "v1").await;
    for reference in ["v1", image.digest().as_str()] {
        let target = format!("/v2/team/app/manifests/{reference}");
        let answer = stack.client.get(&token, target).await.expect(200);
        assert_eq!(answer.body, image.manifest);
        assert_eq!(answer.header("content-type"), MANIFEST);
        assert_eq!(answer.header("docker-content-digest"), image.digest().as_str());
    }
    let target = format!("/v2/team/app/blobs/{}", digest_of(&image.layer));
    assert_eq!(stack.client.get(&token, target).await.expect(200).body, image.layer);
}

/// A stack whose repository `app` holds a blob of 2000 bytes: its target and bytes, and a token.
async fn with_blob() -> (Stack, String, String, Bytes) {
    let stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let bytes = content(2000, 1);
    push_blob(&stack.client, &token, "app", &bytes).await;
    let target = format!("/v2/app/blobs/{}", digest_of(&bytes));
    (stack, token, target, bytes)
}

#[tokio::test]
async fn a_range_gives_its_bytes_or_416() {
    let (stack, token, target, bytes) = with_blob().await;
    for (range, expected) in [
        ("bytes=500-1499", Some(500..1500)),
        ("bytes=500-", Some(500..2000)),
        ("bytes=-500", Some(1500..2000)),
        ("bytes=-5000", Some(0..2000)),
        ("bytes=0-0", Some(0..1)),
        ("bytes=1999-99999999999999999999999", Some(1999..2000)),
        ("bytes=2000-5000", None),
        ("bytes=5000-10000", None),
        ("bytes=500-0", None),
        ("bytes=-0", None),
    ] {
        let call = stack.client.call("GET", &target).bearer(&token).header("range", range);
        let answer = call.send().await;
        match expected {
            Some(part) => {
                let answer = answer.expect(206);
                let named = format!("bytes {}-{}/2000", part.start, part.end - 1);
                assert_eq!(answer.header("content-range"), named, "{range}");
                assert_eq!(answer.header("content-length"), part.len().to_string(), "{range}");
                assert_eq!(answer.body, bytes.slice(part), "{range}");
            }
            None => {
                let answer = answer.expect_error(416, "SIZE_INVALID");
                assert_eq!(answer.header("content-range"), "bytes */2000", "{range}");
            }
        }
    }
}

/// The parts of a `multipart/byteranges`, each with its `Content-Range`.
fn parts_of(answer: &Response) -> Vec<(String, Bytes)> {
    let kind = answer.header("content-type");
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").expect(kind);
    let (delimiter, end) = (format!("\r\n--{boundary}\r\n"), format!("\r\n--{boundary}--\r\n"));
    let body = [b"\r\n", &answer.body[..]].concat();
    let body = body.strip_suffix(end.as_bytes()).expect("the end");
    let find = |from: usize, text: &[u8]| {
        body[from..].windows(text.len()).position(|window| window == text).map(|at| from + at)
    };
    let (mut at, mut parts) = (find(0, delimiter.as_bytes()), Vec::new());
    while let Some(start) = at {
        let head = start + delimiter.len();
        let content = find(head, b"\r\n\r\n").expect("a head's end");
        let range = std::str::from_utf8(&body[head..content]).expect("text");
        let range = range.strip_prefix("Content-Type: application/octet-stream\r\nContent-Range: ");
        at = find(content, delimiter.as_bytes());
        let bytes = Bytes::copy_from_slice(&body[content + 4..at.unwrap_or(body.len())]);
        parts.push((range.expect("a range").to_owned(), bytes));
    }
    parts
}

/// What zstd:chunked and stargz fetch: some of a layer's files, in one request.
#[tokio::test]
async fn several_ranges_are_parts_of_one_answer_each_once() {
    let stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    // One that is hashed before it is served, and one that is read from its file.
    for size in [2000, 3_000_000] {
        let bytes = content(size, 3);
        push_blob(&stack.client, &token, "app", &bytes).await;
        let target = format!("/v2/app/blobs/{}", digest_of(&bytes));
        let last = size - 500;
        for (range, expected) in [
            ("bytes=0-3,20-23".to_owned(), vec![0..4, 20..24]),
            ("bytes=20-23, 0-3".to_owned(), vec![20..24, 0..4]),
            ("bytes=0-3,4-9,10-11".to_owned(), vec![0..4, 4..10, 10..12]),
            ("bytes=30-39,0-9,5-19".to_owned(), vec![0..20, 30..40]),
            (format!("bytes=-500,100-{}", last - 2), vec![last..size, 100..last - 1]),
            (format!("bytes=0-9,{size}-,50-40,30-39"), vec![0..10, 30..40]),
            (
                format!(
                    "bytes={}",
                    (0..64).map(|n| format!("{}-{},", n * 9, n * 9 + 4)).collect::<String>()
                ),
                (0..64).map(|n| n * 9..n * 9 + 5).collect(),
            ),
        ] {
            let call =
                stack.client.call("GET", &target).bearer(&token).header("range", range.as_str());
            let answer = call.send().await.expect(206);
            assert_eq!(answer.header("content-length"), answer.body.len().to_string(), "{range}");
            let expected: Vec<_> = expected
                .into_iter()
                .map(|part| {
                    (format!("bytes {}-{}/{size}", part.start, part.end - 1), bytes.slice(part))
                })
                .collect();
            assert!(parts_of(&answer) == expected, "{range}");
        }
        // What overlaps is one range, and one range has no frame.
        for (range, part) in [("bytes=0-9,5-19,19-29", 0..30), ("bytes=7-9,99999999-", 7..10)] {
            let call = stack.client.call("GET", &target).bearer(&token).header("range", range);
            let answer = call.send().await.expect(206);
            let named = format!("bytes {}-{}/{size}", part.start, part.end - 1);
            assert_eq!(answer.header("content-range"), named);
            assert_eq!(answer.body, bytes.slice(part));
        }
        let all = format!("bytes={size}-,99999999-");
        let call = stack.client.call("GET", &target).bearer(&token).header("range", all);
        call.send().await.expect_error(416, "SIZE_INVALID");
        let head =
            stack.client.call("HEAD", &target).bearer(&token).header("range", "bytes=0-3,20-23");
        let head = head.send().await.expect(200);
        assert_eq!(head.header("content-length"), size.to_string());
        let call =
            stack.client.call("GET", &target).bearer(&token).header("range", "bytes=0-3,20-23");
        let other = call.header("if-range", "\"another\"").send().await.expect(200);
        assert_eq!(other.body, bytes);
    }
}

#[tokio::test]
async fn a_range_that_cannot_be_read_is_no_range() {
    let (stack, token, target, bytes) = with_blob().await;
    let many = format!("bytes={}", "0-1,".repeat(257));
    for range in ["bytes=0-1,x", "lines=0-1", "bytes=a-b", "bytes=-", "bytes", "", many.as_str()] {
        let call = stack.client.call("GET", &target).bearer(&token).header("range", range);
        assert_eq!(call.send().await.expect(200).body, bytes, "{range:?}");
    }
}

#[tokio::test]
async fn if_range_keeps_the_range_only_while_the_blob_is_the_same() {
    let (stack, token, target, bytes) = with_blob().await;
    let etag = stack.client.head(&token, &target).await.header("etag").to_owned();
    for (condition, status, length) in
        [(etag.as_str(), 206, 10), ("\"another\"", 200, 2000), ("W/\"x\"", 200, 2000)]
    {
        let call = stack.client.call("GET", &target).bearer(&token).header("range", "bytes=0-9");
        let answer = call.header("if-range", condition).send().await.expect(status);
        assert_eq!(answer.body, bytes.slice(..length), "{condition}");
    }
}

#[tokio::test]
async fn who_has_the_content_already_gets_304() {
    let (stack, token, blob, _) = with_blob().await;
    let image = Image::new("known");
    image.push(&stack.client, &token, "app", "v1").await;
    for target in [blob, "/v2/app/manifests/v1".to_owned()] {
        let etag = stack.client.head(&token, &target).await.expect(200).header("etag").to_owned();
        for (condition, status) in
            [(etag.clone(), 304), (format!("\"x\", {etag}"), 304), ("\"x\"".to_owned(), 200)]
        {
            let call = stack.client.call("GET", &target).bearer(&token);
            let answer = call.header("if-none-match", condition.clone()).send().await;
            assert_eq!(answer.status.as_u16(), status, "{target} {condition}");
            assert_eq!(answer.header("etag"), etag);
            assert_eq!(answer.body.is_empty(), status == 304, "{target} {condition}");
        }
    }
}

#[tokio::test]
async fn if_none_match_is_compared_weakly_and_a_star_is_anything() {
    let (stack, token, target, _) = with_blob().await;
    let etag = stack.client.head(&token, &target).await.expect(200).header("etag").to_owned();
    for condition in [format!("W/{etag}"), format!("\"x\", W/{etag}"), "*".to_owned()] {
        for method in ["GET", "HEAD"] {
            let call = stack.client.call(method, &target).bearer(&token);
            let answer = call.header("if-none-match", condition.clone()).send().await;
            assert_eq!(answer.status.as_u16(), 304, "{method} {condition}");
        }
    }
}

fn same_but_for_the_body(head: &Response, get: &Response) {
    for name in get.headers.keys().filter(|name| !["date", "x-request-id"].contains(&name.as_str()))
    {
        assert_eq!(head.headers.get(name), get.headers.get(name), "{name}");
    }
    assert_eq!(head.header("content-length"), get.body.len().to_string());
    assert!(head.body.is_empty());
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let (stack, token, blob, _) = with_blob().await;
    let image = Image::new("both");
    image.push(&stack.client, &token, "app", "v1").await;
    let by_digest = format!("/v2/app/manifests/{}", image.digest());
    for target in [blob, by_digest, "/v2/app/manifests/v1".to_owned(), "/v2/".to_owned()] {
        let head = stack.client.head(&token, &target).await.expect(200);
        let get = stack.client.get(&token, &target).await.expect(200);
        same_but_for_the_body(&head, &get);
    }
}

#[tokio::test]
async fn a_browser_neither_guesses_nor_runs_a_blob() {
    let (stack, token, target, bytes) = with_blob().await;
    let whole = stack.client.get(&token, &target).await.expect(200);
    let call = stack.client.call("GET", &target).bearer(&token).header("range", "bytes=0-9");
    for answer in [whole, call.send().await.expect(206)] {
        assert_eq!(answer.header("content-type"), "application/octet-stream");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("content-security-policy"), "default-src 'none'; sandbox");
        assert_eq!(answer.header("accept-ranges"), "bytes");
        assert_eq!(answer.header("docker-content-digest"), digest_of(&bytes).as_str());
    }
}

#[tokio::test]
async fn a_manifest_is_served_whatever_accept_says() {
    let stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let image = Image::new("accepted");
    image.push(&stack.client, &token, "app", "v1").await;
    for accept in [
        "",
        "*/*",
        "text/html",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.1",
        "not a media type",
    ] {
        let call = stack.client.call("GET", "/v2/app/manifests/v1").bearer(&token);
        let answer = call.header("accept", accept).send().await.expect(200);
        assert_eq!(answer.header("content-type"), MANIFEST, "{accept}");
        assert_eq!(answer.body, image.manifest, "{accept}");
    }
}

#[tokio::test]
async fn a_digest_may_have_its_colon_escaped() {
    let (stack, token, blob, bytes) = with_blob().await;
    let image = Image::new("escaped");
    image.push(&stack.client, &token, "app", "v1").await;
    let manifest = format!("/v2/app/manifests/{}", image.digest());
    for (target, expected) in [(blob, bytes), (manifest, image.manifest)] {
        for escape in ["%3A", "%3a"] {
            let answer = stack.client.get(&token, target.replace(':', escape)).await;
            assert_eq!(answer.expect(200).body, expected, "{target}");
        }
    }
}

#[tokio::test]
async fn names_may_hold_the_words_of_the_specification() {
    let stack = Stack::start().await;
    for name in [
        "blobs/uploads",
        "blobs",
        "manifests/latest",
        "a/manifests/b",
        "tags/list",
        "a/tags",
        "referrers",
        "v2/blobs",
        "a/blobs/uploads/b",
        "token",
    ] {
        let token = stack.forged_token("andrew", &[&format!("repository:{name}:*")]);
        let image = Image::new(name);
        image.push(&stack.client, &token, name, "list").await;
        let target = format!("/v2/{name}/manifests/list");
        let answer = stack.client.get(&token, target).await.expect(200);
        assert_eq!(answer.body, image.manifest, "{name}");
        let target = format!("/v2/{name}/blobs/{}", digest_of(&image.layer));
        assert_eq!(stack.client.get(&token, target).await.expect(200).body, image.layer);
        let tags = stack.client.get(&token, format!("/v2/{name}/tags/list")).await.expect(200);
        assert_eq!(tags.json()["name"], name);
    }
}

#[tokio::test]
async fn pulls_over_http2_give_the_same_bytes() {
    let (stack, token, target, bytes) = with_blob().await;
    let http2 = stack.client_with(&["h2"]);
    assert_eq!(http2.get(&token, &target).await.expect(200).body, bytes);
    let head = http2.head(&token, &target).await.expect(200);
    assert_eq!(head.header("content-length"), "2000");
}

/// containerd says with `ns` which registry it means, since it may ask a mirror.
#[tokio::test]
async fn the_namespace_that_a_mirror_is_asked_for_is_ignored() {
    let stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let image = Image::new("mirrored");
    image.push(&stack.client, &token, "app", "v1").await;
    for path in [
        "manifests/v1".to_owned(),
        format!("manifests/{}", image.digest()),
        format!("blobs/{}", digest_of(&image.layer)),
        format!("referrers/{}", image.digest()),
        "tags/list".to_owned(),
    ] {
        let plain = stack.client.get(&token, format!("/v2/app/{path}")).await.expect(200);
        for ns in ["docker.io", "reg.test", "", "..%2F&ns=x"] {
            let target = format!("/v2/app/{path}?ns={ns}");
            let with = stack.client.get(&token, &target).await.expect(200);
            assert_eq!(with.comparable(), plain.comparable(), "{target}");
        }
    }
    let refused = stack.client.call("GET", "/v2/app/manifests/v1?ns=docker.io").send().await;
    let challenge = refused.expect(401).header("www-authenticate").to_owned();
    assert!(challenge.ends_with("scope=\"repository:app:pull\""), "{challenge}");
    let start = stack.client.call("POST", "/v2/app/blobs/uploads/?ns=docker.io").bearer(&token);
    start.send().await.expect(202);
}

//! Manifests: which are taken, what they must name, and what goes with them when they go.

use bytes::Bytes;
use harness::{
    Client, Response, Stack,
    image::{INDEX, Image, MANIFEST, digest_of, push_blob, put_manifest},
};
use serde_json::{Value, json};

const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";

async fn with_image() -> (Stack, String, Image) {
    let stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let image = Image::new("base");
    image.push(&stack.client, &token, "app", "base").await;
    (stack, token, image)
}

async fn put(stack: &Stack, token: &str, reference: &str, kind: &str, body: &Value) -> Response {
    let bytes = Bytes::from(body.to_string());
    put_manifest(&stack.client, token, "app", reference, kind, bytes).await
}

async fn read(client: &Client, token: &str, reference: &str) -> Response {
    client.get(token, format!("/v2/app/manifests/{reference}")).await
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": digest_of(bytes).as_str(), "size": bytes.len() })
}

#[tokio::test]
async fn every_kind_of_manifest_comes_back_as_it_went_in() {
    let (stack, token, image) = with_image().await;
    let child = descriptor(MANIFEST, &image.manifest);
    let config = descriptor("application/vnd.docker.container.image.v1+json", &image.config);
    let layer = descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", &image.layer);
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [child] });
    let inner = descriptor(INDEX, index.to_string().as_bytes());
    let docker = json!({ "schemaVersion": 2, "mediaType": DOCKER_IMAGE, "config": config,
        "layers": [layer] });
    let list_child = descriptor(DOCKER_IMAGE, docker.to_string().as_bytes());
    for (tag, kind, body) in [
        ("index", INDEX, index),
        ("nested", INDEX, json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [inner] })),
        ("empty-index", INDEX, json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] })),
        ("docker", DOCKER_IMAGE, docker),
        (
            "list",
            DOCKER_LIST,
            json!({ "schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [list_child] }),
        ),
        (
            "artifact",
            MANIFEST,
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "text/x",
                "config": config, "layers": [], "unknown": { "kept": true } }),
        ),
        (
            "old-artifact",
            ARTIFACT,
            json!({ "mediaType": ARTIFACT, "artifactType": "text/x", "blobs": [layer] }),
        ),
        ("no-type", MANIFEST, json!({ "schemaVersion": 2, "config": config, "layers": [] })),
    ] {
        let text = body.to_string();
        let answer = put(&stack, &token, tag, kind, &body).await.expect(201);
        let digest = digest_of(text.as_bytes());
        assert_eq!(answer.header("docker-content-digest"), digest.as_str(), "{tag}");
        assert_eq!(answer.find_header("oci-subject"), None, "{tag}");
        let location = answer.header("location").to_owned();
        for target in [location, format!("/v2/app/manifests/{tag}")] {
            let answer = stack.client.get(&token, target).await.expect(200);
            assert_eq!(answer.header("content-type"), kind, "{tag}");
            assert_eq!(answer.body, text, "{tag}");
        }
    }
}

#[tokio::test]
async fn the_bytes_are_kept_exactly() {
    let (stack, token, image) = with_image().await;
    let config = digest_of(&image.config);
    let text = format!(
        "{{ \"layers\" : [ ],\r\n\t\"schemaVersion\":2 , \"x\":1.50e0,\"x2\":\"\\u00e9é\", \
         \"config\":{{\"size\":1,\"digest\":\"{config}\",\"mediaType\":\"a/b\"}} }}\n\n"
    );
    let bytes = Bytes::from(text);
    let answer = put_manifest(&stack.client, &token, "app", "odd", MANIFEST, bytes.clone()).await;
    answer.expect(201);
    assert_eq!(read(&stack.client, &token, "odd").await.expect(200).body, bytes);
}

#[tokio::test]
async fn what_is_no_manifest_is_refused_in_words() {
    let (stack, token, image) = with_image().await;
    let config = descriptor("a/b", &image.config);
    let image_of =
        |layers: Value| json!({ "schemaVersion": 2, "config": config, "layers": layers });
    for (kind, body, word) in [
        (
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            json!({ "schemaVersion": 1, "name": "app", "tag": "x", "fsLayers": [] }).to_string(),
            "schema 1",
        ),
        (MANIFEST, "no json".to_owned(), "not readable"),
        (MANIFEST, String::new(), "not readable"),
        (MANIFEST, "[]".to_owned(), "not readable"),
        (MANIFEST, "[".repeat(200_000), "not readable"),
        (MANIFEST, r#"{"schemaVersion":2,"layers":[],"layers":[]}"#.to_owned(), "duplicate"),
        (MANIFEST, format!(r#"{{"schemaVersion":2,"x":{}"#, "[".repeat(200_000)), "not readable"),
        (MANIFEST, json!({ "schemaVersion": 3, "layers": [] }).to_string(), "schemaVersion"),
        (MANIFEST, json!({ "schemaVersion": 2, "mediaType": INDEX }).to_string(), INDEX),
        (INDEX, image_of(json!([])).to_string(), INDEX),
        (MANIFEST, json!({ "schemaVersion": 2, "manifests": [] }).to_string(), MANIFEST),
        (
            INDEX,
            json!({ "schemaVersion": 2, "manifests": [], "config": config }).to_string(),
            "not both",
        ),
        ("text/plain", image_of(json!([])).to_string(), "text/plain"),
        (MANIFEST, image_of(json!([{ "digest": "sha256:short" }])).to_string(), "digest"),
        (MANIFEST, image_of(json!([{ "mediaType": "a/b" }])).to_string(), "digest"),
    ] {
        let bytes = Bytes::from(body);
        let answer = put_manifest(&stack.client, &token, "app", "bad", kind, bytes).await;
        let answer = answer.expect_error(400, "MANIFEST_INVALID");
        let message = answer.json()["errors"][0]["message"].as_str().expect("words").to_owned();
        assert!(message.contains(word), "{word} is not in: {message}");
    }
    read(&stack.client, &token, "bad").await.expect_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn a_content_type_may_have_parameters_or_be_absent() {
    let (stack, token, image) = with_image().await;
    let kind = format!("{MANIFEST}; charset=utf-8");
    let answer =
        put_manifest(&stack.client, &token, "app", "a", &kind, image.manifest.clone()).await;
    answer.expect(201);
    let call = stack.client.call("PUT", "/v2/app/manifests/b").bearer(&token);
    call.body(image.manifest.clone()).send().await.expect(201);
    for tag in ["a", "b"] {
        let answer = read(&stack.client, &token, tag).await.expect(200);
        assert_eq!(answer.header("content-type"), MANIFEST);
    }
}

#[tokio::test]
async fn everything_that_is_missing_is_named() {
    let (stack, token, image) = with_image().await;
    let missing = [b"one".as_slice(), b"two", b"three"].map(|bytes| descriptor("a/b", bytes));
    let here = descriptor("a/b", &image.layer);
    let body = json!({ "schemaVersion": 2, "config": missing[0],
        "layers": [missing[1], here, missing[2]] });
    let answer = put(&stack, &token, "x", MANIFEST, &body).await;
    let answer = answer.expect_error(400, "MANIFEST_BLOB_UNKNOWN").json();
    let mut named: Vec<_> = answer["errors"].as_array().expect("errors").clone();
    named.sort_by_key(|error| error["detail"]["digest"].to_string());
    let mut expected: Vec<_> = missing.iter().map(|it| it["digest"].clone()).collect();
    expected.sort_by_key(Value::to_string);
    let digests: Vec<_> = named.iter().map(|error| error["detail"]["digest"].clone()).collect();
    assert_eq!(digests, expected);
    assert!(named.iter().all(|error| error["code"] == "MANIFEST_BLOB_UNKNOWN"));
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor(MANIFEST, b"child")] });
    let answer = put(&stack, &token, "x", INDEX, &index).await;
    answer.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    read(&stack.client, &token, "x").await.expect_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn content_of_another_repository_is_missing_too() {
    let (stack, _, image) = with_image().await;
    let token = stack.forged_token("andrew", &["repository:other:*"]);
    let bytes = image.manifest.clone();
    let answer = put_manifest(&stack.client, &token, "other", "x", MANIFEST, bytes).await;
    answer.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn foreign_layers_need_not_be_here() {
    let (stack, token, image) = with_image().await;
    for kind in [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ] {
        let body = json!({ "schemaVersion": 2, "config": descriptor("a/b", &image.config),
            "layers": [descriptor(kind, b"elsewhere")] });
        put(&stack, &token, "foreign", MANIFEST, &body).await.expect(201);
    }
}

#[tokio::test]
async fn the_limit_is_four_mebibytes() {
    let (stack, token, image) = with_image().await;
    let annotations: serde_json::Map<String, Value> =
        (0..390).map(|n| (format!("note-{n}"), "x".repeat(10_000).into())).collect();
    let large = json!({ "schemaVersion": 2, "config": descriptor("a/b", &image.config),
        "layers": [], "annotations": annotations });
    assert!(large.to_string().len() > 3_900_000);
    put(&stack, &token, "large", MANIFEST, &large).await.expect(201);
    assert_eq!(read(&stack.client, &token, "large").await.expect(200).body, large.to_string());
    let mut exact = large.to_string().into_bytes();
    exact.resize(4 * 1024 * 1024, b' ');
    let put_bytes = |bytes: Vec<u8>, is_streamed: bool| {
        let call = stack.client.call("PUT", "/v2/app/manifests/x").bearer(&token);
        let call = call.header("content-type", MANIFEST).body(bytes);
        if is_streamed { call.streamed() } else { call }.send()
    };
    put_bytes(exact.clone(), false).await.expect(201);
    exact.push(b' ');
    put_bytes(exact.clone(), false).await.expect_error(413, "MANIFEST_INVALID");
    put_bytes(exact, true).await.expect_error(413, "MANIFEST_INVALID");
}

#[tokio::test]
async fn a_manifest_put_by_digest_must_have_it() {
    let (stack, token, image) = with_image().await;
    let wrong = digest_of(b"wrong");
    let bytes = image.manifest.clone();
    let answer =
        put_manifest(&stack.client, &token, "app", wrong.as_str(), MANIFEST, bytes.clone()).await;
    answer.expect_error(400, "DIGEST_INVALID");
    let sha512 = berth_shared::digest::Algorithm::Sha512.digest(&bytes);
    let answer = put_manifest(&stack.client, &token, "app", sha512.as_str(), MANIFEST, bytes).await;
    assert_eq!(answer.expect(201).header("docker-content-digest"), sha512.as_str());
    let answer = read(&stack.client, &token, sha512.as_str()).await.expect(200);
    assert_eq!(answer.body, image.manifest);
    assert_eq!(answer.header("docker-content-digest"), sha512.as_str());
}

#[tokio::test]
async fn a_manifest_put_by_digest_takes_the_tags_of_its_query() {
    let (stack, token, image) = with_image().await;
    let reference = format!("{}?tag=v1&tag=v1.2", image.digest());
    let bytes = image.manifest.clone();
    let answer = put_manifest(&stack.client, &token, "app", &reference, MANIFEST, bytes.clone());
    let answer = answer.await.expect(201);
    let tags: Vec<_> = answer.headers.get_all("oci-tag").iter().collect();
    assert_eq!(tags, ["v1", "v1.2"]);
    for tag in ["v1", "v1.2"] {
        assert_eq!(read(&stack.client, &token, tag).await.expect(200).body, image.manifest);
    }
    let reference = format!("{}?tag=fine&tag=-bad", image.digest());
    let answer = put_manifest(&stack.client, &token, "app", &reference, MANIFEST, bytes).await;
    answer.expect_error(400, "MANIFEST_INVALID");
    read(&stack.client, &token, "fine").await.expect_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn a_subject_is_acknowledged_whether_or_not_it_exists() {
    let (stack, token, image) = with_image().await;
    for subject in [image.manifest.clone(), Bytes::from("not here yet")] {
        let subject = descriptor(MANIFEST, &subject);
        let body = json!({ "schemaVersion": 2, "config": descriptor("a/b", &image.config),
            "layers": [], "subject": subject });
        let answer = put(&stack, &token, "signature", MANIFEST, &body).await.expect(201);
        assert_eq!(answer.header("oci-subject"), subject["digest"].as_str().expect("a digest"));
    }
}

#[tokio::test]
async fn a_tag_moves_and_its_old_manifest_stays() {
    let (stack, token, old) = with_image().await;
    let new = Image::new("newer");
    new.push(&stack.client, &token, "app", "base").await;
    assert_eq!(read(&stack.client, &token, "base").await.expect(200).body, new.manifest);
    let by_digest = read(&stack.client, &token, old.digest().as_str()).await;
    assert_eq!(by_digest.expect(200).body, old.manifest);
}

#[tokio::test]
async fn deleting_a_tag_leaves_the_manifest() {
    let (stack, token, image) = with_image().await;
    stack.client.delete(&token, "/v2/app/manifests/base").await.expect(202);
    read(&stack.client, &token, "base").await.expect_error(404, "MANIFEST_UNKNOWN");
    read(&stack.client, &token, image.digest().as_str()).await.expect(200);
    let again = stack.client.delete(&token, "/v2/app/manifests/base").await;
    again.expect_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn deleting_a_manifest_takes_its_tags_along_at_once() {
    let (stack, token, image) = with_image().await;
    let bytes = image.manifest.clone();
    put_manifest(&stack.client, &token, "app", "second", MANIFEST, bytes).await.expect(201);
    let other = Image::new("stays");
    other.push(&stack.client, &token, "app", "stays").await;
    let digest = image.digest();
    let references = ["base", "second", digest.as_str()];
    for reference in references {
        read(&stack.client, &token, reference).await.expect(200);
    }
    let target = format!("/v2/app/manifests/{digest}");
    stack.client.delete(&token, &target).await.expect(202);
    for reference in references {
        read(&stack.client, &token, reference).await.expect_error(404, "MANIFEST_UNKNOWN");
        let target = format!("/v2/app/manifests/{reference}");
        stack.client.head(&token, target).await.expect(404);
    }
    let tags = stack.client.get(&token, "/v2/app/tags/list").await.expect(200).json();
    assert_eq!(tags["tags"], json!(["stays"]));
    stack.client.delete(&token, &target).await.expect_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn a_blob_goes_only_when_no_manifest_names_it() {
    let (stack, token, image) = with_image().await;
    let client = &stack.client;
    for bytes in [&image.config, &image.layer] {
        let target = format!("/v2/app/blobs/{}", digest_of(bytes));
        let refused = client.delete(&token, target).await.expect_error(405, "UNSUPPORTED");
        let error = &refused.json()["errors"][0];
        assert_eq!(error["detail"]["manifest"], image.digest().as_str());
        assert!(error["message"].as_str().expect("words").contains(image.digest().as_str()));
    }
    client.delete(&token, format!("/v2/app/manifests/{}", image.digest())).await.expect(202);
    for bytes in [&image.config, &image.layer] {
        let target = format!("/v2/app/blobs/{}", digest_of(bytes));
        client.get(&token, &target).await.expect(200);
        client.delete(&token, &target).await.expect(202);
        client.get(&token, &target).await.expect_error(404, "BLOB_UNKNOWN");
        client.head(&token, &target).await.expect(404);
        client.delete(&token, &target).await.expect_error(404, "BLOB_UNKNOWN");
        push_blob(client, &token, "app", bytes).await;
        client.get(&token, &target).await.expect(200);
    }
}

#[tokio::test]
async fn a_manifest_may_name_the_same_thing_twice() {
    let (stack, token, image) = with_image().await;
    let layer = descriptor("a/b", &image.layer);
    let body = json!({ "schemaVersion": 2, "config": layer, "layers": [layer, layer] });
    for _ in 0..2 {
        put(&stack, &token, "twice", MANIFEST, &body).await.expect(201);
    }
    let child = descriptor(MANIFEST, body.to_string().as_bytes());
    let index = json!({ "schemaVersion": 2, "manifests": [child, child], "subject": child });
    put(&stack, &token, "twice-index", INDEX, &index).await.expect(201);
    assert_eq!(read(&stack.client, &token, "twice").await.expect(200).body, body.to_string());
}

#[tokio::test]
async fn a_blob_that_goes_here_stays_elsewhere() {
    let (stack, token, image) = with_image().await;
    let other = stack.forged_token("andrew", &["repository:other:*"]);
    image.push(&stack.client, &other, "other", "v1").await;
    stack.client.delete(&token, format!("/v2/app/manifests/{}", image.digest())).await.expect(202);
    let layer = digest_of(&image.layer);
    stack.client.delete(&token, format!("/v2/app/blobs/{layer}")).await.expect(202);
    stack.client.get(&other, format!("/v2/other/blobs/{layer}")).await.expect(200);
    stack.client.get(&other, "/v2/other/manifests/v1").await.expect(200);
}

//! Lists: tags, the catalog and referrers, page by page and in byte order.

use bytes::Bytes;
use harness::{
    Client, Stack,
    image::{INDEX, Image, MANIFEST, digest_of, put_manifest},
};
use serde_json::{Value, json};

/// A stack, a token for `app`, and an image there under each of `tags`.
async fn with_tags(tags: &[&str]) -> (Stack, String, Image) {
    let stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let image = Image::new("tagged");
    for tag in tags {
        image.push(&stack.client, &token, "app", tag).await;
    }
    (stack, token, image)
}

/// Follows `Link` from `target` to the end: the items of each page.
async fn pages(client: &Client, token: &str, target: &str, key: &str) -> Vec<Vec<Value>> {
    let (mut target, mut pages) = (target.to_owned(), Vec::new());
    loop {
        let answer = client.get(token, &target).await.expect(200);
        pages.push(answer.json()[key].as_array().expect("a list").clone());
        assert!(pages.len() < 100, "the pages do not end");
        let Some(link) = answer.find_header("link") else { return pages };
        let link = link.strip_prefix('<').and_then(|it| it.strip_suffix(">; rel=\"next\""));
        target = link.expect("a link to the next page").to_owned();
        assert!(target.starts_with("/v2/"), "{target}");
    }
}

#[tokio::test]
async fn tags_come_in_byte_order_and_pages_meet_without_gap() {
    let (stack, token, _) = with_tags(&["b", "B", "_x", "1", "a.b", "a-b", "A"]).await;
    let all = json!(["1", "A", "B", "_x", "a-b", "a.b", "b"]);
    let answer = stack.client.get(&token, "/v2/app/tags/list").await.expect(200);
    assert_eq!(answer.json(), json!({ "name": "app", "tags": all }));
    assert_eq!(answer.find_header("link"), None);
    for (n, sizes) in [(1, vec![1; 7]), (3, vec![3, 3, 1]), (6, vec![6, 1]), (7, vec![7])] {
        let target = format!("/v2/app/tags/list?n={n}");
        let pages = pages(&stack.client, &token, &target, "tags").await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), sizes, "n={n}");
        assert_eq!(json!(pages.concat()), all, "n={n}");
    }
}

/// A client that asks for no page and reads no `Link` has all of them, the newest versions too.
#[tokio::test]
async fn all_tags_come_to_who_asks_for_no_page() {
    let (stack, token, image) = with_tags(&["v1"]).await;
    let mut names: Vec<String> = (0..2600).map(|n| format!("t{n}")).collect();
    for tags in names.chunks(64) {
        let query = tags.iter().map(|tag| format!("tag={tag}")).collect::<Vec<_>>().join("&");
        let target = format!("/v2/app/manifests/{}?{query}", image.digest());
        let call = stack.client.call("PUT", target).bearer(&token).header("content-type", MANIFEST);
        call.body(image.manifest.clone()).send().await.expect(201);
    }
    names.push("v1".to_owned());
    names.sort();
    for (query, from) in [
        ("", 0),
        ("?n=", 0),
        ("?last=t2000", 1 + names.iter().position(|it| it == "t2000").unwrap()),
    ] {
        let target = format!("/v2/app/tags/list{query}");
        let answer = stack.client.get(&token, &target).await.expect(200);
        assert_eq!(answer.json(), json!({ "name": "app", "tags": names[from..] }), "{query}");
        assert_eq!(answer.find_header("link"), None, "{query}");
        assert_eq!(answer.header("content-type"), "application/json");
        stack.client.call("HEAD", &target).bearer(&token).send().await.expect(200);
    }
    let pages = pages(&stack.client, &token, "/v2/app/tags/list?n=5000", "tags").await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1000, 601]);
    assert_eq!(json!(pages.concat()), json!(names));
}

#[tokio::test]
async fn page_parameters_are_read_leniently_or_refused() {
    let (stack, token, _) = with_tags(&["a", "b", "c"]).await;
    for (query, expected) in [
        ("n=0", json!([])),
        ("n=", json!(["a", "b", "c"])),
        ("n=2", json!(["a", "b"])),
        ("n=99999999999999999999999", json!(["a", "b", "c"])),
        ("last=a", json!(["b", "c"])),
        ("last=aa", json!(["b", "c"])),
        ("last=c", json!([])),
        ("last=~%00%ff%22", json!([])),
        ("last=", json!(["a", "b", "c"])),
        ("n=1&last=a", json!(["b"])),
        ("unknown=1", json!(["a", "b", "c"])),
    ] {
        let answer = stack.client.get(&token, format!("/v2/app/tags/list?{query}")).await;
        let answer = answer.expect(200);
        assert_eq!(answer.json()["tags"], expected, "{query}");
        let more = query.starts_with("n=2") || query.starts_with("n=1");
        assert_eq!(answer.find_header("link").is_some(), more, "{query}");
    }
    for n in ["-1", "a", "1.5", "%2B1", "1%20", "0x1"] {
        let answer = stack.client.get(&token, format!("/v2/app/tags/list?n={n}")).await;
        answer.expect_error(400, "PAGINATION_NUMBER_INVALID");
    }
}

#[tokio::test]
async fn every_list_reads_its_page_parameters_alike() {
    let (stack, token, target, referrers) = with_referrers().await;
    stack.grant("andrew", "**:pull").await;
    Image::new("more").push(&stack.client, &token, "app", "v2").await;
    let other = stack.forged_token("andrew", &["repository:other:*"]);
    Image::new("more").push(&stack.client, &other, "other", "v1").await;
    let lists = [
        ("/v2/_catalog", "repositories", 2),
        ("/v2/app/tags/list", "tags", 2),
        (&target, "manifests", 4),
    ];
    assert_eq!(referrers.len(), 4);
    for (target, key, count) in lists {
        for (n, expected) in [("0", 0), ("1", 1), ("1001", count), (&"9".repeat(30), count)] {
            let answer = stack.client.get(&token, format!("{target}?n={n}")).await.expect(200);
            assert_eq!(answer.json()[key].as_array().map(Vec::len), Some(expected), "{target} {n}");
            assert_eq!(answer.find_header("link").is_some(), n == "1", "{target} {n}");
        }
        for n in ["-1", "x", "1,5", "%00"] {
            let answer = stack.client.get(&token, format!("{target}?n={n}")).await;
            answer.expect_error(400, "PAGINATION_NUMBER_INVALID");
        }
        for last in ["~", "%ff%fe", "..%2f..", "%22%3E"] {
            stack.client.get(&token, format!("{target}?last={last}")).await.expect(200);
        }
        let all = pages(&stack.client, &token, &format!("{target}?n=1"), key).await;
        assert_eq!(all.len(), count, "{target}");
    }
}

#[tokio::test]
async fn a_list_that_grows_while_it_is_read_repeats_nothing() {
    let (stack, token, image) = with_tags(&["b", "d", "f"]).await;
    let first = stack.client.get(&token, "/v2/app/tags/list?n=2").await.expect(200);
    assert_eq!(first.json()["tags"], json!(["b", "d"]));
    for tag in ["a", "c", "e"] {
        image.push(&stack.client, &token, "app", tag).await;
    }
    stack.client.delete(&token, "/v2/app/manifests/d").await.expect(202);
    let rest = pages(&stack.client, &token, "/v2/app/tags/list?n=2&last=d", "tags").await;
    assert_eq!(json!(rest.concat()), json!(["e", "f"]));
}

#[tokio::test]
async fn catalog_and_referrers_go_on_behind_what_has_gone() {
    let (stack, token, target, referrers) = with_referrers().await;
    stack.grant("andrew", "**:pull").await;
    let repository = async |name: &str| {
        let token = stack.forged_token("andrew", &[&format!("repository:{name}:*")]);
        let image = Image::new(name);
        image.push(&stack.client, &token, name, "v1").await;
        (token, format!("/v2/{name}/manifests/{}", image.digest()))
    };
    repository("b").await;
    let (of_d, d) = repository("d").await;
    repository("f").await;
    // Behind "app" and "b".
    let first = stack.client.get(&token, "/v2/_catalog?n=3").await.expect(200);
    assert_eq!(first.json()["repositories"], json!(["app", "b", "d"]));
    stack.client.delete(&of_d, d).await.expect(202);
    for name in ["a", "c", "e"] {
        repository(name).await;
    }
    let rest = pages(&stack.client, &token, "/v2/_catalog?n=1&last=d", "repositories").await;
    assert_eq!(json!(rest.concat()), json!(["e", "f"]));

    let gone = referrers[1]["digest"].as_str().expect("a digest");
    stack.client.delete(&token, format!("/v2/app/manifests/{gone}")).await.expect(202);
    let target = format!("{target}?n=1&last={gone}");
    let rest = pages(&stack.client, &token, &target, "manifests").await;
    assert_eq!(rest.concat(), referrers[2..]);
}

#[tokio::test]
async fn a_repository_is_known_while_it_holds_a_manifest() {
    let (stack, token, image) = with_tags(&["a"]).await;
    let unknown = stack.forged_token("andrew", &["repository:nowhere:pull"]);
    let answer = stack.client.get(&unknown, "/v2/nowhere/tags/list").await;
    answer.expect_error(404, "NAME_UNKNOWN");
    stack.client.delete(&token, "/v2/app/manifests/a").await.expect(202);
    let answer = stack.client.get(&token, "/v2/app/tags/list").await.expect(200);
    assert_eq!(answer.json(), json!({ "name": "app", "tags": [] }));
    let target = format!("/v2/app/manifests/{}", image.digest());
    stack.client.delete(&token, target).await.expect(202);
    let answer = stack.client.get(&token, "/v2/app/tags/list").await;
    answer.expect_error(404, "NAME_UNKNOWN");
}

#[tokio::test]
async fn the_catalog_shows_what_its_reader_may_pull() {
    let stack = Stack::start().await;
    let names = ["team/a", "team/b", "public/x", "open", "zeta", "team"];
    for name in names {
        let token = stack.forged_token("owner", &[&format!("repository:{name}:*")]);
        Image::new(name).push(&stack.client, &token, name, "v1").await;
    }
    stack.grant("andrew", "team/**:pull").await;
    stack.grant("root", "**:push").await;
    stack.grant("nodelete", "zeta:delete").await;
    stack.grant("everyone", "public/*:pull").await;
    stack.grant("anonymous", "open:pull").await;
    for user in ["root", "nodelete", "bea"] {
        stack.set_password(user, harness::stack::PASSWORD);
    }
    for (user, expected) in [
        ("andrew", json!(["open", "public/x", "team", "team/a", "team/b"])),
        ("root", json!(["open", "public/x", "team", "team/a", "team/b", "zeta"])),
        ("nodelete", json!(["open", "public/x"])),
        ("bea", json!(["open", "public/x"])),
        ("", json!(["open"])),
    ] {
        let token = stack.token(user, &["registry:catalog:*"]).await;
        let answer = stack.client.get(&token, "/v2/_catalog").await.expect(200);
        assert_eq!(answer.json(), json!({ "repositories": expected }), "{user:?}");
        let pages = pages(&stack.client, &token, "/v2/_catalog?n=1", "repositories").await;
        assert_eq!(json!(pages.concat()), expected, "{user:?}");
    }
    let token = stack.token("root", &[]).await;
    let answer = stack.client.get(&token, "/v2/_catalog?n=2&last=public/x").await.expect(200);
    assert_eq!(answer.json(), json!({ "repositories": ["team", "team/a"] }));
    assert_eq!(answer.header("link"), "</v2/_catalog?n=2&last=team%2Fa>; rel=\"next\"");
}

#[tokio::test]
async fn the_catalog_is_503_while_nobody_can_say_what_may_be_seen() {
    let mut stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["registry:catalog:*"]);
    stack.stop_auth().await;
    let answer = stack.client.get(&token, "/v2/_catalog").await;
    assert_eq!(answer.expect_error(503, "UNAVAILABLE").header("retry-after"), "2");
}

/// A manifest whose subject is `subject`, in `app`: its descriptor as referrers list it.
async fn refer(stack: &Stack, token: &str, subject: &Bytes, kind: &str, more: Value) -> Value {
    let subject =
        json!({ "mediaType": MANIFEST, "digest": digest_of(subject).as_str(), "size": 1 });
    let mut body = json!({ "schemaVersion": 2, "mediaType": kind, "subject": subject });
    for (key, value) in more.as_object().expect("members") {
        body[key] = value.clone();
    }
    let bytes = Bytes::from(body.to_string());
    let digest = digest_of(&bytes);
    let mut descriptor =
        json!({ "mediaType": kind, "digest": digest.as_str(), "size": bytes.len() });
    let derived = body.get("artifactType").or_else(|| body["config"].get("mediaType"));
    if let Some(artifact_type) = derived {
        descriptor["artifactType"] = artifact_type.clone();
    }
    if let Some(annotations) = body.get("annotations") {
        descriptor["annotations"] = annotations.clone();
    }
    put_manifest(&stack.client, token, "app", digest.as_str(), kind, bytes).await.expect(201);
    descriptor
}

/// A stack with four manifests that refer to one image: their descriptors in byte order.
async fn with_referrers() -> (Stack, String, String, Vec<Value>) {
    let (stack, token, image) = with_tags(&["v1"]).await;
    let config = json!({ "mediaType": "text/config", "size": image.config.len(),
        "digest": digest_of(&image.config).as_str() });
    let mut referrers = Vec::new();
    for (kind, more) in [
        (MANIFEST, json!({ "config": config, "layers": [] })),
        (
            MANIFEST,
            json!({ "config": config, "layers": [], "artifactType": "text/sig+json",
            "annotations": { "by": "andrew", "note": "é" } }),
        ),
        (INDEX, json!({ "manifests": [] })),
        (INDEX, json!({ "manifests": [], "artifactType": "text/sig+json" })),
    ] {
        referrers.push(refer(&stack, &token, &image.manifest, kind, more).await);
    }
    referrers.sort_by_key(|descriptor| descriptor["digest"].to_string());
    let target = format!("/v2/app/referrers/{}", image.digest());
    (stack, token, target, referrers)
}

#[tokio::test]
async fn referrers_are_listed_as_their_manifests_describe_them() {
    let (stack, token, target, referrers) = with_referrers().await;
    let answer = stack.client.get(&token, &target).await.expect(200);
    assert_eq!(answer.header("content-type"), INDEX);
    assert_eq!(answer.find_header("oci-filters-applied"), None);
    let expected = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": referrers });
    assert_eq!(answer.json(), expected);
    let pages = pages(&stack.client, &token, &format!("{target}?n=3"), "manifests").await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1]);
    assert_eq!(pages.concat(), referrers);
}

#[tokio::test]
async fn referrers_are_filtered_by_artifact_type_and_say_so() {
    let (stack, token, target, referrers) = with_referrers().await;
    // A plus in a query is a plus (RFC 3986 §3.4), though forms read it as a blank.
    for (written, wanted, count) in [
        ("text/sig+json", "text/sig+json", 2),
        ("text/sig%2Bjson", "text/sig+json", 2),
        ("text/config", "text/config", 1),
        ("text/other", "text/other", 0),
    ] {
        let query = format!("{target}?artifactType={written}");
        let answer = stack.client.get(&token, &query).await.expect(200);
        assert_eq!(answer.header("oci-filters-applied"), "artifactType");
        let matching: Vec<_> =
            referrers.iter().filter(|it| it["artifactType"] == wanted).cloned().collect();
        assert_eq!(matching.len(), count);
        assert_eq!(answer.json()["manifests"], json!(matching), "{written}");
        let pages = pages(&stack.client, &token, &format!("{query}&n=1"), "manifests").await;
        assert_eq!(pages.concat(), matching, "{written}");
    }
}

#[tokio::test]
async fn referrers_of_the_unknown_are_an_empty_index() {
    let (stack, token, _) = with_tags(&["v1"]).await;
    let elsewhere = stack.forged_token("andrew", &["repository:nowhere:pull"]);
    let digest = digest_of(b"nobody");
    for (token, name) in [(&token, "app"), (&elsewhere, "nowhere")] {
        let target = format!("/v2/{name}/referrers/{digest}");
        let answer = stack.client.get(token, target).await.expect(200);
        assert_eq!(answer.header("content-type"), INDEX);
        let empty = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] });
        assert_eq!(answer.json(), empty);
    }
    let answer = stack.client.get(&token, "/v2/app/referrers/sha256:short").await;
    answer.expect_error(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn a_deleted_referrer_is_gone_and_a_deleted_subject_keeps_its_own() {
    let (stack, token, target, mut referrers) = with_referrers().await;
    let gone = referrers.remove(0);
    let digest = gone["digest"].as_str().expect("a digest");
    stack.client.delete(&token, format!("/v2/app/manifests/{digest}")).await.expect(202);
    stack.client.delete(&token, target.replace("referrers", "manifests")).await.expect(202);
    let answer = stack.client.get(&token, &target).await.expect(200);
    assert_eq!(answer.json()["manifests"], json!(referrers));
}

/// Scripts ask for the header of a list to find the realm, or the next page.
#[tokio::test]
async fn the_head_of_a_list_is_that_of_its_get() {
    let (stack, token, target, _) = with_referrers().await;
    let token_to_list = stack.forged_token("andrew", &["registry:catalog:*"]);
    stack.grant("andrew", "app:pull").await;
    for (target, token) in [
        ("/v2/app/tags/list?n=0".to_owned(), &token),
        ("/v2/_catalog".to_owned(), &token_to_list),
        (format!("{target}?n=1"), &token),
    ] {
        let get = stack.client.get(token, &target).await.expect(200);
        let head = stack.client.call("HEAD", &target).bearer(token).send().await.expect(200);
        for name in ["content-type", "content-length", "link"] {
            assert_eq!(head.find_header(name), get.find_header(name), "{name} of {target}");
        }
        assert!(head.body.is_empty() && !get.body.is_empty(), "{target}");
        let challenge = stack.client.call("HEAD", &target).send().await.expect(401);
        assert!(challenge.header("www-authenticate").starts_with("Bearer realm="), "{target}");
    }
}

//! Advisories on reading, changing or finding out what one must not; see `advisories`.

use harness::{
    Secret, Stack,
    image::{INDEX, Image, MANIFEST, digest_of, push_blob, put_manifest, start_upload},
    stack::PASSWORD,
    upload::{commit, commit_target, patch},
};
use serde_json::json;

use crate::oracle::raw_get;

/// Whoever could push to some repository of zot could mount any blob by its digest, and read it.
#[tokio::test]
async fn cve_2024_39897_a_digest_is_no_right_to_a_blob() {
    let Secret { stack, image, .. } = Secret::start().await;
    let token = stack.forged_token("andrew", &["repository:target:*"]);
    let digest = digest_of(&image.layer);
    let blob = format!("/v2/target/blobs/{digest}");
    let uploads = "/v2/target/blobs/uploads/";
    for query in ["", "&from=secret", "&from=target"] {
        let call = stack.client.call("POST", format!("{uploads}?mount={digest}{query}"));
        call.bearer(&token).send().await.expect(202);
        stack.client.head(&token, &blob).await.expect(404);
        stack.client.get(&token, &blob).await.expect_error(404, "BLOB_UNKNOWN");
    }
    // Nor can a manifest name it into the repository.
    push_blob(&stack.client, &token, "target", &image.config).await;
    let bytes = image.manifest.clone();
    let named = put_manifest(&stack.client, &token, "target", "v1", MANIFEST, bytes).await;
    named.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    stack.client.head(&token, &blob).await.expect(404);
}

/// An upload must not succeed because another repository holds the digest: the bytes have to come.
#[tokio::test]
async fn existence_by_upload_the_bytes_have_to_come() {
    let Secret { stack, image, .. } = Secret::start().await;
    let token = stack.forged_token("andrew", &["repository:target:*"]);
    let digest = digest_of(&image.layer);
    let target = format!("/v2/target/blobs/uploads/?digest={digest}");
    for body in ["", "other bytes"] {
        let call = stack.client.call("POST", &target).bearer(&token).body(body);
        call.send().await.expect_error(400, "DIGEST_INVALID");
        let location = start_upload(&stack.client, &token, "target").await;
        let committed = commit(&stack.client, &token, &location, &digest, body).await;
        committed.expect_error(400, "DIGEST_INVALID");
        stack.client.head(&token, format!("/v2/target/blobs/{digest}")).await.expect(404);
    }
    push_blob(&stack.client, &token, "target", &image.layer).await;
}

/// distribution's cache made blobs readable again that had been deleted from the repository.
#[tokio::test]
async fn cve_2026_35172_what_was_deleted_here_is_gone_though_it_is_elsewhere() {
    let Secret { stack, image, .. } = Secret::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    image.push(&stack.client, &token, "app", "v1").await;
    let blob = format!("/v2/app/blobs/{}", digest_of(&image.layer));
    let manifest = format!("/v2/app/manifests/{}", image.digest());
    for target in [&manifest, &blob] {
        for _ in 0..3 {
            stack.client.get(&token, target).await.expect(200);
        }
        stack.client.delete(&token, target).await.expect(202);
        for _ in 0..3 {
            stack.client.get(&token, target).await.expect(404);
            stack.client.head(&token, target).await.expect(404);
        }
    }
    stack.client.get(&token, "/v2/app/manifests/v1").await.expect(404);
}

/// In Quay, whoever knew the id of an upload could read, change and cancel it from any repository.
#[tokio::test]
async fn cve_2026_32589_an_upload_is_of_one_subject_in_one_repository() {
    let Secret { stack, location, .. } = Secret::start().await;
    let scopes = ["repository:secret:*", "repository:other:*"];
    let (owner, stranger) =
        (stack.forged_token("owner", &scopes), stack.forged_token("stranger", &scopes));
    let nobody = stack.forged_token("", &scopes);
    patch(&stack.client, &owner, &location, None, "mine").await.expect(202);
    let elsewhere = location.replace("/secret/", "/other/");
    let digest = digest_of(b"mine");
    for (token, location) in [
        (&stranger, &location),
        (&nobody, &location),
        (&stranger, &elsewhere),
        (&owner, &elsewhere),
    ] {
        for method in ["GET", "PATCH", "PUT", "DELETE"] {
            let call = stack.client.call(method, commit_target(location, &digest)).bearer(token);
            call.send().await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        }
    }
    assert_eq!(stack.client.get(&owner, &location).await.expect(204).header("range"), "0-3");
    commit(&stack.client, &owner, &location, &digest, "").await.expect(201);
}

/// Every way to write a path that servers in front, or routers, have been known to read as another.
fn spellings(path: &str) -> Vec<String> {
    vec![
        format!("/v2//{path}"),
        format!("//v2/{path}"),
        format!("/v2/./{path}"),
        format!("/v2/..;/v2/{path}"),
        format!("/v2/..%3b/v2/{path}"),
        format!("/v2/%2e%2e/v2/{path}"),
        format!("/v2/%2e/{path}"),
        format!("/v2/x/../{path}"),
        format!("/token/../v2/{path}"),
        format!("/healthz/..;/v2/{path}"),
        format!("/v2%2f{path}"),
        format!("/v2/{}", path.replace('/', "%2f")),
        format!("/v2/{}", path.replace('/', "%2F")),
        format!("/v2/{}", path.replace('/', "//")),
        format!("/v2/{}", path.replace('/', "\\")),
        format!("/v2/{}", path.replacen('e', "%65", 1).replacen('c', "%63", 1)),
        format!("/V2/{path}"),
        format!("/v2;x=1/{path}"),
        format!("/v2/{path}."),
        format!("/v2/{path}.."),
        format!("/v2/{path}./"),
        format!("/v2/{path}/"),
        format!("/v2/{path}//"),
        format!("/v2/{path};"),
        format!("/v2/{path};.json"),
        format!("/v2/{path}.json"),
        format!("/v2/{path}%20"),
        format!("/v2/{path}%00"),
        format!("/v2/{path}%2f"),
        format!("/v2/{path}%3fx"),
        format!("/v2/{path}?"),
        format!("/v2/{path}?_method=GET"),
    ]
}

/// Harbor's catalog could be had by a path that its check of credentials did not know.
#[tokio::test]
async fn cve_2020_29662_no_spelling_of_a_path_goes_around_the_check() {
    let Secret { stack, image, .. } = Secret::start().await;
    let stranger = stack.forged_token("andrew", &["repository:public:*", "registry:catalog:*"]);
    for path in [
        "_catalog".to_owned(),
        "secret/tags/list".to_owned(),
        "secret/manifests/v1".to_owned(),
        format!("secret/blobs/{}", digest_of(&image.layer)),
        format!("secret/referrers/{}", image.digest()),
    ] {
        for spelling in spellings(&path) {
            let answer = raw_get(&stack, &spelling, None).await;
            let status = answer.status.as_u16();
            assert!([400, 401, 404].contains(&status), "{spelling}: {status}");
            let answer = raw_get(&stack, &spelling, Some(&stranger)).await;
            // An empty catalog is what there is to see.
            let shows = answer.status == 200 && answer.json() != json!({ "repositories": [] });
            assert!(!shows && answer.status.as_u16() < 500, "{spelling}: {answer:?}");
        }
    }
}

/// distribution made room for as many names as the client asked for.
#[tokio::test]
async fn cve_2023_2253_a_page_has_its_limit_whatever_is_asked_for() {
    let stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let image = Image::new("tagged");
    image.push(&stack.client, &token, "app", "last").await;
    for batch in 0..17 {
        let tags: Vec<String> = (0..60).map(|n| format!("tag=t{}", batch * 60 + n)).collect();
        let reference = format!("{}?{}", image.digest(), tags.join("&"));
        let bytes = image.manifest.clone();
        put_manifest(&stack.client, &token, "app", &reference, MANIFEST, bytes).await.expect(201);
    }
    for n in ["1001", "2147483648", "9223372036854775807", "18446744073709551616", &"9".repeat(99)]
    {
        let answer = stack.client.get(&token, format!("/v2/app/tags/list?n={n}")).await.expect(200);
        assert_eq!(answer.json()["tags"].as_array().map(Vec::len), Some(1000), "{n}");
        assert!(answer.header("link").starts_with("</v2/app/tags/list?n=1000&last="));
        stack.client.get(&token, format!("/v2/_catalog?n={n}")).await.expect(200);
        let referrers = format!("/v2/app/referrers/{}?n={n}", image.digest());
        stack.client.get(&token, referrers).await.expect(200);
    }
}

/// Catalogs list private names, referrers tell of signatures, and an index leads to manifests of
/// another repository: three ways to learn of what may not be pulled.
#[tokio::test]
async fn lists_and_indexes_lead_nowhere_that_may_not_be_pulled() {
    let Secret { stack, image, .. } = Secret::start().await;
    let owner = stack.forged_token("owner", &["repository:secret:*"]);
    stack.grant("andrew", "public:*").await;
    let token = stack.token("andrew", &["repository:public:*"]).await;
    let subject = json!({ "mediaType": MANIFEST, "digest": image.digest().as_str(),
        "size": image.manifest.len() });
    let signature = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [],
        "artifactType": "text/signature", "subject": subject });
    let bytes = signature.to_string();
    put_manifest(&stack.client, &owner, "secret", "sig", INDEX, bytes.into()).await.expect(201);
    image.push(&stack.client, &token, "public", "v1").await;
    let referrers = format!("/v2/public/referrers/{}", image.digest());
    let listed = stack.client.get(&token, referrers).await.expect(200);
    assert_eq!(listed.json()["manifests"], json!([]));
    let catalog = stack.client.get(&token, "/v2/_catalog").await.expect(200);
    assert_eq!(catalog.json()["repositories"], json!(["public"]));
    stack
        .client
        .delete(&token, format!("/v2/public/manifests/{}", image.digest()))
        .await
        .expect(202);
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [subject] });
    let bytes = index.to_string();
    let pushed = put_manifest(&stack.client, &token, "public", "all", INDEX, bytes.into()).await;
    pushed.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
}

/// Names and digests that would be paths if anybody took them for some.
#[tokio::test]
async fn path_traversal_names_and_digests_are_of_their_grammar() {
    let stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    for name in
        ["a/../../x", "..", "_uploads", "a/_manifests", "a%2f..%2fx", "%2e%2e/x", "a%00", "a/.b"]
    {
        let call = stack.client.call("POST", format!("/v2/{name}/blobs/uploads/")).bearer(&token);
        call.send().await.expect_error(400, "NAME_INVALID");
    }
    for digest in ["sha256:../../../etc/passwd", "../x:aa", "sha256:%2e%2e", "sha256:"] {
        let call = stack.client.call("POST", format!("/v2/app/blobs/uploads/?digest={digest}"));
        call.bearer(&token).send().await.expect_error(400, "DIGEST_INVALID");
        // What cannot be mounted is uploaded.
        let call = stack.client.call("POST", format!("/v2/app/blobs/uploads/?mount={digest}"));
        call.bearer(&token).send().await.expect(202);
    }
    assert!(stack.objects().is_empty());
}

/// Whoever could create tags in zot could also move those that were there.
#[tokio::test]
async fn cve_2026_31801_a_tag_is_moved_by_who_may_push_alone() {
    let Secret { stack, image, .. } = Secret::start().await;
    let other = Image::new("other");
    let owner = stack.forged_token("owner", &["repository:secret:*"]);
    other.push(&stack.client, &owner, "secret", "v2").await;
    for scope in [
        "repository:secret:pull",
        "repository:secret:delete",
        "repository:secret:pull,delete",
        "repository:secret:create",
        "repository:secret/v1:*",
        "repository:public:*",
    ] {
        let token = stack.forged_token("andrew", &[scope]);
        for reference in ["v1", "new"] {
            let bytes = other.manifest.clone();
            let answer =
                put_manifest(&stack.client, &token, "secret", reference, MANIFEST, bytes).await;
            answer.expect_error(401, "UNAUTHORIZED");
        }
    }
    let v1 = stack.client.get(&owner, "/v2/secret/manifests/v1").await.expect(200);
    assert_eq!(v1.body, image.manifest);
    stack.client.get(&owner, "/v2/secret/manifests/new").await.expect(404);
}

/// distribution's switch for deleting did not count for tags.
#[tokio::test]
async fn cve_2026_41888_every_kind_of_delete_needs_the_right_to_delete() {
    let Secret { stack, image, .. } = Secret::start().await;
    let pusher = stack.forged_token("owner", &["repository:secret:pull,push"]);
    let deleter = stack.forged_token("owner", &["repository:secret:delete"]);
    let layer = digest_of(&image.layer);
    for path in
        ["manifests/v1", &format!("manifests/{}", image.digest()), &format!("blobs/{layer}")]
    {
        let target = format!("/v2/secret/{path}");
        stack.client.delete(&pusher, &target).await.expect_error(401, "UNAUTHORIZED");
        stack.client.get(&pusher, &target).await.expect(200);
        stack.client.get(&deleter, &target).await.expect_error(401, "UNAUTHORIZED");
        stack.client.delete(&deleter, &target).await.expect(202);
        stack.client.get(&pusher, &target).await.expect(404);
    }
}

/// Gitea served blobs with the content type that their uploader had named, so a blob could be a
/// page with a script on the origin of the user interface.
#[tokio::test]
async fn cve_2026_103667_no_content_is_a_page() {
    let stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let page = "<script>alert(1)</script>";
    let digest = digest_of(page.as_bytes());
    let call = stack.client.call("POST", format!("/v2/app/blobs/uploads/?digest={digest}"));
    let call = call.bearer(&token).header("content-type", "text/html").body(page);
    call.send().await.expect(201);
    let call = stack.client.call("GET", format!("/v2/app/blobs/{digest}")).bearer(&token);
    let answer = call.header("accept", "text/html").send().await.expect(200);
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("content-security-policy"), "default-src 'none'; sandbox");
    let manifest = json!({ "schemaVersion": 2, "layers": [], "annotations": { "a": page } });
    let bytes = || manifest.to_string().into();
    let put = put_manifest(&stack.client, &token, "app", "v1", "text/html", bytes()).await;
    put.expect_error(400, "MANIFEST_INVALID");
    put_manifest(&stack.client, &token, "app", "v1", MANIFEST, bytes()).await.expect(201);
    for path in ["manifests/v1", "manifests/%3Cscript%3E", "tags/list", "%3Cscript%3E"] {
        let answer = stack.client.get(&token, format!("/v2/app/{path}")).await;
        assert!(!answer.header("content-type").contains("html"), "{answer:?}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
}

/// A user of Harbor whose name began as robots' do could take the place of one. Here there is one
/// space of names, and those with a meaning of their own are nobody's.
#[tokio::test]
async fn harbor_23675_reserved_names_are_nobodys() {
    let stack = Stack::start().await;
    let hash = bcrypt::hash(PASSWORD, 4).expect("a hash");
    let path = stack.root().join("htpasswd");
    let mut text = std::fs::read_to_string(&path).expect("the users");
    let names = ["anonymous", "everyone", "robot.ci", "group:team", "robot$ci"];
    for name in names {
        text.push_str(&format!("{name}:{hash}\n"));
    }
    text.push_str(&format!("bea:{hash}\n"));
    std::fs::write(path, text).expect("writing");
    stack.client.call("GET", "/token").basic("bea", PASSWORD).send().await.expect(200);
    for name in names {
        let call = stack.client.call("GET", "/token").basic(name, PASSWORD);
        call.send().await.expect_error(401, "UNAUTHORIZED");
        // A robot's name is good in a token: auth-server gives it to who has the robot's secret.
        if name.starts_with("robot.") {
            continue;
        }
        let token = stack.forged_token(name, &["repository:app:*"]);
        stack.client.get(&token, "/v2/").await.expect_error(401, "UNAUTHORIZED");
    }
}

//! Advisories on clients, as far as they shape the server; see `advisories`.

use std::net::TcpListener;

use harness::{
    Raw, Secret, Stack,
    image::{Image, MANIFEST, digest_of, push_blob, put_manifest},
};
use serde_json::{Value, json};

use crate::{config, tokens::routes};

/// containerd took a layer's URL out of the manifest and sent it the registry's credentials. The
/// registry itself goes nowhere for such a layer, and needs it from nobody.
#[tokio::test]
async fn cve_2020_15157_urls_of_layers_are_neither_fetched_nor_required() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let url = format!("http://{}/layer", elsewhere.local_addr().unwrap());
    let stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let image = Image::new("foreign");
    push_blob(&stack.client, &token, "app", &image.config).await;
    let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    let layer = &mut manifest["layers"][0];
    layer["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
    layer["urls"] = json!([url]);
    let bytes = manifest.to_string();
    put_manifest(&stack.client, &token, "app", "v1", MANIFEST, bytes.into()).await.expect(201);
    stack.client.get(&token, "/v2/app/manifests/v1").await.expect(200);
    let layer = format!("/v2/app/blobs/{}", digest_of(&image.layer));
    let answer = stack.client.get(&token, layer).await.expect_error(404, "BLOB_UNKNOWN");
    assert_eq!(answer.find_header("location"), None);
    assert!(elsewhere.accept().is_err(), "the registry came for the layer");
}

/// containers/image could be sent to a token server without TLS.
#[test]
fn cve_2019_10214_a_realm_is_never_plain_http() {
    for line in ["public_urls = ['http://reg.test']", "public_urls = ['http://192.0.2.1:5000']"] {
        config::registry(&format!("listen = '127.0.0.1:0'\n{line}\n")).expect_err(line);
    }
    let foreign = "[foreign_issuer]\nrealm = 'http://auth.test/token'\njwks = 'keys'\n";
    config::registry(&format!("{}{foreign}", config::REGISTRY)).expect_err(foreign);
}

/// oras-go went to any realm, such as a cloud's metadata service. Clients refuse more hosts every
/// month, so the realm is on the origin that was asked.
#[tokio::test]
async fn cve_2026_48978_the_realm_is_on_the_origin_that_was_asked() {
    let stack = Stack::start().await;
    for host in ["reg.test", "other.test:5000"] {
        let mut raw = Raw::connect(&stack.client).await;
        raw.send(format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await;
        let challenge = raw.answer("/v2/", false).await.expect(401);
        let realm = format!("Bearer realm=\"https://{host}/token\",");
        assert!(challenge.header("www-authenticate").starts_with(&realm), "{challenge:?}");
    }
    let scope = "/token?scope=repository:a:pull";
    stack.client.call("GET", scope).send().await.expect(200);
}

/// oras-go answered the challenge of a redirect's target with the registry's credentials.
#[tokio::test]
async fn ghsa_vh4v_2xq2_g5cg_nothing_is_redirected() {
    let Secret { stack, image, .. } = Secret::start().await;
    let scopes = ["repository:secret:*", "repository:team/app:*"];
    let token = stack.forged_token("owner", &scopes);
    let layer = digest_of(&image.layer);
    let mut all: Vec<(&str, String)> =
        routes().into_iter().map(|(method, target, _)| (method, target)).collect();
    for target in ["manifests/v1", &format!("blobs/{layer}"), "tags/list"] {
        all.push(("GET", format!("/v2/secret/{target}")));
    }
    all.push(("POST", "/v2/team/app/blobs/uploads/".to_owned()));
    all.push(("POST", format!("/v2/team/app/blobs/uploads/?mount={layer}&from=secret")));
    all.extend(["/v2/secret", "/v2/secret/tags", "/token/", "/"].map(|it| ("GET", it.to_owned())));
    for (method, target) in all {
        let call = stack.client.call(method, &target);
        for call in [call.clone(), call.bearer(&token)] {
            let answer = call.try_send().await.unwrap();
            assert!(!answer.status.is_redirection(), "{method} {target}: {answer:?}");
            let location = answer.find_header("location").unwrap_or("/v2/");
            assert!(location.starts_with("/v2/"), "{method} {target}: {location}");
        }
    }
}

/// The realm was made of whatever host a client, or anybody before it, had written.
#[tokio::test]
async fn artifact_keeper_4020_the_realm_is_not_made_of_forged_headers() {
    let stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    for (authorization, status) in [("X-None: 1".to_owned(), 401), (bearer_line(&token), 202)] {
        let mut raw = Raw::connect(&stack.client).await;
        let request = format!(
            "POST /v2/app/blobs/uploads/ HTTP/1.1\r\nHost: evil.test\r\n{authorization}\r\n\
             X-Forwarded-Host: evil.test\r\nX-Forwarded-Proto: http\r\nX-Host: evil.test\r\n\
             Forwarded: host=evil.test;proto=http\r\nContent-Length: 0\r\n\r\n"
        );
        raw.send(request.as_bytes()).await;
        let answer = raw.answer("/v2/", false).await.expect(status);
        assert!(!format!("{answer:?}").contains("evil"), "{answer:?}");
    }
}

fn bearer_line(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

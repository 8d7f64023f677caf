//! What has gone wrong elsewhere must not go wrong here: a test for each advisory on a registry, a
//! token server or a client that this design could share. Those of clients are in
//! `advisories_clients`, those on reading what one must not read in `advisories_reading`.
//!
//! These do not apply:
//! - CVE-2026-33540 (credentials for an upstream's realm): there is no pull-through proxy.
//! - CVE-2026-24845, CVE-2026-12566 and their kin follow any realm: faults of clients, whose
//!   remedy asks of a registry what CVE-2026-48978 does.
//! - CVE-2025-23208 (groups that are never left): there are no groups.
//! - CVE-2022-31666 to CVE-2022-31671, CVE-2024-22278 (objects and fields of an administration
//!   interface): there is none; `authctl` works on files with their owner's rights.
//! - CVE-2026-109194, CVE-2025-4374, CVE-2024-5891 (build triggers, organisations of a proxy cache,
//!   OAuth applications), robots of another project (CVE-2019-16919) and federated robots: there
//!   are none of these. Names that robots may have one day are kept free, see harbor#23675.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use harness::{
    Forger, Response, Secret, Stack,
    events::Recording,
    forger::{hs256, merge},
    image::{Image, digest_of, start_upload},
    stack::{Options, PASSWORD},
};
use rcgen::PublicKeyData;
use serde_json::{Value, json};

use crate::{
    config,
    foreign_issuer::{Registry, Signer},
    revocation::revoke,
    tokens::{Needs, Verdict, bearer, try_all},
};

const INVALID: &str = "error=\"invalid_token\"";

async fn ping(stack: &Stack, token: &str) -> Response {
    stack.client.get(token, "/v2/").await
}

#[track_caller]
fn invalid(answer: &Response, case: &str) {
    assert_eq!(answer.status.as_u16(), 401, "{case}");
    assert!(answer.header("www-authenticate").ends_with(INVALID), "{case}: {answer:?}");
}

/// A stack, its own key, and claims that would be good.
async fn with_forger() -> (Stack, Forger, Value) {
    let stack = Stack::start().await;
    let claims = stack.good_claims("andrew", &["repository:team/app:*"]);
    let claims = serde_json::to_value(claims).unwrap();
    let own = Forger::of(&stack);
    ping(&stack, &own.sign(&own.header(), &claims)).await.expect(200);
    (stack, own, claims)
}

// Forged tokens and their validation.

/// distribution compared the id of the key in the header with the ids it trusted, and verified
/// with the key in the header.
#[tokio::test]
async fn cve_2025_24976_a_key_in_the_header_is_not_trusted() {
    let (stack, own, claims) = with_forger().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let attacker = Forger::from_der(&key.serialize_der(), &own.id);
    let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
    let chain = json!([STANDARD.encode(certificate.der())]);
    for more in [
        json!({}),
        json!({ "jwk": attacker.jwk() }),
        json!({ "x5c": chain }),
        json!({ "jwk": attacker.jwk(), "x5c": chain, "jku": "https://127.0.0.1:1/keys" }),
    ] {
        let token = attacker.sign(&merge(own.header(), more.clone()), &claims);
        invalid(&ping(&stack, &token).await, &more.to_string());
    }
}

/// node-jose verified with the key that the header brought along.
#[tokio::test]
async fn cve_2018_0114_a_token_does_not_bring_its_own_key() {
    let (stack, _, claims) = with_forger().await;
    let attacker = Forger::attacker("mine");
    for header in [
        json!({ "alg": "ES256", "jwk": attacker.jwk() }),
        json!({ "alg": "ES256", "jwk": attacker.jwk(), "kid": "mine" }),
        json!({ "alg": "ES256", "jwk": attacker.jwk(), "kid": "" }),
    ] {
        invalid(&ping(&stack, &attacker.sign(&header, &claims)).await, &header.to_string());
    }
}

/// Libraries took the public key, which everybody has, as the secret of an HMAC.
#[tokio::test]
async fn cve_2015_9235_a_public_key_is_no_secret() {
    for signer in [Signer::es256(), Signer::rs256()] {
        let pem = signer.self_signed().pem();
        let registry = Registry::trusting("certificates", &pem).await;
        let claims = registry.claims("andrew", &[]);
        let good = signer.sign(json!({ "kid": signer.libtrust_id() }), &claims);
        assert_eq!(registry.ping(&good).await, 200);
        let claims = serde_json::to_value(claims).unwrap();
        let key = &signer.key;
        let (text, der) = (key.public_key_pem(), key.subject_public_key_info());
        for secret in [text.as_bytes(), text.trim().as_bytes(), &der, key.der_bytes(), b""] {
            let token = hs256(&signer.libtrust_id(), &claims, secret);
            invalid(&ping(&registry.stack, &token).await, signer.algorithm);
        }
        let token = hs256(&signer.libtrust_id(), &claims, pem.as_bytes());
        invalid(&ping(&registry.stack, &token).await, signer.algorithm);
    }
}

/// distribution takes every algorithm from HS256 to PS512 unless told otherwise.
#[tokio::test]
async fn distribution_algorithms_each_key_has_one() {
    let (stack, own, claims) = with_forger().await;
    for algorithm in ["HS256", "HS512", "RS256", "PS512", "ES384", "EdDSA", "none", "es256", ""] {
        let header = merge(own.header(), json!({ "alg": algorithm }));
        invalid(&ping(&stack, &own.sign(&header, &claims)).await, algorithm);
    }
}

/// `jsonwebtoken` skipped the check of a claim of the wrong type, as if it had not been there.
#[tokio::test]
async fn cve_2026_25537_a_claim_of_another_type_is_not_skipped() {
    let (stack, own, claims) = with_forger().await;
    let now = stack.clock.now();
    for wrong in [
        json!({ "exp": (now - 9000).get().to_string() }),
        json!({ "exp": (now + 9000).get().to_string() }),
        json!({ "exp": [now + 900] }),
        json!({ "nbf": (now + 9000).get().to_string() }),
        json!({ "nbf": null }),
        json!({ "iat": { "at": now } }),
        json!({ "aud": 1 }),
        json!({ "aud": ["berth", 1] }),
    ] {
        let token = own.sign(&own.header(), &merge(claims.clone(), wrong.clone()));
        invalid(&ping(&stack, &token).await, &wrong.to_string());
    }
}

/// By default `jsonwebtoken` takes tokens without `iss` and `aud`, with `nbf` in the future, and
/// with a list as `iss`.
#[tokio::test]
async fn jsonwebtoken_defaults_are_not_relied_on() {
    let (stack, own, claims) = with_forger().await;
    for name in ["iss", "aud", "sub", "exp", "nbf", "iat", "jti"] {
        let mut without = claims.clone();
        without.as_object_mut().unwrap().remove(name);
        invalid(&ping(&stack, &own.sign(&own.header(), &without)).await, name);
    }
    let future = stack.clock.now() + 61;
    for wrong in [json!({ "nbf": future }), json!({ "iat": future }), json!({ "iss": ["berth"] })] {
        let token = own.sign(&own.header(), &merge(claims.clone(), wrong.clone()));
        invalid(&ping(&stack, &token).await, &wrong.to_string());
    }
}

/// docker_auth writes into `aud` whatever the client calls the service, so a token for one
/// registry could be had for another with the same key.
#[tokio::test]
async fn docker_auth_aud_is_of_a_list_and_looked_at() {
    let auth = "services = ['berth', 'other']".to_owned();
    let stack = Stack::with(Options { auth, ..Options::default() }).await;
    let ask = |service: &str| {
        let target = format!("/token?service={service}");
        stack.client.call("GET", target).basic("andrew", PASSWORD).send()
    };
    let token = |answer: Response| answer.json()["token"].as_str().unwrap().to_owned();
    ping(&stack, &token(ask("berth").await.expect(200))).await.expect(200);
    invalid(&ping(&stack, &token(ask("other").await.expect(200))).await, "another's token");
    ask("elsewhere").await.expect_error(400, "UNSUPPORTED");
}

/// zot asked neither who had issued a token nor for whom.
#[tokio::test]
async fn zot_bearer_issuer_and_audience_are_both_checked() {
    let (stack, own, claims) = with_forger().await;
    for wrong in [
        json!({ "iss": "other" }),
        json!({ "aud": "other" }),
        json!({ "aud": ["other"] }),
        json!({ "iss": "", "aud": "" }),
    ] {
        let token = own.sign(&own.header(), &merge(claims.clone(), wrong.clone()));
        invalid(&ping(&stack, &token).await, &wrong.to_string());
    }
}

/// Harbor was installed with a key that everybody could look up (GHSA-5jw3-3rpx-7p27 as well).
#[tokio::test]
async fn ghsa_j7jh_fmcm_xxwv_every_installation_has_a_key_of_its_own() {
    let (one, other) = (Stack::start().await, Stack::start().await);
    assert_ne!(one.auth.key_id(), other.auth.key_id());
    invalid(&ping(&other, &one.forged_token("andrew", &[])).await, "the other's token");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let keys = one.root().join("auth/keys");
    assert_eq!((mode(&one.root().join("auth")), mode(&keys)), (0o700, 0o700));
    for entry in fs::read_dir(keys).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    for (path, text) in shipped() {
        assert!(!text.contains("PRIVATE KEY-----"), "a key is shipped in {path}");
    }
}

/// Every file that an installation begins with.
fn shipped() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut left = ["deploy", "Dockerfile", "compose.yaml"].map(|name| root.join(name)).to_vec();
    let mut found = Vec::new();
    while let Some(path) = left.pop() {
        match fs::read_dir(&path) {
            Ok(folder) => left.extend(folder.map(|entry| entry.unwrap().path())),
            Err(_) => found
                .push((path.display().to_string(), fs::read_to_string(&path).unwrap_or_default())),
        }
    }
    assert!(found.len() > 5, "the files were not found");
    found
}

/// A token minted for a deleted project of Harbor worked for the next one of that name. Here
/// rights are not made with a repository; what comes and goes is the user.
#[tokio::test]
async fn harbor_22900_a_token_is_not_good_for_the_next_of_that_name() {
    let stack = Stack::start().await;
    stack.set_password("bea", PASSWORD);
    let token = stack.token("andrew", &[]).await;
    ping(&stack, &token).await.expect(200);
    let path = stack.root().join("htpasswd");
    let users = fs::read_to_string(&path).unwrap();
    let bea: Vec<&str> = users.lines().filter(|line| line.starts_with("bea:")).collect();
    fs::write(&path, format!("{}\n", bea.join("\n"))).unwrap();
    harness::eventually("the token is void", async || {
        (ping(&stack, &token).await.status == 401).then_some(())
    })
    .await;
    stack.set_password("andrew", PASSWORD);
    ping(&stack, &stack.token("andrew", &[]).await).await.expect(200);
    invalid(&ping(&stack, &token).await, "the token of the first andrew");
}

/// Harbor did not look at the right to the source of a mount again.
#[tokio::test]
async fn harbor_23270_a_mount_needs_the_right_as_it_is_now() {
    let Secret { stack, image, .. } = Secret::start().await;
    stack.grant("andrew", "secret:pull").await;
    stack.grant("andrew", "target:push").await;
    let scopes = ["repository:secret:pull", "repository:target:pull,push"];
    let token = stack.token("andrew", &scopes).await;
    let mount = async |token: &str, bytes: &[u8]| {
        let digest = digest_of(bytes);
        let target = format!("/v2/target/blobs/uploads/?mount={digest}&from=secret");
        stack.client.call("POST", target).bearer(token).send().await
    };
    mount(&token, &image.config).await.expect(201);
    revoke(&stack, "andrew", "secret:pull").await;
    harness::eventually("the token is void", async || {
        (mount(&token, &image.config).await.status == 401).then_some(())
    })
    .await;
    let token = stack.token("andrew", &scopes).await;
    mount(&token, &image.layer).await.expect(202);
}

/// Gitea gave anybody a token without scope that opened private packages, and listed them.
#[tokio::test]
async fn cve_2026_27771_anonymous_gets_nowhere_that_is_not_public() {
    let Secret { stack, .. } = Secret::start().await;
    try_all(&stack, "no token", &[], |_| Verdict::NoToken).await;
    for scope in ["repository:team/app:pull,push,delete", "registry:catalog:*", "repository:**:*"] {
        let token = stack.token("", &[scope]).await;
        let verdict = |needs| match needs {
            Needs::Nothing | Needs::Catalog => Verdict::Through,
            _ => Verdict::Insufficient,
        };
        try_all(&stack, scope, &bearer(&token), verdict).await;
        let catalog = stack.client.get(&token, "/v2/_catalog").await.expect(200);
        assert_eq!(catalog.json()["repositories"], json!([]));
    }
    stack.client.call("GET", "/token").send().await.expect(401);
}

/// Gitea did not check a restricted token against the source of a mount.
#[tokio::test]
async fn cve_2026_117685_a_mount_needs_the_right_to_its_source() {
    let Secret { stack, image, .. } = Secret::start().await;
    let token = stack.forged_token("andrew", &["repository:target:*"]);
    let digest = digest_of(&image.layer);
    for query in [format!("mount={digest}&from=secret"), format!("mount={digest}")] {
        let target = format!("/v2/target/blobs/uploads/?{query}");
        stack.client.call("POST", target).bearer(&token).send().await.expect(202);
        stack.client.head(&token, format!("/v2/target/blobs/{digest}")).await.expect(404);
    }
}

/// Gitea believed every peer to be its proxy, and so whatever name stood in a header.
#[tokio::test]
async fn cve_2026_20896_no_proxy_is_trusted_unless_named() {
    for everybody in ["0.0.0.0/0", "::/0"] {
        let line = format!("trusted_proxies = ['{everybody}']\n");
        config::registry(&format!("{}{line}", config::REGISTRY)).expect_err(everybody);
    }
    let named = "trusted_proxies = ['127.0.0.1/32']".to_owned();
    let recording = Recording::start();
    for (registry, name, is_believed) in [(String::new(), "far", false), (named, "near", true)] {
        let stack = Stack::with(Options { registry, ..Options::default() }).await;
        let path = format!("/v2/proxied/{name}/tags/list");
        let mut call = stack.client.call("GET", &path).header("x-forwarded-for", "203.0.113.66");
        for header in ["x-webauth-user", "x-forwarded-user", "remote-user"] {
            call = call.header(header, "andrew");
        }
        call.send().await.expect(401);
        let logged = harness::eventually("the request is logged", async || {
            recording.take().into_iter().find(|event| event.text.contains(&path))
        });
        assert_eq!(logged.await.text.contains("203.0.113.66"), is_believed);
    }
}

/// The crate `rsa` betrays a private key by the time that it takes. No token is signed with RSA.
#[tokio::test]
async fn rustsec_2023_0071_no_private_key_is_of_rsa() {
    for algorithm in ["RS256", "PS256"] {
        config::auth(&format!("key_algorithm = '{algorithm}'")).expect_err(algorithm);
    }
    let stack = Stack::start().await;
    let keys: Value = serde_json::from_str(stack.signing_keys().jwks()).unwrap();
    assert!(keys["keys"].as_array().unwrap().iter().all(|key| key["kty"] == "EC"), "{keys}");
}

/// What a client writes into a scope must not reach rules, log or token as anything but a name.
#[tokio::test]
async fn scope_injection_names_and_actions_are_of_their_grammar() {
    let stack = Stack::start().await;
    stack.grant("andrew", "**:*").await;
    for scope in [
        "repository:**:pull",
        "repository:team/*:pull",
        "repository:../../a:pull",
        "repository:a%0d%0aX-Header:pull",
        "repository:a%22,%22b:pull",
        "repository:a%00:pull",
        "repository:a:PULL,admin",
        "registry:catalog:pull",
        "registry:**:*",
        "admin:**:*",
        "*:*:*",
    ] {
        let call = stack.client.call("GET", format!("/token?scope={scope}"));
        let answer = call.basic("andrew", PASSWORD).send().await.expect(200);
        assert_eq!(answer.json()["scope"], "", "{scope}");
        let token = answer.json()["token"].as_str().unwrap().to_owned();
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["access"], json!([]), "{scope}");
    }
}

// Administration.

/// Whoever signed up at Harbor could make themselves an administrator by one more field.
#[tokio::test]
async fn cve_2019_16097_one_more_field_gives_nothing() {
    let stack = Stack::start().await;
    let form = "grant_type=password&username=andrew&password=correct+horse&service=berth\
        &scope=repository:a:pull&has_admin_role=true&admin=1&role=admin&sub=root&counter=0\
        &access=%5B%7B%22type%22:%22repository%22,%22name%22:%22a%22,%22actions%22:%5B%22*%22%5D%7D%5D";
    let answer = stack.client.call("POST", "/token").body(form).send().await.expect(200);
    let token = answer.json()["token"].as_str().unwrap().to_owned();
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((&claims["sub"], &claims["access"]), (&json!("andrew"), &json!([])));
    let tags = stack.client.get(&token, "/v2/a/tags/list").await.expect(401);
    assert!(tags.header("www-authenticate").ends_with("error=\"insufficient_scope\""));
}

/// Harbor came with an administrator whose password was in its documentation.
#[tokio::test]
async fn cve_2026_4404_there_is_no_default_password() {
    let stack = Stack::start().await;
    for (user, password) in [
        ("admin", "Harbor12345"),
        ("admin", "admin"),
        ("admin", ""),
        ("andrew", "andrew"),
        ("andrew", ""),
        ("root", "root"),
        ("berth", "berth"),
    ] {
        let call = stack.client.call("GET", "/token").basic(user, password);
        call.send().await.expect_error(401, "UNAUTHORIZED");
    }
    for (path, text) in shipped() {
        let has_hash = ["$2a$", "$2b$", "$2y$", "$apr1$"].iter().any(|it| text.contains(it));
        assert!(!has_hash, "a password is shipped in {path}");
    }
    // Without users the server asks for one to be made, and makes none itself.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("auth.toml"), "").unwrap();
    let settings = auth_server::config::Config::load(&folder.path().join("auth.toml")).unwrap();
    let started = auth_server::Bound::open(settings, stack.clock.clone()).await;
    assert!(started.is_err() && !folder.path().join("htpasswd").exists());
}

/// zot wrote a client's secret into its log, docker_auth its tokens.
#[tokio::test]
async fn cve_2025_48374_no_secret_is_in_the_log() {
    let recording = Recording::start();
    let stack = Stack::start().await;
    let secrets = ["very-secret-1", "wrong-secret-2", "lost-secret-3"];
    stack.set_password("bea", secrets[0]);
    stack.grant("bea", "logged/app:push").await;
    let target = "/token?scope=repository:logged/app:pull,push";
    let call = stack.client.call("GET", target).basic("bea", secrets[0]);
    let token = call.send().await.expect(200).json()["token"].as_str().unwrap().to_owned();
    stack.client.call("GET", "/token").basic("bea", secrets[1]).send().await.expect(401);
    let form = format!("grant_type=password&username=bea&password={}", secrets[0]);
    stack.client.call("POST", "/token").body(form).send().await.expect(200);
    let query = format!("{target}&username=bea&password={}", secrets[2]);
    stack.client.call("GET", query).send().await.expect(200);
    // A password typed where the name belongs.
    stack.client.call("GET", "/token").basic(secrets[2], "x").send().await.expect(401);
    Image::new("logged").push(&stack.client, &token, "logged/app", "v1").await;
    start_upload(&stack.client, &token, "logged/app").await;
    invalid(&ping(&stack, &format!("{token}x")).await, "changed");
    let logged = format!("{:?}", recording.take());
    assert!(logged.contains("/v2/logged/app/manifests/v1"), "nothing was recorded");
    let basic = STANDARD.encode(format!("bea:{}", secrets[0]));
    let signature = token.rsplit('.').next().unwrap();
    for secret in secrets.into_iter().chain([basic.as_str(), signature]) {
        assert!(!logged.contains(secret), "{secret} is in the log");
    }
}

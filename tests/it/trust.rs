//! Machines that sign in with tokens of their own issuer: which tokens count, what they open, and
//! how that ends.

use std::time::Duration;

use auth_server::trust::{KeySource, Remote, RequiredClaims, Trust};
use berth_shared::{clock::UnixSeconds, subject::RobotName};
use harness::{
    IssuerKey, IssuerServer, Response, Stack,
    events::Recording,
    eventually,
    forger::{hs256, merge, message},
    image::Image,
    issuer::key_set,
    stack::{PASSWORD, read_rule},
};
use serde_json::{Value, json};

use crate::revocation::revoke;

pub(crate) const SCOPE: &str = "/token?scope=repository:app:pull,push";
pub(crate) const AUDIENCE: &str = "reg.test";
pub(crate) const SUBJECT: &str = "repo:org/app:ref:refs/heads/main";

/// A trust in tokens of `issuer` about [`SUBJECT`], by keys that discovery finds.
pub(crate) fn trust(name: &str, issuer: &str) -> Trust {
    let issuer: auth_server::trust::url::IssuerUrl = issuer.parse().expect("an issuer");
    let remote = Remote { issuer: issuer.clone(), keys_url: None, ca: None };
    Trust {
        name: name.parse().expect("a name"),
        issuer,
        audience: AUDIENCE.parse().expect("an audience"),
        subject: SUBJECT.parse().expect("a pattern"),
        claims: RequiredClaims::default(),
        keys: KeySource::Remote(Box::new(remote)),
        created: UnixSeconds::new(0),
        last_used: None,
    }
}

/// Adds a trust that may push to `app`.
pub(crate) async fn add(stack: &Stack, trust: &Trust) {
    let rules = [read_rule(trust.name.as_str(), "app:push")];
    assert!(stack.auth_database().await.add_trust(trust, &rules).await.expect("adding"));
}

/// Claims that the trust of [`trust`] is for, with those of `more` put in; null takes one out.
pub(crate) fn claims(stack: &Stack, issuer: &str, more: Value) -> Value {
    let now = stack.clock.now();
    let mut claims = merge(
        json!({
            "iss": issuer, "aud": AUDIENCE, "sub": SUBJECT, "jti": "x",
            "iat": now, "nbf": now, "exp": now + 300,
        }),
        more,
    );
    claims.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    claims
}

pub(crate) async fn basic(stack: &Stack, user: &str, password: &str) -> Response {
    stack.client.call("GET", SCOPE).basic(user, password).send().await
}

async fn bearer(stack: &Stack, token: &str) -> Response {
    stack.client.call("GET", SCOPE).bearer(token).send().await
}

fn issued(answer: &Response) -> String {
    answer.json()["token"].as_str().expect("a token").to_owned()
}

/// Both servers, an issuer with one key, and `robot.github`, who may push to `app`.
async fn with_trust() -> (Stack, IssuerServer, IssuerKey) {
    let key = IssuerKey::es256("one");
    let issuer = IssuerServer::start(&[&key]).await;
    let stack = Stack::start().await;
    add(&stack, &trust("robot.github", &issuer.url)).await;
    (stack, issuer, key)
}

#[tokio::test]
async fn a_token_is_a_password_a_form_field_and_a_bearer_token_by_each_algorithm() {
    let keys = [IssuerKey::rs256("r"), IssuerKey::es256("e"), IssuerKey::eddsa("d")];
    let issuer = IssuerServer::start(&keys.each_ref()).await;
    let stack = Stack::start().await;
    add(&stack, &trust("robot.github", &issuer.url)).await;
    let runs = stack.auth.bcrypt_runs();
    for key in &keys {
        let token = key.token(&claims(&stack, &issuer.url, json!({})));
        let form = format!(
            "grant_type=password&username=robot.github&password={token}\
             &scope=repository:app:pull,push"
        );
        for answer in [
            basic(&stack, "robot.github", &token).await,
            bearer(&stack, &token).await,
            stack.client.call("POST", "/token").body(form).send().await,
        ] {
            let answer = answer.expect(200);
            assert_eq!(answer.json()["scope"], "repository:app:pull,push");
            assert_eq!(answer.json()["expires_in"], 900, "an ordinary life");
            let image = Image::new(&key.id);
            let berth = issued(&answer);
            image.push(&stack.client, &berth, "app", &key.id).await;
            let path = format!("/v2/app/manifests/{}", key.id);
            assert_eq!(stack.client.get(&berth, &path).await.expect(200).body, image.manifest);
            let other = stack.client.get(&berth, "/v2/other/manifests/v1").await.expect(401);
            assert!(other.header("www-authenticate").ends_with("insufficient_scope\""));
        }
    }
    assert_eq!(stack.auth.bcrypt_runs(), runs, "no token costs a bcrypt run");
    assert_eq!(issuer.requests(), 2, "discovery and keys, once");
    let name: RobotName = "robot.github".parse().expect("a name");
    eventually("the use is noted", async || {
        let policy = stack.auth_database().await.policy().await.expect("the policy");
        policy.trusts.get(&name).and_then(|trust| trust.last_used)
    })
    .await;
}

#[tokio::test]
async fn the_registry_takes_a_token_as_basic_password_and_asks_for_its_rights() {
    let (stack, issuer, key) = with_trust().await;
    let token = key.token(&claims(&stack, &issuer.url, json!({})));
    let berth = issued(&basic(&stack, "robot.github", &token).await.expect(200));
    Image::new("one").push(&stack.client, &berth, "app", "v1").await;
    let get = |path: &str| stack.client.call("GET", path).basic("robot.github", &token).send();
    get("/v2/app/manifests/v1").await.expect(200);
    get("/v2/").await.expect(200);
    // The catalog rests on rights that auth-server is asked for.
    let listed = get("/v2/_catalog").await.expect(200);
    assert_eq!(listed.json()["repositories"], json!(["app"]));
    let wrong = stack.client.call("GET", "/v2/").basic("robot.other", &token).send().await;
    wrong.expect(401);
}

const PROD: &str = "repo:org/b:environment:prod";

/// Both servers, an issuer, `robot.github`, and `robot.owned`, whose trust asks for an owner too.
async fn with_two_trusts() -> (Stack, IssuerServer, IssuerKey) {
    let (stack, issuer, key) = with_trust().await;
    let mut owned = trust("robot.owned", &issuer.url);
    owned.subject = "repo:org/*:environment:prod".parse().expect("a pattern");
    owned.claims =
        RequiredClaims::all(["repository_owner_id=7".parse().expect("a claim")]).expect("claims");
    add(&stack, &owned).await;
    (stack, issuer, key)
}

/// What makes a token one that neither of the two trusts is for.
fn wrong_claims(issuer: &str, now: i64) -> Vec<Value> {
    let sub = |sub: &str| json!({ "sub": sub });
    vec![
        json!({ "aud": "other" }),
        json!({ "aud": null }),
        json!({ "aud": "" }),
        json!({ "aud": "reg.tes" }),
        json!({ "aud": "reg.test.evil.org" }),
        json!({ "aud": ["other", "reg.test.evil.org"] }),
        json!({ "aud": 7 }),
        sub("repo:org/app:ref:refs/heads/main2"),
        sub("repo:org/app:ref:refs/heads"),
        sub("xrepo:org/app:ref:refs/heads/main"),
        sub("repo:evil/app:ref:refs/heads/main"),
        sub("repo:org/app:pull_request"),
        json!({ "sub": null }),
        json!({ "sub": [SUBJECT] }),
        json!({ "iss": "http://127.0.0.1:1" }),
        json!({ "iss": format!("{issuer}/") }),
        json!({ "iss": null }),
        json!({ "iss": [issuer] }),
        json!({ "exp": now - 60 }),
        json!({ "exp": null }),
        json!({ "exp": (now + 300).to_string() }),
        json!({ "iat": now + 61 }),
        json!({ "iat": null }),
        json!({ "nbf": now + 61 }),
        json!({ "nbf": "0" }),
        json!({ "sub": PROD }),
        json!({ "sub": PROD, "repository_owner_id": "77" }),
        json!({ "sub": PROD, "repository_owner_id": 7 }),
        json!({ "sub": "repo:org/:environment:prod", "repository_owner_id": "7" }),
        json!({ "sub": "repo:org/a/b:environment:prod", "repository_owner_id": "7" }),
        json!({ "long": "x".repeat(16 * 1024) }),
    ]
}

#[tokio::test]
async fn every_other_token_gets_the_answer_of_a_wrong_password() {
    let (stack, issuer, key) = with_two_trusts().await;
    let wrong = basic(&stack, "andrew", "wrong").await.expect(401);
    for bad in wrong_claims(&issuer.url, stack.clock.now().get()) {
        let token = key.token(&claims(&stack, &issuer.url, bad.clone()));
        for answer in [
            basic(&stack, "robot.github", &token).await,
            basic(&stack, "robot.owned", &token).await,
            bearer(&stack, &token).await,
        ] {
            assert_eq!(answer.comparable(), wrong.comparable(), "{bad}");
        }
    }
    assert_eq!(issuer.requests(), 0, "no key is fetched for what is refused anyway");
    let good = key.token(&claims(&stack, &issuer.url, json!({})));
    for user in ["robot.owned", "robot.", "robot.nobody", "andrew"] {
        let answer = basic(&stack, user, &good).await;
        assert_eq!(answer.comparable(), wrong.comparable(), "{user}");
    }
    basic(&stack, "robot.github", &good).await.expect(200);
    stack.clock.advance(Duration::from_secs(360));
    let expired = basic(&stack, "robot.github", &good).await;
    assert_eq!(expired.comparable(), wrong.comparable());
}

#[tokio::test]
async fn what_a_trust_asks_for_is_enough_and_clocks_may_differ_by_a_minute() {
    let (stack, issuer, key) = with_two_trusts().await;
    let now = stack.clock.now();
    for good in [
        json!({ "exp": now - 59 }),
        json!({ "iat": now + 60 }),
        json!({ "nbf": null }),
        json!({ "aud": ["other", AUDIENCE] }),
        json!({ "sub": PROD, "repository_owner_id": "7" }),
    ] {
        bearer(&stack, &key.token(&claims(&stack, &issuer.url, good))).await.expect(200);
    }
}

/// Tokens that no key of the issuer has signed, or not like this.
fn forgeries(rsa: &IssuerKey, ec: &IssuerKey, issuer: &str, claims: &Value) -> Vec<String> {
    let attacker = IssuerKey::es256("ec");
    let with = |more: Value| merge(ec.header(), more);
    let mut forged = vec![attacker.token(claims)];
    for algorithm in ["none", "None", "NONE", ""] {
        let unsigned = message(&with(json!({ "alg": algorithm })), claims);
        forged.extend([format!("{unsigned}."), format!("{unsigned}.x"), unsigned]);
    }
    // What is public is no secret, in whatever form it is taken for one.
    let n = rsa.jwk()["n"].as_str().expect("n").to_owned();
    for secret in [&n, &rsa.jwk().to_string(), &key_set(&[rsa]), ""] {
        forged.push(hs256("rsa", claims, secret.as_bytes()));
    }
    for brought in [
        json!({ "jwk": attacker.jwk() }),
        json!({ "jku": format!("{issuer}/attacker") }),
        json!({ "x5u": format!("{issuer}/attacker") }),
        json!({ "kid": "attacker", "jwk": attacker.jwk() }),
        json!({ "kid": null, "jwk": attacker.jwk() }),
        json!({ "kid": null }),
        json!({ "kid": ["ec"] }),
    ] {
        forged.push(attacker.sign(&with(brought.clone()), claims));
        // An honest issuer brings no key along either.
        forged.push(ec.sign(&with(brought), claims));
    }
    // One key under the other's name or algorithm, and what is not for tokens like these.
    forged.push(ec.sign(&with(json!({ "kid": "rsa" })), claims));
    forged.push(ec.sign(&rsa.header(), claims));
    forged.push(rsa.sign(&ec.header(), claims));
    forged.push(rsa.sign(&merge(rsa.header(), json!({ "alg": "RS512" })), claims));
    forged.push(ec.sign(&with(json!({ "crit": ["x"], "x": 1 })), claims));
    forged.push(ec.sign(&with(json!({ "typ": "at+jwt" })), claims));
    forged
}

/// A good token, changed after it was signed.
fn changes(good: &str, ec: &IssuerKey, claims: &Value) -> [String; 4] {
    let other = merge(claims.clone(), json!({ "jti": "y" }));
    let signature = good.rsplit('.').next().expect("a signature");
    [
        format!("{}.{signature}", message(&ec.header(), &other)),
        format!("{good}A"),
        good[..good.len() - 4].to_owned(),
        format!("{good}.{signature}"),
    ]
}

#[tokio::test]
async fn no_signature_counts_but_that_of_the_issuers_key_by_its_own_algorithm() {
    let (rsa, ec) = (IssuerKey::rs256("rsa"), IssuerKey::es256("ec"));
    let issuer = IssuerServer::start(&[&rsa, &ec]).await;
    let stack = Stack::start().await;
    add(&stack, &trust("robot.github", &issuer.url)).await;
    let claims = claims(&stack, &issuer.url, json!({}));
    let good = ec.token(&claims);
    bearer(&stack, &rsa.token(&claims)).await.expect(200);
    bearer(&stack, &good).await.expect(200);
    let wrong = basic(&stack, "andrew", "wrong").await.expect(401);
    let before = issuer.requests();
    let forged = forgeries(&rsa, &ec, &issuer.url, &claims);
    for token in forged.into_iter().chain(changes(&good, &ec, &claims)) {
        let by_name = basic(&stack, "robot.github", &token).await;
        assert_eq!(by_name.comparable(), wrong.comparable(), "{token}");
        assert_eq!(bearer(&stack, &token).await.comparable(), wrong.comparable(), "{token}");
    }
    assert_eq!(issuer.requests(), before, "nobody makes us ask anywhere");
    bearer(&stack, &good).await.expect(200);
}

#[tokio::test]
async fn a_removed_trust_has_no_tokens_and_a_revoked_grant_voids_them() {
    let (stack, issuer, key) = with_trust().await;
    let token = key.token(&claims(&stack, &issuer.url, json!({})));
    let works = async |berth: &str| {
        let answer = stack.client.call("POST", "/v2/app/blobs/uploads/").bearer(berth);
        answer.send().await.status.as_u16() == 202
    };
    let berth = issued(&bearer(&stack, &token).await.expect(200));
    assert!(works(&berth).await);
    revoke(&stack, "robot.github", "app:push").await;
    eventually("the grant is gone", async || (!works(&berth).await).then_some(())).await;
    assert_eq!(bearer(&stack, &token).await.expect(200).json()["scope"], "");
    stack.grant("robot.github", "app:push").await;
    let berth = issued(&bearer(&stack, &token).await.expect(200));
    assert!(works(&berth).await);
    let name = "robot.github".parse().expect("a name");
    assert!(stack.auth_database().await.remove_trust(&name).await.expect("removing"));
    bearer(&stack, &token).await.expect(401);
    eventually("the token is void", async || (!works(&berth).await).then_some(())).await;
    // Whoever gets the name later begins without rights.
    stack
        .auth_database()
        .await
        .add_trust(&trust("robot.github", &issuer.url), &[])
        .await
        .expect("adding");
    assert_eq!(bearer(&stack, &token).await.expect(200).json()["scope"], "");
    assert!(!works(&berth).await);
}

#[tokio::test]
async fn a_token_that_two_trusts_are_for_needs_a_name() {
    let (stack, issuer, key) = with_trust().await;
    let recording = Recording::start();
    let token = key.token(&claims(&stack, &issuer.url, json!({})));
    bearer(&stack, &token).await.expect(200);
    let mut second = trust("robot.second", &issuer.url);
    second.subject = "repo:org/*:ref:refs/heads/main".parse().expect("a pattern");
    add(&stack, &second).await;
    let wrong = basic(&stack, "andrew", "wrong").await.expect(401);
    assert_eq!(bearer(&stack, &token).await.comparable(), wrong.comparable());
    eventually("the log says what to do", async || {
        let hint = "the client must send the name";
        recording.take().into_iter().find(|event| event.text.contains(hint))
    })
    .await;
    basic(&stack, "robot.github", &token).await.expect(200);
    basic(&stack, "robot.second", &token).await.expect(200);
}

#[tokio::test]
async fn the_log_says_why_and_never_the_token() {
    let (stack, issuer, key) = with_trust().await;
    let recording = Recording::start();
    let more = json!({ "sub": "repo:org/logged:pull_request" });
    let bad = key.token(&claims(&stack, &issuer.url, more));
    let good = key.token(&claims(&stack, &issuer.url, json!({ "jti": "logged" })));
    basic(&stack, "robot.github", &good).await.expect(200);
    bearer(&stack, &good).await.expect(200);
    basic(&stack, "robot.github", &bad).await.expect(401);
    let events = std::cell::RefCell::new(String::new());
    eventually("the reason is logged", async || {
        let mut seen = events.borrow_mut();
        seen.extend(recording.take().into_iter().map(|event| event.text));
        seen.contains("repo:org/logged:pull_request").then_some(())
    })
    .await;
    let seen = events.into_inner();
    for part in good.split('.').skip(1).chain(bad.split('.').skip(1)) {
        assert!(!seen.contains(part), "a part of a token is in the log");
    }
    basic(&stack, "andrew", PASSWORD).await.expect(200);
}

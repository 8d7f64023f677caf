//! Every route with every kind of token: the status, and the challenge byte for byte.

use base64::{Engine, engine::general_purpose::STANDARD};
use berth_shared::claims::{Audience, ClaimSet};
use harness::{
    Forger, Response, Stack,
    forger::{hs256, merge, message},
    image::digest_of,
};
use serde_json::{Value, json};

/// What a route asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    Catalog,
    Pull,
    Push,
    Delete,
}

impl Needs {
    /// The scope of the challenge, with the comma in front.
    fn scope(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Catalog => ",scope=\"registry:catalog:*\"",
            Self::Pull => ",scope=\"repository:team/app:pull\"",
            Self::Push => ",scope=\"repository:team/app:pull,push\"",
            Self::Delete => ",scope=\"repository:team/app:delete\"",
        }
    }
}

/// Every route: nothing that is named exists, so that no case changes anything for the next.
pub(crate) fn routes() -> Vec<(&'static str, String, Needs)> {
    let digest = digest_of(b"nothing");
    let upload = format!("/v2/team/app/blobs/uploads/{}", "0".repeat(32));
    let blob = format!("/v2/team/app/blobs/{digest}");
    let manifest = "/v2/team/app/manifests/v1".to_owned();
    let by_digest = format!("/v2/team/app/manifests/{digest}");
    vec![
        ("GET", "/v2/".to_owned(), Needs::Nothing),
        ("HEAD", "/v2/".to_owned(), Needs::Nothing),
        ("GET", "/v2".to_owned(), Needs::Nothing),
        ("GET", "/v2/_catalog".to_owned(), Needs::Catalog),
        ("GET", "/v2/team/app/tags/list".to_owned(), Needs::Pull),
        ("GET", format!("/v2/team/app/referrers/{digest}"), Needs::Pull),
        ("GET", blob.clone(), Needs::Pull),
        ("HEAD", blob.clone(), Needs::Pull),
        ("GET", manifest.clone(), Needs::Pull),
        ("HEAD", manifest.clone(), Needs::Pull),
        ("GET", by_digest.clone(), Needs::Pull),
        ("POST", "/v2/team/app/blobs/uploads/?digest=x".to_owned(), Needs::Push),
        ("POST", "/v2/team/app/blobs/uploads".to_owned() + "?digest=x", Needs::Push),
        ("GET", upload.clone(), Needs::Push),
        ("PATCH", upload.clone(), Needs::Push),
        ("PUT", upload.clone() + "?digest=x", Needs::Push),
        ("DELETE", upload, Needs::Push),
        ("PUT", manifest.clone(), Needs::Push),
        ("DELETE", manifest, Needs::Delete),
        ("DELETE", by_digest, Needs::Delete),
        ("DELETE", blob, Needs::Delete),
    ]
}

/// What becomes of a request, as far as credentials are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The credentials are no reason to refuse.
    Through,
    /// 401 without an `error`.
    NoToken,
    /// 401 `invalid_token`.
    Invalid,
    /// 401 `insufficient_scope`.
    Insufficient,
}

fn check(case: &str, answer: &Response, needs: Needs, expected: Verdict) {
    let error = match expected {
        Verdict::Through => {
            assert_ne!(answer.status.as_u16(), 401, "{case}");
            assert_eq!(answer.find_header("www-authenticate"), None, "{case}");
            return;
        }
        Verdict::NoToken => "",
        Verdict::Invalid => ",error=\"invalid_token\"",
        Verdict::Insufficient => ",error=\"insufficient_scope\"",
    };
    assert_eq!(answer.status.as_u16(), 401, "{case}");
    let scope = needs.scope();
    let challenge =
        format!("Bearer realm=\"https://reg.test/token\",service=\"berth\"{scope}{error}");
    assert_eq!(answer.headers.get_all("www-authenticate").iter().count(), 1, "{case}");
    assert_eq!(answer.header("www-authenticate"), challenge, "{case}");
    if !answer.body.is_empty() {
        assert_eq!(answer.code(), "UNAUTHORIZED", "{case}");
    }
}

/// Sends every route with these headers and compares with what `verdict` says.
pub(crate) async fn try_all(
    stack: &Stack,
    name: &str,
    authorization: &[Vec<u8>],
    verdict: impl Fn(Needs) -> Verdict,
) {
    for (method, target, needs) in routes() {
        let mut call = stack.client.call(method, &target);
        for value in authorization {
            call = call.header("authorization", value.clone());
        }
        let answer = call.send().await;
        check(&format!("{name}: {method} {target}"), &answer, needs, verdict(needs));
    }
}

pub(crate) fn bearer(token: &str) -> Vec<Vec<u8>> {
    vec![format!("Bearer {token}").into_bytes()]
}

#[tokio::test]
async fn a_good_token_opens_what_it_covers_and_nothing_else() {
    let stack = Stack::start().await;
    let covers = |held: &'static [Needs]| {
        move |needs| match needs {
            Needs::Nothing | Needs::Catalog => Verdict::Through,
            needs if held.contains(&needs) => Verdict::Through,
            _ => Verdict::Insufficient,
        }
    };
    for (name, user, scope, held) in [
        ("anonymous", "", "", &[][..]),
        ("anonymous pull", "", "repository:team/app:pull", &[Needs::Pull]),
        ("nothing", "bea", "", &[]),
        ("elsewhere", "bea", "repository:team/other:*", &[]),
        ("above", "bea", "repository:team:*", &[]),
        ("catalog", "bea", "registry:catalog:*", &[]),
        ("pull", "andrew", "repository:team/app:pull", &[Needs::Pull]),
        ("push", "andrew", "repository:team/app:push", &[Needs::Push]),
        ("delete", "andrew", "repository:team/app:delete", &[Needs::Delete]),
        ("all", "andrew", "repository:team/app:*", &[Needs::Pull, Needs::Push, Needs::Delete]),
    ] {
        let token = stack.forged_token(user, &[scope]);
        try_all(&stack, name, &bearer(&token), covers(held)).await;
    }
}

#[tokio::test]
async fn what_is_no_single_bearer_token_is_refused() {
    let stack = Stack::start().await;
    let good = stack.forged_token("andrew", &["repository:team/app:*"]);
    let basic = STANDARD.encode("andrew:wrong");
    let bytes = |text: &str| text.as_bytes().to_vec();
    for (name, headers, verdict) in [
        ("no token", vec![], Verdict::NoToken),
        ("wrong Basic", vec![bytes(&format!("Basic {basic}"))], Verdict::NoToken),
        ("two tokens", [bearer(&good), bearer(&good)].concat(), Verdict::Invalid),
        ("token and Basic", vec![bearer(&good).remove(0), bytes("Basic eDp5")], Verdict::Invalid),
        ("Basic and token", vec![bytes("Basic eDp5"), bearer(&good).remove(0)], Verdict::Invalid),
        ("no scheme", vec![bytes(&good)], Verdict::Invalid),
        ("empty", vec![bytes("")], Verdict::Invalid),
        ("scheme alone", vec![bytes("Bearer")], Verdict::Invalid),
        ("empty token", vec![bytes("Bearer ")], Verdict::Invalid),
        ("not text", vec![b"Bearer \xff\xfe".to_vec()], Verdict::Invalid),
        ("no token at all", bearer("nonsense"), Verdict::Invalid),
        ("two parts", bearer("a.b"), Verdict::Invalid),
        ("empty parts", bearer(".."), Verdict::Invalid),
        ("in quotes", bearer(&format!("\"{good}\"")), Verdict::Invalid),
        ("cut", bearer(&good[..good.len() - 1]), Verdict::Invalid),
        ("lower case scheme", vec![bytes(&format!("bearer {good}"))], Verdict::Through),
    ] {
        try_all(&stack, name, &headers, |_| verdict).await;
    }
}

#[tokio::test]
async fn a_token_with_wrong_claims_is_invalid() {
    let stack = Stack::start().await;
    let good = stack.good_claims("andrew", &["repository:team/app:*"]);
    let now = stack.clock.now();
    let with = |change: &dyn Fn(&mut ClaimSet)| {
        let mut claims = good.clone();
        change(&mut claims);
        stack.sign(&claims)
    };
    for (name, token, verdict) in [
        ("expired", with(&|it| it.exp = now - 60), Verdict::Invalid),
        ("expired within leeway", with(&|it| it.exp = now - 59), Verdict::Through),
        ("wrong aud", with(&|it| it.aud = Audience::One("other".into())), Verdict::Invalid),
        ("empty aud", with(&|it| it.aud = Audience::Several(vec![])), Verdict::Invalid),
        (
            "aud among others",
            with(&|it| it.aud = Audience::Several(vec!["x".into(), "berth".into()])),
            Verdict::Through,
        ),
        ("wrong iss", with(&|it| it.iss = "other".into()), Verdict::Invalid),
        ("empty iss", with(&|it| it.iss = String::new()), Verdict::Invalid),
        ("nbf in the future", with(&|it| it.nbf = now + 61), Verdict::Invalid),
        ("nbf within leeway", with(&|it| it.nbf = now + 60), Verdict::Through),
        ("iat in the future", with(&|it| it.iat = now + 61), Verdict::Invalid),
        ("no jti", with(&|it| it.jti = String::new()), Verdict::Invalid),
        ("no user name", with(&|it| it.sub = "no such/name".into()), Verdict::Invalid),
    ] {
        try_all(&stack, name, &bearer(&token), |_| verdict).await;
    }
}

#[tokio::test]
async fn a_claim_that_is_missing_or_of_another_type_makes_a_token_invalid() {
    let stack = Stack::start().await;
    let forger = Forger::of(&stack);
    let good = stack.good_claims("andrew", &["repository:team/app:*"]);
    let good = serde_json::to_value(good).expect("claims");
    let header = forger.header();
    try_all(&stack, "good", &bearer(&forger.sign(&header, &good)), |_| Verdict::Through).await;
    for name in ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "access"] {
        let mut without = good.clone();
        without.as_object_mut().expect("an object").remove(name);
        let null = merge(good.clone(), json!({ name: null }));
        let list = merge(good.clone(), json!({ name: [1] }));
        for claims in [without, null, list] {
            let token = forger.sign(&header, &claims);
            try_all(&stack, name, &bearer(&token), |_| Verdict::Invalid).await;
        }
    }
    let later = (stack.clock.now() + 900).get().to_string();
    for wrong in [
        json!({ "exp": later }),
        json!({ "exp": 1e300 }),
        json!({ "nbf": "0" }),
        json!({ "iat": true }),
        json!({ "access": {} }),
        json!({ "counter": -1 }),
        json!({ "counter": "9" }),
    ] {
        let token = forger.sign(&header, &merge(good.clone(), wrong.clone()));
        try_all(&stack, &wrong.to_string(), &bearer(&token), |_| Verdict::Invalid).await;
    }
}

#[tokio::test]
async fn a_forged_signature_is_invalid_whatever_its_header_says() {
    let stack = Stack::start().await;
    let own = Forger::of(&stack);
    let attacker = Forger::attacker(&own.id);
    let stranger = Forger::attacker("unknown");
    let good = stack.good_claims("andrew", &["repository:team/app:*"]);
    let good = serde_json::to_value(good).expect("claims");
    let none = |alg: &str| message(&merge(own.header(), json!({ "alg": alg })), &good) + ".";
    let with = |forger: &Forger, more: Value| forger.sign(&merge(own.header(), more), &good);
    let changed = own.sign(&own.header(), &good);
    let changed = changed.replacen('.', ".e30", 1);
    let jwk = attacker.jwk();
    let no_id = own.sign(&json!({ "typ": "JWT", "alg": "ES256" }), &good);
    for (name, token) in [
        ("alg none", none("none")),
        ("alg None", none("None")),
        ("no alg", none("")),
        ("HS256 with the public point", hs256(&own.id, &good, own.point())),
        ("HS256 with the jwk", hs256(&own.id, &good, own.jwk().to_string().as_bytes())),
        ("another key under the known id", attacker.sign(&own.header(), &good)),
        ("the attacker's jwk", with(&attacker, json!({ "jwk": jwk }))),
        ("jwk without kid", attacker.sign(&json!({ "alg": "ES256", "jwk": jwk }), &good)),
        ("jku", with(&attacker, json!({ "jku": "https://127.0.0.1:1/keys" }))),
        ("x5u", with(&attacker, json!({ "x5u": "https://127.0.0.1:1/x" }))),
        ("unknown kid", stranger.sign(&stranger.header(), &good)),
        ("no kid", no_id),
        ("other algorithm", with(&own, json!({ "alg": "EdDSA" }))),
        ("other type", with(&own, json!({ "typ": "at+jwt" }))),
        ("critical extension", with(&own, json!({ "crit": ["exp"] }))),
        ("changed claims", changed),
    ] {
        try_all(&stack, name, &bearer(&token), |_| Verdict::Invalid).await;
    }
}

#[tokio::test]
async fn the_realm_is_chosen_from_the_list_and_never_derived() {
    let stack = Stack::start().await;
    for (host, realm) in [
        ("reg.test", "https://reg.test/token"),
        ("other.test:5000", "https://other.test:5000/token"),
        ("OTHER.TEST:5000", "https://other.test:5000/token"),
        ("other.test", "https://reg.test/token"),
        ("evil.test", "https://reg.test/token"),
    ] {
        let mut raw = harness::Raw::connect(&stack.client).await;
        let request = format!(
            "GET /v2/ HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Host: evil.test\r\n\
             X-Forwarded-Proto: http\r\nForwarded: host=evil.test\r\n\r\n"
        );
        raw.send(request.as_bytes()).await;
        let answer = raw.answer("/v2/", false).await.expect(401);
        let challenge = format!("Bearer realm=\"{realm}\",service=\"berth\"");
        assert_eq!(answer.header("www-authenticate"), challenge, "{host}");
    }
    let mut raw = harness::Raw::connect(&stack.client).await;
    raw.send(b"GET /v2/ HTTP/1.1\r\nHost: evil.test\"\r\n\r\n").await;
    raw.answer("/v2/", false).await.expect(400);
}

#[tokio::test]
async fn health_needs_no_token() {
    let stack = Stack::start().await;
    for path in ["/healthz", "/readyz"] {
        stack.client.call("GET", path).send().await.expect(200);
    }
}

//! The keys of issuers: where they are asked for, how often, and what happens without them.

use std::{sync::Arc, time::Duration};

use auth_server::trust::{KeySource, Remote, Trust, keys::IssuerKeys};
use berth_shared::clock::{Clock, UnixSeconds};
use harness::{
    IssuerKey, IssuerServer, Response, Stack,
    events::Recording,
    eventually,
    issuer::{DISCOVERY, KEYS, key_set},
};
use serde_json::json;

use crate::trust::{SCOPE, add, basic, claims, trust};

const NAME: &str = "robot.github";

/// A trust whose keys come from elsewhere than discovery says, or by another CA.
fn with_keys(issuer: &str, keys_url: Option<&str>, ca: Option<&str>) -> Trust {
    let mut made = trust(NAME, issuer);
    made.keys = KeySource::Remote(Box::new(Remote {
        issuer: made.issuer.clone(),
        keys_url: keys_url.map(|url| url.parse().expect("an address")),
        ca: ca.map(Into::into),
    }));
    made
}

fn unavailable(answer: Response) {
    let answer = answer.expect_error(503, "UNAVAILABLE");
    assert_eq!(answer.header("retry-after"), "10");
    assert!(answer.find_header("www-authenticate").is_none());
}

async fn after(stack: &Stack, secs: u64, token: &str) -> Response {
    stack.clock.advance(Duration::from_secs(secs));
    basic(stack, NAME, token).await
}

#[tokio::test]
async fn an_issuer_that_is_down_means_503_and_known_keys_go_on_for_a_day() {
    let (one, two) = (IssuerKey::es256("one"), IssuerKey::es256("two"));
    let issuer = IssuerServer::start(&[&one]).await;
    issuer.set_down(true);
    let stack = Stack::start().await;
    add(&stack, &trust(NAME, &issuer.url)).await;
    let week = json!({ "exp": stack.clock.now() + 7 * 24 * 60 * 60 });
    let of_one = one.token(&claims(&stack, &issuer.url, week.clone()));
    let of_two = two.token(&claims(&stack, &issuer.url, week));
    unavailable(basic(&stack, NAME, &of_one).await);
    unavailable(stack.client.call("GET", SCOPE).bearer(&of_one).send().await);
    unavailable(basic(&stack, NAME, &of_one).await);
    assert_eq!(issuer.requests(), 1, "a failure is remembered");
    let registry = stack.client.call("GET", "/v2/").basic(NAME, &of_one).send().await;
    registry.expect_error(503, "UNAVAILABLE");
    issuer.set_down(false);
    unavailable(after(&stack, 9, &of_one).await);
    after(&stack, 1, &of_one).await.expect(200);
    assert_eq!(issuer.requests(), 3, "and then discovery and keys");
    issuer.set_down(true);
    after(&stack, 60 * 60, &of_one).await.expect(200);
    assert_eq!(issuer.requests(), 4, "asked, in vain");
    basic(&stack, NAME, &of_one).await.expect(200);
    assert_eq!(issuer.requests(), 4);
    // A key that could be new is not wrong as long as nobody can say so.
    unavailable(basic(&stack, NAME, &of_two).await);
    after(&stack, 23 * 60 * 60 - 1, &of_one).await.expect(200);
    unavailable(after(&stack, 1, &of_one).await);
    issuer.set_down(false);
    after(&stack, 10, &of_one).await.expect(200);
    basic(&stack, NAME, &of_two).await.expect(401);
}

/// To remove a trust and add it again is how an administrator ends a key that the issuer has
/// withdrawn.
#[tokio::test]
async fn a_trust_that_is_added_again_forgets_the_keys_from_before() {
    let (stack, issuer, one, token) = with_token().await;
    let two = IssuerKey::es256("two");
    basic(&stack, NAME, &token).await.expect(200);
    issuer.keys(&[&two]);
    basic(&stack, NAME, &token).await.expect(200);
    let readd = async || {
        stack.clock.advance(Duration::from_secs(1));
        let store = stack.auth_database().await;
        assert!(store.remove_trust(&NAME.parse().expect("a name")).await.expect("removing"));
        let created = stack.clock.now();
        add(&stack, &Trust { created, ..trust(NAME, &issuer.url) }).await;
    };
    readd().await;
    basic(&stack, NAME, &token).await.expect(401);
    let claims = claims(&stack, &issuer.url, json!({}));
    basic(&stack, NAME, &two.token(&claims)).await.expect(200);
    assert_eq!(issuer.requests(), 4, "the new keys are kept");
    // Nor do they come back while the issuer is down.
    issuer.keys(&[&one]);
    readd().await;
    issuer.set_down(true);
    unavailable(basic(&stack, NAME, &two.token(&claims)).await);
}

#[tokio::test]
async fn a_flood_of_unknown_keys_is_one_fetch_in_thirty_seconds() {
    let (one, two) = (IssuerKey::es256("one"), IssuerKey::es256("two"));
    let issuer = IssuerServer::start(&[&one]).await;
    let stack = Stack::start().await;
    add(&stack, &trust(NAME, &issuer.url)).await;
    let claims = claims(&stack, &issuer.url, json!({}));
    basic(&stack, NAME, &one.token(&claims)).await.expect(200);
    stack.clock.advance(Duration::from_secs(30));
    for number in 0..50 {
        let made_up = IssuerKey::es256(&format!("made up {number}")).token(&claims);
        basic(&stack, NAME, &made_up).await.expect(401);
    }
    assert_eq!(issuer.requests(), 4);
    // The issuer's new key is known half a minute later at the latest; the old one is gone then.
    issuer.keys(&[&two]);
    basic(&stack, NAME, &two.token(&claims)).await.expect(401);
    after(&stack, 30, &two.token(&claims)).await.expect(200);
    assert_eq!(issuer.requests(), 6);
    basic(&stack, NAME, &one.token(&claims)).await.expect(401);
}

#[tokio::test]
async fn a_hundred_jobs_at_once_are_one_fetch() {
    let key = IssuerKey::es256("one");
    let issuer = IssuerServer::start(&[&key]).await;
    let stack = Stack::start().await;
    add(&stack, &trust(NAME, &issuer.url)).await;
    let token = key.token(&claims(&stack, &issuer.url, json!({})));
    let calls = (0..100).map(|_| stack.client.call("GET", SCOPE).basic(NAME, &token));
    let tasks: Vec<_> = calls.map(|call| tokio::spawn(call.send())).collect();
    for task in tasks {
        task.await.expect("an answer").expect(200);
    }
    assert_eq!(issuer.requests(), 2);
}

#[tokio::test]
async fn a_client_that_leaves_stops_no_fetch() {
    let key = IssuerKey::es256("one");
    let issuer = IssuerServer::start(&[&key]).await;
    issuer.hold(true);
    let keys = Arc::new(IssuerKeys::new(Clock::set(UnixSeconds::new(0))));
    let (asking, asked_for) = (Arc::clone(&keys), trust(NAME, &issuer.url));
    let leaving = tokio::spawn(async move { asking.for_token(&asked_for, "one").await });
    let asked = async || (issuer.requests() == 1).then_some(());
    eventually("the issuer is asked", asked).await;
    leaving.abort();
    assert!(leaving.await.expect_err("nobody waits any more").is_cancelled());
    issuer.hold(false);
    let fetched = async || (issuer.requests() == 2).then_some(());
    eventually("discovery and keys, all the same", fetched).await;
    keys.for_token(&trust(NAME, &issuer.url), "one").await.expect("the keys");
    assert_eq!(issuer.requests(), 2, "fetched once");
}

#[tokio::test]
async fn a_made_up_key_holds_up_nobody_whose_key_is_known() {
    let key = IssuerKey::es256("one");
    let issuer = IssuerServer::start(&[&key]).await;
    let stack = Stack::start().await;
    add(&stack, &trust(NAME, &issuer.url)).await;
    let claims = claims(&stack, &issuer.url, json!({}));
    let (good, made_up) = (key.token(&claims), IssuerKey::es256("two").token(&claims));
    basic(&stack, NAME, &good).await.expect(200);
    stack.clock.advance(Duration::from_secs(30));
    issuer.hold(true);
    let waiting = tokio::spawn(stack.client.call("GET", SCOPE).basic(NAME, &made_up).send());
    let asked = async || (issuer.requests() == 3).then_some(());
    eventually("the issuer is asked for the made-up key", asked).await;
    basic(&stack, NAME, &good).await.expect(200);
    assert!(!waiting.is_finished(), "the issuer still keeps its answer");
    issuer.hold(false);
    waiting.await.expect("an answer").expect(401);
}

#[tokio::test]
async fn an_issuer_that_hangs_is_given_up_within_seconds_by_all_who_wait() {
    let key = IssuerKey::es256("one");
    let issuer = IssuerServer::start(&[&key]).await;
    issuer.hold(true);
    let stack = Stack::start().await;
    add(&stack, &trust(NAME, &issuer.url)).await;
    let token = key.token(&claims(&stack, &issuer.url, json!({})));
    let begun = tokio::time::Instant::now();
    let calls = (0..10).map(|_| stack.client.call("GET", SCOPE).basic(NAME, &token));
    let tasks: Vec<_> = calls.map(|call| tokio::spawn(call.send())).collect();
    for task in tasks {
        unavailable(task.await.expect("an answer"));
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "dockerd waits 15 s: {begun:?}");
    assert_eq!(issuer.requests(), 1);
}

#[tokio::test]
async fn nothing_is_asked_of_an_issuer_that_nobody_trusts() {
    let key = IssuerKey::es256("one");
    let (trusted, other) = (IssuerServer::start(&[&key]).await, IssuerServer::start(&[&key]).await);
    let stack = Stack::start().await;
    add(&stack, &trust(NAME, &trusted.url)).await;
    let token = key.token(&claims(&stack, &other.url, json!({})));
    basic(&stack, NAME, &token).await.expect(401);
    stack.client.call("GET", SCOPE).bearer(&token).send().await.expect(401);
    assert_eq!((trusted.requests(), other.requests()), (0, 0));
}

/// Both servers, an issuer with one key, and a token of it that nobody has shown yet.
async fn with_token() -> (Stack, IssuerServer, IssuerKey, String) {
    let key = IssuerKey::es256("one");
    let issuer = IssuerServer::start(&[&key]).await;
    let stack = Stack::start().await;
    add(&stack, &trust(NAME, &issuer.url)).await;
    let week = json!({ "exp": stack.clock.now() + 7 * 24 * 60 * 60 });
    let token = key.token(&claims(&stack, &issuer.url, week));
    (stack, issuer, key, token)
}

#[tokio::test]
async fn discovery_sends_nobody_elsewhere() {
    let (stack, issuer, key, token) = with_token().await;
    let other = IssuerServer::start(&[&key]).await;
    let (elsewhere, own) = (format!("{}{KEYS}", other.url), format!("{}{KEYS}", issuer.url));
    for (described, keys) in [
        (other.url.as_str(), own.as_str()),
        (&format!("{}/", issuer.url), &own),
        (&issuer.url, &elsewhere),
        (&issuer.url, "/keys"),
        (&issuer.url, "file:///etc/passwd"),
        (&issuer.url, &own.replace("127.0.0.1", "localhost")),
    ] {
        issuer.discovery(described, keys);
        unavailable(after(&stack, 10, &token).await);
    }
    issuer.redirect(DISCOVERY, &format!("{}{DISCOVERY}", other.url));
    unavailable(after(&stack, 10, &token).await);
    issuer.discovery(&issuer.url, &own);
    issuer.redirect(KEYS, &elsewhere);
    unavailable(after(&stack, 10, &token).await);
    assert_eq!(other.requests(), 0);
}

#[tokio::test]
async fn what_an_issuer_answers_is_bounded_and_read_strictly() {
    let (stack, issuer, key, token) = with_token().await;
    let long = " ".repeat(64 * 1024 + 1);
    let answers = [(200, "no JSON"), (200, "{}"), (200, &long), (404, ""), (500, ""), (204, "")];
    for (status, body) in answers {
        issuer.answer(DISCOVERY, status, body.to_owned());
        unavailable(after(&stack, 10, &token).await);
    }
    issuer.discovery(&issuer.url, &format!("{}{KEYS}", issuer.url));
    let padded = |bytes: usize| {
        let set = key_set(&[&key]);
        format!("{set}{}", " ".repeat(bytes - set.len()))
    };
    let many: Vec<_> = (0..65).map(|_| &key).collect();
    let none = r#"{"keys":[]}"#.to_owned();
    for body in [padded(256 * 1024 + 1), key_set(&many), none, "[]".to_owned()] {
        issuer.answer(KEYS, 200, body);
        unavailable(after(&stack, 10, &token).await);
    }
    for body in [padded(256 * 1024), key_set(&many[1..])] {
        issuer.answer(KEYS, 200, body);
        after(&stack, 60 * 60, &token).await.expect(200);
    }
}

/// Anybody can cause a line of the log for each request, and its length is not the issuer's to say.
#[tokio::test]
async fn what_an_issuer_answers_does_not_fill_the_log() {
    let recording = Recording::start();
    let (stack, issuer, _, token) = with_token().await;
    let (long, keys) = ("x".repeat(60_000), format!("{}{KEYS}", issuer.url));
    let told = async |part: &str| {
        unavailable(after(&stack, 10, &token).await);
        // Other tests write to the same log.
        let mut events = recording.take();
        events.retain(|event| event.text.contains(&long[..100]));
        assert!(events.iter().any(|event| event.text.contains(part)), "{part}: {events:?}");
        assert!(events.iter().all(|event| event.text.len() < 1_000), "{part}");
    };
    issuer.discovery(&long, &keys);
    told("of the issuer").await;
    issuer.discovery(&issuer.url, &long);
    told("discovery document").await;
    issuer.answer(DISCOVERY, 200, json!(long).to_string());
    told("discovery document").await;
    issuer.discovery(&issuer.url, &keys);
    issuer.answer(KEYS, 200, json!(long).to_string());
    told("the issuer's keys").await;
}

#[tokio::test]
async fn an_address_of_keys_that_was_written_down_may_be_anywhere() {
    let key = IssuerKey::es256("one");
    let (issuer, keys) = (IssuerServer::start(&[]).await, IssuerServer::start(&[&key]).await);
    let stack = Stack::start().await;
    let url = format!("{}{KEYS}", keys.url);
    add(&stack, &with_keys(&issuer.url, Some(&url), None)).await;
    let token = key.token(&claims(&stack, &issuer.url, json!({})));
    basic(&stack, NAME, &token).await.expect(200);
    assert_eq!((issuer.requests(), keys.requests()), (0, 1));
}

#[tokio::test]
async fn an_issuers_server_is_believed_by_the_ca_of_its_trust() {
    let key = IssuerKey::es256("one");
    let (issuer, other) =
        (IssuerServer::start_tls(&[&key]).await, IssuerServer::start_tls(&[&key]).await);
    for (ca, is_believed) in [(None, false), (Some(&other.ca), false), (Some(&issuer.ca), true)] {
        let stack = Stack::start().await;
        add(&stack, &with_keys(&issuer.url, None, ca.map(String::as_str))).await;
        let token = key.token(&claims(&stack, &issuer.url, json!({})));
        let answer = basic(&stack, NAME, &token).await;
        if is_believed {
            answer.expect(200);
        } else {
            unavailable(answer);
        }
    }
    assert_eq!(issuer.requests(), 2);
}

#[tokio::test]
async fn keys_that_were_written_down_count_for_their_trust_alone() {
    // As clusters do, both call themselves by one name.
    let issuer = "https://kubernetes.default.svc.cluster.local";
    let (one, two) = (IssuerKey::rs256("a"), IssuerKey::es256("a"));
    let stack = Stack::start().await;
    for (name, key) in [("robot.one", &one), ("robot.two", &two)] {
        let keys = KeySource::Inline(key_set(&[key]).parse().expect("keys"));
        add(&stack, &Trust { keys, ..trust(name, issuer) }).await;
    }
    let claims = claims(&stack, issuer, json!({}));
    let (of_one, of_two) = (one.token(&claims), two.token(&claims));
    basic(&stack, "robot.one", &of_one).await.expect(200);
    basic(&stack, "robot.two", &of_two).await.expect(200);
    basic(&stack, "robot.one", &of_two).await.expect(401);
    basic(&stack, "robot.two", &of_one).await.expect(401);
    // The keys tell them apart where no name is sent.
    for (token, name) in [(&of_one, "robot.one"), (&of_two, "robot.two")] {
        let answer = stack.client.call("GET", SCOPE).bearer(token).send().await.expect(200);
        let berth = answer.json()["token"].as_str().expect("a token").to_owned();
        let said = berth_shared::token::unverified::<serde_json::Value>(&berth).expect("claims").1;
        assert_eq!(said["sub"], name);
    }
}

//! Signing keys that change while clients pull: nobody is refused, and what was dropped is void.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use auth_server::keys::{How, KeyState, NEXT_AGE_SECS_MIN, SigningKeys, rotate};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use harness::{
    Client, Forger, Stack, eventually,
    image::Image,
    stack::{Options, PASSWORD},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

const SCOPE: &str = "repository:app:pull";
const MANIFEST: &str = "/v2/app/manifests/v1";

/// A stack with an image in `app` that `andrew` may pull.
async fn with_image(options: Options) -> Stack {
    let stack = Stack::with(options).await;
    let token = stack.full_token("app").await;
    Image::new("one").push(&stack.client, &token, "app", "v1").await;
    stack
}

/// The id of the key that is to sign next.
fn next_id(stack: &Stack) -> String {
    let keys = SigningKeys::read(&stack.auth.config().keys(), &stack.clock).expect("the keys");
    keys.list().find(|key| key.state == KeyState::Next).expect("a next key").id.clone()
}

/// Waits until the registry has fetched the key with this id.
async fn is_known(stack: &Stack, id: &str) {
    let file = stack.root().join("registry/keys.json");
    eventually("the registry knows the key", async || {
        fs::read_to_string(&file).is_ok_and(|text| text.contains(id)).then_some(())
    })
    .await;
}

async fn fresh_token(client: &Client) -> String {
    let call = client.call("GET", format!("/token?service=berth&scope={SCOPE}"));
    let answer = call.basic("andrew", PASSWORD).send().await.expect(200);
    answer.json()["token"].as_str().expect("a token").to_owned()
}

fn key_id(token: &str) -> String {
    let header = token.split('.').next().expect("a header");
    let header = URL_SAFE_NO_PAD.decode(header).expect("base64");
    let header: serde_json::Value = serde_json::from_slice(&header).expect("JSON");
    header["kid"].as_str().expect("a key id").to_owned()
}

#[tokio::test]
async fn rotating_keys_refuses_no_request_while_four_clients_pull() {
    const CLIENTS: usize = 4;
    const ROTATIONS: usize = 3;
    // Long enough that no token expires: only keys change here.
    let auth = "token_life_secs = 86400\n".to_owned();
    let stack = with_image(Options { auth, ..Options::default() }).await;
    let old = Arc::new(Mutex::new(vec![fresh_token(&stack.client).await]));
    let (stop, pulls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients = (0..CLIENTS).map(|_| {
        let (client, old) = (stack.client_with(&[]), Arc::clone(&old));
        let (stop, pulls) = (Arc::clone(&stop), Arc::clone(&pulls));
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let fresh = fresh_token(&client).await;
                let mut tokens = old.lock().expect("tokens").clone();
                tokens.push(fresh);
                for token in tokens {
                    client.get(&token, MANIFEST).await.expect(200);
                    pulls.fetch_add(1, Ordering::SeqCst);
                }
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    let wait = Duration::from_secs(NEXT_AGE_SECS_MIN.unsigned_abs());
    for _ in 0..ROTATIONS {
        let next = next_id(&stack);
        is_known(&stack, &next).await;
        stack.clock.advance(wait);
        rotate(&stack.auth.config().keys(), How::InOrder, false, &stack.clock).expect("rotating");
        let token = fresh_token(&stack.client).await;
        assert_eq!(key_id(&token), next, "the running server signs with the next key at once");
        old.lock().expect("tokens").push(token);
        // Every client has pulled with the new tokens and with all the old ones.
        let (from, tokens) = (pulls.load(Ordering::SeqCst), old.lock().expect("tokens").len());
        let enough = from + 2 * CLIENTS * (tokens + 1);
        eventually("the clients go on", async || {
            (pulls.load(Ordering::SeqCst) > enough).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.expect("a client was refused");
    }
    let ids = old.lock().expect("tokens").iter().map(|token| key_id(token)).collect::<Vec<_>>();
    assert_eq!(ids.len(), ROTATIONS + 1);
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
}

#[tokio::test]
async fn a_token_of_a_dropped_key_is_void_within_seconds_also_one_that_was_verified() {
    let stack = with_image(Options::default()).await;
    let old = fresh_token(&stack.client).await;
    stack.client.get(&old, MANIFEST).await.expect(200);
    rotate(&stack.auth.config().keys(), How::Compromised, false, &stack.clock).expect("rotating");
    // At once: its key id is not known yet, and asked for.
    let new = fresh_token(&stack.client).await;
    stack.client.get(&new, MANIFEST).await.expect(200);
    eventually("the old token is void", async || {
        let answer = stack.client.get(&old, MANIFEST).await;
        (answer.status == 401).then(|| {
            assert!(answer.header("www-authenticate").ends_with("error=\"invalid_token\""));
        })
    })
    .await;
    stack.client.get(&new, MANIFEST).await.expect(200);
}

#[tokio::test]
async fn a_dropped_key_takes_its_tokens_along_without_any_new_token() {
    let stack = with_image(Options::default()).await;
    let old = fresh_token(&stack.client).await;
    stack.client.get(&old, MANIFEST).await.expect(200);
    rotate(&stack.auth.config().keys(), How::Compromised, false, &stack.clock).expect("rotating");
    eventually("the old token is void", async || {
        (stack.client.get(&old, MANIFEST).await.status == 401).then_some(())
    })
    .await;
    let forger = Forger::of(&stack);
    let claims = serde_json::to_value(stack.good_claims("andrew", &[SCOPE])).expect("claims");
    let signed = forger.sign(&forger.header(), &claims);
    stack.client.get(&signed, MANIFEST).await.expect(200);
}

#[tokio::test]
async fn retired_keys_go_by_themselves_when_their_time_is_over() {
    let stack = with_image(Options::default()).await;
    let old = key_id(&fresh_token(&stack.client).await);
    let rotated =
        rotate(&stack.auth.config().keys(), How::Now, false, &stack.clock).expect("rotating");
    let until = rotated.retired.and_then(|key| key.until).expect("an end");
    let published = || {
        let keys = SigningKeys::read(&stack.auth.config().keys(), &stack.clock).expect("the keys");
        keys.list().any(|key| key.id == old)
    };
    assert!(published());
    let left = until - stack.clock.now();
    stack.clock.advance(Duration::from_secs(left.unsigned_abs()));
    eventually("the key is gone", async || (!published()).then_some(())).await;
    // Two keys and the states; files go once the states do not name them any more.
    eventually("its file is gone", async || {
        let keys = fs::read_dir(stack.root().join("auth/keys")).expect("the keys");
        (keys.count() == 3).then_some(())
    })
    .await;
}

/// Passes connections on to the auth server's socket, and counts the requests for `/keys`.
async fn count_requests(from: UnixListener, to: PathBuf, count: Arc<AtomicUsize>) {
    while let Ok((mut near, _)) = from.accept().await {
        let (to, count) = (to.clone(), Arc::clone(&count));
        tokio::spawn(async move {
            let Ok(mut far) = UnixStream::connect(to).await else { return };
            let mut head = vec![0; 4096];
            let read = near.read(&mut head).await.unwrap_or(0);
            if head.starts_with(b"GET /keys ") {
                count.fetch_add(1, Ordering::SeqCst);
            }
            if far.write_all(&head[..read]).await.is_ok() {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}

#[tokio::test]
async fn a_flood_of_unknown_key_ids_asks_for_the_keys_at_a_bounded_rate() {
    let folder = tempfile::tempdir().expect("a folder");
    let (socket, between) = (folder.path().join("auth.sock"), folder.path().join("between.sock"));
    let auth = format!("socket = '{}'\n", socket.display());
    let registry = format!("auth_socket = '{}'\n", between.display());
    let (listener, count) = (UnixListener::bind(&between).expect("a socket"), Arc::default());
    tokio::spawn(count_requests(listener, socket, Arc::clone(&count)));
    let stack = Stack::with(Options { auth, registry, ..Options::default() }).await;
    let claims = serde_json::to_value(stack.good_claims("andrew", &[])).expect("claims");
    let begun = tokio::time::Instant::now();
    let before = count.load(Ordering::SeqCst);
    for number in 0..300 {
        let forger = Forger::attacker(&format!("unknown-{number}"));
        let token = forger.sign(&forger.header(), &claims);
        stack.client.get(&token, "/v2/").await.expect(401);
    }
    let asked = count.load(Ordering::SeqCst) - before;
    // One in two seconds for the polls and one in five for the rest, and one more of each.
    let secs = usize::try_from(begun.elapsed().as_secs()).expect("seconds");
    assert!(asked <= secs / 2 + secs / 5 + 4, "{asked} requests in {secs} s");
    let good = stack.forged_token("andrew", &[]);
    stack.client.get(&good, "/v2/").await.expect(200);
}

/// Asks the auth server over its own socket.
/// Passes on what `auth-server` is asked, but for its keys: those it cannot give, and at once.
async fn withhold_keys(from: UnixListener, to: PathBuf) {
    while let Ok((mut client, _)) = from.accept().await {
        let to = to.clone();
        tokio::spawn(async move {
            let mut head = vec![0; 64 * 1024];
            let read = client.read(&mut head).await.expect("a request");
            if head[..read].starts_with(b"GET /keys ") {
                let answer = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
                return drop(client.write_all(answer.as_bytes()).await);
            }
            let mut server = UnixStream::connect(to).await.expect("auth-server");
            server.write_all(&head[..read]).await.expect("passing on");
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
    }
}

#[tokio::test]
async fn keys_that_cannot_be_had_hold_up_no_revocation() {
    let mut stack = with_image(Options { link: false, ..Options::default() }).await;
    let token = stack.token("andrew", &[SCOPE]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let between = folder.path().join("between.sock");
    let listener = UnixListener::bind(&between).expect("a socket");
    tokio::spawn(withhold_keys(listener, stack.root().join("run/auth.sock")));
    stack.stop_registry().await;
    let settings = stack.root().join("registry.toml");
    let text = fs::read_to_string(&settings).expect("the settings");
    let text = format!("auth_socket = '{}'\n{text}", between.display());
    fs::write(settings, text).expect("writing");
    stack.start_registry().await;
    stack.client.get(&token, MANIFEST).await.expect(200);
    let andrew = "andrew".parse().expect("a subject");
    stack.auth_database().await.void_tokens(&andrew).await.expect("voiding");
    eventually("the token is void", async || {
        (stack.client.get(&token, MANIFEST).await.status == 401).then_some(())
    })
    .await;
}

async fn ask_for_keys(stack: &Stack, more: &str) -> String {
    let socket = UnixStream::connect(stack.root().join("run/auth.sock")).await;
    let mut socket = socket.expect("the socket");
    let head = format!("GET /keys HTTP/1.1\r\nHost: auth\r\nConnection: close\r\n{more}\r\n");
    socket.write_all(head.as_bytes()).await.expect("asking");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test]
async fn keys_may_be_cached_for_less_time_than_a_next_key_waits() {
    let stack = Stack::start().await;
    let answer = ask_for_keys(&stack, "").await;
    let value = |name: &str| {
        let mut lines = answer.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let cache = value("cache-control").expect("a Cache-Control");
    let age: i64 = cache.strip_prefix("public, max-age=").expect("an age").parse().expect("s");
    assert!(age < NEXT_AGE_SECS_MIN, "{age}");
    for id in [stack.auth.key_id(), next_id(&stack)] {
        assert!(answer.contains(&id), "{id}: {answer}");
    }
    let known = format!("If-None-Match: {}\r\n", value("etag").expect("an ETag"));
    assert!(ask_for_keys(&stack, &known).await.starts_with("HTTP/1.1 304 "));
    rotate(&stack.auth.config().keys(), How::Now, false, &stack.clock).expect("rotating");
    let answer = ask_for_keys(&stack, &known).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(&next_id(&stack)), "{answer}");
}

//! The link: the registry asks the auth server over TLS, as from another machine.

use std::{fs, sync::Arc};

use auth_server::link_files::{add_secret, drop_secret};
use berth_shared::{link_secret::LinkSecrets, serve::health};
use harness::{
    Client, Stack,
    client::HOST,
    eventually,
    image::Image,
    link,
    stack::{Options, PASSWORD},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::TLS12,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{
    metrics::{read, value},
    revocation::revoke,
};

const SCOPE: &str = "repository:app:pull,push";

/// Everything that is answered there.
const TARGETS: [&str; 6] = [
    "/token?service=berth",
    "/keys",
    "/revocations",
    "/rights?subject=andrew",
    "/healthz",
    "/readyz",
];

async fn linked(auth: &str) -> Stack {
    Stack::with(Options { link: true, auth: auth.to_owned(), ..Options::default() }).await
}

fn secret_of(stack: &Stack) -> String {
    let secrets = LinkSecrets::read(&stack.root().join("link/secret")).expect("the secret");
    secrets.shown().to_str().expect("text").to_owned()
}

fn of_link(stack: &Stack) -> Client {
    link::client(stack.root(), stack.link_address(), &[])
}

/// Whether somebody who signs in gets a token; what the answer is when not.
async fn sign_in(stack: &Stack) -> u16 {
    let call = stack.client.call("GET", "/token?service=berth").basic("andrew", PASSWORD);
    call.send().await.status.as_u16()
}

async fn signs_in_again(stack: &Stack) {
    eventually("sign-in works", async || (sign_in(stack).await == 200).then_some(())).await;
}

#[tokio::test]
async fn who_asks_over_the_link_signs_in_pushes_pulls_and_loses_what_is_taken_away() {
    let stack = linked("").await;
    stack.grant("andrew", "app:push").await;
    let token = stack.token("andrew", &[SCOPE]).await;
    Image::new("one").push(&stack.client, &token, "app", "v1").await;
    // Rights that no token says are asked for there too.
    let catalog = stack.token("andrew", &["registry:catalog:*"]).await;
    let list = stack.client.get(&catalog, "/v2/_catalog").await.expect(200);
    assert_eq!(list.json()["repositories"], serde_json::json!(["app"]));
    stack
        .client
        .call("GET", "/v2/app/manifests/v1")
        .basic("andrew", PASSWORD)
        .send()
        .await
        .expect(200);
    revoke(&stack, "andrew", "app:push").await;
    eventually("the token is void", async || {
        let answer = stack.client.get(&token, "/v2/app/manifests/v1").await;
        (answer.status == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_the_secret_nothing_is_answered_and_with_it_everything() {
    let stack = linked("[metrics]\nlisten = '127.0.0.1:0'").await;
    let (client, secret) = (of_link(&stack), secret_of(&stack));
    let mut refused = 0;
    for target in TARGETS {
        let other = LinkSecrets::generate().expect("a secret");
        let other = other.shown().to_str().expect("text").to_owned();
        let wrong: [&[&str]; 6] =
            [&[], &[""], &[&other], &[&secret[1..]], &[&secret, &secret], &[&other, &secret]];
        for shown in wrong {
            for method in ["GET", "POST", "OPTIONS"] {
                let call = client.call(method, target).basic("andrew", PASSWORD);
                let call =
                    shown.iter().fold(call, |call, secret| call.header("x-berth-link", *secret));
                let answer = call.send().await.expect(401);
                assert!(answer.body.is_empty() && !answer.headers.contains_key("www-authenticate"));
                assert_eq!(answer.header("connection"), "close");
                refused += 1;
            }
        }
        let call = client.call("GET", target).header("x-berth-link", &*secret);
        call.basic("andrew", PASSWORD).send().await.expect(200);
    }
    let counted = value(&read(stack.auth_metrics_address()).await, "berth_link_refusals_total");
    assert!(counted >= f64::from(refused), "{counted} of {refused}");
    client.call("GET", "/nothing").send().await.expect(401);
    client.call("GET", "/nothing").header("x-berth-link", &*secret).send().await.expect(404);
    // It is a header of the link alone.
    let public = stack.client.call("GET", "/revocations").header("x-berth-link", &*secret);
    public.send().await.expect(404);
}

#[tokio::test]
async fn tls_1_2_http_2_and_another_ca_are_not_spoken_with() {
    let stack = linked("").await;
    let address = stack.link_address();
    let ca = CertificateDer::from_pem_file(stack.root().join("link/ca.pem")).expect("the CA");
    let shake = async |alpn: &[&str], is_old: bool| {
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone()).expect("a root");
        let versions = if is_old { &[&TLS12][..] } else { rustls::DEFAULT_VERSIONS };
        let config = ClientConfig::builder_with_protocol_versions(versions);
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await.expect("a connection");
        let name = ServerName::try_from(HOST).expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.is_ok()
    };
    assert!(shake(&[], false).await && shake(&["http/1.1"], false).await);
    assert!(!shake(&[], true).await, "TLS 1.2");
    assert!(!shake(&["h2"], false).await, "HTTP/2");
    // The registry talks to nobody whose certificate another CA made, and goes on with what it has.
    stack.grant("andrew", "app:push").await;
    let token = stack.token("andrew", &[SCOPE]).await;
    Image::new("one").push(&stack.client, &token, "app", "v1").await;
    let (ours, theirs) = (stack.root().join("server.pem"), stack.root().join("link-there/ca.pem"));
    fs::copy(ours, theirs).expect("another certificate");
    eventually("sign-in waits", async || (sign_in(&stack).await == 503).then_some(())).await;
    stack.client.get(&token, "/v2/app/manifests/v1").await.expect(200);
    let control = stack.root().join("registry/registry.sock");
    let told = eventually("readiness says so", async || health::ask(&control).await.err()).await;
    assert!(told.contains("certificate of") && told.contains("link.ca"), "{told}");
    link::bring(stack.root(), "ca.pem");
    signs_in_again(&stack).await;
    eventually("it is ready again", async || health::ask(&control).await.ok()).await;
}

#[tokio::test]
async fn a_wrong_secret_is_told_where_it_is_looked_for_and_to_nobody_as_a_wrong_password() {
    let stack = linked("").await;
    let control = stack.root().join("registry/registry.sock");
    health::ask(&control).await.expect("ready");
    let there = stack.root().join("link-there/secret");
    fs::write(&there, &*LinkSecrets::generate().expect("a secret").to_text()).expect("writing");
    let told = eventually("readiness says so", async || health::ask(&control).await.err()).await;
    assert!(
        told.contains("refuses the link's secret") && told.contains("link.secret_file"),
        "{told}"
    );
    assert_eq!(stack.client.call("GET", "/readyz").send().await.status, 503);
    let call = stack.client.call("GET", "/token?service=berth").basic("andrew", PASSWORD);
    let answer = call.send().await.expect(503);
    assert!(!answer.headers.contains_key("x-berth-link"));
    let call = stack.client.call("GET", "/v2/").basic("andrew", PASSWORD);
    call.send().await.expect(503);
    link::bring(stack.root(), "secret");
    eventually("it is ready again", async || health::ask(&control).await.ok()).await;
    assert_eq!(sign_in(&stack).await, 200);
}

#[tokio::test]
async fn a_secret_is_changed_without_a_request_that_fails() {
    let stack = linked("").await;
    let secret = stack.root().join("link/secret");
    let old = secret_of(&stack);
    assert!(add_secret(&secret).expect("a second secret"));
    assert_eq!(sign_in(&stack).await, 200);
    link::bring(stack.root(), "secret");
    assert_eq!(sign_in(&stack).await, 200);
    assert!(drop_secret(&secret).expect("dropping the old one"));
    assert_eq!(sign_in(&stack).await, 200);
    let call = of_link(&stack).call("GET", "/keys").header("x-berth-link", &*old);
    call.send().await.expect(401);
}

#[tokio::test]
async fn pulls_go_on_while_the_other_end_is_away_and_sign_in_when_it_is_back() {
    let mut stack = linked("").await;
    stack.grant("andrew", "app:push").await;
    let token = stack.token("andrew", &[SCOPE]).await;
    Image::new("one").push(&stack.client, &token, "app", "v1").await;
    stack.stop_auth().await;
    stack.client.get(&token, "/v2/app/manifests/v1").await.expect(200);
    assert_eq!(sign_in(&stack).await, 503);
    stack.stop_registry().await;
    stack.start_registry().await;
    stack.client.get(&token, "/v2/app/manifests/v1").await.expect(200);
    stack.start_auth().await;
    signs_in_again(&stack).await;
}

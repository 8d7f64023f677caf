//! Several servers at the other end, each on an address of its own.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{Request, StatusCode, header},
    routing::get,
};
use berth_shared::{
    auth_api::LINK_SECRET_HEADER,
    claimant::network_of,
    link_secret::LinkSecrets,
    serve::{Limits, Listener, Name, serve, tls::Tls},
};
use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{super::error::Error, replica::Replica, replicas::Replicas, settings::Settings};

/// The most that a test takes of an answer.
const BYTES_MAX: usize = 1024;

/// Files as `authctl link init` makes them, for 127.0.0.1.
struct Ground {
    directory: TempDir,
    settings: Settings,
}

impl Ground {
    fn new() -> Self {
        berth_shared::crypto::install();
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(at("ca.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate().unwrap();
        let of_server = CertificateParams::new(vec!["auth.test".to_owned()]).unwrap();
        let of_server = of_server.signed_by(&key, &issuer).unwrap();
        std::fs::write(at("server.pem"), of_server.pem()).unwrap();
        std::fs::write(at("server.key"), key.serialize_pem()).unwrap();
        std::fs::write(at("secret"), &*LinkSecrets::generate().unwrap().to_text()).unwrap();
        let authority = "auth.test:5002".parse().unwrap();
        let settings = Settings { authority, ca: at("ca.pem"), secret_file: at("secret") };
        Self { directory, settings }
    }

    /// A server that answers with these routes.
    fn serve(&self, routes: Router) -> Server {
        let at = |name| self.directory.path().join(name);
        let tls = Tls::load_for_link(&at("server.pem"), &at("server.key")).unwrap();
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), Some(Arc::new(tls))).unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let name = Name { server: "test", listener: "link" };
        let running = serve(listener, name, routes, Limits::default(), shutdown.clone());
        Server { address, shutdown, running: tokio::spawn(running) }
    }

    /// One that says which it is.
    fn named(&self, name: &'static str) -> Server {
        self.serve(Router::new().route("/", get(move || async move { name })))
    }

    fn way_to(&self, servers: &[&Server]) -> (Replicas, Arc<Vec<Replica>>) {
        let replicas = Replicas::open(&self.settings).unwrap();
        let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
        let all = replicas.take(&addresses);
        (replicas, all)
    }
}

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Server {
    async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap();
    }
}

fn request() -> Request<Bytes> {
    Request::get("/").header(header::HOST, "test").body(Bytes::new()).unwrap()
}

async fn ask(replicas: &Replicas, all: &[Replica]) -> Result<String, Error> {
    let answer = replicas.ask_one_of(all, request(), BYTES_MAX).await?;
    Ok(String::from_utf8(answer.into_body().to_vec()).unwrap())
}

async fn forward(replicas: &Replicas, all: &[Replica], from: IpAddr) -> Result<String, Error> {
    let network = Some(network_of(from));
    let answer = replicas.forward_to_its_own(all, request(), network, BYTES_MAX).await?;
    Ok(String::from_utf8(answer.into_body().to_vec()).unwrap())
}

#[tokio::test]
async fn polls_are_spread_and_go_past_one_that_gives_no_answer() {
    let ground = Ground::new();
    let (a, b) = (ground.named("a"), ground.named("b"));
    let (replicas, all) = ground.way_to(&[&a, &b]);
    let mut told = std::collections::BTreeSet::new();
    while told.len() < 2 {
        told.insert(ask(&replicas, &all).await.unwrap());
    }
    a.stop().await;
    for _ in 0..4 {
        assert_eq!(ask(&replicas, &all).await.unwrap(), "b");
    }
    b.stop().await;
    // Whichever was asked first, the same is told.
    let mut told = std::collections::BTreeSet::new();
    for _ in 0..16 {
        let error = ask(&replicas, &all).await.unwrap_err();
        assert!(matches!(error, Error::Client(_)));
        told.insert(berth_shared::telemetry::chain(&error));
    }
    assert_eq!(told.len(), 1, "{told:?}");
}

#[tokio::test]
async fn one_that_is_slow_or_unwell_holds_up_no_poll_while_another_answers() {
    let ground = Ground::new();
    let unwell = get(|| async { (StatusCode::SERVICE_UNAVAILABLE, "unwell") });
    let silent = get(|| async {
        std::future::pending::<()>().await;
    });
    for routes in [unwell, silent] {
        let (bad, good) = (ground.serve(Router::new().route("/", routes)), ground.named("good"));
        let (replicas, all) = ground.way_to(&[&bad, &good]);
        for _ in 0..20 {
            assert_eq!(ask(&replicas, &all).await.unwrap(), "good");
        }
        // It was found out once, and is asked last for a while.
        assert!(!all[0].is_well() && all[1].is_well());
    }
}

#[tokio::test]
async fn a_kept_connection_that_died_without_a_word_costs_a_poll_seconds_and_no_more() {
    let ground = Ground::new();
    let is_first = Arc::new(AtomicBool::new(true));
    let once_silent = || {
        let is_first = Arc::clone(&is_first);
        let answer = get(move || async move {
            if is_first.swap(false, Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            "well"
        });
        ground.serve(Router::new().route("/", answer))
    };
    let server = once_silent();
    let (replicas, all) = ground.way_to(&[&server]);
    assert_eq!(ask(&replicas, &all).await.unwrap(), "well");
    is_first.store(true, Ordering::SeqCst);
    let (server, other) = (once_silent(), ground.named("well"));
    let (replicas, all) = ground.way_to(&[&server, &other]);
    while is_first.load(Ordering::SeqCst) {
        assert_eq!(ask(&replicas, &all).await.unwrap(), "well");
    }
    assert!(all[0].is_well(), "it stands back, though only a connection was dead");
}

#[tokio::test]
async fn a_network_has_one_server_and_another_only_while_that_cannot_be_connected_to() {
    let ground = Ground::new();
    let (a, b) = (ground.named("a"), ground.named("b"));
    let (replicas, all) = ground.way_to(&[&a, &b]);
    let from = |n: u8, host: u8| IpAddr::from([192, 0, n, host]);
    let mut owners = Vec::new();
    for n in 0..16 {
        let owner = forward(&replicas, &all, from(n, 1)).await.unwrap();
        assert_eq!(forward(&replicas, &all, from(n, 200)).await.unwrap(), owner, "{n}");
        owners.push(owner);
    }
    assert!(owners.contains(&"a".to_owned()) && owners.contains(&"b".to_owned()), "{owners:?}");
    // Of one that goes, the networks of the other do not notice.
    a.stop().await;
    for n in 0..16 {
        assert_eq!(forward(&replicas, &all, from(n, 1)).await.unwrap(), "b");
    }
    let alone = replicas.take(&[b.address]);
    assert_eq!(forward(&replicas, &alone, from(0, 1)).await.unwrap(), "b");
}

#[tokio::test]
async fn what_was_sent_to_one_is_never_sent_to_another() {
    let ground = Ground::new();
    // It reads the request, and is gone.
    let gone = get(|| async { StatusCode::BAD_GATEWAY });
    let (bad, good) = (ground.serve(Router::new().route("/", gone)), ground.named("good"));
    let (replicas, all) = ground.way_to(&[&bad, &good]);
    let mut answers = Vec::new();
    for n in 0..16 {
        let network = Some(network_of([192, 0, n, 1].into()));
        let answer =
            replicas.forward_to_its_own(&all, request(), network, BYTES_MAX).await.unwrap();
        answers.push(answer.status());
    }
    assert!(answers.contains(&StatusCode::BAD_GATEWAY) && answers.contains(&StatusCode::OK));
}

#[tokio::test]
async fn one_that_refuses_the_secret_looked_at_nothing_and_all_that_do_are_told_from_a_wrong_password()
 {
    let ground = Ground::new();
    let refuses =
        || get(|| async { (StatusCode::UNAUTHORIZED, [(LINK_SECRET_HEADER, "refused")]) });
    let bad = ground.serve(Router::new().route("/", refuses()));
    let good = ground.named("good");
    let (replicas, all) = ground.way_to(&[&bad, &good]);
    for n in 0..8 {
        assert_eq!(forward(&replicas, &all, [192, 0, n, 1].into()).await.unwrap(), "good");
        assert_eq!(ask(&replicas, &all).await.unwrap(), "good");
    }
    let (replicas, all) = ground.way_to(&[&bad]);
    let refused = forward(&replicas, &all, [192, 0, 2, 1].into()).await;
    assert!(matches!(refused, Err(Error::Refused)));
    assert!(matches!(ask(&replicas, &all).await, Err(Error::Refused)));
    // What a wrong password gets is passed on.
    let wrong = ground.serve(Router::new().route("/", get(|| async { StatusCode::UNAUTHORIZED })));
    let (replicas, all) = ground.way_to(&[&wrong]);
    let network = Some(network_of([192, 0, 2, 1].into()));
    let answer = replicas.forward_to_its_own(&all, request(), network, BYTES_MAX).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn connections_to_an_address_that_stays_are_kept_and_other_trust_ends_all() {
    let ground = Ground::new();
    let (a, b) = (ground.named("a"), ground.named("b"));
    let (replicas, all) = ground.way_to(&[&a]);
    ask(&replicas, &all).await.unwrap();
    let both = replicas.take(&[a.address, b.address]);
    assert_eq!(both.len(), 2);
    a.stop().await;
    // Another CA is trusted now, of which nobody has a certificate.
    let other = Ground::new();
    std::fs::copy(&other.settings.ca, &ground.settings.ca).unwrap();
    let untrusted = replicas.take(&[b.address]);
    let refused = tokio::time::timeout(Duration::from_secs(20), ask(&replicas, &untrusted)).await;
    let told = berth_shared::telemetry::chain(&refused.unwrap().unwrap_err());
    assert!(told.contains("certificate"), "{told}");
    b.stop().await;
}

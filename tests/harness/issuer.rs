//! Somebody else who issues tokens: a server on the loopback with discovery and keys, which counts
//! what it is asked, and keys that sign whatever a test makes up.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair as CertificateKey};
use ring::{
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RsaKeyPair,
    },
};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

use crate::forger::message;

/// Where discovery is.
pub const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Where discovery says that the keys are.
pub const KEYS: &str = "/keys";

/// Made for these tests: nothing in the tree can make RSA keys.
const RSA_KEY: &str = include_str!("../golden/foreign-issuer-rsa.key");

/// A key of an issuer.
pub struct IssuerKey {
    pair: Pair,
    /// Its key id.
    pub id: String,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl IssuerKey {
    /// A key for `RS256`, the same each time.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn rs256(id: &str) -> Self {
        let base64: String = RSA_KEY.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(base64).expect("a key");
        let pair = Pair::Rsa(RsaKeyPair::from_pkcs8(&der).expect("a key"));
        Self { pair, id: id.to_owned() }
    }

    /// A new key for `ES256`.
    ///
    /// # Panics
    /// When the system gives no randomness.
    #[must_use]
    pub fn es256(id: &str) -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let der = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, der.as_ref(), &random).expect("a key");
        Self { pair: Pair::Ec(pair), id: id.to_owned() }
    }

    /// A new key for `EdDSA`.
    ///
    /// # Panics
    /// When the system gives no randomness.
    #[must_use]
    pub fn eddsa(id: &str) -> Self {
        let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let pair = Ed25519KeyPair::from_pkcs8(der.as_ref()).expect("a key");
        Self { pair: Pair::Ed(pair), id: id.to_owned() }
    }

    /// The header that an honest issuer writes.
    #[must_use]
    pub fn header(&self) -> Value {
        let algorithm = match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::Ec(_) => "ES256",
            Pair::Ed(_) => "EdDSA",
        };
        json!({ "typ": "JWT", "alg": algorithm, "kid": self.id })
    }

    /// A token as an honest issuer makes it.
    #[must_use]
    pub fn token(&self, claims: &Value) -> String {
        self.sign(&self.header(), claims)
    }

    /// A token with the signature that this key makes, whatever the header says of it.
    ///
    /// # Panics
    /// When the system gives no randomness.
    #[must_use]
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let (message, random) = (message(header, claims), SystemRandom::new());
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature)
                    .expect("a signature");
                signature
            }
            Pair::Ec(pair) => {
                pair.sign(&random, message.as_bytes()).expect("a signature").as_ref().to_vec()
            }
            Pair::Ed(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The public key as a JSON Web Key.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                let PublicKeyComponents::<Vec<u8>> { n, e } = pair.public().into();
                json!({ "kty": "RSA", "alg": "RS256", "n": encode(&n), "e": encode(&e) })
            }
            Pair::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
            }
            Pair::Ed(pair) => {
                let x = encode(pair.public_key().as_ref());
                json!({ "kty": "OKP", "crv": "Ed25519", "x": x })
            }
        };
        jwk["kid"] = self.id.as_str().into();
        jwk["use"] = "sig".into();
        jwk
    }
}

/// A key set of these keys.
#[must_use]
pub fn key_set(keys: &[&IssuerKey]) -> String {
    json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }).to_string()
}

/// The server.
pub struct IssuerServer {
    /// The issuer's name, which is where it is.
    pub url: String,
    /// The certificate to believe it by, as PEM; empty without TLS.
    pub ca: String,
    state: Arc<State>,
}

struct State {
    answers: Mutex<HashMap<String, Answer>>,
    requests: AtomicUsize,
    is_down: AtomicBool,
    is_held: watch::Sender<bool>,
}

#[derive(Clone)]
struct Answer {
    status: u16,
    location: Option<String>,
    body: Bytes,
}

impl IssuerServer {
    /// With plain HTTP, and these keys behind discovery.
    pub async fn start(keys: &[&IssuerKey]) -> Self {
        Self::serve(keys, None).await
    }

    /// With TLS, by a certificate of its own.
    ///
    /// # Panics
    /// When none can be made.
    pub async fn start_tls(keys: &[&IssuerKey]) -> Self {
        berth_shared::crypto::install();
        let key = CertificateKey::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        let certificate = params.self_signed(&key).expect("a certificate");
        let der = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], der)
            .expect("a TLS configuration");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::serve(keys, Some((acceptor, certificate.pem()))).await
    }

    async fn serve(keys: &[&IssuerKey], tls: Option<(TlsAcceptor, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address: SocketAddr = listener.local_addr().expect("an address");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{address}");
        let state = Arc::new(State {
            answers: Mutex::default(),
            requests: AtomicUsize::new(0),
            is_down: AtomicBool::new(false),
            is_held: watch::Sender::new(false),
        });
        let (acceptor, ca) = tls.unzip();
        tokio::spawn(accept(listener, acceptor, Arc::clone(&state)));
        let server = Self { url, ca: ca.unwrap_or_default(), state };
        server.discovery(&server.url, &format!("{}{KEYS}", server.url));
        server.keys(keys);
        server
    }

    /// What discovery says from now on.
    pub fn discovery(&self, issuer: &str, keys: &str) {
        let body = json!({ "issuer": issuer, "jwks_uri": keys }).to_string();
        self.answer(DISCOVERY, 200, body);
    }

    /// Which keys there are from now on.
    pub fn keys(&self, keys: &[&IssuerKey]) {
        self.answer(KEYS, 200, key_set(keys));
    }

    /// What is answered from now on at `path`.
    pub fn answer(&self, path: &str, status: u16, body: impl Into<Bytes>) {
        self.put(path, Answer { status, location: None, body: body.into() });
    }

    /// Sends whoever asks at `path` elsewhere.
    pub fn redirect(&self, path: &str, location: &str) {
        let location = Some(location.to_owned());
        self.put(path, Answer { status: 302, location, body: Bytes::new() });
    }

    fn put(&self, path: &str, answer: Answer) {
        let mut answers = self.state.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(path.to_owned(), answer);
    }

    /// Whether connections are closed from now on without an answer.
    pub fn set_down(&self, is_down: bool) {
        self.state.is_down.store(is_down, Ordering::SeqCst);
    }

    /// Whether answers are held back from now on.
    pub fn hold(&self, is_held: bool) {
        self.state.is_held.send_replace(is_held);
    }

    /// How many connections and requests there have been: a connection that got no answer counts
    /// once, a request once.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        if state.is_down.load(Ordering::SeqCst) {
            state.requests.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            match acceptor {
                None => exchange(stream, state).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        exchange(stream, state).await;
                    }
                }
            }
        });
    }
}

async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<State>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(respond(&state, &request).await) }
    });
    // A client that leaves is no failure of a test.
    let _ = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn respond(state: &State, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    state.requests.fetch_add(1, Ordering::SeqCst);
    // Fails when the server is gone, and then nobody waits for the answer.
    let _ = state.is_held.subscribe().wait_for(|is_held| !is_held).await;
    if !is_acceptable(request) {
        return Response::builder().status(406).body(Full::default()).expect("a response");
    }
    let answers = state.answers.lock().unwrap_or_else(PoisonError::into_inner);
    let nothing = Answer { status: 404, location: None, body: Bytes::new() };
    let answer = answers.get(path).cloned().unwrap_or(nothing);
    let mut response = Response::builder().status(answer.status);
    if let Some(location) = answer.location {
        response = response.header("location", location);
    }
    response.body(Full::new(answer.body)).expect("a response")
}

/// As strictly as a Kubernetes API server judges it: keys have one type, and the document another.
fn is_acceptable(request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    let own = if path == KEYS { "application/jwk-set+json" } else { "application/json" };
    match request.headers().get("accept").map(|accept| accept.to_str().unwrap_or_default()) {
        Some(accept) => accept.split(',').any(|kind| [own, "*/*"].contains(&kind.trim())),
        None => true,
    }
}

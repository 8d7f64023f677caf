//! A client that sends exactly what it is told to, and checks what every answer must have.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The name that the server's certificate is for.
pub const HOST: &str = "reg.test";

/// Headers that an answer may have; any other is a leak, or belongs in this list.
const HEADERS: &[&str] = &[
    "accept-ranges",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "allow",
    "cache-control",
    "connection",
    "content-length",
    "content-range",
    "content-security-policy",
    "content-type",
    "date",
    "docker-content-digest",
    "docker-distribution-api-version",
    "docker-upload-uuid",
    "oci-chunk-min-length",
    "etag",
    "link",
    "location",
    "oci-filters-applied",
    "oci-subject",
    "oci-tag",
    "pragma",
    "range",
    "retry-after",
    "transfer-encoding",
    "vary",
    "warning",
    "www-authenticate",
    "x-berth-link",
    "x-content-type-options",
    "x-request-id",
];

/// Speaks to a server over TLS, a connection per request; to several, it connects to one after the other.
#[derive(Clone)]
pub struct Client {
    addresses: Arc<[SocketAddr]>,
    connections: Arc<AtomicUsize>,
    /// The address that it comes from; the system chooses where there is none.
    from: Option<IpAddr>,
    tls: Arc<ClientConfig>,
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// A request being put together.
#[derive(Clone)]
pub struct Call {
    client: Client,
    method: Method,
    target: String,
    headers: Vec<(HeaderName, Vec<u8>)>,
    body: Bytes,
    is_sized: bool,
    is_endless: bool,
}

impl Client {
    /// A client that trusts `ca` alone and offers the protocols in `alpn`.
    ///
    /// # Panics
    /// When `ca` is no certificate.
    #[must_use]
    pub fn new(address: SocketAddr, ca: &CertificateDer<'_>, alpn: &[&str]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned()).expect("a CA certificate");
        let mut tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let connections = Arc::default();
        Self { addresses: [address].into(), connections, from: None, tls: Arc::new(tls) }
    }

    /// The same, of these servers.
    #[must_use]
    pub fn of(&self, addresses: Vec<SocketAddr>) -> Self {
        Self { addresses: addresses.into(), ..self.clone() }
    }

    /// The same, coming from another address of this machine.
    #[must_use]
    pub fn from_address(&self, address: IpAddr) -> Self {
        Self { from: Some(address), ..self.clone() }
    }

    /// Where the server listens, or the first of them.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    fn next(&self) -> SocketAddr {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        self.addresses[number % self.addresses.len()]
    }

    /// Begins a request.
    #[must_use]
    pub fn call(&self, method: &str, target: impl Into<String>) -> Call {
        Call {
            client: self.clone(),
            method: method.parse().expect("a method"),
            target: target.into(),
            headers: vec![(header::HOST, HOST.into())],
            body: Bytes::new(),
            is_sized: true,
            is_endless: false,
        }
    }

    /// `GET` with a token.
    pub async fn get(&self, token: &str, target: impl Into<String>) -> Response {
        self.call("GET", target).bearer(token).send().await
    }

    /// `HEAD` with a token.
    pub async fn head(&self, token: &str, target: impl Into<String>) -> Response {
        self.call("HEAD", target).bearer(token).send().await
    }

    /// `DELETE` with a token.
    pub async fn delete(&self, token: &str, target: impl Into<String>) -> Response {
        self.call("DELETE", target).bearer(token).send().await
    }

    /// A TLS connection, for tests that write bytes themselves.
    ///
    /// # Panics
    /// When the server cannot be reached or is not trusted.
    pub async fn connect(&self) -> TlsStream<TcpStream> {
        self.try_connect().await.expect("connecting")
    }

    /// A connection without TLS.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub async fn connect_plain(&self) -> TcpStream {
        TcpStream::connect(self.next()).await.expect("connecting")
    }

    /// A TLS connection.
    ///
    /// # Errors
    /// When the server cannot be reached or is not trusted.
    pub async fn try_connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        self.handshake(self.socket()?.connect(self.next()).await?).await
    }

    /// A TLS connection of which the system holds few unread bytes, so that a client that reads
    /// slowly is seen to.
    ///
    /// # Errors
    /// When the server cannot be reached or is not trusted.
    pub async fn try_connect_narrow(&self) -> std::io::Result<TlsStream<TcpStream>> {
        const RECEIVE_BUFFER_BYTES: u32 = 16 * 1024;
        let socket = self.socket()?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        self.handshake(socket.connect(self.next()).await?).await
    }

    fn socket(&self) -> std::io::Result<TcpSocket> {
        let socket =
            if self.address().is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(from) = self.from {
            socket.bind((from, 0).into())?;
        }
        Ok(socket)
    }

    async fn handshake(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(HOST).expect("a host name");
        TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await
    }
}

impl Call {
    /// Adds a header; a second one of the same name stands beside the first.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.parse().expect("a header name"), value.into()));
        self
    }

    /// Adds a bearer token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// Adds user and password.
    #[must_use]
    pub fn basic(self, user: &str, password: &str) -> Self {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let credentials = STANDARD.encode(format!("{user}:{password}"));
        self.header("authorization", format!("Basic {credentials}"))
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends the body without saying its length: chunked in HTTP/1.1, plain frames in HTTP/2.
    #[must_use]
    pub fn streamed(mut self) -> Self {
        self.is_sized = false;
        self
    }

    /// Sends the body and then neither more nor its end, until the request is given up.
    #[must_use]
    pub fn endless(mut self) -> Self {
        self.is_endless = true;
        self.streamed()
    }

    /// Sends the request and reads the answer.
    ///
    /// # Panics
    /// When the exchange breaks, or the answer lacks what every answer must have.
    pub async fn send(self) -> Response {
        let path = self.target.clone();
        let is_head = self.method == Method::HEAD;
        let response = self.try_send().await.expect("an answer");
        response.check(&path, is_head);
        response
    }

    /// Sends the request and reads an answer that need not come from a handler. `None` when the
    /// exchange breaks.
    ///
    /// # Panics
    /// When there is no connection.
    pub async fn try_send(self) -> Option<Response> {
        let stream = self.client.connect().await;
        self.exchange(stream).await
    }

    /// Sends the request to a server that may be gone. `None` when there is no connection or the
    /// exchange breaks.
    pub async fn attempt(self) -> Option<Response> {
        let stream = self.client.try_connect().await.ok()?;
        self.exchange(stream).await
    }

    async fn exchange(self, stream: TlsStream<TcpStream>) -> Option<Response> {
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let target =
            if is_http2 { format!("https://{HOST}{}", self.target) } else { self.target.clone() };
        let mut request = Request::builder().method(self.method).uri(target);
        for (name, value) in self.headers {
            if !(is_http2 && name == header::HOST) {
                request = request.header(name, value);
            }
        }
        let request = request
            .body(Outgoing::new(self.body, self.is_sized, self.is_endless))
            .expect("a request");
        let io = TokioIo::new(stream);
        let response = if is_http2 {
            let executor = hyper_util::rt::TokioExecutor::new();
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(executor, io).await.ok()?;
            tokio::spawn(connection);
            sender.send_request(request).await
        } else {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(io).await.expect("HTTP/1.1");
            tokio::spawn(connection);
            sender.send_request(request).await
        };
        let (parts, body) = response.ok()?.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some(Response { status: parts.status, headers: parts.headers, body })
    }
}

impl Response {
    /// A header that must be there.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.find_header(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// A header that may be there.
    #[must_use]
    pub fn find_header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON in {self:?}"))
    }

    /// The code of the first error in the body.
    #[must_use]
    pub fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Everything but what names this one request.
    #[must_use]
    pub fn comparable(&self) -> String {
        let mut headers = self.headers.clone();
        headers.remove("date");
        headers.remove("x-request-id");
        format!("{} {headers:?} {:?}", self.status, self.body)
    }

    /// Asserts the status, showing the whole answer when it is another.
    ///
    /// # Panics
    /// When it is another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        self
    }

    /// Asserts status and error code.
    ///
    /// # Panics
    /// When either is another.
    #[track_caller]
    pub fn expect_error(self, status: u16, code: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.code(), code, "{answer:?}");
        answer
    }

    pub(crate) fn check(&self, path: &str, is_head: bool) {
        for name in self.headers.keys() {
            assert!(HEADERS.contains(&name.as_str()), "unexpected header {name} in {self:?}");
        }
        let _ = self.header("x-request-id");
        let failed = self.status.is_client_error() || self.status.is_server_error();
        if path.starts_with("/v2") {
            assert_eq!(self.header("docker-distribution-api-version"), "registry/2.0");
        }
        let is_api = path.starts_with("/v2") || path.starts_with("/token");
        // Whoever has not the link's secret is told nothing.
        let is_of_link = self.headers.contains_key("x-berth-link");
        if failed && is_api && !is_head && !is_of_link {
            assert_eq!(self.header("content-type"), "application/json");
            let entry = &self.json()["errors"][0];
            assert!(entry["code"].is_string() && entry["message"].is_string(), "{self:?}");
        }
        if self.status == StatusCode::NO_CONTENT {
            assert!(self.body.is_empty());
        }
    }
}

/// A body in pieces of 64 KiB, whose length is announced or not.
struct Outgoing {
    pieces: VecDeque<Bytes>,
    announced: Option<u64>,
    is_endless: bool,
}

impl Outgoing {
    fn new(mut body: Bytes, is_sized: bool, is_endless: bool) -> Self {
        let announced = is_sized.then_some(body.len() as u64);
        let mut pieces = VecDeque::new();
        while !body.is_empty() {
            pieces.push_back(body.split_to(body.len().min(64 * 1024)));
        }
        Self { pieces, announced, is_endless }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.pieces.pop_front() {
            None if self.is_endless => Poll::Pending,
            piece => Poll::Ready(piece.map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.announced.is_some()
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

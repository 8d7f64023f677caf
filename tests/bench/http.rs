//! A client that keeps its connections and speaks HTTP/1.1, for what is many small requests.

use std::{io, path::Path, sync::Arc};

use ::http::{Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The client.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    tls: Arc<ClientConfig>,
}

impl Http {
    /// A client that trusts `ca`, a PEM file.
    pub(crate) fn new(ca: &Path) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(ca).map_err(io::Error::other)?;
        roots.add(ca).map_err(io::Error::other)?;
        let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls.clone());
        let connector = connector.https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, tls: Arc::new(tls) })
    }

    /// A TLS connection on which nothing is asked yet.
    pub(crate) async fn connect(&self, base: &str) -> io::Result<TlsStream<TcpStream>> {
        let authority = base.trim_start_matches("https://");
        let host = authority.split(':').next().unwrap_or_default().to_owned();
        let host = ServerName::try_from(host).map_err(io::Error::other)?;
        let stream = TcpStream::connect(authority).await?;
        TlsConnector::from(Arc::clone(&self.tls)).connect(host, stream).await
    }

    /// Sends a request and reads the answer whole.
    pub(crate) async fn send(
        &self,
        method: &str,
        url: &str,
        authorization: Option<&str>,
        content_type: Option<&str>,
        body: impl Into<Bytes>,
    ) -> io::Result<Answer> {
        let mut request = Request::builder().method(method).uri(url);
        let headers =
            [(header::AUTHORIZATION, authorization), (header::CONTENT_TYPE, content_type)];
        for (name, value) in headers {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let request = request.body(Full::new(body.into())).map_err(io::Error::other)?;
        let (parts, body) =
            self.client.request(request).await.map_err(io::Error::other)?.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Answer(Response::from_parts(parts, body)))
    }
}

/// An answer.
pub(crate) struct Answer(Response<Bytes>);

impl Answer {
    /// The answer, when it has one of these statuses.
    pub(crate) fn expect(self, statuses: &[StatusCode]) -> io::Result<Self> {
        if statuses.contains(&self.0.status()) {
            return Ok(self);
        }
        let text = String::from_utf8_lossy(self.0.body());
        let text: String = text.chars().take(200).collect();
        Err(io::Error::other(format!("{}: {text}", self.0.status())))
    }

    pub(crate) fn body(&self) -> &Bytes {
        self.0.body()
    }

    /// The `Location` as a whole URL, with one more query parameter.
    pub(crate) fn location(&self, base: &str, digest: &str) -> io::Result<String> {
        let location = self.0.headers().get(header::LOCATION).and_then(|it| it.to_str().ok());
        let location = location.ok_or_else(|| io::Error::other("no Location"))?;
        Ok(commit_url(base, location, digest))
    }
}

/// Where an upload is ended with this digest.
pub(crate) fn commit_url(base: &str, location: &str, digest: &str) -> String {
    let origin = if location.starts_with('/') { base } else { "" };
    let mark = if location.contains('?') { '&' } else { '?' };
    format!("{origin}{location}{mark}digest={digest}")
}

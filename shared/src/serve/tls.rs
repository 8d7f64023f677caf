//! TLS with a certificate that is read again when its files change.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    file_stamp,
    files::{SMALL_FILE_BYTES_MAX, read_at_most},
    telemetry::chain,
};

/// The name of HTTP/2 in a handshake (RFC 9113 §3.2).
pub(super) const HTTP2: &[u8] = b"h2";

/// The certificate and key in use, and where they came from.
pub struct Tls {
    files: Files,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
    /// Whether a client may speak HTTP/2.
    has_http2: bool,
    /// Where clients that speak no TLS are sent.
    origin: Option<String>,
}

#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    /// What makes them.
    verb: &'static str,
}

#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

/// The certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, or is no PEM.
    #[error(
        "reading {}: {source}; {verb} makes a certificate and its key where neither is there",
        path.display()
    )]
    Read {
        /// Which file.
        path: PathBuf,
        /// What makes one.
        verb: &'static str,
        /// Why.
        source: pem::Error,
    },
    /// There is no certificate in the file.
    #[error("{} holds no certificate", .0.display())]
    NoCertificate(PathBuf),
    /// Certificate and key do not belong together, or the key is of an unknown kind.
    #[error("the certificate and the key cannot be used together")]
    Pair(#[source] rustls::Error),
    /// The protocol versions cannot be set.
    #[error("setting up TLS")]
    Setup(#[source] rustls::Error),
}

impl Tls {
    /// Reads the pair, which must match.
    ///
    /// # Errors
    /// When a file is missing or unreadable, or the two do not belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        Self::with(certificate, key, rustls::DEFAULT_VERSIONS, true)
    }

    /// The same for the link, where both sides are Berth's: TLS 1.3 and HTTP/1.1 alone.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_for_link(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        Self::with(certificate, key, &[&TLS13], false)
    }

    fn with(
        certificate: &Path,
        key: &Path,
        versions: &[&'static SupportedProtocolVersion],
        has_http2: bool,
    ) -> Result<Self, TlsError> {
        crate::crypto::install();
        let verb = if has_http2 { "authctl init" } else { "authctl link init" };
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned(), verb };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let current = Arc::new(Current(ArcSwap::new(files.read(&provider)?)));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        let http2 = has_http2.then(|| HTTP2.to_vec());
        config.alpn_protocols = http2.into_iter().chain([b"http/1.1".to_vec()]).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { files, current, acceptor, has_http2, origin: None })
    }

    pub(super) fn has_http2(&self) -> bool {
        self.has_http2
    }

    /// Names the origin that clients should use, such as `https://reg.example.org`.
    #[must_use]
    pub fn at(self, origin: String) -> Self {
        Self { origin: Some(origin), ..self }
    }

    pub(super) fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Looks at the files until `shutdown` and takes a new pair into use as soon as it matches.
    pub async fn keep_fresh(self: Arc<Self>, shutdown: CancellationToken) {
        let Files { certificate, key, .. } = &self.files;
        file_stamp::reload(&[certificate, key], &shutdown, || self.reload()).await;
    }

    fn reload(&self) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        match self.files.read(&provider) {
            Ok(pair) if pair.cert == self.current.0.load().cert => {}
            Ok(pair) => {
                self.current.0.store(pair);
                tracing::info!(certificate = %self.files.certificate.display(), "new certificate in use");
            }
            // Half of a new pair may be written already: the old one stays until both match.
            Err(error) => tracing::warn!(error = chain(&error), "keeping the old certificate"),
        }
    }
}

impl Files {
    fn read(&self, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
        let read =
            |path: &Path, source| TlsError::Read { path: path.to_owned(), verb: self.verb, source };
        let bytes = |path: &Path| {
            let bytes = read_at_most(path, SMALL_FILE_BYTES_MAX);
            bytes.map_err(|error| read(path, pem::Error::Io(error)))
        };
        let chain = CertificateDer::pem_slice_iter(&bytes(&self.certificate)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| read(&self.certificate, source))?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate(self.certificate.clone()));
        }
        let key = PrivateKeyDer::from_pem_slice(&bytes(&self.key)?)
            .map_err(|source| read(&self.key, source))?;
        CertifiedKey::from_der(chain, key, provider).map(Arc::new).map_err(TlsError::Pair)
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

//! TLS to one address: TLS 1.3 alone, and a certificate of the one CA for the host of `link.url`.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::http::uri::{Authority, Uri};
use berth_shared::{
    client::{Connector, Pool},
    telemetry::chain,
};
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, pem::PemObject},
    version::TLS13,
};
use tokio::{net::TcpStream, time::timeout};
use tower::{Service, service_fn, util::BoxCloneSyncService};

use super::settings::LinkError;

/// How long a connection may take, handshake included.
const CONNECT_TIME: Duration = Duration::from_secs(3);

/// What the two sides talk over.
pub(super) type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// How TLS is spoken with whoever has a certificate of the CA in the file `ca`, which holds `pem`. Each time
/// anew: what is resumed shows no certificate.
pub(super) fn config(ca: &Path, pem: &[u8]) -> Result<ClientConfig, LinkError> {
    let unusable = |reason: String| LinkError::Ca { path: ca.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(chain(&error)))?;
    }
    if roots.is_empty() {
        return Err(unusable("there is no certificate in it".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
    let config = config.map_err(|error| unusable(chain(&error)))?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Connections to one address of `authority`.
pub(super) fn pool(
    config: &ClientConfig,
    address: SocketAddr,
    authority: &Authority,
) -> Pool<Stream> {
    let connect = service_fn(move |_: Uri| async move {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok::<_, std::io::Error>(TokioIo::new(stream))
    });
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(config.clone())
        .https_only()
        .enable_http1()
        .wrap_connector(connect);
    let in_time = service_fn(move |uri: Uri| {
        let mut https = https.clone();
        async move {
            let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
            timeout(CONNECT_TIME, https.call(uri)).await.map_err(late)?
        }
    });
    let connector: Connector<Stream> = BoxCloneSyncService::new(in_time);
    let place = format!("{authority} at {address}");
    Pool::over_tls(connector, &place, authority.clone())
}

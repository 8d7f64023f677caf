//! Fetching an issuer's keys: by discovery, or from the address that the trust names.
//!
//! Everything is bounded, since the other side is somebody else's: time, bytes, keys. Redirects
//! are not followed, and discovery may not send us to another host: what an administrator wrote
//! down is the only place that is asked. Nor can it fill our log: of what it says, errors hold a
//! bounded part.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use berth_shared::{keys::KeySet, telemetry::chain};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde::Deserialize;

use super::{KEY_SET_BYTES_MAX, KEYS_MAX, Remote, claims::shown, url::IssuerUrl};

/// How long discovery and keys may take together. dockerd waits 15 seconds for a token.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest discovery document, in bytes. The known issuers have some 2 KiB.
const DISCOVERY_BYTES_MAX: usize = 64 * 1024;

/// What is taken. A Kubernetes API server has its discovery document in the first form alone, its keys
/// in the second, and answers 406 to who does not name it.
const ACCEPTED: &str = "application/json, application/jwk-set+json";

/// Why an issuer's keys were not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is nothing to believe a server by.
    #[error(
        "the system has no root certificates: install its package ca-certificates, or name the \
         issuer's own with --ca FILE"
    )]
    NoRoots,
    /// The roots of the trust cannot be used.
    #[error("the CA's certificates cannot be used: {0}")]
    Ca(String),
    /// The issuer's server did not answer.
    #[error("asking {url}: {reason}")]
    Exchange {
        /// What was asked for.
        url: String,
        /// What happened.
        reason: String,
    },
    /// It answered something else than 200.
    #[error("{url} answered {status}; only 200 is taken, and redirects are not followed")]
    Status {
        /// What was asked for.
        url: String,
        /// What it answered.
        status: StatusCode,
    },
    /// The answer is too long, or was cut off.
    #[error("reading {url}: {reason}")]
    Body {
        /// What was asked for.
        url: String,
        /// What happened.
        reason: String,
    },
    /// Everything together took too long.
    #[error("no keys within {} s", FETCH_TIMEOUT.as_secs())]
    Slow,
    /// The discovery document cannot be used.
    #[error("reading the issuer's discovery document: {0}")]
    Discovery(String),
    /// The document describes another issuer.
    #[error("the discovery document is of the issuer {0:?}: write exactly that as --issuer")]
    OtherIssuer(String),
    /// Its keys are on another host.
    #[error("the issuer's keys are elsewhere; if that is right, name their place: --keys-url {0}")]
    Elsewhere(String),
    /// The key set cannot be used.
    #[error("the issuer's keys: {0}")]
    Keys(String),
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Gets the keys of an issuer, now.
pub(super) async fn keys(remote: &Remote) -> Result<KeySet, FetchError> {
    tokio::time::timeout(FETCH_TIMEOUT, fetch(remote)).await.map_err(|_| FetchError::Slow)?
}

async fn fetch(remote: &Remote) -> Result<KeySet, FetchError> {
    let client = Https::new(remote.ca.clone()).await?;
    let url = match &remote.keys_url {
        Some(url) => url.clone(),
        None => discover(&client, &remote.issuer).await?,
    };
    let body = client.get(&url, KEY_SET_BYTES_MAX).await?;
    KeySet::from_issuer(&body, KEYS_MAX).map_err(|error| FetchError::Keys(shown(&chain(&error))))
}

/// Where the issuer says its keys are.
async fn discover(client: &Https, issuer: &IssuerUrl) -> Result<IssuerUrl, FetchError> {
    let unreadable = |error: &dyn std::error::Error| FetchError::Discovery(shown(&chain(error)));
    let url = issuer.discovery().map_err(|error| unreadable(&error))?;
    let body = client.get(&url, DISCOVERY_BYTES_MAX).await?;
    let found: Discovery = serde_json::from_slice(&body).map_err(|error| unreadable(&error))?;
    if found.issuer != issuer.as_str() {
        return Err(FetchError::OtherIssuer(shown(&found.issuer)));
    }
    let keys: IssuerUrl = found.jwks_uri.parse().map_err(|error| unreadable(&error))?;
    if !keys.is_beside(issuer) {
        return Err(FetchError::Elsewhere(found.jwks_uri));
    }
    Ok(keys)
}

/// A client for one fetch: nothing is kept open for the next, which is an hour away.
struct Https(Client<HttpsConnector<HttpConnector>, Body>);

impl Https {
    async fn new(ca: Option<Arc<str>>) -> Result<Self, FetchError> {
        // The system's roots are some hundred files.
        let roots = tokio::task::spawn_blocking(move || match ca {
            Some(pem) => roots_of(&pem),
            None => system_roots(),
        });
        let roots = roots.await.map_err(|error| FetchError::Ca(error.to_string()))??;
        let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        // Plain http is for loopback literals alone: `IssuerUrl` has no other.
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector.build())))
    }

    async fn get(&self, url: &IssuerUrl, bytes_max: usize) -> Result<Vec<u8>, FetchError> {
        let named = || url.to_string();
        let broken = |reason| FetchError::Exchange { url: named(), reason };
        let request = Request::get(url.uri())
            .header(header::ACCEPT, ACCEPTED)
            .header(header::USER_AGENT, concat!("berth/", env!("CARGO_PKG_VERSION")))
            .body(Body::empty())
            .map_err(|error| broken(chain(&error)))?;
        // It may name whatever the server's certificate names.
        let answer = self.0.request(request).await;
        let answer = answer.map_err(|error| broken(shown(&chain(&error))))?;
        let (status, body) = (answer.status(), answer.into_body());
        if status != StatusCode::OK {
            return Err(FetchError::Status { url: named(), status });
        }
        let body = Limited::new(body, bytes_max).collect().await;
        let body = body.map_err(|error| {
            let reason = format!("{} (at most {bytes_max} bytes are read)", chain(&*error));
            FetchError::Body { url: named(), reason }
        })?;
        Ok(body.to_bytes().to_vec())
    }
}

/// Whether these PEM certificates can be used as an issuer's roots.
///
/// # Errors
/// When they cannot be read, or there is none.
pub fn check_ca(pem: &str) -> Result<(), FetchError> {
    roots_of(pem).map(|_| ())
}

fn roots_of(pem: &str) -> Result<RootCertStore, FetchError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| FetchError::Ca(error.to_string()))?;
        roots.add(certificate).map_err(|error| FetchError::Ca(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(FetchError::Ca("there is none in PEM form".to_owned()));
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, FetchError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(FetchError::NoRoots) } else { Ok(roots) }
}

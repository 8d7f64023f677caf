//! Fetching an issuer's keys: by discovery, or from the address that the trust names.
//!
//! Everything is bounded, since the other side is somebody else's: time, bytes, keys. Redirects
//! are not followed, and discovery may not send us to another host: what an administrator wrote
//! down is the only place that is asked. Nor can it fill our log: of what it says, errors hold a
//! bounded part.

use std::{fmt, sync::Arc, time::Duration};

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
#[error("{0}")]
pub struct FetchError(pub(super) String);

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Gets the keys of an issuer, now.
pub(super) async fn keys(remote: &Remote) -> Result<KeySet, FetchError> {
    let fetched = tokio::time::timeout(FETCH_TIMEOUT, fetch(remote)).await;
    fetched.map_err(|_| FetchError(format!("no keys within {} s", FETCH_TIMEOUT.as_secs())))?
}

async fn fetch(remote: &Remote) -> Result<KeySet, FetchError> {
    let client = Https::new(remote.ca.clone()).await?;
    let url = match &remote.keys_url {
        Some(url) => url.clone(),
        None => discover(&client, &remote.issuer).await?,
    };
    let body = client.get(&url, KEY_SET_BYTES_MAX).await?;
    KeySet::from_issuer(&body, KEYS_MAX)
        .map_err(|error| FetchError(format!("the issuer's keys: {}", shown(&chain(&error)))))
}

/// Where the issuer says its keys are.
async fn discover(client: &Https, issuer: &IssuerUrl) -> Result<IssuerUrl, FetchError> {
    let unreadable = |error: &dyn std::error::Error| {
        let reason = shown(&chain(error));
        FetchError(format!("reading the issuer's discovery document: {reason}"))
    };
    let url = issuer.discovery().map_err(|error| unreadable(&error))?;
    let body = client.get(&url, DISCOVERY_BYTES_MAX).await?;
    let found: Discovery = serde_json::from_slice(&body).map_err(|error| unreadable(&error))?;
    if found.issuer != issuer.as_str() {
        let other = shown(&found.issuer);
        return Err(FetchError(format!(
            "the discovery document is of the issuer {other:?}: write exactly that as --issuer"
        )));
    }
    let keys: IssuerUrl = found.jwks_uri.parse().map_err(|error| unreadable(&error))?;
    if !keys.is_beside(issuer) {
        return Err(FetchError(format!(
            "the issuer's keys are elsewhere; if that is right, name their place: --keys-url {}",
            found.jwks_uri
        )));
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
        let roots = roots.await.map_err(|error| unusable(&error))??;
        let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        // Plain http is for loopback literals alone: `IssuerUrl` has no other.
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector.build())))
    }

    async fn get(&self, url: &IssuerUrl, bytes_max: usize) -> Result<Vec<u8>, FetchError> {
        let broken = |reason| FetchError(format!("asking {url}: {reason}"));
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
            return Err(FetchError(format!(
                "{url} answered {status}; only 200 is taken, and redirects are not followed"
            )));
        }
        let body = Limited::new(body, bytes_max).collect().await;
        let body = body.map_err(|error| {
            let reason = chain(&*error);
            FetchError(format!("reading {url}: {reason} (at most {bytes_max} bytes are read)"))
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
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    if roots.is_empty() {
        return Err(unusable(&"there is none in PEM form"));
    }
    Ok(roots)
}

fn unusable(reason: &dyn fmt::Display) -> FetchError {
    FetchError(format!("the CA's certificates cannot be used: {reason}"))
}

fn system_roots() -> Result<RootCertStore, FetchError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(FetchError(
            "the system has no root certificates: install its package ca-certificates, or name \
             the issuer's own with --ca FILE"
                .to_owned(),
        ));
    }
    Ok(roots)
}

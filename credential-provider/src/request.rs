//! What a kubelet asks, and what it is answered: `credentialprovider.kubelet.k8s.io/v1`.

use std::{collections::HashMap, io};

use serde::Deserialize;
use serde_json::json;

/// The only version that there is.
const API_VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";

/// What a robot's user name begins with.
const ROBOT: &str = "robot.";

/// A `CredentialProviderRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    api_version: String,
    kind: String,
    #[serde(default)]
    image: String,
    #[serde(default)]
    service_account_token: String,
    #[serde(default)]
    service_account_annotations: HashMap<String, String>,
}

/// Why a pull gets no credentials.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the request on standard input cannot be read: {0}")]
    Unread(#[source] io::Error),
    #[error(transparent)]
    Unwritten(io::Error),
    #[error("{0:?} cannot be the name of a trust: see authctl trust list")]
    NoName(String),
    #[error("the request on standard input has more than 1 MiB")]
    TooLong,
    /// What stands there is not shown: it may be a token in the wrong place.
    #[error("standard input has no CredentialProviderRequest: line {line}, column {column}")]
    NoRequest { line: usize, column: usize },
    #[error(
        "the request is a {kind:?} of {api_version:?}: set apiVersion to {API_VERSION} in the \
         kubelet's CredentialProviderConfig"
    )]
    OtherVersion { kind: String, api_version: String },
    #[error(
        "the image {image:?} is on none of these hosts, and no other gets a token: {hosts}; see --host, \
         and matchImages in the kubelet's CredentialProviderConfig"
    )]
    OtherHost { image: String, hosts: String },
    #[error(
        "the request has no service-account token: the provider needs tokenAttributes with a \
         serviceAccountTokenAudience in the kubelet's CredentialProviderConfig"
    )]
    NoToken,
    #[error(
        "the service account has no annotation {0}: kubectl annotate serviceaccount NAME {0}=TRUST, or \
         name one trust for all with --trust"
    )]
    NoTrust(String),
}

impl Request {
    pub(crate) fn read(text: &[u8]) -> Result<Self, Refusal> {
        let request: Self = serde_json::from_slice(text)
            .map_err(|error| Refusal::NoRequest { line: error.line(), column: error.column() })?;
        if request.api_version != API_VERSION || request.kind != "CredentialProviderRequest" {
            let (kind, api_version) = (beginning(&request.kind), beginning(&request.api_version));
            return Err(Refusal::OtherVersion { kind, api_version });
        }
        Ok(request)
    }

    /// The host that the image is on, as it is written there, if it is one of `hosts`. A token is
    /// shown to whom it is meant for alone: a container runtime that pulls from elsewhere would show
    /// it there.
    pub(crate) fn host(&self, hosts: &[String]) -> Result<&str, Refusal> {
        let on = self.image.split_once('/').map_or("", |(host, _)| host);
        if hosts.iter().any(|host| host.eq_ignore_ascii_case(on)) {
            return Ok(on);
        }
        Err(Refusal::OtherHost { image: beginning(&self.image), hosts: hosts.join(", ") })
    }

    pub(crate) fn token(&self) -> Result<&str, Refusal> {
        match self.service_account_token.as_str() {
            "" => Err(Refusal::NoToken),
            token => Ok(token),
        }
    }

    /// The trust that the service account names in its annotation `key`, or else `common`.
    pub(crate) fn trust<'r>(
        &'r self,
        key: &str,
        common: Option<&'r str>,
    ) -> Result<&'r str, Refusal> {
        let named = self.service_account_annotations.get(key).map(String::as_str);
        let named = named.filter(|name| !name.is_empty()).or(common);
        let named = named.ok_or_else(|| Refusal::NoTrust(key.to_owned()))?;
        let is_name =
            named.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._@+-".contains(&byte));
        if is_name { Ok(named) } else { Err(Refusal::NoName(beginning(named))) }
    }
}

/// A `CredentialProviderResponse` for one registry. It is kept by the kubelet for no longer than the
/// pull: the next one is asked for with a token of its own.
pub(crate) fn response(host: &str, trust: &str, token: &str) -> String {
    let robot = trust.strip_prefix(ROBOT).unwrap_or(trust);
    let credentials = json!({ "username": format!("{ROBOT}{robot}"), "password": token });
    let response = json!({
        "apiVersion": API_VERSION,
        "kind": "CredentialProviderResponse",
        "cacheKeyType": "Registry",
        "cacheDuration": "0s",
        "auth": { host: credentials },
    });
    response.to_string()
}

/// As much of a text as a line of the kubelet's log should hold.
fn beginning(text: &str) -> String {
    text.chars().take(100).collect()
}

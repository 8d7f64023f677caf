//! The origins by which clients reach the registry, chosen from the configured list and never
//! derived from a request (auth R5).

use std::{fmt, net::IpAddr};

use axum::http::{HeaderMap, Uri, header, uri::Authority};

/// Scheme, host and port, such as `https://reg.example.org:5000`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    authority: String,
}

impl Origin {
    /// Reads an absolute URI without path and query. `None` when it has more, or less.
    #[must_use]
    pub fn from_uri(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?;
        let authority = uri.authority()?.as_str();
        let alone = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let plain = matches!(scheme, "http" | "https") && !authority.contains(['@', '"', '\\']);
        (alone && plain)
            .then(|| Self { scheme: scheme.to_owned(), authority: authority.to_ascii_lowercase() })
    }

    /// Whether it is `https`.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.scheme == "https"
    }

    /// Whether its host is this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = match self.authority.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => self.authority.split(':').next().unwrap_or_default(),
        };
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Where clients get tokens: the `realm` of the challenge.
    #[must_use]
    pub fn realm(&self) -> String {
        format!("{}://{}/token", self.scheme, self.authority)
    }
}

/// As browsers write it: a port that the scheme has anyway is left out.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = if self.is_https() { ":443" } else { ":80" };
        let authority = self.authority.strip_suffix(usual).unwrap_or(&self.authority);
        write!(f, "{}://{authority}", self.scheme)
    }
}

/// The origin that the request was sent to, if it is one of `origins`; else the first.
pub(crate) fn choose<'o>(origins: &'o [Origin], uri: &Uri, headers: &HeaderMap) -> &'o Origin {
    // HTTP/2 names the host in the request target, HTTP/1.1 in a header.
    let named = uri.authority().map(Authority::as_str);
    let host = named.or_else(|| headers.get(header::HOST)?.to_str().ok()).unwrap_or_default();
    origins.iter().find(|origin| origin.authority.eq_ignore_ascii_case(host)).unwrap_or(&origins[0])
}
